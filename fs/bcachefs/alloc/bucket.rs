// SPDX-License-Identifier: GPL-2.0
//! What happens to the key of a bucket.
//!
//! Functions over values: how a pointer that comes or goes changes the key, what else follows from a change of the key, and where
//! the other btrees must then have the bucket.

use bcachefs_format::{
    keys::{
        alloc::{Alloc, GC_GEN_MAX, IO_TIME_MAX},
        data_type::DataType,
        extent::DecodedPtr,
        lru::{LruPos, LRU_FRAGMENTATION},
    },
    Bpos,
};

/// What became of a pointer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Marked {
    /// The bucket's counters have it (or have it no more).
    Counted,
    /// A cached pointer to what the bucket held before: it does not count anywhere.
    Stale,
    /// A pointer that goes, and that the bucket knows nothing of: the bucket stays as it is.
    Unknown,
    /// As `Counted`, but the bucket had less than was to be taken out.
    Underflow,
}

/// Why a bucket cannot have a new pointer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Its generation is newer than the bucket's.
    FromTheFuture,
    /// Its generation is so old that it could be taken for a newer one.
    TooOld,
    /// It counts, and the bucket has been reused since.
    Stale,
    /// The bucket holds another type of data.
    Conflict,
    /// The bucket's counter would overflow.
    Overflow,
}

/// Sectors on disk of a pointer, as the bucket counts them.
fn sectors(p: &DecodedPtr) -> u32 {
    u32::try_from(p.crc.disk_sectors()).unwrap_or(u32::MAX)
}

/// What a bucket holds through a pointer of a key that is `data_type`.
pub fn pointer_type(p: &DecodedPtr, data_type: DataType) -> DataType {
    match p.stripe {
        Some(_) => DataType::STRIPE,
        None => data_type,
    }
}

fn counter<'a>(a: &'a mut Alloc, p: &DecodedPtr) -> &'a mut u32 {
    match (p.stripe, p.ptr.cached()) {
        (Some(_), _) => &mut a.stripe_sectors,
        (None, true) => &mut a.cached_sectors,
        (None, false) => &mut a.dirty_sectors,
    }
}

/// Adds a pointer to what is `data_type` to the bucket it points to.
pub fn add(a: &mut Alloc, p: &DecodedPtr, data_type: DataType) -> Result<Marked, Refused> {
    let want = pointer_type(p, data_type);
    let staleness = p.ptr.staleness(a.generation);
    if staleness < 0 {
        return Err(Refused::FromTheFuture);
    }
    if staleness as u8 > GC_GEN_MAX {
        return Err(Refused::TooOld);
    }
    if staleness > 0 {
        return match p.ptr.cached() {
            true => Ok(Marked::Stale),
            false => Err(Refused::Stale),
        };
    }
    if !a.data_type.can_share(want) {
        return Err(Refused::Conflict);
    }
    let n = counter(a, p);
    *n = n.checked_add(sectors(p)).ok_or(Refused::Overflow)?;
    a.data_type = a.data_type_if(want);
    Ok(Marked::Counted)
}

/// Takes a pointer to what is `data_type` out of the bucket it points to. What is wrong with it is not made worse.
pub fn remove(a: &mut Alloc, p: &DecodedPtr, data_type: DataType) -> Marked {
    if p.ptr.generation() != a.generation {
        return match p.ptr.cached() {
            true => Marked::Stale,
            false => Marked::Unknown,
        };
    }
    let n = counter(a, p);
    let left = n.checked_sub(sectors(p));
    *n = left.unwrap_or(0);
    a.data_type = a.data_type_if(pointer_type(p, data_type));
    match left {
        Some(_) => Marked::Counted,
        None => Marked::Underflow,
    }
}

fn total_sectors(a: &Alloc) -> u64 {
    u64::from(a.dirty_sectors) + u64::from(a.cached_sectors) + u64::from(a.stripe_sectors)
}

/// Completes a change of a bucket from `old` to `new`: times, flags, type, and the generation when it has become empty and is not
/// held open. `now` is what the clocks of reading and writing say.
pub fn settle(old: &Alloc, new: &mut Alloc, now: [u64; 2], open: bool) {
    let now = now.map(|t| t.clamp(1, IO_TIME_MAX));
    new.data_type = new.data_type_if(new.data_type);
    if total_sectors(new) > total_sectors(old) {
        new.io_time = now;
        new.need_inc_gen = true;
        new.need_discard = true;
    }
    if new.data_type.is_empty() && new.need_inc_gen && !open {
        new.generation = new.generation.wrapping_add(1);
        new.need_inc_gen = false;
        new.data_type = new.data_type_if(new.data_type);
    }
    let [read, _] = &mut new.io_time;
    if new.data_type == DataType::CACHED && *read == 0 {
        let [now, _] = now;
        *read = now;
    }
}

/// The entry of `journal_seq` for a bucket whose change from `old` to `new` is in entry `seq`. Only when a bucket becomes empty or
/// ceases to be is there a new one; `noflush` is asked whether no entry from the first to the second number will be a flush entry.
pub fn journal_seq(
    old: &Alloc,
    new: &Alloc,
    seq: u64,
    noflush: impl FnOnce(u64, u64) -> bool,
) -> u64 {
    if old.data_type.is_empty() == new.data_type.is_empty() {
        return new.journal_seq;
    }
    // What was never to be seen on disk needs not be waited for.
    let unseen = new.journal_seq == seq
        || (new.journal_seq != 0 && new.journal_seq < seq && noflush(new.journal_seq, seq));
    match new.data_type.is_empty() && unseen {
        true => 0,
        false => seq,
    }
}

/// Where a bucket is listed because of its type.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Nowhere.
    Not,
    /// In the freespace btree, as the sector-sized range at this offset.
    Free(u64),
    /// In the need_discard btree.
    NeedDiscard,
}

/// Where `bucket` is listed.
pub fn listed(a: &Alloc, bucket: u64) -> Listed {
    match a.data_type {
        DataType::FREE => Listed::Free(a.freespace_offset(bucket)),
        DataType::NEED_DISCARD => Listed::NeedDiscard,
        _ => Listed::Not,
    }
}

/// The time of a cached bucket in the list of its device; 0 if it is not in it.
pub fn read_time(a: &Alloc) -> u64 {
    match (a.data_type, a.io_time) {
        (DataType::CACHED, [read, _]) => read & IO_TIME_MAX,
        _ => 0,
    }
}

/// The time of a bucket in the list by fragmentation; 0 if it is not in it.
pub fn fragmentation_time(a: &Alloc, bucket_sectors: u32) -> u64 {
    let movable = matches!(a.data_type, DataType::BTREE | DataType::USER | DataType::STRIPE);
    if !movable || a.fragmented_sectors(bucket_sectors) == 0 {
        return 0;
    }
    let bucket_sectors = u64::from(bucket_sectors.max(1));
    (a.used_sectors().min(bucket_sectors) << 31) / bucket_sectors
}

/// The entries of a bucket in the lru btree: in the list of its device, and in that by fragmentation.
pub fn lru_entries(a: &Alloc, pos: Bpos, bucket_sectors: u32) -> [Option<Bpos>; 2] {
    let dev = pos.inode as u16;
    let entry = |list, time| {
        let entry = LruPos { list, time, dev, bucket: pos.offset };
        (time != 0).then_some(entry.to_pos())
    };
    [
        entry(dev, read_time(a)),
        entry(LRU_FRAGMENTATION, fragmentation_time(a, bucket_sectors)),
    ]
}

/// Sectors of a bucket of a stripe that the stripe does not cover.
fn unstriped(a: &Alloc) -> i64 {
    match a.data_type {
        DataType::STRIPE => i64::from(a.dirty_sectors),
        _ => 0,
    }
}

/// Calls `emit` with what a change of a bucket adds to the counters of its device: type, and buckets, sectors, fragmented sectors.
pub fn device_counters<E>(
    old: &Alloc,
    new: &Alloc,
    bucket_sectors: u32,
    mut emit: impl FnMut(DataType, [i64; 3]) -> Result<(), E>,
) -> Result<(), E> {
    let of = |a: &Alloc| (a.used_sectors() as i64, a.fragmented_sectors(bucket_sectors) as i64);
    let ((old_used, old_frag), (used, frag)) = (of(old), of(new));
    if old.data_type != new.data_type {
        emit(new.data_type, [1, used, frag])?;
        emit(old.data_type, [-1, -old_used, -old_frag])?;
    } else if old_used != used {
        emit(new.data_type, [0, used - old_used, frag - old_frag])?;
    }
    let (old_un, un) = (unstriped(old), unstriped(new));
    if old_un != un {
        let buckets = i64::from(un != 0) - i64::from(old_un != 0);
        emit(DataType::UNSTRIPED, [buckets, un - old_un, 0])?;
    }
    Ok(())
}

#[kernel::macros::kunit_tests(bcachefs_alloc_bucket)]
mod tests {
    use super::*;
    use bcachefs_format::keys::{
        compression::CompressionType,
        extent::{Crc, Ptr, StripePtr},
    };

    const USER: Alloc = Alloc {
        data_type: DataType::USER,
        dirty_sectors: 8,
        need_discard: true,
        need_inc_gen: true,
        generation: 3,
        oldest_gen: 3,
        io_time: [5, 5],
        journal_seq: 10,
        ..FREE
    };
    const FREE: Alloc = Alloc {
        journal_seq: 0,
        need_discard: false,
        need_inc_gen: false,
        generation: 0,
        oldest_gen: 0,
        data_type: DataType::FREE,
        stripe_redundancy: 0,
        dirty_sectors: 0,
        cached_sectors: 0,
        stripe_sectors: 0,
        io_time: [0, 0],
        stripe: 0,
        nr_external_backpointers: 0,
        fragmentation_lru: 0,
    };

    fn ptr(generation: u8, cached: bool, sectors: u32) -> DecodedPtr {
        DecodedPtr {
            ptr: Ptr::new(0, 1024, generation).with_cached(cached),
            crc: Crc::none(sectors),
            stripe: None,
            at: 0,
        }
    }

    #[test]
    fn pointers_come_and_go() {
        let mut a = FREE;
        assert_eq!(add(&mut a, &ptr(0, false, 8), DataType::USER), Ok(Marked::Counted));
        assert_eq!((a.data_type, a.dirty_sectors), (DataType::USER, 8));
        assert_eq!(add(&mut a, &ptr(0, true, 16), DataType::USER), Ok(Marked::Counted));
        assert_eq!((a.data_type, a.cached_sectors), (DataType::USER, 16));
        assert_eq!(remove(&mut a, &ptr(0, false, 8), DataType::USER), Marked::Counted);
        assert_eq!(a.data_type, DataType::CACHED);
        assert_eq!(remove(&mut a, &ptr(0, true, 16), DataType::USER), Marked::Counted);
        assert_eq!(a, FREE);
        assert_eq!(remove(&mut a, &ptr(0, false, 8), DataType::USER), Marked::Underflow);
        assert_eq!(a, FREE);
    }

    #[test]
    fn compressed_pointers_count_their_share() {
        let mut p = ptr(3, false, 100);
        p.crc.compression = CompressionType::LZ4;
        p.crc.uncompressed_size = 128;
        p.crc.compressed_size = 24;
        let mut a = USER;
        assert_eq!(add(&mut a, &p, DataType::USER), Ok(Marked::Counted));
        // 100 * 24 / 128, rounded up.
        assert_eq!(a.dirty_sectors, 8 + 19);
    }

    #[test]
    fn generations_decide() {
        let table: [(u8, u8, bool, Result<Marked, Refused>); 8] = [
            (3, 3, false, Ok(Marked::Counted)),
            (4, 3, false, Err(Refused::FromTheFuture)),
            (4, 3, true, Err(Refused::FromTheFuture)),
            (2, 3, false, Err(Refused::Stale)),
            (2, 3, true, Ok(Marked::Stale)),
            (250, 3, true, Ok(Marked::Stale)),
            (3, 99, true, Ok(Marked::Stale)),
            (3, 100, true, Err(Refused::TooOld)),
        ];
        for (ptr_gen, bucket_gen, cached, want) in table {
            let mut a = Alloc { generation: bucket_gen, ..USER };
            assert_eq!(add(&mut a, &ptr(ptr_gen, cached, 1), DataType::USER), want);
            if want != Ok(Marked::Counted) {
                assert_eq!(a, Alloc { generation: bucket_gen, ..USER });
            }
        }
        let mut a = USER;
        assert_eq!(remove(&mut a, &ptr(2, false, 8), DataType::USER), Marked::Unknown);
        assert_eq!(remove(&mut a, &ptr(2, true, 8), DataType::USER), Marked::Stale);
        assert_eq!(a, USER);
    }

    #[test]
    fn types_do_not_mix() {
        let mut a = USER;
        assert_eq!(add(&mut a, &ptr(3, false, 8), DataType::BTREE), Err(Refused::Conflict));
        let mut cached = Alloc { data_type: DataType::CACHED, dirty_sectors: 0, cached_sectors: 8, ..USER };
        assert_eq!(add(&mut cached, &ptr(3, false, 8), DataType::USER), Ok(Marked::Counted));
        assert_eq!(cached.data_type, DataType::USER);
        let mut full = Alloc { dirty_sectors: u32::MAX, ..USER };
        assert_eq!(add(&mut full, &ptr(3, false, 8), DataType::USER), Err(Refused::Overflow));
        let mut striped = ptr(3, false, 8);
        striped.stripe = Some(StripePtr::new(1, 0, 1));
        let mut a = Alloc { data_type: DataType::STRIPE, stripe: 1, dirty_sectors: 0, ..USER };
        assert_eq!(add(&mut a, &striped, DataType::USER), Ok(Marked::Counted));
        assert_eq!((a.stripe_sectors, a.dirty_sectors), (8, 0));
        assert_eq!(a.data_type, DataType::STRIPE);
    }

    #[test]
    fn a_bucket_that_gains_sectors_is_touched() {
        let mut new = Alloc { data_type: DataType::USER, dirty_sectors: 8, ..FREE };
        settle(&FREE, &mut new, [0, 77], false);
        let want = Alloc {
            data_type: DataType::USER,
            dirty_sectors: 8,
            io_time: [1, 77],
            need_discard: true,
            need_inc_gen: true,
            ..FREE
        };
        assert_eq!(new, want);
        // Losing some is not: nor is it being read.
        let mut less = Alloc { dirty_sectors: 4, ..want };
        settle(&want, &mut less, [9, 99], false);
        assert_eq!(less, Alloc { dirty_sectors: 4, ..want });
    }

    #[test]
    fn an_emptied_bucket_gets_a_new_generation() {
        let emptied = Alloc { dirty_sectors: 0, data_type: DataType::USER, ..USER };
        let mut new = emptied;
        settle(&USER, &mut new, [9, 9], false);
        let want = Alloc {
            data_type: DataType::NEED_DISCARD,
            generation: 4,
            need_inc_gen: false,
            ..emptied
        };
        assert_eq!(new, want);
        // Not while the allocator holds it open; the discard makes up for it.
        let mut held = emptied;
        settle(&USER, &mut held, [9, 9], true);
        assert_eq!(held, Alloc { data_type: DataType::NEED_DISCARD, ..emptied });
        let mut discarded = Alloc { need_discard: false, ..held };
        settle(&held, &mut discarded, [9, 9], false);
        assert_eq!((discarded.data_type, discarded.generation), (DataType::FREE, 4));
        // Far ahead of the oldest pointer it is not free yet.
        let mut ahead = Alloc { need_discard: false, generation: 98, ..emptied };
        settle(&USER, &mut ahead, [9, 9], false);
        assert_eq!((ahead.data_type, ahead.generation), (DataType::NEED_GC_GENS, 99));
    }

    #[test]
    fn journal_seq_is_that_of_the_last_turn() {
        let emptied = Alloc { dirty_sectors: 0, data_type: DataType::NEED_DISCARD, ..USER };
        let never = |_, _| -> bool { false };
        assert_eq!(journal_seq(&FREE, &Alloc { journal_seq: 3, ..USER }, 20, never), 20);
        assert_eq!(journal_seq(&USER, &Alloc { dirty_sectors: 9, ..USER }, 20, never), 10);
        assert_eq!(journal_seq(&USER, &emptied, 20, never), 20);
        assert_eq!(journal_seq(&USER, &emptied, 10, never), 0);
        let promised = |from, to| from == 10 && to == 20;
        assert_eq!(journal_seq(&USER, &emptied, 20, promised), 0);
        // Not known when it was filled: it may have been seen.
        assert_eq!(journal_seq(&USER, &Alloc { journal_seq: 0, ..emptied }, 20, |_, _| true), 20);
    }

    #[test]
    fn lists() {
        assert_eq!(listed(&FREE, 7), Listed::Free(7));
        let old = Alloc { generation: 33, ..FREE };
        assert_eq!(listed(&old, 7), Listed::Free(2 << 56 | 7));
        assert_eq!(listed(&USER, 7), Listed::Not);
        let discard = Alloc { data_type: DataType::NEED_DISCARD, ..FREE };
        assert_eq!(listed(&discard, 7), Listed::NeedDiscard);

        let pos = Bpos::new(0, 43);
        // An entry as the C module wrote it.
        let user = Alloc { dirty_sectors: 24, ..USER };
        let want = Bpos::new(18446462598934167552, 43);
        assert_eq!(lru_entries(&user, pos, 256), [None, Some(want)]);
        assert_eq!(lru_entries(&Alloc { dirty_sectors: 256, ..USER }, pos, 256), [None, None]);
        let journal = Alloc { data_type: DataType::JOURNAL, ..user };
        assert_eq!(lru_entries(&journal, pos, 256), [None, None]);
        let cached = Alloc {
            data_type: DataType::CACHED,
            cached_sectors: 4,
            dirty_sectors: 0,
            ..USER
        };
        let pos = Bpos::new(2, 43);
        let want = Bpos::new(2 << 48 | 5, 2 << 48 | 43);
        assert_eq!(lru_entries(&cached, pos, 256), [Some(want), None]);
    }

    #[test]
    fn counters_of_the_device() {
        let deltas = |old: &Alloc, new: &Alloc| {
            let mut sum = [[0i64; 3]; 11];
            let _ = device_counters(old, new, 256, |t, d| {
                for (to, from) in sum[usize::from(t.0)].iter_mut().zip(d) {
                    *to += from;
                }
                Ok::<(), ()>(())
            });
            sum
        };
        let mut want = [[0i64; 3]; 11];
        assert_eq!(deltas(&USER, &USER), want);
        want[4] = [1, 8, 248];
        want[0] = [-1, 0, 0];
        assert_eq!(deltas(&FREE, &USER), want);
        let more = Alloc { dirty_sectors: 20, ..USER };
        let mut want = [[0i64; 3]; 11];
        want[4] = [0, 12, -12];
        assert_eq!(deltas(&USER, &more), want);
        let striped = Alloc { data_type: DataType::STRIPE, stripe: 1, stripe_sectors: 5, ..USER };
        let mut want = [[0i64; 3]; 11];
        want[4] = [-1, -8, -248];
        want[7] = [1, 13, 243];
        want[10] = [1, 8, 0];
        assert_eq!(deltas(&USER, &striped), want);
    }
}
