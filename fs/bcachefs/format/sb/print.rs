// SPDX-License-Identifier: GPL-2.0
//! Printing superblocks: [`SuperBlock`] prints the header, each field prints itself through
//! [`ShowField`].

use core::fmt;

use super::{Field, FieldType, JournalBuckets, Member, Members, Replicas};
use crate::super_block::SuperBlock;

impl fmt::Display for SuperBlock<'_> {
    /// Header and options, one `name: value` per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = self.header();
        writeln!(f, "user_uuid: {}", h.user_uuid)?;
        writeln!(f, "uuid: {}", h.uuid)?;
        writeln!(f, "label: {}", self.label().escape_ascii())?;
        writeln!(f, "version: {}", self.version())?;
        writeln!(f, "version_min: {}", self.version_min())?;
        let upgraded = self.version_upgrade_complete();
        writeln!(f, "version_upgrade_complete: {upgraded}")?;
        writeln!(f, "dev_idx: {}", h.dev_idx)?;
        writeln!(f, "nr_devices: {}", h.nr_devices)?;
        writeln!(f, "seq: {}", h.seq.get())?;
        writeln!(f, "write_time: {}", h.write_time.get())?;
        writeln!(f, "time_base: {}", h.time_base_lo.get())?;
        writeln!(f, "time_precision: {}", h.time_precision.get())?;
        writeln!(f, "bytes: {}", h.bytes())?;
        writeln!(f, "clean: {}", u8::from(self.is_clean()))?;
        writeln!(f, "features: {}", self.features())?;
        writeln!(f, "compat: {}", self.compat())?;
        writeln!(f, "layout: {}", h.layout)?;
        match self.options() {
            Ok(o) => write!(f, "{o}"),
            Err(e) => writeln!(f, "options: {e}"),
        }
    }
}

impl fmt::Display for super::Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "block_size: {}", u32::from(self.block_size) * 512)?;
        let node_size = u32::from(self.btree_node_size) * 512;
        writeln!(f, "btree_node_size: {node_size}")?;
        writeln!(f, "errors: {}", self.errors)?;
        writeln!(f, "metadata_replicas: {}", self.metadata_replicas)?;
        writeln!(f, "data_replicas: {}", self.data_replicas)?;
        let (meta, data) = (self.metadata_replicas_required, self.data_replicas_required);
        writeln!(f, "metadata_replicas_required: {meta}")?;
        writeln!(f, "data_replicas_required: {data}")?;
        let extent_max = self.encoded_extent_max * 512;
        writeln!(f, "encoded_extent_max: {extent_max}")?;
        writeln!(f, "metadata_checksum: {}", self.metadata_checksum)?;
        writeln!(f, "data_checksum: {}", self.data_checksum)?;
        writeln!(f, "compression: {}", self.compression)?;
        let background = self.background_compression;
        writeln!(f, "background_compression: {background}")?;
        writeln!(f, "str_hash: {}", self.str_hash)?;
        writeln!(f, "metadata_target: {}", self.metadata_target)?;
        writeln!(f, "foreground_target: {}", self.foreground_target)?;
        writeln!(f, "background_target: {}", self.background_target)?;
        writeln!(f, "promote_target: {}", self.promote_target)?;
        writeln!(f, "erasure_code: {}", u8::from(self.erasure_code))?;
        writeln!(f, "inodes_32bit: {}", u8::from(self.inodes_32bit))?;
        let shard = u8::from(self.shard_inode_numbers);
        writeln!(f, "shard_inode_numbers: {shard}")?;
        let key_cache = u8::from(self.inodes_use_key_cache);
        writeln!(f, "inodes_use_key_cache: {key_cache}")?;
        writeln!(f, "gc_reserve_percent: {}", self.gc_reserve_percent)?;
        writeln!(f, "gc_reserve_bytes: {}", self.gc_reserve_bytes)?;
        writeln!(f, "root_reserve_percent: {}", self.root_reserve_percent)?;
        writeln!(f, "wide_macs: {}", u8::from(self.wide_macs))?;
        writeln!(f, "acl: {}", u8::from(self.acl))?;
        writeln!(f, "usrquota: {}", u8::from(self.usrquota))?;
        writeln!(f, "grpquota: {}", u8::from(self.grpquota))?;
        writeln!(f, "prjquota: {}", u8::from(self.prjquota))?;
        writeln!(f, "journal_flush_delay: {}", self.journal_flush_delay)?;
        let no_flush = u8::from(self.journal_flush_disabled);
        writeln!(f, "journal_flush_disabled: {no_flush}")?;
        writeln!(f, "journal_reclaim_delay: {}", self.journal_reclaim_delay)?;
        let names = u8::from(self.journal_transaction_names);
        writeln!(f, "journal_transaction_names: {names}")?;
        let stuck = self.allocator_stuck_timeout;
        writeln!(f, "allocator_stuck_timeout: {stuck}")?;
        writeln!(f, "version_upgrade: {}", self.version_upgrade)?;
        writeln!(f, "nocow: {}", u8::from(self.nocow))?;
        let promote = u8::from(self.promote_whole_extents);
        writeln!(f, "promote_whole_extents: {promote}")?;
        writeln!(f, "encryption: {:?}", self.encryption)
    }
}

impl fmt::Display for Member {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exists() {
            return f.write_str("(empty)");
        }
        let errors = self.errors.map(|e| e.get());
        write!(
            f,
            "{} {} buckets {} of {} sectors, first {}",
            self.uuid,
            self.state(),
            self.nbuckets.get(),
            self.bucket_size.get(),
            self.first_bucket.get()
        )?;
        write!(
            f,
            ", data_allowed {:#x} group {:?} durability {} discard {} freespace_initialized {}",
            self.data_allowed(),
            self.group(),
            self.durability(),
            u8::from(self.discard()),
            u8::from(self.freespace_initialized())
        )?;
        write!(
            f,
            ", seq {} last_mount {} errors {errors:?}",
            self.seq.get(),
            self.last_mount.get()
        )?;
        write!(
            f,
            ", btree bitmap {:x} << {}, last journal bucket {} offset {}",
            self.btree_allocated_bitmap.get(),
            self.btree_bitmap_shift,
            self.last_journal_bucket.get(),
            self.last_journal_bucket_offset.get()
        )
    }
}

/// Prints a field of a superblock: a line with its type and length, then its content.
#[derive(Copy, Clone, Debug)]
pub struct ShowField<'a> {
    /// The superblock.
    pub sb: SuperBlock<'a>,
    /// The field.
    pub field: Field<'a>,
}

impl fmt::Display for ShowField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (field, nr) = (&self.field, self.sb.header().nr_devices);
        writeln!(f, "{} (size {}):", field.field_type, field.bytes().len())?;
        match field.field_type {
            FieldType::JOURNAL => ranges(f, &JournalBuckets::v1(field)),
            FieldType::JOURNAL_V2 => ranges(f, &JournalBuckets::v2(field)),
            FieldType::MEMBERS_V1 => members(f, &Members::v1(field, nr)),
            FieldType::MEMBERS_V2 => members(f, &Members::v2(field, nr)),
            FieldType::REPLICAS_V0 => lines(f, Replicas::v0(field).iter()),
            FieldType::REPLICAS => lines(f, Replicas::current(field).iter()),
            FieldType::CRYPT => match super::Crypt::parse(field) {
                Ok(c) => {
                    let plain = u8::from(c.is_plain());
                    writeln!(f, "  scrypt {:?} plain {plain}", c.scrypt())
                }
                Err(e) => writeln!(f, "  {e}"),
            },
            FieldType::QUOTA => match super::Quota::parse(field) {
                Ok(q) => q.types.iter().try_for_each(|t| {
                    let limits =
                        |c: &super::quota::QuotaCounter| (c.timelimit.get(), c.warnlimit.get());
                    let (space, inodes) = (limits(&t.space), limits(&t.inodes));
                    writeln!(
                        f,
                        "  flags {:x} space {space:?} inodes {inodes:?}",
                        t.flags.get()
                    )
                }),
                Err(e) => writeln!(f, "  {e}"),
            },
            FieldType::DISK_GROUPS => disk_groups(f, &super::DiskGroups::new(field)),
            FieldType::CLEAN => match super::Clean::parse(field) {
                Ok(c) => {
                    writeln!(f, "  journal_seq {}", c.journal_seq())?;
                    let used = |e: &crate::jset::RawEntry<'_>| !e.payload.is_empty();
                    lines(f, c.entries().map_while(Result::ok).filter(used))
                }
                Err(e) => writeln!(f, "  {e}"),
            },
            FieldType::JOURNAL_SEQ_BLACKLIST => super::Blacklist::new(field)
                .entries()
                .iter()
                .try_for_each(|e| writeln!(f, "  {}-{}", e.start.get(), e.end.get())),
            FieldType::COUNTERS => super::Counters::new(field)
                .values()
                .iter()
                .enumerate()
                .try_for_each(|(i, v)| match super::counters::NAMES.get(i) {
                    Some(name) => writeln!(f, "  {name} {v}"),
                    None => writeln!(f, "  (counter {i}) {v}"),
                }),
            FieldType::ERRORS => super::Errors::new(field)
                .entries()
                .iter()
                .try_for_each(|e| {
                    let (id, time) = (e.id(), e.last_error_time.get());
                    writeln!(f, "  {id} {} last {time}", e.count())
                }),
            FieldType::EXT => match super::Ext::parse(field) {
                Ok(e) => ext(f, &e),
                Err(e) => writeln!(f, "  {e}"),
            },
            FieldType::DOWNGRADE => super::Downgrades::new(field).iter().try_for_each(|d| {
                write!(f, "  {} passes {:x?}:", d.version, d.recovery_passes)?;
                d.errors().try_for_each(|e| write!(f, " {e}"))?;
                writeln!(f)
            }),
            _ => Ok(()),
        }
    }
}

fn lines<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    mut items: impl Iterator<Item = T>,
) -> fmt::Result {
    items.try_for_each(|item| writeln!(f, "  {item}"))
}

fn ranges(f: &mut fmt::Formatter<'_>, buckets: &JournalBuckets<'_>) -> fmt::Result {
    buckets
        .ranges()
        .try_for_each(|r| writeln!(f, "  {}-{}", r.start, r.start.saturating_add(r.nr)))
}

fn members(f: &mut fmt::Formatter<'_>, members: &Members<'_>) -> fmt::Result {
    (0..members.nr()).try_for_each(|dev| match members.get(dev) {
        Some(m) => writeln!(f, "  {dev}: {m}"),
        None => writeln!(f, "  {dev}: (cut off)"),
    })
}

fn disk_groups(f: &mut fmt::Formatter<'_>, groups: &super::DiskGroups<'_>) -> fmt::Result {
    (0..groups.entries().len())
        .filter(|i| groups.get(*i).is_some())
        .try_for_each(|i| writeln!(f, "  {i}: {}", groups.path(i)))
}

fn ext(f: &mut fmt::Formatter<'_>, ext: &super::Ext) -> fmt::Result {
    let passes = ext.recovery_passes_required.map(|w| w.get());
    writeln!(f, "  recovery passes required {passes:x?}")?;
    f.write_str("  errors silent:")?;
    (0..512)
        .map(crate::error::ErrorId)
        .filter(|id| ext.is_silent(*id))
        .try_for_each(|id| write!(f, " {id}"))?;
    let lost = ext.btrees_lost_data.get();
    writeln!(f, "\n  btrees lost data {lost:x}")
}
