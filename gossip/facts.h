/* SPDX-License-Identifier: MIT */
/* What a member says of itself: name, address, the protocol versions it speaks,
 * and some bytes for the layer above. Only the member itself may change them,
 * each time with a higher version (I11); everyone else keeps and relays the very
 * bytes it got, so attributes of later versions pass through older ones (D6).
 *
 * Facts are immutable, counted, and shared: those that are equal exist once in a
 * pool. In a daemon that saves little; in a simulation of ten thousand members
 * that know ten thousand each, it is the difference between fitting and not. */
#ifndef GOSSIP_FACTS_H
#define GOSSIP_FACTS_H

#include <stddef.h>
#include <stdint.h>

#include "gossip/id.h"

#define FACTS_BYTES_MAX 512 /* all attributes of one member */
#define FACTS_NAME_MAX	255
#define FACTS_META_MAX	128

struct facts {
	struct gossip_id id;
	uint64_t version; /* the incarnation that changed them last */
	struct gossip_addr addr;
	uint32_t n_users;
	uint8_t oldest, newest; /* protocol versions */
	uint8_t name_len;
	uint8_t meta_len;
	uint16_t name_at, meta_at; /* offsets into attrs */
	uint16_t len;
	uint8_t attrs[]; /* as on the wire, see facts.c */
};

struct facts_pool {
	struct facts **table;
	uint32_t n, cap; /* cap is a power of two */
};

void facts_pool_init(struct facts_pool *pool);
/* All facts must have been dropped (asserted). */
void facts_pool_finish(struct facts_pool *pool);

/* The facts with these attributes; one user more. The bytes are copied. NULL if
 * they are no well-formed attributes with a name, an address and versions. */
const struct facts *facts_of(struct facts_pool *pool,
			     const struct gossip_id *id, uint64_t version,
			     const uint8_t *attrs, size_t len);
const struct facts *facts_keep(const struct facts *facts);
void facts_drop(struct facts_pool *pool, const struct facts *facts);

/* 0 if attrs are well formed, else -EINVAL. */
int facts_check(const uint8_t *attrs, size_t len);

struct facts_said {
	struct gossip_addr addr;
	const char *name; /* borrowed, like meta */
	size_t name_len;
	const uint8_t *meta;
	size_t meta_len;
	uint8_t oldest, newest;
};
/* Write the attributes; the number of bytes, or -EINVAL for a name that could
 * not be a file's, or for too much. */
int facts_encode(const struct facts_said *said, uint8_t *attrs, size_t cap);

static inline const char *facts_name(const struct facts *facts)
{
	return (const char *)facts->attrs + facts->name_at;
}

#endif
