/* SPDX-License-Identifier: MIT */
/* The few macros of the unit tests: one program per core, one `ok` line per
 * behaviour; the first failure ends the program with status 1. */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define check(cond, ...)                                                       \
	do {                                                                   \
		if (!(cond)) {                                                 \
			printf("not ok - %s:%d: %s: ", __FILE__, __LINE__,     \
			       #cond);                                         \
			printf(__VA_ARGS__);                                   \
			putchar('\n');                                         \
			exit(1);                                               \
		}                                                              \
	} while (0)

#define check_int(got, want)                                                   \
	do {                                                                   \
		long long got_ = (long long)(got), want_ = (long long)(want);  \
		check(got_ == want_, "got %lld, want %lld", got_, want_);      \
	} while (0)

#define ok(...)                                                                \
	do {                                                                   \
		printf("ok - ");                                               \
		printf(__VA_ARGS__);                                           \
		putchar('\n');                                                 \
		fflush(stdout);                                                \
	} while (0)

/* The seed of a random test: the first argument, else $SEED, else the clock. */
static inline uint64_t check_seed(int argc, char **argv)
{
	const char *given = argc > 1 ? argv[1] : getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	printf("# seed %llu\n", (unsigned long long)seed);
	return seed;
}

/* splitmix64: the same sequence on every machine. */
static inline uint64_t check_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

#endif
