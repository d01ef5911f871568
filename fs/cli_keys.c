/* SPDX-License-Identifier: MIT */
/* claim, finish, submit: what changes keys. claim and finish are one batch of ctl
 * each, so that however many names are one commit. */
#include "fs/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/batch.h"
#include "fs/text.h"
#include "fs/util.h"
#include "ring/ring.h"

static const char claim_help[] =
	"Usage: ringfs claim [OPTION]... K...\n"
	"Claim keys for this node, as 'touch keys/K' does, in one commit.\n"
	"Each is claimed or not for itself; stderr says why not.\n"
	"\n"
	"Options:\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"A name that begins with a dash goes behind --.\n"
	"\n"
	"Exit status (with several keys: the highest): 0 claimed;\n"
	"1 claimed already, or another node's to claim; 64 usage;\n"
	"69 no daemon; 71 the system refused; 75 try again (no majority, or\n"
	"outcome unknown: look again); 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs claim order-42 && ship order-42 && ringfs finish order-42\n"
	"  ringfs claim order-{1..1000}\n"
	"  ls inbox | xargs ringfs claim --\n";

static const char finish_help[] =
	"Usage: ringfs finish [OPTION]... K...\n"
	"Finish keys that this node holds, as 'rm keys/K' does, in one\n"
	"commit.\n"
	"\n"
	"Options:\n"
	"      --token T      only in the life with token T, as 'show' has\n"
	"                     it; takes one key\n"
	"      --force        whichever node holds them: each is asked to let\n"
	"                     go of its own, and stops what works on it; and "
	"a\n"
	"                     key that is gone already counts as finished\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"A name that begins with a dash goes behind --.\n"
	"\n"
	"Exit status (with several keys: the highest): 0 finished; 1 there\n"
	"is no such key or life, or it is another node's; 64 usage;\n"
	"69 no daemon; 71 the system refused; 75 try again (no majority, its\n"
	"holder is not reached, or outcome unknown: look again);\n"
	"77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs finish order-42\n"
	"  ringfs finish --token 17 order-42\n"
	"  ringfs finish --force order-{1..1000}\n";

static const char submit_help[] =
	"Usage: ringfs submit [OPTION]... K\n"
	"Add the key K, from any node, for its ring owner to work on: there\n"
	"it appears in recover/.\n"
	"\n"
	"Options:\n"
	"      --note TEXT    the key's note, at most 65536 bytes\n"
	"      --note-file F  the note from file F, or from stdin if F is -\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"A name that begins with a dash goes behind --.\n"
	"\n"
	"Exit status: 0 added; 1 there is such a key already; 64 usage, or\n"
	"the note is too long; 69 no daemon; 71 the system refused; 75 try\n"
	"again (no majority, or outcome unknown: look again);\n"
	"77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs submit order-42\n"
	"  ringfs submit --note 'card charged' order-42\n"
	"  cat order-42.txt | ringfs submit --note-file - order-42\n";

/* ---- Why not ---- */

static void add_fact(struct text *hint, int rc, const char *before,
		     const struct text *fact, const char *after)
{
	if (rc < 0 || fact->len == 0)
		return;
	struct text s = {0};
	text_add(&s, fact->base, fact->len);
	text_add(&s, "", 1);
	s.base[strcspn(s.base, "\n")] = '\0';
	char *shown = cli_printable(s.base);
	text_printf(hint, " (%s%s%s)", before, shown, after);
	free(shown);
	text_finish(&s);
}

/* More about rc, from the tree, if it has more to say. Begins with a space. */
static void find_hint(int dir_fd, const char *key, int rc, bool is_claim,
		      struct text *hint)
{
	struct text fact = {0};
	int got;

	switch (-rc) {
	case EREMOTE:
		if (is_claim) {
			got = cli_read_route(dir_fd, key, &fact);
			add_fact(hint, got, "", &fact, " is its ring owner");
			break;
		}
		/* fall through */
	case EEXIST:
		got = cli_read_xattr(dir_fd, key, "holder", &fact);
		add_fact(hint, got, "held by ", &fact, "");
		if (got == 0 && fact.len == 0) { /* parked, say */
			got = cli_read_xattr(dir_fd, key, "state", &fact);
			add_fact(hint, got, "", &fact, "");
		}
		break;
	case EAGAIN:
	case EROFS:
		got = cli_read_file(dir_fd, "status/reason", &fact);
		add_fact(hint, got, "", &fact, "");
		break;
	case ETIMEDOUT:
		text_puts(hint, " (outcome unknown, look again)");
		break;
	case EHOSTUNREACH:
		got = cli_read_xattr(dir_fd, key, "holder", &fact);
		add_fact(hint, got, "nothing was done; held by ", &fact, "");
		break;
	}
	text_finish(&fact);
}

static int refused(const struct cli_mount *m, const char *verb, const char *key,
		   int rc)
{
	struct text hint = {0};

	find_hint(m->fd, key, rc, strcmp(verb, "claim") == 0, &hint);
	text_add(&hint, "", 1);
	int status = cli_refused(verb, key, rc, hint.base);
	text_finish(&hint);
	return status;
}

/* ---- A batch ---- */

/* Write what is asked to ctl and read what is answered. */
static int converse(const struct cli_mount *m, const struct text *ask,
		    struct text *answer)
{
	char piece[65536];
	ssize_t n;
	int fd = openat(m->fd, "ctl", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int rc = write_all(fd, ask->base, ask->len);
	while (rc == 0 && (n = read(fd, piece, sizeof(piece))) != 0)
		if (n > 0)
			text_add(answer, piece, (size_t)n);
		else if (errno != EINTR)
			rc = -errno;
	close(fd);
	return rc;
}

/* The negative errno for "EEXIST" or "ok" in n bytes. */
static int rc_of_word(const char *word, size_t n)
{
	for (int err = 0; err < 256; err++) {
		const char *name = batch_errno_name(err);
		/* EIO also stands for what has no name. */
		if (strlen(name) == n && memcmp(name, word, n) == 0 &&
		    (err == EIO || strcmp(name, "EIO") != 0))
			return -err;
	}
	return -EIO;
}

/* The answer in the record at *at, which moves on. */
static int next_answer(const struct text *answer, size_t *at)
{
	const char *p = answer->base + *at, *space;
	size_t left = answer->len - *at;
	const char *end = left == 0 ? NULL : memchr(p, '\0', left);

	if (end == NULL)
		return -EIO; /* it ended too early */
	*at += (size_t)(end + 1 - p);
	space = memchr(p, ' ', (size_t)(end - p));
	return rc_of_word(p, (size_t)((space == NULL ? end : space) - p));
}

struct batch_of {
	const char *verb;
	const char *token; /* of finish-at, force-at; then keys is one */
	bool force;
};

/* Is there no such key? One with another token is there. */
static bool is_gone(const struct cli_mount *m, const char *key)
{
	char *path = xasprintf("keys/%s", key);
	int rc = faccessat(m->fd, path, F_OK, AT_SYMLINK_NOFOLLOW);
	bool gone = rc < 0 && errno == ENOENT;

	free(path);
	return gone;
}

/* All keys in one batch. Gives the exit status. */
static int run_batch(const struct cli_mount *m, const struct batch_of *b,
		     char *const *keys, size_t n)
{
	struct text ask = {0}, answer = {0};
	size_t at = 0;
	int status = EX_OK;

	const char *word = b->force ? "force" : b->verb;

	if (b->token != NULL)
		text_printf(&ask, "%s-at %s ", word, b->token);
	else
		text_add(&ask, word, strlen(word) + 1);
	for (size_t i = 0; i < n; i++)
		text_add(&ask, keys[i], strlen(keys[i]) + 1);
	int all = converse(m, &ask, &answer);
	for (size_t i = 0; i < n; i++) {
		int rc = all < 0 ? all : next_answer(&answer, &at);
		if (rc == -ENOENT && b->force && is_gone(m, keys[i]))
			rc = 0;
		if (rc == 0)
			continue;
		int s = rc == -ENOENT && b->token != NULL
				? cli_refused(b->verb, keys[i], rc,
					      " (no life with that token)")
				: refused(m, b->verb, keys[i], rc);
		status = s > status ? s : status;
	}
	text_finish(&ask);
	text_finish(&answer);
	return status;
}

static int find_and_run(const struct batch_of *b, const char *given,
			char *const *keys, int n)
{
	struct cli_mount m;

	if (n < 1)
		cli_usage(b->verb, "the name of a key is missing");
	for (int i = 0; i < n; i++)
		cli_check_key(b->verb, keys[i]);
	int rc = cli_mount_find(b->verb, given, &m);
	if (rc != 0)
		return rc;
	rc = run_batch(&m, b, keys, (size_t)n);
	cli_mount_finish(&m);
	return rc;
}

int cli_claim(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct batch_of b = {.verb = argv[0]};
	const char *given = NULL;

	while (cli_next(argc, argv, "m:h", longs, claim_help) >= 0)
		given = optarg;
	return find_and_run(&b, given, argv + optind, argc - optind);
}

static void check_token(const char *verb, const char *s)
{
	size_t n = strspn(s, "0123456789");

	if (n == 0 || n > 20 || s[n] != '\0' || s[0] == '0')
		cli_usage(verb, "--token %s: must be a number, as in 'show'",
			  s);
}

int cli_finish(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"token", required_argument, NULL, 't'},
		{"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct batch_of b = {.verb = argv[0]};
	const char *given = NULL;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, finish_help)) >= 0) {
		if (c == 'm')
			given = optarg;
		if (c == 't')
			b.token = optarg;
		b.force |= c == 'f';
	}
	if (b.token != NULL) {
		check_token(argv[0], b.token);
		if (argc - optind != 1)
			cli_usage(argv[0], "--token takes one key");
	}
	return find_and_run(&b, given, argv + optind, argc - optind);
}

/* ---- submit ---- */

/* The note from the file at path, or stdin. Exits if it cannot be. */
static void read_note(const char *verb, const char *path, struct text *out)
{
	bool is_stdin = strcmp(path, "-") == 0;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	char piece[4096];
	ssize_t n = 1;

	while (fd >= 0 && n != 0 && out->len <= RING_NOTE_MAX) {
		n = read(fd, piece, sizeof(piece));
		if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			text_add(out, piece, (size_t)n);
	}
	if (fd < 0 || n < 0) {
		cli_say(verb, "--note-file %s: %s", path, strerror(errno));
		exit(EX_OSERR);
	}
	if (!is_stdin)
		close(fd);
}

static int submit(const struct cli_mount *m, const char *verb, const char *key,
		  const struct text *note)
{
	char *path = xasprintf("submit/%s", key);
	int fd = openat(m->fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
			0644);
	int rc = fd < 0 ? -errno : 0;

	free(path);
	if (rc < 0)
		return refused(m, verb, key, rc);
	/* One write is one commit. */
	rc = write_all(fd, note->base, note->len);
	if (close(fd) < 0 && rc == 0)
		rc = -errno;
	if (rc == 0)
		return EX_OK;
	return cli_refused(verb, key, rc,
			   " (the key was added, its note may be missing)");
}

int cli_submit(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"note", required_argument, NULL, 'n'},
		{"note-file", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const char *given = NULL, *text = NULL, *file = NULL;
	struct text note = {0};
	struct cli_mount m;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, submit_help)) >= 0)
		*(c == 'm' ? &given : c == 'n' ? &text : &file) = optarg;
	if (argc - optind != 1)
		cli_usage(argv[0], "the name of one key is wanted");
	if (text != NULL && file != NULL)
		cli_usage(argv[0], "--note and --note-file are both given");
	cli_check_key(argv[0], argv[optind]);
	if (text != NULL)
		text_puts(&note, text);
	if (file != NULL)
		read_note(argv[0], file, &note);
	if (note.len > RING_NOTE_MAX)
		cli_usage(argv[0], "the note is longer than %d bytes",
			  RING_NOTE_MAX);
	int rc = cli_mount_find(argv[0], given, &m);
	if (rc == 0) {
		rc = submit(&m, argv[0], argv[optind], &note);
		cli_mount_finish(&m);
	}
	text_finish(&note);
	return rc;
}
