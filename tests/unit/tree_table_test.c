/* SPDX-License-Identifier: MIT */
/* The table of interface.md 2, cell by cell, in the states of a larger cluster:
 * keys of another node, keys that are to be released, parked ones. */
#include "tests/unit/tree_rig.h"

/* What may be done to one entry of a directory: the errno of each. */
struct row {
	enum rig_dir dir;
	const char *entry;
	const char *text; /* that reading gives; NULL: not empty */
	bool listed;
	int create, mknod;	    /* of another name in that directory */
	int open_write, open_trunc; /* of the entry, like all that follows */
	int resize, touch;
	int chmod_same, chmod_other, chown;
	int unlink;
};

/* clang-format off */
static const struct row rows[] = {
	{KEYS, "held", "note", true, 0, 0, EEXIST, EEXIST,
	 EEXIST, EEXIST, 0, EPERM, EPERM, 0},
	{KEYS, "remote", "note", true, 0, 0, EEXIST, EEXIST,
	 EEXIST, EEXIST, 0, EPERM, EPERM, EREMOTE},
	{KEYS, "offered", "note", true, 0, 0, EEXIST, EEXIST,
	 EEXIST, EEXIST, 0, EPERM, EPERM, 0},
	{KEYS, "parked", "note", true, 0, 0, EEXIST, EEXIST,
	 EEXIST, EEXIST, 0, EPERM, EPERM, 0},
	{OWNED, "held", "note", true, EPERM, EPERM, 0, 0,
	 0, EPERM, 0, EPERM, EPERM, 0},
	{OWNED, "releasing", "note", true, EPERM, EPERM, 0, 0,
	 0, EPERM, 0, EPERM, EPERM, 0},
	{RECOVER, "offered", "note", true, EPERM, EPERM, EPERM, EPERM,
	 EPERM, EPERM, 0, EPERM, EPERM, 0},
	{RELEASE, "releasing", "two\n", true, EPERM, EPERM, EPERM, EPERM,
	 EPERM, EPERM, EPERM, EPERM, EPERM, 0},
	{PARKED, "parked", "note", true, EPERM, EPERM, EPERM, EPERM,
	 EPERM, EPERM, 0, EPERM, EPERM, 0},
	{PEERS, "two", NULL, true, EPERM, EPERM, EPERM, EPERM,
	 EPERM, EPERM, EPERM, EPERM, EPERM, EBUSY},
	{STATUS, "state", "ready\n", true, EPERM, EPERM, EPERM, EPERM,
	 EPERM, EPERM, EPERM, EPERM, EPERM, EPERM},
	{ROOT, "ctl", NULL, true, EPERM, EPERM, 0, 0,
	 0, EPERM, EPERM, EPERM, EPERM, EPERM},
};
/* clang-format on */

enum {
	N_ROWS = sizeof(rows) / sizeof(rows[0])
};

/* One key in each state; all but `remote` are ours, `releasing` and `remote`
 * have node two as their heir. */
static struct rig *stocked(void)
{
	struct rig *r = rig_create_ready();

	fake_key(r->ring, "held", RING_HELD, 0, "note");
	fake_key(r->ring, "offered", RING_OFFERED, 0, "note");
	fake_key(r->ring, "releasing", RING_RELEASING, 0, "note");
	fake_key(r->ring, "parked", RING_PARKED, RING_NONE, "note");
	fake_key(r->ring, "remote", RING_HELD, 1, "note");
	return r;
}

static void expect(const struct row *row, const char *what, int got, int want)
{
	check(got == want, "%s of %s/%s: %s, want %s", what,
	      rig_names[row->dir], row->entry, strerror(got), strerror(want));
}

/* Is name among the entries of d? */
static bool is_listed(struct rig *r, enum rig_dir d, const char *name)
{
	check_int(rig_opendir(r, r->dirs[d]), 0);
	struct rig_file dir = r->file;

	check_int(rig_readdir(r, &dir, 8192, 0), 0);
	bool found = memmem(r->bytes, r->len, name, strlen(name)) != NULL;

	rig_release(r, &dir, FUSE_RELEASEDIR);
	return found;
}

static void close_if_open(struct rig *r, int error)
{
	struct rig_file f = r->file;

	if (error == 0)
		rig_close(r, &f);
}

static void try_reading(struct rig *r, const struct row *row)
{
	uint64_t ino = rig_ino(r, row->dir, row->entry);

	check(is_listed(r, row->dir, row->entry) == row->listed, "%s",
	      row->entry);
	check_int(rig_getattr(r, ino), 0);
	check_int(r->attr.mode, S_IFREG | 0644);
	check_int(r->attr.nlink, 1);
	check_int(r->attr.ino, ino);
	uint64_t size = r->attr.size;

	check_int(rig_cat(r, ino), 0);
	if (row->text != NULL)
		expect(row, "text", strcmp((char *)r->bytes, row->text), 0);
	else
		check(r->len > 0, "%s is empty", row->entry);
	check_int(r->len, size);
	check_int(rig_ask(r, FUSE_READLINK, ino, NULL, 0, NULL), EINVAL);
}

static void try_creating(struct rig *r, const struct row *row)
{
	uint64_t dir = r->dirs[row->dir];
	int error = rig_create(r, dir, "fresh", O_WRONLY);

	expect(row, "create", error, row->create);
	close_if_open(r, error);
	expect(row, "mknod", rig_mknod(r, dir, "other", S_IFREG | 0644),
	       row->mknod);
	expect(row, "mkfifo", rig_mknod(r, dir, "fifo", S_IFIFO | 0644), EPERM);
	if (row->create == 0) {
		error = rig_create(r, dir, row->entry, O_WRONLY);
		expect(row, "create anew", error, EEXIST);
	}
}

static void try_changing(struct rig *r, const struct row *row)
{
	uint64_t ino = rig_ino(r, row->dir, row->entry);

	expect(row, "touch", rig_touch(r, ino), row->touch);
	expect(row, "chmod 644", rig_chmod(r, ino, 0100644), row->chmod_same);
	expect(row, "chmod", rig_chmod(r, ino, 0100600), row->chmod_other);
	expect(row, "chown", rig_chown(r, ino, 4711), row->chown);
	expect(row, "truncate", rig_resize(r, ino, 2, NULL), row->resize);
	int error = rig_open(r, ino, O_RDWR);

	expect(row, "open for writing", error, row->open_write);
	close_if_open(r, error);
	error = rig_open(r, ino, O_WRONLY | O_TRUNC);
	expect(row, "open with O_TRUNC", error, row->open_trunc);
	close_if_open(r, error);
	expect(row, "setxattr", rig_setxattr(r, ino, "user.ring.token"), EPERM);
	expect(row, "setfacl", rig_setxattr(r, ino, "system.posix_acl_access"),
	       EOPNOTSUPP);
	expect(row, "removexattr",
	       rig_ask(r, FUSE_REMOVEXATTR, ino, NULL, 0, "user.ring.token"),
	       EPERM);
}

static void try_removing(struct rig *r, const struct row *row)
{
	uint64_t dir = r->dirs[row->dir];
	bool names = row->dir != STATUS && row->dir != ROOT;

	expect(row, "unlink of nothing", rig_unlink(r, dir, "nothing"),
	       names ? ENOENT : EPERM);
	expect(row, "unlink", rig_unlink(r, dir, row->entry), row->unlink);
	check(rig_has(r, row->dir, row->entry) == (row->unlink != 0),
	      "%s after unlink", row->entry);
}

static void test_rows(void)
{
	static void (*const tries[])(struct rig * r, const struct row *row) = {
		try_reading, try_creating, try_changing, try_removing};

	for (size_t i = 0; i < N_ROWS; i++) {
		for (size_t j = 0; j < sizeof(tries) / sizeof(tries[0]); j++) {
			struct rig *r = stocked();

			tries[j](r, &rows[i]);
			rig_destroy(r);
		}
	}
	ok("each directory allows what its line of the table says, and no "
	   "more");
}

static void test_what_unlink_does(void)
{
	struct rig *r = stocked();

	check_int(rig_unlink(r, r->dirs[RELEASE], "releasing"), 0);
	check_int(fake_get(r->ring, "releasing")->holder, 1);
	check_int(fake_get(r->ring, "releasing")->state, RING_OFFERED);
	check(!rig_has(r, OWNED, "releasing") && rig_has(r, KEYS, "releasing"),
	      "the heir has it");
	check_int(rig_unlink(r, r->dirs[OWNED], "held"), 0);
	check_int(rig_unlink(r, r->dirs[RECOVER], "offered"), 0);
	check_int(rig_unlink(r, r->dirs[PARKED], "parked"), 0);
	check_int(r->ring->n_keys, 2);
	rig_destroy(r);
	ok("rm lets go in release/ and finishes elsewhere");
}

static void test_nowhere(void)
{
	struct rig *r = stocked();
	struct fuse_mkdir_in mkdir_in = {.mode = 0755};
	struct fuse_link_in link_in = {.oldnodeid = rig_ino(r, OWNED, "held")};

	for (int d = 0; d <= ROOT; d++) {
		uint64_t dir = r->dirs[d];

		if (d == CTL)
			continue;
		check_int(rig_ask(r, FUSE_MKDIR, dir, &mkdir_in,
				  sizeof(mkdir_in), "d"),
			  EPERM);
		check_int(rig_ask(r, FUSE_LINK, dir, &link_in, sizeof(link_in),
				  "l"),
			  EPERM);
		check_int(rig_ask(r, FUSE_SYMLINK, dir, "s", 2, "target"),
			  EPERM);
		check_int(rig_ask(r, FUSE_RMDIR, dir, NULL, 0, "keys"), EPERM);
		check_int(rig_chmod(r, dir, 0700), EPERM);
		check_int(rig_touch(r, dir), EPERM);
		check_int(rig_setxattr(r, dir, "user.x"), EPERM);
		check_int(rig_getxattr(r, dir, "user.x", 0), ENODATA);
		check_int(rig_listxattr(r, dir, 0), 0);
	}
	rig_destroy(r);
	ok("no directory can be made, linked, removed or changed");
}

static void test_directories(void)
{
	struct rig *r = stocked();

	for (int d = 0; d <= ROOT; d++) {
		bool writable = d == KEYS || d == OWNED || d == RECOVER ||
				d == RELEASE || d == PARKED || d == SUBMIT ||
				d == PEERS;

		if (d == CTL)
			continue;
		check_int(rig_getattr(r, r->dirs[d]), 0);
		check_int(r->attr.mode, S_IFDIR | 0755);
		check_int(r->attr.uid, RIG_OWNER);
		check_int(r->attr.ino, r->dirs[d]);
		check_int(rig_unlink(r, r->dirs[d], "nothing"),
			  writable && d != SUBMIT ? ENOENT : EPERM);
	}
	for (int d = 0; d < ROOT; d++)
		for (int e = 0; e < d; e++)
			check(r->dirs[d] != r->dirs[e], "one number for two");
	check_int(rig_lookup(r, FUSE_ROOT_ID, "nothing"), ENOENT);
	check(is_listed(r, ROOT, "release") && is_listed(r, ROOT, "ctl"),
	      "the root lists its directories");
	check(!is_listed(r, RECOVER, "held") &&
		      !is_listed(r, OWNED, "remote") &&
		      !is_listed(r, RELEASE, "held"),
	      "what is not shown is not listed");
	struct fuse_open_in in = {.flags = O_RDONLY};

	check_int(rig_ask(r, FUSE_OPENDIR, rig_ino(r, OWNED, "held"), &in,
			  sizeof(in), NULL),
		  ENOTDIR);
	check_int(rig_lookup(r, rig_ino(r, OWNED, "held"), "x"), ENOTDIR);
	rig_destroy(r);
	ok("directories are the mount owner's, 0755, each with its own number");
}

static void test_links(void)
{
	struct rig *r = stocked();
	uint64_t self = rig_ino(r, PEERS, "self");

	check_int(r->attr.mode, S_IFLNK | 0777);
	check_int(rig_ask(r, FUSE_READLINK, self, NULL, 0, NULL), 0);
	check(strcmp((char *)r->bytes, "one") == 0, "%s", r->bytes);
	check_int(rig_unlink(r, r->dirs[PEERS], "self"), EBUSY);
	check_int(rig_ask(r, FUSE_READLINK, rig_ino(r, ROUTE, "remote"), NULL,
			  0, NULL),
		  0);
	check(strcmp((char *)r->bytes, "../peers/two") == 0, "%s", r->bytes);
	check(rig_ino(r, ROUTE, "a") != rig_ino(r, ROUTE, "ab"), "two names");
	uint64_t ino = rig_ino(r, ROUTE, "held");

	check(!rig_has(r, ROUTE, "!nobody"), "a name without owner");
	check(!is_listed(r, ROUTE, "held"), "route/ lists nothing");
	check_int(rig_create(r, r->dirs[ROUTE], "x", O_WRONLY), EPERM);
	check_int(rig_unlink(r, r->dirs[ROUTE], "held"), EPERM);
	r->ring->owners['h'] = 2;
	check_int(rig_ask(r, FUSE_READLINK, ino, NULL, 0, NULL), 0);
	check(strcmp((char *)r->bytes, "../peers/three") == 0, "%s", r->bytes);
	r->ring->owners['h'] = RING_NONE;
	check_int(rig_ask(r, FUSE_READLINK, ino, NULL, 0, NULL), ENOENT);
	check_int(rig_getattr(r, ino), ESTALE);
	r->ring->self = RING_NONE;
	check(!rig_has(r, PEERS, "self"), "not one of them yet");
	rig_destroy(r);
	ok("route/K follows the ring owner, peers/self is this node");
}

static void test_submit(void)
{
	struct rig *r = stocked();

	check_int(rig_create(r, r->dirs[SUBMIT], "mine", O_WRONLY), 0);
	struct rig_file f = r->file;

	check(rig_has(r, KEYS, "mine") && !rig_has(r, RECOVER, "mine"),
	      "not offered yet");
	check(rig_has(r, SUBMIT, "mine") && !is_listed(r, SUBMIT, "mine"),
	      "there for install(1), but not listed");
	check_int(rig_create(r, r->dirs[SUBMIT], "mine", O_WRONLY), EEXIST);
	check_int(rig_create(r, r->dirs[KEYS], "mine", O_WRONLY), EEXIST);
	check_int(rig_pwrite(r, &f, "work", 4, 0), 0);
	rig_close(r, &f);
	check(rig_says(r, rig_ino(r, RECOVER, "mine"), "work"), "offered");
	r->boot_ms += 999;
	check(rig_has(r, SUBMIT, "mine"), "a second long");
	r->boot_ms += 1;
	check(!rig_has(r, SUBMIT, "mine"), "and no longer");
	check_int(rig_create(r, r->dirs[SUBMIT], "rmine", O_WRONLY), 0);
	f = r->file;
	rig_close(r, &f);
	check_int(fake_get(r->ring, "rmine")->holder, 1);
	check(!rig_has(r, RECOVER, "rmine"), "another's");
	check_int(rig_mknod(r, r->dirs[SUBMIT], "whole", S_IFREG), 0);
	check(rig_has(r, RECOVER, "whole"), "nothing will be closed");
	check_int(rig_unlink(r, r->dirs[SUBMIT], "mine"), EPERM);
	rig_destroy(r);
	ok("a submission is seen at once and offered at the last close");
}

/* An offer that is refused is repeated until it is answered. */
static void test_offer_again(void)
{
	struct rig *r = stocked();

	check_int(rig_create(r, r->dirs[SUBMIT], "mine", O_WRONLY), 0);
	struct rig_file f = r->file;

	r->ring->refuse = -EROFS;
	rig_close(r, &f);
	check(!rig_has(r, RECOVER, "mine"), "refused");
	r->ring->refuse = 0;
	r->ring->status.health = RING_ISOLATED;
	tree_on_status(r->tree);
	rig_turn(r);
	check(!rig_has(r, RECOVER, "mine"), "not while isolated");
	r->ring->status.health = RING_READY;
	tree_on_status(r->tree);
	rig_turn(r);
	check(rig_has(r, RECOVER, "mine"), "offered now");
	check_int(rig_create(r, r->dirs[SUBMIT], "doubt", O_WRONLY), 0);
	f = r->file;
	r->ring->refuse = -ETIMEDOUT;
	rig_close(r, &f);
	r->ring->refuse = 0;
	rig_turn(r);
	check(rig_has(r, RECOVER, "doubt"), "repeated at once");
	rig_destroy(r);
	ok("an offer nobody waits for is repeated until there is an answer");
}

/* ---- Renames ---- */

/* The outcome of `mv FROM/entry TO/`: an errno, or the state it leads to. */
enum {
	NO = EPERM,
	TO_HELD = 1000 + RING_HELD,
	TO_OFFERED = 1000 + RING_OFFERED,
	TO_PARKED = 1000 + RING_PARKED,
};

struct move {
	enum rig_dir from;
	const char *entry;
	int to[N_RIG_DIRS + 1]; /* by enum rig_dir */
};

/* clang-format off */
static const struct move moves[] = {
	/*                     keys owned    recover     rel park       sub
	 *                     peers route status ctl root */
	{KEYS, "held",	      {NO, NO,	    NO,		NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
	{OWNED, "held",	      {NO, NO,	    TO_OFFERED, NO, TO_PARKED, NO,
			       NO, NO, NO, NO, NO}},
	{OWNED, "releasing",  {NO, NO,	    TO_OFFERED, NO, TO_PARKED, NO,
			       NO, NO, NO, NO, NO}},
	{RECOVER, "offered",  {NO, TO_HELD, NO,		NO, TO_PARKED, NO,
			       NO, NO, NO, NO, NO}},
	{RELEASE, "releasing",{NO, NO,	    NO,		NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
	{PARKED, "parked",    {NO, NO,	    TO_OFFERED, NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
	{PEERS, "two",	      {NO, NO,	    NO,		NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
	{ROUTE, "held",	      {NO, NO,	    NO,		NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
	{STATUS, "state",     {NO, NO,	    NO,		NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
	{ROOT, "ctl",	      {NO, NO,	    NO,		NO, NO,	       NO,
			       NO, NO, NO, NO, NO}},
};
/* clang-format on */

static void try_move(const struct move *m, enum rig_dir to)
{
	struct rig *r = stocked();
	uint64_t from = r->dirs[m->from];
	uint64_t ino = rig_ino(r, m->from, m->entry);
	int want = m->to[to];
	int error = rig_rename(r, from, m->entry, r->dirs[to], "other");

	check(error == EPERM, "under another name: %s", strerror(error));
	error = rig_rename2(r, from, m->entry, r->dirs[to], RENAME_EXCHANGE);
	check(error == EINVAL || error == EPERM, "exchange: %d", error);
	error = rig_rename(r, from, m->entry, r->dirs[to], m->entry);
	check(error == (want >= 1000 ? 0 : want), "%s/%s to %s: %s",
	      rig_names[m->from], m->entry, rig_names[to], strerror(error));
	if (want >= 1000) {
		struct ring_key *key = fake_get(r->ring, m->entry);

		check_int(key->state, want - 1000);
		key->backoff_ms = 0;
		check(!rig_has(r, m->from, m->entry), "it has moved");
		if (m->to[to] != TO_OFFERED || key->holder == 0)
			check(rig_ino(r, to, m->entry) == ino,
			      "it keeps its number");
		error = rig_rename(r, from, m->entry, r->dirs[to], m->entry);
		check_int(error, ENOENT);
	} else {
		check(rig_has(r, m->from, m->entry), "it is still there");
	}
	rig_destroy(r);
}

static void test_moves(void)
{
	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++)
		for (int to = 0; to <= ROOT; to++)
			if (to != CTL)
				try_move(&moves[i], to);
	struct rig *r = stocked();

	check_int(rig_rename2(r, r->dirs[RECOVER], "offered", r->dirs[OWNED],
			      RENAME_NOREPLACE),
		  0);
	check_int(
		rig_rename(r, r->dirs[OWNED], "held", r->dirs[RECOVER], "held"),
		0);
	check(!rig_has(r, RECOVER, "held"), "not before its back-off is over");
	check_int(rig_rename(r, r->dirs[OWNED], "nothing", r->dirs[RECOVER],
			     "nothing"),
		  ENOENT);
	check_int(rig_rename(r, r->dirs[OWNED], "remote", r->dirs[RECOVER],
			     "remote"),
		  ENOENT);
	rig_destroy(r);
	ok("keys move between owned, recover and parked as the table says");
}

/* ---- Whose ---- */

static void test_foreign_users(void)
{
	static const struct {
		enum rig_dir dir;
		const char *entry;
	} all[] = {{KEYS, "held"},
		   {OWNED, "held"},
		   {RECOVER, "offered"},
		   {RELEASE, "releasing"},
		   {PARKED, "parked"}};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct rig *r = stocked();
		uint64_t dir = r->dirs[all[i].dir];

		r->uid = 2000;
		check_int(rig_unlink(r, dir, all[i].entry), EPERM);
		check_int(rig_rename(r, r->dirs[RECOVER], "offered",
				     r->dirs[OWNED], "offered"),
			  EPERM);
		r->uid = 0;
		check_int(rig_unlink(r, dir, all[i].entry), 0);
		rig_destroy(r);
	}
	struct rig *r = stocked();

	r->uid = r->gid = 2000;
	check_int(rig_create(r, r->dirs[KEYS], "his", O_WRONLY), 0);
	struct rig_file f = r->file;

	check_int(r->attr.uid, 2000);
	check_int(r->attr.gid, 2000);
	rig_close(r, &f);
	check_int(rig_rename(r, r->dirs[OWNED], "his", r->dirs[RECOVER], "his"),
		  0);
	check_int(rig_getattr(r, rig_ino(r, KEYS, "his")), 0);
	check_int(r->attr.uid, RIG_OWNER);
	fake_get(r->ring, "his")->backoff_ms = 0;
	check_int(rig_unlink(r, r->dirs[RECOVER], "his"), 0);
	rig_destroy(r);
	ok("keys are finished and moved by their claimer, the owner and root");
}

/* While isolated, nothing is shown as held; keys/ is still the truth. */
static void test_isolated(void)
{
	struct rig *r = stocked();
	uint64_t ino = rig_ino(r, OWNED, "held");

	for (size_t i = 0; i < r->ring->n_keys; i++)
		r->ring->keys[i]->hidden = 1;
	check(!rig_has(r, OWNED, "held") && !rig_has(r, RECOVER, "offered") &&
		      !rig_has(r, RELEASE, "releasing"),
	      "they are not there");
	check(!is_listed(r, OWNED, "held") && !is_listed(r, RECOVER, "offered"),
	      "nor listed");
	check(rig_has(r, KEYS, "held") && rig_has(r, PARKED, "parked"),
	      "these are");
	check_int(rig_unlink(r, r->dirs[OWNED], "held"), ENOENT);
	check_int(rig_rename(r, r->dirs[RECOVER], "offered", r->dirs[OWNED],
			     "offered"),
		  ENOENT);
	check_int(rig_getattr(r, ino), 0);
	rig_destroy(r);
	ok("keys that are hidden answer no lookup, listing, unlink or rename");
}

int main(void)
{
	test_rows();
	test_what_unlink_does();
	test_nowhere();
	test_directories();
	test_links();
	test_submit();
	test_offer_again();
	test_moves();
	test_foreign_users();
	test_isolated();
	return 0;
}
