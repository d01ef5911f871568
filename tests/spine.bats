#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The life of a key on a cluster of one node, as a shell sees it.

load helper

local_setup() {
	need fuse
	M=$BATS_TEST_TMPDIR/a/mnt
	start_node a
}

restart_node() { # ID [ARG...]
	stop_node "$1"
	start_node "$@"
}

xattr() { # NAME FILE
	getfattr --absolute-names --only-values -n "user.ring.$1" "$2"
}

names() { # DIR: as ls, sorted by bytes
	(cd "$M" && ls "$1")
}

is_listed() { # DIR NAME
	names "$1" | grep -qxF -- "$2"
}

never_for() { # SECONDS COMMAND...: must fail all that time
	local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
	shift
	while ((${EPOCHREALTIME/./} < end)); do
		! "$@" >/dev/null 2>&1 || fail "it happened: $*" || return
		sleep 0.02
	done
}

@test "touch in keys claims a key: it shows in keys and owned, and nowhere else" {
	touch "$M/keys/order-42"
	run -0 names keys
	output_is <<<order-42
	run -0 names owned
	output_is <<<order-42
	run -0 names recover
	output_is <<<""
	run -0 names parked
	output_is <<<""
}

@test "a second touch is refused with File exists, and changes nothing" {
	touch "$M/keys/k"
	token=$(xattr token "$M/keys/k")
	run -1 touch "$M/keys/k"
	output_is <<<"touch: cannot touch '$M/keys/k': File exists"
	run -1 bash -c 'set -C; : > "$1"' - "$M/keys/k"
	run -1 bash -c ': > "$1"' - "$M/keys/k"
	[[ $output == *"File exists" ]]
	run -1 bash -c ': >> "$1"' - "$M/keys/k"
	run -1 cp /dev/null "$M/keys/k"
	[ "$(xattr token "$M/keys/k")" = "$token" ]
}

@test "one of many that claim the same key at once wins" {
	for i in {1..20}; do
		spawn bash -c 'set -C; : > "$1"/keys/k && echo won >>"$2"' - \
			"$M" "$BATS_TEST_TMPDIR/winners" 2>/dev/null
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || true; done
	[ "$(<"$BATS_TEST_TMPDIR/winners")" = won ]
}

@test "a note is written through owned, and read in keys and owned" {
	touch "$M/keys/k"
	echo "first line" >"$M/owned/k"
	run -0 cat "$M/keys/k"
	output_is <<<"first line"
	echo "second line" >>"$M/owned/k"
	run -0 cat "$M/owned/k"
	output_is <<-'EOT'
		first line
		second line
	EOT
	[ "$(stat -c %s "$M/keys/k")" = 23 ]
	echo new >"$M/owned/k"
	run -0 cat "$M/keys/k"
	output_is <<<new
}

@test "the handle that creates a key writes its first note" {
	echo "for the worker" >"$M/keys/k"
	run -0 cat "$M/owned/k"
	output_is <<<"for the worker"
	run -1 bash -c 'echo other >"$1"' - "$M/keys/k"
	run -0 cat "$M/owned/k"
	output_is <<<"for the worker"
}

@test "rm in keys and rm in owned finish a key, and its name is free again" {
	touch "$M/keys/a" "$M/keys/b"
	rm "$M/keys/a"
	rm "$M/owned/b"
	run -0 names keys
	output_is <<<""
	run -0 names owned
	output_is <<<""
	run -1 cat "$M/keys/a"
	touch "$M/keys/a"
}

@test "after a restart the unfinished keys are in recover, with note and reason" {
	touch "$M/keys/done" "$M/keys/open"
	echo halfway >"$M/owned/open"
	rm "$M/keys/done"
	restart_node a
	run -0 names recover
	output_is <<<open
	run -0 names owned
	output_is <<<""
	[ "$(<"$M/recover/open")" = halfway ]
	[ "$(xattr reason "$M/recover/open")" = restart ]
	[ "$(xattr state "$M/recover/open")" = offered ]
	run -1 touch "$M/keys/open"
}

@test "after kill -9 and a restart the unfinished keys are in recover" {
	touch "$M/keys/done" "$M/keys/open"
	echo halfway >"$M/owned/open"
	rm "$M/keys/done"
	crash_node a
	start_node a
	run -0 names keys
	output_is <<<open
	run -0 names recover
	output_is <<<open
	[ "$(<"$M/recover/open")" = halfway ]
	[ "$(xattr reason "$M/recover/open")" = restart ]
}

@test "mv from recover to owned takes a key, raises its token, counts an attempt" {
	echo note >"$M/keys/k"
	restart_node a
	before=$(xattr token "$M/recover/k")
	inode=$(stat -c %i "$M/recover/k")
	mv "$M/recover/k" "$M/owned/"
	run -0 names owned
	output_is <<<k
	run -0 names recover
	output_is <<<""
	[ "$(<"$M/owned/k")" = note ]
	[ "$(xattr state "$M/owned/k")" = held ]
	(($(xattr token "$M/owned/k") > before))
	[ "$(xattr attempts "$M/owned/k")" = 1 ]
	[ "$(stat -c %i "$M/owned/k")" = "$inode" ]
}

@test "one of many that take the same key wins" {
	touch "$M/keys/k"
	restart_node a
	for i in {1..10}; do
		spawn bash -c 'mv -T "$1"/recover/k "$1"/owned/k && echo won >>"$2"' \
			- "$M" "$BATS_TEST_TMPDIR/winners" 2>/dev/null
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || true; done
	[ "$(<"$BATS_TEST_TMPDIR/winners")" = won ]
}

@test "rm in recover finishes a key that nobody took" {
	touch "$M/keys/k"
	restart_node a
	rm "$M/recover/k"
	run -0 names keys
	output_is <<<""
}

@test "a key given back comes again after one second, not before" {
	touch "$M/keys/k"
	restart_node a
	mv "$M/recover/k" "$M/owned/"
	begin=${EPOCHREALTIME/./}
	mv "$M/owned/k" "$M/recover/"
	run -0 names owned
	output_is <<<""
	wait_for 10 is_listed recover k
	((${EPOCHREALTIME/./} - begin >= 950000)) || fail "too early"
	[ "$(xattr reason "$M/recover/k")" = given-back ]
	[ "$(xattr attempts "$M/recover/k")" = 1 ]
	is_listed keys k
}

@test "one bad key does not delay another" {
	touch "$M/keys/bad" "$M/keys/good"
	restart_node a
	mv "$M/recover/bad" "$M/owned/"
	mv "$M/owned/bad" "$M/recover/"
	run -0 names recover
	output_is <<<good
	mv "$M/recover/good" "$M/owned/"
	rm "$M/owned/good"
}

@test "a key is parked when it was given back max_attempts times" {
	stop_node a
	rm -r "$BATS_TEST_TMPDIR/a"
	start_node a --max-attempts 1
	touch "$M/keys/k"
	restart_node a --max-attempts 1
	mv "$M/recover/k" "$M/owned/"
	mv "$M/owned/k" "$M/recover/"
	run -0 names parked
	output_is <<<k
	[ "$(xattr state "$M/parked/k")" = parked ]
	never_for 2 is_listed recover k
	is_listed keys k
}

@test "a parked key is offered to nobody until it is retried, with no attempts" {
	echo note >"$M/keys/k"
	mv "$M/owned/k" "$M/parked/"
	run -0 names owned
	output_is <<<""
	restart_node a
	run -0 names recover
	output_is <<<""
	[ "$(<"$M/parked/k")" = note ]
	mv "$M/parked/k" "$M/recover/"
	run -0 names recover
	output_is <<<k
	[ "$(xattr attempts "$M/recover/k")" = 0 ]
	[ "$(xattr reason "$M/recover/k")" = retried ]
	mv "$M/recover/k" "$M/owned/"
	rm "$M/owned/k"
}

@test "rm in parked discards a key" {
	touch "$M/keys/k"
	mv "$M/owned/k" "$M/parked/"
	rm "$M/parked/k"
	run -0 names keys
	output_is <<<""
}

@test "the facts of a key are its extended attributes" {
	touch "$M/keys/k"
	run -0 getfattr --absolute-names -d "$M/keys/k"
	for name in token holder heir vnode state reason attempts since claimed; do
		grep -q "^user\.ring\.$name=" <<<"$output" ||
			fail "no user.ring.$name in: $output"
	done
	[ "$(xattr holder "$M/keys/k")" = a ]
	[ "$(xattr heir "$M/keys/k")" = a ]
	[ "$(xattr state "$M/keys/k")" = held ]
	[ "$(xattr reason "$M/keys/k")" = claimed ]
	[ "$(xattr attempts "$M/keys/k")" = 0 ]
	run -1 setfattr -n user.ring.token -v 7 "$M/owned/k"
	[[ $output == *"Operation not permitted" ]]
}

@test "a submitted key is offered at its last close, with its note" {
	exec 7>"$M/submit/job"
	echo "do this" >&7
	run -0 names recover
	output_is <<<""
	run -0 names keys
	output_is <<<job
	exec 7>&-
	wait_for 10 is_listed recover job
	[ "$(<"$M/recover/job")" = "do this" ]
	[ "$(xattr reason "$M/recover/job")" = submitted ]
	run -0 names submit
	output_is <<<""
	run -1 touch "$M/submit/job"
	[[ $output == *"File exists" ]]
}

@test "a submission whose node dies first is offered after the restart" {
	exec 7>"$M/submit/job"
	echo "do this" >&7
	crash_node a
	exec 7>&- || true
	start_node a
	wait_for 10 is_listed recover job
	[ "$(<"$M/recover/job")" = "do this" ]
}

@test "route names the owner of any name, claimed or not, and lists nothing" {
	run -0 readlink "$M/route/anything at all"
	output_is <<<../peers/a
	[ "$M/route/x" -ef "$M/peers/self" ]
	run -0 names route
	output_is <<<""
	run -1 rm "$M/route/x"
}

@test "peers has a file of facts for this node, and self is a link to it" {
	run -0 names peers
	output_is <<-'EOT'
		a
		self
	EOT
	[ "$(readlink "$M/peers/self")" = a ]
	touch "$M/keys/k"
	run -0 cat "$M/peers/self"
	for line in "state alive" "weight 100" "keys 1" "vnodes 4096"; do
		grep -qx "$line" <<<"$output" || fail "no '$line' in: $output"
	done
	grep -qE '^id [0-9a-f]{32}$' <<<"$output"
	grep -qE '^address 127\.0\.0\.1:[1-9][0-9]*$' <<<"$output"
}

same_size() { # FILE: stat's size is the length that cat reads
	[ "$(stat -c %s "$1")" = "$(cat "$1" | wc -c)" ]
}

@test "every file of status has its true size and can be read by anyone" {
	touch "$M/keys/k"
	for f in "$M"/status/*; do
		wait_for 10 same_size "$f"
		[ "$(stat -c %a "$f")" = 444 ] || [ "$(stat -c %a "$f")" = 644 ]
	done
	[ "$(<"$M/status/state")" = ready ]
	[ "$(<"$M/status/writable")" = 1 ]
	[ -s "$M/status/reason" ]
	[ "$(<"$M/status/keys")" = 1 ]
	[ "$(<"$M/status/owned")" = 1 ]
	[ "$(<"$M/status/recovering")" = 0 ]
	[ "$(<"$M/status/parked")" = 0 ]
	[ "$(<"$M/status/leader")" = a ]
	run -1 bash -c 'echo no >"$1"' - "$M/status/state"
}

@test "status/json is one document, and metrics.prom has types for all it names" {
	[ -e "$M/status/json" ] || skip "status/json comes later"
	jq -e .state <"$M/status/json"
	[ -e "$M/status/metrics.prom" ] || skip "metrics.prom comes later"
	run -0 awk '!/^#/ && !($1 in t) { sub(/\{.*/, "", $1); if (!($1 in t))
		print $1 } /^# TYPE/ { t[$3] }' "$M/status/metrics.prom"
	output_is <<<""
}

batch() { # reads the batch from standard input, prints the answers
	exec 8<>"$M/ctl"
	cat >&8
	cat <&8
	exec 8>&-
}

@test "ctl takes batches and gives one answer per name" {
	run -0 batch <<-'EOT'
		claim
		k1
		k2
		k3
	EOT
	output_is <<-'EOT'
		ok k1
		ok k2
		ok k3
	EOT
	run -0 names owned
	output_is <<-'EOT'
		k1
		k2
		k3
	EOT
	run -0 batch <<<$'claim\nk3\nk4'
	output_is <<<$'EEXIST k3\nok k4'
	run -0 batch <<<$'finish\nk1\nk9\nk2'
	output_is <<<$'ok k1\nENOENT k9\nok k2'
}

@test "a batch with NUL takes names with newlines" {
	printf 'claim\none\nname\0other\0' >"$BATS_TEST_TMPDIR/in"
	batch <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	printf 'ok one\nname\0ok other\0' >"$BATS_TEST_TMPDIR/want"
	cmp "$BATS_TEST_TMPDIR/want" "$BATS_TEST_TMPDIR/out"
	[ -e "$M/owned/one"$'\n'"name" ]
}

@test "ctl finishes by token, and refuses an old token and unknown verbs" {
	touch "$M/keys/k"
	token=$(xattr token "$M/keys/k")
	run -1 bash -c 'echo "finish-at $2 k" >"$1/ctl"' - "$M" $((token + 1))
	[[ $output == *"No such file or directory" ]]
	is_listed keys k
	echo "finish-at $token k" >"$M/ctl"
	run -0 names keys
	output_is <<<""
	run -1 bash -c 'echo "make coffee" >"$1/ctl"' - "$M"
	[[ $output == *"Invalid argument" ]]
	grep -q finish-at "$M/ctl"
}

@test "ten thousand keys in one batch are all there, and all finished by one" {
	{ echo claim && seq 10000; } >"$BATS_TEST_TMPDIR/in"
	batch <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	[ "$(grep -c '^ok ' "$BATS_TEST_TMPDIR/out")" = 10000 ]
	cmp <(seq 10000 | sort) <(names owned | sort)
	sed -i s/claim/finish/ "$BATS_TEST_TMPDIR/in"
	batch <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	[ "$(names keys | wc -l)" = 0 ]
}

@test "names may be 255 bytes long, not 256" {
	name=$(printf 'x%.0s' {1..255})
	touch "$M/keys/$name"
	run -0 names owned
	output_is <<<"$name"
	run -1 touch "$M/keys/${name}y"
	[[ $output == *"File name too long" ]]
	rm "$M/keys/$name"
}

@test "names may hold every byte but slash and NUL" {
	for ((i = 1; i < 256; i++)); do
		printf -v hex '\\x%02x' "$i"
		((i == 47)) || all+=("x$(printf "${hex}y")")
	done
	touch "${all[@]/#/$M/keys/}"
	cmp <(printf '%s\0' "${all[@]}" | sort -z) \
		<(find "$M/owned" -type f -printf '%f\0' | sort -z)
	restart_node a
	cmp <(printf '%s\0' "${all[@]}" | sort -z) \
		<(find "$M/recover" -type f -printf '%f\0' | sort -z)
	rm -- "${all[@]/#/$M/recover/}"
	run -0 names keys
	output_is <<<""
}

@test "a name with a leading dot is refused, and is not there to look up" {
	run -1 touch "$M/keys/.hidden"
	[[ $output == *"Invalid argument" ]]
	run -1 touch "$M/submit/.hidden"
	[[ $output == *"Invalid argument" ]]
	run -1 cat "$M/keys/.hidden"
	[[ $output == *"No such file or directory" ]]
}

@test "a note may have 65,536 bytes, not one more" {
	head -c 65537 /dev/urandom >"$BATS_TEST_TMPDIR/big"
	head -c 65536 "$BATS_TEST_TMPDIR/big" >"$BATS_TEST_TMPDIR/fits"
	touch "$M/keys/k" "$M/keys/l"
	cat "$BATS_TEST_TMPDIR/fits" >"$M/owned/k"
	cmp "$BATS_TEST_TMPDIR/fits" "$M/keys/k"
	run -1 bash -c 'cat "$1" >"$2"' - "$BATS_TEST_TMPDIR/big" "$M/owned/l"
	[[ $output == *"File too large" ]]
	cp "$BATS_TEST_TMPDIR/fits" "$M/owned/l"
	restart_node a
	cmp "$BATS_TEST_TMPDIR/fits" "$M/recover/k"
	cmp "$BATS_TEST_TMPDIR/fits" "$M/recover/l"
}

@test "an open handle of a finished key is stale, its path is simply gone" {
	echo note >"$M/keys/k"
	exec 7<"$M/owned/k"
	rm "$M/keys/k"
	run -1 cat <&7
	[[ $output == *"Stale file handle" ]]
	run -1 cat "$M/owned/k"
	[[ $output == *"No such file or directory" ]]
	exec 7<&-
}

@test "files are 0644 and directories 0755, and stay so" {
	touch "$M/keys/k"
	[ "$(stat -c %a "$M/keys/k" "$M/owned/k")" = $'644\n644' ]
	for d in keys owned recover parked submit; do
		[ "$(stat -c %a "$M/$d")" = 755 ] || fail "$d"
	done
	run -1 chmod 600 "$M/owned/k"
	[[ $output == *"Operation not permitted" ]]
	run -1 chmod 700 "$M/keys"
	[ "$(stat -c '%a %h %u %g' "$M/keys/k")" = "644 1 $EUID $(id -g)" ]
}

@test "mtime is the last note, ctime the claim" {
	touch "$M/keys/k"
	claimed=$(stat -c %Z "$M/keys/k")
	(($(date +%s) - claimed < 20))
	before=$(stat -c %.9Y "$M/keys/k")
	echo note >"$M/owned/k"
	[ "$(stat -c %.9Y "$M/keys/k")" != "$before" ]
	[ "$(stat -c %Z "$M/keys/k")" = "$claimed" ]
}

@test "cp -p, install and mv into keys claim and write the note" {
	echo text >"$BATS_TEST_TMPDIR/file"
	cp -p "$BATS_TEST_TMPDIR/file" "$M/keys/a"
	install -m 600 "$BATS_TEST_TMPDIR/file" "$M/keys/b"
	mv "$BATS_TEST_TMPDIR/file" "$M/keys/c"
	for k in a b c; do [ "$(<"$M/owned/$k")" = text ]; done
}

@test "what the tree has no operation for is not permitted" {
	touch "$M/keys/k"
	for d in "" keys owned recover parked submit peers status; do
		run -1 mkdir "$M/$d/new"
		[[ $output == *"Operation not permitted" ]] || fail "mkdir $d: $output"
		run -1 ln -s x "$M/$d/new"
		[[ $output == *"Operation not permitted" ]] || fail "ln -s $d: $output"
	done
	run -1 mkfifo "$M/keys/new"
	run -1 ln "$M/keys/k" "$M/keys/new"
	run -1 touch "$M/owned/new"
	run -1 touch "$M/recover/new"
	run -1 mv "$M/keys/k" "$M/keys/l"
	run -1 rmdir "$M/keys"
	run -0 names keys
	output_is <<<k
}

@test "df and ls -lR of the whole tree work" {
	touch "$M/keys/k"
	df "$M" | grep -q "$M"
	run -0 ls -lR "$M"
	[[ $output != *"?"* ]]
}

@test "sync of a directory is answered" {
	touch "$M/keys/k"
	sync "$M/keys"
	sync "$M/status"
	sync "$M/owned/k"
}

@test "reading has no effect: tar, grep -r, find and cp -a leave all as it was" {
	touch "$M/keys/a" "$M/keys/b"
	restart_node a
	mv "$M/recover/a" "$M/owned/"
	before=$(cd "$M" && ls keys owned recover && getfattr -d keys/*)
	tar -C "$M" -cf "$BATS_TEST_TMPDIR/x.tar" keys owned recover peers status
	grep -r nothing "$M" || true
	find "$M" -type f -exec cat {} + >/dev/null
	cp -a "$M/keys" "$BATS_TEST_TMPDIR/copy"
	[ "$(cd "$M" && ls keys owned recover && getfattr -d keys/*)" = "$before" ]
}

@test "another user may look, and may neither claim nor finish" {
	need root setpriv
	stop_node a
	for ((d = 0; d < 4; d++)); do # the way to the mount
		chmod a+x "$BATS_TEST_TMPDIR/a${up-}"
		up=${up-}/..
	done
	start_node a -o allow_other
	touch "$M/keys/k"
	as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
	run -0 as_nobody ls "$M/keys"
	output_is <<<k
	run -1 as_nobody rm -f "$M/keys/k"
	run -1 as_nobody touch "$M/keys/l"
	run -1 as_nobody bash -c 'echo x >"$1"' - "$M/owned/k"
	run -0 names keys
	output_is <<<k
}
