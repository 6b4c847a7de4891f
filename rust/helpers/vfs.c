// SPDX-License-Identifier: GPL-2.0
/* Inline functions and macros of the VFS headers. */

#include <linux/backing-dev.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/lockdep.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/uuid.h>

/* Superblocks */

void kfs_super_set_uuid(struct super_block *sb, const u8 *uuid)
{
	super_set_uuid(sb, uuid, UUID_SIZE);
}

/* Gives the superblock a backing_dev_info of its own: the one it is born with reads nothing ahead. */
int kfs_super_setup_bdi(struct super_block *sb)
{
	return super_setup_bdi(sb);
}

void kfs_super_set_readahead(struct super_block *sb, unsigned long pages)
{
	sb->s_bdi->ra_pages = pages;
	sb->s_bdi->io_pages = pages;
}

void kfs_super_set_id(struct super_block *sb, const char *id, size_t len)
{
	snprintf(sb->s_id, sizeof(sb->s_id), "%.*s", (int)len, id);
}

struct dentry *kfs_dget(struct dentry *dentry)
{
	return dget(dentry);
}

struct inode *kfs_d_inode(const struct dentry *dentry)
{
	return d_inode(dentry);
}

const unsigned char *kfs_dentry_name(const struct dentry *dentry, size_t *len)
{
	*len = dentry->d_name.len;
	return dentry->d_name.name;
}

/* A file_system_type in allocated memory: its lock classes have to be made known. */
static void kfs_each_key(struct file_system_type *fs, void (*f)(struct lock_class_key *))
{
	int i;

	f(&fs->s_lock_key);
	f(&fs->s_umount_key);
	f(&fs->s_vfs_rename_key);
	for (i = 0; i < SB_FREEZE_LEVELS; i++)
		f(&fs->s_writers_key[i]);
	f(&fs->i_lock_key);
	f(&fs->i_mutex_key);
	f(&fs->invalidate_lock_key);
	f(&fs->i_mutex_dir_key);
}

static void kfs_register_key(struct lock_class_key *key)
{
	lockdep_register_key(key);
}

static void kfs_unregister_key(struct lock_class_key *key)
{
	lockdep_unregister_key(key);
}

void kfs_register_lock_keys(struct file_system_type *fs)
{
	kfs_each_key(fs, kfs_register_key);
}

void kfs_unregister_lock_keys(struct file_system_type *fs)
{
	kfs_each_key(fs, kfs_unregister_key);
}

/* Mounting */

bool kfs_fc_is_reconfigure(const struct fs_context *fc)
{
	return fc->purpose == FS_CONTEXT_FOR_RECONFIGURE;
}

const char *kfs_parameter_key(const struct fs_parameter *param)
{
	return param->key;
}

bool kfs_parameter_is_flag(const struct fs_parameter *param)
{
	return param->type == fs_value_is_flag;
}

const char *kfs_parameter_string(const struct fs_parameter *param)
{
	return param->type == fs_value_is_string ? param->string : NULL;
}

/* Into the log of the mounting process, and into the kernel's (logfc() does that itself when there is no log). */
void kfs_logfc(struct fs_context *fc, char level, const char *text, size_t len)
{
	logfc(fc->log.log, fc->log.prefix, level, "%.*s", (int)len, text);
	if (!fc->log.log)
		return;
	switch (level) {
	case 'e':
		pr_err("%s: %.*s\n", fc->fs_type->name, (int)len, text);
		break;
	case 'w':
		pr_warn("%s: %.*s\n", fc->fs_type->name, (int)len, text);
		break;
	default:
		pr_info("%s: %.*s\n", fc->fs_type->name, (int)len, text);
	}
}

/* Inodes */

void *kfs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

struct kmem_cache *kfs_inode_cache_create(const char *name, unsigned int size, unsigned int align,
					  void (*ctor)(void *))
{
	return kmem_cache_create(name, size, align, SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

void kfs_inode_set_fop(struct inode *inode, const struct file_operations *fop)
{
	inode->i_fop = fop;
}

struct inode *kfs_iget5_locked(struct super_block *sb, u64 hash, int (*test)(struct inode *, void *),
			       int (*set)(struct inode *, void *), void *data)
{
	return iget5_locked(sb, hash, test, set, data);
}

u64 kfs_inode_number(const struct inode *inode)
{
	return inode->i_ino;
}

void kfs_inode_set_number(struct inode *inode, u64 number)
{
	inode->i_ino = number;
}

bool kfs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

loff_t kfs_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void kfs_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

void kfs_inode_set_owner(struct inode *inode, u32 uid, u32 gid)
{
	i_uid_write(inode, uid);
	i_gid_write(inode, gid);
}

void kfs_inode_set_atime(struct inode *inode, s64 sec, long nsec)
{
	inode_set_atime(inode, sec, nsec);
}

void kfs_inode_set_mtime(struct inode *inode, s64 sec, long nsec)
{
	inode_set_mtime(inode, sec, nsec);
}

void kfs_inode_set_ctime(struct inode *inode, s64 sec, long nsec)
{
	inode_set_ctime(inode, sec, nsec);
}

void kfs_cache_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

dev_t kfs_mkdev(unsigned int major, unsigned int minor)
{
	return MKDEV(major & ((1U << (32 - MINORBITS)) - 1), minor & MINORMASK);
}

void kfs_inode_lock_shared(struct inode *inode)
{
	inode_lock_shared(inode);
}

void kfs_inode_unlock_shared(struct inode *inode)
{
	inode_unlock_shared(inode);
}

/* Folios of any size that holds whole blocks, be they larger than a page. */
void kfs_mapping_set_large_folios(struct inode *inode)
{
	unsigned int bits = inode->i_blkbits;

	mapping_set_folio_min_order(inode->i_mapping, bits > PAGE_SHIFT ? bits - PAGE_SHIFT : 0);
}

void kfs_file_accessed(struct file *file)
{
	file_accessed(file);
}

struct inode *kfs_file_inode(const struct file *file)
{
	return file_inode(file);
}

u64 kfs_file_parent_number(struct file *file)
{
	return d_parent_ino(file->f_path.dentry);
}

/* Access control lists */

bool kfs_posix_acl_set(struct super_block *sb, struct posix_acl *acl, unsigned int index, short tag,
		       unsigned short perm, u32 id)
{
	struct posix_acl_entry *e;

	if (index >= acl->a_count)
		return false;
	e = &acl->a_entries[index];
	e->e_tag = tag;
	e->e_perm = perm;
	if (tag == ACL_USER) {
		e->e_uid = make_kuid(sb->s_user_ns, id);
		return uid_valid(e->e_uid);
	}
	if (tag == ACL_GROUP) {
		e->e_gid = make_kgid(sb->s_user_ns, id);
		return gid_valid(e->e_gid);
	}
	return true;
}

void kfs_posix_acl_release(struct posix_acl *acl)
{
	posix_acl_release(acl);
}
