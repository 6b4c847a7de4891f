// SPDX-License-Identifier: GPL-2.0
//! A key in the write buffer.

use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};

/// Words of the longest value.
const VALUE_U64S: usize = 4;

/// A key, and the journal entries it is in.
#[derive(Copy, Clone)]
pub(super) struct Item {
    /// The newest entry: what a node that has the key is as new as.
    pub(super) seq: u64,
    /// The oldest entry that is not to go before the key is in a node that has been written.
    pub(super) oldest: u64,
    pub(super) btree: BtreeId,
    key: Bkey,
    value: [u64; VALUE_U64S],
}

impl Item {
    /// A key of entry `seq`. `None` if its value is too long.
    pub(super) fn new(seq: u64, btree: BtreeId, key: KeyRef<'_>) -> Option<Self> {
        let mut value = [0; VALUE_U64S];
        value.get_mut(..key.value.len())?.copy_from_slice(key.value);
        let mut header = key.key;
        header.needs_whiteout = false;
        Some(Item {
            seq,
            oldest: seq,
            btree,
            key: header,
            value,
        })
    }

    /// The key.
    pub(super) fn get(&self) -> KeyRef<'_> {
        let n = usize::from(self.key.value_u64s());
        KeyRef {
            key: self.key,
            value: self.value.get(..n).unwrap_or(&self.value),
        }
    }

    pub(super) fn pos(&self) -> Bpos {
        self.key.pos
    }

    /// Where it goes.
    pub(super) fn place(&self) -> (BtreeId, Bpos) {
        (self.btree, self.key.pos)
    }

    /// Whether it is added to what is there.
    pub(super) fn adds(&self) -> bool {
        self.key.key_type == KeyType::ACCOUNTING
    }

    /// Is now what is to be written for both, `self` being newer than `older` at the same place.
    pub(super) fn supersede(&mut self, older: &Item) {
        self.seq = self.seq.max(older.seq);
        self.oldest = self.oldest.min(older.oldest);
        if self.adds() && older.adds() {
            self.add(older.get());
        }
    }

    /// Adds the counters of `other`; the higher version counts.
    pub(super) fn add(&mut self, other: KeyRef<'_>) {
        if other.key.key_type != KeyType::ACCOUNTING {
            return;
        }
        for (to, from) in self.value.iter_mut().zip(other.value) {
            *to = to.wrapping_add(*from);
        }
        let u64s = self.key.u64s.max(other.key.u64s);
        // As many counters as the longer one has; the others were zero.
        self.key.u64s = u64s.min(bcachefs_format::bkey::BKEY_U64S + VALUE_U64S as u8);
        self.key.version = self.key.version.max(other.key.version);
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_write_buffer_item)]
mod tests {
    use super::*;
    use bcachefs_format::Bversion;

    fn item(seq: u64, key_type: KeyType, version: u64, value: &[u64]) -> Option<Item> {
        let key = Bkey {
            key_type,
            u64s: 5 + value.len() as u8,
            version: Bversion { hi: 0, lo: version },
            ..Bkey::deleted(Bpos::new(1, 2))
        };
        Item::new(seq, BtreeId::ACCOUNTING, KeyRef { key, value })
    }

    #[test]
    fn increments_add_up_and_others_replace() {
        let old = item(5, KeyType::ACCOUNTING, 9, &[1, 2]).unwrap();
        let mut new = item(7, KeyType::ACCOUNTING, 11, &[u64::MAX, 1, 4]).unwrap();
        new.supersede(&old);
        assert_eq!((new.seq, new.oldest, new.get().key.version.lo), (7, 5, 11));
        assert_eq!(new.get().value, &[0, 3, 4]);
        let mut short = item(8, KeyType::ACCOUNTING, 3, &[1]).unwrap();
        short.supersede(&new);
        assert_eq!(short.get().value, &[1, 3, 4]);
        assert_eq!((short.get().key.u64s, short.get().key.version.lo), (8, 11));
        let mut set = item(9, KeyType::COOKIE, 0, &[6]).unwrap();
        set.supersede(&old);
        assert_eq!((set.get().value, set.oldest), (&[6][..], 5));
        assert!(item(1, KeyType::COOKIE, 0, &[0; 5]).is_none());
    }
}
