/* SPDX-License-Identifier: MIT */
/* A record's body:
 *
 *	 0  counter       8
 *	 8  kind          1   enum kind; of a tombstone: 0, and no event
 *	 9  topic length  1   1 to 255
 *	10  topic
 *	    event             to the end */
#include "gossip/events.h"

#include <assert.h>
#include <errno.h>
#include <xxhash.h>

#include "gossip/index.h"
#include "gossip/name.h"
#include "gossip/stamp.h"

#define HEAD_BYTES 10

enum kind {
	FORGET = 0, /* a tombstone: all of the topic before this is dead */
	EVENT = 1,
	OPEN = 2, /* the topic exists, even without events */
};

struct topic {
	struct sb_record **heap; /* the log; the lowest stamp on top */
	uint32_t n, cap;
	uint32_t retain;
	struct sb_record *opened;    /* the newest that says so, or NULL */
	struct sb_record *forgotten; /* likewise */
	size_t len;
	char name[];
};

struct events {
	struct sb *sb;
	struct index topics;
	uint64_t seed, clock;
	bool is_applying; /* a topic is in use */
	events_cb cb;
	void *data;
};

static bool read_body(const struct sb_record *r, struct event *event,
		      uint8_t *kind)
{
	struct bytes_in in = bytes_in_of(r->body, r->len);

	*event = (struct event){.source = r->source, .version = r->version};
	bytes_u64(&in);
	*kind = bytes_u8(&in);
	event->topic_len = bytes_u8(&in);
	event->topic = (const char *)bytes_take(&in, event->topic_len);
	event->bytes = in.at;
	event->len = bytes_left(&in);
	return !in.bad && name_is_good(event->topic, event->topic_len) &&
	       *kind <= OPEN && r->is_tomb == (*kind == FORGET) &&
	       event->len <= (*kind == EVENT ? EVENTS_BYTES_MAX : 0);
}

/* ---- Topics ---- */

static uint64_t hash_name(const struct events *e, const char *name, size_t len)
{
	return XXH3_64bits_withSeed(name, len, e->seed);
}

static struct topic *find(const struct events *e, const char *name, size_t len)
{
	uint64_t hash = hash_name(e, name, len);
	struct topic *t;

	for (size_t at = index_begin(&e->topics, hash);
	     (t = index_next(&e->topics, hash, &at)) != NULL;)
		if (t->len == len && memcmp(t->name, name, len) == 0)
			return t;
	return NULL;
}

static struct topic *topic_of(struct events *e, const char *name, size_t len)
{
	struct topic *t = find(e, name, len);

	if (t != NULL)
		return t;
	t = xcalloc(1, sizeof(*t) + len);
	t->retain = EVENTS_RETAIN;
	t->len = len;
	memcpy(t->name, name, len);
	index_put(&e->topics, hash_name(e, name, len), t);
	return t;
}

static void free_topic(struct topic *t)
{
	free(t->heap);
	free(t);
}

/* One that was never set up otherwise goes with its last record. */
static void tidy(struct events *e, struct topic *t)
{
	if (t->n > 0 || t->opened != NULL || t->forgotten != NULL ||
	    t->retain != EVENTS_RETAIN)
		return;
	index_remove(&e->topics, hash_name(e, t->name, t->len), t);
	free_topic(t);
}

static bool exists(const struct topic *t)
{
	return t != NULL && (t->n > 0 || t->opened != NULL);
}

/* ---- A topic's log: a heap of records, each knowing its place ---- */

static void heap_set(struct topic *t, uint32_t at, struct sb_record *r)
{
	t->heap[at] = r;
	r->at = at;
}

static void heap_up(struct topic *t, uint32_t at, struct sb_record *r)
{
	while (at > 0) {
		uint32_t above = (at - 1) / 2;
		if (stamp_compare(t->heap[above], r) < 0)
			break;
		heap_set(t, at, t->heap[above]);
		at = above;
	}
	heap_set(t, at, r);
}

static void heap_down(struct topic *t, uint32_t at, struct sb_record *r)
{
	for (;;) {
		uint32_t below = 2 * at + 1;
		if (below + 1 < t->n &&
		    stamp_compare(t->heap[below + 1], t->heap[below]) < 0)
			below++;
		if (below >= t->n || stamp_compare(r, t->heap[below]) < 0)
			break;
		heap_set(t, at, t->heap[below]);
		at = below;
	}
	heap_set(t, at, r);
}

static void heap_add(struct topic *t, struct sb_record *r)
{
	if (t->n == t->cap) {
		t->cap += t->cap + 8;
		t->heap =
			xrealloc(t->heap, t->cap * sizeof(struct sb_record *));
	}
	heap_up(t, t->n++, r);
}

static void heap_remove(struct topic *t, const struct sb_record *r)
{
	uint32_t at = r->at;
	struct sb_record *last = t->heap[--t->n];

	assert(t->heap[at] == r);
	if (last == r)
		return;
	heap_down(t, at, last);
	heap_up(t, last->at, last);
}

static void trim(struct events *e, struct topic *t, uint32_t n)
{
	while (t->n > n)
		sb_drop(e->sb, t->heap[0]);
}

/* ---- The class ---- */

static bool apply_event(struct events *e, struct topic *t, struct sb_record *r)
{
	if (t->n >= t->retain) {
		if (stamp_compare(r, t->heap[0]) < 0)
			return false;
		trim(e, t, t->retain - 1);
	}
	heap_add(t, r);
	return true;
}

/* Keep r in *place if it is the newest of its kind. */
static bool apply_newest(struct events *e, struct sb_record **place,
			 struct sb_record *r)
{
	struct sb_record *old = *place;

	if (old != NULL && stamp_compare(r, old) < 0)
		return false;
	*place = r;
	if (old != NULL)
		sb_drop(e->sb, old);
	return true;
}

static void drop_forgotten(struct events *e, struct topic *t)
{
	while (t->n > 0 && stamp_compare(t->heap[0], t->forgotten) < 0)
		sb_drop(e->sb, t->heap[0]);
	if (t->opened != NULL && stamp_compare(t->opened, t->forgotten) < 0)
		sb_drop(e->sb, t->opened);
}

static bool apply_to(struct events *e, struct topic *t, struct sb_record *r,
		     uint8_t kind)
{
	if (t->forgotten != NULL && stamp_compare(r, t->forgotten) < 0)
		return false;
	if (kind == EVENT)
		return apply_event(e, t, r);
	if (kind == OPEN)
		return apply_newest(e, &t->opened, r);
	if (!apply_newest(e, &t->forgotten, r))
		return false;
	drop_forgotten(e, t);
	return true;
}

static bool on_apply(void *user, struct sb_record *r, bool is_fresh)
{
	struct events *e = user;
	struct event event;
	uint8_t kind;

	if (!read_body(r, &event, &kind) ||
	    !stamp_see(&e->clock, stamp_counter(r)))
		return false;
	struct topic *t = topic_of(e, event.topic, event.topic_len);
	bool is_forgotten =
		t->forgotten != NULL && stamp_compare(r, t->forgotten) < 0;
	/* Even one that is older than all of a full log is told, once. */
	if (kind == EVENT && is_fresh && !is_forgotten && e->cb != NULL)
		e->cb(e->data, &event);
	e->is_applying = true;
	bool keep = apply_to(e, t, r, kind);
	e->is_applying = false;
	if (!keep)
		tidy(e, t);
	return keep;
}

static void on_drop(void *user, struct sb_record *r)
{
	struct events *e = user;
	struct event event;
	uint8_t kind;

	read_body(r, &event, &kind);
	struct topic *t = find(e, event.topic, event.topic_len);
	if (kind == EVENT)
		heap_remove(t, r);
	else if (kind == OPEN && t->opened == r)
		t->opened = NULL;
	else if (kind == FORGET && t->forgotten == r)
		t->forgotten = NULL;
	if (!e->is_applying)
		tidy(e, t);
}

static const struct sb_class class = {.apply = on_apply,
				      .drop = on_drop,
				      .channel = EVENTS_CHANNEL};

/* ---- Life ---- */

struct events *events_create(const struct sb_config *config,
			     const struct sb_self *self, events_cb cb,
			     void *data)
{
	struct events *e = xcalloc(1, sizeof(*e));

	e->seed = self->seed * 0x9e3779b97f4a7c15;
	e->cb = cb;
	e->data = data;
	e->sb = sb_create(config, &class, e, self);
	return e;
}

void events_destroy(struct events *e)
{
	if (e == NULL)
		return;
	sb_destroy(e->sb);
	for (size_t i = 0; i < e->topics.cap; i++)
		if (e->topics.slots[i].item != NULL)
			free_topic(e->topics.slots[i].item);
	index_finish(&e->topics);
	free(e);
}

struct sb *events_sb(const struct events *e)
{
	return e->sb;
}

/* ---- Writing ---- */

static int write_record(struct events *e, enum kind kind,
			const struct event *event)
{
	uint8_t body[HEAD_BYTES + NAME_BYTES_MAX + EVENTS_BYTES_MAX];
	struct bytes_out out = bytes_out_of(body, sizeof(body));

	if (!name_is_good(event->topic, event->topic_len))
		return -EINVAL;
	if (event->len > EVENTS_BYTES_MAX)
		return -EFBIG;
	bytes_put_u64(&out, e->clock + 1);
	bytes_put_u8(&out, (uint8_t)kind);
	bytes_put_u8(&out, (uint8_t)event->topic_len);
	bytes_put(&out, event->topic, event->topic_len);
	bytes_put(&out, event->bytes, event->len);
	return sb_write(e->sb, body, out.len, kind == FORGET);
}

int events_open(struct events *e, const char *topic, size_t len)
{
	struct event event = {.topic = topic, .topic_len = len};

	return write_record(e, OPEN, &event);
}

int events_emit(struct events *e, const char *topic, size_t topic_len,
		const void *bytes, size_t len)
{
	struct event event = {.topic = topic,
			      .topic_len = topic_len,
			      .bytes = bytes,
			      .len = len};

	return write_record(e, EVENT, &event);
}

int events_forget(struct events *e, const char *topic, size_t len)
{
	struct event event = {.topic = topic, .topic_len = len};

	if (!exists(find(e, topic, len)))
		return -ENOENT;
	return write_record(e, FORGET, &event);
}

void events_retain(struct events *e, const char *topic, size_t len,
		   uint32_t retain)
{
	struct topic *t = topic_of(e, topic, len);

	assert(retain > 0);
	t->retain = retain;
	trim(e, t, retain); /* something stays, so t does */
	tidy(e, t);
}

/* ---- Asking ---- */

static void view(const struct topic *t, struct events_topic *topic)
{
	*topic = (struct events_topic){
		.name = t->name, .len = t->len, .n = t->n, .retain = t->retain};
}

bool events_next(const struct events *e, size_t *cursor,
		 struct events_topic *topic)
{
	while (*cursor < e->topics.cap) {
		const struct topic *t = e->topics.slots[(*cursor)++].item;
		if (!exists(t))
			continue;
		view(t, topic);
		return true;
	}
	return false;
}

bool events_find(const struct events *e, const char *topic, size_t len,
		 struct events_topic *found)
{
	const struct topic *t = find(e, topic, len);

	if (!exists(t))
		return false;
	view(t, found);
	return true;
}

static int by_stamp(const void *a, const void *b)
{
	return stamp_compare(*(struct sb_record *const *)a,
			     *(struct sb_record *const *)b);
}

size_t events_list(const struct events *e, const char *topic, size_t len,
		   struct event *list, size_t n)
{
	const struct topic *t = find(e, topic, len);
	uint8_t kind;

	if (t == NULL || t->n == 0)
		return 0;
	struct sb_record **sorted = xmalloc(t->n * sizeof(struct sb_record *));
	memcpy(sorted, t->heap, t->n * sizeof(struct sb_record *));
	qsort(sorted, t->n, sizeof(struct sb_record *), by_stamp);
	for (size_t i = 0; i < n && i < t->n; i++)
		read_body(sorted[i], &list[i], &kind);
	free(sorted);
	return t->n < n ? t->n : n;
}
