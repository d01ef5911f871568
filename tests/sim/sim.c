/* SPDX-License-Identifier: MIT */
#include "tests/sim/sim.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "gossip/mem.h"

#define MILLION	     1000000u
#define HEADER_BYTES 28 /* UDP and IPv4, for the count of bytes */
#define STREAM_HOPS  3	/* a stream's message takes so many delays */
#define ERROR_US     10 /* until a refusal is noticed */
#define NEVER	     UINT64_MAX

struct sim_packet {
	uint32_t from; /* node; 0: nowhere */
	struct gossip_addr from_addr, to_addr;
	bool on_stream;
	bool is_error; /* it could not be sent: goes back to its sender */
	uint32_t len;
	uint8_t bytes[];
};

bool sim_set_has(const struct sim_set *set, uint32_t node)
{
	for (unsigned i = 0; i < set->n; i++)
		if (node >= set->ranges[i].first && node <= set->ranges[i].last)
			return true;
	return false;
}

struct sim_node *sim_node(struct sim *sim, uint32_t node)
{
	assert(node > 0 && node <= sim->n_nodes);
	return sim->nodes[node - 1];
}

static struct gossip_addr addr_of(struct sim *sim, uint32_t node)
{
	struct gossip_addr addr = {.port = sim_node(sim, node)->port};

	for (unsigned i = 0; i < 4; i++)
		addr.ip[15 - i] = (uint8_t)(node >> (8 * i));
	return addr;
}

static uint32_t number_at(const struct gossip_addr *addr)
{
	return (uint32_t)addr->ip[12] << 24 | (uint32_t)addr->ip[13] << 16 |
	       (uint32_t)addr->ip[14] << 8 | addr->ip[15];
}

/* An id tells its node: bytes 8 to 11 are the number, the rest is random. */
uint32_t sim_number(const struct sim *sim, const struct gossip_id *id)
{
	uint32_t node;

	memcpy(&node, id->b + 8, sizeof(node));
	if (node == 0 || node > sim->n_nodes ||
	    !gossip_id_equal(&sim->nodes[node - 1]->id, id))
		return 0;
	return node;
}

/* The clock of a node, and back: rounded up, so that nobody wakes too early. */
uint64_t sim_local_us(const struct sim *sim, const struct sim_node *n)
{
	int64_t drift = (int64_t)sim->now_us / (int)MILLION * n->rate_ppm +
			(int64_t)sim->now_us % (int)MILLION * n->rate_ppm /
				(int)MILLION;

	return n->clock_base + sim->now_us + (uint64_t)drift;
}

uint64_t sim_true_us(const struct sim *sim, const struct sim_node *n,
		     uint64_t local)
{
	uint64_t now = sim_local_us(sim, n);

	if (local <= now)
		return sim->now_us;
	uint64_t wait = local - now;
	return sim->now_us + wait -
	       (uint64_t)((int64_t)wait * n->rate_ppm / (int)MILLION) +
	       (n->rate_ppm != 0);
}

/* The heap of events, by (time, number). */

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->id < b->id;
}

static void push(struct sim *sim, struct sim_event event)
{
	if (sim->n_heap == sim->cap_heap) {
		sim->cap_heap = sim->cap_heap > 0 ? 2 * sim->cap_heap : 256;
		sim->heap =
			xrealloc(sim->heap, sim->cap_heap * sizeof(*sim->heap));
	}
	size_t i = sim->n_heap++;
	event.id = sim->n_events++;
	for (; i > 0 && is_before(&event, &sim->heap[(i - 1) / 2]);
	     i = (i - 1) / 2)
		sim->heap[i] = sim->heap[(i - 1) / 2];
	sim->heap[i] = event;
}

static struct sim_event pop(struct sim *sim)
{
	struct sim_event first = sim->heap[0];
	struct sim_event last = sim->heap[--sim->n_heap];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < sim->n_heap; i = child) {
		if (child + 1 < sim->n_heap &&
		    is_before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!is_before(&sim->heap[child], &last))
			break;
		sim->heap[i] = sim->heap[child];
	}
	sim->heap[i] = last;
	return first;
}

/* Links */

static void set_field(struct sim_link *link, enum sim_link_field field,
		      uint32_t value)
{
	switch (field) {
	case SIM_DELAY:
		link->delay_us = value;
		break;
	case SIM_JITTER:
		link->jitter_us = value;
		break;
	case SIM_LOSS:
		link->loss = value;
		break;
	case SIM_DUPLICATE:
		link->duplicate = value;
		break;
	case SIM_REORDER:
		link->reorder = value;
		break;
	case SIM_MTU:
		link->mtu = value;
		break;
	case SIM_CUT:
		link->is_cut = value != 0;
		break;
	case SIM_FAILS:
		link->fails = value != 0;
		break;
	}
}

static struct sim_link link_of(const struct sim *sim, uint32_t from,
			       uint32_t to)
{
	struct sim_link link = sim->link;

	for (unsigned i = 0; i < sim->n_rules; i++) {
		const struct sim_rule *r = &sim->rules[i];

		if (sim_set_has(&r->from, from) && sim_set_has(&r->to, to))
			set_field(&link, r->field, r->value);
	}
	return link;
}

void sim_rule(struct sim *sim, const struct sim_rule *rule)
{
	assert(sim->n_rules < SIM_RULES_MAX);
	sim->rules[sim->n_rules++] = *rule;
}

static bool happens(struct sim *sim, uint32_t share)
{
	return share > 0 && random_below(&sim->random, MILLION) < share;
}

static void deliver_at(struct sim *sim, uint64_t at_us, uint32_t node,
		       const struct sim_packet *packet)
{
	struct sim_packet *copy = xmalloc(sizeof(*copy) + packet->len);

	memcpy(copy, packet, sizeof(*copy) + packet->len);
	push(sim,
	     (struct sim_event){.at_us = at_us, .node = node, .packet = copy});
}

static uint64_t departure(struct sim *sim, struct sim_node *n, size_t len)
{
	if (sim->bandwidth == 0)
		return sim->now_us;
	uint64_t at = n->tx_free_us > sim->now_us ? n->tx_free_us : sim->now_us;
	n->tx_free_us = at + len * (uint64_t)MILLION / sim->bandwidth;
	return n->tx_free_us;
}

static void send_datagram(struct sim *sim, struct sim_packet *p)
{
	uint32_t to = number_at(&p->to_addr);
	struct sim_link link = link_of(sim, p->from, to);
	uint64_t at = departure(sim, sim_node(sim, p->from), p->len);

	if (link.fails) {
		p->is_error = true;
		deliver_at(sim, sim->now_us + ERROR_US, p->from, p);
		return;
	}
	for (unsigned copies = 1 + happens(sim, link.duplicate); copies > 0;
	     copies--) {
		if (link.is_cut || (link.mtu > 0 && p->len > link.mtu) ||
		    happens(sim, link.loss))
			continue;
		uint64_t delay = link.delay_us;
		if (link.jitter_us > 0)
			delay += random_below(&sim->random, link.jitter_us + 1);
		if (happens(sim, link.reorder))
			delay += 10 * (uint64_t)link.delay_us;
		deliver_at(sim, at + delay, to, p);
	}
}

/* Reliable and in order, but only if both directions work at all. */
static void send_on_stream(struct sim *sim, struct sim_packet *p)
{
	uint32_t to = number_at(&p->to_addr);
	struct sim_link there = link_of(sim, p->from, to);
	struct sim_link back = link_of(sim, to, p->from);
	uint64_t at = departure(sim, sim_node(sim, p->from), p->len);

	if (there.is_cut || there.fails || back.is_cut || back.fails)
		return;
	deliver_at(sim, at + STREAM_HOPS * (uint64_t)there.delay_us, to, p);
}

static void send_one(struct sim *sim, uint32_t from, const struct swim_send *s)
{
	static uint8_t sealed[2 * WIRE_MESSAGE_BYTES];
	struct sim_node *n = sim_node(sim, from);
	const uint8_t *bytes = sim->out.bytes + s->at;
	size_t len = s->len, overhead = 0;
	uint32_t to = number_at(&s->to);

	assert(s->on_stream || s->len <= sim->config.packet_bytes);
	assert(s->kind < SIM_KINDS);
	if (sim->codec != NULL) {
		len = sim->codec->seal(sim->codec->data, from, bytes, len,
				       sealed);
		bytes = sealed;
		overhead = sim->codec->overhead;
		assert(len <= s->len + overhead);
	}
	n->n_sent[s->kind]++;
	n->n_bytes += len + HEADER_BYTES;
	if (sim->on_send != NULL)
		sim->on_send(sim->hook_data, from, to, s->kind);
	if (to == 0 || to > sim->n_nodes)
		return;
	struct sim_packet *p = xmalloc(sizeof(*p) + len);
	*p = (struct sim_packet){.from = from,
				 .from_addr = addr_of(sim, from),
				 .to_addr = s->to,
				 .on_stream = s->on_stream,
				 .len = (uint32_t)len};
	memcpy(p->bytes, bytes, len);
	if (s->on_stream)
		send_on_stream(sim, p);
	else
		send_datagram(sim, p);
	free(p);
}

/* Carry out what a core asked for. */

static void tell_event(struct sim *sim, uint32_t node,
		       const struct swim_event *e)
{
	static const char *const names[] = {"alive", "suspect", "dead", "left",
					    "forgotten"};
	static const char *const kinds[] = {"member",  "facts",	   "gone",
					    "refuted", "isolated", "copied",
					    "told"};

	if (sim->on_event != NULL)
		sim->on_event(sim->hook_data, node, e);
	if ((sim_node(sim, node)->topics & SIM_TRACE_EVENTS) == 0)
		return;
	fprintf(sim->trace, "[%5llu] %u > event -> %s",
		(unsigned long long)(sim->now_us / 1000), node, kinds[e->kind]);
	if (e->kind == SWIM_MEMBER)
		fprintf(sim->trace, " %u %s %u.%u", sim_number(sim, &e->id),
			names[e->is], incarnation_boot(e->incarnation),
			incarnation_change(e->incarnation));
	else if (e->kind == SWIM_FACTS || e->kind == SWIM_GONE)
		fprintf(sim->trace, " %u", sim_number(sim, &e->id));
	else if (e->kind == SWIM_ISOLATED)
		fprintf(sim->trace, " %d", e->value);
	fputc('\n', sim->trace);
}

static void carry_out(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);
	struct swim_out *out = &sim->out;

	for (size_t i = 0; i < out->n_sends; i++)
		send_one(sim, node, &out->sends[i]);
	for (size_t i = 0; i < out->n_events; i++)
		tell_event(sim, node, &out->events[i]);
	uint64_t wake = out->wake_us != NEVER
				? sim_true_us(sim, n, out->wake_us)
				: NEVER;
	if (wake < n->wake_us) {
		n->wake_us = wake;
		push(sim, (struct sim_event){.at_us = wake,
					     .node = node,
					     .process = n->boot});
	}
	swim_out_clear(out);
	sim_check_node(sim, node);
}

/* Processes */

static void trace_line(void *data, const char *line)
{
	const struct sim_node *n = data;

	fprintf(n->sim->trace, "[%5llu] %u > %s\n",
		(unsigned long long)(n->sim->now_us / 1000), n->number, line);
}

static void new_id(struct sim *sim, uint32_t node)
{
	struct gossip_id *id = &sim_node(sim, node)->id;
	uint64_t halves[2] = {random_next(&sim->random),
			      random_next(&sim->random)};

	memcpy(id->b, halves, sizeof(id->b));
	memcpy(id->b + 8, &node, sizeof(node));
}

void sim_init(struct sim *sim, uint64_t seed, const struct swim_config *config)
{
	*sim = (struct sim){.config = *config, .seed = seed, .trace = stdout};
	sim->random.state = seed;
	sim->link = (struct sim_link){.delay_us = 500};
	facts_pool_init(&sim->pool);
	swim_out_clear(&sim->out);
}

void sim_add(struct sim *sim, uint32_t n)
{
	uint32_t old = sim->n_nodes;

	sim->n_nodes += n;
	sim->nodes = xrealloc(sim->nodes, sim->n_nodes * sizeof(*sim->nodes));
	for (uint32_t i = old; i < sim->n_nodes; i++) {
		struct sim_node *node = xcalloc(1, sizeof(*node));

		node->sim = sim;
		node->number = i + 1;
		node->port = (uint16_t)(i % 65535 + 1);
		/* Not 0, and no two the same: nobody may compare clocks. */
		node->clock_base = (uint64_t)MILLION * (1000 + i % 1000);
		sim->nodes[i] = node;
		new_id(sim, i + 1);
	}
}

void sim_start(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);
	char name[16];

	assert(n->swim == NULL);
	snprintf(name, sizeof(name), "%u", node);
	struct swim_self self = {.id = n->id,
				 .boot = ++n->boot,
				 .addr = addr_of(sim, node),
				 .name = name};
	n->swim = swim_create(&sim->config, &self, &sim->pool,
			      random_next(&sim->random));
	swim_trace(n->swim, n->topics, trace_line, n);
	n->state = SIM_RUNNING;
	n->wake_us = NEVER;
	swim_start(n->swim, sim_local_us(sim, n), &sim->out);
	carry_out(sim, node);
}

static void drop_inbox(struct sim_node *n)
{
	for (uint32_t i = 0; i < n->n_inbox; i++)
		free(n->inbox[i]);
	free(n->inbox);
	n->inbox = NULL;
	n->n_inbox = 0;
}

void sim_kill(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);

	swim_destroy(n->swim);
	n->swim = NULL;
	n->state = SIM_DOWN;
	n->wake_us = NEVER;
	drop_inbox(n);
	sim_check_reset(sim, node);
}

void sim_wipe(struct sim *sim, uint32_t node)
{
	assert(sim_node(sim, node)->swim == NULL);
	sim_node(sim, node)->boot = 0;
	new_id(sim, node);
	sim_check_reset(sim, node);
}

void sim_stop(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);

	assert(n->state == SIM_RUNNING);
	n->state = SIM_STOPPED;
}

/* The hash of a run: what was taken by whom, and when. Of what is sealed the
 * body: nonces are no part of the run. */
static void hash_in(struct sim *sim, uint32_t node, const struct sim_packet *p,
		    const struct swim_msg *msg)
{
	uint64_t what[] = {sim->hash,	sim->now_us,
			   node,	p->from,
			   p->is_error, XXH3_64bits(msg->bytes, msg->len)};

	sim->hash = XXH3_64bits(what, sizeof(what));
}

static void receive(struct sim *sim, uint32_t node, const struct sim_packet *p)
{
	static uint8_t opened[2 * WIRE_MESSAGE_BYTES];
	struct sim_node *n = sim_node(sim, node);
	struct swim_msg msg = {.from = p->from_addr,
			       .bytes = p->bytes,
			       .len = p->len,
			       .on_stream = p->on_stream};

	if (p->is_error) {
		msg.len = 0;
		hash_in(sim, node, p, &msg);
		swim_send_failed(n->swim, sim_local_us(sim, n), &p->to_addr,
				 &sim->out);
		carry_out(sim, node);
		return;
	}
	if (sim->codec != NULL) {
		msg.len = sim->codec->open(sim->codec->data, node, p->bytes,
					   p->len, opened);
		msg.bytes = opened;
		if (msg.len == 0)
			return;
	}
	hash_in(sim, node, p, &msg);
	swim_recv(n->swim, sim_local_us(sim, n), &msg, &sim->out);
	carry_out(sim, node);
}

static void wake(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);

	n->wake_us = NEVER;
	swim_tick(n->swim, sim_local_us(sim, n), &sim->out);
	carry_out(sim, node);
}

/* As a loop does: timers first, then what has come meanwhile. */
void sim_continue(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);
	struct sim_packet **inbox = n->inbox;
	uint32_t n_inbox = n->n_inbox;

	assert(n->state == SIM_STOPPED);
	n->state = SIM_RUNNING;
	n->inbox = NULL;
	n->n_inbox = 0;
	wake(sim, node);
	for (uint32_t i = 0; i < n_inbox; i++) {
		receive(sim, node, inbox[i]);
		free(inbox[i]);
	}
	free(inbox);
}

void sim_join(struct sim *sim, uint32_t node, uint32_t by)
{
	struct sim_node *n = sim_node(sim, node);
	struct gossip_addr addr = addr_of(sim, by);

	swim_join(n->swim, sim_local_us(sim, n), &addr, &sim->out);
	carry_out(sim, node);
}

void sim_leave(struct sim *sim, uint32_t node)
{
	struct sim_node *n = sim_node(sim, node);

	swim_leave(n->swim, sim_local_us(sim, n), &sim->out);
	carry_out(sim, node);
}

int sim_forget(struct sim *sim, uint32_t node, uint32_t other)
{
	struct sim_node *n = sim_node(sim, node);
	int rc = swim_forget(n->swim, sim_local_us(sim, n),
			     &sim_node(sim, other)->id, &sim->out);

	carry_out(sim, node);
	return rc;
}

int sim_obituary(struct sim *sim, uint32_t node, uint32_t other, uint32_t boot)
{
	struct sim_node *n = sim_node(sim, node);
	int rc = swim_obituary(n->swim, sim_local_us(sim, n),
			       &sim_node(sim, other)->id, boot, &sim->out);

	carry_out(sim, node);
	return rc;
}

void sim_meta(struct sim *sim, uint32_t node, const char *meta)
{
	struct sim_node *n = sim_node(sim, node);
	struct gossip_addr addr = addr_of(sim, node);

	swim_set_self(n->swim, sim_local_us(sim, n), &addr,
		      (const uint8_t *)meta, strlen(meta), &sim->out);
	carry_out(sim, node);
}

void sim_trace(struct sim *sim, uint32_t node, unsigned topics)
{
	struct sim_node *n = sim_node(sim, node);

	n->topics = topics;
	if (n->swim != NULL)
		swim_trace(n->swim, topics, trace_line, n);
}

void sim_inject(struct sim *sim, uint32_t node, uint32_t from,
		const uint8_t *bytes, size_t len)
{
	struct sim_packet *p = xmalloc(sizeof(*p) + len);

	*p = (struct sim_packet){.from_addr = addr_of(sim, from),
				 .to_addr = addr_of(sim, node),
				 .len = (uint32_t)len};
	memcpy(p->bytes, bytes, len);
	deliver_at(sim, sim->now_us, node, p);
	free(p);
}

void sim_acquaint(struct sim *sim)
{
	for (uint32_t i = 1; i <= sim->n_nodes; i++) {
		struct sim_node *n = sim_node(sim, i);

		for (uint32_t j = 1; j <= sim->n_nodes && n->swim; j++)
			if (j != i && sim_node(sim, j)->swim != NULL)
				swim_know(n->swim, sim_local_us(sim, n),
					  swim_facts(sim_node(sim, j)->swim));
	}
}

/* Running */

static void refuse(struct sim *sim, const struct sim_packet *p)
{
	struct sim_packet error = {.from = p->from,
				   .from_addr = p->from_addr,
				   .to_addr = p->to_addr,
				   .is_error = true};

	if (sim->refuses && !p->on_stream && p->from != 0)
		deliver_at(sim, sim->now_us + sim->link.delay_us, p->from,
			   &error);
}

static void keep(struct sim_node *n, struct sim_packet *p)
{
	if (n->n_inbox == SIM_INBOX_MAX) {
		free(p);
		return;
	}
	if (n->inbox == NULL)
		n->inbox = xcalloc(SIM_INBOX_MAX, sizeof(*n->inbox));
	n->inbox[n->n_inbox++] = p;
}

static void arrive(struct sim *sim, uint32_t node, struct sim_packet *p)
{
	struct sim_node *n = sim_node(sim, node);

	if (n->state == SIM_STOPPED) {
		keep(n, p);
		return;
	}
	if (n->state == SIM_RUNNING &&
	    (p->is_error || p->to_addr.port == n->port)) {
		receive(sim, node, p);
	} else if (!p->is_error) {
		refuse(sim, p);
	}
	free(p);
}

bool sim_step(struct sim *sim, uint64_t until_us)
{
	if (sim->n_heap == 0 || sim->heap[0].at_us > until_us) {
		sim->now_us = until_us;
		return false;
	}
	struct sim_event e = pop(sim);
	struct sim_node *n = sim_node(sim, e.node);
	assert(e.at_us >= sim->now_us);
	sim->now_us = e.at_us;
	if (e.packet != NULL)
		arrive(sim, e.node, e.packet);
	else if (n->state == SIM_RUNNING && e.process == n->boot &&
		 e.at_us == n->wake_us)
		wake(sim, e.node);
	return true;
}

void sim_run(struct sim *sim, uint64_t us)
{
	uint64_t until = sim->now_us + us;

	while (sim_step(sim, until))
		;
}

unsigned sim_sees(struct sim *sim, uint32_t node, uint32_t other)
{
	struct swim_view view;

	if (sim_node(sim, node)->swim == NULL ||
	    !swim_find(sim_node(sim, node)->swim, &sim_node(sim, other)->id,
		       &view))
		return SWIM_UNKNOWN;
	return view.is_verified ? view.status : SWIM_UNKNOWN;
}

bool sim_agree(struct sim *sim)
{
	struct swim_stats first = {0}, stats;

	for (uint32_t i = 1; i <= sim->n_nodes; i++) {
		struct sim_node *n = sim_node(sim, i);

		if (n->state != SIM_RUNNING)
			continue;
		swim_stats(n->swim, &stats);
		if (first.n_members == 0)
			first = stats;
		if (stats.digest != first.digest)
			return false;
	}
	return true;
}

void sim_finish(struct sim *sim)
{
	for (uint32_t i = 1; i <= sim->n_nodes; i++)
		sim_kill(sim, i);
	while (sim->n_heap > 0)
		free(pop(sim).packet);
	sim_check_finish(sim);
	if (sim->codec != NULL && sim->codec->finish != NULL)
		sim->codec->finish(sim->codec->data);
	for (uint32_t i = 0; i < sim->n_nodes; i++)
		free(sim->nodes[i]);
	free(sim->heap);
	free(sim->nodes);
	swim_out_finish(&sim->out);
	facts_pool_finish(&sim->pool);
}
