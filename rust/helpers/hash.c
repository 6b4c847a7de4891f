// SPDX-License-Identifier: GPL-2.0
/* A resizable hash table of nodes that begin as struct hash_node does. */

#include <linux/llist.h>
#include <linux/rhashtable.h>
#include <linux/workqueue.h>

/* The beginning of `Node` in rust/kfs/hash.rs. */
struct hash_node {
	struct rhash_head head;
	u64 key;
};

static const struct rhashtable_params params = {
	.key_len = sizeof_field(struct hash_node, key),
	.key_offset = offsetof(struct hash_node, key),
	.head_offset = offsetof(struct hash_node, head),
	.automatic_shrinking = true,
};

int kfs_hash_init(struct rhashtable *table)
{
	return rhashtable_init(table, &params);
}

/* Under rcu_read_lock(). */
void *kfs_hash_lookup(struct rhashtable *table, u64 key)
{
	return rhashtable_lookup(table, &key, params);
}

/* Under rcu_read_lock(): NULL when inserted, else the node that is there, or an error pointer. */
void *kfs_hash_insert(struct rhashtable *table, void *node)
{
	struct hash_node *n = node;

	return rhashtable_lookup_get_insert_fast(table, &n->head, params);
}

int kfs_hash_remove(struct rhashtable *table, void *node)
{
	struct hash_node *n = node;

	return rhashtable_remove_fast(table, &n->head, params);
}

unsigned int kfs_hash_len(struct rhashtable *table)
{
	return atomic_read(&table->nelems);
}

void kfs_hash_walk_start(struct rhashtable_iter *iter)
{
	rhashtable_walk_start(iter);
}

/* Whether the list was empty. */
bool kfs_llist_add(struct llist_node *node, struct llist_head *list)
{
	return llist_add(node, list);
}

struct llist_node *kfs_llist_del_all(struct llist_head *list)
{
	return llist_del_all(list);
}

void kfs_schedule_work(struct work_struct *work)
{
	schedule_work(work);
}
