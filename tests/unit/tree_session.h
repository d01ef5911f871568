/* SPDX-License-Identifier: MIT */
/* The tree without a mount: a libfuse session on a socket pair, with the test in
 * the kernel's place. What the kernel may ask is in tree_rig.h.
 *
 * For every request, of every test, the rig sees to it that
 *   - it is answered once, and not twice; FORGET never
 *   - the errno is one that a Linux program knows: 1 to 133
 *   - the message lies in memory of exactly its size, which is gone when the
 *     handler has returned
 *   - at the end nothing waits, and no memory is left (by the sanitizer)
 *
 * boot_ms() is r->boot_ms: no test waits for time to pass. One file of a program
 * may include this; one rig at a time. */
#ifndef TESTS_UNIT_TREE_SESSION_H
#define TESTS_UNIT_TREE_SESSION_H

#include <assert.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/tree.h"
#include "tests/unit/check.h"
#include "tests/unit/fake_ring.h"

enum {
	RIG_WAITS = -1,
	RIG_MSG_MAX = 256 * 1024,
	RIG_ERRNO_MAX = 133,
	RIG_OWNER = 1000, /* uid and gid of the mount, and of who asks */
	RIG_TID = 77,	  /* the thread that asks */
};

/* The directories, in the order of the tree's table, and ctl. */
enum rig_dir {
	KEYS,
	OWNED,
	RECOVER,
	RELEASE,
	PARKED,
	SUBMIT,
	PEERS,
	ROUTE,
	STATUS,
	CTL,
	N_RIG_DIRS,
	ROOT = N_RIG_DIRS
};

static const char *const rig_names[] = {
	"keys",	 "owned", "recover", "release", "parked", "submit",
	"peers", "route", "status",  "ctl",	"/",
};

/* An open file, as the kernel knows it. */
struct rig_file {
	uint64_t ino, fh;
	uint32_t flags, open_flags;
};

/* A request, and what came back. */
struct rig_asked {
	uint32_t opcode;
	uint32_t flags; /* of open(2) */
	uint64_t ino;
	uint64_t fh; /* of the open file that it is about, or 0 */
	int n_replies;
	int error;
};

struct rig {
	struct ring *ring;
	struct tree *tree;
	struct fuse_session *session;
	int fd; /* the kernel's end */
	uint64_t dirs[N_RIG_DIRS + 1];

	/* What the test decides. */
	bool slow;	/* the ring answers only when rig_turn() is called */
	bool forgetful; /* the kernel has no use for a reply any more: ENOENT */
	uint32_t uid, gid, pid;
	uint64_t boot_ms;

	/* The last reply. */
	struct fuse_entry_out entry;
	struct fuse_attr attr;
	struct fuse_open_out open;
	struct rig_file file; /* of OPEN, CREATE and OPENDIR */
	uint32_t n_written;
	uint8_t *bytes; /* len bytes and a NUL */
	size_t len;
	/* If set: r->file was opened, and the kernel knows. */
	void (*on_open)(struct rig *r, uint32_t opcode);

	/* All of them: number i has the unique 2 * (i + 1). */
	struct rig_asked *asked;
	size_t n_asked, cap_asked;
	size_t n_interrupts, n_unheard; /* sent; answered EAGAIN */
	uint64_t unique;		/* of the last request */
	size_t msg_len;
};

static struct rig *the_rig;
static uint8_t rig_msg[RIG_MSG_MAX];

/* What fs/util.c asks for the time. */
int clock_gettime(clockid_t clock, struct timespec *out)
{
	if (clock != CLOCK_BOOTTIME || the_rig == NULL)
		return (int)syscall(SYS_clock_gettime, clock, out);
	out->tv_sec = (time_t)(the_rig->boot_ms / 1000);
	out->tv_nsec = (long)(the_rig->boot_ms % 1000) * 1000000;
	return 0;
}

/* ---- Replies ---- */

static inline struct rig_asked *rig_asked(struct rig *r, uint64_t unique)
{
	size_t i = (size_t)(unique / 2);

	check(i >= 1 && i <= r->n_asked, "a reply to no request");
	return &r->asked[i - 1];
}

/* The errno that the request was answered with, or RIG_WAITS. */
static inline int rig_error(struct rig *r, uint64_t unique)
{
	struct rig_asked *a = rig_asked(r, unique);

	return a->n_replies == 0 ? RIG_WAITS : a->error;
}

/* A reply's fixed part, which must be whole. */
static inline void rig_get(const struct rig *r, void *out, size_t n, size_t at)
{
	check(r->len >= at + n, "a reply of %zu bytes is too short", r->len);
	memcpy(out, r->bytes + at, n);
}

static inline void rig_get_open(struct rig *r, const struct rig_asked *a,
				size_t at)
{
	rig_get(r, &r->open, sizeof(r->open), at);
	r->file = (struct rig_file){
		.ino = at > 0 ? r->entry.nodeid : a->ino,
		.fh = r->open.fh,
		.flags = a->flags,
		.open_flags = r->open.open_flags,
	};
	check(r->file.fh != 0, "an open file without a handle");
	if (r->on_open != NULL && !r->forgetful)
		r->on_open(r, a->opcode);
}

static inline void rig_parse(struct rig *r, const struct rig_asked *a)
{
	struct fuse_write_out w;

	switch (a->opcode) {
	case FUSE_CREATE:
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
		rig_get(r, &r->entry, sizeof(r->entry), 0);
		check(r->entry.nodeid > FUSE_ROOT_ID, "an entry without node");
		r->attr = r->entry.attr;
		if (a->opcode == FUSE_CREATE)
			rig_get_open(r, a, sizeof(r->entry));
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		rig_get(r, &r->attr, sizeof(r->attr),
			offsetof(struct fuse_attr_out, attr));
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		rig_get_open(r, a, 0);
		break;
	case FUSE_WRITE:
		rig_get(r, &w, sizeof(w), 0);
		r->n_written = w.size;
		break;
	}
}

static inline void rig_take(struct rig *r, const uint8_t *msg, size_t n)
{
	struct fuse_out_header head;

	check(n >= sizeof(head), "a reply of %zu bytes", n);
	memcpy(&head, msg, sizeof(head));
	check(head.len == n, "a reply says %u bytes and has %zu", head.len, n);
	check(head.error <= 0 && head.error >= -RIG_ERRNO_MAX,
	      "a reply with error %d", head.error);
	if (head.unique & 1) { /* INTERRUPT: nobody was found; ask again */
		check_int(head.error, -EAGAIN);
		r->n_unheard++;
		return;
	}
	struct rig_asked *a = rig_asked(r, head.unique);

	check(++a->n_replies == 1, "opcode %u is answered twice", a->opcode);
	check(a->opcode != FUSE_FORGET && a->opcode != FUSE_BATCH_FORGET,
	      "a FORGET is answered");
	a->error = -head.error;
	/* What was read outlives the close. */
	if (a->opcode == FUSE_RELEASE || a->opcode == FUSE_RELEASEDIR)
		return;
	r->len = n - sizeof(head);
	memcpy(r->bytes, msg + sizeof(head), r->len);
	r->bytes[r->len] = '\0';
	if (head.error == 0)
		rig_parse(r, a);
}

/* ---- The session's ends ---- */

static inline ssize_t rig_read(int fd, void *buf, size_t n, void *data)
{
	(void)data;
	return read(fd, buf, n);
}

/* Over the socket, and off it at once. */
static inline ssize_t rig_writev(int fd, struct iovec *iov, int n, void *data)
{
	struct rig *r = the_rig;
	static uint8_t buf[RIG_MSG_MAX];
	ssize_t sent = writev(fd, iov, n);

	(void)data;
	check(sent > 0, "a reply cannot be sent: %s", strerror(errno));
	check_int(recv(r->fd, buf, sizeof(buf), MSG_DONTWAIT), sent);
	rig_take(r, buf, (size_t)sent);
	if (r->forgetful) {
		errno = ENOENT;
		return -1;
	}
	return sent;
}

/* Hand over one message, and let it be worked on. 0, or what the mount would
 * end for. */
static inline int rig_deliver(struct rig *r, const void *msg, size_t n)
{
	static struct fuse_buf buf; /* libfuse's, kept */
	struct fuse_buf exact = {0};

	check_int(send(r->fd, msg, n, 0), n);
	int got = fuse_session_receive_buf(r->session, &buf);

	if (got <= 0)
		return got;
	check_int(got, n);
	exact.size = n;
	exact.mem = memcpy(xmalloc(n), buf.mem, n);
	fuse_session_process_buf(r->session, &exact);
	memset(exact.mem, 0xdd, n);
	free(exact.mem);
	return 0;
}

/* ---- Requests ---- */

static inline void rig_put(struct rig *r, const void *bytes, size_t n)
{
	assert(r->msg_len + n <= RIG_MSG_MAX);
	if (n > 0)
		memcpy(rig_msg + r->msg_len, bytes, n);
	r->msg_len += n;
}

static inline void rig_put_name(struct rig *r, const char *name)
{
	rig_put(r, name, strlen(name) + 1);
}

/* Begin a request about ino. */
static inline void rig_begin(struct rig *r, uint32_t opcode, uint64_t ino)
{
	if (r->n_asked == r->cap_asked) {
		r->cap_asked = r->cap_asked ? 2 * r->cap_asked : 64;
		r->asked =
			xrealloc(r->asked, r->cap_asked * sizeof(r->asked[0]));
	}
	r->asked[r->n_asked++] =
		(struct rig_asked){.opcode = opcode, .ino = ino};
	r->unique = 2 * r->n_asked;
	struct fuse_in_header head = {
		.opcode = opcode,
		.unique = r->unique,
		.nodeid = ino,
		.uid = r->uid,
		.gid = r->gid,
		.pid = r->pid,
	};

	r->msg_len = 0;
	rig_put(r, &head, sizeof(head));
}

/* The request that is being made. */
static inline struct rig_asked *rig_making(struct rig *r)
{
	return &r->asked[r->n_asked - 1];
}

/* Let the ring answer, and what comes of it, a few times over. */
static inline void rig_turn(struct rig *r)
{
	for (int i = 0; i < 8 && r->ring->first != NULL; i++)
		fake_turn(r->ring);
}

static inline int rig_send(struct rig *r)
{
	uint64_t unique = r->unique;
	uint32_t len = (uint32_t)r->msg_len;

	memcpy(rig_msg + offsetof(struct fuse_in_header, len), &len,
	       sizeof(len));
	check_int(rig_deliver(r, rig_msg, r->msg_len), 0);
	if (!r->slow)
		rig_turn(r);
	return rig_error(r, unique);
}

/* A request of a fixed part and a name; either may be NULL. */
static inline int rig_ask(struct rig *r, uint32_t opcode, uint64_t ino,
			  const void *in, size_t n, const char *name)
{
	rig_begin(r, opcode, ino);
	rig_put(r, in, n);
	if (name != NULL)
		rig_put_name(r, name);
	return rig_send(r);
}

/* A request about an open file. */
static inline int rig_ask_file(struct rig *r, uint32_t opcode,
			       const struct rig_file *f, const void *in,
			       size_t n)
{
	rig_begin(r, opcode, f->ino);
	rig_making(r)->fh = f->fh;
	rig_put(r, in, n);
	return rig_send(r);
}

/* A signal to who made the request. */
static inline void rig_interrupt(struct rig *r, uint64_t unique)
{
	struct fuse_interrupt_in in = {.unique = unique};
	struct fuse_in_header head = {
		.len = sizeof(head) + sizeof(in),
		.opcode = FUSE_INTERRUPT,
		.unique = unique | 1,
	};

	r->msg_len = 0;
	rig_put(r, &head, sizeof(head));
	rig_put(r, &in, sizeof(in));
	r->n_interrupts++;
	check_int(rig_deliver(r, rig_msg, r->msg_len), 0);
}

static inline int rig_init(struct rig *r, uint32_t major, uint32_t minor)
{
	struct fuse_init_in in = {
		.major = major,
		.minor = minor,
		.max_readahead = 128 * 1024,
		.flags = FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
			 FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS |
			 FUSE_FLOCK_LOCKS | FUSE_POSIX_LOCKS,
	};

	return rig_ask(r, FUSE_INIT, 0, &in, sizeof(in), NULL);
}

static inline int rig_lookup(struct rig *r, uint64_t dir, const char *name)
{
	return rig_ask(r, FUSE_LOOKUP, dir, NULL, 0, name);
}

static inline int rig_getattr(struct rig *r, uint64_t ino)
{
	struct fuse_getattr_in in = {0};

	return rig_ask(r, FUSE_GETATTR, ino, &in, sizeof(in), NULL);
}

/* ---- Life ---- */

static inline void rig_on_change(void *tree, const struct ring_change *change)
{
	tree_on_change(tree, change);
}

static inline void rig_mute(enum fuse_log_level level, const char *format,
			    va_list args)
{
	(void)level;
	(void)format;
	(void)args;
}

static inline void rig_start_session(struct rig *r)
{
	static const struct fuse_custom_io io = {.writev = rig_writev,
						 .read = rig_read};
	static char name[] = "ringfs", *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int fds[2];

	check_int(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds),
		  0);
	for (int i = 0; i < 2; i++) {
		int size = RIG_MSG_MAX;

		setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	r->fd = fds[0];
	r->session =
		fuse_session_new(&args, &tree_ops, sizeof(tree_ops), r->tree);
	check(r->session != NULL, "no session");
	check_int(fuse_session_custom_io(r->session, &io, fds[1]), 0);
	fuse_opt_free_args(&args);
}

/* A tree over a new fake ring, before its INIT. */
static inline struct rig *rig_create_raw(void)
{
	static uint8_t bytes[RIG_MSG_MAX];
	struct rig *r = xcalloc(1, sizeof(*r));

	assert(the_rig == NULL);
	log_set(LOG_LEVEL_ERROR, false);
	fuse_set_log_func(rig_mute);
	r->ring = fake_create_ring();
	r->uid = r->gid = RIG_OWNER;
	r->pid = RIG_TID;
	r->boot_ms = 1000000;
	r->bytes = bytes;
	the_rig = r;
	struct tree_config config = {
		.ring = r->ring,
		.mountpoint = "/nowhere",
		.uid = RIG_OWNER,
		.gid = RIG_OWNER,
		.write_mode = 0755,
		.version = "test",
		.address = "127.0.0.1:7400",
	};

	r->tree = tree_create(&config);
	r->ring->on_change = rig_on_change;
	r->ring->data = r->tree;
	r->dirs[ROOT] = FUSE_ROOT_ID;
	rig_start_session(r);
	return r;
}

/* Ready for requests. */
static inline struct rig *rig_create_ready(void)
{
	struct rig *r = rig_create_raw();

	check_int(rig_init(r, FUSE_KERNEL_VERSION, FUSE_KERNEL_MINOR_VERSION),
		  0);
	for (int d = 0; d < N_RIG_DIRS; d++) {
		check_int(rig_lookup(r, FUSE_ROOT_ID, rig_names[d]), 0);
		r->dirs[d] = r->entry.nodeid;
	}
	return r;
}

static inline void rig_check_all(struct rig *r)
{
	for (size_t i = 0; i < r->n_asked; i++) {
		const struct rig_asked *a = &r->asked[i];
		bool forget = a->opcode == FUSE_FORGET ||
			      a->opcode == FUSE_BATCH_FORGET;

		check(a->n_replies == !forget,
		      "request %zu, opcode %u, is answered %d times", i,
		      a->opcode, a->n_replies);
	}
}

/* As a daemon ends: drain, the ring's last answers, and only then the tree. */
static inline void rig_destroy(struct rig *r)
{
	if (fuse_session_exited(r->session) == 0 && r->dirs[KEYS] != 0) {
		/* Each makes libfuse give up one interrupt of nobody. */
		for (size_t i = 0; i < r->n_interrupts; i++)
			check_int(rig_getattr(r, FUSE_ROOT_ID), 0);
	}
	tree_drain(r->tree);
	rig_turn(r);
	rig_check_all(r);
	fuse_session_destroy(r->session);
	tree_destroy(r->tree);
	fake_destroy_ring(r->ring);
	close(r->fd);
	the_rig = NULL;
	free(r->asked);
	free(r);
}

#endif
