/* SPDX-License-Identifier: MIT */
/* Who owns what: keys, holders and placement, kept in one replicated log.
 *
 * A ring is one node's copy of the key machine (keyset.c), fed by the log
 * (group.c over C-Raft) and kept on disk (wal.c, store.c). It knows nodes, keys
 * and vnodes; it knows nothing of files, sockets or failure detection. Bytes for
 * other nodes go out by config.send and come in by ring_recv(); who is alive it
 * is told by ring_member().
 *
 * Changes are asked for with ring_submit(), on any node, and answered once they
 * are applied here, after a majority of the voters has them on disk. Reads are
 * answered from memory by the functions below and are valid until the loop's
 * next turn. What a node holds it shows only inside its lease (lease.h): call
 * ring_check() before reads are answered.
 *
 * Thread: every function here runs on the loop thread, and every callback
 * arrives there, unless it says otherwise. Nothing here blocks after
 * ring_open(). Time is CLOCK_BOOTTIME in milliseconds, passed in. */
#ifndef RING_RING_H
#define RING_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_NAME_MAX	 255   /* bytes in a key or node name */
#define RING_NOTE_MAX	 65536 /* bytes in a note */
#define RING_OPS_MAX	 4096  /* operations in one request */
#define RING_WEIGHT_MAX	 10000
#define RING_ERRMSG_SIZE 512 /* bytes in an error message, NUL included */
#define RING_HOST_SIZE	 32  /* bytes that tell one place from another */
#define RING_NONE	 UINT32_MAX /* no node */

struct ring;

/* The identity of a node: random, made with its state, never reused. */
struct ring_id {
	uint8_t byte[16];
};

/* What a key's record says. The views below decide what a node's
 * tree shows of it. */
enum ring_state {
	RING_HELD,	/* the holder works on it */
	RING_OFFERED,	/* the holder may take it */
	RING_RELEASING, /* held; the holder is asked to let go */
	RING_PARKED,	/* failed too often; no holder */
};

enum ring_reason {
	RING_CLAIMED,
	RING_SUBMITTED,
	RING_DEAD,
	RING_LEFT,
	RING_MOVED,
	RING_RESTART,
	RING_GIVEN_BACK,
	RING_RETRIED,
};

/* A key. Read-only outside of keyset.c; the pointer is valid until the next
 * turn of the loop. Times are wall clock microseconds since the epoch, from the
 * leader's entries, for display only. Nodes are indexes for ring_node(). */
struct ring_key {
	uint64_t id;	/* unique to this life, from the claim to the finish */
	uint64_t token; /* raised by each change of holder and each take */
	uint64_t claimed_us;
	uint64_t since_us; /* of the last change of state or holder */
	uint64_t note_us;  /* of the last note, or of the claim */
	char *note;	   /* note_len bytes, not terminated; NULL if empty */
	uint32_t note_len;
	uint32_t holder;   /* or RING_NONE */
	uint32_t from;	   /* the holder before, or RING_NONE */
	uint32_t claimer;  /* the node that claimed or submitted it */
	uint32_t uid, gid; /* of who claimed, submitted or last took it */
	uint32_t vnode;
	uint32_t backoff_ms; /* offered, but shown this much later */
	uint16_t attempts;   /* takes since the claim or the last retry */
	uint8_t state;	     /* enum ring_state */
	uint8_t reason;	     /* enum ring_reason */
	uint8_t submitting;  /* 1: the submission's handle is still open */
	uint8_t hidden; /* view.c's: bits, why this node does not show it */
	uint8_t told;	/* view.c's: the views that on_change told of */
	uint8_t name_len;
	char name[]; /* name_len bytes and a NUL */
};

/* A node known to the machine. */
struct ring_node {
	struct ring_id id;
	uint64_t epoch;	   /* index of the entry that brought this life up */
	uint64_t boot;	   /* counts the starts of its daemon */
	uint64_t up_us;	   /* wall clock */
	uint32_t weight;   /* share of the ring; 0 owns nothing */
	uint32_t n_vnodes; /* owned now */
	uint32_t n_keys;   /* held, releasing or offered to it */
	bool up;
	bool is_client;	  /* owns nothing, and never votes */
	bool is_draining; /* owns nothing, until it resumes or restarts */
	char name[RING_NAME_MAX + 1];
};

/* One node's views of the keys: what its directories list. A key may be in
 * several. */
enum ring_view {
	RING_VIEW_KEYS,	   /* every unfinished key of the cluster */
	RING_VIEW_OWNED,   /* held or releasing here */
	RING_VIEW_RECOVER, /* offered here */
	RING_VIEW_RELEASE, /* releasing here */
	RING_VIEW_PARKED,
	RING_N_VIEWS
};

/* ---- Asking for changes ---- */

enum ring_op_type {
	RING_CLAIM = 1, /* 0; EEXIST, EREMOTE (claims=owner, not the owner) */
	RING_SUBMIT,	/* 0; EEXIST. Not offered before RING_OFFER */
	RING_OFFER,	/* the submission is complete; without id, right behind
			 * a RING_SUBMIT: that one. 0; ENOENT */
	RING_NOTE,	/* 0; ENOENT if id or token do not match */
	RING_TAKE,	/* offered here: now held. 0; ENOENT */
	RING_GIVE,	/* held here: offered after a back-off, or parked when
			 * attempts reach max_attempts. 0; ENOENT */
	RING_PARK,	/* held or offered here. 0; ENOENT */
	RING_RETRY,  /* parked: offered to the heir, attempts = 0. 0; ENOENT */
	RING_LET,    /* releasing here: offered to the heir. 0; ENOENT */
	RING_FINISH, /* held, offered or releasing here, or by nobody: gone.
			 * 0; ENOENT; EREMOTE if another node's */
	RING_N_OPS
};

/* One operation. Filled by the caller but for the results. */
struct ring_op {
	enum ring_op_type type;
	const char *name; /* borrowed until ring_submit returns */
	uint64_t id;	  /* the life meant; 0 = the one found at apply */
	uint64_t token;	  /* must match when not 0 */
	const void
		*note; /* RING_NOTE, RING_CLAIM, RING_SUBMIT; borrowed alike */
	uint32_t note_len; /* at most RING_NOTE_MAX */
	uint32_t uid, gid; /* RING_CLAIM, RING_SUBMIT, RING_TAKE */
	int rc;		   /* result: 0 or negative errno */
	uint64_t got_id;   /* result: the key's life, where there is one */
	uint64_t got_token;
};

struct ring_request;
typedef void (*ring_request_cb)(struct ring_request *req);

/* A set of operations, carried out in order as one commit. Owned by the caller,
 * embedded in its own call; stays put, with ops, until cb. */
struct ring_request {
	struct ring_op *ops; /* 1 to RING_OPS_MAX */
	size_t n_ops;
	int rc; /* result: 0: look at each op's rc. Else nothing is known of any:
		 * -EROFS, -ENOSPC, -EAGAIN: nothing was done.
		 * -ETIMEDOUT, -EINTR, -ECANCELED: outcome unknown. */
	ring_request_cb cb; /* once, later, never from inside ring_submit */
	void *data;

	/* Private to ring.c. */
	struct ring_pending *pending;
	struct force *force;
	struct ring_request *next;
};

/* Ask for req. The deadline is now_ms + op_timeout_ms. */
void ring_submit(struct ring *r, uint64_t now_ms, struct ring_request *req);

/* Finish keys, whichever nodes hold them: each is asked to, and hides its own
 * first. ops are RING_FINISH, with the id of a life; each is answered by itself,
 * in op_timeout_ms at most, and req->rc is 0 or a refusal as of ring_submit:
 *
 * 0              the life is over, by this or anyone's doing; seen here, too
 * -ENOENT        it has not the token, if one is named
 * -EHOSTUNREACH  its holder is not reached. Nothing was done
 * -ETIMEDOUT     the holder did not do it in time, and may do it yet */
void ring_force(struct ring *r, uint64_t now_ms, struct ring_request *req);

/* The caller has been interrupted: answer req with -EINTR soon, if it was not
 * answered already. A claim that succeeds nevertheless is finished again unless
 * the same name is claimed anew first (holes.md 24). */
void ring_abandon(struct ring *r, struct ring_request *req);

/* ---- Reading ---- */

/* The key named name, if this node shows it anywhere; else NULL. */
const struct ring_key *ring_find(const struct ring *r, const char *name);

/* The key whose life is id, or NULL when it is over. */
const struct ring_key *ring_find_id(const struct ring *r, uint64_t id);

/* Is key in view, at this instant? */
bool ring_shows(const struct ring *r, const struct ring_key *key,
		enum ring_view view);

/* The lives in view, in no order, as a new array of *n; free() releases it.
 * Some may not be shown: ask ring_shows() for each, when it is used. */
uint64_t *ring_list(const struct ring *r, enum ring_view view, size_t *n);

/* How many keys view has. Those that leave at this moment are counted. */
size_t ring_count(const struct ring *r, enum ring_view view);

/* The node at index, or NULL past the last: 0, 1, 2, ... */
const struct ring_node *ring_node(const struct ring *r, uint32_t index);

/* What node index is in the log's group, as this node knows. */
enum ring_role {
	RING_ROLE_NONE, /* it has no copy of the log */
	RING_ROLE_SPARE,
	RING_ROLE_STANDBY,
	RING_ROLE_VOTER,
};
enum ring_role ring_node_role(const struct ring *r, uint32_t index);

/* This node's index, or RING_NONE before it has joined. */
uint32_t ring_self(const struct ring *r);

/* The vnode of any name, claimed or not: top bits of XXH3_64bits(name). */
uint32_t ring_vnode(const struct ring *r, const char *name, size_t len);

/* The ring owner of a vnode as node index, or RING_NONE. */
uint32_t ring_vnode_owner(const struct ring *r, uint32_t vnode);

/* The vnode of name in any ring of n_vnodes. */
uint32_t ring_vnode_in(const char *name, size_t len, uint32_t n_vnodes);

/* What the placement would be: owners, n_vnodes entries, the table that is in
 * force, becomes the one of these nodes. owner stands in the table for a node
 * (RING_NONE: nobody); ids and owners are distinct. Gives how many entries
 * changed. */
struct ring_plan_node {
	struct ring_id id;
	uint32_t owner, weight;
};
uint32_t ring_plan(uint32_t *owners, uint32_t n_vnodes,
		   const struct ring_plan_node *nodes, uint32_t n_nodes);

/* The words of interface.md 2.1 for state and reason. */
const char *ring_state_name(enum ring_state state);
const char *ring_reason_name(enum ring_reason reason);

enum ring_health {
	/* Not yet up: changes are answered -EAGAIN. So are claims and
	 * submissions until as many nodes as expected were seen together. */
	RING_JOINING,
	RING_READY,
	RING_DRAINING, /* claims and submissions are answered -EROFS */
	RING_ISOLATED, /* no majority or no lease: -EROFS */
	RING_FAILED,   /* the disk failed: -EROFS until the daemon restarts */
	RING_FULL,     /* the disk is full: -ENOSPC until there is room */
};

struct ring_status {
	enum ring_health health;
	char reason[RING_ERRMSG_SIZE]; /* one sentence, never empty */
	/* Failed: -EIO, the disk; or this node is refused, as by ring_open:
	 * -EINVAL, -EXDEV (its generation, too), -ESTALE; or -EEXIST, its name
	 * is in use. Else 0. */
	int error;
	uint32_t leader; /* node index or RING_NONE */
	bool is_shown;	 /* up and inside its lease: what it holds is shown */
	bool is_leaving; /* ring_leave() was called */
	bool has_left;	 /* and has come to its end: close the ring */
	bool is_unconfirmed; /* by force: a majority does not know of it, so the
			      * state must never be opened again */
	bool is_moved;	     /* config.is_moved, and it is not clear yet */
	bool is_refuted;     /* others go on without this log: close the ring,
			  * ring_remove_log(), and open it again to join */
	bool is_receiving;   /* it is sent the keys, or was 10 s ago */
	bool has_quorum;     /* the leader is heard, or hears a majority */
	uint64_t term;
	uint64_t index; /* of the last entry applied */
	uint64_t hash;	/* of the machine at that index; O(1) */
	uint64_t epoch; /* of the placement */
	uint32_t n_voters;
	uint32_t n_standbys;
	uint64_t log_bytes; /* on disk */
	uint64_t n_entries; /* appended since the start */
	uint64_t n_syncs;   /* flushes of the log since the start */
};

void ring_status(const struct ring *r, struct ring_status *out);

/* ---- Settings of the whole cluster, fixed when it is first started ---- */

/* A setting nobody asked for: what is in force, else the default. */
#define RING_UNSET UINT32_MAX

enum ring_claims {
	RING_CLAIMS_OWNER,
	RING_CLAIMS_ANY
};

struct ring_settings {
	uint32_t vnodes; /* a power of two, 16 to 65536 */
	uint32_t claims; /* enum ring_claims */
	uint32_t lease_ms;
	uint32_t calm_ms;
	uint32_t max_attempts;	      /* 1 to 65535 */
	uint32_t handover_timeout_ms; /* 0: never */
};

/* The settings in force; what ring_config asked for before the first entry. */
const struct ring_settings *ring_settings(const struct ring *r);

/* ---- Life ---- */

/* A key changed. Views are bit sets of 1 << enum ring_view. */
struct ring_change {
	const struct ring_key *key; /* as it is now; when removed: as it was */
	unsigned before, after;	    /* the views this node shows it in */
	bool note;		    /* the note changed */
	bool removed;		    /* the life is over */
};

struct ring_config {
	const char *dir; /* the node's state; exists, is ours alone; borrowed */
	struct ring_id cluster; /* random, made with the first node's state */
	struct ring_id id;	/* this node's */
	uint64_t boot;	  /* one more than at the last start, already on disk */
	const char *name; /* copied; no other node that is up may have it */
	uint32_t weight;  /* 0 to RING_WEIGHT_MAX */
	bool is_client;	  /* owns nothing whatever its weight, never votes */
	/* Nothing is claimed here before so many nodes were up together once,
	 * as the log says. */
	uint32_t expect;
	struct ring_settings
		settings; /* wanted; refused when others are in force */
	uint32_t op_timeout_ms;
	/* No cluster of its own: where there is no log, wait until the nodes
	 * that ring_member() names have added this one. */
	bool join;
	uint32_t generation; /* of a log that is made; by the members' word */
	/* The state is not where it was: the log may be a copy, that has
	 * forgotten what the original has promised (holes.md 21). It does not
	 * vote before that is clear. */
	bool is_moved;
	/* Where it runs: a hash of the machine's boot_id and the address, or
	 * zeros when that is not known. A newer boot of the same node in the
	 * same place proves that the older one is over (holes.md 12). */
	uint8_t host[RING_HOST_SIZE];
	/* Its keys are not given away so long after it was killed. */
	uint32_t restart_grace_ms; /* at most 3600000 */

	/* After every change this node can see, during apply: not a place to
	 * call ring_submit. Not called for what ring_open finds on disk. */
	void (*on_change)(void *data, const struct ring_change *change);
	/* After a change of nodes, placement, health or leader. */
	void (*on_status)(void *data);
	/* One line for the log, without newline. level: 3 error .. 7 debug */
	void (*on_log)(void *data, int level, const char *line);
	/* Thread: any. Make the loop call ring_wake() soon. */
	void (*wake)(void *data);
	/* Send bytes to a node, sealed and in order; may be lost. bulk: big, and
	 * nothing else should wait behind it. Borrowed for the call, from inside
	 * which no function of ring.h may be called. NULL: there is nobody. */
	void (*send)(void *data, const struct ring_id *to, bool bulk,
		     const void *bytes, size_t len);
	/* What the herald is to send when this daemon is gone, in place of the
	 * last one: seal it and hand it over. Borrowed. 0, or negative: it was
	 * not, and then no lease is asked for. NULL: no herald. */
	int (*obituary)(void *data, const void *bytes, size_t len);
	void *data;
};

/* Read the state in config->dir and make the ring. If the directory holds none,
 * start a cluster of one node, or wait to be added to another (config->join).
 * What the others refuse, ring_status says later. Blocks while it reads.
 *
 * 0; else errmsg says in one sentence what is wrong and the way out:
 * -EINVAL   other settings are in force
 * -EUCLEAN  a file is damaged: errmsg names file and offset
 * -EXDEV    the state is another cluster's or another node's
 * -ESTALE   the state is copied or restored: its boot was used before
 * -ENOSPC, -EACCES, -EIO, ... from the file system */
int ring_open(const struct ring_config *config, uint64_t now_ms,
	      struct ring **out, char errmsg[RING_ERRMSG_SIZE]);

/* After wake(): take the disk's answers. */
void ring_wake(struct ring *r, uint64_t now_ms);

/* Send what was submitted in this turn of the loop, as one entry: call it once
 * before the loop sleeps. Gives the milliseconds until ring_tick() is due. */
uint32_t ring_flush(struct ring *r, uint64_t now_ms);

/* Time has passed. */
void ring_tick(struct ring *r, uint64_t now_ms);

/* Bytes that a node has sent by its config.send; from is proven by the stream.
 * What is malformed or not for us is dropped. */
void ring_recv(struct ring *r, uint64_t now_ms, const struct ring_id *from,
	       const void *bytes, size_t len);

/* A herald's obituary, opened. 0: it is kept, tell the herald so. -EBADMSG, it
 * is none; -ENOSPC, too many wait for a leader. */
int ring_obituary(struct ring *r, uint64_t now_ms, const void *bytes,
		  size_t len);

/* SWIM's word of a node, at every change of it, and once for each known member
 * after ring_open. */
enum ring_member_state {
	RING_MEMBER_ALIVE,
	RING_MEMBER_SUSPECT,
	RING_MEMBER_DEAD,
	RING_MEMBER_LEFT,      /* for good, as after ring_leave: not a stop */
	RING_MEMBER_FORGOTTEN, /* by a user: it will not come back */
};
void ring_member(struct ring *r, uint64_t now_ms, const struct ring_id *id,
		 enum ring_member_state state);

/* Is what this node holds shown, at this instant? Call it before anything is
 * read for a user: after a stop or a suspend the lease may be out, and then
 * ring_find and its like show nothing held from here on. Cheap. */
bool ring_check(struct ring *r, uint64_t now_ms);

/* Want another share of the ring, until the daemon ends. It comes with the next
 * entry about nodes; what then is held here and not this node's any more, it is
 * asked for. 0; -EINVAL: over RING_WEIGHT_MAX, or this node is a client. */
int ring_set_weight(struct ring *r, uint64_t now_ms, uint32_t weight);

/* Drain: own nothing, claim nothing and submit nothing, but keep what is held,
 * the lease and the vote. Or, with on = false, as before. A restart resumes. */
void ring_drain(struct ring *r, uint64_t now_ms, bool on);

/* Leave: own, claim and submit nothing, and when the others do without this
 * node's vote, give what is held here to the heirs. ring_status.has_left says
 * when that is done. With force it is done in some seconds in any case.
 *
 * 0; -EBUSY: nobody could take over what is left; ring_status.reason says what.
 * That may turn out later, too: then it stays. */
int ring_leave(struct ring *r, uint64_t now_ms, bool force);

/* Do not leave after all. What was given up by then is not got back. 0; -EBUSY:
 * it has left. */
int ring_stay(struct ring *r, uint64_t now_ms);

/* Give up the log in dir, of which no ring is open: with the next one this node
 * is another server, which the others fill. 0 or negative errno. */
int ring_remove_log(const char *dir);

/* How often the cluster was recovered from the loss of a majority. Nodes of two
 * generations have nothing to say to each other. */
uint32_t ring_generation(const struct ring *r);

/* Finish the writes under way, answer what is left with -ECANCELED, and release
 * r (accepts NULL). Blocks until the disk has answered, at most 5 s. */
void ring_close(struct ring *r);

/* ---- A majority of the voters that is lost for good. While no ring is open -- */

struct ring_server {
	struct ring_id id;
	enum ring_role role;
	bool is_self;
	char name[RING_NAME_MAX + 1]; /* "": it never was up */
	uint32_t n_keys;	      /* held by it, or offered to it */
};

/* What a node's own log knows. */
struct ring_log {
	uint64_t index, term; /* of the last entry: what survivors compare */
	uint64_t written_us;  /* wall clock, the last write to the log */
	uint32_t generation;
	uint32_t lease_ms; /* nobody shows anything longer than that */
	size_t n_keys;
	struct ring_server *servers; /* of the configuration in force */
	size_t n_servers, n_voters;
};

/* Read it. ring_log_finish() releases out. Errors as ring_open's; -ENODATA: the
 * log is empty. */
int ring_look(const char *dir, const struct ring_id *cluster,
	      const struct ring_id *id, struct ring_log *out,
	      char errmsg[RING_ERRMSG_SIZE]);
void ring_log_finish(struct ring_log *log);

/* Make this node the only voter, and raise the generation: what the others
 * alone knew is lost, and those of them that live must begin anew. The caller
 * has waited until no lease can be in force. Done when it returns 0, at a crash
 * not at all or whole. Errors as ring_open's. */
int ring_recover(const char *dir, const struct ring_id *cluster,
		 const struct ring_id *id, char errmsg[RING_ERRMSG_SIZE]);

#endif
