// SPDX-License-Identifier: GPL-2.0
/* Work queues. */

#include <linux/workqueue.h>

struct workqueue_struct *kfs_workqueue_alloc(const char *name, bool unbound, bool urgent)
{
	return alloc_workqueue("%s", WQ_MEM_RECLAIM | (unbound ? WQ_UNBOUND : WQ_PERCPU) |
			       (urgent ? WQ_HIGHPRI : 0), 0, name);
}

/* The timer of a delayed work item; the item itself is initialised separately. */
void kfs_delayed_work_init_timer(struct delayed_work *work)
{
	timer_setup(&work->timer, delayed_work_timer_fn, TIMER_IRQSAFE);
}
