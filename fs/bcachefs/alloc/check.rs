// SPDX-License-Identifier: GPL-2.0
//! Whether what the btrees say of buckets and space is what follows from the other keys.
//!
//! Everything is computed anew from the keys with pointers, by the functions that triggers use, and compared: keys of
//! buckets, backpointers, the lists of buckets, generations, work for the background, accounting. Nothing is changed. It takes
//! memory for each bucket and time for each key, and sees a state: nobody may change anything meanwhile.
//!
//! What is to be looked up in another btree is collected while nodes are locked and looked up after that.

mod derived;
mod pending;
mod report;
mod sums;
mod table;

pub use report::Report;

use super::{
    bucket::{self, Marked},
    counters::Accounting,
    geometry::Geometries,
    mark::superblock_buckets,
    pointers::{self, KeySums},
    rebalance::{self, Targets},
    triggers::keys::parse_alloc,
};
use crate::{
    btree::{Btree, IterFlags},
    sb::{device::MEMBERS_MAX, Devices, Super},
    util::error::Result,
};
use bcachefs_format::{
    btree_node::BTREE_MAX_DEPTH,
    keys::{
        accounting::{Accounting as Value, AccountingKey},
        alloc::Alloc,
        data_type::DataType,
        extent::{DecodedPtr, DEV_INVALID},
    },
    sb::DiskLayout,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::prelude::*;
use pending::Pending;
use sums::Sums;
use table::Table;

/// A walk over the keys, with what it has found.
struct Check<'a> {
    btree: &'a Btree,
    targets: Targets,
    node_sectors: u32,
    /// Members whose free buckets are listed.
    listed: u64,
    memory: Option<&'a Accounting>,
    table: Table,
    sums: Sums,
    pending: Pending,
    /// The inode whose extents are being added up.
    inode: Option<(u64, sums::Values)>,
    report: Report,
    inode_sums: u64,
    rebalance_bits: u64,
    /// There are cached pointers to what is not there any more.
    stale: bool,
}

/// What has to be known of a filesystem to check it.
pub struct Subject<'a> {
    /// Its btrees.
    pub btree: &'a Btree,
    /// How its members are divided.
    pub geometries: Geometries,
    /// What its targets stand for.
    pub targets: Targets,
    /// Sectors of a node.
    pub node_sectors: u32,
    /// Members whose free buckets are listed, as bits.
    pub listed: u64,
    /// What is kept of accounting in memory, if it is.
    pub accounting: Option<&'a Accounting>,
}

impl<'a> Subject<'a> {
    /// As the superblock describes it. May sleep.
    pub fn new(btree: &'a Btree, sup: &Super, accounting: Option<&'a Accounting>) -> Result<Self> {
        let members = sup.raw()?.members();
        let listed = members.iter().filter(|(_, m)| m.freespace_initialized());
        Ok(Subject {
            btree,
            geometries: Geometries::new(sup)?,
            targets: Targets::new(sup)?,
            node_sectors: sup.btree_node_sectors.into(),
            listed: listed.fold(0, |set, (dev, _)| set | 1 << (dev & 63)),
            accounting,
        })
    }
}

/// Compares all that is recorded of buckets and space with what follows from the keys. `layout` gives the places of superblocks on a
/// device; buckets of superblocks on others are taken as recorded. Sleeps, for long.
#[inline(never)]
pub fn check_allocations(
    subject: Subject<'_>,
    devices: &Devices,
    layout: impl Fn(u8) -> Option<KBox<DiskLayout>>,
) -> Result<Report> {
    let mut check = Check::new(subject)?;
    check.read_buckets()?;
    check.reserved_buckets(devices, layout)?;
    check.rest()?;
    Ok(check.report)
}

impl<'a> Check<'a> {
    fn new(subject: Subject<'a>) -> Result<Self> {
        Ok(Check {
            btree: subject.btree,
            targets: subject.targets,
            node_sectors: subject.node_sectors,
            listed: subject.listed,
            memory: subject.accounting,
            table: Table::new(subject.geometries)?,
            sums: Sums::new(),
            pending: Pending::new(),
            inode: None,
            report: Report::new(),
            inode_sums: 0,
            rebalance_bits: 0,
            stale: false,
        })
    }

    /// Everything that follows, once it is known what is in buckets that no key points to.
    fn rest(&mut self) -> Result {
        for id in BtreeId::all() {
            for level in 0..BTREE_MAX_DEPTH {
                self.nodes(id, level)?;
            }
        }
        self.rest_but_nodes()
    }

    #[inline(never)]
    fn rest_but_nodes(&mut self) -> Result {
        self.leaves(BtreeId::EXTENTS)?;
        self.leaves(BtreeId::REFLINK)?;
        self.inodes()?;
        self.buckets()?;
        self.accounting()?;
        derived::check(self)
    }
}

/// The same for btrees whose nodes are nowhere on a device.
#[cfg(bcachefs_kunit)]
pub(super) fn check_leaves(subject: Subject<'_>) -> Result<Report> {
    let mut check = Check::new(subject)?;
    check.read_buckets()?;
    check.rest_but_nodes()?;
    Ok(check.report)
}

/// All keys of a btree, each by itself.
const ALL: IterFlags = IterFlags::EACH;

impl Check<'_> {
    /// Reads the keys of all buckets.
    fn read_buckets(&mut self) -> Result {
        let (table, report) = (&mut self.table, &mut self.report);
        self.btree.walk(BtreeId::ALLOC, Bpos::POS_MIN, Bpos::SPOS_MAX, ALL, |key| {
            let pos = key.key.pos;
            match (table.get_mut(pos.inode, pos.offset), parse_alloc(Some(key))) {
                (Some(bucket), Ok(a)) => bucket.record(&a),
                (None, _) => report.differs(format_args!("{}: no such bucket", key.key)),
                (_, Err(e)) => report.differs(format_args!("{}: {e}", key.key)),
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        Ok(())
    }

    /// Buckets that no key points to: superblocks and journals.
    #[inline(never)]
    fn reserved_buckets(
        &mut self,
        devices: &Devices,
        layout: impl Fn(u8) -> Option<KBox<DiskLayout>>,
    ) -> Result {
        for dev in 0..MEMBERS_MAX as u8 {
            let Some(member) = self.table.geometries.get(dev) else {
                continue;
            };
            let device = devices.get(member.dev);
            let layout = device.and_then(|d| layout(d.index));
            let known = |t| match t {
                DataType::SB => layout.is_some(),
                DataType::JOURNAL => device.is_some(),
                _ => true,
            };
            for nr in member.first..member.nr {
                let Some(b) = self.table.get_mut(member.dev.into(), nr) else {
                    continue;
                };
                let recorded = b.recorded();
                if !known(recorded.data_type) {
                    b.found(&recorded);
                }
            }
            let mut reserve = |nr, data_type, dirty_sectors| {
                if let Some(b) = self.table.get_mut(member.dev.into(), nr) {
                    b.found(&Alloc { data_type, dirty_sectors, ..Alloc::default() });
                }
            };
            if let Some(layout) = layout {
                for (nr, sectors) in superblock_buckets(&member, &layout)?.iter() {
                    reserve(*nr, DataType::SB, *sectors);
                }
            }
            for (start, nr) in device.map_or(&[][..], |d| d.journal.as_slice()) {
                for nr in *start..start.saturating_add(*nr) {
                    reserve(nr, DataType::JOURNAL, member.sectors);
                }
            }
        }
        Ok(())
    }

    /// Whether there is memory for what the next key adds.
    fn has_room(&self) -> bool {
        self.sums.has_room() && self.pending.has_room()
    }

    /// Looks up what has been collected, and makes room for more. Sleeps; no locks are held.
    fn make_room(&mut self) -> Result {
        if !self.sums.has_room() {
            self.sums.make_room()?;
        }
        self.pending.look_up(self.btree, &mut self.report)
    }

    /// The nodes of one level of a btree: what points to them is a key one level up.
    #[inline(never)]
    fn nodes(&mut self, btree: BtreeId, level: u8) -> Result {
        let tree = self.btree;
        let mut from = Some(Bpos::POS_MIN);
        while let Some(start) = from {
            self.make_room()?;
            from = tree.walk_nodes_from(btree, level, start, |head, _| {
                if head.has(crate::btree::node::Flag::FAKE) {
                    return Ok(ControlFlow::Continue(()));
                }
                if !self.has_room() {
                    return Ok(ControlFlow::Break(head.max()));
                }
                self.report.nodes += 1;
                let ptr = head.ptr();
                self.pointers(btree, level + 1, ptr.get());
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    /// The keys of a btree with pointers to data.
    #[inline(never)]
    fn leaves(&mut self, btree: BtreeId) -> Result {
        let tree = self.btree;
        let mut from = Some(Bpos::POS_MIN);
        while let Some(start) = from {
            self.make_room()?;
            from = tree.walk(btree, start, Bpos::SPOS_MAX, ALL, |key| {
                if !self.has_room() {
                    return Ok(ControlFlow::Break(key.key.pos));
                }
                if let Some((what, sectors)) = pointers::reserved(key) {
                    self.sums.add(what, &[sectors]);
                }
                self.pointers(btree, 0, key);
                let work = rebalance::pending(key, &self.targets);
                if work != 0 {
                    self.sums.add(AccountingKey::RebalanceWork, &[work as i64]);
                    self.pending.rebalance(key.key.pos);
                    self.rebalance_bits += 1;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        self.end_inode();
        self.make_room()
    }

    /// The pointers of one key. Does not sleep; there is room.
    #[inline(never)]
    fn pointers(&mut self, btree: BtreeId, level: u8, key: KeyRef<'_>) {
        let Some(entries) = pointers::entries(key, self.node_sectors) else {
            return;
        };
        let mut sums = KeySums::new(btree, level, &key.key, true);
        for p in entries.decoded() {
            self.report.pointers += 1;
            if p.stripe.is_some() {
                self.report.differs(format_args!("{}: pointer into a stripe: not checked", key.key));
            }
            if self.pointer(btree, level, &key.key, &p) {
                let _ = sums.add(&p, |what, deltas| self.add(what, deltas));
            }
        }
        let _ = sums.finish(|what, deltas| self.add(what, deltas));
    }

    /// Adds to accounting. Counters of inodes, of which there are many, come one inode after the other.
    fn add(&mut self, what: AccountingKey, deltas: &[i64]) -> core::result::Result<(), ()> {
        let AccountingKey::Inum { inum } = what else {
            self.sums.add(what, deltas);
            return Ok(());
        };
        if self.inode.as_ref().is_none_or(|(current, _)| *current != inum) {
            self.end_inode();
            self.inode = Some((inum, Default::default()));
        }
        if let Some((_, values)) = &mut self.inode {
            for (to, delta) in values.iter_mut().zip(deltas) {
                *to = to.wrapping_add(*delta);
            }
        }
        Ok(())
    }

    fn end_inode(&mut self) {
        if let Some((inum, values)) = self.inode.take() {
            self.inode_sums += 1;
            self.pending.inode(inum, values);
        }
    }

    /// One pointer; whether it counts.
    fn pointer(&mut self, btree: BtreeId, level: u8, key: &Bkey, p: &DecodedPtr) -> bool {
        if p.ptr.dev() == DEV_INVALID {
            return true;
        }
        let dev = p.ptr.dev();
        let place = self.table.geometries.get(dev);
        let place = place.and_then(|b| Some((b, b.bucket_of(p.ptr.offset())?)));
        let Some((buckets, nr)) = place else {
            self.report.differs(format_args!("{key}: {}: no such bucket", p.ptr));
            return false;
        };
        let Some(b) = self.table.get_mut(dev.into(), nr) else {
            return false;
        };
        let (recorded, mut found) = (b.recorded(), b.expected());
        match bucket::add(&mut found, p, pointers::data_type(level)) {
            Ok(Marked::Stale) => {
                self.stale = true;
                return false;
            }
            Ok(_) => b.found(&found),
            Err(why) => {
                let (ptr, report) = (p.ptr, &mut self.report);
                report.differs(format_args!("{key}: {ptr}: {why:?}: bucket is {recorded}"));
                return true;
            }
        }
        if p.is_dirty() {
            let (pos, bp) = pointers::backpointer(btree, level, key, p, &buckets);
            self.report.backpointers += 1;
            self.pending.backpointer(pos, bp);
        }
        true
    }

    #[inline(never)]
    fn inodes(&mut self) -> Result {
        self.make_room()?;
        let mut nr = 0;
        self.btree.walk(BtreeId::INODES, Bpos::POS_MIN, Bpos::SPOS_MAX, ALL, |key| {
            let t = key.key.key_type;
            if matches!(t, KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3) {
                nr += 1;
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        self.sums.add(AccountingKey::NrInodes, &[nr]);
        Ok(())
    }

    /// The keys of all buckets, and the counters of devices that follow from them.
    #[inline(never)]
    fn buckets(&mut self) -> Result {
        self.make_room()?;
        for (buckets, nr, b) in self.table.iter() {
            self.report.buckets += 1;
            let (recorded, expected) = (b.recorded(), b.expected());
            if recorded != expected {
                let (dev, report) = (buckets.dev, &mut self.report);
                report.differs(format_args!("bucket {dev}:{nr}: {recorded}, should be {expected}"));
            }
            // As if it had come from nothing.
            let counters = |a: &Alloc| {
                let (used, fragmented) = (a.used_sectors(), a.fragmented_sectors(buckets.sectors));
                [1, used as i64, fragmented as i64]
            };
            let what = AccountingKey::DevDataType { dev: buckets.dev, data_type: recorded.data_type };
            self.sums.add(what, &counters(&recorded));
            if !self.sums.has_room() {
                self.sums.make_room()?;
            }
        }
        Ok(())
    }

    /// All counters.
    #[inline(never)]
    fn accounting(&mut self) -> Result {
        let (mut inodes, stale) = (0, self.stale);
        let (sums, report, memory) = (&mut self.sums, &mut self.report, self.memory);
        self.btree.walk(BtreeId::ACCOUNTING, Bpos::POS_MIN, Bpos::SPOS_MAX, ALL, |key| {
            let Ok(value) = Value::parse(key) else {
                report.differs(format_args!("{}: not a counter", key.key));
                return Ok(ControlFlow::<()>::Continue(()));
            };
            report.accounting += 1;
            match value.what {
                AccountingKey::Inum { .. } => inodes += u64::from(!value.is_zero()),
                AccountingKey::Unknown { .. } => {}
                what => {
                    let want = sums.take(key.key.pos);
                    let nr = what.nr_counters().unwrap_or(0);
                    let same = |v: &sums::Values| (0..nr).all(|i| v.get(i) == Some(&value.counter(i)));
                    let compression = matches!(what, AccountingKey::Compression { .. });
                    if !same(&want) && compression && stale {
                        report.drift(format_args!("{value}, should be {want:?}"));
                    } else if !same(&want) {
                        report.differs(format_args!("{value}, should be {want:?}"));
                    }
                    if let Some(kept) = memory.and_then(|m| m.get(&what)).filter(|v| !same(v)) {
                        report.differs(format_args!("{value}, in memory {kept:?}"));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (pos, want) in self.sums.unseen() {
            let what = AccountingKey::from_pos(pos);
            self.report.differs(format_args!("{what}: missing, should be {want:?}"));
        }
        if inodes != self.inode_sums {
            let (want, report) = (self.inode_sums, &mut self.report);
            report.drift(format_args!("{inodes} counters of inodes, should be {want}"));
        }
        Ok(())
    }
}
