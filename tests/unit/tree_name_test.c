/* SPDX-License-Identifier: MIT */
/* The protocol's edges without a mount: names of any length and bytes, extended
 * attributes and listings with buffers of any size, messages that no kernel
 * sends. */
#include "tests/unit/tree_rig.h"

/* ---- Names ---- */

/* A name of n letters. */
static const char *name_of(size_t n)
{
	static char name[2048];

	assert(n < sizeof(name));
	memset(name, 'x', n);
	name[n] = '\0';
	return name;
}

static void try_long(struct rig *r, const char *name, int want)
{
	uint64_t keys = r->dirs[KEYS];

	check_int(rig_create(r, keys, name, O_WRONLY), want);
	struct rig_file f = r->file;

	if (want == 0) {
		rig_close(r, &f);
		check_int(rig_lookup(r, keys, name), 0);
		check_int(rig_rename(r, r->dirs[OWNED], name, r->dirs[PARKED],
				     name),
			  0);
		check_int(rig_unlink(r, r->dirs[PARKED], name), 0);
		return;
	}
	check_int(rig_mknod(r, keys, name, S_IFREG), want);
	check_int(rig_create(r, r->dirs[SUBMIT], name, O_WRONLY), want);
	check_int(rig_create(r, FUSE_ROOT_ID, name, O_WRONLY), want);
	check_int(rig_unlink(r, keys, name), want);
	check_int(rig_rename(r, r->dirs[OWNED], "k", r->dirs[RECOVER], name),
		  want);
	check_int(rig_rename(r, r->dirs[OWNED], name, r->dirs[RECOVER], "k"),
		  EPERM);
	for (int d = 0; d <= ROOT; d++)
		if (d != CTL)
			check_int(rig_lookup(r, r->dirs[d], name), want);
}

static void test_long_names(void)
{
	struct rig *r = rig_create_ready();

	try_long(r, name_of(1), 0);
	try_long(r, name_of(254), 0);
	try_long(r, name_of(255), 0);
	try_long(r, name_of(256), ENAMETOOLONG);
	try_long(r, name_of(1024), ENAMETOOLONG);
	check_int(r->ring->n_keys, 0);
	rig_destroy(r);
	ok("names have up to 255 bytes; 256 and 1024 are refused everywhere");
}

static void test_all_bytes(void)
{
	struct rig *r = rig_create_ready();
	char name[3] = "";

	r->ring->settings.claims = RING_CLAIMS_ANY;
	for (int b = 1; b < 256; b++) {
		for (int at = 0; at < 2; at++) {
			int want = b == '.' && at == 0 ? EINVAL : 0;

			name[0] = name[1] = 'x';
			name[at] = (char)b;
			if (b == '/')
				continue; /* the kernel's */
			check_int(rig_mknod(r, r->dirs[KEYS], name, S_IFREG),
				  at == 1 && b == 'x' ? EEXIST : want);
			check(rig_has(r, OWNED, name) == (want == 0), "%d", b);
			check(rig_lookup(r, r->dirs[ROUTE], name) ==
				      (want || (at == 0 && b == '!') ? ENOENT
								     : 0),
			      "route of byte %d", b);
		}
	}
	check_int(rig_create(r, r->dirs[SUBMIT], ".x", O_WRONLY), EINVAL);
	check_int(rig_lookup(r, r->dirs[KEYS], ".x"), ENOENT);
	check_int(rig_unlink(r, r->dirs[KEYS], ".x"), ENOENT);
	check_int(rig_rename(r, r->dirs[OWNED], ".x", r->dirs[RECOVER], ".x"),
		  ENOENT);
	rig_destroy(r);
	ok("names have any byte, but no leading dot");
}

/* ---- Extended attributes ---- */

static void xattr_is(struct rig *r, uint64_t ino, const char *name,
		     const char *want)
{
	struct fuse_getxattr_out out;
	uint32_t n = (uint32_t)strlen(want);

	check_int(rig_getxattr(r, ino, name, 0), 0);
	rig_get(r, &out, sizeof(out), 0);
	check_int(out.size, n);
	check_int(rig_getxattr(r, ino, name, n > 0 ? n : 1), 0);
	check(r->len == n && memcmp(r->bytes, want, n) == 0, "%s is %s, not %s",
	      name, r->bytes, want);
	check_int(rig_getxattr(r, ino, name, n + 100), 0);
	check_int(r->len, n);
	if (n > 1)
		check_int(rig_getxattr(r, ino, name, n - 1), ERANGE);
}

static void test_xattrs(void)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "r", RING_HELD, 1, "");
	struct ring_key *key = fake_get(r->ring, "r");

	key->token = 12345;
	key->attempts = 3;
	key->reason = RING_MOVED;
	key->since_us = UINT64_C(1700000000000042);
	uint64_t ino = rig_ino(r, KEYS, "r");

	xattr_is(r, ino, "user.ring.token", "12345");
	xattr_is(r, ino, "user.ring.holder", "two");
	xattr_is(r, ino, "user.ring.heir", "two");
	xattr_is(r, ino, "user.ring.vnode", "114");
	xattr_is(r, ino, "user.ring.state", "held");
	xattr_is(r, ino, "user.ring.reason", "moved");
	xattr_is(r, ino, "user.ring.from", "");
	xattr_is(r, ino, "user.ring.attempts", "3");
	xattr_is(r, ino, "user.ring.since", "1700000000.000042");
	xattr_is(r, ino, "user.ring.claimed", "1700000000.000000");
	fake_pass(r->ring, "r", RING_PARKED, RING_NONE);
	xattr_is(r, ino, "user.ring.holder", "");
	xattr_is(r, ino, "user.ring.from", "two");
	xattr_is(r, ino, "user.ring.state", "parked");
	check_int(rig_getxattr(r, ino, "user.ring.other", 0), ENODATA);
	check_int(rig_getxattr(r, ino, "", 0), ENODATA);
	check_int(rig_getxattr(r, ino, "system.posix_acl_access", 0), ENODATA);
	check_int(rig_getxattr(r, ino, "security.capability", 0), ENODATA);
	rig_destroy(r);
	ok("extended attributes are given whole, as a length, or ERANGE");
}

static void test_xattr_lists(void)
{
	struct rig *r = rig_create_ready();
	struct fuse_getxattr_out out;
	size_t n = 0;

	fake_key(r->ring, "k", RING_RELEASING, 0, "");
	uint64_t ino = rig_ino(r, RELEASE, "k");

	check_int(rig_listxattr(r, ino, 0), 0);
	rig_get(r, &out, sizeof(out), 0);
	check_int(rig_listxattr(r, ino, out.size - 1), ERANGE);
	check_int(rig_listxattr(r, ino, out.size), 0);
	check_int(r->len, out.size);
	char *names = memcpy(xmalloc(out.size), r->bytes, out.size);

	for (size_t at = 0; at < out.size; at += strlen(names + at) + 1) {
		n++;
		check_int(rig_getxattr(r, ino, names + at, 0), 0);
	}
	check_int(n, 10);
	free(names);
	check_int(rig_listxattr(r, rig_ino(r, STATUS, "state"), 100), 0);
	check_int(r->len, 0);
	rig_destroy(r);
	ok("the list of attributes names those that are there");
}

/* ---- Listings ---- */

/* Walk the entries of a READDIR reply. Gives the next name, or NULL. */
static const char *next_entry(struct rig *r, size_t *at, uint64_t *off)
{
	static char name[1024];
	struct fuse_dirent d;

	if (*at == r->len)
		return NULL;
	rig_get(r, &d, sizeof(d), *at);
	check(d.namelen > 0 && d.namelen <= RING_NAME_MAX, "%u", d.namelen);
	size_t n = offsetof(struct fuse_dirent, name);

	check(*at + n + d.namelen <= r->len, "a cut entry");
	memcpy(name, r->bytes + *at + n, d.namelen);
	name[d.namelen] = '\0';
	*at += FUSE_DIRENT_ALIGN(n + d.namelen);
	check(d.off > *off, "offsets rise");
	*off = d.off;
	return name;
}

/* Read the whole directory, size bytes at a time; call each() between. Gives
 * how often name was seen, and the number of entries. */
static int walk(struct rig *r, enum rig_dir d, uint32_t size, const char *name,
		int *n, void (*each)(struct rig *r))
{
	uint64_t off = 0;
	int seen = 0;

	*n = 0;
	check_int(rig_opendir(r, r->dirs[d]), 0);
	struct rig_file dir = r->file;

	for (;;) {
		size_t at = 0;
		const char *e;

		check_int(rig_readdir(r, &dir, size, off), 0);
		if (r->len == 0)
			break;
		while ((e = next_entry(r, &at, &off)) != NULL) {
			seen += strcmp(e, name) == 0;
			++*n;
		}
		if (each != NULL)
			each(r);
	}
	rig_release(r, &dir, FUSE_RELEASEDIR);
	return seen;
}

static void test_listing_sizes(void)
{
	static const uint32_t sizes[] = {280, 300, 4096, 65536};
	struct rig *r = rig_create_ready();
	char name[300];
	int n;

	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%.*s%d", i % 250, name_of(250),
			 i);
		fake_key(r->ring, name, RING_HELD, 0, "");
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		check_int(walk(r, KEYS, sizes[i], name, &n, NULL), 1);
		check_int(n, 302);
	}
	check_int(walk(r, ROOT, 32, "ctl", &n, NULL), 1);
	check_int(n, 2 + N_RIG_DIRS);
	check_int(walk(r, PEERS, 40, "self", &n, NULL), 1);
	check_int(n, 2 + 1 + FAKE_NODES);
	check_int(walk(r, ROUTE, 4096, ".", &n, NULL), 1);
	check_int(n, 2);
	rig_destroy(r);
	ok("a listing is complete, whatever the size of the buffer");
}

static void test_listing_offsets(void)
{
	struct rig *r = rig_create_ready();
	struct rig_file dir;

	fake_key(r->ring, "a", RING_HELD, 0, "");
	fake_key(r->ring, "b", RING_HELD, 0, "");
	check_int(rig_opendir(r, r->dirs[KEYS]), 0);
	dir = r->file;
	/* Anywhere before the beginning: nothing has been listed yet. */
	check_int(rig_readdir(r, &dir, 4096, 3), 0);
	check_int(r->len, 0);
	check_int(rig_readdir(r, &dir, 1, 0), 0);
	check_int(r->len, 0);
	check_int(rig_readdir(r, &dir, 4096, 0), 0);
	size_t len = r->len;

	check(len > 0, "four entries");
	check_int(rig_readdir(r, &dir, 4096, 3), 0);
	check_int(r->len, len / 4);
	check_int(rig_readdir(r, &dir, 4096, 4), 0);
	check_int(r->len, 0);
	check_int(rig_readdir(r, &dir, 4096, 5), 0);
	check_int(r->len, 0);
	check_int(rig_readdir(r, &dir, 4096, INT64_MAX), 0);
	check_int(r->len, 0);
	check_int(rig_readdir(r, &dir, 4096, UINT64_MAX), 0);
	check_int(r->len, 0);
	fake_key(r->ring, "c", RING_HELD, 0, "");
	check_int(rig_readdir(r, &dir, 4096, 4), 0);
	check_int(r->len, 0);
	check_int(rig_readdir(r, &dir, 4096, 0), 0);
	check(r->len > len, "from the beginning it is taken anew");
	rig_release(r, &dir, FUSE_RELEASEDIR);
	rig_destroy(r);
	ok("an offset that was never given lists nothing");
}

/* Between two readings: one key goes, one comes. */
static void change_some(struct rig *r)
{
	static int i;
	char name[16];

	snprintf(name, sizeof(name), "old%d", ++i);
	if (fake_at(r->ring, name) != NULL)
		fake_end(r->ring, name);
	snprintf(name, sizeof(name), "new%d", i);
	if (r->ring->n_keys < 200)
		fake_key(r->ring, name, RING_HELD, 0, "");
}

static void test_listing_changes(void)
{
	struct rig *r = rig_create_ready();
	char name[16];
	int n;

	fake_key(r->ring, "stays", RING_HELD, 0, "");
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "old%d", i);
		fake_key(r->ring, name, RING_HELD, 0, "");
	}
	check_int(walk(r, OWNED, 300, "stays", &n, change_some), 1);
	check(n <= 2 + 101, "nothing that came later");
	check_int(rig_opendir(r, r->dirs[OWNED]), 0);
	struct rig_file dir = r->file;

	check_int(rig_readdir(r, &dir, 100, 0), 0);
	while (r->ring->n_keys > 0)
		fake_end(r->ring, r->ring->keys[0]->name);
	check_int(rig_readdir(r, &dir, 65536, 3), 0);
	check_int(r->len, 0);
	rig_release(r, &dir, FUSE_RELEASEDIR);
	rig_destroy(r);
	ok("what stays is listed once, what is gone is not, while others "
	   "change");
}

/* ---- The protocol ---- */

static void test_messages(void)
{
	struct rig *r = rig_create_ready();

	for (uint32_t opcode = 0; opcode < 70; opcode++) {
		bool known = opcode > 0 && opcode <= FUSE_LSEEK;

		if (known && opcode != 7 && opcode != 19)
			continue;
		check_int(rig_ask(r, opcode, FUSE_ROOT_ID, NULL, 0, "name"),
			  ENOSYS);
	}
	check_int(rig_ask(r, CUSE_INIT, FUSE_ROOT_ID, NULL, 0, NULL), EIO);
	check_int(rig_ask(r, UINT32_MAX, FUSE_ROOT_ID, NULL, 0, NULL), ENOSYS);
	check_int(rig_init(r, 7, 31), EIO); /* once is enough */
	struct fuse_in_header head = {.len = 20, .opcode = FUSE_GETATTR};

	check_int(rig_deliver(r, &head, 20), -EIO);
	check_int(rig_deliver(r, &head, 1), -EIO);
	check_int(rig_getattr(r, FUSE_ROOT_ID), 0);
	check_int(rig_ask(r, FUSE_DESTROY, 0, NULL, 0, NULL), 0);
	rig_destroy(r);
	ok("unknown requests are ENOSYS, a cut message ends no other");
}

static void test_init(void)
{
	struct rig *r = rig_create_raw();

	check_int(rig_getattr(r, FUSE_ROOT_ID), EIO);
	check_int(rig_init(r, 6, 0), EPROTO);
	rig_destroy(r);
	r = rig_create_raw();
	check_int(rig_init(r, 8, 0), 0);
	struct fuse_init_out out;

	rig_get(r, &out, sizeof(out), 0);
	check_int(out.major, FUSE_KERNEL_VERSION);
	rig_destroy(r);
	r = rig_create_raw();
	check_int(rig_init(r, 7, 99), 0);
	rig_get(r, &out, sizeof(out), 0);
	check(out.flags & FUSE_ATOMIC_O_TRUNC, "flags %x", out.flags);
	check(!(out.flags & (FUSE_DO_READDIRPLUS | FUSE_WRITEBACK_CACHE)),
	      "flags %x", out.flags);
	check(out.max_write >= 65536, "a note in one write");
	check_int(rig_getattr(r, FUSE_ROOT_ID), 0);
	rig_destroy(r);
	ok("nothing is served before INIT, and no readdirplus or cache wanted");
}

static void test_forgets(void)
{
	struct rig *r = rig_create_ready();
	struct fuse_batch_forget_in in = {.count = 2};
	struct fuse_forget_one one[2] = {{FUSE_ROOT_ID, 1},
					 {12345, UINT64_MAX}};

	fake_key(r->ring, "k", RING_HELD, 0, "");
	uint64_t ino = rig_ino(r, OWNED, "k");

	rig_forget(r, ino, 1);
	rig_forget(r, ino, UINT64_MAX);
	rig_begin(r, FUSE_BATCH_FORGET, 0);
	rig_put(r, &in, sizeof(in));
	rig_put(r, one, sizeof(one));
	check_int(rig_send(r), RIG_WAITS);
	check_int(rig_getattr(r, ino), 0);
	rig_destroy(r);
	ok("what is forgotten is still there");
}

static void test_rest(void)
{
	struct rig *r = rig_create_ready();
	struct fuse_access_in access_in = {.mask = 7};
	struct fuse_kstatfs st;

	fake_key(r->ring, "k", RING_HELD, 0, "note");
	check_int(rig_ask(r, FUSE_STATFS, FUSE_ROOT_ID, NULL, 0, NULL), 0);
	rig_get(r, &st, sizeof(st), 0);
	check(st.blocks > 0 && st.bfree > 0, "df shows it");
	check_int(st.namelen, 255);
	check_int(st.files, st.ffree + 1);
	check_int(rig_ask(r, FUSE_ACCESS, FUSE_ROOT_ID, &access_in,
			  sizeof(access_in), NULL),
		  ENOSYS);
	check_int(rig_opendir(r, r->dirs[KEYS]), 0);
	struct rig_file dir = r->file;

	check_int(rig_fsync(r, &dir, FUSE_FSYNCDIR), 0);
	rig_release(r, &dir, FUSE_RELEASEDIR);
	check_int(rig_open(r, rig_ino(r, OWNED, "k"), O_RDONLY), 0);
	struct rig_file f = r->file;
	struct fuse_flush_in flush_in = {.fh = f.fh};

	check_int(rig_fsync(r, &f, FUSE_FSYNC), 0);
	check_int(rig_ask(r, FUSE_FLUSH, f.ino, &flush_in, sizeof(flush_in),
			  NULL),
		  ENOSYS);
	rig_close(r, &f);
	rig_destroy(r);
	ok("statfs, fsync and flush answer");
}

int main(void)
{
	test_long_names();
	test_all_bytes();
	test_xattrs();
	test_xattr_lists();
	test_listing_sizes();
	test_listing_offsets();
	test_listing_changes();
	test_messages();
	test_init();
	test_forgets();
	test_rest();
	return 0;
}
