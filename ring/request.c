/* SPDX-License-Identifier: MIT */
/* Asking for changes, once each.
 *
 *   ring_submit: copied into a ring_pending with the next sequence number
 *   ring_flush:  all that wait become one entry, given to the group
 *   applied:     request_on_answer finds the pending one by its number
 *   ring_wake:   the callback runs, after the group has returned
 *
 * and each way to fail:
 *   not ready:           refused at once, nothing was done
 *   leadership lost:     sent again under the same number (exactly once)
 *   deadline, not sent:  -EROFS, dropped
 *   deadline, sent:      -ETIMEDOUT; abandoned
 *   the log has failed:  as at the deadline, at once
 *   caller interrupted:  -EINTR; abandoned if it was sent, else dropped
 *   abandoned claims and submissions: adopted by a repeat of the same caller, or
 *                        hidden from the moment they are applied, and finished
 *                        (holes.md 24)
 *   closing:             -ECANCELED
 *
 * Sent is sent: what was proposed in a leadership that is over may be in the log
 * all the same. And what is abandoned keeps its deadline: callers who never wait
 * that long must not hide that the log is stuck. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"

#define IN_FLIGHT_MAX	4	   /* entries proposed and not yet applied */
#define ENTRY_BYTES	(4u << 20) /* no request is added beyond this */
#define ORPHAN_RETRY_MS 1000

/* ---- Answering: later, never from inside a call of ours ---- */

static void answer(struct ring *r, struct ring_request *req, int rc)
{
	req->rc = rc;
	req->pending = NULL;
	req->next = NULL;
	*r->done_tail = req;
	r->done_tail = &req->next;
}

void request_run_done(struct ring *r)
{
	while (r->done != NULL) {
		struct ring_request *req = r->done;

		r->done = req->next;
		if (r->done == NULL)
			r->done_tail = &r->done;
		req->cb(req);
	}
}

/* ---- Pending requests ---- */

static size_t copy_size(const struct ring_op *ops, size_t n)
{
	size_t size = 0;

	for (size_t i = 0; i < n; i++)
		size += strlen(ops[i].name) + 1 + ops[i].note_len;
	return size;
}

/* Names and notes are the caller's only until ring_submit returns. */
static struct ring_pending *pending_of(struct ring_request *req)
{
	struct ring_pending *p = xcalloc(1, sizeof(*p));

	p->req = req;
	p->n_ops = req->n_ops;
	p->ops = xcalloc(req->n_ops, sizeof(*p->ops));
	p->bytes = copy_size(req->ops, req->n_ops);
	p->copies = xmalloc(p->bytes);
	char *at = p->copies;

	for (size_t i = 0; i < req->n_ops; i++) {
		struct ring_op *op = &p->ops[i];
		size_t len = strlen(req->ops[i].name) + 1;

		*op = req->ops[i];
		op->name = memcpy(at, op->name, len);
		at += len;
		if (op->note_len > 0) {
			op->note = memcpy(at, op->note, op->note_len);
			at += op->note_len;
		}
	}
	return p;
}

static void pending_free(struct ring_pending *p)
{
	free(p->ops);
	free(p->copies);
	free(p);
}

static void unlink_pending(struct ring *r, struct ring_pending *p)
{
	*p->at = p->next;
	if (p->next != NULL)
		p->next->at = p->at;
	else
		r->pending_tail = p->at;
	r->n_abandoned -= p->req == NULL;
}

static struct ring_pending *find_pending(const struct ring *r, uint64_t seq)
{
	struct ring_pending *p = r->pending;

	while (p != NULL && p->seq != seq)
		p = p->next;
	return p;
}

/* Nobody waits for p any more. */
static void abandon(struct ring *r, struct ring_pending *p, int rc)
{
	assert(p->req != NULL);
	answer(r, p->req, rc);
	p->req = NULL;
	r->n_abandoned++;
}

/* Keys that are about to leave vanish first (holes.md 4): before anyone else
 * can have applied it, and shown them. */
static void set_leaving(struct ring *r, const struct ring_op *op, bool on)
{
	if (op->type != RING_FINISH && op->type != RING_LET)
		return;
	struct ring_key *key = keyset_find(r->keys, op->name, strlen(op->name));

	if (key == NULL || key->holder != r->self ||
	    (op->id != 0 && op->id != key->id) ||
	    (op->token != 0 && op->token != key->token))
		return;
	if (on)
		key->hidden |= HIDDEN_LEAVING;
	else
		key->hidden &= (uint8_t)~HIDDEN_LEAVING;
}

static void drop_unsent(struct ring *r, struct ring_pending *p, int rc)
{
	answer(r, p->req, rc);
	for (size_t i = 0; i < p->n_ops; i++)
		set_leaving(r, &p->ops[i], false);
	unlink_pending(r, p);
	pending_free(p);
}

/* ---- Abandoned claims ---- */

/* A claim or a submission, by itself: what open(2) of a new name is. */
static bool is_lone_claim(const struct ring_op *ops, size_t n)
{
	return n == 1 && ops[0].note_len == 0 &&
	       (ops[0].type == RING_CLAIM || ops[0].type == RING_SUBMIT);
}

/* The same again, by the same user, while the first is still under way: one and
 * the same. A shell whose open was interrupted opens again. */
static bool adopt(struct ring *r, struct ring_request *req, uint64_t deadline)
{
	if (r->n_abandoned == 0 || !is_lone_claim(req->ops, req->n_ops))
		return false;
	for (struct ring_pending *p = r->pending; p != NULL; p = p->next) {
		if (p->req != NULL || !is_lone_claim(p->ops, p->n_ops) ||
		    p->ops[0].type != req->ops[0].type ||
		    strcmp(p->ops[0].name, req->ops[0].name) != 0 ||
		    p->ops[0].uid != req->ops[0].uid)
			continue;
		p->req = req;
		p->deadline_ms = deadline;
		p->late = false;
		req->pending = p;
		r->n_abandoned--;
		return true;
	}
	return false;
}

bool request_is_abandoned(const struct ring *r, const struct ring_key *key)
{
	const struct ring_pending *p = r->applying;

	/* A submission in a batch is completed by the same batch. */
	return p != NULL && p->req == NULL &&
	       (!key->submitting || p->n_ops == 1);
}

/* The keys that one request has claimed for a caller who is gone. */
struct orphan {
	struct ring_request req;
	struct ring_op *ops; /* the request's, made into finishes */
	char *copies;	     /* and its names */
	size_t n_ops;
	struct ring *r;
	uint64_t retry_ms; /* 0: the finish is under way */
	struct orphan *next;
};

static void orphan_free(struct orphan *o)
{
	free(o->ops);
	free(o->copies);
	free(o);
}

static void on_orphan_done(struct ring_request *req)
{
	struct orphan *o = req->data;
	struct orphan **at = &o->r->orphans;

	if (req->rc != 0 && req->rc != -ECANCELED) {
		o->retry_ms = o->r->now_ms + ORPHAN_RETRY_MS;
		return;
	}
	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	orphan_free(o);
}

/* A claim, or a submission that will not be completed. */
static bool makes_orphan(const struct ring *r, const struct ring_op *op,
			 const struct keyset_answer *a)
{
	const struct ring_key *key = keyset_find_id(r->keys, a->id);

	return op->type == RING_CLAIM ||
	       (op->type == RING_SUBMIT && key != NULL && key->submitting);
}

static void finish_orphan(struct orphan *o)
{
	o->retry_ms = 0;
	o->req = (struct ring_request){
		.ops = o->ops,
		.n_ops = o->n_ops,
		.cb = on_orphan_done,
		.data = o,
	};
	ring_submit(o->r, o->r->now_ms, &o->req);
}

/* Of what p, which nobody waits for, has claimed. Takes its operations. */
static void add_orphan(struct ring *r, struct ring_pending *p,
		       const struct keyset_answer *a)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_ops; i++)
		if (a[i].rc == 0 && makes_orphan(r, &p->ops[i], &a[i]))
			p->ops[n++] = (struct ring_op){
				.type = RING_FINISH,
				.name = p->ops[i].name,
				.id = a[i].id,
				.token = a[i].token,
			};
	if (n == 0)
		return;
	struct orphan *o = xcalloc(1, sizeof(*o));

	*o = (struct orphan){
		.ops = p->ops, .copies = p->copies, .n_ops = n, .r = r};
	p->ops = NULL;
	p->copies = NULL;
	o->retry_ms = r->now_ms; /* by ring_wake: not from inside apply */
	o->next = r->orphans;
	r->orphans = o;
}

void request_retry_orphans(struct ring *r)
{
	for (struct orphan *o = r->orphans; o != NULL; o = o->next)
		if (o->retry_ms != 0 && r->now_ms >= o->retry_ms)
			finish_orphan(o);
}

/* ---- Answers ---- */

static bool is_ours(const struct ring *r, const struct keyset_origin *o)
{
	const struct ring_node *self = keyset_node(r->keys, r->self);

	return self != NULL && o->boot == self->boot &&
	       o->epoch == self->epoch &&
	       memcmp(&o->id, &self->id, sizeof(o->id)) == 0;
}

static void take_answer(struct ring *r, struct ring_pending *p, size_t i,
			const struct keyset_answer *a)
{
	if (p->req != NULL) {
		struct ring_op *op = &p->req->ops[i];

		op->rc = a->rc;
		op->got_id = a->id;
		op->got_token = a->token;
	}
	if (a->rc != 0)
		set_leaving(r, &p->ops[i], false);
}

void request_on_request(void *ring, const struct keyset_origin *origin)
{
	struct ring *r = ring;

	r->applying = origin->seq != 0 && is_ours(r, origin)
			      ? find_pending(r, origin->seq)
			      : NULL;
}

void request_on_answer(void *ring, const struct keyset_origin *origin, int rc,
		       const struct keyset_answer *answers, size_t n)
{
	struct ring *r = ring;

	r->applying = NULL;
	if (origin->seq == 0)
		ring_on_up(r, origin, rc);
	if (origin->seq == 0 || !is_ours(r, origin))
		return;
	struct ring_pending *p = find_pending(r, origin->seq);

	if (p == NULL) /* a repeat, answered before */
		return;
	r->in_flight -= p->last_of_entry;
	p->last_of_entry = false;
	if (rc == -EAGAIN) { /* too many answers are kept: the floor rises */
		p->sent = false;
		return;
	}
	assert(rc != 0 || n == p->n_ops);
	for (size_t i = 0; rc == 0 && i < n; i++)
		take_answer(r, p, i, &answers[i]);
	for (size_t i = 0; rc != 0 && i < p->n_ops; i++)
		set_leaving(r, &p->ops[i], false);
	/* Refused whole: this life was declared over; nothing was done. */
	if (p->req != NULL)
		answer(r, p->req, rc == 0 ? 0 : -EROFS);
	else if (rc == 0)
		add_orphan(r, p, answers);
	r->stalled = false;
	unlink_pending(r, p);
	pending_free(p);
}

/* ---- Sending ---- */

static uint64_t floor_of(const struct ring *r)
{
	return r->pending != NULL ? r->pending->seq : r->next_seq;
}

static bool may_send(const struct ring *r, const struct ring_pending *p,
		     size_t entry_bytes)
{
	return p->seq < floor_of(r) + KEYSET_WINDOW &&
	       (entry_bytes == 0 || entry_bytes + p->bytes < ENTRY_BYTES);
}

static void put_request(struct ring *r, struct buf *b,
			const struct ring_pending *p)
{
	const struct ring_node *self = keyset_node(r->keys, r->self);
	struct keyset_origin origin = {.id = self->id,
				       .boot = self->boot,
				       .epoch = self->epoch,
				       .seq = p->seq,
				       .floor = floor_of(r)};

	keyset_put_request(b, &origin, p->ops, p->n_ops);
}

/* One entry of what waits, in a row. False: nothing was sent. */
static bool send_entry(struct ring *r, uint64_t wall_us)
{
	struct ring_pending *p = r->pending, *first, *last = NULL;
	struct buf b = {0};
	size_t bytes = 0;

	while (p != NULL && p->sent)
		p = p->next;
	first = p;
	if (first == NULL || !may_send(r, first, 0))
		return false;
	keyset_entry_begin(&b, ring_machine_ms(r), wall_us);
	for (; p != NULL && !p->sent && may_send(r, p, bytes); p = p->next) {
		put_request(r, &b, p);
		bytes += p->bytes + 64;
		last = p;
	}
	if (group_propose(r->group, r->now_ms, &b) != 0) {
		free(b.base);
		return false;
	}
	for (struct ring_pending *q = first; q != last->next; q = q->next)
		q->sent = q->tried = true;
	last->last_of_entry = true;
	r->in_flight++;
	return true;
}

void request_flush(struct ring *r, uint64_t wall_us)
{
	if (r->self != RING_NONE)
		while (r->in_flight < IN_FLIGHT_MAX && send_entry(r, wall_us))
			;
}

/* Leadership was lost: what was proposed may be gone, so it goes again. */
void request_unsend(struct ring *r)
{
	for (struct ring_pending *p = r->pending; p != NULL; p = p->next)
		p->sent = p->last_of_entry = false;
	r->in_flight = 0;
}

void request_tick(struct ring *r)
{
	bool failed = ring_health(r) == RING_FAILED;
	struct ring_pending *p, *next;

	for (p = r->pending; p != NULL; p = next) {
		next = p->next;
		if (p->late || (!failed && r->now_ms < p->deadline_ms))
			continue;
		if (!p->tried) {
			drop_unsent(r, p, -EROFS);
			continue;
		}
		p->late = r->stalled = true;
		if (p->req != NULL)
			abandon(r, p, -ETIMEDOUT);
	}
	request_retry_orphans(r);
}

uint64_t request_next_ms(const struct ring *r)
{
	uint64_t next = UINT64_MAX;

	for (const struct ring_pending *p = r->pending; p; p = p->next)
		if (!p->late && p->deadline_ms < next)
			next = p->deadline_ms;
	for (const struct orphan *o = r->orphans; o != NULL; o = o->next)
		if (o->retry_ms != 0 && o->retry_ms < next)
			next = o->retry_ms;
	return next;
}

void request_cancel_all(struct ring *r)
{
	while (r->pending != NULL) {
		struct ring_pending *p = r->pending;

		if (p->req != NULL)
			answer(r, p->req, -ECANCELED);
		unlink_pending(r, p);
		pending_free(p);
	}
	request_run_done(r);
	while (r->orphans != NULL) {
		struct orphan *o = r->orphans;

		r->orphans = o->next;
		orphan_free(o);
	}
}

/* ---- The public calls ---- */

static int refusal(const struct ring *r, const struct ring_request *req)
{
	switch (ring_health(r)) {
	case RING_JOINING:
		return -EAGAIN;
	case RING_ISOLATED:
	case RING_FAILED:
		return -EROFS;
	case RING_FULL:
		return -ENOSPC;
	case RING_READY:
		break;
	}
	return ring_has_room(r,
			     copy_size(req->ops, req->n_ops) + 64 * req->n_ops)
		       ? 0
		       : -ENOSPC;
}

void ring_submit(struct ring *r, uint64_t now_ms, struct ring_request *req)
{
	uint64_t deadline = now_ms + r->config.op_timeout_ms;

	assert(req->n_ops >= 1 && req->n_ops <= RING_OPS_MAX);
	r->now_ms = now_ms;
	int rc = refusal(r, req);

	if (rc != 0) {
		answer(r, req, rc);
		return;
	}
	if (adopt(r, req, deadline))
		return;
	struct ring_pending *p = pending_of(req);

	p->seq = r->next_seq++;
	p->deadline_ms = deadline;
	req->pending = p;
	p->at = r->pending_tail;
	*p->at = p;
	r->pending_tail = &p->next;
	for (size_t i = 0; i < p->n_ops; i++)
		set_leaving(r, &p->ops[i], true);
}

void ring_abandon(struct ring *r, struct ring_request *req)
{
	struct ring_pending *p = req->pending;

	if (p == NULL) /* its answer is on its way */
		return;
	if (p->tried)
		abandon(r, p, -EINTR);
	else
		drop_unsent(r, p, -EINTR);
}
