/* SPDX-License-Identifier: MIT */
/* What other nodes ask the leader to put in the log. It waits here until there
 * is room in flight, as our own requests do. Losing it is harmless, so it is
 * bounded, and gone with the leadership: the nodes ask again. */
#include <assert.h>
#include <string.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"

#define INBOX_BYTES (32u << 20)

static bool is_same(const struct keyset_origin *a,
		    const struct keyset_origin *b)
{
	return a->seq == b->seq && a->epoch == b->epoch &&
	       ring_same(&a->id, &b->id);
}

/* A life that is over is refused by the machine; that needs no entry. */
static bool is_up(const struct ring *r, const struct keyset_origin *o)
{
	const struct ring_node *n =
		keyset_node(r->keys, keyset_find_node(r->keys, &o->id));

	return n != NULL && n->up && n->boot == o->boot && n->epoch == o->epoch;
}

void inbox_push(struct ring *r, const struct peer_item *item)
{
	if (r->inbox_bytes > INBOX_BYTES || !is_up(r, &item->origin))
		return;
	for (const struct inbox_item *i = r->inbox; i != NULL; i = i->next)
		if (is_same(&i->origin, &item->origin))
			return;
	struct inbox_item *i = xmalloc(sizeof(*i) + item->len);

	*i = (struct inbox_item){
		.origin = item->origin, .n_ops = item->n_ops, .len = item->len};
	memcpy(i->bytes, item->bytes, item->len);
	r->inbox_bytes += i->len;
	*r->inbox_tail = i;
	r->inbox_tail = &i->next;
}

size_t inbox_peek(const struct ring *r, struct buf *b, size_t max_bytes,
		  size_t *n_ops)
{
	size_t n = 0, bytes = 0;

	*n_ops = 0;
	for (const struct inbox_item *i = r->inbox; i != NULL; i = i->next) {
		if (n > 0 && (bytes + i->len > max_bytes ||
			      *n_ops + i->n_ops > RING_OPS_MAX))
			break;
		buf_put(b, i->bytes, i->len);
		bytes += i->len;
		*n_ops += i->n_ops;
		n++;
	}
	return n;
}

void inbox_drop(struct ring *r, size_t n)
{
	for (; n > 0; n--) {
		struct inbox_item *i = r->inbox;

		r->inbox = i->next;
		r->inbox_bytes -= i->len;
		free(i);
	}
	if (r->inbox == NULL)
		r->inbox_tail = &r->inbox;
}

void inbox_clear(struct ring *r)
{
	while (r->inbox != NULL)
		inbox_drop(r, 1);
	assert(r->inbox_bytes == 0);
}
