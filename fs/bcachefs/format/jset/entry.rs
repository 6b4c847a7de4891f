// SPDX-License-Identifier: GPL-2.0
//! The records of a journal entry, which are also those of the superblock's clean section.

mod keys;
mod print;

use core::fmt;

use zerocopy::IntoBytes as _;

use crate::bkey::KeyRef;
use crate::btree_id::BtreeId;
use crate::error::{ErrorId, Invalid};

pub use keys::JournalKeys;

/// Bytes of a record's header.
pub const ENTRY_HEADER_BYTES: usize = 8;

/// What a record is about. Open: unknown types are skipped.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct EntryType(pub u8);

macro_rules! entry_types {
    ($($(#[$doc:meta])* $nr:literal $konst:ident $name:literal;)*) => {
        impl EntryType {
            $($(#[$doc])* pub const $konst: EntryType = EntryType($nr);)*

            const NAMES: &'static [&'static str] = &[$($name),*];
        }
    };
}

entry_types! {
    /// Keys to be inserted.
    0 BTREE_KEYS "btree_keys";
    /// Root of a btree.
    1 BTREE_ROOT "btree_root";
    /// Obsolete, ignored.
    2 PRIO_PTRS "prio_ptrs";
    /// One blacklisted sequence number; obsolete.
    3 BLACKLIST "blacklist";
    /// A range of blacklisted sequence numbers; obsolete.
    4 BLACKLIST_V2 "blacklist_v2";
    /// One of the filesystem's counters.
    5 USAGE "usage";
    /// Sectors by replicas entry; obsolete.
    6 DATA_USAGE "data_usage";
    /// An io clock.
    7 CLOCK "clock";
    /// Usage of a device; obsolete.
    8 DEV_USAGE "dev_usage";
    /// Text.
    9 LOG "log";
    /// Keys as they were before an update; never replayed.
    10 OVERWRITE "overwrite";
    /// Keys of the write buffer; never meant to reach the disk.
    11 WRITE_BUFFER_KEYS "write_buffer_keys";
    /// When the entry was written.
    12 DATETIME "datetime";
}

impl EntryType {
    /// The name, if the type is known.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }
}

impl fmt::Display for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown record type {})", self.0),
        }
    }
}

impl fmt::Debug for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Kind of a usage record. Open.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UsageKind(pub u8);

impl UsageKind {
    /// Reserved sectors; obsolete.
    pub const RESERVED: UsageKind = UsageKind(0);
    /// Number of inodes; obsolete.
    pub const INODES: UsageKind = UsageKind(1);
    /// The counter encryption nonces are taken from.
    pub const KEY_VERSION: UsageKind = UsageKind(2);
}

/// A record as it lies in the journal: header fields and payload.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RawEntry<'a> {
    /// Type of the record.
    pub entry_type: EntryType,
    /// Btree; or the kind, in usage records.
    pub btree: BtreeId,
    /// Level of the node that holds the keys, or of the root node.
    pub level: u8,
    /// Payload.
    pub payload: &'a [u64],
    /// Byte offset of the record in the list of records.
    pub offset: usize,
}

impl RawEntry<'_> {
    /// The header word for a record with a payload of `u64s` words.
    pub const fn header_word(entry_type: EntryType, btree: BtreeId, level: u8, u64s: u16) -> u64 {
        u64s as u64 | (btree.0 as u64) << 16 | (level as u64) << 24 | (entry_type.0 as u64) << 32
    }
}

/// Iterator over the records of a list. Yields one error and ends if a record overruns the list.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    words: &'a [u64],
    at: usize,
}

impl<'a> Entries<'a> {
    /// Over a list of records.
    pub const fn new(words: &'a [u64]) -> Self {
        Entries { words, at: 0 }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RawEntry<'a>, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = *self.words.get(self.at)?;
        let u64s = usize::from(head as u16);
        let start = self.at + 1;
        let offset = self.at * 8;
        let Some(payload) = self.words.get(start..start + u64s) else {
            let left = self.words.len() - start;
            self.at = self.words.len();
            return Some(Err(Invalid::new(
                ErrorId::JOURNAL_ENTRY_PAST_JSET_END,
                "record extends past the end of its journal entry",
                offset,
                u64s as u64,
                left as u64,
            )));
        };
        self.at = start + u64s;
        Some(Ok(RawEntry {
            entry_type: EntryType((head >> 32) as u8),
            btree: BtreeId((head >> 16) as u8),
            level: (head >> 24) as u8,
            payload,
            offset,
        }))
    }
}

/// A record with a meaning.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// Keys to be inserted.
    BtreeKeys(JournalKeys<'a>),
    /// The root of a btree: the pointer to its node, `None` if it is known to be lost.
    BtreeRoot(Option<KeyRef<'a>>),
    /// Nothing to use.
    PrioPtrs,
    /// Sequence numbers that are blacklisted, from `start` to before `end`.
    Blacklist {
        /// First number.
        start: u64,
        /// First number after the range; `u64::MAX` if it has no end.
        end: u64,
    },
    /// One of the filesystem's counters.
    Usage {
        /// Which one.
        kind: UsageKind,
        /// Its value.
        value: u64,
    },
    /// Sectors of a replicas entry.
    DataUsage {
        /// Sectors.
        sectors: u64,
        /// Data type, in the numbering of the format.
        data_type: u8,
        /// How many of the devices are needed.
        nr_required: u8,
        /// The devices.
        devs: &'a [u8],
    },
    /// An io clock.
    Clock {
        /// 0 read, 1 write.
        rw: u8,
        /// Sectors of I/O done.
        time: u64,
    },
    /// Usage of a device: buckets, sectors and fragmented sectors by data type.
    DevUsage {
        /// Device index.
        dev: u32,
        /// Triples of counters, in words.
        counters: &'a [u64],
    },
    /// Text, without the padding.
    Log(&'a [u8]),
    /// Keys as they were.
    Overwrite(JournalKeys<'a>),
    /// Keys of the write buffer; not replayed if met on disk.
    WriteBufferKeys(JournalKeys<'a>),
    /// Seconds since the epoch.
    Datetime(u64),
    /// Of a type we do not know.
    Unknown,
}

impl<'a> RawEntry<'a> {
    /// Reads the payload. Errors count bytes from the start of the list of records and mean that the
    /// record is to be dropped. Keys are checked when they are read.
    pub fn parse(&self) -> Result<Entry<'a>, Invalid> {
        let p = self.payload;
        Ok(match self.entry_type {
            EntryType::BTREE_KEYS => Entry::BtreeKeys(self.keys()),
            EntryType::BTREE_ROOT => Entry::BtreeRoot(self.root()?),
            EntryType::PRIO_PTRS => Entry::PrioPtrs,
            EntryType::BLACKLIST => match *p {
                [seq] => Entry::Blacklist {
                    start: seq,
                    end: seq.saturating_add(1),
                },
                _ => return self.bad_size(ErrorId::JOURNAL_ENTRY_BLACKLIST_BAD_SIZE, 1),
            },
            EntryType::BLACKLIST_V2 => match *p {
                [start, last] if start <= last => Entry::Blacklist {
                    start,
                    end: last.saturating_add(1),
                },
                [start, last] => {
                    let id = ErrorId::JOURNAL_ENTRY_BLACKLIST_V2_START_PAST_END;
                    let what = "blacklist record ends before it starts";
                    return Err(Invalid::new(id, what, self.offset + 8, start, last));
                }
                _ => return self.bad_size(ErrorId::JOURNAL_ENTRY_BLACKLIST_V2_BAD_SIZE, 2),
            },
            EntryType::USAGE => match *p {
                [value, ..] => Entry::Usage {
                    kind: UsageKind(self.btree.0),
                    value,
                },
                _ => return self.bad_size(ErrorId::JOURNAL_ENTRY_USAGE_BAD_SIZE, 1),
            },
            EntryType::DATA_USAGE => self.data_usage()?,
            EntryType::CLOCK => self.clock()?,
            EntryType::DEV_USAGE => self.dev_usage()?,
            EntryType::LOG => {
                let text = p.as_bytes();
                let len = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                Entry::Log(text.get(..len).unwrap_or(&[]))
            }
            EntryType::OVERWRITE => Entry::Overwrite(self.keys()),
            EntryType::WRITE_BUFFER_KEYS => Entry::WriteBufferKeys(self.keys()),
            EntryType::DATETIME => match *p {
                [seconds, ..] => Entry::Datetime(seconds),
                _ => return self.bad_size(ErrorId::NONE, 1),
            },
            _ => Entry::Unknown,
        })
    }

    fn keys(&self) -> JournalKeys<'a> {
        JournalKeys::new(self.payload, self.offset + ENTRY_HEADER_BYTES)
    }

    fn bad_size<T>(&self, id: ErrorId, want: u64) -> Result<T, Invalid> {
        Err(Invalid::new(
            id,
            "record has the wrong size for its type",
            self.offset,
            self.payload.len() as u64,
            want,
        ))
    }

    fn root(&self) -> Result<Option<KeyRef<'a>>, Invalid> {
        if self.payload.is_empty() {
            return Ok(None);
        }
        let mut keys = self.keys();
        let key = match keys.next() {
            Some(key) => key?,
            None => return Ok(None),
        };
        if keys.next().is_some() {
            return self.bad_size(
                ErrorId::JOURNAL_ENTRY_BTREE_ROOT_BAD_SIZE,
                key.key.u64s.into(),
            );
        }
        if !key.key.key_type.is_btree_ptr() {
            return Err(Invalid::new(
                ErrorId::JOURNAL_ENTRY_BKEY_INVALID,
                "root record holds no node pointer",
                self.offset + ENTRY_HEADER_BYTES + 2,
                key.key.key_type.0.into(),
                crate::bkey::KeyType::BTREE_PTR_V2.0.into(),
            ));
        }
        Ok(Some(key))
    }

    fn data_usage(&self) -> Result<Entry<'a>, Invalid> {
        let id = ErrorId::JOURNAL_ENTRY_DATA_USAGE_BAD_SIZE;
        let Some((&sectors, rest)) = self.payload.split_first() else {
            return self.bad_size(id, 2);
        };
        let [data_type, nr_devs, nr_required, devs @ ..] = rest.as_bytes() else {
            return self.bad_size(id, 2);
        };
        match devs.get(..usize::from(*nr_devs)) {
            Some(devs) => Ok(Entry::DataUsage {
                sectors,
                data_type: *data_type,
                nr_required: *nr_required,
                devs,
            }),
            None => self.bad_size(id, u64::from(*nr_devs).saturating_add(11).div_ceil(8)),
        }
    }

    fn clock(&self) -> Result<Entry<'a>, Invalid> {
        let &[rw, time] = self.payload else {
            return self.bad_size(ErrorId::JOURNAL_ENTRY_CLOCK_BAD_SIZE, 2);
        };
        let rw = rw as u8;
        if rw > 1 {
            let id = ErrorId::JOURNAL_ENTRY_CLOCK_BAD_RW;
            let what = "clock record is for neither read nor write";
            return Err(Invalid::new(id, what, self.offset + 8, rw.into(), 1));
        }
        Ok(Entry::Clock { rw, time })
    }

    fn dev_usage(&self) -> Result<Entry<'a>, Invalid> {
        let [dev, _, _, counters @ ..] = self.payload else {
            return self.bad_size(ErrorId::JOURNAL_ENTRY_DEV_USAGE_BAD_SIZE, 3);
        };
        if dev >> 32 != 0 {
            let id = ErrorId::JOURNAL_ENTRY_DEV_USAGE_BAD_PAD;
            let what = "device usage record has nonzero padding";
            return Err(Invalid::new(id, what, self.offset + 12, dev >> 32, 0));
        }
        Ok(Entry::DevUsage {
            dev: *dev as u32,
            counters,
        })
    }
}
