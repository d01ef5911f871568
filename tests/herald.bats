#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What the herald owes, row by row of the table of inotify's events, then in
# bulk, then while it is stopped, slow or killed, then to the usual watchers.
# Each event comes once, and a listing is right whatever the herald does. SEED
# replays what is random.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	MARK=$BATS_TEST_TMPDIR/mark
	EVENTS=$BATS_TEST_TMPDIR/events
	SEED=${SEED:-$((EPOCHSECONDS % 32768))}
	RANDOM=$SEED
	mkdir "$MARK"
	cd "$BATS_TEST_TMPDIR" || return
	start_node a
}

local_teardown() {
	for pid in "${OTHERS[@]}"; do
		kill -CONT "$pid" 2>/dev/null && kill "$pid" || true
	done
	cd /
}

other() { # COMMAND...: in the background, until the test is over
	spawn "$@"
	OTHERS+=($!)
}

watch() { # [-a] PATH...: below the mount; see tests/tools/watch.c
	local flags=()
	[ "$1" != -a ] || { flags=(-a) && shift; }
	other "$TOOLS/watch" "${flags[@]}" "$MARK" "${@/#/$M/}" >"$EVENTS"
	WATCHER=$!
	wait_for 10 grep -qx watching "$EVENTS"
}

heard() { # DIR EVENT [NAME]
	grep -qxF -- "$*" "$EVENTS"
}

owes() { # NUMBER
	[ "$(sed -n 's/^ringfs_herald_waiting //p' "$M/status/metrics.prom")" = "$1" ]
}

# Whatever has been announced by now is in $EVENTS: a mark comes behind it.
catch_up() {
	local mark=$MARK/$((++MARKS))
	: >"$mark"
	wait_for 10 heard mark CREATE "$MARKS"
}

# The herald has done all, and the watcher has said all.
all_is_said() {
	wait_for 30 owes 0
	catch_up
}

# The same where nobody watches yet.
nothing_is_owed() {
	wait_for 30 owes 0
}

owes_more_than() { # NUMBER
	(($(sed -n 's/^ringfs_herald_waiting //p' "$M/status/metrics.prom") > $1))
}

# What was heard of DIRs, in order, without the marks, must be the standard
# input; cookies become the word "cookie", one that comes twice.
said_is() {
	run -0 awk '$1 == "mark" || $1 == "watching" { next }
		$4 { seen[$4]++; last = $4; $4 = "cookie" } { print }
		END { if (last) exit seen[last] != 2 }' "$EVENTS"
	output_is
}

said() { # DIR EVENT: the names, each as often as it was heard, sorted
	awk -v d="$1" -v e="$2" '$1 == d && $2 == e { print $3 }' "$EVENTS" |
		sort
}

once_each() { # DIR EVENT: the names on standard input, no others, none twice
	diff --label wanted --label heard <(sort) <(said "$@") |
		head -n 20 >&2
	return "${PIPESTATUS[0]}"
}

batch() { # VERB: for the names on standard input; all must succeed
	exec 8<>"$M/ctl"
	{ echo "$1" && cat; } >&8
	! grep -v '^ok ' <&8 || fail "$1 is refused"
	exec 8>&-
}

listed() { # DIR: how many
	find "$M/$1" -mindepth 1 -printf x | wc -c
}

empty() { # DIR
	[ -z "$(ls "$M/$1")" ]
}

# ---- The table ----

@test "CREATE: a claim is announced in keys by the kernel, in owned by the herald" {
	watch -a keys owned
	mkfifo go
	(exec >"$M/keys/k" && read -r _ <go) 3>&- &
	wait_for 10 heard owned CREATE k
	echo >go
	wait $!
	all_is_said
	run -0 grep '^owned' "$EVENTS"
	output_is <<<"owned CREATE k"
	run -0 grep '^keys' "$EVENTS"
	output_is <<-EOT
		keys CREATE k
		keys OPEN k
		keys CLOSE_WRITE k
	EOT
}

@test "CREATE: a submitted key is announced in keys and recover, and nothing else is" {
	watch -a keys recover owned
	batch submit <<<k
	wait_for 10 heard recover CREATE k
	all_is_said
	run -0 sort "$EVENTS"
	output_is <<-EOT
		keys CREATE k
		mark CLOSE_WRITE 1
		mark CREATE 1
		mark OPEN 1
		recover CREATE k
		watching
	EOT
}

@test "DELETE: rm in one directory is announced in the others that show the key" {
	touch "$M/keys/a" "$M/keys/b"
	batch submit <<<c
	nothing_is_owed
	watch keys owned recover
	rm "$M/owned/a"
	rm "$M/keys/b"
	rm "$M/recover/c"
	all_is_said
	for d in keys owned recover; do
		case $d in
		keys) printf '%s\n' a b c ;;
		owned) printf '%s\n' a b ;;
		*) echo c ;;
		esac | once_each $d DELETE
	done
}

@test "DELETE_SELF: on the file itself only the remover's own directory tells" {
	touch "$M/keys/k" "$M/keys/l"
	nothing_is_owed
	watch keys/k keys/l
	rm "$M/keys/k"
	rm "$M/owned/l" # the herald removes another file of that name
	all_is_said
	said_is <<-EOT
		k DELETE_SELF
		k IGNORED
	EOT
}

@test "MODIFY: a note is announced in keys, with no ATTRIB and no CLOSE" {
	touch "$M/keys/k"
	nothing_is_owed
	watch -a keys owned
	echo note >>"$M/owned/k"
	wait_for 10 heard keys MODIFY k
	all_is_said
	run -0 grep '^keys' "$EVENTS"
	output_is <<<"keys MODIFY k"
	run -0 grep '^owned' "$EVENTS"
	output_is <<-EOT
		owned OPEN k
		owned MODIFY k
		owned CLOSE_WRITE k
	EOT
}

@test "MODIFY: status/events is announced at every change" {
	watch status
	touch "$M/keys/k"
	wait_for 10 heard status MODIFY events
	all_is_said
	grep -qx 'claims 1' "$M/status/events"
	run -1 grep -v 'MODIFY events$' <(grep ^status "$EVENTS")
}

@test "MODIFY: status/state is announced when the node can write no more" {
	need strace
	watch status
	other strace -qq -f -p "$(pid_of a)" -e trace=fdatasync,fsync \
		-e inject=fdatasync,fsync:error=EIO -o injected
	wait_for 10 grep -q '^TracerPid:.[1-9]' "/proc/$(pid_of a)/status"
	# Its threads are caught one by one. shellcheck disable=SC2016
	wait_for 10 sh -c '! touch "$0/keys/$$" 2>/dev/null' "$M"
	wait_for 10 heard status MODIFY state
	[ "$(<"$M/status/writable")" = 0 ]
	kill "${OTHERS[-1]}"
	wait_for 10 gone "${OTHERS[-1]}"
}

@test "ATTRIB, OPEN, ACCESS, CLOSE: only where the caller did it" {
	watch -a keys owned
	touch "$M/keys/k"
	[ -z "$(cat "$M/keys/k")" ]
	wait_for 10 heard owned CREATE k
	all_is_said
	run -0 grep -c '^owned ' "$EVENTS"
	output_is <<<1
	heard keys ATTRIB k
	heard keys CLOSE_NOWRITE k
}

@test "MOVED: take, give back and park are pairs with one cookie" {
	batch submit <<<k
	wait_for 10 test -e "$M/recover/k"
	nothing_is_owed
	watch recover owned parked
	mv "$M/recover/k" "$M/owned/"
	mv "$M/owned/k" "$M/parked/"
	mv "$M/parked/k" "$M/recover/"
	all_is_said
	said_is <<-EOT
		recover MOVED_FROM k cookie
		owned MOVED_TO k cookie
		owned MOVED_FROM k cookie
		parked MOVED_TO k cookie
		parked MOVED_FROM k cookie
		recover MOVED_TO k cookie
	EOT
}

@test "MOVED: what is not so in the end is taken back: a key given back waits" {
	batch submit <<<k
	wait_for 10 test -e "$M/recover/k"
	mv "$M/recover/k" "$M/owned/"
	nothing_is_owed
	watch recover owned
	mv "$M/owned/k" "$M/recover/"
	wait_for 10 heard recover CREATE k
	all_is_said
	said_is <<-EOT
		owned MOVED_FROM k cookie
		recover MOVED_TO k cookie
		recover DELETE k
		recover CREATE k
	EOT
}

@test "a key given back for the last time is announced in parked" {
	stop_node a
	rm -r a/state
	start_node a --max-attempts 1
	batch submit <<<k
	wait_for 10 test -e "$M/recover/k"
	mv "$M/recover/k" "$M/owned/"
	nothing_is_owed
	watch owned recover parked
	mv "$M/owned/k" "$M/recover/"
	wait_for 10 heard parked CREATE k
	all_is_said
	once_each owned MOVED_FROM <<<k
	once_each recover MOVED_TO <<<k
	once_each recover DELETE <<<k
	once_each parked CREATE <<<k
}

@test "UNMOUNT and IGNORED: at umount, and when the daemon is killed" {
	local dirs=(keys owned recover release parked submit peers status)
	watch "${dirs[@]}"
	ringfs umount "$M"
	for d in "${dirs[@]}"; do
		wait_for 10 heard "$d" UNMOUNT
		wait_for 10 heard "$d" IGNORED
	done
	wait "$(pid_of a)"
	start_node a
	watch "${dirs[@]}"
	kill_node a
	for d in "${dirs[@]}"; do wait_for 10 heard "$d" IGNORED; done
}

@test "negative control: with the herald stopped nobody hears a thing, then all of it" {
	echo >"$M/keys/old"
	echo >"$M/keys/noted"
	nothing_is_owed
	watch keys owned recover
	herald=$(herald_of a)
	kill -STOP "$herald"
	batch claim <<<new
	batch submit <<<job
	rm "$M/owned/old"
	echo note >>"$M/owned/noted"
	wait_for 10 test -e "$M/recover/job"
	[ -e "$M/owned/new" ]
	wait_for 10 owes_more_than 5
	catch_up
	said_is <<-EOT
		owned DELETE old
		owned MODIFY noted
	EOT
	kill -CONT "$herald"
	all_is_said
	once_each keys CREATE <<<$'job\nnew'
	once_each owned CREATE <<<new
	once_each recover CREATE <<<job
	once_each keys DELETE <<<old
	heard keys MODIFY noted # equal ones that wait are one
}

# ---- In bulk ----

@test "100,000 keys of one batch: each CREATE once" {
	local n=100000
	! nm "$RINGFS_BIN" | grep -q __asan || n=20000
	watch recover
	seq $n | batch submit
	wait_for 60 owes 0
	catch_up
	seq $n | once_each recover CREATE
	[ "$(listed recover)" = $n ]
	run -1 grep Q_OVERFLOW "$EVENTS"
}

@test "a name that somebody has looked up before gets its CREATE" {
	run -2 ls "$M/recover/k" "$M/keys/k" "$M/owned/k"
	watch keys owned recover
	batch submit <<<k
	batch claim <<<c
	all_is_said
	once_each recover CREATE <<<k
	once_each owned CREATE <<<c
	once_each keys CREATE <<<$'c\nk'
}

@test "a key that is looked up and held open before its CREATE still gets it" {
	watch keys owned recover
	herald=$(herald_of a)
	kill -STOP "$herald"
	batch submit <<<k
	batch claim <<<c
	wait_for 10 test -e "$M/recover/k"
	mkfifo held
	(exec 4<"$M/recover/k" 5<"$M/keys/k" 6>>"$M/owned/c" 7<"$M/keys/c" &&
		: >opened && read -r _ <held && echo note >&6) 3>&- &
	wait_for 10 test -e opened
	kill -CONT "$herald"
	all_is_said
	once_each recover CREATE <<<k
	once_each owned CREATE <<<c
	once_each keys CREATE <<<$'c\nk'
	echo >held
	wait $! # what it had open is the key still
	[ "$(<"$M/keys/c")" = note ]
}

@test "a key that another process holds open gets its CREATE when it is offered again" {
	batch submit <<<k
	wait_for 10 test -e "$M/recover/k"
	exec 7<"$M/recover/k" 8<"$M/keys/k"
	mv "$M/recover/k" "$M/owned/"
	nothing_is_owed
	watch recover
	mv "$M/owned/k" "$M/recover/"
	wait_for 10 heard recover CREATE k
	exec 7<&- 8<&-
}

@test "an overflow is told, and who lists again finds all" {
	local n=$(($(</proc/sys/fs/inotify/max_queued_events) + 4000))
	watch recover
	kill -STOP "$WATCHER"
	seq $n | batch submit
	wait_for 30 owes 0
	kill -CONT "$WATCHER"
	wait_for 10 heard - Q_OVERFLOW
	(($(said recover CREATE | wc -l) < n))
	diff <(ls "$M/recover" | sort) <(seq $n | sort)
}

# ---- A herald that is stopped, slow or dead ----

# The load of these tests: COUNT batches of 50 keys, which must all be listed at
# once, with a pause in between; each third batch is finished again.
run_load() { # COUNT
	local i n=0
	for ((i = 1; i <= $1; i++)); do
		seq -f "$i.%g" 50 | batch submit
		((n += 50))
		[ "$(listed recover)" = $n ] || fail "batch $i is not listed"
		if ((i % 3 == 0)); then
			seq -f "$i.%g" 50 | batch finish
			((n -= 50))
			[ "$(listed recover)" = $n ] || fail "batch $i is not gone"
		fi
		sleep "0.0$((RANDOM % 9))"
	done
}

# Nothing twice. Of names that stayed CREATE. Of names that came and went CREATE
# only with DELETE: who was behind may have heard DELETE alone, or nothing.
load_was_heard() { # COUNT
	run -0 sh -c 'grep "^recover " "$1" | sort | uniq -d' sh "$EVENTS"
	output_is <<<""
	diff <(for ((i = 1; i <= $1; i++)); do
		((i % 3 == 0)) || seq -f "$i.%g" 50
	done | sort) <(said recover CREATE | awk -F. '$1 % 3')
	run -0 comm -13 <(said recover DELETE) <(said recover CREATE |
		awk -F. '$1 % 3 == 0')
	output_is <<<""
}

@test "killed again and again: listings are right, and each event comes once" {
	echo "# seed $SEED" >&3
	watch recover
	(
		for ((i = 0; i < 10; i++)); do
			sleep "0.$((RANDOM % 10))5"
			kill -KILL "$(herald_of a)" 2>/dev/null || true
		done
	) 3>&- &
	run_load 40
	wait $!
	all_is_said
	load_was_heard 40
	grep -qE '^ringfs_herald_restarts_total ([5-9]|10)$' \
		"$M/status/metrics.prom"
}

@test "killed in the middle of 20,000 announcements, each event comes once" {
	watch recover
	seq 20000 | batch submit
	for ((kills = 0; kills < 50; kills++)); do
		! owes 0 || break
		kill -KILL "$(herald_of a)" 2>/dev/null || true
		sleep "0.1$((RANDOM % 10))"
	done
	((kills > 2))
	all_is_said
	seq 20000 | once_each recover CREATE
}

@test "stopped for 2 s: listings are right, and each event comes once" {
	watch recover
	run_load 3
	all_is_said
	herald=$(herald_of a)
	kill -STOP "$herald"
	begin=${EPOCHREALTIME/./}
	seq 300 | batch submit
	[ "$(listed recover)" = 400 ]
	catch_up
	run -1 grep -x 'recover CREATE [0-9]*' "$EVENTS"
	wait_for 10 eval '((${EPOCHREALTIME/./} - begin > 2000000))'
	kill -CONT "$herald"
	all_is_said
	sed -i '/^recover .* [0-9]*[.]/d' "$EVENTS"
	seq 300 | once_each recover CREATE
	[ "$herald" = "$(herald_of a)" ]
}

@test "holes 10: stopped for longer than 10 s it is replaced, and each event comes once" {
	watch recover
	herald=$(herald_of a)
	kill -STOP "$herald"
	seq 300 | batch submit
	[ "$(listed recover)" = 300 ]
	wait_for 20 gone "$herald"
	wait_for 20 owes 0
	catch_up
	seq 300 | once_each recover CREATE
}

@test "slow: the load does not wait for it, and each event comes once" {
	watch recover
	herald=$(herald_of a)
	(
		while [ ! -e enough ] && kill -STOP "$herald"; do
			sleep 0.1
			kill -CONT "$herald"
			sleep 0.01
		done
	) 3>&- &
	run_load 30
	: >enough
	wait $!
	all_is_said
	load_was_heard 30
}

# ---- Scripts, and the usual watchers ----

# Submit COUNT keys, in bursts of random length with random pauses; a line "KEY
# SECONDS" of the moment before goes to the file "given", as that of WORK to "worked".
random_load() { # COUNT
	local n=0 i burst
	while ((n < $1)); do
		burst=$((RANDOM % 8 + 1))
		for ((i = 0; i < burst && n < $1; i++)); do
			echo "$((++n)) $EPOCHREALTIME" >>given
			: >"$M/submit/$n"
		done
		sleep "0.$((RANDOM % 3))$((RANDOM % 10))"
	done
}

# All that was given is done, once, and none later than SECONDS after.
done_within() { # SECONDS
	wait_for 30 empty keys
	sort given | join - <(sort worked) | awk -v max="$1" '
		$3 - $2 > max { print "too late:", $0; bad = 1 } END { exit bad }'
	diff <(cut -d" " -f1 given | sort) <(cut -d" " -f1 worked | sort)
}

# shellcheck disable=SC2016
WORK='echo "$1 $(date +%s.%N)" >>worked'

@test "arm, list, work, wait: the script of the manual is never late" {
	need inotifywait getfattr
	echo "# seed $SEED" >&3
	other setsid sh "$BATS_TEST_DIRNAME/../man/recover.sh" "$M" \
		sh -c "$WORK" work
	random_load 60
	done_within $((5 * PATIENCE))
	ringfs umount "$M"
	wait_for 10 gone "${OTHERS[-1]}"
	start_node a
}

@test "list, work, wait with a limit: the one-shot form loses nothing" {
	need inotifywait
	echo "# seed $SEED" >&3
	worker() {
		while [ -d "$M/recover" ]; do
			for k in "$M"/recover/*; do
				k=${k##*/}
				mv "$M/recover/$k" "$M/owned/" 2>/dev/null || continue
				sh -c "$WORK" work "$k" && rm "$M/owned/$k"
			done
			inotifywait -qq -t 2 -e create -e moved_to -e unmount \
				"$M/recover" || true
		done
	}
	worker 3>&- &
	random_load 60
	done_within $((5 * PATIENCE)) # 2, and what there is to do
	stop_node a
	wait $! || true
	start_node a
}

@test "a path unit with DirectoryNotEmpty: checked when armed, at events, and after each run" {
	need inotifywait
	echo "# seed $SEED" >&3
	: >"$M/submit/0" # before it is armed
	echo "0 $EPOCHREALTIME" >>given
	check() { # the service is run while there is something; it takes what it sees
		local k
		while ! empty recover; do
			for k in "$M"/recover/*; do
				k=${k##*/}
				mv "$M/recover/$k" "$M/owned/" &&
					sh -c "$WORK" work "$k" && rm "$M/owned/$k"
			done
		done
	}
	path_unit() {
		export RINGFS_TEST=$BATS_TEST_TMPDIR
		coproc inotifywait -m -e delete_self -e move_self -e attrib \
			-e create -e moved_to -e unmount "$M/recover" 2>&1
		local watcher=$COPROC_PID
		while read -r line; do
			case $line in
			*established*) check ;;
			*" CREATE "* | *" MOVED_TO "*) check ;;
			*UNMOUNT*) kill "$watcher" ;;
			esac
		done <&"${COPROC[0]}"
	}
	path_unit 3>&- &
	random_load 60
	done_within $((5 * PATIENCE))
	stop_node a
	wait $! || true
	start_node a
}

@test "inotifywait -m, with a format of its own, hears keys come and go" {
	need inotifywait
	other inotifywait -q -m -e create -e delete --format '%e %f' "$M/recover" \
		>heard
	# shellcheck disable=SC2016
	wait_for 10 sh -c ': >"$0/submit/arm$$"; sleep 0.05; [ -s heard ]' "$M"
	seq 100 | batch submit
	wait_for 10 grep -qx "CREATE 100" heard
	seq 100 | batch finish
	wait_for 10 grep -qx "DELETE 100" heard
	for e in CREATE DELETE; do
		diff <(seq 100) <(sed -n "/arm/d; s/^$e //p" heard)
	done
}

@test "fsnotifywait hears the herald, where fanotify can watch a FUSE mount" {
	need fsnotifywait root
	other fsnotifywait -m -e create -e delete --format '%e %f' "$M/recover" \
		>heard 2>said
	wait_for 10 grep -q . said
	if grep -qE "not supported|Invalid" said; then
		skip "this kernel's fanotify refuses FUSE: $(tail -n 1 said)"
	fi
	wait_for 10 grep -q established said
	batch submit <<<k
	wait_for 10 grep -qx "CREATE k" heard
	batch finish <<<k
	wait_for 10 grep -qx "DELETE k" heard
}

@test "entr runs its command when a note is written, and ends when a key comes" {
	need entr
	touch "$M/keys/k"
	echo "$M/owned/k" >files
	echo "$M/recover" >dirs
	other sh -c 'exec entr -nps "echo >>ran" <files'
	# It cannot say when it is armed. shellcheck disable=SC2016
	wait_for 10 sh -c 'echo note >"$0/owned/k"; sleep 0.1; [ -s ran ]' "$M"
	spawn sh -c 'exec entr -dnp true <dirs'
	for i in {1..50}; do
		: >"$M/submit/k$i"
		sleep 0.1
		! gone $! || break
	done
	run -2 wait $!
}

@test "tail -F of keys/K shows what is appended through owned/K" {
	echo one >"$M/keys/k"
	other tail -n +1 -F "$M/keys/k" >followed 2>/dev/null
	wait_for 10 grep -qx one followed
	echo two >>"$M/owned/k"
	wait_for 10 grep -qx two followed
	diff followed - <<<$'one\ntwo'
}
