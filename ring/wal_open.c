/* SPDX-License-Identifier: MIT */
/* Reading the log back: everything is checked before anything is changed, so
 * that a start which fails leaves the files as they were and fails again in the
 * same way.
 *
 * What may be changed, when all is sound: a segment that had only just been
 * begun is removed (wal.c says why), a torn tail is overwritten with zeros, so
 * that its bytes cannot confuse a later start, and spares are removed. */
#include "ring/wal_impl.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/mem.h"

/* One segment in memory. */
struct image {
	struct wal_head head;
	uint8_t *at;
	size_t bytes;
	bool closed;
	size_t end;  /* offset after the last sound batch */
	size_t torn; /* bytes from there on that are to be cut */
};

struct opening {
	struct wal *w;
	char path[200]; /* of the folder, for messages; may be cut short */
	char *errmsg;
	struct wal_found *found;
	size_t cap; /* of found->entry */
	uint64_t *number;
	size_t n;	 /* segments */
	size_t at;	 /* the one being read */
	bool first_seen; /* found->first is known */
};

__attribute__((format(printf, 3, 4))) static int
fail(const struct opening *o, int rc, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(o->errmsg, RING_ERRMSG_SIZE, format, args);
	va_end(args);
	return rc;
}

/* Of the segment being read: what is wrong, and where. */
static int damaged(const struct opening *o, size_t offset, const char *what)
{
	return fail(o, -EUCLEAN,
		    "%s/%016" PRIx64
		    ".seg: damaged at offset %zu: %s; " WAL_WAY_OUT,
		    o->path, o->number[o->at], offset, what);
}

static int failed_file(const struct opening *o, const char *what, int rc)
{
	return fail(o, rc, "%s/%016" PRIx64 ".seg: %s: %s", o->path,
		    o->number[o->at], what, strerror(-rc));
}

/* ---- The list of segments ---- */

static bool parse_name(const char *name, uint64_t *number)
{
	char again[WAL_NAME_SIZE];

	if (strlen(name) != 16 + 4)
		return false;
	*number = strtoull(name, NULL, 16);
	wal_file_name(again, *number);
	return strcmp(name, again) == 0;
}

static int compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int list_segments(struct opening *o)
{
	int fd = openat(o->w->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	uint64_t number;

	if (dir == NULL)
		return fail(o, -errno, "%s: cannot be listed: %s", o->path,
			    strerror(errno));
	while (errno = 0, (e = readdir(dir)) != NULL) {
		if (!parse_name(e->d_name, &number))
			continue;
		o->number =
			xrealloc(o->number, (o->n + 1) * sizeof(*o->number));
		o->number[o->n++] = number;
	}
	int rc = -errno;
	closedir(dir);
	if (rc != 0)
		return fail(o, rc, "%s: cannot be listed: %s", o->path,
			    strerror(-rc));
	if (o->n > 0)
		qsort(o->number, o->n, sizeof(*o->number), compare_numbers);
	return 0;
}

static int check_sequence(const struct opening *o)
{
	for (size_t i = 1; i < o->n; i++)
		if (o->number[i] != o->number[0] + i)
			return fail(o, -ENOENT,
				    "%s/%016" PRIx64
				    ".seg is missing; " WAL_WAY_OUT,
				    o->path, o->number[0] + i);
	return 0;
}

/* ---- One segment ---- */

static int check_head(struct opening *o, const struct image *m)
{
	const struct wal *w = o->w;
	const struct wal_head *h = &m->head;

	if (memcmp(&h->cluster, &w->cluster, sizeof(h->cluster)) != 0)
		return fail(o, -EXDEV,
			    "%s/%016" PRIx64 ".seg belongs to another cluster; "
			    "give this node its own state directory",
			    o->path, o->number[o->at]);
	if (memcmp(&h->node, &w->node, sizeof(h->node)) != 0 ||
	    (w->server != 0 && h->server != w->server))
		return fail(o, -EXDEV,
			    "%s/%016" PRIx64 ".seg belongs to another node, or "
			    "to a former life of this one; " WAL_WAY_OUT,
			    o->path, o->number[o->at]);
	if (h->number != o->number[o->at])
		return damaged(o, 56, "the file holds another segment");
	if (h->bytes != m->bytes)
		return damaged(o, m->bytes < h->bytes ? m->bytes : h->bytes,
			       "the file is not as long as its header says");
	return 0;
}

/* Read the head of the segment o->at, and check it as far as it stands
 * alone. */
static int read_head(struct opening *o, int fd, struct image *m)
{
	uint8_t block[WAL_BLOCK];
	struct stat st;

	if (fstat(fd, &st) != 0)
		return failed_file(o, "cannot be read", -errno);
	if (st.st_size < WAL_BLOCK)
		return damaged(o, (size_t)st.st_size, "the file is too short");
	m->bytes = (size_t)st.st_size;
	int rc = wal_file_read(fd, block, sizeof(block), 0);
	if (rc != 0)
		return failed_file(o, "cannot be read", rc);
	rc = wal_head_decode(&m->head, block);
	if (rc == -EPROTONOSUPPORT)
		return fail(o, rc,
			    "%s/%016" PRIx64 ".seg was written by another "
			    "version of ringfs; start that one, or remove the "
			    "state directory and join again as a new node",
			    o->path, o->number[o->at]);
	if (rc != 0)
		return damaged(o, 0, "the header is not sound");
	return check_head(o, m);
}

/* Open and read the segment o->at; at is to be freed. */
static int read_segment(struct opening *o, struct image *m)
{
	char name[WAL_NAME_SIZE];

	wal_file_name(name, o->number[o->at]);
	int fd = openat(o->w->dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return failed_file(o, "cannot be opened", -errno);
	if (o->at + 1 >= o->n) {
		/* What a killed process appended is not on disk before this;
		 * and what a failed flush left in memory alone, which the
		 * kernel then takes for written, is forgotten by this. */
		int rc = wal_file_flush(fd);
		if (rc != 0) {
			close(fd);
			return failed_file(o, "cannot be flushed", rc);
		}
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	int rc = read_head(o, fd, m);
	if (rc == 0) {
		/* The size is the header's, and the header is sound. */
		m->at = xmalloc(m->bytes);
		rc = wal_file_read(fd, m->at, m->bytes, 0);
		if (rc != 0)
			failed_file(o, "cannot be read", rc);
	}
	close(fd);
	return rc;
}

/* ---- Records ---- */

static void drop_entries(struct wal_found *f, size_t keep)
{
	while (f->n_entries > keep)
		free((void *)(uintptr_t)f->entry[--f->n_entries].data);
}

/* Take e, whose data are borrowed; it replaces what is there from its index. */
static void take_entry(struct opening *o, struct wal_entry e)
{
	struct wal_found *f = o->found;

	if (f->n_entries == 0 || e.index <= f->first) {
		drop_entries(f, 0);
		f->first = e.index;
	}
	drop_entries(f, (size_t)(e.index - f->first));
	if (f->n_entries == o->cap) {
		o->cap = o->cap ? 2 * o->cap : 64;
		f->entry = xrealloc(f->entry, o->cap * sizeof(*f->entry));
	}
	if (e.len > 0)
		e.data = memcpy(xmalloc(e.len), e.data, e.len);
	else
		e.data = NULL;
	f->entry[f->n_entries++] = e;
	o->w->last = e.index;
	if (e.index < o->w->now.lowest)
		o->w->now.lowest = e.index;
	if (e.index > o->w->now.highest)
		o->w->now.highest = e.index;
}

static bool read_record(struct opening *o, struct image *m, struct reader *r)
{
	struct wal_entry e = {0};

	switch (reader_u8(r)) {
	case WAL_ENTRY:
		e.type = reader_u8(r);
		e.len = reader_u32(r);
		e.index = reader_u64(r);
		e.term = reader_u64(r);
		e.data = reader_bytes(r, e.len);
		if (r->bad || e.index < m->head.first ||
		    e.index > o->w->last + 1)
			return false;
		take_entry(o, e);
		return true;
	case WAL_VOTE:
		o->w->term = reader_u64(r);
		o->w->vote = reader_u64(r);
		return !r->bad;
	case WAL_CLOSED:
		m->closed = true;
		return reader_u64(r) == m->head.number + 1 && !r->bad;
	case WAL_GENERATION:
		o->w->generation = reader_u32(r);
		return !r->bad;
	default:
		return false;
	}
}

static int read_batch(struct opening *o, struct image *m,
		      const struct wal_batch *b)
{
	struct reader r = wal_records(m->at, m->end, b, o->w->server);

	if (b->seq != o->w->seq)
		return damaged(o, m->end, "a batch is missing before this one");
	for (uint32_t i = 0; i < b->count; i++)
		if (!read_record(o, m, &r))
			return damaged(o, m->end, "a record makes no sense");
	if (reader_left(&r) != 0)
		return damaged(o, m->end, "a record makes no sense");
	o->w->seq++;
	m->end += b->length;
	m->end += -m->end % WAL_ALIGN;
	return 0;
}

/* ---- The tail ---- */

/* The segment o->at + 1 was begun but nothing is in it. */
static int next_is_blank(struct opening *o, bool *blank)
{
	struct image next = {0};

	o->at++;
	int rc = read_segment(o, &next);
	if (rc == 0)
		*blank = next.head.seq == o->w->seq + 1 &&
			 wal_is_zero(next.at + WAL_BLOCK,
				     next.bytes - WAL_BLOCK);
	free(next.at);
	o->at--;
	return rc;
}

/* The segment ends, unclosed, at m->end: may it? If so, it is the last. */
static int end_unclosed(struct opening *o, struct image *m, enum wal_look look)
{
	bool last = o->at + 1 == o->n;

	if (o->at + 2 == o->n) {
		int rc = next_is_blank(o, &last);
		if (rc != 0)
			return rc;
	}
	if (!last)
		return damaged(o, m->end, "the end of the segment is missing");
	if (look == WAL_LOOK_END)
		return 0;
	if (wal_was_flushed(m->at, m->bytes, m->end + WAL_ALIGN, o->w->seq))
		return damaged(o, m->end,
			       "a batch is incomplete, but not the last");
	m->torn = m->bytes - m->end;
	while (m->at[m->end + m->torn - 1] == 0)
		m->torn--;
	return 0;
}

static int end_closed(struct opening *o, const struct image *m)
{
	if (!wal_is_zero(m->at + m->end, m->bytes - m->end))
		return damaged(o, m->end,
			       "something follows the segment's end");
	if (o->at + 1 < o->n)
		return 0;
	return fail(o, -ENOENT,
		    "%s/%016" PRIx64 ".seg is missing; " WAL_WAY_OUT, o->path,
		    o->number[o->at] + 1);
}

/* Read all batches of m. */
static int scan_segment(struct opening *o, struct image *m)
{
	struct wal_batch b;

	while (!m->closed && m->end < m->bytes) {
		enum wal_look look = wal_look_at(m->at, m->bytes, m->end, &b);

		if (look == WAL_LOOK_DAMAGED)
			return damaged(o, m->end, "a batch fails its checksum");
		if (look != WAL_LOOK_BATCH)
			return end_unclosed(o, m, look);
		int rc = read_batch(o, m, &b);
		if (rc != 0)
			return rc;
	}
	if (!m->closed)
		return damaged(o, m->end, "the end of the segment is missing");
	return end_closed(o, m);
}

/* A restart: forget the entries read so far. */
static void begin_anew(struct opening *o, uint64_t last)
{
	struct wal *w = o->w;

	drop_entries(o->found, 0);
	w->last = last;
	for (size_t i = 0; i < w->n_old; i++) {
		w->old[i].lowest = UINT64_MAX;
		w->old[i].highest = 0;
	}
}

/* Compare the header with what was read so far. */
static int join_segment(struct opening *o, const struct image *m)
{
	struct wal *w = o->w;
	const struct wal_head *h = &m->head;

	if (!o->first_seen) {
		o->first_seen = true;
		w->server = h->server;
		w->last = h->last;
		w->term = h->term;
		w->vote = h->vote;
		w->seq = h->seq;
		w->generation = h->generation;
		return 0;
	}
	if (h->restart)
		begin_anew(o, h->last);
	if (h->last != w->last || h->term != w->term || h->vote != w->vote ||
	    h->seq != w->seq || h->generation != w->generation)
		return damaged(o, 80, "it does not continue the one before");
	return 0;
}

/* ---- Changes, when all is sound ---- */

static int remove_file(const struct opening *o, const char *name)
{
	if (unlinkat(o->w->dirfd, name, 0) != 0 && errno != ENOENT)
		return fail(o, -errno, "%s/%s cannot be removed: %s", o->path,
			    name, strerror(errno));
	return 0;
}

static int remove_leftovers(const struct opening *o)
{
	char name[WAL_NAME_SIZE];
	int rc = remove_file(o, "spare");

	if (rc == 0)
		rc = remove_file(o, "large");
	if (rc == 0 && o->at + 1 < o->n) {
		wal_file_name(name, o->number[o->at + 1]);
		rc = remove_file(o, name);
	}
	if (rc != 0)
		return rc;
	rc = wal_file_flush_dir(o->w->dirfd);
	if (rc != 0)
		return fail(o, rc, "%s cannot be flushed: %s", o->path,
			    strerror(-rc));
	return 0;
}

/* Open the last segment for appends, its torn tail cut. */
static int enter_last(struct opening *o, const struct image *m)
{
	struct wal *w = o->w;
	char name[WAL_NAME_SIZE];
	int rc = remove_leftovers(o);

	if (rc != 0)
		return rc;
	wal_file_name(name, o->number[o->at]);
	w->fd = openat(w->dirfd, name, O_RDWR | O_CLOEXEC);
	if (w->fd < 0)
		return failed_file(o, "cannot be opened", -errno);
	if (m->torn > 0)
		rc = wal_file_zero(w->fd, m->torn, m->end);
	if (rc == 0)
		rc = wal_file_flush(w->fd);
	if (rc != 0)
		return failed_file(o, "cannot be written", rc);
	o->found->torn_bytes = m->torn;
	w->offset = m->end;
	w->flushed = w->seq - 1;
	return 0;
}

static int read_next(struct opening *o, struct image *m)
{
	struct wal *w = o->w;

	*m = (struct image){.end = WAL_BLOCK};
	int rc = read_segment(o, m);
	if (rc != 0)
		return rc;
	rc = join_segment(o, m);
	if (rc != 0)
		return rc;
	w->now = (struct wal_segment){.number = o->number[o->at],
				      .bytes = m->bytes,
				      .lowest = UINT64_MAX};
	w->bytes += m->bytes;
	return scan_segment(o, m);
}

static int read_all(struct opening *o)
{
	struct wal *w = o->w;
	struct image m;
	int rc;

	for (;; o->at++) {
		rc = read_next(o, &m);
		if (rc != 0 || !m.closed)
			break;
		w->old = xrealloc(w->old, (w->n_old + 1) * sizeof(*w->old));
		w->old[w->n_old++] = w->now;
		free(m.at);
	}
	if (rc == 0)
		rc = enter_last(o, &m);
	free(m.at);
	return rc;
}

/* ---- A new log ---- */

static int make_first(struct opening *o, size_t bytes)
{
	struct wal *w = o->w;
	struct wal_segment s = {
		.number = 1, .bytes = bytes, .lowest = UINT64_MAX};

	if (w->server == 0 && getrandom(&w->server, sizeof(w->server), 0) < 0)
		return fail(o, -errno, "%s: no random number: %s", o->path,
			    strerror(errno));
	w->server += w->server == 0;
	w->now.lowest = UINT64_MAX;
	w->seq = 1;
	w->flushed = 0;
	int rc = wal_file_make(w->dirfd, "spare", bytes, &w->fd);
	if (rc == 0)
		rc = wal_begin_segment(w, w->fd, "spare", &s, w->seq);
	if (rc != 0)
		return fail(o, rc, "%s: a log cannot be made: %s", o->path,
			    strerror(-rc));
	w->now = s;
	w->offset = WAL_BLOCK;
	w->bytes = bytes;
	o->found->created = true;
	return 0;
}

/* Open the folder, or make it; its name is to be on disk before its files. */
static int open_folder(struct opening *o, const char *dir, bool create)
{
	int parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0;

	if (parent < 0)
		return fail(o, -errno, "%s cannot be opened: %s", dir,
			    strerror(errno));
	if (create && mkdirat(parent, "wal", 0700) != 0 && errno != EEXIST)
		rc = -errno;
	if (create && rc == 0)
		rc = wal_file_flush_dir(parent);
	if (rc == 0)
		o->w->dirfd = openat(parent, "wal",
				     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rc == 0 && o->w->dirfd < 0)
		rc = -errno;
	close(parent);
	if (rc != 0)
		return fail(o, rc, "%s: %s; " WAL_WAY_OUT, o->path,
			    rc == -ENOENT ? "the log is missing"
					  : strerror(-rc));
	return 0;
}

static int open_log(struct opening *o, const struct wal_config *config,
		    bool create)
{
	int rc = open_folder(o, config->dir, create);

	if (rc == 0)
		rc = list_segments(o);
	if (rc != 0)
		return rc;
	if (o->n == 0 && create)
		return make_first(o, config->segment_bytes);
	if (o->n == 0)
		return fail(o, -ENOENT, "%s: the log is missing; " WAL_WAY_OUT,
			    o->path);
	rc = check_sequence(o);
	return rc == 0 ? read_all(o) : rc;
}

int wal_open(const struct wal_config *config, bool create, struct wal **out,
	     struct wal_found *found, char *errmsg)
{
	struct wal *w = xcalloc(1, sizeof(*w));
	struct opening o = {.w = w, .errmsg = errmsg, .found = found};

	assert(config->segment_bytes >= 2 * WAL_BLOCK &&
	       config->segment_bytes % WAL_BLOCK == 0);
	memset(found, 0, sizeof(*found));
	snprintf(o.path, sizeof(o.path), "%s/wal", config->dir);
	w->cluster = config->cluster;
	w->node = config->node;
	w->server = config->server;
	w->generation = config->generation;
	w->segment_bytes = config->segment_bytes;
	w->dirfd = w->fd = w->spare_fd = -1;
	pthread_mutex_init(&w->lock, NULL);
	int rc = open_log(&o, config, create);
	free(o.number);
	if (rc != 0) {
		w->failed = true;
		wal_close(w);
		wal_found_finish(found);
		return rc;
	}
	found->term = w->term;
	found->vote = w->vote;
	found->server = w->server;
	found->generation = w->generation;
	if (found->n_entries == 0)
		found->first = w->last + 1;
	wal_moved(w);
	*out = w;
	return 0;
}

void wal_found_finish(struct wal_found *f)
{
	drop_entries(f, 0);
	free(f->entry);
	*f = (struct wal_found){0};
}
