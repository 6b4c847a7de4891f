// SPDX-License-Identifier: GPL-2.0
/* Inline functions and macros of <linux/fs.h>. */

#include <linux/fs.h>

bool kfs_sb_rdonly(const struct super_block *sb)
{
	return sb_rdonly(sb);
}
