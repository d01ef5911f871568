/* SPDX-License-Identifier: MIT */
#include "ring/wal_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static uint8_t zeros[1 << 16];

void wal_file_name(char name[WAL_NAME_SIZE], uint64_t number)
{
	snprintf(name, WAL_NAME_SIZE, "%016" PRIx64 ".seg", number);
}

int wal_file_read(int fd, void *bytes, size_t n, size_t offset)
{
	uint8_t *to = bytes;

	while (n > 0) {
		ssize_t got = pread(fd, to, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EIO; /* shorter than it was a moment ago */
		to += got;
		offset += (size_t)got;
		n -= (size_t)got;
	}
	return 0;
}

int wal_file_write(int fd, const void *bytes, size_t n, size_t offset)
{
	const uint8_t *from = bytes;

	while (n > 0) {
		ssize_t put = pwrite(fd, from, n, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		from += put;
		offset += (size_t)put;
		n -= (size_t)put;
	}
	return 0;
}

int wal_file_zero(int fd, size_t n, size_t offset)
{
	while (n > 0) {
		size_t part = n < sizeof(zeros) ? n : sizeof(zeros);
		int rc = wal_file_write(fd, zeros, part, offset);

		if (rc != 0)
			return rc;
		offset += part;
		n -= part;
	}
	return 0;
}

int wal_file_flush(int fd)
{
	int rc;

	do
		rc = fdatasync(fd);
	while (rc != 0 && errno == EINTR);
	return rc == 0 ? 0 : -errno;
}

int wal_file_flush_dir(int dirfd)
{
	int rc;

	do
		rc = fsync(dirfd);
	while (rc != 0 && errno == EINTR);
	return rc == 0 ? 0 : -errno;
}

int wal_file_make(int dirfd, const char *name, size_t bytes, int *out)
{
	int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC;
	int fd = openat(dirfd, name, flags, 0600);

	if (fd < 0)
		return -errno;
	/* Real zeros, not fallocate(): an append into an unwritten extent
	 * would have to convert it, which costs a journal commit. */
	int rc = wal_file_zero(fd, bytes, 0);
	if (rc == 0)
		rc = wal_file_flush(fd);
	if (rc != 0) {
		close(fd);
		unlinkat(dirfd, name, 0);
		return rc == -EDQUOT ? -ENOSPC : rc;
	}
	*out = fd;
	return 0;
}

/* A folder of plain files. */
static int remove_folder(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int rc = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (d == NULL) {
		close(fd);
		return -ENOMEM;
	}
	while (rc == 0 && (e = readdir(d)) != NULL)
		if (e->d_name[0] != '.' && unlinkat(fd, e->d_name, 0) != 0)
			rc = -errno;
	closedir(d);
	if (rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) != 0)
		rc = -errno;
	return rc;
}

/* The name goes first, at once: a part of a log is a damaged one. */
int wal_remove(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int rc = remove_folder(fd, "wal.old");
	if (rc == 0 && renameat(fd, "wal", fd, "wal.old") != 0)
		rc = errno == ENOENT ? 0 : -errno;
	if (rc == 0)
		rc = wal_file_flush_dir(fd);
	if (rc == 0)
		(void)remove_folder(fd, "wal.old"); /* else the next time */
	close(fd);
	return rc;
}
