#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# kill -9 at random moments under load: what was acknowledged is there, and
# nothing is half done. ROUNDS crashes; SEED replays a run's choices.

load helper

ROUNDS=${ROUNDS:-20}
WORKERS=4

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	J=$BATS_TEST_TMPDIR/journal
	SEED=${SEED:-$((EPOCHSECONDS % 1000000))}
	RANDOM=$((SEED % 32768))
	mkdir "$J"
	echo "# seed $SEED" >&3
}

# What has to be killed: the daemon alone, its herald first, or its herald last.
kill_somehow() {
	local herald
	herald=$(herald_of a)
	case $((RANDOM % 4)) in
	0) kill -KILL "$herald" && kill_node a ;;
	1) kill_node a && { kill -KILL "$herald" 2>/dev/null || true; } ;;
	*) kill_node a ;;
	esac
}

one_round() { # NUMBER
	local load
	start_node a --max-attempts 60000
	"$TOOLS/load" check "$M" "$J" $WORKERS || fail "round $1, seed $SEED" ||
		return
	spawn "$TOOLS/load" run "$M" "$J" $((SEED + $1)) $WORKERS
	load=$!
	sleep "0.$((RANDOM % 400 + 100))"
	kill_somehow
	wait "$load" || fail "the load met a wrong answer in round $1, seed $SEED" ||
		return
	detach "$M"
}

@test "after kill -9 under load all that was acknowledged is there, and only that" {
	for ((round = 1; round <= ROUNDS; round++)); do
		one_round $round
	done
	start_node a --max-attempts 60000
	"$TOOLS/load" check "$M" "$J" $WORKERS
}

@test "kill -9 in the middle of a start loses nothing" {
	one_round 1
	for ((round = 1; round <= ROUNDS / 4 + 1; round++)); do
		launch_node a --max-attempts 60000
		sleep "0.0$((RANDOM % 90 + 10))"
		kill_node a
		for pid in $(ours); do kill -KILL "$pid" 2>/dev/null || true; done
		! is_mounted "$M" || fusermount3 -uz "$M"
	done
	start_node a --max-attempts 60000
	"$TOOLS/load" check "$M" "$J" $WORKERS
}

@test "kill -9 in the middle of a batch leaves all of it or nothing" {
	for ((round = 1; round <= ROUNDS / 4 + 1; round++)); do
		start_node a
		held=$(ls "$M/recover" | wc -l)
		((held == 0 || held == 5000)) ||
			fail "a batch was torn: $held, seed $SEED"
		find "$M/recover" -type f -printf '%f\n' |
			xargs -rn 5000 "$RINGFS_BIN" finish -m "$M"
		spawn bash -c 'exec 8<>"$1/ctl"
			{ echo claim; seq "$2" "$3"; } >&8; cat <&8 >/dev/null' - \
			"$M" $((round * 10000 + 1)) $((round * 10000 + 5000)) \
			2>/dev/null
		client=$!
		sleep "0.0$((RANDOM % 90 + 10))"
		kill_node a
		wait "$client" || true
		detach "$M"
	done
}
