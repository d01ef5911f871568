/* SPDX-License-Identifier: MIT */
/* What stands in DIR/gossip/data.mdb, one LMDB table:
 *
 *	key                             value
 *	'i', 1 kind, 4 index            8 XXH3, the item's bytes
 *	'm'                             8 XXH3, 4 format: 1, 4 number of items,
 *	                                8 sum of their XXH3
 *
 * The index is big-endian, so that LMDB's order is ours; all else is
 * little-endian. An XXH3 is over the bytes after it, seeded with the XXH3 of
 * the key, so that a value under a wrong key is noticed; number and sum show
 * that one is missing. Shared by records.c and records_read.c. */
#ifndef GOSSIP_RECORDS_FORMAT_H
#define GOSSIP_RECORDS_FORMAT_H

#include <xxhash.h>

#include "gossip/bytes.h"

#define RECORDS_FORMAT	   1
#define RECORDS_KEY_BYTES  6
#define RECORDS_META_BYTES 16 /* without its XXH3 */

static inline void records_key(uint8_t key[RECORDS_KEY_BYTES], uint8_t kind,
			       uint32_t index)
{
	key[0] = 'i';
	key[1] = kind;
	for (unsigned i = 0; i < 4; i++)
		key[2 + i] = (uint8_t)(index >> (24 - 8 * i));
}

static inline uint64_t records_sum(const void *key, size_t key_len,
				   const void *bytes, size_t n)
{
	return XXH3_64bits_withSeed(bytes, n, XXH3_64bits(key, key_len));
}

#endif
