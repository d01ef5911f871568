/* SPDX-License-Identifier: MIT */
/* The herald: makes audible what the caller did not do itself.
 *
 * No kernel raises IN_CREATE, IN_DELETE or IN_MODIFY for a change that a FUSE
 * daemon makes by itself (notes: measured). So a small child process does the
 * real mknod, unlink or utimensat through the mount, and the daemon, which has
 * posted that record, only acknowledges it: it changes nothing.
 *
 *   herald_post() -> socketpair -> child: mknod(DIR/recover/K)
 *        -> kernel: LOOKUP, answered ENOENT to the herald only (herald_expects)
 *        -> kernel: MKNOD, accepted because the record is pending
 *        -> IN_CREATE; the child reports (record, errno) -> record forgotten
 *
 * The child is started before the mount exists, so that it never holds the
 * /dev/fuse descriptor (after a restart the descriptor's close-on-exec sees to
 * that), with cwd "/"; it has one thread per directory, so that a busy lock on
 * keys never delays recover, and order within a directory is kept. It reports
 * its threads' ids at start. If it dies, or is silent for 10 s while it has
 * work, it is replaced and its successor is given what is still owed.
 * Correctness never depends on it: listings are right all along.
 *
 * Exactly once. A record is settled when the tree has answered its operation
 * with success and said so (herald_granted): from then on the kernel carries
 * the system call through and raises the event, even if the child is killed
 * meanwhile. What was sent but not granted when the child is reaped has raised
 * nothing, and none of its operations can still arrive: it waits again, in its
 * old place.
 *
 * A daemon that is gone leaves a dead mount: the child detaches it, so that
 * watchers get IN_UNMOUNT, but only with proof (end of file, and the pidfd of
 * the daemon says that it ended) and only the mount it worked on. Then it tells
 * the others, who need not wait for a lease to run out: the obituary.
 *
 * Files: herald_queue (what is owed), herald_wire (the packets), herald (the
 * daemon's side), herald_child (the other).
 *
 * Thread: the loop. The child is the same program, run as `ringfs herald`. */
#ifndef FS_HERALD_H
#define FS_HERALD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>
#include <sys/types.h>

struct uv_loop_s;
struct herald;

enum herald_what {
	HERALD_CREATE,
	HERALD_DELETE,
	HERALD_MODIFY
};

/* Directories, by their place in the tree's table: at most this many. */
#define HERALD_DIRS 16

struct herald_config {
	struct uv_loop_s *loop;	       /* borrowed; outlives the herald */
	const char *mountpoint;	       /* absolute; copied */
	const char *dirs[HERALD_DIRS]; /* names; NULL where there is none */
	size_t best_effort; /* bit set of dirs whose records are dropped
				  * (and counted) when over 65,536 wait */
	/* The directory below the mount, or -1. Who mounts there, or detaches
	 * what is mounted, holds its flock (holes.md 13). Copied. */
	int lock_fd;
};

/* Start the child. Before the mount. A child that cannot be started is no
 * error: a warning, and another try after 100 ms, 200 ms .. 5 s.
 *
 * 0, or -ENAMETOOLONG (the mountpoint is over PATH_MAX). */
int herald_create(const struct herald_config *config, struct herald **out);

/* The mount serves (its INIT was answered): begin. */
void herald_begin(struct herald *h);

/* Announce: what happened to name in dir. Never blocks, and starts no operation
 * before it returns. name is copied: 1 to 255 bytes, no '/' (asserted).
 *
 * Of records that wait: DELETE takes a CREATE away with it (nobody has heard of
 * the name) and replaces a MODIFY; MODIFY is contained in a CREATE, MODIFY or
 * DELETE. CREATE after DELETE is kept as both: a watcher that gave up on the
 * name must be woken. */
void herald_post(struct herald *h, unsigned dir, const char *name,
		 enum herald_what what);

/* Is the thread tid one of the herald's? */
bool herald_is(const struct herald *h, pid_t tid);

/* Is this the operation that the herald was sent to do on the name, and not
 * granted yet? At most one is under way per name.
 *
 * To the herald the tree answers LOOKUP of a name that is expected as CREATE
 * with ENOENT; of one expected as DELETE or MODIFY with an entry, even if it is
 * gone; MKNOD, UNLINK, SETATTR with success if expected, changing nothing. It
 * may look up directories and get attributes as anybody may. All else of it:
 * EPERM. Where the daemon is not root the kernel checks first: heralded
 * directories must be writable by their owner, and files that are heralded as
 * MODIFY be his. */
bool herald_expects(const struct herald *h, unsigned dir, const char *name,
		    enum herald_what what);

/* The tree has answered that operation with success, and the kernel took the
 * answer; or it has refused it because it is out of date: then the error is no
 * reason to try again. Nothing if it was not expected. */
void herald_granted(struct herald *h, unsigned dir, const char *name,
		    enum herald_what what);

/* The kernel itself announces a change of name in dir just now: what waits
 * about it is out of date. */
void herald_forget(struct herald *h, unsigned dir, const char *name);

/* What the child sends when the daemon is gone and its mount detached: sealed by
 * the daemon beforehand, since the child holds no key. It is sent to all of to,
 * again and again, until one of them answers with the receipt, or for 10 s. */
#define HERALD_OBITUARY_MAX   1400 /* bytes */
#define HERALD_RECEIPT_SIZE   16
#define HERALD_RECIPIENTS_MAX 8

struct herald_obituary {
	struct sockaddr_in6 to[HERALD_RECIPIENTS_MAX]; /* IPv4 is mapped */
	size_t n_to;
	uint8_t receipt[HERALD_RECEIPT_SIZE];
	const uint8_t *bytes; /* borrowed for the call */
	size_t len;	      /* 0: nothing is to be sent */
};

/* Replace what was entrusted before. True when the child has it: what depends on
 * it (holes.md 11) may go on; false: it gets it as soon as it can. */
bool herald_entrust(struct herald *h, const struct herald_obituary *o);

struct herald_stats {
	uint64_t announced; /* events raised */
	uint64_t dropped;   /* of best effort, for want of room */
	uint64_t failed;    /* given up after 3 errors */
	uint64_t restarts;  /* children lost */
	size_t waiting;	    /* owed, under way included */
	pid_t pid;	    /* of the child, 0 if there is none */
};
void herald_stats(const struct herald *h, struct herald_stats *out);

/* Kill and reap the child (2 s at most), then call cb, on a later turn of the
 * loop; h is gone, and what it still owed. Call it after the unmount: a child
 * inside a system call on a dead mount ends then. */
void herald_close(struct herald *h, void (*cb)(void *data), void *data);

/* The child's main: `ringfs herald`, run by herald_create only. */
int herald_main(int argc, char **argv);

#endif
