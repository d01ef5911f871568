/* SPDX-License-Identifier: MIT */
/* Everything of the tree that waits for the ring, times everything that can
 * happen meanwhile: each refusal, an interrupt at any moment, a kernel that has
 * no use for the answer any more, the end of the mount. The rig sees to it that
 * each request is answered once. */
#include "fs/tree_impl.h"
#include "tests/unit/tree_rig.h"

/* ---- What waits ---- */

struct act {
	const char *what;
	int (*run)(struct rig *r);
	/* Before it: open a file. NULL: none is needed. */
	void (*open)(struct rig *r);
	int gone; /* the errno when the ring says ENOENT of the operation */
	enum {
		PLAIN,
		OPENS, /* a success leaves a file open, r->file */
		BATCH  /* the answer about each name is text, not an errno */
	} kind;
};

static struct rig_file file; /* that open() opened */

static void open_owned(struct rig *r)
{
	check_int(rig_open(r, rig_ino(r, OWNED, "held"), O_RDWR), 0);
	file = r->file;
}

static void open_made(struct rig *r)
{
	check_int(rig_create(r, r->dirs[KEYS], "made", O_RDWR), 0);
	file = r->file;
}

static void open_submitted(struct rig *r)
{
	check_int(rig_create(r, r->dirs[SUBMIT], "made", O_RDWR), 0);
	file = r->file;
}

static void open_lines(struct rig *r)
{
	check_int(rig_open(r, r->dirs[CTL], O_WRONLY), 0);
	file = r->file;
}

static void open_batch(struct rig *r)
{
	check_int(rig_open(r, r->dirs[CTL], O_RDWR), 0);
	file = r->file;
	check_int(rig_pwrite(r, &file, "claim\nnew\n", 10, 0), 0);
}

static int claim(struct rig *r)
{
	return rig_create(r, r->dirs[KEYS], "new", O_WRONLY | O_EXCL);
}

static int claim_by_mknod(struct rig *r)
{
	return rig_mknod(r, r->dirs[KEYS], "new", S_IFREG | 0644);
}

static int submit(struct rig *r)
{
	return rig_create(r, r->dirs[SUBMIT], "new", O_WRONLY);
}

static int submit_by_mknod(struct rig *r)
{
	return rig_mknod(r, r->dirs[SUBMIT], "new", S_IFREG | 0644);
}

static int finish(struct rig *r)
{
	return rig_unlink(r, r->dirs[KEYS], "held");
}

static int finish_owned(struct rig *r)
{
	return rig_unlink(r, r->dirs[OWNED], "held");
}

static int finish_offered(struct rig *r)
{
	return rig_unlink(r, r->dirs[RECOVER], "offered");
}

static int let_go(struct rig *r)
{
	return rig_unlink(r, r->dirs[RELEASE], "releasing");
}

static int discard(struct rig *r)
{
	return rig_unlink(r, r->dirs[PARKED], "parked");
}

static int give(struct rig *r)
{
	return rig_rename(r, r->dirs[OWNED], "held", r->dirs[RECOVER], "held");
}

static int park(struct rig *r)
{
	return rig_rename(r, r->dirs[OWNED], "held", r->dirs[PARKED], "held");
}

static int take(struct rig *r)
{
	return rig_rename(r, r->dirs[RECOVER], "offered", r->dirs[OWNED],
			  "offered");
}

static int retry(struct rig *r)
{
	return rig_rename(r, r->dirs[PARKED], "parked", r->dirs[RECOVER],
			  "parked");
}

static int write_note(struct rig *r)
{
	return rig_pwrite(r, &file, "new note", 8, 0);
}

static int truncate_open(struct rig *r)
{
	/* By number: a lookup would be another request. */
	return rig_open(r, file.ino, O_WRONLY | O_TRUNC);
}

static int truncate_path(struct rig *r)
{
	return rig_resize(r, file.ino, 1, NULL);
}

static int truncate_file(struct rig *r)
{
	return rig_resize(r, file.ino, 1, &file);
}

static int say_lines(struct rig *r)
{
	return rig_pwrite(r, &file, "claim new\n", 10, 0);
}

static int read_answers(struct rig *r)
{
	return rig_pread(r, &file, 4096, 0);
}

static const struct act acts[] = {
	{"claim", claim, NULL, ENOENT, OPENS},
	{"mknod in keys", claim_by_mknod, NULL, ENOENT, PLAIN},
	{"submit", submit, NULL, ENOENT, OPENS},
	{"mknod in submit", submit_by_mknod, NULL, ENOENT, PLAIN},
	{"rm in keys", finish, NULL, ENOENT, PLAIN},
	{"rm in owned", finish_owned, NULL, ENOENT, PLAIN},
	{"rm in recover", finish_offered, NULL, ENOENT, PLAIN},
	{"rm in release", let_go, NULL, ENOENT, PLAIN},
	{"rm in parked", discard, NULL, ENOENT, PLAIN},
	{"give back", give, NULL, ENOENT, PLAIN},
	{"park", park, NULL, ENOENT, PLAIN},
	{"take", take, NULL, ENOENT, PLAIN},
	{"retry", retry, NULL, ENOENT, PLAIN},
	{"write in owned", write_note, open_owned, ESTALE, PLAIN},
	{"write in keys", write_note, open_made, ESTALE, PLAIN},
	{"write in submit", write_note, open_submitted, ESTALE, PLAIN},
	{"> owned/K", truncate_open, open_owned, ENOENT, OPENS},
	{"truncate", truncate_path, open_owned, ENOENT, PLAIN},
	{"ftruncate", truncate_file, open_owned, ESTALE, PLAIN},
	{"a line of ctl", say_lines, open_lines, ENOENT, PLAIN},
	{"a batch of ctl", read_answers, open_batch, 0, BATCH},
};

enum {
	N_ACTS = sizeof(acts) / sizeof(acts[0])
};

/* ---- The stage ---- */

static struct rig *prepared(const struct act *a)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "held", RING_HELD, 0, "note");
	fake_key(r->ring, "offered", RING_OFFERED, 0, "note");
	fake_key(r->ring, "releasing", RING_RELEASING, 0, "note");
	fake_key(r->ring, "parked", RING_PARKED, RING_NONE, "note");
	file.fh = 0;
	if (a->open != NULL)
		a->open(r);
	return r;
}

static void close_prepared(struct rig *r)
{
	if (file.fh != 0)
		rig_close(r, &file);
	file.fh = 0;
}

static void finished(struct rig *r, const struct act *a, int error)
{
	r->slow = false;
	r->ring->refuse = r->ring->refuse_op = 0;
	if (a->kind == OPENS && error == 0) {
		struct rig_file f = r->file;

		rig_close(r, &f);
	}
	close_prepared(r);
	check(r->tree->handles == NULL, "%s: a handle is left", a->what);
	rig_destroy(r);
}

static void expect(const struct act *a, const char *when, int got, int want)
{
	check(got == want, "%s, %s: %s, want %s", a->what, when,
	      got == RIG_WAITS ? "no answer" : strerror(got),
	      want == RIG_WAITS ? "no answer" : strerror(want));
}

/* Ask, and let it wait. Gives the unique. */
static uint64_t ask(struct rig *r, const struct act *a)
{
	r->slow = true;
	expect(a, "as the ring waits", a->run(r), RIG_WAITS);
	return r->unique;
}

/* ---- Answers ---- */

static void test_success(void)
{
	for (size_t i = 0; i < N_ACTS; i++) {
		struct rig *r = prepared(&acts[i]);
		uint64_t unique = ask(r, &acts[i]);

		rig_turn(r);
		expect(&acts[i], "then", rig_error(r, unique), 0);
		finished(r, &acts[i], 0);
	}
	ok("%d operations wait for the ring, and then succeed", N_ACTS);
}

/* What a whole request is refused with, and what the caller is told. */
static void test_refused_whole(void)
{
	static const int errors[][2] = {
		{EROFS, EROFS},		{EAGAIN, EAGAIN},
		{ENOSPC, ENOSPC},	{ETIMEDOUT, ETIMEDOUT},
		{ECANCELED, ETIMEDOUT}, {EINTR, ETIMEDOUT},
	};

	for (size_t i = 0; i < N_ACTS; i++) {
		for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]);
		     e++) {
			struct rig *r = prepared(&acts[i]);
			size_t before = r->ring->n_keys;

			r->ring->refuse = -errors[e][0];
			int error = acts[i].run(r);

			expect(&acts[i], "refused", error, errors[e][1]);
			check_int(r->ring->n_keys, before);
			finished(r, &acts[i], error);
		}
	}
	ok("each refusal of a whole request has its errno");
}

static void test_refused_op(void)
{
	static const int errors[] = {EEXIST, EREMOTE, ENOENT, ENOSPC};

	for (size_t i = 0; i < N_ACTS; i++) {
		for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]);
		     e++) {
			const struct act *a = &acts[i];
			struct rig *r = prepared(a);
			int want = errors[e] == ENOENT ? a->gone : errors[e];

			r->ring->refuse_op = -errors[e];
			int error = a->run(r);

			expect(a, "refused", error,
			       a->kind == BATCH ? 0 : want);
			check(a->kind != BATCH ||
				      strstr((char *)r->bytes, " new\n"),
			      "%s", r->bytes);
			finished(r, a, error);
		}
	}
	ok("each refusal of an operation has its errno, ESTALE for open files");
}

/* ---- Interrupts ---- */

static void interrupt_waiting(const struct act *a, bool done, bool close)
{
	struct rig *r = prepared(a);
	uint64_t unique = ask(r, a);

	rig_interrupt(r, unique);
	expect(a, "interrupted", rig_error(r, unique), EINTR);
	rig_interrupt(r, unique); /* to nobody */
	if (close)
		close_prepared(r);
	r->ring->done = done;
	rig_turn(r);
	check(done || !fake_get(r->ring, "new"), "%s", a->what);
	finished(r, a, EINTR);
}

static void test_interrupted(void)
{
	for (size_t i = 0; i < N_ACTS; i++) {
		interrupt_waiting(&acts[i], false, false);
		interrupt_waiting(&acts[i], true, false);
		interrupt_waiting(&acts[i], false, true);
		interrupt_waiting(&acts[i], true, true);
	}
	ok("a signal ends the wait at once, whatever the ring does then");
}

static void test_interrupted_early_or_late(void)
{
	for (size_t i = 0; i < N_ACTS; i++) {
		const struct act *a = &acts[i];
		struct rig *r = prepared(a);

		r->slow = true;
		rig_interrupt(r, 2 * (r->n_asked + 1));
		expect(a, "interrupted before", a->run(r), EINTR);
		rig_turn(r);
		finished(r, a, EINTR);

		r = prepared(a);
		int error = a->run(r);

		expect(a, "not interrupted yet", error, 0);
		rig_interrupt(r, r->unique);
		rig_turn(r);
		finished(r, a, error);
	}
	ok("a signal before the request ends it too, one after it does "
	   "nothing");
}

/* As many callers as there are acts, all waiting at once; every second one is
 * interrupted, and the ring answers one by one. */
static void test_all_at_once(void)
{
	uint64_t uniques[16];
	struct rig *r = rig_create_ready();
	char name[8];

	r->slow = true;
	for (int i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		check_int(rig_mknod(r, r->dirs[KEYS], name, S_IFREG),
			  RIG_WAITS);
		uniques[i] = r->unique;
	}
	for (int i = 15; i >= 0; i -= 2)
		rig_interrupt(r, uniques[i]);
	for (int i = 0; i < 16; i++) {
		check_int(rig_error(r, uniques[i]), i % 2 ? EINTR : RIG_WAITS);
		fake_answer(r->ring);
		check_int(rig_error(r, uniques[i]), i % 2 ? EINTR : 0);
	}
	check_int(r->ring->n_keys, 8);
	rig_destroy(r);
	ok("many wait at once, and each is answered for itself");
}

static void test_lines_interrupted(void)
{
	struct rig *r = rig_create_ready();

	check_int(rig_open(r, r->dirs[CTL], O_WRONLY), 0);
	struct rig_file f = r->file;

	r->slow = true;
	check_int(rig_pwrite(r, &f, "claim a\nclaim b\nclaim c\n", 24, 0),
		  RIG_WAITS);
	uint64_t unique = r->unique;

	fake_turn(r->ring);
	rig_interrupt(r, unique);
	check_int(rig_error(r, unique), EINTR);
	/* The next write begins afresh, though the ring has not answered. */
	check_int(rig_pwrite(r, &f, "claim d\n", 8, 0), RIG_WAITS);
	rig_turn(r);
	check_int(rig_error(r, r->unique), 0);
	check(fake_get(r->ring, "a") && !fake_get(r->ring, "b") &&
		      !fake_get(r->ring, "c") && fake_get(r->ring, "d"),
	      "the lines that were begun");
	rig_close(r, &f);
	rig_destroy(r);
	ok("a signal between two lines of ctl drops those that follow");
}

/* ---- Locks: waiting for another caller ---- */

static struct rig_file open_held(struct rig *r, enum rig_dir d)
{
	check_int(rig_open(r, rig_ino(r, d, "held"), O_RDONLY), 0);
	return r->file;
}

static int flock_of(struct rig *r, const struct rig_file *f, uint32_t type)
{
	return rig_lock(r, FUSE_SETLKW, f, type, FUSE_LK_FLOCK);
}

static void test_locks(void)
{
	struct rig *r = prepared(&acts[0]);
	struct rig_file a = open_held(r, OWNED), b = open_held(r, KEYS);
	struct rig_file c = open_held(r, OWNED);

	check_int(flock_of(r, &a, F_WRLCK), 0);
	check_int(rig_lock(r, FUSE_SETLK, &b, F_RDLCK, FUSE_LK_FLOCK), EAGAIN);
	check_int(flock_of(r, &b, F_RDLCK), RIG_WAITS);
	uint64_t second = r->unique;

	check_int(flock_of(r, &c, F_WRLCK), RIG_WAITS);
	uint64_t third = r->unique;

	check_int(flock_of(r, &a, F_UNLCK), 0);
	check_int(rig_error(r, second), 0);
	rig_interrupt(r, third);
	check_int(rig_error(r, third), EINTR);
	rig_interrupt(r, 2 * (r->n_asked + 1));
	check_int(flock_of(r, &c, F_WRLCK), EINTR);
	check_int(flock_of(r, &c, F_WRLCK), RIG_WAITS);
	third = r->unique;
	rig_close(r, &b);
	check_int(rig_error(r, third), 0);
	check_int(flock_of(r, &a, F_RDLCK), RIG_WAITS);
	second = r->unique;
	fake_end(r->ring, "held");
	check_int(rig_error(r, second), ESTALE);
	check_int(flock_of(r, &a, F_RDLCK), ESTALE);
	check_int(flock_of(r, &a, F_UNLCK), 0);
	check_int(rig_lock(r, FUSE_SETLK, &a, F_RDLCK, 0), ENOLCK);
	check_int(rig_lock(r, FUSE_SETLKW, &a, F_WRLCK, 0), ENOLCK);
	check_int(rig_lock(r, FUSE_GETLK, &a, F_WRLCK, 0), ENOLCK);
	rig_close(r, &a);
	rig_close(r, &c);
	rig_destroy(r);
	ok("a lock waits for the other files of the key, a signal or its end");
}

static void test_locks_drained(void)
{
	struct rig *r = prepared(&acts[0]);
	struct rig_file a = open_held(r, OWNED), b = open_held(r, KEYS);

	check_int(flock_of(r, &a, F_WRLCK), 0);
	check_int(flock_of(r, &b, F_WRLCK), RIG_WAITS);
	uint64_t second = r->unique;

	tree_drain(r->tree);
	check_int(rig_error(r, second), ENOLCK);
	check_int(flock_of(r, &b, F_WRLCK), ENOLCK);
	rig_destroy(r);
	ok("at the end of the mount who waits for a lock is told ENOLCK");
}

/* ---- The kernel's own ends ---- */

static void test_forgetful(void)
{
	for (size_t i = 0; i < N_ACTS; i++) {
		const struct act *a = &acts[i];
		struct rig *r = prepared(a);
		uint64_t unique = ask(r, a);

		r->forgetful = true;
		rig_turn(r);
		expect(a, "unheard", rig_error(r, unique), 0);
		r->forgetful = false;
		finished(r, a, EINTR); /* nothing was opened */
	}
	struct rig *r = rig_create_ready();

	r->forgetful = true;
	check_int(rig_open(r, rig_ino(r, STATUS, "json"), O_RDONLY), 0);
	check_int(rig_opendir(r, r->dirs[KEYS]), 0);
	r->forgetful = false;
	check(r->tree->handles == NULL, "a handle is left");
	rig_destroy(r);
	ok("an answer that the kernel does not take leaves nothing open");
}

static void test_drain(void)
{
	for (size_t i = 0; i < N_ACTS; i++) {
		const struct act *a = &acts[i];
		struct rig *r = prepared(a);
		uint64_t unique = ask(r, a);

		tree_drain(r->tree);
		expect(a, "drained", rig_error(r, unique), ETIMEDOUT);
		rig_interrupt(r, unique);
		rig_turn(r);
		finished(r, a, ETIMEDOUT);

		r = prepared(a);
		tree_drain(r->tree);
		int error = a->run(r);

		expect(a, "when drained", error,
		       a->kind == BATCH ? ETIMEDOUT : EROFS);
		check_int(rig_getattr(r, r->dirs[KEYS]), 0);
		finished(r, a, error);
	}
	ok("at the end of the mount what waits is in doubt, what comes "
	   "refused");
}

/* After an abort no releases come: what is open goes with the tree. */
static void test_abort(void)
{
	for (size_t i = 0; i < N_ACTS; i++) {
		struct rig *r = prepared(&acts[i]);

		check_int(acts[i].run(r), 0);
		check_int(rig_opendir(r, r->dirs[KEYS]), 0);
		check_int(rig_readdir(r, &r->file, 4096, 0), 0);
		rig_destroy(r);
	}
	ok("files that are never closed go with the tree");
}

int main(void)
{
	test_success();
	test_refused_whole();
	test_refused_op();
	test_interrupted();
	test_interrupted_early_or_late();
	test_all_at_once();
	test_lines_interrupted();
	test_locks();
	test_locks_drained();
	test_forgetful();
	test_drain();
	test_abort();
	return 0;
}
