// SPDX-License-Identifier: GPL-2.0
//! Keys with pointers, and reservations.

use super::{keys, AllocTriggers, Trans};
use crate::{
    alloc::{
        bucket::{self, Marked},
        pointers::{self, KeySums},
        rebalance,
    },
    btree::{
        triggers::{KeyMut, Place},
        Attempt, IterFlags,
    },
    util::error::Error,
};
use bcachefs_format::{
    keys::{
        accounting::AccountingKey,
        extent::{DecodedPtr, DEV_INVALID},
    },
    Bkey, BtreeId, KeyRef, KeyType,
};

/// Words of a backpointer.
const BACKPOINTER_WORDS: usize = 4;

/// Whether the update leaves the pointers as they are.
pub(super) fn unchanged(place: Place, old: KeyRef<'_>, new: &KeyMut<'_>) -> bool {
    place.insert && place.overwrite && pointers::same_entries(old, new.get())
}

impl AllocTriggers {
    /// The pointers of `key` appear (`insert`), or go.
    #[inline(never)]
    pub(super) fn pointers(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        key: KeyRef<'_>,
        insert: bool,
    ) -> Trans {
        let Some(entries) = pointers::entries(key, self.node_sectors) else {
            return Ok(());
        };
        let mut sums = KeySums::new(place.btree, place.level, &key.key, insert);
        for p in entries.decoded() {
            if p.stripe.is_some() {
                return Err(Error::Unsupported.into());
            }
            if self.pointer(t, place, &key.key, &p, insert)? == Marked::Stale {
                continue;
            }
            sums.add(&p, |what, deltas| t.account(what, deltas))?;
        }
        sums.finish(|what, deltas| t.account(what, deltas))
    }

    /// One pointer of `key`: its bucket, and its backpointer.
    #[inline(never)]
    fn pointer(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        key: &Bkey,
        p: &DecodedPtr,
        insert: bool,
    ) -> Trans<Marked> {
        let dev = p.ptr.dev();
        if dev == DEV_INVALID {
            return Ok(Marked::Counted);
        }
        let found = self.geometries.get(dev).and_then(|b| Some((b, b.bucket_of(p.ptr.offset())?)));
        let Some((buckets, bucket)) = found else {
            self.complain(format_args!("{key}: {}: no such bucket", p.ptr));
            return match insert {
                true => Err(Error::BucketInconsistent.into()),
                false => Ok(Marked::Unknown),
            };
        };
        let pos = buckets.pos(bucket);
        let data_type = pointers::data_type(place.level);
        let mut iter = t.iter(BtreeId::ALLOC, pos, IterFlags::SLOTS | IterFlags::INTENT);
        let mut a = keys::parse_alloc(iter.peek_slot(t)?)?;
        let before = a;
        let marked = if insert {
            bucket::add(&mut a, p, data_type).map_err(|why| {
                self.complain(format_args!("{key}: {}: {why:?}: bucket is {before}", p.ptr));
                Error::BucketInconsistent
            })?
        } else {
            bucket::remove(&mut a, p, data_type)
        };
        match marked {
            Marked::Stale => return Ok(marked),
            Marked::Unknown | Marked::Underflow => {
                self.complain(format_args!("{key}: {}: {marked:?}: bucket is {before}", p.ptr))
            }
            Marked::Counted => {}
        }
        if marked == Marked::Unknown {
            // The bucket and the backpointer are somebody else's by now.
            return Ok(marked);
        }
        keys::update_alloc(t, &iter, pos, &a)?;
        if p.is_dirty() {
            let (at, bp) = pointers::backpointer(place.btree, place.level, key, p, &buckets);
            let mut value = [0; BACKPOINTER_WORDS];
            let n = match insert {
                true => bp.build(&mut value).map_err(keys::unwritable)?,
                false => 0,
            };
            let key_type = match insert {
                true => KeyType::BACKPOINTER,
                false => KeyType::DELETED,
            };
            let key = KeyRef {
                key: keys::header(key_type, at, n),
                value: value.get(..n).unwrap_or(&[]),
            };
            t.write_buffered(BtreeId::BACKPOINTERS, key)?;
        }
        Ok(marked)
    }

    /// A reservation appears, or goes.
    #[inline(never)]
    pub(super) fn reservation(&self, t: &mut Attempt<'_>, key: KeyRef<'_>, insert: bool) -> Trans {
        match pointers::reserved(key) {
            Some((what, sectors)) => t.account(what, &[if insert { sectors } else { -sectors }]),
            None => Ok(()),
        }
    }

    /// What depends on the old and the new key together: work to be done in the background.
    #[inline(never)]
    pub(super) fn shared_work(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        old: KeyRef<'_>,
        new: &KeyMut<'_>,
    ) -> Trans {
        if place.level > 0 {
            return Ok(());
        }
        let pending = |run, key| if run { rebalance::pending(key, &self.targets) } else { 0 };
        let before = pending(place.overwrite, old);
        let after = pending(place.insert, new.get());
        if before != after {
            let change = after as i64 - before as i64;
            t.account(AccountingKey::RebalanceWork, &[change])?;
        }
        if (before != 0) != (after != 0) {
            let pos = new.key.pos;
            keys::set_bit_later(t, BtreeId::REBALANCE_WORK, pos, after != 0)?;
        }
        Ok(())
    }
}
