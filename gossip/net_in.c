/* SPDX-License-Identifier: MIT */
/* Streams from others, and questions in the lobby.
 *
 *	accepted: a stranger, one of few, and for proof_ms
 *	proof, then its address: a stranger no more
 *	of the cluster: messages -> on_message, until the last frame: closed
 *	of the lobby: one question -> on_ask -> answered, flushed: closed
 *
 *	too many from that host: closed at once
 *	too many strangers, or streams: the door is shut until one has gone; the
 *	  kernel keeps its backlog
 *	no descriptors, no memory: the door is shut for accept_ms. (uv_listen()
 *	  would call accept() again and again, or close what waits.)
 *	a word before its address, twice its address, a second question, another
 *	  topic in the lobby: closed
 *	a topic that is unknown here: dropped; a newer program may have it
 *	nothing heard for hear_ms: closed */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gossip/net_impl.h"

#define ACCEPTS_PER_TURN 16
#define BACKLOG		 128

static void on_door(uv_poll_t *door, int status, int events);

/* ---- The door ---- */

static void open_door(struct net *n)
{
	if (n->is_closing || n->is_door_open || !n->has_door ||
	    uv_is_active((uv_handle_t *)&n->again) ||
	    n->n_strangers >= n->limits.n_strangers ||
	    n->n_in >= n->limits.n_in)
		return;
	n->is_door_open = uv_poll_start(&n->door, UV_READABLE, on_door) == 0;
}

static void shut_door(struct net *n)
{
	n->is_door_open = false;
	uv_poll_stop(&n->door);
}

static void on_again(uv_timer_t *timer)
{
	open_door(timer->data);
}

static void wait_outside(struct net *n, int rc)
{
	net_log(n, 4, "cannot accept streams: %s", strerror(-rc));
	shut_door(n);
	uv_timer_start(&n->again, on_again, n->limits.accept_ms, 0);
}

static unsigned count_strangers(const struct net *n,
				const struct gossip_addr *from)
{
	unsigned count = 0;

	for (const struct net_conn *c = n->conns; c != NULL; c = c->next)
		count += c->kind == &net_in_kind && !c->has_address &&
			 !c->is_closing &&
			 memcmp(c->peer.ip, from->ip, sizeof(from->ip)) == 0;
	return count;
}

static void let_in(struct net *n, int fd, const struct sockaddr *sa)
{
	struct gossip_addr from;

	if (!net_addr_from(sa, &from) ||
	    count_strangers(n, &from) >= n->limits.n_strangers_per_host) {
		close(fd);
		return;
	}
	struct net_conn *c = net_conn_create(n, &net_in_kind);
	c->peer = from;
	n->n_in++;
	n->n_strangers++;
	n->stats.n_streams_in++;
	if (n->n_in >= n->limits.n_in ||
	    n->n_strangers >= n->limits.n_strangers)
		shut_door(n);
	net_conn_take(c, fd);
}

static void on_door(uv_poll_t *door, int status, int events)
{
	struct net *n = door->data;

	(void)events;
	if (status < 0) { /* untested: libuv has stopped polling by itself */
		wait_outside(n, status);
		return;
	}
	for (int i = 0; i < ACCEPTS_PER_TURN && n->is_door_open; i++) {
		struct sockaddr_storage sa;
		socklen_t len = sizeof(sa);
		int fd = accept4(n->tcp_fd, (struct sockaddr *)&sa, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			let_in(n, fd, (struct sockaddr *)&sa);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != ECONNABORTED && errno != EINTR) {
			wait_outside(n, -errno);
		}
	}
}

int net_in_start(struct net *n, int fd)
{
	int rc = 0;

	if (listen(fd, BACKLOG) < 0)
		rc = -errno;
	if (rc == 0)
		rc = uv_poll_init(n->config.loop, &n->door, fd);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	n->tcp_fd = fd;
	n->door.data = n;
	n->n_open++;
	n->has_door = true;
	open_door(n);
	return 0;
}

void net_in_leave(struct net_conn *c)
{
	c->quiet_ms = 0;
	net_conn_wait(c, c->n->limits.former_ms);
}

/* ---- What a connection tells ---- */

static void on_proof(struct net_conn *c)
{
	(void)c; /* the address comes next */
}

static int take_address(struct net_conn *c, const struct net_message *m)
{
	struct net *n = c->n;
	struct gossip_addr *addr = &c->from.addr;

	if (m->topic != NET_ADDRESS ||
	    net_address_get(m->bytes, m->len, addr) < 0)
		return -EPROTO;
	if (net_addr_is_wildcard(addr))
		memcpy(addr->ip, c->peer.ip, sizeof(addr->ip));
	c->has_address = true;
	n->n_strangers--;
	open_door(n);
	if (c->s == n->config.lobby) {
		net_conn_wait(c, n->limits.ask_ms);
	} else if (c->is_former) {
		net_in_leave(c);
	} else {
		c->quiet_ms = n->limits.hear_ms;
		net_conn_wait(c, c->quiet_ms);
	}
	net_link_heard(n, addr);
	return 0;
}

static int answer(struct net_conn *c, const struct net_message *m)
{
	const struct net_config *config = &c->n->config;
	uint8_t bytes[NET_ASK_MAX];

	if (m->topic != NET_LOBBY || c->has_asked)
		return -EPROTO;
	c->has_asked = true;
	size_t len = config->on_ask(config->data, &c->from, m->bytes, m->len,
				    bytes, sizeof(bytes));
	assert(len <= sizeof(bytes));
	struct net_message said = {NET_LOBBY, bytes, len};
	net_conn_say(c, &said, NET_PIECE_FIRST | NET_PIECE_LAST, true);
	return 0;
}

static int on_message(struct net_conn *c, const struct net_message *m)
{
	const struct net_config *config = &c->n->config;

	if (!c->has_address)
		return take_address(c, m);
	if (m->topic == NET_ADDRESS)
		return -EPROTO;
	if (c->s == config->lobby)
		return answer(c, m);
	if (m->topic <= NET_KEYS)
		config->on_message(config->data, &c->from, m->topic, m->bytes,
				   m->len);
	else
		c->n->stats.n_dropped++;
	return 0;
}

static void on_last(struct net_conn *c)
{
	if (c->s != c->n->config.lobby)
		net_conn_close(c, 0);
	else if (!c->has_asked)
		net_conn_close(c, -EPROTO);
}

static void fill(struct net_conn *c)
{
	(void)c; /* an answer is said at once */
}

static void on_flushed(struct net_conn *c)
{
	net_conn_close(c, 0);
}

static void on_time(struct net_conn *c)
{
	net_conn_close(c, -ETIMEDOUT);
}

static void on_closing(struct net_conn *c)
{
	c->n->n_in--;
	if (!c->has_address)
		c->n->n_strangers--;
	open_door(c->n);
}

static void on_end(struct net_conn *c)
{
	char addr[GOSSIP_ADDR_SIZE];

	if (c->rc == 0 || c->reason != SEAL_OK)
		return; /* all was said, or it was logged */
	net_addr_text(&c->peer, addr);
	net_log(c->n, 7, "stream from %s: %s", addr, strerror(-c->rc));
}

const struct net_kind net_in_kind = {
	.name = "from",
	.is_caller = false,
	.on_proof = on_proof,
	.on_message = on_message,
	.on_last = on_last,
	.fill = fill,
	.on_flushed = on_flushed,
	.on_time = on_time,
	.on_closing = on_closing,
	.on_end = on_end,
};
