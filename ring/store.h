/* SPDX-License-Identifier: MIT */
/* The machine as of one index of the log, in LMDB: the snapshot, the fast
 * start, and what a new node is sent.
 *
 * Each write is one transaction, so the store is always exactly at one index.
 * Everything is checked when it is read back: each record and meta by a
 * checksum of its own, all records by a sum over them, LMDB's pages by
 * store_check.c. See store.c for what is kept.
 *
 * Thread: store_open, store_load and store_close: the loop, while nothing else
 * runs. store_write: the store's worker. */
#ifndef RING_STORE_H
#define RING_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "ring/buf.h"

struct store;

/* A set of changes to write as one transaction. */
struct store_batch {
	struct buf records; /* repeated: u64 life, u32 len, len bytes;
			      * len 0 = the life is over: delete */
	size_t n_records;
	struct buf meta;     /* the machine's, whole */
	struct buf snapshot; /* group.c's: index, term, configuration */
};

void store_batch_finish(struct store_batch *b); /* releases the buffers */

/* Open or create dir/store. map_bytes is how far it may grow before the map is
 * made larger: address space, neither disk nor memory.
 * 0; -EUCLEAN: damaged, errmsg names file and offset; -ENOSPC, ... */
int store_open(const char *dir, size_t map_bytes, struct store **out,
	       char *errmsg);

/* Remove dir/store, if it is there. */
void store_remove(const char *dir);

/* What the last write left. Calls on_key for each record in order of life, then
 * gives the two metas (free() releases them; len 0 when the store is new, or on
 * error). After an error, what on_key was given is not to be used.
 * 0, the first non-zero of on_key, or -EUCLEAN with errmsg. */
int store_load(struct store *s,
	       int (*on_key)(void *data, const void *record, size_t len),
	       void *data, struct buf *meta, struct buf *snapshot,
	       char *errmsg);

/* Write b as one transaction, durably. Grows the map when needed (MAP_FULL is
 * not the disk being full).
 * 0; -ENOSPC, -EIO: nothing changed, try again; -EUCLEAN: damaged, stop. */
int store_write(struct store *s, const struct store_batch *b);

void store_close(struct store *s); /* accepts NULL */

/* The calling thread has a descriptor table of its own now: close what it has
 * of the store. From now on all but store_load is for the worker. */
void store_leave(const struct store *s);

/* ---- Sending a store, and receiving one. Thread: the store's worker ---- */

struct store_census {
	uint64_t txn;	 /* LMDB's id of it */
	uint64_t n, sum; /* of records, and of their checksums */
};

struct store_reader;

/* Begin to read s as it is now, whatever is written meanwhile. 0 or -errno. */
int store_reader_open(struct store *s, struct store_reader **out);

/* The two metas, and what is in the store. 0; -ENOENT: the store is new;
 * -ESTALE: as store_reader_next. */
int store_reader_metas(struct store_reader *r, struct store_batch *out,
		       struct store_census *census);

/* Add the next records, some bytes of them, to out; none at the end.
 * 0; -ESTALE: the store was moved, begin again; -EUCLEAN. */
int store_reader_next(struct store_reader *r, size_t bytes,
		      struct store_batch *out);

/* Accepts NULL. Also after the store is closed. */
void store_reader_close(struct store_reader *r);

/* Make dir/store.copy, empty, for store_write. 0 or -errno. */
int store_copy_open(const char *dir, struct store **out);

/* Is it whole? Then flush it. 0; -EBADMSG: it is not what was sent. */
int store_copy_seal(struct store *s, const struct store_census *want);

void store_copy_discard(struct store *s); /* takes s */

/* Let copy take the place of s, for good: after a crash at any step one of them
 * is there, whole. Takes copy. 0 or -errno: s is closed, and must be opened
 * anew by a restart. */
int store_swap(struct store *s, const char *dir, struct store *copy);

#endif
