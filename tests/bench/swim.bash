#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/bench/swim.bash [PART...]
#	parts: probe spread detect guard bytes oneway stopped heal big
# SWIM by statistics, in virtual time: what was measured, what it should be like
# by theory or by others' figures, and whether it is. A miss is printed, and is
# no failure, unless STRICT=1. $ROUNDS: so many times as many runs (make soak).
set -u
cd "$(dirname "$0")/../.." || exit
RINGFS_BIN=${RINGFS_BIN:-build/ringfs}
SIM=$(dirname "$RINGFS_BIN")/tests/sim/sim
ROUNDS=${ROUNDS:-1}
SEED=${SEED:-$RANDOM}
MISSED=0

measure() {
	"$SIM" --seed "$SEED" measure "$@" || {
		echo "swim.bash: sim --seed $SEED measure $*" >&2
		exit 1
	}
}

row() { # WHAT VALUE OPERATOR REFERENCE UNIT
	awk -v what="$1" -v value="$2" -v op="$3" -v ref="$4" -v unit="$5" 'BEGIN {
		met = op == "<=" ? value <= ref : op == ">=" ? value >= ref : 1
		met = met && value != ""
		printf "%-52s %9s  %2s %9s %-8s %s\n", what, value, op, ref, unit,
			!met ? "MISSED" : op == "" ? "" : "ok"
		exit !met }' || ((++MISSED))
}

# The number after a word in what a measure said: after WORD <<<TEXT
after() {
	awk -v word="$1" '{ for (i = 1; i < NF; i++) if ($i == word) {
		print $(i + 1) + 0; exit } }'
}

minus() {
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.0f", a - b }'
}

# SWIM 3.1: e / (e - 1) = 1.58, and no later than 2 n - 1 (which sim asserts).
probe() {
	local n out rounds
	for n in 10 100 1000; do
		rounds=$((n < 1000 ? 2000 : 300))
		out=$(measure probe $n $((rounds * ROUNDS)))
		# The deviation of one is 0.96: three of the mean's are allowed.
		row "periods to the first probe, n $n" "$(after after <<<"$out")" "<=" \
			"$(awk -v n=$((rounds * ROUNDS)) 'BEGIN {
				printf "%.3f", 1.582 + 3 * 0.96 / sqrt(n) }')" ""
	done
}

# Who is missed by news alone, for this limit: the table of a model of push
# gossip in rounds. Within three deviations of it, or better.
spread() {
	local n loss want rounds limit out told
	while read -r n loss want rounds; do
		limit=$(((n < 300 ? 1000 : 300) * ROUNDS))
		out=$(measure spread "$n" $limit "$loss")
		told=$(after all <<<"$out")
		row "all told by news alone, n $n, loss $loss %" "$told" ">=" \
			"$(awk -v p="$want" -v n=$limit 'BEGIN { printf "%.4f",
				p - 3 * sqrt(p * (1 - p) / n) - 0.0001 }')" ""
		[ "$rounds" = - ] || row "  rounds, median" \
			"$(after median <<<"$out")" "<=" "$rounds" ""
	done <<-'EOF'
		5 0 0.9995 2
		5 10 0.999 -
		5 30 0.989 2
		9 0 0.999 -
		9 10 0.996 -
		9 30 0.97 -
		10 0 0.9995 3
		10 30 0.98 3
		50 0 0.999 5
		50 10 0.9985 -
		50 30 0.98 6
		99 0 0.999 -
		99 30 0.98 -
		100 0 0.9993 6
		300 0 0.9995 7
		300 10 0.9995 -
		300 30 0.993 9
	EOF
}

# A death is known at the latest ln 100 = 4.6 periods (99 %), a round, and the
# shortest suspicion after it; then the news takes the rounds of spread().
detect() {
	local n runs out first
	while read -r n runs news; do
		out=$(measure detect "$n" $((runs * ROUNDS)))
		local least
		least=$(sed 's/.*(suspicion \([0-9]*\).*/\1/' <<<"$out")
		first=$(after median <<<"$out")
		row "death known first, n $n, median" "$first" "<=" \
			$((least + 200 + 316)) ms
		row "  p99" "$(after p99 <<<"${out%%; all*}")" "<=" \
			$((least + 200 + 1000)) ms
		((n > 100)) || row "  p99, the goal of 3 s" \
			"$(after p99 <<<"${out%%; all*}")" "<=" 3000 ms
		row "  news of it, to the last" \
			"$(minus "$(after median <<<"${out##*; all}")" "$first")" \
			"<=" $((news * 100)) ms
	done <<-'EOF'
		3 1000 1
		10 500 3
		30 300 5
		100 200 6
		1000 100 8
	EOF
	out=$(measure detect 3 $((300 * ROUNDS)) serf)
	row "at serf's period of 1 s, n 3, median" "$(after median <<<"$out")" \
		"<=" 5140 ms
}

# Lifeguard's table: of all false deaths 1.53 % were left, of those that healthy
# members believed 1.89 %.
guard() {
	local how n=64 out all healthy name a h
	for how in deaf slow; do
		out=$(measure $how $n $((60 * ROUNDS)))
		read -r all healthy < <(sed -n 's/.*SWIM alone: false deaths \([0-9]*\), at healthy \([0-9]*\)/\1 \2/p' <<<"$out")
		while IFS='|' read -r name a h; do
			if [ "$name" = Lifeguard ]; then
				row "$how, 1 to 16 of $n: false deaths left of $all" \
					"$(share "$a" "$all")" "<=" 1.53 %
				row "  believed by healthy ones, of $healthy" \
					"$(share "$h" "$healthy")" "<=" 1.89 %
			else
				row "  $name" "$(share "$a" "$all")" "" "" %
			fi
		done < <(sed -n "s/.*n $n, \(.*\): false deaths \([0-9]*\), at healthy \([0-9]*\)/\1|\2|\3/p" <<<"$out")
	done
	out=$(measure stop $n $((60 * ROUNDS)))
	row "stopped in spells: false deaths" "$(after deaths <<<"$out")" "<=" 0 ""
}

share() {
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", (b > 0 ? 100 * a / b : 0) }'
}

bytes() {
	local n first='' b
	for n in 3 10 30 100 1000 10000; do
		b=$(after : <<<"$(measure bytes $n | sed 's/: / : /')")
		first=${first:-$b}
		row "bytes at rest per member and second, n $n" "$b" "<=" "$first" B/s
	done
	b=$(after : <<<"$(measure bytes 10 serf | sed 's/: / : /')")
	row "at serf's period of 1 s" "$b" "<=" 317 B/s
}

# Serf, with four that do not reach a fifth: 12 deaths and 8 returns in 90 s.
oneway() {
	local how n
	while read -r how n; do
		row "cut one way ($how), n $n: dead or back per 60 s" \
			"$(after back <<<"$(measure oneway $n $((20 * ROUNDS)) "$how")")" \
			"<=" 1 ""
	done <<-'EOF'
		in 5
		out 5
		pair 5
		some 8
	EOF
}

stopped() {
	local n out runs=200
	for n in 3 10 30 100; do
		out=$(measure stopped $n $((runs * ROUNDS)))
		row "stopped for the shortest suspicion, n $n: deaths" \
			"$(after in <<<"$out")" "<=" 0 ""
	done
}

heal() {
	local n out
	for n in 3 5 10 16; do
		out=$(measure heal $n $((100 * ROUNDS)))
		row "a split heals, n $n, p99" "$(after p99 <<<"$out")" "<=" 12000 ms
		row "  never" "$(after never <<<"$out")" "<=" 0 ""
	done
}

big() {
	local out begin=$SECONDS
	out=$(measure big 10000)
	row "10000 members: a death known to all after" \
		"$(sed -n 's/.*to all after \([0-9]*\).*/\1/p' <<<"$out")" "<=" 8000 ms
	row "  bytes of memory per record" \
		"$(sed -n 's/.* \([0-9]*\) bytes per record.*/\1/p' <<<"$out")" \
		"<=" 128 ""
	row "  this took" $((SECONDS - begin)) "<=" 300 s
}

[ -x "$SIM" ] || {
	echo "swim.bash: no $SIM; run it as 'make bench'" >&2
	exit 1
}
echo "SWIM in virtual time, seed $SEED"
printf '%-52s %9s     %9s\n' "" measured reference
(($# > 0)) || set -- probe spread detect guard bytes oneway stopped heal big
for part; do
	case $part in
	probe | spread | detect | guard | bytes | oneway | stopped | heal | big)
		$part
		;;
	*)
		echo "swim.bash: no part named $part" >&2
		exit 64
		;;
	esac
done
((MISSED == 0)) || echo "$MISSED missed"
((MISSED == 0)) || [ "${STRICT-}" != 1 ]
