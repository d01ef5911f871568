/* SPDX-License-Identifier: MIT */
/* Making an instance, and what it is made of. What can fail comes before the
 * first handle is opened: so there is nothing to close that would take a turn
 * of the loop. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "gossip/gossip_impl.h"
#include "gossip/refuse.h"

#define TOPIC_BYTES  1
#define SENDERS_MAX  65536
#define TRAITS_BYTES ((uint64_t)64 << 20) /* of all members' traits */

static enum seal_mode mode_of(enum gossip_seal seal)
{
	static const enum seal_mode modes[] = {
		[GOSSIP_SEALED] = SEAL_REQUIRED,
		[GOSSIP_BOTH] = SEAL_BOTH,
		[GOSSIP_CLEAR] = SEAL_OFF,
	};

	return modes[seal];
}

static struct seal *make_seal(const struct gossip *g,
			      const struct gossip_id *cluster)
{
	struct seal_config config = {.cluster = *cluster,
				     .self = g->config.self,
				     .boot = g->config.boot,
				     .mode = mode_of(g->config.seal),
				     .peers_max = SENDERS_MAX};

	return seal_create(&config);
}

void gossip_make_seal(struct gossip *g, const struct gossip_id *cluster)
{
	struct seal_key_view view;
	struct seal_key key;
	size_t at = 0;

	assert(g->seal == NULL && !gossip_id_is_zero(cluster));
	g->config.cluster = *cluster;
	g->seal = make_seal(g, cluster);
	assert(g->seal != NULL); /* libsodium has started for the lobby's */
	for (unsigned used = 0; used < 2; used++)
		for (at = 0; seal_key_next(g->lobby_seal, &at, &view);)
			if (view.is_used != used &&
			    seal_key_get(g->lobby_seal, view.id, &key) == 0)
				seal_add(g->seal,
					 &key); /* the used one first */
	seal_key_wipe(&key);
	net_set_seal(g->net, g->seal);
}

static char *copy_text(const char *text)
{
	size_t size = text != NULL ? strlen(text) + 1 : 0;

	return text != NULL ? memcpy(xmalloc(size), text, size) : NULL;
}

/* config's strings are ours from here on. */
static void copy_config(struct gossip *g, const struct gossip_config *config)
{
	g->config = *config;
	g->config.bound = copy_text(config->bound);
	g->config.advertise = copy_text(config->advertise);
	g->config.dir = copy_text(config->dir);
	g->config.key_file = copy_text(config->key_file);
	g->config.name = copy_text(config->name);
	g->config.version = copy_text(config->version);
	g->config.hello = NULL;
	if (config->hello_len > 0)
		g->config.hello = memcpy(xmalloc(config->hello_len),
					 config->hello, config->hello_len);
	g->config.joins = NULL;
	g->config.n_joins = 0;
}

static void free_config(struct gossip *g)
{
	free((char *)g->config.bound);
	free((char *)g->config.advertise);
	free((char *)g->config.dir);
	free((char *)g->config.key_file);
	free((char *)g->config.name);
	free((char *)g->config.version);
	free((void *)g->config.hello);
}

static bool is_name_good(const char *name)
{
	struct facts_said said = {.addr = {.port = 1},
				  .name = name,
				  .name_len = strlen(name),
				  .oldest = 1,
				  .newest = 1};
	uint8_t attrs[FACTS_BYTES_MAX];

	return facts_encode(&said, attrs, sizeof(attrs)) >= 0;
}

static int check_config(const struct gossip_config *c, char *errmsg)
{
	struct gossip_addr addr;
	char host[ADDRESS_HOST_SIZE];
	uint16_t port;

	if (!is_name_good(c->name))
		return gossip_refuse(
			errmsg, -EINVAL,
			"'%.255s' cannot be a member's name: 1 to 255 "
			"bytes, no slash, no dot in front",
			c->name);
	if (c->boot == 0 || c->boot == UINT32_MAX)
		return gossip_refuse(
			errmsg, -EINVAL,
			"the number of starts, %lu, is out of range",
			(unsigned long)c->boot);
	if (address_parse(c->bound, &addr) != 0)
		return gossip_refuse(errmsg, -EINVAL, "'%.90s' is no ADDR:PORT",
				     c->bound);
	if (c->advertise != NULL && (address_parse(c->advertise, &addr) != 0 ||
				     net_addr_is_wildcard(&addr)))
		return gossip_refuse(
			errmsg, -EINVAL,
			"'%.90s' cannot be advertised: it must be a "
			"numeric ADDR:PORT that others can reach",
			c->advertise);
	if (c->hello_len > GOSSIP_HELLO_MAX || c->n_joins > JOINS_MAX)
		return gossip_refuse(errmsg, -EINVAL,
				     "too much to say, or to join");
	for (size_t i = 0; i < c->n_joins; i++)
		if (address_split(c->joins[i], host, &port) != 0)
			return gossip_refuse(
				errmsg, -EINVAL,
				"'%.200s' is no address to join through: "
				"it must be HOST:PORT, ADDR:PORT, or "
				"[IPv6]:PORT",
				c->joins[i]);
	return 0;
}

static uint64_t draw_seed(void)
{
	uint64_t seed;

	/* Without the entropy of 8 bytes there are no keys either. */
	if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		abort(); /* untested: Linux gives it */
	return seed;
}

/* What a packet has for us; in the clear there is a little more. */
static uint16_t packet_room(uint16_t datagram)
{
	return (uint16_t)(datagram - SEAL_PACKET_EXTRA - TOPIC_BYTES);
}

static void make_swim(struct gossip *g)
{
	static const struct swim_config *const presets[] = {
		[GOSSIP_LAN] = &swim_lan,
		[GOSSIP_WAN] = &swim_wan,
		[GOSSIP_LOCAL] = &swim_local,
	};
	struct swim_config config = *presets[g->config.preset];
	struct swim_self self = {.id = g->config.self,
				 .boot = g->config.boot,
				 .addr = g->self,
				 .name = g->config.name};

	config.packet_bytes = packet_room(config.packet_bytes);
	facts_pool_init(&g->pool);
	g->swim = swim_create(&config, &self, &g->pool, draw_seed());
	swim_out_clear(&g->swim_out);
}

static void forget_traits(struct gossip *g, const struct gossip_id *id)
{
	traits_forget(g->traits, id);
}

static void make_channels(struct gossip *g)
{
	struct sb_config config = sb_defaults;
	struct sb_self self = {.id = g->config.self,
			       .boot = g->config.boot,
			       .seed = draw_seed()};

	config.packet_bytes = packet_room(swim_lan.packet_bytes);
	config.bytes_max = TRAITS_BYTES;
	g->traits = traits_create(&config, &self, gossip_members_trait, g);
	g->channels[CHANNEL_TRAITS] =
		(struct channel){.sb = traits_sb(g->traits),
				 .number = TRAITS_CHANNEL,
				 .forget = forget_traits};
}

void gossip_release(struct gossip *g)
{
	gossip_keep_finish(g);
	gossip_members_finish(g);
	gossip_join_finish(g);
	swim_destroy(g->swim);
	swim_out_finish(&g->swim_out);
	if (g->swim != NULL)
		facts_pool_finish(&g->pool);
	traits_destroy(g->traits);
	sb_out_finish(&g->sb_out);
	seal_destroy(g->seal);
	seal_destroy(g->lobby_seal);
	free_config(g);
	free(g);
}

/* What can fail: files. No handle is open yet. */
static int open_files(struct gossip *g, char *errmsg)
{
	static const struct gossip_id nobody;

	g->lobby_seal = make_seal(g, &nobody);
	if (g->lobby_seal == NULL)
		return gossip_refuse(errmsg, -EIO,
				     "libsodium cannot be started");
	int rc = gossip_keys_load(g, errmsg);
	return rc == 0 ? gossip_keep_load(g, errmsg) : rc;
}

int gossip_create(const struct gossip_config *config, struct gossip **out,
		  char errmsg[GOSSIP_ERRMSG_SIZE])
{
	int rc = check_config(config, errmsg);

	if (rc != 0)
		return rc;
	struct gossip *g = xcalloc(1, sizeof(*g));
	copy_config(g, config);
	gossip_members_init(g);
	for (size_t i = 0; i < config->n_joins; i++)
		gossip_join_add(g, config->joins[i], NULL);
	make_channels(g);
	rc = open_files(g, errmsg);
	if (rc != 0) {
		gossip_release(g);
		return rc;
	}
	gossip_join_look_around(g);
	make_swim(g);
	gossip_open(g);
	if (!gossip_id_is_zero(&config->cluster))
		gossip_make_seal(g, &config->cluster);
	*out = g;
	return 0;
}
