// SPDX-License-Identifier: GPL-2.0
/* Block devices and bios. */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>

struct file *kfs_bdev_open(const char *path, bool write, void *holder,
			   const struct blk_holder_ops *ops)
{
	return bdev_file_open_by_path(path, BLK_OPEN_READ | BLK_OPEN_RESTRICT_WRITES |
				      (write ? BLK_OPEN_WRITE : 0), holder, ops);
}

sector_t kfs_bdev_nr_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

unsigned int kfs_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

bool kfs_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

bool kfs_bdev_can_discard(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev) != 0;
}

int kfs_bdev_discard(struct block_device *bdev, sector_t sector, sector_t sectors)
{
	return blkdev_issue_discard(bdev, sector, sectors, GFP_NOFS);
}

struct kobject *kfs_bdev_kobj(struct block_device *bdev)
{
	return bdev_kobj(bdev);
}

void kfs_bdev_name(struct block_device *bdev, char *name, size_t bytes)
{
	snprintf(name, bytes, "%pg", bdev);
}

/* The bits of @flags are those of block/request.rs. */
static blk_opf_t opf(bool write, unsigned int flags)
{
	return (write ? REQ_OP_WRITE : REQ_OP_READ) |
		(flags & 1 ? REQ_PREFLUSH : 0) |
		(flags & 2 ? REQ_FUA : 0) |
		(flags & 4 ? REQ_META : 0) |
		(flags & 8 ? REQ_SYNC : 0);
}

/* @set: NULL for the one all file systems share. Waits for memory: does not return NULL. */
struct bio *kfs_bio_alloc(struct bio_set *set, struct block_device *bdev, unsigned short vecs,
			  bool write, unsigned int flags)
{
	return bio_alloc_bioset(bdev, vecs, opf(write, flags), GFP_NOFS, set ?: &fs_bio_set);
}

int kfs_bioset_init(struct bio_set *set, unsigned int reserve)
{
	/* bioset_init() sets some of the fields only, the rest has to be zero. */
	memset(set, 0, sizeof(*set));
	return bioset_init(set, reserve, 0, BIOSET_NEED_BVECS);
}

/* The page that holds @addr, and how many bytes from there are contiguous in memory. */
size_t kfs_addr_segment(void *addr, size_t bytes, struct page **page)
{
	if (is_vmalloc_addr(addr)) {
		*page = vmalloc_to_page(addr);
		return min_t(size_t, bytes, PAGE_SIZE - offset_in_page(addr));
	}
	*page = virt_to_page(addr);
	return bytes;
}

/* A count somebody can wait for to become zero. */
void kfs_wait_until_zero(atomic_t *count)
{
	wait_var_event(count, atomic_read(count) == 0);
}

void kfs_wake_at_zero(atomic_t *count)
{
	wake_up_var(count);
}
