#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Several nodes on one machine, by real sockets: who is in the cluster, as files
# and verbs show it. What the protocol does is proven in virtual time, by the
# swim tests; here it is joined to the tree.

load helper

local_setup() {
	need fuse jq
	cd "$BATS_TEST_TMPDIR" || return
}

local_teardown() {
	local pid
	for pid in "${WATCHERS[@]}"; do kill "$pid" 2>/dev/null || true; done
	cd /
}

fact() { # ID NAME FACT: what node ID says of member NAME
	awk -v key="$3" '$1 == key { print $2 }' "$1/mnt/peers/$2"
}

address() { # ID: where it is reached
	fact "$1" self address
}

# As start_node: with the key of member VIA, joins it.
join_node() { # ID VIA [ARG...]
	local id=$1 via=$2
	shift 2
	mkdir -p "$id/state"
	cp "$via/state/key" "$id/state/key"
	start_node "$id" --join "$(address "$via")" "$@"
}

is() { # ID NAME FACT VALUE
	[ "$(fact "$1" "$2" "$3")" = "$4" ]
}

sees() { # ID NAME STATE
	is "$1" "$2" state "$3"
}

peers() { # ID: the names in peers/
	(cd "$1/mnt/peers" && echo *)
}

peers_are() { # ID NAMES
	[ "$(peers "$1")" = "$2" ]
}

three_nodes() {
	start_node a
	join_node b a
	join_node c a
	for id in a b c; do wait_for 10 peers_are "$id" "a b c self"; done
}

# The mount must fail with STATUS; what it says is in $output.
refuses() { # STATUS ID [ARG...]
	local status=$1 id=$2
	shift 2
	mkdir -p "$id/mnt"
	run "-$status" ringfs mount -f --state "$id/state" --name "$id" \
		--bind 127.0.0.1:0 "$@" "$id/mnt"
}

says() { # PART: of $output
	[[ $output == *"$1"* ]] || fail "'$1' is not in: $output"
}

watch() { # ID: events in its peers/ appear in events.ID as "EVENT NAME"
	spawn inotifywait -m -e create -e delete -e modify \
		--format '%e %f' "$1/mnt/peers" >>"events.$1" 2>"watch.$1"
	WATCHERS+=($!)
	wait_for 10 grep -q established "watch.$1"
}

heard() { # ID EVENT NAME
	grep -qxF "$2 $3" "events.$1"
}

# ---- Joining ----

@test "three nodes see each other, with what each says of itself" {
	start_node a --weight 50 --claims any
	join_node b a
	join_node c b --client
	touch a/mnt/keys/k
	for id in a b c; do
		wait_for 10 peers_are "$id" "a b c self"
		for name in a b c; do
			wait_for 10 sees "$id" "$name" alive
			is "$id" "$name" id "$(fact "$name" self id)"
			is "$id" "$name" address "$(address "$name")"
			wait_for 10 is "$id" "$name" boot 1
			wait_for 10 is "$id" "$name" version \
				"$(ringfs version | cut -d ' ' -f 2)"
		done
		[ "$(readlink "$id/mnt/peers/self")" = "$id" ]
		wait_for 10 is "$id" a weight 50
		wait_for 10 is "$id" a keys 1
		wait_for 10 is "$id" b weight 100
		wait_for 10 is "$id" c weight 0
		wait_for 10 is "$id" c vnodes 0
		[ $(($(fact "$id" a vnodes) + $(fact "$id" b vnodes))) = 4096 ]
		wait_for 10 is "$id" c role client
		wait_for 10 is "$id" b role voter
	done
	wait_for 10 eval '[ "$(fact a b rtt_us)" -gt 0 ]'
	[ "$(fact a b incarnation)" -ge "$((1 << 32))" ]
	# The mtime is since when the state is so, and stays.
	before=$(stat -c %y c/mnt/peers/*)
	for i in {1..20}; do [ "$(stat -c %y c/mnt/peers/*)" = "$before" ]; done
	[ "$(stat -c %Y a/mnt/peers/b)" = "$(fact a b since | cut -d . -f 1)" ]
	cluster=$(jq -r .cluster a/mnt/status/json)
	[ "$(jq -r .cluster c/mnt/status/json)" = "$cluster" ]
	grep -q "^cluster $cluster\$" b/state/identity
}

@test "the port is served: TCP takes connections" {
	start_node a
	at=$(address a)
	exec 9<>"/dev/tcp/${at%:*}/${at##*:}"
	exec 9>&-
	sees a self alive
}

is_ok() { # ID
	[ "$(ringfs status -m "$1/mnt" | head -n 1)" = ok ]
}

@test "members, status and metrics show all nodes" {
	three_nodes
	run -0 ringfs members -m a/mnt
	[ "$(awk 'NR > 1 { print $1, $2, $8 }' <<<"$output")" = \
		"$(for id in a b c; do echo "$id alive $(address $id)"; done)" ]
	run -0 ringfs members --json -m b/mnt
	[ "$(jq -r '[.nodes[].name] | sort | join(" ")' <<<"$output")" = "a b c" ]
	[ "$(jq -r '.nodes[] | select(.self) | .name' <<<"$output")" = b ]
	run -0 ringfs ring -m c/mnt
	[ "$(awk 'NR > 1 { n += $2 } END { print NR - 1, n }' <<<"$output")" = \
		"3 4096" ]
	wait_for 10 is_ok a
	run -0 ringfs status -m a/mnt
	says $'\nnodes 3'
	grep -qx 'ringfs_members{state="alive"} 3' a/mnt/status/metrics.prom
	grep -qx 'ringfs_node_alive{node="c"} 1' a/mnt/status/metrics.prom
	[ "$(jq .gossip.alive a/mnt/status/json)" = 3 ]
	[ "$(jq .gossip.packets_in a/mnt/status/json)" -gt 0 ]
}

@test "a joiner takes over the cluster's settings, and keeps them" {
	start_node a --vnodes 64 --claims any --max-attempts 7
	join_node b a
	for fact in vnodes max_attempts; do
		[ "$(grep "^$fact " a/mnt/status/limits)" = \
			"$(grep "^$fact " b/mnt/status/limits)" ]
	done
	[ "$(jq -r .claims b/mnt/status/json)" = any ]
	stop_node b
	start_node b
	grep -qx 'vnodes 64' b/mnt/status/limits
	join_node c a --vnodes 64 --claims any
}

@test "other settings than the cluster's are refused, both values named" {
	start_node a --vnodes 64 --handover-timeout 7
	mkdir -p b/state
	cp a/state/key b/state/
	refuses 78 b --join "$(address a)" --vnodes 128
	says "--vnodes 128 was asked for"
	says "--vnodes 64"
	refuses 78 b --join "$(address a)" --claims any
	says "--claims any"
	says "--claims owner"
	refuses 78 b --join "$(address a)" --handover-timeout never
	says "--handover-timeout 7"
	peers_are a "a self"
	join_node b a # the same state, and nothing is left of the refusals
}

@test "a name that a living member has is refused" {
	start_node a
	mkdir -p b/state
	cp a/state/key b/state/
	refuses 78 b --name a --join "$(address a)"
	says "the name a is taken by the member at $(address a)"
	says "--name"
	join_node b a
}

@test "without the key a node does not join, and is told what to copy" {
	start_node a
	refuses 78 b --join "$(address a)"
	says "copy the file 'key'"
	says "$PWD/b/state/key"
	says --key-file
	ringfs keygen other
	refuses 78 b --join "$(address a)" --key-file other
	says "its key is another"
	refuses 78 b --join "$(address a)" --insecure
	says "takes sealed connections only"
	chmod 644 other
	refuses 77 b --join "$(address a)" --key-file other
	says other
	refuses 78 b --join "$(address a)" --key-file none
	says "none"
	peers_are a "a self"
	start_node b --join "$(address a)" --key-file a/state/key
	wait_for 10 peers_are a "a b self"
}

@test "what is no key file is refused with 78, whatever else it is" {
	start_node a
	stop_node a
	mv a/state/key key
	refuses_key() { # TEXT: a/state/key, as it is now
		chmod 600 a/state/key
		refuses 78 a
		says "$PWD/a/state/key"
		says "$1"
	}
	: >a/state/key
	refuses_key "there is no key in it"
	head -c 60 key >a/state/key
	refuses_key "line 1: no key"
	head -c 100000 /dev/zero >a/state/key
	refuses_key "or no key file"
	tr 'a-m' 'n-z' <key >a/state/key
	refuses_key "line "
	rm a/state/key
	mkdir a/state/key
	refuses 78 a
	says "is a directory"
	rmdir a/state/key
	cp key a/state/key
	start_node a
}

@test "where nobody answers, the mount fails after ten seconds and says where" {
	mkdir -p b/state b/mnt
	ringfs keygen b/state/key
	before=$SECONDS
	refuses 75 b --join 127.0.0.1:1 --join 127.0.0.1:2
	((SECONDS - before >= 9 && SECONDS - before <= 16))
	says "'127.0.0.1:1' or '127.0.0.1:2'"
	# In the background it is the command that waits.
	run -75 ringfs mount --state b/state --bind 127.0.0.1:0 \
		--join 127.0.0.1:1 b/mnt
	says "no member of a cluster answered"
	# It has no cluster so far; and that is not made by accident.
	refuses 78 b
	says "has joined no cluster yet"
	start_node b --new
}

@test "a joiner that is told to stop while nobody answers stops" {
	mkdir -p b/state
	ringfs keygen b/state/key
	launch_node b --join 127.0.0.1:1
	wait_for 10 [ -e b/state/gossip ]
	stop_node b
}

@test "holes 22: a wiped node that has a key does not start a cluster alone" {
	start_node a
	stop_node a
	key=$(<a/state/key)
	rm -r a/state
	mkdir a/state
	install -m 600 <(echo "$key") a/state/key
	refuses 78 a
	says "there is a key, '$PWD/a/state/key', but no state"
	says --join
	says --new
	[ ! -e a/state/identity ]
	mv a/state/key key
	refuses 78 a --key-file key
	says "$PWD/key"
	start_node a --new --key-file key
	[ ! -e a/state/key ]
}

@test "the founder's key is its owner's alone, and made for an old state, too" {
	start_node a
	[ "$(stat -c %a a/state/key)" = 600 ]
	stop_node a
	rm -r a/state/key a/state/gossip # as before nodes spoke with each other
	start_node a
	[ "$(stat -c %a a/state/key)" = 600 ]
	stop_node a
	rm a/state/key # but who has spoken with others needs theirs
	refuses 78 a
	says "$PWD/a/state/key"
	says "copy it"
}

@test "in the clear, by request; and back to sealed in a running cluster" {
	start_node a --insecure
	[ ! -e a/state/key ]
	start_node b --insecure --join "$(address a)"
	wait_for 10 peers_are a "a b self"
	[ "$(jq -r .gossip.seal a/mnt/status/json)" = clear ]
	ringfs keygen key
	for mode in yes both no; do
		for id in a b; do
			via=b
			[ "$id" = a ] || via=a
			stop_node "$id"
			start_node "$id" --key-file key -o "insecure=$mode" \
				--join "$(address "$via")"
			wait_for 10 sees a b alive
			wait_for 10 sees b a alive
		done
	done
	[ "$(jq -r .gossip.seal a/mnt/status/json)" = sealed ]
}

# ---- Coming and going ----

@test "a node that comes, changes and goes raises CREATE, MODIFY and DELETE" {
	need inotifywait
	start_node a
	watch a
	join_node b a
	wait_for 10 heard a CREATE b
	run ! heard a CREATE a
	stop_node b
	wait_for 10 heard a MODIFY b
	wait_for 10 sees a b dead
	: >events.a
	rm a/mnt/peers/b
	wait_for 10 heard a DELETE b
	[ "$(grep -c 'DELETE b' events.a)" = 1 ]
	peers_are a "a self"
}

@test "changes of weight are heard; packets that come and go are not" {
	need inotifywait
	start_node a
	join_node b a
	stop_node b
	wait_for 10 sees a b dead
	watch a
	start_node b --join "$(address a)" --weight 7
	wait_for 10 is a b weight 7
	wait_for 10 heard a MODIFY b
	packets() { jq .gossip.packets_in a/mnt/status/json; }
	# Whatever else b said when it came has been heard by then.
	before=$(packets)
	wait_for 10 eval "((\$(packets) > $before + 20))"
	: >events.a
	before=$(packets)
	wait_for 10 eval "((\$(packets) > $before + 20))"
	[ ! -s events.a ]
}

@test "a killed node is dead; back again it is alive in its next life" {
	three_nodes
	id=$(fact a b id)
	incarnation=$(fact a b incarnation)
	crash_node b
	wait_for 10 sees a b dead
	wait_for 10 sees c b dead
	start_node b --join "$(address a)"
	wait_for 10 sees a b alive
	wait_for 10 sees c b alive
	is a b id "$id"
	wait_for 10 is a b boot 2
	[ "$(fact a b incarnation)" -gt "$incarnation" ]
	wait_for 10 peers_are b "a b c self"
}

@test "I2: back on another port it is the same member at another address" {
	three_nodes
	old=$(address b)
	crash_node b
	start_node b --join "$(address a)"
	[ "$(address b)" != "$old" ]
	wait_for 10 is a b address "$(address b)"
	wait_for 10 sees a b alive
	wait_for 10 is c b address "$(address b)"
	peers_are a "a b c self"
}

@test "an unmount is no leave: the others expect the node back" {
	start_node a
	join_node b a
	wait_for 10 peers_are a "a b self"
	ringfs umount b/mnt
	wait_for 10 sees a b dead
	rm b.pid
	start_node b
	wait_for 10 sees a b alive
}

@test "leave is told at once, unmounts, and keeps the state" {
	three_nodes
	pid=$(pid_of b)
	rm b.pid
	run -0 ringfs leave -m b/mnt
	[ -z "$output" ]
	gone "$pid"
	wait "$pid"
	run ! is_mounted "$PWD/b/mnt"
	wait_for 10 sees a b left
	wait_for 10 sees c b left
	run -0 ringfs members -m a/mnt
	says "left"
	[ "$(jq .gossip.left a/mnt/status/json)" = 1 ]
	start_node b # I9: and comes back
	wait_for 10 sees a b alive
	wait_for 10 sees c b alive
	wait_for 10 is a b boot 2
}

@test "the last node leaves, too" {
	start_node a
	pid=$(pid_of a)
	rm a.pid
	run -0 ringfs leave --timeout 5 -m a/mnt
	wait "$pid"
}

@test "I7: after a stop of all, the nodes find each other without being told" {
	three_nodes
	at=()
	for id in a b c; do at+=("$(address $id)"); done
	for id in a b c; do stop_node $id; done
	for i in 0 1 2; do
		id=$(cut -c $((i + 1)) <<<abc)
		launch_node "$id" --bind "${at[i]}"
	done
	for id in a b c; do wait_for 15 serves $id; done
	for id in a b c; do
		for name in a b c; do wait_for 15 sees $id $name alive; done
	done
}

@test "rm peers/NAME forgets the dead, on all nodes, and refuses the living" {
	three_nodes
	run -1 rm a/mnt/peers/b
	says "Device or resource busy"
	run -1 rm a/mnt/peers/self
	says "Device or resource busy"
	run -1 rm a/mnt/peers/a
	says "Device or resource busy"
	run -1 rm a/mnt/peers/none
	says "No such file or directory"
	run -1 ringfs forget -m a/mnt b none
	says "'b': Device or resource busy (it lives)"
	says "'none': No such file or directory"
	stop_node b
	wait_for 10 sees a b dead
	wait_for 10 sees c b dead
	rm a/mnt/peers/b
	peers_are a "a c self"
	wait_for 10 peers_are c "a c self"
	start_node b --join "$(address a)" # forgotten is not forbidden
	wait_for 10 sees a b alive
	stop_node c
	wait_for 10 sees a c dead
	run -0 ringfs forget -m a/mnt c
	peers_are a "a b self"
}

@test "ctl forgets, too, and says what it cannot" {
	need inotifywait
	start_node a
	join_node b a
	run -1 bash -c 'echo forget b >a/mnt/ctl'
	says "Device or resource busy"
	stop_node b
	wait_for 10 sees a b dead
	watch a
	echo forget b >a/mnt/ctl
	peers_are a "a self"
	wait_for 10 heard a DELETE b
	exec 9<>a/mnt/ctl
	printf 'forget b\njoin x\nkey-use 0123\nkey-use 0123456789abcdef\n' >&9
	run -0 cat <&9
	exec 9>&-
	[ "$output" = $'ENOENT b\nEINVAL x\nEINVAL 0123\nENOENT 0123456789abcdef' ]
}

@test "of two members with one name the first keeps it" {
	three_nodes
	wait_for 10 grep -qx 'voters 3' a/mnt/status/quorum
	crash_node b
	wait_for 10 sees a b dead
	# The dead one's name may be taken ...
	mv b old
	join_node b a
	wait_for 10 sees a b alive
	id=$(fact b self id)
	is a b id "$id"
	old=$(awk '$1 == "node" { print $2 }' old/state/identity)
	sees a "b~${old:0:8}" dead
	# ... and when its owner comes back, the name is another's.
	refuses 78 old --name b --join "$(address a)"
	says "has the name b; wait, or choose another"
	wait_for 10 sees a b alive
	is a b id "$id"
	start_node old --name d
	wait_for 10 sees a d alive
	is a d id "$old"
}

@test "holes 12: a state that was copied stops the older life, with status 78" {
	start_node a
	join_node b a
	# Then its log is at rest: who has acknowledged more than its copy has
	# cannot be replaced by it.
	wait_for 10 is a b role voter
	cp -r b/state copy
	pid=$(pid_of b)
	mkdir c
	mv copy c/state
	rm c/state/lock
	start_node c --name b --join "$(address a)"
	wait_for 10 gone "$pid"
	rm b.pid
	run -78 wait "$pid"
	grep -q "was copied or restored" log/b
	wait_for 10 sees a b alive
	is a b address "$(address c)"
	# And never again, however often it is started.
	refuses 78 b
	says "it cannot come back"
}

@test "holes 12: a state that was restored is told of its later lives, with status 78" {
	three_nodes
	stop_node b
	cp -r b/state backup
	for _ in 1 2; do
		start_node b
		stop_node b
	done
	rm -r b/state
	mv backup b/state
	refuses 78 b
	says "was copied or restored"
}

@test "a node of another cluster stays out, and both go on" {
	start_node a
	start_node x
	run -75 ringfs join --timeout 2 -m x/mnt "$(address a)"
	says "no member is heard at this address"
	peers_are a "a self"
	peers_are x "self x"
}

# ---- Verbs ----

@test "join says what it cannot" {
	start_node a
	join_node b a
	run -0 ringfs join -m b/mnt "$(address a)"
	sees b a alive
	run -64 ringfs join -m b/mnt nowhere
	says "there is no colon"
	run -75 ringfs join --timeout 1 -m b/mnt 127.0.0.1:1
	says "127.0.0.1:1"
	run -1 bash -c 'echo join nowhere >b/mnt/ctl'
	says "Invalid argument"
}

lacks() { # ID KEY N
	[ "$(ringfs keys --json -m "$1/mnt" | jq --arg id "$2" \
		'.keyring[] | select(.id == $id) | .lack')" = "$3" ]
}

used() { # ID: the key in use
	ringfs keys -m "$1/mnt" | awk '$2 == "used" { print $1 }'
}

uses() { # ID KEY
	[ "$(used "$1")" = "$2" ]
}

n_keys() { # ID N
	[ "$(ringfs keys -m "$1/mnt" | tail -n +2 | wc -l)" = "$2" ]
}

@test "K1: the secret is changed by three verbs, and nobody is locked out" {
	three_nodes
	old=$(used a)
	[[ $old =~ ^[0-9a-f]{16}$ ]]
	grep -qx "$old used 0" a/mnt/status/keyring
	run -1 ringfs keys remove -m a/mnt "$old"
	says "it is in use"
	new=$(ringfs keys add -m a/mnt)
	[[ $new =~ ^[0-9a-f]{16}$ && $new != "$old" ]]
	for id in a b c; do wait_for 10 lacks "$id" "$new" 0; done
	uses a "$old"
	ringfs keys use -m b/mnt "$new"
	for id in a b c; do wait_for 10 uses "$id" "$new"; done
	ringfs keys remove -m c/mnt "$old"
	for id in a b c; do wait_for 10 n_keys "$id" 1; done
	for id in a b c; do
		for name in a b c; do wait_for 10 sees $id $name alive; done
		run ! grep -q "$old" "$id/mnt/status/keyring"
	done
	stop_node c # the file has it, too
	start_node c
	wait_for 10 sees a c alive
}

@test "K1: a key is not used while a dead member lacks it" {
	start_node a
	join_node b a
	old=$(used a)
	stop_node b
	wait_for 10 sees a b dead
	new=$(ringfs keys add -m a/mnt)
	lacks a "$new" 1
	run -1 ringfs keys use -m a/mnt "$new"
	says "members lack"
	start_node b # it comes back with the old key, and is told
	wait_for 10 lacks a "$new" 0
	ringfs keys use -m a/mnt "$new"
	wait_for 10 uses b "$new"
}

@test "a key that was made elsewhere is added, once" {
	start_node a
	ringfs keygen key
	[ "$(stat -c %a key)" = 600 ]
	run -78 ringfs keygen key
	new=$(ringfs keys add key -m a/mnt)
	grep -q "^$new held 0\$" a/mnt/status/keyring
	run -1 ringfs keys add key -m a/mnt
	says "File exists"
	echo 'ringfs-key-1 nonsense' >bad
	run -64 ringfs keys add -m a/mnt bad
	says "no line of a key file"
	run -64 ringfs keys use -m a/mnt 12
	run -1 ringfs keys use -m a/mnt 0123456789abcdef
	says "No such file"
	ringfs keygen | ringfs keys add - -m a/mnt
	n_keys a 3
	run ! grep -rqF "$(awk '/^ringfs-key/ { print $2 }' key)" a/mnt/status log
}

@test "only the mount's owner and root administer" {
	need root setpriv
	chmod o+x "$BATS_RUN_TMPDIR"
	start_node a --group 23456
	join_node b a
	stop_node b
	wait_for 10 sees a b dead
	as() { setpriv --reuid 12346 --regid 12346 --groups 23456 "$@"; }
	as touch a/mnt/keys/k # the group may work
	run -1 as rm -f a/mnt/peers/b
	says "Operation not permitted"
	for verb in "join 127.0.0.1:1" leave "forget b" key-add; do
		run ! as bash -c "echo $verb >a/mnt/ctl"
		[[ $output == *"Permission denied"* || \
			$output == *"Operation not permitted"* ]]
	done
	run -77 as "$RINGFS_BIN" leave -m a/mnt
	run -77 as "$RINGFS_BIN" forget -m a/mnt b
	run -77 as "$RINGFS_BIN" keys add -m a/mnt
	peers_are a "a b self"
	n_keys a 1
	as cat a/mnt/status/keyring a/mnt/peers/b >/dev/null
}

@test "what is expected of the cluster is shown" {
	launch_node a --expect 3
	wait_for 10 grep -qx joining a/mnt/status/state
	grep -qx 'expect 3' a/mnt/status/quorum
	stop_node a
	start_node a
	grep -qx 'expect 1' a/mnt/status/quorum
}

completes() { # ANSWERS WORD...: the last word is the current one
	local want=$1
	shift
	# shellcheck disable=SC2016
	[ "$(bash --norc -c 'source "$0"
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		COMP_LINE=$* COMP_POINT=${#COMP_LINE}
		_ringfs
		printf "%s\n" "${COMPREPLY[@]}" | sort | xargs' \
		"$BATS_TEST_DIRNAME/../fs/ringfs.bash-completion" \
		"$RINGFS_BIN" "$@" 3>&-)" = "$want" ]
}

@test "completion knows members and keys" {
	start_node a
	join_node b a
	wait_for 10 peers_are a "a b self"
	wait_for 10 completes "a b" forget -m a/mnt ""
	wait_for 10 completes "add list remove use" keys ""
	wait_for 10 completes "$(used a)" keys -m a/mnt use ""
	wait_for 10 completes "local" mount --preset lo
}
