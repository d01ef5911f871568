/* SPDX-License-Identifier: MIT */
/* Streams to others. A link is a queue, and while it has something to say, and
 * idle_ms after that, a connection.
 *
 *	net_send: queued -> no connection: call it
 *	on_proof: the address, then fill: messages in pieces, in order
 *	idle_ms without a word: the last frame, and the called closes
 *	net_reseal(): the same after the message under way; what is queued waits
 *	until the called has closed, and goes over a new connection
 *	net_close(): the same when the queue is empty
 *
 *	nobody answers, is not whom we expect, does not take us: the queue is
 *	  lost, and what comes is, for a pause of 100 ms, which doubles
 *	the connection breaks: the queue is lost; called again when there is
 *	  something to say, at once if it had lived for more than a second
 *	it does not close after the last frame: cut, as if it had
 *
 * A queue is lost as a whole, since what stands in it was said to a peer that is
 * there no more; callers repeat what still matters. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/mem.h"
#include "gossip/net_impl.h"

#define LIVED_MS 1000

struct message {
	struct message *next;
	uint8_t topic;
	size_t len;
	uint8_t bytes[];
};

struct net_link {
	struct net *n;
	struct net_link *next;
	struct gossip_addr to;
	struct gossip_id expect; /* zero: whoever it is */
	enum gossip_lane lane;
	struct net_conn *conn; /* NULL: none, and nothing is queued */
	struct message *first, **last;
	size_t at;     /* so much of the first was said */
	size_t queued; /* bytes, as cost() counts */
	uint64_t failed_ms;
	unsigned pause_ms; /* from failed_ms */
};

/* Of a queue's limit; empty messages cost too. */
static size_t cost(size_t len)
{
	return sizeof(struct message) + len;
}

static void pop(struct net_link *l)
{
	struct message *m = l->first;

	l->first = m->next;
	if (l->first == NULL)
		l->last = &l->first;
	l->at = 0;
	l->queued -= cost(m->len);
	l->n->queued -= cost(m->len);
	free(m);
}

static void drop_all(struct net_link *l)
{
	while (l->first != NULL) {
		pop(l);
		l->n->stats.n_dropped++;
	}
}

static bool is_paused(const struct net_link *l)
{
	return uv_now(l->n->config.loop) < l->failed_ms + l->pause_ms;
}

static void call(struct net_link *l)
{
	struct net *n = l->n;
	struct net_conn *c = net_conn_create(n, &net_link_kind);

	c->peer = l->to;
	c->link = l;
	l->conn = c;
	net_conn_wait(c, n->limits.connect_ms);
	net_conn_call(c, n->config.seal,
		      gossip_id_is_zero(&l->expect) ? NULL : &l->expect);
}

/* ---- What its connection tells ---- */

static void on_proof(struct net_conn *c)
{
	c->quiet_ms = c->n->limits.idle_ms;
	c->link->pause_ms = 0;
	net_conn_say_address(c);
}

static void say_piece(struct net_conn *c)
{
	struct net_link *l = c->link;
	const struct message *m = l->first;
	size_t left = m->len - l->at;
	size_t len = left < NET_PIECE_MAX ? left : NET_PIECE_MAX;
	struct net_message piece = {m->topic, m->bytes + l->at, len};
	unsigned flags = (l->at == 0 ? NET_PIECE_FIRST : 0) |
			 (len == left ? NET_PIECE_LAST : 0);

	net_conn_say(c, &piece, flags, false);
	l->at += len;
	if (len == left)
		pop(l);
}

static void say_last(struct net_conn *c)
{
	net_conn_say_last(c);
	c->quiet_ms = 0;
	net_conn_wait(c, c->n->limits.last_ms);
}

static void fill(struct net_conn *c)
{
	struct net_link *l = c->link;

	while (net_conn_has_room(c) && l->first != NULL &&
	       (l->at > 0 || !c->is_former))
		say_piece(c);
	bool is_done = c->is_former || (c->n->is_closing && l->first == NULL);
	if (is_done && l->at == 0 && !c->has_said_last)
		say_last(c);
}

static void on_flushed(struct net_conn *c)
{
	if (c->n->is_closing)
		net_conn_close(c, 0);
}

static void on_time(struct net_conn *c)
{
	if (c->has_said_last) {
		net_conn_close(c, 0);
	} else if (!c->has_proof || c->link->first != NULL) {
		net_conn_close(c, -ETIMEDOUT);
	} else {
		say_last(c);
		net_conn_pump(c);
	}
}

/* The called has nothing to say on it. */
static int on_message(struct net_conn *c, const struct net_message *m)
{
	(void)c;
	(void)m;
	return -EPROTO;
}

static void on_last(struct net_conn *c)
{
	net_conn_close(c, -ECONNRESET);
}

static void on_closing(struct net_conn *c)
{
	(void)c;
}

static void pause_after(struct net_link *l, const struct net_conn *c)
{
	const struct net_limits *limits = &l->n->limits;
	uint64_t now = uv_now(l->n->config.loop);
	char addr[GOSSIP_ADDR_SIZE];

	l->failed_ms = now;
	if (c->has_proof && now - c->since_ms >= LIVED_MS)
		l->pause_ms = 0;
	else if (c->has_proof || l->pause_ms == 0)
		l->pause_ms = limits->pause_min_ms;
	else if (l->pause_ms < limits->pause_max_ms)
		l->pause_ms *= 2;
	if (l->pause_ms > limits->pause_max_ms)
		l->pause_ms = limits->pause_max_ms;
	l->n->has_pause = true;
	if (c->reason != SEAL_OK)
		return; /* it was logged */
	net_addr_text(&l->to, addr);
	net_log(l->n, 7, "stream to %s: %s", addr, strerror(-c->rc));
}

static void on_end(struct net_conn *c)
{
	struct net_link *l = c->link;

	l->conn = NULL;
	if (c->rc == 0 && l->first != NULL && !l->n->is_closing) {
		l->at = 0;
		call(l);
		return;
	}
	drop_all(l);
	if (c->rc == 0)
		return;
	pause_after(l, c);
	if (l->n->config.on_stream_failed != NULL && !l->n->is_closing)
		l->n->config.on_stream_failed(l->n->config.data, &l->to);
}

const struct net_kind net_link_kind = {
	.name = "to",
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

/* ---- Links ---- */

void net_link_heard(struct net *n, const struct gossip_addr *addr)
{
	bool has_pause = false;

	for (struct net_link *l = n->has_pause ? n->links : NULL; l != NULL;
	     l = l->next) {
		/* Not less: it may hear us, and refuse streams. */
		if (gossip_addr_equal(&l->to, addr) &&
		    l->pause_ms > n->limits.pause_min_ms)
			l->pause_ms = n->limits.pause_min_ms;
		has_pause |= l->pause_ms > n->limits.pause_min_ms;
	}
	n->has_pause = has_pause;
}

void net_link_leave(struct net_conn *c)
{
	if (!c->has_proof && c->link->first == NULL)
		net_conn_close(c, 0);
	else
		net_conn_pump(c);
}

static void free_link(struct net *n, struct net_link **at)
{
	struct net_link *l = *at;

	assert(l->conn == NULL && l->first == NULL);
	*at = l->next;
	n->n_links--;
	free(l);
}

void net_link_free_all(struct net *n)
{
	while (n->links != NULL)
		free_link(n, &n->links);
}

/* Those without a connection, unless their pause is still to be remembered. */
static void sweep(struct net *n)
{
	uint64_t now = uv_now(n->config.loop);
	struct net_link **at = &n->links;

	while (*at != NULL) {
		const struct net_link *l = *at;
		if (l->conn == NULL && (l->pause_ms == 0 ||
					now >= l->failed_ms + l->pause_ms +
							n->limits.pause_max_ms))
			free_link(n, at);
		else
			at = &(*at)->next;
	}
}

static struct net_link *find(struct net *n, const struct gossip_addr *to,
			     const struct gossip_id *expect,
			     enum gossip_lane lane)
{
	struct net_link *l = n->links;

	while (l != NULL &&
	       (l->lane != lane || !gossip_addr_equal(&l->to, to) ||
		!gossip_id_equal(&l->expect, expect)))
		l = l->next;
	if (l != NULL)
		return l;
	sweep(n);
	if (n->n_links >= n->limits.n_links)
		return NULL;
	l = xcalloc(1, sizeof(*l));
	l->n = n;
	l->to = *to;
	l->expect = *expect;
	l->lane = lane;
	l->last = &l->first;
	l->next = n->links;
	n->links = l;
	n->n_links++;
	return l;
}

static void queue(struct net_link *l, enum net_topic topic, const void *bytes,
		  size_t len)
{
	struct message *m = xmalloc(sizeof(*m) + len);

	m->next = NULL;
	m->topic = (uint8_t)topic;
	m->len = len;
	if (len > 0)
		memcpy(m->bytes, bytes, len);
	*l->last = m;
	l->last = &m->next;
	l->queued += cost(len);
	l->n->queued += cost(len);
}

static int drop(struct net *n)
{
	n->stats.n_dropped++;
	return 0;
}

int net_send(struct net *n, const struct gossip_addr *to,
	     const struct gossip_id *expect, enum gossip_lane lane,
	     enum net_topic topic, const void *bytes, size_t len)
{
	static const struct gossip_id whoever;
	const struct net_limits *limits = &n->limits;

	assert(topic != NET_ADDRESS && lane < GOSSIP_N_LANES);
	if (len > GOSSIP_MESSAGE_MAX)
		return -EMSGSIZE;
	if (n->is_closing || n->config.seal == NULL)
		return drop(n);
	struct net_link *l =
		find(n, to, expect != NULL ? expect : &whoever, lane);
	if (l == NULL)
		return -ENOBUFS;
	if (l->conn == NULL && is_paused(l))
		return drop(n);
	if ((l->first != NULL && l->queued + cost(len) > limits->lane_bytes) ||
	    (n->queued > 0 && n->queued + cost(len) > limits->queue_bytes))
		return -EAGAIN;
	queue(l, topic, bytes, len);
	if (l->conn == NULL)
		call(l);
	else
		net_conn_pump(l->conn);
	return 0;
}
