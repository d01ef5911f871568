/* SPDX-License-Identifier: MIT */
/* Who should vote: a pure function of the nodes, what was heard of them, and
 * the configuration of the log. It gives the next single change, or none.
 *
 * Wanted are 1, 2, 3, 3, 5 voters for 1, 2, 3, 4, 5 and more nodes; the rest
 * are standbys, which have the log but no vote; clients are never voters. Any
 * order of single changes is safe (Ongaro's dissertation, 4.1, with the rule
 * that a leader has committed in its own term first); these rules are about how
 * many failures the cluster bears meanwhile:
 *
 * - nothing without a majority of the voters in contact, nor a change after
 *   which there would be none;
 * - a dead voter is replaced only when a standby is ready for it: demoted
 *   first, since that never raises the majority. With nobody to replace it, it
 *   stays: it costs no more than a smaller configuration would, but with four;
 * - from 3 to 5 only when both are ready, one after the other, so that 4 is
 *   passed and not stayed at;
 * - a voter that leaves is replaced, then demoted, then removed; a leader that
 *   leaves hands over first. When all but one leave at once, one is left (28).
 *
 * Who asks is the leader, after its barrier, one change at a time (29). SWIM's
 * word is an input and never enough by itself: dead means also that raft has
 * not heard from it. Knows nothing of raft.h; time in milliseconds is passed
 * in. Private to ring/. */
#ifndef RING_ROLE_H
#define RING_ROLE_H

#include "ring/ring.h"

enum role {
	ROLE_NONE, /* not in the configuration */
	ROLE_SPARE,
	ROLE_STANDBY,
	ROLE_VOTER,
};

enum role_state {
	ROLE_ALIVE,
	ROLE_SUSPECT,
	ROLE_DEAD,    /* SWIM says so; it may come back */
	ROLE_LEAVING, /* it has asked to, and waits for it */
	ROLE_GONE, /* it left, or has lost its log: this raft id is over (21) */
};

/* A server of the configuration, or a node that should become one. A node that
 * lost its log is there twice: as it was, gone, and as it is. */
struct role_node {
	struct ring_id id;
	enum role role;
	enum role_state state;
	uint64_t since_ms;  /* in that state */
	uint64_t heard_ms;  /* of the last answer to a message of raft */
	uint64_t failed_ms; /* a change of it failed; 0: none has */
	uint64_t match;	    /* the log's index that it is known to have */
	uint32_t weight;
	bool is_client;
	bool is_self; /* the leader */
};

struct role_view {
	const struct role_node *nodes; /* borrowed */
	size_t n;
	uint64_t last;	     /* the log's last index */
	uint64_t changed_ms; /* when the last change was done; 0: none was */
	bool is_changing;    /* a change, or a transfer, is on its way */
};

enum role_step {
	ROLE_NOTHING,
	ROLE_ADD, /* as spare */
	ROLE_TO_SPARE,
	ROLE_TO_STANDBY,
	ROLE_TO_VOTER,
	ROLE_REMOVE,
	ROLE_TRANSFER, /* hand leadership to it */
};

struct role_change {
	enum role_step step;
	size_t node;	   /* index in view->nodes */
	uint64_t again_ms; /* nothing: ask again then, or when a role or state
			    * is another; UINT64_MAX: a change is under way */
};

/* What to do next. Asked again after each change, the answer becomes nothing.
 * */
struct role_change role_next(const struct role_view *view, uint64_t now_ms);

/* How many voters n nodes should have. */
unsigned role_target(size_t n);

/* May the node with id, which leaves, end its process (28)? It votes no more,
 * by a configuration that is committed; or it is the last of all. */
bool role_may_exit(const struct role_view *view, const struct ring_id *id);

#endif
