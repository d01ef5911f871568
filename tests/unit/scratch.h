/* SPDX-License-Identifier: MIT */
/* A folder that is gone when the test is, however it ends.
 *
 * The test runs in a child process; the parent removes the folder. Where we are
 * root, the child has its own mounts, which end with it: a small disk to fill
 * is a tmpfs there. */
#ifndef TESTS_UNIT_SCRATCH_H
#define TESTS_UNIT_SCRATCH_H

#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char scratch_dir[256];

static inline int scratch_remove_one(const char *path, const struct stat *st,
				     int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void scratch_remove(const char *path)
{
	nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Run body in a child; its status is the result. */
static inline int scratch_run(void (*body)(uint64_t seed), uint64_t seed)
{
	const char *tmp = getenv("TMPDIR");
	int status;

	snprintf(scratch_dir, sizeof(scratch_dir), "%s/ringfs-unit-XXXXXX",
		 tmp ? tmp : "/tmp");
	if (mkdtemp(scratch_dir) == NULL) {
		perror(scratch_dir);
		return 1;
	}
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		body(seed);
		exit(0);
	}
	signal(SIGINT, SIG_IGN); /* the child ends by it, we clean up */
	signal(SIGTERM, SIG_IGN);
	if (waitpid(pid, &status, 0) != pid)
		status = 1;
	scratch_remove(scratch_dir);
	if (WIFSIGNALED(status))
		printf("not ok - killed by signal %d\n", WTERMSIG(status));
	return status == 0 ? 0 : 1;
}

/* In body: is this process able to mount? It then has mounts of its own. */
static inline bool scratch_can_mount(void)
{
	static int known = -1;

	if (known < 0)
		known = unshare(CLONE_NEWNS) == 0 &&
			mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return known;
}

/* Skip, or fail with STRICT=1. */
static inline void scratch_skip(const char *what)
{
	const char *strict = getenv("STRICT");

	check(strict == NULL || strcmp(strict, "1") != 0, "cannot test: %s",
	      what);
	printf("# skipped, needs root: %s\n", what);
}

/* A new folder named name, on a tmpfs of that many bytes if they are not 0 and
 * that is possible. False: it is not. */
static inline bool scratch_make(char path[512], const char *name, size_t bytes)
{
	char options[64];

	snprintf(path, 512, "%s/%s", scratch_dir, name);
	check_int(mkdir(path, 0700), 0);
	if (bytes == 0)
		return true;
	if (!scratch_can_mount())
		return false;
	snprintf(options, sizeof(options), "size=%zu", bytes);
	check_int(mount("ringfs-unit", path, "tmpfs", 0, options), 0);
	return true;
}

#endif
