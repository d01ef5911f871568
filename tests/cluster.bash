# SPDX-License-Identifier: MIT
# What the tests of a whole cluster ask of it. Load it after helper.bash and
# hosts.bash.
# shellcheck shell=bash disable=SC2034,SC2154 # they are bats' and the tests'

MEMBER_ARGS=(--claims any)

# A node that a busy machine keeps from the others for a moment refuses a change,
# and has done nothing of it: then it is tried again.
insist() { # COMMAND...
	local said end=$((EPOCHSECONDS + 10 * PATIENCE))
	until said=$("$@" 2>&1); do
		[[ $said == *'Read-only file system' ]] &&
			((EPOCHSECONDS < end)) || fail "$said" || return
		sleep 0.1
	done
}

can_claim() { # ID KEY
	insist touch "$(mnt "$1")/keys/$2"
}

shows() { # ID DIR KEY
	[ -e "$(mnt "$1")/$2/$3" ]
}

hides() { # ID DIR KEY
	[ ! -e "$(mnt "$1")/$2/$3" ]
}

xattr() { # ID KEY WORD
	getfattr --only-values -n "user.ring.$3" "$(mnt "$1")/keys/$2"
}

is() { # ID STATE
	[ "$(<"$(mnt "$1")/status/state")" = "$2" ]
}

# A node may know that it is isolated before its lease is out.
shows_nothing() { # ID
	[ -z "$(names "$1" owned)$(names "$1" recover)" ]
}

# The log may be heard before the members are: until then it is degraded.
is_ok() { # ID
	[[ $("$RINGFS_BIN" status -m "$(mnt "$1")") == ok* ]]
}

names() { # ID DIR
	ls "$(mnt "$1")/$2"
}

# All nodes have applied the same, and have made the same of it.
agree() { # ID...
	local id first=
	sync "$(mnt "$1")/status"
	for id; do
		sync "$(mnt "$id")/status"
		[ -n "$first" ] || first=$(<"$(mnt "$id")/status/hash")
		[ "$first" = "$(<"$(mnt "$id")/status/hash")" ] || return
	done
}

heir_of() { # KEY ID...: who has it in recover/
	local key=$1 id
	shift
	for id; do shows "$id" recover "$key" && echo "$id"; done
	true
}

# Is every key of the list in the recover/ of exactly one of the nodes?
inherited() { # "KEY..." ID...
	local key keys=$1 n
	shift
	for key in $keys; do
		n=$(heir_of "$key" "$@" | wc -l)
		((n == 1)) || fail "$key is with $n of them" || return
	done
}

leader() { # ID: who leads the log, as ID says
	awk '{ print $1 }' "$(mnt "$1")/status/leader"
}

others() { # N ID...: of nodes 1 to N those that are not named
	local n=$1
	shift
	seq -f 'n%g' "$n" | grep -vxF "$(printf '%s\n' "$@")"
}

voters() { # ID N
	grep -qx "voters $2" "$(mnt "$1")/status/quorum"
}

# Nodes 1 to N, as many of them voting as shall.
cluster() { # N
	local voters=$1 k
	members "$1"
	((voters != 4)) || voters=3
	((voters <= 5)) || voters=5
	for ((k = 1; k <= $1; k++)); do wait_for 20 voters "n$k" "$voters"; done
}

claim_noted() { # ID KEY
	can_claim "$1" "$2"
	# shellcheck disable=SC2016 # the inner shell's
	insist bash -c 'echo "note of $1" >"$2"' - "$2" "$(mnt "$1")/owned/$2"
}

claim_some() { # ID N: ID-1 .. ID-N with notes, all held by ID
	local i
	for ((i = 1; i <= $2; i++)); do claim_noted "$1" "$1-$i"; done
}

# A claim that must be refused, at once and without effect.
refused() { # ID KEY [TEXT]
	local id=$1 key=$2 text=${3-Read-only file system} begin=$EPOCHREALTIME
	run -1 touch "$(mnt "$id")/keys/$key"
	[[ $output == *"$text" ]] || fail "$id: $output" || return
	((${EPOCHREALTIME/./} - ${begin/./} < 1500000)) || fail "not at once"
}

# Whose owned/ or recover/ shows KEY?
held_by() { # KEY ID...
	local key=$1 id
	shift
	for id; do
		if shows "$id" owned "$key" || shows "$id" recover "$key"; then
			echo "$id"
		fi
	done
}

# The events of DIRs, in ID.events; the id of the watcher is in $WATCHER.
watch() { # ID DIR...
	local id=$1 dir dirs=()
	shift
	for dir; do dirs+=("$(mnt "$id")/$dir"); done
	spawn "$TOOLS/watch" "${dirs[@]}" >"$BATS_TEST_TMPDIR/$id.events"
	WATCHER=$!
	wait_for 10 grep -qx watching "$BATS_TEST_TMPDIR/$id.events"
}

heard() { # ID EVENT N: so many of it
	[ "$(grep -cE "^$2" "$BATS_TEST_TMPDIR/$1.events")" = "$3" ]
}

# Node nK, which was a member before, without waiting for it.
launch_again() { # K [ARG...]
	local k=$1
	shift
	ON="nsenter --net=/run/netns/$(host_ns "$k")" BIND=$(addr "$k") \
		launch_node "n$k" --key-file "$(key_of n1)" "$@"
}

back() { # K [ARG...]: and wait
	launch_again "$@"
	started "n$1"
	wait_for 20 is "n$1" ready
}

# As if the machine lost its power: nobody is left to tell of it.
cut_power() { # ID
	kill -KILL "$(herald_of "$1")" "$(pid_of "$1")"
	wait "$(pid_of "$1")" 2>/dev/null || true
	rm "$BATS_TEST_TMPDIR/$1.pid"
	detach "$(mnt "$1")"
}
