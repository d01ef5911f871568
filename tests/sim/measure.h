/* SPDX-License-Identifier: MIT */
/* What the figures have in common: measure.c, measure_faults.c. */
#ifndef TESTS_SIM_MEASURE_H
#define TESTS_SIM_MEASURE_H

#include "tests/sim/sim.h"

#define MS 1000ull

/* "serf": with its periods; others, and NULL: lan. */
struct swim_config measure_config(const char *name);
/* A cluster at rest that knows itself, its periods not in step. */
void measure_begin(struct sim *sim, uint64_t seed,
		   const struct swim_config *config, uint32_t n);
/* Sorts v. 0 of none. */
uint64_t measure_quantile(uint64_t *v, size_t n, unsigned percent);

/* false: no such. */
bool measure_faults(uint64_t seed, int argc, char **argv);

#endif
