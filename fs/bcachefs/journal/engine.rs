// SPDX-License-Identifier: GPL-2.0
//! The journal while it is written.
//!
//! A commit reserves room in the open entry ([`Journal::reserve`]), writes its records there, and gives the reservation back by
//! dropping it. An entry that is full, old, or asked for is closed; when all its reservations have been given back the writer makes a
//! journal entry of it and writes it. What a commit has changed in memory is pinned ([`Journal::pin`]) until it has been written
//! out: entries that are pinned are not overwritten. When room gets short, what holds the oldest entries is written out.
//!
//! | file | what |
//! |---|---|
//! | `word`, `slot`, `reserve` | reservations |
//! | `entry` | opening and closing entries |
//! | `compose`, `place`, `write`, `disk` | from records to an entry on disk |
//! | `ring`, `space`, `discard` | room |
//! | `pins`, `reclaim` | what is needed, and making room |
//! | `flush` | durability on demand |
//! | `make`, `stop`, `state`, `show` | the whole |

mod compose;
mod discard;
mod disk;
mod entry;
mod flush;
mod make;
mod pins;
mod place;
mod reclaim;
mod reserve;
mod ring;
mod show;
mod slot;
mod space;
mod state;
mod stop;
#[cfg(bcachefs_kunit)]
mod tests;
mod word;
mod write;

pub use self::{
    pins::{Pin, PinKind},
    reserve::{Blocked, Reservation},
    show::Snapshot,
};

use super::StartState;
use crate::{
    sb::{Devices, Super},
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{jset::build::EntryWriter, BtreeId, KeyRef};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Relaxed},
        Arc,
    },
};
use state::{Config, Core};

/// What the journal needs of those that use it.
pub trait JournalClient: Send + Sync {
    /// Most words that [`JournalClient::late_entries`] writes. Asked when the journal is made and whenever an entry has been
    /// composed, for those opened afterwards. May sleep, takes no lock of a node.
    fn late_u64s(&self) -> u32;

    /// Writes the records that every entry carries: roots of btrees, clocks, the time, the key version. Called when entry `seq`
    /// is about to be written; may sleep, takes no lock of a node. A root of a btree whose root was journalled in
    /// the entry itself is left out by the journal.
    fn late_entries(&self, seq: u64, out: &mut EntryWriter<'_>) -> Result;

    /// Takes note of the root of a btree that was journalled in entry `seq`. In order, before [`JournalClient::late_entries`] of that
    /// entry; may sleep, takes no lock of a node.
    fn root(&self, seq: u64, btree: BtreeId, level: u8, key: KeyRef<'_>) -> Result;

    /// Takes over a key that was journalled for the write buffer, `offset` words into entry `seq`. In order; may sleep.
    fn write_buffered(&self, seq: u64, offset: u32, btree: BtreeId, key: KeyRef<'_>) -> Result;

    /// Makes sure that the superblock lists journal replicas on `devs`. May sleep and write the superblock.
    fn mark_replicas(&self, devs: &[u8]) -> Result;

    /// Entries up to `seq` are durable. Process context, must not wait for the journal. Calls may overtake one another: a number
    /// lower than one before says nothing.
    fn flushed(&self, seq: u64);

    /// The journal has failed and accepts nothing any more. Process context, must not wait for the journal.
    fn failed(&self, error: Error);
}

/// Result of writing out what holds a pin.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PinFlush {
    /// Started or not needed any more; the pin goes away by itself.
    Done,
    /// Not possible now; ask again.
    Busy,
    /// The journal has failed, or waiting would be for oneself: the pass ends.
    Stop,
}

/// Writes out what keeps entries from being freed.
pub trait PinFlusher: Send + Sync {
    /// Writes out what the pin with `cookie` stands for, which pins `seq`. May sleep; commits with `journal_reclaim`.
    fn flush(&self, cookie: u64, seq: u64) -> PinFlush;

    /// How many pins should be written out in any case, however new the entries are that they hold. Does not sleep.
    fn excess(&self) -> u32 {
        0
    }
}

/// The journal.
pub struct Journal {
    core: Arc<Core>,
}

impl Journal {
    /// A journal that goes on after `start`, on the journals of `devices`. Writes nothing yet. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::JournalTooSmall`] if no device that may be written has a journal.
    pub fn new(
        sup: &Super,
        devices: Arc<Devices>,
        start: &StartState,
        client: Arc<dyn JournalClient>,
    ) -> Result<Arc<Self>> {
        let rings = make::rings(&devices, start)?;
        let first = start.replayed.map_or(start.next_seq, |r| r.0);
        let disk = Arc::new(disk::Members::new(devices)?, GFP_KERNEL)?;
        let core = Core::make(Config::new(sup)?, disk, rings, first, start.next_seq, client)?;
        Ok(Arc::new(Journal { core }, GFP_KERNEL)?)
    }

    /// Says who writes out pins of `kind`; before there are any.
    pub fn set_flusher(&self, kind: PinKind, flusher: Arc<dyn PinFlusher>) {
        let old = {
            let mut owners = self.core.owners.lock();
            let place = owners.flushers.get_mut(kind as usize);
            place.and_then(|place| place.replace(flusher))
        };
        drop(old);
    }

    /// Gives up the client and those who write out pins. After [`Journal::stop`], so that they can go away, who usually refer to the
    /// journal.
    pub fn detach(&self) {
        let old = {
            let mut owners = self.core.owners.lock();
            (owners.client.take(), core::mem::take(&mut owners.flushers))
        };
        drop(old);
    }

    /// Room for `u64s` words in the open entry. Does not sleep; node locks may be held.
    #[inline]
    pub fn reserve(
        &self,
        u64s: u32,
        watermark: Watermark,
    ) -> core::result::Result<Reservation<'_>, Blocked> {
        self.core.reserve(u64s, watermark)
    }

    /// Waits until [`Journal::reserve`] may succeed. Sleeps; no lock of a node may be held. With `reclaim`, for those that make
    /// room themselves, it does not wait for room below the watermark `Reclaim` but returns `false`.
    ///
    /// # Errors
    ///
    /// [`Error::JournalFailed`], also when the journal is found to be stuck meanwhile; [`Error::JournalTooSmall`] if no entry can
    /// hold that many words.
    pub fn wait(&self, u64s: u32, watermark: Watermark, reclaim: bool) -> Result<bool> {
        self.core.wait(u64s, watermark, reclaim)
    }

    /// Number of the newest entry begun, to which reservations go or went.
    #[inline]
    pub fn cur_seq(&self) -> u64 {
        self.core.cur_seq.load(Acquire)
    }

    /// Oldest entry that is needed; the next one if none is.
    #[inline]
    pub fn last_seq(&self) -> u64 {
        self.core.last_seq.load(Relaxed)
    }

    /// Newest entry that is durable.
    #[inline]
    pub fn flushed_seq(&self) -> u64 {
        self.core.flushed_seq.load(Acquire)
    }

    /// Makes entry `seq` durable. Sleeps; no lock of a node may be held.
    pub fn flush(&self, seq: u64) -> Result {
        self.core.flush(seq)
    }

    /// Starts what [`Journal::flush`] waits for. Does not sleep.
    pub fn flush_async(&self, seq: u64) {
        self.core.flush_async(seq);
    }

    /// Writes an entry and makes it durable, even if there is nothing to say. Sleeps.
    pub fn meta(&self) -> Result {
        self.core.meta()
    }

    /// Promises that entries `from..to` will not be flush entries: what only they refer to may be reused. `false` if one is
    /// already, or somebody waits for it, or one has not begun. Does not sleep.
    pub fn noflush_promise(&self, from: u64, to: u64) -> bool {
        self.core.noflush_promise(from, to)
    }

    /// Sees to it that the keys for the write buffer in entries up to `seq` have arrived there. Sleeps; no lock may be held that
    /// [`JournalClient::write_buffered`] takes.
    pub fn hand_over(&self, seq: u64) -> Result {
        self.core.hand_over(seq)
    }

    /// While the write buffer is full, only those who make room get reservations. Does not sleep.
    pub fn write_buffer_full(&self, full: bool) {
        let mut i = self.core.inner.lock();
        if i.write_buffer_full != full {
            i.write_buffer_full = full;
            self.core.update_space(&mut i);
        }
    }

    /// Adds `pin` at `seq` unless it holds an older entry. Does not sleep.
    #[inline]
    pub fn pin(&self, pin: &Arc<Pin>, seq: u64) {
        if pin.seq().is_none_or(|held| held > seq) {
            self.pin_move(pin, seq);
        }
    }

    /// Moves `pin` to `seq`. Does not sleep.
    pub fn pin_move(&self, pin: &Arc<Pin>, seq: u64) {
        let mut i = self.core.inner.lock();
        Core::pin_changes(&mut i, pin);
        i.pins.hold(pin, seq);
        self.core.pop_pins(&mut i);
    }

    /// Makes `to` hold what `from` holds, if that is older. Does not sleep.
    pub fn pin_copy(&self, to: &Arc<Pin>, from: &Arc<Pin>) {
        let mut i = self.core.inner.lock();
        let Some(seq) = from.seq() else { return };
        if to.seq().is_none_or(|held| held > seq) {
            Core::pin_changes(&mut i, to);
            i.pins.hold(to, seq);
            self.core.pop_pins(&mut i);
        }
    }

    /// Lets go. Does not sleep.
    pub fn unpin(&self, pin: &Arc<Pin>) {
        if pin.seq().is_none() {
            return;
        }
        let mut i = self.core.inner.lock();
        Core::pin_changes(&mut i, pin);
        let held = i.pins.release(pin);
        if held.is_some_and(|seq| seq == i.pins.front()) {
            self.core.pop_pins(&mut i);
        }
        // Somebody may wait for the last one.
        self.core.room.notify_all();
    }

    /// Waits until nobody writes out what `pin` stands for. Sleeps.
    pub fn pin_quiesce(&self, pin: &Arc<Pin>) {
        self.core.pin_quiesce(pin);
    }

    /// Writes out all pins up to `seq`, and waits until they are gone; whether there were any. What replay still holds is not
    /// waited for. Sleeps.
    pub fn flush_pins(&self, seq: u64) -> Result<bool> {
        self.core.flush_pins(seq)
    }

    /// Lets go of what replay held of entries before `seq`. Does not sleep.
    pub fn replayed(&self, seq: u64) {
        loop {
            let mut i = self.core.inner.lock();
            let all = i.pins.replayed(seq, 1024);
            self.core.pop_pins(&mut i);
            if all {
                break;
            }
        }
    }

    /// Starts making room, and writing. The superblock says already that the filesystem is in use: the first entry will be a flush
    /// entry. May sleep.
    pub fn start(&self) -> Result {
        self.core.start()
    }

    /// Has the reclaimer look whether there is something to write out. Does not sleep.
    pub fn kick_reclaim(&self) {
        self.core.kick_reclaim();
    }

    /// Whether only those who make room get any. Does not sleep.
    pub fn is_low(&self) -> bool {
        self.core.lowest() > Watermark::Stripe as u32
    }

    /// Accepts and writes nothing any more. Does not sleep.
    pub fn halt(&self, error: Error) {
        self.core.halt(error);
    }

    /// Whether it has failed.
    #[inline]
    pub fn failed(&self) -> bool {
        self.core.has_failed()
    }

    /// Ends writing: pins are flushed, the last entry is an empty flush entry that needs none before it (unless replay has not
    /// come to its end). Sleeps. Returns its sequence number. Nobody may commit meanwhile. [`Journal::start`] goes on.
    pub fn stop(&self) -> Result<u64> {
        self.core.stop()
    }

    /// Where the journal of a device goes on: the index in its list of buckets, and the sectors used in that one. `None` if it has
    /// none that is written. Does not sleep.
    pub fn position(&self, device: u8) -> Option<(u32, u32)> {
        let i = self.core.inner.lock();
        let ring = i.rings.iter().find(|ring| ring.device == device);
        ring.map(|ring| ring.position())
    }

    /// The state, to be printed. Does not sleep.
    pub fn snapshot(&self) -> Snapshot {
        self.core.show()
    }
}

#[cfg(bcachefs_kunit)]
impl Journal {
    /// A journal on one device in memory, whose next entry is `first_seq`, not started yet. `seen` gets the words of every entry when it
    /// has been written, before it counts as such.
    pub fn in_memory(
        client: Arc<dyn JournalClient>,
        first_seq: u64,
        buckets: u32,
        bucket_sectors: u32,
        seen: Arc<dyn Fn(&[u64]) + Send + Sync>,
    ) -> Result<Arc<Self>> {
        let core = tests::in_memory(client, first_seq, buckets, bucket_sectors, seen)?;
        Ok(Arc::new(Journal { core }, GFP_KERNEL)?)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Who stopped it before finds nothing to be done here. Otherwise what has not been written is lost, as in a crash.
        self.core.abandon();
    }
}
