/* SPDX-License-Identifier: MIT */
/* The inside of struct lease, shared by lease*.c. */
#ifndef RING_LEASE_IMPL_H
#define RING_LEASE_IMPL_H

#include "ring/lease.h"

/* ---- lease_wire.c ---- */

enum lease_kind {
	LEASE_RENEWAL = 1,
	LEASE_GRANT,
	LEASE_REFUSAL,
	LEASE_CONFIRM,
	LEASE_CONFIRMED,
	LEASE_OBITUARY,
	LEASE_N_KINDS
};

/* Of each kind, those that it has on the wire. */
struct lease_packet {
	enum lease_kind kind;
	uint8_t hops; /* 1: a relay has passed it on, nobody will again */
	uint8_t why;  /* enum lease_why */
	struct ring_id id;
	uint64_t boot, epoch, number;
	uint32_t duration_ms;
	uint64_t term, nonce, server;
};

void lease_encode(struct buf *b, const struct lease_packet *packet);
int lease_decode(const void *bytes, size_t len, struct lease_packet *out);

/* ---- What is known of a node ---- */

/* A renewal that waits for its round. */
struct waiting {
	uint64_t number, received_ms;
	uint64_t after; /* it is granted by a round with a nonce above this */
	struct ring_id via; /* where the answer goes */
};

#define WAITING_MAX 4 /* a renewal, and its copies by relays */

struct row {
	struct lease_life life; /* epoch 0: only SWIM knows of it */
	bool is_up;
	bool is_dead; /* SWIM */
	uint64_t dead_ms;

	/* While this node leads, of this term. */
	bool is_changing; /* an up or a down for it is on its way */
	bool has_proof;
	uint64_t proof_ms, proof_number;
	uint64_t base_ms;  /* received, of what was granted last; or came up */
	uint64_t heard_ms; /* the last renewal that could be granted */
	uint64_t number;   /* the highest heard in this life */
	struct waiting waiting[WAITING_MAX];
	unsigned n_waiting;
};

struct obit {
	struct ring_id id;
	uint64_t boot, epoch, number;
	uint64_t came_ms, next_ms;
};

struct voter {
	struct lease_voter is;
	uint64_t nonce; /* the last round it confirmed */
};

#define SENT_MAX 32 /* a power of two; more than are sent in a lease */

struct lease {
	struct lease_config config;
	uint32_t lease_ms; /* 0: unknown yet */
	struct row **rows; /* by id */
	size_t n_rows, cap_rows;
	struct obit *obits;
	size_t n_obits, cap_obits;

	/* Of the call under way. */
	uint64_t now_ms;
	struct lease_out *out;

	/* Raft. */
	struct lease_raft raft; /* its voters are not used */
	struct voter *voters;
	size_t n_voters;

	/* The holder. */
	uint64_t epoch;		    /* in which this life is up; 0: it is not */
	uint64_t number;	    /* of the last renewal sent */
	uint64_t sent_ms[SENT_MAX]; /* by number */
	uint64_t held_epoch, held_until_ms;  /* the lease */
	uint64_t renew_ms, renewed, granted; /* next time; numbers */
	unsigned n_missed;		     /* periods without a grant */
	size_t relay;			     /* the row that was asked last */
	enum lease_why why;
	bool was_held; /* as told by is_changed */

	/* The leader. */
	uint64_t since_ms; /* it counts from here */
	uint64_t seen_ms;  /* the last call */
	uint64_t nonce, round_ms;
	size_t n_waiting;  /* in all rows */
	uint64_t check_ms; /* no down is due before */
};

/* lease.c */
extern const struct ring_id lease_nobody;
void lease_note_time(struct lease *l, uint64_t now_ms);
bool lease_is_self(const struct lease *l, const struct ring_id *id);
bool lease_knows_leader(const struct lease *l);
struct row *lease_row(const struct lease *l, const struct ring_id *id);
struct row *lease_row_make(struct lease *l, const struct ring_id *id);
void lease_down_push(struct lease_out *out, const struct lease_down *down);
void lease_send(struct lease *l, const struct ring_id *to,
		const struct lease_packet *packet);

/* lease_node.c */
void node_renew(struct lease *l);
void node_expire(struct lease *l);
uint64_t node_next_ms(const struct lease *l);
void node_on_grant(struct lease *l, const struct lease_packet *p);
void node_on_refusal(struct lease *l, const struct lease_packet *p);
void node_on_confirm(struct lease *l, const struct ring_id *from,
		     const struct lease_packet *p);

/* lease_leader.c */
void leader_begin(struct lease *l);
void leader_end_term(struct lease *l);
void leader_pause(struct lease *l);
void leader_run(struct lease *l);
uint64_t leader_next_ms(const struct lease *l);
void leader_on_renewal(struct lease *l, const struct ring_id *via,
		       const struct lease_packet *p);
void leader_on_confirmed(struct lease *l, const struct ring_id *from,
			 const struct lease_packet *p);
void leader_on_obit(struct lease *l, const struct obit *obit);
void leader_on_sign(struct lease *l, const struct row *row);
void leader_forget(struct lease *l, struct row *row); /* of a life */

#endif
