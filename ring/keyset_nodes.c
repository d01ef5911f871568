/* SPDX-License-Identifier: MIT */
/* Nodes, placement, and the keys that move by them.
 *
 * A node row is made by its first up and stays; its index is what keys and
 * tables speak of. Each up, down and share plans the placement anew and moves,
 * in the same entry (holes.md 1, 4, 27):
 *
 * - the keys of the life that is over, to their heirs: the ring owners by the
 *   new table, or nobody when nobody may own anything; those of a life that was
 *   replaced while it was up, to the node itself;
 * - no key of any other node: where claims=owner, those that it holds in vnodes
 *   that moved become releasing, or held again if the vnode came back;
 * - keys without holder, to their heirs as soon as there are any. */
#include "ring/keyset_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "ring/mem.h"
#include "ring/place.h"

/* ---- Placement ---- */

void keyset_place_alloc(struct keyset *k)
{
	uint32_t n = k->settings.vnodes;

	k->vnodes = xcalloc(n, sizeof(*k->vnodes));
	k->owners = xcalloc(n, sizeof(*k->owners));
	for (uint32_t v = 0; v < n; v++)
		k->owners[v] = RING_NONE;
}

void keyset_place_count(struct keyset *k)
{
	for (uint32_t i = 0; i < k->n_nodes; i++)
		k->nodes[i]->pub.n_vnodes = 0;
	for (uint32_t v = 0; v < k->settings.vnodes; v++)
		if (k->owners[v] != RING_NONE)
			k->nodes[k->owners[v]]->pub.n_vnodes++;
}

/* What n counts with in the plan. */
static uint32_t weight_of(const struct ring_node *n)
{
	return n->is_client || n->is_draining ? 0 : n->weight;
}

/* Gives the table before; free() releases it. */
static uint32_t *replan(struct keyset *k)
{
	struct place_node *up = xcalloc(k->n_nodes, sizeof(*up));
	size_t size = k->settings.vnodes * sizeof(*k->owners);
	uint32_t *before = xmalloc(size);
	uint32_t n_up = 0;

	memcpy(before, k->owners, size);

	for (uint32_t i = 0; i < k->n_nodes; i++) {
		const struct ring_node *n = &k->nodes[i]->pub;

		if (n->up)
			up[n_up++] =
				(struct place_node){n->id, i, weight_of(n)};
	}
	if (n_up > k->most_up)
		k->most_up = n_up;
	if (place_plan(k->owners, k->settings.vnodes, up, n_up) > 0)
		k->epoch = k->index;
	keyset_place_count(k);
	free(up);
	return before;
}

/* ---- Keys that move ---- */

/* What ends with node's life: which keys, and what is said of them. */
struct move {
	struct keyset *k;
	uint32_t node; /* RING_NONE: no life ends */
	enum ring_reason reason;
	uint64_t token; /* of all that change holder */
};

static void end_submission(const struct move *m, struct ring_key *key)
{
	if (key->submitting && key->claimer == m->node)
		key->submitting = false;
}

/* A key of the node goes to its heir; to the node itself when that is back:
 * what it has begun it finishes best. What was merely offered to it is offered
 * still, for the reason it was. */
static void rehome(const struct move *m, struct ring_key *key)
{
	bool offered = key->state == RING_OFFERED;
	bool back = m->reason == RING_RESTART;
	struct keyset_was was;

	if (offered && back)
		return;
	key_begin(m->k, key, &was);
	key_pass(m->k, key, RING_OFFERED,
		 back ? m->node : m->k->owners[key->vnode]);
	key->token = m->token;
	if (!offered || !key->submitting) {
		key->reason = (uint8_t)m->reason;
		key->backoff_ms = 0;
	}
	end_submission(m, key);
	key_end(m->k, key, &was, false);
}

/* Lists are walked from their end: leaving one moves its last key, which has
 * been seen, and joining one appends to it. */
static void rehome_list(const struct move *m, const struct ids *list)
{
	for (uint32_t i = list->n; i-- > 0;)
		rehome(m, keyset_find_id(m->k, list->at[i]));
}

static void adopt_orphans(const struct move *m)
{
	struct keyset *k = m->k;

	for (uint32_t i = k->orphans.n; i-- > 0;) {
		struct ring_key *key = keyset_find_id(k, k->orphans.at[i]);
		struct keyset_was was;

		if (k->owners[key->vnode] == RING_NONE)
			continue;
		key_begin(k, key, &was);
		key_pass(k, key, RING_OFFERED, k->owners[key->vnode]);
		key->token = m->token;
		end_submission(m, key);
		key_end(k, key, &was, false);
	}
}

static void end_submissions(const struct move *m)
{
	const struct ids *list = &m->k->nodes[m->node]->submitting;

	for (uint32_t i = list->n; i-- > 0;) {
		struct ring_key *key = keyset_find_id(m->k, list->at[i]);
		struct keyset_was was;

		key_begin(m->k, key, &was);
		end_submission(m, key);
		key->since_us = m->k->wall_us;
		key_end(m->k, key, &was, false);
	}
}

/* Ask key's holder to let go, or no more: its vnode has moved to owner. */
static void ask(struct keyset *k, struct ring_key *key, uint32_t owner)
{
	bool other = owner != RING_NONE && owner != key->holder;
	struct keyset_was was;

	if (key->state != (other ? RING_HELD : RING_RELEASING))
		return;
	key_begin(k, key, &was);
	key->state = other ? RING_RELEASING : RING_HELD;
	key->since_us = k->wall_us;
	key_end(k, key, &was, false);
}

static void ask_moved(struct keyset *k, const uint32_t *before)
{
	if (k->settings.claims != RING_CLAIMS_OWNER)
		return;
	for (uint32_t v = 0; v < k->settings.vnodes; v++) {
		const struct ids *list = &k->vnodes[v];

		if (before[v] == k->owners[v])
			continue;
		for (uint32_t i = 0; i < list->n; i++)
			ask(k, keyset_find_id(k, list->at[i]), k->owners[v]);
	}
}

/* The node's former life is over, and the nodes are as they will be. Each key
 * is changed, and told of, at most once. */
static void settle(struct keyset *k, uint32_t node, enum ring_reason reason)
{
	struct move m = {k, node, reason, ++k->token};
	uint32_t *before = replan(k);

	rehome_list(&m, &k->nodes[node]->offered);
	rehome_list(&m, &k->nodes[node]->held);
	ask_moved(k, before);
	adopt_orphans(&m);
	end_submissions(&m);
	rows_clear(k, k->nodes[node]);
	free(before);
	if (k->events.on_node != NULL)
		k->events.on_node(k->events.data, node);
}

/* ---- Nodes ---- */

struct node *keyset_node_add(struct keyset *k)
{
	struct node *n = xcalloc(1, sizeof(*n));

	/* The room is a power of two, and is used up whenever n_nodes is. */
	if ((k->n_nodes & (k->n_nodes - 1)) == 0) {
		size_t cap = k->n_nodes ? 2 * (size_t)k->n_nodes : 1;

		k->nodes = xrealloc(k->nodes, cap * sizeof(struct node *));
	}
	k->nodes[k->n_nodes++] = n;
	n->floor = 1;
	return n;
}

void keyset_node_free(struct node *n)
{
	for (size_t i = 0; n->rows != NULL && i < KEYSET_WINDOW; i++)
		free(n->rows[i]);
	free(n->rows);
	ids_finish(&n->held);
	ids_finish(&n->offered);
	ids_finish(&n->releasing);
	ids_finish(&n->submitting);
	free(n);
}

uint32_t keyset_find_node(const struct keyset *k, const struct ring_id *id)
{
	for (uint32_t i = 0; i < k->n_nodes; i++)
		if (memcmp(&k->nodes[i]->pub.id, id, sizeof(*id)) == 0)
			return i;
	return RING_NONE;
}

/* peers/NAME is one node's. */
static bool has_name(const struct node *n, const struct item *item)
{
	return n->pub.up && strlen(n->pub.name) == item->name_len &&
	       memcmp(n->pub.name, item->name, item->name_len) == 0;
}

/* May this up take effect? 0; -EALREADY: it has; else its answer. The same life
 * may come back after a down (holes.md 1); another with its boot is a copy or
 * a restored backup (holes.md 12). */
static int admit(const struct keyset *k, const struct item *item, uint32_t node)
{
	int rc = entry_name_check(item->name, item->name_len);
	const struct node *n;
	bool same;

	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < k->n_nodes; i++)
		if (i != node && has_name(k->nodes[i], item))
			return -EEXIST;
	if (node == RING_NONE)
		return k->n_nodes < KEYSET_NODES_MAX ? 0 : -ENOSPC;
	n = k->nodes[node];
	same = item->origin.boot == n->pub.boot &&
	       memcmp(&item->life, &n->life, sizeof(n->life)) == 0;
	if (same)
		return n->pub.up ? -EALREADY : 0;
	return item->origin.boot > n->pub.boot ? 0 : -ESTALE;
}

int keyset_node_up(struct keyset *k, struct item *item)
{
	uint32_t node = keyset_find_node(k, &item->origin.id);
	int rc = admit(k, item, node);
	struct node *n;

	if (rc == -EALREADY) {
		item->origin.epoch = k->nodes[node]->pub.epoch;
		return 0;
	}
	if (rc != 0)
		return rc;
	if (node == RING_NONE) {
		node = k->n_nodes;
		keyset_node_add(k)->pub.id = item->origin.id;
	}
	n = k->nodes[node];
	n->life = item->life;
	n->pub.boot = item->origin.boot;
	n->pub.epoch = item->origin.epoch = k->index;
	n->pub.up_us = k->wall_us;
	n->pub.weight = item->weight;
	n->pub.is_client = item->is_client;
	n->pub.is_draining = item->is_draining;
	n->pub.up = true;
	n->grace_ms = item->grace_ms;
	memcpy(n->host, item->host, sizeof(n->host));
	memcpy(n->pub.name, item->name, item->name_len);
	n->pub.name[item->name_len] = '\0';
	settle(k, node, RING_RESTART);
	return 0;
}

/* The node whose life item is about, or RING_NONE when that is over. */
static uint32_t node_in_life(const struct keyset *k, const struct item *item)
{
	uint32_t node = keyset_find_node(k, &item->origin.id);
	const struct ring_node *n;

	if (node == RING_NONE)
		return RING_NONE;
	n = &k->nodes[node]->pub;
	return n->up && n->boot == item->origin.boot &&
			       n->epoch == item->origin.epoch
		       ? node
		       : RING_NONE;
}

void keyset_node_share(struct keyset *k, const struct item *item)
{
	uint32_t node = node_in_life(k, item);
	struct move m = {.k = k, .node = RING_NONE};
	struct ring_node *n;
	uint32_t *before;

	if (node == RING_NONE)
		return;
	n = &k->nodes[node]->pub;
	if (n->weight == item->weight && n->is_draining == item->is_draining)
		return;
	n->weight = item->weight;
	n->is_draining = item->is_draining;
	m.token = ++k->token;
	before = replan(k);
	ask_moved(k, before);
	adopt_orphans(&m);
	free(before);
	if (k->events.on_share != NULL)
		k->events.on_share(k->events.data, node);
}

void keyset_node_down(struct keyset *k, const struct item *item)
{
	uint32_t node = node_in_life(k, item);
	struct ring_node *n;

	if (node == RING_NONE)
		return;
	n = &k->nodes[node]->pub;
	n->up = false;
	settle(k, node, item->reason);
	assert(n->n_keys == 0);
}
