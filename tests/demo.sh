#!/bin/bash
# SPDX-License-Identifier: MIT
# A ring of one node in ./ring-demo: a key is claimed, its node is killed, and
# the key comes back with its note. The mount stays, to be played with.
set -u
cd "$(dirname "$0")/.." || exit
RINGFS_BIN=${RINGFS_BIN:-build/ringfs}
D=ring-demo

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# Show a command as it would be typed, then what it really says.
run() {
	printf '$ %s\n' "$1"
	bash -c "$1" || die "that failed: $1"
}

say() {
	printf '\n# %s\n' "$*"
}

running() {
	[ -e $D/state/lock ] && ! flock -n $D/state/lock true
}

stop_former() {
	local i
	if running; then
		kill -TERM "$(<$D/state/lock)"
		for ((i = 0; i < 100; i++)); do
			running || break
			sleep 0.1
		done
		! running || die "the daemon of the last demo, $(<$D/state/lock), does not stop"
	fi
	if grep -q " $PWD/$D/mnt " /proc/self/mounts; then
		fusermount3 -uz $D/mnt || die "cannot unmount $D/mnt"
	fi
	rm -rf $D/state
}

[ -c /dev/fuse ] ||
	die "/dev/fuse is missing: the kernel has no FUSE here, or this container was not given the device (--device /dev/fuse --cap-add SYS_ADMIN)"
command -v fusermount3 >/dev/null ||
	die "fusermount3 is missing; 'make deps' installs it"
[ -x "$RINGFS_BIN" ] || die "$RINGFS_BIN is missing; 'make' builds it"

stop_former
mkdir -p $D/mnt
MOUNT="$RINGFS_BIN mount --name demo --state $D/state --bind 127.0.0.1:0 $D/mnt"

say "Mount a ring; this node is its first and only one."
run "$MOUNT"
run "ls $D/mnt"

say "Claim a key. A second claim is refused, here and on every other node."
run "touch $D/mnt/keys/order-42"
run "touch $D/mnt/keys/order-42 || true"
run "echo 'two of three parcels packed' > $D/mnt/owned/order-42"

say "The daemon dies in the middle of the work."
run "kill -9 \$(cat $D/state/lock)"
for ((i = 0; i < 50; i++)); do
	grep -q " $PWD/$D/mnt " /proc/self/mounts || break
	sleep 0.1
done

say "It starts again: the key was not lost. It is offered, with its note."
run "$MOUNT"
run "ls $D/mnt/recover"
run "cat $D/mnt/recover/order-42"
run "getfattr -n user.ring.reason --only-values $D/mnt/recover/order-42; echo"

say "Take it, and finish it."
run "mv $D/mnt/recover/order-42 $D/mnt/owned/"
run "rm $D/mnt/owned/order-42"
run "ls $D/mnt/keys $D/mnt/owned $D/mnt/recover"

cat <<EOT

The ring is still mounted at $D/mnt. Play on:
  touch $D/mnt/keys/my-key; ls -l $D/mnt/owned; getfattr -d $D/mnt/keys/my-key
  cat $D/mnt/ctl $D/mnt/peers/self $D/mnt/status/state
To stop it and remove all of it:
  kill \$(cat $D/state/lock); rm -rf $D
EOT
