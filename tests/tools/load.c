/* SPDX-License-Identifier: MIT */
/* A load that knows what was acknowledged.
 *
 *   load run MNT DIR SEED WORKERS   works on keys until the mount dies
 *   load check MNT DIR WORKERS      after a restart: is all of it there?
 *
 * Each worker is a process with keys of its own, w<worker>-<number>, and a
 * journal DIR/w<worker>: before each operation a record of what is tried, after
 * it whether it was acknowledged. The records survive the daemon, not the
 * machine; that is what is tested. An operation that was tried and never
 * answered may have happened or not, anything else must be as acknowledged.
 *
 * Statuses: 0; 1 the check found a difference; 2 the tree answered what it must
 * not answer; 64 usage. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define N_KEYS	    40
#define MAX_WORKERS 16
#define NOTE_MAX    65536

enum op {
	OP_NONE,
	OP_CLAIM,
	OP_NOTE,
	OP_TAKE,
	OP_GIVE,
	OP_FINISH
};
static const char *const op_names[] = {"none", "claim", "note",
				       "take", "give",	"finish"};
enum where {
	ABSENT,
	OWNED,
	OFFERED,
	BACK
}; /* BACK: may be in either */

/* What a journal says of one key. Written as it is: the file never leaves the
 * machine, and its writer is its reader. */
struct key {
	uint32_t where;	    /* enum where, as acknowledged */
	uint32_t trying;    /* enum op under way, or OP_NONE */
	uint32_t note;	    /* number of the acknowledged note; 0: empty */
	uint32_t next_note; /* of the note under way */
	uint64_t token;	    /* as last seen by a check, 0: a new life since */
};

struct worker {
	const char *mnt;
	unsigned id;
	int journal;
	uint64_t random;
	struct key keys[N_KEYS];
};

static char note_buf[NOTE_MAX + 1], read_buf[NOTE_MAX + 1];

static uint64_t next_random(struct worker *w)
{
	uint64_t z = (w->random += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static void path_of(const struct worker *w, const char *dir, unsigned i,
		    char path[PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%s/%s/w%u-%u", w->mnt, dir, w->id, i);

	assert(n > 0 && n < PATH_MAX);
	(void)n;
}

/* The note numbered number of a key: its text tells both, its length varies. */
static size_t note_text(unsigned worker, unsigned i, uint32_t number)
{
	size_t len = 20 + number * 7919 % 500;

	if (number == 0)
		return 0;
	if (number % 17 == 0)
		len = NOTE_MAX;
	int n = snprintf(note_buf, sizeof(note_buf), "w%u-%u %" PRIu32 "\n",
			 worker, i, number);
	for (size_t at = (size_t)n; at < len; at++)
		note_buf[at] = (char)('a' + (at + number) % 26);
	return len;
}

static void journal_write(struct worker *w, unsigned i)
{
	off_t at = (off_t)(i * sizeof(struct key));

	if (pwrite(w->journal, &w->keys[i], sizeof(struct key), at) !=
	    sizeof(struct key)) {
		perror("load: journal");
		exit(2);
	}
}

static void journal_open(struct worker *w, const char *dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/w%u", dir, w->id);
	w->journal = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (w->journal < 0 ||
	    pread(w->journal, w->keys, sizeof(w->keys), 0) < 0) {
		perror("load: journal");
		exit(2);
	}
}

static int do_claim(struct worker *w, unsigned i)
{
	char path[PATH_MAX];

	path_of(w, "keys", i, path);
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int do_note(struct worker *w, unsigned i, uint32_t number)
{
	char path[PATH_MAX];
	size_t len = note_text(w->id, i, number);

	path_of(w, "owned", i, path);
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, note_buf, len);
	int rc = n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
	close(fd);
	return rc;
}

static int do_rename(struct worker *w, unsigned i, const char *from,
		     const char *to)
{
	char old[PATH_MAX], new[PATH_MAX];

	path_of(w, from, i, old);
	path_of(w, to, i, new);
	return rename(old, new) == 0 ? 0 : -errno;
}

static int do_finish(struct worker *w, unsigned i, const char *dir)
{
	char path[PATH_MAX];

	path_of(w, dir, i, path);
	return unlink(path) == 0 ? 0 : -errno;
}

static enum op choose(struct worker *w, const struct key *k)
{
	unsigned dice = (unsigned)(next_random(w) % 50);

	switch (k->where) {
	case ABSENT:
		return OP_CLAIM;
	case OWNED:
		return dice < 30 ? OP_NOTE : dice < 49 ? OP_FINISH : OP_GIVE;
	case OFFERED:
		return dice < 40 ? OP_TAKE : OP_FINISH;
	default:
		return OP_TAKE; /* given back: it comes when it comes */
	}
}

static int carry_out(struct worker *w, unsigned i, enum op op)
{
	struct key *k = &w->keys[i];

	switch (op) {
	case OP_CLAIM:
		return do_claim(w, i);
	case OP_NOTE:
		return do_note(w, i, k->next_note);
	case OP_TAKE:
		return do_rename(w, i, "recover", "owned");
	case OP_GIVE:
		return do_rename(w, i, "owned", "recover");
	case OP_FINISH:
		return do_finish(w, i, k->where == OWNED ? "owned" : "recover");
	default:
		return 0;
	}
}

static void acknowledged(struct key *k, enum op op)
{
	switch (op) {
	case OP_CLAIM:
		*k = (struct key){.where = OWNED};
		break;
	case OP_NOTE:
		k->note = k->next_note;
		break;
	case OP_TAKE:
		k->where = OWNED;
		break;
	case OP_GIVE:
		k->where = BACK;
		break;
	default:
		*k = (struct key){.where = ABSENT};
	}
	k->trying = OP_NONE;
}

static bool is_death(int rc)
{
	return rc == -ENOTCONN || rc == -ECONNABORTED || rc == -ENODEV;
}

/* The mount was detached: the folder below has no keys/. */
static bool is_detached(const struct worker *w)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/keys", w->mnt);
	return access(dir, F_OK) != 0;
}

/* One operation. False when the mount is dead. */
static bool step(struct worker *w)
{
	unsigned i = (unsigned)(next_random(w) % N_KEYS);
	struct key *k = &w->keys[i];
	enum op op = choose(w, k);

	k->trying = op;
	k->next_note = 1 + (uint32_t)(next_random(w) % 1000000);
	journal_write(w, i);
	int rc = carry_out(w, i, op);
	if (is_death(rc) || (rc == -ENOENT && is_detached(w)))
		return false;
	if (k->where == BACK && rc == -ENOENT) {
		k->trying = OP_NONE; /* its back-off goes on */
	} else if (rc == 0) {
		acknowledged(k, op);
	} else {
		printf("%s of w%u-%u: %s\n", op_names[op], w->id, i,
		       strerror(-rc));
		exit(2);
	}
	journal_write(w, i);
	return true;
}

static int run(const char *mnt, const char *dir, uint64_t seed, unsigned n)
{
	int worst = 0, status;

	for (unsigned id = 0; id < n; id++) {
		if (fork() != 0)
			continue;
		struct worker w = {
			.mnt = mnt, .id = id, .random = seed * 1000 + id};
		journal_open(&w, dir);
		while (step(&w))
			;
		exit(0);
	}
	while (wait(&status) > 0)
		if (!WIFEXITED(status) || WEXITSTATUS(status) > worst)
			worst = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
	return worst;
}

/* ---- The check ---- */

static unsigned n_bad;

#define bad(w, i, ...)                                                         \
	do {                                                                   \
		printf("w%u-%u: ", (w)->id, (i));                              \
		printf(__VA_ARGS__);                                           \
		printf(" (acknowledged: %u, trying: %s)\n",                    \
		       (w)->keys[i].where, op_names[(w)->keys[i].trying]);     \
		n_bad++;                                                       \
	} while (0)

static ssize_t read_note(const struct worker *w, const char *dir, unsigned i)
{
	char path[PATH_MAX];

	path_of(w, dir, i, path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n, got = 0;
	while ((n = read(fd, read_buf + got, sizeof(read_buf) - (size_t)got)) >
	       0)
		got += n;
	close(fd);
	return n < 0 ? -errno : got;
}

static bool has_note(const struct worker *w, unsigned i, size_t len,
		     uint32_t number)
{
	return note_text(w->id, i, number) == len &&
	       memcmp(note_buf, read_buf, len) == 0;
}

static uint64_t token_of(const struct worker *w, unsigned i)
{
	char path[PATH_MAX], text[32] = "";

	path_of(w, "recover", i, path);
	if (getxattr(path, "user.ring.token", text, sizeof(text) - 1) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

/* The key is there: settle what is known of it now. */
static void check_present(struct worker *w, unsigned i, size_t len)
{
	struct key *k = &w->keys[i];
	uint64_t token = token_of(w, i);

	if (k->where == ABSENT && k->trying != OP_CLAIM)
		bad(w, i, "finished, and there again");
	if (k->trying == OP_NOTE && has_note(w, i, len, k->next_note))
		k->note = k->next_note;
	else if (k->trying == OP_NOTE && len == 0)
		k->note = 0; /* truncated by the open */
	else if (!has_note(w, i, len, k->note))
		bad(w, i, "has not note %" PRIu32 " but %zu other bytes",
		    k->note, len);
	if (token == 0 || token < k->token)
		bad(w, i, "token %" PRIu64 " after %" PRIu64, token, k->token);
	k->token = token;
	k->where = OFFERED;
}

static void check_key(struct worker *w, unsigned i)
{
	struct key *k = &w->keys[i];
	ssize_t len = read_note(w, "recover", i);
	ssize_t in_keys = read_note(w, "keys", i);
	bool given = k->where == BACK || k->trying == OP_GIVE;

	if (given && len == -ENOENT && in_keys >= 0) {
		k->where = BACK;
		k->trying = OP_NONE;
		journal_write(w, i);
		return;
	}
	if ((len < 0) != (in_keys < 0))
		bad(w, i, "recover says %zd, keys says %zd", len, in_keys);
	if (read_note(w, "owned", i) != -ENOENT)
		bad(w, i, "is in owned after a restart");
	if (len >= 0) {
		len = read_note(w, "recover", i);
		check_present(w, i, (size_t)len);
	} else {
		if (k->where != ABSENT && k->trying != OP_FINISH)
			bad(w, i, "is lost: %s", strerror((int)-len));
		*k = (struct key){.where = ABSENT};
	}
	k->trying = OP_NONE;
	journal_write(w, i);
}

/* Does recover/ list just the keys found one by one? Of those in a back-off,
 * some may have come since. */
static void check_listing(const char *mnt, unsigned want, unsigned n_back)
{
	char path[PATH_MAX];
	unsigned got = 0;
	struct dirent *e;

	snprintf(path, sizeof(path), "%s/recover", mnt);
	DIR *dir = opendir(path);
	if (!dir) {
		perror(path);
		exit(2);
	}
	while ((e = readdir(dir)) != NULL)
		got += e->d_name[0] != '.';
	closedir(dir);
	if (got < want || got > want + n_back) {
		printf("recover lists %u keys, want %u and at most %u more\n",
		       got, want, n_back);
		n_bad++;
	}
}

static int check(const char *mnt, const char *dir, unsigned n)
{
	unsigned n_offered = 0, n_back = 0;

	for (unsigned id = 0; id < n; id++) {
		struct worker w = {.mnt = mnt, .id = id};
		journal_open(&w, dir);
		for (unsigned i = 0; i < N_KEYS; i++) {
			check_key(&w, i);
			n_offered += w.keys[i].where == OFFERED;
			n_back += w.keys[i].where == BACK;
		}
		close(w.journal);
	}
	check_listing(mnt, n_offered, n_back);
	printf("# %u keys offered, %u in a back-off\n", n_offered, n_back);
	return n_bad != 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "run") == 0) {
		unsigned n = (unsigned)strtoul(argv[5], NULL, 10);
		uint64_t seed = strtoull(argv[4], NULL, 10);

		if (n > 0 && n <= MAX_WORKERS)
			return run(argv[2], argv[3], seed, n);
	} else if (argc == 5 && strcmp(argv[1], "check") == 0) {
		unsigned n = (unsigned)strtoul(argv[4], NULL, 10);

		if (n > 0 && n <= MAX_WORKERS)
			return check(argv[2], argv[3], n);
	}
	fprintf(stderr, "usage: load run MNT DIR SEED WORKERS\n"
			"       load check MNT DIR WORKERS\n");
	return 64;
}
