/* SPDX-License-Identifier: MIT */
/* Replicated logs: a class of scuttlebutt. Every member is told every event of a
 * topic exactly once, those of one source in their order, also what was written
 * while it was away, as far as the topic's log reaches back.
 *
 * A log keeps the newest `retain` events, by stamp: the same on every member
 * (the top n of a union is the same, whatever was joined first). In the order of
 * stamps an event comes after all that its writer had seen, so the log reads in
 * the same sensible order everywhere; events_cb tells the order of arrival.
 *
 * Topics are made, and forgotten with all events so far: that is a tombstone,
 * collected once every member has it. Thread: loop. Private to gossip/. */
#ifndef GOSSIP_EVENTS_H
#define GOSSIP_EVENTS_H

#include "gossip/scuttlebutt.h"

#define EVENTS_BYTES_MAX (8u << 10) /* of one event */
#define EVENTS_CHANNEL	 2
#define EVENTS_RETAIN	 10000

struct events;

struct event {
	const char
		*topic; /* not terminated; all borrowed until the next call */
	size_t topic_len;
	const uint8_t *bytes;
	size_t len;
	const struct sb_source *source;
	uint64_t version; /* source and version are its identity */
};

/* Must not call back. */
typedef void (*events_cb)(void *data, const struct event *event);

/* Never NULL. cb may be NULL; what is loaded is not told again. */
struct events *events_create(const struct sb_config *config,
			     const struct sb_self *self, events_cb cb,
			     void *data);
void events_destroy(struct events *e);
struct sb *events_sb(const struct events *e);

/* After these, sb_tick(). 0; -EINVAL, the topic's name; -EFBIG; -ENOSPC. */
int events_open(struct events *e, const char *topic, size_t len);
/* Own events are told to cb as well. */
int events_emit(struct events *e, const char *topic, size_t topic_len,
		const void *bytes, size_t len);
/* Also -ENOENT. */
int events_forget(struct events *e, const char *topic, size_t len);
/* Keep so many from now on, at least 1; the same on all members, or their logs
 * differ. */
void events_retain(struct events *e, const char *topic, size_t len,
		   uint32_t retain);

struct events_topic {
	const char *name; /* borrowed until the next call */
	size_t len;
	uint32_t n; /* events in the log */
	uint32_t retain;
};
/* The next topic, in no order; from cursor 0 until false. */
bool events_next(const struct events *e, size_t *cursor,
		 struct events_topic *topic);
bool events_find(const struct events *e, const char *topic, size_t len,
		 struct events_topic *found);
/* The log, in the order of stamps: up to n events; how many there were. */
size_t events_list(const struct events *e, const char *topic, size_t len,
		   struct event *list, size_t n);

#endif
