/* SPDX-License-Identifier: MIT */
/* This node: how it joins, is up, and keeps its lease.
 *
 *   no log:        JOIN to one member after the other, until a leader is heard
 *   a leader:      UP to it, again and again, until it is applied here
 *   up:            the lease is asked for (lease.c); inside it, what this node
 *                  holds is shown. SHARE to the leader when another is wanted
 *   lease out:     nothing held is shown; the life goes on when it is granted
 *                  again
 *   down applied:  the life is over, nothing of it is under way any more; UP
 *                  again, in a new epoch
 *   leaving:       leave.c
 *
 * A cluster of one needs no lease: nobody could declare it down. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/ring_impl.h"

#define JOIN_MS	     500  /* between two members that are asked */
#define NAME_MS	     1000 /* before a name that is taken is asked for */
#define CAMPAIGN_MS  50	  /* between two voters that stand for election */
#define STAND_MS     5	  /* until one who could not tries again */
#define STAND_FOR_MS 500  /* then the library's own time-out has come */

void life_create(struct ring *r)
{
	struct lease_config config = {
		.id = r->config.id, .life = r->life, .boot = r->config.boot};

	r->self = RING_NONE;
	r->campaign_at_ms = UINT64_MAX;
	r->weight = r->config.weight;
	r->lease = lease_create(&config);
}

void life_destroy(struct ring *r)
{
	lease_destroy(r->lease);
	lease_out_finish(&r->out);
}

__attribute__((format(printf, 3, 4))) void life_refuse(struct ring *r, int rc,
						       const char *format, ...)
{
	va_list args;

	if (r->is_refused)
		return;
	r->is_refused = true;
	r->refusal_rc = rc;
	va_start(args, format);
	vsnprintf(r->refusal, sizeof(r->refusal), format, args);
	va_end(args);
	r->config.on_log(r->config.data, 3, r->refusal);
}

/* ---- Applied ---- */

static void say_life(struct ring *r, uint32_t node)
{
	const struct ring_node *n = keyset_node(r->keys, node);
	struct keyset_up up;

	if (!n->up) {
		lease_on_down(r->lease, r->now_ms, &n->id, &r->out);
		return;
	}
	keyset_get_up(r->keys, node, &up);
	struct lease_life life = {.id = up.id,
				  .life = up.life,
				  .boot = up.boot,
				  .epoch = n->epoch,
				  .grace_ms = up.grace_ms};

	memcpy(life.host, up.host, sizeof(life.host));
	lease_on_up(r->lease, r->now_ms, &life, &r->out);
}

static bool is_our_life(const struct ring *r, uint32_t node)
{
	struct keyset_up up;

	keyset_get_up(r->keys, node, &up);
	return up.boot == r->config.boot && ring_same(&up.life, &r->life);
}

/* What the machine now says of this node. is_known: see request.c. */
static void take_own(struct ring *r, uint32_t node, bool is_known)
{
	const struct ring_node *n = keyset_node(r->keys, node);
	bool up = n->up && is_our_life(r, node);

	if (r->is_up) {
		r->is_up = false;
		view_show(r, false);
		request_life_over(r, is_known);
	}
	if (!up)
		leave_on_life_over(r);
	if (n->up && !up && n->boot > r->config.boot)
		life_refuse(r, -ESTALE,
			    "the state was copied, or this daemon was "
			    "replaced: a later start of this node is up");
	r->ask_at_ms = 0;
	if (!up)
		return;
	r->self = node;
	r->epoch = n->epoch;
	r->is_up = true;
	r->is_name_taken = false;
	view_start_backoffs(r);
	handover_start(r);
}

void life_on_node(struct ring *r, uint32_t node)
{
	say_life(r, node);
	if (ring_is_self(r, &keyset_node(r->keys, node)->id))
		take_own(r, node, true);
	if (r->is_open)
		r->config.on_status(r->config.data);
}

void life_reload(struct ring *r)
{
	uint32_t node = keyset_find_node(r->keys, &r->config.id);
	const struct ring_node *n = keyset_node(r->keys, node);

	for (uint32_t i = 0; keyset_node(r->keys, i) != NULL; i++)
		say_life(r, i);
	request_doubt(r);
	if (n == NULL || (r->is_up && n->up && n->epoch == r->epoch))
		return;
	take_own(r, node, false);
}

static void refuse_copy(struct ring *r)
{
	life_refuse(r, -ESTALE,
		    "the state is copied or restored: this start "
		    "was counted before; start with an empty --state, and "
		    "--join");
}

/* Whoever has it may be our own former life, with a state that was lost, which
 * is not declared down yet: so it is asked for on, but not as often, for each
 * such answer is in the log. */
static void note_name_taken(struct ring *r)
{
	r->is_name_taken = true;
	r->ask_at_ms = r->now_ms + NAME_MS;
}

/* The answer to an up with our boot; a copy of our state may have asked it. */
void life_on_up_answer(struct ring *r, const struct keyset_origin *o, int rc)
{
	if (rc == 0 || !r->up_asked || r->is_up || o->boot != r->config.boot ||
	    !ring_is_self(r, &o->id))
		return;
	if (rc == -ESTALE)
		refuse_copy(r);
	else if (rc == -EEXIST)
		note_name_taken(r);
	else
		life_refuse(r, rc, "the cluster refuses this node: %s",
			    strerror(-rc));
}

/* ---- The lease ---- */

void life_set_raft(struct ring *r)
{
	const struct group_status *s = &r->group_status;
	struct lease_raft raft = {.term = s->term,
				  .durable_term = s->durable_term,
				  .server = group_server_id(r->group),
				  .is_leader = s->is_leader,
				  .is_ready = s->is_leader,
				  .is_mute = s->failed || s->stalled,
				  .voters = r->voters,
				  .n_voters = r->n_voters};

	if (s->has_leader)
		raft.leader = s->leader;
	if (keyset_settings(r->keys) != NULL)
		lease_set_duration(r->lease,
				   keyset_settings(r->keys)->lease_ms);
	lease_set_raft(r->lease, r->now_ms, &raft, &r->out);
}

static bool hand_over(struct ring *r)
{
	const struct buf *b = &r->out.obituary;

	return b->len == 0 || r->config.obituary == NULL ||
	       r->config.obituary(r->config.data, b->base, b->len) == 0;
}

static void send_leases(struct ring *r)
{
	struct buf b = {0};

	for (size_t i = 0; i < r->out.n_sends; i++) {
		const struct lease_send *s = &r->out.sends[i];

		b.len = 0;
		peer_put_kind(&b, PEER_LEASE);
		buf_put(&b, r->out.bytes.base + s->at, s->len);
		ring_send(r, &s->to, &b);
	}
	free(b.base);
}

/* The leader is proven dead. One voter stands for election at a time, by id: who
 * has the longest log nobody knows, and mostly they are equally long. One with a
 * shorter log is refused, and the next one stands (holes.md 19). */
static void plan_campaign(struct ring *r)
{
	unsigned before = 0;

	if (r->campaign_at_ms != UINT64_MAX)
		return;
	for (size_t i = 0; i < r->n_voters; i++)
		before +=
			!ring_same(&r->voters[i].id, &r->group_status.leader) &&
			memcmp(&r->voters[i].id, &r->config.id,
			       sizeof(r->config.id)) < 0;
	r->dead_leader = r->group_status.leader;
	r->campaign_at_ms = r->now_ms + before * (uint64_t)CAMPAIGN_MS;
	r->campaign_until_ms = r->campaign_at_ms + STAND_FOR_MS;
}

static void campaign(struct ring *r)
{
	const struct group_status *s = &r->group_status;

	if (r->now_ms < r->campaign_at_ms)
		return;
	r->campaign_at_ms = UINT64_MAX;
	if (s->has_leader && !ring_same(&s->leader, &r->dead_leader))
		return;
	/* What it has heard last may be on its way to the disk still. */
	if (group_campaign(r->group, r->now_ms) == -EAGAIN &&
	    r->now_ms < r->campaign_until_ms)
		r->campaign_at_ms = r->now_ms + STAND_MS;
}

static void empty_out(struct ring *r)
{
	if (hand_over(r))
		send_leases(r);
	if (r->out.leader_died)
		plan_campaign(r);
	member_take_downs(r);
	lease_out_clear(&r->out);
}

bool ring_check(struct ring *r, uint64_t now_ms)
{
	view_show(r, r->is_up && !r->is_given && !r->is_refused &&
			     (r->is_alone || lease_is_held(r->lease, now_ms)));
	return r->shows;
}

/* ---- Asking ---- */

/* To the leader, which may be this node. */
static void ask_up(struct ring *r)
{
	struct keyset_up up = {.id = r->config.id,
			       .life = r->life,
			       .boot = r->config.boot,
			       .weight = r->weight,
			       .grace_ms = r->config.restart_grace_ms,
			       .is_client = r->config.is_client,
			       .is_draining = r->is_draining,
			       .name = r->name};
	struct buf b = {0};

	memcpy(up.host, r->config.host, sizeof(up.host));
	r->up_asked = true;
	if (r->group_status.is_leader) {
		member_on_arrival(r, &up);
		return;
	}
	peer_put_kind(&b, PEER_ITEMS);
	keyset_put_up(&b, &up);
	ring_send(r, &r->group_status.leader, &b);
	free(b.base);
}

static bool must_ask(const struct ring *r)
{
	return r->group_status.has_leader && !r->is_refused && !r->is_up &&
	       !r->is_leaving;
}

static void ask(struct ring *r)
{
	const struct group_status *s = &r->group_status;

	if (!must_ask(r) || r->now_ms < r->ask_at_ms ||
	    (s->has_leader && ring_is_self(r, &s->leader) && !s->is_leader))
		return;
	r->ask_at_ms = r->now_ms + REPEAT_MS;
	ask_up(r);
}

/* ---- The share of the ring ---- */

/* Who leaves drains, so that what moves goes to those who stay. */
static bool wants_drain(const struct ring *r)
{
	return r->is_draining || r->is_leaving;
}

static bool must_share(const struct ring *r)
{
	const struct ring_node *n = keyset_node(r->keys, r->self);

	return r->is_up && !r->is_given && r->group_status.has_leader &&
	       (n->weight != r->weight || n->is_draining != wants_drain(r));
}

static void ask_share(struct ring *r)
{
	struct keyset_share share = {.id = r->config.id,
				     .boot = r->config.boot,
				     .epoch = r->epoch,
				     .weight = r->weight,
				     .is_draining = wants_drain(r)};
	struct buf b = {0};

	if (!must_share(r) || r->now_ms < r->share_at_ms)
		return;
	r->share_at_ms = r->now_ms + REPEAT_MS;
	if (r->group_status.is_leader) {
		member_on_share(r, &share);
		return;
	}
	peer_put_kind(&b, PEER_ITEMS);
	keyset_put_share(&b, &share);
	ring_send(r, &r->group_status.leader, &b);
	free(b.base);
}

static void want_share(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	r->share_at_ms = 0;
	r->is_stirred = true;
}

int ring_set_weight(struct ring *r, uint64_t now_ms, uint32_t weight)
{
	if (r->config.is_client || weight > RING_WEIGHT_MAX)
		return -EINVAL;
	r->weight = weight;
	want_share(r, now_ms);
	return 0;
}

void ring_drain(struct ring *r, uint64_t now_ms, bool on)
{
	r->is_draining = on;
	want_share(r, now_ms);
}

/* ---- Joining ---- */

/* Whoever hears no leader may be one that no leader knows of: it has no log
 * yet, or was taken out while it was away. */
static bool must_join(const struct ring *r)
{
	return !r->group_status.has_leader && !r->is_refused &&
	       !r->is_leaving && r->config.send != NULL &&
	       (r->group_status.role == GROUP_NONE || status_is_leaderless(r));
}

const struct member *life_next_alive(struct ring *r)
{
	for (size_t i = 0; i < r->n_members; i++) {
		const struct member *m =
			&r->members[r->join_next++ % r->n_members];

		if (m->state == RING_MEMBER_ALIVE && !ring_is_self(r, &m->id))
			return m;
	}
	return NULL;
}

static void join(struct ring *r)
{
	struct peer_join j = {.node = r->config.id,
			      .cluster = r->config.cluster,
			      .server = group_server_id(r->group),
			      .settings = r->config.settings};
	struct buf b = {0};

	if (!must_join(r) || r->now_ms < r->join_at_ms)
		return;
	r->join_at_ms = r->now_ms + JOIN_MS;
	const struct member *m = life_next_alive(r);

	if (m == NULL)
		return;
	snprintf(j.name, sizeof(j.name), "%s", r->name);
	peer_put_join(&b, &j);
	ring_send(r, &m->id, &b);
	free(b.base);
}

void life_on_refusal(struct ring *r, struct reader *body)
{
	char text[RING_ERRMSG_SIZE];
	struct peer_refusal no;

	if (peer_get_refusal(body, &no) != 0 || r->is_up ||
	    no.whom != (no.why == PEER_BOOT_USED ? r->config.boot
						 : group_server_id(r->group)))
		return;
	switch (no.why) {
	case PEER_OTHER_CLUSTER:
		life_refuse(r, -EXDEV,
			    "the members are another cluster's than this "
			    "node's state");
		break;
	case PEER_OTHER_SETTINGS:
		if (settings_check(&r->config.settings, &no.settings, text))
			life_refuse(r, -EINVAL, "%s", text);
		break;
	case PEER_NAME_TAKEN:
		note_name_taken(r);
		break;
	case PEER_BOOT_USED:
		refuse_copy(r);
		break;
	case PEER_OLD_GENERATION: /* life_on_newer() has said so */
	case PEER_N_WHY:
		break;
	}
}

/* A node that went on with a majority of the voters would be no help to anyone
 * if it stopped: then it is the recovered one that is wrong. */
void life_on_newer(struct ring *r, uint32_t generation)
{
	char line[RING_ERRMSG_SIZE];

	if (!status_is_leaderless(r)) {
		if (!r->said_newer && r->group_status.has_leader)
			r->config.on_log(
				r->config.data, 3,
				"a node was recovered by recover-quorum, but "
				"this one still has a majority of the voters: "
				"remove the state of the other, and let it "
				"join again");
		r->said_newer |= r->group_status.has_leader;
		return;
	}
	snprintf(line, sizeof(line),
		 "the cluster was recovered without this node, and is of "
		 "generation %" PRIu32 ", this state of %" PRIu32
		 ": remove the state directory, but keep its key, and join "
		 "again with --join",
		 generation, r->generation);
	life_refuse(r, -EXDEV, "%s", line);
}

/* ---- Running ---- */

void life_run(struct ring *r)
{
	lease_tick(r->lease, r->now_ms, &r->out);
	empty_out(r);
	campaign(r);
	ring_check(r, r->now_ms);
	leave_run(r);
	ask(r);
	ask_share(r);
	join(r);
}

uint64_t life_next_ms(const struct ring *r)
{
	uint64_t next = r->out.wake_ms > 0 ? r->out.wake_ms : UINT64_MAX;

	if (r->campaign_at_ms < next)
		next = r->campaign_at_ms;
	if (must_ask(r) && r->ask_at_ms < next)
		next = r->ask_at_ms;
	if (must_share(r) && r->share_at_ms < next)
		next = r->share_at_ms;
	if (must_join(r) && r->join_at_ms < next)
		next = r->join_at_ms;
	if (leave_next_ms(r) < next)
		next = leave_next_ms(r);
	return next > r->now_ms ? next : r->now_ms + 1;
}

int ring_obituary(struct ring *r, uint64_t now_ms, const void *bytes,
		  size_t len)
{
	struct lease_msg msg = {.bytes = bytes, .len = len};

	r->now_ms = now_ms;
	r->is_stirred = true;
	return lease_recv(r->lease, now_ms, &msg, &r->out);
}
