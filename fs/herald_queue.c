/* SPDX-License-Identifier: MIT */
#include "fs/herald_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/herald_wire.h"
#include "fs/util.h"

#define uthash_malloc(size) xmalloc(size)
#include <uthash.h>
#include <utlist.h>

enum record_state {
	WAITING,
	SENT,
	GRANTED
};

struct herald_record {
	struct herald_record *prev, *next; /* in waiting or flight */
	struct herald_record *younger;	   /* of the same name */
	UT_hash_handle hh;		   /* only the oldest of its name */
	uint64_t seq;
	uint8_t what;
	uint8_t state;
	uint8_t tries;
	uint8_t len;
	char name[];
};

static struct herald_record *oldest_of(const struct herald_queue_dir *d,
				       const char *name)
{
	struct herald_record *r;

	HASH_FIND(hh, d->names, name, strlen(name), r);
	return r;
}

static struct herald_record *youngest_of(struct herald_record *r)
{
	while (r != NULL && r->younger != NULL)
		r = r->younger;
	return r;
}

/* The record of this name that is under way for what, or NULL. */
static struct herald_record *sent_of(const struct herald_queue *q, unsigned dir,
				     const char *name, enum herald_what what)
{
	assert(dir < HERALD_DIRS);
	struct herald_record *r = oldest_of(&q->dirs[dir], name);

	if (r == NULL || r->state != SENT || r->what != what)
		return NULL;
	return r;
}

static void append(struct herald_queue *q, struct herald_queue_dir *d,
		   const char *name, enum herald_what what)
{
	size_t len = strlen(name);
	struct herald_record *r = xcalloc(1, sizeof(*r) + len + 1);
	struct herald_record *older = youngest_of(oldest_of(d, name));

	r->seq = ++q->last_seq;
	r->what = (uint8_t)what;
	r->state = WAITING;
	r->len = (uint8_t)len;
	memcpy(r->name, name, len + 1);
	if (older != NULL)
		older->younger = r;
	else
		HASH_ADD_KEYPTR(hh, d->names, r->name, r->len, r);
	DL_APPEND(d->waiting, r);
	d->n_waiting++;
	q->n_waiting++;
}

static void leave_waiting(struct herald_queue *q, struct herald_queue_dir *d,
			  struct herald_record *r)
{
	DL_DELETE(d->waiting, r);
	d->n_waiting--;
	q->n_waiting--;
}

static void leave_flight(struct herald_queue *q, struct herald_queue_dir *d,
			 struct herald_record *r)
{
	DL_DELETE(d->flight, r);
	d->n_flight--;
	q->n_flight--;
}

/* Take r, which is in no list any more, from its name, and free it. */
static void forget(struct herald_queue_dir *d, struct herald_record *r)
{
	struct herald_record *oldest = oldest_of(d, r->name);

	if (oldest == r) {
		struct herald_record *heir = r->younger;

		HASH_DEL(d->names, r);
		if (heir != NULL)
			HASH_ADD_KEYPTR(hh, d->names, heir->name, heir->len,
					heir);
	} else {
		while (oldest->younger != r)
			oldest = oldest->younger;
		oldest->younger = r->younger;
	}
	free(r);
}

/* Back to where its age belongs: near the head, behind those that failed before
 * it. */
static void wait_again(struct herald_queue *q, struct herald_queue_dir *d,
		       struct herald_record *r)
{
	struct herald_record *at = d->waiting;

	while (at != NULL && at->seq < r->seq)
		at = at->next;
	r->state = WAITING;
	if (at != NULL)
		DL_PREPEND_ELEM(d->waiting, at, r);
	else
		DL_APPEND(d->waiting, r);
	d->n_waiting++;
	q->n_waiting++;
}

void herald_queue_init(struct herald_queue *q, size_t best_effort)
{
	memset(q, 0, sizeof(*q));
	q->best_effort = best_effort;
}

static void free_list(struct herald_record *list)
{
	struct herald_record *r, *next;

	DL_FOREACH_SAFE(list, r, next)
	{
		free(r);
	}
}

void herald_queue_finish(struct herald_queue *q)
{
	for (unsigned i = 0; i < HERALD_DIRS; i++) {
		HASH_CLEAR(hh, q->dirs[i].names);
		free_list(q->dirs[i].waiting);
		free_list(q->dirs[i].flight);
	}
}

void herald_queue_post(struct herald_queue *q, unsigned dir, const char *name,
		       enum herald_what what)
{
	assert(dir < HERALD_DIRS);
	assert(name[0] != '\0' && strlen(name) <= HERALD_NAME_MAX);
	assert(strchr(name, '/') == NULL);
	struct herald_queue_dir *d = &q->dirs[dir];
	struct herald_record *last = youngest_of(oldest_of(d, name));

	if (last != NULL && last->state == WAITING) {
		if (last->what == what || what == HERALD_MODIFY)
			return; /* contained in the one that waits */
		if (last->what == HERALD_MODIFY) {
			last->what = (uint8_t)what;
			return;
		}
		if (last->what == HERALD_CREATE) {
			leave_waiting(q, d, last);
			forget(d, last);
			return; /* nobody has heard of the name */
		}
	}
	if ((q->best_effort >> dir & 1) != 0 &&
	    d->n_waiting >= HERALD_BEST_EFFORT_MAX) {
		q->dropped++;
		return;
	}
	append(q, d, name, what);
}

bool herald_queue_expects(const struct herald_queue *q, unsigned dir,
			  const char *name, enum herald_what what)
{
	return sent_of(q, dir, name, what) != NULL;
}

void herald_queue_granted(struct herald_queue *q, unsigned dir,
			  const char *name, enum herald_what what)
{
	struct herald_record *r = sent_of(q, dir, name, what);

	if (r != NULL)
		r->state = GRANTED;
}

void herald_queue_forget(struct herald_queue *q, unsigned dir, const char *name)
{
	struct herald_queue_dir *d = &q->dirs[dir];
	struct herald_record *r = oldest_of(d, name);

	while (r != NULL) {
		struct herald_record *younger = r->younger;

		if (r->state == WAITING) {
			leave_waiting(q, d, r);
			forget(d, r);
		}
		r = younger;
	}
}

bool herald_queue_next(struct herald_queue *q, unsigned dir,
		       struct herald_item *item)
{
	struct herald_queue_dir *d = &q->dirs[dir];
	struct herald_record *r = d->waiting;

	if (r == NULL || d->n_flight >= HERALD_WINDOW ||
	    oldest_of(d, r->name) != r)
		return false;
	leave_waiting(q, d, r);
	r->state = SENT;
	DL_APPEND(d->flight, r);
	d->n_flight++;
	q->n_flight++;
	*item = (struct herald_item){
		.seq = r->seq,
		.name = r->name,
		.len = r->len,
		.what = (enum herald_what)r->what,
	};
	return true;
}

int herald_queue_done(struct herald_queue *q, unsigned dir, uint64_t seq,
		      int error)
{
	if (dir >= HERALD_DIRS)
		return -EPROTO;
	struct herald_queue_dir *d = &q->dirs[dir];
	struct herald_record *r = d->flight;

	if (r == NULL || r->seq != seq)
		return -EPROTO;
	leave_flight(q, d, r);
	if (error == 0) {
		q->announced++;
		forget(d, r);
	} else if (r->state == GRANTED) {
		forget(d, r); /* the tree knew that it was out of date */
	} else if (error == ENOTCONN || error == ECONNABORTED ||
		   ++r->tries < HERALD_TRIES) {
		wait_again(q, d, r);
	} else {
		q->failed++;
		forget(d, r);
	}
	return 0;
}

void herald_queue_settle(struct herald_queue *q)
{
	for (unsigned i = 0; i < HERALD_DIRS; i++) {
		struct herald_queue_dir *d = &q->dirs[i];

		while (d->flight != NULL) {
			/* The youngest first: each goes to the head. */
			struct herald_record *r = d->flight->prev;

			leave_flight(q, d, r);
			if (r->state == GRANTED) {
				q->announced++;
				forget(d, r);
			} else {
				wait_again(q, d, r);
			}
		}
	}
}
