// SPDX-License-Identifier: GPL-2.0
//! Printing records, one line each; keys are printed as headers.

use core::fmt;

use super::{Entry, EntryType, JournalKeys, RawEntry, UsageKind};

impl fmt::Display for UsageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RESERVED => f.write_str("reserved"),
            Self::INODES => f.write_str("inodes"),
            Self::KEY_VERSION => f.write_str("key_version"),
            UsageKind(other) => write!(f, "(unknown kind {other})"),
        }
    }
}

/// Text from disk: printable ASCII as it is, anything else escaped.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

fn print_keys(f: &mut fmt::Formatter<'_>, keys: &JournalKeys<'_>) -> fmt::Result {
    for key in keys.clone() {
        match key {
            Ok(key) => write!(f, " [{}]", key.key)?,
            Err(e) => write!(f, " [{e}]")?,
        }
    }
    Ok(())
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::BtreeKeys(k) | Entry::Overwrite(k) | Entry::WriteBufferKeys(k) => {
                print_keys(f, k)
            }
            Entry::BtreeRoot(Some(k)) => write!(f, " [{}]", k.key),
            Entry::BtreeRoot(None) => f.write_str(" lost"),
            Entry::Blacklist { start, end } => write!(f, " {start}-{end}"),
            Entry::Usage { kind, value } => write!(f, " {kind} {value}"),
            Entry::DataUsage {
                sectors,
                data_type,
                nr_required,
                devs,
            } => write!(
                f,
                " type {data_type} {nr_required}/{} {devs:?} sectors {sectors}",
                devs.len()
            ),
            Entry::Clock { rw, time } => {
                write!(f, " {} {time}", if *rw == 0 { "read" } else { "write" })
            }
            Entry::DevUsage { dev, counters } => {
                write!(f, " dev {dev}")?;
                for (data_type, c) in counters.chunks_exact(3).enumerate() {
                    write!(f, " {data_type}:{c:?}")?;
                }
                Ok(())
            }
            Entry::Log(text) => write!(f, " {}", Text(text)),
            Entry::Datetime(seconds) => write!(f, " {seconds}"),
            Entry::PrioPtrs | Entry::Unknown => Ok(()),
        }
    }
}

impl fmt::Display for RawEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.entry_type)?;
        if matches!(
            self.entry_type,
            EntryType::BTREE_KEYS
                | EntryType::BTREE_ROOT
                | EntryType::OVERWRITE
                | EntryType::WRITE_BUFFER_KEYS
        ) {
            write!(f, " btree={} level={}", self.btree, self.level)?;
        }
        match self.parse() {
            Ok(entry) => write!(f, "{entry}"),
            Err(e) => write!(f, " {e}"),
        }
    }
}
