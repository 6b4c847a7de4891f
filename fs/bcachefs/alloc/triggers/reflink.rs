// SPDX-License-Identifier: GPL-2.0
//! References to shared extents.
//!
//! A reference counts for every indirect key that it touches. It remembers in its pads how far those reached, so that it gives up
//! exactly what it has taken, however it or they were cut since.

use super::{keys, AllocTriggers, Trans};
use crate::{
    btree::{
        trans::update::UpdateFlags,
        triggers::{KeyMut, Place},
        Attempt, IterFlags,
    },
    util::error::Error,
};
use bcachefs_format::{keys::reflink::ReflinkP, Bkey, Bpos, BtreeId, KeyRef, KeyType};
use core::ops::Range;


/// Whether keys of this type can be referred to. The number of references is their first word.
fn is_indirect(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::REFLINK_V | KeyType::INDIRECT_INLINE_DATA)
}

/// An indirect key that nobody refers to goes.
pub(super) fn drop_unused(place: Place, new: &mut KeyMut<'_>) {
    let unused = new.value.first() == Some(&0);
    if place.level == 0 && place.insert && is_indirect(new.key.key_type) && unused {
        *new.key = Bkey::deleted(new.key.pos);
    }
}

/// The range that a reference of `size` sectors counts for.
fn range(p: &ReflinkP, size: u32) -> Range<u64> {
    let start = p.idx.saturating_sub(p.front_pad.into());
    let end = p.idx.saturating_add(size.into()).saturating_add(p.back_pad.into());
    start..end
}

/// Makes the pads of a reference of `size` sectors cover `touched`.
fn grow(p: &mut ReflinkP, size: u32, touched: Range<u64>) -> Option<()> {
    let front = p.idx.saturating_sub(touched.start);
    let back = touched.end.saturating_sub(p.idx.saturating_add(size.into()));
    p.front_pad = p.front_pad.max(u32::try_from(front).ok()?);
    p.back_pad = p.back_pad.max(u32::try_from(back).ok()?);
    Some(())
}

impl AllocTriggers {
    /// A reference appears.
    #[inline(never)]
    pub(super) fn reference(&self, t: &mut Attempt<'_>, new: &mut KeyMut<'_>) -> Trans {
        let mut p = ReflinkP::parse(new.get())?;
        (p.front_pad, p.back_pad) = (0, 0);
        let size = new.key.size;
        let asked = range(&p, size);
        let mut covered = asked.start;
        self.count_references(t, asked.clone(), true, |touched| {
            if touched.start > covered {
                return false;
            }
            covered = touched.end;
            grow(&mut p, size, touched).is_some()
        })?;
        if covered < asked.end {
            self.complain(format_args!("{}: refers to shared data that is not there", new.key));
            return Err(Error::ExtentInvalid.into());
        }
        p.build(new.value).map_err(keys::unwritable)?;
        Ok(())
    }

    /// A reference goes.
    #[inline(never)]
    pub(super) fn unreference(&self, t: &mut Attempt<'_>, old: KeyRef<'_>) -> Trans {
        let p = ReflinkP::parse(old)?;
        self.count_references(t, range(&p, old.key.size), false, |_| true)
    }

    /// Adds a reference to every indirect key that touches `range`, or takes one away, and calls `f` with the range of each. If it
    /// returns `false` the reference cannot be.
    fn count_references(
        &self,
        t: &mut Attempt<'_>,
        range: Range<u64>,
        add: bool,
        mut f: impl FnMut(Range<u64>) -> bool,
    ) -> Trans {
        let mut at = range.start;
        while at < range.end {
            let flags = IterFlags::SLOTS | IterFlags::INTENT;
            let mut iter = t.iter(BtreeId::REFLINK, Bpos::new(0, at), flags);
            let Some(found) = iter.peek_slot(t)? else {
                break;
            };
            let key = found.key;
            let count = found.value.first().copied();
            // Slots are not empty; but a loop that relies on it should not be one without end.
            at = key.pos.offset.max(at.saturating_add(1));
            if !is_indirect(key.key_type) {
                continue;
            }
            if !f(key.start_offset()..key.pos.offset) {
                return Err(Error::ExtentInvalid.into());
            }
            let Some(old) = count.map(u64::from_le) else {
                continue;
            };
            let new = if add { old.checked_add(1) } else { old.checked_sub(1) };
            let Some(new) = new else {
                self.complain(format_args!("{key}: wrong number of references"));
                continue;
            };
            let flags = UpdateFlags { exact: true, ..UpdateFlags::default() };
            t.update_first_word(&mut iter, new.to_le(), flags)?;
        }
        Ok(())
    }
}

#[kernel::macros::kunit_tests(bcachefs_trigger_reflink)]
mod tests {
    use super::*;

    #[test]
    fn pads_cover_what_is_touched() {
        let mut p = ReflinkP { idx: 100, front_pad: 0, back_pad: 0 };
        assert_eq!(range(&p, 20), 100..120);
        assert_eq!(grow(&mut p, 20, 96..110), Some(()));
        assert_eq!(grow(&mut p, 20, 110..128), Some(()));
        assert_eq!((p.front_pad, p.back_pad), (4, 8));
        assert_eq!(grow(&mut p, 20, 105..110), Some(()));
        assert_eq!(range(&p, 20), 96..128);
        assert_eq!(grow(&mut p, 20, 0..1 << 40), None);
    }

    #[test]
    fn unused_keys_go() {
        let place = |insert| Place {
            btree: BtreeId::REFLINK,
            level: 0,
            insert,
            overwrite: true,
            invalidate: false,
            watermark: Default::default(),
        };
        let pos = Bpos::new(0, 128);
        let header = Bkey { u64s: 7, key_type: KeyType::REFLINK_V, size: 8, ..Bkey::deleted(pos) };
        let table = [(true, 0, true), (true, 1, false), (false, 0, false)];
        for (insert, count, goes) in table {
            let (mut key, mut value) = (header, [count, 0x11]);
            drop_unused(place(insert), &mut KeyMut { key: &mut key, value: &mut value });
            assert_eq!(key, if goes { Bkey::deleted(pos) } else { header });
        }
    }
}
