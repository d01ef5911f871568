/* SPDX-License-Identifier: MIT */
/* The inside of the key machine, for the files that make it up:
 *
 * entry.c         bytes of a log entry, written and read
 * keyset.c        the machine, apply, answers given once, reading
 * keyset_ops.c    one function per operation of a request
 * keyset_nodes.c  nodes up and down, placement, keys that move by it
 * keyset_key.c    one key's life: made, changed, ended; sums, dirt, events
 * keyset_index.c  where keys are found: hash tables and dense lists
 * keyset_store.c  to and from the store, and the hash
 *
 * Two replicas may list the same keys in different order (one applied the
 * whole log, the other loaded a store). So nothing that is kept or hashed may
 * depend on the order of a list: what moves many keys at once raises the token
 * counter once and gives all of them that token. */
#ifndef RING_KEYSET_IMPL_H
#define RING_KEYSET_IMPL_H

#include "ring/keyset.h"

/* ---- Entries ---- */

enum item_type {
	ITEM_SETTINGS = 1,
	ITEM_UP,
	ITEM_DOWN,
	ITEM_REQUEST,
	ITEM_SHARE,
};

/* One item, read. Fields not of its type are zero. */
struct item {
	enum item_type type;
	struct ring_id cluster;	       /* SETTINGS */
	struct ring_settings settings; /* SETTINGS */
	struct keyset_origin origin;   /* REQUEST; others: id, boot, epoch */
	struct ring_id life;	       /* UP */
	uint32_t weight;	       /* UP, SHARE */
	uint32_t grace_ms;	       /* UP */
	bool is_client;		       /* UP */
	bool is_draining;	       /* UP, SHARE */
	const uint8_t *host;	       /* UP: in the entry */
	const char *name;	       /* UP: name_len bytes in the entry */
	size_t name_len;	       /* UP */
	enum ring_reason reason;       /* DOWN */
	uint32_t n_ops;		       /* REQUEST: entry_op() reads them next */
};

/* One operation, read; name and note are borrowed from the entry. */
struct entry_op {
	enum ring_op_type type;
	const char *name;
	size_t name_len;
	uint64_t id, token;
	const void *note;
	uint32_t note_len;
	uint32_t uid, gid;
};

struct entry_head {
	uint64_t now_ms, wall_us;
};

/* Each reads on from where r is. A wrong shape sets r->bad. entry_next gives
 * false at the end and when bad. */
void entry_head(struct reader *r, struct entry_head *head);
bool entry_next(struct reader *r, struct item *item);
void entry_op(struct reader *r, struct entry_op *op);

/* May name be a key's or a node's? 0, -EINVAL or -ENAMETOOLONG. */
int entry_name_check(const char *name, size_t len);

/* May these be a cluster's settings? */
bool entry_settings_valid(const struct ring_settings *s);

/* ---- The machine ---- */

/* The lists that a key stands in, by what it remembers its place in. */
enum list_kind {
	LIST_ALL,
	LIST_VNODE,
	LIST_GROUP, /* its holder's held or offered, the orphans, or parked */
	LIST_RELEASING,	 /* its holder's, while releasing */
	LIST_SUBMITTING, /* its claimer's, while submitting */
	N_LISTS
};

/* A growing array of lives. */
struct ids {
	uint64_t *at;
	uint32_t n, cap;
};

/* What the machine knows of a key beside its record: it stands in memory right
 * in front of the struct ring_key. */
struct key_slot {
	uint64_t sum;	       /* what the record adds to key_sum, note aside */
	uint32_t pos[N_LISTS]; /* place in each list it stands in */
	uint8_t dirty;	       /* stands in keyset.dirty */
	uint8_t stored;	       /* the store may have a record of this life */
};

static inline struct key_slot *slot_of(const struct ring_key *key)
{
	return (struct key_slot *)key - 1;
}

/* Keys by a hash of theirs: open addressing, linear probing. */
struct table {
	struct ring_key **at; /* mask + 1 places, or NULL */
	size_t mask, n;
	uint64_t (*hash)(const struct ring_key *key);
};

/* The answers to one request. */
struct row {
	uint64_t seq;
	uint64_t sum; /* what it adds to row_sum */
	uint32_t n;
	struct keyset_answer answers[];
};

struct node {
	struct ring_node pub;
	struct ring_id life;
	uint32_t grace_ms;
	uint8_t host[RING_HOST_SIZE];
	uint64_t floor;
	struct row **rows; /* by seq % KEYSET_WINDOW; NULL before the first */
	size_t n_answers;  /* in all rows */
	struct ids held;   /* and releasing */
	struct ids offered, releasing;
	struct ids submitting; /* it is the claimer of these */
};

struct keyset {
	struct keyset_events events;
	bool started; /* the settings are known */
	struct ring_id cluster;
	struct ring_settings settings;

	uint64_t index, now_ms, epoch;
	uint32_t most_up; /* nodes that were up together */
	uint64_t token;	  /* the last given; a life's id is its first token */
	uint64_t wall_us; /* of the entry being applied */

	struct node **nodes;
	uint32_t n_nodes;
	uint32_t *owners; /* settings.vnodes node indexes */

	struct table by_name, by_id;
	struct ids all, parked;
	struct ids orphans; /* offered, without holder */
	struct ids *vnodes; /* settings.vnodes lists */

	uint64_t key_sum, row_sum;
	struct ids dirty; /* lives to write; some may be over */
	struct ids ended; /* lives to delete */
	struct buf scratch;

	bool loading;	      /* between the first load and keyset_load_end */
	uint64_t loaded_hash; /* what it must come to */
	uint64_t loaded_keys;
};

/* keyset_index.c */
void ids_push(struct ids *ids, uint64_t id);
void ids_finish(struct ids *ids);
void index_init(struct keyset *k);
void index_finish(struct keyset *k);
void index_name(struct keyset *k, struct ring_key *key); /* the tables only */
void index_list(struct keyset *k, struct ring_key *key); /* the lists only */
void index_remove(struct keyset *k, struct ring_key *key);
/* key was as was says: put it in the lists that it is in now. */
void index_move(struct keyset *k, struct ring_key *key,
		const struct keyset_was *was);

/* keyset_key.c */
struct ring_key *key_alloc(const char *name, size_t len);
void key_free(struct ring_key *key);
/* A new life, held or offered; was for key_end. */
struct ring_key *key_create(struct keyset *k, uint32_t node,
			    const struct entry_op *op, struct keyset_was *was);
/* Every change: key_begin, write the fields, key_end. */
void key_begin(struct keyset *k, struct ring_key *key, struct keyset_was *was);
void key_end(struct keyset *k, struct ring_key *key,
	     const struct keyset_was *was, bool note);
void key_destroy(struct keyset *k, struct ring_key *key);
void key_set_note(struct keyset *k, struct ring_key *key, const void *note,
		  uint32_t len);
/* Between begin and end: state and holder, and with them from and since. */
void key_pass(struct keyset *k, struct ring_key *key, enum ring_state state,
	      uint32_t holder);
void key_dirty(struct keyset *k, struct ring_key *key);
/* Sum a key that was read from the store. */
void key_loaded(struct keyset *k, struct ring_key *key);
void key_put_record(struct buf *b, const struct ring_key *key); /* no note */

/* keyset_ops.c */
void keyset_op(struct keyset *k, uint32_t node, const struct entry_op *op,
	       struct keyset_answer *answer);

/* keyset_nodes.c */
int keyset_node_up(struct keyset *k, struct item *item); /* sets its epoch */
void keyset_node_down(struct keyset *k, const struct item *item);
void keyset_node_share(struct keyset *k, const struct item *item);
struct node *keyset_node_add(struct keyset *k);
void keyset_node_free(struct node *n);
void keyset_place_alloc(struct keyset *k);
void keyset_place_count(struct keyset *k);

/* keyset.c */
void row_put(struct buf *b, const struct row *row);
void row_insert(struct keyset *k, uint32_t node, struct row *row);
void rows_clear(struct keyset *k, struct node *n);

#endif
