/* SPDX-License-Identifier: MIT */
/* libFuzzer: bytes as an entry for a machine of two nodes with a few keys, or,
 * by the first byte, as a record or a meta of the store. A bad entry changes
 * nothing; a good one leaves a machine that can be stored and loaded.
 *
 * clang -fsanitize=fuzzer,address,undefined, with entry.c, keyset*.c, place.c
 * and buf.c of ring/. */
#include <assert.h>
#include <string.h>

#include "ring/keyset.h"
#include "ring/mem.h"
#include "ring/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct keyset_events deaf;

static void build(struct keyset *k)
{
	static const struct ring_id ids[2] = {{{1}}, {{2}}};
	struct ring_settings s = {
		.vnodes = 16, .claims = RING_CLAIMS_ANY, .max_attempts = 1};
	struct keyset_up one = {.id = ids[0],
				.life = ids[0],
				.boot = 1,
				.weight = 1,
				.name = "one"};
	struct keyset_up two = {.id = ids[1],
				.life = ids[1],
				.boot = 1,
				.weight = 1,
				.name = "two"};
	struct keyset_origin origin = {ids[0], 1, 1, 1, 1};
	struct ring_op ops[] = {
		{.type = RING_CLAIM, .name = "a", .note = "n", .note_len = 1},
		{.type = RING_SUBMIT, .name = "b"},
		{.type = RING_CLAIM, .name = "c"},
		{.type = RING_PARK, .name = "c"},
		{.type = RING_CLAIM, .name = "d"},
		{.type = RING_GIVE, .name = "d"},
	};
	struct keyset_share share = {.id = ids[1],
				     .boot = 1,
				     .epoch = 1,
				     .weight = 1,
				     .is_draining = true};
	struct buf b = {0};
	int rc;

	keyset_entry_begin(&b, 1, 1);
	keyset_put_settings(&b, &ids[0], &s);
	keyset_put_up(&b, &one);
	keyset_put_up(&b, &two);
	keyset_put_share(&b, &share);
	keyset_put_request(&b, &origin, ops, sizeof(ops) / sizeof(*ops));
	rc = keyset_apply(k, 1, b.base, b.len);
	assert(rc == 0);
	(void)rc;
	free(b.base);
}

static void load_same(struct keyset *k)
{
	struct keyset *other = keyset_create(&deaf);
	struct store_batch batch = {0};
	struct reader r;
	int rc = 0;

	keyset_collect(k, &batch);
	r = reader_of(batch.records.base, batch.records.len);
	while (reader_left(&r) > 0 && rc == 0) {
		uint32_t len;

		reader_u64(&r);
		len = reader_u32(&r);
		rc = keyset_load_key(other, reader_bytes(&r, len), len);
	}
	if (rc == 0)
		rc = keyset_load_meta(other, batch.meta.base, batch.meta.len);
	if (rc == 0)
		rc = keyset_load_end(other);
	if (rc != 0 || keyset_hash(other) != keyset_hash(k))
		abort();
	keyset_destroy(other);
	free(batch.records.base);
	free(batch.meta.base);
}

static void as_entry(const uint8_t *data, size_t size)
{
	struct keyset *k = keyset_create(&deaf);
	uint64_t before;

	build(k);
	before = keyset_hash(k);
	if (keyset_apply(k, 2, data, size) == 0)
		load_same(k);
	else if (keyset_hash(k) != before)
		abort();
	keyset_destroy(k);
}

static void as_store(const uint8_t *data, size_t size, bool meta)
{
	struct keyset *k = keyset_create(&deaf);
	int rc = meta ? keyset_load_meta(k, data, size)
		      : keyset_load_key(k, data, size);

	if (rc == 0)
		keyset_load_end(k);
	keyset_destroy(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] == 0)
		as_entry(data + 1, size - 1);
	else
		as_store(data + 1, size - 1, data[0] & 1);
	return 0;
}
