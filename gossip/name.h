/* SPDX-License-Identifier: MIT */
/* What from peers may become a file's name: 1 to 255 bytes, no slash, no NUL, no
 * dot in front. */
#ifndef GOSSIP_NAME_H
#define GOSSIP_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define NAME_BYTES_MAX 255

static inline bool name_is_good(const void *name, size_t len)
{
	const char *c = name;

	return len > 0 && len <= NAME_BYTES_MAX && c[0] != '.' &&
	       memchr(c, '/', len) == NULL && memchr(c, '\0', len) == NULL;
}

#endif
