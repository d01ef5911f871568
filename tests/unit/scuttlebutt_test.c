/* SPDX-License-Identifier: MIT */
/* Scuttlebutt and its three classes. S* and SB-* are rules and behaviours that
 * others paid for; D9 and D11 hold throughout: real bytes, decoded in bounds.
 * scuttlebutt_random_test does it all at once. */
#include "gossip/scuttlebutt.h"

#include <errno.h>

#include "gossip/scuttlebutt_wire.h"
#include "scuttlebutt_rig.h"

/* ---- Values ---- */

static void test_agree(void)
{
	struct rig r;

	rig_init(&r, 1, 3);
	start_all(&r);
	check_int(set(&r, 0, "k", "one"), 0);
	check_int(set(&r, 0, "k", "two"), 0);
	check_int(set(&r, 1, "other", "x"), 0);
	check_value(&r, 0, "k", "two");
	rig_run(&r, 100);
	for (unsigned i = 0; i < 3; i++) {
		check_value(&r, i, "k", "two");
		check_value(&r, i, "other", "x");
	}
	check(rig_is_equal(&r), "not equal");
	rig_finish(&r);
	ok("SB-3, SB-4: a value set is with all three within 100 ms");
}

static void test_old_changes_nothing(void)
{
	struct rig r;
	struct sb_dump at = {0};
	uint8_t *old = xmalloc(1 << 20);

	rig_init(&r, 2, 2);
	start_all(&r);
	set(&r, 0, "k", "old");
	size_t len = sb_dump(r.node[0].sb[0], &at, old, 1 << 20);
	set(&r, 0, "k", "new");
	rig_run(&r, 200);
	check_value(&r, 1, "k", "new");
	struct sb_stats before = stats(&r, 1, 0);
	check_int(sb_load(r.node[1].sb[0], old, len), 0);
	struct sb_stats after = stats(&r, 1, 0);
	check_value(&r, 1, "k", "new");
	check(before.content == after.content, "content changed");
	check(before.vector == after.vector, "versions changed");
	free(old);
	rig_finish(&r);
	ok("SB-1: an older change of the same source changes nothing");
}

static void test_null_hides(void)
{
	struct rig r;
	size_t at = 0, n = 0;
	struct model_view view;

	rig_init(&r, 3, 2);
	start_all(&r);
	check_int(del(&r, 0, "k"), -ENOENT);
	set(&r, 0, "k", "v");
	set(&r, 0, "stays", "v");
	rig_run(&r, 100);
	check_int(del(&r, 1, "k"), 0);
	check_value(&r, 1, "k", "");
	rig_run(&r, 100);
	check_value(&r, 0, "k", "");
	while (model_next(r.node[0].model, &at, &view))
		n++;
	check_int(n, 1);
	check_int(set(&r, 0, ".k", "v"), -EINVAL);
	check_int(set(&r, 0, "a/b", "v"), -EINVAL);
	check_int(set(&r, 0, "", "v"), -EINVAL);
	set(&r, 0, "empty", "");
	check(model_get(r.node[0].model, "empty", 5, &view), "empty is gone");
	rig_finish(&r);
	ok("SB-14, SB-15: a deleted key is hidden from all, empty ones are "
	   "not");
}

static void test_ties(void)
{
	struct rig r;

	rig_init(&r, 4, 2);
	start_all(&r);
	r.node[1].side = 1;
	set(&r, 1, "k", "of the higher id");
	rig_run(&r, 50);
	set(&r, 0, "k", "of the lower id, later on the wall");
	rig_run(&r, 50);
	r.node[1].side = 0;
	check_settles(&r, 3000);
	check_value(&r, 0, "k", "of the higher id");
	check_value(&r, 1, "k", "of the higher id");
	rig_finish(&r);
	ok("S4: of equal counters the higher id wins, whatever clocks say");
}

static void test_newest_only(void)
{
	struct rig r;
	char value[16];

	rig_init(&r, 5, 2);
	start_all(&r);
	r.node[1].side = 1;
	for (int i = 0; i < 10000; i++) {
		snprintf(value, sizeof(value), "%d", i);
		set(&r, 0, "k", value);
	}
	check_int(stats(&r, 0, 0).n_records, 1);
	rig_run(&r, 100);
	r.node[1].side = 0;
	uint64_t before = r.n_sent_bytes;
	check_settles(&r, 3000);
	check_value(&r, 1, "k", "9999");
	check(r.n_sent_bytes - before < 2000, "%llu bytes",
	      (unsigned long long)(r.n_sent_bytes - before));
	rig_finish(&r);
	ok("S5: of 10000 writes of one key only the newest is kept and sent");
}

static void test_limits(void)
{
	struct rig r;
	char *value = xcalloc(1, MODEL_VALUE_MAX + 1);
	int n = 0, rc;
	char key[16];

	rig_init(&r, 6, 2);
	r.config.bytes_max = 1 << 20;
	start_all(&r);
	check_int(
		model_set(r.node[0].model, "k", 1, value, MODEL_VALUE_MAX + 1),
		-EFBIG);
	do {
		snprintf(key, sizeof(key), "k%d", n++);
		rc = model_set(r.node[0].model, key, strlen(key), value,
			       MODEL_VALUE_MAX);
	} while (rc == 0);
	check_int(rc, -ENOSPC);
	check_int(n - 1, 11);
	touch(&r, 0);
	check_settles(&r, 3000);
	check(r.n_streams > 0, "values of 64 KiB in packets");
	check_int(stats(&r, 1, 0).n_records, 11);
	free(value);
	rig_finish(&r);
	ok("memory: own writes end at 3/4 of the limit, and all take them");
}

/* ---- Events ---- */

static void test_events_once(void)
{
	struct rig r;

	rig_init(&r, 7, 2);
	start_all(&r);
	r.node[1].side = 1;
	for (int i = 0; i < 3; i++) {
		emit(&r, 0, "t", "a");
		emit(&r, 1, "t", "b");
	}
	rig_run(&r, 3000);
	r.node[1].side = 0;
	check_settles(&r, 3000);
	for (unsigned i = 0; i < 2; i++) {
		check_int(n_events(&r, i, "t"), 6);
		for (size_t k = 0; k < r.node[i].n_told; k++)
			check_int(r.node[i].told[k].n, 3);
	}
	check_int(r.n_events_told, 12);
	rig_finish(&r);
	ok("SB-5: three events on each side of a cut: both see six, once each");
}

static void test_retain(void)
{
	struct rig r;
	struct event a[16], b[16];
	char text[16];

	rig_init(&r, 8, 3);
	start_all(&r);
	for (unsigned i = 0; i < 3; i++) {
		events_retain(r.node[i].events, "t", 1, 10);
		r.node[i].side = i;
	}
	for (int k = 0; k < 30; k++) {
		snprintf(text, sizeof(text), "%d", k);
		emit(&r, 0, "t", text);
		emit(&r, (unsigned)k % 3, "t", text);
	}
	rig_run(&r, 500);
	r.node[1].side = r.node[2].side = 0;
	check_settles(&r, 5000);
	check_int(events_list(r.node[0].events, "t", 1, a, 16), 10);
	for (unsigned i = 1; i < 3; i++) {
		check_int(events_list(r.node[i].events, "t", 1, b, 16), 10);
		for (unsigned k = 0; k < 10; k++)
			check(a[k].version == b[k].version &&
				      a[k].source->life == b[k].source->life,
			      "logs differ at %u", k);
	}
	rig_finish(&r);
	ok("SB-18, SB-19: a log keeps the newest N, the same N, in the same "
	   "order, on all");
}

static void test_topics(void)
{
	struct rig r;
	struct events_topic t;

	rig_init(&r, 9, 3);
	start_all(&r);
	check_int(events_forget(r.node[0].events, "t", 1), -ENOENT);
	check_int(events_open(r.node[0].events, "t", 1), 0);
	touch(&r, 0);
	rig_run(&r, 100);
	check(events_find(r.node[2].events, "t", 1, &t), "not opened");
	emit(&r, 2, "t", "x");
	rig_run(&r, 100);
	check_int(n_events(&r, 1, "t"), 1);
	check_int(events_forget(r.node[1].events, "t", 1), 0);
	touch(&r, 1);
	rig_run(&r, 100);
	for (unsigned i = 0; i < 3; i++)
		check(!events_find(r.node[i].events, "t", 1, &t), "node %u", i);
	check_int(emit(&r, 0, "t", "again"), 0);
	check_settles(&r, 20000);
	for (unsigned i = 0; i < 3; i++)
		check_int(n_events(&r, i, "t"), 1);
	rig_finish(&r);
	ok("events: a topic is opened, forgotten, and begins anew, everywhere");
}

/* ---- Traits ---- */

static void test_traits(void)
{
	struct rig r;
	struct trait trait;
	size_t at = 0, n = 0;

	rig_init(&r, 10, 3);
	start_all(&r);
	check_int(traits_set(r.node[0].traits, "vnodes", "7", 1), 0);
	check_int(traits_set(r.node[0].traits, "load", "1", 1), 0);
	uint64_t said = sb_own(r.node[0].sb[2])->max;
	check_int(traits_set(r.node[0].traits, "load", "1", 1), 0);
	check_int(sb_own(r.node[0].sb[2])->max, said);
	touch(&r, 0);
	check_settles(&r, 3000);
	rig_save(&r.node[0]);
	rig_kill(&r, 0);
	rig_start(&r, 0);
	traits_set(r.node[0].traits, "vnodes", "9", 1);
	touch(&r, 0);
	check_settles(&r, 3000);
	check(traits_get(r.node[2].traits, &r.node[0].id, "vnodes", &trait) &&
		      trait.value[0] == '9',
	      "not the newest");
	while (traits_next(r.node[2].traits, &at, &trait))
		n++;
	check_int(n, 1); /* the former life's load went with it */
	check_int(traits_delete(r.node[0].traits, "vnodes"), 0);
	touch(&r, 0);
	check_settles(&r, 20000);
	check(!traits_get(r.node[1].traits, &r.node[0].id, "vnodes", &trait),
	      "still there");
	rig_finish(&r);
	ok("I6: what a new life says replaces all that the older ones said");
}

/* ---- Catching up ---- */

static void test_dump(void)
{
	struct rig r;

	rig_init(&r, 11, 2);
	start_all(&r);
	for (int i = 0; i < 50; i++) {
		emit(&r, 0, "t", "x");
		emit(&r, 1, "t", "y");
	}
	set(&r, 0, "k", "v");
	check_settles(&r, 3000);
	struct sb_stats before = stats(&r, 0, 1);
	uint64_t told = r.n_events_told;
	rig_save(&r.node[0]);
	rig_kill(&r, 0);
	rig_start(&r, 0);
	struct sb_stats after = stats(&r, 0, 1);
	check(before.content == after.content, "contents differ");
	check_value(&r, 0, "k", "v");
	check_settles(&r, 3000);
	check_int(r.n_events_told, told); /* loaded events are not told again */
	check_int(set(&r, 0, "k", "w"), 0);
	check_settles(&r, 3000);
	check_value(&r, 1, "k", "w");
	rig_finish(&r);
	ok("SB-9: dumped and loaded, the histories are equal; nothing is "
	   "twice");
}

static void test_chunks(void)
{
	struct rig r;
	char text[1000];

	rig_init(&r, 12, 2);
	r.config.stream_bytes = SB_STREAM_MIN;
	r.loss = 20;
	start_all(&r);
	r.node[1].side = 1;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 1000; i++)
		emit(&r, 0, "t", text);
	rig_run(&r, 10);
	r.node[1].side = 0;
	check_settles(&r, 60000);
	check_int(n_events(&r, 1, "t"), 1000);
	check(r.longest_stream > SB_STREAM_MIN / 2, "chunks are not filled");
	check_int(stats(&r, 1, 1).n_records, 1000);
	rig_finish(&r);
	ok("S3: what does not fit comes in prefixes, with 20 %% loss, in "
	   "order");
}

static void test_no_gap(void)
{
	struct rig r;
	uint8_t *piece[2];
	size_t len[2];
	struct sb_dump at = {0};
	char text[1000];

	rig_init(&r, 13, 2);
	start_all(&r);
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 100; i++)
		emit(&r, 0, "t", text);
	for (int i = 0; i < 2; i++) {
		piece[i] = xmalloc(SB_STREAM_MIN);
		len[i] = sb_dump(r.node[0].sb[1], &at, piece[i], SB_STREAM_MIN);
	}
	check_int(sb_load(r.node[1].sb[1], piece[1], len[1]), 0);
	check_int(stats(&r, 1, 1).n_records, 0);
	check_int(sb_load(r.node[1].sb[1], piece[0], len[0]), 0);
	check_int(sb_load(r.node[1].sb[1], piece[1], len[1]), 0);
	check_int(stats(&r, 1, 1).n_records, 100);
	free(piece[0]);
	free(piece[1]);
	rig_finish(&r);
	ok("S3: a section that would leave a gap is not taken");
}

/* Which source comes first in the answer to a digest of n_known sources. */
static void test_order(void)
{
	struct rig r;
	struct sb_out out = {0};
	struct bytes_in in;
	struct sb_header h;
	struct sb_section sec;
	struct sb_item item;

	rig_init(&r, 14, 4);
	start_all(&r);
	r.node[3].side = 1;
	for (unsigned i = 0; i < 3; i++)
		emit(&r, i, "t", "first");
	rig_run(&r, 1000);
	uint8_t bytes[400];
	struct bytes_out digest = bytes_out_of(bytes, sizeof(bytes));
	h = (struct sb_header){.kind = SB_DIGEST, .channel = EVENTS_CHANNEL};
	sb_wire_put_header(&digest, &h);
	for (unsigned i = 0; i < 2; i++) { /* knows 0 and 1, not 2 */
		const struct sb_source *own = sb_own(r.node[i].sb[1]);
		struct sb_entry e = {own->id, own->life, 0, 1};
		sb_wire_put_entry(&digest, &e);
	}
	emit(&r, 0, "t", "a");
	for (int i = 0; i < 5; i++)
		emit(&r, 1, "t", "b");
	rig_run(&r, 1000);
	struct sb_msg msg = {rig_id(3), bytes, digest.len};
	check_int(sb_recv(r.node[2].sb[1], r.now_us, &msg, &out), 0);
	check_int(out.n_sends, 1);
	in = bytes_in_of(out.bytes + out.sends[0].at, out.sends[0].len);
	check_int(sb_wire_decode(&in, &h), 0);
	check_int(h.kind, SB_DELTA);
	static const uint8_t want[] = {3, 2, 1};
	for (unsigned i = 0; i < 3; i++) {
		check(sb_wire_section(&in, &sec), "no section %u", i);
		check_int(sec.id.b[0], want[i]);
		for (uint32_t k = 0; k < sec.n; k++)
			sb_wire_item(&in, &item);
	}
	sb_out_finish(&out);
	rig_finish(&r);
	ok("S2: unknown origins first, then the one that is farthest behind");
}

/* ---- Tombstones ---- */

static void test_collect(void)
{
	struct rig r;

	rig_init(&r, 15, 4);
	start_all(&r);
	set(&r, 0, "k", "v");
	check_settles(&r, 3000);
	rig_save(&r.node[3]);
	rig_kill(&r, 3);
	del(&r, 1, "k");
	rig_run(&r, 60000);
	for (unsigned i = 0; i < 3; i++)
		check_int(stats(&r, i, 0).n_tombs, 1); /* 3 may come back */
	rig_start(&r, 3);
	check_value(&r, 3, "k", "v");
	check_settles(&r, 60000);
	check_value(&r, 3, "k", "");
	for (unsigned i = 0; i < 4; i++)
		check_int(stats(&r, i, 0).n_records, 0);
	rig_finish(&r);
	ok("S1: a tombstone waits for every known member, and is then "
	   "collected");
}

static void test_stale(void)
{
	struct rig r;

	rig_init(&r, 16, 4);
	start_all(&r);
	set(&r, 0, "k", "v");
	set(&r, 3, "mine", "v");
	set(&r, 0, "kept", "v");
	emit(&r, 0, "t", "before");
	check_settles(&r, 3000);
	rig_save(&r.node[3]);
	rig_kill(&r, 3);
	rig_forget(&r, 3);
	del(&r, 1, "k");
	del(&r, 0, "mine");
	events_forget(r.node[0].events, "t", 1);
	check_settles(&r, 60000);
	check_int(stats(&r, 0, 0).n_records, 1);
	uint64_t told = r.n_events_told;
	rig_start(&r, 3);
	check_value(&r, 3, "k", "v");
	check_int(set(&r, 3, "new", "v"), 0);
	check_settles(&r, 60000);
	for (unsigned i = 0; i < 4; i++) {
		check_value(&r, i, "k", "");
		check_value(&r, i, "mine", "");
		check_value(&r, i, "kept", "v");
		check_value(&r, i, "new", "v");
		check_int(n_events(&r, i, "t"), 0);
	}
	check_int(stats(&r, 3, 0).n_resets, 1);
	check_int(stats(&r, 0, 0).n_resets, 0);
	check_int(r.n_events_told, told);
	rig_finish(&r);
	ok("S1: who was away beyond the horizon resets; nothing is "
	   "resurrected");
}

/* Two who were forgotten together must not confirm each other's dead. */
static void test_stale_pair(void)
{
	struct rig r;

	rig_init(&r, 17, 5);
	start_all(&r);
	set(&r, 0, "k", "v");
	check_settles(&r, 3000);
	r.node[3].side = r.node[4].side = 1;
	rig_forget(&r, 3);
	rig_forget(&r, 4);
	for (unsigned i = 3; i < 5; i++) {
		rig_know(&r, 3, 7 - i);
		rig_know(&r, 4, 7 - i);
	}
	rig_know(&r, 3, 4);
	rig_know(&r, 4, 3);
	del(&r, 1, "k");
	rig_run(&r, 60000);
	check_int(stats(&r, 0, 0).n_records, 0);
	check_value(&r, 4, "k", "v");
	for (unsigned i = 0; i < 5; i++)
		for (unsigned j = 0; j < 5; j++)
			rig_know(&r, i, j);
	r.node[3].side = r.node[4].side = 0;
	check_settles(&r, 60000);
	for (unsigned i = 0; i < 5; i++)
		check_value(&r, i, "k", "");
	rig_finish(&r);
	ok("S1: two stale ones do not bring back what they agree upon");
}

/* ---- Cost ---- */

static void test_idle(void)
{
	uint64_t per_round[2];

	for (unsigned big = 0; big < 2; big++) {
		struct rig r;
		rig_init(&r, 22, 8);
		start_all(&r);
		for (unsigned i = 0; i < (big ? 800u : 8u); i++)
			emit(&r, i % 8, "t", "some event");
		check_settles(&r, 20000);
		rig_run(&r, 5000);
		uint64_t bytes = r.n_sent_bytes, n = r.n_sent;
		rig_run(&r, 100000);
		check_int(r.n_sent - n, 8 * 3 * 100);
		per_round[big] = (r.n_sent_bytes - bytes) / 800;
		rig_finish(&r);
	}
	check_int(per_round[0], 3 * SB_HEADER_BYTES);
	check_int(per_round[1], 3 * SB_HEADER_BYTES);
	ok("an idle round costs %d bytes and member, whatever is in store",
	   3 * SB_HEADER_BYTES);
}

static void test_finite(void)
{
	struct rig r;

	rig_init(&r, 23, 16);
	start_all(&r);
	rig_run(&r, 5000);
	uint64_t before = r.n_sent, begin = r.now_us;
	emit(&r, 0, "t", "x");
	int ms = -1;
	for (int i = 0; i < 400 && ms < 0; i++) {
		rig_run(&r, 5);
		if (rig_is_equal(&r))
			ms = (int)((r.now_us - begin) / 1000);
	}
	check(ms >= 0 && ms <= 750, "%d ms", ms);
	rig_run(&r, 2000 - (uint64_t)ms);
	uint64_t idle = 16 * 3 * 2, n = r.n_sent - before;
	check(n <= idle + 16 * 3 * 4 + 15 * 8, "%llu messages",
	      (unsigned long long)n);
	rig_finish(&r);
	ok("D1: an event reaches 16 members in %d ms with %llu messages, and "
	   "ends",
	   ms, (unsigned long long)(n - idle));
}

static void test_memory(void)
{
	struct rig r;
	char key[16];

	rig_init(&r, 24, 1);
	start_all(&r);
	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key-%03d", i);
		set(&r, 0, key, "v");
	}
	struct sb_stats st = stats(&r, 0, 0);
	check(sizeof(struct sb_record) <= 64, "%zu", sizeof(struct sb_record));
	ok("memory: %zu bytes per record, %zu per source, and the body",
	   sizeof(struct sb_record), sizeof(struct sb_source));
	check_int(st.n_bytes, 1000 * (sizeof(struct sb_record) + 17));
	rig_finish(&r);
}

static void test_flow(void)
{
	struct flow f;
	struct flow_config config = {
		.least = 10, .most = 1000, .step = 20, .burst = 10};

	flow_init(&f, &config);
	check_int(flow_wait_us(&f, 1000000), 0);
	for (int i = 0; i < 10; i++)
		flow_spend(&f);
	check(flow_wait_us(&f, 1000000) == 1000, "a burst has no end");
	check_int(flow_wait_us(&f, 1001000), 0);
	flow_round(&f, true);
	check_int(f.rate, 750);
	flow_round(&f, false);
	check_int(f.rate, 770);
	for (int i = 0; i < 100; i++)
		flow_round(&f, true);
	check_int(f.rate, 10);
	for (int i = 0; i < 100; i++)
		flow_round(&f, false);
	check_int(f.rate, 1000);
	ok("S5: who overflows writes 3/4 as fast, and then a little faster");
}

int main(void)
{
	test_agree();
	test_old_changes_nothing();
	test_null_hides();
	test_ties();
	test_newest_only();
	test_limits();
	test_events_once();
	test_retain();
	test_topics();
	test_traits();
	test_dump();
	test_chunks();
	test_no_gap();
	test_order();
	test_collect();
	test_stale();
	test_stale_pair();
	test_idle();
	test_finite();
	test_memory();
	test_flow();
	return 0;
}
