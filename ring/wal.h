/* SPDX-License-Identifier: MIT */
/* The log on disk: entries, term and vote, in preallocated segments.
 *
 * dir/wal/NNNNNNNNNNNNNNNN.seg (hex sequence number, from 1), written with
 * zeros and flushed before it is used, so that an append costs one flush: no block
 * is allocated, no size changes. See wal_format.c for the format, field by
 * field.
 *
 * One append is one batch, the unit of what may be torn by a crash. What did
 * not reach the disk whole, and had not been flushed, is cut off: nothing was
 * answered for it. Damage anywhere else, a flipped bit in the last batch too,
 * is reported with file and offset and never repaired.
 *
 * An entry replaces what an earlier batch held at its index and after: that is
 * how a conflicting tail is cut, without a call of its own.
 *
 * Thread: wal_open: the loop, while nothing else runs. The rest: the log's
 * worker (wal_prepare and wal_trim: the store's worker; they touch only files
 * that the log's worker has not got, or has left behind). */
#ifndef RING_WAL_H
#define RING_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/ring.h"

#define WAL_SEGMENT_BYTES (8u << 20) /* default size of a segment */

struct wal;

struct wal_entry {
	uint64_t index, term;
	uint8_t type; /* opaque */
	const void *data;
	size_t len; /* at most 64 MiB; a segment is made larger for it */
};

struct wal_config {
	const char *dir;	/* borrowed during wal_open */
	struct ring_id cluster; /* stamped into every segment, checked */
	struct ring_id node;	/* likewise */
	uint64_t server;	/* raft id, likewise; 0: take what is there */
	uint32_t generation;	/* of a new log */
	size_t segment_bytes;	/* of new segments; a multiple of 4096 */
};

/* What wal_open found. All of it is flushed. */
struct wal_found {
	uint64_t term, vote;
	uint64_t server;     /* raft id; made at random with a new log */
	uint32_t generation; /* raised by wal_recover() */
	uint64_t first;	     /* index of entry[0]; the entries are consecutive.
			     * Without entries: one past the last index */
	struct wal_entry *entry; /* data points into memory of its own, which
				  * wal_found_finish() releases */
	size_t n_entries;
	bool created;	     /* there was no log: one was made */
	uint64_t torn_bytes; /* cut off the tail, for the log line */
};
void wal_found_finish(struct wal_found *f);

/* Open dir/wal, or make it if create and there is none. Cuts a torn tail. If
 * the first segments are missing, found->first is beyond what was trimmed: that
 * is for the caller to see.
 * 0; else nothing was changed, and errmsg (RING_ERRMSG_SIZE) has one sentence
 * with the file, and the offset where there is one:
 * -EUCLEAN damaged; -ENOENT a segment, or the whole log, is missing;
 * -EXDEV another cluster's or node's; -EPROTONOSUPPORT another version's;
 * -ENOSPC; -EIO; -EACCES ... */
int wal_open(const struct wal_config *config, bool create, struct wal **out,
	     struct wal_found *found, char *errmsg);

/* Append n entries as one batch, which is on disk after the next wal_sync().
 * Entries are consecutive, the first at most one past the last.
 * 0; -ENOSPC: no room and no spare segment: nothing was written, call again
 * when there is one; -EMSGSIZE: more than 1 GiB: nothing was written; -EIO,
 * ...: the log's state is unknown: stop, everything is refused with -EIO
 * now. */
int wal_append(struct wal *w, const struct wal_entry *entries, size_t n);

/* Record term and vote, as a batch of its own. As wal_append, the flush too. */
int wal_set_vote(struct wal *w, uint64_t term, uint64_t vote);

/* Append entry, and raise the generation, as one batch: after a crash both are
 * there, or neither is. As wal_append. */
int wal_recover(struct wal *w, const struct wal_entry *entry,
		uint32_t generation);

/* Begin anew at index first: no entry before this counts any more, term and
 * vote do. On disk when this returns 0; when the machine stops before, the log is
 * as it was, or begun anew. For a log that a snapshot has replaced.
 * As wal_append; -ENOSPC: the log is as it was, call again. */
int wal_restart(struct wal *w, uint64_t first);

/* Flush what was appended: one fdatasync, or none if there is nothing. 0 or
 * -EIO, ...: stop. */
int wal_sync(struct wal *w);

/* Room left for appends in the current and spare segments, in bytes. A batch
 * takes 40 bytes, and 22 per entry, and is rounded up to 64. Thread: any. */
size_t wal_room(const struct wal *w);

/* Make the spare segment if there is none: zeros, flushed. 0, or -ENOSPC, -EIO:
 * there is none, the log is as it was. Holds up an append that needs a segment
 * meanwhile, no other. */
int wal_prepare(struct wal *w);

/* Remove the oldest segments in which every entry is below index. No entry
 * below it may be appended afterwards. 0 or -EIO. */
int wal_trim(struct wal *w, uint64_t index);

/* Bytes of all segments on disk. Thread: any. */
uint64_t wal_bytes(const struct wal *w);

void wal_close(struct wal *w); /* flushes; accepts NULL */

/* Remove the log in dir, of which none is open. After a crash it is there, or it
 * is not. 0 or negative errno. */
int wal_remove(const char *dir);

/* The calling thread has a descriptor table of its own now: close what it has
 * of the log. Before the first append; from now on all of w is for the
 * workers. */
void wal_leave(const struct wal *w);

#endif
