// SPDX-License-Identifier: GPL-2.0
/* Inline functions of <linux/bio.h> and <linux/highmem.h>, for the memory that file data is read into. */

#include <linux/bio.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/pagemap.h>

/* Folios */

loff_t kfs_folio_pos(const struct folio *folio)
{
	return folio_pos(folio);
}

size_t kfs_folio_size(const struct folio *folio)
{
	return folio_size(folio);
}

size_t kfs_offset_in_folio(const struct folio *folio, loff_t pos)
{
	return offset_in_folio(folio, pos);
}

struct page *kfs_folio_page(struct folio *folio, size_t index)
{
	return folio_page(folio, index);
}

void kfs_memcpy_to_folio(struct folio *folio, size_t offset, const void *from, size_t len)
{
	memcpy_to_folio(folio, offset, from, len);
}

void kfs_folio_zero_range(struct folio *folio, size_t offset, size_t len)
{
	folio_zero_range(folio, offset, len);
}

void *kfs_kmap_local_folio(struct folio *folio, size_t offset)
{
	return kmap_local_folio(folio, offset);
}

void kfs_kunmap_local(const void *addr)
{
	kunmap_local(addr);
}

/* Readahead */

u64 kfs_readahead_range(const struct readahead_control *rac, size_t *len)
{
	*len = readahead_length((struct readahead_control *)rac);
	return readahead_pos((struct readahead_control *)rac);
}

/* Bios that describe the memory of a direct read. The range must be inside bi_iter. */

size_t kfs_bio_size(const struct bio *bio)
{
	return bio->bi_iter.bi_size;
}

void kfs_bio_copy_in(struct bio *bio, size_t offset, const void *from, size_t len)
{
	struct bvec_iter iter = bio->bi_iter;

	bio_advance_iter(bio, &iter, offset);
	while (len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);
		size_t n = min_t(size_t, len, bv.bv_len);

		memcpy_to_page(bv.bv_page, bv.bv_offset, from, n);
		from += n;
		len -= n;
		bio_advance_iter(bio, &iter, n);
	}
}

void kfs_bio_copy_out(struct bio *bio, size_t offset, void *to, size_t len)
{
	struct bvec_iter iter = bio->bi_iter;

	bio_advance_iter(bio, &iter, offset);
	while (len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);
		size_t n = min_t(size_t, len, bv.bv_len);

		memcpy_from_page(to, bv.bv_page, bv.bv_offset, n);
		to += n;
		len -= n;
		bio_advance_iter(bio, &iter, n);
	}
}

void kfs_bio_zero(struct bio *bio, size_t offset, size_t len)
{
	struct bvec_iter iter = bio->bi_iter;

	bio_advance_iter(bio, &iter, offset);
	while (len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);
		size_t n = min_t(size_t, len, bv.bv_len);

		memzero_page(bv.bv_page, bv.bv_offset, n);
		len -= n;
		bio_advance_iter(bio, &iter, n);
	}
}

/* The contiguous piece of memory at an offset. */
void kfs_bio_segment(struct bio *bio, size_t offset, struct page **page, size_t *page_offset,
		     size_t *len)
{
	struct bvec_iter iter = bio->bi_iter;
	struct bio_vec bv;

	bio_advance_iter(bio, &iter, offset);
	bv = bio_iter_iovec(bio, iter);
	*page = bv.bv_page;
	*page_offset = bv.bv_offset;
	*len = bv.bv_len;
}
