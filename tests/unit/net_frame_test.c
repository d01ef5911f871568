/* SPDX-License-Identifier: MIT */
/* Messages in pieces, and addresses: without sockets. */
#include "gossip/net_frame.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "check.h"
#include "gossip/mem.h"
#include "gossip/net_addr.h"

#define FIRST NET_PIECE_FIRST
#define LAST  NET_PIECE_LAST
#define MAX   100000

static uint8_t piece[NET_PIECE_HEADER + NET_PIECE_MAX + 1];
static uint8_t bytes[NET_PIECE_MAX];
static struct net_message got;

static int take(struct net_parts *p, unsigned flags, size_t len)
{
	size_t n = net_piece_put(piece, 5, flags, bytes, len);

	return net_parts_take(p, piece, n, MAX, &got);
}

static void test_whole(void)
{
	struct net_purse purse = {.max = 0}; /* none is needed */
	struct net_parts p = {.purse = &purse};

	check_int(take(&p, FIRST | LAST, 0), 1);
	check_int(got.len, 0);
	check_int(take(&p, FIRST | LAST, NET_PIECE_MAX), 1);
	check_int(got.len, NET_PIECE_MAX);
	check_int(got.topic, 5);
	check(got.bytes == piece + NET_PIECE_HEADER, "copied");
	check_int(net_parts_take(&p, piece, sizeof(piece), MAX, &got), -EPROTO);
	ok("a whole message in one piece is not copied");
}

static void test_limit(void)
{
	struct net_purse purse = {.max = 4 * MAX};
	struct net_parts p = {.purse = &purse};

	for (size_t over = 0; over < 2; over++) {
		check_int(take(&p, FIRST, NET_PIECE_MAX), 0);
		check_int(take(&p, 0, MAX - NET_PIECE_MAX - 1), 0);
		check_int(take(&p, LAST, 1 + over), over ? -EMSGSIZE : 1);
		check_int(p.cap, MAX);
		check_int(purse.used, MAX);
		net_parts_finish(&p);
		check_int(purse.used, 0);
	}
	ok("a message has a limit, and not a byte less");
}

static void test_growth(void)
{
	struct net_purse purse = {.max = 10000};
	struct net_parts p = {.purse = &purse}, q = {.purse = &purse};

	check_int(take(&p, FIRST, 10), 0);
	check(purse.used <= 4096, "%zu for 10", purse.used);
	check_int(take(&p, 0, 4086), 0);
	check_int(purse.used, 4096);
	check_int(take(&q, FIRST, 1), 0);
	check_int(take(&p, 0, 1), -ENOBUFS); /* would be 4096 more */
	net_parts_finish(&q);
	check_int(take(&p, 0, 1), 0);
	net_parts_finish(&p);
	check_int(purse.used, 0);
	ok("what is held grows with what came, out of one purse");
}

static void test_address(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(4711),
				 .sin_addr = {htonl(0x7f000001)}};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = htons(1),
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_storage sa;
	struct gossip_addr a, b;
	char text[GOSSIP_ADDR_SIZE];

	check(net_addr_from((struct sockaddr *)&in, &a), "IPv4");
	net_addr_text(&a, text);
	check(strcmp(text, "127.0.0.1:4711") == 0, "%s", text);
	check_int(net_addr_to(&a, AF_UNSPEC, &sa), 0);
	check(memcmp(&sa, &in, sizeof(in)) == 0, "not the same");
	check_int(net_addr_to(&a, AF_INET6, &sa), 0);
	check(net_addr_from((struct sockaddr *)&sa, &b), "mapped");
	check(gossip_addr_equal(&a, &b), "not the same");

	check(net_addr_from((struct sockaddr *)&in6, &a), "IPv6");
	net_addr_text(&a, text);
	check(strcmp(text, "[::1]:1") == 0, "%s", text);
	check_int(net_addr_to(&a, AF_INET, &sa), -EAFNOSUPPORT);
	check(!net_addr_is_wildcard(&a) && !net_addr_is_ipv4(&a), "[::1]");
	memset(a.ip, 0, sizeof(a.ip));
	check(net_addr_is_wildcard(&a), "[::]");
	memcpy(a.ip, b.ip, 12);
	check(net_addr_is_wildcard(&a), "0.0.0.0");
	sa.ss_family = AF_UNIX;
	check(!net_addr_from((struct sockaddr *)&sa, &a), "no such address");
	ok("addresses, there and back");
}

int main(void)
{
	test_whole();
	test_limit();
	test_growth();
	test_address();
	return 0;
}
