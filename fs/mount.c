/* SPDX-License-Identifier: MIT */
#include "fs/mount.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "fs/log.h"
#include "fs/util.h"

/* Exit statuses (interface.md 3). */
enum {
	EXIT_DENIED = 77,
	EXIT_CONFIG = 78
};

/* Requests taken per turn of the loop, so that the cluster is not starved. */
#define REQUESTS_PER_TURN 16

/* A daemon that answers nobody for this long hangs. */
#define ALIVE_MS      2000
#define LOCK_TRIES    200 /* of 10 ms */
#define ALIVE_STEP_MS 5

struct mount {
	struct mount_config config;
	char *dir;
	struct fuse_session *session;
	struct fuse_buf buf; /* libfuse's, kept between requests */
	uv_poll_t poll;
	bool ready, ended;
	void (*close_cb)(void *data);
	void *close_data;
};

/* ---- Before ---- */

static int refuse(int status, char errmsg[RING_ERRMSG_SIZE], const char *format,
		  ...) __attribute__((format(printf, 3, 4)));

static int refuse(int status, char errmsg[RING_ERRMSG_SIZE], const char *format,
		  ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(errmsg, RING_ERRMSG_SIZE, format, args);
	va_end(args);
	return status;
}

/* Run f(dir) in a child, whose exit status is given; -ETIMEDOUT if it hangs: then
 * it is left to die, which it cannot before the mount answers. The parent never
 * touches a mount that may not answer, and asks for nothing that an old kernel
 * may not have. */
static int in_child(int (*f)(const char *dir), const char *dir)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(f(dir));
	for (int ms = 0; ms < ALIVE_MS; ms += ALIVE_STEP_MS) {
		pid_t ended = waitpid(pid, &status, WNOHANG);

		if (ended == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
		if (ended < 0 && errno != EINTR)
			return -errno;
		poll(NULL, 0, ALIVE_STEP_MS);
	}
	kill(pid, SIGKILL);
	return -ETIMEDOUT;
}

/* A stat could be answered from the kernel's cache. */
static int child_open(const char *dir)
{
	return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) >= 0 ? 0 : errno;
}

static int child_fusermount(const char *dir)
{
	execlp("fusermount3", "fusermount3", "-uz", "--", dir, (char *)NULL);
	return 127;
}

/* Undo the \040 of /proc/self/mountinfo, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		unsigned v;

		if (s[0] == '\\' && sscanf(s + 1, "%3o", &v) == 1) {
			*to++ = (char)v;
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* Is the topmost mount at dir a ringfs? Asks the kernel, not the mount. */
static bool is_ringfs(const char *dir)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t cap = 0;
	bool yes = false;

	if (f == NULL)
		return false;
	while (getline(&line, &cap, f) > 0) {
		char *type = strstr(line, " - ");
		char *save, *point = strtok_r(line, " ", &save);

		for (int i = 0; i < 4 && point != NULL; i++)
			point = strtok_r(NULL, " ", &save);
		if (type == NULL || point == NULL)
			continue;
		unescape(point);
		if (strcmp(point, dir) == 0)
			yes = strncmp(type + 3, "fuse.ringfs ", 12) == 0;
	}
	free(line);
	fclose(f);
	return yes;
}

/* Detach the dead mount at dir. */
static int heal(const char *dir, char errmsg[RING_ERRMSG_SIZE])
{
	int rc;

	if (geteuid() == 0)
		rc = umount2(dir, MNT_DETACH) == 0 ? 0 : errno;
	else
		rc = in_child(child_fusermount, dir);
	if (rc != 0)
		return refuse(EXIT_DENIED, errmsg,
			      "%s is the mount of a ringfs that has died and "
			      "cannot be detached; do it with: fusermount3 "
			      "-uz %s",
			      dir, dir);
	log_info("detached the mount of a ringfs that had died from %s", dir);
	return 0;
}

/* Until no ringfs is mounted at dir; 0 when only dead ones were. */
static int check_mounted(const char *dir, char errmsg[RING_ERRMSG_SIZE])
{
	while (is_ringfs(dir)) {
		int rc = in_child(child_open, dir);

		if (rc == -ETIMEDOUT)
			return refuse(EXIT_CONFIG, errmsg,
				      "a ringfs is mounted at %s but does not "
				      "answer; continue or end its daemon "
				      "first",
				      dir);
		if (rc == EACCES)
			return refuse(EXIT_DENIED, errmsg,
				      "another user's ringfs is mounted at %s; "
				      "choose another directory",
				      dir);
		if (rc != ENOTCONN)
			return refuse(EXIT_CONFIG, errmsg,
				      "a ringfs is mounted at %s already; "
				      "unmount it with: ringfs umount %s",
				      dir, dir);
		rc = heal(dir, errmsg);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static bool is_empty(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool empty = true;

	if (d == NULL)
		return true; /* not for us to see: nor is it ours, see below */
	while (empty && (e = readdir(d)) != NULL)
		empty = strcmp(e->d_name, ".") == 0 ||
			strcmp(e->d_name, "..") == 0;
	closedir(d);
	return empty;
}

/* Is path dir itself, or below it? */
static bool is_inside(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 &&
	       (path[n] == '\0' || path[n] == '/' || dir[n - 1] == '/');
}

static int check_apart(const char *dir, const char *state_dir,
		       char errmsg[RING_ERRMSG_SIZE])
{
	if (is_inside(dir, state_dir))
		return refuse(EXIT_CONFIG, errmsg,
			      "the mountpoint %s is inside the state "
			      "directory %s; choose another of the two",
			      dir, state_dir);
	if (is_inside(state_dir, dir))
		return refuse(EXIT_CONFIG, errmsg,
			      "the state directory %s is inside the "
			      "mountpoint %s, which would hide it; choose "
			      "another of the two",
			      state_dir, dir);
	return 0;
}

static int check_directory(const char *dir, const char *state_dir,
			   char errmsg[RING_ERRMSG_SIZE])
{
	struct stat st;

	if (stat(dir, &st) != 0 && errno == ENOENT)
		return refuse(EXIT_CONFIG, errmsg,
			      "%s does not exist; make it with: mkdir -p %s",
			      dir, dir);
	if (stat(dir, &st) != 0)
		return refuse(errno == EACCES ? EXIT_DENIED : EXIT_CONFIG,
			      errmsg, "cannot use %s as mountpoint: %s", dir,
			      strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return refuse(EXIT_CONFIG, errmsg,
			      "%s is not a directory; a mountpoint must be an "
			      "empty one",
			      dir);
	int rc = check_apart(dir, state_dir, errmsg);

	if (rc != 0)
		return rc;
	if (!is_empty(dir))
		return refuse(EXIT_CONFIG, errmsg,
			      "%s is not empty; the mount would hide what is "
			      "in it: choose an empty directory",
			      dir);
	if (geteuid() != 0 &&
	    (st.st_uid != geteuid() || access(dir, W_OK) != 0))
		return refuse(EXIT_DENIED, errmsg,
			      "%s is not yours to mount on; choose a directory "
			      "that you own and may write to",
			      dir);
	return 0;
}

static bool in_path(const char *program)
{
	const char *path = getenv("PATH");
	char *copy = xstrdup(path != NULL ? path : "/usr/bin:/bin");
	char *save;
	bool found = false;

	for (char *d = strtok_r(copy, ":", &save); d != NULL && !found;
	     d = strtok_r(NULL, ":", &save)) {
		char *full = xasprintf("%s/%s", d, program);

		found = access(full, X_OK) == 0;
		free(full);
	}
	free(copy);
	return found;
}

static int check_fuse(char errmsg[RING_ERRMSG_SIZE])
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return refuse(EXIT_DENIED, errmsg,
			      "/dev/fuse may not be opened (%s); it needs "
			      "mode 0666 and, in a container, permission for "
			      "the device",
			      strerror(errno));
	if (fd < 0)
		return refuse(EXIT_CONFIG, errmsg,
			      "/dev/fuse is not there (%s); load the kernel's "
			      "module with: modprobe fuse",
			      strerror(errno));
	close(fd);
	if (geteuid() != 0 && access("/usr/bin/fusermount3", X_OK) != 0 &&
	    !in_path("fusermount3"))
		return refuse(EXIT_CONFIG, errmsg,
			      "fusermount3 is missing, and only root can mount "
			      "without it; install the package fuse3");
	return 0;
}

/* As the kernel names dir. Only its parent is looked at: dir may be dead. */
static char *resolve(const char *dir)
{
	char *copy = xstrdup(dir);
	size_t n = strlen(copy);

	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = '\0';
	char *slash = strrchr(copy, '/');

	if (slash == NULL || slash[1] == '\0' || strcmp(slash, "/.") == 0 ||
	    strcmp(slash, "/..") == 0)
		return copy;
	*slash = '\0';
	char *parent = realpath(slash == copy ? "/" : copy, NULL);
	char *full;

	*slash = '/';
	if (parent == NULL)
		return copy;
	full = xasprintf("%s%s", strcmp(parent, "/") == 0 ? "" : parent, slash);
	free(parent);
	free(copy);
	return full;
}

/* Against another one that has looked, too, and has not mounted yet; and the
 * herald of a former one, which is done in a moment (holes.md 13). */
static int lock(const char *dir, int *fd, char errmsg[RING_ERRMSG_SIZE])
{
	const struct timespec pause = {.tv_nsec = 10000000};

	*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0)
		return 0; /* what is wrong with dir, check_directory says */
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		nanosleep(&pause, NULL);
	}
	close(*fd);
	*fd = -1;
	return refuse(EXIT_CONFIG, errmsg,
		      "another ringfs is being mounted at %s", dir);
}

int mount_check_state(const char *dir, const char *state_dir,
		      char errmsg[RING_ERRMSG_SIZE])
{
	char *real_dir = realpath(dir, NULL);
	char *real_state = realpath(state_dir, NULL);
	int rc = 0;

	if (real_dir != NULL && real_state != NULL)
		rc = check_apart(real_dir, real_state, errmsg);
	free(real_dir);
	free(real_state);
	return rc;
}

int mount_check(const char *dir, const char *state_dir, int *lock_fd,
		char errmsg[RING_ERRMSG_SIZE])
{
	char *real_dir = resolve(dir);
	char *real_state = resolve(state_dir);
	int rc = check_mounted(real_dir, errmsg);

	*lock_fd = -1;
	if (rc == 0)
		rc = lock(real_dir, lock_fd, errmsg);
	if (rc == 0)
		rc = check_mounted(real_dir, errmsg);
	if (rc == 0)
		rc = check_directory(real_dir, real_state, errmsg);
	if (rc == 0)
		rc = check_fuse(errmsg);
	if (rc != 0 && *lock_fd >= 0) {
		close(*lock_fd);
		*lock_fd = -1;
	}
	free(real_dir);
	free(real_state);
	return rc;
}

/* ---- While ---- */

static void end(struct mount *m)
{
	if (m->ended)
		return;
	m->ended = true;
	uv_poll_stop(&m->poll);
	m->config.on_end(m->config.data);
}

/* Status < 0: the kernel has let go of the device, which polls as an error then
 * (fuse.md 2). Otherwise readiness may be spurious. */
static void on_readable(uv_poll_t *handle, int status, int events)
{
	struct mount *m = handle->data;

	(void)events;
	if (status < 0) {
		end(m);
		return;
	}
	for (int i = 0; i < REQUESTS_PER_TURN; i++) {
		int n = fuse_session_receive_buf(m->session, &m->buf);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			end(m);
			return;
		}
		m->config.on_request(m->config.data);
		fuse_session_process_buf(m->session, &m->buf);
		if (fuse_session_exited(m->session)) {
			end(m);
			return;
		}
		if (!m->ready) { /* the first request is INIT */
			m->ready = true;
			m->config.on_ready(m->config.data);
		}
		if (uv_is_closing((uv_handle_t *)handle))
			return;
	}
}

/* libfuse's last complaint, for the sentence with which the mount fails. */
static char complaint[RING_ERRMSG_SIZE];

/* Thread: any that calls libfuse, that is the loop. */
static void on_fuse_log(enum fuse_log_level level, const char *format,
			va_list args)
{
	char line[RING_ERRMSG_SIZE];

	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (level <= FUSE_LOG_ERR)
		memcpy(complaint, line, sizeof(complaint));
	log_line(level < FUSE_LOG_ERR ? FUSE_LOG_ERR : (int)level, line);
}

/* The options of the mount, in one word. free() releases it. */
static char *session_options(const struct mount_config *config)
{
	const char *source = config->source != NULL ? config->source : "ringfs";
	char *safe = xmalloc(2 * strlen(source) + 1), *end = safe;

	for (; *source != '\0'; source++) { /* libfuse takes these away again */
		if (*source == ',' || *source == '\\')
			*end++ = '\\';
		*end++ = *source;
	}
	*end = '\0';
	char *options =
		xasprintf("fsname=%s,subtype=ringfs,"
			  "default_permissions,nosuid,nodev,noexec%s",
			  safe, config->allow_other ? ",allow_other" : "");
	free(safe);
	return options;
}

static struct fuse_session *session_make(const struct mount_config *config)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;
	char *options = session_options(config);

	/* default_permissions always: without it the first answer would be used
	 * for other users as well (fuse.md 41). */
	if (fuse_opt_add_arg(&args, "ringfs") == 0 &&
	    fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_arg(&args, options) == 0)
		session = fuse_session_new(&args, config->ops,
					   sizeof(*config->ops),
					   config->userdata);
	fuse_opt_free_args(&args);
	free(options);
	return session;
}

int mount_start(const struct mount_config *config, struct mount **out,
		char errmsg[RING_ERRMSG_SIZE])
{
	struct mount *m = xcalloc(1, sizeof(*m));
	int rc = -EIO;

	fuse_set_log_func(on_fuse_log);
	complaint[0] = '\0';
	m->config = *config;
	m->dir = xstrdup(config->dir);
	m->session = session_make(config);
	if (m->session == NULL)
		goto err_mount;
	errno = 0;
	if (fuse_session_mount(m->session, m->dir) != 0) {
		if (errno == EPERM || errno == EACCES)
			rc = -EACCES;
		goto err_session;
	}
	rc = uv_poll_init(config->loop, &m->poll, fuse_session_fd(m->session));
	if (rc != 0)
		goto err_mounted;
	m->poll.data = m;
	uv_poll_start(&m->poll, UV_READABLE, on_readable);
	*out = m;
	return 0;

err_mounted: /* untested: only when the process is out of descriptors */
	fuse_session_unmount(m->session);
err_session:
	fuse_session_destroy(m->session);
err_mount:
	snprintf(errmsg, RING_ERRMSG_SIZE, "cannot mount on %s: %s",
		 config->dir, complaint[0] != '\0' ? complaint : strerror(-rc));
	free(m->dir);
	free(m);
	return rc;
}

/* ---- After ---- */

static void on_closed(uv_handle_t *handle)
{
	struct mount *m = handle->data;
	void (*cb)(void *data) = m->close_cb;
	void *data = m->close_data;

	fuse_session_destroy(m->session);
	free(m->buf.mem);
	free(m->dir);
	free(m);
	cb(data);
}

void mount_close(struct mount *m, void (*cb)(void *data), void *data)
{
	m->ended = true;
	m->close_cb = cb;
	m->close_data = data;
	uv_poll_stop(&m->poll);
	uv_close((uv_handle_t *)&m->poll, on_closed);
	/* Closes the device, then detaches the mount, lazily. In this order:
	 * libuv must have forgotten the descriptor (fuse.md 3). */
	fuse_session_unmount(m->session);
}
