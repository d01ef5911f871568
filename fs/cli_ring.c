/* SPDX-License-Identifier: MIT */
/* ring and members: the nodes, and who owns how much. All of it comes from one
 * reading of status/json, which says what peers/ says, of one instant. */
#include "fs/cli.h"
#include "fs/cli_table.h"
#include "fs/cli_nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "fs/text.h"

#define ASK_MS 5000 /* no answer for so long is no daemon */

static const char ring_help[] =
	"Usage: ringfs ring [OPTION]...\n"
	"       ringfs ring --plan [OPTION]... NAME:WEIGHT...\n"
	"Show who owns how much of the ring: a line per node that has a part\n"
	"in it, with its vnodes, its share per cent, the keys it holds or is\n"
	"offered, its weight and its state.\n"
	"\n"
	"With --plan: show what would move, from whom to whom, if each NAME\n"
	"had that WEIGHT: 0 is a node that goes, a new NAME one that comes. A\n"
	"line for each two, with the vnodes and the unfinished keys in them.\n"
	"Nothing is changed.\n"
	"\n"
	"Options:\n"
	"      --json         one JSON document\n"
	"      --plan         what would move\n"
	"      --svg          a picture\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 shown; 1 --plan: no such node; 64 usage; 69 no\n"
	"daemon; 71 the system refused; 75 --plan: the ring changes all the\n"
	"time; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs ring --plan n4:100 n1:0\n"
	"  ringfs ring --svg > ring.svg\n"
	"  ringfs ring --json | jq '.nodes[] | select(.share > 50)'\n";

static const char members_help[] =
	"Usage: ringfs members [OPTION]...\n"
	"Show the members of the cluster, a line each: all that were heard,\n"
	"dead ones until they are forgotten. What is not known is '-'; SINCE,\n"
	"in UTC, is when the state began.\n"
	"\n"
	"Options:\n"
	"      --json         one JSON document\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 shown; 64 usage; 69 no daemon; 71 the system\n"
	"refused; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs members\n"
	"  ringfs members | awk '$2 != \"alive\"'\n"
	"  ringfs members --json | jq -r '.nodes[].name'\n";

/* ---- Shared with top ---- */

int nodes_ask(const char *verb, const struct cli_mount *m, json_t **out)
{
	struct text text = {0};
	int rc = cli_ask_status(m, ASK_MS, &text);

	if (rc == 0) {
		*out = json_loadb(text.base == NULL ? "" : text.base, text.len,
				  0, NULL);
		rc = *out == NULL ? -EBADMSG : 0;
	}
	text_finish(&text);
	if (rc == 0)
		return EX_OK;
	char *dir = cli_printable(m->dir);
	cli_say(verb, "'%s': %s", dir,
		rc == -ETIMEDOUT  ? "the daemon does not answer"
		: rc == -ENOTCONN ? "the daemon is dead; mount again"
		: rc == -EBADMSG  ? "status/json is no JSON"
		: rc == -ENOENT	  ? "no ringfs is mounted here"
				  : strerror(-rc));
	free(dir);
	return rc == -ETIMEDOUT || rc == -ENOENT ? EX_UNAVAILABLE
						 : cli_status_of(rc);
}

long long nodes_number(const json_t *object, const char *name)
{
	return (long long)json_integer_value(json_object_get(object, name));
}

const char *nodes_word(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s != NULL && s[0] != '\0' ? s : "-";
}

static long long all_vnodes(const json_t *document)
{
	return nodes_number(json_object_get(document, "limits"), "vnodes");
}

/* Others are members of the cluster, but not of this node's ring. */
static bool is_placed(const json_t *node)
{
	return !json_is_false(json_object_get(node, "placed"));
}

/* Those that nobody owns. */
static long long left_vnodes(const json_t *document)
{
	long long n = all_vnodes(document);
	const json_t *node;
	size_t i;

	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (is_placed(node))
			n -= nodes_number(node, "vnodes");
	}
	return n;
}

static double share(const json_t *document, long long vnodes)
{
	long long all = all_vnodes(document);

	return all > 0 ? 100.0 * (double)vnodes / (double)all : 0;
}

void nodes_put_shares(const json_t *document, struct text *out)
{
	static const char *const titles[] = {"NAME", "VNODES", "SHARE%",
					     "KEYS", "WEIGHT", "STATE"};
	struct cli_table t = {.n_columns = 6, .left = 1u << 0 | 1u << 5};
	long long left = left_vnodes(document);
	const json_t *node;
	size_t i;

	for (i = 0; i < t.n_columns; i++)
		cli_table_add(&t, titles[i]);
	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		long long vnodes = nodes_number(node, "vnodes");
		if (!is_placed(node))
			continue;
		cli_table_add(&t, nodes_word(node, "name"));
		cli_table_printf(&t, "%lld", vnodes);
		cli_table_printf(&t, "%.2f", share(document, vnodes));
		cli_table_printf(&t, "%lld", nodes_number(node, "keys"));
		cli_table_printf(&t, "%lld", nodes_number(node, "weight"));
		cli_table_add(&t, nodes_word(node, "state"));
	}
	if (left > 0) {
		cli_table_add(&t, "-");
		cli_table_printf(&t, "%lld", left);
		cli_table_printf(&t, "%.2f", share(document, left));
		for (i = 0; i < 3; i++)
			cli_table_add(&t, "-");
	}
	cli_table_put(&t, out);
	cli_table_finish(&t);
}

/* ---- The verbs ---- */

enum form {
	FORM_TABLE,
	FORM_JSON,
	FORM_SVG
};

static void print(struct text *text)
{
	fwrite(text->base, 1, text->len, stdout);
	text_finish(text);
}

static void print_json(json_t *document)
{
	json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(16));
	putchar('\n');
	json_decref(document);
}

static json_t *must(json_t *value)
{
	if (value == NULL)
		abort(); /* untested: needs a machine out of memory */
	return value;
}

static json_t *share_of(const json_t *document, json_t *node)
{
	static const char *const names[] = {"name",   "name_encoded", "self",
					    "vnodes", "keys",	      "weight",
					    "state"};
	json_t *o = must(json_object());
	double part = share(document, nodes_number(node, "vnodes"));

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		json_object_set(o, names[i], json_object_get(node, names[i]));
	/* Two decimals, as in the table. */
	json_object_set_new(
		o, "share",
		json_real((double)(long long)(part * 100 + 0.5) / 100));
	return o;
}

static void ring_json(const json_t *document)
{
	json_t *nodes = must(json_array()), *node;
	size_t i;

	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (is_placed(node))
			json_array_append_new(nodes, share_of(document, node));
	}
	print_json(must(json_pack(
		"{s:I, s:I, s:o}", "vnodes", (json_int_t)all_vnodes(document),
		"unowned", (json_int_t)left_vnodes(document), "nodes", nodes)));
}

static int ring_svg(const struct cli_mount *m)
{
	struct text picture = {0};
	int rc = cli_read_file(m->fd, "status/ring.svg", &picture);

	if (rc == 0) {
		print(&picture);
		return EX_OK;
	}
	text_finish(&picture);
	return cli_refused("ring", "status/ring.svg", rc, "");
}

static int show_ring(const struct cli_mount *m, enum form form)
{
	struct text text = {0};
	json_t *document;

	if (form == FORM_SVG)
		return ring_svg(m);
	int rc = nodes_ask("ring", m, &document);
	if (rc != EX_OK)
		return rc;
	if (form == FORM_JSON) {
		ring_json(document);
	} else {
		nodes_put_shares(document, &text);
		print(&text);
	}
	json_decref(document);
	return EX_OK;
}

static void add_since(struct cli_table *t, const json_t *node)
{
	time_t since =
		(time_t)json_number_value(json_object_get(node, "since"));
	struct tm tm;
	char text[32];

	if (since == 0 || gmtime_r(&since, &tm) == NULL) {
		cli_table_add(t, "-");
		return;
	}
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cli_table_add(t, text);
}

/* It may have said nothing of itself yet. */
static void add_number(struct cli_table *t, const json_t *node,
		       const char *name)
{
	if (json_object_get(node, name) == NULL)
		cli_table_add(t, "-");
	else
		cli_table_printf(t, "%lld", nodes_number(node, name));
}

static void put_members(const json_t *document, struct text *out)
{
	static const char *const titles[] = {"NAME",	"STATE",  "ROLE",
					     "WEIGHT",	"KEYS",	  "SINCE",
					     "VERSION", "ADDRESS"};
	struct cli_table t = {.n_columns = 8, .left = 0xe7};
	const json_t *node;
	size_t i;

	for (i = 0; i < t.n_columns; i++)
		cli_table_add(&t, titles[i]);
	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		cli_table_add(&t, nodes_word(node, "name"));
		cli_table_add(&t, nodes_word(node, "state"));
		cli_table_add(&t, nodes_word(node, "role"));
		add_number(&t, node, "weight");
		add_number(&t, node, "keys");
		add_since(&t, node);
		cli_table_add(&t, nodes_word(node, "version"));
		cli_table_add(&t, nodes_word(node, "address"));
	}
	cli_table_put(&t, out);
	cli_table_finish(&t);
}

static int show_members(const struct cli_mount *m, enum form form)
{
	struct text text = {0};
	json_t *document;
	int rc = nodes_ask("members", m, &document);

	if (rc != EX_OK)
		return rc;
	if (form == FORM_JSON) {
		print_json(must(json_pack("{s:O}", "nodes",
					  json_object_get(document, "nodes"))));
	} else {
		put_members(document, &text);
		print(&text);
	}
	json_decref(document);
	return EX_OK;
}

static int run(int argc, char **argv, const struct option *longs,
	       const char *help,
	       int (*show)(const struct cli_mount *m, enum form form))
{
	enum form form = FORM_TABLE;
	const char *given = NULL;
	struct cli_mount m;
	bool plans = false;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, help)) >= 0) {
		enum form asked = c == 'j' ? FORM_JSON : FORM_SVG;
		if (c == 'm') {
			given = optarg;
			continue;
		}
		if (c == 'p') {
			plans = true;
			continue;
		}
		if (form != FORM_TABLE && form != asked)
			cli_usage(argv[0], "--json and --svg are both given");
		form = asked;
	}
	if (plans && form == FORM_SVG)
		cli_usage(argv[0], "--plan and --svg are both given");
	if (plans)
		nodes_check_changes(argv[0], argv + optind, argc - optind);
	else if (optind < argc)
		cli_usage(argv[0], "'%s': no argument is wanted", argv[optind]);
	int rc = cli_mount_find(argv[0], given, &m);
	if (rc != EX_OK)
		return rc;
	rc = plans ? nodes_plan(&m, argv + optind, argc - optind,
				form == FORM_JSON)
		   : show(&m, form);
	cli_mount_finish(&m);
	return rc;
}

int cli_members(int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'},
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};

	return run(argc, argv, longs, members_help, show_members);
}

int cli_ring(int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'},
		{"svg", no_argument, NULL, 's'},
		{"plan", no_argument, NULL, 'p'},
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};

	return run(argc, argv, longs, ring_help, show_ring);
}
