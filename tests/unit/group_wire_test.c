/* SPDX-License-Identifier: MIT */
/* Messages to bytes and back; and bytes that are no message. */
#include "ring/group_wire.h"

#include <errno.h>
#include <string.h>

#include "ring/mem.h"
#include "tests/unit/check.h"

#define N_ENTRIES 5

static struct raft_configuration conf_of(unsigned n)
{
	struct raft_configuration c;
	char address[33];

	raft_configuration_init(&c);
	for (unsigned i = 0; i < n; i++) {
		snprintf(address, sizeof(address), "%032x", i + 1);
		check_int(raft_configuration_add(&c, i + 1, address,
						 (int)(i % 3)),
			  0);
	}
	return c;
}

static void fill_entries(struct raft_append_entries *a)
{
	static struct raft_entry entries[N_ENTRIES];
	static uint8_t bytes[N_ENTRIES][16];

	*a = (struct raft_append_entries){.version = 1,
					  .term = 7,
					  .prev_log_index = 41,
					  .prev_log_term = 6,
					  .leader_commit = 40,
					  .entries = entries,
					  .n_entries = N_ENTRIES};
	for (unsigned i = 0; i < N_ENTRIES; i++) {
		memset(bytes[i], (int)i + 1, sizeof(bytes[i]));
		entries[i] = (struct raft_entry){
			.term = 7,
			.type = i % 2 ? RAFT_BARRIER : RAFT_COMMAND,
			.buf = {.base = bytes[i], .len = i == 2 ? 0 : 16}};
	}
}

static struct wire_message sample(int kind)
{
	static uint8_t number[8] = "number!";
	struct wire_message m = {.from = 3, .to = 4, .kind = kind};

	if (kind <= RAFT_TIMEOUT_NOW)
		m.raft.type = (enum raft_message_type)kind;
	switch (kind) {
	case RAFT_APPEND_ENTRIES:
		fill_entries(&m.raft.append_entries);
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		m.raft.append_entries_result =
			(struct raft_append_entries_result){.term = 9,
							    .rejected = 5,
							    .last_log_index = 4,
							    .features = 1,
							    .capacity = 65535};
		break;
	case RAFT_REQUEST_VOTE:
		m.raft.request_vote =
			(struct raft_request_vote){.version = 2,
						   .term = 9,
						   .last_log_index = 11,
						   .last_log_term = 8,
						   .disrupt_leader = true};
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		m.raft.request_vote_result = (struct raft_request_vote_result){
			.term = 9, .pre_vote = true, .capacity = 5};
		break;
	case RAFT_INSTALL_SNAPSHOT:
		m.raft.install_snapshot = (struct raft_install_snapshot){
			.term = 9,
			.last_index = 100,
			.last_term = 8,
			.conf = conf_of(4),
			.conf_index = 90,
			.data = {.base = number, .len = 8}};
		break;
	case RAFT_TIMEOUT_NOW:
		m.raft.timeout_now = (struct raft_timeout_now){
			.term = 9, .last_log_index = 3, .last_log_term = 2};
		break;
	case WIRE_CHUNK:
		m.chunk = (struct wire_chunk){.copy = 77,
					      .seq = 5,
					      .part = WIRE_END,
					      .bytes = number,
					      .len = 8};
		break;
	default:
		m.ack = (struct wire_ack){
			.copy = 77, .next = 5, .state = WIRE_DONE};
	}
	return m;
}

static void finish_sample(struct wire_message *m)
{
	if (m->kind == RAFT_INSTALL_SNAPSHOT)
		raft_configuration_close(&m->raft.install_snapshot.conf);
}

/* Bytes that give the same bytes again are the same message. */
static void test_there_and_back(void)
{
	for (int kind = RAFT_APPEND_ENTRIES; kind <= WIRE_ACK; kind++) {
		struct wire_message m = sample(kind), back;
		struct buf b = {0}, again = {0};

		group_wire_encode(&m, &b);
		check_int(group_wire_decode(&back, b.base, b.len), 0);
		check(back.from == 3 && back.to == 4 && back.kind == kind,
		      "kind %d", kind);
		group_wire_encode(&back, &again);
		check(b.len == again.len &&
			      memcmp(b.base, again.base, b.len) == 0,
		      "kind %d", kind);
		group_wire_finish(&back);
		finish_sample(&m);
		free(b.base);
		free(again.base);
	}
	ok("every message comes back as it was");
}

/* What is cut short or has more is refused, and so is every flipped bit, or it
 * is another message in full. */
static void test_broken(void)
{
	for (int kind = RAFT_APPEND_ENTRIES; kind <= WIRE_ACK; kind++) {
		struct wire_message m = sample(kind), back;
		struct buf b = {0};

		group_wire_encode(&m, &b);
		for (size_t n = 0; n < b.len; n++) {
			uint8_t *exact = memcpy(xmalloc(n + 1), b.base, n);

			check(kind == WIRE_CHUNK ||
				      group_wire_decode(&back, exact, n) ==
					      -EBADMSG,
			      "kind %d cut to %zu", kind, n);
			free(exact);
		}
		buf_u8(&b, 0);
		check_int(group_wire_decode(&back, b.base, b.len), -EBADMSG);
		for (size_t i = 0; i < (b.len - 1) * 8; i++) {
			b.base[i / 8] ^= (uint8_t)(1 << i % 8);
			if (group_wire_decode(&back, b.base, b.len - 1) == 0)
				group_wire_finish(&back);
			b.base[i / 8] ^= (uint8_t)(1 << i % 8);
		}
		finish_sample(&m);
		free(b.base);
	}
	ok("what is cut short, longer or flipped is refused, or read in "
	   "bounds");
}

/* An entry that is a configuration, as bytes; change is made in its middle. */
static int decode_change(size_t at, uint8_t value)
{
	struct raft_configuration c = conf_of(3);
	struct raft_entry e = {.term = 7, .type = RAFT_CHANGE};
	struct wire_message m = {.from = 3,
				 .to = 4,
				 .kind = RAFT_APPEND_ENTRIES},
			    back;
	struct buf b = {0};

	check_int(raft_configuration_encode(&c, &e.buf), 0);
	if (at < e.buf.len)
		((uint8_t *)e.buf.base)[at] = value;
	m.raft.append_entries =
		(struct raft_append_entries){.term = 7,
					     .prev_log_index = 1,
					     .prev_log_term = 1,
					     .entries = &e,
					     .n_entries = 1};
	group_wire_encode(&m, &b);
	int rc = group_wire_decode(&back, b.base, b.len);

	if (rc == 0)
		group_wire_finish(&back);
	free(b.base);
	raft_free(e.buf.base);
	raft_configuration_close(&c);
	return rc;
}

static void test_configurations(void)
{
	check_int(decode_change(SIZE_MAX, 0), 0);
	check_int(decode_change(0, 2), -EBADMSG); /* version */
	check_int(decode_change(1, 0), -EBADMSG); /* no servers */
	check_int(decode_change(1, 4), -EBADMSG); /* more than there are */
	check_int(decode_change(2, 1), -EBADMSG); /* far more */
	check_int(decode_change(9, 0), -EBADMSG); /* raft id 0 */
	check_int(decode_change(9, 2), -EBADMSG); /* raft id twice */
	check_int(decode_change(9 + 8, 'g'), -EBADMSG);	     /* no node id */
	check_int(decode_change(9 + 8 + 31, '2'), -EBADMSG); /* node twice */
	check_int(decode_change(9 + 8 + 32, '0'), -EBADMSG); /* no end */
	check_int(decode_change(9 + 8 + 33, 3), -EBADMSG);   /* role */
	ok("a configuration that the library would stumble over is refused");
}

static void test_cut(void)
{
	for (unsigned k = 1; k < N_ENTRIES; k++) {
		struct wire_message m = sample(RAFT_APPEND_ENTRIES), back;
		struct raft_append_entries *a = &back.raft.append_entries;
		struct wire_message tail;
		struct buf b = {0};

		group_wire_encode(&m, &b);
		check_int(group_wire_decode(&back, b.base, b.len), 0);
		tail = back;
		group_wire_cut(a, k, &tail.raft.append_entries);
		const struct raft_append_entries *t = &tail.raft.append_entries;

		check_int(a->n_entries, k);
		check_int(t->n_entries, N_ENTRIES - k);
		check_int(t->prev_log_index, 41 + k);
		check_int(t->prev_log_term, 7);
		for (unsigned i = 0; i < t->n_entries; i++) {
			const struct raft_buffer
				*x = &t->entries[i].buf,
				*y = &m.raft.append_entries.entries[k + i].buf;

			check(x->len == y->len &&
				      memcmp(x->base, y->base, x->len) == 0,
			      "entry %u", i);
		}
		group_wire_finish(&tail);
		group_wire_finish(&back);
		free(b.base);
	}
	ok("a message is cut in two between any entries");
}

int main(void)
{
	test_there_and_back();
	test_broken();
	test_configurations();
	test_cut();
	return 0;
}
