/* SPDX-License-Identifier: MIT */
/* Who may act, and who may be declared down: leases by two clocks, and proof.
 *
 * Gray, Cheriton, "Leases" (SOSP 1989); the confirmation round is the read
 * index of Ongaro's dissertation, 6.4, with a nonce. A node shows what it holds
 * only inside its lease. It counts from the moment it sent the renewal that was
 * granted; the leader counts from the moment it received it, plus a margin for
 * the clocks' drift. So whatever is lost, late, stopped or suspended, a node's
 * own count ends before the leader's.
 *
 * The core is a function of (state, time, message) for one node in all its
 * parts. The numbers are the sequences that a rule closes (holes.md):
 *
 *	lease.c         what the node knows: nodes, leader, obituaries kept (13)
 *	lease_node.c    the holder: renews each lease/4, itself or by a relay (7);
 *	                the voter: confirms the term that its disk has (2)
 *	lease_leader.c  the leader: grants after a round that began after the
 *	                renewal came (2), by its own machine (1, 3); decides downs
 *	lease_wire.c    the bytes
 *
 * It knows nothing of keys, of raft's messages, of sockets or of sealing. What
 * it is told of raft must be told before the next message is passed: a term
 * that is believed too long is a lease too many.
 *
 * Time is CLOCK_BOOTTIME in milliseconds, read for the call, not before: a
 * suspended or stopped node must find its lease out. Private to ring/.
 * Thread: loop. */
#ifndef RING_LEASE_H
#define RING_LEASE_H

#include "ring/buf.h"
#include "ring/ring.h"

#define LEASE_MS_MAX	3600000 /* a grant for longer is malformed */
#define LEASE_OBITS_MAX 4096	/* obituaries kept */

struct lease;

/* A node's life, as an entry that was applied here brought it up. */
struct lease_life {
	struct ring_id id;
	struct ring_id life; /* random, tells copies of a state apart (12) */
	uint64_t boot;
	uint64_t epoch;	   /* index of that entry */
	uint32_t grace_ms; /* from a sign of its death to its down, at least */
	/* The machine's boot_id and the address, or a hash of both. A newer
	 * boot is proof of the older one's end only with the same host (12).
	 * All zero: unknown, like no other. */
	uint8_t host[RING_HOST_SIZE];
};

struct lease_config {
	struct ring_id id, life; /* this node's, and its present life's */
	uint64_t boot;
};

/* ---- What it asks for ---- */

/* A message to a node. Its bytes are out->bytes.base + at. */
struct lease_send {
	struct ring_id to; /* never this node */
	size_t at, len;
};

enum lease_cause {
	LEASE_PROOF,  /* an obituary */
	LEASE_DEAD,   /* SWIM says dead, and the lease is out */
	LEASE_SILENT, /* the lease has been out for ten leases (7) */
};

/* A life to be declared down, in an entry of this leader, without calm. */
struct lease_down {
	struct ring_id id;
	uint64_t boot, epoch;
	enum lease_cause cause;
};

/* Filled by the core, emptied by lease_out_clear(). The order of work is: hand
 * over the obituary, then send; when handing over fails, send nothing (11). */
struct lease_out {
	struct buf obituary; /* if not empty: to be sealed for the herald, in
			      * place of the one before */
	struct lease_send *sends;
	size_t n_sends, cap_sends;
	struct buf bytes;
	struct lease_down *downs; /* to propose; else lease_entry_void() */
	size_t n_downs, cap_downs;
	bool is_changed;  /* lease_is_held() became another, for now */
	bool leader_died; /* there is proof that the raft leader is gone (19) */
	uint64_t wake_ms; /* call lease_tick() then, or earlier */
};

void lease_out_clear(struct lease_out *out);
void lease_out_finish(struct lease_out *out);

/* ---- Life ---- */

/* Make a node that holds nothing. Never NULL. config is copied. */
struct lease *lease_create(const struct lease_config *config);
void lease_destroy(struct lease *l);

/* The cluster's lease is known: 1 to LEASE_MS_MAX. Nothing happens before. Once
 * told it never changes (5). */
void lease_set_duration(struct lease *l, uint32_t lease_ms);

/* ---- What it is told ---- */

/* Each adds to out, whose wake_ms it sets anew. */

void lease_tick(struct lease *l, uint64_t now_ms, struct lease_out *out);

/* Entries that were applied here: a life is up, or what was up is so no more.
 * Also for what a store was loaded with. */
void lease_on_up(struct lease *l, uint64_t now_ms,
		 const struct lease_life *life, struct lease_out *out);
void lease_on_down(struct lease *l, uint64_t now_ms, const struct ring_id *id,
		   struct lease_out *out);

/* SWIM's word of a node: dead (or left), or not. Unsaid is not dead. */
void lease_on_swim(struct lease *l, uint64_t now_ms, const struct ring_id *id,
		   bool is_dead, struct lease_out *out);

struct lease_voter {
	struct ring_id id;
	uint64_t server; /* the raft id, made and kept with its log (21) */
};

/* The raft server of this node, as it is at this moment. */
struct lease_raft {
	uint64_t term;
	uint64_t durable_term; /* on disk; it lags while a new one is written */
	uint64_t server;       /* this node's raft id */
	bool is_leader;
	bool is_ready; /* a barrier of this term was applied here (3) */
	bool is_mute;  /* the disk fails: no votes, no renewals, and no leading
			* either, though it may be the leader again */
	struct ring_id leader; /* all zero: unknown */
	/* The newest configuration, committed or not. Borrowed for the call. */
	const struct lease_voter *voters;
	size_t n_voters;
};

/* Raft has another term, leader or configuration, or its disk is further. Call
 * it before any message is passed that came after the change. */
void lease_set_raft(struct lease *l, uint64_t now_ms,
		    const struct lease_raft *raft, struct lease_out *out);

struct lease_msg {
	/* Who sent it, proven by its stream. NULL: unknown, as with the word of
	 * a herald; then only an obituary is taken. Borrowed, as the bytes. */
	const struct ring_id *from;
	const void *bytes;
	size_t len;
};

/* A message came. A sealed obituary is opened first.
 *
 * 0: it was taken. A herald is answered then, and only then.
 * -EBADMSG  malformed, or not from whom it says; nothing happened
 * -ENOSPC   LEASE_OBITS_MAX obituaries wait for a leader */
int lease_recv(struct lease *l, uint64_t now_ms, const struct lease_msg *msg,
	       struct lease_out *out);

/* ---- What the leader asks before it proposes ----
 *
 * From 0 on, and from a down in out->downs, that node is granted nothing, and
 * nothing else is proposed for it, until the entry's fate is known: it is
 * applied (lease_on_up, lease_on_down), it has no effect (lease_entry_void), or
 * another term begins. */

/* A node asks to come up in next (its epoch is ignored): may that be proposed?
 * The entry also ends the life that is up now, if there is one. So this needs
 * what a down needs: proof, which a newer boot on the same host is (12), or the
 * lease out.
 *
 * 0; -EAGAIN: not yet, or not the leader; ask again. -EALREADY: it is up in
 * just that life. -ESTALE: the boot is not above the known one's, so the state
 * is copied or restored. */
int lease_may_come_up(struct lease *l, uint64_t now_ms,
		      const struct lease_life *next);

/* A node asks for its own down. 0; -EAGAIN as above; -ESTALE: that life is not
 * up. */
int lease_may_leave(struct lease *l, uint64_t now_ms, const struct ring_id *id,
		    uint64_t boot, uint64_t epoch);

/* The entry that was let pass for id was not appended to the log, or its answer
 * is a refusal. A down is asked for again, soon. Not for an entry that may
 * still be committed. */
void lease_entry_void(struct lease *l, uint64_t now_ms,
		      const struct ring_id *id);

/* ---- What one can ask ---- */

/* May this node show and change what it holds, at this instant? Exact at any
 * time, whether or not a tick has been. */
bool lease_is_held(const struct lease *l, uint64_t now_ms);

/* Why the last renewal was refused, for status; 0: it was not. */
enum lease_why {
	LEASE_NOT_UP = 1, /* that life is not up in the leader's machine */
	LEASE_ENDING,	  /* its end is proposed */
	LEASE_N_WHY
};
enum lease_why lease_refused(const struct lease *l);

/* By two clocks (raft.md 6.6): the time from which whoever renewed, and was
 * last received at received_ms, can hold nothing more, if a leader counts since
 * since_ms (its own barrier, for elections). Nothing else shortens it: not a
 * death, not a proof (26). ttl_ms at most 2^32. */
uint64_t lease_out_ms(uint64_t received_ms, uint64_t since_ms, uint64_t ttl_ms);

#endif
