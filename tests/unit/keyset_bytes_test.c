/* SPDX-License-Identifier: MIT */
/* The key machine's bytes: damaged entries, the store, and what many keys cost
 * in time and memory. */
#include <errno.h>
#include <malloc.h>

#include "tests/unit/keyset_rig.h"
#include "tests/unit/mem_store.h"

/* ---- Bytes ---- */

static void full_entry(struct rig *g, struct buf *e)
{
	struct ring_op ops[] = {
		{.type = RING_CLAIM, .name = "x", .note = "n", .note_len = 1},
		{.type = RING_NOTE, .name = "x", .note = "mm", .note_len = 2},
		{.type = RING_FINISH, .name = "x", .id = 1, .token = 2}};
	struct keyset_up u = up_of(g, 1);
	struct keyset_share s = {.id = g->me[0].id,
				 .boot = g->me[0].boot,
				 .epoch = g->me[0].epoch,
				 .weight = 50};

	u.boot = 1;
	keyset_entry_begin(e, 1, 1);
	keyset_put_request(e, &g->me[0], ops, 3);
	keyset_put_up(e, &u);
	keyset_put_share(e, &s);
	keyset_put_down(e, &g->me[0].id, g->me[0].boot, g->me[0].epoch,
			RING_LEFT);
}

/* A machine must not change by a bad entry, and survives a good one. */
static bool feed(struct rig *g, const uint8_t *bytes, size_t len)
{
	uint64_t before = keyset_hash(g->k);
	uint8_t *copy = xmalloc(len + 1); /* so that a sanitizer sees its end */
	int rc;

	memcpy(copy, bytes, len);
	rc = keyset_check(copy, len);
	if (rc == 0)
		rc = keyset_apply(g->k, ++g->index, copy, len);
	else
		check_int(keyset_apply(g->k, g->index + 1, copy, len), rc);
	check(rc == 0 || keyset_hash(g->k) == before, "unchanged when bad");
	free(copy);
	return rc == 0;
}

static void test_damage(uint64_t seed)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 1);
	struct buf e = {0};
	size_t n_good = 0;

	g->quiet = true;
	full_entry(g, &e);
	for (size_t len = 0; len < e.len; len++)
		n_good += feed(g, e.base, len);
	check_int(n_good, 4); /* the header, and the end of each item */
	for (int i = 0; i < 20000; i++) {
		size_t at_byte = check_random(&seed) % e.len;
		uint8_t was = e.base[at_byte];

		e.base[at_byte] ^= (uint8_t)(1 + check_random(&seed) % 255);
		n_good += feed(g, e.base, e.len);
		if (i % 2) /* every other damage stays */
			e.base[at_byte] = was;
		if (i % 32 == 0) {
			e.len = 0;
			full_entry(g, &e);
		}
	}
	check(n_good > 100, "some are good: %zu", n_good);
	ok("cut and damaged entries change nothing, or are applied whole");

	e.len = 0;
	keyset_entry_begin(&e, 1, 1);
	keyset_put_settings(&e, keyset_cluster(g->k), keyset_settings(g->k));
	check(!feed(g, e.base, e.len), "settings come once");
	keyset_destroy(g->k);
	g->k = keyset_create(&(struct keyset_events){0});
	e.len = 0;
	full_entry(g, &e);
	check(!feed(g, e.base, e.len), "settings come first");
	ok("settings come once, and first");
	free(e.base);
	rig_free(g);
}

static void test_time(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 1);
	uint64_t now = keyset_now_ms(g->k);

	g->e.len = 0;
	keyset_entry_begin(&g->e, now + 5, 77);
	check_int(apply(g), 0);
	check_int(keyset_now_ms(g->k), now + 5);
	g->e.len = 0;
	keyset_entry_begin(&g->e, 3, 77);
	check_int(apply(g), 0);
	check_int(keyset_now_ms(g->k), now + 5);
	check_int(keyset_index(g->k), g->index);
	ok("holes 23: machine time never goes back");
	rig_free(g);
}

/* ---- The store ---- */

static void collect(struct rig *g, struct mem_store *s, size_t n_records)
{
	struct store_batch b = {0};

	keyset_collect(g->k, &b);
	check_int(b.n_records, n_records);
	mem_store_write(s, &b);
	mem_batch_finish(&b);
}

static void test_store(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 3);
	struct mem_store s = {0};
	struct store_batch b = {0};
	struct keyset *k;

	check_int(op(g, 0, RING_CLAIM, "a"), 0);
	check_int(op(g, 0, RING_CLAIM, "b"), 0);
	check_int(op(g, 0, RING_CLAIM, "brief"), 0);
	check_int(op(g, 0, RING_FINISH, "brief"), 0);
	collect(g, &s, 2);
	collect(g, &s, 0);
	check_int(op(g, 0, RING_GIVE, "a"), 0);
	check_int(op(g, 0, RING_PARK, "a"), 0);
	check_int(op(g, 0, RING_FINISH, "b"), 0);
	keyset_collect(g->k, &b);
	check_int(b.n_records, 2);
	check_int(op(g, 0, RING_CLAIM, "c"), 0);
	keyset_dirty_again(g->k, &b);
	mem_batch_finish(&b);
	collect(g, &s, 3);
	check_int(s.n, 2);
	k = mem_store_load(&s, &(struct keyset_events){0});
	check(k != NULL && keyset_hash(k) == keyset_hash(g->k), "equal");
	ok("only what changed is collected, and loads as it was");
	keyset_destroy(k);

	for (size_t i = 0; i < s.meta.len; i++) {
		s.meta.base[i] ^= 0x10;
		check(mem_store_load(&s, &(struct keyset_events){0}) == NULL,
		      "meta byte %zu", i);
		s.meta.base[i] ^= 0x10;
	}
	for (size_t i = 0; i < s.rec[0].len; i++) {
		((uint8_t *)s.rec[0].bytes)[i] ^= 0x10;
		check(mem_store_load(&s, &(struct keyset_events){0}) == NULL,
		      "record byte %zu", i);
		((uint8_t *)s.rec[0].bytes)[i] ^= 0x10;
	}
	ok("a changed byte in the store is refused");
	mem_store_finish(&s);
	rig_free(g);
}

/* ---- Many ---- */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_down_many(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 4);
	uint64_t token = 0;
	size_t n, least = SIZE_MAX;
	const uint64_t *ids;
	double t;

	g->quiet = true;
	claim_many(g, 100000, "k");
	check_int(g->n_keys, 100000);
	t = seconds();
	down(g, 0, RING_DEAD);
	t = seconds() - t;
	check_int(g->n_keys, 100000);
	for (uint32_t i = 1; i < 4; i++) {
		ids = keyset_list(g->k, RING_VIEW_RECOVER, i, &n);
		least = n < least ? n : least;
		for (size_t j = 0; j < n; j++) {
			const struct ring_key *key;

			key = keyset_find_id(g->k, ids[j]);
			token = token ? token : key->token;
			check_int(key->token, token);
			check_int(key->reason, RING_DEAD);
		}
	}
	check(least > 20000, "spread over all, least %zu", least);
	check(t < 1.0, "%.3f s", t);
	ok("100,000 keys of a dead node change hands in %.0f ms", t * 1e3);
	rig_free(g);
}

/* Claim many, finish most in random order, claim them again: tables and lists
 * grow, shrink and lose nothing. */
static void test_churn(uint64_t seed)
{
	enum {
		N = 20000
	};
	struct rig *g = rig_new(RING_CLAIMS_ANY, 1);
	bool *gone = xcalloc(N, sizeof(*gone));
	size_t left = N;
	char name[16];

	g->quiet = true;
	claim_many(g, N, "k");
	while (left > 50) {
		size_t i = check_random(&seed) % N;

		snprintf(name, sizeof(name), "k%07zu", i);
		check_int(op(g, 0, RING_FINISH, name), gone[i] ? -ENOENT : 0);
		left -= !gone[i];
		gone[i] = true;
		check_int(count(g, RING_VIEW_OWNED, 0), left);
	}
	for (size_t i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "k%07zu", i);
		check_int(find(g, name) == NULL, gone[i]);
	}
	claim_many(g, N, "k");
	check_int(g->n_keys, N - left);
	check_int(count(g, RING_VIEW_KEYS, 0), N);
	ok("%d keys come and go, and none is lost", N);
	free(gone);
	rig_free(g);
}

/* 98,305 keys: the tables have just doubled, their worst moment. */
static void test_memory(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 1);
	size_t n = 98305, before, each;
	struct store_batch b = {0};

	g->quiet = true;
	before = mallinfo2().uordblks + mallinfo2().hblkhd;
	claim_many(g, n, "k");
	keyset_collect(g->k, &b);
	mem_batch_finish(&b);
	free(g->e.base);
	g->e = (struct buf){0};
	check_int(op(g, 0, RING_TAKE, "absent"), -ENOENT); /* drops answers */
	each = (mallinfo2().uordblks + mallinfo2().hblkhd - before) / n - 8;
	if (before == 0) { /* a sanitizer's allocator: it does not count */
		rig_free(g);
		return;
	}
	check(each <= 250, "%zu bytes", each);
	ok("a key costs %zu bytes beside its name of 8", each);
	rig_free(g);
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	test_damage(seed);
	test_time();
	test_store();
	test_down_many();
	test_churn(seed);
	test_memory();
	return 0;
}
