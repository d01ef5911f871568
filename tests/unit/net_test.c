/* SPDX-License-Identifier: MIT */
/* Net among friends: packets, lanes, long messages, the lobby, and every moment
 * at which it can end. Strangers are in net_hostile_test.c. */
#include "net_rig.h"

#define MIB ((size_t)1 << 20)

static struct node *node_as(unsigned id, enum seal_mode mode, bool is_ipv6)
{
	return node_of((struct kind_of_node){.id = id,
					     .cluster = 1,
					     .key = mode != SEAL_OFF,
					     .mode = mode,
					     .is_ipv6 = is_ipv6});
}

/* ---- Packets ---- */

static void test_packet(bool is_ipv6, enum seal_mode mode)
{
	struct node *a = node_as(1, mode, is_ipv6);
	struct node *b = node_as(2, mode, is_ipv6);
	static uint8_t big[NET_PACKET_MAX];

	big[sizeof(big) - 1] = 9;
	net_packet(a->n, &b->addr, NET_SWIM, "hello", 5);
	net_packet(a->n, &b->addr, NET_RECORDS, "", 0);
	net_packet(a->n, &b->addr, NET_KEYS, big, sizeof(big));
	check_int(b->n_packets, 0);
	await(b->n_packets == 3);
	const struct heard *h = b->packets;
	check_int(h[0].topic, NET_SWIM);
	check_int(h[0].len, 5);
	check_int(h[0].first, 'h');
	check(gossip_id_equal(&h[0].from.id, &a->id), "from whom");
	check(gossip_addr_equal(&h[0].from.addr, &a->addr), "from where");
	check_int(h[0].from.boot, 7);
	check_int(h[0].from.is_sealed, mode != SEAL_OFF);
	check_int(h[1].topic, NET_RECORDS);
	check_int(h[1].len, 0);
	check_int(h[2].len, sizeof(big));
	check_int(h[2].last, 9);
	check_int(stats_of(a).n_packets_out, 3);
	check_int(stats_of(b).n_packets_in, 3);
	check(stats_of(b).bytes_in == stats_of(a).bytes_out, "bytes");
	node_close(a);
	node_close(b);
}

static void test_burst(void)
{
	struct node *a = node_new(1), *b = node_new(2);

	/* More than a batch; loopback loses nothing as long as it fits. */
	for (int i = 0; i < 3 * NET_BATCH; i++)
		net_packet(a->n, &b->addr, NET_SWIM, "x", 1);
	await(b->n_packets == 3 * NET_BATCH);
	node_close(a);
	node_close(b);
	ok("packets are read in batches");
}

/* ---- Streams ---- */

static void test_lanes(bool is_ipv6, enum seal_mode mode)
{
	struct node *a = node_as(1, mode, is_ipv6);
	struct node *b = node_as(2, mode, is_ipv6);

	for (unsigned i = 0; i < 1000; i++)
		check_int(net_send(a->n, &b->addr, i % 3 ? &b->id : NULL,
				   i % 2 ? GOSSIP_URGENT : GOSSIP_BULK,
				   NET_LAYER, "abc", 3),
			  0);
	await(b->n_messages == 1000);
	for (size_t i = 0; i < 1000; i++) {
		const struct heard *h = &b->messages[i];
		check_int(h->len, 3);
		check(gossip_id_equal(&h->from.id, &a->id), "from whom");
		check(gossip_addr_equal(&h->from.addr, &a->addr),
		      "where it listens");
		check_int(h->from.is_sealed, mode != SEAL_OFF);
	}
	/* by lane, and expected or not */
	check_int(stats_of(a).n_streams_out, 4);
	check_int(stats_of(b).n_streams_in, 4);
	check_int(stats_of(a).n_dropped + stats_of(b).n_dropped, 0);
	check_int(b->n->n_strangers, 0);
	node_close(a);
	node_close(b);
}

static void test_order(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	static uint8_t bytes[3 * NET_PIECE_MAX];

	/* Lengths around the pieces' too. */
	for (unsigned i = 0; i < 200; i++) {
		size_t len = i;
		if (i % 50 == 49)
			len = NET_PIECE_MAX * (i / 100 + 1) + i % 3 - 1;
		bytes[0] = (uint8_t)i;
		check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_URGENT,
				   NET_LAYER, bytes, len),
			  0);
	}
	await(b->n_messages == 200);
	for (unsigned i = 1; i < 200; i++)
		check_int(b->messages[i].first, (uint8_t)i);
	node_close(a);
	node_close(b);
	ok("within a lane messages keep their order, whatever their length");
}

static void test_long_beside_urgent(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	uint8_t *bytes = xmalloc(10 * MIB);

	memset(bytes, 'L', 10 * MIB);
	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, 10 * MIB),
		  0);
	check_int(send_text(a, b, GOSSIP_URGENT, "quick"), 0);
	await(b->n_messages == 2);
	check_int(b->messages[0].first, 'q');
	check_int(b->messages[1].len, 10 * MIB);
	check_int(b->messages[1].last, 'L');
	check_int(b->n->purse.used, 0);
	free(bytes);
	node_close(a);
	node_close(b);
	ok("what is urgent does not wait for 10 MiB");
}

/* A wildcard is no address: the receiver takes what its socket sees. */
static void test_wildcard(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	struct gossip_addr self = {.port = 4711};

	net_set_self(a->n, &self);
	check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	await(b->n_messages == 1);
	memcpy(self.ip, b->addr.ip, sizeof(self.ip));
	check(gossip_addr_equal(&b->messages[0].from.addr, &self), "address");
	node_close(a);
	node_close(b);
	ok("who listens everywhere is known by the address that its socket "
	   "has");
}

static void test_idle(void)
{
	struct node *a = node_new(1), *b = node_new(2);

	a->n->limits.idle_ms = 50;
	check_int(send_text(a, b, GOSSIP_BULK, "one"), 0);
	await(b->n_messages == 1 && a->n->conns != NULL);
	await(a->n->conns == NULL && b->n->conns == NULL);
	check_int(send_text(a, b, GOSSIP_BULK, "two"), 0);
	await(b->n_messages == 2);
	check_int(stats_of(a).n_streams_out, 2);
	check_int(stats_of(a).n_dropped, 0);
	node_close(a);
	node_close(b);
	ok("a silent stream ends, and another one follows");
}

static void test_reseal(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	uint8_t *bytes = xcalloc(1, 3 * MIB);

	check_int(send_text(a, b, GOSSIP_BULK, "first"), 0);
	await(b->n_messages == 1);
	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, 3 * MIB),
		  0);
	for (int i = 0; i < 100; i++)
		check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	net_reseal(a->n);
	await(b->n_messages == 102);
	check_int(b->messages[1].len, 3 * MIB);
	check_int(stats_of(a).n_streams_out, 2);
	check_int(stats_of(a).n_dropped, 0);
	check(strstr(b->line, "rotocol") == NULL, "%s", b->line);
	/* The other side does not wait for ever. */
	b->n->limits.former_ms = 50;
	net_reseal(b->n);
	never(20, b->n->conns == NULL);
	await(b->n->conns == NULL);
	free(bytes);
	node_close(a);
	node_close(b);
	ok("changed keys: streams are made anew, nothing is lost, none stays");
}

/* ---- Nobody there, or not whom we expect ---- */

static void test_closed_port(bool is_ipv6)
{
	struct node *a = node_as(1, SEAL_REQUIRED, is_ipv6);
	struct node *b = node_as(2, SEAL_REQUIRED, is_ipv6);
	struct gossip_addr gone = b->addr;

	node_close(b);
	net_packet(a->n, &gone, NET_SWIM, "?", 1);
	await(a->n_failed == 1);
	check(gossip_addr_equal(&a->failed, &gone), "which");
	/* It is not said of another packet, which follows at once. */
	struct node *c = node_as(3, SEAL_REQUIRED, is_ipv6);
	for (int i = 0; i < 20; i++) {
		net_packet(a->n, &gone, NET_SWIM, "?", 1);
		net_packet(a->n, &c->addr, NET_SWIM, "!", 1);
		turn();
	}
	await(c->n_packets == 20);
	check(gossip_addr_equal(&a->failed, &gone), "which");
	check(a->n_failed >= 2, "%zu", a->n_failed);
	node_close(a);
	node_close(c);
}

static void test_send_fails(void)
{
	struct node *a = node_new(1);
	struct gossip_addr ipv6 = {.ip = {[15] = 1}, .port = 1};
	struct node *keyless = node_of((struct kind_of_node){
		.id = 2, .cluster = 1, .key = 0, .mode = SEAL_REQUIRED});
	struct node *alone = node_of((struct kind_of_node){
		.id = 3, .cluster = 0, .key = 1, .mode = SEAL_REQUIRED});

	net_packet(a->n, &ipv6, NET_SWIM, "?", 1);
	check_int(a->n_failed, 0); /* never from inside */
	await(a->n_failed == 1);
	check(gossip_addr_equal(&a->failed, &ipv6), "which");
	check_int(stats_of(a).n_send_errors, 1);
	net_packet(keyless->n, &a->addr, NET_SWIM, "?", 1);
	await(keyless->n_failed == 1);
	check_int(send_text(keyless, a, GOSSIP_BULK, "x"), 0);
	await(stats_of(keyless).n_dropped == 1);
	/* Without a cluster there is nobody to send to. */
	net_packet(alone->n, &a->addr, NET_SWIM, "?", 1);
	check_int(send_text(alone, a, GOSSIP_BULK, "x"), 0);
	check_int(stats_of(alone).n_dropped, 2);
	struct kind_of_node kind = {.id = 3, .key = 1, .mode = SEAL_REQUIRED};
	alone->seal = make_seal(&kind, 1);
	net_set_seal(alone->n, alone->seal);
	net_packet(alone->n, &a->addr, NET_SWIM, "?", 1);
	check_int(send_text(alone, a, GOSSIP_BULK, "x"), 0);
	await(a->n_packets == 1 && a->n_messages == 1);
	node_close(a);
	node_close(keyless);
	node_close(alone);
	ok("an error of sending is told later, with its address");
}

static void test_pause(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	struct gossip_addr gone = b->addr;
	uint64_t began = 0;

	node_close(b);
	for (int i = 0; i < 5; i++) { /* 100, 200, 400, 800 ms */
		began = now_ms();
		for (bool is_called = false; !is_called; turn()) {
			check_int(net_send(a->n, &gone, NULL, GOSSIP_BULK,
					   NET_LAYER, "x", 1),
				  0);
			is_called = a->n->conns != NULL;
		}
		await(a->n->conns == NULL);
	}
	check(now_ms() - began >= 750, "the pause has not grown");
	check(stats_of(a).n_dropped > 5, "nothing was dropped");
	check_int(a->n_streams_failed, 5);
	check(gossip_addr_equal(&a->failed, &gone), "which one failed");
	/* 1600 ms, but not when it is heard from. */
	began = now_ms();
	b = node_of((struct kind_of_node){.id = 2,
					  .cluster = 1,
					  .key = 1,
					  .mode = SEAL_REQUIRED,
					  .addr = &gone});
	net_packet(b->n, &a->addr, NET_SWIM, "here", 4);
	await(a->n_packets == 1);
	while (b->n_messages == 0) {
		net_send(a->n, &gone, NULL, GOSSIP_BULK, NET_LAYER, "x", 1);
		turn();
	}
	check(now_ms() - began < 1500, "it waits for nothing");
	node_close(a);
	node_close(b);
	ok("nobody there: a growing pause, until they are heard from");
}

static void test_expect(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	struct gossip_id other = id_of(9);

	for (int i = 0; i < 3; i++)
		check_int(net_send(a->n, &b->addr, &other, GOSSIP_BULK,
				   NET_LAYER, "x", 1),
			  0);
	await(stats_of(a).n_dropped == 3);
	check_int(refused(b->seal, SEAL_NOT_THEM), 1);
	check(strstr(a->line, "another-member") != NULL, "%s", a->line);
	never(50, b->n_messages > 0);
	node_close(a);
	node_close(b);
	ok("another one than expected: nothing is said to it");
}

/* a's messages are not taken; both say why, as far as they can. */
static void not_taken(struct kind_of_node kind, enum seal_reason reason)
{
	struct node *a = node_of(kind), *b = node_new(2);

	check_int(
		net_send(a->n, &b->addr, NULL, GOSSIP_BULK, NET_LAYER, "x", 1),
		0);
	net_packet(a->n, &b->addr, NET_SWIM, "x", 1);
	await(stats_of(a).n_dropped == 1);
	await(refused(b->seal, reason) + refused(b->lobby, reason) == 2);
	check(strstr(a->line, seal_reason_name(reason)) != NULL, "%s", a->line);
	check(strstr(a->line, "by the other") != NULL, "%s", a->line);
	check_int(b->n_messages + b->n_packets, 0);
	node_close(a);
	node_close(b);
}

static void test_not_taken(void)
{
	not_taken(
		(struct kind_of_node){
			.id = 1, .cluster = 1, .key = 2, .mode = SEAL_REQUIRED},
		SEAL_NO_KEY);
	not_taken(
		(struct kind_of_node){
			.id = 1, .cluster = 2, .key = 1, .mode = SEAL_REQUIRED},
		SEAL_CLUSTER);
	not_taken(
		(struct kind_of_node){.id = 1, .cluster = 1, .mode = SEAL_OFF},
		SEAL_CLEAR);
	ok("another key, another cluster, in the clear: refused, and told why");
}

static void test_full(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	uint8_t *bytes = xcalloc(1, GOSSIP_MESSAGE_MAX + 1);
	int rc = 0, n = 0;

	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, GOSSIP_MESSAGE_MAX + 1),
		  -EMSGSIZE);
	for (; rc == 0; n++) /* not one turn of the loop */
		rc = net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			      bytes, 100000);
	check_int(rc, -EAGAIN);
	check(n > 40 && n < 43, "%d", n);
	check_int(send_text(a, b, GOSSIP_URGENT, "x"), 0);
	await(b->n_messages == (size_t)n);
	check_int(a->n->queued, 0);
	/* An empty one takes any. */
	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, GOSSIP_MESSAGE_MAX),
		  0);
	check_int(send_text(a, b, GOSSIP_BULK, "x"), -EAGAIN);
	await(b->n_messages == (size_t)n + 1);
	check_int(b->messages[n].len, GOSSIP_MESSAGE_MAX);
	/* In all, and streams. */
	a->n->limits.queue_bytes = 1000;
	a->n->limits.n_links = 3;
	check_int(net_send(a->n, &b->addr, NULL, GOSSIP_URGENT, NET_LAYER,
			   bytes, 900),
		  0);
	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, 900),
		  -EAGAIN);
	check_int(net_send(a->n, &b->addr, NULL, GOSSIP_BULK, NET_LAYER, bytes,
			   1),
		  -ENOBUFS);
	free(bytes);
	node_close(a);
	node_close(b);
	ok("a lane holds 4 MiB, an empty one any message, all of them so much");
}

/* ---- The lobby ---- */

static void ask(struct node *a, const struct gossip_addr *to)
{
	int n = a->n_answers;

	net_ask(a->n, to, "who", 3, on_answer, a);
	check_int(a->n_answers, n);
	await(a->n_answers == n + 1);
}

static void test_ask(void)
{
	struct node *a =
		node_of((struct kind_of_node){.id = 1, .mode = SEAL_OFF});
	struct node *b = node_new(2);
	struct node *c = node_of((struct kind_of_node){
		.id = 3, .key = 1, .mode = SEAL_REQUIRED});
	struct gossip_addr gone = b->addr;

	ask(c, &b->addr);
	check_int(c->rc, 0);
	check(strcmp(c->answer, "who, 3") == 0, "%s", c->answer);
	check_int(b->n_asked, 1);
	check_int(b->n_messages, 0);
	/* In the clear, of one that seals. */
	ask(a, &b->addr);
	check_int(a->rc, -EPROTO);
	check_int(a->reason, SEAL_CLEAR);
	/* Of one that knows no cluster either. */
	ask(c, &a->addr);
	check_int(c->rc, -EPROTO);
	check_int(c->reason, SEAL_NO_KEY);
	net_ask(c->n, &c->addr, "", 0, on_answer, c);
	await(c->n_answers == 3);
	check_int(c->rc, -EPROTO);
	check_int(c->reason, SEAL_SELF);
	await(b->n->conns == NULL && c->n->conns == NULL);
	node_close(b);
	ask(c, &gone);
	check_int(c->rc, -ECONNREFUSED);
	node_close(a);
	node_close(c);
	ok("in the lobby one is answered, or told why not");
}

static void test_ask_many(void)
{
	struct node *a = node_new(1), *b = node_new(2);

	b->n->limits.n_strangers_per_host = 1000;
	for (unsigned i = 0; i < a->n->limits.n_asks; i++)
		net_ask(a->n, &b->addr, "?", 1, on_answer, a);
	await(a->n_answers == (int)a->n->limits.n_asks);
	check_int(a->rc, 0);
	check_int(b->n_asked, a->n->limits.n_asks);
	for (unsigned i = 0; i <= a->n->limits.n_asks; i++)
		net_ask(a->n, &b->addr, "?", 1, on_answer, a);
	await(a->n_answers == (int)a->n->limits.n_asks + 1);
	check_int(a->rc, -ENOBUFS);
	node_close(a); /* the others are cancelled, each once */
	node_close(b);
	ok("so many questions at a time");
}

/* A port that accepts and says nothing; a raw end that closes. */
static void test_ask_silence(void)
{
	struct node *a = node_new(1);
	int door = bound(SOCK_STREAM, false, NULL);
	struct gossip_addr addr = addr_of(door);
	uint64_t began = now_ms();

	check_int(listen(door, 4), 0);
	ask(a, &addr);
	check_int(a->rc, -ETIMEDOUT);
	check(now_ms() - began >= a->n->limits.ask_ms - 10, "too early");
	net_ask(a->n, &addr, "?", 1, on_answer, a);
	int fd = -1;
	while ((fd = accept(door, NULL, NULL)) >= 0)
		close(fd); /* of the first one too */
	wait_ms(50, a->n_answers == 2);
	while ((fd = accept(door, NULL, NULL)) >= 0)
		close(fd);
	await(a->n_answers == 2);
	check_int(a->rc, -ECONNRESET);
	close(door);
	node_close(a);
	ok("a question without an answer ends in time");
}

/* ---- Endings ---- */

/* Whatever is under way after so many turns: both close, in either order. */
static void close_after(unsigned turns, bool is_b_first)
{
	struct node *a = node_new(1), *b = node_new(2);
	uint8_t *bytes = xcalloc(1, MIB);

	for (int lane = 0; lane < GOSSIP_N_LANES; lane++)
		for (int i = 0; i < 3; i++)
			check_int(net_send(a->n, &b->addr, &b->id, lane,
					   NET_LAYER, bytes, MIB),
				  0);
	check_int(send_text(b, a, GOSSIP_URGENT, "x"), 0);
	net_ask(a->n, &b->addr, "?", 1, on_answer, a);
	net_packet(a->n, &b->addr, NET_SWIM, "x", 1);
	for (unsigned i = 0; i < turns; i++)
		turn();
	net_close(is_b_first ? b->n : a->n, on_closed, is_b_first ? b : a);
	for (unsigned i = 0; i < turns % 3; i++)
		turn();
	net_close(is_b_first ? a->n : b->n, on_closed, is_b_first ? a : b);
	await(a->is_closed && b->is_closed);
	check_int(a->n_answers, 1);
	node_release(a);
	node_release(b);
	free(bytes);
}

static void test_close_anywhere(void)
{
	for (unsigned turns = 0; turns < 40; turns++)
		for (int i = 0; i < 2; i++)
			close_after(turns, i);
	ok("closing is possible at every moment");
}

static void test_close_idle(void)
{
	struct node *a = node_make((struct kind_of_node){.id = 1});

	close(a->n->config.udp_fd);
	close(a->n->config.tcp_fd);
	node_close(a);
	/* It listens already: both descriptors are taken all the same. */
	struct node *b = node_new(2);
	a = node_make((struct kind_of_node){.id = 1, .mode = SEAL_OFF});
	close(a->n->config.tcp_fd);
	a->n->config.tcp_fd = bound(SOCK_STREAM, false, &b->addr);
	if (a->n->config.tcp_fd < 0) /* it cannot even be bound */
		a->n->config.tcp_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	check(net_start(a->n) < 0, "it listens");
	net_packet(a->n, &b->addr, NET_SWIM, "x", 1);
	node_close(a);
	a = node_make((struct kind_of_node){.id = 1, .mode = SEAL_OFF});
	close(a->n->config.udp_fd);
	a->n->config.udp_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	check(net_start(a->n) < 0, "it listens");
	node_close(a);
	node_close(b);
	ok("what never started, or could not, closes too");
}

static void test_linger(void)
{
	struct node *a = node_new(1), *b = node_new(2);

	/* Not even connected yet: it still leaves. */
	for (int i = 0; i < 10; i++)
		check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	a->n->limits.linger_ms = 5000;
	uint64_t began = now_ms();
	node_close(a);
	check(now_ms() - began < 4000, "it waits for nothing");
	await(b->n_messages == 10);
	await(b->n->conns == NULL);
	check(strstr(b->line, "reset") == NULL, "a cut: %s", b->line);
	/* To a peer that does not answer: 100 ms. */
	a = node_new(1);
	int door = bound(SOCK_STREAM, false, NULL);
	struct gossip_addr addr = addr_of(door);
	check_int(listen(door, 4), 0);
	check_int(net_send(a->n, &addr, NULL, GOSSIP_BULK, NET_LAYER, "x", 1),
		  0);
	began = now_ms();
	node_close(a);
	check(now_ms() - began >= 90 && now_ms() - began < 3000, "%d ms",
	      (int)(now_ms() - began));
	close(door);
	node_close(b);
	ok("closing gives 100 ms to what is queued, and not more");
}

static void test_peer_dies(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	struct gossip_addr addr = b->addr;
	uint8_t *bytes = xcalloc(1, GOSSIP_MESSAGE_MAX);

	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, GOSSIP_MESSAGE_MAX),
		  0);
	await(b->n->purse.used > MIB);
	check(b->n->purse.used <= GOSSIP_MESSAGE_MAX, "%zu", b->n->purse.used);
	node_close(b);
	await(stats_of(a).n_dropped == 1);
	check_int(a->n->queued, 0);
	b = node_of((struct kind_of_node){.id = 2,
					  .cluster = 1,
					  .key = 1,
					  .mode = SEAL_REQUIRED,
					  .addr = &addr});
	while (b->n_messages == 0) {
		check_int(send_text(a, b, GOSSIP_BULK, "again"), 0);
		turn();
	}
	check_int(b->messages[0].len, 5);
	/* The other way round: the sender dies, what it began is forgotten. */
	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, GOSSIP_MESSAGE_MAX),
		  0);
	await(b->n->purse.used > MIB);
	node_close(a);
	await(b->n->purse.used == 0);
	check(b->messages[b->n_messages - 1].len < MIB, "half a message");
	free(bytes);
	node_close(b);
	ok("a peer dies in the middle of a message: lost, and on it goes");
}

int main(void)
{
	rig_start();
	test_packet(false, SEAL_REQUIRED);
	test_packet(true, SEAL_REQUIRED);
	test_packet(false, SEAL_OFF);
	ok("packets arrive, IPv4 and IPv6, sealed and in the clear");
	test_burst();
	test_lanes(false, SEAL_REQUIRED);
	test_lanes(true, SEAL_REQUIRED);
	test_lanes(false, SEAL_OFF);
	ok("messages arrive, IPv4 and IPv6, sealed and in the clear");
	test_order();
	test_long_beside_urgent();
	test_wildcard();
	test_idle();
	test_reseal();
	test_closed_port(false);
	test_closed_port(true);
	ok("a closed port at the other end is told, with its address");
	test_send_fails();
	test_pause();
	test_expect();
	test_not_taken();
	test_full();
	test_ask();
	test_ask_many();
	test_ask_silence();
	test_close_anywhere();
	test_close_idle();
	test_linger();
	test_peer_dies();
	rig_finish();
	return 0;
}
