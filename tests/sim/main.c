/* SPDX-License-Identifier: MIT */
/* sim [--seed N] < SCRIPT
 * sim [--seed N] measure NAME [ARG...]
 * sim nodes ...			see node_main.c
 *
 * The seed may also come from $SEED; without either it is 1. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/node.h"

static int usage(void)
{
	fputs("usage: sim [--seed N] < SCRIPT\n"
	      "       sim [--seed N] measure probe|detect|spread|storm|bytes|"
	      "big|\n"
	      "                              stop|deaf|slow|oneway|stopped|"
	      "heal [ARG...]\n"
	      "       sim nodes ...\n",
	      stderr);
	return 64;
}

int main(int argc, char **argv)
{
	const char *given = getenv("SEED");
	uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : 1;
	struct sim sim;

	if (argc > 1 && strcmp(argv[1], "nodes") == 0)
		return nodes_main(argc - 1, argv + 1);
	if (argc > 2 && strcmp(argv[1], "--seed") == 0) {
		seed = strtoull(argv[2], NULL, 0);
		argc -= 2;
		argv += 2;
	}
	if (argc > 2 && strcmp(argv[1], "measure") == 0)
		return measure(seed, argc - 2, argv + 2) ? 0 : usage();
	if (argc > 1)
		return usage();
	sim_init(&sim, seed, &swim_lan);
	int rc = script_run(&sim, stdin);
	sim_finish(&sim);
	return rc;
}
