/* SPDX-License-Identifier: MIT */
/* The language of ctl: a stream of bytes to verbs, keys and answers.
 *
 * Two forms (interface.md 2.6), chosen by how the file was opened:
 *
 *   lines   write-only: each complete line is a verb with its arguments. What
 *           follows the last newline waits for the rest of its line.
 *   whole   read-write: nothing is looked at before batch_end(). The first
 *           record may be a bare `claim`, `submit`, `finish` or `force`: then all
 *           that follow are names. Else each record is a verb with its arguments.
 *           Records end with a NUL if the batch contains one (the first may
 *           end with a newline all the same), else with a newline; the last
 *           may end with nothing.
 *
 * A key's name is all that follows one space: it may hold spaces, and, between
 * NULs, newlines. Pieces may be cut anywhere. Knows nothing of rings and files.
 * Thread: any. */
#ifndef FS_BATCH_H
#define FS_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/text.h"

#define BATCH_LINE_MAX	(4096 + 255)	   /* bytes in a record */
#define BATCH_BYTES_MAX (50 * 1024 * 1024) /* in a whole batch */
#define BATCH_OPS_MAX	200000		   /* operations it may become */

enum batch_verb {
	BATCH_CLAIM,
	BATCH_SUBMIT,
	BATCH_FINISH,
	BATCH_TAKE,
	BATCH_GIVE,
	BATCH_PARK,
	BATCH_FORCE, /* finish, whichever node holds it */
	BATCH_ADMIN, /* of the node, about no key: item.admin says which */
};

/* What is asked for about one key. */
struct batch_item {
	enum batch_verb verb;
	uint64_t token;	  /* of the verbs that end in -at; else 0 */
	const char *name; /* borrowed from the batch; ended by a NUL. Of
			   * BATCH_ADMIN: all that follows, and may be empty */
	size_t len;
	const char *admin; /* the verb's word, which lives for ever; or NULL */
	int rc; /* 0; -EINVAL, -ENAMETOOLONG: the name cannot be a key's. Others
		 * are the caller's, and mean as well: nothing is to be done */
};

struct batch {
	char *base; /* records, a NUL is put behind each when it is read */
	size_t len, cap;
	size_t at; /* where the next record begins */
	size_t n_newlines, n_nuls;
	bool whole, ended, named; /* named: records are names, for verb */
	enum batch_verb verb;
};

/* An empty stream, in the whole form or in that of lines. */
void batch_init(struct batch *b, bool whole);
/* Release what it holds. */
void batch_finish(struct batch *b);
/* As after batch_init(): forget all that was fed and not read. */
void batch_reset(struct batch *b);

/* Take the next n bytes; copied. 0; else nothing more can come of this stream:
 * -EINVAL  a line over BATCH_LINE_MAX
 * -EFBIG   over BATCH_BYTES_MAX, or more records than BATCH_OPS_MAX
 * -ENOMEM */
int batch_feed(struct batch *b, const void *bytes, size_t n);

/* Nothing more will be fed: begin to read a whole batch. */
void batch_end(struct batch *b);

/* The next item. 1; 0 when there is none (yet); -EINVAL: no such verb, bad
 * arguments, or a record over BATCH_LINE_MAX. */
int batch_next(struct batch *b, struct batch_item *item);

/* How many operations of the ring item becomes: 0, 1 or 2. */
size_t batch_n_ops(const struct batch_item *item);

/* The first of n items, as many as one request of the ring can take, which is
 * RING_OPS_MAX operations, and all BATCH_FORCE or none: gives their number, above
 * 0 if n is, and how many operations they become. */
size_t batch_part(const struct batch_item *items, size_t n, size_t *n_ops);

/* The answer to item, ended as the batch's records are: "ok K", "EEXIST K". */
void batch_answer(const struct batch *b, const struct batch_item *item, int rc,
		  struct text *out);

/* The verbs, one line of help each. */
void batch_help(struct text *out);

/* "EEXIST" for -EEXIST and EEXIST, "ok" for 0; "EIO" for what has no name in
 * interface.md 2.5. */
const char *batch_errno_name(int err);

#endif
