/* SPDX-License-Identifier: MIT */
/* status/metrics.prom: Prometheus text format 0.0.4.
 *
 * One bad line makes a collector throw the whole file away, so the tests read it
 * with a strict parser. Base units; counters end in _total; no key's name is
 * ever a label, for there is no bound on them. */
#include "fs/facts.h"

#include <inttypes.h>
#include <string.h>

static void head(struct text *out, const char *name, const char *type,
		 const char *help)
{
	text_printf(out, "# HELP ringfs_%s %s\n# TYPE ringfs_%s %s\n", name,
		    help, name, type);
}

static void gauge(struct text *out, const char *name, uint64_t value,
		  const char *help)
{
	head(out, name, "gauge", help);
	text_printf(out, "ringfs_%s %" PRIu64 "\n", name, value);
}

static void counter(struct text *out, const char *name, uint64_t value,
		    const char *help)
{
	head(out, name, "counter", help);
	text_printf(out, "ringfs_%s %" PRIu64 "\n", name, value);
}

/* A label's value: UTF-8, with backslash and quote escaped; a clean name has no
 * newline. */
static void put_label(struct text *out, const char *name)
{
	struct text shown = {0};

	facts_put_name(&shown, name);
	for (size_t i = 0; i < shown.len; i++) {
		if (shown.base[i] == '\\' || shown.base[i] == '"')
			text_add(out, "\\", 1);
		text_add(out, &shown.base[i], 1);
	}
	text_finish(&shown);
}

static void node_sample(struct text *out, const char *name,
			const struct ring_node *node, uint64_t value)
{
	text_printf(out, "ringfs_%s{node=\"", name);
	put_label(out, node->name);
	text_printf(out, "\"} %" PRIu64 "\n", value);
}

static void put_nodes(const struct facts *f, struct text *out)
{
	gauge(out, "nodes", f->n_nodes, "Nodes known.");
	if (f->n_nodes == 0)
		return;
	head(out, "node_alive", "gauge", "Whether the node is alive.");
	for (uint32_t i = 0; i < f->n_nodes; i++)
		node_sample(out, "node_alive", f->nodes[i],
			    facts_is_alive(f, i));
	head(out, "node_weight", "gauge", "Share of the ring asked for.");
	for (uint32_t i = 0; i < f->n_nodes; i++)
		node_sample(out, "node_weight", f->nodes[i],
			    f->nodes[i]->weight);
	head(out, "node_vnodes", "gauge", "Vnodes owned by the node.");
	for (uint32_t i = 0; i < f->n_nodes; i++)
		node_sample(out, "node_vnodes", f->nodes[i],
			    f->nodes[i]->n_vnodes);
	head(out, "node_keys", "gauge",
	     "Keys held by the node or offered to it.");
	for (uint32_t i = 0; i < f->n_nodes; i++)
		node_sample(out, "node_keys", f->nodes[i], f->nodes[i]->n_keys);
}

static void put_status(const struct facts *f, struct text *out)
{
	const struct ring_status *s = &f->status;

	head(out, "build_info", "gauge", "Always 1; the version is a label.");
	text_puts(out, "ringfs_build_info{version=\"");
	put_label(out, f->version);
	text_puts(out, "\"} 1\n");
	gauge(out, "ready", strcmp(facts_state(f), "ready") == 0,
	      "Whether status/state reads ready.");
	gauge(out, "writable", facts_writable(f),
	      "Whether changes are accepted.");
	gauge(out, "leader", f->self != RING_NONE && s->leader == f->self,
	      "Whether this node leads the log.");
	gauge(out, "term", s->term, "Term of the log.");
	gauge(out, "index", s->index, "Last entry of the log applied.");
	gauge(out, "epoch", s->epoch, "Epoch of the placement.");
	gauge(out, "vnodes", f->settings.vnodes, "Vnodes of the ring.");
	gauge(out, "voters", s->n_voters, "Nodes that vote on the log.");
	gauge(out, "standbys", s->n_standbys,
	      "Nodes that follow the log without a vote.");
	gauge(out, "log_bytes", s->log_bytes, "Size of the log on disk.");
	counter(out, "log_entries_total", s->n_entries,
		"Entries appended to the log.");
	counter(out, "log_syncs_total", s->n_syncs,
		"Flushes of the log to the disk.");
}

static void put_keys(const struct facts *f, struct text *out)
{
	const struct facts_events *e = &f->events;

	gauge(out, "keys", f->counts[RING_VIEW_KEYS],
	      "Unfinished keys of the cluster.");
	gauge(out, "keys_owned", f->counts[RING_VIEW_OWNED],
	      "Keys this node works on.");
	gauge(out, "keys_recovering", f->counts[RING_VIEW_RECOVER],
	      "Keys offered to this node.");
	gauge(out, "keys_releasing", f->counts[RING_VIEW_RELEASE],
	      "Keys this node is asked to let go.");
	gauge(out, "keys_parked", f->counts[RING_VIEW_PARKED],
	      "Keys that failed too often.");
	counter(out, "claims_total", e->claims, "Keys claimed.");
	counter(out, "submits_total", e->submits, "Keys submitted.");
	counter(out, "finishes_total", e->finishes, "Keys finished.");
	counter(out, "offers_total", e->offers, "Keys offered to this node.");
	counter(out, "takes_total", e->takes, "Keys taken by this node.");
	counter(out, "gives_total", e->gives, "Keys given back by this node.");
	counter(out, "parks_total", e->parks, "Keys parked.");
	counter(out, "retries_total", e->retries, "Parked keys tried again.");
	counter(out, "notes_total", e->notes, "Notes written.");
	counter(out, "changes_total", e->changes, "Changes of keys seen.");
}

static void put_herald(const struct facts *f, struct text *out)
{
	const struct herald_stats *h = &f->herald;

	gauge(out, "herald_waiting", h->waiting,
	      "Announcements that wait for the herald.");
	counter(out, "herald_announced_total", h->announced,
		"Changes announced to watchers.");
	counter(out, "herald_dropped_total", h->dropped,
		"Announcements dropped because too many waited.");
	counter(out, "herald_failed_total", h->failed,
		"Announcements that failed.");
	counter(out, "herald_restarts_total", h->restarts,
		"Restarts of the herald.");
}

void facts_metrics(const struct facts *f, struct text *out)
{
	put_status(f, out);
	put_nodes(f, out);
	put_keys(f, out);
	put_herald(f, out);
}
