#!/bin/bash
# SPDX-License-Identifier: MIT
# The whole proof, behind `make check`. Each part prints what it did and its
# seconds; the last line is "N passed, N failed". With STRICT=1, as .ci/run sets
# it, a skipped test counts as failed. All that it makes is in build/, and in a
# folder of its own that is gone when it ends, also when it is interrupted.
#
# Parts can be named: tests/run.bash unit bats
set -u
cd "$(dirname "$0")/.." || exit
export STRICT=${STRICT-} LC_ALL=C
FUZZ_SECONDS=${FUZZ_SECONDS:-10}
export LOG=build/check RINGFS_CHECK=$$ PATIENCE=${PATIENCE:-3}
passed=0 failed=0 skipped=0
SANITIZERS=address,undefined ahead=

die() {
	printf 'check: %s\n' "$*" >&2
	exit 1
}

need_all() {
	local tool
	for tool in gcc clang clang-format make pkg-config bats shellcheck groff jq \
		getfattr inotifywait fsnotifywait entr fusermount3 setpriv; do
		command -v "$tool" >/dev/null ||
			die "$tool is missing; 'make deps' and '.ci/deps test' install what is needed"
	done
	[ -e /dev/fuse ] || die "/dev/fuse is missing: the kernel has no FUSE here, or this container was not given the device (--device /dev/fuse --cap-add SYS_ADMIN)"
	{ : <>/dev/fuse; } 2>/dev/null ||
		die "/dev/fuse cannot be opened by $(id -un)"
	[ "$STRICT" != 1 ] || ((EUID == 0)) ||
		die "STRICT=1 needs root: some tests make file systems"
}

# Tests work in $DISK, and in $MEMORY if there is plenty of it: then their time is
# not that of the disk.
make_folders() {
	local free
	free=$(df --output=avail -B 1M /dev/shm 2>/dev/null | tail -n 1)
	DISK=$(mktemp -d "${TMPDIR:-/tmp}/ringfs-check.XXXXXX") || exit
	MEMORY=$DISK
	((${free:-0} < 8000)) ||
		MEMORY=$(mktemp -d /dev/shm/ringfs-check.XXXXXX) || exit
	chmod 755 "$DISK" "$MEMORY" # other users come through
}

leave_nothing() {
	local f
	for f in "$DISK" "$MEMORY"; do
		awk -v dir="$f/" 'index($5, dir) == 1 { print $5 }' \
			/proc/self/mountinfo | sort -r | xargs -r -n 1 umount -l
		rm -rf "$f"
	done
}

ours() { # whatever we started, wherever it has gone
	local f
	for f in $(env -u RINGFS_CHECK grep -lzxF "RINGFS_CHECK=$$" \
		/proc/[0-9]*/environ 2>/dev/null); do
		f=${f#/proc/}
		echo "${f%/environ}"
	done
}

interrupted() {
	local i pids
	trap '' INT TERM HUP
	mapfile -t pids < <(jobs -p)
	kill -TERM "${pids[@]}" 2>/dev/null
	for ((i = 0; i < 100; i++)); do # tests clean up behind themselves
		mapfile -t pids < <(ours)
		((${#pids[@]})) || exit 143
		((i % 50)) || kill -TERM "${pids[@]}" 2>/dev/null
		sleep 0.1
	done
	kill -KILL "${pids[@]}" 2>/dev/null
	exit 143
}

# Count the TAP lines in FILE.
count() { # FILE
	local ok not skip
	skip=$(grep -cE '^ok .*# skip' "$1")
	ok=$(($(grep -cE '^ok ' "$1") - skip))
	not=$(grep -cE '^not ok ' "$1")
	if [ "$STRICT" = 1 ]; then
		((failed += skip))
	else
		((skipped += skip))
	fi
	((passed += ok, failed += not))
	awk '/^(not )?ok / { bad = /^not/ } bad' "$1" | head -n 200
	[ "$STRICT" != 1 ] || grep -E '^ok .*# skip' "$1"
	grep '^# failed at first:' "$1"
	((not == 0))
}

# Run a part; its output is shown if it fails. One check, unless it prints TAP.
part() { # NAME tap|one COMMAND...
	local name=$1 kind=$2 begin=$EPOCHREALTIME rc file
	shift 2
	file=$LOG/${name// /-}.log
	"$@" >"$file" 2>&1 &
	wait $! # so a signal is heard at once
	rc=$?
	if [ "$kind" = tap ]; then
		# A program that died without a "not ok" has failed once.
		count "$file" && ((rc != 0)) && { ((failed++)) || true; } &&
			tail -n 40 "$file"
	elif ((rc == 0)); then
		((passed++))
	else
		((failed++))
		grep -vE '^(cc|gcc|clang) ' "$file" | tail -n 60
	fi
	awk -v n="$name" -v b="$begin" -v e="$EPOCHREALTIME" -v rc=$rc 'BEGIN {
		printf "%-24s %6.1f s  %s\n", n, e - b, rc ? "FAILED" : "ok" }'
	return $rc
}

# A program that is not ok says so itself; unless it died, or a sanitizer did.
unit_one() { # PROGRAM, its output in a file beside it
	local begin=$EPOCHREALTIME status
	timeout 300 "$1" >"$1.log" 2>&1
	status=$?
	((status == 0)) || grep -q '^not ok' "$1.log" ||
		echo "not ok - $1: status $status" >>"$1.log"
	awk -v t="$1" -v b="$begin" -v e="$EPOCHREALTIME" 'BEGIN {
		printf "# %s: %.1f s\n", t, e - b }' >>"$1.log"
	return $status
}
export -f unit_one

# Many of them wait for time to pass: more at once than there are processors, and
# the longest first.
unit() { # FOLDER
	local t programs=() rc
	local long='/(group_install|group_random|records|ring_cluster.*|store|wal_fault)_test$'
	for t in tests/unit/*_test.c; do programs+=("$1/${t%.c}"); done
	{
		printf '%s\n' "${programs[@]}" | grep -E "$long"
		printf '%s\n' "${programs[@]}" | grep -vE "$long"
	} | xargs -P $((2 * $(nproc))) -I {} bash -c 'unit_one {}'
	rc=$?
	for t in "${programs[@]}"; do cat "$t.log"; done
	return $rc
}

bats_one() { # FILE, its output in the log's folder
	bats --tap --timing "$1" >"$LOG/${1##*/}.log" 2>&1
}
export -f bats_one

# What failed beside all the others, and on a machine whose load is not ours, is
# run once more by itself. Only that counts; what was unstable is said.
bats_again() { # FILE
	local log=$LOG/${1##*/}.log rc
	mv "$log" "$log.first"
	bats_one "$1"
	rc=$?
	mv "$log" "$log.again"
	{
		sed -n 's/^not ok [0-9]*/# failed at first:/p' "$log.first"
		cat "$log.again"
	} >"$log"
	return $rc
}

# A file each, twice as many at once as there are processors, for most tests wait.
# Those of several nodes take longest, and then the long ones: they begin. With
# sanitizers those that only repeat what others do with other words are left out.
run_bats() { # FOLDER all|some
	local several='^load (hosts|cluster)|^# Several nodes' skip='^$' files f
	local bad rc=0
	export RINGFS_BIN=$PWD/$1/ringfs
	export BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-180}
	[ "$2" = all ] || skip='/(net|sevnup|split|stories)\.bats$'
	mapfile -t files < <({
		grep -lE "$several" tests/*.bats | xargs ls -S
		grep -LE "$several" tests/*.bats | xargs ls -S
	} | grep -vE "$skip")
	mapfile -t bad < <(printf '%s\n' "${files[@]}" |
		xargs -P $((2 * $(nproc))) -I {} bash -c 'bats_one {} || echo {}')
	if ((${#bad[@]} <= 3)); then # more is no accident
		for f in "${bad[@]}"; do bats_again "$f" || rc=1; done
	else
		rc=1
	fi
	for f in "${files[@]}"; do cat "$LOG/${f##*/}.log"; done
	return $rc
}

has_tests() {
	compgen -G "$1" >/dev/null
}

make_part() {
	make -s -j"$(nproc)" "$@"
}

# What install puts there, and uninstall takes away: just that.
install_and_back() {
	local root=$PWD/$LOG/root want
	rm -rf "$root"
	make_part DESTDIR="$root" prefix=/usr install || return
	want=$(
		echo usr/bin/ringfs
		echo usr/sbin/mount.ringfs
		echo usr/share/bash-completion/completions/ringfs
		for page in man/*.[1-8]; do
			echo "usr/share/man/man${page##*.}/${page##*/}"
		done
	)
	diff <(sort <<<"$want") <(cd "$root" && find . ! -type d -printf '%P\n' |
		sort) || return
	[ "$(readlink "$root/usr/sbin/mount.ringfs")" = /usr/bin/ringfs ] || return
	make_part DESTDIR="$root" prefix=/usr uninstall || return
	[ -z "$(find "$root" ! -type d)" ]
}

# What later parts need is compiled while tests wait.
compile_ahead() {
	renice -n 19 $BASHPID
	make_part SAN=$SANITIZERS CC=gcc all unit tools
	make_part O=build/clang CC=clang all unit tools benches
	tests/fuzz.bash 0
}

plain() { # PARTS: how many there are
	part "build gcc" one make_part CC=gcc all unit tools benches || return
	part "install" one install_and_back
	if (($1 > 1)); then
		compile_ahead >/dev/null 2>&1 &
		ahead=$!
	fi
	TMPDIR=$MEMORY part "unit" tap unit build
	TMPDIR=$DISK part "bats" tap run_bats build all
}

sanitized() {
	export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
	part "build sanitized" one make_part SAN=$SANITIZERS CC=gcc \
		all unit tools || return
	UBSAN_OPTIONS=halt_on_error=1 TMPDIR=$MEMORY \
		part "unit sanitized" tap unit build/san
	ROUNDS=${ROUNDS:-5} TMPDIR=$MEMORY \
		part "bats sanitized" tap run_bats build/san some
}

clang_part() {
	part "build clang" one make_part O=build/clang CC=clang all unit tools \
		benches
}

main() {
	local parts=("$@") p
	((${#parts[@]})) || parts=(form plain sanitized clang fuzz)
	need_all
	mkdir -p $LOG
	make_folders
	trap leave_nothing EXIT
	trap interrupted INT TERM HUP
	for p in "${parts[@]}"; do
		[[ $p == @(form|plain) || -z $ahead ]] || wait "$ahead"
		case $p in
		form)
			part "layers" one tests/layers.bash
			part "lint" one tests/lint.bash
			;;
		plain) plain ${#parts[@]} ;;
		sanitized) sanitized ;;
		clang) clang_part ;;
		fuzz) has_tests 'tests/fuzz/*_fuzz.c' &&
			part "fuzz" tap tests/fuzz.bash "$FUZZ_SECONDS" ;;
		unit) TMPDIR=$MEMORY part "unit" tap unit build ;;
		bats) TMPDIR=$DISK part "bats" tap run_bats build all ;;
		*) die "no part named $p" ;;
		esac
	done
	if ((skipped > 0)); then
		echo "$passed passed, $failed failed, $skipped skipped"
	else
		echo "$passed passed, $failed failed"
	fi
	((failed == 0 && passed > 0))
}

main "$@"
