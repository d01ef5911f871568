/* SPDX-License-Identifier: MIT */
/* Files whose power may fail. The system calls of ring/ come by here (--wrap);
 * they are carried out on real files, and what was written, made, renamed or
 * removed is noted until it is flushed. When the power fails, part of what is
 * noted is undone: of the writes any sectors, of the folder's changes the last.
 *
 * Each call is a step. The power fails at a given step, in the middle of a job if
 * it must: from then on nothing has an effect, and when the job returns, the node
 * is ended.
 *
 * LMDB makes its own calls, which are not seen here; what it does in one write of
 * the store is one step, of which after a failure there is nothing, or all, or
 * new pages with the old meta pages: LMDB writes these last, after a flush. */
#include "tests/sim/node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "ring/store_impl.h"
#include "ring/wal_impl.h"

#define SECTOR		 512
#define META_PAGES	 2 /* LMDB's, at the beginning of its file */
#define PAGE		 4096
#define FDS		 4096
#define EPOCH		 1700000000u
#define ENTRY_BYTES_MORE 160u /* at most, for an entry or a vote in the log */

int __real_openat(int dirfd, const char *name, int flags, ...);
int __wrap_openat(int dirfd, const char *name, int flags, ...);
int __real_open(const char *name, int flags, ...);
int __wrap_open(const char *name, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
ssize_t __real_pwrite(int fd, const void *bytes, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t n, off_t at);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_renameat(int a, const char *from, int b, const char *to);
int __wrap_renameat(int a, const char *from, int b, const char *to);
int __real_unlinkat(int dirfd, const char *name, int flags);
int __wrap_unlinkat(int dirfd, const char *name, int flags);
int __real_mkdirat(int dirfd, const char *name, mode_t mode);
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode);
int __real_statvfs(const char *path, struct statvfs *out);
int __wrap_statvfs(const char *path, struct statvfs *out);
ssize_t __real_getrandom(void *bytes, size_t n, unsigned flags);
ssize_t __wrap_getrandom(void *bytes, size_t n, unsigned flags);
int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __real_wal_open(const struct wal_config *config, bool create,
		    struct wal **out, struct wal_found *found, char *errmsg);
int __wrap_wal_open(const struct wal_config *config, bool create,
		    struct wal **out, struct wal_found *found, char *errmsg);
size_t __real_wal_room(const struct wal *w);
size_t __wrap_wal_room(const struct wal *w);
int __real_store_open(const char *dir, size_t map_bytes, struct store **out,
		      char *errmsg);
int __wrap_store_open(const char *dir, size_t map_bytes, struct store **out,
		      char *errmsg);
int __real_store_write(struct store *s, const struct store_batch *b);
int __wrap_store_write(struct store *s, const struct store_batch *b);
int __real_store_copy_open(const char *dir, struct store **out);
int __wrap_store_copy_open(const char *dir, struct store **out);
int __real_store_copy_seal(struct store *s, const struct store_census *want);
int __wrap_store_copy_seal(struct store *s, const struct store_census *want);
int __real_store_swap(struct store *s, const char *dir, struct store *copy);
int __wrap_store_swap(struct store *s, const char *dir, struct store *copy);
void __real_store_remove(const char *dir);
void __wrap_store_remove(const char *dir);

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void remove_tree(const char *path)
{
	if (path[0] != '\0')
		nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct files *files_now(void)
{
	return world.now != NULL ? &world.now->files : NULL;
}

/* Count a step. 0; 1: there is no power any more; -1: the disk fails. */
static int step(struct files *f)
{
	if (f->is_off)
		return 1;
	f->n_steps++;
	if (f->n_steps >= f->fail_at) {
		say("%s: the power fails at a step", world.now->name);
		f->is_off = true;
		return 1;
	}
	if (f->n_steps >= f->eio_at) {
		say("%s: the disk fails", world.now->name);
		f->eio_at = NEVER_US;
		return -1;
	}
	return 0;
}

static int no_power(void)
{
	errno = EIO;
	return -1;
}

/* ---- What is not flushed ---- */

static uint64_t inode_of(int fd, bool *is_dir, uint64_t *size)
{
	struct stat st;

	*is_dir = false;
	*size = 0;
	if (fstat(fd, &st) != 0)
		return 0;
	*is_dir = S_ISDIR(st.st_mode);
	*size = (uint64_t)st.st_size;
	return st.st_ino;
}

static struct disk_file *find_file(struct files *f, uint64_t inode)
{
	struct disk_file *d = f->list;

	while (d != NULL && d->inode != inode)
		d = d->next;
	return d;
}

static struct disk_file *make_file(struct files *f, uint64_t inode, int fd)
{
	struct disk_file *d = find_file(f, inode);

	if (d != NULL)
		return d;
	d = calloc(1, sizeof(*d));
	d->inode = inode;
	d->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	d->next = f->list;
	f->list = d;
	return d;
}

static void drop_file(struct files *f, struct disk_file *d)
{
	struct disk_file **at = &f->list;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	__real_close(d->fd);
	free(d);
}

/* All of the file with this inode is on disk. */
static void flushed(struct files *f, uint64_t inode)
{
	struct disk_file *d = find_file(f, inode);
	size_t kept = 0;

	if (d == NULL)
		return;
	for (size_t i = 0; i < f->n_writes; i++)
		if (f->writes[i].file == d)
			free(f->writes[i].old);
		else
			f->writes[kept++] = f->writes[i];
	f->n_writes = kept;
	drop_file(f, d);
}

static void aside_path(const struct node *n, const char *aside, char *out,
		       size_t size)
{
	snprintf(out, size, "%s/%s", n->dir, aside);
}

/* The changes of the folder up to here are on disk. */
static void changed(struct node *n, size_t upto)
{
	struct files *f = &n->files;
	char path[400];

	for (size_t i = 0; i < upto; i++)
		if (f->changes[i].aside[0] != '\0') {
			aside_path(n, f->changes[i].aside, path, sizeof(path));
			unlink(path);
		}
	if (upto == 0)
		return;
	f->n_changes -= upto;
	memmove(f->changes, f->changes + upto,
		f->n_changes * sizeof(*f->changes));
}

void files_forget(struct node *n)
{
	struct files *f = &n->files;

	while (f->list != NULL)
		flushed(f, f->list->inode);
	changed(n, f->n_changes);
	free(f->writes);
	free(f->changes);
	f->writes = NULL;
	f->changes = NULL;
	f->n_writes = f->cap_writes = f->n_changes = f->cap_changes = 0;
}

static struct disk_change *
add_change(struct files *f, enum disk_change_kind kind, const char *name)
{
	if (f->n_changes == f->cap_changes) {
		f->cap_changes = f->cap_changes > 0 ? 2 * f->cap_changes : 8;
		f->changes = realloc(f->changes,
				     f->cap_changes * sizeof(*f->changes));
	}
	struct disk_change *c = &f->changes[f->n_changes++];

	*c = (struct disk_change){.kind = kind};
	snprintf(c->name, sizeof(c->name), "%s", name);
	return c;
}

/* Keep what name is: it may have to come back. */
static void put_aside(struct node *n, struct disk_change *c, int dirfd,
		      const char *name)
{
	char path[400];

	snprintf(c->aside, sizeof(c->aside), "aside-%llu",
		 (unsigned long long)n->files.serial++);
	aside_path(n, c->aside, path, sizeof(path));
	if (__real_renameat(dirfd, name, AT_FDCWD, path) != 0)
		c->aside[0] = '\0';
}

static void note_write(struct files *f, int fd, size_t n, off_t at)
{
	bool is_dir;
	uint64_t size, inode = inode_of(fd, &is_dir, &size);
	struct disk_file *d = make_file(f, inode, fd);

	if (f->n_writes == f->cap_writes) {
		f->cap_writes = f->cap_writes > 0 ? 2 * f->cap_writes : 16;
		f->writes =
			realloc(f->writes, f->cap_writes * sizeof(*f->writes));
	}
	struct disk_write *w = &f->writes[f->n_writes++];

	*w = (struct disk_write){.file = d,
				 .offset = (uint64_t)at,
				 .len = n,
				 .old_size = size,
				 .old = calloc(1, n)};
	if (pread(fd, w->old, n, at) < 0)
		broken("a file cannot be read: %s", strerror(errno));
}

/* ---- The power fails ---- */

enum loss {
	LOSS_ALL,
	LOSS_NONE,
	LOSS_SOME, /* any sectors */
	LOSS_TAIL, /* what was written last */
	LOSS_N
};

static void undo_write(const struct disk_write *w, enum loss loss)
{
	uint64_t from = w->offset, end = w->offset + w->len;

	while (from < end) {
		uint64_t to = from - from % SECTOR + SECTOR;

		if (to > end)
			to = end;
		if ((loss == LOSS_ALL || one_in(2)) &&
		    __real_pwrite(w->file->fd, w->old + (from - w->offset),
				  to - from, (off_t)from) < 0)
			broken("a sector cannot be written");
		from = to;
	}
	if (loss == LOSS_ALL && w->offset + w->len > w->old_size &&
	    ftruncate(w->file->fd, (off_t)w->old_size) != 0)
		broken("a file cannot be cut");
}

static void undo_change(struct node *n, int wal, struct disk_change *c)
{
	char path[400];

	switch (c->kind) {
	case DISK_MADE:
		__real_unlinkat(wal, c->name, 0);
		break;
	case DISK_RENAMED:
		__real_renameat(wal, c->to, wal, c->name);
		break;
	case DISK_REMOVED:
		break;
	}
	if (c->aside[0] == '\0')
		return;
	aside_path(n, c->aside, path, sizeof(path));
	__real_renameat(AT_FDCWD, path, wal,
			c->kind == DISK_RENAMED ? c->to : c->name);
	c->aside[0] = '\0';
}

static void undo_changes(struct node *n)
{
	struct files *f = &n->files;
	char path[400];

	snprintf(path, sizeof(path), "%s/wal", n->dir);
	int wal = __real_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t keep = below((uint32_t)f->n_changes + 1);

	if (wal < 0)
		return;
	while (f->n_changes > keep)
		undo_change(n, wal, &f->changes[--f->n_changes]);
	__real_close(wal);
}

void files_lose(struct node *n)
{
	struct files *f = &n->files;
	enum loss loss = (enum loss)below(LOSS_N);
	size_t n_writes = f->n_writes, keep = 0;

	if (loss == LOSS_NONE)
		keep = n_writes;
	else if (loss == LOSS_TAIL)
		keep = below((uint32_t)n_writes + 1);
	say("%s: of %zu writes and %zu changes of the folder that were not "
	    "flushed, kind %d and %zu are kept",
	    n->name, n_writes, f->n_changes, loss, keep);
	for (size_t i = n_writes; i-- > keep;)
		undo_write(&f->writes[i],
			   loss == LOSS_TAIL && i > keep ? LOSS_ALL : loss);
	undo_changes(n);
	files_forget(n);
}

/* ---- System calls ---- */

static bool is_wal(struct files *f, int dirfd)
{
	bool is_dir;
	uint64_t size;

	return f->wal_inode != 0 &&
	       inode_of(dirfd, &is_dir, &size) == f->wal_inode;
}

int __wrap_openat(int dirfd, const char *name, int flags, ...)
{
	struct files *f = files_now();
	mode_t mode = 0;
	va_list args;
	bool is_dir;
	uint64_t size;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	if (f == NULL)
		return __real_openat(dirfd, name, flags, mode);
	if (f->is_off)
		return no_power();
	bool made = flags & O_CREAT && is_wal(f, dirfd) &&
		    faccessat(dirfd, name, F_OK, 0) != 0;
	if (made && step(f) != 0)
		return no_power();
	/* What is cut to nothing is not written to again before: it was left by
	 * a crash, and counts for nothing. */
	int fd = __real_openat(dirfd, name, flags, mode);

	if (fd >= 0 && made)
		add_change(f, DISK_MADE, name);
	if (fd >= 0 && strcmp(name, "wal") == 0)
		f->wal_inode = inode_of(fd, &is_dir, &size);
	return fd;
}

int __wrap_open(const char *name, int flags, ...)
{
	struct files *f = files_now();
	mode_t mode = 0;
	va_list args;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	if (f != NULL && (f->is_off || (flags & O_CREAT && step(f) != 0)))
		return no_power();
	return __real_open(name, flags, mode);
}

int __wrap_close(int fd)
{
	return __real_close(fd);
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	struct files *f = files_now();
	bool is_dir;
	uint64_t size;

	if (f == NULL)
		return __real_pwrite(fd, bytes, n, at);
	inode_of(fd, &is_dir, &size);
	if (f->is_full && (uint64_t)at + n > size) {
		errno = ENOSPC;
		return -1;
	}
	int rc = step(f);

	/* It may have been on its way when the power failed. */
	if (rc == 0 || (rc > 0 && f->n_steps == f->fail_at)) {
		f->fail_at += rc > 0;
		note_write(f, fd, n, at);
		if (__real_pwrite(fd, bytes, n, at) < 0)
			return -1;
	}
	return rc == 0 ? (ssize_t)n : no_power();
}

static int flush(int fd, int (*real)(int fd))
{
	struct files *f = files_now();
	bool is_dir;
	uint64_t size;

	if (f == NULL)
		return real(fd);
	if (step(f) != 0)
		return no_power();
	if (world.planted == PLANTED_NOSYNC && world.now->number == 2)
		return 0;
	uint64_t inode = inode_of(fd, &is_dir, &size);

	if (!is_dir)
		flushed(f, inode);
	else if (inode == f->wal_inode)
		changed(world.now, f->n_changes);
	return 0;
}

int __wrap_fdatasync(int fd)
{
	return flush(fd, __real_fdatasync);
}

int __wrap_fsync(int fd)
{
	return flush(fd, __real_fsync);
}

int __wrap_renameat(int a, const char *from, int b, const char *to)
{
	struct files *f = files_now();

	if (f == NULL)
		return __real_renameat(a, from, b, to);
	if (step(f) != 0)
		return no_power();
	struct disk_change *c = add_change(f, DISK_RENAMED, from);

	snprintf(c->to, sizeof(c->to), "%s", to);
	if (faccessat(b, to, F_OK, 0) == 0)
		put_aside(world.now, c, b, to);
	return __real_renameat(a, from, b, to);
}

int __wrap_unlinkat(int dirfd, const char *name, int flags)
{
	struct files *f = files_now();

	if (f == NULL || !is_wal(f, dirfd))
		return __real_unlinkat(dirfd, name, flags);
	if (step(f) != 0)
		return no_power();
	if (faccessat(dirfd, name, F_OK, 0) != 0)
		return -1;
	put_aside(world.now, add_change(f, DISK_REMOVED, name), dirfd, name);
	return 0;
}

int __wrap_mkdirat(int dirfd, const char *name, mode_t mode)
{
	struct files *f = files_now();

	if (f != NULL && step(f) != 0)
		return no_power();
	return __real_mkdirat(dirfd, name, mode);
}

int __wrap_statvfs(const char *path, struct statvfs *out)
{
	int rc = __real_statvfs(path, out);
	const struct files *f = files_now();

	if (f != NULL) { /* not what this machine happens to have */
		out->f_frsize = out->f_bsize = PAGE;
		out->f_bavail = f->is_full ? 0 : 1 << 20;
	}
	return rc;
}

ssize_t __wrap_getrandom(void *bytes, size_t n, unsigned flags)
{
	uint8_t *to = bytes;

	(void)flags;
	for (size_t i = 0; i < n; i++)
		to[i] = (uint8_t)random_next(&world.kernel);
	return (ssize_t)n;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
	if (world.now == NULL)
		return __real_clock_gettime(clock, out);
	uint64_t us = node_us(world.now);

	*out = (struct timespec){EPOCH + (time_t)(us / 1000000),
				 (long)(us % 1000000 * 1000)};
	return 0;
}

/* ---- The log ---- */

int __wrap_wal_open(const struct wal_config *config, bool create,
		    struct wal **out, struct wal_found *found, char *errmsg)
{
	struct wal_config c = *config;

	c.segment_bytes = world.plan.segment_bytes;
	return __real_wal_open(&c, create, out, found, errmsg);
}

/* Segments are small here: as much as is asked for is one spare segment. */
size_t __wrap_wal_room(const struct wal *w)
{
	size_t room = __real_wal_room(w);

	return w->spare_bytes > 0 ? room + WAL_SEGMENT_BYTES : room;
}

/* Would a write find no room? The log's worker waits for it (group_io.c), which
 * here would be for ever. */
bool files_must_wait(struct node *n)
{
	uint64_t bytes, entries;

	group_given(n->group, &bytes, &entries);
	uint64_t most = bytes - n->bytes_seen +
			(entries - n->n_seen + 16) * ENTRY_BYTES_MORE;

	if (n->files.is_full && !group_fits(n->group, most))
		return true;
	n->bytes_seen = bytes;
	n->n_seen = entries;
	return false;
}

/* ---- The store ---- */

struct image {
	uint8_t *bytes;
	size_t len;
};

static struct image read_image(const struct store *s)
{
	struct image m = {0};
	char path[400];
	struct stat st;

	snprintf(path, sizeof(path), "%s/data.mdb", s->path);
	int fd = __real_open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && fstat(fd, &st) == 0) {
		m.len = (size_t)st.st_size;
		m.bytes = malloc(m.len + 1);
		if (pread(fd, m.bytes, m.len, 0) != (ssize_t)m.len)
			broken("%s cannot be read", path);
	}
	if (fd >= 0)
		__real_close(fd);
	return m;
}

/* The store as it was, or with new pages behind the old meta pages. */
static void put_image(const struct store *s, const struct image *m, bool torn)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/data.mdb", s->path);
	int fd = __real_open(path, O_RDWR | O_CLOEXEC);

	for (size_t at = 0; fd >= 0 && at < m->len; at += PAGE)
		if ((at < META_PAGES * PAGE || !torn || one_in(2)) &&
		    __real_pwrite(fd, m->bytes + at, PAGE, (off_t)at) != PAGE)
			broken("%s cannot be written", path);
	if (fd >= 0 && !torn && ftruncate(fd, (off_t)m->len) != 0)
		broken("%s cannot be cut", path);
	if (fd >= 0)
		__real_close(fd);
}

int __wrap_store_write(struct store *s, const struct store_batch *b)
{
	struct files *f = files_now();

	if (f == NULL)
		return __real_store_write(s, b);
	if (f->is_full)
		return -ENOSPC;
	if (f->is_off || f->n_steps + 1 < f->fail_at) {
		if (step(f) != 0)
			return -EIO;
		return __real_store_write(s, b);
	}
	struct image before = read_image(s);
	unsigned how = below(3);

	if (how > 0)
		__real_store_write(s, b);
	if (how == 1)
		put_image(s, &before, true);
	say("%s: the power fails as the store is written: %s", world.now->name,
	    how == 0   ? "nothing is"
	    : how == 1 ? "half is"
		       : "all is");
	free(before.bytes);
	f->n_steps++;
	f->is_off = true;
	return -EIO;
}

int __wrap_store_open(const char *dir, size_t map_bytes, struct store **out,
		      char *errmsg)
{
	struct files *f = files_now();

	if (f != NULL && step(f) != 0)
		return -EIO;
	return __real_store_open(dir, map_bytes, out, errmsg);
}

int __wrap_store_copy_open(const char *dir, struct store **out)
{
	struct files *f = files_now();

	if (f != NULL && f->is_full)
		return -ENOSPC;
	if (f != NULL && step(f) != 0)
		return -EIO;
	return __real_store_copy_open(dir, out);
}

int __wrap_store_copy_seal(struct store *s, const struct store_census *want)
{
	struct files *f = files_now();

	if (f != NULL && step(f) != 0)
		return -EIO;
	return __real_store_copy_seal(s, want);
}

/* Before or after: it is one renameat2(). */
int __wrap_store_swap(struct store *s, const char *dir, struct store *copy)
{
	struct files *f = files_now();
	bool was_off = f != NULL && f->is_off;

	if (f == NULL || step(f) == 0 || (!was_off && one_in(2)))
		return __real_store_swap(s, dir, copy);
	store_copy_discard(copy);
	return -EIO;
}

void __wrap_store_remove(const char *dir)
{
	struct files *f = files_now();

	if (f == NULL || step(f) == 0)
		__real_store_remove(dir);
}
