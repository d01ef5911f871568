/* SPDX-License-Identifier: MIT */
/* What must hold after every event, whatever the links do. For small clusters,
 * as it costs O(n) per event:
 *
 * - all that a core asserts of itself (swim_check);
 * - what a node believes of a member never goes back: (incarnation, status) only
 *   grows, until the member is forgotten or the node's memory ends;
 * - nobody invents: no incarnation above the one the member itself has had, and
 *   none has left who did not say so;
 * - nobody tells more news than there are members. */
#include "tests/sim/sim.h"

#include <assert.h>

#include "gossip/mem.h"

struct belief {
	uint64_t incarnation;
	uint8_t status;
};

struct sim_shadow {
	uint32_t n;
	struct belief *beliefs; /* n x n, [node][member] */
	uint64_t *left;		/* the newest incarnation that did leave */
};

void sim_check_init(struct sim *sim)
{
	if (sim->n_nodes > SIM_CHECKED_MAX)
		return;
	struct sim_shadow *sh = xcalloc(1, sizeof(*sh));
	sh->n = sim->n_nodes;
	sh->beliefs = xcalloc((size_t)sh->n * sh->n, sizeof(*sh->beliefs));
	sh->left = xcalloc(sh->n, sizeof(*sh->left));
	sim->shadow = sh;
}

void sim_check_finish(struct sim *sim)
{
	if (sim->shadow == NULL)
		return;
	free(sim->shadow->beliefs);
	free(sim->shadow->left);
	free(sim->shadow);
	sim->shadow = NULL;
}

void sim_check_reset(struct sim *sim, uint32_t node)
{
	struct sim_shadow *sh = sim->shadow;

	for (uint32_t i = 0; sh != NULL && i < sh->n; i++)
		sh->beliefs[(size_t)(node - 1) * sh->n + i] =
			(struct belief){0};
	if (sh != NULL && sim_node(sim, node)->boot == 0) /* a new disk */
		for (uint32_t i = 0; i < sh->n; i++)
			sh->beliefs[(size_t)i * sh->n + node - 1] =
				(struct belief){0};
}

static void must(bool holds, struct sim *sim, const char *what)
{
	if (holds)
		return;
	fflush(sim->trace);
	fprintf(stderr, "broken at %llu us, seed %llu: %s\n",
		(unsigned long long)sim->now_us, (unsigned long long)sim->seed,
		what);
	abort();
}

static void check_belief(struct sim *sim, uint32_t node, uint32_t member,
			 const struct swim_view *view)
{
	struct sim_shadow *sh = sim->shadow;
	struct belief *b =
		&sh->beliefs[(size_t)(node - 1) * sh->n + member - 1];
	struct sim_node *m = sim_node(sim, member);
	struct swim_view own;

	must(view->incarnation > b->incarnation ||
		     (view->incarnation == b->incarnation &&
		      view->status >= b->status),
	     sim, "a belief went back");
	*b = (struct belief){view->incarnation, view->status};
	if (node == member) {
		if (view->status == WIRE_LEFT)
			sh->left[node - 1] = view->incarnation;
		return;
	}
	must(view->status != WIRE_LEFT ||
		     view->incarnation <= sh->left[member - 1],
	     sim, "one has left who did not say so");
	if (m->swim == NULL || !swim_find(m->swim, &m->id, &own))
		return;
	must(view->incarnation <= own.incarnation, sim,
	     "an incarnation was invented");
}

void sim_check_node(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);
	struct sim_shadow *sh = sim->shadow;
	struct swim_stats stats;
	struct swim_view view;

	if (sh == NULL || sh->n != sim->n_nodes)
		return;
	swim_check(n->swim);
	swim_stats(n->swim, &stats);
	must(stats.n_news <= stats.n_members, sim, "too much news");
	for (uint32_t i = 1; i <= sh->n; i++) {
		if (swim_find(n->swim, &sim_node(sim, i)->id, &view))
			check_belief(sim, node, i, &view);
		else /* forgotten, or not known yet, or another disk */
			sh->beliefs[(size_t)(node - 1) * sh->n + i - 1] =
				(struct belief){0};
	}
}
