/* SPDX-License-Identifier: MIT */
#include "fs/facts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fs/batch.h"
#include "fs/json.h"
#include "fs/log.h"
#include "fs/util.h"

#define BIT(view) (1u << (view))

/* A key becomes visible with the reason it was made for and its first token, and
 * is gone when its life is over. TAKE and GIVE are seen by the node that holds the key only; the
 * state tells a give from keys that are hidden because the lease ran out. */
void facts_count(struct facts_events *e, const struct ring_change *change)
{
	const struct ring_key *key = change->key;
	unsigned gone = change->before & ~change->after;
	unsigned come = change->after & ~change->before;

	e->changes++;
	e->notes += change->note;
	e->finishes += change->removed;
	if (change->removed)
		return;
	if (come & BIT(RING_VIEW_KEYS)) {
		e->claims +=
			key->reason == RING_CLAIMED && key->token == key->id;
		e->submits += key->reason == RING_SUBMITTED;
	}
	e->parks += (come & BIT(RING_VIEW_PARKED)) != 0;
	e->retries += (gone & BIT(RING_VIEW_PARKED)) != 0;
	e->offers += (come & BIT(RING_VIEW_RECOVER)) != 0;
	e->takes += (gone & BIT(RING_VIEW_RECOVER)) != 0 &&
		    (come & BIT(RING_VIEW_OWNED)) != 0;
	e->gives += (gone & BIT(RING_VIEW_OWNED)) != 0 &&
		    key->state == RING_OFFERED &&
		    key->reason == RING_GIVEN_BACK;
}

void facts_gather(struct facts *f, const struct ring *r, const struct herald *h,
		  bool owners)
{
	ring_status(r, &f->status);
	f->settings = *ring_settings(r);
	f->self = ring_self(r);
	for (int view = 0; view < RING_N_VIEWS; view++)
		f->counts[view] = ring_count(r, (enum ring_view)view);
	f->herald = (struct herald_stats){0};
	if (h)
		herald_stats(h, &f->herald);

	f->n_nodes = 0;
	while (ring_node(r, f->n_nodes))
		f->n_nodes++;
	f->nodes = xcalloc(f->n_nodes + 1, sizeof(f->nodes[0]));
	for (uint32_t i = 0; i < f->n_nodes; i++)
		f->nodes[i] = ring_node(r, i);

	f->owners = NULL;
	if (!owners)
		return;
	f->owners = xcalloc(f->settings.vnodes, sizeof(f->owners[0]));
	for (uint32_t v = 0; v < f->settings.vnodes; v++)
		f->owners[v] = ring_vnode_owner(r, v);
}

void facts_finish(struct facts *f)
{
	free(f->nodes);
	free(f->owners);
	free(f->peers);
	cluster_stats_finish(&f->gossip);
	f->nodes = NULL;
	f->owners = NULL;
	f->peers = NULL;
}

/* ---- What the renderers share ---- */

/* `isolated` says that there is no majority, nothing else. With a full or failed
 * disk the node is in the cluster and answers every read: it stays `ready`, and
 * `writable` and `reason` say what it refuses. */
const char *facts_state(const struct facts *f)
{
	if (f->status.is_leaving)
		return "leaving";
	switch (f->status.health) {
	case RING_JOINING:
		return "joining";
	case RING_ISOLATED:
		return "isolated";
	case RING_DRAINING:
		return "draining";
	case RING_READY:
	case RING_FAILED:
	case RING_FULL:
		break;
	}
	return "ready";
}

bool facts_writable(const struct facts *f)
{
	return f->status.health == RING_READY;
}

uint32_t facts_needed(const struct facts *f)
{
	return f->status.n_voters / 2 + 1;
}

bool facts_is_alive(const struct facts *f, uint32_t index)
{
	assert(index < f->n_nodes);
	return index == f->self || f->nodes[index]->up;
}

const char *facts_node_name(const struct facts *f, uint32_t index)
{
	return index < f->n_nodes ? f->nodes[index]->name : "";
}

void facts_put_id(struct text *out, const struct ring_id *id)
{
	for (size_t i = 0; i < sizeof(id->byte); i++)
		text_printf(out, "%02x", id->byte[i]);
}

bool facts_is_clean(const char *name)
{
	const unsigned char *s = (const unsigned char *)name;

	if (!json_is_utf8(name, strlen(name)))
		return false;
	for (; *s; s++) {
		if (*s < 0x20 || *s == 0x7f)
			return false;
		if (s[0] == 0xc2 && s[1] < 0xa0) /* U+0080 to U+009F */
			return false;
		if (s[0] == 0xef && s[1] == 0xbf && s[2] >= 0xbe)
			return false; /* U+FFFE, U+FFFF: not in XML */
	}
	return true;
}

void facts_put_name(struct text *out, const char *s)
{
	if (facts_is_clean(s)) {
		text_puts(out, s);
		return;
	}
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c > 0x20 && c < 0x7f && c != '%')
			text_add(out, s, 1);
		else
			text_printf(out, "%%%02X", c);
	}
}

void facts_list_events(const struct facts *f,
		       struct facts_number out[FACTS_MAX_NUMBERS])
{
	const struct facts_events *e = &f->events;
	const struct facts_number all[] = {
		{"claims", e->claims},	   {"submits", e->submits},
		{"finishes", e->finishes}, {"offers", e->offers},
		{"takes", e->takes},	   {"gives", e->gives},
		{"parks", e->parks},	   {"retries", e->retries},
		{"notes", e->notes},	   {"changes", e->changes},
		{"status", e->status},	   {NULL, 0},
	};

	_Static_assert(sizeof(all) / sizeof(all[0]) <= FACTS_MAX_NUMBERS, "");
	memcpy(out, all, sizeof(all));
}

void facts_list_limits(const struct facts *f,
		       struct facts_number out[FACTS_MAX_NUMBERS])
{
	const struct ring_settings *s = &f->settings;
	const struct facts_number all[] = {
		{"name_bytes", RING_NAME_MAX},
		{"note_bytes", RING_NOTE_MAX},
		{"batch_ops", BATCH_OPS_MAX},
		{"vnodes", s->vnodes},
		{"max_attempts", s->max_attempts},
		{"lease_ms", s->lease_ms},
		{"calm_ms", s->calm_ms},
		{NULL, 0},
	};

	_Static_assert(sizeof(all) / sizeof(all[0]) <= FACTS_MAX_NUMBERS, "");
	memcpy(out, all, sizeof(all));
}

void facts_list_counts(const struct facts *f,
		       struct facts_number out[FACTS_MAX_NUMBERS])
{
	const struct facts_number all[] = {
		{"keys", f->counts[RING_VIEW_KEYS]},
		{"owned", f->counts[RING_VIEW_OWNED]},
		{"recovering", f->counts[RING_VIEW_RECOVER]},
		{"releasing", f->counts[RING_VIEW_RELEASE]},
		{"parked", f->counts[RING_VIEW_PARKED]},
		{NULL, 0},
	};

	_Static_assert(sizeof(all) / sizeof(all[0]) <= FACTS_MAX_NUMBERS, "");
	memcpy(out, all, sizeof(all));
}

/* ---- peers/NAME ---- */

static void put_known(struct text *out, const char *word, uint64_t value)
{
	if (value != PEER_UNKNOWN)
		text_printf(out, "%s %" PRIu64 "\n", word, value);
}

/* What a member said of itself may be any bytes. */
static void put_said(struct text *out, const char *word, const char *value)
{
	if (value[0] == '\0')
		return;
	text_printf(out, "%s ", word);
	facts_put_name(out, value);
	text_puts(out, "\n");
}

void facts_peer(const struct peer *p, struct text *out)
{
	text_puts(out, "id ");
	facts_put_id(out, &p->id);
	text_puts(out, "\n");
	put_said(out, "address", p->address);
	text_printf(out, "state %s\n", peers_state_name(p->state));
	if (p->incarnation != 0)
		text_printf(out, "incarnation %" PRIu64 "\n", p->incarnation);
	text_printf(out, "boot %" PRIu64 "\n", p->boot);
	text_printf(out, "since %" PRIu64 ".%06" PRIu64 "\n",
		    p->since_us / 1000000, p->since_us % 1000000);
	put_known(out, "weight", p->weight);
	if (p->node != RING_NONE)
		text_printf(out, "draining %d\n", p->is_draining);
	put_known(out, "vnodes", p->n_vnodes);
	put_known(out, "keys", p->n_keys);
	if (p->rtt_us != 0)
		text_printf(out, "rtt_us %" PRIu32 "\n", p->rtt_us);
	put_said(out, "version", p->version);
	put_said(out, "role", p->role);
	put_said(out, "suspected_by", p->accuser);
}

/* ---- status/ ---- */

static void render_state(const struct facts *f, struct text *out)
{
	text_printf(out, "%s\n", facts_state(f));
}

static void render_writable(const struct facts *f, struct text *out)
{
	text_printf(out, "%d\n", facts_writable(f));
}

static void render_reason(const struct facts *f, struct text *out)
{
	text_printf(out, "%s\n", f->status.reason);
}

/* An empty line when there is none. */
static void render_leader(const struct facts *f, struct text *out)
{
	facts_put_name(out, facts_node_name(f, f->status.leader));
	text_puts(out, "\n");
}

static void put_u64(struct text *out, uint64_t value)
{
	text_printf(out, "%" PRIu64 "\n", value);
}

static void render_term(const struct facts *f, struct text *out)
{
	put_u64(out, f->status.term);
}

static void render_index(const struct facts *f, struct text *out)
{
	put_u64(out, f->status.index);
}

static void render_quorum(const struct facts *f, struct text *out)
{
	text_printf(out, "voters %" PRIu32 "\n", f->status.n_voters);
	text_printf(out, "standbys %" PRIu32 "\n", f->status.n_standbys);
	text_printf(out, "needed %" PRIu32 "\n", facts_needed(f));
	if (f->expect != 0)
		text_printf(out, "expect %" PRIu32 "\n", f->expect);
}

static void render_keys(const struct facts *f, struct text *out)
{
	put_u64(out, f->counts[RING_VIEW_KEYS]);
}

static void render_owned(const struct facts *f, struct text *out)
{
	put_u64(out, f->counts[RING_VIEW_OWNED]);
}

static void render_recovering(const struct facts *f, struct text *out)
{
	put_u64(out, f->counts[RING_VIEW_RECOVER]);
}

static void render_releasing(const struct facts *f, struct text *out)
{
	put_u64(out, f->counts[RING_VIEW_RELEASE]);
}

static void render_parked(const struct facts *f, struct text *out)
{
	put_u64(out, f->counts[RING_VIEW_PARKED]);
}

static void render_epoch(const struct facts *f, struct text *out)
{
	put_u64(out, f->status.epoch);
}

/* The owner's name is empty where nobody owns the vnode. */
static void render_vnodes(const struct facts *f, struct text *out)
{
	for (uint32_t v = 0; f->owners && v < f->settings.vnodes; v++) {
		text_printf(out, "%" PRIu32 " ", v);
		facts_put_name(out, facts_node_name(f, f->owners[v]));
		text_puts(out, "\n");
	}
}

static void render_hash(const struct facts *f, struct text *out)
{
	text_printf(out, "%" PRIu64 " %016" PRIx64 "\n", f->status.index,
		    f->status.hash);
}

static void put_numbers(const struct facts_number *n, struct text *out)
{
	for (; n->word; n++)
		text_printf(out, "%s %" PRIu64 "\n", n->word, n->value);
}

static void render_events(const struct facts *f, struct text *out)
{
	struct facts_number numbers[FACTS_MAX_NUMBERS];

	facts_list_events(f, numbers);
	put_numbers(numbers, out);
}

static void render_limits(const struct facts *f, struct text *out)
{
	struct facts_number numbers[FACTS_MAX_NUMBERS];

	facts_list_limits(f, numbers);
	put_numbers(numbers, out);
	if (f->settings.handover_timeout_ms == 0)
		text_puts(out, "handover_timeout_ms never\n");
	else
		text_printf(out, "handover_timeout_ms %" PRIu32 "\n",
			    f->settings.handover_timeout_ms);
}

/* Ids, never keys. */
static void render_keyring(const struct facts *f, struct text *out)
{
	for (size_t i = 0; i < f->gossip.n_keys; i++) {
		const struct cluster_key *k = &f->gossip.keys[i];

		text_printf(out, "%016" PRIx64 " %s %" PRIu32 "\n", k->id,
			    k->is_used ? "used" : "held", k->n_lack);
	}
}

static void render_version(const struct facts *f, struct text *out)
{
	text_printf(out, "%s\n", f->version);
}

static void render_log(const struct facts *f, struct text *out)
{
	size_t len;
	char *tail = log_tail(&len);

	(void)f;
	text_add(out, tail, len);
	free(tail);
}

const struct facts_file facts_files[] = {
	{"state", render_state, 0},
	{"writable", render_writable, 0},
	{"reason", render_reason, 0},
	{"leader", render_leader, 0},
	{"term", render_term, 0},
	{"index", render_index, 0},
	{"quorum", render_quorum, 0},
	{"keys", render_keys, 0},
	{"owned", render_owned, 0},
	{"recovering", render_recovering, 0},
	{"releasing", render_releasing, 0},
	{"parked", render_parked, 0},
	{"epoch", render_epoch, 0},
	{"vnodes", render_vnodes, FACTS_OWNERS},
	{"hash", render_hash, 0},
	{"events", render_events, 0},
	{"keyring", render_keyring, 0},
	{"limits", render_limits, 0},
	{"version", render_version, 0},
	{"json", facts_json, FACTS_PEERS},
	{"metrics.prom", facts_metrics, FACTS_PEERS},
	{"ring.svg", facts_svg, 0},
	{"log", render_log, 0},
	{NULL, NULL, 0},
};
