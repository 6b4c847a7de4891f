// SPDX-License-Identifier: GPL-2.0
//! The allocator's state, for people.

use super::{
    allocator::Allocator,
    client::TYPES,
    open_buckets::OPEN_MAX,
    reserves::open_reserve,
};
use crate::util::watermark::Watermark;
use bcachefs_format::keys::data_type::DataType;
use core::fmt::{self, Write};
use kernel::{error::Result as KernelResult, sync::atomic::Relaxed, sync::Arc};
use kfs::show::{debugfs::Records, Text};

impl Allocator {
    /// What messages call the filesystem.
    pub(super) fn name(&self) -> &str {
        self.shared.name.to_str().unwrap_or("?")
    }

    /// Space and what is promised of it, and for each device what is free and how much of that may be used.
    pub(super) fn show_reserves(&self, out: &mut dyn Write) -> fmt::Result {
        let (shared, usage) = (&self.shared, self.usage());
        writeln!(out, "capacity {} used {} free {}", usage.capacity, usage.used, usage.free())?;
        let r = &self.reservations;
        writeln!(
            out,
            "reserved {} at hand {} used without reservation {}",
            r.reserved(),
            r.at_hand(),
            r.unreserved()
        )?;
        let (waiting, more) = shared.waiting.count(shared.flushed());
        let more = if more { " or more" } else { "" };
        writeln!(out, "buckets waiting for the journal {waiting}{more}, flushed {}", shared.flushed())?;
        let open = &shared.open;
        write!(out, "open buckets free {} of {OPEN_MAX}, partial {}, kept back:", open.nr_free(), open.nr_partial())?;
        for w in Watermark::ALL {
            write!(out, " {w} {}", open_reserve(OPEN_MAX as u32, w))?;
        }
        let running = shared.is_running();
        writeln!(out, "\nrunning {running}, writable {}, write points {}", shared.writable(), self.points.general())?;
        for d in self.devices() {
            let dev = d.index;
            let usage = shared.client.device_usage(dev);
            let nr_open = open.nr_open(dev);
            writeln!(out, "device {dev} {}: buckets {} of {} sectors, never used {}", &*d.disk, d.geometry.nbuckets, d.geometry.bucket_sectors, d.nouse.buckets())?;
            for t in 0..TYPES as u8 {
                let (t, i) = (DataType(t), usize::from(t));
                let get = |of: &[u64; TYPES]| of.get(i).copied().unwrap_or(0);
                let (b, s, f) = (get(&usage.buckets), get(&usage.sectors), get(&usage.fragmented));
                if (b, s, f) != (0, 0, 0) {
                    writeln!(out, "  {t:<14} buckets {b:>10} sectors {s:>14} fragmented {f:>12}")?;
                }
            }
            write!(out, "  open {nr_open}, free for")?;
            for w in Watermark::ALL {
                write!(out, " {w} {}", d.geometry.free(&usage, nr_open, w))?;
            }
            let done = &d.done;
            writeln!(
                out,
                "\n  discarded {} errors {} invalidated {} inconsistent {} cursors {:?}",
                done.discarded.load(Relaxed),
                done.discard_errors.load(Relaxed),
                done.invalidated.load(Relaxed),
                done.wrong.load(Relaxed),
                d.cursors.positions()
            )?;
            let in_flight = d.discards.lock().in_flight;
            writeln!(out, "  being discarded {in_flight:?}")?;
        }
        Ok(())
    }

    /// The write points that have been used.
    fn show_write_points(&self, out: &mut dyn Write) -> fmt::Result {
        self.points.for_each(|name, key, point| {
            if point.allocated == 0 && point.open.is_empty() {
                return Ok(());
            }
            writeln!(out, "write point {name} {key:#x}: allocated {} open {:?}", point.allocated, point.open.as_slice())
        })
    }
}

/// The allocator's file in debugfs: reserves, write points, then a record for each open bucket.
pub struct AllocFile(pub Arc<Allocator>);

impl Records for AllocFile {
    type Cursor = u32;

    fn open(&self) -> KernelResult<u32> {
        Ok(0)
    }

    fn next(&self, cursor: &mut u32, out: &mut Text) -> KernelResult<bool> {
        // What does not fit is cut off.
        let _ = match *cursor {
            0 => self.0.show_reserves(out),
            1 => self.0.show_write_points(out),
            from => match self.0.shared.open.next_open((from - 1) as u16) {
                None => return Ok(false),
                Some((id, b)) => {
                    // The record after this one.
                    *cursor = u32::from(id) + 1;
                    let partial = if b.partial { " partial" } else { "" };
                    writeln!(
                        out,
                        "open bucket {id}: {}:{} gen {} {} sectors free {}/{} refs {}{partial}",
                        b.dev, b.bucket, b.generation, b.data_type, b.sectors_free, b.sectors, b.refs
                    )
                }
            },
        };
        *cursor += 1;
        Ok(true)
    }
}
