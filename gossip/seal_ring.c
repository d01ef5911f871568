/* SPDX-License-Identifier: MIT */
/* Keys, who has them, and what was heard of whom. */
#include <assert.h>
#include <errno.h>
#include <xxhash.h>

#include "gossip/seal_impl.h"

/* ---- Peers ---- */

static uint64_t hash_id(const struct seal *s, const struct gossip_id *id)
{
	return XXH3_64bits_withSeed(id->b, sizeof(id->b), s->seed);
}

struct seal_peer *seal_find_peer(const struct seal *s,
				 const struct gossip_id *id)
{
	uint64_t hash = hash_id(s, id);
	struct seal_peer *p;

	for (size_t at = index_begin(&s->peers, hash);
	     (p = index_next(&s->peers, hash, &at)) != NULL;)
		if (gossip_id_equal(&p->id, id))
			return p;
	return NULL;
}

/* Found, or made; NULL if there are too many. */
static struct seal_peer *peer_of(struct seal *s, const struct gossip_id *id)
{
	struct seal_peer *p = seal_find_peer(s, id);

	if (p != NULL)
		return p;
	if (s->peers.n >= s->config.peers_max)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->id = *id;
	index_put(&s->peers, hash_id(s, id), p);
	return p;
}

static void begin_boot(struct seal_peer *p, uint32_t boot)
{
	p->boot = boot;
	p->highest = 0;
	memset(p->window, 0, sizeof(p->window));
}

void seal_member(struct seal *s, const struct gossip_id *id, uint32_t boot)
{
	struct seal_peer *p = peer_of(s, id);

	if (p == NULL)
		return;
	p->is_member = true;
	if (boot > p->boot)
		begin_boot(p, boot);
}

void seal_forget(struct seal *s, const struct gossip_id *id)
{
	struct seal_peer *p = seal_find_peer(s, id);

	if (p == NULL)
		return;
	index_remove(&s->peers, hash_id(s, id), p);
	free(p);
}

/* ---- Windows ---- */

static uint64_t *window_word(struct seal_peer *p, uint64_t counter)
{
	return &p->window[counter % SEAL_WINDOW / 64];
}

enum seal_reason seal_window_look(const struct seal_peer *p, uint32_t boot,
				  uint64_t counter)
{
	if (boot != p->boot)
		return boot > p->boot ? SEAL_OK : SEAL_TOO_OLD;
	if (counter > p->highest)
		return SEAL_OK;
	if (p->highest - counter >= SEAL_WINDOW)
		return SEAL_TOO_OLD;
	uint64_t word = p->window[counter % SEAL_WINDOW / 64];
	return word >> (counter % 64) & 1 ? SEAL_REPLAYED : SEAL_OK;
}

/* The window moves: what it uncovers has not been had. */
static void window_move(struct seal_peer *p, uint64_t highest)
{
	if (highest - p->highest >= SEAL_WINDOW) {
		memset(p->window, 0, sizeof(p->window));
	} else {
		for (uint64_t c = p->highest + 1; c <= highest; c++)
			*window_word(p, c) &= ~(1ull << (c % 64));
	}
	p->highest = highest;
}

enum seal_reason seal_window_take(struct seal *s, const struct seal_head *head,
				  uint64_t counter, int slot)
{
	struct seal_peer *p = peer_of(s, &head->sender);

	if (p == NULL)
		return SEAL_TOO_MANY;
	assert(seal_window_look(p, head->boot, counter) == SEAL_OK);
	if (head->boot > p->boot)
		begin_boot(p, head->boot);
	if (counter > p->highest)
		window_move(p, counter);
	*window_word(p, counter) |= 1ull << (counter % 64);
	return seal_heard(s, &head->sender, slot);
}

enum seal_reason seal_heard(struct seal *s, const struct gossip_id *id,
			    int slot)
{
	struct seal_peer *p = peer_of(s, id);

	if (p == NULL)
		return SEAL_TOO_MANY;
	if (slot >= 0) {
		p->has |= (uint8_t)(1u << slot);
		s->slots[slot].has_opened = true;
	}
	return SEAL_OK;
}

/* ---- Keys ---- */

int seal_slot_of(const struct seal *s, uint64_t id)
{
	for (int i = 0; i < SEAL_KEYS_MAX; i++)
		if (s->slots[i].is_here && s->slots[i].id == id)
			return i;
	return -1;
}

int seal_add(struct seal *s, const struct seal_key *key)
{
	int slot = seal_slot_of(s, seal_key_id(key));

	if (slot >= 0)
		return -EEXIST; /* or another of the same id: of no use here */
	for (slot = 0; slot < SEAL_KEYS_MAX; slot++)
		if (!s->slots[slot].is_here)
			break;
	if (slot == SEAL_KEYS_MAX)
		return -ENOSPC;
	seal_fill_slot(&s->slots[slot], key);
	if (s->used < 0)
		s->used = slot;
	for (size_t i = 0; i < s->peers.cap; i++) {
		struct seal_peer *p = s->peers.slots[i].item;
		if (p != NULL)
			p->has &= (uint8_t) ~(1u << slot);
	}
	return 0;
}

static uint32_t n_lack(const struct seal *s, int slot)
{
	uint32_t n = 0;

	for (size_t i = 0; i < s->peers.cap; i++) {
		const struct seal_peer *p = s->peers.slots[i].item;
		n += p != NULL && p->is_member && !(p->has >> slot & 1);
	}
	return n;
}

int seal_use_by_force(struct seal *s, uint64_t id)
{
	int slot = seal_slot_of(s, id);

	if (slot < 0)
		return -ENOENT;
	s->used = slot;
	return 0;
}

int seal_use(struct seal *s, uint64_t id)
{
	int slot = seal_slot_of(s, id);

	if (slot < 0)
		return -ENOENT;
	if (slot != s->used && n_lack(s, slot) > 0)
		return -EBUSY;
	return seal_use_by_force(s, id);
}

int seal_remove(struct seal *s, uint64_t id)
{
	int slot = seal_slot_of(s, id);

	if (slot < 0)
		return -ENOENT;
	if (slot == s->used || n_lack(s, s->used) > 0)
		return -EBUSY;
	seal_wipe(&s->slots[slot], sizeof(s->slots[slot]));
	return 0;
}

bool seal_key_next(const struct seal *s, size_t *cursor,
		   struct seal_key_view *view)
{
	while (*cursor < SEAL_KEYS_MAX) {
		int slot = (int)(*cursor)++;
		if (!s->slots[slot].is_here)
			continue;
		*view = (struct seal_key_view){
			.id = s->slots[slot].id,
			.is_used = slot == s->used,
			.has_opened = s->slots[slot].has_opened,
			.n_lack = n_lack(s, slot)};
		return true;
	}
	return false;
}

int seal_key_get(const struct seal *s, uint64_t id, struct seal_key *key)
{
	int slot = seal_slot_of(s, id);

	if (slot < 0)
		return -ENOENT;
	*key = s->slots[slot].key;
	return 0;
}

void seal_confirm(struct seal *s, const struct gossip_id *id,
		  const uint64_t *ids, size_t n)
{
	struct seal_peer *p = peer_of(s, id);

	if (p == NULL)
		return;
	p->has = 0;
	for (size_t i = 0; i < n; i++) {
		int slot = seal_slot_of(s, ids[i]);
		if (slot >= 0)
			p->has |= (uint8_t)(1u << slot);
	}
}

bool seal_lacks_next(const struct seal *s, uint64_t id, size_t *cursor,
		     struct gossip_id *member)
{
	int slot = seal_slot_of(s, id);

	while (*cursor < s->peers.cap) {
		const struct seal_peer *p = s->peers.slots[(*cursor)++].item;
		if (p == NULL || !p->is_member ||
		    (slot >= 0 && (p->has >> slot & 1)))
			continue;
		*member = p->id;
		return true;
	}
	return false;
}
