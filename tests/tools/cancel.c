/* SPDX-License-Identifier: MIT */
/* Callers that are interrupted and killed in the middle of their calls.
 *
 *   cancel MNT SEED ROUNDS WORKERS
 *
 * Each worker starts ROUNDS callers, one after another, each with one operation
 * on keys of the worker's own, and sends INT or KILL after a random time. None
 * may go on for a second after it; the longest is printed. In the end, without
 * a load:
 *   a claim that was answered with an error shows no key, anywhere
 *   a key that was acknowledged, and that nobody tried to finish, is there
 *   what a killed caller asked for happened or not, but whole
 * and all that is left is finished.
 *
 * Statuses: 0; 1 one of these is not so; 64 usage. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 64
#define MAX_KEYS    4096
#define BATCH	    20
#define LIMIT_US    1000000
#define DELAY_US    12000 /* the longest until the signal */
#define SETTLE_S    10

enum op {
	OP_CLAIM,
	OP_BATCH,
	OP_NOTE,
	OP_FINISH,
	OP_GIVE,
	OP_TAKE,
	OP_SYNC,
	OP_READ,
	N_OPS
};

enum where {
	UNKNOWN,
	ABSENT,
	PRESENT
};

/* What the caller leaves for its worker. */
struct said {
	bool done;
	int error;
};

struct worker {
	const char *mnt;
	unsigned number, n_keys;
	uint8_t where[MAX_KEYS];
	struct said *said; /* shared with the caller */
	uint64_t longest_us;
	unsigned n_interrupted, n_killed;
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static char *path_of(const struct worker *w, const char *dir, unsigned key)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/%s/c%u-%u", w->mnt, dir, w->number,
		 key);
	return path;
}

/* ---- The caller ---- */

static int do_write(const char *path, int flags)
{
	char note[600];
	int fd = open(path, flags, 0644), error = fd < 0 ? errno : 0;

	memset(note, 'n', sizeof(note));
	if (fd >= 0 && write(fd, note, sizeof(note)) < 0 &&
	    !(flags & O_EXCL)) /* claimed is claimed */
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

/* 0 if all of the batch's names were claimed. */
static int do_batch(const struct worker *w, unsigned key)
{
	char text[4096] = "claim\n", path[4096];
	size_t n = strlen(text);

	for (unsigned i = 0; i < BATCH; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "c%u-%u\n",
				      w->number, key + i);
	snprintf(path, sizeof(path), "%s/ctl", w->mnt);
	int fd = open(path, O_RDWR);
	int error = fd < 0 || write(fd, text, n) < 0 ? errno : 0;
	ssize_t got = error == 0 ? read(fd, text, sizeof(text) - 1) : 0;

	if (got < 0)
		error = errno;
	text[got > 0 ? got : 0] = '\0';
	if (error == 0 && strncmp(text, "ok ", 3) != 0)
		error = EPROTO;
	if (fd >= 0)
		close(fd);
	return error;
}

static int do_read(const struct worker *w, unsigned key)
{
	char bytes[4096];
	struct stat st;
	int fd = open(path_of(w, "keys", key), O_RDONLY);

	while (fd >= 0 && read(fd, bytes, sizeof(bytes)) > 0)
		;
	if (fd >= 0)
		close(fd);
	return stat(path_of(w, "recover", key), &st) != 0 ? errno : 0;
}

static int do_sync(const struct worker *w)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/keys", w->mnt);
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	int error = fd < 0 || fsync(fd) != 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	return error;
}

static int do_rename(const struct worker *w, const char *from, const char *to,
		     unsigned key)
{
	char *old = strdup(path_of(w, from, key));
	int error = rename(old, path_of(w, to, key)) != 0 ? errno : 0;

	free(old);
	return error;
}

static int do_op(const struct worker *w, enum op op, unsigned key)
{
	switch (op) {
	case OP_CLAIM:
		return do_write(path_of(w, "keys", key),
				O_WRONLY | O_CREAT | O_EXCL);
	case OP_BATCH:
		return do_batch(w, key);
	case OP_NOTE:
		return do_write(path_of(w, "owned", key), O_WRONLY | O_TRUNC);
	case OP_FINISH:
		return unlink(path_of(w, "keys", key)) != 0 ? errno : 0;
	case OP_GIVE:
		return do_rename(w, "owned", "parked", key);
	case OP_TAKE:
		return do_rename(w, "parked", "recover", key);
	case OP_SYNC:
		return do_sync(w);
	default:
		return do_read(w, key);
	}
}

/* ---- The worker ---- */

static void on_interrupt(int number)
{
	(void)number; /* it has ended a call; that is all it is for */
}

/* Start a caller, stop it, and wait for its end. */
static bool run_caller(struct worker *w, enum op op, unsigned key)
{
	int number = rand() % 2 ? SIGINT : SIGKILL;

	*w->said = (struct said){0};
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (pid == 0) {
		w->said->error = do_op(w, op, key);
		w->said->done = true;
		_exit(0);
	}
	usleep((useconds_t)(rand() % DELAY_US));
	kill(pid, number);
	uint64_t begin = now_us();

	while (waitpid(pid, NULL, 0) < 0)
		assert(errno == EINTR);
	uint64_t took = now_us() - begin;

	if (took > w->longest_us)
		w->longest_us = took;
	w->n_killed += !w->said->done;
	w->n_interrupted += w->said->done && w->said->error == EINTR;
	if (took > LIMIT_US)
		fprintf(stderr, "operation %d took %" PRIu64 " us to end\n",
			(int)op, took);
	return took <= LIMIT_US;
}

static void note_result(struct worker *w, enum op op, unsigned key)
{
	enum where where = UNKNOWN;
	unsigned n = op == OP_BATCH ? BATCH : 1;

	if (op != OP_CLAIM && op != OP_BATCH && op != OP_FINISH)
		return;
	if (w->said->done && op == OP_FINISH) /* an error leaves a doubt */
		where = w->said->error == 0 ? ABSENT : UNKNOWN;
	else if (w->said->done)
		where = w->said->error == 0 ? PRESENT : ABSENT;
	for (unsigned i = 0; i < n; i++)
		w->where[key + i] = (uint8_t)where;
	if (op != OP_FINISH)
		w->n_keys += n;
}

static bool one_round(struct worker *w)
{
	enum op op = (enum op)(rand() % N_OPS);
	unsigned key = w->n_keys;

	if (w->n_keys == 0 && op != OP_BATCH)
		op = OP_CLAIM;
	if (op != OP_CLAIM && op != OP_BATCH)
		key = (unsigned)rand() % w->n_keys;
	if (key + BATCH > MAX_KEYS)
		return true;
	bool ok = run_caller(w, op, key);

	note_result(w, op, key);
	return ok;
}

/* Everything as it must be, or on its way there? */
static bool is_settled(const struct worker *w, unsigned key, bool tell)
{
	bool there = access(path_of(w, "keys", key), F_OK) == 0;
	bool held = access(path_of(w, "owned", key), F_OK) == 0 ||
		    access(path_of(w, "recover", key), F_OK) == 0 ||
		    access(path_of(w, "parked", key), F_OK) == 0;
	enum where where = (enum where)w->where[key];
	bool ok = there == held &&
		  (where == UNKNOWN || there == (where == PRESENT));

	if (!ok && tell)
		fprintf(stderr, "c%u-%u: expected %s, is %s in keys, %s held\n",
			w->number, key,
			where == PRESENT  ? "there"
			: where == ABSENT ? "absent"
					  : "anything",
			there ? "there" : "not", held ? "is" : "is not");
	return ok;
}

static bool check_keys(const struct worker *w)
{
	uint64_t end = now_us() + SETTLE_S * 1000000u;
	bool ok = true;

	for (unsigned key = 0; key < w->n_keys; key++) {
		while (!is_settled(w, key, false) && now_us() < end)
			usleep(10000);
		ok = is_settled(w, key, true) && ok;
		if (unlink(path_of(w, "keys", key)) != 0 && errno != ENOENT) {
			perror(path_of(w, "keys", key));
			ok = false;
		}
	}
	return ok;
}

static int run_worker(struct worker *w, unsigned seed, unsigned rounds)
{
	bool ok = true;

	srand(seed + w->number);
	w->said = mmap(NULL, sizeof(*w->said), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w->said == MAP_FAILED)
		return 1;
	for (unsigned i = 0; i < rounds && ok; i++)
		ok = one_round(w);
	ok = check_keys(w) && ok;
	printf("worker %u: %u keys, %u interrupted, %u killed, longest %" PRIu64
	       " us\n",
	       w->number, w->n_keys, w->n_interrupted, w->n_killed,
	       w->longest_us);
	return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
	const struct sigaction action = {.sa_handler = on_interrupt};
	unsigned n = argc == 5 ? (unsigned)atoi(argv[4]) : 0;
	int status, rc = 0;

	if (n < 1 || n > MAX_WORKERS) {
		fprintf(stderr, "usage: cancel MNT SEED ROUNDS WORKERS\n");
		return 64;
	}
	sigaction(SIGINT, &action, NULL);
	for (unsigned i = 0; i < n; i++) {
		struct worker w = {.mnt = argv[1], .number = i};
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0)
			exit(run_worker(&w, (unsigned)atoi(argv[2]),
					(unsigned)atoi(argv[3])));
	}
	while (wait(&status) > 0)
		if (status != 0)
			rc = 1;
	return rc;
}
