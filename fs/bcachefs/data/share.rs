// SPDX-License-Identifier: GPL-2.0
//! Sharing of ranges between files.
//!
//! What is shared is in the reflink btree; files refer to it. The first time an extent is shared it moves there, and a reference
//! takes its place. How many references there are, triggers count.

use bcachefs_format::{
    keys::{
        inode::Inode,
        reflink::ReflinkP,
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;

use super::{
    index::{self, Draft, Tried, COMMIT, VALUE_WORDS_MAX},
    punch::HOLE_MAX,
    source::Owner,
};
use crate::{
    btree::{
        trans::update::UpdateFlags,
        Attempt, Btree, IterFlags,
    },
    fs::inode::{edit, edit::writable_snapshot, Changed},
    util::error::{Error, Result},
};

/// A range of a file, in sectors.
pub struct Part<'a, O> {
    /// The file.
    pub owner: &'a O,
    /// Where it begins.
    pub start: u64,
}

/// What a step of sharing takes from the file with the data.
enum Found {
    /// Nothing: a hole up to there.
    Hole(u64),
    /// What is at this sector of the reflink btree, up to this sector of the file.
    Shared(u64, u64),
}

/// Makes `sectors` sectors of `to` share what is in `from`. `f` changes what else of the inode of `to` has to be, knowing up to which sector
/// this goes. Sleeps.
pub fn share<O: Owner>(
    btree: &Btree,
    from: Part<'_, O>,
    to: Part<'_, O>,
    sectors: u64,
    f: &mut dyn FnMut(&mut Inode, u64),
) -> Result {
    let mut done = 0;
    while done < sectors {
        let step = Step {
            from: from.start + done,
            to: to.start + done,
            left: sectors - done,
        };
        done += share_step(btree, from.owner, to.owner, step, f)?;
    }
    Ok(())
}

/// Memory for keys, got before locks.
struct Scratch {
    value: KVec<u64>,
    own: Draft,
    draft: Draft,
}

#[derive(Copy, Clone)]
struct Step {
    from: u64,
    to: u64,
    left: u64,
}

/// What a transaction has made of the two inodes.
#[derive(Default)]
struct Outcome {
    target: Option<Changed>,
    source: Option<Changed>,
    sectors: u64,
}

/// One transaction; how many sectors it has done.
fn share_step<O: Owner>(
    btree: &Btree,
    from: &O,
    to: &O,
    step: Step,
    f: &mut dyn FnMut(&mut Inode, u64),
) -> Result<u64> {
    // Room for the value of an extent and the count in front of it; for a reference; and for another one.
    let mut scratch = Scratch {
        value: KVec::from_elem(0u64, VALUE_WORDS_MAX + 1, GFP_KERNEL)?,
        own: Draft::with_room(2),
        draft: Draft::with_room(2),
    };
    // On the heap: keys are large.
    let mut out = KBox::new(Outcome::default(), GFP_KERNEL)?;
    let seq = commit(btree, from, to, step, f, &mut scratch, &mut out)?;
    if let Some(changed) = &out.target {
        to.committed(changed, seq);
    }
    if let Some(changed) = &out.source {
        from.committed(changed, seq);
    }
    Ok(out.sectors)
}

#[inline(never)]
fn commit<O: Owner>(
    btree: &Btree,
    from: &O,
    to: &O,
    step: Step,
    f: &mut dyn FnMut(&mut Inode, u64),
    scratch: &mut Scratch,
    out: &mut Outcome,
) -> Result<u64> {
    let ((), done) = btree.commit(None, COMMIT, |t| attempt(t, from, to, step, f, scratch, out))?;
    Ok(done.seq)
}

#[inline(never)]
fn attempt<O: Owner>(
    t: &mut Attempt<'_>,
    from: &O,
    to: &O,
    step: Step,
    f: &mut dyn FnMut(&mut Inode, u64),
    scratch: &mut Scratch,
    out: &mut Outcome,
) -> Tried {
    let mut target = edit(t, to.id(), to.state())?;
    let snapshot = writable_snapshot(t, from.id().subvol)?;
    let (found, moves) = look(t, from.id().inum, snapshot, step, scratch)?;
    let (inum, draft) = (to.id().inum, &mut scratch.draft);
    let range = |end: u64| step.to..step.to + (end - step.from);
    match found {
        Found::Hole(end) => draft.set(KeyType::DELETED, inum, range(end), |_| Some(0))?,
        Found::Shared(idx, end) => {
            let p = ReflinkP { idx, front_pad: 0, back_pad: 0 };
            draft.set(KeyType::REFLINK_P, inum, range(end), |words| p.build(words).ok())?;
        }
    }
    let end = index::reach(t, draft, target.snapshot)?;
    index::put(t, draft, end, &mut target)?;
    f(&mut target.key, end);
    to.amend(&mut target.key);
    out.target = Some(target.put(t)?);
    out.source = None;
    out.sectors = end - step.to;
    if moves && from.id() != to.id() {
        touch(t, from, out)?;
    }
    Ok(())
}

/// Whoever's extents change has its inode written, too.
#[inline(never)]
fn touch<O: Owner>(t: &mut Attempt<'_>, from: &O, out: &mut Outcome) -> Tried {
    let source = edit(t, from.id(), from.state())?;
    out.source = Some(source.put(t)?);
    Ok(())
}

/// What is at the start of the step; whether the transaction moves it into the reflink btree.
#[inline(never)]
fn look(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    step: Step,
    scratch: &mut Scratch,
) -> Tried<(Found, bool)> {
    let at = Bpos::with_snapshot(inum, step.from, snapshot);
    let limit = step.from + step.left.min(HOLE_MAX);
    let end = Bpos::with_snapshot(inum, limit, snapshot);
    let mut iter = t.iter(BtreeId::EXTENTS, at, IterFlags::INTENT);
    let Some(key) = iter.peek_upto(t, end)? else {
        return Ok((Found::Hole(limit), false));
    };
    let (start, until) = (key.key.start_offset(), key.key.pos.offset.min(limit));
    if start > step.from {
        return Ok((Found::Hole(start.min(limit)), false));
    }
    let skip = step.from - start;
    match key.key.key_type {
        KeyType::REFLINK_P => {
            let p = ReflinkP::parse(key)?;
            Ok((Found::Shared(p.idx + skip, until), false))
        }
        KeyType::EXTENT | KeyType::INLINE_DATA => {
            if key.key.key_type == KeyType::EXTENT
                && bcachefs_format::keys::extent::Extent::new(key).is_unwritten()
            {
                return Ok((Found::Hole(until), false));
            }
            let words = scratch.value.get_mut(1..=key.value.len()).ok_or(Error::ExtentInvalid)?;
            words.copy_from_slice(key.value);
            let (header, used) = (key.key, key.value.len() + 1);
            let idx = make_indirect(t, header, used, snapshot, scratch)?;
            Ok((Found::Shared(idx + skip, until), true))
        }
        // Lost data is not passed on, nor made to look like zeros.
        KeyType::ERROR => Err(Error::DataRead.into()),
        _ => Ok((Found::Hole(until), false)),
    }
}

/// Moves the extent `key`, whose value is in `scratch` behind a word for the count, `used` words together, to the end of the reflink btree, and puts
/// a reference in its place; where it begins there.
#[inline(never)]
fn make_indirect(
    t: &mut Attempt<'_>,
    key: Bkey,
    used: usize,
    snapshot: u32,
    scratch: &mut Scratch,
) -> Tried<u64> {
    let flags = IterFlags::INTENT.with(IterFlags::KEEP);
    let mut iter = t.iter(BtreeId::REFLINK, Bpos::new(0, u64::MAX), flags);
    let idx = iter.peek_prev(t)?.map_or(0, |k| k.key.pos.offset);
    let key_type = match key.key_type {
        KeyType::INLINE_DATA => KeyType::INDIRECT_INLINE_DATA,
        _ => KeyType::REFLINK_V,
    };
    let end = idx.checked_add(key.size.into()).ok_or(Error::ExtentInvalid)?;
    let indirect = Bkey {
        // One word more than before.
        u64s: key.u64s.checked_add(1).ok_or(Error::ExtentInvalid)?,
        key_type,
        pos: Bpos::new(0, end),
        ..key
    };
    let value = scratch.value.get(..used).ok_or(Error::ExtentInvalid)?;
    t.insert(BtreeId::REFLINK, KeyRef { key: indirect, value }, UpdateFlags::default())?;
    let p = ReflinkP { idx, front_pad: 0, back_pad: 0 };
    let range = key.start_offset()..key.pos.offset;
    let own = &mut scratch.own;
    own.set(KeyType::REFLINK_P, key.pos.inode, range, |words| p.build(words).ok())?;
    own.key.version = key.version;
    t.insert(BtreeId::EXTENTS, own.at(snapshot), UpdateFlags::default())?;
    Ok(idx)
}
