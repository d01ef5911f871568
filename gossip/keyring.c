/* SPDX-License-Identifier: MIT */
#include "gossip/keyring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gossip/mem.h"
#include "gossip/refuse.h"

_Static_assert(GOSSIP_KEYFILE_SIZE > SEAL_FILE_MAX, "the longest key file");

/* ---- Reading ---- */

static int check_file(const char *path, const struct stat *st, char *errmsg)
{
	if (S_ISDIR(st->st_mode))
		return gossip_refuse(errmsg, -EISDIR,
				     "the key file '%.300s' is a directory",
				     path);
	if (!S_ISREG(st->st_mode))
		return gossip_refuse(errmsg, -EINVAL,
				     "the key file '%.300s' is no regular file",
				     path);
	if ((st->st_mode & 077) != 0)
		return gossip_refuse(
			errmsg, -EACCES,
			"others can read the key file '%.300s' (mode "
			"%04o): chmod 600 it, and think about a new key",
			path, (unsigned)st->st_mode & 07777);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return gossip_refuse(
			errmsg, -EACCES,
			"the key file '%.300s' belongs to user %lu, who "
			"can read and change it: chown it",
			path, (unsigned long)st->st_uid);
	return 0;
}

/* At most cap bytes; more is no key file. */
static int read_text(int fd, char *text, size_t cap, size_t *len)
{
	*len = 0;
	while (*len < cap) {
		ssize_t n = read(fd, text + *len, cap - *len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		*len += (size_t)n;
	}
	return -E2BIG;
}

/* What seal_file_parse() found, as a sentence. */
static int judge(const char *path, int rc, unsigned line, char *errmsg)
{
	switch (rc) {
	case 0:
		return 0;
	case -EBADMSG:
		return gossip_refuse(
			errmsg, rc,
			"'%.300s', line %u: the key does not fit its "
			"check, a byte was changed: copy the file again",
			path, line);
	case -EPROTONOSUPPORT:
		return gossip_refuse(
			errmsg, rc,
			"'%.300s', line %u: a kind of key that needs a "
			"newer ringfs",
			path, line);
	case -E2BIG:
		return gossip_refuse(
			errmsg, rc,
			"'%.300s': more than %d keys, or no key file", path,
			SEAL_KEYS_MAX);
	default:
		if (line == 0)
			return gossip_refuse(
				errmsg, rc,
				"'%.300s': there is no key in it; a key "
				"file is made by 'ringfs keygen'",
				path);
		return gossip_refuse(
			errmsg, rc,
			"'%.300s', line %u: no key; a key file is made "
			"by 'ringfs keygen'",
			path, line);
	}
}

static int read_keys(int fd, const char *path, struct seal_key *keys, size_t *n,
		     char *errmsg)
{
	char text[8192];
	struct stat st;
	unsigned line = 0;
	size_t len;

	int rc = fstat(fd, &st) != 0 ? -errno : 0;
	if (rc == 0)
		rc = check_file(path, &st, errmsg);
	if (rc != 0)
		return rc;
	rc = read_text(fd, text, sizeof(text), &len);
	bool is_read = rc == 0 || rc == -E2BIG;
	if (rc == 0)
		rc = seal_file_parse(text, len, keys, n, &line);
	if (is_read)
		rc = judge(path, rc, line, errmsg);
	else
		gossip_refuse(errmsg, rc,
			      "cannot read the key file '%.300s': %s", path,
			      strerror(-rc));
	seal_wipe(text, sizeof(text));
	return rc;
}

int keyring_load(const char *path, struct seal_key keys[SEAL_KEYS_MAX],
		 size_t *n, char errmsg[GOSSIP_ERRMSG_SIZE])
{
	/* NONBLOCK: the open of a FIFO does not wait. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	*n = 0;
	if (fd < 0 && errno == ENOENT)
		return gossip_refuse(
			errmsg, -ENOKEY,
			"there is no key file '%.300s': copy it from a "
			"member, or ask for plain text with --insecure",
			path);
	if (fd < 0)
		return gossip_refuse(errmsg, -errno,
				     "cannot open the key file '%.300s': %s",
				     path, strerror(errno));
	int rc = read_keys(fd, path, keys, n, errmsg);
	close(fd);
	return rc;
}

/* ---- Writing ---- */

static int write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t got = write(fd, bytes, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		bytes += got;
		n -= (size_t)got;
	}
	return fsync(fd) != 0 ? -errno : 0;
}

/* A file of its own beside path, synced; its name in temp. */
static int write_beside(const char *path, const char *text, size_t len,
			char temp[PATH_MAX])
{
	int n = snprintf(temp, PATH_MAX, "%s.new", path);

	if (n < 0 || n >= PATH_MAX)
		return -ENAMETOOLONG;
	unlink(temp); /* of a crash: its mode may be another's */
	int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int rc = write_all(fd, text, len);
	if (close(fd) != 0 && rc == 0)
		rc = -errno;
	if (rc != 0)
		unlink(temp);
	return rc;
}

static int sync_folder_of(const char *path)
{
	char folder[PATH_MAX];

	snprintf(folder, sizeof(folder), "%s", path);
	char *slash = strrchr(folder, '/');
	if (slash == NULL)
		snprintf(folder, sizeof(folder), ".");
	else
		slash[slash == folder] = '\0';
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = fsync(fd) != 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* Put the text at path: in the place of what is there, or only if nothing
 * is. */
static int put_file(const char *path, const char *text, size_t len,
		    bool may_replace)
{
	char temp[PATH_MAX];
	int rc = write_beside(path, text, len, temp);

	if (rc != 0)
		return rc;
	if (may_replace)
		rc = rename(temp, path) != 0 ? -errno : 0;
	else
		rc = link(temp, path) != 0 ? -errno : 0;
	if (rc != 0 || !may_replace)
		unlink(temp);
	return rc == 0 ? sync_folder_of(path) : rc;
}

int keyring_save(const char *path, const struct seal_key *keys, size_t n)
{
	char text[SEAL_FILE_MAX], real[PATH_MAX];
	size_t len = seal_file_make(keys, n, text);

	/* A link stays one: the file it names is replaced. */
	int rc = put_file(realpath(path, real) != NULL ? real : path, text, len,
			  true);
	seal_wipe(text, sizeof(text));
	return rc;
}

/* ---- A new one ---- */

int gossip_keygen(char text[GOSSIP_KEYFILE_SIZE])
{
	struct seal_key key;
	int rc = seal_key_make(&key);

	if (rc != 0)
		return rc;
	size_t len = seal_file_make(&key, 1, text);
	text[len] = '\0';
	seal_key_wipe(&key);
	return 0;
}

int gossip_keygen_file(const char *path, char errmsg[GOSSIP_ERRMSG_SIZE])
{
	char text[GOSSIP_KEYFILE_SIZE];
	int rc = gossip_keygen(text);

	if (rc != 0)
		return gossip_refuse(errmsg, rc,
				     "cannot draw a key: no randomness");
	rc = put_file(path, text, strlen(text), false);
	seal_wipe(text, sizeof(text));
	if (rc == -EEXIST)
		return gossip_refuse(errmsg, rc,
				     "there is a file '%.300s' already", path);
	if (rc != 0)
		return gossip_refuse(errmsg, rc,
				     "cannot make the key file '%.300s': %s",
				     path, strerror(-rc));
	return 0;
}
