/* SPDX-License-Identifier: MIT */
/* Who is in the cluster: SWIM membership with Lifeguard.
 *
 * Papers: Das, Gupta, Motivala, "SWIM" (DSN 2002); Dadgar, Phillips, Currey,
 * "Lifeguard: local health awareness" (2018).
 *
 * The core is a function of (state, time, message): it opens no socket, reads no
 * clock, and draws its randomness from a seed. Whoever drives it, the daemon or
 * the simulator, passes what arrives and carries out what is asked for in struct
 * swim_out: packets to send, events to look at, a time to call again.
 *
 *	swim.c         life: start, tick, join, leave, and what one can ask
 *	swim_probe.c   the failure detector: rounds, helpers, health
 *	swim_hear.c    packets in: what is said becomes what is believed
 *	swim_say.c     packets out: each carries the news
 *	swim_repair.c  anti-entropy: tables that differ are compared and mended
 *	members.c      the table      suspicion.c  the arithmetic
 *	wire.c         the bytes      facts.c      what a member says of itself
 *
 * Where this departs from the papers:
 * - A member is identified by a random id, not by its address; the incarnation
 *   has a boot counter in front, so a restart supersedes the life before.
 * - A new member is shown to the layer above only when it was heard directly;
 *   what others say of it is passed on, but not believed (I12).
 * - News is not only carried by probes: it is pushed to a few at once, then at
 *   each gossip interval while there is some. With no news nothing is sent.
 * - Probes and acks carry 8 bytes of digest of the table. Who sees that it
 *   differs for longer than news may take asks for a comparison on a stream.
 *   So an idle cluster's traffic per member does not grow with its size.
 * - One who fails most of his probes, and gets no help, accuses nobody (F2).
 *
 * Thread: all on the loop thread. Private to gossip/. */
#ifndef GOSSIP_SWIM_H
#define GOSSIP_SWIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/facts.h"
#include "gossip/id.h"
#include "gossip/wire.h"

#define SWIM_PROBES_MAX	 8
#define SWIM_HELPERS_MAX 8

struct swim_config {
	uint32_t period_us;    /* a probe round; each probe lane starts one */
	uint32_t timeout_us;   /* wait this long for an ack, then ask helpers */
	uint32_t gossip_us;    /* between pushes of news, while there is some */
	uint32_t reconnect_us; /* between tries to reach the dead */
	uint32_t repair_us;    /* tables may differ this long at rest */
	uint64_t
		tombstone_us; /* the dead are remembered; told for half of it */
	uint16_t packet_bytes; /* of a datagram, without what sealing adds */
	uint8_t n_probes;      /* lanes: probes per period (F7) */
	uint8_t n_helpers;     /* asked for an indirect probe: k */
	uint8_t n_push;	       /* members a push of news goes to */
	uint8_t n_confirm;     /* independent accusers that speed a suspicion */
	uint8_t suspicion_mult; /* shortest suspicion, see suspicion.h */
	uint8_t suspicion_max;	/* the longest, in shortest ones */
	uint8_t health_max;	/* 0: without Lifeguard's health score */
	bool has_nack;		/* helpers say so when they fail */
	bool has_buddy;		/* who is accused is the first to be told */
};

extern const struct swim_config swim_lan, swim_wan, swim_local;

struct swim_self {
	struct gossip_id id;
	uint32_t boot; /* above all former ones; on disk before the start */
	struct gossip_addr addr;
	const char *name;    /* copied */
	const uint8_t *meta; /* copied */
	size_t meta_len;
};

/* A packet to send. Its bytes are out->bytes + at. */
struct swim_send {
	struct gossip_addr to;
	uint32_t at, len;
	uint8_t kind;	/* enum wire_kind, for statistics */
	bool on_stream; /* in order and reliably; may be lost with its stream */
};

enum swim_event_kind {
	SWIM_MEMBER,   /* a member became, or is no longer, what it was */
	SWIM_FACTS,    /* its name, address or meta changed */
	SWIM_GONE,     /* it was forgotten; id only */
	SWIM_REFUTED,  /* this member was accused, and has denied it */
	SWIM_ISOLATED, /* most of our probes fail, or no longer: value */
	SWIM_COPIED, /* somebody is a newer life of our id: state was copied */
	SWIM_LEFT,   /* that we leave was told: the process may end */
};

#define SWIM_UNKNOWN 255 /* as a former status */

struct swim_event {
	enum swim_event_kind kind;
	struct gossip_id id;
	uint64_t was_incarnation, incarnation;
	uint8_t was, is; /* enum wire_status */
	bool value;
};

/* Filled by the core, emptied by the driver with swim_out_clear(). */
struct swim_out {
	struct swim_send *sends;
	size_t n_sends, cap_sends;
	uint8_t *bytes;
	size_t n_bytes, cap_bytes;
	struct swim_event *events;
	size_t n_events, cap_events;
	uint64_t wake_us; /* call swim_tick() at this time, or earlier */
};

void swim_out_clear(struct swim_out *out);
void swim_out_finish(struct swim_out *out);

/* Trace lines: "cause -> effect", one per event; stable, tests compare them. */
enum swim_trace_topic {
	SWIM_TRACE_STATUS = 1, /* what is believed of whom, and of oneself */
	SWIM_TRACE_PROBE = 2,  /* rounds of the failure detector */
	SWIM_TRACE_REPAIR = 4, /* comparisons, reconnection */
};
typedef void (*swim_trace_cb)(void *data, const char *line);

struct swim;

/* Make an idle member. Never NULL; a name that could not be a file's is
 * asserted against.
 *
 * config  copied
 * self    copied
 * pool    borrowed; may be shared by members of one thread; outlives it
 * seed    of all randomness */
struct swim *swim_create(const struct swim_config *config,
			 const struct swim_self *self, struct facts_pool *pool,
			 uint64_t seed);
void swim_destroy(struct swim *s);
/* Trace topics, or none. cb must not call back. */
void swim_trace(struct swim *s, unsigned topics, swim_trace_cb cb, void *data);

/* The world. now_us: a clock that never goes back. Bytes are borrowed for the
 * call. Whatever is in out is added to. */
void swim_start(struct swim *s, uint64_t now_us, struct swim_out *out);
void swim_tick(struct swim *s, uint64_t now_us, struct swim_out *out);

struct swim_msg {
	struct gossip_addr from; /* where an answer reaches the sender: as the
				  * socket says; of a stream, its listener */
	const uint8_t *bytes;
	size_t len;
	bool on_stream;
};
/* A packet arrived. Bad ones are counted and change nothing. */
void swim_recv(struct swim *s, uint64_t now_us, const struct swim_msg *msg,
	       struct swim_out *out);
/* A datagram to this address could not be sent, for a reason other than EAGAIN
 * and ENOBUFS, or was refused (F3): the probe goes on to its helpers. */
void swim_send_failed(struct swim *s, uint64_t now_us,
		      const struct gossip_addr *to, struct swim_out *out);

/* Get to know whoever lives at addr: tried until it answers, with growing
 * pauses, for ever. After swim_leave(), comes back as a new incarnation. */
void swim_join(struct swim *s, uint64_t now_us, const struct gossip_addr *addr,
	       struct swim_out *out);
/* Tell all that we go. SWIM_LEFT follows when they should know. */
void swim_leave(struct swim *s, uint64_t now_us, struct swim_out *out);
/* Forget a dead or left member, everywhere.
 *
 * 0, -ENOENT, -EBUSY: it is neither dead nor left. */
int swim_forget(struct swim *s, uint64_t now_us, const struct gossip_id *id,
		struct swim_out *out);
/* There is proof that the process that was this life of a member is gone: it is
 * dead now, without a suspicion, and those who are told believe it as at once.
 * Harmless to a newer life. Should the proof be wrong, the member refutes it like
 * any death that it hears of. Of a refutation that was on its way when the process
 * ended nobody can tell that it is late: who has the proof, repeats it then.
 *
 * 0, also if it was known; -ENOENT, no such member; -ESTALE, it has a newer life;
 * -EBUSY, it is this one; -EINVAL, no boot. */
int swim_obituary(struct swim *s, uint64_t now_us, const struct gossip_id *id,
		  uint32_t boot, struct swim_out *out);
/* Tell whoever is at addr, once, what is believed of a member: of one that was
 * there before, and now is elsewhere as a newer life. Nothing if it is unknown. */
void swim_tell(struct swim *s, uint64_t now_us, const struct gossip_addr *addr,
	       const struct gossip_id *id, struct swim_out *out);
/* There is a hint that something is wrong with it: probe it next. */
void swim_hint(struct swim *s, const struct gossip_id *id);
/* Change what this member says of itself (I11). 0, -EINVAL: meta too long. */
int swim_set_self(struct swim *s, uint64_t now_us,
		  const struct gossip_addr *addr, const uint8_t *meta,
		  size_t meta_len, struct swim_out *out);

/* Asking. */
struct swim_view {
	const struct facts *facts; /* borrowed until the next call */
	uint64_t incarnation;
	uint64_t since_us;
	uint32_t rtt_us;
	uint8_t status;
	bool is_verified;	  /* others are not shown to users */
	struct gossip_id accuser; /* of one that is not alive (F6) */
};
/* The next member, self first; from cursor 0 until false. */
bool swim_next(const struct swim *s, uint32_t *cursor, struct swim_view *view);
bool swim_find(const struct swim *s, const struct gossip_id *id,
	       struct swim_view *view);

struct swim_stats {
	uint32_t n_members; /* all that are known, this one included */
	uint32_t n_round;   /* alive or suspect, without this one */
	uint32_t n_news;
	unsigned health;
	bool is_isolated;
	uint64_t digest;
	uint64_t n_bad, n_foreign; /* packets dropped: broken, other versions */
	uint64_t n_repairs;
};
void swim_stats(const struct swim *s, struct swim_stats *stats);

/* For tests: assert all that must hold, in O(n). */
void swim_check(const struct swim *s);
/* For tests: know facts of others as if heard and verified long ago. */
void swim_know(struct swim *s, uint64_t now_us, const struct facts *facts);
/* This member's own facts; borrowed until they change. */
const struct facts *swim_facts(const struct swim *s);

#endif
