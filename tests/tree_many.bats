#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The tree on every node of a cluster: what is the same everywhere, what is each
# node's own, and what is refused where.
load helper
load hosts
load cluster

xattrs() { # ID KEY: all of them
	getfattr --absolute-names -d "$(mnt "$1")/keys/$2" | sed 1d
}

offered_to_owner() { # KEY
	shows "$(basename "$(readlink "$(mnt n1)/route/$1")")" recover "$1"
}

@test "keys is the same everywhere, owned and recover are disjoint, and attributes and notes equal" {
	cluster 3
	for id in n1 n2 n3; do claim_some $id 4; done
	echo changed >"$(mnt n2)/owned/n2-1"
	for i in {1..6}; do
		echo "do $i" | "$RINGFS_BIN" submit --note-file - -m "$(mnt n1)" "job-$i"
	done
	for i in {1..6}; do wait_for 10 offered_to_owner job-$i; done
	wait_for 10 agree n1 n2 n3
	for id in n2 n3; do
		[ "$(names $id keys)" = "$(names n1 keys)" ]
		for key in $(names n1 keys); do
			[ "$(xattrs $id "$key")" = "$(xattrs n1 "$key")" ]
			cmp "$(mnt $id)/keys/$key" "$(mnt n1)/keys/$key"
			[ "$(stat -c '%s %Y %Z %u %g %a' "$(mnt $id)/keys/$key")" = \
				"$(stat -c '%s %Y %Z %u %g %a' "$(mnt n1)/keys/$key")" ]
		done
	done
	cmp "$(mnt n1)/status/vnodes" "$(mnt n3)/status/vnodes"
	for id in n1 n2 n3; do names $id owned && names $id recover; done |
		sort >"$BATS_TEST_TMPDIR/all"
	cmp "$BATS_TEST_TMPDIR/all" <(names n1 keys) # each with one, none with two
	[ "$(<"$(mnt n3)/keys/n2-1")" = changed ]
	# One names its holder, the heir and the route are one.
	for key in $(names n1 keys); do
		shows "$(xattr n3 "$key" holder)" owned "$key" ||
			shows "$(xattr n3 "$key" holder)" recover "$key"
		[ "$(readlink "$(mnt n2)/route/$key")" = \
			"../peers/$(xattr n2 "$key" heir)" ]
	done
}

@test "what another node holds cannot be finished, moved, or written here" {
	cluster 2
	echo note >"$(mnt n1)/keys/k"
	token=$(xattr n1 k token)
	wait_for 10 shows n2 keys k
	run -1 rm "$(mnt n2)/keys/k"
	[[ $output == *'Object is remote' ]]
	run -1 "$RINGFS_BIN" finish -m "$(mnt n2)" k
	[[ $output == *'Object is remote (held by n1)' ]]
	run -1 "$RINGFS_BIN" finish -m "$(mnt n2)" --token "$token" k
	[[ $output == *'Object is remote (held by n1)' ]]
	run -1 mv "$(mnt n2)/owned/k" "$(mnt n2)/recover/"
	[[ $output == *'No such file'* ]]
	run -1 mv "$(mnt n2)/keys/k" "$(mnt n2)/owned/"
	run -1 bash -c 'echo mine >"$1"' - "$(mnt n2)/keys/k"
	[[ $output == *'File exists' ]]
	run -1 bash -c 'echo mine >"$1"' - "$(mnt n2)/owned/k"
	for id in n1 n2; do
		[ "$(<"$(mnt $id)/keys/k")" = note ]
		[ "$(xattr $id k token)" = "$token" ]
	done
	shows n1 owned k
}

@test "who was declared dead cannot finish with the token it had" {
	cluster 3
	echo half >"$(mnt n3)/keys/k"
	old=$(xattr n3 k token)
	exec 7>>"$(mnt n3)/owned/k"
	split "1 2" 3
	wait_for 10 inherited k n1 n2
	heir=$(heir_of k n1 n2)
	mv "$(mnt "$heir")/recover/k" "$(mnt "$heir")/owned/"
	heal
	wait_for 15 is n3 ready
	wait_for 10 agree n1 n2 n3
	(($(xattr n3 k token) > old))
	run -1 bash -c 'echo late >&7'
	[[ $output == *'Stale file handle' ]]
	exec 7>&- || true
	run -1 "$RINGFS_BIN" finish -m "$(mnt n3)" --token "$old" k
	run -1 rm "$(mnt n3)/keys/k"
	[[ $output == *'Object is remote' ]]
	[ "$(<"$(mnt "$heir")/owned/k")" = half ]
	# And with its own, the heir can; the old one is refused there, too.
	run -1 "$RINGFS_BIN" finish -m "$(mnt "$heir")" --token "$old" k
	"$RINGFS_BIN" finish -m "$(mnt "$heir")" \
		--token "$(xattr "$heir" k token)" k
	wait_for 10 hides n3 keys k
}

@test "a key is submitted on any node, and offered by its ring owner; at its death by another" {
	cluster 3
	for id in n1 n2 n3; do
		for i in {1..4}; do
			echo "$id asks" >"$(mnt $id)/submit/$id-job-$i"
		done
	done
	for key in n{1..3}-job-{1..4}; do
		wait_for 10 offered_to_owner $key
		wait_for 10 shows n1 keys $key
		[ "$(xattr n1 $key reason)" = submitted ]
		[ "$(<"$(mnt n2)/keys/$key")" = "${key%%-*} asks" ]
		inherited $key n1 n2 n3
	done
	run -1 bash -c ': >"$1"' - "$(mnt n2)/submit/n1-job-1"
	[[ $output == *'File exists' ]]
	exec 7>"$(mnt n3)/submit/open"
	echo unfinished >&7
	wait_for 10 shows n1 keys open
	[ -z "$(heir_of open n1 n2 n3)" ]
	crash_node n3
	exec 7>&- || true
	wait_for 10 inherited "open $(names n1 keys | grep job)" n1 n2
	heir=$(heir_of open n1 n2)
	[ "$(<"$(mnt "$heir")/recover/open")" = unfinished ]
}

@test "what is given back stays here; what is parked is everybody's, and goes to its heir when it is tried again" {
	cluster 3
	for i in {1..6}; do echo "note $i" >"$(mnt n2)/keys/k$i"; done
	mv "$(mnt n2)/owned/k1" "$(mnt n2)/recover/"
	hides n2 owned k1
	wait_for 10 shows n2 recover k1
	inherited k1 n1 n2 n3
	mv "$(mnt n2)/owned/"k{2..6} "$(mnt n2)/parked/"
	wait_for 10 agree n1 n2 n3
	for id in n1 n2 n3; do
		[ "$(names $id parked | wc -l)" = 5 ]
		[ "$(xattr $id k2 state)" = parked ]
		[ -z "$(xattr $id k2 holder)" ]
	done
	for key in k{2..5}; do # mv of several would look for them here
		mv "$(mnt n3)/parked/$key" "$(mnt n3)/recover/"
	done
	rm "$(mnt n1)/parked/k6"
	for key in k{2..5}; do
		wait_for 10 offered_to_owner $key
		[ "$(xattr n1 $key attempts)" = 0 ]
		[ "$(xattr n1 $key reason)" = retried ]
		[ "$(<"$(mnt n1)/keys/$key")" = "note ${key#k}" ]
		inherited $key n1 n2 n3
	done
	wait_for 10 hides n2 keys k6
}

@test "a lock on a key is each node's own, and ends with the life of the key" {
	cluster 2
	can_claim n1 k
	wait_for 10 shows n2 keys k
	exec 7<"$(mnt n1)/keys/k"
	flock -n 7
	run -1 flock -n "$(mnt n1)/owned/k" true
	exec 8<"$(mnt n2)/keys/k"
	flock -n 8
	exec 7<&- 8<&-
	exec 8<"$(mnt n2)/keys/k"
	rm "$(mnt n1)/keys/k"
	wait_for 10 hides n2 keys k
	run ! flock -n 8
	[[ $output == *'Stale file handle' ]]
	exec 8<&-
}

vnodes_sum() { # ID: of all members, as ID says
	local id n=0
	for id in "$(mnt "$1")"/peers/n?; do
		((n += $(awk '$1 == "vnodes" { print $2 }' "$id")))
	done
	echo "$n"
}

has_nothing() { # ID NAME: as ID says
	[ "$(fact "$1" "$2" vnodes) $(fact "$1" "$2" keys)" = "0 0" ]
}

@test "peers says of each who it is, what it has and whether it votes; ring, members, status and top agree" {
	cluster 4
	for id in n1 n2 n3 n4; do claim_some $id 3; done
	wait_for 10 agree n1 n2 n3 n4
	for id in n1 n2 n3 n4; do
		wait_for 10 grep -qx 'standbys 1' "$(mnt $id)/status/quorum"
		[ "$(vnodes_sum $id)" = 4096 ]
		[ "$(cat "$(mnt $id)"/peers/n? | grep -cx 'role voter')" = 3 ]
		[ "$(cat "$(mnt $id)"/peers/n? | grep -cx 'role standby')" = 1 ]
		[ "$(cat "$(mnt $id)"/peers/n? | grep -cx 'keys 3')" = 4 ]
		for other in n1 n2 n3 n4; do
			[ "$(fact $id $other role)" = "$(fact n1 $other role)" ]
			[ "$(fact $id $other id)" = "$(fact $other self id)" ]
			[ "$(fact $id $other address)" = "$(addr "${other#n}")" ]
		done
		[ "$(leader $id)" = "$(leader n1)" ]
		run -0 "$RINGFS_BIN" ring -m "$(mnt $id)"
		[ "$(awk 'NR > 1 { n += $2; k += $4 } END { print n, k }' <<<"$output")" = \
			"4096 12" ]
		run -0 "$RINGFS_BIN" members -m "$(mnt $id)"
		[ "$(awk '$2 == "alive" && $3 == "voter"' <<<"$output" | wc -l)" = 3 ]
		wait_for 10 is_ok $id
		run -0 "$RINGFS_BIN" top -n 1 -m "$(mnt $id)"
		[[ $output == *"node $id, leader $(leader n1)"* ]]
		jq -e '[.nodes[].vnodes] | add == 4096' <"$(mnt $id)/status/json" \
			>/dev/null
	done
	[ "$(awk '$1 == "claims" { print $2 }' "$(mnt n4)/status/events")" -ge 3 ]
	grep -q '^ringfs_keys.* 12$' "$(mnt n2)/status/metrics.prom"
	crash_node n4
	for id in n1 n2 n3; do
		wait_for 10 sees $id n4 dead
		wait_for 10 has_nothing $id n4
		[ "$(vnodes_sum $id)" = 4096 ]
	done
}

@test "an outcome is unknown only while the log is silent: then all that follow are refused at once" {
	cluster 3
	lead=$(leader n1)
	mapfile -t rest < <(others 3 "$lead")
	kill -STOP "$(pid_of "${rest[0]}")" "$(pid_of "${rest[1]}")"
	for i in {1..6}; do
		touch "$(mnt "$lead")/keys/k$i" 2>&1 | sed 's/.*: //' || true
	done >"$BATS_TEST_TMPDIR/said" 3>&-
	kill -CONT "$(pid_of "${rest[0]}")" "$(pid_of "${rest[1]}")"
	[ "$(grep -c 'Connection timed out' "$BATS_TEST_TMPDIR/said")" -le 1 ]
	[ "$(grep -c 'Read-only file system' "$BATS_TEST_TMPDIR/said")" -ge 5 ]
	for id in n1 n2 n3; do wait_for 15 is $id ready; done
	wait_for 10 agree n1 n2 n3
	# Of those that were refused nothing was done; look again for the other.
	[ "$(names n1 keys | wc -l)" -le \
		"$(grep -c 'Connection timed out' "$BATS_TEST_TMPDIR/said")" ]
}

status_says() { # ID LINE
	"$RINGFS_BIN" status -m "$(mnt "$1")" | grep -qx "$2"
}

@test "what is wrong has a name: what is parked, who is missing, and since when a node is cut off" {
	cluster 3
	can_claim n1 k
	insist mv "$(mnt n1)/owned/k" "$(mnt n1)/parked/"
	wait_for 2 shows n2 parked k
	run -1 "$RINGFS_BIN" claim -m "$(mnt n2)" k
	[[ $output == *"'k': File exists (parked)" ]]
	run -1 "$RINGFS_BIN" keys -m "$(mnt n2)" use 0123456789abcdef
	[[ $output == *'(there is no such key)' ]]
	run -71 "$RINGFS_BIN" keys -m "$(mnt n2)" add /nonexistent
	split "1 2" 3
	wait_for 10 is n3 isolated
	wait_for 5 grep -q ' warning: isolated: ' "$(log_of n3)"
	wait_for 10 status_says n1 'missing n3'
	run ! status_says n1 'missing n2'
	heal
	wait_for 15 is n3 ready
	wait_for 5 grep -q ' info: ready: this node serves' "$(log_of n3)"
	wait_for 10 is_ok n1
	run ! status_says n1 'missing n3'
}
