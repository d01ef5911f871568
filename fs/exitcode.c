/* SPDX-License-Identifier: MIT */
#include "fs/exitcode.h"

#include <errno.h>
#include <sysexits.h>

int exitcode_of(int rc)
{
	switch (rc) {
	case -EACCES:
	case -EPERM:
		return EX_NOPERM;
	case -EBUSY:
	case -EEXIST:
	case -EADDRINUSE:
	case -EADDRNOTAVAIL:
	case -EINVAL:
	case -ENOKEY:
	case -ENOTDIR:
	case -ENOENT:
	case -EUCLEAN:
	case -EXDEV:
	case -ESTALE:
	case -EROFS:
		return EX_CONFIG;
	case -ETIMEDOUT:
		return EX_TEMPFAIL;
	default:
		return EX_OSERR;
	}
}
