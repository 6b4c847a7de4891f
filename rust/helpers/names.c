// SPDX-License-Identifier: GPL-2.0
/* Inline functions and macros of the VFS headers that changes of names and inodes need. */

#include <linux/fs.h>
#include <linux/fileattr.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/security.h>
#include <linux/timekeeping.h>
#include <linux/xattr.h>

/* Times */

s64 kfs_inode_atime(const struct inode *inode, long *nsec)
{
	*nsec = inode_get_atime_nsec(inode);
	return inode_get_atime_sec(inode);
}

s64 kfs_inode_mtime(const struct inode *inode, long *nsec)
{
	*nsec = inode_get_mtime_nsec(inode);
	return inode_get_mtime_sec(inode);
}

s64 kfs_inode_ctime(const struct inode *inode, long *nsec)
{
	*nsec = inode_get_ctime_nsec(inode);
	return inode_get_ctime_sec(inode);
}

/* The clock that the VFS takes times of files from, before they are cut to what the filesystem stores. */
s64 kfs_file_clock(long *nsec)
{
	struct timespec64 now;

	ktime_get_coarse_real_ts64(&now);
	*nsec = now.tv_nsec;
	return now.tv_sec;
}

/* Inodes */

u32 kfs_inode_uid(const struct inode *inode)
{
	return i_uid_read(inode);
}

u32 kfs_inode_gid(const struct inode *inode)
{
	return i_gid_read(inode);
}

bool kfs_inode_is_sync(const struct inode *inode)
{
	return IS_SYNC(inode);
}

bool kfs_inode_is_dirsync(const struct inode *inode)
{
	return IS_DIRSYNC(inode);
}

bool kfs_sb_is_lazytime(const struct super_block *sb)
{
	return sb->s_flags & SB_LAZYTIME;
}

void kfs_sb_start_intwrite(struct super_block *sb)
{
	sb_start_intwrite(sb);
}

void kfs_sb_end_intwrite(struct super_block *sb)
{
	sb_end_intwrite(sb);
}

/* What a change of attributes comes to, in ids of the superblock's user namespace. */
u32 kfs_attr_uid(struct mnt_idmap *idmap, const struct inode *inode, const struct iattr *attr)
{
	return from_kuid(i_user_ns(inode), from_vfsuid(idmap, i_user_ns(inode), attr->ia_vfsuid));
}

u32 kfs_attr_gid(struct mnt_idmap *idmap, const struct inode *inode, const struct iattr *attr)
{
	return from_kgid(i_user_ns(inode), from_vfsgid(idmap, i_user_ns(inode), attr->ia_vfsgid));
}

/* The set-group-id bit is for members of the group, and those who may change any file. */
u16 kfs_attr_mode(struct mnt_idmap *idmap, const struct inode *inode, const struct iattr *attr)
{
	umode_t mode = attr->ia_mode;
	vfsgid_t group = i_gid_into_vfsgid(idmap, inode);

	if (attr->ia_valid & ATTR_GID)
		group = attr->ia_vfsgid;
	if (!in_group_or_capable(idmap, inode, group))
		mode &= ~S_ISGID;
	return mode;
}

/* New files */

int kfs_acl_create(struct inode *dir, u16 *mode, struct posix_acl **def, struct posix_acl **access)
{
	umode_t m = *mode;
	int err = posix_acl_create(dir, &m, def, access);

	*mode = m;
	return err;
}

int kfs_security_init(struct inode *inode, struct inode *dir, const char *name, size_t len,
		      int (*each)(struct inode *, const struct xattr *, void *), void *data)
{
	struct qstr qstr = QSTR_INIT(name, len);

	return security_inode_init_security(inode, dir, name ? &qstr : NULL, each, data);
}

/* One of what security_inode_init_security() hands out; false behind the last. */
bool kfs_xattr_at(const struct xattr *list, size_t index, const char **name, const void **value,
		  size_t *len)
{
	const struct xattr *x = list + index;

	*name = x->name;
	*value = x->value;
	*len = x->value_len;
	return x->name;
}

/* Access control lists */

int kfs_acl_update_mode(struct mnt_idmap *idmap, struct inode *inode, u16 *mode, struct posix_acl **acl)
{
	umode_t m = *mode;
	int err = posix_acl_update_mode(idmap, inode, &m, acl);

	*mode = m;
	return err;
}

unsigned int kfs_posix_acl_count(const struct posix_acl *acl)
{
	return acl->a_count;
}

bool kfs_posix_acl_get(struct super_block *sb, const struct posix_acl *acl, unsigned int index,
		       short *tag, unsigned short *perm, u32 *id)
{
	const struct posix_acl_entry *e;

	if (index >= acl->a_count)
		return false;
	e = &acl->a_entries[index];
	*tag = e->e_tag;
	*perm = e->e_perm;
	*id = 0;
	if (e->e_tag == ACL_USER)
		*id = from_kuid(sb->s_user_ns, e->e_uid);
	else if (e->e_tag == ACL_GROUP)
		*id = from_kgid(sb->s_user_ns, e->e_gid);
	return *id != (u32)-1;
}

void kfs_acl_forget(struct inode *inode)
{
	forget_cached_acl(inode, ACL_TYPE_ACCESS);
}

void kfs_acl_cache(struct inode *inode, int type, struct posix_acl *acl)
{
	set_cached_acl(inode, type, acl);
}

/* File attributes */

void kfs_fileattr_fill(void *attr, u32 flags, u32 project, u32 extents)
{
	struct file_kattr *fa = attr;

	fileattr_fill_flags(fa, flags);
	fa->fsx_projid = project;
	fa->fsx_nextents = extents;
}

/* Whether everything that is asked for is known here: flags within the mask, no sizes of extents. */
bool kfs_fileattr_read(const void *attr, u32 mask, u32 *flags, u32 *project, bool *has_project)
{
	const struct file_kattr *fa = attr;
	u32 xmask = FS_XFLAG_COMMON;

	*flags = fa->flags;
	*project = fa->fsx_projid;
	*has_project = fa->fsx_valid;
	if (fa->flags & ~mask)
		return false;
	return !fa->fsx_valid || (!(fa->fsx_xflags & ~xmask) && !fa->fsx_extsize && !fa->fsx_cowextsize);
}

/* Files that are being opened */

struct dentry *kfs_file_dentry(struct file *file)
{
	return file->f_path.dentry;
}

int kfs_finish_open(struct file *file, int error)
{
	return finish_open_simple(file, error);
}
