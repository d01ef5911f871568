/* SPDX-License-Identifier: MIT */
/* status/json: all that status/ and peers/ say, as one document.
 *
 * JSON is Unicode, a name is bytes: beside each name stands NAME_encoded, true
 * when the string is the percent-encoded form. Words are those of the flat-keyed
 * files; the hash is a string, since readers turn large numbers into doubles. */
#include "fs/facts.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "fs/util.h"

/* Out of memory is all that can fail here: it stops the program. */
static void set(json_t *object, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, value) != 0)
		abort(); /* untested: needs a machine out of memory */
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
	set(object, key, json_integer((json_int_t)value));
}

static void set_numbers(json_t *object, const struct facts_number *n)
{
	for (; n->word; n++)
		set_number(object, n->word, n->value);
}

static json_t *string_of(const struct text *x)
{
	return json_stringn(x->base ? x->base : "", x->len);
}

static void set_shown(json_t *object, const char *key, const char *value)
{
	struct text shown = {0};

	facts_put_name(&shown, value);
	set(object, key, string_of(&shown));
	text_finish(&shown);
}

/* What a program may want to open: it must know whether it was encoded. */
static void set_name(json_t *object, const char *key, const char *name)
{
	char *flag = xasprintf("%s_encoded", key);

	set_shown(object, key, name);
	set(object, flag, json_boolean(!facts_is_clean(name)));
	free(flag);
}

static void set_id(json_t *object, const char *key, const struct ring_id *id)
{
	struct text hex = {0};

	facts_put_id(&hex, id);
	set(object, key, string_of(&hex));
	text_finish(&hex);
}

static json_t *node_of(const struct facts *f, uint32_t index)
{
	const struct ring_node *node = f->nodes[index];
	json_t *o = json_object();

	set_name(o, "name", node->name);
	set_id(o, "id", &node->id);
	set(o, "self", json_boolean(index == f->self));
	set(o, "state",
	    json_string(facts_is_alive(f, index) ? "alive" : "dead"));
	set_number(o, "boot", node->boot);
	set(o, "since", json_real((double)node->up_us / 1e6));
	set_number(o, "weight", node->weight);
	set_number(o, "vnodes", node->n_vnodes);
	set_number(o, "keys", node->n_keys);
	if (facts_role(f))
		set(o, "role", json_string(facts_role(f)));
	return o;
}

static json_t *quorum_of(const struct facts *f)
{
	json_t *o = json_object();

	set_number(o, "voters", f->status.n_voters);
	set_number(o, "standbys", f->status.n_standbys);
	set_number(o, "needed", facts_needed(f));
	return o;
}

static json_t *limits_of(const struct facts *f)
{
	struct facts_number numbers[FACTS_MAX_NUMBERS];
	uint32_t handover = f->settings.handover_timeout_ms;
	json_t *o = json_object();

	facts_list_limits(f, numbers);
	set_numbers(o, numbers);
	set(o, "handover_timeout_ms",
	    handover ? json_integer(handover) : json_null());
	return o;
}

static json_t *events_of(const struct facts *f)
{
	struct facts_number numbers[FACTS_MAX_NUMBERS];
	json_t *o = json_object();

	facts_list_events(f, numbers);
	set_numbers(o, numbers);
	return o;
}

static json_t *herald_of(const struct facts *f)
{
	const struct herald_stats *h = &f->herald;
	json_t *o = json_object();

	if (h->pid != 0)
		set_number(o, "pid", (uint64_t)h->pid);
	else /* being replaced */
		json_object_set_new(o, "pid", json_null());
	set_number(o, "waiting", h->waiting);
	set_number(o, "announced", h->announced);
	set_number(o, "dropped", h->dropped);
	set_number(o, "failed", h->failed);
	set_number(o, "restarts", h->restarts);
	return o;
}

static json_t *log_of(const struct facts *f)
{
	json_t *o = json_object();

	set_number(o, "bytes", f->status.log_bytes);
	set_number(o, "entries", f->status.n_entries);
	set_number(o, "syncs", f->status.n_syncs);
	return o;
}

/* Who we are. */
static void set_self(json_t *o, const struct facts *f)
{
	if (f->self < f->n_nodes)
		set_name(o, "name", f->nodes[f->self]->name);
	set(o, "version", json_string(f->version));
	set_number(o, "pid", (uint64_t)f->pid);
	set_name(o, "mountpoint", f->mountpoint);
	if (f->address)
		set_shown(o, "address", f->address);
}

/* How it stands with the cluster: the one-line files. */
static void set_status(json_t *o, const struct facts *f)
{
	const struct ring_status *s = &f->status;
	char hash[17];

	set(o, "state", json_string(facts_state(f)));
	set(o, "writable", json_boolean(facts_writable(f)));
	set_shown(o, "reason", s->reason);
	if (s->leader < f->n_nodes)
		set_name(o, "leader", facts_node_name(f, s->leader));
	else
		set(o, "leader", json_null());
	set_number(o, "term", s->term);
	set_number(o, "index", s->index);
	snprintf(hash, sizeof(hash), "%016" PRIx64, s->hash);
	set(o, "hash", json_string(hash));
	set_number(o, "epoch", s->epoch);
	set(o, "quorum", quorum_of(f));
}

void facts_json(const struct facts *f, struct text *out)
{
	struct facts_number counts[FACTS_MAX_NUMBERS];
	json_t *o = json_object(), *nodes = json_array();

	set_self(o, f);
	set_status(o, f);
	facts_list_counts(f, counts);
	set_numbers(o, counts);
	set(o, "claims",
	    json_string(f->settings.claims == RING_CLAIMS_ANY ? "any"
							      : "owner"));
	set(o, "limits", limits_of(f));
	set(o, "events", events_of(f));
	set(o, "herald", herald_of(f));
	set(o, "log", log_of(f));
	for (uint32_t i = 0; i < f->n_nodes; i++)
		json_array_append_new(nodes, node_of(f, i));
	set(o, "nodes", nodes);

	char *document =
		json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(16));
	if (document == NULL)
		abort(); /* untested: as in set() */
	text_puts(out, document);
	text_puts(out, "\n");
	free(document);
	json_decref(o);
}
