/* SPDX-License-Identifier: MIT */
#include "fs/place.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MACHINE_FILE "/etc/machine-id"
#define MACHINE_LEN  32

/* Without the time where the file system knows none. */
static int put_file(int dir_fd, const char *name, char *out, size_t size)
{
	struct statx s = {0};

	if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME,
		  &s) < 0)
		return snprintf(out, size, "%s none\n", name);
	if ((s.stx_mask & STATX_BTIME) == 0)
		s.stx_btime = (struct statx_timestamp){0};
	return snprintf(out, size, "%s %" PRIu64 " %" PRId64 ".%09" PRIu32 "\n",
			name, (uint64_t)s.stx_ino, (int64_t)s.stx_btime.tv_sec,
			(uint32_t)s.stx_btime.tv_nsec);
}

/* In an image that many start from the file is empty, or says something else. */
static uint64_t look_machine(void)
{
	char id[MACHINE_LEN];
	int fd = open(MACHINE_FILE, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, id, sizeof(id));

	if (fd >= 0)
		close(fd);
	if (n != MACHINE_LEN)
		return 0;
	for (size_t i = 0; i < sizeof(id); i++)
		if (memchr("0123456789abcdef", id[i], 16) == NULL)
			return 0;
	return XXH3_64bits(id, sizeof(id));
}

void place_look(int dir_fd, struct place *out)
{
	char text[256];
	int n = put_file(dir_fd, "lock", text, sizeof(text) / 2);

	n += put_file(dir_fd, "wal", text + n, sizeof(text) / 2);
	out->files = XXH3_64bits(text, (size_t)n);
	out->machine = look_machine();
}

bool place_is_same(const struct place *a, const struct place *b)
{
	return a->files == b->files &&
	       (a->machine == b->machine || a->machine == 0 || b->machine == 0);
}
