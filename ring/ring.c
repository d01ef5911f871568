/* SPDX-License-Identifier: MIT */
/* A ring's life: opening, joining, time, status, closing. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "ring/mem.h"
#include "ring/place.h"
#include "ring/ring_impl.h"

#define ROOM_FREE    (24u << 20) /* on the disk, beside a large entry */
#define ROOM_RESERVE 65536u	 /* of the log, left for what must be written */

static const struct ring_settings defaults = {.vnodes = 4096,
					      .claims = RING_CLAIMS_OWNER,
					      .lease_ms = 1500,
					      .calm_ms = 500,
					      .max_attempts = 5,
					      .handover_timeout_ms = 0};

/* ---- Settings ---- */

struct setting {
	const char *name;
	size_t offset;
};

static const struct setting settings_table[] = {
	{"vnodes", offsetof(struct ring_settings, vnodes)},
	{"claims", offsetof(struct ring_settings, claims)},
	{"lease", offsetof(struct ring_settings, lease_ms)},
	{"calm", offsetof(struct ring_settings, calm_ms)},
	{"max-attempts", offsetof(struct ring_settings, max_attempts)},
	{"handover-timeout",
	 offsetof(struct ring_settings, handover_timeout_ms)},
};
#define N_SETTINGS (sizeof(settings_table) / sizeof(settings_table[0]))

static uint32_t *setting_in(struct ring_settings *s, size_t i)
{
	return (uint32_t *)((char *)s + settings_table[i].offset);
}

/* As the user wrote it. */
static void setting_text(size_t i, uint32_t v, char out[24])
{
	const char *name = settings_table[i].name;

	if (strcmp(name, "claims") == 0)
		snprintf(out, 24, "%s", v == RING_CLAIMS_ANY ? "any" : "owner");
	else if (strcmp(name, "handover-timeout") != 0)
		snprintf(out, 24, "%" PRIu32, v);
	else if (v == 0)
		snprintf(out, 24, "never");
	else
		snprintf(out, 24, "%" PRIu32, v / 1000);
}

static int check_settings(struct ring *r, const struct ring_settings *in_force)
{
	struct ring_settings have = *in_force;

	for (size_t i = 0; i < N_SETTINGS; i++) {
		uint32_t asked = *setting_in(&r->config.settings, i);
		uint32_t value = *setting_in(&have, i);
		char a[24], b[24];

		if (asked == RING_UNSET || asked == value)
			continue;
		setting_text(i, asked, a);
		setting_text(i, value, b);
		snprintf(r->errmsg, RING_ERRMSG_SIZE,
			 "--%s %s was asked for, but this cluster was started "
			 "with %s %s, and that is fixed; leave the option out",
			 settings_table[i].name, a, settings_table[i].name, b);
		return -EINVAL;
	}
	return 0;
}

/* Before the log is applied: its first command holds the settings. */
static int peek(void *data, const void *bytes, size_t len)
{
	struct ring *r = data;
	const struct keyset_events none = {0};

	if (keyset_settings(r->keys) != NULL) /* from the store */
		return check_settings(r, keyset_settings(r->keys));
	struct keyset *scratch = keyset_create(&none);
	int rc = 0;

	if (keyset_apply(scratch, 1, bytes, len) == 0 &&
	    keyset_settings(scratch) != NULL)
		rc = check_settings(r, keyset_settings(scratch));
	keyset_destroy(scratch);
	return rc;
}

const struct ring_settings *ring_settings(const struct ring *r)
{
	const struct ring_settings *s = keyset_settings(r->keys);

	return s != NULL ? s : &r->wanted;
}

uint32_t ring_vnode(const struct ring *r, const char *name, size_t len)
{
	return place_vnode(name, len, ring_settings(r)->vnodes);
}

/* ---- Health ---- */

enum ring_health ring_health(const struct ring *r)
{
	if (r->group_status.failed || r->is_refused)
		return RING_FAILED;
	if (r->group_status.full)
		return RING_FULL;
	if (r->self == RING_NONE)
		return RING_JOINING;
	if (!r->group_status.is_leader || r->stalled)
		return RING_ISOLATED;
	return RING_READY;
}

bool ring_has_room(const struct ring *r, size_t bytes)
{
	struct group_status s;

	if (bytes < ROOM_RESERVE / 2) /* is_full says so in time */
		return true;
	group_status(r->group, &s);
	if (s.room > bytes + ROOM_RESERVE)
		return true;
	/* It needs a segment of its own, or the next: the log must not begin
	 * what it cannot write. */
	struct statvfs fs;

	return !s.no_spare && statvfs(r->dir, &fs) == 0 &&
	       (uint64_t)fs.f_bavail * fs.f_frsize > bytes + ROOM_FREE;
}

static void refresh(struct ring *r)
{
	group_status(r->group, &r->group_status);
	if (r->was_leader && !r->group_status.is_leader) {
		request_unsend(r);
		r->up_asked = false;
	}
	if (!r->was_leader && r->group_status.is_leader) {
		r->leader_since_ms = r->now_ms;
		r->base_ms = keyset_now_ms(r->keys);
	}
	r->was_leader = r->group_status.is_leader;
}

static void tell_status(struct ring *r)
{
	enum ring_health now = ring_health(r);

	if (now == r->told)
		return;
	r->told = now;
	r->config.on_status(r->config.data);
}

uint64_t ring_machine_ms(const struct ring *r)
{
	return r->base_ms + (r->now_ms - r->leader_since_ms);
}

static uint64_t wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void reason(const struct ring *r, char out[RING_ERRMSG_SIZE])
{
	const char *text = "this node serves";

	switch (ring_health(r)) {
	case RING_JOINING:
		text = "this node has not joined yet";
		break;
	case RING_ISOLATED:
		text = r->stalled ? "the log has not answered in time"
				  : "no majority of the voters is in reach";
		break;
	case RING_FAILED:
		text = r->is_refused ? r->refusal : r->group_status.errmsg;
		break;
	case RING_FULL:
		text = "the disk of the state directory is full";
		break;
	case RING_READY:
		if (r->group_status.store_full)
			text = "this node serves, but the store's disk is full";
		break;
	}
	snprintf(out, RING_ERRMSG_SIZE, "%s", text);
}

void ring_status(const struct ring *r, struct ring_status *out)
{
	struct group_status s;

	group_status(r->group, &s);
	*out = (struct ring_status){.health = ring_health(r),
				    .leader = s.is_leader ? r->self : RING_NONE,
				    .term = s.term,
				    .index = s.applied,
				    .hash = keyset_hash(r->keys),
				    .epoch = keyset_epoch(r->keys),
				    .n_voters = s.n_voters,
				    .n_standbys = s.n_standbys,
				    .log_bytes = s.log_bytes,
				    .n_entries = s.n_entries,
				    .n_syncs = s.n_syncs};
	reason(r, out->reason);
}

/* ---- Joining ---- */

/* The entry that brings this life up; a new cluster's first entry begins with
 * its settings. */
static void ask_up(struct ring *r)
{
	struct keyset_up up = {.id = r->config.id,
			       .life = r->life,
			       .boot = r->config.boot,
			       .weight = r->config.weight,
			       .name = r->name};
	struct buf b = {0};

	keyset_entry_begin(&b, ring_machine_ms(r), wall_us());
	if (keyset_settings(r->keys) == NULL)
		keyset_put_settings(&b, &r->config.cluster, &r->wanted);
	keyset_put_up(&b, &up);
	r->up_asked = group_propose(r->group, r->now_ms, &b) == 0;
	free(b.base);
}

/* The answer to ask_up(), and to those of lives before when the log is read. */
void ring_on_up(struct ring *r, const struct keyset_origin *origin, int rc)
{
	if (!r->up_asked || origin->boot != r->config.boot ||
	    memcmp(&origin->id, &r->config.id, sizeof(origin->id)) != 0)
		return;
	if (rc != 0) {
		r->is_refused = true;
		snprintf(r->refusal, sizeof(r->refusal),
			 rc == -ESTALE
				 ? "the state is copied or restored: "
				   "this start was counted before; remove "
				   "the copy"
				 : "the cluster refuses this node: %s",
			 strerror(-rc));
		return;
	}
	r->self = keyset_find_node(r->keys, &r->config.id);
	view_start_backoffs(r);
}

static void on_nodes(void *data)
{
	struct ring *r = data;

	if (r->group != NULL) /* not while it loads */
		r->config.on_status(r->config.data);
}

/* ---- The group's callbacks ---- */

static int on_apply(void *data, uint64_t index, const void *bytes, size_t len)
{
	struct ring *r = data;

	return keyset_apply(r->keys, index, bytes, len);
}

static void on_collect(void *data, struct store_batch *out)
{
	keyset_collect(((struct ring *)data)->keys, out);
}

static int on_load_key(void *data, const void *record, size_t len)
{
	return keyset_load_key(((struct ring *)data)->keys, record, len);
}

static int on_load_meta(void *data, const void *meta, size_t len)
{
	struct ring *r = data;
	int rc = keyset_load_meta(r->keys, meta, len);

	return rc == 0 ? keyset_load_end(r->keys) : rc;
}

static void on_group_change(void *data)
{
	(void)data; /* every call into the group is followed by refresh() */
}

static void on_log(void *data, int level, const char *line)
{
	struct ring *r = data;

	r->config.on_log(r->config.data, level, line);
}

static void on_wake(void *data)
{
	struct ring *r = data;

	r->config.wake(r->config.data);
}

/* ---- Opening ---- */

/* DIR/started says that there was a log: when it is missing later, it was lost,
 * and starting anew in silence would lose every key. */
static char *started_path(const struct ring *r)
{
	char *path;

	if (asprintf(&path, "%s/started", r->dir) < 0)
		path = mem_check(NULL);
	return path;
}

static bool has_started(const struct ring *r)
{
	char *path = started_path(r);
	bool yes = access(path, F_OK) == 0;

	free(path);
	return yes;
}

static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || fsync(fd) != 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return rc;
}

static int mark_started(struct ring *r)
{
	char *path = started_path(r);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int rc = fd < 0 ? -errno : 0;

	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (rc == 0)
		rc = sync_dir(r->dir);
	if (rc != 0)
		snprintf(r->errmsg, RING_ERRMSG_SIZE, "%s: cannot be made: %s",
			 path, strerror(-rc));
	free(path);
	return rc;
}

static int open_group(struct ring *r, bool create)
{
	struct group_config config = {.dir = r->dir,
				      .cluster = r->config.cluster,
				      .node = r->config.id,
				      .create = create,
				      .apply = on_apply,
				      .collect = on_collect,
				      .load_key = on_load_key,
				      .load_meta = on_load_meta,
				      .on_change = on_group_change,
				      .on_log = on_log,
				      .wake = on_wake,
				      .data = r};

	return group_open(&config, r->now_ms, peek, &r->group, r->errmsg);
}

static void want(struct ring *r)
{
	r->wanted = r->config.settings;
	for (size_t i = 0; i < N_SETTINGS; i++)
		if (*setting_in(&r->wanted, i) == RING_UNSET)
			*setting_in(&r->wanted, i) = *setting_in(
				(struct ring_settings *)&defaults, i);
}

static struct ring *ring_create(const struct ring_config *config,
				uint64_t now_ms)
{
	struct ring *r = xcalloc(1, sizeof(*r));
	struct keyset_events events = {.on_key = view_on_key,
				       .on_request = request_on_request,
				       .on_answer = request_on_answer,
				       .on_nodes = on_nodes,
				       .data = r};

	r->config = *config;
	r->dir = mem_check(strdup(config->dir));
	r->name = mem_check(strdup(config->name));
	r->now_ms = now_ms;
	r->self = RING_NONE;
	r->next_seq = 1;
	r->pending_tail = &r->pending;
	r->done_tail = &r->done;
	r->keys = keyset_create(&events);
	if (getrandom(&r->life, sizeof(r->life), 0) != sizeof(r->life))
		mem_check(NULL); /* cannot fail for 16 bytes */
	want(r);
	return r;
}

static void ring_destroy(struct ring *r)
{
	keyset_destroy(r->keys);
	free(r->reveals);
	free(r->dir);
	free(r->name);
	free(r);
}

int ring_open(const struct ring_config *config, uint64_t now_ms,
	      struct ring **out, char errmsg[RING_ERRMSG_SIZE])
{
	struct ring *r = ring_create(config, now_ms);
	bool started = has_started(r);

	r->errmsg = errmsg;
	int rc = open_group(r, !started);

	if (rc != 0)
		goto err_ring;
	if (!started) {
		rc = mark_started(r);
		if (rc != 0)
			goto err_group;
	}
	r->errmsg = NULL;
	refresh(r);
	r->told = ring_health(r);
	*out = r;
	return 0;

err_group:
	group_close(r->group);
err_ring:
	ring_destroy(r);
	return rc;
}

/* ---- Running ---- */

/* After every call into the group. */
static void after(struct ring *r)
{
	refresh(r);
	if (r->self == RING_NONE && r->was_leader && !r->up_asked &&
	    !r->is_refused)
		ask_up(r);
	request_retry_orphans(r);
	tell_status(r);
	request_run_done(r);
}

void ring_wake(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	group_wake(r->group, now_ms);
	after(r);
}

uint32_t ring_flush(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	request_flush(r, wall_us());
	request_run_done(r);
	uint64_t next = r->tick_at_ms;

	if (view_next_ms(r) < next)
		next = view_next_ms(r);
	if (request_next_ms(r) < next)
		next = request_next_ms(r);
	return next > now_ms ? (uint32_t)(next - now_ms) : 0;
}

void ring_tick(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	r->tick_at_ms = now_ms + group_tick(r->group, now_ms);
	view_tick(r);
	request_tick(r);
	after(r);
}

void ring_close(struct ring *r)
{
	if (r == NULL)
		return;
	group_close(r->group);
	request_cancel_all(r);
	ring_destroy(r);
}
