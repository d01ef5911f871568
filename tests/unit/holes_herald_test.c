/* SPDX-License-Identifier: MIT */
/* holes.md 10: a herald sees its end closed while its daemon lives: it was
 * stopped, replaced, and goes on. What it has in hand is proof of nothing.
 *
 * The herald is the real one, in a process of its own; the daemon is another
 * process, which does nothing but live. */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/herald.h"
#include "fs/herald_wire.h"
#include "tests/unit/check.h"

static int hears; /* a member's socket */
static struct sockaddr_in6 member = {.sin6_family = AF_INET6};

static void open_member(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t in_len = sizeof(in);

	hears = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	check_int(bind(hears, (struct sockaddr *)&in, in_len), 0);
	check_int(getsockname(hears, (struct sockaddr *)&in, &in_len), 0);
	member.sin6_port = in.sin_port;
	member.sin6_addr.s6_addr[10] = member.sin6_addr.s6_addr[11] = 0xff;
	memcpy(&member.sin6_addr.s6_addr[12], &in.sin_addr, 4);
}

/* None outlives the test, however it ends. */
static pid_t fork_child(void)
{
	pid_t pid = fork();

	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static pid_t start_daemon(void)
{
	pid_t pid = fork_child();

	if (pid == 0) {
		for (;;)
			pause();
	}
	return pid;
}

/* Gives our end of its socket. pidfd < 0: it has none. */
static int start_herald(int pidfd, pid_t *pid)
{
	char name[] = "herald";
	char *args[] = {name, NULL};
	int pair[2];

	check_int(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair),
		  0);
	*pid = fork_child();
	if (*pid > 0) {
		close(pair[1]);
		return pair[0];
	}
	/* Above what they are to be, first. */
	int end = fcntl(pair[1], F_DUPFD, 100);
	int proof = pidfd < 0 ? -1 : fcntl(pidfd, F_DUPFD, 100);

	dup2(end, HERALD_FD_SOCKET);
	close(HERALD_FD_DAEMON);
	close(HERALD_FD_LOCK);
	if (proof >= 0)
		dup2(proof, HERALD_FD_DAEMON);
	_exit(herald_main(1, args));
}

static void send_packet(int fd, const struct herald_packet *p)
{
	check_int(send(fd, p->data, p->len, 0), p->len);
}

/* It was told who to tell what, and answered. */
static void entrust(int fd)
{
	static struct herald_packet start, obituary;
	uint8_t receipt[HERALD_RECEIPT_SIZE] = {1, 2, 3}, hello[64];

	start.len = obituary.len = 0;
	herald_put_uint(&start, HERALD_START, 1);
	herald_put_uint(&start, 8, 2);
	herald_put(&start, "/nowhere", 8);
	send_packet(fd, &start);
	check(recv(fd, hello, sizeof(hello), 0) > 0, "no HELLO");
	herald_put_uint(&obituary, HERALD_OBITUARY, 1);
	herald_put(&obituary, receipt, sizeof(receipt));
	herald_put_uint(&obituary, 1, 1);
	herald_put(&obituary, &member.sin6_addr, 16);
	herald_put_uint(&obituary, ntohs(member.sin6_port), 2);
	herald_put(&obituary, "it is dead", 10);
	send_packet(fd, &obituary);
}

static bool hears_within(int ms)
{
	struct pollfd p = {.fd = hears, .events = POLLIN};
	char bytes[64];

	if (poll(&p, 1, ms) != 1)
		return false;
	check_int(recv(hears, bytes, sizeof(bytes), 0), 10);
	return true;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static void stopped_and_replaced(void)
{
	pid_t daemon = start_daemon(), herald;
	int pidfd = pidfd_of(daemon), fd = start_herald(pidfd, &herald);

	close(pidfd);
	entrust(fd);
	kill(herald, SIGSTOP);
	close(fd);
	kill(herald, SIGCONT);
	check(!hears_within(500), "the daemon lives");
	check(waitpid(herald, NULL, WNOHANG) == 0, "it waits for proof");
	ok("holes 10: a herald whose end is closed tells nothing of a daemon "
	   "that lives");

	end(daemon);
	check(hears_within(5000), "now it is dead");
	ok("holes 10: it tells when the process is gone as well");
	end(herald);
}

/* Stopped, as a debugger or SIGSTOP does, is not dead. */
static void stopped_daemon(void)
{
	pid_t daemon = start_daemon(), herald;
	int pidfd = pidfd_of(daemon), fd = start_herald(pidfd, &herald);

	close(pidfd);
	entrust(fd);
	kill(daemon, SIGSTOP);
	close(fd);
	check(!hears_within(300), "it is stopped");
	end(daemon);
	end(herald);
	while (hears_within(50))
		;
	ok("holes 10: a daemon that is stopped is not dead");
}

static void without_pidfd(void)
{
	pid_t herald;
	int fd = start_herald(-1, &herald);

	entrust(fd);
	close(fd);
	check(!hears_within(300), "it knows nothing");
	end(herald);
	ok("holes 10: without a pidfd there is no proof");
}

int main(void)
{
	open_member();
	stopped_and_replaced();
	stopped_daemon();
	without_pidfd();
	return 0;
}
