/* SPDX-License-Identifier: MIT */
#include "ring/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>

#include "ring/mem.h"

/* Settings of the library: election 300 ms as measured for the best fail-over
 * without false alarms, own tick, heartbeat 1 ms so that a tick always sends. */
#define ELECTION_MS   300
#define HEARTBEAT_MS  1
#define TICK_MS	      30
#define TICK_ALONE_MS 250 /* nobody waits for a heartbeat of a sole voter */
#define MAX_INFLIGHT  256

#define CLOSE_SECONDS	5 /* for a disk that hangs */
#define STORE_MAP_BYTES ((size_t)1 << 30)
#define ROOM_LOW	65536u /* below it, without a spare segment, we are full */

__attribute__((format(printf, 3, 4))) void group_say(struct group *g, int level,
						     const char *format, ...)
{
	char line[RING_ERRMSG_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	g->config.on_log(g->config.data, level, line);
}

struct close_job {
	struct disk_job job;
	struct group *g;
};

/* ---- Failure ---- */

__attribute__((format(printf, 2, 3))) void group_fail(struct group *g,
						      const char *format, ...)
{
	va_list args;

	if (g->failed)
		return;
	g->failed = true;
	va_start(args, format);
	vsnprintf(g->errmsg, sizeof(g->errmsg), format, args);
	va_end(args);
	group_say(g, 3, "%s: no more changes until this daemon is restarted",
		  g->errmsg);
	g->config.on_change(g->config.data);
}
/* ---- Entries: u32 length, u32 zero, bytes, zeros up to a multiple of 8 ----
 * The library takes none of another size. */

#define ENTRY_HEADER 8

static const uint8_t *entry_bytes(const struct raft_buffer *b, size_t *len)
{
	struct reader r = reader_of(b->base, b->len);

	*len = reader_u32(&r);
	reader_u32(&r);
	return reader_bytes(&r, *len);
}

int group_apply(struct raft_fsm *fsm, const struct raft_buffer *b,
		void **result)
{
	struct group *g = fsm->data;
	uint64_t index = raft_last_applied(&g->raft) + 1; /* rule 18 */
	size_t len;
	const uint8_t *bytes = entry_bytes(b, &len);

	*result = NULL;
	if (g->failed)
		return RAFT_IOERR;
	g->bytes_since_snapshot += b->len;
	int rc = bytes == NULL
			 ? -EBADMSG
			 : g->config.apply(g->config.data, index, bytes, len);

	if (rc == 0)
		return 0;
	group_fail(g,
		   "entry %" PRIu64 " of the log is not understood; a newer "
		   "ringfs may have written it",
		   index);
	return RAFT_MALFORMED;
}
/* ---- Opening ---- */

static void address_of(const struct ring_id *id, char out[33])
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", id->byte[i]);
}

static int open_wal(struct group *g, bool create, char *errmsg)
{
	struct wal_config config = {.dir = g->config.dir,
				    .cluster = g->config.cluster,
				    .node = g->config.node,
				    .segment_bytes = WAL_SEGMENT_BYTES};
	int rc = wal_open(&config, create, &g->wal, &g->found, errmsg);

	if (rc == 0 && g->found.torn_bytes > 0)
		group_say(g, 5,
			  "cut %" PRIu64 " bytes off the log that a crash had "
			  "left half written",
			  g->found.torn_bytes);
	return rc;
}

static int start_server(struct group *g, char *errmsg)
{
	char address[33];

	address_of(&g->config.node, address);
	group_io_set(g);
	int rc = raft_init(&g->raft, &g->io, &g->fsm, g->found.server, address);

	if (rc != 0) {
		snprintf(errmsg, RING_ERRMSG_SIZE, "consensus: %s",
			 raft_strerror(rc));
		return -EIO;
	}
	raft_set_election_timeout(&g->raft, ELECTION_MS);
	raft_set_heartbeat_timeout(&g->raft, HEARTBEAT_MS);
	raft_set_max_inflight_entries(&g->raft, MAX_INFLIGHT);
	raft_set_pre_vote(&g->raft, true);
	raft_set_capacity_threshold(&g->raft, 0);
	raft_set_snapshot_threshold(&g->raft, SNAPSHOT_ENTRIES);
	raft_set_snapshot_trailing(&g->raft, TRAILING_ENTRIES);
	return 0;
}

/* A new log: entry 1 makes us the only voter. */
static int bootstrap(struct group *g, char *errmsg)
{
	struct raft_configuration conf;
	char address[33];

	address_of(&g->config.node, address);
	raft_configuration_init(&conf);
	int rc = raft_configuration_add(&conf, g->found.server, address,
					RAFT_VOTER);

	if (rc == 0)
		rc = raft_bootstrap(&g->raft, &conf);
	raft_configuration_close(&conf);
	if (rc == 0) { /* read back what was written */
		wal_close(g->wal);
		g->wal = NULL;
		wal_found_finish(&g->found);
		return open_wal(g, false, errmsg);
	}
	snprintf(errmsg, RING_ERRMSG_SIZE, "%s/wal: cannot be started: %s",
		 g->config.dir, raft_strerror(rc));
	return rc == RAFT_NOSPACE ? -ENOSPC : -EIO;
}

/* Do log and store meet? */
static int check_gap(const struct group *g, char *errmsg)
{
	struct raft_snapshot s = {0};
	const struct wal_found *f = &g->found;

	if (g->meta.snapshot.len > 0) {
		if (group_io_snapshot(&g->meta.snapshot, &s) != 0) {
			snprintf(errmsg, RING_ERRMSG_SIZE,
				 "%s/store: its snapshot record is not "
				 "understood",
				 g->config.dir);
			return -EUCLEAN;
		}
		raft_configuration_close(&s.configuration);
	}
	uint64_t last = f->first + f->n_entries - 1;

	if ((f->n_entries == 0 || f->first <= s.index + 1) && last >= s.index)
		return 0;
	snprintf(errmsg, RING_ERRMSG_SIZE,
		 "%s: the log has entries %" PRIu64 " to %" PRIu64
		 ", the store is as of entry %" PRIu64 ": entries are missing "
		 "between them. Restore the state, or remove it and start anew",
		 g->config.dir, f->first, last, (uint64_t)s.index);
	return -EUCLEAN;
}

static int load_store(struct group *g, char *errmsg)
{
	const struct group_config *c = &g->config;
	int rc = store_open(c->dir, STORE_MAP_BYTES, &g->store, errmsg);

	if (rc == 0)
		rc = store_load(g->store, c->load_key, c->data, &g->meta.meta,
				&g->meta.snapshot, errmsg);
	if (rc == 0 && g->meta.meta.len > 0)
		rc = c->load_meta(c->data, g->meta.meta.base, g->meta.meta.len);
	if (rc == -EBADMSG) {
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "%s/store: a record is not understood, or the records "
			 "do not add up",
			 c->dir);
		rc = -EUCLEAN;
	}
	return rc;
}

/* Give the first command of the log to the caller before all else. */
static int peek_log(const struct group *g,
		    int (*peek)(void *data, const void *bytes, size_t len))
{
	for (size_t i = 0; i < g->found.n_entries; i++) {
		const struct wal_entry *e = &g->found.entry[i];
		struct raft_buffer b = {.base = (void *)e->data, .len = e->len};
		size_t len;

		if (e->type != RAFT_COMMAND)
			continue;
		const uint8_t *bytes = entry_bytes(&b, &len);

		return bytes ? peek(g->config.data, bytes, len) : 0;
	}
	return 0;
}

static int flush_log(void *data)
{
	struct group *g = data;

	if (g->wal == NULL) /* closed, and flushed by that */
		return 0;
	g->n_syncs++;
	return wal_sync(g->wal);
}

static void start_workers(struct group *g)
{
	struct disk_config log = {.name = "ringfs-log",
				  .flush = flush_log,
				  .flush_data = g,
				  .wake = g->config.wake,
				  .wake_data = g->config.data};
	struct disk_config store = {.name = "ringfs-store",
				    .wake = g->config.wake,
				    .wake_data = g->config.data};

	g->log_disk = disk_create(&log);
	g->store_disk = disk_create(&store);
	/* A worker that hangs in a dead disk survives SIGKILL, and what is in its
	 * descriptor table stays open: so the loop has another from here on. If
	 * the mount's device were in it, callers would hang as well. */
	if (unshare(CLONE_FILES) == 0)
		wal_leave(g->wal);
}

static int close_store_work(struct disk_job *job)
{
	struct group *g = ((struct close_job *)job)->g;

	store_close(g->store);
	g->store = NULL;
	return 0;
}

static int close_wal_work(struct disk_job *job)
{
	struct group *g = ((struct close_job *)job)->g;

	wal_close(g->wal);
	g->wal = NULL;
	return 0;
}

static void close_done(struct disk_job *job)
{
	free(job);
}

/* As the last thing that d does. */
static void post_close(struct group *g, struct disk *d,
		       int (*work)(struct disk_job *job))
{
	struct close_job *c = xcalloc(1, sizeof(*c));

	*c = (struct close_job){.job = {.work = work, .done = close_done},
				.g = g};
	disk_post(d, &c->job);
}

/* Each closes what it has opened, the store's first: it uses the log as well. A
 * worker that hangs in the disk is left behind, with what it uses: false. */
static bool end_workers(struct group *g)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += CLOSE_SECONDS;
	post_close(g, g->store_disk, close_store_work);
	bool ended = disk_destroy(g->store_disk, &until);

	if (ended)
		post_close(g, g->log_disk, close_wal_work);
	return disk_destroy(g->log_disk, &until) && ended;
}

static void release(struct group *g)
{
	wal_found_finish(&g->found);
	store_batch_finish(&g->meta);
	store_close(g->store);
	wal_close(g->wal);
	free(g);
}

static void ignore_close(struct raft *raft)
{
	(void)raft;
}

int group_open(const struct group_config *config, uint64_t now_ms,
	       int (*peek)(void *data, const void *bytes, size_t len),
	       struct group **out, char errmsg[RING_ERRMSG_SIZE])
{
	struct group *g = xcalloc(1, sizeof(*g));

	g->config = *config;
	g->now_ms = now_ms;
	int rc = open_wal(g, config->create, errmsg);

	if (rc != 0)
		goto err_group;
	rc = load_store(g, errmsg);
	if (rc != 0)
		goto err_group;
	rc = start_server(g, errmsg);
	if (rc != 0)
		goto err_group;
	if (config->create && g->found.n_entries == 0 &&
	    g->meta.snapshot.len == 0)
		rc = bootstrap(g, errmsg);
	if (rc == 0)
		rc = check_gap(g, errmsg);
	if (rc == 0)
		rc = peek_log(g, peek);
	if (rc != 0)
		goto err_server;
	start_workers(g);
	rc = raft_start(&g->raft);
	if (rc != 0) {
		snprintf(errmsg, RING_ERRMSG_SIZE, "consensus: %s",
			 raft_errmsg(&g->raft));
		rc = -EIO;
		goto err_workers;
	}
	wal_found_finish(&g->found);
	store_batch_finish(&g->meta);
	*out = g;
	return 0;

err_workers:
	if (!end_workers(g))
		return rc;
err_server:
	raft_close(&g->raft, ignore_close);
err_group:
	release(g);
	return rc;
}

/* ---- Running ---- */

static void forget_applied(struct group *g)
{
	bool leader = raft_state(&g->raft) == RAFT_LEADER;

	while (g->proposals != NULL &&
	       (!leader ||
		g->proposals->req.index <= raft_last_applied(&g->raft))) {
		struct proposal *p = g->proposals;

		g->proposals = p->next;
		free(p);
	}
}

/* Rule 3: a leader is one that has committed in its own term. */
static void check_leader(struct group *g)
{
	bool leader = raft_state(&g->raft) == RAFT_LEADER && !g->failed;

	if (!leader) {
		g->barrier_sent = g->confirmed = false;
	} else if (!g->barrier_sent) {
		g->barrier_sent =
			raft_barrier(&g->raft, &g->barrier, NULL) == 0;
	} else if (!g->confirmed &&
		   raft_last_applied(&g->raft) >= g->barrier.index) {
		g->confirmed = true;
	}
	if (g->confirmed != g->was_leader) {
		g->was_leader = g->confirmed;
		g->config.on_change(g->config.data);
	}
}

static bool is_full(const struct group *g)
{
	return g->log_full || (g->prepare_full && wal_room(g->wal) < ROOM_LOW);
}

static void check_full(struct group *g)
{
	bool full = is_full(g);

	if (full == g->was_full)
		return;
	g->was_full = full;
	group_say(g, full ? 4 : 5,
		  full ? "the disk is full: no changes until there "
			 "is room in %s"
		       : "there is room again in %s",
		  g->config.dir);
	g->config.on_change(g->config.data);
}

/* After every entry into the library. */
static void after(struct group *g)
{
	forget_applied(g);
	check_leader(g);
	if (g->bytes_since_snapshot > SNAPSHOT_BYTES) {
		raft_set_snapshot_threshold(&g->raft, 1);
		raft_set_snapshot_trailing(&g->raft, 1);
	}
	group_io_prepare(g);
	check_full(g);
}

int group_propose(struct group *g, uint64_t now_ms, struct buf *b)
{
	size_t len = b->len;
	size_t padded = (len + ENTRY_HEADER + 7) / 8 * 8;

	g->now_ms = now_ms;
	if (!g->confirmed || g->failed || len > UINT32_MAX)
		return -EAGAIN;
	struct buf e = {.base = mem_check(raft_malloc(padded)), .cap = padded};

	buf_u32(&e, (uint32_t)len);
	buf_u32(&e, 0);
	buf_put(&e, b->base, len);
	memset(e.base + e.len, 0, padded - e.len);
	struct raft_buffer bytes = {.base = e.base, .len = padded};
	struct proposal *p = xcalloc(1, sizeof(*p));

	if (raft_apply(&g->raft, &p->req, &bytes, 1, NULL) != 0) {
		raft_free(bytes.base);
		free(p);
		return -EAGAIN;
	}
	struct proposal **last = &g->proposals;

	while (*last != NULL)
		last = &(*last)->next;
	*last = p;
	free(b->base);
	*b = (struct buf){0};
	return 0;
}

void group_wake(struct group *g, uint64_t now_ms)
{
	g->now_ms = now_ms;
	disk_take(g->log_disk);
	disk_take(g->store_disk);
	after(g);
}

uint32_t group_tick(struct group *g, uint64_t now_ms)
{
	g->now_ms = now_ms;
	if (now_ms >= g->tick_at_ms && !g->failed) {
		g->tick_at_ms =
			now_ms + (g->confirmed ? TICK_ALONE_MS : TICK_MS);
		g->tick_cb(&g->io);
	}
	group_io_retry(g);
	after(g);
	return g->confirmed ? TICK_ALONE_MS : TICK_MS;
}

void group_status(const struct group *g, struct group_status *out)
{
	struct raft *r = (struct raft *)&g->raft; /* read only */

	*out = (struct group_status){.is_leader = g->confirmed,
				     .failed = g->failed,
				     .full = is_full(g),
				     .store_full = g->store_full,
				     .room = wal_room(g->wal),
				     .no_spare = g->prepare_full,
				     .term = raft_current_term(r),
				     .applied = raft_last_applied(r),
				     .log_bytes = wal_bytes(g->wal),
				     .n_entries = g->n_entries,
				     .n_syncs = g->n_syncs,
				     .errmsg = g->errmsg};
	for (unsigned i = 0; i < r->configuration.n; i++) {
		int role = r->configuration.servers[i].role;

		out->n_voters += role == RAFT_VOTER;
		out->n_standbys += role == RAFT_STANDBY;
	}
}

void group_close(struct group *g)
{
	g->closing = true;
	group_io_give_up(g);
	if (!end_workers(g))
		return;
	raft_close(&g->raft, ignore_close);
	g->confirmed = false;
	while (g->proposals != NULL) {
		struct proposal *p = g->proposals;

		g->proposals = p->next;
		free(p);
	}
	release(g);
}
