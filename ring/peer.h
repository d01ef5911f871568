/* SPDX-License-Identifier: MIT */
/* What nodes say to each other, beside what raft and the leases say. Bytes only:
 * who sent them is known from the stream, and decides what may be in them.
 *
 * A node that does not lead sends what it wants in the log as items, in the same
 * bytes that an entry has (entry.c), to the leader, again and again until it has
 * applied them: the machine carries a request out once. There is no answer on
 * the wire. A node that has no log yet says where it waits for one, and hears
 * only when it is not wanted.
 *
 * Pure. Decoders are bounded; -EBADMSG is all they say. */
#ifndef RING_PEER_H
#define RING_PEER_H

#include <stdbool.h>

#include "ring/keyset.h"

enum peer_kind {
	PEER_GROUP = 1, /* the body is group.c's */
	PEER_LEASE,	/* the body is lease.c's */
	PEER_ITEMS,	/* the body is peer_next_item()'s */
	PEER_JOIN,
	PEER_REFUSAL,
	PEER_FAREWELL,
	PEER_FINISH, /* the body is peer_next_life()'s */
	PEER_LEAVE,
	PEER_N_KINDS
};

/* The kind of a message and its body, or 0 when it is none. */
enum peer_kind peer_kind(const void *bytes, size_t len, struct reader *body);

/* Every message ends in the generation of who sends it: recover-quorum raises
 * it, and nodes of two generations have nothing to say to each other. Cut off:
 * len is what is left. False: there is none. */
void peer_put_generation(struct buf *b, uint32_t generation);
bool peer_cut_generation(const void *bytes, size_t *len, uint32_t *out);

/* Begin a message: append the kind. */
void peer_put_kind(struct buf *b, enum peer_kind kind);

/* I have an empty log, server, and wait: add me. */
struct peer_join {
	uint8_t hops; /* 0: from the node itself; 1: passed on, once */
	struct ring_id node, cluster;
	uint64_t server;	       /* the raft id */
	struct ring_settings settings; /* asked for; RING_UNSET */
	char name[RING_NAME_MAX + 1];
};
void peer_put_join(struct buf *b, const struct peer_join *join);
int peer_get_join(struct reader *body, struct peer_join *out);

/* The leader does not want you, and why. A node whose log is behind what it has
 * acknowledged hears of its refusal only so: the log is not sent to it. */
enum peer_why {
	PEER_OTHER_CLUSTER = 1,
	PEER_OTHER_SETTINGS,
	PEER_NAME_TAKEN,
	PEER_BOOT_USED,	     /* the state is copied or restored (holes.md 12) */
	PEER_OLD_GENERATION, /* as this message's end says */
	PEER_N_WHY
};
struct peer_refusal {
	uint64_t whom; /* the raft id; with PEER_BOOT_USED the boot */
	enum peer_why why;
	struct ring_settings settings; /* those in force */
};
void peer_put_refusal(struct buf *b, const struct peer_refusal *refusal);
int peer_get_refusal(struct reader *body, struct peer_refusal *out);

/* I want to leave, or no more (leave.c). */
enum peer_wish {
	PEER_LEAVES = 1, /* take my vote away, and tell me */
	PEER_GIVES,	 /* and I show nothing any more: let my life be over */
	PEER_STAYS,	 /* I do not leave */
	PEER_N_WISHES
};
struct peer_leave {
	uint8_t hops; /* as of a join */
	struct ring_id node;
	uint64_t number; /* of this wish; the farewell repeats it */
	uint64_t boot, epoch;
	enum peer_wish wish;
};
void peer_put_leave(struct buf *b, const struct peer_leave *leave);
int peer_get_leave(struct reader *body, struct peer_leave *out);

/* You who leave: by a configuration that is committed you vote no more. */
struct peer_farewell {
	uint64_t number; /* of the wish that this answers */
	bool is_over;	 /* and the life that it named is over */
};
void peer_put_farewell(struct buf *b, const struct peer_farewell *farewell);
int peer_get_farewell(struct reader *body, struct peer_farewell *out);

/* You who hold these keys, finish them (force.c): a message is begun with
 * PEER_FINISH, and each life is appended. token 0: whatever it is. */
void peer_put_life(struct buf *b, uint64_t id, uint64_t token);
/* The next of a message's lives. False: there are no more, or what is left is
 * none. */
bool peer_next_life(struct reader *body, uint64_t *id, uint64_t *token);

/* One item that a node wants in the log. */
struct peer_item {
	bool is_up, is_share; /* else a request */
	struct keyset_up up;  /* is_up; its name is in name */
	char name[RING_NAME_MAX + 1];
	struct keyset_share share;   /* is_share */
	struct keyset_origin origin; /* a request's */
	uint32_t n_ops;
	const uint8_t *bytes; /* the item, as it stands in an entry; borrowed */
	size_t len;
};

/* The next item of from's message. 1: it is there; 0: there are no more;
 * -EBADMSG: malformed, or not what from may ask for: requests, its own up and
 * share. */
int peer_next_item(struct reader *body, const struct ring_id *from,
		   struct peer_item *out);

#endif
