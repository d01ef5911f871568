/* SPDX-License-Identifier: MIT */
/* Figures, by statistics over many runs in virtual time: how fast, and what it
 * costs. tests/bench/swim.bash compares them with what they should be, tests do so
 * loosely.
 *
 *	measure probe N ROUNDS       a kill: periods until somebody probes
 *	measure detect N ROUNDS [serf]
 *	                             a kill: first and last to know
 *	measure spread N ROUNDS LOSS news by pushes: rounds, and who was missed
 *	measure storm N              all change at once (D3)
 *	measure bytes [N [serf]]     traffic at rest, for some n or one
 *	measure big N                memory and time of one large cluster
 *
 * serf: with the periods of its LAN profile, to be compared with it. Others are in
 * measure_faults.c. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "gossip/mem.h"
#include "gossip/suspicion.h"
#include "tests/sim/measure.h"

#define MANY 300 /* so many and more are not made anew for each round */

struct swim_config measure_config(const char *name)
{
	struct swim_config c = swim_lan;

	if (name == NULL || strcmp(name, "serf") != 0)
		return c;
	c.period_us = 1000000;
	c.timeout_us = 500000;
	c.gossip_us = 200000;
	c.reconnect_us = 30000000;
	c.repair_us = 5000000;
	/* Its shortest suspicion is 4 log10(n) periods, at least 4; ours has
	 * half a log2: 3 log2(n) / 2 would be the same at n = 1000. */
	c.suspicion_mult = 4;
	return c;
}

void measure_begin(struct sim *sim, uint64_t seed,
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

uint64_t measure_quantile(uint64_t *v, size_t n, unsigned percent)
{
	if (n == 0)
		return 0;
	qsort(v, n, sizeof(*v), by_value);
	size_t i = (n * percent + 99) / 100;
	return v[i > 0 ? i - 1 : 0];
}

/* Who has been told that the victim is dead, and when; who probed it. */
struct watch {
	struct sim *sim;
	uint32_t victim;
	uint32_t n_told;
	uint64_t first_us, last_us;
	uint64_t probed_us; /* 0: not yet */
};

static void on_event(void *data, uint32_t node, const struct swim_event *e)
{
	struct watch *w = data;

	(void)node;
	if (e->kind != SWIM_MEMBER || e->is != WIRE_DEAD ||
	    sim_number(w->sim, &e->id) != w->victim)
		return;
	if (w->n_told++ == 0)
		w->first_us = w->sim->now_us;
	w->last_us = w->sim->now_us;
}

static void on_send(void *data, uint32_t from, uint32_t to, unsigned kind)
{
	struct watch *w = data;

	(void)from;
	if (to == w->victim && kind == WIRE_PING && w->probed_us == 0)
		w->probed_us = w->sim->now_us;
}

/* SIGKILL to one that runs, at some moment; watch it. */
static void kill_one(struct sim *sim, struct watch *w)
{
	sim_run(sim, random_below(&sim->random, sim->config.period_us));
	*w = (struct watch){.sim = sim};
	do
		w->victim = 1 + random_below(&sim->random, sim->n_nodes);
	while (sim_node(sim, w->victim)->state != SIM_RUNNING);
	sim->on_event = on_event;
	sim->on_send = on_send;
	sim->hook_data = w;
	sim_kill(sim, w->victim);
}

/* SWIM 3.1: e / (e - 1) = 1.58 periods, whatever n. */
static void probe(uint64_t seed, uint32_t n, uint32_t n_rounds)
{
	uint64_t n_periods = 0, worst = 0;

	for (uint32_t r = 0; r < n_rounds; r++) {
		struct sim sim;
		struct watch w;

		measure_begin(&sim, seed + r, &swim_lan, n);
		kill_one(&sim, &w);
		uint64_t killed = sim.now_us, period = sim.config.period_us;
		while (w.probed_us == 0 &&
		       sim_step(&sim, killed + 2 * n * period))
			;
		assert(w.probed_us != 0); /* within 2 n - 1, by the order */
		uint64_t k = (w.probed_us - killed + period - 1) / period;
		n_periods += k;
		worst = k > worst ? k : worst;
		sim_finish(&sim);
	}
	printf("probe n %u: first probe after %.3f periods, at most %llu\n", n,
	       (double)n_periods / n_rounds, (unsigned long long)worst);
}

static void detect(uint64_t seed, uint32_t n, uint32_t n_rounds,
		   const struct swim_config *config)
{
	uint64_t *first = xcalloc(n_rounds, sizeof(*first));
	uint64_t *last = xcalloc(n_rounds, sizeof(*last));
	uint64_t min_us =
		suspicion_min_us(config->period_us, config->suspicion_mult, n);
	bool is_kept = n >= MANY;
	uint32_t n_left = n;
	struct sim sim;

	for (uint32_t r = 0; r < n_rounds; r++) {
		struct watch w;

		if (r == 0 || !is_kept)
			measure_begin(&sim, seed + r, config, n);
		kill_one(&sim, &w);
		uint64_t killed = sim.now_us;
		n_left = is_kept ? n_left - 1 : n - 1;
		while (w.n_told < n_left &&
		       sim_step(&sim, killed + 300000 * MS))
			;
		first[r] = w.first_us - killed;
		last[r] = w.last_us - killed;
		if (is_kept)
			sim_run(&sim, 2 * config->period_us);
		if (!is_kept || r + 1 == n_rounds)
			sim_finish(&sim);
	}
	printf("detect n %u: first median %llu ms, p99 %llu; all median %llu, "
	       "p99 %llu (suspicion %llu to %llu)\n",
	       n,
	       (unsigned long long)(measure_quantile(first, n_rounds, 50) / MS),
	       (unsigned long long)(measure_quantile(first, n_rounds, 99) / MS),
	       (unsigned long long)(measure_quantile(last, n_rounds, 50) / MS),
	       (unsigned long long)(measure_quantile(last, n_rounds, 99) / MS),
	       (unsigned long long)(min_us / MS),
	       (unsigned long long)(min_us * config->suspicion_max / MS));
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
	       n_all ? (unsigned long long)measure_quantile(rounds, n_all, 50)
		     : 0,
	       n_all ? (unsigned long long)measure_quantile(rounds, n_all, 99)
		     : 0,
	       retransmit_limit(n));
	free(rounds);
}

/* D3: all change at once; tarantool took 110 periods for 100, then 20. */
static void storm(uint64_t seed, uint32_t n)
{
	struct sim sim;

	measure_begin(&sim, seed, &swim_lan, n);
	uint64_t began = sim.now_us;
	for (uint32_t i = 1; i <= n; i++)
		sim_meta(&sim, i, "changed");
	while (!sim_agree(&sim) && sim_step(&sim, began + 60000 * MS))
		;
	printf("storm n %u: all know all %u changes after %.1f periods\n", n, n,
	       (double)(sim.now_us - began) / sim.config.period_us);
	sim_finish(&sim);
}

static void bytes(uint64_t seed, uint32_t n, const struct swim_config *config)
{
	struct sim sim;
	uint64_t n_bytes = 0, n_packets = 0;

	measure_begin(&sim, seed, config, n);
	sim_run(&sim, 10 * config->period_us);
	for (uint32_t i = 1; i <= n; i++) {
		struct sim_node *node = sim_node(&sim, i);
		node->n_bytes = 0;
		memset(node->n_sent, 0, sizeof(node->n_sent));
	}
	sim_run(&sim, 20000 * MS);
	for (uint32_t i = 1; i <= n; i++) {
		struct sim_node *node = sim_node(&sim, i);
		n_bytes += node->n_bytes;
		for (unsigned kind = 0; kind < SIM_KINDS; kind++)
			n_packets += node->n_sent[kind];
	}
	printf("bytes n %u: %.0f B/s, %.1f packets/s per member at rest\n", n,
	       (double)n_bytes / n / 20, (double)n_packets / n / 20);
	sim_finish(&sim);
}

static double cpu_s(void)
{
	return (double)clock() / CLOCKS_PER_SEC;
}

static void big(uint64_t seed, uint32_t n)
{
	struct sim sim;
	struct watch w;
	struct rusage usage;
	double began = cpu_s();

	measure_begin(&sim, seed, &swim_lan, n);
	double ready = cpu_s();
	uint64_t from = sim.now_us, events = sim.n_events;
	sim_run(&sim, 5000 * MS);
	double rested = cpu_s();
	printf("big n %u: made in %.1f s; 5 s at rest take %.1f s, %.2f us "
	       "per event\n",
	       n, ready - began, rested - ready,
	       (rested - ready) * 1e6 / (double)(sim.n_events - events));
	kill_one(&sim, &w);
	from = sim.now_us;
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

static void bytes_of_some(uint64_t seed)
{
	static const uint32_t sizes[] = {3, 10, 100, 1000};

	for (unsigned k = 0; k < 4; k++)
		bytes(seed, sizes[k], &swim_lan);
}

bool measure(uint64_t seed, int argc, char **argv)
{
	const char *what = argv[0];
	uint32_t n = arg(argc, argv, 1, 10);
	struct swim_config config = measure_config(argv[argc - 1]);

	if (strcmp(what, "probe") == 0)
		probe(seed, n, arg(argc, argv, 2, 1000));
	else if (strcmp(what, "detect") == 0)
		detect(seed, n, arg(argc, argv, 2, 100), &config);
	else if (strcmp(what, "spread") == 0)
		spread(seed, n, arg(argc, argv, 2, 1000),
		       arg(argc, argv, 3, 0));
	else if (strcmp(what, "storm") == 0)
		storm(seed, n);
	else if (strcmp(what, "bytes") == 0 && argc > 1)
		bytes(seed, n, &config);
	else if (strcmp(what, "bytes") == 0)
		bytes_of_some(seed);
	else if (strcmp(what, "big") == 0)
		big(seed, n);
	else
		return measure_faults(seed, argc, argv);
	return true;
}
