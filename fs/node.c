/* SPDX-License-Identifier: MIT */
/* The way up, each step undone in the opposite order on the way down:
 *
 *   mountpoint checked, state locked, port reserved, herald started, key read
 *      a state with a cluster -> ring opened, port served
 *      without -> port served -> a member asked in the lobby -> joined ->
 *      ring opened, cluster written to the state
 *   -> known to the ring -> tree made, mounted -> INIT answered -> it has its
 *      lease: it serves
 *
 * and each way to end: a step fails (its sentence and status), the cluster
 * refuses us (78), nobody answers (75), SIGTERM, SIGINT or SIGHUP (0), unmounted
 * by somebody (0), the cluster left (0), our state was copied (78). On the way
 * down callers are let go first, then the mount. With it gone this node shows
 * nothing any more, and tells the others so: they need not wait for its lease.
 * Then go the herald, that may be inside of the mount, the cluster, and the
 * ring, whose last writes are waited for.
 *
 * To leave, the ring first: what this node holds goes to others, and its vote;
 * then the members are told. */
#include "fs/node.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include "fs/cluster.h"
#include "fs/daemonize.h"
#include "fs/exitcode.h"
#include "fs/herald.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/options.h"
#include "fs/peers.h"
#include "fs/port.h"
#include "fs/sdnotify.h"
#include "fs/state.h"
#include "fs/tree.h"
#include "fs/util.h"

#define JOIN_MS	 10000
#define CLOSE_MS 1000 /* for what the members said last to reach the disk */

enum {
	SIGNAL_TERM,
	SIGNAL_INT,
	SIGNAL_HUP,
	N_SIGNALS
};

struct node {
	const struct options *options;
	struct daemonize daemonize;
	uv_loop_t loop;
	uv_async_t wake;
	uv_timer_t tick, join;
	uv_prepare_t flush;
	uv_signal_t signals[N_SIGNALS];
	struct state state;
	struct port port;
	struct cluster *cluster;
	struct herald *herald;
	struct ring *ring;
	struct tree *tree;
	struct mount *mount;
	int mount_lock; /* or -1 */
	bool is_mounted, serving, stopping;
	bool has_news;	 /* the ring's status is another */
	bool told_leave; /* the ring has left; the cluster was asked to */
	struct {
		size_t len;
		uint8_t bytes[HERALD_OBITUARY_MAX];
	} obituary;    /* of this process, as the ring said it last */
	bool can_wait; /* its state has a cluster, which may come later */
	bool stuck;    /* the cluster cannot be closed */
	int status;    /* to exit with */
	char errmsg[RING_ERRMSG_SIZE];
};

/* ---- The way down ---- */

static void close_handle(uv_handle_t *handle, void *data)
{
	(void)data;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

static void on_cluster_closed(void *data)
{
	struct node *n = data;

	n->cluster = NULL;
	uv_walk(&n->loop, close_handle, NULL); /* and so the loop ends */
}

/* It waits for the disk, whose thread cannot be stopped. */
static void on_close_timeout(uv_timer_t *handle)
{
	struct node *n = handle->data;

	log_warning("the disk does not answer: what other members said last is "
		    "not kept");
	n->stuck = true;
	uv_stop(&n->loop);
}

static void on_herald_closed(void *data)
{
	struct node *n = data;

	n->herald = NULL;
	if (n->cluster == NULL) {
		on_cluster_closed(n);
		return;
	}
	/* Last: it would be heard here, too, and denied. */
	if (n->obituary.len > 0)
		cluster_send_obituary(n->cluster, n->obituary.bytes,
				      n->obituary.len);
	cluster_close(n->cluster, on_cluster_closed, n);
	uv_timer_start(&n->join, on_close_timeout, CLOSE_MS, 0);
}

static void on_mount_closed(void *data)
{
	struct node *n = data;

	n->mount = NULL;
	if (n->herald != NULL)
		herald_close(n->herald, on_herald_closed, n);
	else
		on_herald_closed(n);
}

static void stop(struct node *n)
{
	if (n->stopping)
		return;
	n->stopping = true;
	sdnotify("STOPPING=1");
	if (n->tree != NULL)
		tree_drain(n->tree);
	if (n->mount != NULL)
		mount_close(n->mount, on_mount_closed, n);
	else
		on_mount_closed(n);
}

__attribute__((format(printf, 3, 4))) static void fail(struct node *n, int rc,
						       const char *format, ...)
{
	char text[sizeof(n->errmsg)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	n->status = exitcode_of(rc);
	if (n->serving)
		log_error("%s", text);
	else
		memcpy(n->errmsg, text, sizeof(text));
	stop(n);
}

/* ---- Callbacks ---- */

static void on_signal(uv_signal_t *handle, int signum)
{
	struct node *n = handle->data;

	log_info("stopping: %s", strsignal(signum));
	stop(n);
}

/* Unlocked by name, too: the herald and the workers have copies. */
static void unlock_mountpoint(struct node *n)
{
	if (n->mount_lock < 0)
		return;
	flock(n->mount_lock, LOCK_UN);
	close(n->mount_lock);
	n->mount_lock = -1;
}

static void on_mount_ready(void *data)
{
	struct node *n = data;

	unlock_mountpoint(n);
	if (n->herald != NULL)
		herald_begin(n->herald);
	n->is_mounted = true;
}

static void begin_to_serve(struct node *n)
{
	char *log = xasprintf("%s/log", n->state.dir);

	log_info("%s serves the ring at %s", n->options->name,
		 n->options->mountpoint);
	daemonize_ready(&n->daemonize, log);
	log_begin(); /* not before: stderr is what it shall be */
	n->serving = true;
	sdnotify("READY=1\nSTATUS=serving");
	free(log);
}

/* Who waits for the mount may claim at once: in a cluster this node's first
 * lease comes a moment after it is mounted. */
static void serve_when_ready(struct node *n)
{
	struct ring_status status;

	if (!n->is_mounted || n->serving)
		return;
	ring_status(n->ring, &status);
	if (status.health != RING_JOINING)
		begin_to_serve(n);
}

static void on_mount_end(void *data)
{
	struct node *n = data;

	log_info("unmounted");
	stop(n);
}

static void on_change(void *data, const struct ring_change *change)
{
	struct node *n = data;

	if (n->tree != NULL && !n->stopping)
		tree_on_change(n->tree, change);
}

static int open_ring(struct node *n, struct ring_config config, char *errmsg);
static void mount_when_ready(struct node *n);
static void leave_when_ready(struct node *n);

static void on_status(void *data)
{
	struct node *n = data;

	n->has_news = true;
	if (n->tree != NULL && !n->stopping)
		tree_on_status(n->tree);
}

static void on_ring_log(void *data, int level, const char *line)
{
	(void)data;
	log_line(level, line);
}

static void on_ring_wake(void *data) /* thread: any */
{
	struct node *n = data;

	uv_async_send(&n->wake);
}

static void on_wake(uv_async_t *handle)
{
	struct node *n = handle->data;

	if (n->ring != NULL && !n->stopping)
		ring_wake(n->ring, boot_ms());
}

static void on_tick(uv_timer_t *handle)
{
	struct node *n = handle->data;

	if (n->ring != NULL && !n->stopping)
		ring_tick(n->ring, boot_ms());
}

/* The loop may have been stopped, or the machine suspended, since the last. */
static void on_request(void *data)
{
	struct node *n = data;

	ring_check(n->ring, boot_ms());
}

/* ---- The ring's messages ---- */

static void on_send(void *data, const struct ring_id *to, bool bulk,
		    const void *bytes, size_t len)
{
	struct node *n = data;

	cluster_send(n->cluster, to, bulk, bytes, len);
}

static const struct ring_id *leader_id(const struct node *n)
{
	struct ring_status status;

	if (n->ring == NULL)
		return NULL;
	ring_status(n->ring, &status);
	const struct ring_node *node =
		status.leader != RING_NONE ? ring_node(n->ring, status.leader)
					   : NULL;
	return node != NULL ? &node->id : NULL;
}

/* A herald that does not get it in time, or is not there, sends an older one, or
 * none: that is no proof, and the lease is waited for. So nothing depends on it.
 */
static int on_obituary(void *data, const void *bytes, size_t len)
{
	struct node *n = data;
	struct herald_obituary o = {0};
	uint8_t packet[HERALD_OBITUARY_MAX];

	if (len > sizeof(n->obituary.bytes))
		return -EMSGSIZE;
	memcpy(n->obituary.bytes, bytes, len);
	n->obituary.len = len;
	if (n->herald != NULL && cluster_seal_obituary(n->cluster, leader_id(n),
						       bytes, len, &o, packet))
		herald_entrust(n->herald, &o);
	return 0;
}

/* Tell the others what this node has. Gives when it is due again. */
static uint32_t say(struct node *n, uint64_t now_ms)
{
	uint32_t self = ring_self(n->ring);

	if (self == RING_NONE)
		return UINT32_MAX;
	const struct ring_node *node = ring_node(n->ring, self);
	struct cluster_self words = {node->weight, node->n_vnodes, node->n_keys,
				     "client"};

	if (!n->options->is_client)
		words.role = peers_role_name(ring_node_role(n->ring, self));
	return cluster_say(n->cluster, now_ms, &words);
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Once per turn, before the loop sleeps. */
static void on_flush(uv_prepare_t *handle)
{
	struct node *n = handle->data;

	if (n->stopping || n->ring == NULL)
		return;
	mount_when_ready(n);
	if (n->ring == NULL)
		return;
	serve_when_ready(n);
	leave_when_ready(n);
	uint64_t now_ms = boot_ms();
	uint32_t due_ms = ring_flush(n->ring, now_ms);
	if (n->tree != NULL)
		due_ms = least(due_ms, tree_flush(n->tree, now_ms));
	due_ms = least(due_ms, say(n, now_ms));
	uv_update_time(&n->loop);
	uv_timer_start(&n->tick, on_tick, due_ms, 0);
}

/* ---- Leaving ---- */

static void leave_when_ready(struct node *n)
{
	struct ring_status status;

	if (!n->has_news || n->told_leave)
		return;
	n->has_news = false;
	ring_status(n->ring, &status);
	n->told_leave = status.has_left;
	if (status.is_unconfirmed)
		state_mark_left(&n->state);
	if (n->told_leave)
		cluster_leave(n->cluster);
}

/* ---- The way up ---- */

static void start_tree(struct node *n)
{
	const struct options *o = n->options;
	struct tree_config config = {.ring = n->ring,
				     .herald = n->herald,
				     .mountpoint = o->mountpoint,
				     .uid = getuid(),
				     .gid = o->has_group ? o->group : getgid(),
				     .write_mode = o->has_group ? 0775 : 0755,
				     .version = VERSION,
				     .address = n->port.text,
				     .cluster = n->cluster,
				     .expect = o->expect};
	struct mount_config mount = {.loop = &n->loop,
				     .dir = o->mountpoint,
				     .source = o->source,
				     .allow_other = o->allow_other,
				     .ops = &tree_ops,
				     .on_request = on_request,
				     .on_ready = on_mount_ready,
				     .on_end = on_mount_end,
				     .data = n};
	char errmsg[RING_ERRMSG_SIZE];

	n->tree = tree_create(&config);
	mount.userdata = n->tree;
	int rc = state_settle(&n->state, errmsg);

	if (rc == 0)
		rc = mount_start(&mount, &n->mount, errmsg);
	if (rc != 0)
		fail(n, rc, "%s", errmsg);
}

/* Others lead, and this state may be a copy: from now on it is another server,
 * which they fill. */
static void renew_log(struct node *n)
{
	struct ring_config config = {.cluster = n->state.cluster,
				     .settings = n->options->settings,
				     .generation = ring_generation(n->ring),
				     .join = true};
	char errmsg[RING_ERRMSG_SIZE];

	log_warning("the state was moved, or is a copy, and others have gone "
		    "on: it is filled by them again");
	ring_close(n->ring);
	n->ring = NULL;
	int rc = state_renew(&n->state, errmsg);
	if (rc == 0)
		rc = open_ring(n, config, errmsg);
	if (rc != 0)
		fail(n, rc, "%s", errmsg);
}

/* The mount appears when this node has joined, not before. */
static void mount_when_ready(struct node *n)
{
	struct ring_status status;

	if (n->tree != NULL)
		return;
	ring_status(n->ring, &status);
	if (status.error == -ESTALE)
		state_mark_copied(&n->state);
	if (status.health == RING_FAILED)
		fail(n, status.error, "%s: %s", n->state.dir, status.reason);
	else if (status.is_refuted)
		renew_log(n);
	else if (ring_self(n->ring) != RING_NONE)
		start_tree(n);
}

static void on_join_timeout(uv_timer_t *handle)
{
	struct node *n = handle->data;
	struct ring_status status;

	if (n->ring == NULL && cluster_waits(n->cluster)[0] != '\0') {
		fail(n, -EEXIST, "cannot join: %s", cluster_waits(n->cluster));
		return;
	}
	if (n->ring == NULL) {
		char *joins = xlist(n->options->joins, n->options->n_joins);

		fail(n, -ETIMEDOUT,
		     "no member of a cluster answered at %s within %d s; does "
		     "a node run there, is its port open for UDP and TCP?",
		     joins, JOIN_MS / 1000);
		free(joins);
		return;
	}
	if (n->serving || (n->tree != NULL && !n->is_mounted))
		return;
	ring_status(n->ring, &status);
	if (status.is_receiving &&
	    uv_timer_start(handle, on_join_timeout, JOIN_MS, 0) == 0)
		return;
	if (status.error == -EEXIST && /* else it is declared down some time */
	    !cluster_has_name(n->cluster, n->options->name, &n->state.node))
		status.error = 0;
	/* It can be read; or the others may be started later. */
	if (n->is_mounted ||
	    (n->options->foreground && n->can_wait && status.error == 0)) {
		log_warning("not ready after %d s: %s", JOIN_MS / 1000,
			    status.reason);
		if (n->is_mounted)
			begin_to_serve(n);
		return;
	}
	fail(n, status.error != 0 ? status.error : -ETIMEDOUT,
	     "%s: not ready after %d s: %s", n->state.dir, JOIN_MS / 1000,
	     status.reason);
}

static void start_signals(struct node *n)
{
	static const int numbers[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < N_SIGNALS; i++) {
		uv_signal_init(&n->loop, &n->signals[i]);
		n->signals[i].data = n;
		uv_signal_start(&n->signals[i], on_signal, numbers[i]);
	}
}

static void init_loop(struct node *n)
{
	int rc = uv_loop_init(&n->loop);

	if (rc == 0)
		rc = uv_async_init(&n->loop, &n->wake, on_wake);
	if (rc != 0) {
		fprintf(stderr, "ringfs: no event loop: %s\n", uv_strerror(rc));
		abort();
	}
	n->wake.data = n;
	uv_timer_init(&n->loop, &n->tick);
	n->tick.data = n;
	uv_timer_init(&n->loop, &n->join);
	n->join.data = n;
	uv_prepare_init(&n->loop, &n->flush);
	n->flush.data = n;
}

static int start_herald(struct node *n)
{
	struct herald_config config = {.loop = &n->loop,
				       .mountpoint = n->options->mountpoint,
				       .lock_fd = n->mount_lock};

	tree_herald_dirs(config.dirs, HERALD_DIRS, &config.best_effort);
	return herald_create(&config, &n->herald);
}

static int open_ring(struct node *n, struct ring_config config, char *errmsg)
{
	const struct options *o = n->options;

	config.dir = n->state.dir;
	config.id = n->state.node;
	config.boot = n->state.boot;
	config.is_moved = n->state.is_moved;
	config.name = o->name;
	config.weight = o->weight;
	config.is_client = o->is_client;
	config.expect = o->expect;
	config.restart_grace_ms = o->restart_grace_ms;
	config.op_timeout_ms = o->op_timeout_ms;
	config.on_change = on_change;
	config.on_status = on_status;
	config.on_log = on_ring_log;
	config.wake = on_ring_wake;
	config.send = on_send;
	config.obituary = on_obituary;
	config.data = n;
	port_place(&n->port, config.host);
	int rc = ring_open(&config, boot_ms(), &n->ring, errmsg);

	if (rc != 0)
		return rc;
	cluster_set_settings(n->cluster, ring_settings(n->ring),
			     ring_generation(n->ring));
	cluster_watch(n->cluster);
	return 0;
}

/* ---- The cluster's callbacks ---- */

/* The ring first: a state that names a cluster has one, after a crash, too. */
static void on_joined(void *data, const struct ring_id *cluster,
		      const struct ring_settings *settings, uint32_t generation)
{
	struct ring_config config = {.cluster = *cluster,
				     .settings = *settings,
				     .generation = generation,
				     .join = true};
	struct node *n = data;
	char errmsg[RING_ERRMSG_SIZE];

	if (n->stopping)
		return;
	assert(n->ring == NULL);
	int rc = open_ring(n, config, errmsg);
	if (rc == 0)
		rc = state_join(&n->state, cluster, errmsg);
	if (rc != 0) {
		fail(n, rc, "%s", errmsg);
		return;
	}
	log_info("joined the cluster");
	uv_timer_start(&n->tick, on_tick, 0, 0);
}

static void on_refused(void *data, const char *why)
{
	struct node *n = data;

	fail(n, -EINVAL, "cannot join: %s", why);
}

static void on_members(void *data)
{
	struct node *n = data;

	if (n->tree != NULL && !n->stopping)
		tree_on_peers(n->tree);
}

static void on_member(void *data, const struct ring_id *id,
		      enum ring_member_state state)
{
	struct node *n = data;

	if (n->ring != NULL && !n->stopping)
		ring_member(n->ring, boot_ms(), id, state);
}

static void on_message(void *data, const struct ring_id *from,
		       const void *bytes, size_t len)
{
	struct node *n = data;

	if (n->ring != NULL && !n->stopping)
		ring_recv(n->ring, boot_ms(), from, bytes, len);
}

static int on_others_obituary(void *data, const void *bytes, size_t len)
{
	struct node *n = data;

	if (n->ring == NULL || n->stopping)
		return -EAGAIN;
	return ring_obituary(n->ring, boot_ms(), bytes, len);
}

static void on_copied(void *data)
{
	struct node *n = data;

	state_mark_copied(&n->state);
	fail(n, -ESTALE,
	     "the state in '%s' was copied or restored: a newer life of this "
	     "node is in the cluster; let only one of the two run, and start "
	     "the other with an empty --state",
	     n->state.dir);
}

static void on_left(void *data)
{
	struct node *n = data;

	log_info("left the cluster");
	stop(n);
}

static int make_cluster(struct node *n, char *errmsg)
{
	struct cluster_config config = {.loop = &n->loop,
					.options = n->options,
					.state = &n->state,
					.port = &n->port,
					.on_joined = on_joined,
					.on_refused = on_refused,
					.on_change = on_members,
					.on_member = on_member,
					.on_message = on_message,
					.on_obituary = on_others_obituary,
					.on_copied = on_copied,
					.on_left = on_left,
					.data = n};

	return cluster_create(&config, &n->cluster, errmsg);
}

/* Run until stopped. The ring closes when nobody can ask it any more. */
static void serve(struct node *n)
{
	start_signals(n);
	uv_timer_start(&n->join, on_join_timeout, JOIN_MS, 0);
	uv_timer_start(&n->tick, on_tick, 0, 0);
	uv_prepare_start(&n->flush, on_flush);
	uv_run(&n->loop, UV_RUN_DEFAULT);
	assert(n->mount == NULL && n->herald == NULL);
	assert(n->cluster == NULL || n->stuck);
}

static void close_loop(struct node *n)
{
	uv_walk(&n->loop, close_handle, NULL);
	uv_run(&n->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&n->loop) != 0)
		assert(!"a handle is open");
}

/* Everything between the state's lock and its release. */
static int run(struct node *n, char *errmsg)
{
	int rc = port_open(n->options->bind, &n->port, errmsg);

	if (rc != 0)
		return exitcode_of(rc);
	init_loop(n);
	rc = start_herald(n);
	if (rc != 0)
		log_warning("no herald: %s; changes that this node does not "
			    "make itself raise no inotify event",
			    strerror(-rc));
	rc = make_cluster(n, errmsg);
	if (rc == 0 && state_has_cluster(&n->state)) {
		struct ring_config config = {.cluster = n->state.cluster,
					     .settings = n->options->settings,
					     .join = n->state.has_joined};

		n->can_wait = !n->state.is_founder;
		rc = open_ring(n, config, errmsg);
	}
	if (rc == 0)
		rc = cluster_start(n->cluster, errmsg);
	if (rc == 0) {
		serve(n);
	} else {
		n->status = exitcode_of(rc);
		stop(n);
		uv_run(&n->loop, UV_RUN_DEFAULT);
	}
	ring_close(n->ring);
	if (n->tree != NULL)
		tree_destroy(n->tree);
	if (!n->stuck)
		close_loop(n);
	port_close(&n->port);
	if (rc == 0 && n->status != 0)
		memcpy(errmsg, n->errmsg, sizeof(n->errmsg));
	return n->status;
}

int node_main(const struct options *o)
{
	struct node *n = xcalloc(1, sizeof(*n));
	char errmsg[RING_ERRMSG_SIZE] = "";
	int rc = daemonize_begin(&n->daemonize, !o->foreground);

	if (rc != 0) {
		fprintf(stderr,
			"ringfs: mount: cannot go to the background: %s\n",
			strerror(-rc));
		free(n);
		return EX_OSERR;
	}
	n->options = o;
	log_set(o->log_level, o->log_json);
	int status =
		mount_check(o->mountpoint, o->state, &n->mount_lock, errmsg);

	if (status == 0) {
		struct state_wish wish = {.key_file = o->key_file,
					  .joins = o->n_joins > 0,
					  .is_new = o->is_new,
					  .is_client = o->is_client};

		rc = state_open(o->state, &wish, &n->state, errmsg);
		status = rc == 0 ? 0 : exitcode_of(rc);
	}
	if (status == 0) {
		status = mount_check_state(o->mountpoint, o->state, errmsg);
		if (status == 0)
			status = run(n, errmsg);
		state_close(&n->state);
	}
	unlock_mountpoint(n);
	log_end();
	if (status != 0 && !n->serving)
		daemonize_fail(&n->daemonize, status, errmsg);
	if (n->stuck)
		_exit(status); /* exit() would wait for libuv's threads */
	free(n);
	return status;
}
