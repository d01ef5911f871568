/* SPDX-License-Identifier: MIT */
/* For the tests of the key machine: a machine with its nodes, asked one
 * operation at a time.
 *
 * The rig writes down what happens. A change of a key is a line
 *
 *   NAME STATE@HOLDER -> STATE@HOLDER REASON tTOKEN aATTEMPTS fFROM
 *
 * with "sub-" for an open submission, "-" for no holder and "gone" for no key.
 * Names stand for what they are: "mine" lies in a vnode of node 0, "his" in one
 * of node 1. */
#ifndef TESTS_UNIT_KEYSET_RIG_H
#define TESTS_UNIT_KEYSET_RIG_H

#include <inttypes.h>
#include <string.h>

#include "ring/keyset.h"
#include "ring/mem.h"
#include "ring/place.h"
#include "tests/unit/check.h"

enum {
	MAX_NODES = 4,
	N_VNODES = 16,
	MAX_ATTEMPTS = 2
};

struct rig {
	struct keyset *k;
	struct buf e;
	uint64_t index, wall;
	struct keyset_origin me[MAX_NODES]; /* the next request of each */
	char mine[16], his[16];

	/* What the last entry did. */
	char trace[4096];
	size_t n_keys, n_nodes, n_answers;
	int rc; /* of the last request or up */
	struct keyset_origin origin;
	struct keyset_answer answer; /* its last operation's */
	size_t n_ops;
	bool quiet; /* count the keys, write no trace */
};

static inline const char *at(uint8_t state, bool sub, uint32_t holder,
			     char out[32])
{
	static const char *const words[] = {"held", "offered", "releasing",
					    "parked"};
	char node[12] = "-";

	if (holder != RING_NONE)
		snprintf(node, sizeof(node), "%" PRIu32, holder);
	snprintf(out, 32, "%s%s@%s", sub ? "sub-" : "", words[state], node);
	return out;
}

static inline void on_key(void *data, struct ring_key *key,
			  const struct keyset_was *was, bool note, bool removed)
{
	static const char *const reasons[] = {
		"claimed", "submitted", "dead",	      "left",
		"moved",   "restart",	"given-back", "retried"};
	struct rig *g = data;
	char before[32] = "gone", after[32] = "gone", from[12] = "-";
	size_t len = strlen(g->trace);
	const char *name = strcmp(key->name, g->mine) == 0  ? "mine"
			   : strcmp(key->name, g->his) == 0 ? "his"
							    : key->name;

	g->n_keys++;
	if (g->quiet)
		return;
	if (was->existed)
		at(was->state, was->submitting, was->holder, before);
	if (!removed)
		at(key->state, key->submitting, key->holder, after);
	if (key->from != RING_NONE)
		snprintf(from, sizeof(from), "%" PRIu32, key->from);
	snprintf(g->trace + len, sizeof(g->trace) - len,
		 "%s %s -> %s %s t%" PRIu64 " a%d f%s%s\n", name, before, after,
		 reasons[key->reason], key->token, key->attempts, from,
		 note ? " note" : "");
}

static inline void on_answer(void *data, const struct keyset_origin *origin,
			     int rc, const struct keyset_answer *answers,
			     size_t n)
{
	struct rig *g = data;

	g->n_answers++;
	g->rc = rc;
	g->origin = *origin;
	g->n_ops = n;
	g->answer = n > 0 ? answers[n - 1]
			  : (struct keyset_answer){.rc = INT32_MAX};
}

static inline void on_node(void *data, uint32_t node)
{
	struct rig *g = data;

	(void)node;
	g->n_nodes++;
}

static inline void entry(struct rig *g)
{
	g->e.len = 0;
	g->wall += 1000;
	keyset_entry_begin(&g->e, g->wall / 1000, g->wall);
}

static inline int apply(struct rig *g)
{
	g->trace[0] = '\0';
	g->n_keys = g->n_nodes = g->n_answers = 0;
	return keyset_apply(g->k, ++g->index, g->e.base, g->e.len);
}

static inline struct keyset_up up_of(struct rig *g, int node)
{
	static char name[16];

	snprintf(name, sizeof(name), "n%d", node);
	return (struct keyset_up){.id = g->me[node].id,
				  .life = {{(uint8_t)g->me[node].boot}},
				  .boot = g->me[node].boot,
				  .weight = 100,
				  .name = name};
}

static inline int up(struct rig *g, int node, const struct keyset_up *up)
{
	entry(g);
	keyset_put_up(&g->e, up);
	check_int(apply(g), 0);
	check_int(g->n_answers, 1);
	check_int(g->origin.seq, 0);
	if (g->rc == 0)
		g->me[node].epoch = g->origin.epoch;
	return g->rc;
}

/* A new life of node, with this weight. */
static inline void restart(struct rig *g, int node, uint32_t weight)
{
	struct keyset_up u;

	g->me[node].boot++;
	g->me[node].seq = g->me[node].floor = 1;
	u = up_of(g, node);
	u.weight = weight;
	check_int(up(g, node, &u), 0);
	check_int(g->me[node].epoch, g->index);
}

static inline void share(struct rig *g, int node, uint32_t weight, bool drains)
{
	struct keyset_share s = {.id = g->me[node].id,
				 .boot = g->me[node].boot,
				 .epoch = g->me[node].epoch,
				 .weight = weight,
				 .is_draining = drains};

	entry(g);
	keyset_put_share(&g->e, &s);
	check_int(apply(g), 0);
}

static inline void down(struct rig *g, int node, enum ring_reason reason)
{
	entry(g);
	keyset_put_down(&g->e, &g->me[node].id, g->me[node].boot,
			g->me[node].epoch, reason);
	check_int(apply(g), 0);
}

static inline int ask_all(struct rig *g, const struct keyset_origin *o,
			  const struct ring_op *ops, size_t n)
{
	entry(g);
	keyset_put_request(&g->e, o, ops, n);
	check_int(apply(g), 0);
	check_int(g->n_answers, 1);
	return g->rc;
}

/* One operation of node. Gives its result. */
static inline int ask(struct rig *g, int node, const struct ring_op *op)
{
	int rc = ask_all(g, &g->me[node], op, 1);

	check_int(rc, 0);
	g->me[node].floor = g->me[node].seq++;
	check_int(g->n_ops, 1);
	return g->answer.rc;
}

static inline int op(struct rig *g, int node, enum ring_op_type type,
		     const char *name)
{
	struct ring_op o = {.type = type, .name = name};

	return ask(g, node, &o);
}

static inline const struct ring_key *find(const struct rig *g, const char *name)
{
	return keyset_find(g->k, name, strlen(name));
}

static inline void name_of(struct rig *g, uint32_t node, char out[16])
{
	for (unsigned i = 0;; i++) {
		snprintf(out, 16, "k%u", i);
		if (keyset_vnode_owner(g->k, place_vnode(out, strlen(out),
							 N_VNODES)) == node)
			return;
	}
}

static inline struct rig *rig_new(enum ring_claims claims, int n_nodes)
{
	static const struct ring_id cluster = {{7}};
	struct ring_settings s = {.vnodes = N_VNODES,
				  .claims = claims,
				  .max_attempts = MAX_ATTEMPTS};
	struct rig *g = xcalloc(1, sizeof(*g));
	struct keyset_events events = {.on_key = on_key,
				       .on_answer = on_answer,
				       .on_node = on_node,
				       .data = g};

	g->k = keyset_create(&events);
	check(keyset_settings(g->k) == NULL, "empty before the first entry");
	entry(g);
	keyset_put_settings(&g->e, &cluster, &s);
	check_int(apply(g), 0);
	for (int i = 0; i < MAX_NODES; i++) {
		g->me[i].id.byte[0] = (uint8_t)(i + 1);
		g->me[i].seq = g->me[i].floor = 1;
	}
	for (int i = 0; i < n_nodes; i++)
		restart(g, i, 100);
	if (n_nodes > 0)
		name_of(g, 0, g->mine);
	if (n_nodes > 1)
		name_of(g, 1, g->his);
	return g;
}

static inline void rig_free(struct rig *g)
{
	keyset_destroy(g->k);
	free(g->e.base);
	free(g);
}

static inline void trace_is(const struct rig *g, const char *wanted)
{
	check(strcmp(g->trace, wanted) == 0, "got:\n%swant:\n%s", g->trace,
	      wanted);
}

static inline size_t count(const struct rig *g, enum ring_view view,
			   uint32_t node)
{
	size_t n;

	keyset_list(g->k, view, node, &n);
	return n;
}

/* n claims by node 0, in as few requests as can be. */
static inline void claim_many(struct rig *g, size_t n, const char *format)
{
	struct ring_op *ops = xcalloc(n, sizeof(*ops));
	char(*names)[32] = xcalloc(n, sizeof(*names));

	for (size_t i = 0; i < n; i++) {
		snprintf(names[i], sizeof(names[i]), "%s%07zu", format, i);
		ops[i] = (struct ring_op){.type = RING_CLAIM, .name = names[i]};
	}
	size_t n_keys = 0;

	for (size_t at = 0; at < n; at += RING_OPS_MAX) {
		size_t left = n - at;

		check_int(ask_all(g, &g->me[0], ops + at,
				  left < RING_OPS_MAX ? left : RING_OPS_MAX),
			  0);
		g->me[0].floor = ++g->me[0].seq;
		n_keys += g->n_keys;
	}
	g->n_keys = n_keys;
	free(names);
	free(ops);
}

#endif
