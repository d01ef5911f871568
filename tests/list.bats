#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Listings of many keys, while others come and go.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
}

sanitized() {
	nm "$RINGFS_BIN" | grep -q __asan
}

spawn_and_wait() {
	spawn "$@"
	wait $!
}

listed() { # N ROUNDS: by a tool that knows what must be there
	local seed=${SEED:-$RANDOM}
	start_node a
	echo "# seed $seed" >&3
	run -0 spawn_and_wait "$TOOLS/list" "$M" "$1" "$2" "$seed"
	[[ $output == "$2 listings of $1, "*" changes meanwhile" ]]
}

@test "a million keys are listed exactly, whoever comes and goes meanwhile" {
	local n=1000000
	! sanitized || n=30000
	listed "$n" 6
}

@test "a few keys are listed exactly, a thousand times" {
	listed 37 1000
}
