// SPDX-License-Identifier: GPL-2.0
//! The roots of all btrees as the journal has them.
//!
//! Every entry of the journal holds all roots as of itself: not those in memory, which may be newer and be in a later entry that is
//! never written. So the table changes only when an entry that has a new root is about to be written.

use bcachefs_format::{bkey::BKEY_U64S, jset::build::EntryWriter, Bkey, BtreeId, KeyRef};
use kernel::{new_mutex, prelude::*, sync::Mutex};

use crate::{
    journal::{
        start::{BTREE_ROOTS_MAX, BTREE_DEPTH_MAX},
        RootState, StartState,
    },
    util::error::{Error, Result},
};

/// Most words of a pointer to a node, header and value.
const PTR_U64S_MAX: usize = BKEY_U64S as usize + 9;

/// One root.
#[derive(Copy, Clone)]
struct Entry {
    level: u8,
    u64s: u8,
    words: [u64; PTR_U64S_MAX],
}

impl Entry {
    fn new(level: u8, key: &KeyRef<'_>) -> Option<Self> {
        let mut words = [0; PTR_U64S_MAX];
        let header = key.key.to_words();
        let n = header.len() + key.value.len();
        let (head, rest) = words.get_mut(..n)?.split_at_mut_checked(header.len())?;
        head.copy_from_slice(&header);
        rest.copy_from_slice(key.value);
        (level < BTREE_DEPTH_MAX).then_some(Entry {
            level,
            u64s: n as u8,
            words,
        })
    }

    fn key(&self) -> Option<KeyRef<'_>> {
        let words = self.words.get(..usize::from(self.u64s))?;
        let (header, value) = words.split_first_chunk::<{ BKEY_U64S as usize }>()?;
        Some(KeyRef {
            key: Bkey::from_words(header),
            value,
        })
    }
}

/// The table.
#[pin_data]
pub(super) struct RootTable {
    #[pin]
    entries: Mutex<KVec<Option<Entry>>>,
}

impl RootTable {
    /// The roots that `start` has. May sleep.
    pub(super) fn new(start: &StartState) -> Result<Pin<KBox<Self>>> {
        let mut entries = KVec::with_capacity(BTREE_ROOTS_MAX, GFP_KERNEL)?;
        for id in (0..BTREE_ROOTS_MAX as u8).map(BtreeId) {
            let entry = match start.root(id) {
                RootState::At(root) => {
                    let (header, value) = root
                        .key
                        .split_first_chunk::<{ BKEY_U64S as usize }>()
                        .ok_or(Error::BtreeRootMissing)?;
                    let key = KeyRef {
                        key: Bkey::from_words(header),
                        value,
                    };
                    Some(Entry::new(root.level, &key).ok_or(Error::BtreeRootMissing)?)
                }
                // What is lost is not made up for; such filesystems are not written.
                RootState::Absent | RootState::Lost => None,
            };
            entries.push(entry, GFP_KERNEL)?;
        }
        Ok(KBox::pin_init(
            pin_init!(RootTable {
                entries <- new_mutex!(entries, "journal_roots"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Notes the root of `btree` that an entry about to be written has. May sleep.
    pub(super) fn note(&self, btree: BtreeId, level: u8, key: &KeyRef<'_>) -> Result {
        let entry = Entry::new(level, key).ok_or(Error::BtreeRootMissing)?;
        match self.entries.lock().get_mut(usize::from(btree.0)) {
            Some(slot) => {
                *slot = Some(entry);
                Ok(())
            }
            None => Err(Error::BtreeRootMissing),
        }
    }

    /// Most words that [`RootTable::write`] writes.
    pub(super) fn u64s_max(&self) -> usize {
        // Btrees that are known may get a root at any time, others have one or have not.
        let entries = self.entries.lock();
        let possible = entries.iter().enumerate();
        let possible = possible.filter(|(id, e)| BtreeId(*id as u8).is_known() || e.is_some());
        possible.count() * (1 + PTR_U64S_MAX)
    }

    /// Writes all roots as records. May sleep.
    pub(super) fn write(&self, out: &mut EntryWriter<'_>) -> Result {
        for (id, entry) in self.entries.lock().iter().enumerate() {
            let Some(entry) = entry else { continue };
            let key = entry.key().ok_or(Error::BtreeRootMissing)?;
            out.root(BtreeId(id as u8), entry.level, &key)
                .map_err(|_| Error::JournalFailed)?;
        }
        Ok(())
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_init_root_table)]
mod tests {
    use super::*;
    use bcachefs_format::{jset::entry::Entries, Bpos, Entry as Record, KeyType};

    fn pointer(seq: u64) -> [u64; 6] {
        [0, seq, 0, 0, 0, 0]
    }

    #[test]
    fn roots_are_written_as_noted() -> kernel::error::Result {
        let err = |e: Error| e.errno();
        let table = RootTable::new(&StartState::new().map_err(err)?).map_err(err)?;
        let value = pointer(5);
        let key = KeyRef {
            key: Bkey {
                u64s: 11,
                key_type: KeyType::BTREE_PTR_V2,
                ..Bkey::deleted(Bpos::SPOS_MAX)
            },
            value: &value,
        };
        table.note(BtreeId::INODES, 1, &key).map_err(err)?;
        let value = pointer(6);
        let newer = KeyRef { value: &value, ..key };
        table.note(BtreeId::INODES, 2, &newer).map_err(err)?;
        table.note(BtreeId(40), 0, &key).map_err(err)?;
        assert!(table.note(BtreeId(63), 0, &key).is_err());
        assert!(table.note(BtreeId::INODES, BTREE_DEPTH_MAX, &key).is_err());

        let mut words = [0u64; 1024];
        let most = table.u64s_max();
        let mut out = EntryWriter::new(&mut words[..most]);
        table.write(&mut out).map_err(err)?;
        let used = out.used();
        let mut seen = KVec::new();
        for raw in Entries::new(&words[..used]) {
            let raw = raw.map_err(|_| EINVAL)?;
            if let Ok(Record::BtreeRoot(Some(key))) = raw.parse() {
                seen.push((raw.btree.0, raw.level, key.value[1]), GFP_KERNEL)?;
            }
        }
        assert_eq!(&seen[..], &[(BtreeId::INODES.0, 2, 6), (40, 0, 5)]);
        Ok(())
    }
}
