/* SPDX-License-Identifier: MIT */
/* Up to five nodes of ring/lease.h in virtual time. Raft is played by hand: who
 * leads, in which term, and what is applied where. Messages arrive in order,
 * after delay_ms, unless the way is cut when they are sent; who is stopped gets
 * them when it goes on. All clocks are one. */
#ifndef TESTS_UNIT_LEASE_RIG_H
#define TESTS_UNIT_LEASE_RIG_H

#include <errno.h>
#include <string.h>

#include "ring/lease_impl.h"
#include "ring/mem.h"
#include "tests/unit/check.h"

#define N	5
#define LEASE	1500
#define MARGIN	151
#define MSG_MAX 64

struct msg {
	unsigned from, to;
	uint64_t at_ms;
	uint8_t bytes[MSG_MAX];
	size_t len;
};

struct node {
	struct lease *l;
	struct lease_out out;
	struct lease_life life;
	struct lease_raft raft;
	bool stopped;
	uint8_t obituary[MSG_MAX]; /* at the herald */
	size_t obituary_len;
	unsigned n_downs; /* asked for since play() */
	struct lease_down down;
	bool leader_died;
	unsigned n_changes, n_sent, n_renewals;
	unsigned n_grants; /* sent to it, ever */
};

static struct node nodes[N];
static struct lease_voter voters[N];
static size_t n_voters;
static bool cut[N][N]; /* from, to */
static uint64_t now, delay_ms;
static struct msg *msgs;
static size_t n_msgs, cap_msgs;
static unsigned sent_of_kind[LEASE_N_KINDS];

static inline unsigned index_of(const struct ring_id *id)
{
	return id->byte[0] - 1u;
}

/* ---- The world ---- */

static inline void collect(unsigned i)
{
	struct node *n = &nodes[i];
	struct lease_out *out = &n->out;

	if (out->obituary.len > 0) {
		n->obituary_len = out->obituary.len;
		memcpy(n->obituary, out->obituary.base, out->obituary.len);
	}
	for (size_t j = 0; j < out->n_sends; j++) {
		const struct lease_send *s = &out->sends[j];
		struct msg m = {.from = i,
				.to = index_of(&s->to),
				.at_ms = now + delay_ms,
				.len = s->len};

		check(s->len <= MSG_MAX, "%zu bytes", s->len);
		memcpy(m.bytes, out->bytes.base + s->at, s->len);
		sent_of_kind[m.bytes[0]]++;
		n->n_sent++;
		nodes[m.to].n_grants += m.bytes[0] == LEASE_GRANT;
		n->n_renewals += m.bytes[0] == LEASE_RENEWAL;
		if (cut[i][m.to])
			continue;
		if (n_msgs == cap_msgs) {
			cap_msgs = cap_msgs ? 2 * cap_msgs : 64;
			msgs = xrealloc(msgs, cap_msgs * sizeof(*msgs));
		}
		msgs[n_msgs++] = m;
	}
	for (size_t j = 0; j < out->n_downs; j++) {
		n->down = out->downs[j];
		n->n_downs++;
	}
	n->n_changes += out->is_changed;
	n->leader_died |= out->leader_died;
	lease_out_clear(out);
}

static inline int hear(unsigned i, const struct ring_id *from,
		       const void *bytes, size_t len)
{
	struct lease_msg m = {.from = from, .bytes = bytes, .len = len};
	int rc = lease_recv(nodes[i].l, now, &m, &nodes[i].out);

	collect(i);
	return rc;
}

static inline void deliver(void)
{
	for (size_t i = 0; i < n_msgs;) {
		struct msg m = msgs[i];

		if (nodes[m.to].stopped || m.at_ms > now) {
			i++;
			continue;
		}
		memmove(&msgs[i], &msgs[i + 1],
			(n_msgs - i - 1) * sizeof(*msgs));
		n_msgs--;
		if (nodes[m.to].l != NULL)
			check_int(hear(m.to, &nodes[m.from].life.id, m.bytes,
				       m.len),
				  0);
	}
}

static inline void play(uint64_t ms)
{
	uint64_t end = now + ms;

	for (unsigned i = 0; i < N; i++) {
		nodes[i].n_downs = nodes[i].n_changes = nodes[i].n_sent = 0;
		nodes[i].n_renewals = 0;
		nodes[i].leader_died = false;
	}
	for (deliver(); now < end; deliver()) {
		now++;
		for (unsigned i = 0; i < N; i++) {
			struct node *n = &nodes[i];

			if (n->l == NULL || n->stopped || now < n->out.wake_ms)
				continue;
			lease_tick(n->l, now, &n->out);
			check(n->out.wake_ms > now, "it would spin");
			collect(i);
		}
	}
}

static inline bool held(unsigned i)
{
	return lease_is_held(nodes[i].l, now);
}

static inline void set_raft(unsigned i)
{
	struct node *n = &nodes[i];

	n->raft.voters = voters;
	n->raft.n_voters = n_voters;
	n->raft.server = 100 + i;
	lease_set_raft(n->l, now, &n->raft, &n->out);
	collect(i);
}

/* Node i follows leader in term; or is that leader. */
static inline void follow(unsigned i, unsigned leader, uint64_t term,
			  bool is_ready)
{
	struct lease_raft *r = &nodes[i].raft;

	r->term = r->durable_term = term;
	r->is_leader = i == leader;
	r->is_ready = is_ready && i == leader;
	r->leader = nodes[leader].life.id;
	set_raft(i);
}

static inline void lead(unsigned leader, uint64_t term, bool is_ready)
{
	for (unsigned i = 0; i < N; i++)
		if (nodes[i].l != NULL && !nodes[i].stopped)
			follow(i, leader, term, is_ready);
}

/* Node at applies that i is up, or down. */
static inline void apply_up(unsigned at, unsigned i)
{
	lease_on_up(nodes[at].l, now, &nodes[i].life, &nodes[at].out);
	collect(at);
}

static inline void apply_down(unsigned at, unsigned i)
{
	lease_on_down(nodes[at].l, now, &nodes[i].life.id, &nodes[at].out);
	collect(at);
}

static inline void all_apply_up(unsigned i, uint64_t epoch)
{
	nodes[i].life.epoch = epoch;
	for (unsigned at = 0; at < N; at++)
		if (nodes[at].l != NULL)
			apply_up(at, i);
}

static inline void swim(unsigned at, unsigned i, bool is_dead)
{
	lease_on_swim(nodes[at].l, now, &nodes[i].life.id, is_dead,
		      &nodes[at].out);
	collect(at);
}

static inline void start(unsigned i, uint64_t boot)
{
	struct node *n = &nodes[i];
	struct lease_config config;

	lease_destroy(n->l);
	lease_out_finish(&n->out);
	n->raft = (struct lease_raft){.term = n->raft.term,
				      .durable_term = n->raft.durable_term};
	n->life = (struct lease_life){.id.byte = {(uint8_t)(i + 1)},
				      .life.byte = {(uint8_t)boot, 7},
				      .boot = boot};
	n->life.host[0] = (uint8_t)(i + 1);
	config = (struct lease_config){
		.id = n->life.id, .life = n->life.life, .boot = boot};
	n->l = lease_create(&config);
	lease_set_duration(n->l, LEASE);
	lease_out_clear(&n->out);
	lease_tick(n->l, now, &n->out);
	collect(i);
}

static inline void world_end(void)
{
	for (unsigned i = 0; i < N; i++) {
		lease_destroy(nodes[i].l);
		lease_out_finish(&nodes[i].out);
	}
	memset(nodes, 0, sizeof(nodes));
	memset(cut, 0, sizeof(cut));
	memset(sent_of_kind, 0, sizeof(sent_of_kind));
	n_msgs = 0;
	delay_ms = 0;
}

/* n nodes, all voters, the first leads in term 1, all up and with a lease. */
static inline void world(unsigned n)
{
	world_end();
	now = 100000;
	n_voters = n;
	for (unsigned i = 0; i < n; i++) {
		start(i, 3);
		voters[i] = (struct lease_voter){nodes[i].life.id, 100 + i};
	}
	lead(0, 1, true);
	for (unsigned i = 0; i < n; i++)
		all_apply_up(i, 10 + i);
	play(2 * LEASE);
	for (unsigned i = 0; i < n; i++)
		check(held(i), "node %u", i);
}

static inline void isolate(unsigned i, bool is_cut)
{
	for (unsigned j = 0; j < N; j++)
		cut[i][j] = cut[j][i] = is_cut && i != j;
}
static inline void hear_packet(unsigned i, unsigned from,
			       const struct lease_packet *p)
{
	struct buf b = {0};

	lease_encode(&b, p);
	check_int(hear(i, &nodes[from].life.id, b.base, b.len), 0);
	free(b.base);
}

#endif
