// SPDX-License-Identifier: GPL-2.0
//! Tests of the overlay.

use bcachefs_format::{Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType};
use kernel::prelude::*;

use super::{JournalKeys, JournalKeysBuilder};

fn key(key_type: KeyType, pos: Bpos, value: &[u64]) -> KeyRef<'_> {
    let header = Bkey {
        u64s: 5 + value.len() as u8,
        key_type,
        ..Bkey::deleted(pos)
    };
    KeyRef { key: header, value }
}

fn delta(pos: Bpos, seq: u64, value: &[u64]) -> KeyRef<'_> {
    let mut k = key(KeyType::ACCOUNTING, pos, value);
    k.key.version = Bversion { hi: 0, lo: seq };
    k
}

fn build(
    fill: impl FnOnce(&mut JournalKeysBuilder) -> crate::util::error::Result,
) -> Result<JournalKeys> {
    let mut b = JournalKeysBuilder::new();
    fill(&mut b).map_err(|e| e.errno())?;
    b.finish().map_err(|e| e.errno())
}

#[kernel::macros::kunit_tests(bcachefs_journal_overlay)]
mod cases {
    use super::*;

    #[test]
    fn empty() {
        let keys = JournalKeys::empty();
        assert!(keys.is_empty());
        assert!(keys.first_from(BtreeId::INODES, 0, Bpos::POS_MIN).is_none());
        assert!(keys.last_upto(BtreeId::INODES, 0, Bpos::SPOS_MAX).is_none());
        assert!(keys.max_level(BtreeId::INODES).is_none());
    }

    #[test]
    fn overwritten_keys_are_passed_over() -> Result {
        let at = |inode| Bpos::new(inode, 0);
        let keys = build(|b| {
            for i in 0..200 {
                b.push(1, BtreeId::DIRENTS, 0, &key(KeyType::COOKIE, at(i), &[i]))?;
            }
            for i in 0..200 {
                b.push(1, BtreeId::INODES, 0, &key(KeyType::COOKIE, at(i), &[i]))?;
            }
            b.push(1, BtreeId::ACCOUNTING, 0, &delta(at(7), 1, &[1]))
        })?;
        for i in Iterator::chain(50..150, [0, 199]) {
            keys.overwritten(BtreeId::INODES, 0, at(i));
        }
        // Not there, and not to be hidden.
        keys.overwritten(BtreeId::INODES, 1, at(10));
        keys.overwritten(BtreeId::INODES, 0, Bpos::new(10, 1));
        keys.overwritten(BtreeId::ACCOUNTING, 0, at(7));
        let pos = |k: Option<KeyRef<'_>>| k.map(|k| k.key.pos.inode);
        let inodes = keys.keys(BtreeId::INODES, 0);
        assert_eq!(pos(inodes.first_from(at(0), at(300))), Some(1));
        assert_eq!(pos(inodes.first_from(at(10), at(300))), Some(10));
        assert_eq!(pos(inodes.first_from(at(50), at(300))), Some(150));
        assert_eq!(pos(inodes.first_from(at(50), at(149))), None);
        assert_eq!(pos(inodes.last_upto(at(300), at(0))), Some(198));
        assert_eq!(pos(inodes.last_upto(at(149), at(0))), Some(49));
        assert_eq!(pos(inodes.last_upto(at(149), at(50))), None);
        let dirents = keys.keys(BtreeId::DIRENTS, 0);
        assert_eq!(pos(dirents.first_from(at(60), at(300))), Some(60));
        let accounting = keys.keys(BtreeId::ACCOUNTING, 0);
        assert_eq!(pos(accounting.first_from(at(0), at(300))), Some(7));
        Ok(())
    }

    #[test]
    fn last_wins_and_levels_are_apart() -> Result {
        let at = |inode| Bpos::new(inode, 0);
        let keys = build(|b| {
            b.push(1, BtreeId::INODES, 0, &key(KeyType::COOKIE, at(5), &[1]))?;
            b.push(1, BtreeId::INODES, 0, &key(KeyType::COOKIE, at(3), &[2]))?;
            b.push(2, BtreeId::INODES, 1, &key(KeyType::COOKIE, at(5), &[3]))?;
            b.push(2, BtreeId::DIRENTS, 0, &key(KeyType::COOKIE, at(4), &[4]))?;
            b.push(3, BtreeId::INODES, 0, &key(KeyType::COOKIE, at(5), &[5]))?;
            b.push(4, BtreeId::INODES, 0, &key(KeyType::DELETED, at(3), &[]))
        })?;
        assert_eq!(keys.len(), 4);
        let value = |k: Option<KeyRef<'_>>| k.and_then(|k| k.value.first().copied());
        assert_eq!(value(keys.exact(BtreeId::INODES, 0, at(5))), Some(5));
        assert_eq!(value(keys.exact(BtreeId::INODES, 1, at(5))), Some(3));
        assert_eq!(value(keys.first_from(BtreeId::DIRENTS, 0, Bpos::POS_MIN)), Some(4));
        let tombstone = keys.first_from(BtreeId::INODES, 0, Bpos::POS_MIN);
        assert!(tombstone.is_some_and(|k| k.key.key_type == KeyType::DELETED && k.key.pos == at(3)));
        let last = keys.last_upto(BtreeId::INODES, 0, at(4));
        assert!(last.is_some_and(|k| k.key.pos == at(3)));
        assert!(keys.last_upto(BtreeId::INODES, 0, at(2)).is_none());
        assert!(keys.exact(BtreeId::INODES, 0, at(4)).is_none());
        assert_eq!(keys.max_level(BtreeId::INODES), Some(1));
        assert_eq!(keys.max_level(BtreeId::EXTENTS), None);
        assert_eq!(keys.keys(BtreeId::INODES, 0).seq(1), Some(3));
        Ok(())
    }

    #[test]
    fn hints_of_pointers_are_cleared() -> Result {
        let value = [u64::MAX, 7, 0, 0, 0, 1];
        let keys = build(|b| {
            b.push(1, BtreeId::INODES, 1, &key(KeyType::BTREE_PTR_V2, Bpos::SPOS_MAX, &value))
        })?;
        let k = keys.exact(BtreeId::INODES, 1, Bpos::SPOS_MAX);
        assert!(k.is_some_and(|k| k.value == [0, 7, 0, 0, 0, 1]));
        Ok(())
    }

    #[test]
    fn memory_depends_on_positions_not_on_updates() -> Result {
        const POSITIONS: u64 = 1000;
        let keys = build(|b| {
            for round in 0..400 {
                for i in 0..POSITIONS {
                    let value = [round, i, 0, 0, 0, 0, 0, 0, 0, 0];
                    b.push(round, BtreeId::INODES, 0, &key(KeyType::COOKIE, Bpos::new(i, 0), &value))?;
                }
            }
            Ok(())
        })?;
        assert_eq!(keys.len() as u64, POSITIONS);
        // 400,000 keys of 128 bytes went in; what is left fits one chunk, and one sort's worth of slack.
        assert!(keys.memory_bytes() < 16 << 20);
        for (i, k) in keys.keys(BtreeId::INODES, 0).iter().enumerate() {
            assert_eq!(k.key.pos, Bpos::new(i as u64, 0));
            assert_eq!(k.value.first().copied(), Some(399));
            assert_eq!(k.value.get(1).copied(), Some(i as u64));
        }
        Ok(())
    }

    #[test]
    fn increments_add_up() -> Result {
        let pos = Bpos::new(9, 9);
        let keys = build(|b| {
            b.push(1, BtreeId::ACCOUNTING, 0, &delta(pos, 10, &[1, 100]))?;
            b.push(2, BtreeId::ACCOUNTING, 0, &delta(pos, 20, &[u64::MAX, 1]))?;
            b.push(3, BtreeId::ACCOUNTING, 0, &delta(pos, 30, &[5, 0]))
        })?;
        assert_eq!(keys.len(), 3);
        let overlay = keys.keys(BtreeId::ACCOUNTING, 0);
        let mut counters = [7; 3];
        // The node has the first one already.
        let base = [50, 60];
        let sum = overlay.combine(pos, Some(delta(pos, 10, &base)), &mut counters);
        assert!(sum.is_some_and(|k| k.u64s == 7 && k.version.lo == 30));
        assert_eq!(counters, [54, 61, 0]);
        // Nothing in the node.
        assert!(overlay.combine(pos, None, &mut counters).is_some());
        assert_eq!(counters, [5, 101, 0]);
        // Nothing anywhere.
        assert!(overlay.combine(Bpos::POS_MIN, None, &mut counters).is_none());
        Ok(())
    }
}
