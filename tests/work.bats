#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# ringfs work, and the script of the manual that does the same: every key that
# is offered is worked on by one command at a time, whoever dies or interferes.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	RAN=$BATS_TEST_TMPDIR/ran # a line per command that ran
	GO=$BATS_TEST_TMPDIR/go
	export RAN GO
	: >"$RAN"
	mkfifo "$GO" # commands that wait read from it
	export RINGFS=$M
	start_node a
}

local_teardown() {
	local pid
	for pid in "${WORKERS[@]}"; do
		kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null ||
			true
	done
}

restart_node() { # ID [ARG...]
	stop_node "$1"
	start_node "$@"
}

xattr() { # NAME FILE
	getfattr --absolute-names --only-values -n "user.ring.$1" "$2"
}

empty() { # DIR...
	local d
	for d; do
		[ -z "$(ls "$M/$d")" ] || return
	done
}

submit() { # KEY...: with nobody at work, they are in recover when it returns
	local k
	for k; do : >"$M/submit/$k"; done
	[ -n "${WORKER-}" ] || for k; do wait_for 10 test -e "$M/recover/$k"; done
}

work() { # ARG...: in the background, its id in $WORKER
	# The tests themselves may run under nohup.
	spawn env --default-signal=HUP "$RINGFS_BIN" work "$@" \
		2>>"$BATS_TEST_TMPDIR/log/work"
	WORKER=$!
	WORKERS+=("$WORKER")
}

said() { # TEXT
	grep -qF -- "$1" "$BATS_TEST_TMPDIR/log/work"
}

ran() { # N: so many commands were started
	(($(wc -l <"$RAN") == $1))
}

ends() { # STATUS: the worker does, within seconds
	local status=0
	wait_for 15 gone "$WORKER"
	wait "$WORKER" || status=$?
	((status == $1)) || fail "the worker's status is $status, not $1"
}

children() {
	ps -o pid= --ppid "$WORKER" | tr -d " "
}

# What the commands of these tests are. shellcheck disable=SC2016
NOTE='echo "$1" >>"$RAN"'
WAIT='echo "$1" >>"$RAN"; read -r _ <>"$GO"'
STUBBORN='trap "" TERM; echo "$1" >>"$RAN"; while :; do read -rt 9 _ <>"$GO"; done'

@test "after a restart, work finishes all that is in recover" {
	for i in {1..20}; do touch "$M/keys/k$i"; done
	restart_node a
	run -0 ringfs work --once -- sh -c "$NOTE" work
	[ -z "$output" ]
	empty keys recover owned
	diff <(printf 'k%s\n' {1..20} | sort) <(sort "$RAN")
}

@test "work goes on with what is offered later" {
	work -- sh -c "$NOTE" work
	submit first
	wait_for 10 empty keys
	submit second third
	wait_for 10 empty keys
	kill -TERM "$WORKER"
	ends 0
	[ "$(<"$RAN")" = $'first\nsecond\nthird' ]
}

@test "the command gets key, token, attempts, reason, from, node and mount" {
	echo note >"$M/keys/k 1"
	restart_node a
	run -0 ringfs work --once -- sh -c 'echo "$1"; echo "$RINGFS_KEY"
		test "$RINGFS_TOKEN" = "$(getfattr --absolute-names \
			--only-values -n user.ring.token "$RINGFS_MOUNT/owned/$1")"
		echo "$? $RINGFS_ATTEMPTS $RINGFS_REASON ${RINGFS_FROM-unset}" \
			"$RINGFS_NODE $RINGFS_MOUNT"; cat' work
	output_is <<-EOT
		k 1
		k 1
		0 1 restart a a $M
		note
	EOT
}

@test "names with blanks, newlines and dashes arrive as they are" {
	local names=('a b' $'x\ny' -dash --once '*' $'\xff' "q'\"uote") k
	for k in "${names[@]}"; do touch "$M/keys/$k"; done
	restart_node a
	# shellcheck disable=SC2016
	run -0 ringfs work --once -j 3 -- \
		sh -c 'test "$1" = "$RINGFS_KEY" && printf "%s\0" "$1" >>"$RAN"' work
	cmp <(printf '%s\0' "${names[@]}" | sort -z) <(sort -z "$RAN")
	empty keys
}

@test "the note is whole on stdin, NUL bytes and 64 KiB of them" {
	head -c 65536 /dev/urandom >"$BATS_TEST_TMPDIR/note"
	printf '\0a\0\n\0' | dd of="$BATS_TEST_TMPDIR/note" conv=notrunc status=none
	touch "$M/keys/k"
	cat "$BATS_TEST_TMPDIR/note" >"$M/owned/k"
	restart_node a
	# shellcheck disable=SC2016
	ringfs work --once -- sh -c 'cat >"$RAN"'
	cmp "$BATS_TEST_TMPDIR/note" "$RAN"
}

@test "a key whose command fails is given back, with back-off" {
	submit k
	run -1 ringfs work --once -- false
	output_is <<<"ringfs: work: 'k': the command ended with status 1; given back"
	empty owned recover
	wait_for 10 test -e "$M/recover/k"
	[ "$(xattr reason "$M/recover/k")" = given-back ]
	[ "$(xattr attempts "$M/recover/k")" = 1 ]
}

@test "a key is parked when it is given back for the Nth time of --attempts" {
	submit k
	work --attempts 2 -- sh -c "$NOTE; exit 3" work
	wait_for 10 said "'k': the command ended with status 3; given back"
	wait_for 10 said "'k': the command ended with status 3; parked"
	[ -e "$M/parked/k" ]
	[ "$(xattr attempts "$M/parked/k")" = 2 ]
	ran 2
	kill -TERM "$WORKER"
	ends 0
}

@test "the ring's own max-attempts parks, too, and is said so" {
	stop_node a
	rm -r "$BATS_TEST_TMPDIR/a"
	start_node a --max-attempts 1
	submit k
	run -1 ringfs work --once -- false
	output_is <<<"ringfs: work: 'k': the command ended with status 1; parked"
	[ -e "$M/parked/k" ]
}

@test "one bad key does not delay the others" {
	submit bad good1 good2
	# shellcheck disable=SC2016
	work -- sh -c 'echo "$1" >>"$RAN"; test "$1" != bad' work
	wait_for 10 grep -qx good2 "$RAN"
	[ "$(head -n 3 "$RAN" | sort)" = $'bad\ngood1\ngood2' ]
	wait_for 10 said "'bad': "
	kill -TERM "$WORKER"
	ends 0
}

@test "-j 4 runs four at a time, never five" {
	submit k1 k2 k3 k4 k5
	work -j 4 -- sh -c "$WAIT" work
	wait_for 10 ran 4
	[ "$(children | wc -l)" = 4 ]
	[ "$(ls "$M/recover" | wc -l)" = 1 ]
	sleep 0.3 # the negative control
	ran 4
	echo >"$GO"
	wait_for 10 ran 5
	for _ in 1 2 3 4; do echo >"$GO"; done
	wait_for 10 empty keys
	kill -TERM "$WORKER"
	ends 0
}

@test "a key that is finished from outside: its command and all it started are stopped" {
	submit k other
	# shellcheck disable=SC2016
	work -j 2 -- sh -c 'echo "$1" >>"$RAN"; (read -r _ <>"$GO") & wait' work
	wait_for 10 ran 2
	[ "$(children | wc -l)" = 2 ]
	group=$(pgrep -f "work k\$" -P "$WORKER")
	rm "$M/keys/k"
	wait_for 10 said "'k': it is no longer held here; its command is stopped"
	wait_for 10 eval "! pgrep -g $group"
	wait_for 10 eval '[ "$(children | wc -l)" = 1 ]' # the other goes on
	kill -TERM "$WORKER"
	kill -INT "$WORKER" # a second TERM may fall together with the first
	ends 0
}

@test "a key that is given back from outside and taken by another is lost" {
	submit k
	work -- sh -c "$STUBBORN" work
	wait_for 10 ran 1
	mv "$M/owned/k" "$M/parked/"
	mv "$M/parked/k" "$M/recover/"
	mv "$M/recover/k" "$M/owned/"
	token=$(xattr token "$M/owned/k")
	kill -TERM "$WORKER"
	ends 0 # the command is deaf for TERM: KILL came
	[ "$(xattr token "$M/owned/k")" = "$token" ]
	[ "$(xattr state "$M/owned/k")" = held ]
}

@test "a command that is deaf for TERM is killed five seconds later, not before" {
	submit k
	work -- bash -c "$STUBBORN" work
	wait_for 10 ran 1
	child=$(children)
	begin=${EPOCHREALTIME/./}
	rm "$M/keys/k"
	wait_for 20 gone "$child"
	((${EPOCHREALTIME/./} - begin > 4900000)) || fail "killed too early"
	kill -TERM "$WORKER"
	ends 0
}

@test "unmount while working: status 69, and nobody is left" {
	submit k
	# shellcheck disable=SC2016
	work -- sh -c 'echo "$1" >>"$RAN"; (read -r _ <>"$GO") & wait' work
	wait_for 10 ran 1
	fusermount3 -u "$M"
	ends 69
	said "it was unmounted, or its daemon is dead"
	wait_for 10 gone "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid" # teardown finds who is left
}

@test "a lazy unmount is noticed although somebody is inside" {
	submit k
	work -- sh -c "$WAIT" work
	wait_for 10 ran 1
	exec 7<"$M"
	fusermount3 -uz "$M"
	ends 69
	exec 7<&-
	wait_for 10 gone "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
}

@test "kill -9 of the daemon ends work with 69, and the key comes again" {
	submit k
	work -- sh -c "$WAIT" work
	wait_for 10 ran 1
	crash_node a
	ends 69
	start_node a
	[ -e "$M/recover/k" ]
	run -0 ringfs work --once -- sh -c "$NOTE" work
	empty keys
}

@test "two works side by side run each key exactly once" {
	{ echo submit && seq 200; } >"$BATS_TEST_TMPDIR/in"
	work -j 3 -- sh -c "$NOTE" work
	first=$WORKER
	work -j 3 -- sh -c "$NOTE" work
	exec 8<>"$M/ctl"
	cat "$BATS_TEST_TMPDIR/in" >&8
	cat <&8 >/dev/null
	exec 8>&-
	wait_for 20 empty keys
	kill -TERM "$first" "$WORKER"
	ends 0
	WORKER=$first
	ends 0
	diff <(seq 200 | sort) <(sort "$RAN")
}

@test "at TERM it takes no more, and waits for those that run" {
	submit k1
	work -- sh -c "$WAIT" work
	wait_for 10 ran 1
	kill -TERM "$WORKER"
	submit k2
	sleep 0.3 # the negative control
	! gone "$WORKER" || fail "it did not wait"
	ran 1
	echo >"$GO"
	ends 0
	[ "$(ls "$M/keys")" = k2 ]
	wait_for 10 test -e "$M/recover/k2"
}

@test "at the second TERM it stops them and gives the keys back" {
	submit k1 k2
	work -j 2 -- sh -c "$WAIT" work
	wait_for 10 ran 2
	kill -TERM "$WORKER"
	kill -INT "$WORKER"
	ends 0
	said "'k1': it was stopped; given back"
	empty owned
	wait_for 10 test -e "$M/recover/k1" -a -e "$M/recover/k2"
}

@test "what a failed command left running is stopped before its key is given back" {
	submit k
	# shellcheck disable=SC2016
	run -1 ringfs work --once -- \
		sh -c '(trap "echo stopped >>\"\$RAN\"; exit" TERM; echo ready >>"$RAN"
			while :; do read -rt 9 _ <>"$GO"; done) &
			while ! [ -s "$RAN" ]; do sleep 0.01; done; exit 1' work
	[ "$(<"$RAN")" = $'ready\nstopped' ] || [ "$(<"$RAN")" = ready ]
}

@test "--timeout stops a command that runs too long, and gives its key back" {
	submit k
	run -1 ringfs work --once --timeout 1 -- sh -c "$WAIT" work
	output_is <<<"ringfs: work: 'k': the command ran out of time; given back"
}

@test "a command that is not there is status 127, and no key is touched" {
	submit k
	run -127 --separate-stderr ringfs work -- no-such-command
	[ "$stderr" = "ringfs: work: 'no-such-command': No such file or directory" ]
	run -126 --separate-stderr ringfs work -- "$BATS_TEST_TMPDIR"
	[ "$stderr" = "ringfs: work: '$BATS_TEST_TMPDIR': Permission denied" ]
	[ "$(xattr attempts "$M/recover/k")" = 0 ]
}

@test "a command that goes while work runs: the key is given back, and work lives on" {
	local tool=$BATS_TEST_TMPDIR/tool
	printf '#!/bin/sh\necho "$1" >>"$RAN"\n' >"$tool"
	chmod +x "$tool"
	work -- "$tool"
	submit k1
	wait_for 10 ran 1
	mv "$tool" "$tool.away"
	submit k2
	wait_for 10 said "'k2': cannot run '$tool': No such file or directory; given back"
	mv "$tool.away" "$tool"
	wait_for 10 ran 2
	kill -TERM "$WORKER"
	ends 0
}

@test "work may be started inside the mount, and stops its command at HUP, too" {
	submit k
	cd "$M/keys"
	unset RINGFS
	work -- sh -c "$WAIT" work
	cd /
	wait_for 10 ran 1
	kill -HUP "$WORKER"
	kill -TERM "$WORKER"
	ends 0
	said "'k': it was stopped; given back"
}

@test "a daemon that dies with its herald is noticed when a key is settled" {
	submit k
	work -- sh -c "$WAIT" work
	wait_for 10 ran 1
	kill -KILL "$(herald_of a)"
	kill_node a
	echo >"$GO"
	ends 69
	detach "$M"
}

@test "--once is over when nothing is offered, and does not wait for retries" {
	run -0 ringfs work --once -- sh -c "$NOTE" work
	submit k
	run -1 ringfs work --once -j 2 -- sh -c "$NOTE; exit 1" work
	ran 1
}

@test "a finish that is refused for a while is tried again, not forgotten" {
	need root
	local state=$BATS_TEST_TMPDIR/a/state i
	stop_node a
	rm -r "$state"
	mkdir "$state"
	mount -t tmpfs -o size=96M,mode=700 none "$state"
	start_node a
	submit k
	work -- sh -c "$WAIT" work
	wait_for 10 ran 1
	dd if=/dev/zero of="$state/filler" bs=64K status=none 2>/dev/null || true
	head -c 60000 /dev/urandom >"$BATS_TEST_TMPDIR/note"
	for ((i = 0; i < 3000; i++)); do
		cp "$BATS_TEST_TMPDIR/note" "$M/keys/f$i" 2>/dev/null || break
	done
	while : 2>/dev/null >"$M/keys/g$i"; do ((++i)); done
	echo >"$GO"
	wait_for 10 said "'k': cannot finish it: No space left on device"
	[ -e "$M/owned/k" ]
	rm "$state/filler"
	wait_for 15 eval "! [ -e '$M/keys/k' ]"
	ran 1
	kill -TERM "$WORKER"
	ends 0
	stop_node a
	umount "$state"
}

@test "wrong use of work is status 64, and no ring is 69" {
	run -64 --separate-stderr ringfs work
	[[ $stderr == *"the command is missing"* ]]
	run -64 ringfs work -j 0 -- true
	run -64 ringfs work --attempts x -- true
	run -64 ringfs work --timeout 0 -- true
	run -69 ringfs work -m / -- true
	run -0 ringfs work --once true -j 0 # is the command's
}

sleeps_for_a_second() {
	local ticks switches
	ticks=$(awk '{ print $14 + $15 }' "/proc/$WORKER/stat")
	switches=$(awk '/^voluntary/ { print $2 }' "/proc/$WORKER/status")
	sleep 1
	[ "$(awk '{ print $14 + $15 }' "/proc/$WORKER/stat")" = "$ticks" ] &&
		[ "$(awk '/^voluntary/ { print $2 }' \
			"/proc/$WORKER/status")" = "$switches" ]
}

@test "work sleeps while there is nothing to do" {
	need root unshare
	# Other mounts that come and go wake it, as they must: it sees none of them.
	spawn unshare --mount --propagation private "$RINGFS_BIN" work -- true \
		2>>"$BATS_TEST_TMPDIR/log/work"
	WORKER=$!
	WORKERS+=("$WORKER")
	submit k
	wait_for 10 empty keys
	wait_for 30 sleeps_for_a_second
	kill -INT "$WORKER"
	ends 0
}

# ---- man/recover.sh ----

SCRIPT=$BATS_TEST_DIRNAME/../man/recover.sh

recover() { # COMMAND [ARG...]: in the background, its own group, id in $WORKER
	need inotifywait setsid
	spawn setsid sh "$SCRIPT" "$M" "$@" 2>>"$BATS_TEST_TMPDIR/log/work"
	WORKER=$!
	WORKERS+=("$WORKER")
}

@test "the script of the manual finishes what is there and what comes" {
	local k
	for k in 'a b' $'x\ny' -dash '*'; do printf 'n\0%s' "$k" >"$M/submit/$k"; done
	# shellcheck disable=SC2016
	recover sh -c '{ printf "%s=" "$1"; cat; printf "\0"; } >>"$RAN"' work
	wait_for 10 empty keys
	for i in {1..30}; do : >"$M/submit/k$i"; done
	wait_for 10 empty keys
	[ "$(tr '\0' '\n' <"$RAN" | grep -c '^k[0-9]*=$')" = 30 ]
	grep -zqxF "a b=n" "$RAN"
	grep -zqF -- "-dash=n" "$RAN"
}

@test "the script of the manual gives back what failed, and leaves what it lost" {
	submit bad lost
	# shellcheck disable=SC2016
	recover sh -c 'echo "$1" >>"$RAN"; test "$1" = lost || exit 1
		read -r _ <>"$GO"' work
	wait_for 10 grep -qx lost "$RAN"
	mv "$M/owned/lost" "$M/parked/"
	mv "$M/parked/lost" "$M/recover/"
	mv "$M/recover/lost" "$M/owned/"
	token=$(xattr token "$M/owned/lost")
	echo >"$GO"
	wait_for 10 said "ENOENT lost"
	[ "$(xattr token "$M/owned/lost")" = "$token" ]
	wait_for 10 grep -qx bad "$RAN"
	wait_for 10 eval "(( \$(grep -cx bad '$RAN') >= 2 ))"
}

@test "two scripts of the manual run each key exactly once" {
	# shellcheck disable=SC2016
	recover sh -c 'echo "$1" >>"$RAN"' work
	recover sh -c "$NOTE" work
	exec 8<>"$M/ctl"
	{ echo submit && seq 60; } >&8
	cat <&8 >/dev/null
	exec 8>&-
	wait_for 20 empty keys
	diff <(seq 60 | sort) <(sort "$RAN")
}

@test "the script of the manual ends when the ring is unmounted" {
	recover true
	submit k
	wait_for 10 empty keys
	wait_for 10 pgrep -g "$WORKER" inotifywait
	fusermount3 -u "$M" || { sleep 0.2 && fusermount3 -u "$M"; }
	ends 69
	wait_for 10 gone "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
}
