/* SPDX-License-Identifier: MIT */
/* What the files of scuttlebutt share, and nobody else sees. */
#ifndef GOSSIP_SCUTTLEBUTT_IMPL_H
#define GOSSIP_SCUTTLEBUTT_IMPL_H

#include "gossip/index.h"
#include "gossip/random.h"
#include "gossip/scuttlebutt.h"
#include "gossip/scuttlebutt_wire.h"

struct sb_member {
	struct gossip_id id;
	bool is_reachable;
	bool has_confirmed; /* in the collection round at hand */
};

enum sb_walk {
	SB_AT_REST,
	SB_RESET,  /* what others do not have is dropped; nothing but our own is
		    * vouched for */
	SB_REPAIR, /* the union is kept */
};

/* A peer that we cannot agree with although neither lacks anything. */
struct sb_quarrel {
	uint64_t ours, theirs; /* both hashes of each, mixed */
	uint64_t since_us;
};

struct sb {
	struct sb_config config;
	const struct sb_class *class; /* borrowed */
	void *user;
	struct gossip_id id;
	struct random random;
	struct sb_out *out; /* of the call at hand */
	uint64_t now_us;

	struct index sources;
	struct sb_source *own;
	uint64_t seed; /* of the index */
	uint32_t n_records, n_tombs;
	uint64_t n_bytes;
	struct sb_record *judged; /* by apply, at this moment */
	uint64_t content;	  /* kept up to date with each record */
	uint64_t vector;	  /* of all sources, if it is known */
	bool vector_is_known;
	uint32_t mark; /* counts digests, for sb_source.mark */

	enum sb_walk walk;
	bool has_dropped; /* this reset, what was kept before it */
	bool is_torn;	  /* what a reset dropped may have replaced a record of
			   * our present life, that others still have */
	uint64_t hope_us; /* last progress of a walk, or who can help heard */
	bool is_outrun;	  /* our present life is not the newest, or not ours */
	uint64_t outrun_life;
	uint32_t epoch; /* answers to digests of another are refused */
	struct sb_quarrel quarrel;
	bool has_snap; /* a collection round is on */

	struct sb_member *members;
	size_t n_members, cap_members;

	uint64_t round_at_us, push_at_us, life_at_us;
	bool is_push_due;
	bool has_overflowed;
	bool may_retire;	/* a life may be left with nothing but its gc */
	struct gossip_id asked; /* a digest is on its way to it */
	uint64_t asked_until_us; /* meanwhile no other is asked */
	bool has_again;		 /* but this one wanted to be: */
	struct gossip_id again;
	bool is_loading;
	struct flow flow;
	struct sb_stats stats;
};

/* ---- scuttlebutt.c ---- */

static inline bool sb_is_listed(const struct sb_source *src)
{
	return src->n_records > 0 || (src->gc > 0 && !src->is_retired);
}

/* What we say of its gc. */
static inline uint64_t sb_told_gc(const struct sb_source *src)
{
	return src->is_retired ? 0 : src->gc;
}

/* All of it up to here can be told to others as complete. In a reset not even
 * what was walked: of that, some was refused for what may yet be dropped. */
static inline uint64_t sb_vouched(const struct sb *s,
				  const struct sb_source *src)
{
	return s->walk == SB_RESET && src != s->own ? 0 : src->max;
}

/* Tell us what comes after this. */
static inline uint64_t sb_wanted(const struct sb *s,
				 const struct sb_source *src)
{
	return s->walk != SB_AT_REST && src != s->own ? src->cursor : src->max;
}

/* We have heard that it was collected up to gc, and have not come so far. */
static inline bool sb_is_unmet(const struct sb *s, const struct sb_source *src)
{
	return src->gc > (s->walk == SB_RESET ? sb_wanted(s, src) : src->max);
}

struct sb_source *sb_find(const struct sb *s, const struct gossip_id *id,
			  uint64_t life);
/* Found, or made; NULL if there are too many. */
struct sb_source *sb_source_of(struct sb *s, const struct gossip_id *id,
			       uint64_t life);
/* The next source; from cursor 0 until NULL. */
struct sb_source *sb_each(const struct sb *s, size_t *cursor);
void sb_set_max(struct sb *s, struct sb_source *src, uint64_t max);
/* Raise gc, and drop the tombstones that it covers. */
void sb_set_gc(struct sb *s, struct sb_source *src, uint64_t gc);
uint64_t sb_vector(struct sb *s);
/* Apply a new record; what follows it, whether it was kept or not. */
struct sb_record *sb_add(struct sb *s, struct sb_source *src,
			 const struct sb_item *item, struct sb_record *next);

/* Somebody speaks of this source: false if it is not to be listened to: there is
 * no such life, or it is ours, or newer than ours. Then sb_reborn() is due. */
bool sb_look_at(struct sb *s, const struct gossip_id *id, uint64_t life,
		uint64_t max);
/* Begin a new life, if that is due. */
void sb_reborn(struct sb *s);
struct sb_member *sb_member_of(struct sb *s, const struct gossip_id *id);
/* Everybody has confirmed: collect. */
void sb_collect(struct sb *s);
/* State has changed: tell, soon. */
void sb_changed(struct sb *s);
uint64_t sb_wake_us(const struct sb *s);
/* Add records of src after `from` to out, as a section. False if not all fit:
 * then as many as did, maybe none. */
bool sb_put_source(const struct sb *s, struct bytes_out *out,
		   const struct sb_source *src, uint64_t from);

/* ---- scuttlebutt_lives.c ---- */

/* Retire what may be: at the end of a call, as nobody looks at sources then. */
void sb_retire(struct sb *s);
/* This life is retired, or would be: nobody is stale by it. */
bool sb_is_past(const struct sb *s, const struct gossip_id *id, uint64_t life);

/* ---- scuttlebutt_take.c ---- */

/* The first record after a version, or NULL. */
struct sb_record *sb_first_after(const struct sb_source *src, uint64_t version);
/* Take sections up; what we have is skipped. Was there anything new? */
bool sb_take(struct sb *s, struct bytes_in *in);
void sb_walk_begin(struct sb *s, enum sb_walk walk);
void sb_walk_end(struct sb *s);
/* Waited too long for somebody who knows more than we. */
void sb_give_up_waiting(struct sb *s);

/* ---- scuttlebutt_talk.c ---- */

/* A hello, or a digest while we walk. */
void sb_greet(struct sb *s, const struct gossip_id *to);

#endif
