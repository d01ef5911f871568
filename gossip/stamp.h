/* SPDX-License-Identifier: MIT */
/* When something was written, without a clock: a counter above all that the
 * writer had seen, ties broken by who wrote (S4). Total: no two records have
 * equal stamps, so everybody picks the same winner, whatever came first. */
#ifndef GOSSIP_STAMP_H
#define GOSSIP_STAMP_H

#include "gossip/bytes.h"
#include "gossip/scuttlebutt.h"

/* Nobody honest is so far ahead of us. A counter beyond is refused: one forged
 * record cannot use up all the numbers there are. */
#define STAMP_JUMP_MAX ((uint64_t)1 << 40)

/* The counter is the first thing in the body of a stamped record. */
static inline uint64_t stamp_counter(const struct sb_record *r)
{
	struct bytes_in in = bytes_in_of(r->body, r->len);

	return bytes_u64(&in);
}

static inline int stamp_compare(const struct sb_record *a,
				const struct sb_record *b)
{
	uint64_t x = stamp_counter(a), y = stamp_counter(b);
	int ids = memcmp(&a->source->id, &b->source->id, sizeof(a->source->id));

	if (x != y)
		return x < y ? -1 : 1;
	if (ids != 0)
		return ids;
	if (a->source->life != b->source->life)
		return a->source->life < b->source->life ? -1 : 1;
	return a->version < b->version ? -1 : a->version > b->version;
}

/* Move the clock up to a counter that was seen; false if that cannot be. */
static inline bool stamp_see(uint64_t *clock, uint64_t counter)
{
	if (counter > *clock && counter - *clock > STAMP_JUMP_MAX)
		return false;
	if (counter > *clock)
		*clock = counter;
	return true;
}

#endif
