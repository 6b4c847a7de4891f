// SPDX-License-Identifier: GPL-2.0
//! Members: the devices of a filesystem.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::field::FIELD_HEADER_BYTES;
use super::{Field, FieldType};
use crate::error::Invalid;
use crate::magic::Uuid;
use crate::super_block::SuperBlock;

/// A member as stored (144 bytes). Older filesystems store less of it, newer ones may store more.
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Member {
    /// Zero in an empty slot.
    pub uuid: Uuid,
    /// Buckets on the device.
    pub nbuckets: U64,
    /// First bucket that may be used.
    pub first_bucket: U16,
    /// Sectors of a bucket.
    pub bucket_size: U16,
    /// Each bit of the bitmap covers `1 << shift` sectors.
    pub btree_bitmap_shift: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Seconds.
    pub last_mount: U64,
    /// State, discard, data allowed, group, durability.
    pub flags: U64,
    /// Sequential read, sequential write, random read, random write.
    pub iops: [U32; 4],
    /// Read, write and checksum errors.
    pub errors: [U64; 3],
    /// The same when they were last reset.
    pub errors_at_reset: [U64; 3],
    /// When, in seconds.
    pub errors_reset_time: U64,
    /// Sequence number of the superblock when this device was last written.
    pub seq: U64,
    /// Where on the device btree nodes may be.
    pub btree_allocated_bitmap: U64,
    /// Index into the list of journal buckets, after a clean shutdown.
    pub last_journal_bucket: U32,
    /// Sectors used in that bucket.
    pub last_journal_bucket_offset: U32,
}

/// Bytes of a member in the first field, and of this version in the second.
pub const MEMBER_V1_BYTES: usize = 56;
/// Bytes of a member as this version writes it.
pub const MEMBER_BYTES: usize = core::mem::size_of::<Member>();
/// Fewest buckets a device can have.
pub const BUCKETS_MIN: u64 = 64;
/// Most buckets a device can have.
pub const BUCKETS_MAX: u64 = (1 << 31) - 1 - 64;

const V2_ENTRIES_AT: usize = 16;

const _: () = {
    assert!(MEMBER_BYTES == 144);
    assert!(core::mem::offset_of!(Member, flags) == 40);
    assert!(core::mem::offset_of!(Member, errors) == 64);
    assert!(core::mem::offset_of!(Member, seq) == 120);
    assert!(core::mem::offset_of!(Member, last_journal_bucket) == 136);
};

/// State of a member. Open.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct MemberState(pub u8);

impl MemberState {
    /// In use.
    pub const RW: MemberState = MemberState(0);
    /// Only read.
    pub const RO: MemberState = MemberState(1);
    /// Not readable.
    pub const FAILED: MemberState = MemberState(2);
    /// Not used yet.
    pub const SPARE: MemberState = MemberState(3);

    /// Whether the device holds data that is needed, so that it has to be there for mounting.
    pub const fn is_needed(self) -> bool {
        self.0 <= Self::RO.0
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RW => f.write_str("rw"),
            Self::RO => f.write_str("ro"),
            Self::FAILED => f.write_str("failed"),
            Self::SPARE => f.write_str("spare"),
            MemberState(n) => write!(f, "(unknown state {n})"),
        }
    }
}

impl Member {
    /// An empty slot.
    pub fn empty() -> Self {
        Member::new_zeroed()
    }

    /// Whether the slot holds a device.
    pub fn exists(&self) -> bool {
        !self.uuid.is_nil()
    }

    fn bits(&self, lo: u32, hi: u32) -> u8 {
        (self.flags.get() >> lo & ((1 << (hi - lo)) - 1)) as u8
    }

    /// State.
    pub fn state(&self) -> MemberState {
        MemberState(self.bits(0, 4))
    }

    /// Whether freed buckets are discarded.
    pub fn discard(&self) -> bool {
        self.bits(14, 15) != 0
    }

    /// Bit k: data of type k may be put here.
    pub fn data_allowed(&self) -> u8 {
        self.bits(15, 20)
    }

    /// Index of the disk group, if any.
    pub fn group(&self) -> Option<u8> {
        self.bits(20, 28).checked_sub(1)
    }

    /// How many replicas a copy on this device counts for.
    pub fn durability(&self) -> u8 {
        self.bits(28, 30).checked_sub(1).unwrap_or(1)
    }

    /// Whether the freespace btree covers this device.
    pub fn freespace_initialized(&self) -> bool {
        self.bits(30, 31) != 0
    }

    /// The flags word of a device in state rw, with these properties.
    pub fn make_flags(
        state: MemberState,
        discard: bool,
        data_allowed: u8,
        group: Option<u8>,
        durability: u8,
        freespace_initialized: bool,
    ) -> U64 {
        U64::new(
            u64::from(state.0 & 0xf)
                | u64::from(discard) << 14
                | u64::from(data_allowed & 0x1f) << 15
                | group.map_or(0, |g| u64::from(g.saturating_add(1))) << 20
                | u64::from(durability.min(2) + 1) << 28
                | u64::from(freespace_initialized) << 30,
        )
    }

    /// Sectors the device must have.
    pub fn sectors(&self) -> u64 {
        self.nbuckets
            .get()
            .saturating_mul(self.bucket_size.get().into())
    }

    /// Notes that btree nodes may lie in sectors `start..end`. The map gets coarser when it does not reach as far.
    pub fn cover_bitmap(&mut self, start: u64, end: u64) {
        let mut shift = u32::from(self.btree_bitmap_shift).min(57);
        let mut map = self.btree_allocated_bitmap.get();
        while shift < 57 && end.saturating_sub(1) >> shift >= 64 {
            // Every bit stands for what two stood for.
            let mut coarser = 0;
            for bit in 0..64 {
                coarser |= (map >> bit & 1) << (bit / 2);
            }
            map = coarser;
            shift += 1;
        }
        let last = (end.saturating_sub(1) >> shift).min(63);
        for bit in (start >> shift)..=last {
            map |= 1 << bit;
        }
        self.btree_bitmap_shift = shift as u8;
        self.btree_allocated_bitmap = U64::new(map);
    }

    /// Sets whether the freespace btree covers this device.
    pub fn set_freespace_initialized(&mut self, on: bool) {
        let bit = 1 << 30;
        let flags = self.flags.get();
        self.flags = U64::new(if on { flags | bit } else { flags & !bit });
    }

    /// Whether btree nodes may lie in sectors `start..end`.
    pub fn bitmap_covers(&self, start: u64, end: u64) -> bool {
        let shift = u32::from(self.btree_bitmap_shift).min(63);
        let (first, last) = (start >> shift, end.saturating_sub(1) >> shift);
        let map = self.btree_allocated_bitmap.get();
        last < 64 && (first..=last).all(|bit| map >> bit & 1 != 0)
    }

    /// Checks one member. Errors count bytes from its start.
    pub fn validate(&self, block_size: u64, node_size: u64) -> Result<(), Invalid> {
        let n = self.nbuckets.get();
        let bucket = u64::from(self.bucket_size.get());
        let bad = |what, at, got, want| Err(Invalid::plain(what, at, got, want));
        if n > BUCKETS_MAX {
            return bad("member: too many buckets", 16, n, BUCKETS_MAX);
        }
        let usable = n.wrapping_sub(self.first_bucket.get().into());
        if usable < BUCKETS_MIN {
            return bad("member: too few buckets", 16, usable, BUCKETS_MIN);
        }
        if bucket < block_size {
            let what = "member: bucket smaller than a block";
            return bad(what, 26, bucket, block_size);
        }
        if bucket < node_size {
            let what = "member: bucket smaller than a btree node";
            return bad(what, 26, bucket, node_size);
        }
        if self.btree_bitmap_shift >= 58 {
            let got = self.btree_bitmap_shift.into();
            return bad("member: btree bitmap shift too large", 28, got, 57);
        }
        Ok(())
    }
}

/// The members of a filesystem, as many as there are slots.
#[derive(Copy, Clone, Debug, Default)]
pub struct Members<'a> {
    bytes: &'a [u8],
    /// Where the first member starts in the field.
    start: usize,
    stride: usize,
    nr: u8,
    v2: bool,
}

impl<'a> Members<'a> {
    /// Of a field of type members_v1, with `nr` slots.
    pub fn v1(field: &Field<'a>, nr: u8) -> Self {
        Members {
            bytes: field.bytes(),
            start: FIELD_HEADER_BYTES,
            stride: MEMBER_V1_BYTES,
            nr,
            v2: false,
        }
    }

    /// Of a field of type members_v2, with `nr` slots.
    pub fn v2(field: &Field<'a>, nr: u8) -> Self {
        let bytes = field.bytes();
        let stride = match bytes.get(FIELD_HEADER_BYTES..) {
            Some(&[lo, hi, ..]) => usize::from(u16::from_le_bytes([lo, hi])),
            _ => 0,
        };
        Members {
            bytes,
            start: V2_ENTRIES_AT,
            stride,
            nr,
            v2: true,
        }
    }

    /// Number of slots.
    pub const fn nr(&self) -> u8 {
        self.nr
    }

    /// Whether they come from the second, complete form of the field.
    pub const fn is_v2(&self) -> bool {
        self.v2
    }

    fn offset(&self, dev: u8) -> usize {
        self.start + usize::from(dev) * self.stride
    }

    /// Slot `dev`. What the field does not store reads as zero. `None` if there is no such slot.
    pub fn get(&self, dev: u8) -> Option<Member> {
        if dev >= self.nr || self.stride == 0 {
            return None;
        }
        let at = self.offset(dev);
        let stored = self.bytes.get(at..at + self.stride)?;
        let mut member = Member::empty();
        for (to, from) in member.as_mut_bytes().iter_mut().zip(stored) {
            *to = *from;
        }
        Some(member)
    }

    /// The device in slot `dev`; `None` if there is no such slot or it is empty.
    pub fn device(&self, dev: u8) -> Option<Member> {
        self.get(dev).filter(Member::exists)
    }

    /// Whether slot `dev` holds a device.
    pub fn exists(&self, dev: u8) -> bool {
        self.device(dev).is_some()
    }

    /// The slots that hold a device.
    pub fn iter(&self) -> impl Iterator<Item = (u8, Member)> + 'a {
        let this = *self;
        (0..this.nr).filter_map(move |dev| Some((dev, this.device(dev)?)))
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self, sb: &SuperBlock<'_>) -> Result<(), Invalid> {
        let want = self.offset(self.nr);
        if self.bytes.len() < want || self.stride == 0 {
            let what = "members: field too short for the number of devices";
            let got = self.bytes.len() as u64;
            return Err(Invalid::plain(what, 0, got, want as u64));
        }
        let block_size = sb.header().block_size.get().into();
        let node_size = sb.flags().btree_node_size();
        for dev in 0..self.nr {
            if let Some(member) = self.get(dev) {
                member
                    .validate(block_size, node_size)
                    .map_err(|e| e.within(self.offset(dev)))?;
            }
        }
        Ok(())
    }
}

/// Bytes of the payload of a members field with `nr` slots.
pub fn payload_bytes(field_type: FieldType, nr: usize) -> usize {
    match field_type {
        FieldType::MEMBERS_V1 => nr * MEMBER_V1_BYTES,
        _ => V2_ENTRIES_AT - FIELD_HEADER_BYTES + nr * MEMBER_BYTES,
    }
}

/// Writes `members` as the payload of a field of type members_v1 or members_v2.
pub fn encode(field_type: FieldType, members: &[Member], payload: &mut [u8]) {
    payload.fill(0);
    let (stride, entries) = match field_type {
        FieldType::MEMBERS_V1 => (MEMBER_V1_BYTES, payload),
        _ => {
            if let Ok((bytes, _)) = U16::mut_from_prefix(payload) {
                *bytes = U16::new(MEMBER_BYTES as u16);
            }
            let start = V2_ENTRIES_AT - FIELD_HEADER_BYTES;
            (MEMBER_BYTES, payload.get_mut(start..).unwrap_or_default())
        }
    };
    for (slot, member) in entries.chunks_exact_mut(stride).zip(members) {
        for (to, from) in slot.iter_mut().zip(member.as_bytes()) {
            *to = *from;
        }
    }
}

/// Replaces member `dev` in the payload of a field of type members_v2, whose members may be longer than this version knows:
/// what is beyond stays. `false` if there is no room for it.
pub fn replace(payload: &mut [u8], dev: u8, member: &Member) -> bool {
    let stride = match *payload {
        [lo, hi, ..] => usize::from(u16::from_le_bytes([lo, hi])),
        _ => 0,
    };
    let at = V2_ENTRIES_AT - FIELD_HEADER_BYTES + usize::from(dev) * stride;
    match payload.get_mut(at..at + MEMBER_BYTES) {
        Some(slot) if stride >= MEMBER_BYTES => {
            slot.copy_from_slice(member.as_bytes());
            true
        }
        _ => false,
    }
}
