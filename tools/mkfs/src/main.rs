// SPDX-License-Identifier: GPL-2.0
//! `mkfs.bcachefs`: see [`mkfs_bcachefs`].

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bcachefs_format::magic::Uuid;
use bcachefs_format::sb::print::ShowField;
use bcachefs_format::sb::FieldType;
use bcachefs_format::SuperBlock;
use mkfs_bcachefs::device::Device;
use mkfs_bcachefs::image::{self, DeviceImage};
use mkfs_bcachefs::plan::{Environment, Plan};
use mkfs_bcachefs::request::Request;
use mkfs_bcachefs::{cli, probe, write, Result};

struct Machine {
    random: File,
}

impl Environment for Machine {
    fn uuid(&mut self) -> Result<Uuid> {
        let mut bytes = [0; 16];
        self.random
            .read_exact(&mut bytes)
            .map_err(|e| format!("/dev/urandom: {e}"))?;
        // Version 4, variant 1: random.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Uuid(bytes))
    }

    fn now(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        since.as_nanos() as u64
    }
}

fn run(request: &Request) -> Result<()> {
    // Everything that can be refused is, before the first device changes.
    let mut devices = Vec::new();
    for device in &request.devices {
        let opened = Device::open(&device.path)?;
        let path = device.path.display();
        if !request.force && opened.size.bytes > 0 {
            if let Some(content) =
                probe::content(&device.path).map_err(|e| format!("{path}: {e}"))?
            {
                return Err(format!("{path}: holds {content} (--force overwrites it)"));
            }
        }
        devices.push(opened);
    }
    let sizes: Vec<_> = devices.iter().map(|d| d.size).collect();
    let random = File::open("/dev/urandom").map_err(|e| format!("/dev/urandom: {e}"))?;
    let plan = Plan::make(request, &sizes, &mut Machine { random })?;
    let images = (0..plan.devices.len())
        .map(|dev| image::make(&plan, dev))
        .collect::<Result<Vec<DeviceImage>>>()?;

    for (i, device) in devices.iter().enumerate() {
        let (path, member, image) = (&request.devices[i].path, &plan.devices[i], &images[i]);
        let of = |e: String| format!("{}: {e}", path.display());
        if request.force && device.size.bytes > 0 {
            probe::wipe(path).map_err(of)?;
        }
        write::superblocks(&device.file, member, image).map_err(|e| of(e.to_string()))?;
    }
    if !request.quiet {
        show(&images);
    }
    Ok(())
}

/// Prints what the first device holds.
fn show(images: &[DeviceImage]) {
    let Some((_, words)) = images.first().and_then(|i| i.copies.first()) else {
        return;
    };
    let Ok(sb) = SuperBlock::frame(words) else {
        return;
    };
    let sb = sb.into_inner();
    print!("{sb}");
    for field_type in [FieldType::DISK_GROUPS, FieldType::MEMBERS_V2] {
        if let Some(field) = sb.field(field_type) {
            print!("{}", ShowField { sb, field });
        }
    }
}

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(e) => e.exit(),
    };
    match request.and_then(|r| run(&r)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mkfs.bcachefs: {e}");
            ExitCode::FAILURE
        }
    }
}
