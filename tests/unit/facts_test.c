/* SPDX-License-Identifier: MIT */
/* The texts of status/ and peers/, rendered from facts made by hand. */
#include "fs/facts.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "fs/util.h"
#include "tests/unit/check.h"

#define BIT(view) (1u << (view))

/* A cluster of n nodes that share 64 vnodes; free_nodes() releases it. */
static struct facts make_facts(uint32_t n)
{
	struct facts f = {
		.version = "1.2.3",
		.mountpoint = "/srv/ring",
		.address = "127.0.0.1:7400",
		.pid = 4711,
		.events = {.claims = 3, .takes = 1, .changes = 9},
		.settings = {.vnodes = 64,
			     .claims = RING_CLAIMS_OWNER,
			     .lease_ms = 1500,
			     .calm_ms = 500,
			     .max_attempts = 5},
		.n_nodes = n,
		.counts = {7, 3, 2, 1, 1},
		.herald = {.announced = 12, .pid = 4712},
	};

	f.status = (struct ring_status){
		.health = RING_READY,
		.term = 2,
		.index = 41,
		.hash = 0x1f,
		.epoch = 1,
		.n_voters = n > 3 ? 3 : n,
		.n_standbys = n > 3 ? n - 3 : 0,
		.log_bytes = 8192,
		.n_entries = 41,
		.n_syncs = 40,
		.leader = n ? 0 : RING_NONE,
	};
	strcpy(f.status.reason, "All is well.");
	f.self = n ? 0 : RING_NONE;
	f.nodes = xcalloc(n + 1, sizeof(f.nodes[0]));
	f.owners = xcalloc(64, sizeof(f.owners[0]));
	for (uint32_t i = 0; i < n; i++) {
		struct ring_node *node = xcalloc(1, sizeof(*node));
		snprintf(node->name, sizeof(node->name), "node%" PRIu32, i);
		node->id.byte[0] = 0xab;
		node->id.byte[15] = (uint8_t)i;
		node->boot = 5;
		node->up_us = 1795236297123456;
		node->weight = 100;
		node->n_vnodes = 64 / n + (i < 64 % n);
		node->n_keys = i + 3;
		node->up = true;
		f.nodes[i] = node;
	}
	for (uint32_t v = 0; v < 64; v++)
		f.owners[v] = n ? v % n : RING_NONE;
	return f;
}

/* What the tree would make of the nodes; after all renaming. */
static void make_peers(struct facts *f)
{
	free(f->peers);
	f->n_peers = f->n_nodes;
	f->peers = xcalloc(f->n_nodes + 1, sizeof(f->peers[0]));
	for (uint32_t i = 0; i < f->n_nodes; i++) {
		const struct ring_node *node = f->nodes[i];

		f->peers[i] = (struct peer){
			.id = node->id,
			.name = node->name,
			.shown = node->name,
			.state = node->up ? PEER_ALIVE : PEER_DEAD,
			.boot = node->boot,
			.since_us = node->up_us,
			.weight = node->weight,
			.n_vnodes = node->n_vnodes,
			.n_keys = node->n_keys,
			.node = i,
			.is_self = i == f->self,
		};
	}
}

/* What gossip would add. */
static void make_gossip(struct facts *f)
{
	static const char *const reasons[] = {"no key", "replayed"};

	f->has_gossip = true;
	f->gossip = (struct cluster_stats){
		.seal = "sealed", .n_alive = 2, .n_dead = 1, .n_packets_in = 9};
	f->gossip.cluster.byte[0] = 0xcd;
	for (size_t i = 0; i < 2; i++) {
		f->gossip.refused[i].reason = reasons[i];
		f->gossip.refused[i].n = i + 4;
	}
	f->gossip.n_keys = 2;
	f->gossip.keys = xcalloc(2, sizeof(f->gossip.keys[0]));
	f->gossip.keys[0] = (struct cluster_key){0x1f, true, 0};
	f->gossip.keys[1] = (struct cluster_key){0x2f, false, 3};
}

static void free_facts(struct facts *f)
{
	for (uint32_t i = 0; i < f->n_nodes; i++)
		free((void *)(uintptr_t)f->nodes[i]);
	facts_finish(f);
}

static void rename_node(struct facts *f, uint32_t i, const char *name)
{
	struct ring_node *node = (struct ring_node *)(uintptr_t)f->nodes[i];

	snprintf(node->name, sizeof(node->name), "%s", name);
}

/* The text of status/NAME; free() releases it. */
static char *render(const struct facts *f, const char *name)
{
	for (const struct facts_file *file = facts_files; file->name; file++) {
		if (strcmp(file->name, name) != 0)
			continue;
		struct text x = {0};
		file->render(f, &x);
		text_add(&x, "", 1);
		return x.base;
	}
	check(false, "no file %s", name);
	return NULL;
}

static void is(const struct facts *f, const char *name, const char *want)
{
	char *got = render(f, name);

	check(strcmp(got, want) == 0, "%s: \"%s\", want \"%s\"", name, got,
	      want);
	free(got);
}

static void test_one_line(void)
{
	struct facts f = make_facts(1);

	is(&f, "state", "ready\n");
	is(&f, "writable", "1\n");
	is(&f, "reason", "All is well.\n");
	is(&f, "leader", "node0\n");
	is(&f, "term", "2\n");
	is(&f, "index", "41\n");
	is(&f, "hash", "41 000000000000001f\n");
	is(&f, "quorum", "voters 1\nstandbys 0\nneeded 1\n");
	is(&f, "keys", "7\n");
	is(&f, "owned", "3\n");
	is(&f, "recovering", "2\n");
	is(&f, "releasing", "1\n");
	is(&f, "parked", "1\n");
	is(&f, "epoch", "1\n");
	is(&f, "version", "1.2.3\n");
	is(&f, "limits",
	   "name_bytes 255\nnote_bytes 65536\nbatch_ops 200000\nvnodes 64\n"
	   "max_attempts 5\nlease_ms 1500\ncalm_ms 500\n"
	   "handover_timeout_ms never\n");
	f.settings.handover_timeout_ms = 3000;
	char *limits = render(&f, "limits");
	check(strstr(limits, "handover_timeout_ms 3000\n"), "%s", limits);
	free(limits);
	is(&f, "events",
	   "claims 3\nsubmits 0\nfinishes 0\noffers 0\ntakes 1\ngives 0\n"
	   "parks 0\nretries 0\nnotes 0\nchanges 9\nstatus 0\n");
	free_facts(&f);
	ok("each fact stands on its own line");
}

static void test_health(void)
{
	static const struct {
		enum ring_health health;
		const char *state, *writable;
	} want[] = {
		{RING_JOINING, "joining\n", "0\n"},
		{RING_READY, "ready\n", "1\n"},
		{RING_ISOLATED, "isolated\n", "0\n"},
		{RING_DRAINING, "draining\n", "0\n"},
		{RING_FAILED, "ready\n", "0\n"},
		{RING_FULL, "ready\n", "0\n"},
	};
	struct facts f = make_facts(1);

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		f.status.health = want[i].health;
		is(&f, "state", want[i].state);
		is(&f, "writable", want[i].writable);
	}
	free_facts(&f);
	f = make_facts(0);
	f.status.health = RING_JOINING;
	is(&f, "leader", "\n");
	free_facts(&f);
	ok("only a lack of majority is isolated; a full disk is ready, "
	   "not writable");
}

static void test_vnodes(void)
{
	struct facts f = make_facts(3);
	char *text = render(&f, "vnodes"), *at = text;

	for (unsigned v = 0; v < 64; v++) {
		char line[64];
		int n = snprintf(line, sizeof(line), "%u node%u\n", v, v % 3);
		check(strncmp(at, line, (size_t)n) == 0, "vnode %u", v);
		at += n;
	}
	check_int(*at, '\0');
	free(text);
	free_facts(&f);
	f = make_facts(0);
	text = render(&f, "vnodes");
	check(strncmp(text, "0 \n1 \n", 6) == 0, "%.20s", text);
	free(text);
	free_facts(&f);
	ok("vnodes is a table of all vnodes with their owners");
}

static void peer_is(const struct peer *p, const char *want)
{
	struct text x = {0};

	facts_peer(p, &x);
	text_add(&x, "", 1);
	check(strcmp(x.base, want) == 0, "%s", x.base);
	text_finish(&x);
}

static void test_peer(void)
{
	struct peer p = {.id = {{0xab}},
			 .state = PEER_SUSPECT,
			 .address = "127.0.0.1:7400",
			 .incarnation = UINT64_C(5) << 32 | 1,
			 .boot = 5,
			 .since_us = 1795236297123456,
			 .rtt_us = 150,
			 .weight = 100,
			 .n_vnodes = 32,
			 .n_keys = 3,
			 .version = "1.2.3",
			 .role = "voter",
			 .accuser = "n3",
			 .node = 0};

	peer_is(&p,
		"id ab000000000000000000000000000000\n"
		"address 127.0.0.1:7400\nstate suspect\n"
		"incarnation 21474836481\nboot 5\n"
		"since 1795236297.123456\nweight 100\ndraining 0\nvnodes 32\n"
		"keys 3\nrtt_us 150\nversion 1.2.3\nrole voter\n"
		"suspected_by n3\n");
	p = (struct peer){.id = {{0xab}},
			  .state = PEER_DEAD,
			  .node = RING_NONE,
			  .boot = 5,
			  .since_us = 1795236297123456,
			  .weight = PEER_UNKNOWN,
			  .n_vnodes = PEER_UNKNOWN,
			  .n_keys = PEER_UNKNOWN};
	peer_is(&p, "id ab000000000000000000000000000000\nstate dead\n"
		    "boot 5\nsince 1795236297.123456\n");
	p.weight = 0;
	strcpy(p.version, "1\nstate alive");
	strcpy(p.accuser, "\xff");
	peer_is(&p, "id ab000000000000000000000000000000\nstate dead\n"
		    "boot 5\nsince 1795236297.123456\nweight 0\n"
		    "version 1%0Astate%20alive\nsuspected_by %FF\n");
	ok("a peer's facts are those that are known, and no others");
}

static void test_keyring(void)
{
	struct facts f = make_facts(1);

	is(&f, "quorum", "voters 1\nstandbys 0\nneeded 1\n");
	f.expect = 3;
	is(&f, "quorum", "voters 1\nstandbys 0\nneeded 1\nexpect 3\n");
	make_gossip(&f);
	is(&f, "keyring", "000000000000001f used 0\n000000000000002f held 3\n");
	free_facts(&f);
	ok("keyring is ids, which one is used, and how many lack each");
}

static void test_names(void)
{
	static const struct {
		const char *name;
		bool clean;
		const char *shown;
	} want[] = {
		{"host-1.example", true, NULL},
		{"100%", true, NULL},
		{"a b\"<&>\\'", true, NULL},
		{"\xc3\xbc\xe2\x82\xac\xf0\x9f\x92\xbe", true, NULL},
		{"a\nb", false, "a%0Ab"},
		{"a\x7f", false, "a%7F"},
		{"\xff%", false, "%FF%25"},
		{"\xc3", false, "%C3"},	       /* cut short */
		{"\xc0\xaf", false, "%C0%AF"}, /* long form */
		{"\xe0\x9f\xbf", false, "%E0%9F%BF"},
		{"\xed\xa0\x80", false, "%ED%A0%80"}, /* a surrogate */
		{"\xf4\x90\x80\x80", false, "%F4%90%80%80"},
		{"\xc2\x85", false, "%C2%85"}, /* next line */
		{"\xef\xbf\xbf", false, "%EF%BF%BF"},
	};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct text x = {0};
		check_int(facts_is_clean(want[i].name), want[i].clean);
		facts_put_name(&x, want[i].name);
		text_add(&x, "", 1);
		const char *shown =
			want[i].shown ? want[i].shown : want[i].name;
		check(strcmp(x.base, shown) == 0, "%s", x.base);
		text_finish(&x);
	}
	ok("names that would break a text are percent-encoded, others are not");
}

static void test_count(void)
{
	struct ring_key *key = xcalloc(1, sizeof(*key) + 1);
	struct facts_events e = {0};
	struct ring_change c = {.key = key};

	key->id = key->token = 5;
	key->reason = RING_CLAIMED;
	c.after = BIT(RING_VIEW_KEYS) | BIT(RING_VIEW_OWNED);
	facts_count(&e, &c);
	check_int(e.claims, 1);

	c.before = c.after; /* the lease ran out: hidden, not given */
	c.after = BIT(RING_VIEW_KEYS);
	facts_count(&e, &c);
	check_int(e.gives, 0);

	key->state = RING_OFFERED;
	key->reason = RING_GIVEN_BACK;
	facts_count(&e, &c);
	check_int(e.gives, 1);

	c.before = c.after;
	c.after |= BIT(RING_VIEW_RECOVER);
	facts_count(&e, &c);
	check_int(e.offers, 1);
	check_int(e.gives, 1);

	key->state = RING_HELD;
	key->token = 6;
	c.before = c.after;
	c.after = BIT(RING_VIEW_KEYS) | BIT(RING_VIEW_OWNED);
	facts_count(&e, &c);
	check_int(e.takes, 1);

	key->state = RING_PARKED;
	c.before = c.after;
	c.after = BIT(RING_VIEW_KEYS) | BIT(RING_VIEW_PARKED);
	facts_count(&e, &c);
	check_int(e.parks, 1);
	check_int(e.gives, 1);

	c.before = c.after;
	c.after = 0;
	c.removed = true;
	facts_count(&e, &c);
	check_int(e.finishes, 1);
	check_int(e.retries, 0);
	check_int(e.claims, 1);
	check_int(e.changes, 7);
	free(key);
	ok("a key's life is counted step by step");
}

static json_t *document(const struct facts *f)
{
	json_error_t error;
	char *text = render(f, "json");
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &error);

	check(o != NULL, "%s at %d: %s", error.text, error.line, text);
	check(text[strlen(text) - 1] == '\n', "no newline at the end");
	free(text);
	return o;
}

static const char *word(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "(none)";
}

static void test_json(void)
{
	struct facts f = make_facts(2);

	rename_node(&f, 1, "\xff");
	f.mountpoint = "/srv/\xfe";
	make_peers(&f);
	f.peers[1].node = RING_NONE;
	f.peers[1].n_keys = PEER_UNKNOWN;
	make_gossip(&f);
	json_t *o = document(&f);
	check_int(json_integer_value(json_object_get(o, "pid")), 4711);
	check(strcmp(word(o, "name"), "node0") == 0, "%s", word(o, "name"));
	check(strcmp(word(o, "state"), "ready") == 0, "%s", word(o, "state"));
	check(json_is_true(json_object_get(o, "writable")), "writable");
	check(strcmp(word(o, "hash"), "000000000000001f") == 0, "hash");
	check(json_is_false(json_object_get(o, "name_encoded")), "flag");
	check(json_is_true(json_object_get(o, "mountpoint_encoded")), "flag");
	check(strcmp(word(o, "mountpoint"), "/srv/%FE") == 0, "%s",
	      word(o, "mountpoint"));
	json_t *nodes = json_object_get(o, "nodes");
	check_int(json_array_size(nodes), 2);
	json_t *node = json_array_get(nodes, 1);
	check(strcmp(word(node, "name"), "%FF") == 0, "%s", word(node, "name"));
	check(json_is_true(json_object_get(node, "name_encoded")), "flag");
	check(json_is_false(json_object_get(node, "self")), "self");
	check(json_is_false(json_object_get(node, "placed")), "placed");
	check(json_object_get(node, "keys") == NULL, "keys");
	node = json_array_get(nodes, 0);
	check(json_is_true(json_object_get(node, "self")), "self");
	check(json_is_true(json_object_get(node, "placed")), "placed");
	check_int(json_integer_value(json_object_get(node, "keys")), 3);
	check(strcmp(word(o, "cluster"), "cd000000000000000000000000000000") ==
		      0,
	      "%s", word(o, "cluster"));
	json_t *keyring = json_object_get(o, "keyring");
	check_int(json_array_size(keyring), 2);
	check(strcmp(word(json_array_get(keyring, 1), "id"),
		     "000000000000002f") == 0,
	      "id");
	check_int(json_integer_value(
			  json_object_get(json_array_get(keyring, 1), "lack")),
		  3);
	json_t *gossip = json_object_get(o, "gossip");
	check_int(json_integer_value(json_object_get(gossip, "dead")), 1);
	check_int(json_integer_value(json_object_get(
			  json_object_get(gossip, "refused"), "replayed")),
		  5);
	check_int(json_integer_value(json_object_get(o, "recovering")), 2);
	check_int(json_integer_value(json_object_get(
			  json_object_get(o, "herald"), "announced")),
		  12);
	json_decref(o);
	free_facts(&f);

	f = make_facts(0);
	o = document(&f);
	check(json_is_null(json_object_get(o, "leader")), "leader");
	json_decref(o);
	free_facts(&f);
	ok("json is one document that a parser takes, whatever the names");
}

/* ---- A strict reader of the Prometheus text format ---- */

static bool name_char(char c, bool first)
{
	return isalpha((unsigned char)c) || c == '_' || c == ':' ||
	       (!first && isdigit((unsigned char)c));
}

static size_t name_len(const char *s)
{
	size_t n = 0;

	while (name_char(s[n], n == 0))
		n++;
	check(n > 0, "a name is missing at \"%.30s\"", s);
	return n;
}

/* {a="b",...}; gives what follows. */
static const char *read_labels(const char *s)
{
	if (*s != '{')
		return s;
	do {
		s += 1 + name_len(s + 1);
		check(s[0] == '=' && s[1] == '"', "label at \"%.30s\"", s);
		for (s += 2; *s != '"'; s++) {
			check(*s != '\n' && *s != '\0', "open label");
			if (*s == '\\') {
				s++;
				check(*s == '\\' || *s == '"' || *s == 'n',
				      "escape \\%c", *s);
			}
		}
		s++;
	} while (*s == ',');
	check(*s == '}', "labels end with \"%.10s\"", s);
	return s + 1;
}

struct family {
	char name[128], type[16];
	unsigned samples;
};

/* # HELP and # TYPE, in this order, begin a family. */
static const char *read_head(const char *s, struct family *now)
{
	char type[128], kind[16];
	int n = 0;

	check(strncmp(s, "# HELP ", 7) == 0, "\"%.30s\"", s);
	size_t len = name_len(s + 7);
	snprintf(now->name, sizeof(now->name), "%.*s", (int)len, s + 7);
	check(s[7 + len] == ' ' && s[8 + len] != '\n', "no help");
	s = strchr(s, '\n') + 1;
	check(sscanf(s, "# TYPE %127s %15s%n", type, kind, &n) == 2, "type");
	check(strcmp(type, now->name) == 0, "%s after %s", type, now->name);
	check(!strcmp(kind, "counter") || !strcmp(kind, "gauge"), "%s", kind);
	snprintf(now->type, sizeof(now->type), "%s", kind);
	check(s[n] == '\n', "more after the type");
	now->samples = 0;
	return s + n + 1;
}

static const char *read_sample(const char *s, struct family *now)
{
	size_t len = name_len(s);
	char *end;

	check(strlen(now->name) == len && memcmp(s, now->name, len) == 0,
	      "\"%.40s\" outside of its family %s", s, now->name);
	s = read_labels(s + len);
	check(*s == ' ', "no space before the value: \"%.20s\"", s);
	double value = strtod(s + 1, &end);
	check(end > s + 1 && *end == '\n' && value >= 0, "value \"%.20s\"", s);
	now->samples++;
	return end + 1;
}

static unsigned read_metrics(const char *text)
{
	struct family families[128] = {{.samples = 1}};
	unsigned n = 0;

	for (const char *s = text; *s;) {
		if (*s != '#') {
			s = read_sample(s, &families[n]);
			continue;
		}
		check(families[n].samples > 0, "%s is empty", families[n].name);
		s = read_head(s, &families[++n]);
		const char *name = families[n].name;
		check(strncmp(name, "ringfs_", 7) == 0, "%s", name);
		bool total = strlen(name) > 6 &&
			     !strcmp(name + strlen(name) - 6, "_total");
		check_int(total, !strcmp(families[n].type, "counter"));
		for (unsigned i = 1; i < n; i++)
			check(strcmp(families[i].name, name), "%s twice", name);
	}
	check(families[n].samples > 0, "%s is empty", families[n].name);
	return n;
}

static void test_metrics(void)
{
	struct facts f = make_facts(3);

	rename_node(&f, 1, "a\"b\\c\nd");
	rename_node(&f, 2, "a\"b\\c");
	make_peers(&f);
	f.peers[1].weight = PEER_UNKNOWN;
	make_gossip(&f);
	char *text = render(&f, "metrics.prom");
	check(read_metrics(text) > 30, "few families");
	check(strstr(text, "\nringfs_keys 7\n"), "keys");
	check(strstr(text, "\nringfs_node_vnodes{node=\"node0\"} 22\n"),
	      "node");
	check(strstr(text, "{node=\"a\\\"b\\\\c\"} "), "%s", text);
	check(strstr(text, "{node=\"a\\\"b\\\\c%0Ad\"} "), "%s", text);
	check(strstr(text, "ringfs_node_weight{node=\"node0\"} 100\n"),
	      "weight");
	check(!strstr(text, "ringfs_node_weight{node=\"a\\\"b\\\\c%0Ad"),
	      "a weight that nobody knows");
	check(strstr(text, "\nringfs_members{state=\"dead\"} 1\n"), "dead");
	check(strstr(text, "{reason=\"no key\"} 4\n"), "refused");
	check(strstr(text, "{key=\"000000000000002f\",used=\"0\"} 3\n"),
	      "keyring");
	free(text);
	free_facts(&f);
	f = make_facts(0);
	text = render(&f, "metrics.prom");
	read_metrics(text);
	free(text);
	free_facts(&f);
	ok("metrics pass a strict reader of the text format");
}

/* ---- A small reader of XML: tags balance, text is escaped ---- */

static const char *read_entity(const char *s)
{
	static const char *const known[] = {"&amp;", "&lt;", "&gt;"};

	for (size_t i = 0; i < 3; i++) {
		if (strncmp(s, known[i], strlen(known[i])) == 0)
			return s + strlen(known[i]);
	}
	check(false, "entity \"%.10s\"", s);
	return NULL;
}

static const char *read_tag(const char *s, char stack[][16], unsigned *depth)
{
	bool closes = s[1] == '/';
	size_t n = strspn(s + 1 + closes, "abcdefghijklmnopqrstuvwxyz");
	const char *name = s + 1 + closes;

	check(n > 0 && n < 16, "tag \"%.20s\"", s);
	s = name + n;
	if (closes) {
		check(*depth > 0 && strlen(stack[*depth - 1]) == n &&
			      memcmp(stack[*depth - 1], name, n) == 0,
		      "</%.*s>", (int)n, name);
		--*depth;
		check(*s == '>', "\"%.10s\"", s);
		return s + 1;
	}
	while (*s == ' ') {
		s += 1 + strspn(s + 1, "abcdefghijklmnopqrstuvwxyzBWH-123");
		check(s[0] == '=' && s[1] == '"', "attribute \"%.20s\"", s);
		size_t len = strcspn(s + 2, "\"<&");
		check(s[2 + len] == '"', "value \"%.20s\"", s);
		s += len + 3;
	}
	if (s[0] == '/' && s[1] == '>')
		return s + 2;
	check(*s == '>', "\"%.10s\"", s);
	check(*depth < 16, "too deep");
	snprintf(stack[(*depth)++], 16, "%.*s", (int)n, name);
	return s + 1;
}

static unsigned read_svg(const char *s)
{
	char stack[16][16];
	unsigned depth = 0, circles = 0;

	check(strncmp(s, "<svg ", 5) == 0, "%.20s", s);
	check(strstr(s, "<script") == NULL, "script");
	while (*s) {
		circles += strncmp(s, "<circle ", 8) == 0;
		if (*s == '<')
			s = read_tag(s, stack, &depth);
		else if (*s == '&')
			s = read_entity(s);
		else
			check(*s++ != '>', "a bare >");
		check(depth > 0 || strcmp(s, "\n") == 0 || *s == '\0',
		      "after the end: %s", s);
	}
	check_int(depth, 0);
	return circles;
}

static void test_svg(void)
{
	static const uint32_t sizes[] = {0, 1, 2, 20, 60};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct facts f = make_facts(sizes[i]);
		if (sizes[i] > 2)
			rename_node(&f, 2, "<&>\"a very long name, even so\"");
		if (sizes[i] > 3)
			rename_node(&f, 3, "\xc3\xbc\x01");
		char *text = render(&f, "ring.svg");
		check_int(read_svg(text), sizes[i] ? sizes[i] : 1);
		if (getenv("SVG_DIR")) {
			char *path = xasprintf("%s/%u.svg", getenv("SVG_DIR"),
					       sizes[i]);
			FILE *file = fopen(path, "w");
			fputs(text, file);
			fclose(file);
			free(path);
		}
		free(text);
		free_facts(&f);
	}
	ok("ring.svg is well-formed, with one arc per node");
}

int main(void)
{
	test_one_line();
	test_health();
	test_vnodes();
	test_peer();
	test_keyring();
	test_names();
	test_count();
	test_json();
	test_metrics();
	test_svg();
	return 0;
}
