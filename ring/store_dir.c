/* SPDX-License-Identifier: MIT */
/* The store's folders:
 *
 *   dir/store       the store
 *   dir/store.new   one being made, empty
 *   dir/store.copy  one being received; after a swap, the old one
 *   dir/store.old   the old one, where two names cannot be exchanged in one
 *   step
 */
#include "ring/store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096

int store_dir_flush(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int rc = fsync(fd) != 0 ? -errno : 0;
	close(fd);
	return rc;
}

void store_dir_remove(const char *path)
{
	static const char *const names[] = {"/data.mdb", "/lock.mdb", ""};
	char name[PATH_SIZE];

	for (size_t i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s%s", path, names[i]);
		remove(name);
	}
}

static void name_in(char out[PATH_SIZE], const char *dir, const char *name)
{
	snprintf(out, PATH_SIZE, "%s/%s", dir, name);
}

void store_remove(const char *dir)
{
	char store[PATH_SIZE];

	name_in(store, dir, "store");
	store_dir_remove(store);
}

void store_dir_tidy(const char *dir)
{
	char store[PATH_SIZE], copy[PATH_SIZE], old[PATH_SIZE];

	name_in(store, dir, "store");
	name_in(copy, dir, "store.copy");
	name_in(old, dir, "store.old");
	if (access(store, F_OK) != 0 && errno == ENOENT)
		rename(old, store); /* stopped between the two renames */
	store_dir_remove(copy);
	store_dir_remove(old);
}

int store_dir_swap(const char *dir)
{
	char store[PATH_SIZE], copy[PATH_SIZE], old[PATH_SIZE];
	int rc;

	name_in(store, dir, "store");
	name_in(copy, dir, "store.copy");
	name_in(old, dir, "store.old");
	if (renameat2(AT_FDCWD, copy, AT_FDCWD, store, RENAME_EXCHANGE) != 0) {
		if (errno != EINVAL && errno != ENOSYS)
			return -errno;
		if (rename(store, old) != 0 || rename(copy, store) != 0)
			return -errno;
	}
	rc = store_dir_flush(dir);
	if (rc != 0)
		return rc;
	store_dir_remove(copy);
	store_dir_remove(old);
	return 0;
}

static bool is_same(int fd, const struct stat *file)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_dev == file->st_dev &&
	       st.st_ino == file->st_ino;
}

static void close_all(const struct stat *file)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *e;

	while (fds != NULL && (e = readdir(fds)) != NULL) {
		int fd = atoi(e->d_name);

		if (e->d_name[0] != '.' && is_same(fd, file))
			close(fd);
	}
	if (fds != NULL)
		closedir(fds);
}

void store_leave(const struct store *s)
{
	static const char *const names[] = {"data.mdb", "lock.mdb"};
	char name[PATH_SIZE];
	struct stat st;

	for (size_t i = 0; i < 2; i++) {
		name_in(name, s->path, names[i]);
		if (stat(name, &st) == 0)
			close_all(&st);
	}
}
