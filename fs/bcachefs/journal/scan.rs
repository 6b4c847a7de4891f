// SPDX-License-Identifier: GPL-2.0
//! Finding the entries of the journal on all devices.
//!
//! A journal is a ring of buckets on every device. Entries follow one another within a bucket, sequence
//! numbers ascend along the ring, and what is left of an earlier lap has lower numbers. So the first block
//! of each bucket is enough to know which buckets can matter: buckets are then read from the newest on
//! down, until everything back to where replay starts has been seen. If that leaves gaps, all others are
//! read, too: a damaged first block must not hide the rest of its bucket's ring.
//!
//! Only where entries are is remembered, not what is in them: memory stays small however large the journal.

use bcachefs_format::jset::{DiskJset, Jset, JSET_BYTES_MAX};
use zerocopy::{FromBytes as _, IntoBytes as _};
use kernel::prelude::*;

use super::{
    range::Candidate,
    start::RingStart,
    window::{ReadAhead, Window},
    Blacklist,
};
use crate::{
    fs_err, fs_warn,
    sb::{device::IoErrorKind, Device, Devices, Super},
    util::{
        checksum::Checksums,
        error::{Error, Result},
        sort::sort_by_key,
    },
};

/// Most buckets of a device's journal that are looked at.
const BUCKETS_MAX: u64 = 1 << 20;

/// Messages about entries; what is damaged more than that is just damaged.
const MESSAGES_MAX: u32 = 50;

/// Ends a long scan when whoever mounts wants to end.
fn check_signals() -> Result {
    match kernel::current!().signal_pending() {
        true => Err(Error::Kernel(kernel::error::code::EINTR)),
        false => Ok(()),
    }
}

/// A copy of an entry on a device.
#[derive(Copy, Clone)]
pub(super) struct Located {
    pub(super) seq: u64,
    last_seq: u64,
    csum_lo: u64,
    /// First sector of the bucket.
    pub(super) bucket_sector: u64,
    /// Offset in the bucket.
    pub(super) at: u32,
    pub(super) bytes: u32,
    pub(super) device: u8,
    flush: bool,
    pub(super) good: bool,
}

/// A bucket that begins with an entry.
#[derive(Copy, Clone)]
struct Bucket {
    device: u8,
    sector: u64,
    /// Index in the ring.
    index: u32,
    first_seq: u64,
    /// Its entries are below this number, as far as the ring tells.
    below: u64,
}

/// A scan in progress.
pub(super) struct Scan<'a> {
    sup: &'a Super,
    devices: &'a Devices,
    blacklist: &'a Blacklist,
    window: Window,
    /// Not read yet, by ascending `first_seq`.
    buckets: KVVec<Bucket>,
    /// What was found out about the rings.
    rings: KVec<RingStart>,
    /// The newest bucket read of each ring: its first sequence number.
    newest: KVec<u64>,
    found: KVVec<Located>,
    /// Newest good flush entry so far: its own number and the oldest it needs.
    best: Option<(u64, u64)>,
    /// Devices with unreadable parts.
    read_errors: u32,
    /// Buckets read as a whole.
    buckets_read: u32,
    /// Messages about damaged entries.
    messages: u32,
}

impl<'a> Scan<'a> {
    /// Looks at the first block of every journal bucket. May sleep.
    #[inline(never)]
    pub(super) fn new(sup: &'a Super, devices: &'a Devices, blacklist: &'a Blacklist) -> Result<Self> {
        let mut scan = Scan {
            sup,
            devices,
            blacklist,
            window: Window::new()?,
            buckets: KVVec::new(),
            rings: KVec::new(),
            newest: KVec::new(),
            found: KVVec::new(),
            best: None,
            read_errors: 0,
            buckets_read: 0,
            messages: 0,
        };
        for device in devices.iter() {
            scan.heads(device)?;
        }
        sort_by_key(&mut scan.buckets, |b| b.first_seq);
        Ok(scan)
    }

    /// The entries found, by sequence number, of each number the good copies first; and the window to read
    /// them through.
    pub(super) fn found(&mut self) -> (&[Located], &mut Window) {
        sort_by_key(&mut self.found, |l| (l.seq, !l.good, l.device));
        (&self.found, &mut self.window)
    }

    /// One candidate for each sequence number. Reports copies that contradict each other.
    #[inline(never)]
    pub(super) fn candidates(&mut self) -> Result<KVVec<Candidate>> {
        let (sup, blacklist) = (self.sup, self.blacklist);
        let mut candidates: KVVec<Candidate> = KVVec::new();
        let mut prev: Option<Located> = None;
        let mut messages = 0;
        for l in self.found().0 {
            if let Some(p) = prev.filter(|p| p.seq == l.seq) {
                if messages == MESSAGES_MAX {
                    continue;
                }
                messages += 1;
                if p.good && l.good && p.csum_lo != l.csum_lo {
                    fs_warn!(
                        sup,
                        "journal entry {} differs between devices {} and {}",
                        l.seq,
                        p.device,
                        l.device
                    );
                } else if p.device == l.device {
                    fs_warn!(sup, "journal entry {} is on device {} twice", l.seq, l.device);
                }
                continue;
            }
            let listed = blacklist.contains(l.seq);
            if listed && l.flush && l.good {
                fs_warn!(sup, "journal entry {} is blacklisted but was written with a flush", l.seq);
            }
            candidates.push(
                Candidate {
                    seq: l.seq,
                    last_seq: l.last_seq,
                    flush: l.flush && !listed,
                    good: l.good,
                },
                GFP_KERNEL,
            )?;
            prev = Some(*l);
        }
        Ok(candidates)
    }

    /// Reads the buckets that can hold entries of the range to be replayed. May sleep.
    #[inline(never)]
    pub(super) fn read_needed(&mut self) -> Result {
        // From the newest on down. The others stay for `read_all`.
        let mut skipped = KVVec::new();
        while let Some(bucket) = self.buckets.pop() {
            if self.best.is_some_and(|best| bucket.below <= best.1) {
                skipped.push(bucket, GFP_KERNEL)?;
            } else {
                self.read_bucket(&bucket)?;
            }
        }
        self.buckets = skipped;
        Ok(())
    }

    /// Reads every bucket not read yet. Returns whether there was any.
    #[inline(never)]
    pub(super) fn read_all(&mut self) -> Result<bool> {
        let any = !self.buckets.is_empty();
        while let Some(bucket) = self.buckets.pop() {
            self.read_bucket(&bucket)?;
        }
        Ok(any)
    }

    /// Whether parts of the journal could not be read.
    pub(super) fn had_read_errors(&self) -> bool {
        self.read_errors != 0
    }

    fn bucket_bytes(device: &Device) -> usize {
        usize::from(device.bucket_sectors) << 9
    }

    fn heads(&mut self, device: &Device) -> Result {
        let magic = self.sup.jset_magic();
        let block = self.sup.block_bytes() as usize;
        let first = self.buckets.len();
        let mut looked_at = 0;
        let mut unreadable = 0u64;
        for &(start, nr) in device.journal.iter() {
            for bucket in start..start.saturating_add(nr) {
                looked_at += 1;
                if looked_at > BUCKETS_MAX {
                    fs_err!(device, "journal has more than {BUCKETS_MAX} buckets");
                    return Err(Error::JournalTooBig);
                }
                if looked_at % 256 == 0 {
                    check_signals()?;
                }
                let sector = device.bucket_start(bucket);
                let bytes = Self::bucket_bytes(device);
                let Ok(words) = self
                    .window
                    .get(device, sector, bytes, 0, block, ReadAhead::No)
                else {
                    unreadable += 1;
                    continue;
                };
                let Some(head) = header_of(words).filter(|j| j.magic.get() == magic) else {
                    continue;
                };
                self.buckets.push(
                    Bucket {
                        device: device.index,
                        sector,
                        // BUCKETS_MAX is less than 2^32.
                        index: looked_at as u32 - 1,
                        first_seq: head.seq.get(),
                        below: u64::MAX,
                    },
                    GFP_KERNEL,
                )?;
            }
        }
        if unreadable != 0 {
            self.read_errors += 1;
            fs_err!(device, "{unreadable} journal buckets cannot be read");
        }
        // Along the ring, the next bucket's first entry bounds what a bucket can hold. A drop in the numbers
        // is where the ring ends, or damage: the bound is unknown then.
        let ring = self.buckets.get_mut(first..).unwrap_or(&mut []);
        for i in 0..ring.len() {
            let next = ring.get((i + 1) % ring.len()).map_or(0, |b| b.first_seq);
            if let Some(b) = ring.get_mut(i) {
                if next > b.first_seq {
                    b.below = next;
                }
            }
        }
        let mut start = RingStart::new(device.index);
        start.seqs.resize(looked_at as usize, 0, GFP_KERNEL)?;
        for b in self.buckets.get(first..).unwrap_or(&[]) {
            if let Some(seq) = start.seqs.get_mut(b.index as usize) {
                *seq = b.below.saturating_sub(1);
            }
        }
        self.rings.push(start, GFP_KERNEL)?;
        self.newest.push(0, GFP_KERNEL)?;
        Ok(())
    }

    /// Where the journals go on, if `newest` is the newest entry there is. To be called once, at the end.
    #[inline(never)]
    pub(super) fn rings(&mut self, newest: u64) -> Result<KVec<RingStart>> {
        for ring in self.rings.iter_mut() {
            for seq in ring.seqs.iter_mut() {
                *seq = newest.min(*seq);
            }
        }
        Ok(core::mem::replace(&mut self.rings, KVec::new()))
    }

    /// `bucket` has been read, up to the entry that ends after `end` bytes.
    fn bucket_ends(&mut self, bucket: &Bucket, end: usize) {
        let mut rings = self.rings.iter_mut().zip(self.newest.iter_mut());
        let ring = rings.find(|r| r.0.device == bucket.device);
        if let Some((ring, newest)) = ring.filter(|r| *r.1 <= bucket.first_seq) {
            *newest = bucket.first_seq;
            ring.bucket = bucket.index;
            // Not more than a bucket, of less than 2^16 sectors.
            ring.used = (end >> 9) as u32;
        }
    }

    fn read_bucket(&mut self, bucket: &Bucket) -> Result {
        let Some(device) = self.devices.get(bucket.device) else {
            return Ok(());
        };
        self.buckets_read = self.buckets_read.wrapping_add(1);
        if self.buckets_read % 256 == 0 {
            check_signals()?;
        }
        let device: &Device = device;
        let magic = self.sup.jset_magic();
        let block = self.sup.block_bytes() as usize;
        let bucket_bytes = Self::bucket_bytes(device);
        let read_errors = self.read_errors;
        let mut at = 0;
        let mut end = 0;
        let mut last_seq = 0;
        let mut damaged = false;
        while at + block <= bucket_bytes {
            let Ok(words) = self.window.get(
                device,
                bucket.sector,
                bucket_bytes,
                at,
                block,
                ReadAhead::Yes,
            ) else {
                self.read_errors += 1;
                break;
            };
            let Some(head) = header_of(words).filter(|j| j.magic.get() == magic).copied() else {
                if !damaged {
                    break;
                }
                at += block;
                continue;
            };
            let bytes = head.bytes();
            if bytes > JSET_BYTES_MAX || bytes > bucket_bytes - at {
                self.messages = self.messages.saturating_add(1);
                if self.messages <= MESSAGES_MAX {
                    fs_err!(
                        device,
                        "journal entry {} at sector {} claims {bytes} bytes, at most {} are possible",
                        head.seq.get(),
                        bucket.sector + at as u64 / 512,
                        JSET_BYTES_MAX.min(bucket_bytes - at)
                    );
                }
                damaged = true;
                at += block;
                continue;
            }
            if head.seq.get() < last_seq {
                break;
            }
            last_seq = head.seq.get();
            let entry = self.window.get(
                device,
                bucket.sector,
                bucket_bytes,
                at,
                bytes,
                ReadAhead::Yes,
            );
            let Ok(entry) = entry else {
                self.read_errors += 1;
                break;
            };
            let verdict = Jset::new(entry).and_then(|jset| jset.verify(&Checksums).map(|()| jset));
            let good = match verdict {
                Ok(jset) => {
                    if let Err(e) = jset.validate(magic) {
                        fs_err!(device, "journal entry {}: {e}", head.seq.get());
                        return Err(Error::SuperVersion);
                    }
                    true
                }
                Err(e) => {
                    self.messages = self.messages.saturating_add(1);
                    if self.messages <= MESSAGES_MAX {
                        fs_warn!(
                            device,
                            "journal entry {} at sector {}: {e}",
                            head.seq.get(),
                            bucket.sector + at as u64 / 512
                        );
                    }
                    damaged = true;
                    device.count_error(IoErrorKind::Checksum);
                    false
                }
            };
            self.remember(Located {
                seq: head.seq.get(),
                last_seq: head.last_seq.get(),
                csum_lo: head.csum.lo.get(),
                bucket_sector: bucket.sector,
                at: at as u32,
                bytes: bytes as u32,
                device: device.index,
                flush: !head.is_no_flush(),
                good,
            })?;
            at = at.saturating_add(bytes.next_multiple_of(block));
            end = at;
        }
        // Nothing is appended to what is damaged.
        let unsure = damaged || self.read_errors != read_errors;
        self.bucket_ends(bucket, if unsure { bucket_bytes } else { end.min(bucket_bytes) });
        Ok(())
    }

    fn remember(&mut self, l: Located) -> Result {
        let counts = l.good && l.flush && !self.blacklist.contains(l.seq);
        if counts && self.best.is_none_or(|best| l.seq > best.0) {
            self.best = Some((l.seq, l.last_seq.min(l.seq)));
        }
        if self.best.is_some_and(|best| l.seq < best.1) {
            return Ok(());
        }
        self.found.push(l, GFP_KERNEL | __GFP_NOWARN)?;
        Ok(())
    }
}

/// The header at the start of `words`.
pub(super) fn header_of(words: &[u64]) -> Option<&DiskJset> {
    Some(DiskJset::ref_from_prefix(words.as_bytes()).ok()?.0)
}
