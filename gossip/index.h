/* SPDX-License-Identifier: MIT */
/* Things found by a 64-bit hash: open addressing, linear probing, at most half
 * full, no tombstones (removal shifts back). The index holds pointers and their
 * hashes; what they point at, and what makes two of them equal, is the user's:
 *
 *	for (size_t at = index_begin(x, hash);
 *	     (item = index_next(x, hash, &at)) != NULL;)
 *		if (is_it(item)) ...
 *
 * Hash with a seed that others cannot know where they choose the keys. */
#ifndef GOSSIP_INDEX_H
#define GOSSIP_INDEX_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/mem.h"

struct index_slot {
	uint64_t hash;
	void *item; /* NULL: free */
};

struct index {
	struct index_slot *slots;
	size_t n, cap; /* cap is 0 or a power of two */
};

static inline void index_finish(struct index *x)
{
	free(x->slots);
	*x = (struct index){0};
}

static inline size_t index_begin(const struct index *x, uint64_t hash)
{
	return x->cap > 0 ? hash & (x->cap - 1) : 0;
}

/* The next item with this hash, NULL at the end. */
static inline void *index_next(const struct index *x, uint64_t hash, size_t *at)
{
	while (x->cap > 0 && x->slots[*at].item != NULL) {
		const struct index_slot *slot = &x->slots[*at];
		*at = (*at + 1) & (x->cap - 1);
		if (slot->hash == hash)
			return slot->item;
	}
	return NULL;
}

static inline void index_put_slot(struct index *x, struct index_slot slot)
{
	size_t at = index_begin(x, slot.hash);

	while (x->slots[at].item != NULL)
		at = (at + 1) & (x->cap - 1);
	x->slots[at] = slot;
}

static inline void index_put(struct index *x, uint64_t hash, void *item)
{
	if (2 * x->n >= x->cap) {
		struct index old = *x;

		x->cap = old.cap > 0 ? 2 * old.cap : 16;
		x->slots = xcalloc(x->cap, sizeof(*x->slots));
		for (size_t i = 0; i < old.cap; i++)
			if (old.slots[i].item != NULL)
				index_put_slot(x, old.slots[i]);
		free(old.slots);
	}
	index_put_slot(x, (struct index_slot){.hash = hash, .item = item});
	x->n++;
}

static inline size_t index_place(const struct index *x, uint64_t hash,
				 const void *item)
{
	size_t at = index_begin(x, hash);

	while (x->slots[at].item != item) {
		assert(x->slots[at].item != NULL);
		at = (at + 1) & (x->cap - 1);
	}
	return at;
}

/* The same place in the index for another item of equal key. */
static inline void index_replace(struct index *x, uint64_t hash,
				 const void *item, void *by)
{
	x->slots[index_place(x, hash, item)].item = by;
}

static inline void index_remove(struct index *x, uint64_t hash,
				const void *item)
{
	size_t mask = x->cap - 1, hole = index_place(x, hash, item);

	for (size_t at = (hole + 1) & mask; x->slots[at].item != NULL;
	     at = (at + 1) & mask) {
		size_t home = x->slots[at].hash & mask;
		if (((at - home) & mask) < ((at - hole) & mask))
			continue; /* it would come before its home */
		x->slots[hole] = x->slots[at];
		hole = at;
	}
	x->slots[hole].item = NULL;
	x->n--;
}

#endif
