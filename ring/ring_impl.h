/* SPDX-License-Identifier: MIT */
/* The inside of struct ring, shared by ring.c (life), request.c (asking for
 * changes) and view.c (what this node shows). */
#ifndef RING_RING_IMPL_H
#define RING_RING_IMPL_H

#include "ring/group.h"
#include "ring/keyset.h"
#include "ring/ring.h"

/* Why this node does not show a key, in ring_key.hidden. */
enum {
	HIDDEN_BACKOFF = 1,   /* offered, but not before its back-off is over */
	HIDDEN_LEAVING = 2,   /* its finish or hand-over is on its way: hidden
			       * before it is sent (holes.md 4). Raises no
			       * event: the commit does, or nothing happened */
	HIDDEN_ABANDONED = 4, /* claimed by a caller that is gone: will be
			       * finished (holes.md 24) */
};

/* A key to show when its back-off is over. */
struct reveal {
	uint64_t at_ms, id, token;
};

/* A request from when it is taken up until its answer is applied. */
struct ring_pending {
	struct ring_request *req; /* NULL: nobody waits any more */
	uint64_t seq, deadline_ms;
	bool sent;	     /* in this leadership */
	bool tried;	     /* in any: it may be in the log */
	bool late;	     /* the deadline has passed */
	bool last_of_entry;  /* with it, an entry is no more in flight */
	struct ring_op *ops; /* a copy; names and notes are in copies */
	size_t n_ops;
	char *copies;
	size_t bytes;			 /* of copies */
	struct ring_pending *next, **at; /* at: what points to it */
};

struct ring {
	struct ring_config config;
	struct ring_settings wanted;
	char *dir, *name;
	struct ring_id life;
	struct keyset *keys;
	struct group *group;
	uint64_t now_ms, tick_at_ms;
	char *errmsg; /* of ring_open, while it runs */

	/* Membership of this node. */
	uint32_t self;	 /* RING_NONE until its life is up */
	bool up_asked;	 /* in this leadership */
	bool is_refused; /* for good: refusal says why */
	char refusal[RING_ERRMSG_SIZE];
	bool was_leader;
	uint64_t base_ms, leader_since_ms; /* machine time (holes.md 23) */
	struct group_status group_status;  /* as of the last change */
	enum ring_health told;		   /* by on_status */

	/* Requests. */
	struct ring_pending *pending, **pending_tail; /* by seq */
	struct ring_request *done, **done_tail;	      /* callbacks to run */
	struct ring_pending *applying; /* its operations run now, or NULL */
	struct orphan *orphans;
	uint64_t next_seq;
	unsigned in_flight; /* entries */
	size_t n_abandoned; /* pending with nobody waiting */
	bool stalled;	    /* one timed out, none was answered since */

	/* Back-offs: a heap by at_ms. */
	struct reveal *reveals;
	size_t n_reveals, cap_reveals;
	size_t n_backoff; /* keys with HIDDEN_BACKOFF */
};

/* view.c */
unsigned view_shown(const struct ring *r, uint32_t holder, uint8_t state,
		    uint8_t submitting, uint8_t hidden);
void view_on_key(void *ring, struct ring_key *key, const struct keyset_was *was,
		 bool note, bool removed);
void view_start_backoffs(struct ring *r);
void view_tick(struct ring *r);
uint64_t view_next_ms(const struct ring *r); /* UINT64_MAX: none */

/* request.c */
void request_on_request(void *ring, const struct keyset_origin *origin);
void request_on_answer(void *ring, const struct keyset_origin *origin, int rc,
		       const struct keyset_answer *answers, size_t n);
void request_tick(struct ring *r);
uint64_t request_next_ms(const struct ring *r);
void request_flush(struct ring *r, uint64_t wall_us);
void request_retry_orphans(struct ring *r);
void request_unsend(struct ring *r);
void request_cancel_all(struct ring *r);
void request_run_done(struct ring *r);
/* Is key, which is being made, for a caller that waits no more? */
bool request_is_abandoned(const struct ring *r, const struct ring_key *key);

/* ring.c */
enum ring_health ring_health(const struct ring *r);
void ring_on_up(struct ring *r, const struct keyset_origin *origin, int rc);
bool ring_has_room(const struct ring *r, size_t bytes);
uint64_t ring_machine_ms(const struct ring *r); /* for the next entry */

#endif
