#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Who may do what: another user, a member of the group, the mount's owner. The
# users are bare numbers; no account is made for them.

load helper

STRANGER=12345
MEMBER=12346
COLLEAGUE=12347
OWNER=12348
GROUP=23456

local_setup() {
	need fuse root setpriv
	M=$BATS_TEST_TMPDIR/a/mnt
	cd "$BATS_TEST_TMPDIR" || return
	chmod o+x "$BATS_RUN_TMPDIR" # the others come through here
}

local_teardown() {
	cd /
}

WHERE=() # what enters the mount's namespace, if it has one of its own

as() { # UID COMMAND...
	local uid=$1
	shift
	"${WHERE[@]}" setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
}

as_member() { # UID COMMAND...
	local uid=$1
	shift
	"${WHERE[@]}" setpriv --reuid "$uid" --regid "$uid" --groups "$GROUP" "$@"
}

# The command must fail with STATUS, its last line must end with TEXT.
refused() { # STATUS TEXT COMMAND...
	local status=$1 text=$2
	shift 2
	run "-$status" "$@" </dev/null
	[[ $output == *": $text" ]] || fail "$*: $output"
}

names() { # DIR
	(cd "$M" && ls "$1")
}

is_listed() { # DIR NAME
	names "$1" | grep -qxF -- "$2"
}

owner_of() { # FILE
	stat -c %u:%g "$1"
}

@test "without --allow-other the kernel keeps other users out" {
	start_node a
	touch "$M/keys/k"
	refused 2 "Permission denied" as "$STRANGER" ls "$M"
	refused 1 "Permission denied" as "$STRANGER" cat "$M/keys/k"
	refused 1 "Permission denied" as "$STRANGER" touch "$M/keys/l"
	[ "$(names keys)" = k ]
}

@test "with --allow-other another user reads everything and changes nothing" {
	start_node a --allow-other
	echo note >"$M/keys/k"
	[ "$(as "$STRANGER" cat "$M/keys/k")" = note ]
	[ "$(as "$STRANGER" cat "$M/status/state")" = ready ]
	as "$STRANGER" ls -lR "$M" >/dev/null
	as "$STRANGER" grep -r . "$M" >/dev/null
	as "$STRANGER" flock -n "$M/keys/k" true
	for command in "touch $M/keys/new" "touch $M/submit/new" \
		"rm -f $M/keys/k" "rm -f $M/owned/k" "mv $M/owned/k $M/recover/" \
		"mv $M/owned/k $M/parked/" "cp /dev/null $M/owned/k" \
		"touch $M/keys/k" "truncate -s 0 $M/owned/k" "cp /dev/null $M/ctl"; do
		refused 1 "Permission denied" as "$STRANGER" $command
	done
	[ "$(names keys)" = k ]
	[ "$(<"$M/owned/k")" = note ]
}

@test "the facts of a key can be read by everybody, and set by nobody" {
	start_node a --allow-other
	touch "$M/keys/k"
	run -0 as "$STRANGER" getfattr --absolute-names --only-values \
		-n user.ring.holder "$M/keys/k"
	[ "$output" = a ]
	as "$STRANGER" getfattr --absolute-names -d "$M/keys/k" |
		grep -q '^user.ring.token='
	refused 1 "Permission denied" as "$STRANGER" \
		setfattr -n user.ring.token -v 1 "$M/keys/k"
	refused 1 "Operation not permitted" \
		setfattr -n user.ring.token -v 1 "$M/keys/k"
}

@test "directories are 0755, with --group 0775 and the group's, never sticky" {
	start_node a --allow-other
	for d in keys owned recover release parked submit; do
		[ "$(stat -c %a:%u:%g "$M/$d")" = 755:0:0 ]
	done
	touch "$M/keys/k"
	[ "$(stat -c %a "$M/keys/k")" = 644 ]
	[ "$(stat -c %a:%u:%g "$M/ctl")" = 644:0:0 ]
	stop_node a
	start_node a --group "$GROUP"
	for d in keys owned recover release parked submit; do
		[ "$(stat -c %a:%u:%g "$M/$d")" = "775:0:$GROUP" ]
	done
	[ "$(stat -c %a "$M/status")" = 755 ]
	[ "$(stat -c %a:%u:%g "$M/ctl")" = "664:0:$GROUP" ]
	[ "$(stat -c %a "$M/recover/k")" = 644 ]
}

@test "a member of the group claims, and works on what is his" {
	start_node a --group "$GROUP"
	as_member "$MEMBER" touch "$M/keys/k"
	[ "$(owner_of "$M/keys/k")" = "$MEMBER:$MEMBER" ]
	as_member "$MEMBER" sh -c 'echo note >"$1"' - "$M/owned/k"
	[ "$(<"$M/keys/k")" = note ]
	as_member "$MEMBER" mv "$M/owned/k" "$M/parked/"
	as_member "$MEMBER" mv "$M/parked/k" "$M/recover/"
	as_member "$MEMBER" mv "$M/recover/k" "$M/owned/"
	as_member "$MEMBER" sh -c 'echo again >>"$1"' - "$M/owned/k"
	as_member "$MEMBER" rm "$M/owned/k"
	[ -z "$(names keys)" ]
	refused 1 "Permission denied" as "$STRANGER" touch "$M/keys/k"
}

@test "a member may not finish, move or write what is another's" {
	start_node a --group "$GROUP"
	as_member "$MEMBER" touch "$M/keys/k"
	for command in "rm -f $M/keys/k" "rm -f $M/owned/k" \
		"mv $M/owned/k $M/recover/" "mv $M/owned/k $M/parked/"; do
		refused 1 "Operation not permitted" as_member "$COLLEAGUE" $command
	done
	for command in "cp /dev/null $M/owned/k" "touch $M/keys/k" \
		"touch $M/owned/k"; do
		refused 1 "Permission denied" as_member "$COLLEAGUE" $command
	done
	[ "$(owner_of "$M/owned/k")" = "$MEMBER:$MEMBER" ]
	stop_node a
	start_node a --group "$GROUP"
	for command in "rm -f $M/recover/k" "mv $M/recover/k $M/owned/" \
		"mv $M/recover/k $M/parked/"; do
		refused 1 "Operation not permitted" as_member "$COLLEAGUE" $command
	done
	is_listed recover k
}

# A batch from standard input, as a member; the answers.
batch_of() { # UID
	as_member "$1" bash -c 'exec 8<>"$1"; cat >&8; cat <&8' - "$M/ctl"
}

@test "a member has ctl, for what is his" {
	start_node a --group "$GROUP"
	run -0 batch_of "$MEMBER" <<<$'claim\nk1\nk2\nk3'
	output_is <<<$'ok k1\nok k2\nok k3'
	[ "$(owner_of "$M/keys/k1")" = "$MEMBER:$MEMBER" ]
	touch "$M/keys/root"
	token=$(getfattr --absolute-names --only-values -n user.ring.token \
		"$M/keys/k3")
	run -0 batch_of "$COLLEAGUE" <<<"claim k1
finish k1
finish root
give-at $token k3
park-at $token k3
claim k4"
	output_is <<-'EOT'
		EEXIST k1
		EPERM k1
		EPERM root
		EPERM k3
		EPERM k3
		ok k4
	EOT
	refused 1 "Operation not permitted" as_member "$COLLEAGUE" \
		bash -c 'echo "finish k2" >"$0"' "$M/ctl"
	refused 1 "Permission denied" as "$STRANGER" \
		bash -c 'echo "claim l" >"$0"' "$M/ctl"
	run -0 batch_of "$MEMBER" <<<"finish k1
park-at $token k3"
	output_is <<<$'ok k1\nok k3'
	run -0 names keys
	output_is <<<$'k2\nk3\nk4\nroot'
}

@test "a member submits with touch, cp -p and install" {
	start_node a --group "$GROUP"
	echo note >file
	as_member "$MEMBER" touch "$M/submit/k1"
	as_member "$MEMBER" cp -p file "$M/submit/k2"
	as_member "$MEMBER" install -m 644 file "$M/submit/k3"
	for k in k1 k2 k3; do wait_for 10 is_listed recover "$k"; done
	[ "$(<"$M/recover/k3")" = note ]
}

@test "root finishes, moves and writes what anybody claimed" {
	start_node a --group "$GROUP"
	as_member "$MEMBER" touch "$M/keys/k1" "$M/keys/k2"
	echo note >"$M/owned/k1"
	[ "$(owner_of "$M/owned/k1")" = "$MEMBER:$MEMBER" ]
	mv "$M/owned/k1" "$M/parked/"
	rm "$M/parked/k1" "$M/keys/k2"
	[ -z "$(names keys)" ]
}

@test "an offered key is the mount owner's, a taken one is his who took it" {
	start_node a --group "$GROUP"
	as_member "$MEMBER" touch "$M/keys/k1" "$M/keys/k2"
	stop_node a
	start_node a --group "$GROUP"
	[ "$(owner_of "$M/recover/k1")" = "0:$GROUP" ]
	[ "$(owner_of "$M/keys/k1")" = "0:$GROUP" ]
	as_member "$MEMBER" mv "$M/recover/k1" "$M/owned/"
	[ "$(owner_of "$M/owned/k1")" = "$MEMBER:$MEMBER" ]
	mv "$M/recover/k2" "$M/owned/"
	[ "$(owner_of "$M/keys/k2")" = 0:0 ]
	refused 1 "Operation not permitted" as_member "$MEMBER" rm -f "$M/owned/k2"
}

# A mount that is not root's, in a mount namespace of its own: there users may
# open /dev/fuse and let others in, and the owner has the account that fusermount3
# asks for.
start_owned() { # [ARG...]
	mkdir -p a/mnt
	install -m 755 "$RINGFS_BIN" program
	chown -R "$OWNER:$OWNER" a
	chmod 1777 log
	echo user_allow_other >fuse.conf
	cp /etc/passwd passwd
	echo "owner:x:$OWNER:$OWNER::/:/bin/sh" >>passwd
	spawn unshare --mount --propagation private sh -c '
		mount -t tmpfs -o mode=755 none /mnt &&
		mknod -m 666 /mnt/fuse c 10 229 &&
		mount --bind /mnt/fuse /dev/fuse &&
		mount --bind fuse.conf /etc/fuse.conf &&
		mount --bind passwd /etc/passwd &&
		exec "$@"' - setpriv --reuid "$OWNER" --regid "$OWNER" \
		--clear-groups "$PWD/program" mount -f --state "$PWD/a/state" \
		--name a --bind 127.0.0.1:0 "$@" "$M" </dev/null \
		>>"$(log_of a)" 2>&1
	echo $! >a.pid
	WHERE=(nsenter -t $! -m --wdns="$PWD")
	wait_for 10 as "$OWNER" grep -qx ready "$M/status/state"
}

can_own() {
	need unshare nsenter
	unshare --mount --propagation private sh -c '
		mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 &&
		mount --bind /mnt/fuse /dev/fuse && test -e /etc/fuse.conf &&
		: <>/dev/fuse && test -u "$(command -v fusermount3)"' 2>/dev/null ||
		skip "this machine makes no mount namespace with a /dev/fuse"
}

@test "a user who is not root mounts, works, and keeps even root out" {
	can_own
	start_owned
	as "$OWNER" touch "$M/keys/k"
	[ "$(as "$OWNER" stat -c %u:%g "$M/owned/k")" = "$OWNER:$OWNER" ]
	as "$OWNER" sh -c 'echo note >"$1"' - "$M/owned/k"
	[ "$(as "$OWNER" cat "$M/keys/k")" = note ]
	refused 1 "Permission denied" "${WHERE[@]}" cat "$M/keys/k"
	refused 1 "Permission denied" "${WHERE[@]}" touch "$M/keys/root"
	as "$OWNER" mv "$M/owned/k" "$M/parked/"
	as "$OWNER" rm "$M/parked/k"
}

@test "the owner of a mount finishes and moves what a member claimed" {
	can_own
	start_owned --group "$GROUP"
	as_member "$MEMBER" touch "$M/keys/k1" "$M/keys/k2"
	as "$OWNER" rm -f "$M/owned/k1"
	# A note that another works on is not his, as in any directory of his.
	refused 1 "Permission denied" as "$OWNER" \
		cp /dev/null "$M/owned/k2"
	stop_node a
	start_owned --group "$GROUP"
	[ "$("${WHERE[@]}" stat -c %u:%g "$M/recover/k2")" = "$OWNER:$GROUP" ]
	as "$OWNER" mv "$M/recover/k2" "$M/owned/"
	as "$OWNER" sh -c 'echo mine >"$1"' - "$M/owned/k2"
	[ "$("${WHERE[@]}" cat "$M/keys/k2")" = mine ]
	as "$OWNER" rm "$M/owned/k2"
}
