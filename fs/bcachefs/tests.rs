// SPDX-License-Identifier: GPL-2.0
//! Tests and measurements inside a mounted filesystem, for development: a line written to `perf_test` in sysfs runs one.
//!
//! | command | what |
//! |---|---|
//! | `NAME COUNT [THREADS]` | a measurement ([`perf`]), or a check ([`checks`]) with so many keys |
//! | `model_test OPS [THREADS [SEED]]` | random operations against a model in memory ([`model`]) |
//! | `crash_run FIRST COUNT [THREADS]`, `crash_check LEAST [THREADS]` | numbered commits, and whether a prefix of them is there ([`crash`]) |
//! | `snapshots_make`, `snapshots_remove` | a tree of snapshots for `model_test`, seen after the next mount ([`tree`]) |
//! | `clear` | takes away what the above have left |
//! | `help` | all names, in the kernel's log |
//!
//! COUNT may end in k, M or G (powers of 1024). Results are in the kernel's log. Keys are made in inodes whose numbers no file has; what
//! they hold is of type cookie. Whatever fails says where, and the write fails with an error.
//!
//! A filesystem that something is wrong with after this is one that nobody needs: not for use on one that somebody does.

mod checks;
mod crash;
mod keys;
mod model;
mod perf;
mod random;
mod tree;

use crate::{
    btree::Btree,
    init::Filesystem,
    util::error::{Error, Result},
};
use kernel::{prelude::*, sync::Arc};

/// Fails the test at this line unless the condition holds.
macro_rules! check {
    ($cond:expr) => {
        if !$cond {
            kernel::pr_err!("test: {}:{}: {} does not hold\n", file!(), line!(), stringify!($cond));
            return Err(crate::util::error::Error::TestFailed.into());
        }
    };
    ($cond:expr, $($arg:tt)+) => {
        if !$cond {
            kernel::pr_err!("test: {}:{}: {}\n", file!(), line!(), format_args!($($arg)+));
            return Err(crate::util::error::Error::TestFailed.into());
        }
    };
}
use check;

/// Most threads of a test.
const THREADS_MAX: u32 = 64;
/// Words of a command.
const WORDS_MAX: usize = 5;

/// Runs the command in `text`. Sleeps, for as long as that takes.
pub fn command(fs: &Arc<Filesystem>, text: &str) -> Result {
    run(&fs.btree, text)
}

/// Runs `NAME COUNT THREADS`, see [`command`].
pub fn perf_test(fs: &Arc<Filesystem>, name: &str, count: u64, threads: u32) -> Result {
    named(&fs.btree, name, count, threads)
}

fn run(btree: &Arc<Btree>, text: &str) -> Result {
    let mut words = [""; WORDS_MAX];
    let mut n = 0;
    for word in text.split_ascii_whitespace() {
        *words.get_mut(n).ok_or(Error::TestUnknown)? = word;
        n += 1;
    }
    let [name, args @ ..] = words;
    let nr = |i: usize, default: Option<u64>| match args.get(i) {
        Some(&"") | None => default.ok_or(Error::TestUnknown),
        Some(word) => number(word).ok_or(Error::TestUnknown),
    };
    let threads = |i: usize| match nr(i, Some(1)) {
        Ok(n @ 1..=64) => Ok(n as u32),
        _ => Err(Error::TestUnknown),
    };
    match name {
        "model_test" => model::run(btree, nr(0, None)?, threads(1)?, nr(2, Some(1))?),
        "crash_run" => crash::run(btree, nr(0, None)?, nr(1, None)?, threads(2)?),
        "crash_check" => crash::check_prefix(btree, nr(0, None)?, threads(1)?),
        "snapshots_make" => tree::make(btree),
        "snapshots_remove" => tree::remove(btree),
        "clear" => keys::clear(btree),
        "help" => {
            for name in Iterator::chain(perf::names(), checks::names()) {
                pr_info!("test: {name}\n");
            }
            Ok(())
        }
        _ => named(btree, name, nr(0, None)?, threads(1)?),
    }
}

fn named(btree: &Arc<Btree>, name: &str, count: u64, threads: u32) -> Result {
    if count == 0 || threads == 0 || threads > THREADS_MAX {
        return Err(Error::TestUnknown);
    }
    let result = match perf::find(name) {
        Some(body) => perf::measure(btree, name, body, count, threads),
        None => checks::run(btree, name, count),
    };
    if let Err(e) = &result {
        pr_err!("test: {name}: {}\n", e.text());
    }
    result
}

/// A number with a unit.
fn number(word: &str) -> Option<u64> {
    let (digits, shift) = match word.as_bytes().last()? {
        b'k' | b'K' => (word.get(..word.len() - 1)?, 10),
        b'm' | b'M' => (word.get(..word.len() - 1)?, 20),
        b'g' | b'G' => (word.get(..word.len() - 1)?, 30),
        _ => (word, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_tests)]
mod suite {
    use super::*;

    #[test]
    fn numbers_have_units() -> kernel::error::Result {
        for (text, n) in [
            ("0", 0),
            ("17", 17),
            ("3k", 3072),
            ("2M", 2 << 20),
            ("1g", 1 << 30),
        ] {
            assert_eq!(number(text), Some(n));
        }
        for text in [
            "",
            "k",
            "-1",
            "1x",
            "1.5k",
            "99999999999999999999",
            "17179869184G",
        ] {
            assert_eq!(number(text), None);
        }
        Ok(())
    }

    #[test]
    fn models_are_right() -> kernel::error::Result {
        model::models_are_right().map_err(|e| e.errno())
    }

    #[test]
    fn crash_states_are_right() -> kernel::error::Result {
        crash::states_are_right().map_err(|e| e.errno())
    }

    #[test]
    fn snapshots_are_valid() -> kernel::error::Result {
        tree::keys_are_valid().map_err(|e| e.errno())
    }
}
