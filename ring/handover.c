/* SPDX-License-Identifier: MIT */
/* handover_timeout: a key that has been asked for that long is let go, as if the
 * worker had said so.
 *
 * The holder does it, by its own clock, from when it learned of the question,
 * and only inside its lease (holes.md 4). All wait equally long, so what is due
 * next stands at the front of a queue. Nothing leaves it before it was answered:
 * what could not be sent, or was not answered in time, goes again. */
#include <errno.h>
#include <stdlib.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"

#define RETRY_MS 1000

static struct ring_key *asked_for(const struct ring *r, const struct handed *h)
{
	struct ring_key *key = keyset_find_id(r->keys, h->id);

	return key != NULL && key->state == RING_RELEASING &&
			       key->holder == r->self &&
			       key->since_us == h->since_us
		       ? key
		       : NULL;
}

static void drop_front(struct handover *h, size_t n)
{
	h->head += n;
	h->n -= n;
	if (h->n == 0)
		h->head = 0;
}

static void make_room(struct handover *h)
{
	if (h->head > h->n) {
		memmove(h->items, h->items + h->head, h->n * sizeof(*h->items));
		h->head = 0;
	}
	h->items = ring_grown(h->items, h->head + h->n, &h->cap,
			      sizeof(*h->items));
}

void handover_on_key(struct ring *r, const struct ring_key *key)
{
	struct handover *h = &r->handover;
	uint32_t timeout_ms = ring_settings(r)->handover_timeout_ms;

	if (timeout_ms == 0 || key->state != RING_RELEASING ||
	    key->holder != r->self)
		return;
	make_room(h);
	h->items[h->head + h->n++] =
		(struct handed){.at_ms = r->now_ms + timeout_ms,
				.id = key->id,
				.since_us = key->since_us};
}

void handover_start(struct ring *r)
{
	struct handover *h = &r->handover;
	size_t n;
	const uint64_t *ids =
		keyset_list(r->keys, RING_VIEW_RELEASE, r->self, &n);

	h->head = h->n = h->n_sent = 0;
	for (size_t i = 0; i < n; i++)
		handover_on_key(r, keyset_find_id(r->keys, ids[i]));
}

static void on_done(struct ring_request *req)
{
	struct ring *r = req->data;
	struct handover *h = &r->handover;

	h->is_busy = false;
	if (req->rc == 0)
		drop_front(h, h->n_sent);
	else
		h->retry_ms = r->now_ms + RETRY_MS;
	h->n_sent = 0;
}

/* What is due, as far as one request takes it. */
static size_t take_due(struct ring *r)
{
	struct handover *h = &r->handover;
	size_t n_ops = 0, i;

	for (i = 0; i < h->n && n_ops < HANDOVER_OPS; i++) {
		const struct handed *item = &h->items[h->head + i];
		const struct ring_key *key = asked_for(r, item);

		if (item->at_ms > r->now_ms)
			break;
		if (key != NULL)
			h->ops[n_ops++] = (struct ring_op){.type = RING_LET,
							   .name = key->name,
							   .id = key->id,
							   .token = key->token};
	}
	if (n_ops == 0)
		drop_front(h, i);
	else
		h->n_sent = i;
	return n_ops;
}

uint64_t handover_next_ms(const struct ring *r)
{
	const struct handover *h = &r->handover;

	if (h->n == 0 || h->is_busy || !r->shows)
		return UINT64_MAX;
	return h->items[h->head].at_ms > h->retry_ms ? h->items[h->head].at_ms
						     : h->retry_ms;
}

void handover_run(struct ring *r)
{
	struct handover *h = &r->handover;

	if (r->now_ms < handover_next_ms(r))
		return;
	size_t n_ops = take_due(r);

	if (n_ops == 0)
		return;
	h->is_busy = true;
	h->req = (struct ring_request){
		.ops = h->ops, .n_ops = n_ops, .cb = on_done, .data = r};
	ring_submit(r, r->now_ms, &h->req);
}

void handover_destroy(struct ring *r)
{
	free(r->handover.items);
}
