/* SPDX-License-Identifier: MIT */
/* A key that was taken, and the command that works on it.
 *
 * The command leads a process group of its own, so that all it started can be
 * stopped with it. What outlives it becomes our child (cli_work.c makes us the
 * subreaper), so that SIGCHLD also tells when the last of the group is gone: a
 * key is given back only then, or after KILL. */
#include "fs/cli_work_impl.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/cli.h"
#include "fs/util.h"
#include "ring/ring.h"

extern char **environ;

static void say(const struct job *job, const char *what, const char *more)
{
	char *shown = cli_printable(job->key);

	cli_say("work", "'%s': %s%s", shown, what, more);
	free(shown);
}

/* ---- What the command is given ---- */

/* The variables of a job; RINGFS_<NAME>=value. */
static const struct variable {
	const char *name;
	const char *fact; /* of owned/KEY; or NULL */
} variables[] = {
	{"KEY", NULL},
	{"MOUNT", NULL},
	{"NODE", NULL},
	{"TOKEN", "token"},
	{"FROM", "from"},
	{"REASON", "reason"},
	{"ATTEMPTS", "attempts"},
};

#define N_VARIABLES (sizeof(variables) / sizeof(variables[0]))

static bool is_variable(const char *entry)
{
	static const char prefix[] = "RINGFS_";
	size_t skip = sizeof(prefix) - 1;

	if (strncmp(entry, prefix, skip) != 0)
		return false;
	for (size_t i = 0; i < N_VARIABLES; i++) {
		size_t n = strlen(variables[i].name);
		if (strncmp(entry + skip, variables[i].name, n) == 0 &&
		    entry[skip + n] == '=')
			return true;
	}
	return false;
}

/* This node's name, as the tree has it; "" if it cannot be told. */
static void read_node(const char *dir, struct text *out)
{
	char name[RING_NAME_MAX + 1], *path = xasprintf("%s/peers/self", dir);
	ssize_t n = readlink(path, name, sizeof(name));

	if (n > 0)
		text_add(out, name, (size_t)n);
	text_add(out, "", 1);
	free(path);
}

static int read_variable(const struct work *w, const struct job *job, size_t i,
			 char **out)
{
	char *path = work_path(w->dir, "owned", job->key);
	struct text value = {0};
	int rc = 0;

	if (variables[i].fact != NULL) {
		rc = work_fact(path, variables[i].fact, &value);
	} else if (strcmp(variables[i].name, "NODE") == 0) {
		read_node(w->dir, &value);
	} else {
		bool key = strcmp(variables[i].name, "KEY") == 0;
		text_puts(&value, key ? job->key : w->dir);
		text_add(&value, "", 1);
	}
	*out = xasprintf("RINGFS_%s=%s", variables[i].name, value.base);
	text_finish(&value);
	free(path);
	return rc == -ENODATA ? 0 : rc;
}

/* The environment: the variables of the job, which are the array's to release,
 * then ours. */
static int make_environment(const struct work *w, const struct job *job,
			    char ***out)
{
	size_t n = 0, at = N_VARIABLES;
	int rc = 0;

	while (environ[n] != NULL)
		n++;
	char **all = xcalloc(N_VARIABLES + n + 1, sizeof(*all));
	for (size_t i = 0; rc == 0 && i < N_VARIABLES; i++)
		rc = read_variable(w, job, i, &all[i]);
	for (size_t i = 0; i < n; i++)
		if (!is_variable(environ[i]))
			all[at++] = environ[i];
	*out = all;
	return rc;
}

static void free_environment(char **all)
{
	for (size_t i = 0; i < N_VARIABLES; i++)
		free(all[i]);
	free(all);
}

/* The note, as a file in memory that begins at its begin; a descriptor. */
static int open_note(const struct work *w, const struct job *job)
{
	char *path = work_path(w->dir, "owned", job->key);
	struct text note = {0};
	int rc = cli_read_file(-1, path, &note);
	int fd = -1;

	free(path);
	if (rc == 0) {
		fd = memfd_create("note", MFD_CLOEXEC);
		if (fd < 0 || (note.len > 0 && pwrite(fd, note.base, note.len,
						      0) != (ssize_t)note.len))
			rc = fd < 0 ? -errno : -ENOMEM;
	}
	if (rc < 0 && fd >= 0)
		close(fd);
	text_finish(&note);
	return rc < 0 ? rc : fd;
}

/* ---- Its process ---- */

/* As a shell would start it: signals are blocked with us, not with it. */
static int spawn(struct work *w, struct job *job, int note, char **environment)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP |
						POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, note, STDIN_FILENO);
	w->argv[w->argc] = job->key;
	int rc = -posix_spawnp(&job->group, w->argv[0], &actions, &attr,
			       w->argv, environment);
	w->argv[w->argc] = NULL;
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return rc;
}

static void settle_from(struct work *w, struct job *job)
{
	if (job->stage != JOB_SETTLES && job->group != 0)
		w->n_busy--;
	job->stage = JOB_SETTLES;
	job->due_ms = 0;
	job->wait_ms = WORK_RETRY_MIN_MS;
}

/* The command could not be started: as if it had ended with 127. */
static void not_started(struct work *w, struct job *job, int rc)
{
	char *shown = cli_printable(w->argv[0]);

	snprintf(job->why, sizeof(job->why), "cannot run '%.64s': %s", shown,
		 strerror(-rc));
	free(shown);
	job->group = 0;
	w->failed = true;
	settle_from(w, job);
}

static int run(struct work *w, struct job *job)
{
	char **environment = NULL;
	int note = open_note(w, job);
	int rc = note < 0 ? note : 0;

	if (rc == 0)
		rc = make_environment(w, job, &environment);
	if (rc == 0) {
		int error = spawn(w, job, note, environment);
		if (error < 0) {
			not_started(w, job, error);
		} else {
			job->stage = JOB_RUNS;
			job->due_ms =
				w->timeout_ms ? boot_ms() + w->timeout_ms : 0;
			w->n_busy++;
		}
	}
	if (note >= 0)
		close(note);
	if (environment != NULL)
		free_environment(environment);
	return rc;
}

static struct job *add(struct work *w, const char *key)
{
	struct job *job = xcalloc(1, sizeof(*job));

	job->key = xstrdup(key);
	job->next = w->jobs;
	w->jobs = job;
	return job;
}

static void remove_first(struct work *w)
{
	struct job *job = w->jobs;

	w->jobs = job->next;
	free(job->key);
	free(job);
}

/* It was in recover/ after all, and now it is taken. */
static void forget_doubt(struct work *w, const char *key)
{
	for (struct job **at = &w->jobs; *at != NULL;) {
		struct job *job = *at;
		if (job->token != 0 || strcmp(job->key, key) != 0) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		free(job->key);
		free(job);
	}
}

/* Nobody knows whether we have it: if it turns up in owned/, it goes back. */
static void doubt(struct work *w, struct job *job)
{
	snprintf(job->why, sizeof(job->why),
		 "it was not known whether it is taken");
	settle_from(w, job);
	job->due_ms = boot_ms() + job->wait_ms;
}

int job_start(struct work *w, const char *key)
{
	int rc = work_take(w->dir, key);

	if (rc < 0 && rc != -ETIMEDOUT)
		return rc;
	forget_doubt(w, key);
	struct job *job = add(w, key);
	if (rc == -ETIMEDOUT) { /* untested: needs a majority that is slow */
		doubt(w, job);
		return rc;
	}
	char *path = work_path(w->dir, "owned", key);
	rc = work_number(path, "token", &job->token);
	free(path);
	if (rc == 0)
		rc = run(w, job);
	if (rc == 0)
		return 0;
	if (rc == -ENOENT || rc == -ESTALE || work_is_gone(rc)) {
		remove_first(w); /* taken away again */
		return rc == -ESTALE ? -ENOENT : rc;
	}
	snprintf(job->why, sizeof(job->why), "cannot read its note: %s",
		 strerror(-rc));
	w->failed = true;
	settle_from(w, job);
	return 0;
}

/* ---- Stopping it ---- */

static bool group_is_gone(const struct job *job)
{
	return job->reaped && kill(-job->group, 0) < 0 && errno == ESRCH;
}

static void stop(struct work *w, struct job *job, const char *why)
{
	assert(job->stage == JOB_RUNS);
	snprintf(job->why, sizeof(job->why), "%s", why);
	w->failed = true;
	job->finish = false;
	job->stage = JOB_STOPS;
	job->due_ms = boot_ms() + WORK_GRACE_MS;
	kill(-job->group, SIGTERM);
	kill(-job->group, SIGCONT); /* or it would not hear of it */
}

/* KILL is certain: of what we are no parent of, no more will be heard. */
static void kill_rest(struct work *w, struct job *job)
{
	kill(-job->group, SIGKILL);
	job->due_ms = 0;
	if (job->reaped)
		settle_from(w, job);
}

void jobs_stop(struct work *w, const char *why)
{
	for (struct job *job = w->jobs; job != NULL; job = job->next)
		if (job->stage == JOB_RUNS)
			stop(w, job, why);
}

static void check(struct work *w, struct job *job)
{
	char *path = work_path(w->dir, "owned", job->key);
	uint64_t token;
	int rc = work_number(path, "token", &token);

	free(path);
	if (work_is_gone(rc))
		w->gone = true;
	if (rc == -ENOENT || (rc == 0 && token != job->token)) {
		job->lost = true;
		say(job, "it is no longer held here; its command is stopped",
		    "");
		stop(w, job, "it was out of sight");
	}
}

void jobs_check(struct work *w, const char *name)
{
	for (struct job *job = w->jobs; job != NULL; job = job->next)
		if (job->stage == JOB_RUNS &&
		    (name == NULL || strcmp(name, job->key) == 0))
			check(w, job);
}

/* ---- Its end ---- */

static void ended(struct work *w, struct job *job, int status)
{
	job->reaped = true;
	if (job->stage == JOB_RUNS && WIFEXITED(status) &&
	    WEXITSTATUS(status) == 0) {
		job->finish = true;
		settle_from(w, job);
		return;
	}
	if (job->stage == JOB_RUNS) {
		char why[64];
		if (WIFEXITED(status))
			snprintf(why, sizeof(why),
				 "the command ended with status %d",
				 WEXITSTATUS(status));
		else
			snprintf(why, sizeof(why),
				 "the command was ended by signal %d",
				 WTERMSIG(status));
		stop(w, job, why); /* what it left behind */
	}
	if (job->due_ms == 0)
		settle_from(w, job); /* by KILL */
}

void jobs_reap(struct work *w)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct job *job = w->jobs;
		while (job != NULL && (job->group != pid || job->reaped))
			job = job->next;
		if (job != NULL) /* else what a command left behind */
			ended(w, job, status);
	}
	for (struct job *job = w->jobs; job != NULL; job = job->next)
		if (job->stage == JOB_STOPS && group_is_gone(job))
			settle_from(w, job);
}

/* ---- Finishing and giving back ---- */

/* Is it still as we took it, wherever it shows? 0, -ENOENT if not. */
static int still_ours(const struct work *w, const struct job *job,
		      uint64_t *attempts)
{
	char *path = work_path(w->dir, "keys", job->key);
	struct text state = {0};
	uint64_t token;
	int rc = work_number(path, "token", &token);

	if (rc == 0)
		rc = work_fact(path, "state", &state);
	if (rc == 0)
		rc = work_number(path, "attempts", attempts);
	if (rc == 0 && ((job->token != 0 && token != job->token) ||
			(strcmp(state.base, "held") != 0 &&
			 strcmp(state.base, "releasing") != 0)))
		rc = -ENOENT;
	text_finish(&state);
	free(path);
	return rc;
}

static bool is_parked(const struct work *w, const struct job *job)
{
	char *path = work_path(w->dir, "parked", job->key);
	bool is = access(path, F_OK) == 0;

	free(path);
	return is;
}

static int give_back(const struct work *w, const struct job *job)
{
	uint64_t attempts = 0;
	int rc = still_ours(w, job, &attempts);

	if (rc < 0)
		return rc;
	bool park = w->attempts != 0 && attempts >= w->attempts;
	rc = work_give(w->dir, job->key, park);
	if (rc == 0)
		say(job, job->why,
		    park || is_parked(w, job) ? "; parked" : "; given back");
	/* Held, and not to be seen: later. */
	return rc == -ENOENT ? -EAGAIN : rc;
}

static int settle(const struct work *w, struct job *job)
{
	int rc = job->finish ? work_finish(w->dir, job->key, job->token)
			     : give_back(w, job);

	if (rc != -ENOENT)
		return rc;
	if (job->token == 0)
		return -EAGAIN; /* it may yet turn up */
	if (job->finish && job->n_tries == 0)
		say(job,
		    "its command ended well, but it was no longer held "
		    "here",
		    "");
	return 0; /* it is over, whoever did that */
}

/* Has job come to its end? */
static bool try_settle(struct work *w, struct job *job)
{
	if (w->gone)
		return true;
	int rc = settle(w, job);
	if (rc == 0)
		return true;
	if (work_is_gone(rc)) {
		w->gone = true;
		return true;
	}
	const char *what =
		job->finish ? "cannot finish it: " : "cannot give it back: ";
	if (!work_may_pass(rc) || w->hurry) {
		say(job, what, strerror(-rc));
		w->unsettled = true;
		return true;
	}
	if (job->n_tries++ == 0 && !job->lost && job->token != 0)
		say(job, what, strerror(-rc));
	/* Of an unknown outcome no more can come. */
	if (job->token == 0 && job->n_tries > 6)
		return true;
	job->due_ms = boot_ms() + job->wait_ms;
	job->wait_ms = job->wait_ms * 2 < WORK_RETRY_MAX_MS ? job->wait_ms * 2
							    : WORK_RETRY_MAX_MS;
	return false;
}

/* Do what is due for job. Has it come to its end? */
static bool advance(struct work *w, struct job *job, uint64_t now_ms)
{
	bool due = job->due_ms != 0 && now_ms >= job->due_ms;

	switch (job->stage) {
	case JOB_RUNS:
		if (due)
			stop(w, job, "the command ran out of time");
		return false;
	case JOB_STOPS:
		if (due)
			kill_rest(w, job);
		if (job->stage != JOB_SETTLES)
			return false;
		return try_settle(w, job);
	case JOB_SETTLES:
		return (job->due_ms == 0 || due || w->hurry || w->gone) &&
		       try_settle(w, job);
	}
	return false;
}

void jobs_advance(struct work *w)
{
	uint64_t now_ms = boot_ms();

	for (struct job **at = &w->jobs; *at != NULL;) {
		struct job *job = *at;
		if (!advance(w, job, now_ms)) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		free(job->key);
		free(job);
	}
}

uint64_t jobs_due(const struct work *w, uint64_t limit_ms)
{
	for (const struct job *job = w->jobs; job != NULL; job = job->next)
		if (job->due_ms != 0 && job->due_ms < limit_ms)
			limit_ms = job->due_ms;
	return limit_ms;
}
