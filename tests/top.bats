#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# ring, members, top: the tables for people, their documents for programs.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	export RINGFS=$M
	start_node a
}

@test "ring shows a line per node, with its share per cent" {
	touch "$M/keys/k1" "$M/keys/k2"
	run -0 --separate-stderr ringfs ring
	[ -z "$stderr" ]
	output_is <<-'EOT'
		NAME  VNODES  SHARE%  KEYS  WEIGHT  STATE
		a       4096  100.00     2     100  alive
	EOT
}

@test "ring --json has the same for programs" {
	need jq
	touch "$M/keys/k"
	run -0 --separate-stderr ringfs ring --json
	run -0 jq -c '[.vnodes, .unowned, .nodes[0].name, .nodes[0].vnodes,
		.nodes[0].share, .nodes[0].keys, .nodes[0].weight,
		.nodes[0].state]' <<<"$output"
	output_is <<<'[4096,0,"a",4096,100,1,100,"alive"]'
}

@test "ring --svg is the picture of status" {
	ringfs ring --svg >"$BATS_TEST_TMPDIR/svg"
	cmp "$BATS_TEST_TMPDIR/svg" "$M/status/ring.svg"
	run -64 --separate-stderr ringfs ring --svg --json
	[[ $stderr == *"--json and --svg are both given"* ]]
}

@test "vnodes that nobody owns have a line of their own" {
	stop_node a
	start_node a --weight 0
	[ "$(grep -cx 'vnodes 0' "$M/peers/a")" = 1 ] ||
		skip "the only node owns all, whatever its weight"
	run -0 ringfs ring
	output_is <<-'EOT'
		NAME  VNODES  SHARE%  KEYS  WEIGHT  STATE
		a          0    0.00     0       0  alive
		-       4096  100.00     -       -  -
	EOT
}

@test "members shows what is known of each node" {
	run -0 --separate-stderr ringfs members
	[ -z "$stderr" ]
	[ "$(head -n 1 <<<"$output" | tr -s ' ')" = \
		"NAME STATE ROLE WEIGHT KEYS SINCE VERSION ADDRESS" ]
	[[ ${lines[1]} =~ ^a\ +alive\ +voter\ +100\ +0\ +20[0-9-]+T[0-9:]+Z\ +[0-9.]+\ +127\.0\.0\.1:[0-9]+$ ]]
	[ "${#lines[@]}" = 2 ]
	need jq
	run -0 ringfs members --json
	run -0 jq -r '.nodes[].name' <<<"$output"
	output_is <<<a
}

@test "top is one frame where there is no terminal" {
	touch "$M/keys/k1" "$M/keys/k2"
	run -0 --separate-stderr ringfs top
	[ -z "$stderr" ]
	[ "${lines[0]}" = "ready: $(<"$M/status/reason")" ]
	[ "${lines[1]}" = "node a, leader a, mount $M" ]
	[ "${lines[2]}" = "keys 2, owned 2, recovering 0, releasing 0, parked 0" ]
	[[ $output != *$'\033'* ]]
	grep -qE '^all +2 ' <<<"$output"
	grep -qE '^per second +- ' <<<"$output"
	grep -qE '^a +4096 +100\.00 +2 ' <<<"$output"
	grep -qE 'Z +[0-9]+ +0 +claimed +k2$' <<<"$output"
	local want=$output
	run -0 ringfs top -n 1
	[ "$output" = "$want" ] # watch -d would mark nothing
}

@test "top shows rates from the second frame on" {
	spawn "$RINGFS_BIN" top -n 2 -d 2 >"$BATS_TEST_TMPDIR/frames"
	wait_for 10 grep -q '^per second' "$BATS_TEST_TMPDIR/frames"
	touch "$M/keys/k"{1..8}
	wait "$!"
	[ "$(grep -c '^EVENTS' "$BATS_TEST_TMPDIR/frames")" = 2 ]
	rate=$(awk '/^per second/ { r = $3 } END { print r }' \
		"$BATS_TEST_TMPDIR/frames")
	awk -v r="$rate" 'BEGIN { exit !(r > 0 && r <= 4.5) }' || fail "$rate"
}

@test "top shows the ten keys that were claimed first" {
	for i in {11..25}; do touch "$M/keys/k$i"; done
	echo note >"$M/owned/k11" # changes mtime, not the claim
	touch "$M/keys/x"$'\n'y
	run -0 ringfs top
	[ "$(sed '1,/^CLAIMED/d' <<<"$output" | awk '{ print $NF }')" = \
		"$(printf 'k%s\n' {11..20})" ]
}

@test "top draws over the last frame on a terminal, and ends with 0 at INT" {
	need script
	RINGFS_TEST=$BATS_TEST_TMPDIR TERM=xterm timeout -s INT --foreground 20 \
		script -qec "'$RINGFS_BIN' top -d 0.1 -n 3" /dev/null \
		>"$BATS_TEST_TMPDIR/screen" 3>&- </dev/null
	[ "$(grep -c $'\033\[H' "$BATS_TEST_TMPDIR/screen")" -ge 3 ]
	grep -q $'\033\[J' "$BATS_TEST_TMPDIR/screen"
	spawn "$RINGFS_BIN" top -n 1000 -d 5 >"$BATS_TEST_TMPDIR/frames"
	wait_for 10 grep -q OLDEST "$BATS_TEST_TMPDIR/frames"
	kill -INT "$!"
	wait "$!"
}

@test "top keeps nothing busy, and ends with 69 when the ring is unmounted" {
	spawn "$RINGFS_BIN" top -n 1000 -d 0.3 >"$BATS_TEST_TMPDIR/frames" \
		2>"$BATS_TEST_TMPDIR/errors"
	top=$!
	wait_for 10 grep -q OLDEST "$BATS_TEST_TMPDIR/frames"
	wait_for 10 fusermount3 -u "$M" # between two frames
	wait_for 10 gone "$(pid_of a)"
	wait "$(pid_of a)"
	rm "$BATS_TEST_TMPDIR/a.pid"
	local status=0
	wait_for 10 gone "$top"
	wait "$top" || status=$?
	((status == 69)) || fail "status $status"
	grep -q "^ringfs: top: '$M': " "$BATS_TEST_TMPDIR/errors"
}

@test "wrong use of ring, members and top is status 64, and no ring is 69" {
	for verb in ring members top; do
		run -64 ringfs "$verb" now
		run -64 ringfs "$verb" --no-such-option
		run -69 ringfs "$verb" -m /
	done
	run -64 ringfs top -d 0
	run -64 ringfs top -d 1x
	run -64 ringfs top -n 0
}

# ---- bash completion ----

COMPLETION=$BATS_TEST_DIRNAME/../fs/ringfs.bash-completion

# The answers, a line each, for a line that was typed up to its end.
completions() { # WORD...: the last is the current one
	# shellcheck disable=SC2016 # bash -c expands it
	RINGFS_TEST=$BATS_TEST_TMPDIR bash --norc -c '
		source "$0"
		COMP_WORDS=("$@")
		COMP_CWORD=$(($# - 1))
		COMP_LINE=$*
		COMP_POINT=${#COMP_LINE}
		_ringfs
		((${#COMPREPLY[@]} == 0)) || printf "%s\n" "${COMPREPLY[@]}" | sort
	' "$COMPLETION" "$RINGFS_BIN" "$@" 3>&-
}

# The same for names of keys, which a busy machine may not give within 200 ms.
completes() { # ANSWERS WORD...
	local want=$1
	shift
	[ "$(completions "$@")" = "$want" ]
}

@test "completion knows the verbs" {
	run -0 completions s
	output_is <<-'EOT'
		show
		status
		submit
	EOT
	run -0 completions ""
	for verb in mount umount work ring members top help version; do
		grep -qx "$verb" <<<"$output" || fail "$verb"
	done
	[[ $output != *herald* ]]
	run -0 completions help rou
	output_is <<<route
}

@test "completion knows the options of each verb" {
	run -0 completions work --
	output_is <<-'EOT'
		--attempts
		--help
		--jobs
		--mount
		--once
		--timeout
	EOT
	run -0 completions finish --f
	output_is <<<--force
	run -0 completions mount --op
	output_is <<<--op-timeout
}

@test "completion knows the keys of the ring that is meant" {
	touch "$M/keys/order-1" "$M/keys/order 2" "$M/keys/other" "$M/keys/-dash"
	wait_for 10 completes $'order 2\norder-1' show order
	wait_for 10 completes other finish oth
	wait_for 10 completes -dash finish -- -d
	run -0 completions claim o
	output_is <<<""
	unset RINGFS
	wait_for 10 completes other show -m "$M" ot
	cd "$M/keys"
	wait_for 10 completes other route ot
	cd /
}

# As bash cuts the word: user : 42 : m
colons_complete() {
	# shellcheck disable=SC2016
	[ "$(bash --norc -c 'source "$0"
		COMP_LINE="ringfs show user:42:m" COMP_POINT=21 COMP_CWORD=6
		COMP_WORDS=("$1" show user : 42 : m)
		_ringfs; printf "%s " "${COMPREPLY[@]}"
		COMP_LINE="ringfs show user:" COMP_POINT=17 COMP_CWORD=3
		COMP_WORDS=("$1" show user :)
		_ringfs; printf "%s\n" "${COMPREPLY[@]}" | sort | xargs' \
		"$COMPLETION" "$RINGFS_BIN")" = "mail 42:mail 43" ]
}

@test "completion of a name with colons gives what comes after them" {
	touch "$M/keys/user:42:mail" "$M/keys/user:43"
	wait_for 10 colons_complete
}

@test "completion does not wait for a daemon that is stopped" {
	touch "$M/keys/order-1"
	kill -STOP "$(pid_of a)"
	local begin=${EPOCHREALTIME/./}
	run -0 completions show ord
	output_is <<<""
	((${EPOCHREALTIME/./} - begin < 5000000))
	kill -CONT "$(pid_of a)"
}

type_it() {
	RINGFS_TEST=$BATS_TEST_TMPDIR TERM=dumb timeout 20 script -qec \
		'bash --norc -i' /dev/null <"$BATS_TEST_TMPDIR/typed" \
		>"$BATS_TEST_TMPDIR/screen" 2>&1 3>&-
	grep -q 'order\\ 1' "$BATS_TEST_TMPDIR/screen" &&
		grep -q '^note_bytes 0' "$BATS_TEST_TMPDIR/screen"
}

@test "completion works in an interactive bash" {
	need script
	touch "$M/keys/order 1"
	# A tab, then the name as readline quoted it.
	printf '%s\n' "source '$COMPLETION'" "PATH=$(dirname "$RINGFS_BIN"):\$PATH" \
		$'ringfs show or\t' exit >"$BATS_TEST_TMPDIR/typed"
	wait_for 20 type_it
}
