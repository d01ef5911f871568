/* SPDX-License-Identifier: MIT */
/* Several members in one process, on one loop, with real sockets on loopback
 * and state directories of their own. What a member is told is written down in
 * its diary, a line each. */
#ifndef TESTS_UNIT_GOSSIP_RIG_H
#define TESTS_UNIT_GOSSIP_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "check.h"
#include "gossip/gossip.h"
#include "gossip/net.h"
#include "gossip/seal.h"

#define RIG_NODES 6
#define PATIENCE  20 /* seconds; a sanitized run on a busy machine */

struct node {
	struct gossip *g;
	unsigned i;
	char name[16], dir[512], key[600], address[64];
	uint16_t port; /* 0: any */
	uint32_t boot;
	struct gossip_id id, cluster; /* zero: not known */
	enum gossip_seal seal;
	const char *joins[4];
	size_t n_joins;
	const char *bound; /* NULL: 127.0.0.1 */
	const char *advertise;
	const char *refuses;  /* this is why it takes nobody */
	const char *close_in; /* close in the callback of this name */
	bool is_closing, is_closed;
	unsigned n_messages;
	char diary[65536];
	char log[65536];
};

static uv_loop_t rig_loop;
static uv_timer_t rig_timer;
static char rig_dir[256];
static struct node nodes[RIG_NODES];

/* Nothing, but the loop turns. */
static inline void rig_on_timer(uv_timer_t *timer)
{
	(void)timer;
}

#define wait_for(cond, ...)                                                    \
	do {                                                                   \
		uint64_t end_ = uv_hrtime() + PATIENCE * UINT64_C(1000000000); \
		while (!(cond)) {                                              \
			check(uv_hrtime() < end_,                              \
			      "waited in vain: " __VA_ARGS__);                 \
			uv_run(&rig_loop, UV_RUN_ONCE);                        \
		}                                                              \
	} while (0)

static inline void rig_run(unsigned ms)
{
	uint64_t end = uv_hrtime() + ms * UINT64_C(1000000);

	while (uv_hrtime() < end)
		uv_run(&rig_loop, UV_RUN_ONCE);
}

static inline void note(char *book, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static inline void note(char *book, const char *format, ...)
{
	size_t n = strlen(book);
	va_list ap;

	va_start(ap, format);
	vsnprintf(book + n, 65536 - n, format, ap);
	va_end(ap);
}

static inline bool wrote(const struct node *n, const char *line)
{
	return strstr(n->diary, line) != NULL;
}

/* ---- Callbacks ---- */

static inline void on_closed(void *data)
{
	struct node *n = data;

	n->is_closed = true;
	n->g = NULL;
}

static inline void rig_end_one(struct node *n)
{
	if (n->g != NULL && !n->is_closing)
		gossip_close(n->g, on_closed, n);
	n->is_closing = true;
}

static inline void maybe_close(struct node *n, const char *where)
{
	if (n->close_in == NULL || strcmp(n->close_in, where) != 0)
		return;
	n->close_in = NULL;
	rig_end_one(n);
}

static inline int on_asked(void *data, const void *hello, size_t len,
			   uint8_t answer[GOSSIP_HELLO_MAX],
			   char why[GOSSIP_ERRMSG_SIZE])
{
	struct node *n = data;

	note(n->diary, "asked %.*s\n", (int)len, (const char *)hello);
	maybe_close(n, "asked");
	if (n->refuses != NULL) {
		snprintf(why, GOSSIP_ERRMSG_SIZE, "%s", n->refuses);
		return -EINVAL;
	}
	memcpy(answer, "welcome", 7);
	return 7;
}

static inline void on_joined(void *data, const struct gossip_id *cluster,
			     const void *answer, size_t len)
{
	struct node *n = data;

	n->cluster = *cluster;
	note(n->diary, "joined %.*s\n", (int)len, (const char *)answer);
	maybe_close(n, "joined");
}

static inline void on_refused(void *data, const char *why)
{
	struct node *n = data;

	note(n->diary, "refused %s\n", why);
	maybe_close(n, "refused");
}

static inline void on_member(void *data, const struct gossip_member *was,
			     const struct gossip_member *is)
{
	struct node *n = data;

	if (was != NULL && is != NULL && was->state == is->state &&
	    was->incarnation == is->incarnation)
		note(n->diary, "changed %s\n", is->name);
	else
		note(n->diary, "member %s %s\n", is ? is->name : was->name,
		     is ? gossip_state_name(is->state) : "gone");
	maybe_close(n, "member");
}

static inline void on_copied(void *data)
{
	note(((struct node *)data)->diary, "copied\n");
}

static inline void on_left(void *data)
{
	struct node *n = data;

	note(n->diary, "left\n");
	maybe_close(n, "left");
}

static inline void on_isolated(void *data, bool is_isolated)
{
	note(((struct node *)data)->diary, "isolated %d\n", is_isolated);
}

static inline void on_message(void *data, const struct gossip_id *from,
			      const void *bytes, size_t len)
{
	struct node *n = data;

	n->n_messages++;
	if (len < 100)
		note(n->diary, "from %c: %.*s\n", 'a' + from->b[0] - 1,
		     (int)len, (const char *)bytes);
	else
		note(n->diary, "from %c: %zu bytes\n", 'a' + from->b[0] - 1,
		     len);
	maybe_close(n, "message");
}

static inline void on_log(void *data, int level, const char *line)
{
	note(((struct node *)data)->log, "%d %s\n", level, line);
	if (getenv("VERBOSE") != NULL)
		printf("# %s: %d %s\n", ((struct node *)data)->name, level,
		       line);
}

/* ---- Nodes ---- */

static inline int rig_bind(int type, const char *bound, uint16_t *port)
{
	bool is_ipv6 = bound[0] == '[' && bound[1] == ':';
	struct sockaddr_in6 six = {.sin6_family = AF_INET6,
				   .sin6_port = htons(*port),
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in four = {.sin_family = AF_INET,
				   .sin_port = htons(*port)};
	struct sockaddr *sa =
		is_ipv6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
	socklen_t len = is_ipv6 ? sizeof(six) : sizeof(four);
	int on = 1,
	    fd = socket(sa->sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	check(fd >= 0, "socket");
	inet_pton(AF_INET, bound, &four.sin_addr);
	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, sa, len) != 0 || getsockname(fd, sa, &len) != 0) {
		close(fd);
		return -1;
	}
	*port = ntohs(is_ipv6 ? six.sin6_port : four.sin_port);
	return fd;
}

static inline void rig_sockets(struct node *n, int *udp, int *tcp)
{
	const char *bound = n->bound != NULL ? n->bound : "127.0.0.1";

	for (unsigned i = 0;; i++) {
		uint16_t port = n->port;
		check(i < 1000, "no port, for UDP and TCP: %u", n->port);
		*tcp = rig_bind(SOCK_STREAM, bound, &port);
		*udp = *tcp >= 0 ? rig_bind(SOCK_DGRAM, bound, &port) : -1;
		if (*udp >= 0) {
			n->port = port;
			break;
		}
		if (*tcp >= 0)
			close(*tcp);
		uv_sleep(5);
	}
	snprintf(n->address, sizeof(n->address), "%s:%u", bound, n->port);
}

static inline struct gossip_config rig_config(struct node *n)
{
	return (struct gossip_config){.loop = &rig_loop,
				      .bound = n->address,
				      .advertise = n->advertise,
				      .dir = n->dir,
				      .key_file = n->key,
				      .seal = n->seal,
				      .preset = GOSSIP_LOCAL,
				      .cluster = n->cluster,
				      .self = n->id,
				      .boot = n->boot,
				      .name = n->name,
				      .version = "1.2",
				      .joins = n->joins,
				      .n_joins = n->n_joins,
				      .hello = n->name,
				      .hello_len = strlen(n->name),
				      .on_asked = on_asked,
				      .on_joined = on_joined,
				      .on_refused = on_refused,
				      .on_member = on_member,
				      .on_copied = on_copied,
				      .on_left = on_left,
				      .on_isolated = on_isolated,
				      .on_message = on_message,
				      .on_log = on_log,
				      .data = n};
}

/* The next life of a node, made; not started. */
static inline void rig_create(struct node *n)
{
	struct gossip_config config;
	char errmsg[GOSSIP_ERRMSG_SIZE] = "";
	int udp, tcp;

	n->boot++;
	n->is_closing = n->is_closed = false;
	n->diary[0] = '\0';
	rig_sockets(n, &udp, &tcp);
	config = rig_config(n);
	config.udp_fd = udp;
	config.tcp_fd = tcp;
	int rc = gossip_create(&config, &n->g, errmsg);
	check(rc == 0, "%s: %d %s", n->name, rc, errmsg);
}

static inline void rig_start(struct node *n)
{
	rig_create(n);
	check_int(gossip_start(n->g), 0);
}

static inline void rig_found(struct node *n)
{
	struct gossip_id cluster = {{0xc1, 0x05, 7}};

	rig_create(n);
	n->cluster = cluster;
	gossip_found(n->g, &cluster);
	check_int(gossip_start(n->g), 0);
}

static inline void rig_close(struct node *n)
{
	rig_end_one(n);
	wait_for(n->is_closed, "%s to close", n->name);
}

static inline void rig_join(struct node *n, const struct node *by)
{
	n->joins[0] = by->address;
	n->n_joins = 1;
	rig_start(n);
}

static inline void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text),
	      "%s", path);
	fchmod(fd, mode);
	close(fd);
}

static inline void read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;

	check(n >= 0, "%s: %s", path, strerror(errno));
	text[n] = '\0';
	close(fd);
}

/* A new node, with the key of another, or one of its own. */
static inline struct node *rig_node(unsigned i, const struct node *key_of)
{
	struct node *n = &nodes[i];
	char text[2048], errmsg[GOSSIP_ERRMSG_SIZE];
	static unsigned n_made;

	check(n->g == NULL, "in use");
	*n = (struct node){.i = i, .seal = GOSSIP_SEALED};
	n->id.b[0] = (uint8_t)(i + 1);
	n->id.b[1] = (uint8_t)++n_made; /* no two tests' are the same */
	snprintf(n->name, sizeof(n->name), "%c", 'a' + i);
	snprintf(n->dir, sizeof(n->dir), "%s/%u-%c", rig_dir, n_made, 'a' + i);
	snprintf(n->key, sizeof(n->key), "%s/%u-%c/key", rig_dir, n_made,
		 'a' + i);
	mkdir(n->dir, 0700);
	if (key_of == NULL) {
		check_int(gossip_keygen_file(n->key, errmsg), 0);
	} else {
		read_file(key_of->key, text, sizeof(text));
		write_file(n->key, text, 0600);
	}
	return n;
}

/* What n thinks of other: "alive", or "" if it does not know it. */
static inline const char *sees(const struct node *n, const struct node *other)
{
	struct gossip_member m;

	if (n->g == NULL || !gossip_find(n->g, &other->id, &m))
		return "";
	return gossip_state_name(m.state);
}

static inline bool is_seen(const struct node *n, const struct node *other,
			   const char *state)
{
	return strcmp(sees(n, other), state) == 0;
}

static inline bool said_is(const struct node *n, const struct node *of,
			   const char *word, const char *value)
{
	size_t len;
	const char *v = gossip_said(n->g, &of->id, word, &len);

	return v == NULL ? value == NULL
			 : value != NULL && len == strlen(value) &&
				   memcmp(v, value, len) == 0;
}

static inline bool all_see(unsigned n, const char *state)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned j = 0; j < n; j++)
			if (nodes[i].g != NULL && nodes[j].g != NULL &&
			    !is_seen(&nodes[i], &nodes[j], state))
				return false;
	return true;
}

/* n nodes with one key, which see each other. */
static inline void rig_cluster(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct node *node = rig_node(i, i > 0 ? &nodes[0] : NULL);
		if (i == 0)
			rig_found(node);
		else
			rig_join(node, &nodes[0]);
	}
	wait_for(all_see(n, "alive"), "%u members", n);
}

static inline void rig_end(void)
{
	for (unsigned i = 0; i < RIG_NODES; i++)
		rig_end_one(&nodes[i]);
	for (unsigned i = 0; i < RIG_NODES; i++)
		wait_for(nodes[i].g == NULL, "%s to close", nodes[i].name);
}

/* ---- Somebody with bare sockets ---- */

static bool is_over;

static inline void on_nothing(void *data, const struct net_from *from,
			      enum net_topic topic, const uint8_t *bytes,
			      size_t len)
{
	(void)data, (void)from, (void)topic, (void)bytes, (void)len;
}

static inline size_t on_ask(void *data, const struct net_from *from,
			    const uint8_t *bytes, size_t len, uint8_t *answer,
			    size_t cap)
{
	(void)data, (void)from, (void)bytes, (void)len, (void)answer, (void)cap;
	return 0;
}

static inline void on_failed(void *data, const struct gossip_addr *to)
{
	(void)data, (void)to;
}

static inline void on_over(void *data)
{
	(void)data;
	is_over = true;
}

static inline struct net_config stranger(struct seal *lobby)
{
	return (struct net_config){.loop = &rig_loop,
				   .lobby = lobby,
				   .on_packet = on_nothing,
				   .on_message = on_nothing,
				   .on_ask = on_ask,
				   .on_send_failed = on_failed,
				   .on_log = on_log,
				   .data = &nodes[RIG_NODES - 1]};
}

static inline int rig_remove(const char *path, const struct stat *st, int kind,
			     struct FTW *ftw)
{
	(void)st, (void)kind, (void)ftw;
	return remove(path);
}

static inline void rig_begin(void)
{
	const char *tmp = getenv("TMPDIR");

	signal(SIGPIPE, SIG_IGN); /* as the daemon does */
	snprintf(rig_dir, sizeof(rig_dir), "%s/gossip_test.XXXXXX",
		 tmp != NULL ? tmp : "/tmp");
	check(mkdtemp(rig_dir) != NULL, "%s", rig_dir);
	check_int(uv_loop_init(&rig_loop), 0);
	uv_timer_init(&rig_loop, &rig_timer);
	uv_timer_start(&rig_timer, rig_on_timer, 2, 2);
}

/* Nothing is left on the loop, nor on the disk. */
static inline void rig_finish(void)
{
	uv_close((uv_handle_t *)&rig_timer, NULL);
	uv_run(&rig_loop, UV_RUN_DEFAULT);
	check_int(uv_loop_close(&rig_loop), 0);
	check_int(nftw(rig_dir, rig_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
}

#endif
