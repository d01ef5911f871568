/* SPDX-License-Identifier: MIT */
/* The table of members: one record of 64 bytes each, found by id, and in the
 * places where its status puts it. Knows no packets and no time; swim decides,
 * this keeps order. Every change of one member costs O(1), whatever n.
 *
 * Places. A member stands in at most one set of each pair:
 *
 *	ROUND    alive or suspect: to be probed     | GONE     dead: to be tried
 *	                                            |          now and then
 *	LIVE     alive, and has been heard directly | HEARSAY  alive or suspect, but
 *	         so: may help, be told news         |          never heard itself
 *
 * News. A member whose status changed is queued to be told to others. The order
 * is: told least often, then newest (D3), at most one item per member (D2).
 *
 * Digests. A table's digest is the sum of the digests of its records, in 256
 * buckets by id: order-free (D7), kept up to date with each change, so that two
 * members see with 8 bytes whether they agree and with 2 KiB about whom not. */
#ifndef GOSSIP_MEMBERS_H
#define GOSSIP_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "gossip/facts.h"
#include "gossip/random.h"
#include "gossip/wire.h"

#define MEMBER_NONE	UINT32_MAX
#define MEMBER_SELF	0	  /* the slot of this member itself */
#define MEMBERS_MAX	(1 << 20) /* more are refused */
#define MEMBER_SENT_MAX 40	  /* bound of all retransmit limits */

/* Of a member that is not alive, and only of those. */
struct verdict {
	uint64_t due_us; /* suspect: dead then; gone: fades, then forgotten */
	uint64_t min_us, max_us; /* of a suspicion */
	uint32_t slot;
	uint32_t heap_at;
	uint8_t n_accusers;
	uint8_t n_wanted; /* confirmations */
	bool is_faded;	  /* gone for long: no longer told to others (I6) */
	struct gossip_id accusers[WIRE_ACCUSERS_MAX]; /* the first: F6 */
};

struct member {
	const struct facts *facts; /* NULL: the slot is free */
	uint64_t incarnation;
	uint64_t since_us; /* of the status */
	struct verdict *verdict;
	uint32_t rtt_us; /* of the last direct probe, 0: none yet */
	uint32_t place[2];
	uint32_t newer, older; /* neighbours in the news; free: the next free */
	uint8_t status;
	uint8_t sent;	   /* how often it was told */
	uint8_t in_set[2]; /* enum member_set */
	bool is_verified;  /* heard from directly (I12) */
	bool is_news;
};

enum member_set {
	IN_NONE,
	IN_ROUND,
	IN_GONE,
	IN_LIVE,
	IN_HEARSAY,
	N_SETS
};

struct member_set_list {
	uint32_t *slots;
	uint32_t n, cap;
	uint32_t cursor; /* those before it have had their turn */
};

struct members {
	struct member *slots;
	uint32_t n_slots, cap;
	uint32_t free;	  /* first free slot */
	uint32_t n;	  /* members, this one included */
	uint32_t *index;  /* slot + 1, by id */
	uint32_t n_index; /* a power of two */
	struct member_set_list sets[N_SETS];
	uint32_t newest[MEMBER_SENT_MAX]; /* news by times told */
	uint32_t oldest[MEMBER_SENT_MAX];
	uint32_t n_news;
	struct verdict **heap; /* by due_us */
	uint32_t n_heap, cap_heap;
	uint64_t digest, buckets[WIRE_BUCKETS];
	struct facts_pool *pool; /* borrowed */
	struct random *random;	 /* borrowed */
};

void members_init(struct members *m, struct facts_pool *pool,
		  struct random *random);
void members_finish(struct members *m);

/* The slot of id, or MEMBER_NONE. */
uint32_t members_find(const struct members *m, const struct gossip_id *id);
/* A new member: alive, unverified, nowhere yet; takes the facts. The first one
 * is the member itself. */
uint32_t members_add(struct members *m, const struct facts *facts,
		     uint64_t incarnation);
void members_remove(struct members *m, uint32_t slot);

/* Changes. Each keeps digest and places in step. */
void members_set_status(struct members *m, uint32_t slot, uint64_t incarnation,
			unsigned status);
void members_set_facts(struct members *m, uint32_t slot,
		       const struct facts *facts); /* takes the facts */
void members_set_verified(struct members *m, uint32_t slot);
/* A gone member is from now on kept to itself. */
void members_fade(struct members *m, uint32_t slot);

/* Verdicts. Giving a member its first one makes it; due orders the heap. */
struct verdict *members_verdict(struct members *m, uint32_t slot);
void members_set_due(struct members *m, uint32_t slot, uint64_t due_us);
void members_clear_verdict(struct members *m, uint32_t slot);
/* The verdict that is due first, or NULL. */
struct verdict *members_first_due(const struct members *m);
void members_shift_due(struct members *m, uint64_t by_us); /* all (F9) */

/* News. */
void members_tell(struct members *m, uint32_t slot);
/* Note that a member's news was sent once more; none after limit times. */
void members_told(struct members *m, uint32_t slot, unsigned limit);
void members_hush(struct members *m, uint32_t slot);
/* Iterate in the order of sending: from MEMBER_NONE to MEMBER_NONE. */
uint32_t members_next_news(const struct members *m, uint32_t slot);

/* The next in turn of a set; shuffled anew when all had theirs. MEMBER_NONE if
 * the set is empty. */
uint32_t members_next_turn(struct members *m, enum member_set set);
/* Let this one, of the round, be next. */
void members_take_turn(struct members *m, uint32_t slot);
/* Choose k different ones evenly, without except: the first k of the set after
 * the call (a partial Fisher-Yates shuffle, F4). How many there are. */
uint32_t members_choose(struct members *m, enum member_set set, uint32_t k,
			uint32_t except);

static inline struct member *member_at(const struct members *m, uint32_t slot)
{
	return &m->slots[slot];
}

static inline bool member_is_gone(const struct member *member)
{
	return member->status >= WIRE_DEAD;
}

/* Which bucket of the digests an id belongs to. */
static inline unsigned member_bucket(const struct gossip_id *id)
{
	return id->b[15];
}

/* Assert all that must hold; O(n), for tests. */
void members_check(const struct members *m);

#endif
