/* SPDX-License-Identifier: MIT */
/* What gossip/ keeps on disk: dumps of replicated records and the addresses of
 * members, in DIR/gossip/data.mdb, an LMDB file. It knows items, a kind and an
 * index each with some bytes, and not what they mean. See records.c for what
 * stands in the file.
 *
 * All of it can be had back from the other members, but for the way to them; so
 * a damaged file is no reason not to start. It is set aside, as
 * DIR/gossip.damaged-N, and what is whole in it is taken over: every item has a
 * checksum of its own.
 *
 * LMDB trusts its file: pages have no checksum and are read through a map, so
 * that a flipped bit can crash the program or lose records, and a file cut
 * short ends it with SIGBUS. Therefore LMDB here only ever sees files that this
 * very process has made. What a former one left is read by records_read.c,
 * which believes nothing; the first write makes a new file beside it with all
 * there is, and renames it over the old one.
 *
 * Thread: the loop, but records_write(): a worker. One write at a time, and
 * nothing else while it runs. Private to gossip/. */
#ifndef GOSSIP_RECORDS_H
#define GOSSIP_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/gossip.h"

#define RECORDS_ITEM_MAX  (16u << 20)	      /* bytes of one item */
#define RECORDS_BYTES_MAX ((size_t)512 << 20) /* of all: the size of the map */

struct records;
struct records_batch;

struct records_item {
	uint8_t kind;
	uint32_t index;
	const uint8_t *bytes; /* borrowed for the call */
	size_t len;
};

typedef void (*records_cb)(void *data, const struct records_item *item);

/* Open DIR/gossip, which is made if it is missing, and give all that is kept,
 * in order of kind and index. Blocks.
 *
 * note  a sentence if the file was damaged, and what became of it; or ""
 *
 * 0; else errmsg: -EACCES, -ENOSPC, -EROFS, ... */
struct records_load {
	records_cb on_item;
	void *data;
	char *note; /* GOSSIP_ERRMSG_SIZE */
};
int records_open(const char *dir, const struct records_load *load,
		 struct records **out, char errmsg[GOSSIP_ERRMSG_SIZE]);
void records_close(struct records *r); /* accepts NULL */

/* Begin a batch: it shall say all there is to be kept. */
struct records_batch *records_begin(struct records *r);
/* Copied, if the file does not have it already. Kinds and indexes each once. */
void records_put(struct records_batch *b, const struct records_item *item);
/* Is all of it in the file already? Then there is nothing to write. */
bool records_is_kept(const struct records_batch *b);
/* Write it, as one transaction, durably. Thread: worker.
 *
 * 0; -ENOSPC, the disk or RECORDS_BYTES_MAX; -EIO, ... : then the file is what
 * it was, and the next batch is to try again. */
int records_write(struct records_batch *b);
/* The batch is over, written or not; released. */
void records_end(struct records_batch *b);

/* Of records_read.c: give the items of the LMDB file at path whose checksums
 * are right. on_item may have been called before it fails.
 *
 * 0; -ENOENT; -EUCLEAN: damaged, *what says where; -EPROTONOSUPPORT: of a later
 * format; -EIO, -EACCES, ... */
int records_read(const char *path, const struct records_load *load,
		 const char **what);

#endif
