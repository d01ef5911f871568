/* SPDX-License-Identifier: MIT */
/* Strings in JSON: for those who write a line or a flat object and need no more
 * of it. */
#ifndef FS_JSON_H
#define FS_JSON_H

#include <stdbool.h>
#include <stddef.h>

struct text;

/* Are these n bytes well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong,
 * nothing above U+10FFFF)? */
bool json_is_utf8(const char *bytes, size_t n);

/* Add the n bytes as a JSON string, quotes included. What is no UTF-8 becomes
 * U+FFFD, byte by byte: the line stays valid, the name is no longer exact. */
void json_add_string(struct text *out, const char *bytes, size_t n);

#endif
