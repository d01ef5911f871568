/* SPDX-License-Identifier: MIT */
/* lockf FILE: ask who has a POSIX record lock on FILE, then for a shared one, and
 * say of each call what became of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void ask(int fd, const char *what, int cmd)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	int rc = fcntl(fd, cmd, &lock);

	printf("%s: %s\n", what, rc == 0 ? "done" : strerror(errno));
}

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0) {
		perror(argc == 2 ? argv[1] : "usage: lockf FILE");
		return 1;
	}
	ask(fd, "F_GETLK", F_GETLK);
	ask(fd, "F_SETLK", F_SETLK);
	ask(fd, "F_SETLKW", F_SETLKW);
	close(fd);
	return 0;
}
