/* SPDX-License-Identifier: MIT */
/* The replicated log: C-Raft's core over our own disk, by rules 14 to 21 of the
 * design. The only user of raft.h.
 *
 * Entries are bytes; what they mean is the caller's. The core is trusted, its
 * libuv backend is not used: this file gives it a struct raft_io of which every
 * part does one thing, on wal.c and store.c through two workers (disk.c): one
 * for the log, one for the store and for making and removing segments.
 *
 * A disk error makes the server mute: it drops everything in and out, votes and
 * leads no more, until the process restarts (rule 14). A full disk is not an
 * error: nothing is written until there is room.
 *
 * Thread: loop. */
#ifndef RING_GROUP_H
#define RING_GROUP_H

#include "ring/buf.h"
#include "ring/ring.h"
#include "ring/store.h"

struct group;

struct group_config {
	const char *dir;
	struct ring_id cluster, node;
	bool create; /* there may be no log yet: bootstrap one with us alone */

	/* An entry is committed: apply it. 0, or negative: the machine cannot
	 * (malformed): the group fails. */
	int (*apply)(void *data, uint64_t index, const void *bytes, size_t len);
	/* Collect the machine's changes for the store, as of the last entry
	 * applied. */
	void (*collect)(void *data, struct store_batch *out);
	/* Load one record, or the rest, from the store. 0 or -EBADMSG. */
	int (*load_key)(void *data, const void *record, size_t len);
	int (*load_meta)(void *data, const void *meta, size_t len);
	/* Leadership was won (after this term's first commit) or lost, the disk
	 * failed, became full, or has room again. */
	void (*on_change)(void *data);
	void (*on_log)(void *data, int level, const char *line);
	void (*wake)(void *data); /* thread: any */
	void *data;
};

/* Open the log and the store and load them, then start. The first entry that was
 * ever applied, if it is still in the log, is given to peek before anything is
 * applied; non-zero from it is given back. Errors as ring_open's. */
int group_open(const struct group_config *config, uint64_t now_ms,
	       int (*peek)(void *data, const void *bytes, size_t len),
	       struct group **out, char errmsg[RING_ERRMSG_SIZE]);

/* Append an entry; it was applied here when apply has been called with it, or it
 * never will be when leadership was lost meanwhile. Takes bytes (b is empty
 * afterwards). 0, -EAGAIN: not the leader, or the library refuses just now. */
int group_propose(struct group *g, uint64_t now_ms, struct buf *b);

void group_wake(struct group *g, uint64_t now_ms);

/* Gives the milliseconds until it is due again. */
uint32_t group_tick(struct group *g, uint64_t now_ms);

struct group_status {
	bool is_leader;	 /* and has committed in this term */
	bool failed;	 /* mute; errmsg says why */
	bool full;	 /* no room for the log; errmsg says where */
	bool store_full; /* no room for the store: the log cannot be cut */
	size_t room;	 /* bytes that may be appended before it is full */
	bool no_spare;	 /* and then there is no room for more, just now */
	uint64_t term, applied;
	uint32_t n_voters, n_standbys;
	uint64_t log_bytes, n_entries, n_syncs;
	const char *errmsg;
};
void group_status(const struct group *g, struct group_status *out);

/* As ring_close. */
void group_close(struct group *g);

#endif
