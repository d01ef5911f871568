/* SPDX-License-Identifier: MIT */
/* keygen, keys: the cluster's secret. Keys are spoken of by ids; a key itself is
 * seen by keygen and by 'keys add FILE' only. */
#include "fs/cli.h"
#include "fs/cli_nodes.h"
#include "fs/cli_table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/cluster.h"
#include "fs/text.h"
#include "fs/util.h"

static const char keygen_help[] =
	"Usage: ringfs keygen [FILE]\n"
	"Make a cluster's secret: a new key, written to FILE, which must not\n"
	"exist and becomes readable by its owner only, or to stdout. Every "
	"node\n"
	"needs the same: copy it to 'key' in the state directory, or name it\n"
	"with 'ringfs mount --key-file'. The node that starts a cluster makes\n"
	"one by itself.\n"
	"\n"
	"Options:\n"
	"  -h, --help         show this text\n"
	"\n"
	"Exit status: 0 made; 64 usage; 71 the system refused; 77 permission;\n"
	"78 FILE exists already.\n"
	"\n"
	"Examples:\n"
	"  ringfs keygen ring.key\n"
	"  ringfs keygen | ssh n2 'umask 077; cat > ring.key'\n"
	"  ringfs keygen ring.key && ringfs mount --new --key-file ring.key "
	"mnt\n";

static const char keys_help[] =
	"Usage: ringfs keys [OPTION]... [list]\n"
	"       ringfs keys [OPTION]... add [FILE]\n"
	"       ringfs keys [OPTION]... use|remove ID\n"
	"Show and change the cluster's keys. All of them open what comes, one\n"
	"seals what goes. A change is passed on to all members; LACK is how\n"
	"many known ones have not confirmed the key yet, dead ones included.\n"
	"\n"
	"To change the secret: add a key; when nobody lacks it, use it; when\n"
	"nobody lacks that, remove the old one. A step that would lock a "
	"member\n"
	"out is refused; forget the members that will not come back.\n"
	"\n"
	"  list               ID, STATE (used or held) and LACK of each key\n"
	"  add [FILE]         add the key in FILE (-: stdin), or a new one, "
	"and\n"
	"                     print its ID\n"
	"  use ID             seal with it from now on\n"
	"  remove ID          forget it\n"
	"\n"
	"Options:\n"
	"      --json         list as one JSON document\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 done; 1 there is no such key, or it is there already,\n"
	"or it is in use, or members lack it; 64 usage; 69 no daemon; 71 the\n"
	"system refused; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs keys\n"
	"  new=$(ringfs keys add) && sleep 5 && ringfs keys use \"$new\"\n"
	"  ringfs keys --json | jq '.keyring[] | select(.lack > 0)'\n";

int cli_keygen(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	char errmsg[RING_ERRMSG_SIZE];

	while (cli_next(argc, argv, "h", longs, keygen_help) >= 0)
		continue;
	if (argc - optind > 1)
		cli_usage(argv[0], "one file is wanted");
	int rc = cluster_keygen(optind < argc ? argv[optind] : NULL, errmsg);
	if (rc == 0)
		return EX_OK;
	cli_say(argv[0], "%s", errmsg);
	return rc == -EACCES || rc == -EPERM ? EX_NOPERM
	       : rc == -EEXIST		     ? EX_CONFIG
					     : EX_OSERR;
}

/* ---- keys ---- */

struct keys {
	struct cli_mount mount;
	const char *argument; /* NULL: none */
	bool json;
};

static int ask_ring(const struct keys *k, json_t **out)
{
	json_t *document;
	int rc = nodes_ask("keys", &k->mount, &document);

	if (rc != EX_OK)
		return rc;
	*out = json_incref(json_object_get(document, "keyring"));
	if (*out == NULL)
		*out = json_array();
	json_decref(document);
	return EX_OK;
}

static void put_table(const json_t *ring, struct text *out)
{
	struct cli_table t = {.n_columns = 3, .left = 3};
	const json_t *key;
	size_t i;

	cli_table_add(&t, "ID");
	cli_table_add(&t, "STATE");
	cli_table_add(&t, "LACK");
	json_array_foreach(ring, i, key)
	{
		cli_table_add(&t, nodes_word(key, "id"));
		cli_table_add(&t, json_is_true(json_object_get(key, "used"))
					  ? "used"
					  : "held");
		cli_table_printf(&t, "%lld", nodes_number(key, "lack"));
	}
	cli_table_put(&t, out);
	cli_table_finish(&t);
}

static int list(const struct keys *k)
{
	struct text text = {0};
	json_t *ring;
	int rc = ask_ring(k, &ring);

	if (rc != EX_OK)
		return rc;
	if (k->json) {
		json_t *document = json_pack("{s:O}", "keyring", ring);

		if (document == NULL)
			abort(); /* untested: needs a machine out of memory */
		json_dumpf(document, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(document);
	} else {
		put_table(ring, &text);
		fwrite(text.base, 1, text.len, stdout);
		text_finish(&text);
	}
	json_decref(ring);
	return EX_OK;
}

/* The key's line in the file at path: the first that is no comment. NULL after a
 * sentence, with *status. */
static char *read_line(const char *path, int *status)
{
	bool is_stdin = strcmp(path, "-") == 0;
	FILE *f = is_stdin ? stdin : fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n = -1;

	if (f == NULL) {
		*status = errno == EACCES ? EX_NOPERM : EX_OSERR;
		cli_say("keys", "'%s': %s", path, strerror(errno));
		return NULL;
	}
	while ((n = getline(&line, &cap, f)) >= 0) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '\0' && line[0] != '#')
			break;
	}
	if (!is_stdin)
		fclose(f);
	if (n >= 0)
		return line;
	free(line);
	cli_say("keys", "'%s': there is no key in it", path);
	*status = EX_USAGE;
	return NULL;
}

static bool has_key(const json_t *ring, const char *id)
{
	const json_t *key;
	size_t i;

	json_array_foreach(ring, i, key)
	{
		if (strcmp(nodes_word(key, "id"), id) == 0)
			return true;
	}
	return false;
}

/* Print the ids that were not there before. */
static int print_new(const struct keys *k, const json_t *before)
{
	const json_t *key;
	json_t *ring;
	size_t i;
	int rc = ask_ring(k, &ring);

	if (rc != EX_OK)
		return rc;
	json_array_foreach(ring, i, key)
	{
		if (!has_key(before, nodes_word(key, "id")))
			puts(nodes_word(key, "id"));
	}
	json_decref(ring);
	return EX_OK;
}

static const char *hint_of(int rc)
{
	switch (-rc) {
	case EINVAL:
		return " (no line of a key file)";
	case EEXIST:
		return " (the members have this key already)";
	case ENOENT:
		return " (there is no such key)";
	case EBUSY:
		return " (it is in use, or members lack what would be used: "
		       "see 'ringfs keys')";
	default:
		return "";
	}
}

static int add(const struct keys *k)
{
	char *key = NULL, *verb;
	json_t *before;
	int rc = EX_OK;

	if (k->argument != NULL) {
		key = read_line(k->argument, &rc);
		if (key == NULL)
			return rc;
	}
	rc = ask_ring(k, &before);
	if (rc == EX_OK) {
		verb = xasprintf("key-add%s%s", key != NULL ? " " : "",
				 key != NULL ? key : "");
		rc = cli_write_ctl(k->mount.fd, verb);
		explicit_bzero(verb, strlen(verb));
		free(verb);
		rc = rc < 0 ? cli_refused("keys", "add", rc, hint_of(rc))
			    : print_new(k, before);
		json_decref(before);
	}
	if (key != NULL)
		explicit_bzero(key, strlen(key));
	free(key);
	return rc;
}

static int change(const struct keys *k, const char *verb)
{
	if (strlen(k->argument) != 16 ||
	    strspn(k->argument, "0123456789abcdef") != 16)
		cli_usage("keys", "'%s': an ID is 16 hex digits", k->argument);
	char *line = xasprintf("%s %s", verb, k->argument);
	int rc = cli_write_ctl(k->mount.fd, line);

	free(line);
	if (rc == 0)
		return EX_OK;
	return cli_refused("keys", k->argument, rc, hint_of(rc));
}

static int use(const struct keys *k)
{
	return change(k, "key-use");
}

static int drop(const struct keys *k)
{
	return change(k, "key-remove");
}

static const struct action {
	const char *word;
	int (*run)(const struct keys *k);
	int least, most; /* arguments */
} actions[] = {
	{"list", list, 0, 0},
	{"add", add, 0, 1},
	{"use", use, 1, 1},
	{"remove", drop, 1, 1},
};

static const struct action *find_action(const char *verb, char *const *argv,
					int n)
{
	size_t i = 0;

	if (n == 0)
		return &actions[0];
	while (strcmp(actions[i].word, argv[0]) != 0)
		if (++i == sizeof(actions) / sizeof(actions[0]))
			cli_usage(verb,
				  "'%s': must be list, add, use or remove",
				  argv[0]);
	if (n - 1 < actions[i].least)
		cli_usage(verb, "%s: the ID of a key is missing", argv[0]);
	if (n - 1 > actions[i].most)
		cli_usage(verb, "'%s': too many arguments", argv[n - 1]);
	return &actions[i];
}

int cli_keys(int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'},
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct keys k = {.json = false};
	const char *given = NULL;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, keys_help)) >= 0) {
		if (c == 'm')
			given = optarg;
		k.json |= c == 'j';
	}
	const struct action *a =
		find_action(argv[0], argv + optind, argc - optind);
	k.argument = argc - optind > 1 ? argv[optind + 1] : NULL;
	int rc = cli_mount_find(argv[0], given, &k.mount);
	if (rc != EX_OK)
		return rc;
	rc = a->run(&k);
	cli_mount_finish(&k.mount);
	return rc;
}
