/* SPDX-License-Identifier: MIT */
/* What the simulator needs of the inside of a group, apart from all that knows
 * gossip: ring/ and gossip/ have words of the same name. */
#ifndef TESTS_SIM_NODE_GROUP_H
#define TESTS_SIM_NODE_GROUP_H

#include <stdbool.h>
#include <stdint.h>

struct group;

/* The log's worker waits for room, or no longer. Was it another before? */
bool group_set_waiting(struct group *g, bool waits);

/* Bytes and entries that were given to the log's worker, in all. */
void group_given(const struct group *g, uint64_t *bytes, uint64_t *entries);

/* Do so many bytes go into the segment that is in use, or into the spare one? */
bool group_fits(const struct group *g, uint64_t bytes);

#endif
