// SPDX-License-Identifier: GPL-2.0
//! The model: what each snapshot has at each place, and so what is seen there from a snapshot.

use super::super::tree::Node;
use crate::util::error::Result;
use kernel::prelude::*;

/// Nothing of its own: what the parent shows is seen.
const INHERITED: u64 = 0;
/// Nothing, whatever the parent shows.
const HIDDEN: u64 = 1;
/// Values start behind those.
const FIRST: u64 = 2;

/// Places of all snapshots.
pub(in crate::tests) struct Versions {
    places: u64,
    parents: KVec<Option<usize>>,
    /// Of every place what each snapshot has, snapshot by snapshot.
    own: KVVec<u64>,
}

impl Versions {
    /// Empty.
    pub(super) fn new(nodes: &[Node], places: u64) -> Result<Self> {
        let mut parents = KVec::with_capacity(nodes.len(), GFP_KERNEL)?;
        for node in nodes {
            parents.push(node.parent, GFP_KERNEL)?;
        }
        let all = places as usize * nodes.len();
        Ok(Versions {
            places,
            parents,
            own: KVVec::from_elem(INHERITED, all, GFP_KERNEL)?,
        })
    }

    fn index(&self, node: usize, place: u64) -> Option<usize> {
        (place < self.places).then(|| node * self.places as usize + place as usize)
    }

    /// What is seen at `place` from `node`.
    pub(super) fn get(&self, node: usize, place: u64) -> Option<u64> {
        let mut at = Some(node);
        while let Some(node) = at {
            match self.own.get(self.index(node, place)?).copied()? {
                INHERITED => at = self.parents.get(node).copied().flatten(),
                HIDDEN => return None,
                value => return Some(value - FIRST),
            }
        }
        None
    }

    /// From now on `value` is seen at `place`, or nothing.
    pub(super) fn set(&mut self, node: usize, place: u64, value: Option<u64>) {
        let index = self.index(node, place);
        if let Some(own) = index.and_then(|i| self.own.get_mut(i)) {
            *own = value.map_or(HIDDEN, |v| v + FIRST);
        }
    }

    /// The first place from `from` on, before `to`, at which something is seen, and what.
    pub(super) fn next(&self, node: usize, from: u64, to: u64) -> Option<(u64, u64)> {
        (from..to.min(self.places)).find_map(|p| Some((p, self.get(node, p)?)))
    }

    /// The last place before `before` at which something is seen, and what.
    pub(super) fn prev(&self, node: usize, before: u64) -> Option<(u64, u64)> {
        (0..before.min(self.places))
            .rev()
            .find_map(|p| Some((p, self.get(node, p)?)))
    }
}

#[cfg(bcachefs_kunit)]
pub(super) fn is_right() -> Result {
    use super::super::check;

    let node = |parent, depth| Node {
        id: 0,
        parent,
        depth,
    };
    let nodes = [
        node(None, 0),
        node(Some(0), 1),
        node(Some(0), 1),
        node(Some(1), 2),
    ];
    let mut v = Versions::new(&nodes, 8)?;
    check!((0..4).all(|n| v.get(n, 3).is_none()));
    v.set(0, 3, Some(0));
    check!((0..4).all(|n| v.get(n, 3) == Some(0)));
    v.set(1, 3, Some(20));
    v.set(2, 3, None);
    check!(v.get(0, 3) == Some(0) && v.get(2, 3).is_none());
    check!(v.get(1, 3) == Some(20) && v.get(3, 3) == Some(20));
    v.set(3, 5, Some(7));
    check!(v.next(3, 0, 8) == Some((3, 20)) && v.next(3, 4, 8) == Some((5, 7)));
    check!(v.next(3, 4, 5).is_none() && v.next(2, 0, 8).is_none());
    check!(v.prev(3, 8) == Some((5, 7)) && v.prev(3, 5) == Some((3, 20)));
    check!(v.prev(3, 3).is_none());
    v.set(3, 8, Some(1));
    check!(v.get(3, 8).is_none());
    Ok(())
}
