// SPDX-License-Identifier: GPL-2.0
/* Decompressors that keep their state in a structure or need a work space. */

#include <linux/errno.h>
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
