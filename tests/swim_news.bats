#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# SWIM's news, tables and identities, in virtual time. See swim.bats.
load helper
load swim

# --- news ----------------------------------------------------------------------

@test "D1, SV-R6: an event causes a bounded number of packets, then there is silence" {
	for_seeds 1 10 <<-'EOF'
		trace * none
		nodes 10 known
		run 2000
		zero
		leave 4
		run 3000
		is quiet
		is sent news * < 91   # 10 members, 8 times each, and some
		zero
		run 20000
		is sent news * = 0
		is sent compare * = 0
	EOF
}

@test "D3: a hundred changes at once reach all in less than 6 log2 n periods" {
	run -0 "$SIM" measure storm 100
	awk '{ exit !($(NF - 1) < 6 * log(100) / log(2)) }' <<<"$output"
}

@test "D4: acks carry news" {
	sim <<-'EOF'
		trace * none
		set push 0
		nodes 2 known
		run 350
		cut 2 1
		run 20
		meta 2 changed
		trace 1 event
		run 29     # its own probe, at 400, must not reach
		heal
		run 300
	EOF
	[[ $output == "["*"] 1 > event -> facts 2"* ]]
}

@test "retransmit limit: as many are missed as the model says" {
	local n loss least out
	while read -r n loss least; do
		run -0 "$SIM" measure spread "$n" 300 "$loss"
		out=$(awk '{ print $8 }' <<<"$output")
		awk -v a="$out" -v b="$least" 'BEGIN { exit !(a >= b) }' ||
			fail "n $n, loss $loss %: $out, want $least"
	done <<-'EOF'
		5 0 0.995
		9 0 0.995
		50 0 0.995
		50 10 0.98
		50 30 0.95
		99 30 0.95
	EOF
}

@test "D8: a comparison of tables goes both ways" {
	sim <<-'EOF'
		trace * none
		nodes 6 known
		set push 3
		run 1000
		split 1-3 4-6
		run 50
		meta 1 one
		meta 5 five
		run 100
		heal
		wait 10000 agree
	EOF
}

@test "D8: two camps, each of one mind, notice that they differ" {
	for_seeds 1 10 <<-'EOF'
		trace * none
		set probes 3    # so that one of the own camp is always just heard
		nodes 6 known
		run 1000
		split 1-3 4-6
		run 50
		meta 1 one
		run 290     # all of the one camp know it, and are silent
		heal
		run 1
		not agree
		wait 3000 agree
		run 1000
		zero
		run 10000
		is sent compare * = 0
	EOF
}

@test "what news missed is found by comparison, though no news is told" {
	sim <<-'EOF'
		trace * none
		nodes 8 known
		run 1000
		cut * 8
		meta 3 changed
		run 290     # all have been told but 8, and are silent
		heal
		wait 5000 agree
		run 1000
		zero
		run 10000
		is sent compare * = 0
	EOF
}

@test "D10: a refusal by ICMP, or rubbish, stops nobody" {
	sim <<-'EOF'
		trace * none
		refuse 1
		nodes 3
		run 1000
		inject 1 2 deadbeef
		inject 1 2 00
		inject 2 1 0101000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
		kill 3
		wait 2000 1-2 sees 3 dead
		start 3
		join 3 1
		wait 2000 * sees * alive
	EOF
}

@test "D11: nothing but bytes goes over a link" {
	local script='
		trace * status event
		CODEC
		nodes 5
		link * * loss 20 jitter 20 duplicate 10 reorder 10
		run 3000
		kill 3
		run 5000
		start 3
		join 3 1
		wait 20000 * sees * alive'
	sim <<<"${script/CODEC/}"
	local plain=$output
	sim <<<"${script/CODEC/codec}"
	[ "$output" = "$plain" ]
	# A seal takes nothing twice.
	script=${script/duplicate 10/}
	sim <<<"${script/CODEC/}"
	plain=$output
	sim <<<"${script/CODEC/codec seal}"
	[ "$output" = "$plain" ]
}

@test "D11: in seals, too, the same seed makes the same run" {
	local script='
		trace * none
		codec seal
		nodes 9
		link * * loss 20 jitter 20 duplicate 10 reorder 10
		run 3000
		split 1-4 5-9
		kill 3
		run 5000
		heal
		wipe 3
		start 3
		join 3 1
		wait 20000 * sees 1-2,4-9 alive
		inject 1 2 deadbeef
		stop 4
		run 3000
		continue 4
		wait 20000 * sees 3-4 alive
		hash'
	sim <<<"$script"
	local first=$output
	sim <<<"$script"
	[ "$output" = "$first" ]
}

@test "UP-35: a datagram never exceeds the MTU it was made for" {
	sim <<-'EOF'
		trace * none
		link * * mtu 1400 loss 20
		nodes 40
		wait 20000 * sees * alive
		wait 20000 agree
	EOF
}

@test "the same seed makes the same run, another one another" {
	local script='
		trace * status probe repair event
		nodes 9
		link * * loss 20 jitter 20 duplicate 10 reorder 10
		run 3000
		split 1-4 5-9
		run 5000
		heal
		run 5000
		hash'
	run -0 "$SIM" --seed 7 <<<"$script"
	local first=$output
	run -0 "$SIM" --seed 7 <<<"$script"
	[ "$output" = "$first" ]
	run -0 "$SIM" --seed 8 <<<"$script"
	[ "$output" != "$first" ]
}

@test "traffic at rest does not grow with the size" {
	run -0 "$SIM" measure bytes
	[ "$(awk '{ print $4 }' <<<"$output" | sort -u | wc -l)" -eq 1 ]
}

@test "news is pushed at once, then at the gossip interval" {
	sim <<-'EOF'
		trace * none
		nodes 10 known
		run 2001
		zero
		meta 1 changed
		is sent news 1 = 3
		run 99.9
		is sent news 1 = 3
		run 0.2
		is sent news 1 = 6
	EOF
}

@test "an address without an answer is tried after 0, 0.4, 1.2, 2.8 s ..." {
	sim <<-'EOF'
		trace * none
		nodes 2 apart
		kill 2
		join 1 2
		is sent ping 1 = 1
		run 399.9
		is sent ping 1 = 1
		run 0.2
		is sent ping 1 = 2
		run 799.8
		is sent ping 1 = 2
		run 0.2
		is sent ping 1 = 3
		run 600000
		zero
		run 60001
		is sent ping 1 = 1   # in the end once a minute, for ever
	EOF
}

@test "the dead are tried at the reconnect interval" {
	sim <<-'EOF'
		trace * none
		nodes 2 known
		run 100
		kill 2
		run 1850    # long dead; the interval is 2 s from the start
		is 1 sees 2 dead
		zero
		run 49.9
		is sent ping 1 = 0
		run 0.2
		is sent ping 1 = 1
		run 2000
		is sent ping 1 = 2
	EOF
}

@test "the dead are remembered for the life of a tombstone, not longer" {
	sim <<-'EOF'
		trace * none
		set tombstone 4000
		nodes 3 known
		run 399
		kill 2
		wait 1000 1 sees 2 dead   # at 1075.49
		run 3999.9
		is members 1 = 3
		run 0.2
		is members 1 = 2
	EOF
}

@test "who leaves waits a second at most" {
	sim <<-'EOF'
		trace * none
		set gossip 5000
		nodes 10 known
		run 6000
		trace 2 event
		leave 2
		run 999.9
		say not yet
		run 0.2
	EOF
	output_is <<-'EOF'
		not yet
		[ 7000] 2 > event -> told
	EOF
}

# --- who is who ------------------------------------------------------------------

@test "I1: a member is back at once under another address" {
	sim <<-'EOF'
		trace * none
		nodes 5 known
		run 1000
		kill 2
		port 2 7777
		trace 1 event
		start 2
		join 2 4
		run 100
		is * sees * alive
	EOF
	# One life follows the other: nobody was dead, nobody was refused.
	[[ $output != *dead* ]]
	[[ $output == *"1 > event -> member 2 alive 2.0"* ]]
}

@test "I2, I4: a restart is believed at once, and keeps the old life silent" {
	for_seeds 1 10 <<-'EOF'
		trace * none
		nodes 6 known
		run 1000
		meta 2 a
		meta 2 b
		kill 2
		run 300
		start 2
		join 2 1
		wait 300 * sees * alive
		never 5000 some * sees 2 dead
	EOF
}

@test "I3: another one at the address of a member is not taken for it" {
	sim <<-'EOF'
		trace * none
		nodes 3 known
		run 390
		kill 2
		wipe 2
		start 2
		trace 1 probe
		run 100
		trace 1 none
		wait 3000 1,3 sees 2 alive   # the new one, which answered for itself
	EOF
	[[ $output == *"another lives at the address of"*"-> no ack expected"* ]]
}

@test "I5: clocks do not matter: slow, fast, or set back before a restart" {
	sim <<-'EOF'
		trace * none
		nodes 5 known
		run 1000
		kill 3,4
		clock 3 0
		clock 4 99999999
		rate 3 200
		rate 4 -200
		start 3,4
		join 3,4 1
		wait 1000 * sees * alive
		never 60000 some * sees * suspect|dead
	EOF
}

@test "I6: the dead are forgotten by all, and a zombie cannot bring them back" {
	sim <<-'EOF'
		trace * none
		set tombstone 4000
		nodes 5 known
		run 1000
		stop 5          # knows 2 as alive
		kill 2
		wait 3000 1,3,4 sees 2 dead
		wait 5000 1,3,4 sees 2 unknown
		continue 5
		never 30000 some 1,3,4 sees 2 alive|suspect
		wait 10000 * sees 2 unknown
		wait 10000 agree
	EOF
}

@test "I6, S4: a death learnt late is forgotten with the others: ages travel, not dates" {
	sim <<-'EOF'
		trace * none
		set tombstone 20000
		nodes 4
		run 1000
		kill 2,4
		wait 3000 1,3 sees 2 dead
		run 7000
		clock 4 5000000
		start 4
		join 4 1
		wait 2000 1,3 sees 4 alive
		wait 1000 members * = 4
		wait 15000 members 1 = 3
		wait 1100 members * = 3
		never 30000 some 1,3 sees 2 dead
	EOF
}

@test "I7: after a stop of the whole cluster the remembered peers find each other" {
	sim <<-'EOF'
		trace * none
		nodes 6 known
		run 1000
		kill *
		run 100000
		start 1-2
		join 1-2 6
		run 30000
		start 3-6
		join 3 1
		join 4 3
		join 5 4
		join 6 5
		wait 70000 * sees * alive
	EOF
}

@test "I7, I8, SV-R8: 3 and 2 that were apart agree within 12 s, and nobody flaps then" {
	for_seeds 1 10 <<-'EOF'
		trace * none
		nodes 5 known
		run 1000
		split 1-3 4-5
		run 45000
		is 1-3 sees 4-5 dead
		is 4-5 sees 1-3 dead
		heal
		wait 12000 * sees * alive
		wait 5000 agree
		never 20000 some * sees * suspect|dead
	EOF
}

@test "I8: when a split heals, nobody buries those he has just heard" {
	local mine
	for mine in 1-3 4-5; do
		for_seeds 1 10 <<-EOF
			trace * none
			nodes 5 known
			run 1000
			split 1-3 4-5
			run 20000
			heal
			never 15000 some $mine sees $mine dead
			is * sees * alive
		EOF
	done
}

@test "I7: halves that were apart for ten minutes become one again" {
	sim <<-'EOF'
		trace * none
		nodes 20 known
		split 1-10 11-20
		run 600000
		heal
		wait 20000 * sees * alive
	EOF
}

@test "I7: one forgotten after its time is still found when it is back" {
	sim <<-'EOF'
		trace * none
		set tombstone 5000
		nodes 3 known
		run 1000
		split 1-2 3
		wait 20000 1-2 sees 3 unknown
		wait 20000 3 sees 1-2 unknown
		heal
		wait 61000 * sees * alive
	EOF
}

@test "I9: leave, then join, in one process" {
	sim <<-'EOF'
		trace * none
		nodes 4 known
		run 1000
		trace 1 event
		leave 2
		wait 100 1,3-4 sees 2 left
		run 3000
		join 2 3
		wait 1000 * sees * alive
		never 10000 some 1,3-4 sees 2 left
	EOF
	output_is <<-'EOF'
		[ 1000] 1 > event -> member 2 left 1.1
		[ 4001] 1 > event -> member 2 alive 1.2
	EOF
}

@test "SV-R7: to leave a second time is nothing new, and is told once" {
	sim <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		zero
		trace 1,2 event
		leave 2
		run 50
		leave 2
		run 3000
		is sent news 2 < 9      # the retransmit limit is 8
	EOF
	[ "$(grep -c '1 > event -> member 2 left 1.1' <<<"$output")" -eq 1 ]
	[ "$(grep -c '2 > event -> told' <<<"$output")" -eq 1 ]
}

@test "one who leaves is told so when all should know" {
	sim <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		trace 2 event
		leave 2
		run 1000
		is 1,3-10 sees 2 left
	EOF
	[[ $output == *"2 > event -> told" ]]
}

@test "UP-37: up, suspect, dead: seen from the old and from the new member" {
	sim <<-'EOF'
		trace * none
		nodes 2
		wait 100 * sees * alive
		trace * event
		run 900
		kill 1
		run 1500
		start 1
		join 1 2
		run 100
	EOF
	output_is <<-'EOF'
		[ 1200] 2 > event -> member 1 suspect 1.0
		[ 1500] 2 > event -> member 1 dead 1.0
		[ 2401] 2 > event -> member 1 alive 2.0
		[ 2401] 2 > event -> facts 1
		[ 2402] 1 > event -> member 2 alive 1.0
	EOF
}

@test "I11: a change of one's own is known to all within a second" {
	sim <<-'EOF'
		trace * none
		nodes 30 known
		run 1000
		zero
		meta 7 changed
		wait 1000 agree
	EOF
}

@test "I12: whom nobody can reach is not shown, whatever others say" {
	sim <<-'EOF'
		trace * none
		nodes 3
		cut 2 3
		cut 3 2
		run 3000
		is 2 sees 3 unknown
		is 3 sees 2 unknown
		is 1 sees 2,3 alive
		heal
		wait 2000 * sees * alive
	EOF
}

@test "I13: the member one joined through is like any other" {
	sim <<-'EOF'
		trace * none
		nodes 6
		run 2000
		kill 1
		wait 3000 2-6 sees 1 dead
		kill 6
		wipe 6
		start 6
		join 6 4
		wait 2000 2-6 sees 2-6 alive
	EOF
}

@test "forget: a dead member is shown no more, anywhere; a live one is refused" {
	sim <<-'EOF'
		trace * none
		nodes 4 known
		run 1000
		forget 1 3
		kill 3
		wait 3000 1,2,4 sees 3 dead
		forget 1 3
		wait 1000 1,2,4 sees 3 forgotten
		start 3
		join 3 2
		wait 1000 * sees * alive
	EOF
	output_is <<<"forget: Device or resource busy"
}

@test "whatever happens, in the end all agree" {
	local seed
	for seed in $(seq 1 "${ROUNDS:-60}"); do
		"$BATS_TEST_DIRNAME"/sim/chaos.bash "$seed" |
			"$SIM" --seed "$seed" >"$BATS_TEST_TMPDIR/out" 2>&1 ||
			fail "tests/sim/chaos.bash $seed: $(tail -n 3 "$BATS_TEST_TMPDIR/out")"
	done
}

@test "a thousand members see a death within seconds of it" {
	run -0 "$SIM" measure big 1000
	[[ $output == *"a death known first after "* ]]
	awk '/to all after/ { for (i = 1; i < NF; i++) if ($i == "after") ms = $(i + 1) }
		END { exit !(ms + 0 < 8000) }' <<<"$output"
}
