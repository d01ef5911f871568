/* SPDX-License-Identifier: MIT */
/* The state directory: its lock, who we are, and how often we have started.
 *
 * DIR/lock        flocked for the daemon's life, close-on-exec; holds its pid
 * DIR/identity    flat-keyed: format, cluster, node (32 hex digits each), check
 * DIR/boot        flat-keyed: the number of starts, raised and synced before the
 *                 first entry; check
 * DIR/started DIR/wal DIR/store   the ring's
 * DIR/log         the daemon's log, when it is in the background
 * Files are replaced by write to a temporary name, fsync, rename, fsync of DIR.
 *
 * Open it after daemonize_begin(): the lock names the process that holds it.
 * Thread: before the loop. Blocks. */
#ifndef FS_STATE_H
#define FS_STATE_H

#include "ring/ring.h"

struct state {
	char *dir; /* absolute */
	int lock_fd;
	struct ring_id cluster, node;
	uint64_t boot; /* of this start */
};

/* Open dir (made with mode 0700 if missing, parents too), lock it, read or make
 * the identity and count the start.
 *
 * 0; else errmsg has a sentence with the way out: -EBUSY (another daemon, with
 * its pid), -EACCES, -ENOSPC, -EUCLEAN (a file is damaged, with the offset, or
 * is missing where there must be one), -ENOTDIR, ... */
int state_open(const char *dir, struct state *out,
	       char errmsg[RING_ERRMSG_SIZE]);
void state_close(struct state *s);

#endif
