/* SPDX-License-Identifier: MIT */
/* Inside `ringfs work`.
 *
 *   cli_work.c       options, the loop: what to wait for, what to take
 *   cli_work_job.c   a key that was taken, and the command that works on it
 *   cli_work_tree.c  what these do to the tree
 *
 * No descriptor of the tree is kept, and none is given to a command (the note
 * comes in memory): one would make the mount busy, and keep it alive, unseen,
 * after a lazy unmount. So everything goes by path from the mountpoint, and the
 * watches of inotify, which hold nothing, tell of the end.
 *
 * Thread: the only one. */
#ifndef FS_CLI_WORK_IMPL_H
#define FS_CLI_WORK_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/text.h"

#define WORK_GRACE_MS	  5000	/* between TERM and KILL */
#define WORK_LOOK_MS	  30000 /* look again, whatever was heard */
#define WORK_RETRY_MIN_MS 1000	/* after a refusal that may pass; doubles */
#define WORK_RETRY_MAX_MS 30000

/* ---- The tree (cli_work_tree.c). 0 or a negative errno. ---- */

/* The names in recover/, as a new array of *n new strings. */
int work_list(const char *dir, char ***names, size_t *n);

/* recover/KEY to owned/; -ENOENT: somebody was faster. */
int work_take(const char *dir, const char *key);

/* owned/KEY to recover/, or to parked/. */
int work_give(const char *dir, const char *key, bool park);

/* Only in the life with this token; -ENOENT: that is over. */
int work_finish(const char *dir, const char *key, uint64_t token);

/* The attribute user.ring.NAME of FOLDER/KEY, ended by a NUL. */
int work_fact(const char *path, const char *name, struct text *out);
/* The same as a number. */
int work_number(const char *path, const char *name, uint64_t *out);
/* free() releases it. */
char *work_path(const char *dir, const char *folder, const char *key);

/* May it pass: no majority, outcome unknown, disk full ...? */
bool work_may_pass(int rc);
/* Does it say that nobody serves the tree any more? */
bool work_is_gone(int rc);

/* ---- Jobs (cli_work_job.c) ---- */

enum job_stage {
	JOB_RUNS,    /* due_ms: its time is over; 0: never */
	JOB_STOPS,   /* TERM was sent; due_ms: KILL follows */
	JOB_SETTLES, /* the command is gone; due_ms: try again */
};

/*  take -> RUNS -- exit 0 ---------------------> SETTLES: finish -> ended
 *            |---- exit, nobody left of it ----> SETTLES: give back -> ended
 *            `---- lost, timeout, told to -> STOPS -> SETTLES: give back
 *
 * To give back a key that is lost does nothing, for its token has changed; but
 * one that was only out of sight, while the node was without a majority, must
 * not stay in owned/ with nobody at work on it. */
struct job {
	char *key;
	uint64_t token; /* of the life that was taken; 0: outcome unknown */
	enum job_stage stage;
	bool finish; /* else give back */
	pid_t group; /* the command's id, and its group's; 0: never began */
	bool reaped; /* the command itself */
	bool lost;
	char why[128]; /* it is given back */
	uint64_t due_ms, wait_ms;
	unsigned n_tries;
	struct job *next;
};

struct work {
	/* Set by the caller. */
	const char *dir; /* the mountpoint */
	char **argv;	 /* of the command, with room for the key and a NULL */
	size_t argc;	 /* without these */
	uint64_t attempts; /* park at so many; 0: the ring's own limit */
	uint64_t timeout_ms;

	struct job *jobs;
	size_t n_busy;	/* jobs in RUNS and STOPS */
	bool gone;	/* nobody serves the tree: settle nothing */
	bool hurry;	/* try to settle once, then leave it */
	bool failed;	/* a command did not succeed */
	bool unsettled; /* a key was left as it is */
};

/* Take key and run the command for it. 0: there is a job now; -ENOENT: it was
 * not there; else why not. */
int job_start(struct work *w, const char *key);

/* Of all that run: is the key still ours? With name: of that only. */
void jobs_check(struct work *w, const char *name);

/* Children have ended. */
void jobs_reap(struct work *w);

/* Do what is due, and release the jobs that have come to their end. */
void jobs_advance(struct work *w);

/* Stop all that run; why is said of each. */
void jobs_stop(struct work *w, const char *why);

/* The first time at which something is due, at most limit_ms. */
uint64_t jobs_due(const struct work *w, uint64_t limit_ms);

#endif
