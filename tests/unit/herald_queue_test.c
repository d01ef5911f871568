/* SPDX-License-Identifier: MIT */
/* What the herald owes: which records are merged, their order, and that each
 * event comes exactly once whatever happens to the child. */
#include "fs/herald_queue.h"

#include <errno.h>
#include <string.h>

#include "fs/herald_wire.h"
#include "tests/unit/check.h"

enum {
	DIR_A = 0,
	DIR_B = 3
};

/* Send the next record of dir; it must be this one. */
static uint64_t next_is(struct herald_queue *q, unsigned dir, const char *name,
			enum herald_what what)
{
	struct herald_item item;

	check(herald_queue_next(q, dir, &item), "want %s, got nothing", name);
	check(strcmp(item.name, name) == 0, "want %s, got %s", name, item.name);
	check_int(item.what, what);
	return item.seq;
}

static void next_is_none(struct herald_queue *q, unsigned dir)
{
	struct herald_item item;

	check(!herald_queue_next(q, dir, &item), "got %s", item.name);
}

/* Post each of whats (letters C, D, M) to one name; then the records in want,
 * and no others, are sent. */
static void merges(const char *whats, const char *want)
{
	static const char letters[] = "CDM";
	struct herald_queue q;

	herald_queue_init(&q, 0);
	for (; *whats != '\0'; whats++)
		herald_queue_post(
			&q, DIR_A, "k",
			(enum herald_what)(strchr(letters, *whats) - letters));
	for (; *want != '\0'; want++) {
		enum herald_what what =
			(enum herald_what)(strchr(letters, *want) - letters);
		uint64_t seq = next_is(&q, DIR_A, "k", what);

		next_is_none(&q, DIR_A);
		check_int(herald_queue_done(&q, DIR_A, seq, 0), 0);
	}
	next_is_none(&q, DIR_A);
	check_int(q.n_waiting + q.n_flight, 0);
	herald_queue_finish(&q);
}

static void test_merging(void)
{
	merges("C", "C");
	merges("CD", "");
	merges("CMM", "C");
	merges("MM", "M");
	merges("MD", "D");
	merges("DM", "D");
	merges("DC", "DC");
	merges("DCM", "DC");
	merges("DCD", "D");
	merges("DCDCDC", "DC");
	merges("CDC", "C");
	ok("records that wait for one name are merged");
}

static void test_begun(void)
{
	struct herald_queue q;

	herald_queue_init(&q, 0);
	herald_queue_post(&q, DIR_A, "k", HERALD_CREATE);
	uint64_t seq = next_is(&q, DIR_A, "k", HERALD_CREATE);
	herald_queue_post(&q, DIR_A, "k", HERALD_DELETE);
	herald_queue_post(&q, DIR_A, "l", HERALD_CREATE);
	check(herald_queue_expects(&q, DIR_A, "k", HERALD_CREATE), "begun");
	check(!herald_queue_expects(&q, DIR_A, "k", HERALD_DELETE), "waits");
	check(!herald_queue_expects(&q, DIR_A, "l", HERALD_CREATE), "waits");
	check(!herald_queue_expects(&q, DIR_B, "k", HERALD_CREATE), "other");
	next_is_none(&q, DIR_A);
	herald_queue_granted(&q, DIR_A, "k", HERALD_CREATE);
	check(!herald_queue_expects(&q, DIR_A, "k", HERALD_CREATE), "granted");
	check_int(herald_queue_done(&q, DIR_A, seq, 0), 0);
	next_is(&q, DIR_A, "k", HERALD_DELETE);
	next_is(&q, DIR_A, "l", HERALD_CREATE);
	herald_queue_finish(&q);
	ok("a record that was begun is not cancelled, and those behind it "
	   "wait");
}

static void test_settle(void)
{
	struct herald_queue q;

	herald_queue_init(&q, 0);
	herald_queue_post(&q, DIR_A, "a", HERALD_CREATE);
	herald_queue_post(&q, DIR_A, "b", HERALD_CREATE);
	herald_queue_post(&q, DIR_A, "c", HERALD_CREATE);
	herald_queue_post(&q, DIR_A, "d", HERALD_CREATE);
	next_is(&q, DIR_A, "a", HERALD_CREATE);
	next_is(&q, DIR_A, "b", HERALD_CREATE);
	next_is(&q, DIR_A, "c", HERALD_CREATE);
	herald_queue_granted(&q, DIR_A, "a", HERALD_CREATE);
	herald_queue_settle(&q);
	check_int(q.announced, 1);
	check(!herald_queue_expects(&q, DIR_A, "b", HERALD_CREATE), "settled");
	next_is(&q, DIR_A, "b", HERALD_CREATE);
	next_is(&q, DIR_A, "c", HERALD_CREATE);
	next_is(&q, DIR_A, "d", HERALD_CREATE);
	herald_queue_finish(&q);
	ok("a dead child's records are announced if granted, else sent again");
}

static void test_errors(void)
{
	struct herald_queue q;

	herald_queue_init(&q, 0);
	herald_queue_post(&q, DIR_A, "a", HERALD_CREATE);
	herald_queue_post(&q, DIR_A, "b", HERALD_CREATE);
	for (int i = 0; i < HERALD_TRIES; i++) {
		uint64_t seq = next_is(&q, DIR_A, "a", HERALD_CREATE);

		check_int(herald_queue_done(&q, DIR_A, seq + 1, 0), -EPROTO);
		check_int(herald_queue_done(&q, DIR_B, seq, 0), -EPROTO);
		check_int(herald_queue_done(&q, HERALD_DIRS, seq, 0), -EPROTO);
		check_int(herald_queue_done(&q, DIR_A, seq, EEXIST), 0);
	}
	check_int(q.failed, 1);
	for (int i = 0; i < 2 * HERALD_TRIES; i++) {
		uint64_t seq = next_is(&q, DIR_A, "b", HERALD_CREATE);

		check_int(herald_queue_done(&q, DIR_A, seq, ENOTCONN), 0);
	}
	check_int(q.failed, 1);
	check_int(q.n_waiting, 1);
	herald_queue_finish(&q);
	ok("a record is given up after 3 errors, but not for want of a mount");
}

static void test_outdated(void)
{
	struct herald_queue q;

	herald_queue_init(&q, 0);
	herald_queue_post(&q, DIR_A, "a", HERALD_CREATE);
	uint64_t seq = next_is(&q, DIR_A, "a", HERALD_CREATE);
	herald_queue_granted(&q, DIR_A, "a", HERALD_CREATE);
	check_int(herald_queue_done(&q, DIR_A, seq, ENOENT), 0);
	next_is_none(&q, DIR_A);
	check_int(q.failed + q.announced, 0);
	ok("a record that the tree granted and refused is not repeated");

	herald_queue_post(&q, DIR_A, "b", HERALD_DELETE);
	seq = next_is(&q, DIR_A, "b", HERALD_DELETE);
	herald_queue_post(&q, DIR_A, "b", HERALD_CREATE);
	herald_queue_post(&q, DIR_A, "c", HERALD_DELETE);
	herald_queue_post(&q, DIR_A, "c", HERALD_CREATE);
	herald_queue_forget(&q, DIR_A, "b");
	herald_queue_forget(&q, DIR_A, "c");
	herald_queue_forget(&q, DIR_A, "d");
	check_int(q.n_waiting, 0);
	check_int(herald_queue_done(&q, DIR_A, seq, 0), 0);
	next_is_none(&q, DIR_A);
	herald_queue_finish(&q);
	ok("what waits for a name is forgotten, what is under way is not");
}

static void test_bounds(void)
{
	struct herald_queue q;
	struct herald_item item;
	char name[16];

	herald_queue_init(&q, 1U << DIR_B);
	for (int i = 0; i < HERALD_BEST_EFFORT_MAX + 10; i++) {
		snprintf(name, sizeof(name), "%d", i);
		herald_queue_post(&q, DIR_A, name, HERALD_CREATE);
		herald_queue_post(&q, DIR_B, name, HERALD_CREATE);
	}
	check_int(q.dropped, 10);
	check_int(q.dirs[DIR_A].n_waiting, HERALD_BEST_EFFORT_MAX + 10);
	check_int(q.dirs[DIR_B].n_waiting, HERALD_BEST_EFFORT_MAX);
	for (int i = 0; i < HERALD_WINDOW; i++)
		check(herald_queue_next(&q, DIR_A, &item), "%d", i);
	next_is_none(&q, DIR_A);
	check(herald_queue_next(&q, DIR_B, &item), "its own window");
	herald_queue_finish(&q);
	ok("best effort drops over 65,536, others never; a window per "
	   "directory");
}

enum {
	NAMES = 12
};

/* A name's file as the tree has it, and as a watcher must believe it to be. */
struct name {
	char text[4];
	bool exists, believed;
};

static struct name names[NAMES];
static uint64_t flight[HERALD_WINDOW];
static struct herald_item items[HERALD_WINDOW];
static bool granted[HERALD_WINDOW];
static size_t n_done, n_sent; /* of flight */

static void watcher_hears(const struct herald_item *item)
{
	struct name *n = &names[item->name[1] - 'a'];

	if (item->what == HERALD_MODIFY)
		return;
	check(n->believed == (item->what == HERALD_DELETE), "%s twice",
	      n->text);
	n->believed = item->what == HERALD_CREATE;
}

/* The child does its oldest operation that it has not done. */
static void child_works(struct herald_queue *q)
{
	for (size_t i = n_done; i < n_sent; i++) {
		if (granted[i])
			continue;
		check(herald_queue_expects(q, DIR_A, items[i].name,
					   items[i].what),
		      "%s", items[i].name);
		watcher_hears(&items[i]);
		herald_queue_granted(q, DIR_A, items[i].name, items[i].what);
		granted[i] = true;
		return;
	}
}

static void child_reports(struct herald_queue *q)
{
	if (n_done == n_sent || !granted[n_done])
		return;
	check_int(herald_queue_done(q, DIR_A, flight[n_done], 0), 0);
	n_done++;
}

static void send_some(struct herald_queue *q)
{
	if (n_done == n_sent)
		n_done = n_sent = 0;
	while (n_sent < HERALD_WINDOW &&
	       herald_queue_next(q, DIR_A, &items[n_sent])) {
		flight[n_sent] = items[n_sent].seq;
		granted[n_sent++] = false;
	}
}

static void step(struct herald_queue *q, uint64_t *seed)
{
	struct name *n = &names[check_random(seed) % NAMES];

	switch (check_random(seed) % 16) {
	case 0: /* the child dies */
		herald_queue_settle(q);
		n_done = n_sent = 0;
		break;
	case 1:
	case 2:
		if (n->exists)
			herald_queue_post(q, DIR_A, n->text, HERALD_MODIFY);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		n->exists = !n->exists;
		herald_queue_post(q, DIR_A, n->text,
				  n->exists ? HERALD_CREATE : HERALD_DELETE);
		break;
	case 7:
	case 8:
		send_some(q);
		break;
	case 9:
	case 10:
	case 11:
		child_reports(q);
		break;
	default:
		child_works(q);
	}
}

static void test_random(uint64_t seed)
{
	struct herald_queue q;

	herald_queue_init(&q, 0);
	for (int i = 0; i < NAMES; i++)
		snprintf(names[i].text, sizeof(names[i].text), "k%c", 'a' + i);
	for (int i = 0; i < 1000000; i++) {
		step(&q, &seed);
		check(q.n_waiting + q.n_flight <= 3 * NAMES, "%zu wait",
		      q.n_waiting);
	}
	while (q.n_waiting + q.n_flight > 0) {
		send_some(&q);
		child_works(&q);
		child_reports(&q);
	}
	for (int i = 0; i < NAMES; i++)
		check_int(names[i].believed, names[i].exists);
	herald_queue_finish(&q);
	ok("a watcher hears each change once, in order, whenever the child "
	   "dies");
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	test_merging();
	test_begun();
	test_settle();
	test_errors();
	test_outdated();
	test_bounds();
	test_random(seed);
	return 0;
}
