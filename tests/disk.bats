#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# A disk that is full or turns read-only: the caller is told, the tree stays.

load helper

local_setup() {
	need fuse root
	M=$BATS_TEST_TMPDIR/a/mnt
	S=$BATS_TEST_TMPDIR/a/state
	mkdir -p "$M" "$S"
}

local_teardown() {
	[ -z "${STRACE-}" ] || kill "$STRACE"
	stop_nodes || true # before its disk goes
	if is_mounted "$S"; then umount "$S" || umount -l "$S"; fi
	[ -z "${LOOP-}" ] || losetup -d "$LOOP"
}

small_disk() { # SIZE: an ext4 of its own for the state
	need loop mkfs.ext4
	truncate -s "$1" "$BATS_TEST_TMPDIR/image"
	mkfs.ext4 -q -m 0 "$BATS_TEST_TMPDIR/image"
	LOOP=$(losetup -f --show "$BATS_TEST_TMPDIR/image")
	mount "$LOOP" "$S"
	chmod 700 "$S"
	rmdir "$S/lost+found"
}

fill() { # all that is left of the disk but what root could still take
	dd if=/dev/zero of="$S/filler" bs=64K status=none 2>/dev/null || true
	sync "$S"
}

# Claim with notes of SIZE until the tree refuses; $refusal is what it said.
claim_until_refused() { # SIZE PREFIX
	local i
	head -c "$1" /dev/urandom >"$BATS_TEST_TMPDIR/note"
	for ((i = 0; i < 3000; i++)); do
		refusal=$(cp "$BATS_TEST_TMPDIR/note" "$M/keys/$2$i" 2>&1) || return 0
	done
	fail "never refused"
}

can_claim() {
	echo again >"$M/keys/again"
}

@test "on a full disk claims answer No space left, and reading goes on" {
	small_disk 96M
	start_node a
	echo note >"$M/keys/before"
	fill
	for size in 60000 3000 0; do # until there is not even room for a name
		claim_until_refused $size "f$size-"
		[[ $refusal == *"No space left on device"* ]] || fail "said: $refusal"
	done
	[ "$(<"$M/owned/before")" = note ]
	[ "$(<"$M/status/writable")" = 0 ]
	grep -qiE 'full|space' "$M/status/reason"
	ls "$M/keys" >/dev/null
}

@test "a full disk that has room again is written again, without a restart" {
	small_disk 96M
	start_node a
	fill
	claim_until_refused 60000 f
	rm "$S/filler"
	sync "$S"
	wait_for 10 can_claim
	[ "$(<"$M/status/writable")" = 1 ]
	[ "$(<"$M/status/state")" = ready ]
}

@test "what was acknowledged on a filling disk is there after kill -9" {
	small_disk 96M
	start_node a
	fill
	claim_until_refused 60000 f
	names=$(ls "$M/keys")
	crash_node a
	rm "$S/filler"
	start_node a
	[ "$(ls "$M/recover")" = "$names" ]
	for k in $names; do # the last may have been refused in its middle
		cmp -s "$BATS_TEST_TMPDIR/note" "$M/recover/$k" || odd+=("$k")
	done
	((${#odd[@]} <= 1)) || fail "wrong notes: ${odd[*]}"
}

@test "a node starts on a full disk, or says that the disk is full" {
	small_disk 96M
	start_node a
	touch "$M/keys/k"
	stop_node a
	fill
	launch_node a
	wait_for 10 eval 'gone $(pid_of a) || serves a'
	if gone "$(pid_of a)"; then
		grep -q "No space left" "$(log_of a)"
		rm "$BATS_TEST_TMPDIR/a.pid"
		rm "$S/filler"
		start_node a
	fi
	[ -e "$M/recover/k" ]
	rm -f "$S/filler"
}

# From now on each flush of node a's disk fails, until break_disk's end.
break_disk() {
	spawn strace -qq -f -p "$(pid_of a)" -o "$BATS_TEST_TMPDIR/strace" \
		-e trace=fdatasync,fsync -e inject=fdatasync,fsync:error=EIO
	STRACE=$!
	wait_for 10 grep -q '^TracerPid:.[1-9]' "/proc/$(pid_of a)/status"
}

heal_disk() {
	kill "$STRACE"
	wait "$STRACE" || true
	STRACE=
}

@test "when the disk fails, claims answer Read-only, and reading goes on" {
	need strace
	start_node a
	echo note >"$M/keys/before"
	break_disk
	run -1 touch "$M/keys/in-doubt"
	run -1 touch "$M/keys/after"
	[[ $output == *"Read-only file system" ]] || fail "said: $output"
	heal_disk
	run -1 touch "$M/keys/later" # what the disk has is not known
	[[ $output == *"Read-only file system" ]] || fail "said: $output"
	[ "$(<"$M/owned/before")" = note ]
	[ "$(<"$M/status/writable")" = 0 ]
	[ "$(ls "$M/owned")" = before ]
	stop_node a
	start_node a
	[ "$(<"$M/recover/before")" = note ]
	touch "$M/keys/after"
}
