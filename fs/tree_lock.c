/* SPDX-License-Identifier: MIT */
/* flock: the kernel hands all locks on files of the mount to us, since some
 * will be the cluster's. These are local ones, as on any file system; those on
 * directories the kernel keeps itself.
 *
 * A lock is known by a node id: on keys, one for each life, whichever directory
 * the file was opened in. A wait goes one of these ways:
 *
 *   ask -> 0, EWOULDBLOCK, ESTALE                      at once
 *   ask -> waits -> granted -> 0                       or ESTALE, see below
 *   ask -> waits -> EINTR                              a signal
 *   ask -> waits -> ESTALE                             the life has passed
 *   ask -> waits -> ENOLCK                             the mount goes, or would:
 *                                                      see limit_ms
 *
 * POSIX record locks are refused: the kernel asks us, or it would grant them
 * as if they were the same. */
#include "fs/tree_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>

#include "fs/locks.h"
#include "fs/util.h"

#include <utlist.h>

/* A caller that waits. */
struct waiter {
	struct lock_wish wish;
	struct tree *tree;
	fuse_req_t req;
	const struct handle *handle;
	uint64_t until_ms;
	struct waiter *prev, *next;
};

struct tree_locks {
	struct locks *locks;
	struct waiter *waiters; /* the oldest first */
	uint64_t limit_ms;	/* of a wait; 0: none */
};

/* ---- How long one may wait ---- */

/* Seconds; 0 when it is not set, or this kernel has none. */
static uint64_t request_timeout(const char *file)
{
	FILE *f = fopen(file, "re");
	uint64_t s = 0;

	if (f == NULL)
		return 0;
	if (fscanf(f, "%" SCNu64, &s) != 1)
		s = 0;
	fclose(f);
	return s;
}

/* Where a request may not take for ever, the kernel aborts the whole mount for
 * one that does (fuse.md 35). We are done with it well before. */
static uint64_t limit_ms(void)
{
	uint64_t usual =
		request_timeout("/proc/sys/fs/fuse/default_request_timeout");
	uint64_t most =
		request_timeout("/proc/sys/fs/fuse/max_request_timeout");

	if (usual == 0 || (most != 0 && most < usual))
		usual = most;
	return usual * 1000 / 4 * 3;
}

/* ---- Waiting ---- */

static struct waiter *waiter_of(struct lock_wish *wish)
{
	char *base = (char *)wish;

	return (struct waiter *)(void *)(base - offsetof(struct waiter, wish));
}

static int id_of(struct tree *t, fuse_ino_t ino, const struct handle *h,
		 uint64_t *id)
{
	*id = ino;
	return h->files->lock == NULL ? 0 : h->files->lock(t, h, id);
}

static void end_wait(struct waiter *w, int error)
{
	DL_DELETE(w->tree->locks->waiters, w);
	fuse_reply_err(w->req, error);
	free(w);
}

/* The changes that are not told (another node's key passes on) are seen
 * here. */
static void answer_granted(struct tree *t)
{
	struct locks *l = t->locks->locks;
	struct lock_wish *wish;

	while ((wish = locks_granted(l)) != NULL) {
		struct waiter *w = waiter_of(wish);
		uint64_t id;
		int rc = id_of(t, wish->id, w->handle, &id);

		if (rc != 0)
			locks_drop(l, wish->id, w->handle);
		end_wait(w, -rc);
	}
}

static void give_up(struct waiter *w, int error)
{
	struct tree *t = w->tree;

	locks_cancel(t->locks->locks, &w->wish);
	end_wait(w, error);
	answer_granted(t);
}

/* As on_interrupt in call.c: w may be answered here. */
static void on_interrupt(fuse_req_t req, void *data)
{
	(void)req;
	give_up(data, EINTR);
}

static void wait_for_it(struct waiter *w)
{
	struct tree_locks *l = w->tree->locks;

	w->until_ms = l->limit_ms == 0 ? UINT64_MAX : boot_ms() + l->limit_ms;
	DL_APPEND(l->waiters, w);
	if (w->tree->draining)
		give_up(w, ENOLCK);
	else if (fuse_req_interrupted(w->req))
		give_up(w, EINTR);
	else
		fuse_req_interrupt_func(w->req, on_interrupt, w);
}

static void ask(fuse_req_t req, struct handle *h, uint64_t id, int op)
{
	struct tree *t = fuse_req_userdata(req);
	struct waiter *w = xcalloc(1, sizeof(*w));

	*w = (struct waiter){.tree = t, .req = req, .handle = h};
	w->wish.id = h->lock = id;
	w->wish.owner = h;
	w->wish.exclusive = (op & LOCK_EX) != 0;
	int rc = locks_ask(t->locks->locks, &w->wish, !(op & LOCK_NB));

	if (rc == -EINPROGRESS) {
		wait_for_it(w);
	} else {
		fuse_reply_err(req, -rc);
		free(w);
	}
	answer_granted(t); /* what it held in the other mode */
}

/* Valid replies: err 0, EWOULDBLOCK, EINTR, ENOLCK, ESTALE. To unlock never
 * fails. */
void tree_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		int op)
{
	struct tree *t = fuse_req_userdata(req);
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;
	uint64_t id;

	if (op & LOCK_UN) {
		tree_lock_drop(t, h);
		fuse_reply_err(req, 0);
		return;
	}
	int rc = id_of(t, ino, h, &id);

	if (rc != 0)
		fuse_reply_err(req, -rc);
	else
		ask(req, h, id, op);
}

/* Valid replies: err ENOLCK. */
void tree_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock, int sleep)
{
	(void)ino;
	(void)fi;
	(void)lock;
	(void)sleep;
	fuse_reply_err(req, ENOLCK);
}

void tree_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock)
{
	tree_setlk(req, ino, fi, lock, 0);
}

/* ---- Life ---- */

void tree_lock_init(struct tree *t)
{
	t->locks = xcalloc(1, sizeof(*t->locks));
	t->locks->locks = locks_create();
	t->locks->limit_ms = limit_ms();
}

void tree_lock_finish(struct tree *t)
{
	locks_destroy(t->locks->locks);
	free(t->locks);
}

void tree_lock_drop(struct tree *t, struct handle *h)
{
	if (h->lock == 0)
		return;
	locks_drop(t->locks->locks, h->lock, h);
	answer_granted(t);
}

void tree_lock_changed(struct tree *t, uint64_t id, bool over)
{
	struct lock_wish *wish = locks_youngest(t->locks->locks, id);
	uint64_t ignored;

	while (wish != NULL) {
		struct waiter *w = waiter_of(wish);

		wish = locks_older(wish);
		if (over || id_of(t, id, w->handle, &ignored) != 0)
			give_up(w, ESTALE);
	}
}

void tree_lock_drain(struct tree *t)
{
	while (t->locks->waiters != NULL)
		give_up(t->locks->waiters, ENOLCK);
}

uint64_t tree_lock_tick(struct tree *t, uint64_t now_ms)
{
	struct waiter **first = &t->locks->waiters;

	while (*first != NULL && (*first)->until_ms <= now_ms)
		give_up(*first, ENOLCK);
	return *first == NULL ? UINT64_MAX : (*first)->until_ms;
}
