#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# flock(1) on a mount: local locks, one for each life of a key.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	cd "$BATS_TEST_TMPDIR" || return
	start_node a
}

local_teardown() { # who holds a lock by our hold(): its fifo ends it
	local f
	for f in "$BATS_TEST_TMPDIR"/*.held; do
		[ -e "$f" ] && echo 1<>"$f"
	done
	cd /
}

# Hold a lock in the background until let_go; $! is the id.
hold() { # NAME FLOCK-ARG...
	local held=$BATS_TEST_TMPDIR/$1.held
	mkfifo "$held"
	shift
	spawn flock "$@" sh -c 'echo >"$0.taken"; read -r _ <"$0"' "$held"
	echo $! >"$held.pid"
	wait_for 10 test -e "$held.taken"
}

let_go() { # NAME: it has, when this returns
	local held=$BATS_TEST_TMPDIR/$1.held
	echo >"$held"
	wait "$(<"$held.pid")" || true
	rm "$held"{,.taken,.pid}
}

in_flock() { # PID: its flock(1) has called, and waits
	grep -q '^73 ' "/proc/$1/syscall" 2>/dev/null ||
		[[ $(cat "/proc/$1/wchan") == *request_wait* ]]
}

# Wait for a lock in the background; then its line is in the file "order".
queue() { # LINE FLOCK-ARG...
	local line=$1
	shift
	# A file each: flock writes a complaint in pieces.
	queued=$((queued + 1))
	spawn flock "$@" sh -c 'echo "$0" >>order' "$line" \
		2>"complaints.$queued"
	wait_for 10 in_flock $!
}

@test "one lock for a key, whichever directory its file is opened in" {
	touch "$M/keys/k"
	hold one "$M/keys/k"
	run -1 flock -n "$M/owned/k" true
	run -1 flock -n "$M/keys/k" true
	run -9 flock -n -E 9 "$M/keys/k" true
	flock -n "$M/keys/other" true
	let_go one
	flock -n "$M/owned/k" true
}

@test "LOCK_SH goes together, LOCK_EX alone" {
	touch "$M/keys/k"
	hold one -s "$M/keys/k"
	hold two -s "$M/owned/k"
	run -1 flock -n "$M/keys/k" true
	let_go one
	run -1 flock -n "$M/keys/k" true
	let_go two
	flock -n "$M/keys/k" true
}

@test "who waits for a lock gets it in the order of asking" {
	touch "$M/keys/k"
	hold one "$M/keys/k"
	for i in {1..10}; do queue "$i" "$M/keys/k"; done
	let_go one
	wait_for 10 eval '[ "$(wc -l <order)" = 10 ]'
	seq 10 | diff - order
}

@test "one that waits for LOCK_EX is not starved by others with LOCK_SH" {
	touch "$M/keys/k"
	hold one -s "$M/keys/k"
	queue exclusive "$M/keys/k"
	queue shared -s "$M/keys/k"
	run -1 flock -s -n "$M/keys/k" true
	[ ! -e order ]
	let_go one
	wait_for 10 eval '[ "$(wc -l <order)" = 2 ]'
	diff order - <<<$'exclusive\nshared'
}

@test "the same open file changes from LOCK_SH to LOCK_EX and back" {
	touch "$M/keys/k"
	exec 7<"$M/keys/k"
	flock -s 7
	flock -n 7
	run -1 flock -s -n "$M/keys/k" true
	flock -s 7
	flock -s -n "$M/keys/k" true
	hold one -s "$M/keys/k"
	run -1 flock -n 7
	flock -s -n 7
	flock -u 7
	exec 7<&-
	let_go one
}

@test "a lock ends with the last close, inherited descriptors included" {
	touch "$M/keys/k"
	exec 7<"$M/keys/k"
	flock 7
	spawn sleep 20
	heir=$!
	exec 7<&-
	run -1 flock -n "$M/keys/k" true
	kill -KILL "$heir"
	wait_for 10 flock -n "$M/keys/k" true
	for _ in {1..100}; do flock -n "$M/keys/k" true; done
}

# 50 ms are promised; a busy machine may be late.
ends_soon() { # PID SIGNAL
	local begin=${EPOCHREALTIME/./}
	kill "-$2" "$1"
	wait "$1" || true
	((${EPOCHREALTIME/./} - begin < 2000000)) ||
		fail "$2: $((${EPOCHREALTIME/./} - begin)) us"
}

@test "a signal ends a wait within 50 ms, and those behind it go on" {
	touch "$M/keys/k"
	hold one -s "$M/keys/k"
	for signal in TERM KILL; do
		queue never "$M/keys/k"
		waiter=$!
		queue "after $signal" -s "$M/keys/k"
		ends_soon "$waiter" "$signal"
		wait_for 10 grep -qx "after $signal" order
	done
	run -1 grep never order
	run -1 flock -w 0.1 "$M/keys/k" true
	let_go one
}

@test "when the key is finished, who waits is told so: Stale file handle" {
	touch "$M/keys/k"
	hold one "$M/keys/k"
	queue never "$M/keys/k"
	first=$!
	queue never -s "$M/owned/k"
	second=$!
	rm "$M/keys/k"
	for waiter in "$first" "$second"; do
		status=0
		wait "$waiter" || status=$?
		[ "$status" = 65 ]
	done
	diff <(sort complaints.*) - <<-EOT
		flock: $M/keys/k: Stale file handle
		flock: $M/owned/k: Stale file handle
	EOT
	[ ! -e order ]
	flock -n "$M/keys/k" true # the next life has a lock of its own
	let_go one
}

@test "a file of a former life answers Stale file handle to flock" {
	touch "$M/keys/k"
	exec 7<"$M/keys/k"
	rm "$M/keys/k"
	touch "$M/keys/k"
	run -65 flock -n 7
	output_is <<<"flock: 7: Stale file handle"
	flock -u 7
	flock -n "$M/keys/k" true
	exec 7<&-
}

@test "a lock on an offered key goes on when it is taken; who waits is told" {
	touch "$M/keys/k"
	stop_node a
	start_node a
	hold one "$M/recover/k"
	queue never "$M/recover/k"
	waiter=$!
	mv "$M/recover/k" "$M/owned/"
	status=0
	wait "$waiter" || status=$?
	[ "$status" = 65 ]
	run -1 flock -n "$M/owned/k" true
	let_go one
	wait_for 10 flock -n "$M/keys/k" true
}

@test "other files and directories have locks of their own" {
	touch "$M/keys/k"
	for f in status/state status/json peers/a ctl keys owned .; do
		hold one "$M/$f"
		run -1 flock -n "$M/$f" true
		flock -n "$M/keys/k" true
		flock -n "$M/status/reason" true
		let_go one
	done
	hold one "$M/peers/self"
	run -1 flock -n "$M/peers/a" true
	let_go one
}

@test "POSIX record locks are refused: No locks available" {
	touch "$M/keys/k"
	for f in keys/k owned/k status/state ctl; do
		run -0 "$TOOLS/lockf" "$M/$f"
		output_is <<-'EOT'
			F_GETLK: No locks available
			F_SETLK: No locks available
			F_SETLKW: No locks available
		EOT
	done
}

@test "when the node stops, who waits is told: No locks available" {
	touch "$M/keys/k"
	hold one "$M/keys/k"
	queue never "$M/keys/k"
	waiter=$!
	stop_node a
	status=0
	wait "$waiter" || status=$?
	[ "$status" = 71 ]
	grep -q "No locks available" complaints.*
	let_go one
}

# A kernel that aborts slow requests, as far as the daemon sees: in a mount
# namespace of its own, where the settings read so.
start_impatient() { # DEFAULT MOST, both in seconds
	mkdir -p b/mnt settings/fuse
	echo "$1" >settings/fuse/default_request_timeout
	echo "$2" >settings/fuse/max_request_timeout
	spawn unshare --mount --propagation private sh -c '
		mount --bind settings /proc/sys/fs && exec "$@"' - \
		"$RINGFS_BIN" mount -f --state "$PWD/b/state" --name b \
		--bind 127.0.0.1:0 "$PWD/b/mnt" </dev/null >>"$(log_of b)" 2>&1
	echo $! >b.pid
	wait_for 10 inside grep -qx ready b/mnt/status/state
}

inside() {
	nsenter -t "$(pid_of b)" -m --wdns="$PWD" "$@"
}

@test "where requests may not take for ever, a wait ends before: No locks available" {
	need root unshare nsenter
	start_impatient 60 6
	inside touch b/mnt/keys/k
	mkfifo b.held
	spawn inside flock b/mnt/keys/k sh -c 'echo >taken; read -r _ <b.held'
	wait_for 10 test -e taken
	begin=${EPOCHREALTIME/./}
	run -71 inside flock b/mnt/keys/k true
	took=$(((${EPOCHREALTIME/./} - begin) / 1000))
	output_is <<<"flock: b/mnt/keys/k: No locks available"
	((took >= 4400 && took < 6000)) || fail "it took $took ms"
	echo >b.held
}
