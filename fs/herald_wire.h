/* SPDX-License-Identifier: MIT */
/* The packets between the daemon and its herald.
 *
 * A pair of SOCK_SEQPACKET sockets: one packet is one message, never cut, never
 * empty. Integers are little-endian. Neither side trusts the other: a packet
 * that does not parse ends the child. Both ends are the same binary, so there
 * is no version.
 *
 *   daemon -> child
 *   START    type:1  path length:2  mountpoint
 *            then per directory   dir:1  length:1  name
 *   BEGIN    type:1  mount id:8 (0: find it out)
 *   RECORDS  type:1  then per record   dir:1  what:1  seq:8  length:1  name
 *   OBITUARY type:1  receipt:16  number:1  then per recipient  ip:16  port:2
 *            then the bytes to send
 *
 *   child -> daemon
 *   HELLO    type:1  then per thread   tid:4
 *   MOUNTED  type:1  mount id:8 (0: there is none)
 *   DONE     type:1  then per record   dir:1  seq:8  errno:2
 *
 * START is answered by HELLO, BEGIN by MOUNTED. DONE comes in the order of the
 * records of one directory. Knows nothing of sockets, or of what records mean.
 */
#ifndef FS_HERALD_WIRE_H
#define FS_HERALD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum herald_packet_type {
	HERALD_START = 1,
	HERALD_BEGIN,
	HERALD_RECORDS,
	HERALD_OBITUARY,
	HERALD_HELLO,
	HERALD_MOUNTED,
	HERALD_DONE,
};

/* A directory's records under way: sent by the daemon, not yet reported. */
#define HERALD_WINDOW 256

#define HERALD_NAME_MAX	   255
#define HERALD_PACKET_SIZE 16384
#define HERALD_RECORD_SIZE (1 + 1 + 8 + 1 + HERALD_NAME_MAX) /* at most */
#define HERALD_DONE_SIZE   (1 + 8 + 2)

/* The child's descriptors. */
#define HERALD_FD_SOCKET 3
#define HERALD_FD_DAEMON 4 /* the daemon's pidfd */
#define HERALD_FD_LOCK	 5 /* herald_config.lock_fd */

struct herald_packet {
	size_t len;
	uint8_t data[HERALD_PACKET_SIZE];
};

/* Write at the end; that there is room is asserted. */
void herald_put(struct herald_packet *p, const void *bytes, size_t n);
void herald_put_uint(struct herald_packet *p, uint64_t v, size_t n_bytes);
size_t herald_room(const struct herald_packet *p);

struct herald_reader {
	const uint8_t *at;
	size_t left;
	bool bad; /* it was asked for more than there is; it gave zeros */
};

struct herald_reader herald_reader(const void *data, size_t len);
uint64_t herald_get_uint(struct herald_reader *r, size_t n_bytes);
/* The next n bytes, borrowed, or NULL: bad. */
const uint8_t *herald_get(struct herald_reader *r, size_t n);
/* A name of n bytes into name, ended by NUL. bad if it is none: empty, longer
 * than HERALD_NAME_MAX, "." or "..", or with a slash or NUL in it. */
void herald_get_name(struct herald_reader *r, size_t n,
		     char name[HERALD_NAME_MAX + 1]);
/* As herald_get_name, for an absolute path shorter than size. */
void herald_get_path(struct herald_reader *r, size_t n, char *path,
		     size_t size);

#endif
