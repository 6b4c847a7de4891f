// SPDX-License-Identifier: GPL-2.0
//! Emptying the write buffer.

use super::{item::Item, Flushing, List, LIMIT};
use crate::{
    btree::{trans::update::CommitFlags, Btree},
    util::{
        error::{Error, Result},
        sort::sort_by_key,
        watermark::Watermark,
    },
};
use kernel::{prelude::*, sync::atomic::Relaxed};
use kfs::mem::NofsScope;

impl Btree {
    /// Takes over what has come, and puts all that may be put into the btrees. Whether there was any. Sleeps. An error is fatal, unless
    /// the journal has failed already; what has not been written stays in the list.
    pub(super) fn flush_buffered(&self, f: &mut Flushing) -> Result<bool> {
        let _scope = NofsScope::enter();
        let w = self.writing()?;
        if w.log.journal().is_some_and(|journal| journal.failed()) {
            return Err(Error::JournalFailed);
        }
        self.take_incoming(f)?;
        sort(f)?;
        let result = self.flush_sorted(f);
        self.keep_rest(f);
        if let Err(e) = result {
            self.fill.report(format_args!("keys of the write buffer cannot be written: {e}"));
            w.log.halt(e);
        }
        result
    }

    /// Moves the keys that have come to those that are being flushed.
    fn take_incoming(&self, f: &mut Flushing) -> Result {
        let mut incoming = self.write_buffer.incoming.lock();
        let List { items, pin } = &mut f.list;
        if items.is_empty() {
            core::mem::swap(items, &mut incoming.items);
        } else {
            items.extend_from_slice(&incoming.items, GFP_KERNEL)?;
            incoming.items.clear();
        }
        if let Some(journal) = self.journal() {
            // First the new pin, then the old one goes.
            journal.pin_copy(pin, &incoming.pin);
            journal.unpin(&incoming.pin);
            journal.write_buffer_full(false);
        }
        Ok(())
    }

    /// Puts the keys in `order` into the btrees. Those that have been are marked by being in entry 0.
    fn flush_sorted(&self, f: &mut Flushing) -> Result<bool> {
        let items = &mut f.list.items;
        let accounting = self.write_buffer.accounting.load(Relaxed) != 0;
        f.order.retain(|i| items.get(*i as usize).is_some_and(|item| accounting || !item.adds()));
        let any = !f.order.is_empty();
        // What makes room must not wait for room.
        let flags = CommitFlags {
            no_enospc: true,
            no_check_rw: true,
            journal_reclaim: true,
            ..CommitFlags::default()
        };
        let mut postponed = KVVec::new();
        let mut at = 0;
        while at < f.order.len() {
            match self.flush_leaf(items, &f.order, &mut at, flags) {
                Ok(()) => {}
                Err(Error::WouldDeadlock) => {
                    if let Some(i) = f.order.get(at) {
                        postponed.push(*i, GFP_KERNEL)?;
                    }
                    at += 1;
                }
                Err(e) => return Err(e),
            }
        }
        if postponed.is_empty() {
            return Ok(any);
        }
        // In the order of the journal, letting go of its entries on the way, so that there will be room.
        let oldest = |i: &u32| items.get(*i as usize).map_or(0, |item| item.oldest);
        sort_by_key(&mut postponed, |i| (oldest(i), *i));
        let flags = CommitFlags {
            watermark: Watermark::Reclaim,
            journal_reclaim: false,
            ..flags
        };
        let mut at = 0;
        while let Some(i) = postponed.get(at) {
            if let (Some(journal), Some(item)) = (self.journal(), items.get(*i as usize)) {
                if accounting {
                    journal.pin_move(&f.list.pin, item.oldest);
                }
            }
            // One at a time: the next ones need not be in order.
            let one = postponed.get(at..=at).unwrap_or_default();
            let mut done = 0;
            self.flush_leaf(items, one, &mut done, flags)?;
            at += 1;
        }
        Ok(any)
    }

    /// Drops the keys that have been written from the list, and lets go of what only they needed.
    fn keep_rest(&self, f: &mut Flushing) {
        let before = f.list.items.len();
        f.list.items.retain(|item| item.seq != 0);
        let after = f.list.items.len();
        let merged_or_done = before - after;
        self.write_buffer.waiting.fetch_sub(merged_or_done, Relaxed);
        if let Some(journal) = self.journal() {
            match f.list.items.iter().map(|item| item.oldest).min() {
                Some(oldest) => journal.pin_move(&f.list.pin, oldest),
                None => journal.unpin(&f.list.pin),
            }
        }
        // Memory that was needed once only.
        if after == 0 && f.list.items.capacity() > 2 * LIMIT {
            f.list.items = KVVec::new();
        }
    }
}

/// Sorts the keys by where they go, as indices in `order`. Of several for one place only the last one remains.
fn sort(f: &mut Flushing) -> Result {
    let items = &mut f.list.items;
    f.order.clear();
    f.order.reserve(items.len(), GFP_KERNEL)?;
    for i in 0..items.len() {
        f.order.push(i as u32, GFP_KERNEL)?;
    }
    {
        let item = |i: u32| items.get(i as usize).map(|item| item.place());
        sort_by_key(&mut f.order, |i| (item(*i), *i));
    }
    let mut prev: Option<u32> = None;
    for &i in f.order.iter() {
        let older = prev.replace(i).and_then(|p| items.get(p as usize).copied().map(|o| (p, o)));
        let Some((at, older)) = older else { continue };
        let Some(item) = items.get_mut(i as usize).filter(|n| n.place() == older.place()) else {
            continue;
        };
        item.supersede(&older);
        if let Some(older) = items.get_mut(at as usize) {
            done(older);
        }
    }
    f.order.retain(|i| items.get(*i as usize).is_some_and(|item| item.seq != 0));
    Ok(())
}

/// Marks a key as written, or part of another one.
pub(super) fn done(item: &mut Item) {
    item.seq = 0;
}
