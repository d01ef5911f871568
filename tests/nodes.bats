#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Whole nodes in virtual time: thousands of runs that differ, each repeated by
# its seed (tests/sim/node.h). What must hold after every event the simulator
# checks by itself (node_check.c); a run that fails says how to see it again.
load helper.bash
SIM=$(dirname "$RINGFS_BIN")/tests/sim/sim

nodes() { # ARG...
	spawn "$SIM" nodes "$@"
	wait $!
}

# Every seed of the range; as many at a time as there are families to see.
family() { # NAME SEEDS
	run -0 nodes --only "$1" "$2"
}

setup() {
	[ -x "$SIM" ]
	export TMPDIR=$BATS_TEST_TMPDIR
	[ ! -w /dev/shm ] || unset TMPDIR
}

@test "issue 5.7: whatever happens, one holder per key, nothing acknowledged is lost" {
	run -0 nodes "1-${SEEDS:-60}"
	[ "$(grep -c '^seed ' <<<"$output")" = "${SEEDS:-60}" ]
}

@test "issue 5.7: a run is repeated by its seed, to the last byte" {
	run -0 nodes --twice 1-6
	[ "$(sort -u <<<"$output" | wc -l)" = 6 ]
	[ "$(awk '{ print $6 }' <<<"$output" | sort -u | wc -l)" = 6 ]
}

@test "issue 5.7: each kind of fault, by itself" {
	local f
	for f in kill power stop cut link disk wipe move all; do
		family "$f" 1-3
	done
}

# What the checks are worth: each of these faults is planted, and found.
caught() { # NAME SENTENCE FAMILIES SEEDS
	run -1 nodes --break "$1" --only "$3" "$4"
	grep -qE "$2" <<<"$output" || fail "$1: $output"
}

@test "issue 5.7: planted: a flush that does nothing" {
	caught nosync 'another entry|not ready|lags|does not start|damaged|asserti' \
		power,all 1-40
}

@test "issue 5.7: planted: a lease that is held too long" {
	caught lease 'is shown' cut 1-60
}

@test "issue 5.7: planted: proof of the death of who lives" {
	caught liar 'is shown' stop 1-60
}

@test "issue 5.7: planted: a machine that skips an entry" {
	caught skip 'another machine' kill 1-20
}
