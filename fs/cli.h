/* SPDX-License-Identifier: MIT */
/* The client verbs: what a person or a script asks of a mounted ring.
 *
 * They work through the mounted tree only (paths, extended attributes, ctl), so
 * whatever a verb does can be done without it. Each verb is a main of its own
 * with argv[0] = its name; it ends by returning an exit status (interface.md 3),
 * or by exit() for --help and wrong usage. Answers go to stdout, everything else
 * to stderr, one line per failing key:
 *
 *   ringfs: claim: 'order-42': File exists (held by n2)
 *
 * Thread: the only one. */
#ifndef FS_CLI_H
#define FS_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct text;

int cli_claim(int argc, char **argv);
int cli_finish(int argc, char **argv);
int cli_submit(int argc, char **argv);
int cli_show(int argc, char **argv);
int cli_route(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_umount(int argc, char **argv);
int cli_work(int argc, char **argv);
int cli_members(int argc, char **argv);
int cli_ring(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_join(int argc, char **argv);
int cli_drain(int argc, char **argv);
int cli_resume(int argc, char **argv);
int cli_leave(int argc, char **argv);
int cli_forget(int argc, char **argv);
int cli_keygen(int argc, char **argv);
int cli_keys(int argc, char **argv);
int cli_recover(int argc, char **argv);

/* ---- Shared by them (cli.c) ---- */

/* The next option, as getopt_long() gives it; -1 at the end, when optind is the
 * first argument. -h or --help shows help and exits; so does, with 64, what is
 * no option of the verb's. */
int cli_next(int argc, char **argv, const char *letters,
	     const struct option *longs, const char *help);

/* Say `ringfs: VERB: sentence` on stderr. */
void cli_say(const char *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The same, and "Try 'ringfs VERB --help'", and exit with 64. */
_Noreturn void cli_usage(const char *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The exit status for a negative errno. 0 for 0. */
int cli_status_of(int rc);

/* Say that key could not be dealt with because of rc < 0; hint is empty or more
 * about it. Gives the exit status. */
int cli_refused(const char *verb, const char *key, int rc, const char *hint);

/* s with control characters as \xNN. free() releases it. */
char *cli_printable(const char *s);

/* Everything in the file at path, below dir_fd. 0 or a negative errno. */
int cli_read_file(int dir_fd, const char *path, struct text *out);

/* The extended attribute user.ring.NAME of keys/KEY. 0; -ENODATA, -ENOENT, ... */
int cli_read_xattr(int dir_fd, const char *key, const char *name,
		   struct text *out);

/* The text of the link route/KEY, without the ../peers/. 0 or negative errno. */
int cli_read_route(int dir_fd, const char *key, struct text *out);

/* Write line, and a newline, to ctl: one verb. 0 or a negative errno. */
int cli_write_ctl(int dir_fd, const char *line);

/* Can key be the last part of a path? Exits with 64 if not. */
void cli_check_key(const char *verb, const char *key);

/* ---- Which ring (cli_mount.c) ---- */

struct cli_mount {
	char *dir; /* where it is mounted */
	int fd;	   /* of its root, O_PATH */
};

/* Find the ring that is meant: given (of -m, may be NULL), else $RINGFS, else the
 * one the working directory is in, else the only one there is. Asks nothing of
 * the daemon, so a dead or stopped one does no harm.
 *
 * 0, or the exit status: 64 (several), 69 (none), after a line on stderr. */
int cli_mount_find(const char *verb, const char *given, struct cli_mount *out);

/* As above for the ring that is mounted at dir itself, not around it. */
int cli_mount_at(const char *verb, const char *dir, struct cli_mount *out);
void cli_mount_finish(struct cli_mount *m);

/* The device of m as "major:minor", the same wherever it is mounted; NULL if it is
 * not there any more. free() releases it. */
char *cli_mount_device(const struct cli_mount *m);

/* Is the ring of that device mounted anywhere in our mount namespace? */
bool cli_mount_is_anywhere(const char *device);

/* The number of the mount that fd is in, as /proc/self/mountinfo counts; -1 for
 * none. Asks nothing of the daemon. */
int cli_mount_id(int fd);

/* ---- Is the daemon there (cli_status.c) ---- */

/* status/json, from a daemon that may be stopped or dead: 0; -ETIMEDOUT when it
 * has said nothing for wait_ms; -ENOTCONN, ... */
int cli_ask_status(const struct cli_mount *m, int wait_ms, struct text *out);

/* The daemon's process id. 0, or as above. */
int cli_daemon_pid(const struct cli_mount *m, int wait_ms, pid_t *out);

#endif
