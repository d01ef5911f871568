/* SPDX-License-Identifier: MIT */
#include "fs/peers.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"
#include "fs/util.h"

#define uthash_malloc(size) xmalloc(size)
#include <uthash.h>

/* What a change of is told: not what moves with every packet or claim. */
struct told {
	enum peer_state state;
	uint64_t incarnation, weight, n_vnodes;
	char address[PEER_ADDR_SIZE];
};

struct entry {
	struct ring_id id;
	uint64_t number;
	uint64_t since_us;
	uint32_t node;
	char *name;  /* "" for one that cannot be a file's */
	char *shown; /* NULL: none yet */
	struct told told, now;
	bool is_new, is_there;
	UT_hash_handle by_id, by_number, by_shown;
};

struct peers {
	struct entry *ids;     /* in the order of their coming */
	struct entry *numbers; /* likewise */
	struct entry *shown;
	uint64_t last_number;
	void (*on_event)(void *data, const char *shown, enum peers_event event);
	void *data;
};

const char *peers_flaw(const char *name)
{
	if (name[0] == '\0')
		return "must not be empty";
	if (strlen(name) > RING_NAME_MAX)
		return "must not be longer than 255 bytes";
	if (name[0] == '.')
		return "must not begin with a dot";
	if (strchr(name, '/') != NULL)
		return "must not have a slash";
	if (strcmp(name, "self") == 0)
		return "is the link peers/self";
	for (const char *p = name; *p != '\0'; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return "must not have spaces or control characters";
	return NULL;
}

const char *peers_state_name(enum peer_state state)
{
	static const char *const names[] = {
		[PEER_ALIVE] = "alive",
		[PEER_SUSPECT] = "suspect",
		[PEER_DEAD] = "dead",
		[PEER_LEFT] = "left",
	};

	return names[state];
}

const char *peers_role_name(enum ring_role role)
{
	switch (role) {
	case RING_ROLE_VOTER:
		return "voter";
	case RING_ROLE_STANDBY:
	case RING_ROLE_SPARE:
		return "standby";
	case RING_ROLE_NONE:
		break;
	}
	return "";
}

/* ---- Names ---- */

static bool lives(const struct entry *e)
{
	return e->now.state == PEER_ALIVE || e->now.state == PEER_SUSPECT;
}

static struct entry *who_shows(const struct peers *p, const char *shown)
{
	struct entry *e;

	HASH_FIND(by_shown, p->shown, shown, strlen(shown), e);
	return e;
}

static bool has_own_name(const struct entry *e)
{
	return e->shown != NULL && strcmp(e->shown, e->name) == 0;
}

static void drop_name(struct peers *p, struct entry *e)
{
	if (e->shown == NULL)
		return;
	HASH_DELETE(by_shown, p->shown, e);
	p->on_event(p->data, e->shown, PEERS_DELETE);
	free(e->shown);
	e->shown = NULL;
}

/* Takes shown. */
static void give_name(struct peers *p, struct entry *e, char *shown)
{
	assert(e->shown == NULL && who_shows(p, shown) == NULL);
	e->shown = shown;
	HASH_ADD_KEYPTR(by_shown, p->shown, e->shown, strlen(e->shown), e);
	p->on_event(p->data, e->shown, PEERS_CREATE);
	e->told = e->now; /* whoever hears of the file reads this */
}

/* NAME~ and n hex digits of the id, and -again for those who call themselves
 * so; 255 bytes in all. */
static char *other_name(const struct entry *e, int n, unsigned again)
{
	char hex[2 * sizeof(e->id.byte) + 1], tail[64];

	for (size_t i = 0; i < sizeof(e->id.byte); i++)
		snprintf(hex + 2 * i, 3, "%02x", e->id.byte[i]);
	int len = snprintf(tail, sizeof(tail), "~%.*s", n, hex);
	if (again > 0)
		len += snprintf(tail + len, sizeof(tail) - (size_t)len, "-%u",
				again);
	return xasprintf("%.*s%s", RING_NAME_MAX - len, e->name, tail);
}

static void give_other_name(struct peers *p, struct entry *e)
{
	char *shown = other_name(e, 8, 0);

	for (unsigned again = 0; who_shows(p, shown) != NULL; again++) {
		free(shown);
		shown = other_name(e, 2 * sizeof(e->id.byte), again);
	}
	if (e->name[0] == '\0')
		log_warning("a member has a name that no file can have; it is "
			    "shown as peers/%s",
			    shown);
	else
		log_warning("two members have the name %s; the other one is "
			    "shown as peers/%s",
			    e->name, shown);
	give_name(p, e, shown);
}

/* May e have its own name? Then whoever has it, and is not alive, gives it up. */
static bool win_name(struct peers *p, const struct entry *e)
{
	struct entry *owner = who_shows(p, e->name);

	if (owner == NULL)
		return true;
	/* A name that only looks so: NAME~XXXXXXXX of somebody else. */
	if (lives(owner) || !lives(e) || !has_own_name(owner))
		return false;
	drop_name(p, owner); /* and gets another when its turn comes */
	return true;
}

/* Gives whether something has changed: a name has become free by it. */
static bool settle_name(struct peers *p, struct entry *e)
{
	if (e->name[0] == '\0' || has_own_name(e) || !win_name(p, e))
		return false;
	drop_name(p, e);
	give_name(p, e, xstrdup(e->name));
	return true;
}

/* Those who live choose first; it comes to an end, since nobody takes a name
 * twice. */
static void settle_names(struct peers *p)
{
	struct entry *e, *next;
	bool again = true;

	while (again) {
		again = false;
		HASH_ITER (by_id, p->ids, e, next)
			if (lives(e))
				again |= settle_name(p, e);
		HASH_ITER (by_id, p->ids, e, next)
			again |= settle_name(p, e);
	}
}

/* ---- Filling ---- */

struct peers *peers_create(void)
{
	return xcalloc(1, sizeof(struct peers));
}

static void remove_entry(struct peers *p, struct entry *e)
{
	HASH_DELETE(by_id, p->ids, e);
	HASH_DELETE(by_number, p->numbers, e);
	free(e->name);
	free(e);
}

static void no_event(void *data, const char *shown, enum peers_event event)
{
	(void)data;
	(void)shown;
	(void)event;
}

void peers_destroy(struct peers *p)
{
	struct entry *e, *next;

	if (p == NULL)
		return;
	p->on_event = no_event;
	HASH_ITER (by_id, p->ids, e, next) {
		drop_name(p, e);
		remove_entry(p, e);
	}
	free(p);
}

void peers_begin(struct peers *p)
{
	struct entry *e, *next;

	HASH_ITER (by_id, p->ids, e, next)
		e->is_there = false;
}

static struct entry *entry_of(struct peers *p, const struct ring_id *id)
{
	struct entry *e;

	HASH_FIND(by_id, p->ids, id, sizeof(*id), e);
	if (e != NULL)
		return e;
	e = xcalloc(1, sizeof(*e));
	e->id = *id;
	e->number = ++p->last_number;
	HASH_ADD(by_id, p->ids, id, sizeof(e->id), e);
	HASH_ADD(by_number, p->numbers, number, sizeof(e->number), e);
	return e;
}

void peers_put(struct peers *p, const struct peer *peer)
{
	struct entry *e = entry_of(p, &peer->id);

	if (e->is_there)
		return;
	e->is_there = true;
	e->node = peer->node;
	if (e->since_us == 0 || e->now.state != peer->state ||
	    e->now.incarnation != peer->incarnation)
		e->since_us = peer->since_us;
	e->now = (struct told){.state = peer->state,
			       .incarnation = peer->incarnation,
			       .weight = peer->weight,
			       .n_vnodes = peer->n_vnodes};
	snprintf(e->now.address, sizeof(e->now.address), "%s", peer->address);
	const char *name = peers_flaw(peer->name) == NULL ? peer->name : "";
	if (e->name == NULL || strcmp(e->name, name) != 0) {
		/* The old name goes in peers_end(), where that is told. */
		free(e->name);
		e->name = xstrdup(name);
		e->is_new = true;
	}
}

static bool is_same(const struct told *a, const struct told *b)
{
	return a->state == b->state && a->incarnation == b->incarnation &&
	       a->weight == b->weight && a->n_vnodes == b->n_vnodes &&
	       strcmp(a->address, b->address) == 0;
}

void peers_end(struct peers *p,
	       void (*on_event)(void *data, const char *shown,
				enum peers_event event),
	       void *data)
{
	struct entry *e, *next;

	p->on_event = on_event;
	p->data = data;
	HASH_ITER (by_id, p->ids, e, next) {
		if (!e->is_there || e->is_new)
			drop_name(p, e);
		if (!e->is_there)
			remove_entry(p, e);
		else
			e->is_new = false;
	}
	settle_names(p);
	HASH_ITER (by_id, p->ids, e, next) {
		if (e->shown == NULL)
			give_other_name(p, e);
		if (is_same(&e->now, &e->told))
			continue;
		e->told = e->now;
		on_event(data, e->shown, PEERS_MODIFY);
	}
}

/* ---- Looking ---- */

static bool give_line(const struct entry *e, struct peers_line *out)
{
	if (e != NULL)
		*out = (struct peers_line){e->number, e->id, e->node,
					   e->since_us, e->shown};
	return e != NULL;
}

bool peers_next(const struct peers *p, uint64_t *cursor, struct peers_line *out)
{
	const struct entry *e = p->numbers;

	if (*cursor != 0) {
		HASH_FIND(by_number, p->numbers, cursor, sizeof(*cursor), e);
		assert(e != NULL);
		e = e->by_number.next;
	}
	if (e != NULL)
		*cursor = e->number;
	return give_line(e, out);
}

bool peers_by_name(const struct peers *p, const char *shown,
		   struct peers_line *out)
{
	return give_line(who_shows(p, shown), out);
}

bool peers_by_number(const struct peers *p, uint64_t number,
		     struct peers_line *out)
{
	const struct entry *e;

	HASH_FIND(by_number, p->numbers, &number, sizeof(number), e);
	return give_line(e, out);
}

bool peers_by_id(const struct peers *p, const struct ring_id *id,
		 struct peers_line *out)
{
	const struct entry *e;

	HASH_FIND(by_id, p->ids, id, sizeof(*id), e);
	return give_line(e, out);
}
