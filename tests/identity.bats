# SPDX-License-Identifier: MIT
# Who a node is, after its state was moved, copied, or set back: real daemons on
# hosts of their own. See notes in ring/group_moved.c.
load helper
load hosts
load cluster

state_dir() { # ID
	echo "$BATS_TEST_TMPDIR/$1/state"
}

# As rsync to another disk does: the same bytes, other files.
move() { # ID...
	local id
	for id; do
		cp -a "$(state_dir "$id")" "$BATS_TEST_TMPDIR/moved"
		rm -r "$(state_dir "$id")"
		mv "$BATS_TEST_TMPDIR/moved" "$(state_dir "$id")"
	done
}

fact_is() { # ID NAME WORD VALUE
	[ "$(fact "$1" "$2" "$3")" = "$4" ]
}

leads() { # ID
	[ "$(leader "$1")" = "$1" ]
}

says() { # ID TEXT: in its log
	grep -qF "$2" "$(log_of "$1")"
}

# A start that ends with a sentence, in $output.
refused_start() { # STATUS K ID [ARG...]
	local status=$1 k=$2 id=$3
	shift 3
	mkdir -p "$(mnt "$id")"
	run "-$status" on "$k" env RINGFS_TEST="$BATS_TEST_TMPDIR" timeout 40 \
		"$RINGFS_BIN" mount -f --state "$(state_dir "$id")" \
		--name "$id" --bind "$(addr "$k")" "$@" "$(mnt "$id")"
}

@test "a voter that was moved is filled again, and votes as another server" {
	cluster 3
	can_claim n1 early
	stop_node n3
	can_claim n1 late
	move n3
	back 3
	says n3 'others have gone on'
	wait_for 15 voters n1 3
	shows n3 keys late
	can_claim n3 own
	: >"$(log_of n3)"
	stop_node n3
	back 3
	run ! says n3 'was moved'
}

@test "the first node may be moved, too, and then all at once" {
	cluster 3
	can_claim n1 k
	stop_node n1
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	move n1
	back 1
	wait_for 15 voters n2 3
	stop_nodes
	move n1 n2 n3
	for k in 3 2 1; do launch_again $k; done
	for k in 1 2 3; do wait_for 20 serves n$k; done
	for k in 1 2 3; do wait_for 15 is n$k ready; done
	shows n1 keys k
	wait_for 15 voters n1 3
}

@test "a state that was set back, at another address, is refused" {
	cluster 3
	stop_node n3
	cp -a "$(state_dir n3)" "$BATS_TEST_TMPDIR/saved"
	back 3
	can_claim n3 k
	crash_node n3
	wait_for 10 sees n1 n3 dead
	rm -r "$(state_dir n3)"
	mv "$BATS_TEST_TMPDIR/saved" "$(state_dir n3)"
	refused_start 78 3 n3 --key-file "$(key_of n1)" --bind 10.77.0.3:7401
	[[ $output == *'copied or restored'*'--state'* ]]
}

@test "a client is not the first of a cluster; the only voter may become one" {
	hosts 2
	for new in "" --new; do
		refused_start 78 1 n1 --client $new
		[[ $output == *'a client does not vote'*'--join'* ]]
	done
	member 1
	stop_node n1
	member 1 --client
	can_claim n1 k
	voters n1 1
	member 2
	wait_for 10 fact_is n1 n1 role client
	wait_for 10 leads n2
	wait_for 10 grep -qx 'standbys 1' "$(mnt n2)/status/quorum"
	voters n2 1
	can_claim n1 more
	ringfs leave -m "$(mnt n1)"
	gone "$(pid_of n1)"
	rm "$BATS_TEST_TMPDIR/n1.pid"
	can_claim n2 last
}

@test "who is forgotten comes back by itself; a log that is gone, with the way out" {
	cluster 3
	crash_node n3
	wait_for 10 sees n1 n3 dead
	ringfs forget -m "$(mnt n1)" n3
	wait_for 10 voters n1 2
	can_claim n1 k
	back 3
	wait_for 10 voters n1 3
	shows n3 keys k
	# The first node's state knows no other that would fill it.
	stop_node n1
	rm -r "$(state_dir n1)/wal"
	refused_start 78 1 n1
	[[ $output == *'the log is missing'*'join again'* ]]
}
