/* SPDX-License-Identifier: MIT */
/* Asking for changes, once each.
 *
 *   ring_submit: copied into a ring_pending with the next sequence number
 *   ring_flush:  all that wait become one entry, given to the group; or, on a
 *                node that does not lead, one message to the leader, which
 *                makes the entry (inbox.c)
 *   applied:     request_on_answer finds the pending one by its number
 *   ring_wake:   the callback runs, after the group has returned
 *
 * and each way to fail:
 *   not ready:           refused at once, nothing was done
 *   another leader:      sent again under the same number (exactly once)
 *   no answer:           the leader is sent it again, each REPEAT_MS
 *   no leader for long,
 *   or deadline, not sent: -EROFS, dropped
 *   deadline, sent:      -ETIMEDOUT; abandoned
 *   the log has failed:  as at the deadline, at once
 *   our life is over:    -EROFS; nothing of it can take effect any more, and
 *                        what took effect before was answered before
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

#define ORPHAN_RETRY_MS 1000
#define ITEM_BYTES	64 /* about, of a request beside names and notes */

/* ---- Answering: later, never from inside a call of ours ---- */

void request_answer(struct ring *r, struct ring_request *req, int rc)
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

/* How many of p's operations may take a key away from this node. */
static size_t n_taking(const struct ring_pending *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_ops; i++)
		n += p->ops[i].type >= RING_GIVE;
	return n;
}

static void unlink_pending(struct ring *r, struct ring_pending *p)
{
	r->n_taking -= n_taking(p);
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
	request_answer(r, p->req, rc);
	p->req = NULL;
	r->n_abandoned++;
}

/* May op take key from this node, by what is known here? A key that is given
 * back for the last time is parked; a take on its way counts as one more. */
static bool may_leave(const struct ring *r, const struct ring_op *op,
		      const struct ring_key *key)
{
	if ((op->id != 0 && op->id != key->id) ||
	    (op->token != 0 && op->token != key->token))
		return false;
	if (op->type == RING_GIVE)
		return key->attempts + 1u >= ring_settings(r)->max_attempts;
	return op->type == RING_FINISH || op->type == RING_LET ||
	       op->type == RING_PARK;
}

/* Keys that are about to leave vanish first (holes.md 4): before anyone else
 * can have applied it, and shown them, or claimed or retried them. Gives: it is
 * shown again, which another operation may have hidden, too. */
static bool set_leaving(struct ring *r, const struct ring_op *op, bool on)
{
	if (op->type < RING_GIVE)
		return false;
	struct ring_key *key = keyset_find(r->keys, op->name, strlen(op->name));

	if (key == NULL || key->holder != r->self ||
	    (on && !may_leave(r, op, key)))
		return false; /* off: its token may be another by now */
	bool was = key->hidden & HIDDEN_LEAVING;

	if (on)
		key->hidden |= HIDDEN_LEAVING;
	else
		key->hidden &= (uint8_t)~HIDDEN_LEAVING;
	return was && !on;
}

/* key has come, or changed: what is on its way may mean it since. */
void request_hide(struct ring *r, const struct ring_key *key)
{
	const struct ring_pending *p = r->n_taking > 0 ? r->pending : NULL;

	for (; p != NULL; p = p->next)
		for (size_t i = 0; i < p->n_ops; i++)
			if (p->ops[i].type >= RING_GIVE &&
			    strcmp(p->ops[i].name, key->name) == 0)
				set_leaving(r, &p->ops[i], true);
}

/* For keys that were shown again, which other requests have hidden, too. */
static void set_all_leaving(struct ring *r)
{
	for (struct ring_pending *p = r->pending; p != NULL; p = p->next)
		for (size_t i = 0; i < p->n_ops; i++)
			set_leaving(r, &p->ops[i], true);
}

/* p did nothing, and never will. Say set_all_leaving() after the last. */
static void drop(struct ring *r, struct ring_pending *p, int rc)
{
	if (p->req != NULL)
		request_answer(r, p->req, rc);
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

bool request_may_have_made(const struct ring *r, const struct ring_key *key)
{
	if (key->claimer != r->self)
		return false;
	for (const struct ring_pending *p = r->pending; p; p = p->next)
		for (size_t i = 0; p->tried && i < p->n_ops; i++)
			if ((p->ops[i].type == RING_CLAIM ||
			     p->ops[i].type == RING_SUBMIT) &&
			    strcmp(p->ops[i].name, key->name) == 0)
				return true;
	return false;
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

/* A message of which all was answered is no more in flight. An entry is when it
 * was applied: ring.c counts those. */
static void set_unsent(struct ring *r, struct ring_pending *p)
{
	r->in_flight -= p->last_of_batch;
	p->last_of_batch = p->sent = false;
}

/* A key of that name may be there also after it was taken away: another one.
 * Gives: as set_leaving(). */
static bool take_answer(struct ring *r, struct ring_pending *p, size_t i,
			const struct keyset_answer *a)
{
	if (p->req != NULL) {
		struct ring_op *op = &p->req->ops[i];

		op->rc = a->rc;
		op->got_id = a->id;
		op->got_token = a->token;
	}
	return set_leaving(r, &p->ops[i], false);
}

/* Of a key that was there before its answer. */
static void settle(struct ring *r, const struct ring_pending *p, size_t i,
		   const struct keyset_answer *a)
{
	const struct ring_op *op = &p->ops[i];

	if (op->type == RING_CLAIM || op->type == RING_SUBMIT)
		view_settle(r, op->name,
			    p->req == NULL && a->rc == 0 &&
				    makes_orphan(r, op, a));
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
	bool shown = false;

	r->applying = NULL;
	if (origin->seq == 0) {
		life_on_up_answer(r, origin, rc);
		member_on_up_answer(r, &origin->id, rc);
	}
	if (origin->seq == 0)
		return;
	if (!is_ours(r, origin)) {
		if (r->group_status.is_leader)
			group_hurry(r->group, &origin->id);
		return;
	}
	struct ring_pending *p = find_pending(r, origin->seq);

	if (p == NULL) /* a repeat, answered before */
		return;
	set_unsent(r, p);
	if (rc == -EAGAIN) /* too many answers are kept: the floor rises */
		return;
	assert(rc != 0 || n == p->n_ops);
	unlink_pending(r, p);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		shown |= take_answer(r, p, i, &answers[i]);
		settle(r, p, i, &answers[i]);
	}
	for (size_t i = 0; rc != 0 && i < p->n_ops; i++)
		shown |= set_leaving(r, &p->ops[i], false);
	/* Refused whole: this life was declared over; nothing was done. */
	if (p->req != NULL)
		request_answer(r, p->req, rc == 0 ? 0 : -EROFS);
	else if (rc == 0)
		add_orphan(r, p, answers);
	r->stalled = false;
	pending_free(p);
	if (shown)
		set_all_leaving(r);
}

/* ---- Sending ---- */

static uint64_t floor_of(const struct ring *r)
{
	return r->pending != NULL ? r->pending->seq : r->next_seq;
}

/* An entry is applied in one go, so it is bounded in operations too. */
static bool may_send(const struct ring *r, const struct ring_pending *p,
		     size_t entry_bytes, size_t entry_ops)
{
	return p->seq < floor_of(r) + KEYSET_WINDOW &&
	       (entry_bytes == 0 || (entry_bytes + p->bytes < ENTRY_BYTES &&
				     entry_ops + p->n_ops <= RING_OPS_MAX));
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

/* What is sent at once: requests in a row, as items in b. */
struct batch {
	struct ring_pending *first, *end; /* end: the first that is not in it */
	struct buf *b;
};

/* What waits, as far as it may be sent; b has n_ops operations of others before.
 * False: nothing. */
static bool put_batch(struct ring *r, struct batch *batch, size_t n_ops)
{
	struct ring_pending *p = r->pending;
	size_t bytes = batch->b->len;

	if (n_ops == 0)
		bytes = 0;
	while (p != NULL && p->sent)
		p = p->next;
	batch->first = batch->end = p;
	for (; p != NULL && !p->sent && may_send(r, p, bytes, n_ops);
	     p = p->next) {
		put_request(r, batch->b, p);
		bytes += p->bytes + ITEM_BYTES;
		n_ops += p->n_ops;
		batch->end = p->next;
	}
	return batch->first != batch->end;
}

static struct ring_pending *mark_sent(struct ring *r, const struct batch *batch)
{
	struct ring_pending *last = NULL;

	for (struct ring_pending *p = batch->first; p != batch->end;
	     p = p->next) {
		p->sent = p->tried = true;
		p->sent_ms = r->now_ms;
		last = p;
	}
	return last;
}

/* One entry of what others ask and of what waits here. While both wait, others
 * get half of it. False: nothing was sent. */
static bool propose_batch(struct ring *r)
{
	struct buf b = {0};
	struct batch batch = {.b = &b};
	size_t n_ops, n;

	ring_begin_entry(r, &b);
	n = inbox_peek(r, &b, r->pending ? ENTRY_BYTES / 2 : ENTRY_BYTES,
		       &n_ops);
	bool ours = r->is_up && put_batch(r, &batch, n_ops);

	if ((n == 0 && !ours) || ring_propose(r, &b) != 0) {
		free(b.base);
		return false;
	}
	inbox_drop(r, n);
	if (ours)
		mark_sent(r, &batch);
	return true;
}

static bool send_batch(struct ring *r)
{
	struct buf b = {0};
	struct batch batch = {.b = &b};

	peer_put_kind(&b, PEER_ITEMS);
	if (put_batch(r, &batch, 0)) {
		mark_sent(r, &batch)->last_of_batch = true;
		r->in_flight++;
		ring_send(r, &r->group_status.leader, &b);
	}
	free(b.base);
	return batch.first != batch.end;
}

void request_flush(struct ring *r)
{
	const struct group_status *s = &r->group_status;

	if (s->is_leader)
		while (r->in_flight < IN_FLIGHT_MAX && propose_batch(r))
			;
	else if (r->is_up && s->has_leader && !ring_is_self(r, &s->leader))
		while (r->in_flight < IN_FLIGHT_MAX && send_batch(r))
			;
}

/* Another leader: what was sent may be lost, so it goes again. */
void request_unsend(struct ring *r)
{
	for (struct ring_pending *p = r->pending; p != NULL; p = p->next)
		p->sent = p->last_of_batch = false;
	r->in_flight = 0;
}

/* Bytes may be lost, and the leader may have had no room. */
static void unsend_old(struct ring *r)
{
	if (r->group_status.is_leader)
		return;
	for (struct ring_pending *p = r->pending; p != NULL; p = p->next)
		if (p->sent && r->now_ms - p->sent_ms >= REPEAT_MS)
			set_unsent(r, p);
}

void request_doubt(struct ring *r)
{
	for (struct ring_pending *p = r->pending; p != NULL; p = p->next)
		p->in_doubt = p->tried;
}

void request_life_over(struct ring *r, bool is_known)
{
	while (r->pending != NULL) {
		struct ring_pending *p = r->pending;

		drop(r, p,
		     p->in_doubt || (p->tried && !is_known) ? -ETIMEDOUT
							    : -EROFS);
	}
	r->in_flight = 0;
	r->stalled = false;
}

void request_tick(struct ring *r)
{
	bool failed = ring_health(r) == RING_FAILED;
	bool hopeless = failed || status_is_leaderless(r);
	bool shown = false;
	struct ring_pending *p, *next;

	for (p = r->pending; p != NULL; p = next) {
		bool due = r->now_ms >= p->deadline_ms;

		next = p->next;
		if (!p->tried && (due || hopeless)) {
			drop(r, p, -EROFS);
			shown = true;
		} else if (!p->late && (due || failed)) {
			p->late = r->stalled = true;
			if (p->req != NULL)
				abandon(r, p, -ETIMEDOUT);
		}
	}
	if (shown)
		set_all_leaving(r);
	unsend_old(r);
	request_retry_orphans(r);
}

uint64_t request_next_ms(const struct ring *r)
{
	uint64_t next = UINT64_MAX;

	for (const struct ring_pending *p = r->pending; p; p = p->next) {
		if (!p->late && p->deadline_ms < next)
			next = p->deadline_ms;
		if (p->sent && !r->group_status.is_leader &&
		    p->sent_ms + REPEAT_MS < next)
			next = p->sent_ms + REPEAT_MS;
	}
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
			request_answer(r, p->req, -ECANCELED);
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

static bool makes_keys(const struct ring_request *req)
{
	for (size_t i = 0; i < req->n_ops; i++)
		if (req->ops[i].type == RING_CLAIM ||
		    req->ops[i].type == RING_SUBMIT)
			return true;
	return false;
}

int request_refusal(const struct ring *r, const struct ring_request *req)
{
	switch (ring_health(r)) {
	case RING_JOINING:
		if (!r->has_shown || makes_keys(req))
			return -EAGAIN;
		break;
	case RING_DRAINING:
		if (makes_keys(req))
			return -EROFS;
		break;
	case RING_ISOLATED:
	case RING_FAILED:
		return -EROFS;
	case RING_FULL:
		return -ENOSPC;
	case RING_READY:
		break;
	}
	return ring_has_room(r, copy_size(req->ops, req->n_ops) +
					ITEM_BYTES * req->n_ops)
		       ? 0
		       : -ENOSPC;
}

void ring_submit(struct ring *r, uint64_t now_ms, struct ring_request *req)
{
	uint64_t deadline = now_ms + r->config.op_timeout_ms;

	assert(req->n_ops >= 1 && req->n_ops <= RING_OPS_MAX);
	r->now_ms = now_ms;
	int rc = request_refusal(r, req);

	if (rc != 0) {
		request_answer(r, req, rc);
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
	r->n_taking += n_taking(p);
	for (size_t i = 0; i < p->n_ops; i++)
		set_leaving(r, &p->ops[i], true);
}

void ring_abandon(struct ring *r, struct ring_request *req)
{
	struct ring_pending *p = req->pending;

	if (req->force != NULL)
		force_abandon(req);
	if (p == NULL) /* its answer is on its way */
		return;
	if (p->tried) {
		abandon(r, p, -EINTR);
	} else {
		drop(r, p, -EINTR);
		set_all_leaving(r);
	}
}
