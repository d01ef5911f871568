/* SPDX-License-Identifier: MIT */
#include "fs/herald_wire.h"

#include <assert.h>
#include <string.h>

void herald_put(struct herald_packet *p, const void *bytes, size_t n)
{
	assert(n <= herald_room(p));
	memcpy(p->data + p->len, bytes, n);
	p->len += n;
}

void herald_put_uint(struct herald_packet *p, uint64_t v, size_t n_bytes)
{
	assert(n_bytes <= herald_room(p));
	for (size_t i = 0; i < n_bytes; i++)
		p->data[p->len++] = (uint8_t)(v >> (8 * i));
}

size_t herald_room(const struct herald_packet *p)
{
	return sizeof(p->data) - p->len;
}

struct herald_reader herald_reader(const void *data, size_t len)
{
	return (struct herald_reader){.at = data, .left = len};
}

/* When there are not so many, nothing is left. */
const uint8_t *herald_get(struct herald_reader *r, size_t n)
{
	const uint8_t *at = r->at;

	if (n > r->left || r->bad) {
		r->bad = true;
		r->left = 0;
		return NULL;
	}
	r->at += n;
	r->left -= n;
	return at;
}

uint64_t herald_get_uint(struct herald_reader *r, size_t n_bytes)
{
	const uint8_t *at = herald_get(r, n_bytes);
	uint64_t v = 0;

	for (size_t i = 0; at != NULL && i < n_bytes; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

/* A string of n bytes without NUL, shorter than size. */
static void get_string(struct herald_reader *r, size_t n, char *out,
		       size_t size)
{
	const uint8_t *at = herald_get(r, n);

	out[0] = '\0';
	if (at == NULL)
		return;
	if (n >= size || memchr(at, '\0', n) != NULL) {
		r->bad = true;
		return;
	}
	memcpy(out, at, n);
	out[n] = '\0';
}

void herald_get_name(struct herald_reader *r, size_t n,
		     char name[HERALD_NAME_MAX + 1])
{
	get_string(r, n, name, HERALD_NAME_MAX + 1);
	if (name[0] == '\0' || strchr(name, '/') != NULL ||
	    strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		r->bad = true;
}

void herald_get_path(struct herald_reader *r, size_t n, char *path, size_t size)
{
	get_string(r, n, path, size);
	if (path[0] != '/')
		r->bad = true;
}
