// SPDX-License-Identifier: GPL-2.0
//! Which of the journal entries found count.
//!
//! The newest entry that was written with a flush, and whose checksum is right, says from which entry
//! on replay is needed and is itself the last one to be replayed. What is newer was never promised to
//! anybody: those sequence numbers go on the blacklist. Pure functions, no I/O.

/// What is known of one sequence number, all copies taken together.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    /// Sequence number.
    pub(super) seq: u64,
    /// The oldest one still needed when this entry was written. Meaningless without `flush`.
    pub(super) last_seq: u64,
    /// The entry was written with a flush.
    pub(super) flush: bool,
    /// A copy with the right checksum exists.
    pub(super) good: bool,
}

/// How far past the newest entry seen sequence numbers may have been used by nodes already written.
pub(super) const SEQ_SLACK: u64 = 8;

/// How far the number of a torn entry can be above the newest good one; beyond that it is garbage.
const TORN_AHEAD_MAX: u64 = 64;

/// The choice.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// First entry to replay.
    pub(super) first: u64,
    /// Last entry to replay: the newest good flush entry.
    pub(super) last: u64,
    /// Newest entry seen, whether it counts or not, as far as the number is believable.
    pub(super) newest: u64,
    /// Flush entries newer than `last` with a bad checksum. One can be the write that a crash cut off;
    /// more cannot.
    pub(super) bad: u32,
}

impl Range {
    /// The sequence number the journal would go on with.
    pub(super) fn next_seq(&self) -> u64 {
        self.newest.saturating_add(1 + SEQ_SLACK)
    }

    /// The numbers to blacklist, half open.
    pub(super) fn dropped(&self) -> (u64, u64) {
        (self.last.saturating_add(1), self.next_seq())
    }

    /// Whether `seq` is to be replayed.
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.first <= seq && seq <= self.last
    }
}

/// Chooses the range from candidates in ascending order of sequence numbers, one for each number.
/// `None` if no flush entry is good.
pub(super) fn choose(candidates: &[Candidate]) -> Option<Range> {
    let good = candidates.iter().rev().find(|c| c.good)?.seq;
    let believable = |c: &&Candidate| c.good || c.seq <= good.saturating_add(TORN_AHEAD_MAX);
    let newest = candidates.iter().rev().find(believable)?.seq;
    let mut bad = 0;
    for c in candidates.iter().rev().filter(|c| c.flush) {
        if !c.good {
            bad += 1;
            continue;
        }
        let first = if c.last_seq > c.seq { c.seq } else { c.last_seq };
        return Some(Range {
            first,
            last: c.seq,
            newest,
            bad,
        });
    }
    None
}

/// Calls `report(first, last)` for every run of numbers within the range of which no good entry exists and
/// that `blacklisted` does not excuse. `blacklisted` returns the half-open range a number is in, else the next one.
///
/// Takes no longer for a large gap than for a small one: a damaged or forged entry can claim a huge range.
pub(super) fn missing(
    range: &Range,
    candidates: &[Candidate],
    blacklisted: impl Fn(u64) -> Option<(u64, u64)>,
    mut report: impl FnMut(u64, u64),
) {
    let mut want = range.first;
    // The gap before `to`, less the blacklisted parts. Every turn moves `want` forward.
    let mut gap = |want: &mut u64, to: u64| {
        while *want < to {
            match blacklisted(*want) {
                Some((start, end)) if start < to => {
                    if start > *want {
                        report(*want, start - 1);
                    }
                    *want = end.max(want.saturating_add(1));
                }
                _ => {
                    report(*want, to - 1);
                    *want = to;
                }
            }
        }
    };
    for c in candidates
        .iter()
        .filter(|c| range.contains(c.seq) && c.good)
    {
        gap(&mut want, c.seq);
        want = want.max(c.seq.saturating_add(1));
    }
    gap(&mut want, range.last.saturating_add(1));
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_range)]
mod tests {
    use super::*;

    fn flush(seq: u64, last_seq: u64) -> Candidate {
        Candidate {
            seq,
            last_seq,
            flush: true,
            good: true,
        }
    }

    fn no_flush(seq: u64) -> Candidate {
        Candidate {
            seq,
            last_seq: 0,
            flush: false,
            good: true,
        }
    }

    fn torn(c: Candidate) -> Candidate {
        Candidate { good: false, ..c }
    }

    #[test]
    fn newest_flush_wins() {
        let found = [flush(35, 35), flush(43, 35), no_flush(44), no_flush(47)];
        let r = choose(&found).unwrap();
        assert_eq!((r.first, r.last, r.newest, r.bad), (35, 43, 47, 0));
        assert_eq!(r.dropped(), (44, 56));
        assert_eq!(r.next_seq(), 56);
    }

    #[test]
    fn torn_write_is_skipped_but_counts_as_seen() {
        let r = choose(&[flush(9, 9), flush(10, 9), torn(flush(11, 10))]).unwrap();
        assert_eq!((r.first, r.last, r.newest, r.bad), (9, 10, 11, 1));
    }

    #[test]
    fn absurd_number_of_a_damaged_entry_is_not_believed() {
        let found = [flush(9, 9), no_flush(10), torn(no_flush(12)), torn(flush(u64::MAX, 1))];
        let r = choose(&found).unwrap();
        assert_eq!((r.first, r.last, r.newest, r.next_seq()), (9, 9, 12, 21));
    }

    #[test]
    fn nothing_to_start_from() {
        assert!(choose(&[]).is_none());
        assert!(choose(&[no_flush(3), torn(flush(4, 3))]).is_none());
    }

    #[test]
    fn impossible_last_seq() {
        let r = choose(&[flush(5, 6)]).unwrap();
        assert_eq!((r.first, r.last), (5, 5));
    }

    #[test]
    fn gaps() {
        let found = [flush(10, 10), torn(flush(12, 10)), flush(15, 10), no_flush(17)];
        let r = choose(&found).unwrap();
        let mut n = 0;
        let mut sum = 0;
        missing(&r, &found, |s| (s <= 13).then_some((13, 14)), |a, b| {
            n += 1;
            sum += a * 1000 + b;
        });
        // 11 and 12 (its only copy is bad); 13 is excused; 14.
        assert_eq!((n, sum), (2, 11_012 + 14_014));
    }

    #[test]
    fn absurd_gap_ends() {
        let found = [flush(u64::MAX, 1)];
        let r = choose(&found).unwrap();
        let mut n = 0;
        missing(&r, &found, |_| None, |_, _| n += 1);
        assert_eq!(n, 1);
    }
}
