/* SPDX-License-Identifier: MIT */
#include "gossip/suspicion.h"

#include <assert.h>

#define Q16 65536u

uint32_t log2_q16(uint32_t n)
{
	assert(n > 0);
	unsigned whole = 31 - (unsigned)__builtin_clz(n);
	uint64_t x = ((uint64_t)n << 31) >> whole; /* in [1, 2), 31 bits */
	uint32_t log = whole * Q16;

	/* Each squaring doubles the logarithm: one more binary digit. */
	for (uint32_t digit = Q16 / 2; digit > 0; digit /= 2) {
		x = (x * x) >> 31;
		if (x >= (uint64_t)2 << 31) {
			x >>= 1;
			log += digit;
		}
	}
	return log;
}

unsigned retransmit_limit(uint32_t n)
{
	uint64_t twice = 3 * (uint64_t)log2_q16(n + 1);

	return (unsigned)((twice + 2 * Q16 - 1) / (2 * Q16)) + 2;
}

uint64_t suspicion_min_us(uint64_t period_us, unsigned mult, uint32_t n)
{
	uint64_t log = n > 2 ? log2_q16(n) : Q16;

	return mult * period_us * log / (2 * Q16);
}

uint64_t suspicion_us(uint64_t min_us, uint64_t max_us, unsigned c, unsigned k)
{
	assert(min_us <= max_us);
	if (c >= k)
		return min_us;
	return max_us - (max_us - min_us) * log2_q16(c + 1) / log2_q16(k + 1);
}

unsigned suspicion_wanted(unsigned k, uint32_t n)
{
	return n >= k + 2 ? k : 0;
}
