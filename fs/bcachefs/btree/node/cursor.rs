// SPDX-License-Identifier: GPL-2.0
//! A place between two keys of a node.
//!
//! One offset per set; the sets are merged as the cursor moves. A cursor says nothing without the node it
//! was made for, unchanged: used on another one it yields wrong keys or none, never a panic. Whether the node is unchanged says
//! [`NodeData::is_current`].

use super::data::{NodeData, SETS_MAX};
use bcachefs_format::bset::PackedRef;
use core::cmp::Ordering;

/// See the module's description.
#[derive(Copy, Clone, Default, Debug)]
pub struct Cursor {
    at: [u32; SETS_MAX],
    /// Number of the node's edits when the cursor was made.
    edits: u32,
    /// The set that the next key is in, counted from 1, if that has been found out; else 0. [`END`] if there is none.
    next: u8,
}

/// There is no next key.
const END: u8 = u8::MAX;

/// A change of the open set.
#[derive(Copy, Clone)]
pub struct Edit {
    /// Number of the node's edits before and after it.
    pub(super) before: u32,
    pub(super) after: u32,
    /// The set.
    pub(super) set: u8,
    /// By how many words what is behind the changed place has moved, modulo 2^32.
    pub(super) moved: u32,
}

impl PartialEq for Cursor {
    /// Whether they are at the same place.
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.edits) == (other.at, other.edits)
    }
}

impl Eq for Cursor {}

/// A key and where it is.
#[derive(Copy, Clone)]
pub struct FoundKey<'a> {
    /// The set.
    pub set: u8,
    /// Offset in the set, in words.
    pub at: u32,
    /// The key.
    pub key: PackedRef<'a>,
}

impl Cursor {
    /// Before the first key.
    pub const NONE: Cursor = Cursor { at: [0; SETS_MAX], edits: 0, next: 0 };

    pub(super) fn new(edits: u32) -> Self {
        Cursor { edits, ..Self::NONE }
    }

    /// Stays where it is after `edit`, if it was current: `behind` what was changed, or before it.
    #[inline]
    pub(in crate::btree) fn keep_up(&mut self, edit: &Edit, behind: bool) {
        if self.edits != edit.before {
            return;
        }
        self.edits = edit.after;
        if !behind {
            self.next = 0;
        } else if let Some(at) = self.at.get_mut(usize::from(edit.set)) {
            *at = at.wrapping_add(edit.moved);
        }
    }

    pub(super) fn edits(&self) -> u32 {
        self.edits
    }

    pub(super) fn at(&self, i: usize) -> u32 {
        self.at.get(i).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, i: usize, at: u32) {
        if let Some(a) = self.at.get_mut(i) {
            *a = at;
        }
        self.next = 0;
    }

    /// The key after the cursor, deleted ones included. Of keys at one position the one of the last set comes last.
    #[inline]
    pub fn peek<'n>(&self, node: &'n NodeData) -> Option<FoundKey<'n>> {
        let set = match self.next {
            0 => return self.find(node),
            END => return None,
            next => next - 1,
        };
        let at = self.at(set.into());
        let key = node.key_at(set, at)?;
        Some(FoundKey { set, at, key })
    }

    fn find<'n>(&self, node: &'n NodeData) -> Option<FoundKey<'n>> {
        let mut best: Option<FoundKey<'n>> = None;
        for (i, &at) in self.at.iter().enumerate() {
            let Some((keys, _)) = node.keys(i) else {
                break;
            };
            let Some(key) = keys.get(at as usize, node.format()) else {
                continue;
            };
            if best.is_none_or(|b| key.cmp(&b.key, node.format()) == Ordering::Less) {
                best = Some(FoundKey {
                    set: i as u8,
                    at,
                    key,
                });
            }
        }
        best
    }

    /// The same, remembering in which set it is.
    #[inline]
    pub(in crate::btree) fn next<'n>(&mut self, node: &'n NodeData) -> Option<FoundKey<'n>> {
        let found = self.peek(node);
        self.next = found.map_or(END, |f| f.set + 1);
        found
    }

    /// The next key that is not `deleted`; the cursor moves up to it.
    #[inline]
    pub fn peek_live<'n>(&mut self, node: &'n NodeData) -> Option<FoundKey<'n>> {
        loop {
            let found = self.next(node)?;
            if !found.key.is_deleted() {
                return Some(found);
            }
            self.step(&found);
        }
    }

    /// Moves over `found`, the next key.
    #[inline]
    pub(in crate::btree) fn step(&mut self, found: &FoundKey<'_>) {
        self.next = 0;
        if let Some(a) = self.at.get_mut(usize::from(found.set)) {
            *a = found.at + found.key.u64s() as u32;
        }
    }

    /// Moves over the next key. False at the end.
    #[inline]
    pub fn advance(&mut self, node: &NodeData) -> bool {
        match self.peek(node) {
            Some(found) => {
                self.step(&found);
                true
            }
            None => false,
        }
    }

    /// Moves back over the previous key, deleted ones included, and returns it.
    pub fn back<'n>(&mut self, node: &'n NodeData) -> Option<FoundKey<'n>> {
        let mut best: Option<FoundKey<'n>> = None;
        for (i, &at) in self.at.iter().enumerate() {
            let Some((keys, finder)) = node.keys(i) else {
                break;
            };
            // Walk up to the key that ends where the cursor is.
            let mut prev = None;
            let mut o = finder.before(at);
            while o < at {
                let Some(key) = keys.get(o as usize, node.format()) else {
                    break;
                };
                prev = Some(FoundKey {
                    set: i as u8,
                    at: o,
                    key,
                });
                o += key.u64s() as u32;
            }
            let Some(p) = prev else { continue };
            if best.is_none_or(|b| p.key.cmp(&b.key, node.format()) != Ordering::Less) {
                best = Some(p);
            }
        }
        let found = best?;
        self.set(usize::from(found.set), found.at);
        Some(found)
    }

    /// Moves back to the previous key that is not `deleted`, and returns it.
    pub fn back_live<'n>(&mut self, node: &'n NodeData) -> Option<FoundKey<'n>> {
        loop {
            let found = self.back(node)?;
            if !found.key.is_deleted() {
                return Some(found);
            }
        }
    }
}
