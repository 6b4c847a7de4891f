// SPDX-License-Identifier: GPL-2.0
//! A superblock in memory that can be changed: header and fields, without what belongs to single devices.
//!
//! Fields are found by walking, grow and shrink in place, and keep their order. What is made here is checked by the rules of the
//! format before it is written anywhere.

use bcachefs_format::{
    features::{Compat, Features},
    jset::build::EntryWriter,
    sb::{
        blacklist::BlacklistEntry,
        clean,
        ext::Ext,
        members::{self, Member},
        replicas, FieldType, ReplicasEntry, SbFlags,
    },
    super_block::{DiskSb, SuperBlock, SB_HEADER_BYTES},
};
use kernel::prelude::*;

use super::read::view;
use crate::util::error::{Error, Result};

const HEADER_U64S: usize = SB_HEADER_BYTES / 8;

/// The words of a superblock.
///
/// # Invariants
///
/// The words are a superblock with a valid header, as long as that says, and fields that fill it exactly.
pub struct SbImage {
    words: KVVec<u64>,
}

impl SbImage {
    /// Of a superblock that has been validated. Fields for which `keep` does not hold are left out. May sleep.
    pub(super) fn new(sb: &SuperBlock<'_>, keep: impl Fn(FieldType) -> bool) -> Result<Self> {
        let mut words = KVVec::with_capacity(sb.words().len(), GFP_KERNEL)?;
        words.extend_from_slice(sb.words().get(..HEADER_U64S).unwrap_or(&[]), GFP_KERNEL)?;
        for field in sb.fields() {
            let field = field?;
            if keep(field.field_type) {
                words.extend_from_slice(field.words, GFP_KERNEL)?;
            }
        }
        // INVARIANT: header and whole fields; the length is set next.
        let mut image = SbImage { words };
        image.set_length()?;
        Ok(image)
    }

    /// A copy. May sleep.
    pub(super) fn try_clone(&self) -> Result<Self> {
        let mut words = KVVec::with_capacity(self.words.len(), GFP_KERNEL)?;
        words.extend_from_slice(&self.words, GFP_KERNEL)?;
        Ok(SbImage { words })
    }

    /// For reading.
    pub fn view(&self) -> Result<SuperBlock<'_>> {
        view(&self.words)
    }

    /// The fixed part, to be changed. The length is not to be.
    pub fn header_mut(&mut self) -> Result<&mut DiskSb> {
        DiskSb::mut_from_prefix(self.words.as_mut_slice().as_mut_bytes())
            .map(|(header, _)| header)
            .map_err(|_| Error::SuperInvalid)
    }

    /// Changes the flag words.
    pub fn edit_flags(&mut self, edit: impl FnOnce(&mut SbFlags)) -> Result {
        let header = self.header_mut()?;
        let mut flags = header.flags();
        edit(&mut flags);
        for (to, from) in header.flags.iter_mut().zip(flags.0) {
            to.set(from);
        }
        Ok(())
    }

    /// Sets and clears incompatible features; what is in both is cleared.
    pub fn edit_features(&mut self, set: Features, clear: Features) -> Result {
        let [word, _] = &mut self.header_mut()?.features;
        word.set((word.get() | set.0) & !clear.0);
        Ok(())
    }

    /// Sets compatible features.
    pub fn set_compat(&mut self, set: Compat) -> Result {
        let [word, _] = &mut self.header_mut()?.compat;
        word.set(word.get() | set.0);
        Ok(())
    }

    fn set_length(&mut self) -> Result {
        let u64s = self.words.len().saturating_sub(HEADER_U64S);
        let u64s = u32::try_from(u64s).map_err(|_| Error::SuperFull)?;
        self.header_mut()?.u64s.set(u64s);
        Ok(())
    }

    /// Where the field of this type is, header included: first word and end.
    fn place(&self, field_type: FieldType) -> Result<Option<(usize, usize)>> {
        for field in self.view()?.fields() {
            let field = field?;
            if field.field_type == field_type {
                let start = HEADER_U64S + field.offset / 8;
                return Ok(Some((start, start + field.words.len())));
            }
        }
        Ok(None)
    }

    /// The payload of a field, to be changed.
    pub fn payload_mut(&mut self, field_type: FieldType) -> Result<Option<&mut [u64]>> {
        Ok(match self.place(field_type)? {
            Some((start, end)) => self.words.get_mut(start + 1..end),
            None => None,
        })
    }

    /// Makes the payload of a field `u64s` words long, and the field exist. New words are zero. May sleep.
    pub fn resize(&mut self, field_type: FieldType, u64s: usize) -> Result<&mut [u64]> {
        let total = u64s.checked_add(1).ok_or(Error::SuperFull)?;
        let count = u32::try_from(total).map_err(|_| Error::SuperFull)?;
        let (start, end) = match self.place(field_type)? {
            Some(place) => place,
            None => (self.words.len(), self.words.len()),
        };
        let (len, new_end) = (self.words.len(), start + total);
        if new_end > end {
            self.words
                .extend_with(new_end - end, 0, GFP_KERNEL)?;
        }
        // What comes after moves; both ranges are within the words there are now.
        self.words.copy_within(end..len, new_end);
        self.words.truncate(new_end + (len - end));
        if let Some(new) = self.words.get_mut(end.min(new_end)..new_end) {
            new.fill(0);
        }
        if let Some(head) = self.words.get_mut(start) {
            *head = bcachefs_format::sb::Field::header_word(field_type, count);
        }
        // INVARIANT: as long as the header says now.
        self.set_length()?;
        self.words
            .get_mut(start + 1..new_end)
            .ok_or(Error::SuperInvalid)
    }

    /// Removes a field, if it is there.
    pub fn remove(&mut self, field_type: FieldType) -> Result {
        let Some((start, end)) = self.place(field_type)? else {
            return Ok(());
        };
        let len = self.words.len();
        self.words.copy_within(end..len, start);
        self.words.truncate(len - (end - start));
        // INVARIANT: as long as the header says now.
        self.set_length()
    }

    /// Member `dev`, if there is such a slot.
    pub fn member(&self, dev: u8) -> Result<Option<Member>> {
        Ok(self.view()?.members().get(dev))
    }

    /// Changes member `dev`. May sleep.
    pub fn edit_member(&mut self, dev: u8, edit: impl FnOnce(&mut Member)) -> Result {
        let mut member = self.member(dev)?.ok_or(Error::SuperInvalid)?;
        edit(&mut member);
        self.complete_members()?;
        let payload = self.payload_mut(FieldType::MEMBERS_V2)?;
        let replaced = payload.is_some_and(|p| members::replace(p.as_mut_bytes(), dev, &member));
        if replaced {
            Ok(())
        } else {
            Err(Error::SuperInvalid)
        }
    }

    fn members(&self) -> Result<KVec<Member>> {
        let members = self.view()?.members();
        let mut all = KVec::new();
        for dev in 0..members.nr() {
            all.push(members.get(dev).unwrap_or_else(Member::empty), GFP_KERNEL)?;
        }
        Ok(all)
    }

    /// Makes sure that members are stored in full.
    fn complete_members(&mut self) -> Result {
        let stored = self.view()?.field(FieldType::MEMBERS_V2);
        let stride = stored.and_then(|f| f.payload().first().map(|w| *w as u16));
        if stride.is_some_and(|s| usize::from(s) >= members::MEMBER_BYTES) {
            return Ok(());
        }
        self.store_members(FieldType::MEMBERS_V2)
    }

    fn store_members(&mut self, field_type: FieldType) -> Result {
        let all = self.members()?;
        let bytes = members::payload_bytes(field_type, all.len());
        let payload = self.resize(field_type, bytes.div_ceil(8))?;
        if let Some(payload) = payload.as_mut_bytes().get_mut(..bytes) {
            members::encode(field_type, &all, payload);
        }
        Ok(())
    }

    /// Copies members to where old readers look for them. May sleep.
    pub fn mirror_members(&mut self) -> Result {
        self.complete_members()?;
        self.store_members(FieldType::MEMBERS_V1)
    }

    /// Replaces the list of device combinations that hold data. May sleep.
    pub fn set_replicas(&mut self, entries: &[ReplicasEntry<'_>]) -> Result {
        let has_required = entries.iter().any(|e| e.nr_required != 1);
        let (field, other) = match has_required {
            true => (FieldType::REPLICAS, FieldType::REPLICAS_V0),
            false => (FieldType::REPLICAS_V0, FieldType::REPLICAS),
        };
        self.remove(other)?;
        let bytes: usize = entries.iter().map(|e| 3 + e.devs.len()).sum();
        let payload = self.resize(field, bytes.div_ceil(8))?;
        replicas::encode(entries, has_required, payload.as_mut_bytes()).ok_or(Error::SuperFull)?;
        Ok(())
    }

    /// Replaces the list of sequence numbers that do not count: half-open ranges, ascending, not overlapping. May sleep.
    pub fn set_blacklist(&mut self, ranges: &[(u64, u64)]) -> Result {
        if ranges.is_empty() {
            return self.remove(FieldType::JOURNAL_SEQ_BLACKLIST);
        }
        self.edit_features(Features::JOURNAL_SEQ_BLACKLIST_V3, Features(0))?;
        let payload = self.resize(FieldType::JOURNAL_SEQ_BLACKLIST, 2 * ranges.len())?;
        let entries = <[BlacklistEntry]>::mut_from_bytes(payload.as_mut_bytes());
        for (entry, range) in entries.map_err(|_| Error::SuperInvalid)?.iter_mut().zip(ranges) {
            entry.start.set(range.0);
            entry.end.set(range.1);
        }
        Ok(())
    }

    /// Replaces the clean section: the last journal entry was `journal_seq`; `fill` writes the records, at most `u64s` words. May
    /// sleep.
    pub fn set_clean_section(
        &mut self,
        journal_seq: u64,
        u64s: usize,
        fill: impl FnOnce(&mut EntryWriter<'_>) -> Result,
    ) -> Result {
        // What is not used stays zero, which reads as empty records.
        let payload = self.resize(FieldType::CLEAN, u64s.saturating_add(2))?;
        let room = clean::encode(journal_seq, payload).ok_or(Error::SuperInvalid)?;
        fill(&mut EntryWriter::new(room))
    }

    /// Replaces the persistent counters that this implementation knows; others stay. May sleep.
    pub fn set_counters(&mut self, values: impl ExactSizeIterator<Item = u64>) -> Result {
        let have = self.view()?.counters().values().len();
        let payload = self.resize(FieldType::COUNTERS, have.max(values.len()))?;
        for (to, from) in payload.iter_mut().zip(values) {
            *to = from;
        }
        Ok(())
    }

    /// Changes what recovery is told to do; makes the field if it is not there. May sleep.
    pub fn edit_ext(&mut self, edit: impl FnOnce(&mut Ext)) -> Result {
        let mut ext = self.view()?.ext().unwrap_or_default();
        edit(&mut ext);
        let stored = self.payload_mut(FieldType::EXT)?.map_or(0, |p| p.len());
        let payload = self.resize(FieldType::EXT, stored.max(size_of::<Ext>() / 8))?;
        for (to, from) in payload.as_mut_bytes().iter_mut().zip(ext.as_bytes()) {
            *to = *from;
        }
        Ok(())
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_sb_image)]
mod tests {
    use super::*;
    use bcachefs_format::{
        jset::entry::{Entry, UsageKind},
        keys::data_type::DataType,
        magic::{Uuid, SB_MAGIC},
        sb::{DiskLayout, MemberState},
        super_block::SbLimits,
        Version,
    };
    use zerocopy::{byteorder::little_endian::{U16, U64}, FromZeros as _};

    fn err(e: Error) -> kernel::error::Error {
        e.errno()
    }

    /// A superblock of two members and nothing else.
    fn small() -> Result<SbImage> {
        let mut words = KVVec::new();
        words.extend_with(HEADER_U64S, 0, GFP_KERNEL)?;
        let mut header = DiskSb::new_zeroed();
        header.version = U16::new(Version::CURRENT.0);
        header.version_min = U16::new(Version::CURRENT.0);
        header.magic = SB_MAGIC;
        header.uuid = Uuid([1; 16]);
        header.user_uuid = Uuid([2; 16]);
        header.block_size = U16::new(8);
        header.nr_devices = 2;
        header.time_precision.set(1);
        header.layout = DiskLayout::new(11, &[8, 4096]);
        let mut flags = SbFlags::default();
        flags.set_btree_node_size(256);
        flags.set_gc_reserve(8);
        flags.set_meta_replicas_want(1);
        flags.set_data_replicas_want(1);
        flags.set_meta_replicas_req(1);
        flags.set_data_replicas_req(1);
        flags.set_encoded_extent_max_bits(7);
        flags.set_journal_flush_delay(1000);
        for (to, from) in header.flags.iter_mut().zip(flags.0) {
            to.set(from);
        }
        words
            .as_mut_slice()
            .as_mut_bytes()
            .copy_from_slice(header.as_bytes());
        let mut image = SbImage { words };
        let mut member = Member::empty();
        member.uuid = Uuid([3; 16]);
        member.nbuckets = U64::new(1024);
        member.bucket_size = U16::new(512);
        member.flags = Member::make_flags(MemberState::RW, false, 28, None, 1, false);
        let mut bytes = [0; 2 * members::MEMBER_BYTES + 8];
        members::encode(FieldType::MEMBERS_V2, &[member, member], &mut bytes);
        let payload = image.resize(FieldType::MEMBERS_V2, bytes.len() / 8)?;
        payload.as_mut_bytes().copy_from_slice(&bytes);
        image.mirror_members()?;
        Ok(image)
    }

    fn check(image: &SbImage) -> Result {
        let limits = SbLimits {
            logical_block_bytes: 512,
            block_bytes_max: 4096,
        };
        SuperBlock::frame(&image.words)?.validate(&limits)?;
        Ok(())
    }

    #[test]
    fn members_are_changed_and_mirrored() -> kernel::error::Result {
        let mut image = small().map_err(err)?;
        check(&image).map_err(err)?;
        image
            .edit_member(1, |m| {
                m.seq.set(77);
                m.last_mount.set(5);
                m.set_freespace_initialized(true);
            })
            .map_err(err)?;
        image.mirror_members().map_err(err)?;
        check(&image).map_err(err)?;
        let (zero, one) = (image.member(0).map_err(err)?, image.member(1).map_err(err)?);
        assert!(zero.is_some_and(|m| m.seq.get() == 0 && !m.freespace_initialized()));
        assert!(one.is_some_and(|m| m.seq.get() == 77 && m.freespace_initialized()));
        let v1 = image.view().map_err(err)?.field(FieldType::MEMBERS_V1).ok_or(EINVAL)?;
        let old = bcachefs_format::sb::Members::v1(&v1, 2).get(1).ok_or(EINVAL)?;
        assert_eq!((old.last_mount.get(), old.seq.get()), (5, 0));
        assert!(image.edit_member(2, |_| ()).is_err());
        Ok(())
    }

    #[test]
    fn fields_grow_shrink_and_leave_others_alone() -> kernel::error::Result {
        let mut image = small().map_err(err)?;
        image.set_blacklist(&[(4, 9), (20, 28)]).map_err(err)?;
        let entries = [
            ReplicasEntry { data_type: DataType::BTREE, nr_required: 1, devs: &[0, 1] },
            ReplicasEntry { data_type: DataType::JOURNAL, nr_required: 1, devs: &[0] },
        ];
        image.set_replicas(&entries).map_err(err)?;
        image.edit_ext(|e| e.require_pass(9)).map_err(err)?;
        image.set_counters([7, 8, 9].into_iter()).map_err(err)?;
        image.set_blacklist(&[(4, 9), (20, 28), (40, 41)]).map_err(err)?;
        check(&image).map_err(err)?;
        let sb = image.view().map_err(err)?;
        assert_eq!(sb.replicas().iter().count(), 2);
        assert!(sb.replicas().iter().zip(entries).all(|(a, b)| a == b));
        assert!(sb.field(FieldType::REPLICAS).is_none());
        assert!(sb.ext().is_some_and(|e| e.pass_required(9) && !e.pass_required(8)));
        assert_eq!(sb.counters().values(), &[7, 8, 9]);
        assert_eq!(sb.blacklist().entries().len(), 3);
        assert!(sb.blacklist().contains(40) && !sb.blacklist().contains(41));
        assert!(sb.features().contains(Features::JOURNAL_SEQ_BLACKLIST_V3));

        let entries = [ReplicasEntry { data_type: DataType::USER, nr_required: 2, devs: &[0, 1, 0] }];
        image.set_replicas(&entries).map_err(err)?;
        image.set_blacklist(&[]).map_err(err)?;
        let sb = image.view().map_err(err)?;
        assert!(sb.field(FieldType::REPLICAS_V0).is_none());
        assert!(sb.field(FieldType::JOURNAL_SEQ_BLACKLIST).is_none());
        assert!(sb.replicas().iter().all(|e| e == entries[0]));
        assert_eq!(sb.counters().values(), &[7, 8, 9]);
        assert_eq!(sb.members().get(1).map(|m| m.nbuckets.get()), Some(1024));
        Ok(())
    }

    #[test]
    fn clean_section_reads_back() -> kernel::error::Result {
        let mut image = small().map_err(err)?;
        image
            .set_clean_section(99, 64, |out| {
                out.usage(UsageKind::KEY_VERSION, 5)
                    .and_then(|()| out.clock(1, 6))
                    .map_err(|_| Error::SuperFull)
            })
            .map_err(err)?;
        check(&image).map_err(err)?;
        let sb = image.view().map_err(err)?;
        let clean = sb.clean().ok_or(EINVAL)?;
        assert_eq!(clean.journal_seq(), 99);
        let mut seen = [0; 2];
        for entry in clean.entries().map_while(core::result::Result::ok) {
            match entry.parse() {
                Ok(Entry::Usage { value, .. }) => seen[0] = value,
                Ok(Entry::Clock { rw: 1, time }) => seen[1] = time,
                _ => {}
            }
        }
        assert_eq!(seen, [5, 6]);
        assert!(image.set_clean_section(1, 1, |out| out.clock(0, 1).map_err(|_| Error::SuperFull)).is_err());
        Ok(())
    }

    #[test]
    fn maps_of_nodes_get_coarser() {
        let mut m = Member::empty();
        m.cover_bitmap(0, 1);
        m.cover_bitmap(5, 7);
        assert_eq!((m.btree_bitmap_shift, m.btree_allocated_bitmap.get()), (0, 0b110_0001));
        m.cover_bitmap(200, 256);
        assert_eq!(m.btree_bitmap_shift, 2);
        assert!(m.bitmap_covers(0, 1) && m.bitmap_covers(5, 7) && m.bitmap_covers(200, 256));
        assert!(!m.bitmap_covers(100, 101) && !m.bitmap_covers(256, 257));
    }
}
