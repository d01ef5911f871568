/* SPDX-License-Identifier: MIT */
/* An LMDB file, read without LMDB, as if an enemy had written it: with pread,
 * nothing is followed that was not looked at, nothing is read twice, and the
 * work is bounded by the size of the file.
 *
 * The format is LMDB 0.9's data version 1 with 64-bit words in the order of the
 * machine: two meta pages, of which the one with the higher transaction id
 * counts; B-trees of pages that begin with a header of 16 bytes:
 *
 *	page    8 number, 2 unused, 2 flags, 2 lower, 2 upper; then offsets of
 *	        nodes, 2 each, up to lower; nodes from upper to the page's end.
 *	        An overflow page has no nodes, but a value and what follows it.
 *	node    leaf: 4 data size, 2 flags, 2 key size, key, data (or, if the
 *	        flags say so, the 8-byte number of its overflow page)
 *	        branch: 6 child page, 2 key size, key
 *	tree    4 unused, 2 flags, 2 depth, 8 branch, 8 leaf, 8 overflow pages,
 *	        8 entries, 8 root
 *	meta    page header, 4 magic, 4 version, 8 address, 8 map size, tree of
 *	        free pages (its unused word is the page size), tree of records,
 *	        8 last page, 8 transaction id */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gossip/mem.h"
#include "gossip/records.h"
#include "gossip/records_format.h"

#define PAGE_HEAD    16
#define NODE_HEAD    8
#define PAGE_BRANCH  1
#define PAGE_LEAF    2
#define PAGE_META    8
#define NODE_LARGE   1 /* its value is on overflow pages */
#define MAGIC	     0xbeefc0de
#define DATA_VERSION 1
#define DEPTH_MAX    32
#define META_BYTES   (PAGE_HEAD + 24 + 2 * 48 + 16)

struct reader {
	int fd;
	uint64_t file_bytes;
	uint64_t page_bytes;
	uint64_t n_left; /* pages that may yet be read: no circles */
	uint64_t root, txn;
	unsigned depth;
	uint8_t *pages; /* one of each level */
	const struct records_load *load;
	const char *what;
	uint32_t n; /* items, and the sum of their XXH3 */
	uint64_t sum;
	bool has_meta;
	uint32_t format, n_wanted;
	uint64_t sum_wanted;
};

static uint64_t word(const uint8_t *at, unsigned n)
{
	uint64_t v8 = 0;
	uint32_t v4 = 0;
	uint16_t v2 = 0;

	if (n == 8)
		memcpy(&v8, at, 8);
	else if (n == 4)
		memcpy(&v4, at, 4);
	else
		memcpy(&v2, at, 2);
	return v8 + v4 + v2;
}

static int damaged(struct reader *r, const char *what)
{
	r->what = what;
	return -EUCLEAN;
}

static int read_at(struct reader *r, void *bytes, size_t n, uint64_t offset)
{
	uint8_t *to = bytes;

	if (offset > r->file_bytes || n > r->file_bytes - offset)
		return damaged(r, "the file is too short");
	while (n > 0) {
		ssize_t got = pread(r->fd, to, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return damaged(r, "the file is too short");
		to += got;
		offset += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

/* ---- Items ---- */

static void take_meta(struct reader *r, struct bytes_in in)
{
	r->format = bytes_u32(&in);
	r->n_wanted = bytes_u32(&in);
	r->sum_wanted = bytes_u64(&in);
	r->has_meta = !in.bad && bytes_left(&in) == 0;
}

/* One with a wrong checksum is left out; that it is missing shows in the
 * end. */
static void take(struct reader *r, struct bytes_in key, struct bytes_in value)
{
	const uint8_t *k = key.at;
	size_t key_len = bytes_left(&key);
	uint64_t sum = bytes_u64(&value);

	if (value.bad || key_len == 0 ||
	    sum != records_sum(k, key_len, value.at, bytes_left(&value)))
		return;
	if (*k == 'm' && key_len == 1)
		take_meta(r, value);
	if (*k != 'i' || key_len != RECORDS_KEY_BYTES)
		return;
	struct records_item item = {
		.kind = k[1], .bytes = value.at, .len = bytes_left(&value)};
	for (unsigned i = 2; i < RECORDS_KEY_BYTES; i++)
		item.index = item.index << 8 | k[i];
	r->n++;
	r->sum += sum;
	r->load->on_item(r->load->data, &item);
}

/* ---- Pages ---- */

struct node {
	struct bytes_in key;
	const uint8_t *data; /* leaf: within the page */
	uint64_t len;	     /* of the value, wherever it is */
	uint64_t child;	     /* branch: page */
	bool is_large;
};

/* Node i of a page, every byte of it within the page. */
static bool get_node(const struct reader *r, const uint8_t *page, size_t i,
		     struct node *node)
{
	uint64_t offset = word(page + PAGE_HEAD + 2 * i, 2);
	bool is_leaf = word(page + 10, 2) == PAGE_LEAF;

	if (offset < PAGE_HEAD || offset + NODE_HEAD > r->page_bytes)
		return false;
	const uint8_t *at = page + offset;
	uint64_t left = r->page_bytes - offset - NODE_HEAD;
	uint64_t key_len = word(at + 6, 2);
	if (key_len > left)
		return false;
	node->key = bytes_in_of(at + NODE_HEAD, key_len);
	if (!is_leaf) {
		node->child = word(at, 4) | word(at + 4, 2) << 32;
		return true;
	}
	node->len = word(at, 4);
	node->data = at + NODE_HEAD + key_len;
	node->is_large = word(at + 4, 2) == NODE_LARGE;
	return word(at + 4, 2) <= NODE_LARGE &&
	       (node->is_large ? 8 : node->len) <= left - key_len;
}

static int take_large(struct reader *r, const struct node *node)
{
	uint64_t number = word(node->data, 8);

	if (number < 2 || number >= r->file_bytes / r->page_bytes ||
	    node->len > RECORDS_ITEM_MAX + 8)
		return damaged(r, "a large value makes no sense");
	uint64_t n_pages = (PAGE_HEAD - 1 + node->len) / r->page_bytes + 1;
	if (n_pages > r->n_left)
		return damaged(r, "pages are used twice");
	r->n_left -= n_pages;
	uint8_t *bytes = xmalloc(node->len + 1);
	int rc = read_at(r, bytes, node->len,
			 number * r->page_bytes + PAGE_HEAD);
	if (rc == 0)
		take(r, node->key, bytes_in_of(bytes, node->len));
	free(bytes);
	return rc;
}

static int read_page(struct reader *r, uint64_t number, unsigned level)
{
	uint8_t *page = r->pages + level * r->page_bytes;
	unsigned kind = level + 1 == r->depth ? PAGE_LEAF : PAGE_BRANCH;

	if (number < 2 || number >= r->file_bytes / r->page_bytes)
		return damaged(r, "there is no such page");
	if (r->n_left == 0)
		return damaged(r, "pages are used twice");
	r->n_left--;
	int rc = read_at(r, page, r->page_bytes, number * r->page_bytes);
	if (rc != 0)
		return rc;
	uint64_t lower = word(page + 12, 2);
	if (word(page, 8) != number || word(page + 10, 2) != kind ||
	    lower < PAGE_HEAD || lower % 2 != 0 || lower > r->page_bytes)
		return damaged(r, "a page is not what it was");
	return 0;
}

/* The page and all below. What is damaged is left out, and the rest read. */
static int walk(struct reader *r, uint64_t number, unsigned level)
{
	const uint8_t *page = r->pages + level * r->page_bytes;
	int first_rc = read_page(r, number, level);

	if (first_rc != 0)
		return first_rc;
	size_t n = (word(page + 12, 2) - PAGE_HEAD) / 2;
	for (size_t i = 0; i < n; i++) {
		struct node node = {0};
		int rc = 0;

		if (!get_node(r, page, i, &node))
			rc = damaged(r, "a record makes no sense");
		else if (level + 1 < r->depth)
			rc = walk(r, node.child, level + 1);
		else if (node.is_large)
			rc = take_large(r, &node);
		else
			take(r, node.key, bytes_in_of(node.data, node.len));
		if (rc != 0)
			first_rc = rc;
	}
	return first_rc;
}

/* ---- The file ---- */

static bool get_meta(const uint8_t *at, unsigned i)
{
	return word(at, 8) == i && word(at + 10, 2) == PAGE_META &&
	       word(at + 16, 4) == MAGIC && word(at + 20, 4) == DATA_VERSION;
}

static int read_metas(struct reader *r)
{
	uint8_t meta[2][META_BYTES];
	int rc = read_at(r, meta[0], META_BYTES, 0);

	if (rc != 0)
		return rc;
	if (!get_meta(meta[0], 0))
		return damaged(r, "it is no LMDB file");
	r->page_bytes = word(meta[0] + 40, 4);
	if (r->page_bytes < 512 || r->page_bytes > 65536 ||
	    (r->page_bytes & (r->page_bytes - 1)) != 0)
		return damaged(r, "the size of a page makes no sense");
	rc = read_at(r, meta[1], META_BYTES, r->page_bytes);
	if (rc != 0)
		return rc;
	if (!get_meta(meta[1], 1) ||
	    word(meta[1] + 40, 4) != word(meta[0] + 40, 4))
		return damaged(r, "a meta page is not what it was");
	bool is_second = word(meta[1] + 144, 8) > word(meta[0] + 144, 8);
	const uint8_t *tree = meta[is_second] + 88;
	r->txn = word(meta[is_second] + 144, 8);
	/* Transaction n writes meta page n % 2, and leaves n - 1 in the
	 * other. */
	if (r->txn > 0 && (r->txn % 2 != is_second ||
			   word(meta[!is_second] + 144, 8) != r->txn - 1))
		return damaged(r, "a transaction is missing");
	r->depth = (unsigned)word(tree + 6, 2);
	r->root = word(tree + 40, 8);
	return r->depth > DEPTH_MAX ? damaged(r, "the tree makes no sense") : 0;
}

static int check_census(struct reader *r)
{
	if (!r->has_meta)
		return damaged(r, "it does not say what is in it");
	if (r->format != RECORDS_FORMAT)
		return -EPROTONOSUPPORT;
	if (r->n != r->n_wanted || r->sum != r->sum_wanted)
		return damaged(r, "something is missing or old");
	return 0;
}

static int read_file(struct reader *r)
{
	int rc = read_metas(r);

	if (rc != 0 || r->txn == 0 || r->depth == 0)
		return rc != 0 ? rc : damaged(r, "there is nothing in it");
	r->n_left = r->file_bytes / r->page_bytes;
	r->pages = xmalloc(r->depth * r->page_bytes);
	rc = walk(r, r->root, 0);
	free(r->pages);
	return rc != 0 ? rc : check_census(r);
}

int records_read(const char *path, const struct records_load *load,
		 const char **what)
{
	struct reader r = {.load = load};
	struct stat st;

	*what = "";
	r.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (r.fd < 0)
		return -errno;
	int rc = fstat(r.fd, &st) != 0 ? -errno : 0;
	if (rc == 0 && !S_ISREG(st.st_mode))
		rc = damaged(&r, "it is no regular file");
	if (rc == 0) {
		r.file_bytes = (uint64_t)st.st_size;
		rc = read_file(&r);
	}
	if (rc == -EUCLEAN)
		*what = r.what;
	close(r.fd);
	return rc;
}
