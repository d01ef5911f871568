# SPDX-License-Identifier: MIT
# Sequences of holes.md, by number, that are about the process: the kernel's
# cache, the herald, the disk. The others are in tests/unit.
load helper
load hosts
load cluster

DISK_SHIM=$TOOLS/../shim/disk.so

disk() { # ID ok | stuck: its disk, from now on
	echo "$2" >"$BATS_TEST_TMPDIR/disk.new"
	mv "$BATS_TEST_TMPDIR/disk.new" "$BATS_TEST_TMPDIR/disk.$1"
}

leads_other() { # ID OLD: somebody else leads, as ID says
	[ -n "$(leader "$1")" ] && [ "$(leader "$1")" != "$2" ]
}

local_teardown() {
	rm -f "$BATS_TEST_TMPDIR"/disk.n*
	for pid in $(ours); do kill -CONT "$pid" 2>/dev/null || true; done
}

# It cannot be answered without the daemon.
hangs() { # COMMAND...
	run -137 --separate-stderr timeout -s KILL 0.3 "$@"
}

@test "holes 6: of what is held, the kernel answers nothing by itself" {
	start_node a
	m=$(mnt a)
	touch "$m/keys/held"
	echo note | ringfs submit -m "$m" offered
	exec 7<"$m/owned"
	for _ in {1..50}; do
		stat "$m/owned/held" "$m/recover/offered" >/dev/null
		ls -l "$m/owned" "$m/recover" "$m/release" >/dev/null
	done
	kill -STOP "$(pid_of a)"
	hangs stat "$m/owned/held"
	hangs stat "$m/recover/offered"
	hangs stat "$m/recover/never"
	hangs ls "$m/owned"
	hangs ls "$m/recover"
	hangs ls "$m/release"
	hangs ls /proc/self/fd/7
	kill -CONT "$(pid_of a)"
	stat "$m/owned/held" >/dev/null
	exec 7<&-
}

@test "holes 10: the herald has the daemon's pidfd, and nobody else the device" {
	start_node a
	pid=$(pid_of a)
	herald=$(herald_of a)
	run ! bash -c 'ls -l /proc/$1/fd | grep /dev/fuse' - "$herald"
	[ "$(readlink "/proc/$herald/fd/4")" = 'anon_inode:[pidfd]' ]
	grep -qx "Pid:.$pid" "/proc/$herald/fdinfo/4"
	n=0
	for fd in "/proc/$pid"/fd/*; do
		[ "$(readlink "$fd")" = /dev/fuse ] || continue
		flags=$(awk '$1 == "flags:" { print $2 }' \
			"/proc/$pid/fdinfo/${fd##*/}")
		((flags & 02000000)) # close-on-exec
		n=$((n + 1))
	done
	[ "$n" -ge 1 ]
}

@test "holes 13: a herald that comes late does not detach the next mount" {
	start_node a
	touch "$(mnt a)/keys/k"
	old=$(herald_of a)
	kill -STOP "$old"
	kill_node a
	start_node a
	[ "$(ls "$(mnt a)/recover")" = k ]
	kill -CONT "$old"
	wait_for 15 gone "$old"
	is_mounted "$(mnt a)"
	[ "$(ls "$(mnt a)/recover")" = k ]
	mv "$(mnt a)/recover/k" "$(mnt a)/owned/"
}

@test "holes 13: the place is locked by who mounts there, or detaches" {
	mkdir -p "$(mnt a)"
	exec 7<"$(mnt a)" # what is below the mount
	start_node a 7<&-
	old=$(herald_of a)
	flock -n 7 # as one who is mounting there
	kill_node a
	wait_for 15 gone "$old"
	is_mounted "$(mnt a)" # it has left that to him
	{ sleep 1 && flock -u 7; } 3>&- &
	unlock=$!
	begin=${EPOCHREALTIME/./}
	start_node a 7<&-
	((${EPOCHREALTIME/./} - begin > 500000)) || fail "it did not wait"
	wait $unlock
	exec 7<&-
	touch "$(mnt a)/keys/k"
}

@test "holes 13: the state's lock is not handed on" {
	start_node a
	run ! bash -c 'ls -l /proc/$1/fd | grep "$2/state"' - "$(herald_of a)" \
		"$BATS_TEST_TMPDIR/a"
}

@test "holes 16: a leader whose disk hangs hands over, and its keys go on" {
	MEMBER_ARGS=(--claims any --lease 600)
	hosts 3
	for k in 1 2 3; do
		RINGFS_DISK=$BATS_TEST_TMPDIR/disk.n$k LD_PRELOAD=$DISK_SHIM \
			ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 \
			member $k
	done
	wait_for 20 voters n1 3
	lead=$(leader n1)
	mapfile -t rest < <(others 3 "$lead")
	claim_some "$lead" 3
	wait_for 2 agree n1 n2 n3
	disk "$lead" stuck
	for id in "${rest[@]}"; do
		wait_for 5 can_claim "$id" "first-$id" # it may be in doubt
	done
	wait_for 10 leads_other "${rest[0]}" "$lead"
	for id in "${rest[@]}"; do wait_for 5 can_claim "$id" "then-$id"; done
	wait_for 5 is "$lead" isolated
	wait_for 5 shows_nothing "$lead"
	shows "$lead" keys "$lead-1" # reading goes on
	wait_for 25 inherited "$lead-1 $lead-2 $lead-3" "${rest[@]}"
	disk "$lead" ok
	wait_for 15 is "$lead" ready
	can_claim "$lead" again
	wait_for 5 agree n1 n2 n3
}
