/* SPDX-License-Identifier: MIT */
/* Life of an instance, and its cores on the loop: one timer for all that is
 * due, packets and messages to whom they are for, and what the cores ask for.
 *
 * The clock is CLOCK_BOOTTIME. After a suspend it has jumped: then swim finds
 * that it was called late, and gives everybody the time that it missed (F9);
 * the monotonic clock would have stood still, and the acks lost in our sleep
 * would be the others' fault. */
#include "gossip/gossip.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gossip/gossip_impl.h"

#define CHORES_US SECOND
#define LOG_BYTES 1024

uint64_t gossip_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec / 1000;
}

void gossip_log(struct gossip *g, int level, const char *format, ...)
{
	char line[LOG_BYTES];
	va_list ap;

	if (g->config.on_log == NULL)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	g->config.on_log(g->config.data, level, line);
}

/* ---- What the cores ask for ---- */

static void send_swim(struct gossip *g, const struct swim_send *s)
{
	const uint8_t *bytes = g->swim_out.bytes + s->at;

	if (!s->on_stream)
		net_packet(g->net, &s->to, NET_SWIM, bytes, s->len);
	else /* lost when there is no room: swim asks again */
		net_send(g->net, &s->to, NULL, GOSSIP_URGENT, NET_SWIM, bytes,
			 s->len);
}

void gossip_swim_done(struct gossip *g)
{
	struct swim_out *out = &g->swim_out;

	g->swim_wake_us = out->wake_us;
	for (size_t i = 0; i < out->n_sends; i++)
		send_swim(g, &out->sends[i]);
	for (size_t i = 0; i < out->n_events; i++)
		gossip_members_event(g, &out->events[i]);
	swim_out_clear(out);
	gossip_arm(g);
}

static void send_record(struct gossip *g, const struct sb_send *s)
{
	const uint8_t *bytes = g->sb_out.bytes + s->at;
	struct swim_view view;

	if (!swim_find(g->swim, &s->to, &view))
		return;
	if (!s->on_stream)
		net_packet(g->net, &view.facts->addr, NET_RECORDS, bytes,
			   s->len);
	else
		net_send(g->net, &view.facts->addr, &s->to, GOSSIP_BULK,
			 NET_RECORDS, bytes, s->len);
}

void gossip_channel_done(struct gossip *g, struct channel *c)
{
	struct sb_out *out = &g->sb_out;

	c->wake_us = out->wake_us;
	for (size_t i = 0; i < out->n_sends; i++)
		send_record(g, &out->sends[i]);
	sb_out_clear(out);
	gossip_arm(g);
}

static void tick_channel(struct gossip *g, struct channel *c, uint64_t now_us)
{
	sb_tick(c->sb, now_us, &g->sb_out);
	gossip_channel_done(g, c);
}

void gossip_traits_done(struct gossip *g)
{
	if (g->phase == PHASE_MEMBER)
		tick_channel(g, &g->channels[CHANNEL_TRAITS], gossip_now_us());
}

/* ---- The timer ---- */

static void earlier(uint64_t *at_us, uint64_t us)
{
	if (us < *at_us)
		*at_us = us;
}

static void chores(struct gossip *g, uint64_t now_us)
{
	g->chores_us = now_us + CHORES_US;
	gossip_members_sweep(g);
	gossip_keep_tick(g, now_us);
	if (now_us < g->wishes_us)
		return;
	g->wishes_us = now_us + 2 * SECOND;
	gossip_keys_repeat(g);
}

static void on_timer(uv_timer_t *timer)
{
	struct gossip *g = timer->data;
	uint64_t now_us = gossip_now_us();

	if (g->phase == PHASE_MEMBER && now_us >= g->swim_wake_us) {
		swim_tick(g->swim, now_us, &g->swim_out);
		gossip_swim_done(g);
	}
	for (unsigned i = 0; g->phase == PHASE_MEMBER && i < N_CHANNELS; i++)
		if (now_us >= g->channels[i].wake_us)
			tick_channel(g, &g->channels[i], now_us);
	gossip_join_tick(g, now_us);
	if (g->phase == PHASE_MEMBER && now_us >= g->chores_us)
		chores(g, now_us);
	gossip_arm(g);
}

void gossip_arm(struct gossip *g)
{
	uint64_t at_us = gossip_join_wake(g), now_us = gossip_now_us();

	if (g->is_closing || g->phase == PHASE_IDLE)
		return;
	if (g->phase == PHASE_MEMBER) {
		earlier(&at_us, g->swim_wake_us);
		earlier(&at_us, g->chores_us);
		for (unsigned i = 0; i < N_CHANNELS; i++)
			earlier(&at_us, g->channels[i].wake_us);
	}
	uint64_t wait_us = at_us > now_us ? at_us - now_us : 0;
	if (at_us == NEVER) {
		uv_timer_stop(&g->timer);
		return;
	}
	uv_update_time(g->config.loop); /* the timer counts from there */
	uv_timer_start(&g->timer, on_timer, (wait_us + 999) / 1000, 0);
}

/* ---- What arrives ---- */

static void recv_swim(struct gossip *g, const struct net_from *from,
		      const uint8_t *bytes, size_t len, bool on_stream)
{
	struct swim_msg msg = {.from = from->addr,
			       .bytes = bytes,
			       .len = len,
			       .on_stream = on_stream};

	swim_recv(g->swim, gossip_now_us(), &msg, &g->swim_out);
	gossip_swim_done(g);
}

/* Byte 2 of a message names its channel; the rest is scuttlebutt's to judge. */
static void recv_record(struct gossip *g, const struct net_from *from,
			const uint8_t *bytes, size_t len)
{
	struct sb_msg msg = {.from = from->id, .bytes = bytes, .len = len};

	for (unsigned i = 0; len > 2 && i < N_CHANNELS; i++) {
		struct channel *c = &g->channels[i];

		if (c->number != bytes[2])
			continue;
		/* A bad one is counted there, and has no effect. */
		g->sb_out.wake_us = c->wake_us;
		sb_recv(c->sb, gossip_now_us(), &msg, &g->sb_out);
		gossip_channel_done(g, c);
	}
}

/* An obituary: receipt 16 | the layer's. It was sealed by the one that is gone,
 * and so is its word; from->addr is whoever sends it for him. */
static void recv_obituary(struct gossip *g, const struct net_from *from,
			  const uint8_t *bytes, size_t len)
{
	if (len < GOSSIP_RECEIPT_SIZE || g->config.on_obituary == NULL)
		return;
	if (g->config.on_obituary(g->config.data, &from->id, from->boot,
				  bytes + GOSSIP_RECEIPT_SIZE,
				  len - GOSSIP_RECEIPT_SIZE) &&
	    !g->is_closing)
		net_plain(g->net, &from->addr, bytes, GOSSIP_RECEIPT_SIZE);
}

int gossip_seal_obituary(struct gossip *g,
			 const uint8_t receipt[GOSSIP_RECEIPT_SIZE],
			 const void *bytes, size_t len, uint8_t *packet,
			 size_t cap)
{
	uint8_t body[GOSSIP_HELLO_MAX];

	if (len > sizeof(body) - GOSSIP_RECEIPT_SIZE)
		return -EMSGSIZE;
	memcpy(body, receipt, GOSSIP_RECEIPT_SIZE);
	memcpy(body + GOSSIP_RECEIPT_SIZE, bytes, len);
	return net_seal(g->net, NET_OBITUARY, body, GOSSIP_RECEIPT_SIZE + len,
			packet, cap);
}

/* Two that are sealed apart: neither is a repetition of the other. */
void gossip_send_obituary(struct gossip *g, const void *bytes, size_t len)
{
	uint8_t body[GOSSIP_HELLO_MAX] = {0}; /* nobody waits for a receipt */
	struct swim_view view;
	uint32_t cursor = 0;

	if (g->phase != PHASE_MEMBER ||
	    len > sizeof(body) - GOSSIP_RECEIPT_SIZE)
		return;
	memcpy(body + GOSSIP_RECEIPT_SIZE, bytes, len);
	while (swim_next(g->swim, &cursor, &view)) {
		bool is_self = view.facts == swim_facts(g->swim);

		for (int i = 0; i < 2 && !is_self; i++)
			if (view.status < WIRE_DEAD)
				net_packet(g->net, &view.facts->addr,
					   NET_OBITUARY, body,
					   GOSSIP_RECEIPT_SIZE + len);
	}
}

static void on_packet(void *data, const struct net_from *from,
		      enum net_topic topic, const uint8_t *bytes, size_t len)
{
	struct gossip *g = data;

	if (g->is_closing || g->phase != PHASE_MEMBER)
		return;
	if (topic == NET_SWIM)
		recv_swim(g, from, bytes, len, false);
	else if (topic == NET_RECORDS)
		recv_record(g, from, bytes, len);
	else if (topic == NET_OBITUARY)
		recv_obituary(g, from, bytes, len);
}

static void on_message(void *data, const struct net_from *from,
		       enum net_topic topic, const uint8_t *bytes, size_t len)
{
	struct gossip *g = data;

	if (g->is_closing || g->phase != PHASE_MEMBER)
		return;
	switch (topic) {
	case NET_SWIM:
		recv_swim(g, from, bytes, len, true);
		break;
	case NET_RECORDS:
		recv_record(g, from, bytes, len);
		break;
	case NET_LAYER:
		if (g->config.on_message != NULL)
			g->config.on_message(g->config.data, &from->id, bytes,
					     len);
		break;
	case NET_KEYS:
		gossip_keys_recv(g, from, bytes_in_of(bytes, len));
		break;
	default:
		break; /* of a later version */
	}
}

/* Its own seal keeps it out, and it hears nothing: a restored state would wait
 * for ever. */
static void on_former(void *data, const struct net_from *from)
{
	struct gossip *g = data;

	if (!g->is_closing && g->phase == PHASE_MEMBER)
		gossip_members_warn(g, &from->id, &from->addr);
}

static void on_send_failed(void *data, const struct gossip_addr *to)
{
	struct gossip *g = data;

	if (g->is_closing || g->n_failed == FAILED_MAX)
		return; /* the probe will notice later */
	g->failed[g->n_failed++] = *to;
	gossip_later(g);
}

/* No proof of anything, but a reason to look at once. */
static void on_stream_failed(void *data, const struct gossip_addr *to)
{
	struct gossip *g = data;
	struct swim_view view;
	uint32_t cursor = 0;

	if (g->is_closing || g->phase != PHASE_MEMBER)
		return;
	while (swim_next(g->swim, &cursor, &view))
		if (gossip_addr_equal(&view.facts->addr, to))
			swim_hint(g->swim, &view.facts->id);
}

static void on_net_log(void *data, int level, const char *line)
{
	struct gossip *g = data;

	gossip_log(g, level, "%s", line);
}

/* ---- Later ---- */

static void tell_failed(struct gossip *g)
{
	for (unsigned i = 0; i < g->n_failed; i++) {
		if (g->phase != PHASE_MEMBER)
			continue;
		swim_send_failed(g->swim, gossip_now_us(), &g->failed[i],
				 &g->swim_out);
		gossip_swim_done(g);
	}
	g->n_failed = 0;
}

static void on_later(uv_idle_t *later)
{
	struct gossip *g = later->data;

	uv_idle_stop(later); /* what is told may lead to more */
	if (!g->is_closing)
		tell_failed(g);
	if (!g->is_closing && gossip_join_tell(g) && gossip_members_tell(g))
		return;
	gossip_close_step(g);
}

void gossip_later(struct gossip *g)
{
	if (!uv_is_closing((uv_handle_t *)&g->later))
		uv_idle_start(&g->later, on_later);
}

void gossip_open(struct gossip *g)
{
	struct net_config config = {.loop = g->config.loop,
				    .udp_fd = g->config.udp_fd,
				    .tcp_fd = g->config.tcp_fd,
				    .lobby = g->lobby_seal,
				    .on_packet = on_packet,
				    .on_message = on_message,
				    .on_former = on_former,
				    .on_ask = gossip_join_on_ask,
				    .on_send_failed = on_send_failed,
				    .on_stream_failed = on_stream_failed,
				    .on_log = on_net_log,
				    .data = g};

	g->net = net_create(&config);
	uv_timer_init(g->config.loop, &g->timer);
	uv_idle_init(g->config.loop, &g->later);
	g->timer.data = g->later.data = g->work.data = g->resolve.data = g;
	g->n_open = 2;
}

/* ---- Life ---- */

void gossip_set_address(struct gossip *g, const struct gossip_addr *addr)
{
	bool is_new = !gossip_addr_equal(addr, &g->self);

	g->self = *addr;
	net_addr_text(addr, g->address);
	if (!is_new || g->swim == NULL)
		return;
	net_set_self(g->net, addr);
	swim_set_self(g->swim, gossip_now_us(), addr, NULL, 0, &g->swim_out);
	gossip_swim_done(g);
	gossip_log(g, 6, "others reach us at %s", g->address);
}

void gossip_become_member(struct gossip *g)
{
	uint64_t now_us = gossip_now_us();

	g->phase = PHASE_MEMBER;
	g->chores_us = g->wishes_us = now_us;
	gossip_members_touch(g, &g->config.self, true);
	swim_start(g->swim, now_us, &g->swim_out);
	gossip_swim_done(g);
	if (g->config.version != NULL)
		traits_set(g->traits, WORD_VERSION, g->config.version,
			   strlen(g->config.version));
	gossip_keys_say(g);
	for (unsigned i = 0; i < N_CHANNELS; i++)
		tick_channel(g, &g->channels[i], now_us);
	gossip_keep_join(g);
	gossip_join_all(g);
}

int gossip_start(struct gossip *g)
{
	assert(g->phase == PHASE_IDLE && !g->is_closing);
	net_set_self(g->net, &g->self);
	int rc = net_start(g->net);
	if (rc != 0)
		return rc;
	g->phase = PHASE_LOBBY;
	if (g->seal != NULL)
		gossip_become_member(g);
	gossip_join_start(g);
	gossip_arm(g);
	return 0;
}

void gossip_found(struct gossip *g, const struct gossip_id *cluster)
{
	assert(g->phase == PHASE_IDLE);
	gossip_make_seal(g, cluster);
}

/* ---- The end ----
 *
 * A write that is under way ends; the last write; the sockets; a name that is
 * being resolved; our handles; the memory. Each step, when it is over, comes
 * here again. */

static void on_handle_closed(uv_handle_t *handle)
{
	struct gossip *g = handle->data;

	if (--g->n_open > 0)
		return;
	void (*cb)(void *data) = g->close_cb;
	void *data = g->close_data;
	gossip_release(g);
	cb(data); /* last, so that it may tear down whatever g stood on */
}

static void on_net_closed(void *data)
{
	struct gossip *g = data;

	g->is_net_closed = true;
	gossip_close_step(g);
}

void gossip_close_step(struct gossip *g)
{
	if (g->batch != NULL)
		return;
	if (!g->is_last_kept) {
		g->is_last_kept = true;
		if (gossip_keep_last(g))
			return;
	}
	if (!g->is_net_closing) {
		g->is_net_closing = true;
		net_close(g->net, on_net_closed, g);
		return;
	}
	if (!g->is_net_closed || g->resolving != NULL)
		return;
	uv_close((uv_handle_t *)&g->timer, on_handle_closed);
	uv_close((uv_handle_t *)&g->later, on_handle_closed);
}

void gossip_close(struct gossip *g, void (*cb)(void *data), void *data)
{
	assert(!g->is_closing);
	g->is_closing = true;
	g->close_cb = cb;
	g->close_data = data;
	uv_timer_stop(&g->timer);
	if (g->resolving != NULL)
		uv_cancel((uv_req_t *)&g->resolve); /* if it has not begun */
	gossip_later(g); /* the caller may be one of net's callbacks */
}

void gossip_leave(struct gossip *g)
{
	g->has_left = true;
	if (g->phase == PHASE_MEMBER) {
		swim_leave(g->swim, gossip_now_us(), &g->swim_out);
		gossip_swim_done(g);
		return;
	}
	g->has_told_left = true; /* there is nobody to tell */
	gossip_later(g);
}

int gossip_say(struct gossip *g, const char *word, const void *value,
	       size_t len)
{
	if (strcmp(word, WORD_VERSION) == 0 || strcmp(word, WORD_KEYS) == 0)
		return -EINVAL;
	int rc = traits_set(g->traits, word, value, len);
	gossip_traits_done(g);
	return rc;
}

const void *gossip_said(const struct gossip *g, const struct gossip_id *id,
			const char *word, size_t *len)
{
	struct trait trait;

	*len = 0;
	if (!traits_get(g->traits, id, word, &trait))
		return NULL;
	*len = trait.value_len;
	return trait.value;
}

int gossip_send(struct gossip *g, const struct gossip_id *to,
		enum gossip_lane lane, const void *bytes, size_t len)
{
	struct swim_view view;

	if (len > GOSSIP_MESSAGE_MAX)
		return -EMSGSIZE;
	if (g->phase != PHASE_MEMBER || gossip_id_equal(to, &g->config.self) ||
	    !swim_find(g->swim, to, &view))
		return -EHOSTUNREACH;
	int rc = net_send(g->net, &view.facts->addr, to, lane, NET_LAYER, bytes,
			  len);
	return rc == -ENOBUFS ? -EAGAIN : rc;
}

const char *gossip_address(const struct gossip *g)
{
	return g->address;
}

/* ---- Figures ---- */

static void add_refused(struct gossip_stats *out, const struct seal *s)
{
	struct seal_stats seal;

	if (s == NULL)
		return;
	seal_stats(s, &seal);
	for (unsigned i = SEAL_OK + 1; i < SEAL_N_REASONS; i++) {
		out->refused[i] += seal.n[i];
		out->n_refused += seal.n[i];
	}
}

static void count_members(const struct gossip *g, struct gossip_stats *out)
{
	struct gossip_member m;
	uint32_t at = 0;

	while (gossip_next(g, &at, &m)) {
		out->n_members++;
		out->n_alive += m.state == GOSSIP_ALIVE;
		out->n_suspect += m.state == GOSSIP_SUSPECT;
		out->n_dead += m.state == GOSSIP_DEAD;
		out->n_left += m.state == GOSSIP_LEFT;
	}
}

void gossip_stats(const struct gossip *g, struct gossip_stats *out)
{
	struct net_stats net;
	struct swim_stats swim;
	struct sb_stats sb;

	_Static_assert(SEAL_N_REASONS <= 16, "room in refused[]");
	*out = (struct gossip_stats){0};
	net_stats(g->net, &net);
	swim_stats(g->swim, &swim);
	count_members(g, out);
	out->health = swim.health;
	out->is_isolated = swim.is_isolated;
	out->n_packets_in = net.n_packets_in;
	out->n_packets_out = net.n_packets_out;
	out->bytes_in = net.bytes_in;
	out->bytes_out = net.bytes_out;
	out->n_streams_in = net.n_streams_in;
	out->n_streams_out = net.n_streams_out;
	out->stream_bytes_in = net.stream_bytes_in;
	out->stream_bytes_out = net.stream_bytes_out;
	out->n_send_errors = net.n_send_errors;
	add_refused(out, g->lobby_seal);
	add_refused(out, g->seal);
	for (unsigned i = 0; i < N_CHANNELS; i++) {
		sb_stats(g->channels[i].sb, &sb);
		out->n_records += sb.n_records;
		out->record_bytes += sb.n_bytes;
	}
}

const char *gossip_refused_name(unsigned i)
{
	return i < SEAL_N_REASONS ? seal_reason_name(i) : NULL;
}
