/* SPDX-License-Identifier: MIT */
/* The arithmetic of SWIM and Lifeguard, as pure functions of integers: the same
 * result on every machine, tested with tables (tests/unit/suspicion_test.c).
 *
 * Papers: Das, Gupta, Motivala, "SWIM" (DSN 2002), 4.2 and 5; Dadgar, Phillips,
 * Currey, "Lifeguard" (2018), LHA-Suspicion. */
#ifndef GOSSIP_SUSPICION_H
#define GOSSIP_SUSPICION_H

#include <stdint.h>

/* log2(n) in units of 1/65536, rounded down; n > 0. */
uint32_t log2_q16(uint32_t n);

/* How often a piece of news is sent: ceil(1.5 log2(n + 1)) + 2. memberlist has
 * 4 ceil(log10(n + 1)), which misses somebody in one case of 16 at n = 9, for
 * the same number of packets; this form has no such steps. */
unsigned retransmit_limit(uint32_t n);

/* The shortest suspicion among n members: mult periods x max(1, log2 n) / 2. */
uint64_t suspicion_min_us(uint64_t period_us, unsigned mult, uint32_t n);

/* How long a suspicion lasts in all, with c of k wanted confirmations: from max
 * down to min with log(c + 1) / log(k + 1). */
uint64_t suspicion_us(uint64_t min_us, uint64_t max_us, unsigned c, unsigned k);

/* How many confirmations to wait for, if k were wanted: none if the cluster has
 * not that many others, besides the suspect and the accuser. */
unsigned suspicion_wanted(unsigned k, uint32_t n);

#endif
