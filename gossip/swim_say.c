/* SPDX-License-Identifier: MIT */
/* What goes out. Every datagram, whatever it is for, is filled up with news
 * (SWIM 4.1, and D4: acks too), in the order of members.h. */
#include "gossip/swim_impl.h"

#include <assert.h>

#include "gossip/mem.h"
#include "gossip/suspicion.h"

#define PACKET_NEWS_MAX 64 /* records in a datagram */
#define MISFITS_MAX	4  /* news that do not fit, before we stop looking */

struct bytes_out swim_packet_begin(struct swim *s, size_t cap)
{
	struct swim_out *out = s->out;

	assert(out != NULL && cap <= WIRE_MESSAGE_BYTES);
	if (out->cap_bytes - out->n_bytes < cap) {
		out->cap_bytes = 2 * out->cap_bytes + cap;
		out->bytes = xrealloc(out->bytes, out->cap_bytes);
	}
	return bytes_out_of(out->bytes + out->n_bytes, cap);
}

void swim_packet_end(struct swim *s, const struct bytes_out *packet,
		     const struct swim_send *send)
{
	struct swim_out *out = s->out;

	assert(!packet->full && packet->base == out->bytes + out->n_bytes);
	if (out->n_sends == out->cap_sends) {
		out->cap_sends = out->cap_sends > 0 ? 2 * out->cap_sends : 8;
		out->sends = xrealloc(out->sends,
				      out->cap_sends * sizeof(*out->sends));
	}
	struct swim_send *to = &out->sends[out->n_sends++];
	*to = *send;
	to->at = (uint32_t)out->n_bytes;
	to->len = (uint32_t)packet->len;
	out->n_bytes += packet->len;
}

struct wire_header swim_header(const struct swim *s, enum wire_kind kind)
{
	return (struct wire_header){
		.version = WIRE_OLDEST,
		.kind = (uint8_t)kind,
		.flags = swim_has_left(s) ? WIRE_HAS_LEFT : 0,
		.from = swim_me(s)->facts->id,
		.incarnation = swim_me(s)->incarnation,
		.digest = s->members.digest,
	};
}

void swim_record_of(const struct swim *s, uint32_t slot, bool with_facts,
		    struct wire_record *r)
{
	const struct member *m = member_at(&s->members, slot);

	*r = (struct wire_record){.id = m->facts->id,
				  .incarnation = m->incarnation,
				  .status = m->status};
	if (m->verdict != NULL) {
		r->n_accusers = m->verdict->n_accusers;
		memcpy(r->accusers, m->verdict->accusers, sizeof(r->accusers));
	}
	if (member_is_gone(m) && s->now_us > m->since_us)
		r->age_s = (uint32_t)((s->now_us - m->since_us) / 1000000);
	if (with_facts) {
		r->facts_version = m->facts->version;
		r->attrs = m->facts->attrs;
		r->attrs_len = m->facts->len;
	}
}

/* News of the alive carry their facts, as somebody may not know them yet. Who
 * does not know a suspect or a dead does not need to. */
static bool put_member(struct swim *s, struct bytes_out *packet, uint32_t slot)
{
	struct wire_record r;

	swim_record_of(s, slot,
		       member_at(&s->members, slot)->status == WIRE_ALIVE, &r);
	return wire_put_record(packet, &r);
}

/* What goes first, then news while there is room. */
static void put_records(struct swim *s, struct bytes_out *packet,
			const struct say *say)
{
	uint32_t sent[PACKET_NEWS_MAX], n_sent = 0, n_misfits = 0;

	if (say->about != MEMBER_SELF && put_member(s, packet, say->about))
		sent[n_sent++] = say->about;
	if (say->with_me && put_member(s, packet, MEMBER_SELF))
		sent[n_sent++] = MEMBER_SELF;
	for (uint32_t slot = members_next_news(&s->members, MEMBER_NONE);
	     slot != MEMBER_NONE && n_sent < PACKET_NEWS_MAX &&
	     n_misfits < MISFITS_MAX;
	     slot = members_next_news(&s->members, slot)) {
		if ((slot == say->about && slot != MEMBER_SELF) ||
		    (slot == MEMBER_SELF && say->with_me))
			continue;
		if (put_member(s, packet, slot))
			sent[n_sent++] = slot;
		else
			n_misfits++;
	}
	/* Backwards: then the newest stays first among those told as often. */
	unsigned limit = retransmit_limit(swim_population(s));
	while (n_sent > 0)
		members_told(&s->members, sent[--n_sent], limit);
}

void swim_say(struct swim *s, const struct say *say)
{
	struct bytes_out packet = swim_packet_begin(s, s->config.packet_bytes);
	struct wire_header h = swim_header(s, say->kind);

	h.seq = say->seq;
	if (say->version != 0)
		h.version = say->version;
	h.flags |= say->tell_me ? WIRE_TELL_ME : 0;
	h.subject_boot = say->subject_boot;
	if (say->subject != NULL)
		h.subject = *say->subject;
	wire_put_header(&packet, &h);
	if (s->members.n_news > 0 || say->with_me || say->about > 0) {
		size_t begin = wire_begin_records(&packet);
		put_records(s, &packet, say);
		wire_end_records(&packet, begin);
	}
	swim_packet_end(s, &packet,
			&(struct swim_send){.to = say->to, .kind = say->kind});
}

void swim_say_to(struct swim *s, uint32_t slot, enum wire_kind kind,
		 uint32_t seq)
{
	const struct member *m = member_at(&s->members, slot);
	struct say say = {
		.to = m->facts->addr,
		.kind = (uint8_t)kind,
		.version = (uint8_t)wire_common_version(m->facts->oldest,
							m->facts->newest),
		.seq = seq,
		.subject = &m->facts->id,
		.subject_boot = incarnation_boot(m->incarnation),
		.with_me = !m->is_verified || member_is_gone(m),
	};

	if (member_is_gone(m) ||
	    (m->status != WIRE_ALIVE && s->config.has_buddy))
		say.about = slot;
	swim_say(s, &say);
}

/* The first push of news goes out at once; while there is more to tell, others
 * follow at the gossip interval. So news travels at the speed of the network,
 * and as each item has its limit, in a bounded number of packets. */
void swim_push(struct swim *s)
{
	struct members *m = &s->members;

	if (m->n_news == 0 || s->now_us < s->push_us)
		return;
	s->push_us = s->now_us + s->config.gossip_us;
	uint32_t n = members_choose(m, IN_LIVE, s->config.n_push, MEMBER_NONE);
	for (uint32_t i = 0; i < n && m->n_news > 0; i++)
		swim_say_to(s, m->sets[IN_LIVE].slots[i], WIRE_NEWS, 0);
}

uint64_t swim_push_wake(const struct swim *s)
{
	bool has_listener = s->members.sets[IN_LIVE].n > 0;

	return s->members.n_news > 0 && has_listener ? s->push_us : NEVER;
}
