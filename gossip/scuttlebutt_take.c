/* SPDX-License-Identifier: MIT */
/* Records in: sections of deltas and dumps, at rest and in a walk. Also how a
 * walk begins, ends, or comes to naught.
 *
 * At rest a section is taken if it joins what we have: what is before is
 * skipped, a gap is not bridged (S3). In a walk we join at the cursor, and meet
 * records of our own: those that the section has too are kept; those that it has
 * not are kept by SB_REPAIR, and dropped by SB_RESET. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/mem.h"
#include "gossip/scuttlebutt_impl.h"

/* A total order of two records of one version, of which one must be a lie:
 * everybody keeps the same. */
static bool is_above(const struct sb_item *item, const struct sb_record *r)
{
	if (item->is_tomb != r->is_tomb)
		return item->is_tomb;
	if (item->len != r->len)
		return item->len > r->len;
	return memcmp(item->body, r->body, r->len) > 0;
}

static bool is_same(const struct sb_item *item, const struct sb_record *r)
{
	return item->is_tomb == r->is_tomb && item->len == r->len &&
	       memcmp(item->body, r->body, r->len) == 0;
}

/* Records of ours below version; the peer that walks with us has none. */
static struct sb_record *pass_to(struct sb *s, struct sb_record *at,
				 uint64_t version)
{
	while (at != NULL && at->version < version) {
		struct sb_record *next = at->next;
		if (s->walk == SB_RESET) {
			sb_drop(s, at);
			s->has_dropped = s->is_torn = true;
		}
		at = next;
	}
	return at;
}

/* As our own, at the end of it: of its source we can vouch for nothing. */
static void make_own(struct sb *s, struct sb_record *r)
{
	uint8_t *body = xmalloc(r->len);
	size_t len = r->len;
	bool is_tomb = r->is_tomb;

	memcpy(body, r->body, len);
	sb_drop(s, r);
	sb_write(s, body, len, is_tomb); /* if there is no room, it is lost */
	free(body);
}

/* In a reset: what no peer has heard of. */
static void drop_after(struct sb *s, struct sb_source *src, uint64_t version)
{
	struct sb_record *r = sb_first_after(src, version);

	for (struct sb_record *next; r != NULL; r = next) {
		next = r->next;
		if (r->is_heir && r->is_proven)
			make_own(s, r);
		else
			sb_drop(s, r);
		s->has_dropped = s->is_torn = true;
	}
}

static struct sb_record *take_item(struct sb *s, struct sb_source *src,
				   const struct sb_item *item,
				   struct sb_record *at)
{
	at = pass_to(s, at, item->version);
	if (at == NULL || at->version > item->version)
		return sb_add(s, src, item, at);
	if (is_same(item, at) || (s->walk != SB_RESET && !is_above(item, at)))
		return at->next;
	struct sb_record *next = at->next;
	sb_drop(s, at);
	s->has_dropped = true;
	return sb_add(s, src, item, next);
}

struct sb_record *sb_first_after(const struct sb_source *src, uint64_t version)
{
	if (src->last == NULL || src->last->version <= version)
		return NULL;
	struct sb_record *r = src->first;
	if (r->version > version)
		return r;
	for (r = src->last; r->prev->version > version;)
		r = r->prev;
	return r;
}

static bool has_room(struct sb *s, const struct sb_item *item)
{
	if (s->n_bytes + sizeof(struct sb_record) + item->len <=
	    s->config.bytes_max)
		return true;
	s->stats.n_full++;
	return false;
}

/* The records of a section, for src; without src they are skipped. Were we told
 * anything? */
static bool take_section(struct sb *s, struct bytes_in *in,
			 const struct sb_section *sec, struct sb_source *src)
{
	uint64_t base = src != NULL ? sb_wanted(s, src) : 0;
	/* from > base: something in between is missing (S3). */
	bool is_wanted = src != NULL && sec->from <= base && sec->to > base;
	struct sb_record *at = is_wanted ? sb_first_after(src, base) : NULL;
	uint64_t done = base;
	struct sb_item item;

	if (src != NULL && sec->to <= base && !s->is_loading)
		src->is_told = true;
	for (uint32_t i = 0; i < sec->n; i++) {
		sb_wire_item(in, &item);
		is_wanted = is_wanted && has_room(s, &item);
		if (!is_wanted || item.version <= base)
			continue;
		at = take_item(s, src, &item, at);
		done = item.version;
	}
	if (is_wanted) {
		pass_to(s, at, sec->to == UINT64_MAX ? sec->to : sec->to + 1);
		done = sec->to;
	}
	if (src == NULL || done == base)
		return false;
	sb_set_max(s, src, done);
	if (sec->gc <= src->max || s->is_loading)
		sb_set_gc(s, src, sec->gc);
	sb_changed(s);
	s->hope_us = s->now_us;
	return true;
}

bool sb_take(struct sb *s, struct bytes_in *in)
{
	struct sb_section sec;
	bool is_new = false;

	while (sb_wire_section(in, &sec)) {
		struct sb_source *src = NULL;
		if (sb_look_at(s, &sec.id, sec.life, sec.to))
			src = sb_source_of(s, &sec.id, sec.life);
		if (src == s->own) {
			src->is_told = true; /* nobody tells us what we said */
			src = NULL;
		}
		is_new |= take_section(s, in, &sec, src);
		if (s->is_loading && src != NULL && src->heard < sec.heard)
			src->heard = sec.heard;
	}
	assert(!in->bad);
	return is_new;
}

void sb_walk_begin(struct sb *s, enum sb_walk walk)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		src->cursor = 0;
		src->is_retired = false; /* or its gc, untold, makes us stale */
		if (s->walk != SB_RESET)
			src->gc_before = src->gc;
		for (struct sb_record *r = src->first; r != NULL; r = r->next)
			r->is_proven = false;
	}
	s->walk = walk;
	s->vector_is_known = false;
	s->has_dropped = false;
	s->epoch++;
	s->has_snap = false;
	s->quarrel = (struct sb_quarrel){0};
	s->hope_us = s->now_us;
	if (walk == SB_RESET)
		s->stats.n_resets++;
	else
		s->stats.n_repairs++;
}

static bool does_wait(const struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (sb_is_unmet(s, src))
			return true;
	return s->walk == SB_RESET;
}

/* Whoever told us to reset, or what had been collected, is gone, and nobody else
 * knows as much. Then our word is as good as any, and we are as stale as before,
 * should he come back. */
void sb_give_up_waiting(struct sb *s)
{
	size_t at = 0;

	if (!does_wait(s))
		s->hope_us = s->now_us;
	if (s->now_us - s->hope_us < 3ull * s->config.repair_us)
		return;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		if (s->walk == SB_RESET) {
			src->gc = src->gc_before;
			drop_after(s, src, src->max);
		}
		if (src->gc > src->max)
			src->gc = src->max;
	}
	s->walk = s->walk == SB_RESET ? SB_AT_REST : s->walk;
	s->epoch++;
	s->may_retire = true;
	s->stats.n_given_up++;
	sb_changed(s);
}

/* What a reset drops may have kept something out that it was told: then again,
 * until nothing is dropped. Else we would vouch for what we do not have, and a
 * tombstone could be collected that never came here. */
static bool is_to_be_repeated(struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (s->walk == SB_RESET && src != s->own)
			drop_after(s, src, src->cursor);
	return s->walk == SB_RESET && s->has_dropped;
}

void sb_walk_end(struct sb *s)
{
	size_t at = 0;
	bool is_again = is_to_be_repeated(s);

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		if (s->walk == SB_RESET && src != s->own && !is_again)
			src->max = src->cursor; /* as one who has just come */
		if (is_again)
			src->cursor = 0;
	}
	if (is_again) {
		s->has_dropped = false;
		s->epoch++;
		s->hope_us = s->now_us;
		return;
	}
	s->walk = SB_AT_REST;
	s->may_retire = true;
	s->epoch++;
	sb_changed(s);
}
