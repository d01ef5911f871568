/* SPDX-License-Identifier: MIT */
/* Addresses that a user wrote: "10.0.0.1:7400", "[2001:db8::1]:7400",
 * "host:7400"; and which one is ours. Thread: any. Private to gossip/. */
#ifndef GOSSIP_ADDRESS_H
#define GOSSIP_ADDRESS_H

#include "gossip/gossip.h"

#define ADDRESS_HOST_SIZE 256

/* Split HOST:PORT; brackets are taken off. 0 or -EINVAL. */
int address_split(const char *text, char host[ADDRESS_HOST_SIZE],
		  uint16_t *port);
/* Read a numeric one. 0; -EINVAL: it is none, or a name. */
int address_parse(const char *text, struct gossip_addr *out);
/* Our own address, less the port, in packets to that one; asks the routing
 * table and sends nothing. 0 or a negative errno. */
int address_towards(const struct gossip_addr *to, struct gossip_addr *own);

#endif
