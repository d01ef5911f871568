/* SPDX-License-Identifier: MIT */
/* What a node's users do, and what they were told: a history to be checked.
 *
 *   history run NODE MNT FILE SEED KEYS THREADS   until SIGTERM
 *   history last NODE MNT FILE KEYS               how each key is in the end
 *   history clean MNT...                          finish all, 0 when none is left
 *
 * Threads work on the keys k0 to k<KEYS - 1> through the mount, whatever comes of
 * it; one more looks at what the mount lists. The mount may die, hang and come
 * back. FILE gets a line for each operation that has ended:
 *
 *	BEGIN END NODE WHAT KEY ERRNO TOKEN TEXT
 *
 * with CLOCK_MONOTONIC in nanoseconds, 0 for "it succeeded", and "-" for no text.
 * What is still under way 30 s after SIGTERM is a line `hung`. history_check.c
 * says what WHAT may be, and what must hold. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define KEYS_MAX    1000
#define THREADS_MAX 32
#define NAME_SIZE   32
#define NOTE_SIZE   32 /* what tells a note from the others, at its begin */
#define NOTE_LONG   20000
#define BATCH_MAX   8
#define DRAIN_S	    30
#define TICK_US	    20000
#define STALL_NS    500000000

/* An operation: where it began, and what it is of. */
struct op {
	const char *what;
	char key[NAME_SIZE];
	char text[NOTE_SIZE + 1];
	uint64_t begin, token;
};

struct worker {
	unsigned id;
	pthread_t thread;
	uint64_t random, n_notes;
	pthread_mutex_t lock; /* of now and busy: main() reads them */
	struct op now;
	bool busy, ended;
};

static const char *node, *mnt;
static int out_fd;
static unsigned n_keys;
static volatile sig_atomic_t stopping;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void sleep_us(unsigned us)
{
	struct timespec ts = {.tv_sec = us / 1000000,
			      .tv_nsec = us % 1000000 * 1000L};

	nanosleep(&ts, NULL);
}

static unsigned dice(struct worker *w, unsigned sides)
{
	uint64_t z = (w->random += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (unsigned)((z ^ (z >> 31)) % sides);
}

static void path_of(const char *dir, const char *key, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s/%s", mnt, dir, key);
}

/* ---- The history ---- */

/* One write a line: threads and programs share the file. */
static void put(const struct op *op, uint64_t end, int rc)
{
	char line[512];
	int n = snprintf(line, sizeof(line),
			 "%" PRIu64 " %" PRIu64 " %s %s %s %d %" PRIu64 " %s\n",
			 op->begin, end, node, op->what,
			 op->key[0] != '\0' ? op->key : "-", rc, op->token,
			 op->text[0] != '\0' ? op->text : "-");

	if (write(out_fd, line, (size_t)n) != n) {
		perror("history: write");
		exit(2);
	}
}

static struct op *begin(struct worker *w, const char *what, const char *key)
{
	pthread_mutex_lock(&w->lock);
	w->now = (struct op){.what = what};
	snprintf(w->now.key, sizeof(w->now.key), "%s", key);
	w->busy = true;
	w->now.begin = now_ns();
	pthread_mutex_unlock(&w->lock);
	return &w->now;
}

/* rc: what the call gave, errno as it left it. Gives 0 or the errno. */
static int end(struct worker *w, long rc)
{
	int err = rc < 0 ? errno : 0;
	uint64_t at = now_ns();

	pthread_mutex_lock(&w->lock);
	w->busy = false;
	put(&w->now, at, err);
	pthread_mutex_unlock(&w->lock);
	return err;
}

static void discard(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->busy = false;
	pthread_mutex_unlock(&w->lock);
}

/* ---- Changes ---- */

/* Write a note of its own through fd; now and then a long one. */
static int write_note(struct worker *w, int fd, const char *key)
{
	static _Thread_local char bytes[NOTE_LONG];
	size_t len = dice(w, 30) == 0 ? NOTE_LONG : NOTE_SIZE;
	struct op *op = begin(w, "note", key);
	int n = snprintf(op->text, sizeof(op->text), "%s-%u-%" PRIu64, node,
			 w->id, ++w->n_notes);

	memset(bytes, '.', len);
	memcpy(bytes, op->text, (size_t)n);
	bytes[n] = '\n';
	return end(w, pwrite(fd, bytes, len, 0));
}

/* claim or submit, by the directory that creates. */
static void create(struct worker *w, const char *dir, const char *what,
		   const char *key)
{
	char path[PATH_MAX];

	path_of(dir, key, path);
	begin(w, what, key);
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

	if (end(w, fd) != 0)
		return;
	if (dice(w, 4) != 0)
		write_note(w, fd, key);
	close(fd);
}

static void note(struct worker *w, const char *key)
{
	char path[PATH_MAX];

	path_of("owned", key, path);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	write_note(w, fd, key);
	close(fd);
}

static int move(struct worker *w, const char *what, const char *key,
		const char *from, const char *to)
{
	char old[PATH_MAX], new[PATH_MAX];

	path_of(from, key, old);
	path_of(to, key, new);
	begin(w, what, key);
	return end(w, rename(old, new));
}

static void remove_key(struct worker *w, const char *what, const char *dir,
		       const char *key)
{
	char path[PATH_MAX];

	path_of(dir, key, path);
	begin(w, what, key);
	end(w, unlink(path));
}

/* The word of an answer of ctl. What is not known is an unknown outcome. */
static int errno_of(const char *word)
{
	static const struct {
		const char *word;
		int err;
	} table[] = {
		{"ok", 0},
		{"EEXIST", EEXIST},
		{"ENOENT", ENOENT},
		{"EREMOTE", EREMOTE},
		{"EROFS", EROFS},
		{"EAGAIN", EAGAIN},
		{"ENOSPC", ENOSPC},
		{"EBUSY", EBUSY},
		{"ETIMEDOUT", ETIMEDOUT},
		{"EINTR", EINTR},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(table[i].word, word) == 0)
			return table[i].err;
	return ETIMEDOUT;
}

/* The answers, a line for each name in the order asked; "" where there is none.
 * Gives 0 or the errno that is the answer to all of them. */
static int batch_answers(int fd, char words[BATCH_MAX][NAME_SIZE])
{
	char text[4096], key[NAME_SIZE];
	size_t len = 0;
	ssize_t n = 0;

	while (len < sizeof(text) - 1 &&
	       (n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return errno;
	text[len] = '\0';
	char *line = text, *next;

	for (unsigned i = 0; i < BATCH_MAX; i++, line = next + 1) {
		next = strchr(line, '\n');
		if (next == NULL)
			return 0;
		*next = '\0';
		if (sscanf(line, "%31s %31s", words[i], key) != 2)
			words[i][0] = '\0';
	}
	return 0;
}

/* A batch through ctl: each of its names is an operation of its own. */
static void batch(struct worker *w, const char *verb)
{
	char words[BATCH_MAX][NAME_SIZE] = {{0}}, text[1024], path[PATH_MAX];
	unsigned keys[BATCH_MAX], n = 1 + dice(w, BATCH_MAX);
	int len = snprintf(text, sizeof(text), "%s\n", verb);

	/* All different. */
	for (unsigned i = 0, at = dice(w, n_keys); i < n; i++, at++) {
		keys[i] = at % n_keys;
		len += snprintf(text + len, sizeof(text) - (size_t)len, "k%u\n",
				keys[i]);
	}
	snprintf(path, sizeof(path), "%s/ctl", mnt);
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	begin(w, "batch", "-");
	int err = write(fd, text, (size_t)len) == len ? batch_answers(fd, words)
						      : errno;
	uint64_t at = now_ns();

	pthread_mutex_lock(&w->lock);
	w->busy = false;
	for (unsigned i = 0; i < n; i++) {
		struct op op = {.what = verb, .begin = w->now.begin};

		snprintf(op.key, sizeof(op.key), "k%u", keys[i]);
		put(&op, at, err != 0 ? err : errno_of(words[i]));
	}
	pthread_mutex_unlock(&w->lock);
	close(fd);
}

/* ---- Looking ---- */

/* The begin of the note, as it says who wrote it. */
static void read_note(struct worker *w, const char *dir, const char *key)
{
	char path[PATH_MAX], text[NOTE_SIZE + 1] = "";

	path_of(dir, key, path);
	struct op *op = begin(w, "read", key);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, NOTE_SIZE);
	int err = errno;

	if (n > 0)
		sscanf(text, "%32s", op->text);
	if (fd >= 0)
		close(fd);
	errno = err;
	end(w, n);
}

static bool token_of(const char *path, uint64_t *token)
{
	char text[32];
	ssize_t n = getxattr(path, "user.ring.token", text, sizeof(text) - 1);

	if (n <= 0)
		return false;
	text[n] = '\0';
	*token = strtoull(text, NULL, 10);
	return true;
}

/* Shown here with a token: the lookup of the second reading was between the two
 * readings, and tokens only rise. */
static void see(struct worker *w, const char *dir, const char *key)
{
	char path[PATH_MAX];
	uint64_t first, second;

	path_of(dir, key, path);
	if (!token_of(path, &first))
		return;
	struct op *op = begin(w, "see", key);

	if (token_of(path, &second) && first == second) {
		op->token = first;
		snprintf(op->text, sizeof(op->text), "%s", dir);
		end(w, 0);
	} else {
		discard(w);
	}
}

/* The names in dir; one of them at random is put in key. With what, each is an
 * operation. False when there is none. */
static bool list(struct worker *w, const char *what, const char *dir,
		 char key[NAME_SIZE])
{
	char path[PATH_MAX];
	static _Thread_local char names[KEYS_MAX][NAME_SIZE];
	unsigned n = 0;

	snprintf(path, sizeof(path), "%s/%s", mnt, dir);
	begin(w, "list", "-");
	uint64_t at = w->now.begin;
	DIR *d = opendir(path);

	for (struct dirent *e;
	     d != NULL && n < KEYS_MAX && (e = readdir(d)) != NULL;)
		if (e->d_name[0] != '.')
			snprintf(names[n++], NAME_SIZE, "%.31s", e->d_name);
	if (d != NULL)
		closedir(d);
	discard(w);
	uint64_t until = now_ns();

	for (unsigned i = 0; what != NULL && i < n; i++) {
		struct op op = {.what = what, .begin = at};

		memcpy(op.key, names[i], NAME_SIZE);
		put(&op, until, 0);
	}
	if (n > 0)
		memcpy(key, names[dice(w, n)], NAME_SIZE);
	return n > 0;
}

/* The index and the machine's hash there. */
static void hash(struct worker *w)
{
	char path[PATH_MAX], text[64] = "", value[33];
	uint64_t index;

	snprintf(path, sizeof(path), "%s/status/hash", mnt);
	struct op *op = begin(w, "hash", "-");
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 ||
	    sscanf(text, "%" SCNu64 " %32s", &index, value) != 2) {
		discard(w);
	} else {
		op->token = index;
		memcpy(op->text, value, sizeof(value));
		end(w, 0);
	}
	if (fd >= 0)
		close(fd);
}

/* ---- Threads ---- */

static void work_on_owned(struct worker *w, const char *key)
{
	unsigned d = dice(w, 20);

	if (d < 5)
		note(w, key);
	else if (d < 7)
		read_note(w, "owned", key);
	else if (d < 8)
		move(w, "give", key, "owned", "recover");
	else if (d < 9)
		move(w, "park", key, "owned", "parked");
	else
		remove_key(w, "finish", d < 14 ? "owned" : "keys", key);
}

static void work_on_offered(struct worker *w, const char *key)
{
	unsigned d = dice(w, 20);

	if (d < 4)
		read_note(w, "recover", key);
	if (d < 17)
		move(w, "take", key, "recover", "owned");
	else if (d < 18)
		move(w, "park", key, "recover", "parked");
	else
		remove_key(w, "finish", "recover", key);
}

static void work_on_parked(struct worker *w, const char *key)
{
	if (dice(w, 2) == 0)
		move(w, "retry", key, "parked", "recover");
	else
		remove_key(w, "finish", "parked", key);
}

static void step(struct worker *w)
{
	char key[NAME_SIZE];
	unsigned d = dice(w, 100);

	snprintf(key, sizeof(key), "k%u", dice(w, n_keys));
	if (d < 30) {
		create(w, "keys", "claim", key);
	} else if (d < 34) {
		create(w, "submit", "submit", key);
	} else if (d < 65) {
		if (list(w, NULL, "owned", key))
			work_on_owned(w, key);
	} else if (d < 85) {
		if (list(w, NULL, "recover", key))
			work_on_offered(w, key);
	} else if (d < 88) {
		if (list(w, NULL, "parked", key))
			work_on_parked(w, key);
	} else if (d < 92) {
		if (list(w, NULL, "release", key))
			remove_key(w, "let", "release", key);
	} else {
		batch(w, d < 97 ? "claim" : "finish");
	}
	sleep_us(dice(w, 20000));
}

static void look(struct worker *w)
{
	static const char *const dirs[] = {"owned", "recover"};
	char key[NAME_SIZE];

	for (unsigned i = 0; i < 2; i++)
		if (list(w, dirs[i], dirs[i], key))
			see(w, dirs[i], key);
	hash(w);
	sleep_us(10000 + dice(w, 20000));
}

static void *run_worker(void *data)
{
	struct worker *w = data;

	while (!stopping) {
		struct stat st;
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/keys", mnt);
		begin(w, "stat", "-");
		int rc = stat(path, &st);

		discard(w);
		if (rc != 0) /* nothing is mounted there */
			sleep_us(50000);
		else if (w->id == 0)
			look(w);
		else
			step(w);
	}
	pthread_mutex_lock(&w->lock);
	w->ended = true;
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void on_term(int sig)
{
	if (sig == SIGTERM)
		stopping = 1;
}

static void handle_signals(void)
{
	struct sigaction sa = {.sa_handler = on_term};

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
}

/* Callers are interrupted now and then: some calls must end with EINTR. And who
 * sleeps too long himself cannot say of others that they do: a `stall`. */
static void interrupt_some(struct worker *w, unsigned n, struct worker *self)
{
	uint64_t due = now_ns();

	while (!stopping) {
		struct op op = {.what = "stall", .begin = now_ns()};

		sleep_us(TICK_US);
		if (now_ns() > op.begin + STALL_NS)
			put(&op, now_ns(), 0);
		if (n < 2 || now_ns() < due)
			continue;
		pthread_kill(w[1 + dice(self, n - 1)].thread, SIGUSR1);
		due = now_ns() + (200 + dice(self, 600)) * UINT64_C(1000000);
	}
}

/* False when some have not ended DRAIN_S later: each is told of. */
static bool all_ended(struct worker *w, unsigned n)
{
	uint64_t until = now_ns() + DRAIN_S * UINT64_C(1000000000);
	unsigned left;

	do {
		left = 0;
		for (unsigned i = 0; i < n; i++) {
			pthread_mutex_lock(&w[i].lock);
			left += !w[i].ended;
			pthread_mutex_unlock(&w[i].lock);
		}
		sleep_us(10000);
	} while (left > 0 && now_ns() < until);
	for (unsigned i = 0; i < n && left > 0; i++) {
		struct op op = {.what = "hung", .begin = now_ns()};

		pthread_mutex_lock(&w[i].lock);
		if (w[i].busy) {
			op = w[i].now;
			snprintf(op.text, sizeof(op.text), "%s", op.what);
			op.what = "hung";
		}
		if (!w[i].ended)
			put(&op, now_ns(), 0);
		pthread_mutex_unlock(&w[i].lock);
	}
	return left == 0;
}

static int run(unsigned n, uint64_t seed)
{
	static struct worker workers[THREADS_MAX + 1];
	struct worker self = {.random = seed ^ 0x5eed};

	handle_signals();
	for (unsigned i = 0; i <= n; i++) {
		struct worker *w = &workers[i];

		w->id = i;
		w->random = seed * 1000 + i;
		pthread_mutex_init(&w->lock, NULL);
		if (pthread_create(&w->thread, NULL, run_worker, w) != 0) {
			perror("history: thread");
			return 2;
		}
	}
	interrupt_some(workers, n + 1, &self);
	_exit(all_ended(workers, n + 1) ? 0 : 1);
}

/* ---- In the end ---- */

/* `last`: a line for each key, with its note, token, holder and state; ENOENT
 * where it is not. `shown`: one for each directory that shows it. */
static int last(void)
{
	static const char *const dirs[] = {"owned", "recover", "parked"};
	struct worker w = {.id = 0};
	struct stat st;

	pthread_mutex_init(&w.lock, NULL);
	for (unsigned i = 0; i < n_keys; i++) {
		char path[PATH_MAX], key[NAME_SIZE], text[NOTE_SIZE + 1] = "";

		snprintf(key, sizeof(key), "k%u", i);
		path_of("keys", key, path);
		struct op *op = begin(&w, "last", key);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		int err = errno;

		if (fd >= 0 && read(fd, text, NOTE_SIZE) > 0)
			sscanf(text, "%32s", op->text);
		token_of(path, &op->token);
		if (fd >= 0)
			close(fd);
		errno = err;
		end(&w, fd);
		for (unsigned d = 0; d < 3; d++) {
			path_of(dirs[d], key, path);
			op = begin(&w, "shown", key);
			snprintf(op->text, sizeof(op->text), "%s", dirs[d]);
			if (stat(path, &st) == 0)
				end(&w, 0);
			else
				discard(&w);
		}
	}
	return 0;
}

static unsigned clean_dir(const char *dir)
{
	char path[PATH_MAX];
	unsigned n = 0;

	snprintf(path, sizeof(path), "%s/%s", mnt, dir);
	DIR *d = opendir(path);

	for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
		if (e->d_name[0] == '.')
			continue;
		path_of(dir, e->d_name, path);
		unlink(path);
		n++;
	}
	if (d != NULL)
		closedir(d);
	return n;
}

/* What is given back is not shown for a while: the caller tries again. */
static int clean(char **mounts, int n)
{
	static const char *const dirs[] = {"owned", "recover", "parked",
					   "keys"};
	unsigned left = 0;

	for (int i = 0; i < n; i++) {
		mnt = mounts[i];
		for (unsigned d = 0; d < 3; d++)
			clean_dir(dirs[d]);
	}
	for (int i = 0; i < n; i++) {
		mnt = mounts[i];
		left += clean_dir("keys");
	}
	return left == 0 ? 0 : 1;
}

static int usage(void)
{
	fputs("Usage: history run NODE MNT FILE SEED KEYS THREADS\n"
	      "       history last NODE MNT FILE KEYS\n"
	      "       history clean MNT...\n",
	      stderr);
	return 64;
}

static unsigned number(const char *text, unsigned max)
{
	unsigned long n = strtoul(text, NULL, 10);

	if (n < 1 || n > max)
		exit(usage());
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && strcmp(argv[1], "clean") == 0)
		return clean(argv + 2, argc - 2);
	bool is_run = argc == 8 && strcmp(argv[1], "run") == 0;

	if (!is_run && !(argc == 6 && strcmp(argv[1], "last") == 0))
		return usage();
	node = argv[2];
	mnt = argv[3];
	n_keys = number(argv[is_run ? 6 : 5], KEYS_MAX);
	out_fd = open(argv[4], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (out_fd < 0) {
		perror(argv[4]);
		return 2;
	}
	if (!is_run)
		return last();
	return run(number(argv[7], THREADS_MAX), strtoull(argv[5], NULL, 10));
}
