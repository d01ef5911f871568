/* SPDX-License-Identifier: MIT */
/* The store: what is written comes back, whole transactions only; what is
 * damaged is reported, and never crashes, hangs or comes back as something
 * else. */
#include "ring/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "ring/mem.h"
#include "ring/ring.h"
#include "scratch.h"

#define N_LIVES 1000
#define MAP	(64u << 20)

static uint64_t seed;
static char dir[512];
static char errmsg[RING_ERRMSG_SIZE];

/* ---- A disk that fails: the calls of LMDB's writes ---- */

static struct {
	unsigned at, n; /* the call that fails, from 1; calls so far */
	int err;
	bool half; /* a write of half the bytes instead */
} fault;

static bool strikes(void)
{
	if (fault.at == 0 || ++fault.n != fault.at)
		return false;
	errno = fault.err;
	return true;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	if (strikes()) {
		if (!fault.half)
			return -1;
		n /= 2;
	}
	return syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
	if (strikes()) {
		if (!fault.half)
			return -1;
		n = 1;
	}
	return syscall(SYS_writev, fd, v, n);
}

int fdatasync(int fd)
{
	(void)fd;
	return strikes() && !fault.half ? -1 : 0;
}

/* ---- The store as it should be ---- */

struct life {
	uint32_t len; /* 0: over */
	uint8_t *bytes;
};

struct model {
	struct life life[N_LIVES];
	uint8_t meta[16], snapshot[300];
	size_t meta_len, snapshot_len;
	uint64_t round;
};

static uint64_t life_id(size_t i)
{
	return (uint64_t)i * 0x0101010101 + 1; /* in order, and sparse */
}

static size_t random_len(void)
{
	uint64_t kind = check_random(&seed) % 100;

	if (kind < 1)
		return 1 + check_random(&seed) % 20000;
	return 1 + check_random(&seed) % (kind < 20 ? 900 : 120);
}

/* Change n lives at random; a quarter ends. */
static void change(struct model *m, struct store_batch *b, size_t n)
{
	memset(b, 0, sizeof(*b));
	b->n_records = n;
	while (n-- > 0) {
		size_t i = check_random(&seed) % N_LIVES;
		struct life *l = &m->life[i];

		l->len = check_random(&seed) % 4 ? (uint32_t)random_len() : 0;
		l->bytes = xrealloc(l->bytes, l->len + 1);
		for (size_t k = 0; k < l->len; k++)
			l->bytes[k] = (uint8_t)check_random(&seed);
		buf_u64(&b->records, life_id(i));
		buf_u32(&b->records, l->len);
		buf_put(&b->records, l->bytes, l->len);
	}
	m->round++;
	m->meta_len = sizeof(m->meta);
	memcpy(m->meta, &m->round, 8);
	m->snapshot_len = 1 + m->round % sizeof(m->snapshot);
	memset(m->snapshot, (int)m->round, sizeof(m->snapshot));
	buf_put(&b->meta, m->meta, m->meta_len);
	buf_put(&b->snapshot, m->snapshot, m->snapshot_len);
}

static void write_some(struct store *s, struct model *m, size_t n)
{
	struct store_batch b;

	change(m, &b, n);
	check_int(store_write(s, &b), 0);
	store_batch_finish(&b);
}

struct comparison {
	const struct model *m;
	size_t next;
	bool differs;
};

static int compare_key(void *data, const void *record, size_t len)
{
	struct comparison *c = data;

	while (c->next < N_LIVES && c->m->life[c->next].len == 0)
		c->next++;
	if (c->next == N_LIVES || len != c->m->life[c->next].len ||
	    memcmp(record, c->m->life[c->next].bytes, len) != 0)
		c->differs = true;
	c->next += c->next < N_LIVES;
	return 0;
}

/* Load and compare. 0; 1 if it is something else; or what store_load says. */
static int compare(struct store *s, const struct model *m)
{
	struct comparison c = {.m = m};
	struct buf meta, snapshot;

	errmsg[0] = '\0';
	int rc = store_load(s, compare_key, &c, &meta, &snapshot, errmsg);
	if (rc != 0)
		return rc;
	while (c.next < N_LIVES && m->life[c.next].len == 0)
		c.next++;
	bool same =
		!c.differs && c.next == N_LIVES && meta.len == m->meta_len &&
		snapshot.len == m->snapshot_len &&
		(meta.len == 0 || memcmp(meta.base, m->meta, meta.len) == 0) &&
		(snapshot.len == 0 ||
		 memcmp(snapshot.base, m->snapshot, snapshot.len) == 0);
	free(meta.base);
	free(snapshot.base);
	return same ? 0 : 1;
}

static struct store *open_store(size_t map_bytes)
{
	struct store *s;

	errmsg[0] = '\0';
	int rc = store_open(dir, map_bytes, &s, errmsg);
	check(rc == 0, "%d: %s", rc, errmsg);
	return s;
}

static void finish(struct model *m)
{
	for (size_t i = 0; i < N_LIVES; i++)
		free(m->life[i].bytes);
	memset(m, 0, sizeof(*m));
}

/* ---- Histories ---- */

static void test_histories(void)
{
	static struct model m;

	scratch_make(dir, "history", 0);
	struct store *s = open_store(MAP);
	check_int(compare(s, &m), 0);
	for (int i = 0; i < 300; i++) {
		write_some(s, &m, check_random(&seed) % 50);
		if (i % 10 != 0)
			continue;
		store_close(s);
		s = open_store(MAP);
		int rc = compare(s, &m);
		check(rc == 0, "round %d: %d: %s", i, rc, errmsg);
	}
	for (size_t i = 0; i < N_LIVES; i++)
		m.life[i].len = 0;
	struct store_batch b = {.n_records = N_LIVES};
	for (size_t i = 0; i < N_LIVES; i++) {
		buf_u64(&b.records, life_id(i));
		buf_u32(&b.records, 0);
	}
	m.meta_len = m.snapshot_len = 0;
	check_int(store_write(s, &b), 0);
	store_batch_finish(&b);
	store_close(s);
	s = open_store(MAP);
	check_int(compare(s, &m), 0);
	store_close(s);
	finish(&m);
	ok("records, deletions and metas come back, in order of life");
}

static int refuse(void *data, const void *record, size_t len)
{
	(void)record;
	return len > 0 && ++*(int *)data == 3 ? -EBADMSG : 0;
}

static void test_refusal(void)
{
	static struct model m;
	struct buf meta, snapshot;
	int n = 0;

	scratch_make(dir, "refusal", 0);
	struct store *s = open_store(MAP);
	write_some(s, &m, 50);
	check_int(store_load(s, refuse, &n, &meta, &snapshot, errmsg),
		  -EBADMSG);
	check_int(n, 3);
	check(meta.base == NULL && snapshot.base == NULL, "no metas");
	store_close(s);
	finish(&m);
	ok("a record that is refused ends the load with that answer");
}

static void test_growth(void)
{
	static struct model m;

	scratch_make(dir, "growth", 0);
	struct store *s = open_store(64 << 10);
	for (int i = 0; i < 40; i++)
		write_some(s, &m, 200);
	check_int(compare(s, &m), 0);
	store_close(s);
	s = open_store(64 << 10);
	check_int(compare(s, &m), 0);
	write_some(s, &m, 200);
	check_int(compare(s, &m), 0);
	store_close(s);
	finish(&m);
	ok("the map grows as needed, and is as large as needed at the start");
}

/* ---- A disk that fills, or fails ---- */

static void copy_model(struct model *to, const struct model *from)
{
	finish(to);
	*to = *from;
	for (size_t i = 0; i < N_LIVES; i++) {
		to->life[i].bytes = xmalloc(from->life[i].len + 1);
		if (from->life[i].len > 0)
			memcpy(to->life[i].bytes, from->life[i].bytes,
			       from->life[i].len);
	}
}

static void test_full_disk(void)
{
	static struct model m, before;
	static uint8_t bytes[1 << 20];
	struct store_batch b;
	char filler[600], lock[600];

	if (!scratch_can_mount()) {
		scratch_skip("a full disk");
		return;
	}
	scratch_make(dir, "full", 4u << 20);
	struct store *s = open_store(MAP);
	write_some(s, &m, 500);
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	int fd = open(filler, O_CREAT | O_WRONLY, 0600);
	while (write(fd, bytes, 4096) > 0)
		;
	close(fd);
	copy_model(&before, &m);
	change(&m, &b, 500);
	for (int i = 0; i < 3; i++)
		check_int(store_write(s, &b), -ENOSPC);
	check_int(compare(s, &before), 0);
	store_close(s);
	s = open_store(MAP); /* it also opens */
	check_int(store_write(s, &b), -ENOSPC);
	store_close(s);
	snprintf(lock, sizeof(lock), "%s/store/lock.mdb", dir);
	check_int(unlink(lock), 0);
	fd = open(filler, O_APPEND | O_WRONLY);
	while (write(fd, bytes, 4096) > 0)
		;
	close(fd);
	check_int(store_open(dir, MAP, &s, errmsg), -ENOSPC);
	check_int(unlink(filler), 0);
	s = open_store(MAP);
	check_int(compare(s, &before), 0);
	check_int(store_write(s, &b), 0);
	check_int(compare(s, &m), 0);
	store_batch_finish(&b);
	store_close(s);
	s = open_store(MAP);
	check_int(compare(s, &m), 0);
	store_close(s);
	finish(&m);
	finish(&before);
	check_int(umount(dir), 0);
	ok("a full disk changes nothing, and with room again the write "
	   "succeeds");
}

/* The write fails at call at. False: it has fewer calls. */
static bool fail_at(unsigned at, int err, bool half)
{
	static struct model m, before;
	struct store_batch b;

	if (scratch_can_mount())
		scratch_make(dir, "fail", 32u << 20);
	else
		scratch_make(dir, "fail", 0);
	struct store *s = open_store(MAP);
	write_some(s, &m, 400);
	write_some(s, &m, 100);
	copy_model(&before, &m);
	change(&m, &b, 300);
	fault.at = at;
	fault.n = 0;
	fault.err = err;
	fault.half = half;
	int rc = store_write(s, &b);
	bool struck = fault.n >= at;
	fault.at = 0;
	if (rc != 0) {
		check(rc == -EIO || rc == -ENOSPC, "%d", rc);
		/* After a failed write of a meta page LMDB wants to be opened
		 * anew, which the next write does. */
		rc = compare(s, &before);
		check(rc == 0 || rc == -EIO, "%d", rc);
		check_int(store_write(s, &b), 0);
	}
	check_int(compare(s, &m), 0);
	store_close(s);
	s = open_store(MAP);
	rc = compare(s, &m);
	check(rc == 0, "call %u: %d: %s", at, rc, errmsg);
	store_close(s);
	store_batch_finish(&b);
	if (scratch_can_mount())
		check_int(umount(dir), 0);
	scratch_remove(dir);
	finish(&m);
	finish(&before);
	return struck;
}

static void test_errors(void)
{
	unsigned n = 0;

	while (fail_at(++n, EIO, false))
		;
	for (unsigned at = 1; fail_at(at, ENOSPC, false); at++)
		;
	for (unsigned at = 1; fail_at(at, 0, true); at++)
		;
	ok("any of %u calls of a write may fail: the store is as before", n);
}

/* ---- Damage ---- */

struct image {
	uint8_t *at;
	size_t n;
	char path[600];
};

static struct image load(void)
{
	struct image f;
	struct stat st;

	snprintf(f.path, sizeof(f.path), "%s/store/data.mdb", dir);
	int fd = open(f.path, O_RDONLY);
	check(fd >= 0 && fstat(fd, &st) == 0, "%s", f.path);
	f.n = (size_t)st.st_size;
	f.at = xmalloc(f.n);
	check_int(read(fd, f.at, f.n), f.n);
	close(fd);
	return f;
}

static void save(const struct image *f, size_t n)
{
	int fd = open(f->path, O_WRONLY | O_TRUNC);

	check(fd >= 0, "%s", f->path);
	check_int(write(fd, f->at, n), n);
	close(fd);
}

enum outcome {
	EQUAL,
	REPORTED,
	WRONG
};

/* In a child: read the store, and if it is as it was, write to it and read
 * again. */
static enum outcome read_damaged(struct model *m)
{
	struct store *s;
	int rc = store_open(dir, MAP, &s, errmsg);

	if (rc == 0)
		rc = compare(s, m);
	if (rc == 0) {
		write_some(s, m, 200);
		write_some(s, m, 200);
		store_close(s);
		rc = store_open(dir, MAP, &s, errmsg);
		if (rc == 0)
			rc = compare(s, m);
		return rc == 0 ? EQUAL : WRONG;
	}
	if (rc != -EUCLEAN)
		return WRONG;
	return strstr(errmsg, "data.mdb") ? REPORTED : WRONG;
}

static enum outcome outcome_in_child(struct model *m, const char *what)
{
	int status;

	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		alarm(20);
		_exit(100 + (int)read_damaged(m));
	}
	check_int(waitpid(pid, &status, 0), pid);
	check(WIFEXITED(status), "%s: signal %d", what, WTERMSIG(status));
	int outcome = WEXITSTATUS(status) - 100; /* 1 is a failed check */
	check(outcome == EQUAL || outcome == REPORTED,
	      "%s: not what was written", what);
	return (enum outcome)outcome;
}

static enum outcome flip(struct image *f, struct model *m, size_t bit)
{
	char what[64];

	snprintf(what, sizeof(what), "bit %zu of byte %zu", bit % 8, bit / 8);
	f->at[bit / 8] ^= (uint8_t)(1u << bit % 8);
	save(f, f->n);
	enum outcome result = outcome_in_child(m, what);
	f->at[bit / 8] ^= (uint8_t)(1u << bit % 8);
	return result;
}

static void make_damageable(struct model *m, struct image *f, const char *name)
{
	if (scratch_can_mount())
		scratch_make(dir, name, 64u << 20);
	else
		scratch_make(dir, name, 0);
	struct store *s = open_store(MAP);
	for (int i = 0; i < 12; i++)
		write_some(s, m, 250);
	store_close(s);
	*f = load();
}

static void test_flips(void)
{
	static struct model m;
	struct image f;
	unsigned n[2] = {0};

	make_damageable(&m, &f, "flips");
	for (int i = 0; i < 1000; i++)
		n[flip(&f, &m, check_random(&seed) % (f.n * 8))]++;
	ok("a flipped bit anywhere is reported (%u), or nothing is lost (%u)",
	   n[REPORTED], n[EQUAL]);
	n[0] = n[1] = 0;
	for (size_t byte = 0; byte < 2 * 4096; byte++)
		if (byte % 4096 < 160)
			n[flip(&f, &m, byte * 8 + check_random(&seed) % 8)]++;
	for (size_t page = 2; page < f.n / 4096; page++)
		for (int i = 0; i < 4; i++)
			n[flip(&f, &m,
			       page * 4096 * 8 +
				       check_random(&seed) % (8 * 128))]++;
	ok("likewise at the beginning of each page (%u and %u)", n[REPORTED],
	   n[EQUAL]);
	free(f.at);
	finish(&m);
}

static void test_short_files(void)
{
	static struct model m;
	struct image f;
	unsigned n[2] = {0};

	make_damageable(&m, &f, "short");
	for (size_t len = 0; len < f.n; len += 1536) {
		char what[64];
		snprintf(what, sizeof(what), "cut to %zu bytes", len);
		save(&f, len);
		n[outcome_in_child(&m, what)]++;
	}
	for (size_t page = 0; page < f.n / 4096; page++) {
		uint8_t was[4096];
		memcpy(was, f.at + page * 4096, 4096);
		memset(f.at + page * 4096, 0, 4096);
		save(&f, f.n);
		n[outcome_in_child(&m, "a page of zeros")]++;
		memcpy(f.at + page * 4096, was, 4096);
	}
	free(f.at);
	finish(&m);
	ok("a file cut short, or with a lost page, is reported (%u), "
	   "or the page was free (%u)",
	   n[REPORTED], n[EQUAL]);
}

static void body(uint64_t given)
{
	seed = given;
	test_histories();
	test_refusal();
	test_growth();
	test_full_disk();
	test_errors();
	test_flips();
	test_short_files();
}

int main(int argc, char **argv)
{
	return scratch_run(body, check_seed(argc, argv));
}
