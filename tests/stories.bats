#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Stories: what somebody would do with a cluster, from begin to end.
load helper
load hosts
load cluster

RECOVER=$BATS_TEST_DIRNAME/../man/recover.sh

is_empty() { # ID DIR
	[ -z "$(names "$1" "$2")" ]
}

stop_workers() {
	kill -TERM "$@" 2>/dev/null || true
	wait "$@" 2>/dev/null || true
}

@test "S1: work is claimed, the node dies, and the script of the manual finishes it on the heir" {
	MEMBER_ARGS=()
	need inotifywait getfattr
	cluster 3
	cat >"$BATS_TEST_TMPDIR/finish_order" <<-'EOT'
		#!/bin/sh
		echo "$2 on $1: found \"$(cat)\", shipping" >>"$(dirname "$0")/shipped"
	EOT
	chmod +x "$BATS_TEST_TMPDIR/finish_order"
	for i in {1..40}; do # as many as are n1's
		[ "$(mnt n1)/route/order-$i" -ef "$(mnt n1)/peers/self" ] || {
			foreign=order-$i
			continue
		}
		touch "$(mnt n1)/keys/order-$i"
		echo "step 1: card charged" >"$(mnt n1)/owned/order-$i"
		mine+=("order-$i")
	done
	run -1 touch "$(mnt n1)/keys/$foreign"
	[[ $output == *'Object is remote' ]]
	# Two workers on n2, which race, and one on n3, which comes later.
	for id in n2 n2; do
		spawn sh "$RECOVER" "$(mnt $id)" "$BATS_TEST_TMPDIR/finish_order" $id \
			2>>"$BATS_TEST_TMPDIR/worker.log"
		workers+=($!)
	done
	wait_for 10 shows n2 keys "${mine[-1]}"
	cut_power n1
	wait_for 15 bash -c '[ -n "$(ls "$1/recover")" ]' - "$(mnt n3)"
	spawn sh "$RECOVER" "$(mnt n3)" "$BATS_TEST_TMPDIR/finish_order" n3 \
		2>>"$BATS_TEST_TMPDIR/worker.log"
	workers+=($!)
	for id in n2 n3; do wait_for 20 is_empty $id keys; done
	for key in "${mine[@]}"; do
		[ "$(grep -c "^$key on n[23]: found \"step 1: card charged\", shipping" \
			"$BATS_TEST_TMPDIR/shipped")" = 1 ]
	done
	[ "$(wc -l <"$BATS_TEST_TMPDIR/shipped")" = ${#mine[@]} ]
	for what in 'member n1 .* dead' 'n1 is declared down'; do
		cat "$(mnt n2)/status/log" "$(mnt n3)/status/log" | grep -q "$what"
	done
	for id in n2 n3; do stop_node $id; done
	stop_workers "${workers[@]}"
}

@test "S3: a rolling restart loses no work and runs none at two places" {
	cluster 3
	cat >"$BATS_TEST_TMPDIR/job" <<-'EOT'
		#!/bin/bash
		exec 9>"$0.lock-$1"
		flock -n 9 || { echo "$1" >>"$0.doubled"; exit 1; }
		sleep 0.1
		echo "$1" >>"$0.done"
	EOT
	chmod +x "$BATS_TEST_TMPDIR/job"
	worker() { # K
		spawn "$RINGFS_BIN" work -j 3 -m "$(mnt "n$1")" -- \
			"$BATS_TEST_TMPDIR/job" 2>>"$BATS_TEST_TMPDIR/worker.log"
		WORKER[$1]=$!
	}
	for k in 1 2 3; do worker $k; done
	for i in {1..60}; do touch "$(mnt "n$((i % 3 + 1))")/submit/job-$i"; done
	for k in 2 3 1; do
		stop_node n$k
		wait "${WORKER[$k]}" || true # it ends with its mount
		for other in $(others 3 n$k); do wait_for 20 is "$other" ready; done
		launch_again $k
		started n$k
		wait_for 20 is n$k ready
		worker $k
		echo "after the restart of n$k" >"$(mnt n$k)/submit/late-$k"
	done
	for id in n1 n2 n3; do wait_for 20 is_empty $id keys; done
	[ ! -e "$BATS_TEST_TMPDIR/job.doubled" ]
	[ "$(sort -u "$BATS_TEST_TMPDIR/job.done" | wc -l)" = 63 ]
	wait_for 10 agree n1 n2 n3
	wait_for 10 is_ok n1
	stop_workers "${WORKER[@]}"
}

@test "S6: a partition at three in the morning: what the one cut off sees, says, and does when it is over" {
	cluster 3
	MEMBER_ARGS+=(--max-attempts 5)
	can_claim n3 alice
	wait_for 10 shows n1 keys alice
	refused n1 alice 'File exists'
	can_claim n3 order-77
	mv "$(mnt n3)/owned/order-77" "$(mnt n3)/parked/"
	wait_for 10 shows n3 parked order-77
	watch n3 status/state
	split "1 2" 3
	wait_for 10 is n3 isolated
	wait_for 10 grep -qx 'state MODIFY' "$BATS_TEST_TMPDIR/n3.events"
	grep -qx 'ringfs_writable 0' <(sed 's/{.*}//' "$(mnt n3)/status/metrics.prom")
	run -75 "$RINGFS_BIN" status -m "$(mnt n3)"
	[[ ${lines[0]} == isolated* ]]
	wait_for 10 grep -q '2 of 3 voters are not in reach: n1, n2' \
		"$(mnt n3)/status/reason"
	refused n3 bob
	run -75 "$RINGFS_BIN" claim -m "$(mnt n3)" bob
	[[ $output == *'2 of 3 voters are not in reach'* ]]
	[ "$(xattr n3 order-77 state)" = parked ]
	[ "$(xattr n3 order-77 attempts)" = 0 ]
	for id in n1 n2; do wait_for 10 sees n3 $id dead; done
	[ "$("$RINGFS_BIN" members -m "$(mnt n3)" | grep -c dead)" = 2 ]
	cp "$(mnt n3)/status/ring.svg" "$BATS_TEST_TMPDIR/ticket-4711.svg"
	wait_for 10 inherited alice n1 n2
	can_claim n1 bob
	heal
	wait_for 15 is n3 ready
	[ "$(<"$(mnt n3)/status/writable")" = 1 ]
	refused n3 bob 'File exists'
	mv "$(mnt n3)/parked/order-77" "$(mnt n3)/recover/"
	wait_for 10 inherited order-77 n1 n2 n3
	wait_for 10 is_ok n3
}

demo_is_gone() { # FOLDER: neither files, nor mounts, nor processes
	[ -z "$(ls -A "$1")" ] && [ -z "$(mounts)" ] && [ -z "$(ours)" ]
}

@test "the demo plays, and leaves nothing behind; nor when it is interrupted" {
	need inotifywait getfattr
	export RINGFS_TEST=$BATS_TEST_TMPDIR
	mkdir "$BATS_TEST_TMPDIR/tmp"
	TMPDIR=$BATS_TEST_TMPDIR/tmp run -0 "$BATS_TEST_DIRNAME/demo.sh" 3>&-
	[[ $output == *"n3-order-1, of which the note says: charged, not yet shipped"* ]]
	[[ $output == *"n3         0    0.00     0     100  dead"* ]]
	demo_is_gone "$BATS_TEST_TMPDIR/tmp"
	for moment in 'makes the cluster' 'a worker waits'; do
		TMPDIR=$BATS_TEST_TMPDIR/tmp "$BATS_TEST_DIRNAME/demo.sh" \
			>"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
		demo=$!
		wait_for 10 grep -q "$moment" "$BATS_TEST_TMPDIR/said"
		kill -TERM $demo
		status=0
		wait $demo || status=$?
		[ $status = 143 ]
		demo_is_gone "$BATS_TEST_TMPDIR/tmp"
	done
}
