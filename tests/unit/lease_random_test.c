/* SPDX-License-Identifier: MIT */
/* The leases against chance: nodes with clocks of their own rate, a raft of
 * which only what matters is played (terms, votes, a log that majorities
 * commit, deposed leaders who do not know it), messages that are lost, late and
 * doubled, one-way cuts, stops, kills, heralds, restarts, suspicions that are
 * wrong. After every event: no node is inside its lease, by its own clock,
 * unless the log has it up in that epoch. And when all is calm again, all who
 * live hold a lease, and the dead are down.
 *
 * lease_random_test [SEED [RUNS [verbose]]]: the seed of a failed run replays
 * it with RUNS = 1. */
#include "ring/lease.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/check.h"
#include "tests/unit/lease_sim.h"

/* ---- Raft ---- */

static void set_raft(unsigned i)
{
	struct node *n = &nodes[i];

	n->is_mute = now < n->mute_us;
	struct lease_raft r = {.term = n->term,
			       .durable_term = n->durable,
			       .server = 100 + i,
			       .is_leader = n->is_leader,
			       .is_ready = n->is_ready,
			       .is_mute = n->is_mute,
			       .voters = voters,
			       .n_voters = n_voters};

	if (n->leader >= 0)
		r.leader.byte[0] = (uint8_t)(n->leader + 1);
	lease_set_raft(n->l, clock_ms(n), &r, &n->out);
	collect(i);
}

static void follow(unsigned i, uint64_t term, int leader)
{
	struct node *n = &nodes[i];

	demand(term >= n->term, "term");
	n->heard_us = now;
	if (n->term == term && n->durable == term && n->leader == leader &&
	    !n->is_leader)
		return;
	n->term = n->durable = term;
	n->leader = leader;
	n->is_leader = n->is_ready = false;
	set_raft(i);
}

/* A majority whose newest term is not above term, and that hear i. They note
 * the term on their disks. */
static bool has_majority(unsigned i, uint64_t term)
{
	unsigned n = 0;

	for (unsigned v = 0; v < n_voters; v++)
		n += is_running(v) && reach(i, v) && nodes[v].term <= term;
	return 2 * n > n_voters;
}

static void propose(unsigned leader, struct entry e)
{
	if (n_pending == 256)
		return; /* never committed */
	e.term = nodes[leader].term;
	e.leader = leader;
	e.order = order++;
	pending[n_pending++] = e;
	push((struct event){.type = COMMIT,
			    .node = leader,
			    .from = (unsigned)e.term},
	     now + (chance(50) ? 0 : delay_us()));
}

/* What the entry does to the machine. */
static void machine(struct entry *e)
{
	struct view *v = &truth[e->node];
	bool same = v->life.boot == e->life.boot &&
		    memcmp(&v->life.life, &e->life.life,
			   sizeof(struct ring_id)) == 0;

	if (e->type == BARRIER)
		return;
	if (e->type == DOWN) {
		e->has_effect = v->is_up && v->life.boot == e->life.boot &&
				v->life.epoch == e->life.epoch;
		if (e->has_effect)
			v->is_up = false;
		if (e->has_effect)
			say("log: %zu: %u is down", n_log, e->node);
		return;
	}
	e->has_effect = same ? !v->is_up : e->life.boot > v->life.boot;
	if (!e->has_effect)
		return;
	stats.ups++;
	v->is_up = true;
	e->life.epoch = n_log;
	v->life = e->life;
	say("log: %zu: %u is up, boot %llu", n_log, e->node,
	    (unsigned long long)e->life.boot);
}

static void apply_one(unsigned i)
{
	struct node *n = &nodes[i];
	const struct entry *e = &log_[++n->applied];

	if (e->type == BARRIER) {
		if (n->is_leader && e->term == n->term) {
			n->is_ready = true;
			set_raft(i);
		}
		return;
	}
	if (!e->has_effect) {
		if (n->is_leader && e->term == n->term)
			lease_entry_void(n->l, clock_ms(n), &e->life.id);
		return;
	}
	n->views[e->node].is_up = e->type == UP;
	if (e->type == UP) {
		n->views[e->node].life = e->life;
		lease_on_up(n->l, clock_ms(n), &e->life, &n->out);
	} else {
		lease_on_down(n->l, clock_ms(n), &e->life.id, &n->out);
		if (e->node == i)
			n->hides = false;
	}
	collect(i);
}

static void apply(unsigned i)
{
	if (now >= nodes[i].lag_us)
		while (nodes[i].applied < nodes[i].known)
			apply_one(i);
}

/* Commit all of this leader's term, if it still can. */
static void commit(unsigned i, uint64_t term)
{
	struct node *l = &nodes[i];
	size_t n = 0;
	bool any = false;

	for (size_t j = 0; j < n_pending; j++)
		any |= pending[j].leader == i && pending[j].term == term;
	if (!any || l->l == NULL || !l->is_leader || l->term != term)
		return;
	if (!has_majority(i, term)) {
		push((struct event){.type = COMMIT,
				    .node = i,
				    .from = (unsigned)term},
		     now + lease_us / 40 + 1);
		return;
	}
	for (size_t j = 0; j < n_pending; j++) {
		if (pending[j].leader != i || pending[j].term != term) {
			pending[n++] = pending[j];
			continue;
		}
		demand(n_log + 1 < LOG_MAX, "log");
		log_[++n_log] = pending[j];
		machine(&log_[n_log]);
	}
	n_pending = n;
	l->known = n_log;
	for (unsigned v = 0; v < n_voters; v++)
		if (v != i && is_running(v) && reach(i, v) &&
		    nodes[v].term <= term) {
			follow(v, term, (int)i);
			nodes[v].known = n_log;
			if (chance(50))
				apply(v);
		}
	apply(i);
}

/* Entries that no majority is known to have: they may be in the new leader's
 * log, unless something of a later term was committed. */
static void inherit(unsigned i)
{
	size_t n = 0;

	for (size_t j = 0; j < n_pending; j++) {
		struct entry e = pending[j];

		if (e.term < log_[n_log].term || chance(50))
			continue;
		e.term = nodes[i].term;
		e.leader = i;
		pending[n++] = e;
	}
	n_pending = n;
}

static void elect(unsigned i)
{
	uint64_t term = nodes[i].term;
	unsigned n = 0;

	for (unsigned v = 0; v < n_voters; v++)
		if (is_running(v) && reach(i, v)) {
			if (nodes[v].known > nodes[i].known)
				return;
			if (nodes[v].term > term)
				term = nodes[v].term;
			n++;
		}
	if (2 * n <= n_voters)
		return;
	term++;
	stats.elections++;
	for (unsigned j = 0; j < n_nodes; j++)
		stats.rivals += nodes[j].is_leader && j != i;
	say("%u leads in term %llu", i, (unsigned long long)term);
	for (unsigned v = 0; v < n_voters; v++)
		if (v != i && is_running(v) && reach(i, v))
			follow(v, term, (int)i);
	nodes[i].term = nodes[i].durable = term;
	nodes[i].is_leader = true;
	nodes[i].is_ready = false;
	nodes[i].leader = (int)i;
	nodes[i].contact_us = now;
	inherit(i);
	set_raft(i);
	propose(i, (struct entry){.type = BARRIER});
}

static void step_down(unsigned i, uint64_t term)
{
	nodes[i].is_leader = false;
	follow(i, term, -1);
}

static void heartbeat(unsigned i)
{
	struct node *l = &nodes[i];

	for (unsigned v = 0; v < n_nodes; v++) {
		struct node *f = &nodes[v];

		if (v == i || !is_running(v) || !reach(i, v))
			continue;
		if (f->term > l->term) {
			step_down(i, f->term);
			return;
		}
		if (chance(10) && f->term < l->term) {
			/* It has heard, but its disk is slow. */
			f->term = l->term;
			f->is_leader = f->is_ready = false;
			f->leader = -1;
			set_raft(v);
			continue;
		}
		follow(v, l->term, (int)i);
		if (l->is_ready && f->known < l->known)
			f->known = l->known;
		apply(v);
	}
	if (has_majority(i, l->term))
		l->contact_us = now;
	else if (!is_sticky && now - l->contact_us > lease_us / 5)
		step_down(i, l->term);
	apply(i);
}

/* ---- SWIM, joining ---- */

static void suspect(unsigned i, unsigned j)
{
	struct node *n = &nodes[i];
	bool is_wrong;

	if (is_running(j) && reach(i, j))
		n->reached_us[j] = now;
	if (!is_calm && below(10000) < wrong_swim)
		n->wrong_us[j] = now + below(3 * lease_us);
	is_wrong = !is_calm && now < n->wrong_us[j];
	lease_on_swim(n->l, clock_ms(n), &nodes[j].life.id,
		      is_wrong || (!is_blind &&
				   now - n->reached_us[j] > lease_us / 5),
		      &n->out);
	collect(i);
}

static void join(unsigned i)
{
	struct node *n = &nodes[i], *l;
	struct view *v = &n->views[i];
	int rc;

	if (n->leader < 0 || !is_running((unsigned)n->leader) ||
	    !reach(i, (unsigned)n->leader))
		return;
	l = &nodes[n->leader];
	if (v->is_up && v->life.boot == n->life.boot) {
		if (is_calm || !chance(1) || !chance(10) ||
		    lease_may_leave(l->l, clock_ms(l), &n->life.id,
				    n->life.boot, v->life.epoch) != 0)
			return;
		say("%u leaves", i);
		n->hides = true;
		propose((unsigned)n->leader, (struct entry){.type = DOWN,
							    .node = i,
							    .life = v->life});
		return;
	}
	rc = lease_may_come_up(l->l, clock_ms(l), &n->life);
	demand(rc != -ESTALE, "there are no copies here");
	if (rc == 0 && chance(5))
		lease_entry_void(l->l, clock_ms(l), &n->life.id);
	else if (rc == 0)
		propose((unsigned)n->leader,
			(struct entry){.type = UP, .node = i, .life = n->life});
}

static void step(void)
{
	for (unsigned i = 0; i < n_nodes; i++) {
		if (!is_running(i))
			continue;
		if (nodes[i].is_mute && now >= nodes[i].mute_us)
			set_raft(i);
		if (nodes[i].is_leader)
			heartbeat(i);
		else if (i < n_voters &&
			 now - nodes[i].heard_us >
				 lease_us / 5 + below(lease_us / 5))
			elect(i);
		for (unsigned j = 0; j < n_nodes; j++)
			if (j != i)
				suspect(i, j);
		join(i);
	}
	push((struct event){.type = STEP}, now + 1 + below(lease_us / 30));
}

/* ---- Trouble ---- */

static void start(unsigned i)
{
	struct node *n = &nodes[i];
	struct lease_config config;

	n->life.boot++;
	n->life.epoch = 0;
	n->life.id.byte[0] = (uint8_t)(i + 1);
	n->life.life.byte[0] = (uint8_t)n->life.boot;
	n->life.life.byte[1] = (uint8_t)(n->life.boot >> 8);
	if (chance(20) || n->life.boot == 1)
		n->life.host[0] = (uint8_t)(1 + below(255));
	config = (struct lease_config){n->life.id, n->life.life, n->life.boot};
	n->l = lease_create(&config);
	n->hides = n->stopped = n->is_leader = n->is_ready = false;
	n->leader = -1;
	n->heard_us = now;
	lease_set_duration(n->l, (uint32_t)(lease_us / 1000));
	for (unsigned j = 0; j < n_nodes; j++)
		if (n->views[j].is_up)
			lease_on_up(n->l, clock_ms(n), &n->views[j].life,
				    &n->out);
	set_raft(i);
	say("%u starts, boot %llu", i, (unsigned long long)n->life.boot);
}

static void herald(unsigned i)
{
	struct event e = {.type = HERALD, .from = i};

	if (chance(30) || nodes[i].obituary_len == 0)
		return;
	stats.proofs++;
	e.len = nodes[i].obituary_len;
	memcpy(e.bytes, nodes[i].obituary, e.len);
	for (unsigned n = 0; n < 3; n++) {
		e.node = (unsigned)below(n_nodes);
		if (e.node != i && !cut[i][e.node])
			push(e, now + delay_us());
		if (chance(20)) /* again, much later */
			push(e, now + below(20 * lease_us));
	}
}

static void kill_node(unsigned i)
{
	say("%u is killed", i);
	stats.kills++;
	if (nodes[i].stopped)
		unpark(i);
	lease_destroy(nodes[i].l);
	nodes[i].l = NULL;
	nodes[i].is_leader = nodes[i].is_ready = nodes[i].stopped = false;
	lease_out_clear(&nodes[i].out);
	herald(i);
	nodes[i].obituary_len = 0;
}

static void stop_node(unsigned i)
{
	say("%u stops", i);
	stats.stops++;
	nodes[i].stopped = true;
	push((struct event){.type = CONT, .node = i},
	     now + below(chance(50) ? lease_us : 8 * lease_us));
}

static void partition(void)
{
	uint64_t side = below(1u << n_nodes);
	bool one_way = chance(25);

	for (unsigned a = 0; a < n_nodes; a++)
		for (unsigned b = 0; b < n_nodes; b++)
			cut[a][b] = a != b &&
				    (side >> a & 1) != (side >> b & 1) &&
				    (!one_way || (side >> a & 1));
	say("cut: %llx%s", (unsigned long long)side, one_way ? " one way" : "");
}

static void chaos(void)
{
	unsigned i = (unsigned)below(n_nodes), j = (unsigned)below(n_nodes);

	switch (below(12)) {
	case 0:
	case 1:
		if (is_running(i))
			stop_node(i);
		break;
	case 2:
	case 3:
		if (nodes[i].l != NULL)
			kill_node(i);
		break;
	case 4:
	case 5:
		if (nodes[i].l == NULL)
			start(i);
		break;
	case 6:
		partition();
		break;
	case 7:
	case 8:
		memset(cut, 0, sizeof(cut));
		break;
	case 9:
		cut[i][j] = i != j;
		break;
	case 10:
		nodes[i].lag_us = now + below(4 * lease_us);
		if (is_running(i) && chance(50)) {
			nodes[i].mute_us = now + below(2 * lease_us);
			set_raft(i);
		}
		break;
	default:
		if (i < n_voters && is_running(i) && !nodes[i].is_leader)
			elect(i);
	}
	push((struct event){.type = CHAOS}, now + below(lease_us));
}

/* ---- The claim ---- */

static void invariant(void)
{
	for (unsigned i = 0; i < n_nodes; i++) {
		struct node *n = &nodes[i];

		stats.checks++;
		if (n->l == NULL || n->hides ||
		    !lease_is_held(n->l, clock_ms(n)))
			continue;
		stats.held++;
		demand(truth[i].is_up && truth[i].life.boot == n->life.boot &&
			       truth[i].life.epoch == n->views[i].life.epoch,
		       "%u is inside its lease, but not up", i);
	}
}

static void on_event(const struct event *e)
{
	struct node *n = &nodes[e->node];
	struct ring_id from = {.byte = {(uint8_t)(e->from + 1)}};
	struct lease_msg m = {e->type == HERALD ? NULL : &from, e->bytes,
			      e->len};

	switch (e->type) {
	case MSG:
	case HERALD:
		if (n->l == NULL)
			break;
		demand(lease_recv(n->l, clock_ms(n), &m, &n->out) == 0, "recv");
		collect(e->node);
		break;
	case TICK:
		if (n->l == NULL || now < n->tick_us)
			break;
		lease_tick(n->l, clock_ms(n), &n->out);
		collect(e->node);
		break;
	case COMMIT:
		commit(e->node, e->from);
		break;
	case STEP:
		step();
		break;
	case CHAOS:
		if (!is_calm)
			chaos();
		break;
	case CONT:
		if (n->stopped)
			say("%u goes on", e->node);
		n->stopped = false;
		unpark(e->node);
	}
}

static bool is_for_a_node(const struct event *e)
{
	return e->type != STEP && e->type != CHAOS && e->type != CONT;
}

static void play(uint64_t us)
{
	uint64_t end = now + us;

	while (n_events > 0 && events[0].at_us <= end) {
		struct event e = pop();

		demand(e.at_us >= now, "time");
		now = e.at_us;
		/* A lease that ended since, by time, did so on one side. */
		if (is_for_a_node(&e) && nodes[e.node].stopped)
			park(&e);
		else
			on_event(&e);
		invariant();
	}
	now = end;
}

static void calm_down(void)
{
	is_calm = true;
	memset(cut, 0, sizeof(cut));
	for (unsigned i = 0; i < n_nodes; i++) {
		nodes[i].lag_us = nodes[i].mute_us = 0;
		if (nodes[i].stopped) {
			nodes[i].stopped = false;
			unpark(i);
		}
		if (nodes[i].l == NULL && chance(60))
			start(i);
	}
	for (unsigned v = 0; v < n_voters; v++)
		if (nodes[v].l == NULL)
			start(v);
	play(30 * lease_us);
	for (unsigned i = 0; i < n_nodes; i++) {
		struct node *n = &nodes[i];

		if (n->l == NULL)
			demand(!truth[i].is_up, "%u is dead, but up", i);
		else if (!n->hides)
			demand(lease_is_held(n->l, clock_ms(n)),
			       "%u lives, but holds nothing", i);
	}
}

static void run_end(void)
{
	for (unsigned i = 0; i < N_MAX; i++) {
		lease_destroy(nodes[i].l);
		lease_out_finish(&nodes[i].out);
	}
	n_events = n_parked = n_pending = n_log = 0;
	memset(nodes, 0, sizeof(nodes));
	memset(truth, 0, sizeof(truth));
	memset(cut, 0, sizeof(cut));
	memset(log_, 0, sizeof(log_));
}

static void run(uint64_t seed)
{
	static const uint64_t leases[] = {100000, 1500000, 10000000, 60000000};
	static const unsigned n_of[] = {1, 1, 2, 3, 3, 5, 5};

	the_seed = rng = seed;
	now = 1000000;
	is_calm = false;
	is_sticky = chance(50);
	is_blind = chance(25); /* SWIM, for the dead */
	lease_us = leases[below(4)];
	wrong_swim = chance(50) ? below(100) : 0;
	n_nodes = 1 + (unsigned)below(N_MAX);
	n_voters = chance(50) ? n_of[n_nodes] : 1 + (unsigned)below(n_nodes);
	for (unsigned i = 0; i < n_nodes; i++) {
		static const int64_t rates[] = {-200, 200, 0};
		struct node *n = &nodes[i];

		n->offset_us = (int64_t)below(1000000000);
		n->ppm = chance(80) ? rates[below(2)] : rates[2];
		voters[i] = (struct lease_voter){.id.byte = {(uint8_t)(i + 1)},
						 .server = 100 + i};
		start(i);
	}
	push((struct event){.type = STEP}, now);
	push((struct event){.type = CHAOS}, now + 10 * lease_us);
	play(100 * lease_us);
	calm_down();
	run_end();
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);
	unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 200;

	verbose = argc > 3;
	for (unsigned i = 0; i < n; i++)
		run(seed + i);
	free(events);
	free(parked);
	printf("# %lu elections (%lu with a rival), %lu kills, %lu heralds, "
	       "%lu stops\n",
	       stats.elections, stats.rivals, stats.kills, stats.proofs,
	       stats.stops);
	printf("# %lu ups; downs: %lu by proof, %lu dead, %lu silent; "
	       "%lu void; held in %lu of %lu looks\n",
	       stats.ups, stats.downs[LEASE_PROOF], stats.downs[LEASE_DEAD],
	       stats.downs[LEASE_SILENT], stats.voids, stats.held,
	       stats.checks);
	ok("%u runs: never inside a lease and not up; all is well in calm", n);
	return 0;
}
