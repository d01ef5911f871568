/* SPDX-License-Identifier: MIT */
#include "fs/options.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/log.h"
#include "tests/unit/check.h"

#define ARGS_MAX 16

static char folder[] = "/tmp/options_test.XXXXXX";
static char said[4096];	 /* on stderr, by the last run */
static struct options o; /* of the last run */

/* options_parse with the words in the array, ended by NULL. */
static int parse(const char *const words[])
{
	char *argv[ARGS_MAX + 1];
	int argc = 0;

	for (; words[argc] != NULL; argc++) {
		check(argc < ARGS_MAX, "too many words");
		argv[argc] = strdup(words[argc]);
	}
	argv[argc] = NULL;
	char *copies[ARGS_MAX + 1];
	memcpy(copies, argv, sizeof(argv));
	FILE *f = tmpfile();
	int saved = dup(STDERR_FILENO);
	dup2(fileno(f), STDERR_FILENO);
	options_finish(&o);
	int rc = options_parse(argc, argv, &o);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(f);
	said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
	fclose(f);
	while (argc > 0)
		free(copies[--argc]);
	return rc;
}

#define PARSE(...) parse((const char *const[]){"mount", __VA_ARGS__, NULL})

#define check_said(sentence)                                                   \
	check(strcmp(said, sentence) == 0, "got '%s', want '%s'", said,        \
	      sentence)
#define check_str(got, want)                                                   \
	check(strcmp(got, want) == 0, "got '%s', want '%s'", got, want)

#define TRY "Try 'ringfs mount --help'\n"

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	check(f != NULL, "%s", name);
	fputs(text, f);
	fclose(f);
}

static void defaults(void)
{
	char host[HOST_NAME_MAX + 1], dir[PATH_MAX];

	check_int(PARSE("mnt"), 0);
	check_said("");
	gethostname(host, sizeof(host));
	check_str(o.name, host);
	snprintf(dir, sizeof(dir), "%s/mnt", folder);
	check_str(o.mountpoint, dir);
	snprintf(dir, sizeof(dir), "%s/xdg/ringfs", folder);
	check_str(o.state, dir);
	check_str(o.bind, "0.0.0.0:7400");
	check(!o.foreground && !o.allow_other && !o.has_group, "flags");
	check_int(o.weight, 100);
	check_int(o.op_timeout_ms, 2000);
	check_int(o.settings.vnodes, RING_UNSET);
	check_int(o.settings.claims, RING_UNSET);
	check_int(o.settings.lease_ms, RING_UNSET);
	check_int(o.settings.calm_ms, RING_UNSET);
	check_int(o.settings.max_attempts, RING_UNSET);
	check_int(o.settings.handover_timeout_ms, RING_UNSET);
	check(o.advertise == NULL && o.n_joins == 0 && o.key_file == NULL,
	      "cluster");
	check_int(o.seal, OPTIONS_SEALED);
	check_int(o.preset, OPTIONS_LAN);
	check_int(o.expect, 1);
	check(!o.is_new && !o.is_client, "new, client");
	check_int(o.log_level, LOG_LEVEL_INFO);
	check(!o.log_json, "json");
	ok("what is not given has the documented default");

	unsetenv("XDG_STATE_HOME");
	check_int(PARSE("mnt"), 0);
	if (geteuid() == 0)
		check_str(o.state, "/var/lib/ringfs");
	setenv("XDG_STATE_HOME", "relative", 1);
	check_int(PARSE("mnt"), 0);
	check(o.state[0] == '/' && strstr(o.state, "relative") == NULL, "%s",
	      o.state);
	setenv("XDG_STATE_HOME", "xdg", 1);
	snprintf(dir, sizeof(dir), "%s/xdg", folder);
	setenv("XDG_STATE_HOME", dir, 1);
	ok("the state's place follows XDG, and relative values are ignored");
}

static void every_option(void)
{
	check_int(PARSE("-f", "--name", "n1", "--state", "st", "--bind",
			"[::1]:0", "--weight=0", "--op-timeout=10",
			"--claims=any", "--vnodes=16", "--allow-other", "mnt"),
		  0);
	check(o.foreground && o.allow_other, "flags");
	check_str(o.name, "n1");
	check_str(o.bind, "[::1]:0");
	check_int(o.weight, 0);
	check_int(o.op_timeout_ms, 10);
	check_int(o.settings.claims, RING_CLAIMS_ANY);
	check_int(o.settings.vnodes, 16);
	check_int(PARSE("--calm=0", "--lease=600000", "--handover-timeout=7",
			"--max-attempts=65535", "--log-level=debug",
			"--log-format=json", "--group=root", "mnt"),
		  0);
	check_int(o.settings.calm_ms, 0);
	check_int(o.settings.lease_ms, 600000);
	check_int(o.settings.handover_timeout_ms, 7000);
	check_int(o.settings.max_attempts, 65535);
	check_int(o.log_level, LOG_LEVEL_DEBUG);
	check(o.log_json && o.has_group && o.group == 0, "json, group");
	check(o.allow_other, "a group lets others in");
	check_int(
		PARSE("--group", "12345", "--handover-timeout", "never", "mnt"),
		0);
	check_int(o.group, 12345);
	ok("every option reaches its place");

	check_int(PARSE("--weight=1", "--weight=2", "mnt"), 0);
	check_int(o.weight, 2);
	check_int(PARSE("--", "-mnt"), 0);
	check(strstr(o.mountpoint, "/-mnt") != NULL, "%s", o.mountpoint);
	check_int(PARSE("mnt/"), 0);
	check(strstr(o.mountpoint, "/mnt") != NULL &&
		      o.mountpoint[strlen(o.mountpoint) - 1] != '/',
	      "%s", o.mountpoint);
	check_int(PARSE("/"), 0);
	check_str(o.mountpoint, "/");
	check_int(PARSE("."), 0);
	check_str(o.mountpoint, folder);
	check_int(PARSE("./none/../mnt"), 0);
	check(o.mountpoint[0] == '/', "%s", o.mountpoint);
	ok("the last of a repeated option wins; paths become absolute");
}

static void cluster(void)
{
	char path[PATH_MAX];

	check_int(PARSE("--join", "10.0.0.1:7400", "--join=[fd00::1]:1",
			"--join", "host.example:65535", "--advertise",
			"ring.example:7401", "--key-file=key", "mnt"),
		  0);
	check_int(o.n_joins, 3);
	check_str(o.joins[0], "10.0.0.1:7400");
	check_str(o.joins[1], "[fd00::1]:1");
	check_str(o.joins[2], "host.example:65535");
	check_str(o.advertise, "ring.example:7401");
	snprintf(path, sizeof(path), "%s/key", folder);
	check_str(o.key_file, path);
	check_int(PARSE("-o", "join=a:1,join=b:2", "mnt"), 0);
	check_int(o.n_joins, 2);
	check_str(o.joins[1], "b:2");
	check_int(PARSE("-o", "join=a:1,join=b:2", "--join", "c:3", "mnt"), 0);
	check_int(o.n_joins, 1);
	check_str(o.joins[0], "c:3");
	write_file("conf", "join = a:1\njoin = b:2 c:3\ninsecure = both\n"
			   "new = no\nclient = yes\n");
	check_int(PARSE("--config", "conf", "mnt"), 0);
	check_int(o.n_joins, 3);
	check_str(o.joins[2], "c:3");
	check_int(o.seal, OPTIONS_SEALED_AND_CLEAR);
	check(o.is_client && !o.is_new && o.weight == 0, "a client");
	ok("--join may be repeated; those of one place count together");

	check_int(PARSE("--insecure", "mnt"), 0);
	check_int(o.seal, OPTIONS_CLEAR);
	check_int(PARSE("--insecure=both", "mnt"), 0);
	check_int(o.seal, OPTIONS_SEALED_AND_CLEAR);
	check_int(PARSE("-o", "insecure", "mnt"), 0);
	check_int(o.seal, OPTIONS_CLEAR);
	check_int(PARSE("-o", "insecure=no", "mnt"), 0);
	check_int(o.seal, OPTIONS_SEALED);
	check_int(PARSE("--preset=wan", "--expect=65535", "--new", "mnt"), 0);
	check_int(o.preset, OPTIONS_WAN);
	check_int(o.expect, 65535);
	check(o.is_new, "new");
	check_int(PARSE("--preset=local", "--client", "mnt"), 0);
	check_int(o.preset, OPTIONS_LOCAL);
	check(o.is_client && o.weight == 0, "a client has no weight");
	check_int(PARSE("--client", "--weight=0", "mnt"), 0);
	ok("the options of a cluster reach their places");

	check_int(PARSE("--new", "--join=a:1", "mnt"), 64);
	check_said("ringfs: mount: --new and --join contradict each other: "
		   "start a cluster or join one\n" TRY);
	check_int(PARSE("--client", "--weight=1", "mnt"), 64);
	check_said("ringfs: mount: --client and --weight contradict each "
		   "other: a client owns nothing\n" TRY);
	ok("what contradicts each other is refused");
}

static void ranges(void)
{
	static const struct {
		const char *word, *sentence;
	} bad[] = {
		{"--weight=10001", "--weight 10001: must be 0 to 10000"},
		{"--weight=-1", "--weight -1: must be 0 to 10000"},
		{"--weight=", "--weight : must be 0 to 10000"},
		{"--weight=4294967396",
		 "--weight 4294967396: must be 0 to 10000"},
		{"--weight=99999999999999999999",
		 "--weight 99999999999999999999: must be 0 to 10000"},
		{"--weight=1x", "--weight 1x: must be 0 to 10000"},
		{"--op-timeout=9", "--op-timeout 9: must be 10 to 600000"},
		{"--vnodes=8",
		 "--vnodes 8: must be a power of two, 16 to 65536"},
		{"--vnodes=100",
		 "--vnodes 100: must be a power of two, 16 to 65536"},
		{"--vnodes=131072",
		 "--vnodes 131072: must be a power of two, 16 to 65536"},
		{"--calm=600001", "--calm 600001: must be 0 to 600000"},
		{"--lease=99", "--lease 99: must be 100 to 600000"},
		{"--max-attempts=0", "--max-attempts 0: must be 1 to 65535"},
		{"--handover-timeout=0",
		 "--handover-timeout 0: must be 1 to 4000000 seconds, or "
		 "never"},
		{"--handover-timeout=4000001",
		 "--handover-timeout 4000001: must be 1 to 4000000 seconds, "
		 "or never"},
		{"--claims=all", "--claims all: must be owner or any"},
		{"--log-level=loud",
		 "--log-level loud: must be error, warning, notice, info or "
		 "debug"},
		{"--log-format=xml", "--log-format xml: must be text or json"},
		{"--group=no-such-group",
		 "--group no-such-group: there is no such group"},
		{"--name=", "--name : must not be empty"},
		{"--name=.n", "--name .n: must not begin with a dot"},
		{"--name=a/b", "--name a/b: must not have a slash"},
		{"--name=self", "--name self: is the link peers/self"},
		{"--name=a b",
		 "--name a b: must not have spaces or control characters"},
		{"--state=", "--state : must not be empty"},
		{"--join=a:0", "--join a:0: the port must be 1 to 65535"},
		{"--join=a",
		 "--join a: 'a' is not ADDR:PORT or [IPv6]:PORT: there is no "
		 "colon"},
		{"--join=a:1 b",
		 "--join a:1 b: 'b' is not ADDR:PORT or [IPv6]:PORT: there is "
		 "no colon"},
		{"--advertise=a:0",
		 "--advertise a:0: the port must be 1 to 65535"},
		{"--key-file=", "--key-file : must not be empty"},
		{"--insecure=maybe",
		 "--insecure maybe: must be no, both or yes"},
		{"--preset=moon", "--preset moon: must be lan, local or wan"},
		{"--expect=0", "--expect 0: must be 1 to 65535"},
		{"--expect=65536", "--expect 65536: must be 1 to 65535"},
		{"--bind=7400",
		 "--bind 7400: '7400' is not ADDR:PORT or [IPv6]:PORT: there "
		 "is no colon"},
	};
	char want[512];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		check_int(PARSE(bad[i].word, "mnt"), 64);
		snprintf(want, sizeof(want), "ringfs: mount: %s\n" TRY,
			 bad[i].sentence);
		check_said(want);
	}
	ok("a value out of its range is refused, and the range is said");

	char name[300] = "--name=";
	memset(name + 7, 'n', 256);
	check_int(PARSE(name, "mnt"), 64);
	check(strstr(said, "longer than 255 bytes") != NULL, "%s", said);
	name[7 + 255] = '\0';
	check_int(PARSE(name, "mnt"), 0);
	ok("a name of 255 bytes is taken, of 256 refused");
}

static void usage(void)
{
	check_int(parse((const char *const[]){"mount", NULL}), 64);
	check_said("ringfs: mount: the directory to mount on is missing\n" TRY);
	check_int(PARSE("a", "b"), 64);
	check_said("ringfs: mount: one directory is wanted\n" TRY);
	check_int(PARSE("--no-such", "mnt"), 64);
	check_said("ringfs: mount: unrecognized option '--no-such'\n" TRY);
	check_int(PARSE("-x", "mnt"), 64);
	check_said("ringfs: mount: invalid option -- 'x'\n" TRY);
	check_int(PARSE("mnt", "--name"), 64);
	check_said("ringfs: mount: option '--name' requires an argument\n" TRY);
	ok("wrong usage is one sentence and the way to the help");
}

static void mount_options(void)
{
	check_int(PARSE("-o", "name=n1,weight=7,allow_other", "mnt"), 0);
	check_str(o.name, "n1");
	check_int(o.weight, 7);
	check(o.allow_other, "allow_other");
	check_int(PARSE("-o", "op_timeout=77", "-o", "claims=any", "mnt"), 0);
	check_int(o.op_timeout_ms, 77);
	check_int(o.settings.claims, RING_CLAIMS_ANY);
	check_int(PARSE("-o", "allow-other=no,foreground=yes", "mnt"), 0);
	check(!o.allow_other && o.foreground, "yes and no");
	check_int(PARSE("-o", "name=a\\,b\\\\,weight=1", "mnt"), 0);
	check_str(o.name, "a,b\\");
	ok("-o takes every option, with _ or -, and escaped commas");

	check_int(PARSE("-o",
			"rw,defaults,noauto,nofail,_netdev,nodev,noexec,nosuid,"
			"relatime,users,x-systemd.automount,X-mount.mkdir,,",
			"mnt"),
		  0);
	check_said("");
	ok("-o ignores the options that mount(8) gives to everybody");

	check_int(PARSE("-o", "rw,nosuch=1", "mnt"), 64);
	check_said("ringfs: mount: -o nosuch: unknown option\n" TRY);
	check_int(PARSE("-o", "ro", "mnt"), 64);
	check_said("ringfs: mount: -o ro: a ring cannot be mounted "
		   "read-only\n" TRY);
	check_int(PARSE("-o", "name", "mnt"), 64);
	check_said("ringfs: mount: -o name: needs =VALUE\n" TRY);
	check_int(PARSE("-o", "weight=x", "mnt"), 64);
	check_said("ringfs: mount: -o weight=x: must be 0 to 10000\n" TRY);
	check_int(PARSE("--sloppy", "-o", "nosuch=1,weight=3", "mnt"), 0);
	check_int(o.weight, 3);
	ok("-o refuses what it does not know, unless it shall be sloppy");
}

static void config_file(void)
{
	write_file("conf", "# a comment\n"
			   "; another\n"
			   "\n"
			   "name = n7\n"
			   "  weight=5  \n"
			   "op_timeout = 50\n"
			   "allow-other = yes\n");
	check_int(PARSE("--config", "conf", "mnt"), 0);
	check_said("");
	check_str(o.name, "n7");
	check_int(o.weight, 5);
	check_int(o.op_timeout_ms, 50);
	check(o.allow_other, "allow-other");
	check_int(PARSE("-o", "config=conf", "mnt"), 0);
	check_str(o.name, "n7");
	ok("--config reads lines of NAME = VALUE");

	check_int(PARSE("--config=conf", "-o", "weight=6,op_timeout=60",
			"--op-timeout=70", "mnt"),
		  0);
	check_str(o.name, "n7");
	check_int(o.weight, 6);
	check_int(o.op_timeout_ms, 70);
	check_int(PARSE("--op-timeout=70", "-o", "op_timeout=60", "mnt"), 0);
	check_int(o.op_timeout_ms, 70);
	ok("the command line wins over -o, and -o over the file");
}

static void bad_config(void)
{
	static const struct {
		const char *text, *sentence;
	} bad[] = {
		{"name = a\nnosuch = 1\n", "conf:2: nosuch: unknown option"},
		{"config = other\n", "conf:1: config: unknown option"},
		{"name = a\n\nname = b\n",
		 "conf:3: name: given in line 1 already"},
		{"name\n", "conf:1: expected NAME = VALUE"},
		{"weight = 5\n junk\nnosuch = 1\n",
		 "conf:2: expected NAME = VALUE"},
		{"nosuch = 1\njunk\n", "conf:1: nosuch: unknown option"},
		{"[mount]\nname = a\n",
		 "conf:1: section [mount]: there are none"},
		{"name = a\n[mount]\n",
		 "conf:2: section [mount]: there are none"},
		{"\nweight = 99999\n",
		 "conf:2: weight = 99999: must be 0 to 10000"},
		{"allow-other = maybe\n",
		 "conf:1: allow-other = maybe: must be yes or no"},
	};
	char want[512], line[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file("conf", bad[i].text);
		check_int(PARSE("--config", "conf", "mnt"), 78);
		snprintf(want, sizeof(want), "ringfs: mount: %s\n",
			 bad[i].sentence);
		check_said(want);
	}
	check_int(PARSE("--config", "none", "mnt"), 78);
	check_said("ringfs: mount: --config none: No such file or directory\n");
	check_int(PARSE("--config", ".", "mnt"), 78);
	ok("a bad file is refused by name and line");

	/* inih would cut the line, and take the rest for another one. */
	snprintf(line, sizeof(line), "state = /%0*d\n", 240, 0);
	write_file("conf", line);
	check_int(PARSE("--config", "conf", "mnt"), 78);
	check(strncmp(said, "ringfs: mount: conf:1: is longer than ", 38) == 0,
	      "%s", said);
	snprintf(line, sizeof(line), "state = /%0*d\n", 188, 0);
	write_file("conf", line);
	check_int(PARSE("--config", "conf", "mnt"), 0);
	check_int(strlen(o.state), 189);
	ok("a line that is too long is refused, not cut");
}

int main(void)
{
	char xdg[64];

	check(mkdtemp(folder) != NULL && chdir(folder) == 0, "%s", folder);
	snprintf(xdg, sizeof(xdg), "%s/xdg", folder);
	mkdir("xdg", 0700);
	setenv("XDG_STATE_HOME", xdg, 1);
	defaults();
	every_option();
	cluster();
	ranges();
	usage();
	mount_options();
	config_file();
	bad_config();
	options_finish(&o);
	unlink("conf");
	rmdir("xdg");
	check(chdir("/") == 0 && rmdir(folder) == 0, "%s", folder);
	return 0;
}
