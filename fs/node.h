/* SPDX-License-Identifier: MIT */
/* The node: state, ring, tree, herald and mount, wired together on one loop.
 *
 * Thread: the main thread, which becomes the loop's. */
#ifndef FS_NODE_H
#define FS_NODE_H

struct options;

/* Mount and serve as o says, until stopped or unmounted. Goes to the background
 * by itself (fs/daemonize.h). Gives the exit status. */
int node_main(const struct options *o);

#endif
