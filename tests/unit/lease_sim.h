/* SPDX-License-Identifier: MIT */
/* The world of lease_random_test.c: events by time, clocks that run at rates of
 * their own, and a network that is late, loses and doubles. */
#ifndef TESTS_UNIT_LEASE_SIM_H
#define TESTS_UNIT_LEASE_SIM_H

#include <stdarg.h>
#include <string.h>

#include "ring/lease.h"
#include "ring/mem.h"
#include "tests/unit/check.h"

#define N_MAX	6
#define LOG_MAX 20000
#define MSG_MAX 64

enum type {
	BARRIER,
	UP,
	DOWN
};

struct entry {
	enum type type;
	unsigned node;
	struct lease_life life; /* its epoch: of an UP, once committed */
	uint64_t term, order;
	unsigned leader;
	bool by_proof;
	bool has_effect;
};

struct view {
	bool is_up;
	struct lease_life life;
};

struct node {
	struct lease *l; /* NULL: killed */
	struct lease_out out;
	struct lease_life life;
	int64_t offset_us, ppm;
	uint64_t tick_us; /* when the next is due; older ones are void */
	bool stopped;
	bool hides; /* it asked to leave */
	uint8_t obituary[MSG_MAX];
	size_t obituary_len;
	/* Raft: */
	uint64_t term, durable, heard_us, contact_us, lag_us, mute_us;
	bool is_mute;
	bool is_leader, is_ready;
	int leader;
	size_t known, applied; /* entries of the log */
	struct view views[N_MAX];
	/* SWIM: */
	uint64_t reached_us[N_MAX], wrong_us[N_MAX];
};

enum event_type {
	MSG,
	HERALD,
	TICK,
	COMMIT,
	STEP,
	CHAOS,
	CONT
};

struct event {
	uint64_t at_us, order;
	enum event_type type;
	unsigned node, from;
	size_t len;
	uint8_t bytes[MSG_MAX];
};

static struct node nodes[N_MAX];
static unsigned n_nodes, n_voters;
static bool cut[N_MAX][N_MAX];
static struct lease_voter voters[N_MAX];
static struct entry log_[LOG_MAX];
static size_t n_log;
static struct entry pending[256];
static size_t n_pending;
static struct view truth[N_MAX];
static struct event *events; /* a heap */
static size_t n_events, cap_events;
static struct event *parked; /* for those who are stopped */
static size_t n_parked, cap_parked;
static uint64_t now, order, rng, lease_us, wrong_swim;
static bool is_calm, verbose, is_sticky, is_blind;
static uint64_t the_seed;

static struct {
	unsigned long elections, rivals, downs[3], ups, voids, kills, stops,
		proofs, checks, held, refused;
} stats;

static uint64_t below(uint64_t n)
{
	return check_random(&rng) % n;
}

static bool chance(unsigned percent)
{
	return below(100) < percent;
}

static void say(const char *format, ...)
{
	va_list ap;

	if (!verbose)
		return;
	printf("[%12.6f] ", (double)now / 1e6);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
}

#define demand(cond, ...)                                                      \
	do {                                                                   \
		if (!(cond)) {                                                 \
			printf("# replay: seed %llu, 1 run; at %.6f s\n",      \
			       (unsigned long long)the_seed,                   \
			       (double)now / 1e6);                             \
			check(cond, __VA_ARGS__);                              \
		}                                                              \
	} while (0)

/* ---- Events ---- */

static bool earlier(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void heap_up(size_t i)
{
	for (; i > 0 && earlier(&events[i], &events[(i - 1) / 2]);
	     i = (i - 1) / 2) {
		struct event e = events[i];

		events[i] = events[(i - 1) / 2];
		events[(i - 1) / 2] = e;
	}
}

static struct event pop(void)
{
	struct event first = events[0];
	size_t i = 0;

	events[0] = events[--n_events];
	for (;;) {
		size_t least = i;

		for (size_t c = 2 * i + 1; c <= 2 * i + 2 && c < n_events; c++)
			if (earlier(&events[c], &events[least]))
				least = c;
		if (least == i)
			return first;
		struct event e = events[i];

		events[i] = events[least];
		events[least] = e;
		i = least;
	}
}

static void push(struct event e, uint64_t at_us)
{
	if (n_events == cap_events) {
		cap_events = cap_events ? 2 * cap_events : 256;
		events = xrealloc(events, cap_events * sizeof(*events));
	}
	e.at_us = at_us;
	e.order = order++;
	events[n_events] = e;
	heap_up(n_events++);
}

static void park(const struct event *e)
{
	if (n_parked == cap_parked) {
		cap_parked = cap_parked ? 2 * cap_parked : 64;
		parked = xrealloc(parked, cap_parked * sizeof(*parked));
	}
	parked[n_parked++] = *e;
}

static void unpark(unsigned node)
{
	size_t n = 0;

	for (size_t i = 0; i < n_parked; i++)
		if (parked[i].node == node)
			push(parked[i], now);
		else
			parked[n++] = parked[i];
	n_parked = n;
}

/* ---- Clocks ---- */

static uint64_t clock_us(const struct node *n, uint64_t at_us)
{
	return (uint64_t)((int64_t)at_us + n->offset_us +
			  (int64_t)at_us / 1000000 * n->ppm +
			  (int64_t)at_us % 1000000 * n->ppm / 1000000);
}

static uint64_t clock_ms(const struct node *n)
{
	return clock_us(n, now) / 1000;
}

/* When n's clock shows at_ms. */
static uint64_t true_us(const struct node *n, uint64_t at_ms)
{
	uint64_t low = now, high = now + 1;

	while (clock_us(n, high) / 1000 < at_ms)
		high += high - low + 1;
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;

		if (clock_us(n, mid) / 1000 < at_ms)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- The network ---- */

static bool is_running(unsigned i)
{
	return nodes[i].l != NULL && !nodes[i].stopped;
}

static bool reach(unsigned a, unsigned b)
{
	return !cut[a][b] && !cut[b][a];
}

/* Mostly fast, some at once, a few very late. */
static uint64_t delay_us(void)
{
	switch (below(is_calm ? 10 : 20)) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		return below(20);
	case 18:
		return below(lease_us / 4);
	case 19:
		return below(2 * lease_us);
	default:
		return below(lease_us / 200 + 1);
	}
}

static void propose(unsigned leader, struct entry e);

static void schedule_tick(unsigned i)
{
	struct node *n = &nodes[i];
	uint64_t at;

	if (n->out.wake_ms == UINT64_MAX)
		return;
	at = true_us(n, n->out.wake_ms);
	if (chance(5))
		at += below(lease_us / 50 + 1);
	n->tick_us = at;
	push((struct event){.type = TICK, .node = i}, at);
}

static void send(unsigned from, const struct lease_send *s)
{
	struct event e = {.type = MSG,
			  .from = from,
			  .node = s->to.byte[0] - 1u,
			  .len = s->len};
	unsigned n = is_calm ? 1 : chance(4) ? 0 : chance(4) ? 2 : 1;

	demand(s->len <= MSG_MAX, "%zu", s->len);
	memcpy(e.bytes, nodes[from].out.bytes.base + s->at, s->len);
	if (cut[from][e.node])
		return;
	for (; n > 0; n--)
		push(e, now + delay_us());
}

static void collect(unsigned i)
{
	struct node *n = &nodes[i];
	struct lease_out *out = &n->out;

	if (out->obituary.len > 0) {
		memcpy(n->obituary, out->obituary.base, out->obituary.len);
		n->obituary_len = out->obituary.len;
	}
	for (size_t j = 0; j < out->n_sends; j++)
		send(i, &out->sends[j]);
	for (size_t j = 0; j < out->n_downs; j++) {
		struct lease_down *d = &out->downs[j];
		unsigned node = d->id.byte[0] - 1u;
		struct entry e = {.type = DOWN,
				  .node = node,
				  .life = {.id = d->id,
					   .boot = d->boot,
					   .epoch = d->epoch},
				  .by_proof = d->cause == LEASE_PROOF};

		say("%u > down %u in %llu: cause %d", i, node,
		    (unsigned long long)d->epoch, d->cause);
		demand(nodes[i].is_ready, "it is not ready");
		demand(d->cause != LEASE_PROOF || nodes[node].l == NULL ||
			       nodes[node].life.boot > d->boot,
		       "proof of what is not so");
		stats.downs[d->cause]++;
		if (chance(5)) {
			stats.voids++;
			lease_entry_void(n->l, clock_ms(n), &d->id);
			lease_tick(n->l, clock_ms(n), out);
		} else {
			propose(i, e);
		}
	}
	lease_out_clear(out);
	schedule_tick(i);
}

#endif
