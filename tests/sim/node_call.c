/* SPDX-License-Identifier: MIT */
/* Callers: at random they claim, note, take, give, park, retry, let, finish and
 * submit, alone and in batches, by what a node shows them, and now and then by
 * what it does not. Some give up before they are answered. What each is told is
 * compared with what the machine said (node_check.c). */
#include "tests/sim/node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALL_OPS  6
#define CALLS_MAX 64
#define LATE_MS	  250 /* an answer may be so much behind its deadline */
#define NAME_SIZE 24
#define RCS	  64
#define PROBE_MS  5000

struct call {
	struct ring_request req;
	struct ring_op ops[CALL_OPS];
	char names[CALL_OPS][NAME_SIZE];
	uint32_t node, serial;
	uint64_t deadline_ms;  /* the node's clock */
	struct effect *effect; /* NULL: it was refused at once */
	bool is_probe;
	struct call *next;
};

static struct call *calls;
static unsigned n_calls;
static unsigned n_asked[RING_N_OPS], n_answers, n_by_rc[RCS];
static uint8_t note[RING_NOTE_MAX];
static struct {
	bool done;
	int rc;
} probes[NODES_MAX + 1];

void calls_init(void)
{
	calls = NULL;
	n_calls = n_answers = 0;
	memset(n_asked, 0, sizeof(n_asked));
	memset(n_by_rc, 0, sizeof(n_by_rc));
	memset(note, 'n', sizeof(note));
}

static void unlink_call(struct call *c)
{
	struct call **at = &calls;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	n_calls--;
	free(c);
}

void calls_finish(void)
{
	while (calls != NULL)
		unlink_call(calls);
}

unsigned calls_pending(void)
{
	return n_calls;
}

void calls_print(void)
{
	static const char *const names[] = {
		[RING_CLAIM] = "claim", [RING_SUBMIT] = "submit",
		[RING_OFFER] = "offer", [RING_NOTE] = "note",
		[RING_TAKE] = "take",	[RING_GIVE] = "give",
		[RING_PARK] = "park",	[RING_RETRY] = "retry",
		[RING_LET] = "let",	[RING_FINISH] = "finish"};

	printf("#");
	for (int i = 1; i < RING_N_OPS; i++)
		printf(" %s %u", names[i], n_asked[i]);
	printf("; answers");
	for (int i = 0; i < RCS; i++)
		if (n_by_rc[i] > 0)
			printf(" %s %u", i == 0 ? "0" : strerror(i),
			       n_by_rc[i]);
	putchar('\n');
}

/* ---- Answers ---- */

static void compare(const struct call *c)
{
	const struct effect *e = c->effect;

	if (e == NULL || e->index == 0)
		broken("request %u.%llu.%llu is answered, and took no effect",
		       c->node, e != NULL ? (unsigned long long)e->boot : 0,
		       e != NULL ? (unsigned long long)e->seq : 0);
	if (e->rc != 0 || e->n != c->req.n_ops)
		broken("request %u.%llu.%llu is answered as another", c->node,
		       (unsigned long long)e->boot, (unsigned long long)e->seq);
	check_answered(e->index);
	for (size_t i = 0; i < c->req.n_ops; i++) {
		const struct ring_op *op = &c->ops[i];
		const struct keyset_answer *a = &e->answers[i];

		if (op->rc != a->rc || op->got_id != a->id ||
		    op->got_token != a->token)
			broken("request %u.%llu.%llu: operation %zu is "
			       "answered %d, and was %d",
			       c->node, (unsigned long long)e->boot,
			       (unsigned long long)e->seq, i, op->rc, a->rc);
		if (op->rc == 0 &&
		    (op->type == RING_CLAIM || op->type == RING_SUBMIT))
			check_told(op->got_id);
	}
}

static void count(const struct call *c)
{
	n_answers++;
	if (c->req.rc != 0) {
		n_by_rc[-c->req.rc % RCS]++;
		return;
	}
	for (size_t i = 0; i < c->req.n_ops; i++)
		n_by_rc[-c->ops[i].rc % RCS]++;
}

static void on_answer(struct ring_request *req)
{
	struct call *c = req->data;
	const struct node *n = &world.nodes[c->node];

	say("%s answers %s...: %d, %d", n->name, c->names[0], req->rc,
	    req->rc == 0 ? c->ops[0].rc : 0);
	count(c);
	switch (req->rc) {
	case 0:
		compare(c);
		break;
	case -EROFS:
	case -ENOSPC:
	case -EAGAIN:
		if (c->effect != NULL && c->effect->index != 0)
			broken("request %u.%llu.%llu is refused (%d), and took "
			       "effect at %llu",
			       c->node, (unsigned long long)c->effect->boot,
			       (unsigned long long)c->effect->seq, req->rc,
			       (unsigned long long)c->effect->index);
		if (c->effect != NULL)
			c->effect->is_refused = true;
		break;
	case -ETIMEDOUT:
	case -EINTR:
	case -ECANCELED:
		break;
	default:
		broken("%s is answered %d", c->names[0], req->rc);
	}
	if (c->is_probe) {
		probes[c->node].done = true;
		probes[c->node].rc = req->rc != 0 ? req->rc : c->ops[0].rc;
	}
	unlink_call(c);
}

/* ---- Asking ---- */

static void ask(struct node *n, struct call *c, size_t n_ops)
{
	uint64_t now = node_ms(n), next = n->ring->next_seq;

	c->node = n->number;
	c->serial = n->serial;
	c->deadline_ms = now + world.plan.op_timeout_ms;
	c->req = (struct ring_request){
		.ops = c->ops, .n_ops = n_ops, .cb = on_answer, .data = c};
	c->next = calls;
	calls = c;
	n_calls++;
	for (size_t i = 0; i < n_ops; i++) {
		n_asked[c->ops[i].type]++;
		say("%s is asked: %d %s%s", n->name, c->ops[i].type,
		    c->names[i], c->ops[i].token != 0 ? " by token" : "");
	}
	ring_submit(n->ring, now, &c->req);
	if (c->req.pending == NULL)
		return;
	struct effect *e = check_effect(n->number, n->ring->config.boot,
					c->req.pending->seq);

	c->effect = e;
	e->is_adopted |= c->req.pending->seq < next;
	e->is_asked = true;
	e->after = check_top_told();
	for (size_t i = 0; i < n_ops; i++)
		e->has_finish |= c->ops[i].type == RING_FINISH;
}

static void set_op(struct call *c, size_t i, enum ring_op_type type,
		   const char *name)
{
	snprintf(c->names[i], NAME_SIZE, "%s", name);
	c->ops[i] = (struct ring_op){
		.type = type, .name = c->names[i], .uid = 1000, .gid = 1000};
	if (type != RING_NOTE && !one_in(16))
		return;
	if (type == RING_CLAIM || type == RING_SUBMIT || type == RING_NOTE) {
		c->ops[i].note = note;
		c->ops[i].note_len =
			one_in(50) ? below(RING_NOTE_MAX + 1) : below(200);
	}
}

/* What somebody may want who sees it so. */
static enum ring_op_type wish(const struct ring *r, const struct ring_key *key)
{
	static const enum ring_op_type held[] = {RING_NOTE,   RING_NOTE,
						 RING_FINISH, RING_GIVE,
						 RING_PARK,   RING_FINISH};
	static const enum ring_op_type offered[] = {
		RING_TAKE, RING_TAKE, RING_TAKE, RING_FINISH, RING_PARK};
	static const enum ring_op_type released[] = {RING_LET, RING_NOTE,
						     RING_FINISH};

	if (key == NULL)
		return one_in(5) ? RING_SUBMIT : RING_CLAIM;
	if (one_in(12)) /* whatever */
		return RING_CLAIM + below(RING_N_OPS - RING_CLAIM);
	if (ring_shows(r, key, RING_VIEW_RELEASE))
		return released[below(3)];
	if (ring_shows(r, key, RING_VIEW_OWNED))
		return held[below(6)];
	if (ring_shows(r, key, RING_VIEW_RECOVER))
		return offered[below(5)];
	if (ring_shows(r, key, RING_VIEW_PARKED))
		return one_in(3) ? RING_FINISH : RING_RETRY;
	if (key->submitting)
		return RING_OFFER;
	return one_in(4) ? RING_FINISH : RING_CLAIM;
}

static void random_op(const struct node *n, struct call *c, size_t i)
{
	char name[NAME_SIZE];

	snprintf(name, sizeof(name), "k%u", below(world.plan.n_names));
	const struct ring_key *key = ring_find(n->ring, name);

	set_op(c, i, wish(n->ring, key), name);
	if (key != NULL && one_in(2)) {
		c->ops[i].id = key->id;
		c->ops[i].token = key->token;
	}
}

static void random_call(struct node *n)
{
	struct call *c = calloc(1, sizeof(*c));
	size_t n_ops = one_in(6) ? 2 + below(CALL_OPS - 1) : 1;

	for (size_t i = 0; i < n_ops; i++) {
		random_op(n, c, i);
		/* The tree submits by itself, or offers right behind it. */
		if (n_ops > 1 && c->ops[i].type == RING_SUBMIT)
			c->ops[i].type = RING_CLAIM;
	}
	if (n_ops == 1 && c->ops[0].type == RING_SUBMIT && one_in(2)) {
		set_op(c, 1, RING_OFFER, c->names[0]); /* as a batch does */
		n_ops = 2;
	}
	ask(n, c, n_ops);
	if (c->effect != NULL && one_in(12))
		post((struct event){.kind = EVENT_ABANDON,
				    .node = n->number,
				    .data = c->effect},
		     below(300000));
}

void calls_run(void)
{
	struct node *n = &world.nodes[1 + below(world.plan.n_nodes)];

	calls_check();
	if (!world.is_over)
		post((struct event){.kind = EVENT_CALL},
		     1 + below(2 * world.plan.think_us));
	if (n->state != NODE_UP || n->ring == NULL || n_calls >= CALLS_MAX)
		return;
	world.now = n;
	ring_check(n->ring, node_ms(n));
	for (unsigned i = one_in(10) ? 1 + below(8) : 1; i > 0; i--)
		random_call(n);
	node_turn(n);
	check_node(n);
	world.now = NULL;
}

/* It may have been answered since. */
void calls_abandon(void *effect)
{
	struct call *c = calls;

	while (c != NULL && (c->effect != effect ||
			     c->serial != world.nodes[c->node].serial))
		c = c->next;
	if (c == NULL || world.nodes[c->node].state != NODE_UP)
		return;
	struct node *n = &world.nodes[c->node];

	say("%s: who asked for %s gives up", n->name, c->names[0]);
	world.now = n;
	ring_abandon(n->ring, &c->req);
	node_turn(n);
	check_node(n);
	world.now = NULL;
}

/* A node that runs answers in time. */
void calls_check(void)
{
	for (struct call *c = calls; c != NULL; c = c->next) {
		const struct node *n = &world.nodes[c->node];
		uint64_t late = c->deadline_ms + LATE_MS;

		if (n->serial != c->serial)
			broken("%s was never answered", c->names[0]);
		if (n->state == NODE_UP && node_ms(n) > late &&
		    world.sim.now_us - n->continued_us > LATE_MS * 1000u)
			broken("%s: the call for %s hangs", n->name,
			       c->names[0]);
	}
}

/* ---- Does it serve? ---- */

static void probe_name(const struct node *n, char name[NAME_SIZE])
{
	const struct ring *r = n->ring;
	uint32_t mine = 0;

	for (uint32_t i = 0; i < 10000; i++) {
		snprintf(name, NAME_SIZE, "probe%u-%u", n->number, i);
		mine = ring_vnode(r, name, strlen(name));
		if (ring_settings(r)->claims == RING_CLAIMS_ANY ||
		    keyset_vnode_owner(r->keys, mine) == r->self)
			return;
	}
	name[0] = '\0';
}

void calls_probe(struct node *n)
{
	struct call *c = calloc(1, sizeof(*c));
	char name[NAME_SIZE];

	probes[n->number].done = true;
	probes[n->number].rc = 0;
	probe_name(n, name);
	if (name[0] == '\0') { /* it owns nothing */
		free(c);
		return;
	}
	world.now = n;
	probes[n->number].done = false;
	set_op(c, 0, RING_CLAIM, name);
	set_op(c, 1, RING_NOTE, name);
	set_op(c, 2, RING_FINISH, name);
	c->is_probe = true;
	ask(n, c, 3);
	node_turn(n);
	world.now = NULL;
}

bool calls_probed(const char **why)
{
	static char text[100];

	*why = text;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		if (world.nodes[i].has_left)
			continue;
		snprintf(text, sizeof(text), "n%u: a probe: %d", i,
			 probes[i].rc);
		if (!probes[i].done || probes[i].rc != 0)
			return false;
	}
	return true;
}
