/* SPDX-License-Identifier: MIT */
/* What everybody shall come to know: replicated records, by scuttlebutt
 * reconciliation. sb_ for short.
 *
 * Paper: van Renesse, Dumitriu, Gough, Thomas, "Efficient reconciliation and
 * flow control for anti-entropy protocols" (2008). The split into a core and
 * small classes is that of dominictarr's scuttlebutt; there a class supplies
 * history and apply. History is the same for all classes, so here the core keeps
 * it, and a class only judges: struct sb_class.
 *
 * A record is some bytes with a *source* and a *version*. A source is one life
 * of one member: 128-bit id and 64-bit life, drawn anew by every process. So a
 * source has one writer, ever; its versions are 1, 2, 3 ...; and "I have all of
 * this source up to v" never becomes untrue, whatever was lost with a disk,
 * copied, or restored: records that were told and then lost are got back from
 * the others like anybody's, and need not be on disk before they are told.
 *
 * Records die: a value is overwritten, an event falls out of its log. What is
 * dead is sent to nobody, so a source may have gaps; a delta says from which
 * version to which it speaks, and in between it is complete.
 *
 * A tombstone is a record that only says that something is gone. It is collected
 * when every member known has it, the dead included, until they are forgotten:
 * a *collection round* takes note of all maxima, waits until each member has
 * confirmed to have as much, and then drops the tombstones and raises the gc
 * version of their sources. Who comes back after he was forgotten, and has not
 * seen all up to a gc version, is *stale*: what he holds may have died without
 * his hearing of it. He finds that out himself, from the first digest he sees,
 * and *resets*: he walks through all sources from zero; what no peer confirms is
 * dropped, but for what his present life wrote; and again, until nothing more is
 * dropped. Until he is through he vouches for nothing but his own, confirms
 * nothing, and makes nobody stale: what he has walked he may have refused for what
 * he drops later. So what is dead does not come back through him (S1). If what he
 * dropped had replaced something of his present life, which others still have, he
 * begins a new one, and gets the former back as anybody's. If nobody has it, and
 * others still have what that had replaced in its turn, then theirs would stand
 * again, though dead: so he keeps what he would have dropped, as his own. It is
 * not dead: who ever had it would not have the older one (sb_outlives()).
 *
 * Versions only say what to send first. Whether two agree is said by two hashes,
 * of the versions and of the contents, order-free (D7). While they are equal, a
 * round costs one packet of SB_HEADER_BYTES, however many sources there are.
 * When the versions are equal and the contents are not, which takes a bug or a
 * lie, both walk through everything and keep the union. So nobody is made deaf
 * to a source for good, as the seed was by one forged version: lies cost
 * traffic. Of its own present life a member believes nobody: who says that it is
 * further than it is makes it begin a new one. (Who holds the cluster's key may
 * write, and so overwrite and delete, what he likes; that is not prevented.)
 *
 * What this cannot do (scuttlebutt_seed_test has each):
 * - Two sides that forgot each other, and both collected, are stale to each other.
 *   Then the word of the one that has collected more stands, as a whole. On the
 *   other side deletions since the cut are undone, if the value was older than the
 *   cut, and what lives that have ended wrote since is lost; what the present
 *   lives wrote is kept. stats.n_yielded counts it. No rule could tell better: of
 *   what was collected nobody knows any more that it was there.
 * - One alone who was forgotten loses, too, what a former life of his wrote and
 *   nobody had got.
 * - When all who could confirm are gone, those who wait for them give up after
 *   three times repair_us, and keep what they have: values deleted meanwhile may
 *   be among it. stats.n_given_up.
 * - Above sources_max sources of which something lives a new one is heard by
 *   nobody, until there is room; it keeps its records. stats.n_full.
 *
 * Convergence: of the same records a class keeps the same, in whatever order
 * they came. That is all a class has to see to.
 *
 *	scuttlebutt.c          life, sources, records, rounds, collection
 *	scuttlebutt_lives.c    the lives of which nothing lives
 *	scuttlebutt_take.c     records in: at rest, and in a walk
 *	scuttlebutt_talk.c     what is said, and what follows from it
 *	scuttlebutt_wire.c     the bytes
 *	model.c events.c traits.c    the classes; flow.c their writers' speed
 *
 * Sans-I/O: (state, now, message) -> struct sb_out. No clock, no socket. The
 * memory is bounded by sb_config. Thread: all on the loop. Private to gossip/.
 */
#ifndef GOSSIP_SCUTTLEBUTT_H
#define GOSSIP_SCUTTLEBUTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/flow.h"
#include "gossip/id.h"

#define SB_HEADER_BYTES 24
#define SB_BODY_MAX	(66u << 10) /* of one record: a value and its key */
#define SB_LIFE_MAX	(UINT64_MAX / 2) /* lives above are refused */
#define SB_STREAM_MIN	(SB_BODY_MAX + 256)

struct sb;

/* One life of one member. Listed in digests while it has records or gc > 0; the
 * others are remembered, so that nothing of them is applied twice. Of one member's
 * lives of which nothing but gc is left, the newest are listed, and the others
 * retired: see scuttlebutt_lives.c. */
struct sb_source {
	struct gossip_id id;
	uint64_t life;
	uint64_t max;	 /* we have all of it that lives, up to this version */
	uint64_t gc;	 /* the newest tombstone of it that was collected */
	uint64_t heard;	 /* we ever had, or were told to skip, up to here */
	uint64_t cursor; /* of a walk: gone through up to here */
	uint64_t
		gc_before; /* of a reset: to be taken back if it comes to naught */
	uint64_t snap;	   /* of a collection round; 0: without tombstones */
	uint64_t theirs; /* scratch: max in the digest at hand */
	uint64_t theirs_gc;
	uint32_t mark; /* scratch: the digest in which it was listed */
	uint32_t n_records, n_tombs;
	bool is_told; /* others list it, so we do, though nothing of it lives */
	bool is_retired;		/* gc is for ourselves only */
	struct sb_record *first, *last; /* by version */
};

struct sb_record {
	struct sb_source *source;
	struct sb_record *next, *prev; /* in its source */
	uint64_t version;
	uint32_t at; /* for the class */
	uint32_t len;
	bool is_tomb;
	bool is_heir;	/* it replaced what our present life wrote */
	bool is_proven; /* in a reset: a peer still has what is older */
	uint8_t body[]; /* the class's */
};

/* A kind of records. The functions must not write, nor call sb_recv(). */
struct sb_class {
	/* Judge r, which is linked into its source: true to keep it, and then
	 * to sb_drop() what it replaces; false if it is dead, or nonsense.
	 * Must not depend on the order of arrival.
	 *
	 * is_fresh  newer than all we ever had of its source: a class that
	 *           announces things does so once, and in order */
	bool (*apply)(void *user, struct sb_record *r, bool is_fresh);
	/* r, that was kept, goes. Not called for what apply refused. */
	void (*drop)(void *user, struct sb_record *r);
	/* A new life was begun, sb_own() has changed; may write. NULL: none. */
	void (*reborn)(void *user);
	uint8_t channel; /* of messages: others' are refused */
};

struct sb_config {
	uint32_t period_us; /* a round: compare with one member */
	uint32_t push_us;   /* at least this between pushes after changes */
	uint32_t answer_us; /* an answer is waited for so long */
	uint32_t repair_us; /* disagreement in spite of equal versions: so long
			     * until all is compared */
	uint32_t life_us;   /* at least this between new lives */
	uint32_t n_push;    /* members that are told of a change at once */
	uint32_t packet_bytes; /* of a datagram */
	uint32_t stream_bytes; /* of a message on a stream; >= SB_STREAM_MIN */
	uint32_t sources_max;
	uint32_t lives_max; /* of a member, listed for their gc alone */
	uint64_t bytes_max; /* of all records; own writes end at 3/4 of it */
	struct flow_config flow;
};

extern const struct sb_config sb_defaults;

/* A message to send: out->bytes + at. */
struct sb_send {
	struct gossip_id to;
	uint32_t at, len;
	bool on_stream; /* longer than a packet may be */
};

/* Filled by the core, emptied by the driver with sb_out_clear(). */
struct sb_out {
	struct sb_send *sends;
	size_t n_sends, cap_sends;
	uint8_t *bytes;
	size_t n_bytes, cap_bytes;
	uint64_t wake_us; /* call sb_tick() at this time, or earlier */
};

void sb_out_clear(struct sb_out *out);
void sb_out_finish(struct sb_out *out);

/* Make an instance with an empty own source. Never NULL.
 *
 * config  copied
 * class   borrowed; user is the first argument of its functions
 * id      this member; boot: of this process, above all former ones
 * seed    of all randomness, the life too: different in every process */
struct sb_self {
	struct gossip_id id;
	uint32_t boot;
	uint64_t seed;
};
struct sb *sb_create(const struct sb_config *config,
		     const struct sb_class *class, void *user,
		     const struct sb_self *self);
/* Releases the records without calling drop. NULL is nothing. */
void sb_destroy(struct sb *s);

/* ---- The world ---- */

void sb_tick(struct sb *s, uint64_t now_us, struct sb_out *out);

struct sb_msg {
	struct gossip_id from; /* the member, as its seal says */
	const uint8_t *bytes;  /* borrowed for the call */
	size_t len;
};
/* 0, or why it was dropped, with no effect: -EBADMSG; -EPROTONOSUPPORT, a
 * version we do not read; -ESTALE, an answer to what we no longer ask. */
int sb_recv(struct sb *s, uint64_t now_us, const struct sb_msg *msg,
	    struct sb_out *out);

/* Know a member: one that was not yet, or whose reachability changed. Rounds go
 * to the reachable; tombstones wait for all. */
void sb_member(struct sb *s, const struct gossip_id *id, bool is_reachable);
/* Wait for it no more. */
void sb_forget(struct sb *s, const struct gossip_id *id);

/* ---- Writing ---- */

/* Append a record to our own source and apply it; a class that would refuse it
 * must not ask (asserted). The body is copied.
 *
 * 0; -E2BIG, longer than SB_BODY_MAX; -ENOSPC. */
int sb_write(struct sb *s, const void *body, size_t len, bool is_tomb);
/* A write now is within our share of what gossip can carry (S5); else wait so
 * long. Writing nevertheless is allowed: everything just takes longer. */
uint64_t sb_wait_us(struct sb *s, uint64_t now_us);
/* For a class's functions, and for what it knows to be dead otherwise. */
void sb_drop(struct sb *s, struct sb_record *r);
/* For a class's apply: what it is about to refuse is older than r, that stands
 * in its place. A peer that had ever had r would not tell of it. */
void sb_outlives(const struct sb *s, struct sb_record *r);

/* ---- Asking ---- */

const struct sb_source *sb_own(const struct sb *s);
/* The sources, in no order; from cursor 0 until NULL. */
const struct sb_source *sb_next(const struct sb *s, size_t *cursor);

struct sb_stats {
	uint32_t n_sources, n_listed, n_members, n_records, n_tombs;
	uint64_t n_bytes;	  /* of records, as they lie in memory */
	uint64_t vector, content; /* equal with equal state */
	uint64_t n_bad;		  /* messages: broken */
	uint64_t n_foreign;	  /* of another version or channel */
	uint64_t n_stale;	  /* answers that came too late */
	uint64_t n_full; /* records refused: bytes_max, or sources_max */
	uint64_t n_resets, n_repairs, n_collected, n_lives, n_given_up;
	uint64_t n_yielded; /* resets where they were as stale as we */
	uint64_t n_retired; /* lives of which nothing is told any more */
	bool is_walking;
	bool is_resetting; /* do not write down what sb_dump() gives now */
};
void sb_stats(const struct sb *s, struct sb_stats *stats);

/* ---- Keeping (SB-9) ---- */

/* A dump is a delta from zero, in pieces of at most stream_bytes: call from
 * cursor 0 until it returns 0. While stats.is_resetting the former dump is the
 * better one: in this some is already dropped, and what replaced it is left out. */
struct sb_dump {
	size_t source;
	uint64_t version;
};
size_t sb_dump(const struct sb *s, struct sb_dump *cursor, uint8_t *bytes,
	       size_t cap);
/* Take what was dumped, before the first tick; our former lives are sources like
 * all others. 0, -EBADMSG: nothing was taken. */
int sb_load(struct sb *s, const uint8_t *bytes, size_t len);

/* For tests: assert all that must hold, in O(everything). */
void sb_check(const struct sb *s);

#endif
