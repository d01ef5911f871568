/* SPDX-License-Identifier: MIT */
/* Figures, by statistics: what faults do to those who are well. See measure.c.
 *
 *	measure stop|deaf|slow N SECONDS
 *	                             some members are slow: false deaths of the
 *	                             others, with and without Lifeguard's parts
 *	measure oneway N ROUNDS in|out|pair|some
 *	                             cuts in one direction: changes of status
 *	measure stopped N ROUNDS [serf]
 *	                             SIGSTOP for the shortest suspicion: deaths
 *	measure heal N ROUNDS        random splits, and their end */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/mem.h"
#include "gossip/suspicion.h"
#include "tests/sim/measure.h"

/* Lifeguard's experiment: k members are slow, in spells, each by itself: their
 * process stops for 128 ms to 4 s and runs for 1 to 500 ms ("stop"), or it loses
 * most of what it is sent ("deaf"), or is late to read it ("slow"). A death is
 * false if its subject is well; the worst is one that a member believes which is
 * well too. */
struct verdicts {
	struct sim *sim;
	uint32_t n_slow; /* nodes 1 to n_slow are, nobody is dead */
	uint64_t n_false, n_healthy;
};

static void on_verdict(void *data, uint32_t node, const struct swim_event *e)
{
	struct verdicts *v = data;

	if (e->kind != SWIM_MEMBER || e->is != WIRE_DEAD ||
	    sim_number(v->sim, &e->id) <= v->n_slow)
		return;
	v->n_false++;
	v->n_healthy += node > v->n_slow;
}

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

/* All links to 1 to k are so. */
static void afflict(struct sim *sim, uint32_t k, enum sim_link_field field,
		    uint32_t value)
{
	struct sim_rule rule = {.from = {.n = 1},
				.to = {.n = 1},
				.field = field,
				.value = value};

	rule.from.ranges[0].first = 1;
	rule.from.ranges[0].last = sim->n_nodes;
	rule.to.ranges[0].first = 1;
	rule.to.ranges[0].last = k;
	sim_rule(sim, &rule);
}

struct trial {
	uint32_t n;
	uint64_t us;
	const char *how;
};

static void be_slow(struct sim *sim, uint32_t k, const struct trial *t)
{
	if (strcmp(t->how, "stop") == 0) {
		stop_in_spells(sim, k, t->us);
		return;
	}
	if (strcmp(t->how, "deaf") == 0) {
		afflict(sim, k, SIM_LOSS, 700000);
	} else {
		afflict(sim, k, SIM_DELAY, 20 * MS);
		afflict(sim, k, SIM_JITTER, 600 * MS);
	}
	sim_run(sim, t->us);
}

static void blocked_one(uint64_t seed, const struct trial *t,
			const struct swim_config *config, const char *name)
{
	static const uint32_t shares[] = {1, 4, 16};
	uint64_t n_false = 0, n_healthy = 0;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t k = shares[i] < t->n / 2 ? shares[i] : t->n / 2;
		struct sim sim;
		struct verdicts v = {.sim = &sim, .n_slow = k};

		measure_begin(&sim, seed, config, t->n);
		sim.on_event = on_verdict;
		sim.hook_data = &v;
		be_slow(&sim, k, t);
		n_false += v.n_false;
		n_healthy += v.n_healthy;
		sim_finish(&sim);
	}
	printf("%s n %u, %s: false deaths %llu, at healthy %llu\n", t->how,
	       t->n, name, (unsigned long long)n_false,
	       (unsigned long long)n_healthy);
}

static const char *const parts[] = {"score", "nack", "confirmations", "buddy"};

static void set_part(struct swim_config *c, unsigned part, bool is_on)
{
	switch (part) {
	case 0:
		c->health_max = is_on ? swim_lan.health_max : 0;
		break;
	case 1:
		c->has_nack = is_on;
		break;
	case 2:
		c->n_confirm = is_on ? swim_lan.n_confirm : 0;
		c->suspicion_max = is_on ? swim_lan.suspicion_max : 1;
		break;
	default:
		c->has_buddy = is_on;
		break;
	}
}

/* All, all but one, one alone, none. */
static void blocked(uint64_t seed, const struct trial *t)
{
	struct swim_config c = swim_lan;
	char name[40];

	blocked_one(seed, t, &c, "Lifeguard");
	for (unsigned part = 0; part < 4; part++) {
		c = swim_lan;
		set_part(&c, part, false);
		snprintf(name, sizeof(name), "without %s", parts[part]);
		blocked_one(seed, t, &c, name);
	}
	for (unsigned part = 0; part < 4; part++)
		set_part(&c, part, false);
	blocked_one(seed, t, &c, "SWIM alone");
	for (unsigned part = 0; part < 4; part++) {
		set_part(&c, part, true);
		snprintf(name, sizeof(name), "SWIM with %s", parts[part]);
		blocked_one(seed, t, &c, name);
		set_part(&c, part, false);
	}
}

/* A cut one way: how often a member's status changes at another, in 60 s. */
struct changes {
	struct sim *sim;
	uint32_t n;
	uint32_t *deaths, *others; /* n x n: dead or back; suspect or not */
};

static void on_change(void *data, uint32_t node, const struct swim_event *e)
{
	struct changes *c = data;
	size_t at = (size_t)(node - 1) * c->n + sim_number(c->sim, &e->id) - 1;

	if (e->kind != SWIM_MEMBER)
		return;
	if (e->is == WIRE_DEAD || e->was == WIRE_DEAD)
		c->deaths[at]++;
	else
		c->others[at]++;
}

static uint32_t greatest(const uint32_t *v, size_t n)
{
	uint32_t most = 0;

	for (size_t i = 0; i < n; i++)
		most = v[i] > most ? v[i] : most;
	return most;
}

static void cut(struct sim *sim, uint32_t from, uint32_t to)
{
	struct sim_rule rule = {.from = {.ranges = {{from, from}}, .n = 1},
				.to = {.ranges = {{to, to}}, .n = 1},
				.field = SIM_CUT,
				.value = 1};

	sim_rule(sim, &rule);
}

/* Nobody reaches member n; it reaches nobody; neither; some links of all. */
static void cut_one_way(struct sim *sim, const char *how)
{
	uint32_t n = sim->n_nodes;

	for (uint32_t i = 1; i <= n; i++)
		for (uint32_t j = 1; j <= n; j++) {
			bool is_in = j == n, is_out = i == n;

			if (i != j &&
			    ((is_in && strcmp(how, "in") == 0) ||
			     (is_out && strcmp(how, "out") == 0) ||
			     (strcmp(how, "pair") == 0 && i == 1 && j == 2) ||
			     (strcmp(how, "some") == 0 &&
			      random_below(&sim->random, 20) == 0)))
				cut(sim, i, j);
		}
}

static void one_way(uint64_t seed, uint32_t n, uint32_t n_rounds,
		    const char *how)
{
	struct changes c = {.n = n};
	size_t size = (size_t)n * n * sizeof(*c.deaths);
	uint32_t deaths = 0, others = 0;

	assert(n > 1 && n <= 8); /* rules */
	c.deaths = xmalloc(size);
	c.others = xmalloc(size);
	for (uint32_t r = 0; r < n_rounds; r++) {
		struct sim sim;

		measure_begin(&sim, seed + r, &swim_lan, n);
		c.sim = &sim;
		sim.on_event = on_change;
		sim.hook_data = &c;
		cut_one_way(&sim, how);
		for (unsigned minute = 0; minute < 3; minute++) {
			memset(c.deaths, 0, size);
			memset(c.others, 0, size);
			sim_run(&sim, 60000 * MS);
			uint32_t d = greatest(c.deaths, (size_t)n * n);
			uint32_t o = greatest(c.others, (size_t)n * n);
			deaths = d > deaths ? d : deaths;
			others = o > others ? o : others;
		}
		sim_finish(&sim);
	}
	printf("oneway n %u, %s: dead or back %u times per 60 s and pair at "
	       "most, suspect or not %u\n",
	       n, how, deaths, others);
	free(c.deaths);
	free(c.others);
}

/* A stop that is shorter than the suspicion kills nobody. */
static void stopped(uint64_t seed, uint32_t n, uint32_t n_rounds,
		    const char *name)
{
	struct swim_config config = measure_config(name);
	uint64_t us =
		suspicion_min_us(config.period_us, config.suspicion_mult, n);
	uint32_t n_deaths = 0;

	if (name != NULL)
		us = 8000 * MS; /* what serf outlives at n = 10 */
	for (uint32_t r = 0; r < n_rounds; r++) {
		struct sim sim;
		struct verdicts v = {.sim = &sim};

		measure_begin(&sim, seed + r, &config, n);
		sim_run(&sim, random_below(&sim.random, config.period_us));
		sim.on_event = on_verdict;
		sim.hook_data = &v;
		uint32_t victim = 1 + random_below(&sim.random, n);
		sim_stop(&sim, victim);
		sim_run(&sim, us);
		sim_continue(&sim, victim);
		sim_run(&sim, 20 * config.period_us);
		n_deaths += v.n_false > 0;
		sim_finish(&sim);
	}
	printf("stopped n %u for %llu ms: dead in %u of %u\n", n,
	       (unsigned long long)(us / MS), n_deaths, n_rounds);
}

/* A split in two to four parts, for 1 s to 2 minutes, and its end: how long
 * until all see all. */
static void split(struct sim *sim, uint8_t *part)
{
	uint32_t n = sim->n_nodes, n_parts = 2 + random_below(&sim->random, 3);

	for (uint32_t i = 0; i < n; i++)
		part[i] = (uint8_t)random_below(&sim->random, n_parts);
	for (uint32_t p = 0; p < n_parts; p++) {
		struct sim_rule rule = {.field = SIM_CUT, .value = 1};

		for (uint32_t i = 0; i < n; i++) {
			struct sim_set *set =
				part[i] == p ? &rule.from : &rule.to;
			set->ranges[set->n].first = i + 1;
			set->ranges[set->n++].last = i + 1;
		}
		if (rule.from.n > 0 && rule.to.n > 0)
			sim_rule(sim, &rule);
	}
}

static bool do_all_see_all(struct sim *sim)
{
	for (uint32_t i = 1; i <= sim->n_nodes; i++)
		for (uint32_t j = 1; j <= sim->n_nodes; j++)
			if (sim_sees(sim, i, j) != WIRE_ALIVE)
				return false;
	return true;
}

static void heal(uint64_t seed, uint32_t n, uint32_t n_rounds)
{
	uint64_t *took = xcalloc(n_rounds, sizeof(*took));
	uint32_t n_never = 0;

	assert(n <= 16); /* ranges of a set */
	for (uint32_t r = 0; r < n_rounds; r++) {
		struct sim sim;
		uint8_t part[16];

		measure_begin(&sim, seed + r, &swim_lan, n);
		split(&sim, part);
		sim_run(&sim, (1000 + random_below(&sim.random, 119000)) * MS);
		sim.n_rules = 0;
		uint64_t healed = sim.now_us;
		while (!do_all_see_all(&sim) &&
		       sim.now_us < healed + 300000 * MS)
			sim_run(&sim, 10 * MS);
		n_never += !do_all_see_all(&sim);
		took[r] = sim.now_us - healed;
		sim_finish(&sim);
	}
	printf("heal n %u: median %llu ms, p99 %llu, never %u of %u\n", n,
	       (unsigned long long)(measure_quantile(took, n_rounds, 50) / MS),
	       (unsigned long long)(measure_quantile(took, n_rounds, 99) / MS),
	       n_never, n_rounds);
	free(took);
}

bool measure_faults(uint64_t seed, int argc, char **argv)
{
	const char *how = argv[0], *last = argc > 3 ? argv[3] : NULL;
	uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 10;
	uint32_t k = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 60;

	if (strcmp(how, "stop") == 0 || strcmp(how, "deaf") == 0 ||
	    strcmp(how, "slow") == 0)
		blocked(seed, &(struct trial){n, k * 1000 * MS, how});
	else if (strcmp(how, "oneway") == 0)
		one_way(seed, n, k, last != NULL ? last : "in");
	else if (strcmp(how, "stopped") == 0)
		stopped(seed, n, k, last);
	else if (strcmp(how, "heal") == 0)
		heal(seed, n, k);
	else
		return false;
	return true;
}
