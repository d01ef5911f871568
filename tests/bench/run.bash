#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/bench/run.bash [PART...]
# Parts: durable read herald memory batch beside
# Ratios of ringfs to the bare thing, both taken in this run, in turn. A missed
# goal is printed, and is no failure. The state lies in $BENCH_DIR, by default
# below build/, so that the disk measured is a real one.
set -u
cd "$(dirname "$0")/../.." || exit
RINGFS_BIN=${RINGFS_BIN:-build/ringfs}
METER=$(dirname "$RINGFS_BIN")/tests/bench/meter
BARE=$(dirname "$RINGFS_BIN")/tests/bench/bare
D=${BENCH_DIR:-build/bench}
N_MEMORY=${N_MEMORY:-1000000}
NODE='' TABLE=''

stop() { # PID DIR
	[ -n "$1" ] || return 0
	kill -TERM "$1" 2>/dev/null
	wait "$1"
	! grep -q " $PWD/$2 " /proc/self/mounts || fusermount3 -uz "$2"
}

clean_up() {
	stop "$NODE" "$D/mnt"
	stop "$TABLE" "$D/bare"
	rm -rf "$D"
}

die() {
	printf 'bench: %s\n' "$*" >&2
	exit 1
}

until_there() { # SECONDS FILE
	local i
	for ((i = 0; i < $1 * 100; i++)); do
		[ ! -e "$2" ] || return 0
		sleep 0.01
	done
	die "$2 does not appear: $(tail -n 3 "$D/log")"
}

ready() {
	local i
	for ((i = 0; i < 6000; i++)); do
		[ "$(cat "$D/mnt/status/state" 2>/dev/null)" != ready ] || return 0
		sleep 0.01
	done
	die "the node does not serve: $(tail -n 3 "$D/log")"
}

start_node() {
	"$RINGFS_BIN" mount -f --name bench --state "$D/state" \
		--bind 127.0.0.1:0 "$D/mnt" >>"$D/log" 2>&1 &
	NODE=$!
	ready
}

stop_node() {
	stop "$NODE" "$D/mnt"
	NODE=''
}

fresh_node() {
	stop_node
	rm -rf "$D/state"
	start_node
}

start_bare() { # N
	stop "$TABLE" "$D/bare"
	"$BARE" "$D/bare" "$1" >>"$D/log" 2>&1 &
	TABLE=$!
	until_there 10 "$D/bare/keys"
}

claim_many() { # N PREFIX, one batch per 100,000
	local at
	for ((at = 0; at < $1; at += 100000)); do
		{
			echo claim
			seq -f "$2%.0f" $at $(($1 < at + 100000 ? $1 - 1 : at + 99999))
		} >"$D/in"
		exec 8<>"$D/mnt/ctl"
		cat "$D/in" >&8
		[ "$(grep -c '^ok ' <&8)" = $(($(wc -l <"$D/in") - 1)) ] ||
			die "a batch of claims failed"
		exec 8>&-
	done
}

# Wait until all claims are announced, so that nothing else runs.
herald_rests() {
	local i
	for ((i = 0; i < 3000; i++)); do
		! grep -qx 'ringfs_herald_waiting 0' "$D/mnt/status/metrics.prom" ||
			return 0
		sleep 0.1
	done
	die "the herald does not come to rest"
}

# One line: what, ours, theirs, their ratio, and whether it meets the goal.
row() { # WHAT OURS THEIRS UNIT OPERATOR GOAL
	awk -v what="$1" -v ours="$2" -v theirs="$3" -v unit="$4" -v op="$5" \
		-v goal="$6" 'BEGIN {
		ratio = theirs > 0 ? ours / theirs : 0
		met = op == "<=" ? ratio <= goal : ratio >= goal
		printf "%-28s %12s %12s %-6s ratio %6.2f  goal %s %-5s %s\n",
			what, ours, theirs, unit, ratio, op, goal,
			met ? "ok" : "MISSED" }'
}

limit() { # WHAT VALUE UNIT GOAL
	awk -v what="$1" -v value="$2" -v unit="$3" -v goal="$4" 'BEGIN {
		printf "%-28s %12s %12s %-6s              goal <= %-5s %s\n", what,
			value, "", unit, goal, value <= goal ? "ok" : "MISSED" }'
}

median() {
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

durable() {
	fresh_node
	"$METER" durable "$D/mnt" "$D/append" 200 >/dev/null # warm
	local claim finish append
	read -r claim finish append < <("$METER" durable "$D/mnt" "$D/append" 2000)
	row "durable claim" "$claim" "$append" us "<=" 2.5
	row "durable finish" "$finish" "$append" us "<=" 2.5
}

# Five times each in turn, the middle of each.
compare() { # WHAT METER-FORM N
	local i ours=() theirs=() args=("$3" 0.3)
	[ "$2" != readdir ] || args=(0.3)
	for i in 1 2 3 4 5; do
		ours+=("$("$METER" "$2" "$D/mnt/keys" "${args[@]}")")
		theirs+=("$("$METER" "$2" "$D/bare/keys" "${args[@]}")")
	done
	row "$1" "$(printf '%s\n' "${ours[@]}" | median)" \
		"$(printf '%s\n' "${theirs[@]}" | median)" "/s" ">=" 0.8
}

reading() {
	local n
	for n in 10 1000 100000 1000000; do
		fresh_node
		claim_many $n k
		start_bare $n
		herald_rests
		compare "stat, $n keys" stat $n
		compare "lookup, $n keys" lookup $n
		compare "open+read, $n keys" read $n
		compare "readdir, $n keys" readdir $n
	done
}

# A batch of claims is announced in owned/ and in keys/: of the herald's mknods
# one half is heard here.
herald() {
	local rate
	fresh_node
	start_bare 10
	rate=$("$METER" heard "$D/mnt/owned" 100000 "$D/mnt")
	row "herald, 100,000 events" "$rate" \
		"$("$METER" mknod "$D/bare/keys" 100000)" "/s" ">=" 0.8
	limit "100,000 events, the last" "$(awk -v r="$rate" 'BEGIN {
		printf "%.2f", 1e5 / r }')" s 3
}

rss() { # kilobytes of the daemon, without the files it maps
	awk '/^RssAnon/ { print $2 }' "/proc/$NODE/status"
}

memory() {
	fresh_node
	local before begin seconds bytes
	stop_node
	start_node
	before=$(rss)
	claim_many "$N_MEMORY" "a-key-of-20-bytes-"
	stop_node
	begin=$EPOCHREALTIME
	start_node
	seconds=$(awk -v b="$begin" -v e="$EPOCHREALTIME" 'BEGIN {
		printf "%.2f", e - b }')
	bytes=$((($(rss) - before) * 1024 / N_MEMORY - 24))
	[ "$(ls -f "$D/mnt/recover" | wc -l)" -ge "$N_MEMORY" ] ||
		die "keys are missing after the start"
	limit "bytes per key, no name" $bytes bytes 250
	limit "start, $N_MEMORY keys" "$seconds" s 3
}

batch() {
	fresh_node
	local one size rate claim finish append
	read -r claim finish append < <("$METER" durable "$D/mnt" "$D/append" 500)
	one=$(awk -v us="$claim" 'BEGIN { printf "%.0f", 1e6 / us }')
	for size in 64 1000 10000; do
		herald_rests
		rate=$("$METER" batch "$D/mnt" $size $((size * 20)))
		row "batch of $size, single claim" "$rate" "$one" "/s" ">=" 10
	done
}

# A stat by another, while one batch of 200,000 is carried out: the longest, in
# the median of five, since on a machine with others' work one says little.
beside() {
	fresh_node
	local i claims=() finishes=() claim finish rates
	for i in 1 2 3 4 5; do
		read -r claim finish rates < <("$METER" beside \
			"$D/mnt/status/state" 200000 "$D/mnt")
		claims+=("$claim")
		finishes+=("$finish")
		herald_rests
	done
	limit "stat beside 200,000 claims" \
		"$(printf '%s\n' "${claims[@]}" | median)" ms 50
	limit "stat beside 200,000 finishes" \
		"$(printf '%s\n' "${finishes[@]}" | median)" ms 50
	echo "names per second, claimed and finished, the last time: $rates"
}

[ -c /dev/fuse ] || die "/dev/fuse is missing"
[ -x "$RINGFS_BIN" ] && [ -x "$METER" ] || die "run it as 'make bench'"
trap clean_up EXIT
rm -rf "$D"
mkdir -p "$D/mnt" "$D/bare" "$D/state"
printf '%-28s %12s %12s\n' "" ringfs bare
(($# > 0)) || set -- durable read herald memory batch beside
for part; do
	case $part in
	durable | herald | memory | batch | beside) $part ;;
	read) reading ;;
	*) die "no part named $part" ;;
	esac
done
exit 0
