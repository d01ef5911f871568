/* SPDX-License-Identifier: MIT */
/* status/NAME: the texts of facts.c, rendered at open; ids are places in their
 * table.
 *
 * The times of state and events are those of their last change, and each change
 * is announced: of state at once, of events at most EVENTS_MS later and together
 * with what follows in that time, for an announcement costs as much as a change
 * of a key. */
#include "fs/dir_status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/facts.h"
#include "fs/log.h"
#include "fs/tree_impl.h"
#include "fs/util.h"

#define EVENTS_MS 100

struct status {
	struct facts_events events;
	enum ring_health health;
	char reason[RING_ERRMSG_SIZE];
	struct timespec state_time, events_time;
	bool events_owed;	 /* a change is not announced yet */
	uint64_t events_next_ms; /* no announcement before */
};

static struct status *status_of(struct tree *t)
{
	void **data = tree_data(t, &dir_status);

	if (*data == NULL) {
		struct status *s = xcalloc(1, sizeof(*s));

		s->state_time = s->events_time = t->started;
		*data = s;
	}
	return *data;
}

void dir_status_facts(struct tree *t, unsigned needs, struct facts *out)
{
	*out = (struct facts){
		.version = t->version,
		.mountpoint = t->mountpoint,
		.address = t->address,
		.pid = getpid(),
		.events = status_of(t)->events,
		.expect = t->expect,
		.has_gossip = t->cluster != NULL,
	};
	if (t->cluster != NULL) {
		out->address = cluster_address(t->cluster);
		cluster_stats(t->cluster, &out->gossip);
	}
	if (needs & FACTS_PEERS)
		out->peers = dir_peers_all(t, &out->n_peers);
	facts_gather(out, t->ring, t->herald, needs & FACTS_OWNERS);
}

static void changed(struct tree *t, const char *name, struct timespec *when)
{
	clock_gettime(CLOCK_REALTIME, when);
	tree_post(t, &dir_status, name, HERALD_MODIFY);
}

static void status_on_change(struct tree *t, const struct ring_change *change)
{
	struct status *s = status_of(t);

	facts_count(&s->events, change);
	s->events_owed = true;
}

static uint64_t status_on_flush(struct tree *t, uint64_t now_ms)
{
	struct status *s = status_of(t);

	if (!s->events_owed)
		return UINT64_MAX;
	if (now_ms < s->events_next_ms)
		return s->events_next_ms;
	s->events_owed = false;
	s->events_next_ms = now_ms + EVENTS_MS;
	changed(t, "events", &s->events_time);
	return UINT64_MAX;
}

/* Since when, is what the log is asked first. A failed disk the ring tells of
 * itself, and that a node serves at last, whoever waits for it. */
static void log_health(enum ring_health before, const struct ring_status *now)
{
	if (now->health == before)
		return;
	if (now->health == RING_ISOLATED)
		log_warning("isolated: %s", now->reason);
	else if (now->health == RING_FULL)
		log_warning("refuses changes: %s", now->reason);
	else if (now->health == RING_DRAINING)
		log_info("%s", now->reason);
	else if (now->health == RING_READY && before != RING_JOINING)
		log_info("ready: %s", now->reason);
}

static void status_on_status(struct tree *t)
{
	struct status *s = status_of(t);
	struct ring_status now;

	s->events.status++;
	s->events_owed = true;
	ring_status(t->ring, &now);
	if (now.health == s->health && strcmp(now.reason, s->reason) == 0)
		return;
	log_health(s->health, &now);
	s->health = now.health;
	memcpy(s->reason, now.reason, sizeof(s->reason));
	changed(t, "state", &s->state_time);
}

static int status_lookup(struct tree *t, const struct dir *d, const char *name,
			 uint64_t *id)
{
	(void)d;
	(void)t;
	for (size_t i = 0; facts_files[i].name; i++) {
		if (strcmp(facts_files[i].name, name) == 0) {
			*id = i;
			return 0;
		}
	}
	return -ENOENT;
}

static uint64_t *status_list(struct tree *t, const struct dir *d, size_t *n)
{
	(void)d;
	(void)t;
	*n = 0;
	while (facts_files[*n].name)
		++*n;
	uint64_t *ids = xcalloc(*n, sizeof(*ids));
	for (size_t i = 0; i < *n; i++)
		ids[i] = i;
	return ids;
}

static const char *status_name_of(struct tree *t, const struct dir *d,
				  uint64_t id)
{
	(void)d;
	(void)t;
	return facts_files[id].name;
}

static int status_attr(struct tree *t, uint64_t id, struct stat *st)
{
	const struct status *s = status_of(t);

	if (strcmp(facts_files[id].name, "state") == 0)
		st->st_mtim = st->st_ctim = s->state_time;
	else if (strcmp(facts_files[id].name, "events") == 0)
		st->st_mtim = st->st_ctim = s->events_time;
	return 0;
}

static int status_render(struct tree *t, uint64_t id, struct text *out)
{
	struct facts f;

	dir_status_facts(t, facts_files[id].needs, &f);
	facts_files[id].render(&f, out);
	facts_finish(&f);
	return 0;
}

static void status_finish(struct tree *t)
{
	free(*tree_data(t, &dir_status));
}

static const struct files files_status = {
	.attr = status_attr,
	.render = status_render,
};

const struct dir dir_status = {
	.name = "status",
	.flags = DIR_HERALDED,
	.files = &files_status,
	.lookup = status_lookup,
	.list = status_list,
	.name_of = status_name_of,
	.on_change = status_on_change,
	.on_status = status_on_status,
	.on_flush = status_on_flush,
	.finish = status_finish,
};
