/* SPDX-License-Identifier: MIT */
/* Packets, and the seam to libsodium: no other file of gossip/ includes it. */
#include "gossip/seal.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <xxhash.h>

#include "gossip/seal_impl.h"

_Static_assert(SEAL_KEY_BYTES == crypto_kdf_KEYBYTES, "master key");
_Static_assert(SEAL_KEY_BYTES == crypto_aead_xchacha20poly1305_ietf_KEYBYTES,
	       "packet key");
_Static_assert(SEAL_KEY_BYTES == crypto_secretstream_xchacha20poly1305_KEYBYTES,
	       "stream key");
_Static_assert(SEAL_NONCE_BYTES == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
	       "nonce");
_Static_assert(SEAL_TAG_BYTES == crypto_aead_xchacha20poly1305_ietf_ABYTES,
	       "tag");
_Static_assert(SEAL_SS_HEADER_BYTES ==
		       crypto_secretstream_xchacha20poly1305_HEADERBYTES,
	       "stream header");
_Static_assert(SEAL_SS_EXTRA == crypto_secretstream_xchacha20poly1305_ABYTES,
	       "stream message");
_Static_assert(SEAL_PACKET_EXTRA ==
		       SEAL_HEADER_BYTES + SEAL_NONCE_BYTES + SEAL_TAG_BYTES,
	       "a packet");

/* ---- Keys ---- */

static const char kdf_context[crypto_kdf_CONTEXTBYTES + 1] = "ringfs-1";

enum kdf_use {
	KDF_PACKET = 1,
	KDF_STREAM = 2,
	KDF_ID = 3,
};

static void derive(const struct seal_key *key, enum kdf_use use, uint8_t *out,
		   size_t n)
{
	crypto_kdf_derive_from_key(out, n, use, kdf_context, key->b);
}

uint64_t seal_key_id(const struct seal_key *key)
{
	uint8_t b[crypto_kdf_BYTES_MIN];

	derive(key, KDF_ID, b, sizeof(b));
	struct bytes_in in = bytes_in_of(b, sizeof(b));
	return bytes_u64(&in);
}

int seal_key_make(struct seal_key *key)
{
	if (sodium_init() < 0)
		return -EIO;
	randombytes_buf(key->b, sizeof(key->b));
	return 0;
}

void seal_wipe(void *bytes, size_t n)
{
	sodium_memzero(bytes, n);
}

void seal_key_wipe(struct seal_key *key)
{
	seal_wipe(key, sizeof(*key));
}

void seal_random(void *bytes, size_t n)
{
	randombytes_buf(bytes, n);
}

void seal_fill_slot(struct seal_slot *slot, const struct seal_key *key)
{
	*slot = (struct seal_slot){.key = *key, .is_here = true};
	slot->id = seal_key_id(key);
	derive(key, KDF_PACKET, slot->packet, sizeof(slot->packet));
	derive(key, KDF_STREAM, slot->stream, sizeof(slot->stream));
}

void seal_key_to_text(const struct seal_key *key,
		      char text[SEAL_BASE64_BYTES + 1])
{
	sodium_bin2base64(text, SEAL_BASE64_BYTES + 1, key->b, sizeof(key->b),
			  sodium_base64_VARIANT_ORIGINAL);
}

bool seal_key_from_text(struct seal_key *key, const char *text, size_t len)
{
	size_t n = 0;

	return len == SEAL_BASE64_BYTES &&
	       sodium_base642bin(key->b, sizeof(key->b), text, len, NULL, &n,
				 NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
	       n == sizeof(key->b);
}

/* ---- Life ---- */

struct seal *seal_create(const struct seal_config *config)
{
	if (sodium_init() < 0)
		return NULL;
	struct seal *s = xcalloc(1, sizeof(*s));
	s->config = *config;
	s->used = -1;
	s->cluster = (uint32_t)XXH3_64bits(&config->cluster,
					   sizeof(config->cluster));
	seal_random(&s->seed, sizeof(s->seed));
	/* Guarded, locked if the limits allow, left out of core dumps. */
	s->slots =
		mem_check(sodium_allocarray(SEAL_KEYS_MAX, sizeof(*s->slots)));
	memset(s->slots, 0, SEAL_KEYS_MAX * sizeof(*s->slots));
	return s;
}

void seal_destroy(struct seal *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->peers.cap; i++)
		free(s->peers.slots[i].item);
	index_finish(&s->peers);
	sodium_free(s->slots); /* wipes */
	free(s);
}

void seal_stats(const struct seal *s, struct seal_stats *stats)
{
	*stats = s->stats;
	stats->n_peers = (uint32_t)s->peers.n;
}

const char *seal_reason_name(enum seal_reason reason)
{
	static const char *const names[SEAL_N_REASONS] = {
		[SEAL_OK] = "ok",
		[SEAL_SHORT] = "short",
		[SEAL_ALIEN] = "alien",
		[SEAL_NEWER] = "newer-version",
		[SEAL_CLEAR] = "not-sealed",
		[SEAL_CLUSTER] = "foreign-cluster",
		[SEAL_NO_KEY] = "unknown-key",
		[SEAL_FORGED] = "forged",
		[SEAL_DAMAGED] = "damaged",
		[SEAL_REPLAYED] = "replayed",
		[SEAL_TOO_OLD] = "too-old",
		[SEAL_SELF] = "own",
		[SEAL_TOO_LONG] = "too-long",
		[SEAL_NOT_THEM] = "another-member",
		[SEAL_TOO_MANY] = "too-many-senders",
	};

	assert(reason < SEAL_N_REASONS);
	return names[reason];
}

/* ---- Heads ---- */

void seal_put_head(const struct seal *s, struct bytes_out *out,
		   enum seal_form form, uint64_t key)
{
	bytes_put(out, "rf", 2);
	bytes_put_u8(out, SEAL_VERSION);
	bytes_put_u8(out, (uint8_t)form);
	bytes_put_u32(out, s->cluster);
	bytes_put_u64(out, key);
	bytes_put(out, s->config.self.b, sizeof(s->config.self.b));
	bytes_put_u32(out, s->config.boot);
}

enum seal_reason seal_get_head(const struct seal *s, struct bytes_in *in,
			       struct seal_head *head)
{
	uint8_t magic[2];

	bytes_copy(in, magic, sizeof(magic));
	uint8_t version = bytes_u8(in);
	*head = (struct seal_head){.form = bytes_u8(in)};
	uint32_t cluster = bytes_u32(in);
	head->key = bytes_u64(in);
	bytes_copy(in, head->sender.b, sizeof(head->sender.b));
	head->boot = bytes_u32(in);
	if (!in->bad && memcmp(magic, "rf", 2) != 0)
		return SEAL_ALIEN;
	if (in->bad)
		return SEAL_SHORT;
	if (version > SEAL_VERSION)
		return SEAL_NEWER;
	if (version == 0 || head->form == 0 ||
	    head->form > SEAL_STREAM_IN_CLEAR)
		return SEAL_ALIEN;
	if (cluster != s->cluster)
		return SEAL_CLUSTER;
	if (gossip_id_equal(&head->sender, &s->config.self))
		return SEAL_SELF;
	bool is_clear = head->form == SEAL_IN_CLEAR ||
			head->form == SEAL_STREAM_IN_CLEAR;
	if (is_clear && s->config.mode == SEAL_REQUIRED)
		return SEAL_CLEAR;
	if (!is_clear && seal_slot_of(s, head->key) < 0)
		return SEAL_NO_KEY;
	return SEAL_OK;
}

/* ---- Packets out ---- */

#define AD_BYTES (SEAL_HEADER_BYTES + 16)

/* What is authentic without being encrypted. The cluster's id is not in the
 * packet: a key that serves two clusters still does not mix them. */
static void fill_ad(const struct seal *s, const uint8_t *header,
		    uint8_t ad[AD_BYTES])
{
	memcpy(ad, header, SEAL_HEADER_BYTES);
	memcpy(ad + SEAL_HEADER_BYTES, s->config.cluster.b, 16);
}

static uint64_t checksum(const struct seal *s, const uint8_t *packet,
			 const uint8_t *body, size_t len)
{
	uint8_t ad[AD_BYTES];

	fill_ad(s, packet, ad);
	return XXH3_64bits_withSeed(body, len, XXH3_64bits(ad, sizeof(ad)));
}

static size_t put_sealed(const struct seal *s, struct bytes_out *out,
			 const void *body, size_t len)
{
	uint8_t ad[AD_BYTES], nonce[SEAL_NONCE_BYTES];
	unsigned long long n = 0;

	fill_ad(s, out->base, ad);
	seal_random(nonce, sizeof(nonce));
	bytes_put(out, nonce, sizeof(nonce));
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		out->base + out->len, &n, body, len, ad, sizeof(ad), NULL,
		nonce, s->slots[s->used].packet);
	assert(n == len + SEAL_TAG_BYTES);
	return out->len + len + SEAL_TAG_BYTES;
}

int seal_packet(struct seal *s, const void *body, size_t len, uint8_t *packet,
		size_t cap)
{
	struct bytes_out out = bytes_out_of(packet, cap);
	bool is_clear = s->config.mode == SEAL_OFF;

	if (len > SEAL_PACKET_MAX - SEAL_PACKET_EXTRA ||
	    cap < len + (is_clear ? SEAL_CLEAR_BYTES : SEAL_PACKET_EXTRA))
		return -EMSGSIZE;
	if (!is_clear && s->used < 0)
		return -ENOKEY;
	seal_put_head(s, &out, is_clear ? SEAL_IN_CLEAR : SEAL_SEALED,
		      is_clear ? 0 : s->slots[s->used].id);
	bytes_put_u64(&out, ++s->counter);
	if (!is_clear)
		return (int)put_sealed(s, &out, body, len);
	bytes_put_u64(&out, checksum(s, packet, body, len));
	bytes_put(&out, body, len);
	assert(!out.full);
	return (int)out.len;
}

/* ---- Packets in ---- */

static enum seal_reason open_clear(const struct seal *s, const uint8_t *packet,
				   struct bytes_in *in,
				   struct seal_opened *opened)
{
	uint64_t sum = bytes_u64(in);

	opened->len = bytes_left(in);
	opened->body = bytes_take(in, opened->len);
	if (in->bad)
		return SEAL_SHORT;
	return sum == checksum(s, packet, opened->body, opened->len)
		       ? SEAL_OK
		       : SEAL_DAMAGED;
}

static enum seal_reason open_sealed(const struct seal *s, uint8_t *packet,
				    size_t len, int slot,
				    struct seal_opened *opened)
{
	uint8_t ad[AD_BYTES];
	unsigned long long n = 0;
	uint8_t *nonce = packet + SEAL_HEADER_BYTES;
	uint8_t *body = nonce + SEAL_NONCE_BYTES;

	if (len < SEAL_PACKET_EXTRA)
		return SEAL_SHORT;
	fill_ad(s, packet, ad);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(
		    body, &n, NULL, body, (size_t)(packet + len - body), ad,
		    sizeof(ad), nonce, s->slots[slot].packet) != 0)
		return SEAL_FORGED;
	opened->body = body;
	opened->len = (size_t)n;
	return SEAL_OK;
}

static enum seal_reason open_packet(struct seal *s, uint8_t *packet, size_t len,
				    struct seal_opened *opened)
{
	struct bytes_in in = bytes_in_of(packet, len);
	struct seal_head head;
	enum seal_reason reason = seal_get_head(s, &in, &head);
	uint64_t counter = bytes_u64(&in);

	if (reason == SEAL_OK && in.bad)
		reason = SEAL_SHORT;
	if (reason != SEAL_OK)
		return reason;
	if (head.form > SEAL_IN_CLEAR)
		return SEAL_ALIEN; /* what belongs on a stream */
	bool is_sealed = head.form == SEAL_SEALED;
	int slot = is_sealed ? seal_slot_of(s, head.key) : -1;
	const struct seal_peer *p = seal_find_peer(s, &head.sender);
	bool is_former = p != NULL && head.boot < p->boot;
	if (p != NULL && !is_former)
		reason = seal_window_look(p, head.boot, counter);
	if (reason == SEAL_OK && is_sealed)
		reason = open_sealed(s, packet, len, slot, opened);
	else if (reason == SEAL_OK)
		reason = open_clear(s, packet, &in, opened);
	if (reason != SEAL_OK)
		return is_former ? SEAL_TOO_OLD : reason;
	*opened = (struct seal_opened){.from = head.sender,
				       .boot = head.boot,
				       .is_sealed = is_sealed,
				       .is_former = is_former,
				       .body = is_former ? NULL : opened->body,
				       .len = is_former ? 0 : opened->len};
	return is_former ? SEAL_TOO_OLD
			 : seal_window_take(s, &head, counter, slot);
}

enum seal_reason seal_open(struct seal *s, uint8_t *packet, size_t len,
			   struct seal_opened *opened)
{
	*opened = (struct seal_opened){0};
	return seal_count(s, open_packet(s, packet, len, opened));
}

/* ---- One direction of a stream ---- */

struct seal_flow {
	crypto_secretstream_xchacha20poly1305_state state;
};

struct seal_flow *seal_flow_create(const uint8_t key[SEAL_KEY_BYTES],
				   const uint8_t *bind, size_t n,
				   uint8_t header[SEAL_SS_HEADER_BYTES],
				   bool is_sending)
{
	struct seal_flow *f = xcalloc(1, sizeof(*f));
	uint8_t own[SEAL_KEY_BYTES];

	crypto_generichash(own, sizeof(own), bind, n, key, SEAL_KEY_BYTES);
	int rc = is_sending ? crypto_secretstream_xchacha20poly1305_init_push(
				      &f->state, header, own)
			    : crypto_secretstream_xchacha20poly1305_init_pull(
				      &f->state, header, own);
	seal_wipe(own, sizeof(own));
	if (rc == 0)
		return f;
	seal_flow_destroy(f);
	return NULL;
}

void seal_flow_destroy(struct seal_flow *f)
{
	if (f == NULL)
		return;
	seal_wipe(f, sizeof(*f));
	free(f);
}

void seal_flow_push(struct seal_flow *f, uint8_t *to, const uint8_t *body,
		    size_t n, const uint8_t ad[4], bool is_last)
{
	crypto_secretstream_xchacha20poly1305_push(
		&f->state, to, NULL, body, n, ad, 4,
		is_last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL
			: crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
}

const uint8_t *seal_flow_pull(struct seal_flow *f, uint8_t *message, size_t n,
			      const uint8_t ad[4], bool *is_last)
{
	uint8_t *body = message + 1; /* where the encrypted body begins */
	uint8_t tag = 0;

	if (crypto_secretstream_xchacha20poly1305_pull(
		    &f->state, body, NULL, &tag, message, n, ad, 4) != 0)
		return NULL;
	*is_last = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
	return body;
}
