/* SPDX-License-Identifier: MIT */
/* Seeded randomness: splitmix64, the same sequence on every machine, so that a
 * run can be repeated from its seed. Not for secrets. */
#ifndef GOSSIP_RANDOM_H
#define GOSSIP_RANDOM_H

#include <stdint.h>

struct random {
	uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Evenly from [0, n); n > 0. The bias, n / 2^32, is below all we can see. */
static inline uint32_t random_below(struct random *r, uint32_t n)
{
	return (uint32_t)(((random_next(r) >> 32) * n) >> 32);
}

#endif
