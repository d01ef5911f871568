/* SPDX-License-Identifier: MIT */
/* Net among strangers, and among members that have gone mad: garbage, silence,
 * slowness, hunger. Usage: net_hostile_test [SEED]; FLOOD=MIB sends so much
 * garbage instead of 8 MiB. */
#include <sys/resource.h>

#include "net_rig.h"

#define MIB ((size_t)1 << 20)

static uint64_t seed;
static size_t flood = 8;

static struct seal *seal_of(unsigned id, unsigned cluster)
{
	struct kind_of_node kind = {.id = id, .key = 1, .mode = SEAL_REQUIRED};

	return make_seal(&kind, cluster);
}

static void fill_random(uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)check_random(&seed);
}

/* Nothing of a stranger is left at b. */
static void check_calm(const struct node *b)
{
	check(b->n->conns == NULL, "a connection is left");
	check_int(b->n->n_in, 0);
	check_int(b->n->n_strangers, 0);
	check_int(b->n->purse.used, 0);
	check_int(b->n_messages + b->n_packets + b->n_asked, 0);
}

static long resident(void)
{
	long pages = 0, ignored;
	FILE *f = fopen("/proc/self/statm", "re");

	check(f != NULL && fscanf(f, "%ld %ld", &ignored, &pages) == 2,
	      "statm");
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

/* ---- Garbage ---- */

/* The kernel throws away what is too much: so do we. */
static void test_garbage_packets(void)
{
	struct node *b = node_new(2);
	struct sockaddr_storage sa;
	static uint8_t bytes[60000];
	int fd = bound(SOCK_DGRAM, false, NULL);

	net_addr_to(&b->addr, AF_UNSPEC, &sa);
	fill_random(bytes, sizeof(bytes));
	for (size_t sent = 0, i = 0; sent < flood * MIB; i++) {
		size_t n = i % 3 ? check_random(&seed) % 1400
				 : check_random(&seed) % sizeof(bytes);
		bytes[0] = i % 2 ? 'r' : 'x'; /* some look like ours */
		bytes[1] = 'f';
		bytes[2] = 1;
		sendto(fd, bytes, n, 0, (struct sockaddr *)&sa,
		       sizeof(struct sockaddr_in));
		sent += n + 64;
		if (i % 8 == 0)
			turn();
	}
	wait_ms(100, false);
	check(stats_of(b).n_packets_in > 100, "nothing came");
	check_int(refused(b->seal, SEAL_OK), 0);
	check_int(stats_of(b).n_packets_out, 0);
	check_calm(b);
	close(fd);
	node_close(b);
	ok("garbage packets come to nothing");
}

/* A connection that writes until it is thrown out. */
static size_t write_garbage(int fd, const uint8_t *bytes, size_t len)
{
	size_t sent = 0;

	for (int i = 0; i < 1000 && !raw_is_closed(fd); i++) {
		ssize_t n = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
		turn();
	}
	return sent;
}

static void test_garbage_streams(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	uint8_t *bytes = xmalloc(MIB);
	long before = resident();

	fill_random(bytes, MIB);
	for (size_t sent = 0, i = 0; sent < flood * MIB; i++) {
		int fd = raw_connect(&b->addr);
		memcpy(bytes, i % 2 ? "rf\1\3" : "GET ", 4);
		sent += write_garbage(fd, bytes, MIB) + 1000;
		check(raw_is_closed(fd), "it may go on");
		close(fd);
	}
	await(b->n->conns == NULL);
	check_calm(b);
	check(resident() - before < (long)(64 * MIB), "%ld MiB more",
	      (resident() - before) / (long)MIB);
	check(refused(b->seal, SEAL_ALIEN) > 0, "not counted");
	check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	await(b->n_messages == 1);
	free(bytes);
	node_close(a);
	node_close(b);
	ok("garbage on connections costs neither memory nor patience");
}

/* A caller's side of it: whoever answers is not ours. */
static void test_garbage_answers(void)
{
	static const char *const answers[] = {
		"",
		"x",
		"HTTP/1.0 400 Bad Request\r\n\r\n",
		"rf\1\377\6\0\0",   /* and NUL: refused, foreign cluster */
		"rf\1\377\377\0\0", /* refused, for no reason we know */
		"rf\2\377\3\0\0"};
	static const enum seal_reason reasons[] = {SEAL_OK,    SEAL_OK,
						   SEAL_ALIEN, SEAL_NO_KEY,
						   SEAL_ALIEN, SEAL_NEWER};
	static const size_t lens[] = {0, 1, 28, 8, 8, 8};
	struct node *a = node_new(1);
	int door = bound(SOCK_STREAM, false, NULL);
	struct gossip_addr addr = addr_of(door);

	check_int(listen(door, 4), 0);
	for (int i = 0; i < 6; i++) {
		int fd = -1;
		net_ask(a->n, &addr, "?", 1, on_answer, a);
		await((fd = accept(door, NULL, NULL)) >= 0);
		send(fd, answers[i], lens[i], MSG_NOSIGNAL);
		for (int k = 0; k < 10; k++)
			turn();
		uint8_t more[200] = {0}; /* up to a whole hello */
		if (i == 2)
			send(fd, more, sizeof(more), MSG_NOSIGNAL);
		wait_ms(30, a->n_answers == i + 1);
		shutdown(fd, SHUT_WR);
		await(a->n_answers == i + 1);
		check_int(a->rc, i < 2 ? -ECONNRESET : -EPROTO);
		check(a->reason == reasons[i], "%d: %s", i,
		      seal_reason_name(a->reason));
		close(fd);
	}
	close(door);
	node_close(a);
	ok("what answers is believed no more than what calls");
}

/* ---- Silence, and too many ---- */

static void test_strangers(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	int fds[40], n_closed = 0;
	uint64_t began = now_ms();

	for (int i = 0; i < 40; i++) {
		fds[i] = raw_connect(&b->addr);
		send(fds[i], "rf\1\3", 4, MSG_NOSIGNAL);
	}
	await(b->n->n_strangers == b->n->limits.n_strangers_per_host);
	never(100, b->n->n_strangers > b->n->limits.n_strangers_per_host);
	for (int i = 0; i < 40; i++)
		n_closed += raw_is_closed(fds[i]);
	check_int(n_closed, 40 - (int)b->n->limits.n_strangers_per_host);
	check(now_ms() - began < b->n->limits.proof_ms, "too slow a test");
	await(b->n->conns == NULL);
	check_calm(b);
	for (int i = 0; i < 40; i++) {
		await(raw_is_closed(fds[i]));
		close(fds[i]);
	}
	/* From everywhere: the others wait outside, and then get in. */
	b->n->limits.n_strangers = 4;
	for (int i = 0; i < 6; i++)
		fds[i] = raw_connect(&b->addr);
	await(b->n->n_strangers == 4);
	never(50, b->n->n_strangers != 4);
	check(!raw_is_closed(fds[5]), "it was thrown out");
	check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	await(b->n_messages == 1);
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	node_close(a);
	node_close(b);
	ok("few strangers at a time, from one host and in all, and not for "
	   "long");
}

static void test_too_many_streams(void)
{
	struct node *a = node_new(1), *b = node_new(2), *c = node_new(3);

	b->n->limits.n_in = 2;
	b->n->limits.hear_ms = 100;
	a->n->limits.proof_ms = c->n->limits.proof_ms = 2000;
	check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	check_int(send_text(a, b, GOSSIP_URGENT, "x"), 0);
	await(b->n_messages == 2);
	check_int(b->n->is_door_open, false);
	check_int(send_text(c, b, GOSSIP_BULK, "x"), 0);
	never(40, b->n_messages > 2);
	await(b->n_messages == 3); /* when the silent ones have been closed */
	node_close(a);
	node_close(b);
	node_close(c);
	ok("so many streams in all; who is silent makes room");
}

/* ---- Members gone mad ---- */

enum madness {
	BEFORE_ADDRESS,
	TWICE_ADDRESS,
	SHORT_ADDRESS,
	NO_PIECE,
	ODD_FLAGS,
	NOT_THE_FIRST,
	TWICE_FIRST,
	OTHER_TOPIC,
	EMPTY_PIECE,
	CUT_BY_LAST,
	AFTER_LAST,
	N_MADNESS
};

static void go_mad(struct raw *r, enum madness how)
{
	uint8_t address[NET_ADDRESS_BYTES] = {0};
	unsigned whole = NET_PIECE_FIRST | NET_PIECE_LAST;

	if (how != BEFORE_ADDRESS && how != SHORT_ADDRESS)
		raw_say_address(r);
	switch (how) {
	case TWICE_ADDRESS:
		raw_say_address(r);
		break;
	case SHORT_ADDRESS:
		raw_say(r, NET_ADDRESS, whole, address, 17);
		break;
	case NO_PIECE:
		check_int(seal_stream_send(r->st, "", 1, false), 0);
		break;
	case ODD_FLAGS:
		raw_say(r, NET_LAYER, whole | 4, "x", 1);
		break;
	case NOT_THE_FIRST:
		raw_say(r, NET_LAYER, NET_PIECE_LAST, "x", 1);
		break;
	case TWICE_FIRST:
		raw_say(r, NET_LAYER, NET_PIECE_FIRST, "x", 1);
		raw_say(r, NET_LAYER, NET_PIECE_FIRST, "x", 1);
		break;
	case OTHER_TOPIC:
		raw_say(r, NET_LAYER, NET_PIECE_FIRST, "x", 1);
		raw_say(r, NET_SWIM, NET_PIECE_LAST, "x", 1);
		break;
	case EMPTY_PIECE:
		raw_say(r, NET_LAYER, NET_PIECE_FIRST, "", 0);
		break;
	case CUT_BY_LAST:
		raw_say(r, NET_LAYER, NET_PIECE_FIRST, "x", 1);
		check_int(seal_stream_send(r->st, NULL, 0, true), 0);
		break;
	case AFTER_LAST:
		check_int(seal_stream_send(r->st, NULL, 0, true), 0);
		raw_flush(r);
		send(r->fd, "more", 4, MSG_NOSIGNAL);
		break;
	case BEFORE_ADDRESS:
	case N_MADNESS:
		raw_say(r, NET_LAYER, whole, "x", 1);
		break;
	}
	raw_flush(r);
}

static void test_mad_callers(void)
{
	struct node *b = node_new(2);
	struct seal *s = seal_of(3, 1);

	for (int how = 0; how < N_MADNESS; how++) {
		struct raw r = raw_call(s, &b->addr);
		check_int(b->n->n_in, 1);
		go_mad(&r, how);
		wait_ms(200, b->n->conns == NULL);
		check(b->n->conns == NULL, "madness %d is taken", how);
		check(how == AFTER_LAST || strstr(b->line, "rotocol") != NULL,
		      "madness %d: %s", how, b->line);
		b->line[0] = '\0';
		check_calm(b);
		raw_close(&r);
	}
	/* What is merely unknown is not mad. */
	struct raw r = raw_call(s, &b->addr);
	raw_say_address(&r);
	raw_say(&r, 77, NET_PIECE_FIRST | NET_PIECE_LAST, "x", 1);
	raw_say(&r, NET_LOBBY, NET_PIECE_FIRST | NET_PIECE_LAST, "x", 1);
	raw_say(&r, NET_KEYS, NET_PIECE_FIRST | NET_PIECE_LAST, "x", 1);
	await(b->n_messages == 1);
	check_int(b->messages[0].topic, NET_KEYS);
	check_int(stats_of(b).n_dropped, 2);
	raw_close(&r);
	node_close(b);
	seal_destroy(s);
	ok("each way to break the format ends the stream; unknown topics do "
	   "not");
}

static void test_mad_askers(void)
{
	struct node *b = node_new(2);
	struct seal *s = seal_of(3, 0);
	static uint8_t long_[NET_ASK_MAX + 1];
	unsigned whole = NET_PIECE_FIRST | NET_PIECE_LAST;

	for (int how = 0; how < 4; how++) {
		struct raw r = raw_call(s, &b->addr);
		if (how > 0)
			raw_say_address(&r);
		if (how == 1)
			raw_say(&r, NET_SWIM, whole, "x", 1);
		else if (how == 2)
			raw_say(&r, NET_LOBBY, whole, long_, sizeof(long_));
		else if (how == 3)
			raw_say(&r, NET_LOBBY, NET_PIECE_FIRST, long_, 10);
		await(b->n->conns == NULL); /* how 0, 3: silence */
		check_calm(b);
		raw_close(&r);
	}
	/* Twice: there is one answer, and then no more. */
	struct raw r = raw_call(s, &b->addr);
	raw_say_address(&r);
	uint8_t body[16];
	size_t n = net_piece_put(body, NET_LOBBY, whole, "x", 1);
	check_int(seal_stream_send(r.st, body, n, false), 0);
	check_int(seal_stream_send(r.st, body, n, false), 0);
	raw_flush(&r);
	await(b->n->conns == NULL);
	check_int(b->n_asked, 1);
	raw_close(&r);
	/* Asked, and then in the same breath what is no frame. */
	r = raw_call(s, &b->addr);
	raw_say_address(&r);
	b->line[0] = '\0';
	check_int(seal_stream_send(r.st, body, n, true), 0);
	uint8_t breath[200] = {0};
	const uint8_t *out = seal_stream_out(r.st, &n);
	memcpy(breath, out, n);
	send(r.fd, breath, sizeof(breath), MSG_NOSIGNAL);
	await(b->n->conns == NULL);
	check(strstr(b->line, "rotocol") != NULL, "%s", b->line);
	raw_close(&r);
	node_close(b);
	seal_destroy(s);
	ok("in the lobby: one question, not long, and soon");
}

/* Who was called talks back, or ends what it has not begun. */
static void test_mad_called(void)
{
	struct node *a = node_new(1);
	struct seal *s = seal_of(3, 1);
	int door = bound(SOCK_STREAM, false, NULL);
	struct gossip_addr addr = addr_of(door);

	check_int(listen(door, 4), 0);
	for (unsigned i = 0; i < 2; i++) {
		wait_ms(300, false); /* the pause */
		check_int(net_send(a->n, &addr, NULL, GOSSIP_BULK, NET_LAYER,
				   "x", 1),
			  0);
		struct raw r = raw_take(s, door);
		check(a->n->conns != NULL && !a->n->conns->is_closing, "gone");
		if (i == 0)
			raw_say(&r, NET_LAYER, 3, "x", 1);
		else
			check_int(seal_stream_send(r.st, NULL, 0, true), 0);
		raw_flush(&r);
		await(a->n->conns == NULL);
		raw_close(&r);
	}
	check_int(a->n_messages, 0);
	close(door);
	node_close(a);
	seal_destroy(s);
	ok("who was called has nothing to say on a stream");
}

static void test_purse(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	uint8_t *bytes = xcalloc(1, 3 * MIB);

	b->n->purse.max = MIB;
	check_int(net_send(a->n, &b->addr, &b->id, GOSSIP_BULK, NET_LAYER,
			   bytes, 3 * MIB),
		  0);
	check_int(send_text(a, b, GOSSIP_URGENT, "x"), 0);
	await(stats_of(a).n_dropped + (a->n->conns == NULL) >= 1);
	await(b->n_messages == 1);
	check_int(b->messages[0].len, 1);
	check_int(b->n->purse.used, 0);
	free(bytes);
	node_close(a);
	node_close(b);
	ok("what is half here has a limit in all");
}

static void test_slow_reader(void)
{
	struct node *a = node_new(1);
	struct seal *s = seal_of(3, 1);
	int door = bound(SOCK_STREAM, false, NULL);
	struct gossip_addr addr = addr_of(door);
	uint8_t *bytes = xcalloc(1, 100000);
	int rc = 0;

	a->n->limits.user_ms = 500;
	check_int(listen(door, 4), 0);
	check_int(net_send(a->n, &addr, NULL, GOSSIP_BULK, NET_LAYER, "x", 1),
		  0);
	struct raw r = raw_take(s, door);
	for (int i = 0; i < 1000 && rc == 0; i++) {
		rc = net_send(a->n, &addr, NULL, GOSSIP_BULK, NET_LAYER, bytes,
			      100000);
		turn();
	}
	check_int(rc, -EAGAIN);
	check(a->n->queued <= a->n->limits.lane_bytes, "%zu", a->n->queued);
	/* And it is not waited for very long: nothing is acknowledged. */
	await(a->n->conns == NULL);
	check_int(a->n->queued, 0);
	check(stats_of(a).n_dropped > 30, "dropped");
	raw_close(&r);
	close(door);
	free(bytes);
	node_close(a);
	seal_destroy(s);
	ok("a slow reader costs a lane's queue, and is cut off");
}

/* ---- Hunger ---- */

static void test_no_descriptors(void)
{
	struct node *a = node_new(1), *b = node_new(2);
	struct rlimit old, now;
	int fds[3], turns = 0;

	for (int i = 0; i < 3; i++)
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int spare = dup(fds[0]);
	getrlimit(RLIMIT_NOFILE, &old);
	now = old;
	now.rlim_cur = (rlim_t)spare; /* what is below is all in use */
	close(spare);
	for (int fd; (fd = dup(fds[0])) < spare && fd >= 0;)
		continue;
	check_int(setrlimit(RLIMIT_NOFILE, &now), 0);
	struct sockaddr_storage sa;
	net_addr_to(&b->addr, AF_UNSPEC, &sa);
	for (int i = 0; i < 3; i++)
		check_int(connect(fds[i], (struct sockaddr *)&sa, sizeof(sa)),
			  0);
	await(strstr(b->line, "cannot accept") != NULL);
	b->line[0] = '\0';
	for (uint64_t end = now_ms() + 300; now_ms() < end; turns++)
		turn();
	check(turns < 250, "it spins: %d", turns);
	check_int(b->n->n_in, 0);
	/* Who wants to call has none either: lost, no harm. */
	check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	await(stats_of(a).n_dropped == 1);
	setrlimit(RLIMIT_NOFILE, &old);
	await(b->n->n_in == 3);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	wait_ms(150, false);
	check_int(send_text(a, b, GOSSIP_BULK, "x"), 0);
	await(b->n_messages == 1);
	node_close(a);
	node_close(b);
	ok("without descriptors it waits, and does not spin");
}

int main(int argc, char **argv)
{
	seed = check_seed(argc, argv);
	if (getenv("FLOOD") != NULL)
		flood = strtoul(getenv("FLOOD"), NULL, 10);
	rig_start();
	test_garbage_packets();
	test_garbage_streams();
	test_garbage_answers();
	test_strangers();
	test_too_many_streams();
	test_mad_callers();
	test_mad_askers();
	test_mad_called();
	test_purse();
	test_slow_reader();
	test_no_descriptors();
	rig_finish();
	return 0;
}
