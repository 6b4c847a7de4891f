// SPDX-License-Identifier: GPL-2.0
/* Memory pools, allocation scopes, reclaim, per-CPU data. */

#include <linux/gfp.h>
#include <linux/mempool.h>
#include <linux/percpu.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

/* mempool_alloc_t over kvmalloc(): @pool_data is the size of an element. */
static void *kv_element_alloc(gfp_t gfp, void *pool_data)
{
	return kvmalloc((size_t)pool_data, gfp);
}

static void kv_element_free(void *element, void *pool_data)
{
	kvfree(element);
}

int kfs_mempool_init(mempool_t *pool, int reserve, size_t bytes)
{
	return mempool_init(pool, reserve, kv_element_alloc, kv_element_free, (void *)bytes);
}

void *kfs_mempool_alloc(mempool_t *pool)
{
	return mempool_alloc(pool, GFP_NOFS);
}

void *kfs_mempool_try_alloc(mempool_t *pool)
{
	return mempool_alloc(pool, GFP_NOWAIT | __GFP_NOWARN);
}

unsigned int kfs_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void kfs_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

unsigned int kfs_memalloc_noreclaim_save(void)
{
	return memalloc_noreclaim_save();
}

void kfs_memalloc_noreclaim_restore(unsigned int flags)
{
	memalloc_noreclaim_restore(flags);
}

bool kfs_gfp_allows_fs(gfp_t gfp)
{
	return gfp & __GFP_FS;
}

bool kfs_gfp_allows_io(gfp_t gfp)
{
	return gfp & __GFP_IO;
}

/* Rust knows no address spaces: it is given, and gives back, plain pointers that it does not follow. */
static void *unpercpu(void __percpu *data)
{
	return (void *)(__force uintptr_t)data;
}

/* One pointer per CPU. */
void *kfs_percpu_slots_alloc(void)
{
	return unpercpu(alloc_percpu(void *));
}

void *kfs_percpu_slot_xchg(void *slots, void *new)
{
	void * __percpu *slot = (void * __percpu *)(__force uintptr_t)slots;

	return this_cpu_xchg(*slot, new);
}

/* Only without concurrent users: takes a non-null pointer out of any slot. */
void *kfs_percpu_slots_take_any(void *slots)
{
	void * __percpu *slot = (void * __percpu *)(__force uintptr_t)slots;
	int cpu;

	for_each_possible_cpu(cpu) {
		void **p = per_cpu_ptr(slot, cpu);
		void *value = *p;

		if (value) {
			*p = NULL;
			return value;
		}
	}
	return NULL;
}

/* An array of u64 per CPU. */
void *kfs_percpu_counters_alloc(size_t count)
{
	return unpercpu(__alloc_percpu(count * sizeof(u64), __alignof__(u64)));
}

void kfs_percpu_counter_add(void *counters, size_t index, u64 n)
{
	u64 __percpu *base = (u64 __percpu *)(__force uintptr_t)counters;

	this_cpu_add(base[index], n);
}

u64 kfs_percpu_counter_sum(void *counters, size_t index)
{
	u64 __percpu *base = (u64 __percpu *)(__force uintptr_t)counters;
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(base, cpu)[index]);
	return sum;
}

void kfs_percpu_free(void *data)
{
	free_percpu((void __percpu *)(__force uintptr_t)data);
}
