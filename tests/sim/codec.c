/* SPDX-License-Identifier: MIT */
/* What goes over the simulator's links is sealed by gossip/seal.h, as in a
 * daemon: one key, a seal for each process. */
#include <assert.h>
#include <string.h>

#include "gossip/mem.h"
#include "gossip/seal.h"
#include "tests/sim/sim.h"

struct sealing {
	struct sim_codec codec;
	struct sim *sim;
	struct one {
		struct seal *seal;
		struct gossip_id id;
		uint32_t boot;
	} * ones; /* by node */
	uint32_t n;
};

static void begin_life(struct sealing *x, struct one *one,
		       const struct sim_node *node)
{
	struct seal_config config = {.cluster = {{0x51}},
				     .self = node->id,
				     .boot = node->boot,
				     .mode = SEAL_REQUIRED,
				     .peers_max = 4 * x->sim->n_nodes + 64};
	struct seal_key key = {{0x1d}};

	seal_destroy(one->seal);
	one->seal = seal_create(&config);
	one->id = node->id;
	one->boot = node->boot;
	assert(one->seal != NULL);
	int rc = seal_add(one->seal, &key);
	assert(rc == 0);
	(void)rc;
}

static struct seal *seal_of(struct sealing *x, uint32_t number)
{
	const struct sim_node *node = sim_node(x->sim, number);

	if (number > x->n) {
		x->ones = xrealloc(x->ones, x->sim->n_nodes * sizeof(*x->ones));
		memset(x->ones + x->n, 0,
		       (x->sim->n_nodes - x->n) * sizeof(*x->ones));
		x->n = x->sim->n_nodes;
	}
	struct one *one = &x->ones[number - 1];
	if (one->seal == NULL || one->boot != node->boot ||
	    !gossip_id_equal(&one->id, &node->id))
		begin_life(x, one, node);
	return one->seal;
}

static size_t seal_it(void *data, uint32_t from, const uint8_t *in, size_t len,
		      uint8_t *out)
{
	int n = seal_packet(seal_of(data, from), in, len, out, SEAL_PACKET_MAX);

	assert(n > 0);
	return (size_t)n;
}

static size_t open_it(void *data, uint32_t to, const uint8_t *in, size_t len,
		      uint8_t *out)
{
	struct seal_opened opened;

	memcpy(out, in, len);
	if (seal_open(seal_of(data, to), out, len, &opened) != SEAL_OK)
		return 0;
	memmove(out, opened.body, opened.len);
	return opened.len;
}

static void finish(void *data)
{
	struct sealing *x = data;

	for (uint32_t i = 0; i < x->n; i++)
		seal_destroy(x->ones[i].seal);
	free(x->ones);
	free(x);
}

const struct sim_codec *sim_codec_seal(struct sim *sim)
{
	struct sealing *x = xcalloc(1, sizeof(*x));

	x->sim = sim;
	x->codec = (struct sim_codec){.seal = seal_it,
				      .open = open_it,
				      .data = x,
				      .overhead = SEAL_PACKET_EXTRA,
				      .finish = finish};
	return &x->codec;
}
