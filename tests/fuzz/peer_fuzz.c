/* SPDX-License-Identifier: MIT */
/* libFuzzer: bytes as a message between nodes. What is taken for a JOIN or a
 * REFUSAL comes out the same when it is written again; every item that is taken
 * is the sender's, and can stand in an entry. */
#include <stdlib.h>
#include <string.h>

#include "ring/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void same(const struct buf *b, const uint8_t *data, size_t size)
{
	must(b->len == size && memcmp(b->base, data, size) == 0);
}

static void items(struct reader *body)
{
	static const struct ring_id from = {{1}};
	struct peer_item item;
	struct buf b = {0};

	while (peer_next_item(body, &from, &item) == 1) {
		must(item.is_up || item.is_share || item.n_ops > 0);
		must(memcmp(item.is_up ? &item.up.id : &item.origin.id, &from,
			    sizeof(from)) == 0);
		b.len = 0;
		keyset_entry_begin(&b, 1, 1);
		buf_put(&b, item.bytes, item.len);
		must(keyset_check(b.base, b.len) == 0);
	}
	free(b.base);
}

static void lives(struct reader *body)
{
	size_t left = reader_left(body), n = 0;
	uint64_t id, token;

	while (peer_next_life(body, &id, &token))
		n++;
	must(n == left / (2 * sizeof(id)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader body;
	struct peer_join join;
	struct peer_refusal refusal;
	struct peer_leave leave;
	struct peer_farewell farewell;
	struct buf b = {0};

	switch (peer_kind(data, size, &body)) {
	case PEER_ITEMS:
		items(&body);
		break;
	case PEER_JOIN:
		if (peer_get_join(&body, &join) != 0)
			break;
		must(join.name[0] != '\0' && !strchr(join.name, '/'));
		peer_put_join(&b, &join);
		same(&b, data, size);
		break;
	case PEER_REFUSAL:
		if (peer_get_refusal(&body, &refusal) != 0)
			break;
		peer_put_refusal(&b, &refusal);
		same(&b, data, size);
		break;
	case PEER_LEAVE:
		if (peer_get_leave(&body, &leave) != 0)
			break;
		peer_put_leave(&b, &leave);
		same(&b, data, size);
		break;
	case PEER_FAREWELL:
		if (peer_get_farewell(&body, &farewell) != 0)
			break;
		peer_put_farewell(&b, &farewell);
		same(&b, data, size);
		break;
	case PEER_FINISH:
		lives(&body);
		break;
	default:
		break;
	}
	free(b.base);
	return 0;
}
