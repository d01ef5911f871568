/* SPDX-License-Identifier: MIT */
/* history_check [--bound-ms MS] [--late-ms MS] [--away FILE] FILE: may callers have been told
 * all this? Status 0, or 1 with a line for each thing that cannot be.
 *
 * FILE is by history.c, in any order. WHAT is one of
 *
 *	claim submit     a life of the key begins
 *	finish           it ends
 *	take let park retry   the key gets a new token; give does not
 *	note read        TEXT: what tells the note from all others
 *	see              shown in TEXT, owned or recover, with TOKEN
 *	owned recover    in a listing
 *	last shown       the same in the end: see history.c
 *	hash             TEXT, at index TOKEN
 *	hung             TEXT never ended
 *	stall            the machine was too busy to say how long anything took
 *
 * and --away has lines NODE BEGIN END, when node n<NODE> had nobody to answer.
 *
 * Rules:
 *	1 lives        claims and finishes of a key alternate in some order that
 *	               agrees with time. Those with an unknown outcome may have
 *	               taken effect later, or never: a claim within --late-ms,
 *	               a finish only on a life that it can have seen; and what
 *	               came to be by an unknown claim may end by itself.
 *	2 tokens       each is of one node, and who sees a token sees no lower one
 *	               after it, wherever.
 *	3 windows      between two sights of a token nothing changes it, and no
 *	               other node lists the key.
 *	4 notes        who reads finds no note older than one that was confirmed.
 *	5 the end      all nodes know the same, as the lives have it; one shows it.
 *	6 hashes       at one index there is one.
 *	7 times        no call took longer than the bound, and none is left; no
 *	               errors but those of the tree. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_SIZE 40
#define OPEN_MAX  64 /* of one key, at one time */
#define AWAY_SLOP 300000000

enum what {
	CLAIM,
	SUBMIT,
	FINISH,
	TAKE,
	LET,
	PARK,
	RETRY,
	GIVE,
	NOTE,
	READ,
	SEE,
	OWNED,
	RECOVER,
	LAST,
	SHOWN,
	HASH,
	HUNG,
	STALL,
	N_WHATS
};
static const char *const whats[N_WHATS] = {
	"claim",   "submit", "finish", "take", "let",  "park",
	"retry",   "give",   "note",   "read", "see",  "owned",
	"recover", "last",   "shown",  "hash", "hung", "stall",
};

struct op {
	uint64_t begin, end, token;
	enum what what;
	int err;
	unsigned line;
	char node[TEXT_SIZE], key[TEXT_SIZE], text[TEXT_SIZE];
};

struct away {
	char node[TEXT_SIZE];
	uint64_t begin, end;
};

static struct op *ops;
static size_t n_ops;
static struct away *aways;
static size_t n_aways;
static unsigned n_bad;
static uint64_t bound_ns = UINT64_C(4000000000);
static uint64_t late_ns = UINT64_C(30000000000);

static void *grow(void *base, size_t n, size_t size)
{
	if (n != 0 && (n < 64 || (n & (n - 1)) != 0))
		return base;
	base = realloc(base, (n < 64 ? 64 : 2 * n) * size);
	if (base == NULL)
		abort();
	return base;
}

static void tell(const struct op *op)
{
	printf("    line %u: %" PRIu64 " .. %" PRIu64 " %s %s %s: %s", op->line,
	       op->begin / 1000, op->end / 1000, op->node, whats[op->what],
	       op->key, op->err == 0 ? "done" : strerror(op->err));
	if (op->token != 0)
		printf(", token %" PRIu64, op->token);
	printf("%s%s\n", strcmp(op->text, "-") != 0 ? ", " : "",
	       strcmp(op->text, "-") != 0 ? op->text : "");
}

static void bad(const char *rule, const struct op *a, const struct op *b)
{
	if (++n_bad > 40)
		return;
	printf("%s\n", rule);
	if (a != NULL)
		tell(a);
	if (b != NULL)
		tell(b);
}

/* The caller does not know whether it has happened. */
static bool is_unknown(const struct op *op)
{
	switch (op->err) {
	case ETIMEDOUT:
	case EINTR:
	case EIO:
	case ECONNABORTED: /* ENOTCONN: it was dead before */
	case ENODEV:
	case ECANCELED:
		return true;
	default:
		return op->what == HUNG;
	}
}

static bool begins_life(const struct op *op)
{
	return op->what == CLAIM || op->what == SUBMIT;
}

/* ---- Reading ---- */

static enum what what_of(const char *word, const char *file, unsigned line)
{
	for (int i = 0; i < N_WHATS; i++)
		if (strcmp(word, whats[i]) == 0)
			return (enum what)i;
	if (strcmp(word, "stat") == 0 || strcmp(word, "list") == 0 ||
	    strcmp(word, "batch") == 0)
		return HUNG;
	fprintf(stderr, "%s:%u: no such operation: %s\n", file, line, word);
	exit(2);
}

static FILE *open_file(const char *name)
{
	FILE *f = fopen(name, "r");

	if (f == NULL) {
		perror(name);
		exit(2);
	}
	return f;
}

static void read_history(const char *name)
{
	FILE *f = open_file(name);
	char line[1024], word[TEXT_SIZE];

	for (unsigned n = 1; fgets(line, sizeof(line), f) != NULL; n++) {
		struct op op = {.line = n};

		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line,
			   "%" SCNu64 " %" SCNu64 " %39s %39s %39s %d %" SCNu64
			   " %39s",
			   &op.begin, &op.end, op.node, word, op.key, &op.err,
			   &op.token, op.text) != 8 ||
		    op.end < op.begin) {
			fprintf(stderr, "%s:%u: not an operation\n", name, n);
			exit(2);
		}
		op.what = what_of(word, name, n);
		ops = grow(ops, n_ops, sizeof(*ops));
		ops[n_ops++] = op;
	}
	fclose(f);
}

static void read_away(const char *name)
{
	FILE *f = open_file(name);
	struct away a;
	unsigned k;

	while (fscanf(f, "%u %" SCNu64 " %" SCNu64, &k, &a.begin, &a.end) ==
	       3) {
		snprintf(a.node, sizeof(a.node), "n%u", k);
		aways = grow(aways, n_aways, sizeof(*aways));
		aways[n_aways++] = a;
	}
	fclose(f);
}

static bool was_away(const struct op *op)
{
	for (size_t i = 0; i < n_aways; i++)
		if (strcmp(aways[i].node, op->node) == 0 &&
		    op->begin <= aways[i].end + AWAY_SLOP &&
		    aways[i].begin <= op->end + AWAY_SLOP)
			return true;
	return false;
}

/* By key, and then by time. */
static int compare(const void *a, const void *b)
{
	const struct op *x = a, *y = b;
	int c = strcmp(x->key, y->key);

	if (c != 0)
		return c;
	return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1)
				    : (x->end > y->end) - (x->end < y->end);
}

/* ---- 1: lives ---- */

/* A way it may have been: those of the open operations that have taken effect,
 * the life there is (an operation, or one of the two below), and how many of the
 * unknown claims were needed. */
#define ABSENT	SIZE_MAX
#define UNKNOWN (SIZE_MAX - 1)

struct way {
	uint64_t done;
	size_t life;
	unsigned used;
};

struct lives {
	const struct op *ops; /* of one key */
	size_t n;
	size_t open[OPEN_MAX];
	uint64_t is_open; /* bits of open */
	struct way *ways;
	size_t n_ways;
	unsigned n_unknown; /* claims that have begun */
};

static void add_way(struct lives *l, struct way way)
{
	for (size_t i = 0; i < l->n_ways; i++)
		if (l->ways[i].done == way.done &&
		    l->ways[i].life == way.life && l->ways[i].used <= way.used)
			return;
	l->ways = grow(l->ways, l->n_ways, sizeof(*l->ways));
	l->ways[l->n_ways++] = way;
}

/* May an unknown claim take effect now, or may it have since the oldest of those
 * that are open began? */
static bool may_begin(const struct lives *l, uint64_t now)
{
	uint64_t since = now;

	for (unsigned o = 0; o < OPEN_MAX; o++)
		if (l->is_open >> o & 1 && l->ops[l->open[o]].begin < since)
			since = l->ops[l->open[o]].begin;
	for (size_t i = 0; i < l->n && l->ops[i].begin <= now; i++)
		if (begins_life(&l->ops[i]) && is_unknown(&l->ops[i]) &&
		    since <= l->ops[i].end + late_ns)
			return true;
	return false;
}

/* May the life have ended by a finish that nobody knows of, before now? */
static bool may_end(const struct lives *l, size_t life, uint64_t now)
{
	if (life == UNKNOWN)
		return true;
	for (size_t i = 0; i < l->n && l->ops[i].begin <= now; i++)
		if (l->ops[i].what == FINISH && is_unknown(&l->ops[i]) &&
		    l->ops[i].end >= l->ops[life].begin)
			return true;
	return false;
}

/* All ways that follow from those there are by now. */
static void follow(struct lives *l, uint64_t now)
{
	bool begin = may_begin(l, now);

	for (size_t i = 0; i < l->n_ways; i++) {
		struct way way = l->ways[i];

		for (unsigned o = 0; o < OPEN_MAX; o++) {
			uint64_t bit = UINT64_C(1) << o;

			if (!(l->is_open & bit) || way.done & bit)
				continue;
			bool begins = begins_life(&l->ops[l->open[o]]);

			if (begins == (way.life == ABSENT))
				add_way(l, (struct way){way.done | bit,
							begins ? l->open[o]
							       : ABSENT,
							way.used});
		}
		if (way.life == ABSENT && way.used < l->n_unknown && begin)
			add_way(l,
				(struct way){way.done, UNKNOWN, way.used + 1});
		if (way.life != ABSENT && may_end(l, way.life, now))
			add_way(l, (struct way){way.done, ABSENT, way.used});
	}
}

/* An operation has ended: only those ways are left in which it has happened. */
static void close_op(struct lives *l, unsigned o, uint64_t now)
{
	const struct op *op = &l->ops[l->open[o]];
	uint64_t bit = UINT64_C(1) << o;
	size_t n = 0;

	follow(l, now);
	for (size_t i = 0; i < l->n_ways; i++)
		if (l->ways[i].done & bit) {
			l->ways[n] = l->ways[i];
			l->ways[n++].done &= ~bit;
		}
	l->n_ways = n;
	if (n == 0) {
		bad(begins_life(op) ? "1: begun while there was one"
				    : "1: finished what was not there",
		    op, NULL);
		add_way(l,
			(struct way){0, begins_life(op) ? l->open[o] : ABSENT,
				     0});
	}
	l->is_open &= ~bit;
}

/* Which open operation ends first, before until? OPEN_MAX: none. */
static unsigned next_end(const struct lives *l, uint64_t until)
{
	unsigned best = OPEN_MAX;

	for (unsigned o = 0; o < OPEN_MAX; o++)
		if (l->is_open >> o & 1 && l->ops[l->open[o]].end < until &&
		    (best == OPEN_MAX ||
		     l->ops[l->open[o]].end < l->ops[l->open[best]].end))
			best = o;
	return best;
}

static void close_until(struct lives *l, uint64_t until)
{
	unsigned o;

	while ((o = next_end(l, until)) != OPEN_MAX)
		close_op(l, o, l->ops[l->open[o]].end);
}

static void open_op(struct lives *l, size_t i)
{
	for (unsigned o = 0; o < OPEN_MAX; o++)
		if (!(l->is_open >> o & 1)) {
			l->open[o] = i;
			l->is_open |= UINT64_C(1) << o;
			return;
		}
	fprintf(stderr, "history_check: too many at once\n");
	exit(2);
}

/* There, or not there, in the end: is there a way to it? */
static void check_end(struct lives *l, const struct op *last)
{
	bool is_there = last->err == 0;

	for (size_t i = 0; i < l->n_ways; i++)
		if ((l->ways[i].life != ABSENT) == is_there)
			return;
	bad(is_there ? "1: there is what was finished"
		     : "1: lost: it was never finished",
	    last, NULL);
}

static void check_lives(const struct op *of, size_t n)
{
	struct lives l = {.ops = of, .n = n};

	add_way(&l, (struct way){0, ABSENT, 0});
	for (size_t i = 0; i < n; i++) {
		const struct op *op = &of[i];

		if (op->what == LAST && (op->err == 0 || op->err == ENOENT)) {
			close_until(&l, op->begin);
			follow(&l, op->begin);
			check_end(&l, op);
		}
		if (!begins_life(op) && op->what != FINISH)
			continue;
		close_until(&l, op->begin);
		if (op->err == 0)
			open_op(&l, i);
		if (!is_unknown(op))
			continue;
		l.n_unknown += begins_life(op);
		follow(&l, op->begin);
	}
	close_until(&l, UINT64_MAX);
	free(l.ways);
}

/* ---- 2 and 3: tokens ---- */

/* Where and when a token was seen: its first and its last sight. */
struct sight {
	uint64_t token;
	const struct op *first; /* of least end */
	const struct op *last;	/* of greatest begin */
};

static int compare_sights(const void *a, const void *b)
{
	const struct sight *x = a, *y = b;

	return (x->token > y->token) - (x->token < y->token);
}

static void add_sight(struct sight **sights, size_t *n, const struct op *op)
{
	for (size_t i = 0; i < *n; i++) {
		struct sight *s = &(*sights)[i];

		if (s->token != op->token)
			continue;
		if (strcmp(s->first->node, op->node) != 0)
			bad("2: one token, two nodes", s->first, op);
		if (op->end < s->first->end)
			s->first = op;
		if (op->begin > s->last->begin)
			s->last = op;
		return;
	}
	*sights = grow(*sights, *n, sizeof(**sights));
	(*sights)[(*n)++] = (struct sight){op->token, op, op};
}

static bool changes_token(const struct op *op)
{
	return op->err == 0 && op->what <= RETRY;
}

static bool is_of_holder(const struct op *op)
{
	return op->err == 0 && (op->what == GIVE || op->what == NOTE ||
				op->what == OWNED || op->what == RECOVER);
}

static void check_window(const struct sight *s, const struct op *of, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (of[i].begin <= s->first->end || of[i].end >= s->last->begin)
			continue;
		if (changes_token(&of[i])) {
			bad("3: changed, and seen unchanged", &of[i], s->last);
		} else if (is_of_holder(&of[i]) &&
			   strcmp(of[i].node, s->first->node) != 0) {
			bad("3: held by two nodes", &of[i], s->last);
			tell(s->first);
		}
	}
}

static void check_tokens(const struct op *of, size_t n)
{
	struct sight *sights = NULL;
	size_t n_sights = 0;

	for (size_t i = 0; i < n; i++)
		if (of[i].what == SEE)
			add_sight(&sights, &n_sights, &of[i]);
	if (n_sights > 0)
		qsort(sights, n_sights, sizeof(*sights), compare_sights);
	const struct op *least = NULL; /* end of all higher tokens' sights */

	for (size_t i = n_sights; i-- > 0;) {
		const struct sight *s = &sights[i];

		if (least != NULL && s->last->begin > least->end)
			bad("2: seen after a higher token", least, s->last);
		if (least == NULL || s->first->end < least->end)
			least = s->first;
		check_window(s, of, n);
	}
	free(sights);
}

/* ---- 4: notes ---- */

static const struct op *find_note(const struct op *of, size_t n,
				  const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (of[i].what == NOTE && strcmp(of[i].text, text) == 0)
			return &of[i];
	return NULL;
}

/* May a life have begun at y or later, before r has ended? */
static bool may_be_new(const struct op *of, size_t n, const struct op *y,
		       const struct op *r)
{
	for (size_t i = 0; i < n; i++)
		if (begins_life(&of[i]) && of[i].begin <= r->end &&
		    (is_unknown(&of[i]) ||
		     (of[i].err == 0 && of[i].end >= y->begin)))
			return true;
	return false;
}

static void check_read(const struct op *of, size_t n, const struct op *r)
{
	bool is_empty = strcmp(r->text, "-") == 0;
	const struct op *x = is_empty ? NULL : find_note(of, n, r->text);

	if (!is_empty && (x == NULL || x->begin > r->end)) {
		bad("4: nobody has written that", r, x);
		return;
	}
	if (x != NULL && x->err != 0)
		return; /* who knows when */
	for (size_t i = 0; i < n; i++) {
		const struct op *y = &of[i];

		if (y->what != NOTE || y->err != 0 || y->end >= r->begin)
			continue;
		if (is_empty ? !may_be_new(of, n, y, r) : y->begin > x->end) {
			bad("4: a note is lost", y, r);
			return;
		}
	}
}

static void check_notes(const struct op *of, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((of[i].what == READ || of[i].what == LAST) &&
		    of[i].err == 0)
			check_read(of, n, &of[i]);
}

/* ---- 5: the end ---- */

static void check_last(const struct op *of, size_t n)
{
	const struct op *last = NULL, *shown = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct op *op = &of[i];

		if (op->what == LAST) {
			if (op->err != 0 && op->err != ENOENT)
				bad("5: cannot be read", op, NULL);
			if (last != NULL &&
			    (last->err != op->err || last->token != op->token ||
			     strcmp(last->text, op->text) != 0))
				bad("5: two nodes know two things", last, op);
			last = op;
		} else if (op->what == SHOWN &&
			   strcmp(op->text, "parked") != 0) {
			if (shown != NULL)
				bad("5: shown twice", shown, op);
			shown = op;
		}
	}
}

/* ---- 6 and 7 ---- */

static int compare_index(const void *a, const void *b)
{
	const struct op *x = *(const struct op *const *)a,
			*y = *(const struct op *const *)b;

	return (x->token > y->token) - (x->token < y->token);
}

static void check_hashes(void)
{
	const struct op **of = calloc(n_ops + 1, sizeof(*of));
	size_t n = 0;

	if (of == NULL)
		abort();
	for (size_t i = 0; i < n_ops; i++)
		if (ops[i].what == HASH)
			of[n++] = &ops[i];
	qsort(of, n, sizeof(*of), compare_index);
	for (size_t i = 1; i < n; i++)
		if (of[i]->token == of[i - 1]->token &&
		    strcmp(of[i]->text, of[i - 1]->text) != 0)
			bad("6: two states at one index", of[i - 1], of[i]);
	free(of);
}

static bool was_stalled(const struct op *op)
{
	for (size_t i = 0; i < n_ops; i++)
		if (ops[i].what == STALL && ops[i].begin <= op->end &&
		    op->begin <= ops[i].end)
			return true;
	return false;
}

static bool may_be_told(const struct op *op)
{
	switch (op->err) {
	case 0:
	case EEXIST:
	case ENOENT:
	case EREMOTE:
	case EROFS:
	case EAGAIN:
	case ETIMEDOUT:
	case EINTR:
		return true;
	case ESTALE:
		return op->what == NOTE || op->what == READ;
	default:
		return false;
	}
}

static void check_times(void)
{
	for (size_t i = 0; i < n_ops; i++) {
		const struct op *op = &ops[i];

		if (op->what == HUNG)
			bad("7: it hangs", op, NULL);
		else if (was_away(op))
			continue;
		else if (!may_be_told(op))
			bad("7: nothing that the tree may say", op, NULL);
		else if (op->end - op->begin > bound_ns && !was_stalled(op))
			bad("7: it took too long", op, NULL);
	}
}

static void summarize(void)
{
	size_t counts[N_WHATS][3] = {{0}};
	uint64_t longest = 0;

	for (size_t i = 0; i < n_ops; i++) {
		const struct op *op = &ops[i];
		bool is_away = was_away(op);

		counts[op->what][op->err == 0 ? 0 : is_unknown(op) ? 1 : 2]++;
		if (!is_away && op->end - op->begin > longest)
			longest = op->end - op->begin;
	}
	printf("%zu operations, the longest %" PRIu64
	       " ms; done/unknown/refused:",
	       n_ops, longest / 1000000);
	for (int i = 0; i < N_WHATS; i++)
		if (counts[i][0] + counts[i][1] + counts[i][2] > 0)
			printf(" %s %zu/%zu/%zu", whats[i], counts[i][0],
			       counts[i][1], counts[i][2]);
	printf("\n");
}

int main(int argc, char **argv)
{
	int i = 1;

	for (; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--bound-ms") == 0)
			bound_ns = strtoull(argv[i + 1], NULL, 10) * 1000000;
		else if (strcmp(argv[i], "--late-ms") == 0)
			late_ns = strtoull(argv[i + 1], NULL, 10) * 1000000;
		else if (strcmp(argv[i], "--away") == 0)
			read_away(argv[i + 1]);
		else
			break;
	}
	if (i != argc - 1) {
		fputs("Usage: history_check [--bound-ms MS] [--late-ms MS] "
		      "[--away FILE] FILE\n",
		      stderr);
		return 64;
	}
	read_history(argv[i]);
	check_times();
	if (n_ops > 0)
		qsort(ops, n_ops, sizeof(*ops), compare);
	for (size_t first = 0, n; first < n_ops; first += n) {
		for (n = 1; first + n < n_ops &&
			    strcmp(ops[first].key, ops[first + n].key) == 0;)
			n++;
		if (strcmp(ops[first].key, "-") == 0)
			continue;
		check_lives(ops + first, n);
		check_tokens(ops + first, n);
		check_notes(ops + first, n);
		check_last(ops + first, n);
	}
	check_hashes();
	summarize();
	free(ops);
	free(aways);
	if (n_bad > 0)
		printf("%u wrong\n", n_bad);
	return n_bad > 0 ? 1 : 0;
}
