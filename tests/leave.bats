# SPDX-License-Identifier: MIT
# Nodes that leave: one, all but one, the last; in a minority, by force, and not
# after all. And keys that are finished by another node than holds them.
load helper
load hosts
load cluster

leave() { # ID [OPTION...]: in the background; its words are in leave-ID
	local id=$1
	shift
	spawn "$RINGFS_BIN" leave "$@" -m "$(mnt "$id")" \
		>"$BATS_TEST_TMPDIR/leave-$id" 2>&1
}

ended() { # ID [STATUS]: the daemon ends by itself
	local pid status=0
	pid=$(pid_of "$1")
	wait_for 20 gone "$pid"
	rm "$BATS_TEST_TMPDIR/$1.pid"
	wait "$pid" || status=$?
	((status == 0)) || fail "$1: exit status $status"
}

reason_has() { # ID TEXT
	grep -qF "$2" "$(mnt "$1")/status/reason"
}

counts() { # ID DIR N
	[ "$(names "$1" "$2" | wc -l)" = "$3" ]
}

stays() { # ID...: one of them, which is $last
	local id n=0
	for id; do
		gone "$(pid_of "$id")" || { n=$((n + 1)) && last=$id; }
	done
	((n == 1))
}

@test "who leaves works on until it may go; the last one stays with the keys" {
	cluster 3
	claim_some n3 8
	keys=$(names n3 owned)
	watch n3 owned status
	echo leave >"$(mnt n3)/ctl"
	is n3 leaving
	refused n3 more
	reason_has n3 'this node is leaving'
	ended n3
	wait_for 5 inherited "$keys" n1 n2
	for key in $keys; do
		[ "$(xattr n1 "$key" reason)" = left ]
		[ "$(xattr n1 "$key" from)" = n3 ]
	done
	sees n1 n3 left
	wait_for 10 voters n1 2
	leave n1 # and now all that are left, at once
	leave n2
	wait_for 20 stays n1 n2
	stays n1 n2
	[ "$last" = n1 ] && other=n2 || other=n1
	ended $other
	wait_for 10 is "$last" ready
	reason_has "$last" 'it did not leave'
	wait_for 5 grep -q 'it stays: ' "$BATS_TEST_TMPDIR/leave-$last"
	wait_for 5 inherited "$keys" "$last"
	# shellcheck disable=SC2086 # a list
	ringfs finish -m "$(mnt "$last")" $keys
	ringfs leave -m "$(mnt "$last")"
	ended "$last"
}

@test "28: five nodes, and all but one leave at once" {
	cluster 5
	for id in n1 n2 n3 n4 n5; do claim_some $id 4; done
	keys=$(names n1 keys)
	for id in n2 n3 n4 n5; do leave $id; done
	for id in n2 n3 n4 n5; do ended $id; done
	wait_for 10 voters n1 1
	wait_for 10 is n1 ready
	can_claim n1 after
	[ "$(names n1 keys | grep -vx after)" = "$keys" ]
	wait_for 5 counts n1 recover 16
	for id in n2 n3 n4 n5; do
		[ ! -s "$BATS_TEST_TMPDIR/leave-$id" ] ||
			fail "$(cat "$BATS_TEST_TMPDIR/leave-$id")"
	done
	run -1 --separate-stderr ringfs leave -m "$(mnt n1)"
	[[ $stderr == *'it stays: '*'the 21 unfinished keys' ]]
	is n1 ready
	run -1 bash -c 'echo leave >"$1/ctl"' - "$(mnt n1)"
	[[ $output == *'Device or resource busy' ]]
	run -0 --separate-stderr ringfs leave --force -m "$(mnt n1)"
	[[ $stderr == *"21 unfinished keys are in this node's state alone"* ]]
	ended n1
	member 1
	wait_for 10 is n1 ready
	[ "$(names n1 recover | wc -l)" = 21 ]
}

@test "by force a voter goes alone, says what it costs, and never votes again" {
	MEMBER_ARGS=()
	cluster 2
	key=$(key_of n1)
	cut_power n1
	wait_for 10 is n2 isolated
	echo leave >"$(mnt n2)/ctl"
	is n2 leaving
	run -0 --separate-stderr ringfs leave --force -m "$(mnt n2)"
	[[ $stderr == *'unless a majority of the voters confirms it in 5 s'* ]]
	ended n2
	grep -q 'this state must not be used again' "$(log_of n2)"
	run -78 ringfs mount -f --state "$BATS_TEST_TMPDIR/n2/state" \
		--key-file "$key" --bind 127.0.0.1:0 "$(mnt n2)"
	[[ $output == *'has left by force'* ]]
	ringfs recover-quorum --state "$BATS_TEST_TMPDIR/n2/state" \
		--yes-lose-what-only-they-had
	back 2
}

@test "resume takes a leave back: it holds, claims and votes as before" {
	MEMBER_ARGS=()
	cluster 2
	key=k
	until can_claim n2 $key 2>/dev/null; do key+=k; done
	kill -STOP "$(pid_of n1)" # nobody confirms
	leave n2
	wait_for 5 is n2 leaving
	shows n2 owned $key
	echo resume >"$(mnt n2)/ctl"
	kill -CONT "$(pid_of n1)"
	wait_for 5 grep -q 'it stays: ' "$BATS_TEST_TMPDIR/leave-n2"
	wait_for 15 is n2 ready
	wait_for 15 voters n2 2
	wait_for 5 shows n2 keys $key
	[ "$(fact n1 n2 draining)" = 0 ]
}

# ---- Finished by another ----

@test "4: finish --force reaches the holder, whose command is stopped" {
	cluster 3
	mkdir "$BATS_TEST_TMPDIR/w"
	ringfs submit --note x -m "$(mnt n1)" job
	for k in 1 2 3; do
		spawn "$RINGFS_BIN" work -m "$(mnt n$k)" -- \
			bash -c 'echo $$ >"$0/$1"; exec sleep 60' \
			"$BATS_TEST_TMPDIR/w" >/dev/null 2>&1
		echo $! >>"$BATS_TEST_TMPDIR/workers"
	done
	wait_for 10 [ -s "$BATS_TEST_TMPDIR/w/job" ]
	holder=$(xattr n1 job holder)
	by=$(others 3 "$holder" | head -n 1)
	run -1 ringfs finish -m "$(mnt "$by")" job
	watch "$holder" owned
	ringfs finish --force -m "$(mnt "$by")" job
	hides "$by" keys job
	hides "$holder" owned job
	wait_for 2 heard "$holder" 'owned DELETE job' 1
	wait_for 5 gone "$(cat "$BATS_TEST_TMPDIR/w/job")"
	ringfs finish --force -m "$(mnt "$by")" job # gone already
	while read -r pid; do
		kill "$pid"
		wait_for 5 gone "$pid"
	done <"$BATS_TEST_TMPDIR/workers"
}

@test "force with a token, parked and offered keys, and in a batch" {
	cluster 3
	claim_some n1 3
	claim_some n2 3
	wait_for 2 shows n3 keys n2-3
	token=$(xattr n3 n2-1 token)
	run -1 --separate-stderr ringfs finish --force --token 999999 \
		-m "$(mnt n3)" n2-1
	[[ $stderr == *'no life with that token'* ]]
	run -1 bash -c 'echo "force-at 999999 n2-1" >"$1/ctl"' - "$(mnt n3)"
	ringfs finish --force --token "$token" -m "$(mnt n3)" n2-1
	mv "$(mnt n2)/owned/n2-2" "$(mnt n2)/parked/"
	crash_node n2
	wait_for 10 inherited n2-3 n1 n3
	ringfs finish --force -m "$(mnt n3)" n1-1 n2-2 n2-3 nothing
	exec 8<>"$(mnt n3)/ctl"
	printf 'force n1-2\nclaim new\nforce new\nforce none\n' >&8
	run -0 cat <&8
	exec 8>&-
	output_is <<-'EOF'
		ok n1-2
		ok new
		ok new
		ENOENT none
	EOF
	[ "$(names n3 keys)" = n1-3 ]
	echo 'force n1-3' >"$(mnt n3)/ctl"
	wait_for 2 counts n1 owned 0
}

@test "a holder that is stopped or cut off loses no key, and a leave there is none" {
	cluster 3
	claim_some n3 3
	wait_for 2 shows n1 keys n3-3
	ringfs drain -m "$(mnt n3)"
	kill -STOP "$(pid_of n3)"
	run --separate-stderr ringfs finish --force -m "$(mnt n1)" n3-1
	((status == 75)) || ((status == 0)) || fail "$status $stderr"
	split "1 2" 3
	kill -CONT "$(pid_of n3)"
	leave n3 --timeout 3
	LEAVE=$!
	wait_for 15 sees n1 n3 dead
	wait_for 10 hides n3 owned n3-3
	ringfs finish --force -m "$(mnt n1)" n3-2 # its heir is asked
	hides n1 keys n3-2
	run -75 ringfs finish --force -m "$(mnt n3)" n3-3
	wait "$LEAVE" && fail "it left"
	grep -q 'not confirmed after 3 s, so it stays: ' \
		"$BATS_TEST_TMPDIR/leave-n3"
	grep -q 'not in reach: n1, n2' "$BATS_TEST_TMPDIR/leave-n3"
	heal
	wait_for 15 is n3 draining # as before
	wait_for 5 inherited n3-3 n1 n2
	ringfs resume -m "$(mnt n3)"
	wait_for 5 is n3 ready
	wait_for 15 voters n1 3
	wait_for 5 agree n1 n2 n3
}
