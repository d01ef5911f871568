/* SPDX-License-Identifier: MIT */
/* A ring as a whole: opening, the group and the messages, time, closing.
 *
 * Every way in notes the time, does its one thing, and ends in after(), which
 * looks at what the group has become and lets each part do what is due. */
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
#define MOST_MS	     60000	 /* the loop sleeps */

uint32_t ring_vnode(const struct ring *r, const char *name, size_t len)
{
	return place_vnode(name, len, ring_settings(r)->vnodes);
}

/* ---- The log ---- */

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

static uint64_t wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void ring_begin_entry(struct ring *r, struct buf *b)
{
	keyset_entry_begin(b, r->base_ms + (r->now_ms - r->leader_since_ms),
			   wall_us());
}

int ring_propose(struct ring *r, struct buf *b)
{
	int rc = group_propose(r->group, r->now_ms, b);

	r->in_flight += rc == 0;
	return rc;
}

void *ring_grown(void *base, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return base;
	*cap = *cap ? 2 * *cap : 8;
	return xrealloc(base, *cap * size);
}

static void read_servers(struct ring *r)
{
	size_t n = group_servers(r->group, r->servers, r->cap_servers);

	if (n > r->cap_servers) {
		r->cap_servers = n;
		r->servers = xrealloc(r->servers, n * sizeof(*r->servers));
		r->voters = xrealloc(r->voters, n * sizeof(*r->voters));
		group_servers(r->group, r->servers, n);
	}
	r->n_servers = n;
	r->n_voters = 0;
	for (size_t i = 0; i < n; i++) {
		const struct group_server *s = &r->servers[i];

		if (s->role == GROUP_VOTER)
			r->voters[r->n_voters++] =
				(struct lease_voter){s->node, s->server};
	}
	r->is_alone = r->n_voters == 1 &&
		      r->voters[0].server == group_server_id(r->group);
}

/* Another leader, or another term of the same: what was sent goes again. */
static void on_leader(struct ring *r)
{
	const struct group_status *s = &r->group_status;

	request_unsend(r);
	member_unsend(r);
	servers_unsend(r);
	inbox_clear(r);
	r->ask_at_ms = 0;
	if (!s->is_leader)
		return;
	r->leader_since_ms = r->now_ms;
	r->base_ms = keyset_now_ms(r->keys);
}

/* After every call into the group. */
static void refresh(struct ring *r)
{
	struct group_status was = r->group_status;
	struct group_status *s = &r->group_status;

	group_status(r->group, s);
	read_servers(r);
	if (s->is_receiving)
		r->receiving_ms = r->now_ms;
	if (s->has_leader && s->in_contact)
		r->leaderless_ms = UINT64_MAX;
	else if (r->leaderless_ms == UINT64_MAX)
		r->leaderless_ms = r->now_ms;
	if (was.term != s->term || was.is_leader != s->is_leader ||
	    was.has_leader != s->has_leader ||
	    !ring_same(&was.leader, &s->leader))
		on_leader(r);
	life_set_raft(r);
}

/* ---- Messages ---- */

void ring_send(struct ring *r, const struct ring_id *to, struct buf *b)
{
	size_t len = b->len;

	if (r->config.send == NULL || ring_is_self(r, to))
		return;
	peer_put_generation(b, r->generation);
	r->config.send(r->config.data, to, len >= BULK_BYTES, b->base, b->len);
	b->len = len;
}

static void on_send(void *data, const struct ring_id *to, bool bulk,
		    const void *bytes, size_t len)
{
	struct ring *r = data;
	struct buf b = {0};

	peer_put_kind(&b, PEER_GROUP);
	buf_put(&b, bytes, len);
	peer_put_generation(&b, r->generation);
	r->config.send(r->config.data, to, bulk, b.base, b.len);
	free(b.base);
}

static void take_items(struct ring *r, const struct ring_id *from,
		       struct reader *body)
{
	struct peer_item item;

	while (r->group_status.is_leader &&
	       peer_next_item(body, from, &item) == 1) {
		if (item.is_up)
			member_on_arrival(r, &item.up);
		else if (item.is_share)
			member_on_share(r, &item.share);
		else
			inbox_push(r, &item);
	}
}

static void take_lease(struct ring *r, const struct ring_id *from,
		       struct reader *body)
{
	struct lease_msg msg = {.from = from, .len = reader_left(body)};

	if (r->group_status.is_moved)
		return; /* by its own word no voter is one */
	msg.bytes = reader_bytes(body, msg.len);
	lease_recv(r->lease, r->now_ms, &msg, &r->out);
}

static void take_message(struct ring *r, const struct ring_id *from,
			 const void *bytes, size_t len)
{
	struct reader body;

	switch (peer_kind(bytes, len, &body)) {
	case PEER_GROUP:
		len = reader_left(&body);
		group_recv(r->group, r->now_ms, from, reader_bytes(&body, len),
			   len);
		break;
	case PEER_LEASE:
		take_lease(r, from, &body);
		break;
	case PEER_ITEMS:
		take_items(r, from, &body);
		break;
	case PEER_JOIN:
		servers_on_join(r, &body, from);
		break;
	case PEER_REFUSAL:
		life_on_refusal(r, &body);
		break;
	case PEER_FAREWELL:
		leave_on_farewell(r, &body);
		break;
	case PEER_FINISH:
		force_on_finish(r, &body);
		break;
	case PEER_LEAVE:
		leave_on_leave(r, &body, from);
		break;
	case PEER_N_KINDS:
		break;
	}
}

/* Nobody of an older generation may have a part in anything (holes.md 22): it
 * is told so, not too often. */
static void tell_older(struct ring *r, const struct ring_id *to)
{
	struct peer_refusal no = {.why = PEER_OLD_GENERATION,
				  .settings = *ring_settings(r)};
	struct buf b = {0};

	if (r->now_ms - r->told_older_ms < REPEAT_MS)
		return;
	r->told_older_ms = r->now_ms;
	peer_put_refusal(&b, &no);
	ring_send(r, to, &b);
	free(b.base);
}

/* Is what from sent of our generation? */
static bool check_generation(struct ring *r, const struct ring_id *from,
			     const void *bytes, size_t *len)
{
	uint32_t generation;

	if (!peer_cut_generation(bytes, len, &generation))
		return false;
	if (generation < r->generation)
		tell_older(r, from);
	else if (generation > r->generation)
		life_on_newer(r, generation);
	return generation == r->generation;
}

/* ---- The group's callbacks ---- */

/* Before the log is applied: its first command holds the settings. */
static int peek(void *data, const void *bytes, size_t len)
{
	struct ring *r = data;
	const struct ring_settings *asked = &r->config.settings;
	const struct keyset_events none = {0};

	if (keyset_settings(r->keys) != NULL) /* from the store */
		return settings_check(asked, keyset_settings(r->keys),
				      r->errmsg);
	struct keyset *scratch = keyset_create(&none);
	int rc = 0;

	if (keyset_apply(scratch, 1, bytes, len) == 0 &&
	    keyset_settings(scratch) != NULL)
		rc = settings_check(asked, keyset_settings(scratch), r->errmsg);
	keyset_destroy(scratch);
	return rc;
}

/* The settings have come, by the log or by another node's store. */
static void check_settings(struct ring *r)
{
	char text[RING_ERRMSG_SIZE];

	if (!ring_same(keyset_cluster(r->keys), &r->config.cluster))
		life_refuse(r, -EXDEV,
			    "the log is another cluster's than this node's "
			    "state");
	else if (settings_check(&r->config.settings, keyset_settings(r->keys),
				text) != 0)
		life_refuse(r, -EINVAL, "%s", text);
}

static int on_apply(void *data, uint64_t index, const void *bytes, size_t len)
{
	struct ring *r = data;
	bool first = keyset_settings(r->keys) == NULL;
	int rc = keyset_apply(r->keys, index, bytes, len);

	if (rc == 0 && first)
		check_settings(r);
	/* Since the barrier of a leader's term all entries are its own. */
	if (r->group_status.is_leader && r->in_flight > 0)
		r->in_flight--;
	return rc;
}

static void on_node(void *data, uint32_t node)
{
	life_on_node(data, node);
}

static void on_share(void *data, uint32_t node)
{
	struct ring *r = data;

	(void)node;
	if (r->is_open)
		r->config.on_status(r->config.data);
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

	if (rc == 0)
		rc = keyset_load_end(r->keys);
	if (rc != 0 || !r->is_open)
		return rc;
	check_settings(r);
	view_replace(r, r->old_keys);
	keyset_destroy(r->old_keys);
	r->old_keys = NULL;
	life_reload(r);
	r->config.on_status(r->config.data);
	return 0;
}

static struct keyset *create_keys(struct ring *r)
{
	struct keyset_events events = {.on_key = view_on_key,
				       .on_request = request_on_request,
				       .on_answer = request_on_answer,
				       .on_node = on_node,
				       .on_share = on_share,
				       .data = r};

	return keyset_create(&events);
}

/* Another node's store takes the place of what is here; on_load_meta() is the
 * last of it. */
static void on_reset(void *data)
{
	struct ring *r = data;

	if (!r->is_open || r->old_keys != NULL)
		keyset_destroy(r->keys);
	else
		r->old_keys = r->keys;
	r->keys = create_keys(r);
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

uint32_t ring_generation(const struct ring *r)
{
	return r->generation;
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

static int open_group(struct ring *r, bool started)
{
	struct group_config config = {.dir = r->dir,
				      .cluster = r->config.cluster,
				      .node = r->config.id,
				      .generation = r->config.generation,
				      .create = !started && !r->config.join,
				      .join = r->config.join,
				      .is_moved = r->config.is_moved,
				      .apply = on_apply,
				      .collect = on_collect,
				      .load_key = on_load_key,
				      .load_meta = on_load_meta,
				      .reset = on_reset,
				      .on_change = on_group_change,
				      .on_log = on_log,
				      .send = r->config.send ? on_send : NULL,
				      .wake = on_wake,
				      .data = r};

	return group_open(&config, r->now_ms, peek, &r->group, r->errmsg);
}

static struct ring *ring_create(const struct ring_config *config,
				uint64_t now_ms)
{
	struct ring *r = xcalloc(1, sizeof(*r));

	r->config = *config;
	r->dir = mem_check(strdup(config->dir));
	r->name = mem_check(strdup(config->name));
	r->now_ms = now_ms;
	r->next_seq = 1;
	r->leaderless_ms = now_ms;
	r->pending_tail = &r->pending;
	r->done_tail = &r->done;
	r->inbox_tail = &r->inbox;
	r->keys = create_keys(r);
	if (getrandom(&r->life, sizeof(r->life), 0) != sizeof(r->life))
		mem_check(NULL); /* cannot fail for 16 bytes */
	r->wanted = settings_wanted(&config->settings);
	life_create(r);
	return r;
}

static void ring_destroy(struct ring *r)
{
	inbox_clear(r);
	member_destroy(r);
	servers_destroy(r);
	handover_destroy(r);
	life_destroy(r);
	keyset_destroy(r->old_keys);
	keyset_destroy(r->keys);
	free(r->servers);
	free(r->voters);
	free(r->to_tell);
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
	int rc = open_group(r, started);

	if (rc != 0)
		goto err_ring;
	if (!started) {
		rc = mark_started(r);
		if (rc != 0)
			goto err_group;
	}
	r->errmsg = NULL;
	r->generation = group_generation(r->group);
	life_reload(r);
	view_open(r);
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

/* At the end of every way in. */
static void after(struct ring *r)
{
	r->is_stirred = false;
	refresh(r);
	life_run(r);
	if (r->group_status.is_leader) {
		member_run(r);
		servers_run(r);
	}
	request_retry_orphans(r);
	handover_run(r);
	force_run(r);
	status_tell(r);
	request_run_done(r);
}

void ring_wake(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	group_wake(r->group, now_ms);
	after(r);
}

void ring_recv(struct ring *r, uint64_t now_ms, const struct ring_id *from,
	       const void *bytes, size_t len)
{
	r->now_ms = now_ms;
	if (ring_is_self(r, from))
		return;
	if (check_generation(r, from, bytes, &len))
		take_message(r, from, bytes, len);
	after(r);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint32_t ring_flush(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	request_flush(r);
	request_run_done(r);
	uint64_t next = least(group_due_ms(r->group), view_next_ms(r));

	next = least(next, least(request_next_ms(r), life_next_ms(r)));
	next = least(next, least(handover_next_ms(r), force_next_ms(r)));
	if (r->group_status.is_leader)
		next = least(next,
			     least(member_next_ms(r), servers_next_ms(r)));
	next = r->is_stirred ? now_ms : least(next, now_ms + MOST_MS);
	return next > now_ms ? (uint32_t)(next - now_ms) : 0;
}

void ring_tick(struct ring *r, uint64_t now_ms)
{
	r->now_ms = now_ms;
	group_tick(r->group, now_ms);
	view_tick(r);
	request_tick(r);
	after(r);
}

void ring_close(struct ring *r)
{
	if (r == NULL)
		return;
	group_close(r->group);
	force_cancel_all(r);
	request_cancel_all(r);
	ring_destroy(r);
}
