// SPDX-License-Identifier: GPL-2.0
/* Work queues. */

#include <linux/workqueue.h>

struct workqueue_struct *kfs_workqueue_alloc(const char *name, bool unbound, bool urgent)
{
	return alloc_workqueue("%s", WQ_MEM_RECLAIM | (unbound ? WQ_UNBOUND : WQ_PERCPU) |
			       (urgent ? WQ_HIGHPRI : 0), 0, name);
}
