/* SPDX-License-Identifier: MIT */
#include "fs/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/check.h"

static char folder[] = "/tmp/daemonize_test.XXXXXX";
static char log_path[64];
static char marks_path[64]; /* what the daemon did: nothing of ours that is open
			     * would be open in it */
static char said[4096];	    /* by the command on stdout and stderr */

enum what {
	READY,
	READY_NO_LOG,
	FAIL,
	STOPPED,
	CRASH,
	WAIT
};

static void mark(const char *letter)
{
	int fd = open(marks_path, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (fd < 0 || write(fd, letter, 1) != 1)
		_exit(96);
	close(fd);
}

/* The daemon's part. held is a descriptor of the command's caller. */
static void serve(enum what what, int held)
{
	struct daemonize d;
	char cwd[8];

	if (daemonize_begin(&d, true) != 0)
		_exit(99);
	if (getcwd(cwd, sizeof(cwd)) == NULL || strcmp(cwd, "/") != 0 ||
	    getsid(0) != getpid() || fcntl(held, F_GETFD) >= 0)
		_exit(98);
	mark("s");
	switch (what) {
	case READY:
	case READY_NO_LOG:
		fputs("before\n", stderr);
		daemonize_ready(&d, what == READY ? log_path : "/");
		fputs("after\n", stderr);
		break;
	case FAIL:
		_exit(daemonize_fail(&d, 78, "the sentence"));
	case STOPPED:
		_exit(0);
	case CRASH:
		raise(SIGKILL);
		break;
	case WAIT:
		pause();
		break;
	}
	mark("e"); /* it has let go of the parent */
	_exit(0);
}

/* Run the command. Gives its wait status. */
static int command(enum what what)
{
	int out[2], wstatus;
	size_t len = 0;
	ssize_t n;

	check(pipe2(out, O_CLOEXEC) == 0, "%d", errno);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(out[1], STDOUT_FILENO);
		dup2(out[1], STDERR_FILENO);
		serve(what, out[0]);
	}
	close(out[1]);
	if (what == WAIT) {
		for (int i = 0; i < 5000 && access(marks_path, F_OK) != 0; i++)
			usleep(1000);
		kill(pid, SIGTERM);
	}
	check(waitpid(pid, &wstatus, 0) == pid, "%d", errno);
	/* The end comes when the daemon, too, has let go. */
	while ((n = read(out[0], said + len, sizeof(said) - 1 - len)) > 0)
		len += (size_t)n;
	said[len] = '\0';
	close(out[0]);
	return wstatus;
}

static void expect(enum what what, int status, const char *words,
		   const char *marks)
{
	char got[8] = "";
	int wstatus = command(what);

	while (waitpid(-1, NULL, 0) > 0) /* the daemon: we reap orphans */
		;
	FILE *f = fopen(marks_path, "r");
	check(f != NULL, "%d", errno);
	got[fread(got, 1, sizeof(got) - 1, f)] = '\0';
	fclose(f);
	unlink(marks_path);
	check(strcmp(got, marks) == 0, "%s", got);
	check(strcmp(said, words) == 0, "'%s'", said);
	if (what == WAIT)
		check_int(wstatus, SIGTERM);
	else
		check_int(wstatus, status << 8);
}

static void foreground(void)
{
	struct daemonize d;

	check_int(daemonize_begin(&d, false), 0);
	daemonize_ready(&d, "/nonexistent/log");
	ok("in the foreground nothing happens");
}

int main(void)
{
	char text[64];

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	check(mkdtemp(folder) != NULL, "%s", folder);
	snprintf(log_path, sizeof(log_path), "%s/log", folder);
	snprintf(marks_path, sizeof(marks_path), "%s/marks", folder);
	expect(READY, 0, "before\n", "se");
	struct stat st;
	check(stat(log_path, &st) == 0 && (st.st_mode & 07777) == 0600, "%o",
	      st.st_mode);
	FILE *f = fopen(log_path, "r");
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	check(strcmp(text, "after\n") == 0, "%s", text);
	ok("the command ends with 0 when the daemon serves, its output too, "
	   "and what its caller had open is closed");
	expect(READY_NO_LOG, 0,
	       "before\nringfs: mount: /: Is a directory; nothing is logged\n",
	       "se");
	ok("without a log file that is said, and the command ends all the "
	   "same");
	expect(FAIL, 78, "ringfs: mount: the sentence\n", "s");
	ok("a daemon that fails gives the command its sentence and status");
	expect(STOPPED, 71,
	       "ringfs: mount: the daemon was stopped before it served\n", "s");
	ok("a daemon that is stopped too early is no success");
	expect(CRASH, 71,
	       "ringfs: mount: the daemon was ended by signal 9 (Killed) "
	       "before "
	       "it served\n",
	       "s");
	ok("a daemon that dies is reported with its signal");
	expect(WAIT, 0, "", "s");
	ok("a command that is killed takes its daemon with it");
	foreground();
	unlink(log_path);
	check(rmdir(folder) == 0, "%d", errno);
	return 0;
}
