/* SPDX-License-Identifier: MIT */
/* One table says what options there are; three readers (getopt_long, -o, inih)
 * only collect words into it. Words are turned into values at the end, so that a
 * sentence about a wrong value can say where it came from. */
#include "fs/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/options_impl.h"
#include "fs/util.h"

#define WHY_SIZE RING_ERRMSG_SIZE

static const char help[] =
	"Usage: ringfs mount [OPTION]... DIR\n"
	"Mount the ring at DIR and serve it. In the background, unless -f\n"
	"is given: the command then ends with status 0 as soon as the mount\n"
	"serves.\n"
	"\n"
	"Node:\n"
	"  -f, --foreground     stay in the foreground, log to stderr\n"
	"      --name NAME      its name in peers/ (default: the host name)\n"
	"      --state DIR      everything this node keeps (default:\n"
	"                       $XDG_STATE_HOME/ringfs; without it, as root\n"
	"                       /var/lib/ringfs, else ~/.local/state/ringfs)\n"
	"      --bind ADDR:PORT the address for UDP and TCP, IPv4 or [IPv6];\n"
	"                       port 0 is any free one (default:\n"
	"                       0.0.0.0:7400)\n"
	"      --advertise ADDR:PORT\n"
	"                       where others reach it, a numeric address\n"
	"                       (default: what is bound)\n"
	"      --weight W       share of the ring, 0 to 10000 (default: 100)\n"
	"      --client         own nothing, and never vote\n"
	"      --op-timeout MS  the longest wait of a change, 10 to 600000\n"
	"                       (default: 2000)\n"
	"      --restart-grace MS\n"
	"                       back within it, a killed node keeps its keys,\n"
	"                       0 to 3600000 (default: 0)\n"
	"\n"
	"Cluster:\n"
	"      --join ADDR:PORT a member to join through; may be repeated.\n"
	"                       Without it and a state, the node starts a new\n"
	"                       cluster\n"
	"      --new            start a new cluster although there is a key\n"
	"      --key-file FILE  the cluster's secret (default: key in the\n"
	"                       state directory; made by the node that starts\n"
	"                       a cluster, copied by you to the others)\n"
	"      --insecure[=both]\n"
	"                       send in the clear and take both; both: send\n"
	"                       sealed and take both, on the way to neither\n"
	"      --preset P       timings of failure detection: lan, local or\n"
	"                       wan (default: lan)\n"
	"      --expect N       claim nothing before N nodes were seen\n"
	"                       together, 1 to 65535 (default: 1)\n"
	"\n"
	"Of the whole cluster, fixed when it is first started:\n"
	"      --claims owner|any\n"
	"                       who may claim a key: its ring owner, or\n"
	"                       whoever comes first (default: owner)\n"
	"      --vnodes N       parts of the ring, a power of two, 16 to\n"
	"                       65536 (default: 4096)\n"
	"      --calm MS        quiet time before keys move, 0 to 600000\n"
	"                       (default: 500)\n"
	"      --lease MS       silence after which a node shows no keys,\n"
	"                       100 to 600000 (default: 1500)\n"
	"      --handover-timeout S|never\n"
	"                       seconds after which a living holder loses a\n"
	"                       key that has moved, 1 to 4000000 (default:\n"
	"                       never)\n"
	"      --max-attempts N takes after which a key is parked, 1 to\n"
	"                       65535 (default: 5)\n"
	"\n"
	"Access and log:\n"
	"      --allow-other    let other users in\n"
	"      --group G        let the members of group G write; implies\n"
	"                       --allow-other\n"
	"      --source NAME    what mount(8) shows (default: ringfs)\n"
	"      --log-level L    error, warning, notice, info or debug\n"
	"                       (default: info)\n"
	"      --log-format F   text or json (default: text)\n"
	"\n"
	"Where options come from:\n"
	"  -o NAME[=VALUE],...  any long option above, as in fstab\n"
	"      --config FILE    lines of NAME = VALUE, for any long option\n"
	"                       above\n"
	"  -h, --help           show this text\n"
	"The command line wins over -o, and -o over FILE. In -o and in FILE\n"
	"foreground, allow-other, client and new are yes or no, insecure is\n"
	"yes, no or both, and join may be given again; -o ignores the options\n"
	"of mount(8) that do not concern a ring.\n"
	"\n"
	"Exit status: 0 it serves, or (with -f) it was stopped; 64 usage;\n"
	"71 the system refused; 75 not ready in time, or no member answered;\n"
	"77 permission; 78 configuration, DIR, state, key or port cannot be\n"
	"used, the cluster refused, or the state was copied.\n"
	"\n"
	"Examples:\n"
	"  ringfs mount /srv/ring\n"
	"  ringfs mount --join 10.0.0.1:7400 --key-file ring.key /srv/ring\n"
	"  ringfs mount -f --state ./n1 --bind 127.0.0.1:0 ./mnt\n";

/* ---- Words, and where they came from ---- */

enum source {
	NOT_GIVEN,
	FROM_FILE,
	FROM_O,
	FROM_FLAG
};

struct word {
	char *value;
	enum source source;
	unsigned line; /* FROM_FILE */
};

struct parse {
	struct word words[OPTIONS_N];
	char *config;
	bool config_is_flag; /* not from -o */
	bool sloppy;	     /* mount(8) -s: unknown names in -o are ignored */
};

static int usage(void)
{
	fputs("Try 'ringfs mount --help'\n", stderr);
	return EX_USAGE;
}

/* In -o and in the file allow_other is as good as allow-other. */
static bool same_name(const char *given, const char *name)
{
	for (; *given != '\0' && *name != '\0'; given++, name++)
		if (*given != *name && !(*given == '_' && *name == '-'))
			return false;
	return *given == *name;
}

static size_t def_of(const char *given)
{
	size_t i = 0;

	while (i < OPTIONS_N && !same_name(given, options_defs[i].name))
		i++;
	return i;
}

static void put_word(struct parse *p, size_t i, const char *value,
		     enum source source)
{
	struct word *w = &p->words[i];
	char *before = w->value;

	assert(source != NOT_GIVEN);
	if (source < w->source)
		return;
	if (options_defs[i].is_list && source == w->source)
		w->value = xasprintf("%s %s", before, value);
	else
		w->value = xstrdup(value);
	free(before);
	w->source = source;
}

/* ---- -o ---- */

/* What mount(8) and fstab say to every file system. We are nodev, nosuid and
 * noexec in any case. */
static bool is_generic(const char *name)
{
	static const char *const generic[] = {
		"rw",	   "defaults", "auto",	      "noauto",	   "user",
		"nouser",  "users",    "owner",	      "nofail",	   "_netdev",
		"dev",	   "nodev",    "exec",	      "noexec",	   "suid",
		"nosuid",  "async",    "atime",	      "noatime",   "diratime",
		"silent",  "loud",     "nodiratime",  "relatime",  "norelatime",
		"comment", "nomand",   "strictatime", "nolazytime"};

	for (size_t i = 0; i < sizeof(generic) / sizeof(generic[0]); i++)
		if (strcmp(name, generic[i]) == 0)
			return true;
	return strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0;
}

static int put_mount_option(struct parse *p, char *name)
{
	char *value = strchr(name, '=');
	const char *text = value == NULL ? "yes" : value + 1;

	if (value != NULL)
		*value = '\0';
	if (strcmp(name, "config") == 0 && value != NULL) {
		if (!p->config_is_flag) {
			free(p->config);
			p->config = xstrdup(text);
		}
		return 0;
	}
	size_t i = def_of(name);
	if (i < OPTIONS_N && (value != NULL || options_defs[i].is_flag)) {
		put_word(p, i, text, FROM_O);
		return 0;
	}
	if (i == OPTIONS_N && (p->sloppy || is_generic(name)))
		return 0;
	fprintf(stderr, "ringfs: mount: -o %s: %s\n", name,
		i < OPTIONS_N || strcmp(name, "config") == 0 ? "needs =VALUE"
		: strcmp(name, "ro") == 0 ? "a ring cannot be mounted read-only"
					  : "unknown option");
	return usage();
}

/* NAME[=VALUE],... where a backslash makes a comma part of the value. */
static int put_mount_options(struct parse *p, const char *text)
{
	char *item = xmalloc(strlen(text) + 1);
	int rc = 0;

	while (*text != '\0' && rc == 0) {
		size_t n = 0;
		for (; *text != '\0' && *text != ','; text++) {
			if (text[0] == '\\' &&
			    (text[1] == ',' || text[1] == '\\'))
				text++;
			item[n++] = *text;
		}
		item[n] = '\0';
		text += *text == ',';
		if (n > 0)
			rc = put_mount_option(p, item);
	}
	free(item);
	return rc;
}

/* ---- --config FILE ---- */

struct file {
	struct parse *parse;
	FILE *stream;
	char *buf; /* of getline */
	size_t cap;
	unsigned line;	   /* read last */
	unsigned bad_line; /* 0: none */
	char why[WHY_SIZE];
};

static void __attribute__((format(printf, 2, 3)))
blame(struct file *f, const char *format, ...)
{
	va_list args;

	if (f->bad_line != 0)
		return; /* the first one is told */
	f->bad_line = f->line;
	va_start(args, format);
	vsnprintf(f->why, sizeof(f->why), format, args);
	va_end(args);
}

/* For inih, which cuts a long line into several without a word, and takes an
 * indented one for a part of the line before: neither gets to it. */
static char *read_line(char *out, int size, void *data)
{
	struct file *f = data;
	ssize_t n = getline(&f->buf, &f->cap, f->stream);

	if (n < 0)
		return NULL;
	f->line++;
	const char *text = f->buf + strspn(f->buf, " \t");
	size_t len = (size_t)n - (size_t)(text - f->buf);
	out[0] = '\0';
	if (memchr(f->buf, '\0', (size_t)n) != NULL)
		blame(f, "has a NUL byte");
	else if (text[0] == '[')
		blame(f, "section %.*s]: there are none",
		      (int)strcspn(text, "]\n"), text);
	else if (len >= (size_t)size)
		blame(f, "is longer than %d bytes", size - 2);
	else
		memcpy(out, text, len + 1);
	return out;
}

/* inih's handler: 1 is success. */
static int on_pair(void *data, const char *section, const char *name,
		   const char *value)
{
	struct file *f = data;
	size_t i = def_of(name);

	(void)section; /* read_line lets none through */
	if (i == OPTIONS_N)
		return blame(f, "%s: unknown option", name), 0;
	struct word *w = &f->parse->words[i];
	if (w->source == FROM_FILE && !options_defs[i].is_list)
		return blame(f, "%s: given in line %u already", name, w->line),
		       0;
	put_word(f->parse, i, value, FROM_FILE);
	if (w->source == FROM_FILE)
		w->line = f->line;
	return 1;
}

static int read_config(struct parse *p)
{
	struct file f = {.parse = p, .stream = fopen(p->config, "re")};

	if (f.stream == NULL) {
		fprintf(stderr, "ringfs: mount: --config %s: %s\n", p->config,
			strerror(errno));
		return EX_CONFIG;
	}
	int rc = ini_parse_stream(read_line, &f, on_pair, &f);
	bool failed = ferror(f.stream);
	fclose(f.stream);
	free(f.buf);
	if (failed) {
		fprintf(stderr, "ringfs: mount: --config %s: cannot be read\n",
			p->config);
		return EX_CONFIG;
	}
	/* rc is the first line that inih or on_pair did not like. */
	if (rc > 0 && (f.bad_line == 0 || (unsigned)rc < f.bad_line)) {
		f.bad_line = (unsigned)rc;
		snprintf(f.why, sizeof(f.why), "expected NAME = VALUE");
	}
	if (f.bad_line == 0)
		return 0;
	fprintf(stderr, "ringfs: mount: %s:%u: %s\n", p->config, f.bad_line,
		f.why);
	return EX_CONFIG;
}

/* ---- The command line ---- */

enum {
	OPT_CONFIG = 512,
	OPT_SLOPPY,
	OPT_DEF
}; /* beyond all letters */

static void fill_getopt(struct option longs[OPTIONS_N + 4])
{
	size_t i;

	for (i = 0; i < OPTIONS_N; i++)
		longs[i] = (struct option){
			options_defs[i].name,
			!options_defs[i].is_flag    ? required_argument
			: options_defs[i].has_value ? optional_argument
						    : no_argument,
			NULL, OPT_DEF + (int)i};
	longs[i++] =
		(struct option){"config", required_argument, NULL, OPT_CONFIG};
	longs[i++] = (struct option){"sloppy", no_argument, NULL, OPT_SLOPPY};
	longs[i++] = (struct option){"help", no_argument, NULL, 'h'};
	longs[i] = (struct option){NULL, 0, NULL, 0};
}

static int put_flag(struct parse *p, int c)
{
	if (c == 'f')
		c = OPT_DEF + (int)def_of("foreground");
	if (c == 'h') {
		fputs(help, stdout);
		return -1;
	}
	if (c == '?')
		return usage();
	if (c == 'o')
		return put_mount_options(p, optarg);
	if (c == OPT_SLOPPY) {
		p->sloppy = true;
	} else if (c == OPT_CONFIG) {
		free(p->config);
		p->config = xstrdup(optarg);
		p->config_is_flag = true;
	} else {
		assert(c >= OPT_DEF && c < OPT_DEF + (int)OPTIONS_N);
		put_word(p, (size_t)(c - OPT_DEF), optarg ? optarg : "yes",
			 FROM_FLAG);
	}
	return 0;
}

/* Gives DIR in *dir. */
static int read_command_line(struct parse *p, int argc, char **argv,
			     const char **dir)
{
	struct option longs[OPTIONS_N + 4];
	int c, rc = 0;

	fill_getopt(longs);
	/* getopt's own sentences then begin as ours do. */
	char *name = argv[0], program[] = "ringfs: mount";
	argv[0] = program;
	optind = 0; /* start anew: glibc */
	while (rc == 0 &&
	       (c = getopt_long(argc, argv, "fo:h", longs, NULL)) >= 0)
		rc = put_flag(p, c);
	argv[0] = name;
	if (rc != 0)
		return rc;
	if (argc - optind == 1 && argv[optind][0] != '\0') {
		*dir = argv[optind];
		return 0;
	}
	fprintf(stderr, "ringfs: mount: %s\n",
		argc == optind ? "the directory to mount on is missing"
			       : "one directory is wanted");
	return usage();
}

/* ---- All together ---- */

static int apply_word(const struct parse *p, size_t i, struct options *out)
{
	static const char *const format[] = {
		[FROM_FLAG] = "ringfs: mount: --%s %s: %s\n",
		[FROM_O] = "ringfs: mount: -o %s=%s: %s\n",
	};
	const struct word *w = &p->words[i];
	char why[WHY_SIZE];

	if (options_defs[i].set(out, &options_defs[i], w->value, why) == 0)
		return 0;
	if (w->source == FROM_FILE) {
		fprintf(stderr, "ringfs: mount: %s:%u: %s = %s: %s\n",
			p->config, w->line, options_defs[i].name, w->value,
			why);
		return EX_CONFIG;
	}
	fprintf(stderr,
		w->source == FROM_O ? format[FROM_O] : format[FROM_FLAG],
		options_defs[i].name, w->value, why);
	return usage();
}

static int default_name(struct options *o)
{
	char host[HOST_NAME_MAX + 1] = "", why[WHY_SIZE];

	gethostname(host, sizeof(host) - 1);
	if (options_set_name(o, host, why) == 0)
		return 0;
	fprintf(stderr, "ringfs: mount: the host name '%s' %s; use --name\n",
		host, why);
	return EX_CONFIG;
}

static int default_state(struct options *o)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *dir = NULL;

	if (xdg != NULL && xdg[0] == '/') /* others are to be ignored */
		dir = xasprintf("%s/ringfs", xdg);
	else if (geteuid() == 0)
		dir = xstrdup("/var/lib/ringfs");
	else if (home != NULL && home[0] == '/')
		dir = xasprintf("%s/.local/state/ringfs", home);
	if (dir == NULL) {
		fputs("ringfs: mount: neither XDG_STATE_HOME nor HOME is set; "
		      "use --state DIR\n",
		      stderr);
		return EX_CONFIG;
	}
	o->state = options_absolute(dir);
	free(dir);
	return 0;
}

static bool is_given(const struct parse *p, const char *name)
{
	return p->words[def_of(name)].source != NOT_GIVEN;
}

/* What no option alone can be wrong about. */
static int check_together(const struct parse *p, struct options *o)
{
	const char *why = NULL;

	if (o->is_new && o->n_joins > 0)
		why = "--new and --join contradict each other: start a cluster "
		      "or join one";
	else if (o->is_client && is_given(p, "weight") && o->weight != 0)
		why = "--client and --weight contradict each other: a client "
		      "owns nothing";
	if (o->is_client)
		o->weight = 0;
	if (why == NULL)
		return 0;
	fprintf(stderr, "ringfs: mount: %s\n", why);
	return usage();
}

static int apply(struct parse *p, const char *dir, struct options *out)
{
	int rc = 0;

	if (p->config != NULL)
		rc = read_config(p);
	for (size_t i = 0; i < OPTIONS_N && rc == 0; i++)
		if (p->words[i].source != NOT_GIVEN)
			rc = apply_word(p, i, out);
	if (rc == 0)
		rc = check_together(p, out);
	if (rc == 0 && out->name == NULL)
		rc = default_name(out);
	if (rc == 0 && out->state == NULL)
		rc = default_state(out);
	if (rc != 0)
		return rc;
	if (out->bind == NULL)
		out->bind = xstrdup("0.0.0.0:7400");
	out->allow_other |= out->has_group;
	out->mountpoint = options_absolute(dir);
	return 0;
}

int options_parse(int argc, char **argv, struct options *out)
{
	struct parse p = {0};
	const char *dir = NULL;

	*out = (struct options){
		.weight = 100,
		.op_timeout_ms = 2000,
		.expect = 1,
		.settings = {.vnodes = RING_UNSET,
			     .claims = RING_UNSET,
			     .lease_ms = RING_UNSET,
			     .calm_ms = RING_UNSET,
			     .max_attempts = RING_UNSET,
			     .handover_timeout_ms = RING_UNSET},
		.log_level = LOG_LEVEL_INFO,
	};
	int rc = read_command_line(&p, argc, argv, &dir);
	if (rc == 0)
		rc = apply(&p, dir, out);
	for (size_t i = 0; i < OPTIONS_N; i++)
		free(p.words[i].value);
	free(p.config);
	if (rc != 0)
		options_finish(out);
	return rc;
}

void options_finish(struct options *o)
{
	free(o->mountpoint);
	free(o->name);
	free(o->state);
	free(o->bind);
	free(o->advertise);
	free(o->key_file);
	free(o->source);
	for (size_t i = 0; i < o->n_joins; i++)
		free(o->joins[i]);
	free(o->joins);
	*o = (struct options){0};
}
