// SPDX-License-Identifier: GPL-2.0
//! Generations of buckets.
//!
//! A bucket's generation goes up each time it is reused; pointers with an older one are stale. The
//! bucket_gens btree holds 256 generations to a key.

use bcachefs_format::{
    bkey::KeyType,
    btree_id::BtreeId,
    keys::bucket_gens::{BucketGens, BUCKETS_PER_KEY},
    pos::Bpos,
};

use crate::btree::{Attempt, TransError};

/// The generation of the bucket at `bucket` (device : bucket) now. May sleep.
///
/// Buckets of which nothing is recorded have never been reused: 0.
pub fn generation(t: &mut Attempt<'_>, bucket: Bpos) -> Result<u8, TransError> {
    let pos = Bpos::new(bucket.inode, bucket.offset / BUCKETS_PER_KEY as u64);
    Ok(match t.get(BtreeId::BUCKET_GENS, pos)? {
        Some(key) if key.key.key_type == KeyType::BUCKET_GENS => {
            BucketGens::parse(key).map_or(0, |gens| gens.get(bucket.offset))
        }
        _ => 0,
    })
}
