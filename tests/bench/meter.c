/* SPDX-License-Identifier: MIT */
/* The stop-watch of the benchmarks. Each form prints one number or a few.
 *
 *   meter durable MNT FILE N       microseconds (medians): claim finish append;
 *                                  N of each, one after the other in turn, append
 *                                  being 128 bytes into FILE, preallocated with
 *                                  zeros, and fdatasync
 *   meter serial MNT N             microseconds (medians): claim finish, N of each
 *                                  in turn
 *   meter isolated MNT N           microseconds: median and 99th percentile of N
 *                                  claims, each after a rest of 50 to 250 ms
 *   meter stat|lookup|read DIR N SECONDS   operations per second on DIR/k0 ...
 *   meter readdir DIR SECONDS      entries per second
 *   meter mknod DIR N              mknods per second, N of them
 *   meter batch MNT SIZE N         claims per second, N in batches of SIZE, which
 *                                  are finished again, not timed
 *   meter heard DIR N MNT          batch of N claims in MNT: IN_CREATEs per second
 *                                  in DIR, up to the last
 *   meter beside FILE N MNT        the longest stat of FILE, in milliseconds, while
 *                                  N are claimed in MNT by one batch, and while they
 *                                  are finished by one; names per second of both */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RECORD 128

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	fprintf(stderr, "meter: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_size);
	return v[n / 2];
}

static double *numbers(size_t n)
{
	double *v = calloc(n, sizeof(*v));

	if (!v)
		die("calloc");
	return v;
}

/* ---- Durable claims ---- */

static int preallocate(const char *path, size_t bytes)
{
	static const char zeros[65536];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		die(path);
	for (size_t done = 0; done < bytes; done += sizeof(zeros))
		if (write(fd, zeros, sizeof(zeros)) != sizeof(zeros))
			die(path);
	if (fsync(fd) != 0)
		die(path);
	return fd;
}

static double timed_claim(const char *path)
{
	double begin = now();
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

	if (fd < 0)
		die(path);
	close(fd);
	return now() - begin;
}

static double timed_finish(const char *path)
{
	double begin = now();

	if (unlink(path) != 0)
		die(path);
	return now() - begin;
}

static double timed_append(int fd, size_t i)
{
	char record[RECORD];
	double begin = now();

	memset(record, (int)i | 1, sizeof(record));
	if (pwrite(fd, record, sizeof(record), (off_t)(i * RECORD)) != RECORD ||
	    fdatasync(fd) != 0)
		die("append");
	return now() - begin;
}

static void durable(const char *mnt, const char *file, size_t n)
{
	double *claim = numbers(n), *finish = numbers(n), *append = numbers(n);
	int fd = preallocate(file, n * RECORD + 65536);
	char path[PATH_MAX];

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/keys/d%zu", mnt, i);
		append[i] = timed_append(fd, i);
		claim[i] = timed_claim(path);
		finish[i] = timed_finish(path);
	}
	close(fd);
	unlink(file);
	printf("%.1f %.1f %.1f\n", median(claim, n) * 1e6,
	       median(finish, n) * 1e6, median(append, n) * 1e6);
	free(claim);
	free(finish);
	free(append);
}

static void serial(const char *mnt, size_t n)
{
	double *claim = numbers(n), *finish = numbers(n);
	char path[PATH_MAX];

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/keys/s%zu", mnt, i);
		claim[i] = timed_claim(path);
		finish[i] = timed_finish(path);
	}
	printf("%.1f %.1f\n", median(claim, n) * 1e6, median(finish, n) * 1e6);
	free(claim);
	free(finish);
}

static void isolated(const char *mnt, size_t n)
{
	double *claim = numbers(n);
	char path[PATH_MAX];

	srandom((unsigned)getpid());
	for (size_t i = 0; i < n; i++) {
		const struct timespec rest = {.tv_nsec = (50 + random() % 200) *
							 1000000};

		nanosleep(&rest, NULL);
		snprintf(path, sizeof(path), "%s/keys/i%zu", mnt, i);
		claim[i] = timed_claim(path);
		timed_finish(path);
	}
	double half = median(claim, n); /* sorts */

	printf("%.1f %.1f\n", half * 1e6, claim[n - 1 - n / 100] * 1e6);
	free(claim);
}

/* ---- Reading ---- */

static void one_stat(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		die(path);
}

static void one_lookup(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0 || errno != ENOENT)
		die(path);
}

static void one_read(const char *path)
{
	char buf[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, buf, sizeof(buf)) < 0)
		die(path);
	close(fd);
}

static void rate(const char *dir, const char *prefix, size_t n, double seconds,
		 void (*one)(const char *path))
{
	char path[PATH_MAX];
	double begin = now(), spent;
	size_t done = 0;

	do {
		for (int i = 0; i < 100; i++, done++) {
			snprintf(path, sizeof(path), "%s/%s%zu", dir, prefix,
				 done * 7919 % n);
			one(path);
		}
		spent = now() - begin;
	} while (spent < seconds);
	printf("%.0f\n", (double)done / spent);
}

static void readdirs(const char *dir, double seconds)
{
	double begin = now(), spent;
	size_t n = 0;

	do {
		DIR *d = opendir(dir);

		if (!d)
			die(dir);
		while (readdir(d) != NULL)
			n++;
		closedir(d);
		spent = now() - begin;
	} while (spent < seconds);
	printf("%.0f\n", (double)n / spent);
}

static void mknods(const char *dir, size_t n)
{
	char path[PATH_MAX];
	double begin = now();

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/m%zu", dir, i);
		if (mknod(path, S_IFREG | 0644, 0) != 0)
			die(path);
	}
	printf("%.0f\n", (double)n / (now() - begin));
}

/* ---- Batches ---- */

static void write_all(int fd, const char *s, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, s, n);

		if (done < 0)
			die("ctl");
		s += done;
		n -= (size_t)done;
	}
}

/* One batch of names b<first> ...; all must be answered with ok. */
static void batch(const char *mnt, const char *verb, size_t first, size_t n)
{
	char path[PATH_MAX], buf[65536];
	size_t size = 32 + n * 24, len, n_lines = 0;
	char *text = malloc(size);

	snprintf(path, sizeof(path), "%s/ctl", mnt);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || !text)
		die(path);
	len = (size_t)snprintf(text, size, "%s\n", verb);
	for (size_t i = first; i < first + n; i++)
		len += (size_t)snprintf(text + len, size - len, "b%zu\n", i);
	write_all(fd, text, len);
	ssize_t got;
	while ((got = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < got; i++)
			n_lines += buf[i] == '\n';
	if (got < 0 || n_lines != n)
		die("batch");
	close(fd);
	free(text);
}

static void batches(const char *mnt, size_t size, size_t n)
{
	double spent = 0;

	for (size_t at = 0; at < n; at += size) {
		double begin = now();

		batch(mnt, "claim", at, size);
		spent += now() - begin;
		batch(mnt, "finish", at, size);
	}
	printf("%.0f\n", (double)n / spent);
}

static size_t drain(int fd)
{
	static char buf[65536]
		__attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(fd, buf, sizeof(buf));
	size_t heard = 0;

	for (char *p = buf; n > 0 && p < buf + n;) {
		const struct inotify_event *e = (const void *)p;

		if (e->mask & IN_Q_OVERFLOW) {
			errno = EOVERFLOW;
			die("inotify");
		}
		heard += (e->mask & IN_CREATE) != 0;
		p += sizeof(*e) + e->len;
	}
	return heard;
}

static void heard(const char *dir, size_t n, const char *mnt)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	size_t got = 0;

	if (fd < 0 || inotify_add_watch(fd, dir, IN_CREATE) < 0)
		die(dir);
	batch(mnt, "claim", 0, n);
	double begin = now();
	got = drain(fd);
	size_t before = got;
	while (got < n) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, 10000) <= 0) {
			fprintf(stderr, "meter: heard %zu of %zu\n", got, n);
			exit(1);
		}
		got += drain(fd);
	}
	printf("%.0f\n", (double)(n - before) / (now() - begin));
	close(fd);
	batch(mnt, "finish", 0, n);
}

struct beside {
	const char *mnt, *verb;
	size_t n;
	double seconds;
	atomic_bool over;
};

static void *run_batch(void *data)
{
	struct beside *b = data;
	double begin = now();

	batch(b->mnt, b->verb, 0, b->n);
	b->seconds = now() - begin;
	b->over = true;
	return NULL;
}

/* Asked at intervals, so that the asking takes nothing from what is asked. */
static double longest_stat(struct beside *b, const char *path)
{
	const struct timespec rest = {.tv_nsec = 200000};
	double longest = 0;
	pthread_t thread;

	b->over = false;
	if (pthread_create(&thread, NULL, run_batch, b) != 0)
		die("thread");
	while (!b->over) {
		double begin = now();

		one_stat(path);
		double spent = now() - begin;
		longest = spent > longest ? spent : longest;
		nanosleep(&rest, NULL);
	}
	pthread_join(thread, NULL);
	return longest;
}

static void beside(const char *path, size_t n, const char *mnt)
{
	struct beside claim = {.mnt = mnt, .verb = "claim", .n = n};
	struct beside finish = {.mnt = mnt, .verb = "finish", .n = n};
	double claim_s = longest_stat(&claim, path);
	double finish_s = longest_stat(&finish, path);

	printf("%.1f %.1f %.0f %.0f\n", claim_s * 1e3, finish_s * 1e3,
	       (double)n / claim.seconds, (double)n / finish.seconds);
}

static size_t count(const char *s)
{
	size_t n = strtoul(s, NULL, 10);

	if (n == 0) {
		errno = EINVAL;
		die(s);
	}
	return n;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char *const *a = argv + 2;

	if (strcmp(what, "durable") == 0 && argc == 5)
		durable(a[0], a[1], count(a[2]));
	else if (strcmp(what, "serial") == 0 && argc == 4)
		serial(a[0], count(a[1]));
	else if (strcmp(what, "isolated") == 0 && argc == 4)
		isolated(a[0], count(a[1]));
	else if (strcmp(what, "stat") == 0 && argc == 5)
		rate(a[0], "k", count(a[1]), atof(a[2]), one_stat);
	else if (strcmp(what, "lookup") == 0 && argc == 5)
		rate(a[0], "none", count(a[1]), atof(a[2]), one_lookup);
	else if (strcmp(what, "read") == 0 && argc == 5)
		rate(a[0], "k", count(a[1]), atof(a[2]), one_read);
	else if (strcmp(what, "readdir") == 0 && argc == 4)
		readdirs(a[0], atof(a[1]));
	else if (strcmp(what, "mknod") == 0 && argc == 4)
		mknods(a[0], count(a[1]));
	else if (strcmp(what, "batch") == 0 && argc == 5)
		batches(a[0], count(a[1]), count(a[2]));
	else if (strcmp(what, "heard") == 0 && argc == 5)
		heard(a[0], count(a[1]), a[2]);
	else if (strcmp(what, "beside") == 0 && argc == 5)
		beside(a[0], count(a[1]), a[2]);
	else {
		fprintf(stderr, "meter: see the head of tests/bench/meter.c\n");
		return 64;
	}
	return 0;
}
