/* SPDX-License-Identifier: MIT */
/* What is shown of the members. SWIM says at once what has happened; here it is
 * noted whose record may have changed, and told later, as a difference between
 * what was shown and what there is. So nothing piles up, whatever happens. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "gossip/gossip_impl.h"

const char *gossip_state_name(enum gossip_state state)
{
	static const char *const names[] = {
		[GOSSIP_ALIVE] = "alive",
		[GOSSIP_SUSPECT] = "suspect",
		[GOSSIP_DEAD] = "dead",
		[GOSSIP_LEFT] = "left",
	};

	assert(state <= GOSSIP_LEFT);
	return names[state];
}

/* ---- Peers ---- */

static uint64_t hash_id(const struct gossip *g, const struct gossip_id *id)
{
	return XXH3_64bits_withSeed(id->b, sizeof(id->b), g->seed);
}

static struct peer *find_peer(const struct gossip *g,
			      const struct gossip_id *id)
{
	uint64_t hash = hash_id(g, id);
	struct peer *p;

	for (size_t at = index_begin(g->peers, hash);
	     (p = index_next(g->peers, hash, &at)) != NULL;)
		if (gossip_id_equal(&p->id, id))
			return p;
	return NULL;
}

static struct peer *peer_of(struct gossip *g, const struct gossip_id *id)
{
	struct peer *p = find_peer(g, id);

	if (p != NULL)
		return p;
	p = xcalloc(1, sizeof(*p));
	p->id = *id;
	index_put(g->peers, hash_id(g, id), p);
	return p;
}

/* Somebody may be looking at it, until the loop goes on. */
static void discard(struct gossip *g, char *text)
{
	struct garbage *trash = xmalloc(sizeof(*trash));

	*trash = (struct garbage){.next = g->garbage, .text = text};
	g->garbage = trash;
	gossip_later(g);
}

static void empty_garbage(struct gossip *g)
{
	for (struct garbage *t = g->garbage, *next; t != NULL; t = next) {
		next = t->next;
		free(t->text);
		free(t);
	}
	g->garbage = NULL;
}

static void remove_peer(struct gossip *g, struct peer *p)
{
	assert(!p->is_dirty);
	index_remove(g->peers, hash_id(g, &p->id), p);
	if (p->name != NULL)
		discard(g, p->name);
	free(p);
}

static const char *name_of(struct gossip *g, const struct facts *facts)
{
	struct peer *p = peer_of(g, &facts->id);
	size_t len = facts->name_len;

	if (p->name != NULL && strlen(p->name) == len &&
	    memcmp(p->name, facts_name(facts), len) == 0)
		return p->name;
	if (p->name != NULL)
		discard(g, p->name);
	p->name = xcalloc(1, len + 1);
	memcpy(p->name, facts_name(facts), len);
	return p->name;
}

/* ---- What there is ---- */

static uint64_t wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec / 1000;
}

/* When it was by the wall clock, which may have been set since. */
static uint64_t wall_of(uint64_t boottime_us)
{
	uint64_t now_us = gossip_now_us();
	uint64_t ago_us = now_us > boottime_us ? now_us - boottime_us : 0;
	uint64_t wall = wall_us();

	return wall > ago_us ? wall - ago_us : 0;
}

static bool is_shown(const struct swim_view *view)
{
	return view->is_verified && view->status <= WIRE_LEFT;
}

static void fill(struct gossip *g, const struct swim_view *view,
		 struct gossip_member *m)
{
	static const enum gossip_state states[] = {
		[WIRE_ALIVE] = GOSSIP_ALIVE,
		[WIRE_SUSPECT] = GOSSIP_SUSPECT,
		[WIRE_DEAD] = GOSSIP_DEAD,
		[WIRE_LEFT] = GOSSIP_LEFT,
	};

	*m = (struct gossip_member){
		.id = view->facts->id,
		.name = name_of(g, view->facts),
		.state = states[view->status],
		.incarnation = view->incarnation,
		.boot = incarnation_boot(view->incarnation),
		.since_us = wall_of(view->since_us),
		.rtt_us = view->rtt_us,
		.is_self = gossip_id_equal(&view->facts->id, &g->config.self),
		.is_accused = !gossip_id_is_zero(&view->accuser),
		.accuser = view->accuser};
	m->addr = view->facts->addr;
	net_addr_text(&view->facts->addr, m->address);
}

/* The names are kept beside g, which nobody sees change. */
static struct gossip *writable(const struct gossip *g)
{
	return (struct gossip *)(uintptr_t)g;
}

bool gossip_next(const struct gossip *g, uint32_t *cursor,
		 struct gossip_member *out)
{
	struct swim_view view;

	while (swim_next(g->swim, cursor, &view)) {
		if (!is_shown(&view))
			continue;
		fill(writable(g), &view, out);
		return true;
	}
	return false;
}

bool gossip_find(const struct gossip *g, const struct gossip_id *id,
		 struct gossip_member *out)
{
	struct swim_view view;

	if (!swim_find(g->swim, id, &view) || !is_shown(&view))
		return false;
	fill(writable(g), &view, out);
	return true;
}

/* ---- What is told ---- */

void gossip_members_touch(struct gossip *g, const struct gossip_id *id,
			  bool is_certain)
{
	struct peer *p = peer_of(g, id);

	p->is_changed |= is_certain;
	if (p->is_dirty)
		return;
	p->is_dirty = true;
	p->next = NULL;
	*(g->last_dirty != NULL ? &g->last_dirty->next : &g->first_dirty) = p;
	g->last_dirty = p;
	gossip_later(g);
}

static struct peer *pop_dirty(struct gossip *g)
{
	struct peer *p = g->first_dirty;

	if (p == NULL)
		return NULL;
	g->first_dirty = p->next;
	if (g->first_dirty == NULL)
		g->last_dirty = NULL;
	p->is_dirty = false;
	return p;
}

static bool is_same(const struct gossip_member *a,
		    const struct gossip_member *b)
{
	return a->state == b->state && a->incarnation == b->incarnation &&
	       strcmp(a->name, b->name) == 0 &&
	       strcmp(a->address, b->address) == 0 &&
	       gossip_id_equal(&a->accuser, &b->accuser);
}

static void tell_member(struct gossip *g, struct peer *p)
{
	struct gossip_member was = p->shown, is;
	bool was_shown = p->is_shown, is_changed = p->is_changed;
	bool is_there = gossip_find(g, &p->id, &is);

	p->is_changed = false;
	p->is_shown = is_there;
	if (is_there)
		p->shown = is;
	else
		remove_peer(g, p);
	if (!was_shown && !is_there)
		return;
	if (was_shown && is_there && !is_changed && is_same(&was, &is))
		return;
	if (g->config.on_member != NULL)
		g->config.on_member(g->config.data, was_shown ? &was : NULL,
				    is_there ? &is : NULL);
}

static void tell_copied(struct gossip *g)
{
	if (!g->is_copied)
		return;
	g->is_copied = false;
	if (g->config.on_copied != NULL)
		g->config.on_copied(g->config.data);
}

static void tell_isolated(struct gossip *g)
{
	if (g->is_isolated == g->was_isolated)
		return;
	g->was_isolated = g->is_isolated;
	if (g->config.on_isolated != NULL)
		g->config.on_isolated(g->config.data, g->is_isolated);
}

static void tell_left(struct gossip *g)
{
	if (!g->has_told_left)
		return;
	g->has_told_left = false;
	if (g->config.on_left != NULL)
		g->config.on_left(g->config.data);
}

/* ---- What happens ---- */

static void forget(struct gossip *g, const struct gossip_id *id)
{
	for (unsigned i = 0; i < N_CHANNELS; i++) {
		struct channel *c = &g->channels[i];

		sb_forget(c->sb, id);
		c->forget(g, id);
	}
	seal_forget(g->seal, id);
	gossip_keep_forget(g, id);
}

/* What all who keep a list of members have to know of one. */
static void introduce(struct gossip *g, const struct swim_view *view)
{
	const struct gossip_id *id = &view->facts->id;
	bool is_reachable = view->is_verified && view->status <= WIRE_SUSPECT;

	if (gossip_id_equal(id, &g->config.self))
		return;
	if (view->status == WIRE_FORGOTTEN) {
		forget(g, id);
		return;
	}
	for (unsigned i = 0; i < N_CHANNELS; i++)
		sb_member(g->channels[i].sb, id, is_reachable);
	seal_member(g->seal, id, incarnation_boot(view->incarnation));
	gossip_keys_meet(g, id);
	if (view->status == WIRE_LEFT)
		gossip_keep_forget(g, id);
	else if (is_reachable)
		gossip_keep_peer(g, view->facts);
}

void gossip_members_warn(struct gossip *g, const struct gossip_id *id,
			 const struct gossip_addr *addr)
{
	if (g->n_former == FORMER_MAX)
		return; /* it comes again */
	g->former[g->n_former++] = (struct former){.id = *id, .addr = *addr};
	gossip_later(g);
}

/* A newer life, at another address: who is still at the former one has a state
 * that was copied, and hears it from nobody, as his seal is out of date. */
static void warn_former(struct gossip *g, const struct swim_event *e)
{
	const struct peer *p = find_peer(g, &e->id);
	struct swim_view view;
	struct gossip_addr former;

	if (p == NULL || !p->is_shown || p->shown.is_self ||
	    incarnation_boot(e->incarnation) <= p->shown.boot ||
	    !swim_find(g->swim, &e->id, &view) ||
	    address_parse(p->shown.address, &former) != 0 ||
	    gossip_addr_equal(&former, &view.facts->addr))
		return;
	gossip_members_warn(g, &e->id, &former);
}

static void tell_former(struct gossip *g)
{
	for (unsigned i = 0; i < g->n_former; i++) {
		const struct former f = g->former[i];

		swim_tell(g->swim, gossip_now_us(), &f.addr, &f.id,
			  &g->swim_out);
		gossip_swim_done(g);
	}
	g->n_former = 0;
}

static void member_event(struct gossip *g, const struct swim_event *e)
{
	struct swim_view view;

	if (swim_find(g->swim, &e->id, &view))
		introduce(g, &view);
	warn_former(g, e);
	gossip_members_touch(g, &e->id, false);
}

void gossip_members_event(struct gossip *g, const struct swim_event *e)
{
	switch (e->kind) {
	case SWIM_MEMBER:
	case SWIM_FACTS:
		member_event(g, e);
		break;
	case SWIM_GONE:
		forget(g, &e->id);
		gossip_members_touch(g, &e->id, false);
		break;
	case SWIM_REFUTED:
		gossip_members_touch(g, &e->id, false);
		break;
	case SWIM_ISOLATED:
		g->is_isolated = e->value;
		gossip_later(g);
		break;
	case SWIM_COPIED:
		g->is_copied = true;
		gossip_later(g);
		break;
	case SWIM_LEFT:
		g->has_told_left = true;
		gossip_members_touch(g, &e->id, false);
		break;
	}
}

/* The dead that were never heard here, as after a restart, make no event. */
void gossip_members_sweep(struct gossip *g)
{
	struct swim_stats stats;
	struct swim_view view;
	uint32_t at = 0;

	swim_stats(g->swim, &stats);
	if (g->has_swept && stats.digest == g->swept_digest)
		return;
	g->has_swept = true;
	g->swept_digest = stats.digest;
	while (swim_next(g->swim, &at, &view))
		if (!view.is_verified)
			introduce(g, &view);
}

/* From within scuttlebutt: nothing may be written here. */
void gossip_members_trait(void *data, const struct trait *trait)
{
	struct gossip *g = data;

	if (g->phase != PHASE_MEMBER)
		return; /* from the disk, or our first words */
	if (trait->key_len == strlen(WORD_KEYS) &&
	    memcmp(trait->key, WORD_KEYS, trait->key_len) == 0)
		gossip_keys_heard(g, trait);
	gossip_members_touch(g, trait->id, true);
}

bool gossip_members_tell(struct gossip *g)
{
	void (*const tells[])(struct gossip *) = {tell_former, tell_copied,
						  tell_isolated, tell_left};
	struct peer *last = g->last_dirty, *p;

	/* What the callbacks themselves bring about waits for the next turn. */
	for (bool more = last != NULL; more && !g->is_closing;) {
		p = pop_dirty(g);
		more = p != last;
		tell_member(g, p);
	}
	for (size_t i = 0; i < 4 && !g->is_closing; i++)
		tells[i](g);
	if (!g->is_closing && g->first_dirty == NULL)
		empty_garbage(g); /* else what was shown may be in it */
	return !g->is_closing;
}

/* ---- Asking for things ---- */

int gossip_forget(struct gossip *g, const struct gossip_id *id)
{
	struct gossip_member m;

	if (!gossip_find(g, id, &m))
		return -ENOENT;
	int rc = swim_forget(g->swim, gossip_now_us(), id, &g->swim_out);
	if (rc == 0)
		gossip_swim_done(g);
	return rc;
}

void gossip_obituary(struct gossip *g, const struct gossip_id *id,
		     uint32_t boot)
{
	/* Of somebody else, or of a former life: there is nothing to say. */
	if (swim_obituary(g->swim, gossip_now_us(), id, boot, &g->swim_out) ==
	    0)
		gossip_swim_done(g);
}

/* ---- Life ---- */

void gossip_members_init(struct gossip *g)
{
	g->peers = xcalloc(1, sizeof(*g->peers));
	g->seed = (uint64_t)(uintptr_t)g * 0x9e3779b97f4a7c15;
}

void gossip_members_finish(struct gossip *g)
{
	for (size_t i = 0; i < g->peers->cap; i++) {
		struct peer *p = g->peers->slots[i].item;

		if (p == NULL)
			continue;
		free(p->name);
		free(p);
	}
	index_finish(g->peers);
	free(g->peers);
	empty_garbage(g);
}
