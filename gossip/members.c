/* SPDX-License-Identifier: MIT */
#include "gossip/members.h"

#include <assert.h>
#include <xxhash.h>

#include "gossip/mem.h"

_Static_assert(sizeof(struct member) <= 64, "one cache line per member");

void members_init(struct members *m, struct facts_pool *pool,
		  struct random *random)
{
	*m = (struct members){.pool = pool, .random = random};
	m->free = MEMBER_NONE;
	m->n_index = 16;
	m->index = xcalloc(m->n_index, sizeof(*m->index));
	for (unsigned i = 0; i < MEMBER_SENT_MAX; i++)
		m->newest[i] = m->oldest[i] = MEMBER_NONE;
}

void members_finish(struct members *m)
{
	for (uint32_t i = 0; i < m->n_slots; i++) {
		if (m->slots[i].facts != NULL)
			facts_drop(m->pool, m->slots[i].facts);
		free(m->slots[i].verdict);
	}
	for (unsigned i = 0; i < N_SETS; i++)
		free(m->sets[i].slots);
	free(m->heap);
	free(m->index);
	free(m->slots);
}

/* The index: open addressing, linear probing, at most three quarters full. */

static uint32_t home_of(const struct members *m, const struct gossip_id *id)
{
	uint64_t h;

	memcpy(&h, id->b, sizeof(h)); /* random bytes as they are */
	return (uint32_t)((h * 0x9e3779b97f4a7c15) >> 32) & (m->n_index - 1);
}

static uint32_t index_of(const struct members *m, const struct gossip_id *id)
{
	uint32_t i = home_of(m, id), slot;

	while ((slot = m->index[i]) != 0 &&
	       !gossip_id_equal(&m->slots[slot - 1].facts->id, id))
		i = (i + 1) & (m->n_index - 1);
	return i;
}

uint32_t members_find(const struct members *m, const struct gossip_id *id)
{
	uint32_t slot = m->index[index_of(m, id)];

	return slot != 0 ? slot - 1 : MEMBER_NONE;
}

static void index_grow(struct members *m)
{
	free(m->index);
	m->n_index *= 2;
	m->index = xcalloc(m->n_index, sizeof(*m->index));
	for (uint32_t i = 0; i < m->n_slots; i++)
		if (m->slots[i].facts != NULL)
			m->index[index_of(m, &m->slots[i].facts->id)] = i + 1;
}

static void index_remove(struct members *m, const struct gossip_id *id)
{
	uint32_t mask = m->n_index - 1, i = index_of(m, id);

	assert(m->index[i] != 0);
	for (uint32_t j = (i + 1) & mask; m->index[j] != 0;
	     j = (j + 1) & mask) {
		const struct member *other = &m->slots[m->index[j] - 1];
		uint32_t home = home_of(m, &other->facts->id);

		if (((j - home) & mask) < ((j - i) & mask))
			continue; /* is where it belongs, or nearer to it */
		m->index[i] = m->index[j];
		i = j;
	}
	m->index[i] = 0;
}

/* The sets: dense arrays, each member knows its place in them. */

static void set_put(struct members *m, struct member_set_list *set, uint32_t i,
		    uint32_t slot, unsigned pair)
{
	set->slots[i] = slot;
	m->slots[slot].place[pair] = i;
}

static void set_swap(struct members *m, enum member_set which, uint32_t i,
		     uint32_t j)
{
	struct member_set_list *set = &m->sets[which];
	unsigned pair = which >= IN_LIVE;
	uint32_t slot = set->slots[i];

	set_put(m, set, i, set->slots[j], pair);
	set_put(m, set, j, slot, pair);
}

/* At a random place among those that still wait for their turn: so one who
 * joins is probed in this round. */
static void set_insert(struct members *m, enum member_set which, uint32_t slot)
{
	struct member_set_list *set = &m->sets[which];

	if (set->n == set->cap) {
		set->cap = set->cap > 0 ? set->cap + set->cap / 2 : 4;
		set->slots =
			xrealloc(set->slots, set->cap * sizeof(*set->slots));
	}
	uint32_t i = set->n++;
	set_put(m, set, i, slot, which >= IN_LIVE);
	set_swap(m, which, i, i - random_below(m->random, i - set->cursor + 1));
}

static void set_delete(struct members *m, enum member_set which, uint32_t slot)
{
	struct member_set_list *set = &m->sets[which];
	uint32_t i = m->slots[slot].place[which >= IN_LIVE];

	assert(i < set->n && set->slots[i] == slot);
	if (i <
	    set->cursor) { /* the gap moves to the border, then to the end */
		set_swap(m, which, i, --set->cursor);
		i = set->cursor;
	}
	set_swap(m, which, i, --set->n);
}

static enum member_set wanted_set(const struct member *member, unsigned pair)
{
	if (pair == 0)
		return member->status <= WIRE_SUSPECT ? IN_ROUND
		       : member->status == WIRE_DEAD  ? IN_GONE
						      : IN_NONE;
	if (member->status > WIRE_SUSPECT)
		return IN_NONE;
	if (!member->is_verified)
		return IN_HEARSAY;
	return member->status == WIRE_ALIVE ? IN_LIVE : IN_NONE;
}

/* The one function that says where a member stands. */
static void place(struct members *m, uint32_t slot)
{
	struct member *member = &m->slots[slot];

	if (slot == MEMBER_SELF)
		return; /* neither probes itself nor sends itself news */
	for (unsigned pair = 0; pair < 2; pair++) {
		enum member_set wanted = wanted_set(member, pair);

		if (wanted == member->in_set[pair])
			continue;
		if (member->in_set[pair] != IN_NONE)
			set_delete(m, member->in_set[pair], slot);
		if (wanted != IN_NONE)
			set_insert(m, wanted, slot);
		member->in_set[pair] = (uint8_t)wanted;
	}
}

uint32_t members_next_turn(struct members *m, enum member_set which)
{
	struct member_set_list *set = &m->sets[which];

	if (set->n == 0)
		return MEMBER_NONE;
	if (set->cursor == set->n) {
		for (uint32_t i = set->n - 1; i > 0; i--)
			set_swap(m, which, i, random_below(m->random, i + 1));
		set->cursor = 0;
	}
	return set->slots[set->cursor++];
}

void members_take_turn(struct members *m, uint32_t slot)
{
	struct member_set_list *set = &m->sets[IN_ROUND];
	const struct member *member = &m->slots[slot];

	if (member->in_set[0] != IN_ROUND)
		return;
	if (member->place[0] < set->cursor) /* again, before its turn */
		set_swap(m, IN_ROUND, member->place[0], --set->cursor);
	else
		set_swap(m, IN_ROUND, member->place[0], set->cursor);
}

uint32_t members_choose(struct members *m, enum member_set which, uint32_t k,
			uint32_t except)
{
	struct member_set_list *set = &m->sets[which];
	unsigned pair = which >= IN_LIVE;
	uint32_t n = set->n;

	assert(which != IN_ROUND); /* its order is that of the turns */
	if (n > 0 && except != MEMBER_NONE &&
	    m->slots[except].in_set[pair] == which)
		set_swap(m, which, m->slots[except].place[pair], --n);
	for (uint32_t i = 0; i < k && i < n; i++)
		set_swap(m, which, i, i + random_below(m->random, n - i));
	return k < n ? k : n;
}

/* Digests */

static uint64_t digest_of(const struct member *member)
{
	struct {
		struct gossip_id id;
		uint64_t incarnation, facts_version, status;
	} what = {member->facts->id, member->incarnation,
		  member->facts->version, member->status};

	return XXH3_64bits(&what, sizeof(what));
}

static bool is_told(const struct member *member)
{
	return member->verdict == NULL || !member->verdict->is_faded;
}

static void digest_add(struct members *m, const struct member *member, int sign)
{
	if (!is_told(member))
		return;
	uint64_t d = digest_of(member) * (uint64_t)sign;

	m->digest += d;
	m->buckets[member_bucket(&member->facts->id)] += d;
}

/* Members */

static uint32_t take_slot(struct members *m)
{
	uint32_t slot = m->free;

	if (slot != MEMBER_NONE) {
		m->free = m->slots[slot].newer;
		return slot;
	}
	if (m->n_slots == m->cap) {
		m->cap = m->cap > 0 ? m->cap + m->cap / 2 : 4;
		m->slots = xrealloc(m->slots, m->cap * sizeof(*m->slots));
	}
	return m->n_slots++;
}

uint32_t members_add(struct members *m, const struct facts *facts,
		     uint64_t incarnation)
{
	if (4 * (m->n + 1) > 3 * m->n_index)
		index_grow(m);
	uint32_t slot = take_slot(m);
	m->slots[slot] =
		(struct member){.facts = facts, .incarnation = incarnation};
	m->index[index_of(m, &facts->id)] = slot + 1;
	m->n++;
	digest_add(m, &m->slots[slot], 1);
	place(m, slot);
	return slot;
}

void members_remove(struct members *m, uint32_t slot)
{
	struct member *member = &m->slots[slot];

	assert(slot != MEMBER_SELF);
	members_hush(m, slot);
	digest_add(m, member, -1);
	for (unsigned pair = 0; pair < 2; pair++)
		if (member->in_set[pair] != IN_NONE)
			set_delete(m, member->in_set[pair], slot);
	members_clear_verdict(m, slot);
	index_remove(m, &member->facts->id);
	facts_drop(m->pool, member->facts);
	*member = (struct member){.newer = m->free};
	m->free = slot;
	m->n--;
}

void members_set_status(struct members *m, uint32_t slot, uint64_t incarnation,
			unsigned status)
{
	struct member *member = &m->slots[slot];

	digest_add(m, member, -1);
	if (status == WIRE_ALIVE ||
	    (member_is_gone(member) && status == WIRE_SUSPECT))
		members_clear_verdict(m, slot);
	if (member->verdict != NULL)
		member->verdict->is_faded = false;
	member->incarnation = incarnation;
	member->status = (uint8_t)status;
	digest_add(m, member, 1);
	place(m, slot);
}

void members_set_facts(struct members *m, uint32_t slot,
		       const struct facts *facts)
{
	struct member *member = &m->slots[slot];

	assert(gossip_id_equal(&member->facts->id, &facts->id));
	digest_add(m, member, -1);
	facts_drop(m->pool, member->facts);
	member->facts = facts;
	digest_add(m, member, 1);
}

void members_set_verified(struct members *m, uint32_t slot)
{
	m->slots[slot].is_verified = true;
	place(m, slot);
}

void members_fade(struct members *m, uint32_t slot)
{
	struct member *member = &m->slots[slot];

	assert(member_is_gone(member));
	members_hush(m, slot);
	digest_add(m, member, -1);
	members_verdict(m, slot)->is_faded = true;
}

/* Verdicts: a binary heap of those that wait for a time. */

static void heap_put(struct members *m, uint32_t i, struct verdict *v)
{
	m->heap[i] = v;
	v->heap_at = i;
}

static void heap_up(struct members *m, uint32_t i)
{
	struct verdict *v = m->heap[i];

	for (; i > 0 && m->heap[(i - 1) / 2]->due_us > v->due_us;
	     i = (i - 1) / 2)
		heap_put(m, i, m->heap[(i - 1) / 2]);
	heap_put(m, i, v);
}

static void heap_down(struct members *m, uint32_t i)
{
	struct verdict *v = m->heap[i];

	for (uint32_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
		if (child + 1 < m->n_heap &&
		    m->heap[child + 1]->due_us < m->heap[child]->due_us)
			child++;
		if (m->heap[child]->due_us >= v->due_us)
			break;
		heap_put(m, i, m->heap[child]);
	}
	heap_put(m, i, v);
}

static void heap_settle(struct members *m, struct verdict *v)
{
	heap_up(m, v->heap_at);
	heap_down(m, v->heap_at);
}

struct verdict *members_verdict(struct members *m, uint32_t slot)
{
	struct member *member = &m->slots[slot];

	if (member->verdict != NULL)
		return member->verdict;
	struct verdict *v = xcalloc(1, sizeof(*v));
	v->slot = slot;
	v->due_us = UINT64_MAX;
	member->verdict = v;
	if (m->n_heap == m->cap_heap) {
		m->cap_heap = m->cap_heap > 0 ? 2 * m->cap_heap : 4;
		m->heap = xrealloc(m->heap, m->cap_heap * sizeof(*m->heap));
	}
	heap_put(m, m->n_heap++, v);
	return v;
}

void members_set_due(struct members *m, uint32_t slot, uint64_t due_us)
{
	struct verdict *v = members_verdict(m, slot);

	v->due_us = due_us;
	heap_settle(m, v);
}

void members_clear_verdict(struct members *m, uint32_t slot)
{
	struct verdict *v = m->slots[slot].verdict;

	if (v == NULL)
		return;
	uint32_t i = v->heap_at;
	struct verdict *last = m->heap[--m->n_heap];
	if (last != v) {
		heap_put(m, i, last);
		heap_settle(m, last);
	}
	m->slots[slot].verdict = NULL;
	free(v);
}

struct verdict *members_first_due(const struct members *m)
{
	return m->n_heap > 0 ? m->heap[0] : NULL;
}

void members_shift_due(struct members *m, uint64_t by_us)
{
	/* Suspicions only: a tombstone's time goes on while we are stopped. */
	for (uint32_t i = 0; i < m->n_heap; i++) {
		struct member *member = &m->slots[m->heap[i]->slot];

		if (member->status != WIRE_SUSPECT)
			continue;
		m->heap[i]->due_us += by_us;
		member->since_us += by_us; /* from where due is counted */
	}
	for (uint32_t i = m->n_heap / 2; i-- > 0;)
		heap_down(m, i);
}

/* News: a list per number of times told, newest first. */

static void unlink_news(struct members *m, uint32_t slot)
{
	struct member *x = &m->slots[slot];

	assert(x->is_news);
	if (x->newer != MEMBER_NONE)
		m->slots[x->newer].older = x->older;
	else
		m->newest[x->sent] = x->older;
	if (x->older != MEMBER_NONE)
		m->slots[x->older].newer = x->newer;
	else
		m->oldest[x->sent] = x->newer;
	x->is_news = false;
	m->n_news--;
}

static void link_news(struct members *m, uint32_t slot, unsigned sent)
{
	struct member *x = &m->slots[slot];

	x->sent = (uint8_t)sent;
	x->newer = MEMBER_NONE;
	x->older = m->newest[sent];
	if (x->older != MEMBER_NONE)
		m->slots[x->older].newer = slot;
	else
		m->oldest[sent] = slot;
	m->newest[sent] = slot;
	x->is_news = true;
	m->n_news++;
}

void members_tell(struct members *m, uint32_t slot)
{
	members_hush(m, slot);
	if (is_told(&m->slots[slot]))
		link_news(m, slot, 0);
}

void members_told(struct members *m, uint32_t slot, unsigned limit)
{
	unsigned sent = m->slots[slot].sent + 1u;

	assert(limit < MEMBER_SENT_MAX);
	if (!m->slots[slot].is_news)
		return;
	unlink_news(m, slot);
	if (sent < limit)
		link_news(m, slot, sent);
}

void members_hush(struct members *m, uint32_t slot)
{
	if (m->slots[slot].is_news)
		unlink_news(m, slot);
}

uint32_t members_next_news(const struct members *m, uint32_t slot)
{
	unsigned sent = 0;

	if (slot != MEMBER_NONE) {
		if (m->slots[slot].older != MEMBER_NONE)
			return m->slots[slot].older;
		sent = m->slots[slot].sent + 1u;
	}
	for (; m->n_news > 0 && sent < MEMBER_SENT_MAX; sent++)
		if (m->newest[sent] != MEMBER_NONE)
			return m->newest[sent];
	return MEMBER_NONE;
}

static void check_member(const struct members *m, uint32_t slot)
{
	const struct member *x = &m->slots[slot];

	assert(members_find(m, &x->facts->id) == slot);
	assert((x->verdict == NULL) == (x->status == WIRE_ALIVE) ||
	       slot == MEMBER_SELF);
	assert(x->facts->version <= x->incarnation);
	if (x->verdict != NULL)
		assert(m->heap[x->verdict->heap_at] == x->verdict &&
		       x->verdict->slot == slot);
	for (unsigned pair = 0; pair < 2; pair++) {
		if (slot != MEMBER_SELF)
			assert(x->in_set[pair] == wanted_set(x, pair));
		if (x->in_set[pair] != IN_NONE)
			assert(m->sets[x->in_set[pair]].slots[x->place[pair]] ==
			       slot);
	}
}

void members_check(const struct members *m)
{
	uint64_t digest = 0;
	uint32_t n = 0, n_news = 0;

	for (uint32_t i = 0; i < m->n_slots; i++) {
		const struct member *x = &m->slots[i];

		if (x->facts == NULL)
			continue;
		check_member(m, i);
		digest += is_told(x) ? digest_of(x) : 0;
		n++;
		n_news += x->is_news;
	}
	assert(n == m->n && digest == m->digest && n_news == m->n_news);
	for (uint32_t i = 1; i < m->n_heap; i++)
		assert(m->heap[(i - 1) / 2]->due_us <= m->heap[i]->due_us);
}
