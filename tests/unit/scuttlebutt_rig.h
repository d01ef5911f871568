/* SPDX-License-Identifier: MIT */
/* A cluster in virtual time for the tests of scuttlebutt: nodes with the three
 * classes, and a network that delays, reorders, loses and doubles the encoded
 * bytes (D11). All follows from one seed. */
#ifndef TESTS_UNIT_SCUTTLEBUTT_RIG_H
#define TESTS_UNIT_SCUTTLEBUTT_RIG_H

#include <assert.h>
#include <string.h>

#include "check.h"
#include "gossip/events.h"
#include "gossip/mem.h"
#include "gossip/model.h"
#include "gossip/random.h"
#include "gossip/traits.h"

#define RIG_NODES   16
#define RIG_CLASSES 3
#define RIG_SOURCES 4096

/* What the events callback has told, per source. */
struct rig_told {
	struct gossip_id id;
	uint64_t life, version, n;
};

struct rig_disk {
	uint8_t *bytes[RIG_CLASSES];
	size_t len[RIG_CLASSES];
	struct rig_told *told;
	size_t n_told;
};

struct rig;

struct rig_node {
	struct rig *rig;
	struct gossip_id id;
	uint32_t boot;
	bool is_up;
	struct model *model;
	struct events *events;
	struct traits *traits;
	struct sb *sb[RIG_CLASSES];
	uint64_t wake_us;
	struct rig_disk disk;
	struct rig_told *told;
	size_t n_told;
	unsigned side; /* of a partition */
};

struct rig_packet {
	uint64_t at_us, order;
	struct rig_packet *next;
	unsigned from, to, class;
	size_t len;
	uint8_t bytes[];
};

struct rig {
	struct random random;
	struct sb_config config;
	uint64_t now_us, order;
	struct rig_node node[RIG_NODES];
	unsigned n;
	struct rig_packet *packets; /* by time */
	unsigned loss, twice;	    /* per cent */
	uint32_t delay_us;	    /* at most */
	struct sb_out out;
	uint64_t n_sent, n_sent_bytes, n_streams;
	size_t longest_packet, longest_stream;
	uint64_t n_events_told;
	uint64_t
		n_yielded; /* resets to the word of one as stale, or given up */
};

static inline struct gossip_id rig_id(unsigned i)
{
	struct gossip_id id = {{0}};

	id.b[0] = (uint8_t)(i + 1);
	id.b[15] = 0x5b;
	return id;
}

/* SB-5: once each, in order per source. */
static inline void rig_on_event(void *data, const struct event *e)
{
	struct rig_node *n = data;

	n->rig->n_events_told++;
	for (size_t i = 0; i < n->n_told; i++) {
		struct rig_told *t = &n->told[i];
		if (t->life != e->source->life ||
		    !gossip_id_equal(&t->id, &e->source->id))
			continue;
		check(e->version > t->version,
		      "event %llu told after %llu of one source",
		      (unsigned long long)e->version,
		      (unsigned long long)t->version);
		t->version = e->version;
		t->n++;
		return;
	}
	assert(n->n_told < RIG_SOURCES);
	n->told[n->n_told++] = (struct rig_told){e->source->id, e->source->life,
						 e->version, 1};
}

static inline void rig_init(struct rig *r, uint64_t seed, unsigned n)
{
	assert(n <= RIG_NODES);
	*r = (struct rig){.random = {seed},
			  .config = sb_defaults,
			  .n = n,
			  .now_us = 1000000,
			  .delay_us = 5000};
	r->config.repair_us = 3000000;
	for (unsigned i = 0; i < n; i++)
		r->node[i] = (struct rig_node){.rig = r, .id = rig_id(i)};
}

static inline void rig_disk_clear(struct rig_disk *d)
{
	for (unsigned c = 0; c < RIG_CLASSES; c++)
		free(d->bytes[c]);
	free(d->told);
	*d = (struct rig_disk){0};
}

static inline void rig_save(struct rig_node *n)
{
	struct rig_disk *d = &n->disk;
	size_t cap = n->rig->config.stream_bytes;

	for (unsigned c = 0; c < RIG_CLASSES; c++) {
		struct sb_stats st;

		sb_stats(n->sb[c], &st);
		if (st.is_resetting)
			return;
	}
	rig_disk_clear(d);
	d->told = xcalloc(RIG_SOURCES, sizeof(*d->told));
	memcpy(d->told, n->told, n->n_told * sizeof(*d->told));
	d->n_told = n->n_told;
	for (unsigned c = 0; c < RIG_CLASSES; c++) {
		struct sb_dump at = {0};
		size_t len = 0, got;
		do {
			d->bytes[c] = xrealloc(d->bytes[c], len + cap);
			got = sb_dump(n->sb[c], &at, d->bytes[c] + len, cap);
			len += got;
		} while (got > 0);
		d->len[c] = len;
	}
}

static inline void rig_know(struct rig *r, unsigned i, unsigned j)
{
	for (unsigned c = 0; c < RIG_CLASSES; c++)
		sb_member(r->node[i].sb[c], &r->node[j].id, true);
}

static inline void rig_forget(struct rig *r, unsigned j)
{
	for (unsigned i = 0; i < r->n; i++)
		for (unsigned c = 0; c < RIG_CLASSES; c++)
			if (r->node[i].is_up && i != j)
				sb_forget(r->node[i].sb[c], &r->node[j].id);
}

/* Start with what is on its disk; others come to know it when they are up. */
static inline void rig_start(struct rig *r, unsigned i)
{
	struct rig_node *n = &r->node[i];
	struct sb_self self = {n->id, ++n->boot, random_next(&r->random)};

	assert(!n->is_up);
	n->model = model_create(&r->config, &self, NULL, NULL);
	n->events = events_create(&r->config, &self, rig_on_event, n);
	n->traits = traits_create(&r->config, &self, NULL, NULL);
	n->sb[0] = model_sb(n->model);
	n->sb[1] = events_sb(n->events);
	n->sb[2] = traits_sb(n->traits);
	n->told = xcalloc(RIG_SOURCES, sizeof(*n->told));
	n->n_told = n->disk.n_told;
	if (n->n_told > 0)
		memcpy(n->told, n->disk.told, n->n_told * sizeof(*n->told));
	for (unsigned c = 0; c < RIG_CLASSES; c++)
		check_int(sb_load(n->sb[c], n->disk.bytes[c], n->disk.len[c]),
			  0);
	n->is_up = true;
	n->wake_us = r->now_us;
	for (unsigned j = 0; j < r->n; j++) {
		if (j == i || !r->node[j].is_up)
			continue;
		rig_know(r, i, j);
		rig_know(r, j, i);
	}
}

static inline void rig_kill(struct rig *r, unsigned i)
{
	struct rig_node *n = &r->node[i];
	struct sb_stats st;

	sb_stats(n->sb[0], &st);
	r->n_yielded += st.n_yielded + st.n_given_up;
	model_destroy(n->model);
	events_destroy(n->events);
	traits_destroy(n->traits);
	free(n->told);
	n->told = NULL;
	n->is_up = false;
}

static inline void rig_finish(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		if (r->node[i].is_up)
			rig_kill(r, i);
		rig_disk_clear(&r->node[i].disk);
	}
	for (struct rig_packet *p = r->packets, *next; p != NULL; p = next) {
		next = p->next;
		free(p);
	}
	sb_out_finish(&r->out);
}

static inline void rig_post(struct rig *r, unsigned from, unsigned to,
			    unsigned class, const struct sb_send *send)
{
	struct rig_packet *p = xmalloc(sizeof(*p) + send->len);
	struct rig_packet **at = &r->packets;

	*p = (struct rig_packet){.at_us = r->now_us + 100 +
					  random_below(&r->random, r->delay_us),
				 .order = r->order++,
				 .from = from,
				 .to = to,
				 .class = class,
				 .len = send->len};
	memcpy(p->bytes, r->out.bytes + send->at, send->len);
	while (*at != NULL && (*at)->at_us <= p->at_us)
		at = &(*at)->next;
	p->next = *at;
	*at = p;
}

static inline void rig_carry(struct rig *r, unsigned from, unsigned class)
{
	struct rig_node *n = &r->node[from];

	for (size_t k = 0; k < r->out.n_sends; k++) {
		const struct sb_send *s = &r->out.sends[k];
		unsigned to = s->to.b[0] - 1u;
		size_t *longest =
			s->on_stream ? &r->longest_stream : &r->longest_packet;
		assert(to < r->n && to != from);
		r->n_sent++;
		r->n_sent_bytes += s->len;
		r->n_streams += s->on_stream;
		*longest = s->len > *longest ? s->len : *longest;
		check(s->len <= (s->on_stream ? r->config.stream_bytes
					      : r->config.packet_bytes),
		      "%u bytes", s->len);
		if (random_below(&r->random, 100) < r->loss)
			continue;
		rig_post(r, from, to, class, s);
		if (random_below(&r->random, 100) < r->twice)
			rig_post(r, from, to, class, s);
	}
	if (r->out.wake_us < n->wake_us)
		n->wake_us = r->out.wake_us;
	sb_out_clear(&r->out);
}

static inline void rig_tick(struct rig *r, unsigned i)
{
	struct rig_node *n = &r->node[i];

	n->wake_us = UINT64_MAX;
	for (unsigned c = 0; c < RIG_CLASSES; c++) {
		sb_tick(n->sb[c], r->now_us, &r->out);
		rig_carry(r, i, c);
	}
}

static inline void rig_deliver(struct rig *r)
{
	struct rig_packet *p = r->packets;
	struct rig_node *to = &r->node[p->to], *from = &r->node[p->from];
	struct sb_msg msg = {from->id, p->bytes, p->len};

	r->packets = p->next;
	if (to->is_up && to->side == from->side) {
		sb_recv(to->sb[p->class], r->now_us, &msg, &r->out);
		rig_carry(r, p->to, p->class);
	}
	free(p);
}

/* Let time pass until the given moment. D1: messages do not breed. */
static inline void rig_run_until(struct rig *r, uint64_t end_us)
{
	uint64_t most = r->n_sent + RIG_CLASSES * r->n * 200ull *
					    (1 + (end_us - r->now_us) / 100000);

	for (;;) {
		uint64_t at = r->packets ? r->packets->at_us : UINT64_MAX;
		unsigned who = r->n;
		for (unsigned i = 0; i < r->n; i++) {
			if (r->node[i].is_up && r->node[i].wake_us < at) {
				at = r->node[i].wake_us;
				who = i;
			}
		}
		if (at > end_us)
			break;
		if (at > r->now_us)
			r->now_us = at;
		check(r->n_sent < most, "a storm of messages");
		if (who < r->n)
			rig_tick(r, who);
		else
			rig_deliver(r);
	}
	r->now_us = end_us;
}

static inline void rig_run(struct rig *r, uint64_t ms)
{
	rig_run_until(r, r->now_us + ms * 1000);
}

static inline bool rig_is_equal(const struct rig *r)
{
	const struct rig_node *first = NULL;

	for (unsigned i = 0; i < r->n; i++) {
		const struct rig_node *n = &r->node[i];
		if (!n->is_up)
			continue;
		if (first == NULL)
			first = n;
		for (unsigned c = 0; c < RIG_CLASSES; c++) {
			struct sb_stats a, b;
			sb_stats(first->sb[c], &a);
			sb_stats(n->sb[c], &b);
			if (a.vector != b.vector || a.content != b.content ||
			    b.is_walking || b.n_tombs > 0)
				return false;
		}
	}
	return true;
}

/* Run until all who are up are equal, and no tombstone is left. The time it
 * took, in ms, or -1. */
static inline int rig_settle(struct rig *r, int most_ms)
{
	for (int ms = 0; ms <= most_ms; ms += 10) {
		if (rig_is_equal(r))
			return ms;
		rig_run(r, 10);
	}
	return -1;
}

/* ---- Shorthands ---- */

static inline void touch(struct rig *r, unsigned i)
{
	r->node[i].wake_us = r->now_us;
}

static inline int set(struct rig *r, unsigned i, const char *key,
		      const char *value)
{
	touch(r, i);
	return model_set(r->node[i].model, key, strlen(key), value,
			 strlen(value));
}

static inline int del(struct rig *r, unsigned i, const char *key)
{
	touch(r, i);
	return model_delete(r->node[i].model, key, strlen(key));
}

/* The value as a string, "" for none. */
static inline const char *get(struct rig *r, unsigned i, const char *key)
{
	static char value[64];
	struct model_view view;

	value[0] = '\0';
	if (model_get(r->node[i].model, key, strlen(key), &view))
		snprintf(value, sizeof(value), "%.*s", (int)view.value_len,
			 (const char *)view.value);
	return value;
}

static inline int emit(struct rig *r, unsigned i, const char *topic,
		       const char *event)
{
	touch(r, i);
	return events_emit(r->node[i].events, topic, strlen(topic), event,
			   strlen(event));
}

static inline uint32_t n_events(struct rig *r, unsigned i, const char *topic)
{
	struct events_topic t;

	return events_find(r->node[i].events, topic, strlen(topic), &t) ? t.n
									: 0;
}

static inline struct sb_stats stats(struct rig *r, unsigned i, unsigned class)
{
	struct sb_stats st;

	sb_check(r->node[i].sb[class]);
	sb_stats(r->node[i].sb[class], &st);
	return st;
}

static inline void start_all(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++)
		rig_start(r, i);
}

#define check_value(r, i, key, want)                                           \
	check(strcmp(get(r, i, key), want) == 0, "node %u: %s is \"%s\"", i,   \
	      key, get(r, i, key))

#define check_settles(r, most_ms)                                              \
	do {                                                                   \
		int ms_ = rig_settle(r, most_ms);                              \
		check(ms_ >= 0, "not equal after %d ms", most_ms);             \
	} while (0)

#endif
