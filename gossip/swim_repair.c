/* SPDX-License-Identifier: MIT */
/* Anti-entropy: whatever limit news has, some of it misses somebody. Who sees
 * for a while that a table differs from his, with no news on the way, asks for a
 * comparison, which always goes both ways (D8):
 *
 *	asker                              asked
 *	  |-- COMPARE: 256 digests ---------->|
 *	  |<- DIFFER: where they differ ------|
 *	  |           and its records there   |
 *	  |-- RECORDS: mine there ----------->|
 *
 * so what is sent is what differs, and a little more. It is how one who joins
 * gets his table: all he has differs. Comparisons that do not help, as when two
 * cannot agree on a third, become rare. */
#include "gossip/swim_impl.h"

#include <assert.h>

#define IN_VAIN_MAX   6	    /* doublings of the pause */
#define TIRED	      10    /* repair intervals of unrest, then compare */
#define ANSWERS_MAX   16384 /* records given away per period (D5) */
#define MESSAGE_BYTES 32768 /* then another message */

static void remember_outcome(struct swim *s)
{
	bool helped = s->asked_us == 0 || s->changed_us > s->asked_us;

	if (helped)
		s->n_in_vain = 0;
	else if (s->n_in_vain < IN_VAIN_MAX)
		s->n_in_vain++;
	s->asked_us = s->now_us;
	s->repair_us =
		s->now_us + ((uint64_t)s->config.repair_us << s->n_in_vain);
}

void swim_repair_ask(struct swim *s, const struct gossip_addr *to,
		     const char *why)
{
	struct wire_header h = swim_header(s, WIRE_COMPARE);

	if (swim_has_left(s))
		return;
	swim_line(s, SWIM_TRACE_REPAIR, "%s %s -> compare tables", why,
		  swim_name(s, s->teller));
	remember_outcome(s);
	s->n_repairs++;
	struct bytes_out packet = swim_packet_begin(s, 4096);
	wire_put_header(&packet, &h);
	wire_put_digests(&packet, s->members.buckets);
	swim_packet_end(s, &packet,
			&(struct swim_send){.to = *to,
					    .kind = WIRE_COMPARE,
					    .on_stream = true});
}

/* Is that a difference which lasts? Of those seen one is watched; a cluster of two
 * camps, each of one mind, has no more than two digests. */
static bool does_last(struct swim *s, uint64_t digest)
{
	uint64_t interval = s->config.repair_us;
	bool is_gone = s->now_us >= s->other_seen_us + interval;

	if (digest != s->other && !is_gone)
		return false;
	if (digest != s->other || is_gone || s->changed_us > s->other_since_us)
		s->other_since_us = s->now_us;
	s->other = digest;
	s->other_seen_us = s->now_us;
	return s->now_us >= s->other_since_us + interval;
}

void swim_repair_look(struct swim *s, const struct wire_header *h,
		      const struct gossip_addr *from)
{
	uint64_t interval = s->config.repair_us;
	/* Since the last one something came in: it may help again. */
	uint64_t not_before = s->changed_us > s->asked_us
				      ? s->asked_us + interval
				      : s->repair_us;

	if (h->digest == s->members.digest) {
		s->agreed_us = s->now_us;
		return;
	}
	bool is_lasting =
		does_last(s, h->digest) || s->now_us >= s->agreed_us + interval;
	bool at_rest =
		s->members.n_news == 0 && s->now_us >= s->changed_us + interval;
	if (s->now_us < not_before)
		return;
	if ((at_rest && is_lasting) ||
	    s->now_us >= s->agreed_us + TIRED * interval)
		swim_repair_ask(s, from, "differs from");
}

static bool differs(const uint8_t *bits, unsigned bucket)
{
	return (bits[bucket / 8] >> bucket % 8 & 1) != 0;
}

static bool is_to_tell(const struct member *m, const uint8_t *bits)
{
	return m->facts != NULL &&
	       (m->verdict == NULL || !m->verdict->is_faded) &&
	       differs(bits, member_bucket(&m->facts->id));
}

struct batch {
	enum wire_kind kind;
	struct gossip_addr to;
	const uint8_t *bits;
	uint32_t next; /* slot */
	unsigned n_messages;
};

/* One message of records: as many as fit. */
static void send_some(struct swim *s, struct batch *b)
{
	struct wire_header h = swim_header(s, b->kind);
	struct bytes_out packet = swim_packet_begin(s, MESSAGE_BYTES);
	struct wire_record r;

	wire_put_header(&packet, &h);
	if (b->kind == WIRE_DIFFER && b->n_messages == 0)
		wire_put_differing(&packet, b->bits);
	size_t begin = wire_begin_records(&packet);
	for (; b->next < s->members.n_slots; b->next++) {
		if (!is_to_tell(member_at(&s->members, b->next), b->bits))
			continue;
		swim_record_of(s, b->next, true, &r);
		if (!wire_put_record(&packet, &r))
			break;
		s->n_answered++;
	}
	wire_end_records(&packet, begin);
	b->n_messages++;
	swim_packet_end(s, &packet,
			&(struct swim_send){.to = b->to,
					    .kind = (uint8_t)b->kind,
					    .on_stream = true});
}

static void send_records(struct swim *s, enum wire_kind kind,
			 const struct gossip_addr *to, const uint8_t *bits)
{
	struct batch b = {.kind = kind, .to = *to, .bits = bits};

	do
		send_some(s, &b);
	while (b.next < s->members.n_slots);
}

/* Somebody shows his digests: find where ours are others. */
static void answer(struct swim *s, struct bytes_in digests,
		   const struct gossip_addr *to)
{
	uint8_t bits[WIRE_BUCKETS / 8] = {0};
	unsigned n = 0;

	if (s->now_us >= s->answer_us) {
		s->answer_us = s->now_us + s->config.period_us;
		s->n_answered = 0;
	}
	if (s->n_answered >= ANSWERS_MAX)
		return; /* he asks again, or another */
	for (unsigned i = 0; i < WIRE_BUCKETS; i++) {
		if (bytes_u64(&digests) == s->members.buckets[i])
			continue;
		bits[i / 8] |= (uint8_t)(1 << i % 8);
		n++;
	}
	if (n == 0)
		return;
	swim_line(s, SWIM_TRACE_REPAIR, "%s compares -> %u of %u differ",
		  swim_name(s, s->teller), n, WIRE_BUCKETS);
	send_records(s, WIRE_DIFFER, to, bits);
}

void swim_repair_recv(struct swim *s, const struct wire_packet *p,
		      const struct swim_msg *msg)
{
	struct bytes_in differing = p->differing;
	bool has_bits = bytes_left(&differing) > 0;

	if (swim_has_left(s))
		return;
	if (p->header.kind == WIRE_COMPARE && bytes_left(&p->digests) > 0)
		answer(s, p->digests, &msg->from);
	if (p->header.kind == WIRE_DIFFER && has_bits)
		send_records(s, WIRE_RECORDS, &msg->from,
			     bytes_take(&differing, WIRE_BUCKETS / 8));
}
