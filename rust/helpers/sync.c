// SPDX-License-Identifier: GPL-2.0
/* Sleepable RCU, events. */

#include <linux/srcu.h>
#include <linux/wait.h>

int kfs_init_srcu_struct(struct srcu_struct *srcu)
{
	return init_srcu_struct(srcu);
}

int kfs_srcu_read_lock(struct srcu_struct *srcu)
{
	return srcu_read_lock(srcu);
}

void kfs_srcu_read_unlock(struct srcu_struct *srcu, int index)
{
	srcu_read_unlock(srcu, index);
}

void kfs_srcu_barrier(struct srcu_struct *srcu)
{
	srcu_barrier(srcu);
}

/* @count: how often it has happened. */
void kfs_event_announce(struct wait_queue_head *queue, atomic_t *count)
{
	atomic_inc_return(count);
	wake_up_all(queue);
}

bool kfs_event_wait(struct wait_queue_head *queue, atomic_t *count, int seen, unsigned int ms)
{
	return wait_event_timeout(*queue, atomic_read_acquire(count) != seen,
				  msecs_to_jiffies(ms)) != 0;
}
