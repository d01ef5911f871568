/* SPDX-License-Identifier: MIT */
/* What gossip/ keeps on disk: written, read back, damaged in every way. */
#include "gossip/records.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char dir[256], file[300], note[GOSSIP_ERRMSG_SIZE];

/* ---- A state: items whose bytes follow from a seed and their place ---- */

struct got {
	unsigned n;
	uint64_t seed; /* of the first; all must have it */
	bool is_mixed;
	uint32_t last;
};

static size_t len_of(uint64_t seed, uint32_t index)
{
	static const size_t lens[] = {0, 1, 40, 2000, 5000, 130000};

	return lens[(seed + index) % 6];
}

static void fill(uint64_t seed, uint32_t index, uint8_t *bytes, size_t len)
{
	uint64_t r = seed * 1000003 + index;

	for (size_t i = 0; i < len; i++)
		bytes[i] =
			(uint8_t)(i % 8 == 0 ? check_random(&r) : r >> i % 7);
}

static uint8_t scratch[1 << 18], other[1 << 18];

static bool is_of(uint64_t seed, const struct records_item *item)
{
	size_t len = len_of(seed, item->index);

	if (item->index == 0)
		return item->len == 8 && memcmp(item->bytes, &seed, 8) == 0;
	fill(seed, item->index, other, len);
	return item->len == len && memcmp(item->bytes, other, len) == 0;
}

/* Items 1, 2, ... carry the seed in item 0. */
static void on_item(void *data, const struct records_item *item)
{
	struct got *got = data;

	check(got->n == 0 || item->index > got->last, "in order");
	got->n++;
	got->last = item->index;
	if (item->index == 0)
		memcpy(&got->seed, item->bytes, 8);
	got->is_mixed |= !is_of(got->seed, item);
}

static struct records *open_it(struct got *got)
{
	struct records_load load = {
		.on_item = on_item, .data = got, .note = note};
	char errmsg[GOSSIP_ERRMSG_SIZE] = "";
	struct records *r = NULL;

	*got = (struct got){0};
	int rc = records_open(dir, &load, &r, errmsg);
	check(rc == 0, "%d %s", rc, errmsg);
	return r;
}

static struct records_batch *batch(struct records *r, uint64_t seed, unsigned n)
{
	struct records_batch *b = records_begin(r);

	for (uint32_t i = 0; i < n; i++) {
		struct records_item item = {
			.kind = 3, .index = i, .bytes = scratch};
		if (i == 0) {
			memcpy(scratch, &seed, 8);
			item.len = 8;
		} else {
			item.len = len_of(seed, i);
			fill(seed, i, scratch, item.len);
		}
		records_put(b, &item);
	}
	return b;
}

static int write_it(struct records *r, uint64_t seed, unsigned n)
{
	struct records_batch *b = batch(r, seed, n);
	int rc = records_write(b);

	records_end(b);
	return rc;
}

static void read_back(uint64_t seed, unsigned n)
{
	struct got got;

	records_close(open_it(&got));
	check(note[0] == '\0', "%s", note);
	check_int(got.n, n);
	check(n == 0 || (got.seed == seed && !got.is_mixed), "what was put");
}

static int remove_one(const char *path, const struct stat *st, int kind,
		      struct FTW *ftw)
{
	(void)st, (void)kind, (void)ftw;
	return remove(path);
}

static void clear(void)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	check_int(mkdir(dir, 0700), 0);
}

/* ---- Whole files ---- */

static void test_writing(void)
{
	struct got got;
	struct stat st;
	struct records *r = open_it(&got);

	check_int(got.n, 0);
	check(note[0] == '\0', "%s", note);
	check_int(write_it(r, 1, 20), 0);
	struct records_batch *b = batch(r, 1, 20);
	check(records_is_kept(b), "the same");
	records_end(b);
	b = batch(r, 1, 19);
	check(!records_is_kept(b), "one less");
	records_end(b);
	b = batch(r, 2, 20);
	check(!records_is_kept(b), "others");
	records_end(b);
	records_close(r);
	read_back(1, 20);
	check(stat(file, &st) == 0 && (st.st_mode & 077) == 0, "private");
	ok("what was written is read back; the same is not written again");

	r = open_it(&got);
	for (uint64_t seed = 2; seed < 40; seed++)
		check_int(write_it(r, seed, (unsigned)(seed * 7 % 300)), 0);
	records_close(r);
	read_back(39, 39 * 7 % 300);
	r = open_it(&got);
	check_int(write_it(r, 5, 0), 0);
	records_close(r);
	read_back(0, 0);
	r = open_it(&got);
	check_int(write_it(r, 6, 3000), 0);
	records_close(r);
	read_back(6, 3000);
	ok("more, fewer, others, none, thousands");
	check_int(stat(file, &st), 0);
	off_t full = st.st_size;
	r = open_it(&got);
	check_int(write_it(r, 7, 10), 0);
	records_close(r);
	check_int(stat(file, &st), 0);
	check(st.st_size < full / 10, "%ld", (long)st.st_size);
	ok("a new process begins a new file, without what is dead");
}

static void test_in_the_way(void)
{
	struct got got;
	char path[400];
	struct records *r = open_it(&got);

	check_int(write_it(r, 1, 20), 0);
	snprintf(path, sizeof(path), "%s/gossip/new.mdb", dir);
	records_close(r);
	r = open_it(&got);
	check_int(mkdir(path, 0700), 0);
	check(write_it(r, 2, 20) < 0, "a folder in the way");
	check(write_it(r, 2, 20) < 0, "still");
	rmdir(path);
	check_int(write_it(r, 3, 20), 0);
	records_close(r);
	read_back(3, 20);
	ok("a write that fails leaves the old file, and can be done again");
}

/* RLIMIT_FSIZE is the next best to a full disk. */
static void test_full(void)
{
	struct got got;
	struct records *r = open_it(&got);
	struct rlimit old, low;

	check_int(write_it(r, 1, 20), 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	low = (struct rlimit){.rlim_cur = 2 << 20, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_FSIZE, &low);
	check(write_it(r, 2, 3000) < 0, "too large");
	check(write_it(r, 2, 3000) < 0, "still");
	setrlimit(RLIMIT_FSIZE, &old);
	read_back(1, 20);
	check_int(write_it(r, 3, 3000), 0);
	records_close(r);
	read_back(3, 3000);
	ok("no room: nothing is lost, and it goes on when there is");
}

/* ---- Damage ---- */

static void damage_aside(unsigned i, const char *word)
{
	char path[400];
	struct stat st;

	check(strstr(note, word) != NULL, "%s: %s", word, note);
	snprintf(path, sizeof(path), "%s/gossip.damaged-%u", dir, i);
	check(stat(path, &st) == 0, "%s", path);
	check(strstr(note, path) != NULL, "%s", note);
}

static void patch(off_t at, const void *bytes, size_t n)
{
	int fd = open(file, O_WRONLY);

	check(fd >= 0 && pwrite(fd, bytes, n, at) == (ssize_t)n, "%s", file);
	close(fd);
}

static void test_damage(void)
{
	struct got got;
	char zeros[8192] = "";

	clear();
	for (unsigned i = 1; i <= 5; i++) {
		struct records *r = open_it(&got);
		check_int(write_it(r, i, 100), 0);
		records_close(r);
		switch (i) {
		case 1:
			patch(0, zeros, 8192);
			break;
		case 2:
			check_int(truncate(file, 100), 0);
			break;
		case 3:
			check_int(truncate(file, 0), 0);
			break;
		case 4:
			patch(16, "ABCD", 4);
			break;
		case 5:
			check_int(truncate(file, 5 * 4096), 0);
			break;
		}
		r = open_it(&got);
		damage_aside(i, i == 5	 ? "is damaged"
				: i == 2 ? "too short"
				: i == 3 ? "too short"
					 : "no LMDB file");
		check(!got.is_mixed, "only what is whole");
		check_int(write_it(r, 50 + i, 30), 0);
		records_close(r);
		read_back(50 + i, 30);
	}
	ok("bad magic, cut, empty: set aside, and begun anew");

	/* One bad value among good ones. */
	struct records *r = open_it(&got);
	check_int(write_it(r, 9, 100), 0);
	records_close(r);
	int fd = open(file, O_RDWR);
	struct stat st;
	check_int(fstat(fd, &st), 0);
	/* Item 5 of seed 9 has 5000 bytes, and so pages of its own. */
	fill(9, 7, other, 5000);
	for (off_t at = 8192; at < st.st_size; at += 4096) {
		check(pread(fd, scratch, 4096, at) == 4096, "page");
		for (size_t i = 16; i < 64; i++)
			if (memcmp(scratch + i, other, 1000) == 0)
				pwrite(fd, "oops", 4, at + 200);
	}
	close(fd);
	r = open_it(&got);
	damage_aside(6, "missing or old");
	check_int(got.n, 99);
	check(!got.is_mixed, "only what is whole");
	records_close(r);
	ok("what is whole in a damaged file is kept");
}

/* In a damaged file: of the last state, or of one before. */
static void on_genuine(void *data, const struct records_item *item)
{
	struct got *got = data;
	bool is_genuine = false;

	for (uint64_t seed = 77; seed <= 81; seed++)
		is_genuine |= is_of(seed, item);
	check(is_genuine, "item %u was never put", item->index);
	got->is_mixed |= !is_of(81, item);
	got->n++;
}

/* Whatever is in the file: no crash, no hang, and nothing that was not put. */
static void test_random_damage(uint64_t seed)
{
	static uint8_t whole[8 << 20];
	struct got got;
	unsigned n_damaged = 0;

	clear();
	struct records *r = open_it(&got);
	for (unsigned i = 0; i < 5; i++)
		check_int(write_it(r, 77 + i, 12), 0);
	records_close(r);
	int fd = open(file, O_RDONLY);
	ssize_t len = read(fd, whole, sizeof(whole));
	close(fd);
	check(len > 0 && len < (ssize_t)sizeof(whole), "%zd", len);
	for (unsigned round = 0; round < 400; round++) {
		fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		check(write(fd, whole, (size_t)len) == len, "write");
		for (uint64_t i = 1 + check_random(&seed) % 4; i > 0; i--) {
			uint64_t bits = check_random(&seed);
			/* More often where the structure is. */
			off_t page = (off_t)(check_random(&seed) %
					     (uint64_t)(len / 4096)) *
				     4096;
			off_t at = page + (off_t)(check_random(&seed) % 64);
			if (round % 3 == 0)
				at = (off_t)(check_random(&seed) %
					     (uint64_t)len);
			if (at < len)
				pwrite(fd, &bits, 1 + bits % 8, at);
		}
		if (round % 10 == 0)
			check_int(ftruncate(fd, (off_t)(check_random(&seed) %
							(uint64_t)len)),
				  0);
		close(fd);
		struct records_load load = {
			.on_item = on_genuine, .data = &got, .note = note};
		const char *what;
		got = (struct got){0};
		int rc = records_read(file, &load, &what);
		check(rc == 0 || rc == -EUCLEAN || rc == -EPROTONOSUPPORT, "%d",
		      rc);
		check(rc != 0 || (got.n == 12 && !got.is_mixed),
		      "the last state, or damaged: %u", got.n);
		n_damaged += rc != 0;
	}
	printf("# %u of 400 were damage that matters\n", n_damaged);
	check(n_damaged > 50, "some were");
	ok("random damage is noticed, and harms nobody");
}

/* Writes one state after the other, and says so, until it is killed. */
static void write_for_ever(uint64_t seed, int fd)
{
	struct got got;
	struct records *r = open_it(&got);

	for (;; seed++)
		if (write_it(r, seed, 100 + seed % 50) != 0 ||
		    write(fd, "", 1) != 1)
			_exit(1);
}

static void test_crashes(void)
{
	struct got got;
	uint64_t before = 0;
	char byte;
	int fd[2];

	clear();
	for (unsigned round = 1; round <= 40; round++) {
		check_int(pipe(fd), 0);
		pid_t pid = fork();
		check(pid >= 0, "fork");
		if (pid == 0)
			write_for_ever(round * 1000, fd[1]);
		check_int(read(fd[0], &byte, 1), 1);
		usleep(777 * round);
		kill(pid, SIGKILL);
		check_int(waitpid(pid, NULL, 0), pid);
		close(fd[0]);
		close(fd[1]);
		records_close(open_it(&got));
		check(note[0] == '\0', "round %u: %s", round, note);
		check(!got.is_mixed && got.n == 100 + got.seed % 50,
		      "one transaction, whole: %u", got.n);
		check(got.seed >= round * 1000 && got.seed > before, "new");
		before = got.seed;
	}
	ok("a kill leaves one transaction or the one before");
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/records_test.XXXXXX",
		 tmp != NULL ? tmp : "/tmp");
	check(mkdtemp(dir) != NULL, "%s", dir);
	snprintf(file, sizeof(file), "%s/gossip/data.mdb", dir);
	test_writing();
	test_in_the_way();
	test_full();
	test_damage();
	test_random_damage(seed);
	test_crashes();
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
