#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Clusters that are cut in parts. CS-N are the eleven rules of `consistency`, the
# replicated set that halts without a majority. Its CS-5, no node is asked twice
# about one addition, is of a flood of messages and has nothing to say of a log.
# Where its changes wait for the majority, here they are refused at once, and the
# caller tries again.
load helper
load hosts
load cluster

# What the former holder lists must be empty before any heir shows a key: each
# time, the heirs are asked first.
emptied_first() { # ID "KEY..." HEIR...
	local id=$1 all n end=$((EPOCHSECONDS + 15)) heir found left
	read -ra all <<<"$2"
	shift 2
	shopt -s nullglob
	while ((EPOCHSECONDS < end)); do
		found=0
		for heir; do
			n=("$(mnt "$heir")"/recover/*)
			((found += ${#n[@]})) || true
		done
		left=("$(mnt "$id")"/{owned,recover,release}/*)
		if ((found > 0)); then
			((${#left[@]} == 0)) ||
				fail "$id still shows ${left[*]}" || return
			[ ! -e "$(mnt "$id")/owned/${all[0]}" ] ||
				fail "$id can look up ${all[0]}" || return
		fi
		((found < ${#all[@]})) || return 0
	done
	fail "$found of ${#all[@]} were inherited"
}

# Many callers at once: all end soon. What they were told is in REFUSED.
callers_end() { # ID N SECONDS
	local id=$1 callers=$2 begin=$EPOCHREALTIME i pids=()
	for ((i = 0; i < callers; i++)); do
		touch "$(mnt "$id")/keys/queue-$i" \
			2>"$BATS_TEST_TMPDIR/$id.refused.$i" 3>&- &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || true; done
	cat "$BATS_TEST_TMPDIR/$id.refused".* >"$BATS_TEST_TMPDIR/$id.refused"
	((${EPOCHREALTIME/./} - ${begin/./} < $3 * 1000000)) ||
		fail "they took $begin to $EPOCHREALTIME" || return
	[ "$(grep -c 'Read-only file system' "$BATS_TEST_TMPDIR/$id.refused")" -ge $((callers - 1)) ] ||
		fail "$id: $(sed 's/.*: //' "$BATS_TEST_TMPDIR/$id.refused" | sort | uniq -c)"
}

reads_answer() { # ID KEY: all but what is held
	local id=$1 key=$2
	timeout 1 cat "$(mnt "$id")/keys/$key" >/dev/null
	timeout 1 getfattr -d "$(mnt "$id")/keys/$key" >/dev/null 2>&1
	timeout 1 readlink "$(mnt "$id")/route/$key" >/dev/null
	timeout 1 cat "$(mnt "$id")"/status/{state,reason,json,metrics.prom} >/dev/null
	timeout 1 cat "$(mnt "$id")"/peers/* >/dev/null
	timeout 1 ls -lR "$(mnt "$id")"/{keys,owned,recover,release,parked} >/dev/null
}

halted() { # ID...
	local id
	for id; do wait_for 10 is "$id" isolated; done
	for id; do
		[ "$(<"$(mnt "$id")/status/writable")" = 0 ]
		refused "$id" "halted-$id"
		wait_for 5 shows_nothing "$id"
	done
}

all_ready() { # ID...
	local id
	for id; do wait_for 15 is "$id" ready; done
	wait_for 10 agree "$@"
}

# A batch of one name, and its answer without the name.
batch_of_one() { # ID VERB KEY
	exec 8<>"$(mnt "$1")/ctl"
	printf '%s\n%s\n' "$2" "$3" >&8
	cut -d' ' -f1 <&8
	exec 8>&-
}

@test "CS-1 CS-2 CS-3 CS-6: an addition succeeds on each node, a second nowhere, of two at once one, and again after the removal" {
	cluster 3
	for id in n1 n2 n3; do
		can_claim $id from-$id
		for other in n1 n2 n3; do
			wait_for 10 shows $other keys from-$id
			refused $other from-$id 'File exists'
		done
		rm "$(mnt $id)/keys/from-$id"
		can_claim n2 from-$id
		[ "$(xattr n2 from-$id holder)" = n2 ]
	done
	for i in {1..15}; do
		batch_of_one n1 claim "k$i" 3>&- >"$BATS_TEST_TMPDIR/one" &
		batch_of_one n2 claim "k$i" 3>&- >"$BATS_TEST_TMPDIR/two"
		wait $!
		[ "$(cat "$BATS_TEST_TMPDIR"/{one,two} | sort | paste -sd' ')" = \
			"EEXIST ok" ]
	done
}

@test "CS-4: an addition reaches a node that its origin cannot reach, by way of the leader" {
	cluster 3
	lead=$(leader n1)
	mapfile -t rest < <(others 3 "$lead")
	a=${rest[0]} b=${rest[1]}
	split "${a#n}" "${b#n}"
	for i in {1..5}; do
		can_claim "$a" "a$i"
		wait_for 10 shows "$b" keys "a$i"
		can_claim "$b" "b$i"
		wait_for 10 shows "$a" keys "b$i"
		refused "$a" "b$i" 'File exists'
		sleep 0.3 # longer than both leases together
	done
	for id in n1 n2 n3; do is $id ready; done
	wait_for 10 agree n1 n2 n3
}

@test "CS-7: two nodes that are cut both halt; CS-10: who tries again succeeds after it, in order, once" {
	cluster 2
	can_claim n1 before
	wait_for 10 shows n2 keys before
	split 1 2
	callers_end n1 30 6 &
	other=$!
	callers_end n2 30 6
	wait $other
	halted n1 n2
	for id in n1 n2; do reads_answer $id before; done
	grep -q 'recover-quorum' "$(mnt n1)/status/reason"
	for id in n1 n2; do
		for i in 1 2 3; do
			until said=$(touch "$(mnt $id)/keys/late-$i" 2>&1); do
				[[ $said == *'File exists' ]] && break
				sleep 0.1
			done
			[ -n "$said" ] || echo won >>"$BATS_TEST_TMPDIR/won-$i"
		done 3>&- &
		loops+=($!)
	done
	sleep 0.5
	[ ! -e "$BATS_TEST_TMPDIR/won-1" ]
	heal
	all_ready n1 n2
	for pid in "${loops[@]}"; do wait "$pid"; done
	for i in 1 2 3; do
		[ "$(<"$BATS_TEST_TMPDIR/won-$i")" = won ]
		claimed+=("$(xattr n1 "late-$i" claimed)")
	done
	sort -cn < <(printf '%s\n' "${claimed[@]}")
	all_ready n1 n2
}

@test "CS-8: of three the pair goes on and the single halts: empty first, told by events, no caller hangs" {
	cluster 3
	claim_some n3 6
	wait_for 10 shows n1 keys n3-6
	keys=$(cd "$(mnt n3)/owned" && echo *)
	watch n3 owned
	split "1 2" 3
	callers_end n3 40 6 &
	callers=$!
	emptied_first n3 "$keys" n1 n2
	wait $callers
	halted n3
	reads_answer n3 n3-1
	wait_for 10 heard n3 'owned DELETE n3-' 6
	grep -q 'voters are not in reach' "$(mnt n3)/status/reason"
	inherited "$keys" n1 n2
	can_claim n1 meanwhile
	run -75 "$RINGFS_BIN" status -m "$(mnt n3)"
	[[ ${lines[0]} == isolated* ]]
	heal
	all_ready n1 n2 n3
	inherited "$keys" n1 n2 n3
	shows n3 keys meanwhile
	# What was refused was not done, and is not done later.
	[ "$(names n1 keys | grep -c queue-)" -le 1 ]
	can_claim n3 halted-n3
	[ -z "$(names n3 owned | grep -v halted-n3 | grep -v queue-)" ]
	wait_for 10 heard n3 'owned DELETE n3-' 6
}

@test "CS-11: below the expected number of nodes nothing is added; at it all goes, and goes on with one less" {
	MEMBER_ARGS+=(--expect 3)
	hosts 3
	for k in 1 2; do
		launch_member $k
		wait_for 10 test -e "$(mnt n$k)/status/state"
	done
	wait_for 10 sees n2 n1 alive
	for id in n1 n2; do
		run -1 touch "$(mnt $id)/keys/early"
		[[ $output == *'temporarily unavailable' ||
			$output == *'Read-only file system' ]]
		[ "$(<"$(mnt $id)/status/writable")" = 0 ]
	done
	member 3
	for id in n1 n2 n3; do wait_for 10 is $id ready; done
	[ -z "$(names n3 keys)" ]
	for id in n1 n2 n3; do can_claim $id "at-$id"; done
	wait_for 20 voters n1 3
	crash_node n3
	wait_for 10 can_claim n1 one-less
	wait_for 10 inherited at-n3 n1 n2
}

role() { # ID NAME
	fact "$1" "$2" role
}

@test "CS-9: of four the half with two of the three voters goes on, the other halts" {
	cluster 4
	for id in n1 n2 n3 n4; do
		[ "$(role n1 $id)" = voter ] || standby=$id
	done
	# The leader is with the standby.
	lead=$(leader n1)
	mapfile -t going < <(others 4 "$standby" "$lead")
	for id in n1 n2 n3 n4; do claim_some $id 2; done
	wait_for 10 agree n1 n2 n3 n4
	split "${standby#n} ${lead#n}" "${going[0]#n} ${going[1]#n}"
	emptied_first "$standby" "$standby-1 $standby-2 $lead-1 $lead-2" \
		"${going[@]}"
	halted "$standby" "$lead"
	for id in "${going[@]}"; do
		wait_for 10 is "$id" ready
		wait_for 10 can_claim "$id" "on-$id"
		wait_for 10 shows "$id" owned "$id-1"
	done
	heal
	all_ready n1 n2 n3 n4
	inherited "$standby-1 $standby-2 $lead-1 $lead-2" n1 n2 n3 n4
}

@test "CS-8: of five cut 3+2 the three go on; cut 4+1, with the leader alone, the four do" {
	cluster 5
	for id in n1 n2 n3 n4 n5; do claim_some $id 2; done
	wait_for 10 agree n1 n2 n3 n4 n5
	split "1 2" "3 4 5"
	emptied_first n1 "n1-1 n1-2 n2-1 n2-2" n3 n4 n5
	halted n1 n2
	for id in n3 n4 n5; do wait_for 10 can_claim $id on-$id; done
	reads_answer n2 n5-1
	heal
	all_ready n1 n2 n3 n4 n5
	lead=$(leader n1)
	mapfile -t rest < <(others 5 "$lead")
	before=$(names "$lead" owned)
	can_claim "$lead" alone
	wait_for 10 agree n1 n2 n3 n4 n5
	split "${lead#n}" "$(tr -d n <<<"${rest[*]}")"
	wait_for 10 is "$lead" isolated
	halted "$lead"
	wait_for 10 inherited "alone $before" "${rest[@]}"
	for id in "${rest[@]}"; do wait_for 10 can_claim "$id" four-"$id"; done
	heal
	all_ready n1 n2 n3 n4 n5
}

in_two_places() { # ID...
	local id
	for id; do names "$id" owned && names "$id" recover; done | sort |
		uniq -d | grep .
}

# Each key is with one node at most, as all of them show it.
disjoint() { # ID...
	in_two_places "$@" >/dev/null || return 0
	# One that moves while the nodes are read is not: look twice.
	! in_two_places "$@" || fail "these are with two"
}

@test "one that is heard by nobody, and one that hears nobody, halt; the others go on" {
	cluster 3
	claim_some n3 3
	wait_for 10 shows n1 keys n3-3
	for way in mute deaf; do
		for k in 1 2; do
			[ $way = mute ] && wire cut 3 $k || wire cut $k 3
		done
		wait_for 15 is n3 isolated
		halted n3
		wait_for 10 inherited "n3-1 n3-2 n3-3" n1 n2
		can_claim n1 $way-1
		can_claim n2 $way-2
		heal
		all_ready n1 n2 n3
		disjoint n1 n2 n3
	done
}

@test "holes 7: a node that the leader does not hear harms nobody, in whatever way it ends" {
	cluster 3
	lead=$(leader n1)
	mapfile -t rest < <(others 3 "$lead")
	claim_some "${rest[1]}" 3
	wait_for 10 shows "$lead" keys "${rest[1]}-3"
	wire cut "${rest[1]#n}" "${lead#n}"
	for i in {1..20}; do # longer than its lease
		disjoint n1 n2 n3
		sleep 0.1
	done
	wait_for 10 can_claim "${rest[0]}" meanwhile
	heal
	all_ready n1 n2 n3
	disjoint n1 n2 n3
	[ "$(names n1 keys | grep -c -- -)" = 3 ]
}
