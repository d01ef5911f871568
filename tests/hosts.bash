# SPDX-License-Identifier: MIT
# Hosts: network namespaces on a wire that can be cut (tests/tools/wire.c). Load
# it after helper.bash.
#
#	hosts 3                 hosts 1 to 3, 10.77.0.K and fd77::K, one wire
#	on 2 COMMAND...         on host 2
#	start_on 2 n2 ARG...    a node on host 2, at 10.77.0.2:7400
#	wire cut 1 2            nothing from 1 reaches 2; see wire.c
#	split "1 2" "3 4"       nothing between the two sides
#	heal                    everything between everybody
#
#	members 3               hosts and nodes 1 to 3, n1 the first of the cluster
#
# MEMBER_ARGS are options for each of them.
#
# A node's mount is in our own mount namespace: only the network is another.
# shellcheck shell=bash

host_ns() { # K
	echo "ringfs-test-$$-$1"
}

addr() { # K
	echo "10.77.0.$1:7400"
}

on() { # K COMMAND...
	local k=$1
	shift
	nsenter --net="/run/netns/$(host_ns "$k")" "$@"
}

start_on() { # K ID [ARG...]: a node on host K
	local k=$1
	shift
	ON="nsenter --net=/run/netns/$(host_ns "$k")" BIND=$(addr "$k") \
		start_node "$@"
}

make_host() { # K: its cable ends on the wire as wK
	local k=$1 ns
	ns=$(host_ns "$k")
	ip netns add "$ns"
	on 0 ip link add "w$k" type veth peer name "e$k"
	on 0 "$TOOLS/wire" --plain "w$k"
	on 0 "$TOOLS/wire" --plain "e$k"
	on 0 ip link set "e$k" address "02:00:00:00:00:$(printf %02x "$k")"
	on 0 ip link set "e$k" netns "$ns"
	on 0 ip link set "w$k" up
	on "$k" ip link set lo up
	on "$k" ip link set "e$k" name eth0
	on "$k" ip link set eth0 up
	on "$k" ip addr add "10.77.0.$k/24" dev eth0
	on "$k" ip addr add "fd77::$k/64" dev eth0 nodad
}

# What a run that was killed has left: its process is no more.
sweep_hosts() {
	local ns pid
	for ns in $(ip netns list | awk '/^ringfs-test-/ { print $1 }'); do
		pid=${ns#ringfs-test-}
		[ -e "/proc/${pid%-*}" ] || ip netns del "$ns" 2>/dev/null || true
	done
}

hosts() { # N
	local k
	need root ip nsenter
	sweep_hosts
	HOSTS=$1
	ip netns add "$(host_ns 0)" # the wire's own
	for ((k = 1; k <= HOSTS; k++)); do make_host "$k"; done
	mkfifo "$BATS_TEST_TMPDIR"/wire.{in,out}
	exec {WIRE_IN}<>"$BATS_TEST_TMPDIR/wire.in"
	exec {WIRE_OUT}<>"$BATS_TEST_TMPDIR/wire.out"
	RINGFS_TEST=$BATS_TEST_TMPDIR nsenter \
		--net="/run/netns/$(host_ns 0)" "$TOOLS/wire" w "$HOSTS" \
		<"$BATS_TEST_TMPDIR/wire.in" >"$BATS_TEST_TMPDIR/wire.out" \
		2>>"$BATS_TEST_TMPDIR/log/wire" \
		3>&- {WIRE_IN}>&- {WIRE_OUT}>&- &
	WIRE=$!
	wire_said
}

wire_said() {
	local answer
	read -rt 15 answer <&"$WIRE_OUT"
	[ "$answer" = ok ] || fail "the wire says '$answer'"
}

wire() { # COMMAND...
	echo "$@" >&"$WIRE_IN"
	wire_said
}

split() { # "A B" "C D": both ways
	local a b
	for a in $1; do
		for b in $2; do
			wire cut "$a" "$b"
			wire cut "$b" "$a"
		done
	done
}

heal() {
	wire heal 0 0
}

# Called by helper.bash when nothing of the test runs any more.
hosts_gone() {
	local k
	[ -n "${HOSTS-}" ] || return 0
	kill "$WIRE" 2>/dev/null || true
	wait "$WIRE" 2>/dev/null || true
	for ((k = HOSTS; k >= 0; k--)); do
		ip netns del "$(host_ns "$k")" 2>/dev/null || true
	done
}

# ---- Nodes on hosts: nK on host K; n1 starts the cluster, the others join ----

mnt() { # ID
	echo "$BATS_TEST_TMPDIR/$1/mnt"
}

key_of() { # ID: its key file
	echo "$BATS_TEST_TMPDIR/$1/state/key"
}

# Node nK on host K; the first one starts the cluster, the others join it.
launch_member() { # K [ARG...]: and do not wait
	local k=$1 join=()
	shift
	((k == 1)) || join=(--join "$(addr 1)" --key-file "$(key_of n1)")
	ON="nsenter --net=/run/netns/$(host_ns "$k")" BIND=$(addr "$k") \
		launch_node "n$k" "${MEMBER_ARGS[@]}" "$@" "${join[@]}"
}

member() { # K [ARG...]: returns when it serves
	launch_member "$@"
	started "n$1"
}

members() { # N
	local k
	hosts "$1"
	member 1
	for ((k = 2; k <= $1; k++)); do launch_member "$k"; done
	for ((k = 2; k <= $1; k++)); do started "n$k"; done
	all_see "$1"
}

fact() { # ID NAME WORD
	awk -v word="$3" '$1 == word { sub(/^[^ ]* /, ""); print }' \
		"$(mnt "$1")/peers/$2"
}

sees() { # ID NAME STATE
	[ "$(fact "$1" "$2" state)" = "$3" ]
}

all_see() { # N: nodes 1 to N see each other alive
	local a b
	for ((a = 1; a <= $1; a++)); do
		for ((b = 1; b <= $1; b++)); do
			wait_for 20 sees "n$a" "n$b" alive
		done
	done
}
