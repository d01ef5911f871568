/* SPDX-License-Identifier: MIT */
/* The holder's and the voter's side of the leases.
 *
 * A renewal goes to the leader each lease/4. When a period passed without a
 * grant, copies go by relays as well, each with a number of its own: so each
 * answer comes back the way its renewal went, and a way that works only in one
 * direction costs nothing (7). */
#include "ring/lease_impl.h"

#include <string.h>

#define RELAYS_MAX 3

/* ---- Renewing ---- */

/* The obituary for a number is out before anything that bears the number. The
 * leader's own renewal is received in this same call, before the hand-over; but
 * whoever else could know its number would have had to be sent something. */
static void hand_over(struct lease *l, const struct lease_packet *renewal)
{
	struct lease_packet obituary = *renewal;

	obituary.kind = LEASE_OBITUARY;
	l->out->obituary.len = 0;
	lease_encode(&l->out->obituary, &obituary);
}

static void renew_by(struct lease *l, const struct ring_id *to)
{
	struct lease_packet p = {.kind = LEASE_RENEWAL,
				 .id = l->config.id,
				 .boot = l->config.boot,
				 .epoch = l->epoch,
				 .number = ++l->number};

	l->sent_ms[p.number % SENT_MAX] = l->now_ms;
	hand_over(l, &p);
	lease_send(l, to, &p);
}

/* The next node in turn that may reach the leader for us, or NULL. */
static const struct ring_id *next_relay(struct lease *l)
{
	for (size_t i = 0; i < l->n_rows; i++) {
		l->relay = (l->relay + 1) % l->n_rows;

		const struct row *row = l->rows[l->relay];

		if (row->is_up && !row->is_dead &&
		    !lease_is_self(l, &row->life.id) &&
		    memcmp(&row->life.id, &l->raft.leader,
			   sizeof(row->life.id)) != 0)
			return &row->life.id;
	}
	return NULL;
}

static bool may_renew(const struct lease *l)
{
	return l->epoch != 0 && !l->raft.is_mute;
}

static void renew_by_relays(struct lease *l, unsigned n)
{
	const struct ring_id *first = NULL;

	for (; n > 0; n--) {
		const struct ring_id *to = next_relay(l);

		if (to == NULL || to == first)
			break;
		if (first == NULL)
			first = to;
		renew_by(l, to);
	}
}

void node_renew(struct lease *l)
{
	if (!may_renew(l) || l->now_ms < l->renew_ms)
		return;
	if (l->renewed <= l->granted)
		l->n_missed = 0;
	else if (l->n_missed < RELAYS_MAX)
		l->n_missed++;
	l->renewed = l->number + 1;
	l->renew_ms = l->now_ms + (l->lease_ms + 3) / 4;
	if (lease_knows_leader(l)) {
		renew_by(l, &l->raft.leader);
		renew_by_relays(l, l->n_missed);
	} else {
		renew_by_relays(l, l->n_missed > 0 ? l->n_missed : 1);
	}
}

void node_expire(struct lease *l)
{
	bool is_held = lease_is_held(l, l->now_ms);

	if (is_held == l->was_held)
		return;
	l->was_held = is_held;
	l->out->is_changed = true;
}

uint64_t node_next_ms(const struct lease *l)
{
	uint64_t next = may_renew(l) ? l->renew_ms : UINT64_MAX;

	if (l->was_held && l->held_until_ms < next)
		next = l->held_until_ms;
	return next;
}

/* ---- Answers ---- */

/* When the renewal that p answers was sent, if it is one of this life. */
static bool is_mine(const struct lease *l, const struct lease_packet *p,
		    uint64_t *sent_ms)
{
	if (p->boot != l->config.boot || p->epoch != l->epoch ||
	    p->number > l->number || l->number - p->number >= SENT_MAX)
		return false;
	*sent_ms = l->sent_ms[p->number % SENT_MAX];
	return true;
}

void node_on_grant(struct lease *l, const struct lease_packet *p)
{
	uint64_t sent_ms;

	if (!is_mine(l, p, &sent_ms))
		return;
	if (l->held_epoch != p->epoch) {
		l->held_epoch = p->epoch;
		l->held_until_ms = 0;
	}
	if (sent_ms + p->duration_ms > l->held_until_ms)
		l->held_until_ms = sent_ms + p->duration_ms;
	if (p->number > l->granted)
		l->granted = p->number;
	l->why = 0;
}

void node_on_refusal(struct lease *l, const struct lease_packet *p)
{
	uint64_t sent_ms;

	if (is_mine(l, p, &sent_ms))
		l->why = (enum lease_why)p->why;
}

/* ---- The voter (2) ---- */

/* Yes, only while the disk says that this is the term, and no other is on its
 * way there: a vote for another leader would have been preceded by its term. */
void node_on_confirm(struct lease *l, const struct ring_id *from,
		     const struct lease_packet *p)
{
	struct lease_packet yes = {.kind = LEASE_CONFIRMED,
				   .term = p->term,
				   .nonce = p->nonce,
				   .server = l->raft.server};

	if (!l->raft.is_mute && p->term == l->raft.durable_term &&
	    p->term == l->raft.term)
		lease_send(l, from, &yes);
}
