/* SPDX-License-Identifier: MIT */
/* The model of keyset_model_test.c: what the machine should do, by the plainest
 * means. Included by that test alone. */
#ifndef TESTS_UNIT_KEYSET_MODEL_H
#define TESTS_UNIT_KEYSET_MODEL_H

#include <errno.h>
#include <inttypes.h>
#include "ring/place.h"
#include "tests/unit/mem_store.h"

enum {
	N_NAMES = 40,
	N_NODES = 5,
	N_VNODES = 32,
	MAX_OPS = 6,
	MAX_ITEMS = 4,
	MAX_ATTEMPTS = 3,
	NOTE_SIZE = 12,
};

/* ---- The model: one array of keys, one of nodes, and no index ---- */

struct mkey {
	bool there;
	uint64_t id, token, claimed, since, noted;
	uint32_t holder, from, claimer, uid, backoff, attempts;
	int state, reason, submitting;
	char note[NOTE_SIZE];
	uint32_t note_len;
	uint32_t n_notes; /* so that the same note again is a change */
};

struct manswer {
	uint64_t seq;
	size_t n;
	struct keyset_answer a[MAX_OPS];
};

struct mnode {
	bool known, up, client, draining;
	struct ring_id id, life;
	uint64_t boot, epoch, floor, next_seq;
	uint32_t weight, index;
	int name;
	struct manswer row[KEYSET_WINDOW];
};

struct expected {
	struct keyset_origin origin;
	int rc;
	size_t n;
	struct keyset_answer a[MAX_OPS];
};

static struct mkey keys[N_NAMES];
static struct mnode nodes[N_NODES];
static uint32_t owners[N_VNODES]; /* by the machine's index */
static char names[N_NAMES][16];
static uint32_t vnode_of[N_NAMES];
static enum ring_claims claims;
static uint64_t counter, index_now, wall;
static uint32_t n_known, most_up;

static struct expected want[MAX_ITEMS];
static size_t n_want, n_got;
static unsigned changes_want[N_NAMES], changes_got[N_NAMES];
static struct mkey shadow[N_NAMES]; /* as the events tell it */

static uint64_t seed;
static size_t n_shares; /* that had an effect */

static uint64_t below(uint64_t n)
{
	return check_random(&seed) % n;
}

static void count_changes(const struct mkey before[N_NAMES])
{
	for (int i = 0; i < N_NAMES; i++)
		if (memcmp(&before[i], &keys[i], sizeof(keys[i])) != 0)
			changes_want[i]++;
}

static bool working(const struct mkey *key, uint32_t node)
{
	return (key->state == RING_HELD || key->state == RING_RELEASING) &&
	       key->holder == node;
}

static void model_park(struct mkey *key)
{
	key->from = key->holder;
	key->holder = RING_NONE;
	key->state = RING_PARKED;
	key->token = ++counter;
	key->backoff = 0;
	key->since = wall;
}

static int model_create(uint32_t node, const struct ring_op *op, int i)
{
	struct mkey *key = &keys[i];
	uint32_t owner = owners[vnode_of[i]];

	if (key->there)
		return -EEXIST;
	if (op->type == RING_CLAIM && claims == RING_CLAIMS_OWNER &&
	    owner != node)
		return -EREMOTE;
	memset(key, 0, sizeof(*key));
	key->there = true;
	key->id = key->token = ++counter;
	key->claimed = key->since = key->noted = wall;
	key->claimer = node;
	key->from = RING_NONE;
	key->uid = op->uid;
	key->note_len = op->note_len;
	if (op->note_len > 0)
		memcpy(key->note, op->note, op->note_len);
	key->submitting = op->type == RING_SUBMIT;
	key->holder = op->type == RING_SUBMIT ? owner : node;
	key->state = op->type == RING_SUBMIT ? RING_OFFERED : RING_HELD;
	key->reason = op->type == RING_SUBMIT ? RING_SUBMITTED : RING_CLAIMED;
	return 0;
}

static int model_give(struct mkey *key)
{
	static const uint32_t ms[] = {1000, 1000, 2000, 4000};

	if (key->attempts >= MAX_ATTEMPTS) {
		model_park(key);
	} else {
		key->state = RING_OFFERED;
		key->backoff = ms[key->attempts];
		key->since = wall;
	}
	key->reason = RING_GIVEN_BACK;
	return 0;
}

static void model_offer_to_heir(struct mkey *key, int i, int reason)
{
	if (key->holder != RING_NONE)
		key->from = key->holder;
	key->holder = owners[vnode_of[i]];
	key->state = RING_OFFERED;
	key->reason = reason;
	key->token = ++counter;
	key->since = wall;
}

static int model_op(uint32_t node, const struct ring_op *op, int i)
{
	struct mkey *key = &keys[i];
	bool mine = key->there && working(key, node);
	bool offered = key->there && key->state == RING_OFFERED &&
		       key->holder == node && !key->submitting;
	bool submitter = key->there && key->submitting && key->claimer == node;

	if (op->type == RING_CLAIM || op->type == RING_SUBMIT)
		return model_create(node, op, i);
	if (!key->there || (op->id != 0 && op->id != key->id) ||
	    (op->token != 0 && op->token != key->token))
		return -ENOENT;
	switch (op->type) {
	case RING_OFFER:
		if (!submitter)
			return -ENOENT;
		key->submitting = 0;
		key->since = wall;
		return 0;
	case RING_NOTE:
		if (!mine && !submitter)
			return -ENOENT;
		memset(key->note, 0, sizeof(key->note));
		key->note_len = op->note_len;
		if (op->note_len > 0)
			memcpy(key->note, op->note, op->note_len);
		key->noted = wall;
		key->n_notes++;
		return 0;
	case RING_TAKE:
		if (!offered)
			return -ENOENT;
		key->state = RING_HELD;
		if (claims == RING_CLAIMS_OWNER &&
		    owners[vnode_of[i]] != node &&
		    owners[vnode_of[i]] != RING_NONE)
			key->state = RING_RELEASING;
		key->uid = op->uid;
		key->token = ++counter;
		key->attempts++;
		key->backoff = 0;
		key->since = wall;
		return 0;
	case RING_GIVE:
		return mine ? model_give(key) : -ENOENT;
	case RING_PARK:
		if (!mine && !offered)
			return -ENOENT;
		model_park(key);
		return 0;
	case RING_RETRY:
		if (key->state != RING_PARKED)
			return -ENOENT;
		model_offer_to_heir(key, i, RING_RETRIED);
		key->attempts = 0;
		return 0;
	case RING_LET:
		if (!mine || key->state != RING_RELEASING)
			return -ENOENT;
		model_offer_to_heir(key, i, RING_MOVED);
		return 0;
	case RING_FINISH:
		if (key->submitting
			    ? !submitter
			    : key->holder != RING_NONE && key->holder != node)
			return -EREMOTE;
		key->there = false;
		return 0;
	default:
		check(false, "no such operation");
		return 0;
	}
}

static int find_name(const char *name)
{
	for (int i = 0; i < N_NAMES; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

static struct keyset_answer model_answer(uint32_t node,
					 const struct ring_op *op)
{
	int i = find_name(op->name);
	struct mkey before[N_NAMES];
	struct keyset_answer a = {0};

	memcpy(before, keys, sizeof(keys));
	if (i < 0)
		return (struct keyset_answer){.rc = -EINVAL};
	a.rc = model_op(node, op, i);
	if (a.rc != -ENOENT && (keys[i].there || op->type == RING_FINISH)) {
		a.id = keys[i].id;
		a.token = keys[i].token;
	}
	if (!keys[i].there)
		memset(&keys[i], 0, sizeof(keys[i]));
	count_changes(before);
	return a;
}

static struct mnode *model_find(const struct ring_id *id)
{
	for (int i = 0; i < N_NODES; i++)
		if (nodes[i].known &&
		    memcmp(&nodes[i].id, id, sizeof(*id)) == 0)
			return &nodes[i];
	return NULL;
}

static int model_refuses(struct mnode *n, const struct keyset_origin *o)
{
	if (n == NULL)
		return -ENOTCONN;
	if (o->boot < n->boot)
		return -ESTALE;
	if (!n->up || o->boot > n->boot || o->epoch != n->epoch)
		return -ENOTCONN;
	if (o->floor > n->floor)
		n->floor = o->floor;
	if (o->seq < n->floor)
		return -ESTALE;
	return o->seq >= n->floor + KEYSET_WINDOW ? -EAGAIN : 0;
}

/* An offer of what was just not submitted. */
static bool model_is_void(const struct ring_op *before,
			  const struct ring_op *op, int rc)
{
	return before->type == RING_SUBMIT && rc != 0 &&
	       op->type == RING_OFFER && op->id == 0 &&
	       strcmp(before->name, op->name) == 0;
}

static void model_request(const struct keyset_origin *o,
			  const struct ring_op *ops, size_t n_ops)
{
	struct expected *e = &want[n_want++];
	struct mnode *n = model_find(&o->id);
	struct manswer *row;

	*e = (struct expected){.origin = *o};
	e->rc = model_refuses(n, o);
	if (e->rc != 0)
		return;
	row = &n->row[o->seq % KEYSET_WINDOW];
	if (row->seq != o->seq) {
		*row = (struct manswer){.seq = o->seq, .n = n_ops};
		for (size_t i = 0; i < n_ops; i++)
			row->a[i] =
				i > 0 && model_is_void(&ops[i - 1], &ops[i],
						       row->a[i - 1].rc)
					? (struct keyset_answer){.rc = -ENOENT}
					: model_answer(n->index, &ops[i]);
	}
	e->n = row->n;
	memcpy(e->a, row->a, sizeof(e->a));
}

static void model_plan(uint32_t before[N_VNODES])
{
	struct place_node up[N_NODES];
	uint32_t n_up = 0;

	memcpy(before, owners, sizeof(owners));
	for (int i = 0; i < N_NODES; i++)
		if (nodes[i].known && nodes[i].up)
			up[n_up++] = (struct place_node){
				nodes[i].id, nodes[i].index,
				nodes[i].client || nodes[i].draining
					? 0
					: nodes[i].weight};
	if (n_up > most_up)
		most_up = n_up;
	place_plan(owners, N_VNODES, up, n_up);
}

/* What one key becomes when the life of gone is over (RING_NONE: nobody's). */
static void model_settle_key(int i, uint32_t gone, int reason, bool moved)
{
	struct mkey *key = &keys[i];
	uint32_t heir = owners[vnode_of[i]];
	bool held = key->state == RING_HELD || key->state == RING_RELEASING;
	bool submitted = key->submitting && key->claimer == gone;
	bool pass = false;

	if (!key->there || key->state == RING_PARKED)
		return;
	if (held && key->holder == gone && gone != RING_NONE) {
		pass = true;
		key->reason = reason;
		key->backoff = 0;
	} else if (held && moved && claims == RING_CLAIMS_OWNER) {
		int state = heir != RING_NONE && heir != key->holder
				    ? RING_RELEASING
				    : RING_HELD;

		if (state != key->state)
			key->since = wall;
		key->state = state;
	} else if (!held && key->holder == gone && gone != RING_NONE &&
		   reason != RING_RESTART) {
		pass = true;
		if (!key->submitting) {
			key->reason = reason;
			key->backoff = 0;
		}
	} else if (!held && key->holder == RING_NONE && heir != RING_NONE) {
		pass = true;
	}
	if (pass) {
		key->from = key->holder != RING_NONE ? key->holder : key->from;
		if (reason != RING_RESTART || key->holder != gone)
			key->holder = heir;
		key->state = RING_OFFERED;
		key->token = counter;
	}
	if (submitted)
		key->submitting = 0;
	if (pass || submitted)
		key->since = wall;
}

/* The life of n is over; or, with NULL, there is only another placement. */
static void model_settle(struct mnode *n, int reason)
{
	uint32_t gone = n != NULL ? n->index : RING_NONE;
	uint32_t old[N_VNODES];
	struct mkey before[N_NAMES];

	memcpy(before, keys, sizeof(keys));
	counter++;
	model_plan(old);
	for (int i = 0; i < N_NAMES; i++) {
		uint32_t v = vnode_of[i];

		model_settle_key(i, gone, reason, old[v] != owners[v]);
	}
	if (n != NULL) {
		memset(n->row, 0, sizeof(n->row));
		n->floor = 1;
	}
	count_changes(before);
}

static bool has_name(const struct mnode *except, int name)
{
	for (int i = 0; i < N_NODES; i++)
		if (&nodes[i] != except && nodes[i].up && nodes[i].name == name)
			return true;
	return false;
}

static void model_up(struct mnode *n, const struct keyset_up *up, int name)
{
	struct expected *e = &want[n_want++];
	bool same = n->known && up->boot == n->boot &&
		    memcmp(&up->life, &n->life, sizeof(up->life)) == 0;

	*e = (struct expected){.origin = {.id = up->id, .boot = up->boot}};
	if (has_name(n, name)) {
		e->rc = -EEXIST;
		return;
	}
	if (n->known && !same && up->boot <= n->boot) {
		e->rc = -ESTALE;
		return;
	}
	if (!same || !n->up) {
		if (!n->known)
			n->index = n_known++;
		n->known = n->up = true;
		n->name = name;
		n->life = up->life;
		n->boot = up->boot;
		n->weight = up->weight;
		n->client = up->is_client;
		n->draining = up->is_draining;
		n->epoch = index_now;
		model_settle(n, RING_RESTART);
	}
	e->origin.epoch = n->epoch;
}

#endif
