/* SPDX-License-Identifier: MIT */
#include "fs/sdnotify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/check.h"

/* A manager that listens at name, as sdnotify reads it. */
static int listen_at(const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = strlen(name);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	check(fd >= 0 && len < sizeof(addr.sun_path), "socket");
	memcpy(addr.sun_path, name, len);
	if (name[0] == '@')
		addr.sun_path[0] = '\0';
	check_int(
		bind(fd, (struct sockaddr *)&addr,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
		0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void hears(int fd, const char *want)
{
	char got[256] = "";
	ssize_t n = recv(fd, got, sizeof(got) - 1, 0);

	check(n == (ssize_t)strlen(want) && strcmp(got, want) == 0,
	      "got '%s', want '%s'", got, want);
}

static void test_unasked(void)
{
	unsetenv("NOTIFY_SOCKET");
	check_int(sdnotify("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	check_int(sdnotify("READY=1"), 0);
	ok("without NOTIFY_SOCKET nothing is sent, and that is no error");
}

static void test_path(const char *path)
{
	int fd = listen_at(path);

	check_int(sdnotify("READY=1\nSTATUS=3 alive"), 0);
	hears(fd, "READY=1\nSTATUS=3 alive");
	check_int(sdnotify("STOPPING=1"), 0);
	hears(fd, "STOPPING=1");
	close(fd);
	check_int(sdnotify("READY=1"), -ECONNREFUSED);
	unlink(path);
	check_int(sdnotify("READY=1"), -ENOENT);
	ok("a socket with a path hears each state as one datagram");
}

static void test_abstract(void)
{
	char name[64];

	snprintf(name, sizeof(name), "@ringfs-sdnotify-test-%d", getpid());
	int fd = listen_at(name);
	check_int(sdnotify("READY=1"), 0);
	hears(fd, "READY=1");
	close(fd);
	ok("an abstract socket is reached by its exact name");
}

static void test_bad_names(void)
{
	char name[200];

	setenv("NOTIFY_SOCKET", "run/notify", 1);
	check_int(sdnotify("READY=1"), -EINVAL);
	setenv("NOTIFY_SOCKET", "vsock:2:1234", 1);
	check_int(sdnotify("READY=1"), -EINVAL);
	setenv("NOTIFY_SOCKET", "@", 1);
	check_int(sdnotify("READY=1"), -EINVAL);
	memset(name, 'x', sizeof(name) - 1);
	name[0] = '/';
	name[sizeof(name) - 1] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	check_int(sdnotify("READY=1"), -ENAMETOOLONG);
	ok("a name that is no socket's is refused");
}

static void test_full(const char *path)
{
	int fd = listen_at(path), rc = 0;

	for (int i = 0; i < 100000 && rc == 0; i++)
		rc = sdnotify("STATUS=busy");
	check_int(rc, -EAGAIN);
	close(fd);
	unlink(path);
	ok("a manager that does not read does not block us");
}

int main(void)
{
	char dir[] = "/tmp/sdnotify-XXXXXX", path[64];

	check(mkdtemp(dir) != NULL, "%s", dir);
	snprintf(path, sizeof(path), "%s/notify", dir);
	test_unasked();
	test_path(path);
	test_abstract();
	test_bad_names();
	test_full(path);
	rmdir(dir);
	return 0;
}
