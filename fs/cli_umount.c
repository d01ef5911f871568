/* SPDX-License-Identifier: MIT */
/* The end of a mount: fusermount3 takes it off, the daemon sees that and goes,
 * and the command waits for that. */
#include "fs/cli.h"
#include "fs/cli_daemon.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/text.h"
#include "fs/util.h"

#define TIMEOUT_S 30
#define LATE_MS	  1000 /* after which the daemon has not noticed */
#define BUSY_MAX  8    /* processes that are named */

static const char help[] =
	"Usage: ringfs umount [OPTION]... DIR\n"
	"Unmount the ring at DIR, as fusermount3 -u does, and wait until its\n"
	"daemon is gone.\n"
	"\n"
	"Options:\n"
	"      --timeout S    wait so many seconds, 1 to 86400 (default: 30)\n"
	"  -h, --help         show this text\n"
	"\n"
	"Exit status: 0 done; 1 DIR is in use (stderr says by whom);\n"
	"64 usage; 69 no ring is mounted at DIR; 71 the system refused;\n"
	"77 permission; 124 it is unmounted, but the daemon may still run.\n"
	"\n"
	"Examples:\n"
	"  ringfs umount /srv/ring\n"
	"  ringfs umount --timeout 5 mnt || fusermount3 -uz mnt\n"
	"  ringfs umount \"$RINGFS\" && ringfs mount \"$RINGFS\"\n";

/* ---- Who is busy ---- */

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 &&
	       (path[n] == '\0' || path[n] == '/');
}

/* Does the link name, in the folder fd, lead into dir? */
static bool leads_into(int fd, const char *name, const char *dir)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(fd, name, target, sizeof(target) - 1);

	target[n < 0 ? 0 : n] = '\0';
	return n > 0 && is_below(target, dir);
}

static bool any_leads_into(int proc_fd, const char *folder, const char *dir)
{
	int fd = openat(proc_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	bool found = false;

	if (d == NULL)
		return false; /* another user's */
	while (!found && (e = readdir(d)) != NULL)
		found = leads_into(fd, e->d_name, dir);
	closedir(d);
	return found;
}

static bool is_inside(const char *pid, const char *dir)
{
	char *path = xasprintf("/proc/%s", pid);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	free(path);
	if (fd < 0)
		return false;
	bool inside = leads_into(fd, "cwd", dir) ||
		      leads_into(fd, "root", dir) ||
		      any_leads_into(fd, "fd", dir);
	close(fd);
	return inside;
}

static void say_who(const char *pid, const char *dir)
{
	char *path = xasprintf("/proc/%s/comm", pid);
	struct text comm = {0};

	cli_read_file(AT_FDCWD, path, &comm);
	text_add(&comm, "", 1);
	comm.base[strcspn(comm.base, "\n")] = '\0';
	char *shown = cli_printable(comm.base);
	cli_say("umount", "process %s (%s) is in '%s'", pid, shown, dir);
	free(shown);
	text_finish(&comm);
	free(path);
}

static bool is_child_of(const char *pid, pid_t parent)
{
	char *path = xasprintf("/proc/%s/status", pid);
	struct text status = {0};

	cli_read_file(AT_FDCWD, path, &status);
	text_add(&status, "", 1);
	const char *line = strstr(status.base, "\nPPid:");
	bool is = line != NULL && atol(line + strlen("\nPPid:")) == parent;
	text_finish(&status);
	free(path);
	return is;
}

/* Name those inside, but for the daemon's own herald. Gives how many. */
static int say_all_who(const char *dir, pid_t daemon)
{
	DIR *d = opendir("/proc");
	const struct dirent *e;
	int n = 0;

	while (d != NULL && n < BUSY_MAX && (e = readdir(d)) != NULL) {
		if (!isdigit((unsigned char)e->d_name[0]) ||
		    atol(e->d_name) == (long)getpid() ||
		    !is_inside(e->d_name, dir) ||
		    is_child_of(e->d_name, daemon))
			continue;
		say_who(e->d_name, dir);
		n++;
	}
	if (d != NULL)
		closedir(d);
	return n;
}

/* ---- fusermount3 ---- */

extern char **environ;

/* Run it. 0 with what it wrote on stderr and its wait status. */
static int run_fusermount(const char *dir, struct text *said, int *wstatus)
{
	char program[] = "fusermount3", u[] = "-u", end[] = "--";
	char *at = xstrdup(dir), *args[] = {program, u, end, at, NULL};
	posix_spawn_file_actions_t actions;
	char piece[512];
	int fds[2];
	pid_t child;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		free(at);
		return -errno;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
	int rc = -posix_spawnp(&child, program, &actions, NULL, args, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (rc == 0 && (n = read(fds[0], piece, sizeof(piece))) != 0)
		if (n > 0)
			text_add(said, piece, (size_t)n);
		else if (errno != EINTR)
			break;
	close(fds[0]);
	while (rc == 0 && waitpid(child, wstatus, 0) < 0)
		if (errno != EINTR)
			rc = -errno;
	free(at);
	return rc;
}

/* Its exit status is 1 whatever the reason; the sentence tells. */
static int explain(const char *dir, const struct cli_daemon *d,
		   const char *said)
{
	if (strstr(said, strerror(EBUSY)) != NULL) {
		/* Nobody is to be seen inside but the herald, which is there
		 * for an instant with each announcement: the daemon takes the
		 * mount off by itself. */
		if (say_all_who(dir, d->pid) == 0 && cli_daemon_stop(d) == 0)
			return 0;
		cli_say("umount",
			"'%s': target is busy; close the files and shells "
			"inside, or: fusermount3 -uz %s",
			dir, dir);
		return 1;
	}
	cli_say("umount", "'%s': %s", dir, said);
	return strstr(said, strerror(EPERM)) != NULL ||
			       strstr(said, strerror(EACCES)) != NULL
		       ? EX_NOPERM
		       : EX_OSERR;
}

static int unmount(const char *dir, const struct cli_daemon *d)
{
	struct text said = {0};
	int wstatus, rc = run_fusermount(dir, &said, &wstatus);

	text_add(&said, "", 1);
	said.base[strcspn(said.base, "\n")] = '\0';
	if (rc == -ENOENT) {
		cli_say("umount", "fusermount3 is missing; install fuse3");
		rc = EX_OSERR;
	} else if (rc < 0) {
		cli_say("umount", "cannot run fusermount3: %s", strerror(-rc));
		rc = EX_OSERR;
	} else if (!WIFEXITED(wstatus) || WEXITSTATUS(wstatus) != 0) {
		rc = explain(dir, d, said.base);
	}
	text_finish(&said);
	return rc;
}

/* While another mount namespace, a container's say, has the mount, too, it is not
 * gone for the daemon. It is asked to end then, unless the ring is mounted
 * elsewhere here as well. */
static void end_late(const struct cli_daemon *d, const char *device)
{
	struct pollfd p = {.fd = d->fd, .events = POLLIN};

	if (d->fd >= 0 && device != NULL && poll(&p, 1, LATE_MS) == 0 &&
	    !cli_mount_is_anywhere(device))
		cli_daemon_stop(d);
}

int cli_umount(int argc, char **argv)
{
	static const struct option longs[] = {
		{"timeout", required_argument, NULL, 't'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	uint32_t timeout_s = TIMEOUT_S;
	struct cli_mount m;
	struct cli_daemon d;
	int c;

	while ((c = cli_next(argc, argv, "h", longs, help)) >= 0)
		timeout_s = cli_parse_timeout(argv[0], optarg);
	if (argc - optind != 1)
		cli_usage(argv[0], "one directory is wanted");
	int rc = cli_mount_at(argv[0], argv[optind], &m);
	if (rc != 0)
		return rc;
	cli_daemon_find(&m, &d);
	char *dir = xstrdup(m.dir), *device = cli_mount_device(&m);
	cli_mount_finish(&m); /* our descriptor would keep it busy */
	rc = unmount(dir, &d);
	if (rc == 0) {
		end_late(&d, device);
		rc = cli_daemon_wait(argv[0], &d, timeout_s, "it is unmounted");
	}
	cli_daemon_finish(&d);
	free(device);
	free(dir);
	return rc;
}
