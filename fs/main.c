/* SPDX-License-Identifier: MIT */
/* The program: verbs as in git. Called as mount.ringfs it is `ringfs mount` with
 * the manners of mount(8). */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/cli.h"
#include "fs/herald.h"
#include "fs/node.h"
#include "fs/options.h"

static int run_mount(int argc, char **argv);
static int run_help(int argc, char **argv);
static int run_version(int argc, char **argv);

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv); /* gives the exit status */
	const char *summary;		   /* NULL: not listed */
} verbs[] = {
	{"mount", run_mount, "mount a ring and serve it"},
	{"umount", cli_umount, "unmount it, and wait until the daemon is gone"},
	{"status", cli_status, "say in one word, and more, how it is"},
	{"claim", cli_claim, "claim keys for this node"},
	{"finish", cli_finish, "finish keys"},
	{"submit", cli_submit, "add a key for its ring owner to work on"},
	{"show", cli_show, "show the facts of a key"},
	{"route", cli_route, "name the ring owner of any key"},
	{"work", cli_work, "run a command for each key that is offered here"},
	{"members", cli_members, "show the nodes"},
	{"ring", cli_ring, "show who owns how much of the ring"},
	{"top", cli_top, "show what happens, again and again"},
	{"join", cli_join, "get to know a member of the cluster"},
	{"drain", cli_drain, "own and claim nothing, finish what is held"},
	{"resume", cli_resume, "own and claim again"},
	{"leave", cli_leave, "leave the cluster, and unmount"},
	{"forget", cli_forget, "forget dead members"},
	{"keygen", cli_keygen, "make a cluster's secret"},
	{"keys", cli_keys, "show and change the cluster's secret"},
	{"recover-quorum", cli_recover,
	 "go on alone when a majority is lost for good"},
	{"help", run_help, "show this text, or that of a verb"},
	{"version", run_version, "show the version"},
	{"herald", herald_main, NULL},
};

#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const char version_help[] = "Usage: ringfs version\n"
				   "Show the version.\n"
				   "\n"
				   "Examples:\n"
				   "  ringfs version\n"
				   "  ringfs --version\n"
				   "  ringfs version | cut -d ' ' -f 2\n";

static void show_verbs(FILE *out)
{
	fputs("Usage: ringfs VERB [OPTION]... [ARGUMENT]...\n"
	      "Show the ownership of a cluster's work as files.\n"
	      "\n"
	      "Verbs:\n",
	      out);
	for (size_t i = 0; i < N_VERBS; i++)
		if (verbs[i].summary != NULL)
			fprintf(out, "  %-16s%s\n", verbs[i].name,
				verbs[i].summary);
	fputs("\n"
	      "'ringfs help VERB' or 'ringfs VERB --help' says more.\n"
	      "\n"
	      "Examples:\n"
	      "  ringfs mount /srv/ring\n"
	      "  ringfs claim order-42 && ship order-42 && "
	      "ringfs finish order-42\n"
	      "  ringfs status\n",
	      out);
}

static int usage(void)
{
	fputs("Try 'ringfs --help'\n", stderr);
	return EX_USAGE;
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < N_VERBS; i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static int unknown(const char *name)
{
	fprintf(stderr, "ringfs: '%s': no such verb%s\n", name,
		name[0] == '-' ? "; options come after the verb" : "");
	return usage();
}

static int run_mount(int argc, char **argv)
{
	struct options options;
	int rc = options_parse(argc, argv, &options);

	if (rc < 0)
		return EX_OK; /* --help was shown */
	if (rc > 0)
		return rc;
	rc = node_main(&options);
	options_finish(&options);
	return rc;
}

static int run_help(int argc, char **argv)
{
	char ask[] = "--help";

	if (argc < 2 || argv[1][0] == '-') {
		show_verbs(stdout);
		return EX_OK;
	}
	const struct verb *v = find_verb(argv[1]);
	if (v == NULL || v->summary == NULL)
		return unknown(argv[1]);
	char *args[] = {argv[1], ask, NULL};
	return v->run(2, args);
}

static int run_version(int argc, char **argv)
{
	if (argc > 1 &&
	    (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(version_help, stdout);
		return EX_OK;
	}
	if (argc > 1)
		cli_usage(argv[0], "no argument is wanted");
	printf("ringfs %s\n", VERSION);
	return EX_OK;
}

/* ---- mount.ringfs SOURCE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS] ----
 * (mount(8), "External helpers") */

static int enter_namespace(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : 0;

	if (rc == 0 && setns(fd, CLONE_NEWNS) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (rc == 0)
		return 0;
	fprintf(stderr, "ringfs: mount: cannot enter namespace '%s': %s\n",
		path, strerror(-rc));
	return EX_OSERR;
}

static int run_mount_helper(int argc, char **argv)
{
	/* The most: mount --sloppy -o OPTIONS --source SOURCE -- DIR. */
	char *args[9], verb[] = "mount", sloppy[] = "--sloppy", o[] = "-o";
	char source[] = "--source", end[] = "--", *text = NULL;
	bool fake = false, is_sloppy = false;
	int n = 0, rc = 0, c;

	while (rc == 0 && (c = getopt(argc, argv, "sfnvN:t:o:")) >= 0) {
		if (c == '?')
			return EX_USAGE;
		fake |= c == 'f';
		is_sloppy |= c == 's';
		if (c == 'o')
			text = optarg;
		if (c == 'N')
			rc = enter_namespace(optarg);
	}
	if (rc != 0)
		return rc;
	if (argc - optind != 2) {
		fputs("Usage: mount.ringfs SOURCE DIR [-sfnv] [-N NAMESPACE] "
		      "[-o OPTIONS]\n",
		      stderr);
		return EX_USAGE;
	}
	args[n++] = verb;
	if (is_sloppy)
		args[n++] = sloppy;
	if (text != NULL) {
		args[n++] = o;
		args[n++] = text;
	}
	if (argv[optind][0] != '\0') {
		args[n++] = source;
		args[n++] = argv[optind];
	}
	args[n++] = end;
	args[n++] = argv[optind + 1];
	args[n] = NULL;
	return fake ? EX_OK : run_mount(n, args);
}

/* ---- The process ---- */

/* A program that is started without stdin, stdout or stderr would find its own
 * files in their place, and write sentences into them. */
static void fill_first_three(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* An answer that did not reach its file is no answer. */
static void close_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return;
	fprintf(stderr, "ringfs: cannot write the answer: %s\n",
		strerror(errno));
	_exit(EX_OSERR);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

int main(int argc, char **argv)
{
	fill_first_three();
	atexit(close_stdout);
	if (argc > 0 && strcmp(base_name(argv[0]), "mount.ringfs") == 0)
		return run_mount_helper(argc, argv);
	if (argc < 2) {
		show_verbs(stderr);
		return EX_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return run_help(1, argv);
	if (strcmp(argv[1], "--version") == 0)
		return run_version(1, argv);
	const struct verb *v = find_verb(argv[1]);
	return v == NULL ? unknown(argv[1]) : v->run(argc - 1, argv + 1);
}
