/* SPDX-License-Identifier: MIT */
/* Packets: the body of a sealed one is a topic byte and what is said of it.
 *
 * A socket that is not connected hears nothing of a closed port at the other end
 * unless it asks for it: with IP_RECVERR the kernel keeps each ICMP error with
 * the address that it is about, for the loop to read, and also fails the next
 * call, whatever that is about. So a packet that fails is tried once more; what
 * fails then has failed by itself. Nobody is believed by that: who forges such
 * errors brings about a second way of probing, and no more (F3).
 *
 *	net_packet		sealed, sent
 *	  no key, wrong family, no route, too long	on_send_failed, later
 *	  EAGAIN, ENOBUFS				dropped, counted
 *	  before start, closing, no cluster		dropped, counted
 *	on_datagram		opened, given to on_packet
 *	  not authentic					counted by seal
 *	  cut off, empty, an unknown topic		dropped, counted
 *	  nothing, or an error				the kept ones are read */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "gossip/mem.h"
#include "gossip/net_impl.h"

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct net *n = handle->data;

	(void)suggested;
	*buf = uv_buf_init((char *)n->in, sizeof(n->in));
}

/* ---- Failures, told later ---- */

static void note_failure(struct net *n, const struct gossip_addr *to)
{
	n->stats.n_send_errors++;
	for (size_t i = 0; i < n->n_failed; i++)
		if (gossip_addr_equal(&n->failed[i], to))
			return;
	if (n->n_failed == NET_FAILED_MAX)
		return; /* hints: the others' will come again */
	n->failed[n->n_failed++] = *to;
	uv_timer_start(&n->late, net_udp_on_late, 0, 0);
}

void net_udp_on_late(uv_timer_t *timer)
{
	struct net *n = timer->data;
	struct gossip_addr failed[NET_FAILED_MAX];
	size_t n_failed = n->n_failed;

	memcpy(failed, n->failed, n_failed * sizeof(*failed));
	n->n_failed = 0;
	for (size_t i = 0; i < n_failed && !n->is_closing; i++)
		n->config.on_send_failed(n->config.data, &failed[i]);
}

/* The errors that the kernel keeps, and the addresses that they are about. */
static void read_errors(struct net *n)
{
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&n->udp, &fd) < 0)
		return;
	for (int i = 0; i < NET_FAILED_MAX; i++) {
		struct sockaddr_storage sa = {0};
		struct msghdr msg = {.msg_name = &sa,
				     .msg_namelen = sizeof(sa)};
		struct gossip_addr to;
		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
		if (net_addr_from((struct sockaddr *)&sa, &to))
			note_failure(n, &to);
	}
}

/* ---- In ---- */

static void take(struct net *n, uint8_t *packet, size_t len,
		 const struct sockaddr *sa)
{
	struct net_from from;
	struct seal_opened opened;

	if (n->config.seal == NULL || !net_addr_from(sa, &from.addr)) {
		n->stats.n_dropped++;
		return;
	}
	enum seal_reason reason =
		seal_open(n->config.seal, packet, len, &opened);
	from.id = opened.from;
	from.boot = opened.boot;
	from.is_sealed = opened.is_sealed;
	if (opened.is_former && n->config.on_former != NULL)
		n->config.on_former(n->config.data, &from);
	if (reason != SEAL_OK)
		return;
	if (opened.len == 0 || opened.body[0] < NET_SWIM ||
	    opened.body[0] == NET_LOBBY || opened.body[0] > NET_OBITUARY) {
		n->stats.n_dropped++;
		return;
	}
	net_link_heard(n, &from.addr);
	n->config.on_packet(n->config.data, &from, opened.body[0],
			    opened.body + 1, opened.len - 1);
}

static void on_datagram(uv_udp_t *udp, ssize_t nread, const uv_buf_t *buf,
			const struct sockaddr *sa, unsigned flags)
{
	struct net *n = udp->data;

	if (flags & UV_UDP_MMSG_FREE)
		return; /* of the whole batch, which is n->in */
	if (nread < 0 || sa == NULL) {
		read_errors(n);
		return;
	}
	n->stats.n_packets_in++;
	n->stats.bytes_in += (size_t)nread;
	if (flags & UV_UDP_PARTIAL)
		n->stats.n_dropped++;
	else
		take(n, (uint8_t *)buf->base, (size_t)nread, sa);
}

int net_udp_start(struct net *n, int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int on = 1, off = 0;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	n->family = sa.ss_family;
	uv_udp_init_ex(n->config.loop, &n->udp, AF_UNSPEC | UV_UDP_RECVMMSG);
	n->udp.data = n;
	n->n_open++;
	n->has_udp = true;
	int rc = uv_udp_open(&n->udp, fd);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	/* libuv lets others share the port, and we do not (fs/port.h). */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));
	if (n->family == AF_INET)
		rc = setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on));
	else
		rc = setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on,
				sizeof(on));
	if (rc < 0)
		return -errno;
	return uv_udp_recv_start(&n->udp, on_buffer, on_datagram);
}

/* ---- Out ---- */

static int send_to(struct net *n, const struct gossip_addr *to,
		   const void *bytes, size_t len)
{
	struct sockaddr_storage sa;
	uv_buf_t buf = uv_buf_init((char *)bytes, (unsigned)len);
	int rc = net_addr_to(to, n->family, &sa);

	if (rc < 0)
		return rc;
	rc = uv_udp_try_send(&n->udp, &buf, 1, (struct sockaddr *)&sa);
	if (rc < 0 && rc != -EAGAIN && rc != -ENOBUFS)
		rc = uv_udp_try_send(&n->udp, &buf, 1, (struct sockaddr *)&sa);
	return rc;
}

int net_seal(struct net *n, enum net_topic topic, const void *bytes, size_t len,
	     uint8_t *packet, size_t cap)
{
	assert(len <= NET_PACKET_MAX);
	if (n->config.seal == NULL)
		return -ENOTCONN;
	n->body[0] = (uint8_t)topic;
	if (len > 0)
		memcpy(n->body + 1, bytes, len);
	return seal_packet(n->config.seal, n->body, 1 + len, packet, cap);
}

void net_plain(struct net *n, const struct gossip_addr *to, const void *bytes,
	       size_t len)
{
	if (n->has_door && !n->is_closing)
		send_to(n, to, bytes, len);
}

void net_packet(struct net *n, const struct gossip_addr *to,
		enum net_topic topic, const void *bytes, size_t len)
{
	if (!n->has_door || n->is_closing || n->config.seal == NULL) {
		n->stats.n_dropped++;
		return;
	}
	int rc = net_seal(n, topic, bytes, len, n->packet, sizeof(n->packet));
	if (rc > 0)
		rc = send_to(n, to, n->packet, (size_t)rc);
	if (rc == -EAGAIN || rc == -ENOBUFS) {
		n->stats.n_dropped++;
	} else if (rc < 0) {
		note_failure(n, to);
	} else {
		n->stats.n_packets_out++;
		n->stats.bytes_out += (size_t)rc;
	}
}
