/* SPDX-License-Identifier: MIT */
/* Lists a large directory while others change it.
 *
 *   list MNT N ROUNDS SEED
 *
 * Claims stay0 .. stay<N-1> through ctl, and churn<i> after every eighth; then a
 * process finishes the latter and claims them again, in batches of all sizes, so
 * that keys go all over the place, and others move. Meanwhile it lists keys/ and
 * owned/ in turn, ROUNDS times, by getdents64 into buffers of odd sizes, from a
 * new descriptor or by rewinding the old one. Each time every stay<i> must come
 * exactly once, a churn<i> at most once, and nothing else but "." and "..",
 * first. Prints what it has done.
 *
 * Statuses: 0; 1 a listing was wrong; 2 the tree answered what it must not
 * answer; 64 usage. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVERY	 8	/* of the names that stay, a name that does not */
#define BATCH	 150000 /* names that stay in one batch, at most */
#define BUF_SIZE (128 * 1024)

static const char *mnt;
static uint64_t state; /* of random_below() */
static size_t n_stay, n_churn;

/* Changes so far, by the process that makes them. */
static atomic_size_t *n_changes;

static void stop(int status, const char *what)
{
	fprintf(stderr, "list: %s: %s\n", what, strerror(errno));
	exit(status);
}

/* splitmix64 */
static uint64_t random_below(uint64_t n)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % n;
}

static int open_in(const char *name, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", mnt, name);
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		stop(2, path);
	return fd;
}

/* ---- Batches ---- */

/* Write all that is in f, and count the answers; those that are not `ok` must be
 * of the `refusals` that the caller expects. */
static size_t carry_out(FILE *f, char **text, size_t *len, bool refusals)
{
	static char buf[BUF_SIZE];
	int fd = open_in("ctl", O_RDWR);
	size_t n = 0;
	ssize_t got = 0;

	fclose(f);
	for (size_t at = 0; at < *len; at += (size_t)got)
		if ((got = write(fd, *text + at, *len - at)) < 0)
			stop(2, "ctl");
	bool begins = true, is_ok = false;
	while ((got = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < got; i++) {
			if (begins)
				is_ok = buf[i] == 'o';
			begins = buf[i] == '\n';
			n += begins && is_ok;
			if (begins && !is_ok && !refusals)
				stop(2, "a claim was refused");
		}
	}
	if (got < 0)
		stop(2, "ctl");
	close(fd);
	free(*text);
	return n;
}

static void claim_all(void)
{
	for (size_t at = 0; at < n_stay; at += BATCH) {
		size_t end = n_stay - at < BATCH ? n_stay : at + BATCH, len;
		char *text;
		FILE *f = open_memstream(&text, &len);

		fputs("claim\n", f);
		for (size_t i = at; i < end; i++) {
			fprintf(f, "stay%zu\n", i);
			if (i % EVERY == 0)
				fprintf(f, "churn%zu\n", i / EVERY);
		}
		carry_out(f, &text, &len, false);
	}
}

static void churn(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		size_t len, n = 1 + random_below(200);
		char *text;
		FILE *f = open_memstream(&text, &len);

		while (n-- > 0)
			fprintf(f, "%s churn%zu\n",
				random_below(2) ? "claim" : "finish",
				(size_t)random_below(n_churn));
		*n_changes += carry_out(f, &text, &len, true);
	}
}

/* ---- Listings ---- */

struct seen {
	uint8_t *stay, *churn; /* how often */
	size_t n;	       /* of those that stay */
	size_t n_entries;
};

static void wrong(const char *name, const char *how)
{
	fprintf(stderr, "list: %s %s\n", name, how);
	exit(1);
}

/* The number behind prefix, if that is all of name and below n; else n. */
static size_t number_of(const char *name, const char *prefix, size_t n)
{
	size_t len = strlen(prefix);
	char again[32], *end;

	if (strncmp(name, prefix, len) != 0)
		return n;
	size_t i = strtoul(name + len, &end, 10);
	snprintf(again, sizeof(again), "%s%zu", prefix, i);
	return i < n && strcmp(again, name) == 0 ? i : n;
}

static void see(struct seen *s, const char *name)
{
	size_t stay = number_of(name, "stay", n_stay);
	size_t other = number_of(name, "churn", n_churn);

	if (s->n_entries < 2) {
		if (strcmp(name, s->n_entries == 0 ? "." : "..") != 0)
			wrong(name, "is not . or ..");
	} else if (stay < n_stay) {
		if (s->stay[stay]++ != 0)
			wrong(name, "comes twice");
		s->n++;
	} else if (other < n_churn) {
		if (s->churn[other]++ != 0)
			wrong(name, "comes twice");
	} else {
		wrong(name, "is no name of ours");
	}
	s->n_entries++;
}

/* At times just for a name or two; mostly not, or a million take an hour. */
static size_t buffer_size(void)
{
	if (random_below(n_stay < 1000 ? 2 : 50) == 0)
		return 32 + random_below(300);
	return 2000 + random_below(BUF_SIZE - 2000);
}

static void list(int fd, struct seen *s)
{
	static char buf[BUF_SIZE]
		__attribute__((aligned(__alignof__(struct dirent64))));

	for (;;) {
		ssize_t got = getdents64(fd, buf, buffer_size());

		if (got < 0)
			stop(2, "getdents64");
		if (got == 0)
			break;
		for (char *p = buf; p < buf + got;) {
			const struct dirent64 *e = (const void *)p;

			see(s, e->d_name);
			p += e->d_reclen;
		}
	}
	for (size_t i = 0; i < n_stay && s->n < n_stay; i++) {
		char name[32];

		snprintf(name, sizeof(name), "stay%zu", i);
		if (s->stay[i] == 0)
			wrong(name, "does not come");
	}
}

/* Begin again from the first entry, by a new descriptor or by the old one. */
static void rewind_dir(int *fd, const char *name)
{
	if (random_below(2)) {
		close(*fd);
		*fd = open_in(name, O_RDONLY);
	} else if (lseek(*fd, 0, SEEK_SET) != 0) {
		stop(2, "lseek");
	}
}

/* Gives how many changes came in the midst of the listings. */
static size_t list_many(int rounds)
{
	static const char *const names[] = {"keys", "owned"};
	int fds[] = {open_in(names[0], O_RDONLY), open_in(names[1], O_RDONLY)};
	struct seen s = {.stay = calloc(n_stay, 1),
			 .churn = calloc(n_churn, 1)};
	size_t amid = 0;

	for (int i = 0; i < rounds; i++) {
		size_t before = *n_changes;

		rewind_dir(&fds[i % 2], names[i % 2]);
		memset(s.stay, 0, n_stay);
		memset(s.churn, 0, n_churn);
		s.n = s.n_entries = 0;
		list(fds[i % 2], &s);
		amid += *n_changes - before;
	}
	free(s.stay);
	free(s.churn);
	return amid;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 64;
	mnt = argv[1];
	n_stay = strtoul(argv[2], NULL, 10);
	n_churn = (n_stay + EVERY - 1) / EVERY;
	state = strtoull(argv[4], NULL, 10);
	n_changes = mmap(NULL, sizeof(*n_changes), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (n_changes == MAP_FAILED)
		stop(2, "mmap");
	claim_all();
	pid_t churner = fork();
	if (churner == 0)
		churn();
	while (*n_changes == 0 && waitpid(churner, NULL, WNOHANG) == 0)
		usleep(1000);
	size_t amid = list_many(atoi(argv[3]));
	if (waitpid(churner, NULL, WNOHANG) != 0)
		stop(2, "who changes has ended");
	kill(churner, SIGKILL);
	waitpid(churner, NULL, 0);
	if (amid == 0)
		wrong("the rest", "did not change meanwhile");
	printf("%s listings of %zu, %zu changes meanwhile\n", argv[3], n_stay,
	       amid);
	return 0;
}
