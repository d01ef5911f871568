/* SPDX-License-Identifier: MIT */
/* The FUSE session on the loop: mount, receive, unmount.
 *
 * One uv_poll on the session's descriptor; a bounded number of requests per
 * turn, so that cluster traffic is not starved; the end of the mount (umount
 * by anybody) is a poll error and leads to on_end. A dead mount of a ringfs
 * that crashed ("Transport endpoint is not connected") is detached first; a
 * live one, and a mountpoint that is missing, no directory, not empty, not
 * ours, or inside the state, is refused with a sentence. Thread: the loop. */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

#include "ring/ring.h" /* RING_ERRMSG_SIZE */

struct uv_loop_s;
struct fuse_lowlevel_ops;
struct mount;

struct mount_config {
	struct uv_loop_s *loop; /* borrowed; outlives the mount */
	const char *dir;	/* absolute; copied */
	const char *source;	/* what mount(8) shows; NULL: ringfs. Borrowed
				 * by mount_start() */
	bool allow_other;
	const struct fuse_lowlevel_ops *ops; /* borrowed */
	void *userdata;			     /* of the session */
	void (*on_request)(void *data);	     /* one is about to be answered */
	void (*on_ready)(void *data);	     /* INIT was answered */
	void (*on_end)(void *data); /* unmounted by somebody, or aborted */
	void *data;
};

/* Heal a dead mount at dir and check that dir can be mounted on. Gives the exit
 * status for main with errmsg, or 0. Before anything is started.
 *
 * *lock_fd is a lock on dir against another ringfs that is about to mount there:
 * unlock and close it when the mount is made. -1 on failure. */
int mount_check(const char *dir, const char *state_dir, int *lock_fd,
		char errmsg[RING_ERRMSG_SIZE]);

/* The same once the state directory exists, so that no link can hide where it
 * is: would the mount hide it? */
int mount_check_state(const char *dir, const char *state_dir,
		      char errmsg[RING_ERRMSG_SIZE]);

/* Mount and begin to serve. 0; else errmsg: -ENOENT (/dev/fuse or fusermount3
 * missing), -EACCES, ... */
int mount_start(const struct mount_config *config, struct mount **out,
		char errmsg[RING_ERRMSG_SIZE]);

/* Unmount (lazily if it is busy), answer nothing more, release, then cb. */
void mount_close(struct mount *m, void (*cb)(void *data), void *data);

#endif
