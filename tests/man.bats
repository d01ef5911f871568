#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The EXAMPLES of the manual, run as they are printed. In a literal display "$ "
# begins a command, "> " goes on with it, and what follows is all that it says,
# where "..." stands for anything. A display behind the comment `file: NAME` is
# that file; others are not allowed there.

load helper

local_setup() {
	need fuse
	MAN=$BATS_TEST_DIRNAME/../man
	HOME=$BATS_TEST_TMPDIR/home
	export HOME
	mkdir -p "$HOME/bin" "$HOME/ring"
	PATH=$HOME/bin:$PATH
	# Any port is as good as the manual's, and these may be anything.
	cat >"$HOME/bin/ringfs" <<-'EOT'
		#!/bin/bash
		[ "$1" != mount ] || set -- mount --bind 127.0.0.1:0 "${@:2}"
		exec "$RINGFS_BIN" "$@" 3>&-
	EOT
	for command in ship work; do
		printf '#!/bin/sh\n' >"$HOME/bin/$command"
	done
	chmod +x "$HOME"/bin/*
	unset -f ringfs # the helper's
	export RINGFS_TEST=$BATS_TEST_TMPDIR
	cd "$HOME" || return
}

local_teardown() {
	cd /
	mounts | while read -r dir; do "$RINGFS_BIN" umount "$dir"; done
}

# One line each: "file NAME", "text LINE", "begin COMMAND", "more COMMAND", "says
# LINE", or "bad LINE" for what is none of these.
examples() { # PAGE
	awk '
		/^\.Sh / { inside = $2 == "EXAMPLES" }
		!inside { next }
		/^\.\\" file: / { name = $3; next }
		/^\.Bd -literal/ {
			literal = 1
			kind = name != "" ? "text" : ""
			if (kind != "") print "file", name
			name = ""
			next
		}
		/^\.Ed/ { literal = 0; next }
		/^\.Dl/ { print "bad", $0; next }
		!literal { next }
		{ gsub(/\\&/, ""); gsub(/\\-/, "-"); gsub(/\\e/, "\\") }
		kind == "text" { print "text", $0; next }
		/^\$ / { print "begin", substr($0, 3); kind = "says"; next }
		/^>[ \t]/ && kind != "" { print "more", substr($0, 2); next }
		{ print kind == "" ? "bad" : "says", $0 }
	' "$1"
}

# Run $COMMAND, if there is one: it must say $SAYS.
play_one() {
	[ -n "${COMMAND-}" ] || return 0
	eval "$COMMAND" >"$BATS_TEST_TMPDIR/out" 2>&1 9<&- || true
	GOT=$(sed "s|$HOME|/home/ann|g" "$BATS_TEST_TMPDIR/out")
	local pattern
	pattern=$(sed 's/[][*?\\]/\\&/g; s/[.][.][.]/*/g' <<<"$SAYS")
	# shellcheck disable=SC2053
	[[ $GOT == $pattern ]] || {
		printf '$ %s\n' "$COMMAND" >&2
		diff -u --label manual --label here <(echo "$SAYS") \
			<(echo "$GOT") >&2
		return 1
	}
	COMMAND='' SAYS=''
}

play() { # PAGE
	local kind line file n=0
	examples "$MAN/$1" >"$BATS_TEST_TMPDIR/examples"
	while IFS= read -r -u 9 line; do
		kind=${line%% *} line=${line#"${line%% *}"}
		line=${line# }
		case $kind in
		begin)
			play_one || return
			COMMAND=$line
			((++n))
			;;
		more) COMMAND+=$'\n'$line ;;
		says) SAYS+=${SAYS:+$'\n'}$line ;;
		file)
			play_one || return
			file=$HOME/$line
			: >"$file"
			;;
		text) printf '%s\n' "$line" >>"$file" ;;
		*) fail "$1: neither transcript nor file: $line" ;;
		esac
	done 9<"$BATS_TEST_TMPDIR/examples"
	play_one || return
	((n > 0)) || fail "$1 has no transcript"
}

mount_ring() { # a node n1, with room for the examples
	"$RINGFS_BIN" mount --name n1 --state "$HOME/state" \
		--bind 127.0.0.1:0 "$HOME/ring" 3>&-
}

@test "each page of the manual has EXAMPLES that are played here" {
	for page in "$MAN"/*.[1-8]; do
		grep -q "^	play ${page##*/}\$" "$BATS_TEST_FILENAME" ||
			fail "${page##*/} is not played"
	done
}

@test "ringfs(1)" {
	play ringfs.1
}

@test "the line for fstab in ringfs(1) mounts" {
	need mount
	examples "$MAN/ringfs.1" | sed -n '/^file fstab/,/^[^t]/s/^text //p' |
		sed "s|/srv/ring|$HOME/ring|; s|/var/lib/ringfs|$HOME/state|" >fstab
	read -r what where type options _ <fstab
	[ "$type" = ringfs ]
	ln -s "$RINGFS_BIN" bin/mount.ringfs
	bin/mount.ringfs "$what" "$where" -o "$options,bind=127.0.0.1:0" 3>&-
	is_mounted "$HOME/ring"
	# Or `mount -a` would mount it again.
	[ "$(findmnt -no SOURCE "$HOME/ring")" = "$what" ]
}

@test "the unit for systemd in ringfs(1) says READY" {
	examples "$MAN/ringfs.1" | sed -n '/^file ringfs.service/,/^[^t]/p' >unit
	command=$(sed -n 's/^text ExecStart=[^ ]*//p' unit)
	grep -qx 'text Type=notify' unit
	spawn "$TOOLS/listen" "$HOME/notify" >said
	wait_for 10 test -S notify
	# shellcheck disable=SC2086
	NOTIFY_SOCKET=$HOME/notify spawn ringfs ${command//"/srv/ring"/"--state state ring"} \
		</dev/null 2>log
	wait_for 10 grep -qx READY=1 said
	"$RINGFS_BIN" umount ring
	wait $!
}

@test "ringfs-tree(5)" {
	mount_ring
	cd ring
	play ringfs-tree.5
}

@test "ringfs.conf(5)" {
	play ringfs.conf.5
}

@test "ringfs(7), with the script that it prints" {
	need inotifywait getfattr
	play ringfs.7
	diff <(sed '2,/^ring=/{/^#/d}' "$MAN/recover.sh") recover.sh
}
