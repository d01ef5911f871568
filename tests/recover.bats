# SPDX-License-Identifier: MIT
# A majority that is lost for good, and what else may be wrong with a state: real
# daemons on hosts of their own.
load helper
load hosts
load cluster

YES=--yes-lose-what-only-they-had

state_dir() { # ID
	echo "$BATS_TEST_TMPDIR/$1/state"
}

recover() { # ID [ARG...]
	local id=$1
	shift
	ringfs recover-quorum --state "$(state_dir "$id")" "$@"
}

# Three voters; all keys are of n1 but one.
three() {
	cluster 3
	for key in a b c; do claim_noted n1 $key; done
	can_claim n3 own
	wait_for 10 shows n3 keys c
}

# n1 and n2 burn, at once, with their disks; the key is known elsewhere.
lose_two() {
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	kill -STOP "$(pid_of n1)" "$(pid_of n2)"
	crash_node n1
	crash_node n2
	rm -r "$(state_dir n1)" "$(state_dir n2)"
	stop_node n3
}

start_third() {
	start_on 3 n3 --key-file "$BATS_TEST_TMPDIR/key"
}

newcomer() { # K [ARG...]
	local k=$1
	shift
	start_on "$k" "n$k" "${MEMBER_ARGS[@]}" --join "$(addr 3)" \
		--key-file "$BATS_TEST_TMPDIR/key" "$@"
}

refused() { # K [ARG...]: a start that ends with a sentence, in $output
	local k=$1 dir=$BATS_TEST_TMPDIR/n$1
	shift
	mkdir -p "$dir/mnt"
	run -78 on "$k" env RINGFS_TEST="$BATS_TEST_TMPDIR" timeout 30 \
		"$RINGFS_BIN" mount -f --state "$dir/state" --name "n$k" \
		--bind "$(addr "$k")" "${MEMBER_ARGS[@]}" "$@" "$dir/mnt"
}

@test "of three, two are lost: the third goes on, and offers their keys" {
	three
	lose_two
	run -1 recover n3
	[[ $output == *'term and index: '* ]]
	[[ $output == *'voters: 3'* ]]
	[[ $output == *'server: n1, votes, 3 keys: is dropped'* ]]
	[[ $output == *'server: n3, votes, 1 keys: stays'* ]]
	[[ $output == *'nothing was changed'*'acknowledged'*'are lost'* ]]
	run -0 recover n3 $YES
	[[ $output == *'recovered: generation 1'* ]]
	start_third
	[ "$(cat "$(mnt n3)"/keys/a)" = "note of a" ]
	touch "$(mnt n3)/keys/new"
	for key in a b c own; do wait_for 20 shows n3 recover $key; done
	[ "$(cat "$(mnt n3)"/recover/b)" = "note of b" ]
	newcomer 1
	wait_for 10 voters n1 2
	shows n1 keys new
	touch "$(mnt n1)/keys/newer"
	wait_for 10 shows n3 keys newer
}

@test "one that is left of the old ones is told to begin anew, and may" {
	three
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	crash_node n1
	rm -r "$(state_dir n1)"
	stop_node n3
	stop_node n2
	recover n3 $YES
	start_third
	refused 2 --key-file "$BATS_TEST_TMPDIR/key"
	[[ $output == *'recovered without this node'*'remove the state'* ]]
	rm -r "$(state_dir n2)"
	wait_for 10 sees n3 n2 dead
	newcomer 2
	wait_for 10 is n2 ready
	shows n2 keys own
}

@test "one that still runs is told, too, and takes no part" {
	three
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	crash_node n1
	rm -r "$(state_dir n1)"
	stop_node n3
	wait_for 10 is n2 isolated
	recover n3 $YES
	start_third
	wait_for 20 grep -q 'recovered without this node' "$(mnt n2)/status/reason"
	run -1 touch "$(mnt n2)/keys/x"
	[[ $output == *'Read-only file system'* ]]
	[ -z "$(ls "$(mnt n2)/owned")" ]
	[ -z "$(ls "$(mnt n2)/recover")" ]
	touch "$(mnt n3)/keys/x"
}

@test "a majority that lives is not harmed by one that was recovered" {
	three
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	stop_node n3
	recover n3 $YES
	start_third
	for i in {1..5}; do touch "$(mnt n1)/keys/more$i" && sleep 0.5; done
	is n1 ready
	is n2 ready
	wait_for 10 grep -q 'still has a majority' "$(log_of n1)" "$(log_of n2)"
	run ! shows n3 keys more5
}

@test "it refuses while the daemon runs, and without a majority to recover" {
	hosts 1
	member 1
	run -78 recover n1 $YES
	[[ $output == *'in use by another ringfs'* ]]
	touch "$(mnt n1)/keys/k"
	stop_node n1
	run -1 recover n1 $YES
	[[ $output == *'nothing to recover'* ]]
	run -64 recover n1 --yes
	[[ $output == *'in full'* ]]
	run -64 ringfs recover-quorum
	run -78 ringfs recover-quorum --state "$BATS_TEST_TMPDIR"
	[[ $output == *'no state of a node'* ]]
	run -78 ringfs recover-quorum --state "$BATS_TEST_TMPDIR/none" $YES
	start_on 1 n1 "${MEMBER_ARGS[@]}"
	shows n1 keys k
}

@test "it refuses a damaged log, and names file and offset" {
	three
	lose_two
	log=$(ls "$(state_dir n3)"/wal/*.seg | head -n 1)
	printf '\377' | dd of="$log" bs=1 seek=4140 conv=notrunc status=none
	run -78 recover n3 $YES
	[[ $output == *"$log: damaged at offset"* ]]
	rm -r "$(state_dir n3)/wal"
	run -78 recover n3 $YES
	[[ $output == *'the log is missing'* ]]
}

@test "killed at any time it has done nothing, or all" {
	local done=0
	three
	lose_two
	cp -r "$(state_dir n3)" "$BATS_TEST_TMPDIR/saved"
	for ms in 0 1 2 3 5 8 {1640..1700..6} 1800; do
		rm -r "$(state_dir n3)"
		cp -r "$BATS_TEST_TMPDIR/saved" "$(state_dir n3)"
		spawn "$RINGFS_BIN" recover-quorum --state "$(state_dir n3)" \
			$YES >/dev/null 2>&1
		pid=$!
		sleep "$(printf '0.%04d' $((ms % 1000 * 10)))"
		((ms < 1000)) || sleep 1
		kill -KILL $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		run -1 recover n3
		if [[ $output == *'nothing to recover'* ]]; then
			[[ $output == *$'generation: 1\n'*$'voters: 1\n'* ]]
			done=$((done + 1))
		else
			[[ $output == *$'generation: 0\n'*$'voters: 3\n'* ]]
		fi
	done
	((done > 0))
	echo "$done were done"
	[[ $output == *'nothing to recover'* ]] || recover n3 $YES
	start_third
	is n3 ready
}

# ---- What else may be wrong ----

@test "one that was wiped and restarted at once gets its name back" {
	members 3
	wait_for 20 voters n3 3
	kill -KILL "$(herald_of n3)" # no proof that the daemon is gone
	crash_node n3
	rm -r "$(state_dir n3)"
	member 3
	is n3 ready
	touch "$(mnt n3)/keys/k"
	wait_for 10 shows n1 keys k
}

@test "a name that a living node has is waited for, and then refused" {
	members 2
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	local dir=$BATS_TEST_TMPDIR/x
	mkdir -p "$dir/mnt"
	run -78 on 2 env RINGFS_TEST="$BATS_TEST_TMPDIR" timeout 30 \
		"$RINGFS_BIN" mount -f --state "$dir/state" --name n1 \
		--bind 10.77.0.2:7401 --join "$(addr 1)" \
		--key-file "$BATS_TEST_TMPDIR/key" "$dir/mnt"
	[[ $output == *'the name n1 is taken by the member at 10.77.0.1:7400'* ]]
	is n1 ready
	is n2 ready
}

@test "a voter whose log was deleted comes back as another server" {
	three
	stop_node n2
	rm -r "$(state_dir n2)/wal"
	member 2
	wait_for 10 is n2 ready
	wait_for 20 voters n1 3
	touch "$(mnt n2)/keys/again"
	wait_for 10 shows n1 keys again
	shows n2 keys a
}

@test "of a voter and a copy of it the older start ends, and says why" {
	local status=0 pid
	three
	cp "$(key_of n1)" "$BATS_TEST_TMPDIR/key"
	pid=$(pid_of n2)
	mkdir "$BATS_TEST_TMPDIR/x"
	cp -r "$(state_dir n2)" "$BATS_TEST_TMPDIR/x/state"
	ON="nsenter --net=/run/netns/$(host_ns 2)" BIND=10.77.0.2:7401 \
		launch_node x --name n2 --key-file "$BATS_TEST_TMPDIR/key"
	wait_for 10 gone "$pid"
	rm "$BATS_TEST_TMPDIR/n2.pid"
	wait "$pid" || status=$?
	[ "$status" = 78 ]
	grep -q 'copied or restored' "$(log_of n2)"
	wait_for 10 is x ready
	for id in n1 n3 x; do touch "$(mnt $id)/keys/of-$id"; done
}

@test "a flipped bit in log or store is found, and named" {
	three
	stop_node n3
	cp -r "$(state_dir n3)" "$BATS_TEST_TMPDIR/saved"
	log=$(ls "$(state_dir n3)"/wal/*.seg | head -n 1)
	printf '\376' | dd of="$log" bs=1 seek=4200 conv=notrunc status=none
	refused 3 --key-file "$(key_of n1)"
	[[ $output == *"$log: damaged at offset"* ]]
	rm -r "$(state_dir n3)"
	cp -r "$BATS_TEST_TMPDIR/saved" "$(state_dir n3)"
	store=$(ls "$(state_dir n3)"/store/data.mdb)
	printf '\376\375' | dd of="$store" bs=1 seek=40 conv=notrunc status=none
	refused 3 --key-file "$(key_of n1)"
	[[ $output == *'store'*'damaged'* ]]
	rm -r "$(state_dir n3)"
	cp -r "$BATS_TEST_TMPDIR/saved" "$(state_dir n3)"
	start_on 3 n3 --key-file "$(key_of n1)"
	wait_for 10 is n3 ready
}

@test "of two that leave at once, and then the last, each may" {
	three
	ringfs leave -m "$(mnt n2)" &
	ringfs leave -m "$(mnt n3)" &
	wait_for 40 gone "$(pid_of n2)"
	wait_for 40 gone "$(pid_of n3)"
	rm "$BATS_TEST_TMPDIR"/n[23].pid
	wait_for 10 voters n1 1
	shows n1 keys a
	wait_for 10 shows n1 recover own
	pid=$(pid_of n1)
	ringfs leave --force -m "$(mnt n1)" # with keys, and alone
	gone "$pid"
	rm "$BATS_TEST_TMPDIR/n1.pid"
}

@test "ten nodes join at once" {
	hosts 10
	member 1
	for k in {2..10}; do launch_member $k; done
	for k in {2..10}; do wait_for 30 serves "n$k"; done
	for k in {1..10}; do wait_for 10 is "n$k" ready; done
	wait_for 30 voters n1 5
	touch "$(mnt n10)/keys/k"
	for k in {1..10}; do wait_for 10 shows "n$k" keys k; done
}

@test "a new node is sent hundreds of long notes, and nobody waits for it" {
	hosts 3
	member 1
	member 2
	head -c 65536 /dev/urandom >"$BATS_TEST_TMPDIR/note"
	for ((i = 1; i <= ${NOTES:-500}; i++)); do
		cat "$BATS_TEST_TMPDIR/note" >"$(mnt n1)/keys/k$i"
	done
	launch_member 3
	worst=0
	for i in {1..100}; do
		from=${EPOCHREALTIME/./}
		touch "$(mnt n2)/keys/during$i"
		took=$(((${EPOCHREALTIME/./} - from) / 1000))
		((took <= worst)) || worst=$took
		sleep 0.05
	done
	wait_for 40 serves n3
	cmp "$BATS_TEST_TMPDIR/note" "$(mnt n3)/keys/k${NOTES:-500}"
	echo "# the longest claim took $worst ms; kB: $(
		for id in n1 n3; do
			awk '/VmHWM/ { print $2 }' "/proc/$(pid_of $id)/status"
		done | paste -s -d ' ')" >&3
	((worst < 2000))
}
