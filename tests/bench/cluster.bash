#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/bench/cluster.bash [PART...]
# Parts: serial batch isolated kill freeze many
# Three real daemons, on one disk. The first three parts, on loopback, beside
# Debian's etcd: three members on the same disk, in the same run, in turn, asked by
# a client in C over a connection that stays open. It is asked in gRPC, its own
# tongue, and, as a second line, in HTTP, its other one; the goals were set by the
# latter. The other parts, on hosts of their own, lose a node, and count from
# the moment of the loss to the first IN_CREATE in a survivor's recover/.
# ROUNDS of kill -9 (30), SLOW_ROUNDS of the others (3). A missed goal is
# printed, and is no failure. It needs root; without etcd it is not compared.
set -u
cd "$(dirname "$0")/../.." || exit
RINGFS_BIN=$(realpath "${RINGFS_BIN:-build/ringfs}")
BENCH=$(dirname "$RINGFS_BIN")/tests/bench
D=$(realpath -m "${BENCH_DIR:-build/bench}")
ROUNDS=${ROUNDS:-30}
SLOW_ROUNDS=${SLOW_ROUNDS:-3}
N_MANY=${N_MANY:-100000}
ETCD_PORT=23790 # and the five above it
ETCD=()
MANY=()

die() {
	printf 'bench: %s\n' "$*" >&2
	exit 1
}

# What the tests' helpers expect of bats.
bats_require_minimum_version() { :; }
skip() { die "$*"; }
BATS_TEST_DIRNAME=$PWD/tests
BATS_TEST_TMPDIR=$D
# shellcheck source=tests/helper.bash
. tests/helper.bash
# shellcheck source=tests/hosts.bash
. tests/hosts.bash
# shellcheck source=tests/cluster.bash
. tests/cluster.bash

clean_up() {
	local pid left
	stop_etcd
	stop_nodes >/dev/null 2>&1
	hosts_gone
	for left in $(mounts | tac); do
		fusermount3 -uz "$left" 2>/dev/null
	done
	for pid in $(ours); do kill -KILL "$pid" 2>/dev/null; done
	rm -rf "$D"
}

must() {
	"$@" || die "$*"
}

# ---- Lines ----

row() { # WHAT OURS THEIRS UNIT RATIO GOAL; bigger ratios are better
	awk -v what="$1" -v ours="$2" -v theirs="$3" -v unit="$4" \
		-v ratio="$5" -v goal="$6" 'BEGIN {
		printf "%-34s %10s %10s %-6s ratio %6.2f  goal >= %-4s %s\n",
			what, ours, theirs, unit, ratio, goal,
			(ratio >= goal ? "ok" : "MISSED") }'
}

limit() { # WHAT VALUE UNIT GOAL
	awk -v what="$1" -v value="$2" -v unit="$3" -v goal="$4" 'BEGIN {
		printf "%-34s %10s %10s %-6s               goal <= %-4s %s\n",
			what, value, "", unit, goal,
			(value + 0 <= goal ? "ok" : "MISSED") }'
}

quotient() {
	awk -v a="$1" -v b="$2" 'BEGIN { print (b > 0 ? a / b : 0) }'
}

quantile() { # PERCENT, of the numbers on standard input
	sort -n | awk -v p="$1" '{ v[NR] = $1 }
		END { i = int((NR * p + 99) / 100); print v[i < 1 ? 1 : i] }'
}

# ---- The two systems, on loopback ----

start_ring() {
	local k first
	BIND=127.0.0.1:0 must start_node n1 --claims any
	first=$(fact n1 n1 address)
	for k in 2 3; do
		BIND=127.0.0.1:0 must start_node "n$k" --claims any \
			--join "$first" --key-file "$(key_of n1)"
	done
	must all_see 3
	must wait_for 20 voters n1 3
	LEADER=$(leader n1)
	FOLLOWER=$(others 3 "$LEADER" | head -n 1)
}

stop_ring() {
	local k
	must stop_nodes
	for k in 1 2 3; do rm -rf "${D:?}/n$k"; done
}

etcd_addr() { # K
	echo "127.0.0.1:$((ETCD_PORT + $1))"
}

etcd_peer() { # K
	echo "e$1=http://127.0.0.1:$((ETCD_PORT + 3 + $1))"
}

etcd_is() { # K true|false: does it lead? 0 if it is so
	ETCDCTL_API=3 etcdctl --endpoints "$(etcd_addr "$1")" \
		endpoint status 2>/dev/null |
		awk -F', ' -v want="$2" '{ found = $5 == want }
			END { exit !found }'
}

start_etcd() {
	local k peers
	command -v etcd >/dev/null && command -v etcdctl >/dev/null || return
	peers=$(etcd_peer 1),$(etcd_peer 2),$(etcd_peer 3)
	for k in 1 2 3; do
		spawn etcd --name "e$k" --data-dir "$D/etcd/$k" \
			--listen-peer-urls "$(etcd_peer $k | cut -d= -f2)" \
			--initial-advertise-peer-urls \
			"$(etcd_peer $k | cut -d= -f2)" \
			--listen-client-urls "http://$(etcd_addr $k)" \
			--advertise-client-urls "http://$(etcd_addr $k)" \
			--initial-cluster "$peers" --log-level error \
			>>"$D/log/etcd" 2>&1
		ETCD+=($!)
	done
	for k in 1 2 3; do
		must wait_for 20 eval "etcd_is $k true || etcd_is $k false"
	done
	for k in 1 2 3; do
		if etcd_is $k true; then
			ETCD_LEADER=$(etcd_addr $k)
		else
			ETCD_FOLLOWER=$(etcd_addr $k)
		fi
	done
}

stop_etcd() {
	local pid
	for pid in "${ETCD[@]}"; do kill "$pid" 2>/dev/null; done
	for pid in "${ETCD[@]}"; do wait "$pid" 2>/dev/null; done
	ETCD=()
}

# ---- Claims ----

# The median of five times, in turn with the other's.
serial_at() { # WHERE ID ETCD-ADDR
	local i way what claim finish put delete
	local claims=() finishes=()
	declare -A puts=() deletes=()
	for i in 1 2 3 4 5; do
		read -r claim finish < <("$BENCH/meter" serial "$(mnt "$2")" 400)
		claims+=("$claim")
		finishes+=("$finish")
		((${#ETCD[@]} > 0)) || continue
		for way in serial http; do
			read -r put delete < <("$BENCH/etcd" $way "$3" 250)
			puts[$way]+="$put "
			deletes[$way]+="$delete "
		done
	done
	claim=$(printf '%s\n' "${claims[@]}" | quantile 50)
	finish=$(printf '%s\n' "${finishes[@]}" | quantile 50)
	for way in serial http; do
		((${#ETCD[@]} > 0)) || break
		what=gRPC
		[ $way = serial ] || what=HTTP
		# shellcheck disable=SC2086 # lists of numbers
		put=$(printf '%s\n' ${puts[$way]} | quantile 50)
		# shellcheck disable=SC2086
		delete=$(printf '%s\n' ${deletes[$way]} | quantile 50)
		row "claim, $1, etcd $what" "$claim" "$put" us \
			"$(quotient "$put" "$claim")" 6
		row "finish, $1, etcd $what" "$finish" "$delete" us \
			"$(quotient "$delete" "$finish")" 6
	done
	((${#ETCD[@]} > 0)) || printf '%-34s %10s %10s us\n' "claim, $1" \
		"$claim" "" "finish, $1" "$finish" ""
}

serial() {
	"$BENCH/meter" serial "$(mnt "$FOLLOWER")" 300 >/dev/null # warm
	serial_at "at the leader" "$LEADER" "${ETCD_LEADER-}"
	serial_at "at a follower" "$FOLLOWER" "${ETCD_FOLLOWER-}"
}

heralds_rest() {
	local k
	for k in 1 2 3; do
		must wait_for 60 grep -qx 'ringfs_herald_waiting 0' \
			"$(mnt n$k)/status/metrics.prom"
	done
}

batch() {
	local size rate theirs=0 where=at-the-leader id
	((${#ETCD[@]} == 0)) || theirs=$("$BENCH/etcd" many 12800 64 \
		"$(etcd_addr 1)" "$(etcd_addr 2)" "$(etcd_addr 3)")
	for id in "$LEADER" "$FOLLOWER"; do
		for size in 64 1000 10000; do
			heralds_rest
			rate=$("$BENCH/meter" batch "$(mnt "$id")" $size \
				$((size < 1000 ? 100 * size : 10 * size)))
			row "claims, $size a batch, ${where//-/ }" "$rate" \
				"$theirs" /s "$(quotient "$rate" "$theirs")" 40
		done
		where=at-a-follower
	done
	heralds_rest
}

isolated() {
	local where=at-the-leader id half most p50
	for id in "$LEADER" "$FOLLOWER"; do
		read -r p50 _ < <("$BENCH/meter" serial "$(mnt "$id")" 400)
		read -r half most < <("$BENCH/meter" isolated "$(mnt "$id")" 60)
		limit "isolated p99 / serial p50, ${where//-/ }" \
			"$(quotient "$most" "$p50")" "" 10
		echo "  isolated: median $half us, 99th $most us;" \
			"serial: median $p50 us"
		where=at-a-follower
	done
}

# ---- A node is lost ----

# How a node is lost, and comes back: nK of three.
lose_kill() { kill_node "n$1"; }
lose_stop() { kill -STOP "$(pid_of "n$1")"; }
lose_cut() { split "$1" "$(others 3 "n$1" | tr -d n | tr '\n' ' ')"; }

regain_kill() {
	detach "$(mnt "n$1")"
	back "$1"
}

# What it shows first is what it has after a look at its lease.
regain_stop() {
	kill -CONT "$(pid_of "n$1")"
	[ -z "$(names "n$1" owned)" ] || die "n$1 shows what it has lost"
	wait_for 20 is "n$1" ready
}

regain_cut() {
	heal
	wait_for 20 is "n$1" ready
}

# Lose node nK, which holds N keys: FIRST and LAST, in milliseconds, and HEARD.
lose() { # HOW K N
	local how=$1 k=$2 n=$3 id dirs=() old=- first last empty begin
	for id in $(others 3 "n$k"); do dirs+=("$(mnt "$id")/recover"); done
	[ "$how" != cut ] || old=$(mnt "n$k")/owned
	exec {CLOCK}< <(exec "$BENCH/takeover" "$n" "$old" "${dirs[@]}" 3>&-)
	read -rt 10 first <&"$CLOCK" || die "the clock does not start"
	begin=${EPOCHREALTIME/./}
	"lose_$how" "$k"
	read -r first last HEARD empty <&"$CLOCK" || die "the clock stopped"
	exec {CLOCK}<&-
	FIRST=never LAST=never
	((first == 0)) || FIRST=$(awk -v us=$((first - begin)) \
		'BEGIN { printf "%.1f", us / 1000 }')
	((first == 0)) || LAST=$(((last - begin) / 1000))
	if [ "$how" = cut ] && ((empty == 0 || empty > first)); then
		die "n$k still shows what others have"
	fi
}

claim_on() { # ID PREFIX N: by one batch
	local ctl
	exec {ctl}<>"$(mnt "$1")/ctl"
	{
		echo claim
		seq -f "$2%.0f" "$3"
	} >&"$ctl"
	[ "$(grep -c '^ok ' <&"$ctl")" = "$3" ] || die "a batch of claims failed"
	exec {ctl}>&-
}

finish_all() { # of what the survivors have got
	local id
	for id in "$@"; do
		find "$(mnt "$id")/recover" -type f -delete
	done
}

settled() {
	local k id
	for k in 1 2 3; do
		is "n$k" ready && voters "n$k" 3 || return
		[ -z "$(names "n$k" recover)$(names "n$k" owned)" ] || return
	done
	all_see 3 && id=$(leader n1) && [ -n "$id" ] &&
		[ "$(leader n2)" = "$id" ] && [ "$(leader n3)" = "$id" ]
}

victim() { # leader|other: its number
	local id
	id=$(leader n1)
	[ "$1" = leader ] || id=$(others 3 "$id" | shuf -n 1)
	echo "${id#n}"
}

rounds() { # HOW leader|other N
	local i k
	FIRSTS=()
	for ((i = 0; i < $3; i++)); do
		must wait_for 30 settled
		k=$(victim "$2")
		claim_on "n$k" "r$i-" 16
		lose "$1" "$k" 1
		FIRSTS+=("$FIRST")
		must "regain_$1" "$k"
		must wait_for 10 inherited_all "$i" "$k" 16
		# shellcheck disable=SC2046 # ids
		finish_all $(others 3 "n$k")
	done
}

inherited_all() { # ROUND K N
	local id n=0
	for id in $(others 3 "n$2"); do
		n=$((n + $(names "$id" recover | grep -c "^r$1-")))
	done
	((n == $3))
}

worst() { # "never" is the worst of all
	printf '%s\n' "${FIRSTS[@]}" | sed 's/never/999999/' | quantile "$1"
}

kill_9() {
	rounds kill other "$ROUNDS"
	limit "kill -9, median of $ROUNDS" "$(worst 50)" ms 50
	limit "kill -9, p99" "$(worst 99)" ms 150
	rounds kill leader "$ROUNDS"
	limit "kill -9 of the leader, median" "$(worst 50)" ms 250
	limit "kill -9 of the leader, p99" "$(worst 99)" ms 600
}

freeze() {
	local how what
	for how in stop cut; do
		what=SIGSTOP
		[ $how = stop ] || what="cables cut"
		rounds $how other "$SLOW_ROUNDS"
		limit "$what, the longest of $SLOW_ROUNDS" "$(worst 100)" ms 3000
		rounds $how leader "$SLOW_ROUNDS"
		limit "$what, the leader" "$(worst 100)" ms 4000
	done
	echo "  and nobody showed a key that its owner still showed"
}

bare_mknods() { # per second, through a bare libfuse loop
	mkdir -p "$D/bare"
	spawn "$BENCH/bare" "$D/bare" 10 >>"$D/log/bare" 2>&1
	local pid=$! rate
	must wait_for 10 test -e "$D/bare/keys"
	rate=$("$BENCH/meter" mknod "$D/bare/keys" 100000)
	kill "$pid"
	wait "$pid"
	! grep -q " $D/bare " /proc/self/mounts || fusermount3 -uz "$D/bare"
	echo "$rate"
}

# Both survivors get about half, each with a herald of its own.
many() {
	local k id n=0 rate
	must wait_for 30 settled
	rate=$(bare_mknods)
	k=$(victim other)
	claim_on "n$k" "a-key-" "$N_MANY"
	for id in n1 n2 n3; do
		must wait_for 120 grep -qx 'ringfs_herald_waiting 0' \
			"$(mnt $id)/status/metrics.prom"
	done
	lose kill "$k" "$N_MANY"
	for id in $(others 3 "n$k"); do
		n=$((n + $(names "$id" recover | grep -c '^a-key-')))
	done
	limit "$N_MANY keys, the last IN_CREATE" "$LAST" ms 3000
	echo "  first $FIRST ms; $((N_MANY - HEARD)) not heard," \
		"$((N_MANY - n)) lost; a bare loop's mknods take" \
		"$(awk -v n="$N_MANY" -v r="$rate" \
			'BEGIN { printf "%.0f", 1000 * n / r }') ms"
}

# ---- The run ----

need fuse root ip nsenter
[ -x "$BENCH/takeover" ] || die "run it as 'make bench'"
command -v etcd >/dev/null || .ci/deps bench
(($# > 0)) || set -- serial batch isolated kill freeze many
trap clean_up EXIT
trap 'exit 1' INT TERM
rm -rf "$D"
mkdir -p "$D/log"
for part; do
	case $part in
	serial | batch | isolated) SPEED=1 ;;
	kill) MANY+=(kill_9) ;;
	freeze | many) MANY+=("$part") ;;
	*) die "no part named $part" ;;
	esac
done
printf '%-34s %10s %10s\n' "3 nodes" ringfs etcd
if [ -n "${SPEED-}" ]; then
	start_etcd || true
	start_ring
	for part; do
		case $part in serial | batch | isolated) $part ;; esac
	done
	stop_etcd
	stop_ring
fi
if ((${#MANY[@]} > 0)); then
	must cluster 3
	for part in "${MANY[@]}"; do $part; done
fi
exit 0
