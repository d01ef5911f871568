/* SPDX-License-Identifier: MIT */
/* libFuzzer on SWIM's packets: the bytes go to a decoder, then to a member that
 * has a cluster, as datagrams and as messages on a stream, at growing times. The
 * first byte chooses. Nothing may break, and the table must stay in order. */
#include "gossip/swim.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct swim *member(struct facts_pool *pool, uint8_t number)
{
	char name[] = {'n', (char)('0' + number), '\0'};
	struct swim_self self = {.id = {{number}},
				 .boot = 1,
				 .addr = {.port = number},
				 .name = name};

	return swim_create(&swim_lan, &self, pool, number);
}

static void feed(struct swim *s, const uint8_t *data, size_t size)
{
	struct swim_out out = {0};
	uint64_t now = 1000000;

	swim_start(s, now, &out);
	for (unsigned i = 0; i < 6; i++) {
		struct swim_msg msg = {.from = {.port = 2},
				       .bytes = data + 1,
				       .len = size - 1,
				       .on_stream = (data[0] >> i & 1) != 0};

		swim_recv(s, now, &msg, &out);
		swim_check(s);
		now += 150000 * (uint64_t)i;
		swim_tick(s, now, &out);
		swim_check(s);
		swim_out_clear(&out);
	}
	swim_out_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct facts_pool pool;

	if (size < 1)
		return 0;
	facts_pool_init(&pool);
	struct swim *s = member(&pool, 1);
	struct swim *peers[] = {member(&pool, 2), member(&pool, 3)};
	for (unsigned i = 0; i < 2; i++)
		swim_know(s, 1, swim_facts(peers[i]));
	feed(s, data, size);
	swim_destroy(s);
	for (unsigned i = 0; i < 2; i++)
		swim_destroy(peers[i]);
	facts_pool_finish(&pool);
	return 0;
}
