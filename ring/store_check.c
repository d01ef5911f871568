/* SPDX-License-Identifier: MIT */
/* A damaged LMDB file, found before LMDB sees it.
 *
 * LMDB trusts its file: pages have no checksum, and it reads them through a
 * map. A flipped bit in a page makes it crash, loop, or lose records without a
 * word; one in its list of free pages makes the next write destroy others; a
 * file cut short, or a sector that cannot be read, ends the program with
 * SIGBUS. So every page in use is read here first, with pread, and everything that
 * LMDB follows is checked: pointers, sizes, order, counts, and that no page is
 * used twice or is both used and free. What the records say is checked in store.c,
 * by their checksums and the checksum over all.
 *
 * The format is LMDB 0.9's data version 1 with 64-bit words in the order of the
 * machine: two meta pages, of which the one with the higher transaction id
 * counts; B-trees of pages that begin with a header of 16 bytes:
 *
 *   page      8 number, 2 unused, 2 flags, 2 lower, 2 upper; in an overflow
 *             page 4 number of pages instead of the last two. Then offsets of
 *             nodes, 2 each, up to lower; nodes from upper to the page's end.
 *   node      leaf: 4 data size, 2 flags, 2 key size, key, data (or, if the
 *             flags say so, the 8-byte number of its overflow page)
 *             branch: 6 child page, 2 key size, key
 *   tree      4 unused, 2 flags, 2 depth, 8 branch, 8 leaf, 8 overflow pages,
 *             8 entries, 8 root
 *   meta      page header, 4 magic, 4 version, 8 address, 8 map size, tree of
 *             free pages (its unused word is the page size), tree of records,
 *             8 last page, 8 transaction id
 *   free list 8 transaction id -> 8 count, then page numbers, falling */
#include "ring/store_check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/mem.h"
#include "ring/ring.h"

#define PAGE_HEAD    16
#define NODE_HEAD    8
#define MAGIC	     0xbeefc0de
#define DATA_VERSION 1
#define DEPTH_MAX    32
#define NO_PAGE	     UINT64_MAX

enum {
	PAGE_BRANCH = 1,
	PAGE_LEAF = 2,
	PAGE_OVERFLOW = 4,
	PAGE_META = 8
};
enum {
	NODE_OVERFLOW = 1
};
enum {
	TREE_INTEGER_KEYS = 8
};

struct tree {
	uint16_t flags, depth;
	uint64_t branches, leaves, overflows, entries, root;
};

struct meta {
	uint32_t page_bytes;
	struct tree free, main;
	uint64_t n_pages, txn;
};

struct key {
	const uint8_t *at; /* NULL: no bound */
	size_t len;
};

struct check {
	int fd;
	const char *path;
	char *errmsg;
	uint64_t file_bytes;
	size_t page_bytes;
	uint64_t n_pages, txn;
	uint8_t *seen;	/* a bit per page: in use, or free */
	uint8_t *page;	/* DEPTH_MAX pages, one for each level */
	uint8_t *taken; /* a byte per two bytes of a page */

	/* The tree being walked. */
	bool is_free_list;
	struct tree found; /* what was counted */
	uint16_t depth;	   /* what its record says */
};

static uint64_t word(const uint8_t *at, size_t n)
{
	uint16_t two;
	uint32_t four;
	uint64_t eight;

	if (n == 2)
		return memcpy(&two, at, 2), two;
	if (n == 4)
		return memcpy(&four, at, 4), four;
	return memcpy(&eight, at, 8), eight;
}

__attribute__((format(printf, 3, 4))) static int
damaged(const struct check *c, uint64_t offset, const char *format, ...)
{
	char what[128];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	snprintf(c->errmsg, RING_ERRMSG_SIZE,
		 "%s: damaged at offset %" PRIu64
		 ": %s; restore the file, or remove the state directory and "
		 "join again as a new node",
		 c->path, offset, what);
	return -EUCLEAN;
}

static int unreadable(const struct check *c, int rc)
{
	snprintf(c->errmsg, RING_ERRMSG_SIZE, "%s: cannot be read: %s", c->path,
		 strerror(-rc));
	return rc;
}

static int read_at(const struct check *c, void *bytes, size_t n,
		   uint64_t offset)
{
	uint8_t *to = bytes;

	if (offset > c->file_bytes || n > c->file_bytes - offset)
		return damaged(c, c->file_bytes, "the file is too short");
	while (n > 0) {
		ssize_t got = pread(c->fd, to, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return unreadable(c, got < 0 ? -errno : -EIO);
		to += got;
		offset += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

/* Pages number to number + n - 1 belong to one thing only. */
static int mark(struct check *c, uint64_t number, uint64_t n)
{
	if (number < 2 || number >= c->n_pages || n > c->n_pages - number)
		return damaged(c, 0, "there is no page %" PRIu64, number);
	for (; n > 0; n--, number++) {
		uint8_t bit = (uint8_t)(1u << number % 8);

		if (c->seen[number / 8] & bit)
			return damaged(c, number * c->page_bytes,
				       "page %" PRIu64 " is used twice",
				       number);
		c->seen[number / 8] |= bit;
	}
	return 0;
}

/* ---- Keys ---- */

static int compare(const struct check *c, struct key a, struct key b)
{
	if (c->is_free_list) {
		uint64_t x = word(a.at, 8), y = word(b.at, 8);

		return (x > y) - (x < y);
	}
	int diff = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);
	return diff != 0 ? diff : (a.len > b.len) - (a.len < b.len);
}

static bool key_is_sound(const struct check *c, struct key key)
{
	if (c->is_free_list)
		return key.len == 8 && word(key.at, 8) <= c->txn;
	return key.len > 0 && key.len <= 511;
}

/* ---- Values ---- */

/* The pages of a large value, and where it begins. */
static int check_overflow(struct check *c, uint64_t number, uint64_t len,
			  uint64_t *offset)
{
	uint8_t head[PAGE_HEAD];
	uint64_t need = (PAGE_HEAD - 1 + len) / c->page_bytes + 1;

	if (number < 2 || number >= c->n_pages)
		return damaged(c, 0, "there is no page %" PRIu64, number);
	*offset = number * c->page_bytes;
	int rc = read_at(c, head, sizeof(head), *offset);
	if (rc != 0)
		return rc;
	uint64_t n = word(head + 12, 4);
	if (word(head, 8) != number || word(head + 10, 2) != PAGE_OVERFLOW ||
	    n < need)
		return damaged(c, *offset, "not the large value that it was");
	rc = mark(c, number, n);
	if (rc != 0)
		return rc;
	if (c->file_bytes < *offset + need * c->page_bytes)
		return damaged(c, c->file_bytes, "the file is too short");
	c->found.overflows += n;
	*offset += PAGE_HEAD;
	return 0;
}

static int check_free_pages(struct check *c, const uint8_t *list, size_t len,
			    uint64_t offset)
{
	uint64_t n = len < 8 ? UINT64_MAX : word(list, 8);
	uint64_t before = UINT64_MAX;

	if (n > len / 8 - 1)
		return damaged(c, offset, "a list of free pages is too short");
	for (uint64_t i = 1; i <= n; i++) {
		uint64_t number = word(list + 8 * i, 8);

		if (number >= before)
			return damaged(c, offset, "free pages in no order");
		before = number;
		int rc = mark(c, number, 1);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int check_large_value(struct check *c, uint64_t number, uint64_t len)
{
	uint64_t offset = 0;
	int rc = check_overflow(c, number, len, &offset);

	if (rc != 0 || !c->is_free_list)
		return rc;
	uint8_t *list = xmalloc(len); /* within the file: checked above */
	rc = read_at(c, list, len, offset);
	if (rc == 0)
		rc = check_free_pages(c, list, len, offset);
	free(list);
	return rc;
}

/* ---- Pages ---- */

struct node {
	struct key key;
	const uint8_t *data;
	uint64_t len;	 /* of the value */
	uint64_t number; /* of the child, or of the overflow page */
	uint16_t flags;
};

/* Node i of a page, its bytes claimed. */
static bool get_node(struct check *c, const uint8_t *page, size_t i,
		     struct node *node)
{
	uint64_t upper = word(page + 14, 2);
	uint64_t offset = word(page + PAGE_HEAD + 2 * i, 2);

	if (offset < upper || offset % 2 != 0 ||
	    offset + NODE_HEAD > c->page_bytes)
		return false;
	const uint8_t *at = page + offset;
	uint64_t bytes = NODE_HEAD + word(at + 6, 2), left, in_page = 0;
	bool leaf = word(page + 10, 2) == PAGE_LEAF;
	node->key = (struct key){at + NODE_HEAD, word(at + 6, 2)};
	node->flags = leaf ? (uint16_t)word(at + 4, 2) : 0;
	node->len = leaf ? word(at, 4) : 0;
	if (leaf)
		in_page = node->flags & NODE_OVERFLOW ? 8 : node->len;
	left = c->page_bytes - offset;
	if (bytes > left || in_page > left - bytes)
		return false;
	node->data = at + bytes;
	if (!leaf)
		node->number = word(at, 4) | word(at + 4, 2) << 32;
	else if (node->flags & NODE_OVERFLOW)
		node->number = word(node->data, 8);
	bytes += in_page;
	for (uint64_t k = offset / 2; k < (offset + bytes + 1) / 2; k++)
		if (c->taken[k]++ != 0)
			return false;
	return true;
}

static int check_leaf_node(struct check *c, const struct node *node,
			   uint64_t offset)
{
	c->found.entries++;
	if (node->flags == NODE_OVERFLOW)
		return check_large_value(c, node->number, node->len);
	if (node->flags != 0)
		return damaged(c, offset, "a record is of an unknown kind");
	if (!c->is_free_list)
		return 0;
	return check_free_pages(c, node->data, node->len, offset);
}

static int read_page(struct check *c, uint64_t number, uint16_t level)
{
	uint8_t *page = c->page + level * c->page_bytes;
	uint64_t offset = number * c->page_bytes;
	unsigned want = level + 1 == c->depth ? PAGE_LEAF : PAGE_BRANCH;
	int rc = mark(c, number, 1);

	if (rc == 0)
		rc = read_at(c, page, c->page_bytes, offset);
	if (rc != 0)
		return rc;
	uint64_t lower = word(page + 12, 2), upper = word(page + 14, 2);
	if (word(page, 8) != number || word(page + 10, 2) != want)
		return damaged(c, offset, "not the page that it was");
	if (lower <= PAGE_HEAD || lower % 2 != 0 || lower > upper ||
	    upper > c->page_bytes)
		return damaged(c, offset, "the page's sizes make no sense");
	memset(c->taken, 0, c->page_bytes / 2);
	if (want == PAGE_LEAF)
		c->found.leaves++;
	else
		c->found.branches++;
	return 0;
}

static int walk(struct check *c, uint64_t number, uint16_t level,
		struct key low, struct key high);

/* Nodes i and i + 1 (after) of a branch: walk what lies between. */
static int check_children(struct check *c, const uint8_t *page, uint16_t level,
			  struct key low, struct key high)
{
	size_t n = (word(page + 12, 2) - PAGE_HEAD) / 2;
	struct node *nodes = xcalloc(n, sizeof(*nodes));
	uint64_t offset = word(page, 8) * c->page_bytes;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < n; i++)
		if (!get_node(c, page, i, &nodes[i]) ||
		    (i > 0 && !key_is_sound(c, nodes[i].key)))
			rc = damaged(c, offset, "a branch makes no sense");
	for (size_t i = 0; rc == 0 && i < n; i++) {
		struct key from = i == 0 ? low : nodes[i].key;
		struct key to = i + 1 == n ? high : nodes[i + 1].key;

		if (from.at && to.at && compare(c, from, to) >= 0)
			rc = damaged(c, offset, "branches in no order");
		else
			rc = walk(c, nodes[i].number, level + 1, from, to);
	}
	free(nodes);
	return rc;
}

static int check_records(struct check *c, const uint8_t *page, struct key low,
			 struct key high)
{
	size_t n = (word(page + 12, 2) - PAGE_HEAD) / 2;
	uint64_t offset = word(page, 8) * c->page_bytes;
	struct key before = {0};
	struct node node;

	for (size_t i = 0; i < n; i++) {
		if (!get_node(c, page, i, &node) || !key_is_sound(c, node.key))
			return damaged(c, offset, "a record makes no sense");
		if ((before.at && compare(c, node.key, before) <= 0) ||
		    (low.at && compare(c, node.key, low) < 0) ||
		    (high.at && compare(c, node.key, high) >= 0))
			return damaged(c, offset, "records in no order");
		before = node.key;
		int rc = check_leaf_node(c, &node, offset);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* The page and all below; its keys are in [low, high). */
static int walk(struct check *c, uint64_t number, uint16_t level,
		struct key low, struct key high)
{
	int rc = read_page(c, number, level);

	if (rc != 0)
		return rc;
	const uint8_t *page = c->page + level * c->page_bytes;
	if (level + 1 == c->depth)
		return check_records(c, page, low, high);
	return check_children(c, page, level, low, high);
}

static int check_tree(struct check *c, const struct tree *t, bool is_free_list)
{
	struct key none = {0};

	c->is_free_list = is_free_list;
	c->found = (struct tree){0};
	c->depth = t->depth;
	if (t->flags != (is_free_list ? TREE_INTEGER_KEYS : 0) ||
	    t->depth >= DEPTH_MAX || (t->depth == 0) != (t->root == NO_PAGE))
		return damaged(c, 0, "the root of a tree makes no sense");
	if (t->depth > 0) {
		int rc = walk(c, t->root, 0, none, none);
		if (rc != 0)
			return rc;
	}
	if (c->found.entries != t->entries || c->found.leaves != t->leaves ||
	    c->found.branches != t->branches ||
	    c->found.overflows != t->overflows)
		return damaged(c, 0, "records or pages are missing");
	return 0;
}

/* ---- Meta pages ---- */

static const uint8_t *get_tree(const uint8_t *at, struct tree *t)
{
	t->flags = (uint16_t)word(at + 4, 2);
	t->depth = (uint16_t)word(at + 6, 2);
	t->branches = word(at + 8, 8);
	t->leaves = word(at + 16, 8);
	t->overflows = word(at + 24, 8);
	t->entries = word(at + 32, 8);
	t->root = word(at + 40, 8);
	return at + 48;
}

static int read_meta(struct check *c, unsigned i, size_t page_bytes,
		     struct meta *m)
{
	uint8_t page[PAGE_HEAD + 24 + 2 * 48 + 16];
	uint64_t offset = i * page_bytes;
	int rc = read_at(c, page, sizeof(page), offset);

	if (rc != 0)
		return rc;
	if (word(page, 8) != i || word(page + 10, 2) != PAGE_META ||
	    word(page + 16, 4) != MAGIC || word(page + 20, 4) != DATA_VERSION)
		return damaged(c, offset, "not the meta page that it was");
	m->page_bytes = (uint32_t)word(page + 40, 4);
	const uint8_t *at = get_tree(page + 40, &m->free);
	at = get_tree(at, &m->main);
	m->n_pages = word(at, 8) + 1;
	m->txn = word(at + 8, 8);
	if (m->page_bytes < 512 || m->page_bytes > 65536 ||
	    (m->page_bytes & (m->page_bytes - 1)) != 0 ||
	    (page_bytes != 0 && m->page_bytes != page_bytes))
		return damaged(c, offset, "the size of a page makes no sense");
	/* The last pages may be free, and not there; but then they are listed,
	 * 8 bytes each. */
	if (m->n_pages < 2 || m->n_pages > c->file_bytes)
		return damaged(c, offset, "the number of pages makes no sense");
	return 0;
}

/* Both metas; *now is the one that counts. */
static int read_metas(struct check *c, struct meta *now)
{
	struct meta m[2];
	int rc = read_meta(c, 0, 0, &m[0]);

	if (rc == 0)
		rc = read_meta(c, 1, m[0].page_bytes, &m[1]);
	if (rc != 0)
		return rc;
	/* Transaction n writes page n % 2; both are 0 when the file is made. */
	bool newer = m[1].txn > m[0].txn;
	uint64_t txn = m[newer].txn;
	if (txn != 0 && (txn % 2 != newer || m[!newer].txn != txn - 1))
		return damaged(c, newer * m[0].page_bytes,
			       "a transaction is missing");
	*now = m[newer];
	return 0;
}

/* The pages beyond the end of the file: each is to be known as free. */
static int check_beyond(const struct check *c)
{
	uint64_t number = c->file_bytes / c->page_bytes;

	for (; number < c->n_pages; number++)
		if (!(c->seen[number / 8] & 1u << number % 8))
			return damaged(c, c->file_bytes,
				       "the file is too short");
	return 0;
}

static int check_file(struct check *c)
{
	struct meta m;
	int rc = read_metas(c, &m);

	if (rc != 0)
		return rc;
	c->page_bytes = m.page_bytes;
	c->n_pages = m.n_pages;
	c->txn = m.txn;
	c->seen = calloc(1, c->n_pages / 8 + 1);
	if (c->seen == NULL)
		return damaged(c, 0, "the number of pages makes no sense");
	c->page = xmalloc(DEPTH_MAX * c->page_bytes);
	c->taken = xmalloc(c->page_bytes / 2 + 1);
	rc = check_tree(c, &m.free, true);
	if (rc == 0)
		rc = check_tree(c, &m.main, false);
	if (rc == 0)
		rc = check_beyond(c);
	free(c->taken);
	free(c->page);
	free(c->seen);
	return rc;
}

int store_check(const char *path, char *errmsg)
{
	struct check c = {.path = path, .errmsg = errmsg};
	struct stat st;
	int rc = 0;

	c.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (c.fd < 0)
		return unreadable(&c, -errno);
	if (fstat(c.fd, &st) != 0) {
		rc = unreadable(&c, -errno);
	} else {
		c.file_bytes = (uint64_t)st.st_size;
		posix_fadvise(c.fd, 0, 0, POSIX_FADV_WILLNEED);
		rc = check_file(&c);
	}
	close(c.fd);
	return rc;
}
