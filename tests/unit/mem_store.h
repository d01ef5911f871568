/* SPDX-License-Identifier: MIT */
/* For the tests of the key machine: a store in memory, as plain as can be, and
 * a machine loaded from it. */
#ifndef TESTS_UNIT_MEM_STORE_H
#define TESTS_UNIT_MEM_STORE_H

#include <string.h>

#include "ring/keyset.h"
#include "ring/mem.h"
#include "ring/store.h"
#include "tests/unit/check.h"

struct mem_record {
	uint64_t id;
	void *bytes;
	uint32_t len;
};

struct mem_store {
	struct mem_record *rec;
	size_t n;
	struct buf meta;
};

static inline void mem_batch_finish(struct store_batch *b)
{
	free(b->records.base);
	free(b->meta.base);
	free(b->snapshot.base);
	*b = (struct store_batch){0};
}

static inline void mem_store_put(struct mem_store *s, uint64_t id,
				 const void *bytes, uint32_t len)
{
	size_t i = 0;

	while (i < s->n && s->rec[i].id != id)
		i++;
	if (len == 0) {
		if (i == s->n)
			return;
		free(s->rec[i].bytes);
		s->rec[i] = s->rec[--s->n];
		return;
	}
	if (i == s->n) {
		s->rec = xrealloc(s->rec, ++s->n * sizeof(*s->rec));
		s->rec[i] = (struct mem_record){.id = id};
	}
	s->rec[i].bytes = xrealloc(s->rec[i].bytes, len);
	s->rec[i].len = len;
	memcpy(s->rec[i].bytes, bytes, len);
}

static inline void mem_store_write(struct mem_store *s, struct store_batch *b)
{
	struct reader r = reader_of(b->records.base, b->records.len);

	while (reader_left(&r) > 0) {
		uint64_t id = reader_u64(&r);
		uint32_t len = reader_u32(&r);

		mem_store_put(s, id, reader_bytes(&r, len), len);
		b->n_records--;
	}
	check(!r.bad, "records end where they should");
	check_int(b->n_records, 0);
	s->meta.len = 0;
	buf_put(&s->meta, b->meta.base, b->meta.len);
}

static inline void mem_store_finish(struct mem_store *s)
{
	while (s->n > 0)
		free(s->rec[--s->n].bytes);
	free(s->rec);
	free(s->meta.base);
	*s = (struct mem_store){0};
}

/* Gives the loaded machine, or NULL when it was refused. */
static inline struct keyset *mem_store_load(const struct mem_store *s,
					    const struct keyset_events *events)
{
	struct keyset *k = keyset_create(events);
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < s->n; i++)
		rc = keyset_load_key(k, s->rec[i].bytes, s->rec[i].len);
	if (rc == 0)
		rc = keyset_load_meta(k, s->meta.base, s->meta.len);
	if (rc == 0)
		rc = keyset_load_end(k);
	if (rc == 0)
		return k;
	keyset_destroy(k);
	return NULL;
}

#endif
