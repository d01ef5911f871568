/* SPDX-License-Identifier: MIT */
/* Members to file names: who has a name, who loses it, and what is told. */
#include "fs/peers.h"

#include <string.h>

#include "fs/log.h"
#include "tests/unit/check.h"

static struct peers *table;
static char events[8192]; /* of the last fill: "+NAME -NAME ~NAME " */

static void on_event(void *data, const char *shown, enum peers_event event)
{
	size_t n = strlen(events);

	(void)data;
	snprintf(events + n, sizeof(events) - n, "%c%s ", "+-~"[event], shown);
}

struct m {
	uint8_t id;
	const char *name;
	enum peer_state state;
	uint64_t weight;
};

static void fill(const struct m *members, size_t n)
{
	events[0] = '\0';
	peers_begin(table);
	for (size_t i = 0; i < n; i++) {
		struct peer p = {.id = {{members[i].id, 0xcd}},
				 .name = members[i].name,
				 .state = members[i].state,
				 .weight = members[i].weight,
				 .node = RING_NONE};
		peers_put(table, &p);
	}
	peers_end(table, on_event, NULL);
}

#define FILL(...)                                                              \
	fill((const struct m[]){__VA_ARGS__},                                  \
	     sizeof((const struct m[]){__VA_ARGS__}) / sizeof(struct m))

#define W(id, name, state, weight)                                             \
	{                                                                      \
		id, name, state, weight                                        \
	}
#define A(id, name) W(id, name, PEER_ALIVE, 0)
#define S(id, name) W(id, name, PEER_SUSPECT, 0)
#define D(id, name) W(id, name, PEER_DEAD, 0)
#define L(id, name) W(id, name, PEER_LEFT, 0)

#define told(want)                                                             \
	check(strcmp(events, want) == 0, "got '%s', want '%s'", events, want)

static uint64_t number_of(const char *shown)
{
	struct peers_line line, same;

	if (!peers_by_name(table, shown, &line))
		return 0;
	check(peers_by_number(table, line.number, &same), "%s", shown);
	check(strcmp(same.shown, shown) == 0, "%s", same.shown);
	check(peers_by_id(table, &line.id, &same), "%s", shown);
	check_int(same.number, line.number);
	return line.number;
}

static void begin(void)
{
	peers_destroy(table);
	table = peers_create();
}

static void coming_and_going(void)
{
	begin();
	FILL(A(1, "n1"), A(2, "n2"));
	told("+n1 +n2 ");
	uint64_t n2 = number_of("n2");
	FILL(A(1, "n1"), A(2, "n2"));
	told("");
	FILL(A(1, "n1"), S(2, "n2"));
	told("~n2 ");
	FILL(W(2, "n2", PEER_SUSPECT, 7), A(1, "n1"), A(3, "n3"));
	told("+n3 ~n2 ");
	check_int(number_of("n2"), n2);
	FILL(A(1, "n1"), A(3, "n3"));
	told("-n2 ");
	check_int(number_of("n2"), 0);
	FILL(A(1, "n1"), A(3, "n3"), A(2, "n2"), A(2, "twice"));
	told("+n2 ");
	check(number_of("n2") > n2, "a number is used again");
	uint64_t cursor = 0;
	struct peers_line line;
	const char *const order[] = {"n1", "n3", "n2"};
	for (size_t i = 0; i < 3; i++) {
		check(peers_next(table, &cursor, &line), "%zu", i);
		check(strcmp(line.shown, order[i]) == 0, "%s", line.shown);
	}
	check(!peers_next(table, &cursor, &line), "more");
	ok("what is different from the last time is told, once");
}

static uint64_t since(enum peer_state state, uint64_t since_us)
{
	struct peer p = {
		.id = {{1}}, .name = "n", .state = state, .since_us = since_us};
	struct peers_line line;

	peers_begin(table);
	peers_put(table, &p);
	peers_end(table, on_event, NULL);
	check(peers_by_name(table, "n", &line), "n");
	return line.since_us;
}

static void times(void)
{
	begin();
	check_int(since(PEER_ALIVE, 1000), 1000);
	check_int(since(PEER_ALIVE, 1001), 1000);
	check_int(since(PEER_SUSPECT, 2000), 2000);
	check_int(since(PEER_SUSPECT, 7), 2000);
	check_int(since(PEER_ALIVE, 3000), 3000);
	ok("the time of a state stays what it was first told to be");
}

static void two_of_one_name(void)
{
	begin();
	FILL(A(1, "n"), A(2, "n"));
	told("+n +n~02cd0000 ");
	uint64_t first = number_of("n");
	FILL(A(2, "n"), A(1, "n"));
	told("");
	check_int(number_of("n"), first);
	FILL(S(1, "n"), A(2, "n"));
	told("~n ");
	ok("who had the name first keeps it; the other shows its id");

	FILL(D(1, "n"), A(2, "n"));
	told("-n -n~02cd0000 +n +n~01cd0000 ");
	FILL(A(1, "n"), A(2, "n"));
	told("~n~01cd0000 ");
	check(number_of("n") != first, "it changed hands again");
	FILL(D(1, "n"), L(2, "n"));
	told("~n~01cd0000 ~n ");
	FILL(D(1, "n"));
	told("-n -n~01cd0000 +n ");
	ok("a name goes from the dead to the living, and to who is left");

	begin();
	FILL(D(1, "n"), A(2, "n"));
	told("+n +n~01cd0000 ");
	check(number_of("n") != 0, "n");
	ok("of two that come together the living one has the name");
}

static void renamed(void)
{
	begin();
	FILL(A(1, "a"), A(2, "b"), A(3, "b"));
	told("+a +b +b~03cd0000 ");
	uint64_t first = number_of("a");
	FILL(A(1, "c"), A(2, "b"), A(3, "b"));
	told("-a +c ");
	check_int(number_of("c"), first);
	FILL(A(1, "b"), A(2, "x"), A(3, "b"));
	told("-c -b +b +x ");
	ok("a member with a new name has a new file, and the same number");
}

static void bad_names(void)
{
	static const char *const bad[] = {"", ".a", "a/b", "self", "a b", "\n"};
	char name[RING_NAME_MAX + 2];
	struct peers_line line;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		begin();
		FILL(A(1, bad[i]));
		told("+~01cd0000 ");
	}
	ok("what cannot be a file's name is not made one");

	begin();
	memset(name, 'n', sizeof(name));
	name[RING_NAME_MAX] = '\0';
	FILL(A(1, name), A(2, name));
	check(peers_by_name(table, name, &line), "long");
	name[RING_NAME_MAX - 9] = '\0';
	strcat(name, "~02cd0000");
	check(peers_by_name(table, name, &line), "%s", events);
	ok("a name beside another is no longer than a name may be");

	/* Somebody calls itself as another is shown. */
	begin();
	FILL(A(1, "n"), A(2, "n"), A(3, "n~02cd0000"), A(4, "n~02cd0000"),
	     A(5, "n~02cd0000~04cd0000"));
	uint64_t cursor = 0;
	while (peers_next(table, &cursor, &line))
		check(number_of(line.shown) == line.number, "%s", line.shown);
	check_int(cursor, 5);
	ok("each has a file, whatever they call themselves");
}

/* Any history: names stay unique, whoever can have its own has it, and what is
 * told adds up to what is there. */
static void at_random(uint64_t seed)
{
	static const char *const names[] = {"a", "b", "a~01cd0000", "self"};

	struct m m[8];

	begin();
	for (int round = 0; round < 20000; round++) {
		size_t n = 0;
		for (uint8_t id = 1; id <= 8; id++) {
			uint64_t r = check_random(&seed);
			if (r % 4 == 0)
				continue;
			m[n++] = (struct m){id, names[r >> 8 & 3],
					    (enum peer_state)(r >> 16 & 3),
					    r >> 24 & 1};
		}
		fill(m, n);
		uint64_t cursor = 0;
		struct peers_line line;
		size_t n_lines = 0;
		bool owned[4] = {false};
		for (; peers_next(table, &cursor, &line); n_lines++) {
			check_int(number_of(line.shown), line.number);
			for (int i = 0; i < 4; i++)
				owned[i] |= strcmp(line.shown, names[i]) == 0;
		}
		check_int(n_lines, n);
		for (size_t i = 0; i < n; i++)
			for (int k = 0; k < 3; k++)
				check(strcmp(m[i].name, names[k]) != 0 ||
					      owned[k],
				      "nobody has %s in round %d", names[k],
				      round);
		check(!owned[3], "a file named self");
	}

	ok("whatever happens, each has one name and each name has one owner");
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	log_set(LOG_LEVEL_ERROR, false);
	coming_and_going();
	times();
	two_of_one_name();
	renamed();
	bad_names();
	at_random(seed);
	peers_destroy(table);
	return 0;
}
