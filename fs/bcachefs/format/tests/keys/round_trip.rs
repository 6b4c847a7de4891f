// SPDX-License-Identifier: GPL-2.0
//! What is built is valid, decodes to the same, and is rebuilt to the same words.

use bcachefs_format::keys::inode::Inode;
use bcachefs_format::keys::{self, KeyText, ValidateCtx};
use bcachefs_format::KeyType;

use super::generate;
use super::owned::{build, Owned};
use super::rebuild::rebuild;
use super::rng::Rng;

#[test]
fn built_keys_are_valid_and_rebuild_to_themselves() {
    let mut r = Rng::new(1);
    let mut seen = [0u32; KeyType::COUNT as usize];
    for _ in 0..20_000 {
        let mut key = generate::any(&mut r);
        if key.btree.0 == bcachefs_format::BtreeId::LRU.0 {
            // The old value is not one that may be written to a btree any more.
            assert!(keys::validate(key.as_ref(), key.btree, 0, &ValidateCtx::COMMIT).is_err());
        } else {
            let res = keys::validate(key.as_ref(), key.btree, key.level, &ValidateCtx::COMMIT);
            assert_eq!(res, Ok(()), "{}", KeyText(key.as_ref()));
        }
        let res = keys::check(key.as_ref(), key.btree, key.level, &ValidateCtx::READ);
        assert_eq!(res.unwrap().key, key.key);
        assert_eq!(rebuild(&key), key.value, "{}", KeyText(key.as_ref()));
        let text = KeyText(key.as_ref()).to_string();
        assert!(
            !text.contains("undecodable") && !text.contains('\n'),
            "{text}"
        );
        seen[usize::from(key.key.key_type.0)] += 1;

        // A length that does not go with the value is noticed whatever the type.
        key.key.u64s -= 1;
        assert!(keys::validate(key.as_ref(), key.btree, key.level, &ValidateCtx::READ).is_err());
    }
    let old = [
        KeyType::BTREE_PTR,
        KeyType::INODE,
        KeyType::INODE_V2,
        KeyType::ALLOC,
        KeyType::ALLOC_V2,
        KeyType::ALLOC_V3,
    ];
    for t in 0..KeyType::COUNT {
        let written = !old.contains(&KeyType(t));
        assert_eq!(seen[usize::from(t)] > 0, written, "{}", KeyType(t));
    }
}

#[test]
fn inode_decodes_to_what_was_encoded() {
    let mut r = Rng::new(2);
    for _ in 0..20_000 {
        let v = generate::inode(&mut r);
        let words = build(|w| v.build(w));
        assert!(words.len() <= keys::inode::INODE_WORDS_MAX);
        let key = Owned::new(
            bcachefs_format::BtreeId::INODES,
            KeyType::INODE_V3,
            bcachefs_format::Bpos::with_snapshot(0, v.inum, v.snapshot),
            0,
            words,
        );
        assert_eq!(Inode::parse(key.as_ref()), Ok(v));
    }
    // All fields at their widest still fit in the stated room.
    let mut v = generate::inode(&mut r);
    (v.atime, v.ctime, v.mtime, v.otime) = (-1, -1, -1, -1);
    (v.dir, v.dir_offset) = (u64::MAX, u64::MAX);
    v.options.nocow = 255;
    assert!(build(|w| v.build(w)).len() <= keys::inode::INODE_WORDS_MAX);
}

#[test]
fn builders_say_when_there_is_no_room() {
    let mut r = Rng::new(3);
    for _ in 0..2_000 {
        let key = generate::inode(&mut r);
        let need = build(|w| key.build(w)).len();
        for room in 0..need {
            let mut words = vec![0; room];
            assert_eq!(key.build(&mut words), Err(keys::BuildError::NoRoom));
        }
    }
}

#[test]
fn values_longer_than_a_key_are_refused() {
    let bytes = vec![1; 251 * 8];
    let mut words = vec![0; 300];
    assert!(matches!(
        keys::inline_data::InlineData { bytes: &bytes }.build(&mut words),
        Err(keys::BuildError::Unrepresentable(_))
    ));
}
