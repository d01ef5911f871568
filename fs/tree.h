/* SPDX-License-Identifier: MIT */
/* The tree: FUSE requests to directories, directories to the ring.
 *
 * A node id says what it is about: the top byte is the class, the rest the
 * class's own id (a key's life, a node's index, a file's place). Nothing is
 * kept per looked-up name, so there is nothing to forget, and an id is never
 * used for another thing: lives only rise. A held key keeps its id through
 * rename between owned, recover and parked, since these share a class.
 *
 * Lookups, listings and attributes are answered from memory, at once. Changes
 * become a struct call that waits for the ring; it is answered exactly once: by
 * the ring, or with EINTR when the caller is interrupted. */
#ifndef FS_TREE_H
#define FS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "ring/ring.h"

struct tree;
struct cluster;
struct herald;
struct fuse_lowlevel_ops;

extern const struct fuse_lowlevel_ops tree_ops;

struct tree_config {
	struct ring *ring;
	struct herald *herald;
	const char *mountpoint; /* copied */
	uid_t uid;		/* the mount's owner */
	gid_t gid;
	mode_t write_mode; /* 0755, or 0775 with a group */
	const char *version;
	const char *address;	 /* ADDR:PORT of this node */
	struct cluster *cluster; /* borrowed; NULL: this node is all there is */
	uint32_t expect;	 /* nodes to be seen together, for status/ */
};

struct tree *tree_create(const struct tree_config *config);
void tree_destroy(struct tree *t);

/* The names of the directories that are heralded, by index in the table. */
void tree_herald_dirs(const char *dirs[], size_t n, size_t *best_effort);

/* From ring_config's callbacks. */
void tree_on_change(struct tree *t, const struct ring_change *change);
void tree_on_status(struct tree *t);
/* From cluster_config's on_change. */
void tree_on_peers(struct tree *t);

/* Once per turn, before the loop sleeps: let go who has waited too long. Gives
 * the milliseconds until it is due again. */
uint32_t tree_flush(struct tree *t, uint64_t now_ms);

/* No new call is let in; those that wait are abandoned (before the unmount). */
void tree_drain(struct tree *t);

#endif
