/* SPDX-License-Identifier: MIT */
/* How this node is, in a word and in a sentence. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ring/ring_impl.h"

/* An election takes 0.5 s, seldom 0.9 (notes/raft.md), more on a busy machine:
 * callers wait that long for a leader before they are told that there is none;
 * but not when a majority is known to be dead. */
#define LEADERLESS_MS 1500
#define RECEIVED_MS   10000
#define UNHEARD_MS    1000 /* a server is not in reach */

/* Are so many voters dead that no election can be won? Not for a suspicion: on
 * a busy machine that comes and goes. */
static bool lacks_majority(const struct ring *r)
{
	size_t n_dead = 0;

	for (size_t i = 0; i < r->n_voters; i++) {
		const struct member *m = member_find(r, &r->voters[i].id);

		n_dead += m != NULL && m->state >= RING_MEMBER_DEAD &&
			  !ring_is_self(r, &r->voters[i].id);
	}
	return 2 * n_dead >= r->n_voters && n_dead > 0;
}

bool status_is_leaderless(const struct ring *r)
{
	uint64_t patience = lacks_majority(r) ? 0 : LEADERLESS_MS;

	return r->now_ms >= r->leaderless_ms &&
	       r->now_ms - r->leaderless_ms >= patience;
}

bool status_is_waiting(const struct ring *r)
{
	return keyset_most_up(r->keys) < r->config.expect;
}

enum ring_health ring_health(const struct ring *r)
{
	const struct group_status *s = &r->group_status;

	if (s->failed || r->is_refused)
		return RING_FAILED;
	if (s->full)
		return RING_FULL;
	if (!r->has_shown)
		return RING_JOINING;
	if (!r->shows || r->stalled || s->stalled || status_is_leaderless(r))
		return RING_ISOLATED;
	if (status_is_waiting(r))
		return RING_JOINING;
	return r->is_draining || r->is_leaving ? RING_DRAINING : RING_READY;
}

void status_tell(struct ring *r)
{
	enum ring_health now = ring_health(r);
	struct ring_id leader = {{0}};

	if (r->group_status.has_leader)
		leader = r->group_status.leader;
	if (now == r->told && ring_same(&leader, &r->told_leader))
		return;
	r->told = now;
	r->told_leader = leader;
	r->config.on_status(r->config.data);
}

/* ---- Sentences ---- */

static void put(char out[RING_ERRMSG_SIZE], const char *text)
{
	size_t len = strlen(out);

	snprintf(out + len, RING_ERRMSG_SIZE - len, "%s", text);
}

static bool is_in_reach(const struct ring *r, const struct group_server *s)
{
	const struct member *m = member_find(r, &s->node);

	if (ring_is_self(r, &s->node))
		return true;
	if (r->group_status.is_leader || m == NULL)
		return s->heard_ms != UINT64_MAX &&
		       r->now_ms < s->heard_ms + UNHEARD_MS;
	return m->state == RING_MEMBER_ALIVE || m->state == RING_MEMBER_SUSPECT;
}

static const char *name_of(const struct ring *r, const struct ring_id *id)
{
	const struct ring_node *n =
		keyset_node(r->keys, keyset_find_node(r->keys, id));

	return n != NULL ? n->name : "a node that never was up";
}

/* "2 of 3 voters are not in reach: b, c". */
static unsigned put_missing(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	unsigned n = 0, missing = 0, listed = 0;
	char head[64];

	for (size_t i = 0; i < r->n_servers; i++) {
		const struct group_server *s = &r->servers[i];

		if (s->role != GROUP_VOTER)
			continue;
		n++;
		missing += !is_in_reach(r, s);
	}
	if (missing == 0)
		return 0;
	snprintf(head, sizeof(head),
		 "%u of %u voters %s not in reach: ", missing, n,
		 missing == 1 ? "is" : "are");
	put(out, head);
	for (size_t i = 0; i < r->n_servers; i++) {
		const struct group_server *s = &r->servers[i];

		if (s->role != GROUP_VOTER || is_in_reach(r, s))
			continue;
		put(out, listed++ > 0 ? ", " : "");
		put(out, name_of(r, &s->node));
	}
	return n;
}

static void put_name_taken(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	put(out, "a node that is up, or not yet declared down, has the name ");
	put(out, r->name);
	put(out, "; wait, or choose another with --name");
}

static void why_isolated(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	if (r->is_leaving && r->is_given) {
		put(out, "this node is leaving: its keys go to their heirs");
		return;
	}
	if (r->is_leaving)
		put(out, "this node is leaving; ");
	if (!r->group_status.has_leader) {
		unsigned voters = put_missing(r, out);

		if (voters == 0)
			put(out, "there is no leader just now");
		else if (voters == 2)
			put(out, "; two nodes are no majority without each "
				 "other: bring it back, or see recover-quorum");
	} else if (r->stalled || r->group_status.stalled) {
		put(out, "the log has not answered in time");
	} else if (r->is_name_taken) {
		put_name_taken(r, out);
	} else if (r->is_given) {
		put(out, "this node had given up its keys to leave, and comes "
			 "back");
	} else if (!r->is_up) {
		put(out, "this node was declared down, and comes back");
	} else {
		put(out, "this node's lease has run out: the leader does not "
			 "answer, or refuses it");
	}
}

static void why_moved(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	put(out,
	    "the state was moved, or is a copy: this node waits for a "
	    "leader that fills it again, or for all voters. If there is no "
	    "other copy, remove '");
	put(out, r->dir);
	put(out, "/place' and start again. ");
	put_missing(r, out);
}

static void why_joining(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	if (r->has_shown)
		snprintf(out, RING_ERRMSG_SIZE,
			 "nothing is claimed here before %u nodes were seen "
			 "together (--expect); so far there were %u",
			 r->config.expect, keyset_most_up(r->keys));
	else if (r->is_name_taken)
		put_name_taken(r, out);
	else if (r->group_status.is_moved)
		why_moved(r, out);
	else if (!r->group_status.has_leader)
		put(out,
		    "this node has not joined yet: it has found no leader; do "
		    "the others reach its address, by UDP and TCP?");
	else if (r->group_status.is_receiving)
		put(out, "this node has not joined yet: it is being sent the "
			 "keys");
	else if (!r->is_up)
		put(out, "this node has not joined yet");
	else
		put(out, "this node has joined, and waits for its lease");
}

static void why_ready(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	char missing[RING_ERRMSG_SIZE] = "";

	put(out, "this node serves");
	if (r->group_status.store_full) {
		put(out, ", but the store's disk is full");
	} else if (put_missing(r, missing) > 0) {
		put(out, "; ");
		put(out, missing);
	} else if (r->group_status.n_voters == 2) {
		put(out, "; no fail-over with two nodes; add a third");
	}
}

static void why_draining(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	if (r->is_leaving)
		put(out, "this node is leaving: it works on what it holds, and "
			 "claims nothing, until the others do without its "
			 "vote");
	else
		put(out, "this node is draining: it works on what it holds, "
			 "and claims nothing until it is told to resume");
}

/* It was told to leave, and did not. */
static void put_stayed(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	if (r->leave.why[0] == '\0')
		return;
	put(out, "; it did not leave: ");
	put(out, r->leave.why);
}

static void reason(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	out[0] = '\0';
	switch (ring_health(r)) {
	case RING_JOINING:
		why_joining(r, out);
		break;
	case RING_ISOLATED:
		why_isolated(r, out);
		break;
	case RING_FAILED:
		put(out, r->is_refused ? r->refusal : r->group_status.errmsg);
		break;
	case RING_FULL:
		put(out, "the disk of the state directory is full");
		break;
	case RING_READY:
		why_ready(r, out);
		put_stayed(r, out);
		break;
	case RING_DRAINING:
		why_draining(r, out);
		put_stayed(r, out);
		break;
	}
}

void ring_status(const struct ring *r, struct ring_status *out)
{
	const struct group_status *s = &r->group_status;
	struct group_status now;

	group_status(r->group, &now);
	*out = (struct ring_status){
		.health = ring_health(r),
		.leader = s->has_leader ? keyset_find_node(r->keys, &s->leader)
					: RING_NONE,
		.error = r->is_refused	    ? r->refusal_rc
			 : s->failed	    ? -EIO
			 : r->is_name_taken ? -EEXIST
					    : 0,
		.is_shown = r->shows,
		.is_leaving = r->is_leaving,
		.has_left = r->has_left,
		.is_unconfirmed = r->leave.is_unconfirmed,
		.is_moved = s->is_moved,
		.is_refuted = s->is_refuted,
		.is_receiving = r->receiving_ms != 0 &&
				r->now_ms - r->receiving_ms < RECEIVED_MS,
		.has_quorum = s->has_leader && s->in_contact,
		.term = s->term,
		.index = now.applied,
		.hash = keyset_hash(r->keys),
		.epoch = keyset_epoch(r->keys),
		.n_voters = s->n_voters,
		.n_standbys = s->n_standbys,
		.log_bytes = now.log_bytes,
		.n_entries = now.n_entries,
		.n_syncs = now.n_syncs,
	};
	reason(r, out->reason);
}

enum ring_role ring_node_role(const struct ring *r, uint32_t index)
{
	static const enum ring_role roles[] = {
		[GROUP_STANDBY] = RING_ROLE_STANDBY,
		[GROUP_VOTER] = RING_ROLE_VOTER,
		[GROUP_SPARE] = RING_ROLE_SPARE,
		[GROUP_NONE] = RING_ROLE_NONE,
	};
	const struct ring_node *n = keyset_node(r->keys, index);

	for (size_t i = 0; n != NULL && i < r->n_servers; i++)
		if (ring_same(&r->servers[i].node, &n->id))
			return roles[r->servers[i].role];
	return RING_ROLE_NONE;
}
