/* SPDX-License-Identifier: MIT */
/* ring/place.c: golden vectors, the bounds of ring/place.h one by one, and a
 * random walk of joins, deaths, new weights and batches of them, in which every
 * plan is held against what theory says of it.
 *
 * Usage: place_test [SEED [WALKS]] */
#include "ring/place.h"

#include <string.h>

#include <xxhash.h>

#include "ring/mem.h"
#include "tests/unit/check.h"

#define MAX_NODES  1000
#define MAX_VNODES 65536

/* The world: a table, and nodes[0 .. n) as those that are up. The numbers of
 * the dead are not used again. */
struct world {
	uint64_t random;
	uint32_t n_vnodes;
	uint32_t n;
	uint32_t next_node;
	struct place_node nodes[MAX_NODES];
	uint32_t table[MAX_VNODES];
	uint32_t before[MAX_VNODES];
};

static struct world w;

static uint32_t below(uint32_t n)
{
	return (uint32_t)(check_random(&w.random) % n);
}

static void world_init(uint64_t seed, uint32_t n_vnodes)
{
	memset(&w, 0, sizeof(w));
	w.random = seed;
	w.n_vnodes = n_vnodes;
	for (uint32_t v = 0; v < n_vnodes; v++)
		w.table[v] = RING_NONE;
}

static void join(uint32_t weight)
{
	struct place_node *node = &w.nodes[w.n++];

	for (size_t i = 0; i < sizeof(node->id.byte); i++)
		node->id.byte[i] = (uint8_t)check_random(&w.random);
	node->node = w.next_node++;
	node->weight = weight;
}

static void join_many(uint32_t n, uint32_t weight)
{
	while (n-- > 0)
		join(weight);
}

/* Gives the number of the dead. */
static uint32_t die(uint32_t i)
{
	uint32_t node = w.nodes[i].node;

	w.nodes[i] = w.nodes[--w.n];
	return node;
}

static void weigh(uint32_t node, uint32_t weight)
{
	for (uint32_t i = 0; i < w.n; i++)
		if (w.nodes[i].node == node)
			w.nodes[i].weight = weight;
}

static void shuffle(void)
{
	for (uint32_t i = w.n; i > 1; i--) {
		uint32_t j = below(i);
		struct place_node node = w.nodes[i - 1];

		w.nodes[i - 1] = w.nodes[j];
		w.nodes[j] = node;
	}
}

static uint32_t plan(void)
{
	memcpy(w.before, w.table, sizeof(w.before));
	return place_plan(w.table, w.n_vnodes, w.nodes, w.n);
}

/* How many vnodes each number has; free() releases it. */
static uint32_t *tally(const uint32_t *table)
{
	uint32_t *had = xcalloc(w.next_node + 1, sizeof(*had));

	for (uint32_t v = 0; v < w.n_vnodes; v++)
		had[table[v] == RING_NONE ? w.next_node : table[v]]++;
	return had;
}

static uint32_t max(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* ---- What must hold after every plan ---- */

/* The fewest moves that end in fair shares. Whatever a node has above its share
 * rounded up, and all of the gone, must go: forced losses. Whatever it lacks of
 * its share rounded down must come: forced gains. Each move serves one of
 * either kind, and all rounding beyond can be done where it costs nothing; so
 * the larger sum is enough. */
static uint32_t fewest_moves(const uint32_t *had, uint64_t total)
{
	uint32_t losses = w.n_vnodes, gains = 0;

	for (uint32_t i = 0; i < w.n; i++) {
		uint64_t exact = (uint64_t)w.n_vnodes * w.nodes[i].weight;
		uint32_t has = had[w.nodes[i].node];
		uint32_t floor = (uint32_t)(exact / total);
		uint32_t ceil = floor + (exact % total != 0);

		losses -= has > ceil ? ceil : has; /* what it can keep */
		gains += has < floor ? floor - has : 0;
	}
	return max(losses, gains);
}

static void check_fair(const uint32_t *gets, uint64_t total)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < w.n; i++) {
		int64_t exact = (int64_t)w.n_vnodes * w.nodes[i].weight;
		int64_t share = (int64_t)gets[w.nodes[i].node] * (int64_t)total;

		check(llabs(share - exact) < (int64_t)total,
		      "node %u of weight %u has %u of %u vnodes, sum %llu",
		      w.nodes[i].node, w.nodes[i].weight, gets[w.nodes[i].node],
		      w.n_vnodes, (unsigned long long)total);
		sum += gets[w.nodes[i].node];
	}
	check_int(sum, w.n_vnodes); /* none for the dead, none unowned */
}

static void check_moves(uint32_t n_moves, const uint32_t *had,
			const uint32_t *gets, uint64_t total)
{
	uint32_t n_changed = 0, n_lost = 0;

	for (uint32_t v = 0; v < w.n_vnodes; v++)
		n_changed += w.table[v] != w.before[v];
	for (uint32_t i = 0; i <= w.next_node; i++)
		n_lost += had[i] > gets[i] ? had[i] - gets[i] : 0;
	check_int(n_moves, n_changed);
	check_int(n_moves, n_lost); /* so nobody both loses and gains */
	check_int(n_moves, fewest_moves(had, total));
}

/* Again, and from the table before with the nodes in another order. */
static void check_pure(void)
{
	uint32_t *was = xmalloc(sizeof(w.table));
	uint32_t *is = xmalloc(sizeof(w.table));

	memcpy(was, w.before, sizeof(w.table));
	memcpy(is, w.table, sizeof(w.table));
	check_int(plan(), 0);
	check(memcmp(is, w.table, sizeof(w.table)) == 0, "not idempotent");
	shuffle();
	memcpy(w.table, was, sizeof(w.table));
	plan();
	check(memcmp(is, w.table, sizeof(w.table)) == 0, "order matters");
	free(was);
	free(is);
}

static uint32_t plan_and_check(void)
{
	uint32_t n_moves = plan();
	uint32_t *had = tally(w.before), *gets = tally(w.table);
	uint64_t total = 0;

	for (uint32_t i = 0; i < w.n; i++)
		total += w.nodes[i].weight;
	if (total == 0) {
		check_int(gets[w.next_node], w.n_vnodes);
		check_int(n_moves, w.n_vnodes - had[w.next_node]);
	} else {
		check_fair(gets, total);
		check_moves(n_moves, had, gets, total);
	}
	check_pure();
	free(had);
	free(gets);
	return n_moves;
}

/* ---- Golden vectors: they hold for ever ---- */

struct golden {
	const char *name;
	size_t len;
	uint32_t vnode_65536;
};

static char longest[255], all_bytes[255];

static const struct golden golden[] = {
	{"", 0, 0x2d06},
	{"a", 1, 0xe6c6},
	{"abc", 3, 0x78af},
	{"job-1", 5, 0x2e0b},
	{"job-2", 5, 0x7327},
	{"\xc3\xa9t\xc3\xa9", 5, 0x4527}, /* French summer, UTF-8 */
	{"\n", 1, 0x3848},
	{"invoices-2024-12-31.csv", 23, 0xd842},
	{longest, sizeof(longest), 0x2be9},
	{all_bytes, sizeof(all_bytes), 0xd62a},
};

static void test_golden_names(void)
{
	memset(longest, 'x', sizeof(longest));
	for (size_t i = 0; i < sizeof(all_bytes); i++)
		all_bytes[i] = (char)(i + 1);
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
		const struct golden *g = &golden[i];

		for (uint32_t n = 65536; n >= 2; n /= 2) {
			uint32_t want = g->vnode_65536 / (65536 / n);
			uint32_t got = place_vnode(g->name, g->len, n);

			check(got == want, "name %zu in %u: 0x%x, not 0x%x", i,
			      n, got, want);
		}
	}
	ok("names have the vnodes they always had, in rings of every size");
}

/* XXH3 of the table, each entry as 4 bytes, lowest first. */
static uint64_t table_hash(void)
{
	uint8_t *bytes = xmalloc((size_t)w.n_vnodes * 4);

	for (uint32_t v = 0; v < w.n_vnodes; v++)
		for (uint32_t i = 0; i < 4; i++)
			bytes[v * 4 + i] = (uint8_t)(w.table[v] >> (8 * i));
	uint64_t hash = XXH3_64bits(bytes, (size_t)w.n_vnodes * 4);

	free(bytes);
	return hash;
}

static void test_golden_table(void)
{
	world_init(1, 4096);
	for (uint32_t i = 1; i <= 20; i++)
		join(i * 5);
	plan();
	join_many(3, 100);
	plan();
	die(3);
	die(7);
	join(1);
	plan();
	check(table_hash() == 0xf5e783f7d5041557, "table hash is 0x%llx",
	      (unsigned long long)table_hash());
	ok("a history of changes leads to the table it always led to");
}

/* ---- The bounds one by one ---- */

static void check_join(void)
{
	uint32_t n_moves, newcomer = w.next_node;

	join(100);
	n_moves = plan();
	check(n_moves <= w.n_vnodes / w.n, "%u moves, %u nodes", n_moves, w.n);
	for (uint32_t v = 0; v < w.n_vnodes; v++)
		check(w.table[v] == w.before[v] || w.table[v] == newcomer,
		      "vnode %u moved between old nodes", v);
}

static void test_join(void)
{
	for (uint32_t n_vnodes = 16; n_vnodes <= 4096; n_vnodes *= 16) {
		world_init(w.random, n_vnodes);
		join(100);
		plan();
		while (w.n < 300)
			check_join();
	}
	ok("an equal joins: at most V/n vnodes move, all to it");
}

static void check_death(void)
{
	uint32_t dead = die(below(w.n));
	uint32_t least = UINT32_MAX, most = 0;

	plan();
	for (uint32_t v = 0; v < w.n_vnodes; v++)
		check((w.table[v] != w.before[v]) == (w.before[v] == dead),
		      "vnode %u of %u went to %u", v, w.before[v], w.table[v]);
	uint32_t *had = tally(w.before), *gets = tally(w.table);

	for (uint32_t i = 0; i < w.n; i++) {
		uint32_t gain = gets[w.nodes[i].node] - had[w.nodes[i].node];

		least = gain < least ? gain : least;
		most = max(gain, most);
	}
	check(most - least <= 1, "survivors gain %u to %u vnodes", least, most);
	free(had);
	free(gets);
}

static void test_death(void)
{
	for (uint32_t n_vnodes = 16; n_vnodes <= 4096; n_vnodes *= 16) {
		world_init(w.random, n_vnodes);
		join_many(300, 100);
		plan();
		while (w.n > 1)
			check_death();
	}
	ok("an equal dies: only its vnodes move, to all others within one");
}

/* Two nodes own every other vnode of the first half, which is the worst case
 * for dealing them out in the order of vnodes. */
static void test_heirs_of_each(void)
{
	world_init(w.random, 1024);
	join_many(10, 100);
	for (uint32_t v = 0; v < 1024; v++)
		w.table[v] = v < 512 ? v % 2 : 2 + v % 8;
	die(1);
	w.nodes[0] = w.nodes[--w.n];
	plan();
	for (uint32_t dead = 0; dead < 2; dead++) {
		uint32_t heirs[10] = {0};

		for (uint32_t v = 0; v < 1024; v++)
			heirs[w.table[v]] += w.before[v] == dead;
		for (uint32_t i = 2; i < 10; i++)
			check_int(heirs[i], 256 / 8);
	}
	ok("two die at once: the vnodes of each are spread over all others");
}

static void test_no_clump(void)
{
	uint32_t last = 0, n = 0;

	world_init(w.random, 1024);
	join_many(3, 100);
	for (uint32_t v = 0; v < 1024; v++)
		w.table[v] = v < 512;
	plan();
	for (uint32_t v = 0; v < 512; v++) {
		if (w.table[v] == w.before[v])
			continue;
		check(n == 0 || v - last == 2 || v - last == 3 || v - last == 4,
		      "vnodes %u and %u given", last, v);
		last = v;
		n++;
	}
	check(n == 170 || n == 171, "%u given", n);
	ok("a donor parts with vnodes from all over what it has");
}

static void check_gets(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t *gets = tally(w.table);

	check_int(gets[0], a);
	check_int(gets[1], b);
	check_int(gets[2], c);
	free(gets);
}

static void test_heavy_and_light(void)
{
	world_init(w.random, 4096);
	join(300);
	join(100);
	join(0);
	plan_and_check();
	check_gets(3072, 1024, 0);
	ok("shares follow the weights; weight 0 owns nothing");
}

static void test_remainder(void)
{
	world_init(w.random, 16);
	join(50);
	join(30);
	join(20);
	plan_and_check();
	check_gets(8, 5, 3); /* of 8, 4.8, 3.2 */
	weigh(1, 27);
	weigh(2, 23);
	check_int(plan_and_check(), 0);
	check_gets(8, 5, 3); /* 4.32, 3.68: not worth a move */
	weigh(1, 24);
	weigh(2, 26);
	check_int(plan_and_check(), 1);
	check_gets(8, 4, 4); /* 3.84, 4.16 */
	ok("the largest remainder is rounded up, unless keeping saves a move");
}

static void test_draining(void)
{
	world_init(w.random, 256);
	join_many(4, 100);
	plan_and_check();
	w.nodes[0].weight = 0;
	check_int(plan_and_check(), 64);
	for (uint32_t i = 0; i < 4; i++)
		w.nodes[i].weight = 0;
	check_int(plan_and_check(), 256);
	check_int(w.table[17], RING_NONE);
	check_int(plan_and_check(), 0);
	w.n = 0;
	check_int(place_plan(w.table, w.n_vnodes, NULL, 0), 0);
	join(1);
	check_int(plan_and_check(), 256);
	ok("without any weight, or any node, nobody owns anything");
}

static void test_poor_ring(void)
{
	world_init(w.random, 16);
	join_many(100, 100);
	check_int(plan_and_check(), 16);
	join_many(100, 100);
	check_int(plan_and_check(), 0);
	for (uint32_t i = 0; i < w.n; i++)
		w.nodes[i].weight = below(10001);
	plan_and_check();
	uint32_t *gets = tally(w.table);

	for (uint32_t i = 0; i < w.next_node; i++)
		check(gets[i] <= 1, "node %u has %u", i, gets[i]);
	free(gets);
	ok("with more nodes than vnodes each has one or none");
}

static void test_strange_table(void)
{
	world_init(w.random, 64);
	join_many(5, 100);
	w.next_node = 1000;
	for (uint32_t v = 0; v < 64; v++)
		w.table[v] = below(3) == 0 ? RING_NONE : below(1000);
	plan_and_check();
	ok("owners nobody knows, and none at all, count as gone");
}

/* ---- The walk ---- */

static uint32_t some_weight(uint32_t style)
{
	switch (style) {
	case 0:
		return 100;
	case 1:
		return below(10001);
	case 2:
		return below(4) == 0 ? 0 : below(4);
	default:
		return below(10) == 0 ? 10000 : 1 + below(10);
	}
}

/* About as many small numbers as large ones. */
static uint32_t some_count(uint32_t limit)
{
	uint32_t magnitude = 2u << below(10);

	return 1 + below(magnitude < limit ? magnitude : limit);
}

static void change(uint32_t style)
{
	uint32_t what = below(8), n = what < 2 ? 1 : some_count(w.n / 2 + 1);

	if (what == 0 || what == 2 || what >= 4)
		for (uint32_t i = 0; i < n && w.n > 1; i++)
			die(below(w.n));
	if (what == 1 || what == 3 || what >= 4)
		for (uint32_t i = 0; i < n && w.n < MAX_NODES; i++)
			join(some_weight(style));
	if (what >= 6)
		for (uint32_t i = 0; i < n; i++)
			w.nodes[below(w.n)].weight = some_weight(style);
}

static void walk(uint64_t seed)
{
	world_init(seed, 1);
	uint32_t n_vnodes = 16u << below(13), style = below(4);
	uint32_t n_nodes = some_count(MAX_NODES);

	world_init(check_random(&w.random), n_vnodes);
	for (uint32_t i = 0; i < n_nodes; i++)
		join(some_weight(style));
	plan_and_check();
	for (uint32_t i = 0; i < 8; i++) {
		change(style);
		plan_and_check();
	}
}

static void test_walks(uint64_t seed, uint32_t n_walks)
{
	for (uint32_t i = 0; i < n_walks; i++)
		walk(seed + i);
	ok("%u walks of 8 changes: fair, fewest moves, pure, idempotent",
	   n_walks);
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);
	uint32_t n_walks = argc > 2 ? (uint32_t)atoi(argv[2]) : 100;

	test_golden_names();
	test_golden_table();
	world_init(seed, 16);
	test_join();
	test_death();
	test_heirs_of_each();
	test_no_clump();
	test_heavy_and_light();
	test_remainder();
	test_draining();
	test_poor_ring();
	test_strange_table();
	test_walks(seed, n_walks);
	return 0;
}
