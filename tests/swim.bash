# SPDX-License-Identifier: MIT
# The simulator of SWIM: scripts for it come on standard input. Load it after
# helper.bash.
# shellcheck shell=bash
SIM=$(dirname "$RINGFS_BIN")/tests/sim/sim

# Run the script; its trace is in $output.
sim() {
	run -0 "$SIM" --seed 1
}

# Each seed must do; the one that does not is in the message.
for_seeds() { # FIRST LAST
	local script seed
	script=$(cat)
	for ((seed = $1; seed <= $2; seed++)); do
		"$SIM" --seed "$seed" <<<"$script" || return
	done
}
