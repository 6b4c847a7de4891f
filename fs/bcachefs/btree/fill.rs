// SPDX-License-Identifier: GPL-2.0
//! Bringing nodes into memory.
//!
//! A node that is to be read is put into the cache first, locked by its read and without `READ_DONE`, so that others who
//! want it wait for the same read. Copies are tried in the order of the pointers; one whose device is missing, that cannot be
//! read, or that is not what the pointer promises, is reported and the next one is tried. A node of which no
//! copy is good leaves the cache again, and whoever asks next tries anew.

use super::{
    cache::{Cache, Inserted},
    node::{hash_key, load, Flag, LoadError, Node, NodeData, NodeExclusive, NodeHead, PtrKey, Rules, Sibling},
    report::Report,
    source::{CopyError, NodeSource},
};
use crate::{
    journal::Blacklist,
    util::{
        checksum::Checksums,
        counters::{Counter, Counters},
        error::{Error, Result},
    },
};
use bcachefs_format::{
    btree_node::NodeWant,
    checksum::CsumType,
    keys::{btree_ptr::BtreePtr, extent::Ptr, ValidateCtx},
    version::Version,
    BtreeId, Invalid, KeyRef,
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use kfs::{block::IoBuf, mem::NofsScope, sync::six::SixLock};

/// What reading nodes needs to know of the filesystem.
#[derive(Copy, Clone)]
pub struct Geometry {
    /// Sectors of a node.
    pub node_sectors: u32,
    /// Sectors of a block.
    pub block_sectors: u16,
    /// What headers of nodes start with.
    pub magic: u64,
    /// Version of the filesystem.
    pub version: Version,
    /// Oldest version of metadata on disk.
    pub version_min: Version,
    /// Type of the checksums of nodes that are written.
    pub metadata_csum: CsumType,
}

/// Reads nodes into the cache.
#[pin_data]
pub struct Fill {
    /// The cache.
    pub cache: Arc<Cache>,
    pub(super) geometry: Geometry,
    source: KBox<dyn NodeSource>,
    blacklist: Blacklist,
    counters: Arc<Counters>,
    issues: Atomic<u64>,
    bad_copies: Atomic<u64>,
    lost: Atomic<u64>,
    #[pin]
    report: Report,
}

/// A node that was not in the cache.
pub enum Filling {
    /// Its read has to be started.
    Start(KBox<ReadOp>),
    /// Somebody else was quicker.
    Present(Arc<Node>),
}

impl Fill {
    /// Over an empty cache. May sleep.
    pub fn new(
        cache: Arc<Cache>,
        geometry: Geometry,
        source: KBox<dyn NodeSource>,
        blacklist: Blacklist,
        counters: Arc<Counters>,
        name: kernel::str::CString,
    ) -> Result<Arc<Self>> {
        Ok(Arc::pin_init(
            pin_init!(Self {
                cache,
                geometry,
                source,
                blacklist,
                counters,
                issues: Atomic::new(0),
                bad_copies: Atomic::new(0),
                lost: Atomic::new(0),
                report <- Report::new(name),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Puts the node behind `ptr` into the cache, ready to be read. Allocates with `flags`.
    pub fn prepare(
        self: &Arc<Self>,
        btree: BtreeId,
        level: u8,
        ptr: &PtrKey,
        buf: Buffer,
        flags: kernel::alloc::Flags,
    ) -> Result<Filling> {
        let hash = hash_key(ptr)?;
        let buf = match buf {
            Buffer::Wait => None,
            Buffer::Now => Some(self.source.try_buffer().ok_or(Error::NoMem)?),
        };
        let head = NodeHead::new(btree, level, hash, ptr, &[Flag::ACCESSED]);
        let node = SixLock::new_exclusive(NodeData::empty(), head, flags)?;
        let mut op = KBox::new(
            ReadOp {
                fill: self.clone(),
                node: None,
                next: 0,
                bad: 0,
                buf,
            },
            flags,
        )?;
        let lock = node.lock().clone();
        match self.cache.insert(&lock)? {
            Inserted::New => {
                op.node = Some(node);
                Ok(Filling::Start(op))
            }
            Inserted::Lost(present) => Ok(Filling::Present(present)),
        }
    }

    /// Prints an error about the filesystem's nodes.
    pub fn report(&self, text: fmt::Arguments<'_>) {
        self.report.error(text);
    }

    /// What keys are checked against.
    pub(super) fn validate_ctx(&self) -> ValidateCtx<'_> {
        ValidateCtx {
            devices: self.source.geometry(),
            btree_node_sectors: self.geometry.node_sectors,
            ..ValidateCtx::READ
        }
    }

    /// What pointers in keys are checked against.
    pub(super) fn devices(&self) -> Option<&dyn bcachefs_format::keys::Devices> {
        self.source.geometry()
    }

    /// Reports that one copy of a node could not be written.
    pub(super) fn write_failed(&self, head: &NodeHead, ptr: Ptr, error: &CopyError) {
        self.report(format_args!("{}: write: {error}", NodeCopy(self, head, ptr)));
    }

    /// Waits until all reads have ended.
    pub fn wait_idle(&self) {
        self.source.wait_idle();
    }

    #[inline(never)]
    fn want(&self, head: &NodeHead) -> core::result::Result<NodeWant, Invalid> {
        let ptr = head.ptr();
        let p = BtreePtr::parse(ptr.get())?;
        Ok(NodeWant {
            magic: self.geometry.magic,
            btree: head.btree,
            level: head.level,
            min_key: p.min_key,
            max_key: p.max_key,
            seq: p.seq,
            sectors_written: p.sectors_written,
            range_updated: p.range_updated,
            sb_version: self.geometry.version,
            version_min: self.geometry.version_min,
            block_sectors: self.geometry.block_sectors,
        })
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "copies found bad: {}", self.bad_copies.load(Relaxed))?;
        writeln!(f, "nodes without a good copy: {}", self.lost.load(Relaxed))?;
        writeln!(f, "damage lived with: {}", self.issues.load(Relaxed))
    }
}

/// Where the buffer for a read comes from.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Buffer {
    /// It is got when the read starts; that may wait.
    Wait,
    /// It is got at once, or there is no read.
    Now,
}

/// A node on its way into memory.
pub struct ReadOp {
    fill: Arc<Fill>,
    /// `Some` until the read has ended.
    node: Option<NodeExclusive>,
    /// Number of pointers tried.
    next: usize,
    /// Number of copies that were bad.
    bad: usize,
    buf: Option<IoBuf>,
}

/// Names a node and one of its copies in messages.
struct NodeCopy<'a>(&'a Fill, &'a NodeHead, Ptr);

impl fmt::Display for NodeCopy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeCopy(fill, head, ptr) = self;
        let max = head.max();
        write!(f, "btree {} level {} node up to {max}, ", head.btree, head.level)?;
        fill.source.describe(*ptr, f)
    }
}

impl ReadOp {
    /// Starts the read. May wait for a buffer: no lock of a node may be held.
    pub fn start(mut self: KBox<Self>) {
        let buf = match self.buf.take() {
            Some(buf) => Some(buf),
            None => self.fill.source.buffer(),
        };
        self.fill.counters.inc(Counter::BTREE_NODE_READ);
        match buf {
            Some(buf) => self.try_next(buf),
            None => self.finish(Err(Error::NoMem)),
        }
    }

    /// The node that is being read.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref().map(|n| n.lock())
    }

    fn try_next(mut self: KBox<Self>, buf: IoBuf) {
        let ptr = self.node.as_ref().and_then(|node| {
            let key = node.lock().shared().ptr();
            let p = BtreePtr::parse(key.get()).ok()?;
            let ptr = p.ptrs().nth(self.next);
            ptr
        });
        self.next += 1;
        match ptr {
            Some(ptr) => {
                let fill = self.fill.clone();
                fill.source.read(ptr, buf, self);
            }
            None => self.finish(Err(Error::BtreeNodeRead)),
        }
    }

    /// Takes the bytes of a copy, or the reason why there are none, and goes on. Process context; may sleep.
    pub fn copy_read(mut self: KBox<Self>, ptr: Ptr, result: core::result::Result<(), CopyError>, buf: IoBuf) {
        let _nofs = NofsScope::enter();
        let fill = self.fill.clone();
        let Some(node) = self.node.as_mut() else {
            return;
        };
        let lock = node.lock().clone();
        let head = lock.shared();
        let bytes = fill.geometry.node_sectors as usize * 512;
        let rules = NodeRules {
            fill: &fill,
            head,
            ptr,
        };
        let loaded = result.map_err(Some).and_then(|()| {
            let words = buf.as_words().get(..bytes / 8).unwrap_or(&[]);
            let want = fill.want(head).map_err(|e| Some(CopyError::Invalid(e)))?;
            let flags = GFP_KERNEL | __GFP_NOWARN;
            load(words, &want, &Checksums, &rules, flags, node).map_err(|e| match e {
                LoadError::Invalid(e) => Some(CopyError::Invalid(e)),
                LoadError::NoMem => None,
            })
        });
        match loaded {
            Ok(()) => {
                fill.cache.account(&lock, node.bytes());
                // Until the neighbours are known.
                for side in [Sibling::Prev, Sibling::Next] {
                    head.set_sibling(side, Some(node.live_u64s() as u32));
                }
                // Nobody knows where its next set would go.
                let unknown = BtreePtr::parse(head.ptr().get()).is_ok_and(|p| p.sectors_written == 0);
                if unknown {
                    head.set(Flag::NEED_REWRITE);
                }
                if self.bad != 0 {
                    head.set(Flag::NEED_REWRITE);
                    fill.report(format_args!(
                        "{}: read after {} bad copies",
                        NodeCopy(&fill, head, ptr),
                        self.bad
                    ));
                }
                self.finish(Ok(()));
            }
            Err(None) => self.finish(Err(Error::NoMem)),
            Err(Some(error)) => {
                fill.bad_copies.add(1u64, Relaxed);
                fill.source.count_error(ptr, &error);
                fill.report(format_args!("{}: {error}", NodeCopy(&fill, head, ptr)));
                self.bad += 1;
                self.try_next(buf);
            }
        }
    }

    fn finish(mut self: KBox<Self>, result: Result<()>) {
        let Some(node) = self.node.take() else {
            return;
        };
        let lock = node.lock().clone();
        let head = lock.shared();
        if let Err(e) = result {
            self.fill.cache.forget(&lock);
            if e == Error::BtreeNodeRead {
                self.fill.lost.add(1u64, Relaxed);
                let max = head.max();
                self.fill.report(format_args!(
                    "btree {} level {} node up to {max}: no good copy, tried {}",
                    head.btree, head.level, self.bad
                ));
            }
        }
        // First the lock, so that those who are woken find it free.
        drop(node);
        head.finish_read(result);
    }
}

impl Drop for ReadOp {
    fn drop(&mut self) {
        // A read that was given up before it started.
        if let Some(node) = self.node.take() {
            let lock = node.lock().clone();
            self.fill.cache.forget(&lock);
            drop(node);
            lock.shared().finish_read(Err(Error::NoMem));
        }
    }
}

/// The filesystem's part of the rules of reading.
struct NodeRules<'a> {
    fill: &'a Fill,
    head: &'a NodeHead,
    ptr: Ptr,
}

impl Rules for NodeRules<'_> {
    fn blacklisted(&self, journal_seq: u64) -> bool {
        self.fill.blacklist.contains(journal_seq)
    }

    fn check_value(&self, key: KeyRef<'_>) -> core::result::Result<(), Invalid> {
        bcachefs_format::keys::validate_value(key, &self.fill.validate_ctx())
    }

    fn issue(&self, what: &Invalid) {
        self.fill.issues.add(1u64, Relaxed);
        self.fill.report(format_args!(
            "{}: {what}",
            NodeCopy(self.fill, self.head, self.ptr)
        ));
    }
}
