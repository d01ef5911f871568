/* SPDX-License-Identifier: MIT */
/* What a node knows, and the ways in: each call notes the time, changes what it
 * was told, and then does whatever is due. */
#include "ring/lease.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "ring/lease_impl.h"
#include "ring/mem.h"

#define UNKNOWN_MS 60000 /* an obituary of a life not seen here is kept */

const struct ring_id lease_nobody;

static bool same_id(const struct ring_id *a, const struct ring_id *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

bool lease_is_self(const struct lease *l, const struct ring_id *id)
{
	return same_id(&l->config.id, id);
}

bool lease_knows_leader(const struct lease *l)
{
	return !same_id(&l->raft.leader, &lease_nobody);
}

/* ---- Out ---- */

static void *grown(void *base, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return base;
	*cap = *cap ? 2 * *cap : 8;
	return xrealloc(base, *cap * size);
}

void lease_out_clear(struct lease_out *out)
{
	out->obituary.len = 0;
	out->bytes.len = 0;
	out->n_sends = 0;
	out->n_downs = 0;
	out->is_changed = false;
	out->leader_died = false;
}

void lease_out_finish(struct lease_out *out)
{
	free(out->obituary.base);
	free(out->bytes.base);
	free(out->sends);
	free(out->downs);
	*out = (struct lease_out){0};
}

void lease_down_push(struct lease_out *out, const struct lease_down *down)
{
	out->downs = grown(out->downs, out->n_downs, &out->cap_downs,
			   sizeof(*out->downs));
	out->downs[out->n_downs++] = *down;
}

/* ---- Nodes ---- */

/* The place of id, or where it would be. */
static size_t row_place(const struct lease *l, const struct ring_id *id)
{
	size_t low = 0, high = l->n_rows;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (memcmp(&l->rows[mid]->life.id, id, sizeof(*id)) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct row *lease_row(const struct lease *l, const struct ring_id *id)
{
	size_t at = row_place(l, id);

	return at < l->n_rows && same_id(&l->rows[at]->life.id, id)
		       ? l->rows[at]
		       : NULL;
}

struct row *lease_row_make(struct lease *l, const struct ring_id *id)
{
	struct row *row = lease_row(l, id);
	size_t at = row_place(l, id);

	if (row != NULL)
		return row;
	row = xcalloc(1, sizeof(*row));
	row->life.id = *id;
	l->rows = grown(l->rows, l->n_rows, &l->cap_rows, sizeof(*l->rows));
	memmove(&l->rows[at + 1], &l->rows[at],
		(l->n_rows - at) * sizeof(*l->rows));
	l->rows[at] = row;
	l->n_rows++;
	return row;
}

/* ---- Messages ---- */

static void take(struct lease *l, const struct ring_id *from,
		 const struct lease_packet *p);

/* To this node itself: at once, without a message. */
void lease_send(struct lease *l, const struct ring_id *to,
		const struct lease_packet *packet)
{
	struct lease_out *out = l->out;
	size_t at = out->bytes.len;

	if (lease_is_self(l, to)) {
		take(l, to, packet);
		return;
	}
	lease_encode(&out->bytes, packet);
	out->sends = grown(out->sends, out->n_sends, &out->cap_sends,
			   sizeof(*out->sends));
	out->sends[out->n_sends++] =
		(struct lease_send){*to, at, out->bytes.len - at};
}

/* A relay passes on once what is not for itself (7). */
static void relay(struct lease *l, const struct ring_id *from,
		  const struct ring_id *to, const struct lease_packet *p)
{
	struct lease_packet on = *p;

	if (p->hops > 0 || same_id(to, from) || same_id(to, &lease_nobody))
		return;
	on.hops = 1;
	lease_send(l, to, &on);
}

/* ---- Obituaries (13) ---- */

/* The machine knows that this life is over. */
static bool is_settled(const struct lease *l, const struct obit *obit)
{
	const struct row *row = lease_row(l, &obit->id);

	if (row == NULL)
		return false;
	if (row->life.epoch != obit->epoch)
		return row->life.epoch > obit->epoch;
	return !row->is_up || row->life.boot != obit->boot;
}

static bool is_unknown(const struct lease *l, const struct obit *obit)
{
	const struct row *row = lease_row(l, &obit->id);

	return row == NULL || row->life.epoch < obit->epoch;
}

/* Each of them goes to a leader again when one has not done its duty, until the
 * down is applied here. */
static void obits_run(struct lease *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n_obits; i++) {
		struct obit *o = &l->obits[i];

		if (is_settled(l, o) ||
		    (is_unknown(l, o) && l->now_ms - o->came_ms >= UNKNOWN_MS))
			continue;
		if (l->now_ms >= o->next_ms && lease_knows_leader(l) &&
		    !lease_is_self(l, &l->raft.leader)) {
			struct lease_packet p = {.kind = LEASE_OBITUARY,
						 .id = o->id,
						 .boot = o->boot,
						 .epoch = o->epoch,
						 .number = o->number};

			lease_send(l, &l->raft.leader, &p);
			o->next_ms = l->now_ms + l->lease_ms / 4;
		}
		l->obits[n++] = *o;
	}
	l->n_obits = n;
}

static uint64_t obits_next_ms(const struct lease *l)
{
	uint64_t next = UINT64_MAX;

	if (!lease_knows_leader(l) || lease_is_self(l, &l->raft.leader))
		return next;
	for (size_t i = 0; i < l->n_obits; i++)
		if (l->obits[i].next_ms < next)
			next = l->obits[i].next_ms;
	return next;
}

static struct obit *obit_find(struct lease *l, const struct obit *like)
{
	for (size_t i = 0; i < l->n_obits; i++)
		if (same_id(&l->obits[i].id, &like->id) &&
		    l->obits[i].boot == like->boot &&
		    l->obits[i].epoch == like->epoch)
			return &l->obits[i];
	return NULL;
}

/* Is it the leader's end? Then its voters need not wait to miss it (19). */
static bool is_of_leader(const struct lease *l, const struct obit *o)
{
	const struct row *row = lease_row(l, &o->id);

	return lease_knows_leader(l) && same_id(&o->id, &l->raft.leader) &&
	       row != NULL && row->is_up && row->life.boot == o->boot &&
	       row->life.epoch == o->epoch;
}

static int take_obit(struct lease *l, const struct lease_packet *p)
{
	struct obit obit = {.id = p->id,
			    .boot = p->boot,
			    .epoch = p->epoch,
			    .number = p->number,
			    .came_ms = l->now_ms,
			    .next_ms = l->now_ms};
	struct obit *kept = obit_find(l, &obit);

	/* This very process: an old herald is wrong about it (10). */
	if (lease_is_self(l, &p->id) && p->boot == l->config.boot)
		return 0;
	if (is_settled(l, &obit))
		return 0;
	if (kept == NULL) {
		if (l->n_obits >= LEASE_OBITS_MAX)
			return -ENOSPC;
		l->obits = grown(l->obits, l->n_obits, &l->cap_obits,
				 sizeof(*l->obits));
		l->obits[l->n_obits++] = obit;
		l->out->leader_died |= is_of_leader(l, &obit);
	} else if (kept->number < obit.number) {
		kept->number = obit.number;
		kept->next_ms = l->now_ms;
	}
	leader_on_obit(l, &obit);
	return 0;
}

/* ---- Every call ---- */

/* Callers may have read the clock at different moments of one turn; the latest
 * of them has come. */
void lease_note_time(struct lease *l, uint64_t now_ms)
{
	if (now_ms > l->now_ms)
		l->now_ms = now_ms;
}

static void begin(struct lease *l, uint64_t now_ms, struct lease_out *out)
{
	lease_note_time(l, now_ms);
	l->out = out;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What is due. A renewal that needs nobody else (a sole voter's) comes before
 * the lease's end is told. */
static void run(struct lease *l)
{
	struct lease_out *out = l->out;

	out->wake_ms = UINT64_MAX;
	if (l->lease_ms == 0)
		return;
	node_renew(l);
	leader_run(l);
	node_expire(l);
	obits_run(l);
	out->wake_ms = least(least(node_next_ms(l), leader_next_ms(l)),
			     obits_next_ms(l));
}

/* ---- Life ---- */

struct lease *lease_create(const struct lease_config *config)
{
	struct lease *l = xcalloc(1, sizeof(*l));

	l->config = *config;
	return l;
}

void lease_destroy(struct lease *l)
{
	if (l == NULL)
		return;
	for (size_t i = 0; i < l->n_rows; i++)
		free(l->rows[i]);
	free(l->rows);
	free(l->obits);
	free(l->voters);
	free(l);
}

void lease_set_duration(struct lease *l, uint32_t lease_ms)
{
	assert(lease_ms > 0 && lease_ms <= LEASE_MS_MAX);
	assert(l->lease_ms == 0 || l->lease_ms == lease_ms);
	l->lease_ms = lease_ms;
}

/* ---- What it is told ---- */

void lease_tick(struct lease *l, uint64_t now_ms, struct lease_out *out)
{
	begin(l, now_ms, out);
	run(l);
}

static void on_own_life(struct lease *l, const struct lease_life *life)
{
	bool is_mine = life->boot == l->config.boot &&
		       same_id(&life->life, &l->config.life);

	l->epoch = is_mine ? life->epoch : 0;
	l->renew_ms = l->now_ms;
}

void lease_on_up(struct lease *l, uint64_t now_ms,
		 const struct lease_life *life, struct lease_out *out)
{
	struct row *row;

	assert(life->epoch > 0);
	begin(l, now_ms, out);
	row = lease_row_make(l, &life->id);
	if (!row->is_up || row->life.epoch != life->epoch) {
		assert(life->epoch > row->life.epoch);
		leader_forget(l, row);
		row->life = *life;
		row->is_up = true;
		row->base_ms = row->heard_ms = l->now_ms;
		if (lease_is_self(l, &life->id))
			on_own_life(l, life);
		for (size_t i = 0; i < l->n_obits; i++)
			if (same_id(&l->obits[i].id, &life->id))
				leader_on_obit(l, &l->obits[i]);
		leader_on_sign(l, row);
	}
	run(l);
}

void lease_on_down(struct lease *l, uint64_t now_ms, const struct ring_id *id,
		   struct lease_out *out)
{
	struct row *row;

	begin(l, now_ms, out);
	row = lease_row(l, id);
	if (row != NULL && row->is_up) {
		leader_forget(l, row);
		row->is_up = false;
		if (lease_is_self(l, id))
			l->epoch = 0;
	}
	run(l);
}

void lease_on_swim(struct lease *l, uint64_t now_ms, const struct ring_id *id,
		   bool is_dead, struct lease_out *out)
{
	struct row *row;

	begin(l, now_ms, out);
	row = lease_row_make(l, id);
	if (row->is_dead != is_dead) {
		row->is_dead = is_dead;
		row->dead_ms = l->now_ms;
		leader_on_sign(l, row);
	}
	run(l);
}

/* Servers that stay keep what they confirmed. */
static void set_voters(struct lease *l, const struct lease_raft *raft)
{
	struct voter *voters = xcalloc(raft->n_voters + 1, sizeof(*voters));

	for (size_t i = 0; i < raft->n_voters; i++) {
		voters[i].is = raft->voters[i];
		for (size_t j = 0; j < l->n_voters; j++)
			if (l->voters[j].is.server == voters[i].is.server &&
			    same_id(&l->voters[j].is.id, &voters[i].is.id))
				voters[i].nonce = l->voters[j].nonce;
	}
	free(l->voters);
	l->voters = voters;
	l->n_voters = raft->n_voters;
}

void lease_set_raft(struct lease *l, uint64_t now_ms,
		    const struct lease_raft *raft, struct lease_out *out)
{
	struct lease_raft was = l->raft;
	bool is_same_term = raft->term == was.term;

	assert(raft->term >= was.term);
	assert(raft->durable_term <= raft->term);
	assert(!raft->is_ready || raft->is_leader);
	begin(l, now_ms, out);
	set_voters(l, raft);
	l->raft = *raft;
	l->raft.voters = NULL;
	l->raft.is_leader = raft->is_leader && !raft->is_mute;
	l->raft.is_ready = raft->is_ready && !raft->is_mute;
	if (!is_same_term)
		leader_end_term(l);
	else if (!l->raft.is_leader)
		leader_pause(l);
	if (l->raft.is_leader && (!was.is_leader || !is_same_term))
		leader_begin(l);
	if (l->raft.is_ready && !was.is_ready)
		l->check_ms = l->now_ms;
	if (!same_id(&raft->leader, &was.leader) || !is_same_term) {
		l->renew_ms = l->now_ms;
		for (size_t i = 0; i < l->n_obits; i++)
			l->obits[i].next_ms = l->now_ms;
	}
	run(l);
}

/* A message, from another node or from this one. */
static void take(struct lease *l, const struct ring_id *from,
		 const struct lease_packet *p)
{
	switch (p->kind) {
	case LEASE_RENEWAL:
		if (l->raft.is_leader)
			leader_on_renewal(l, from, p);
		else
			relay(l, from, &l->raft.leader, p);
		break;
	case LEASE_GRANT:
	case LEASE_REFUSAL:
		if (!lease_is_self(l, &p->id))
			relay(l, from, &p->id, p);
		else if (p->kind == LEASE_GRANT)
			node_on_grant(l, p);
		else
			node_on_refusal(l, p);
		break;
	case LEASE_CONFIRM:
		node_on_confirm(l, from, p);
		break;
	case LEASE_CONFIRMED:
		leader_on_confirmed(l, from, p);
		break;
	case LEASE_OBITUARY: /* by take_obit() */
	case LEASE_N_KINDS:
		break;
	}
}

int lease_recv(struct lease *l, uint64_t now_ms, const struct lease_msg *msg,
	       struct lease_out *out)
{
	struct lease_packet p;
	int rc = lease_decode(msg->bytes, msg->len, &p);

	begin(l, now_ms, out);
	if (rc == 0 && p.kind != LEASE_OBITUARY &&
	    (msg->from == NULL || lease_is_self(l, msg->from)))
		rc = -EBADMSG;
	if (rc == 0 && p.kind == LEASE_RENEWAL && p.hops == 0 &&
	    !same_id(msg->from, &p.id))
		rc = -EBADMSG;
	if (rc == 0 && p.kind == LEASE_OBITUARY)
		rc = take_obit(l, &p);
	else if (rc == 0)
		take(l, msg->from, &p);
	run(l);
	return rc;
}

/* ---- What one can ask ---- */

bool lease_is_held(const struct lease *l, uint64_t now_ms)
{
	return l->epoch != 0 && l->held_epoch == l->epoch &&
	       now_ms < l->held_until_ms;
}

enum lease_why lease_refused(const struct lease *l)
{
	return l->why;
}
