/* SPDX-License-Identifier: MIT */
#include "gossip/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gossip/net_addr.h"

static int parse_port(const char *text, uint16_t *port)
{
	unsigned long n = 0;

	if (*text == '\0' || strlen(text) > 5)
		return -EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		n = 10 * n + (unsigned long)(*text - '0');
	}
	if (n == 0 || n > UINT16_MAX)
		return -EINVAL;
	*port = (uint16_t)n;
	return 0;
}

int address_split(const char *text, char host[ADDRESS_HOST_SIZE],
		  uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	const char *end = colon;

	if (colon == NULL)
		return -EINVAL;
	if (*text == '[') {
		text++;
		if (end == text || *--end != ']')
			return -EINVAL;
	} else if (memchr(text, ':', (size_t)(colon - text)) != NULL) {
		return -EINVAL; /* IPv6 without brackets: which is the port? */
	}
	if (end <= text || end - text >= ADDRESS_HOST_SIZE)
		return -EINVAL;
	memcpy(host, text, (size_t)(end - text));
	host[end - text] = '\0';
	return parse_port(colon + 1, port);
}

int address_parse(const char *text, struct gossip_addr *out)
{
	char host[ADDRESS_HOST_SIZE];
	int rc = address_split(text, host, &out->port);

	if (rc != 0)
		return rc;
	if (*text == '[')
		return inet_pton(AF_INET6, host, out->ip) == 1 ? 0 : -EINVAL;
	memset(out->ip, 0, 10);
	memset(out->ip + 10, 0xff, 2);
	return inet_pton(AF_INET, host, out->ip + 12) == 1 ? 0 : -EINVAL;
}

int address_towards(const struct gossip_addr *to, struct gossip_addr *own)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct gossip_addr found;
	int rc = net_addr_to(to, AF_UNSPEC, &sa);

	if (rc != 0)
		return rc;
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = connect(fd, (struct sockaddr *)&sa,
		     sa.ss_family == AF_INET ? sizeof(struct sockaddr_in)
					     : sizeof(struct sockaddr_in6));
	if (rc == 0)
		rc = getsockname(fd, (struct sockaddr *)&sa, &len);
	rc = rc != 0 ? -errno : 0;
	close(fd);
	if (rc == 0 && !net_addr_from((struct sockaddr *)&sa, &found))
		rc = -EAFNOSUPPORT;
	if (rc == 0)
		memcpy(own->ip, found.ip, sizeof(own->ip));
	return rc;
}
