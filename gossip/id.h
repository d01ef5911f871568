/* SPDX-License-Identifier: MIT */
/* What a member is known by: a random 128-bit id, made once and kept on disk
 * (I1). Name and address are attributes that may change.
 *
 * The incarnation orders all that is ever said about a member: the boot counter
 * in the upper half, raised and synced before the first packet of a process
 * (I4, I5), and in the lower half the changes within that boot. So a restart
 * supersedes whatever was said of the life before (I2). */
#ifndef GOSSIP_ID_H
#define GOSSIP_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct gossip_id {
	uint8_t b[16];
};

/* IPv4 is mapped (::ffff:a.b.c.d). Port 0: no address. */
struct gossip_addr {
	uint8_t ip[16];
	uint16_t port;
};

static inline bool gossip_id_equal(const struct gossip_id *a,
				   const struct gossip_id *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool gossip_id_is_zero(const struct gossip_id *id)
{
	static const struct gossip_id zero;

	return gossip_id_equal(id, &zero);
}

static inline bool gossip_addr_equal(const struct gossip_addr *a,
				     const struct gossip_addr *b)
{
	return a->port == b->port && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static inline uint64_t incarnation_of(uint32_t boot, uint32_t change)
{
	return (uint64_t)boot << 32 | change;
}

static inline uint32_t incarnation_boot(uint64_t incarnation)
{
	return (uint32_t)(incarnation >> 32);
}

static inline uint32_t incarnation_change(uint64_t incarnation)
{
	return (uint32_t)incarnation;
}

#endif
