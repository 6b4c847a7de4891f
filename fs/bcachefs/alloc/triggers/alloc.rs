// SPDX-License-Identifier: GPL-2.0
//! Keys of buckets.

use super::{keys, AllocTriggers, Trans};
use crate::{
    alloc::bucket,
    btree::{
        trans::update::UpdateFlags,
        triggers::{KeyMut, Place},
        Attempt, IterFlags,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        accounting::{AccountingKey, Replicas},
        alloc::{Alloc, ALLOC_WORDS},
        bucket_gens::{BucketGens, BUCKETS_PER_KEY},
        data_type::DataType,
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};

/// Words of the generations in a key.
const GENS_WORDS: usize = BUCKETS_PER_KEY / 8;

/// Writes `a` back to the key it comes from. Updates of buckets are always made in the newest form.
fn store(a: &Alloc, new: &mut KeyMut<'_>) -> Result {
    if new.key.key_type != KeyType::ALLOC_V4 || new.value.len() != ALLOC_WORDS {
        return Err(Error::BtreeKeyInvalid);
    }
    a.build(new.value).map(drop).map_err(keys::unwritable)
}

impl AllocTriggers {
    /// The device and number of the bucket at `pos`, and the sectors of buckets there.
    fn bucket_at(&self, pos: Bpos) -> Result<(u8, u64, u32)> {
        let dev = u8::try_from(pos.inode).ok();
        let buckets = dev.and_then(|dev| self.geometries.get(dev));
        match buckets.filter(|b| pos.offset < b.nr) {
            Some(b) => Ok((b.dev, pos.offset, b.sectors)),
            None => Err(Error::BucketInconsistent),
        }
    }

    /// A bucket changes.
    #[inline(never)]
    pub(super) fn alloc(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        old: KeyRef<'_>,
        new: &mut KeyMut<'_>,
    ) -> Trans {
        let pos = new.key.pos;
        let (dev, bucket, sectors) = self.bucket_at(pos)?;
        let old = keys::parse_alloc(Some(old))?;
        let mut a = keys::parse_alloc(Some(new.get()))?;
        if keys::is_alloc(new.key.key_type) {
            let open = self.client.is_open(dev, bucket);
            bucket::settle(&old, &mut a, self.client.io_time(), open);
            store(&a, new)?;
        }
        let [was, is] = [&old, &a].map(|a| bucket::listed(a, bucket));
        if was != is {
            keys::list(t, pos, was, false)?;
            keys::list(t, pos, is, true)?;
        }

        let [was, is] = [&old, &a].map(|a| bucket::lru_entries(a, pos, sectors));
        for (was, is) in was.into_iter().zip(is).filter(|(was, is)| was != is) {
            if let Some(pos) = was {
                keys::set_bit_later(t, BtreeId::LRU, pos, false)?;
            }
            if let Some(pos) = is {
                keys::set_bit_later(t, BtreeId::LRU, pos, true)?;
            }
        }
        if old.generation != a.generation {
            self.set_generation(t, pos, a.generation)?;
        }
        if place.invalidate && old.cached_sectors != 0 {
            if let Some(set) = Replicas::new(DataType::CACHED, 1, &[dev]) {
                let what = AccountingKey::Replicas(set);
                t.account(what, &[-i64::from(old.cached_sectors)])?;
            }
        }
        bucket::device_counters(&old, &a, sectors, |data_type, deltas| {
            t.account(AccountingKey::DevDataType { dev, data_type }, &deltas)
        })
    }

    /// Records the generation of the bucket at `pos` where it is looked for at mount.
    #[inline(never)]
    fn set_generation(&self, t: &mut Attempt<'_>, pos: Bpos, generation: u8) -> Trans {
        let at = Bpos::new(pos.inode, pos.offset / BUCKETS_PER_KEY as u64);
        let mut gens = [0u8; BUCKETS_PER_KEY];
        let mut iter = t.iter(BtreeId::BUCKET_GENS, at, IterFlags::SLOTS | IterFlags::INTENT);
        match iter.peek_slot(t)? {
            Some(key) if key.key.key_type == KeyType::BUCKET_GENS => {
                gens = *BucketGens::parse(key)?.gens;
            }
            _ => {}
        }
        if let Some(g) = gens.get_mut(pos.offset as usize % BUCKETS_PER_KEY) {
            *g = generation;
        }
        let mut value = [0; GENS_WORDS];
        BucketGens { gens: &gens }.build(&mut value).map_err(keys::unwritable)?;
        let key = Bkey {
            u64s: BKEY_U64S + GENS_WORDS as u8,
            key_type: KeyType::BUCKET_GENS,
            ..Bkey::deleted(at)
        };
        t.update(&iter, KeyRef { key, value: &value }, UpdateFlags::default())
    }

    /// A bucket's change is being committed in journal entry `seq`.
    pub(super) fn alloc_committed(
        &self,
        seq: u64,
        old: KeyRef<'_>,
        new: &mut KeyMut<'_>,
    ) -> Result {
        let (dev, bucket, _) = self.bucket_at(new.key.pos)?;
        let old = keys::parse_alloc(Some(old))?;
        let mut a = keys::parse_alloc(Some(new.get()))?;
        a.journal_seq = bucket::journal_seq(&old, &a, seq, |from, to| {
            self.journal.as_ref().is_some_and(|j| j.noflush_promise(from, to))
        });
        if keys::is_alloc(new.key.key_type) {
            store(&a, new)?;
        }
        self.client.bucket_changed(dev, bucket, &old, &a);
        Ok(())
    }
}
