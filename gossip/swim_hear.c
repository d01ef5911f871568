/* SPDX-License-Identifier: MIT */
/* What comes in, and what is believed of it.
 *
 * Statements about a member are ordered by (incarnation, status); the greatest
 * wins, so all who have heard the same statements believe the same, in whatever
 * order they came. Only the member itself raises its incarnation. Whatever
 * changes a belief here, and nothing else, is passed on (D1). */
#include "gossip/swim_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "gossip/suspicion.h"

static const char *status_name(unsigned status)
{
	static const char *const names[] = {
		[WIRE_ALIVE] = "alive",		[WIRE_SUSPECT] = "suspect",
		[WIRE_DEAD] = "dead",		[WIRE_LEFT] = "left",
		[WIRE_FORGOTTEN] = "forgotten",
	};

	return status <= WIRE_FORGOTTEN ? names[status] : "gone";
}

static void trace_status(struct swim *s, uint32_t slot, const char *cause)
{
	const struct member *m = member_at(&s->members, slot);
	const char *name = swim_name(s, &m->facts->id);
	const char *what = status_name(m->status);

	if (!swim_traces(s, SWIM_TRACE_STATUS))
		return;
	if (cause != NULL)
		swim_line(s, SWIM_TRACE_STATUS, "%s %s -> %s %s", cause, name,
			  name, what);
	else
		swim_line(s, SWIM_TRACE_STATUS, "told by %s -> %s %s",
			  swim_name(s, s->teller), name, what);
}

/* The layer above sees only who was heard directly. */
static void show(struct swim *s, uint32_t slot, unsigned was,
		 uint64_t was_incarnation)
{
	const struct member *m = member_at(&s->members, slot);

	if (!m->is_verified)
		return;
	swim_event(s, &(struct swim_event){.kind = SWIM_MEMBER,
					   .id = m->facts->id,
					   .was_incarnation = was_incarnation,
					   .incarnation = m->incarnation,
					   .was = (uint8_t)was,
					   .is = m->status});
}

static void changed(struct swim *s, uint32_t slot)
{
	s->changed_us = s->now_us;
	members_tell(&s->members, slot);
}

static void set_suspicion_due(struct swim *s, uint32_t slot)
{
	struct member *m = member_at(&s->members, slot);
	struct verdict *v = m->verdict;
	unsigned c = v->n_accusers > 0 ? v->n_accusers - 1u : 0;

	members_set_due(&s->members, slot,
			m->since_us + suspicion_us(v->min_us, v->max_us, c,
						   v->n_wanted));
}

static void begin_suspicion(struct swim *s, uint32_t slot,
			    const struct wire_record *r)
{
	struct verdict *v = members_verdict(&s->members, slot);
	uint32_t n = swim_population(s);

	v->min_us = suspicion_min_us(s->config.period_us,
				     s->config.suspicion_mult, n);
	v->max_us = v->min_us * s->config.suspicion_max;
	v->n_wanted = (uint8_t)suspicion_wanted(s->config.n_confirm, n);
	v->n_accusers = r->n_accusers;
	memcpy(v->accusers, r->accusers, sizeof(v->accusers));
	set_suspicion_due(s, slot);
}

static void begin_tombstone(struct swim *s, uint32_t slot,
			    const struct wire_record *r)
{
	struct verdict *v = members_verdict(&s->members, slot);

	if (v->n_accusers == 0) {
		v->n_accusers = r->n_accusers;
		memcpy(v->accusers, r->accusers, sizeof(v->accusers));
	}
	members_set_due(&s->members, slot,
			member_at(&s->members, slot)->since_us +
				s->config.tombstone_us / 2);
}

void swim_believe(struct swim *s, uint32_t slot, const struct wire_record *r,
		  const char *cause)
{
	struct member *m = member_at(&s->members, slot);
	uint64_t was_incarnation = m->incarnation;
	unsigned was = m->status;
	uint64_t age_us = (uint64_t)r->age_s * 1000000;

	assert(slot != MEMBER_SELF);
	if (r->incarnation < was_incarnation ||
	    (r->incarnation == was_incarnation && r->status <= was))
		return;
	members_set_status(&s->members, slot, r->incarnation, r->status);
	if (was != r->status || incarnation_boot(was_incarnation) !=
					incarnation_boot(r->incarnation))
		m->since_us = s->now_us - (age_us < s->now_us ? age_us : 0);
	if (r->status == WIRE_SUSPECT)
		begin_suspicion(s, slot, r);
	else if (member_is_gone(m))
		begin_tombstone(s, slot, r);
	changed(s, slot);
	trace_status(s, slot, cause);
	show(s, slot, was, was_incarnation);
}

static bool has_accuser(const struct verdict *v, const struct gossip_id *id)
{
	for (unsigned i = 0; i < v->n_accusers; i++)
		if (gossip_id_equal(&v->accusers[i], id))
			return true;
	return false;
}

/* Lifeguard: each of the first k independent accusers shortens the suspicion,
 * and is told on. */
static void confirm(struct swim *s, uint32_t slot, const struct gossip_id *by)
{
	struct member *m = member_at(&s->members, slot);
	struct verdict *v = m->verdict;

	if (v->n_accusers > v->n_wanted || v->n_accusers == WIRE_ACCUSERS_MAX ||
	    has_accuser(v, by))
		return;
	v->accusers[v->n_accusers++] = *by;
	set_suspicion_due(s, slot);
	members_tell(&s->members, slot);
	if (swim_traces(s, SWIM_TRACE_STATUS))
		swim_line(
			s, SWIM_TRACE_STATUS,
			"%s accuses %s -> suspicion until %llu ms",
			swim_name(s, by), swim_name(s, &m->facts->id),
			(unsigned long long)((v->due_us - m->since_us) / 1000));
}

void swim_accuse(struct swim *s, uint32_t slot, const struct gossip_id *by,
		 const char *cause)
{
	struct member *m = member_at(&s->members, slot);
	struct wire_record r = {.id = m->facts->id,
				.incarnation = m->incarnation,
				.status = WIRE_SUSPECT,
				.n_accusers = 1,
				.accusers = {*by}};

	if (m->status == WIRE_ALIVE)
		swim_believe(s, slot, &r, cause);
	else if (m->status == WIRE_SUSPECT)
		confirm(s, slot, by);
}

static void forget(struct swim *s, uint32_t slot)
{
	struct member *m = member_at(&s->members, slot);

	/* Out of the table, not out of reach: it may be back some day (I7). */
	if (m->status == WIRE_DEAD)
		swim_contact(s, &m->facts->addr);
	if (swim_traces(s, SWIM_TRACE_STATUS))
		swim_line(s, SWIM_TRACE_STATUS, "%s long %s -> no memory of it",
			  swim_name(s, &m->facts->id), status_name(m->status));
	swim_event(s, &(struct swim_event){.kind = SWIM_GONE,
					   .id = m->facts->id,
					   .incarnation = m->incarnation,
					   .was = m->status,
					   .is = SWIM_UNKNOWN});
	members_remove(&s->members, slot);
}

void swim_verdict_due(struct swim *s, struct verdict *v)
{
	uint32_t slot = v->slot;
	struct member *m = member_at(&s->members, slot);
	struct wire_record r = {.incarnation = m->incarnation,
				.status = WIRE_DEAD};

	if (m->status == WIRE_SUSPECT) {
		swim_believe(s, slot, &r, "time is up for");
	} else if (!v->is_faded) {
		members_fade(&s->members, slot);
		members_set_due(&s->members, slot,
				m->since_us + s->config.tombstone_us);
	} else {
		forget(s, slot);
	}
}

void swim_renew(struct swim *s, uint64_t above, unsigned status)
{
	struct member *me = swim_me(s);
	uint64_t incarnation =
		me->incarnation > above ? me->incarnation : above;

	members_set_status(&s->members, MEMBER_SELF, incarnation + 1, status);
	changed(s, MEMBER_SELF);
}

/* Above this no honest life ever comes. Who refuted such a thing would soon have
 * no higher incarnation left, and what he says then nobody can read. */
#define CHANGES_MAX (UINT32_MAX / 2)

/* Of this very life, but not ours: only we change our facts. A state was set
 * back, so that a start was counted twice; the members keep the facts of the
 * first. */
static bool is_another_me(const struct facts *mine, const struct wire_record *r)
{
	if (incarnation_boot(r->facts_version) !=
	    incarnation_boot(mine->version))
		return false;
	return r->facts_version > mine->version ||
	       (r->facts_version == mine->version &&
		(r->attrs_len != mine->len ||
		 memcmp(r->attrs, mine->attrs, mine->len) != 0));
}

/* Somebody says something about us. If it is worse than the truth, or claims to
 * be newer, only a higher incarnation of ours can end it; or, where none can,
 * our next life. */
static void hear_of_me(struct swim *s, const struct wire_record *r)
{
	struct member *me = swim_me(s);
	uint32_t boot = incarnation_boot(r->incarnation);
	uint32_t my_boot = incarnation_boot(me->incarnation);

	if (boot > my_boot || is_another_me(me->facts, r) ||
	    (boot == my_boot &&
	     incarnation_change(r->incarnation) > CHANGES_MAX)) {
		if (boot != s->copied_boot)
			swim_event(s, &(struct swim_event){
					      .kind = SWIM_COPIED,
					      .id = r->id,
					      .incarnation = r->incarnation});
		s->copied_boot = boot;
		return;
	}
	if (r->incarnation < me->incarnation ||
	    (r->incarnation == me->incarnation && r->status <= me->status))
		return;
	swim_renew(s, r->incarnation, me->status);
	if (r->status != WIRE_ALIVE)
		swim_health_add(s, 1);
	if (swim_traces(s, SWIM_TRACE_STATUS))
		swim_line(s, SWIM_TRACE_STATUS,
			  "%s says I am %s -> refute with %lu",
			  swim_name(s, s->teller), status_name(r->status),
			  (unsigned long)incarnation_change(me->incarnation));
	swim_event(s, &(struct swim_event){.kind = SWIM_REFUTED,
					   .id = r->id,
					   .incarnation = me->incarnation,
					   .is = r->status});
}

/* Facts of a record that we can talk with, or NULL. */
static const struct facts *facts_from(struct swim *s,
				      const struct wire_record *r)
{
	if (r->facts_version == 0)
		return NULL;
	const struct facts *f = facts_of(s->pool, &r->id, r->facts_version,
					 r->attrs, r->attrs_len);
	if (f != NULL && wire_common_version(f->oldest, f->newest) != 0)
		return f;
	s->n_foreign++;
	if (f != NULL)
		facts_drop(s->pool, f);
	return NULL;
}

static void hear_of_new(struct swim *s, const struct wire_record *r)
{
	uint64_t half_s = s->config.tombstone_us / 2000000;

	/* Of one that is long gone we hear no more (I6). */
	if (s->members.n >= MEMBERS_MAX ||
	    (r->status >= WIRE_DEAD && r->age_s >= half_s))
		return;
	const struct facts *facts = facts_from(s, r);
	if (facts == NULL)
		return;
	uint32_t slot = members_add(&s->members, facts, r->incarnation);
	member_at(&s->members, slot)->since_us = s->now_us;
	if (r->status != WIRE_ALIVE) {
		swim_believe(s, slot, r, NULL);
		return;
	}
	changed(s, slot);
	if (swim_traces(s, SWIM_TRACE_STATUS))
		swim_line(s, SWIM_TRACE_STATUS, "told by %s -> %s may be alive",
			  swim_name(s, s->teller), swim_name(s, &r->id));
}

static void hear_facts(struct swim *s, uint32_t slot,
		       const struct wire_record *r)
{
	struct member *m = member_at(&s->members, slot);

	if (r->facts_version <= m->facts->version)
		return;
	const struct facts *facts = facts_from(s, r);
	if (facts == NULL)
		return;
	members_set_facts(&s->members, slot, facts);
	changed(s, slot);
	if (m->is_verified)
		swim_event(s,
			   &(struct swim_event){.kind = SWIM_FACTS,
						.id = r->id,
						.incarnation = r->incarnation,
						.was = m->status,
						.is = m->status});
}

/* In a comparison of tables, death is only an accusation: the other side of a
 * healed split knows some as dead that we have just heard (I8). */
static void hear_of(struct swim *s, const struct wire_record *given,
		    bool on_stream)
{
	uint32_t slot = members_find(&s->members, &given->id);
	struct wire_record r = *given;

	if (slot == MEMBER_SELF) {
		hear_of_me(s, given);
		return;
	}
	if (slot == MEMBER_NONE) {
		hear_of_new(s, given);
		return;
	}
	const struct member *m = member_at(&s->members, slot);
	if (on_stream && r.status == WIRE_DEAD && !member_is_gone(m)) {
		r.status = WIRE_SUSPECT;
		r.age_s = 0;
		r.n_accusers = 1;
		r.accusers[0] = *s->teller;
	}
	/* The incarnation first: it bounds the version of the facts. */
	swim_believe(s, slot, &r, NULL);
	hear_facts(s, slot, &r);
	if (r.status == WIRE_SUSPECT && m->status == WIRE_SUSPECT &&
	    r.incarnation == m->incarnation)
		for (unsigned i = 0; i < r.n_accusers; i++)
			confirm(s, slot, &r.accusers[i]);
}

/* The good news first (D5): a refutation in the same packet as an accusation
 * must not come second. */
static void hear_records(struct swim *s, const struct wire_packet *p,
			 bool on_stream)
{
	struct wire_record r;

	for (unsigned bad = 0; bad < 2; bad++) {
		struct bytes_in records = p->records;

		while (wire_next(&records, &r))
			if ((r.status != WIRE_ALIVE) == bad)
				hear_of(s, &r, on_stream);
	}
}

/* A packet proves that its sender lives, in the incarnation that it says. */
static uint32_t hear_sender(struct swim *s, const struct wire_header *h)
{
	uint32_t slot = members_find(&s->members, &h->from);
	struct wire_record r = {.id = h->from, .incarnation = h->incarnation};

	if (slot == MEMBER_NONE)
		return slot;
	if ((h->flags & WIRE_HAS_LEFT) != 0)
		r.status = WIRE_LEFT;
	swim_believe(s, slot, &r, "heard");
	struct member *m = member_at(&s->members, slot);
	if (m->is_verified || member_is_gone(m))
		return slot;
	members_set_verified(&s->members, slot);
	if (m->status == WIRE_ALIVE)
		trace_status(s, slot, "heard");
	show(s, slot, SWIM_UNKNOWN, 0);
	return slot;
}

/* Somebody probes, and means us, or whoever lives here; or he does not (I3). */
static void hear_ping(struct swim *s, const struct wire_header *h,
		      uint32_t slot, const struct gossip_addr *from)
{
	const struct member *me = swim_me(s);
	bool is_me = gossip_id_equal(&h->subject, &me->facts->id);
	bool is_any = gossip_id_is_zero(&h->subject);
	struct say say = {
		.to = *from,
		.kind = is_me || is_any ? WIRE_ACK : WIRE_NOT_ME,
		.version = h->version, /* which they speak */
		.seq = h->seq,
		.subject = is_me || is_any ? &me->facts->id : &h->subject,
		.tell_me = slot == MEMBER_NONE,
		.with_me = !is_me || swim_has_left(s) ||
			   h->subject_boot != incarnation_boot(me->incarnation),
	};

	if (slot != MEMBER_NONE &&
	    member_at(&s->members, slot)->status != WIRE_ALIVE &&
	    s->config.has_buddy)
		say.about = slot;
	swim_say(s, &say);
}

/* Who writes to us although we do not believe him alive is told so, that he can
 * refute it (UP-33, I8); who does not know us, who we are. */
static void answer(struct swim *s, const struct wire_header *h, uint32_t slot,
		   const struct gossip_addr *from)
{
	const struct member *m =
		slot != MEMBER_NONE ? member_at(&s->members, slot) : NULL;
	bool is_doubted = m != NULL && m->status != WIRE_ALIVE &&
			  m->status <= WIRE_DEAD && s->config.has_buddy;
	struct say say = {.to = *from,
			  .kind = WIRE_NEWS,
			  .version = h->version,
			  .subject = &h->from,
			  .with_me = (h->flags & WIRE_TELL_ME) != 0,
			  .about = is_doubted ? slot : MEMBER_SELF};

	if (is_doubted || say.with_me)
		swim_say(s, &say);
}

static void hear_datagram(struct swim *s, const struct wire_header *h,
			  uint32_t slot, const struct gossip_addr *from)
{
	switch (h->kind) {
	case WIRE_PING:
		hear_ping(s, h, slot, from);
		break;
	case WIRE_HELP:
		swim_probe_help(s, h, from);
		break;
	case WIRE_ACK:
		swim_probe_ack(s, h);
		break;
	case WIRE_NACK:
		swim_probe_nack(s, h);
		break;
	case WIRE_NOT_ME:
		swim_probe_not_me(s, h);
		break;
	default:
		break; /* of a later version, or nothing but news */
	}
	if (h->kind != WIRE_PING)
		answer(s, h, slot, from);
	if (slot != MEMBER_NONE)
		swim_repair_look(s, h, from);
}

static bool is_of_former_life(const struct swim *s, const struct wire_header *h,
			      uint32_t slot)
{
	const struct member *m = member_at(&s->members, slot);

	return incarnation_boot(h->incarnation) <
	       incarnation_boot(m->incarnation);
}

void swim_hear(struct swim *s, const struct swim_msg *msg)
{
	struct wire_packet p;
	int rc = wire_decode(&p, msg->bytes, msg->len);

	if (rc != 0) {
		s->n_foreign += rc == -EPROTONOSUPPORT;
		s->n_bad += rc != -EPROTONOSUPPORT;
		return;
	}
	bool was_contact = swim_contact_met(s, &msg->from);
	uint32_t slot = members_find(&s->members, &p.header.from);
	if (slot == MEMBER_SELF)
		return;
	if (slot != MEMBER_NONE && is_of_former_life(s, &p.header, slot))
		return;
	bool was_gone = slot != MEMBER_NONE &&
			member_is_gone(member_at(&s->members, slot));
	s->teller = &p.header.from;
	hear_records(s, &p, msg->on_stream);
	slot = hear_sender(s, &p.header);
	if (msg->on_stream)
		swim_repair_recv(s, &p, msg);
	else
		hear_datagram(s, &p.header, slot, &msg->from);
	/* He, or we, have missed much: compare at once. */
	bool is_back = was_gone && slot != MEMBER_NONE &&
		       !member_is_gone(member_at(&s->members, slot));
	if (was_contact || is_back)
		swim_repair_ask(s, &msg->from, was_contact ? "met" : "back");
	s->teller = NULL;
}
