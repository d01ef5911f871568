/* SPDX-License-Identifier: MIT */
#include "ring/place.h"

#include <assert.h>
#include <string.h>

#include <xxhash.h>

#include "ring/mem.h"

/* A plan in four steps:
 *
 * 1. count   who has how many vnodes now;
 * 2. divide  how many each shall have: weight's share rounded down, and one
 *            more for as many as it takes to use up all vnodes;
 * 3. give    which vnodes leave their owners: those of the gone, and an even
 *            choice out of what a node has too many of;
 * 4. take    givers donor by donor, takers in turns: the one list is laid
 *            along the other.
 *
 * Nodes are kept in the order of their ids throughout, which makes the result
 * independent of the order they were given in. */

/* A node in the plan. Its place in the array is its rank. */
struct share {
	struct ring_id id;
	uint32_t node;
	uint32_t had;  /* vnodes before */
	uint32_t gets; /* vnodes after */
	uint32_t seen; /* step 3: of its vnodes, so far */
	uint64_t weight;
	uint64_t rest; /* what rounding down cut off, in units of 1/total */
};

struct plan {
	uint32_t *table; /* the caller's */
	uint32_t n_vnodes;
	uint32_t n_shares;
	struct share *shares;
	uint32_t *ranks; /* of each vnode's owner, RING_NONE for the gone */
	uint64_t *gives; /* pair(owner, vnode) */
	uint64_t *takes; /* pair(turn, rank) */
};

/* Two numbers that sort as one: by high, then low. */
static uint64_t pair(uint32_t high, uint32_t low)
{
	return (uint64_t)high << 32 | low;
}

static uint32_t pair_high(uint64_t p)
{
	return (uint32_t)(p >> 32);
}

static uint32_t pair_low(uint64_t p)
{
	return (uint32_t)p;
}

static int by_pair(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int by_id(const void *a, const void *b)
{
	const struct share *x = a, *y = b;

	return memcmp(x->id.byte, y->id.byte, sizeof(x->id.byte));
}

static void plan_init(struct plan *p, uint32_t *table, uint32_t n_vnodes,
		      const struct place_node *nodes, uint32_t n_nodes)
{
	p->table = table;
	p->n_vnodes = n_vnodes;
	p->n_shares = n_nodes;
	p->shares = xcalloc(n_nodes, sizeof(*p->shares));
	p->ranks = xcalloc(n_vnodes, sizeof(*p->ranks));
	p->gives = xcalloc(n_vnodes, sizeof(*p->gives));
	p->takes = xcalloc(n_vnodes, sizeof(*p->takes));
	for (uint32_t i = 0; i < n_nodes; i++) {
		assert(nodes[i].node != RING_NONE);
		p->shares[i].id = nodes[i].id;
		p->shares[i].node = nodes[i].node;
		p->shares[i].weight = nodes[i].weight;
	}
	qsort(p->shares, n_nodes, sizeof(*p->shares), by_id);
	for (uint32_t i = 1; i < n_nodes; i++)
		assert(by_id(&p->shares[i - 1], &p->shares[i]) < 0);
}

static void plan_finish(struct plan *p)
{
	free(p->takes);
	free(p->gives);
	free(p->ranks);
	free(p->shares);
}

/* ---- Step 1 ---- */

/* The rank that index, n sorted pairs of (node, rank), has for node. */
static uint32_t rank_of(const uint64_t *index, uint32_t n, uint32_t node)
{
	uint32_t low = 0, high = n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (pair_high(index[mid]) < node)
			low = mid + 1;
		else
			high = mid;
	}
	return low < n && pair_high(index[low]) == node ? pair_low(index[low])
							: RING_NONE;
}

static void count(struct plan *p)
{
	uint64_t *index = xcalloc(p->n_shares, sizeof(*index));

	for (uint32_t i = 0; i < p->n_shares; i++)
		index[i] = pair(p->shares[i].node, i);
	qsort(index, p->n_shares, sizeof(*index), by_pair);
	for (uint32_t i = 1; i < p->n_shares; i++)
		assert(pair_high(index[i - 1]) < pair_high(index[i]));
	for (uint32_t v = 0; v < p->n_vnodes; v++) {
		p->ranks[v] = rank_of(index, p->n_shares, p->table[v]);
		if (p->ranks[v] != RING_NONE)
			p->shares[p->ranks[v]].had++;
	}
	free(index);
}

/* ---- Step 2 ---- */

/* Who is rounded up sooner. The first rule saves a move each; the others are
 * free to choose, as none of those behind it keeps a vnode by being rounded
 * up. */
static int by_claim(const void *a, const void *b)
{
	const struct share *x = *(const struct share *const *)a;
	const struct share *y = *(const struct share *const *)b;
	int keeps_x = x->had > x->gets, keeps_y = y->had > y->gets;

	if (keeps_x != keeps_y)
		return keeps_y - keeps_x;
	if (x->rest != y->rest)
		return x->rest > y->rest ? -1 : 1;
	int64_t gain_x = (int64_t)x->gets - x->had;
	int64_t gain_y = (int64_t)y->gets - y->had;

	if (gain_x != gain_y)
		return gain_x < gain_y ? -1 : 1;
	return by_id(x, y);
}

/* total is the sum of the weights, not 0. */
static void divide(struct plan *p, uint64_t total)
{
	struct share **claims = xcalloc(p->n_shares, sizeof(struct share *));
	uint32_t n_claims = 0, left = p->n_vnodes;

	for (uint32_t i = 0; i < p->n_shares; i++) {
		struct share *s = &p->shares[i];

		/* At most 2^16 * 2^32. */
		s->gets = (uint32_t)(p->n_vnodes * s->weight / total);
		s->rest = p->n_vnodes * s->weight % total;
		left -= s->gets;
		if (s->rest != 0) /* others have exactly their share */
			claims[n_claims++] = s;
	}
	qsort(claims, n_claims, sizeof(*claims), by_claim);
	assert(left == 0 || left < n_claims);
	for (uint32_t i = 0; i < left; i++)
		claims[i]->gets++;
	free(claims);
}

/* ---- Steps 3 and 4 ---- */

/* Does s part with the next of its vnodes? Gives (had - gets) of had, as evenly
 * as a line of pixels climbs (Bresenham). */
static bool parts_with_next(struct share *s)
{
	if (s->gets >= s->had)
		return false;
	uint64_t i = s->seen++, n_lost = s->had - s->gets;

	return i * n_lost / s->had != (i + 1) * n_lost / s->had;
}

static uint32_t give(struct plan *p)
{
	uint32_t n = 0;

	for (uint32_t v = 0; v < p->n_vnodes; v++) {
		uint32_t rank = p->ranks[v];

		if (rank == RING_NONE || parts_with_next(&p->shares[rank]))
			p->gives[n++] = pair(p->table[v], v);
	}
	qsort(p->gives, n, sizeof(*p->gives), by_pair);
	return n;
}

/* The takers in turns. A node that gains d vnodes stands at 1/2d, 3/2d, 5/2d
 * and so on of the list, so that each stretch of it, one donor's as well, has
 * all takers by their gains; equal gains make a round robin. */
static uint32_t take(struct plan *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->n_shares; i++) {
		const struct share *s = &p->shares[i];

		if (s->gets <= s->had)
			continue;
		uint64_t gain = s->gets - s->had;

		for (uint64_t k = 0; k < gain; k++)
			p->takes[n++] =
				pair((uint32_t)(((2 * k + 1) << 31) / gain), i);
	}
	qsort(p->takes, n, sizeof(*p->takes), by_pair);
	return n;
}

static uint32_t move(struct plan *p)
{
	uint32_t n = give(p), n_taken = take(p);

	assert(n == n_taken);
	(void)n_taken;
	for (uint32_t i = 0; i < n; i++)
		p->table[pair_low(p->gives[i])] =
			p->shares[pair_low(p->takes[i])].node;
	return n;
}

static uint32_t clear(uint32_t *table, uint32_t n_vnodes)
{
	uint32_t n = 0;

	for (uint32_t v = 0; v < n_vnodes; v++) {
		n += table[v] != RING_NONE;
		table[v] = RING_NONE;
	}
	return n;
}

static void assert_ring_size(uint32_t n)
{
	assert(n >= 2 && n <= 65536 && (n & (n - 1)) == 0);
	(void)n;
}

uint32_t place_vnode(const void *name, size_t len, uint32_t n_vnodes)
{
	assert_ring_size(n_vnodes);
	return (uint32_t)(XXH3_64bits(name, len) >>
			  (__builtin_clzll(n_vnodes) + 1));
}

uint32_t place_plan(uint32_t *table, uint32_t n_vnodes,
		    const struct place_node *nodes, uint32_t n_nodes)
{
	struct plan p;
	uint64_t total = 0;

	assert_ring_size(n_vnodes);
	for (uint32_t i = 0; i < n_nodes; i++)
		total += nodes[i].weight;
	if (total == 0)
		return clear(table, n_vnodes);
	plan_init(&p, table, n_vnodes, nodes, n_nodes);
	count(&p);
	divide(&p, total);
	uint32_t n_moves = move(&p);

	plan_finish(&p);
	return n_moves;
}

/* ---- For those who want to know what would be (ring.h) ---- */

uint32_t ring_vnode_in(const char *name, size_t len, uint32_t n_vnodes)
{
	return place_vnode(name, len, n_vnodes);
}

uint32_t ring_plan(uint32_t *owners, uint32_t n_vnodes,
		   const struct ring_plan_node *nodes, uint32_t n_nodes)
{
	struct place_node *same = xcalloc(n_nodes, sizeof(*same));

	for (uint32_t i = 0; i < n_nodes; i++)
		same[i] = (struct place_node){.id = nodes[i].id,
					      .node = nodes[i].owner,
					      .weight = nodes[i].weight};
	uint32_t n = place_plan(owners, n_vnodes, same, n_nodes);

	free(same);
	return n;
}
