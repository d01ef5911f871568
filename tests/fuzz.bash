#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/fuzz.bash SECONDS
# Random input for each decoder; what it finds stays in build/fuzz/found. An
# input that once broke something is kept in tests/fuzz/NAME/.
set -u
cd "$(dirname "$0")/.." || exit
shopt -s nullglob
seconds=${1:-60}
bad=0

make -s -j2 O=build/fuzz CC=clang SAN=address,undefined,fuzzer-no-link \
	CFLAGS="-O1 -g" fuzzers || exit
mkdir -p build/fuzz/found
for source in tests/fuzz/*_fuzz.c; do
	name=$(basename "$source" .c)
	corpus=build/fuzz/corpus/$name
	mkdir -p "$corpus"
	seeds=()
	[ ! -d "tests/fuzz/$name" ] || seeds=("tests/fuzz/$name")
	if build/fuzz/tests/fuzz/"$name" -max_total_time="$seconds" -timeout=10 \
		-rss_limit_mb=2048 -artifact_prefix=build/fuzz/found/"$name"- \
		-print_final_stats=1 "$corpus" "${seeds[@]}" \
		>build/fuzz/"$name".log 2>&1; then
		runs=$(awk '/number_of_executed_units/ { print $2 }' \
			build/fuzz/"$name".log)
		echo "ok - $name: $runs inputs in $seconds s"
	else
		tail -n 40 build/fuzz/"$name".log
		echo "not ok - $name"
		bad=1
	fi
done
exit $bad
