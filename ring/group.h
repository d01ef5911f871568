/* SPDX-License-Identifier: MIT */
/* The replicated log: C-Raft's core over our own disk and our own messages, by
 * rules 14 to 21 of the design. The only user of raft.h.
 *
 * Entries are bytes; what they mean is the caller's. The core is trusted, its
 * libuv backend is not used: these files give it a struct raft_io of which
 * every part does one thing, on wal.c and store.c through two workers (disk.c):
 * one for the log, one for the store and for making and removing segments.
 *
 * A server is a log: it has a random raft id that is made and kept with the
 * log, so a node that lost its log is another server (rule 21). A server's
 * address, in the configuration, is its node's id in hex.
 *
 * Messages leave as (node, lane, bytes) and may be lost; the caller carries
 * them on sealed streams, one per peer and lane, each in order. Large ones go on
 * the bulk lane, so that heartbeats pass them.
 *
 * A disk error makes the server mute: it drops everything in and out, votes and
 * leads no more, until the process restarts (rule 14). A disk that does not
 * answer for a second makes a leader hand over, and mute until it answers (rule
 * 16). A full disk is not an error: nothing is written until there is room.
 *
 * Thread: loop. */
#ifndef RING_GROUP_H
#define RING_GROUP_H

#include "ring/buf.h"
#include "ring/ring.h"
#include "ring/store.h"

struct group;

struct group_config {
	const char *dir; /* copied */
	struct ring_id cluster, node;
	/* What to do when there is no log yet: make one in which we are the
	 * only voter; or an empty one, and wait to be contacted, whatever the
	 * store has. With neither, it is an error. */
	bool create, join;
	uint32_t generation; /* of a log that is made */
	bool is_moved;	     /* the log may be a copy: see group_status */

	/* An entry is committed: apply it. 0, or negative: the machine cannot
	 * (malformed): the group fails. */
	int (*apply)(void *data, uint64_t index, const void *bytes, size_t len);
	/* Collect the machine's changes for the store, as of the last entry
	 * applied. */
	void (*collect)(void *data, struct store_batch *out);
	/* Load one record, or the rest, from the store. 0 or -EBADMSG. */
	int (*load_key)(void *data, const void *record, size_t len);
	int (*load_meta)(void *data, const void *meta, size_t len);
	/* Another node's snapshot takes the machine's place: make it as it was
	 * before the first load_key; load_key and load_meta follow, at once. */
	void (*reset)(void *data);
	/* Leadership was won (after this term's first commit) or lost, the
	 * leader, the term or the contact changed, the disk failed, became
	 * full, or has room again. */
	void (*on_change)(void *data);
	void (*on_log)(void *data, int level, const char *line);
	/* Send bytes (borrowed) to a node: fire and forget, may be dropped.
	 * What waits in a lane is to be bounded: drop beyond 4 MiB, but let an
	 * empty lane take a message of any size (rule 20). NULL: there are no
	 * others. */
	void (*send)(void *data, const struct ring_id *to, bool bulk,
		     const void *bytes, size_t len);
	void (*wake)(void *data); /* thread: any */
	void *data;

	/* A snapshot is due after so many entries, and so many stay in the log
	 * behind it. 0: as measured best. */
	uint32_t snapshot_entries, trailing_entries;
	uint64_t seed;	  /* of election timeouts, for a simulator; 0: random */
	bool inline_jobs; /* no threads: group_disk_step() does their work */
};

/* Open the log and the store and load them, then start. The first entry that
 * was ever applied, if it is still in the log, is given to peek before anything
 * is applied; non-zero from it is given back. Errors as ring_open's. */
int group_open(const struct group_config *config, uint64_t now_ms,
	       int (*peek)(void *data, const void *bytes, size_t len),
	       struct group **out, char errmsg[RING_ERRMSG_SIZE]);

/* Of the log; see group_recover(). */
uint32_t group_generation(const struct group *g);

/* Append an entry; it was applied here when apply has been called with it, or
 * it never will be when leadership was lost meanwhile. Takes bytes (b is empty
 * afterwards). 0, -EAGAIN: not the leader, or the library refuses just now. */
int group_propose(struct group *g, uint64_t now_ms, struct buf *b);

/* For apply: what is applied now was asked for by node, and it waits: tell it that
 * this is committed at once, not with the next entry or in a moment. */
void group_hurry(struct group *g, const struct ring_id *node);

void group_wake(struct group *g, uint64_t now_ms);

/* A message has come from a node, as the other side's send was given it. Bytes
 * are borrowed. What makes no sense is dropped. */
void group_recv(struct group *g, uint64_t now_ms, const struct ring_id *from,
		const void *bytes, size_t len);

/* Gives the milliseconds until it is due again. */
uint32_t group_tick(struct group *g, uint64_t now_ms);

/* When group_tick is due: every call into the group may make it earlier. */
uint64_t group_due_ms(const struct group *g);

enum group_role {
	GROUP_STANDBY, /* has the log, does not vote */
	GROUP_VOTER,
	GROUP_SPARE, /* has nothing */
	GROUP_NONE   /* is not in the configuration */
};

struct group_status {
	bool is_leader;	   /* and has committed in this term */
	bool failed;	   /* mute; errmsg says why */
	bool stalled;	   /* mute until the log's disk answers */
	bool full;	   /* no room for the log; errmsg says where */
	bool store_full;   /* no room for the store: the log cannot be cut */
	bool in_contact;   /* a leader: heard a majority within the election
			  * timeout; else: heard a leader */
	bool has_leader;   /* leader is one: we, or the one we follow */
	bool is_changing;  /* group_change() is on its way */
	bool is_receiving; /* a snapshot is on its way to us */
	bool is_moved;	   /* the log may be a copy: mute, until all agree */
	bool is_refuted;   /* and others go on without it: give it up */
	struct ring_id leader;
	enum group_role role; /* ours */
	size_t room;	      /* bytes that may be appended before it is full */
	bool no_spare;	      /* and then there is no room for more, just now */
	uint64_t term, applied, committed;
	uint64_t
		durable_term; /* term, once it and its vote are on disk; or 0 */
	uint32_t n_voters, n_standbys, n_servers;
	uint64_t log_bytes, n_entries, n_syncs;
	const char *errmsg;
};
void group_status(const struct group *g, struct group_status *out);

/* ---- Who is in the group ---- */

struct group_server {
	uint64_t server; /* raft id */
	struct ring_id node;
	enum group_role role;
	uint64_t match;	   /* index; 0 unless we lead */
	uint64_t heard_ms; /* when we heard it last; UINT64_MAX: never, or us */
};

/* Our own raft id. */
uint64_t group_server_id(const struct group *g);

/* Fill at most max; gives how many there are. */
size_t group_servers(const struct group *g, struct group_server *out,
		     size_t max);

enum group_change_kind {
	GROUP_ADD, /* as a spare */
	GROUP_TO_STANDBY,
	GROUP_TO_VOTER, /* once it has caught up; given up after a while */
	GROUP_TO_SPARE,
	GROUP_REMOVE
};

/* Change the configuration; one at a time. It is done when is_changing is false
 * and group_servers says so, or it has failed. node is for GROUP_ADD alone. A
 * node that lost its log is a new server: remove the old one, then add.
 * 0; -EBUSY: one is on its way, or leadership is being handed on; -EAGAIN: not
 * the leader; -EEXIST: server or node is in; -ENOENT: it is not; -EINVAL: it
 * has that role, or it is us: hand on leadership first. */
int group_change(struct group *g, uint64_t now_ms, enum group_change_kind kind,
		 uint64_t server, const struct ring_id *node);

/* Hand leadership to a voter; 0: any. Until it is done, or given up after an
 * election timeout, group_propose says -EAGAIN.
 * 0; -EAGAIN: not the leader; -EBUSY; -ENOENT: no such voter, or no other. */
int group_transfer(struct group *g, uint64_t now_ms, uint64_t server);

/* The leader is proven dead: stand for election at once (rule 19). For one
 * voter at a time; another one that is asked later stands as well, if nobody
 * leads by then. 0; -EAGAIN: we follow no leader, do not vote, or are not
 * ready. */
int group_campaign(struct group *g, uint64_t now_ms);

/* As ring_close. */
void group_close(struct group *g);

/* ---- Without a group: for a majority that is lost for good ---- */

struct group_log {
	uint64_t index,
		term;	 /* of the last entry; the log's term may be newer */
	uint64_t server; /* its raft id */
	uint32_t generation;
	struct group_server *servers; /* of the last configuration */
	size_t n_servers;
};

/* Open log and store and load them, as group_open does, and apply what is in
 * the log behind the store, committed or not. Of config dir, cluster, node and
 * the callbacks for the machine are used. Changes nothing that a start would
 * not. free(out->servers) is the caller's. Errors as group_open's. */
int group_look(const struct group_config *config, struct group_log *out,
	       char errmsg[RING_ERRMSG_SIZE]);

/* The same, and make this server the only one, in a new configuration of a new
 * term and the next generation. On disk when it returns 0; after a crash the log
 * is as it was, or as it shall be. out: as it was. */
int group_recover(const struct group_config *config, struct group_log *out,
		  char errmsg[RING_ERRMSG_SIZE]);

/* ---- With inline_jobs ---- */

/* Do what is posted to the log's disk, or to the store's: the batch is on disk
 * afterwards, and group_wake tells. False: nothing was posted. */
bool group_disk_step(struct group *g, bool log);

/* As when the machine stops: nothing of what is posted is done, nothing is sent
 * or told, g is gone. */
void group_abandon(struct group *g);

#endif
