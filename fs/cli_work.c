/* SPDX-License-Identifier: MIT */
/* The right loop over recover/: arm, list, take, work, wait.
 *
 * A listing is the truth and events only wake (interface.md 2.7), so whatever is
 * heard of recover/ means: list again. The names of a listing are taken one by
 * one as places for commands come free; then, if something was heard since, the
 * next listing is made. Every wait is limited, and looks again when it is over.
 *
 * The mount's end is heard as IN_UNMOUNT, or, when somebody's descriptor keeps
 * the tree alive, from the table of mounts. */
#include "fs/cli.h"
#include "fs/cli_work_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/util.h"

#define JOBS_MAX	1024
#define ATTEMPTS_MAX	65535
#define TIMEOUT_MAX	604800 /* s: a week */
#define CANNOT_EXECUTE	126    /* exit status, as env(1) */
#define NO_SUCH_COMMAND 127

static const char help[] =
	"Usage: ringfs work [OPTION]... [--] CMD [ARG]...\n"
	"Take each key that is offered in recover/ and run CMD for it: the\n"
	"key is the last argument, the note is on stdin. A key is finished\n"
	"if CMD ends with status 0, else given back: it comes again after\n"
	"1, 2, 4 ... seconds. When a key is lost, CMD and its process group\n"
	"get TERM, and 5 seconds later KILL.\n"
	"\n"
	"Options:\n"
	"  -j, --jobs N       run so many at a time, 1 to 1024 (default: 1)\n"
	"      --attempts N   park a key that is given back for the Nth time\n"
	"                     or later (default: the ring's max-attempts)\n"
	"      --timeout S    stop a CMD that runs longer, 1 to 604800\n"
	"      --once         work off what is offered now, and end\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"CMD finds in its environment RINGFS_KEY, RINGFS_TOKEN,\n"
	"RINGFS_ATTEMPTS, RINGFS_REASON, RINGFS_FROM, RINGFS_NODE and\n"
	"RINGFS_MOUNT.\n"
	"TERM and INT: take no more, wait for those that run, and end; at\n"
	"the second, stop them and give their keys back.\n"
	"\n"
	"Exit status: 0 done, or told to end; 1 with --once: a CMD failed;\n"
	"64 usage; 69 no daemon, or it was unmounted; 71 the system refused;\n"
	"75 a key could not be taken or given back (no majority);\n"
	"77 permission; 126, 127 CMD cannot be run, or is not there: nothing\n"
	"was taken.\n"
	"\n"
	"Examples:\n"
	"  ringfs work -- ship-order\n"
	"  ringfs work -j 4 --attempts 3 -- sh -c 'tee \"log/$1\"' work\n"
	"  ringfs work --once -m /srv/ring -- rsync-to backup\n";

/* ---- Options ---- */

struct asked {
	const char *mount;
	uint64_t jobs, attempts, timeout_s;
	bool once;
};

static uint64_t number(const char *verb, const char *option, uint64_t max)
{
	size_t n = strspn(optarg, "0123456789");
	unsigned long v = n > 0 && n < 8 && optarg[n] == '\0'
				  ? strtoul(optarg, NULL, 10)
				  : 0;

	if (v < 1 || v > max)
		cli_usage(verb, "%s %s: must be 1 to %llu", option, optarg,
			  (unsigned long long)max);
	return v;
}

static void parse(int argc, char **argv, struct asked *a)
{
	static const struct option longs[] = {
		{"jobs", required_argument, NULL, 'j'},
		{"attempts", required_argument, NULL, 'a'},
		{"timeout", required_argument, NULL, 't'},
		{"once", no_argument, NULL, 'o'},
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const char *verb = argv[0];
	int c;

	*a = (struct asked){.jobs = 1};
	/* '+': what follows CMD is CMD's. */
	while ((c = cli_next(argc, argv, "+j:m:h", longs, help)) >= 0) {
		if (c == 'j')
			a->jobs = number(verb, "-j", JOBS_MAX);
		if (c == 'a')
			a->attempts = number(verb, "--attempts", ATTEMPTS_MAX);
		if (c == 't')
			a->timeout_s = number(verb, "--timeout", TIMEOUT_MAX);
		if (c == 'm')
			a->mount = optarg;
		a->once |= c == 'o';
	}
	if (optind >= argc)
		cli_usage(verb, "the command is missing");
}

/* ---- Is there such a command ---- */

static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || access(path, X_OK) < 0)
		return -EACCES;
	return 0;
}

/* As execvp(3) looks for it. 0; -ENOENT, -EACCES. */
static int find_command(const char *name)
{
	const char *path = getenv("PATH");
	int rc = -ENOENT;

	if (strchr(name, '/') != NULL)
		return executable(name);
	char *all = xstrdup(path != NULL ? path : "/bin:/usr/bin");
	char *rest = all, *dir;
	while (rc != 0 && (dir = strsep(&rest, ":")) != NULL) {
		char *file = xasprintf("%s/%s", dir[0] ? dir : ".", name);
		int got = executable(file);
		if (got == 0 || got == -EACCES)
			rc = got;
		free(file);
	}
	free(all);
	return rc;
}

/* A wrong word in CMD would fail every key, and in the end park all of them. */
static int check_command(const char *name)
{
	int rc = find_command(name);

	if (rc == 0)
		return EX_OK;
	char *shown = cli_printable(name);
	cli_say("work", "'%s': %s", shown, strerror(-rc));
	free(shown);
	return rc == -EACCES ? CANNOT_EXECUTE : NO_SUCH_COMMAND;
}

/* ---- What is listened to ---- */

struct ears {
	int signals, inotify, mounts; /* descriptors */
	int recover, owned;	      /* watches */
	int mount;		      /* its number */
};

static int listen_for_signals(void)
{
	struct sigaction hup;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
		sigaddset(&set, SIGHUP); /* not under nohup */
	/* Ignored, it would take the children's ends away from us. */
	signal(SIGCHLD, SIG_DFL);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static int watch(int fd, const char *dir, const char *folder, uint32_t mask)
{
	char *path = xasprintf("%s/%s", dir, folder);
	int wd = inotify_add_watch(fd, path, mask | IN_ONLYDIR);
	int rc = wd < 0 ? -errno : wd;

	free(path);
	return rc;
}

static void ears_finish(struct ears *e)
{
	if (e->signals >= 0)
		close(e->signals);
	if (e->inotify >= 0)
		close(e->inotify);
	if (e->mounts >= 0)
		close(e->mounts);
}

/* 0 or a negative errno. */
static int ears_init(struct ears *e, const char *dir, int mount)
{
	*e = (struct ears){-1, -1, -1, -1, -1, mount};
	e->signals = listen_for_signals();
	if (e->signals < 0)
		return e->signals;
	/* Changes are counted from its opening. */
	e->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	e->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (e->mounts < 0 || e->inotify < 0)
		return -errno;
	e->recover = watch(e->inotify, dir, "recover", IN_CREATE | IN_MOVED_TO);
	if (e->recover < 0)
		return e->recover;
	e->owned = watch(e->inotify, dir, "owned", IN_DELETE | IN_MOVED_FROM);
	return e->owned < 0 ? e->owned : 0;
}

/* ---- The loop ---- */

struct loop {
	struct work work;
	struct ears ears;
	size_t n_jobs; /* at a time */
	bool once;
	bool stopped;		 /* since the tree is gone */
	bool taking;		 /* else no more */
	unsigned asked;		 /* how often we were asked to end */
	char **names;		 /* of the last listing */
	size_t n_names, n_taken; /* in that order */
	bool listed;		 /* once at least */
	bool stale;		 /* something was heard since */
	uint64_t look_ms;	 /* when to look again, whatever is heard */
	uint64_t wait_ms;	 /* after a refusal; 0: there was none */
	int status;
};

static void forget_names(struct loop *l)
{
	for (size_t i = 0; i < l->n_names; i++)
		free(l->names[i]);
	free(l->names);
	l->names = NULL;
	l->n_names = l->n_taken = 0;
}

static void hear_signals(struct loop *l)
{
	struct signalfd_siginfo info;

	while (read(l->ears.signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		l->taking = false;
		if (++l->asked == 2) {
			l->work.hurry = true;
			jobs_stop(&l->work, "it was stopped");
		}
	}
	jobs_reap(&l->work);
}

static void hear_event(struct loop *l, const struct inotify_event *e)
{
	if (e->mask & (IN_UNMOUNT | IN_IGNORED)) {
		l->work.gone = true;
	} else if (e->mask & IN_Q_OVERFLOW) {
		l->stale = true;
		jobs_check(&l->work, NULL);
	} else if (e->wd == l->ears.recover) {
		l->stale = true;
	} else if (e->wd == l->ears.owned && e->len > 0) {
		jobs_check(&l->work, e->name);
	}
}

static void hear_events(struct loop *l)
{
	_Alignas(struct inotify_event) char room[16384];
	ssize_t n;

	while ((n = read(l->ears.inotify, room, sizeof(room))) > 0) {
		for (char *p = room; p < room + n;) {
			/* inotify(7) promises the alignment. */
			const struct inotify_event *e = (const void *)p;
			hear_event(l, e);
			p += sizeof(*e) + e->len;
		}
	}
}

static void look_at_mount(struct loop *l)
{
	int fd = open(l->work.dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || cli_mount_id(fd) != l->ears.mount)
		l->work.gone = true;
	if (fd >= 0)
		close(fd);
}

/* Nothing is forgotten for longer than this, whatever was not heard. */
static void look(struct loop *l)
{
	l->look_ms = boot_ms() + WORK_LOOK_MS;
	l->stale = true;
	look_at_mount(l);
	jobs_check(&l->work, NULL);
}

static void refused(struct loop *l, const char *what, int rc)
{
	if (work_is_gone(rc)) {
		l->work.gone = true;
		return;
	}
	if (l->once) {
		int status =
			work_may_pass(rc) ? EX_TEMPFAIL : cli_status_of(rc);
		l->status = status > l->status ? status : l->status;
	}
	/* Of what passes, and of what will not, once is enough. */
	if (l->wait_ms == 0) {
		char *shown = cli_printable(what);
		cli_say("work", "'%s': cannot take it: %s", shown,
			strerror(-rc));
		free(shown);
	}
	if (!work_may_pass(rc)) {
		l->wait_ms = WORK_RETRY_MAX_MS;
		return;
	}
	uint64_t next = l->wait_ms ? l->wait_ms * 2 : WORK_RETRY_MIN_MS;
	l->wait_ms = next < WORK_RETRY_MAX_MS ? next : WORK_RETRY_MAX_MS;
	uint64_t at = boot_ms() + l->wait_ms;
	l->look_ms = at < l->look_ms ? at : l->look_ms;
}

static void list(struct loop *l)
{
	l->stale = false;
	l->listed = true;
	int rc = work_list(l->work.dir, &l->names, &l->n_names);
	if (rc == -ENOENT)
		l->work.gone = true;
	else if (rc < 0)
		refused(l, "recover", rc);
}

static void take_next(struct loop *l)
{
	const char *key = l->names[l->n_taken++];
	int rc = job_start(&l->work, key);

	if (rc == 0)
		l->wait_ms = 0;
	else if (rc != -ENOENT)
		refused(l, key, rc);
	/* The others would be refused, too. */
	if (work_may_pass(rc) || l->n_taken == l->n_names)
		forget_names(l);
}

/* Is there something to take, or to look for, and a place for it? */
static bool may_take(const struct loop *l)
{
	return l->taking && !l->work.gone && l->work.n_busy < l->n_jobs &&
	       (l->n_names > 0 || l->stale || l->once);
}

/* One step: between two of them signals are heard, and jobs settled. */
static void take(struct loop *l)
{
	if (l->n_names > 0)
		take_next(l);
	else if (l->once && l->listed)
		l->taking = false;
	else
		list(l);
}

/* Wait, unless there is more to take, and hear what there is. */
static void hear(struct loop *l)
{
	struct pollfd p[] = {
		{.fd = l->ears.signals, .events = POLLIN},
		{.fd = l->ears.inotify, .events = POLLIN},
		{.fd = l->ears.mounts, .events = POLLPRI},
	};
	uint64_t now = boot_ms();
	uint64_t due = may_take(l) ? now : jobs_due(&l->work, l->look_ms);

	if (poll(p, 3, due > now ? (int)(due - now) : 0) < 0)
		return; /* nothing that looking does not tell */
	if (p[0].revents)
		hear_signals(l);
	if (p[1].revents)
		hear_events(l);
	if (p[2].revents)
		look_at_mount(l);
}

static int result(const struct loop *l)
{
	if (l->work.gone)
		return EX_UNAVAILABLE;
	if (l->status != EX_OK)
		return l->status;
	if (l->work.unsettled)
		return EX_TEMPFAIL;
	return l->once && l->work.failed ? 1 : EX_OK;
}

/* Nothing can be settled any more, but nothing may go on. */
static void stop_all(struct loop *l)
{
	char *shown = cli_printable(l->work.dir);

	cli_say("work", "'%s': it was unmounted, or its daemon is dead", shown);
	free(shown);
	l->taking = false;
	l->stopped = true;
	jobs_stop(&l->work, "");
}

static int run(struct loop *l)
{
	l->stale = l->taking = true;
	l->look_ms = boot_ms() + WORK_LOOK_MS;
	look_at_mount(l); /* it may have gone before there were watches */
	for (;;) {
		if (boot_ms() >= l->look_ms)
			look(l);
		if (may_take(l))
			take(l);
		jobs_advance(&l->work);
		if (l->work.gone && !l->stopped)
			stop_all(l);
		if (l->work.jobs == NULL && !l->taking)
			return result(l);
		hear(l);
	}
}

static int work(struct loop *l, int mount)
{
	int rc = ears_init(&l->ears, l->work.dir, mount);

	if (rc < 0) {
		cli_say("work", "'%s': %s", l->work.dir, strerror(-rc));
		rc = work_is_gone(rc) || rc == -ENOENT ? EX_UNAVAILABLE
						       : cli_status_of(rc);
	} else {
		rc = run(l);
	}
	ears_finish(&l->ears);
	forget_names(l);
	return rc;
}

int cli_work(int argc, char **argv)
{
	struct asked a;
	struct cli_mount m;

	parse(argc, argv, &a);
	int rc = check_command(argv[optind]);
	if (rc != EX_OK)
		return rc;
	rc = cli_mount_find(argv[0], a.mount, &m);
	if (rc != EX_OK)
		return rc;
	int mount = cli_mount_id(m.fd);
	close(m.fd); /* it would keep the mount busy */
	m.fd = -1;
	struct loop l = {
		.work = {.dir = m.dir,
			 .argc = (size_t)(argc - optind),
			 .attempts = a.attempts,
			 .timeout_ms = a.timeout_s * 1000},
		.n_jobs = a.jobs,
		.once = a.once,
	};
	l.work.argv = xcalloc(l.work.argc + 2, sizeof(char *));
	memcpy(l.work.argv, argv + optind, l.work.argc * sizeof(char *));
	/* What outlives a command is ours to stop and to see the end of. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	rc = work(&l, mount);
	free(l.work.argv);
	cli_mount_finish(&m);
	return rc;
}
