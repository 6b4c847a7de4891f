// SPDX-License-Identifier: GPL-2.0
//! From the decoded form of any value back to its words.

use bcachefs_format::keys::accounting::Accounting;
use bcachefs_format::keys::extent::{Entries, Entry, EntryWriter, Ptr};
use bcachefs_format::keys::{self, Value};

use super::owned::{build, Owned};

fn copy_entries(from: Entries<'_>, to: &mut EntryWriter<'_>) {
    for (_, e) in from {
        match e {
            Entry::Ptr(p) => to.ptr(p).map(drop),
            Entry::Crc(kind, crc) => to.crc_as(kind, &crc).map(drop),
            Entry::StripePtr(s) => to.stripe_ptr(s).map(drop),
            Entry::Rebalance(r) => to.rebalance(r).map(drop),
            Entry::Bad(k) => panic!("bad entry {k}"),
        }
        .unwrap();
    }
}

/// Builds a value from its decoded form.
pub fn rebuild(key: &Owned) -> Vec<u64> {
    match keys::parse(key.as_ref()).expect("decodable") {
        Value::Deleted
        | Value::Whiteout
        | Value::Error
        | Value::HashWhiteout
        | Value::Set
        | Value::Unknown(_) => key.value.clone(),
        Value::Cookie(v) => build(|w| v.build(w)),
        Value::BtreePtr(v) => {
            let ptrs: Vec<Ptr> = v.ptrs().collect();
            build(|w| v.build(&ptrs, w))
        }
        Value::Extent(v) => build(|words| {
            let mut w = EntryWriter::new(words);
            copy_entries(v.entries(), &mut w);
            w.finish()
        }),
        Value::ReflinkV(v) => build(|words| {
            let mut w = EntryWriter::reflink_v(words, v.refcount)?;
            copy_entries(v.entries(), &mut w);
            w.finish()
        }),
        Value::Reservation(v) => build(|w| v.build(w)),
        Value::Inode(v) => build(|w| v.build(w)),
        Value::InodeGeneration(v) => build(|w| v.build(w)),
        Value::Dirent(v) => build(|w| v.build(w)),
        Value::Xattr(v) => build(|w| v.build(w)),
        Value::Alloc(v) => build(|w| v.build(w)),
        Value::Quota(v) => build(|w| v.build(w)),
        Value::Stripe(v) => build(|w| v.build(w)),
        Value::ReflinkP(v) => build(|w| v.build(w)),
        Value::InlineData(v) => build(|w| v.build(w)),
        Value::IndirectInlineData(v) => build(|w| v.build(w)),
        Value::Subvolume(v) => build(|w| v.build(w)),
        Value::Snapshot(v) => build(|w| v.build(w)),
        Value::Lru(v) => build(|w| v.build(w)),
        Value::Backpointer(v) => build(|w| v.build(w)),
        Value::BucketGens(v) => build(|w| v.build(w)),
        Value::SnapshotTree(v) => build(|w| v.build(w)),
        Value::LoggedOpTruncate(v) => build(|w| v.build(w)),
        Value::LoggedOpFinsert(v) => build(|w| v.build(w)),
        Value::Accounting(v) => {
            let counters: Vec<i64> = v.counters().collect();
            assert_eq!(v.what.to_pos(), Some(key.key.pos));
            build(|w| Accounting::build(&counters, w))
        }
    }
}
