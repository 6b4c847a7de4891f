// SPDX-License-Identifier: GPL-2.0
//! From the bytes of a file to what is stored of them: compression, then the checksum of the result.

use bcachefs_format::{
    checksum::CsumType,
    keys::{compression::CompressionType, extent::Crc},
};
use kernel::{prelude::*, sync::UniqueArc};
use kfs::{
    block::{IoBuf, SharedBuf},
    mem::insist,
};

use super::{Writer, SECTOR};
use crate::{
    data::{checksum::Hasher, options::DataOptions, source::Source},
    util::error::{Error, Result},
};

/// What is to be stored, if not the bytes of the source themselves.
pub(super) enum Stored {
    /// The bytes of the source.
    Source,
    /// These, and how many.
    Buffer(SharedBuf, usize),
}

/// How something is stored: all but the checksum, as far as it is known before there is a place for it.
pub(super) struct Coded {
    pub stored: Stored,
    pub compression: CompressionType,
    /// Sectors on disk.
    pub sectors: u32,
}

impl Coded {
    /// As it is.
    pub(super) fn plain(sectors: u32) -> Self {
        Coded {
            stored: Stored::Source,
            compression: CompressionType::NONE,
            sectors,
        }
    }
}

impl Writer {
    /// Compresses the bytes of `source`, if that is wanted and worth a block. May sleep.
    #[inline(never)]
    pub(super) fn compress<S: Source>(&self, source: &S, options: &DataOptions) -> Result<Coded> {
        let bytes = source.len();
        // A source is a part of a file that has been cut to what can be one extent.
        let mut coded = Coded::plain((bytes / SECTOR) as u32);
        let block = self.block_bytes;
        if options.compression.algorithm() == 0 || bytes <= block || bytes > self.encoded_max {
            return Ok(coded);
        }
        let mut plain = self.buffer(&self.plain, bytes);
        copy(source, &mut plain)?;
        let mut packed = self.buffer(&self.packed, bytes);
        // At least one block less, or it is not worth it.
        let room = packed.as_bytes_mut().get_mut(..bytes - block);
        let from = plain.as_bytes().get(..bytes).ok_or(Error::NoMem)?;
        let done = self.compressor.run(options.compression, from, room.ok_or(Error::NoMem)?);
        let Some((kind, len)) = done else {
            coded.compression = CompressionType::INCOMPRESSIBLE;
            return Ok(coded);
        };
        let stored = len.next_multiple_of(block);
        if let Some(tail) = packed.as_bytes_mut().get_mut(len..stored) {
            tail.fill(0);
        }
        drop(plain);
        coded.compression = kind;
        coded.sectors = (stored / SECTOR) as u32;
        coded.stored = Stored::Buffer(share(packed), stored);
        Ok(coded)
    }

    /// What describes `coded`, which is of all of `source`, in a key. What is stored does not change any more afterwards. May sleep.
    #[inline(never)]
    pub(super) fn seal<S: Source>(
        &self,
        source: &S,
        options: &DataOptions,
        coded: &mut Coded,
        copies: u8,
    ) -> Result<Crc> {
        let size = (source.len() / SECTOR) as u32;
        let sums = options.checksum != CsumType::NONE;
        let as_is = matches!(coded.stored, Stored::Source);
        if as_is && !source.is_stable() && (sums || copies > 1) {
            // All copies have to be the same, and what the checksum is of.
            let mut still = self.buffer(&self.packed, source.len());
            copy(source, &mut still)?;
            coded.stored = Stored::Buffer(share(still), source.len());
        }
        let mut hasher = Hasher::new(options.checksum).ok_or(Error::SuperEncrypted)?;
        match &coded.stored {
            _ if !sums => {}
            Stored::Source => source.inspect(&mut |bytes| hasher.update(bytes))?,
            Stored::Buffer(b, len) => hasher.update(b.as_bytes().get(..*len).unwrap_or(&[])),
        }
        Ok(Crc {
            csum_type: options.checksum,
            compression: coded.compression,
            compressed_size: coded.sectors,
            csum: hasher.finish(),
            ..Crc::none(size)
        })
    }
}

/// Shares a buffer whose contents are final. May sleep.
fn share(buffer: IoBuf) -> SharedBuf {
    let memory = insist(|| UniqueArc::new_uninit(GFP_KERNEL));
    memory.write(buffer).into()
}

/// Copies all bytes of `source` to the beginning of `to`.
fn copy<S: Source>(source: &S, to: &mut IoBuf) -> Result {
    let mut at = 0;
    let to = to.as_bytes_mut();
    let mut fits = true;
    source.inspect(&mut |bytes| {
        let end = at + bytes.len();
        match to.get_mut(at..end) {
            Some(part) => part.copy_from_slice(bytes),
            None => fits = false,
        }
        at = end;
    })?;
    match fits && at == source.len() {
        true => Ok(()),
        false => Err(Error::NoMem),
    }
}
