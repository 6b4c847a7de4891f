// SPDX-License-Identifier: GPL-2.0
//! Making what is written of a node.

use crate::{
    btree::{
        fill::Geometry,
        node::{insert::Piece, NodeData, NodeHead},
    },
    util::checksum::Checksums,
};
use bcachefs_format::{
    bkey::KeyContext,
    bset::{BsetBuilder, PushError},
    btree_node::{NewBset, NewEntry, NewNode, WriteError, NODE_HEADER_U64S, SECTOR_U64S},
    keys::{self, ValidateCtx},
    Bkey, ErrorId, Invalid, KeyRef,
};
use core::fmt;

/// Why what is to be written must not be.
#[derive(Copy, Clone)]
pub(in crate::btree) enum Problem {
    /// It breaks a rule of the format.
    Invalid(Invalid),
    /// It cannot be put into the form it has on disk.
    Form(WriteError),
}

impl From<Invalid> for Problem {
    fn from(e: Invalid) -> Self {
        Problem::Invalid(e)
    }
}

impl From<WriteError> for Problem {
    fn from(e: WriteError) -> Self {
        Problem::Form(e)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Invalid(e) => e.fmt(f),
            Problem::Form(e) => e.fmt(f),
        }
    }
}

/// Bytes of a buffer for what is unwritten of `data`.
#[inline(never)]
pub(super) fn bytes_max(data: &NodeData) -> usize {
    // The longer of the two headers will do for both.
    data.shape().sectors(NODE_HEADER_U64S + data.unwritten_max()) as usize * SECTOR_U64S * 8
}

fn push(builder: &mut BsetBuilder<'_>, piece: Piece<'_>) -> Result<(), PushError> {
    match piece {
        Piece::Key(key) => builder.push_packed(key),
        Piece::Deleted(pos) => builder.push(&KeyRef {
            key: Bkey::deleted(pos),
            value: &[],
        }),
    }
}

/// Puts what is unwritten of `data` into `words`, checked and with its checksum. Returns the sectors it takes, 0 if there is
/// nothing to write.
#[inline(never)]
pub(in crate::btree) fn make(
    words: &mut [u64],
    head: &NodeHead,
    data: &NodeData,
    geometry: &Geometry,
    devices: Option<&dyn keys::Devices>,
) -> Result<u32, Problem> {
    let at = data.sectors_written();
    let bset = NewBset {
        seq: data.seq(),
        journal_seq: if at == 0 { data.journal_seq() } else { data.unwritten_seq() },
        csum_type: geometry.metadata_csum,
        version: geometry.version,
    };
    let fill = |b: &mut BsetBuilder<'_>| data.unwritten().try_for_each(|p| push(b, p));
    let block = geometry.block_sectors;
    let entry = if at == 0 {
        let node = NewNode {
            magic: geometry.magic,
            btree: head.btree,
            level: head.level,
            generation: data.generation(),
            min_key: data.min(),
            max_key: data.max(),
            format: *data.format(),
        };
        NewEntry::first(words, block, &node, &bset, fill)?
    } else {
        NewEntry::later(words, block, at, data.format(), &bset, fill)?
    };
    if at != 0 && entry.u64s() == 0 {
        return Ok(0);
    }
    if bset.seq == 0 || (at != 0 && bset.journal_seq == 0) {
        let what = "set to be written has no sequence number";
        return Err(Invalid::plain(what, 0, bset.journal_seq, 1).into());
    }
    // Rules that bind writers only are for new keys; old ones that break them go on.
    let when = match head.level {
        0 => ValidateCtx::READ,
        _ => ValidateCtx::COMMIT,
    };
    let ctx = ValidateCtx {
        devices,
        btree_node_sectors: geometry.node_sectors,
        ..when
    };
    check(&entry, head, data, &ctx)?;
    let sectors = entry.seal(&Checksums, None)?;
    let end = at + sectors;
    if end > geometry.node_sectors {
        let what = "set to be written goes beyond the end of its node";
        let id = ErrorId::BSET_PAST_END_OF_BTREE_NODE;
        return Err(Invalid::new(id, what, 0, end.into(), geometry.node_sectors.into()).into());
    }
    Ok(sectors)
}

/// The rules of the node for the keys of the new set.
fn check(
    entry: &NewEntry<'_>,
    head: &NodeHead,
    data: &NodeData,
    ctx: &ValidateCtx<'_>,
) -> Result<(), Problem> {
    let keys = entry.entry()?.keys();
    let format = data.format();
    keys.validate_order(format)?;
    let context = KeyContext {
        btree: head.btree,
        level: head.level,
    };
    for (at, packed) in keys.iter(format) {
        let key = packed.unpack(format);
        let checked = key
            .key
            .validate(context)
            .and_then(|()| key.key.validate_range(data.min(), data.max()))
            .and_then(|()| keys::validate_value(key, ctx));
        checked.map_err(|e| e.within(at * 8))?;
    }
    Ok(())
}
