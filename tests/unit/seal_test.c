/* SPDX-License-Identifier: MIT */
/* Seal: packets, streams, the key ring, the key file. K1 to K5 are rules that
 * others paid for. */
#include "gossip/seal.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "gossip/seal_impl.h"

static const struct gossip_id cluster = {{0xc1}};

static struct gossip_id id_of(unsigned i)
{
	return (struct gossip_id){{(uint8_t)i, 1, 2, 3}};
}

static struct seal_key key_of(unsigned i)
{
	struct seal_key key;

	memset(key.b, (int)i, sizeof(key.b));
	return key;
}

static struct seal *make(unsigned i, unsigned key, enum seal_mode mode)
{
	struct seal_config config = {.cluster = cluster,
				     .self = id_of(i),
				     .boot = 7,
				     .mode = mode,
				     .peers_max = 16};
	struct seal *s = seal_create(&config);
	struct seal_key k = key_of(key);

	check(s != NULL, "libsodium");
	if (key > 0)
		check_int(seal_add(s, &k), 0);
	return s;
}

static uint64_t count(const struct seal *s, enum seal_reason reason)
{
	struct seal_stats st;

	seal_stats(s, &st);
	return st.n[reason];
}

/* Open a copy: opening changes the packet. */
static enum seal_reason open_copy(struct seal *s, const uint8_t *packet,
				  int len, struct seal_opened *opened)
{
	static uint8_t copy[70000];

	check(len >= 0, "no packet: %d", len);
	memcpy(copy, packet, (size_t)len);
	return seal_open(s, copy, (size_t)len, opened);
}

#define check_reason(got, want)                                                \
	do {                                                                   \
		enum seal_reason got_ = (got), want_ = (want);                 \
		check(got_ == want_, "%s, not %s", seal_reason_name(got_),     \
		      seal_reason_name(want_));                                \
	} while (0)

/* ---- Packets ---- */

static void test_packet(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	uint8_t packet[2000], again[2000], body[1300];
	struct seal_opened o;

	memset(body, 'x', sizeof(body));
	for (size_t len = 0; len <= sizeof(body); len += 130) {
		int n = seal_packet(a, body, len, packet, sizeof(packet));
		check_int(n, len + SEAL_PACKET_EXTRA);
		check_reason(open_copy(b, packet, n, &o), SEAL_OK);
		check_int(o.len, len);
		check(memcmp(o.body, body, len) == 0, "another body");
		check(o.is_sealed && o.boot == 7 && o.from.b[0] == 1, "sender");
	}
	check_int(seal_packet(a, body, 100, packet, 183), -EMSGSIZE);
	check_int(seal_packet(a, body, SEAL_PACKET_MAX, packet, 70000),
		  -EMSGSIZE);
	seal_packet(a, body, 100, packet, sizeof(packet));
	seal_packet(a, body, 100, again, sizeof(again));
	check(memcmp(packet + 44, again + 44, 24) != 0, "one nonce twice");
	seal_destroy(a);
	seal_destroy(b);
	ok("SB-6, SB-17: what one seals the other opens; no nonce comes twice");
}

static void test_bits(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	uint8_t packet[200];
	struct seal_opened o;
	int n = seal_packet(a, "hello", 5, packet, sizeof(packet));

	for (int bit = 0; bit < n * 8; bit++) {
		packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
		enum seal_reason r = open_copy(b, packet, n, &o);
		check(r != SEAL_OK, "bit %d", bit);
		if (bit >= 16 * 8 && bit < 32 * 8) /* another sender */
			check_reason(r, SEAL_FORGED);
		packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (int len = 0; len < n; len++) {
		enum seal_reason r = open_copy(b, packet, len, &o);
		check(r == SEAL_SHORT || (len >= 84 && r == SEAL_FORGED),
		      "%d bytes: %s", len, seal_reason_name(r));
	}
	struct seal_stats st;
	seal_stats(b, &st);
	check_int(st.n_peers, 0); /* nothing is remembered of forgeries */
	check_reason(open_copy(b, packet, n, &o), SEAL_OK);
	seal_destroy(a);
	seal_destroy(b);
	ok("each flipped bit and each cut is noticed, and leaves no trace");
}

static void test_reasons(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	struct seal *foe = make(3, 2, SEAL_REQUIRED);
	struct seal *clear = make(4, 0, SEAL_OFF);
	struct seal_config config = {.cluster = {{0xc2}},
				     .self = id_of(5),
				     .peers_max = 4,
				     .mode = SEAL_REQUIRED};
	struct seal *other = seal_create(&config);
	struct seal_key key = key_of(1);
	uint8_t p[200];
	struct seal_opened o;

	check_int(seal_packet(other, "x", 1, p, 200), -ENOKEY);
	seal_add(other, &key);
	int n = seal_packet(other, "x", 1, p, 200);
	check_reason(open_copy(b, p, n, &o), SEAL_CLUSTER);
	/* The same key in two clusters: the header's hash forged to ours. */
	memcpy(p + 4, &b->cluster, 4);
	check_reason(open_copy(b, p, n, &o), SEAL_FORGED);
	n = seal_packet(foe, "x", 1, p, 200);
	check_reason(open_copy(b, p, n, &o), SEAL_NO_KEY);
	memcpy(p + 8, &b->slots[0].id, 8);
	check_reason(open_copy(b, p, n, &o), SEAL_FORGED);
	n = seal_packet(clear, "x", 1, p, 200);
	check_reason(open_copy(b, p, n, &o), SEAL_CLEAR);
	n = seal_packet(a, "x", 1, p, 200);
	check_reason(open_copy(a, p, n, &o), SEAL_SELF);
	p[2] = SEAL_VERSION + 1;
	check_reason(open_copy(b, p, n, &o), SEAL_NEWER);
	memcpy(p, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n...........", 48);
	check_reason(open_copy(b, p, 48, &o), SEAL_ALIEN);
	check_int(count(b, SEAL_FORGED), 2);
	check_int(count(b, SEAL_OK), 0);
	seal_destroy(a);
	seal_destroy(b);
	seal_destroy(foe);
	seal_destroy(clear);
	seal_destroy(other);
	ok("SB-17: foreign cluster, wrong key, clear, newer, alien: a reason "
	   "for "
	   "each");
}

static void test_replay(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	static uint8_t p[3000][100];
	struct seal_opened o;
	int n = 0;

	for (int i = 0; i < 3000; i++)
		n = seal_packet(a, "x", 1, p[i], 100);
	for (int i = 1500; i >= 1000; i--) /* backwards: reordered */
		check_reason(open_copy(b, p[i], n, &o), SEAL_OK);
	for (int i = 1000; i <= 1500; i++)
		check_reason(open_copy(b, p[i], n, &o), SEAL_REPLAYED);
	check_reason(open_copy(b, p[1500 - 1023], n, &o), SEAL_OK);
	check_reason(open_copy(b, p[1500 - 1024], n, &o), SEAL_TOO_OLD);
	check_reason(open_copy(b, p[2999], n, &o), SEAL_OK);
	check_reason(open_copy(b, p[1500], n, &o), SEAL_TOO_OLD);
	for (int i = 2999 - 1023; i < 2999; i++)
		check_reason(open_copy(b, p[i], n, &o), SEAL_OK);
	check_reason(open_copy(b, p[2999], n, &o), SEAL_REPLAYED);
	a->config.boot++;
	a->counter = 0;
	uint8_t newer[100];
	seal_packet(a, "x", 1, newer, 100);
	check_reason(open_copy(b, newer, n, &o), SEAL_OK);
	check_reason(open_copy(b, newer, n, &o), SEAL_REPLAYED);
	check_reason(open_copy(b, p[2998], n, &o), SEAL_TOO_OLD);
	check(o.is_former && o.boot + 1 == a->config.boot && o.body == NULL,
	      "authentic, of a former life");
	p[2998][n - 1] ^= 1;
	check_reason(open_copy(b, p[2998], n, &o), SEAL_TOO_OLD);
	check(!o.is_former, "not authentic, and so of nobody");
	/* Who was told of the boot beforehand takes none of the former. */
	struct seal *c = make(3, 1, SEAL_REQUIRED);
	struct gossip_id id = id_of(1);
	seal_member(c, &id, 8);
	check_reason(open_copy(c, p[0], n, &o), SEAL_TOO_OLD);
	seal_destroy(a);
	seal_destroy(b);
	seal_destroy(c);
	ok("replays: a window of 1024 per sender, a newer boot ends the "
	   "former");
}

/* The window against a set that forgets nothing. */
static void test_window_model(uint64_t seed)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	static bool had[20000];
	uint64_t highest = 0;
	struct seal_opened o;

	memset(had, 0, sizeof(had));
	for (int i = 0; i < 20000; i++) {
		uint8_t p[100];
		uint64_t c = 1 + (uint64_t)i / 2 + check_random(&seed) % 3000;
		a->counter = c - 1;
		int n = seal_packet(a, "x", 1, p, 100);
		enum seal_reason want = c + SEAL_WINDOW <= highest
						? SEAL_TOO_OLD
					: had[c] ? SEAL_REPLAYED
						 : SEAL_OK;
		check_reason(open_copy(b, p, n, &o), want);
		had[c] |= want == SEAL_OK;
		highest = c > highest && want == SEAL_OK ? c : highest;
	}
	seal_destroy(a);
	seal_destroy(b);
	ok("the window agrees with a set that forgets nothing, 20000 packets");
}

static void test_floods(void)
{
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	uint8_t p[100];
	struct seal_opened o;
	int n = 0;

	for (unsigned i = 0; i < 20; i++) {
		struct seal *a = make(10 + i, 1, SEAL_REQUIRED);
		n = seal_packet(a, "x", 1, p, 100);
		check_reason(open_copy(b, p, n, &o),
			     i < 16 ? SEAL_OK : SEAL_TOO_MANY);
		seal_destroy(a);
	}
	seal_destroy(b);
	ok("senders are bounded: more of them than peers_max are refused");
}

static void test_switch(void)
{
	static const enum seal_mode modes[] = {SEAL_OFF, SEAL_BOTH,
					       SEAL_REQUIRED};
	uint8_t p[100];
	struct seal_opened o;

	for (unsigned i = 0; i < 3; i++) {
		for (unsigned j = 0; j < 3; j++) {
			struct seal *a = make(1, 1, modes[i]);
			struct seal *b = make(2, 1, modes[j]);
			int n = seal_packet(a, "x", 1, p, 100);
			bool is_step = i + 1 >= j && j + 1 >= i;
			enum seal_reason r = open_copy(b, p, n, &o);
			if (is_step)
				check_reason(r, SEAL_OK);
			else if (i == 0)
				check_reason(r, SEAL_CLEAR);
			check(r != SEAL_OK || o.is_sealed == (i > 0), "form");
			seal_destroy(a);
			seal_destroy(b);
		}
	}
	ok("K5: neighbours in the switch understand each other, both ways");
}

static void test_clear(void)
{
	struct seal *a = make(1, 0, SEAL_OFF), *b = make(2, 0, SEAL_OFF);
	uint8_t p[100];
	struct seal_opened o;
	int n = seal_packet(a, "hello", 5, p, sizeof(p));

	check_int(n, 5 + SEAL_CLEAR_BYTES);
	for (int bit = 44 * 8; bit < n * 8; bit++) {
		p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		check_reason(open_copy(b, p, n, &o), SEAL_DAMAGED);
		p[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	check_reason(open_copy(b, p, n, &o), SEAL_OK);
	check(o.len == 5 && !o.is_sealed, "body");
	seal_destroy(a);
	seal_destroy(b);
	ok("--insecure: in the clear, with a checksum");
}

/* ---- The ring ---- */

static void test_rotation(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	struct seal *dead = make(3, 1, SEAL_REQUIRED);
	struct seal_key next = key_of(9), first = key_of(1);
	uint64_t new_id = seal_key_id(&next), old_id = seal_key_id(&first);
	struct gossip_id ids[] = {id_of(2), id_of(3)}, who;
	uint64_t both[] = {old_id, new_id};
	struct seal_opened o;
	uint8_t p[100];
	size_t at = 0;

	seal_member(a, &ids[0], 0);
	seal_member(a, &ids[1], 0);
	seal_confirm(a, &ids[0], &old_id, 1);
	seal_confirm(a, &ids[1], &old_id, 1);
	check_int(seal_add(a, &next), 0);
	check_int(seal_add(a, &next), -EEXIST);
	check_int(seal_use(a, new_id), -EBUSY); /* nobody else has it */
	check_int(seal_remove(a, old_id), -EBUSY);
	seal_confirm(a, &ids[0], both, 2);
	check(seal_lacks_next(a, new_id, &at, &who) && who.b[0] == 3, "who");
	check(!seal_lacks_next(a, new_id, &at, &who), "only 3 lacks it");
	check_int(seal_use(a, new_id), -EBUSY); /* 3 is down: it counts */
	int n = seal_packet(dead, "x", 1, p, 100);
	check_reason(open_copy(a, p, n, &o), SEAL_OK); /* it returns in time */
	seal_confirm(a, &ids[1], both, 2);
	check_int(seal_use(a, new_id), 0);
	check_int(seal_remove(a, new_id), -EBUSY); /* in use */
	check_int(seal_remove(a, old_id), 0);
	check_int(seal_remove(a, old_id), -ENOENT);
	n = seal_packet(b, "x", 1, p, 100);
	check_reason(open_copy(a, p, n, &o), SEAL_NO_KEY);
	seal_destroy(a);
	seal_destroy(b);
	seal_destroy(dead);
	ok("K1: no key goes before every known member, dead or not, has the "
	   "next");
}

static void test_forgotten(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 9, SEAL_REQUIRED);
	struct seal_key next = key_of(9), first = key_of(1);
	struct gossip_id ids[] = {id_of(2), id_of(3)};
	struct seal_key_view v;
	struct seal_opened o;
	uint8_t p[100];
	size_t at = 0;

	seal_member(a, &ids[0], 0);
	seal_member(a, &ids[1], 0);
	seal_add(a, &next);
	int n = seal_packet(b, "x", 1, p, 100); /* so it has the new one */
	check_reason(open_copy(a, p, n, &o), SEAL_OK);
	check(seal_key_next(a, &at, &v) && !v.has_opened && v.is_used, "first");
	check(seal_key_next(a, &at, &v) && v.has_opened && !v.is_used, "next");
	check_int(v.n_lack, 1);
	check(v.id == seal_key_id(&next), "id");
	check_int(seal_use(a, seal_key_id(&next)), -EBUSY);
	seal_forget(a, &ids[1]);
	check_int(seal_use(a, seal_key_id(&next)), 0);
	check_int(seal_remove(a, seal_key_id(&first)), 0);
	for (unsigned i = 20; i < 20 + SEAL_KEYS_MAX - 1; i++) {
		struct seal_key k = key_of(i);
		check_int(seal_add(a, &k), 0);
	}
	check_int(seal_add(a, &first), -ENOSPC);
	seal_destroy(a);
	seal_destroy(b);
	ok("K2, K3: what is sealed with a key proves it; ids of 8 bytes");
}

/* ---- The key file ---- */

static void test_file(void)
{
	struct seal_key keys[3], back[SEAL_KEYS_MAX];
	char text[SEAL_FILE_MAX];
	size_t n;
	unsigned line;

	for (int i = 0; i < 3; i++)
		check_int(seal_key_make(&keys[i]), 0);
	size_t len = seal_file_make(keys, 3, text);
	check_int(seal_file_parse(text, len, back, &n, &line), 0);
	check_int(n, 3);
	check(memcmp(keys, back, sizeof(keys)) == 0, "other keys");
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (line == 0 || c == '\n')
			continue;
		text[i] = c == 'A' ? 'B' : 'A';
		int rc = seal_file_parse(text, len, back, &n, &line);
		check(rc != 0 || n == 3 || text[0] == '#', "byte %zu", i);
		check(rc == 0 || n == 0, "keys of a bad file");
		check(rc != 0 || memcmp(keys, back, n * sizeof(*keys)) == 0,
		      "byte %zu: a wrong key was taken", i);
		text[i] = c;
	}
	static const char newer[] = "\n# x\nringfs-key-2 abc\n";
	check_int(seal_file_parse(newer, strlen(newer), back, &n, &line),
		  -EPROTONOSUPPORT);
	check_int(line, 3);
	check_int(seal_file_parse("", 0, back, &n, &line), -EINVAL);
	check_int(seal_file_parse("# only\n", 7, back, &n, &line), -EINVAL);
	char *first = strstr(text, "ringfs-key-1");
	char *end = strchr(first, '\n');
	char mailed[200];
	snprintf(mailed, sizeof(mailed), "\r\n  %.*s \r\n", (int)(end - first),
		 first);
	check_int(seal_file_parse(mailed, strlen(mailed), back, &n, &line), 0);
	first[20] = first[20] == 'x' ? 'y' : 'x';
	check_int(seal_file_parse(text, len, back, &n, &line), -EBADMSG);
	check_int(line, 3);
	ok("key file: made, parsed; a slip of the pen is noticed, by line");
}

/* ---- Streams ---- */

struct pipe_end {
	struct seal_stream *st;
	uint8_t last[4096];
	size_t len, n_frames;
	bool is_last;
	int rc;
};

/* Read what there is; wire is changed by on_byte(i) if given. */
static void feed(struct pipe_end *to, const uint8_t *bytes, size_t n)
{
	struct seal_frame f;

	for (;;) {
		size_t took = seal_stream_put(to->st, bytes, n);
		bytes += took;
		n -= took;
		to->rc = seal_stream_next(to->st, &f);
		if (to->rc == 1) {
			to->n_frames++;
			to->len = f.len;
			to->is_last = f.is_last;
			if (f.len > 0 && f.len <= sizeof(to->last))
				memcpy(to->last, f.body, f.len);
		} else if (to->rc < 0 || took == 0) {
			return;
		}
	}
}

/* Carry until nothing moves; how many bytes. flip: the byte to change. */
static size_t pump(struct pipe_end *a, struct pipe_end *b, size_t flip)
{
	size_t total = 0;

	for (;;) {
		size_t moved = 0;
		for (int dir = 0; dir < 2; dir++) {
			struct pipe_end *from = dir ? b : a;
			size_t n;
			const uint8_t *out = seal_stream_out(from->st, &n);
			if (n == 0)
				continue;
			uint8_t *copy = xmalloc(n);
			memcpy(copy, out, n);
			if (flip >= total && flip < total + n)
				copy[flip - total] ^= 1;
			seal_stream_sent(from->st, n);
			feed(dir ? a : b, copy, n);
			free(copy);
			moved += n;
			total += n;
		}
		if (moved == 0)
			return total;
	}
}

#define NO_FLIP SIZE_MAX

static void open_pair(struct seal *sa, struct seal *sb, struct pipe_end *a,
		      struct pipe_end *b)
{
	*a = (struct pipe_end){.st = seal_stream_create(sa, true, NULL)};
	*b = (struct pipe_end){.st = seal_stream_create(sb, false, NULL)};
}

static void close_pair(struct pipe_end *a, struct pipe_end *b)
{
	seal_stream_destroy(a->st);
	seal_stream_destroy(b->st);
}

static void test_stream(enum seal_mode mode)
{
	struct seal *sa = make(1, mode != SEAL_OFF, mode);
	struct seal *sb = make(2, mode != SEAL_OFF, mode);
	struct pipe_end a, b;
	struct gossip_id id;
	uint32_t boot;
	bool is_sealed;

	open_pair(sa, sb, &a, &b);
	check_int(seal_stream_send(a.st, "x", 1, false), -EAGAIN);
	check(!seal_stream_peer(b.st, &id, &boot, &is_sealed), "unproved");
	pump(&a, &b, NO_FLIP);
	check(seal_stream_peer(a.st, &id, &boot, &is_sealed), "a: no peer");
	check(id.b[0] == 2 && boot == 7, "another peer");
	check(seal_stream_peer(b.st, &id, &boot, &is_sealed), "b: no peer");
	check(id.b[0] == 1 && is_sealed == (mode != SEAL_OFF), "peer");
	check_int(seal_stream_send(a.st, "hello", 5, false), 0);
	check_int(seal_stream_send(b.st, "", 0, false), 0);
	pump(&a, &b, NO_FLIP);
	check(b.n_frames == 1 && memcmp(b.last, "hello", 5) == 0, "no hello");
	check_int(a.n_frames, 1);
	uint8_t *big = xcalloc(1, SEAL_FRAME_MAX + 1);
	check_int(seal_stream_send(b.st, big, SEAL_FRAME_MAX + 1, false),
		  -EMSGSIZE);
	check_int(seal_stream_send(b.st, big, SEAL_FRAME_MAX, true), 0);
	check_int(seal_stream_send(b.st, "x", 1, false), -EPIPE);
	pump(&a, &b, NO_FLIP);
	check(a.n_frames == 2 && a.len == SEAL_FRAME_MAX && a.is_last, "big");
	check_int(seal_stream_put(a.st, big, 10), 0); /* after the last */
	check_int(seal_stream_send(a.st, "bye", 3, true), 0);
	pump(&a, &b, NO_FLIP);
	check(b.is_last && b.len == 3, "the end");
	free(big);
	close_pair(&a, &b);
	seal_destroy(sa);
	seal_destroy(sb);
	ok("a stream, %s: both prove themselves, then frames, then an end",
	   mode == SEAL_OFF ? "in the clear" : "sealed");
}

static void test_stream_flips(void)
{
	struct seal *sa = make(1, 1, SEAL_REQUIRED);
	struct seal *sb = make(2, 1, SEAL_REQUIRED);
	struct pipe_end a, b;

	open_pair(sa, sb, &a, &b);
	size_t total = pump(&a, &b, NO_FLIP);
	check_int(total, 2 * (84 + 24 + 4 + 17));
	close_pair(&a, &b);
	for (size_t i = 0; i < total; i++) {
		open_pair(sa, sb, &a, &b);
		pump(&a, &b, i);
		struct gossip_id id;
		uint32_t boot;
		bool is_sealed;
		bool both = seal_stream_peer(a.st, &id, &boot, &is_sealed) &&
			    seal_stream_peer(b.st, &id, &boot, &is_sealed);
		/* a longer length waits for bytes that do not come */
		check(!both || (a.rc < 0 || b.rc < 0), "byte %zu", i);
		close_pair(&a, &b);
	}
	struct gossip_id third = id_of(3);
	a = (struct pipe_end){.st = seal_stream_create(sa, true, &third)};
	b = (struct pipe_end){.st = seal_stream_create(sb, false, NULL)};
	pump(&a, &b, NO_FLIP);
	check_reason(seal_stream_reason(b.st), SEAL_NOT_THEM);
	close_pair(&a, &b);
	seal_destroy(sa);
	seal_destroy(sb);
	ok("a handshake changed in any byte, or with another member, fails");
}

/* Everything that a said is recorded, and said to b again by somebody else. */
static void test_stream_replay(void)
{
	struct seal *sa = make(1, 1, SEAL_REQUIRED);
	struct seal *sb = make(2, 1, SEAL_REQUIRED);
	struct pipe_end a, b;
	uint8_t record[1000];
	size_t len = 0, n;
	const uint8_t *out;

	open_pair(sa, sb, &a, &b);
	for (int round = 0; round < 3; round++) {
		out = seal_stream_out(a.st, &n);
		memcpy(record + len, out, n);
		len += n;
		feed(&b, out, n);
		seal_stream_sent(a.st, n);
		out = seal_stream_out(b.st, &n);
		feed(&a, out, n);
		seal_stream_sent(b.st, n);
		if (round == 1)
			seal_stream_send(a.st, "rm -rf", 6, false);
	}
	check_int(b.n_frames, 1);
	close_pair(&a, &b);
	b = (struct pipe_end){.st = seal_stream_create(sb, false, NULL)};
	feed(&b, record, len);
	check_reason(seal_stream_reason(b.st), SEAL_FORGED);
	check_int(b.n_frames, 0);
	seal_stream_destroy(b.st);
	/* And to itself. */
	a = (struct pipe_end){.st = seal_stream_create(sa, true, NULL)};
	out = seal_stream_out(a.st, &n);
	feed(&a, out, n);
	check_reason(seal_stream_reason(a.st), SEAL_SELF);
	seal_stream_destroy(a.st);
	seal_destroy(sa);
	seal_destroy(sb);
	ok("a recorded stream proves nothing; nor does one's own reflection");
}

static void test_stream_reasons(void)
{
	struct seal *sb = make(2, 1, SEAL_REQUIRED);
	struct seal *clear = make(1, 0, SEAL_OFF);
	struct seal *foe = make(3, 5, SEAL_REQUIRED);
	struct pipe_end a, b;

	open_pair(clear, sb, &a, &b);
	pump(&a, &b, NO_FLIP);
	check_reason(seal_stream_reason(b.st), SEAL_CLEAR);
	close_pair(&a, &b);
	open_pair(foe, sb, &a, &b);
	pump(&a, &b, NO_FLIP);
	check_reason(seal_stream_reason(b.st), SEAL_NO_KEY);
	close_pair(&a, &b);
	struct seal *none = make(4, 0, SEAL_REQUIRED);
	check(seal_stream_create(none, true, NULL) == NULL, "without a key");
	/* Who has not proved himself cannot make us hold a megabyte. */
	struct seal *sa = make(1, 1, SEAL_REQUIRED);
	static const uint8_t length[4] = {0, 0, 16, 0};
	open_pair(sa, sb, &a, &b);
	size_t n;
	const uint8_t *out = seal_stream_out(a.st, &n);
	feed(&b, out, n);
	uint8_t header[24] = {0};
	feed(&b, header, 24);
	feed(&b, length, 4);
	check_reason(seal_stream_reason(b.st), SEAL_TOO_LONG);
	close_pair(&a, &b);
	seal_destroy(sa);
	seal_destroy(sb);
	seal_destroy(clear);
	seal_destroy(foe);
	seal_destroy(none);
	ok("streams: clear, unknown key, too long before the proof: refused");
}

/* Frames swapped, repeated, left out. */
static void test_stream_order(void)
{
	for (int kind = 0; kind < 3; kind++) {
		struct seal *sa = make(1, 1, SEAL_REQUIRED);
		struct seal *sb = make(2, 1, SEAL_REQUIRED);
		struct pipe_end a, b;
		uint8_t frames[2][22];
		size_t n;

		open_pair(sa, sb, &a, &b);
		pump(&a, &b, NO_FLIP);
		seal_stream_send(a.st, "1", 1, false);
		seal_stream_send(a.st, "2", 1, false);
		const uint8_t *out = seal_stream_out(a.st, &n);
		check_int(n, sizeof(frames));
		memcpy(frames, out, n);
		feed(&b, frames[kind == 0], 22); /* 0: the second first */
		if (kind == 1)
			feed(&b, frames[0], 22); /* the first again */
		if (kind < 2) {
			check_reason(seal_stream_reason(b.st), SEAL_FORGED);
		} else { /* cut: no error, and no end */
			check_int(b.n_frames, 1);
			check(!b.is_last, "a cut looks like an end");
		}
		close_pair(&a, &b);
		seal_destroy(sa);
		seal_destroy(sb);
	}
	ok("frames swapped or repeated are noticed; a cut is not an end");
}

/* ---- Cost ---- */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void test_speed(void)
{
	struct seal *a = make(1, 1, SEAL_REQUIRED);
	struct seal *b = make(2, 1, SEAL_REQUIRED);
	static uint8_t packet[1500], body[1400];
	enum {
		ROUNDS = 5000
	};
	double best[2] = {1, 1};
	struct seal_opened o;

	for (int r = 0; r < 5; r++) {
		static uint8_t kept[ROUNDS][1500];
		double t0 = seconds();
		int n = 0;
		for (int i = 0; i < ROUNDS; i++)
			n = seal_packet(a, body, 1400, kept[i], 1500);
		double t1 = seconds();
		for (int i = 0; i < ROUNDS; i++)
			seal_open(b, kept[i], (size_t)n, &o);
		double t2 = seconds();
		best[0] = t1 - t0 < best[0] ? t1 - t0 : best[0];
		best[1] = t2 - t1 < best[1] ? t2 - t1 : best[1];
	}
	memset(packet, 'r', sizeof(packet));
	double t0 = seconds();
	for (int i = 0; i < ROUNDS; i++)
		seal_open(b, packet, sizeof(packet), &o);
	printf("# 1400 bytes: seal %.0f ns, open %.0f ns, refuse an alien "
	       "%.0f ns; %zu bytes per peer\n",
	       best[0] / ROUNDS * 1e9, best[1] / ROUNDS * 1e9,
	       (seconds() - t0) / ROUNDS * 1e9, sizeof(struct seal_peer));
	seal_destroy(a);
	seal_destroy(b);
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	test_packet();
	test_bits();
	test_reasons();
	test_replay();
	test_window_model(seed);
	test_floods();
	test_switch();
	test_clear();
	test_rotation();
	test_forgotten();
	test_file();
	test_stream(SEAL_REQUIRED);
	test_stream(SEAL_OFF);
	test_stream_flips();
	test_stream_replay();
	test_stream_reasons();
	test_stream_order();
	test_speed();
	return 0;
}
