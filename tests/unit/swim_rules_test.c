/* SPDX-License-Identifier: MIT */
/* What a SWIM member makes of single packets: each kind of statement, against
 * each state of belief (UP-32), and what the simulator cannot make happen. */
#include "gossip/swim.h"

#include <string.h>

#include "tests/unit/check.h"

static struct facts_pool pool;
static struct swim_out out;
static uint64_t now = 5000000;

static const struct gossip_id me = {{1, [15] = 1}}, peer = {{2, [15] = 2}},
			      other = {{3, [15] = 3}};

static struct swim *member(void)
{
	struct swim_self self = {
		.id = me, .boot = 5, .addr = {.port = 1}, .name = "me"};
	struct swim *s = swim_create(&swim_lan, &self, &pool, 1);

	swim_start(s, now, &out);
	return s;
}

static size_t attrs_of(const struct gossip_id *id, uint8_t *attrs)
{
	char name[] = {'n', (char)('0' + id->b[0]), '\0'};
	struct facts_said said = {.addr = {.port = id->b[0]},
				  .name = name,
				  .name_len = 2,
				  .oldest = 1,
				  .newest = 1};

	return (size_t)facts_encode(&said, attrs, FACTS_BYTES_MAX);
}

/* A packet of peer, in its first life, with some records. */
struct writer {
	uint8_t bytes[1400];
	struct bytes_out out;
	size_t begin;
};

static void begin(struct writer *w, enum wire_kind kind)
{
	struct wire_header h = {.version = 1,
				.kind = (uint8_t)kind,
				.from = peer,
				.incarnation = incarnation_of(1, 0),
				.subject = me,
				.subject_boot = 5};

	w->out = bytes_out_of(w->bytes, sizeof(w->bytes));
	wire_put_header(&w->out, &h);
	w->begin = wire_begin_records(&w->out);
}

static void say(struct writer *w, const struct gossip_id *id,
		uint64_t incarnation, unsigned status)
{
	uint8_t attrs[FACTS_BYTES_MAX];
	struct wire_record r = {.id = *id,
				.incarnation = incarnation,
				.status = (uint8_t)status,
				.facts_version = incarnation_of(1, 0),
				.attrs = attrs};

	r.attrs_len = (uint16_t)attrs_of(id, attrs);
	if (status == WIRE_SUSPECT) {
		r.n_accusers = 1;
		r.accusers[0] = peer;
	}
	check(wire_put_record(&w->out, &r), "room");
}

static void hear(struct swim *s, struct writer *w)
{
	wire_end_records(&w->out, w->begin);
	struct swim_msg msg = {
		.from = {.port = 2}, .bytes = w->bytes, .len = w->out.len};

	swim_out_clear(&out);
	swim_recv(s, now, &msg, &out);
	swim_check(s);
}

static void tell(struct swim *s, const struct gossip_id *id,
		 uint64_t incarnation, unsigned status)
{
	struct writer w;

	begin(&w, WIRE_NEWS);
	say(&w, &peer, incarnation_of(1, 0), WIRE_ALIVE);
	say(&w, id, incarnation, status);
	hear(s, &w);
}

/* UP-32. What is known x what is told, at a lower, equal, higher incarnation:
 * what is known then. '-' stands for unknown; A, S, D, L for the states. */
static unsigned status_of(char c)
{
	return c == 'A'	  ? WIRE_ALIVE
	       : c == 'S' ? WIRE_SUSPECT
	       : c == 'D' ? WIRE_DEAD
			  : WIRE_LEFT;
}

static void test_table(void)
{
	static const char *const rows[] = {
		/* known told lower equal higher */
		"-A..A", "-S..S", "-D..D", "AAAAA", "ASASS", "ADADD", "ALALL",
		"SASSA", "SSSSS", "SDSDD", "SLSLL", "DADDA", "DSDDS", "DDDDD",
		"DLDLL", "LALLA", "LSLLS", "LDLLD", "LLLLL",
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (unsigned k = 0; k < 3; k++) {
			const char *row = rows[i];
			struct swim *s = member();
			struct swim_view view;

			if (row[0] != '-')
				tell(s, &other, incarnation_of(2, 4),
				     status_of(row[0]));
			if (row[2 + k] != '.') {
				tell(s, &other, incarnation_of(2, 3 + k),
				     status_of(row[1]));
				check(swim_find(s, &other, &view), "%s", row);
				check(view.status == status_of(row[2 + k]),
				      "row %s, %u: %u", row, k, view.status);
				check_int(view.is_verified, 0);
			}
			swim_destroy(s);
		}
	ok("UP-32: each statement against each belief, at each incarnation");
}

static uint64_t own_incarnation(struct swim *s)
{
	struct swim_view view;

	check(swim_find(s, &me, &view), "self");
	check_int(view.status, WIRE_ALIVE);
	return view.incarnation;
}

static void test_self(void)
{
	struct swim *s = member();

	tell(s, &me, incarnation_of(5, 0), WIRE_ALIVE);
	check_int(own_incarnation(s), incarnation_of(5, 0));
	tell(s, &me, incarnation_of(5, 0), WIRE_SUSPECT);
	check_int(own_incarnation(s), incarnation_of(5, 1));
	check_int(out.n_events, 1);
	check_int(out.events[0].kind, SWIM_REFUTED);
	tell(s, &me, incarnation_of(5, 0), WIRE_DEAD);
	check_int(own_incarnation(s), incarnation_of(5, 1));
	tell(s, &me, incarnation_of(5, 9), WIRE_LEFT);
	check_int(own_incarnation(s), incarnation_of(5, 10));
	tell(s, &me, incarnation_of(4, 99), WIRE_DEAD);
	check_int(own_incarnation(s), incarnation_of(5, 10));
	swim_destroy(s);
	ok("UP-32, SV-R5, I4: what is said of oneself is refuted, if it is not "
	   "outdated");

	s = member();
	tell(s, &me, incarnation_of(6, 0), WIRE_ALIVE);
	check_int(own_incarnation(s), incarnation_of(5, 0));
	check_int(out.events[0].kind, SWIM_COPIED);
	tell(s, &me, incarnation_of(6, 1), WIRE_ALIVE);
	check_int(out.n_events, 0);
	swim_destroy(s);
	ok("a newer life of one's own id is reported once, and not fought");

	const struct {
		const struct gossip_id *as; /* whose facts; NULL: ours */
		uint64_t version;
		bool is_copied;
	} facts[] = {{NULL, incarnation_of(5, 0), false},
		     {&peer, incarnation_of(5, 0), true},
		     {&peer, incarnation_of(5, 1), true},
		     {&peer, incarnation_of(4, 9), false}};
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		uint8_t attrs[FACTS_BYTES_MAX];
		struct wire_record r = {.id = me,
					.incarnation = incarnation_of(5, 1),
					.facts_version = facts[i].version,
					.attrs = attrs};
		struct swim_view view;
		struct writer w;

		s = member();
		check(swim_find(s, &me, &view), "me");
		if (facts[i].as != NULL) {
			r.attrs_len = (uint16_t)attrs_of(facts[i].as, attrs);
		} else {
			r.attrs = view.facts->attrs;
			r.attrs_len = view.facts->len;
		}
		begin(&w, WIRE_NEWS);
		check(wire_put_record(&w.out, &r), "room");
		hear(s, &w);
		check_int(out.n_events, 1);
		check_int(out.events[0].kind,
			  facts[i].is_copied ? SWIM_COPIED : SWIM_REFUTED);
		swim_destroy(s);
	}
	ok("so is this very life at another address: its start was counted "
	   "twice");

	s = member();
	tell(s, &me, incarnation_of(5, UINT32_MAX / 2), WIRE_SUSPECT);
	check(own_incarnation(s) > incarnation_of(5, UINT32_MAX / 2),
	      "refuted");
	check_int(out.events[0].kind, SWIM_REFUTED);
	for (uint32_t change = UINT32_MAX - 1; change > UINT32_MAX - 4;
	     change--) {
		uint64_t was = own_incarnation(s);

		tell(s, &me, incarnation_of(5, change), WIRE_SUSPECT);
		check(own_incarnation(s) == was, "followed to the top");
	}
	swim_destroy(s);
	s = member();
	tell(s, &me, incarnation_of(5, UINT32_MAX - 1), WIRE_ALIVE);
	check_int(own_incarnation(s), incarnation_of(5, 0));
	check_int(out.events[0].kind, SWIM_COPIED);
	swim_destroy(s);
	ok("what no incarnation of this life could refute is left to the next");
}

static void test_good_news_first(void)
{
	struct swim *s = member();
	struct writer w;

	tell(s, &other, incarnation_of(1, 0), WIRE_ALIVE);
	begin(&w, WIRE_NEWS);
	say(&w, &other, incarnation_of(1, 0), WIRE_DEAD);
	say(&w, &other, incarnation_of(1, 1), WIRE_ALIVE);
	hear(s, &w);
	struct swim_view view;
	check(swim_find(s, &other, &view), "known");
	check_int(view.status, WIRE_ALIVE);
	check_int(out.n_events, 0);
	swim_destroy(s);
	ok("D5: a refutation is heard before the accusation beside it");
}

static const struct wire_record *record_in_sends(enum wire_kind kind,
						 const struct gossip_id *id)
{
	static struct wire_record r;
	static struct wire_packet p;

	for (size_t i = 0; i < out.n_sends; i++) {
		if (out.sends[i].kind != kind)
			continue;
		check_int(wire_decode(&p, out.bytes + out.sends[i].at,
				      out.sends[i].len),
			  0);
		while (wire_next(&p.records, &r))
			if (gossip_id_equal(&r.id, id))
				return &r;
	}
	return NULL;
}

static void test_relay(void)
{
	struct swim *s = member();
	struct writer w;

	/* A status of a later version, and an ack to carry it. */
	tell(s, &other, incarnation_of(1, 0), 77);
	begin(&w, WIRE_PING);
	hear(s, &w);
	const struct wire_record *r = record_in_sends(WIRE_ACK, &other);
	check(r != NULL && r->status == 77, "passed on");
	swim_destroy(s);
	ok("D4, D6: acks carry news, an unknown status is passed on as it is");
}

static void test_ghost(void)
{
	struct swim *s = member();
	struct swim_view view;
	struct writer w;

	tell(s, &other, incarnation_of(1, 0), WIRE_ALIVE);
	for (size_t i = 0; i < out.n_events; i++)
		check(!gossip_id_equal(&out.events[i].id, &other), "hearsay");
	check(swim_find(s, &other, &view) && !view.is_verified, "hearsay");
	check(swim_find(s, &peer, &view) && view.is_verified, "heard");
	begin(&w, WIRE_NEWS);
	say(&w, &(struct gossip_id){{4}}, incarnation_of(1, 0), WIRE_DEAD);
	hear(s, &w);
	check_int(out.n_events, 0);
	swim_destroy(s);
	ok("I12: who is known by hearsay only is not shown");
}

static void test_former_life(void)
{
	struct swim *s = member();
	struct writer w;

	tell(s, &peer, incarnation_of(2, 0), WIRE_ALIVE);
	begin(&w, WIRE_PING); /* sent in its first life */
	hear(s, &w);
	check_int(out.n_sends, 0);
	swim_destroy(s);
	ok("I2: a packet of a former life is not answered");
}

static void test_silence(void)
{
	struct swim *s = member();
	uint8_t rubbish[100];
	struct swim_stats stats;

	memset(rubbish, 0xff, sizeof(rubbish));
	rubbish[0] = WIRE_NEWEST;
	for (size_t len = 0; len <= sizeof(rubbish); len++) {
		struct swim_msg msg = {
			.from = {.port = 9}, .bytes = rubbish, .len = len};
		swim_out_clear(&out);
		swim_recv(s, now, &msg, &out);
		check_int(out.n_sends + out.n_events, 0);
	}
	swim_stats(s, &stats);
	check_int(stats.n_members, 1);
	check(stats.n_bad > 90, "%d", (int)stats.n_bad);
	swim_destroy(s);
	ok("D9: rubbish is counted and changes nothing");
}

static void test_versions(void)
{
	struct swim *s = member();
	struct swim_stats stats;
	struct writer w;
	uint8_t attrs[FACTS_BYTES_MAX];
	struct facts_said said = {.addr = {.port = 4},
				  .name = "new",
				  .name_len = 3,
				  .oldest = WIRE_NEWEST + 1,
				  .newest = WIRE_NEWEST + 5};
	struct wire_record r = {.id = other,
				.incarnation = incarnation_of(1, 0),
				.facts_version = incarnation_of(1, 0),
				.attrs = attrs};

	r.attrs_len = (uint16_t)facts_encode(&said, attrs, sizeof(attrs));
	begin(&w, WIRE_NEWS);
	check(wire_put_record(&w.out, &r), "room");
	hear(s, &w);
	swim_stats(s, &stats);
	check_int(stats.n_members, 1);
	check_int(stats.n_foreign, 1);
	swim_destroy(s);
	ok("who has no version in common with us is not taken in");
}

/* Ask for a comparison; how many bytes we are sent. */
static size_t compare(struct swim *s, const uint64_t *digests)
{
	static uint8_t bytes[4096];
	struct bytes_out packet = bytes_out_of(bytes, sizeof(bytes));
	struct wire_header h = {.version = 1,
				.kind = WIRE_COMPARE,
				.from = peer,
				.incarnation = incarnation_of(1, 0)};
	size_t n = 0;

	wire_put_header(&packet, &h);
	wire_put_digests(&packet, digests);
	struct swim_msg msg = {.from = {.port = 2},
			       .bytes = bytes,
			       .len = packet.len,
			       .on_stream = true};
	swim_out_clear(&out);
	swim_recv(s, now, &msg, &out);
	for (size_t i = 0; i < out.n_sends; i++)
		n += out.sends[i].on_stream ? out.sends[i].len : 0;
	return n;
}

static void test_admission(void)
{
	static const uint64_t none[WIRE_BUCKETS];
	uint64_t some[WIRE_BUCKETS];
	struct swim *s = member();
	uint8_t attrs[FACTS_BYTES_MAX];
	size_t len = attrs_of(&other, attrs);

	memset(some, 1, sizeof(some));
	for (uint32_t i = 0; i < 6000; i++) {
		struct gossip_id id = {{9}};

		memcpy(id.b + 4, &i, sizeof(i));
		id.b[15] = (uint8_t)i;
		const struct facts *f =
			facts_of(&pool, &id, incarnation_of(1, 0), attrs, len);
		swim_know(s, now, f);
		facts_drop(&pool, f);
	}
	check(compare(s, none) > 6000 * 60, "all");
	check(compare(s, some) > 6000 * 60, "again");
	check(compare(s, none) > 6000 * 60, "and again");
	check_int(compare(s, none), 0);
	now += 200000;
	check(compare(s, none) > 6000 * 60, "in the next period");
	swim_destroy(s);
	ok("D5: what is given away in comparisons has a limit per period");
}

static void test_long_gone(void)
{
	struct swim *s = member();
	struct swim_stats stats;
	uint8_t attrs[FACTS_BYTES_MAX];
	struct wire_record r = {.id = other,
				.incarnation = incarnation_of(1, 0),
				.status = WIRE_DEAD,
				.facts_version = incarnation_of(1, 0),
				.attrs = attrs};

	r.attrs_len = (uint16_t)attrs_of(&other, attrs);
	for (unsigned i = 0; i < 2; i++) {
		struct writer w;

		r.age_s = 43200 - i; /* half of a tombstone's day */
		begin(&w, WIRE_NEWS);
		check(wire_put_record(&w.out, &r), "room");
		hear(s, &w);
		swim_stats(s, &stats);
		check_int(stats.n_members, 1 + i);
	}
	swim_destroy(s);
	ok("I6: one unknown and long gone is not heard of, one just gone is");
}

static void test_both_ways(void)
{
	struct swim *s = member();
	uint8_t bits[WIRE_BUCKETS / 8];
	struct writer w;

	begin(&w, WIRE_DIFFER);
	say(&w, &other, incarnation_of(1, 0), WIRE_ALIVE);
	wire_end_records(&w.out, w.begin);
	memset(bits, 0xff, sizeof(bits));
	wire_put_differing(&w.out, bits);
	struct swim_msg msg = {.from = {.port = 2},
			       .bytes = w.bytes,
			       .len = w.out.len,
			       .on_stream = true};
	swim_out_clear(&out);
	swim_recv(s, now, &msg, &out);
	check(record_in_sends(WIRE_RECORDS, &me) != NULL, "mine");
	check(record_in_sends(WIRE_RECORDS, &other) != NULL, "and theirs");
	swim_destroy(s);
	ok("D8: who is told where tables differ tells his side too");
}

/* Let time pass as a driver does: never late by a period. */
static unsigned status_after(struct swim *s, const struct gossip_id *id,
			     uint64_t until)
{
	struct swim_view view;

	while (now < until) {
		now = now + 10000 < until ? now + 10000 : until;
		swim_out_clear(&out);
		swim_tick(s, now, &out);
		swim_check(s);
	}
	check(swim_find(s, id, &view), "known");
	return view.status;
}

static void test_one_timer(void)
{
	struct swim *s = member();
	uint64_t began = now, due = now + 475488; /* 300 ms x log2(3) */

	tell(s, &other, incarnation_of(1, 0), WIRE_SUSPECT);
	for (unsigned i = 1; i <= 4; i++) {
		check_int(status_after(s, &other, began + i * 100000),
			  WIRE_SUSPECT);
		tell(s, &other, incarnation_of(1, 0), WIRE_SUSPECT);
	}
	check_int(status_after(s, &other, due - 1), WIRE_SUSPECT);
	check_int(status_after(s, &other, due + 1), WIRE_DEAD);
	tell(s, &me, incarnation_of(5, 0), WIRE_SUSPECT);
	check_int(status_after(s, &me, now + 9000000), WIRE_ALIVE);
	swim_destroy(s);
	ok("SV-R4: a suspicion told again begins no new one; of oneself there "
	   "is none");
}

/* Names and addresses are attributes: no two texts joined are one member. */
static void test_namesakes(void)
{
	const struct gossip_id a = {{3, 1, [15] = 21}};
	const struct gossip_id b = {{3, 11, [15] = 2}};
	struct swim *s = member();
	struct swim_view view;
	struct swim_stats stats;

	tell(s, &a, incarnation_of(1, 0), WIRE_ALIVE);
	tell(s, &b, incarnation_of(1, 0), WIRE_ALIVE);
	tell(s, &b, incarnation_of(1, 0), WIRE_DEAD);
	swim_stats(s, &stats);
	check_int(stats.n_members, 4);
	check(swim_find(s, &a, &view) && view.status == WIRE_ALIVE, "a");
	check(memcmp(facts_name(view.facts), "n3", 2) == 0, "its name");
	check(swim_find(s, &b, &view) && view.status == WIRE_DEAD, "b");
	check(memcmp(facts_name(view.facts), "n3", 2) == 0, "the same");
	swim_destroy(s);
	ok("I10: two of one name and address are two members, by their ids");
}

int main(void)
{
	facts_pool_init(&pool);
	test_table();
	test_self();
	test_good_news_first();
	test_relay();
	test_ghost();
	test_former_life();
	test_silence();
	test_versions();
	test_admission();
	test_long_gone();
	test_both_ways();
	test_one_timer();
	test_namesakes();
	swim_out_finish(&out);
	facts_pool_finish(&pool);
	return 0;
}
