/* SPDX-License-Identifier: MIT */
/* The log on a disk that fails, fills, or stops in the middle.
 *
 * The system calls that the log makes are defined here, in front of the C
 * library's: each can fail, be cut short, be interrupted, or be the last one
 * before the machine stops. Then what was not flushed is undone at random:
 * sectors, and the tail of the changes to the folder. */
#include "ring/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "ring/mem.h"
#include "scratch.h"

#define SEGMENT 8192
#define N_STEPS 70
#define N_INDEX 400

static char dir[512];
static char errmsg[RING_ERRMSG_SIZE];

/* ---- The system calls ---- */

enum fault_mode {
	FAULT_NONE,
	FAULT_FAIL,
	FAULT_SHORT,
	FAULT_INTR,
	FAULT_CRASH
};

static struct {
	enum fault_mode mode;
	unsigned at; /* the call it happens to, from 1 */
	unsigned n;  /* calls so far */
	int err;
	uint64_t seed;
} fault;

struct sector {
	int fd;
	ino_t ino;
	off_t at;
	size_t n;
	uint8_t was[512];
};

struct change {
	int dirfd;
	char from[64], to[64]; /* renamed so; from "": created */
};

static struct sector *sectors;
static struct change changes[1000];
static size_t n_sectors, n_changes;

static int gone(int dirfd, const char *from, const char *to)
{
	return (int)syscall(SYS_renameat2, dirfd, from, dirfd, to, 0);
}

/* The machine stops: undo what need not have reached the disk. */
static void crash(void)
{
	unsigned keep = check_random(&fault.seed) % 4;
	size_t cut = check_random(&fault.seed) % (n_changes + 1);

	for (size_t i = n_sectors; i-- > 0;) {
		struct sector *s = &sectors[i];
		/* Of a sector written twice, the older state may be lost. */
		if (keep == 0 || check_random(&fault.seed) % keep == 0)
			syscall(SYS_pwrite64, s->fd, s->was, s->n, s->at);
	}
	while (n_changes > 0) {
		struct change *c = &changes[--n_changes];
		/* Before the cut only a removal may have been lost. */
		if (n_changes < cut && (strncmp(c->to, "gone", 4) != 0 ||
					check_random(&fault.seed) % 2))
			continue;
		if (c->from[0] == '\0')
			syscall(SYS_unlinkat, c->dirfd, c->to, 0);
		else
			gone(c->dirfd, c->to, c->from);
	}
	_exit(9);
}

/* Is it this call's turn? *rc is what to return. */
static bool strikes(bool may_be_short)
{
	if (fault.mode == FAULT_NONE || ++fault.n != fault.at)
		return false;
	if (fault.mode == FAULT_CRASH)
		crash();
	if (fault.mode == FAULT_SHORT)
		return may_be_short;
	errno = fault.mode == FAULT_INTR ? EINTR : fault.err;
	return fault.mode == FAULT_FAIL || may_be_short;
}

static void remember_sectors(int fd, size_t n, off_t at)
{
	struct stat st;

	check_int(fstat(fd, &st), 0);
	while (n > 0) {
		struct sector s = {.fd = dup(fd), .ino = st.st_ino, .at = at};
		s.n = 512 - (size_t)at % 512;
		s.n = s.n < n ? s.n : n;
		syscall(SYS_pread64, fd, s.was, s.n, at);
		sectors = xrealloc(sectors, (n_sectors + 1) * sizeof(*sectors));
		sectors[n_sectors++] = s;
		at += (off_t)s.n;
		n -= s.n;
	}
}

static void forget_sectors(int fd)
{
	struct stat st;
	size_t keep = 0;

	check_int(fstat(fd, &st), 0);
	for (size_t i = 0; i < n_sectors; i++)
		if (sectors[i].ino == st.st_ino)
			close(sectors[i].fd);
		else
			sectors[keep++] = sectors[i];
	n_sectors = keep;
}

static void remember_change(int dirfd, const char *from, const char *to)
{
	struct change *c = &changes[n_changes++];

	check(n_changes < 1000, "too many changes");
	c->dirfd = dup(dirfd);
	snprintf(c->from, sizeof(c->from), "%s", from);
	snprintf(c->to, sizeof(c->to), "%s", to);
}

ssize_t pread(int fd, void *bytes, size_t n, off_t at)
{
	if (strikes(true)) {
		if (fault.mode != FAULT_SHORT)
			return -1;
		n = (n + 1) / 2;
	}
	return syscall(SYS_pread64, fd, bytes, n, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	if (strikes(true)) {
		if (fault.mode != FAULT_SHORT)
			return -1;
		n = (n + 1) / 2;
	}
	if (fault.mode == FAULT_CRASH && n <= 5000) /* not the first zeros */
		remember_sectors(fd, n, at);
	return syscall(SYS_pwrite64, fd, bytes, n, at);
}

int fdatasync(int fd)
{
	if (strikes(fault.mode == FAULT_INTR))
		return -1;
	if (fault.mode == FAULT_CRASH)
		forget_sectors(fd);
	return 0; /* it makes no difference here, and takes time */
}

int fsync(int fd)
{
	if (strikes(fault.mode == FAULT_INTR))
		return -1;
	(void)fd; /* the log's folder, or the one it is in */
	n_changes = 0;
	return 0;
}

int openat(int dirfd, const char *name, int flags, ...)
{
	mode_t mode = 0;

	if (strikes(false))
		return -1;
	if (flags & O_CREAT) {
		va_list args;
		va_start(args, flags);
		mode = va_arg(args, mode_t);
		va_end(args);
		if (fault.mode == FAULT_CRASH)
			remember_change(dirfd, "", name);
	}
	return (int)syscall(SYS_openat, dirfd, name, flags, mode);
}

int renameat(int olddir, const char *from, int newdir, const char *to)
{
	check_int(olddir, newdir);
	if (strikes(false))
		return -1;
	if (fault.mode == FAULT_CRASH)
		remember_change(olddir, from, to);
	return gone(olddir, from, to);
}

int unlinkat(int dirfd, const char *name, int flags)
{
	static unsigned n;
	char grave[32];

	if (strikes(false))
		return -1;
	if (fault.mode != FAULT_CRASH)
		return (int)syscall(SYS_unlinkat, dirfd, name, flags);
	snprintf(grave, sizeof(grave), "gone-%u-%u", (unsigned)getpid(), n++);
	if (gone(dirfd, name, grave) != 0)
		return -1;
	remember_change(dirfd, name, grave);
	return 0;
}

/* ---- A workload that is the same each time ---- */

struct state {
	uint64_t term, vote, last, trimmed, begin;
	unsigned origin[N_INDEX]; /* the step that appended this index */
};

enum action {
	APPEND,
	VOTE,
	PREPARE,
	TRIM,
	RESTART,
	SYNC
};

struct step {
	enum action action;
	uint64_t from;
	size_t n, len;
	uint64_t term, vote;
};

static uint64_t plan_seed;

static struct step plan(const struct state *s, unsigned number)
{
	uint64_t r = plan_seed + number * 1000;
	uint64_t what = check_random(&r) % 100;
	uint64_t live = s->last - s->trimmed;
	struct step p = {.action = APPEND, .from = s->last + 1};

	p.n = 1 + check_random(&r) % 3;
	p.len = check_random(&r) % 1500;
	p.term = s->term + 1;
	p.vote = check_random(&r);
	if (what >= 75 && what < 79)
		p.from += check_random(&r) % 5;
	if (what < 10 && live > 0)
		p.from = s->last - check_random(&r) % live;
	else if (what < 13)
		p.len = SEGMENT;
	else if (what >= 50 && what < 60)
		p.action = VOTE;
	else if (what < 60)
		p.action = APPEND;
	else if (what < 70)
		p.action = PREPARE;
	else if (what < 75)
		p.action = live > 5 ? TRIM : PREPARE;
	else if (what < 79)
		p.action = RESTART;
	else
		p.action = SYNC;
	return p;
}

static void advance(struct state *s, unsigned number, const struct step *p)
{
	if (p->action == APPEND) {
		for (size_t i = 0; i < p->n; i++)
			s->origin[p->from + i] = number;
		s->last = p->from + p->n - 1;
	} else if (p->action == VOTE) {
		s->term = p->term;
		s->vote = p->vote;
	} else if (p->action == TRIM) {
		s->trimmed = s->last - 5;
	} else if (p->action == RESTART) {
		s->trimmed = s->last = p->from - 1;
		s->begin = p->from;
	}
}

/* The bytes of an entry: of its step and index alone. */
static void fill(uint8_t *data, size_t len, unsigned number, uint64_t index)
{
	uint64_t r = number * 100003 + index;

	for (size_t i = 0; i < len; i++)
		data[i] = i % 8 ? data[i - 1] : (uint8_t)check_random(&r);
}

static int carry_out(struct wal *w, const struct step *p, unsigned number)
{
	struct wal_entry e[3];
	int rc;

	switch (p->action) {
	case APPEND:
		for (size_t i = 0; i < p->n; i++) {
			uint8_t *data = xmalloc(p->len + 1);
			fill(data, p->len, number, p->from + i);
			e[i] = (struct wal_entry){p->from + i, 7, 1, data,
						  p->len};
		}
		rc = wal_append(w, e, p->n);
		for (size_t i = 0; i < p->n; i++)
			free((void *)(uintptr_t)e[i].data);
		return rc;
	case VOTE:
		return wal_set_vote(w, p->term, p->vote);
	case PREPARE:
		return wal_prepare(w);
	case TRIM:
		return wal_trim(w, p->from - 1 - 5);
	case RESTART:
		return wal_restart(w, p->from);
	case SYNC:
		return wal_sync(w);
	}
	return 0;
}

static int open_log(struct wal **w, struct wal_found *f)
{
	struct wal_config c = {.dir = dir, .segment_bytes = SEGMENT};

	return wal_open(&c, true, w, f, errmsg);
}

/* Shared with the process that crashes. */
struct progress {
	unsigned begun, synced; /* steps; 0 if none */
};

/* The steps of the plan. 0, or the first error that ends the log. */
static int run(struct progress *p)
{
	static struct state s;
	struct wal_found f;
	struct wal *w;

	memset(&s, 0, sizeof(s));
	memset(p, 0, sizeof(*p));
	int rc = open_log(&w, &f);
	if (rc != 0)
		return rc;
	wal_found_finish(&f);
	for (unsigned i = 1; i <= N_STEPS && rc == 0; i++) {
		struct step step = plan(&s, i);
		p->begun = i;
		rc = carry_out(w, &step, i);
		if (rc == -ENOSPC) /* nothing was done: once more */
			rc = carry_out(w, &step, i);
		if (step.action == PREPARE || step.action == TRIM)
			rc = 0;
		if (rc == 0 && (step.action == SYNC || step.action == RESTART))
			p->synced = i;
		advance(&s, i, &step);
	}
	if (rc != 0) {
		struct step append = {.from = 1, .n = 1};
		check_int(carry_out(w, &append, 1), -EIO);
		append.from = N_INDEX - 1; /* what came before it is missing */
		check_int(carry_out(w, &append, 1), -EIO);
		check_int(wal_set_vote(w, 9, 9), -EIO);
		check_int(wal_sync(w), -EIO);
	}
	wal_close(w);
	return rc;
}

static bool equals(const struct wal_found *f, const struct state *s)
{
	static uint8_t want[SEGMENT + 1];

	if (f->term != s->term || f->vote != s->vote ||
	    f->first + f->n_entries != s->last + 1 || f->first < s->begin)
		return false;
	for (size_t i = 0; i < f->n_entries; i++) {
		const struct wal_entry *e = &f->entry[i];
		if (e->index != f->first + i || e->len > SEGMENT)
			return false;
		fill(want, e->len, s->origin[e->index], e->index);
		if (e->len > 0 && memcmp(want, e->data, e->len) != 0)
			return false;
	}
	return true;
}

/* What is found is the state after one of the steps that may be the last. */
static void check_state(const struct progress *p, unsigned at)
{
	static struct state s;
	struct wal_found f;
	struct wal *w;
	bool found = false;

	int rc = open_log(&w, &f);
	check(rc == 0, "call %u: %s", at, errmsg);
	memset(&s, 0, sizeof(s));
	for (unsigned i = 0; i <= p->begun && !found; i++) {
		struct step step = plan(&s, i);
		if (i > 0)
			advance(&s, i, &step);
		found = i >= p->synced && equals(&f, &s);
	}
	check(found, "call %u: neither of the steps %u to %u", at, p->synced,
	      p->begun);
	/* And it goes on. */
	struct step more = {.from = f.first + f.n_entries, .n = 2, .len = 300};
	uint64_t last = more.from + 1;
	wal_found_finish(&f);
	check_int(carry_out(w, &more, 1), 0);
	wal_close(w);
	check_int(open_log(&w, &f), 0);
	check_int(f.torn_bytes, 0);
	check_int(f.first + f.n_entries, last + 1);
	wal_found_finish(&f);
	wal_close(w);
}

static void begin(const char *name)
{
	static bool made;

	if (!made) {
		scratch_make(dir, name, 64u << 20);
		made = true;
	}
	char log[600];
	snprintf(log, sizeof(log), "%s/wal", dir);
	scratch_remove(log);
}

static void set_fault(enum fault_mode mode, unsigned at, int err)
{
	fault.mode = mode;
	fault.at = at;
	fault.n = 0;
	fault.err = err;
}

/* ---- Errors ---- */

static unsigned fail_each_call(int err)
{
	struct progress p;
	unsigned at = 0, n_ended = 0;

	do {
		begin("fault");
		set_fault(FAULT_FAIL, ++at, err);
		if (run(&p) != 0)
			n_ended++;
		unsigned n = fault.n;
		set_fault(FAULT_NONE, 0, 0);
		if (n < at)
			break;
		check_state(&p, at);
	} while (true);
	check(n_ended > 0, "no error was noticed");
	return at;
}

static void test_errors(void)
{
	unsigned n = fail_each_call(EIO);

	fail_each_call(ENOSPC);
	ok("any of %u calls may fail: what was flushed is there, "
	   "and a log that failed stays shut",
	   n);
}

static void test_interrupted(void)
{
	static const enum fault_mode modes[] = {FAULT_SHORT, FAULT_INTR};
	struct progress p;

	for (size_t i = 0; i < 2; i++) {
		for (unsigned at = 1;; at++) {
			begin("fault");
			set_fault(modes[i], at, 0);
			check_int(run(&p), 0);
			unsigned n = fault.n;
			set_fault(FAULT_NONE, 0, 0);
			p.synced = p.begun;
			check_state(&p, at);
			if (n < at)
				break;
		}
	}
	ok("short writes and interrupted calls change nothing");
}

/* ---- Crashes ---- */

/* Run in a process of its own that stops at call at. False: it got to its end
 * before that. */
static bool crash_at(unsigned at, uint64_t chance, struct progress *p,
		     bool open)
{
	int status;

	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		struct wal_found f;
		struct wal *w;
		set_fault(FAULT_CRASH, at, 0);
		fault.seed = chance;
		_exit(open ? open_log(&w, &f) : run(p));
	}
	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status), "signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == 0)
		return false;
	check_int(WEXITSTATUS(status), 9);
	return true;
}

static void test_crashes(uint64_t seed)
{
	struct progress *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned at = 0, n = 0;
	bool crashed;

	do {
		at++;
		for (int chance = 0; chance < 6; chance++) {
			begin("fault");
			crashed = crash_at(at, check_random(&seed), p, false);
			/* Sometimes it crashes again while it is repaired. */
			if (chance % 2)
				crash_at(1 + check_random(&seed) % 40,
					 check_random(&seed), p, true);
			check_state(p, at);
			n++;
		}
	} while (crashed);
	munmap(p, sizeof(*p));
	ok("after any of %u crashes what was flushed is there, "
	   "and nothing half",
	   n);
}

/* ---- A full disk ---- */

static void fill_disk(char path[600])
{
	static uint8_t bytes[4096];

	snprintf(path, 600, "%s/filler", dir);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	close(fd);
}

static void test_full_disk(void)
{
	struct wal_config c = {.dir = dir, .segment_bytes = 32768};
	struct wal_found f;
	struct wal *w;
	char filler[600];
	uint8_t data[1000] = {1};
	struct wal_entry e = {.index = 1, .data = data, .len = sizeof(data)};
	int rc;

	if (!scratch_can_mount()) {
		scratch_skip("a full disk");
		return;
	}
	scratch_make(dir, "full", 512u << 10);
	check_int(wal_open(&c, true, &w, &f, errmsg), 0);
	wal_found_finish(&f);
	check_int(wal_prepare(w), 0);
	fill_disk(filler);
	size_t room = wal_room(w);
	for (; (rc = wal_append(w, &e, 1)) == 0; e.index++)
		check_int(wal_sync(w), 0);
	check_int(rc, -ENOSPC);
	check(e.index * (sizeof(data) + 64) > room - 4096, "all of %zu used",
	      room);
	check_int(wal_prepare(w), -ENOSPC);
	check_int(wal_append(w, &e, 1), -ENOSPC);
	check_int(unlink(filler), 0);
	check_int(wal_append(w, &e, 1), 0);
	check_int(wal_set_vote(w, 3, 4), 0);
	wal_close(w);
	check_int(wal_open(&c, false, &w, &f, errmsg), 0);
	check_int(f.n_entries, e.index);
	check_int(f.term, 3);
	check_int(wal_trim(w, e.index), 0);
	check_int(wal_bytes(w), 32768);
	wal_found_finish(&f);
	wal_close(w);
	check_int(umount(dir), 0);
	ok("a full disk is an answer, not an end, and its room is used first");
}

/* ---- Two workers ---- */

static atomic_bool stop;
static _Atomic uint64_t trim_to;

static void *store_worker(void *arg)
{
	struct wal *w = arg;

	while (!atomic_load(&stop)) {
		check_int(wal_prepare(w), 0);
		check_int(wal_trim(w, atomic_load(&trim_to)), 0);
	}
	return NULL;
}

static void test_workers(void)
{
	struct wal_found f;
	struct wal *w;
	pthread_t thread;
	uint8_t data[600] = {7};
	struct wal_entry e = {.data = data, .len = sizeof(data)};

	scratch_make(dir, "workers", 0);
	check_int(open_log(&w, &f), 0);
	wal_found_finish(&f);
	check_int(pthread_create(&thread, NULL, store_worker, w), 0);
	for (e.index = 1; e.index <= 5000; e.index++) {
		check_int(wal_append(w, &e, 1), 0);
		check_int(wal_sync(w), 0);
		if (e.index > 100)
			atomic_store(&trim_to, e.index - 100);
		check(wal_bytes(w) > 0 && wal_room(w) < 3 * SEGMENT, "sizes");
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	check_int(wal_trim(w, 4900), 0);
	check(wal_bytes(w) < 40 * SEGMENT, "trimmed");
	wal_close(w);
	check_int(open_log(&w, &f), 0);
	check_int(f.first + f.n_entries, 5001);
	check(f.first <= 4901 && f.first > 4800, "first");
	wal_found_finish(&f);
	wal_close(w);
	ok("one worker appends while the other makes spares and trims");
}

static void body(uint64_t seed)
{
	plan_seed = check_random(&seed);
	test_errors();
	test_interrupted();
	test_crashes(seed);
	test_full_disk();
	test_workers();
	free(sectors);
}

int main(int argc, char **argv)
{
	return scratch_run(body, check_seed(argc, argv));
}
