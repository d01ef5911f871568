#!/bin/bash
# SPDX-License-Identifier: MIT
# A folder's include lines are its dependencies; these are the ones allowed.
set -u
cd "$(dirname "$0")/.." || exit
shopt -s nullglob
bad=0

forbid() { # SENTENCE PATTERN [--but REGEX] FILE...
	local sentence=$1 pattern=$2 but='^$' hits
	shift 2
	[ "${1-}" != --but ] || { but=$2; shift 2; }
	(($# > 0)) || return 0
	hits=$(grep -HnE "$pattern" "$@" | grep -vE "$but") || return 0
	printf 'layers: %s:\n%s\n' "$sentence" "$hits"
	bad=1
}

inc='^#[[:space:]]*include[[:space:]]*'
all=(fs/*.[ch] ring/*.[ch] gossip/*.[ch])
forbid "gossip/ knows neither fs/ nor ring/" "$inc\"(fs|ring)/" gossip/*.[ch]
forbid "ring/ knows neither fs/ nor gossip/" "$inc\"(fs|gossip)/" ring/*.[ch]
forbid "fs/ sees only ring/ring.h and gossip/gossip.h" "$inc\"(ring|gossip)/" \
	--but '"(ring/ring|gossip/gossip)\.h"' fs/*.[ch]
forbid "only fs/cluster.c and fs/node.c see gossip/" "$inc\"gossip/" \
	--but '^fs/(cluster|node)\.c:' fs/*.[ch]
forbid "includes are written from the root" "$inc\"[^/\"]*\"" "${all[@]}"
forbid "raft.h belongs to ring/group*.c" "$inc<raft(\.h|/)" \
	--but '^ring/group_(impl|wire)\.h:' "${all[@]}"
forbid "lmdb.h belongs to ring/store*.c and gossip/records.c" "$inc<lmdb\.h" \
	--but '^(ring/store_impl\.h|gossip/records\.c):' "${all[@]}"
forbid "sodium.h belongs to gossip/seal.c, and fs/state.c's random" \
	"$inc<sodium\.h" --but '^(gossip/seal|fs/state)\.c:' "${all[@]}"
forbid "jansson.h belongs to one file of fs/" "$inc<jansson\.h" \
	ring/*.[ch] gossip/*.[ch]
forbid "uv.h never in ring/" "$inc<uv\.h" ring/*.[ch]
forbid "uv.h only in gossip/net* and gossip/gossip*" "$inc<uv\.h" \
	--but '^gossip/(net|gossip)[a-z_]*\.[ch]:' gossip/*.[ch]
forbid "fuse_lowlevel.h only in fs/mount.c, fs/tree*.c and fs/dir*" \
	"$inc<(fuse3/)?fuse" --but '^fs/(mount|tree|tree_[a-z]+|dir[a-z_]*)\.[ch]:' \
	"${all[@]}"
exit $bad
