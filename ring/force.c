/* SPDX-License-Identifier: MIT */
/* Finishing what other nodes hold. No entry takes a key from a node that is up,
 * but its own (holes.md 4): so the holder is asked to finish it, and hides it
 * first, as always.
 *
 *   ring_force: the lives are noted; each looks at the machine, whenever that has
 *               gone on, and acts by what it says of the life:
 *   over:       done. By whom does not matter: it was asked for, and is so
 *   ours, parked,
 *   nobody's:   a request of our own
 *   another's:  FINISH to that node, again and again; it answers by the log. Not
 *               while SWIM says that it is dead: then an heir is waited for
 *
 * and each way to fail:
 *   another token:        ENOENT, if one was named
 *   our request refused:  what that says
 *   deadline:             EHOSTUNREACH, nothing was sent; else ETIMEDOUT
 *   caller interrupted:   EINTR; nobody is asked any more
 *   closing:              ECANCELED
 *
 * A life is asked for by its id, which no other ever has: a FINISH that comes
 * late or twice finishes that life, or nothing. */
#include <assert.h>
#include <errno.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"

/* A life that is to be finished. */
struct forced {
	uint64_t id, token;
	bool is_settled, is_local; /* local: in our own request */
	bool was_sent;
	int rc;
};

struct force {
	struct ring *r;
	struct ring_request *req; /* NULL: nobody waits any more */
	struct forced *items;
	size_t n, n_open;
	struct ring_request local; /* our own, while is_local */
	struct ring_op *ops;
	bool is_local;
	uint64_t deadline_ms, again_ms, index; /* index: that was looked at */
	struct force *next;
};

/* What is said to one node. */
struct letter {
	uint32_t node;
	struct buf b;
};

static void force_free(struct ring *r, struct force *f)
{
	struct force **at = &r->forces;

	assert(!f->is_local);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	free(f->items);
	free(f->ops);
	free(f);
}

/* Who must finish key: as the machine's op_finish has it. */
static uint32_t whose(const struct ring_key *key)
{
	return key->submitting ? key->claimer : key->holder;
}

static void settle(struct force *f, struct forced *item, int rc)
{
	if (item->is_settled)
		return;
	item->is_settled = true;
	item->rc = rc;
	f->n_open--;
}

/* ---- Our own part ---- */

static void on_local(struct ring_request *req)
{
	struct force *f = req->data;

	f->is_local = false;
	f->index = 0; /* look again */
	f->r->is_stirred = true;
	for (size_t i = 0; i < f->n; i++) {
		struct forced *item = &f->items[i];

		if (item->is_local && req->rc != 0)
			settle(f, item, item->was_sent ? -ETIMEDOUT : req->rc);
		item->is_local = false;
	}
	if (f->req == NULL)
		force_free(f->r, f);
}

static void put_local(struct force *f, struct forced *item,
		      const struct ring_key *key)
{
	if (f->ops == NULL)
		f->ops = xcalloc(f->n, sizeof(*f->ops));
	item->is_local = true;
	f->ops[f->local.n_ops++] = (struct ring_op){.type = RING_FINISH,
						    .name = key->name,
						    .id = item->id,
						    .token = item->token};
}

static void submit_local(struct force *f)
{
	if (f->is_local || f->local.n_ops == 0)
		return;
	f->is_local = true;
	f->local.ops = f->ops;
	f->local.cb = on_local;
	f->local.data = f;
	ring_submit(f->r, f->r->now_ms, &f->local);
}

/* ---- Asking others ---- */

struct letters {
	struct letter *at;
	size_t n, cap;
};

static bool is_in_reach(const struct ring *r, uint32_t node)
{
	const struct member *m =
		member_find(r, &keyset_node(r->keys, node)->id);

	return m == NULL || m->state <= RING_MEMBER_SUSPECT;
}

static void put_letter(const struct ring *r, struct letters *l, uint32_t node,
		       struct forced *item)
{
	size_t i = 0;

	if (!is_in_reach(r, node))
		return;
	while (i < l->n && l->at[i].node != node)
		i++;
	if (i == l->n) {
		l->at = ring_grown(l->at, l->n, &l->cap, sizeof(*l->at));
		l->at[l->n++] = (struct letter){.node = node};
		peer_put_kind(&l->at[i].b, PEER_FINISH);
	}
	peer_put_life(&l->at[i].b, item->id, item->token);
	item->was_sent = true;
}

static void send_letters(struct ring *r, struct letters *l)
{
	for (size_t i = 0; i < l->n; i++) {
		ring_send(r, &keyset_node(r->keys, l->at[i].node)->id,
			  &l->at[i].b);
		free(l->at[i].b.base);
	}
	free(l->at);
}

/* ---- Looking ---- */

static void look_at(struct force *f, struct forced *item, struct letters *l)
{
	struct ring *r = f->r;
	const struct ring_key *key = keyset_find_id(r->keys, item->id);

	if (item->is_settled || item->is_local)
		return;
	if (key == NULL) {
		settle(f, item, 0);
	} else if (item->token != 0 && item->token != key->token) {
		settle(f, item, -ENOENT);
	} else if (r->now_ms >= f->deadline_ms) {
		settle(f, item, item->was_sent ? -ETIMEDOUT : -EHOSTUNREACH);
	} else if (whose(key) == RING_NONE || whose(key) == r->self) {
		if (!f->is_local)
			put_local(f, item, key);
	} else if (l != NULL) {
		put_letter(r, l, whose(key), item);
	}
}

static void look(struct force *f)
{
	struct ring *r = f->r;
	struct letters letters = {0};
	bool again = r->now_ms >= f->again_ms;

	if (!again && f->index == keyset_index(r->keys) &&
	    r->now_ms < f->deadline_ms)
		return;
	f->index = keyset_index(r->keys);
	if (again)
		f->again_ms = r->now_ms + REPEAT_MS;
	if (!f->is_local)
		f->local = (struct ring_request){0};
	for (size_t i = 0; i < f->n; i++)
		look_at(f, &f->items[i], again ? &letters : NULL);
	send_letters(r, &letters);
	submit_local(f);
}

static void reply(struct force *f)
{
	for (size_t i = 0; i < f->n; i++)
		f->req->ops[i].rc = f->items[i].rc;
	f->req->force = NULL;
	request_answer(f->r, f->req, 0);
	force_free(f->r, f);
}

void force_run(struct ring *r)
{
	struct force *next;

	for (struct force *f = r->forces; f != NULL; f = next) {
		next = f->next;
		if (f->req == NULL)
			continue;
		look(f);
		if (f->n_open == 0 && !f->is_local)
			reply(f);
	}
}

uint64_t force_next_ms(const struct ring *r)
{
	uint64_t next = UINT64_MAX;

	for (const struct force *f = r->forces; f != NULL; f = f->next) {
		if (f->req == NULL)
			continue;
		if (f->again_ms < next)
			next = f->again_ms;
		if (f->deadline_ms < next && f->deadline_ms > r->now_ms)
			next = f->deadline_ms;
	}
	return next;
}

/* ---- The holder ---- */

/* What another node wants to be finished, and we have. */
struct wanted {
	struct ring_request req;
	struct ring_op ops[];
};

static void on_finished(struct ring_request *req)
{
	free(req->data); /* who asked hears of it by the log, or asks again */
}

/* Not what is on its way out already. */
static bool is_ours(const struct ring *r, const struct ring_key *key,
		    uint64_t token)
{
	return key != NULL && r->is_up && whose(key) == r->self &&
	       !(key->hidden & HIDDEN_LEAVING) &&
	       (token == 0 || token == key->token);
}

void force_on_finish(struct ring *r, struct reader *body)
{
	size_t most = reader_left(body) / (2 * sizeof(uint64_t));
	uint64_t id, token;

	if (most == 0 || most > RING_OPS_MAX)
		return;
	struct wanted *w = xcalloc(1, sizeof(*w) + most * sizeof(w->ops[0]));

	w->req = (struct ring_request){
		.ops = w->ops, .cb = on_finished, .data = w};
	while (peer_next_life(body, &id, &token)) {
		const struct ring_key *key = keyset_find_id(r->keys, id);

		if (is_ours(r, key, token))
			w->ops[w->req.n_ops++] =
				(struct ring_op){.type = RING_FINISH,
						 .name = key->name,
						 .id = key->id,
						 .token = key->token};
	}
	if (w->req.n_ops > 0)
		ring_submit(r, r->now_ms, &w->req);
	else
		free(w);
}

/* ---- The public calls ---- */

void ring_force(struct ring *r, uint64_t now_ms, struct ring_request *req)
{
	assert(req->n_ops >= 1 && req->n_ops <= RING_OPS_MAX);
	r->now_ms = now_ms;
	int rc = request_refusal(r, req);

	if (rc != 0) {
		request_answer(r, req, rc);
		return;
	}
	struct force *f = xcalloc(1, sizeof(*f));

	*f = (struct force){.r = r,
			    .req = req,
			    .n = req->n_ops,
			    .n_open = req->n_ops,
			    .deadline_ms = now_ms + r->config.op_timeout_ms,
			    .next = r->forces};
	f->items = xcalloc(f->n, sizeof(*f->items));
	for (size_t i = 0; i < f->n; i++) {
		assert(req->ops[i].type == RING_FINISH && req->ops[i].id != 0);
		f->items[i].id = req->ops[i].id;
		f->items[i].token = req->ops[i].token;
	}
	req->pending = NULL;
	req->force = f;
	r->forces = f;
	r->is_stirred = true;
}

static void let_go(struct force *f, int rc)
{
	struct ring_request *req = f->req;

	f->req = NULL;
	req->force = NULL;
	request_answer(f->r, req, rc);
	if (!f->is_local)
		force_free(f->r, f);
}

void force_abandon(struct ring_request *req)
{
	let_go(req->force, -EINTR);
}

void force_cancel_all(struct ring *r)
{
	struct force *next;

	for (struct force *f = r->forces; f != NULL; f = next) {
		next = f->next;
		if (f->req != NULL)
			let_go(f, -ECANCELED);
	}
}
