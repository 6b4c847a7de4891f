// SPDX-License-Identifier: GPL-2.0
/* Inline functions of <linux/fs.h>, <linux/mm.h> and <linux/pagemap.h>, for writing file data. */

#include <linux/fs.h>
#include <linux/iomap.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/uio.h>
#include <linux/writeback.h>

/* Locks of an inode */

void kfs_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

bool kfs_inode_trylock(struct inode *inode)
{
	return inode_trylock(inode);
}

void kfs_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

bool kfs_inode_trylock_shared(struct inode *inode)
{
	return inode_trylock_shared(inode);
}

void kfs_invalidate_lock(struct inode *inode)
{
	filemap_invalidate_lock(inode->i_mapping);
}

void kfs_invalidate_unlock(struct inode *inode)
{
	filemap_invalidate_unlock(inode->i_mapping);
}

/* Two different inodes, or one twice. */
void kfs_invalidate_lock_two(struct inode *a, struct inode *b)
{
	filemap_invalidate_lock_two(a->i_mapping, b->i_mapping);
}

void kfs_invalidate_unlock_two(struct inode *a, struct inode *b)
{
	filemap_invalidate_unlock_two(a->i_mapping, b->i_mapping);
}

/* The page cache */

void kfs_mapping_set_error(struct inode *inode, int error)
{
	mapping_set_error(inode->i_mapping, error);
}

void kfs_mapping_set_stable_writes(struct inode *inode)
{
	mapping_set_stable_writes(inode->i_mapping);
}

/*
 * Before a file grows: what a mapping has written behind its end, in the last block, must not come to light. What is on disk there are
 * zeros. The inode is locked for change.
 */
void kfs_zero_behind_end(struct inode *inode)
{
	loff_t end = i_size_read(inode);
	struct folio *folio;
	size_t from, to;

	if (!(end & (i_blocksize(inode) - 1)))
		return;
	folio = filemap_lock_folio(inode->i_mapping, end >> PAGE_SHIFT);
	if (IS_ERR(folio))
		return;
	/* The next write through a mapping faults again. */
	if (folio_mkclean(folio))
		folio_mark_dirty(folio);
	from = offset_in_folio(folio, end);
	to = min_t(loff_t, folio_size(folio), round_up(end, i_blocksize(inode)) - folio_pos(folio));
	if (folio_test_uptodate(folio) && from < to)
		folio_zero_segment(folio, from, to);
	folio_unlock(folio);
	folio_put(folio);
}

/* Drops whole pages from one to before the other, by their positions; clean ones, or such that nobody needs. */
void kfs_drop_pages(struct inode *inode, loff_t start, loff_t end)
{
	if (start < end)
		truncate_inode_pages_range(inode->i_mapping, start, end - 1);
}

/* The same for any range: unmapped, too, and what is left of pages zeroed. */
void kfs_drop_range(struct inode *inode, loff_t start, loff_t end)
{
	if (start < end)
		truncate_pagecache_range(inode, start, end - 1);
}

void kfs_invalidate_range(struct inode *inode, loff_t start, loff_t end)
{
	if (start < end)
		invalidate_inode_pages2_range(inode->i_mapping, start >> PAGE_SHIFT,
					      (end - 1) >> PAGE_SHIFT);
}

struct folio *kfs_folio_or_none(struct folio *folio)
{
	return IS_ERR(folio) ? NULL : folio;
}

/* Unlocks a folio, lets go of it, and returns the error in its place. */
struct folio *kfs_folio_give_up(struct folio *folio, int error)
{
	folio_unlock(folio);
	folio_put(folio);
	return ERR_PTR(error);
}

/* Memory mappings */

int kfs_mmap_prepare(struct vm_area_desc *desc, const struct vm_operations_struct *ops)
{
	file_accessed(desc->file);
	desc->vm_ops = ops;
	return 0;
}

vm_fault_t kfs_page_mkwrite(struct vm_fault *vmf, const struct iomap_ops *ops)
{
	struct file *file = vmf->vma->vm_file;
	struct inode *inode = file_inode(file);
	vm_fault_t ret;
	int error;

	sb_start_pagefault(inode->i_sb);
	error = file_update_time(file);
	if (error) {
		ret = vmf_fs_error(error);
	} else {
		filemap_invalidate_lock_shared(inode->i_mapping);
		ret = iomap_page_mkwrite(vmf, ops, NULL);
		filemap_invalidate_unlock_shared(inode->i_mapping);
	}
	sb_end_pagefault(inode->i_sb);
	return ret;
}

/* Calls */

ssize_t kfs_generic_write_sync(struct kiocb *iocb, ssize_t count)
{
	return generic_write_sync(iocb, count);
}

size_t kfs_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

bool kfs_file_is_dsync(const struct file *file)
{
	return file->f_flags & O_DSYNC || IS_SYNC(file->f_mapping->host);
}

bool kfs_inode_is_swapfile(const struct inode *inode)
{
	return IS_SWAPFILE(inode);
}

/* Whether a write has no privileges to take away from the file, as far as is known. */
bool kfs_inode_is_nosec(const struct inode *inode)
{
	return IS_NOSEC(inode);
}

unsigned int kfs_inode_block_size(const struct inode *inode)
{
	return i_blocksize(inode);
}
