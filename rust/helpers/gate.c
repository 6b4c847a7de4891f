// SPDX-License-Identifier: GPL-2.0
/* Per-CPU reference counts, and waiting for them. */

#include <linux/percpu-refcount.h>
#include <linux/wait_bit.h>

static void released(struct percpu_ref *ref)
{
	wake_up_var(ref);
}

/* Made dead: nobody gets a reference until it is reinitialised. */
int kfs_percpu_ref_init(struct percpu_ref *ref)
{
	return percpu_ref_init(ref, released, PERCPU_REF_INIT_DEAD | PERCPU_REF_ALLOW_REINIT,
			       GFP_KERNEL);
}

bool kfs_percpu_ref_tryget_live(struct percpu_ref *ref)
{
	return percpu_ref_tryget_live(ref);
}

void kfs_percpu_ref_put(struct percpu_ref *ref)
{
	percpu_ref_put(ref);
}

void kfs_percpu_ref_kill(struct percpu_ref *ref)
{
	percpu_ref_kill(ref);
}

bool kfs_percpu_ref_is_dying(struct percpu_ref *ref)
{
	return percpu_ref_is_dying(ref);
}

void kfs_percpu_ref_wait_until_zero(struct percpu_ref *ref)
{
	wait_var_event(ref, percpu_ref_is_zero(ref));
}
