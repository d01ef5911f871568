/* SPDX-License-Identifier: MIT */
/* The failure detector: SWIM 3.1 and 4.3, with Lifeguard's LHA-Probe.
 *
 * A round probes one member: ping; without an ack in time k helpers are asked to
 * ping it; without an ack by the end of the round, and not before (F5), the
 * member is accused. How the round went says something about ourselves too: the
 * health score stretches our own timeouts when we seem to be the slow one. */
#include "gossip/swim_impl.h"

#include <stdio.h>

/* Whoever answers our rounds is well; who fails them all may be the sick one. */
void swim_health_add(struct swim *s, int change)
{
	int health = (int)s->health + change;
	int max = s->config.health_max;

	health = health < 0 ? 0 : health > max ? max : health;
	if ((unsigned)health != s->health)
		swim_line(s, SWIM_TRACE_PROBE, "round %s -> health %d",
			  change < 0 ? "answered" : "failed", health);
	s->health = (unsigned)health;
}

/* F2: who fails more than half of his rounds should doubt himself. */
static void window_push(struct swim *s, bool has_failed)
{
	s->window = (uint8_t)(s->window << 1 | has_failed);
	bool is_isolated = __builtin_popcount(s->window) > WINDOW_MIN;

	if (is_isolated == s->is_isolated)
		return;
	s->is_isolated = is_isolated;
	swim_line(s, SWIM_TRACE_STATUS, "%s -> %s",
		  is_isolated ? "most rounds failed" : "rounds succeed",
		  is_isolated ? "isolated" : "no longer isolated");
	swim_event(s, &(struct swim_event){.kind = SWIM_ISOLATED,
					   .id = swim_me(s)->facts->id,
					   .value = is_isolated});
}

static void begin_round(struct swim *s, struct probe *p)
{
	uint64_t stretch = s->health + 1;
	uint32_t slot = members_next_turn(&s->members, IN_ROUND);

	p->began_us = s->now_us;
	p->end_us = s->now_us + s->config.period_us * stretch;
	p->n_helpers = p->nacked = 0;
	if (slot == MEMBER_NONE) { /* alone (F8) */
		p->stage = IDLE;
		p->next_us = p->end_us;
		return;
	}
	p->stage = DIRECT;
	p->next_us = s->now_us + s->config.timeout_us * stretch;
	p->seq = ++s->seq;
	p->target = member_at(&s->members, slot)->facts->id;
	swim_line(s, SWIM_TRACE_PROBE, "turn of %s -> probe",
		  swim_name(s, &p->target));
	swim_say_to(s, slot, WIRE_PING, p->seq);
}

static void ask_helper(struct swim *s, struct probe *p, uint32_t helper,
		       uint32_t target)
{
	struct member *m = member_at(&s->members, helper);
	struct member *t = member_at(&s->members, target);
	struct say say = {
		.to = m->facts->addr,
		.kind = WIRE_HELP,
		.version = (uint8_t)wire_common_version(m->facts->oldest,
							m->facts->newest),
		.seq = p->seq,
		.subject = &p->target,
		.subject_boot = incarnation_boot(t->incarnation),
	};

	p->helpers[p->n_helpers++] = m->facts->id;
	swim_say(s, &say);
}

/* No ack in time: let others try, by other ways. */
static void ask_helpers(struct swim *s, struct probe *p)
{
	uint32_t target = members_find(&s->members, &p->target);
	struct member_set_list *live = &s->members.sets[IN_LIVE];
	char names[160] = "";
	int len = 0;

	p->next_us = p->end_us;
	p->stage = ANSWERED;
	if (target == MEMBER_NONE ||
	    member_is_gone(member_at(&s->members, target)))
		return; /* by somebody else's word */
	p->stage = INDIRECT;
	uint32_t n = members_choose(&s->members, IN_LIVE, s->config.n_helpers,
				    target);
	for (uint32_t i = 0; i < n; i++) {
		ask_helper(s, p, live->slots[i], target);
		if (len < (int)sizeof(names))
			len += snprintf(names + len,
					sizeof(names) - (size_t)len, " %s",
					swim_name(s, &p->helpers[i]));
	}
	swim_line(s, SWIM_TRACE_PROBE, "no ack from %s -> %s%s",
		  swim_name(s, &p->target),
		  n > 0 ? "indirect probe by" : "nobody to ask", names);
}

/* Lifeguard: a helper that did not even send a nack speaks against us. */
static void fail_round(struct swim *s, struct probe *p)
{
	unsigned n_nacks = (unsigned)__builtin_popcount(p->nacked);
	uint32_t slot = members_find(&s->members, &p->target);

	if (slot == MEMBER_NONE || member_is_gone(member_at(&s->members, slot)))
		return; /* somebody else was faster */
	if (p->n_helpers > 0 && s->config.has_nack)
		swim_health_add(s, (int)(p->n_helpers - n_nacks));
	else
		swim_health_add(s, 1);
	window_push(s, true);
	if (s->is_isolated && n_nacks == 0) {
		swim_line(s, SWIM_TRACE_PROBE,
			  "no answer from %s, but isolated -> no accusation",
			  swim_name(s, &p->target));
		return;
	}
	swim_accuse(s, slot, &swim_me(s)->facts->id, "no answer from");
	if (s->config.has_buddy)
		swim_say_to(s, slot, WIRE_NEWS, 0);
}

static void lane_tick(struct swim *s, struct probe *p)
{
	while (s->now_us >= p->next_us) {
		if (p->stage == DIRECT) {
			ask_helpers(s, p);
			continue;
		}
		if (p->stage == INDIRECT)
			fail_round(s, p);
		begin_round(s, p);
	}
}

/* A round is answered: by the target, or by a helper that reached it. */
static void succeed(struct swim *s, struct probe *p,
		    const struct wire_header *h)
{
	uint32_t slot = members_find(&s->members, &p->target);

	if (slot != MEMBER_NONE && gossip_id_equal(&h->from, &p->target))
		member_at(&s->members, slot)->rtt_us =
			(uint32_t)(s->now_us - p->began_us);
	if (p->stage == INDIRECT)
		swim_line(s, SWIM_TRACE_PROBE,
			  "late ack from %s by %s -> alive",
			  swim_name(s, &p->target), swim_name(s, &h->from));
	p->stage = ANSWERED;
	p->next_us = p->end_us;
	swim_health_add(s, -1);
	window_push(s, false);
}

static struct probe *round_of(struct swim *s, const struct wire_header *h)
{
	for (unsigned i = 0; i < s->config.n_probes; i++) {
		struct probe *p = &s->probes[i];

		if ((p->stage == DIRECT || p->stage == INDIRECT) &&
		    p->seq == h->seq &&
		    gossip_id_equal(&p->target, &h->subject))
			return p;
	}
	return NULL;
}

/* Helping others */

static void tell_asker(struct swim *s, const struct relay *r,
		       enum wire_kind kind)
{
	swim_say(s, &(struct say){.to = r->to,
				  .kind = (uint8_t)kind,
				  .seq = r->asked_seq,
				  .subject = &r->target});
}

static void drop_relay(struct swim *s, unsigned i)
{
	s->relays[i] = s->relays[--s->n_relays];
}

static struct relay *relay_of(struct swim *s, const struct wire_header *h)
{
	for (unsigned i = 0; i < s->n_relays; i++)
		if (s->relays[i].seq == h->seq &&
		    gossip_id_equal(&s->relays[i].target, &h->subject))
			return &s->relays[i];
	return NULL;
}

void swim_probe_help(struct swim *s, const struct wire_header *h,
		     const struct gossip_addr *from)
{
	uint32_t slot = members_find(&s->members, &h->subject);
	struct relay r = {.target = h->subject,
			  .to = *from,
			  .asked_seq = h->seq,
			  .seq = ++s->seq,
			  .nack_us = s->now_us + s->config.timeout_us / 5 * 4,
			  .end_us = s->now_us + 2 * s->config.timeout_us};

	if (slot == MEMBER_NONE || slot == MEMBER_SELF ||
	    s->n_relays == RELAYS_MAX) {
		tell_asker(s, &r, WIRE_NACK);
		return;
	}
	s->relays[s->n_relays++] = r;
	swim_line(s, SWIM_TRACE_PROBE, "asked by %s -> probe %s for it",
		  swim_name(s, &h->from), swim_name(s, &h->subject));
	swim_say_to(s, slot, WIRE_PING, r.seq);
}

static void relays_tick(struct swim *s)
{
	for (unsigned i = 0; i < s->n_relays;) {
		struct relay *r = &s->relays[i];

		if (s->now_us >= r->nack_us) {
			r->nack_us = NEVER;
			if (s->config.has_nack)
				tell_asker(s, r, WIRE_NACK);
		}
		if (s->now_us >= r->end_us)
			drop_relay(s, i);
		else
			i++;
	}
}

void swim_probe_ack(struct swim *s, const struct wire_header *h)
{
	struct probe *p = round_of(s, h);
	struct relay *r = relay_of(s, h);

	if (p != NULL)
		succeed(s, p, h);
	if (r == NULL)
		return;
	tell_asker(s, r, WIRE_ACK);
	drop_relay(s, (unsigned)(r - s->relays));
}

void swim_probe_nack(struct swim *s, const struct wire_header *h)
{
	struct probe *p = round_of(s, h);

	for (unsigned i = 0; p != NULL && i < p->n_helpers; i++)
		if (gossip_id_equal(&p->helpers[i], &h->from))
			p->nacked |= 1u << i;
}

/* The direct probe is known to have failed: no need to wait. */
static void hasten(struct swim *s, struct probe *p, const char *why)
{
	swim_line(s, SWIM_TRACE_PROBE, "%s %s -> no ack expected", why,
		  swim_name(s, &p->target));
	p->next_us = s->now_us;
}

void swim_probe_not_me(struct swim *s, const struct wire_header *h)
{
	struct probe *p = round_of(s, h);
	struct relay *r = relay_of(s, h);

	if (p != NULL && p->stage == DIRECT)
		hasten(s, p, "another lives at the address of");
	if (r != NULL)
		r->nack_us = s->now_us;
}

static bool lives_at(const struct swim *s, const struct gossip_id *id,
		     const struct gossip_addr *addr)
{
	uint32_t slot = members_find(&s->members, id);

	return slot != MEMBER_NONE &&
	       gossip_addr_equal(&member_at(&s->members, slot)->facts->addr,
				 addr);
}

void swim_probe_failed(struct swim *s, const struct gossip_addr *to)
{
	for (unsigned i = 0; i < s->config.n_probes; i++)
		if (s->probes[i].stage == DIRECT &&
		    lives_at(s, &s->probes[i].target, to))
			hasten(s, &s->probes[i], "cannot send to");
	for (unsigned i = 0; i < s->n_relays; i++)
		if (s->relays[i].nack_us != NEVER &&
		    lives_at(s, &s->relays[i].target, to))
			s->relays[i].nack_us = s->now_us;
}

/* Time */

/* I12: whom we know by hearsay is asked itself, soon, but not all at once. */
static void verify_tick(struct swim *s)
{
	uint32_t n = s->members.sets[IN_HEARSAY].n;

	if (n == 0 || s->now_us < s->verify_us)
		return;
	s->verify_us = s->now_us + s->config.period_us;
	for (uint32_t i = 0; i < n && i < VERIFY_PER_TURN; i++) {
		uint32_t slot = members_next_turn(&s->members, IN_HEARSAY);
		swim_say_to(s, slot, WIRE_PING, ++s->seq);
	}
}

/* I7: the dead are tried for as long as they are remembered; all members
 * together try each about once per interval. */
static void reconnect_tick(struct swim *s)
{
	struct members *m = &s->members;
	uint32_t n = m->sets[IN_GONE].n, n_live = m->sets[IN_LIVE].n;

	if (s->now_us < s->reconnect_us)
		return;
	s->reconnect_us = s->now_us + s->config.reconnect_us;
	if (n == 0 || random_below(&s->random, n_live + 1) >= n)
		return;
	uint32_t slot = members_next_turn(m, IN_GONE);
	swim_line(s, SWIM_TRACE_REPAIR, "still no word of %s -> try it",
		  swim_name(s, &member_at(m, slot)->facts->id));
	swim_say_to(s, slot, WIRE_PING, ++s->seq);
}

void swim_probe_start(struct swim *s)
{
	for (unsigned i = 0; i < s->config.n_probes; i++)
		s->probes[i] = (struct probe){
			.next_us = s->now_us + s->config.period_us * i /
						       s->config.n_probes};
	s->verify_us = s->now_us;
	s->reconnect_us = s->now_us + s->config.reconnect_us;
}

void swim_probe_tick(struct swim *s)
{
	relays_tick(s);
	if (swim_has_left(s))
		return;
	for (unsigned i = 0; i < s->config.n_probes; i++)
		lane_tick(s, &s->probes[i]);
	verify_tick(s);
	reconnect_tick(s);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t swim_probe_wake(const struct swim *s)
{
	uint64_t at = NEVER;

	for (unsigned i = 0; i < s->n_relays; i++)
		at = least(at,
			   least(s->relays[i].nack_us, s->relays[i].end_us));
	if (swim_has_left(s))
		return at;
	for (unsigned i = 0; i < s->config.n_probes; i++)
		at = least(at, s->probes[i].next_us);
	if (s->members.sets[IN_HEARSAY].n > 0)
		at = least(at, s->verify_us);
	if (s->members.sets[IN_GONE].n > 0)
		at = least(at, s->reconnect_us);
	return at;
}

void swim_probe_shift(struct swim *s, uint64_t by_us)
{
	for (unsigned i = 0; i < s->config.n_probes; i++) {
		s->probes[i].next_us += by_us;
		s->probes[i].end_us += by_us;
	}
	for (unsigned i = 0; i < s->n_relays; i++) {
		if (s->relays[i].nack_us != NEVER)
			s->relays[i].nack_us += by_us;
		s->relays[i].end_us += by_us;
	}
}
