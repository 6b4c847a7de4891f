// SPDX-License-Identifier: GPL-2.0
//! Crashes.
//!
//! Everything that is written is remembered in order. For each moment the filesystem is mounted as it was on the media then:
//! newest flush entry, the roots it knows of, keys of the journal laid over the nodes. It must hold exactly what had been
//! committed up to that entry. Unmounting mostly waits, so several threads share the moments out.

use super::{
    check, check_keys, deleted,
    media::{store, Event, Media, Nodes},
    mount, position, shuffled, start, Fs, Key, JSET_MAGIC, TREE,
};
use crate::{
    btree::{
        tests::image::Draw,
        trans::update::{CommitFlags, UpdateFlags},
    },
    journal::{overlay::JournalKeysBuilder, Blacklist, Root},
    util::{
        checksum::Checksums,
        error::{Error, Result},
        threads,
    },
};
use bcachefs_format::jset::{entry::Entry as Record, Jset};
use kernel::{prelude::*, sync::Arc};

/// Threads that look at moments.
const THREADS: u32 = 8;

/// A change of one key.
struct Op {
    /// Entry of the journal.
    seq: u64,
    key: u64,
    /// `None`: deleted.
    value: Option<u64>,
}

/// Entries of the journal on the media.
struct Log<'a> {
    entries: KVVec<(u64, &'a [u64])>,
    /// Newest flush entry, and the oldest that it needs.
    range: Option<(u64, u64)>,
}

impl<'a> Log<'a> {
    /// Notes an entry.
    fn push(&mut self, words: &'a [u64]) -> Result {
        let jset = Jset::new(words)?;
        check!(jset.verify(&Checksums).is_ok());
        let jset = jset.validate(JSET_MAGIC)?;
        let seq = jset.seq();
        self.entries.push((seq, words), GFP_KERNEL)?;
        match jset.last_seq() {
            // Recovery would start from it.
            Some(last) if self.range.is_none_or(|r| r.1 < seq) => self.range = Some((last, seq)),
            _ => {}
        }
        Ok(())
    }

    /// What recovery finds in the entries: root and keys.
    fn state(&self) -> Result<(Option<Root>, crate::journal::JournalKeys)> {
        let mut keys = JournalKeysBuilder::new();
        let mut root = None;
        let (first, last) = self.range.unwrap_or((1, 0));
        let mut seen = first;
        for (seq, words) in self.entries.iter().filter(|e| e.0 <= last) {
            if *seq >= first {
                // None may be missing.
                check!(*seq == seen);
                seen += 1;
            }
            let jset = Jset::new(words)?.validate(JSET_MAGIC)?;
            for record in jset.entries() {
                let raw = record?;
                if raw.btree != TREE {
                    continue;
                }
                match raw.parse()? {
                    Record::BtreeRoot(key) => {
                        let key = key.ok_or(Error::BtreeRootMissing)?;
                        root = Some(Root::new(raw.level, &key)?);
                    }
                    Record::BtreeKeys(list) if *seq >= first => {
                        for key in list {
                            keys.push(*seq, TREE, raw.level, &key?)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        check!(seen == last + 1);
        Ok((root, keys.finish()?))
    }
}

/// Changes keys one after the other and remembers in which entry of the journal each change is.
fn run(fs: &Fs, keys: u64, seed: u64) -> Result<KVVec<Op>> {
    let mut ops = KVVec::new();
    let mut draw = Draw(seed);
    for round in 0..3u64 {
        for &key in shuffled(keys, seed + round)?.iter() {
            let value = (round != 2).then_some(key * 2 + round);
            let seq = match value {
                Some(v) => fs.put(Key::new(position(key), v).as_ref())?,
                None => fs.put(deleted(position(key)))?,
            };
            ops.push(Op { seq, key, value }, GFP_KERNEL)?;
            match draw.below(40) {
                0..6 => fs.journal.flush(seq)?,
                6 => while fs.btree.flush_nodes()? {},
                7 => drop(fs.journal.flush_pins(seq / 2)?),
                _ => {}
            }
        }
    }
    fs.journal.flush(fs.journal.cur_seq())?;
    Ok(ops)
}

/// Changes two keys at a time, most of them in the key cache, and remembers in which entry of the journal that is.
fn run_cached(fs: &Fs, keys: u64, seed: u64) -> Result<KVVec<Op>> {
    fs.btree.cache_keys_of(TREE);
    fs.btree.start_caching_keys();
    let mut ops = KVVec::new();
    let mut draw = Draw(seed);
    for n in 0..keys * 6 {
        let pair = [draw.below(keys), draw.below(keys)];
        let gone = draw.below(12) == 0;
        let flags = CommitFlags::default();
        let ((), done) = fs.btree.commit(None, flags, |t| {
            for key in pair {
                let value = Key::new(position(key), n);
                let value = if gone { deleted(position(key)) } else { value.as_ref() };
                t.update_node_key(TREE, 0, value, UpdateFlags::default())?;
            }
            Ok(())
        })?;
        for key in pair {
            let value = (!gone).then_some(n);
            ops.push(Op { seq: done.seq, key, value }, GFP_KERNEL)?;
        }
        match draw.below(50) {
            0..6 => fs.journal.flush(done.seq)?,
            6 => while fs.btree.flush_nodes()? {},
            7 => drop(fs.journal.flush_pins(done.seq / 2)?),
            8 => drop(fs.journal.flush_pins(done.seq)?),
            9 => drop(fs.btree.key_cache.evict(keys as usize / 2)),
            _ => {}
        }
    }
    super::cached::show(&fs.btree, TREE);
    // Some are nowhere but in the journal.
    check!(fs.btree.dirty_keys() != 0);
    fs.journal.flush(fs.journal.cur_seq())?;
    Ok(ops)
}

fn crash(keys: u64, seed: u64, run: fn(&Fs, u64, u64) -> Result<KVVec<Op>>) -> Result {
    let fs = Fs::new(true)?;
    let ops = run(&fs, keys, seed)?;
    let events = {
        let mut written = fs.media.written.lock();
        written.remember = false;
        core::mem::take(&mut written.events)
    };
    fs.end()?;

    pr_info!("btree test: {} states after {} changes\n", events.len(), ops.len());
    check!(events.len() > 100);
    threads::run(THREADS, move |me| look(&events, &ops, keys, me))?;
    Ok(())
}

/// Goes through all moments and checks every one that is thread `me`'s, and the last.
fn look(events: &[Event], ops: &[Op], keys: u64, me: u32) -> Result {
    let mut at = Moment {
        nodes: Nodes::new(),
        log: Log {
            entries: KVVec::new(),
            range: None,
        },
        model: KVVec::from_elem(None, keys as usize, GFP_KERNEL)?,
        done: 0,
    };
    for (state, event) in events.iter().enumerate() {
        let mine = state as u32 % THREADS == me || state + 1 == events.len();
        match event {
            Event::Node { place, at: sector, words } => {
                // Torn, and then whole.
                let torn = words.get(..words.len() / 128 * 64).unwrap_or_default();
                store(&mut at.nodes, *place, *sector, torn)?;
                if mine {
                    at.check(ops).inspect_err(|_| pr_err!("torn write, state {state}\n"))?;
                }
                store(&mut at.nodes, *place, *sector, words)?;
            }
            Event::Entry(words) => at.log.push(words)?,
        }
        if mine {
            at.check(ops).inspect_err(|_| pr_err!("state {state} of {}\n", events.len()))?;
        }
    }
    check!(at.done == ops.len());
    Ok(())
}

/// What is on the media at some moment.
struct Moment<'a> {
    nodes: Nodes,
    log: Log<'a>,
    /// What must be found.
    model: KVVec<Option<u64>>,
    /// Changes that are in that.
    done: usize,
}

impl Moment<'_> {
    /// Mounts what is there and looks at it.
    fn check(&mut self, ops: &[Op]) -> Result {
        let Some((_, last)) = self.log.range else {
            return Ok(());
        };
        while let Some(op) = ops.get(self.done).filter(|op| op.seq <= last) {
            if let Some(value) = self.model.get_mut(op.key as usize) {
                *value = op.value;
            }
            self.done += 1;
        }
        let (root, overlay) = self.log.state()?;
        let mut copy = Nodes::new();
        for (place, node) in self.nodes.iter().enumerate().filter(|n| !n.1.is_empty()) {
            store(&mut copy, place, 0, node)?;
        }
        let media: Arc<Media> = Media::new(copy, false)?;
        let mut lost = KVVec::new();
        lost.push((last + 1, u64::MAX), GFP_KERNEL)?;
        let b = mount(&media, start(root, overlay, last + 1, Blacklist::new(lost))?)?;
        b.read_roots()?;
        let keys = self.model.len() as u64;
        let found = check_keys(&b, keys, |n| self.model.get(n as usize).copied().flatten());
        b.shutdown();
        found
    }
}

pub(in crate::btree::tests) fn crashes() -> Result {
    crash(160, 11, run)?;
    crash(200, 12, run)
}

pub(in crate::btree::tests) fn crashes_with_cache() -> Result {
    crash(60, 13, run_cached)?;
    crash(100, 14, run_cached)
}
