// SPDX-License-Identifier: GPL-2.0
//! The write buffer, against an array.

use super::btrees;
use crate::{
    btree::{
        tests::{
            check,
            image::{Draw, Key},
        },
        Btree, IterFlags,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{
    keys::accounting::AccountingKey, Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::prelude::*;

const ID: BtreeId = BtreeId::REBALANCE_WORK;
const OFFSETS: u64 = 120;

fn counter(n: u64) -> Result<Bpos> {
    let key = AccountingKey::Snapshot { id: n as u32 + 1 };
    key.to_pos().ok_or(Error::BtreeKeyInvalid)
}

/// What is at each offset; 0 for nothing.
fn view(b: &Btree, model: &[u64]) -> Result<bool> {
    let mut seen: KVVec<u64> = KVVec::new();
    seen.resize(model.len(), 0, GFP_KERNEL)?;
    b.walk(ID, Bpos::POS_MIN, Bpos::SPOS_MAX, IterFlags::NONE, |k| {
        if let Some(at) = seen.get_mut(k.key.pos.offset as usize) {
            *at = k.value.first().copied().unwrap_or(0);
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(model == &seen[..])
}

fn sum(b: &Btree, n: u64) -> Result<(u64, u64)> {
    let pos = counter(n)?;
    b.run(|t| {
        let mut iter = t.iter(BtreeId::ACCOUNTING, pos, IterFlags::ALL_SNAPSHOTS);
        let found = iter.peek(t)?.filter(|k| k.key.pos == pos);
        Ok(found.map_or((0, 0), |k| (k.value.first().copied().unwrap_or(0), k.key.version.lo)))
    })
}

pub(in crate::btree::tests) fn buffered() -> Result {
    let mut keys = KVVec::new();
    let mut model: KVVec<u64> = KVVec::new();
    for offset in 0..OFFSETS {
        let value = if offset % 3 == 0 { offset + 1000 } else { 0 };
        model.push(value, GFP_KERNEL)?;
        if value != 0 {
            keys.push(Key::new(Bpos::new(0, offset), value), GFP_KERNEL)?;
        }
    }
    let b = btrees(&[(ID, &keys), (BtreeId::ACCOUNTING, &[])], 0, None)?;
    b.inject_restarts(3, 20);
    let mut draw = Draw(7);
    let mut sums = [0u64; 20];
    let mut version = 0;
    for round in 0..40u64 {
        for _ in 0..draw.below(60) {
            let offset = draw.below(OFFSETS);
            let value = [if draw.below(3) == 0 { 0 } else { draw.below(1 << 40) + 1 }];
            let deleted = value == [0];
            let key = Bkey {
                key_type: if deleted { KeyType::DELETED } else { KeyType::COOKIE },
                u64s: 6 - u8::from(deleted),
                ..Bkey::deleted(Bpos::new(0, offset))
            };
            let value = value.get(usize::from(deleted)..).unwrap_or_default();
            b.write_buffer_push(100 + round, 0, ID, KeyRef { key, value })?;
            if let Some(at) = model.get_mut(offset as usize) {
                *at = value.first().copied().unwrap_or(0);
            }
        }
        for _ in 0..draw.below(30) {
            let n = draw.below(20);
            let delta = [draw.below(1000).wrapping_sub(500)];
            version += 1;
            let key = Bkey {
                key_type: KeyType::ACCOUNTING,
                u64s: 6,
                version: Bversion { hi: 0, lo: version },
                ..Bkey::deleted(counter(n)?)
            };
            b.write_buffer_push(100 + round, 1, BtreeId::ACCOUNTING, KeyRef { key, value: &delta })?;
            if let Some(at) = sums.get_mut(n as usize) {
                *at = at.wrapping_add(delta[0]);
            }
        }
        b.flush_write_buffer()?;
        check!(view(&b, &model)?);
        if round == 20 {
            // Increments were kept until now.
            check!(b.write_buffer.waiting() > 0 && b.write_buffer.waiting() <= 20);
            check!(sum(&b, 0)? == (0, 0));
            b.allow_accounting_flush();
            check!(b.flush_write_buffer()?);
        }
        if round >= 20 {
            check!(b.write_buffer.waiting() == 0 && !b.flush_write_buffer()?);
            let mut newest = 0;
            for (n, want) in sums.iter().enumerate() {
                let (value, version) = sum(&b, n as u64)?;
                check!(value == *want);
                newest = newest.max(version);
            }
            check!(newest == version);
        }
    }
    // Too long a value is refused.
    let key = Bkey { key_type: KeyType::COOKIE, u64s: 10, ..Bkey::deleted(Bpos::new(0, 1)) };
    check!(b.write_buffer_push(1, 0, ID, KeyRef { key, value: &[0; 5] }).is_err());
    b.shutdown();
    Ok(())
}
