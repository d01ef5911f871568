/* SPDX-License-Identifier: MIT */
/* The inside of struct ring, for the files that make it up:
 *
 * ring.c      opening, running, closing; the group's callbacks
 * settings.c  the cluster's settings against those that were asked for
 * status.c    health, and the sentences that say why
 * life.c      this node: joining, up, its lease
 * leave.c     leaving, and who asks the leader for it
 * request.c   asking for changes, once each
 * force.c     finishing what others hold
 * view.c      what this node shows
 * handover.c  what it is asked for, and lets go by itself
 * inbox.c     the leader: requests of other nodes, until they are in an entry
 * member.c    the leader: who is up, and who is not any more
 * servers.c   the leader: who has a copy of the log, and votes */
#ifndef RING_RING_IMPL_H
#define RING_RING_IMPL_H

#include <string.h>

#include "ring/calm.h"
#include "ring/group.h"
#include "ring/keyset.h"
#include "ring/lease.h"
#include "ring/peer.h"
#include "ring/ring.h"

#define IN_FLIGHT_MAX 4		 /* entries, or messages, not yet applied */
#define ENTRY_BYTES   (4u << 20) /* no request is added beyond this */
#define REPEAT_MS     300	 /* what was sent to the leader goes again */
#define SILENT_MS     5000	 /* who asks no more is forgotten */
#define BULK_BYTES    65536u	 /* a message of that size is bulk */

/* Why this node does not show a key, in ring_key.hidden. */
enum {
	HIDDEN_BACKOFF = 1,   /* offered, but not before its back-off is over */
	HIDDEN_LEAVING = 2,   /* its finish or hand-over is on its way: hidden
			       * before it is sent (holes.md 4). Raises no
			       * event: the commit does, or nothing happened */
	HIDDEN_ABANDONED = 4, /* claimed by a caller that is gone: will be
			       * finished (holes.md 24) */
	HIDDEN_DOUBT = 8,     /* came with another node's store, and may be of a
			       * claim that is not answered yet: one of these
			       * cases then */
};

/* A key to show when its back-off is over. */
struct reveal {
	uint64_t at_ms, id, token;
};

/* A request from when it is taken up until its answer is applied. */
struct ring_pending {
	struct ring_request *req; /* NULL: nobody waits any more */
	uint64_t seq, deadline_ms;
	uint64_t sent_ms;
	bool sent;	     /* to this leader, or by it, in this term */
	bool tried;	     /* in any: it may be in the log */
	bool late;	     /* the deadline has passed */
	bool in_doubt;	     /* its answer may be in what a store has skipped */
	bool last_of_batch;  /* with it, a message is no more in flight */
	struct ring_op *ops; /* a copy; names and notes are in copies */
	size_t n_ops;
	char *copies;
	size_t bytes;			 /* of copies */
	struct ring_pending *next, **at; /* at: what points to it */
};

/* A key that this node is asked for, and when it lets go. */
struct handed {
	uint64_t at_ms, id, since_us;
};

#define HANDOVER_OPS 256 /* in one request */

struct handover {
	struct handed *items; /* n from head on, by at_ms */
	size_t head, n, cap;
	size_t n_sent; /* of the first, those that the request is about */
	bool is_busy;
	uint64_t retry_ms;
	struct ring_op ops[HANDOVER_OPS];
	struct ring_request req;
};

/* How far this node has left; beside is_leaving, is_given and has_left. */
struct leave {
	bool is_forced, is_unconfirmed;
	bool is_over;	  /* the life that was given is, as the leader says */
	unsigned n_stays; /* times more to say that it does not */
	uint64_t number;  /* of the wish */
	uint64_t since_ms, at_ms; /* forced since; said again then */
	char why[128];		  /* it was refused; or empty */
};

/* A request of another node, as it stands in an entry. */
struct inbox_item {
	struct keyset_origin origin;
	uint32_t n_ops;
	size_t len;
	struct inbox_item *next;
	uint8_t bytes[];
};

/* What SWIM says of a node. */
struct member {
	struct ring_id id;
	enum ring_member_state state;
	uint64_t since_ms;
};

/* A node that asks to be up, until it is. */
struct arrival {
	struct keyset_up up;
	char name[RING_NAME_MAX + 1];
	uint64_t heard_ms;
	bool has_waited;	     /* for calm, long enough */
	bool is_let;		     /* past, by the lease */
	bool is_chosen, is_proposed; /* for, in an entry of this leader */
};

/* A node that asks for another share of the ring, until that is proposed. */
struct wish {
	struct keyset_share share;
	uint64_t heard_ms;
	bool has_waited; /* for calm, long enough */
};

/* A server that asks to be added, or a node that asks to go; or a server of
 * which a change has failed. */
struct asker {
	struct ring_id node;
	uint64_t server, since_ms, heard_ms;
	uint64_t number, boot, epoch; /* of who leaves: as it says */
};

struct ring {
	struct ring_config config;
	struct ring_settings wanted;
	char *dir, *name;
	struct ring_id life;
	struct keyset *keys;
	struct keyset *old_keys; /* while another node's store is loaded */
	struct group *group;
	uint64_t now_ms;
	uint32_t generation;	/* of the log */
	uint64_t told_older_ms; /* when one of an older one was told so last */
	bool said_newer;
	char *errmsg;	 /* of ring_open, while it runs */
	bool is_open;	 /* on_change is called from now on */
	bool is_stirred; /* ring_tick has something to do */

	/* The log, as after the last call into the group. */
	uint64_t base_ms, leader_since_ms; /* machine time (holes.md 23) */
	uint64_t receiving_ms;	/* a store was on its way then; 0: never */
	uint64_t leaderless_ms; /* since when; UINT64_MAX: not */
	struct group_status group_status;
	struct group_server *servers;
	size_t n_servers, cap_servers;
	struct lease_voter *voters;
	size_t n_voters;
	bool is_alone;	       /* the only voter is this node */
	unsigned in_flight;    /* entries by this leader; else messages to it */
	enum ring_health told; /* by on_status */
	struct ring_id told_leader;

	/* This node. */
	uint32_t self;	/* RING_NONE until its life was up once */
	uint64_t epoch; /* of its life, while it is up */
	bool is_up;
	bool shows, has_shown; /* up, and inside its lease */
	bool is_leaving;       /* it wants to */
	bool is_given; /* this life shows nothing any more, and must end */
	bool has_left;
	struct leave leave;
	uint32_t weight; /* wanted */
	bool is_draining;
	bool is_refused;    /* for good: refusal says why */
	bool is_name_taken; /* by one that is up: it may go down yet */
	bool up_asked;
	int refusal_rc;
	char refusal[RING_ERRMSG_SIZE];
	uint64_t ask_at_ms, share_at_ms, join_at_ms;
	size_t join_next;
	struct lease *lease;
	struct lease_out out;
	struct ring_id dead_leader;		    /* by proof */
	uint64_t campaign_at_ms, campaign_until_ms; /* UINT64_MAX: no need */

	/* Requests. */
	struct ring_pending *pending, **pending_tail; /* by seq */
	struct ring_request *done, **done_tail;	      /* callbacks to run */
	struct ring_pending *applying; /* its operations run now, or NULL */
	struct orphan *orphans;
	struct force *forces;
	uint64_t next_seq;
	size_t n_abandoned; /* pending with nobody waiting */
	size_t n_taking;    /* operations pending that may take a key away */
	bool stalled;	    /* one timed out, none was answered since */

	/* Views. The back-offs are a heap by at_ms. */
	struct reveal *reveals;
	size_t n_reveals, cap_reveals;
	size_t n_backoff;  /* keys with HIDDEN_BACKOFF */
	uint64_t *to_tell; /* lives whose views may have changed */
	size_t n_to_tell;
	struct handover handover;

	/* The leader's work. */
	struct inbox_item *inbox, **inbox_tail;
	size_t inbox_bytes;
	struct member *members;
	size_t n_members, cap_members;
	struct arrival *arrivals;
	size_t n_arrivals, cap_arrivals;
	struct wish *wishes;
	size_t n_wishes, cap_wishes;
	struct calm calm;
	struct asker *joiners, *leavers, *failures;
	size_t n_joiners, cap_joiners, n_leavers, cap_leavers;
	size_t n_failures, cap_failures;
	uint64_t role_at_ms, role_from_ms, changed_ms;
	int change_step; /* enum role_step, of the change under way */
	uint64_t change_server, change_ms;
};

/* ring.c */
/* Propose an entry of this leader. Takes b's bytes, on success only. */
int ring_propose(struct ring *r, struct buf *b);
void ring_begin_entry(struct ring *r, struct buf *b);
/* Send to a node that is not this one. */
void ring_send(struct ring *r, const struct ring_id *to, struct buf *b);
bool ring_has_room(const struct ring *r, size_t bytes);
/* A place more in an array of n. */
void *ring_grown(void *base, size_t n, size_t *cap, size_t size);

static inline bool ring_same(const struct ring_id *a, const struct ring_id *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool ring_is_self(const struct ring *r, const struct ring_id *id)
{
	return ring_same(&r->config.id, id);
}

static inline bool ring_is_nobody(const struct ring_id *id)
{
	static const struct ring_id nobody;

	return ring_same(id, &nobody);
}

/* settings.c */
/* RING_UNSET replaced by what is the default. */
struct ring_settings settings_wanted(const struct ring_settings *asked);
/* 0, or -EINVAL: errmsg names the first that differs, and both values. */
int settings_check(const struct ring_settings *asked,
		   const struct ring_settings *in_force,
		   char errmsg[RING_ERRMSG_SIZE]);

/* status.c */
enum ring_health ring_health(const struct ring *r);
bool status_is_leaderless(const struct ring *r);
/* Fewer nodes were ever seen together than this one expects. */
bool status_is_waiting(const struct ring *r);
/* Call on_status if health or leader is another. */
void status_tell(struct ring *r);

/* life.c */
void life_create(struct ring *r);
void life_destroy(struct ring *r);
void life_on_node(struct ring *r, uint32_t node);
void life_on_up_answer(struct ring *r, const struct keyset_origin *o, int rc);
void life_reload(struct ring *r); /* the machine is another */
void life_set_raft(struct ring *r);
void life_run(struct ring *r);
uint64_t life_next_ms(const struct ring *r);
/* Another member that is alive, each in turn; or NULL. */
const struct member *life_next_alive(struct ring *r);
/* This node is not wanted, for good. rc and the sentence are for the status. */
__attribute__((format(printf, 3, 4))) void life_refuse(struct ring *r, int rc,
						       const char *format, ...);
void life_on_refusal(struct ring *r, struct reader *body);
/* A message has come from a node of a newer generation. */
void life_on_newer(struct ring *r, uint32_t generation);

/* leave.c */
void leave_on_leave(struct ring *r, struct reader *body,
		    const struct ring_id *from);
void leave_on_farewell(struct ring *r, struct reader *body);
void leave_on_life_over(struct ring *r); /* by what was applied here */
void leave_run(struct ring *r);
uint64_t leave_next_ms(const struct ring *r); /* UINT64_MAX: none */

/* view.c */
void view_open(struct ring *r);
void view_replace(struct ring *r, struct keyset *old);
void view_show(struct ring *r, bool on);
void view_on_key(void *ring, struct ring_key *key, const struct keyset_was *was,
		 bool note, bool removed);
void view_start_backoffs(struct ring *r);
/* Who has claimed the key of that name is known now: one who waits no more? */
void view_settle(struct ring *r, const char *name, bool is_abandoned);
void view_tick(struct ring *r);
uint64_t view_next_ms(const struct ring *r); /* UINT64_MAX: none */

/* handover.c */
void handover_start(struct ring *r); /* all that this node is asked for now */
void handover_on_key(struct ring *r, const struct ring_key *key);
void handover_run(struct ring *r);
uint64_t handover_next_ms(const struct ring *r); /* UINT64_MAX: none */
void handover_destroy(struct ring *r);

/* request.c */
void request_on_request(void *ring, const struct keyset_origin *origin);
void request_on_answer(void *ring, const struct keyset_origin *origin, int rc,
		       const struct keyset_answer *answers, size_t n);
void request_tick(struct ring *r);
/* Hide key, if an operation that is on its way may take it from this node. */
void request_hide(struct ring *r, const struct ring_key *key);
uint64_t request_next_ms(const struct ring *r);
void request_flush(struct ring *r);
void request_retry_orphans(struct ring *r);
void request_unsend(struct ring *r);
/* This node's life is over: what was not answered was not done; or, unless
 * is_known, may have been. */
void request_life_over(struct ring *r, bool is_known);
/* Another node's store has skipped entries, and answers in them. */
void request_doubt(struct ring *r);
void request_cancel_all(struct ring *r);
void request_run_done(struct ring *r);
/* Why req cannot be taken up just now, or 0. */
int request_refusal(const struct ring *r, const struct ring_request *req);
/* Run req's callback soon, with rc. */
void request_answer(struct ring *r, struct ring_request *req, int rc);
/* May a request that is not answered yet have made key? */
bool request_may_have_made(const struct ring *r, const struct ring_key *key);
/* Is key, which is being made, for a caller that waits no more? */
bool request_is_abandoned(const struct ring *r, const struct ring_key *key);

/* force.c */
void force_on_finish(struct ring *r, struct reader *body);
void force_run(struct ring *r);
uint64_t force_next_ms(const struct ring *r); /* UINT64_MAX: none */
void force_abandon(struct ring_request *req);
void force_cancel_all(struct ring *r); /* before request_cancel_all() */

/* inbox.c */
void inbox_push(struct ring *r, const struct peer_item *item);
/* Append what waits to b, within limits that an empty entry may pass with one
 * request. Gives how many: inbox_drop() them when the entry is proposed. */
size_t inbox_peek(const struct ring *r, struct buf *b, size_t max_bytes,
		  size_t *n_ops);
void inbox_drop(struct ring *r, size_t n);
void inbox_clear(struct ring *r);

/* member.c */
void member_destroy(struct ring *r);
const struct member *member_find(const struct ring *r,
				 const struct ring_id *id);
void member_on_arrival(struct ring *r, const struct keyset_up *up);
void member_on_up_answer(struct ring *r, const struct ring_id *id, int rc);
void member_on_leaving(struct ring *r, const struct keyset_origin *o);
void member_on_share(struct ring *r, const struct keyset_share *share);
void member_take_downs(struct ring *r); /* from r->out */
void member_unsend(struct ring *r);	/* the leadership is over */
void member_run(struct ring *r);
uint64_t member_next_ms(const struct ring *r);

/* servers.c */
void servers_destroy(struct ring *r);
void servers_on_join(struct ring *r, struct reader *body,
		     const struct ring_id *from);
void servers_on_leaving(struct ring *r, const struct peer_leave *leave);
void servers_unsend(struct ring *r);
void servers_run(struct ring *r);
uint64_t servers_next_ms(const struct ring *r);

#endif
