/* SPDX-License-Identifier: MIT */
/* Addresses: as the kernel has them, as gossip/ has them (IPv4 mapped), and as
 * people write them.
 *
 * Thread: any. Private to gossip/. */
#ifndef GOSSIP_NET_ADDR_H
#define GOSSIP_NET_ADDR_H

#include <stdbool.h>
#include <sys/socket.h>

#include "gossip/gossip.h"

/* ::ffff:a.b.c.d */
bool net_addr_is_ipv4(const struct gossip_addr *addr);
/* 0.0.0.0 or [::]: every address of a machine, and none in particular. */
bool net_addr_is_wildcard(const struct gossip_addr *addr);

/* false: neither IPv4 nor IPv6; out is zero then. */
bool net_addr_from(const struct sockaddr *sa, struct gossip_addr *out);
/* For a socket of that family (AF_UNSPEC: the address's own). 0, or
 * -EAFNOSUPPORT: an IPv6 address for an IPv4 socket. */
int net_addr_to(const struct gossip_addr *addr, int family,
		struct sockaddr_storage *out);
/* "ADDR:PORT" or "[IPv6]:PORT", numeric. */
void net_addr_text(const struct gossip_addr *addr, char text[GOSSIP_ADDR_SIZE]);

#endif
