/* SPDX-License-Identifier: MIT */
/* Nodes with real sockets on one loop, and a raw peer: a socket of our own that
 * speaks as far as we want it to. Time limits of the nodes are short. */
#ifndef TESTS_UNIT_NET_RIG_H
#define TESTS_UNIT_NET_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "gossip/mem.h"
#include "gossip/net_impl.h"

#define N_HEARD 4096

struct heard {
	enum net_topic topic;
	size_t len;
	uint8_t first, last; /* bytes */
	struct net_from from;
};

struct node {
	struct net *n;
	struct seal *seal, *lobby;
	struct gossip_id id;
	struct gossip_addr addr;
	struct heard packets[N_HEARD], messages[N_HEARD];
	size_t n_packets, n_messages, n_failed, n_streams_failed, n_asked;
	struct gossip_addr failed; /* the last one */
	bool is_closed;
	/* the last answer to net_ask() */
	int n_answers, rc;
	enum seal_reason reason;
	char answer[64];
	char line[200]; /* the last one logged */
};

struct kind_of_node {
	unsigned id, cluster, key; /* key 0: none */
	enum seal_mode mode;
	bool is_ipv6;
	const struct gossip_addr *addr; /* NULL: any port */
};

static uv_loop_t loop;
static uv_timer_t turn_timer;
static const struct gossip_id cluster_of[3] = {{{0}}, {{0xc1}}, {{0xc2}}};

static inline struct gossip_id id_of(unsigned i)
{
	return (struct gossip_id){{(uint8_t)i, 1, 2, 3}};
}

static inline struct seal *make_seal(const struct kind_of_node *k,
				     unsigned cluster)
{
	struct seal_config config = {.cluster = cluster_of[cluster],
				     .self = id_of(k->id),
				     .boot = 7,
				     .mode = k->mode,
				     .peers_max = 64};
	struct seal *s = seal_create(&config);
	struct seal_key key;

	check(s != NULL, "libsodium");
	memset(&key, (int)k->key, sizeof(key));
	if (k->key > 0)
		check_int(seal_add(s, &key), 0);
	return s;
}

static inline struct gossip_addr addr_of(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct gossip_addr addr;

	check_int(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	check(net_addr_from((struct sockaddr *)&sa, &addr), "no address");
	return addr;
}

/* Loopback, any port; with addr, that one. */
static inline int bound(int type, bool is_ipv6, const struct gossip_addr *addr)
{
	struct gossip_addr any = {.ip = {[15] = 1}};
	struct sockaddr_storage sa;

	if (!is_ipv6)
		memcpy(any.ip, (uint8_t[16]){[10] = 255, 255, 127, 0, 0, 1},
		       16);
	net_addr_to(addr != NULL ? addr : &any, AF_UNSPEC, &sa);
	int fd = socket(sa.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;
	check(fd >= 0, "socket: %s", strerror(errno));
	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa,
		 sa.ss_family == AF_INET ? sizeof(struct sockaddr_in)
					 : sizeof(struct sockaddr_in6)) == 0)
		return fd;
	check(errno == EADDRINUSE, "bind: %s", strerror(errno));
	close(fd);
	return -1;
}

static inline void hear(struct heard *to, size_t *n,
			const struct net_from *from, enum net_topic topic,
			const uint8_t *bytes, size_t len)
{
	check(*n < N_HEARD, "heard too much");
	to[(*n)++] = (struct heard){
		.topic = topic,
		.len = len,
		.first = len > 0 ? bytes[0] : 0,
		.last = len > 0 ? bytes[len - 1] : 0,
		.from = *from,
	};
}

static inline void on_packet(void *data, const struct net_from *from,
			     enum net_topic topic, const uint8_t *bytes,
			     size_t len)
{
	struct node *node = data;

	check(!node->is_closed, "a packet after the end");
	hear(node->packets, &node->n_packets, from, topic, bytes, len);
}

static inline void on_message(void *data, const struct net_from *from,
			      enum net_topic topic, const uint8_t *bytes,
			      size_t len)
{
	struct node *node = data;

	check(!node->is_closed, "a message after the end");
	hear(node->messages, &node->n_messages, from, topic, bytes, len);
}

/* Says back what was asked, and who asked. */
static inline size_t on_ask(void *data, const struct net_from *from,
			    const uint8_t *bytes, size_t len, uint8_t *answer,
			    size_t cap)
{
	struct node *node = data;

	node->n_asked++;
	int n = snprintf((char *)answer, cap, "%.*s, %u", (int)len,
			 (const char *)bytes, from->id.b[0]);
	return (size_t)n;
}

static inline void on_send_failed(void *data, const struct gossip_addr *to)
{
	struct node *node = data;

	check(!node->is_closed, "a failure after the end");
	node->n_failed++;
	node->failed = *to;
}

static inline void on_stream_failed(void *data, const struct gossip_addr *to)
{
	struct node *node = data;

	check(!node->is_closed, "a failure after the end");
	node->n_streams_failed++;
	node->failed = *to;
}

static inline void on_log(void *data, int level, const char *line)
{
	struct node *node = data;

	(void)level;
	snprintf(node->line, sizeof(node->line), "%s", line);
}

static inline void on_answer(void *data, int rc, enum seal_reason reason,
			     const uint8_t *answer, size_t len)
{
	struct node *node = data;

	node->n_answers++;
	node->rc = rc;
	node->reason = reason;
	check((rc == 0) == (answer != NULL), "an answer with %d", rc);
	snprintf(node->answer, sizeof(node->answer), "%.*s", (int)len,
		 answer != NULL ? (const char *)answer : "");
}

static inline struct node *node_make(struct kind_of_node kind)
{
	struct node *node = xcalloc(1, sizeof(*node));
	int tcp = -1, udp = -1;

	node->id = id_of(kind.id);
	if (kind.cluster > 0)
		node->seal = make_seal(&kind, kind.cluster);
	node->lobby = make_seal(&kind, 0);
	while (tcp < 0) { /* a port that is free for both */
		if (udp >= 0)
			close(udp);
		udp = bound(SOCK_DGRAM, kind.is_ipv6, kind.addr);
		check(udp >= 0, "the port is taken");
		node->addr = addr_of(udp);
		tcp = bound(SOCK_STREAM, kind.is_ipv6, &node->addr);
	}
	struct net_config config = {
		.loop = &loop,
		.udp_fd = udp,
		.tcp_fd = tcp,
		.seal = node->seal,
		.lobby = node->lobby,
		.on_packet = on_packet,
		.on_message = on_message,
		.on_ask = on_ask,
		.on_send_failed = on_send_failed,
		.on_stream_failed = on_stream_failed,
		.on_log = on_log,
		.data = node,
	};
	node->n = net_create(&config);
	node->n->limits.proof_ms = 800;
	node->n->limits.ask_ms = 800;
	net_set_self(node->n, &node->addr);
	return node;
}

static inline struct node *node_of(struct kind_of_node kind)
{
	struct node *node = node_make(kind);

	check_int(net_start(node->n), 0);
	return node;
}

/* Of the usual kind: cluster 1, key 1, sealed. */
static inline struct node *node_new(unsigned id)
{
	return node_of((struct kind_of_node){
		.id = id, .cluster = 1, .key = 1, .mode = SEAL_REQUIRED});
}

static inline void on_closed(void *data)
{
	struct node *node = data;

	check(!node->is_closed, "closed twice");
	node->is_closed = true;
}

static inline uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

/* Until cond holds, or `ms` are over: does it? cond is looked at once a turn. */
#define wait_for(ms, is_so, cond)                                              \
	for (uint64_t end_ = now_ms() + (ms);                                  \
	     !((is_so) = (cond)) && now_ms() < end_;)                          \
	turn()
#define wait_ms(ms, cond)                                                      \
	do {                                                                   \
		bool is_so_;                                                   \
		wait_for(ms, is_so_, cond);                                    \
		(void)is_so_;                                                  \
	} while (0)
#define await(cond)                                                            \
	do {                                                                   \
		bool is_so_;                                                   \
		wait_for(10000, is_so_, cond);                                 \
		check(is_so_, "waited in vain for " #cond);                    \
	} while (0)
/* For so long it is not so. */
#define never(ms, cond)                                                        \
	do {                                                                   \
		bool is_so_;                                                   \
		wait_for(ms, is_so_, cond);                                    \
		check(!is_so_, "never: " #cond);                               \
	} while (0)

static inline void on_turn(uv_timer_t *timer)
{
	(void)timer;
}

/* A turn of the loop, of at most some ms. */
static inline void turn(void)
{
	uv_timer_start(&turn_timer, on_turn, 2, 2);
	uv_run(&loop, UV_RUN_ONCE);
	uv_timer_stop(&turn_timer);
}

static inline void rig_start(void)
{
	signal(SIGPIPE, SIG_IGN); /* as the daemon does */
	uv_loop_init(&loop);
	uv_timer_init(&loop, &turn_timer);
}

/* No handle is left. */
static inline void rig_finish(void)
{
	uv_close((uv_handle_t *)&turn_timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
	check_int(uv_loop_close(&loop), 0);
}

static inline void node_release(struct node *node)
{
	seal_destroy(node->seal);
	seal_destroy(node->lobby);
	free(node);
}

static inline void node_close(struct node *node)
{
	net_close(node->n, on_closed, node);
	check(!node->is_closed, "closed from inside");
	await(node->is_closed);
	node_release(node);
}

static inline struct net_stats stats_of(const struct node *node)
{
	struct net_stats st;

	net_stats(node->n, &st);
	return st;
}

static inline uint64_t refused(const struct seal *s, enum seal_reason reason)
{
	struct seal_stats st;

	seal_stats(s, &st);
	return st.n[reason];
}

static inline int send_text(struct node *from, const struct node *to,
			    enum gossip_lane lane, const char *text)
{
	return net_send(from->n, &to->addr, &to->id, lane, NET_LAYER, text,
			strlen(text));
}

/* ---- A raw peer ---- */

struct raw {
	int fd;
	struct seal_stream *st; /* NULL: it speaks no seal */
};

/* A connection to addr, non-blocking; the kernel's part of it is done. */
static inline int raw_connect(const struct gossip_addr *addr)
{
	struct sockaddr_storage sa;

	net_addr_to(addr, AF_UNSPEC, &sa);
	int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(fd >= 0, "socket: %s", strerror(errno));
	check_int(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Is it closed at the other end? Reads and forgets. */
static inline bool raw_is_closed(int fd)
{
	char b[1000];
	ssize_t n = recv(fd, b, sizeof(b), MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

/* Write what there is, read what came. Its frames are forgotten. */
static inline int raw_turn(struct raw *r)
{
	uint8_t b[4096];
	struct seal_frame frame;
	size_t n;
	const uint8_t *out = seal_stream_out(r->st, &n);
	ssize_t rc = n > 0 ? send(r->fd, out, n, MSG_NOSIGNAL) : 0;

	if (rc > 0)
		seal_stream_sent(r->st, (size_t)rc);
	turn();
	rc = recv(r->fd, b, sizeof(b), 0);
	for (const uint8_t *at = b; rc > 0;) {
		n = seal_stream_put(r->st, at, (size_t)rc);
		at += n;
		rc -= (ssize_t)n;
		while (seal_stream_next(r->st, &frame) == 1)
			;
		if (n == 0)
			return -EPROTO;
	}
	return 0;
}

static inline bool raw_has_proof(const struct raw *r)
{
	struct gossip_id id;
	uint32_t boot;
	bool is_sealed;

	return seal_stream_peer(r->st, &id, &boot, &is_sealed);
}

static inline void raw_flush(struct raw *r)
{
	size_t n = 1;

	for (int i = 0; i < 1000 && n > 0; i++) {
		raw_turn(r);
		seal_stream_out(r->st, &n);
	}
}

/* A caller that has proved itself, with that seal. */
static inline struct raw raw_call(struct seal *s,
				  const struct gossip_addr *addr)
{
	struct raw r = {raw_connect(addr), seal_stream_create(s, true, NULL)};

	for (int i = 0; i < 1000 && !raw_has_proof(&r); i++)
		raw_turn(&r);
	check(raw_has_proof(&r), "no proof");
	raw_flush(&r);
	return r;
}

/* The called: whoever comes to door has proved itself. */
static inline struct raw raw_take(struct seal *s, int door)
{
	struct raw r = {-1, seal_stream_create(s, false, NULL)};

	await((r.fd = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0);
	for (int i = 0; i < 1000 && !raw_has_proof(&r); i++)
		raw_turn(&r);
	check(raw_has_proof(&r), "no proof");
	raw_flush(&r);
	return r;
}

static inline void raw_say(struct raw *r, uint8_t topic, unsigned flags,
			   const void *bytes, size_t len)
{
	static uint8_t body[NET_PIECE_HEADER + NET_PIECE_MAX];
	size_t n = net_piece_put(body, topic, flags, bytes, len);

	check_int(seal_stream_send(r->st, body, n, false), 0);
	raw_flush(r);
}

static inline void raw_say_address(struct raw *r)
{
	uint8_t bytes[NET_ADDRESS_BYTES] = {[16] = 1};

	raw_say(r, NET_ADDRESS, NET_PIECE_FIRST | NET_PIECE_LAST, bytes,
		sizeof(bytes));
}

static inline void raw_close(struct raw *r)
{
	seal_stream_destroy(r->st);
	close(r->fd);
}

#endif
