/* SPDX-License-Identifier: MIT */
/* A ring of three nodes for tests of the tree: all of ring.h that the tree
 * calls, in memory, with the answers the test wants, when it wants them.
 *
 * We are node 0, "one". The vnode of a name is its first byte, and fake_owner
 * says whose that is: at first all are ours but those of names that begin with
 * 'r' (node 1, "two") and '!' (nobody). Any key can be put into any state, those
 * included that a single node never sees.
 *
 * Strict where a real ring only forbids: names and notes are copied in
 * ring_submit() and nothing of the caller's is read later, and every turn moves
 * all keys, so that a sanitizer sees a pointer that was kept too long.
 *
 * Defines ring_...(): include it in one file of a program. The archive's own are
 * left out then, since nothing asks for them any more. */
#ifndef TESTS_UNIT_FAKE_RING_H
#define TESTS_UNIT_FAKE_RING_H

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/util.h"
#include "ring/ring.h"

enum {
	FAKE_NODES = 3,
	FAKE_KEYS = 1024,
	FAKE_VNODES = 256,
	FAKE_SECOND_US = 1000000,
};

struct ring_pending {
	struct ring_op *ops; /* copies, names and notes included */
	size_t n;
	bool force;    /* of ring_force */
	int abandoned; /* 0, or how it is answered */
};

struct ring {
	/* What the test decides: how requests are answered, 0 being the truth.
	 * They are carried out all the same if `done` is set, as after an answer
	 * that got lost. Claims of callers who are gone never are. */
	int refuse;    /* whole requests */
	int refuse_op; /* each operation */
	bool done;
	bool brief; /* what is made is finished, by others, before the answer */

	struct ring_key *keys[FAKE_KEYS];
	size_t n_keys;
	struct ring_node nodes[FAKE_NODES];
	uint32_t self;
	uint32_t owners[FAKE_VNODES];
	struct ring_status status;
	struct ring_settings settings;
	uint64_t last_token;
	uint64_t now_us; /* wall clock: a second more in every turn */
	struct ring_request *first, **last;
	size_t n_submitted; /* requests so far */
	bool telling;
	void (*on_change)(void *data, const struct ring_change *change);
	void *data;
};

/* ---- Keys ---- */

static inline struct ring_key **fake_at(const struct ring *r, const char *name)
{
	for (size_t i = 0; i < r->n_keys; i++)
		if (strcmp(r->keys[i]->name, name) == 0)
			return (struct ring_key **)&r->keys[i];
	return NULL;
}

static inline struct ring_key *fake_get(const struct ring *r, const char *name)
{
	struct ring_key **at = fake_at(r, name);

	return at == NULL ? NULL : *at;
}

static inline unsigned fake_views(const struct ring *r,
				  const struct ring_key *key)
{
	unsigned views = 1u << RING_VIEW_KEYS;

	if (key->state == RING_PARKED)
		return views | 1u << RING_VIEW_PARKED;
	if (key->holder != r->self || key->submitting || key->hidden)
		return views;
	if (key->state == RING_OFFERED)
		return key->backoff_ms ? views
				       : views | 1u << RING_VIEW_RECOVER;
	views |= 1u << RING_VIEW_OWNED;
	return key->state == RING_RELEASING ? views | 1u << RING_VIEW_RELEASE
					    : views;
}

static inline void fake_tell(struct ring *r, struct ring_change change)
{
	if (r->on_change == NULL ||
	    (change.before == change.after && !change.note))
		return;
	r->telling = true;
	r->on_change(r->data, &change);
	r->telling = false;
}

/* A new key, held by us; not told yet. */
static inline struct ring_key *fake_new(struct ring *r, const char *name)
{
	size_t len = strlen(name);
	struct ring_key *key = xcalloc(1, sizeof(*key) + len + 1);

	assert(r->n_keys < FAKE_KEYS);
	key->id = key->token = ++r->last_token;
	key->claimed_us = key->since_us = key->note_us = r->now_us;
	key->holder = key->claimer = r->self;
	key->from = RING_NONE;
	key->vnode = (uint8_t)name[0];
	key->name_len = (uint8_t)len;
	memcpy(key->name, name, len + 1);
	r->keys[r->n_keys++] = key;
	return key;
}

static inline void fake_free(struct ring_key *key)
{
	free(key->note);
	free(key);
}

static inline void fake_remove(struct ring *r, struct ring_key **at)
{
	struct ring_key *key = *at;
	unsigned before = fake_views(r, key);

	*at = r->keys[--r->n_keys];
	fake_tell(r, (struct ring_change){
			     .key = key, .before = before, .removed = true});
	fake_free(key);
}

static inline void fake_set_note(struct ring_key *key, const void *note,
				 size_t len)
{
	free(key->note);
	key->note = NULL;
	key->note_len = (uint32_t)len;
	if (len > 0)
		key->note = memcpy(xmalloc(len), note, len);
}

/* ---- What others do ---- */

/* A key in any state, of uid, with a note. Gives its life. */
static inline uint64_t fake_key(struct ring *r, const char *name,
				enum ring_state state, uint32_t holder,
				const char *note)
{
	struct ring_key *key = fake_new(r, name);

	key->state = (uint8_t)state;
	key->holder = holder;
	key->uid = key->gid = 1000;
	fake_set_note(key, note, strlen(note));
	fake_tell(r, (struct ring_change){.key = key,
					  .after = fake_views(r, key)});
	return key->id;
}

/* The same life under a new token, in another state, with another holder. */
static inline void fake_pass(struct ring *r, const char *name,
			     enum ring_state state, uint32_t holder)
{
	struct ring_key *key = fake_get(r, name);
	unsigned before = fake_views(r, key);

	if (key->holder != holder)
		key->from = key->holder;
	key->state = (uint8_t)state;
	key->holder = holder;
	key->token = ++r->last_token;
	fake_tell(r, (struct ring_change){.key = key,
					  .before = before,
					  .after = fake_views(r, key)});
}

static inline void fake_end(struct ring *r, const char *name)
{
	fake_remove(r, fake_at(r, name));
}

/* ---- Operations ---- */

static inline int fake_create(struct ring *r, const struct ring_op *op)
{
	uint32_t owner = r->owners[(uint8_t)op->name[0]];

	if (fake_at(r, op->name) != NULL)
		return -EEXIST;
	if (op->type == RING_CLAIM && owner != r->self &&
	    r->settings.claims == RING_CLAIMS_OWNER)
		return -EREMOTE;
	if (r->n_keys == FAKE_KEYS)
		return -ENOSPC;
	struct ring_key *key = fake_new(r, op->name);

	key->uid = op->uid;
	key->gid = op->gid;
	if (op->type == RING_SUBMIT) {
		key->state = RING_OFFERED;
		key->reason = RING_SUBMITTED;
		key->holder = owner;
		key->submitting = 1;
	}
	fake_set_note(key, op->note, op->note_len);
	fake_tell(r, (struct ring_change){.key = key,
					  .after = fake_views(r, key)});
	return 0;
}

/* May we do op to key? */
static inline bool fake_may(const struct ring *r, const struct ring_key *key,
			    const struct ring_op *op)
{
	bool ours = key->holder == r->self;
	bool works = ours &&
		     (key->state == RING_HELD || key->state == RING_RELEASING);
	bool offered = ours && key->state == RING_OFFERED && !key->submitting;

	switch (op->type) {
	case RING_OFFER:
		return key->submitting;
	case RING_NOTE:
		return works || key->submitting;
	case RING_TAKE:
		return offered;
	case RING_GIVE:
		return works;
	case RING_PARK:
		return works || offered;
	case RING_RETRY:
		return key->state == RING_PARKED;
	case RING_LET:
		return ours && key->state == RING_RELEASING;
	default:
		return true;
	}
}

static inline void fake_change(struct ring *r, struct ring_key *key,
			       const struct ring_op *op)
{
	unsigned before = fake_views(r, key);

	switch (op->type) {
	case RING_OFFER:
		key->submitting = 0;
		break;
	case RING_NOTE:
		fake_set_note(key, op->note, op->note_len);
		key->note_us = r->now_us;
		break;
	case RING_TAKE:
		fake_pass(r, key->name, RING_HELD, r->self);
		key->attempts++;
		return;
	case RING_GIVE:
		key->reason = RING_GIVEN_BACK;
		key->backoff_ms = 1000;
		key->state = RING_OFFERED;
		break;
	case RING_PARK:
		fake_pass(r, key->name, RING_PARKED, RING_NONE);
		return;
	case RING_RETRY:
		key->reason = RING_RETRIED;
		fake_pass(r, key->name, RING_OFFERED, r->owners[key->vnode]);
		return;
	case RING_LET:
		key->reason = RING_MOVED;
		fake_pass(r, key->name, RING_OFFERED, r->owners[key->vnode]);
		return;
	default:
		assert(!"an operation that changes a key");
	}
	fake_tell(r, (struct ring_change){.key = key,
					  .before = before,
					  .after = fake_views(r, key),
					  .note = op->type == RING_NOTE});
}

static inline int fake_op(struct ring *r, const struct ring_op *op,
			  struct ring_op *answer, bool force)
{
	struct ring_key **at = fake_at(r, op->name);
	int rc = 0;

	assert(op->name[0] != '\0' && strlen(op->name) <= RING_NAME_MAX &&
	       op->note_len <= RING_NOTE_MAX && op->type > 0 &&
	       op->type < RING_N_OPS);
	if (op->type == RING_CLAIM || op->type == RING_SUBMIT) {
		rc = fake_create(r, op);
		at = fake_at(r, op->name);
	} else if (at == NULL || (op->id != 0 && (*at)->id != op->id) ||
		   (op->token != 0 && (*at)->token != op->token) ||
		   !fake_may(r, *at, op)) {
		return -ENOENT;
	}
	if (at != NULL) {
		answer->got_id = (*at)->id;
		answer->got_token = (*at)->token;
	}
	if (op->type == RING_FINISH && (*at)->state != RING_PARKED && !force &&
	    (*at)->holder != r->self && !(*at)->submitting)
		return -EREMOTE;
	if (op->type == RING_FINISH)
		fake_remove(r, at);
	else if (op->type != RING_CLAIM && op->type != RING_SUBMIT)
		fake_change(r, *at, op);
	return rc;
}

/* ---- Turns ---- */

/* Whoever kept a pointer to a key has a bad one now. */
static inline void fake_move_keys(struct ring *r)
{
	for (size_t i = 0; i < r->n_keys; i++) {
		struct ring_key *key = r->keys[i];
		size_t size = sizeof(*key) + key->name_len + 1;
		struct ring_key *moved = memcpy(xmalloc(size), key, size);

		moved->note = NULL;
		fake_set_note(moved, key->note, key->note_len);
		fake_free(key);
		r->keys[i] = moved;
	}
}

static inline void fake_run(struct ring *r, struct ring_request *req)
{
	struct ring_pending *p = req->pending;

	req->rc = p->abandoned ? p->abandoned : r->refuse;
	for (size_t i = 0; i < p->n; i++) {
		bool makes = p->ops[i].type == RING_CLAIM ||
			     p->ops[i].type == RING_SUBMIT;
		struct ring_op *op = &req->ops[i];

		op->rc = r->refuse_op;
		if ((req->rc == 0 && op->rc == 0) ||
		    (r->done && !(p->abandoned && makes)))
			op->rc = fake_op(r, &p->ops[i], op, p->force);
		if (r->refuse_op != 0)
			op->rc = r->refuse_op;
		if (r->brief && makes && op->rc == 0)
			fake_end(r, p->ops[i].name);
	}
}

static inline void fake_pending_free(struct ring_pending *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free((char *)p->ops[i].name);
		free((void *)p->ops[i].note);
	}
	free(p->ops);
	free(p);
}

/* Answer the oldest request. False if there is none. */
static inline bool fake_answer(struct ring *r)
{
	struct ring_request *req = r->first;

	if (req == NULL)
		return false;
	r->first = req->next;
	if (r->first == NULL)
		r->last = &r->first;
	fake_run(r, req);
	fake_pending_free(req->pending);
	req->pending = NULL;
	fake_move_keys(r);
	req->cb(req);
	return true;
}

/* Answer what waits now, and not what comes of it. */
static inline void fake_turn(struct ring *r)
{
	size_t n = 0;

	r->now_us += FAKE_SECOND_US;
	fake_move_keys(r);
	for (const struct ring_request *q = r->first; q != NULL; q = q->next)
		n++;
	while (n-- > 0)
		fake_answer(r);
}

static inline struct ring *fake_create_ring(void)
{
	static const char *const names[FAKE_NODES] = {"one", "two", "three"};
	struct ring *r = xcalloc(1, sizeof(*r));

	r->last = &r->first;
	r->now_us = UINT64_C(1700000000) * FAKE_SECOND_US;
	for (uint32_t i = 0; i < FAKE_NODES; i++) {
		r->nodes[i] = (struct ring_node){
			.id = {{(uint8_t)(i + 1)}},
			.epoch = i + 1,
			.boot = 1,
			.up_us = r->now_us,
			.weight = 100,
			.n_vnodes = FAKE_VNODES / FAKE_NODES,
			.up = true,
		};
		snprintf(r->nodes[i].name, sizeof(r->nodes[i].name), "%s",
			 names[i]);
	}
	r->owners['r'] = 1;
	r->owners['!'] = RING_NONE;
	r->settings = (struct ring_settings){.vnodes = FAKE_VNODES,
					     .claims = RING_CLAIMS_OWNER,
					     .lease_ms = 1500,
					     .calm_ms = 500,
					     .max_attempts = 5};
	r->status = (struct ring_status){.health = RING_READY,
					 .reason = "all is well",
					 .term = 1,
					 .index = 1,
					 .epoch = 1,
					 .n_voters = 3};
	r->last_token = 100;
	return r;
}

static inline void fake_destroy_ring(struct ring *r)
{
	assert(r->first == NULL);
	for (size_t i = 0; i < r->n_keys; i++)
		fake_free(r->keys[i]);
	free(r);
}

/* ---- ring.h ---- */

void ring_submit(struct ring *r, uint64_t now_ms, struct ring_request *req)
{
	struct ring_pending *p = xcalloc(1, sizeof(*p));

	(void)now_ms;
	assert(!r->telling && req->n_ops >= 1 && req->n_ops <= RING_OPS_MAX);
	p->n = req->n_ops;
	p->ops = xcalloc(p->n, sizeof(*p->ops));
	for (size_t i = 0; i < p->n; i++) {
		p->ops[i] = req->ops[i];
		p->ops[i].name = xstrdup(req->ops[i].name);
		p->ops[i].note = NULL;
		if (req->ops[i].note_len > 0)
			p->ops[i].note =
				memcpy(xmalloc(req->ops[i].note_len),
				       req->ops[i].note, req->ops[i].note_len);
	}
	req->pending = p;
	req->next = NULL;
	*r->last = req;
	r->last = &req->next;
	r->n_submitted++;
}

void ring_force(struct ring *r, uint64_t now_ms, struct ring_request *req)
{
	ring_submit(r, now_ms, req);
	req->pending->force = true;
}

void ring_abandon(struct ring *r, struct ring_request *req)
{
	(void)r;
	assert(req->pending != NULL);
	req->pending->abandoned = -EINTR;
}

enum ring_role ring_node_role(const struct ring *r, uint32_t index)
{
	return index < FAKE_NODES && r->nodes[index].up ? RING_ROLE_VOTER
							: RING_ROLE_NONE;
}

int ring_leave(struct ring *r, uint64_t now_ms, bool force)
{
	(void)now_ms;
	if (r->n_keys > 0 && !force)
		return -EBUSY;
	r->status.is_leaving = true;
	return 0;
}

int ring_stay(struct ring *r, uint64_t now_ms)
{
	(void)now_ms;
	r->status.is_leaving = false;
	return 0;
}

void ring_drain(struct ring *r, uint64_t now_ms, bool on)
{
	(void)now_ms;
	r->nodes[r->self].is_draining = on;
	r->status.health = on ? RING_DRAINING : RING_READY;
}

int ring_set_weight(struct ring *r, uint64_t now_ms, uint32_t weight)
{
	(void)now_ms;
	if (weight > RING_WEIGHT_MAX)
		return -EINVAL;
	r->nodes[r->self].weight = weight;
	return 0;
}

const struct ring_key *ring_find(const struct ring *r, const char *name)
{
	return fake_get(r, name);
}

const struct ring_key *ring_find_id(const struct ring *r, uint64_t id)
{
	for (size_t i = 0; i < r->n_keys; i++)
		if (r->keys[i]->id == id)
			return r->keys[i];
	return NULL;
}

bool ring_shows(const struct ring *r, const struct ring_key *key,
		enum ring_view view)
{
	return fake_views(r, key) & 1u << view;
}

uint64_t *ring_list(const struct ring *r, enum ring_view view, size_t *n)
{
	uint64_t *ids = xcalloc(r->n_keys + 1, sizeof(*ids));

	*n = 0;
	for (size_t i = 0; i < r->n_keys; i++)
		if (ring_shows(r, r->keys[i], view))
			ids[(*n)++] = r->keys[i]->id;
	return ids;
}

size_t ring_count(const struct ring *r, enum ring_view view)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_keys; i++)
		n += ring_shows(r, r->keys[i], view);
	return n;
}

const struct ring_node *ring_node(const struct ring *r, uint32_t index)
{
	return index < FAKE_NODES ? &r->nodes[index] : NULL;
}

uint32_t ring_self(const struct ring *r)
{
	return r->self;
}

uint32_t ring_vnode(const struct ring *r, const char *name, size_t len)
{
	(void)r;
	return len > 0 ? (uint8_t)name[0] : 0;
}

uint32_t ring_vnode_owner(const struct ring *r, uint32_t vnode)
{
	assert(vnode < FAKE_VNODES);
	return r->owners[vnode];
}

const char *ring_state_name(enum ring_state state)
{
	static const char *const names[] = {"held", "offered", "releasing",
					    "parked"};

	return names[state];
}

const char *ring_reason_name(enum ring_reason reason)
{
	static const char *const names[] = {
		"claimed", "submitted", "dead",	      "left",
		"moved",   "restart",	"given-back", "retried"};

	return names[reason];
}

void ring_status(const struct ring *r, struct ring_status *out)
{
	*out = r->status;
}

const struct ring_settings *ring_settings(const struct ring *r)
{
	return &r->settings;
}

#endif
