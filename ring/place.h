/* SPDX-License-Identifier: MIT */
/* Where keys live: names to vnodes, vnodes to nodes. Pure functions.
 *
 * vnode = the top log2(V) bits of XXH3_64bits(name). The table of V owners is a
 * pure function of the table before and the nodes with their weights. In this
 * order it is
 *
 * fair     each share differs by less than one vnode from weight's exact share;
 * calm     as few vnodes move as that allows: a share is rounded up first where
 *          a vnode would be lost otherwise, then by the largest remainder, the
 *          fewest vnodes gained, the lowest node id;
 * spread   what a node loses goes in turns to all who gain, by their gains.
 *
 * With equal weights a newcomer to n nodes gets at most V/(n + 1) vnodes and no
 * others move; a death moves only the dead node's, to all others evenly. With
 * unequal ones a change may shift a remainder between two old nodes, where
 * fairness forbids to keep it.
 *
 * See Dynamo (SOSP 2007) 6.2, strategy 3 (Q/S tokens per node, equal-sized
 * partitions). There a leaver's tokens are handed out at random; here they are
 * not, so that every node computes the same table. */
#ifndef RING_PLACE_H
#define RING_PLACE_H

#include "ring/ring.h"

/* A node that may own vnodes. */
struct place_node {
	struct ring_id id;
	uint32_t node;	 /* what stands in the table for it; not RING_NONE */
	uint32_t weight; /* 0: owns nothing */
};

/* The vnode of name in a ring of n_vnodes (a power of two, 2 to 65536). */
uint32_t place_vnode(const void *name, size_t len, uint32_t n_vnodes);

/* Replace table by the next one. Owners that are not among the nodes, and
 * RING_NONE, count as gone. With no weight at all every entry is RING_NONE.
 * Planning again with the same nodes changes nothing. O(V log V + n log n).
 *
 * table  n_vnodes entries (2 to 65536), read and written
 * nodes  borrowed, in any order, ids and node distinct: the result does not
 *        depend on the order
 * Gives how many entries changed. */
uint32_t place_plan(uint32_t *table, uint32_t n_vnodes,
		    const struct place_node *nodes, uint32_t n_nodes);

#endif
