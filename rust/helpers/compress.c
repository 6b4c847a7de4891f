// SPDX-License-Identifier: GPL-2.0
/* Compressors and decompressors that keep their state in a structure or need a work space. */

#include <linux/errno.h>
#include <linux/lz4.h>
#include <linux/zlib.h>
#include <linux/zstd.h>

/* Returns the length of the result, or a negative number if the source is damaged or the result does not fit. */
long kfs_zlib_inflate(void *workspace, const void *src, size_t src_len, void *dst, size_t dst_len,
		      int window_bits)
{
	struct z_stream_s stream = {
		.workspace = workspace,
		.next_in = src,
		.avail_in = src_len,
		.next_out = dst,
		.avail_out = dst_len,
	};
	int ret;

	if (zlib_inflateInit2(&stream, window_bits) != Z_OK)
		return -EINVAL;
	ret = zlib_inflate(&stream, Z_FINISH);
	zlib_inflateEnd(&stream);
	return ret == Z_STREAM_END ? (long)stream.total_out : -EINVAL;
}

size_t kfs_zlib_inflate_workspace(void)
{
	return zlib_inflate_workspacesize();
}

long kfs_zstd_decompress(void *workspace, size_t workspace_len, const void *src, size_t src_len,
			 void *dst, size_t dst_len)
{
	zstd_dctx *ctx = zstd_init_dctx(workspace, workspace_len);
	size_t ret;

	if (!ctx)
		return -EINVAL;
	ret = zstd_decompress_dctx(ctx, dst, dst_len, src, src_len);
	return zstd_is_error(ret) ? -EINVAL : (long)ret;
}

size_t kfs_zstd_decompress_workspace(void)
{
	return zstd_dctx_workspace_bound();
}

size_t kfs_lz4_compress_workspace(void)
{
	return LZ4_MEM_COMPRESS;
}

/* Bare deflate. Returns the length of the result, or a negative number if it does not fit. */
long kfs_zlib_deflate(void *workspace, int level, const void *src, size_t src_len, void *dst,
		      size_t dst_len, int window_bits)
{
	struct z_stream_s stream = {
		.workspace = workspace,
		.next_in = src,
		.avail_in = src_len,
		.next_out = dst,
		.avail_out = dst_len,
	};
	int ret;

	if (zlib_deflateInit2(&stream, level, Z_DEFLATED, -window_bits, DEF_MEM_LEVEL,
			      Z_DEFAULT_STRATEGY) != Z_OK)
		return -EINVAL;
	ret = zlib_deflate(&stream, Z_FINISH);
	zlib_deflateEnd(&stream);
	return ret == Z_STREAM_END ? (long)stream.total_out : -EINVAL;
}

size_t kfs_zlib_deflate_workspace(int window_bits)
{
	return zlib_deflate_workspacesize(window_bits, DEF_MEM_LEVEL);
}

/* One frame. Returns its length, or a negative number if it does not fit. */
long kfs_zstd_compress(void *workspace, size_t workspace_len, int level, size_t src_max,
		       const void *src, size_t src_len, void *dst, size_t dst_len)
{
	zstd_parameters params = zstd_get_params(level, src_max);
	zstd_cctx *ctx = zstd_init_cctx(workspace, workspace_len);
	size_t ret;

	if (!ctx)
		return -EINVAL;
	ret = zstd_compress_cctx(ctx, dst, dst_len, src, src_len, &params);
	return zstd_is_error(ret) ? -EINVAL : (long)ret;
}

size_t kfs_zstd_compress_workspace(int level, size_t src_max)
{
	zstd_parameters params = zstd_get_params(level, src_max);

	return zstd_cctx_workspace_bound(&params.cParams);
}

int kfs_zstd_max_level(void)
{
	return zstd_max_clevel();
}
