#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What the tests of sevnup say of behaviour, SV-1 to SV-31, asked of a cluster.
#
# Nothing here can ask for SV-2 (nothing patches a lookup, so none is left alone),
# SV-10 (looking never adds), SV-20 (no timer is given to a caller), SV-23 and
# SV-26 (there is no cache to go around) and SV-30 (keys are not loaded later).
# SV-4 is spine.bats' restart of one node. That at most one pass waits behind a
# running one, SV-19, is the log's: one entry for all that has changed meanwhile.
load helper
load hosts
load cluster

MEMBER_ARGS=() # claims=owner, as there

owner_of() { # KEY: its ring owner, as n1 says
	basename "$(readlink "$(mnt n1)/route/$1")"
}

# The first N names PREFIX-I that ID owns.
names_for() { # ID PREFIX N
	local i n=0
	for ((i = 0; n < $3; i++)); do
		[ "$(owner_of "$2-$i")" = "$1" ] || continue
		echo "$2-$i"
		((++n))
	done
}

claim_all() { # ID KEY...
	local id=$1
	shift
	"$RINGFS_BIN" claim -m "$(mnt "$id")" "$@"
}

claim_read() { # ID: the keys of standard input
	xargs "$RINGFS_BIN" claim -m "$(mnt "$1")"
}

count() { # ID EVENT: of status/events
	awk -v word="$2" '$1 == word { print $2 }' "$(mnt "$1")/status/events"
}

is_empty() { # ID DIR
	[ -z "$(names "$1" "$2")" ]
}

index() { # ID: of the last entry of the log
	cat "$(mnt "$1")/status/index"
}

recover_events() { # on all nodes that are watched: the keys, sorted
	cat "$BATS_TEST_TMPDIR"/n?.events |
		sed -n 's/^recover CREATE //p' | sort
}

events_are() { # "KEY...": at least
	[ "$(recover_events | wc -l)" -ge "$(wc -w <<<"$1")" ]
}

# Of each key one CREATE came, and of no other.
all_told() { # "KEY..."
	wait_for 10 events_are "$1"
	diff <(tr ' ' '\n' <<<"$1" | sort) <(recover_events)
}

@test "SV-3 SV-6: a cluster that starts recovers on each node the keys of its vnodes, and no others; late, too" {
	cluster 2
	mapfile -t one < <(names_for n1 k 4)
	mapfile -t two < <(names_for n2 k 4)
	claim_all n1 "${one[@]}"
	claim_all n2 "${two[@]}"
	rm "$(mnt n1)/keys/${one[0]}"
	kill -STOP "$(pid_of n1)" "$(pid_of n2)"
	cut_power n1
	cut_power n2
	launch_again 2
	sleep 0.5
	[ ! -e "$(mnt n2)/status/state" ] || ! is n2 ready # nothing without a ring
	back 1
	wait_for 10 is n2 ready
	wait_for 10 inherited "${one[*]:1} ${two[*]}" n1 n2
	[ "$(names n1 recover)" = "$(printf '%s\n' "${one[@]:1}" | sort)" ]
	[ "$(names n2 recover)" = "$(printf '%s\n' "${two[@]}" | sort)" ]
	[ "$(xattr n1 "${two[0]}" reason)" = restart ]
	[ -z "$(names n1 owned)$(names n2 owned)" ]
	[ "$(names n2 keys | wc -l)" = 7 ]
}

@test "SV-7: of a ring that changes, each gained key comes once, and no set is lost; SV-5: done is done, not done stays" {
	cluster 3
	for id in n1 n2 n3; do
		mapfile -t keys < <(names_for $id k 5)
		claim_all $id "${keys[@]}"
	done
	lost=$(names n3 owned)
	before=$(names n1 keys)
	watch n1 recover owned
	watch n2 recover owned
	crash_node n3
	wait_for 10 inherited "$lost" n1 n2
	[ "$(names n1 keys)" = "$before" ]
	wait_for 10 agree n1 n2
	all_told "$lost"
	for key in $lost; do
		heir=$(heir_of "$key" n1 n2)
		[ "$(owner_of "$key")" = "$heir" ]
		mv "$(mnt "$heir")/recover/$key" "$(mnt "$heir")/owned/"
	done
	# What n1 and n2 had was not touched.
	run -1 grep -hE '^owned (CREATE|DELETE)' "$BATS_TEST_TMPDIR"/n?.events
	handled=$(head -n 1 <<<"$lost") open=$(tail -n 1 <<<"$lost")
	heir=$(held_by "$handled" n1 n2)
	rm "$(mnt "$heir")/owned/$handled"
	wait_for 10 hides n1 keys "$handled"
	heir=$(held_by "$open" n1 n2)
	mv "$(mnt "$heir")/owned/$open" "$(mnt "$heir")/recover/"
	wait_for 10 shows "$heir" recover "$open"
	shows n1 keys "$open"
}

@test "SV-8 SV-9 SV-14 SV-16: work that fails is told, counted and tried again, and all comes to the same end" {
	cluster 2
	mapfile -t keys < <(names_for n2 k 6)
	claim_all n2 "${keys[@]}"
	crash_node n2 # two nodes: nobody is there to agree
	back 2
	wait_for 10 is n1 ready
	all=$(printf '%s\n' "${keys[@]}" | sort)
	wait_for 10 inherited "$all" n1 n2
	cat >"$BATS_TEST_TMPDIR/flaky" <<-'EOT'
		#!/bin/sh
		mkdir "$0.$1" 2>/dev/null && exit 1 # the first time
		echo "$1" >>"$0.done"
	EOT
	chmod +x "$BATS_TEST_TMPDIR/flaky"
	for id in n1 n2; do
		spawn "$RINGFS_BIN" work -m "$(mnt $id)" -- \
			"$BATS_TEST_TMPDIR/flaky" 2>>"$BATS_TEST_TMPDIR/worker.log"
		workers+=($!)
	done
	for id in n1 n2; do wait_for 20 is_empty $id keys; done
	kill "${workers[@]}"
	wait "${workers[@]}" || true
	diff <(sort "$BATS_TEST_TMPDIR/flaky.done") <(echo "$all")
	[ $(($(count n1 gives) + $(count n2 gives))) -ge 6 ]
	[ $(($(count n1 takes) + $(count n2 takes))) = 12 ]
	for key in $all; do grep -q "$key" "$BATS_TEST_TMPDIR/worker.log"; done
	for what in takes gives finishes; do
		grep -q "$what" "$(mnt n2)/status/metrics.prom"
	done
}

@test "SV-1 SV-11 SV-13 SV-17: without options calm and vnodes are set; looking adds nothing, adding another's key is refused, finishing ends that key alone; SV-24 SV-27 SV-31: a second time writes nothing" {
	cluster 2
	for id in n1 n2; do
		grep -qx 'vnodes 4096' "$(mnt $id)/status/limits"
		grep -qx 'calm_ms 500' "$(mnt $id)/status/limits"
	done
	cmp "$(mnt n1)/status/vnodes" "$(mnt n2)/status/vnodes"
	mapfile -t mine < <(names_for n1 k 3)
	mapfile -t theirs < <(names_for n2 k 3)
	[ "$(mnt n1)/route/${mine[0]}" -ef "$(mnt n1)/peers/self" ]
	[ ! "$(mnt n1)/route/${theirs[0]}" -ef "$(mnt n1)/peers/self" ]
	"$RINGFS_BIN" route -m "$(mnt n1)" "${mine[0]}" >/dev/null
	refused n1 "${theirs[0]}" 'Object is remote'
	for id in n1 n2; do [ -z "$(names $id keys)" ]; done
	run -1 "$RINGFS_BIN" claim -m "$(mnt n1)" "${theirs[0]}"
	[[ $output == *'n2 is its ring owner'* ]]
	claim_all n1 "${mine[@]}"
	claim_all n2 "${theirs[@]}"
	rm "$(mnt n1)/keys/${mine[1]}"
	sync "$(mnt n2)/status"
	[ "$(names n2 keys)" = "$(printf '%s\n' "${mine[@]}" "${theirs[@]}" |
		grep -vxF "${mine[1]}" | sort)" ]
	wait_for 10 agree n1 n2
	index=$(index n1)
	for i in {1..5}; do
		refused n1 "${mine[0]}" 'File exists'
		run -1 rm "$(mnt n1)/keys/${mine[1]}"
		run -1 cat "$(mnt n2)/keys/${mine[1]}"
	done
	[ "$(index n1)" = "$index" ]
}

@test "SV-12 SV-15 SV-25 SV-28 SV-29: what fails for want of a majority is told and not done; what is known is read" {
	cluster 2
	key=$(names_for n1 k 1)
	new=$(names_for n1 new 1)
	claim_all n1 "$key"
	split 1 2
	wait_for 10 is n1 isolated
	refused n1 "$new"
	run -1 rm "$(mnt n1)/keys/$key"
	[[ $output == *'Read-only file system' ]]
	run -75 "$RINGFS_BIN" claim -m "$(mnt n1)" "$new"
	[[ $output == *'voters'* || $output == *'leader'* ]]
	index=$(index n1)
	for i in {1..20}; do
		[ "$(names n1 keys)" = "$key" ]
		[ "$(xattr n1 "$key" holder)" = n1 ]
	done
	[ "$(index n1)" = "$index" ]
	heal
	for id in n1 n2; do wait_for 15 is $id ready; done
	wait_for 10 agree n1 n2
	for id in n1 n2; do
		shows $id keys "$key"
		hides $id keys "$new"
	done
	wait_for 10 claim_all n1 "$new"
}

@test "SV-18: six flaps within the calm time move nothing" {
	cluster 3
	for id in n1 n2 n3; do names_for $id k 3 | claim_read $id; done
	wait_for 10 agree n1 n2 n3
	watch n1 owned recover release
	watch n3 owned recover release
	epoch=$(<"$(mnt n1)/status/epoch")
	for i in {1..6}; do
		kill -STOP "$(pid_of n3)"
		sleep 0.15
		kill -CONT "$(pid_of n3)"
		sleep 0.05
	done
	wait_for 10 agree n1 n2 n3
	[ "$(<"$(mnt n1)/status/epoch")" = "$epoch" ]
	[ "$(names n3 owned | wc -l)" = 3 ]
	[ "$(cat "$BATS_TEST_TMPDIR"/n?.events)" = $'watching\nwatching' ]
}

left_cluster() { # ID: its daemon has ended, with success
	gone "$(pid_of "$1")"
}

@test "SV-21 SV-22: a node that leaves, another's recovery under way or not, gives up each key once" {
	cluster 4
	for id in n1 n2 n3 n4; do names_for $id k 5 | claim_read $id; done
	lost=$(names n3 owned; names n4 owned)
	wait_for 10 agree n1 n2 n3 n4
	watch n1 recover
	watch n2 recover
	crash_node n4
	"$RINGFS_BIN" leave -m "$(mnt n3)"
	wait_for 10 left_cluster n3
	wait "$(pid_of n3)"
	rm "$BATS_TEST_TMPDIR/n3.pid"
	wait_for 10 inherited "$lost" n1 n2
	all_told "$lost"
	[ "$(xattr n1 "$(head -n 1 <<<"$lost")" reason)" = left ]
	# n3 may have been its heir before it left.
	[[ $(xattr n1 "$(tail -n 1 <<<"$lost")" reason) == @(dead|left) ]]
	wait_for 10 sees n1 n3 left
}
