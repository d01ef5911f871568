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

static void set_known(json_t *o, const char *key, uint64_t value)
{
	if (value != PEER_UNKNOWN)
		set_number(o, key, value);
}

static void set_said(json_t *o, const char *key, const char *value)
{
	if (value[0] != '\0')
		set_shown(o, key, value);
}

/* placed: it has a part of this node's ring, or could. */
static json_t *node_of(const struct peer *p)
{
	json_t *o = json_object();

	set_name(o, "name", p->shown);
	set_id(o, "id", &p->id);
	set(o, "self", json_boolean(p->is_self));
	set(o, "placed", json_boolean(p->node != RING_NONE));
	set_said(o, "address", p->address);
	set(o, "state", json_string(peers_state_name(p->state)));
	if (p->incarnation != 0)
		set_number(o, "incarnation", p->incarnation);
	set_number(o, "boot", p->boot);
	set(o, "since", json_real((double)p->since_us / 1e6));
	set_known(o, "weight", p->weight);
	if (p->node != RING_NONE)
		set(o, "draining", json_boolean(p->is_draining));
	set_known(o, "vnodes", p->n_vnodes);
	set_known(o, "keys", p->n_keys);
	if (p->rtt_us != 0)
		set_number(o, "rtt_us", p->rtt_us);
	set_said(o, "version", p->version);
	set_said(o, "role", p->role);
	set_said(o, "suspected_by", p->accuser);
	return o;
}

static json_t *keyring_of(const struct cluster_stats *s)
{
	json_t *keys = json_array();
	char id[17];

	for (size_t i = 0; i < s->n_keys; i++) {
		json_t *o = json_object();

		snprintf(id, sizeof(id), "%016" PRIx64, s->keys[i].id);
		set(o, "id", json_string(id));
		set(o, "used", json_boolean(s->keys[i].is_used));
		set_number(o, "lack", s->keys[i].n_lack);
		json_array_append_new(keys, o);
	}
	return keys;
}

static json_t *refused_of(const struct cluster_stats *s)
{
	json_t *o = json_object();

	for (size_t i = 0; s->refused[i].reason != NULL; i++)
		set_number(o, s->refused[i].reason, s->refused[i].n);
	return o;
}

static json_t *gossip_of(const struct cluster_stats *s)
{
	json_t *o = json_object();

	set(o, "seal", json_string(s->seal));
	set_number(o, "alive", s->n_alive);
	set_number(o, "suspect", s->n_suspect);
	set_number(o, "dead", s->n_dead);
	set_number(o, "left", s->n_left);
	set_number(o, "health", s->health);
	set(o, "isolated", json_boolean(s->is_isolated));
	set_number(o, "packets_in", s->n_packets_in);
	set_number(o, "packets_out", s->n_packets_out);
	set_number(o, "bytes_in", s->bytes_in);
	set_number(o, "bytes_out", s->bytes_out);
	set_number(o, "streams_in", s->n_streams_in);
	set_number(o, "streams_out", s->n_streams_out);
	set_number(o, "stream_bytes_in", s->stream_bytes_in);
	set_number(o, "stream_bytes_out", s->stream_bytes_out);
	set_number(o, "send_errors", s->n_send_errors);
	set_number(o, "records", s->n_records);
	set_number(o, "record_bytes", s->record_bytes);
	set(o, "refused", refused_of(s));
	return o;
}

static json_t *quorum_of(const struct facts *f)
{
	json_t *o = json_object();

	set_number(o, "voters", f->status.n_voters);
	set_number(o, "standbys", f->status.n_standbys);
	set_number(o, "needed", facts_needed(f));
	if (f->expect != 0)
		set_number(o, "expect", f->expect);
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
	if (f->has_gossip) {
		set_id(o, "cluster", &f->gossip.cluster);
		set(o, "gossip", gossip_of(&f->gossip));
		set(o, "keyring", keyring_of(&f->gossip));
	}
	for (size_t i = 0; i < f->n_peers; i++)
		json_array_append_new(nodes, node_of(&f->peers[i]));
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
