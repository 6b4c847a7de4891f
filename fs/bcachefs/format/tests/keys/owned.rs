// SPDX-License-Identifier: GPL-2.0
//! A key that owns its value.

use bcachefs_format::keys::BuildError;
use bcachefs_format::{Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owned {
    pub btree: BtreeId,
    pub level: u8,
    pub key: Bkey,
    pub value: Vec<u64>,
}

impl Owned {
    pub fn new(btree: BtreeId, key_type: KeyType, pos: Bpos, size: u32, value: Vec<u64>) -> Self {
        let level = u8::from(key_type.is_btree_ptr());
        let key = Bkey {
            u64s: 5 + u8::try_from(value.len()).unwrap(),
            key_type,
            pos,
            size,
            version: Bversion {
                hi: 0,
                lo: u64::from(btree == BtreeId::ACCOUNTING),
            },
            ..Bkey::default()
        };
        Self {
            btree,
            level,
            key,
            value,
        }
    }

    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef {
            key: self.key,
            value: &self.value,
        }
    }
}

/// Runs a builder on a buffer full of ones and returns the words it says it used.
pub fn build(f: impl FnOnce(&mut [u64]) -> Result<usize, BuildError>) -> Vec<u64> {
    let mut words = [u64::MAX; 250];
    let n = f(&mut words).expect("buildable");
    words[..n].to_vec()
}

/// Bytes from hexadecimal digits; blanks are skipped.
pub fn hex(digits: &str) -> Vec<u8> {
    let d: Vec<u32> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap())
        .collect();
    d.chunks(2).map(|p| (p[0] << 4 | p[1]) as u8).collect()
}

/// Words from bytes, padded with zeros.
pub fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(8)
        .map(|c| {
            let mut w = [0; 8];
            w[..c.len()].copy_from_slice(c);
            u64::from_le_bytes(w)
        })
        .collect()
}
