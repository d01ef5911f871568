/* SPDX-License-Identifier: MIT */
/* The leader's work: which lives begin and end.
 *
 *   an arrival    a node asks to be up: waits until the lease allows it, and
 *                 for calm, with others, for one entry (design.md 4)
 *   a wish        for another share of the ring: waits for calm, too
 *   a leaving     a node's own wish: an entry at once
 *   a down        asked for by the leases (lease.h): an entry at once
 *
 * What is known here is known to every node that could lead, or asked again: it
 * is lost with the leadership. Only SWIM's word is kept, by all. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"

#define WAIT_MS	     100 /* before the lease is asked again */
#define ARRIVALS_MAX 1024

void member_destroy(struct ring *r)
{
	free(r->members);
	free(r->arrivals);
	free(r->wishes);
}

/* ---- SWIM's word ---- */

static struct member *find(const struct ring *r, const struct ring_id *id)
{
	for (size_t i = 0; i < r->n_members; i++)
		if (ring_same(&r->members[i].id, id))
			return &r->members[i];
	return NULL;
}

const struct member *member_find(const struct ring *r, const struct ring_id *id)
{
	return find(r, id);
}

void ring_member(struct ring *r, uint64_t now_ms, const struct ring_id *id,
		 enum ring_member_state state)
{
	struct member *m = find(r, id);
	bool dead = state >= RING_MEMBER_DEAD;

	r->now_ms = now_ms;
	if (m == NULL) {
		r->members = ring_grown(r->members, r->n_members,
					&r->cap_members, sizeof(*m));
		m = &r->members[r->n_members++];
		*m = (struct member){.id = *id, .since_ms = now_ms};
	} else if (m->state == state) {
		return;
	}
	m->state = state;
	m->since_ms = now_ms;
	r->role_at_ms = 0;
	r->is_stirred = true;
	if (!ring_is_self(r, id))
		lease_on_swim(r->lease, now_ms, id, dead, &r->out);
}

/* ---- Lives that begin ---- */

static uint32_t node_of(const struct ring *r, const struct ring_id *id)
{
	return keyset_find_node(r->keys, id);
}

/* Is this very life up? */
static bool is_there(const struct ring *r, const struct keyset_up *up)
{
	uint32_t node = node_of(r, &up->id);
	struct keyset_up there;

	if (node == RING_NONE || !keyset_node(r->keys, node)->up)
		return false;
	keyset_get_up(r->keys, node, &there);
	return there.boot == up->boot && ring_same(&there.life, &up->life);
}

static bool is_any_up(const struct ring *r)
{
	const struct ring_node *n;

	for (uint32_t i = 0; (n = keyset_node(r->keys, i)) != NULL; i++)
		if (n->up)
			return true;
	return false;
}

/* A restart takes no vnode from anyone, and a first node waits for nobody. */
static bool is_urgent(const struct ring *r, const struct keyset_up *up)
{
	const struct ring_node *n = keyset_node(r->keys, node_of(r, &up->id));

	return (n != NULL && n->up) || !is_any_up(r);
}

static struct arrival *find_arrival(const struct ring *r,
				    const struct ring_id *id)
{
	for (size_t i = 0; i < r->n_arrivals; i++)
		if (ring_same(&r->arrivals[i].up.id, id))
			return &r->arrivals[i];
	return NULL;
}

static struct arrival *add_arrival(struct ring *r, const struct keyset_up *up)
{
	if (r->n_arrivals == ARRIVALS_MAX)
		return NULL;
	r->arrivals = ring_grown(r->arrivals, r->n_arrivals, &r->cap_arrivals,
				 sizeof(*r->arrivals));
	if (!is_urgent(r, up))
		calm_note(&r->calm, r->now_ms);
	struct arrival *a = &r->arrivals[r->n_arrivals++];

	*a = (struct arrival){0};
	return a;
}

void member_on_arrival(struct ring *r, const struct keyset_up *up)
{
	struct arrival *a = find_arrival(r, &up->id);

	if (is_there(r, up))
		return;
	if (a == NULL)
		a = add_arrival(r, up);
	if (a == NULL || a->is_proposed)
		return;
	a->up = *up;
	a->heard_ms = r->now_ms;
	snprintf(a->name, sizeof(a->name), "%s", up->name);
}

static void remove_arrival(struct ring *r, struct arrival *a)
{
	*a = r->arrivals[--r->n_arrivals];
}

void member_on_up_answer(struct ring *r, const struct ring_id *id, int rc)
{
	struct arrival *a = find_arrival(r, id);

	if (a == NULL || !a->is_proposed)
		return;
	if (rc != 0 && a->is_let)
		lease_entry_void(r->lease, r->now_ms, id);
	remove_arrival(r, a);
}

static void refuse_copy(struct ring *r, const struct keyset_up *up)
{
	struct peer_refusal no = {.whom = up->boot,
				  .why = PEER_BOOT_USED,
				  .settings = *ring_settings(r)};
	struct buf b = {0};

	peer_put_refusal(&b, &no);
	ring_send(r, &up->id, &b);
	free(b.base);
}

/* May the entry be proposed, which ends the life that is up, too? A sole voter
 * asks itself: that it starts proves that its own former life is over. A boot
 * that was seen is for the machine to refuse, for all to read. */
static bool may_come_up(struct ring *r, struct arrival *a)
{
	const struct keyset_up *up = &a->up;
	struct lease_life next = {.id = up->id,
				  .life = up->life,
				  .boot = up->boot,
				  .grace_ms = up->grace_ms};

	memcpy(next.host, up->host, sizeof(next.host));
	int rc = lease_may_come_up(r->lease, r->now_ms, &next);

	a->is_let = rc == 0;
	if (rc == -ESTALE)
		refuse_copy(r, up);
	return rc == 0 || rc == -ESTALE ||
	       (r->is_alone && ring_is_self(r, &up->id));
}

static size_t choose_arrivals(struct ring *r, struct buf *b, bool calm)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_arrivals; i++) {
		struct arrival *a = &r->arrivals[i];

		a->has_waited |= calm || is_urgent(r, &a->up);
		a->is_chosen =
			a->has_waited && !a->is_proposed && may_come_up(r, a);
		if (!a->is_chosen)
			continue;
		a->up.name = a->name; /* the array may have moved */
		keyset_put_up(b, &a->up);
		n++;
	}
	return n;
}

/* ---- Wishes for another share ---- */

/* Is it still wanted: is that life up, and its share another? */
static bool is_wanted(const struct ring *r, const struct keyset_share *share)
{
	const struct ring_node *n =
		keyset_node(r->keys, node_of(r, &share->id));

	return n != NULL && n->up && n->boot == share->boot &&
	       n->epoch == share->epoch &&
	       (n->weight != share->weight ||
		n->is_draining != share->is_draining);
}

static struct wish *find_wish(const struct ring *r, const struct ring_id *id)
{
	for (size_t i = 0; i < r->n_wishes; i++)
		if (ring_same(&r->wishes[i].share.id, id))
			return &r->wishes[i];
	return NULL;
}

void member_on_share(struct ring *r, const struct keyset_share *share)
{
	struct wish *w = find_wish(r, &share->id);

	if (!is_wanted(r, share) || (w == NULL && r->n_wishes == ARRIVALS_MAX))
		return;
	if (w == NULL) {
		r->wishes = ring_grown(r->wishes, r->n_wishes, &r->cap_wishes,
				       sizeof(*w));
		w = &r->wishes[r->n_wishes++];
		*w = (struct wish){0};
		calm_note(&r->calm, r->now_ms);
	}
	w->share = *share;
	w->heard_ms = r->now_ms;
}

static void forget_wishes(struct ring *r)
{
	for (size_t i = r->n_wishes; i-- > 0;) {
		const struct wish *w = &r->wishes[i];

		if (!is_wanted(r, &w->share) ||
		    r->now_ms - w->heard_ms > SILENT_MS)
			r->wishes[i] = r->wishes[--r->n_wishes];
	}
}

static size_t choose_wishes(struct ring *r, struct buf *b, bool calm)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_wishes; i++) {
		struct wish *w = &r->wishes[i];

		w->has_waited |= calm;
		if (!w->has_waited)
			continue;
		keyset_put_share(b, &w->share);
		n++;
	}
	return n;
}

/* Should the entry be lost, they ask again. */
static void drop_chosen_wishes(struct ring *r)
{
	for (size_t i = r->n_wishes; i-- > 0;)
		if (r->wishes[i].has_waited)
			r->wishes[i] = r->wishes[--r->n_wishes];
}

/* ---- Their entry ---- */

/* All whose turn it is, in one entry; the first of a cluster begins with its
 * settings. */
static void propose_changes(struct ring *r)
{
	bool calm =
		calm_due_ms(&r->calm, ring_settings(r)->calm_ms) <= r->now_ms;
	struct buf b = {0};

	ring_begin_entry(r, &b);
	if (keyset_settings(r->keys) == NULL)
		keyset_put_settings(&b, &r->config.cluster, &r->wanted);
	size_t n = choose_arrivals(r, &b, calm) + choose_wishes(r, &b, calm);

	if (calm)
		calm_clear(&r->calm);
	if (n == 0) {
		free(b.base);
		return;
	}
	int rc = ring_propose(r, &b);

	if (rc == 0)
		drop_chosen_wishes(r);
	for (size_t i = 0; i < r->n_arrivals; i++) {
		struct arrival *a = &r->arrivals[i];

		if (a->is_chosen && a->is_let && rc != 0)
			lease_entry_void(r->lease, r->now_ms, &a->up.id);
		a->is_proposed |= a->is_chosen && rc == 0;
	}
	free(b.base);
}

/* Who asks no more is gone, and may come back. */
static void forget_arrivals(struct ring *r)
{
	for (size_t i = r->n_arrivals; i-- > 0;) {
		struct arrival *a = &r->arrivals[i];

		if (!a->is_proposed && r->now_ms - a->heard_ms > SILENT_MS)
			remove_arrival(r, a);
	}
}

/* ---- Lives that end ---- */

void member_on_leaving(struct ring *r, const struct keyset_origin *o)
{
	struct buf b = {0};

	if (lease_may_leave(r->lease, r->now_ms, &o->id, o->boot, o->epoch))
		return;
	ring_begin_entry(r, &b);
	keyset_put_down(&b, &o->id, o->boot, o->epoch, RING_LEFT);
	if (ring_propose(r, &b) != 0)
		lease_entry_void(r->lease, r->now_ms, &o->id);
	free(b.base);
}

static void say_down(struct ring *r, const struct lease_down *d)
{
	static const char *const causes[] = {
		[LEASE_PROOF] = "it is proven dead",
		[LEASE_DEAD] = "it is dead, and its lease is out",
		[LEASE_SILENT] = "its lease has long been out",
	};
	const struct ring_node *n = keyset_node(r->keys, node_of(r, &d->id));
	char line[RING_ERRMSG_SIZE];

	snprintf(line, sizeof(line), "%s is declared down: %s",
		 n != NULL ? n->name : "a node", causes[d->cause]);
	r->config.on_log(r->config.data, 5, line);
}

void member_take_downs(struct ring *r)
{
	const struct lease_out *out = &r->out;
	struct buf b = {0};

	if (out->n_downs == 0)
		return;
	ring_begin_entry(r, &b);
	for (size_t i = 0; i < out->n_downs; i++)
		keyset_put_down(&b, &out->downs[i].id, out->downs[i].boot,
				out->downs[i].epoch, RING_DEAD);
	int rc = ring_propose(r, &b);

	for (size_t i = 0; i < out->n_downs; i++)
		if (rc == 0)
			say_down(r, &out->downs[i]);
		else
			lease_entry_void(r->lease, r->now_ms,
					 &out->downs[i].id);
	free(b.base);
}

/* ---- Running ---- */

void member_unsend(struct ring *r)
{
	r->n_arrivals = r->n_wishes = 0;
	calm_clear(&r->calm);
}

void member_run(struct ring *r)
{
	forget_arrivals(r);
	forget_wishes(r);
	if (r->n_arrivals + r->n_wishes > 0)
		propose_changes(r);
	else
		calm_clear(&r->calm);
}

uint64_t member_next_ms(const struct ring *r)
{
	uint64_t next = r->n_wishes > 0 ? r->now_ms + WAIT_MS : UINT64_MAX;

	for (size_t i = 0; i < r->n_arrivals; i++)
		if (!r->arrivals[i].is_proposed && r->now_ms + WAIT_MS < next)
			next = r->now_ms + WAIT_MS;
	return next;
}
