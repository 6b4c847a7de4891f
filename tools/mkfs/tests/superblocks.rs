// SPDX-License-Identifier: GPL-2.0
//! Command lines become superblocks, and what the format crate reads from them is what was asked for.

use bcachefs_format::checksum::CsumOpt;
use bcachefs_format::features::Features;
use bcachefs_format::magic::Uuid;
use bcachefs_format::sb::options::{ErrorAction, StrHashOpt, TargetKind};
use bcachefs_format::sb::MemberState;
use bcachefs_format::super_block::SbLimits;
use bcachefs_format::version::Version;
use bcachefs_format::SuperBlock;
use mkfs_bcachefs::checksum::SbChecksummer;
use mkfs_bcachefs::plan::{DeviceSize, Environment, Plan};
use mkfs_bcachefs::{cli, image, Result};

/// Numbers in place of random ones.
struct Counted(u8);

impl Environment for Counted {
    fn uuid(&mut self) -> Result<Uuid> {
        self.0 += 1;
        Ok(Uuid([self.0; 16]))
    }

    fn now(&self) -> u64 {
        1_700_000_000_123_456_789
    }
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

fn file(bytes: u64) -> DeviceSize {
    DeviceSize {
        bytes,
        physical_block: 4096,
        logical_block: 512,
        grows: true,
    }
}

fn disk(bytes: u64, physical_block: u64, logical_block: u64) -> DeviceSize {
    DeviceSize {
        bytes,
        physical_block,
        logical_block,
        grows: false,
    }
}

fn plan(line: &str, sizes: &[DeviceSize]) -> Result<Plan> {
    let words = std::iter::once("mkfs.bcachefs").chain(line.split_whitespace());
    let request = cli::parse(words).map_err(|e| e.to_string())??;
    assert_eq!(request.devices.len(), sizes.len(), "{line}");
    Plan::make(&request, sizes, &mut Counted(0))
}

fn refused(line: &str, sizes: &[DeviceSize], because: &str) {
    match plan(line, sizes) {
        Ok(_) => panic!("accepted: {line}"),
        Err(e) => assert!(e.contains(because), "{line}: {e}"),
    }
}

/// Every copy on every device of `plan`, as words.
fn copies(plan: &Plan) -> Vec<Vec<Vec<u64>>> {
    let images = (0..plan.devices.len()).map(|dev| image::make(plan, dev).unwrap());
    images
        .map(|i| i.copies.into_iter().map(|c| c.1).collect())
        .collect()
}

/// Reads `words` as a superblock, which must be valid.
fn read(words: &[u64]) -> SuperBlock<'_> {
    let limits = SbLimits {
        logical_block_bytes: 512,
        block_bytes_max: 4096,
    };
    let sb = SuperBlock::open(words, &SbChecksummer).unwrap();
    sb.validate(&limits).unwrap().into_inner()
}

#[test]
fn defaults() {
    let plan = plan("a.img", &[file(256 * M)]).unwrap();
    let copies = copies(&plan);
    assert_eq!(copies[0].len(), 3);
    let sb = read(&copies[0][0]);
    let h = sb.header();
    // The flag words that Debian's tool wrote for such a file, but for the checksum of the superblock itself.
    let mut flags = h.flags();
    assert_eq!(flags.csum_type(), 1);
    flags.set_csum_type(0);
    let expected = [
        0x8111_1100_8010_0100,
        0x0111_c102,
        0,
        0xfa_3000_0000,
        0x1_0000_0064,
        0x001e_0000,
        0,
    ];
    assert_eq!(flags.0, expected);
    assert_eq!(sb.features(), Features(0x7ba80));
    assert_eq!(sb.compat().0, 0);
    assert_eq!(
        (sb.version(), sb.version_min()),
        (Version::CURRENT, Version::CURRENT)
    );
    assert_eq!((h.seq.get(), h.write_time.get()), (0, 0));
    assert_eq!(h.time_base_lo.get(), 1_700_000_000_123_456_789);
    assert_eq!(h.time_precision.get(), 1);
    assert!(!sb.is_clean());
    assert_eq!(sb.flags().initialized(), 0);
    assert!(sb.label().is_empty());
    assert_eq!(h.block_size.get(), 8);
    assert_eq!(h.layout.copies().collect::<Vec<_>>(), [8, 2056, 522240]);
    let m = sb.this_member().unwrap();
    assert_eq!(
        (m.nbuckets.get(), m.bucket_size.get(), m.first_bucket.get()),
        (2048, 256, 0)
    );
    assert_eq!(m.flags.get(), 0x200e_0000);
    assert_eq!(
        (m.state(), m.durability(), m.discard()),
        (MemberState::RW, 1, false)
    );
    assert!(!m.freespace_initialized());
    assert_eq!(m.group(), None);
    assert_ne!(h.uuid, h.user_uuid);
    assert_ne!(h.uuid, m.uuid);
    assert_eq!(sb.journal_buckets().nr(), 0);
    assert!(sb.ext().is_some());
}

#[test]
fn copies_differ_in_place_and_checksum_only() {
    let plan = plan(
        "--metadata_checksum=xxhash a b",
        &[file(64 * M), file(128 * M)],
    )
    .unwrap();
    for (dev, copies) in copies(&plan).iter().enumerate() {
        let offsets: Vec<u64> = copies
            .iter()
            .map(|c| read(c).header().offset.get())
            .collect();
        assert_eq!(
            offsets,
            plan.devices[dev].layout.copies().collect::<Vec<_>>()
        );
        for copy in copies {
            let sb = read(copy);
            assert_eq!(usize::from(sb.header().dev_idx), dev);
            assert_eq!(sb.header().layout, plan.devices[dev].layout);
            assert_eq!(sb.flags().csum_type(), 7);
            // Sum and position.
            assert_eq!(copy[2..13], copies[0][2..13]);
            assert_eq!(copy[14..], copies[0][14..]);
        }
    }
}

#[test]
fn every_option() {
    let line = "--block_size=1k --btree_node_size=64k --errors=ro --metadata_replicas=2 --data_replicas=3 \
        --metadata_replicas_required=2 --data_replicas_required=1 --encoded_extent_max=128k \
        --metadata_checksum=crc64 --data_checksum=none --compression=zstd:15 --background_compression=gzip \
        --str_hash=crc64 --metadata_target=fast --foreground_target=/d/b --background_target=slow.x \
        --promote_target=fast.y --erasure_code --inodes_32bit=0 --shard_inode_numbers=0 \
        --inodes_use_key_cache=0 --gc_reserve_percent=12 --gc_reserve_bytes=10M --root_reserve_percent=3 \
        --wide_macs --acl=0 --usrquota --grpquota=1 --prjquota --journal_transaction_names=0 \
        --allocator_stuck_timeout=77 --nocow --uuid=01234567-89ab-cdef-0123-456789abcdef -L name \
        --superblock_size=64k \
        --label=slow.x --bucket=256k --data_allowed=user,journal --fs_size=80M /d/a \
        --label=fast.y --discard --durability=2 --data_allowed=btree /d/b \
        --discard=0 --durability=0 --bucket_size=64k /d/c";
    let sizes = [file(100 * M), disk(G, 4096, 512), disk(3 * G, 512, 512)];
    let plan = plan(line, &sizes).unwrap();
    let copies = copies(&plan);
    for (dev, copies) in copies.iter().enumerate() {
        let sb = read(&copies[2]);
        assert_eq!(
            sb.header().user_uuid.to_string(),
            "01234567-89ab-cdef-0123-456789abcdef"
        );
        assert_eq!(sb.label(), b"name");
        assert_eq!(sb.header().nr_devices, 3);
        assert_eq!(sb.header().layout.sb_max_size_bits, 7);
        let o = sb.options().unwrap();
        assert_eq!((o.block_size, o.btree_node_size), (2, 128));
        assert_eq!(o.errors, ErrorAction::RO);
        assert_eq!((o.metadata_replicas, o.data_replicas), (2, 3));
        assert_eq!(
            (o.metadata_replicas_required, o.data_replicas_required),
            (2, 1)
        );
        assert_eq!(o.encoded_extent_max, 256);
        assert_eq!(
            (o.metadata_checksum, o.data_checksum),
            (CsumOpt::CRC64, CsumOpt::NONE)
        );
        assert_eq!((o.compression.0, o.background_compression.0), (0xf3, 0x02));
        assert_eq!(o.str_hash, StrHashOpt::CRC64);
        assert_eq!(o.metadata_target.kind(), TargetKind::Group(2));
        assert_eq!(o.foreground_target.kind(), TargetKind::Dev(1));
        assert_eq!(o.background_target.kind(), TargetKind::Group(1));
        assert_eq!(o.promote_target.kind(), TargetKind::Group(3));
        assert!(o.erasure_code && o.wide_macs && o.usrquota && o.grpquota && o.prjquota && o.nocow);
        assert!(!o.inodes_32bit && !o.shard_inode_numbers && !o.inodes_use_key_cache && !o.acl);
        assert!(!o.journal_transaction_names && o.promote_whole_extents);
        assert_eq!((o.gc_reserve_percent, o.root_reserve_percent), (12, 3));
        assert_eq!(o.gc_reserve_bytes, 10 * M);
        assert_eq!(o.allocator_stuck_timeout, 77);
        assert_eq!(
            (o.journal_flush_delay, o.journal_reclaim_delay),
            (1000, 100)
        );
        let members: Vec<_> = sb.members().iter().map(|m| m.1).collect();
        let have: Vec<_> = members
            .iter()
            .map(|m| {
                (
                    m.bucket_size.get(),
                    m.nbuckets.get(),
                    m.discard(),
                    m.durability(),
                    m.data_allowed(),
                    m.group(),
                )
            })
            .collect();
        assert_eq!(
            have,
            [
                (512, 320, false, 1, 0b10100, Some(1)),
                (512, 4096, true, 2, 0b01000, Some(3)),
                (128, 49152, false, 0, 0b01000, Some(3)),
            ]
        );
        assert_eq!(sb.disk_groups().path(1).to_string(), "slow.x");
        assert_eq!(sb.disk_groups().path(3).to_string(), "fast.y");
        assert_eq!(sb.this_member().unwrap(), members[dev]);
    }
}

#[test]
fn replicas_and_their_parts() {
    let options = |line| {
        let plan = plan(line, &[file(G)]).unwrap();
        (
            plan.flags.meta_replicas_want(),
            plan.flags.data_replicas_want(),
        )
    };
    assert_eq!(options("--replicas=2 a"), (2, 2));
    assert_eq!(options("--replicas=2 --data_replicas=3 a"), (2, 3));
    assert_eq!(options("--metadata_replicas=1 --replicas=2 a"), (1, 2));
}

#[test]
fn block_sizes_follow_the_devices() {
    let block = |line, sizes: &[DeviceSize]| plan(line, sizes).map(|p| p.block_size);
    assert_eq!(block("a", &[disk(G, 512, 512)]), Ok(512));
    assert_eq!(
        block("a b", &[disk(G, 512, 512), disk(G, 4096, 512)]),
        Ok(4096)
    );
    assert_eq!(block("a", &[disk(G, 128 * K, 512)]), Ok(4096));
    assert_eq!(block("--block_size=1k a", &[disk(G, 4096, 512)]), Ok(1024));
    refused(
        "--block_size=1k a",
        &[disk(G, 4096, 4096)],
        "below a device's",
    );
    refused("--block_size=8k a", &[disk(G, 512, 512)], "power of two");
    refused(
        "--block_size=4k --btree_node_size=2k a",
        &[disk(G, 512, 512)],
        "below the block size",
    );
}

#[test]
fn one_bucket_size_for_all_unless_told() {
    let sectors = |line, sizes: &[DeviceSize]| -> Vec<u16> {
        plan(line, sizes)
            .unwrap()
            .devices
            .iter()
            .map(|d| d.bucket_size)
            .collect()
    };
    let sizes = [file(4 * G), file(2 * G), file(600 * G)];
    assert_eq!(sectors("a b c", &sizes), [512, 512, 512]);
    assert_eq!(sectors("a b", &[file(4 * G), file(100 * M)]), [256, 256]);
    assert_eq!(
        sectors("--bucket=1M a --bucket=512k b", &sizes[..2]),
        [2048, 1024]
    );
    assert_eq!(sectors("--bucket=1M a b", &sizes[..2]), [2048, 2048]);
    assert_eq!(
        sectors("--btree_node_size=512k a b", &[file(4 * G), file(100 * M)]),
        [1024, 1024]
    );
    refused("--fs_size=2G a", &[disk(G, 512, 512)], "were asked for");
    assert!(plan("--fs_size=2G a", &[file(G)]).is_ok());
    // For one device only.
    let plan = plan("--fs_size=500M a b", &[file(G), file(3 * G)]).unwrap();
    assert_eq!(
        (plan.devices[0].nbuckets, plan.devices[1].nbuckets),
        (4000, 24576)
    );
}

#[test]
fn what_is_refused() {
    let one = [file(G)];
    for (line, because) in [
        ("--encrypted a", "encryption is not supported"),
        ("--no_passphrase a", "encryption is not supported"),
        ("--source=/etc a", "not supported"),
        (
            "--bucket=64k --btree_node_size=128k a",
            "below the btree node size",
        ),
        ("--bucket=32M a", "too large"),
        ("--foreground_target=nope a", "neither a device"),
        ("--label=a..b a", "is not a label"),
        ("--label=a a --discard", "after the last device"),
        ("--durability=3 a", "not 0, 1 or 2"),
        ("--data_allowed=foo a", "none of journal"),
        ("--replicas=4 a", "--replicas:"),
        ("--replicas=0 a", "--replicas:"),
        ("--gc_reserve_percent=21 a", "from 5 to 20"),
        ("--compression=zstd:16 a", "level"),
        ("--compression=none:1 a", "without compression"),
        ("--compression=foo a", "none of none, lz4"),
        ("--metadata_checksum=crc32 a", "none of none, crc32c"),
        ("--encoded_extent_max=2M a", "power of two"),
        ("--btree_node_size=100k a", "power of two"),
        ("--btree_node_size=1M a", "power of two"),
        ("--errors=foo a", "none of continue"),
        ("--acl=yes a", "neither 0 nor 1"),
        ("--superblock_size=64M a", "above"),
        ("--uuid=1234 a", "is not a UUID"),
        (
            "--uuid=00000000000000000000000000000000 a",
            "stands for no UUID",
        ),
        ("-L 123456789012345678901234567890123 a", "at most 32 fit"),
        ("--fs_size=2M a", "too small"),
        ("", "required"),
        ("--version_upgrade=none a", "unexpected argument"),
    ] {
        let sizes = if line.is_empty() { &[][..] } else { &one[..] };
        refused(line, sizes, because);
    }
}

#[test]
fn sixty_four_members_and_no_more() {
    let paths = |n: usize| {
        (0..n)
            .map(|i| format!("--label=rack.r{i} d{i} "))
            .collect::<String>()
    };
    let sizes = vec![file(G); 65];
    let plan = plan(&paths(64), &sizes[..64]).unwrap();
    for copies in copies(&plan) {
        assert_eq!(read(&copies[0]).members().iter().count(), 64);
    }
    refused(&paths(65), &sizes, "1 to 64 devices");
}
