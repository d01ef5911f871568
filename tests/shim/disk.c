/* SPDX-License-Identifier: MIT */
/* A disk that a test can make slow, stuck or broken: loaded into a daemon by
 * LD_PRELOAD, it stands before fdatasync and fsync. The file that RINGFS_DISK
 * names says how, and is read again at every flush, and all the time during one
 * that waits:
 *
 *   ok               as the kernel does it; so is a file that is missing
 *   delay MS         so much later
 *   stuck            not before the file says something else
 *   error EIO        no flush, and this errno; also ENOSPC
 *
 * It calls the kernel itself, so it needs no other library. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS 2

/* The file's word and number, "ok" if there is none. */
static void ask(char word[16], char arg[16])
{
	const char *path = getenv("RINGFS_DISK");
	char line[64] = "";
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	word[0] = arg[0] = '\0';
	if (fd < 0)
		return;
	ssize_t n = read(fd, line, sizeof(line) - 1);

	close(fd);
	line[n > 0 ? n : 0] = '\0';
	if (sscanf(line, "%15s %15s", word, arg) < 1)
		word[0] = '\0';
}

/* 0, or the errno the caller gets instead of a flush. */
static int before_flush(void)
{
	const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
	char word[16], arg[16];

	for (long waited_ms = 0;; waited_ms += STEP_MS) {
		ask(word, arg);
		if (strcmp(word, "error") == 0)
			return strcmp(arg, "ENOSPC") == 0 ? ENOSPC : EIO;
		if (strcmp(word, "delay") == 0) {
			if (waited_ms >= atol(arg))
				return 0;
		} else if (strcmp(word, "stuck") != 0) {
			return 0;
		}
		nanosleep(&step, NULL);
	}
}

static int flush(long number, int fd)
{
	errno = before_flush();
	return errno != 0 ? -1 : (int)syscall(number, fd);
}

int fdatasync(int fd)
{
	return flush(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return flush(SYS_fsync, fd);
}
