#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What gossip's cores are made of. See swim.bats.
load helper.bash
OBJ=$(dirname "$RINGFS_BIN")/gossip

@test "K4: the cores keep nothing outside of what they are given: one owner, no lock" {
	need size nm
	local f
	[ -e "$OBJ/seal.o" ]
	for f in "$OBJ"/{swim,members,scuttlebutt,model,events,traits,seal}*.o; do
		run -1 grep -E ' U (pthread|uv|mtx|thrd|sem)_' <(nm "$f")
		# Sanitizers bring their own data; .data.rel.ro is constant.
		! nm "$f" | grep -qE '__(asan|ubsan|tsan)' || continue
		run -0 awk '$1 ~ /^\.(t?data|t?bss)$/ && $2 > 0' <(size -A "$f")
		[ -z "$output" ] || fail "$f: $output"
	done
}
