/* SPDX-License-Identifier: MIT */
#include "fs/cli_work_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/batch.h"
#include "fs/util.h"

char *work_path(const char *dir, const char *folder, const char *key)
{
	return xasprintf("%s/%s/%s", dir, folder, key);
}

int work_list(const char *dir, char ***names, size_t *n)
{
	char *path = xasprintf("%s/recover", dir);
	DIR *d = opendir(path);
	size_t cap = 0;
	int rc = d == NULL ? -errno : 0;

	free(path);
	*names = NULL;
	*n = 0;
	while (d != NULL) {
		errno = 0;
		const struct dirent *e = readdir(d);
		if (e == NULL)
			break;
		if (e->d_name[0] == '.')
			continue; /* no key's name begins so */
		if (*n == cap) {
			cap = cap ? 2 * cap : 64;
			*names = xrealloc(*names, cap * sizeof(**names));
		}
		(*names)[(*n)++] = xstrdup(e->d_name);
	}
	if (d != NULL) {
		rc = -errno;
		closedir(d);
	}
	return rc;
}

static int move(const char *dir, const char *from, const char *to,
		const char *key)
{
	char *old = work_path(dir, from, key);
	char *new = work_path(dir, to, key);
	int rc = rename(old, new) < 0 ? -errno : 0;

	free(old);
	free(new);
	return rc;
}

int work_take(const char *dir, const char *key)
{
	return move(dir, "recover", "owned", key);
}

int work_give(const char *dir, const char *key, bool park)
{
	return move(dir, "owned", park ? "parked" : "recover", key);
}

/* The negative errno for the first word of an answer of ctl. */
static int rc_of_answer(const char *answer)
{
	size_t n = strcspn(answer, " ");

	for (int err = 0; err < 256; err++) {
		const char *name = batch_errno_name(err);
		/* EIO also stands for what has no name. */
		if (strlen(name) == n && memcmp(name, answer, n) == 0 &&
		    (err == EIO || strcmp(name, "EIO") != 0))
			return -err;
	}
	return -EIO;
}

/* A batch of one record, since a name may hold a newline. */
int work_finish(const char *dir, const char *key, uint64_t token)
{
	char *path = xasprintf("%s/ctl", dir), answer[512];
	struct text ask = {0};
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int rc = fd < 0 ? -errno : 0;

	free(path);
	if (rc < 0)
		return rc;
	text_printf(&ask, "finish-at %llu ", (unsigned long long)token);
	text_add(&ask, key, strlen(key) + 1);
	ssize_t n = write(fd, ask.base, ask.len);
	if (n >= 0)
		n = read(fd, answer, sizeof(answer) - 1);
	if (n < 0)
		rc = -errno;
	close(fd);
	text_finish(&ask);
	if (rc < 0)
		return rc;
	answer[n] = '\0';
	return rc_of_answer(answer);
}

int work_fact(const char *path, const char *name, struct text *out)
{
	char value[4096], *full = xasprintf("user.ring.%s", name);
	ssize_t n = lgetxattr(path, full, value, sizeof(value));
	int rc = n < 0 ? -errno : 0;

	free(full);
	if (rc == 0)
		text_add(out, value, (size_t)n);
	text_add(out, "", 1);
	return rc;
}

int work_number(const char *path, const char *name, uint64_t *out)
{
	struct text value = {0};
	int rc = work_fact(path, name, &value);

	*out = strtoull(value.base, NULL, 10);
	text_finish(&value);
	return rc;
}

bool work_may_pass(int rc)
{
	switch (-rc) {
	case EROFS:
	case EAGAIN:
	case ETIMEDOUT:
	case ENOSPC:
	case EINTR:
		return true;
	default:
		return false;
	}
}

bool work_is_gone(int rc)
{
	return rc == -ENOTCONN || rc == -ECONNABORTED || rc == -ENOTDIR;
}
