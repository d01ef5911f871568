/* SPDX-License-Identifier: MIT */
/* The background: the command returns when the daemon serves, not before.
 *
 *   daemonize_begin   fork; the parent stays in the foreground and waits
 *   ... the child opens its state, mounts, joins; the parent passes on what it
 *       says, so that every sentence reaches whoever gave the command ...
 *   daemonize_ready   the child lets go of the terminal; the parent ends, 0
 *   daemonize_fail    or: says why; when the child ends, the parent ends with
 *                     the child's status
 *
 * Until then the two are tied together: an interrupted parent takes the child
 * with it (SIGTERM), a child that dies is reported with its signal. In the
 * foreground the same calls do the little that is left to do, so that the caller
 * has one way for both.
 *
 * Before any thread, loop or lock file exists: a fork keeps none of them. */
#ifndef FS_DAEMONIZE_H
#define FS_DAEMONIZE_H

#include <stdbool.h>

struct daemonize {
	int fd; /* to the waiting parent; -1 when nobody waits */
};

/* Go to the background (a new session, cwd "/", stdin from /dev/null), or with
 * background == false stay. The parent does not return from here.
 *
 * 0 in the child; -EAGAIN, -ENOMEM, -EMFILE. */
int daemonize_begin(struct daemonize *d, bool background);

/* The mount serves. In the background: stdout goes to /dev/null and stderr is
 * appended to the file at log_path (made with mode 0600; if it cannot be opened,
 * that is said and nothing is logged), then the parent ends with status 0. Call
 * log_*() from then on. No-op in the foreground. */
void daemonize_ready(struct daemonize *d, const char *log_path);

/* It will not serve: say `ringfs: mount: errmsg` on stderr. Gives status, for
 * `return daemonize_fail(...)`: the parent ends with what the child's main
 * returns. Not after daemonize_ready(). */
int daemonize_fail(struct daemonize *d, int status, const char *errmsg);

#endif
