#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Never hang, never die: callers are interrupted and killed, the daemon is
# stopped and killed, and its disk is slow, stuck or broken. Times are printed,
# and fail a test only where they are grossly over what is promised: a busy machine
# may be late by LATE ms, where who waits for the disk would wait for 30 s. SEED
# replays the random cancels, CANCELS of them.

load helper

LATE=5000

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	S=$BATS_TEST_TMPDIR/a/state
	DISK=$BATS_TEST_TMPDIR/disk
	CALLERS=()
	mkdir -p "$M" "$S"
	disk ok
}

local_teardown() {
	disk ok
	for pid in $(ours); do kill -CONT "$pid" 2>/dev/null || true; done
	for caller in "${CALLERS[@]}"; do
		for pid in $(ps -o pid= --ppid "$caller") "$caller"; do
			kill -KILL "$pid" 2>/dev/null || true
		done
	done
	[ -n "${LOOP-}" ] || return 0
	thaw
	stop_nodes || true # before its disk goes
	umount "$S" || umount -l "$S"
	losetup -d "$LOOP"
}

# ---- The disk below the daemon ----

disk() { # ok | delay MS | stuck | error EIO: from now on, and at once
	echo "$*" >"$DISK.new"
	mv "$DISK.new" "$DISK"
}

start_on_disk() { # [ARG...]: node a, and only its daemon, has that disk
	RINGFS_DISK=$DISK LD_PRELOAD=$TOOLS/../shim/disk.so \
		ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 \
		start_node a "$@"
}

real_disk() { # one that can be frozen, for the state
	need root loop mkfs.ext4 fsfreeze
	truncate -s 96M "$BATS_TEST_TMPDIR/image"
	mkfs.ext4 -q "$BATS_TEST_TMPDIR/image"
	LOOP=$(losetup -f --show "$BATS_TEST_TMPDIR/image")
	mount "$LOOP" "$S"
	chmod 700 "$S"
	rmdir "$S/lost+found"
	mkfifo "$BATS_TEST_TMPDIR/guard"
}

# A program that hangs here would take the test with it, so there is a guard.
freeze() {
	fsfreeze -f "$S"
	(read -rt 60 _ <>"$BATS_TEST_TMPDIR/guard" || fsfreeze -u "$S") \
		>/dev/null 2>&1 3>&- &
}

thaw() {
	fsfreeze -u "$S" 2>/dev/null || true
	timeout 1 bash -c 'echo >"$1"' - "$BATS_TEST_TMPDIR/guard" || true
}

# ---- Callers ----

now_ms() {
	echo $((${EPOCHREALTIME/./} / 1000))
}

calls() { # NAME COMMAND...: in the background; its words and its end are kept
	local out=$BATS_TEST_TMPDIR/call.$1
	shift
	# shellcheck disable=SC2016  # the inner shell's
	spawn bash -c 'out=$1; shift; "$@" >"$out.said" 2>&1
		echo "$?" >"$out.end"' - "$out" "$@" </dev/null
	CALLERS+=($!)
	echo $! >"$out.caller"
}

# Its command has called, and waits for an answer, or behind one who does.
waits() { # NAME
	local pid
	pid=$(ps -o pid= --ppid "$(<"$BATS_TEST_TMPDIR/call.$1.caller")")
	[ "$(<"/proc/${pid// /}/wchan")" != 0 ]
}

has_ended() { # NAME
	[ -s "$BATS_TEST_TMPDIR/call.$1.end" ]
}

ends() { # NAME STATUS [WORDS]: within a few seconds
	local out=$BATS_TEST_TMPDIR/call.$1
	wait_for 10 has_ended "$1"
	[ "$(<"$out.end")" = "$2" ] && [[ $(<"$out.said") == *"${3-}"* ]] ||
		fail "$1 ended with $(<"$out.end"): $(<"$out.said")"
}

# A call that waits is ended by the signal, whatever becomes of its operation.
ended_by() { # SIGNAL COMMAND...
	local signal=$1 begin took status=0
	shift
	begin=$(now_ms)
	timeout -s "$signal" 0.2 "$@" >/dev/null 2>&1 </dev/null || status=$?
	[[ $status == @(124|137) ]] || fail "did not wait, but ended with $status: $*"
	took=$(($(now_ms) - begin - 200))
	echo "# $signal: $took ms: $*"
	((took < LATE)) || fail "$signal came $took ms before the end: $*"
}

answers() { # COMMAND...: at once, status and words do not matter
	local begin took
	begin=$(now_ms)
	timeout -s KILL 20 "$@" >/dev/null 2>&1 </dev/null || true
	took=$(($(now_ms) - begin))
	echo "# $took ms: $*"
	((took < LATE)) || fail "$took ms: $*"
}

# Commands that a caller can be: TEXT FILE, and CTL VERB NAME...
# shellcheck disable=SC2016  # the inner shell's
WRITE=(bash -c 'echo "$1" >"$2"' -)
# shellcheck disable=SC2016
BATCH=(bash -c 'exec 8<>"$1"; shift; printf "%s\n" "$@" >&8; exec cat <&8' -)

is_state() { # STATE
	[ "$(<"$M/status/state")" = "$1" ]
}

no_keys() {
	[ -z "$(find "$M"/{keys,owned,recover,parked} -mindepth 1)" ]
}

places() { # NAME DIR...: how many of them list it
	local name=$1
	shift
	find "${@/#/$M/}" -mindepth 1 -name "$name" | wc -l
}

none_in_d() {
	local pid state
	for pid in $(ours); do
		state=$(ps -o stat= -p "$pid") || continue
		[[ $state != D* ]] || fail "$pid is in state $state" || return
	done
}

# ---- Callers that give up ----

@test "every call that waits is ended by INT and by KILL" {
	start_on_disk --op-timeout 30000
	for s in INT KILL; do
		for k in note trunc rm give; do echo old >"$M/keys/$k-$s"; done
	done
	disk stuck
	for s in INT KILL; do
		ended_by $s touch "$M/keys/claim-$s"
		ended_by $s "${WRITE[@]}" new "$M/owned/note-$s"
		ended_by $s truncate -s 0 "$M/owned/trunc-$s"
		ended_by $s rm "$M/keys/rm-$s"
		ended_by $s mv "$M/owned/give-$s" "$M/recover/"
		ended_by $s touch "$M/submit/submit-$s"
		ended_by $s "${BATCH[@]}" "$M/ctl" claim b1-$s b2-$s
		ended_by $s "${WRITE[@]}" "claim line-$s" "$M/ctl"
	done
	none_in_d
	disk ok
	touch "$M/keys/"{claim,submit,b1,b2,line}-{INT,KILL}
	for k in {note,trunc,rm,give}-{INT,KILL}; do # done or not, as one sees
		n=$(places "$k" owned recover parked)
		[ "$(places "$k" keys)" = "$n" ] || fail "$k: $n"
		[[ $(cat "$M/keys/$k" 2>/dev/null || true) == @(old|new|) ]]
	done
}

@test "a thousand random cancels leave no half key, descriptor or process" {
	SEED=${SEED:-$((EPOCHSECONDS % 1000000))}
	echo "# seed $SEED" >&3
	start_on_disk
	before=$(ls "/proc/$(pid_of a)/fd")
	disk delay 8
	"$TOOLS/cancel" "$M" "$SEED" $((${CANCELS:-1000} / 8)) 8 ||
		fail "seed $SEED"
	none_in_d
	disk ok
	wait_for 10 no_keys
	[ "$(ls "/proc/$(pid_of a)/fd")" = "$before" ] ||
		fail "descriptors: $before; then $(ls -l "/proc/$(pid_of a)/fd")"
}

@test "holes 24: an abandoned claim is adopted by its repeat" {
	start_on_disk --op-timeout 30000
	disk stuck
	ended_by INT touch "$M/keys/k"
	calls again touch "$M/keys/k"
	wait_for 10 waits again
	disk ok
	ends again 0
	[ -e "$M/owned/k" ]
}

@test "an abandoned batch of thousands disappears, and holds up nobody" {
	start_on_disk --op-timeout 30000
	disk stuck
	# shellcheck disable=SC2046  # words they are
	ended_by INT "${BATCH[@]}" "$M/ctl" claim $(seq 20000)
	touch "$M/keys/x" &
	CALLERS+=($!)
	disk ok
	wait_for 10 test -e "$M/owned/x"
	answers ls "$M/keys"
	wait_for 10 eval '[ "$(ls "$M/keys")" = x ]'
}

@test "while thousands are claimed and finished at once, others are answered" {
	start_on_disk
	for verb in claim finish; do
		# shellcheck disable=SC2046  # words they are
		calls $verb "${BATCH[@]}" "$M/ctl" $verb $(seq 50000)
		while ! has_ended $verb; do answers cat "$M/status/state"; done
		ends $verb 0 "ok 50000"
	done
}

# ---- A disk that does not answer ----

@test "while a claim waits, all other directories answer at once" {
	start_on_disk --op-timeout 30000
	echo note >"$M/keys/k"
	disk stuck
	calls claim touch "$M/keys/new"
	wait_for 10 waits claim
	for d in . owned recover release parked submit peers route status; do
		answers ls -l "$M/$d/"
		answers stat "$M/$d/none"
	done
	answers cat "$M/owned/k"
	answers cat "$M"/status/*
	answers "$RINGFS_BIN" status -m "$M"
	run ! has_ended claim
	disk ok
	ends claim 0
}

@test "after one time-out the rest is refused at once, until the disk answers" {
	start_on_disk --op-timeout 1000
	disk stuck
	begin=$(now_ms)
	for ((i = 0; i < 20; i++)); do calls $i touch "$M/keys/q$i"; done
	for ((i = 0; i < 20; i++)); do wait_for 10 has_ended $i; done
	echo "# the queue was drained in $(($(now_ms) - begin)) ms"
	((${EPOCHREALTIME/./} / 1000 - begin < 1000 + LATE)) ||
		fail "not drained in time"
	cat "$BATS_TEST_TMPDIR"/call.*.said >"$BATS_TEST_TMPDIR/said"
	[ "$(grep -c 'timed out' "$BATS_TEST_TMPDIR/said")" = 1 ]
	[ "$(grep -c 'Read-only' "$BATS_TEST_TMPDIR/said")" = 19 ]
	is_state isolated
	[ "$(<"$M/status/writable")" = 0 ]
	grep -q "log" "$M/status/reason"
	run -1 touch "$M/keys/later"
	[[ $output == *"Read-only file system"* ]]
	disk ok
	wait_for 10 is_state ready
	wait_for 10 no_keys
	touch "$M/keys/q0"
}

@test "callers who give up early do not hide that the disk is stuck" {
	start_on_disk --op-timeout 1000
	disk stuck
	for i in 1 2 3; do ended_by INT touch "$M/keys/k$i"; done
	wait_for 10 is_state isolated
	disk ok
	wait_for 10 is_state ready
	wait_for 10 no_keys
}

@test "a note, a take and a finish in doubt are done or not, and whole" {
	start_on_disk --op-timeout 2500 --max-attempts 1
	for k in note take finish safe; do echo old >"$M/keys/$k"; done
	mv "$M/owned/take" "$M/parked/"
	disk stuck
	calls note "${WRITE[@]}" new "$M/owned/note"
	calls take mv "$M/parked/take" "$M/recover/"
	calls finish rm "$M/keys/finish"
	ends note 1 "Connection timed out"
	ends take 1 "Connection timed out"
	ends finish 1 "Connection timed out"
	disk ok
	wait_for 10 is_state ready
	[[ $(<"$M/owned/note") == @(old|new|) ]] # > truncates first
	[ "$(places take recover parked)" = 1 ]
	[[ $(places finish keys owned) == @(0|2) ]]
	echo more >>"$M/owned/note"
	[ "$(<"$M/owned/safe")" = old ]
}

@test "what was in doubt when the daemon is killed is whole after the restart" {
	start_on_disk
	for k in note finish safe; do echo old >"$M/keys/$k"; done
	disk stuck
	calls note "${WRITE[@]}" new "$M/owned/note"
	calls finish rm "$M/keys/finish"
	calls claim touch "$M/recover/../submit/claim"
	for c in note finish claim; do wait_for 10 waits $c; done
	crash_node a
	for c in note finish claim; do wait_for 10 has_ended $c; done
	start_node a
	[[ $(<"$M/recover/note") == @(old|new|) ]]
	[ "$(<"$M/recover/safe")" = old ]
	mv "$M"/recover/* "$M/owned/"
	rm -f "$M"/keys/*
	no_keys
}

@test "holes 14: a log that cannot be written: mute until the restart, nothing is lost" {
	start_on_disk
	echo note >"$M/keys/before"
	disk error EIO
	run -1 touch "$M/keys/in-doubt" # unless the log has met it before
	[[ $output == *"Connection timed out" ||
		$output == *"Read-only file system" ]] || fail "said: $output"
	run -1 touch "$M/keys/after"
	[[ $output == *"Read-only file system"* ]] || fail "said: $output"
	disk ok
	run -1 rm "$M/keys/before"
	[[ $output == *"Read-only file system"* ]] || fail "said: $output"
	[ "$(<"$M/owned/before")" = note ]
	[ "$(<"$M/status/writable")" = 0 ]
	grep -q "log cannot be written" "$M/status/reason"
	stop_node a
	start_node a
	[ "$(<"$M/recover/before")" = note ]
	[ ! -e "$M/keys/after" ]
	touch "$M/keys/after"
}

@test "TERM answers all who wait and unmounts, though the disk is stuck" {
	start_on_disk --op-timeout 30000
	disk stuck
	calls claim touch "$M/keys/k"
	wait_for 10 waits claim
	kill -TERM "$(pid_of a)"
	ends claim 1 "timed out"
	wait_for 10 eval '! is_mounted "$M"'
	wait_for 8 gone "$(pid_of a)" # it waits for the disk, not for ever
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
}

@test "kill -9 frees all callers, though the disk is stuck for good" {
	real_disk
	start_node a
	touch "$M/keys/before"
	freeze
	calls claim touch "$M/keys/k"
	wait_for 10 waits claim
	kill -KILL "$(pid_of a)"
	ends claim 1 # while a thread of the daemon cannot die
	answers ls "$M/keys"
	fsfreeze -u "$S" # fails if the guard had to
	wait_for 10 gone "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
	detach "$M"
	start_node a
	[ -e "$M/recover/before" ]
}

@test "in the background the log, too, may be on the disk that is stuck" {
	real_disk
	ringfs mount --state "$S" --bind 127.0.0.1:0 --op-timeout 500 "$M"
	pid=$(<"$S/lock")
	freeze
	ended_by INT touch "$M/keys/k"
	kill -KILL "$(ps -o pid= --ppid "$pid")" # the herald: that is logged
	wait_for 10 is_state isolated
	answers cat "$M/status/log"
	grep -q "herald" "$M/status/log"
	fsfreeze -u "$S" # fails if the guard had to
	wait_for 10 is_state ready
	kill -TERM "$pid"
	wait_for 10 gone "$pid"
	grep -q "herald" "$S/log"
}

@test "a standard error that nobody reads holds up nobody" {
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	exec 9<>"$BATS_TEST_TMPDIR/pipe"
	spawn "$RINGFS_BIN" mount -f --state "$S" --name a --bind 127.0.0.1:0 \
		--log-level debug "$M" </dev/null 2>&9 9>&-
	echo $! >"$BATS_TEST_TMPDIR/a.pid"
	wait_for 10 serves a
	dd if=/dev/zero of=/proc/self/fd/9 bs=1 count=65536 oflag=nonblock \
		status=none 2>/dev/null || true
	for i in 1 2 3; do
		kill -KILL "$(herald_of a)"
		wait_for 10 herald_of a
		answers touch "$M/keys/k$i"
		sleep 0.2
	done
	answers ls "$M/owned"
	exec 9>&-
}

# ---- A daemon that does not answer ----

@test "callers of a stopped daemon can be killed, and the others are answered" {
	start_node a
	kill -STOP "$(pid_of a)"
	calls stays touch "$M/keys/stays"
	calls lists ls "$M/keys"
	for c in stays lists; do wait_for 10 waits $c; done
	run ! has_ended stays
	ended_by KILL cat "$M/status/state"
	kill -CONT "$(pid_of a)"
	ends stays 0
	ends lists 0
}

@test "callers of a stopped daemon get an error when it is killed" {
	start_node a
	kill -STOP "$(pid_of a)"
	calls claim touch "$M/keys/k"
	calls list ls -l "$M/owned/"
	calls write "${WRITE[@]}" x "$M/ctl"
	for c in claim list write; do wait_for 10 waits $c; done
	crash_node a
	for c in claim list write; do wait_for 10 has_ended $c; done
	none_in_d
}

# ---- The end of a mount ----

@test "umount is refused while a shell is inside, and nothing is lost by it" {
	start_node a
	touch "$M/keys/k"
	calls shell bash -c 'cd "$1" && exec 5<k && echo in && exec sleep 60' - \
		"$M/owned"
	wait_for 10 grep -q in "$BATS_TEST_TMPDIR/call.shell.said"
	run -1 fusermount3 -u "$M"
	[[ $output == *busy* ]]
	is_state ready
	touch "$M/keys/k2"
}

@test "a mount that is detached lazily serves who is inside until it leaves" {
	start_node a
	mkfifo "$BATS_TEST_TMPDIR/go"
	calls shell bash -c 'cd "$1"/keys && touch in && echo in && read -r _ <"$2" &&
		touch still && ls' - "$M" "$BATS_TEST_TMPDIR/go"
	wait_for 10 grep -q in "$BATS_TEST_TMPDIR/call.shell.said"
	fusermount3 -uz "$M"
	run -1 is_mounted "$M"
	sleep 0.3
	run ! gone "$(pid_of a)"
	echo >"$BATS_TEST_TMPDIR/go"
	ends shell 0 still
	wait_for 10 gone "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
	start_node a
	[ -e "$M/recover/still" ]
}

@test "a dead mount with a shell inside is mounted over, and the shell may go" {
	start_node a
	touch "$M/keys/k"
	calls shell bash -c 'cd "$1"/keys && exec 5<k && echo in && exec sleep 60' - \
		"$M"
	wait_for 10 grep -q in "$BATS_TEST_TMPDIR/call.shell.said"
	kill -KILL "$(herald_of a)" "$(pid_of a)"
	wait "$(pid_of a)" || true
	start_node a
	[ -e "$M/recover/k" ]
	[ "$(mounts | grep -cxF "$M")" = 1 ]
}

@test "kill, restart, stop, umount, continue in a row: the daemon ends at once" {
	for i in 1 2 3; do
		start_node a
		kill -KILL "$(herald_of a)" "$(pid_of a)"
		wait "$(pid_of a)" || true
		start_node a
		kill -STOP "$(pid_of a)"
		"$RINGFS_BIN" umount "$M" 2>/dev/null || true
		kill -CONT "$(pid_of a)"
		wait_for 10 gone "$(pid_of a)"
		wait "$(pid_of a)"
		rm "$BATS_TEST_TMPDIR/a.pid"
	done
}
