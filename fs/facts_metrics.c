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

static uint64_t alive_of(const struct peer *p)
{
	return p->state == PEER_ALIVE;
}

static uint64_t weight_of(const struct peer *p)
{
	return p->weight;
}

static uint64_t vnodes_of(const struct peer *p)
{
	return p->n_vnodes;
}

static uint64_t keys_of(const struct peer *p)
{
	return p->n_keys;
}

/* A family without samples is an error to some readers. */
static void node_family(const struct facts *f, struct text *out,
			const char *name, const char *help,
			uint64_t (*value_of)(const struct peer *p))
{
	bool begun = false;

	for (size_t i = 0; i < f->n_peers; i++) {
		uint64_t value = value_of(&f->peers[i]);

		if (value == PEER_UNKNOWN)
			continue;
		if (!begun)
			head(out, name, "gauge", help);
		begun = true;
		text_printf(out, "ringfs_%s{node=\"", name);
		put_label(out, f->peers[i].shown);
		text_printf(out, "\"} %" PRIu64 "\n", value);
	}
}

static void put_nodes(const struct facts *f, struct text *out)
{
	gauge(out, "nodes", f->n_peers, "Nodes known.");
	node_family(f, out, "node_alive", "Whether the node is alive.",
		    alive_of);
	node_family(f, out, "node_weight", "Share of the ring asked for.",
		    weight_of);
	node_family(f, out, "node_vnodes", "Vnodes owned by the node.",
		    vnodes_of);
	node_family(f, out, "node_keys",
		    "Keys held by the node or offered to it.", keys_of);
}

static void put_members(const struct cluster_stats *s, struct text *out)
{
	const struct {
		const char *state;
		uint32_t n;
	} states[] = {{"alive", s->n_alive},
		      {"suspect", s->n_suspect},
		      {"dead", s->n_dead},
		      {"left", s->n_left}};

	head(out, "members", "gauge", "Members heard, by state.");
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		text_printf(out, "ringfs_members{state=\"%s\"} %" PRIu32 "\n",
			    states[i].state, states[i].n);
	gauge(out, "gossip_health", s->health,
	      "Lifeguard's score of this node; 0 is well.");
	gauge(out, "gossip_isolated", s->is_isolated,
	      "Whether no other member is heard.");
}

static void put_refused(const struct cluster_stats *s, struct text *out)
{
	if (s->refused[0].reason == NULL)
		return;
	head(out, "gossip_refused_total", "counter",
	     "Packets and streams that were not taken, by reason.");
	for (size_t i = 0; s->refused[i].reason != NULL; i++) {
		text_puts(out, "ringfs_gossip_refused_total{reason=\"");
		put_label(out, s->refused[i].reason);
		text_printf(out, "\"} %" PRIu64 "\n", s->refused[i].n);
	}
}

static void put_keyring(const struct cluster_stats *s, struct text *out)
{
	if (s->n_keys == 0)
		return;
	head(out, "keyring_lack", "gauge",
	     "Known members that have not confirmed the key.");
	for (size_t i = 0; i < s->n_keys; i++)
		text_printf(out,
			    "ringfs_keyring_lack{key=\"%016" PRIx64
			    "\",used=\"%d\"} %" PRIu32 "\n",
			    s->keys[i].id, s->keys[i].is_used,
			    s->keys[i].n_lack);
}

static void put_gossip(const struct cluster_stats *s, struct text *out)
{
	put_members(s, out);
	counter(out, "gossip_packets_received_total", s->n_packets_in,
		"Datagrams that came.");
	counter(out, "gossip_packets_sent_total", s->n_packets_out,
		"Datagrams that were sent.");
	counter(out, "gossip_received_bytes_total", s->bytes_in,
		"Bytes in datagrams that came.");
	counter(out, "gossip_sent_bytes_total", s->bytes_out,
		"Bytes in datagrams that were sent.");
	counter(out, "gossip_streams_accepted_total", s->n_streams_in,
		"Connections that were accepted.");
	counter(out, "gossip_streams_opened_total", s->n_streams_out,
		"Connections that were opened.");
	counter(out, "gossip_stream_received_bytes_total", s->stream_bytes_in,
		"Bytes that came by connections.");
	counter(out, "gossip_stream_sent_bytes_total", s->stream_bytes_out,
		"Bytes that were sent by connections.");
	counter(out, "gossip_send_errors_total", s->n_send_errors,
		"Datagrams that could not be sent.");
	put_refused(s, out);
	gauge(out, "gossip_records", s->n_records, "Replicated records.");
	gauge(out, "gossip_record_bytes", s->record_bytes,
	      "Size of the replicated records.");
	put_keyring(s, out);
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
	if (f->has_gossip)
		put_gossip(&f->gossip, out);
}
