// SPDX-License-Identifier: GPL-2.0
//! Options of an inode, as text: those set on it, and those in effect.

use core::fmt;

use bcachefs_format::{
    checksum::CsumOpt,
    keys::{
        compression::CompressionOpt,
        inode::{Inode, InodeOpt},
    },
    sb::options::{Options as SbOptions, Target, TargetKind},
};

use crate::{
    sb::{Devices, Super},
    util::error::{Error, Result},
};

/// The option called `name`, if inodes have it.
pub fn by_name(name: &[u8]) -> Option<InodeOpt> {
    InodeOpt::ALL
        .into_iter()
        .find(|opt| opt.name().as_bytes() == name)
}

/// The value of `opt` that was set on `inode` itself; `None` if it was not.
pub fn explicit(inode: &Inode, opt: InodeOpt) -> Option<u32> {
    let value = inode.options.get(opt)?;
    inode.options.is_explicit(opt).then_some(value)
}

/// The value of `opt` that is in effect for `inode`: its own, or the filesystem's.
pub fn effective(sup: &Super, inode: &Inode, opt: InodeOpt) -> Result<u32> {
    if let Some(value) = inode.options.get(opt) {
        return Ok(value);
    }
    let sb = sup.raw()?.options().map_err(Error::from)?;
    Ok(default(&sb, opt))
}

/// The filesystem's value of an option.
fn default(sb: &SbOptions, opt: InodeOpt) -> u32 {
    match opt {
        InodeOpt::DataChecksum => sb.data_checksum.0.into(),
        InodeOpt::Compression => sb.compression.0.into(),
        InodeOpt::Project => 0,
        InodeOpt::BackgroundCompression => sb.background_compression.0.into(),
        InodeOpt::DataReplicas => sb.data_replicas.into(),
        InodeOpt::PromoteTarget => sb.promote_target.0.into(),
        InodeOpt::ForegroundTarget => sb.foreground_target.0.into(),
        InodeOpt::BackgroundTarget => sb.background_target.0.into(),
        InodeOpt::ErasureCode => sb.erasure_code.into(),
        InodeOpt::Nocow => sb.nocow.into(),
    }
}

/// A value of an option, for printing.
pub struct Text<'a> {
    /// The filesystem's superblock, which names groups of devices.
    pub sup: &'a Super,
    /// The devices, which have names.
    pub devices: &'a Devices,
    /// The option.
    pub opt: InodeOpt,
    /// Its value.
    pub value: u32,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let byte = self.value as u8;
        match self.opt {
            InodeOpt::DataChecksum => fmt::Display::fmt(&CsumOpt(byte), f),
            InodeOpt::Compression | InodeOpt::BackgroundCompression => {
                fmt::Display::fmt(&CompressionOpt(byte), f)
            }
            InodeOpt::PromoteTarget | InodeOpt::ForegroundTarget | InodeOpt::BackgroundTarget => {
                self.target(f)
            }
            InodeOpt::Project
            | InodeOpt::DataReplicas
            | InodeOpt::ErasureCode
            | InodeOpt::Nocow => fmt::Display::fmt(&self.value, f),
        }
    }
}

impl Text<'_> {
    fn target(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Target(self.value as u16).kind() {
            TargetKind::None => f.write_str("none"),
            TargetKind::Dev(index) => match self.devices.get(index) {
                Some(device) => fmt::Display::fmt(&**device, f),
                None => write!(f, "invalid device {index}"),
            },
            TargetKind::Group(index) => match self.sup.raw() {
                Ok(sb) => fmt::Display::fmt(&sb.disk_groups().path(index.into()), f),
                Err(_) => write!(f, "invalid group {index}"),
            },
        }
    }
}
