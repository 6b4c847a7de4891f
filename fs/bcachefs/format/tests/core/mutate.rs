// SPDX-License-Identifier: GPL-2.0
//! Damaged input never panics, never loops, and validation of it means something.

use std::fmt::Write;
use std::sync::OnceLock;

use bcachefs_format::bset::Keys;
use bcachefs_format::btree_node::{AlreadyVerified, NodeScan, NodeWant};
use bcachefs_format::jset::{Entry, JsetPeek};
use bcachefs_format::keys::{validate, ValidateCtx};
use bcachefs_format::packed::SearchPos;
use bcachefs_format::sb::print::ShowField;
use bcachefs_format::{Bpos, Jset, SuperBlock};
use zerocopy::IntoBytes;

use super::image::Image;
use super::random::{mutations, Random};
use super::round_trip::sample_sb;
use super::walk::{Fs, LIMITS};

/// Printing to nowhere, bounded: printers must not depend on valid content.
struct Sink(usize);

impl Write for Sink {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0 += s.len();
        if self.0 > 1 << 16 {
            return Err(std::fmt::Error);
        }
        Ok(())
    }
}

fn show(what: impl std::fmt::Display) {
    let _ = write!(Sink(0), "{what}");
}

/// Changes a few bytes, more often near the start of the object and of its parts.
fn mutate(r: &mut Random, words: &mut [u64], starts: &[usize]) {
    for _ in 0..1 + r.below(4) {
        let len = words.len() * 8;
        let at = match r.below(3) {
            0 => r.below(len),
            1 => r.below(len.min(768)),
            _ => (starts[r.below(starts.len())] * 8 + r.below(48)).min(len - 1),
        };
        let byte = &mut words.as_mut_bytes()[at];
        *byte = match r.below(5) {
            0 => 0,
            1 => 0xff,
            2 => *byte ^ 1 << r.below(8),
            3 => byte.wrapping_add(1),
            _ => r.next() as u8,
        };
    }
    if r.below(8) == 0 {
        let at = r.below(words.len());
        words[at] = r.number(64);
    }
}

fn use_superblock(words: &[u64]) -> bool {
    let Ok(sb) = SuperBlock::frame(words) else {
        return false;
    };
    // Views have to cope with content that was not validated.
    let raw = *sb.peek();
    show(raw);
    for field in raw.fields().flatten() {
        show(ShowField { sb: raw, field });
        if let Err(e) = field.validate(&raw) {
            show(e);
        }
    }
    let _ = raw.journal_buckets().get(u64::MAX);
    let _ = raw.journal_buckets().iter().take(1000).count();
    let _ = raw.blacklist().contains(5);
    for dev in 0..=255 {
        if let Some(m) = raw.members().get(dev) {
            let _ = m.bitmap_covers(0, m.sectors());
        }
    }
    let valid = sb.validate(&LIMITS);
    if let Err(e) = &valid {
        assert!(e.offset < words.len() * 8 + 64, "{e}");
        show(e);
    }
    if let Ok(sb) = &valid {
        assert!(sb.this_member().is_some());
        sb.options().unwrap();
        for (_, m) in sb.members().iter() {
            assert!(m.bucket_size.get() >= 8 && m.nbuckets.get() >= 64);
        }
        let end = sb.this_member().unwrap().nbuckets.get();
        assert!(sb.journal_buckets().ranges().all(|r| r.start + r.nr <= end));
    }
    valid.is_ok()
}

#[test]
fn superblocks() {
    let mut r = Random::new(100);
    let image = Image::fixture("m0");
    let real = super::walk::read_sb(&image, 8);
    let sources = [real, sample_sb(&mut r, 2), sample_sb(&mut r, 7)];
    let mut starts = Vec::new();
    for s in &sources {
        assert!(use_superblock(s));
        let sb = SuperBlock::frame(s).unwrap().into_inner();
        let fields = sb.fields().map(|f| 94 + f.unwrap().offset / 8);
        starts.push(fields.collect::<Vec<_>>());
    }
    let (mut good, mut bad) = (0, 0);
    for i in 0..mutations() {
        let mut words = sources[i % sources.len()].clone();
        mutate(&mut r, &mut words, &starts[i % sources.len()]);
        if r.below(16) == 0 {
            words.truncate(r.below(words.len()));
        }
        match use_superblock(&words) {
            true => good += 1,
            false => bad += 1,
        }
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}

fn use_jset(words: &[u64], magic: u64) -> bool {
    match JsetPeek::new(words, magic, words.len() * 8) {
        Ok(JsetPeek::Entry { bytes, .. }) => assert!(bytes <= words.len() * 8),
        Ok(JsetPeek::Nothing) => {}
        Err(e) => show(e),
    }
    let Ok(jset) = Jset::new(words) else {
        return false;
    };
    let Ok(jset) = jset.validate(magic) else {
        return false;
    };
    show(*jset);
    let _ = jset.check_last_seq();
    let mut at = 0;
    for e in jset.entries() {
        let e = match e {
            Ok(e) => e,
            Err(e) => {
                show(e);
                break;
            }
        };
        // Records are where the iterator says, and it always advances.
        assert_eq!(e.offset, at);
        at += 8 + e.payload.len() * 8;
        show(e);
        if let Ok(Entry::BtreeKeys(keys) | Entry::Overwrite(keys)) = e.parse() {
            for k in keys.flatten() {
                assert_eq!(usize::from(k.key.value_u64s()), k.value.len());
                if let Err(e) = validate(k, e.btree, e.level, &ValidateCtx::READ) {
                    show(e);
                }
            }
        }
    }
    assert!(at <= words.len() * 8);
    true
}

fn sample_fs() -> &'static Fs {
    static FS: OnceLock<Fs> = OnceLock::new();
    FS.get_or_init(|| Fs::open(vec![Image::fixture("z")], None))
}

#[test]
fn jsets() {
    let mut r = Random::new(101);
    let fs = sample_fs();
    let magic = bcachefs_format::magic::jset_magic(&fs.sb(0).header().uuid);
    let entries: Vec<Vec<u64>> = fs.journal(0).into_values().collect();
    let starts: Vec<Vec<usize>> = entries
        .iter()
        .map(|words| {
            let jset = Jset::new(words).unwrap().into_inner();
            let at = jset.entries().map(|e| 7 + e.unwrap().offset / 8);
            at.collect()
        })
        .collect();
    let (mut good, mut bad) = (0, 0);
    for i in 0..mutations() {
        let i = i % entries.len();
        let mut words = entries[i].clone();
        assert!(good + bad > 0 || use_jset(&words, magic));
        mutate(&mut r, &mut words, &starts[i]);
        if r.below(16) == 0 {
            words.truncate(r.below(words.len()));
        }
        match use_jset(&words, magic) {
            true => good += 1,
            false => bad += 1,
        }
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}

fn use_node(words: &[u64], want: NodeWant, r: &mut Random) -> bool {
    let search = r.number(64);
    let mut scan = match NodeScan::new(words, want) {
        Ok(scan) => scan,
        Err(e) => {
            show(e);
            return false;
        }
    };
    // Checksums would find every change; what is wanted here is what comes after them.
    let mut bsets = 0;
    loop {
        match scan.next_bset(&AlreadyVerified, |seq| seq % 7 == search % 7) {
            Ok(Some(b)) => {
                bsets += 1;
                assert!(bsets <= words.len() / 64);
                show(b.bset);
                let header = scan.header().unwrap();
                show(header.format);
                let format = header.format;
                let search = SearchPos::new(&format, Bpos::new(search, search >> 7));
                let mut prev = None;
                for (at, k) in b.keys.iter(&format) {
                    let pos = k.pos(&format);
                    assert!(prev.is_none_or(|p| p <= pos));
                    prev = Some(pos);
                    assert_eq!(k.cmp_search(&search, &format), pos.cmp(&search.pos()));
                    let got = b.keys.get(at, &format);
                    assert_eq!(got, Some(k));
                    let _ = validate(
                        k.unpack(&format),
                        want.btree,
                        want.level,
                        &ValidateCtx::READ,
                    );
                }
            }
            Ok(None) => return true,
            Err(e) => {
                assert!(e.offset <= words.len() * 8, "{e}");
                show(e);
                return false;
            }
        }
    }
}

#[test]
fn nodes() {
    let mut r = Random::new(102);
    let fs = sample_fs();
    let mut nodes = Vec::new();
    for (btree, (level, root)) in fs.clean_roots() {
        fs.walk(btree, level, root.as_ref(), &mut |node, _| {
            let mut starts = vec![10, 17];
            node.scan(&fs.host, |header, b| {
                let first = b.offset_sectors as usize * 64;
                let keys = first + if first == 0 { 20 } else { 5 };
                starts.push(keys - 3);
                starts.extend(b.keys.iter(&header.format).map(|(at, _)| keys + at));
            });
            // Half of them as if the pointer did not know how much is written.
            let mut want = node.want;
            if nodes.len() % 2 == 0 {
                want.sectors_written = 0;
            }
            nodes.push((node.words.clone(), want, starts));
        });
    }
    assert!(nodes.len() > 5);
    let (mut good, mut bad) = (0, 0);
    for i in 0..mutations() {
        let (words, want, starts) = &mut nodes[i % 9];
        let before = words.clone();
        let used = (*starts.last().unwrap() + 40).min(words.len());
        mutate(&mut r, &mut words[..used], starts);
        let cut = match r.below(16) {
            0 => r.below(words.len()),
            _ => words.len(),
        };
        match use_node(&words[..cut], *want, &mut r) {
            true => good += 1,
            false => bad += 1,
        }
        *words = before;
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}

#[test]
fn keys_of_garbage() {
    let mut r = Random::new(103);
    let format = bcachefs_format::BkeyFormat::new([20, 40, 32, 10, 0, 0], [0; 6]).unwrap();
    for _ in 0..mutations() {
        let mut words: Vec<u64> = (0..r.below(40)).map(|_| r.next()).collect();
        // Plausible lengths and formats, so that walks get somewhere.
        for w in &mut words {
            if r.below(2) == 0 {
                *w = *w & !0x7fff | r.below(2) as u64 * 0x100 | r.below(9) as u64;
            }
        }
        let keys = Keys::new(&words);
        let mut end = 0;
        for (at, k) in keys.iter(&format) {
            assert_eq!(at, end);
            end = at + k.u64s();
            let _ = k.unpack(&format);
        }
        assert!(end <= words.len());
        if keys.validate_order(&format).is_ok() {
            assert_eq!(end, words.len());
        }
        let _ = keys.get(r.below(100), &format);
        let _ = keys.get(usize::MAX, &format);
        // Comparing and unpacking anything is defined.
        let short = &words[..words.len().min(r.below(4))];
        let _ = format.cmp_packed(short, &words);
        let _ = format.unpack(short);
        let _ = format.pos_words(short);
    }
}
