#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What watchers hear: above all of changes that their own machine's kernel did
# not make.

load helper

local_setup() {
	need fuse inotifywait
	M=$BATS_TEST_TMPDIR/a/mnt
	EVENTS=$BATS_TEST_TMPDIR/events
	start_node a
}

local_teardown() {
	for pid in "${WATCHERS[@]}"; do kill "$pid" 2>/dev/null || true; done
}

watch() { # DIR...: events appear in $EVENTS as "DIR EVENT NAME"
	spawn inotifywait -m -e create -e delete -e moved_to -e moved_from \
		-e modify -e unmount --format '%w %e %f' "${@/#/$M/}" \
		>>"$EVENTS" 2>"$BATS_TEST_TMPDIR/watch"
	WATCHERS+=($!)
	wait_for 10 grep -q established "$BATS_TEST_TMPDIR/watch"
}

heard() { # DIR EVENT NAME
	grep -qxF "$M/$1/ $2 $3" "$EVENTS"
}

count() { # DIR EVENT NAME
	grep -cxF "$M/$1/ $2 $3" "$EVENTS" || true
}

@test "a claim in keys raises CREATE in owned, once" {
	watch keys owned
	touch "$M/keys/k"
	wait_for 10 heard keys CREATE k
	wait_for 10 heard owned CREATE k
	touch "$M/keys/end"
	wait_for 10 heard owned CREATE end
	[ "$(count owned CREATE k)" = 1 ]
	[ "$(count keys CREATE k)" = 1 ]
}

@test "rm in owned raises DELETE in keys, and rm in keys in owned" {
	touch "$M/keys/a" "$M/keys/b"
	watch keys owned
	rm "$M/owned/a"
	wait_for 10 heard keys DELETE a
	rm "$M/keys/b"
	wait_for 10 heard owned DELETE b
	[ "$(count keys DELETE b)" = 1 ]
}

@test "a taken key moves from recover to owned" {
	touch "$M/keys/k"
	stop_node a
	start_node a
	watch recover owned
	mv "$M/recover/k" "$M/owned/"
	wait_for 10 heard recover MOVED_FROM k
	wait_for 10 heard owned MOVED_TO k
	[ "$(count owned CREATE k)" = 0 ]
}

@test "a key given back raises CREATE in recover when it is offered again" {
	touch "$M/keys/k"
	stop_node a
	start_node a
	mv "$M/recover/k" "$M/owned/"
	watch recover
	mv "$M/owned/k" "$M/recover/"
	wait_for 10 heard recover CREATE k
	[ -e "$M/recover/k" ]
}

@test "a submitted key raises CREATE in recover and in keys" {
	watch recover keys
	echo work >"$M/submit/job"
	wait_for 10 heard recover CREATE job
	wait_for 10 heard keys CREATE job
	[ "$(<"$M/recover/job")" = work ]
}

@test "a parked and retried key is heard in parked and in recover" {
	touch "$M/keys/k"
	watch owned parked recover
	mv "$M/owned/k" "$M/parked/"
	wait_for 10 heard parked MOVED_TO k
	mv "$M/parked/k" "$M/recover/"
	wait_for 10 heard recover MOVED_TO k
}

@test "a batch of a thousand claims is heard whole in owned" {
	watch owned
	exec 8<>"$M/ctl"
	{ echo claim && seq 1000; } >&8
	cat <&8 >/dev/null
	exec 8>&-
	wait_for 10 heard owned CREATE 1000
	[ "$(grep -c ' CREATE ' "$EVENTS")" = 1000 ]
	for i in 1 500 999; do heard owned CREATE $i; done
}

@test "the name is there when its event arrives" {
	spawn inotifywait -m -q -e create --format '%f' "$M/owned" \
		>"$EVENTS" 2>"$BATS_TEST_TMPDIR/watch"
	WATCHERS+=($!)
	for i in {1..100}; do
		echo "$i" >"$M/submit/k$i"
		wait_for 10 test -e "$M/recover/k$i" # the last close is not waited for
		mv -T "$M/recover/k$i" "$M/owned/k$i"
		[ "$(<"$M/owned/k$i")" = "$i" ]
	done
}

@test "refused and failed operations are silent" {
	touch "$M/keys/k"
	watch keys owned recover parked
	run -1 touch "$M/keys/k"
	run -1 rm "$M/keys/none"
	run -1 touch "$M/owned/none"
	run -1 touch "$M/recover/none"
	cat "$M/keys/k" "$M/owned/k" >/dev/null
	ls -lR "$M" >/dev/null
	touch "$M/keys/end"
	wait_for 10 heard owned CREATE end
	run -0 grep -v ' CREATE end$' "$EVENTS" || [ -z "$output" ]
}

@test "without the herald the listing is right and the event comes later" {
	watch owned
	herald=$(herald_of a)
	kill -STOP "$herald"
	touch "$M/keys/k"
	[ -e "$M/owned/k" ]
	run -0 ls "$M/owned"
	output_is <<<k
	sleep 0.3 # the negative control: nothing else may raise it
	! heard owned CREATE k || fail "heard without the herald"
	kill -CONT "$herald"
	wait_for 10 heard owned CREATE k
}

@test "a killed herald is replaced, and what it owed is announced" {
	watch owned
	herald=$(herald_of a)
	kill -STOP "$herald"
	touch "$M/keys/k"
	kill -KILL "$herald"
	wait_for 10 heard owned CREATE k
	[ "$(herald_of a)" != "$herald" ]
	touch "$M/keys/l"
	wait_for 10 heard owned CREATE l
}

@test "nobody but the herald may make or remove what it announces" {
	touch "$M/keys/k"
	for d in owned recover release parked; do
		run -1 touch "$M/$d/mine"
		[[ $output == *"Operation not permitted" ]] || fail "$d: $output"
	done
	run -1 rm "$M/peers/a"
	run -1 rm "$M/status/state"
}

@test "watchers hear the unmount when the daemon is killed" {
	watch recover
	crash_node a
	wait_for 10 heard recover UNMOUNT,ISDIR ""
}

@test "the one-shot form of the manual wakes for a key in recover" {
	spawn inotifywait -qq -t 30 -e create -e moved_to -e unmount "$M/recover"
	watcher=$!
	WATCHERS+=("$watcher")
	for i in {1..200}; do # each is a new key: the watch may not be armed yet
		touch "$M/submit/k$i"
		sleep 0.05
		! gone "$watcher" || break
	done
	wait "$watcher"
}
