/* SPDX-License-Identifier: MIT */
#include "fs/daemonize.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

/* The status of a parent whose child ended without saying that it serves. */
static int status_of(int wstatus)
{
	if (WIFSIGNALED(wstatus)) {
		fprintf(stderr,
			"ringfs: mount: the daemon was ended by signal %d "
			"(%s) before it served\n",
			WTERMSIG(wstatus), strsignal(WTERMSIG(wstatus)));
		return EX_OSERR;
	}
	if (WEXITSTATUS(wstatus) == 0) {
		fputs("ringfs: mount: the daemon was stopped before it "
		      "served\n",
		      stderr);
		return EX_OSERR;
	}
	return WEXITSTATUS(wstatus); /* it has said why */
}

/* Pass on what the child has said so far. */
static void relay(int said)
{
	char piece[1024];
	ssize_t n;

	while ((n = read(said, piece, sizeof(piece))) > 0)
		fwrite(piece, 1, (size_t)n, stderr);
}

/* fd: its word that it serves, or its end; said: its stdout and stderr. */
static _Noreturn void wait_for_child(pid_t child, int fd, int said)
{
	struct pollfd polls[] = {{.fd = fd, .events = POLLIN},
				 {.fd = said, .events = POLLIN}};
	int wstatus;
	char byte;

	while (polls[0].revents == 0) {
		while (poll(polls, 2, -1) < 0)
			assert(errno == EINTR);
		relay(said);
		if (polls[1].revents & (POLLHUP | POLLERR | POLLNVAL))
			polls[1].fd = -1;
	}
	if (read(fd, &byte, 1) == 1) {
		relay(said);
		exit(0);
	}
	while (waitpid(child, &wstatus, 0) < 0)
		assert(errno == EINTR);
	relay(said);
	exit(status_of(wstatus));
}

/* Put the file at path in the place of descriptor to. */
static int redirect(const char *path, int flags, int to)
{
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);

	if (fd < 0)
		return -errno;
	assert(fd > STDERR_FILENO); /* main has seen to the first three */
	if (dup2(fd, to) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	close(fd);
	return 0;
}

static int become_daemon(pid_t parent)
{
	/* A parent that is interrupted takes its child with it; one that is
	 * gone already, too. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		return -errno;
	if (getppid() != parent)
		_exit(EX_OSERR);
	setsid(); /* cannot fail: a new process leads no group */
	if (chdir("/") < 0)
		return -errno;
	return redirect("/dev/null", O_RDONLY, STDIN_FILENO);
}

/* stdout and stderr of the child are a pipe to the parent: whoever reads from the
 * command's gets its end when the command ends, not when the daemon does. */
static int be_child(struct daemonize *d, int fd, int said, pid_t parent)
{
	d->fd = fd;
	if (dup2(said, STDOUT_FILENO) < 0 || dup2(said, STDERR_FILENO) < 0)
		return -errno;
	/* What the caller had open is not ours: a lock on it would be held for
	 * as long as we live. */
	if (d->fd > 3)
		close_range(3, (unsigned)d->fd - 1, 0);
	close_range((unsigned)d->fd + 1, ~0U, 0);
	return become_daemon(parent);
}

int daemonize_begin(struct daemonize *d, bool background)
{
	int fds[2], said[2], rc;
	pid_t parent = getpid();

	d->fd = -1;
	if (!background)
		return 0;
	/* A socket, so that a child whose parent was killed gets no SIGPIPE. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	if (pipe2(said, O_CLOEXEC) < 0) {
		rc = -errno;
		goto err_fds;
	}
	fflush(NULL);
	pid_t child = fork();
	if (child < 0) {
		rc = -errno;
		goto err_said;
	}
	if (child == 0)
		return be_child(d, fds[1], said[1], parent);
	close(fds[1]);
	close(said[1]);
	fcntl(said[0], F_SETFL, O_NONBLOCK);
	wait_for_child(child, fds[0], said[0]);

err_said:
	close(said[0]);
	close(said[1]);
err_fds:
	close(fds[0]);
	close(fds[1]);
	return rc;
}

void daemonize_ready(struct daemonize *d, const char *log_path)
{
	if (d->fd < 0)
		return;
	fflush(NULL);
	redirect("/dev/null", O_WRONLY, STDOUT_FILENO);
	int rc = redirect(log_path, O_WRONLY | O_CREAT | O_APPEND,
			  STDERR_FILENO);
	if (rc != 0) {
		fprintf(stderr, "ringfs: mount: %s: %s; nothing is logged\n",
			log_path, strerror(-rc));
		redirect("/dev/null", O_WRONLY, STDERR_FILENO);
	}
	prctl(PR_SET_PDEATHSIG, 0);
	/* A parent that was killed in this instant does not hear it; the mount
	 * serves all the same. */
	send(d->fd, "", 1, MSG_NOSIGNAL);
	close(d->fd);
	d->fd = -1;
}

int daemonize_fail(struct daemonize *d, int status, const char *errmsg)
{
	assert(status != 0);
	fprintf(stderr, "ringfs: mount: %s\n", errmsg);
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
	return status;
}
