/* SPDX-License-Identifier: MIT */
/* The log: what is appended comes back, what was torn is cut, and what is
 * damaged is reported. */
#include "ring/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <xxhash.h>

#include "ring/mem.h"
#include "scratch.h"

#define SEGMENT	  8192
#define N_MAX	  4096
#define FIRST_SEG "0000000000000001.seg"

static uint64_t seed;
static char dir[512];

/* ---- The log as it should be ---- */

struct model {
	uint64_t term, vote, first, last, begun;
	struct wal_entry entry[N_MAX];
};

static struct wal_config config(void)
{
	struct wal_config c = {.dir = dir, .segment_bytes = SEGMENT};

	memset(c.cluster.byte, 1, sizeof(c.cluster.byte));
	memset(c.node.byte, 2, sizeof(c.node.byte));
	return c;
}

static char errmsg[RING_ERRMSG_SIZE];

static struct wal *open_log(struct wal_found *found)
{
	struct wal_config c = config();
	struct wal *w;

	errmsg[0] = '\0';
	int rc = wal_open(&c, true, &w, found, errmsg);
	check(rc == 0, "%d: %s", rc, errmsg);
	return w;
}

static struct wal_entry random_entry(uint64_t index, size_t len)
{
	uint8_t *data = len ? xmalloc(len) : NULL;
	uint64_t kind = check_random(&seed) % 4;

	/* Zeros and repeated bytes are what a torn sector looks like. */
	for (size_t i = 0; i < len; i++)
		data[i] = kind == 0 ? 0 : (uint8_t)(check_random(&seed) % 256);
	return (struct wal_entry){.index = index,
				  .term = check_random(&seed),
				  .type = (uint8_t)check_random(&seed),
				  .data = data,
				  .len = len};
}

static void forget_from(struct model *m, uint64_t index)
{
	for (; m->last >= index; m->last--) {
		free((void *)(uintptr_t)m->entry[m->last].data);
		m->entry[m->last].data = NULL;
	}
}

/* Append n entries of about len bytes from index on, to both. */
static void append(struct wal *w, struct model *m, uint64_t index, size_t n,
		   size_t len)
{
	check(index + n < N_MAX, "the model is too small");
	forget_from(m, index);
	for (size_t i = 0; i < n; i++)
		m->entry[index + i] = random_entry(
			index + i, len ? check_random(&seed) % (2 * len) : 0);
	m->last = index + n - 1;
	check_int(wal_append(w, &m->entry[index], n), 0);
}

static void set_vote(struct wal *w, struct model *m, uint64_t term)
{
	m->term = term;
	m->vote = check_random(&seed);
	check_int(wal_set_vote(w, m->term, m->vote), 0);
}

static void check_found(const struct wal_found *f, const struct model *m)
{
	check_int(f->term, m->term);
	check_int(f->vote, m->vote);
	check_int(f->first + f->n_entries, m->last + 1);
	check(f->first <= m->first || f->n_entries == 0, "first %llu of %llu",
	      (unsigned long long)f->first, (unsigned long long)m->first);
	check(f->first >= m->begun, "first %llu, begun anew at %llu",
	      (unsigned long long)f->first, (unsigned long long)m->begun);
	for (size_t i = 0; i < f->n_entries; i++) {
		const struct wal_entry *got = &f->entry[i];
		const struct wal_entry *want = &m->entry[f->first + i];

		check_int(got->index, f->first + i);
		check_int(got->term, want->term);
		check_int(got->type, want->type);
		check_int(got->len, want->len);
		check(got->len == 0 ||
			      memcmp(got->data, want->data, got->len) == 0,
		      "entry %llu", (unsigned long long)got->index);
	}
}

/* Open, compare, and give the open log. */
static struct wal *reopen_with(const struct model *m, uint64_t *torn)
{
	struct wal_found f;
	struct wal *w = open_log(&f);

	check_found(&f, m);
	if (torn != NULL)
		*torn = f.torn_bytes;
	else
		check_int(f.torn_bytes, 0);
	wal_found_finish(&f);
	return w;
}

static void begin(struct model *m, const char *name)
{
	memset(m, 0, sizeof(*m));
	m->first = 1;
	/* On a tmpfs, because a flush costs nothing there. */
	if (scratch_can_mount())
		scratch_make(dir, name, 64u << 20);
	else
		scratch_make(dir, name, 0);
}

static void end(struct model *m)
{
	forget_from(m, 1);
	if (scratch_can_mount())
		check_int(umount(dir), 0);
	scratch_remove(dir);
}

/* ---- Files ---- */

struct image {
	uint8_t *at;
	size_t n;
};

static void log_path(char path[600], const char *name)
{
	snprintf(path, 600, "%s/wal/%s", dir, name);
}

static struct image load(const char *name)
{
	struct image m = {0};
	char path[600];
	struct stat st;

	log_path(path, name);
	int fd = open(path, O_RDONLY);
	check(fd >= 0 && fstat(fd, &st) == 0, "%s", path);
	m.n = (size_t)st.st_size;
	m.at = xmalloc(m.n + 1);
	check_int(read(fd, m.at, m.n), m.n);
	close(fd);
	return m;
}

static void save(const char *name, const void *bytes, size_t n)
{
	char path[600];

	log_path(path, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	check(fd >= 0, "%s", path);
	check_int(write(fd, bytes, n), n);
	close(fd);
}

static void numbered(char name[32], unsigned number)
{
	snprintf(name, 32, "%016x.seg", number);
}

static int try_open(const struct model *want)
{
	struct wal_config c = config();
	struct wal_found f;
	struct wal *w;

	errmsg[0] = '\0';
	int rc = wal_open(&c, false, &w, &f, errmsg);
	if (rc != 0) {
		check(strstr(errmsg, "/wal") != NULL, "%s", errmsg);
		return rc;
	}
	if (want != NULL)
		check_found(&f, want);
	wal_found_finish(&f);
	wal_close(w);
	return 0;
}

static void check_refused(int want, const char *name, const char *words)
{
	check_int(try_open(NULL), want);
	check(strstr(errmsg, name) != NULL, "no %s in: %s", name, errmsg);
	check(strstr(errmsg, words) != NULL, "no '%s' in: %s", words, errmsg);
	if (want == -EUCLEAN)
		check(strstr(errmsg, "offset ") != NULL, "%s", errmsg);
}

/* ---- What is appended comes back ---- */

static void random_step(struct wal **w, struct model *m)
{
	uint64_t what = check_random(&seed) % 100;
	uint64_t live = m->last - m->first + 1;
	size_t n = 1 + check_random(&seed) % 8;

	if (what < 50) {
		append(*w, m, m->last + 1, n, what < 5 ? 0 : 150);
	} else if (what < 53) {
		append(*w, m, m->last + 1, 2, 4 * SEGMENT);
	} else if (what < 60 && live > 0) {
		append(*w, m, m->last - check_random(&seed) % live, n, 100);
	} else if (what < 70) {
		set_vote(*w, m, m->term + 1);
	} else if (what < 80) {
		check_int(wal_sync(*w), 0);
	} else if (what < 87) {
		check_int(wal_prepare(*w), 0);
	} else if (what < 88) {
		forget_from(m, m->first);
		m->first = m->last + 1 + check_random(&seed) % 5;
		m->last = m->first - 1;
		m->begun = m->first;
		check_int(wal_restart(*w, m->first), 0);
	} else if (what < 91 && live > 0) {
		m->first += check_random(&seed) % live;
		check_int(wal_trim(*w, m->first), 0);
	} else {
		wal_close(*w);
		*w = reopen_with(m, NULL);
	}
}

static void test_histories(void)
{
	static struct model m;

	for (int round = 0; round < 20; round++) {
		begin(&m, "history");
		struct wal_found f;
		struct wal *w = open_log(&f);
		uint64_t server = f.server;
		check(f.created && server != 0, "created");
		check_int(f.first, 1);
		wal_found_finish(&f);
		for (int step = 0; step < 400; step++)
			random_step(&w, &m);
		wal_close(w);
		w = open_log(&f);
		check_found(&f, &m);
		check_int(f.server, server);
		check(!f.created, "not created again");
		wal_found_finish(&f);
		wal_close(w);
		end(&m);
	}
	ok("entries, overwritten tails, term and vote come back, over "
	   "segments");
}

/* ---- Torn writes ---- */

/* A log with a few batches, the last of which is not in before. */
struct torn {
	struct model *m;
	struct image before, after;
	size_t from, to; /* offsets of the last batch */
};

static void differing(struct torn *t)
{
	t->from = 0;
	t->to = t->after.n;
	while (t->before.at[t->from] == t->after.at[t->from])
		t->from++;
	while (t->before.at[t->to - 1] == t->after.at[t->to - 1])
		t->to--;
}

/* The log holds t->m and then a torn rest: it opens, and goes on. */
static void check_cut(struct torn *t, bool append_more)
{
	uint64_t torn, last = t->m->last, term = t->m->term;
	struct wal *w = reopen_with(t->m, &torn);

	if (append_more) {
		append(w, t->m, last + 1, 2, 200);
		wal_close(w);
		w = reopen_with(t->m, NULL);
		forget_from(t->m, last + 1);
		t->m->term = term;
	}
	wal_close(w);
}

static void test_prefixes(struct torn *t)
{
	struct image now = {xmalloc(t->after.n), t->after.n};

	for (size_t k = t->from; k < t->to; k++) {
		memcpy(now.at, t->before.at, now.n);
		memcpy(now.at + t->from, t->after.at + t->from, k - t->from);
		save(FIRST_SEG, now.at, now.n);
		check_cut(t, k % 7 == 0);
	}
	free(now.at);
}

/* Every combination of sectors that did not reach the disk. */
static void test_sectors(struct torn *t)
{
	struct image now = {xmalloc(t->after.n), t->after.n};
	size_t first = t->from / 512, n = (t->to - 1) / 512 - first + 1;

	check(n >= 5 && n < 12, "%zu sectors", n);
	for (unsigned missing = 1; missing < 1u << n; missing++) {
		memcpy(now.at, t->after.at, now.n);
		for (size_t i = 0; i < n; i++)
			if (missing & 1u << i)
				memcpy(now.at + (first + i) * 512,
				       t->before.at + (first + i) * 512, 512);
		save(FIRST_SEG, now.at, now.n);
		check_cut(t, missing % 7 == 0);
	}
	free(now.at);
}

static void test_torn_at(size_t lead)
{
	static struct model m;
	struct torn t = {.m = &m};

	begin(&m, "torn");
	struct wal_found f;
	struct wal *w = open_log(&f);
	wal_found_finish(&f);
	append(w, &m, 1, 2, 30);
	m.entry[3] = random_entry(3, lead);
	check_int(wal_append(w, &m.entry[3], 1), 0);
	m.last = 3;
	wal_sync(w);
	t.before = load(FIRST_SEG);
	struct wal_entry e[2] = {random_entry(4, 1000), random_entry(5, 1300)};
	memset((void *)(uintptr_t)e[1].data, 0, 1300);
	check_int(wal_append(w, e, 2), 0);
	wal_close(w);
	t.after = load(FIRST_SEG);
	differing(&t);
	test_prefixes(&t);
	test_sectors(&t);
	free((void *)(uintptr_t)e[0].data);
	free((void *)(uintptr_t)e[1].data);
	free(t.before.at);
	free(t.after.at);
	end(&m);
}

static void test_torn(void)
{
	for (size_t lead = 0; lead < 512; lead += 64)
		test_torn_at(lead);
	ok("a last batch torn at any byte, or with any sectors missing, is "
	   "cut");
}

/* Two batches, flushed together or one after the other, with the first torn. */
static int open_with_hole(bool flushed, struct model *m)
{
	begin(m, "hole");
	struct wal_found f;
	struct wal *w = open_log(&f);
	wal_found_finish(&f);
	append(w, m, 1, 1, 30);
	check_int(wal_sync(w), 0);
	struct wal_entry e[2] = {random_entry(2, 1200), random_entry(3, 700)};
	check_int(wal_append(w, &e[0], 1), 0);
	if (flushed)
		check_int(wal_sync(w), 0);
	check_int(wal_append(w, &e[1], 1), 0);
	wal_close(w);
	struct image now = load(FIRST_SEG);
	memset(now.at + 4096 + 512, 0, 512);
	save(FIRST_SEG, now.at, now.n);
	free(now.at);
	free((void *)(uintptr_t)e[0].data);
	free((void *)(uintptr_t)e[1].data);
	return try_open(m);
}

static void test_holes(void)
{
	static struct model m;

	check_int(open_with_hole(false, &m), 0);
	end(&m);
	check_int(open_with_hole(true, &m), -EUCLEAN);
	check(strstr(errmsg, "not the last") != NULL, "%s", errmsg);
	end(&m);
	ok("a hole before a batch is cut only if neither had been flushed");
}

/* ---- Damage ---- */

static void build(struct model *m, const char *name, unsigned n_segments)
{
	char last[32], path[600];

	begin(m, name);
	struct wal_found f;
	struct wal *w = open_log(&f);
	wal_found_finish(&f);
	numbered(last, n_segments);
	log_path(path, last);
	while (access(path, F_OK) != 0) {
		set_vote(w, m, m->term + 1);
		append(w, m, m->last + 1, 3, 150);
	}
	append(w, m, m->last + 1, 1, 600);
	append(w, m, m->last, 2, 300);
	wal_close(w);
}

static void test_flips(void)
{
	static struct model m;
	unsigned refused = 0, equal = 0;
	char name[32];

	build(&m, "flips", 3);
	for (unsigned s = 1; s <= 3; s++) {
		numbered(name, s);
		struct image now = load(name);
		for (size_t i = 0; i < now.n; i++) {
			unsigned bit = check_random(&seed) % 8;
			struct image was = {xmalloc(now.n), now.n};
			memcpy(was.at, now.at, now.n);
			now.at[i] ^= (uint8_t)(1u << bit);
			save(name, now.at, now.n);
			if (try_open(&m) == 0) {
				equal++;
				/* The tail was cleaned. */
				free(now.at);
				now = load(name);
			} else {
				refused++;
				check(strstr(errmsg, name) != NULL, "%s",
				      errmsg);
			}
			memcpy(now.at, was.at, now.n);
			free(was.at);
		}
		save(name, now.at, now.n);
		free(now.at);
	}
	check_int(try_open(&m), 0);
	end(&m);
	ok("a flipped bit is reported with its file (%u), or nothing is lost "
	   "(%u, in unused bytes)",
	   refused, equal);
}

/* No flipped bit in a batch, the last one too, is taken for a torn write. */
static void test_flips_in_last(void)
{
	static struct model m;
	struct torn t = {.m = &m};

	begin(&m, "last");
	struct wal_found f;
	struct wal *w = open_log(&f);
	wal_found_finish(&f);
	append(w, &m, 1, 2, 30);
	t.before = load(FIRST_SEG);
	append(w, &m, 3, 3, 200);
	wal_close(w);
	t.after = load(FIRST_SEG);
	differing(&t);
	for (size_t i = t.from * 8; i < t.to * 8; i++) {
		t.after.at[i / 8] ^= (uint8_t)(1u << i % 8);
		save(FIRST_SEG, t.after.at, t.after.n);
		check_refused(-EUCLEAN, FIRST_SEG, "damaged at offset");
		t.after.at[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	free(t.before.at);
	free(t.after.at);
	end(&m);
	ok("any flipped bit of the last batch is reported, not cut");
}

static void test_missing(void)
{
	static struct model m;
	char name[32], path[600];

	build(&m, "missing", 4);
	for (unsigned s = 1; s <= 4; s++) {
		numbered(name, s);
		log_path(path, name);
		struct image was = load(name);
		check_int(unlink(path), 0);
		if (s == 1) {
			struct wal_found f;
			wal_close(open_log(&f));
			check(f.first > 1,
			      "the caller sees that it begins late");
			wal_found_finish(&f);
		} else {
			check_refused(-ENOENT, name, "is missing");
		}
		save(name, was.at, was.n);
		free(was.at);
	}
	check_int(try_open(&m), 0);
	end(&m);
	ok("a missing segment is reported, the newest too");
}

static void test_wrong_files(void)
{
	static struct model m;
	static const char one[] = FIRST_SEG, two[] = "0000000000000002.seg";

	build(&m, "wrong", 3);
	struct image a = load(one), b = load(two);
	save(one, b.at, b.n);
	save(two, a.at, a.n);
	check_refused(-EUCLEAN, one, "another segment");
	save(one, a.at, 0);
	save(two, b.at, b.n);
	check_refused(-EUCLEAN, one, "too short");
	save(one, a.at, a.n - 512);
	check_refused(-EUCLEAN, one, "not as long");
	a.at[8] = 2; /* version */
	uint64_t sum = XXH3_64bits(a.at, 4088);
	memcpy(a.at + 4088, &sum, 8);
	save(one, a.at, a.n);
	check_refused(-EPROTONOSUPPORT, one, "another version");
	a.at[8] = 1;
	sum = XXH3_64bits(a.at, 4088);
	memcpy(a.at + 4088, &sum, 8);
	save(one, a.at, a.n);
	save("spare", b.at, b.n);
	save("large", b.at, 3);
	save("0000000000000004.seg~", b.at, b.n);
	save("000000000000000A.seg", b.at, b.n);
	save("9.seg", b.at, b.n);
	save("README", "hello", 5);
	check_int(try_open(&m), 0);
	free(a.at);
	free(b.at);
	end(&m);
	ok("swapped, empty, short and foreign segments are told apart, "
	   "other files ignored");
}

static void test_identity(void)
{
	static struct model m;
	struct wal_config c;
	struct wal_found f;
	struct wal *w;

	build(&m, "identity", 2);
	c = config();
	c.cluster.byte[3]++;
	check_int(wal_open(&c, true, &w, &f, errmsg), -EXDEV);
	check(strstr(errmsg, "another cluster") != NULL, "%s", errmsg);
	c = config();
	c.node.byte[3]++;
	check_int(wal_open(&c, true, &w, &f, errmsg), -EXDEV);
	check(strstr(errmsg, "another node") != NULL, "%s", errmsg);
	c = config();
	c.server = 7;
	check_int(wal_open(&c, true, &w, &f, errmsg), -EXDEV);
	end(&m);
	begin(&m, "identity");
	check_refused(-ENOENT, "wal", "the log is missing");
	end(&m);
	ok("another cluster's or node's log is refused, and so is none");
}

/* ---- For the report ---- */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare_doubles(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Where the disk is, one round of each in turn. */
static void bench(void)
{
	enum {
		ROUNDS = 1000
	};
	static double raw[ROUNDS], log[ROUNDS];
	static uint8_t bytes[1 << 20];
	struct wal_config c = config();
	struct wal_found f;
	struct wal *w;

	scratch_make(dir, "bench", 0);
	c.segment_bytes = WAL_SEGMENT_BYTES;
	check_int(wal_open(&c, true, &w, &f, errmsg), 0);
	wal_found_finish(&f);
	int fd = openat(AT_FDCWD, dir, O_TMPFILE | O_RDWR, 0600);
	check(fd >= 0, "%s", strerror(errno));
	check_int(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	fsync(fd);
	memset(bytes, 0x55, 128);
	for (int i = 0; i < ROUNDS; i++) {
		double t = now_us();
		check_int(pwrite(fd, bytes, 128, i * 128), 128);
		check_int(fdatasync(fd), 0);
		raw[i] = now_us() - t;
		struct wal_entry e = {(uint64_t)i + 1, 1, 1, bytes, 128};
		t = now_us();
		check_int(wal_append(w, &e, 1), 0);
		check_int(wal_sync(w), 0);
		log[i] = now_us() - t;
	}
	close(fd);
	wal_close(w);
	scratch_remove(dir);
	qsort(raw, ROUNDS, sizeof(*raw), compare_doubles);
	qsort(log, ROUNDS, sizeof(*log), compare_doubles);
	printf("# 128 bytes, median us: pwrite+fdatasync %.1f, append+sync "
	       "%.1f\n",
	       raw[ROUNDS / 2], log[ROUNDS / 2]);
}

static void body(uint64_t given)
{
	seed = given;
	test_histories();
	test_torn();
	test_holes();
	test_flips();
	test_flips_in_last();
	test_missing();
	test_wrong_files();
	test_identity();
	bench();
}

int main(int argc, char **argv)
{
	return scratch_run(body, check_seed(argc, argv));
}
