/* SPDX-License-Identifier: MIT */
/* Messages between nodes: as they were written, and every way to be wrong. */
#include "ring/peer.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/check.h"

static const struct ring_id me = {{1, 2, 3}};
static const struct ring_id other = {{4}};

static const struct peer_join join_of = {
	.hops = 1,
	.node = {{1, 2, 3}},
	.cluster = {{9}},
	.server = 0x1122334455667788,
	.settings = {64, RING_UNSET, 1500, 500, 5, 0},
	.name = "a node",
};

static int get(const struct buf *b, size_t len, enum peer_kind kind)
{
	struct reader body;
	struct peer_join join;
	struct peer_refusal refusal;
	struct peer_leave leave;
	struct peer_farewell farewell;

	if (peer_kind(b->base, len, &body) != kind)
		return -EBADMSG;
	switch (kind) {
	case PEER_JOIN:
		return peer_get_join(&body, &join);
	case PEER_LEAVE:
		return peer_get_leave(&body, &leave);
	case PEER_FAREWELL:
		return peer_get_farewell(&body, &farewell);
	default:
		return peer_get_refusal(&body, &refusal);
	}
}

/* Each shorter one is malformed, and so is a longer one. */
static void check_lengths(struct buf *b, enum peer_kind kind)
{
	size_t len = b->len;

	check_int(get(b, len, kind), 0);
	for (size_t n = 0; n < len; n++)
		check_int(get(b, n, kind), -EBADMSG);
	buf_u8(b, 0);
	check_int(get(b, b->len, kind), -EBADMSG);
	b->len = len;
}

static void test_join(void)
{
	struct buf b = {0};
	struct reader body;
	struct peer_join got;

	peer_put_join(&b, &join_of);
	check_int(peer_kind(b.base, b.len, &body), PEER_JOIN);
	check_int(peer_get_join(&body, &got), 0);
	check(memcmp(&got, &join_of, sizeof(got)) == 0, "as it was");
	check_lengths(&b, PEER_JOIN);
	b.base[1] = 2; /* hops */
	check_int(get(&b, b.len, PEER_JOIN), -EBADMSG);
	b.base[1] = 0;
	b.base[b.len - 1] = '/';
	check_int(get(&b, b.len, PEER_JOIN), -EBADMSG);
	free(b.base);
	ok("a join comes out as it went in, and every other one is refused");
}

static void test_refusal(void)
{
	struct peer_refusal no = {.whom = 7,
				  .why = PEER_NAME_TAKEN,
				  .settings = join_of.settings};
	struct buf b = {0};
	struct reader body;
	struct peer_refusal got;

	peer_put_refusal(&b, &no);
	check_int(peer_kind(b.base, b.len, &body), PEER_REFUSAL);
	check_int(peer_get_refusal(&body, &got), 0);
	check(got.whom == 7 && got.why == PEER_NAME_TAKEN &&
		      memcmp(&got.settings, &no.settings,
			     sizeof(got.settings)) == 0,
	      "as it was");
	check_lengths(&b, PEER_REFUSAL);
	b.base[9] = 0; /* why */
	check_int(get(&b, b.len, PEER_REFUSAL), -EBADMSG);
	b.base[9] = PEER_N_WHY;
	check_int(get(&b, b.len, PEER_REFUSAL), -EBADMSG);
	free(b.base);
	ok("a refusal likewise");
}

static void test_leave(void)
{
	struct peer_leave leave = {.hops = 1,
				   .node = me,
				   .number = 0x1122334455667788,
				   .boot = 3,
				   .epoch = 17,
				   .wish = PEER_GIVES};
	struct peer_leave got;
	struct buf b = {0};
	struct reader body;

	peer_put_leave(&b, &leave);
	check_int(peer_kind(b.base, b.len, &body), PEER_LEAVE);
	check_int(peer_get_leave(&body, &got), 0);
	check(got.hops == 1 && got.number == leave.number && got.boot == 3 &&
		      got.epoch == 17 && got.wish == PEER_GIVES &&
		      memcmp(&got.node, &me, sizeof(me)) == 0,
	      "as it was");
	check_lengths(&b, PEER_LEAVE);
	b.base[1] = 2; /* hops */
	check_int(get(&b, b.len, PEER_LEAVE), -EBADMSG);
	b.base[1] = 0;
	for (unsigned wish = 0; wish <= PEER_N_WISHES; wish++) {
		b.base[b.len - 1] = (uint8_t)wish;
		check_int(get(&b, b.len, PEER_LEAVE),
			  wish > 0 && wish < PEER_N_WISHES ? 0 : -EBADMSG);
	}
	free(b.base);
	ok("a wish to leave likewise");
}

static void test_farewell(void)
{
	struct peer_farewell farewell = {.number = 9, .is_over = true}, got;
	struct buf b = {0};
	struct reader body;

	peer_put_farewell(&b, &farewell);
	check_int(peer_kind(b.base, b.len, &body), PEER_FAREWELL);
	check_int(peer_get_farewell(&body, &got), 0);
	check(got.number == 9 && got.is_over, "as it was");
	check_lengths(&b, PEER_FAREWELL);
	b.base[b.len - 1] = 2; /* is_over */
	check_int(get(&b, b.len, PEER_FAREWELL), -EBADMSG);
	free(b.base);
	ok("a farewell likewise");
}

static void test_finish(void)
{
	struct buf b = {0};
	struct reader body;
	uint64_t id, token;

	peer_put_kind(&b, PEER_FINISH);
	peer_put_life(&b, 7, 0);
	peer_put_life(&b, UINT64_MAX, 9);
	check_int(peer_kind(b.base, b.len, &body), PEER_FINISH);
	check(peer_next_life(&body, &id, &token) && id == 7 && token == 0, "1");
	check(peer_next_life(&body, &id, &token) && id == UINT64_MAX &&
		      token == 9,
	      "2");
	check(!peer_next_life(&body, &id, &token), "no more");
	for (size_t len = 1; len < b.len; len++) {
		size_t n = 0;

		peer_kind(b.base, len, &body);
		while (peer_next_life(&body, &id, &token))
			n++;
		check_int(n, (len - 1) / 16);
	}
	free(b.base);
	ok("of lives to be finished, only whole ones are taken");
}

/* ---- Items ---- */

static void put_items(struct buf *b, const struct ring_id *of)
{
	struct keyset_up up = {.id = *of,
			       .life = {{5}},
			       .boot = 3,
			       .weight = 100,
			       .grace_ms = 1000,
			       .host = {8},
			       .name = "n"};
	struct keyset_origin o = {*of, 3, 17, 2, 1};
	struct ring_op ops[] = {
		{.type = RING_CLAIM, .name = "a", .note = "x", .note_len = 1},
		{.type = RING_FINISH, .name = "b"},
	};

	b->len = 0;
	peer_put_kind(b, PEER_ITEMS);
	keyset_put_up(b, &up);
	keyset_put_request(b, &o, ops, 2);
	keyset_put_share(b, &(struct keyset_share){.id = *of,
						   .boot = 3,
						   .epoch = 17,
						   .weight = 9,
						   .is_draining = true});
}

/* How many items are taken before the end, or -EBADMSG. */
static int take(const struct buf *b, size_t len)
{
	struct peer_item item;
	struct reader body;
	int n = 0, rc;

	if (peer_kind(b->base, len, &body) != PEER_ITEMS)
		return -EBADMSG;
	while ((rc = peer_next_item(&body, &me, &item)) == 1)
		n++;
	return rc != 0 ? rc : n;
}

static void test_items(void)
{
	struct buf b = {0};
	struct reader body;
	struct peer_item item;
	size_t at[2], n = 0;

	put_items(&b, &me);
	peer_kind(b.base, b.len, &body);
	check_int(peer_next_item(&body, &me, &item), 1);
	check(item.is_up && item.up.boot == 3 && item.up.grace_ms == 1000 &&
		      item.up.host[0] == 8 && strcmp(item.name, "n") == 0,
	      "up");
	at[n++] = (size_t)(body.at - b.base);
	check_int(peer_next_item(&body, &me, &item), 1);
	check(!item.is_up && !item.is_share && item.n_ops == 2 &&
		      item.origin.seq == 2 && item.origin.epoch == 17,
	      "request");
	check(item.bytes + item.len == body.at, "its bytes");
	at[n++] = (size_t)(body.at - b.base);
	check_int(peer_next_item(&body, &me, &item), 1);
	check(item.is_share && item.share.weight == 9 &&
		      item.share.is_draining && item.share.epoch == 17,
	      "share");
	check_int(peer_next_item(&body, &me, &item), 0);
	ok("items are an up, requests, and a share");

	for (size_t len = 1; len < b.len; len++) {
		bool whole = len == 1 || len == at[0] || len == at[1];

		check((take(&b, len) >= 0) == whole, "cut at %zu", len);
	}
	ok("cut anywhere but between two, they are malformed");

	put_items(&b, &other);
	check_int(take(&b, b.len), -EBADMSG);
	b.len = 1;
	keyset_put_down(&b, &me, 3, 17, RING_LEFT);
	check_int(take(&b, b.len), -EBADMSG);
	b.len = 1;
	keyset_put_settings(&b, &me, &join_of.settings);
	check_int(take(&b, b.len), -EBADMSG);
	free(b.base);
	ok("nobody may ask for another node, an end, or settings");
}

static void test_kinds(void)
{
	struct reader body;
	uint8_t byte = 0;

	check_int(peer_kind(&byte, 0, &body), 0);
	check_int(peer_kind(&byte, 1, &body), 0);
	byte = PEER_N_KINDS;
	check_int(peer_kind(&byte, 1, &body), 0);
	byte = PEER_FAREWELL;
	check_int(peer_kind(&byte, 1, &body), PEER_FAREWELL);
	ok("what has no known kind is no message");
}

int main(void)
{
	test_kinds();
	test_join();
	test_refusal();
	test_leave();
	test_farewell();
	test_finish();
	test_items();
	return 0;
}
