/* SPDX-License-Identifier: MIT */
/* Each life in which a member deleted something leaves a gc version behind, by
 * which those who were away are found to be stale. Kept for ever, they would fill
 * every digest, and the table in the end. So of one member only the newest
 * lives_max of such lives are listed, and older ones retired.
 *
 * This loses nothing: who is stale by a retired life was away, and forgotten,
 * when its tombstones were collected; so he was when those of the lives after it
 * were, and is stale by each of these too, unless he had their records, and then
 * somebody who could have told him so has talked with him meanwhile.
 *
 * It is the same on all members, as the newest n of a union are, whatever was
 * joined first. Meanwhile their hashes differ, which costs a digest; and who came
 * too late to know a retired life must not be stale to one who still lists it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/mem.h"
#include "gossip/scuttlebutt_impl.h"

static bool is_spent(const struct sb_source *src)
{
	return src->gc > 0 && src->n_records == 0 && src->gc <= src->max;
}

bool sb_is_past(const struct sb *s, const struct gossip_id *id, uint64_t life)
{
	size_t at = 0;
	uint32_t n = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		n += is_spent(src) && src->life > life &&
		     gossip_id_equal(&src->id, id);
	return n >= s->config.lives_max && s->walk != SB_RESET;
}

/* By member, the newest life first. */
static int by_life(const void *a, const void *b)
{
	const struct sb_source *x = *(struct sb_source *const *)a;
	const struct sb_source *y = *(struct sb_source *const *)b;
	int rc = memcmp(&x->id, &y->id, sizeof(x->id));

	return rc != 0 ? rc : (x->life < y->life) - (x->life > y->life);
}

static size_t find_spent(const struct sb *s, struct sb_source **list)
{
	size_t at = 0, n = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (is_spent(src))
			list[n++] = src;
	qsort(list, n, sizeof(struct sb_source *), by_life);
	return n;
}

static void set_retired(struct sb *s, struct sb_source *src, bool is_retired)
{
	if (src->is_retired == is_retired)
		return;
	src->is_retired = is_retired;
	src->is_told = false;
	s->vector_is_known = false;
	s->stats.n_retired += is_retired;
}

void sb_retire(struct sb *s)
{
	if (!s->may_retire || s->walk != SB_AT_REST)
		return;
	s->may_retire = false;
	struct sb_source **list = xmalloc(s->sources.n * sizeof(*list));
	size_t n = find_spent(s, list), nth = 0;

	for (size_t i = 0; i < n; i++) {
		nth = i > 0 && gossip_id_equal(&list[i]->id, &list[i - 1]->id)
			      ? nth + 1
			      : 0;
		set_retired(s, list[i],
			    nth >= s->config.lives_max && list[i] != s->own);
	}
	free(list);
}
