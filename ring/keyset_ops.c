/* SPDX-License-Identifier: MIT */
/* One function per operation of a request (interface.md 2.1). Each looks at the
 * key as it is, answers with 0 or its one refusal, and changes it between
 * key_begin and key_end.
 *
 * Tokens come from one counter of the machine, so no life of a name ever has a
 * token of another: a claim and a submission take the next one, which is also
 * the id of the life; so does each take and each change of holder (parking
 * leaves a key without one). An offer given back to the same holder keeps its
 * token until it is taken. */
#include "ring/keyset_impl.h"

#include <errno.h>

#include "ring/place.h"

#define BACKOFF_MS     1000u
#define BACKOFF_MAX_MS 60000u

struct act {
	struct keyset *k;
	uint32_t node; /* who asks */
	const struct entry_op *op;
	struct ring_key *key; /* NULL: absent */
};

static uint32_t heir(const struct keyset *k, const struct ring_key *key)
{
	return k->owners[key->vnode];
}

static bool works_on(const struct act *a)
{
	return a->key->holder == a->node &&
	       (a->key->state == RING_HELD || a->key->state == RING_RELEASING);
}

static bool is_offered_to(const struct act *a)
{
	return a->key->holder == a->node && a->key->state == RING_OFFERED &&
	       !a->key->submitting;
}

static bool submits(const struct act *a)
{
	return a->key->submitting && a->key->claimer == a->node;
}

/* Claim or submit: the two that make a life. */
static int op_create(struct act *a)
{
	struct keyset *k = a->k;
	const struct entry_op *op = a->op;
	uint32_t vnode, owner;
	struct keyset_was was;

	if (a->key != NULL)
		return -EEXIST;
	vnode = place_vnode(op->name, op->name_len, k->settings.vnodes);
	owner = k->owners[vnode];
	if (op->type == RING_CLAIM && owner != a->node &&
	    k->settings.claims == RING_CLAIMS_OWNER)
		return -EREMOTE;

	a->key = key_create(k, a->node, op, &was);
	a->key->vnode = vnode;
	if (op->type == RING_CLAIM) {
		a->key->state = RING_HELD;
		a->key->holder = a->node;
		a->key->reason = RING_CLAIMED;
	} else {
		a->key->state = RING_OFFERED;
		a->key->holder = owner;
		a->key->reason = RING_SUBMITTED;
		a->key->submitting = true;
	}
	key_end(k, a->key, &was, op->note_len > 0);
	return 0;
}

static int op_offer(struct act *a)
{
	struct keyset_was was;

	if (!submits(a))
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	a->key->submitting = false;
	a->key->since_us = a->k->wall_us;
	key_end(a->k, a->key, &was, false);
	return 0;
}

static int op_note(struct act *a)
{
	struct keyset_was was;

	if (!works_on(a) && !submits(a))
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	key_set_note(a->k, a->key, a->op->note, a->op->note_len);
	a->key->note_us = a->k->wall_us;
	key_end(a->k, a->key, &was, true);
	return 0;
}

/* What is taken in a vnode that has moved meanwhile is asked for at once. */
static bool has_moved(const struct act *a)
{
	uint32_t owner = heir(a->k, a->key);

	return a->k->settings.claims == RING_CLAIMS_OWNER &&
	       owner != RING_NONE && owner != a->node;
}

static int op_take(struct act *a)
{
	struct keyset_was was;

	if (!is_offered_to(a))
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	a->key->token = ++a->k->token;
	a->key->state = has_moved(a) ? RING_RELEASING : RING_HELD;
	a->key->uid = a->op->uid;
	a->key->gid = a->op->gid;
	a->key->backoff_ms = 0;
	a->key->since_us = a->k->wall_us;
	if (a->key->attempts < UINT16_MAX)
		a->key->attempts++;
	key_end(a->k, a->key, &was, false);
	return 0;
}

static void park(struct act *a)
{
	key_pass(a->k, a->key, RING_PARKED, RING_NONE);
	a->key->token = ++a->k->token;
	a->key->backoff_ms = 0;
}

/* 1, 2, 4 ... s; a key that was claimed, not taken, counts as taken once. */
static uint32_t backoff(unsigned attempts)
{
	unsigned doublings = attempts > 1 ? attempts - 1 : 0;

	if (doublings >= 6)
		return BACKOFF_MAX_MS;
	return BACKOFF_MS << doublings;
}

static int op_give(struct act *a)
{
	struct keyset_was was;

	if (!works_on(a))
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	if (a->key->attempts >= a->k->settings.max_attempts) {
		park(a);
	} else {
		a->key->state = RING_OFFERED;
		a->key->backoff_ms = backoff(a->key->attempts);
		a->key->since_us = a->k->wall_us;
	}
	a->key->reason = RING_GIVEN_BACK;
	key_end(a->k, a->key, &was, false);
	return 0;
}

static int op_park(struct act *a)
{
	struct keyset_was was;

	if (!works_on(a) && !is_offered_to(a))
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	park(a);
	key_end(a->k, a->key, &was, false);
	return 0;
}

static int op_retry(struct act *a)
{
	struct keyset_was was;

	if (a->key->state != RING_PARKED)
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	key_pass(a->k, a->key, RING_OFFERED, heir(a->k, a->key));
	a->key->token = ++a->k->token;
	a->key->attempts = 0;
	a->key->reason = RING_RETRIED;
	key_end(a->k, a->key, &was, false);
	return 0;
}

static int op_let(struct act *a)
{
	struct keyset_was was;

	if (!works_on(a) || a->key->state != RING_RELEASING)
		return -ENOENT;
	key_begin(a->k, a->key, &was);
	key_pass(a->k, a->key, RING_OFFERED, heir(a->k, a->key));
	a->key->token = ++a->k->token;
	a->key->reason = RING_MOVED;
	key_end(a->k, a->key, &was, false);
	return 0;
}

static int op_finish(struct act *a)
{
	const struct ring_key *key = a->key;
	uint32_t whose = key->submitting ? key->claimer : key->holder;

	if (whose != RING_NONE && whose != a->node) /* parked: none */
		return -EREMOTE;
	key_destroy(a->k, a->key);
	a->key = NULL;
	return 0;
}

static int (*const op_run[RING_N_OPS])(struct act *a) = {
	[RING_CLAIM] = op_create, [RING_SUBMIT] = op_create,
	[RING_OFFER] = op_offer,  [RING_NOTE] = op_note,
	[RING_TAKE] = op_take,	  [RING_GIVE] = op_give,
	[RING_PARK] = op_park,	  [RING_RETRY] = op_retry,
	[RING_LET] = op_let,	  [RING_FINISH] = op_finish,
};

static bool creates(const struct entry_op *op)
{
	return op->type == RING_CLAIM || op->type == RING_SUBMIT;
}

static bool matches(const struct entry_op *op, const struct ring_key *key)
{
	return (op->id == 0 || op->id == key->id) &&
	       (op->token == 0 || op->token == key->token);
}

static void answer_key(struct keyset_answer *answer, const struct ring_key *key)
{
	if (key == NULL)
		return;
	answer->id = key->id;
	answer->token = key->token;
}

static int run(struct act *a, struct keyset_answer *answer)
{
	const struct entry_op *op = a->op;
	int rc = entry_name_check(op->name, op->name_len);

	if (rc != 0)
		return rc;
	if (op->note_len > RING_NOTE_MAX)
		return -EFBIG;
	a->key = keyset_find(a->k, op->name, op->name_len);
	if (!creates(op) && (a->key == NULL || !matches(op, a->key)))
		return -ENOENT;
	answer_key(answer, a->key); /* as it was, should this end it */
	rc = op_run[op->type](a);
	answer_key(answer, a->key);
	return rc;
}

void keyset_op(struct keyset *k, uint32_t node, const struct entry_op *op,
	       struct keyset_answer *answer)
{
	struct act a = {.k = k, .node = node, .op = op};
	int rc;

	*answer = (struct keyset_answer){0};
	rc = run(&a, answer);
	if (rc == -ENOENT)
		*answer = (struct keyset_answer){0};
	answer->rc = rc;
}
