/* SPDX-License-Identifier: MIT */
/* One connection, whoever opened it.
 *
 *	caller					called
 *	net_conn_call				net_conn_take
 *	on_connected: hello ->			head: which seal? (kind)
 *	head: refused?			     <-	hello, header, proof
 *	proof ->				on_proof
 *	on_proof, fill: pieces ->		on_message ...
 *	the last piece ->			on_last, closes
 *	end of file: closed
 *
 * It ends, with rc and reason, by
 *	- nobody there, no route, no descriptors	as connect() says
 *	- time: to connect, to prove, to say something	-ETIMEDOUT
 *	- seal: not taken, by us or by the other	-EPROTO, reason
 *	- pieces that are none, too long a message	of net_parts_take()
 *	- end of file before, or instead of, the last	-ECONNRESET
 *	- an error of read or write			that
 *	- net_close()					-ECANCELED
 * Each is net_conn_close(), which may be called from everywhere: handles close,
 * a write under way is cancelled, and then, on a later turn, on_end and free.
 *
 * One write at a time is under way, of a copy: what waits stays in seal's buffer,
 * which takes more only while it is short.
 *
 * Refused: who was called, and does not take the caller's hello, may say why.
 *	0  magic   2  "rf"
 *	2  version 1  SEAL_VERSION of who says it
 *	3  form    1  255
 *	4  reason  1  enum seal_reason
 *	5  zero    3 */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "gossip/bytes.h"
#include "gossip/mem.h"
#include "gossip/net_impl.h"

#define ROOM_BYTES	(32u << 10) /* in seal's buffer: then it is full */
#define REFUSED_FORM	255
#define REFUSED_VERSION 1

struct write {
	uv_write_t req;
	struct net_conn *c;
	size_t len;
	uint8_t bytes[];
};

/* ---- The end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct net_conn *c = handle->data;
	struct net *n = c->n;

	if (--c->n_open > 0)
		return;
	assert(!c->is_writing);
	*c->prev = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	net_parts_finish(&c->parts);
	seal_stream_destroy(c->seal);
	c->kind->on_end(c);
	free(c);
	net_gone(n);
}

void net_conn_close(struct net_conn *c, int rc)
{
	if (c->is_closing)
		return;
	c->is_closing = true;
	c->rc = rc;
	uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
	uv_close((uv_handle_t *)&c->timer, on_handle_closed);
	c->kind->on_closing(c);
}

static void on_time(uv_timer_t *timer)
{
	struct net_conn *c = timer->data;

	c->kind->on_time(c);
}

void net_conn_wait(struct net_conn *c, unsigned ms)
{
	if (!c->is_closing)
		uv_timer_start(&c->timer, on_time, ms, 0);
}

/* ---- Out ---- */

static void on_written(uv_write_t *req, int status)
{
	struct write *w = (struct write *)req->data;
	struct net_conn *c = w->c;

	c->is_writing = false;
	if (status == 0)
		c->n->stats.stream_bytes_out += w->len;
	free(w);
	if (status < 0)
		net_conn_close(c, status);
	else
		net_conn_pump(c);
}

/* A message that the socket takes at once needs no turn of the loop to say so.
 * What fills the seal's buffer does: more is waiting behind it. */
static bool write_now(struct net_conn *c, const uint8_t *bytes, size_t *done,
		      size_t len)
{
	uv_buf_t buf = uv_buf_init((char *)bytes, (unsigned)len);

	*done = 0;
	if (len >= ROOM_BYTES)
		return false;
	int n = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);

	if (n <= 0)
		return false;
	*done = (size_t)n;
	c->has_written = true;
	c->n->stats.stream_bytes_out += *done;
	return *done == len;
}

static int write_out(struct net_conn *c, const uint8_t *bytes, size_t len)
{
	size_t done;

	if (write_now(c, bytes, &done, len))
		return 0;
	bytes += done;
	len -= done;
	struct write *w = xmalloc(sizeof(*w) + len);

	w->req.data = w;
	w->c = c;
	w->len = len;
	memcpy(w->bytes, bytes, len);
	uv_buf_t buf = uv_buf_init((char *)w->bytes, (unsigned)len);
	int rc = uv_write(&w->req, (uv_stream_t *)&c->tcp, &buf, 1, on_written);
	if (rc < 0) {
		free(w);
		return rc;
	}
	c->is_writing = c->has_written = true;
	return 0;
}

void net_conn_pump(struct net_conn *c)
{
	size_t len;

	if (c->is_closing || !c->is_connected || c->is_writing ||
	    c->seal == NULL)
		return;
	if (c->has_proof)
		c->kind->fill(c);
	const uint8_t *bytes = seal_stream_out(c->seal, &len);
	if (len == 0) {
		if (c->has_said_last)
			c->kind->on_flushed(c);
		return;
	}
	int rc = write_out(c, bytes, len);
	seal_stream_sent(c->seal, len);
	if (rc < 0)
		net_conn_close(c, rc);
	else if (!c->is_writing && c->has_said_last)
		c->kind->on_flushed(c);
}

bool net_conn_has_room(const struct net_conn *c)
{
	size_t len;

	seal_stream_out(c->seal, &len);
	return len < ROOM_BYTES && !c->has_said_last && !c->is_closing;
}

static void say(struct net_conn *c, const void *body, size_t len, bool is_last)
{
	assert(c->has_proof && !c->has_said_last);
	int rc = seal_stream_send(c->seal, body, len, is_last);
	assert(rc == 0); /* there is a proof, and it is short */
	(void)rc;
	c->has_said_last = is_last;
	if (c->quiet_ms > 0)
		net_conn_wait(c, c->quiet_ms);
}

void net_conn_say(struct net_conn *c, const struct net_message *m,
		  unsigned flags, bool is_last)
{
	uint8_t *body = c->n->body;
	size_t len = net_piece_put(body, m->topic, flags, m->bytes, m->len);

	say(c, body, len, is_last);
}

void net_conn_say_last(struct net_conn *c)
{
	say(c, NULL, 0, true);
}

void net_conn_say_address(struct net_conn *c)
{
	uint8_t bytes[NET_ADDRESS_BYTES];
	struct net_message m = {NET_ADDRESS, bytes, sizeof(bytes)};

	net_address_put(bytes, &c->n->self);
	net_conn_say(c, &m, NET_PIECE_FIRST | NET_PIECE_LAST, false);
}

/* ---- Refusals ---- */

static void say_refused(struct net_conn *c)
{
	uint8_t bytes[SEAL_PEEK_BYTES] = {'r', 'f', REFUSED_VERSION,
					  REFUSED_FORM, (uint8_t)c->reason};
	uv_buf_t buf = uv_buf_init((char *)bytes, sizeof(bytes));

	/* Not to strangers: they did not ask in our words. */
	if (!c->has_written && memcmp(c->head, "rf", 2) == 0)
		(void)uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
}

static void refuse(struct net_conn *c, const char *whose)
{
	char addr[GOSSIP_ADDR_SIZE];

	net_addr_text(&c->peer, addr);
	net_log(c->n, 6, "stream %s %s not taken by %s: %s", c->kind->name,
		addr, whose, seal_reason_name(c->reason));
	net_conn_close(c, -EPROTO);
}

/* The called says why it did not take our hello. */
static bool is_refused(struct net_conn *c)
{
	struct bytes_in in = bytes_in_of(c->head, sizeof(c->head));
	const uint8_t *magic = bytes_take(&in, 2);

	bytes_u8(&in); /* a newer one may say just this: that it is newer */
	if (memcmp(magic, "rf", 2) != 0 || bytes_u8(&in) != REFUSED_FORM)
		return false;
	uint8_t reason = bytes_u8(&in);
	c->reason = reason > SEAL_OK && reason < SEAL_N_REASONS ? reason
								: SEAL_ALIEN;
	refuse(c, "the other");
	return true;
}

/* ---- In ---- */

/* The first bytes are here. Called: they say for which seal the rest is. */
static bool on_head(struct net_conn *c)
{
	struct net *n = c->n;

	if (c->kind->is_caller)
		return !is_refused(c);
	c->s = n->config.seal;
	if (c->s == NULL || seal_stream_is_for(n->config.lobby, c->head))
		c->s = n->config.lobby;
	c->seal = seal_stream_create(c->s, false, NULL);
	return true;
}

static void note_proof(struct net_conn *c)
{
	struct net_from *from = &c->from;

	if (c->has_proof || !seal_stream_peer(c->seal, &from->id, &from->boot,
					      &from->is_sealed))
		return;
	c->has_proof = true;
	c->kind->on_proof(c);
}

static int take_piece(struct net_conn *c, const struct seal_frame *frame)
{
	struct net_message m;
	size_t max =
		c->s == c->n->config.lobby ? NET_ASK_MAX : GOSSIP_MESSAGE_MAX;
	int rc = net_parts_take(&c->parts, frame->body, frame->len, max, &m);
	if (rc == 1) {
		rc = c->kind->on_message(c, &m);
		net_parts_finish(&c->parts);
	}
	return rc;
}

static void on_frame(struct net_conn *c, const struct seal_frame *frame)
{
	int rc = 0;

	if (frame->len > 0 || !frame->is_last)
		rc = take_piece(c, frame);
	if (rc == 0 && frame->is_last && c->parts.is_open)
		rc = -EPROTO;
	if (rc < 0)
		net_conn_close(c, rc);
	else if (frame->is_last && !c->is_closing)
		c->kind->on_last(c);
}

static void read_frames(struct net_conn *c)
{
	struct seal_frame frame;
	int rc = 1;

	while (rc == 1 && !c->is_closing) {
		rc = seal_stream_next(c->seal, &frame);
		if (rc < 0)
			break;
		note_proof(c);
		if (rc == 1 && !c->is_closing)
			on_frame(c, &frame);
	}
	if (rc >= 0)
		return;
	c->reason = seal_stream_reason(c->seal);
	if (!c->kind->is_caller)
		say_refused(c);
	refuse(c, "us");
}

static void feed(struct net_conn *c, const uint8_t *bytes, size_t n)
{
	while (n > 0 && !c->is_closing) {
		size_t took = seal_stream_put(c->seal, bytes, n);
		bytes += took;
		n -= took;
		if (took > 0)
			read_frames(c);
		else
			net_conn_close(c, -EPROTO); /* after the last frame */
	}
}

static void take(struct net_conn *c, const uint8_t *bytes, size_t n)
{
	size_t lack = sizeof(c->head) - c->head_len;

	if (lack > 0) {
		lack = lack < n ? lack : n;
		memcpy(c->head + c->head_len, bytes, lack);
		c->head_len += lack;
		if (c->head_len < sizeof(c->head) || !on_head(c))
			return;
		feed(c, c->head, sizeof(c->head));
	}
	feed(c, bytes + lack, n - lack);
	net_conn_pump(c);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
	struct net_conn *c = stream->data;

	if (nread == 0)
		return;
	if (nread < 0) {
		bool is_done = nread == UV_EOF && c->has_said_last;
		net_conn_close(c, is_done	    ? 0
				  : nread == UV_EOF ? -ECONNRESET
						    : (int)nread);
		return;
	}
	c->n->stats.stream_bytes_in += (size_t)nread;
	if (c->quiet_ms > 0)
		net_conn_wait(c, c->quiet_ms);
	take(c, (const uint8_t *)buf->base, (size_t)nread);
}

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct net_conn *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init((char *)c->n->in, NET_READ_BYTES);
}

/* ---- The beginning ---- */

struct net_conn *net_conn_create(struct net *n, const struct net_kind *kind)
{
	struct net_conn *c = xcalloc(1, sizeof(*c));

	c->n = n;
	c->kind = kind;
	c->parts.purse = &n->purse;
	c->since_ms = uv_now(n->config.loop);
	uv_tcp_init(n->config.loop, &c->tcp);
	uv_timer_init(n->config.loop, &c->timer);
	c->tcp.data = c->timer.data = c;
	c->n_open = 2;
	c->next = n->conns;
	c->prev = &n->conns;
	if (c->next != NULL)
		c->next->prev = &c->next;
	n->conns = c;
	n->n_open++;
	return c;
}

static int begin(struct net_conn *c)
{
	int user_ms = (int)c->n->limits.user_ms;
	uv_os_fd_t fd;

	uv_tcp_nodelay(&c->tcp, 1);
	/* A host that is gone does not acknowledge: the kernel's own patience is
	 * a quarter of an hour. */
	if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms,
			   sizeof(user_ms));
	c->is_connected = true;
	return uv_read_start((uv_stream_t *)&c->tcp, on_buffer, on_read);
}

static void on_connected(uv_connect_t *req, int status)
{
	struct net_conn *c = req->data;

	if (status == 0)
		status = c->is_closing ? -ECANCELED : begin(c);
	if (status < 0) {
		net_conn_close(c, status);
		return;
	}
	c->n->stats.n_streams_out++;
	if (!c->is_timed)
		net_conn_wait(c, c->n->limits.proof_ms);
	net_conn_pump(c);
}

void net_conn_call(struct net_conn *c, struct seal *s,
		   const struct gossip_id *expect)
{
	struct sockaddr_storage sa;

	c->s = s;
	c->seal = seal_stream_create(s, true, expect);
	if (c->seal == NULL) {
		net_conn_close(c, -ENOKEY);
		return;
	}
	net_addr_to(&c->peer, AF_UNSPEC, &sa);
	c->connect.data = c;
	int rc = uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&sa,
				on_connected);
	if (rc < 0)
		net_conn_close(c, rc);
}

void net_conn_take(struct net_conn *c, int fd)
{
	int rc = uv_tcp_open(&c->tcp, fd);

	if (rc < 0)
		close(fd);
	else
		rc = begin(c);
	if (rc < 0)
		net_conn_close(c, rc);
	else
		net_conn_wait(c, c->n->limits.proof_ms);
}
