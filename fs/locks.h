/* SPDX-License-Identifier: MIT */
/* Local locks, with the rules of flock(2): who holds, who waits, who is next.
 *
 * A lock is a number; it is there while somebody holds it or waits for it. An
 * owner is an open file. Any number of owners share a lock, or one has it alone.
 * Wishes are served in the order in which they came: who could share waits all
 * the same behind one that waits to be alone, so nobody starves. Whoever asks
 * for the other mode lets go of what it has first, and then asks like anybody:
 * others may come in between, and who may not wait can end with nothing.
 *
 * Knows nothing of files and reads no clock. Thread: the loop. */
#ifndef FS_LOCKS_H
#define FS_LOCKS_H

#include <stdbool.h>
#include <stdint.h>

struct lock;
struct locks;

/* To be embedded in the caller's own request. */
struct lock_wish {
	uint64_t id;
	const void *owner; /* borrowed; only compared */
	bool exclusive;

	/* Private to locks.c. */
	struct lock *lock;
	struct lock_wish *prev, *next;
};

struct locks *locks_create(void);

/* Release l (accepts NULL) and what is held. Nobody may wait any more. */
void locks_destroy(struct locks *l);

/* Ask for what w says, of which may_wait is whether it may be queued. Others may
 * be granted what its owner had before: see locks_granted().
 *
 * 0             its owner holds it now
 * -EWOULDBLOCK  it does not, and what it held in the other mode is gone
 * -EINPROGRESS  queued: w stays put until it is granted or cancelled */
int locks_ask(struct locks *l, struct lock_wish *w, bool may_wait);

/* Take back w, which is queued. */
void locks_cancel(struct locks *l, struct lock_wish *w);

/* The owner holds it no more; nothing, if it did not. */
void locks_drop(struct locks *l, uint64_t id, const void *owner);

/* A wish that waited and is granted, the caller's again; NULL when there is no
 * other. To be called until then after each of the three above. */
struct lock_wish *locks_granted(struct locks *l);

/* Who came last to wait for id, and who came before w; NULL for nobody. To
 * cancel in this order grants nothing to one that is still to be looked at. */
struct lock_wish *locks_youngest(const struct locks *l, uint64_t id);
struct lock_wish *locks_older(const struct lock_wish *w);

#endif
