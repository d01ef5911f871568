/* SPDX-License-Identifier: MIT */
/* The exit status of a daemon that cannot go on (sysexits.h). Thread: any. */
#ifndef FS_EXITCODE_H
#define FS_EXITCODE_H

/* rc is 0 or a negative errno. */
int exitcode_of(int rc);

#endif
