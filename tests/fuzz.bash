#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/fuzz.bash SECONDS
# Random input for each decoder; what it finds stays in build/fuzz/found. An
# input that once broke something is kept in tests/fuzz/NAME/. 0 only builds.
set -u
cd "$(dirname "$0")/.." || exit
shopt -s nullglob
seconds=${1:-60}
bad=0

make -s -j2 O=build/fuzz CC=clang SAN=address,undefined,fuzzer-no-link \
	CFLAGS="-O1 -g" fuzzers || exit
((seconds > 0)) || exit 0
mkdir -p build/fuzz/found

fuzz_one() { # NAME: its line in build/fuzz/NAME.tap
	local name=$1 runs seeds=() corpus=build/fuzz/corpus/$1
	mkdir -p "$corpus"
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
	fi >build/fuzz/"$name".tap
}
export -f fuzz_one
export seconds

names=()
for source in tests/fuzz/*_fuzz.c; do names+=("$(basename "$source" .c)"); done
printf '%s\n' "${names[@]}" | xargs -P "$(nproc)" -I {} bash -c 'fuzz_one {}'
for name in "${names[@]}"; do
	cat build/fuzz/"$name".tap
	! grep -q '^not ok' build/fuzz/"$name".tap || bad=1
done
exit $bad
