#!/bin/bash
# SPDX-License-Identifier: MIT
# Form: C as .clang-format has it, shell as shellcheck wants it, manual pages
# without a warning of groff, texts without a trailing blank.
set -u
cd "$(dirname "$0")/.." || exit
shopt -s nullglob
bad=0

c=(fs/*.[ch] ring/*.[ch] gossip/*.[ch] tests/*/*.[ch])
clang-format --dry-run -Werror "${c[@]}" || bad=1

shell=(.ci/deps .ci/run tests/*.bash tests/*.sh tests/*/*.bash tests/*/*.sh
	man/*.sh fs/*.bash-completion)
shellcheck -x -S warning "${shell[@]}" || bad=1
# SC2030, SC2031: each bats test is a subshell. SC2034, SC2154: names that the
# helper and bats know.
shellcheck -S warning -e SC2030,SC2031,SC2034,SC2154 tests/*.bats || bad=1

for page in man/*.[1-8]; do
	said=$(groff -mdoc -ww -Tutf8 -z "$page" 2>&1)
	[ -z "$said" ] || { printf '%s\n' "$said"; bad=1; }
done

for f in "${c[@]}"; do
	head -n 1 "$f" | grep -q '^/\* SPDX-License-Identifier: MIT \*/$' ||
		{ echo "lint: $f: no licence line"; bad=1; }
	lines=$(wc -l <"$f")
	((lines <= 800)) || { echo "lint: $f: $lines lines, 800 at most"; bad=1; }
done
if grep -nE '[[:blank:]]$' "${c[@]}" "${shell[@]}" tests/*.bats man/*.[1-8] \
	Makefile README.md CHANGES.md; then
	echo "lint: blanks at the end of these lines"
	bad=1
fi
# Each rule that was paid for by others has a test that quotes it. SV-R2, R3 and
# R9 are about rings and forwarding; SB-13 and 21 about objects of one process.
ids=(F{1..9} T1 D{1..11} I{1..13} S{1..5} K{1..5} UP-3{1..7} SV-R{1,4,5,6,7,8}
	SB-{1..12} SB-{14..20})
quoted=$(grep -hE '@test|ok\("' tests/*.bats tests/unit/*_test.c |
	grep -oE '\b(SV-R|SB-|UP-|[FTDISK])[0-9]+\b' | sort -u)
for id in "${ids[@]}"; do
	grep -qx -- "$id" <<<"$quoted" ||
		{ echo "lint: no test quotes $id"; bad=1; }
done
exit $bad
