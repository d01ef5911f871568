/* SPDX-License-Identifier: MIT */
/* The state directory: its lock, who we are, and how often we have started.
 *
 * DIR/lock        flocked for the daemon's life, close-on-exec; holds its pid
 * DIR/identity    flat-keyed: format, cluster, node (32 hex digits each), check;
 *		   the cluster is all zeros until the node has joined one
 * DIR/boot        flat-keyed: the number of starts, raised and synced before the
 *                 first entry; check
 * DIR/place       flat-keyed: files, machine, check: where the state was when it
 *                 was last good; see state_settle()
 * DIR/copied      there was a newer life of this node: never again
 * DIR/left        the node has left by force: only recover-quorum may use it
 * DIR/key         the cluster's secret, gossip's
 * DIR/gossip      members and what they say, gossip's
 * DIR/started DIR/wal DIR/store   the ring's
 * DIR/log         the daemon's log, when it is in the background
 * Files are replaced by write to a temporary name, fsync, rename, fsync of DIR.
 *
 * Open it after daemonize_begin(): the lock names the process that holds it.
 * Thread: before the loop. Blocks. */
#ifndef FS_STATE_H
#define FS_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/ring.h"

struct state {
	char *dir; /* absolute */
	int lock_fd;
	struct ring_id cluster; /* zeros: to be learnt by joining */
	struct ring_id node;
	uint32_t boot;	 /* of this start */
	bool is_founder; /* the cluster was made by this start */
	bool has_joined; /* it was made by others */
	bool has_gossip; /* this node has spoken with others before */
	bool is_moved;	 /* it is not where it was: it may be a copy, or old */
};

/* How the node was started. */
struct state_wish {
	const char *key_file; /* that was given, or NULL; borrowed */
	bool joins;	      /* an existing cluster */
	bool is_new;	      /* a new one, although there is a key */
	bool is_client;	      /* never to make one */
};

/* Open dir (made with mode 0700 if missing, parents too), lock it, read or make
 * the identity and count the start. A node that neither joins nor has a state
 * makes a cluster; not if there is a key, which is a sign that it had one
 * (holes.md 22), unless wish says so.
 *
 * 0; else errmsg has a sentence with the way out: -EBUSY (another daemon, with
 * its pid), -EACCES, -ENOSPC, -EUCLEAN (a file is damaged, with the offset, or
 * is missing where there must be one), -ENOTDIR, -EINVAL (a new cluster, or a
 * member to join?), ... */
int state_open(const char *dir, const struct state_wish *wish,
	       struct state *out, char errmsg[RING_ERRMSG_SIZE]);
/* Open and lock what is there, for somebody who is no daemon: nothing is made or
 * counted, boot is 0. Errors as above; -ENOENT: it is no state. */
int state_look(const char *dir, struct state *out,
	       char errmsg[RING_ERRMSG_SIZE]);
/* The state is good where it is: write that down, synced, unless it says so. A
 * state with a log that is found in another place later, as other files or on
 * another machine, is_moved; one without DIR/place is not: who is sure that
 * there is no other copy may remove it. 0, or as above. */
int state_settle(struct state *s, char errmsg[RING_ERRMSG_SIZE]);
/* Give up the log, of which no ring is open: the others fill another one. 0, or
 * as above. */
int state_renew(struct state *s, char errmsg[RING_ERRMSG_SIZE]);
/* The cluster has been joined: write it down, synced. 0, or as above. */
int state_join(struct state *s, const struct ring_id *cluster,
	       char errmsg[RING_ERRMSG_SIZE]);
/* A newer life of this node was heard, or another of this very start: this state is a copy, or was copied, and
 * must not start again. As far as the disk lets us. */
void state_mark_copied(const struct state *s);
/* The node has left, and the others may still count on its vote: this state is
 * not opened again. Synced, as far as that can be. */
void state_mark_left(const struct state *s);
/* Its log is the cluster's from now on: as if it had not left. 0, or a negative
 * errno and errmsg. */
int state_unmark_left(const struct state *s, char errmsg[RING_ERRMSG_SIZE]);
bool state_has_cluster(const struct state *s);
void state_close(struct state *s);

#endif
