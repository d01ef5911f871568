/* SPDX-License-Identifier: MIT */
#include "gossip/swim.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "gossip/mem.h"
#include "gossip/swim_impl.h"

#define DAY_US		 (86400 * UINT64_C(1000000))
#define CONTACT_WAIT_MAX 60000000 /* us between tries, in the end */
#define LEAVE_US	 1000000  /* who leaves waits no longer to tell it */

/* lan: three periods of suspicion are three chances to refute; the timeout is
 * far above any healthy round trip. wan: the same for half the globe. local: one
 * machine, where loss means overload, so one helper is enough (memberlist). */
const struct swim_config swim_lan = {
	.period_us = 200000,
	.timeout_us = 100000,
	.gossip_us = 100000,
	.reconnect_us = 2000000,
	.repair_us = 1000000,
	.tombstone_us = DAY_US,
	.packet_bytes = 1400,
	.n_probes = 1,
	.n_helpers = 3,
	.n_push = 3,
	.n_confirm = 2,
	.suspicion_mult = 3,
	.suspicion_max = 6,
	.health_max = 7,
	.has_nack = true,
	.has_buddy = true,
};

const struct swim_config swim_wan = {
	.period_us = 2000000,
	.timeout_us = 1000000,
	.gossip_us = 250000,
	.reconnect_us = 10000000,
	.repair_us = 5000000,
	.tombstone_us = DAY_US,
	.packet_bytes = 1400,
	.n_probes = 1,
	.n_helpers = 3,
	.n_push = 4,
	.n_confirm = 2,
	.suspicion_mult = 4,
	.suspicion_max = 6,
	.health_max = 7,
	.has_nack = true,
	.has_buddy = true,
};

const struct swim_config swim_local = {
	.period_us = 100000,
	.timeout_us = 50000,
	.gossip_us = 50000,
	.reconnect_us = 1000000,
	.repair_us = 500000,
	.tombstone_us = DAY_US,
	.packet_bytes = 1400,
	.n_probes = 1,
	.n_helpers = 1,
	.n_push = 3,
	.n_confirm = 2,
	.suspicion_mult = 3,
	.suspicion_max = 6,
	.health_max = 7,
	.has_nack = true,
	.has_buddy = true,
};

void swim_out_clear(struct swim_out *out)
{
	out->n_sends = out->n_bytes = out->n_events = 0;
	out->wake_us = NEVER;
}

void swim_out_finish(struct swim_out *out)
{
	free(out->sends);
	free(out->bytes);
	free(out->events);
	*out = (struct swim_out){0};
}

void swim_event(struct swim *s, const struct swim_event *event)
{
	struct swim_out *out = s->out;

	assert(out != NULL);
	if (out->n_events == out->cap_events) {
		out->cap_events = out->cap_events > 0 ? 2 * out->cap_events : 8;
		out->events =
			xrealloc(out->events, out->cap_events * sizeof(*event));
	}
	out->events[out->n_events++] = *event;
}

void swim_line(struct swim *s, unsigned topic, const char *format, ...)
{
	char line[512];
	va_list ap;

	if (!swim_traces(s, topic))
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	s->trace(s->trace_data, line);
}

const char *swim_name(struct swim *s, const struct gossip_id *id)
{
	char *name = s->names[s->n_names++ % 4];

	if (s->topics == 0)
		return "";
	uint32_t slot = members_find(&s->members, id);
	const struct facts *f = slot != MEMBER_NONE
					? member_at(&s->members, slot)->facts
					: NULL;
	if (f != NULL)
		snprintf(name, sizeof(s->names[0]), "%.*s", f->name_len,
			 facts_name(f));
	else
		snprintf(name, sizeof(s->names[0]), "?%02x%02x%02x%02x",
			 id->b[0], id->b[1], id->b[2], id->b[3]);
	return name;
}

/* Contacts: addresses to try until somebody answers there (I7). */

static struct contact *find_contact(struct swim *s,
				    const struct gossip_addr *addr)
{
	for (unsigned i = 0; i < s->n_contacts; i++)
		if (gossip_addr_equal(&s->contacts[i].addr, addr))
			return &s->contacts[i];
	return NULL;
}

void swim_contact(struct swim *s, const struct gossip_addr *addr)
{
	if (s->n_contacts == CONTACTS_MAX || find_contact(s, addr) != NULL ||
	    gossip_addr_equal(addr, &swim_me(s)->facts->addr))
		return;
	s->contacts[s->n_contacts++] =
		(struct contact){.addr = *addr,
				 .next_us = s->now_us,
				 .wait_us = s->config.period_us};
}

bool swim_contact_met(struct swim *s, const struct gossip_addr *addr)
{
	struct contact *c = s->n_contacts > 0 ? find_contact(s, addr) : NULL;

	if (c == NULL)
		return false;
	*c = s->contacts[--s->n_contacts];
	return true;
}

static void contacts_tick(struct swim *s)
{
	if (swim_has_left(s))
		return;
	for (unsigned i = 0; i < s->n_contacts; i++) {
		struct contact *c = &s->contacts[i];

		if (s->now_us < c->next_us)
			continue;
		c->wait_us = c->wait_us < CONTACT_WAIT_MAX / 2
				     ? c->wait_us * 2
				     : CONTACT_WAIT_MAX;
		c->next_us = s->now_us + c->wait_us;
		swim_line(s, SWIM_TRACE_REPAIR, "nobody met at %u -> try it",
			  c->addr.port);
		swim_say(s, &(struct say){.to = c->addr,
					  .kind = WIRE_PING,
					  .seq = ++s->seq,
					  .with_me = true});
	}
}

static uint64_t contacts_wake(const struct swim *s)
{
	uint64_t at = NEVER;

	for (unsigned i = 0; i < s->n_contacts && !swim_has_left(s); i++)
		if (s->contacts[i].next_us < at)
			at = s->contacts[i].next_us;
	return at;
}

/* Leaving is over when all was said, or time is up. */
static void leave_tick(struct swim *s)
{
	if (s->left_us == NEVER)
		return;
	bool is_told = !swim_me(s)->is_news || s->members.sets[IN_LIVE].n == 0;
	if (!is_told && s->now_us < s->left_us)
		return;
	s->left_us = NEVER;
	swim_event(s, &(struct swim_event){.kind = SWIM_LEFT,
					   .id = swim_me(s)->facts->id,
					   .is = WIRE_LEFT});
}

/* Each call of the driver is between enter() and leave(). */

/* F9: if we were not called for long (stopped, asleep, starved), the silence of
 * others was ours: what they had as time to answer, they get now. */
static void enter(struct swim *s, uint64_t now_us, struct swim_out *out)
{
	assert(s->out == NULL && now_us >= s->now_us);
	s->out = out;
	s->now_us = now_us;
	if (s->wake_us == NEVER || now_us <= s->wake_us + s->config.period_us)
		return;
	uint64_t lag = now_us - s->wake_us;
	swim_line(s, SWIM_TRACE_STATUS, "called late by %lu ms -> more time",
		  (unsigned long)(lag / 1000));
	swim_probe_shift(s, lag);
	members_shift_due(&s->members, lag);
	swim_health_add(s, 1);
}

static void leave(struct swim *s)
{
	const struct verdict *v = members_first_due(&s->members);
	uint64_t wakes[] = {swim_probe_wake(s), swim_push_wake(s),
			    contacts_wake(s), s->left_us,
			    v != NULL ? v->due_us : NEVER};

	s->wake_us = NEVER;
	for (size_t i = 0; i < sizeof(wakes) / sizeof(wakes[0]); i++)
		if (s->is_started && wakes[i] < s->wake_us)
			s->wake_us = wakes[i];
	s->out->wake_us = s->wake_us;
	s->out = NULL;
}

/* What is due, then what there is to tell. */
static void work(struct swim *s)
{
	struct verdict *v;

	if (!s->is_started)
		return;
	swim_probe_tick(s);
	while ((v = members_first_due(&s->members)) != NULL &&
	       v->due_us <= s->now_us)
		swim_verdict_due(s, v);
	contacts_tick(s);
	swim_push(s);
	leave_tick(s);
}

static const struct facts *
encode_self(struct swim *s, const struct swim_self *self, uint64_t version)
{
	struct facts_said said = {.addr = self->addr,
				  .name = self->name,
				  .name_len = strlen(self->name),
				  .meta = self->meta,
				  .meta_len = self->meta_len,
				  .oldest = WIRE_OLDEST,
				  .newest = WIRE_NEWEST};
	uint8_t attrs[FACTS_BYTES_MAX];
	int len = facts_encode(&said, attrs, sizeof(attrs));

	if (len < 0)
		return NULL;
	return facts_of(s->pool, &self->id, version, attrs, (size_t)len);
}

struct swim *swim_create(const struct swim_config *config,
			 const struct swim_self *self, struct facts_pool *pool,
			 uint64_t seed)
{
	struct swim *s = xcalloc(1, sizeof(*s));

	assert(self->boot > 0 && self->boot < UINT32_MAX);
	assert(config->n_probes > 0 && config->n_probes <= SWIM_PROBES_MAX);
	assert(config->n_helpers <= SWIM_HELPERS_MAX);
	assert(config->n_confirm < WIRE_ACCUSERS_MAX);
	assert(config->timeout_us < config->period_us);
	s->config = *config;
	s->pool = pool;
	s->random.state = seed;
	s->seq = (uint32_t)random_next(&s->random);
	s->wake_us = s->left_us = NEVER;
	members_init(&s->members, pool, &s->random);
	uint64_t incarnation = incarnation_of(self->boot, 0);
	const struct facts *facts = encode_self(s, self, incarnation);
	assert(facts != NULL);
	uint32_t slot = members_add(&s->members, facts, incarnation);
	assert(slot == MEMBER_SELF);
	members_set_verified(&s->members, slot);
	return s;
}

void swim_destroy(struct swim *s)
{
	if (s == NULL)
		return;
	members_finish(&s->members);
	free(s);
}

void swim_trace(struct swim *s, unsigned topics, swim_trace_cb cb, void *data)
{
	s->topics = cb != NULL ? topics : 0;
	s->trace = cb;
	s->trace_data = data;
}

void swim_start(struct swim *s, uint64_t now_us, struct swim_out *out)
{
	assert(!s->is_started);
	enter(s, now_us, out);
	s->is_started = true;
	s->changed_us = s->agreed_us = now_us;
	swim_me(s)->since_us = now_us;
	swim_probe_start(s);
	members_tell(&s->members, MEMBER_SELF);
	work(s);
	leave(s);
}

void swim_tick(struct swim *s, uint64_t now_us, struct swim_out *out)
{
	enter(s, now_us, out);
	work(s);
	leave(s);
}

void swim_recv(struct swim *s, uint64_t now_us, const struct swim_msg *msg,
	       struct swim_out *out)
{
	enter(s, now_us, out);
	if (s->is_started)
		swim_hear(s, msg);
	work(s);
	leave(s);
}

void swim_send_failed(struct swim *s, uint64_t now_us,
		      const struct gossip_addr *to, struct swim_out *out)
{
	enter(s, now_us, out);
	swim_probe_failed(s, to);
	work(s);
	leave(s);
}

void swim_join(struct swim *s, uint64_t now_us, const struct gossip_addr *addr,
	       struct swim_out *out)
{
	enter(s, now_us, out);
	if (swim_has_left(s)) { /* I9 */
		s->left_us = NEVER;
		swim_renew(s, 0, WIRE_ALIVE);
		swim_line(s, SWIM_TRACE_STATUS, "join after leave -> alive");
		swim_probe_start(s);
	}
	swim_contact(s, addr);
	work(s);
	leave(s);
}

void swim_leave(struct swim *s, uint64_t now_us, struct swim_out *out)
{
	enter(s, now_us, out);
	if (!swim_has_left(s)) {
		swim_line(s, SWIM_TRACE_STATUS, "asked to leave -> left");
		swim_renew(s, 0, WIRE_LEFT);
		s->left_us = now_us + LEAVE_US;
	}
	work(s);
	leave(s);
}

int swim_forget(struct swim *s, uint64_t now_us, const struct gossip_id *id,
		struct swim_out *out)
{
	uint32_t slot = members_find(&s->members, id);

	if (slot == MEMBER_NONE)
		return -ENOENT;
	struct member *m = member_at(&s->members, slot);
	struct wire_record r = {.incarnation = m->incarnation,
				.status = WIRE_FORGOTTEN};
	if (slot == MEMBER_SELF || !member_is_gone(m))
		return -EBUSY;
	enter(s, now_us, out);
	swim_believe(s, slot, &r, "asked to forget");
	work(s);
	leave(s);
	return 0;
}

int swim_obituary(struct swim *s, uint64_t now_us, const struct gossip_id *id,
		  uint32_t boot, struct swim_out *out)
{
	uint32_t slot = members_find(&s->members, id);
	uint64_t first = incarnation_of(boot, 0);

	if (slot == MEMBER_NONE)
		return -ENOENT;
	if (boot == 0 || boot == UINT32_MAX)
		return -EINVAL;
	const struct member *m = member_at(&s->members, slot);
	if (boot < incarnation_boot(m->incarnation))
		return -ESTALE;
	if (slot == MEMBER_SELF)
		return -EBUSY;
	struct wire_record r = {
		.incarnation = m->incarnation > first ? m->incarnation : first,
		.status = WIRE_DEAD,
		.n_accusers = 1,
		.accusers = {swim_me(s)->facts->id}};
	enter(s, now_us, out);
	swim_believe(s, slot, &r, "proof of the end of");
	work(s);
	leave(s);
	return 0;
}

void swim_tell(struct swim *s, uint64_t now_us, const struct gossip_addr *addr,
	       const struct gossip_id *id, struct swim_out *out)
{
	uint32_t slot = members_find(&s->members, id);

	enter(s, now_us, out);
	if (slot != MEMBER_NONE && slot != MEMBER_SELF)
		swim_say(s, &(struct say){.to = *addr,
					  .kind = WIRE_NEWS,
					  .subject = id,
					  .about = slot});
	work(s);
	leave(s);
}

void swim_hint(struct swim *s, const struct gossip_id *id)
{
	uint32_t slot = members_find(&s->members, id);

	if (slot != MEMBER_NONE && slot != MEMBER_SELF)
		members_take_turn(&s->members, slot);
}

int swim_set_self(struct swim *s, uint64_t now_us,
		  const struct gossip_addr *addr, const uint8_t *meta,
		  size_t meta_len, struct swim_out *out)
{
	const struct member *me = swim_me(s);
	char name[FACTS_NAME_MAX + 1] = "";

	memcpy(name, facts_name(me->facts), me->facts->name_len);
	struct swim_self self = {.id = me->facts->id,
				 .addr = *addr,
				 .name = name,
				 .meta = meta,
				 .meta_len = meta_len};
	const struct facts *facts = encode_self(s, &self, me->incarnation + 1);
	if (facts == NULL)
		return -EINVAL;
	enter(s, now_us, out);
	swim_renew(s, 0, me->status);
	members_set_facts(&s->members, MEMBER_SELF, facts);
	work(s);
	leave(s);
	return 0;
}

static void view_of(const struct swim *s, uint32_t slot, struct swim_view *view)
{
	const struct member *m = member_at(&s->members, slot);

	*view = (struct swim_view){.facts = m->facts,
				   .incarnation = m->incarnation,
				   .since_us = m->since_us,
				   .rtt_us = m->rtt_us,
				   .status = m->status,
				   .is_verified = m->is_verified};
	if (m->verdict != NULL && m->verdict->n_accusers > 0)
		view->accuser = m->verdict->accusers[0];
}

bool swim_next(const struct swim *s, uint32_t *cursor, struct swim_view *view)
{
	uint32_t slot = *cursor;

	while (slot < s->members.n_slots &&
	       member_at(&s->members, slot)->facts == NULL)
		slot++;
	*cursor = slot + 1;
	if (slot >= s->members.n_slots)
		return false;
	view_of(s, slot, view);
	return true;
}

bool swim_find(const struct swim *s, const struct gossip_id *id,
	       struct swim_view *view)
{
	uint32_t slot = members_find(&s->members, id);

	if (slot == MEMBER_NONE)
		return false;
	view_of(s, slot, view);
	return true;
}

void swim_stats(const struct swim *s, struct swim_stats *stats)
{
	*stats = (struct swim_stats){.n_members = s->members.n,
				     .n_round = s->members.sets[IN_ROUND].n,
				     .n_news = s->members.n_news,
				     .health = s->health,
				     .is_isolated = s->is_isolated,
				     .digest = s->members.digest,
				     .n_bad = s->n_bad,
				     .n_foreign = s->n_foreign,
				     .n_repairs = s->n_repairs};
}

void swim_check(const struct swim *s)
{
	assert(s->out == NULL);
	assert(s->n_relays <= RELAYS_MAX && s->n_contacts <= CONTACTS_MAX);
	assert(s->health <= s->config.health_max);
	assert(swim_me(s)->status == WIRE_ALIVE ||
	       swim_me(s)->status == WIRE_LEFT);
	members_check(&s->members);
}

void swim_know(struct swim *s, uint64_t now_us, const struct facts *facts)
{
	uint32_t slot =
		members_add(&s->members, facts_keep(facts), facts->version);

	member_at(&s->members, slot)->since_us = now_us;
	members_set_verified(&s->members, slot);
}

const struct facts *swim_facts(const struct swim *s)
{
	return swim_me(s)->facts;
}
