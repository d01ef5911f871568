/* SPDX-License-Identifier: MIT */
#include "fs/port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/check.h"

static char errmsg[RING_ERRMSG_SIZE];

/* The port a socket is bound to. */
static unsigned port_of(int fd)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	check(getsockname(fd, (struct sockaddr *)&a, &len) == 0, "%d", errno);
	return ntohs(a.ss_family == AF_INET6
			     ? ((struct sockaddr_in6 *)&a)->sin6_port
			     : ((struct sockaddr_in *)&a)->sin_port);
}

static bool has_ipv6(void)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6,
				 .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	bool has = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

	if (fd >= 0)
		close(fd);
	return has;
}

static void syntax(void)
{
	static const struct {
		const char *bind, *why;
	} bad[] = {
		{"", "there is no colon"},
		{"7400", "there is no colon"},
		{"localhost", "there is no colon"},
		{":7400", "the address is missing"},
		{"[]:7400", "the address is missing"},
		{"::1:7400", "an IPv6 address needs brackets"},
		{"[::1]7400", "there is no ']:PORT'"},
		{"[::1", "there is no ']:PORT'"},
		{"[:7400", "there is no ']:PORT'"},
		{"[", "there is no colon"},
		{"a:", "the port must be 0 to 65535"},
		{"a:65536", "the port must be 0 to 65535"},
		{"a:123456", "the port must be 0 to 65535"},
		{"a:-1", "the port must be 0 to 65535"},
		{"a:http", "the port must be 0 to 65535"},
	};
	char want[512];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(want, sizeof(want),
			 "'%s' is not ADDR:PORT or [IPv6]:PORT: %s",
			 bad[i].bind, bad[i].why);
		check_int(port_check(bad[i].bind, errmsg), -EINVAL);
		check(strcmp(errmsg, want) == 0, "got '%s', want '%s'", errmsg,
		      want);
	}
	check_int(port_check("0.0.0.0:0", errmsg), 0);
	check_int(port_check("host.example:65535", errmsg), 0);
	check_int(port_check("[fe80::1%lo]:7400", errmsg), 0);
	ok("an address that is not ADDR:PORT is refused, with the reason");
}

static void any_port(void)
{
	struct port p;
	char want[64];

	check_int(port_open("127.0.0.1:0", &p, errmsg), 0);
	unsigned n = port_of(p.udp_fd);
	check(n != 0 && n == port_of(p.tcp_fd), "%u", n);
	snprintf(want, sizeof(want), "127.0.0.1:%u", n);
	check(strcmp(p.text, want) == 0, "got '%s', want '%s'", p.text, want);
	check(fcntl(p.udp_fd, F_GETFD) & FD_CLOEXEC, "udp");
	check(fcntl(p.tcp_fd, F_GETFD) & FD_CLOEXEC, "tcp");
	check(fcntl(p.udp_fd, F_GETFL) & O_NONBLOCK, "udp");
	check(fcntl(p.tcp_fd, F_GETFL) & O_NONBLOCK, "tcp");
	ok("port 0 is any port, the same for UDP and TCP, and is told");

	struct port second;
	check_int(port_open(p.text, &second, errmsg), -EADDRINUSE);
	snprintf(want, sizeof(want), "port %u is in use by another program;",
		 n);
	check(strncmp(errmsg, want, strlen(want)) == 0 &&
		      strstr(errmsg, "; use --bind ADDR:PORT") != NULL,
	      "%s", errmsg);
	check(second.udp_fd < 0 && second.tcp_fd < 0, "left open");
	ok("a port that another node has is refused");

	check_int(listen(p.tcp_fd, 1), 0);
	close(p.udp_fd);
	p.udp_fd = -1;
	check_int(port_open(p.text, &second, errmsg), -EADDRINUSE);
	check(second.udp_fd < 0 && second.tcp_fd < 0, "left open");
	ok("a port on which another program listens with TCP is refused");

	char text[PORT_TEXT_SIZE];
	memcpy(text, p.text, sizeof(text));
	port_close(&p);
	check(p.udp_fd < 0 && p.tcp_fd < 0, "not closed");
	check_int(port_open(text, &p, errmsg), 0);
	check(strcmp(p.text, text) == 0, "%s", p.text);
	port_close(&p);
	ok("a port that was given back can be had again");
}

static void names(void)
{
	struct port p;

	check_int(port_open("localhost:0", &p, errmsg), 0);
	check(strncmp(p.text, "127.", 4) == 0 ||
		      strncmp(p.text, "[::1]:", 6) == 0,
	      "%s", p.text);
	port_close(&p);
	ok("a name is looked up");

	check_int(port_open("no..host:0", &p, errmsg), -EADDRNOTAVAIL);
	check(strstr(errmsg, "no address is known for 'no..host': ") == errmsg,
	      "%s", errmsg);
	check_int(port_open("192.0.2.1:0", &p, errmsg), -EADDRNOTAVAIL);
	check(strstr(errmsg, "'192.0.2.1' is no address of this machine") ==
		      errmsg,
	      "%s", errmsg);
	check_int(port_open("junk", &p, errmsg), -EINVAL);
	check_int(port_open("[127.0.0.1]:0", &p, errmsg), -EADDRNOTAVAIL);
	check(p.udp_fd < 0 && p.tcp_fd < 0, "left open");
	ok("an address that is none, or not this machine's, is refused");
}

static void ipv6(void)
{
	struct port p, q;
	char bind[32];

	if (!has_ipv6()) {
		printf("# no IPv6 on this machine\n");
		return;
	}
	check_int(port_open("[::1]:0", &p, errmsg), 0);
	check(strncmp(p.text, "[::1]:", 6) == 0, "%s", p.text);
	check(port_of(p.udp_fd) == port_of(p.tcp_fd), "%s", p.text);
	port_close(&p);
	check_int(port_open("[::]:0", &p, errmsg), 0);
	snprintf(bind, sizeof(bind), "0.0.0.0:%u", port_of(p.udp_fd));
	check_int(port_open(bind, &q, errmsg), 0);
	port_close(&q);
	port_close(&p);
	ok("an IPv6 address stands in brackets, and takes IPv6 only");
}

int main(void)
{
	syntax();
	any_port();
	names();
	ipv6();
	return 0;
}
