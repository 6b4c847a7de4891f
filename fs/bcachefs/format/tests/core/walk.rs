// SPDX-License-Identifier: GPL-2.0
//! Reading a whole filesystem with nothing but the crate.

use bcachefs_format::bkey::{Bkey, KeyRef};
use bcachefs_format::btree_node::{decrypt_node, AlreadyVerified, NodeHeader, NodeScan, NodeWant};
use bcachefs_format::checksum::Checksummer;
use bcachefs_format::jset::{DiskJset, Entry, Jset, JsetPeek};
use bcachefs_format::keys::btree_ptr::BtreePtr;
use bcachefs_format::magic::{bset_magic, jset_magic};
use bcachefs_format::super_block::{SbLimits, SB_SECTOR};
use bcachefs_format::{BtreeId, Checked, SuperBlock};
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

use super::alg::Host;
use super::image::Image;

pub const LIMITS: SbLimits = SbLimits {
    logical_block_bytes: 512,
    block_bytes_max: 4096,
};

/// The words of a superblock copy.
pub fn read_sb(image: &Image, sector: u64) -> Vec<u64> {
    let head = image.read(sector, 2);
    let bytes = bcachefs_format::super_block::probe(&head).unwrap();
    image.read(sector, bytes.div_ceil(512))
}

/// Verifies and validates a superblock.
pub fn check_sb(words: &[u64]) -> Checked<SuperBlock<'_>> {
    let sb = SuperBlock::open(words, &Host::default()).unwrap();
    sb.validate(&LIMITS).unwrap()
}

/// A filesystem on one or more devices, in the order of their indices.
pub struct Fs {
    pub images: Vec<Image>,
    pub sb_words: Vec<Vec<u64>>,
    pub host: Host,
}

/// A node as read: the words as they are on disk, and decrypted.
pub struct Node {
    pub raw: Vec<u64>,
    pub words: Vec<u64>,
    pub want: NodeWant,
}

/// A root or a journalled key: owned words.
#[derive(Clone, PartialEq, Debug)]
pub struct OwnedKey {
    pub key: Bkey,
    pub value: Vec<u64>,
}

impl OwnedKey {
    pub fn of(k: &KeyRef<'_>) -> Self {
        OwnedKey {
            key: k.key,
            value: k.value.to_vec(),
        }
    }

    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef {
            key: self.key,
            value: &self.value,
        }
    }
}

impl Fs {
    pub fn open(images: Vec<Image>, key: Option<[u8; 32]>) -> Fs {
        let sb_words: Vec<_> = images.iter().map(|i| read_sb(i, SB_SECTOR)).collect();
        let mut host = Host { key };
        if let Some(crypt) = check_sb(&sb_words[0]).crypt() {
            host.key = host.key.or_else(|| crypt.plain_key());
        }
        Fs {
            images,
            sb_words,
            host,
        }
    }

    pub fn sb(&self, dev: usize) -> Checked<SuperBlock<'_>> {
        check_sb(&self.sb_words[dev])
    }

    pub fn image(&self, dev: u8) -> Option<&Image> {
        let at = (0..self.images.len()).find(|i| self.sb(*i).header().dev_idx == dev)?;
        Some(&self.images[at])
    }

    /// Roots from the clean section.
    pub fn clean_roots(&self) -> BTreeMap<BtreeId, (u8, OwnedKey)> {
        let sb = self.sb(0);
        let clean = sb.clean().unwrap();
        roots(clean.entries().map(Result::unwrap))
    }

    /// Every good journal entry of a device, encrypted ones decrypted, by sequence number.
    pub fn journal(&self, dev: usize) -> BTreeMap<u64, Vec<u64>> {
        let sb = self.sb(dev);
        let member = sb.this_member().unwrap();
        let bucket = usize::from(member.bucket_size.get());
        let block = usize::from(sb.header().block_size.get()) * 64;
        let magic = jset_magic(&sb.header().uuid);
        let mut found = BTreeMap::new();
        for b in sb.journal_buckets().iter() {
            let words = self.images[dev].read(b * bucket as u64, bucket);
            let (mut at, mut last) = (0, 0);
            while at < words.len() {
                let rest = &words[at..];
                let JsetPeek::Entry { seq, bytes } =
                    JsetPeek::new(rest, magic, rest.len() * 8).unwrap()
                else {
                    break;
                };
                if seq < last {
                    break;
                }
                last = seq;
                let len = (bytes / 8).next_multiple_of(block);
                let mut entry = rest[..len].to_vec();
                let ok = Jset::new(&entry).unwrap().verify(&self.host).is_ok();
                if ok {
                    self.decrypt_jset(&mut entry);
                    Jset::new(&entry).unwrap().validate(magic).unwrap();
                    found.insert(seq, entry);
                }
                at += len;
            }
        }
        found
    }

    fn decrypt_jset(&self, words: &mut [u64]) {
        use bcachefs_format::checksum::Cipher;
        use zerocopy::FromBytes;
        let header = DiskJset::read_from_prefix(words.as_bytes()).unwrap().0;
        if let Some(piece) = header.crypt_piece() {
            let data = &mut words.as_mut_bytes()[piece.bytes];
            self.host.crypt(piece.nonce, data);
        }
    }

    /// Reads the node a pointer points to.
    pub fn read_node(&self, btree: BtreeId, level: u8, ptr: KeyRef<'_>) -> Option<Node> {
        let sb = self.sb(0);
        let options = sb.options().unwrap();
        let p = BtreePtr::parse(ptr).unwrap();
        let want = NodeWant {
            magic: bset_magic(&sb.header().uuid),
            btree,
            level,
            min_key: p.min_key,
            max_key: p.max_key,
            seq: p.seq,
            sectors_written: p.sectors_written,
            range_updated: p.range_updated,
            sb_version: sb.version(),
            version_min: sb.version_min(),
            block_sectors: options.block_size,
        };
        let sectors = usize::from(options.btree_node_size);
        let (image, offset) = p
            .ptrs()
            .find_map(|p| Some((self.image(p.dev())?, p.offset())))?;
        let raw = image.read(offset, sectors);
        let mut words = raw.clone();
        if self.host.key.is_some() {
            decrypt_node(&mut words, &want, &self.host).unwrap();
        }
        Some(Node { raw, words, want })
    }

    /// Calls `f` for every node of a tree, parents first.
    pub fn walk(
        &self,
        btree: BtreeId,
        level: u8,
        ptr: KeyRef<'_>,
        f: &mut dyn FnMut(&Node, &[OwnedKey]),
    ) {
        let Some(node) = self.read_node(btree, level, ptr) else {
            return;
        };
        let keys = node.merged(&self.host);
        f(&node, &keys);
        if level > 0 {
            for k in &keys {
                self.walk(btree, level - 1, k.as_ref(), f);
            }
        }
    }
}

/// The last root record of each btree.
pub fn roots<'a>(
    entries: impl Iterator<Item = bcachefs_format::RawEntry<'a>>,
) -> BTreeMap<BtreeId, (u8, OwnedKey)> {
    let mut roots = BTreeMap::new();
    for e in entries {
        if let Entry::BtreeRoot(Some(key)) = e.parse().unwrap() {
            roots.insert(e.btree, (e.level, OwnedKey::of(&key)));
        }
    }
    roots
}

impl Node {
    /// Checks all bsets and calls `f` for each.
    pub fn scan(
        &self,
        host: &Host,
        mut f: impl FnMut(&NodeHeader, &bcachefs_format::btree_node::ScannedBset<'_>),
    ) {
        let csum: &dyn Checksummer = match host.key {
            Some(_) => &AlreadyVerified,
            None => host,
        };
        let mut scan = NodeScan::new(&self.words, self.want).unwrap();
        while let Some(bset) = scan.next_bset(csum, |_| false).unwrap() {
            assert_eq!(bset.issue, None);
            f(scan.header().unwrap(), &bset);
        }
    }

    /// The keys of the node after merging its bsets.
    pub fn merged(&self, host: &Host) -> Vec<OwnedKey> {
        let mut keys = BTreeMap::new();
        self.scan(host, |header, bset| {
            for (_, k) in bset.keys.iter(&header.format) {
                let k = OwnedKey::of(&k.unpack(&header.format));
                keys.insert(k.key.pos, k);
            }
        });
        keys.into_values()
            .filter(|k| k.key.key_type != bcachefs_format::KeyType::DELETED)
            .collect()
    }
}
