/* SPDX-License-Identifier: MIT */
/* What the scuttlebutt that this one follows does by its own tests, as far as it
 * is not about streams of one language: SB-*. Others of them are quoted by the
 * other tests of scuttlebutt and by seal's. */
#include "gossip/scuttlebutt.h"

#include <errno.h>

#include "gossip/scuttlebutt_impl.h"
#include "gossip/scuttlebutt_wire.h"
#include "scuttlebutt_rig.h"

/* What node i says to a digest of one entry, or none: the sections of a delta,
 * first and last version of each record. */
struct told {
	unsigned n_sections, n_records;
	uint64_t first, last;
};

static struct told answer_to(struct rig *r, unsigned i,
			     const struct sb_entry *entry)
{
	uint8_t bytes[SB_HEADER_BYTES + SB_ENTRY_BYTES];
	struct bytes_out digest = bytes_out_of(bytes, sizeof(bytes));
	struct sb_header h = {.kind = SB_DIGEST, .channel = EVENTS_CHANNEL};
	struct sb_out out = {0};
	struct told told = {0};
	struct sb_section sec;
	struct sb_item item;

	sb_wire_put_header(&digest, &h);
	if (entry != NULL)
		sb_wire_put_entry(&digest, entry);
	struct sb_msg msg = {rig_id(9), bytes, digest.len};
	check_int(sb_recv(r->node[i].sb[1], r->now_us, &msg, &out), 0);
	for (size_t k = 0; k < out.n_sends; k++) {
		struct bytes_in in = bytes_in_of(out.bytes + out.sends[k].at,
						 out.sends[k].len);
		check_int(sb_wire_decode(&in, &h), 0);
		if (h.kind != SB_DELTA)
			continue;
		for (; sb_wire_section(&in, &sec); told.n_sections++)
			for (uint32_t n = 0; n < sec.n; n++) {
				sb_wire_item(&in, &item);
				if (told.n_records++ == 0)
					told.first = item.version;
				told.last = item.version;
			}
	}
	sb_out_finish(&out);
	return told;
}

static void test_history(void)
{
	struct rig r;

	rig_init(&r, 30, 2);
	start_all(&r);
	r.node[1].side = 1;
	for (int i = 0; i < 5; i++)
		emit(&r, 0, "t", "x");
	const struct sb_source *own = sb_own(r.node[0].sb[1]);
	check_int(own->max, 5);
	struct sb_entry e = {own->id, own->life, 0, 3};
	struct told t = answer_to(&r, 0, &e);
	check_int(t.n_records, 2);
	check(t.first == 4 && t.last == 5, "%d to %d", (int)t.first,
	      (int)t.last);
	t = answer_to(&r, 0, NULL); /* says nothing of it */
	check_int(t.n_records, 5);
	e.max = 0;
	check_int(answer_to(&r, 0, &e).n_records, 5);
	e.max = 5;
	check_int(answer_to(&r, 0, &e).n_sections, 0);
	e.life++; /* another life is another source */
	e.max = 0;
	check_int(answer_to(&r, 0, &e).n_records, 5);
	rig_finish(&r);
	ok("SB-2: a digest is answered with what is newer, per source; of an "
	   "unknown source with all");
}

static void test_header(void)
{
	struct rig r;
	struct sb_out out = {0};

	rig_init(&r, 31, 2);
	start_all(&r);
	emit(&r, 0, "t", "x");
	sb_tick(r.node[0].sb[1], r.now_us, &out);
	check(out.n_sends > 0, "a greeting");
	struct sb_msg msg = {rig_id(0), out.bytes, out.sends[0].len};
	uint64_t before = stats(&r, 1, 0).n_foreign;
	check_int(sb_recv(r.node[1].sb[0], r.now_us, &msg, &r.out),
		  -EPROTONOSUPPORT);
	check_int(stats(&r, 1, 0).n_foreign, before + 1);
	check_int(r.out.n_sends, 0);
	check_int(sb_recv(r.node[1].sb[1], r.now_us, &msg, &r.out), 0);
	check_int(r.out.n_sends, 1); /* asks back whom the message is from */
	check(gossip_id_equal(&r.out.sends[0].to, &r.node[0].id), "whom");
	sb_out_clear(&r.out);
	sb_out_finish(&out);
	rig_finish(&r);
	ok("SB-7: the header says which class is meant: another takes nothing");
}

/* When two believe that they agree, their hashes being equal, they do. */
static void test_sync(void)
{
	struct rig r;
	struct event a[8], b[8];

	rig_init(&r, 32, 2);
	start_all(&r);
	r.node[1].side = 1;
	for (int i = 0; i < 3; i++) {
		emit(&r, 0, "t", "a");
		emit(&r, 1, "t", "b");
	}
	for (int ms = 0; ms < 5000; ms++) {
		rig_run(&r, 1);
		check(!rig_is_equal(&r), "in step without a connection");
	}
	r.node[1].side = 0;
	touch(&r, 0);
	while (!rig_is_equal(&r)) {
		check(n_events(&r, 0, "t") < 6 || n_events(&r, 1, "t") < 6,
		      "in step, and they do not know it");
		rig_run(&r, 1);
		check(r.now_us < 20000000, "never in step");
	}
	check_int(events_list(r.node[0].events, "t", 1, a, 8), 6);
	check_int(events_list(r.node[1].events, "t", 1, b, 8), 6);
	for (int i = 0; i < 6; i++)
		check(a[i].version == b[i].version && a[i].len == b[i].len &&
			      memcmp(a[i].bytes, b[i].bytes, a[i].len) == 0 &&
			      gossip_id_equal(&a[i].source->id,
					      &b[i].source->id),
		      "event %d", i);
	rig_finish(&r);
	ok("SB-8: in step is who has met, and has the same history; not "
	   "before");
}

/* What is made is unmade: the sanitizers see what is not. */
static void test_dispose(void)
{
	struct rig r;

	rig_init(&r, 33, 4);
	start_all(&r);
	for (int i = 0; i < 200; i++) {
		set(&r, 0, "k", "v");
		emit(&r, 1, "t", "x");
		rig_run(&r, 20);
		rig_kill(&r, 3); /* with answers on their way to it */
		rig_forget(&r, 3);
		check_int(stats(&r, 0, 1).n_members, 2);
		rig_start(&r, 3);
		check_int(stats(&r, 0, 1).n_members, 3);
	}
	check_settles(&r, 20000);
	check_int(stats(&r, 3, 0).n_records, 1);
	check_int(n_events(&r, 3, "t"), 200);
	rig_finish(&r);
	ok("SB-10, SB-11, SB-12: ended in the middle of talks, 200 times, with "
	   "nothing left of it");
}

/* 0 and 2 never meet; and what is 0's own, nobody else can say. */
static void test_chain(void)
{
	struct rig r;
	struct trait t;

	rig_init(&r, 34, 3);
	start_all(&r);
	for (unsigned c = 0; c < RIG_CLASSES; c++) {
		sb_forget(r.node[0].sb[c], &r.node[2].id);
		sb_forget(r.node[2].sb[c], &r.node[0].id);
	}
	traits_set(r.node[0].traits, "load", "7", 1);
	traits_set(r.node[2].traits, "load", "9", 1);
	set(&r, 0, "k", "master");
	touch(&r, 2);
	check_settles(&r, 20000);
	check_value(&r, 2, "k", "master");
	set(&r, 2, "k", "slave");
	check_settles(&r, 20000);
	check_value(&r, 0, "k", "slave");
	for (unsigned i = 0; i < 3; i++) {
		check(traits_get(r.node[i].traits, &r.node[0].id, "load", &t) &&
			      t.value[0] == '7',
		      "node %u of 0", i);
		check(traits_get(r.node[i].traits, &r.node[2].id, "load", &t) &&
			      t.value[0] == '9',
		      "node %u of 2", i);
	}
	rig_finish(&r);
	ok("SB-16: told through a third; of itself only a member speaks");
}

/* ---- Limits: what scuttlebutt.h says that it cannot do, it does not ---- */

static void know_all(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++)
		for (unsigned j = 0; j < r->n; j++)
			if (i != j)
				rig_know(r, i, j);
}

/* 0 and 1 forget 2 and 3, and are forgotten. */
static void forget_sides(struct rig *r)
{
	for (unsigned i = 0; i < 2; i++)
		for (unsigned j = 2; j < 4; j++)
			for (unsigned c = 0; c < RIG_CLASSES; c++) {
				sb_forget(r->node[i].sb[c], &r->node[j].id);
				sb_forget(r->node[j].sb[c], &r->node[i].id);
			}
}

static void test_two_sides(void)
{
	struct rig r;

	rig_init(&r, 35, 4);
	start_all(&r);
	for (int i = 0; i < 9; i++)
		set(&r, 0, "often", "v"); /* its tombstone will weigh more */
	set(&r, 0, "a", "v");
	set(&r, 0, "b", "v");
	check_settles(&r, 3000);
	r.node[2].side = r.node[3].side = 1;
	forget_sides(&r);
	del(&r, 0, "a");
	del(&r, 2, "b");
	set(&r, 2, "present", "v");
	set(&r, 3, "former", "v");
	rig_run(&r, 60000);
	rig_save(&r.node[3]);
	rig_kill(&r, 3);
	rig_start(&r, 3);
	forget_sides(&r);
	rig_run(&r, 20000);
	check_value(&r, 2, "b", "");
	check_value(&r, 3, "former", "v");
	r.node[2].side = r.node[3].side = 0;
	know_all(&r);
	check_settles(&r, 60000);
	for (unsigned i = 0; i < 4; i++) {
		check_value(&r, i, "a", "");	    /* the word that stands */
		check_value(&r, i, "b", "v");	    /* undone */
		check_value(&r, i, "present", "v"); /* kept */
		check_value(&r, i, "former", "");   /* lost */
	}
	check_int(stats(&r, 0, 0).n_yielded + stats(&r, 1, 0).n_yielded, 0);
	check(stats(&r, 2, 0).n_yielded + stats(&r, 3, 0).n_yielded > 0,
	      "nobody says so");
	rig_finish(&r);
	ok("limit: of two sides that forgot each other one yields, and says "
	   "so");
}

static void forget_down(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++)
		if (!r->node[i].is_up)
			rig_forget(r, i);
}

/* 2 was forgotten, and changes a value that 1 still has; 0, that is new, changes
 * it once more, tells it to 2 alone, or also to 1. */
static void start_heir(struct rig *r, uint64_t seed, bool is_told)
{
	rig_init(r, seed, 4);
	rig_start(r, 1);
	rig_start(r, 2);
	set(r, 1, "k", "old");
	set(r, 1, "gone", "v");
	check_settles(r, 5000);
	rig_save(&r->node[2]);
	rig_kill(r, 2);
	forget_down(r);
	del(r, 1, "gone"); /* by which 2 is stale */
	rig_run(r, 5000);
	check_int(stats(r, 1, 0).n_collected, 1);
	r->node[1].side = !is_told;
	rig_start(r, 2);
	rig_start(r, 0);
	set(r, 2, "k", "of 2");
	rig_run(r, 5000);
	check_value(r, 0, "k", "of 2");
	check_value(r, 1, "k", is_told ? "of 2" : "old");
}

/* Nobody has heard of what 0 wrote. To drop it, as it has replaced what the
 * present life of 2 wrote, would let the dead value of 1 stand again. */
static void test_heir(bool is_deleted)
{
	struct rig r;
	const char *want = is_deleted ? "" : "of 0";

	start_heir(&r, 40 + is_deleted, false);
	check_int(is_deleted ? del(&r, 0, "k") : set(&r, 0, "k", want), 0);
	rig_run(&r, 5000);
	check_value(&r, 2, "k", want);
	rig_kill(&r, 0);
	forget_down(&r);
	r.node[1].side = 0;
	check_settles(&r, 60000);
	check_int(stats(&r, 2, 0).n_resets, 1);
	check_int(stats(&r, 2, 0).n_yielded + stats(&r, 2, 0).n_given_up, 0);
	check_value(&r, 1, "k", want);
	check_value(&r, 2, "k", want);
	rig_finish(&r);
	ok("S1: a %s that only one who resets knows of is kept, where what it "
	   "replaced would let the dead return",
	   is_deleted ? "deletion" : "value");
}

/* 1 has seen it and deleted it; 3, who helps 2, has never heard of 0. */
static void test_dead_heir(void)
{
	struct rig r;

	start_heir(&r, 42, true);
	set(&r, 0, "k", "of 0");
	rig_run(&r, 5000);
	check_value(&r, 1, "k", "of 0");
	check_value(&r, 2, "k", "of 0");
	r.node[2].side = 1;
	rig_forget(&r, 2);
	del(&r, 1, "k");
	rig_run(&r, 5000);
	check_int(stats(&r, 1, 0).n_tombs, 0);
	rig_kill(&r, 0);
	rig_start(&r, 3);
	rig_forget(&r, 2);
	rig_run(&r, 5000);
	rig_kill(&r, 1);
	forget_down(&r);
	r.node[2].side = 0;
	check_settles(&r, 60000);
	check(stats(&r, 2, 0).n_resets > 0, "never stale");
	check_value(&r, 2, "k", "");
	check_value(&r, 3, "k", "");
	rig_finish(&r);
	ok("S1: not so if it may be dead");
}

/* Who repairs has met all that was collected, and must say so: or he would
 * tell one who is stale what he lacks, and have the dead back from him. */
static void test_stale_to_repair(void)
{
	struct rig r;

	start_heir(&r, 43, false);
	rig_kill(&r, 0);
	rig_save(&r.node[1]);
	rig_kill(&r, 1);
	forget_down(&r);
	rig_start(&r, 1); /* what was deleted, a former life did */
	sb_walk_begin(r.node[1].sb[0], SB_REPAIR);
	r.node[1].side = 0;
	check_settles(&r, 10000);
	check_int(stats(&r, 2, 0).n_resets, 1);
	check_value(&r, 1, "gone", "");
	check_value(&r, 2, "gone", "");
	check_value(&r, 1, "k", "of 2");
	rig_finish(&r);
	ok("S1: one who repairs finds the stale");
}

/* A life of node i in which something is deleted, and that is collected. */
static void live_and_delete(struct rig *r, unsigned i)
{
	set(r, i, "k", "v");
	rig_run(r, 2000);
	del(r, i, "k");
	rig_run(r, 5000);
	rig_save(&r->node[i]);
	rig_kill(r, i);
	rig_start(r, i);
}

static void test_many_lives(void)
{
	struct rig r;

	rig_init(&r, 36, 4);
	r.config.sources_max = 24;
	r.config.lives_max = 4;
	start_all(&r);
	set(&r, 1, "dead", "v");
	check_settles(&r, 5000);
	rig_save(&r.node[3]);
	rig_kill(&r, 3);
	rig_forget(&r, 3);
	for (unsigned n = 0; n < 50; n++) {
		if (n == 0)
			del(&r, 2, "dead");
		live_and_delete(&r, 2);
		check_settles(&r, 5000);
		check(stats(&r, 0, 0).n_listed <= 6, "%u listed",
		      stats(&r, 0, 0).n_listed);
	}
	check_int(stats(&r, 0, 0).n_full, 0);
	check(stats(&r, 0, 0).n_retired >= 45, "none is retired");
	check_value(&r, 0, "dead", "");
	rig_start(&r, 3); /* the life that deleted it is long retired */
	check_value(&r, 3, "dead", "v");
	set(&r, 2, "new", "v");
	check_settles(&r, 60000);
	for (unsigned i = 0; i < 4; i++) {
		check_value(&r, i, "dead", "");
		check_value(&r, i, "new", "v");
	}
	check_int(stats(&r, 3, 0).n_resets, 1);
	check_int(stats(&r, 0, 0).n_resets, 0);
	rig_finish(&r);
	ok("S1: 50 lives that deleted leave 4 entries, and the stale are found "
	   "by these");
}

/* One who came when most lives were retired is not stale to one who, for a
 * moment, still lists them. */
static void test_late_retired(void)
{
	struct rig r;
	uint8_t bytes[SB_HEADER_BYTES + 32 * SB_ENTRY_BYTES];
	struct sb_header h = {.kind = SB_DIGEST, .channel = MODEL_CHANNEL};
	struct sb_entry e = {.gc = 2, .max = 2};
	const struct sb_source *src;
	size_t at = 0;

	rig_init(&r, 37, 5);
	r.config.lives_max = 2;
	start_all(&r);
	rig_kill(&r, 4);
	rig_forget(&r, 4);
	set(&r, 0, "here", "v");
	e.id = r.node[2].id;
	e.life = sb_own(r.node[2].sb[0])->life; /* the first of six */
	for (unsigned n = 0; n < 6; n++)
		live_and_delete(&r, 2);
	check_settles(&r, 5000);
	check(stats(&r, 0, 0).n_retired >= 3, "none is retired");
	rig_start(&r, 4); /* empty */
	set(&r, 4, "mine", "v");
	check_settles(&r, 20000);
	struct bytes_out digest = bytes_out_of(bytes, sizeof(bytes));
	sb_wire_put_header(&digest, &h);
	sb_wire_put_entry(&digest, &e);
	while ((src = sb_next(r.node[3].sb[0], &at)) != NULL) {
		struct sb_entry other = {src->id, src->life, src->gc, src->max};
		if (!src->is_retired)
			sb_wire_put_entry(&digest, &other);
	}
	check(!digest.full, "room");
	struct sb_msg msg = {r.node[3].id, bytes, digest.len};
	check_int(sb_recv(r.node[4].sb[0], r.now_us, &msg, &r.out), 0);
	sb_out_clear(&r.out);
	check_int(stats(&r, 4, 0).n_resets, 0);
	check_settles(&r, 60000);
	for (unsigned i = 0; i < 5; i++) {
		check_int(stats(&r, i, 0).n_resets, 0);
		check_value(&r, i, "here", "v");
		check_value(&r, i, "mine", "v");
	}
	rig_finish(&r);
	ok("S1: by a retired life nobody is stale");
}

static void test_no_room(void)
{
	struct rig r;
	unsigned n_lives = 0;

	rig_init(&r, 38, 3);
	r.config.sources_max = 12;
	r.config.lives_max = 1000;
	start_all(&r);
	for (; n_lives < 30 && stats(&r, 0, 0).n_full == 0; n_lives++) {
		live_and_delete(&r, 2);
		set(&r, 2, "new", "v");
		rig_run(&r, 5000);
	}
	check(n_lives >= 9 && n_lives <= 12, "%u lives", n_lives);
	check_value(&r, 2, "new", "v");
	check(!rig_is_equal(&r), "a life too many is taken all the same");
	for (unsigned i = 0; i < 3; i++) {
		rig_save(&r.node[i]);
		rig_kill(&r, i);
	}
	r.config.sources_max = 64; /* more room, and nothing was lost */
	start_all(&r);
	check_settles(&r, 60000);
	check_value(&r, 0, "new", "v");
	rig_finish(&r);
	ok("limit: of more than sources_max sources the last are not heard, "
	   "until there is room");
}

int main(void)
{
	test_history();
	test_header();
	test_sync();
	test_dispose();
	test_chain();
	test_two_sides();
	test_heir(false);
	test_heir(true);
	test_dead_heir();
	test_stale_to_repair();
	test_many_lives();
	test_late_retired();
	test_no_room();
	return 0;
}
