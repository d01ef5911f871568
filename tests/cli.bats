#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The command where no ring is mounted: help, usage, exit status, and which of
# stdout and stderr says what.
load helper

VERBS="mount umount status claim finish submit show route work members ring top"
VERBS+=" join drain resume leave forget keygen keys"

try() {
	printf "Try 'ringfs %s --help'" "$1"
}

# Run the program where no ring is mounted: others on this machine, that
# discovery would find, are out of sight.
without_rings() {
	grep -q ' - fuse\.ringfs ' /proc/self/mountinfo || {
		ringfs "$@"
		return
	}
	need root unshare
	# shellcheck disable=SC2016 # bash -c expands it
	unshare -m bash -c 'awk "/ - fuse\\.ringfs /{ print \$5 }" \
		/proc/self/mountinfo | xargs -r umount -l; exec "$0" "$@"' \
		"$RINGFS_BIN" "$@"
}

@test "every verb answers --help on stdout, with status 0 and three examples" {
	local verb n
	for verb in $VERBS; do
		run -0 --separate-stderr ringfs "$verb" --help
		[ -z "$stderr" ]
		[[ $output == "Usage: ringfs $verb "* ]]
		[[ $output == *$'\nExit status'* ]]
		n=$(sed '1,/^Examples:$/d' <<<"$output" | grep -c .)
		((n == 3)) || fail "$verb has $n examples"
	done
}

@test "help VERB says what VERB --help says" {
	local verb want
	for verb in $VERBS; do
		want=$(ringfs "$verb" -h)
		run -0 ringfs help "$verb"
		[ "$output" = "$want" ]
	done
}

@test "every line of every help fits in 72 columns" {
	local verb
	for verb in $VERBS; do
		run -0 ringfs help "$verb"
		run ! grep -E '.{73}' <<<"$output"
	done
}

@test "help lists the verbs, and the hidden one not" {
	local verb
	run -0 --separate-stderr ringfs help
	[ -z "$stderr" ]
	for verb in $VERBS help version; do
		grep -q "^  $verb  *[a-z]" <<<"$output" || fail "$verb"
	done
	[[ $output != *herald* ]]
	local want=$output
	run -0 ringfs --help
	[ "$output" = "$want" ]
	run -0 ringfs -h
	[ "$output" = "$want" ]
}

@test "version is one line" {
	run -0 --separate-stderr ringfs version
	[[ $output =~ ^ringfs\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
	[ -z "$stderr" ]
	local want=$output
	run -0 ringfs --version
	[ "$output" = "$want" ]
}

@test "no verb, or none that is known, is status 64 and nothing on stdout" {
	run -64 --separate-stderr ringfs
	[ -z "$output" ]
	[[ $stderr == "Usage: ringfs VERB "* ]]
	run -64 --separate-stderr ringfs brew
	[ -z "$output" ]
	[ "$stderr" = "ringfs: 'brew': no such verb
Try 'ringfs --help'" ]
	run -64 --separate-stderr ringfs -m /mnt status
	[ "${stderr%%$'\n'*}" = "ringfs: '-m': no such verb; options come after the verb" ]
	run -64 ringfs help brew
	run -64 ringfs help herald
	run -64 ringfs version now
}

@test "a wrong option is one sentence and the way to the help" {
	local verb
	for verb in $VERBS; do
		run -64 --separate-stderr ringfs "$verb" --no-such-option
		[ -z "$output" ]
		[ "$stderr" = "ringfs: $verb: unrecognized option '--no-such-option'
$(try "$verb")" ]
	done
}

@test "missing and superfluous arguments are status 64" {
	local verb
	for verb in umount claim finish submit show route mount; do
		run -64 --separate-stderr ringfs "$verb"
		[ -z "$output" ]
		[ "${stderr##*$'\n'}" = "$(try "$verb")" ]
	done
	for verb in umount submit show route mount; do
		run -64 ringfs "$verb" a b
	done
	run -64 ringfs status now
	run -64 ringfs finish --token 1 a b
	run -64 ringfs finish --token x a
	run -64 ringfs finish --token 0 a
	run -64 ringfs submit --note a --note-file b c
	run -64 ringfs umount --timeout 0 "$BATS_TEST_TMPDIR"
	run -64 ringfs umount --timeout 1x "$BATS_TEST_TMPDIR"
}

@test "names that no key can have are refused before anything is looked for" {
	local verb long
	long=$(printf 'k%.0s' {1..256})
	for verb in claim finish submit show route; do
		for name in '' .hidden a/b "$long"; do
			run -64 --separate-stderr ringfs "$verb" -m / -- "$name"
			[[ $stderr == *"name"*"Try 'ringfs $verb --help'" ]]
		done
		run -69 ringfs "$verb" -m / -- "${long%k}"
	done
}

@test "a note over 65536 bytes is refused, one of 65536 is not" {
	head -c 65537 /dev/zero >"$BATS_TEST_TMPDIR/long"
	head -c 65536 /dev/zero >"$BATS_TEST_TMPDIR/longest"
	run -64 --separate-stderr ringfs submit -m / \
		--note-file "$BATS_TEST_TMPDIR/long" K
	[[ $stderr == *"the note is longer than 65536 bytes"* ]]
	run -69 ringfs submit -m / --note-file "$BATS_TEST_TMPDIR/longest" K
	run -69 ringfs submit -m / --note-file - K <"$BATS_TEST_TMPDIR/longest"
	run -71 --separate-stderr ringfs submit -m / --note-file /nonexistent K
	[ "$stderr" = "ringfs: submit: --note-file /nonexistent: No such file or directory" ]
}

@test "where no ring is mounted, -m and RINGFS say so with status 69" {
	local dir=$BATS_TEST_TMPDIR
	run -69 --separate-stderr ringfs claim -m "$dir" K
	[ -z "$output" ]
	[ "$stderr" = "ringfs: claim: '$dir': no ringfs is mounted here" ]
	run -69 --separate-stderr ringfs route -m "$dir/none" K
	[ "$stderr" = "ringfs: route: '$dir/none': No such file or directory" ]
	RINGFS=$dir run -69 --separate-stderr ringfs show K
	[ "$stderr" = "ringfs: show: RINGFS='$dir': no ringfs is mounted here" ]
	run -69 --separate-stderr ringfs umount "$dir"
	[ "$stderr" = "ringfs: umount: '$dir': no ringfs is mounted here" ]
}

@test "status is down, with status 69, where there is no ring" {
	run -69 --separate-stderr ringfs status -m "$BATS_TEST_TMPDIR"
	[ "$output" = down ]
	[[ $stderr == "ringfs: status: "* ]]
	need jq
	run -69 --separate-stderr ringfs status -m "$BATS_TEST_TMPDIR" --json
	[ "$(jq -r .word <<<"$output")" = down ]
}

@test "without -m and RINGFS a machine without rings says how to start one" {
	cd "$BATS_TEST_TMPDIR"
	unset RINGFS
	run -69 --separate-stderr without_rings claim K
	[ "$stderr" = "ringfs: claim: no ringfs is mounted; start one with: ringfs mount DIR" ]
}

@test "an answer that cannot be written is an error" {
	[ -c /dev/full ] || skip "/dev/full is missing"
	# shellcheck disable=SC2016 # bash -c expands it
	run -71 --separate-stderr bash -c '"$0" version >/dev/full' "$RINGFS_BIN"
	[ "$stderr" = "ringfs: cannot write the answer: No space left on device" ]
}

@test "closed standard descriptors do no harm" {
	# shellcheck disable=SC2016 # bash -c expands it
	run -0 bash -c '"$0" version 2>&- <&-' "$RINGFS_BIN"
	# shellcheck disable=SC2016
	run -64 bash -c '"$0" brew <&- >&- 2>&-' "$RINGFS_BIN"
}

@test "mount refuses bad options by name, with the range" {
	run -64 --separate-stderr ringfs mount --vnodes 100 mnt
	[ "$stderr" = "ringfs: mount: --vnodes 100: must be a power of two, 16 to 65536
$(try mount)" ]
	printf 'name = n1\nvnode = 64\n' >"$BATS_TEST_TMPDIR/conf"
	run -78 --separate-stderr ringfs mount --config "$BATS_TEST_TMPDIR/conf" mnt
	[ "$stderr" = "ringfs: mount: $BATS_TEST_TMPDIR/conf:2: vnode: unknown option" ]
	printf 'name = n1\n[ring]\n' >"$BATS_TEST_TMPDIR/conf"
	run -78 --separate-stderr ringfs mount --config "$BATS_TEST_TMPDIR/conf" mnt
	[ "$stderr" = "ringfs: mount: $BATS_TEST_TMPDIR/conf:2: section [ring]: there are none" ]
}

@test "called as mount.ringfs it has the manners of mount(8)" {
	local helper=$BATS_TEST_TMPDIR/mount.ringfs
	ln -s "$RINGFS_BIN" "$helper"
	run -64 --separate-stderr "$helper"
	[[ $stderr == "Usage: mount.ringfs SOURCE DIR "* ]]
	run -64 --separate-stderr "$helper" ring mnt -o rw,nosuch=1
	[ "${stderr%%$'\n'*}" = "ringfs: mount: -o nosuch: unknown option" ]
	run -64 --separate-stderr "$helper" ring mnt -s -o rw,nosuch=1,weight=x
	[ "${stderr%%$'\n'*}" = "ringfs: mount: -o weight=x: must be 0 to 10000" ]
	run -0 "$helper" ring mnt -f -n -v -o rw,noauto # -f: fake
	run -71 --separate-stderr "$helper" ring mnt -N /nonexistent
	[[ $stderr == "ringfs: mount: cannot enter namespace '/nonexistent': "* ]]
}
