/* SPDX-License-Identifier: MIT */
#include "fs/locks.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "tests/unit/check.h"

/* ---- Rule by rule ---- */

static char owner[16]; /* only their addresses count */

static struct lock_wish wish(uint64_t id, int who, bool exclusive)
{
	return (struct lock_wish){
		.id = id, .owner = &owner[who], .exclusive = exclusive};
}

static int ask(struct locks *l, int who, bool exclusive)
{
	struct lock_wish w = wish(1, who, exclusive);

	return locks_ask(l, &w, false);
}

static void drop(struct locks *l, int who)
{
	locks_drop(l, 1, &owner[who]);
}

static void test_modes(void)
{
	struct locks *l = locks_create();

	check_int(ask(l, 0, false), 0);
	check_int(ask(l, 1, false), 0);
	check_int(ask(l, 2, true), -EWOULDBLOCK);
	drop(l, 0);
	drop(l, 0); /* twice does no harm */
	check_int(ask(l, 2, true), -EWOULDBLOCK);
	drop(l, 1);
	check_int(ask(l, 2, true), 0);
	check_int(ask(l, 2, true), 0);
	check_int(ask(l, 0, false), -EWOULDBLOCK);
	struct lock_wish other = wish(2, 0, true);

	check_int(locks_ask(l, &other, false), 0);
	locks_destroy(l);
	ok("a lock is shared by many or had by one, and locks are apart");
}

static void test_order(void)
{
	struct locks *l = locks_create();
	struct lock_wish writer = wish(1, 1, true), reader = wish(1, 2, false);

	check_int(ask(l, 0, false), 0);
	check_int(locks_ask(l, &writer, true), -EINPROGRESS);
	check_int(locks_ask(l, &reader, true), -EINPROGRESS);
	check_int(ask(l, 3, false), -EWOULDBLOCK);
	check_int(ask(l, 0, false), 0); /* has it already */
	check(locks_granted(l) == NULL, "held by a reader");
	drop(l, 0);
	check(locks_granted(l) == &writer, "the first");
	check(locks_granted(l) == NULL, "and alone");
	drop(l, 1);
	check(locks_granted(l) == &reader, "the next");
	check(locks_granted(l) == NULL, "nobody waits");
	locks_destroy(l);
	ok("who waits to be alone is not starved by those who share");
}

static void test_cancel(void)
{
	struct locks *l = locks_create();
	struct lock_wish writer = wish(1, 1, true), reader = wish(1, 2, false);

	check_int(ask(l, 0, false), 0);
	check_int(locks_ask(l, &writer, true), -EINPROGRESS);
	check_int(locks_ask(l, &reader, true), -EINPROGRESS);
	check(locks_youngest(l, 1) == &reader, "the last");
	check(locks_older(&reader) == &writer, "the one before");
	check(locks_older(&writer) == NULL, "the first");
	locks_cancel(l, &writer);
	check(locks_granted(l) == &reader, "nobody is before it any more");
	check(locks_youngest(l, 1) == NULL, "nobody waits");
	locks_destroy(l);
	ok("when one that waits gives up, those behind it go on");
}

static void test_convert(void)
{
	struct locks *l = locks_create();
	struct lock_wish writer = wish(1, 1, true), back = wish(1, 0, false);
	struct lock_wish up = wish(1, 0, true);

	check_int(ask(l, 0, false), 0);
	check_int(ask(l, 0, true), 0);
	check_int(ask(l, 0, false), 0);
	check_int(ask(l, 1, false), 0);
	check_int(ask(l, 0, true), -EWOULDBLOCK);
	drop(l, 1);
	check_int(ask(l, 1, true), 0); /* 0 has lost what it had */
	drop(l, 1);

	check_int(ask(l, 0, true), 0);
	check_int(locks_ask(l, &writer, true), -EINPROGRESS);
	check_int(locks_ask(l, &back, true), -EINPROGRESS);
	check(locks_granted(l) == &writer, "it came in between");
	drop(l, 1);
	check(locks_granted(l) == &back, "then the other mode");
	check_int(ask(l, 2, false), 0);
	check_int(locks_ask(l, &up, true), -EINPROGRESS);
	drop(l, 2);
	check(locks_granted(l) == &up, "alone at last");
	locks_destroy(l);
	ok("to ask for the other mode lets go of what one has first");
}

/* ---- Against a plain model ---- */

enum {
	N_OWNERS = 6,
	N_IDS = 2,
	N_WISHES = 8,
	ROUNDS = 300000,
};

enum mode {
	NONE,
	SHARED,
	ALONE
};

/* Who has what, and a row of those who wait. */
static struct model {
	enum mode has[N_OWNERS];
	struct lock_wish *row[N_WISHES];
	size_t n;
} models[N_IDS];

static struct lock_wish wishes[N_WISHES];
static bool used[N_WISHES];
static size_t n_waited;

static int number(const struct lock_wish *w)
{
	return (int)((const char *)w->owner - owner);
}

static bool model_may(const struct model *m, int who, bool exclusive)
{
	for (int i = 0; i < N_OWNERS; i++)
		if (i != who &&
		    (m->has[i] == ALONE || (exclusive && m->has[i] != NONE)))
			return false;
	return true;
}

static void model_remove(struct model *m, size_t at)
{
	m->n--;
	memmove(&m->row[at], &m->row[at + 1], (m->n - at) * sizeof(m->row[0]));
}

/* Let in from the front of the row, and see that the same came out of l. */
static void model_serve(struct model *m, struct locks *l)
{
	while (m->n > 0 &&
	       model_may(m, number(m->row[0]), m->row[0]->exclusive)) {
		struct lock_wish *w = m->row[0];

		m->has[number(w)] = w->exclusive ? ALONE : SHARED;
		model_remove(m, 0);
		check(locks_granted(l) == w, "owner %d is next", number(w));
		used[w - wishes] = false;
	}
	check(locks_granted(l) == NULL, "nobody else");
}

static void step_ask(struct locks *l, uint64_t *seed)
{
	size_t slot = check_random(seed) % N_WISHES;
	int who = (int)(check_random(seed) % N_OWNERS);
	uint64_t id = check_random(seed) % N_IDS;
	bool may_wait = check_random(seed) % 2;
	struct model *m = &models[id];
	struct lock_wish *w = &wishes[slot];

	if (used[slot])
		return;
	*w = wish(id, who, check_random(seed) % 2);
	enum mode wants = w->exclusive ? ALONE : SHARED;
	int rc = locks_ask(l, w, may_wait);

	if (m->has[who] == wants) {
		check_int(rc, 0);
	} else {
		m->has[who] = NONE;
		model_serve(m, l);
		if (m->n == 0 && model_may(m, who, w->exclusive)) {
			check_int(rc, 0);
			m->has[who] = wants;
		} else if (may_wait) {
			check_int(rc, -EINPROGRESS);
			m->row[m->n++] = w;
			used[slot] = true;
			n_waited++;
		} else {
			check_int(rc, -EWOULDBLOCK);
		}
	}
	check(locks_granted(l) == NULL, "nobody came");
}

static void step_drop(struct locks *l, uint64_t *seed)
{
	int who = (int)(check_random(seed) % N_OWNERS);
	uint64_t id = check_random(seed) % N_IDS;

	locks_drop(l, id, &owner[who]);
	models[id].has[who] = NONE;
	model_serve(&models[id], l);
}

static void step_cancel(struct locks *l, uint64_t *seed)
{
	struct model *m = &models[check_random(seed) % N_IDS];

	if (m->n == 0)
		return;
	size_t at = check_random(seed) % m->n;
	struct lock_wish *w = m->row[at];

	model_remove(m, at);
	locks_cancel(l, w);
	used[w - wishes] = false;
	model_serve(m, l);
}

static void check_row(const struct locks *l)
{
	for (uint64_t id = 0; id < N_IDS; id++) {
		const struct model *m = &models[id];
		const struct lock_wish *w = locks_youngest(l, id);

		for (size_t i = m->n; i > 0; i--, w = locks_older(w))
			check(w == m->row[i - 1], "place %zu", i - 1);
		check(w == NULL, "nobody before");
	}
}

static void test_random(uint64_t seed)
{
	struct locks *l = locks_create();

	for (int i = 0; i < ROUNDS; i++) {
		switch (check_random(&seed) % 8) {
		case 0:
			step_cancel(l, &seed);
			break;
		case 1:
		case 2:
		case 3:
			step_drop(l, &seed);
			break;
		default:
			step_ask(l, &seed);
		}
		check_row(l);
	}
	for (uint64_t id = 0; id < N_IDS; id++)
		while (models[id].n > 0)
			step_cancel(l, &seed);
	check(n_waited > ROUNDS / 100, "only %zu waited", n_waited);
	locks_destroy(l);
	ok("%d random steps go as in a plain model, %zu of them waited", ROUNDS,
	   n_waited);
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	test_modes();
	test_order();
	test_cancel();
	test_convert();
	test_random(seed);
	return 0;
}
