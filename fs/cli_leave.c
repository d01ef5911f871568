/* SPDX-License-Identifier: MIT */
/* leave: who goes, with the others' consent or by force. The daemon does it; here
 * it is waited for, and taken back when it lasts too long. */
#include "fs/cli.h"
#include "fs/cli_daemon.h"
#include "fs/cli_nodes.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "fs/text.h"
#include "fs/util.h"

#define LEAVE_S	     30
#define LOOK_MS	     200
#define ASK_MS	     2000
#define EXIT_TIMEOUT 124

static const char leave_help[] =
	"Usage: ringfs leave [OPTION]...\n"
	"Leave the cluster: this node claims and owns nothing any more, and "
	"its\n"
	"workers go on until the others do without its vote; then what it "
	"holds\n"
	"goes to its heirs, it is unmounted, and its daemon ends. The state "
	"is\n"
	"kept: mounted again, the node is a member again.\n"
	"If that is not so in time, it stays as it was; 'ringfs resume' takes "
	"it\n"
	"back before. The last node stays while keys are unfinished.\n"
	"\n"
	"Options:\n"
	"      --timeout S    wait so many seconds, 1 to 86400 (default: 30)\n"
	"      --force        go in any case: as the last one, or when no\n"
	"                     majority confirms it for 5 s. Says what that\n"
	"                     costs\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 done; 1 it stays: it is the last one, or was told to\n"
	"resume; 64 usage; 69 no daemon; 71 the system refused; 77 "
	"permission;\n"
	"124 not in time: it stays, or, by force, the daemon still runs.\n"
	"\n"
	"Examples:\n"
	"  ringfs leave\n"
	"  ringfs leave --timeout 5 -m /srv/ring || ringfs status\n"
	"  ringfs drain --wait && ringfs leave && rm -r /var/lib/ringfs\n";

struct leave {
	const char *verb;
	struct cli_mount m;
	struct cli_daemon d;
	uint32_t timeout_s;
	bool force;
};

/* status/json; NULL: the daemon does not answer, or not any more. */
static json_t *look(const struct cli_mount *m)
{
	struct text text = {0};
	json_t *document = NULL;

	if (cli_ask_status(m, ASK_MS, &text) == 0)
		document = json_loadb(text.base, text.len, 0, NULL);
	text_finish(&text);
	return document;
}

static bool has_ended(const struct leave *l, int wait_ms)
{
	struct pollfd p = {.fd = l->d.fd, .events = POLLIN};

	return poll(&p, 1, wait_ms) > 0;
}

/* ---- What it costs ---- */

static bool is_other_alive(const json_t *document)
{
	const json_t *node;
	size_t i;

	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (!json_is_true(json_object_get(node, "self")) &&
		    strcmp(nodes_word(node, "state"), "alive") == 0)
			return true;
	}
	return false;
}

static void say_cost(const struct leave *l, const json_t *document)
{
	long long n_keys = nodes_number(document, "keys");

	if (n_keys > 0 && !is_other_alive(document))
		cli_say(l->verb,
			"no other node is there: %lld unfinished keys are in "
			"this node's state alone, keep it",
			n_keys);
	cli_say(l->verb,
		"unless a majority of the voters confirms it in 5 s, it goes "
		"all the same: then they count on its vote until it is removed "
		"there, bear one failure less, and this state is refused from "
		"then on, but by recover-quorum");
}

/* ---- How it ends ---- */

static int say_why(const struct leave *l, const json_t *document)
{
	cli_say(l->verb, "it stays: %s", nodes_word(document, "reason"));
	return 1;
}

static int end_late(const struct leave *l)
{
	json_t *document = look(&l->m);

	if (document == NULL || l->force ||
	    cli_write_ctl(l->m.fd, "stay") != 0) { /* it has left already */
		json_decref(document);
		return cli_daemon_wait(l->verb, &l->d, 1, "it leaves");
	}
	cli_say(l->verb,
		"not confirmed after %u s, so it stays: %s; --force goes "
		"without",
		l->timeout_s, nodes_word(document, "reason"));
	json_decref(document);
	return EXIT_TIMEOUT;
}

/* Until the daemon has ended, or is not leaving any more. */
static int wait_left(const struct leave *l)
{
	uint64_t end = boot_ms() + (uint64_t)l->timeout_s * 1000;

	if (l->d.fd < 0)
		return cli_daemon_wait(l->verb, &l->d, l->timeout_s,
				       "it leaves");
	while (!has_ended(l, LOOK_MS)) {
		json_t *document = look(&l->m);
		const char *state = nodes_word(document, "state");
		int rc = -1;

		if (document != NULL && strcmp(state, "leaving") != 0)
			rc = say_why(l, document);
		json_decref(document);
		if (rc >= 0)
			return rc;
		if (boot_ms() >= end)
			return end_late(l);
	}
	return EX_OK;
}

static int leave(struct leave *l)
{
	json_t *document = look(&l->m);

	if (l->force && document != NULL)
		say_cost(l, document);
	json_decref(document);
	int rc = cli_write_ctl(l->m.fd, l->force ? "leave force" : "leave");

	if (rc == -EBUSY && (document = look(&l->m)) != NULL) {
		rc = say_why(l, document);
		json_decref(document);
		return rc;
	}
	if (rc < 0)
		return cli_refused(l->verb, l->m.dir, rc, "");
	return wait_left(l);
}

int cli_leave(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"timeout", required_argument, NULL, 't'},
		{"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct leave l = {.verb = argv[0], .timeout_s = LEAVE_S};
	const char *given = NULL;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, leave_help)) >= 0)
		if (c == 'm')
			given = optarg;
		else if (c == 'f')
			l.force = true;
		else
			l.timeout_s = cli_parse_timeout(argv[0], optarg);
	if (optind < argc)
		cli_usage(argv[0], "'%s': no argument is wanted", argv[optind]);
	int rc = cli_mount_find(argv[0], given, &l.m);
	if (rc != EX_OK)
		return rc;
	cli_daemon_find(&l.m, &l.d);
	rc = leave(&l);
	cli_mount_finish(&l.m);
	cli_daemon_finish(&l.d);
	return rc;
}
