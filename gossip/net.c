/* SPDX-License-Identifier: MIT */
/* Life: four handles of our own and the connections, each counted in n_open.
 *
 * Start: descriptors are taken, UDP first.
 *	- the UDP descriptor is none, or not bound: both are closed
 *	- nobody can listen (EADDRINUSE): the instance stays idle; close it
 *
 * Close: UDP and the door at once; connections from others and questions at
 * once; connections to others when they have nothing to say.
 *	- all have left, or nothing was open: the last handle's callback frees n
 *	- linger_ms are over: what is left is cut, and then the same */
#include "gossip/net.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include "gossip/mem.h"
#include "gossip/net_impl.h"

#define MIB	  ((size_t)1 << 20)
#define LOG_MS	  10000
#define LOG_LINES 20
#define LOG_BYTES 512

static const struct net_limits limits = {
	.connect_ms = 1000,
	.proof_ms = 2000,
	.idle_ms = 60000,
	.hear_ms = 120000,
	.last_ms = 1000,
	.former_ms = 5000,
	.ask_ms = 2000,
	.linger_ms = 100,
	.pause_min_ms = 100,
	.pause_max_ms = 2000,
	.accept_ms = 100,
	.user_ms = 5000,
	.n_strangers = 64,
	.n_strangers_per_host = 16,
	.n_in = 256,
	.n_links = 256,
	.n_asks = 32,
	.lane_bytes = 4 * MIB,
	.queue_bytes = 256 * MIB,
	.parts_bytes = 256 * MIB,
};

void net_log(struct net *n, int level, const char *format, ...)
{
	char line[LOG_BYTES];
	uint64_t now = uv_now(n->config.loop);
	va_list ap;

	if (n->is_closing)
		return;
	if (now - n->log_from_ms >= LOG_MS) {
		n->log_from_ms = now;
		n->n_logged = 0;
	}
	if (n->n_logged++ >= LOG_LINES)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	n->config.on_log(n->config.data, level, line);
}

struct net *net_create(const struct net_config *config)
{
	struct net *n = xcalloc(1, sizeof(*n));

	assert(config->on_packet != NULL && config->on_message != NULL &&
	       config->on_ask != NULL && config->on_send_failed != NULL &&
	       config->on_log != NULL && config->lobby != NULL);
	n->config = *config;
	n->limits = limits;
	n->tcp_fd = -1;
	uv_timer_init(config->loop, &n->late);
	uv_timer_init(config->loop, &n->again);
	n->late.data = n->again.data = n;
	n->n_open = 2;
	return n;
}

int net_start(struct net *n)
{
	assert(!n->has_udp && !n->has_door && !n->is_closing);
	n->purse.max = n->limits.parts_bytes;
	int rc = net_udp_start(n, n->config.udp_fd);
	if (rc < 0) {
		close(n->config.tcp_fd);
		return rc;
	}
	rc = net_in_start(n, n->config.tcp_fd);
	if (rc < 0)
		uv_udp_recv_stop(&n->udp);
	return rc;
}

void net_set_seal(struct net *n, struct seal *seal)
{
	assert(n->config.seal == NULL || n->config.seal == seal);
	n->config.seal = seal;
}

void net_set_self(struct net *n, const struct gossip_addr *addr)
{
	n->self = *addr;
}

void net_reseal(struct net *n)
{
	for (struct net_conn *c = n->conns; c != NULL; c = c->next) {
		if (c->s == n->config.lobby)
			continue; /* they are short */
		c->is_former = true;
		if (c->kind == &net_link_kind)
			net_conn_pump(c);
		else if (c->has_address) /* else when it is told */
			net_in_leave(c);
	}
}

/* ---- The end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
	net_gone(handle->data);
}

void net_gone(struct net *n)
{
	uv_handle_t *again = (uv_handle_t *)&n->again;

	assert(n->n_open > 0);
	if (--n->n_open == 1 && n->is_closing && !uv_is_closing(again))
		uv_close(again, on_handle_closed); /* nothing to wait for */
	if (n->n_open > 0)
		return;
	void (*cb)(void *data) = n->close_cb;
	void *data = n->close_data;
	assert(n->is_closing && n->conns == NULL);
	net_link_free_all(n);
	free(n);
	cb(data); /* last, so that it may tear down whatever n stood on */
}

static void on_door_closed(uv_handle_t *handle)
{
	struct net *n = handle->data;

	close(n->tcp_fd);
	net_gone(n);
}

static void on_patience(uv_timer_t *timer)
{
	struct net *n = timer->data;

	for (struct net_conn *c = n->conns; c != NULL; c = c->next)
		net_conn_close(c, -ECANCELED);
}

void net_close(struct net *n, void (*cb)(void *data), void *data)
{
	assert(!n->is_closing);
	n->is_closing = true;
	n->close_cb = cb;
	n->close_data = data;
	for (struct net_conn *c = n->conns; c != NULL; c = c->next) {
		if (c->kind == &net_link_kind)
			net_link_leave(c);
		else
			net_conn_close(c, -ECANCELED);
	}
	if (n->has_udp)
		uv_close((uv_handle_t *)&n->udp, on_handle_closed);
	if (n->has_door)
		uv_close((uv_handle_t *)&n->door, on_door_closed);
	uv_close((uv_handle_t *)&n->late, on_handle_closed);
	uv_timer_start(&n->again, on_patience, n->limits.linger_ms, 0);
}

void net_stats(const struct net *n, struct net_stats *out)
{
	*out = n->stats;
}
