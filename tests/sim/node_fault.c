/* SPDX-License-Identifier: MIT */
/* What a run is like, and what goes wrong in it: each seed draws its settings and
 * its families of faults, so that some runs see all of them at once, and some few
 * of them for long.
 *
 * Nothing is done that would be outside of what the cluster promises to bear: a
 * state is lost only while a majority of the voters has it, one at a time; the
 * last node does not leave. */
#include "tests/sim/node.h"

#include <stdlib.h>
#include <string.h>

#define SECOND 1000000u
#define MS     1000u

static bool is_drawn(unsigned family)
{
	return world.plan.families >> family & 1;
}

static uint32_t one_of(const uint32_t *values, uint32_t n)
{
	return values[below(n)];
}
#define ONE_OF(...)                                                            \
	one_of((const uint32_t[]){__VA_ARGS__},                                \
	       sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

void faults_plan(void)
{
	struct plan *p = &world.plan;

	*p = (struct plan){
		.n_nodes = ONE_OF(1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 7),
		.faults_us = 40 * SECOND,
		.families = below(1u << FAMILY_N) & below(1u << FAMILY_N),
		.is_calm = one_in(2),
		.op_timeout_ms = ONE_OF(1500, 3000, 5000),
		.snapshot_entries = ONE_OF(8, 32, 100, 500, 8192),
		.trailing_entries = ONE_OF(1, 8, 64, 1024),
		.segment_bytes = ONE_OF(16384, 32768, 65536, 262144),
		.n_names = ONE_OF(3, 10, 40),
		.think_us = ONE_OF(10, 20, 60, 200) * MS,
		.fault_us = ONE_OF(200, 500, 1500, 4000) * MS,
	};
	p->families |= 1u << below(FAMILY_N);
	p->settings = (struct ring_settings){
		.vnodes = ONE_OF(16, 64, 256),
		.claims = below(2),
		.lease_ms = ONE_OF(400, 800, 1500, 1500),
		.calm_ms = ONE_OF(50, 200, 500, 500),
		.max_attempts = ONE_OF(1, 3, 5),
		.handover_timeout_ms = ONE_OF(0, 0, 500, 3000),
	};
	world.delay_us = ONE_OF(100, 500, 2000);
	world.jitter_us = ONE_OF(0, 200, 3000);
}

/* ---- Who ---- */

static struct node *any(void)
{
	return &world.nodes[1 + below(world.plan.n_nodes)];
}

/* Mostly a majority stays: else little happens but waiting. */
static bool may_lose_one(void)
{
	unsigned n = 0;

	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		n += world.nodes[i].state == NODE_UP;
	return 2 * (n - 1) > world.plan.n_nodes || one_in(6);
}

static enum ring_health health(const struct node *n)
{
	return n->state == NODE_UP ? ring_health(n->ring) : RING_FAILED;
}

static bool all_ready(void)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		if (health(&world.nodes[i]) != RING_READY)
			return false;
	return true;
}

/* Every server of the configuration is one that there is. */
static bool all_serve(void)
{
	const struct ring *r = world.nodes[1].ring;
	unsigned n = 0;

	for (size_t i = 0; r != NULL && i < r->n_servers; i++) {
		uint32_t number = number_of(&r->servers[i].node);

		if (number == 0 || world.nodes[number].group == NULL ||
		    group_server_id(world.nodes[number].group) !=
			    r->servers[i].server)
			return false;
		n += r->servers[i].role == GROUP_VOTER;
	}
	return n >= 3;
}

static void start_in(struct node *n, uint64_t us)
{
	post((struct event){.kind = EVENT_START, .node = n->number}, us);
}

static uint64_t soon(void)
{
	return (uint64_t)ONE_OF(5, 100, 1000, 3000, 8000) * MS / 2 +
	       below(1000 * MS);
}

/* ---- What ---- */

static void kill_one(struct node *n)
{
	static const enum end ends[] = {END_TERM, END_KILL, END_KILL, END_BOTH};

	if (n->state == NODE_OFF || !may_lose_one())
		return;
	enum end end = ends[below(4)];

	if (n->state == NODE_STOPPED && end == END_TERM)
		end = END_KILL;
	node_end(n, end);
	start_in(n, soon());
}

static void power_one(struct node *n)
{
	if (n->state == NODE_OFF || !may_lose_one())
		return;
	say("%s will lose its power", n->name);
	n->files.fail_at = n->files.n_steps + 1 + below(ONE_OF(3, 12, 40));
	post_node(EVENT_POWER, n, below(500 * MS));
	start_in(n, 600 * MS + soon());
}

static void stop_one(struct node *n)
{
	if (n->state != NODE_UP || !may_lose_one())
		return;
	node_stop(n);
	if (one_in(3)) { /* suspended: nothing comes meanwhile */
		n->is_dark = true;
		net_set();
	}
	if (world.planted == PLANTED_LIAR)
		net_herald(n, false);
	post((struct event){.kind = EVENT_CONTINUE, .node = n->number},
	     one_in(2) ? below(500 * MS) : below(6 * SECOND));
}

static void go_on(struct node *n)
{
	if (n->state != NODE_STOPPED)
		return;
	n->is_dark = false;
	net_set();
	node_continue(n);
}

enum act {
	ACT_CUT,
	ACT_LINK,
	ACT_DISK
};

static void end_in(enum act act, uint32_t node, uint64_t us)
{
	post((struct event){.kind = EVENT_END, .node = node, .a = act}, us);
}

static void cut_some(void)
{
	uint32_t i = any()->number, j = any()->number;
	uint32_t side = below(1u << world.plan.n_nodes);

	switch (below(4)) {
	case 0:
		world.cut[i][j] = i != j;
		break;
	case 1:
		world.cut[i][j] = world.cut[j][i] = i != j;
		break;
	case 2:
		for (j = 1; j <= world.plan.n_nodes; j++)
			world.cut[i][j] = world.cut[j][i] = i != j;
		break;
	default:
		for (i = 1; i <= world.plan.n_nodes; i++)
			for (j = 1; j <= world.plan.n_nodes; j++)
				world.cut[i][j] = (side >> (i - 1) & 1) !=
						  (side >> (j - 1) & 1);
	}
	say("links are cut");
	net_set();
	end_in(ACT_CUT, 0, soon());
}

static void spoil_links(void)
{
	world.delay_us = ONE_OF(100, 2000, 20000);
	world.jitter_us = ONE_OF(0, 5000, 40000);
	world.loss = ONE_OF(0, 10000, 100000);
	say("links: delay %u us, jitter %u us, loss %u", world.delay_us,
	    world.jitter_us, world.loss);
	net_set();
	end_in(ACT_LINK, 0, soon());
}

static void spoil_disk(struct node *n)
{
	uint32_t which = below(DISKS);

	switch (below(5)) {
	case 0:
	case 1:
		n->disk_us[which] = ONE_OF(2, 10, 50) * MS;
		break;
	case 2:
		n->disk_hangs[which] = world.sim.now_us + soon() / 2;
		break;
	case 3:
		n->files.is_full = true;
		break;
	default:
		if (!one_in(3) || n->state == NODE_OFF)
			return;
		n->files.eio_at = n->files.n_steps + 1 + below(8);
		/* Somebody sees it, and starts it anew. */
		post((struct event){.kind = EVENT_END,
				    .node = n->number,
				    .serial = n->serial,
				    .a = ACT_DISK,
				    .b = 1},
		     SECOND + soon());
		return;
	}
	say("%s: the disk is slow, hangs, or is full", n->name);
	end_in(ACT_DISK, n->number, soon());
}

static void mend_disk(struct node *n)
{
	n->disk_us[0] = 200;
	n->disk_us[1] = 1000;
	n->disk_hangs[0] = n->disk_hangs[1] = 0;
	n->files.is_full = false;
}

static void wipe_one(struct node *n)
{
	if (!all_ready() || !all_serve() || n->files.fail_at != NEVER_US)
		return;
	node_end(n, one_in(2) ? END_KILL : END_BOTH);
	node_wipe(n, one_in(2));
	start_in(n, soon());
}

static void move_one(struct node *n)
{
	unsigned others = 0;

	if (n->state != NODE_UP || n->is_leaving)
		return;
	world.now = n;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		others += &world.nodes[i] != n && !world.nodes[i].is_leaving &&
			  health(&world.nodes[i]) == RING_READY;
	switch (below(4)) {
	case 0:
		if (others < 2 || health(n) != RING_READY)
			break;
		say("%s is to leave", n->name);
		n->is_leaving = true;
		ring_leave(n->ring, node_ms(n), false);
		start_in(n, 3 * SECOND + soon());
		break;
	case 1:
	case 2:
		n->is_drained = !n->is_drained;
		say("%s %s", n->name, n->is_drained ? "drains" : "resumes");
		ring_drain(n->ring, node_ms(n), n->is_drained);
		break;
	default:
		n->weight = ONE_OF(0, 50, 100, 300);
		say("%s: weight %u", n->name, n->weight);
		ring_set_weight(n->ring, node_ms(n), n->weight);
	}
	node_turn(n);
	check_node(n);
	world.now = NULL;
}

static void all_at_once(void)
{
	bool power = one_in(2);

	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *n = &world.nodes[i];

		if (power)
			power_one(n);
		else
			kill_one(n);
	}
}

/* ---- When ---- */

static void fault(void)
{
	unsigned family = below(FAMILY_N);

	while (!is_drawn(family))
		family = below(FAMILY_N);
	switch ((enum family)family) {
	case FAMILY_KILL:
		kill_one(any());
		break;
	case FAMILY_POWER:
		power_one(any());
		break;
	case FAMILY_STOP:
		stop_one(any());
		break;
	case FAMILY_CUT:
		cut_some();
		break;
	case FAMILY_LINK:
		spoil_links();
		break;
	case FAMILY_DISK:
		spoil_disk(any());
		break;
	case FAMILY_WIPE:
		wipe_one(any());
		break;
	case FAMILY_MOVE:
		move_one(any());
		break;
	case FAMILY_ALL:
		if (one_in(8))
			all_at_once();
		break;
	case FAMILY_N:
		break;
	}
}

/* Who has left comes back as somebody new, if it does. */
static void begin_again(struct node *n)
{
	if (n->state != NODE_OFF)
		return;
	if (n->has_left)
		node_wipe(n, true);
	n->files.is_full = false; /* else it says so, and does not start */
	n->host_known = one_in(2);
	n->has_no_herald = one_in(4);
	node_start(n);
	net_set();
}

static void end_fault(const struct event *e)
{
	struct node *n = &world.nodes[e->node];

	switch ((enum act)e->a) {
	case ACT_CUT:
		memset(world.cut, 0, sizeof(world.cut));
		net_set();
		break;
	case ACT_LINK:
		world.delay_us = 500;
		world.jitter_us = 200;
		world.loss = 0;
		net_set();
		break;
	case ACT_DISK:
		if (e->b == 0) {
			mend_disk(n);
		} else if (n->state == NODE_UP && n->serial == e->serial) {
			node_end(n, END_KILL);
			start_in(n, soon());
		}
		break;
	}
}

void faults_run(struct event *e)
{
	struct node *n = &world.nodes[e->node];

	switch (e->kind) {
	case EVENT_FAULT:
		if (world.is_over)
			break;
		fault();
		post((struct event){.kind = EVENT_FAULT},
		     1 + below(2 * world.plan.fault_us));
		break;
	case EVENT_START:
		begin_again(n);
		break;
	case EVENT_CONTINUE:
		go_on(n);
		break;
	case EVENT_END:
		end_fault(e);
		break;
	default:
		break;
	}
}

void faults_begin(void)
{
	net_set();
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *n = &world.nodes[i];
		struct sim_node *s = sim_node(&world.sim, i);

		s->rate_ppm = (int32_t)below(401) - 200;
		s->clock_base = (uint64_t)below(1000000) * SECOND;
		mend_disk(n);
		start_in(n, i == 1 ? 0 : below(2 * SECOND));
	}
	post((struct event){.kind = EVENT_CALL}, SECOND);
	post((struct event){.kind = EVENT_FAULT}, 4 * SECOND);
}

/* Peace: all runs, is connected, and has room. */
void faults_heal(void)
{
	say("peace");
	world.is_over = true;
	memset(world.cut, 0, sizeof(world.cut));
	world.delay_us = 500;
	world.jitter_us = 200;
	world.loss = 0;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *n = &world.nodes[i];

		mend_disk(n);
		n->files.eio_at = NEVER_US;
		go_on(n);
		if (n->state == NODE_UP && n->ring->group_status.failed)
			node_end(n, END_KILL);
		n->weight = 100; /* somebody is to be the heir */
		if (n->state == NODE_UP) {
			n->is_drained = false;
			world.now = n;
			ring_drain(n->ring, node_ms(n), false);
			ring_set_weight(n->ring, node_ms(n), n->weight);
			node_turn(n);
			world.now = NULL;
		}
		if (n->state == NODE_OFF)
			begin_again(n);
	}
	net_set();
}
