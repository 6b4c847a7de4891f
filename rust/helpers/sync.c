// SPDX-License-Identifier: GPL-2.0
/* Sleepable RCU. */

#include <linux/srcu.h>

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
