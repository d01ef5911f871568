/* SPDX-License-Identifier: MIT */
/* Appending: batches into the segment in use, and one segment after another.
 *
 * A segment is begun in this order, so that a crash between any two steps
 * leaves a log that opens:
 *   1  what was appended is flushed
 *   2  a file of zeros is at hand: the spare, or one made now
 *   3  it gets its header, is flushed, renamed to its number, the folder
 *   flushed 4  the segment before gets its closing batch and is flushed
 *   5  batches go into the new one
 * After 3 the new segment is blank and the one before not closed: wal_open
 * removes the new one. From 4 on the one before says that another follows, so
 * that a missing file is noticed even if it was the newest.
 *
 * A restart is such a change of segments: the header of the new one says that
 * the entries before it count no more, from step 4 on. Then the old ones are
 * removed.
 *
 * After a failed write or flush nothing is known of what is on disk (the kernel
 * may have dropped the pages and say yes the next time): the log refuses
 * everything from then on. */
#include "ring/wal_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ring/mem.h"

#define BATCH_KEEP (1u << 20) /* a larger buffer is given back after use */

/* No room is told apart from all other errors: it changed nothing. */
static int lose(struct wal *w, int rc)
{
	w->failed = true;
	return rc == -ENOSPC ? -EIO : rc;
}

void wal_moved(struct wal *w)
{
	size_t used = w->offset + WAL_CLOSE;

	atomic_store(&w->left, used < w->now.bytes ? w->now.bytes - used : 0);
}

int wal_sync(struct wal *w)
{
	if (w->failed)
		return -EIO;
	if (w->flushed == w->seq - 1)
		return 0;
	int rc = wal_file_flush(w->fd);
	if (rc != 0)
		return lose(w, rc);
	w->flushed = w->seq - 1;
	return 0;
}

/* Complete the batch in w->batch. Apart from its writing, which is one call. */
static void seal_batch(struct wal *w, uint32_t count)
{
	struct wal_batch b = {
		.seq = w->seq,
		.count = count,
		.lag = (uint32_t)(w->seq - 1 - w->flushed),
	};

	wal_batch_end(&w->batch, &b, w->server);
}

static int write_batch(struct wal *w)
{
	size_t n = w->batch.len;
	int rc = wal_file_write(w->fd, w->batch.base, n, w->offset);

	if (w->batch.cap > BATCH_KEEP) {
		free(w->batch.base);
		w->batch = (struct buf){0};
	}
	if (rc != 0)
		return lose(w, rc);
	w->offset += (n + WAL_ALIGN - 1) & ~(size_t)(WAL_ALIGN - 1);
	assert(w->offset <= w->now.bytes);
	wal_moved(w);
	w->seq++;
	return 0;
}

/* The lowest index still on disk. With the lock held. */
static uint64_t lowest(const struct wal *w)
{
	uint64_t low = w->now.lowest;

	for (size_t i = 0; i < w->n_old; i++)
		if (w->old[i].lowest < low)
			low = w->old[i].lowest;
	return low <= w->last ? low : w->last + 1;
}

int wal_begin_segment(struct wal *w, int fd, const char *name,
		      const struct wal_segment *s, uint64_t seq)
{
	struct wal_head h = {
		.cluster = w->cluster,
		.node = w->node,
		.server = w->server,
		.number = s->number,
		.bytes = s->bytes,
		.first = w->restarting ? w->last + 1 : lowest(w),
		.last = w->last,
		.term = w->term,
		.vote = w->vote,
		.seq = seq,
		.generation = w->generation,
		.restart = w->restarting,
	};
	char numbered[WAL_NAME_SIZE];
	struct buf block = {0};

	wal_head_encode(&h, &block);
	int rc = wal_file_write(fd, block.base, block.len, 0);
	free(block.base);
	if (rc == 0)
		rc = wal_file_flush(fd);
	if (rc != 0)
		return rc == -ENOSPC ? -EIO : rc;
	wal_file_name(numbered, s->number);
	if (renameat(w->dirfd, name, w->dirfd, numbered) != 0)
		return -errno; /* -ENOSPC: no room in the folder: nothing done */
	rc = wal_file_flush_dir(w->dirfd);
	return rc == -ENOSPC ? -EIO : rc;
}

static int make_spare(struct wal *w)
{
	if (w->spare_fd >= 0)
		return 0;
	int rc = wal_file_make(w->dirfd, "spare", w->segment_bytes,
			       &w->spare_fd);
	if (rc != 0)
		return rc;
	atomic_store(&w->spare_bytes, w->segment_bytes);
	atomic_fetch_add(&w->bytes, w->segment_bytes);
	return 0;
}

/* Step 4: close the segment in use. */
static int close_segment(struct wal *w)
{
	wal_batch_begin(&w->batch);
	wal_put_closed(&w->batch, w->now.number + 1);
	seal_batch(w, 1);
	int rc = write_batch(w);
	return rc == 0 ? wal_sync(w) : rc;
}

/* Steps 3 to 5: go on in the file name. */
static int enter_segment(struct wal *w, const char *name, int fd, size_t bytes)
{
	struct wal_segment s = {
		.number = w->now.number + 1,
		.bytes = bytes,
		.lowest = UINT64_MAX,
	};
	int rc = wal_begin_segment(w, fd, name, &s, w->seq + 1);

	if (rc == -ENOSPC)
		return rc;
	if (rc != 0)
		return lose(w, rc);
	rc = close_segment(w);
	if (rc != 0)
		return rc;
	w->old = xrealloc(w->old, (w->n_old + 1) * sizeof(*w->old));
	w->old[w->n_old++] = w->now;
	close(w->fd);
	w->fd = fd;
	w->now = s;
	w->offset = WAL_BLOCK;
	wal_moved(w);
	return 0;
}

static int enter_spare(struct wal *w)
{
	int rc = make_spare(w);

	if (rc != 0)
		return rc == -ENOSPC ? rc : lose(w, rc);
	rc = enter_segment(w, "spare", w->spare_fd, w->segment_bytes);
	if (rc != 0)
		return rc;
	w->spare_fd = -1;
	atomic_store(&w->spare_bytes, 0);
	return 0;
}

/* A segment for one batch that is larger than others have room for. */
static int enter_large(struct wal *w, size_t batch)
{
	size_t bytes = WAL_BLOCK + batch + WAL_CLOSE + WAL_BLOCK - 1;
	int fd;

	bytes -= bytes % WAL_BLOCK;
	int rc = wal_file_make(w->dirfd, "large", bytes, &fd);
	if (rc != 0)
		return rc == -ENOSPC ? rc : lose(w, rc);
	rc = enter_segment(w, "large", fd, bytes);
	if (rc != 0) {
		close(fd);
		unlinkat(w->dirfd, "large", 0); /* may have its number */
		return rc;
	}
	atomic_fetch_add(&w->bytes, bytes);
	return 0;
}

/* Make room for a batch of that size. */
static int reserve(struct wal *w, size_t batch)
{
	if (batch <= w->now.bytes - w->offset - WAL_CLOSE)
		return 0;
	int rc = wal_sync(w);
	if (rc != 0)
		return rc;
	pthread_mutex_lock(&w->lock);
	if (batch <= w->segment_bytes - WAL_BLOCK - WAL_CLOSE)
		rc = enter_spare(w);
	else
		rc = enter_large(w, batch);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static int remove_oldest(struct wal *w)
{
	char name[WAL_NAME_SIZE];

	wal_file_name(name, w->old[0].number);
	/* The folder is flushed each time: after a crash there must be no
	 * hole in the sequence. */
	if (unlinkat(w->dirfd, name, 0) != 0 && errno != ENOENT)
		return -EIO;
	if (wal_file_flush_dir(w->dirfd) != 0)
		return -EIO;
	atomic_fetch_sub(&w->bytes, w->old[0].bytes);
	w->n_old--;
	memmove(w->old, w->old + 1, w->n_old * sizeof(*w->old));
	return 0;
}

/* With the lock held. */
static int restart(struct wal *w, uint64_t first)
{
	uint64_t last = w->last, low = w->now.lowest;

	w->last = first - 1;
	w->now.lowest = UINT64_MAX; /* nothing here counts */
	w->restarting = true;
	int rc = enter_spare(w);

	w->restarting = false;
	if (rc != 0) {
		w->last = last;
		w->now.lowest = low;
	}
	/* What cannot be removed now is removed by the next wal_trim. */
	for (size_t i = 0; rc == 0 && i < w->n_old; i++) {
		w->old[i].lowest = UINT64_MAX;
		w->old[i].highest = 0;
	}
	while (rc == 0 && w->n_old > 0 && remove_oldest(w) == 0)
		;
	return rc;
}

int wal_restart(struct wal *w, uint64_t first)
{
	assert(first > 0);
	int rc = wal_sync(w);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&w->lock);
	rc = restart(w, first);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static void note_indexes(struct wal *w, const struct wal_entry *e, size_t n)
{
	if (e[0].index < w->now.lowest)
		w->now.lowest = e[0].index;
	w->last = e[n - 1].index;
	if (w->last > w->now.highest)
		w->now.highest = w->last;
}

int wal_append(struct wal *w, const struct wal_entry *entries, size_t n)
{
	size_t records = 0;

	assert(n > 0 && n <= UINT32_MAX && entries[0].index > 0);
	if (w->failed) /* and so there may be a gap */
		return -EIO;
	assert(entries[0].index <= w->last + 1);
	for (size_t i = 0; i < n; i++) {
		assert(entries[i].index == entries[0].index + i);
		if (entries[i].len > WAL_BATCH_MAX - records)
			return -EMSGSIZE;
		records += wal_entry_bytes(&entries[i]);
	}
	int rc = reserve(w, wal_batch_bytes(records));
	if (rc != 0)
		return rc;
	wal_batch_begin(&w->batch);
	for (size_t i = 0; i < n; i++)
		wal_put_entry(&w->batch, &entries[i]);
	seal_batch(w, (uint32_t)n);
	rc = write_batch(w);
	if (rc == 0)
		note_indexes(w, entries, n);
	return rc;
}

int wal_set_vote(struct wal *w, uint64_t term, uint64_t vote)
{
	if (w->failed)
		return -EIO;
	int rc = reserve(w, wal_batch_bytes(1 + 8 + 8));
	if (rc != 0)
		return rc;
	wal_batch_begin(&w->batch);
	wal_put_vote(&w->batch, term, vote);
	seal_batch(w, 1);
	rc = write_batch(w);
	if (rc != 0)
		return rc;
	w->term = term;
	w->vote = vote;
	return 0;
}

int wal_recover(struct wal *w, const struct wal_entry *entry,
		uint32_t generation)
{
	assert(entry->index == w->last + 1 && generation > w->generation);
	if (w->failed)
		return -EIO;
	int rc = reserve(w, wal_batch_bytes(1 + 4 + wal_entry_bytes(entry)));
	if (rc != 0)
		return rc;
	wal_batch_begin(&w->batch);
	wal_put_generation(&w->batch, generation);
	wal_put_entry(&w->batch, entry);
	seal_batch(w, 2);
	rc = write_batch(w);
	if (rc != 0)
		return rc;
	w->generation = generation;
	note_indexes(w, entry, 1);
	return 0;
}

size_t wal_room(const struct wal *w)
{
	size_t spare = atomic_load(&w->spare_bytes);
	size_t room = atomic_load(&w->left);

	return spare == 0 ? room : room + spare - WAL_BLOCK - WAL_CLOSE;
}

int wal_prepare(struct wal *w)
{
	pthread_mutex_lock(&w->lock);
	int rc = make_spare(w);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

int wal_trim(struct wal *w, uint64_t index)
{
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	while (rc == 0 && w->n_old > 0 && w->old[0].highest < index)
		rc = remove_oldest(w);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

uint64_t wal_bytes(const struct wal *w)
{
	return atomic_load(&w->bytes);
}

void wal_close(struct wal *w)
{
	if (w == NULL)
		return;
	if (!w->failed && w->fd >= 0)
		wal_sync(w);
	if (w->spare_fd >= 0)
		close(w->spare_fd);
	if (w->fd >= 0)
		close(w->fd);
	if (w->dirfd >= 0)
		close(w->dirfd);
	pthread_mutex_destroy(&w->lock);
	free(w->batch.base);
	free(w->old);
	free(w);
}

void wal_leave(const struct wal *w)
{
	if (w->spare_fd >= 0)
		close(w->spare_fd);
	close(w->fd);
	close(w->dirfd);
}
