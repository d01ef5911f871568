/* SPDX-License-Identifier: MIT */
/* Scuttlebutt among liars, copies, and broken messages: what is said of others'
 * versions, of ours, and of the future, must break nobody. */
#include "gossip/scuttlebutt.h"

#include <errno.h>

#include "gossip/scuttlebutt_wire.h"
#include "scuttlebutt_rig.h"

/* Node i hears a delta that nobody sent: source, up to a version, empty. */
static void lie_delta(struct rig *r, unsigned i, unsigned class,
		      const struct sb_section *sec)
{
	uint8_t bytes[256];
	struct sb_out out = {0};
	struct sb_header h = {.kind = SB_DELTA,
			      .channel = (uint8_t)(class + 1)};

	/* The epoch is no secret to who hears our digests: learn it. */
	struct bytes_out hello = bytes_out_of(bytes, sizeof(bytes));
	h.kind = SB_HELLO;
	h.vector = 1;
	sb_wire_put_header(&hello, &h);
	struct sb_msg msg = {rig_id(15), bytes, hello.len};
	sb_recv(r->node[i].sb[class], r->now_us + 300000, &msg, &out);
	struct bytes_in in = bytes_in_of(out.bytes, out.n_bytes);
	check_int(sb_wire_decode(&in, &h), 0);
	sb_out_clear(&out);
	h.kind = SB_DELTA;
	struct bytes_out delta = bytes_out_of(bytes, sizeof(bytes));
	sb_wire_put_header(&delta, &h);
	sb_wire_put_section(&delta, sec);
	msg.len = delta.len;
	check_int(sb_recv(r->node[i].sb[class], r->now_us, &msg, &out), 0);
	sb_out_finish(&out);
}

static void test_poison(void)
{
	struct rig r;

	rig_init(&r, 18, 3);
	start_all(&r);
	emit(&r, 0, "t", "1");
	check_settles(&r, 3000);
	const struct sb_source *own = sb_own(r.node[0].sb[1]);
	struct sb_section lie = {own->id, own->life, 0, 1, UINT64_MAX, 0, 0};
	lie_delta(&r, 1, 1, &lie);
	emit(&r, 0, "t", "2");
	check_settles(&r, 30000);
	emit(&r, 0, "t", "3");
	check_settles(&r, 30000);
	for (unsigned i = 0; i < 3; i++)
		check_int(n_events(&r, i, "t"), 3);
	check_int(stats(&r, 0, 1).n_lives, 1);
	rig_finish(&r);
	ok("a forged version (the seed's hole) makes nobody deaf: a new life");
}

static void test_poison_dead(void)
{
	struct rig r;

	rig_init(&r, 19, 3);
	start_all(&r);
	emit(&r, 0, "t", "1");
	check_settles(&r, 3000);
	r.node[1].side = 1;
	emit(&r, 0, "t", "2");
	rig_run(&r, 2000);
	const struct sb_source *own = sb_own(r.node[0].sb[1]);
	struct sb_section lie = {own->id, own->life, 0, 1, UINT64_MAX, 0, 0};
	rig_kill(&r, 0);
	r.node[1].side = 0;
	lie_delta(&r, 1, 1, &lie);
	check_settles(&r, 60000);
	check_int(n_events(&r, 1, "t"), 2);
	check_int(n_events(&r, 2, "t"), 2);
	rig_finish(&r);
	ok("nor does it when the source is dead: contents are compared");
}

static void test_restored(void)
{
	struct rig r;

	rig_init(&r, 20, 3);
	start_all(&r);
	emit(&r, 0, "t", "1");
	check_settles(&r, 3000);
	rig_save(&r.node[0]);
	uint32_t boot = r.node[0].boot;
	for (int i = 0; i < 3; i++) { /* lives that the backup does not know */
		rig_kill(&r, 0);
		rig_start(&r, 0);
		emit(&r, 0, "t", "x");
		traits_set(r.node[0].traits, "life", "3", 1);
		check_settles(&r, 5000);
	}
	rig_kill(&r, 0);
	r.node[0].boot = boot; /* the whole disk is restored */
	rig_start(&r, 0);
	emit(&r, 0, "t", "y");
	traits_set(r.node[0].traits, "life", "restored", 8);
	touch(&r, 0);
	check_settles(&r, 30000);
	struct trait trait;
	for (unsigned i = 0; i < 3; i++) {
		check_int(n_events(&r, i, "t"), 5);
		check(traits_get(r.node[i].traits, &r.node[0].id, "life",
				 &trait) &&
			      trait.value_len == 8,
		      "the newest life is not believed");
	}
	rig_finish(&r);
	ok("I4: a state restored from a backup loses and hides nothing");
}

static void test_future_counter(void)
{
	struct rig r;
	uint8_t bytes[256];
	struct bytes_out out = bytes_out_of(bytes, sizeof(bytes));
	struct sb_section sec = {rig_id(9), 1, 0, 0, 1, 0, 1};

	rig_init(&r, 21, 2);
	start_all(&r);
	sb_wire_put_section(&out, &sec);
	bytes_put_u64(&out, 1);
	bytes_put_u8(&out, 0);
	bytes_put_u32(&out, 11);
	bytes_put_u64(&out, UINT64_MAX);
	bytes_put_u8(&out, 1);
	bytes_put(&out, "kv", 2);
	check_int(sb_load(r.node[0].sb[0], bytes, out.len), 0);
	check_value(&r, 0, "k", "");
	check_int(set(&r, 0, "k", "mine"), 0);
	check_value(&r, 0, "k", "mine");
	rig_finish(&r);
	ok("a change from the far future does not beat all that follow");
}

static void test_bad_messages(void)
{
	struct rig r;
	struct sb_out out = {0};
	uint8_t bytes[400];

	rig_init(&r, 25, 2);
	start_all(&r);
	emit(&r, 0, "t", "x");
	struct bytes_out good = bytes_out_of(bytes, sizeof(bytes));
	struct sb_header h = {.kind = SB_DELTA, .channel = EVENTS_CHANNEL};
	struct sb_section sec = {rig_id(5), 1, 0, 0, 9, 0, 1};
	sb_wire_put_header(&good, &h);
	sb_wire_put_section(&good, &sec);
	sb_wire_put_record(&good, sb_own(r.node[0].sb[1])->first);
	struct sb_stats before = stats(&r, 1, 1);
	for (size_t len = 0; len < good.len; len++) {
		struct sb_msg msg = {rig_id(5), bytes, len};
		int rc = sb_recv(r.node[1].sb[1], r.now_us, &msg, &out);
		bool is_whole = len == SB_HEADER_BYTES; /* an empty delta */
		check_int(rc, is_whole ? -ESTALE : -EBADMSG);
	}
	bytes[0] = 2;
	struct sb_msg msg = {rig_id(5), bytes, good.len};
	check_int(sb_recv(r.node[1].sb[1], r.now_us, &msg, &out),
		  -EPROTONOSUPPORT);
	bytes[0] = SB_VERSION;
	check_int(sb_recv(r.node[1].sb[0], r.now_us, &msg, &out),
		  -EPROTONOSUPPORT);
	check_int(sb_recv(r.node[1].sb[1], r.now_us, &msg, &out), -ESTALE);
	struct sb_stats after = stats(&r, 1, 1);
	check(before.vector == after.vector, "something was taken");
	check_int(after.n_bad, good.len - 1);
	sb_out_finish(&out);
	rig_finish(&r);
	ok("D9: a message that is cut anywhere is refused whole");
}

int main(void)
{
	test_poison();
	test_poison_dead();
	test_restored();
	test_future_counter();
	test_bad_messages();
	return 0;
}
