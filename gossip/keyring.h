/* SPDX-License-Identifier: MIT */
/* The key file on disk: read with suspicion, replaced as a whole. What is in
 * it: seal.h. Others than its owner must not be able to read it.
 *
 * Thread: any; blocks. Private to gossip/. */
#ifndef GOSSIP_KEYRING_H
#define GOSSIP_KEYRING_H

#include <stddef.h>

#include "gossip/gossip.h"
#include "gossip/seal.h"

/* Read the keys; the caller wipes them.
 *
 * 0; else errmsg has the sentence and the way out: -ENOKEY, there is no such
 * file; -EACCES, others can read it, or we cannot; -EINVAL, -EBADMSG,
 * -EPROTONOSUPPORT, -E2BIG: what is in it; -EISDIR, -EIO, ... */
int keyring_load(const char *path, struct seal_key keys[SEAL_KEYS_MAX],
		 size_t *n, char errmsg[GOSSIP_ERRMSG_SIZE]);
/* Replace the file, the first key being the one in use: mode 0600, synced;
 * after a crash there is the old one or the new one. 0 or a negative errno. */
int keyring_save(const char *path, const struct seal_key *keys, size_t n);

#endif
