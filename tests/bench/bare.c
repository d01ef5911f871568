/* SPDX-License-Identifier: MIT */
/* The least a file system over libfuse can do: one directory `keys` with a table
 * of names, on the single-threaded loop of libfuse. What ringfs' tree costs is
 * measured against it, with the same timeouts: keys/ itself may be cached for a
 * day, what is in it not at all.
 *
 *   bare MNT N    serves keys/k0 .. k<N-1>, each with the same 20 bytes
 *
 * mknod and unlink answer success and change nothing that is listed, for the
 * herald's rate. */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uthash.h>

#define KEYS_DIR  2
#define FIRST_KEY 16
#define FOR_LONG  86400

static const char note[] = "twenty bytes of note";

struct entry {
	char name[24];
	fuse_ino_t ino;
	UT_hash_handle hh;
};

static struct entry *entries, *by_name;
static size_t n_entries;

static bool stat_of(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){.st_ino = ino};
	if (ino == FUSE_ROOT_ID || ino == KEYS_DIR) {
		st->st_mode = S_IFDIR | 0755;
		st->st_nlink = 2;
		return true;
	}
	st->st_mode = S_IFREG | 0644;
	st->st_nlink = 1;
	st->st_size = sizeof(note) - 1;
	return ino >= FIRST_KEY;
}

static void reply_entry(fuse_req_t req, fuse_ino_t ino)
{
	double timeout = ino == KEYS_DIR ? FOR_LONG : 0;
	struct fuse_entry_param e = {.ino = ino,
				     .generation = 1,
				     .attr_timeout = timeout,
				     .entry_timeout = timeout};

	stat_of(ino, &e.attr);
	fuse_reply_entry(req, &e);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct entry *found;

	if (parent == FUSE_ROOT_ID && strcmp(name, "keys") == 0) {
		reply_entry(req, KEYS_DIR);
		return;
	}
	HASH_FIND_STR(by_name, name, found);
	if (found)
		reply_entry(req, found->ino);
	else
		fuse_reply_err(req, ENOENT);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (stat_of(ino, &st))
		fuse_reply_attr(req, &st, ino < FIRST_KEY ? FOR_LONG : 0);
	else
		fuse_reply_err(req, ENOENT);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = 1;
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	size_t at = (size_t)off;

	(void)ino;
	(void)fi;
	if (at >= sizeof(note) - 1)
		fuse_reply_buf(req, NULL, 0);
	else if (size > sizeof(note) - 1 - at)
		fuse_reply_buf(req, note + at, sizeof(note) - 1 - at);
	else
		fuse_reply_buf(req, note + at, size);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	char *buf = malloc(size);
	size_t used = 0;

	(void)fi;
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t i = (size_t)off; ino == KEYS_DIR && i < n_entries; i++) {
		struct stat st = {.st_ino = entries[i].ino, .st_mode = S_IFREG};
		size_t n =
			fuse_add_direntry(req, buf + used, size - used,
					  entries[i].name, &st, (off_t)(i + 1));
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode, dev_t rdev)
{
	static fuse_ino_t next = UINT32_MAX;

	(void)parent;
	(void)name;
	(void)mode;
	(void)rdev;
	reply_entry(req, ++next);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.readdir = op_readdir,
	.mknod = op_mknod,
	.unlink = op_unlink,
};

static void fill(size_t n)
{
	entries = calloc(n, sizeof(*entries));
	if (!entries && n > 0)
		exit(1);
	for (size_t i = 0; i < n; i++) {
		struct entry *e = &entries[i];

		snprintf(e->name, sizeof(e->name), "k%zu", i);
		e->ino = FIRST_KEY + i;
		HASH_ADD_STR(by_name, name, e);
	}
	n_entries = n;
}

int main(int argc, char **argv)
{
	char *opts[] = {argv[0], (char[]){"-o"},
			(char[]){"fsname=bare,nosuid,nodev,noexec"}};
	struct fuse_args args = FUSE_ARGS_INIT(3, opts);

	if (argc != 3) {
		fprintf(stderr, "usage: bare MNT N\n");
		return 64;
	}
	fill(strtoul(argv[2], NULL, 10));
	struct fuse_session *se =
		fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se || fuse_set_signal_handlers(se) != 0 ||
	    fuse_session_mount(se, argv[1]) != 0)
		return 1;
	fuse_session_loop(se);
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	HASH_CLEAR(hh, by_name);
	free(entries);
	return 0;
}
