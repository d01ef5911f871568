/* SPDX-License-Identifier: MIT */
#include "fs/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "fs/log.h"
#include "fs/place.h"
#include "fs/util.h"

#define FILE_MAX    256 /* bytes; no file of ours is longer */
#define DAMAGED_HOW "restore it from a backup, or move it away to start anew"

/* A state while it is opened. */
struct opening {
	const char *dir; /* as given */
	const struct state_wish *wish;
	int fd;
	char *errmsg;
};

static int __attribute__((format(printf, 3, 4)))
refuse(const struct opening *o, int rc, const char *format, ...)
{
	va_list args;

	assert(rc < 0);
	va_start(args, format);
	vsnprintf(o->errmsg, RING_ERRMSG_SIZE, format, args);
	va_end(args);
	return rc;
}

static int refuse_file(const struct opening *o, int rc, const char *name)
{
	if (rc == -ENOSPC || rc == -EDQUOT)
		return refuse(o, rc,
			      "no space is left to write '%.300s/%s'; make "
			      "room and start again",
			      o->dir, name);
	return refuse(o, rc, "cannot use '%.300s/%s': %s", o->dir, name,
		      strerror(-rc));
}

/* ---- Bytes of a file ---- */

/* 0, or -EFBIG for a file that is none of ours. */
static int read_file(int dir_fd, const char *name, char out[FILE_MAX],
		     size_t *len)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int rc = 0;

	if (fd < 0)
		return -errno;
	*len = 0;
	while (*len < FILE_MAX) {
		ssize_t n = read(fd, out + *len, FILE_MAX - *len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = -errno;
		if (n <= 0)
			break;
		*len += (size_t)n;
	}
	close(fd);
	return rc == 0 && *len == FILE_MAX ? -EFBIG : rc;
}

/* After a crash at any instant there is the old file or the new one. */
static int replace_file(int dir_fd, const char *name, const char *bytes,
			size_t n)
{
	char new[32];

	snprintf(new, sizeof(new), "%s.new", name);
	int fd = openat(dir_fd, new,
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
			0600);
	if (fd < 0)
		return -errno;
	int rc = write_all(fd, bytes, n);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (close(fd) < 0 && rc == 0)
		rc = -errno;
	if (rc == 0 && renameat(dir_fd, new, dir_fd, name) < 0)
		rc = -errno;
	if (rc < 0) {
		unlinkat(dir_fd, new, 0);
		return rc;
	}
	return fsync(dir_fd) < 0 ? -errno : 0;
}

/* ---- What the files say ----
 *
 *   identity   "format 1\n", or "format 2\n": the cluster was joined
 *              "cluster " 32 hex digits "\n"
 *              "node " 32 hex digits "\n"
 *              "check " 16 hex digits "\n"
 *   boot       "boot " 1 to 20 digits "\n"
 *              "check " 16 hex digits "\n"
 *
 *   place      "files " 16 hex digits "\n"
 *              "machine " 16 hex digits "\n"; zeros: it is not known
 *              "check " 16 hex digits "\n"
 *
 * check is XXH3_64bits of all bytes before its line. Digits are lower case; a
 * file that differs in any byte from what would be written is damaged. */

struct scan {
	const char *bytes;
	size_t len, at; /* at: of the first byte that is wrong, when one is */
	bool bad;
};

static void scan_word(struct scan *s, const char *word)
{
	for (; *word != '\0' && !s->bad; word++)
		if (s->at < s->len && s->bytes[s->at] == *word)
			s->at++;
		else
			s->bad = true;
}

static uint8_t scan_digit(struct scan *s, const char *digits)
{
	const char *found = NULL;

	if (!s->bad && s->at < s->len && s->bytes[s->at] != '\0')
		found = strchr(digits, s->bytes[s->at]);
	s->bad |= found == NULL;
	s->at += !s->bad;
	return found == NULL ? 0 : (uint8_t)(found - digits);
}

static uint64_t scan_hex(struct scan *s, int n_digits)
{
	uint64_t v = 0;

	while (n_digits-- > 0)
		v = v << 4 | scan_digit(s, "0123456789abcdef");
	return v;
}

static void scan_id(struct scan *s, struct ring_id *id)
{
	for (size_t i = 0; i < sizeof(id->byte); i++)
		id->byte[i] = (uint8_t)scan_hex(s, 2);
}

static uint64_t scan_number(struct scan *s)
{
	uint64_t v = scan_digit(s, "123456789") + UINT64_C(1);

	while (!s->bad && s->at < s->len && s->bytes[s->at] != '\n') {
		uint64_t digit = scan_digit(s, "0123456789");
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, digit, &v))
			s->bad = true;
	}
	return v;
}

/* The last line; then nothing may follow. */
static void scan_check(struct scan *s)
{
	size_t covered = s->at;

	scan_word(s, "check ");
	size_t at = s->at;
	if (scan_hex(s, 16) != XXH3_64bits(s->bytes, covered) && !s->bad) {
		s->at = at;
		s->bad = true;
	}
	scan_word(s, "\n");
	if (s->at < s->len)
		s->bad = true;
}

static int add_check(char bytes[FILE_MAX], int len)
{
	assert(len > 0 && len < FILE_MAX - 32);
	return len + snprintf(bytes + len, (size_t)(FILE_MAX - len),
			      "check %016" PRIx64 "\n",
			      (uint64_t)XXH3_64bits(bytes, (size_t)len));
}

static int load(const struct opening *o, const char *name, char out[FILE_MAX],
		struct scan *s)
{
	*s = (struct scan){.bytes = out};
	int rc = read_file(o->fd, name, out, &s->len);
	if (rc == -EFBIG)
		return refuse(o, -EUCLEAN,
			      "'%.250s/%s' is damaged at byte %d: it is too "
			      "long; " DAMAGED_HOW,
			      o->dir, name, FILE_MAX - 1);
	if (rc < 0 && rc != -ENOENT)
		return refuse_file(o, rc, name);
	return rc;
}

static int refuse_damage(const struct opening *o, const char *name,
			 const struct scan *s)
{
	return refuse(o, -EUCLEAN,
		      "'%.250s/%s' is damaged at byte %zu; " DAMAGED_HOW,
		      o->dir, name, s->at);
}

/* A file that must be there: others say that this node has lived. */
static int refuse_missing(const struct opening *o, const char *name,
			  const char *because)
{
	return refuse(o, -EUCLEAN,
		      "'%.250s/%s' is missing, but there is '%s'; restore the "
		      "state from a backup, or move it away to start anew",
		      o->dir, name, because);
}

static const char *first_of(int dir_fd, const char *const names[])
{
	struct stat st;

	for (; *names != NULL; names++)
		if (fstatat(dir_fd, *names, &st, AT_SYMLINK_NOFOLLOW) == 0)
			return *names;
	return NULL;
}

/* ---- The directory, the lock, the identity, the count ---- */

static int sync_parent(int dir_fd)
{
	int fd = openat(dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* A parent that we may not read was not made by us. */
	if (fd < 0)
		return errno == EACCES ? 0 : -errno;
	int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
	close(fd);
	return rc;
}

/* With its parents, as mkdir -p; each is on disk before the next is made. */
static int make_dir(const char *dir)
{
	if (mkdir(dir, 0700) == 0 || errno == EEXIST)
		return 0;
	if (errno != ENOENT)
		return -errno;
	char *parent = xstrdup(dir), *slash = strrchr(parent, '/');
	int rc = -ENOENT;
	if (slash != NULL && slash != parent) {
		*slash = '\0';
		rc = make_dir(parent);
	}
	int fd =
		rc == 0 ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		rc = sync_parent(fd);
		close(fd);
	}
	free(parent);
	if (rc == 0 && mkdir(dir, 0700) < 0 && errno != EEXIST)
		rc = -errno;
	return rc;
}

static int open_dir(struct opening *o)
{
	int rc = make_dir(o->dir);

	if (rc == 0) {
		o->fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = o->fd < 0 ? -errno : sync_parent(o->fd);
	}
	if (rc == -ENOTDIR)
		return refuse(o, rc,
			      "'%.300s' is no directory, or below a file; use "
			      "--state DIR",
			      o->dir);
	if (rc == -EACCES || rc == -EPERM)
		return refuse(o, rc,
			      "no permission to keep the state in '%.300s'; "
			      "use --state DIR",
			      o->dir);
	if (rc < 0)
		return refuse(o, rc, "cannot keep the state in '%.300s': %s",
			      o->dir, strerror(-rc));
	if (faccessat(o->fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return refuse(o, -errno,
			      "'%.300s' cannot be written to: %s; use --state "
			      "DIR",
			      o->dir, strerror(errno));
	return 0;
}

static int refuse_locked(const struct opening *o, int lock_fd)
{
	char text[24] = "";
	ssize_t n = pread(lock_fd, text, sizeof(text) - 1, 0);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	if (pid <= 0)
		return refuse(o, -EBUSY,
			      "the state in '%.300s' is in use by another "
			      "ringfs; stop it, or use --state DIR",
			      o->dir);
	return refuse(o, -EBUSY,
		      "the state in '%.300s' is in use by another ringfs, "
		      "process %ld; stop it, or use --state DIR",
		      o->dir, pid);
}

/* Gives the descriptor that holds the lock. */
static int take_lock(const struct opening *o)
{
	char text[24];
	int fd = openat(o->fd, "lock",
			O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0)
		return refuse_file(o, -errno, "lock");
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		rc = errno == EWOULDBLOCK ? refuse_locked(o, fd)
					  : refuse_file(o, -errno, "lock");
		goto err_fd;
	}
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
		rc = refuse_file(o, errno != 0 ? -errno : -EIO, "lock");
		goto err_fd;
	}
	return fd;

err_fd:
	close(fd);
	return rc;
}

static int random_id(struct ring_id *id)
{
	return getentropy(id->byte, sizeof(id->byte)) < 0 ? -errno : 0;
}

static int add_id(char bytes[FILE_MAX], int len, const char *key,
		  const struct ring_id *id)
{
	len += snprintf(bytes + len, (size_t)(FILE_MAX - len), "%s ", key);
	for (size_t i = 0; i < sizeof(id->byte); i++)
		len += snprintf(bytes + len, (size_t)(FILE_MAX - len), "%02x",
				id->byte[i]);
	return len + snprintf(bytes + len, (size_t)(FILE_MAX - len), "\n");
}

static int write_identity(const struct opening *o, const struct state *s)
{
	char bytes[FILE_MAX];
	int len = snprintf(bytes, sizeof(bytes), "format %d\n",
			   s->has_joined ? 2 : 1);

	len = add_id(bytes, len, "cluster", &s->cluster);
	len = add_id(bytes, len, "node", &s->node);
	len = add_check(bytes, len);
	int rc = replace_file(o->fd, "identity", bytes, (size_t)len);
	return rc < 0 ? refuse_file(o, rc, "identity") : 0;
}

static int refuse_random(const struct opening *o, int rc)
{
	return refuse(o, rc, "no random numbers: %s", strerror(-rc));
}

static int found(const struct opening *o, struct state *s)
{
	if (o->wish->is_client)
		return refuse(o, -EINVAL,
			      "a client does not vote, so it cannot be the "
			      "first of a cluster; start another node without "
			      "--client, and let this one --join it");
	int rc = random_id(&s->cluster);

	s->is_founder = true;
	return rc < 0 ? refuse_random(o, rc) : 0;
}

/* Rule 22: a wiped node must not begin alone what it was a part of. */
static int check_key(const struct opening *o)
{
	const char *key = o->wish->key_file;

	if (o->wish->is_new ||
	    (key == NULL && faccessat(o->fd, "key", F_OK, AT_EACCESS) < 0))
		return 0;
	return refuse(o, -EINVAL,
		      "there is a key, '%.300s%s', but no state: join its "
		      "cluster with --join ADDR:PORT, or start another one "
		      "with --new",
		      key != NULL ? key : o->dir, key != NULL ? "" : "/key");
}

static int make_identity(const struct opening *o, struct state *s)
{
	static const char *const lived[] = {"boot",    "wal",	 "store",
					    "started", "gossip", NULL};
	const char *because = first_of(o->fd, lived);
	int rc = 0;

	if (because != NULL)
		return refuse_missing(o, "identity", because);
	if (!o->wish->joins) {
		rc = check_key(o);
		if (rc == 0)
			rc = found(o, s);
	}
	if (rc < 0)
		return rc;
	rc = random_id(&s->node);
	return rc < 0 ? refuse_random(o, rc) : write_identity(o, s);
}

/* It was to join, and never came to. */
static int found_late(const struct opening *o, struct state *s)
{
	if (o->wish->joins)
		return 0;
	if (!o->wish->is_new)
		return refuse(
			o, -EINVAL,
			"the state in '%.300s' has joined no cluster yet; "
			"use --join ADDR:PORT, or start one with --new",
			o->dir);
	int rc = found(o, s);
	return rc < 0 ? rc : write_identity(o, s);
}

static int read_identity(const struct opening *o, struct state *s)
{
	char bytes[FILE_MAX];
	struct scan scan;
	int rc = load(o, "identity", bytes, &scan);

	if (rc == -ENOENT)
		return make_identity(o, s);
	if (rc < 0)
		return rc;
	s->has_joined = scan.len > 7 && bytes[7] == '2';
	scan_word(&scan,
		  s->has_joined ? "format 2\ncluster " : "format 1\ncluster ");
	scan_id(&scan, &s->cluster);
	scan_word(&scan, "\nnode ");
	scan_id(&scan, &s->node);
	scan_word(&scan, "\n");
	scan_check(&scan);
	if (scan.bad)
		return refuse_damage(o, "identity", &scan);
	return state_has_cluster(s) ? 0 : found_late(o, s);
}

static int count_start(const struct opening *o, struct state *s)
{
	static const char *const lived[] = {"wal", "store", "started", "gossip",
					    NULL};
	char bytes[FILE_MAX];
	struct scan scan;
	uint64_t before = 0;
	int rc = load(o, "boot", bytes, &scan);

	if (rc == -ENOENT) {
		const char *because = first_of(o->fd, lived);
		if (because != NULL)
			return refuse_missing(o, "boot", because);
	} else if (rc < 0) {
		return rc;
	} else {
		scan_word(&scan, "boot ");
		before = scan_number(&scan);
		scan_word(&scan, "\n");
		scan_check(&scan);
		if (scan.bad || before >= UINT32_MAX)
			return refuse_damage(o, "boot", &scan);
	}
	s->boot = (uint32_t)before + 1;
	int len = snprintf(bytes, sizeof(bytes), "boot %" PRIu32 "\n", s->boot);
	len = add_check(bytes, len);
	rc = replace_file(o->fd, "boot", bytes, (size_t)len);
	return rc < 0 ? refuse_file(o, rc, "boot") : 0;
}

/* Each start counts on: after enough of them a copy would be the newest life, and
 * vote with what it has forgotten. */
static int check_marks(const struct opening *o)
{
	if (faccessat(o->fd, "left", F_OK, AT_EACCESS) == 0)
		return refuse(o, -ESTALE,
			      "the node of the state in '%.300s' has left by "
			      "force: remove all of it but the key, and join "
			      "again with --join; or, if nobody else has its "
			      "keys, see recover-quorum",
			      o->dir);
	if (faccessat(o->fd, "copied", F_OK, AT_EACCESS) < 0)
		return 0;
	return refuse(o, -ESTALE,
		      "the state in '%.300s' was copied or restored, and a "
		      "newer life of this node was in the cluster; it cannot "
		      "come back: start with an empty --state, and --join",
		      o->dir);
}

/* ---- Where it is ---- */

static int put_place(const struct place *p, char bytes[FILE_MAX])
{
	int len = snprintf(bytes, FILE_MAX,
			   "files %016" PRIx64 "\nmachine %016" PRIx64 "\n",
			   p->files, p->machine);

	return add_check(bytes, len);
}

/* What is damaged was written by nobody: so it may be a copy. */
static bool read_place(const struct opening *o, struct place *out)
{
	char bytes[FILE_MAX];
	struct scan scan = {.bytes = bytes};

	if (read_file(o->fd, "place", bytes, &scan.len) < 0)
		return false;
	scan_word(&scan, "files ");
	out->files = scan_hex(&scan, 16);
	scan_word(&scan, "\nmachine ");
	out->machine = scan_hex(&scan, 16);
	scan_word(&scan, "\n");
	scan_check(&scan);
	return !scan.bad;
}

/* Without a log there is nothing that a copy could have forgotten. */
static bool was_moved(const struct opening *o)
{
	struct place was, is;

	if (faccessat(o->fd, "wal", F_OK, AT_EACCESS) < 0 ||
	    faccessat(o->fd, "place", F_OK, AT_EACCESS) < 0)
		return false;
	place_look(o->fd, &is);
	return !read_place(o, &was) || !place_is_same(&was, &is);
}

int state_settle(struct state *s, char errmsg[RING_ERRMSG_SIZE])
{
	struct opening o = {.dir = s->dir, .errmsg = errmsg};
	struct place was, is;
	char bytes[FILE_MAX];
	int rc = 0;

	o.fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o.fd < 0)
		return refuse_file(&o, -errno, "place");
	place_look(o.fd, &is);
	if (!read_place(&o, &was) || was.files != is.files ||
	    was.machine != is.machine)
		rc = replace_file(o.fd, "place", bytes,
				  (size_t)put_place(&is, bytes));
	close(o.fd);
	s->is_moved = false;
	return rc < 0 ? refuse_file(&o, rc, "place") : 0;
}

static void mark(const struct state *s, const char *name)
{
	int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			0600);

	if (fd < 0 || fsync(fd) < 0 || fsync(dir) < 0)
		log_warning("'%s/%s' cannot be made: %s", s->dir, name,
			    strerror(errno));
	if (fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
}

void state_mark_copied(const struct state *s)
{
	mark(s, "copied");
}

void state_mark_left(const struct state *s)
{
	mark(s, "left");
}

int state_unmark_left(const struct state *s, char errmsg[RING_ERRMSG_SIZE])
{
	char *path = xasprintf("%s/left", s->dir);
	int rc = unlink(path) < 0 && errno != ENOENT ? -errno : 0;

	if (rc != 0)
		snprintf(errmsg, RING_ERRMSG_SIZE, "'%.300s': %s", path,
			 strerror(-rc));
	free(path);
	return rc;
}

int state_open(const char *dir, const struct state_wish *wish,
	       struct state *out, char errmsg[RING_ERRMSG_SIZE])
{
	static const char *const gossip[] = {"gossip", NULL};
	struct opening o = {
		.dir = dir, .wish = wish, .fd = -1, .errmsg = errmsg};

	assert(dir[0] == '/' && !(wish->joins && wish->is_new));
	*out = (struct state){.lock_fd = -1};
	int rc = open_dir(&o);
	if (rc < 0)
		goto out_fd;
	out->lock_fd = take_lock(&o);
	if (out->lock_fd < 0) {
		rc = out->lock_fd;
		goto out_fd;
	}
	rc = check_marks(&o);
	if (rc == 0)
		rc = read_identity(&o, out);
	if (rc == 0)
		rc = count_start(&o, out);
	out->has_gossip = first_of(o.fd, gossip) != NULL;
	out->is_moved = was_moved(&o);
	if (rc < 0)
		close(out->lock_fd);
	else
		out->dir = xstrdup(dir);
out_fd:
	if (o.fd >= 0)
		close(o.fd);
	return rc;
}

int state_look(const char *dir, struct state *out,
	       char errmsg[RING_ERRMSG_SIZE])
{
	const struct state_wish none = {0};
	struct opening o = {.dir = dir, .wish = &none, .errmsg = errmsg};

	*out = (struct state){.lock_fd = -1};
	o.fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o.fd < 0)
		return refuse(&o, -errno, "'%.300s': %s", dir, strerror(errno));
	int rc = 0;
	if (faccessat(o.fd, "identity", F_OK, AT_EACCESS) < 0)
		rc = refuse(&o, -errno,
			    "'%.300s' is no state of a node: 'identity' in "
			    "it: %s",
			    dir, strerror(errno));
	if (rc == 0) {
		out->lock_fd = take_lock(&o);
		rc = out->lock_fd < 0 ? out->lock_fd : read_identity(&o, out);
	}
	close(o.fd);
	if (rc == 0)
		out->dir = xstrdup(dir);
	else if (out->lock_fd >= 0)
		close(out->lock_fd);
	return rc;
}

int state_join(struct state *s, const struct ring_id *cluster,
	       char errmsg[RING_ERRMSG_SIZE])
{
	struct opening o = {.dir = s->dir, .errmsg = errmsg};

	o.fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o.fd < 0)
		return refuse_file(&o, -errno, "identity");
	s->cluster = *cluster;
	s->has_joined = true;
	int rc = write_identity(&o, s);
	close(o.fd);
	return rc;
}

/* The identity first: a founder could not start without a log. */
int state_renew(struct state *s, char errmsg[RING_ERRMSG_SIZE])
{
	struct opening o = {.dir = s->dir, .errmsg = errmsg};
	int rc = state_join(s, &s->cluster, errmsg);

	if (rc < 0)
		return rc;
	rc = ring_remove_log(s->dir);
	return rc < 0 ? refuse_file(&o, rc, "wal") : 0;
}

bool state_has_cluster(const struct state *s)
{
	static const struct ring_id none;

	return memcmp(&s->cluster, &none, sizeof(none)) != 0;
}

void state_close(struct state *s)
{
	close(s->lock_fd); /* and so gives up the lock */
	free(s->dir);
	*s = (struct state){.lock_fd = -1};
}
