/* SPDX-License-Identifier: MIT */
#include "gossip/facts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "gossip/bytes.h"
#include "gossip/mem.h"

/* Attributes, one after the other, each
 *
 *	type 1, length 1, value
 *
 * of which this version knows
 *
 *	1  address   ip 16, port 2
 *	2  name      1 to 255 bytes: a file's name, no control characters
 *	3  versions  oldest 1, newest 1: of the packets it understands
 *	4  meta      0 to 128 bytes for the layer above
 *
 * 1 to 3 must be there. Others are kept and passed on as they are. */
enum {
	ATTR_ADDRESS = 1,
	ATTR_NAME = 2,
	ATTR_VERSIONS = 3,
	ATTR_META = 4
};

/* A name becomes a file's name: nothing in it may surprise a shell's user. */
static bool is_name(const uint8_t *name, size_t len)
{
	if (len == 0 || len > FACTS_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] < 0x20 || name[i] == 0x7f || name[i] == '/')
			return false;
	return true;
}

static bool parse_one(struct facts *f, unsigned type, struct bytes_in value,
		      const uint8_t *base)
{
	size_t len = bytes_left(&value);

	switch (type) {
	case ATTR_ADDRESS:
		bytes_copy(&value, f->addr.ip, sizeof(f->addr.ip));
		f->addr.port = bytes_u16(&value);
		return f->addr.port != 0 && !value.bad;
	case ATTR_NAME:
		f->name_at = (uint16_t)(value.at - base);
		f->name_len = (uint8_t)len;
		return is_name(value.at, len);
	case ATTR_VERSIONS:
		f->oldest = bytes_u8(&value);
		f->newest = bytes_u8(&value);
		return f->oldest > 0 && f->oldest <= f->newest && !value.bad;
	case ATTR_META:
		f->meta_at = (uint16_t)(value.at - base);
		f->meta_len = (uint8_t)len;
		return len <= FACTS_META_MAX;
	default:
		return true;
	}
}

static int parse(struct facts *f, const uint8_t *attrs, size_t len)
{
	struct bytes_in in = bytes_in_of(attrs, len);

	if (len > FACTS_BYTES_MAX)
		return -EINVAL;
	while (bytes_left(&in) > 0) {
		unsigned type = bytes_u8(&in);
		size_t n = bytes_u8(&in);
		struct bytes_in value = bytes_part(&in, n);

		if (in.bad || !parse_one(f, type, value, attrs))
			return -EINVAL;
	}
	return f->addr.port && f->name_len && f->newest ? 0 : -EINVAL;
}

int facts_check(const uint8_t *attrs, size_t len)
{
	struct facts f = {0};

	return parse(&f, attrs, len);
}

static void put_attr(struct bytes_out *out, unsigned type, const void *value,
		     size_t len)
{
	bytes_put_u8(out, (uint8_t)type);
	bytes_put_u8(out, (uint8_t)len);
	bytes_put(out, value, len);
}

int facts_encode(const struct facts_said *said, uint8_t *attrs, size_t cap)
{
	struct bytes_out out = bytes_out_of(attrs, cap);
	uint8_t port[2] = {said->addr.port & 0xff, said->addr.port >> 8};
	uint8_t versions[2] = {said->oldest, said->newest};

	if (said->name_len > FACTS_NAME_MAX || said->meta_len > FACTS_META_MAX)
		return -EINVAL;
	bytes_put_u8(&out, ATTR_ADDRESS);
	bytes_put_u8(&out, sizeof(said->addr.ip) + sizeof(port));
	bytes_put(&out, said->addr.ip, sizeof(said->addr.ip));
	bytes_put(&out, port, sizeof(port));
	put_attr(&out, ATTR_NAME, said->name, said->name_len);
	put_attr(&out, ATTR_VERSIONS, versions, sizeof(versions));
	if (said->meta_len > 0)
		put_attr(&out, ATTR_META, said->meta, said->meta_len);
	if (out.full || facts_check(attrs, out.len) != 0)
		return -EINVAL;
	return (int)out.len;
}

/* The pool: open addressing with linear probing, at most half full. */

static uint32_t home_of(const struct facts_pool *pool,
			const struct gossip_id *id, uint64_t version)
{
	return (uint32_t)XXH3_64bits_withSeed(id, sizeof(*id), version) &
	       (pool->cap - 1);
}

static bool is_same(const struct facts *f, const struct gossip_id *id,
		    uint64_t version, const uint8_t *attrs, size_t len)
{
	return f->version == version && f->len == len &&
	       gossip_id_equal(&f->id, id) && memcmp(f->attrs, attrs, len) == 0;
}

static void insert(struct facts_pool *pool, struct facts *f)
{
	uint32_t i = home_of(pool, &f->id, f->version);

	while (pool->table[i] != NULL)
		i = (i + 1) & (pool->cap - 1);
	pool->table[i] = f;
}

static void grow(struct facts_pool *pool)
{
	struct facts **old = pool->table;
	uint32_t n = pool->cap;

	pool->cap = n * 2;
	pool->table = xcalloc(pool->cap, sizeof(*old));
	for (uint32_t i = 0; i < n; i++)
		if (old[i] != NULL)
			insert(pool, old[i]);
	free(old);
}

void facts_pool_init(struct facts_pool *pool)
{
	pool->n = 0;
	pool->cap = 64;
	pool->table = xcalloc(pool->cap, sizeof(struct facts *));
}

void facts_pool_finish(struct facts_pool *pool)
{
	assert(pool->n == 0);
	free(pool->table);
}

const struct facts *facts_of(struct facts_pool *pool,
			     const struct gossip_id *id, uint64_t version,
			     const uint8_t *attrs, size_t len)
{
	struct facts head = {.id = *id, .version = version, .n_users = 1};

	if (parse(&head, attrs, len) != 0)
		return NULL;
	uint32_t i = home_of(pool, id, version);
	for (struct facts *f; (f = pool->table[i]) != NULL;
	     i = (i + 1) & (pool->cap - 1))
		if (is_same(f, id, version, attrs, len))
			return facts_keep(f);
	if (2 * (pool->n + 1) > pool->cap)
		grow(pool);
	struct facts *f = xmalloc(sizeof(*f) + len);
	*f = head;
	f->len = (uint16_t)len;
	memcpy(f->attrs, attrs, len);
	insert(pool, f);
	pool->n++;
	return f;
}

const struct facts *facts_keep(const struct facts *facts)
{
	struct facts *f = (struct facts *)facts; /* the count is not a fact */

	f->n_users++;
	return facts;
}

/* Close the gap at i: move back whoever was pushed past it. */
static void remove_at(struct facts_pool *pool, uint32_t i)
{
	uint32_t mask = pool->cap - 1;

	for (uint32_t j = (i + 1) & mask; pool->table[j] != NULL;
	     j = (j + 1) & mask) {
		struct facts *f = pool->table[j];
		uint32_t home = home_of(pool, &f->id, f->version);

		if (((j - home) & mask) < ((j - i) & mask))
			continue;
		pool->table[i] = f;
		i = j;
	}
	pool->table[i] = NULL;
	pool->n--;
}

void facts_drop(struct facts_pool *pool, const struct facts *facts)
{
	struct facts *f = (struct facts *)facts;

	assert(f->n_users > 0);
	if (--f->n_users > 0)
		return;
	uint32_t i = home_of(pool, &f->id, f->version);
	while (pool->table[i] != f)
		i = (i + 1) & (pool->cap - 1);
	remove_at(pool, i);
	free(f);
}
