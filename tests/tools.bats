#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What the stock tools do on a mount: which of them work, which are refused and
# with what message, and which of them finish a key.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	D=$BATS_TEST_TMPDIR/data
	mkdir "$D"
	cd "$D" || return
	echo "a note" >file
	touch -d "2001-02-03 04:05:06" file
	start_node a
}

local_teardown() {
	cd /
}

token() { # KEY: another life has another
	getfattr --absolute-names --only-values -n user.ring.token \
		"$M/keys/$1" 2>/dev/null
}

names() { # DIR: as ls, sorted by bytes
	(cd "$M" && ls "$1")
}

is_listed() { # DIR NAME
	names "$1" | grep -qxF -- "$2"
}

# The command must fail with STATUS, what it says must be standard input
# ("-": anything, where it names a random file), and key k must live on.
refused() { # STATUS COMMAND...
	local status=$1 before want
	shift
	want=$(cat)
	before=$(token k)
	run "-$status" "$@" </dev/null
	[ "$want" = - ] || output_is <<<"$want"
	[ "$(token k)" = "$before" ] || fail "$1 has finished k"
}

@test "cp, cp -p and cp -a into keys claim a key, with the file as its note" {
	cp file "$M/keys/plain"
	cp -p file "$M/keys/kept"
	cp -a file "$M/keys/all"
	for k in plain kept all; do cmp file "$M/owned/$k"; done
}

@test "cp onto a key that exists is refused, and its note stays" {
	echo mine >"$M/keys/k"
	refused 1 cp file "$M/keys/k" <<-EOT
		cp: cannot create regular file '$M/keys/k': File exists
	EOT
	refused 1 cp -p file "$M/keys/k" <<-EOT
		cp: cannot create regular file '$M/keys/k': File exists
	EOT
	[ "$(<"$M/keys/k")" = mine ]
}

@test "cp into owned replaces the note of a key that is held, and makes none" {
	echo mine >"$M/keys/k"
	cp file "$M/owned/k"
	cmp file "$M/keys/k"
	run -1 cp file "$M/owned/other"
	output_is <<-EOT
		cp: cannot create regular file '$M/owned/other': Operation not permitted
	EOT
}

@test "cp -a out of the mount keeps notes, times and attributes" {
	echo mine >"$M/keys/k"
	cp -a "$M/keys" copy
	diff -r "$M/keys" copy
	[ "$(stat -c %Y copy/k)" = "$(stat -c %Y "$M/keys/k")" ]
}

@test "install into keys claims a key, and into submit it submits one" {
	install file "$M/keys/k"
	cmp file "$M/owned/k"
	install -m 600 file "$M/keys/l"
	[ "$(stat -c %a "$M/keys/l")" = 644 ]
	install -m 644 file "$M/submit/job"
	wait_for 10 is_listed recover job
	cmp file "$M/recover/job"
}

@test "mv from elsewhere into keys claims, into submit submits, into owned fails" {
	cp file one
	cp file two
	mv one "$M/keys/"
	cmp file "$M/owned/one"
	mv two "$M/submit/"
	wait_for 10 is_listed recover two
	cmp file "$M/recover/two"
	[ ! -e one ] && [ ! -e two ]
	run -1 mv file "$M/owned/k"
	output_is <<-EOT
		mv: cannot create regular file '$M/owned/k': Operation not permitted
	EOT
	[ -e file ]
}

@test "mv within the mount renames nothing but what the tree allows" {
	echo mine >"$M/keys/k"
	for to in owned/other keys/other keys/ recover/other status/ submit/; do
		run -1 mv "$M/owned/k" "$M/$to"
		[[ $output == *": Operation not permitted" ]] ||
			fail "mv owned/k $to: $output"
	done
	refused 1 mv "$M/keys/k" "$M/keys/other" <<-EOT
		mv: cannot move '$M/keys/k' to '$M/keys/other': Operation not permitted
	EOT
	[ "$(<"$M/owned/k")" = mine ]
}

@test "mv out of the mount copies, then removes: it finishes the key" {
	echo mine >"$M/keys/k"
	mv "$M/owned/k" .
	[ "$(<k)" = mine ]
	run -0 names keys
	output_is <<<""
}

@test "tar archives notes, and extracts into keys as claims" {
	echo one >"$M/keys/k1"
	echo two >"$M/keys/k2"
	tar -cf all.tar -C "$M" keys
	tar -xf all.tar
	diff -r "$M/keys" keys
	tar -cf in.tar file
	tar -xf in.tar -C "$M/keys"
	cmp file "$M/owned/file"
	run -2 tar -xkf in.tar -C "$M/keys"
	[[ $output == "tar: file: Cannot open: File exists"* ]]
	run -2 tar -xkf in.tar -C "$M/recover"
	[[ $output == "tar: file: Cannot open: Operation not permitted"* ]]
}

@test "rsync -a copies a tree out, and --inplace copies files in as claims" {
	need rsync
	echo one >"$M/keys/k1"
	rsync -a "$M/keys/" out/
	diff -r "$M/keys" out
	mkdir in
	cp file in/k2
	rsync -r --inplace in/ "$M/keys/"
	cmp file "$M/owned/k2"
	# Without, it wants to rename a file of its own onto the name.
	cp file in/k3
	run -23 rsync -r in/ "$M/keys/"
	[[ $output == *"mkstemp "*" failed: Invalid argument (22)"* ]]
	[ ! -e "$M/keys/k3" ]
}

@test "find sees types, names and times, and runs commands on keys" {
	touch "$M/keys/old"
	sleep 0.05 # a file's time is that of the last clock tick
	touch reference
	sleep 0.05
	echo fresh >"$M/keys/new"
	run -0 find "$M/keys" -newer reference -type f -printf '%f\n'
	output_is <<<new
	run -0 find "$M/owned" -name new -exec cat {} +
	output_is <<<fresh
	run -0 find "$M/keys" -type f -empty -printf '%f\n'
	output_is <<<old
	find "$M" -type d -empty >/dev/null
}

@test "grep -r reads the whole mount and ends" {
	echo "a needle" >"$M/keys/k"
	run -0 timeout 20 grep -rl needle "$M"
	sort <<<"$output" | diff - <(printf '%s\n' "$M/keys/k" "$M/owned/k")
}

@test "ls -lR, wc, head, tail, cut, sort, cmp and stat read true sizes" {
	seq 100 >"$M/keys/k"
	ls -lR "$M" >/dev/null
	[ "$(wc -c <"$M/keys/k")" = 292 ]
	[ "$(wc -l "$M"/keys/* | awk '{ print $1 }')" = 100 ]
	[ "$(head -c 3 "$M/owned/k")" = $'1\n2' ]
	[ "$(tail -c 4 "$M/owned/k")" = 100 ]
	[ "$(tail -n 1 "$M/keys/k")" = 100 ]
	[ "$(sort -rn "$M/keys/k" | head -n 1)" = 100 ]
	[ "$(stat -c %s "$M/keys/k")" = 292 ]
	cmp "$M/keys/k" "$M/owned/k"
	diff -r "$M/keys" "$M/owned"
}

@test "du and df show the mount" {
	seq 1000 >"$M/keys/k"
	[ "$(du -sb "$M/keys" | cut -f 1)" -ge 3893 ]
	du -s "$M" >/dev/null
	run -0 df --output=source,target "$M"
	[[ ${lines[1]} == ringfs*"$M" ]]
	run -0 df --output=iused "$M"
	[ "${lines[1]// /}" = 1 ]
	df "$M" | grep -qF "$M"
}

@test "dd reads and writes a note at any offset" {
	printf 0123456789 >"$M/keys/k"
	[ "$(dd if="$M/keys/k" bs=1 skip=3 count=4 status=none)" = 3456 ]
	printf XY | dd of="$M/owned/k" bs=1 seek=4 conv=notrunc status=none
	[ "$(<"$M/keys/k")" = 0123XY6789 ]
	printf new | dd of="$M/owned/k" status=none
	[ "$(<"$M/keys/k")" = new ]
	refused 1 dd if=file of="$M/keys/k" <<-EOT
		dd: failed to open '$M/keys/k': File exists
	EOT
}

@test "tee -a and >> append to a note of owned, truncate cuts it" {
	echo one >"$M/keys/k"
	echo two | tee -a "$M/owned/k" >/dev/null
	echo three >>"$M/owned/k"
	[ "$(<"$M/keys/k")" = $'one\ntwo\nthree' ]
	truncate -s 7 "$M/owned/k"
	[ "$(<"$M/keys/k")" = $'one\ntwo' ]
	run -1 truncate -s 65537 "$M/owned/k"
	[[ $output == *": File too large" ]]
	[ "$(<"$M/keys/k")" = $'one\ntwo' ]
	refused 1 tee -a "$M/keys/k" <<<"tee: $M/keys/k: File exists"
}

@test "tail -F follows a note" {
	echo one >"$M/keys/k"
	spawn tail -n +1 -s 0.1 -F "$M/owned/k" >followed 2>&1
	tail=$!
	wait_for 10 grep -qx one followed
	echo two >>"$M/owned/k"
	wait_for 10 grep -qx two followed
	kill "$tail"
	diff followed - <<<$'one\ntwo'
}

@test "ed, and vim where it is, edit a note in owned, and are refused in keys" {
	need ed
	local before
	echo "a note" >"$M/keys/k"
	printf '%s\n' s/note/song/ w q | ed -s "$M/owned/k"
	[ "$(<"$M/keys/k")" = "a song" ]
	before=$(token k)
	printf '%s\n' s/song/lie/ w >script
	run -1 ed -s "$M/keys/k" <script
	[ "${lines[0]}" = "$M/keys/k: File exists" ]
	if command -v vim >/dev/null; then
		vim -es -u NONE -c s/song/tale/ -c wq "$M/owned/k" </dev/null
		[ "$(<"$M/keys/k")" = "a tale" ]
		echo "a song" >"$M/owned/k"
		vim -es -u NONE -c s/song/lie/ -c wq "$M/keys/k" </dev/null || true
	fi
	[ "$(<"$M/keys/k")" = "a song" ]
	[ "$(token k)" = "$before" ]
	run -0 names owned
	output_is <<<k
}

@test "sed -i is refused: in owned it can make no file, in keys rename none" {
	echo "a note" >"$M/keys/k"
	refused 4 sed -i s/note/lie/ "$M/owned/k" <<<-
	[[ $output == "sed: couldn't open temporary file $M/owned/sed"*": Operation not permitted" ]]
	refused 4 sed -i s/note/lie/ "$M/keys/k" <<<-
	[[ $output == "sed: cannot rename $M/keys/sed"*": Operation not permitted" ]]
	run -0 names keys # what sed claimed for it, it has finished
	output_is <<<k
	[ "$(<"$M/keys/k")" = "a note" ]
}

@test "mktemp claims a name nobody has, but no hidden one and no directory" {
	path=$(mktemp -p "$M/keys")
	[ -e "$M/owned/${path##*/}" ]
	run -1 mktemp -p "$M/keys" .XXXXXX
	[[ $output == *": Invalid argument" ]]
	run -1 mktemp -d -p "$M/keys"
	[[ $output == *": Operation not permitted" ]]
}

@test "mkdir, ln, mkfifo, rmdir and files outside of the directories are refused" {
	touch "$M/keys/k"
	refused 1 mkdir "$M/keys/d" <<-EOT
		mkdir: cannot create directory '$M/keys/d': Operation not permitted
	EOT
	refused 1 ln "$M/keys/k" "$M/keys/l" <<-EOT
		ln: failed to create hard link '$M/keys/l' => '$M/keys/k': Operation not permitted
	EOT
	refused 1 ln -s k "$M/keys/l" <<-EOT
		ln: failed to create symbolic link '$M/keys/l': Operation not permitted
	EOT
	refused 1 ln -sf x "$M/keys/k" <<-EOT
		ln: failed to create symbolic link '$M/keys/k': Operation not permitted
	EOT
	refused 1 mkfifo "$M/keys/f" <<-EOT
		mkfifo: cannot create fifo '$M/keys/f': Operation not permitted
	EOT
	refused 1 rmdir "$M/keys" <<-EOT
		rmdir: failed to remove '$M/keys': Operation not permitted
	EOT
	refused 1 touch "$M/file" <<-EOT
		touch: cannot touch '$M/file': Operation not permitted
	EOT
	refused 1 rm "$M/ctl" <<-EOT
		rm: cannot remove '$M/ctl': Operation not permitted
	EOT
}

@test "chmod, chown and touch of a key are refused, and change nothing" {
	touch "$M/keys/k"
	before=$(stat -c '%a %u %Y' "$M/keys/k")
	refused 1 chmod 600 "$M/keys/k" <<-EOT
		chmod: changing permissions of '$M/keys/k': Operation not permitted
	EOT
	refused 1 touch "$M/owned/k" <<-EOT
		touch: setting times of '$M/owned/k': Operation not permitted
	EOT
	refused 1 touch -c "$M/keys/k" <<-EOT
		touch: setting times of '$M/keys/k': File exists
	EOT
	refused 1 chown 12345 "$M/owned/k" <<<-
	[[ $output == *": Operation not permitted" ]]
	chmod 644 "$M/owned/k"
	[ "$(stat -c '%a %u %Y' "$M/keys/k")" = "$before" ]
}

@test "xargs -P 16 touch of one name has one winner, for each of 50 names" {
	# The name is an argument: xargs -I would put it in the folder's name too,
	# which is random, and holds any letter at times.
	for n in {1..50}; do
		rm -rf won lost
		mkdir lost # a file for each, for touch says it in two pieces
		yes "$n" | head -n 16 | xargs -P 16 -n 1 sh -c \
			'touch "$0/keys/$1" 2>lost/$$ && echo "$1" >>won; :' "$M"
		[ "$(cat won)" = "$n" ] || fail "$n: $(cat won lost/*)"
		[ "$(cat lost/* | grep -cxF \
			"touch: cannot touch '$M/keys/$n': File exists")" = 15 ] ||
			fail "$n: $(cat lost/*)"
	done
	[ "$(names owned | wc -l)" = 50 ]
}

@test "rm -r of what owned holds finishes just that" {
	touch "$M"/keys/k{1..20}
	mv "$M/owned/k7" "$M/parked/"
	rm -r "$M"/owned/*
	run -0 names keys
	output_is <<<k7
	run -1 rm -r "$M/owned"
	output_is <<-EOT
		rm: cannot remove '$M/owned': Operation not permitted
	EOT
}

@test "test -ef and test -nt compare keys as files" {
	touch "$M/keys/k" "$M/keys/l"
	[ "$M/keys/k" -ef "$M/keys/k" ]
	[ ! "$M/keys/k" -ef "$M/keys/l" ]
	[ "$M/peers/self" -ef "$M/peers/a" ]
	[ "$M/keys/k" -nt file ]
	[ -s "$M/status/state" ]
	[ ! -s "$M/keys/k" ]
}

@test "flock of a free name claims it, and runs one command at a time" {
	flock "$M/keys/k" true
	is_listed owned k
	for i in {1..8}; do
		spawn flock "$M/keys/k" sh -c \
			'n=$(cat n 2>/dev/null || echo 0); sleep 0.01
			echo $((n + 1)) >n'
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i"; done
	[ "$(<n)" = 8 ]
}

@test "no tool finishes a key, but those that remove a file or replace it by removing" {
	echo mine >"$M/keys/k"
	cp file k
	tar -cf k.tar k
	mkdir empty
	spared=(
		"cp k $M/keys" "cp -u k $M/keys" "cp -n k $M/keys"
		"cp -al k $M/keys" "cp --backup k $M/keys" "mv -n k $M/keys"
		"mv --backup=simple k $M/keys" "ln -f k $M/keys"
		"tar -xkf k.tar -C $M/keys" "rsync -r k $M/keys"
		"rsync -r --inplace k $M/keys" "rsync -r --delete empty/ $M/route"
		"sort -o $M/keys/k k" "shuf -o $M/keys/k k"
		"dd if=k of=$M/keys/k" "tee $M/keys/k" "touch $M/keys/k"
		"truncate -s 0 $M/keys/k" "sed -i s/m/M/ $M/keys/k"
		"perl -pi -e s/m/M/ $M/keys/k" "rmdir $M/keys/k"
		"find $M -type f -exec cat {} +" "grep -r . $M" "du -a $M"
		"ls -lR $M" "tar -cf all.tar $M" "cp -a $M copied"
	)
	for command in "${spared[@]}"; do
		before=$(token k)
		timeout 20 $command </dev/null >/dev/null 2>&1 || true
		[ "$(token k)" = "$before" ] || fail "finished by: $command"
		[ "$(<"$M/owned/k")" = mine ] || fail "changed by: $command"
	done
	# These begin with an unlink, as rm does: another life, with another token.
	for command in "install k $M/keys" "cp -f k $M/keys" \
		"cp --remove-destination k $M/keys" "tar -xf k.tar -C $M/keys"; do
		before=$(token k)
		$command
		[ "$(token k)" != "$before" ] || fail "not finished by: $command"
	done
}
