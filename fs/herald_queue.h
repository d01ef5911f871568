/* SPDX-License-Identifier: MIT */
/* What the herald owes: records per directory, in order.
 *
 *        post                next                done, errno 0
 *   ----------> WAITING -----------> SENT ------------------------> gone
 *                  ^                  |  \                           ^
 *                  | settle, or errno |   granted -> GRANTED --------+
 *                  +------------------+                  done or settle
 *
 * At most one record of a name is under way; younger ones of that name wait,
 * and what is behind them in the directory too, so that order is kept. What
 * waits for one name is nothing, one record, or DELETE and then CREATE (and
 * before them the one that was under way when a child died): memory is bounded
 * by the number of names.
 *
 * Knows no child, socket or clock. Thread: the loop. */
#ifndef FS_HERALD_QUEUE_H
#define FS_HERALD_QUEUE_H

#include "fs/herald.h"

/* A directory of best effort keeps at most this many that wait. */
#define HERALD_BEST_EFFORT_MAX 65536

/* A record that failed this often is given up. */
#define HERALD_TRIES 3

struct herald_record;

struct herald_queue {
	struct herald_queue_dir {
		struct herald_record *names;   /* hash: the oldest per name */
		struct herald_record *waiting; /* lists, in order of seq */
		struct herald_record *flight;  /* in the order they were sent */
		size_t n_waiting, n_flight;
	} dirs[HERALD_DIRS];
	size_t best_effort; /* bit set of directories */
	uint64_t last_seq;
	size_t n_waiting, n_flight; /* in all directories */
	uint64_t announced, dropped, failed;
};

void herald_queue_init(struct herald_queue *q, size_t best_effort);
void herald_queue_finish(struct herald_queue *q);

/* As herald_post, herald_expects, herald_granted and herald_forget. */
void herald_queue_post(struct herald_queue *q, unsigned dir, const char *name,
		       enum herald_what what);
bool herald_queue_expects(const struct herald_queue *q, unsigned dir,
			  const char *name, enum herald_what what);
void herald_queue_granted(struct herald_queue *q, unsigned dir,
			  const char *name, enum herald_what what);
void herald_queue_forget(struct herald_queue *q, unsigned dir,
			 const char *name);

struct herald_item {
	uint64_t seq;
	const char *name; /* borrowed until the record is done */
	size_t len;
	enum herald_what what;
};

/* The next record of dir goes on its way: fill item. False if there is none, or
 * it has to wait for an older one of its name, or the window is full. */
bool herald_queue_next(struct herald_queue *q, unsigned dir,
		       struct herald_item *item);

/* The child reports the record seq with error, 0 or a positive errno. The mount
 * being gone (ENOTCONN, ECONNABORTED) does not count as a try.
 *
 * 0, or -EPROTO: this is not the record that is to be reported next. */
int herald_queue_done(struct herald_queue *q, unsigned dir, uint64_t seq,
		      int error);

/* The child is dead: what was under way is announced or waits again. */
void herald_queue_settle(struct herald_queue *q);

#endif
