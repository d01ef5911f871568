# SPDX-License-Identifier: MIT
# Several nodes, one set of keys: real daemons on hosts whose cables are cut.
load helper
load hosts
load cluster

@test "a key that is claimed on one node is held, and seen, on all" {
	cluster 3
	can_claim n2 order
	for id in n1 n2 n3; do
		wait_for 10 shows $id keys order
		[ "$(xattr $id order holder)" = n2 ]
	done
	shows n2 owned order
	hides n1 owned order
	hides n3 owned order
	run -1 touch "$(mnt n1)/keys/order"
	[[ $output == *'File exists'* ]]
	rm "$(mnt n2)/keys/order"
	wait_for 10 hides n3 keys order
	wait_for 10 agree n1 n2 n3
}

@test "of all nodes that want a key at once one gets it" {
	cluster 3
	for round in {1..20}; do
		callers=()
		for id in n1 n2 n3; do
			(can_claim $id "k$round" 2>/dev/null && echo $id) \
				>>"$BATS_TEST_TMPDIR/won-$round" &
			callers+=($!)
		done
		for pid in "${callers[@]}"; do wait "$pid" || true; done
		[ "$(wc -l <"$BATS_TEST_TMPDIR/won-$round")" = 1 ]
		winner=$(<"$BATS_TEST_TMPDIR/won-$round")
		shows "$winner" owned "k$round"
	done
}

@test "only the ring owner may claim, unless claims=any" {
	MEMBER_ARGS=()
	cluster 2
	for key in k{1..20}; do
		owner=$(readlink "$(mnt n1)/route/$key")
		owner=${owner##*/}
		other=$([ "$owner" = n1 ] && echo n2 || echo n1)
		run -1 touch "$(mnt "$other")/keys/$key"
		[[ $output == *'Object is remote'* ]]
		can_claim "$owner" "$key"
	done
}

@test "the keys of one that is killed are offered to the others, notes included" {
	cluster 3
	claim_some n3 12
	keys=$(cd "$(mnt n3)/owned" && echo *)
	[ "$(wc -w <<<"$keys")" = 12 ]
	crash_node n3
	wait_for 10 inherited "$keys" n1 n2
	for i in {1..12}; do
		heir=$(heir_of "n3-$i" n1 n2)
		[ "$(<"$(mnt "$heir")/recover/n3-$i")" = "note of n3-$i" ]
		[ "$(xattr "$heir" "n3-$i" reason)" = dead ]
		[ "$(xattr "$heir" "n3-$i" from)" = n3 ]
		mv "$(mnt "$heir")/recover/n3-$i" "$(mnt "$heir")/owned/"
	done
	wait_for 10 agree n1 n2
}

@test "so are those of the one that leads" {
	cluster 3
	who=$(leader n1)
	claim_some "$who" 5
	others=$(printf '%s\n' n1 n2 n3 | grep -vx "$who")
	keys=$(cd "$(mnt "$who")/owned" && echo *)
	crash_node "$who"
	wait_for 15 inherited "$keys" $others
	for id in $others; do wait_for 10 is "$id" ready; done
}

@test "an heir's watch is woken" {
	cluster 3
	claim_some n3 6
	for id in n1 n2; do watch $id recover; done
	crash_node n3
	wait_for 10 bash -c 'cat "$1"/n?.events | grep CREATE | sort | uniq -c |
		awk "{ n += \$1 == 1 } END { exit n != 6 }"' - "$BATS_TEST_TMPDIR"
}

@test "holes 6: who is stopped loses its keys, and shows none when it goes on" {
	cluster 3
	claim_some n2 4
	keys=$(cd "$(mnt n2)/owned" && echo *)
	kill -STOP "$(pid_of n2)"
	wait_for 10 inherited "$keys" n1 n3
	kill -CONT "$(pid_of n2)"
	[ -z "$(ls "$(mnt n2)/owned")" ]
	wait_for 10 is n2 ready
	inherited "$keys" n1 n2 n3
	can_claim n2 again
}

@test "two that are cut from each other both halt" {
	cluster 2
	can_claim n1 before
	wait_for 10 shows n2 keys before
	split 1 2
	wait_for 10 is n1 isolated
	wait_for 10 is n2 isolated
	for id in n1 n2; do
		run -1 touch "$(mnt $id)/keys/$id"
		[[ $output == *'Read-only file system'* ]]
		wait_for 10 shows_nothing $id
		shows $id keys before
	done
	heal
	wait_for 10 is n1 ready
	wait_for 10 is n2 ready
	can_claim n1 after
	wait_for 10 shows n2 keys after
	wait_for 10 agree n1 n2
}

@test "of three, cut into two and one, the two go on and the one halts" {
	cluster 3
	claim_some n3 5
	keys=$(cd "$(mnt n3)/owned" && echo *)
	split "1 2" 3
	wait_for 10 is n3 isolated
	wait_for 10 shows_nothing n3
	wait_for 10 inherited "$keys" n1 n2
	can_claim n1 meanwhile
	run -1 touch "$(mnt n3)/keys/n3-6"
	[[ $output == *'Read-only file system'* ]]
	heal
	wait_for 10 is n3 ready
	wait_for 10 shows n3 keys meanwhile
	can_claim n3 n3-6
	inherited "$keys" n1 n2 n3
	wait_for 10 agree n1 n2 n3
}

@test "holes 8: the first owner's listing is empty before the heir's is not" {
	cluster 3
	claim_some n3 1
	split "1 2" 3
	for ((end = EPOCHSECONDS + 20; EPOCHSECONDS < end;)); do
		heir=$(heir_of n3-1 n1 n2)
		old=$(shows n3 owned n3-1 && echo yes || true)
		[ -z "$heir" ] || [ -z "$old" ] || fail "two have it"
		[ -z "$heir" ] || return 0
	done
	fail "it was never inherited"
}

@test "after all were stopped two of three come back, and then the first" {
	cluster 3
	claim_some n1 3
	claim_some n2 3
	stop_nodes
	for k in 3 2; do launch_again $k; done
	for k in 2 3; do started n$k; done
	for k in 2 3; do wait_for 20 is n$k ready; done
	can_claim n2 meanwhile
	launch_again 1
	started n1
	wait_for 20 is n1 ready
	[ "$(ls "$(mnt n1)/keys" | wc -l)" = 7 ]
	wait_for 10 agree n1 n2 n3
}

@test "holes 21: a node that lost its disk comes back as a new one" {
	cluster 3
	can_claim n1 k
	crash_node n3
	rm -r "$BATS_TEST_TMPDIR/n3/state"
	wait_for 10 sees n1 n3 dead
	member 3
	wait_for 10 is n3 ready
	wait_for 10 shows n3 keys k
	wait_for 10 agree n1 n2 n3
}

@test "a node far behind is given the store" {
	cluster 3
	crash_node n3
	seq 1 20000 | sed 's/^/k/' | xargs -n 2000 "$RINGFS_BIN" claim -m "$(mnt n1)"
	for i in {1..30}; do
		seq 1 2000 | sed "s/^/x$i-/" |
			xargs -n 2000 "$RINGFS_BIN" claim -m "$(mnt n2)"
	done
	member 3
	wait_for 20 is n3 ready
	[ "$(ls "$(mnt n3)/keys" | wc -l)" = 80000 ]
	wait_for 10 agree n1 n2 n3
}
