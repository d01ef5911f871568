#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/chaos.bash SEED SECONDS [NODES [any|owner]]
# A cluster on hosts of its own (hosts.bash) that is worked on, and whose nodes and
# cables are broken, by a plan that SEED decides. Then all is mended, and what the
# callers were told is checked (tools/history_check.c), that every node knows the
# same, that every key can be finished, and that everything ends.
#
# The plan is printed; the same seed gives the same plan, but not the same run. On
# failure the history and all logs are kept, and their folder is named. PLAN=FILE
# plays the plan in a file instead; KEEP=1 keeps everything in any case.
#
# A line of the plan: NUMBER BEGIN_MS FOR_MS FAULT ARG...
#	kill K, power K       kill -9 the daemon, or it and its herald; start it
#	herald K              kill -9 the herald alone
#	freeze K              SIGSTOP, then kill -9; start it
#	late K                its herald is stopped, it is killed and started; then
#	                      the old herald goes on
#	all                   kill -9 all that live, heralds too; start them
#	lose K                as power, and its state is lost: a new node comes
#	stop K                SIGSTOP, SIGCONT
#	restart K             stop it as asked, start it
#	leave K               it leaves; a new node comes in its place
#	drain K               drain, resume
#	cut K, mute K, deaf K its cable: both ways, out, in
#	oneway A B            nothing from A reaches B
#	split A,B C,D,E       nothing between the two sides
#	loss P, copy P        of 1000 frames P are lost, or come twice
#	delay US              each frame is late
# K is a number, or L: who leads the log then. Who is down already is left alone.
# shellcheck disable=SC2034,SC2154 # they are the loaded files'
set -u
BATS_TEST_DIRNAME=$(dirname "$(realpath "$0")")
SEED=${1:?seed} LASTS=${2:?seconds}
NODES=${3-$((SEED % 3 ? 3 : 5))} CLAIMS=${4-$( ((SEED % 2)) && echo owner || echo any)}
KEYS=${KEYS:-30} THREADS=${THREADS:-5}
D=$(mktemp -d "${BATS_TEST_TMPDIR:-${TMPDIR:-/tmp}}/ringfs-chaos-XXXXXX")
BATS_TEST_TMPDIR=$D
BATS_TEST_TIMEOUT=$((LASTS + 240))

# What bats gives its tests.
bats_require_minimum_version() { :; }
skip() {
	echo "chaos.bash: $*" >&2
	exit 1
}

cd "$BATS_TEST_DIRNAME" || exit
source ./helper.bash
source ./hosts.bash
source ./cluster.bash
cd "$D" || exit
ulimit -c unlimited 2>/dev/null # cores are kept with the rest
MEMBER_ARGS=(--claims "$CLAIMS")
case $((SEED % 5)) in
0) MEMBER_ARGS+=(--max-attempts 1000) ;;
1) MEMBER_ARGS+=(--max-attempts 2 --handover-timeout 1) ;;
2) MEMBER_ARGS+=(--restart-grace 1500) ;;
3) MEMBER_ARGS+=(--lease 600 --calm 100) ;;
4) MEMBER_ARGS+=(--handover-timeout 2 --lease 3000 --restart-grace 500) ;;
esac
HISTORY=$D/history
RUNS=()   # the processes that work
BROKEN=() # what went wrong
declare -A UP=() STOPPED=() TARGET=() CUTS=() LEAVES=() BEGAN=() HERALDS=() NAMED=()

say() {
	printf '# %s\n' "$*"
}

broken() { # REASON...: the run goes on, but has failed
	printf 'FAIL: %s\n' "$*" >&2
	BROKEN+=("$*")
	return 1
}

# ---- The plan ----

plan() {
	awk -v seed="$SEED" -v lasts="$LASTS" -v nodes="$NODES" '
	function between(low, high) {
		return low + int(rand() * (high - low + 1))
	}
	function someone() { # one in four is the leader
		return rand() < 0.25 ? "L" : between(1, nodes)
	}
	function two_sides(k, a, b) {
		while (a == "" || b == "") {
			a = b = ""
			for (k = 1; k <= nodes; k++)
				if (rand() < 0.5)
					a = a (a == "" ? "" : ",") k
				else
					b = b (b == "" ? "" : ",") k
		}
		return a " " b
	}
	function one_way(a, b) {
		a = between(1, nodes)
		b = between(1, nodes - 1)
		return a " " (b < a ? b : b + 1)
	}
	function add(at, last, what) {
		print ++n, at, last, what
	}
	function fault(i, k) {
		i = between(0, 33)
		if (i < 3) add(at, between(100, 4000), "kill " someone())
		else if (i < 5) add(at, between(100, 5000), "power " someone())
		else if (i < 8) add(at, between(100, 4000), "stop " someone())
		else if (i < 9) add(at, between(4000, 10000), "stop " someone())
		else if (i < 11) add(at, between(500, 3000), "restart " someone())
		else if (i < 12) add(at, between(2000, 5000), "leave " someone())
		else if (i < 13) add(at, between(1000, 4000), "drain " someone())
		else if (i < 15) add(at, between(300, 5000), "cut " someone())
		else if (i < 16) add(at, between(300, 5000), "mute " someone())
		else if (i < 17) add(at, between(300, 5000), "deaf " someone())
		else if (i < 19) add(at, between(300, 6000), "oneway " one_way())
		else if (i < 22) add(at, between(300, 5000), "split " two_sides())
		else if (i < 24) add(at, between(1000, 5000), "loss " between(100, 300))
		else if (i < 26) add(at, between(1000, 5000), "delay " between(1000, 60000))
		else if (i < 27) add(at, 0, "herald " someone())
		else if (i < 28) add(at, between(500, 5000), "freeze " someone())
		else if (i < 30) add(at, between(500, 6000), "late " someone())
		else if (i < 31) add(at, between(100, 3000), "all")
		else if (i < 32) add(at, between(1000, 5000), "copy " between(50, 500))
		else if (i < 33) {
			# Of two that are lost there may be a majority.
			if (!lost++) add(at, between(100, 3000), "lose " someone())
		}
		else for (k = 1; k <= nodes; k++) { # one after the other
			add(at, between(100, 500), "restart " k)
			at += 1500
		}
	}
	BEGIN {
		srand(seed)
		for (at = 1000; at < lasts * 1000; at += between(200, 3000))
			fault()
	}'
}

# ---- Faults ----

uptime_ns() {
	local up
	read -r up _ </proc/uptime
	echo "${up/./}0000000"
}

# Node K had no daemon that could answer, from then to now.
was_away() { # K SINCE_NS
	echo "$1 $2 $(uptime_ns)" >>"$D/away"
}

leader_now() { # the number of the node that leads, as somebody who is well says
	local k name
	for ((k = 1; k <= NODES; k++)); do
		[ -n "${UP[$k]-}" ] && [ -z "${STOPPED[$k]-}" ] || continue
		name=$(timeout -s KILL 1 cat "$(mnt "n$k")/status/leader" 2>/dev/null)
		name=${name%% *}
		[[ $name == n[1-9] ]] || continue
		echo "${name#n}"
		return
	done
	return 1
}

apply_cuts() {
	local pair all="${CUTS[*]}"
	wire heal 0 0
	for pair in $all; do wire cut "${pair%-*}" "${pair#*-}"; done
}

cuts_of() { # FAULT ARG...: A-B, a word for each way that is cut
	local a b k=$2
	case $1 in
	cut) echo "$k-0 0-$k" ;;
	mute) echo "$k-0" ;; # 0 is everybody
	deaf) echo "0-$k" ;;
	oneway) echo "$2-$3" ;;
	split)
		for a in ${2//,/ }; do
			for b in ${3//,/ }; do echo "$a-$b $b-$a"; done
		done
		;;
	esac
}

reap() { # K
	wait "$(pid_of "n$1")" 2>/dev/null
	local status=$?
	rm "$D/n$1.pid"
	unset "UP[$1]"
	return $status
}

join_args() { # K: through all others
	local k
	for ((k = 1; k <= NODES; k++)); do
		((k == $1)) || printf '%s\n' --join "$(addr "$k")"
	done
}

launch() { # K [still]: as it was, or as a new node; still: its mount may be there
	local k=$1 args=()
	[ -n "${2-}" ] || detach "$(mnt "n$k")"
	mapfile -t args < <(join_args "$k")
	ON="nsenter --net=/run/netns/$(host_ns "$k")" BIND=$(addr "$k") \
		launch_node "n$k" --key-file "$D/key" "${MEMBER_ARGS[@]}" \
		"${args[@]}" {WIRE_IN}>&- {WIRE_OUT}>&-
	UP[$k]=1
}

three_vote() {
	local k n
	((${#UP[@]} == NODES && ${#STOPPED[@]} == 0)) || return
	for ((k = 1; k <= NODES; k++)); do
		n=$(timeout -s KILL 1 cat "$(mnt "n$k")/status/quorum" 2>/dev/null |
			awk '$1 == "voters" { print $2 }')
		((${n:-0} >= 3)) || return
	done
}

power_off() { # K
	# shellcheck disable=SC2046 # none, when it has just been killed
	kill -KILL $(herald_of "n$1") "$(pid_of "n$1")" 2>/dev/null
	reap "$1"
	detach "$(mnt "n$1")"
}

tell() { # K VERB: without making a file where nothing is mounted
	dd of="$(mnt "n$1")/ctl" conv=nocreat,notrunc 2>/dev/null <<<"$2" &
}

begin_all() { # NUMBER
	local k
	BEGAN[$1]=$(uptime_ns)
	for k in "${!UP[@]}"; do
		[ -z "${STOPPED[$k]-}" ] || continue
		power_off "$k"
		TARGET[$1]+=" $k"
	done
}

begin_fault() { # NUMBER FAULT ARG...
	local n=$1 fault=$2 k=${3-} pid
	shift 2
	case $fault in
	loss | copy) wire "$fault" "$1" && return ;;
	delay) wire delay "$1" "$1" && return ;;
	oneway | split) ;;
	all)
		begin_all "$n"
		return
		;;
	*)
		[ "$k" != L ] || k=$(leader_now) || return
		[ -n "${UP[$k]-}" ] && [ -z "${STOPPED[$k]-}" ] || return
		TARGET[$n]=$k
		set -- "$k"
		pid=$(pid_of "n$k")
		;;
	esac
	BEGAN[$n]=$(uptime_ns)
	case $fault in
	kill)
		kill -KILL "$pid"
		reap "$k"
		;;
	power) power_off "$k" ;;
	lose)
		# Without a third voter that would be a majority.
		three_vote || {
			unset "TARGET[$n]"
			return
		}
		power_off "$k"
		NAMED[$k]=1
		;;
	herald) kill -KILL "$(herald_of "n$k")" ;;
	freeze)
		kill -STOP "$pid"
		STOPPED[$k]=$n
		;;
	late)
		HERALDS[$n]=$(herald_of "n$k")
		kill -STOP "${HERALDS[$n]}"
		kill -KILL "$pid"
		reap "$k"
		# It waits for the old herald, and then it is as ever.
		launch "$k" still
		STOPPED[$k]=$n
		;;
	stop)
		kill -STOP "$pid"
		STOPPED[$k]=$n
		;;
	restart)
		kill -TERM "$pid"
		STOPPED[$k]=$n
		;;
	leave)
		ringfs leave --timeout 10 -m "$(mnt "n$k")" \
			>"$D/log/leave-$n" 2>&1 &
		LEAVES[$n]=$!
		STOPPED[$k]=$n
		;;
	drain) tell "$k" drain ;;
	*)
		CUTS[$n]=$(cuts_of "$fault" "$@")
		apply_cuts
		;;
	esac
}

ends() { # K SECONDS: its daemon has been asked to
	wait_for "$2" gone "$(pid_of "n$1")" && return
	broken "n$1 does not end"
	kill -KILL "$(pid_of "n$1")"
}

end_fault() { # NUMBER FAULT
	local n=$1 fault=$2 k status=0
	case $fault in
	loss | copy) wire "$fault" 0 && return ;;
	delay) wire delay 0 0 && return ;;
	esac
	if [ -n "${CUTS[$n]-}" ]; then
		unset "CUTS[$n]"
		apply_cuts
		return
	fi
	k=${TARGET[$n]-}
	[ -n "$k" ] || return
	case $fault in
	all)
		for k in ${TARGET[$n]}; do
			launch "$k"
			was_away "$k" "${BEGAN[$n]}"
		done
		return
		;;
	herald) return ;;
	kill | power) launch "$k" ;;
	lose)
		rm -r "$D/n$k/state"
		launch "$k"
		;;
	freeze)
		kill -KILL "$(pid_of "n$k")"
		reap "$k"
		launch "$k"
		;;
	late) kill -CONT "${HERALDS[$n]}" 2>/dev/null ;;
	stop) kill -CONT "$(pid_of "n$k")" ;;
	restart)
		ends "$k" 15
		reap "$k" || status=$?
		# 143: it had only just been started.
		((status == 0 || status == 143)) ||
			broken "n$k: status $status after TERM"
		launch "$k"
		;;
	leave)
		end_leave "$n" "$k"
		return
		;;
	drain) tell "$k" resume ;;
	esac
	[ "${STOPPED[$k]-}" != "$n" ] || unset "STOPPED[$k]"
	was_away "$k" "${BEGAN[$n]}"
}

has_left() { # NUMBER K: it has, or has said that it cannot
	gone "$(pid_of "n$2")" || gone "${LEAVES[$1]}"
}

# While it has not come to its end it is still a member, and keeps its state.
end_leave() { # NUMBER K
	local n=$1 k=$2 status
	wait_for 2 has_left "$n" "$k" 2>/dev/null || return
	wait "${LEAVES[$n]}"
	status=$?
	say "leave of n$k: status $status, $(tail -n 1 "$D/log/leave-$n")"
	if gone "$(pid_of "n$k")"; then
		reap "$k"
		detach "$(mnt "n$k")"
		rm -r "$D/n$k/state"
		launch "$k"
	elif ((status == 0)); then
		broken "n$k has left, and is there"
	fi
	unset "STOPPED[$k]" "LEAVES[$n]"
	was_away "$k" "${BEGAN[$n]}"
}

end_leaves() {
	local n
	for n in "${!LEAVES[@]}"; do
		wait_for 40 has_left "$n" "${TARGET[$n]}" ||
			broken "n${TARGET[$n]} does not leave" || continue
		end_leave "$n" "${TARGET[$n]}"
	done
}

# Who has ended without being asked to?
all_live() {
	local k status why
	for k in "${!UP[@]}"; do
		gone "$(pid_of "n$k")" || continue
		[ -z "${STOPPED[$k]-}" ] || continue
		reap "$k"
		status=$?
		why=$(tail -n 1 "$D/log/n$k")
		# It finds no cluster to join; or what it was is not given up yet.
		if ((status == 75)) ||
			{ [ -n "${NAMED[$k]-}" ] && [[ $why == *'has the name'* ]]; }; then
			launch "$k"
		else
			broken "n$k has ended by itself, status $status: $why"
		fi
	done
}

play() {
	local at way n fault args now zero=${EPOCHREALTIME/./}
	while read -r at way n fault args; do
		now=$(((${EPOCHREALTIME/./} - zero) / 1000))
		((at <= now)) || sleep "$(printf '%d.%03d' $(((at - now) / 1000)) \
			$(((at - now) % 1000)))"
		all_live
		# shellcheck disable=SC2086 # words
		"${way}_fault" "$n" "$fault" $args
	done < <(awk '{
		line = $1; for (i = 4; i <= NF; i++) line = line " " $i
		print $2, "begin", line; print $2 + $3, "end", line }' "$D/plan" |
		sort -sn)
}

# ---- A run ----

build_cluster() {
	local k
	hosts "$NODES"
	member 1 || return
	cp -p "$(key_of n1)" "$D/key"
	for ((k = 2; k <= NODES; k++)); do member "$k" || return; done
	for ((k = 1; k <= NODES; k++)); do UP[$k]=1; done
	all_see "$NODES" && wait_for 20 voters n1 $((NODES < 4 ? 3 : 5))
}

begin_work() {
	local k
	for ((k = 1; k <= NODES; k++)); do
		spawn "$TOOLS/history" run "n$k" "$(mnt "n$k")" "$HISTORY" \
			$((SEED * 10 + k)) "$KEYS" "$THREADS" \
			{WIRE_IN}>&- {WIRE_OUT}>&- 2>>"$D/log/history-$k"
		RUNS+=($!)
	done
}

end_work() {
	local pid
	kill -TERM "${RUNS[@]}"
	for pid in "${RUNS[@]}"; do
		wait_for 40 gone "$pid" || broken "callers hang"
	done
}

all_well() {
	local k end=$((EPOCHSECONDS + 120))
	for ((k = 1; k <= NODES; k++)); do
		until is "n$k" ready 2>/dev/null; do
			all_live
			((EPOCHSECONDS < end)) || broken "n$k is not ready:" \
				"$(tail -n 2 "$D/log/n$k")" || return
			sleep 0.1
		done
	done
}

# How each node sees itself and the others, for who looks for the cause.
tell_all() {
	local k dir
	for ((k = 1; k <= NODES; k++)); do
		dir=$(mnt "n$k")
		timeout -s KILL 2 grep -r . "$dir"/status/{state,reason,leader,term,index,hash,quorum} \
			"$dir"/peers >"$D/seen-n$k" 2>&1
		timeout -s KILL 2 getfattr -d "$dir"/keys/* >"$D/keys-n$k" 2>&1
	done
}

compare() {
	local k ids=() mounts=()
	for ((k = 1; k <= NODES; k++)); do
		ids+=("n$k")
		mounts+=("$(mnt "n$k")")
	done
	wait_for 20 agree "${ids[@]}" || broken "they do not agree"
	for ((k = 1; k <= NODES; k++)); do
		timeout -s KILL 60 "$TOOLS/history" last "n$k" "$(mnt "n$k")" \
			"$HISTORY" "$KEYS"
	done
	"$TOOLS/history_check" ${BOUND_MS:+--bound-ms $BOUND_MS} --away "$D/away" \
		"$HISTORY" || broken "the history is wrong"
	tell_all
	wait_for 60 timeout -s KILL 20 "$TOOLS/history" clean "${mounts[@]}" ||
		broken "not every key can be finished"
}

finish() {
	local rc=0
	trap '' INT TERM HUP
	((${#RUNS[@]} == 0)) || kill -KILL "${RUNS[@]}" 2>/dev/null
	stop_nodes || rc=1
	hosts_gone
	nothing_left || rc=1
	logs_are_clean || rc=1
	kill "$WATCHDOG" 2>/dev/null
	wait 2>/dev/null
	((rc == 0)) || broken "it does not end cleanly"
	if ((${#BROKEN[@]} > 0)); then
		say "kept: $D"
		say "again: tests/chaos.bash $SEED $LASTS $NODES $CLAIMS"
		exit 1
	fi
	[ -n "${KEEP-}" ] && say "kept: $D" || rm -r "$D"
	exit 0
}

main() {
	say "seed $SEED, $LASTS s, $NODES nodes, claims=$CLAIMS"
	if [ -n "${PLAN-}" ]; then cat "$PLAN"; else plan; fi >"$D/plan"
	sed 's/^/# /' "$D/plan"
	touch "$D/away" "$HISTORY"
	setup
	trap 'broken interrupted; finish' INT TERM HUP
	if build_cluster; then
		begin_work
		play
		end_leaves
		if all_well; then sleep 2; else tell_all; fi
		end_work
		((${#BROKEN[@]} > 0)) || compare
	else
		broken "no cluster came to be"
	fi
	finish
}

main
