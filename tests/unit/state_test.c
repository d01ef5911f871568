/* SPDX-License-Identifier: MIT */
/* What the state promises after a crash is seen from the order of the calls:
 * fsync and renameat of this program stand before the C library's. */
#include "fs/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "tests/unit/check.h"

#define FILE_SIZE 512

static char folder[] = "/tmp/state_test.XXXXXX";
static char dir[64]; /* the state */
static char errmsg[RING_ERRMSG_SIZE];
static char calls[1024]; /* of the last open: "sync FILE" and "to FILE" */
static int fail_sync;	 /* an errno, for every fsync */

static void note_call(const char *what, const char *name)
{
	size_t n = strlen(calls);

	snprintf(calls + n, sizeof(calls) - n, "%s %s, ", what, name);
}

/* ---- In the place of the C library's ---- */

int fsync(int fd)
{
	char path[64], target[512];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	const char *slash = strrchr(target, '/');
	note_call("sync", slash == NULL ? target : slash + 1);
	if (fail_sync != 0) {
		errno = fail_sync;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	note_call("to", to);
	return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

/* ---- Helpers ---- */

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static size_t read_file(const char *name, char out[FILE_SIZE])
{
	FILE *f = fopen(path_of(name), "r");

	check(f != NULL, "%s", name);
	size_t n = fread(out, 1, FILE_SIZE - 1, f);
	out[n] = '\0';
	fclose(f);
	return n;
}

static void write_file(const char *name, const char *bytes, size_t n)
{
	FILE *f = fopen(path_of(name), "w");

	check(f != NULL && fwrite(bytes, 1, n, f) == n, "%s", name);
	fclose(f);
}

static bool exists(const char *name)
{
	return access(path_of(name), F_OK) == 0;
}

static void remove_state(void)
{
	static const char *const names[] = {"lock",	    "identity", "boot",
					    "identity.new", "boot.new", "wal",
					    "key",	    "place"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(path_of(names[i]));
	rmdir(path_of("store"));
	rmdir(path_of("gossip"));
	rmdir(path_of("wal"));
	rmdir(dir);
}

static struct state_wish wish; /* of the next open */

static int open_state(struct state *s)
{
	errmsg[0] = calls[0] = '\0';
	int rc = state_open(dir, &wish, s, errmsg);
	check(rc <= 0, "%d", rc);
	check((rc == 0) == (errmsg[0] == '\0'), "'%s'", errmsg);
	return rc;
}

#define check_said(part)                                                       \
	check(strstr(errmsg, part) != NULL, "got '%s', want '%s'", errmsg, part)

/* ---- Checks ---- */

static void first_start(void)
{
	struct state s;
	struct stat st;
	char identity[FILE_SIZE], boot[FILE_SIZE];

	check_int(open_state(&s), 0);
	check(stat(dir, &st) == 0 && (st.st_mode & 07777) == 0700, "%o",
	      st.st_mode);
	check(stat(path_of("identity"), &st) == 0 &&
		      (st.st_mode & 07777) == 0600,
	      "%o", st.st_mode);
	check_int(s.boot, 1);
	check(strcmp(s.dir, dir) == 0, "%s", s.dir);
	check(memcmp(&s.cluster, &s.node, sizeof(s.node)) != 0, "the same ids");
	check_int(read_file("identity", identity), 111);
	check(strncmp(identity, "format 1\ncluster ", 17) == 0, "%s", identity);
	read_file("boot", boot);
	check(strncmp(boot, "boot 1\ncheck ", 13) == 0, "%s", boot);
	check(fcntl(s.lock_fd, F_GETFD) & FD_CLOEXEC, "lock");
	ok("the first start makes directory, identity and count");

	struct state again;
	struct ring_id cluster = s.cluster, node = s.node;
	state_close(&s);
	check_int(open_state(&again), 0);
	check(memcmp(&again.cluster, &cluster, sizeof(cluster)) == 0 &&
		      memcmp(&again.node, &node, sizeof(node)) == 0,
	      "another identity");
	check_int(again.boot, 2);
	state_close(&again);
	remove_state();
	check_int(open_state(&s), 0);
	check(memcmp(&s.node, &node, sizeof(node)) != 0, "the same identity");
	state_close(&s);
	remove_state();
	ok("the identity stays, and a new state has a new one");
}

static void synced(void)
{
	struct state s;

	check_int(open_state(&s), 0);
	state_close(&s);
	for (uint64_t boot = 2; boot <= 12; boot++) {
		check_int(open_state(&s), 0);
		check_int(s.boot, boot);
		state_close(&s);
		check(strstr(calls, "sync boot.new, to boot, sync state, ") !=
			      NULL,
		      "%s", calls);
	}
	check(!exists("boot.new") && !exists("identity.new"), "left behind");
	ok("each start raises boot by one, on disk before the state is open");

	char before[FILE_SIZE], after[FILE_SIZE];
	read_file("boot", before);
	fail_sync = EIO;
	check_int(open_state(&s), -EIO);
	fail_sync = ENOSPC;
	check_int(open_state(&s), -ENOSPC);
	fail_sync = 0;
	read_file("boot", after);
	check(strcmp(before, after) == 0, "%s", after);
	check(!exists("boot.new"), "left behind");
	check_int(open_state(&s), 0);
	check_int(s.boot, 13);
	state_close(&s);
	remove_state();
	ok("a disk that fails refuses the start and changes nothing");
}

static void locked(void)
{
	struct state s, other;
	int pipes[2][2], status;
	char byte, want[64];

	check(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0, "pipe");
	pid_t child = fork();
	if (child == 0) {
		char ignored[RING_ERRMSG_SIZE];
		if (state_open(dir, &wish, &other, ignored) != 0 ||
		    write(pipes[0][1], "", 1) != 1 ||
		    read(pipes[1][0], &byte, 1) != 1)
			_exit(1);
		_exit(0); /* the lock goes with the process */
	}
	check(read(pipes[0][0], &byte, 1) == 1, "the child has no lock");
	check_int(open_state(&s), -EBUSY);
	snprintf(want, sizeof(want), "process %ld;", (long)child);
	check_said(want);
	check_said("--state DIR");
	check(s.lock_fd == -1 || s.lock_fd < 0, "open");
	check(write(pipes[1][1], "", 1) == 1, "pipe");
	check(waitpid(child, &status, 0) == child && status == 0, "%d", status);
	check_int(open_state(&s), 0);
	check_int(s.boot, 2);
	check_int(open_state(&other), -EBUSY);
	state_close(&s);
	for (int i = 0; i < 4; i++)
		close(pipes[i / 2][i % 2]);
	remove_state();
	ok("a second daemon is refused, and told which process has the state");
}

/* Every way to spoil one byte of name, and every way to cut it. */
static void spoil(const char *name, uint64_t *seed)
{
	char good[FILE_SIZE], bad[FILE_SIZE], want[128];
	struct state s;
	size_t n = read_file(name, good);

	for (size_t i = 0; i < n; i++) {
		memcpy(bad, good, n);
		bad[i] = (char)(bad[i] ^ (1 << check_random(seed) % 8));
		write_file(name, bad, n);
		check_int(open_state(&s), -EUCLEAN);
		snprintf(want, sizeof(want), "%s/%s' is damaged at byte ", dir,
			 name);
		check_said(want);
		unsigned at = 9999;
		const char *told = strstr(errmsg, " at byte ");
		check(told != NULL && sscanf(told, " at byte %u", &at) == 1,
		      "%s", errmsg);
		check(at < n, "%u", at);
	}
	for (size_t i = 0; i < n; i++) {
		write_file(name, good, i);
		check_int(open_state(&s), -EUCLEAN);
		check_said("is damaged at byte ");
	}
	memcpy(bad, good, n);
	bad[n] = '\n';
	write_file(name, bad, n + 1);
	check_int(open_state(&s), -EUCLEAN);
	memset(bad, 'x', sizeof(bad));
	write_file(name, bad, sizeof(bad));
	check_int(open_state(&s), -EUCLEAN);
	check_said("too long");
	write_file(name, good, n);
}

static void damaged(uint64_t seed)
{
	struct state s;

	check_int(open_state(&s), 0);
	struct ring_id node = s.node;
	state_close(&s);
	spoil("identity", &seed);
	check_int(open_state(&s), 0);
	check(memcmp(&s.node, &node, sizeof(node)) == 0, "another identity");
	check_int(s.boot, 2);
	state_close(&s);
	ok("an identity with any byte spoilt or missing is refused");
	spoil("boot", &seed);
	check_int(open_state(&s), 0);
	check_int(s.boot, 3);
	state_close(&s);
	ok("a count with any byte spoilt or missing is refused");

	char bytes[FILE_SIZE];
	size_t n = read_file("identity", bytes);
	bytes[20] = bytes[20] == 'a' ? 'b' : 'a';
	write_file("identity", bytes, n);
	check_int(open_state(&s), -EUCLEAN);
	check_said("at byte 94;"); /* the check */
	bytes[20] = 'g';
	write_file("identity", bytes, n);
	check_int(open_state(&s), -EUCLEAN);
	check_said("at byte 20;");
	ok("the offset of the damage is told");
	remove_state();
}

static void missing(void)
{
	struct state s;

	check_int(open_state(&s), 0);
	state_close(&s);
	unlink(path_of("identity"));
	check_int(open_state(&s), -EUCLEAN);
	check_said("identity' is missing, but there is 'boot'");
	unlink(path_of("boot"));
	check(mkdir(path_of("store"), 0700) == 0, "store");
	check_int(open_state(&s), -EUCLEAN);
	check_said("identity' is missing, but there is 'store'");
	rmdir(path_of("store"));
	check_int(open_state(&s), 0);
	check_int(s.boot, 1);
	state_close(&s);
	write_file("wal", "", 0);
	unlink(path_of("boot"));
	check_int(open_state(&s), -EUCLEAN);
	check_said("boot' is missing, but there is 'wal'");
	unlink(path_of("wal"));
	check_int(open_state(&s), 0); /* a crash before the first count */
	check_int(s.boot, 1);
	state_close(&s);
	remove_state();
	ok("a file that is missing beside others is not made anew");
}

static void counted_out(void)
{
	struct state s;

	check_int(open_state(&s), 0);
	state_close(&s);
	/* 2^32 - 1 starts; the check is XXH3_64bits of the line before. */
	char text[64] = "boot 4294967295\n";
	size_t n = strlen(text);
	n += (size_t)snprintf(text + n, sizeof(text) - n, "check %016llx\n",
			      (unsigned long long)XXH3_64bits(text, n));
	write_file("boot", text, n);
	check_int(open_state(&s), -EUCLEAN);
	remove_state();
	ok("a count that no packet can carry is refused, not wrapped");
}

static void founding(void)
{
	struct state s;

	wish = (struct state_wish){0};
	check_int(open_state(&s), 0);
	check(s.is_founder && state_has_cluster(&s) && !s.has_gossip, "first");
	state_close(&s);
	check(mkdir(path_of("gossip"), 0700) == 0, "gossip");
	check_int(open_state(&s), 0);
	check(!s.is_founder && s.has_gossip, "second");
	state_close(&s);
	unlink(path_of("identity"));
	unlink(path_of("boot"));
	check_int(open_state(&s), -EUCLEAN);
	check_said("identity' is missing, but there is 'gossip'");
	remove_state();
	ok("who neither joins nor has a state makes a cluster, once");

	mkdir(dir, 0700);
	write_file("key", "", 0);
	check_int(open_state(&s), -EINVAL);
	check_said("/state/key', but no state: join its cluster with --join "
		   "ADDR:PORT, or start another one with --new");
	check(!exists("identity") && !exists("boot"), "made nevertheless");
	wish.is_new = true;
	check_int(open_state(&s), 0);
	check(s.is_founder, "founder");
	state_close(&s);
	wish.is_new = false;
	check_int(open_state(&s), 0); /* with a state a key is no question */
	state_close(&s);
	remove_state();
	wish.key_file = "/else/where";
	check_int(open_state(&s), -EINVAL);
	check_said("'/else/where', but no state");
	wish.is_new = true;
	check_int(open_state(&s), 0);
	state_close(&s);
	remove_state();
	wish = (struct state_wish){0};
	ok("holes 22: a wiped node with a key starts nothing, but with --new");
}

static void joining(void)
{
	struct ring_id node, cluster = {{1, 2, 3}};
	struct state s;

	wish = (struct state_wish){.joins = true, .key_file = "/a/key"};
	check_int(open_state(&s), 0);
	check(!state_has_cluster(&s) && !s.is_founder, "has a cluster");
	node = s.node;
	state_close(&s);
	wish = (struct state_wish){0};
	check_int(open_state(&s), -EINVAL);
	check_said("has joined no cluster yet; use --join ADDR:PORT");
	wish.joins = true;
	check_int(open_state(&s), 0);
	check(!state_has_cluster(&s), "has a cluster");
	calls[0] = '\0';
	check_int(state_join(&s, &cluster, errmsg), 0);
	check(strcmp(calls, "sync identity.new, to identity, sync state, ") ==
		      0,
	      "%s", calls);
	check(state_has_cluster(&s), "no cluster");
	state_close(&s);
	wish = (struct state_wish){0};
	check_int(open_state(&s), 0);
	check(memcmp(&s.cluster, &cluster, sizeof(cluster)) == 0, "cluster");
	check(memcmp(&s.node, &node, sizeof(node)) == 0, "another node");
	check(!s.is_founder, "founder");
	state_close(&s);
	remove_state();
	ok("a joiner's cluster is on disk when state_join() has come back");

	wish = (struct state_wish){.joins = true};
	check_int(open_state(&s), 0);
	fail_sync = ENOSPC;
	check_int(state_join(&s, &cluster, errmsg), -ENOSPC);
	fail_sync = 0;
	state_close(&s);
	check_int(open_state(&s), 0);
	check(!state_has_cluster(&s), "has a cluster");
	state_close(&s);
	wish = (struct state_wish){.is_new = true};
	check_int(open_state(&s), 0);
	check(s.is_founder && state_has_cluster(&s), "founder");
	state_close(&s);
	wish = (struct state_wish){0};
	check_int(open_state(&s), 0);
	state_close(&s);
	remove_state();
	ok("who never came to join may join, or start anew, later");
}

static void looked_at(void)
{
	struct state s, other;

	check_int(state_look(dir, &s, errmsg), -ENOENT);
	check(!exists(""), "made");
	check_int(open_state(&s), 0);
	check_int(state_look(dir, &other, errmsg), -EBUSY);
	check_said("in use by another ringfs");
	struct ring_id node = s.node;
	state_close(&s);
	check_int(state_look(dir, &other, errmsg), 0);
	check(memcmp(&other.node, &node, sizeof(node)) == 0, "another");
	check_int(open_state(&s), -EBUSY); /* it is locked */
	state_close(&other);
	check_int(open_state(&s), 0);
	check_int(s.boot, 2); /* looking was not counted */
	state_close(&s);
	unlink(path_of("identity"));
	check_int(state_look(dir, &other, errmsg), -ENOENT);
	check_said("no state of a node");
	check(!exists("identity"), "made");
	remove_state();
	ok("who only looks makes nothing and counts nothing, but locks");
}

static void no_directory(void)
{
	char saved[sizeof(dir)];
	struct state s;

	memcpy(saved, dir, sizeof(dir));
	FILE *f = fopen(dir, "w");
	fclose(f);
	check_int(open_state(&s), -ENOTDIR);
	check_said("is no directory");
	snprintf(dir, sizeof(dir), "%s/below", saved);
	check_int(open_state(&s), -ENOTDIR);
	unlink(saved);
	check_int(open_state(&s), 0); /* parents are made */
	state_close(&s);
	remove_state();
	memcpy(dir, saved, sizeof(dir));
	rmdir(dir);
	check(symlink("/etc/passwd", dir) == 0, "symlink");
	check_int(open_state(&s), -ENOTDIR);
	unlink(dir);
	ok("a place that is no directory is refused, missing parents are made");

	mkdir(dir, 0700);
	check(symlink("/etc/passwd", path_of("lock")) == 0, "symlink");
	check_int(open_state(&s), -ELOOP);
	check_said("lock': Too many levels of symbolic links");
	remove_state();
	ok("links in the state are not followed");
}

/* Root may everything: then a child gives that up first. */
static void forbidden(void)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct state s;
		if (geteuid() == 0 &&
		    (chown(folder, 65534, 65534) != 0 || setgid(65534) != 0 ||
		     setuid(65534) != 0))
			_exit(77);
		mkdir(dir, 0500);
		check_int(open_state(&s), -EACCES);
		check_said("cannot be written to");
		check(chmod(dir, 0) == 0, "%d", errno);
		check_int(open_state(&s), -EACCES);
		check_said("no permission to keep the state in");
		check(chmod(folder, 0500) == 0, "%d", errno);
		rmdir(dir);
		check(chmod(folder, 0700) == 0 && rmdir(dir) == 0, "%d", errno);
		check(chmod(folder, 0500) == 0, "%d", errno);
		check_int(open_state(&s), -EACCES);
		check_said("--state DIR");
		check(chmod(folder, 0700) == 0, "%d", errno);
		check_int(open_state(&s), 0);
		state_close(&s);
		check(chmod(path_of("identity"), 0) == 0, "%d", errno);
		check_int(open_state(&s), -EACCES);
		check_said("/identity': Permission denied");
		exit(0);
	}
	check(waitpid(child, &status, 0) == child, "%d", errno);
	remove_state();
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		printf("# cannot become another user here\n");
		return;
	}
	check_int(status, 0);
	ok("each way to be forbidden is its own sentence");
}

/* ---- Where it is ---- */

static bool is_moved(void)
{
	struct state s;

	check_int(open_state(&s), 0);
	bool moved = s.is_moved;
	state_close(&s);
	return moved;
}

static void settle(void)
{
	struct state s;

	check_int(open_state(&s), 0);
	check_int(state_settle(&s, errmsg), 0);
	check(!s.is_moved, "it is settled");
	state_close(&s);
	check(!is_moved(), "and was");
}

/* As the state's own. */
static void write_place(uint64_t files, const char *machine)
{
	char bytes[FILE_SIZE];
	int n = snprintf(bytes, sizeof(bytes),
			 "files %016" PRIx64 "\nmachine %s\n", files, machine);

	n += snprintf(bytes + n, sizeof(bytes) - (size_t)n,
		      "check %016" PRIx64 "\n",
		      (uint64_t)XXH3_64bits(bytes, (size_t)n));
	write_file("place", bytes, (size_t)n);
}

static uint64_t files_in_place(void)
{
	char bytes[FILE_SIZE];
	uint64_t files = 0;

	read_file("place", bytes);
	check_int(sscanf(bytes, "files %" SCNx64 "\n", &files), 1);
	return files;
}

static void copy_file(const char *name)
{
	char bytes[FILE_SIZE];
	size_t n = read_file(name, bytes);

	unlink(path_of(name));
	write_file(name, bytes, n);
}

static void moved(void)
{
	char away[128];
	struct state s;

	check(!is_moved(), "a new one");
	check(mkdir(path_of("wal"), 0700) == 0, "wal");
	check(!is_moved(), "of an older ringfs, which wrote no place");
	settle();
	check_int(open_state(&s), 0);
	calls[0] = '\0';
	check_int(state_settle(&s, errmsg), 0);
	check(calls[0] == '\0', "%s", calls);
	state_close(&s);
	snprintf(away, sizeof(away), "%s.away", dir);
	check(rename(dir, away) == 0 && mkdir(dir, 0700) == 0 &&
		      rename(away, dir) == 0,
	      "renamed");
	check(!is_moved(), "it was renamed");
	ok("a state that is where it was has not moved");

	copy_file("lock");
	check(is_moved() && is_moved(), "the lock is another file");
	settle();
	check(rename(path_of("wal"), away) == 0 &&
		      mkdir(path_of("wal"), 0700) == 0 && rmdir(away) == 0,
	      "wal");
	check(is_moved(), "the log was put back");
	settle();
	uint64_t files = files_in_place();
	write_place(files, "00000000000000aa");
	bool is_known = access("/etc/machine-id", R_OK) == 0;
	check_int(is_moved(), is_known);
	write_place(files, "0000000000000000");
	check(!is_moved(), "a machine without a name is any");
	write_place(files + 1, "0000000000000000");
	check(is_moved(), "other files");
	write_file("place", "files", 5);
	check(is_moved(), "a place that nobody wrote");
	unlink(path_of("place"));
	check(!is_moved(), "somebody is sure");
	ok("one that was copied, put back, or taken elsewhere has");

	write_place(files + 1, "0000000000000000");
	check_int(open_state(&s), 0);
	check(s.is_moved && !s.has_joined, "a founder");
	check_int(state_renew(&s, errmsg), 0);
	state_close(&s);
	check(!exists("wal"), "the log is gone");
	check_int(open_state(&s), 0);
	check(!s.is_moved && s.has_joined, "without a log it waits for one");
	state_close(&s);
	remove_state();
	ok("a log that is given up is gone, and others are to fill the next");
}

static void client(void)
{
	struct state s;

	wish.is_client = true;
	check_int(open_state(&s), -EINVAL);
	check_said("a client does not vote");
	check_said("--join");
	wish.is_new = true;
	check_int(open_state(&s), -EINVAL);
	wish.is_new = wish.is_client = false;
	check_int(open_state(&s), 0);
	state_close(&s);
	wish.is_client = true;
	check_int(open_state(&s), 0);
	state_close(&s);
	wish.is_client = false;
	remove_state();
	ok("a client starts no cluster, but may become one");
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	check(mkdtemp(folder) != NULL, "%s", folder);
	snprintf(dir, sizeof(dir), "%s/state", folder);
	first_start();
	synced();
	locked();
	damaged(seed);
	missing();
	counted_out();
	founding();
	joining();
	looked_at();
	no_directory();
	forbidden();
	moved();
	client();
	check(rmdir(folder) == 0, "%s: %d", folder, errno);
	return 0;
}
