/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The headers whose declarations rust/bindings/parameters asks for. Keep the list sorted.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/crc64.h>
#include <linux/exportfs.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/iomap.h>
#include <linux/lz4.h>
#include <linux/posix_acl.h>
#include <linux/rhashtable.h>
#include <linux/seq_file.h>
#include <linux/statfs.h>
#include <linux/string_helpers.h>
#include <linux/xattr.h>
#include <linux/xxhash.h>

#include "vfs.h"
#include "write.h"
