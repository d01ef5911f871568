/* SPDX-License-Identifier: MIT */
/* The machine: entries in, answers out, and what can be read of it.
 *
 * Exactly once (holes.md 11, 25): rows of answers, one per request, live in a
 * window of sequence numbers above the origin's floor. A row is found by its
 * number modulo the window, so two requests can never want the same place. */
#include "ring/keyset_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "ring/mem.h"

struct keyset *keyset_create(const struct keyset_events *events)
{
	struct keyset *k = xcalloc(1, sizeof(*k));

	k->events = *events;
	index_init(k);
	return k;
}

void keyset_destroy(struct keyset *k)
{
	if (k == NULL)
		return;
	index_finish(k);
	for (uint32_t i = 0; i < k->n_nodes; i++)
		keyset_node_free(k->nodes[i]);
	free(k->nodes);
	free(k->owners);
	free(k->scratch.base);
	ids_finish(&k->dirty);
	ids_finish(&k->ended);
	free(k);
}

/* ---- Answers ---- */

/* seq u64 | n u32 | n times: rc i32, id u64, token u64 */
void row_put(struct buf *b, const struct row *row)
{
	buf_u64(b, row->seq);
	buf_u32(b, row->n);
	for (uint32_t i = 0; i < row->n; i++) {
		buf_u32(b, (uint32_t)row->answers[i].rc);
		buf_u64(b, row->answers[i].id);
		buf_u64(b, row->answers[i].token);
	}
}

static struct row **row_place(const struct node *n, uint64_t seq)
{
	return &n->rows[seq % KEYSET_WINDOW];
}

void row_insert(struct keyset *k, uint32_t node, struct row *row)
{
	struct node *n = k->nodes[node];
	struct buf b = {0};

	if (n->rows == NULL)
		n->rows = xcalloc(KEYSET_WINDOW, sizeof(struct row *));
	assert(*row_place(n, row->seq) == NULL);
	*row_place(n, row->seq) = row;
	n->n_answers += row->n;

	row_put(&b, row);
	row->sum = XXH3_64bits_withSeed(b.base, b.len, node);
	free(b.base);
	k->row_sum += row->sum;
}

static void row_drop(struct keyset *k, struct node *n, uint64_t seq)
{
	struct row *row = *row_place(n, seq);

	if (row == NULL)
		return;
	*row_place(n, seq) = NULL;
	n->n_answers -= row->n;
	k->row_sum -= row->sum;
	free(row);
}

void rows_clear(struct keyset *k, struct node *n)
{
	for (uint64_t i = 0; n->rows != NULL && i < KEYSET_WINDOW; i++)
		row_drop(k, n, i);
	n->floor = 1;
}

static void raise_floor(struct keyset *k, struct node *n, uint64_t floor)
{
	uint64_t end = floor;

	if (floor <= n->floor)
		return;
	if (end - n->floor > KEYSET_WINDOW)
		end = n->floor + KEYSET_WINDOW;
	for (uint64_t seq = n->floor; n->rows != NULL && seq < end; seq++)
		row_drop(k, n, seq);
	n->floor = floor;
}

/* 0: carry it out, or repeat its answer. Else the refusal of the whole. */
static int request_check(struct keyset *k, const struct item *item,
			 uint32_t node)
{
	const struct keyset_origin *o = &item->origin;
	struct node *n;

	if (node == RING_NONE)
		return -ENOTCONN;
	n = k->nodes[node];
	if (o->boot < n->pub.boot)
		return -ESTALE;
	if (!n->pub.up || o->boot != n->pub.boot || o->epoch != n->pub.epoch)
		return -ENOTCONN;
	raise_floor(k, n, o->floor);
	if (o->seq < n->floor)
		return -ESTALE;
	if (o->seq - n->floor >= KEYSET_WINDOW)
		return -EAGAIN;
	if (n->rows != NULL && *row_place(n, o->seq) != NULL)
		return 0;
	return n->n_answers + item->n_ops > KEYSET_ANSWERS_MAX ? -EAGAIN : 0;
}

static void answer(struct keyset *k, const struct keyset_origin *origin, int rc,
		   const struct row *row)
{
	if (k->events.on_answer != NULL)
		k->events.on_answer(k->events.data, origin, rc,
				    row != NULL ? row->answers : NULL,
				    row != NULL ? row->n : 0);
}

/* An offer right behind a submission of the same name, in one request, means the
 * life that this has made. When it has made none, another's is not to be
 * completed for him. */
static bool is_void(const struct entry_op *op, const struct entry_op *last,
		    int32_t last_rc)
{
	return op->type == RING_OFFER && op->id == 0 &&
	       last->type == RING_SUBMIT && last_rc != 0 &&
	       op->name_len == last->name_len &&
	       memcmp(op->name, last->name, op->name_len) == 0;
}

static struct row *request_run(struct keyset *k, const struct item *item,
			       uint32_t node, struct reader *r)
{
	size_t size =
		sizeof(struct row) + item->n_ops * sizeof(struct keyset_answer);
	struct row *row = xmalloc(size);

	row->seq = item->origin.seq;
	row->n = item->n_ops;
	if (k->events.on_request != NULL)
		k->events.on_request(k->events.data, &item->origin);
	struct entry_op op, last = {0};

	for (uint32_t i = 0; i < row->n; i++, last = op) {
		struct keyset_answer *a = &row->answers[i];

		entry_op(r, &op);
		if (i > 0 && is_void(&op, &last, a[-1].rc))
			*a = (struct keyset_answer){.rc = -ENOENT};
		else
			keyset_op(k, node, &op, a);
	}
	row_insert(k, node, row);
	return row;
}

static void request(struct keyset *k, const struct item *item, struct reader *r)
{
	uint32_t node = keyset_find_node(k, &item->origin.id);
	int rc = request_check(k, item, node);
	struct node *n = node != RING_NONE ? k->nodes[node] : NULL;
	struct row *row = NULL;

	if (rc == 0 && n->rows != NULL)
		row = *row_place(n, item->origin.seq);
	if (rc == 0 && row == NULL) {
		row = request_run(k, item, node, r);
	} else {
		struct entry_op op;

		for (uint32_t i = 0; i < item->n_ops; i++)
			entry_op(r, &op);
	}
	answer(k, &item->origin, rc, row);
}

/* ---- Entries ---- */

static void start(struct keyset *k, const struct item *item)
{
	k->started = true;
	k->cluster = item->cluster;
	k->settings = item->settings;
	keyset_place_alloc(k);
}

/* Settings come once, before anything else. The shape is known to be right. */
static bool fits(const struct keyset *k, const void *entry, size_t len)
{
	struct reader r = reader_of(entry, len);
	struct entry_head head;
	struct item item;

	entry_head(&r, &head);
	if (!entry_next(&r, &item))
		return true;
	return (item.type == ITEM_SETTINGS) != k->started;
}

int keyset_apply(struct keyset *k, uint64_t index, const void *entry,
		 size_t len)
{
	struct reader r = reader_of(entry, len);
	struct entry_head head;
	struct item item;

	assert(index > k->index && !k->loading);
	if (keyset_check(entry, len) != 0 || !fits(k, entry, len))
		return -EBADMSG;
	entry_head(&r, &head);
	k->index = index;
	k->wall_us = head.wall_us;
	if (head.now_ms > k->now_ms)
		k->now_ms = head.now_ms;
	while (entry_next(&r, &item)) {
		if (item.type == ITEM_SETTINGS) {
			start(k, &item);
		} else if (item.type == ITEM_UP) {
			int rc = keyset_node_up(k, &item);

			answer(k, &item.origin, rc, NULL);
		} else if (item.type == ITEM_DOWN) {
			keyset_node_down(k, &item);
		} else if (item.type == ITEM_SHARE) {
			keyset_node_share(k, &item);
		} else {
			request(k, &item, &r);
		}
	}
	assert(!r.bad);
	return 0;
}

/* ---- Reading ---- */

const struct ring_node *keyset_node(const struct keyset *k, uint32_t node)
{
	return node < k->n_nodes ? &k->nodes[node]->pub : NULL;
}

void keyset_get_up(const struct keyset *k, uint32_t node, struct keyset_up *out)
{
	const struct node *n = k->nodes[node];

	assert(node < k->n_nodes);
	*out = (struct keyset_up){.id = n->pub.id,
				  .life = n->life,
				  .boot = n->pub.boot,
				  .weight = n->pub.weight,
				  .grace_ms = n->grace_ms,
				  .is_client = n->pub.is_client,
				  .is_draining = n->pub.is_draining,
				  .name = n->pub.name};
	memcpy(out->host, n->host, sizeof(out->host));
}

uint32_t keyset_vnode_owner(const struct keyset *k, uint32_t vnode)
{
	if (!k->started || vnode >= k->settings.vnodes)
		return RING_NONE;
	return k->owners[vnode];
}

static const struct ids *view_list(const struct keyset *k, enum ring_view view,
				   uint32_t node)
{
	const struct node *n = node < k->n_nodes ? k->nodes[node] : NULL;

	switch (view) {
	case RING_VIEW_KEYS:
		return &k->all;
	case RING_VIEW_PARKED:
		return &k->parked;
	case RING_VIEW_OWNED:
		return n != NULL ? &n->held : NULL;
	case RING_VIEW_RECOVER:
		return n != NULL ? &n->offered : NULL;
	case RING_VIEW_RELEASE:
		return n != NULL ? &n->releasing : NULL;
	default:
		return NULL;
	}
}

const uint64_t *keyset_list(const struct keyset *k, enum ring_view view,
			    uint32_t node, size_t *n)
{
	const struct ids *list = view_list(k, view, node);

	*n = list != NULL ? list->n : 0;
	return list != NULL ? list->at : NULL;
}

const struct ring_settings *keyset_settings(const struct keyset *k)
{
	return k->started ? &k->settings : NULL;
}

const struct ring_id *keyset_cluster(const struct keyset *k)
{
	return k->started ? &k->cluster : NULL;
}

uint64_t keyset_index(const struct keyset *k)
{
	return k->index;
}

uint64_t keyset_epoch(const struct keyset *k)
{
	return k->epoch;
}

uint32_t keyset_most_up(const struct keyset *k)
{
	return k->most_up;
}

uint64_t keyset_now_ms(const struct keyset *k)
{
	return k->now_ms;
}
