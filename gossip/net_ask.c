/* SPDX-License-Identifier: MIT */
/* Questions in the lobby: a connection each, and ask_ms for all of it.
 *
 *	on_proof: our address, the question, with the last frame
 *	on_message: the answer; closed; on_end: cb
 *
 *	too many at a time, no key, nobody there, not taken: its rc
 *	ask_ms are over: -ETIMEDOUT
 *	it closes, or says its last, without an answer: -ECONNRESET, -EPROTO
 *	net_close(): -ECANCELED */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/mem.h"
#include "gossip/net_impl.h"

struct net_ask {
	net_answer_cb cb;
	void *data;
	bool has_answer;
	size_t len; /* of the question; then of the answer */
	uint8_t bytes[NET_ASK_MAX];
};

static void on_proof(struct net_conn *c)
{
	struct net_message m = {NET_LOBBY, c->ask->bytes, c->ask->len};

	net_conn_say_address(c);
	net_conn_say(c, &m, NET_PIECE_FIRST | NET_PIECE_LAST, true);
}

static int on_message(struct net_conn *c, const struct net_message *m)
{
	struct net_ask *a = c->ask;

	if (m->topic != NET_LOBBY)
		return -EPROTO;
	assert(m->len <= sizeof(a->bytes) && !a->has_answer);
	memcpy(a->bytes, m->bytes, m->len);
	a->len = m->len;
	a->has_answer = true;
	net_conn_close(c, 0);
	return 0;
}

static void on_last(struct net_conn *c)
{
	net_conn_close(c, -EPROTO);
}

static void fill(struct net_conn *c)
{
	(void)c; /* the question was said at once */
}

static void on_flushed(struct net_conn *c)
{
	(void)c; /* the answer comes */
}

static void on_time(struct net_conn *c)
{
	net_conn_close(c, -ETIMEDOUT);
}

static void on_closing(struct net_conn *c)
{
	c->n->n_asks--;
}

static void on_end(struct net_conn *c)
{
	struct net_ask *a = c->ask;
	int rc = c->rc == 0 && !a->has_answer ? -ECONNRESET : c->rc;

	a->cb(a->data, rc, c->reason, rc == 0 ? a->bytes : NULL,
	      rc == 0 ? a->len : 0);
	free(a);
}

const struct net_kind net_ask_kind = {
	.name = "to the lobby of",
	.is_caller = true,
	.on_proof = on_proof,
	.on_message = on_message,
	.on_last = on_last,
	.fill = fill,
	.on_flushed = on_flushed,
	.on_time = on_time,
	.on_closing = on_closing,
	.on_end = on_end,
};

void net_ask(struct net *n, const struct gossip_addr *to, const void *bytes,
	     size_t len, net_answer_cb cb, void *data)
{
	struct net_ask *a = xcalloc(1, sizeof(*a));
	struct net_conn *c = net_conn_create(n, &net_ask_kind);

	assert(len <= NET_ASK_MAX);
	a->cb = cb;
	a->data = data;
	a->len = len;
	if (len > 0)
		memcpy(a->bytes, bytes, len);
	c->ask = a;
	c->peer = *to;
	c->is_timed = true;
	if (++n->n_asks > n->limits.n_asks) {
		net_conn_close(c, -ENOBUFS);
		return;
	}
	if (n->is_closing) {
		net_conn_close(c, -ECANCELED);
		return;
	}
	net_conn_wait(c, n->limits.ask_ms);
	net_conn_call(c, n->config.lobby, NULL);
}
