// SPDX-License-Identifier: GPL-2.0
/* sysfs and debugfs. */

#include <linux/debugfs.h>
#include <linux/kobject.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>

void kfs_attribute_init(struct attribute *attribute, const char *name, umode_t mode)
{
	sysfs_attr_init(attribute);
	attribute->name = name;
	attribute->mode = mode;
}

int kfs_sysfs_create_file(struct kobject *kobj, const struct attribute *attribute)
{
	return sysfs_create_file(kobj, attribute);
}

/* Without debugfs these return error pointers, which the others accept. */
struct dentry *kfs_debugfs_create_dir(const char *name, struct dentry *parent)
{
	return debugfs_create_dir(name, parent);
}

struct dentry *kfs_debugfs_create_file(const char *name, struct dentry *parent, void *data,
				       const struct file_operations *fops)
{
	return debugfs_create_file(name, 0400, parent, data, fops);
}

void kfs_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}

static DEFINE_MUTEX(registry_lock);

void kfs_registry_lock(void)
{
	mutex_lock(&registry_lock);
}

void kfs_registry_unlock(void)
{
	mutex_unlock(&registry_lock);
}
