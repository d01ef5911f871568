/* SPDX-License-Identifier: MIT */
/* Figures, by statistics over many runs in virtual time. They are printed for
 * people and compared loosely by tests; each names what it should be like.
 *
 *	measure detect N ROUNDS      a kill: first and last to know
 *	measure spread N ROUNDS LOSS news by pushes: rounds, and who was missed
 *	measure storm N              all change at once (D3)
 *	measure stop|deaf N SECONDS  some members are slow: false deaths of the
 *	                             others, with and without Lifeguard's parts
 *	measure bytes                traffic at rest, for some n
 *	measure big N                memory and time of one large cluster */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "gossip/mem.h"
#include "gossip/suspicion.h"
#include "tests/sim/sim.h"

#define MS 1000ull

/* A cluster at rest that knows itself, its periods not in step. */
static void begin(struct sim *sim, uint64_t seed,
		  const struct swim_config *config, uint32_t n)
{
	sim_init(sim, seed, config);
	sim->link.jitter_us = 500;
	sim_add(sim, n);
	for (uint32_t i = 1; i <= n; i++) {
		sim_start(sim, i);
		sim_run(sim, random_below(&sim->random,
					  2 * config->period_us / n + 1));
	}
	sim_acquaint(sim);
	sim_run(sim, 2 * config->period_us);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t quantile(uint64_t *v, size_t n, unsigned percent)
{
	qsort(v, n, sizeof(*v), by_value);
	size_t i = (n * percent + 99) / 100;
	return v[i > 0 ? i - 1 : 0];
}

/* Who has been told that the victim is dead, and when. */
struct watch {
	struct sim *sim;
	uint32_t victim;
	uint32_t n_told;
	uint64_t first_us, last_us;
	uint32_t n_slow; /* nodes 1 to n_slow are slow, nobody is dead */
	uint64_t n_false, n_false_healthy;
};

static void on_event(void *data, uint32_t node, const struct swim_event *e)
{
	struct watch *w = data;
	uint32_t whom = sim_number(w->sim, &e->id);

	if (e->kind != SWIM_MEMBER || e->is != WIRE_DEAD)
		return;
	if (w->n_slow > 0) {
		w->n_false += whom > w->n_slow;
		w->n_false_healthy += whom > w->n_slow && node > w->n_slow;
		return;
	}
	if (whom != w->victim)
		return;
	if (w->n_told++ == 0)
		w->first_us = w->sim->now_us;
	w->last_us = w->sim->now_us;
}

static void detect(uint64_t seed, uint32_t n, uint32_t n_rounds)
{
	uint64_t *first = xcalloc(n_rounds, sizeof(*first));
	uint64_t *last = xcalloc(n_rounds, sizeof(*last));

	for (uint32_t r = 0; r < n_rounds; r++) {
		struct sim sim;
		struct watch w = {.sim = &sim};

		begin(&sim, seed + r, &swim_lan, n);
		sim_run(&sim, random_below(&sim.random, 200000));
		w.victim = 1 + random_below(&sim.random, n);
		sim.on_event = on_event;
		sim.on_event_data = &w;
		uint64_t killed = sim.now_us;
		sim_kill(&sim, w.victim);
		while (w.n_told < n - 1 && sim_step(&sim, killed + 100000 * MS))
			;
		first[r] = w.first_us - killed;
		last[r] = w.last_us - killed;
		sim_finish(&sim);
	}
	printf("detect n %u: first median %llu ms, p99 %llu; all median %llu, "
	       "p99 %llu (suspicion %llu to %llu)\n",
	       n, (unsigned long long)(quantile(first, n_rounds, 50) / MS),
	       (unsigned long long)(quantile(first, n_rounds, 99) / MS),
	       (unsigned long long)(quantile(last, n_rounds, 50) / MS),
	       (unsigned long long)(quantile(last, n_rounds, 99) / MS),
	       (unsigned long long)(suspicion_min_us(200000, 3, n) / MS),
	       (unsigned long long)(6 * suspicion_min_us(200000, 3, n) / MS));
	free(first);
	free(last);
}

static uint32_t n_with_version(struct sim *sim, uint32_t of)
{
	struct gossip_id id = sim_node(sim, of)->id;
	struct swim_view own, view;
	uint32_t n = 0;

	swim_find(sim_node(sim, of)->swim, &id, &own);
	for (uint32_t i = 1; i <= sim->n_nodes; i++)
		n += swim_find(sim_node(sim, i)->swim, &id, &view) &&
		     view.incarnation == own.incarnation;
	return n;
}

/* News by pushes alone: no probes, no repair. As a push goes out at once when
 * there was silence, rounds here are fewer than memberlist's; how many are
 * missed depends on the limit only. */
static void spread(uint64_t seed, uint32_t n, uint32_t n_rounds,
		   unsigned loss_percent)
{
	struct swim_config config = swim_lan;
	uint64_t *rounds = xcalloc(n_rounds, sizeof(*rounds));
	uint64_t tick_us = 200 * MS;
	uint32_t n_all = 0;

	config.gossip_us = (uint32_t)tick_us;
	config.period_us = config.repair_us = UINT32_MAX;
	for (uint32_t r = 0; r < n_rounds; r++) {
		struct sim sim;

		sim_init(&sim, seed + r, &config);
		sim.link.jitter_us = 500;
		sim_add(&sim, n);
		for (uint32_t i = 1; i <= n; i++)
			sim_start(&sim, i);
		sim_run(&sim, MS);
		sim_acquaint(&sim);
		sim_run(&sim, 20 * tick_us);
		sim.link.loss = loss_percent * 10000;
		uint64_t began = sim.now_us;
		sim_meta(&sim, 1, "x");
		for (unsigned k = 0; k < 20; k++) {
			sim_run(&sim, tick_us);
			if (n_with_version(&sim, 1) < n)
				continue;
			rounds[n_all++] = (sim.now_us - began) / tick_us;
			break;
		}
		sim_finish(&sim);
	}
	printf("spread n %u, loss %u %%: told all %.4f of %u; rounds median "
	       "%llu, p99 %llu; limit %u\n",
	       n, loss_percent, (double)n_all / n_rounds, n_rounds,
	       n_all ? (unsigned long long)quantile(rounds, n_all, 50) : 0,
	       n_all ? (unsigned long long)quantile(rounds, n_all, 99) : 0,
	       retransmit_limit(n));
	free(rounds);
}

/* D3: all change at once; tarantool took 110 periods for 100, then 20. */
static void storm(uint64_t seed, uint32_t n)
{
	struct sim sim;

	begin(&sim, seed, &swim_lan, n);
	uint64_t began = sim.now_us;
	for (uint32_t i = 1; i <= n; i++)
		sim_meta(&sim, i, "changed");
	while (!sim_agree(&sim) && sim_step(&sim, began + 60000 * MS))
		;
	printf("storm n %u: all know all %u changes after %.1f periods\n", n, n,
	       (double)(sim.now_us - began) / sim.config.period_us);
	sim_finish(&sim);
}

/* Lifeguard's experiment: k members are slow, in spells, each by itself: their
 * process stops for 128 ms to 4 s and runs for 1 to 500 ms ("stop"), or it loses
 * most of what it is sent ("deaf"). A death is false if its subject is well; the
 * worst is one that a member believes which is well too. */
struct spell {
	uint64_t next_us;
	bool is_on;
};

static void turn(struct sim *sim, uint32_t node, struct spell *spell)
{
	spell->is_on = !spell->is_on;
	if (spell->is_on)
		sim_stop(sim, node);
	else
		sim_continue(sim, node);
	spell->next_us = sim->now_us +
			 (spell->is_on ? 128 + random_below(&sim->random, 3872)
				       : 1 + random_below(&sim->random, 500)) *
				 MS;
}

static void stop_in_spells(struct sim *sim, uint32_t k, uint64_t us)
{
	struct spell *spells = xcalloc(k + 1, sizeof(*spells));
	uint64_t end = sim->now_us + us;

	for (uint32_t i = 1; i <= k; i++)
		spells[i].next_us = sim->now_us;
	while (sim->now_us < end) {
		uint32_t first = 1;

		for (uint32_t i = 2; i <= k; i++)
			if (spells[i].next_us < spells[first].next_us)
				first = i;
		if (spells[first].next_us > sim->now_us)
			sim_run(sim, spells[first].next_us - sim->now_us);
		turn(sim, first, &spells[first]);
	}
	free(spells);
}

static void make_deaf(struct sim *sim, uint32_t k, uint64_t us)
{
	struct sim_rule rule = {.from = {.n = 1}, .to = {.n = 1}};

	rule.from.ranges[0].first = 1;
	rule.from.ranges[0].last = sim->n_nodes;
	rule.to.ranges[0].first = 1;
	rule.to.ranges[0].last = k;
	rule.field = SIM_LOSS;
	rule.value = 700000;
	sim_rule(sim, &rule);
	sim_run(sim, us);
}

struct trial {
	uint32_t n;
	uint64_t us;
	bool is_deaf;
};

static void blocked_one(uint64_t seed, const struct trial *t,
			const struct swim_config *config, const char *name)
{
	static const uint32_t shares[] = {1, 4, 16};
	uint64_t n_false = 0, n_healthy = 0;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t k = shares[i] < t->n / 2 ? shares[i] : t->n / 2;
		struct sim sim;
		struct watch w = {.sim = &sim, .n_slow = k};

		begin(&sim, seed, config, t->n);
		sim.on_event = on_event;
		sim.on_event_data = &w;
		if (t->is_deaf)
			make_deaf(&sim, k, t->us);
		else
			stop_in_spells(&sim, k, t->us);
		n_false += w.n_false;
		n_healthy += w.n_false_healthy;
		sim_finish(&sim);
	}
	printf("%s n %u, %s: false deaths %llu, at healthy %llu\n",
	       t->is_deaf ? "deaf" : "stop", t->n, name,
	       (unsigned long long)n_false, (unsigned long long)n_healthy);
}

static void blocked(uint64_t seed, const struct trial *t)
{
	struct swim_config c = swim_lan;

	blocked_one(seed, t, &swim_lan, "Lifeguard");
	c.health_max = 0;
	c.has_nack = false;
	blocked_one(seed, t, &c, "without health score");
	c = swim_lan;
	c.n_confirm = 0;
	c.suspicion_max = 1;
	blocked_one(seed, t, &c, "without confirmations");
	c = swim_lan;
	c.has_buddy = false;
	blocked_one(seed, t, &c, "without buddy");
	c = swim_lan;
	c.health_max = 0;
	c.has_nack = c.has_buddy = false;
	c.n_confirm = 0;
	c.suspicion_max = 1;
	blocked_one(seed, t, &c, "SWIM alone");
}

static void bytes(uint64_t seed)
{
	static const uint32_t sizes[] = {3, 10, 100, 1000};

	for (unsigned k = 0; k < 4; k++) {
		struct sim sim;
		uint64_t n_bytes = 0, n_packets = 0;

		begin(&sim, seed, &swim_lan, sizes[k]);
		sim_run(&sim, 10000 * MS);
		for (uint32_t i = 1; i <= sizes[k]; i++) {
			struct sim_node *n = sim_node(&sim, i);
			n->n_bytes = 0;
			memset(n->n_sent, 0, sizeof(n->n_sent));
		}
		sim_run(&sim, 20000 * MS);
		for (uint32_t i = 1; i <= sizes[k]; i++) {
			struct sim_node *n = sim_node(&sim, i);
			n_bytes += n->n_bytes;
			for (unsigned kind = 0; kind < SIM_KINDS; kind++)
				n_packets += n->n_sent[kind];
		}
		printf("bytes n %u: %.0f B/s, %.1f packets/s per member at "
		       "rest\n",
		       sizes[k], (double)n_bytes / sizes[k] / 20,
		       (double)n_packets / sizes[k] / 20);
		sim_finish(&sim);
	}
}

static double cpu_s(void)
{
	return (double)clock() / CLOCKS_PER_SEC;
}

static void big(uint64_t seed, uint32_t n)
{
	struct sim sim;
	struct watch w = {.sim = &sim};
	struct rusage usage;
	double began = cpu_s();

	begin(&sim, seed, &swim_lan, n);
	double ready = cpu_s();
	uint64_t from = sim.now_us, events = sim.n_events;
	sim_run(&sim, 5000 * MS);
	double rested = cpu_s();
	printf("big n %u: made in %.1f s; 5 s at rest take %.1f s, %.2f us "
	       "per event\n",
	       n, ready - began, rested - ready,
	       (rested - ready) * 1e6 / (double)(sim.n_events - events));
	w.victim = n / 2 + 1;
	sim.on_event = on_event;
	sim.on_event_data = &w;
	from = sim.now_us;
	sim_kill(&sim, w.victim);
	while (w.n_told < n - 1 && sim_step(&sim, from + 120000 * MS))
		;
	getrusage(RUSAGE_SELF, &usage);
	printf("big n %u: a death known first after %llu ms, to all after "
	       "%llu; "
	       "%.1f s more; %ld MiB, %.0f bytes per record\n",
	       n, (unsigned long long)((w.first_us - from) / MS),
	       (unsigned long long)((w.last_us - from) / MS), cpu_s() - rested,
	       usage.ru_maxrss / 1024, (double)usage.ru_maxrss * 1024 / n / n);
	sim_finish(&sim);
}

static uint32_t arg(int argc, char **argv, int i, uint32_t otherwise)
{
	return i < argc ? (uint32_t)strtoul(argv[i], NULL, 0) : otherwise;
}

bool measure(uint64_t seed, int argc, char **argv)
{
	const char *what = argv[0];
	uint32_t n = arg(argc, argv, 1, 10);

	if (strcmp(what, "detect") == 0)
		detect(seed, n, arg(argc, argv, 2, 100));
	else if (strcmp(what, "spread") == 0)
		spread(seed, n, arg(argc, argv, 2, 1000),
		       arg(argc, argv, 3, 0));
	else if (strcmp(what, "storm") == 0)
		storm(seed, n);
	else if (strcmp(what, "stop") == 0 || strcmp(what, "deaf") == 0)
		blocked(seed,
			&(struct trial){n, arg(argc, argv, 2, 60) * 1000 * MS,
					what[0] == 'd'});
	else if (strcmp(what, "bytes") == 0)
		bytes(seed);
	else if (strcmp(what, "big") == 0)
		big(seed, n);
	else
		return false;
	return true;
}
