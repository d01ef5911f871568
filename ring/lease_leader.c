/* SPDX-License-Identifier: MIT */
/* The leader's side of the leases: granting, and declaring down.
 *
 * Granting (2). A renewal that came notes the nonce of the last round begun; it
 * is granted when a majority of the voters has confirmed, in this term, a round
 * with a higher one. Nonces rise, so a voter's last answer stands for all
 * rounds before it, and several may be on their way: a far voter is no reason
 * to begin again. Why it is enough: a majority that confirmed after the renewal
 * came has a voter in common with every majority that has elected a later
 * leader, or commits a configuration after this one; that voter confirmed
 * before it took the later term. So each grant of an old leader is for a
 * renewal sent before the new one's election, and is out one lease (plus
 * margin) after it.
 *
 * Declaring down. Each time is counted from the later of: the receipt of what
 * was last granted, the entry that brought the node up, and the beginning of
 * this leader's count. That is its election, or the end of a stall of its own:
 * who has not listened must not conclude from silence. */
#include "ring/lease_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SILENT_LEASES  10 /* out for so many: down whatever SWIM says (7) */
#define ROUND_LEAST_MS 10 /* between rounds that were not answered */
#define AGAIN_MS       50 /* after the log has not taken a down */

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static bool may_act(const struct lease *l)
{
	return l->raft.is_leader && l->raft.is_ready && l->lease_ms > 0;
}

/* ---- Time ---- */

/* 10 % for two clocks of 200 ppm, and 1 ms for what both cut off below it. */
uint64_t lease_out_ms(uint64_t received_ms, uint64_t since_ms, uint64_t ttl_ms)
{
	return most(received_ms, since_ms) + ttl_ms + (ttl_ms + 9) / 10 + 1;
}

static uint64_t row_out_ms(const struct lease *l, const struct row *row)
{
	return lease_out_ms(row->base_ms, l->since_ms, l->lease_ms);
}

/* When row is to be declared down, as things stand; and why. */
static uint64_t due_ms(const struct lease *l, const struct row *row,
		       enum lease_cause *cause)
{
	uint64_t at = lease_out_ms(most(row->base_ms, row->heard_ms),
				   l->since_ms, l->lease_ms) +
		      (uint64_t)SILENT_LEASES * l->lease_ms;
	uint64_t dead =
		most(row_out_ms(l, row), row->dead_ms + row->life.grace_ms);

	*cause = LEASE_SILENT;
	if (row->is_dead && dead < at) {
		*cause = LEASE_DEAD;
		at = dead;
	}
	if (row->has_proof && row->proof_ms + row->life.grace_ms < at) {
		*cause = LEASE_PROOF;
		at = row->proof_ms + row->life.grace_ms;
	}
	return at;
}

/* ---- Granting ---- */

static void row_unwait(struct lease *l, struct row *row)
{
	l->n_waiting -= row->n_waiting;
	row->n_waiting = 0;
}

static void answer(struct lease *l, const struct row *row,
		   const struct waiting *w, enum lease_why why)
{
	struct lease_packet p = {.kind = why ? LEASE_REFUSAL : LEASE_GRANT,
				 .why = (uint8_t)why,
				 .id = row->life.id,
				 .boot = row->life.boot,
				 .epoch = row->life.epoch,
				 .number = w->number,
				 .duration_ms = l->lease_ms};

	lease_send(l, &w->via, &p);
}

/* The highest nonce that a majority has confirmed. */
static uint64_t agreed(const struct lease *l)
{
	uint64_t best = 0;

	for (size_t i = 0; i < l->n_voters; i++) {
		size_t n = 0;

		for (size_t j = 0; j < l->n_voters; j++)
			n += l->voters[j].nonce >= l->voters[i].nonce;
		if (2 * n > l->n_voters)
			best = most(best, l->voters[i].nonce);
	}
	return best;
}

static void grant_row(struct lease *l, struct row *row, uint64_t nonce)
{
	unsigned n = 0;

	assert(row->is_up && !row->is_changing);
	for (unsigned i = 0; i < row->n_waiting; i++) {
		const struct waiting w = row->waiting[i];

		if (w.after >= nonce) {
			row->waiting[n++] = w;
			continue;
		}
		row->base_ms = most(row->base_ms, w.received_ms);
		answer(l, row, &w, 0);
		l->n_waiting--;
	}
	row->n_waiting = n;
}

static void grant(struct lease *l)
{
	uint64_t nonce = agreed(l);

	for (size_t i = 0; i < l->n_rows && l->n_waiting > 0; i++)
		if (l->rows[i]->n_waiting > 0)
			grant_row(l, l->rows[i], nonce);
}

/* Is there a renewal that no round under way will grant? */
static bool wants_round(const struct lease *l)
{
	for (size_t i = 0; i < l->n_rows; i++)
		for (unsigned j = 0; j < l->rows[i]->n_waiting; j++)
			if (l->rows[i]->waiting[j].after == l->nonce)
				return true;
	return false;
}

static uint64_t round_again_ms(const struct lease *l)
{
	return l->round_ms + most(l->lease_ms / 8, ROUND_LEAST_MS);
}

static void begin_round(struct lease *l)
{
	struct lease_packet p = {.kind = LEASE_CONFIRM,
				 .term = l->raft.term,
				 .nonce = ++l->nonce};

	l->round_ms = l->now_ms;
	for (size_t i = 0; i < l->n_voters; i++)
		lease_send(l, &l->voters[i].is.id, &p);
}

/* One round serves all who wait; the next begins when it has been answered, or
 * seems lost. */
static void run_rounds(struct lease *l)
{
	if (l->n_waiting == 0)
		return;
	grant(l);
	if (l->n_waiting == 0)
		return;
	if ((wants_round(l) && agreed(l) == l->nonce) ||
	    l->now_ms >= round_again_ms(l)) {
		begin_round(l);
		grant(l); /* a sole voter has agreed already */
	}
}

static bool is_waiting(const struct row *row, uint64_t number)
{
	for (unsigned i = 0; i < row->n_waiting; i++)
		if (row->waiting[i].number == number)
			return true;
	return false;
}

/* Before the barrier too: it waits for that as well (3). When there is no room
 * the newest gives way, so that the oldest is granted some time. */
void leader_on_renewal(struct lease *l, const struct ring_id *via,
		       const struct lease_packet *p)
{
	struct waiting w = {.number = p->number,
			    .received_ms = l->now_ms,
			    .after = l->nonce,
			    .via = *via};
	struct row *row = lease_row(l, &p->id);
	struct row asked = {
		.life = {.id = p->id, .boot = p->boot, .epoch = p->epoch}};

	assert(l->raft.is_leader);
	if (row == NULL || !row->is_up || row->life.boot != p->boot ||
	    row->life.epoch != p->epoch) {
		answer(l, &asked, &w, LEASE_NOT_UP);
		return;
	}
	if (row->is_changing) {
		answer(l, row, &w, LEASE_ENDING);
		return;
	}
	if (is_waiting(row, p->number))
		return;
	row->heard_ms = l->now_ms;
	row->number = most(row->number, p->number);
	if (row->has_proof && p->number > row->proof_number)
		row->has_proof = false; /* of an old herald (10) */
	if (row->n_waiting == WAITING_MAX) {
		row->n_waiting--;
		l->n_waiting--;
	}
	row->waiting[row->n_waiting++] = w;
	l->n_waiting++;
}

void leader_on_confirmed(struct lease *l, const struct ring_id *from,
			 const struct lease_packet *p)
{
	if (!l->raft.is_leader || p->term != l->raft.term ||
	    p->nonce > l->nonce)
		return;
	for (size_t i = 0; i < l->n_voters; i++) {
		struct voter *v = &l->voters[i];

		if (v->is.server == p->server &&
		    memcmp(&v->is.id, from, sizeof(*from)) == 0)
			v->nonce = most(v->nonce, p->nonce);
	}
}

/* ---- Declaring down ---- */

static void decide(struct lease *l, struct row *row, enum lease_cause cause)
{
	const struct lease_down down = {.id = row->life.id,
					.boot = row->life.boot,
					.epoch = row->life.epoch,
					.cause = cause};

	row->is_changing = true;
	row_unwait(l, row);
	lease_down_push(l->out, &down);
}

static bool can_be_down(const struct lease *l, const struct row *row)
{
	return row->is_up && !row->is_changing &&
	       !lease_is_self(l, &row->life.id);
}

static void run_downs(struct lease *l)
{
	if (l->now_ms < l->check_ms)
		return;
	l->check_ms = UINT64_MAX;
	for (size_t i = 0; i < l->n_rows; i++) {
		struct row *row = l->rows[i];
		enum lease_cause cause;
		uint64_t at;

		if (!can_be_down(l, row))
			continue;
		at = due_ms(l, row, &cause);
		if (l->now_ms >= at)
			decide(l, row, cause);
		else if (at < l->check_ms)
			l->check_ms = at;
	}
}

/* Something happened that may make row's time come sooner. */
void leader_on_sign(struct lease *l, const struct row *row)
{
	enum lease_cause cause;
	uint64_t at;

	if (!l->raft.is_leader || !can_be_down(l, row))
		return;
	at = due_ms(l, row, &cause);
	if (at < l->check_ms)
		l->check_ms = at;
}

/* Proof for exactly this life (11), unless the node has been heard since: then
 * it is an old herald's, who saw the wrong end (10). */
void leader_on_obit(struct lease *l, const struct obit *obit)
{
	struct row *row = lease_row(l, &obit->id);

	if (!l->raft.is_leader || row == NULL || !row->is_up ||
	    row->life.boot != obit->boot || row->life.epoch != obit->epoch ||
	    obit->number < row->number || row->has_proof)
		return;
	row->has_proof = true;
	row->proof_ms = l->now_ms;
	row->proof_number = obit->number;
	leader_on_sign(l, row);
}

/* ---- Leading ---- */

void leader_forget(struct lease *l, struct row *row)
{
	row_unwait(l, row);
	row->is_changing = false;
	row->has_proof = false;
	row->number = 0;
}

/* What was proposed in a term may still be committed until its end, or be
 * inherited by the next leader: who grants nothing before its barrier. */
void leader_end_term(struct lease *l)
{
	for (size_t i = 0; i < l->n_rows; i++)
		leader_forget(l, l->rows[i]);
	assert(l->n_waiting == 0);
}

/* A leader whose disk stalls may be the same term's leader again. */
void leader_pause(struct lease *l)
{
	for (size_t i = 0; i < l->n_rows; i++)
		row_unwait(l, l->rows[i]);
}

/* Nonces go on from term to term, so that no answer of before is one to a round
 * to come. */
void leader_begin(struct lease *l)
{
	l->since_ms = l->seen_ms = l->now_ms;
	l->round_ms = 0;
	l->check_ms = UINT64_MAX;
	for (size_t i = 0; i < l->n_rows; i++)
		leader_on_sign(l, l->rows[i]);
	for (size_t i = 0; i < l->n_obits; i++)
		leader_on_obit(l, &l->obits[i]);
}

/* A leader that was stopped has not heard what was said meanwhile. */
static void note_stall(struct lease *l)
{
	if (l->now_ms - l->seen_ms > l->lease_ms / 2)
		l->since_ms = l->now_ms;
	l->seen_ms = l->now_ms;
}

void leader_run(struct lease *l)
{
	if (!l->raft.is_leader)
		return;
	note_stall(l);
	if (!may_act(l))
		return;
	run_downs(l);
	run_rounds(l);
}

uint64_t leader_next_ms(const struct lease *l)
{
	uint64_t next = l->seen_ms + (l->lease_ms + 3) / 4;

	if (!l->raft.is_leader)
		return UINT64_MAX;
	if (may_act(l) && l->check_ms < next)
		next = l->check_ms;
	if (may_act(l) && l->n_waiting > 0 && round_again_ms(l) < next)
		next = round_again_ms(l);
	return next;
}

/* ---- What is asked before it is proposed ---- */

static bool same_host(const struct lease_life *a, const struct lease_life *b)
{
	static const uint8_t unknown[RING_HOST_SIZE];

	return memcmp(a->host, b->host, RING_HOST_SIZE) == 0 &&
	       memcmp(a->host, unknown, RING_HOST_SIZE) != 0;
}

/* Nobody else can have granted anything to this node's own former life, whose
 * log this process has locked. */
static bool is_own_of_sole_voter(const struct lease *l, const struct row *row)
{
	return lease_is_self(l, &row->life.id) && l->n_voters == 1 &&
	       l->voters[0].is.server == l->raft.server;
}

/* May the life that is up in row be ended for next? */
static bool may_supersede(const struct lease *l, const struct row *row,
			  const struct lease_life *next)
{
	return !row->is_up || same_host(&row->life, next) || row->has_proof ||
	       is_own_of_sole_voter(l, row) || l->now_ms >= row_out_ms(l, row);
}

static void propose(struct lease *l, struct row *row)
{
	row_unwait(l, row);
	row->is_changing = true;
}

/* One entry at a time for each node, or the second would end a life that began
 * by the first, and was not looked at here. */
int lease_may_come_up(struct lease *l, uint64_t now_ms,
		      const struct lease_life *next)
{
	struct row *row;
	bool is_same;

	lease_note_time(l, now_ms);
	if (!may_act(l))
		return -EAGAIN;
	note_stall(l);
	row = lease_row_make(l, &next->id);
	if (row->is_changing)
		return -EAGAIN;
	is_same = row->life.boot == next->boot &&
		  memcmp(&row->life.life, &next->life, sizeof(next->life)) == 0;
	if (is_same && row->is_up)
		return -EALREADY;
	if (!is_same && row->life.epoch > 0 && next->boot <= row->life.boot)
		return -ESTALE;
	if (!may_supersede(l, row, next))
		return -EAGAIN;
	propose(l, row);
	return 0;
}

int lease_may_leave(struct lease *l, uint64_t now_ms, const struct ring_id *id,
		    uint64_t boot, uint64_t epoch)
{
	struct row *row = lease_row(l, id);

	lease_note_time(l, now_ms);
	if (!may_act(l))
		return -EAGAIN;
	if (row == NULL || !row->is_up || row->life.boot != boot ||
	    row->life.epoch != epoch)
		return -ESTALE;
	if (row->is_changing)
		return -EAGAIN;
	propose(l, row);
	return 0;
}

void lease_entry_void(struct lease *l, uint64_t now_ms,
		      const struct ring_id *id)
{
	struct row *row = lease_row(l, id);

	lease_note_time(l, now_ms);
	if (row == NULL || !row->is_changing)
		return;
	row->is_changing = false;
	if (l->now_ms + AGAIN_MS < l->check_ms)
		l->check_ms = l->now_ms + AGAIN_MS;
}
