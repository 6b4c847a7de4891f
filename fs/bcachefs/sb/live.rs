// SPDX-License-Identifier: GPL-2.0
//! The superblock of a mounted filesystem, as it changes.
//!
//! A change is made to a copy of the superblock in memory, which is written to all devices and only then takes the place of the one
//! before: what others see has always been written. The first mounts of a new filesystem, up to the end of its initialisation, change
//! it in memory only, and so does a mount that may not change anything on the devices.
//!
//! Locking: changes take turns under a mutex that no lock of a btree node may be held for. What is asked for under such locks is kept
//! a second time under a spinlock.

use core::fmt;

use bcachefs_format::{
    sb::{DiskLayout, Member, ReplicasEntry},
    super_block::SuperBlock,
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};

use super::{
    device::IoErrorKind,
    listed::{Listed, Replicas},
    own::{is_shared, OwnParts},
    Devices, SbImage, Super,
};
use crate::{
    fs_err,
    util::{
        counters::{Counter, Counters},
        error::{Error, Result},
    },
};

/// Told when the superblock cannot be written any more.
pub trait OnFailure: Send + Sync {
    /// Nothing may be changed any more. Called once, under the mutex of the superblock; must not sleep.
    fn super_failed(&self, error: Error);
}

/// The superblock while mounted.
#[pin_data]
pub struct LiveSuper {
    name: kernel::str::CString,
    pub(super) devices: Arc<Devices>,
    counters: Arc<Counters>,
    /// Nothing is to be written.
    nochanges: bool,
    failed: Atomic<bool>,
    #[pin]
    on_failure: SpinLock<Option<Arc<dyn OnFailure>>>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    listed: SpinLock<Listed>,
}

/// What the mutex protects.
pub(super) struct State {
    /// What has been written last.
    pub(super) image: SbImage,
    /// The parts of each device that is present.
    pub(super) own: KVec<OwnParts>,
}

impl LiveSuper {
    /// Of a filesystem that is being mounted. May sleep.
    #[inline(never)]
    pub(super) fn new(
        sup: &Super,
        devices: Arc<Devices>,
        own: KVec<OwnParts>,
        counters: Arc<Counters>,
        nochanges: bool,
    ) -> Result<Arc<Self>> {
        let sb = sup.raw()?;
        let image = SbImage::new(&sb, is_shared)?;
        let listed = Listed::new(&sb)?;
        let name = kernel::str::CString::try_from_fmt(core::format_args!("{sup}"))?;
        Ok(Arc::pin_init(
            pin_init!(LiveSuper {
                name,
                devices,
                counters,
                nochanges,
                failed: Atomic::new(false),
                on_failure <- new_spinlock!(None, "sb_on_failure"),
                state <- new_mutex!(State { image, own }, "sb_lock"),
                listed <- new_spinlock!(listed, "sb_listed"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Says whom to tell when writing fails.
    pub fn set_on_failure(&self, on_failure: Option<Arc<dyn OnFailure>>) {
        let old = core::mem::replace(&mut *self.on_failure.lock(), on_failure);
        drop(old);
    }

    /// Looks at the superblock. Parts that belong to one device only are not in it. May sleep.
    pub fn read<R>(&self, f: impl FnOnce(&SuperBlock<'_>) -> R) -> Result<R> {
        let state = self.state.lock();
        let sb = state.image.view()?;
        Ok(f(&sb))
    }

    /// Looks at the superblock as it is on the first device present. May sleep.
    pub fn read_whole<R>(&self, f: impl FnOnce(&SuperBlock<'_>) -> R) -> Result<R> {
        let state = self.state.lock();
        let shared = state.image.view()?;
        let own = state.own.first().ok_or(Error::DeviceMissing)?;
        let mut words = KVVec::from_elem(0, own.composed_u64s(&shared), GFP_KERNEL)?;
        own.compose(&shared, 0, &mut words)
            .map_err(|_| Error::SuperFull)?;
        let sb = super::read::view(&words)?;
        Ok(f(&sb))
    }

    /// Changes the superblock by `edit` and writes it to all devices. Sleeps; no lock of a btree node may be held.
    ///
    /// # Errors
    ///
    /// What `edit` returns: nothing is changed then. [`Error::SuperFull`], [`Error::SuperInvalid`]: the result could not be written
    /// anywhere and is dropped. [`Error::SuperStale`], [`Error::SuperWrite`]: it could not be written; the filesystem is told to
    /// stop writing.
    pub fn change<R>(&self, edit: impl FnOnce(&mut SbImage) -> Result<R>) -> Result<R> {
        let mut state = self.state.lock();
        self.change_locked(&mut state, edit)
    }

    fn change_locked<R>(
        &self,
        state: &mut State,
        edit: impl FnOnce(&mut SbImage) -> Result<R>,
    ) -> Result<R> {
        if self.failed.load(Relaxed) {
            return Err(Error::SuperWrite);
        }
        let mut next = state.image.try_clone()?;
        let r = edit(&mut next)?;
        self.stamp(&mut next)?;
        let listed = Listed::new(&next.view()?)?;
        if !self.nochanges && next.view()?.flags().initialized() != 0 {
            if let Err(e) = super::write::write(self, state, &next) {
                fs_err!(self, "superblock: {e}");
                if matches!(e, Error::SuperStale | Error::SuperWrite) {
                    self.failed.store(true, Relaxed);
                    let on_failure = self.on_failure.lock().clone();
                    if let Some(on_failure) = on_failure {
                        on_failure.super_failed(e);
                    }
                }
                return Err(e);
            }
            self.counters.inc(Counter::WRITE_SUPER);
        }
        state.image = next;
        let old = core::mem::replace(&mut *self.listed.lock(), listed);
        drop(old);
        Ok(r)
    }

    /// What every write brings up to date.
    fn stamp(&self, image: &mut SbImage) -> Result {
        let header = image.header_mut()?;
        let seq = header.seq.get().checked_add(1).ok_or(Error::SuperFull)?;
        header.seq.set(seq);
        header.write_time.set(kfs::time::real_seconds());
        for device in self.devices.iter() {
            image.edit_member(device.index, |m| {
                m.seq.set(seq);
                let kinds = [IoErrorKind::Read, IoErrorKind::Write, IoErrorKind::Checksum];
                for ((to, kind), stored) in m.errors.iter_mut().zip(kinds).zip(device.member.errors) {
                    to.set(stored.get().saturating_add(device.errors(kind)));
                }
            })?;
        }
        let mut totals = KVec::with_capacity(Counter::COUNT, GFP_KERNEL)?;
        for counter in Counter::all() {
            totals.push(self.counters.total(counter), GFP_KERNEL)?;
        }
        image.set_counters(totals.iter().copied())?;
        image.mirror_members()
    }

    /// Whether the superblock lists this combination of devices, which ascend. Any context.
    pub fn lists_replicas(&self, entry: &ReplicasEntry<'_>) -> bool {
        self.listed.lock().has(entry)
    }

    /// Makes sure that the superblock lists these combinations of devices. Sleeps, and writes the superblock if it has to; no lock of
    /// a btree node may be held.
    pub fn mark_replicas<'e>(&self, entries: impl Iterator<Item = ReplicasEntry<'e>>) -> Result {
        let mut missing = Replicas::new();
        for entry in entries {
            if !self.lists_replicas(&entry) {
                missing.add(&entry)?;
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        // Again under the lock, from what was written last.
        let mut all = Replicas::of(&state.image.view()?)?;
        let mut any = false;
        for entry in missing.iter() {
            any |= all.add(&entry)?;
        }
        if !any {
            return Ok(());
        }
        let all = all.entries()?;
        self.change_locked(&mut state, |image| image.set_replicas(&all))
    }

    /// Member `dev` as the superblock has it, if it exists. Any context.
    pub fn member(&self, dev: u8) -> Option<Member> {
        self.listed.lock().member(dev).copied()
    }

    /// Whether the freespace btree covers device `dev`. Any context.
    pub fn freespace_initialized(&self, dev: u8) -> bool {
        self.member(dev).is_some_and(|m| m.freespace_initialized())
    }

    /// Notes that the freespace btree covers device `dev`. Sleeps.
    pub fn set_freespace_initialized(&self, dev: u8) -> Result {
        self.change(|image| image.edit_member(dev, |m| m.set_freespace_initialized(true)))
    }

    /// Whether the superblock says that btree nodes may be in these sectors of device `dev`. Any context.
    pub fn btree_nodes_marked(&self, dev: u8, start: u64, sectors: u32) -> bool {
        let end = start.saturating_add(sectors.into());
        self.listed
            .lock()
            .member(dev)
            .is_some_and(|m| m.bitmap_covers(start, end))
    }

    /// Has the superblock say that btree nodes may be in these places: device, first sector, number of sectors. Before a pointer to
    /// such a node is journalled. Sleeps, and writes the superblock if it has to; no lock of a btree node may be held.
    pub fn mark_btree_nodes(&self, places: &[(u8, u64, u32)]) -> Result {
        if places
            .iter()
            .all(|p| self.btree_nodes_marked(p.0, p.1, p.2))
        {
            return Ok(());
        }
        self.change(|image| {
            for &(dev, start, sectors) in places {
                let end = start.saturating_add(sectors.into());
                image.edit_member(dev, |m| m.cover_bitmap(start, end))?;
            }
            Ok(())
        })
    }

    /// Where the superblocks of device `dev` are. May sleep.
    pub fn layout(&self, dev: u8) -> Result<KBox<DiskLayout>> {
        let state = self.state.lock();
        let own = state.own.iter().find(|o| o.index == dev);
        let own = own.ok_or(Error::DeviceMissing)?;
        Ok(KBox::new(*own.layout, GFP_KERNEL)?)
    }

    /// Whether the filesystem has been initialised: superblocks of one that has not are not written.
    pub fn initialized(&self) -> Result<bool> {
        self.read(|sb| sb.flags().initialized() != 0)
    }
}

/// Prints the filesystem's name.
impl fmt::Display for LiveSuper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.to_str().unwrap_or(""))
    }
}
