/* SPDX-License-Identifier: MIT */
/* The arithmetic of SWIM and Lifeguard, against tables. */
#include "gossip/suspicion.h"

#include "tests/unit/check.h"

static void test_log2(void)
{
	for (uint32_t n = 1; n < 200000; n += 1 + n / 50) {
		/* By halving and doubling alone, without libm. */
		uint32_t whole = 0;

		while ((uint64_t)2 << whole <= n)
			whole++;
		check_int(log2_q16(n) >> 16, whole);
		check(log2_q16(n) <= log2_q16(n + 1), "at %u", n);
	}
	check_int(log2_q16(1), 0);
	check_int(log2_q16(4096), 12 << 16);
	check_int(log2_q16(3), 103872);	 /* 1.58496 */
	check_int(log2_q16(10), 217705); /* 3.32193 */
	ok("log2 is exact at powers of two, and grows");
}

static void test_limit(void)
{
	static const struct {
		uint32_t n;
		unsigned limit;
	} rows[] = {{1, 4},    {2, 5},	  {3, 5},     {5, 6},
		    {9, 7},    {10, 8},	  {50, 11},   {99, 12},
		    {100, 12}, {300, 15}, {1000, 17}, {10000, 22}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		check_int(retransmit_limit(rows[i].n), rows[i].limit);
	for (uint32_t n = 1; n < 3000; n++)
		check(retransmit_limit(n + 1) - retransmit_limit(n) <= 1,
		      "step at %u", n);
	ok("the retransmit limit is that of the table, without steps");
}

static void test_suspicion(void)
{
	check_int(suspicion_min_us(200000, 3, 1), 300000);
	check_int(suspicion_min_us(200000, 3, 2), 300000);
	check_int(suspicion_min_us(200000, 3, 4), 600000);
	check_int(suspicion_min_us(200000, 3, 1024), 3000000);
	check_int(suspicion_us(1000, 6000, 0, 0), 1000);
	check_int(suspicion_us(1000, 6000, 0, 2), 6000);
	check_int(suspicion_us(1000, 6000, 1, 2), 2846); /* 6 - 5 ln 2 / ln 3 */
	check_int(suspicion_us(1000, 6000, 2, 2), 1000);
	check_int(suspicion_us(1000, 6000, 9, 2), 1000);
	check_int(suspicion_us(1000, 6000, 1, 3), 3500);
	check_int(suspicion_wanted(2, 3), 0);
	check_int(suspicion_wanted(2, 4), 2);
	check_int(suspicion_wanted(0, 100), 0);
	ok("a suspicion falls from longest to shortest with confirmations");
}

int main(void)
{
	test_log2();
	test_limit();
	test_suspicion();
	return 0;
}
