/* SPDX-License-Identifier: MIT */
/* Streams between nodes, as gossip/net_link.c keeps them over TCP: a lane is in
 * order, what is lost on the way is sent again by the kernel and comes late, a
 * lane that is cut stands still and breaks after 5 s, one to a process that is
 * not there breaks at once. What waits in a lane that breaks is lost; so is what
 * is said in the pause after it; and who was spoken to is probed next.
 *
 * And the heralds: what a daemon entrusted to its herald goes to all whom that
 * daemon knew at that time, again and again, until one has answered. */
#include "tests/sim/node.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define RTO_US	   200000  /* until TCP sends again */
#define USER_US	   5000000 /* until it gives up */
#define IDLE_US	   60000000
#define PAUSE_MS   100
#define PAUSE_MAX  2000
#define TELL_MS	   10000 /* fs/herald_child.c */
#define TELL_FIRST 20
#define TELL_LAST  500

bool net_is_cut(uint32_t from, uint32_t to)
{
	return world.cut[from][to] || world.nodes[from].is_dark ||
	       world.nodes[to].is_dark;
}

static uint64_t delay(void)
{
	uint64_t us = world.delay_us;

	return us + (world.jitter_us > 0 ? below(world.jitter_us + 1) : 0);
}

static bool is_lost(void)
{
	return world.loss > 0 && below(1000000) < world.loss;
}

/* ---- SWIM's links ---- */

void net_set(void)
{
	struct sim *sim = &world.sim;

	sim->link.delay_us = world.delay_us;
	sim->link.jitter_us = world.jitter_us;
	sim->link.loss = world.loss;
	sim->link.duplicate = world.loss / 4;
	sim->link.reorder = world.loss;
	sim->n_rules = 0;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		for (uint32_t j = 1; j <= world.plan.n_nodes; j++) {
			struct sim_rule rule = {
				.from = {.ranges = {{i, i}}, .n = 1},
				.to = {.ranges = {{j, j}}, .n = 1},
				.field = SIM_CUT,
				.value = 1};

			if (i != j && net_is_cut(i, j))
				sim_rule(sim, &rule);
		}
}

/* ---- Lanes ---- */

static struct lane *lane_of(uint32_t from, uint32_t to, bool bulk)
{
	struct lane *l = &world.lanes[from][to][bulk];

	if (l->last == NULL)
		l->last = &l->first;
	return l;
}

static void drop_first(struct lane *l)
{
	struct parcel *p = l->first;

	l->first = p->next;
	if (l->first == NULL)
		l->last = &l->first;
	free(p);
}

static void drop_lane(struct lane *l)
{
	while (l->first != NULL)
		drop_first(l);
	l->stalled_us = 0;
}

/* The stream is no more: its sender notices. */
static void break_lane(uint32_t from, uint32_t to, bool bulk)
{
	struct lane *l = lane_of(from, to, bulk);
	const struct node *n = &world.nodes[from];

	drop_lane(l);
	l->used_us = 0;
	l->pause_ms = l->pause_ms == 0		? PAUSE_MS
		      : l->pause_ms < PAUSE_MAX ? 2 * l->pause_ms
						: PAUSE_MAX;
	l->paused_us = world.sim.now_us + l->pause_ms * 1000u;
	if (n->state == NODE_OFF)
		return;
	post((struct event){.kind = EVENT_HINT,
			    .node = from,
			    .serial = n->serial,
			    .a = to},
	     1);
}

static void post_lane(uint32_t from, uint32_t to, bool bulk, uint64_t in_us)
{
	post(
		(struct event){
			.kind = EVENT_LANE, .node = to, .a = from, .b = bulk},
		in_us);
}

static void append(struct lane *l, struct parcel *p)
{
	uint64_t at = world.sim.now_us + delay();

	for (uint64_t rto = RTO_US; is_lost() && rto < USER_US; rto *= 2)
		at += rto;
	if (l->used_us == 0) /* it is called first */
		at += 3 * (uint64_t)world.delay_us;
	if (at <= l->last_us)
		at = l->last_us + 1;
	p->due_us = l->last_us = at;
	*l->last = p;
	l->last = &p->next;
	l->used_us = world.sim.now_us;
}

void net_on_send(void *data, const struct ring_id *to, bool bulk,
		 const void *bytes, size_t len)
{
	const struct node *n = data;
	uint32_t number = number_of(to);

	if (number == 0 || n->is_ending || n->files.is_off)
		return;
	struct lane *l = lane_of(n->number, number, bulk);

	if (world.sim.now_us < l->paused_us)
		return;
	struct parcel *p = malloc(sizeof(*p) + len);

	*p = (struct parcel){.boot = sim_node(&world.sim, n->number)->boot,
			     .from = id_of(n->number),
			     .to = *to,
			     .len = len};
	memcpy(p->bytes, bytes, len);
	append(l, p);
	post_lane(n->number, number, bulk, p->due_us - world.sim.now_us);
}

/* A former life is not heard any more when a newer one was. */
static bool is_taken(struct lane *l, const struct parcel *p, uint32_t to)
{
	struct ring_id id = id_of(to);

	if (!ring_same(&id, &p->to))
		return false;
	if (ring_same(&l->from, &p->from) && p->boot < l->boot)
		return false;
	l->from = p->from;
	l->boot = p->boot;
	return true;
}

static void hand_over(struct node *n, uint32_t from, struct lane *l)
{
	struct parcel *p = l->first;

	l->first = p->next;
	if (l->first == NULL)
		l->last = &l->first;
	l->pause_ms = 0;
	if (is_taken(l, p, n->number)) {
		world.hash ^= XXH3_64bits(p->bytes, p->len) + from;
		world.now = n;
		ring_recv(n->ring, node_ms(n), &p->from, p->bytes, p->len);
		node_turn(n);
		check_node(n);
		world.now = NULL;
	}
	free(p);
}

void net_deliver(uint32_t from, uint32_t to, bool bulk)
{
	struct lane *l = lane_of(from, to, bulk);
	struct node *n = &world.nodes[to];
	uint64_t now = world.sim.now_us;

	if (l->first == NULL || l->first->due_us > now)
		return; /* of a lane that broke */
	if (net_is_cut(from, to) || net_is_cut(to, from)) {
		if (l->stalled_us == 0)
			l->stalled_us = now;
		if (now - l->stalled_us > USER_US)
			break_lane(from, to, bulk);
		else
			post_lane(from, to, bulk, RTO_US / 2 + below(RTO_US));
		return;
	}
	l->stalled_us = 0;
	if (n->state == NODE_OFF)
		break_lane(from, to, bulk);
	else if (n->state == NODE_STOPPED)
		return; /* net_on_continue() */
	else
		while (l->first != NULL && l->first->due_us <= now &&
		       n->state == NODE_UP)
			hand_over(n, from, l);
}

void net_on_continue(uint32_t node)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		for (unsigned bulk = 0; bulk < 2; bulk++)
			if (lane_of(i, node, bulk)->first != NULL)
				post_lane(i, node, bulk, 0);
}

/* The kernel closes what the process had open: what it had sent still comes,
 * mostly. A host without power says nothing, nor does it hear. */
void net_on_end(uint32_t node, enum end how)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		for (unsigned bulk = 0; bulk < 2; bulk++) {
			struct lane *to = lane_of(i, node, bulk);

			if (one_in(2))
				drop_lane(lane_of(node, i, bulk));
			lane_of(node, i, bulk)->used_us = 0;
			lane_of(node, i, bulk)->paused_us = 0;
			if (how != END_POWER && to->used_us != 0 &&
			    world.sim.now_us - to->used_us < IDLE_US)
				break_lane(i, node, bulk);
		}
	net_set();
}

void net_finish(void)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		for (uint32_t j = 1; j <= world.plan.n_nodes; j++)
			for (unsigned bulk = 0; bulk < 2; bulk++)
				drop_lane(lane_of(i, j, bulk));
}

/* ---- Heralds ---- */

struct herald {
	uint32_t from, boot;
	struct ring_id id;
	uint8_t bytes[OBITUARY_MAX];
	size_t len;
	uint32_t to[NODES_MAX], n_to;
	uint64_t began_us;
	uint32_t pause_ms;
	bool is_heard, once;
	unsigned n_users; /* datagrams under way, and itself */
};

/* As fs/cluster.c: to the leader first, then to all who live. */
void net_entrust(struct node *n, const void *bytes, size_t len)
{
	struct ring_status s;
	uint32_t leader = 0;

	if (len > OBITUARY_MAX)
		broken("%s: an obituary of %zu bytes", n->name, len);
	memcpy(n->obituary.bytes, bytes, len);
	n->obituary.len = len;
	n->obituary.boot = sim_node(&world.sim, n->number)->boot;
	n->obituary.n_to = 0;
	if (n->ring != NULL) {
		ring_status(n->ring, &s);
		const struct ring_node *node =
			s.leader != RING_NONE ? ring_node(n->ring, s.leader)
					      : NULL;
		leader = node != NULL ? number_of(&node->id) : 0;
	}
	if (leader != 0 && leader != n->number)
		n->obituary.to[n->obituary.n_to++] = leader;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		unsigned is = sim_sees(&world.sim, n->number, i);

		if (i != n->number && i != leader && is <= WIRE_SUSPECT)
			n->obituary.to[n->obituary.n_to++] = i;
	}
}

void net_release(void *herald)
{
	struct herald *h = herald;

	if (--h->n_users == 0)
		free(h);
}

void net_herald(struct node *n, bool once)
{
	struct herald *h;

	if (n->obituary.len == 0)
		return;
	h = calloc(1, sizeof(*h));
	h->from = n->number;
	h->boot = n->obituary.boot;
	h->id = id_of(n->number);
	memcpy(h->bytes, n->obituary.bytes, n->obituary.len);
	h->len = n->obituary.len;
	memcpy(h->to, n->obituary.to, sizeof(h->to));
	h->n_to = n->obituary.n_to;
	h->began_us = world.sim.now_us;
	h->pause_ms = TELL_FIRST;
	h->once = once;
	h->n_users = 1;
	post((struct event){.kind = EVENT_TELL, .node = n->number, .data = h},
	     500 + below(5000));
}

void net_tell(struct event *e)
{
	struct herald *h = e->data;
	uint64_t now = world.sim.now_us;

	if (h->is_heard || now - h->began_us > TELL_MS * 1000u) {
		net_release(h);
		return;
	}
	for (uint32_t i = 0; i < h->n_to; i++) {
		if (net_is_cut(h->from, h->to[i]) || is_lost())
			continue;
		h->n_users++;
		post((struct event){.kind = EVENT_OBITUARY,
				    .node = h->to[i],
				    .data = h},
		     delay());
	}
	if (h->once) {
		net_release(h);
		return;
	}
	post(*e, h->pause_ms * 1000u);
	h->pause_ms *= h->pause_ms < TELL_LAST ? 2 : 1;
}

/* It has come. What the ring takes for one ends the suspicion, too; then the
 * herald is answered. */
void net_obituary(struct event *e)
{
	struct herald *h = e->data;
	struct node *n = &world.nodes[e->node];
	struct ring_id id = id_of(h->from);

	if (n->state == NODE_UP && n->ring != NULL &&
	    ring_obituary(n->ring, node_ms(n), h->bytes, h->len) == 0) {
		say("%s is told that %u is dead", n->name, h->from);
		if (ring_same(&id, &h->id))
			sim_obituary(&world.sim, n->number, h->from, h->boot);
		if (!net_is_cut(n->number, h->from) && !is_lost())
			h->is_heard = true; /* a little early */
		node_turn(n);
	}
	net_release(h);
}
