// SPDX-License-Identifier: GPL-2.0
//! What the journal asks of the rest of the filesystem.

use bcachefs_format::{
    jset::{build::EntryWriter, entry::UsageKind},
    keys::data_type::DataType,
    sb::ReplicasEntry,
    BtreeId, KeyRef,
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLock,
    },
};

use super::{root_table::RootTable, writing::Writing};
use crate::{
    journal::{engine::JournalClient, StartState},
    sb::{LiveSuper, OnFailure},
    util::{
        error::{Error, Result},
        io_clock::{IoClocks, Rw},
        sort::sort_by_key,
    },
};

/// Words of the records other than roots: time, key version, two clocks.
const OTHER_U64S: usize = 2 + 2 + 3 + 3;

/// What goes into every entry, and the way from the journal to those who want to hear of it.
#[pin_data]
pub(super) struct FsJournalClient {
    live: Arc<LiveSuper>,
    clocks: Arc<IoClocks>,
    key_version: Atomic<u64>,
    roots: Pin<KBox<RootTable>>,
    /// Whom to tell; `None` before the filesystem is written and after the end.
    #[pin]
    writing: SpinLock<Option<Arc<Writing>>>,
}

impl FsJournalClient {
    /// Going on from `start`. May sleep.
    #[inline(never)]
    pub(super) fn new(
        start: &StartState,
        live: Arc<LiveSuper>,
        clocks: Arc<IoClocks>,
    ) -> Result<Arc<Self>> {
        let roots = RootTable::new(start)?;
        let key_version = start.key_version;
        Ok(Arc::pin_init(
            pin_init!(FsJournalClient {
                live,
                clocks,
                key_version: Atomic::new(key_version),
                roots,
                writing <- new_spinlock!(None, "journal_client"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Tells `writing` from now on.
    pub(super) fn attach(&self, writing: Option<Arc<Writing>>) {
        let old = core::mem::replace(&mut *self.writing.lock(), writing);
        drop(old);
    }

    fn writing(&self) -> Option<Arc<Writing>> {
        self.writing.lock().clone()
    }

    /// Most words of the records of a clean section.
    pub(super) fn clean_u64s(&self) -> usize {
        self.roots.u64s_max() + OTHER_U64S
    }

    /// Writes the records of a clean section: what every entry has, but the time. May sleep.
    pub(super) fn clean_records(&self, out: &mut EntryWriter<'_>) -> Result {
        out.usage(UsageKind::KEY_VERSION, self.key_version.load(Relaxed))
            .and_then(|()| out.clock(0, self.clocks.now(Rw::Read)))
            .and_then(|()| out.clock(1, self.clocks.now(Rw::Write)))
            .map_err(|_| Error::JournalFailed)?;
        self.roots.write(out)
    }
}

impl OnFailure for FsJournalClient {
    fn super_failed(&self, error: Error) {
        if let Some(journal) = self.writing().as_ref().and_then(|w| w.journal()) {
            journal.halt(error);
        }
    }
}

impl JournalClient for FsJournalClient {
    fn late_u64s(&self) -> u32 {
        u32::try_from(self.clean_u64s()).unwrap_or(u32::MAX)
    }

    fn root(&self, _seq: u64, btree: BtreeId, level: u8, key: KeyRef<'_>) -> Result {
        self.roots.note(btree, level, &key)
    }

    fn late_entries(&self, _seq: u64, out: &mut EntryWriter<'_>) -> Result {
        out.datetime(kfs::time::real_seconds())
            .map_err(|_| Error::JournalFailed)?;
        self.clean_records(out)
    }

    fn write_buffered(&self, seq: u64, offset: u32, btree: BtreeId, key: KeyRef<'_>) -> Result {
        let writing = self.writing().ok_or(Error::JournalFailed)?;
        writing.btree.write_buffer_push(seq, offset, btree, key)
    }

    fn mark_replicas(&self, devs: &[u8]) -> Result {
        let mut sorted = [0; 64];
        let devs = {
            let sorted = sorted.get_mut(..devs.len()).ok_or(Error::SuperInvalid)?;
            sorted.copy_from_slice(devs);
            sort_by_key(sorted, |d| *d);
            sorted
        };
        self.live.mark_replicas(core::iter::once(ReplicasEntry {
            data_type: DataType::JOURNAL,
            nr_required: 1,
            devs,
        }))
    }

    fn flushed(&self, seq: u64) {
        if let Some(writing) = self.writing() {
            writing.journal_flushed(seq);
        }
    }

    fn failed(&self, error: Error) {
        if let Some(writing) = self.writing() {
            writing.emergency(error);
        }
    }
}
