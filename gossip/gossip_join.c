/* SPDX-License-Identifier: MIT */
/* From names to members: resolving, the lobby, and our own address.
 *
 * A question in the lobby, and its answer (NET_LOBBY; integers little-endian,
 * what follows a field that a version knows is ignored):
 *
 *	question
 *	 0  format    1   1
 *	 1  oldest    1   of the protocols that the asker speaks: wire.h
 *	 2  newest    1
 *	 3  v         1   length of
 *	 4  version   v   its program's version, for people
 *	    h         2   length of
 *	    hello     h   what the layer above says
 *
 *	answer
 *	 0  format    1   1
 *	 1  verdict   1   enum verdict
 *	 2  cluster  16   TAKEN: its id; else zeros
 *	18  n         2   length of
 *	20  what      n   TAKEN: the layer's answer; else why, in a sentence;
 *			  NOT_NOW: or nothing
 *
 * Who may ask has shown that it has the cluster's key. All members are asked in
 * turn, for ever. A refusal is final once the others of the same round had
 * their chance; that nobody answers, or cannot answer yet, is not. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gossip/gossip_impl.h"
#include "gossip/wire.h"

#define FORMAT	       1
#define ANSWER_HEAD    20
#define ASK_MAX	       (6 + 255 + GOSSIP_HELLO_MAX)
#define RESOLVE_US     SECOND /* first pause; then twice as long */
#define RESOLVE_MAX_US (60 * SECOND)
#define ASK_US	       (SECOND / 5)
#define ASK_MAX_US     (5 * SECOND)

enum verdict {
	TAKEN = 1,
	REFUSED = 2,
	NOT_NOW = 3,
};

/* ---- Our own address ---- */

/* The first address that we would try, if one is known already. */
static bool find_target(const struct gossip *g, struct gossip_addr *out)
{
	for (unsigned i = 0; i < g->n_joins; i++)
		if (g->joins[i].n_addrs > 0) {
			*out = g->joins[i].addrs[0];
			return true;
		}
	if (g->n_kept > 0)
		*out = g->kept[0].addr;
	return g->n_kept > 0;
}

/* Where nobody lives (RFC 5737, RFC 3849), and so the default route leads. */
static void default_route(bool is_ipv6, struct gossip_addr *own)
{
	struct gossip_addr to;

	address_parse(is_ipv6 ? "[2001:db8::1]:9" : "192.0.2.1:9", &to);
	if (address_towards(&to, own) == 0)
		return;
	address_parse(is_ipv6 ? "[::1]:9" : "127.0.0.1:9", &to);
	memcpy(own->ip, to.ip, sizeof(own->ip));
}

void gossip_join_look_around(struct gossip *g)
{
	struct gossip_addr own, to;
	const char *given = g->config.advertise;

	address_parse(given != NULL ? given : g->config.bound, &own);
	g->is_self_guessed = net_addr_is_wildcard(&own);
	bool is_ipv6 = !net_addr_is_ipv4(&own);
	if (g->is_self_guessed) {
		if (!find_target(g, &to) || address_towards(&to, &own) != 0 ||
		    net_addr_is_wildcard(&own))
			default_route(is_ipv6, &own);
	}
	gossip_set_address(g, &own);
}

/* ---- Joins ---- */

static struct join *find_join(struct gossip *g, const char *text)
{
	for (unsigned i = 0; i < g->n_joins; i++)
		if (strcmp(g->joins[i].text, text) == 0)
			return &g->joins[i];
	return NULL;
}

int gossip_join_add(struct gossip *g, const char *text, struct join **out)
{
	char host[ADDRESS_HOST_SIZE];
	struct join *j = find_join(g, text);
	uint16_t port;

	if (address_split(text, host, &port) != 0)
		return -EINVAL;
	if (j == NULL && g->n_joins == JOINS_MAX)
		return -ENOSPC;
	if (j == NULL) {
		j = &g->joins[g->n_joins++];
		size_t size = strlen(text) + 1;
		*j = (struct join){.text = memcpy(xmalloc(size), text, size),
				   .port = port};
		memcpy(j->host, host, sizeof(host));
		j->is_name = address_parse(text, &j->addrs[0]) != 0;
		j->n_addrs = !j->is_name;
	}
	j->next_us = 0;
	j->wait_us = RESOLVE_US;
	if (out != NULL)
		*out = j;
	return 0;
}

/* One whom we know, and hear, we need not get to know. */
static bool is_known(const struct gossip *g, const struct gossip_addr *addr)
{
	struct swim_view view;
	uint32_t at = 0;

	while (swim_next(g->swim, &at, &view))
		if (gossip_addr_equal(&view.facts->addr, addr) &&
		    view.is_verified && view.status <= WIRE_SUSPECT)
			return true;
	return false;
}

static void meet(struct gossip *g, const struct join *j)
{
	if (g->phase != PHASE_MEMBER || g->has_left)
		return;
	for (unsigned i = 0; i < j->n_addrs; i++) {
		if (is_known(g, &j->addrs[i]))
			continue;
		swim_join(g->swim, gossip_now_us(), &j->addrs[i], &g->swim_out);
		gossip_swim_done(g);
	}
}

void gossip_join_all(struct gossip *g)
{
	for (unsigned i = 0; i < g->n_joins; i++)
		meet(g, &g->joins[i]);
}

static void reset_lobby(struct gossip *g)
{
	g->lobby.has_refusal = false;
	g->lobby.join = g->lobby.addr = 0;
	g->lobby.next_us = 0;
	g->lobby.wait_us = ASK_US;
}

void gossip_join_start(struct gossip *g)
{
	reset_lobby(g);
}

int gossip_join(struct gossip *g, const char *addr)
{
	struct join *j;
	int rc = gossip_join_add(g, addr, &j);

	if (rc != 0)
		return rc;
	bool was_away = g->has_left;
	g->has_left = false;
	if (g->phase == PHASE_MEMBER && was_away && j->n_addrs > 0) {
		/* Even if we know them: it is how swim comes back. */
		swim_join(g->swim, gossip_now_us(), &j->addrs[0], &g->swim_out);
		gossip_swim_done(g);
	}
	meet(g, j);
	if (g->phase == PHASE_LOBBY && !g->lobby.is_asking)
		reset_lobby(g);
	gossip_arm(g);
	return 0;
}

/* ---- Resolving ---- */

static void add_address(struct join *j, const struct sockaddr *sa)
{
	struct gossip_addr addr;

	if (j->n_addrs == RESOLVED_MAX || !net_addr_from(sa, &addr))
		return;
	addr.port = j->port;
	for (unsigned i = 0; i < j->n_addrs; i++)
		if (gossip_addr_equal(&j->addrs[i], &addr))
			return;
	j->addrs[j->n_addrs++] = addr;
}

/* Twice as long each time, but soon again if there is nobody yet to ask. */
static void on_resolved(uv_getaddrinfo_t *req, int status,
			struct addrinfo *found)
{
	struct gossip *g = req->data;
	struct join *j = g->resolving;

	g->resolving = NULL;
	if (g->is_closing) {
		uv_freeaddrinfo(found);
		gossip_close_step(g);
		return;
	}
	if (status == 0)
		j->n_addrs = 0; /* what it was before may be another's by now */
	for (struct addrinfo *a = found; a != NULL; a = a->ai_next)
		add_address(j, a->ai_addr);
	uv_freeaddrinfo(found);
	if (status != 0 && j->wait_us == RESOLVE_US)
		gossip_log(g, 4, "cannot find '%s' (%s): trying again", j->host,
			   uv_strerror(status));
	j->next_us = gossip_now_us() + j->wait_us;
	j->wait_us = j->wait_us < RESOLVE_MAX_US / 2 ? 2 * j->wait_us
						     : RESOLVE_MAX_US;
	if (g->is_self_guessed && status == 0)
		gossip_join_look_around(g);
	meet(g, j);
	gossip_arm(g);
}

/* One at a time: a slow server of names shall not take all workers. */
static void resolve_some(struct gossip *g, uint64_t now_us)
{
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};

	for (unsigned i = 0; i < g->n_joins && g->resolving == NULL; i++) {
		struct join *j = &g->joins[i];

		if (!j->is_name || now_us < j->next_us)
			continue;
		j->next_us = NEVER;
		if (uv_getaddrinfo(g->config.loop, &g->resolve, on_resolved,
				   j->host, NULL, &hints) == 0)
			g->resolving = j;
		else
			j->next_us = now_us + RESOLVE_MAX_US;
	}
}

/* ---- Asking ---- */

__attribute__((format(printf, 2, 3))) static void
note_refusal(struct gossip *g, const char *format, ...)
{
	struct lobby *l = &g->lobby;
	va_list ap;

	if (l->has_refusal)
		return;
	l->has_refusal = true;
	va_start(ap, format);
	vsnprintf(l->why, sizeof(l->why), format, ap);
	va_end(ap);
}

/* What was not taken for a reason that will not go away by itself. */
static void note_reason(struct gossip *g, enum seal_reason reason)
{
	char who[GOSSIP_ADDR_SIZE];
	const char *file = g->config.key_file;
	bool is_clear = g->config.seal == GOSSIP_CLEAR;

	net_addr_text(&g->lobby.asked, who);
	switch (reason) {
	case SEAL_NO_KEY:
	case SEAL_FORGED:
		if (file == NULL)
			note_refusal(
				g,
				"the member at %s seals with a key, and we "
				"have none: copy its key file, and name it "
				"with --key-file",
				who);
		else
			note_refusal(g,
				     "the member at %s does not open what we "
				     "seal: its key is another, or it has none "
				     "(--insecure). Copy its key file to %s",
				     who, file);
		break;
	case SEAL_CLEAR:
		if (is_clear)
			note_refusal(
				g,
				"the member at %s takes sealed connections "
				"only: copy its key file, and start "
				"without --insecure",
				who);
		else
			note_refusal(g,
				     "the member at %s answers in plain text, "
				     "and we want it sealed: give it the "
				     "cluster's key, or start with --insecure",
				     who);
		break;
	case SEAL_NEWER:
		note_refusal(g,
			     "the member at %s speaks a newer protocol than "
			     "ringfs %s: update this node",
			     who,
			     g->config.version != NULL ? g->config.version
						       : "of this node");
		break;
	default: /* not ours, cut off, our own: somebody else may answer */
		gossip_log(g, 5, "%s does not answer as a member does (%s)",
			   who, seal_reason_name(reason));
	}
}

static void take_answer(struct gossip *g, struct bytes_in in)
{
	struct lobby *l = &g->lobby;
	struct gossip_id cluster;
	char who[GOSSIP_ADDR_SIZE];

	bytes_u8(&in); /* newer ones have the same beginning */
	unsigned verdict = bytes_u8(&in);
	bytes_copy(&in, cluster.b, sizeof(cluster.b));
	size_t n = bytes_u16(&in);
	const uint8_t *what = bytes_take(&in, n);
	net_addr_text(&l->asked, who);
	if (in.bad) {
		gossip_log(g, 4, "the answer of %s makes no sense", who);
		return;
	}
	if (verdict == REFUSED)
		note_refusal(g, "the member at %s refuses us: %.*s", who,
			     (int)n, (const char *)what);
	if (verdict == NOT_NOW && n > 0) {
		snprintf(l->waits, sizeof(l->waits), "the member at %s: %.*s",
			 who, (int)n, (const char *)what);
		l->wait_us = ASK_US; /* it may be over soon */
	}
	if (verdict != TAKEN || gossip_id_is_zero(&cluster) ||
	    n > sizeof(l->answer))
		return;
	memcpy(l->answer, what, n);
	l->answer_len = n;
	l->is_answered = true;
	gossip_make_seal(g, &cluster);
	gossip_become_member(g);
	swim_join(g->swim, gossip_now_us(), &l->asked, &g->swim_out);
	gossip_swim_done(g);
	gossip_later(g);
}

static void on_answer(void *data, int rc, enum seal_reason reason,
		      const uint8_t *answer, size_t len)
{
	struct gossip *g = data;
	char who[GOSSIP_ADDR_SIZE];

	g->lobby.is_asking = false;
	if (g->is_closing || g->phase != PHASE_LOBBY)
		return;
	net_addr_text(&g->lobby.asked, who);
	if (rc == 0)
		take_answer(g, bytes_in_of(answer, len));
	else if (rc == -EPROTO)
		note_reason(g, reason);
	else
		gossip_log(g, 6, "%s does not answer: %s", who, strerror(-rc));
	gossip_arm(g);
}

static void ask(struct gossip *g, const struct gossip_addr *to)
{
	uint8_t bytes[ASK_MAX];
	struct bytes_out out = bytes_out_of(bytes, sizeof(bytes));
	const char *version = g->config.version;
	size_t n = version != NULL ? strlen(version) : 0;

	n = n < 255 ? n : 255;
	bytes_put_u8(&out, FORMAT);
	bytes_put_u8(&out, WIRE_OLDEST);
	bytes_put_u8(&out, WIRE_NEWEST);
	bytes_put_u8(&out, (uint8_t)n);
	bytes_put(&out, version, n);
	bytes_put_u16(&out, (uint16_t)g->config.hello_len);
	bytes_put(&out, g->config.hello, g->config.hello_len);
	assert(!out.full);
	g->lobby.is_asking = true;
	g->lobby.asked = *to;
	net_ask(g->net, to, bytes, out.len, on_answer, g);
}

/* The next to be asked; false: the round is over, everybody was. */
static bool next_target(struct gossip *g, struct gossip_addr *out)
{
	struct lobby *l = &g->lobby;

	for (; l->join < g->n_joins; l->join++, l->addr = 0) {
		const struct join *j = &g->joins[l->join];

		while (l->addr < j->n_addrs) {
			*out = j->addrs[l->addr++];
			if (!gossip_addr_equal(out, &g->self))
				return true;
		}
	}
	return false;
}

static void end_round(struct gossip *g, uint64_t now_us)
{
	struct lobby *l = &g->lobby;

	l->join = l->addr = 0;
	if (l->has_refusal) {
		l->next_us = NEVER;
		gossip_later(g); /* to tell it */
		return;
	}
	l->next_us = now_us + l->wait_us;
	l->wait_us = l->wait_us < ASK_MAX_US / 2 ? 2 * l->wait_us : ASK_MAX_US;
}

static bool can_ask(const struct gossip *g)
{
	return g->phase == PHASE_LOBBY && !g->lobby.is_asking && !g->has_left;
}

void gossip_join_tick(struct gossip *g, uint64_t now_us)
{
	struct gossip_addr to;

	if (g->phase == PHASE_IDLE || g->has_left)
		return;
	resolve_some(g, now_us);
	if (!can_ask(g) || now_us < g->lobby.next_us)
		return;
	if (next_target(g, &to))
		ask(g, &to);
	else
		end_round(g, now_us);
}

uint64_t gossip_join_wake(const struct gossip *g)
{
	uint64_t at_us = can_ask(g) ? g->lobby.next_us : NEVER;

	if (g->has_left || g->resolving != NULL)
		return at_us;
	for (unsigned i = 0; i < g->n_joins; i++)
		if (g->joins[i].is_name && g->joins[i].next_us < at_us)
			at_us = g->joins[i].next_us;
	return at_us;
}

bool gossip_join_tell(struct gossip *g)
{
	struct lobby *l = &g->lobby;

	if (l->is_answered) {
		l->is_answered = false;
		if (g->config.on_joined != NULL)
			g->config.on_joined(g->config.data, &g->config.cluster,
					    l->answer, l->answer_len);
	} else if (l->has_refusal && l->next_us == NEVER &&
		   g->phase == PHASE_LOBBY) {
		l->has_refusal = false;
		if (g->config.on_refused != NULL)
			g->config.on_refused(g->config.data, l->why);
	}
	return !g->is_closing;
}

/* ---- Answering ---- */

static size_t put_answer(const struct gossip *g, uint8_t *answer, size_t cap,
			 enum verdict verdict, const void *what, size_t n)
{
	static const struct gossip_id nobody;
	struct bytes_out out = bytes_out_of(answer, cap);
	const struct gossip_id *cluster =
		verdict == TAKEN ? &g->config.cluster : &nobody;

	bytes_put_u8(&out, FORMAT);
	bytes_put_u8(&out, (uint8_t)verdict);
	bytes_put(&out, cluster->b, sizeof(cluster->b));
	bytes_put_u16(&out, (uint16_t)n);
	bytes_put(&out, what, n);
	assert(!out.full);
	return out.len;
}

struct question {
	unsigned oldest, newest;
	struct bytes_in version, hello;
	bool is_good;
};

static struct question read_question(struct bytes_in in)
{
	struct question q = {0};

	bytes_u8(&in); /* newer ones have the same beginning */
	q.oldest = bytes_u8(&in);
	q.newest = bytes_u8(&in);
	q.version = bytes_part(&in, bytes_u8(&in));
	q.hello = bytes_part(&in, bytes_u16(&in));
	q.is_good = !in.bad && q.oldest > 0 && q.oldest <= q.newest &&
		    bytes_left(&q.hello) <= GOSSIP_HELLO_MAX;
	return q;
}

/* Something to show to people, of bytes that somebody sent. */
static void printable(struct bytes_in in, char *out, size_t size)
{
	size_t n = 0;

	while (bytes_left(&in) > 0 && n + 1 < size) {
		uint8_t c = bytes_u8(&in);
		out[n++] = c > 0x20 && c < 0x7f ? (char)c : '?';
	}
	out[n] = '\0';
}

static int refuse_version(const struct gossip *g, const struct question *q,
			  char why[GOSSIP_ERRMSG_SIZE])
{
	char version[64];

	printable(q->version, version, sizeof(version));
	snprintf(why, GOSSIP_ERRMSG_SIZE,
		 "it runs ringfs %s and speaks protocols %d to %d, you run "
		 "ringfs %s and speak %u to %u: update the older one",
		 g->config.version != NULL ? g->config.version : "?",
		 WIRE_OLDEST, WIRE_NEWEST, version, q->oldest, q->newest);
	return -EPROTONOSUPPORT;
}

size_t gossip_join_on_ask(void *data, const struct net_from *from,
			  const uint8_t *bytes, size_t len, uint8_t *answer,
			  size_t cap)
{
	struct gossip *g = data;
	struct question q = read_question(bytes_in_of(bytes, len));
	uint8_t what[GOSSIP_HELLO_MAX];
	char why[GOSSIP_ERRMSG_SIZE] = "", who[GOSSIP_ADDR_SIZE];
	int n = -EBADMSG;

	if (g->is_closing || g->phase != PHASE_MEMBER || g->has_left)
		return put_answer(g, answer, cap, NOT_NOW, NULL, 0);
	if (q.is_good && wire_common_version(q.oldest, q.newest) == 0)
		n = refuse_version(g, &q, why);
	else if (q.is_good && g->config.on_asked != NULL)
		n = g->config.on_asked(g->config.data, q.hello.at,
				       bytes_left(&q.hello), what, why);
	else if (q.is_good)
		n = 0;
	else
		snprintf(why, sizeof(why), "%s",
			 "it makes no sense of what we say");
	assert(n <= GOSSIP_HELLO_MAX);
	if (n == -EAGAIN)
		return put_answer(g, answer, cap, NOT_NOW, why, strlen(why));
	if (n >= 0)
		return put_answer(g, answer, cap, TAKEN, what, (size_t)n);
	net_addr_text(&from->addr, who);
	gossip_log(g, 5, "refused %s, who wants to join: %s", who, why);
	return put_answer(g, answer, cap, REFUSED, why, strlen(why));
}

const char *gossip_join_waits(const struct gossip *g)
{
	return g->lobby.waits;
}

void gossip_join_finish(struct gossip *g)
{
	for (unsigned i = 0; i < g->n_joins; i++)
		free(g->joins[i].text);
}
