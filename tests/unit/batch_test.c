/* SPDX-License-Identifier: MIT */
/* The language of ctl, in pieces of every size. */
#include "fs/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ring/ring.h"
#include "tests/unit/check.h"

/* Feed n bytes in pieces of `piece`, reading all there is after each; gives a
 * line per item, "verb token name rc;", or the error. */
static char *read_all(bool whole, const char *bytes, size_t n, size_t piece)
{
	static const char *const words[] = {"claim", "submit", "finish",
					    "take",  "give",   "park"};
	struct batch b;
	struct batch_item item;
	struct text x = {0};
	int rc = 0;

	batch_init(&b, whole);
	for (size_t at = 0; rc == 0 && at <= n; at += piece) {
		size_t len = n - at < piece ? n - at : piece;
		rc = batch_feed(&b, bytes + at, len);
		if (rc == 0 && whole && at + piece > n)
			batch_end(&b);
		while (rc == 0 && (rc = batch_next(&b, &item)) == 1) {
			check_int(strlen(item.name) == item.len || item.rc, 1);
			text_printf(&x, "%s %llu ", words[item.verb],
				    (unsigned long long)item.token);
			text_add(&x, item.name, item.len);
			if (item.rc)
				text_printf(&x, " %s",
					    batch_errno_name(item.rc));
			text_puts(&x, ";");
			rc = 0;
		}
	}
	if (rc != 0)
		text_puts(&x, batch_errno_name(rc));
	text_add(&x, "", 1);
	batch_finish(&b);
	return x.base;
}

static void reads_n(bool whole, const char *bytes, size_t n, const char *want)
{
	for (size_t piece = 1; piece <= n + 1; piece++) {
		char *got = read_all(whole, bytes, n, piece);
		check(strcmp(got, want) == 0, "pieces of %zu: %s, want %s",
		      piece, got, want);
		free(got);
	}
}

#define reads(whole, bytes, want) reads_n(whole, bytes, sizeof(bytes) - 1, want)

static void test_lines(void)
{
	reads(false, "claim a\nsubmit b c\nfinish  d\nfinish-at 17 e\n",
	      "claim 0 a;submit 0 b c;finish 0  d;finish 17 e;");
	reads(false, "claim a\nclaim b", "claim 0 a;");
	reads(false, "", "");
	reads(false, "claim a\nclaim\nclaim b\n", "claim 0 a;EINVAL");
	reads(false, "drainage\n", "EINVAL");
	reads(false, "\n", "EINVAL");
	reads(false, "claima\n", "EINVAL");
	reads(false, "claim .a\nclaim a/b\nclaim \n",
	      "claim 0 .a EINVAL;claim 0 a/b EINVAL;claim 0  EINVAL;");
	struct batch b;
	struct batch_item item;
	batch_init(&b, false);
	check_int(batch_feed(&b, "claim a\0b\n", 10), 0);
	check_int(batch_next(&b, &item), 1);
	check_int(item.rc, -EINVAL);
	batch_finish(&b);
	ok("written lines are verbs, in pieces of every size");
}

static void test_tokens(void)
{
	reads(false, "finish-at 18446744073709551600 k\n",
	      "finish 18446744073709551600 k;");
	reads(false, "finish-at 18446744073709551616 k\n", "EINVAL");
	reads(false, "finish-at 0 k\n", "EINVAL"); /* 0 would mean any token */
	reads(false, "finish-at -1 k\n", "EINVAL");
	reads(false, "finish-at +1 k\n", "EINVAL");
	reads(false, "finish-at 1k\n", "EINVAL");
	reads(false, "finish-at 1\n", "EINVAL");
	reads(false, "finish-at k\n", "EINVAL");
	reads(false, "finish-at\n", "EINVAL");
	reads(false, "finish-at 1 \n", "finish 1  EINVAL;");
	reads(false, "take-at 3 k\ngive-at 4 k\npark-at 5 k l\n",
	      "take 3 k;give 4 k;park 5 k l;");
	reads(false, "give-at 0 k\n", "EINVAL");
	reads(false, "park-at k\n", "EINVAL");
	reads(false, "give k\n", "EINVAL"); /* that is mv's */
	ok("a token is a decimal number above 0");
}

static void test_whole(void)
{
	reads(true, "claim\na\nb c\nfinish\n",
	      "claim 0 a;claim 0 b c;"
	      "claim 0 finish;");
	reads(true, "submit\na\nb", "submit 0 a;submit 0 b;");
	reads(true, "finish\n", "");
	reads(true, "finish", "");
	reads(true, "", "");
	reads(true, "claim\na\n\n.b\nc",
	      "claim 0 a;claim 0  EINVAL;"
	      "claim 0 .b EINVAL;claim 0 c;");
	reads(true, "finish-at 3 a\nclaim b\n", "finish 3 a;claim 0 b;");
	reads(true, "finish-at\n3 a\n", "EINVAL");
	reads(true, "claim a\nclaim\nb\n", "claim 0 a;EINVAL");
	reads(true, "what\na\n", "EINVAL");
	ok("a whole batch is a bare verb and names, or verbs");
}

static void test_nuls(void)
{
	reads(true, "claim\na\nb\0c\0", "claim 0 a\nb;claim 0 c;");
	reads(true, "claim\0a\nb\0c", "claim 0 a\nb;claim 0 c;");
	reads(true, "claim\0a\nb", "claim 0 a\nb;");
	reads(true, "finish-at 3 a\nb\0finish-at 4 c\0",
	      "finish 3 a\nb;finish 4 c;");
	ok("one NUL makes all records NUL-separated");
}

static void test_answers(void)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *want;
		size_t n_want;
	} cases[] = {
		{"claim\na\nb", 9, "ok a\nEEXIST b\n", 14},
		{"claim\na\0b", 9, "ok a\0EEXIST b\0", 14},
	};

	for (size_t i = 0; i < 2; i++) {
		struct batch b;
		struct batch_item item;
		struct text x = {0};
		int rc = 0;
		batch_init(&b, true);
		batch_feed(&b, cases[i].bytes, cases[i].n);
		batch_end(&b);
		for (; batch_next(&b, &item) == 1; rc = -EEXIST)
			batch_answer(&b, &item, rc, &x);
		check_int(x.len, cases[i].n_want);
		check(memcmp(x.base, cases[i].want, x.len) == 0, "%zu", i);
		text_finish(&x);
		batch_finish(&b);
	}
	check(strcmp(batch_errno_name(EREMOTE), "EREMOTE") == 0, "EREMOTE");
	check(strcmp(batch_errno_name(-EROFS), "EROFS") == 0, "EROFS");
	check(strcmp(batch_errno_name(-12345), "EIO") == 0, "unknown");
	ok("answers end as the batch's records do");
}

static void test_limits(void)
{
	static char line[BATCH_LINE_MAX + 2];
	struct batch b;
	struct batch_item item;

	memset(line, 'x', sizeof(line));
	memcpy(line, "claim ", 6);
	batch_init(&b, false);
	check_int(batch_feed(&b, line, BATCH_LINE_MAX), 0);
	check_int(batch_next(&b, &item), 0);
	check_int(batch_feed(&b, "\n", 1), 0);
	check_int(batch_next(&b, &item), 1);
	check_int(item.rc, -ENAMETOOLONG);
	check_int(batch_feed(&b, line, BATCH_LINE_MAX + 1), -EINVAL);
	batch_reset(&b);
	line[BATCH_LINE_MAX + 1] = '\n';
	check_int(batch_feed(&b, line, BATCH_LINE_MAX + 2), 0);
	check_int(batch_next(&b, &item), -EINVAL);
	batch_reset(&b);

	line[6 + RING_NAME_MAX] = '\n';
	check_int(batch_feed(&b, line, 6 + RING_NAME_MAX + 1), 0);
	check_int(batch_next(&b, &item), 1);
	check_int(item.rc, 0);
	check_int(item.len, RING_NAME_MAX);
	batch_finish(&b);
	ok("a line over the limit is refused, a name over 255 bytes is named");
}

static void test_many(void)
{
	struct batch b;
	struct batch_item item;
	size_t n = 0;

	batch_init(&b, true);
	check_int(batch_feed(&b, "claim\n", 6), 0);
	for (size_t i = 0; i < BATCH_OPS_MAX; i++)
		check_int(batch_feed(&b, "kk\n", 3), 0);
	check_int(batch_feed(&b, "k\n", 2), -EFBIG);
	batch_reset(&b);
	check_int(batch_feed(&b, "claim\n", 6), 0);
	for (size_t i = 0; i < BATCH_OPS_MAX; i++)
		batch_feed(&b, "kk\n", 3);
	batch_end(&b);
	while (batch_next(&b, &item) == 1)
		n++;
	check_int(n, BATCH_OPS_MAX);
	batch_finish(&b);

	static char big[1 << 20]; /* records of 1 MiB: too many bytes first */
	int rc = 0;
	memset(big, 'k', sizeof(big));
	batch_init(&b, true);
	for (n = 0; rc == 0; n++)
		rc = batch_feed(&b, big, sizeof(big));
	check_int(rc, -EFBIG);
	check_int(n, BATCH_BYTES_MAX / (1 << 20) + 1);
	batch_finish(&b);
	ok("a batch has a limit in records and in bytes");
}

/* n items, of which every `bad`th can be no key. */
static struct batch_item *items_of(enum batch_verb verb, size_t n, size_t bad)
{
	struct batch_item *items = calloc(n, sizeof(*items));

	for (size_t i = 0; i < n; i++) {
		items[i].verb = verb;
		items[i].rc = bad != 0 && i % bad == 0 ? -EINVAL : 0;
	}
	return items;
}

/* The parts of n items, "items/operations", one after the other. */
static void cut_is(enum batch_verb verb, size_t n, size_t bad, const char *want)
{
	struct batch_item *items = items_of(verb, n, bad);
	struct text x = {0};
	size_t n_ops;

	for (size_t at = 0, part; at < n; at += part) {
		part = batch_part(items + at, n - at, &n_ops);
		check(part > 0 && n_ops <= RING_OPS_MAX, "%zu, %zu", part,
		      n_ops);
		text_printf(&x, "%zu/%zu ", part, n_ops);
	}
	text_add(&x, "", 1);
	check(strcmp(x.base, want) == 0, "%s, want %s", x.base, want);
	text_finish(&x);
	free(items);
}

static void test_parts(void)
{
	size_t n_ops = 7;

	check_int(RING_OPS_MAX, 4096); /* the numbers below */
	check_int(batch_part(NULL, 0, &n_ops), 0);
	check_int(n_ops, 0);
	cut_is(BATCH_CLAIM, 1, 0, "1/1 ");
	cut_is(BATCH_CLAIM, 4096, 0, "4096/4096 ");
	cut_is(BATCH_FINISH, 4097, 0, "4096/4096 1/1 ");
	cut_is(BATCH_PARK, 10000, 0, "4096/4096 4096/4096 1808/1808 ");
	cut_is(BATCH_SUBMIT, 2048, 0, "2048/4096 ");
	cut_is(BATCH_SUBMIT, 2049, 0, "2048/4096 1/2 ");
	/* What is refused already takes no room. */
	cut_is(BATCH_SUBMIT, 4097, 2, "4097/4096 ");
	cut_is(BATCH_CLAIM, 10000, 1, "10000/0 ");
	/* One that takes two does not fit behind 4095 that take one. */
	struct batch_item *items = items_of(BATCH_CLAIM, 4100, 0);
	items[4095].verb = BATCH_SUBMIT;
	check_int(batch_part(items, 4100, &n_ops), 4095);
	check_int(n_ops, 4095);
	check_int(batch_part(items + 4095, 5, &n_ops), 5);
	check_int(n_ops, 6);
	free(items);
	ok("a batch is cut where a request of the ring is full");
}

/* Bytes of a small alphabet: every piece size must give the same. */
static void test_random(uint64_t seed)
{
	static const char *const parts[] = {"claim", "finish-at", "submit",
					    " ",     "\n",	  "7",
					    "k",     ".",	  "finish"};

	for (int round = 0; round < 3000; round++) {
		struct text x = {0};
		bool whole = check_random(&seed) & 1;
		for (uint64_t n = check_random(&seed) % 24; n > 0; n--) {
			uint64_t i = check_random(&seed) % 10;
			if (i == 9)
				text_add(&x, "", 1);
			else
				text_puts(&x, parts[i]);
		}
		const char *bytes = x.base ? x.base : "";
		char *want = read_all(whole, bytes, x.len, x.len + 1);
		size_t piece = 1 + check_random(&seed) % (x.len + 1);
		char *got = read_all(whole, bytes, x.len, piece);
		check(strcmp(got, want) == 0, "%s, want %s", got, want);
		free(got);
		free(want);
		text_finish(&x);
	}
	ok("the size of the pieces never matters");
}

static void test_admin(void)
{
	static const char lines[] = "leave\nkey-add\nkey-add a/b c==\n"
				    "forget .n\nclaim\n";
	static const char *const want[][2] = {{"leave", ""},
					      {"key-add", ""},
					      {"key-add", "a/b c=="},
					      {"forget", ".n"}};
	struct batch b;
	struct batch_item item;
	size_t n_ops;

	batch_init(&b, false);
	check_int(batch_feed(&b, lines, strlen(lines)), 0);
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		check_int(batch_next(&b, &item), 1);
		check_int(item.verb, BATCH_ADMIN);
		check_int(item.rc, 0);
		check(strcmp(item.admin, want[i][0]) == 0, "%s", item.admin);
		check(strcmp(item.name, want[i][1]) == 0, "%s", item.name);
		check_int(item.len, strlen(item.name));
		check_int(batch_n_ops(&item), 0);
		check_int(batch_part(&item, 1, &n_ops), 1);
		check_int(n_ops, 0);
	}
	check_int(batch_next(&b, &item), -EINVAL); /* a key is missing */
	batch_finish(&b);

	/* No bare verb that names follow. */
	batch_init(&b, true);
	check_int(batch_feed(&b, "leave\nforget n\n", 15), 0);
	batch_end(&b);
	check_int(batch_next(&b, &item), 1);
	check(strcmp(item.admin, "leave") == 0, "%s", item.admin);
	check_int(batch_next(&b, &item), 1);
	check(strcmp(item.name, "n") == 0, "%s", item.name);
	check_int(batch_next(&b, &item), 0);
	batch_finish(&b);
	ok("verbs about the node take what follows as it is, or nothing");
}

static void test_help(void)
{
	struct text x = {0};

	batch_help(&x);
	text_add(&x, "", 1);
	static const char *const usages[] = {
		"claim K ",	"submit K ",	"finish K ",   "finish-at T K ",
		"take-at T K ", "give-at T K ", "park-at T K "};
	for (size_t i = 0; i < sizeof(usages) / sizeof(usages[0]); i++)
		check(strstr(x.base, usages[i]), "%s: %s", usages[i], x.base);
	text_finish(&x);
	ok("the help has a line per verb");
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	test_lines();
	test_tokens();
	test_whole();
	test_nuls();
	test_answers();
	test_limits();
	test_many();
	test_parts();
	test_random(seed);
	test_admin();
	test_help();
	return 0;
}
