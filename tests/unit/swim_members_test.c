/* SPDX-License-Identifier: MIT */
/* The table of members: order of news, choice, digests; then at random against
 * its own invariants. */
#include "gossip/members.h"

#include <string.h>

#include "tests/unit/check.h"

static struct facts_pool pool;
static struct random dice;

static const struct facts *facts_for(uint32_t number, uint64_t version)
{
	struct gossip_id id = {{0}};
	char name[16];
	uint8_t attrs[FACTS_BYTES_MAX];
	uint64_t mixed = number * 0x9e3779b97f4a7c15;

	memcpy(id.b, &mixed, 8);
	memcpy(id.b + 8, &number, 4);
	id.b[15] = (uint8_t)number;
	snprintf(name, sizeof(name), "m%u", number);
	struct facts_said said = {.addr = {.port = 1},
				  .name = name,
				  .name_len = strlen(name),
				  .oldest = 1,
				  .newest = 1};
	int len = facts_encode(&said, attrs, sizeof(attrs));
	return facts_of(&pool, &id, version, attrs, (size_t)len);
}

static void fill(struct members *m, uint32_t n)
{
	members_init(m, &pool, &dice);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = members_add(m, facts_for(i + 1, 1), 1);
		members_set_verified(m, slot);
	}
}

static void test_news(void)
{
	struct members m;
	unsigned n_told = 0;

	fill(&m, 6);
	members_tell(&m, 1);
	members_tell(&m, 2);
	check_int(members_next_news(&m, MEMBER_NONE), 2);
	members_told(&m, 2, 3);
	check_int(members_next_news(&m, MEMBER_NONE), 1);
	check_int(members_next_news(&m, 1), 2);
	members_tell(&m, 3);
	check_int(members_next_news(&m, MEMBER_NONE), 3);
	members_tell(&m, 2); /* news again: in place of the old */
	check_int(m.n_news, 3);
	check_int(members_next_news(&m, MEMBER_NONE), 2);
	members_check(&m);
	ok("D2, D3, UP-35: news goes by times told, then newest, one per "
	   "member");

	while (m.n_news > 0) {
		members_told(&m, members_next_news(&m, MEMBER_NONE), 3);
		n_told++;
	}
	check_int(n_told, 9);
	members_tell(&m, 4);
	members_told(&m, 4, 9);
	members_told(&m, 4, 2); /* the limit has fallen */
	check_int(m.n_news, 0);
	members_finish(&m);
	ok("UP-35: each news goes exactly as often as the limit says");
}

static void test_choice(void)
{
	struct members m;
	unsigned counts[7] = {0};

	fill(&m, 7);
	check_int(members_choose(&m, IN_LIVE, 9, 3), 5);
	for (unsigned i = 0; i < 60000; i++) {
		uint32_t n = members_choose(&m, IN_LIVE, 2, 3);

		check_int(n, 2);
		for (uint32_t k = 0; k < n; k++)
			counts[m.sets[IN_LIVE].slots[k]]++;
	}
	check_int(counts[MEMBER_SELF], 0);
	check_int(counts[3], 0);
	for (unsigned slot = 1; slot < 7; slot++)
		check(slot == 3 ||
			      (counts[slot] > 23300 && counts[slot] < 24700),
		      "%u: %u of 24000", slot, counts[slot]);
	members_set_status(&m, 4, 1, WIRE_SUSPECT);
	members_verdict(&m, 4);
	check_int(members_choose(&m, IN_LIVE, 9, 3), 4);
	members_finish(&m);
	ok("F4, T1: helpers are chosen evenly, never the target or a suspect");
}

static void test_turns(void)
{
	struct members m;

	fill(&m, 9);
	for (unsigned round = 0; round < 100; round++) {
		unsigned seen = 0;

		for (unsigned i = 0; i < 8; i++)
			seen |= 1u << members_next_turn(&m, IN_ROUND);
		check_int(seen, 0x1fe);
	}
	uint32_t slot = members_add(&m, facts_for(100, 1), 1);
	unsigned waited = 0;
	while (members_next_turn(&m, IN_ROUND) != slot)
		waited++;
	check(waited <= 9, "%u", waited);
	members_take_turn(&m, 5);
	check_int(members_next_turn(&m, IN_ROUND), 5);
	members_finish(&m);
	ok("UP-34: each has one turn per round, who joins has it in this one");
}

static void test_digests(void)
{
	struct members a, b;

	fill(&a, 1);
	fill(&b, 1);
	for (uint32_t i = 0; i < 50; i++) {
		members_add(&a, facts_for(10 + i, 1), 1);
		members_add(&b, facts_for(59 - i, 1), 1);
	}
	check(a.digest == b.digest, "order");
	members_set_status(&a, 7, 2, WIRE_ALIVE);
	check(a.digest != b.digest, "a change shows");
	uint32_t slot = members_find(&b, &a.slots[7].facts->id);
	members_set_status(&b, slot, 2, WIRE_ALIVE);
	check(a.digest == b.digest, "and its like");
	members_set_facts(&a, 7, facts_for(16, 2));
	check(a.digest != b.digest, "facts too");
	members_finish(&a);
	members_finish(&b);
	ok("D7, SV-R1: a digest does not depend on the order of events");
}

static void random_change(struct members *m, uint32_t slot)
{
	struct member *x = member_at(m, slot);
	uint32_t status = random_below(&dice, 5);

	switch (random_below(&dice, 8)) {
	case 0:
		members_remove(m, slot);
		return;
	case 1:
		members_set_verified(m, slot);
		return;
	case 2:
		members_tell(m, slot);
		return;
	case 3:
		members_told(m, slot, 1 + random_below(&dice, 9));
		return;
	case 4:
		if (member_is_gone(x) && !x->verdict->is_faded)
			members_fade(m, slot);
		return;
	default:
		members_set_status(m, slot, x->incarnation + 1, status);
		if (status != WIRE_ALIVE)
			members_set_due(m, slot, random_below(&dice, 1000));
	}
}

static void test_random(void)
{
	struct members m;

	fill(&m, 1);
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t number = 2 + random_below(&dice, 60);
		const struct facts *facts = facts_for(number, 1);
		uint32_t slot = members_find(&m, &facts->id);

		if (slot == MEMBER_NONE) {
			members_add(&m, facts, 1);
		} else {
			facts_drop(&pool, facts);
			random_change(&m, slot);
		}
		if (i % 64 == 0)
			members_shift_due(&m, 10);
		members_check(&m);
	}
	members_finish(&m);
	ok("20000 random changes keep the table in order");
}

int main(int argc, char **argv)
{
	dice.state = check_seed(argc, argv);
	facts_pool_init(&pool);
	test_news();
	test_choice();
	test_turns();
	test_digests();
	test_random();
	facts_pool_finish(&pool);
	return 0;
}
