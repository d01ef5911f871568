/* SPDX-License-Identifier: MIT */
/* The inside of a group: group.c opens and runs it, group_io.c is the disk that
 * the library writes to. These two are the only ones that know the library. */
#ifndef RING_GROUP_IMPL_H
#define RING_GROUP_IMPL_H

#include <raft.h>
#include <stdatomic.h>

#include "ring/disk.h"
#include "ring/group.h"
#include "ring/wal.h"

#if RAFT_VERSION_NUMBER < 2201 || RAFT_VERSION_NUMBER >= 2300
#error "libraft 0.22.1 or a later 0.22 is needed: older ones lose entries"
#endif

/* A snapshot is due after so many entries, or bytes, whichever is first. */
#define SNAPSHOT_ENTRIES 8192
#define SNAPSHOT_BYTES	 (32u << 20)
#define TRAILING_ENTRIES 1024

/* A proposal in the library's hands, until its index is applied. */
struct proposal {
	struct raft_apply req;
	struct proposal *next;
};

struct group {
	struct group_config config;
	struct raft raft;
	struct raft_io io;
	struct raft_fsm fsm;
	raft_io_tick_cb tick_cb;

	struct wal *wal;
	struct store *store;
	struct disk *log_disk;	 /* appends, term and vote */
	struct disk *store_disk; /* snapshots, segments */
	struct wal_found found;	 /* until load() has given it to the library */
	struct store_batch meta; /* likewise: what the store had */

	uint64_t now_ms, tick_at_ms;
	struct proposal *proposals; /* oldest first */
	struct raft_barrier barrier;
	bool barrier_sent, confirmed;
	bool was_leader;

	uint64_t bytes_since_snapshot;
	uint64_t prepare_at_ms, store_retry_at_ms;
	bool preparing, prepare_full, store_full;
	struct put_job *put_waiting; /* a snapshot that found no room */
	struct append_job *lost;     /* that a failed log has not written */
	atomic_bool log_full;	     /* the log's worker waits for room */
	bool was_full, failed, closing;
	uint64_t n_entries;
	atomic_uint_fast64_t n_syncs; /* written by the log worker */
	char errmsg[RING_ERRMSG_SIZE];
};

/* group.c */
__attribute__((format(printf, 3, 4))) void group_say(struct group *g, int level,
						     const char *format, ...);
/* Rule 14: mute until the process restarts. */
__attribute__((format(printf, 2, 3))) void group_fail(struct group *g,
						      const char *format, ...);
int group_apply(struct raft_fsm *fsm, const struct raft_buffer *b,
		void **result);

/* group_io.c */

/* Fill g->io and g->fsm. */
void group_io_set(struct group *g);
/* Keep a spare segment, so that no append waits for one. */
void group_io_prepare(struct group *g);
/* Try a snapshot again that found no room, when it is time; or give it up. */
void group_io_retry(struct group *g);
void group_io_give_up(struct group *g);
/* What the store says of the library's snapshot; the caller closes its
 * configuration. 0 or -EBADMSG. */
int group_io_snapshot(const struct buf *b, struct raft_snapshot *out);

#endif
