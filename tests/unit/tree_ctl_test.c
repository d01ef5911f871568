/* SPDX-License-Identifier: MIT */
/* ctl without a mount: batches that are cut into parts, and what becomes of the
 * rest when one is refused, interrupted or drained; verbs that name a token. */
#include "tests/unit/tree_rig.h"

#include "fs/text.h"

enum {
	N_CUT = 3 * RING_OPS_MAX + 1 /* operations that make four parts */
};

static struct rig_file open_ctl(struct rig *r, uint32_t flags)
{
	check_int(rig_open(r, r->dirs[CTL], flags), 0);
	return r->file;
}

static int ctl_write(struct rig *r, const struct rig_file *f, const char *s)
{
	return rig_pwrite(r, f, s, strlen(s), 0);
}

/* ---- A batch of four parts ---- */

/* Number i of the batch: each part begins with a claim, of "key<part>"; the rest
 * of it finishes what is not there. */
static void put_name(struct text *x, size_t i)
{
	if (i % RING_OPS_MAX == 0)
		text_printf(x, "key%zu", i / RING_OPS_MAX);
	else
		text_printf(x, "none%zu", i);
}

static void write_batch(struct rig *r, const struct rig_file *f)
{
	struct text x = {0};
	size_t piece = 60000;

	for (size_t i = 0; i < N_CUT; i++) {
		text_puts(&x, i % RING_OPS_MAX == 0 ? "claim " : "finish ");
		put_name(&x, i);
		text_puts(&x, "\n");
	}
	for (size_t at = 0; at < x.len; at += piece)
		check_int(rig_pwrite(r, f, x.base + at,
				     x.len - at < piece ? x.len - at : piece,
				     at),
			  0);
	text_finish(&x);
}

/* Write it, and begin to read: it waits for the ring. */
static struct rig_file begin(struct rig *r)
{
	struct rig_file f = open_ctl(r, O_RDWR);

	write_batch(r, &f);
	r->slow = true;
	check_int(rig_pread(r, &f, 65536, 0), RIG_WAITS);
	return f;
}

static bool is_there(const struct rig *r, int part)
{
	char name[8];

	snprintf(name, sizeof(name), "key%d", part);
	return fake_get(r->ring, name) != NULL;
}

/* The answers from the reply that has come, and from more reads. words are what
 * is said of the claim and of the rest, for each part. */
static void answers_are(struct rig *r, const struct rig_file *f,
			const char *const words[4][2])
{
	struct text got = {0}, want = {0};

	r->slow = false;
	while (r->len > 0) {
		text_add(&got, (const char *)r->bytes, r->len);
		check_int(rig_pread(r, f, 65536, 0), 0);
	}
	for (size_t i = 0; i < N_CUT; i++) {
		text_puts(&want, words[i / RING_OPS_MAX][i % RING_OPS_MAX > 0]);
		text_puts(&want, " ");
		put_name(&want, i);
		text_puts(&want, "\n");
	}
	check_int(got.len, want.len);
	check(memcmp(got.base, want.base, got.len) == 0, "the answers");
	text_finish(&got);
	text_finish(&want);
}

static void test_parts(void)
{
	struct rig *r = rig_create_ready();
	size_t before = r->ring->n_submitted;
	struct rig_file f = begin(r);
	uint64_t unique = r->unique;

	check_int(r->ring->n_submitted, before + 2); /* and not all at once */
	fake_answer(r->ring);
	check_int(r->ring->n_submitted, before + 3);
	check(is_there(r, 0) && !is_there(r, 1), "one part");
	fake_answer(r->ring);
	check_int(r->ring->n_submitted, before + 4);
	fake_answer(r->ring);
	check_int(rig_error(r, unique), RIG_WAITS);
	fake_answer(r->ring);
	check_int(rig_error(r, unique), 0);
	answers_are(r, &f,
		    (const char *const[4][2]){{"ok", "ENOENT"},
					      {"ok", "ENOENT"},
					      {"ok", "ENOENT"},
					      {"ok", "ENOENT"}});
	rig_close(r, &f);
	rig_destroy(r);
	ok("a large batch goes in parts, and is answered in one, in order");
}

static void test_part_refused(void)
{
	static const int refusals[] = {-EROFS, -ETIMEDOUT, -ENOSPC};
	static const char *const words[] = {"EROFS", "ETIMEDOUT", "ENOSPC"};

	for (int i = 0; i < 3; i++) {
		struct rig *r = rig_create_ready();
		struct rig_file f = begin(r);
		uint64_t unique = r->unique;
		const char *word = words[i];

		fake_answer(r->ring);
		r->ring->refuse = refusals[i];
		fake_answer(r->ring);
		r->ring->refuse = 0;
		rig_turn(r);
		check_int(rig_error(r, unique), 0);
		answers_are(r, &f,
			    (const char *const[4][2]){{"ok", "ENOENT"},
						      {word, word},
						      {"ok", "ENOENT"},
						      {"ok", "ENOENT"}});
		check(is_there(r, 0) && !is_there(r, 1) && is_there(r, 2) &&
			      is_there(r, 3),
		      "the others are carried out");
		rig_close(r, &f);
		rig_destroy(r);
	}
	ok("a part that is refused says why at each name, and the rest goes "
	   "on");
}

static void test_all_refused(void)
{
	struct rig *r = rig_create_ready();
	struct rig_file f = begin(r);
	uint64_t unique = r->unique;

	r->ring->refuse = -EROFS;
	rig_turn(r);
	check_int(rig_error(r, unique), EROFS);
	r->slow = false;
	rig_close(r, &f);
	f = begin(r);
	unique = r->unique;
	fake_answer(r->ring);
	r->ring->refuse = -ETIMEDOUT;
	fake_answer(r->ring);
	r->ring->refuse = -ENOSPC;
	rig_turn(r);
	check_int(rig_error(r, unique), ETIMEDOUT);
	r->slow = false;
	rig_close(r, &f);
	check_int(r->ring->n_keys, 0);
	rig_destroy(r);
	ok("a read fails if no part was done, with ETIMEDOUT if one may be");
}

static void test_interrupted(void)
{
	struct rig *r = rig_create_ready();
	size_t before = r->ring->n_submitted;
	struct rig_file f = begin(r);
	uint64_t unique = r->unique;

	fake_answer(r->ring);
	rig_interrupt(r, unique);
	check_int(rig_error(r, unique), EINTR);
	rig_close(r, &f); /* before the ring has answered */
	rig_turn(r);
	check_int(r->ring->n_submitted, before + 3);
	check(is_there(r, 0) && !is_there(r, 1) && !is_there(r, 2) &&
		      !is_there(r, 3),
	      "what was done stays, the rest is not done");
	rig_destroy(r);
	ok("a signal amid a batch leaves the parts that were answered");
}

static void test_drained(void)
{
	struct rig *r = rig_create_ready();
	size_t before = r->ring->n_submitted;
	struct rig_file f = begin(r);
	uint64_t unique = r->unique;

	fake_answer(r->ring);
	tree_drain(r->tree);
	check_int(rig_error(r, unique), ETIMEDOUT);
	rig_turn(r);
	check_int(r->ring->n_submitted, before + 3);
	r->slow = false;
	rig_close(r, &f);
	rig_destroy(r);
	ok("draining lets a batch go, and sends no more of it");
}

/* ---- Tokens ---- */

/* verb, at the token of k and `off` more, must end with error. */
static void at(struct rig *r, const char *verb, int off, int error)
{
	struct rig_file f = open_ctl(r, O_WRONLY);
	char line[64];

	snprintf(line, sizeof(line), "%s %llu k\n", verb,
		 (unsigned long long)fake_get(r->ring, "k")->token + off);
	int got = ctl_write(r, &f, line);

	check(got == error, "%s: got %s", line, strerror(got));
	rig_close(r, &f);
}

static enum ring_state state_of_k(const struct rig *r)
{
	return fake_get(r->ring, "k")->state;
}

static void test_tokens(void)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "k", RING_HELD, 0, "");
	at(r, "give-at", 1, ENOENT);
	at(r, "park-at", 1, ENOENT);
	at(r, "take-at", 0, ENOENT); /* it is not in recover */
	check_int(state_of_k(r), RING_HELD);
	at(r, "give-at", 0, 0);
	check_int(state_of_k(r), RING_OFFERED);
	check_int(fake_get(r->ring, "k")->reason, RING_GIVEN_BACK);
	at(r, "take-at", 0, ENOENT); /* its back-off is not over */
	at(r, "park-at", 0, ENOENT);
	at(r, "give-at", 0, ENOENT);
	fake_get(r->ring, "k")->backoff_ms = 0;
	at(r, "take-at", 1, ENOENT);
	at(r, "take-at", 0, 0);
	check_int(state_of_k(r), RING_HELD);
	at(r, "park-at", 0, 0);
	check_int(state_of_k(r), RING_PARKED);
	at(r, "park-at", 0, ENOENT);
	fake_pass(r->ring, "k", RING_OFFERED, 0);
	at(r, "park-at", 0, 0);
	fake_pass(r->ring, "k", RING_HELD, 1); /* another node's */
	at(r, "give-at", 0, ENOENT);
	rig_destroy(r);
	ok("take-at, give-at and park-at are for one token, where mv can");
}

static void test_token_users(void)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "k", RING_HELD, 0, "");
	r->uid = 2000;
	at(r, "give-at", 0, EPERM);
	at(r, "park-at", 0, EPERM);
	fake_pass(r->ring, "k", RING_OFFERED, 0);
	at(r, "take-at", 0, EPERM);
	fake_get(r->ring, "k")->uid = 2000;
	at(r, "take-at", 0, 0);
	at(r, "give-at", 0, 0);
	rig_destroy(r);
	ok("... and for the user whose key it is");
}

/* What a batch does to its own keys. */
static void test_token_batch(void)
{
	struct rig *r = rig_create_ready();
	struct rig_file f = open_ctl(r, O_RDWR);

	fake_key(r->ring, "k", RING_HELD, 0, "");
	fake_key(r->ring, "l", RING_HELD, 0, "");
	struct text x = {0};

	text_printf(&x, "give-at %llu k\npark-at 7 l\npark-at %llu l\n",
		    (unsigned long long)fake_get(r->ring, "k")->token,
		    (unsigned long long)fake_get(r->ring, "l")->token);
	check_int(rig_pwrite(r, &f, x.base, x.len, 0), 0);
	check_int(rig_pread(r, &f, 4096, 0), 0);
	check(strcmp((const char *)r->bytes, "ok k\nENOENT l\nok l\n") == 0,
	      "%s", r->bytes);
	check_int(state_of_k(r), RING_OFFERED);
	check_int(fake_get(r->ring, "l")->state, RING_PARKED);
	text_finish(&x);
	rig_close(r, &f);
	rig_destroy(r);
	ok("... in batches, too");
}

static int force_line(struct rig *r, const char *line)
{
	struct rig_file f = open_ctl(r, O_WRONLY);
	int got = ctl_write(r, &f, line);

	rig_close(r, &f);
	return got;
}

/* In a batch it waits for what is before it, and what is behind it waits. */
static void test_force_batch(struct rig *r)
{
	struct rig_file f = open_ctl(r, O_RDWR);

	fake_key(r->ring, "l", RING_HELD, 1, "");
	check_int(ctl_write(r, &f,
			    "claim new\nforce new\nforce l\nforce none\n"
			    "claim new\nfinish new\n"),
		  0);
	check_int(rig_pread(r, &f, 4096, 0), 0);
	check(strcmp((const char *)r->bytes,
		     "ok new\nok new\nok l\n"
		     "ENOENT none\nok new\nok new\n") == 0,
	      "%s", r->bytes);
	rig_close(r, &f);
}

static void test_force(void)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "k", RING_HELD, 1, "");
	check_int(force_line(r, "finish k\n"), EREMOTE);
	at(r, "force-at", 1, ENOENT);
	r->uid = 2000;
	check_int(force_line(r, "force k\n"), EPERM);
	at(r, "force-at", 0, EPERM);
	r->uid = 1000; /* the key's */
	at(r, "force-at", 0, 0);
	check(fake_get(r->ring, "k") == NULL, "gone");
	check_int(force_line(r, "force k\n"), ENOENT);
	ok("force finishes what another node holds, for the key's user");

	r->uid = 0;
	r->ring->refuse_op = -EHOSTUNREACH;
	fake_key(r->ring, "k", RING_HELD, 1, "");
	check_int(force_line(r, "force k\n"), EHOSTUNREACH);
	r->ring->refuse_op = 0;
	test_force_batch(r);
	rig_destroy(r);
	ok("... in batches, too");
}

int main(void)
{
	test_parts();
	test_part_refused();
	test_all_refused();
	test_interrupted();
	test_drained();
	test_tokens();
	test_token_users();
	test_token_batch();
	test_force();
	return 0;
}
