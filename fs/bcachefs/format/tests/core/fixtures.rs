// SPDX-License-Identifier: GPL-2.0
//! Real filesystems: everything in them is read, checked, and made again byte for byte.

use std::collections::BTreeMap;

use bcachefs_format::btree_node::{NewBset, NewNode, NodeWriter};
use bcachefs_format::jset::build::EntryWriter;
use bcachefs_format::jset::{JsetBuilder, NewJset};
use bcachefs_format::keys::{validate_value, ValidateCtx};
use bcachefs_format::packed::FormatCalc;
use bcachefs_format::sb::field::FieldType;
use bcachefs_format::sb::print::ShowField;
use bcachefs_format::sb::SbBuilder;
use bcachefs_format::super_block::{SB_LAYOUT_SECTOR, SB_SECTOR};
use bcachefs_format::{BtreeId, CsumType, Jset, Version};
use zerocopy::{FromBytes, IntoBytes};

use super::alg::Host;
use super::image::{more_images, Image};
use super::walk::{check_sb, read_sb, roots, Fs};

/// What was seen, so that a test which sees nothing fails.
#[derive(Default, Debug)]
struct Seen {
    nodes: usize,
    bsets: usize,
    keys: usize,
    packed: usize,
    jsets: usize,
}

fn check_superblocks(image: &Image) {
    let words = read_sb(image, SB_SECTOR);
    let sb = check_sb(&words);
    assert_eq!(sb.version(), Version::CURRENT);
    assert!(format!("{}", *sb).contains("block_size: 4096"));
    for field in sb.fields().map(Result::unwrap) {
        assert!(field.field_type.name().is_some());
        let shown = ShowField { sb: *sb, field }.to_string();
        assert!(shown.lines().count() > 0);
    }
    let layout_words = image.read(SB_LAYOUT_SECTOR, 1);
    let layout = bcachefs_format::sb::DiskLayout::ref_from_bytes(layout_words.as_bytes()).unwrap();
    layout.validate().unwrap();
    assert_eq!(*layout, sb.header().layout);
    for sector in layout.copies() {
        let copy_words = read_sb(image, sector);
        let copy = check_sb(&copy_words);
        assert_eq!(copy.header().offset.get(), sector);
        assert_eq!(copy.header().seq, sb.header().seq);
        rebuild_superblock(&copy_words);
    }
}

fn rebuild_superblock(words: &[u64]) {
    let sb = check_sb(words);
    let mut out = vec![0; words.len()];
    let mut builder = SbBuilder::new(&mut out, sb.header()).unwrap();
    for field in sb.fields().map(Result::unwrap) {
        builder.copy_field(&field).unwrap();
    }
    let csum_type = CsumType(sb.flags().csum_type() as u8);
    let offset = sb.header().offset.get();
    let bytes = builder.finish(offset, csum_type, &Host::default()).unwrap();
    assert_eq!(out[..bytes / 8], *sb.words());

    let encoded = |field_type| {
        let members: Vec<_> = (0..sb.members().nr())
            .map(|i| sb.members().get(i).unwrap())
            .collect();
        let bytes = bcachefs_format::sb::members::payload_bytes(field_type, members.len());
        let mut payload = vec![0u64; bytes / 8];
        bcachefs_format::sb::members::encode(field_type, &members, payload.as_mut_bytes());
        payload
    };
    for field_type in [FieldType::MEMBERS_V1, FieldType::MEMBERS_V2] {
        let field = sb.field(field_type).unwrap();
        assert_eq!(encoded(field_type), field.payload(), "{field_type}");
    }
}

fn check_journal(fs: &Fs, dev: usize, seen: &mut Seen) -> Option<u64> {
    let journal = fs.journal(dev);
    let magic = bcachefs_format::magic::jset_magic(&fs.sb(dev).header().uuid);
    for (seq, words) in &journal {
        let jset = Jset::new(words).unwrap().validate(magic).unwrap();
        assert_eq!(jset.seq(), *seq);
        jset.check_last_seq().unwrap();
        for e in jset.entries() {
            let e = e.unwrap();
            e.parse().unwrap();
            assert!(!e.to_string().contains("unknown"), "{e}");
        }
        rebuild_jset(fs, words);
        seen.jsets += 1;
    }
    journal.keys().last().copied()
}

fn rebuild_jset(fs: &Fs, words: &[u64]) {
    let jset = Jset::new(words).unwrap().into_inner();
    let mut out = vec![0; words.len()];
    let mut builder = JsetBuilder::new(&mut out);
    for e in jset.entries().map(Result::unwrap) {
        builder
            .records(|w| w.record(e.entry_type, e.btree, e.level, &[e.payload]))
            .unwrap();
    }
    let new = NewJset {
        magic: jset.header().magic.get(),
        seq: jset.seq(),
        last_seq: jset.last_seq(),
        version: Version::CURRENT,
        csum_type: jset.header().csum_type(),
    };
    let cipher: Option<&dyn bcachefs_format::checksum::Cipher> = match fs.host.key {
        Some(_) => Some(&fs.host),
        None => None,
    };
    let bytes = builder.finish(&new, 4096, &fs.host, cipher).unwrap();
    assert_eq!(bytes, words.len() * 8);
    let mut back = out;
    // The words that were read are decrypted.
    let made = Jset::new(&back).unwrap();
    made.verify(&fs.host).unwrap();
    let piece = made.peek().header().crypt_piece();
    if let (Some(piece), Some(cipher)) = (piece, cipher) {
        let data = &mut back.as_mut_bytes()[piece.bytes];
        cipher.crypt(piece.nonce, data);
    }
    assert_eq!(back, words);
}

fn check_tree(fs: &Fs, btree: BtreeId, level: u8, root: super::walk::OwnedKey, seen: &mut Seen) {
    let mut node_nr = 0;
    fs.walk(btree, level, root.as_ref(), &mut |node, _| {
        let mut made = vec![0u64; node.words.len()];
        let mut written = 0;
        node.scan(&fs.host, |header, bset| {
            let mut keys = Vec::new();
            let mut calc = FormatCalc::new();
            calc.add_pos(header.min_key);
            calc.add_pos(header.max_key);
            for (_, k) in bset.keys.iter(&header.format) {
                let unpacked = k.unpack(&header.format);
                validate_value(unpacked, &ValidateCtx::READ).unwrap();
                if k.is_packed() {
                    let packed = header.format.pack(&unpacked.key).unwrap();
                    let n = packed.words().len();
                    assert_eq!(packed.words(), &k.words()[..n]);
                    seen.packed += 1;
                } else {
                    assert!(header.format.pack(&unpacked.key).is_none());
                }
                calc.add_key(&unpacked.key);
                keys.push(unpacked);
                seen.keys += 1;
            }
            // The first bset's keys are the ones the format was made for.
            if bset.offset_sectors == 0 && !keys.is_empty() {
                assert_eq!(calc.finish(), header.format, "{btree} node {node_nr}");
            }
            written = rebuild_bset(fs, node, header, bset, &keys, &mut made);
            seen.bsets += 1;
        });
        let used = written as usize * 64;
        assert_eq!(made[..used], node.raw[..used], "{btree} node {node_nr}");
        node_nr += 1;
        seen.nodes += 1;
    });
}

/// Makes a bset again in `made`, which holds those before it; returns the sectors used.
fn rebuild_bset(
    fs: &Fs,
    node: &super::walk::Node,
    header: &bcachefs_format::btree_node::NodeHeader,
    bset: &bcachefs_format::btree_node::ScannedBset<'_>,
    keys: &[bcachefs_format::KeyRef<'_>],
    made: &mut [u64],
) -> u32 {
    let new_bset = NewBset {
        seq: bset.bset.seq.get(),
        journal_seq: bset.bset.journal_seq.get(),
        csum_type: bset.bset.csum_type(),
        version: bset.bset.version(),
    };
    let new_node = NewNode {
        magic: node.want.magic,
        btree: node.want.btree,
        level: node.want.level,
        generation: header.generation,
        min_key: header.min_key,
        max_key: header.max_key,
        format: header.format,
    };
    let keys = keys.iter().copied();
    let at = bset.offset_sectors;
    let mut writer = NodeWriter::new(made, node.want.block_sectors, at);
    if at == 0 {
        writer.write_first(&new_node, &new_bset, keys, &fs.host, Some(&fs.host))
    } else {
        writer.append(&header.format, &new_bset, keys, &fs.host, Some(&fs.host))
    }
    .unwrap();
    assert_eq!(writer.sectors_written(), at + bset.sectors);
    writer.sectors_written()
}

fn check_clean(fs: &Fs) -> Seen {
    let mut seen = Seen::default();
    for image in &fs.images {
        check_superblocks(image);
    }
    let mut last = None;
    for dev in 0..fs.images.len() {
        let newest = check_journal(fs, dev, &mut seen);
        last = last.max(newest.map(|seq| (seq, dev)));
    }
    let sb = fs.sb(0);
    assert!(sb.is_clean());
    let clean = sb.clean().unwrap();
    let (seq, dev) = last.unwrap();
    assert_eq!(clean.journal_seq(), seq);
    // What the last journal entry says about roots is what the clean section says.
    let words = fs.journal(dev).remove(&seq).unwrap();
    let jset = Jset::new(&words).unwrap().into_inner();
    let journal_roots = roots(jset.entries().map(Result::unwrap));
    assert_eq!(fs.clean_roots(), journal_roots);
    rebuild_clean(fs, &journal_roots);
    for (btree, (level, root)) in fs.clean_roots() {
        check_tree(fs, btree, level, root, &mut seen);
    }
    seen
}

fn rebuild_clean(fs: &Fs, roots: &BTreeMap<BtreeId, (u8, super::walk::OwnedKey)>) {
    let sb = fs.sb(0);
    let field = sb.field(FieldType::CLEAN).unwrap();
    let mut payload = vec![0u64; field.payload().len()];
    let seq = sb.clean().unwrap().journal_seq();
    let room = bcachefs_format::sb::clean::encode(seq, &mut payload).unwrap();
    let mut writer = EntryWriter::new(room);
    for e in sb.clean().unwrap().entries().map(Result::unwrap) {
        use bcachefs_format::jset::Entry;
        match e.parse().unwrap() {
            Entry::Usage { kind, value } => writer.usage(kind, value).unwrap(),
            Entry::Clock { rw, time } => writer.clock(rw, time).unwrap(),
            Entry::BtreeRoot(Some(_)) => {
                let (level, key) = &roots[&e.btree];
                writer.root(e.btree, *level, &key.as_ref()).unwrap();
            }
            Entry::BtreeKeys(keys) => assert!(keys.is_empty()),
            other => panic!("unexpected record {other}"),
        }
    }
    assert_eq!(payload, field.payload());
}

fn open(names: &[&str]) -> Fs {
    Fs::open(names.iter().map(|n| Image::fixture(n)).collect(), None)
}

#[test]
fn defaults() {
    let seen = check_clean(&open(&["a"]));
    println!("{seen:?}");
    assert!(seen.nodes >= 9 && seen.keys >= 94 && seen.packed >= 66 && seen.jsets >= 11);
}

#[test]
fn compressed() {
    let seen = check_clean(&open(&["z"]));
    println!("{seen:?}");
    assert!(seen.nodes >= 9 && seen.bsets > seen.nodes);
}

#[test]
fn two_devices() {
    let fs = open(&["m0", "m1"]);
    let seen = check_clean(&fs);
    println!("{seen:?}");
    assert!(seen.nodes >= 9 && seen.keys >= 139);
    let sb = fs.sb(0);
    assert_eq!(sb.members().iter().count(), 2);
    assert!(sb.disk_groups().entries().len() > 1);
}

#[test]
fn encrypted() {
    let fs = open(&["enck"]);
    assert!(fs.host.key.is_some());
    let options = fs.sb(0).options().unwrap();
    assert_ne!(
        options.encryption,
        bcachefs_format::checksum::Encryption::Off
    );
    let seen = check_clean(&fs);
    println!("{seen:?}");
    assert!(seen.nodes >= 9 && seen.jsets > 3);
}

#[test]
fn encrypted_with_passphrase() {
    let image = Image::fixture("encp");
    let words = read_sb(&image, SB_SECTOR);
    let sb = check_sb(&words);
    let crypt = sb.crypt().unwrap();
    assert!(!crypt.is_plain() && crypt.plain_key().is_none());
    let [n, r, p] = crypt.scrypt();
    assert_eq!([n, r, p], [14, 3, 4]);
    // A wrong key is told apart from the right one.
    let wrong = Host::with_key([7; 32]);
    assert_eq!(crypt.unlock(&wrong, &sb.header().uuid), None);
    check_superblocks(&image);
}

#[test]
fn others() {
    for path in more_images() {
        let image = Image::open(&path);
        let name = image.name.clone();
        check_superblocks(&image);
        let words = read_sb(&image, SB_SECTOR);
        let sb = check_sb(&words);
        if sb.crypt().is_some_and(|c| !c.is_plain()) {
            println!("{name}: locked");
            continue;
        }
        let mut images = vec![image];
        if sb.header().nr_devices > 1 {
            // Members are named alike but for a digit before the ending.
            let other = path.to_string_lossy().replace("0.img", "1.img");
            if other == path.to_string_lossy() {
                continue;
            }
            images.push(Image::open(other.as_ref()));
        }
        let fs = Fs::open(images, None);
        let seen = if sb.is_clean() {
            check_clean(&fs)
        } else {
            let mut seen = Seen::default();
            check_journal(&fs, 0, &mut seen);
            seen
        };
        println!("{name}: {seen:?}");
    }
}
