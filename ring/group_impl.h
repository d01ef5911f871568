/* SPDX-License-Identifier: MIT */
/* The inside of a group. The files that know the library:
 *
 *   group.c          opens and runs it
 *   group_io.c       the disk that the library writes to
 *   group_net.c      the other servers, as the library sees them
 *   group_copy.c     sends the content of a snapshot
 *   group_install.c  receives it, and puts it in the store's place
 *   group_roles.c    who is in the group, and who leads it
 *   group_moved.c    a log that may be a copy
 *   group_recover.c  a log that has lost its group
 *   group_wire.c     messages to bytes */
#ifndef RING_GROUP_IMPL_H
#define RING_GROUP_IMPL_H

#include <raft.h>
#include <stdatomic.h>

#include "ring/disk.h"
#include "ring/group.h"
#include "ring/group_wire.h"
#include "ring/wal.h"

#if RAFT_VERSION_NUMBER < 2201 || RAFT_VERSION_NUMBER >= 2300
#error "libraft 0.22.1 or a later 0.22 is needed: older ones lose entries"
#endif

/* Settings of the library: election 300 ms as measured for the best fail-over
 * without false alarms, own tick, heartbeat 1 ms so that a tick always
 * sends. */
#define ELECTION_MS   300
#define HEARTBEAT_MS  1
#define TICK_MS	      30
#define TICK_ALONE_MS 250 /* nobody waits for a heartbeat of a sole server */
#define NEVER	      UINT64_MAX

/* A snapshot is due after so many entries, or bytes, whichever is first: what
 * is in the log is in memory as well. */
#define SNAPSHOT_ENTRIES 8192
#define SNAPSHOT_BYTES	 (16u << 20)
#define TRAILING_ENTRIES 1024
#define TRAILING_BYTES	 (4u << 20)

/* A proposal in the library's hands, until its index is applied. */
struct proposal {
	struct raft_apply req;
	struct proposal *next;
};

/* Bytes that wait for a vote to be on disk (rule 15). */
struct held {
	uint64_t vote; /* the number of the last vote before them */
	struct ring_id to;
	bool bulk;
	struct buf bytes;
	struct held *next;
};

#define FLIGHTS_MAX 32

/* Another server, from when it is first sent to or heard. */
struct peer {
	uint64_t server; /* raft id */
	struct ring_id node;
	uint64_t heard_ms;     /* or NEVER */
	uint64_t told_commit;  /* the commit index it was told last */
	bool is_waiting;       /* to be told, see group_hurry() */
	uint64_t keepalive_ms; /* the last one sent */

	/* Entries on the bulk lane that it has not answered, oldest first. */
	struct flight {
		uint64_t last; /* index */
		size_t bytes;
	} flight[FLIGHTS_MAX];
	unsigned n_flights;
	size_t flying;	    /* bytes */
	uint64_t flying_ms; /* since when there is no progress */
	uint64_t again_ms;  /* without any: sent again after so long */
	uint64_t bulk_ms;   /* last use of the lane; NEVER: not in use */

	struct copy *copy;  /* being sent to it, or NULL */
	uint64_t asked;	    /* index of the snapshot the library sent last */
	uint64_t copied;    /* index of the last copy it has got, or 0 */
	uint64_t copied_ms; /* when */

	/* It would vote for us: when it said so, with which last index of ours;
	 * 0: it would not. */
	uint64_t granted_ms, granted_index;
};

struct group {
	struct group_config config;
	char *dir;
	struct raft raft;
	struct raft_io io;
	struct raft_fsm fsm;
	raft_io_tick_cb tick_cb;
	raft_io_recv_cb recv_cb;

	struct wal *wal;
	struct store *store;
	struct disk *log_disk;	 /* appends, term and vote */
	struct disk *store_disk; /* snapshots, segments, copies */
	struct wal_found found;	 /* until load() has given it to the library */
	struct store_batch meta; /* snapshot: what the store's last says */
	bool replaced; /* the store came from another node, the log not yet */

	uint32_t generation;

	uint64_t now_ms, tick_at_ms;
	struct proposal *proposals; /* oldest first */
	struct raft_barrier barrier;
	bool barrier_sent, confirmed;
	bool was_leader, was_in_contact;
	uint64_t was_term, was_server; /* the leader's raft id */

	/* Snapshots. */
	uint64_t bytes_since_snapshot, applied_at_snapshot;
	uint64_t prepare_at_ms, store_retry_at_ms;
	bool preparing, prepare_full, store_full;
	struct put_job *put_waiting; /* a snapshot that found no room */

	/* The log's disk. */
	struct append_job *appends, **appends_tail; /* in order */
	struct append_job *lost;       /* that a failed log has not written */
	atomic_bool log_full;	       /* the log's worker waits for room */
	uint64_t last_term, last_vote; /* as last given to the worker */
	uint64_t n_votes, n_votes_done;
	struct held *held, **held_tail;
	size_t held_bytes;

	/* The others. */
	struct peer **peers;
	size_t n_peers;
	uint64_t leader_heard_ms; /* as a follower; or NEVER */
	uint64_t notice_at_ms; /* tell those who do not know the commit index */
	uint64_t noticed;      /* that commit index */
	bool is_hurried;       /* some peer is waiting */
	struct arrival *arrival; /* a copy that is being received, or NULL */
	unsigned n_ending;	 /* those before it with jobs on their way */
	struct install_job *install_waiting; /* failed, for our close */
	bool is_moved;			     /* see group_moved.c */
	uint64_t moved_leader, moved_term, moved_since_ms, moved_heard_ms;
	struct raft_change change;
	struct raft_transfer transfer;

	uint64_t slow_since_ms; /* it does not answer, and we lead; or NEVER */
	bool was_full, failed, closing;
	bool stalled; /* mute until the log's disk answers (rule 16) */
	uint64_t n_entries, bytes_appended;
	atomic_uint_fast64_t n_syncs; /* written by the log worker */
	char errmsg[RING_ERRMSG_SIZE];
};

/* ---- group.c ---- */

__attribute__((format(printf, 3, 4))) void group_say(struct group *g, int level,
						     const char *format, ...);
/* Rule 14: mute until the process restarts. */
__attribute__((format(printf, 2, 3))) void group_fail(struct group *g,
						      const char *format, ...);
int group_apply(struct raft_fsm *fsm, const struct raft_buffer *b,
		void **result);
/* Open and load what is on disk, with the library ready to be started, or not
 * to be: group_release(). */
int group_load(const struct group_config *config, struct group **out,
	       char *errmsg);
void group_release(struct group *g);
/* What the caller has put into an entry; NULL: it is malformed. */
const uint8_t *group_entry_bytes(const struct raft_buffer *b, size_t *len);
/* After every entry into the library. */
void group_after(struct group *g);
/* Time never goes back. */
void group_set_time(struct group *g, uint64_t now_ms);
/* Empty the machine and load it from the store. 0 or -errno, with errmsg. */
int group_reload(struct group *g, char *errmsg);

/* ---- group_io.c ---- */

/* Fill g->io and g->fsm. */
void group_io_set(struct group *g);
/* Keep a spare segment, so that no append waits for one. */
void group_io_prepare(struct group *g);
/* Try a snapshot again that found no room, when it is time; or give it up. */
void group_io_retry(struct group *g);
void group_io_give_up(struct group *g);
/* When the oldest append was posted that is not done, or NEVER. */
uint64_t group_io_oldest(const struct group *g);
/* Do op until it has room, or until nobody waits for it any more: the library
 * must not hear of a full disk (rule 14). Thread: log worker. */
int group_io_with_room(struct group *g, int (*op)(struct disk_job *job),
		       struct disk_job *job);
/* What the store says of the library's snapshot; the caller closes its
 * configuration. replaced: it came from another node, and the log does not
 * begin behind it yet. 0 or -EBADMSG. */
int group_io_snapshot(const struct buf *b, struct raft_snapshot *out,
		      bool *replaced);
void group_io_put_snapshot(struct buf *b, const struct raft_snapshot *s,
			   bool replaced);

/* ---- group_net.c ---- */

int group_net_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *message, raft_io_send_cb cb);
/* Send m, which is no vote and needs none, whatever is held. */
void group_net_post(struct group *g, const struct ring_id *to, bool bulk,
		    const struct wire_message *m);
/* A vote is on disk: send what has waited for it. */
void group_net_release(struct group *g);
/* The commit index may have risen: tell the others soon. */
void group_net_commit(struct group *g);
void group_net_tick(struct group *g);
/* We do not lead any more: forget what was in flight, stop what was copied. */
void group_net_deposed(struct group *g);
void group_net_finish(struct group *g);
const struct raft_server *group_net_server(const struct group *g,
					   uint64_t server);
struct peer *group_net_peer(const struct group *g, uint64_t server);
/* The term of an entry, as the library knows it; 0: it does not. */
uint64_t group_net_term(const struct raft *r, uint64_t index);
void group_address(const struct ring_id *id, char out[33]);
bool group_node(const char *address, struct ring_id *out);

/* ---- group_copy.c ---- */

void group_copy_start(struct group *g, struct peer *p);
void group_copy_ack(struct group *g, struct peer *p, const struct wire_ack *a);
void group_copy_tick(struct group *g);
void group_copy_stop(struct group *g, struct peer *p); /* if there is one */
/* The index up to which the log is needed behind copies, or NEVER. */
uint64_t group_copy_index(const struct group *g);

/* ---- group_install.c ---- */

/* Takes what m has. */
void group_install_begin(struct group *g, const struct peer *p,
			 struct wire_message *m);
void group_install_chunk(struct group *g, const struct peer *p,
			 const struct wire_chunk *c);
/* A copy is whole: give it to the library, if it can take it now. */
void group_install_try(struct group *g);
/* The library has taken it: swap the stores, begin the log anew. */
void group_install_put(struct group *g, struct raft_io_snapshot_put *req,
		       const struct raft_snapshot *snapshot);
void group_install_tick(struct group *g);
void group_install_finish(struct group *g);

/* ---- group_moved.c ---- */

/* The library has its configuration. */
void group_moved_open(struct group *g);
/* May the message go out, or be taken in? */
bool group_moved_sends(const struct group *g, const struct raft_message *m);
bool group_moved_takes(struct group *g, struct peer *p,
		       const struct wire_message *m);
/* Have all other voters said that they would vote for us? */
bool group_moved_has_all(const struct group *g);
bool group_moved_is_refuted(const struct group *g);

/* ---- group_roles.c ---- */

bool group_is_alone(const struct group *g); /* the only server there is */
bool group_in_contact(const struct group *g);
void group_roles_status(const struct group *g, struct group_status *out);
/* Rule 16: lead no longer than the log's disk answers. */
void group_roles_check_disk(struct group *g);

#endif
