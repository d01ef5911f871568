/* SPDX-License-Identifier: MIT */
/* The daemon's side of the herald: one child, its socket, its life.
 *
 *   DOWN --start--> STARTING --HELLO--> IDLE --BEGIN, MOUNTED--> SERVING
 *     ^                |                  |                         |
 *     +---- reaped ----+---- DYING <------+-- error, silent, -------+
 *                            (killed)         its own death
 *
 * The ways of a child:
 *   - cannot be spawned: back to DOWN, tried again after backoff_ms
 *   - ends by itself: on_exit_cb settles the queue, DOWN, tried again
 *   - breaks the protocol, or closes its end: killed, then as above
 *   - silent for SILENT_TICKS while it should speak: killed, then as above
 *   - finds no mount, or another one over it: gone is set and nothing is sent
 *     for GONE_TICKS; then it is tried again. The mount's own end stops the
 *     daemon
 *   - herald_close: killed, reaped, and no other one started
 *
 * The socket's end in the daemon never blocks: what does not fit waits in out,
 * one packet; everything else in the queue. It is closed only when the child
 * has been reaped, so that the child takes end of file for the daemon's death.
 */
#include "fs/herald.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <uv.h>

#include "fs/herald_cpu.h"
#include "fs/herald_queue.h"
#include "fs/herald_wire.h"
#include "fs/log.h"
#include "fs/util.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define TICK_MS	       1000
#define SILENT_TICKS   10
#define GONE_TICKS     5
#define CLOSE_MS       2000

/* Packets taken in one turn of the loop, so that others get theirs. */
#define PACKETS_PER_TURN 32

/* So many records that wait are a burst. */
#define BURST (2 * HERALD_WINDOW)

enum child_state {
	DOWN,
	STARTING,
	IDLE,
	SERVING,
	DYING
};

struct herald {
	uv_loop_t *loop;
	char *mountpoint;
	char *dirs[HERALD_DIRS];
	struct herald_queue queue;

	enum child_state state;
	uv_process_t process;
	uv_poll_t poll;
	int fd;		     /* our end of the socket, or -1 */
	int lock_fd;	     /* config's, or -1 */
	unsigned n_child;    /* of process and poll, not yet closed */
	bool wants_write;    /* poll waits for room, too */
	unsigned n_silent;   /* ticks since the child has spoken */
	uint64_t backoff_ms; /* before the next start */
	uint64_t restarts;
	pid_t tids[HERALD_DIRS];
	size_t n_tids;
	struct herald_packet out;      /* len 0, or waits for room */
	struct herald_packet obituary; /* len 0: none */
	bool owes_obituary;	       /* the child has another, or none */
	struct herald_cpu cpu;

	bool begun;	   /* the mount serves */
	bool gone;	   /* the mount is not there, or hidden by another */
	unsigned n_gone;   /* ticks since it has last been there */
	uint64_t mount_id; /* 0 until the first child has found it out */

	uv_timer_t
		timer; /* DOWN: the next start; else: ticks; at the end: limit */
	uv_idle_t flush; /* active: records were posted, and can be sent */
	unsigned n_open; /* of timer and flush */
	bool closing;
	void (*close_cb)(void *data);
	void *close_data;
};

static void start_child(struct herald *h);
static void pump(struct herald *h);
static void finish_close(struct herald *h);

static void on_restart(uv_timer_t *timer)
{
	start_child(timer->data);
}

static void start_later(struct herald *h)
{
	uv_timer_start(&h->timer, on_restart, h->backoff_ms, 0);
	h->backoff_ms *= 2;
	if (h->backoff_ms > BACKOFF_MAX_MS)
		h->backoff_ms = BACKOFF_MAX_MS;
}

/* The child and its handles are no more. */
static void child_gone(struct herald *h)
{
	h->state = DOWN;
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
	if (h->closing)
		finish_close(h);
	else
		start_later(h);
}

static void on_child_closed(uv_handle_t *handle)
{
	struct herald *h = handle->data;

	if (--h->n_child == 0)
		child_gone(h);
}

static void close_child(struct herald *h)
{
	uv_close((uv_handle_t *)&h->process, on_child_closed);
	uv_close((uv_handle_t *)&h->poll, on_child_closed);
}

/* End the child's work; on_exit_cb does the rest. */
static void kill_child(struct herald *h, const char *why)
{
	if (h->state == DYING)
		return;
	log_warning("herald %d %s; it is replaced", h->process.pid, why);
	h->state = DYING;
	uv_poll_stop(&h->poll);
	uv_idle_stop(&h->flush);
	uv_timer_stop(&h->timer);
	uv_process_kill(&h->process, SIGKILL);
}

/* Called each second while the child owes us an answer, or the mount is gone.
 */
static void on_tick(uv_timer_t *timer)
{
	struct herald *h = timer->data;

	if (h->gone) {
		h->gone = ++h->n_gone % GONE_TICKS != 0;
		if (!h->gone)
			pump(h);
	} else if (h->state == SERVING && h->queue.n_flight == 0) {
		uv_timer_stop(&h->timer);
	} else if (++h->n_silent >= SILENT_TICKS) {
		kill_child(h, "does not answer");
	}
}

static void watch_child(struct herald *h)
{
	if (uv_is_active((uv_handle_t *)&h->timer))
		return;
	h->n_silent = 0;
	uv_timer_start(&h->timer, on_tick, TICK_MS, TICK_MS);
}

static void put_record(struct herald_packet *out, unsigned dir,
		       const struct herald_item *item)
{
	herald_put_uint(out, dir, 1);
	herald_put_uint(out, item->what, 1);
	herald_put_uint(out, item->seq, 8);
	herald_put_uint(out, item->len, 1);
	herald_put(out, item->name, item->len);
}

/* Records into out, as many as fit and may go. False if there are none. */
static bool fill(struct herald *h)
{
	struct herald_packet *out = &h->out;
	struct herald_item item;

	herald_put_uint(out, HERALD_RECORDS, 1);
	for (unsigned i = 0; i < HERALD_DIRS; i++)
		while (herald_room(out) >= HERALD_RECORD_SIZE &&
		       herald_queue_next(&h->queue, i, &item))
			put_record(out, i, &item);
	if (out->len == 1)
		out->len = 0;
	return out->len > 0;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void poll_for(struct herald *h, bool wants_write)
{
	if (h->wants_write == wants_write)
		return;
	h->wants_write = wants_write;
	uv_poll_start(&h->poll, UV_READABLE | (wants_write ? UV_WRITABLE : 0),
		      on_poll);
}

/* Send what is in out. False if it has to wait, or the child is lost. */
static bool send_out(struct herald *h)
{
	ssize_t n = send(h->fd, h->out.data, h->out.len, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		poll_for(h, true);
		return false;
	}
	if (n < 0) {
		kill_child(h, "cannot be written to");
		return false;
	}
	h->out.len = 0;
	return true;
}

static bool may_send(const struct herald *h)
{
	return h->state == IDLE || h->state == SERVING;
}

static void send_obituary(struct herald *h)
{
	if (!h->owes_obituary || !may_send(h) || h->out.len > 0)
		return;
	h->owes_obituary = false;
	herald_put(&h->out, h->obituary.data, h->obituary.len);
	send_out(h);
}

/* Send all that may go. */
static void pump(struct herald *h)
{
	uv_idle_stop(&h->flush);
	if (h->queue.n_waiting > BURST)
		herald_cpu_bind(&h->cpu, h->tids, h->n_tids);
	if (h->state == DYING || (h->out.len > 0 && !send_out(h)))
		return;
	send_obituary(h);
	while (h->state == SERVING && !h->gone && h->out.len == 0 && fill(h))
		if (!send_out(h))
			break;
	if (h->state == DYING)
		return;
	if (h->out.len == 0)
		poll_for(h, false);
	if (h->queue.n_flight > 0)
		watch_child(h);
}

static void on_flush(uv_idle_t *flush)
{
	pump(flush->data);
}

static void send_start(struct herald *h)
{
	struct herald_packet *out = &h->out;
	size_t len = strlen(h->mountpoint);

	herald_put_uint(out, HERALD_START, 1);
	herald_put_uint(out, len, 2);
	herald_put(out, h->mountpoint, len);
	for (unsigned i = 0; i < HERALD_DIRS; i++) {
		if (h->dirs[i] == NULL)
			continue;
		len = strlen(h->dirs[i]);
		herald_put_uint(out, i, 1);
		herald_put_uint(out, len, 1);
		herald_put(out, h->dirs[i], len);
	}
	pump(h);
}

static void send_begin(struct herald *h)
{
	herald_put_uint(&h->out, HERALD_BEGIN, 1);
	herald_put_uint(&h->out, h->mount_id, 8);
	pump(h);
	watch_child(h);
}

static int on_hello(struct herald *h, struct herald_reader *r)
{
	if (h->state != STARTING)
		return -EPROTO;
	while (r->left > 0 && h->n_tids < HERALD_DIRS)
		h->tids[h->n_tids++] = (pid_t)herald_get_uint(r, 4);
	h->state = IDLE;
	uv_timer_stop(&h->timer);
	if (h->begun)
		send_begin(h);
	else
		pump(h);
	return r->left > 0 ? -EPROTO : 0;
}

static void mount_gone(struct herald *h)
{
	if (!h->gone && h->n_gone == 0)
		log_warning("herald: the mount at %s is gone", h->mountpoint);
	h->gone = true;
	watch_child(h);
}

static int on_mounted(struct herald *h, struct herald_reader *r)
{
	uint64_t id = herald_get_uint(r, 8);

	if (h->state != IDLE || !h->begun)
		return -EPROTO;
	h->state = SERVING;
	if (id == 0)
		mount_gone(h);
	h->mount_id = id;
	return 0;
}

static int on_done(struct herald *h, struct herald_reader *r)
{
	while (r->left > 0) {
		unsigned dir = (unsigned)herald_get_uint(r, 1);
		uint64_t seq = herald_get_uint(r, 8);
		int error = (int)herald_get_uint(r, 2);

		if (r->bad || herald_queue_done(&h->queue, dir, seq, error))
			return -EPROTO;
		if (error == 0) {
			h->backoff_ms = BACKOFF_MIN_MS; /* it works */
			h->n_gone = 0;
		} else if (error == ENOTCONN || error == ECONNABORTED) {
			mount_gone(h);
		} else {
			log_debug("herald: %s: %s", h->dirs[dir],
				  strerror(error));
		}
	}
	if (h->queue.n_waiting + h->queue.n_flight == 0)
		herald_cpu_free(&h->cpu, h->tids, h->n_tids);
	return 0;
}

static int on_packet(struct herald *h, const uint8_t *data, size_t len)
{
	struct herald_reader r = herald_reader(data, len);
	int rc = -EPROTO;

	switch (herald_get_uint(&r, 1)) {
	case HERALD_HELLO:
		rc = on_hello(h, &r);
		break;
	case HERALD_MOUNTED:
		rc = on_mounted(h, &r);
		break;
	case HERALD_DONE:
		rc = on_done(h, &r);
		break;
	default:
		break;
	}
	return r.bad || r.left > 0 ? -EPROTO : rc;
}

/* Take up to n packets. 0: there may be more; -EAGAIN: there are none now;
 * -EPIPE: the child has closed its end; -EPROTO. */
static int receive(struct herald *h, size_t n)
{
	while (n-- > 0) {
		uint8_t data[HERALD_PACKET_SIZE];
		ssize_t len = recv(h->fd, data, sizeof(data), MSG_TRUNC);

		if (len < 0)
			return errno == EINTR ? 0 : -errno;
		if (len == 0)
			return -EPIPE;
		if ((size_t)len > sizeof(data))
			return -EPROTO;
		h->n_silent = 0;
		int rc = on_packet(h, data, (size_t)len);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct herald *h = poll->data;
	int rc = status;

	(void)events; /* each is tried; what cannot be done yet says so */
	if (rc == 0)
		rc = receive(h, PACKETS_PER_TURN);
	if (rc == 0 || rc == -EAGAIN)
		pump(h);
	else
		kill_child(h, rc == -EPROTO ? "sends nonsense" : "hangs up");
}

static void on_exit_cb(uv_process_t *process, int64_t status, int signal)
{
	struct herald *h = process->data;

	/* What it has reported counts; and, reaped, it has nothing under way.
	 */
	if (h->state == SERVING || h->state == DYING)
		while (receive(h, PACKETS_PER_TURN) == 0)
			;
	if (!h->closing)
		h->restarts++;
	if (h->state != DYING) {
		log_warning("herald %d ended (status %d, signal %d), %zu "
			    "announcements are owed",
			    process->pid, (int)status, signal,
			    h->queue.n_waiting + h->queue.n_flight);
	}
	herald_queue_settle(&h->queue);
	herald_cpu_free(&h->cpu, NULL, 0);
	h->state = DYING;
	h->n_tids = 0;
	h->out.len = 0;
	h->owes_obituary = h->obituary.len > 0;
	uv_timer_stop(&h->timer);
	uv_idle_stop(&h->flush);
	close_child(h);
}

/* Fork and exec with theirs as its socket. 0, or a negative errno. */
static int spawn(struct herald *h, int theirs)
{
	char name[] = "ringfs", verb[] = "herald";
	char *args[] = {name, verb, NULL};
	/* What the child knows of our end, without a number that is reused. */
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	uv_stdio_container_t stdio[] = {
		[STDIN_FILENO] = {.flags = UV_IGNORE},
		[STDOUT_FILENO] = {.flags = UV_IGNORE},
		[STDERR_FILENO] = {.flags = UV_INHERIT_FD,
				   .data.fd = STDERR_FILENO},
		[HERALD_FD_SOCKET] = {.flags = UV_INHERIT_FD,
				      .data.fd = theirs},
		[HERALD_FD_DAEMON] = {.flags = self < 0 ? UV_IGNORE
							: UV_INHERIT_FD,
				      .data.fd = self},
		[HERALD_FD_LOCK] = {.flags = h->lock_fd < 0 ? UV_IGNORE
							    : UV_INHERIT_FD,
				    .data.fd = h->lock_fd},
	};
	uv_process_options_t options = {
		.exit_cb = on_exit_cb,
		.file = "/proc/self/exe",
		.args = args,
		.cwd = "/",
		/* Its own session: a terminal's signals are not for it. */
		.flags = UV_PROCESS_DETACHED,
		.stdio_count = sizeof(stdio) / sizeof(stdio[0]),
		.stdio = stdio,
	};

	int rc = uv_spawn(h->loop, &h->process, &options);
	if (self >= 0)
		close(self);
	return rc;
}

static void start_child(struct herald *h)
{
	int pair[2];

	assert(h->state == DOWN && h->n_child == 0 && h->fd < 0);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
		log_warning("herald: no socket: %s", strerror(errno));
		start_later(h);
		return;
	}
	int rc = uv_poll_init(h->loop, &h->poll, pair[0]);
	if (rc != 0) {
		log_warning("herald: no poll: %s", uv_strerror(rc));
		close(pair[0]);
		close(pair[1]);
		start_later(h);
		return;
	}
	h->fd = pair[0];
	h->n_child = 2;
	rc = spawn(h, pair[1]);
	close(pair[1]);
	if (rc != 0) {
		log_warning("herald: cannot be started: %s", uv_strerror(rc));
		close_child(h);
		return;
	}
	h->state = STARTING;
	h->wants_write = false;
	uv_poll_start(&h->poll, UV_READABLE, on_poll);
	watch_child(h);
	send_start(h);
}

int herald_create(const struct herald_config *config, struct herald **out)
{
	if (strlen(config->mountpoint) >= PATH_MAX)
		return -ENAMETOOLONG;
	struct herald *h = xcalloc(1, sizeof(*h));

	h->loop = config->loop;
	h->mountpoint = xstrdup(config->mountpoint);
	for (size_t i = 0; i < HERALD_DIRS; i++)
		if (config->dirs[i] != NULL)
			h->dirs[i] = xstrdup(config->dirs[i]);
	herald_queue_init(&h->queue, config->best_effort);
	h->fd = -1;
	h->lock_fd = fcntl(config->lock_fd, F_DUPFD_CLOEXEC, 0);
	h->backoff_ms = BACKOFF_MIN_MS;
	h->process.data = h;
	h->poll.data = h;
	h->timer.data = h;
	h->flush.data = h;
	uv_timer_init(h->loop, &h->timer);
	uv_idle_init(h->loop, &h->flush);
	h->n_open = 2;
	start_child(h);
	*out = h;
	return 0;
}

void herald_begin(struct herald *h)
{
	if (h->begun)
		return;
	h->begun = true;
	if (h->state == IDLE)
		send_begin(h);
}

void herald_post(struct herald *h, unsigned dir, const char *name,
		 enum herald_what what)
{
	assert(dir < HERALD_DIRS && h->dirs[dir] != NULL);
	herald_queue_post(&h->queue, dir, name, what);
	/* Sent together, on the next turn: an idle handle keeps the loop from
	 * waiting before it has run. */
	if (h->state == SERVING && !h->gone && h->out.len == 0)
		uv_idle_start(&h->flush, on_flush);
}

bool herald_is(const struct herald *h, pid_t tid)
{
	for (size_t i = 0; i < h->n_tids; i++)
		if (h->tids[i] == tid)
			return true;
	return false;
}

bool herald_expects(const struct herald *h, unsigned dir, const char *name,
		    enum herald_what what)
{
	return herald_queue_expects(&h->queue, dir, name, what);
}

void herald_granted(struct herald *h, unsigned dir, const char *name,
		    enum herald_what what)
{
	herald_queue_granted(&h->queue, dir, name, what);
}

void herald_forget(struct herald *h, unsigned dir, const char *name)
{
	herald_queue_forget(&h->queue, dir, name);
}

bool herald_entrust(struct herald *h, const struct herald_obituary *o)
{
	struct herald_packet *p = &h->obituary;

	assert(o->n_to <= HERALD_RECIPIENTS_MAX);
	assert(o->len <= HERALD_OBITUARY_MAX);
	p->len = 0;
	herald_put_uint(p, HERALD_OBITUARY, 1);
	herald_put(p, o->receipt, sizeof(o->receipt));
	herald_put_uint(p, o->n_to, 1);
	for (size_t i = 0; i < o->n_to; i++) {
		herald_put(p, &o->to[i].sin6_addr, 16);
		herald_put_uint(p, ntohs(o->to[i].sin6_port), 2);
	}
	herald_put(p, o->bytes, o->len);
	h->owes_obituary = true;
	send_obituary(h);
	return !h->owes_obituary && h->out.len == 0;
}

void herald_stats(const struct herald *h, struct herald_stats *out)
{
	*out = (struct herald_stats){
		.announced = h->queue.announced,
		.dropped = h->queue.dropped,
		.failed = h->queue.failed,
		.restarts = h->restarts,
		.waiting = h->queue.n_waiting + h->queue.n_flight,
		.pid = h->state == DOWN ? 0 : h->process.pid,
	};
}

static void on_closed(uv_handle_t *handle)
{
	struct herald *h = handle->data;

	if (--h->n_open > 0)
		return;
	void (*cb)(void *data) = h->close_cb;
	void *data = h->close_data;

	herald_queue_finish(&h->queue);
	for (size_t i = 0; i < HERALD_DIRS; i++)
		free(h->dirs[i]);
	free(h->mountpoint);
	if (h->lock_fd >= 0)
		close(h->lock_fd);
	free(h);
	cb(data);
}

/* The child's handles are closed: now ours. */
static void finish_close(struct herald *h)
{
	uv_close((uv_handle_t *)&h->timer, on_closed);
	uv_close((uv_handle_t *)&h->flush, on_closed);
}

/* The child did not end in time: leave it. Its socket closes, so it ends when
 * it can. */
static void on_close_limit(uv_timer_t *timer)
{
	struct herald *h = timer->data;

	log_warning("herald %d does not end; it is left behind",
		    h->process.pid);
	close_child(h);
}

void herald_close(struct herald *h, void (*cb)(void *data), void *data)
{
	assert(!h->closing);
	h->closing = true;
	h->close_cb = cb;
	h->close_data = data;
	uv_idle_stop(&h->flush);
	uv_timer_stop(&h->timer);
	if (h->n_child == 0) {
		finish_close(h);
		return;
	}
	if (uv_is_closing((uv_handle_t *)&h->process))
		return; /* on_child_closed comes */
	uv_poll_stop(&h->poll);
	uv_process_kill(&h->process, SIGKILL);
	h->state = DYING;
	uv_timer_start(&h->timer, on_close_limit, CLOSE_MS, 0);
}
