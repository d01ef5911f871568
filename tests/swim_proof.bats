#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# SWIM, in virtual time: a death that is proven, by an obituary. See swim.bats.
load helper
load swim

@test "obituary: a proven death needs no suspicion, here and wherever it is told" {
	sim <<-'EOF'
		nodes 3 known
		run 1001
		kill 2
		obituary 1 2 1
		is 1 sees 2 dead
		is 3 sees 2 alive
		run 0.6         # one way
		show 1,3
		run 5000
		is * sees 2 dead
	EOF
	output_is <<-'EOF'
		[ 1001] 1 > proof of the end of 2 -> 2 dead
		[ 1001] 3 > told by 1 -> 2 dead
		[ 1001] 1: 2 dead by 1 3 alive
		[ 1001] 3: 1 alive 2 dead by 1
	EOF
}

@test "obituary: a hundred members believe it within 0.4 s, none by suspicion" {
	for_seeds 1 5 <<-'EOF'
		trace * none
		nodes 100 known
		run 1000
		kill 50
		obituary 1 50 1
		wait 400 1-49,51-100 sees 50 dead
		never 2000 some * sees 1-49,51-100 suspect|dead
		is quiet
	EOF
}

@test "obituary: one of a former life does not touch the newer one" {
	sim <<-'EOF'
		trace * none
		nodes 4 known
		run 1000
		kill 2
		start 2
		join 2 1
		run 500
		is * sees 2 alive
		trace * status
		obituary 1 2 1
		run 5000
		is * sees 2 alive
	EOF
	output_is <<<"obituary: Stale file handle"
}

@test "obituary: it ends a life that here nobody has heard of, and its former ones" {
	sim <<-'EOF'
		trace * none
		nodes 4 known
		run 1000
		kill 2
		start 2         # the second life says nothing to anybody
		kill 2
		obituary 1 2 2
		wait 200 1,3,4 sees 2 dead
		start 2
		join 2 3
		wait 300 * sees * alive
	EOF
}

@test "obituary: who lives after all refutes it, and nobody sees it dead again" {
	for_seeds 1 10 <<-'EOF'
		trace * none
		nodes 10 known
		run 1000
		obituary 1 2 1
		is 1 sees 2 dead
		wait 2500 * sees * alive
		never 10000 some * sees * suspect|dead
	EOF
	sim <<-'EOF'
		trace * none
		nodes 2 known
		run 1000
		trace * status
		obituary 1 2 1
		wait 2500 1 sees 2 alive
		obituary 2 2 1
		obituary 2 2 9
		obituary 1 2 0
	EOF
	[[ $output == *"2 > 1 says I am dead -> refute with 1"* ]]
	[[ $output == *"1 > told by 2 -> 2 alive"* || $output == *"1 > heard 2 -> 2 alive"* ]]
	[[ $output == *"obituary: Device or resource busy
obituary: Device or resource busy
obituary: Invalid argument" ]]
}

@test "obituary: of one who has left it says nothing new" {
	sim <<-'EOF'
		trace * none
		nodes 3 known
		run 1000
		leave 2
		run 1000
		kill 2
		trace * status
		obituary 1 2 1
		is 1,3 sees 2 left
	EOF
	[ -z "$output" ]
}
