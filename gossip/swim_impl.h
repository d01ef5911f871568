/* SPDX-License-Identifier: MIT */
/* The state of a SWIM member, shared by the files swim*.c and by nobody else. */
#ifndef GOSSIP_SWIM_IMPL_H
#define GOSSIP_SWIM_IMPL_H

#include "gossip/members.h"
#include "gossip/random.h"
#include "gossip/swim.h"

#define NEVER		UINT64_MAX
#define RELAYS_MAX	64  /* probes for others at a time; more are refused */
#define CONTACTS_MAX	256 /* addresses without a known member */
#define WINDOW_MIN	4   /* more than so many of 8 failed: isolated (F2) */
#define VERIFY_PER_TURN 32  /* hearsay members pinged per period */

/* A lane of the failure detector: one probe round after the other.
 *
 *	  ping            ask helpers             end
 *	   |-- timeout --->|--------------------->|   the next begins
 *	   DIRECT           INDIRECT
 *	          an ack at any time: ANSWERED
 *
 * Both times are stretched by the health score (LHA-Probe). */
enum stage {
	IDLE,
	DIRECT,
	INDIRECT,
	ANSWERED
};

struct probe {
	enum stage stage;
	struct gossip_id target;
	uint32_t seq;
	uint64_t began_us, next_us, end_us;
	struct gossip_id helpers[SWIM_HELPERS_MAX];
	unsigned n_helpers;
	unsigned nacked; /* a bit per helper: it has sent a nack */
};

/* A probe for somebody else. */
struct relay {
	struct gossip_id target;
	struct gossip_id asker;
	struct gossip_addr to;	 /* the asker */
	uint32_t asked_seq, seq; /* his, ours */
	uint64_t nack_us;	 /* say so if there was no ack by then */
	uint64_t end_us;
};

/* An address to try until somebody answers (I7). */
struct contact {
	struct gossip_addr addr;
	uint64_t next_us;
	uint32_t wait_us;
};

struct swim {
	struct swim_config config;
	struct facts_pool *pool; /* borrowed */
	struct random random;
	struct members members; /* slot 0 is this one */
	bool is_started;

	struct probe probes[SWIM_PROBES_MAX];
	struct relay relays[RELAYS_MAX];
	unsigned n_relays;
	uint32_t seq;
	unsigned health; /* 0: all is well; Lifeguard's LHM */
	uint8_t window;	 /* of the last 8 rounds: a bit per failure */
	bool is_isolated;

	uint64_t push_us;   /* no push of news before */
	uint64_t verify_us; /* next pings to hearsay members */
	uint64_t reconnect_us;
	uint64_t left_us; /* leaving: told to all by then */
	struct contact contacts[CONTACTS_MAX];
	unsigned n_contacts;

	uint64_t changed_us; /* our table, last */
	uint64_t agreed_us;  /* somebody's table was the same, last */
	uint64_t other;	     /* another digest than ours */
	uint64_t other_since_us, other_seen_us;
	uint64_t repair_us; /* no comparison before */
	unsigned n_in_vain; /* comparisons that changed nothing here */
	uint64_t asked_us;  /* the last one */
	uint64_t answer_us; /* records to be given away in this period */
	uint32_t n_answered;

	const struct gossip_id *teller; /* sender of the packet we are in */
	uint64_t now_us;		/* of the call we are in */
	uint64_t wake_us;		/* when the driver was asked to call */
	struct swim_out *out;		/* of the call we are in */
	uint32_t copied_boot;		/* SWIM_COPIED was said of it */
	uint64_t n_bad, n_foreign, n_repairs;

	unsigned topics;
	swim_trace_cb trace;
	void *trace_data;
	char names[4][40]; /* for swim_name() */
	unsigned n_names;
};

/* swim.c */
void swim_event(struct swim *s, const struct swim_event *event);
void swim_line(struct swim *s, unsigned topic, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The name of a member for a trace line; of one unknown, part of its id. Valid
 * until four more are asked for. */
const char *swim_name(struct swim *s, const struct gossip_id *id);
void swim_contact(struct swim *s, const struct gossip_addr *addr);
/* Somebody answers there: true if it was tried, and now is no more. */
bool swim_contact_met(struct swim *s, const struct gossip_addr *addr);

static inline bool swim_traces(const struct swim *s, unsigned topic)
{
	return (s->topics & topic) != 0;
}

static inline struct member *swim_me(const struct swim *s)
{
	return member_at(&s->members, MEMBER_SELF);
}

static inline uint32_t swim_population(const struct swim *s)
{
	return s->members.sets[IN_ROUND].n + 1;
}

static inline bool swim_has_left(const struct swim *s)
{
	return swim_me(s)->status != WIRE_ALIVE;
}

/* swim_probe.c */
void swim_probe_start(struct swim *s);
void swim_probe_tick(struct swim *s);
uint64_t swim_probe_wake(const struct swim *s);
void swim_probe_shift(struct swim *s, uint64_t by_us);
void swim_probe_ack(struct swim *s, const struct wire_header *h);
void swim_probe_nack(struct swim *s, const struct wire_header *h);
void swim_probe_not_me(struct swim *s, const struct wire_header *h);
void swim_probe_help(struct swim *s, const struct wire_header *h,
		     const struct gossip_addr *from);
void swim_probe_failed(struct swim *s, const struct gossip_addr *to);
void swim_health_add(struct swim *s, int change);

/* swim_hear.c */
void swim_hear(struct swim *s, const struct swim_msg *msg);
/* Believe a status of a member, unless it is known to be outdated; the only
 * function that changes one. cause is for the trace. */
void swim_believe(struct swim *s, uint32_t slot, const struct wire_record *r,
		  const char *cause);
/* by accuses the member in slot. */
void swim_accuse(struct swim *s, uint32_t slot, const struct gossip_id *by,
		 const char *cause);
/* Raise our own incarnation above what it is, and what was said: an own change
 * or a refutation. */
void swim_renew(struct swim *s, uint64_t above, unsigned status);
void swim_verdict_due(struct swim *s, struct verdict *v);

/* swim_say.c */
struct say {
	struct gossip_addr to;
	uint8_t kind;
	uint8_t version; /* 0: the oldest, as we do not know what they speak */
	bool with_me;	 /* our record goes too: we may be unknown there */
	bool tell_me;	 /* and theirs is to us */
	uint32_t seq;
	const struct gossip_id *subject; /* NULL: whoever you are */
	uint32_t subject_boot;
	uint32_t about; /* slot whose record goes first; 0, which is us: none */
};
/* Send a datagram with as much news as it takes. */
void swim_say(struct swim *s, const struct say *say);
/* The same with a member for the addressee: one that is not alive in our eyes
 * is told so first (buddy). */
void swim_say_to(struct swim *s, uint32_t slot, enum wire_kind kind,
		 uint32_t seq);
void swim_push(struct swim *s); /* news, if there is and it is time */
uint64_t swim_push_wake(const struct swim *s);
struct wire_header swim_header(const struct swim *s, enum wire_kind kind);
void swim_record_of(const struct swim *s, uint32_t slot, bool with_facts,
		    struct wire_record *r);
/* Room in out for a packet; then the packet. */
struct bytes_out swim_packet_begin(struct swim *s, size_t cap);
void swim_packet_end(struct swim *s, const struct bytes_out *packet,
		     const struct swim_send *send);

/* swim_repair.c */
/* A packet shows the digest of its sender's table. */
void swim_repair_look(struct swim *s, const struct wire_header *h,
		      const struct gossip_addr *from);
void swim_repair_ask(struct swim *s, const struct gossip_addr *to,
		     const char *why);
void swim_repair_recv(struct swim *s, const struct wire_packet *p,
		      const struct swim_msg *msg);

#endif
