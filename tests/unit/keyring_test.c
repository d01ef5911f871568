/* SPDX-License-Identifier: MIT */
/* The key file on disk: who may read it, what is in it, and that it is replaced
 * as a whole. */
#include "gossip/keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char dir[256], path[300], errmsg[GOSSIP_ERRMSG_SIZE];
static struct seal_key keys[SEAL_KEYS_MAX];
static size_t n;

static void put(const char *text, mode_t mode)
{
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text),
	      "%s", path);
	check_int(fchmod(fd, mode), 0);
	close(fd);
}

static int load(void)
{
	errmsg[0] = '\0';
	int rc = keyring_load(path, keys, &n, errmsg);
	check(rc == 0 || strlen(errmsg) > 20, "a sentence: %s", errmsg);
	return rc;
}

static bool says(const char *word)
{
	return strstr(errmsg, word) != NULL;
}

static struct seal_key key_of(unsigned i)
{
	struct seal_key key;

	memset(key.b, (int)i, sizeof(key.b));
	return key;
}

static void test_making(void)
{
	char text[GOSSIP_KEYFILE_SIZE], other[GOSSIP_KEYFILE_SIZE];
	struct stat st;

	mode_t old = umask(0);
	check_int(gossip_keygen_file(path, errmsg), 0);
	umask(old);
	check(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600, "mode");
	check_int(load(), 0);
	check_int(n, 1);
	ok("a key file is made, for its owner only");
	check_int(gossip_keygen_file(path, errmsg), -EEXIST);
	check(says(path), "%s", errmsg);
	struct seal_key first = keys[0];
	check_int(load(), 0);
	check(memcmp(&first, &keys[0], sizeof(first)) == 0, "untouched");
	snprintf(text, sizeof(text), "%s.new", path);
	check(access(text, F_OK) != 0, "nothing is left");
	ok("but not in the place of another");
	check_int(gossip_keygen_file("/nowhere/key", errmsg), -ENOENT);
	check_int(gossip_keygen(text), 0);
	check_int(gossip_keygen(other), 0);
	check(strcmp(text, other) != 0, "different keys");
	put(text, 0600);
	check_int(load(), 0);
	ok("the text of a key is that of its file");
}

static void test_looking(void)
{
	char text[GOSSIP_KEYFILE_SIZE], target[400];
	static const mode_t bad[] = {0640, 0604, 0660, 0602, 0610, 0777};

	check_int(gossip_keygen(text), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		put(text, bad[i]);
		check_int(load(), -EACCES);
		check(says("chmod 600"), "%s", errmsg);
	}
	put(text, 0400);
	check_int(load(), 0);
	ok("a file that others can read is not taken");
	unlink(path);
	check_int(load(), -ENOKEY);
	check(says("copy it") && says(path), "%s", errmsg);
	check_int(mkdir(path, 0700), 0);
	check_int(load(), -EISDIR);
	rmdir(path);
	check_int(mkfifo(path, 0600), 0);
	check_int(load(), -EINVAL);
	unlink(path);
	ok("nor is a folder, a pipe, or nothing");
	snprintf(target, sizeof(target), "%s/real", dir);
	check_int(symlink(target, path), 0);
	check_int(load(), -ENOKEY);
	put(text, 0600);
	check_int(rename(path, target), 0);
	check_int(symlink(target, path), 0);
	check_int(load(), 0);
	struct seal_key two[] = {key_of(1), key_of(2)};
	check_int(keyring_save(path, two, 2), 0);
	struct stat st;
	check(lstat(path, &st) == 0 && S_ISLNK(st.st_mode), "still a link");
	check_int(load(), 0);
	check_int(n, 2);
	unlink(path);
	unlink(target);
	ok("a link is followed, also when it is written");
}

static void test_reading(void)
{
	char text[GOSSIP_KEYFILE_SIZE];
	static char much[100000];

	check_int(gossip_keygen(text), 0);
	char *at = strstr(text, "ringfs-key-1 ") + 20;
	*at = *at == 'A' ? 'B' : 'A';
	put(text, 0600);
	int rc = load();
	check(rc == -EBADMSG && says("line 3"), "%d %s", rc, errmsg);
	put("hello\n", 0600);
	check_int(load(), -EINVAL);
	check(says("line 1") && says("ringfs keygen"), "%s", errmsg);
	put("", 0600);
	check_int(load(), -EINVAL);
	put("ringfs-key-2 abc\n", 0600);
	check_int(load(), -EPROTONOSUPPORT);
	memset(much, '#', sizeof(much) - 1);
	put(much, 0600);
	check_int(load(), -E2BIG);
	check_int(n, 0);
	ok("what is no key file is said, with the line");
}

static void test_saving(void)
{
	struct seal_key two[] = {key_of(1), key_of(2)};
	struct stat before, after;
	char left[400];

	unlink(path);
	check_int(keyring_save(path, two, 2), 0);
	check_int(load(), 0);
	check(n == 2 && memcmp(keys, two, sizeof(two)) == 0, "in order");
	check_int(stat(path, &before), 0);
	/* What a crash has left, readable by all. */
	snprintf(left, sizeof(left), "%s.new", path);
	close(open(left, O_WRONLY | O_CREAT, 0644));
	check_int(keyring_save(path, two + 1, 1), 0);
	check_int(stat(path, &after), 0);
	check(before.st_ino != after.st_ino && (after.st_mode & 07777) == 0600,
	      "another file, and private");
	check_int(load(), 0);
	check_int(n, 1);
	check(access(left, F_OK) != 0, "nothing is left");
	ok("a file is replaced by a whole one");
	check_int(keyring_save("/nowhere/key", two, 2), -ENOENT);
	check_int(mkdir(left, 0700), 0);
	check(keyring_save(path, two, 2) < 0, "in the way");
	check_int(load(), 0);
	check_int(n, 1);
	rmdir(left);
	ok("or stays as it is");
}

/* Killed at any moment: the old one, or the new one. */
static void test_crashes(void)
{
	struct seal_key sets[2][SEAL_KEYS_MAX];

	for (unsigned i = 0; i < SEAL_KEYS_MAX; i++) {
		sets[0][i] = key_of(1 + i);
		sets[1][i] = key_of(101 + i);
	}
	check_int(keyring_save(path, sets[0], SEAL_KEYS_MAX), 0);
	for (unsigned round = 0; round < 40; round++) {
		pid_t pid = fork();

		check(pid >= 0, "fork");
		if (pid == 0)
			for (unsigned i = 0;; i++)
				keyring_save(path, sets[i % 2], SEAL_KEYS_MAX);
		usleep(500 + 377 * round);
		kill(pid, SIGKILL);
		check_int(waitpid(pid, NULL, 0), pid);
		check_int(load(), 0);
		check(memcmp(keys, sets[0], sizeof(keys)) == 0 ||
			      memcmp(keys, sets[1], sizeof(keys)) == 0,
		      "one of both");
	}
	ok("a crash leaves the old file or the new one");
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	char left[400];

	snprintf(dir, sizeof(dir), "%s/keyring_test.XXXXXX",
		 tmp != NULL ? tmp : "/tmp");
	check(mkdtemp(dir) != NULL, "%s", dir);
	snprintf(path, sizeof(path), "%s/key", dir);
	test_making();
	test_looking();
	test_reading();
	test_saving();
	test_crashes();
	snprintf(left, sizeof(left), "%s.new", path);
	unlink(left);
	unlink(path);
	check_int(rmdir(dir), 0);
	return 0;
}
