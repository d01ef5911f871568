/* SPDX-License-Identifier: MIT */
/* What is kept on disk: dumps of the channels, and the addresses of members. As
 * items of records.h:
 *
 *	kind 0, index 0      addresses, each
 *	                      0  id    16
 *	                     16  ip    16
 *	                     32  port   2   little-endian, like
 *	                     34  seen   8   wall clock, s: the latest are tried
 *	                                    first, and the others make room
 *	kind = a channel's   its dump, piece by piece
 *
 * Written when something has changed, at most once per second, but a new address
 * soon: who is killed right after it joined must know where to return. And at the
 * end; by a worker. A disk that is full costs memory of a restart, nothing else: it
 * is said once, and tried again. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gossip/gossip_impl.h"

#define KIND_PEERS  0
#define PEER_BYTES  42
#define PIECE_BYTES (128u << 10)
#define PAUSE_US    SECOND
#define SOON_US	    (SECOND / 50)
#define FAILED_US   (5 * SECOND)

/* ---- Addresses ---- */

static uint64_t wall_s(void)
{
	return (uint64_t)time(NULL);
}

static int by_seen(const void *a, const void *b)
{
	const struct kept_peer *x = a, *y = b;

	return (x->seen_s < y->seen_s) - (x->seen_s > y->seen_s);
}

static void drop_kept(struct gossip *g, size_t i)
{
	g->kept[i] = g->kept[--g->n_kept];
	g->is_kept_changed = true;
}

void gossip_keep_forget(struct gossip *g, const struct gossip_id *id)
{
	for (size_t i = g->n_kept; i-- > 0;)
		if (gossip_id_equal(&g->kept[i].id, id))
			drop_kept(g, i);
}

/* Of a disk that is full nothing is asked sooner. */
static void keep_soon(struct gossip *g)
{
	uint64_t soon_us = gossip_now_us() + SOON_US;

	if (g->is_full)
		return;
	if (soon_us < g->keep_us)
		g->keep_us = soon_us;
	if (soon_us < g->chores_us)
		g->chores_us = soon_us;
}

/* The one that was seen least recently makes room. */
static struct kept_peer *room_for_one(struct gossip *g)
{
	if (g->kept == NULL)
		g->kept = xcalloc(KEPT_MAX, sizeof(*g->kept));
	if (g->n_kept < KEPT_MAX)
		return &g->kept[g->n_kept++];
	struct kept_peer *oldest = g->kept;
	for (size_t i = 1; i < g->n_kept; i++)
		if (g->kept[i].seen_s < oldest->seen_s)
			oldest = &g->kept[i];
	return oldest;
}

void gossip_keep_peer(struct gossip *g, const struct facts *facts)
{
	struct kept_peer peer = {
		.id = facts->id, .addr = facts->addr, .seen_s = wall_s()};

	for (size_t i = g->n_kept; i-- > 0;) {
		struct kept_peer *p = &g->kept[i];
		bool same_id = gossip_id_equal(&p->id, &peer.id);
		bool same_addr = gossip_addr_equal(&p->addr, &peer.addr);

		if (same_id && same_addr)
			return;
		if (same_id || same_addr) /* it has moved; or lives there now */
			drop_kept(g, i);
	}
	*room_for_one(g) = peer;
	g->is_kept_changed = true;
	keep_soon(g);
}

static void load_peers(struct gossip *g, const struct records_item *item)
{
	struct bytes_in in = bytes_in_of(item->bytes, item->len);

	g->n_kept = 0; /* a damaged file may have several */
	while (bytes_left(&in) >= PEER_BYTES) {
		struct kept_peer peer;

		bytes_copy(&in, peer.id.b, sizeof(peer.id.b));
		bytes_copy(&in, peer.addr.ip, sizeof(peer.addr.ip));
		peer.addr.port = bytes_u16(&in);
		peer.seen_s = bytes_u64(&in);
		if (peer.addr.port != 0)
			*room_for_one(g) = peer;
	}
	if (g->n_kept > 0)
		qsort(g->kept, g->n_kept, sizeof(*g->kept), by_seen);
}

static void put_peers(struct gossip *g, struct records_batch *b)
{
	size_t cap = g->n_kept * PEER_BYTES;
	uint8_t *bytes = xmalloc(cap + 1);
	struct bytes_out out = bytes_out_of(bytes, cap);

	for (size_t i = 0; i < g->n_kept; i++) {
		bytes_put(&out, g->kept[i].id.b, sizeof(g->kept[i].id.b));
		bytes_put(&out, g->kept[i].addr.ip, sizeof(g->kept[i].addr.ip));
		bytes_put_u16(&out, g->kept[i].addr.port);
		bytes_put_u64(&out, g->kept[i].seen_s);
	}
	assert(!out.full);
	records_put(b, &(struct records_item){.kind = KIND_PEERS,
					      .bytes = bytes,
					      .len = out.len});
	free(bytes);
}

/* swim takes as many as it has room for; one that is met tells of the
 * others. */
void gossip_keep_join(struct gossip *g)
{
	for (size_t i = 0; i < g->n_kept; i++) {
		swim_join(g->swim, gossip_now_us(), &g->kept[i].addr,
			  &g->swim_out);
		gossip_swim_done(g);
	}
}

/* ---- Channels ---- */

static void on_item(void *data, const struct records_item *item)
{
	struct gossip *g = data;

	if (item->kind == KIND_PEERS && item->index == 0)
		load_peers(g, item);
	for (unsigned i = 0; i < N_CHANNELS; i++)
		if (g->channels[i].number == item->kind &&
		    sb_load(g->channels[i].sb, item->bytes, item->len) != 0)
			gossip_log(g, 4,
				   "records on disk make no sense: left "
				   "out");
}

static void put_channel(struct channel *c, struct records_batch *b)
{
	uint8_t *piece = xmalloc(PIECE_BYTES);
	struct sb_dump cursor = {0};
	uint32_t index = 0;
	size_t n;

	while ((n = sb_dump(c->sb, &cursor, piece, PIECE_BYTES)) > 0)
		records_put(b, &(struct records_item){.kind = c->number,
						      .index = index++,
						      .bytes = piece,
						      .len = n});
	free(piece);
}

/* Is there something new since the last batch? Then it counts as kept. */
static bool note_changes(struct gossip *g)
{
	bool is_new = g->is_kept_changed || !g->has_kept_all;
	struct sb_stats sb;

	g->is_kept_changed = false;
	g->has_kept_all = true;
	for (unsigned i = 0; i < N_CHANNELS; i++) {
		struct channel *c = &g->channels[i];

		sb_stats(c->sb, &sb);
		is_new |= sb.vector != c->kept_vector ||
			  sb.content != c->kept_content;
		c->kept_vector = sb.vector;
		c->kept_content = sb.content;
	}
	return is_new;
}

/* ---- Writing ---- */

/* Thread: worker. */
static void write_batch(uv_work_t *work)
{
	struct gossip *g = work->data;

	g->batch_rc = records_write(g->batch);
}

static void on_written(uv_work_t *work, int status)
{
	struct gossip *g = work->data;
	int rc = status != 0 ? status : g->batch_rc;

	records_end(g->batch);
	g->batch = NULL;
	g->keep_us = gossip_now_us() + (rc == 0 ? PAUSE_US : FAILED_US);
	if (rc != 0)
		g->has_kept_all = false;
	if (rc != 0 && !g->is_full)
		gossip_log(g, 4,
			   "cannot write to '%s/gossip': %s; it is tried "
			   "again, and nothing is lost while this node runs",
			   g->config.dir, strerror(-rc));
	if (rc == 0 && g->is_full)
		gossip_log(g, 5, "'%s/gossip' is written again", g->config.dir);
	g->is_full = rc != 0;
	if (g->is_kept_changed) /* meanwhile */
		keep_soon(g);
	if (g->is_closing)
		gossip_close_step(g);
}

/* Who is in the middle of a reset knows less than is on disk, for a while. */
static bool is_resetting(const struct gossip *g)
{
	struct sb_stats sb;

	for (unsigned i = 0; i < N_CHANNELS; i++) {
		sb_stats(g->channels[i].sb, &sb);
		if (sb.is_resetting)
			return true;
	}
	return false;
}

static bool begin_write(struct gossip *g)
{
	if (is_resetting(g) || !note_changes(g))
		return false;
	g->batch = records_begin(g->records);
	put_peers(g, g->batch);
	for (unsigned i = 0; i < N_CHANNELS; i++)
		put_channel(&g->channels[i], g->batch);
	if (!records_is_kept(g->batch) &&
	    uv_queue_work(g->config.loop, &g->work, write_batch, on_written) ==
		    0)
		return true;
	records_end(g->batch);
	g->batch = NULL;
	return false;
}

void gossip_keep_tick(struct gossip *g, uint64_t now_us)
{
	if (g->batch == NULL && now_us >= g->keep_us)
		begin_write(g);
}

/* Of one that never was a member there is nothing new, and what is on disk, if
 * anything, stays. */
bool gossip_keep_last(struct gossip *g)
{
	return g->phase == PHASE_MEMBER && begin_write(g);
}

/* ---- Life ---- */

int gossip_keep_load(struct gossip *g, char errmsg[GOSSIP_ERRMSG_SIZE])
{
	char note[GOSSIP_ERRMSG_SIZE];
	struct records_load load = {
		.on_item = on_item, .data = g, .note = note};
	int rc = records_open(g->config.dir, &load, &g->records, errmsg);

	if (rc == 0 && note[0] != '\0')
		gossip_log(g, 4, "%s", note);
	return rc;
}

void gossip_keep_finish(struct gossip *g)
{
	assert(g->batch == NULL);
	records_close(g->records);
	free(g->kept);
}
