/* SPDX-License-Identifier: MIT */
#include "fs/port.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "fs/util.h"

#define ANY_TRIES 64 /* for port 0: ports that are free for UDP, not for TCP */

struct address {
	char host[NI_MAXHOST];
	char service[6]; /* the port, digits */
	bool is_ipv6;	 /* was in brackets */
};

static int refuse(char errmsg[RING_ERRMSG_SIZE], const char *bind,
		  const char *why)
{
	snprintf(errmsg, RING_ERRMSG_SIZE,
		 "'%.300s' is not ADDR:PORT or [IPv6]:PORT: %s", bind, why);
	return -EINVAL;
}

static bool is_port(const char *s)
{
	size_t n = strspn(s, "0123456789");

	return n >= 1 && n <= 5 && s[n] == '\0' && strtoul(s, NULL, 10) < 65536;
}

static int split(const char *bind, struct address *out,
		 char errmsg[RING_ERRMSG_SIZE])
{
	const char *colon = strrchr(bind, ':'), *host = bind;
	const char *end = colon;

	if (colon == NULL)
		return refuse(errmsg, bind, "there is no colon");
	out->is_ipv6 = bind[0] == '[';
	if (out->is_ipv6) {
		host = bind + 1;
		end = colon - 1;
		if (end < host || *end != ']')
			return refuse(errmsg, bind, "there is no ']:PORT'");
	} else if (memchr(bind, ':', (size_t)(colon - bind)) != NULL) {
		return refuse(errmsg, bind, "an IPv6 address needs brackets");
	}
	if (end == host)
		return refuse(errmsg, bind, "the address is missing");
	if ((size_t)(end - host) >= sizeof(out->host))
		return refuse(errmsg, bind, "the address is too long");
	if (!is_port(colon + 1))
		return refuse(errmsg, bind, "the port must be 0 to 65535");
	memcpy(out->host, host, (size_t)(end - host));
	out->host[end - host] = '\0';
	snprintf(out->service, sizeof(out->service), "%s", colon + 1);
	return 0;
}

int port_check(const char *bind, char errmsg[RING_ERRMSG_SIZE])
{
	struct address a;

	return split(bind, &a, errmsg);
}

/* The addresses of a->host: as a number if it is one, else by name. */
static int resolve(const struct address *a, struct addrinfo **out)
{
	struct addrinfo hints = {
		.ai_family = a->is_ipv6 ? AF_INET6 : AF_UNSPEC,
		.ai_socktype = SOCK_DGRAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
	};
	int rc = getaddrinfo(a->host, a->service, &hints, out);

	if (rc != EAI_NONAME || a->is_ipv6)
		return rc;
	hints.ai_flags = AI_NUMERICSERV | AI_PASSIVE;
	return getaddrinfo(a->host, a->service, &hints, out);
}

static int bind_one(int type, const struct sockaddr *addr, socklen_t len)
{
	int fd =
		socket(addr->sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, rc;

	if (fd < 0)
		return -errno;
	if (type == SOCK_STREAM &&
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		goto err_fd;
	if (addr->sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		goto err_fd;
	if (bind(fd, addr, len) < 0)
		goto err_fd;
	return fd;

err_fd:
	rc = -errno;
	close(fd);
	return rc;
}

/* UDP, then TCP where UDP came to be. */
static int bind_both(const struct addrinfo *ai, struct port *out)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	int rc;

	out->udp_fd = bind_one(SOCK_DGRAM, ai->ai_addr, ai->ai_addrlen);
	if (out->udp_fd < 0)
		return out->udp_fd;
	if (getsockname(out->udp_fd, (struct sockaddr *)&addr, &len) < 0) {
		rc = -errno;
		goto err_udp;
	}
	out->tcp_fd = bind_one(SOCK_STREAM, (struct sockaddr *)&addr, len);
	if (out->tcp_fd < 0) {
		rc = out->tcp_fd;
		goto err_udp;
	}
	return 0;

err_udp:
	close(out->udp_fd);
	out->udp_fd = -1;
	return rc;
}

static int bind_any(const struct addrinfo *ai, bool any_port, struct port *out)
{
	int rc = -EADDRINUSE;

	for (int i = 0; i < (any_port ? ANY_TRIES : 1) && rc == -EADDRINUSE;
	     i++)
		rc = bind_both(ai, out);
	return rc;
}

/* What was bound, as others may be told it. */
static int describe(struct port *p)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char host[PORT_TEXT_SIZE - sizeof("[]:65535")], service[6];

	if (getsockname(p->udp_fd, (struct sockaddr *)&addr, &len) < 0)
		return -errno;
	if (getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host),
			service, sizeof(service),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return -EOVERFLOW; /* untested: no address is that long */
	snprintf(p->text, sizeof(p->text),
		 addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
		 service);
	return 0;
}

static void explain(int rc, const struct address *a,
		    char errmsg[RING_ERRMSG_SIZE])
{
	if (rc == -EADDRINUSE && strcmp(a->service, "0") != 0)
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "port %s is in use by another program; use --bind "
			 "ADDR:PORT",
			 a->service);
	else if (rc == -EADDRNOTAVAIL)
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "'%.255s' is no address of this machine; use --bind "
			 "ADDR:PORT",
			 a->host);
	else
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "cannot bind port %s of '%.255s': %s", a->service,
			 a->host, strerror(-rc));
}

static int bind_first(const struct addrinfo *list, const struct address *a,
		      struct port *out)
{
	bool any_port = strtoul(a->service, NULL, 10) == 0;
	int rc = -EADDRNOTAVAIL;

	for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
		rc = bind_any(ai, any_port, out);
		if (rc == 0)
			return describe(out);
	}
	return rc;
}

int port_open(const char *bind, struct port *out, char errmsg[RING_ERRMSG_SIZE])
{
	struct addrinfo *list;
	struct address a;

	*out = (struct port){.udp_fd = -1, .tcp_fd = -1};
	int rc = split(bind, &a, errmsg);
	if (rc < 0)
		return rc;
	rc = resolve(&a, &list);
	if (rc != 0) {
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "no address is known for '%.255s': %s", a.host,
			 gai_strerror(rc));
		return -EADDRNOTAVAIL;
	}
	rc = bind_first(list, &a, out);
	freeaddrinfo(list);
	if (rc < 0) {
		explain(rc, &a, errmsg);
		port_close(out);
	}
	return rc;
}

void port_place(const struct port *p, uint8_t out[RING_HOST_SIZE])
{
	char boot_id[64] = "";
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, boot_id, sizeof(boot_id) - 1);

	memset(out, 0, RING_HOST_SIZE);
	if (fd >= 0)
		close(fd);
	if (len <= 0)
		return;
	char *where = xasprintf("%s %s", boot_id, p->text);

	for (unsigned i = 0; i < RING_HOST_SIZE / sizeof(XXH64_hash_t); i++) {
		XXH64_hash_t h = XXH3_64bits_withSeed(where, strlen(where), i);

		memcpy(out + i * sizeof(h), &h, sizeof(h));
	}
	free(where);
}

void port_close(struct port *p)
{
	if (p->udp_fd >= 0)
		close(p->udp_fd);
	if (p->tcp_fd >= 0)
		close(p->tcp_fd);
	p->udp_fd = p->tcp_fd = -1;
}
