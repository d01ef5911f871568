/* SPDX-License-Identifier: MIT */
/* The leases in every order of events (holes.md 1, 2, 3, 11): a renewal is sent,
 * received, confirmed, granted and answered; a down is proposed, committed,
 * void, applied by the leader and by the node; likewise an up; leaders change,
 * and hear of it late; the node is killed, its obituary comes, it starts again.
 *
 * From some states of interest all sequences of so many events are played, in
 * virtual time, by clocks of other rates. At each instant: the node is inside
 * its lease only if the log has it up in that epoch; who declares it down
 * without proof, does so when its lease is out by its own clock; and who has
 * proof, is right.
 *
 * Two nodes lead in turn, a third votes with them. The node, which does not,
 * is the only one that is up. The lease is a minute, or 200 ppm of it would
 * not be seen.
 *
 * lease_order_test [DEPTH [PATH]]: PATH, as a failure prints it, is played by
 * itself. */
#include <string.h>

#include "ring/lease_impl.h"
#include "ring/mem.h"
#include "tests/unit/check.h"

enum {
	NODE = 2,
	VOTER = 3,
	N = 4,
	MSGS = 48,
	MSG_MAX = 64,
	ENTRIES = 24,
	PATH_MAX_ = 64,
	LEASE = 60000, /* ms */
	EPOCH = 100,   /* of the log's first entry */
};

enum event {
	RENEW,	  /* time passes until the node is due, which sends */
	WAIT,	  /* half a lease passes for all but the node */
	RECEIVE,  /* a leader hears the node, */
	OTHER,	  /* or the other one does */
	VOTE,	  /* who was asked to, confirms a term */
	HEAR,	  /* leaders hear that */
	ANSWER,	  /* the node hears what was answered */
	DEAD,	  /* SWIM says so, or takes it back */
	COMMIT,	  /* what the newest leader has proposed */
	LOSE,	  /* that was not appended */
	APPLY,	  /* leaders apply */
	CATCH_UP, /* the node does */
	ELECT,	  /* the other one, without what was not committed, */
	INHERIT,  /* or with it */
	DEPOSE,	  /* the former leader hears of it */
	FOLLOW,	  /* the node does */
	KILL,
	OBITUARY, /* comes to the newest leader, */
	STRAYS,	  /* or to another */
	START,	  /* again, on the same host */
	JOIN,
	LEAVE,
	N_EVENTS
};

static const char letters[] = "rwRovhadclApeEDfkBSsjL";

struct msg {
	uint8_t from, to, len;
	uint8_t bytes[MSG_MAX];
};

struct change {
	bool is_up, is_barrier;
	uint64_t term;
	struct lease_life life;
	bool has_effect;
};

struct world {
	struct node {
		struct lease *l; /* NULL: killed */
		uint64_t wake_ms, term;
		bool leads, is_ready;
		unsigned leader, applied;
	} node[N];
	uint64_t now_us, term, barrier; /* barrier: index of the newest's */
	unsigned leader;		/* the newest */
	struct msg msgs[MSGS];
	unsigned n_msgs;
	struct change log[ENTRIES], pending[ENTRIES];
	unsigned n_log, n_pending;
	struct lease_life life; /* of the node; its epoch as it knows it */
	bool is_up;		/* by the log: that of up */
	struct lease_life up;
	bool is_dead, hides;
	uint8_t obituary[MSG_MAX], old[MSG_MAX]; /* at its herald; sent */
	size_t obituary_len, old_len;
};

static struct lease_out outs[N]; /* empty between events */
static const struct lease_voter voters[] = {{{.byte = {1}}, 100},
					    {{.byte = {2}}, 101},
					    {{.byte = {VOTER + 1}}, 103}};
static const int64_t *rates; /* ppm, of each node's clock */
static char path[PATH_MAX_ + 1];
static unsigned n_path;
static unsigned long n_played, n_held, n_downs[3], n_granted;

#define demand(cond, ...)                                                      \
	do {                                                                   \
		if (!(cond)) {                                                 \
			printf("# clocks %d %d %d %d, path %s\n",              \
			       (int)rates[0], (int)rates[1], (int)rates[2],    \
			       (int)rates[3], path);                           \
			check(cond, __VA_ARGS__);                              \
		}                                                              \
	} while (0)

/* ---- Clocks ---- */

static uint64_t clock_us(unsigned i, uint64_t now_us)
{
	int64_t now = (int64_t)now_us;

	return (uint64_t)(now + (int64_t)(i + 1) * 7777777 +
			  now / 1000000 * rates[i]);
}

static uint64_t clock_ms(const struct world *w, unsigned i)
{
	return clock_us(i, w->now_us) / 1000;
}

/* When the clock of i shows at_ms, to a millisecond. */
static uint64_t true_us(const struct world *w, unsigned i, uint64_t at_ms)
{
	uint64_t at = w->now_us;

	if (clock_us(i, at) / 1000 >= at_ms)
		return at;
	at += (at_ms * 1000 - clock_us(i, at)) / 1001 * 1000;
	while (clock_us(i, at) / 1000 < at_ms)
		at += 250;
	return at;
}

/* ---- Worlds are copied, to go on from each in many ways ---- */

static void *copy_of(const void *bytes, size_t size)
{
	return size > 0 ? memcpy(xmalloc(size), bytes, size) : NULL;
}

static struct lease *lease_copy(const struct lease *l)
{
	struct lease *copy = copy_of(l, sizeof(*l));

	copy->rows = copy_of(l->rows, l->cap_rows * sizeof(*l->rows));
	for (size_t i = 0; i < l->n_rows; i++)
		copy->rows[i] = copy_of(l->rows[i], sizeof(**l->rows));
	copy->obits = copy_of(l->obits, l->cap_obits * sizeof(*l->obits));
	if (l->voters != NULL)
		copy->voters = copy_of(l->voters,
				       (l->n_voters + 1) * sizeof(*l->voters));
	return copy;
}

static void world_copy(struct world *to, const struct world *from)
{
	*to = *from;
	for (unsigned i = 0; i < N; i++)
		if (from->node[i].l != NULL)
			to->node[i].l = lease_copy(from->node[i].l);
}

static void world_end(struct world *w)
{
	for (unsigned i = 0; i < N; i++)
		lease_destroy(w->node[i].l);
}

/* ---- What must hold ---- */

static bool is_held(const struct world *w)
{
	const struct lease *l = w->node[NODE].l;

	return l != NULL && !w->hides && lease_is_held(l, clock_ms(w, NODE));
}

static void look(const struct world *w)
{
	if (!is_held(w))
		return;
	n_held++;
	demand(w->is_up && w->up.boot == w->life.boot &&
		       w->up.epoch == w->node[NODE].l->epoch,
	       "it is inside its lease, but the log has it not up");
}

static void look_at_down(const struct world *w, const struct lease_down *d)
{
	bool is_it = w->node[NODE].l != NULL && w->life.boot == d->boot;

	n_downs[d->cause]++;
	if (d->cause == LEASE_PROOF)
		demand(!is_it, "proof of a death that was none");
	else
		demand(!is_it || !is_held(w), "declared down inside its lease");
}

/* ---- Going on ---- */

static void propose(struct world *w, unsigned leader, struct change c)
{
	if (w->n_pending == ENTRIES || w->node[leader].term != w->term)
		return; /* a deposed leader's is never committed */
	c.term = w->term;
	w->pending[w->n_pending++] = c;
}

static void collect(struct world *w, unsigned i)
{
	struct lease_out *out = &outs[i];

	if (i == NODE && out->obituary.len > 0) {
		w->obituary_len = out->obituary.len;
		memcpy(w->obituary, out->obituary.base, out->obituary.len);
	}
	for (size_t j = 0; j < out->n_sends; j++) {
		const struct lease_send *s = &out->sends[j];
		struct msg *m = &w->msgs[w->n_msgs];

		if (w->n_msgs == MSGS) /* lost */
			continue;
		w->n_msgs++;
		m->from = (uint8_t)i;
		m->to = (uint8_t)(s->to.byte[0] - 1);
		m->len = (uint8_t)s->len;
		memcpy(m->bytes, out->bytes.base + s->at, s->len);
		n_granted += m->bytes[0] == LEASE_GRANT;
	}
	for (size_t j = 0; j < out->n_downs; j++) {
		struct change c = {.life = {.id = out->downs[j].id,
					    .boot = out->downs[j].boot,
					    .epoch = out->downs[j].epoch}};

		demand(w->node[i].is_ready, "it is not ready");
		look_at_down(w, &out->downs[j]);
		propose(w, i, c);
	}
	w->node[i].wake_ms = out->wake_ms;
	lease_out_clear(out);
	look(w);
}

static void set_raft(struct world *w, unsigned i)
{
	struct node *n = &w->node[i];
	struct lease_raft r = {.term = n->term,
			       .durable_term = n->term,
			       .server = 100 + i,
			       .is_leader = n->leads,
			       .is_ready = n->is_ready,
			       .leader.byte = {(uint8_t)(n->leader + 1)},
			       .voters = voters,
			       .n_voters = 3};

	lease_set_raft(n->l, clock_ms(w, i), &r, &outs[i]);
	collect(w, i);
}

static void follow(struct world *w, unsigned i)
{
	struct node *n = &w->node[i];

	n->term = w->term;
	n->leader = w->leader;
	n->leads = i == w->leader;
	n->is_ready = false;
	if (n->l != NULL)
		set_raft(w, i);
}

/* The next one who is due, or N: none is before end. */
static unsigned due(const struct world *w, bool node_too, uint64_t *end)
{
	unsigned next = N;

	for (unsigned i = 0; i < N; i++) {
		const struct node *n = &w->node[i];

		if (n->l == NULL || (i == NODE && !node_too) ||
		    n->wake_ms == UINT64_MAX)
			continue;
		uint64_t at = true_us(w, i, n->wake_ms);

		if (at < *end) {
			*end = at;
			next = i;
		}
	}
	return next;
}

static void tick(struct world *w, unsigned i)
{
	lease_tick(w->node[i].l, clock_ms(w, i), &outs[i]);
	collect(w, i);
}

static void pass(struct world *w, uint64_t us)
{
	uint64_t until = w->now_us + us;

	for (;;) {
		uint64_t end = until;
		unsigned i = due(w, false, &end);

		w->now_us = end;
		look(w);
		if (i == N)
			return;
		tick(w, i);
	}
}

static bool renew(struct world *w)
{
	if (w->node[NODE].l == NULL || w->node[NODE].wake_ms == UINT64_MAX)
		return false;
	for (unsigned i = N; i != NODE;) {
		uint64_t end = UINT64_MAX;

		i = due(w, true, &end);
		w->now_us = end;
		look(w);
		tick(w, i);
	}
	return true;
}

/* All that is on its way to i, of these kinds. */
static bool deliver(struct world *w, unsigned i, unsigned kinds)
{
	bool any = false;

	for (unsigned j = 0; j < w->n_msgs;) {
		struct msg m = w->msgs[j];
		struct ring_id from = {.byte = {(uint8_t)(m.from + 1)}};
		struct lease_msg msg = {&from, m.bytes, m.len};

		if (m.to != i || (kinds >> m.bytes[0] & 1) == 0) {
			j++;
			continue;
		}
		memmove(&w->msgs[j], &w->msgs[j + 1],
			(w->n_msgs - j - 1) * sizeof(m));
		w->n_msgs--;
		any = true;
		if (w->node[i].l == NULL)
			continue;
		demand(lease_recv(w->node[i].l, clock_ms(w, i), &msg,
				  &outs[i]) == 0,
		       "a message is refused");
		collect(w, i);
	}
	return any;
}

static bool obituary_to(struct world *w, unsigned i)
{
	struct lease_msg msg = {NULL, w->old, w->old_len};

	if (w->old_len == 0)
		return false;
	lease_recv(w->node[i].l, clock_ms(w, i), &msg, &outs[i]);
	collect(w, i);
	return true;
}

/* ---- The log ---- */

static void apply_to_truth(struct world *w, struct change *c)
{
	if (c->is_barrier)
		return;
	if (!c->is_up) {
		c->has_effect = w->is_up && w->up.boot == c->life.boot &&
				w->up.epoch == c->life.epoch;
		if (c->has_effect)
			w->is_up = false;
		return;
	}
	c->has_effect = c->life.boot == w->up.boot ? !w->is_up
						   : c->life.boot > w->up.boot;
	if (!c->has_effect)
		return;
	c->life.epoch = EPOCH + w->n_log;
	w->is_up = true;
	w->up = c->life;
}

static bool commit(struct world *w)
{
	bool barrier = w->barrier == 0;

	if (w->n_pending == 0 && !barrier)
		return false;
	for (unsigned i = 0; i < w->n_pending; i++) {
		w->log[w->n_log] = w->pending[i];
		apply_to_truth(w, &w->log[w->n_log]);
		if (++w->n_log == ENTRIES)
			break;
	}
	w->n_pending = 0;
	if (barrier && w->n_log < ENTRIES)
		w->log[w->n_log++].is_barrier = true;
	if (barrier)
		w->barrier = w->n_log;
	look(w);
	return w->n_log < ENTRIES;
}

static bool lose(struct world *w)
{
	struct node *n = &w->node[w->leader];

	if (w->n_pending == 0 || w->barrier == 0)
		return false;
	w->n_pending--;
	lease_entry_void(n->l, clock_ms(w, w->leader), &w->life.id);
	tick(w, w->leader);
	return true;
}

static void apply_one(struct world *w, unsigned i)
{
	struct node *n = &w->node[i];
	const struct change *c = &w->log[n->applied++];
	bool is_own = n->leads && n->term == w->term && c->term == w->term;

	if (c->is_barrier)
		return;
	if (!c->has_effect) {
		if (is_own)
			lease_entry_void(n->l, clock_ms(w, i), &c->life.id);
		return;
	}
	if (c->is_up)
		lease_on_up(n->l, clock_ms(w, i), &c->life, &outs[i]);
	else
		lease_on_down(n->l, clock_ms(w, i), &c->life.id, &outs[i]);
	if (i == NODE && !c->is_up)
		w->hides = false;
	collect(w, i);
}

static bool apply(struct world *w, unsigned i)
{
	struct node *n = &w->node[i];
	bool any = n->applied < w->n_log;

	if (n->l == NULL)
		return false;
	while (n->applied < w->n_log)
		apply_one(w, i);
	if (n->leads && n->term == w->term && w->barrier > 0 && !n->is_ready) {
		n->is_ready = true;
		set_raft(w, i);
	}
	return any;
}

/* A majority knows the log, and so must who is elected. */
static bool elect(struct world *w, bool inherits)
{
	unsigned next = 1 - w->leader;

	if (w->term == 3 || (inherits && w->n_pending == 0))
		return false;
	w->term++;
	w->leader = next;
	w->barrier = 0;
	for (unsigned i = 0; i < w->n_pending; i++)
		w->pending[i].term = w->term;
	if (!inherits)
		w->n_pending = 0;
	follow(w, next);
	follow(w, VOTER);
	return true;
}

/* ---- The node's life ---- */

static void start(struct world *w)
{
	struct node *n = &w->node[NODE];
	struct lease_config config;

	w->life.boot++;
	w->life.epoch = 0;
	w->life.life.byte[0] = (uint8_t)w->life.boot;
	config = (struct lease_config){w->life.id, w->life.life, w->life.boot};
	n->l = lease_create(&config);
	n->applied = 0;
	w->hides = false;
	w->obituary_len = 0;
	lease_set_duration(n->l, LEASE);
	set_raft(w, NODE);
	apply(w, NODE);
}

static bool kill_it(struct world *w)
{
	if (w->node[NODE].l == NULL)
		return false;
	lease_destroy(w->node[NODE].l);
	w->node[NODE].l = NULL;
	if (w->obituary_len > 0) {
		memcpy(w->old, w->obituary, w->obituary_len);
		w->old_len = w->obituary_len;
	}
	return true;
}

/* What it asks of the leader that it knows. */
static bool join(struct world *w)
{
	struct node *n = &w->node[NODE], *l = &w->node[n->leader];

	if (n->l == NULL || n->l->epoch != 0 || !l->leads ||
	    lease_may_come_up(l->l, clock_ms(w, n->leader), &w->life) != 0)
		return false;
	propose(w, n->leader, (struct change){.is_up = true, .life = w->life});
	return true;
}

static bool leave(struct world *w)
{
	struct node *n = &w->node[NODE], *l = &w->node[n->leader];
	struct change c = {.life = w->life};

	if (n->l == NULL || n->l->epoch == 0 || !l->leads || w->hides)
		return false;
	c.life.epoch = n->l->epoch;
	if (lease_may_leave(l->l, clock_ms(w, n->leader), &w->life.id,
			    w->life.boot, c.life.epoch) != 0)
		return false;
	w->hides = true;
	propose(w, n->leader, c);
	return true;
}

static bool say_dead(struct world *w)
{
	w->is_dead = !w->is_dead;
	for (unsigned i = 0; i < 2; i++) {
		lease_on_swim(w->node[i].l, clock_ms(w, i), &w->life.id,
			      w->is_dead, &outs[i]);
		collect(w, i);
	}
	return true;
}

static bool catch_up(struct world *w, unsigned i)
{
	if (w->node[i].term == w->term || w->node[i].l == NULL)
		return false;
	follow(w, i);
	return true;
}

/* False: nothing has happened that another order would not have as well. */
static bool happens(struct world *w, enum event e)
{
	unsigned old = 1 - w->leader;
	unsigned confirm = 1u << LEASE_CONFIRM, yes = 1u << LEASE_CONFIRMED;
	bool any;

	switch (e) {
	case RENEW:
		return renew(w);
	case WAIT:
		pass(w, LEASE * 550ull);
		return true;
	case RECEIVE:
		return deliver(w, w->leader, 1u << LEASE_RENEWAL);
	case OTHER:
		return deliver(w, old, 1u << LEASE_RENEWAL);
	case VOTE:
		any = deliver(w, old, confirm);
		any |= deliver(w, w->leader, confirm);
		any |= deliver(w, VOTER, confirm);
		return any;
	case HEAR:
		any = deliver(w, 0, yes);
		any |= deliver(w, 1, yes);
		return any;
	case ANSWER:
		return deliver(w, NODE, ~0u);
	case DEAD:
		return say_dead(w);
	case COMMIT:
		return commit(w);
	case LOSE:
		return lose(w);
	case APPLY:
		any = apply(w, 0);
		any |= apply(w, 1);
		return any;
	case CATCH_UP:
		return apply(w, NODE);
	case ELECT:
		return elect(w, false);
	case INHERIT:
		return elect(w, true);
	case DEPOSE:
		return catch_up(w, old);
	case FOLLOW:
		return catch_up(w, NODE);
	case KILL:
		return kill_it(w);
	case OBITUARY:
		return obituary_to(w, w->leader);
	case STRAYS:
		return obituary_to(w, old);
	case START:
		if (w->node[NODE].l != NULL)
			return false;
		start(w);
		return true;
	case JOIN:
		return join(w);
	case LEAVE:
		return leave(w);
	case N_EVENTS:
		break;
	}
	return false;
}

/* ---- All of them ---- */

static void world_begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->now_us = 1000000000;
	w->term = 1;
	w->life.id.byte[0] = NODE + 1;
	w->life.host[0] = 1;
	for (unsigned i = 0; i < N; i++) {
		struct lease_config config = {.id.byte = {(uint8_t)(i + 1)},
					      .boot = 1};

		if (i == NODE)
			continue;
		w->node[i].l = lease_create(&config);
		lease_set_duration(w->node[i].l, LEASE);
		follow(w, i);
	}
	w->node[NODE].term = 1;
	start(w);
}

static void play(struct world *w, const char *events)
{
	for (; *events != '\0'; events++) {
		const char *at = strchr(letters, *events);

		check(at != NULL, "no event %c", *events);
		if (n_path < PATH_MAX_)
			path[n_path++] = *events;
		path[n_path] = '\0';
		happens(w, (enum event)(at - letters));
	}
}

static void explore(const struct world *w, unsigned depth)
{
	for (enum event e = 0; depth > 0 && e < N_EVENTS; e++) {
		struct world next;

		world_copy(&next, w);
		path[n_path++] = letters[e];
		path[n_path] = '\0';
		if (happens(&next, e)) {
			n_played++;
			explore(&next, depth - 1);
		}
		path[--n_path] = '\0';
		world_end(&next);
	}
}

/* The states to begin at. Up is "cAjcAp", the barrier's commit first. */
static const struct {
	const char *path;
	bool is_deep;
} begins[] = {
	{"cAjcAprRvha", true},	  /* it has a lease */
	{"cAjcAprRvhadw", true},  /* and was dead for half of it */
	{"cAjcAprRvhawwd", true}, /* a down is proposed */
	{"cAjcAprRve", true},	  /* another leader, an answer on its way */
	{"cAjcAprRvhadrRvecAro", true}, /* the former one is asked once more */
	{"cAjcAprRvharRvharRvharRvharRvhade", true}, /* by now the up is old */
	{"cAjcAprRvhakSjcAprRvha", true}, /* again, after it was killed */
	{"cAjcAprRvhak", false},	  /* killed */
	{"cAjcAp", false},		  /* no lease yet */
};

static const int64_t clocks[][N] = {
	{200, 200, -200, 0}, /* the dangerous one: it lives longer */
	{-200, -200, 200, 0},
	{200, -200, -200, 200},
	{0, 0, 0, 0},
};

static void play_all(unsigned depth)
{
	for (size_t c = 0; c < sizeof(clocks) / sizeof(*clocks); c++)
		for (size_t b = 0; b < sizeof(begins) / sizeof(*begins); b++) {
			struct world w;

			rates = clocks[c];
			n_path = 0;
			world_begin(&w);
			play(&w, begins[b].path);
			explore(&w, depth - (c > 0 || !begins[b].is_deep));
			world_end(&w);
		}
}

static void play_one(const char *events)
{
	struct world w;

	for (size_t c = 0; c < sizeof(clocks) / sizeof(*clocks); c++) {
		rates = clocks[c];
		n_path = 0;
		world_begin(&w);
		play(&w, events);
		world_end(&w);
	}
}

int main(int argc, char **argv)
{
	unsigned depth = argc > 1 ? (unsigned)atoi(argv[1]) : 5;

	if (argc > 2)
		play_one(argv[2]);
	else
		play_all(depth);
	for (unsigned i = 0; i < N; i++)
		lease_out_finish(&outs[i]);
	printf("# %lu grants, held at %lu looks; downs: %lu by proof, %lu "
	       "dead, %lu silent\n",
	       n_granted, n_held, n_downs[LEASE_PROOF], n_downs[LEASE_DEAD],
	       n_downs[LEASE_SILENT]);
	ok("holes 1, 2, 3, 11: %lu orders of events: never inside a lease and "
	   "down, or about to be",
	   n_played);
	return 0;
}
