/* SPDX-License-Identifier: MIT */
/* The node's address: one port, UDP and TCP, reserved together.
 *
 * ADDR:PORT or [IPv6]:PORT; ADDR may be a name, and port 0 is any that is free
 * for both. An IPv6 socket takes IPv6 only, so 0.0.0.0 and [::] never overlap.
 *
 * It is the UDP socket that excludes a second node: TCP is bound with
 * SO_REUSEADDR, since a restarted node must not wait for the connections of the
 * one before (TIME_WAIT).
 *
 * Thread: any, one at a time. port_open blocks while it resolves a name. */
#ifndef FS_PORT_H
#define FS_PORT_H

#include "ring/ring.h" /* RING_ERRMSG_SIZE */

#define PORT_TEXT_SIZE 96

struct port {
	int udp_fd, tcp_fd; /* bound, non-blocking, close-on-exec; tcp_fd does
			     * not listen */
	char text[PORT_TEXT_SIZE]; /* as bound: numeric, with the real port */
};

/* Is bind written as it should be? Resolves nothing. 0, or -EINVAL with the
 * reason in errmsg. */
int port_check(const char *bind, char errmsg[RING_ERRMSG_SIZE]);

/* Bind both sockets. 0; else errmsg says in one sentence what is wrong:
 * -EINVAL         not ADDR:PORT
 * -EADDRINUSE     another program has the port
 * -EADDRNOTAVAIL  no address of this machine, or a name that is not known
 * -EACCES         a port below 1024 without the right to it
 * -EMFILE, ... */
int port_open(const char *bind, struct port *out,
	      char errmsg[RING_ERRMSG_SIZE]);
/* Where this node runs, for the ring: a hash of the machine's boot_id and of the
 * address, or zeros, which are like no other, when that is not known. */
void port_place(const struct port *p, uint8_t out[RING_HOST_SIZE]);

void port_close(struct port *p);

#endif
