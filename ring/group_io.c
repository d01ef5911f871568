/* SPDX-License-Identifier: MIT */
/* The disk, for the library: struct raft_io and struct raft_fsm on wal.c and
 * store.c, by rules 14 to 18. Nothing here blocks; two workers do. */
#include "ring/group_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "ring/mem.h"

#define RETRY_MS 500 /* after a full disk */

struct append_job {
	struct disk_job job;
	struct group *g;
	struct raft_io_append *req;
	struct wal_entry *entries;
	size_t n;
	uint64_t posted_ms;
	struct append_job *next; /* among those not done, or the lost */
};

struct vote_job {
	struct disk_job job;
	struct group *g;
	uint64_t term, vote;
};

struct segment_job { /* prepare, or trim up to index */
	struct disk_job job;
	struct group *g;
	uint64_t index;
};

struct put_job {
	struct disk_job job;
	struct group *g;
	struct raft_io_snapshot_put *req;
	struct store_batch batch;
	uint64_t trim;
};
/* ---- The disk, for the library ---- */

int group_io_with_room(struct group *g, int (*op)(struct disk_job *job),
		       struct disk_job *job)
{
	int rc;

	while ((rc = op(job)) == -ENOSPC && !disk_is_closing(g->log_disk) &&
	       !g->config.inline_jobs) {
		if (!atomic_exchange(&g->log_full, true))
			g->config.wake(g->config.data);
		usleep(100 * 1000);
	}
	if (atomic_exchange(&g->log_full, false) &&
	    !disk_is_closing(g->log_disk))
		g->config.wake(g->config.data);
	return rc;
}

static int append_once(struct disk_job *job)
{
	struct append_job *a = (struct append_job *)job;

	return wal_append(a->g->wal, a->entries, a->n);
}

static int append_work(struct disk_job *job)
{
	return group_io_with_room(((struct append_job *)job)->g, append_once,
				  job);
}

static void append_done(struct disk_job *job)
{
	struct append_job *a = (struct append_job *)job;
	struct group *g = a->g;

	assert(g->appends == a);
	g->appends = a->next;
	if (g->appends == NULL)
		g->appends_tail = &g->appends;
	free(a->entries);
	if (job->rc != 0 && !g->closing)
		group_fail(g, "the log cannot be written: %s",
			   strerror(-job->rc));
	if (g->failed && !g->closing) { /* mute; told when we close */
		a->next = g->lost;
		g->lost = a;
		return;
	}
	a->req->cb(a->req, job->rc == 0 && !g->failed ? 0 : RAFT_CANCELED);
	free(a);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct group *g = io->impl;
	struct append_job *a = xcalloc(1, sizeof(*a));
	/* The library appends at the end, after its own truncation. */
	uint64_t first = raft_last_index(&g->raft) + 1 - n;

	req->cb = cb;
	*a = (struct append_job){
		.job = {.work = append_work, .done = append_done},
		.g = g,
		.req = req,
		.entries = xcalloc(n, sizeof(*a->entries)),
		.n = n,
		.posted_ms = g->now_ms};
	for (unsigned i = 0; i < n; i++)
		a->entries[i] = (struct wal_entry){
			.index = first + i,
			.term = entries[i].term,
			.type = (uint8_t)entries[i].type,
			.data = entries[i].buf.base, /* held until cb */
			.len = entries[i].buf.len};
	for (unsigned i = 0; i < n; i++) {
		if (entries[i].type == RAFT_BARRIER) /* never filled */
			memset(entries[i].buf.base, 0, entries[i].buf.len);
		g->bytes_appended += entries[i].buf.len;
	}
	*g->appends_tail = a;
	g->appends_tail = &a->next;
	g->n_entries += n;
	disk_post(g->log_disk, &a->job);
	return 0;
}

uint64_t group_io_oldest(const struct group *g)
{
	return g->appends != NULL ? g->appends->posted_ms : NEVER;
}

static int vote_once(struct disk_job *job)
{
	struct vote_job *v = (struct vote_job *)job;

	return wal_set_vote(v->g->wal, v->term, v->vote);
}

static int vote_work(struct disk_job *job)
{
	return group_io_with_room(((struct vote_job *)job)->g, vote_once, job);
}

static void vote_done(struct disk_job *job)
{
	struct vote_job *v = (struct vote_job *)job;
	struct group *g = v->g;
	int rc = job->rc;

	free(v);
	if (g->closing)
		return;
	if (rc != 0)
		group_fail(g, "term and vote cannot be written: %s",
			   strerror(-rc));
	g->n_votes_done++;
	group_net_release(g);
}

/* Rule 15: queued behind what was asked before; failure is mute. What is
 * written already is not written again: between a term without its vote and the vote,
 * a crash would forget a vote that was given. */
static int post_vote(struct group *g, uint64_t term, uint64_t vote)
{
	if (term == g->last_term && vote == g->last_vote)
		return 0;
	g->last_term = term;
	g->last_vote = vote;
	g->n_votes++;
	struct vote_job *v = xcalloc(1, sizeof(*v));

	*v = (struct vote_job){.job = {.work = vote_work, .done = vote_done},
			       .g = g,
			       .term = term,
			       .vote = vote};
	disk_post(g->log_disk, &v->job);
	return 0;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
	struct group *g = io->impl;

	/* A new term has no vote yet; the library also sets an old one anew. */
	return term == g->last_term ? 0 : post_vote(g, term, 0);
}

static int io_set_vote(struct raft_io *io, raft_id server)
{
	struct group *g = io->impl;

	return post_vote(g, raft_current_term(&g->raft), server);
}

/* An append replaces what stands at its index and after (wal.h). */
static int io_truncate(struct raft_io *io, raft_index index)
{
	(void)io;
	(void)index;
	return 0;
}

/* ---- Segments ---- */

static int prepare_work(struct disk_job *job)
{
	return wal_prepare(((struct segment_job *)job)->g->wal);
}

static int trim_work(struct disk_job *job)
{
	struct segment_job *s = (struct segment_job *)job;

	return wal_trim(s->g->wal, s->index);
}

static void prepare_done(struct disk_job *job)
{
	struct group *g = ((struct segment_job *)job)->g;

	g->preparing = false;
	g->prepare_full = job->rc == -ENOSPC;
	if (g->prepare_full)
		g->prepare_at_ms = g->now_ms + RETRY_MS;
	else if (job->rc != 0 && !g->closing)
		group_fail(g, "no new segment of the log can be made: %s",
			   strerror(-job->rc));
	free(job);
}

static void trim_done(struct disk_job *job)
{
	struct group *g = ((struct segment_job *)job)->g;

	if (job->rc != 0 && !g->closing)
		group_say(g, 4, "old segments of the log cannot be removed: %s",
			  strerror(-job->rc));
	free(job);
}

static void post_segment_job(struct group *g, uint64_t trim)
{
	struct segment_job *s = xcalloc(1, sizeof(*s));

	s->job.work = trim ? trim_work : prepare_work;
	s->job.done = trim ? trim_done : prepare_done;
	s->g = g;
	s->index = trim;
	disk_post(g->store_disk, &s->job);
}

/* Keep a spare segment, so that no append waits for one. */
void group_io_prepare(struct group *g)
{
	if (g->preparing || g->failed || g->now_ms < g->prepare_at_ms ||
	    wal_room(g->wal) >= WAL_SEGMENT_BYTES)
		return;
	g->preparing = true;
	post_segment_job(g, 0);
}

/* ---- Snapshots: the store ---- */

/* The store's snapshot meta:
 *   u64 index, u64 term, u64 configuration index, u32 n, n bytes configuration,
 *   u8 1 if it came from another node; else nothing */
void group_io_put_snapshot(struct buf *b, const struct raft_snapshot *s,
			   bool replaced)
{
	struct raft_buffer conf;

	mem_check(raft_configuration_encode(&s->configuration, &conf) == 0
			  ? conf.base
			  : NULL);
	buf_u64(b, s->index);
	buf_u64(b, s->term);
	buf_u64(b, s->configuration_index);
	buf_u32(b, (uint32_t)conf.len);
	buf_put(b, conf.base, conf.len);
	if (replaced)
		buf_u8(b, 1);
	raft_free(conf.base);
}

int group_io_snapshot(const struct buf *b, struct raft_snapshot *s,
		      bool *replaced)
{
	struct reader r = reader_of(b->base, b->len);

	s->index = reader_u64(&r);
	s->term = reader_u64(&r);
	s->configuration_index = reader_u64(&r);
	uint32_t n = reader_u32(&r);
	const uint8_t *bytes = reader_bytes(&r, n);

	*replaced = reader_left(&r) > 0;
	if (*replaced && reader_u8(&r) != 1)
		r.bad = true;
	if (r.bad || reader_left(&r) != 0 || n == 0)
		return -EBADMSG;
	struct raft_buffer conf = {.base = xmalloc(n), .len = n};

	memcpy(conf.base, bytes, n);
	raft_configuration_init(&s->configuration);
	int rc = raft_configuration_decode(&conf, &s->configuration);

	free(conf.base);
	return rc == 0 ? 0 : -EBADMSG;
}

static int put_work(struct disk_job *job)
{
	struct put_job *p = (struct put_job *)job;

	return store_write(p->g->store, &p->batch);
}

static void put_finish(struct put_job *p)
{
	store_batch_finish(&p->batch);
	free(p);
}

/* The snapshot is in the store; the library cuts its log. */
static void put_succeeded(struct put_job *p)
{
	struct group *g = p->g;

	free(g->meta.snapshot.base);
	g->meta.snapshot = p->batch.snapshot;
	p->batch.snapshot = (struct buf){0};
	p->req->cb(p->req, 0);
	if (p->trim > 1)
		post_segment_job(g, p->trim);
}

static void put_done(struct disk_job *job)
{
	struct put_job *p = (struct put_job *)job;
	struct group *g = p->g;

	if (job->rc == -ENOSPC && !g->closing) {
		/* The same batch again when there is room: it is the machine
		 * as of the snapshot's index, whatever comes meanwhile. */
		if (!g->store_full)
			group_say(g, 4,
				  "the store's disk is full: the log grows");
		g->store_full = true;
		g->put_waiting = p;
		g->store_retry_at_ms = g->now_ms + RETRY_MS;
		return;
	}
	g->store_full = false;
	if (job->rc != 0 && !g->closing) {
		group_fail(g, "the store cannot be written: %s",
			   strerror(-job->rc));
		g->put_waiting = p; /* for our close */
		return;
	}
	/* One that is told of success while we close begins the next. */
	if (job->rc == 0 && !g->closing)
		put_succeeded(p);
	else
		p->req->cb(p->req, RAFT_CANCELED);
	put_finish(p);
}

static int no_work(struct disk_job *job)
{
	(void)job;
	return 0;
}

static void post_put(struct put_job *p)
{
	p->job.work = put_work;
	p->job.done = put_done;
	disk_post(p->g->store_disk, &p->job);
}

/* The log is on disk up to the snapshot. */
static void log_is_there(struct disk_job *job)
{
	struct put_job *p = (struct put_job *)job;

	if (job->rc == 0 && !p->g->closing && !p->g->failed) {
		post_put(p);
	} else if (p->g->closing) {
		job->rc = -ECANCELED;
		put_done(job);
	} else {
		p->g->put_waiting = p; /* for our close */
	}
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing,
			   struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot,
			   raft_io_snapshot_put_cb cb)
{
	struct group *g = io->impl;

	req->cb = cb;
	if (g->closing) /* an append's end while we close may want one */
		return RAFT_CANCELED;
	if (g->raft.legacy.snapshot_install) {
		group_install_put(g, req, snapshot);
		return 0;
	}
	struct put_job *p = xcalloc(1, sizeof(*p));

	p->g = g;
	p->req = req;
	p->trim = snapshot->index > trailing ? snapshot->index - trailing : 1;
	g->config.collect(g->config.data, &p->batch);
	group_io_put_snapshot(&p->batch.snapshot, snapshot, false);
	g->bytes_since_snapshot = 0;
	g->applied_at_snapshot = snapshot->index;
	raft_set_snapshot_threshold(&g->raft, g->config.snapshot_entries);
	if (g->raft.last_stored >= snapshot->index) {
		post_put(p);
		return 0;
	}
	/* A follower applies what a majority has, even if it is on its way to
	 * its own disk still; but no store may be ahead of its log. */
	p->job.work = no_work;
	p->job.done = log_is_there;
	disk_post(g->log_disk, &p->job);
	return 0;
}

/* Rule 17: what the library passes around is a descriptor; the content is the
 * store. */
static struct raft_buffer descriptor(uint64_t index)
{
	struct raft_buffer b = {.base = raft_malloc(8), .len = 8};

	memcpy(mem_check(b.base), &index, 8);
	return b;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[],
			unsigned *n_bufs)
{
	struct group *g = fsm->data;
	const struct raft *r = &g->raft;

	/* A configuration that is committed, but which the library has yet to
	 * take for it, would be missing from the snapshot. */
	if (g->failed ||
	    (r->configuration_uncommitted_index != 0 &&
	     r->configuration_uncommitted_index <= r->commit_index))
		return RAFT_BUSY;
	*bufs = mem_check(raft_malloc(sizeof(**bufs)));
	(*bufs)[0] = descriptor(raft_last_applied(&g->raft));
	*n_bufs = 1;
	return 0;
}

/* At the start the machine is loaded already; else the stores were swapped. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *b)
{
	struct group *g = fsm->data;
	char errmsg[RING_ERRMSG_SIZE];

	raft_free(b->base);
	if (!g->replaced)
		return 0;
	g->replaced = false;
	g->bytes_since_snapshot = 0;
	g->applied_at_snapshot = raft_commit_index(&g->raft);
	if (group_reload(g, errmsg) == 0)
		return 0;
	group_fail(g, "%s", errmsg);
	return RAFT_CORRUPT;
}

/* ---- The rest of struct raft_io ---- */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
	(void)io;
	(void)id;
	(void)address;
	return 0;
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
	cb(io);
}

/* The log as found, copied into the library's memory. */
static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
		   struct raft_snapshot **snapshot, raft_index *start_index,
		   struct raft_entry *entries[], size_t *n_entries)
{
	struct group *g = io->impl;
	const struct wal_found *f = &g->found;
	size_t n = f->n_entries;

	*term = f->term;
	*voted_for = f->vote;
	*snapshot = NULL;
	*start_index = f->first;
	*n_entries = n;
	*entries = n ? mem_check(raft_calloc(n, sizeof(**entries))) : NULL;
	for (size_t i = 0; i < n; i++) {
		struct raft_entry *e = &(*entries)[i];

		e->term = f->entry[i].term;
		e->type = f->entry[i].type;
		e->buf.len = f->entry[i].len;
		e->buf.base = mem_check(raft_malloc(e->buf.len));
		memcpy(e->buf.base, f->entry[i].data, e->buf.len);
		e->batch = e->buf.base;
	}
	if (g->meta.snapshot.len == 0)
		return 0;
	struct raft_snapshot *s = mem_check(raft_calloc(1, sizeof(*s)));

	bool replaced;

	if (group_io_snapshot(&g->meta.snapshot, s, &replaced) != 0)
		return RAFT_MALFORMED; /* checked before: check_gap() */
	s->bufs = mem_check(raft_malloc(sizeof(*s->bufs)));
	s->bufs[0] = descriptor(s->index);
	s->n_bufs = 1;
	*snapshot = s;
	return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
		    raft_io_recv_cb recv)
{
	struct group *g = io->impl;

	(void)msecs; /* we tick as TICK_MS says */
	g->recv_cb = recv;
	g->tick_cb = tick;
	return 0;
}

/* Entry 1, the configuration. Before the workers run. */
static int io_bootstrap(struct raft_io *io,
			const struct raft_configuration *conf)
{
	struct group *g = io->impl;
	struct raft_buffer b;

	mem_check(raft_configuration_encode(conf, &b) == 0 ? b.base : NULL);
	struct wal_entry e = {.index = 1,
			      .term = 1,
			      .type = RAFT_CHANGE,
			      .data = b.base,
			      .len = b.len};
	int rc = wal_set_vote(g->wal, 1, 0);

	if (rc == 0)
		rc = wal_append(g->wal, &e, 1);
	if (rc == 0)
		rc = wal_sync(g->wal);
	raft_free(b.base);
	return rc == 0 ? 0 : rc == -ENOSPC ? RAFT_NOSPACE : RAFT_IOERR;
}

/* The entry behind the last one, of a term of its own, in which nobody else can
 * have led or voted: those who could are of the generation before. Without
 * workers. */
static int io_recover(struct raft_io *io, const struct raft_configuration *conf)
{
	struct group *g = io->impl;
	const struct wal_found *f = &g->found;
	struct raft_buffer b;

	mem_check(raft_configuration_encode(conf, &b) == 0 ? b.base : NULL);
	struct wal_entry e = {.index = f->first + f->n_entries,
			      .term = f->term + 1,
			      .type = RAFT_CHANGE,
			      .data = b.base,
			      .len = b.len};
	int rc = wal_set_vote(g->wal, f->term + 1, f->server);

	if (rc == 0)
		rc = wal_recover(g->wal, &e, f->generation + 1);
	if (rc == 0)
		rc = wal_sync(g->wal);
	raft_free(b.base);
	return rc == 0 ? 0 : rc == -ENOSPC ? RAFT_NOSPACE : RAFT_IOERR;
}

/* What the store has, which may be newer than asked for: its content is read
 * later, and the message is made then (rule 17). */
static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
			   raft_io_snapshot_get_cb cb)
{
	struct group *g = io->impl;
	struct raft_snapshot *s = mem_check(raft_calloc(1, sizeof(*s)));
	bool replaced;

	if (group_io_snapshot(&g->meta.snapshot, s, &replaced) != 0) {
		raft_free(s);
		return RAFT_NOTFOUND;
	}
	s->bufs = mem_check(raft_malloc(sizeof(*s->bufs)));
	s->bufs[0] = descriptor(s->index);
	s->n_bufs = 1;
	cb(req, s, 0);
	return 0;
}

static raft_time io_time(struct raft_io *io)
{
	return ((struct group *)io->impl)->now_ms;
}

/* splitmix64's last step. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static int io_random(struct raft_io *io, int min, int max)
{
	struct group *g = io->impl;
	uint64_t v;

	if (g->config.seed != 0)
		v = mix(g->config.seed += 0x9e3779b97f4a7c15);
	else if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		v = 0;
	return min + (int)(v % (unsigned)(max - min));
}

void group_io_set(struct group *g)
{
	g->io = (struct raft_io){.version = 2,
				 .capacity = UINT16_MAX,
				 .impl = g,
				 .init = io_init,
				 .close = io_close,
				 .load = io_load,
				 .start = io_start,
				 .bootstrap = io_bootstrap,
				 .recover = io_recover,
				 .set_term = io_set_term,
				 .set_vote = io_set_vote,
				 .send = group_net_send,
				 .append = io_append,
				 .truncate = io_truncate,
				 .snapshot_put = io_snapshot_put,
				 .snapshot_get = io_snapshot_get,
				 .time = io_time,
				 .random = io_random};
	g->fsm = (struct raft_fsm){.version = 1,
				   .data = g,
				   .apply = group_apply,
				   .snapshot = fsm_snapshot,
				   .restore = fsm_restore};
}

/* ---- Again, when there was no room ---- */

void group_io_retry(struct group *g)
{
	struct put_job *p = g->put_waiting;

	if (p == NULL || g->failed || g->now_ms < g->store_retry_at_ms)
		return;
	g->put_waiting = NULL;
	post_put(p);
}

void group_io_give_up(struct group *g)
{
	struct put_job *p = g->put_waiting;

	while (g->lost != NULL) {
		struct append_job *a = g->lost;

		g->lost = a->next;
		a->req->cb(a->req, RAFT_CANCELED);
		free(a);
	}
	if (p == NULL)
		return;
	g->put_waiting = NULL;
	p->job.rc = -ECANCELED;
	put_done(&p->job);
}
