/* SPDX-License-Identifier: MIT */
/* Stand in for a service manager: `listen PATH` makes the datagram socket PATH
 * and prints what it is sent, a line per variable, until "READY=1" has come. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char said[4096];
	ssize_t n;

	if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path)) {
		fprintf(stderr, "usage: listen PATH\n");
		return 64;
	}
	memcpy(address.sun_path, argv[1], strlen(argv[1]));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		perror("listen");
		return 1;
	}
	alarm(30);
	do {
		n = recv(fd, said, sizeof(said) - 1, 0);
		if (n < 0)
			return 1;
		said[n] = '\0';
		puts(said);
		fflush(stdout);
	} while (strstr(said, "READY=1") == NULL);
	close(fd);
	return 0;
}
