/* SPDX-License-Identifier: MIT */
/* drain, resume: whether this node owns a part of the ring. */
#include "fs/cli.h"
#include "fs/cli_daemon.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "fs/text.h"
#include "fs/util.h"

#define LOOK_MS	     100
#define EXIT_TIMEOUT 124

static const char drain_help[] =
	"Usage: ringfs drain [OPTION]...\n"
	"Let this node own nothing and claim nothing, on the way to taking it\n"
	"out of service: its parts of the ring go to the others, and creating\n"
	"says 'Read-only file system'. It works on what it holds, and is a\n"
	"member and a voter as before. Until 'ringfs resume', or a restart.\n"
	"\n"
	"Options:\n"
	"      --wait         wait until it holds nothing any more, in owned/\n"
	"                     and recover/\n"
	"      --timeout S    wait so many seconds at most, 1 to 86400\n"
	"                     (default: no limit)\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 done; 64 usage; 69 no daemon; 71 the system refused;\n"
	"77 permission; 124 it drains, but still holds something.\n"
	"\n"
	"Examples:\n"
	"  ringfs drain\n"
	"  ringfs drain --wait && ringfs leave\n"
	"  ringfs drain --wait --timeout 600 || ls owned recover\n";

static const char resume_help[] =
	"Usage: ringfs resume [OPTION]...\n"
	"Let this node own its part of the ring, and claim, again: after\n"
	"'ringfs drain'.\n"
	"\n"
	"Options:\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 done; 64 usage; 69 no daemon; 71 the system refused;\n"
	"77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs resume\n"
	"  ringfs resume -m /srv/ring\n"
	"  ringfs resume && cat status/state\n";

/* The number in status/NAME; or a negative errno. */
static long read_count(const struct cli_mount *m, const char *path)
{
	struct text text = {0};
	int rc = cli_read_file(m->fd, path, &text);
	long n = rc;

	if (rc == 0) {
		text_add(&text, "", 1);
		n = strtol(text.base, NULL, 10);
	}
	text_finish(&text);
	return n;
}

/* What it holds; or a negative errno. */
static long n_held(const struct cli_mount *m)
{
	long owned = read_count(m, "status/owned");
	long offered = read_count(m, "status/recovering");

	if (owned < 0)
		return owned;
	return offered < 0 ? offered : owned + offered;
}

static int wait_empty(const struct cli_mount *m, uint32_t timeout_s)
{
	uint64_t end = timeout_s == 0 ? UINT64_MAX
				      : boot_ms() + (uint64_t)timeout_s * 1000;
	long n;

	while ((n = n_held(m)) > 0 && boot_ms() < end)
		poll(NULL, 0, LOOK_MS);
	if (n < 0)
		return cli_refused("drain", m->dir, (int)n, "");
	if (n == 0)
		return EX_OK;
	cli_say("drain", "after %u s it holds %ld keys; it drains on",
		timeout_s, n);
	return EXIT_TIMEOUT;
}

static int find(int argc, char **argv, const char *given, struct cli_mount *m)
{
	if (optind < argc)
		cli_usage(argv[0], "'%s': no argument is wanted", argv[optind]);
	return cli_mount_find(argv[0], given, m);
}

int cli_drain(int argc, char **argv)
{
	static const struct option longs[] = {
		{"wait", no_argument, NULL, 'w'},
		{"timeout", required_argument, NULL, 't'},
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const char *given = NULL;
	uint32_t timeout_s = 0;
	struct cli_mount m;
	bool waits = false;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, drain_help)) >= 0)
		if (c == 'm')
			given = optarg;
		else if (c == 'w')
			waits = true;
		else
			timeout_s = cli_parse_timeout(argv[0], optarg);
	if (timeout_s != 0 && !waits)
		cli_usage(argv[0], "--timeout is for --wait");
	int rc = find(argc, argv, given, &m);
	if (rc != EX_OK)
		return rc;
	rc = cli_write_ctl(m.fd, "drain");
	if (rc < 0)
		rc = cli_refused(argv[0], m.dir, rc, "");
	else if (waits)
		rc = wait_empty(&m, timeout_s);
	cli_mount_finish(&m);
	return rc;
}

int cli_resume(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const char *given = NULL;
	struct cli_mount m;

	while (cli_next(argc, argv, "m:h", longs, resume_help) >= 0)
		given = optarg;
	int rc = find(argc, argv, given, &m);
	if (rc != EX_OK)
		return rc;
	rc = cli_write_ctl(m.fd, "resume");
	if (rc < 0)
		rc = cli_refused(argv[0], m.dir, rc, "");
	cli_mount_finish(&m);
	return rc;
}
