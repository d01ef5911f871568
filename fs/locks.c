/* SPDX-License-Identifier: MIT */
#include "fs/locks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fs/util.h"

#define uthash_malloc(size) xmalloc(size)
#include <uthash.h>
#include <utlist.h>

struct hold {
	const void *owner;
	bool exclusive;
	struct hold *prev, *next;
};

struct lock {
	uint64_t id;
	struct hold *holds;
	struct lock_wish *queue;
	UT_hash_handle hh;
};

struct locks {
	struct lock *by_id;
	struct lock_wish *granted; /* not yet given to the caller */
};

static struct lock *find(const struct locks *l, uint64_t id)
{
	struct lock *k;

	HASH_FIND(hh, l->by_id, &id, sizeof(id), k);
	return k;
}

static struct lock *make(struct locks *l, uint64_t id)
{
	struct lock *k = xcalloc(1, sizeof(*k));

	k->id = id;
	HASH_ADD(hh, l->by_id, id, sizeof(k->id), k);
	return k;
}

static struct hold *hold_of(const struct lock *k, const void *owner)
{
	struct hold *h;

	DL_SEARCH_SCALAR(k->holds, h, owner, owner);
	return h;
}

static bool is_free(const struct lock *k, const struct lock_wish *w)
{
	const struct hold *h;

	DL_FOREACH(k->holds, h)
	if (h->owner != w->owner && (h->exclusive || w->exclusive))
		return false;
	return true;
}

/* An owner holds at most once: two of its threads may have waited. */
static void hold(struct lock *k, const struct lock_wish *w)
{
	struct hold *h = hold_of(k, w->owner);

	assert(is_free(k, w));
	if (h == NULL) {
		h = xcalloc(1, sizeof(*h));
		h->owner = w->owner;
		DL_APPEND(k->holds, h);
	}
	h->exclusive = w->exclusive;
}

static void let_go(struct lock *k, struct hold *h)
{
	DL_DELETE(k->holds, h);
	free(h);
}

static void serve(struct locks *l, struct lock *k)
{
	while (k->queue != NULL && is_free(k, k->queue)) {
		struct lock_wish *w = k->queue;

		hold(k, w);
		w->lock = NULL;
		DL_DELETE(k->queue, w);
		DL_APPEND(l->granted, w);
	}
}

static void forget_if_unused(struct locks *l, struct lock *k)
{
	if (k->holds != NULL)
		return;
	assert(k->queue == NULL); /* who waits for nobody is served */
	HASH_DEL(l->by_id, k);
	free(k);
}

struct locks *locks_create(void)
{
	return xcalloc(1, sizeof(struct locks));
}

void locks_destroy(struct locks *l)
{
	struct lock *k, *next;

	if (l == NULL)
		return;
	assert(l->granted == NULL);
	HASH_ITER (hh, l->by_id, k, next) {
		assert(k->queue == NULL);
		while (k->holds != NULL)
			let_go(k, k->holds);
		forget_if_unused(l, k);
	}
	free(l);
}

int locks_ask(struct locks *l, struct lock_wish *w, bool may_wait)
{
	struct lock *k = find(l, w->id);

	if (k == NULL)
		k = make(l, w->id);
	struct hold *had = hold_of(k, w->owner);

	if (had != NULL && had->exclusive == w->exclusive)
		return 0;
	if (had != NULL) {
		let_go(k, had);
		serve(l, k);
	}
	if (k->queue == NULL && is_free(k, w)) {
		hold(k, w);
		return 0;
	}
	if (!may_wait)
		return -EWOULDBLOCK;
	w->lock = k;
	DL_APPEND(k->queue, w);
	return -EINPROGRESS;
}

void locks_cancel(struct locks *l, struct lock_wish *w)
{
	struct lock *k = w->lock;

	assert(k != NULL);
	w->lock = NULL;
	DL_DELETE(k->queue, w);
	serve(l, k);
	forget_if_unused(l, k);
}

void locks_drop(struct locks *l, uint64_t id, const void *owner)
{
	struct lock *k = find(l, id);
	struct hold *h = k != NULL ? hold_of(k, owner) : NULL;

	if (h == NULL)
		return;
	let_go(k, h);
	serve(l, k);
	forget_if_unused(l, k);
}

struct lock_wish *locks_granted(struct locks *l)
{
	struct lock_wish *w = l->granted;

	if (w != NULL)
		DL_DELETE(l->granted, w);
	return w;
}

struct lock_wish *locks_youngest(const struct locks *l, uint64_t id)
{
	const struct lock *k = find(l, id);

	return k != NULL && k->queue != NULL ? k->queue->prev : NULL;
}

struct lock_wish *locks_older(const struct lock_wish *w)
{
	assert(w->lock != NULL);
	return w == w->lock->queue ? NULL : w->prev;
}
