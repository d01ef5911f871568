#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/bench/net.bash [N...]
# Membership of N real daemons (3 10 unless told), each on a host of its own,
# beside Debian's serf on the same hosts in the same run, both with their
# defaults: kill -9 until the first and the last member know, a stop of 1.5 s,
# cables that answer with errors, a restart at another port, idle bytes.
# serf is installed for this, and needs root; without it only ringfs is shown.
set -u
cd "$(dirname "$0")/../.." || exit
RINGFS_BIN=$(realpath "${RINGFS_BIN:-build/ringfs}")
TOOLS=$(dirname "$RINGFS_BIN")/tests/tools
BATS_TEST_TMPDIR=$(mktemp -d)
SECONDS_IDLE=${SECONDS_IDLE:-20}
fail() { printf 'bench: %s\n' "$*" >&2; exit 1; }
need() { ((EUID == 0)) || fail "this bench needs root"; }
# shellcheck source=tests/hosts.bash
. tests/hosts.bash
mkdir "$BATS_TEST_TMPDIR/log"
command -v serf >/dev/null || .ci/deps bench
declare -A PID

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

stop_all() {
	local k
	for k in "${!PID[@]}"; do kill "${PID[$k]}" 2>/dev/null; done
	for k in "${!PID[@]}"; do wait "${PID[$k]}" 2>/dev/null; done
	PID=()
}

clean_up() {
	local m
	stop_all
	hosts_gone
	for m in "$BATS_TEST_TMPDIR"/*/mnt; do
		! grep -q " $m " /proc/self/mounts || fusermount3 -uz "$m"
	done
	rm -rf "$BATS_TEST_TMPDIR"
}
trap clean_up EXIT

until_true() { # SECONDS COMMAND...
	local end=$(($(now_ms) + $1 * 1000))
	shift
	until "$@"; do
		(($(now_ms) < end)) || return 1
		sleep 0.01
	done
}

# ---- One interface, two systems ----

dir_of() { echo "$BATS_TEST_TMPDIR/$SYSTEM-$1"; }

start_ringfs() { # K PORT
	local d join=()
	d=$(dir_of "$1")
	mkdir -p "$d/mnt"
	(($1 == 1)) || join=(--join 10.77.0.1:7400 --key-file \
		"$(dir_of 1)/state/key")
	nsenter --net="/run/netns/$(host_ns "$1")" "$RINGFS_BIN" mount -f \
		--name "n$1" --state "$d/state" --bind "10.77.0.$1:$2" \
		--claims any "${join[@]}" "$d/mnt" >>"$d/log" 2>&1 &
	PID[$1]=$!
}

start_serf() { # K PORT
	local d join=()
	d=$(dir_of "$1")
	mkdir -p "$d"
	(($1 == 1)) || join=(-retry-join 10.77.0.1:7400 -retry-interval 1s)
	nsenter --net="/run/netns/$(host_ns "$1")" serf agent -node "n$1" \
		-bind "10.77.0.$1:$2" -log-level info "${join[@]}" \
		>>"$d/log" 2>&1 &
	PID[$1]=$!
}

says_ringfs() { # BY WHOM STATE
	[ "$(sed -n 's/^state //p' "$(dir_of "$1")/mnt/peers/n$2" \
		2>/dev/null)" = "$3" ]
}

says_serf() { # BY WHOM STATE; counts the last word in its log
	local want=EventMemberJoin
	[ "$3" = alive ] || want=EventMemberFailed
	grep -E "EventMember(Join|Failed|Update): n$2 " "$(dir_of "$1")/log" \
		2>/dev/null | tail -n 1 | grep -q "$want"
}

start() { "start_$SYSTEM" "$@"; }
says() { "says_$SYSTEM" "$@"; }

all_say() { # WHOM STATE
	local k
	for ((k = 1; k <= N; k++)); do
		((k == $1)) || says "$k" "$1" "$2" || return 1
	done
}

any_says() { # WHOM STATE
	local k
	for ((k = 1; k <= N; k++)); do
		((k == $1)) || ! says "$k" "$1" "$2" || return 0
	done
	return 1
}

show() { # WHAT VALUE
	printf '%-8s n=%-3s %-46s %s\n' "$SYSTEM" "$N" "$1" "$2"
}

time_until() { # WHAT SECONDS COMMAND...
	local begin what=$1 seconds=$2
	begin=$(now_ms)
	shift 2
	if until_true "$seconds" "$@"; then
		show "$what" "$(($(now_ms) - begin)) ms"
	else
		show "$what" "not in $seconds s"
	fi
}

bytes_out() {
	local k sum=0
	for ((k = 1; k <= N; k++)); do
		# shellcheck disable=SC2016 # awk's
		sum=$((sum + $(on "$k" awk '/eth0/ { print $10 }' /proc/net/dev)))
	done
	echo "$sum"
}

idle() {
	local before
	sleep 5
	before=$(bytes_out)
	sleep "$SECONDS_IDLE"
	show "idle, bytes sent by a member in a second" \
		$((($(bytes_out) - before) / N / SECONDS_IDLE))
}

measure() { # for $SYSTEM and $N
	local k
	start 1 7400
	until_true 10 test -s "$(dir_of 1)/log"
	sleep 1
	for ((k = 2; k <= N; k++)); do start "$k" 7400; done
	for ((k = 1; k <= N; k++)); do
		until_true 60 all_say "$k" alive || fail "n$k was not seen"
	done
	idle
	kill -STOP "${PID[$N]}"
	sleep 1.5
	kill -CONT "${PID[$N]}"
	sleep 1
	if any_says "$N" dead; then
		show "stopped for 1.5 s" "was called dead"
	else
		show "stopped for 1.5 s" "nobody called it dead"
	fi
	until_true 30 all_say "$N" alive
	kill -KILL "${PID[$N]}"
	wait "${PID[$N]}" 2>/dev/null
	time_until "killed: the first knows after" 60 any_says "$N" dead
	time_until "... and the last this much later" 60 all_say "$N" dead
	: >"$(dir_of 1)/log" # serf: forget what was said
	start "$N" 7500
	time_until "restarted at another port: n1 knows after" 60 \
		says 1 "$N" alive
	until_true 30 all_say "$N" alive
	for ((k = 1; k < N; k++)); do
		on "$k" ip route add blackhole "10.77.0.$N/32"
	done
	time_until "sending fails with an error: first knows" 60 \
		any_says "$N" dead
	for ((k = 1; k < N; k++)); do
		on "$k" ip route del blackhole "10.77.0.$N/32"
	done
	time_until "... it works again: all know after" 120 all_say "$N" alive
	stop_all
}

largest=0
for N in "${@:-3}"; do ((N <= largest)) || largest=$N; done
hosts "$largest"
for N in "${@:-3}"; do
	for SYSTEM in ringfs serf; do
		[ $SYSTEM = ringfs ] || command -v serf >/dev/null || continue
		measure
		rm -rf "$BATS_TEST_TMPDIR/$SYSTEM"-*
	done
done
