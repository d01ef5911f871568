/* SPDX-License-Identifier: MIT */
/* Leaving, so that the others decide without this node (holes.md 28).
 *
 *   leaves   it claims nothing, owns nothing, and works on what it holds. LEAVE
 *            to the leader, or to a member that passes it on, again and again:
 *            the leader takes its vote away
 *   gives    FAREWELL: by a configuration that is committed it votes no more.
 *            What it holds is hidden, and from here on this life must end:
 *            LEAVE says so, and the leader proposes its down
 *   left     FAREWELL: its life is over, too. It may go
 *
 * and each other way:
 *   taken back before it gives: nothing has happened, and the leader is told
 *   taken back later: its down may be on the way, and heirs would show what it
 *            shows (holes.md 4). So this life ends all the same, and when that
 *            is applied here, the next begins, without its keys
 *   the last that could vote: it leaves alone, for nobody else has the keys. So
 *            with keys, or with others who would miss the log, it stays
 *   forced:  the last leaves all the same; and who has no farewell in time goes
 *            without, voter or not. The others count on it then, and may count
 *            on it no more: its state must never come back
 *
 * Whatever is lost goes again, to whoever leads then. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring/ring_impl.h"

#define FORCE_MS 5000 /* for the farewell, if it is forced */
#define N_STAYS	 3    /* times that the leader is told; else it forgets */

/* ---- The last one ---- */

/* Those who have a server, and cannot take over; or -1: somebody may. */
static int n_behind(const struct ring *r)
{
	int n = 0;

	for (size_t i = 0; i < r->n_servers; i++) {
		const struct ring_id *id = &r->servers[i].node;
		const struct member *m = member_find(r, id);
		const struct ring_node *node =
			keyset_node(r->keys, keyset_find_node(r->keys, id));

		if (ring_is_self(r, id))
			continue;
		if (m == NULL || (m->state <= RING_MEMBER_SUSPECT &&
				  (node == NULL || !node->is_client)))
			return -1;
		n += m->state <= RING_MEMBER_DEAD;
	}
	return n;
}

static bool is_last(const struct ring *r)
{
	return r->group_status.is_leader && r->is_alone &&
	       !r->group_status.is_changing && n_behind(r) >= 0;
}

/* Why the last one should not leave. False: it may. */
static bool would_lose(struct ring *r)
{
	int n = n_behind(r);
	size_t n_keys;

	keyset_list(r->keys, RING_VIEW_KEYS, RING_NONE, &n_keys);
	if (n_keys > 0)
		snprintf(r->leave.why, sizeof(r->leave.why),
			 "no other node could take over the %zu unfinished "
			 "key%s",
			 n_keys, n_keys == 1 ? "" : "s");
	else if (n > 0)
		snprintf(r->leave.why, sizeof(r->leave.why),
			 "%d node%s would be left, and could not take over: "
			 "forget %s first",
			 n, n == 1 ? "" : "s", n == 1 ? "it" : "them");
	return n_keys > 0 || n > 0;
}

/* ---- Phases ---- */

static void tell(struct ring *r)
{
	r->is_stirred = true;
	r->config.on_status(r->config.data);
}

/* holes.md 4: hidden before it is sent. */
static void give(struct ring *r)
{
	if (r->is_given)
		return;
	r->is_given = true;
	r->leave.at_ms = 0;
	view_show(r, false);
	tell(r);
}

static void set_left(struct ring *r)
{
	if (r->has_left)
		return;
	r->has_left = true;
	tell(r);
}

static void on_voteless(struct ring *r, bool is_over)
{
	give(r);
	if (is_over && r->is_leaving)
		set_left(r);
}

/* Its life is over, which it may never hear by the log: who has left is sent
 * no more of it. As one who stays it is added again. */
static void come_back(struct ring *r)
{
	r->leave.is_over = true;
	r->leave.n_stays = N_STAYS;
	r->leave.at_ms = 0;
	r->is_stirred = true;
}

void leave_on_farewell(struct ring *r, struct reader *body)
{
	struct peer_farewell f;

	if (peer_get_farewell(body, &f) != 0 || f.number != r->leave.number)
		return;
	if (r->is_leaving)
		on_voteless(r, f.is_over);
	else if (r->is_given && f.is_over && !r->leave.is_over)
		come_back(r);
}

void leave_on_life_over(struct ring *r)
{
	if (r->is_leaving || !r->is_given)
		return;
	r->is_given = false;
	come_back(r);
}

static void stay(struct ring *r)
{
	r->is_leaving = r->leave.is_forced = false;
	r->leave.n_stays = r->is_given ? 0 : N_STAYS;
	r->leave.at_ms = r->share_at_ms = 0;
	tell(r);
}

static void leave_last(struct ring *r)
{
	char line[RING_ERRMSG_SIZE];

	if (r->leave.is_forced || r->is_given || !would_lose(r)) {
		on_voteless(r, !r->is_up);
		return;
	}
	snprintf(line, sizeof(line), "it does not leave: %s", r->leave.why);
	r->config.on_log(r->config.data, 4, line);
	stay(r);
}

static void go_unconfirmed(struct ring *r)
{
	r->config.on_log(r->config.data, 4,
			 "it leaves, and no majority of the voters has "
			 "confirmed that: this state must not be used again");
	r->leave.is_unconfirmed = true;
	give(r);
	set_left(r);
}

/* ---- Saying so ---- */

static bool must_end(const struct ring *r)
{
	return r->is_given && !r->leave.is_over;
}

static bool must_say(const struct ring *r)
{
	return (r->is_leaving || must_end(r) || r->leave.n_stays > 0) &&
	       !r->has_left;
}

static void pass(struct ring *r, const struct ring_id *to,
		 const struct peer_leave *l)
{
	struct buf b = {0};

	peer_put_leave(&b, l);
	ring_send(r, to, &b);
	free(b.base);
}

/* The leader: it is itself, or a node that wants to leave. */
static void take(struct ring *r, const struct peer_leave *l)
{
	struct keyset_origin o = {
		.id = l->node, .boot = l->boot, .epoch = l->epoch};

	servers_on_leaving(r, l);
	if (l->wish == PEER_GIVES)
		member_on_leaving(r, &o);
}

static void say(struct ring *r)
{
	const struct group_status *s = &r->group_status;
	struct peer_leave l = {.node = r->config.id,
			       .number = r->leave.number,
			       .boot = r->config.boot,
			       .epoch = r->epoch,
			       .wish = must_end(r)     ? PEER_GIVES
				       : r->is_leaving ? PEER_LEAVES
						       : PEER_STAYS};
	const struct member *m;

	r->leave.at_ms = r->now_ms + REPEAT_MS;
	if (s->is_leader)
		take(r, &l);
	else if (s->has_leader && !ring_is_self(r, &s->leader))
		pass(r, &s->leader, &l);
	else if ((m = life_next_alive(r)) != NULL)
		pass(r, &m->id, &l);
	else
		return;
	r->leave.n_stays -= r->leave.n_stays > 0;
}

/* A member that does not lead passes it on, once. */
void leave_on_leave(struct ring *r, struct reader *body,
		    const struct ring_id *from)
{
	const struct group_status *s = &r->group_status;
	struct peer_leave l;

	if (peer_get_leave(body, &l) != 0 || ring_is_self(r, &l.node) ||
	    (l.hops == 0 && !ring_same(&l.node, from)))
		return;
	if (s->is_leader) {
		take(r, &l);
	} else if (l.hops == 0 && s->has_leader &&
		   !ring_is_self(r, &s->leader)) {
		l.hops = 1;
		pass(r, &s->leader, &l);
	}
}

/* ---- Running ---- */

void leave_run(struct ring *r)
{
	if (r->is_leaving && !r->has_left && is_last(r))
		leave_last(r);
	if (r->is_leaving && r->leave.is_forced && !r->has_left &&
	    r->now_ms >= r->leave.since_ms + FORCE_MS)
		go_unconfirmed(r);
	if (must_say(r) && r->now_ms >= r->leave.at_ms)
		say(r);
}

uint64_t leave_next_ms(const struct ring *r)
{
	return must_say(r) ? r->leave.at_ms : UINT64_MAX;
}

/* ---- The public calls ---- */

int ring_leave(struct ring *r, uint64_t now_ms, bool force)
{
	r->now_ms = now_ms;
	r->is_stirred = true;
	if (r->has_left)
		return 0;
	if (!force && !r->is_given && is_last(r) && would_lose(r))
		return -EBUSY;
	if (force && !r->leave.is_forced)
		r->leave.since_ms = now_ms;
	r->leave.is_forced |= force;
	if (r->is_leaving)
		return 0;
	r->is_leaving = true;
	r->leave.is_over = false;
	r->leave.why[0] = '\0';
	r->leave.number = now_ms;
	r->leave.at_ms = r->share_at_ms = 0;
	tell(r);
	return 0;
}

int ring_stay(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	if (r->has_left)
		return -EBUSY;
	r->leave.why[0] = '\0';
	if (r->is_leaving)
		stay(r);
	return 0;
}
