/* SPDX-License-Identifier: MIT */
#include "fs/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ring/ring.h" /* RING_NAME_MAX, RING_OPS_MAX */

static const struct verb {
	const char *word;
	enum batch_verb verb;
	bool token; /* its first argument is a token */
	const char *usage, *help;
} verbs[] = {
	{"claim", BATCH_CLAIM, false, "claim K", "claim K for this node"},
	{"submit", BATCH_SUBMIT, false, "submit K",
	 "add K, to be worked on by its ring owner"},
	{"finish", BATCH_FINISH, false, "finish K",
	 "finish K, if this node holds it"},
	{"finish-at", BATCH_FINISH, true, "finish-at T K",
	 "finish K, if its token is still T"},
	{"force", BATCH_FORCE, false, "force K",
	 "finish K, whichever node holds it"},
	{"force-at", BATCH_FORCE, true, "force-at T K",
	 "the same, if its token is still T"},
	{"take-at", BATCH_TAKE, true, "take-at T K",
	 "take K from recover, if its token is still T"},
	{"give-at", BATCH_GIVE, true, "give-at T K",
	 "give K back, if its token is still T"},
	{"park-at", BATCH_PARK, true, "park-at T K",
	 "park K, if its token is still T"},
	{"join", BATCH_ADMIN, false, "join ADDR:PORT",
	 "get to know the member there"},
	{"leave", BATCH_ADMIN, false, "leave [force]",
	 "leave the cluster, and unmount"},
	{"stay", BATCH_ADMIN, false, "stay", "do not leave after all"},
	{"drain", BATCH_ADMIN, false, "drain",
	 "own nothing and claim nothing; finish what is held"},
	{"resume", BATCH_ADMIN, false, "resume",
	 "stay, and own and claim again"},
	{"weight", BATCH_ADMIN, false, "weight W",
	 "take another share of the ring, 0 to 10000"},
	{"forget", BATCH_ADMIN, false, "forget NAME",
	 "forget a dead or left member"},
	{"key-add", BATCH_ADMIN, false, "key-add [LINE]",
	 "add a key, of a key file's line or a new one"},
	{"key-use", BATCH_ADMIN, false, "key-use ID",
	 "seal with that key from now on"},
	{"key-remove", BATCH_ADMIN, false, "key-remove ID",
	 "remove a key that is not in use"},
};

#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

void batch_init(struct batch *b, bool whole)
{
	*b = (struct batch){.whole = whole};
}

void batch_finish(struct batch *b)
{
	free(b->base);
	b->base = NULL;
}

void batch_reset(struct batch *b)
{
	batch_finish(b);
	batch_init(b, b->whole);
}

/* Lines that were read make room: what is left is less than one line. */
static void forget_read(struct batch *b)
{
	if (b->whole || b->at == 0)
		return;
	memmove(b->base, b->base + b->at, b->len - b->at);
	b->len -= b->at;
	b->at = 0;
}

/* Room for n more bytes, and for the NUL behind the last record. */
static int reserve(struct batch *b, size_t n)
{
	if (n > BATCH_BYTES_MAX - b->len)
		return -EFBIG;
	size_t need = b->len + n + 1;
	if (need <= b->cap)
		return 0;
	size_t cap = b->cap < 4096 ? 4096 : b->cap;
	while (cap < need)
		cap *= 2;
	char *base = realloc(b->base, cap);
	if (base == NULL)
		return -ENOMEM; /* untested: needs a machine out of memory */
	b->base = base;
	b->cap = cap;
	return 0;
}

static size_t count(const char *bytes, size_t n, char wanted)
{
	size_t found = 0;
	const char *end = bytes + n;

	while ((bytes = memchr(bytes, wanted, (size_t)(end - bytes)))) {
		found++;
		if (++bytes == end)
			break;
	}
	return found;
}

/* Bytes behind the last newline. */
static size_t tail_len(const struct batch *b)
{
	const char *nl = memrchr(b->base, '\n', b->len);

	return nl ? b->len - (size_t)(nl - b->base) - 1 : b->len;
}

int batch_feed(struct batch *b, const void *bytes, size_t n)
{
	assert(!b->ended);
	if (n == 0)
		return 0;
	forget_read(b);
	int rc = reserve(b, n);
	if (rc != 0)
		return rc;
	memcpy(b->base + b->len, bytes, n);
	b->len += n;
	if (!b->whole)
		return tail_len(b) > BATCH_LINE_MAX ? -EINVAL : 0;

	/* Over the limit with newlines, a NUL that comes later could still make
	 * few names of them; but the first of these would be far too long. */
	b->n_newlines += count(bytes, n, '\n');
	b->n_nuls += count(bytes, n, '\0');
	size_t records = b->n_nuls ? b->n_nuls : b->n_newlines;
	return records > BATCH_OPS_MAX + 1 ? -EFBIG : 0; /* 1: the bare verb */
}

void batch_end(struct batch *b)
{
	assert(b->whole);
	b->ended = true;
}

static char separator(const struct batch *b)
{
	return b->n_nuls > 0 ? '\0' : '\n';
}

/* The record at b->at as a string of *len bytes, without stepping over it: NULL
 * if it is not complete. */
static char *record(const struct batch *b, char sep, size_t *len)
{
	if (b->at == b->len)
		return NULL;
	char *start = b->base + b->at;
	char *end = memchr(start, sep, b->len - b->at);
	if (end == NULL) {
		if (!b->ended)
			return NULL;
		end = b->base + b->len;
	}
	*len = (size_t)(end - start);
	return start;
}

static void step_over(struct batch *b, char *start, size_t len)
{
	start[len] = '\0'; /* reserve() has kept a byte for the last one */
	b->at += len + 1;
	if (b->at > b->len)
		b->at = b->len;
}

static const struct verb *find_verb(const char *word, size_t len)
{
	for (size_t i = 0; i < N_VERBS; i++) {
		if (strlen(verbs[i].word) == len &&
		    memcmp(verbs[i].word, word, len) == 0)
			return &verbs[i];
	}
	return NULL;
}

/* At the start of a whole batch: is there a bare verb that takes names? */
static void read_header(struct batch *b)
{
	size_t len, nul_len;
	char *start = record(b, '\n', &len);

	if (start == NULL)
		return;
	if (record(b, '\0', &nul_len) && nul_len < len)
		len = nul_len;
	const struct verb *verb = find_verb(start, len);
	if (verb == NULL || verb->token || verb->verb == BATCH_ADMIN)
		return;
	b->named = true;
	b->verb = verb->verb;
	step_over(b, start, len);
}

static int check_name(const char *name, size_t len)
{
	if (len > RING_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || name[0] == '.' || memchr(name, '/', len) ||
	    memchr(name, '\0', len))
		return -EINVAL;
	return 0;
}

/* A decimal number above 0 and the space behind it. Gives what follows. */
static char *read_token(char *s, const char *end, uint64_t *token)
{
	uint64_t value = 0;

	for (; s < end && *s >= '0' && *s <= '9'; s++) {
		if (value > (UINT64_MAX - 9) / 10)
			return NULL;
		value = value * 10 + (uint64_t)(*s - '0');
	}
	if (value == 0 || s == end || *s != ' ')
		return NULL;
	*token = value;
	return s + 1;
}

/* A verb with its arguments. */
static int read_line(char *s, size_t len, struct batch_item *item)
{
	char *end = s + len;
	char *space = memchr(s, ' ', len);
	const struct verb *verb =
		find_verb(s, space == NULL ? len : (size_t)(space - s));
	if (verb == NULL || (space == NULL && verb->verb != BATCH_ADMIN))
		return -EINVAL;
	char *name = space == NULL ? end : space + 1;
	if (verb->verb == BATCH_ADMIN)
		item->admin = verb->word;
	if (verb->token) {
		name = read_token(name, end, &item->token);
		if (name == NULL)
			return -EINVAL;
	}
	item->verb = verb->verb;
	item->name = name;
	item->len = (size_t)(end - name);
	return 1;
}

int batch_next(struct batch *b, struct batch_item *item)
{
	size_t len;

	if (b->whole && !b->ended)
		return 0;
	if (b->whole && b->at == 0)
		read_header(b);
	*item = (struct batch_item){.verb = b->verb};
	char *start = record(b, separator(b), &len);
	if (start == NULL)
		return 0;
	if (len > BATCH_LINE_MAX)
		return -EINVAL;
	step_over(b, start, len);
	if (b->named) {
		item->name = start;
		item->len = len;
	} else if (read_line(start, len, item) < 0) {
		return -EINVAL;
	}
	if (item->admin == NULL)
		item->rc = check_name(item->name, item->len);
	return 1;
}

size_t batch_n_ops(const struct batch_item *item)
{
	if (item->rc != 0 || item->verb == BATCH_ADMIN)
		return 0;
	return item->verb == BATCH_SUBMIT ? 2 : 1; /* and the offer */
}

static bool is_forced(const struct batch_item *item)
{
	return item->verb == BATCH_FORCE;
}

size_t batch_part(const struct batch_item *items, size_t n, size_t *n_ops)
{
	size_t i, sum = 0;

	for (i = 0; i < n; i++) {
		size_t more = batch_n_ops(&items[i]);

		if (more > RING_OPS_MAX - sum ||
		    is_forced(&items[i]) != is_forced(&items[0]))
			break;
		sum += more;
	}
	*n_ops = sum;
	return i;
}

void batch_answer(const struct batch *b, const struct batch_item *item, int rc,
		  struct text *out)
{
	char sep = separator(b);

	text_puts(out, batch_errno_name(rc));
	text_add(out, " ", 1);
	text_add(out, item->name, item->len);
	text_add(out, &sep, 1);
}

void batch_help(struct text *out)
{
	for (size_t i = 0; i < N_VERBS; i++)
		text_printf(out, "%-14s %s\n", verbs[i].usage, verbs[i].help);
}

const char *batch_errno_name(int err)
{
	switch (err < 0 ? -err : err) {
	case 0:
		return "ok";
	case EAGAIN:
		return "EAGAIN";
	case EBUSY:
		return "EBUSY";
	case ECANCELED:
		return "ECANCELED";
	case ECONNRESET:
		return "ECONNRESET";
	case EEXIST:
		return "EEXIST";
	case EFBIG:
		return "EFBIG";
	case EHOSTUNREACH:
		return "EHOSTUNREACH";
	case EINTR:
		return "EINTR";
	case EINVAL:
		return "EINVAL";
	case ENAMETOOLONG:
		return "ENAMETOOLONG";
	case ENOENT:
		return "ENOENT";
	case ENOSPC:
		return "ENOSPC";
	case EPERM:
		return "EPERM";
	case EREMOTE:
		return "EREMOTE";
	case EROFS:
		return "EROFS";
	case ESTALE:
		return "ESTALE";
	case ETIMEDOUT:
		return "ETIMEDOUT";
	default:
		return "EIO";
	}
}
