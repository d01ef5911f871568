/* SPDX-License-Identifier: MIT */
/* The daemon's process, while a verb waits for its end. Thread: the only one. */
#ifndef FS_CLI_DAEMON_H
#define FS_CLI_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cli_mount;

struct cli_daemon {
	pid_t pid;
	int fd;	   /* readable when it is gone; -1: nobody can be waited for */
	bool mute; /* it is there, or may be, and did not say who it is */
};

/* Who serves m. cli_daemon_finish() releases it. */
void cli_daemon_find(const struct cli_mount *m, struct cli_daemon *d);
void cli_daemon_finish(struct cli_daemon *d);

/* Ask it to end. 0 or a negative errno. */
int cli_daemon_stop(const struct cli_daemon *d);

/* Wait until it is gone; done, the beginning of a sentence, is what has been
 * reached until then. The exit status: 0, or 124 after that sentence. */
int cli_daemon_wait(const char *verb, const struct cli_daemon *d,
		    uint32_t timeout_s, const char *done);

/* The value of --timeout S: seconds, 1 to 86400. Exits with 64. */
uint32_t cli_parse_timeout(const char *verb, const char *s);

#endif
