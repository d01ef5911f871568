/* SPDX-License-Identifier: MIT */
/* Bytes, read and written in bounds: all packets of gossip/ pass here (D9).
 * Integers are little-endian.
 *
 * A reader never passes its end: a read beyond it gives zeros (or NULL), and
 * sets bad for good. A writer fills memory of a given size: what does not fit
 * sets full for good and writes nothing. So a caller looks once, at the end. */
#ifndef GOSSIP_BYTES_H
#define GOSSIP_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes_in {
	const uint8_t *at, *end;
	bool bad;
};

static inline struct bytes_in bytes_in_of(const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	return (struct bytes_in){.at = at, .end = n > 0 ? at + n : at};
}

static inline size_t bytes_left(const struct bytes_in *in)
{
	return in->bad ? 0 : (size_t)(in->end - in->at);
}

/* The next n bytes, borrowed from the input; NULL beyond the end. */
static inline const uint8_t *bytes_take(struct bytes_in *in, size_t n)
{
	const uint8_t *at = in->at;

	if (n > bytes_left(in) || in->bad) {
		in->bad = true;
		return NULL;
	}
	in->at += n;
	return at;
}

/* A reader of the next n bytes; empty and bad beyond the end. */
static inline struct bytes_in bytes_part(struct bytes_in *in, size_t n)
{
	const uint8_t *at = bytes_take(in, n);
	struct bytes_in part = bytes_in_of(at, at != NULL ? n : 0);

	part.bad = at == NULL;
	return part;
}

static inline uint64_t bytes_uint(struct bytes_in *in, unsigned size)
{
	const uint8_t *at = bytes_take(in, size);
	uint64_t v = 0;

	for (unsigned i = 0; at != NULL && i < size; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

static inline uint8_t bytes_u8(struct bytes_in *in)
{
	return (uint8_t)bytes_uint(in, 1);
}

static inline uint16_t bytes_u16(struct bytes_in *in)
{
	return (uint16_t)bytes_uint(in, 2);
}

static inline uint32_t bytes_u32(struct bytes_in *in)
{
	return (uint32_t)bytes_uint(in, 4);
}

static inline uint64_t bytes_u64(struct bytes_in *in)
{
	return bytes_uint(in, 8);
}

/* Read n bytes into to; zeros beyond the end. */
static inline void bytes_copy(struct bytes_in *in, void *to, size_t n)
{
	const uint8_t *at = bytes_take(in, n);

	if (at != NULL)
		memcpy(to, at, n);
	else
		memset(to, 0, n);
}

struct bytes_out {
	uint8_t *base; /* borrowed */
	size_t len, cap;
	bool full;
};

static inline struct bytes_out bytes_out_of(void *base, size_t cap)
{
	return (struct bytes_out){.base = base, .cap = cap};
}

static inline size_t bytes_room(const struct bytes_out *out)
{
	return out->full ? 0 : out->cap - out->len;
}

static inline void bytes_put(struct bytes_out *out, const void *from, size_t n)
{
	if (n > bytes_room(out) || out->full) {
		out->full = true;
		return;
	}
	if (n > 0)
		memcpy(out->base + out->len, from, n);
	out->len += n;
}

static inline void bytes_put_uint(struct bytes_out *out, uint64_t v,
				  unsigned size)
{
	uint8_t b[8];

	for (unsigned i = 0; i < size; i++)
		b[i] = (uint8_t)(v >> (8 * i));
	bytes_put(out, b, size);
}

static inline void bytes_put_u8(struct bytes_out *out, uint8_t v)
{
	bytes_put_uint(out, v, 1);
}

static inline void bytes_put_u16(struct bytes_out *out, uint16_t v)
{
	bytes_put_uint(out, v, 2);
}

static inline void bytes_put_u32(struct bytes_out *out, uint32_t v)
{
	bytes_put_uint(out, v, 4);
}

static inline void bytes_put_u64(struct bytes_out *out, uint64_t v)
{
	bytes_put_uint(out, v, 8);
}

/* Write v over two bytes that were put before, at offset at. */
static inline void bytes_patch_u16(struct bytes_out *out, size_t at, uint16_t v)
{
	if (out->full)
		return;
	out->base[at] = (uint8_t)v;
	out->base[at + 1] = (uint8_t)(v >> 8);
}

#endif
