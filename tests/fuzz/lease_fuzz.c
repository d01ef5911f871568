/* SPDX-License-Identifier: MIT */
/* libFuzzer: bytes as messages to a leader with two voters and a client, each
 * with a length and a sender in front, and time that passes between them.
 * Whoever lies is a member: so nothing is claimed but that it stays whole, and
 * that what is read is what would be written.
 *
 * clang -fsanitize=fuzzer,address,undefined, with lease*.c and buf.c of ring/.
 * */
#include <stdlib.h>
#include <string.h>

#include "ring/lease_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct ring_id id_of(unsigned i)
{
	return (struct ring_id){.byte = {(uint8_t)(i + 1)}};
}

static struct lease *leader(struct lease_out *out)
{
	struct lease_config config = {id_of(0), id_of(0), 1};
	struct lease *l = lease_create(&config);
	struct lease_voter voters[] = {{id_of(0), 100}, {id_of(1), 101}};
	struct lease_raft raft = {.term = 1,
				  .durable_term = 1,
				  .server = 100,
				  .is_leader = true,
				  .is_ready = true,
				  .leader = id_of(0),
				  .voters = voters,
				  .n_voters = 2};

	lease_set_duration(l, 1500);
	lease_set_raft(l, 1000, &raft, out);
	for (unsigned i = 0; i < 3; i++) {
		struct lease_life life = {.id = id_of(i),
					  .life = id_of(i),
					  .boot = 1,
					  .epoch = i + 1};

		lease_on_up(l, 1000, &life, out);
	}
	return l;
}

static void read_again(const uint8_t *bytes, size_t len)
{
	struct lease_packet p;
	struct buf b = {0};

	if (lease_decode(bytes, len, &p) != 0)
		return;
	lease_encode(&b, &p);
	if (b.len != len || memcmp(b.base, bytes, len) != 0)
		abort();
	free(b.base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lease_out out = {0};
	struct lease *l = leader(&out);
	struct reader r = reader_of(data, size);
	uint64_t now = 1000;

	while (reader_left(&r) >= 2) {
		uint8_t head = reader_u8(&r), len = reader_u8(&r);
		struct ring_id from = id_of(head % 4);
		struct lease_msg m = {.from = head % 4 == 3 ? NULL : &from};

		m.len = len < reader_left(&r) ? len : reader_left(&r);
		m.bytes = reader_bytes(&r, m.len);
		read_again(m.bytes, m.len);
		now += head / 4 * 10;
		lease_recv(l, now, &m, &out);
		if (out.wake_ms <= now)
			abort();
		lease_out_clear(&out);
	}
	lease_destroy(l);
	lease_out_finish(&out);
	return 0;
}
