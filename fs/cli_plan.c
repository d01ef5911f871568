/* SPDX-License-Identifier: MIT */
/* ring --plan: what would move if nodes came, went, or had another weight. The
 * plan is the one that every node would make of that change (ring_plan); a
 * newcomer has no id yet, so which of equal shares is a vnode larger may differ.
 */
#include "fs/cli.h"
#include "fs/cli_nodes.h"
#include "fs/cli_table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/text.h"
#include "fs/util.h"
#include "ring/ring.h"

#define TRIES 5 /* while the placement changes under our eyes */

/* The nodes, by their place in both arrays; and the ring. */
struct plan {
	struct ring_plan_node *nodes;
	char **names;
	uint32_t n;
	uint32_t n_vnodes;
	uint32_t *before, *after; /* of each vnode: the owner's place */
	uint32_t *keys;		  /* in each vnode */
};

static void plan_finish(struct plan *p)
{
	for (uint32_t i = 0; i < p->n; i++)
		free(p->names[i]);
	free(p->names);
	free(p->nodes);
	free(p->before);
	free(p->after);
	free(p->keys);
}

/* ---- Changes: NAME:WEIGHT ---- */

/* Where the weight begins; NULL if it is none. */
static const char *weight_in(const char *change)
{
	const char *colon = strrchr(change, ':');
	size_t n = colon == NULL ? 0 : strspn(colon + 1, "0123456789");

	if (colon == change || n == 0 || n > 5 || colon[1 + n] != '\0' ||
	    strtoul(colon + 1, NULL, 10) > RING_WEIGHT_MAX)
		return NULL;
	return colon + 1;
}

void nodes_check_changes(const char *verb, char **changes, int n)
{
	if (n == 0)
		cli_usage(verb, "--plan: NAME:WEIGHT is missing");
	for (int i = 0; i < n; i++)
		if (weight_in(changes[i]) == NULL)
			cli_usage(verb, "'%s': must be NAME:WEIGHT, 0 to %d",
				  changes[i], RING_WEIGHT_MAX);
}

static uint32_t find(const struct plan *p, const char *name)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (strcmp(p->names[i], name) == 0)
			return i;
	return RING_NONE;
}

static struct ring_plan_node *add(struct plan *p, char *name)
{
	p->nodes = xrealloc(p->nodes, (p->n + 1) * sizeof(*p->nodes));
	p->names = xrealloc(p->names, (p->n + 1) * sizeof(*p->names));
	p->names[p->n] = name;
	p->nodes[p->n] = (struct ring_plan_node){.owner = p->n};
	return &p->nodes[p->n++];
}

/* A newcomer's id is behind all others'. */
static int change(struct plan *p, const char *text)
{
	const char *weight = weight_in(text);
	char *name = xasprintf("%.*s", (int)(weight - 1 - text), text);
	uint32_t i = find(p, name);
	uint32_t w = (uint32_t)strtoul(weight, NULL, 10);

	if (i != RING_NONE) {
		p->nodes[i].weight = w;
		free(name);
		return EX_OK;
	}
	if (w == 0) {
		cli_say("ring", "'%s': there is no such node", name);
		free(name);
		return 1;
	}
	struct ring_plan_node *node = add(p, name);

	memset(&node->id, 0xff, sizeof(node->id));
	node->id.byte[sizeof(node->id) - 1] = (uint8_t)p->n;
	node->weight = w;
	return EX_OK;
}

/* ---- What is so ---- */

static void read_id(const char *hex, struct ring_id *out)
{
	for (size_t i = 0; i < sizeof(out->byte) && strlen(hex) > 2 * i + 1;
	     i++) {
		char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		out->byte[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
}

static bool counts(const json_t *node)
{
	const char *state = nodes_word(node, "state");

	return !json_is_false(json_object_get(node, "placed")) &&
	       (nodes_number(node, "vnodes") > 0 ||
		strcmp(state, "alive") == 0 || strcmp(state, "suspect") == 0);
}

static void read_nodes(struct plan *p, const json_t *document)
{
	const json_t *node;
	size_t i;

	json_array_foreach(json_object_get(document, "nodes"), i, node)
	{
		if (!counts(node))
			continue;
		struct ring_plan_node *n =
			add(p, xstrdup(nodes_word(node, "name")));

		read_id(nodes_word(node, "id"), &n->id);
		if (!json_is_true(json_object_get(node, "draining")) &&
		    strcmp(nodes_word(node, "role"), "client") != 0)
			n->weight = (uint32_t)nodes_number(node, "weight");
	}
}

/* Lines of `VNODE NAME`. */
static int read_owners(struct plan *p, const struct cli_mount *m)
{
	struct text text = {0};
	int rc = cli_read_file(m->fd, "status/vnodes", &text);

	if (rc != 0)
		return rc;
	text_add(&text, "", 1);
	char *rest = text.base, *line;

	for (uint32_t v = 0; v < p->n_vnodes; v++) {
		line = strsep(&rest, "\n");
		char *name = line == NULL ? NULL : strchr(line, ' ');

		p->before[v] = name == NULL ? RING_NONE : find(p, name + 1);
	}
	text_finish(&text);
	return 0;
}

static int count_keys(struct plan *p, const struct cli_mount *m)
{
	int fd = openat(m->fd, "keys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (dir == NULL) {
		int rc = -errno;

		if (fd >= 0)
			close(fd);
		return rc;
	}
	while ((e = readdir(dir)) != NULL)
		if (e->d_name[0] != '.')
			p->keys[ring_vnode_in(e->d_name, strlen(e->d_name),
					      p->n_vnodes)]++;
	closedir(dir);
	return 0;
}

static long long epoch_now(const struct cli_mount *m)
{
	struct text text = {0};
	long long epoch = -1;

	if (cli_read_file(m->fd, "status/epoch", &text) == 0) {
		text_add(&text, "", 1);
		epoch = strtoll(text.base, NULL, 10);
	}
	text_finish(&text);
	return epoch;
}

static int read_once(struct plan *p, const struct cli_mount *m,
		     const json_t *document)
{
	read_nodes(p, document);
	p->n_vnodes = (uint32_t)nodes_number(
		json_object_get(document, "limits"), "vnodes");
	if (p->n_vnodes < 2 || p->n_vnodes > 65536 ||
	    (p->n_vnodes & (p->n_vnodes - 1)) != 0)
		return -EBADMSG;
	p->before = xcalloc(p->n_vnodes, sizeof(*p->before));
	p->keys = xcalloc(p->n_vnodes, sizeof(*p->keys));
	int rc = read_owners(p, m);

	return rc != 0 ? rc : count_keys(p, m);
}

/* All of one placement. The exit status. */
static int read_all(struct plan *p, const struct cli_mount *m)
{
	for (int i = 0; i < TRIES; i++) {
		json_t *document;
		int rc = nodes_ask("ring", m, &document);

		if (rc != EX_OK)
			return rc;
		long long epoch = nodes_number(document, "epoch");

		rc = read_once(p, m, document);
		json_decref(document);
		if (rc != 0)
			return cli_refused("ring", m->dir, rc, "");
		if (epoch_now(m) == epoch)
			return EX_OK;
		plan_finish(p);
		*p = (struct plan){0};
	}
	cli_say("ring", "the placement changes all the time; try again");
	return EX_TEMPFAIL;
}

/* ---- What would be ---- */

struct moved {
	uint32_t from, to;
	long long vnodes, keys;
};

static const char *name_of(const struct plan *p, uint32_t i)
{
	return i == RING_NONE ? "-" : p->names[i];
}

/* From whom to whom, in the order of the ring; *n of them. */
static struct moved *sum_up(const struct plan *p, size_t *n)
{
	struct moved *all = NULL;

	*n = 0;
	for (uint32_t v = 0; v < p->n_vnodes; v++) {
		size_t i = 0;

		if (p->before[v] == p->after[v])
			continue;
		while (i < *n && (all[i].from != p->before[v] ||
				  all[i].to != p->after[v]))
			i++;
		if (i == *n) {
			all = xrealloc(all, (*n + 1) * sizeof(*all));
			all[(*n)++] =
				(struct moved){p->before[v], p->after[v], 0, 0};
		}
		all[i].vnodes++;
		all[i].keys += p->keys[v];
	}
	return all;
}

static void put_table(const struct plan *p, const struct moved *all, size_t n)
{
	static const char *const titles[] = {"FROM", "TO", "VNODES", "KEYS"};
	struct cli_table t = {.n_columns = 4, .left = 3};
	struct text text = {0};

	for (size_t i = 0; i < t.n_columns; i++)
		cli_table_add(&t, titles[i]);
	for (size_t i = 0; i < n; i++) {
		cli_table_add(&t, name_of(p, all[i].from));
		cli_table_add(&t, name_of(p, all[i].to));
		cli_table_printf(&t, "%lld", all[i].vnodes);
		cli_table_printf(&t, "%lld", all[i].keys);
	}
	cli_table_put(&t, &text);
	cli_table_finish(&t);
	fwrite(text.base, 1, text.len, stdout);
	text_finish(&text);
}

static json_t *json_name(const struct plan *p, uint32_t i)
{
	return i == RING_NONE ? json_null() : json_string(p->names[i]);
}

static void put_json(const struct plan *p, const struct moved *all, size_t n)
{
	json_t *moves = json_array();
	long long vnodes = 0, keys = 0;

	for (size_t i = 0; i < n; i++) {
		vnodes += all[i].vnodes;
		keys += all[i].keys;
		json_array_append_new(
			moves, json_pack("{s:o, s:o, s:I, s:I}", "from",
					 json_name(p, all[i].from), "to",
					 json_name(p, all[i].to), "vnodes",
					 (json_int_t)all[i].vnodes, "keys",
					 (json_int_t)all[i].keys));
	}
	json_t *document =
		json_pack("{s:I, s:I, s:o}", "vnodes", (json_int_t)vnodes,
			  "keys", (json_int_t)keys, "moves", moves);

	if (document == NULL)
		abort(); /* untested: needs a machine out of memory */
	json_dumpf(document, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(document);
}

int nodes_plan(const struct cli_mount *m, char **changes, int n_changes,
	       bool json)
{
	struct plan p = {0};
	int rc = read_all(&p, m);
	size_t n;

	for (int i = 0; rc == EX_OK && i < n_changes; i++)
		rc = change(&p, changes[i]);
	if (rc == EX_OK) {
		p.after = xcalloc(p.n_vnodes, sizeof(*p.after));
		memcpy(p.after, p.before, p.n_vnodes * sizeof(*p.after));
		ring_plan(p.after, p.n_vnodes, p.nodes, p.n);
		struct moved *all = sum_up(&p, &n);

		if (json)
			put_json(&p, all, n);
		else
			put_table(&p, all, n);
		free(all);
	}
	plan_finish(&p);
	return rc;
}
