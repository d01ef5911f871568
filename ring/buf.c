/* SPDX-License-Identifier: MIT */
#include "ring/buf.h"

#include <endian.h>
#include <string.h>

#include "ring/mem.h"

void buf_put(struct buf *b, const void *bytes, size_t n)
{
	if (n == 0)
		return;
	if (b->cap - b->len < n) {
		while (b->cap - b->len < n)
			b->cap = b->cap ? 2 * b->cap : 256;
		b->base = xrealloc(b->base, b->cap);
	}
	memcpy(b->base + b->len, bytes, n);
	b->len += n;
}

void buf_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, sizeof(v));
}

void buf_u16(struct buf *b, uint16_t v)
{
	v = htole16(v);
	buf_put(b, &v, sizeof(v));
}

void buf_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_put(b, &v, sizeof(v));
}

void buf_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_put(b, &v, sizeof(v));
}

struct reader reader_of(const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	return (struct reader){.at = at, .end = n ? at + n : at};
}

const uint8_t *reader_bytes(struct reader *r, size_t n)
{
	const uint8_t *at = r->at;

	if (r->bad || reader_left(r) < n) {
		r->bad = true;
		return NULL;
	}
	if (n > 0)
		r->at += n;
	return at;
}

static void reader_copy(struct reader *r, void *to, size_t n)
{
	const uint8_t *from = reader_bytes(r, n);

	if (from != NULL)
		memcpy(to, from, n);
}

uint8_t reader_u8(struct reader *r)
{
	uint8_t v = 0;

	reader_copy(r, &v, sizeof(v));
	return v;
}

uint16_t reader_u16(struct reader *r)
{
	uint16_t v = 0;

	reader_copy(r, &v, sizeof(v));
	return le16toh(v);
}

uint32_t reader_u32(struct reader *r)
{
	uint32_t v = 0;

	reader_copy(r, &v, sizeof(v));
	return le32toh(v);
}

uint64_t reader_u64(struct reader *r)
{
	uint64_t v = 0;

	reader_copy(r, &v, sizeof(v));
	return le64toh(v);
}

size_t reader_left(const struct reader *r)
{
	return (size_t)(r->end - r->at);
}
