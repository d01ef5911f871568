/* SPDX-License-Identifier: MIT */
/* The bytes of the log. Integers are little-endian.
 *
 * A segment is a header of 4096 bytes, then batches, then zeros:
 *
 *   offset size
 *        0    8  magic "ringlog\n"
 *        8    4  version of the format: 1
 *       12    4  1: the log begins anew with this segment, and entries in the
 *                ones before count no more (a snapshot has replaced them); else
 *       0 16   16  cluster id
 *       32   16  node id
 *       48    8  raft id of the server
 *       56    8  number of the segment, from 1
 *       64    8  size of the segment in bytes
 *       72    8  first index that may appear
 *       80    8  last index of the log when the segment was begun
 *       88    8  term   } at that time
 *       96    8  vote   }
 *      104    8  seq of the first batch
 *      112    4  generation at that time
 *      116       zeros
 *     4088    8  XXH3 of the 4088 bytes before
 *
 * A batch begins at a multiple of 64, so that its header lies in one sector:
 *
 *        0    4  magic
 *        4    4  length L of the batch, this header and the trailer included
 *        8    8  seq: 1 for the log's first batch, then one more for each
 *       16    4  number of records
 *       20    4  lag: how many batches just before this one had not been
 *                flushed when it was written
 *       24    8  seal of the 24 bytes before
 *       32       records, whitened
 *      L-8    8  seal of the L-8 bytes before
 *
 * A seal is XXH3, its top byte replaced by a mark that is not zero. Records:
 *
 *   entry   1 type WAL_ENTRY,  1 entry type, 4 length, 8 index, 8 term, data
 *   vote    1 type WAL_VOTE,   8 term, 8 vote
 *   closed  1 type WAL_CLOSED, 8 number of the next segment
 *   generation
 *           1 type WAL_GENERATION, 4 generation
 *
 * Torn or damaged? The disk writes sectors of 512 bytes, and the file was zeros
 * before. Whitened records have no sector of zeros, and header and trailer end
 * in a mark, so a batch that did not reach the disk whole shows it: one of its
 * sectors, or the part of it in its first or last one, is all zeros (or, if the
 * disk can stop anywhere, the mark is zero). A flipped bit does not look like
 * this. And whether such a batch may be cut off is said by the batches after
 * it: if one was written after this one had been flushed, then not.
 *
 * Whitening mixes in the server's random id: no one can have records written
 * that look like zeros, or like a batch. */
#include "ring/wal_impl.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define SEGMENT_MAGIC  0x0a676f6c676e6972 /* "ringlog\n" */
#define FORMAT_VERSION 1
#define BATCH_MAGIC    0x68637462 /* "btch" */
#define MARK	       0xa5
#define SECTOR	       512
#define SEAL	       8

static void put_at(uint8_t *at, uint64_t v, size_t n)
{
	v = htole64(v);
	memcpy(at, &v, n);
}

static uint64_t get_at(const uint8_t *at, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, at, n);
	return le64toh(v);
}

static void put_zeros(struct buf *out, size_t n)
{
	static const uint8_t zeros[WAL_BLOCK];

	buf_put(out, zeros, n);
}

void wal_head_encode(const struct wal_head *h, struct buf *out)
{
	out->len = 0;
	buf_u64(out, SEGMENT_MAGIC);
	buf_u32(out, FORMAT_VERSION);
	buf_u32(out, h->restart);
	buf_put(out, h->cluster.byte, sizeof(h->cluster.byte));
	buf_put(out, h->node.byte, sizeof(h->node.byte));
	buf_u64(out, h->server);
	buf_u64(out, h->number);
	buf_u64(out, h->bytes);
	buf_u64(out, h->first);
	buf_u64(out, h->last);
	buf_u64(out, h->term);
	buf_u64(out, h->vote);
	buf_u64(out, h->seq);
	buf_u32(out, h->generation);
	put_zeros(out, WAL_BLOCK - 8 - out->len);
	buf_u64(out, XXH3_64bits(out->base, out->len));
	assert(out->len == WAL_BLOCK);
}

static void get_id(struct reader *r, struct ring_id *id)
{
	memcpy(id->byte, reader_bytes(r, sizeof(id->byte)), sizeof(id->byte));
}

int wal_head_decode(struct wal_head *h, const uint8_t block[WAL_BLOCK])
{
	struct reader r = reader_of(block, WAL_BLOCK - 8);

	if (reader_u64(&r) != SEGMENT_MAGIC ||
	    get_at(block + WAL_BLOCK - 8, 8) !=
		    XXH3_64bits(block, WAL_BLOCK - 8))
		return -EUCLEAN;
	if (reader_u32(&r) != FORMAT_VERSION)
		return -EPROTONOSUPPORT;
	h->restart = reader_u32(&r) != 0;
	get_id(&r, &h->cluster);
	get_id(&r, &h->node);
	h->server = reader_u64(&r);
	h->number = reader_u64(&r);
	h->bytes = reader_u64(&r);
	h->first = reader_u64(&r);
	h->last = reader_u64(&r);
	h->term = reader_u64(&r);
	h->vote = reader_u64(&r);
	h->seq = reader_u64(&r);
	h->generation = reader_u32(&r);
	return 0;
}

static uint64_t seal(const uint8_t *bytes, size_t n)
{
	return XXH3_64bits(bytes, n) >> 8 | (uint64_t)MARK << 56;
}

/* splitmix64's last step: every bit of x changes half of the result's. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static void whiten(uint8_t *at, size_t n, uint64_t server, uint64_t seq)
{
	uint64_t state = mix(server ^ mix(seq));

	for (; n > 0; n -= n < 8 ? n : 8, at += 8) {
		size_t part = n < 8 ? n : 8;

		state += 0x9e3779b97f4a7c15;
		put_at(at, get_at(at, part) ^ mix(state), part);
	}
}

void wal_batch_begin(struct buf *out)
{
	out->len = 0;
	put_zeros(out, WAL_BATCH);
}

void wal_put_entry(struct buf *out, const struct wal_entry *e)
{
	buf_u8(out, WAL_ENTRY);
	buf_u8(out, e->type);
	buf_u32(out, (uint32_t)e->len);
	buf_u64(out, e->index);
	buf_u64(out, e->term);
	buf_put(out, e->data, e->len);
}

size_t wal_entry_bytes(const struct wal_entry *e)
{
	return 1 + 1 + 4 + 8 + 8 + e->len;
}

void wal_put_vote(struct buf *out, uint64_t term, uint64_t vote)
{
	buf_u8(out, WAL_VOTE);
	buf_u64(out, term);
	buf_u64(out, vote);
}

void wal_put_closed(struct buf *out, uint64_t next)
{
	buf_u8(out, WAL_CLOSED);
	buf_u64(out, next);
}

void wal_put_generation(struct buf *out, uint32_t generation)
{
	buf_u8(out, WAL_GENERATION);
	buf_u32(out, generation);
}

size_t wal_batch_bytes(size_t records)
{
	size_t n = WAL_BATCH + records + SEAL;

	return (n + WAL_ALIGN - 1) & ~(size_t)(WAL_ALIGN - 1);
}

void wal_batch_end(struct buf *out, struct wal_batch *b, uint64_t server)
{
	uint8_t *at = out->base;

	whiten(at + WAL_BATCH, out->len - WAL_BATCH, server, b->seq);
	assert(out->len + SEAL <= UINT32_MAX);
	b->length = (uint32_t)(out->len + SEAL);
	put_at(at, BATCH_MAGIC, 4);
	put_at(at + 4, b->length, 4);
	put_at(at + 8, b->seq, 8);
	put_at(at + 16, b->count, 4);
	put_at(at + 20, b->lag, 4);
	put_at(at + 24, seal(at, WAL_BATCH - SEAL), 8);
	buf_u64(out, seal(at, out->len));
}

bool wal_is_zero(const uint8_t *at, size_t n)
{
	/* All bytes equal their neighbour, and the first is zero. */
	return n == 0 || (at[0] == 0 && memcmp(at, at + 1, n - 1) == 0);
}

static bool head_is_sound(const uint8_t *at)
{
	return get_at(at, 4) == BATCH_MAGIC &&
	       get_at(at + WAL_BATCH - SEAL, SEAL) ==
		       seal(at, WAL_BATCH - SEAL);
}

/* Is any sector's part of [from, to) all zeros? */
static bool has_unwritten_sector(const uint8_t *segment, size_t from, size_t to)
{
	while (from < to) {
		size_t end = (from / SECTOR + 1) * SECTOR;

		if (end > to)
			end = to;
		if (wal_is_zero(segment + from, end - from))
			return true;
		from = end;
	}
	return false;
}

static enum wal_look look_at_headless(const uint8_t *segment, size_t bytes,
				      size_t offset)
{
	size_t sector_end = (offset / SECTOR + 1) * SECTOR;

	if (wal_is_zero(segment + offset, bytes - offset))
		return WAL_LOOK_END;
	if (has_unwritten_sector(segment, offset, sector_end) ||
	    segment[offset + WAL_BATCH - 1] == 0)
		return WAL_LOOK_UNWRITTEN;
	return WAL_LOOK_DAMAGED;
}

enum wal_look wal_look_at(const uint8_t *segment, size_t bytes, size_t offset,
			  struct wal_batch *b)
{
	const uint8_t *at = segment + offset;

	if (!head_is_sound(at))
		return look_at_headless(segment, bytes, offset);
	b->length = (uint32_t)get_at(at + 4, 4);
	b->seq = get_at(at + 8, 8);
	b->count = (uint32_t)get_at(at + 16, 4);
	b->lag = (uint32_t)get_at(at + 20, 4);
	if (b->length < WAL_BATCH + SEAL || b->length > bytes - offset)
		return WAL_LOOK_DAMAGED;
	if (get_at(at + b->length - SEAL, SEAL) == seal(at, b->length - SEAL))
		return WAL_LOOK_BATCH;
	if (at[b->length - 1] == 0 ||
	    has_unwritten_sector(segment, offset, offset + b->length))
		return WAL_LOOK_UNWRITTEN;
	return WAL_LOOK_DAMAGED;
}

bool wal_was_flushed(const uint8_t *segment, size_t bytes, size_t offset,
		     uint64_t seq)
{
	for (; offset < bytes; offset += WAL_ALIGN) {
		const uint8_t *at = segment + offset;

		if (get_at(at, 4) == BATCH_MAGIC && head_is_sound(at) &&
		    get_at(at + 8, 8) > seq + get_at(at + 20, 4))
			return true;
	}
	return false;
}

struct reader wal_records(uint8_t *segment, size_t offset,
			  const struct wal_batch *b, uint64_t server)
{
	uint8_t *at = segment + offset + WAL_BATCH;
	size_t n = b->length - WAL_BATCH - SEAL;

	whiten(at, n, server, b->seq);
	return reader_of(at, n);
}
