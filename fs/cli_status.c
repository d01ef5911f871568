/* SPDX-License-Identifier: MIT */
/* How the ring is. All of it comes from one reading of status/json, so that no
 * two lines speak of different instants. */
#include "fs/cli.h"
#include "fs/cli_nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/text.h"
#include "fs/util.h"

#define ASK_MS 5000 /* no answer for so long is `down` */

static const char help[] =
	"Usage: ringfs status [OPTION]...\n"
	"Say in one word how the ring is, then more, in lines of NAME VALUE:\n"
	"  ok         this node can write, and every member is there\n"
	"  degraded   it serves, but something is missing: see 'reason', or\n"
	"             'missing', which has a line for each member that is\n"
	"             suspected or dead\n"
	"  isolated   it reaches no majority: nothing can be changed\n"
	"  down       there is no ring, or its daemon does not answer\n"
	"\n"
	"Options:\n"
	"      --json         one JSON document, with the word in 'word'\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 ok; 1 degraded; 64 usage; 69 down; 71 the system\n"
	"refused; 75 isolated; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs status\n"
	"  ringfs status | head -n 1\n"
	"  ringfs status -m /srv/ring --json | jq .keys\n";

/* ---- Asking ---- */

static _Noreturn void ask(const struct cli_mount *m, int fd)
{
	struct text text = {0};
	int rc = cli_read_file(m->fd, "status/json", &text);
	ssize_t n = write(fd, &rc, sizeof(rc));

	for (size_t at = 0; n > 0 && at < text.len; at += (size_t)n)
		n = write(fd, text.base + at, text.len - at);
	_exit(0);
}

static int collect(int fd, uint64_t deadline, struct text *out)
{
	char piece[4096];

	for (;;) {
		uint64_t now = boot_ms();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (now >= deadline || poll(&p, 1, (int)(deadline - now)) == 0)
			return -ETIMEDOUT;
		ssize_t n = read(fd, piece, sizeof(piece));
		if (n == 0)
			return 0;
		if (n > 0)
			text_add(out, piece, (size_t)n);
		else if (errno != EINTR)
			return -errno;
	}
}

/* A request that a hung daemon has begun to serve cannot even be killed: then the
 * child is left to itself. */
static void end_child(pid_t child)
{
	kill(child, SIGKILL);
	for (int i = 0; i < 100 && waitpid(child, NULL, WNOHANG) == 0; i++)
		poll(NULL, 0, 2);
}

/* The reader is a child: one that waits for a stopped daemon can be killed, but
 * not interrupted. */
int cli_ask_status(const struct cli_mount *m, int wait_ms, struct text *out)
{
	struct text got = {0};
	int fds[2], rc;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	pid_t child = fork();
	if (child < 0) {
		rc = -errno;
		close(fds[0]);
		close(fds[1]);
		return rc;
	}
	if (child == 0)
		ask(m, fds[1]);
	close(fds[1]);
	rc = collect(fds[0], boot_ms() + (uint64_t)wait_ms, &got);
	close(fds[0]);
	end_child(child);
	if (rc == 0 && got.len < sizeof(rc))
		rc = -EIO; /* it was killed */
	else if (rc == 0)
		memcpy(&rc, got.base, sizeof(rc));
	if (rc == 0)
		text_add(out, got.base + sizeof(rc), got.len - sizeof(rc));
	text_finish(&got);
	return rc;
}

static int ask_document(const struct cli_mount *m, int wait_ms, json_t **out)
{
	struct text text = {0};
	int rc = cli_ask_status(m, wait_ms, &text);

	if (rc == 0) {
		*out = json_loadb(text.base == NULL ? "" : text.base, text.len,
				  0, NULL);
		if (*out == NULL)
			rc = -EBADMSG;
	}
	text_finish(&text);
	return rc;
}

int cli_daemon_pid(const struct cli_mount *m, int wait_ms, pid_t *out)
{
	json_t *document;
	int rc = ask_document(m, wait_ms, &document);

	if (rc < 0)
		return rc;
	*out = (pid_t)json_integer_value(json_object_get(document, "pid"));
	json_decref(document);
	return 0;
}

/* ---- Saying ---- */

static bool is_there(const json_t *node)
{
	const char *state = nodes_word(node, "state");

	return strcmp(state, "alive") == 0 || strcmp(state, "left") == 0;
}

static bool is_complete(const json_t *document)
{
	const json_t *node;
	size_t i;

	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (!is_there(node))
			return false;
	}
	return true;
}

static const char *word_of(const json_t *document)
{
	const char *state =
		json_string_value(json_object_get(document, "state"));

	if (state != NULL && strcmp(state, "isolated") == 0)
		return "isolated";
	if (state != NULL && strcmp(state, "ready") == 0 &&
	    json_is_true(json_object_get(document, "writable")) &&
	    is_complete(document))
		return "ok";
	return "degraded";
}

static int status_of_word(const char *word)
{
	switch (word[0]) {
	case 'o':
		return EX_OK;
	case 'd':
		return 1;
	default:
		return EX_TEMPFAIL;
	}
}

/* A line for each member that is not there. */
static void show_missing(const json_t *document)
{
	const json_t *node;
	size_t i;

	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (!is_there(node))
			printf("missing %s\n", nodes_word(node, "name"));
	}
}

/* The members of the document that stand alone. */
static void show_text(const json_t *document, const char *word, const char *dir)
{
	static const char *const names[] = {
		"name",	 "state",      "writable",  "reason", "leader",	 "keys",
		"owned", "recovering", "releasing", "parked", "version", "pid"};
	char *at = cli_printable(dir);

	printf("%s\nmount %s\n", word, at);
	free(at);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const json_t *v = json_object_get(document, names[i]);
		if (json_is_string(v))
			printf("%s %s\n", names[i], json_string_value(v));
		else if (json_is_integer(v))
			printf("%s %lld\n", names[i],
			       (long long)json_integer_value(v));
		else if (json_is_boolean(v))
			printf("%s %d\n", names[i], json_is_true(v));
	}
	printf("nodes %zu\n",
	       json_array_size(json_object_get(document, "nodes")));
	show_missing(document);
}

/* The document with the word in front. */
static void show_json(json_t *document, const char *word)
{
	json_t *all = json_pack("{s:s}", "word", word);

	if (all == NULL || json_object_update(all, document) < 0)
		abort(); /* untested: needs a machine out of memory */
	json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}

static int show_down(bool json)
{
	fputs(json ? "{\n  \"word\": \"down\"\n}\n" : "down\n", stdout);
	return EX_UNAVAILABLE;
}

static int show(const struct cli_mount *m, bool json)
{
	json_t *document;
	int rc = ask_document(m, ASK_MS, &document);

	if (rc < 0) {
		cli_say("status", "'%s': %s", m->dir,
			rc == -ETIMEDOUT  ? "the daemon does not answer"
			: rc == -ENOTCONN ? "the daemon is dead; mount again"
			: rc == -EBADMSG  ? "status/json is no JSON"
					  : strerror(-rc));
		int status = cli_status_of(rc);
		if (rc == -ETIMEDOUT || status == EX_UNAVAILABLE)
			return show_down(json);
		return status;
	}
	const char *word = word_of(document);
	if (json)
		show_json(document, word);
	else
		show_text(document, word, m->dir);
	json_decref(document);
	return status_of_word(word);
}

int cli_status(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const char *given = NULL;
	struct cli_mount m;
	bool json = false;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, help)) >= 0) {
		if (c == 'm')
			given = optarg;
		json |= c == 'j';
	}
	if (optind < argc)
		cli_usage(argv[0], "'%s': no argument is wanted", argv[optind]);
	int rc = cli_mount_find(argv[0], given, &m);
	if (rc == EX_UNAVAILABLE)
		return show_down(json);
	if (rc != 0)
		return rc;
	rc = show(&m, json);
	cli_mount_finish(&m);
	return rc;
}
