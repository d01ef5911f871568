/* SPDX-License-Identifier: MIT */
/* The language of trace tests: a command per line, carried out in order; time
 * goes on only in `run` and `wait`. N is a node's number, SET is like 1,3-5 or *,
 * times are milliseconds and may have a fraction.
 *
 *	preset lan|wan|local          before nodes
 *	set KEY VALUE                 before nodes: see settings below
 *	nodes N [known|apart]         start N, which know each other (default:
 *	                              2 to N join through 1)
 *	start SET; kill SET; wipe SET       a process; its end; a new disk
 *	stop SET; continue SET              SIGSTOP, SIGCONT
 *	join SET N; leave SET; forget N M; hint N M; meta SET TEXT
 *	obituary N M BOOT             N has proof of the end of that life of M
 *	port N P; rate SET PPM; clock N MS  before start: address, clock
 *	link FROM TO KEY VALUE ...    delay, jitter (ms), loss, duplicate,
 *	                              reorder (%), mtu, cut, fails (0, 1)
 *	cut FROM TO; split A B; heal  one way; both ways; all rules are gone
 *	bandwidth BYTES; refuse 0|1; codec [seal]
 *	                              packets are changed on the way, and
 *	                              changed back; or sealed in earnest
 *	inject N FROM HEX             bytes for N from the address of FROM
 *	trace SET TOPIC...            status, probe, repair, event, none
 *	say TEXT                      into the trace
 *	run MS
 *	wait MS CONDITION             fails if it does not come true in time
 *	never MS CONDITION            fails if it does
 *	is CONDITION; not CONDITION
 *	show SET; health SET; packets SET; bytes; hash; time
 *	zero                          the counts of packets and bytes
 *
 * CONDITION: SET sees SET STATUS[|STATUS]: all of them, alive, suspect, dead,
 * left, forgotten or unknown; some SET sees SET STATUS: one of them; agree;
 * isolated SET; healthy SET; quiet: no news; sent KIND SET <|= N; members SET =
 * N: so many are known, the dead too. */
#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define WORDS_MAX 32

struct script {
	struct sim *sim;
	char *words[WORDS_MAX + 1];
	unsigned n;
	unsigned line;
	unsigned topics;
	bool has_failed;
};

static void fail(struct script *x, const char *why, const char *what)
{
	fflush(x->sim->trace);
	fprintf(stderr, "sim: line %u, %llu us, seed %llu: %s: %s\n", x->line,
		(unsigned long long)x->sim->now_us,
		(unsigned long long)x->sim->seed, why, what);
	x->has_failed = true;
}

static const char *word(const struct script *x, unsigned i)
{
	return i < x->n ? x->words[i] : "";
}

static uint64_t micros(struct script *x, const char *ms)
{
	char *end;
	double v = strtod(ms, &end);

	if (end == ms || *end != '\0' || v < 0)
		fail(x, "not a time", ms);
	return (uint64_t)(v * 1000 + 0.5);
}

static uint32_t number(struct script *x, const char *text)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (end == text || *end != '\0' || v > UINT32_MAX)
		fail(x, "not a number", text);
	return (uint32_t)v;
}

static struct sim_set set_of(struct script *x, const char *text)
{
	struct sim_set set = {0};
	const char *at = text;

	if (strcmp(text, "*") == 0) {
		set.n = 1;
		set.ranges[0].first = 1;
		set.ranges[0].last = x->sim->n_nodes;
		return set;
	}
	for (char *end; set.n < 16; at = end + 1) {
		unsigned long first = strtoul(at, &end, 10), last = first;

		if (end != at && *end == '-') {
			at = end + 1;
			last = strtoul(at, &end, 10);
		}
		if (end == at || first == 0 || last > x->sim->n_nodes)
			break;
		set.ranges[set.n].first = (uint32_t)first;
		set.ranges[set.n++].last = (uint32_t)last;
		if (*end == '\0')
			return set;
		if (*end != ',')
			break;
	}
	fail(x, "not a set of nodes", text);
	set.n = 0;
	return set;
}

/* Conditions */

static const char *const statuses[] = {"alive", "suspect", "dead", "left",
				       "forgotten"};

static bool is_status(unsigned status, const char *text)
{
	const char *name = status < 5 ? statuses[status] : "unknown";
	const char *at = strstr(text, name);
	size_t len = strlen(name);

	return at != NULL && (at == text || at[-1] == '|') &&
	       (at[len] == '\0' || at[len] == '|');
}

/* "A sees B STATUS" for all pairs, or for one of them. */
static bool sees(struct script *x, unsigned at, bool is_some)
{
	struct sim_set who = set_of(x, word(x, at));
	struct sim_set whom = set_of(x, word(x, at + 2));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++) {
		if (!sim_set_has(&who, i) || sim_node(x->sim, i)->swim == NULL)
			continue;
		for (uint32_t j = 1; j <= x->sim->n_nodes; j++)
			if (i != j && sim_set_has(&whom, j) &&
			    is_status(sim_sees(x->sim, i, j),
				      word(x, at + 3)) == is_some)
				return is_some;
	}
	return !is_some;
}

static struct swim_stats stats_of(struct script *x, uint32_t node)
{
	struct swim_stats stats = {0};

	if (sim_node(x->sim, node)->swim != NULL)
		swim_stats(sim_node(x->sim, node)->swim, &stats);
	return stats;
}

static bool all(struct script *x, const char *set,
		bool (*holds)(const struct swim_stats *))
{
	struct sim_set who = set_of(x, set);

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++) {
		struct swim_stats stats = stats_of(x, i);

		if (sim_set_has(&who, i) && !holds(&stats))
			return false;
	}
	return true;
}

static bool is_isolated(const struct swim_stats *stats)
{
	return stats->is_isolated;
}

static bool is_healthy(const struct swim_stats *stats)
{
	return stats->health == 0;
}

static bool is_silent(const struct swim_stats *stats)
{
	return stats->n_news == 0;
}

static const char *const kinds[SIM_KINDS] = {
	[WIRE_PING] = "ping",	    [WIRE_ACK] = "ack",
	[WIRE_HELP] = "help",	    [WIRE_NACK] = "nack",
	[WIRE_NOT_ME] = "notme",    [WIRE_NEWS] = "news",
	[WIRE_COMPARE] = "compare", [WIRE_DIFFER] = "differ",
	[WIRE_RECORDS] = "records",
};

static uint64_t sent(struct script *x, const char *kind, const char *set)
{
	struct sim_set who = set_of(x, set);
	uint64_t n = 0;

	for (unsigned k = 1; k < SIM_KINDS; k++)
		for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
			if (sim_set_has(&who, i) &&
			    (!strcmp(kind, "*") || !strcmp(kind, kinds[k])))
				n += sim_node(x->sim, i)->n_sent[k];
	return n;
}

static bool has_members(struct script *x)
{
	struct sim_set who = set_of(x, word(x, 1));
	uint32_t n = number(x, word(x, 3));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&who, i) && sim_node(x->sim, i)->swim != NULL &&
		    stats_of(x, i).n_members != n)
			return false;
	return true;
}

static bool holds(struct script *x)
{
	const char *first = word(x, 0);

	if (strcmp(word(x, 1), "sees") == 0)
		return sees(x, 0, false);
	if (strcmp(first, "some") == 0)
		return sees(x, 1, true);
	if (strcmp(first, "agree") == 0)
		return sim_agree(x->sim);
	if (strcmp(first, "isolated") == 0)
		return all(x, word(x, 1), is_isolated);
	if (strcmp(first, "healthy") == 0)
		return all(x, word(x, 1), is_healthy);
	if (strcmp(first, "quiet") == 0)
		return all(x, "*", is_silent);
	if (strcmp(first, "members") == 0)
		return has_members(x);
	if (strcmp(first, "sent") == 0)
		return strcmp(word(x, 3), "<") == 0
			       ? sent(x, word(x, 1), word(x, 2)) <
					 number(x, word(x, 4))
			       : sent(x, word(x, 1), word(x, 2)) ==
					 number(x, word(x, 4));
	fail(x, "not a condition", first);
	return true;
}

/* The words from i on, as a condition. */
static bool condition(struct script *x, unsigned i)
{
	struct script tail = *x;

	memmove(tail.words, tail.words + i, sizeof(tail.words[0]) * (x->n - i));
	tail.n = x->n - i;
	bool does = holds(&tail);
	x->has_failed |= tail.has_failed;
	return does;
}

/* Until the condition holds, looked at after every event. */
static bool comes_true(struct script *x)
{
	uint64_t until = x->sim->now_us + micros(x, word(x, 1));

	while (!x->has_failed) {
		if (condition(x, 2))
			return true;
		if (!sim_step(x->sim, until))
			return condition(x, 2);
	}
	return false;
}

/* Commands */

static void each(struct script *x, void (*act)(struct sim *, uint32_t))
{
	struct sim_set set = set_of(x, word(x, 1));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			act(x->sim, i);
}

static void do_preset(struct script *x)
{
	const char *name = word(x, 1);

	x->sim->config = strcmp(name, "wan") == 0     ? swim_wan
			 : strcmp(name, "local") == 0 ? swim_local
						      : swim_lan;
}

static void do_set(struct script *x)
{
	struct swim_config *c = &x->sim->config;
	const char *key = word(x, 1), *value = word(x, 2);
	const struct {
		const char *key;
		uint32_t *us;
		uint8_t *count;
		bool *yes;
	} settings[] = {
		{"period", &c->period_us, NULL, NULL},
		{"timeout", &c->timeout_us, NULL, NULL},
		{"gossip", &c->gossip_us, NULL, NULL},
		{"reconnect", &c->reconnect_us, NULL, NULL},
		{"repair", &c->repair_us, NULL, NULL},
		{"probes", NULL, &c->n_probes, NULL},
		{"helpers", NULL, &c->n_helpers, NULL},
		{"push", NULL, &c->n_push, NULL},
		{"confirm", NULL, &c->n_confirm, NULL},
		{"mult", NULL, &c->suspicion_mult, NULL},
		{"max", NULL, &c->suspicion_max, NULL},
		{"health", NULL, &c->health_max, NULL},
		{"nack", NULL, NULL, &c->has_nack},
		{"buddy", NULL, NULL, &c->has_buddy},
	};

	if (strcmp(key, "tombstone") == 0) {
		c->tombstone_us = micros(x, value);
		return;
	}
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (strcmp(key, settings[i].key) != 0)
			continue;
		if (settings[i].us != NULL)
			*settings[i].us = (uint32_t)micros(x, value);
		if (settings[i].count != NULL)
			*settings[i].count = (uint8_t)number(x, value);
		if (settings[i].yes != NULL)
			*settings[i].yes = number(x, value) != 0;
		return;
	}
	fail(x, "no such setting", key);
}

static void do_nodes(struct script *x)
{
	uint32_t n = number(x, word(x, 1));
	struct sim *sim = x->sim;

	sim_add(sim, n);
	sim_check_init(sim);
	for (uint32_t i = 1; i <= n; i++) {
		sim_node(sim, i)->topics = x->topics;
		sim_start(sim, i);
		if (i > 1 && x->n == 2)
			sim_join(sim, i, 1);
	}
	if (strcmp(word(x, 2), "known") == 0)
		sim_acquaint(sim);
}

static void do_start(struct script *x)
{
	each(x, sim_start);
}

static void do_kill(struct script *x)
{
	each(x, sim_kill);
}

static void do_wipe(struct script *x)
{
	each(x, sim_wipe);
}

static void do_stop(struct script *x)
{
	each(x, sim_stop);
}

static void do_continue(struct script *x)
{
	each(x, sim_continue);
}

static void do_leave(struct script *x)
{
	each(x, sim_leave);
}

static void do_join(struct script *x)
{
	struct sim_set set = set_of(x, word(x, 1));
	uint32_t by = number(x, word(x, 2));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			sim_join(x->sim, i, by);
}

static void do_forget(struct script *x)
{
	int rc = sim_forget(x->sim, number(x, word(x, 1)),
			    number(x, word(x, 2)));

	if (rc != 0)
		fprintf(x->sim->trace, "forget: %s\n", strerror(-rc));
}

static void do_obituary(struct script *x)
{
	int rc = sim_obituary(x->sim, number(x, word(x, 1)),
			      number(x, word(x, 2)), number(x, word(x, 3)));

	if (rc != 0)
		fprintf(x->sim->trace, "obituary: %s\n", strerror(-rc));
}

static void do_hint(struct script *x)
{
	swim_hint(sim_node(x->sim, number(x, word(x, 1)))->swim,
		  &sim_node(x->sim, number(x, word(x, 2)))->id);
}

static void do_meta(struct script *x)
{
	struct sim_set set = set_of(x, word(x, 1));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			sim_meta(x->sim, i, word(x, 2));
}

static void do_port(struct script *x)
{
	sim_node(x->sim, number(x, word(x, 1)))->port =
		(uint16_t)number(x, word(x, 2));
}

static void do_rate(struct script *x)
{
	struct sim_set set = set_of(x, word(x, 1));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			sim_node(x->sim, i)->rate_ppm = atoi(word(x, 2));
}

static uint32_t link_value(struct script *x, enum sim_link_field field,
			   const char *text)
{
	switch (field) {
	case SIM_DELAY:
	case SIM_JITTER:
		return (uint32_t)micros(x, text);
	case SIM_LOSS:
	case SIM_DUPLICATE:
	case SIM_REORDER:
		return (uint32_t)(strtod(text, NULL) * 10000 + 0.5);
	default:
		return number(x, text);
	}
}

static void add_rule(struct script *x, const char *from, const char *to,
		     enum sim_link_field field, const char *value)
{
	struct sim_rule rule = {.from = set_of(x, from),
				.to = set_of(x, to),
				.field = field,
				.value = link_value(x, field, value)};

	if (x->sim->n_rules == SIM_RULES_MAX)
		fail(x, "too many rules", value);
	else
		sim_rule(x->sim, &rule);
}

static void do_link(struct script *x)
{
	static const char *const fields[] = {"delay",	  "jitter",  "loss",
					     "duplicate", "reorder", "mtu",
					     "cut",	  "fails"};

	for (unsigned i = 3; i + 1 < x->n; i += 2) {
		unsigned f = 0;

		while (f < 8 && strcmp(fields[f], x->words[i]) != 0)
			f++;
		if (f < 8)
			add_rule(x, word(x, 1), word(x, 2),
				 (enum sim_link_field)f, x->words[i + 1]);
		else
			fail(x, "no such property", x->words[i]);
	}
}

static void do_cut(struct script *x)
{
	add_rule(x, word(x, 1), word(x, 2), SIM_CUT, "1");
}

static void do_split(struct script *x)
{
	add_rule(x, word(x, 1), word(x, 2), SIM_CUT, "1");
	add_rule(x, word(x, 2), word(x, 1), SIM_CUT, "1");
}

static void do_heal(struct script *x)
{
	x->sim->n_rules = 0;
}

static void do_bandwidth(struct script *x)
{
	x->sim->bandwidth = number(x, word(x, 1));
}

static void do_refuse(struct script *x)
{
	x->sim->refuses = number(x, word(x, 1)) != 0;
}

/* Each byte by its place: who forgot to encode would be found out. */
static size_t scramble(void *data, uint32_t node, const uint8_t *in, size_t len,
		       uint8_t *out)
{
	(void)data;
	(void)node;
	for (size_t i = 0; i < len; i++)
		out[i] = in[i] ^ (uint8_t)(0xa5 + i);
	return len;
}

static void do_codec(struct script *x)
{
	static const struct sim_codec codec = {.seal = scramble,
					       .open = scramble};

	x->sim->codec = strcmp(word(x, 1), "seal") == 0 ? sim_codec_seal(x->sim)
							: &codec;
}

static void do_clock(struct script *x)
{
	sim_node(x->sim, number(x, word(x, 1)))->clock_base =
		micros(x, word(x, 2));
}

static void do_zero(struct script *x)
{
	for (uint32_t i = 1; i <= x->sim->n_nodes; i++) {
		struct sim_node *n = sim_node(x->sim, i);

		n->n_bytes = 0;
		memset(n->n_sent, 0, sizeof(n->n_sent));
	}
}

static void do_inject(struct script *x)
{
	uint8_t bytes[2048];
	const char *hex = word(x, 3);
	size_t len = 0;

	for (unsigned v; len < sizeof(bytes) && sscanf(hex, "%2x", &v) == 1;
	     hex += hex[1] != '\0' ? 2 : 1)
		bytes[len++] = (uint8_t)v;
	sim_inject(x->sim, number(x, word(x, 1)), number(x, word(x, 2)), bytes,
		   len);
}

static unsigned topic_of(struct script *x, const char *name)
{
	static const struct {
		const char *name;
		unsigned topic;
	} topics[] = {{"status", SWIM_TRACE_STATUS},
		      {"probe", SWIM_TRACE_PROBE},
		      {"repair", SWIM_TRACE_REPAIR},
		      {"event", SIM_TRACE_EVENTS},
		      {"none", 0}};

	for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++)
		if (strcmp(name, topics[i].name) == 0)
			return topics[i].topic;
	fail(x, "no such topic", name);
	return 0;
}

static void do_trace(struct script *x)
{
	unsigned topics = 0;

	for (unsigned i = 2; i < x->n; i++)
		topics |= topic_of(x, x->words[i]);
	if (x->sim->n_nodes == 0) { /* for those to come */
		x->topics = topics;
		return;
	}
	struct sim_set set = set_of(x, word(x, 1));
	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			sim_trace(x->sim, i, topics);
}

static void do_say(struct script *x)
{
	for (unsigned i = 1; i < x->n; i++)
		fprintf(x->sim->trace, "%s%s", x->words[i],
			i + 1 < x->n ? " " : "\n");
}

static void do_run(struct script *x)
{
	sim_run(x->sim, micros(x, word(x, 1)));
}

static void do_wait(struct script *x)
{
	if (!comes_true(x))
		fail(x, "waited in vain", word(x, 2));
}

static void do_never(struct script *x)
{
	if (comes_true(x))
		fail(x, "should not have come true", word(x, 2));
}

static void do_is(struct script *x)
{
	if (!condition(x, 1))
		fail(x, "is not so", word(x, 1));
}

static void do_not(struct script *x)
{
	if (condition(x, 1))
		fail(x, "is so", word(x, 1));
}

static void show_one(struct script *x, uint32_t node)
{
	struct swim *swim = sim_node(x->sim, node)->swim;
	struct swim_view view;

	fprintf(x->sim->trace,
		"[%5llu] %u:", (unsigned long long)(x->sim->now_us / 1000),
		node);
	for (uint32_t j = 1; j <= x->sim->n_nodes; j++) {
		unsigned status = sim_sees(x->sim, node, j);

		if (j == node)
			continue;
		fprintf(x->sim->trace, " %u %s", j,
			status < 5 ? statuses[status] : "unknown");
		if (swim != NULL && status < 5 &&
		    swim_find(swim, &sim_node(x->sim, j)->id, &view) &&
		    !gossip_id_is_zero(&view.accuser))
			fprintf(x->sim->trace, " by %u",
				sim_number(x->sim, &view.accuser));
	}
	fputc('\n', x->sim->trace);
}

static void do_show(struct script *x)
{
	struct sim_set set = set_of(x, word(x, 1));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			show_one(x, i);
}

static void do_health(struct script *x)
{
	struct sim_set set = set_of(x, word(x, 1));

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		if (sim_set_has(&set, i))
			fprintf(x->sim->trace, "health of %u: %u\n", i,
				stats_of(x, i).health);
}

static void do_packets(struct script *x)
{
	for (unsigned k = 1; k < SIM_KINDS; k++)
		fprintf(x->sim->trace, "%s %llu%s", kinds[k],
			(unsigned long long)sent(x, kinds[k], word(x, 1)),
			k + 1 < SIM_KINDS ? ", " : "\n");
}

static void do_bytes(struct script *x)
{
	uint64_t n = 0;

	for (uint32_t i = 1; i <= x->sim->n_nodes; i++)
		n += sim_node(x->sim, i)->n_bytes;
	fprintf(x->sim->trace, "bytes %llu\n", (unsigned long long)n);
}

static void do_hash(struct script *x)
{
	fprintf(x->sim->trace, "hash %016llx\n",
		(unsigned long long)x->sim->hash);
}

static void do_time(struct script *x)
{
	fprintf(x->sim->trace, "time %llu\n",
		(unsigned long long)x->sim->now_us);
}

static const struct {
	const char *name;
	unsigned n_args; /* at least */
	void (*run)(struct script *);
} commands[] = {
	{"preset", 1, do_preset},     {"set", 2, do_set},
	{"nodes", 1, do_nodes},	      {"start", 1, do_start},
	{"kill", 1, do_kill},	      {"wipe", 1, do_wipe},
	{"stop", 1, do_stop},	      {"continue", 1, do_continue},
	{"join", 2, do_join},	      {"leave", 1, do_leave},
	{"forget", 2, do_forget},     {"hint", 2, do_hint},
	{"meta", 2, do_meta},	      {"port", 2, do_port},
	{"rate", 2, do_rate},	      {"link", 4, do_link},
	{"cut", 2, do_cut},	      {"split", 2, do_split},
	{"heal", 0, do_heal},	      {"bandwidth", 1, do_bandwidth},
	{"refuse", 1, do_refuse},     {"inject", 3, do_inject},
	{"trace", 2, do_trace},	      {"say", 1, do_say},
	{"run", 1, do_run},	      {"wait", 2, do_wait},
	{"never", 2, do_never},	      {"is", 1, do_is},
	{"not", 1, do_not},	      {"show", 1, do_show},
	{"health", 1, do_health},     {"packets", 1, do_packets},
	{"codec", 0, do_codec},	      {"clock", 2, do_clock},
	{"obituary", 3, do_obituary}, {"zero", 0, do_zero},
	{"bytes", 0, do_bytes},	      {"hash", 0, do_hash},
	{"time", 0, do_time},
};

static void run_line(struct script *x, char *line)
{
	char *save = NULL;

	x->n = 0;
	for (char *w = strtok_r(line, " \t\n", &save);
	     w != NULL && w[0] != '#' && x->n < WORDS_MAX;
	     w = strtok_r(NULL, " \t\n", &save))
		x->words[x->n++] = w;
	if (x->n == 0)
		return;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(x->words[0], commands[i].name) != 0)
			continue;
		if (x->n - 1 < commands[i].n_args)
			fail(x, "too few words", x->words[0]);
		else
			commands[i].run(x);
		return;
	}
	fail(x, "no such command", x->words[0]);
}

int script_run(struct sim *sim, FILE *in)
{
	struct script x = {.sim = sim, .topics = SWIM_TRACE_STATUS};
	char *line = NULL;
	size_t cap = 0;

	while (!x.has_failed && getline(&line, &cap, in) > 0) {
		x.line++;
		run_line(&x, line);
	}
	free(line);
	fflush(sim->trace);
	return x.has_failed ? 1 : 0;
}
