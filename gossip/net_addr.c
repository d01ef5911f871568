/* SPDX-License-Identifier: MIT */
#include "gossip/net_addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define MAPPED_BYTES 12 /* before an IPv4 address */

static const uint8_t mapped[MAPPED_BYTES] = {[10] = 0xff, [11] = 0xff};

bool net_addr_is_ipv4(const struct gossip_addr *addr)
{
	return memcmp(addr->ip, mapped, MAPPED_BYTES) == 0;
}

bool net_addr_is_wildcard(const struct gossip_addr *addr)
{
	static const uint8_t zero[sizeof(addr->ip)];

	return memcmp(addr->ip, zero, sizeof(zero)) == 0 ||
	       (net_addr_is_ipv4(addr) &&
		memcmp(addr->ip + MAPPED_BYTES, zero, 4) == 0);
}

bool net_addr_from(const struct sockaddr *sa, struct gossip_addr *out)
{
	*out = (struct gossip_addr){0};
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, sa, sizeof(in));
		memcpy(out->ip, mapped, MAPPED_BYTES);
		memcpy(out->ip + MAPPED_BYTES, &in.sin_addr, 4);
		out->port = ntohs(in.sin_port);
		return true;
	}
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, sa, sizeof(in6));
		memcpy(out->ip, &in6.sin6_addr, sizeof(out->ip));
		out->port = ntohs(in6.sin6_port);
		return true;
	}
	return false;
}

int net_addr_to(const struct gossip_addr *addr, int family,
		struct sockaddr_storage *out)
{
	bool is_ipv4 = net_addr_is_ipv4(addr);

	memset(out, 0, sizeof(*out));
	if (family == AF_INET && !is_ipv4)
		return -EAFNOSUPPORT;
	if (is_ipv4 && family != AF_INET6) {
		struct sockaddr_in in = {.sin_family = AF_INET,
					 .sin_port = htons(addr->port)};
		memcpy(&in.sin_addr, addr->ip + MAPPED_BYTES, 4);
		memcpy(out, &in, sizeof(in));
	} else {
		struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
					   .sin6_port = htons(addr->port)};
		memcpy(&in6.sin6_addr, addr->ip, sizeof(addr->ip));
		memcpy(out, &in6, sizeof(in6));
	}
	return 0;
}

void net_addr_text(const struct gossip_addr *addr, char text[GOSSIP_ADDR_SIZE])
{
	char host[INET6_ADDRSTRLEN];

	if (net_addr_is_ipv4(addr)) {
		inet_ntop(AF_INET, addr->ip + MAPPED_BYTES, host, sizeof(host));
		snprintf(text, GOSSIP_ADDR_SIZE, "%s:%u", host, addr->port);
	} else {
		inet_ntop(AF_INET6, addr->ip, host, sizeof(host));
		snprintf(text, GOSSIP_ADDR_SIZE, "[%s]:%u", host, addr->port);
	}
}
