#!/bin/bash
# SPDX-License-Identifier: MIT
# Three nodes on this machine, 127.0.0.1 and three ports: each claims keys, one is
# killed, and the others finish its work. Takes a few seconds and leaves nothing
# behind, also when it is interrupted.
set -u
cd "$(dirname "$0")/.." || exit
RINGFS_BIN=$(realpath -m "${RINGFS_BIN:-build/ringfs}")
RECOVER=$PWD/man/recover.sh
NODES="n1 n2 n3"
D= # everything is in here
workers=()

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

say() {
	printf '\n# %s\n' "$*"
}

# Show a command as it would be typed, then what it really says. It runs where
# the three mounts n1, n2 and n3 are.
run() {
	printf '$ %s\n' "$1"
	(cd "$D" && PATH=$D/bin:$PATH bash -c "$1") ||
		die "that failed: $1"
}

wait_for() { # SECONDS WHAT COMMAND...
	local i tries=$(($1 * 20)) what=$2
	shift 2
	for ((i = 0; i < tries; i++)); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.05
	done
	die "$what: not within $((tries / 20)) s"
}

pid_of() { # NODE: who holds its state's lock
	local pid
	[ -e "$D/$1.state/lock" ] || return
	flock -n "$D/$1.state/lock" true && return
	read -r pid <"$D/$1.state/lock" && echo "$pid"
}

is_gone() { # NODE
	[ -z "$(pid_of "$1")" ]
}

# Whatever there is by then: workers, daemons, mounts, files.
clean_up() {
	local id pid
	trap '' INT TERM HUP
	for pid in "${workers[@]}"; do # and what it has started
		kill -TERM -- "-$pid" 2>/dev/null
	done
	for id in $NODES; do
		pid=$(pid_of "$id") && kill -TERM "$pid" 2>/dev/null
	done
	for id in $NODES; do
		wait_for 5 "node $id stops" is_gone "$id"
		! grep -q " $D/$id " /proc/self/mounts ||
			fusermount3 -uz "$D/$id"
	done
	rm -rf "$D"
}

free_ports() { # three that nobody listens at just now
	local port n=0
	for ((port = 7400; n < 3 && port < 7500; port++)); do
		grep -qi ":$(printf %04X "$port") " /proc/net/{tcp,udp} && continue
		echo "$port"
		((++n))
	done
}

# What the heirs do with each key, its note on standard input.
make_worker() {
	mkdir "$D/bin"
	ln -s "$RINGFS_BIN" "$D/bin/ringfs"
	ln -s "$RECOVER" "$D/bin/recover.sh"
	cat >"$D/bin/pack" <<-'EOT'
		#!/bin/sh
		echo "$1 goes on with $2, of which the note says: $(cat)"
	EOT
	chmod +x "$D/bin/pack"
}

start_worker() { # NODE: in a process group of its own
	set -m
	(cd "$D" && PATH=$D/bin:$PATH exec recover.sh "$1" pack "$1") \
		>>"$D/work.log" 2>/dev/null &
	workers+=($!)
	set +m
}

watches() { # WORKER
	pgrep -g "$1" inotifywait
}

all_finished() {
	[ "$(ls "$D/n1/keys" | wc -l)" = 8 ]
}

[ -c /dev/fuse ] ||
	die "/dev/fuse is missing: the kernel has no FUSE here, or this container was not given the device (--device /dev/fuse --cap-add SYS_ADMIN)"
for tool in fusermount3 inotifywait getfattr flock; do
	command -v $tool >/dev/null ||
		die "$tool is missing; 'make deps' installs it"
done
[ -x "$RINGFS_BIN" ] || die "$RINGFS_BIN is missing; 'make' builds it"

D=$(mktemp -d "${TMPDIR:-/tmp}/ringfs-demo.XXXXXX") || exit
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$D"/n{1,2,3}
make_worker
mapfile -t ports < <(free_ports)
[ ${#ports[@]} = 3 ] || die "no three ports are free from 7400 to 7499"
at() { echo "127.0.0.1:${ports[$1 - 1]}"; }
node() { # K: the options that make a node of its own on the same machine
	echo "ringfs mount --name n$1 --state n$1.state --bind $(at "$1") --preset local"
}

say "Three nodes, here on one machine. The first makes the cluster and its key."
run "$(node 1) --claims any n1"
for k in 2 3; do
	run "$(node $k) --join $(at 1) --key-file n1.state/key n$k"
done
wait_for 10 "three voters" grep -qx 'voters 3' "$D/n1/status/quorum"

say "Each is one mount of the same ring. Each owns a third of all names."
run "ringfs ring -m n1"

say "Claim four keys on each node. What one has, no other can get."
for id in $NODES; do
	run "touch $id/keys/$id-order-{1..4}"
done
run "ls n2/owned"
run "touch n1/keys/n3-order-1 || true"
run "for k in n3/owned/*; do echo \"charged, not yet shipped\" > \$k; done"

say "On n1 and n2 a worker waits for keys that are offered: inotifywait, mv, rm."
: >"$D/work.log"
for id in n1 n2; do
	printf '$ recover.sh %s pack %s &\n' "$id" "$id"
	start_worker "$id"
done
for pid in "${workers[@]}"; do wait_for 5 "a worker" watches "$pid"; done

say "n3 dies in the middle of its work."
began=$EPOCHREALTIME
run "kill -9 \$(cat n3.state/lock)"
wait_for 20 "n3's keys are finished" all_finished
took=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))

say "Its keys went to their heirs, notes included, and are done: $took ms later."
run "cat work.log"
run "ls n1/keys"

say "The ring without it: its share has gone to the others."
run "ringfs ring -m n1"
run "ringfs members -m n2 | cut -c1-32"

say "That was all of it. The three nodes are stopped, and nothing is left."
