/* SPDX-License-Identifier: MIT */
#include "fs/cluster.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/hello.h"
#include "fs/herald.h"
#include "fs/log.h"
#include "fs/options.h"
#include "fs/port.h"
#include "fs/state.h"
#include "fs/util.h"
#include "gossip/gossip.h"

#define SAY_MS 1000

struct cluster {
	struct gossip *gossip;
	struct cluster_config config;
	struct ring_id id; /* of the cluster, once it is known */
	struct ring_settings settings;
	uint32_t generation;
	bool has_settings; /* others may be let in */
	struct cluster_self said;
	bool has_said;
	uint64_t say_ms; /* not before */
	bool is_watched; /* on_member is called */
	void (*close_cb)(void *data);
	void *close_data;
};

_Static_assert(sizeof(struct ring_id) == sizeof(struct gossip_id), "");
_Static_assert(PEER_ADDR_SIZE >= GOSSIP_ADDR_SIZE, "");
_Static_assert(RING_ERRMSG_SIZE >= GOSSIP_ERRMSG_SIZE, "");
_Static_assert(HELLO_MAX <= GOSSIP_HELLO_MAX, "");
_Static_assert(HERALD_RECEIPT_SIZE == GOSSIP_RECEIPT_SIZE, "");

static struct gossip_id to_gossip(const struct ring_id *id)
{
	struct gossip_id out;

	memcpy(out.b, id->byte, sizeof(out.b));
	return out;
}

static struct ring_id to_ring(const struct gossip_id *id)
{
	struct ring_id out;

	memcpy(out.byte, id->b, sizeof(out.byte));
	return out;
}

/* ---- Members to peers ---- */

static uint64_t said_number(const struct gossip *g, const struct gossip_id *id,
			    const char *word)
{
	size_t len;
	const char *digits = gossip_said(g, id, word, &len);
	uint64_t v = 0;

	if (digits == NULL || len == 0 || len > 10)
		return PEER_UNKNOWN;
	for (size_t i = 0; i < len; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return PEER_UNKNOWN;
		v = v * 10 + (uint64_t)(digits[i] - '0');
	}
	return v;
}

static void said_text(const struct gossip *g, const struct gossip_id *id,
		      const char *word, char *out, size_t size)
{
	size_t len;
	const char *text = gossip_said(g, id, word, &len);

	if (text == NULL || len >= size || memchr(text, '\0', len) != NULL)
		len = 0;
	if (len > 0)
		memcpy(out, text, len);
	out[len] = '\0';
}

static void said_role(const struct gossip *g, const struct gossip_id *id,
		      char out[PEER_ROLE_SIZE])
{
	said_text(g, id, "role", out, PEER_ROLE_SIZE);
	if (strcmp(out, "voter") != 0 && strcmp(out, "standby") != 0 &&
	    strcmp(out, "client") != 0)
		out[0] = '\0';
}

/* By name if it has one, else by id. */
static void put_accuser(const struct gossip *g, const struct gossip_member *m,
			struct peer *out)
{
	struct gossip_member accuser;

	if (!m->is_accused)
		return;
	if (gossip_find(g, &m->accuser, &accuser)) {
		snprintf(out->accuser, sizeof(out->accuser), "%s",
			 accuser.name);
		return;
	}
	for (size_t i = 0; i < sizeof(m->accuser.b); i++)
		snprintf(out->accuser + 2 * i, 3, "%02x", m->accuser.b[i]);
}

static enum peer_state state_of(enum gossip_state state)
{
	switch (state) {
	case GOSSIP_ALIVE:
		return PEER_ALIVE;
	case GOSSIP_SUSPECT:
		return PEER_SUSPECT;
	case GOSSIP_LEFT:
		return PEER_LEFT;
	case GOSSIP_DEAD:
		break;
	}
	return PEER_DEAD;
}

static void put_peer(const struct gossip *g, const struct gossip_member *m,
		     struct peer *out)
{
	*out = (struct peer){
		.id = to_ring(&m->id),
		.name = m->name,
		.state = state_of(m->state),
		.incarnation = m->incarnation,
		.boot = m->boot,
		.since_us = m->since_us,
		.rtt_us = m->rtt_us,
		.weight = said_number(g, &m->id, "weight"),
		.n_vnodes = said_number(g, &m->id, "vnodes"),
		.n_keys = said_number(g, &m->id, "keys"),
		.node = RING_NONE,
		.is_self = m->is_self,
	};
	snprintf(out->address, sizeof(out->address), "%s", m->address);
	said_text(g, &m->id, "version", out->version, sizeof(out->version));
	said_role(g, &m->id, out->role);
	put_accuser(g, m, out);
}

bool cluster_next(const struct cluster *c, uint32_t *cursor, struct peer *out)
{
	struct gossip_member m;

	if (!gossip_next(c->gossip, cursor, &m))
		return false;
	put_peer(c->gossip, &m, out);
	return true;
}

bool cluster_find(const struct cluster *c, const struct ring_id *id,
		  struct peer *out)
{
	struct gossip_id wanted = to_gossip(id);
	struct gossip_member m;

	if (!gossip_find(c->gossip, &wanted, &m))
		return false;
	put_peer(c->gossip, &m, out);
	return true;
}

/* ---- The lobby ---- */

/* A living member with the name of who asks, which is another. */
static bool find_name(const struct cluster *c, const char *name,
		      const struct ring_id *id, struct gossip_member *m)
{
	uint32_t cursor = 0;

	while (gossip_next(c->gossip, &cursor, m))
		if (strcmp(m->name, name) == 0 &&
		    memcmp(m->id.b, id->byte, sizeof(m->id.b)) != 0 &&
		    (m->state == GOSSIP_ALIVE || m->state == GOSSIP_SUSPECT))
			return true;
	return false;
}

bool cluster_has_name(const struct cluster *c, const char *name,
		      const struct ring_id *self)
{
	struct gossip_member m;

	return find_name(c, name, self, &m);
}

/* A name that is in use may soon be free: its node was just wiped, and is now
 * this one. Who asks says so when its patience is at an end. */
static int judge(const struct cluster *c, const struct hello *hello,
		 char why[RING_ERRMSG_SIZE])
{
	struct gossip_member m;

	if (!c->has_settings)
		return -EAGAIN; /* we have just joined ourselves */
	if (find_name(c, hello->name, &hello->id, &m)) {
		snprintf(why, RING_ERRMSG_SIZE,
			 "the name %s is taken by the member at %s; use --name",
			 hello->name, m.address);
		return -EAGAIN;
	}
	return hello_agree(&hello->wanted, &c->settings, why);
}

static int on_asked(void *data, const void *bytes, size_t len,
		    uint8_t answer[GOSSIP_HELLO_MAX],
		    char why[GOSSIP_ERRMSG_SIZE])
{
	struct cluster *c = data;
	char sentence[RING_ERRMSG_SIZE];
	struct hello hello;
	unsigned version;
	int rc = hello_get(bytes, len, &hello, &version);

	sentence[0] = '\0';
	if (rc == -EPROTONOSUPPORT)
		snprintf(sentence, sizeof(sentence),
			 "it speaks version %u of the protocol, this cluster "
			 "version %d; run the same ringfs everywhere",
			 version, HELLO_VERSION);
	else if (rc < 0)
		snprintf(sentence, sizeof(sentence),
			 "what it asked for cannot be read");
	else
		rc = judge(c, &hello, sentence);
	if (rc == 0)
		return (int)hello_put_answer(&c->settings, c->generation,
					     answer);
	snprintf(why, GOSSIP_ERRMSG_SIZE, "%.*s", GOSSIP_ERRMSG_SIZE - 1,
		 sentence);
	return rc;
}

static void on_joined(void *data, const struct gossip_id *cluster,
		      const void *answer, size_t len)
{
	struct cluster *c = data;
	struct ring_settings settings;
	char why[RING_ERRMSG_SIZE];
	uint32_t generation;
	unsigned version;
	int rc =
		hello_get_answer(answer, len, &settings, &generation, &version);

	if (rc == 0) {
		c->id = to_ring(cluster);
		c->config.on_joined(c->config.data, &c->id, &settings,
				    generation);
		return;
	}
	if (rc == -EPROTONOSUPPORT)
		snprintf(why, sizeof(why),
			 "the cluster speaks version %u of the protocol, this "
			 "node version %d; run the same ringfs everywhere",
			 version, HELLO_VERSION);
	else
		snprintf(why, sizeof(why),
			 "what the member answered cannot be read");
	c->config.on_refused(c->config.data, why);
}

/* ---- The other callbacks ---- */

static void on_refused(void *data, const char *why)
{
	struct cluster *c = data;

	c->config.on_refused(c->config.data, why);
}

static enum ring_member_state ring_state_of(enum gossip_state state)
{
	switch (state) {
	case GOSSIP_ALIVE:
		return RING_MEMBER_ALIVE;
	case GOSSIP_SUSPECT:
		return RING_MEMBER_SUSPECT;
	case GOSSIP_LEFT:
		return RING_MEMBER_LEFT;
	case GOSSIP_DEAD:
		break;
	}
	return RING_MEMBER_DEAD;
}

static void tell_member(struct cluster *c, const struct gossip_member *was,
			const struct gossip_member *is)
{
	struct ring_id id = to_ring(is != NULL ? &is->id : &was->id);

	if (!c->is_watched || (is != NULL ? is : was)->is_self)
		return;
	c->config.on_member(c->config.data, &id,
			    is != NULL ? ring_state_of(is->state)
				       : RING_MEMBER_FORGOTTEN);
}

void cluster_watch(struct cluster *c)
{
	struct gossip_member m;
	uint32_t cursor = 0;

	c->is_watched = true;
	while (gossip_next(c->gossip, &cursor, &m))
		tell_member(c, NULL, &m);
}

/* What was and what is matters to nobody here: the tree compares. */
static void on_member(void *data, const struct gossip_member *was,
		      const struct gossip_member *is)
{
	struct cluster *c = data;
	enum gossip_state before = was != NULL ? was->state : GOSSIP_LEFT;

	tell_member(c, was, is);

	if (is != NULL && !is->is_self && (was == NULL || before != is->state))
		log_info("member %s at %s: %s", is->name, is->address,
			 gossip_state_name(is->state));
	else if (is == NULL && was != NULL)
		log_info("member %s at %s: forgotten", was->name, was->address);
	c->config.on_change(c->config.data);
}

/* gossip has said so to the log. */
static void on_isolated(void *data, bool is_isolated)
{
	struct cluster *c = data;

	(void)is_isolated;
	c->config.on_change(c->config.data);
}

static void on_copied(void *data)
{
	struct cluster *c = data;

	c->config.on_copied(c->config.data);
}

static void on_left(void *data)
{
	struct cluster *c = data;

	c->config.on_left(c->config.data);
}

static void on_message(void *data, const struct gossip_id *from,
		       const void *bytes, size_t len)
{
	struct cluster *c = data;
	struct ring_id id = to_ring(from);

	c->config.on_message(c->config.data, &id, bytes, len);
}

/* What the ring takes for one ends the suspicion, too. */
static bool on_obituary(void *data, const struct gossip_id *id, uint32_t boot,
			const void *bytes, size_t len)
{
	struct cluster *c = data;

	if (c->config.on_obituary(c->config.data, bytes, len) != 0)
		return false;
	gossip_obituary(c->gossip, id, boot);
	return true;
}

static void on_log(void *data, int level, const char *line)
{
	(void)data;
	log_line(level, line);
}

/* ---- Life ---- */

static char *key_path(const struct cluster_config *config)
{
	if (config->options->key_file != NULL)
		return xstrdup(config->options->key_file);
	return xasprintf("%s/key", config->state->dir);
}

/* Is this node the first of its cluster? One that was started before nodes spoke
 * with each other is, and has no key yet. */
static bool makes_key(const struct cluster_config *config)
{
	const struct state *s = config->state;

	return s->is_founder || (state_has_cluster(s) && !s->has_gossip &&
				 config->options->n_joins == 0);
}

/* There is a key, or none is needed. 0, or a negative errno and the way out. */
static int prepare_key(const struct cluster_config *config, const char *path,
		       char errmsg[RING_ERRMSG_SIZE])
{
	if (access(path, F_OK) == 0 || errno != ENOENT ||
	    config->options->seal == OPTIONS_CLEAR)
		return 0; /* else gossip says what is wrong with it */
	if (makes_key(config))
		return gossip_keygen_file(path, errmsg);
	if (state_has_cluster(config->state))
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "the cluster's key, '%.300s', is missing; copy it "
			 "there from another member's state, or name it with "
			 "--key-file",
			 path);
	else
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "to join, the cluster's key is needed: copy the file "
			 "'key' from a member's state to '%.250s', or name it "
			 "with --key-file",
			 path);
	return -ENOKEY;
}

static enum gossip_preset preset_of(enum options_preset preset)
{
	switch (preset) {
	case OPTIONS_LOCAL:
		return GOSSIP_LOCAL;
	case OPTIONS_WAN:
		return GOSSIP_WAN;
	case OPTIONS_LAN:
		break;
	}
	return GOSSIP_LAN;
}

static enum gossip_seal seal_of(enum options_seal seal)
{
	switch (seal) {
	case OPTIONS_CLEAR:
		return GOSSIP_CLEAR;
	case OPTIONS_SEALED_AND_CLEAR:
		return GOSSIP_BOTH;
	case OPTIONS_SEALED:
		break;
	}
	return GOSSIP_SEALED;
}

static size_t make_hello(const struct cluster_config *config,
			 uint8_t out[HELLO_MAX])
{
	struct hello hello = {.id = config->state->node,
			      .wanted = config->options->settings};

	snprintf(hello.name, sizeof(hello.name), "%s", config->options->name);
	return hello_put(&hello, out);
}

static int create_gossip(struct cluster *c, const char *key,
			 char errmsg[RING_ERRMSG_SIZE])
{
	const struct options *o = c->config.options;
	const struct state *s = c->config.state;
	uint8_t hello[HELLO_MAX];
	struct gossip_config config = {
		.loop = c->config.loop,
		.udp_fd = c->config.port->udp_fd,
		.tcp_fd = c->config.port->tcp_fd,
		.bound = c->config.port->text,
		.advertise = o->advertise,
		.dir = s->dir,
		.key_file = key,
		.seal = seal_of(o->seal),
		.preset = preset_of(o->preset),
		.self = to_gossip(&s->node),
		.boot = s->boot,
		.name = o->name,
		.version = VERSION,
		.joins = (const char *const *)o->joins,
		.n_joins = o->n_joins,
		.hello = hello,
		.hello_len = make_hello(&c->config, hello),
		.on_asked = on_asked,
		.on_joined = on_joined,
		.on_refused = on_refused,
		.on_member = on_member,
		.on_isolated = on_isolated,
		.on_copied = on_copied,
		.on_left = on_left,
		.on_message = on_message,
		.on_obituary = on_obituary,
		.on_log = on_log,
		.data = c,
	};

	if (!s->is_founder)
		config.cluster = to_gossip(&s->cluster);
	int rc = gossip_create(&config, &c->gossip, errmsg);
	if (rc == 0 && s->is_founder) {
		struct gossip_id cluster = to_gossip(&s->cluster);

		gossip_found(c->gossip, &cluster);
	}
	return rc;
}

int cluster_create(const struct cluster_config *config, struct cluster **out,
		   char errmsg[RING_ERRMSG_SIZE])
{
	struct cluster *c = xcalloc(1, sizeof(*c));
	char *key = key_path(config);

	c->config = *config;
	c->id = config->state->cluster;
	int rc = prepare_key(config, key, errmsg);
	if (rc == 0)
		rc = create_gossip(c, key, errmsg);
	free(key);
	if (rc == 0)
		*out = c;
	else
		free(c);
	return rc;
}

int cluster_start(struct cluster *c, char errmsg[RING_ERRMSG_SIZE])
{
	struct port *port = c->config.port;
	int rc = gossip_start(c->gossip);

	if (rc != 0) {
		snprintf(errmsg, RING_ERRMSG_SIZE, "cannot listen at %s: %s",
			 port->text, strerror(-rc));
		return rc;
	}
	port->udp_fd = port->tcp_fd = -1;
	return 0;
}

static void on_closed(void *data)
{
	struct cluster *c = data;
	void (*cb)(void *data) = c->close_cb;
	void *cb_data = c->close_data;

	free(c);
	cb(cb_data);
}

void cluster_close(struct cluster *c, void (*cb)(void *data), void *data)
{
	c->close_cb = cb;
	c->close_data = data;
	gossip_close(c->gossip, on_closed, c);
}

const char *cluster_address(const struct cluster *c)
{
	return gossip_address(c->gossip);
}

void cluster_set_settings(struct cluster *c,
			  const struct ring_settings *settings,
			  uint32_t generation)
{
	c->settings = *settings;
	c->generation = generation;
	c->has_settings = true;
}

/* ---- The ring's messages ---- */

/* Lost is lost: the ring repeats what matters. */
void cluster_send(struct cluster *c, const struct ring_id *to, bool bulk,
		  const void *bytes, size_t len)
{
	struct gossip_id id = to_gossip(to);

	gossip_send(c->gossip, &id, bulk ? GOSSIP_BULK : GOSSIP_URGENT, bytes,
		    len);
}

static void add_recipient(const struct gossip_member *m,
			  struct herald_obituary *out)
{
	struct sockaddr_in6 *to = &out->to[out->n_to];

	if (m->is_self || m->state > GOSSIP_SUSPECT ||
	    out->n_to == HERALD_RECIPIENTS_MAX)
		return;
	*to = (struct sockaddr_in6){.sin6_family = AF_INET6,
				    .sin6_port = htons(m->addr.port)};
	memcpy(&to->sin6_addr, m->addr.ip, sizeof(m->addr.ip));
	out->n_to++;
}

bool cluster_seal_obituary(struct cluster *c, const struct ring_id *first,
			   const void *bytes, size_t len,
			   struct herald_obituary *out, uint8_t *packet)
{
	struct gossip_id id =
		first != NULL ? to_gossip(first) : (struct gossip_id){0};
	struct gossip_member m;
	uint32_t cursor = 0;

	out->n_to = 0;
	if (gossip_find(c->gossip, &id, &m))
		add_recipient(&m, out);
	while (gossip_next(c->gossip, &cursor, &m))
		if (!gossip_id_equal(&m.id, &id))
			add_recipient(&m, out);
	if (getentropy(out->receipt, sizeof(out->receipt)) < 0)
		return false;
	int n = gossip_seal_obituary(c->gossip, out->receipt, bytes, len,
				     packet, HERALD_OBITUARY_MAX);

	out->bytes = packet;
	out->len = n > 0 ? (size_t)n : 0;
	return n > 0;
}

void cluster_send_obituary(struct cluster *c, const void *bytes, size_t len)
{
	gossip_send_obituary(c->gossip, bytes, len);
}

/* ---- What we say ---- */

static void say_number(struct cluster *c, const char *word, uint32_t value)
{
	char digits[16];
	int n = snprintf(digits, sizeof(digits), "%" PRIu32, value);

	gossip_say(c->gossip, word, digits, (size_t)n);
}

uint32_t cluster_say(struct cluster *c, uint64_t now_ms,
		     const struct cluster_self *self)
{
	const struct cluster_self *said = &c->said;

	if (c->has_said && said->weight == self->weight &&
	    said->n_vnodes == self->n_vnodes && said->n_keys == self->n_keys &&
	    said->role == self->role)
		return UINT32_MAX;
	if (now_ms < c->say_ms)
		return (uint32_t)(c->say_ms - now_ms);
	say_number(c, "weight", self->weight);
	say_number(c, "vnodes", self->n_vnodes);
	say_number(c, "keys", self->n_keys);
	gossip_say(c->gossip, "role", self->role, strlen(self->role));
	c->said = *self;
	c->has_said = true;
	c->say_ms = now_ms + SAY_MS;
	return UINT32_MAX;
}

/* ---- What the user asks for ---- */

int cluster_join(struct cluster *c, const char *addr)
{
	return gossip_join(c->gossip, addr);
}

const char *cluster_waits(const struct cluster *c)
{
	return gossip_join_waits(c->gossip);
}

void cluster_leave(struct cluster *c)
{
	gossip_leave(c->gossip);
}

int cluster_forget(struct cluster *c, const struct ring_id *id)
{
	struct gossip_id wanted = to_gossip(id);

	return gossip_forget(c->gossip, &wanted);
}

int cluster_key_add(struct cluster *c, const char *line)
{
	uint64_t id;

	return gossip_key_add(c->gossip, line, &id);
}

int cluster_key_use(struct cluster *c, uint64_t id)
{
	return gossip_key_use(c->gossip, id);
}

int cluster_key_remove(struct cluster *c, uint64_t id)
{
	return gossip_key_remove(c->gossip, id);
}

int cluster_keygen(const char *path, char errmsg[RING_ERRMSG_SIZE])
{
	char text[GOSSIP_KEYFILE_SIZE];

	if (path != NULL)
		return gossip_keygen_file(path, errmsg);
	int rc = gossip_keygen(text);
	if (rc == 0)
		fputs(text, stdout);
	else
		snprintf(errmsg, RING_ERRMSG_SIZE, "no random numbers: %s",
			 strerror(-rc));
	explicit_bzero(text, sizeof(text));
	return rc;
}

/* ---- Numbers ---- */

static void put_keys(const struct cluster *c, struct cluster_stats *out)
{
	struct gossip_key key;
	size_t cursor = 0;

	while (gossip_key_next(c->gossip, &cursor, &key)) {
		out->keys = xrealloc(out->keys,
				     (out->n_keys + 1) * sizeof(out->keys[0]));
		out->keys[out->n_keys++] =
			(struct cluster_key){key.id, key.is_used, key.n_lack};
	}
}

/* The first reason is that there was none. */
static void put_refused(const struct gossip_stats *s, struct cluster_stats *out)
{
	const char *reason;

	for (unsigned i = 1;
	     i < CLUSTER_REFUSALS && (reason = gossip_refused_name(i)) != NULL;
	     i++) {
		out->refused[i - 1].reason = reason;
		out->refused[i - 1].n = s->refused[i];
	}
}

void cluster_stats(const struct cluster *c, struct cluster_stats *out)
{
	static const char *const seals[] = {
		[OPTIONS_SEALED] = "sealed",
		[OPTIONS_SEALED_AND_CLEAR] = "both",
		[OPTIONS_CLEAR] = "clear",
	};
	struct gossip_stats s;

	gossip_stats(c->gossip, &s);
	*out = (struct cluster_stats){
		.cluster = c->id,
		.seal = seals[c->config.options->seal],
		.n_members = s.n_members,
		.n_alive = s.n_alive,
		.n_suspect = s.n_suspect,
		.n_dead = s.n_dead,
		.n_left = s.n_left,
		.health = s.health,
		.is_isolated = s.is_isolated,
		.n_packets_in = s.n_packets_in,
		.n_packets_out = s.n_packets_out,
		.bytes_in = s.bytes_in,
		.bytes_out = s.bytes_out,
		.n_streams_in = s.n_streams_in,
		.n_streams_out = s.n_streams_out,
		.stream_bytes_in = s.stream_bytes_in,
		.stream_bytes_out = s.stream_bytes_out,
		.n_send_errors = s.n_send_errors,
		.n_records = s.n_records,
		.record_bytes = s.record_bytes,
	};
	put_refused(&s, out);
	put_keys(c, out);
}

void cluster_stats_finish(struct cluster_stats *s)
{
	free(s->keys);
	s->keys = NULL;
	s->n_keys = 0;
}
