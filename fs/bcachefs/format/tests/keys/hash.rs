// SPDX-License-Identifier: GPL-2.0
//! Hashes of names, against values taken from filesystems.

use bcachefs_format::keys::str_hash::{NameCrc, StrHashInfo, StrHashType};

use super::crc::SlowCrc;
use super::owned::hex;

fn info(hash: StrHashType, seed: &str) -> StrHashInfo {
    let seed = u64::from_le_bytes(hex(seed).try_into().unwrap());
    StrHashInfo::from_parts(hash, seed).unwrap()
}

#[test]
fn crcs_of_the_test_are_right() {
    assert_eq!(SlowCrc.crc32c(0, b"123456789"), 0x58e3_fa20);
    assert_eq!(SlowCrc.crc64(0, b"123456789"), 0x6c40_df5f_0b49_7347);
}

#[test]
fn directory_entries() {
    let h = |t, seed, name: &str| info(t, seed).dirent(name.as_bytes(), &SlowCrc);
    assert_eq!(
        h(StrHashType::SIPHASH, "acd5c9e0ec2685d0", "lost+found"),
        128580459770656408
    );
    let seed = "533e5d7468b16aca";
    assert_eq!(h(StrHashType::CRC64, seed, "h"), 4971421534399205693);
    assert_eq!(
        h(StrHashType::CRC64, seed, "lost+found"),
        3103650592662681642
    );
    assert_eq!(
        h(StrHashType::CRC32C, "b2c3e1fe7886698b", "lost+found"),
        1021815818
    );
}

#[test]
fn attributes() {
    let h = |seed, t: u8, name: &str| {
        info(StrHashType::SIPHASH, seed).xattr(t, name.as_bytes(), &SlowCrc)
    };
    let seed = "780f169a6570a240";
    for (name, want) in [
        ("b".to_string(), 4539126052310566043),
        ("gggggg".to_string(), 5846536426184002021),
        ("hhhhhhh".to_string(), 2192789251800304011),
        ("iiiiiiii".to_string(), 8061745672424337810),
        ("jjjjjjjjj".to_string(), 1950516514500120144),
        ("o".repeat(14), 1604673334108075255),
        ("e".repeat(30), 1837851755872956769),
    ] {
        assert_eq!(h(seed, 0, &name), want, "{name}");
    }
    assert_eq!(h(seed, 3, "foobarbaz12"), 4330828875928156378);
    assert_eq!(h(seed, 4, "mysecattr99"), 5743629712748597865);
    assert_eq!(h("b7f012a518e75725", 2, ""), 7980768669456997727);
    assert_eq!(h("948ec74ecb36b067", 1, ""), 1920540678110702525);
}

#[test]
fn old_siphash() {
    // Taken from independent implementations of SHA-256 and SipHash.
    let old = info(StrHashType::SIPHASH_OLD, "0001020304050607");
    assert_eq!(old.dirent(b"lost+found", &SlowCrc), 4650005046689332853);
    assert_eq!(old.xattr(0, b"name", &SlowCrc), 8250529277959145956);
    assert_eq!(old.xattr(4, b"selinux.long", &SlowCrc), 2823923614206942854);
    let old = info(StrHashType::SIPHASH_OLD, "acd5c9e0ec2685d0");
    assert_eq!(old.dirent(b"", &SlowCrc), 6927336707662541211);
    assert_eq!(
        old.dirent(b"0123456789abcdef", &SlowCrc),
        8267410039691329039
    );
}

#[test]
fn unknown_types_have_no_hash() {
    assert!(StrHashInfo::from_parts(StrHashType(4), 0).is_none());
}
