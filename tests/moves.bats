# SPDX-License-Identifier: MIT
# Keys that move while everybody lives: joins, release/, drain, weights, clients,
# and how many must have been there once.
load helper
load hosts
load cluster

# n1 alone, which holds k1 to kN, with notes; what joins then takes a part.
alone_with() { # N [ARG...]
	local n=$1 i
	shift
	MEMBER_ARGS=("$@")
	hosts 3
	member 1
	for ((i = 1; i <= n; i++)); do
		echo "note of k$i" >"$(mnt n1)/keys/k$i"
	done
}

releases() { # ID N: exactly so many
	[ "$(names "$1" release | wc -l)" = "$2" ]
}

releases_some() { # ID
	[ -n "$(names "$1" release)" ]
}

fact_is() { # ID NAME WORD VALUE
	[ "$(fact "$1" "$2" "$3")" = "$4" ]
}

route() { # ID KEY: its ring owner
	local link
	link=$(readlink "$(mnt "$1")/route/$2")
	echo "${link##*/}"
}

reason_has() { # ID TEXT
	grep -qF "$2" "$(mnt "$1")/status/reason"
}

empty() { # ID DIR...
	local id=$1 dir
	shift
	for dir; do [ -z "$(names "$id" "$dir")" ] || return; done
}

@test "a join asks the holder for what has moved, and takes nothing" {
	alone_with 40
	watch n1 release
	member 2
	wait_for 10 releases_some n1
	n=$(names n1 release | wc -l)
	((n >= 5 && n <= 35)) || fail "$n of 40"
	wait_for 10 heard n1 'release CREATE k' "$n"
	[ "$(names n1 owned | wc -l)" = 40 ]
	wait_for 10 agree n1 n2
	for key in $(names n1 release); do
		[ "$(<"$(mnt n1)/release/$key")" = n2 ]
		[ "$(route n2 "$key")" = n2 ]
		[ "$(xattr n2 "$key" state)" = releasing ]
	done
	empty n2 release recover owned
	releases n1 "$n" # and nothing went by itself
}

@test "rm release/K lets go: it is in the heir's recover, with its note" {
	alone_with 20
	member 2
	wait_for 10 releases_some n1
	key=$(names n1 release | head -n 1)
	n=$(names n1 release | wc -l)
	watch n2 recover
	rm "$(mnt n1)/release/$key"
	hides n1 owned "$key"
	wait_for 10 shows n2 recover "$key"
	[ "$(<"$(mnt n2)/recover/$key")" = "note of $key" ]
	[ "$(xattr n2 "$key" reason)" = moved ]
	[ "$(xattr n2 "$key" from)" = n1 ]
	wait_for 10 heard n2 'recover CREATE k' 1
	releases n1 $((n - 1))
	run -1 rm "$(mnt n1)/release/nothing"
	mv "$(mnt n2)/recover/$key" "$(mnt n2)/owned/"
	wait_for 10 agree n1 n2
}

@test "what is finished while it is asked for is gone" {
	alone_with 20
	member 2
	wait_for 10 releases_some n1
	key=$(names n1 release | head -n 1)
	rm "$(mnt n1)/owned/$key"
	hides n1 release "$key"
	wait_for 10 hides n2 keys "$key"
	hides n2 recover "$key"
}

@test "only another heir is a MODIFY" {
	alone_with 60
	member 2
	wait_for 10 releases_some n1
	before=$(names n1 release)
	watch n1 release
	member 3
	wait_for 10 fact_is n1 n3 state alive
	wait_for 10 bash -c 'grep -qx n3 "$1"/*' - "$(mnt n1)/release"
	for key in $before; do
		if [ "$(<"$(mnt n1)/release/$key")" = n3 ]; then
			moved=$key
			break
		fi
	done
	[ -n "$moved" ] || fail "none went from n2 to n3"
	wait_for 10 grep -qx "release MODIFY $moved" "$BATS_TEST_TMPDIR/n1.events"
	heard n1 'release DELETE' 0
}

@test "handover-timeout lets go by itself, and not before" {
	alone_with 30 --handover-timeout 2
	member 2
	wait_for 10 releases_some n1
	begin=$EPOCHREALTIME
	keys=$(names n1 release)
	inherited_early=$(names n2 recover)
	[ -z "$inherited_early" ]
	wait_for 10 releases n1 0
	((${EPOCHREALTIME/./} - ${begin/./} > 1500000)) || fail "too early"
	wait_for 10 inherited "$keys" n1 n2
	for key in $keys; do
		shows n2 recover "$key"
		[ "$(xattr n1 "$key" reason)" = moved ]
	done
	[ "$(names n1 owned | wc -l)" = $((30 - $(wc -w <<<"$keys"))) ]
}

@test "a drain gives up the ring, not what is held; resume takes a part again" {
	MEMBER_ARGS=()
	cluster 3
	for i in {1..60}; do
		[ "$(route n2 k$i)" != n2 ] || can_claim n2 k$i
	done
	held=$(names n2 owned)
	[ -n "$held" ]
	ringfs drain -m "$(mnt n2)"
	is n2 draining
	refused n2 more
	reason_has n2 draining
	[ "$(<"$(mnt n2)/status/writable")" = 0 ]
	wait_for 10 fact_is n1 n2 draining 1
	wait_for 10 fact_is n1 n2 vnodes 0
	fact_is n1 n2 weight 100
	fact_is n1 n2 role voter
	voters n1 3
	[ "$(names n2 owned)" = "$held" ]
	[ "$(names n2 release)" = "$held" ]
	for key in $held; do [ "$(route n1 "$key")" != n2 ]; done
	run -124 ringfs drain --wait --timeout 1 -m "$(mnt n2)"
	key=${held%%$'\n'*}
	echo word >"$(mnt n2)/owned/$key"
	rm "$(mnt n2)/owned/$key"
	for key in $(names n2 release); do rm "$(mnt n2)/release/$key"; done
	ringfs drain --wait --timeout 5 -m "$(mnt n2)"
	empty n2 owned recover release
	ringfs resume -m "$(mnt n2)"
	is n2 ready
	wait_for 10 fact_is n1 n2 draining 0
	[ "$(fact n1 n2 vnodes)" -ge 1365 ]
	wait_for 10 agree n1 n2 n3
}

@test "a drain outlives a declared death, and no restart" {
	MEMBER_ARGS=()
	cluster 3
	ringfs drain -m "$(mnt n3)"
	wait_for 10 fact_is n1 n3 vnodes 0
	split "1 2" 3
	wait_for 15 fact_is n1 n3 state dead
	wait_for 10 is n3 isolated
	heal
	wait_for 15 is n3 draining
	fact_is n1 n3 vnodes 0
	stop_node n3
	member 3
	wait_for 10 is n3 ready
	wait_for 10 fact_is n1 n3 draining 0
	[ "$(fact n1 n3 vnodes)" -ge 1365 ]
}

@test "the weight is changed while it runs, and by a restart" {
	MEMBER_ARGS=()
	cluster 3
	fact_is n1 n3 vnodes 1365
	echo 'weight 300' >"$(mnt n3)/ctl"
	wait_for 10 fact_is n1 n3 weight 300
	[ "$(fact n1 n3 vnodes)" = 2458 ] || [ "$(fact n1 n3 vnodes)" = 2457 ]
	for bad in 10001 -1 x '' '1 2' 123456; do
		run -1 bash -c 'echo "weight $2" >"$1/ctl"' - "$(mnt n3)" "$bad"
		[[ $output == *'Invalid argument'* ]]
	done
	echo 'weight 0' >"$(mnt n3)/ctl"
	wait_for 10 fact_is n1 n3 vnodes 0
	is n3 ready
	fact_is n1 n3 role voter
	stop_node n3
	member 3 --weight 50
	wait_for 10 is n3 ready
	wait_for 10 fact_is n1 n3 weight 50
	[ "$(fact n1 n3 vnodes)" -ge 819 ]
	wait_for 10 agree n1 n2 n3
}

@test "of two that let go of one key, one does; who drains and dies is inherited" {
	MEMBER_ARGS=()
	cluster 3
	for i in {1..40}; do
		[ "$(route n3 k$i)" != n3 ] || can_claim n3 k$i
	done
	ringfs drain -m "$(mnt n3)"
	wait_for 5 fact_is n1 n3 vnodes 0
	mapfile -t held < <(names n3 release)
	((${#held[@]} >= 3)) || fail "it has ${#held[@]}"
	key=${held[0]}
	for i in 1 2 3 4; do
		spawn rm "$(mnt n3)/release/$key" 2>/dev/null
		pids[i]=$!
	done
	won=0
	for i in 1 2 3 4; do
		wait "${pids[$i]}" && won=$((won + 1))
	done
	[ "$won" = 1 ] || fail "$won did"
	wait_for 5 inherited "$key" n1 n2
	[ "$(xattr n1 "$key" reason)" = moved ]
	crash_node n3
	wait_for 10 inherited "${held[*]}" n1 n2
	[ "$(xattr n1 "${held[1]}" reason)" = dead ]
	wait_for 5 agree n1 n2
}

@test "27: where nobody owns, keys wait for the first who does" {
	MEMBER_ARGS=()
	hosts 2
	member 1
	member 2 --client
	can_claim n1 mine
	ringfs drain -m "$(mnt n1)"
	wait_for 5 fact_is n1 n1 vnodes 0
	empty n1 release # nobody to let go to
	[ ! -L "$(mnt n2)/route/k" ]
	refused n1 k
	refused n2 k 'Object is remote'
	echo x >"$(mnt n2)/submit/s"
	echo x >"$(mnt n2)/submit/t"
	wait_for 5 shows n1 keys t
	[ -z "$(xattr n1 s holder)$(xattr n1 s heir)" ]
	rm "$(mnt n2)/keys/t" # what nobody holds, anybody finishes
	rm "$(mnt n1)/owned/mine"
	ringfs resume -m "$(mnt n1)"
	wait_for 5 shows n1 recover s
	echo 'weight 0' >"$(mnt n1)/ctl"
	wait_for 5 fact_is n1 n1 vnodes 0
	is n1 ready
	shows n1 recover s
	mv "$(mnt n1)/recover/s" "$(mnt n1)/owned/"
	run -1 --separate-stderr ringfs leave --timeout 9 -m "$(mnt n1)"
	[[ $stderr == *'could take over the 1 unfinished key'* ]]
	rm "$(mnt n1)/owned/s"
	run -1 --separate-stderr ringfs leave --timeout 9 -m "$(mnt n1)"
	[[ $stderr == *'1 node would be left, and could not take over'* ]]
}

@test "a client claims and holds, owns nothing, and never votes" {
	hosts 3
	member 1
	member 2 --client
	member 3
	wait_for 10 fact_is n1 n3 role voter
	wait_for 10 fact_is n1 n2 role client
	voters n1 2
	fact_is n1 n2 vnodes 0
	can_claim n2 mine
	shows n2 owned mine
	wait_for 10 shows n1 keys mine
	run -1 bash -c 'echo "weight 5" >"$1/ctl"' - "$(mnt n2)"
	[[ $output == *'Invalid argument'* ]]
	grep -qx 'standbys 1' "$(mnt n1)/status/quorum"
	crash_node n2
	wait_for 10 inherited mine n1 n3
	voters n1 2
}

@test "nothing is claimed before the expected were seen together, once" {
	MEMBER_ARGS=(--claims any --expect 3)
	hosts 3
	launch_member 1
	wait_for 10 is n1 joining
	wait_for 10 reason_has n1 'before 3 nodes were seen together'
	refused n1 early 'Resource temporarily unavailable'
	for k in 2 3; do
		launch_member $k
		((k == 3)) || wait_for 10 is n2 joining
	done
	for k in 1 2 3; do wait_for 10 is n$k ready; done
	can_claim n1 k
	wait_for 10 voters n1 3
	stop_nodes
	for k in 2 1; do
		ON="nsenter --net=/run/netns/$(host_ns $k)" BIND=$(addr $k) \
			launch_node n$k --expect 3 --key-file "$(key_of n1)"
	done
	for k in 1 2; do wait_for 20 is n$k ready; done
	can_claim n2 two
}

@test "killed, and back within its grace, it keeps its keys" {
	cluster 3
	stop_node n3
	member 3 --restart-grace 20000
	wait_for 10 is n3 ready
	claim_some n3 4
	keys=$(names n3 owned)
	crash_node n3
	wait_for 10 sees n1 n3 dead
	[ -z "$(names n1 recover)$(names n2 recover)" ]
	member 3
	wait_for 10 is n3 ready
	inherited "$keys" n3
	for key in $keys; do [ "$(xattr n1 "$key" reason)" = restart ]; done
}

@test "ring --plan says what a change would move, and the change does" {
	alone_with 30
	MEMBER_ARGS=()
	plan=$(ringfs ring --plan n2:100 -m "$(mnt n1)" | sed 1d)
	read -r from to vnodes keys <<<"$plan"
	[ "$from $to $vnodes" = 'n1 n2 2048' ]
	run -0 --separate-stderr ringfs ring --plan --json n2:100 -m "$(mnt n1)"
	[ "$(jq -r '.moves[0] | "\(.from) \(.to) \(.vnodes) \(.keys)"' \
		<<<"$output")" = "$from $to $vnodes $keys" ]
	[ "$(jq .keys <<<"$output")" = "$keys" ]
	member 2
	wait_for 10 releases n1 "$keys"
	fact_is n1 n2 vnodes 2048
	run -0 ringfs ring --plan n2:0 -m "$(mnt n1)"
	[[ ${lines[1]} =~ ^n2\ +n1\ +2048\ +$keys$ ]]
	run -0 ringfs ring --plan n1:0 n2:0 -m "$(mnt n1)"
	((${#lines[@]} == 3))
	[[ ${lines[1]} =~ ^n[12]\ +-\  ]]
	run -0 ringfs ring --plan n1:100 -m "$(mnt n1)"
	((${#lines[@]} == 1))
	run -1 ringfs ring --plan n9:0 -m "$(mnt n1)"
	[[ $output == *"'n9': there is no such node" ]]
	for bad in n1 n1: :5 n1:x n1:10001 n1:-1; do
		run -64 ringfs ring --plan "$bad" -m "$(mnt n1)"
	done
	run -64 ringfs ring --plan -m "$(mnt n1)"
	run -64 ringfs ring --plan --svg n1:1 -m "$(mnt n1)"
	run -64 ringfs ring n1:1 -m "$(mnt n1)"
}
