/* SPDX-License-Identifier: MIT */
#include "ring/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>

#include "ring/mem.h"

#define MAX_INFLIGHT	256
#define CATCH_UP_ROUNDS 100
#define CATCH_UP_MS	10000
#define INSTALL_MS	10000 /* then asked for again; a copy goes on */

#define CLOSE_SECONDS	5 /* for a disk that hangs */
#define STORE_MAP_BYTES ((size_t)1 << 30)
#define ROOM_LOW	65536u /* below it, without a spare segment, we are full */
#define WAY_OUT                                                                \
	"restore the state directory, or remove it and join again as a new "   \
	"node"

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

const uint8_t *group_entry_bytes(const struct raft_buffer *b, size_t *len)
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
	const uint8_t *bytes = group_entry_bytes(b, &len);

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

static int open_wal(struct group *g, bool create, char *errmsg)
{
	struct wal_config config = {.dir = g->dir,
				    .cluster = g->config.cluster,
				    .node = g->config.node,
				    .generation = g->config.generation,
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

	group_address(&g->config.node, address);
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
	raft_set_max_catch_up_rounds(&g->raft, CATCH_UP_ROUNDS);
	raft_set_max_catch_up_round_duration(&g->raft, CATCH_UP_MS);
	raft_set_install_snapshot_timeout(&g->raft, INSTALL_MS);
	raft_set_capacity_threshold(&g->raft, 0);
	raft_set_snapshot_threshold(&g->raft, g->config.snapshot_entries);
	raft_set_snapshot_trailing(&g->raft, g->config.trailing_entries);
	return 0;
}

/* A new log: entry 1 makes us the only voter. */
static int bootstrap(struct group *g, char *errmsg)
{
	struct raft_configuration conf;
	char address[33];

	group_address(&g->config.node, address);
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

/* The store was put in place by a copy, but the log not yet begun behind it. */
static int begin_behind(struct group *g, uint64_t index, char *errmsg)
{
	int rc = wal_restart(g->wal, index + 1);

	if (rc == 0) { /* read back what was written */
		wal_close(g->wal);
		g->wal = NULL;
		wal_found_finish(&g->found);
		return open_wal(g, false, errmsg);
	}
	snprintf(errmsg, RING_ERRMSG_SIZE, "%s/wal: cannot be written: %s",
		 g->dir, strerror(-rc));
	return rc;
}

/* Do log and store meet? */
static int check_gap(struct group *g, char *errmsg)
{
	struct raft_snapshot s = {0};
	const struct wal_found *f = &g->found;
	bool replaced = false;

	if (g->meta.snapshot.len > 0) {
		if (group_io_snapshot(&g->meta.snapshot, &s, &replaced) != 0) {
			snprintf(errmsg, RING_ERRMSG_SIZE,
				 "%s/store: its snapshot record is not "
				 "understood; " WAY_OUT,
				 g->dir);
			return -EUCLEAN;
		}
		raft_configuration_close(&s.configuration);
	}
	uint64_t last = f->first + f->n_entries - 1;

	g->applied_at_snapshot = s.index;
	if (replaced && f->first <= s.index)
		return begin_behind(g, s.index, errmsg);
	if (f->first <= s.index + 1 && last >= s.index)
		return 0;
	snprintf(errmsg, RING_ERRMSG_SIZE,
		 "%s: the log has entries %" PRIu64 " to %" PRIu64
		 ", the store is as of entry %" PRIu64 ": entries are missing "
		 "between them; " WAY_OUT,
		 g->dir, f->first, last, (uint64_t)s.index);
	return -EUCLEAN;
}

static int load_machine(struct group *g, char *errmsg)
{
	const struct group_config *c = &g->config;
	int rc = store_load(g->store, c->load_key, c->data, &g->meta.meta,
			    &g->meta.snapshot, errmsg);

	if (rc == 0 && g->meta.meta.len > 0)
		rc = c->load_meta(c->data, g->meta.meta.base, g->meta.meta.len);
	free(g->meta.meta.base);
	g->meta.meta = (struct buf){0};
	if (rc == -EBADMSG) {
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "%s/store: a record is not understood, or the records "
			 "do not add up; " WAY_OUT,
			 g->dir);
		rc = -EUCLEAN;
	}
	return rc;
}

int group_reload(struct group *g, char *errmsg)
{
	free(g->meta.snapshot.base);
	g->meta.snapshot = (struct buf){0};
	g->config.reset(g->config.data);
	return load_machine(g, errmsg);
}

/* A new log that is to be filled by others: what the store has belongs to one
 * that is lost. */
static int load_store(struct group *g, char *errmsg)
{
	if (g->found.created && g->config.join && !g->config.create)
		store_remove(g->dir);
	int rc = store_open(g->dir, STORE_MAP_BYTES, &g->store, errmsg);

	return rc == 0 ? load_machine(g, errmsg) : rc;
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
		const uint8_t *bytes = group_entry_bytes(&b, &len);

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
				  .wake_data = g->config.data,
				  .inline_jobs = g->config.inline_jobs};
	struct disk_config store = {.name = "ringfs-store",
				    .wake = g->config.wake,
				    .wake_data = g->config.data,
				    .inline_jobs = g->config.inline_jobs};

	g->log_disk = disk_create(&log);
	g->store_disk = disk_create(&store);
	/* A worker that hangs in a dead disk survives SIGKILL, and what is in
	 * its descriptor table stays open: so the loop has another from here on.
	 * If the mount's device were in it, callers would hang as well. */
	if (!g->config.inline_jobs && unshare(CLONE_FILES) == 0) {
		wal_leave(g->wal);
		store_leave(g->store);
	}
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
	group_net_finish(g);
	wal_found_finish(&g->found);
	store_batch_finish(&g->meta);
	store_close(g->store);
	wal_close(g->wal);
	free(g->dir);
	free(g);
}

static void ignore_close(struct raft *raft)
{
	(void)raft;
}

static struct group *group_create(const struct group_config *config)
{
	struct group *g = xcalloc(1, sizeof(*g));

	g->config = *config;
	g->dir = mem_check(strdup(config->dir));
	g->config.dir = g->dir;
	if (config->snapshot_entries == 0)
		g->config.snapshot_entries = SNAPSHOT_ENTRIES;
	if (config->trailing_entries == 0)
		g->config.trailing_entries = TRAILING_ENTRIES;
	g->appends_tail = &g->appends;
	g->held_tail = &g->held;
	g->leader_heard_ms = g->notice_at_ms = g->slow_since_ms = NEVER;
	return g;
}

/* Log and store, and the library ready to be started with them. */
static int load(struct group *g, char *errmsg)
{
	const struct group_config *config = &g->config;
	int rc = open_wal(g, config->create || config->join, errmsg);

	if (rc == 0)
		rc = load_store(g, errmsg);
	if (rc == 0)
		rc = start_server(g, errmsg);
	if (rc != 0)
		return rc;
	if (config->create && g->found.n_entries == 0 &&
	    g->meta.snapshot.len == 0)
		rc = bootstrap(g, errmsg);
	if (rc == 0)
		rc = check_gap(g, errmsg);
	if (rc != 0)
		raft_close(&g->raft, ignore_close);
	g->generation = g->found.generation;
	g->last_term = g->found.term;
	g->last_vote = g->found.vote;
	return rc;
}

int group_load(const struct group_config *config, struct group **out,
	       char *errmsg)
{
	struct group *g = group_create(config);
	int rc = load(g, errmsg);

	if (rc == 0)
		*out = g;
	else
		release(g);
	return rc;
}

void group_release(struct group *g)
{
	raft_close(&g->raft, ignore_close);
	release(g);
}

int group_open(const struct group_config *config, uint64_t now_ms,
	       int (*peek)(void *data, const void *bytes, size_t len),
	       struct group **out, char errmsg[RING_ERRMSG_SIZE])
{
	struct group *g;
	int rc = group_load(config, &g, errmsg);

	if (rc != 0)
		return rc;
	g->now_ms = now_ms;
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
	group_moved_open(g);
	*out = g;
	return 0;

err_workers:
	if (!end_workers(g))
		return rc;
err_server:
	group_release(g);
	return rc;
}

uint32_t group_generation(const struct group *g)
{
	return g->generation;
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
		group_net_deposed(g);
	} else if (!g->barrier_sent) {
		memset(&g->barrier, 0, sizeof(g->barrier));
		g->barrier_sent =
			raft_barrier(&g->raft, &g->barrier, NULL) == 0;
	} else if (!g->confirmed &&
		   raft_last_applied(&g->raft) >= g->barrier.index) {
		g->confirmed = true;
	}
}

/* Has anything changed that the caller is to hear of? */
static void check_change(struct group *g)
{
	bool contact = group_in_contact(g);
	const char *address;
	raft_id leader = 0;

	raft_leader(&g->raft, &leader, &address);
	if (g->confirmed == g->was_leader && contact == g->was_in_contact &&
	    leader == g->was_server &&
	    raft_current_term(&g->raft) == g->was_term)
		return;
	g->was_leader = g->confirmed;
	g->was_in_contact = contact;
	g->was_server = leader;
	g->was_term = raft_current_term(&g->raft);
	g->config.on_change(g->config.data);
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

/* How many entries behind a snapshot stay in the log, and in memory: some, for
 * those who are a little behind; all that a copy on its way will need. */
static unsigned trailing(const struct group *g)
{
	struct raft *r = (struct raft *)&g->raft; /* read only */
	uint64_t n = raft_last_applied(r) - g->applied_at_snapshot + 1;
	uint64_t each = g->bytes_since_snapshot / n + 1;
	uint64_t keep = TRAILING_BYTES / each;
	uint64_t from = group_copy_index(g);

	if (keep > g->config.trailing_entries)
		keep = g->config.trailing_entries;
	if (from != NEVER && raft_last_index(r) - from + 1 > keep)
		keep = raft_last_index(r) - from + 1;
	return keep > 0 ? (unsigned)keep : 1;
}

static void check_snapshot(struct group *g)
{
	if (g->bytes_since_snapshot > SNAPSHOT_BYTES)
		raft_set_snapshot_threshold(&g->raft, 1);
	if (!g->raft.legacy.snapshot_taking)
		raft_set_snapshot_trailing(&g->raft, trailing(g));
}

void group_after(struct group *g)
{
	if (g->closing)
		return;
	forget_applied(g);
	check_leader(g);
	group_install_try(g);
	group_net_commit(g);
	check_snapshot(g);
	group_io_prepare(g);
	check_full(g);
	check_change(g);
}

void group_set_time(struct group *g, uint64_t now_ms)
{
	if (now_ms > g->now_ms)
		g->now_ms = now_ms;
}

int group_propose(struct group *g, uint64_t now_ms, struct buf *b)
{
	size_t len = b->len;
	size_t padded = (len + ENTRY_HEADER + 7) / 8 * 8;

	group_set_time(g, now_ms);
	if (!g->confirmed || g->stalled || g->failed || len > UINT32_MAX)
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
	group_set_time(g, now_ms);
	disk_take(g->log_disk);
	disk_take(g->store_disk);
	group_after(g);
}

uint64_t group_due_ms(const struct group *g)
{
	return g->notice_at_ms < g->tick_at_ms ? g->notice_at_ms
					       : g->tick_at_ms;
}

uint32_t group_tick(struct group *g, uint64_t now_ms)
{
	group_set_time(g, now_ms);
	if (g->now_ms >= g->tick_at_ms) {
		bool alone = g->confirmed && group_is_alone(g);

		g->tick_at_ms = g->now_ms + (alone ? TICK_ALONE_MS : TICK_MS);
		group_roles_check_disk(g);
		if (!g->failed)
			g->tick_cb(&g->io);
		group_copy_tick(g);
		group_install_tick(g);
	}
	group_net_tick(g);
	group_io_retry(g);
	group_after(g);
	uint64_t due = group_due_ms(g);

	return due > g->now_ms ? (uint32_t)(due - g->now_ms) : 0;
}

bool group_disk_step(struct group *g, bool log)
{
	return disk_step(log ? g->log_disk : g->store_disk);
}

void group_status(const struct group *g, struct group_status *out)
{
	struct raft *r = (struct raft *)&g->raft; /* read only */

	*out = (struct group_status){.is_leader = g->confirmed && !g->stalled,
				     .failed = g->failed,
				     .stalled = g->stalled,
				     .full = is_full(g),
				     .store_full = g->store_full,
				     .room = wal_room(g->wal),
				     .no_spare = g->prepare_full,
				     .term = raft_current_term(r),
				     .durable_term =
					     g->n_votes == g->n_votes_done
						     ? raft_current_term(r)
						     : 0,
				     .applied = raft_last_applied(r),
				     .committed = raft_commit_index(r),
				     .log_bytes = wal_bytes(g->wal),
				     .n_entries = g->n_entries,
				     .n_syncs = g->n_syncs,
				     .errmsg = g->errmsg};
	group_roles_status(g, out);
}

/* The workers have ended. */
static void end(struct group *g)
{
	group_install_finish(g);
	raft_close(&g->raft, ignore_close);
	g->confirmed = false;
	while (g->proposals != NULL) {
		struct proposal *p = g->proposals;

		g->proposals = p->next;
		free(p);
	}
	release(g);
}

void group_close(struct group *g)
{
	g->closing = true;
	group_io_give_up(g);
	if (end_workers(g))
		end(g);
}

void group_abandon(struct group *g)
{
	g->closing = true;
	group_io_give_up(g);
	disk_abandon(g->store_disk);
	disk_abandon(g->log_disk);
	end(g);
}
