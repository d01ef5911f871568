#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# SWIM, in virtual time: scripts for the simulator, whose trace is compared. Ids
# like F3 are those of the faults others had, that a test is there to exclude.
# shellcheck disable=SC2016
load helper
load swim

# --- the rounds of the failure detector -------------------------------------

@test "UP-31: a round is a probe, then helpers, then an accusation, and no sooner" {
	sim <<-'EOF'
		trace * none
		nodes 3 known
		run 199
		trace 1 status probe
		kill 2
		run 1100
	EOF
	output_is <<-'EOF'
		[  200] 1 > turn of 3 -> probe
		[  400] 1 > turn of 2 -> probe
		[  500] 1 > no ack from 2 -> indirect probe by 3
		[  500] 1 > asked by 3 -> probe 2 for it
		[  600] 1 > no answer from 2 -> 2 suspect
		[  600] 1 > turn of 3 -> probe
		[  700] 1 > asked by 3 -> probe 2 for it
		[  800] 1 > turn of 2 -> probe
		[  900] 1 > no ack from 2 -> indirect probe by 3
		[ 1000] 1 > turn of 2 -> probe
		[ 1075] 1 > time is up for 2 -> 2 dead
		[ 1200] 1 > turn of 3 -> probe
	EOF
}

@test "F5: a member is suspected when the whole round is over, not before" {
	sim <<-'EOF'
		nodes 3 known
		run 399
		kill 2
		run 200.9
		is 1,3 sees 2 alive
		run 0.2
		is 1 sees 2 suspect
	EOF
}

@test "a suspect without a word is dead after the suspicion, not before" {
	sim <<-'EOF'
		nodes 3 known
		run 399
		kill 2
		run 676.5   # from 600 on, 3 x 200 x log2(3) / 2 = 475.49 ms
		is 1 sees 2 dead
	EOF
	sim <<-'EOF'
		nodes 3 known
		run 399
		kill 2
		run 676.4
		is 1 sees 2 suspect
	EOF
}

@test "helpers are asked when the timeout is over, not before" {
	sim <<-'EOF'
		nodes 3 known
		run 399
		kill 2
		zero
		run 100.9
		is sent help 1 = 0
		run 0.2
		is sent help 1 = 1
	EOF
}

@test "an ack one moment before the end of the round is in time" {
	local ms
	for ms in 101 103; do
		sim <<-EOF
			nodes 2 known
			link 1 2 delay $ms
			link 2 1 delay 98
			$( ((ms == 101)) && echo never || echo wait) 900 1 sees 2 suspect
		EOF
	done
}

@test "UP-31: helpers forward, and say alive only if the target answered them" {
	sim <<-'EOF'
		nodes 3 known
		run 390
		cut 1 2
		trace 1 status probe
		run 250
		is 1 sees 2 alive
	EOF
	output_is <<-'EOF'
		[  400] 1 > turn of 2 -> probe
		[  500] 1 > no ack from 2 -> indirect probe by 3
		[  502] 1 > late ack from 2 by 3 -> alive
		[  600] 1 > turn of 3 -> probe
	EOF
}

@test "a helper that fails sends a nack at 80 % of the timeout" {
	sim <<-'EOF'
		nodes 3 known
		run 399
		kill 2
		zero
		run 181.4   # asked at 500.5: nack at 580.5
		is sent nack 3 = 0
		run 0.2
		is sent nack 3 = 1
	EOF
}

@test "T1: just k helpers are asked, of many, and none that is suspect" {
	for_seeds 1 20 <<-'EOF'
		nodes 12 known
		run 1000
		kill 5
		wait 5000 some 1-4,6-12 sees 5 suspect
		run 1
		zero
		run 150
		is sent help * < 37   # at most one round of each in this time
	EOF
	sim <<-'EOF'
		nodes 12 known
		run 190
		zero
		cut 1 *
		cut * 1
		run 150
		is sent help 1 = 3
	EOF
}

@test "F4: with three members the only helper is always found" {
	for_seeds 1 20 <<-'EOF'
		nodes 3 known
		cut 1 2
		cut 2 1
		never 20000 some * sees * suspect|dead
	EOF
}

@test "F6: who accused is remembered, and shown" {
	sim <<-'EOF'
		nodes 3 known
		trace * none
		run 399
		kill 2
		run 1000
		show 1,3
	EOF
	output_is <<-'EOF'
		[ 1399] 1: 2 dead by 1 3 alive
		[ 1399] 3: 1 alive 2 dead by 3
	EOF
}

@test "F7: probes per period are a setting" {
	for probes in 1 3; do
		sim <<-EOF
			set probes $probes
			nodes 8 known
			run 1000
			zero
			run 2000
			is sent ping * = $((80 * probes))
		EOF
	done
}

@test "F8: one member alone, and two" {
	sim <<-'EOF'
		nodes 1
		run 5000
		is sent * * = 0
	EOF
	sim <<-'EOF'
		trace * none
		nodes 2
		run 1000
		is * sees * alive
		kill 1
		wait 1000 2 sees 1 dead
		run 5000
		start 1
		join 1 2
		wait 500 * sees * alive
	EOF
}

@test "UP-34: everyone is probed once per round, in an order that changes" {
	sim <<-'EOF'
		trace * none
		nodes 7 known
		trace 1 probe
		run 3600
	EOF
	local rounds
	mapfile -t rounds < <(awk '/turn of/ { r = r $7; if (++n % 6 == 0) {
		print r; r = "" } }' <<<"$output")
	[ "${#rounds[@]}" -eq 3 ]
	for r in "${rounds[@]}"; do
		[ "$(fold -w1 <<<"$r" | sort | tr -d '\n')" = 234567 ]
	done
	[ "${rounds[0]}" != "${rounds[1]}" ] || [ "${rounds[1]}" != "${rounds[2]}" ]
}

@test "a member that joins is probed within the running round" {
	for seed in {1..10}; do
		run -0 "$SIM" --seed "$seed" <<-'EOF'
			trace * none
			nodes 9 known
			run 1000
			kill 9
			wait 9000 1-8 sees 9 dead
			wipe 9
			start 9
			join 9 1
			wait 1000 1-8 sees 9 alive
			trace 1 probe
			run 1700    # nine periods, less what has begun
		EOF
		[[ $output == *"turn of 9"* ]]
	done
}

# --- who is the sick one? ----------------------------------------------------

@test "F1: members that hear badly do not bury others" {
	run -0 "$SIM" --seed 3 measure deaf 40 30
	# "deaf n 40, NAME: false deaths N, at healthy M"
	awk '/Lifeguard:/ { with = $6 } /SWIM alone/ { alone = $8 }
		END { print with, alone; exit !(alone > 100 && with * 10 < alone) }' \
		<<<"$(tr -d , <<<"$output")"
}

@test "F1: failed rounds stretch a member's own times, answered ones shrink them" {
	sim <<-'EOF'
		trace * none
		nodes 6 known
		run 195
		cut * 1
		trace 1 probe
		run 2400
		heal
		wait 20000 healthy 1
	EOF
	[[ $output == *"round failed -> health 3"* ]]
	[[ $output == *"round answered -> health 0"* ]]
	# The round after the first failure lasts (3 + 1) periods.
	grep -A1 'health 3' <<<"$output" | grep -q '\[  400\].*turn of'
	grep 'turn of' <<<"$output" | sed -n 3p | grep -q '\[ 1200\]'
}

@test "F2: a member that can send but not hear harms nobody, and knows it" {
	for_seeds 1 5 <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		cut * 10
		never 60000 some 1-9 sees 1-9 dead
		is isolated 10
		not isolated 1
		heal
		wait 30000 * sees * alive
		wait 30000 healthy *
		not isolated 10
	EOF
}

@test "F2: who is isolated accuses nobody" {
	sim <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		cut * 10
		wait 30000 isolated 10
		trace 10 status probe
		run 30000
	EOF
	[[ $output == *", but isolated -> no accusation"* ]]
	[[ $output != *"no answer from"*"suspect"* ]]
}

@test "F2: one-way loss makes no member come and go" {
	sim <<-'EOF'
		trace * none
		nodes 5 known
		run 1000
		cut 1-4 5
		trace 1 event
		run 60000
	EOF
	[ "$(grep -c 'member 5 dead' <<<"$output")" -eq 1 ]
	[ "$(grep -c 'member 5 alive' <<<"$output")" -eq 0 ]
	[ "$(grep -c 'member [234] dead' <<<"$output")" -eq 0 ]
}

@test "F2: half of the cluster may die at once: nacks still allow to say so" {
	sim <<-'EOF'
		trace * none
		nodes 20 known
		run 1000
		kill 9-20
		wait 60000 1-8 sees 9-20 dead
		is 1-8 sees 1-8 alive
	EOF
}

@test "F3: a send error goes on to the helpers at once" {
	sim <<-'EOF'
		nodes 3 known
		run 390
		link 1 2 fails 1
		trace 1 status probe
		run 200
		is 1 sees 2 alive
	EOF
	output_is <<-'EOF'
		[  400] 1 > turn of 2 -> probe
		[  400] 1 > cannot send to 2 -> no ack expected
		[  400] 1 > no ack from 2 -> indirect probe by 3
		[  402] 1 > late ack from 2 by 3 -> alive
	EOF
}

@test "F3: a partition of send errors is detected like one of silence" {
	sim <<-'EOF'
		trace * none
		nodes 5 known
		link 1-3 4-5 fails 1
		link 4-5 1-3 fails 1
		wait 7000 1-3 sees 4-5 dead
		wait 7000 4-5 sees 1-3 dead
		heal
		wait 12000 * sees * alive
	EOF
}

@test "F9: after a long stop nobody else looks dead" {
	for_seeds 1 10 <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		stop 10
		run 20000
		is 1-9 sees 10 dead
		continue 10
		never 5000 some 10 sees 1-9 suspect|dead
		is 1-9 sees 10 alive
	EOF
}

@test "F9: whoever is called late by more than a period gives, and doubts himself" {
	local ms
	for ms in 399 401; do # next to be called at 1200
		sim <<-EOF
			trace * none
			nodes 1
			run 1001
			trace 1 status
			stop 1
			run $ms
			continue 1
			health 1
		EOF
		if ((ms < 400)); then
			output_is <<<"health of 1: 0"
		else
			output_is <<-'EOF'
				[ 1402] 1 > called late by 202 ms -> more time
				health of 1: 1
			EOF
		fi
	done
}

@test "UP-33, F9: a suspicion survives its accuser's stop, and is longer by it" {
	sim <<-'EOF'
		nodes 2 known
		run 399
		kill 2
		run 250     # suspect since 600, dead at 900
		stop 1
		run 2001    # was to be called at 800: late by 1850
		continue 1
		run 99.9
		is 1 sees 2 suspect
		run 0.2
		is 1 sees 2 dead
	EOF
}

@test "UP-33: a suspect is told so by its accuser, and refutes" {
	sim <<-'EOF'
		nodes 3 known
		run 399
		cut 2 *
		run 203     # suspect at 600
		is 1 sees 2 suspect
		heal
		trace * none
		trace 1,2 status
		wait 400 1,3 sees 2 alive
	EOF
	[[ $output == *"2 > "*" says I am suspect -> refute with "* ]]
	[[ $output == *"1 > "*"-> 2 alive"* ]]
}

@test "independent accusers shorten a suspicion" {
	# 10 members: 996.6 ms at least, 5979 at most, with 2 confirmations.
	sim <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		trace 1 status
		kill 10
		run 8000
	EOF
	[[ $output == *"accuses 10 -> suspicion until"* ]]
	[[ $output == *"-> suspicion until 996 ms"* ]]
}

@test "a hint makes a member the next to be probed" {
	sim <<-'EOF'
		trace * none
		nodes 30 known
		run 1001
		kill 17
		hint 1 17
		trace 1 probe
		run 200
	EOF
	[[ $output == "[ 1200] 1 > turn of 17 -> probe"* ]]
}
