/* SPDX-License-Identifier: MIT */
/* join, forget: who is in the cluster. */
#include "fs/cli.h"
#include "fs/cli_daemon.h"
#include "fs/cli_nodes.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/port.h"
#include "fs/util.h"
#include "ring/ring.h"

#define JOIN_S	10
#define LOOK_MS 100

static const char join_help[] =
	"Usage: ringfs join [OPTION]... ADDR:PORT...\n"
	"Get to know the member at ADDR:PORT, and by it all that it knows, "
	"and\n"
	"wait until it is heard. For a node that is mounted and has lost "
	"sight\n"
	"of the others; a new node joins with 'ringfs mount --join'. A node\n"
	"that has a cluster of its own cannot join another.\n"
	"\n"
	"Options:\n"
	"      --timeout S    wait so many seconds for each, 1 to 86400\n"
	"                     (default: 10)\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status (with several: the highest): 0 it is heard; 64 usage;\n"
	"69 no daemon; 71 the system refused; 75 not heard so far, it is "
	"tried\n"
	"on; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs join 10.0.0.1:7400\n"
	"  ringfs join --timeout 60 ring.example:7400 [fd00::1]:7400\n"
	"  ringfs join -m /srv/ring 10.0.0.1:7400 || ringfs members\n";

static const char forget_help[] =
	"Usage: ringfs forget [OPTION]... NAME...\n"
	"Forget members that are dead or have left, on all nodes, as\n"
	"'rm peers/NAME' does: for machines that will not come back.\n"
	"\n"
	"Options:\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status (with several: the highest): 0 forgotten; 1 there is no\n"
	"such member, or it lives; 64 usage; 69 no daemon; 71 the system\n"
	"refused; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs forget n3\n"
	"  ringfs forget -m /srv/ring n3 n4\n"
	"  ringfs members | awk '$2 == \"left\" { print $1 }' | xargs ringfs "
	"forget\n";

/* ---- join ---- */

/* Is text the address ai, as peers/ writes it? */
static bool is_address(const struct addrinfo *ai, const char *text)
{
	char host[NI_MAXHOST], service[NI_MAXSERV], *own;

	if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host),
			service, sizeof(service),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return false;
	own = xasprintf(ai->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
			service);
	bool is = strcmp(own, text) == 0;
	free(own);
	return is;
}

/* All addresses of addr; NULL if it has none. freeaddrinfo() releases it. */
static struct addrinfo *resolve(const char *addr)
{
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list = NULL;
	bool is_ipv6 = addr[0] == '[';
	char *host = xstrdup(addr + is_ipv6), *port = strrchr(host, ':');

	port[is_ipv6 ? -1 : 0] = '\0';
	if (getaddrinfo(host, port + 1, &hints, &list) != 0)
		list = NULL;
	free(host);
	return list;
}

static bool is_alive_at(const json_t *node, const struct addrinfo *list)
{
	const char *address = nodes_word(node, "address");

	if (json_is_true(json_object_get(node, "self")) ||
	    strcmp(nodes_word(node, "state"), "alive") != 0)
		return false;
	for (; list != NULL; list = list->ai_next)
		if (is_address(list, address))
			return true;
	return false;
}

/* 0 when a living member has one of the addresses; EX_TEMPFAIL; or what is wrong
 * with the daemon. */
static int look(const struct cli_mount *m, const struct addrinfo *list)
{
	json_t *document;
	const json_t *node;
	size_t i;
	int rc = nodes_ask("join", m, &document);

	if (rc != EX_OK)
		return rc;
	rc = EX_TEMPFAIL;
	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (is_alive_at(node, list))
			rc = EX_OK;
	}
	json_decref(document);
	return rc;
}

static int wait_heard(const struct cli_mount *m, const char *addr,
		      uint32_t timeout_s)
{
	struct addrinfo *list = resolve(addr);
	uint64_t end = boot_ms() + (uint64_t)timeout_s * 1000;
	int rc;

	while ((rc = look(m, list)) == EX_TEMPFAIL && boot_ms() < end)
		poll(NULL, 0, LOOK_MS);
	if (rc == EX_TEMPFAIL)
		cli_say("join",
			"'%s': no member is heard at this address after %u s; "
			"it is tried on",
			addr, timeout_s);
	freeaddrinfo(list);
	return rc;
}

static int join(const struct cli_mount *m, const char *addr, uint32_t timeout_s)
{
	char *line = xasprintf("join %s", addr);
	int rc = cli_write_ctl(m->fd, line);

	free(line);
	if (rc < 0)
		return cli_refused("join", addr, rc, "");
	return wait_heard(m, addr, timeout_s);
}

/* The arguments of a verb that has -m and --timeout, with a value to set. */
static const char *read_options(int argc, char **argv, const char *help,
				uint32_t *timeout_s)
{
	const struct option longs[] = {{"mount", required_argument, NULL, 'm'},
				       {"help", no_argument, NULL, 'h'},
				       {timeout_s != NULL ? "timeout" : NULL,
					required_argument, NULL, 't'},
				       {NULL, 0, NULL, 0}};
	const char *given = NULL;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, help)) >= 0)
		if (c == 'm')
			given = optarg;
		else
			*timeout_s = cli_parse_timeout(argv[0], optarg);
	return given;
}

int cli_join(int argc, char **argv)
{
	uint32_t timeout_s = JOIN_S;
	const char *given = read_options(argc, argv, join_help, &timeout_s);
	char why[RING_ERRMSG_SIZE];
	struct cli_mount m;
	int status = EX_OK;

	if (optind == argc)
		cli_usage(argv[0], "the address of a member is missing");
	for (int i = optind; i < argc; i++)
		if (port_check(argv[i], why) < 0)
			cli_usage(argv[0], "%s", why);
	int rc = cli_mount_find(argv[0], given, &m);
	if (rc != EX_OK)
		return rc;
	for (int i = optind; i < argc; i++) {
		rc = join(&m, argv[i], timeout_s);
		status = rc > status ? rc : status;
	}
	cli_mount_finish(&m);
	return status;
}

/* ---- forget ---- */

static int forget(const struct cli_mount *m, const char *name)
{
	char *path = xasprintf("peers/%s", name);
	int rc = unlinkat(m->fd, path, 0) < 0 ? -errno : 0;

	free(path);
	if (rc == 0)
		return EX_OK;
	return cli_refused("forget", name, rc,
			   rc == -EBUSY	   ? " (it lives)"
			   : rc == -ENOENT ? " (there is no such member)"
					   : "");
}

int cli_forget(int argc, char **argv)
{
	const char *given = read_options(argc, argv, forget_help, NULL);
	struct cli_mount m;
	int status = EX_OK;

	if (optind == argc)
		cli_usage(argv[0], "the name of a member is missing");
	for (int i = optind; i < argc; i++)
		if (argv[i][0] == '\0' || strchr(argv[i], '/') != NULL)
			cli_usage(argv[0], "'%s': no member's name", argv[i]);
	int rc = cli_mount_find(argv[0], given, &m);
	if (rc != EX_OK)
		return rc;
	for (int i = optind; i < argc; i++) {
		rc = forget(&m, argv[i]);
		status = rc > status ? rc : status;
	}
	cli_mount_finish(&m);
	return status;
}
