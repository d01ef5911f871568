# SPDX-License-Identifier: MIT
# What every bats file loads: nodes are started and stopped here, and whatever a
# test leaves behind makes it fail.
#
# All belongs to $BATS_TEST_TMPDIR: node ID has its mount in ID/mnt, its state in
# ID/state and its log in log/ID. Every process carries RINGFS_TEST=<that folder>
# in its environment, children and heralds too, so that only our own are found,
# whoever else runs a ringfs on this machine.
# shellcheck shell=bash
bats_require_minimum_version 1.8.0
RINGFS_BIN=$(realpath -m "${RINGFS_BIN:-$BATS_TEST_DIRNAME/../build/ringfs}")
TOOLS=$(dirname "$RINGFS_BIN")/tests/tools
export RINGFS_BIN TOOLS
export LC_ALL=C

fail() {
	printf 'FAIL: %s\n' "$*" >&2
	return 1
}

# Standard input is what $output must be; the failure shows the difference.
output_is() {
	diff -u --label want --label got - <(printf '%s\n' "${output-}")
}

need() { # fuse|root|loop|COMMAND...; without it the test is skipped
	local what why
	for what; do
		why=
		case $what in
		fuse) [ -c /dev/fuse ] && command -v fusermount3 >/dev/null ||
			why="/dev/fuse or fusermount3 is missing" ;;
		root) ((EUID == 0)) || why="this test needs root" ;;
		loop) [ -e /dev/loop-control ] && losetup -f >/dev/null 2>&1 ||
			why="there is no loop device" ;;
		*) command -v "$what" >/dev/null || why="$what is missing" ;;
		esac
		[ -n "$why" ] || continue
		[ "${STRICT-}" != 1 ] || fail "$why (STRICT=1)" || return
		skip "$why"
	done
}

# What is waited for may take PATIENCE times as long where the machine is busy.
PATIENCE=${PATIENCE:-1}

wait_for() { # SECONDS COMMAND...
	local end=$((${EPOCHREALTIME/./} + $1 * PATIENCE * 1000000)) out
	shift
	until out=$("$@" 2>&1); do
		((${EPOCHREALTIME/./} < end)) ||
			fail "waited in vain for: $*: $out" || return
		sleep 0.05
	done
}

# The program, marked as ours.
ringfs() {
	RINGFS_TEST=$BATS_TEST_TMPDIR "$RINGFS_BIN" "$@" 3>&-
}

# Any command in the background, marked as ours: its id is in $!.
spawn() {
	RINGFS_TEST=$BATS_TEST_TMPDIR "$@" 3>&- &
}

ours() { # the ids of all processes of this test
	local f
	for f in $(grep -lzxF "RINGFS_TEST=$BATS_TEST_TMPDIR" \
		/proc/[0-9]*/environ 2>/dev/null); do
		f=${f#/proc/}
		echo "${f%/environ}"
	done
}

mounts() { # what is mounted below the test's folder
	awk -v dir="$BATS_TEST_TMPDIR/" 'index($5, dir) == 1 { print $5 }' \
		/proc/self/mountinfo
}

is_mounted() {
	mounts | grep -qxF "$1"
}

gone() { # PID: ended, or a zombie that waits for us
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
	[[ ${stat##*) } == [ZX]* ]]
}

pid_of() { # ID
	local pid
	pid=$(<"$BATS_TEST_TMPDIR/$1.pid") && echo "$pid"
}

herald_of() { # ID: its only child
	ps -o pid= --ppid "$(pid_of "$1")" | tr -d ' '
}

log_of() {
	echo "$BATS_TEST_TMPDIR/log/$1"
}

serves() { # ID
	gone "$(pid_of "$1")" && return 0 # started() tells
	[ "$(<"$BATS_TEST_TMPDIR/$1/mnt/status/state")" = ready ]
}

# ON, if set, is a command that runs the daemon somewhere else (hosts.bash); BIND
# is where it listens.
launch_node() { # ID [ARG...]: start it, and do not wait
	local id=$1 dir=$BATS_TEST_TMPDIR/$1
	shift
	mkdir -p "$dir/mnt"
	spawn ${ON-} "$RINGFS_BIN" mount -f --state "$dir/state" --name "$id" \
		--bind "${BIND:-127.0.0.1:0}" "$@" "$dir/mnt" </dev/null \
		>>"$(log_of "$id")" 2>&1
	echo $! >"$dir.pid"
}

started() { # ID: returns when it serves
	wait_for 20 serves "$1" && ! gone "$(pid_of "$1")" && return
	tail -n 20 "$(log_of "$1")" >&2
	fail "node $1 does not serve"
}

start_node() { # ID [ARG...]
	launch_node "$@"
	started "$1"
}

stop_node() { # ID: it must end when asked, with status 0: leaks are found then
	local pid status=0
	pid=$(pid_of "$1")
	rm "$BATS_TEST_TMPDIR/$1.pid"
	kill -CONT "$pid" 2>/dev/null || true # a test may have stopped it
	kill -TERM "$pid" 2>/dev/null || true
	wait_for 15 gone "$pid" || kill -KILL "$pid"
	wait "$pid" || status=$?
	((status == 0)) || fail "node $1: exit status $status after TERM"
}

stop_nodes() {
	local f rc=0
	for f in "$BATS_TEST_TMPDIR"/*.pid; do
		[ -e "$f" ] || continue
		f=${f##*/}
		stop_node "${f%.pid}" || rc=1
	done
	return $rc
}

kill_node() { # ID: kill -9, nothing else
	local pid
	pid=$(pid_of "$1")
	rm "$BATS_TEST_TMPDIR/$1.pid"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
}

crash_node() { # ID: kill -9; the herald detaches the dead mount, or we do
	kill_node "$1"
	detach "$BATS_TEST_TMPDIR/$1/mnt"
}

detach() { # DIR
	local i
	for ((i = 0; i < 50; i++)); do
		is_mounted "$1" || return 0
		sleep 0.02
	done
	fusermount3 -uz "$1" 2>/dev/null || umount -l "$1"
}

# Run in every test: a daemon that hangs would hold the test in an unkillable
# sleep, so all of ours are killed shortly before bats gives up.
start_watchdog() {
	local seconds=$((${BATS_TEST_TIMEOUT:-60} - 10))
	mkfifo "$BATS_TEST_TMPDIR/watchdog"
	(
		read -rt "$seconds" _ <>"$BATS_TEST_TMPDIR/watchdog" && exit
		for pid in $(ours); do kill -KILL "$pid"; done
	) 3>&- >/dev/null 2>&1 &
	WATCHDOG=$!
}

setup() {
	mkdir "$BATS_TEST_TMPDIR/log"
	export ASAN_OPTIONS=detect_leaks=1:log_path=$BATS_TEST_TMPDIR/log/asan
	export UBSAN_OPTIONS=print_stacktrace=1:log_path=$BATS_TEST_TMPDIR/log/ubsan
	start_watchdog
	if declare -F local_setup >/dev/null; then local_setup; fi
}

nothing_left() {
	local left rc=0
	left=$(mounts)
	[ -z "$left" ] || fail "still mounted: $left" || rc=1
	for left in $(mounts | tac); do
		fusermount3 -uz "$left" 2>/dev/null || umount -l "$left"
	done
	for _ in {1..50}; do
		left=$(ours)
		[ -n "$left" ] || return $rc
		sleep 0.1
	done
	for left in $left; do
		fail "still running: $left $(tr '\0' ' ' <"/proc/$left/cmdline")"
		kill -KILL "$left"
	done
	return 1
}

logs_are_clean() {
	! grep -rnE 'Sanitizer|runtime error:|Assertion' "$BATS_TEST_TMPDIR"/log
}

teardown() {
	local rc=0
	if declare -F local_teardown >/dev/null; then local_teardown; fi
	stop_nodes || rc=1
	if declare -F hosts_gone >/dev/null; then hosts_gone; fi
	nothing_left || rc=1
	logs_are_clean || rc=1
	kill "$WATCHDOG" 2>/dev/null || true
	# BATS_TEST_COMPLETED is empty when the test failed or ran out of time.
	[ -n "${BATS_TEST_COMPLETED-}" ] && ((rc == 0)) ||
		tail -vn 40 "$BATS_TEST_TMPDIR"/log/* 2>/dev/null
	return $rc
}
