/* SPDX-License-Identifier: MIT */
/* The replicated machine: keys, nodes, placement, and the answers given.
 *
 * Every node applies the same entries in the same order and gets the same
 * machine: no clock, no randomness, no I/O, no knowledge of which node it runs
 * on. Entries are built by the functions below, shipped by group.c, and applied
 * here; a malformed or unknown entry is refused whole, and then this replica
 * must stop (-EBADMSG), for it cannot know what the others made of it.
 *
 * Exactly once (holes.md 25): every request carries its origin's id, boot and
 * epoch, a sequence number, and a floor below which the origin will never ask
 * again. The answers in [floor, floor + KEYSET_WINDOW) are kept, so a repeat is
 * answered, not repeated; what is below the floor is refused with ESTALE; the
 * rows of a life die with it, and an older life's requests are refused. */
#ifndef RING_KEYSET_H
#define RING_KEYSET_H

#include "ring/buf.h"
#include "ring/ring.h"

#define KEYSET_WINDOW	   1024	   /* requests answered per node, at most */
#define KEYSET_ANSWERS_MAX 1048576 /* their operations together, at most */
#define KEYSET_NODES_MAX   16384   /* nodes ever seen */

struct keyset;

/* ---- Entries: header {version, machine time, wall time}, then items ----
 *
 * Each function appends to b, which begins with keyset_entry_begin(). entry.c
 * draws the bytes. */

/* Begin an entry. now_ms is the leader's machine time; the machine takes the
 * larger of it and its own. wall_us is for display. */
void keyset_entry_begin(struct buf *b, uint64_t now_ms, uint64_t wall_us);

/* The first item of a cluster's first entry, and of no other: its id and
 * settings, within the limits of ring.h. */
void keyset_put_settings(struct buf *b, const struct ring_id *cluster,
			 const struct ring_settings *settings);

/* A node's life begins: it is up, with this boot and this random life, and its
 * epoch is the entry's index. What its former life held, if that was up still,
 * is offered again to the node itself, with reason restart. The same life may
 * come up again after a down, in a new epoch; while it is up, asking again has
 * no effect.
 *
 * Answered as request 0 by on_answer, with the epoch in the origin: 0; -ESTALE,
 * the machine has seen that boot, or a newer one, in another life; -EEXIST,
 * another node that is up has the name; -EINVAL or -ENAMETOOLONG, the name;
 * -ENOSPC, KEYSET_NODES_MAX. */
struct keyset_up {
	struct ring_id id;
	struct ring_id life;
	uint64_t boot;
	uint32_t weight;	      /* at most 10000 */
	uint32_t grace_ms;	      /* not down before, without a farewell */
	bool is_client;		      /* owns nothing, and never votes */
	bool is_draining;	      /* owns nothing until it says otherwise */
	uint8_t host[RING_HOST_SIZE]; /* where it runs; zeros: unknown */
	const char *name;
};
void keyset_put_up(struct buf *b, const struct keyset_up *up);

/* A node's life is over: reason is RING_DEAD or RING_LEFT. Void when boot or
 * epoch are not those of its life (holes.md 11). */
void keyset_put_down(struct buf *b, const struct ring_id *id, uint64_t boot,
		     uint64_t epoch, enum ring_reason reason);

/* A node that is up wants another share of the ring; this takes no key from
 * anyone: as with an up, what living nodes hold is asked for. Void when boot or
 * epoch are not those of its life; without effect when all is so already. */
struct keyset_share {
	struct ring_id id;
	uint64_t boot, epoch;
	uint32_t weight; /* at most 10000 */
	bool is_draining;
};
void keyset_put_share(struct buf *b, const struct keyset_share *share);

/* A request of a node: n_ops is 1 to RING_OPS_MAX. A request that may have been
 * sent in one epoch must not be sent again in a later one: the answers of the
 * former are gone. */
struct keyset_origin {
	struct ring_id id;
	uint64_t boot, epoch;
	uint64_t seq;	/* 1, 2, 3, ... within this boot */
	uint64_t floor; /* the lowest seq that may be asked again; <= seq */
};
void keyset_put_request(struct buf *b, const struct keyset_origin *origin,
			const struct ring_op *ops, size_t n_ops);

/* ---- The machine ---- */

/* How a key was, before a change. */
struct keyset_was {
	bool existed;
	uint8_t state, submitting;
	uint32_t holder;
	uint64_t token;
};

/* The answer of one operation: 0, the refusals in ring.h, or -EINVAL,
 * -ENAMETOOLONG, -EFBIG. id and token are the key's after it (when it ended the
 * life: the last), also with EEXIST and a finish's EREMOTE; else 0. */
struct keyset_answer {
	int32_t rc; /* 0 or negative errno */
	uint64_t id, token;
};

/* What happens during apply; NULL where nobody cares. */
struct keyset_events {
	/* Key changed, once per operation, up or down that changed it. When
	 * removed it is no more found, and valid for this call only. note: the
	 * note is new. */
	void (*on_key)(void *data, struct ring_key *key,
		       const struct keyset_was *was, bool note, bool removed);
	/* A request is carried out now: its keys' on_key, then its answer,
	 * follow. Not for a repeat, nor for what is refused whole. */
	void (*on_request)(void *data, const struct keyset_origin *origin);
	/* A request took its effect, now or before (a repeat). rc: 0, or the
	 * whole request was refused: -ESTALE, an older boot or below the floor;
	 * -ENOTCONN, the origin is not up in that boot and epoch; -EAGAIN, at
	 * or above floor + KEYSET_WINDOW, or over KEYSET_ANSWERS_MAX: raise the
	 * floor. Answers are borrowed for the call. */
	void (*on_answer)(void *data, const struct keyset_origin *origin,
			  int rc, const struct keyset_answer *answers,
			  size_t n);
	/* The life of node began or ended, and placement with it; the keys that
	 * moved have been told of. */
	void (*on_node)(void *data, uint32_t node);
	/* The share of node is another, and placement with it. */
	void (*on_share)(void *data, uint32_t node);
	void *data;
};

/* An empty machine. events is copied. */
struct keyset *keyset_create(const struct keyset_events *events);
void keyset_destroy(struct keyset *k);

/* Apply one entry; index is its place in the log and must be above the last.
 * 0, or -EBADMSG, nothing applied. */
int keyset_apply(struct keyset *k, uint64_t index, const void *entry,
		 size_t len);

/* Check an entry's shape without applying it. 0 or -EBADMSG. */
int keyset_check(const void *entry, size_t len);

struct ring_key *keyset_find(const struct keyset *k, const char *name,
			     size_t len);
struct ring_key *keyset_find_id(const struct keyset *k, uint64_t id);
const struct ring_node *keyset_node(const struct keyset *k, uint32_t node);
/* What the last up of node said. out->name is borrowed until the next apply. */
void keyset_get_up(const struct keyset *k, uint32_t node,
		   struct keyset_up *out);
uint32_t keyset_find_node(const struct keyset *k, const struct ring_id *id);
uint32_t keyset_vnode_owner(const struct keyset *k, uint32_t vnode);

/* Lives, in no order: borrowed until the next apply. node is read by the views
 * that are one node's. */
const uint64_t *keyset_list(const struct keyset *k, enum ring_view view,
			    uint32_t node, size_t *n);

/* NULL before the first entry. */
const struct ring_settings *keyset_settings(const struct keyset *k);
const struct ring_id *keyset_cluster(const struct keyset *k);
uint64_t keyset_index(const struct keyset *k); /* last applied */
uint64_t keyset_epoch(const struct keyset *k); /* of the placement */
/* The most nodes that were ever up together. */
uint32_t keyset_most_up(const struct keyset *k);
uint64_t keyset_now_ms(const struct keyset *k); /* machine time */

/* A hash of all that the machine knows. Equal machines give equal hashes,
 * however they came to be (applied, or loaded). O(1): keys are summed as they
 * change (each record hashed by XXH3, added mod 2^64), the small rest is hashed
 * here. Local fields (hidden, told) do not count. */
uint64_t keyset_hash(const struct keyset *k);

/* ---- To and from the store ---- */

/* Append what changed since the last call (or all of it) to out's records, in
 * the shape that store.h takes, and the whole meta to its empty meta; forget
 * that it changed. When the write fails the caller says keyset_dirty_again()
 * with the same records, before the next keyset_collect(). A life may be
 * deleted that the store has never seen. */
struct store_batch;
void keyset_collect(struct keyset *k, struct store_batch *out);
void keyset_dirty_again(struct keyset *k, const struct store_batch *batch);

/* Load each record and the meta, as collected, in any order, into an empty
 * machine; then keyset_load_end() builds the indexes and checks the hash. No
 * events. 0 or -EBADMSG: then the machine is only good for keyset_destroy(). */
int keyset_load_key(struct keyset *k, const void *record, size_t len);
int keyset_load_meta(struct keyset *k, const void *meta, size_t len);
int keyset_load_end(struct keyset *k);

#endif
