/* SPDX-License-Identifier: MIT */
/* Where keys are found: by name and by life in open-addressed tables of
 * pointers, by place in dense lists of lives. A key knows its place in each
 * list it stands in, so that leaving one is a swap with the last. Both halve
 * when three quarters have gone, so that memory follows the number of keys. */
#include "ring/keyset_impl.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "ring/mem.h"

/* ---- Tables ---- */

static uint64_t hash_name(const struct ring_key *key)
{
	return XXH3_64bits(key->name, key->name_len);
}

/* Lives are counted up, and keys are mostly looked for in that order (a listing,
 * a node's death): sixteen neighbours stay neighbours, so that the next place is
 * in the cache already. No more than that: a run of thousands without a gap would
 * be walked to its end by each removal. */
static uint64_t hash_life(uint64_t id)
{
	uint64_t group = (id >> 4) * UINT64_C(0x9e3779b97f4a7c15);

	return (group ^ group >> 32) << 4 | (id & 15);
}

static uint64_t hash_id(const struct ring_key *key)
{
	return hash_life(key->id);
}

static void table_place(struct table *t, struct ring_key *key)
{
	size_t i = t->hash(key) & t->mask;

	while (t->at[i] != NULL)
		i = (i + 1) & t->mask;
	t->at[i] = key;
}

static void table_resize(struct table *t, size_t places)
{
	struct ring_key **old = t->at;
	size_t n_old = old != NULL ? t->mask + 1 : 0;

	t->at = xcalloc(places, sizeof(struct ring_key *));
	t->mask = places - 1;
	for (size_t i = 0; i < n_old; i++)
		if (old[i] != NULL)
			table_place(t, old[i]);
	free(old);
}

static void table_insert(struct table *t, struct ring_key *key)
{
	if (t->at == NULL)
		table_resize(t, 64);
	else if ((t->n + 1) * 4 > (t->mask + 1) * 3)
		table_resize(t, (t->mask + 1) * 2);
	table_place(t, key);
	t->n++;
}

/* Empty place i and draw up those behind it whose way leads over it: no
 * tombstones (Knuth, TAOCP 3, 6.4, algorithm R). */
static void table_close_gap(struct table *t, size_t i)
{
	size_t j = i;

	for (;;) {
		t->at[i] = NULL;
		do {
			j = (j + 1) & t->mask;
			if (t->at[j] == NULL)
				return;
		} while (((j - t->hash(t->at[j])) & t->mask) <
			 ((j - i) & t->mask));
		t->at[i] = t->at[j];
		i = j;
	}
}

static void table_remove(struct table *t, const struct ring_key *key)
{
	size_t i = t->hash(key) & t->mask;

	while (t->at[i] != key) {
		assert(t->at[i] != NULL);
		i = (i + 1) & t->mask;
	}
	table_close_gap(t, i);
	t->n--;
	if (t->mask >= 64 && t->n * 16 < (t->mask + 1) * 3)
		table_resize(t, (t->mask + 1) / 2);
}

struct ring_key *keyset_find(const struct keyset *k, const char *name,
			     size_t len)
{
	const struct table *t = &k->by_name;

	if (t->at == NULL)
		return NULL;
	for (size_t i = XXH3_64bits(name, len) & t->mask; t->at[i] != NULL;
	     i = (i + 1) & t->mask)
		if (t->at[i]->name_len == len &&
		    memcmp(t->at[i]->name, name, len) == 0)
			return t->at[i];
	return NULL;
}

struct ring_key *keyset_find_id(const struct keyset *k, uint64_t id)
{
	const struct table *t = &k->by_id;

	if (t->at == NULL)
		return NULL;
	for (size_t i = hash_life(id) & t->mask; t->at[i] != NULL;
	     i = (i + 1) & t->mask)
		if (t->at[i]->id == id)
			return t->at[i];
	return NULL;
}

/* ---- Lists ---- */

static void ids_resize(struct ids *ids, uint32_t cap)
{
	ids->at = xrealloc(ids->at, cap * sizeof(uint64_t));
	ids->cap = cap;
}

void ids_push(struct ids *ids, uint64_t id)
{
	if (ids->n == ids->cap)
		ids_resize(ids, ids->cap + ids->cap / 2 + 4);
	ids->at[ids->n++] = id;
}

void ids_finish(struct ids *ids)
{
	free(ids->at);
	*ids = (struct ids){0};
}

static void list_add(struct ids *list, enum list_kind kind,
		     struct ring_key *key)
{
	slot_of(key)->pos[kind] = list->n;
	ids_push(list, key->id);
}

static void list_remove(const struct keyset *k, struct ids *list,
			enum list_kind kind, struct ring_key *key)
{
	uint32_t pos = slot_of(key)->pos[kind];
	uint64_t last = list->at[--list->n];

	assert(pos <= list->n);
	if (pos != list->n) {
		assert(list->at[pos] == key->id);
		list->at[pos] = last;
		slot_of(keyset_find_id(k, last))->pos[kind] = pos;
	}
	if (list->cap > 64 && list->n < list->cap / 4)
		ids_resize(list, list->cap / 2);
}

static struct ids *group_list(struct keyset *k, enum ring_state state,
			      uint32_t holder)
{
	if (state == RING_PARKED)
		return &k->parked;
	if (holder == RING_NONE)
		return &k->orphans;
	if (state == RING_OFFERED)
		return &k->nodes[holder]->offered;
	return &k->nodes[holder]->held;
}

/* The list of this kind for a key that is as was says, or NULL. */
static struct ids *list_of(struct keyset *k, enum list_kind kind,
			   const struct ring_key *key,
			   const struct keyset_was *was)
{
	switch (kind) {
	case LIST_ALL:
		return &k->all;
	case LIST_VNODE:
		return &k->vnodes[key->vnode];
	case LIST_GROUP:
		return group_list(k, was->state, was->holder);
	case LIST_RELEASING:
		return was->state == RING_RELEASING
			       ? &k->nodes[was->holder]->releasing
			       : NULL;
	case LIST_SUBMITTING:
		return was->submitting ? &k->nodes[key->claimer]->submitting
				       : NULL;
	default:
		assert(!"kind");
		return NULL;
	}
}

static struct keyset_was as_is(const struct ring_key *key)
{
	return (struct keyset_was){.state = key->state,
				   .submitting = key->submitting,
				   .holder = key->holder};
}

static void count_keys(struct keyset *k, uint32_t node)
{
	struct node *n;

	if (node == RING_NONE)
		return;
	n = k->nodes[node];
	n->pub.n_keys = n->held.n + n->offered.n;
}

void index_init(struct keyset *k)
{
	k->by_name.hash = hash_name;
	k->by_id.hash = hash_id;
}

void index_finish(struct keyset *k)
{
	for (size_t i = 0; k->by_id.at != NULL && i <= k->by_id.mask; i++)
		if (k->by_id.at[i] != NULL)
			key_free(k->by_id.at[i]);
	free(k->by_id.at);
	free(k->by_name.at);
	for (uint32_t v = 0; k->vnodes != NULL && v < k->settings.vnodes; v++)
		ids_finish(&k->vnodes[v]);
	free(k->vnodes);
	ids_finish(&k->all);
	ids_finish(&k->parked);
	ids_finish(&k->orphans);
}

void index_name(struct keyset *k, struct ring_key *key)
{
	table_insert(&k->by_id, key);
	table_insert(&k->by_name, key);
}

void index_list(struct keyset *k, struct ring_key *key)
{
	struct keyset_was now = as_is(key);

	for (enum list_kind kind = 0; kind < N_LISTS; kind++) {
		struct ids *list = list_of(k, kind, key, &now);

		if (list != NULL)
			list_add(list, kind, key);
	}
	count_keys(k, key->holder);
}

void index_remove(struct keyset *k, struct ring_key *key)
{
	struct keyset_was now = as_is(key);

	for (enum list_kind kind = 0; kind < N_LISTS; kind++) {
		struct ids *list = list_of(k, kind, key, &now);

		if (list != NULL)
			list_remove(k, list, kind, key);
	}
	count_keys(k, key->holder);
	table_remove(&k->by_name, key);
	table_remove(&k->by_id, key);
}

void index_move(struct keyset *k, struct ring_key *key,
		const struct keyset_was *was)
{
	struct keyset_was now = as_is(key);

	for (enum list_kind kind = LIST_GROUP; kind < N_LISTS; kind++) {
		struct ids *from = list_of(k, kind, key, was);
		struct ids *to = list_of(k, kind, key, &now);

		if (from == to)
			continue;
		if (from != NULL)
			list_remove(k, from, kind, key);
		if (to != NULL)
			list_add(to, kind, key);
	}
	count_keys(k, was->holder);
	count_keys(k, key->holder);
}
