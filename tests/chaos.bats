#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Several nodes, worked on and broken by a plan (chaos.bash), and what the checker
# of their histories accepts and refuses. CHAOS_SEED replays a plan.
load helper

# A history of lines NODE WHAT KEY BEGIN END [ERRNO [TOKEN [TEXT]]], in seconds.
history() {
	awk '{ print $4 "000000000", $5 "000000000", $1, $2, $3, (NF > 5 ? $6 : 0),
		(NF > 6 ? $7 : 0), (NF > 7 ? $8 : "-") }' \
		>"$BATS_TEST_TMPDIR/history"
}

check() {
	"$TOOLS/history_check" --bound-ms 30000 "$@" "$BATS_TEST_TMPDIR/history"
}

may_be() { # WHAT, and a history: nothing is wrong with it
	history
	run check
	[ "$status" = 0 ] || fail "refused: $1: $output"
}

cannot_be() { # RULE WHAT, and a history: that rule refuses it, once
	history
	run check
	[ "$status" = 1 ] || fail "accepted: $2: $output" || return
	[ "$(grep -c "^$1: " <<<"$output")" = 1 ] ||
		fail "for another reason: $2: $output" || return
	[[ $output == *$'\n1 wrong' ]] || fail "and more: $2: $output"
}

@test "lives alternate, in an order that time allows" {
	may_be "one after the other" <<-'EOT'
		n1 claim k 1 2
		n1 finish k 3 4
		n2 claim k 5 6
	EOT
	may_be "claims that overlap the finish between them" <<-'EOT'
		n1 claim k 1 9
		n2 claim k 2 8
		n1 finish k 3 7
	EOT
	may_be "one wins, one is told so" <<-'EOT'
		n1 claim k 1 3
		n2 claim k 1 3 17
	EOT
	cannot_be 1 "two winners" <<-'EOT'
		n1 claim k 1 3
		n2 claim k 2 4
	EOT
	cannot_be 1 "a finish for two" <<-'EOT'
		n1 claim k 1 2
		n1 finish k 3 5
		n2 finish k 4 6
	EOT
	cannot_be 1 "the finish came after the second claim" <<-'EOT'
		n1 claim k 1 2
		n2 claim k 3 4
		n1 finish k 5 6
	EOT
	cannot_be 1 "finished before it began" <<-'EOT'
		n1 finish k 1 2
		n1 submit k 3 4
	EOT
	may_be "two keys" <<-'EOT'
		n1 claim k 1 2
		n2 claim l 1 2
	EOT
}

@test "what is unknown may have happened, at any later time, once" {
	may_be "an unknown finish between" <<-'EOT'
		n1 claim k 1 2
		n1 finish k 3 4 110
		n2 claim k 8 9
	EOT
	may_be "an unknown claim that came late" <<-'EOT'
		n1 claim k 1 2 110
		n2 claim k 3 4
		n2 finish k 5 6
		n1 finish k 7 8
	EOT
	may_be "or that was taken back by itself" <<-'EOT'
		n1 claim k 1 2 110
		n2 claim k 3 4
	EOT
	cannot_be 1 "an unknown claim that came too late" <<-'EOT'
		n1 claim k 1 2 110
		n2 claim k 3 4
		n2 finish k 35 36
		n1 finish k 37 38
	EOT
	may_be "one that came in time, and was finished late" <<-'EOT'
		n1 claim k 1 2 110
		n1 finish k 37 38
	EOT
	cannot_be 1 "an unknown claim, finished twice" <<-'EOT'
		n1 claim k 1 2 110
		n1 finish k 3 4
		n1 finish k 5 6
	EOT
	cannot_be 1 "an unknown finish of a later life" <<-'EOT'
		n1 claim k 1 2
		n1 finish k 3 4 4
		n1 finish k 3 5
		n1 claim k 6 7
		n2 claim k 8 9
	EOT
	cannot_be 1 "one that was refused did nothing" <<-'EOT'
		n1 claim k 1 2
		n1 finish k 3 4 30
		n2 claim k 5 6
	EOT
	cannot_be 1 "an unknown claim is no finish" <<-'EOT'
		n1 claim k 1 2
		n2 claim k 3 4 110
		n3 claim k 5 6
	EOT
}

@test "a token has one node and is never seen after a higher one" {
	may_be "handed on" <<-'EOT'
		n1 see k 1 2 0 5 owned
		n1 see k 3 4 0 5 owned
		n2 see k 4 6 0 6 recover
		n2 see k 7 8 0 7 owned
	EOT
	cannot_be 2 "of two nodes" <<-'EOT'
		n1 see k 1 2 0 5 owned
		n2 see k 3 4 0 5 recover
	EOT
	cannot_be 2 "the old holder shows it still" <<-'EOT'
		n2 see k 1 2 0 6 recover
		n1 see k 3 4 0 5 owned
	EOT
	may_be "nobody can say who was first" <<-'EOT'
		n2 see k 1 4 0 6 recover
		n1 see k 3 5 0 5 owned
	EOT
}

@test "between two sights of a token nothing changes, and nobody else shows the key" {
	may_be "what the holder may" <<-'EOT'
		n1 see k 1 2 0 5 owned
		n1 note k 3 4 0 0 a
		n1 give k 5 6
		n1 recover k 7 8
		n1 see k 9 10 0 5 recover
	EOT
	cannot_be 3 "another lists it" <<-'EOT'
		n1 see k 1 2 0 5 owned
		n2 recover k 3 4
		n1 see k 5 6 0 5 owned
	EOT
	may_be "that may have been after it" <<-'EOT'
		n1 see k 1 2 0 5 owned
		n2 recover k 3 6
		n1 see k 5 7 0 5 owned
	EOT
	cannot_be 3 "another writes to it" <<-'EOT'
		n1 see k 1 2 0 5 owned
		n2 note k 3 4 0 0 a
		n1 see k 5 6 0 5 owned
	EOT
	cannot_be 3 "a take that took nothing" <<-'EOT'
		n1 see k 1 2 0 5 recover
		n1 take k 3 4
		n1 see k 5 6 0 5 owned
	EOT
	cannot_be 3 "finished, and still there" <<-'EOT'
		n1 claim k 0 1
		n1 see k 1 2 0 5 owned
		n1 finish k 3 4
		n1 see k 5 6 0 5 owned
	EOT
}

@test "no note is lost that was confirmed" {
	may_be "the newest" <<-'EOT'
		n1 note k 1 2 0 0 a
		n1 note k 3 4 0 0 b
		n2 read k 5 6 0 0 b
	EOT
	cannot_be 4 "an older one" <<-'EOT'
		n1 note k 1 2 0 0 a
		n1 note k 3 4 0 0 b
		n2 read k 5 6 0 0 a
	EOT
	cannot_be 4 "none" <<-'EOT'
		n1 claim k 0 1
		n1 note k 2 3 0 0 a
		n2 read k 5 6
	EOT
	may_be "none, of a new life" <<-'EOT'
		n1 claim k 0 1
		n1 note k 2 3 0 0 a
		n1 finish k 4 5
		n2 claim k 6 7
		n2 read k 8 9
	EOT
	may_be "an unknown one, late" <<-'EOT'
		n1 note k 1 2 110 0 a
		n1 note k 3 4 0 0 b
		n2 read k 5 6 0 0 a
	EOT
	cannot_be 4 "one that nobody wrote" <<-'EOT'
		n1 note k 1 2 0 0 a
		n2 read k 5 6 0 0 b
	EOT
	cannot_be 4 "one from the future" <<-'EOT'
		n2 read k 1 2 0 0 a
		n1 note k 5 6 0 0 a
	EOT
}

@test "in the end all know the same, and it is what they were told" {
	may_be "it is there" <<-'EOT'
		n1 claim k 1 2
		n1 last k 5 6 0 5
		n2 last k 5 6 0 5
		n1 shown k 5 6 0 0 owned
	EOT
	cannot_be 1 "a claim is lost" <<-'EOT'
		n1 claim k 1 2
		n1 last k 5 6 2
	EOT
	cannot_be 1 "a finish is lost" <<-'EOT'
		n1 claim k 1 2
		n1 finish k 3 4
		n1 last k 5 6 0 5
	EOT
	cannot_be 5 "one has another holder in mind" <<-'EOT'
		n1 claim k 1 2
		n1 last k 5 6 0 5
		n2 last k 5 6 0 6
	EOT
	cannot_be 5 "two show it" <<-'EOT'
		n1 claim k 1 2
		n1 shown k 5 6 0 0 owned
		n2 shown k 5 6 0 0 recover
	EOT
	cannot_be 4 "the last note is lost" <<-'EOT'
		n1 claim k 1 2
		n1 note k 3 4 0 0 a
		n1 last k 5 6 0 5
	EOT
}

@test "hashes, times and errors" {
	may_be "one hash at one index" <<-'EOT'
		n1 hash - 1 2 0 7 aa
		n2 hash - 1 2 0 7 aa
		n2 hash - 1 2 0 8 bb
	EOT
	cannot_be 6 "two hashes" <<-'EOT'
		n1 hash - 1 2 0 7 aa
		n2 hash - 3 4 0 7 bb
	EOT
	cannot_be 7 "too long" <<-'EOT'
		n1 claim k 1 50
	EOT
	may_be "as long as the machine" <<-'EOT'
		n1 claim k 1 50
		n2 stall - 40 42
	EOT
	cannot_be 7 "for ever" <<-'EOT'
		n1 hung k 1 5 0 0 claim
	EOT
	cannot_be 7 "an error that is not the tree's" <<-'EOT'
		n1 claim k 1 2 107
	EOT
	echo "1 45000000000 46000000000" >"$BATS_TEST_TMPDIR/away"
	history <<<"n1 claim k 1 50"
	check --away "$BATS_TEST_TMPDIR/away"
	history <<<"n2 claim k 1 50"
	run -1 check --away "$BATS_TEST_TMPDIR/away"
	echo nonsense >"$BATS_TEST_TMPDIR/history"
	run -2 check
}

@test "a cluster that is broken in many ways keeps its word" {
	need fuse root ip nsenter
	for seed in 1 "${CHAOS_SEED:-$((EPOCHSECONDS % 100000))}"; do
		echo "# seed $seed" >&3
		"$BATS_TEST_DIRNAME/chaos.bash" "$seed" 8 3 3>&-
	done
}
