#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Starting, stopping, and every way in which the program refuses to start.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	S=$BATS_TEST_TMPDIR/a/state
	mkdir -p "$M"
}

local_teardown() { # daemons in the background are nobody's children
	local pid
	exec 9>&-
	for pid in "${BACKGROUND[@]}"; do
		kill -TERM "$pid" 2>/dev/null || true
		wait_for 10 gone "$pid" || kill -KILL "$pid"
	done
}

mount_in_background() { # [ARG...]
	ringfs mount --state "$S" --bind 127.0.0.1:0 "$@" "$M"
	BACKGROUND+=("$(<"$S/lock")")
}

# The program must end by itself, with STATUS and one sentence that has all the
# WORDs, and leave nothing mounted.
refuses() { # STATUS WORD... -- ARG...
	local status=$1 words=()
	shift
	while [ "$1" != -- ]; do
		words+=("$1")
		shift
	done
	shift
	RINGFS_TEST=$BATS_TEST_TMPDIR run "-$status" --separate-stderr \
		timeout 20 "$RINGFS_BIN" mount "$@" 3>&- </dev/null
	[ -z "$output" ] || fail "on stdout: $output"
	# shellcheck disable=SC2154  # run sets it
	for word in "${words[@]}"; do
		[[ $stderr == *"$word"* ]] || fail "no '$word' in: $stderr"
	done
}

@test "without -f the command returns when the mount serves" {
	mount_in_background
	[ "$(<"$M/status/state")" = ready ]
	touch "$M/keys/k"
	[ -e "$M/owned/k" ]
}

@test "the background daemon keeps no terminal, descriptor or directory" {
	exec 9>"$BATS_TEST_TMPDIR/inherited"
	mount_in_background
	pid=$(<"$S/lock")
	[ "$(readlink "/proc/$pid/cwd")" = / ]
	for n in 0 1 2; do
		[ "$(readlink "/proc/$pid/fd/$n")" != "$(tty)" ]
	done
	[ "$(ps -o tty= -p "$pid")" = "?" ]
	for pid in $(ours); do
		! readlink /proc/"$pid"/fd/* | grep -q inherited ||
			fail "$pid keeps a descriptor of its caller"
	done
}

@test "TERM unmounts and ends with status 0, and so does INT" {
	start_node a
	stop_node a
	run -0 mounts
	output_is <<<""
	start_node a
	kill -INT "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
}

@test "TERM ends a mount that somebody works in, and open files answer an error" {
	start_node a
	touch "$M/keys/k"
	spawn bash -c 'cd "$1"/keys && exec 5<k && read -rt 20 <>"$2"' - \
		"$M" "$BATS_TEST_TMPDIR/watchdog"
	reader=$!
	wait_for 10 test -e "/proc/$reader/fd/5"
	stop_node a
	run -1 is_mounted "$M"
	kill "$reader"
}

@test "umount by somebody else ends the daemon with status 0" {
	start_node a
	fusermount3 -u "$M"
	wait_for 10 gone "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
}

@test "ringfs umount waits until the daemon is gone" {
	ringfs umount --help >/dev/null 2>&1 || skip "umount comes later"
	mount_in_background
	pid=$(<"$S/lock")
	ringfs umount "$M"
	gone "$pid"
	run -1 is_mounted "$M"
}

@test "a mountpoint that is missing, a file, or not empty is refused" {
	refuses 78 "$M/none" -- -f --state "$S" "$M/none"
	touch "$M/file"
	refuses 78 "$M/file" -- -f --state "$S" "$M/file"
	refuses 78 "$M" empty -- -f --state "$S" "$M"
	[ ! -e "$S" ] || fail "a refused mount made a state"
}

@test "a mountpoint where a ringfs lives is refused" {
	start_node a
	refuses 78 "$M" -- -f --state "$BATS_TEST_TMPDIR/other" "$M"
	[ "$(<"$M/status/state")" = ready ]
}

@test "a mountpoint inside the state, and a state inside the mountpoint, are refused" {
	mkdir -p "$S/mnt"
	refuses 78 "$S" -- -f --state "$S" "$S/mnt"
	refuses 78 "$M" -- -f --state "$M/state" "$M"
}

@test "a dead mount is healed by the next start" {
	start_node a
	touch "$M/keys/k"
	herald=$(herald_of a)
	kill -KILL "$herald" # it would detach the mount, and may be restarted
	kill_node a
	start_node a
	[ -e "$M/recover/k" ]
	[ "$(mounts | wc -l)" = 1 ]
}

@test "after kill -9 the herald detaches the dead mount within two seconds" {
	start_node a
	kill_node a
	wait_for 5 eval "! is_mounted '$M'" # a busy machine gets more
}

@test "two daemons on one state: the second names the first, which goes on" {
	start_node a
	mkdir "$BATS_TEST_TMPDIR/second"
	refuses 78 "$S" "$(pid_of a)" -- -f --state "$S" --bind 127.0.0.1:0 \
		"$BATS_TEST_TMPDIR/second"
	[ "$(<"$M/status/state")" = ready ]
}

@test "a port that is taken is named" {
	start_node a
	address=$(awk '$1 == "address" { print $2 }' "$M/peers/self")
	mkdir "$BATS_TEST_TMPDIR/second"
	refuses 78 "${address##*:}" -- -f --state "$BATS_TEST_TMPDIR/other" \
		--bind "$address" "$BATS_TEST_TMPDIR/second"
}

@test "settings that disagree with the cluster's are refused, both values named" {
	start_node a --vnodes 64 --claims any
	stop_node a
	refuses 78 64 128 -- -f --state "$S" --bind 127.0.0.1:0 --claims any \
		--vnodes 128 "$M"
	refuses 78 any owner -- -f --state "$S" --bind 127.0.0.1:0 \
		--claims owner --vnodes 64 "$M"
	start_node a --vnodes 64 --claims any
}

# The log's last segment and the places of its batches.
batches() {
	file=$(find "$S/wal" -name '*.seg' | sort | tail -n 1)
	mapfile -t offsets < <(grep -obaF btch "$file" | cut -d: -f1)
}

write_at() { # OFFSET BYTES of standard input
	dd of="$file" bs=1 seek="$1" count="$2" conv=notrunc status=none
}

@test "a damaged log is refused by name and offset, and left as it is" {
	start_node a
	for i in {1..30}; do touch "$M/keys/k$i"; done
	stop_node a
	batches
	for n in $((${#offsets[@]} / 2)) $((${#offsets[@]} - 1)); do
		cp "$file" "$BATS_TEST_TMPDIR/sound"
		printf X | write_at $((offsets[n] + 41)) 1
		sum=$(md5sum <"$file")
		refuses 78 "$file" "${offsets[n]}" -- \
			-f --state "$S" --bind 127.0.0.1:0 "$M"
		[ "$(md5sum <"$file")" = "$sum" ]
		cp "$BATS_TEST_TMPDIR/sound" "$file"
	done
	start_node a
	[ "$(ls "$M/recover" | wc -l)" = 30 ]
}

@test "a torn last record is cut, and the node starts without it" {
	start_node a
	touch "$M/keys/first"
	head -c 3000 /dev/urandom >"$BATS_TEST_TMPDIR/note"
	dd if="$BATS_TEST_TMPDIR/note" of="$M/owned/first" bs=3000 conv=notrunc \
		status=none
	crash_node a
	batches
	write_at $((offsets[-1] + 512)) 4096 </dev/zero
	start_node a
	[ -e "$M/recover/first" ]
	[ ! -s "$M/recover/first" ]
}

@test "a damaged identity is refused by name" {
	start_node a
	stop_node a
	echo "no identity" >"$S/identity"
	refuses 78 identity -- -f --state "$S" --bind 127.0.0.1:0 "$M"
}

@test "another node's identity on this state is refused" {
	start_node a
	stop_node a
	mkdir -p "$BATS_TEST_TMPDIR/b/mnt"
	start_node b
	stop_node b
	cp "$BATS_TEST_TMPDIR/b/state/identity" "$S/identity"
	refuses 78 another -- -f --state "$S" --bind 127.0.0.1:0 "$M"
}

@test "a state restored from a backup is refused" {
	start_node a
	stop_node a
	cp "$S/boot" "$BATS_TEST_TMPDIR/boot"
	start_node a
	touch "$M/keys/k"
	stop_node a
	cp "$BATS_TEST_TMPDIR/boot" "$S/boot"
	refuses 78 "copied or restored" -- -f --state "$S" --bind 127.0.0.1:0 "$M"
}

@test "a state that is a file, or may not be made, is refused by its name" {
	touch "$BATS_TEST_TMPDIR/file"
	for state in "$BATS_TEST_TMPDIR/file" /proc/state; do
		refuses 78 "$state" -- -f --state "$state" --bind 127.0.0.1:0 "$M"
	done
}

@test "without /dev/fuse the program says so" {
	need root unshare
	RINGFS_TEST=$BATS_TEST_TMPDIR run ! unshare -m bash -c '
		mount --bind /dev/shm /mnt && mount -t tmpfs none /dev
		mkdir /dev/shm && mount --bind /mnt /dev/shm # tests may be there
		mknod -m 666 /dev/null c 1 3
		mknod -m 666 /dev/urandom c 1 9
		exec "$2" mount -f --state "$3" --bind 127.0.0.1:0 "$1"' - \
		"$M" "$RINGFS_BIN" "$S" 3>&-
	[[ $output == */dev/fuse* ]] || fail "$output"
}

@test "wrong usage is told with status 64, help with 0 and examples" {
	refuses 64 "--nonsense" -- --nonsense "$M"
	refuses 64 "vnodes" -- --vnodes 100 "$M"
	refuses 64 "" --
	run -64 ringfs nonsense
	run -0 --separate-stderr ringfs mount --help
	[[ $output == *--state* ]]
	[ -z "$stderr" ]
	run -0 --separate-stderr ringfs --help
	run -0 --separate-stderr ringfs --version
	[[ $output == ringfs* ]]
}

@test "options can be given with -o and in a file, and a flag wins" {
	cat >"$BATS_TEST_TMPDIR/conf" <<-EOT
		name = from-file
		vnodes = 64
		bind = 127.0.0.1:0
	EOT
	mount_in_background --config "$BATS_TEST_TMPDIR/conf" -o name=from-o
	[ "$(readlink "$M/peers/self")" = from-o ]
	grep -qx "vnodes 64" "$M/peers/self"
}

@test "mount.ringfs takes what mount(8) gives to a helper" {
	ln -s "$RINGFS_BIN" "$BATS_TEST_TMPDIR/mount.ringfs"
	RINGFS_TEST=$BATS_TEST_TMPDIR "$BATS_TEST_TMPDIR/mount.ringfs" ring "$M" \
		-o "rw,state=$S,bind=127.0.0.1:0,_netdev,nofail" 3>&-
	BACKGROUND+=("$(<"$S/lock")")
	[ "$(<"$M/status/state")" = ready ]
	awk -v m="$M" '$2 == m { print $3 }' /proc/self/mounts | grep -qx fuse.ringfs
}

@test "the mount is nosuid, nodev and noexec" {
	start_node a
	options=$(awk -v m="$M" '$2 == m { print $4 }' /proc/self/mounts)
	for o in nosuid nodev noexec; do
		[[ ,$options, == *,$o,* ]] || fail "no $o in $options"
	done
}

@test "a caller that waits is answered within 50 ms of its signal" {
	start_node a
	kill -STOP "$(pid_of a)"
	spawn touch "$M/keys/k"
	caller=$!
	sleep 0.1
	kill -INT "$caller"
	kill -CONT "$(pid_of a)"
	wait_for 10 gone "$caller"
}

@test "a stopped daemon that goes on has lost nothing" {
	start_node a
	kill -STOP "$(pid_of a)"
	spawn touch "$M/keys/k"
	caller=$!
	sleep 2 # longer than the lease
	kill -CONT "$(pid_of a)"
	wait "$caller"
	[ -e "$M/owned/k" ]
	touch "$M/keys/l"
}

inside() { # PID: it has the mount, in a namespace of its own
	grep -qF " $M " "/proc/$1/mountinfo" &&
		[ "$(readlink "/proc/$1/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]
}

@test "ringfs umount ends the daemon, too, when another mount namespace keeps the mount" {
	need root unshare
	start_node a
	spawn unshare -m --propagation private sleep 60
	keeper=$!
	wait_for 10 inside "$keeper"
	run -0 ringfs umount --timeout 20 "$M"
	gone "$(pid_of a)"
	kill "$keeper"
}

@test "ringfs umount of a second place lets the daemon run" {
	need root
	start_node a
	mkdir "$BATS_TEST_TMPDIR/b"
	mount --bind "$M" "$BATS_TEST_TMPDIR/b"
	run -124 ringfs umount --timeout 2 "$BATS_TEST_TMPDIR/b"
	[[ $output == *"still runs; if nobody needs it, end it with: kill $(pid_of a)" ]]
	touch "$M/keys/k"
}

@test "the notify socket is told READY=1 when the mount serves" {
	spawn "$TOOLS/listen" "$BATS_TEST_TMPDIR/notify" >"$BATS_TEST_TMPDIR/told"
	listener=$!
	wait_for 10 test -S "$BATS_TEST_TMPDIR/notify"
	NOTIFY_SOCKET=$BATS_TEST_TMPDIR/notify start_node a
	wait "$listener"
	grep -qx READY=1 "$BATS_TEST_TMPDIR/told"
}
