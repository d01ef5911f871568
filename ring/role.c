/* SPDX-License-Identifier: MIT */
#include "ring/role.h"

#include <assert.h>
#include <string.h>

/* A daemon that is restarted is back within DEAD_MS, and keeps its vote; until a
 * dead voter is replaced, one failure less is borne. Nothing but haste is lost
 * when it comes back later: it is a standby, which has the log already. Who
 * joins and dies at once, again and again, does not live for SETTLE_MS. */
#define CONTACT_MS 2000	    /* heard within: in contact */
#define CLOSE	   1000	    /* entries behind the last: caught up */
#define SETTLE_MS  5000	    /* alive for so long before it votes */
#define HASTE_MS   1000	    /* the same, where fewer than three vote */
#define DEAD_MS	   10000    /* a dead voter is replaced */
#define FORGET_MS  86400000 /* the dead are removed */
#define PACE_MS	   5000	    /* between changes that are not pressing */
#define RETRY_MS   10000    /* after a change of it failed */
#define LEAVE_MS   2000	    /* who leaves waits for its replacement */
#define RECHECK_MS 1000	    /* at the latest it is asked again */

/* The view, and what was counted in it. */
struct count {
	const struct role_view *view;
	uint64_t now_ms, again_ms;
	size_t n_voters;
	size_t n_contact; /* voters in contact */
	size_t n_keepers; /* voters that may stay so */
	size_t n_known;	  /* nodes that could vote */
	size_t n_faulty;  /* voters suspect or dead */
	unsigned target;
	const struct role_node *self;
};

/* ---- Time: what is not yet ripe is asked for again ---- */

static bool is_ripe(struct count *c, uint64_t at_ms)
{
	if (c->now_ms >= at_ms)
		return true;
	if (at_ms < c->again_ms)
		c->again_ms = at_ms;
	return false;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static bool may_try(struct count *c, const struct role_node *n)
{
	return n->failed_ms == 0 || is_ripe(c, n->failed_ms + RETRY_MS);
}

static bool is_paced(struct count *c)
{
	return c->view->changed_ms == 0 ||
	       is_ripe(c, c->view->changed_ms + PACE_MS);
}

/* ---- Counting ---- */

/* Heard by raft, and not known to SWIM to have died since. */
static bool in_contact(const struct count *c, const struct role_node *n)
{
	if (n->is_self)
		return true;
	return n->state != ROLE_DEAD && n->state != ROLE_GONE &&
	       n->heard_ms != 0 && c->now_ms - n->heard_ms <= CONTACT_MS;
}

/* Gone for good, or dead for so long that it counts as that. */
static bool is_over(struct count *c, const struct role_node *n)
{
	if (n->is_self)
		return false;
	return n->state == ROLE_GONE ||
	       (n->state == ROLE_DEAD && is_ripe(c, n->since_ms + FORGET_MS));
}

static bool can_vote(struct count *c, const struct role_node *n)
{
	return !n->is_client && n->state != ROLE_LEAVING && !is_over(c, n);
}

static struct count counted(const struct role_view *view, uint64_t now_ms)
{
	struct count c = {
		.view = view, .now_ms = now_ms, .again_ms = UINT64_MAX};

	for (size_t i = 0; i < view->n; i++) {
		const struct role_node *n = &view->nodes[i];
		bool votes = n->role == ROLE_VOTER;

		if (n->is_self)
			c.self = n;
		c.n_voters += votes;
		c.n_contact += votes && in_contact(&c, n);
		c.n_known += can_vote(&c, n);
		c.n_keepers += votes && can_vote(&c, n);
		c.n_faulty += votes && (n->state == ROLE_SUSPECT ||
					n->state == ROLE_DEAD);
	}
	c.target = role_target(c.n_known);
	return c;
}

static bool is_majority(size_t n, size_t of)
{
	return 2 * n > of;
}

/* Would the others decide without this voter? */
static bool can_spare(const struct count *c, const struct role_node *n)
{
	size_t contact = c->n_contact - (in_contact(c, n) ? 1 : 0);

	return c->n_voters > 1 && is_majority(contact, c->n_voters - 1);
}

/* ---- Choosing ---- */

static struct role_change change(const struct count *c, enum role_step step,
				 const struct role_node *n)
{
	return (struct role_change){.step = step,
				    .node = (size_t)(n - c->view->nodes)};
}

static struct role_change nothing(const struct count *c)
{
	return (struct role_change){ROLE_NOTHING, 0, c->again_ms};
}

/* Is a better placed for a vote than b? The one with less to do, then by id. */
static bool is_better(const struct role_node *a, const struct role_node *b)
{
	if (a->weight != b->weight)
		return a->weight < b->weight;
	return memcmp(&a->id, &b->id, sizeof(a->id)) < 0;
}

/* Nodes that may become voters sooner or later. */
static size_t n_hopeful(struct count *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *m = &c->view->nodes[i];

		n += m->role != ROLE_VOTER && can_vote(c, m) &&
		     m->state != ROLE_DEAD;
	}
	return n;
}

/* The best standby that is ready to vote, or NULL; n_ready counts them. */
static const struct role_node *candidate(struct count *c, uint64_t settle_ms,
					 size_t *n_ready)
{
	const struct role_node *best = NULL;

	*n_ready = 0;
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];

		if (n->role != ROLE_STANDBY || n->state != ROLE_ALIVE ||
		    !can_vote(c, n) || !in_contact(c, n) ||
		    n->match + CLOSE < c->view->last ||
		    !is_ripe(c, n->since_ms + settle_ms) || !may_try(c, n))
			continue;
		++*n_ready;
		if (best == NULL || is_better(n, best))
			best = n;
	}
	return best;
}

/* ---- The rules, by urgency; ROLE_NOTHING: the next is asked ---- */

static struct role_change hand_over(struct count *c)
{
	const struct role_node *best = NULL;

	if (can_vote(c, c->self))
		return nothing(c);
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];

		if (n->role != ROLE_VOTER || n->is_self ||
		    n->state != ROLE_ALIVE || !can_vote(c, n) ||
		    !in_contact(c, n) || !may_try(c, n))
			continue;
		if (best == NULL || n->match > best->match)
			best = n;
	}
	return best ? change(c, ROLE_TRANSFER, best) : nothing(c);
}

/* One that leaves, or became a client, is demoted when it has been replaced, or
 * cannot be, or has waited. */
static struct role_change let_leave(struct count *c)
{
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];
		bool leaves = n->state == ROLE_LEAVING;
		size_t n_ready;

		if (n->is_self || n->role == ROLE_NONE || !may_try(c, n))
			continue;
		if (leaves && n->role != ROLE_VOTER)
			return change(c, ROLE_REMOVE, n);
		if (n->role != ROLE_VOTER || (!leaves && !n->is_client) ||
		    is_over(c, n) || !can_spare(c, n))
			continue;
		if (c->n_keepers < c->target && c->n_voters <= c->target &&
		    n_hopeful(c) > 0) {
			const struct role_node *heir =
				candidate(c, 0, &n_ready);

			if (heir != NULL)
				return change(c, ROLE_TO_VOTER, heir);
			if (!is_ripe(c, n->since_ms + LEAVE_MS))
				continue;
		}
		return change(c, ROLE_TO_STANDBY, n);
	}
	return nothing(c);
}

static struct role_change forget(struct count *c)
{
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];

		if (n->role == ROLE_NONE || !is_over(c, n) || !may_try(c, n))
			continue;
		if (n->role != ROLE_VOTER || can_spare(c, n))
			return change(c, ROLE_REMOVE, n);
	}
	return nothing(c);
}

static struct role_change let_in(struct count *c)
{
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];

		if (n->state != ROLE_ALIVE || !may_try(c, n))
			continue;
		if (n->role == ROLE_NONE)
			return change(c, ROLE_ADD, n);
		if (n->role == ROLE_SPARE)
			return change(c, ROLE_TO_STANDBY, n);
	}
	return nothing(c);
}

static uint64_t settle_ms(struct count *c)
{
	if (!can_vote(c, c->self))
		return 0; /* it waits for somebody to hand over to */
	return c->n_keepers < 3 ? HASTE_MS : SETTLE_MS;
}

/* By a standby that is ready; or by nobody, where one voter less bears as many
 * failures: of an even number. */
static struct role_change replace_dead(struct count *c)
{
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];
		size_t n_ready;

		if (n->role != ROLE_VOTER || n->is_self ||
		    n->state != ROLE_DEAD || !may_try(c, n) ||
		    !can_spare(c, n) ||
		    !is_ripe(c, most(n->since_ms, n->heard_ms) + DEAD_MS))
			continue;
		if (c->n_keepers > c->target || c->n_voters % 2 == 0 ||
		    candidate(c, settle_ms(c), &n_ready) != NULL)
			return change(c, ROLE_TO_SPARE, n);
	}
	return nothing(c);
}

static struct role_change promote(struct count *c)
{
	const struct role_node *best;
	size_t n_ready;

	if (c->n_keepers >= c->target || c->n_voters > c->target)
		return nothing(c);
	best = candidate(c, settle_ms(c), &n_ready);
	if (best == NULL || !is_majority(c->n_contact + 1, c->n_voters + 1))
		return nothing(c);
	if (c->n_keepers == 3 && n_ready < 2)
		return nothing(c);
	if (c->n_keepers == 3 && !is_paced(c))
		return nothing(c);
	return change(c, ROLE_TO_VOTER, best);
}

/* More than are wanted; or four, and nobody to be the fifth. */
static struct role_change demote(struct count *c)
{
	const struct role_node *worst = NULL;
	bool is_stuck = c->n_keepers == 4 && n_hopeful(c) == 0;

	if ((c->n_keepers <= c->target && !is_stuck) || c->n_faulty > 0)
		return nothing(c);
	for (size_t i = 0; i < c->view->n; i++) {
		const struct role_node *n = &c->view->nodes[i];

		if (n->role != ROLE_VOTER || n->is_self || !can_spare(c, n) ||
		    !may_try(c, n))
			continue;
		if (worst == NULL || is_better(worst, n))
			worst = n;
	}
	if (worst == NULL || !is_paced(c))
		return nothing(c);
	return change(c, ROLE_TO_STANDBY, worst);
}

/* ---- Asking ---- */

struct role_change role_next(const struct role_view *view, uint64_t now_ms)
{
	static struct role_change (*const rules[])(struct count * c) = {
		hand_over,    let_leave, forget, let_in,
		replace_dead, promote,	 demote};
	struct count c = counted(view, now_ms);

	assert(c.self != NULL && c.self->role == ROLE_VOTER);
	if (view->is_changing)
		return (struct role_change){ROLE_NOTHING, 0, UINT64_MAX};
	/* What was heard becomes old without a word. */
	(void)is_ripe(&c, now_ms + RECHECK_MS);
	if (!is_majority(c.n_contact, c.n_voters))
		return nothing(&c);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct role_change next = rules[i](&c);

		if (next.step != ROLE_NOTHING)
			return next;
	}
	return nothing(&c);
}

unsigned role_target(size_t n)
{
	static const unsigned targets[] = {0, 1, 2, 3, 3};

	return n < 5 ? targets[n] : 5;
}

bool role_may_exit(const struct role_view *view, const struct ring_id *id)
{
	bool votes = false, is_last = true;

	for (size_t i = 0; i < view->n; i++) {
		const struct role_node *n = &view->nodes[i];

		if (n->state == ROLE_GONE || n->role == ROLE_NONE)
			continue;
		if (memcmp(&n->id, id, sizeof(*id)) != 0)
			is_last = false;
		else if (n->role == ROLE_VOTER)
			votes = true;
	}
	return !view->is_changing && (!votes || is_last);
}
