// SPDX-License-Identifier: GPL-2.0
//! From the records in a staging buffer to an entry as it is written.

use bcachefs_format::{
    jset::{
        entry::{Entry as Record, JournalKeys},
        EntryType, Jset, JsetBuilder, JsetError, NewJset, RawEntry, JSET_HEADER_BYTES,
    },
    BtreeId, KeyRef,
};
use bcachefs_format::jset::build::EntryWriter;
use kernel::{alloc::flags::__GFP_NOWARN, prelude::*};
use kfs::{block::IoBuf, mem::NofsScope};

use super::{
    slot::Entry,
    state::{Bufs, Core},
    word::SLOTS,
};
use crate::{
    fs_err,
    util::{
        checksum::Checksums,
        error::{Error, Result},
    },
};

const HEADER_U64S: usize = JSET_HEADER_BYTES / 8;

/// Room for late records beyond what was kept for them.
const LATE_SLACK_U64S: usize = 2048;

/// What [`tidy`] found.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
struct Tidied {
    /// Words that remain.
    used: usize,
    /// Btrees of which there are roots, as a mask.
    roots: u64,
    /// Whether there are keys.
    keys: bool,
}

/// A record that the client is to be told of.
enum Told<'a> {
    /// A key for the write buffer, so many words into the entry.
    Buffered(u32, BtreeId, KeyRef<'a>),
    /// The root of a btree, at a level.
    Root(BtreeId, u8, KeyRef<'a>),
}

/// Tidies up the records in `words`: empty ones go, keys for the write buffer become ordinary ones. Those and roots are shown to
/// `tell`.
fn tidy(words: &mut [u64], mut tell: impl FnMut(Told<'_>) -> Result) -> Result<Tidied> {
    let mut from = 0;
    let mut out = Tidied::default();
    while let Some(&head) = words.get(from) {
        let u64s = usize::from(head as u16);
        let (btree, kind) = (BtreeId((head >> 16) as u8), EntryType((head >> 32) as u8));
        let level = (head >> 24) as u8;
        let end = from + 1 + u64s;
        let payload = words.get(from + 1..end).ok_or(Error::JournalInvalid)?;
        let mut head = head;
        match kind {
            EntryType::WRITE_BUFFER_KEYS => {
                let mut keys = JournalKeys::over(payload);
                loop {
                    let at = from + 1 + keys.offset_u64s();
                    let Some(key) = keys.next() else { break };
                    // Entries have fewer than 2^20 words.
                    tell(Told::Buffered(at as u32, btree, key?))?;
                }
                head = RawEntry::header_word(EntryType::BTREE_KEYS, btree, level, u64s as u16);
                out.keys |= u64s != 0;
            }
            EntryType::BTREE_KEYS => out.keys |= u64s != 0,
            EntryType::BTREE_ROOT => {
                out.roots |= 1 << (btree.0 & 63);
                if let Some(key) = JournalKeys::over(payload).next() {
                    tell(Told::Root(btree, level, key?))?;
                }
            }
            _ => {}
        }
        // The empty root is a record that says something: the root is lost.
        if u64s != 0 || kind == EntryType::BTREE_ROOT {
            if let Some(to) = words.get_mut(out.used) {
                *to = head;
            }
            words.copy_within(from + 1..end, out.used + 1);
            out.used += 1 + u64s;
        }
        from = end;
    }
    Ok(out)
}

/// Drops root records of the btrees in the mask `have` from `words`. Returns the words that remain.
fn drop_roots(words: &mut [u64], have: u64) -> Result<usize> {
    let (mut from, mut used) = (0, 0);
    while let Some(&head) = words.get(from) {
        let end = from + 1 + usize::from(head as u16);
        if end > words.len() {
            return Err(Error::JournalInvalid);
        }
        let root = EntryType((head >> 32) as u8) == EntryType::BTREE_ROOT;
        if !(root && have >> (head >> 16 & 63) & 1 != 0) {
            words.copy_within(from..end, used);
            used += end - from;
        }
        from = end;
    }
    Ok(used)
}

/// Whether what is about to be written would be accepted by who reads it.
fn check(words: &[u64], magic: u64) -> core::result::Result<(), bcachefs_format::Invalid> {
    let jset = Jset::new(words)?.validate(magic)?;
    jset.check_last_seq()?;
    for record in jset.entries() {
        match record?.parse()? {
            Record::BtreeKeys(keys) | Record::Overwrite(keys) => {
                for key in keys {
                    key?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

impl From<JsetError> for Error {
    fn from(e: JsetError) -> Self {
        match e {
            JsetError::NoSpace => Error::JournalTooSmall,
            JsetError::BadKey => Error::JournalInvalid,
            JsetError::Checksum(_) => Error::Unsupported,
        }
    }
}

impl Core {
    /// Makes what entry `seq` is written from, in as many copies as there may be. The entry is ours: all reservations have
    /// been given back. Returns the bytes to be written, and whether there are keys. Sleeps.
    pub(super) fn compose(&self, entry: &Entry) -> Result<(usize, bool)> {
        let _scope = NofsScope::enter();
        let slot = (entry.seq % SLOTS as u64) as usize;
        let mut buf = self.take_buf()?;
        let result = self.fill(entry, slot, &mut buf);
        let mut bufs = self.bufs.lock();
        match bufs.composed.get_mut(slot) {
            Some(place) if result.is_ok() => *place = Some(buf),
            _ => {
                drop(bufs);
                self.give_back(buf);
            }
        }
        result
    }

    fn fill(&self, entry: &Entry, slot: usize, buf: &mut IoBuf) -> Result<(usize, bool)> {
        let client = self.client().ok_or(Error::JournalFailed)?;
        let words = buf.as_words_mut();
        let end = HEADER_U64S + entry.used as usize;
        let records = words.get_mut(HEADER_U64S..end).ok_or(Error::JournalTooSmall)?;
        let slot = self.slots.get(slot).ok_or(Error::JournalTooSmall)?;
        if !slot.words.load(0, records) {
            return Err(Error::JournalTooSmall);
        }
        let tidied = tidy(records, |told| match told {
            Told::Buffered(offset, btree, key) => {
                client.write_buffered(entry.seq, offset, btree, key)
            }
            Told::Root(btree, level, key) => client.root(entry.seq, btree, level, key),
        })?;
        let start = HEADER_U64S + tidied.used;
        let room = words.get_mut(start..).ok_or(Error::JournalTooSmall)?;
        let mut late = EntryWriter::new(room);
        client.late_entries(entry.seq, &mut late)?;
        let used = late.used();
        self.ask_late();
        let late = room.get_mut(..used).ok_or(Error::JournalTooSmall)?;
        // A root that was journalled here is the one that counts.
        let used = tidied.used + drop_roots(late, tidied.roots)?;
        let header = NewJset {
            magic: self.config.magic,
            seq: entry.seq,
            last_seq: entry.flush.then_some(entry.last_seq),
            version: self.config.version,
            csum_type: self.config.csum_type,
        };
        let block = self.config.block_bytes;
        let bytes = JsetBuilder::resume(words, used).finish(&header, block, &Checksums, None)?;
        if let Err(e) = check(words, self.config.magic) {
            fs_err!(self.config.uuid, "journal entry {} is not fit to be written: {e}", entry.seq);
            return Err(Error::JournalInvalid);
        }
        Ok((bytes, tidied.keys))
    }

    /// A copy of what [`Core::compose`] made, or the thing itself if it is the `last` one that is wanted.
    pub(super) fn copy(&self, seq: u64, bytes: usize, last: bool) -> Result<IoBuf> {
        let slot = (seq % SLOTS as u64) as usize;
        if last {
            let mut bufs = self.bufs.lock();
            let place = bufs.composed.get_mut(slot);
            return place.and_then(Option::take).ok_or(Error::JournalInvalid);
        }
        let mut copy = self.take_buf()?;
        let bufs = self.bufs.lock();
        let from = bufs.composed.get(slot).and_then(|b| b.as_ref()).and_then(|b| b.as_bytes().get(..bytes));
        let to = copy.as_bytes_mut().get_mut(..bytes);
        let (Some(from), Some(to)) = (from, to) else {
            return Err(Error::JournalInvalid);
        };
        to.copy_from_slice(from);
        Ok(copy)
    }

    /// Forgets what was composed for entry `seq`. Sleeps.
    pub(super) fn forget(&self, seq: u64) {
        let slot = (seq % SLOTS as u64) as usize;
        let buf = self.bufs.lock().composed.get_mut(slot).and_then(Option::take);
        if let Some(buf) = buf {
            self.give_back(buf);
        }
    }

    /// A buffer to write from. Sleeps.
    fn take_buf(&self) -> Result<IoBuf> {
        let (buf, bytes) = {
            let mut bufs = self.bufs.lock();
            (bufs.spare.pop(), bufs.bytes)
        };
        match buf {
            Some(buf) => Ok(buf),
            None => Ok(IoBuf::new(bytes, GFP_KERNEL)?),
        }
    }

    /// A buffer is not used any more. Sleeps.
    pub(super) fn give_back(&self, buf: IoBuf) {
        let mut bufs = self.bufs.lock();
        if buf.len() < bufs.bytes {
            return;
        }
        // More than there is room for have been made in need.
        let _ = bufs.spare.push_within_capacity(buf);
    }

    /// Has buffers to write from that hold what staging buffers of `u64s` words do. Sleeps.
    pub(super) fn grow_bufs(&self, u64s: u32) -> Result {
        let bytes = self.buf_bytes(u64s);
        let mut fresh = KVec::with_capacity(self.spares(), GFP_KERNEL)?;
        for _ in 0..self.spares() {
            fresh.push(IoBuf::new(bytes, GFP_KERNEL | __GFP_NOWARN)?, GFP_KERNEL)?;
        }
        let old = {
            let mut bufs = self.bufs.lock();
            let Bufs { spare, bytes: size, .. } = &mut *bufs;
            *size = bytes;
            core::mem::replace(spare, fresh)
        };
        drop(old);
        Ok(())
    }

    /// Bytes of a buffer for staging buffers of `u64s` words.
    fn buf_bytes(&self, u64s: u32) -> usize {
        let late = self.late() as usize;
        let words = HEADER_U64S + u64s as usize + late.max(LATE_SLACK_U64S);
        (words * 8).next_multiple_of(self.config.block_bytes)
    }

    /// Buffers that can be in use at once.
    fn spares(&self) -> usize {
        SLOTS * self.config.copies.max(1)
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_compose)]
mod tests {
    use super::*;
    use bcachefs_format::{Bkey, Bpos, KeyType};

    fn key(inode: u64) -> Bkey {
        Bkey { u64s: 6, key_type: KeyType::COOKIE, ..Bkey::deleted(Bpos::new(inode, 1)) }
    }

    #[test]
    fn empty_records_go_and_buffered_keys_are_shown() -> kernel::error::Result {
        let mut words = [0u64; 64];
        let mut w = EntryWriter::new(&mut words);
        let add = |w: &mut EntryWriter<'_>, kind, inode| {
            let key = KeyRef { key: key(inode), value: &[inode] };
            w.key(kind, BtreeId(5), 0, &key).is_ok()
        };
        assert!(w.record(EntryType::BTREE_KEYS, BtreeId(0), 0, &[]).is_ok());
        assert!(add(&mut w, EntryType::BTREE_KEYS, 1));
        for _ in 0..3 {
            assert!(w.record(EntryType::BTREE_KEYS, BtreeId(0), 0, &[]).is_ok());
        }
        assert!(add(&mut w, EntryType::WRITE_BUFFER_KEYS, 2));
        assert!(w.record(EntryType::BTREE_ROOT, BtreeId(3), 0, &[]).is_ok());
        assert!(w.record(EntryType::WRITE_BUFFER_KEYS, BtreeId(0), 0, &[]).is_ok());
        let used = w.used();
        let mut seen = 0;
        let mut at = 0;
        let tidied = tidy(&mut words[..used], |told| {
            if let Told::Buffered(offset, btree, key) = told {
                seen = key.key.pos.inode * 10 + u64::from(btree.0);
                at = offset;
            }
            Ok(())
        });
        let tidied = tidied.map_err(|e| e.errno())?;
        assert_eq!((seen, at), (25, 1 + 7 + 3 + 1));
        assert_eq!(tidied, Tidied { used: 7 + 7 + 1, roots: 8, keys: true });
        let kinds = |words: &[u64]| {
            let mut all = 0;
            for r in bcachefs_format::jset::Entries::new(words) {
                all = all * 100 + r.map_or(99, |r| u64::from(r.entry_type.0) * 10 + r.payload.len() as u64);
            }
            all
        };
        assert_eq!(kinds(&words[..tidied.used]), 60610);
        Ok(())
    }

    #[test]
    fn journalled_roots_come_before_late_ones() -> kernel::error::Result {
        let mut words = [0u64; 32];
        let mut w = EntryWriter::new(&mut words);
        for btree in [1, 2, 3] {
            assert!(w.record(EntryType::BTREE_ROOT, BtreeId(btree), 0, &[&[7]]).is_ok());
        }
        assert!(w.datetime(5).is_ok());
        let used = w.used();
        let used = drop_roots(&mut words[..used], 1 << 2).map_err(|e| e.errno())?;
        assert_eq!(used, 6);
        assert_eq!(words[2] >> 16 & 0xff, 3);
        assert!(drop_roots(&mut [0xffff], 0).is_err());
        assert!(tidy(&mut [0xffff], |_| Ok(())).is_err());
        Ok(())
    }
}
