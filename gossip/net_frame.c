/* SPDX-License-Identifier: MIT */
#include "gossip/net_frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "gossip/bytes.h"

#define FLAGS	 (NET_PIECE_FIRST | NET_PIECE_LAST)
#define CAP_FROM 4096

size_t net_piece_put(uint8_t *to, uint8_t topic, unsigned flags,
		     const void *bytes, size_t len)
{
	assert(len <= NET_PIECE_MAX);
	struct bytes_out out = bytes_out_of(to, NET_PIECE_HEADER + len);

	bytes_put_u8(&out, (uint8_t)flags);
	bytes_put_u8(&out, topic);
	bytes_put(&out, bytes, len);
	assert(!out.full);
	return out.len;
}

/* Room for n more bytes; max bounds the message. */
static int grow(struct net_parts *p, size_t n, size_t max)
{
	size_t cap = p->cap > 0 ? p->cap : CAP_FROM;

	if (p->cap - p->len >= n)
		return 0;
	while (cap < p->len + n)
		cap *= 2;
	if (cap > max) /* and len + n <= max */
		cap = max;
	if (cap - p->cap > p->purse->max - p->purse->used)
		return -ENOBUFS;
	/* Moving needs both for a moment. */
	uint8_t *bytes = realloc(p->bytes, cap);
	if (bytes == NULL)
		return -ENOMEM; /* untested: needs an exhausted machine */
	p->purse->used += cap - p->cap;
	p->bytes = bytes;
	p->cap = cap;
	return 0;
}

static int append(struct net_parts *p, struct bytes_in *in, size_t max)
{
	size_t n = bytes_left(in);
	int rc = grow(p, n, max);

	if (rc < 0)
		return rc;
	if (n > 0)
		bytes_copy(in, p->bytes + p->len, n);
	p->len += n;
	return 0;
}

int net_parts_take(struct net_parts *p, const uint8_t *piece, size_t len,
		   size_t max, struct net_message *message)
{
	struct bytes_in in = bytes_in_of(piece, len);
	uint8_t flags = bytes_u8(&in), topic = bytes_u8(&in);
	bool is_first = flags & NET_PIECE_FIRST,
	     is_last = flags & NET_PIECE_LAST;

	assert(p->is_open || p->cap == 0);
	if (in.bad || (flags & ~FLAGS) != 0 || bytes_left(&in) > NET_PIECE_MAX)
		return -EPROTO;
	if (is_first == p->is_open || (p->is_open && topic != p->topic))
		return -EPROTO;
	if (bytes_left(&in) > max - p->len)
		return -EMSGSIZE;
	/* A piece that says nothing and ends nothing would be one for ever. */
	if (bytes_left(&in) == 0 && !is_last)
		return -EPROTO;
	if (is_first && is_last) { /* the usual case: no copy */
		*message = (struct net_message){topic, in.at, bytes_left(&in)};
		return 1;
	}
	int rc = append(p, &in, max);
	if (rc < 0)
		return rc;
	p->topic = topic;
	p->is_open = !is_last;
	if (is_last)
		*message = (struct net_message){topic, p->bytes, p->len};
	return is_last;
}

void net_parts_finish(struct net_parts *p)
{
	if (p->cap > 0) {
		assert(p->purse->used >= p->cap);
		p->purse->used -= p->cap;
	}
	free(p->bytes);
	*p = (struct net_parts){.purse = p->purse};
}

void net_address_put(uint8_t to[NET_ADDRESS_BYTES],
		     const struct gossip_addr *addr)
{
	struct bytes_out out = bytes_out_of(to, NET_ADDRESS_BYTES);

	bytes_put(&out, addr->ip, sizeof(addr->ip));
	bytes_put_u16(&out, addr->port);
	assert(!out.full && out.len == NET_ADDRESS_BYTES);
}

int net_address_get(const uint8_t *bytes, size_t len, struct gossip_addr *addr)
{
	struct bytes_in in = bytes_in_of(bytes, len);

	bytes_copy(&in, addr->ip, sizeof(addr->ip));
	addr->port = bytes_u16(&in);
	return in.bad || bytes_left(&in) > 0 ? -EPROTO : 0;
}
