/* SPDX-License-Identifier: MIT */
/* wire PREFIX N: the network between hosts 1 to N, as a program.
 *
 * Host K's cable ends here as interface PREFIXK; its other end, in the host's
 * network namespace, has the address 02:00:00:00:00:KK. Frames are carried from
 * one to another as told on stdin, a command a line, each answered with "ok":
 *
 *	cut A B       nothing from A reaches B any more; 0 is everybody
 *	heal A B      it does again
 *	delay US J    every frame takes US microseconds, and up to J more
 *	loss P        of 1000 frames P are lost
 *	copy P        of 1000 frames P come twice
 *
 * So cuts go one way, and no module of the kernel is needed. Ends with stdin. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORTS_MAX  32
#define FRAME_MAX  2048
#define FRAMES_MAX 65536 /* on the way; more are lost */

struct frame {
	uint64_t at_us;
	uint64_t order; /* equal times: first in, first out */
	unsigned to;
	size_t len;
	uint8_t bytes[];
};

struct wire {
	unsigned n;
	struct pollfd fds[PORTS_MAX + 1]; /* the last one is stdin */
	bool cut[PORTS_MAX][PORTS_MAX];	  /* [from][to] */
	unsigned delay_us, jitter_us, loss, copy;
	struct frame *heap[FRAMES_MAX];
	size_t n_heap;
	uint64_t n_frames;
	char line[256];
	size_t n_line;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void die(const char *what)
{
	fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- Frames on their way: a heap ---- */

static bool is_before(const struct frame *a, const struct frame *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push(struct wire *w, struct frame *f)
{
	size_t i = w->n_heap++;

	for (; i > 0 && is_before(f, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = f;
}

static struct frame *pop(struct wire *w)
{
	struct frame *first = w->heap[0], *last = w->heap[--w->n_heap];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < w->n_heap) {
		if (child + 1 < w->n_heap &&
		    is_before(w->heap[child + 1], w->heap[child]))
			child++;
		if (!is_before(w->heap[child], last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return first;
}

static void queue(struct wire *w, unsigned to, const uint8_t *bytes, size_t len)
{
	if (w->n_heap == FRAMES_MAX)
		return;
	struct frame *f = malloc(sizeof(*f) + len);

	if (f == NULL)
		die("memory");
	f->at_us = now_us() + w->delay_us;
	if (w->jitter_us > 0)
		f->at_us += (unsigned)rand() % w->jitter_us;
	f->order = w->n_frames++;
	f->to = to;
	f->len = len;
	memcpy(f->bytes, bytes, len);
	push(w, f);
}

static void send_due(struct wire *w)
{
	while (w->n_heap > 0 && w->heap[0]->at_us <= now_us()) {
		struct frame *f = pop(w);

		/* A host that is down loses it: that is what hosts do. */
		if (send(w->fds[f->to].fd, f->bytes, f->len, MSG_DONTWAIT) <
			    0 &&
		    errno == EMSGSIZE)
			die("a frame larger than the wire");
		free(f);
	}
}

/* ---- Ports ---- */

static void carry(struct wire *w, unsigned from, unsigned to,
		  const uint8_t *bytes, size_t len)
{
	if (from == to || w->cut[from][to] || (unsigned)rand() % 1000 < w->loss)
		return;
	queue(w, to, bytes, len);
	if ((unsigned)rand() % 1000 < w->copy)
		queue(w, to, bytes, len);
}

static void receive(struct wire *w, unsigned from)
{
	uint8_t bytes[FRAME_MAX];
	struct sockaddr_ll addr;

	for (int i = 0; i < 64; i++) {
		socklen_t size = sizeof(addr);
		ssize_t len =
			recvfrom(w->fds[from].fd, bytes, sizeof(bytes),
				 MSG_DONTWAIT, (struct sockaddr *)&addr, &size);

		if (len < ETH_HLEN)
			return;
		if (addr.sll_pkttype == PACKET_OUTGOING)
			continue;
		unsigned host = bytes[0] == 2 ? bytes[5] : 0;

		for (unsigned to = 0; to < w->n; to++)
			if (host == 0 || host == to + 1)
				carry(w, from, to, bytes, (size_t)len);
	}
}

/* What is sent must be whole frames with their checksums. */
static void switch_off(int fd, const char *name, unsigned what)
{
	struct ethtool_value value = {.cmd = what};
	struct ifreq r = {.ifr_data = (char *)&value};

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(fd, SIOCETHTOOL, &r) != 0 && errno != EOPNOTSUPP)
		die(name);
}

static int open_port(const char *name)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	struct sockaddr_ll addr = {.sll_family = AF_PACKET,
				   .sll_protocol = htons(ETH_P_ALL),
				   .sll_ifindex = (int)if_nametoindex(name)};

	if (fd < 0 || addr.sll_ifindex == 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
		die(name);
	return fd;
}

/* `wire --plain NAME`: make an interface send whole frames, and exit. */
static int make_plain(const char *name)
{
	static const unsigned what[] = {ETHTOOL_STXCSUM, ETHTOOL_STSO,
					ETHTOOL_SGSO, ETHTOOL_SGRO,
					ETHTOOL_SSG};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++)
		switch_off(fd, name, what[i]);
	close(fd);
	return 0;
}

/* ---- Commands ---- */

static void set_cut(struct wire *w, unsigned a, unsigned b, bool is_cut)
{
	for (unsigned from = 0; from < w->n; from++)
		for (unsigned to = 0; to < w->n; to++)
			if ((a == 0 || a == from + 1) &&
			    (b == 0 || b == to + 1))
				w->cut[from][to] = is_cut;
}

static void obey(struct wire *w)
{
	unsigned a, b;

	if (sscanf(w->line, "cut %u %u", &a, &b) == 2)
		set_cut(w, a, b, true);
	else if (sscanf(w->line, "heal %u %u", &a, &b) == 2)
		set_cut(w, a, b, false);
	else if (sscanf(w->line, "delay %u %u", &a, &b) == 2)
		w->delay_us = a, w->jitter_us = b;
	else if (sscanf(w->line, "loss %u", &a) == 1)
		w->loss = a;
	else if (sscanf(w->line, "copy %u", &a) == 1)
		w->copy = a;
	else {
		puts("no such command");
		return;
	}
	puts("ok");
}

static void read_commands(struct wire *w)
{
	char c;

	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c != '\n' && w->n_line < sizeof(w->line) - 1) {
			w->line[w->n_line++] = c;
			continue;
		}
		w->line[w->n_line] = '\0';
		w->n_line = 0;
		obey(w);
		fflush(stdout);
		return;
	}
	exit(0);
}

static int wait_ms(const struct wire *w)
{
	if (w->n_heap == 0)
		return -1;
	uint64_t now = now_us(), at = w->heap[0]->at_us;

	return at <= now ? 0 : (int)((at - now + 999) / 1000);
}

int main(int argc, char **argv)
{
	static struct wire w;

	if (argc == 3 && strcmp(argv[1], "--plain") == 0)
		return make_plain(argv[2]);
	w.n = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
	if (w.n < 1 || w.n > PORTS_MAX) {
		fputs("Usage: wire PREFIX N | wire --plain NAME\n", stderr);
		return 64;
	}
	for (unsigned i = 0; i < w.n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%.8s%u", argv[1], i + 1);
		w.fds[i] = (struct pollfd){open_port(name), POLLIN, 0};
	}
	w.fds[w.n] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
	puts("ok");
	fflush(stdout);
	for (;;) {
		if (poll(w.fds, w.n + 1, wait_ms(&w)) < 0 && errno != EINTR)
			die("poll");
		for (unsigned i = 0; i < w.n; i++)
			if (w.fds[i].revents & POLLIN)
				receive(&w, i);
		send_due(&w);
		if (w.fds[w.n].revents & (POLLIN | POLLHUP))
			read_commands(&w);
	}
}
