/* SPDX-License-Identifier: MIT */
/* Open files of the tree without a mount: notes in pieces, by several handles,
 * over the ends of lives; who made a key; texts; ctl. */
#include "tests/unit/tree_rig.h"

static uint64_t seed;

/* A rig with one key of ours, "k", whose note is text. */
static struct rig *with_note(const char *text)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "k", RING_HELD, 0, text);
	return r;
}

static struct rig_file open_in(struct rig *r, enum rig_dir d, const char *name,
			       uint32_t flags)
{
	uint64_t ino = rig_ino(r, d, name);
	int error = rig_open(r, ino, flags);

	check(error == 0, "open %s/%s: %s", rig_names[d], name,
	      strerror(error));
	return r->file;
}

static void note_is(struct rig *r, const char *text)
{
	const struct ring_key *key = fake_get(r->ring, "k");

	check(key->note_len == strlen(text) &&
		      (key->note_len == 0 ||
		       memcmp(key->note, text, key->note_len) == 0),
	      "the note is \"%.*s\", want \"%s\"", (int)key->note_len,
	      key->note, text);
}

static bool reads(struct rig *r, const struct rig_file *f, uint64_t off,
		  const char *text)
{
	return rig_pread(r, f, 4096, off) == 0 && r->len == strlen(text) &&
	       memcmp(r->bytes, text, r->len) == 0;
}

/* ---- Reading and writing ---- */

static void read_in_pieces(struct rig *r, const struct rig_file *f,
			   const uint8_t *want, size_t n)
{
	size_t at = 0;

	do {
		uint32_t size = 1 + (uint32_t)(check_random(&seed) % 9000);

		check_int(rig_pread(r, f, size, at), 0);
		check(r->len == (n - at < size ? n - at : size),
		      "%zu of %u bytes at %zu", r->len, size, at);
		check(memcmp(r->bytes, want + at, r->len) == 0, "at %zu", at);
		at += r->len;
	} while (r->len > 0);
	check_int(at, n);
}

static void test_pieces(void)
{
	static uint8_t note[RING_NOTE_MAX];
	struct rig *r = with_note("");
	struct rig_file w = open_in(r, OWNED, "k", O_WRONLY);
	size_t at = 0;

	for (size_t i = 0; i < sizeof(note); i++)
		note[i] = (uint8_t)check_random(&seed);
	while (at < sizeof(note)) {
		size_t n = 1 + check_random(&seed) % 9000;

		n = n < sizeof(note) - at ? n : sizeof(note) - at;
		check_int(rig_pwrite(r, &w, note + at, n, at), 0);
		check_int(r->n_written, n);
		at += n;
	}
	struct rig_file f = open_in(r, KEYS, "k", O_RDONLY);

	read_in_pieces(r, &f, note, sizeof(note));
	check_int(rig_pread(r, &f, 1, INT64_MAX), 0);
	check_int(r->len, 0);
	check_int(rig_pread(r, &f, 0, 0), 0);
	check_int(rig_pwrite(r, &w, "x", 1, RING_NOTE_MAX), EFBIG);
	check_int(rig_pwrite(r, &w, "xy", 2, RING_NOTE_MAX - 1), EFBIG);
	check_int(rig_pwrite(r, &w, "x", 1, INT64_MAX), EFBIG);
	check_int(rig_pwrite(r, &w, "x", 1, UINT64_MAX), EFBIG);
	check_int(rig_pwrite(r, &w, note, sizeof(note), 1), EFBIG);
	check_int(rig_pwrite(r, &w, "x", 1, RING_NOTE_MAX - 1), 0);
	check_int(rig_resize(r, w.ino, RING_NOTE_MAX + 1, NULL), EFBIG);
	check_int(rig_resize(r, w.ino, UINT64_MAX, &w), EFBIG);
	check_int(rig_resize(r, w.ino, RING_NOTE_MAX, &w), 0);
	rig_close(r, &f);
	rig_close(r, &w);
	rig_destroy(r);
	ok("a note of 64 KiB is written and read in pieces of any size");
}

static void test_truncation(void)
{
	struct rig *r = with_note("hello");
	struct rig_file f = open_in(r, OWNED, "k", O_RDWR);
	size_t before = r->ring->n_submitted;

	check_int(rig_resize(r, f.ino, 5, &f), 0);
	check_int(r->ring->n_submitted, before);
	check_int(rig_resize(r, f.ino, 2, &f), 0);
	check_int(r->attr.size, 2);
	note_is(r, "he");
	check_int(rig_resize(r, f.ino, 4, NULL), 0);
	check_int(rig_pread(r, &f, 9, 0), 0);
	check(r->len == 4 && memcmp(r->bytes, "he\0\0", 4) == 0, "zeros");
	check_int(rig_pwrite(r, &f, "z", 1, 5), 0);
	check_int(rig_pread(r, &f, 9, 0), 0);
	check(r->len == 6 && memcmp(r->bytes, "he\0\0\0z", 6) == 0, "a hole");
	rig_close(r, &f);
	f = open_in(r, OWNED, "k", O_WRONLY | O_TRUNC);
	note_is(r, "");
	rig_close(r, &f);
	before = r->ring->n_submitted;
	f = open_in(r, OWNED, "k", O_WRONLY | O_TRUNC);
	check_int(r->ring->n_submitted, before);
	check_int(rig_pwrite(r, &f, "", 0, 0), 0);
	rig_close(r, &f);
	rig_destroy(r);
	ok("a note is cut and extended, and nothing is committed for nothing");
}

static void test_two_handles(void)
{
	struct rig *r = with_note("one");
	struct rig_file a = open_in(r, OWNED, "k", O_WRONLY | O_APPEND);
	struct rig_file b = open_in(r, OWNED, "k", O_RDWR);
	struct rig_file reader = open_in(r, KEYS, "k", O_RDONLY);

	check(reads(r, &reader, 0, "one"), "at first");
	check_int(rig_pwrite(r, &a, "+a", 2, 0), 0);
	check(reads(r, &reader, 3, "+a"), "what is appended follows");
	check_int(rig_pwrite(r, &b, "ONE", 3, 0), 0);
	check_int(rig_pwrite(r, &a, "+b", 2, 0), 0);
	note_is(r, "ONE+a+b");
	check(reads(r, &reader, 1, "ne+a"), "no parts of two notes");
	check(reads(r, &reader, 0, "ONE+a+b"), "it begins again");
	check(reads(r, &b, 0, "ONE+a+b"), "its writer sees it");
	a.flags &= ~(uint32_t)O_APPEND; /* fcntl */
	check_int(rig_pwrite(r, &a, "now", 3, 0), 0);
	note_is(r, "now+a+b");
	/* Two writes under way at once, as by files of two directories. */
	r->slow = true;
	check_int(rig_pwrite(r, &a, "x", 1, 0), RIG_WAITS);
	uint64_t first = r->unique;

	check_int(rig_pwrite(r, &b, "y", 1, 1), RIG_WAITS);
	rig_turn(r);
	check_int(rig_error(r, first), 0);
	check_int(rig_error(r, r->unique), 0);
	note_is(r, "xyw+a+b");
	r->slow = false;
	rig_close(r, &b);
	rig_close(r, &a);
	rig_close(r, &reader);
	rig_destroy(r);
	ok("several handles write, append and read one note");
}

static void test_flags(void)
{
	struct rig *r = with_note("x");
	struct rig_file f = open_in(r, OWNED, "k", O_RDONLY);

	check_int(f.open_flags, FOPEN_DIRECT_IO | FOPEN_NOFLUSH);
	rig_close(r, &f);
	f = open_in(r, OWNED, "k", O_RDWR);
	check_int(f.open_flags, FOPEN_DIRECT_IO);
	rig_close(r, &f);
	f = open_in(r, STATUS, "json", O_RDONLY);
	check_int(f.open_flags, FOPEN_DIRECT_IO | FOPEN_NOFLUSH);
	rig_close(r, &f);
	check_int(rig_lookup(r, r->dirs[KEYS], "k"), 0);
	check_int(r->entry.entry_valid + r->entry.entry_valid_nsec +
			  r->entry.attr_valid + r->entry.attr_valid_nsec,
		  0);
	rig_destroy(r);
	ok("no page, name or attribute is to be cached; readers close at once");
}

/* ---- Lives ---- */

/* All that an open file is answered when its life, or its token, has passed. */
static void is_stale(struct rig *r, const struct rig_file *f)
{
	check_int(rig_pread(r, f, 10, 0), ESTALE);
	check_int(rig_fsync(r, f, FUSE_FSYNC), ESTALE);
	if ((f->flags & O_ACCMODE) != O_RDONLY) {
		check_int(rig_pwrite(r, f, "x", 1, 0), ESTALE);
		check_int(rig_resize(r, f->ino, 0, f), ESTALE);
	}
}

static void test_life_over(void)
{
	struct rig *r = with_note("x");
	struct rig_file w = open_in(r, OWNED, "k", O_RDWR);
	struct rig_file f = open_in(r, KEYS, "k", O_RDONLY);

	fake_end(r->ring, "k");
	is_stale(r, &w);
	is_stale(r, &f);
	check_int(rig_open(r, w.ino, O_RDONLY), ENOENT);
	check_int(rig_open(r, w.ino, O_WRONLY | O_TRUNC), ENOENT);
	check_int(rig_getattr(r, w.ino), ESTALE);
	check_int(rig_chmod(r, w.ino, 0644), ENOENT);
	check_int(rig_getxattr(r, w.ino, "user.ring.token", 0), ENOENT);
	check_int(rig_lookup(r, r->dirs[OWNED], "k"), ENOENT);
	check_int(rig_unlink(r, r->dirs[OWNED], "k"), ENOENT);
	/* The name again, but another life. */
	fake_key(r->ring, "k", RING_HELD, 0, "new");
	check_int(rig_pread(r, &w, 10, 0), ESTALE);
	check_int(rig_pwrite(r, &w, "x", 1, 0), ESTALE);
	check(rig_ino(r, OWNED, "k") != w.ino, "another number");
	note_is(r, "new");
	rig_close(r, &w);
	rig_close(r, &f);
	rig_destroy(r);
	ok("an open file of a life that is over is stale; a path is not there");
}

/* Created, and finished by another before the caller is answered. */
static void test_life_brief(void)
{
	static const enum rig_dir dirs[] = {KEYS, SUBMIT};
	struct rig *r = rig_create_ready();

	r->ring->brief = true;
	for (size_t i = 0; i < 2; i++) {
		check_int(rig_create(r, r->dirs[dirs[i]], "k", O_RDWR), 0);
		struct rig_file f = r->file;

		is_stale(r, &f);
		check_int(rig_chmod(r, f.ino, 0644), ENOENT);
		/* Else the kernel would create it again. */
		check_int(rig_getattr(r, f.ino), 0);
		check_int(rig_open(r, f.ino, O_RDONLY), ENOENT);
		rig_close(r, &f);
		check_int(rig_getattr(r, f.ino), ESTALE);
		check_int(rig_mknod(r, r->dirs[dirs[i]], "k", S_IFREG | 0644),
			  0);
		check(!rig_has(r, KEYS, "k"), "gone");
	}
	r->ring->brief = false;
	check_int(rig_create(r, r->dirs[KEYS], "k", O_RDWR), 0);
	struct rig_file f = r->file;

	fake_end(r->ring, "k");
	check_int(rig_getattr(r, f.ino), 0);
	is_stale(r, &f);
	rig_close(r, &f);
	rig_destroy(r);
	ok("what is over before its creation is answered is a stale file");
}

static void test_token_passed(void)
{
	struct rig *r = with_note("x");
	struct rig_file w = open_in(r, OWNED, "k", O_RDWR);

	fake_pass(r->ring, "k", RING_HELD, 1);
	is_stale(r, &w);
	check_int(rig_getattr(r, w.ino), 0);
	fake_pass(r->ring, "k", RING_HELD, 0);
	is_stale(r, &w);
	rig_close(r, &w);
	w = open_in(r, OWNED, "k", O_RDWR);
	check_int(rig_pwrite(r, &w, "y", 1, 0), 0);
	/* Given back: the same token, and nobody's to write. */
	check_int(rig_rename(r, r->dirs[OWNED], "k", r->dirs[RECOVER], "k"), 0);
	check_int(rig_pwrite(r, &w, "z", 1, 0), ESTALE);
	check_int(rig_open(r, w.ino, O_WRONLY), EPERM);
	check(reads(r, &w, 0, "y"), "it may still be read");
	rig_close(r, &w);
	/* It passes while a write waits. */
	fake_pass(r->ring, "k", RING_HELD, 0);
	w = open_in(r, OWNED, "k", O_RDWR);
	r->slow = true;
	check_int(rig_pwrite(r, &w, "z", 1, 0), RIG_WAITS);
	fake_pass(r->ring, "k", RING_HELD, 1);
	rig_turn(r);
	check_int(rig_error(r, r->unique), ESTALE);
	note_is(r, "y");
	r->slow = false;
	rig_close(r, &w);
	rig_destroy(r);
	ok("a handle of a token that has passed is stale, before and in a "
	   "write");
}

/* rm and mv are of the life that was seen. */
static void test_changed_before_commit(void)
{
	struct rig *r = with_note("x");

	r->slow = true;
	check_int(rig_unlink(r, r->dirs[OWNED], "k"), RIG_WAITS);
	uint64_t first = r->unique;

	fake_end(r->ring, "k");
	fake_key(r->ring, "k", RING_HELD, 0, "new");
	rig_turn(r);
	check_int(rig_error(r, first), ENOENT);
	check_int(rig_rename(r, r->dirs[OWNED], "k", r->dirs[PARKED], "k"),
		  RIG_WAITS);
	fake_pass(r->ring, "k", RING_HELD, 1);
	rig_turn(r);
	check_int(rig_error(r, r->unique), ENOENT);
	note_is(r, "new");
	rig_destroy(r);
	ok("rm and mv of a life that changed before the commit are ENOENT");
}

/* ---- Who made it ---- */

static void test_creator(void)
{
	struct rig *r = rig_create_ready();

	check_int(rig_create(r, r->dirs[KEYS], "k", O_RDWR), 0);
	struct rig_file f = r->file;

	check_int(rig_pwrite(r, &f, "note", 4, 0), 0);
	check(reads(r, &f, 0, "note"), "through the handle that made it");
	check_int(rig_touch(r, f.ino), 0);
	check_int(rig_chmod(r, f.ino, 0600), 0);
	check_int(rig_resize(r, f.ino, 2, NULL), EEXIST);
	check_int(rig_resize(r, f.ino, 2, &f), 0);
	r->pid++;
	check_int(rig_touch(r, f.ino), EEXIST);
	check_int(rig_chmod(r, f.ino, 0600), EPERM);
	check_int(rig_open(r, f.ino, O_WRONLY), EEXIST);
	r->pid--;
	check_int(rig_open(r, f.ino, O_WRONLY), EEXIST);
	rig_close(r, &f);
	check_int(rig_touch(r, f.ino), EEXIST);
	r->boot_ms += 999;
	check_int(rig_chmod(r, f.ino, 0600), 0);
	check_int(rig_chown(r, f.ino, 4711), 0);
	r->boot_ms += 1;
	check_int(rig_chmod(r, f.ino, 0600), EPERM);
	check_int(rig_chown(r, f.ino, 4711), EPERM);
	r->pid = 0;
	check_int(rig_create(r, r->dirs[KEYS], "outside", O_WRONLY), 0);
	f = r->file;
	check_int(rig_touch(r, f.ino), EEXIST);
	rig_close(r, &f);
	rig_destroy(r);
	ok("the thread that made a key may touch it, chmod it for 1 s after");
}

/* ---- Texts ---- */

static void test_text_of_open(void)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "r", RING_RELEASING, 0, "");
	struct rig_file f = open_in(r, RELEASE, "r", O_RDONLY);

	r->ring->owners['r'] = 2;
	check(reads(r, &f, 0, "two\n") && reads(r, &f, 2, "o\n"), "%s",
	      r->bytes);
	rig_close(r, &f);
	check(rig_says(r, rig_ino(r, RELEASE, "r"), "three\n"), "%s", r->bytes);
	r->ring->owners['r'] = RING_NONE;
	check(rig_says(r, rig_ino(r, RELEASE, "r"), "\n"), "no heir");
	f = open_in(r, STATUS, "json", O_RDONLY);
	check_int(rig_pread(r, &f, 100000, 0), 0);
	size_t n = r->len;
	uint8_t *whole = memcpy(xmalloc(n), r->bytes, n);

	fake_key(r->ring, "more", RING_HELD, 0, "");
	read_in_pieces(r, &f, whole, n);
	free(whole);
	rig_close(r, &f);
	check_int(rig_open(r, f.ino, O_WRONLY), EPERM);
	rig_destroy(r);
	ok("a text is that of the moment of its open, in pieces of any size");
}

/* ---- ctl ---- */

static int ctl_write(struct rig *r, const struct rig_file *f, const char *s)
{
	return rig_pwrite(r, f, s, strlen(s), 0);
}

static void test_ctl_lines(void)
{
	struct rig *r = rig_create_ready();
	struct rig_file f = open_in(r, ROOT, "ctl", O_WRONLY);

	check_int(ctl_write(r, &f, "claim a\ncla"), 0);
	check_int(ctl_write(r, &f, "im b\nsubmit c\n"), 0);
	check_int(r->n_written, 14);
	check(fake_get(r->ring, "a") && fake_get(r->ring, "b"), "claimed");
	check_int(fake_get(r->ring, "c")->submitting, 0);
	check_int(ctl_write(r, &f, "claim d\nclaim a\nclaim e\n"), EEXIST);
	check(fake_get(r->ring, "d") && !fake_get(r->ring, "e"), "the rest");
	check_int(ctl_write(r, &f, "claim remote\n"), EREMOTE);
	check_int(ctl_write(r, &f, "dance\n"), EINVAL);
	check_int(ctl_write(r, &f, "claim .a\n"), EINVAL);
	check_int(ctl_write(r, &f, "finish a\nfinish nothing\n"), ENOENT);
	check(!fake_get(r->ring, "a"), "finished");
	r->uid = 2000;
	check_int(ctl_write(r, &f, "finish b\n"), EPERM);
	rig_close(r, &f);
	rig_destroy(r);
	ok("ctl takes lines in any pieces and stops at the first refusal");
}

static void test_ctl_batch(void)
{
	struct rig *r = rig_create_ready();
	struct rig_file f = open_in(r, ROOT, "ctl", O_RDWR);
	size_t before = r->ring->n_submitted;

	check_int(rig_pread(r, &f, 4096, 0), 0);
	check(r->len > 0, "the help");
	check_int(ctl_write(r, &f, "claim\na\nremo"), 0);
	check_int(ctl_write(r, &f, "te\n.x\nb"), 0);
	check_int(rig_pread(r, &f, 7, 0), 0);
	check(r->len == 7 && memcmp(r->bytes, "ok a\nER", 7) == 0, "%s",
	      r->bytes);
	check(reads(r, &f, 0, "EMOTE remote\nEINVAL .x\nok b\n"), "%s",
	      r->bytes);
	check_int(r->ring->n_submitted, before + 1);
	check_int(ctl_write(r, &f, "finish nothing\n"), 0);
	check(reads(r, &f, 0, "ENOENT nothing\n"), "%s", r->bytes);
	check_int(ctl_write(r, &f, "claim\n.x\n.y\n"), 0);
	check(reads(r, &f, 0, "EINVAL .x\nEINVAL .y\n"), "%s", r->bytes);
	check_int(ctl_write(r, &f, "dance\n"), 0);
	check_int(rig_pread(r, &f, 4096, 0), EINVAL);
	check_int(rig_pwrite(r, &f, "claim\nc\nd\0", 10, 0), 0);
	check_int(rig_pread(r, &f, 4096, 0), 0);
	check(r->len == 7 && memcmp(r->bytes, "ok c\nd\0", 7) == 0, "%s",
	      r->bytes);
	r->ring->refuse = -EROFS;
	check_int(ctl_write(r, &f, "claim\ne\n"), 0);
	check_int(rig_pread(r, &f, 4096, 0), EROFS);
	r->ring->refuse = 0;
	check_int(ctl_write(r, &f, "claim\nlost\n"), 0);
	rig_close(r, &f);
	check(!fake_get(r->ring, "lost"), "never read");
	rig_destroy(r);
	ok("ctl carries out a batch as one commit at the first read");
}

/* Lines over what batch.c takes, and ends in the middle of one. */
static void test_ctl_limits(void)
{
	static char big[5000];
	struct rig *r = rig_create_ready();
	struct rig_file f = open_in(r, ROOT, "ctl", O_WRONLY);

	memset(big, 'x', sizeof(big));
	check_int(rig_pwrite(r, &f, big, sizeof(big), 0), EINVAL);
	check_int(ctl_write(r, &f, "claim a\nclaim b"), 0);
	rig_close(r, &f);
	check(fake_get(r->ring, "a") && !fake_get(r->ring, "b"), "no newline");
	f = open_in(r, ROOT, "ctl", O_RDWR);
	check_int(rig_pwrite(r, &f, big, sizeof(big), 0), 0);
	check_int(rig_pread(r, &f, 4096, 0), EINVAL);
	check_int(ctl_write(r, &f, "claim\nc\n"), 0);
	check(reads(r, &f, 0, "ok c\n"), "it begins anew");
	rig_close(r, &f);
	rig_destroy(r);
	ok("ctl refuses what is too long, and goes on");
}

/* The handle of a submission when its key is finished first. */
static void test_submission_over(void)
{
	struct rig *r = rig_create_ready();

	check_int(rig_create(r, r->dirs[SUBMIT], "a", O_WRONLY), 0);
	struct rig_file a = r->file;

	check_int(rig_create(r, r->dirs[SUBMIT], "k", O_WRONLY), 0);
	struct rig_file k = r->file;

	check_int(rig_open(r, k.ino, O_RDONLY), ENOENT);
	check_int(rig_open(r, k.ino, O_WRONLY), EEXIST);
	check_int(rig_unlink(r, r->dirs[KEYS], "k"), 0);
	check_int(rig_pwrite(r, &k, "x", 1, 0), ESTALE);
	check_int(rig_getattr(r, k.ino), 0);
	r->slow = true;
	rig_close(r, &k);
	rig_close(r, &a);
	check_int(rig_create(r, r->dirs[SUBMIT], "b", O_WRONLY), RIG_WAITS);
	rig_turn(r);
	struct rig_file b = r->file;

	rig_close(r, &b);
	rig_turn(r);
	check(rig_has(r, RECOVER, "a") && rig_has(r, RECOVER, "b") &&
		      !rig_has(r, KEYS, "k"),
	      "what is left is offered");
	rig_destroy(r);
	ok("a submission that is finished before its close is not offered");
}

int main(int argc, char **argv)
{
	seed = check_seed(argc, argv);
	test_pieces();
	test_truncation();
	test_two_handles();
	test_flags();
	test_life_over();
	test_life_brief();
	test_token_passed();
	test_changed_before_commit();
	test_creator();
	test_text_of_open();
	test_ctl_lines();
	test_ctl_batch();
	test_ctl_limits();
	test_submission_over();
	return 0;
}
