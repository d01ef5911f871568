/* SPDX-License-Identifier: MIT */
#include "fs/cli_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/cli.h"
#include "fs/text.h"
#include "fs/util.h"

#define ASK_MS	   2000 /* for the daemon's process id */
#define STILL_RUNS 124	/* exit status, as timeout(1) */

/* Is process pid a ringfs? The id came from a daemon that may count processes in
 * another namespace. */
static bool is_ringfs(pid_t pid)
{
	char *path = xasprintf("/proc/%ld/comm", (long)pid);
	struct text comm = {0};
	int rc = cli_read_file(AT_FDCWD, path, &comm);

	text_add(&comm, "", 1);
	bool is = rc == 0 && strstr(comm.base, "ringfs") != NULL;
	text_finish(&comm);
	free(path);
	return is;
}

void cli_daemon_find(const struct cli_mount *m, struct cli_daemon *d)
{
	*d = (struct cli_daemon){.fd = -1};
	int rc = cli_daemon_pid(m, ASK_MS, &d->pid);

	d->mute = rc == -ETIMEDOUT;
	if (rc < 0 || d->pid <= 0)
		return;
	d->fd = (int)syscall(SYS_pidfd_open, d->pid, 0);
	if (d->fd >= 0 && !is_ringfs(d->pid))
		cli_daemon_finish(d);
}

void cli_daemon_finish(struct cli_daemon *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

int cli_daemon_stop(const struct cli_daemon *d)
{
	if (d->fd < 0)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, d->fd, SIGTERM, NULL, 0) == 0
		       ? 0
		       : -errno;
}

int cli_daemon_wait(const char *verb, const struct cli_daemon *d,
		    uint32_t timeout_s, const char *done)
{
	uint64_t end = boot_ms() + (uint64_t)timeout_s * 1000, now;

	if (d->mute) {
		cli_say(verb,
			"%s, but its daemon did not answer, and may still run",
			done);
		return STILL_RUNS;
	}
	if (d->fd < 0)
		return EX_OK;
	while ((now = boot_ms()) < end) {
		struct pollfd p = {.fd = d->fd, .events = POLLIN};
		if (poll(&p, 1, (int)(end - now)) > 0)
			return EX_OK;
	}
	cli_say(verb,
		"%s, but its daemon, process %ld, still runs; if nobody needs "
		"it, end it with: kill %ld",
		done, (long)d->pid, (long)d->pid);
	return STILL_RUNS;
}

uint32_t cli_parse_timeout(const char *verb, const char *s)
{
	size_t n = strspn(s, "0123456789");
	unsigned long v =
		n > 0 && n < 6 && s[n] == '\0' ? strtoul(s, NULL, 10) : 0;

	if (v < 1 || v > 86400)
		cli_usage(verb, "--timeout %s: must be 1 to 86400 seconds", s);
	return (uint32_t)v;
}
