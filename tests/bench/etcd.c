/* SPDX-License-Identifier: MIT */
/* A client of etcd, for the comparison: as little between the clock and the
 * server as can be. It speaks gRPC on one connection that stays open, one call
 * at a time.
 *
 *   etcd serial ADDR:PORT N           microseconds (medians): put delete; N of
 *                                     each in turn, the put only if the key is
 *                                     absent
 *   etcd http ADDR:PORT N             the same by HTTP and JSON, which the server
 *                                     offers too
 *   etcd many N CLIENTS ADDR:PORT...  such puts per second: N in all, by CLIENTS
 *                                     at a time, each on a connection of its own */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PREFACE	     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define FRAME_HEADER 9
#define FRAME_MAX    16384

enum frame { /* RFC 9113, 6 */
	DATA = 0,
	HEADERS = 1,
	RST_STREAM = 3,
	SETTINGS = 4,
	PING = 6,
	GOAWAY = 7,
	WINDOW_UPDATE = 8
};
enum {
	ACK = 1,
	END_STREAM = 1,
	END_HEADERS = 4
};

struct bytes {
	uint8_t at[1024];
	size_t n;
};

struct client {
	int fd;
	uint32_t stream;
	uint8_t in[2 * (FRAME_HEADER + FRAME_MAX) + 1];
	size_t n_in;
	size_t n; /* puts to make */
	const char *addr;
};

static void die(const char *what)
{
	fprintf(stderr, "etcd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void wrong(const char *what)
{
	fprintf(stderr, "etcd: %s\n", what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- Bytes ---- */

static void put(struct bytes *b, const void *p, size_t n)
{
	if (n > sizeof(b->at) - b->n)
		wrong("a request is too long");
	memcpy(b->at + b->n, p, n);
	b->n += n;
}

static void put_u8(struct bytes *b, uint8_t v)
{
	put(b, &v, 1);
}

static void put_u32(struct bytes *b, uint32_t v)
{
	const uint8_t be[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16),
			       (uint8_t)(v >> 8), (uint8_t)v};

	put(b, be, 4);
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
	       (uint32_t)p[2] << 8 | p[3];
}

/* A length below 128, and the text: both HPACK and protobuf write it so. */
static void put_text(struct bytes *b, const char *s, size_t n)
{
	if (n > 127)
		wrong("a name is too long");
	put_u8(b, (uint8_t)n);
	put(b, s, n);
}

static void put_frame(struct bytes *b, enum frame type, uint8_t flags,
		      uint32_t stream, const struct bytes *body)
{
	put_u8(b, 0);
	put_u8(b, (uint8_t)(body->n >> 8));
	put_u8(b, (uint8_t)body->n);
	put_u8(b, (uint8_t)type);
	put_u8(b, flags);
	put_u32(b, stream);
	put(b, body->at, body->n);
}

static void send_all(struct client *c, const struct bytes *b)
{
	for (size_t done = 0; done < b->n;) {
		ssize_t n = send(c->fd, b->at + done, b->n - done, 0);

		if (n < 0)
			die("send");
		done += (size_t)n;
	}
}

/* ---- HTTP/2 ---- */

/* RFC 7541: from the static table, the rest as literals, without Huffman. */
static void put_headers(struct bytes *b, const char *path)
{
	put_u8(b, 0x83); /* :method POST */
	put_u8(b, 0x86); /* :scheme http */
	put_u8(b, 0x04); /* :path */
	put_text(b, path, strlen(path));
	put_u8(b, 0x01); /* :authority */
	put_text(b, "bench", 5);
	put(b, "\x0f\x10", 2); /* content-type */
	put_text(b, "application/grpc", 16);
	put_u8(b, 0x00);
	put_text(b, "te", 2);
	put_text(b, "trailers", 8);
}

static void call(struct client *c, const char *path, const struct bytes *m)
{
	struct bytes headers = {.n = 0}, body = {.n = 0}, out = {.n = 0};

	put_headers(&headers, path);
	put_u8(&body, 0); /* not compressed */
	put_u32(&body, (uint32_t)m->n);
	put(&body, m->at, m->n);
	put_frame(&out, HEADERS, END_HEADERS, c->stream, &headers);
	put_frame(&out, DATA, END_STREAM, c->stream, &body);
	send_all(c, &out);
}

static void receive(struct client *c)
{
	ssize_t n =
		recv(c->fd, c->in + c->n_in, sizeof(c->in) - 1 - c->n_in, 0);

	if (n <= 0)
		die("recv");
	c->n_in += (size_t)n;
}

static void acknowledge(struct client *c, enum frame type, const uint8_t *body,
			size_t n)
{
	struct bytes out = {.n = 0}, same = {.n = 0};

	put(&same, body, type == PING ? n : 0);
	put_frame(&out, type, ACK, 0, &same);
	send_all(c, &out);
}

/* Does a message of gRPC, that has a header in field 1, say 1 in field 2? */
static bool says_one(const uint8_t *p, size_t n)
{
	size_t at = 5; /* compressed or not, length */

	if (n > at + 1 && p[at] == 0x0a && p[at + 1] < 128)
		at += 2u + p[at + 1];
	return n >= at + 2 && p[at] == 0x10 && p[at + 1] == 1;
}

/* Read until the call is over. Was it answered with a one? */
static bool answered(struct client *c)
{
	bool one = false, over = false;

	while (!over) {
		while (c->n_in < FRAME_HEADER ||
		       c->n_in < FRAME_HEADER + (get_u32(c->in) >> 8))
			receive(c);
		const uint8_t *body = c->in + FRAME_HEADER;
		size_t n = get_u32(c->in) >> 8;
		enum frame type = c->in[3];
		uint8_t flags = c->in[4];

		if (n > FRAME_MAX || type == RST_STREAM || type == GOAWAY)
			wrong("the server refuses");
		if ((type == SETTINGS || type == PING) && !(flags & ACK))
			acknowledge(c, type, body, n);
		if (type == DATA)
			one |= says_one(body, n);
		over = (type == DATA || type == HEADERS) && flags & END_STREAM;
		c->n_in -= FRAME_HEADER + n;
		memmove(c->in, body + n, c->n_in);
	}
	c->stream += 2;
	return one;
}

static void connect_client(struct client *c)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	const char *colon = strchr(c->addr, ':');
	char host[32];
	int on = 1;

	if (colon == NULL || colon - c->addr >= (long)sizeof(host))
		wrong("an address is HOST:PORT");
	snprintf(host, sizeof(host), "%.*s", (int)(colon - c->addr), c->addr);
	sin.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
		wrong("an address has numbers");
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 ||
	    connect(c->fd, (const struct sockaddr *)&sin, sizeof(sin)) != 0)
		die(c->addr);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c->n_in = 0;
}

static void open_client(struct client *c)
{
	struct bytes out = {.n = 0}, none = {.n = 0}, window = {.n = 0};

	connect_client(c);
	c->stream = 1;
	put(&out, PREFACE, strlen(PREFACE));
	put_frame(&out, SETTINGS, 0, 0, &none);
	put_u32(&window, 0x7fffffff - 65535);
	put_frame(&out, WINDOW_UPDATE, 0, 0, &window);
	send_all(c, &out);
}

/* ---- Calls: a put if the key is absent, a delete ---- */

/* TxnRequest{1: Compare{2: CREATE, 3: key, 5: 0},
 *            2: RequestOp{2: PutRequest{1: key, 2: value}}} */
static void put_if_absent(struct client *c, const char *key)
{
	struct bytes m = {.n = 0}, compare = {.n = 0}, op = {.n = 0};
	struct bytes request = {.n = 0};
	size_t n = strlen(key);

	put(&compare, "\x10\x01\x1a", 3);
	put_text(&compare, key, n);
	put(&compare, "\x28\x00", 2);
	put_u8(&request, 0x0a);
	put_text(&request, key, n);
	put_u8(&request, 0x12);
	put_text(&request, "x", 1);
	put_u8(&op, 0x12);
	put_text(&op, (const char *)request.at, request.n);
	put_u8(&m, 0x0a);
	put_text(&m, (const char *)compare.at, compare.n);
	put_u8(&m, 0x12);
	put_text(&m, (const char *)op.at, op.n);
	call(c, "/etcdserverpb.KV/Txn", &m);
	if (!answered(c))
		wrong("a put was not done");
}

static void delete_key(struct client *c, const char *key)
{
	struct bytes m = {.n = 0};

	put_u8(&m, 0x0a);
	put_text(&m, key, strlen(key));
	call(c, "/etcdserverpb.KV/DeleteRange", &m);
	if (!answered(c))
		wrong("a delete was not done");
}

/* ---- The same by HTTP/1.1 and JSON ---- */

/* Names are such that they are base64 as they are. */
static void post(struct client *c, const char *path, const char *json,
		 const char *wanted)
{
	struct bytes out = {.n = 0};
	char head[256];
	size_t n = 0;

	snprintf(head, sizeof(head),
		 "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %zu"
		 "\r\n\r\n",
		 path, strlen(json));
	put(&out, head, strlen(head));
	put(&out, json, strlen(json));
	send_all(c, &out);
	for (c->n_in = 0;;) {
		receive(c);
		c->in[c->n_in] = '\0';
		const char *text = (const char *)c->in;
		const char *body = strstr(text, "\r\n\r\n");
		const char *len = strstr(text, "Content-Length: ");

		if (body == NULL || len == NULL)
			continue;
		n = (size_t)(body + 4 - text) + strtoul(len + 16, NULL, 10);
		if (c->n_in >= n)
			break;
	}
	if (strstr((const char *)c->in, wanted) == NULL)
		wrong("a call by HTTP was not done");
}

static void http_put(struct client *c, const char *key)
{
	char json[512];

	snprintf(json, sizeof(json),
		 "{\"compare\":[{\"target\":\"CREATE\",\"key\":\"%s\","
		 "\"create_revision\":\"0\"}],\"success\":[{\"requestPut\":"
		 "{\"key\":\"%s\",\"value\":\"eA==\"}}]}",
		 key, key);
	post(c, "/v3/kv/txn", json, "\"succeeded\":true");
}

static void http_delete(struct client *c, const char *key)
{
	char json[128];

	snprintf(json, sizeof(json), "{\"key\":\"%s\"}", key);
	post(c, "/v3/kv/deleterange", json, "\"deleted\":\"1\"");
}

/* ---- The forms ---- */

struct way {
	void (*open)(struct client *c);
	void (*put)(struct client *c, const char *key);
	void (*delete)(struct client *c, const char *key);
};

static const struct way grpc = {open_client, put_if_absent, delete_key};
static const struct way http = {connect_client, http_put, http_delete};

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_size);
	return v[n / 2] * 1e6;
}

static void serial(const struct way *way, const char *addr, size_t n)
{
	double *puts = calloc(n, sizeof(*puts));
	double *deletes = calloc(n, sizeof(*deletes));
	struct client c = {.addr = addr};
	char key[32];

	if (!puts || !deletes)
		die("calloc");
	way->open(&c);
	for (size_t i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "s%07zu%08d", i, (int)getpid());
		double begin = now();

		way->put(&c, key);
		double middle = now();

		way->delete (&c, key);
		puts[i] = middle - begin;
		deletes[i] = now() - middle;
	}
	close(c.fd);
	printf("%.1f %.1f\n", median(puts, n), median(deletes, n));
	free(puts);
	free(deletes);
}

static void *put_many(void *data)
{
	struct client *c = data;
	char key[64];

	for (size_t i = 0; i < c->n; i++) {
		snprintf(key, sizeof(key), "m%zu-%d-%d", i, c->fd,
			 (int)getpid());
		put_if_absent(c, key);
	}
	return NULL;
}

static void many(size_t n, size_t n_clients, char *const *addrs, int n_addrs)
{
	struct client *c = calloc(n_clients, sizeof(*c));
	pthread_t *threads = calloc(n_clients, sizeof(*threads));

	if (!c || !threads)
		die("calloc");
	for (size_t i = 0; i < n_clients; i++) {
		c[i].addr = addrs[i % (size_t)n_addrs];
		c[i].n = n / n_clients;
		open_client(&c[i]);
	}
	double begin = now();
	for (size_t i = 0; i < n_clients; i++)
		if (pthread_create(&threads[i], NULL, put_many, &c[i]) != 0)
			die("thread");
	for (size_t i = 0; i < n_clients; i++)
		pthread_join(threads[i], NULL);
	printf("%.0f\n", (double)(n / n_clients * n_clients) / (now() - begin));
	for (size_t i = 0; i < n_clients; i++)
		close(c[i].fd);
	free(c);
	free(threads);
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "serial") == 0 && atoi(argv[3]) > 0) {
		serial(&grpc, argv[2], (size_t)atoi(argv[3]));
	} else if (argc == 4 && strcmp(argv[1], "http") == 0 &&
		   atoi(argv[3]) > 0) {
		serial(&http, argv[2], (size_t)atoi(argv[3]));
	} else if (argc >= 5 && strcmp(argv[1], "many") == 0 &&
		   atoi(argv[3]) > 0) {
		many((size_t)atoi(argv[2]), (size_t)atoi(argv[3]), argv + 4,
		     argc - 4);
	} else {
		fprintf(stderr, "etcd: see the head of tests/bench/etcd.c\n");
		return 64;
	}
	return 0;
}
