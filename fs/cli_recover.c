/* SPDX-License-Identifier: MIT */
/* recover-quorum: the last resort. Unlike all other verbs it works on the state
 * of a node whose daemon does not run.
 *
 *   locked -> log and store read -> said what is known
 *      the only voter already -> nothing to recover (1)
 *      not told to -> what to do first (1)
 *      told to -> one lease is waited for -> recovered (0)
 *
 * The wait is before the write, so that whoever starts afterwards, in whatever
 * way this has ended, starts when no survivor shows a key any more: since the
 * majority was lost no lease has been granted (holes.md 22). */
#include "fs/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "fs/state.h"
#include "fs/util.h"
#include "ring/ring.h"

#define YES "--yes-lose-what-only-they-had"

static const char recover_help[] =
	"Usage: ringfs recover-quorum --state DIR [OPTION]...\n"
	"When a majority of the voters is lost for good: make the one node\n"
	"whose state is in DIR the only voter, so that the cluster goes on\n"
	"from what its log has. What only the lost voters had is lost, though\n"
	"it was acknowledged. The daemon must not run. Without the long "
	"option\n"
	"it only says what it knows, and changes nothing.\n"
	"\n"
	"Do it on ONE of the nodes that are left: on the one with the highest\n"
	"term, and among these with the highest index. All others that are\n"
	"left must be stopped, their state removed, and started with --join.\n"
	"\n"
	"Options:\n"
	"      --state DIR    the state of the node\n"
	"      --yes-lose-what-only-they-had\n"
	"                     do it\n"
	"  -h, --help         show this text\n"
	"\n"
	"Exit status: 0 done; 1 nothing was done: it was not told to, or "
	"there\n"
	"is nothing to recover; 64 usage; 71 the system refused; 77\n"
	"permission; 78 its daemon runs, or the state is damaged or none.\n"
	"\n"
	"Examples:\n"
	"  ringfs recover-quorum --state /var/lib/ringfs\n"
	"  for host in a b c; do\n"
	"    ssh $host ringfs recover-quorum --state /var/lib/ringfs |\n"
	"      sed -n \"s/^term and index: /$host /p\"\n"
	"  done | sort -k2,2n -k3,3n | tail -n 1\n"
	"  ringfs recover-quorum --state /var/lib/ringfs \\\n"
	"    --yes-lose-what-only-they-had\n";

static int status_of(int rc)
{
	switch (rc) {
	case 0:
		return EX_OK;
	case -EACCES:
	case -EPERM:
		return EX_NOPERM;
	case -EIO:
	case -ENOSPC:
		return EX_OSERR;
	default:
		return EX_CONFIG;
	}
}

/* ---- What is known ---- */

static void show_time(uint64_t us)
{
	time_t s = (time_t)(us / 1000000);
	char text[64];
	struct tm tm;

	if (us == 0 || localtime_r(&s, &tm) == NULL ||
	    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &tm) == 0)
		return;
	printf("last written: %s\n", text);
}

static void show_server(const struct ring_server *s)
{
	printf("server: ");
	if (s->name[0] != '\0')
		printf("%s", s->name);
	else
		for (size_t i = 0; i < sizeof(s->id.byte); i++)
			printf("%02x", s->id.byte[i]);
	printf(", %s, %" PRIu32 " keys: %s\n",
	       s->role == RING_ROLE_VOTER ? "votes" : "does not vote",
	       s->n_keys, s->is_self ? "stays, this is it" : "is dropped");
}

static void show(const struct state *s, const struct ring_log *log)
{
	printf("state: %s\n", s->dir);
	printf("term and index: %" PRIu64 " %" PRIu64 "\n", log->term,
	       log->index);
	show_time(log->written_us);
	printf("generation: %" PRIu32 "\n", log->generation);
	printf("keys: %zu\n", log->n_keys);
	printf("voters: %zu\n", log->n_voters);
	for (size_t i = 0; i < log->n_servers; i++)
		show_server(&log->servers[i]);
}

static bool is_alone(const struct ring_log *log)
{
	for (size_t i = 0; i < log->n_servers; i++)
		if (log->servers[i].role == RING_ROLE_VOTER &&
		    !log->servers[i].is_self)
			return false;
	return true;
}

static void show_way(void)
{
	fputs("ringfs: recover-quorum: nothing was changed. Only when a "
	      "majority of these voters will never come back:\n"
	      "1. Stop every node that is left.\n"
	      "2. Run this on each, and compare 'term and index': the highest "
	      "term wins, among equal ones the highest index.\n"
	      "3. On that ONE node, run it with "
	      "--yes-lose-what-only-they-had. Operations that were "
	      "acknowledged but are not in its log are lost. Then start it.\n"
	      "4. On all others, remove the state, and start with --join.\n",
	      stderr);
}

/* ---- Doing it ---- */

/* What a lease may last, and the leader's margin for the drift of clocks. */
static void wait_lease(const struct ring_log *log)
{
	uint64_t ms = (uint64_t)log->lease_ms + log->lease_ms / 10;
	uint64_t end = boot_ms() + ms;

	fprintf(stderr,
		"ringfs: recover-quorum: waiting %" PRIu64
		" ms, until no node that is left shows a key by its lease\n",
		ms);
	for (uint64_t now = boot_ms(); now < end; now = boot_ms())
		poll(NULL, 0, (int)(end - now));
}

static int recover(const struct state *s, const struct ring_log *log,
		   char errmsg[RING_ERRMSG_SIZE])
{
	wait_lease(log);
	int rc = ring_recover(s->dir, &s->cluster, &s->node, errmsg);
	if (rc == 0)
		rc = state_unmark_left(s, errmsg);
	if (rc != 0)
		return rc;
	printf("recovered: generation %" PRIu32 "; start this node, remove the "
	       "state of all others, and let them join\n",
	       log->generation + 1);
	return 0;
}

static int run(const char *verb, const struct state *s, bool is_told)
{
	char errmsg[RING_ERRMSG_SIZE];
	struct ring_log log;
	int rc = ring_look(s->dir, &s->cluster, &s->node, &log, errmsg);
	int status = 1;

	if (rc != 0)
		goto failed;
	show(s, &log);
	if (is_alone(&log)) {
		cli_say(verb, "there is nothing to recover: no other node "
			      "votes; just start this one");
		if (is_told)
			rc = state_unmark_left(s, errmsg);
	} else if (!is_told) {
		show_way();
	} else {
		rc = recover(s, &log, errmsg);
		status = 0;
	}
	ring_log_finish(&log);
	if (rc == 0)
		return status;
failed:
	cli_say(verb, "%s", errmsg);
	return status_of(rc);
}

int cli_recover(int argc, char **argv)
{
	static const struct option longs[] = {
		{"state", required_argument, NULL, 's'},
		{"yes-lose-what-only-they-had", no_argument, NULL, 'y'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	char errmsg[RING_ERRMSG_SIZE], dir[PATH_MAX];
	const char *given = NULL;
	bool is_told = false;
	struct state state;
	int c;

	while ((c = cli_next(argc, argv, "h", longs, recover_help)) >= 0)
		if (c == 's')
			given = optarg;
		else if (strcmp(argv[optind - 1], YES) == 0)
			is_told = true;
		else
			cli_usage(argv[0], "write " YES " in full");
	if (optind < argc)
		cli_usage(argv[0], "'%s': no argument is wanted", argv[optind]);
	if (given == NULL || given[0] == '\0')
		cli_usage(argv[0], "--state DIR is missing");
	/* What cannot be resolved cannot be opened either. */
	int rc = state_look(realpath(given, dir) != NULL ? dir : given, &state,
			    errmsg);
	if (rc < 0) {
		cli_say(argv[0], "%s", errmsg);
		return status_of(rc);
	}
	int status = run(argv[0], &state, is_told);
	state_close(&state);
	return status;
}
