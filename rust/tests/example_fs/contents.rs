// SPDX-License-Identifier: GPL-2.0

//! Where the bytes of files come from.

use crate::{ExampleFs, Mounted, BLOCK, DATA, PATTERN_SIZE, SMALL, STRIPE};
use kernel::{prelude::*, sync::Arc};
use kfs::{
    block::{BlockDevice, SECTOR_SIZE},
    vfs::{
        iomap::{self, Destination, DirectRun, FolioRun, Mapping, MappingKind, Purpose},
        Inode,
    },
};

/// The byte at a position of the file `pattern`.
fn pattern(position: u64) -> u8 {
    if position >= PATTERN_SIZE || position % STRIPE >= DATA {
        return 0;
    }
    (position.wrapping_mul(0x9E37_79B9) >> 13) as u8
}

pub(crate) struct Contents;

impl Contents {
    /// Fills memory with what is computed.
    fn fill(number: u64, destination: &mut impl Destination) -> Result {
        let position = destination.position();
        let mut done = 0;
        let mut bytes = KVVec::from_elem(0_u8, 1000, GFP_KERNEL)?;
        while done < destination.span_len() {
            let take = bytes.len().min(destination.span_len() - done);
            let piece = bytes.get_mut(..take).ok_or(EIO)?;
            for (at, byte) in (position + done as u64..).zip(piece.iter_mut()) {
                *byte = match number {
                    5 => pattern(at),
                    _ => SMALL.get(at as usize).copied().unwrap_or(0),
                };
            }
            destination.copy_in(done, piece)?;
            done += take;
        }
        if destination.copy_in(done, &[0]).is_ok() || destination.zero(1, done).is_ok() {
            pr_err!("wrote out of bounds\n");
            return Err(EIO);
        }
        Ok(())
    }

    fn go(inode: &Inode<ExampleFs>, mut destination: impl Destination) {
        match inode.data().number {
            4 => {
                // In pieces, so that they finish apart from each other, in any order.
                let mounted = inode.super_block().data();
                while destination.span_len() > 0 {
                    let cut = destination.span_len() / 2 / BLOCK as usize * BLOCK as usize;
                    match destination.split_to(cut) {
                        Ok(front) => Self::transfer(&mounted, front),
                        Err(_) => break,
                    }
                }
                Self::transfer(&mounted, destination);
            }
            11 if destination.position() >= 4 * BLOCK => drop(destination),
            11 => destination.finish(Err(EIO)),
            number => {
                let result = Self::fill(number, &mut destination);
                destination.finish(result);
            }
        }
    }

    fn transfer(mounted: &Mounted, mut destination: impl Destination) {
        let size = mounted.device.size_sectors() * SECTOR_SIZE as u64;
        let position = destination.position();
        let length = destination.span_len();
        let there = (length as u64).min(size.saturating_sub(position)) as usize;
        if let Err(error) = destination.zero(there, length - there) {
            return destination.finish(Err(error));
        }
        if there == 0 {
            return destination.finish(Ok(()));
        }
        let sector = position / SECTOR_SIZE as u64;
        mounted.device.read(&mounted.bios, sector, destination, 0..there, |result, destination| {
            let mut seen = 0;
            let _ = destination.inspect(0, destination.span_len(), &mut |bytes| seen += bytes.len());
            if seen != 0 && seen != destination.span_len() {
                pr_err!("saw {} of {} bytes\n", seen, destination.span_len());
            }
            destination.finish(result.map_err(Error::from));
        });
    }
}

#[vtable]
impl iomap::Read for Contents {
    type FileSystem = ExampleFs;

    fn begin(
        inode: &Inode<ExampleFs>,
        position: u64,
        length: u64,
        purpose: Purpose,
    ) -> Result<Mapping> {
        let whole = Mapping {
            kind: MappingKind::Mapped,
            position: 0,
            length: inode.size().next_multiple_of(BLOCK).max((position + length).next_multiple_of(BLOCK)),
            address: Some(1 << 30),
            shared: false,
        };
        let end = inode.size().next_multiple_of(BLOCK);
        if purpose == Purpose::Report && position >= end {
            let (kind, length) = (MappingKind::Hole, i64::MAX as u64 - end);
            return Ok(Mapping { kind, position: end, length, address: None, shared: false });
        }
        if inode.number() != 5 || purpose == Purpose::Read {
            return Ok(whole);
        }
        let stripe = position / STRIPE * STRIPE;
        let (kind, from, to) = if position - stripe < DATA {
            (MappingKind::Mapped, stripe, stripe + DATA)
        } else {
            (MappingKind::Hole, stripe + DATA, stripe + STRIPE)
        };
        let address = (kind == MappingKind::Mapped).then_some((1 << 30) + from);
        Ok(Mapping { kind, position: from, length: to - from, address, shared: true })
    }

    fn read(inode: &Inode<ExampleFs>, run: FolioRun) {
        Self::go(inode, run);
    }

    fn read_direct(inode: &Inode<ExampleFs>, run: DirectRun) {
        Self::go(inode, run);
    }

    fn direct_device(inode: &Inode<ExampleFs>) -> Result<Arc<BlockDevice>> {
        Ok(inode.super_block().data().device.clone())
    }

    fn readahead_window(inode: &Inode<ExampleFs>, position: u64, length: u64) -> Option<(u64, u64)> {
        (inode.number() == 5).then(|| {
            let start = position / STRIPE * STRIPE;
            (start, (position + length).next_multiple_of(STRIPE) - start)
        })
    }
}
