/* SPDX-License-Identifier: MIT */
#include "gossip/refuse.h"

#include <stdarg.h>
#include <stdio.h>

#include "gossip/gossip.h"

int gossip_refuse(char *errmsg, int rc, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(errmsg, GOSSIP_ERRMSG_SIZE, format, args);
	va_end(args);
	return rc;
}
