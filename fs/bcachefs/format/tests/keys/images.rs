// SPDX-License-Identifier: GPL-2.0
//! The checks on every key of an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bcachefs_format::keys::extent::{CrcKind, Entry};
use bcachefs_format::keys::inode::Inode;
use bcachefs_format::keys::str_hash::StrHashInfo;
use bcachefs_format::keys::{self, DeviceGeometry, Devices, KeyText, ValidateCtx, Value, When};
use bcachefs_format::{Bpos, BtreeId, KeyType};

use super::crc::SlowCrc;
use super::owned::Owned;
use super::rebuild::rebuild;
use crate::core::image::{more_images, Image};
use crate::core::walk::{Fs, OwnedKey};

/// The members of a filesystem.
struct Members(BTreeMap<u8, DeviceGeometry>);

impl Devices for Members {
    fn geometry(&self, dev: u8) -> Option<DeviceGeometry> {
        self.0.get(&dev).copied()
    }
}

impl Members {
    fn of(fs: &Fs) -> Self {
        let members = fs.sb(0);
        let members = members.members();
        Self(
            members
                .iter()
                .map(|(dev, m)| {
                    let geometry = DeviceGeometry {
                        first_bucket: m.first_bucket.get().into(),
                        nbuckets: m.nbuckets.get(),
                        bucket_size: m.bucket_size.get().into(),
                    };
                    (dev, geometry)
                })
                .collect(),
        )
    }
}

/// What a walk over a filesystem has seen.
#[derive(Default)]
struct Seen {
    types: BTreeMap<(BtreeId, KeyType), u64>,
    /// Decoded inodes by number and snapshot.
    inodes: BTreeMap<(u64, u32), Inode>,
    /// Positions of all names, and of what keeps their chains intact.
    slots: BTreeSet<(BtreeId, Bpos)>,
    names: Vec<Owned>,
}

/// A form that this crate would write, which not everything on disk has.
fn normal(key: &Owned) -> Vec<u64> {
    let mut v = key.value.clone();
    if key.key.key_type == KeyType::BTREE_PTR_V2 {
        // A pointer in memory, left over.
        v[0] = 0;
    }
    let header = match keys::parse(key.as_ref()) {
        Ok(Value::Extent(e)) => Some((0, e.entries())),
        Ok(Value::ReflinkV(e)) => Some((1, e.entries())),
        _ => None,
    };
    if let Some((header, entries)) = header {
        for (at, e) in entries {
            if let Entry::Crc(CrcKind::Crc32, _) = e {
                // A bit without meaning, which some writers leave as it was.
                v[header + at] &= !(1 << 23);
            }
        }
    }
    v
}

fn check(ctx: &ValidateCtx<'_>, key: &Owned, seen: &mut Seen) {
    let text = KeyText(key.as_ref()).to_string();
    if std::env::var_os("BCACHEFS_PRINT_KEYS").is_some() {
        println!("{} {} {text}", key.btree, key.level);
    }
    for when in [When::Read, When::Commit] {
        let ctx = ValidateCtx { when, ..*ctx };
        let res = keys::validate(key.as_ref(), key.btree, key.level, &ctx);
        assert_eq!(res, Ok(()), "{}: {text}", key.btree);
    }
    assert!(!text.contains("undecodable"), "{text}");
    assert_eq!(rebuild(key), normal(key), "{}: {text}", key.btree);
    *seen.types.entry((key.btree, key.key.key_type)).or_default() += 1;
    match keys::parse(key.as_ref()).unwrap() {
        Value::Inode(i) => {
            seen.inodes.insert((i.inum, i.snapshot), i);
        }
        Value::Dirent(_) | Value::Xattr(_) => {
            seen.slots.insert((key.btree, key.key.pos));
            seen.names.push(key.clone());
        }
        Value::HashWhiteout => {
            seen.slots.insert((key.btree, key.key.pos));
        }
        _ => {}
    }
}

/// Every name is at its hash, or after it with no gap between. Filesystems with snapshots have
/// gaps that only the walk of ancestors can fill, so there only the order is looked at.
fn check_hashes(seen: &Seen) {
    let mut snapshots: Vec<u32> = seen.inodes.keys().map(|k| k.1).collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    for key in &seen.names {
        let pos = key.key.pos;
        let owner = seen
            .inodes
            .range((pos.inode, 0)..=(pos.inode, u32::MAX))
            .next()
            .expect("inode of a name")
            .1;
        let hash = StrHashInfo::new(owner).expect("known hash");
        let want = match keys::parse(key.as_ref()) {
            Ok(Value::Dirent(d)) => hash.dirent(d.name, &SlowCrc),
            Ok(Value::Xattr(x)) => hash.xattr(x.xattr_type.0, x.name, &SlowCrc),
            other => panic!("{other:?}"),
        };
        let text = KeyText(key.as_ref());
        assert!(want <= pos.offset, "{want}: {text}");
        assert!(pos.offset - want < 1000, "{want}: {text}");
        if snapshots.len() == 1 {
            for slot in want..pos.offset {
                let at = Bpos::with_snapshot(pos.inode, slot, pos.snapshot);
                assert!(seen.slots.contains(&(key.btree, at)), "{want}: {text}");
            }
        }
    }
}

/// Checks all keys of a filesystem; `false` if it has to be passed over.
fn check_filesystem(fs: &Fs) -> bool {
    let sb = fs.sb(0);
    if !sb.is_clean() || (sb.crypt().is_some() && fs.host.key.is_none()) {
        return false;
    }
    let members = Members::of(fs);
    let options = sb.options().unwrap();
    let ctx = ValidateCtx {
        devices: Some(&members),
        btree_node_sectors: options.btree_node_size.into(),
        encoded_extent_max: options.encoded_extent_max,
        ..ValidateCtx::READ
    };
    let owned = |btree, level, k: &OwnedKey| Owned {
        btree,
        level,
        key: k.key,
        value: k.value.clone(),
    };
    let mut seen = Seen::default();
    for (btree, (level, root)) in fs.clean_roots() {
        check(&ctx, &owned(btree, level + 1, &root), &mut seen);
        fs.walk(btree, level, root.as_ref(), &mut |node, keys| {
            for k in keys {
                check(&ctx, &owned(btree, node.want.level, k), &mut seen);
            }
        });
    }
    check_hashes(&seen);
    println!("{}: {:?}", fs.images[0].name, seen.types);
    println!("{} names", seen.names.len());
    assert!(!seen.inodes.is_empty() && !seen.names.is_empty());
    true
}

/// All `*.img.zst` in `dir` and in the folders in it.
fn images_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() {
            out.extend(images_in(&path));
        } else if path.to_string_lossy().ends_with(".img.zst") {
            out.push(path);
        }
    }
    out
}

#[test]
fn every_key_of_every_image() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = images_in(&here.join("tests/images"));
    paths.extend(images_in(&here.join("../../../tests/fixtures")));
    paths.extend(more_images());
    paths.sort();
    // By filesystem, then device.
    let mut all: BTreeMap<[u8; 16], BTreeMap<u8, Image>> = BTreeMap::new();
    for path in paths {
        let fs = Fs::open(vec![Image::open(&path)], None);
        let (uuid, dev) = {
            let sb = fs.sb(0);
            (sb.header().uuid.0, sb.header().dev_idx)
        };
        let image = fs.images.into_iter().next().unwrap();
        all.entry(uuid).or_default().insert(dev, image);
    }
    let mut walked = 0;
    for images in all.into_values() {
        let fs = Fs::open(images.into_values().collect(), None);
        let done = check_filesystem(&fs);
        if !done {
            println!("{}: passed over", fs.images[0].name);
        }
        walked += u32::from(done);
    }
    assert!(walked >= 3, "only {walked} filesystems could be walked");
}
