/* SPDX-License-Identifier: MIT */
/* libFuzzer on the tree: bytes become requests of the kernel, answers of the
 * ring, and what other nodes do meanwhile, over the rig of the unit tests.
 *
 * One step is one byte, which operation, and the bytes that this one asks for:
 *
 *   name   one byte: a name of the list below; 238, 239: 255, 256 letters; from
 *          241 on, that less 240 is the length, and the bytes follow
 *   node   one byte: a directory, or a node that a reply has told of
 *   file   one byte: one of the open files
 *   u8, u16, u32
 *
 * What ends with an error: two replies to a request, none when the ring has
 * answered all (but for who waits for a lock), an errno outside of 1 to 133, an
 * entry without a node, memory that is lost or used wrongly.
 *
 * The kernel is trusted, as it is by libfuse, which reads names up to their NUL
 * and believes sizes, node ids and handles. So every message has its fixed part
 * whole and its names ended, nodes and handles are such as were given out and
 * not released, a file is released when nothing about it waits, and directories
 * are read and files read and written by handles that were opened for it. Anything else is free:
 * offsets, sizes, flags, modes, names, callers, the order of it all. */
#include "tests/unit/tree_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	MAX_NODES = 64,
	MAX_FILES = 24,
	MAX_REQUESTS = 2000,
	MAX_SIZE = 70000, /* of one read or write */
};

struct fuzz {
	struct rig *rig;
	const uint8_t *at, *end;
	uint64_t nodes[MAX_NODES]; /* the directories first */
	size_t n_nodes;
	struct rig_file files[MAX_FILES], dirs[MAX_FILES];
	size_t n_files, n_dirs;
};

static struct fuzz *the_fuzz;

/* ---- The bytes ---- */

static unsigned u8(struct fuzz *z)
{
	return z->at < z->end ? *z->at++ : 0;
}

static unsigned u16(struct fuzz *z)
{
	unsigned v = u8(z);

	return v | u8(z) << 8;
}

static uint32_t u32(struct fuzz *z)
{
	uint32_t v = u16(z);

	return v | (uint32_t)u16(z) << 16;
}

/* An offset: near zero, near the limits, or anything. */
static uint64_t offset(struct fuzz *z)
{
	switch (u8(z) % 6) {
	case 0:
		return u8(z);
	case 1:
		return u16(z);
	case 2:
		return RING_NOTE_MAX - u8(z);
	case 3:
		return UINT64_MAX - u8(z);
	case 4:
		return (uint64_t)u32(z) << 32 | u8(z);
	default:
		return 0;
	}
}

static uint32_t size_of(struct fuzz *z)
{
	unsigned v = u8(z);

	return v < 200 ? v : (v - 199) * 4096 % MAX_SIZE;
}

static const char *name_of(struct fuzz *z)
{
	static const char *const names[] = {
		"a",	   "b",		"c",	  "ab",	 "remote",
		".x",	   "!none",	"self",	  "one", "state",
		"json",	   "keys",	"owned",  "ctl", "held",
		"offered", "releasing", "parked", "log", "events"};
	static char name[1100];
	unsigned v = u8(z);
	size_t n = v >= 240 ? v - 240 : 0;

	if (v == 238 || v == 239) { /* at the limit, and beyond it */
		n = RING_NAME_MAX + v - 238;
		memset(name, 'x', n);
	}
	if (v < 238 || n == 0)
		return names[v % (sizeof(names) / sizeof(names[0]))];
	for (size_t i = 0; v >= 240 && i < n; i++) {
		name[i] = (char)u8(z);
		if (name[i] == '\0' || name[i] == '/')
			name[i] = 'n';
	}
	name[n] = '\0';
	return name;
}

static uint64_t node(struct fuzz *z)
{
	return z->nodes[u8(z) % z->n_nodes];
}

static uint64_t dir(struct fuzz *z)
{
	return z->rig->dirs[u8(z) % (ROOT + 1)];
}

static const struct rig_file *file(struct fuzz *z)
{
	return z->n_files > 0 ? &z->files[u8(z) % z->n_files] : NULL;
}

/* One that was not opened for access alone: the kernel sees to that. */
static const struct rig_file *file_not(struct fuzz *z, uint32_t access)
{
	const struct rig_file *f = file(z);

	if (f == NULL || (f->flags & O_ACCMODE) == access ||
	    (f->flags & O_ACCMODE) == O_ACCMODE)
		return NULL;
	return f;
}

/* ---- What is known ---- */

static void learn(struct fuzz *z, uint64_t ino)
{
	for (size_t i = 0; i < z->n_nodes; i++)
		if (z->nodes[i] == ino)
			return;
	if (z->n_nodes < MAX_NODES)
		z->nodes[z->n_nodes++] = ino;
}

/* What the kernel opened, it keeps until it releases it; or until the abort,
 * for those for which there is no room. */
static void on_open(struct rig *r, uint32_t opcode)
{
	struct fuzz *z = the_fuzz;

	if (opcode == FUSE_CREATE)
		learn(z, r->entry.nodeid);
	if (opcode == FUSE_OPENDIR && z->n_dirs < MAX_FILES)
		z->dirs[z->n_dirs++] = r->file;
	else if (opcode != FUSE_OPENDIR && z->n_files < MAX_FILES)
		z->files[z->n_files++] = r->file;
}

static bool is_busy(const struct rig *r, uint64_t fh)
{
	for (size_t i = 0; i < r->n_asked; i++)
		if (r->asked[i].fh == fh && r->asked[i].n_replies == 0)
			return true;
	return false;
}

static void release(struct rig *r, struct rig_file *files, size_t *n, size_t i,
		    uint32_t opcode)
{
	struct rig_file f = files[i];

	if (is_busy(r, f.fh))
		return;
	files[i] = files[--*n];
	/* The memory may be another file's soon. */
	for (size_t k = 0; k < r->n_asked; k++)
		if (r->asked[k].fh == f.fh)
			r->asked[k].fh = 0;
	rig_release(r, &f, opcode);
}

/* ---- Requests ---- */

static void do_lookup(struct fuzz *z)
{
	uint64_t d = u8(z) & 1 ? node(z) : dir(z);

	if (rig_lookup(z->rig, d, name_of(z)) == 0)
		learn(z, z->rig->entry.nodeid);
}

static void do_attr(struct fuzz *z)
{
	rig_getattr(z->rig, node(z));
	rig_ask(z->rig, FUSE_READLINK, node(z), NULL, 0, NULL);
}

static void do_setattr(struct fuzz *z)
{
	struct fuse_setattr_in in = {0};

	in.valid = u16(z) & ~(unsigned)FATTR_FH;
	in.size = offset(z);
	in.mode = u16(z);
	in.uid = u16(z);
	in.gid = u16(z);
	rig_setattr(z->rig, node(z), &in);
}

static void do_resize(struct fuzz *z)
{
	const struct rig_file *f = file_not(z, O_RDONLY);

	if (f != NULL)
		rig_resize(z->rig, f->ino, offset(z), f);
}

static void do_create(struct fuzz *z)
{
	uint64_t d = dir(z);
	bool open = u8(z) & 1;
	const char *name = name_of(z);
	uint32_t how = u16(z);

	if (open)
		rig_create(z->rig, d, name, how);
	else if (rig_mknod(z->rig, d, name, how) == 0)
		learn(z, z->rig->entry.nodeid);
}

static void do_open(struct fuzz *z)
{
	uint64_t ino = node(z);

	rig_open(z->rig, ino, u16(z));
}

static void do_opendir(struct fuzz *z)
{
	rig_opendir(z->rig, node(z));
}

static void do_read(struct fuzz *z)
{
	const struct rig_file *f = file_not(z, O_WRONLY);
	uint32_t size = size_of(z);

	if (f != NULL)
		rig_pread(z->rig, f, size, offset(z));
}

/* The bytes of the input, or one of them many times. */
static void do_write(struct fuzz *z)
{
	static uint8_t bytes[MAX_SIZE];
	const struct rig_file *f = file_not(z, O_RDONLY);
	size_t n = size_of(z);
	uint64_t off = offset(z);

	if (f == NULL)
		return;
	if (n < 200)
		for (size_t i = 0; i < n; i++)
			bytes[i] = (uint8_t)u8(z);
	else
		memset(bytes, (int)u8(z), n);
	rig_pwrite(z->rig, f, bytes, n, off);
}

/* A stream for ctl, with the words it knows. */
static void do_say(struct fuzz *z)
{
	static const char *const verbs[] = {
		"claim ",   "submit ",	      "finish ", "claim\n", "submit\n",
		"finish\n", "finish-at 101 ", "",	 "\n"};
	const struct rig_file *f = file_not(z, O_RDONLY);
	char bytes[2000] = "";
	size_t n = 0;

	if (f == NULL)
		return;
	for (unsigned i = u8(z) % 6; i > 0; i--) {
		const char *verb = verbs[u8(z) % 9];
		const char *name = name_of(z);

		n += (size_t)snprintf(bytes + n, sizeof(bytes) - n, "%s%s%c",
				      verb, name, u8(z) & 1 ? '\n' : '\0');
	}
	rig_pwrite(z->rig, f, bytes, n, 0);
}

static void do_readdir(struct fuzz *z)
{
	if (z->n_dirs == 0)
		return;
	const struct rig_file *f = &z->dirs[u8(z) % z->n_dirs];
	uint32_t size = size_of(z);

	rig_readdir(z->rig, f, size, offset(z));
}

static void do_release(struct fuzz *z)
{
	unsigned i = u8(z);

	if (i & 1 && z->n_dirs > 0)
		release(z->rig, z->dirs, &z->n_dirs, i / 2 % z->n_dirs,
			FUSE_RELEASEDIR);
	else if (z->n_files > 0)
		release(z->rig, z->files, &z->n_files, i / 2 % z->n_files,
			FUSE_RELEASE);
}

static void do_fsync(struct fuzz *z)
{
	const struct rig_file *f = file(z);

	if (f != NULL)
		rig_fsync(z->rig, f, FUSE_FSYNC);
	if (z->n_dirs > 0)
		rig_fsync(z->rig, &z->dirs[0], FUSE_FSYNCDIR);
}

static void do_lock(struct fuzz *z)
{
	static const uint32_t opcodes[] = {FUSE_SETLKW, FUSE_SETLK, FUSE_GETLK};
	static const uint32_t types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
	const struct rig_file *f = file(z);
	unsigned how = u8(z);

	if (f != NULL)
		rig_lock(z->rig, opcodes[how % 3], f, types[how / 3 % 3],
			 how < 200 ? FUSE_LK_FLOCK : 0);
}

static void do_unlink(struct fuzz *z)
{
	uint64_t d = dir(z);

	rig_unlink(z->rig, d, name_of(z));
}

static void do_rename(struct fuzz *z)
{
	uint64_t from = dir(z), to = dir(z);
	unsigned how = u8(z);
	char name[1100];

	snprintf(name, sizeof(name), "%s", name_of(z));
	if (how < 16)
		rig_rename(z->rig, from, name, to, name_of(z));
	else if (how < 48)
		rig_rename2(z->rig, from, name, to, how & 7);
	else
		rig_rename(z->rig, from, name, to, name);
}

static void do_xattr(struct fuzz *z)
{
	static const char *const names[] = {
		"user.ring.token", "user.ring.holder",
		"user.ring.heir",  "user.ring.since",
		"user.ring.from",  "system.posix_acl_access",
		"user.ring.state", ""};
	uint64_t ino = node(z);
	const char *name = names[u8(z) % 8];
	unsigned how = u8(z);

	if (how < 100)
		rig_getxattr(z->rig, ino, name, u8(z));
	else if (how < 200)
		rig_listxattr(z->rig, ino, u8(z));
	else if (how & 1)
		rig_setxattr(z->rig, ino, name);
	else
		rig_ask(z->rig, FUSE_REMOVEXATTR, ino, NULL, 0, name);
}

static void do_forget(struct fuzz *z)
{
	uint64_t ino = node(z);

	rig_forget(z->rig, ino, u8(z));
}

/* What the tree has nowhere, and what nobody has. */
static void do_odd(struct fuzz *z)
{
	static const uint32_t opcodes[] = {
		FUSE_MKDIR,  FUSE_RMDIR,  FUSE_LINK,
		FUSE_STATFS, FUSE_ACCESS, FUSE_FLUSH,
		FUSE_BMAP,   FUSE_POLL,	  FUSE_FALLOCATE,
		FUSE_LSEEK,  FUSE_INIT,	  FUSE_COPY_FILE_RANGE,
		7,	     4711};
	uint8_t in[64] = {0};
	uint32_t opcode = opcodes[u8(z) % 14];
	size_t fixed = opcode == FUSE_RMDIR ? 0 : sizeof(in);

	if (opcode == FUSE_MKDIR)
		fixed = sizeof(struct fuse_mkdir_in);
	else if (opcode == FUSE_LINK)
		fixed = sizeof(struct fuse_link_in);
	uint64_t ino = node(z);

	rig_ask(z->rig, opcode, ino, in, fixed, name_of(z));
}

/* A signal to any caller of those before, or to the next. */
static void do_interrupt(struct fuzz *z)
{
	uint64_t back = u8(z);
	uint64_t last = z->rig->n_asked + 1;

	rig_interrupt(z->rig, 2 * (back < last ? last - back : 1));
}

/* ---- The ring, and the world ---- */

static void do_turn(struct fuzz *z)
{
	if (u8(z) & 1)
		fake_turn(z->rig->ring);
	else
		fake_answer(z->rig->ring);
}

static void do_slow(struct fuzz *z)
{
	z->rig->slow = u8(z) & 1;
}

static void do_refuse(struct fuzz *z)
{
	static const int errors[] = {0,		 -EROFS,     -EAGAIN, -ENOSPC,
				     -ETIMEDOUT, -ECANCELED, -EINTR,  -EREMOTE,
				     -EEXIST,	 -ENOENT};
	unsigned how = u8(z);

	z->rig->ring->refuse = errors[how % 7];
	z->rig->ring->refuse_op = errors[how / 7 % 10];
	z->rig->ring->done = how > 127;
}

static void do_other(struct fuzz *z)
{
	struct ring *ring = z->rig->ring;
	const char *name = name_of(z);
	unsigned how = u8(z);
	enum ring_state state = (enum ring_state)(how & 3);
	uint32_t holder = state == RING_PARKED ? RING_NONE : how >> 2 & 1;

	if (name[0] == '.' || strlen(name) > RING_NAME_MAX)
		return;
	if (fake_at(ring, name) == NULL && ring->n_keys < FAKE_KEYS)
		fake_key(ring, name, state, holder, how & 8 ? "note" : "");
	else if (fake_at(ring, name) == NULL)
		return;
	else if (how & 16)
		fake_end(ring, name);
	else if (how & 32)
		fake_get(ring, name)->backoff_ms = 0;
	else
		fake_pass(ring, name, state, holder);
}

static void do_world(struct fuzz *z)
{
	struct rig *r = z->rig;
	unsigned how = u8(z);

	r->uid = how & 1 ? 2000 : how & 2 ? 0 : RIG_OWNER;
	r->pid = how >> 2 & 3 ? RIG_TID + (how >> 2 & 3) : 0;
	r->boot_ms += (how >> 4) * 400;
	tree_flush(r->tree, r->boot_ms);
}

static void do_health(struct fuzz *z)
{
	struct rig *r = z->rig;
	unsigned how = u8(z);

	r->ring->status.health = (enum ring_health)(how % (RING_FULL + 1));
	r->ring->owners[u8(z)] = how & 64 ? RING_NONE : how >> 4 & 1;
	for (size_t i = 0; i < r->ring->n_keys && how & 32; i++)
		r->ring->keys[i]->hidden ^= 1;
	tree_on_status(r->tree);
}

/* The kernel has no use for the replies of the next step. */
static void do_forgetful(struct fuzz *z)
{
	z->rig->forgetful = true;
}

static void do_drain(struct fuzz *z)
{
	if (u8(z) == 0xdd) /* rarely: little comes after it */
		tree_drain(z->rig->tree);
}

static void (*const steps[])(struct fuzz *z) = {
	do_lookup,  do_attr,	  do_setattr,	do_resize, do_create,
	do_open,    do_opendir,	  do_read,	do_write,  do_say,
	do_readdir, do_release,	  do_fsync,	do_lock,   do_unlink,
	do_rename,  do_xattr,	  do_forget,	do_odd,	   do_turn,
	do_slow,    do_refuse,	  do_other,	do_world,  do_health,
	do_drain,   do_forgetful, do_interrupt,
};

/* ---- The end ---- */

/* The ring answers all; then every request has its answer, but who waits for a
 * lock. */
static void settle(struct fuzz *z)
{
	struct rig *r = z->rig;

	r->forgetful = false;
	r->ring->refuse = r->ring->refuse_op = 0;
	for (int i = 0; i < 10000 && r->ring->first != NULL; i++)
		fake_turn(r->ring);
	check(r->ring->first == NULL, "the ring is asked without end");
	for (size_t i = 0; i < r->n_asked; i++) {
		uint32_t opcode = r->asked[i].opcode;

		check(r->asked[i].n_replies == 1 || opcode == FUSE_FORGET ||
			      opcode == FUSE_SETLKW,
		      "opcode %u has no answer", opcode);
	}
	r->slow = false;
	while (z->n_files > 0 && !is_busy(r, z->files[0].fh))
		release(r, z->files, &z->n_files, 0, FUSE_RELEASE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz z = {
		.rig = rig_create_ready(), .at = data, .end = data + size};

	the_fuzz = &z;
	z.rig->on_open = on_open;
	for (int d = 0; d <= ROOT; d++)
		learn(&z, z.rig->dirs[d]);
	fake_key(z.rig->ring, "held", RING_HELD, 0, "note");
	fake_key(z.rig->ring, "offered", RING_OFFERED, 0, "note");
	fake_key(z.rig->ring, "releasing", RING_RELEASING, 0, "note");
	fake_key(z.rig->ring, "parked", RING_PARKED, RING_NONE, "note");
	while (z.at < z.end && z.rig->n_asked < MAX_REQUESTS) {
		bool forgetful = z.rig->forgetful;

		steps[u8(&z) % (sizeof(steps) / sizeof(steps[0]))](&z);
		if (forgetful)
			z.rig->forgetful = false;
	}
	settle(&z);
	rig_destroy(z.rig);
	return 0;
}
