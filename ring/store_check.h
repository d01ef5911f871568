/* SPDX-License-Identifier: MIT */
/* Is an LMDB file whole? Asked before LMDB maps it. Private to store.c. */
#ifndef RING_STORE_CHECK_H
#define RING_STORE_CHECK_H

/* Check the structure of the LMDB file at path.
 * 0; else errmsg: -EUCLEAN; -EIO, -EACCES, ... */
int store_check(const char *path, char *errmsg);

#endif
