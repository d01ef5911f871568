/* SPDX-License-Identifier: MIT */
/* libFuzzer on what a stream's frames hold: pieces of messages, as a member gone
 * mad could send them. What is held follows what came, and never passes the
 * limits; what comes out is what went in. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/bytes.h"
#include "gossip/net_addr.h"
#include "gossip/net_frame.h"

#define MESSAGE_MAX 20000
#define PURSE_MAX   16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* The message as it should be: the pieces' bytes, one after the other. */
struct model {
	uint8_t bytes[MESSAGE_MAX];
	size_t len;
};

static void model_add(struct model *model, const uint8_t *piece, size_t len)
{
	if (piece[0] & NET_PIECE_FIRST)
		model->len = 0;
	must(model->len + len - NET_PIECE_HEADER <= MESSAGE_MAX);
	memcpy(model->bytes + model->len, piece + NET_PIECE_HEADER,
	       len - NET_PIECE_HEADER);
	model->len += len - NET_PIECE_HEADER;
}

static bool take(struct net_parts *p, struct model *model,
		 struct bytes_in *piece)
{
	size_t len = bytes_left(piece);
	const uint8_t *bytes = bytes_take(piece, len);
	struct net_message m;
	int rc = net_parts_take(p, bytes, len, MESSAGE_MAX, &m);

	must(p->purse->used <= PURSE_MAX && p->purse->used == p->cap);
	if (rc < 0)
		return false;
	model_add(model, bytes, len);
	must(p->cap <= 2 * model->len || p->cap <= 4096);
	must(rc == ((bytes[0] & NET_PIECE_LAST) != 0));
	if (rc == 1) {
		must(m.topic == bytes[1] && m.len == model->len);
		must(m.len == 0 || memcmp(m.bytes, model->bytes, m.len) == 0);
		net_parts_finish(p);
		must(p->purse->used == 0);
	}
	return true;
}

/* Pieces as the input has them: a length of 16 bits before each. */
static void take_all(const uint8_t *data, size_t size)
{
	static struct model model;
	struct net_purse purse = {.max = PURSE_MAX};
	struct net_parts p = {.purse = &purse};
	struct bytes_in in = bytes_in_of(data, size);
	bool goes_on = true;

	while (goes_on && bytes_left(&in) > 0) {
		size_t len = bytes_u16(&in);
		if (len > bytes_left(&in))
			len = bytes_left(&in);
		struct bytes_in piece = bytes_part(&in, len);
		goes_on = take(&p, &model, &piece);
	}
	net_parts_finish(&p);
	must(purse.used == 0);
}

/* The input as a message, cut into pieces of a size that it names itself. */
static void there_and_back(const uint8_t *data, size_t size)
{
	static uint8_t piece[NET_PIECE_HEADER + NET_PIECE_MAX];
	static struct model model;
	struct net_purse purse = {.max = PURSE_MAX};
	struct net_parts p = {.purse = &purse};
	size_t cut = size > 0 ? data[0] + 1u : 1, at = 0;
	bool is_last = false;

	while (!is_last) {
		size_t len = size - at < cut ? size - at : cut;
		is_last = at + len == size;
		size_t n = net_piece_put(piece, 3,
					 (at == 0 ? NET_PIECE_FIRST : 0) |
						 (is_last ? NET_PIECE_LAST : 0),
					 len > 0 ? data + at : NULL, len);
		struct bytes_in in = bytes_in_of(piece, n);
		must(take(&p, &model, &in) || size > PURSE_MAX / 2);
		if (p.purse->used > 0 && size > PURSE_MAX / 2)
			break;
		at += len;
	}
	net_parts_finish(&p);
}

static void read_address(const uint8_t *data, size_t size)
{
	struct gossip_addr addr;
	uint8_t again[NET_ADDRESS_BYTES];
	char text[GOSSIP_ADDR_SIZE];
	int rc = net_address_get(data, size, &addr);

	must((rc == 0) == (size == NET_ADDRESS_BYTES));
	if (rc < 0)
		return;
	net_address_put(again, &addr);
	must(memcmp(again, data, sizeof(again)) == 0);
	net_addr_text(&addr, text);
	must(strlen(text) >= sizeof("[::]:0") - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	take_all(data, size);
	there_and_back(data, size);
	read_address(data, size);
	return 0;
}
