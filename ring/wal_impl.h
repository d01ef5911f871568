/* SPDX-License-Identifier: MIT */
/* What the log's files share: the format's structs, and the few system calls.
 *
 * wal.c appends, wal_open.c reads back, wal_format.c knows the bytes and
 * wal_file.c the system calls. Private to these four. */
#ifndef RING_WAL_IMPL_H
#define RING_WAL_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "ring/buf.h"
#include "ring/wal.h"

#define WAL_BLOCK     4096 /* a segment's header; its size is a multiple */
#define WAL_ALIGN     64   /* of a batch */
#define WAL_BATCH     32   /* bytes of a batch's header */
#define WAL_CLOSE     64 /* kept free in each segment, for the closing batch */
#define WAL_BATCH_MAX (1u << 30)
#define WAL_NAME_SIZE 32
#define WAL_WAY_OUT                                                            \
	"restore the file, or remove the state directory and join again as "   \
	"a new node"

/* ---- wal_format.c ---- */

struct wal_head {
	struct ring_id cluster, node;
	uint64_t server; /* raft id */
	uint64_t number; /* of the segment */
	uint64_t bytes;	 /* of the segment */
	uint64_t first;	 /* no batch here has an index below */
	uint64_t last;	 /* index, when the segment was begun; so are: */
	uint64_t term, vote;
	uint64_t seq; /* of the first batch here */
	uint32_t generation;
	bool restart; /* no entry of the segments before counts any more */
};
void wal_head_encode(const struct wal_head *h, struct buf *out);
/* 0; -EUCLEAN; -EPROTONOSUPPORT: written in another version of the format. */
int wal_head_decode(struct wal_head *h, const uint8_t block[WAL_BLOCK]);

enum wal_record {
	WAL_ENTRY = 1,
	WAL_VOTE,
	WAL_CLOSED,
	WAL_GENERATION
};

struct wal_batch {
	uint64_t seq;
	uint32_t length; /* of header, records and trailer */
	uint32_t count;	 /* of records */
	uint32_t lag;	 /* batches before this one that were not yet flushed */
};
void wal_batch_begin(struct buf *out);
void wal_put_entry(struct buf *out, const struct wal_entry *e);
void wal_put_vote(struct buf *out, uint64_t term, uint64_t vote);
void wal_put_closed(struct buf *out, uint64_t next);
void wal_put_generation(struct buf *out, uint32_t generation);
/* Complete what was put since wal_batch_begin; b->length is set. */
void wal_batch_end(struct buf *out, struct wal_batch *b, uint64_t server);
size_t wal_entry_bytes(const struct wal_entry *e);
size_t wal_batch_bytes(size_t records); /* on disk, aligned */

/* What lies at offset of a segment. */
enum wal_look {
	WAL_LOOK_BATCH,	    /* a sound batch, in *b */
	WAL_LOOK_END,	    /* nothing but zeros from here on */
	WAL_LOOK_UNWRITTEN, /* a batch of which something is still zeros */
	WAL_LOOK_DAMAGED,   /* anything else */
};
enum wal_look wal_look_at(const uint8_t *segment, size_t bytes, size_t offset,
			  struct wal_batch *b);
/* Does a batch header from offset on say that batch seq had been flushed? */
bool wal_was_flushed(const uint8_t *segment, size_t bytes, size_t offset,
		     uint64_t seq);
/* The records of a sound batch, made readable in place. */
struct reader wal_records(uint8_t *segment, size_t offset,
			  const struct wal_batch *b, uint64_t server);
bool wal_is_zero(const uint8_t *at, size_t n);

/* ---- wal_file.c: whole or an error, whatever the kernel does in between ---- */

void wal_file_name(char name[WAL_NAME_SIZE], uint64_t number);
int wal_file_read(int fd, void *bytes, size_t n, size_t offset);
int wal_file_write(int fd, const void *bytes, size_t n, size_t offset);
int wal_file_zero(int fd, size_t n, size_t offset);
int wal_file_flush(int fd);
int wal_file_flush_dir(int dirfd);
/* Make name in dirfd anew: zeros, flushed. On error there is no such file. */
int wal_file_make(int dirfd, const char *name, size_t bytes, int *fd);

/* ---- The log ---- */

struct wal_segment {
	uint64_t number;
	size_t bytes;
	uint64_t lowest, highest; /* index; UINT64_MAX and 0 if none */
};

struct wal {
	int dirfd;
	struct ring_id cluster, node;
	uint64_t server;
	size_t segment_bytes;

	/* The log's worker only. */
	bool failed; /* what is on disk is unknown: refuse everything */
	int fd;
	struct wal_segment now; /* the one appended to */
	size_t offset;		/* of the next batch */
	uint64_t seq;		/* of the next batch */
	uint64_t flushed;	/* up to this seq */
	uint64_t last;		/* index */
	uint64_t term, vote;
	uint32_t generation;
	struct buf batch; /* the one being written */

	/* Both workers. Held while files are made or removed: an append takes
	 * it only to begin a segment, and then has to wait for the spare that
	 * is being made in any case. */
	pthread_mutex_t lock;
	struct wal_segment *old; /* n_old, the oldest first */
	size_t n_old;
	bool restarting;	   /* the next segment begins the log anew */
	int spare_fd;		   /* or -1 */
	atomic_size_t spare_bytes; /* 0: there is none */

	_Atomic uint64_t bytes; /* of all files */
	atomic_size_t left;	/* of now, for appends: kept by wal_moved() */
};

/* wal.c: offset or segment have changed. */
void wal_moved(struct wal *w);

/* wal.c: begin segment number in the file name, which is all zeros. */
int wal_begin_segment(struct wal *w, int fd, const char *name,
		      const struct wal_segment *s, uint64_t seq);

#endif
