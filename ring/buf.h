/* SPDX-License-Identifier: MIT */
/* Bytes, written and read in bounds. Integers are little-endian, everywhere:
 * in the log, in the store, on the wire.
 *
 * A writer grows and cannot fail. A reader never passes its end: a read beyond
 * it gives zeros (or NULL) and sets bad, which is looked at once, at the end. */
#ifndef RING_BUF_H
#define RING_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *base; /* free() releases it */
	size_t len, cap;
};

void buf_put(struct buf *b, const void *bytes, size_t n);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);

struct reader {
	const uint8_t *at, *end;
	bool bad;
};

struct reader reader_of(const void *bytes, size_t n);
const uint8_t *reader_bytes(struct reader *r, size_t n); /* borrowed, or NULL */
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
size_t reader_left(const struct reader *r);

#endif
