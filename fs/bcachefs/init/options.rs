// SPDX-License-Identifier: GPL-2.0
//! Mount options.
//!
//! One table lists every option by the name users know from other implementations of the format. An
//! option that would change what a read-only mount does works; one that would not is accepted when its
//! value asks for nothing (`fsck=0`) and is otherwise refused with the reason. Unknown names are refused.
//!
//! Booleans are written `name`, `noname`, or `name=VALUE` with 0/1, no/yes, false/true, off/on.

use core::fmt;

use crate::{
    sb::policy::{Degraded, ErrorAction, Policy},
    util::{
        error::{Error, Result},
        log::Log,
    },
};

/// Mount options in effect.
#[derive(Copy, Clone, Default, Debug)]
pub struct Options {
    /// Which devices to accept.
    pub policy: Policy,
    /// Report more while mounting.
    pub verbose: bool,
    /// What to do about damaged metadata; the superblock's choice if `None`.
    pub errors: Option<ErrorAction>,
    /// POSIX ACLs off, whatever the superblock says.
    pub noacl: bool,
    /// Stop before journal replay. A read-only mount never replays.
    pub norecovery: bool,
    /// Write nothing. A read-only mount never does.
    pub nochanges: bool,
}

/// What a value looks like.
#[derive(Copy, Clone)]
enum Kind {
    Bool,
    Uint,
    Choice(&'static [&'static str]),
    Text,
}

/// A value that has been parsed.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Uint(u64),
    Choice(usize),
    Text,
}

/// What an option does to a read-only mount.
#[derive(Copy, Clone)]
enum Effect {
    /// It is taken into account.
    Set(fn(&mut Options, Value)),
    /// Nothing can follow from it: accepted with any valid value.
    None,
    /// Only the value that asks for nothing (off, or 0) is accepted; the text says what is missing.
    Unbuilt(&'static str),
}

struct Spec {
    name: &'static str,
    kind: Kind,
    effect: Effect,
}

const fn option(name: &'static str, kind: Kind, effect: Effect) -> Spec {
    Spec { name, kind, effect }
}

const WRITING: Effect = Effect::Unbuilt("it concerns writing, which is not supported yet");
const FSCK: Effect = Effect::Unbuilt("checking and repair are not supported yet");
const CHECKSUMS: Kind = Kind::Choice(&["none", "crc32c", "crc64", "xxhash"]);

fn is_on(value: Value) -> bool {
    value == Value::Bool(true)
}

#[rustfmt::skip]
static OPTIONS: &[Spec] = &[
    option("degraded", Kind::Bool, Effect::Set(|o, v| {
        o.policy.degraded = if is_on(v) { o.policy.degraded.max(Degraded::Yes) } else { Degraded::No };
    })),
    option("very_degraded", Kind::Bool, Effect::Set(|o, v| {
        o.policy.degraded = if is_on(v) { Degraded::Very } else { o.policy.degraded.min(Degraded::Yes) };
    })),
    option("no_splitbrain_check", Kind::Bool, Effect::Set(|o, v| o.policy.no_splitbrain_check = is_on(v))),
    option("verbose", Kind::Bool, Effect::Set(|o, v| o.verbose = is_on(v))),
    option("errors", Kind::Choice(ErrorAction::NAMES), Effect::Set(|o, v| {
        if let Value::Choice(i) = v {
            o.errors = ErrorAction::from_index(i as u64);
        }
    })),
    option("acl", Kind::Bool, Effect::Set(|o, v| o.noacl = !is_on(v))),
    option("norecovery", Kind::Bool, Effect::Set(|o, v| o.norecovery = is_on(v))),
    option("nochanges", Kind::Bool, Effect::Set(|o, v| o.nochanges = is_on(v))),
    option("sb", Kind::Uint, Effect::Set(|o, v| {
        if let Value::Uint(sector) = v {
            o.policy.sector = Some(sector);
        }
    })),

    // Without consequence for a read-only mount.
    option("read_only", Kind::Bool, Effect::None),
    option("ratelimit_errors", Kind::Bool, Effect::None),
    option("inline_data", Kind::Bool, Effect::None),
    option("shard_inode_numbers", Kind::Bool, Effect::None),
    option("inodes_use_key_cache", Kind::Bool, Effect::None),
    option("btree_node_mem_ptr_optimization", Kind::Bool, Effect::None),
    option("version_upgrade", Kind::Choice(&["compatible", "incompatible", "none"]), Effect::None),
    option("fsck_memory_usage_percent", Kind::Uint, Effect::None),

    // Checking and repair.
    option("fsck", Kind::Bool, FSCK),
    option("fix_errors", Kind::Choice(&["exit", "yes", "no", "ask"]), FSCK),
    option("reconstruct_alloc", Kind::Bool, FSCK),
    option("recovery_pass_last", Kind::Text, FSCK),
    option("read_entire_journal", Kind::Bool, FSCK),
    option("retain_recovery_info", Kind::Bool, FSCK),

    // Writing.
    option("metadata_replicas", Kind::Uint, WRITING),
    option("data_replicas", Kind::Uint, WRITING),
    option("replicas", Kind::Uint, WRITING),
    option("metadata_replicas_required", Kind::Uint, WRITING),
    option("data_replicas_required", Kind::Uint, WRITING),
    option("encoded_extent_max", Kind::Uint, WRITING),
    option("metadata_checksum", CHECKSUMS, WRITING),
    option("data_checksum", CHECKSUMS, WRITING),
    option("compression", Kind::Text, WRITING),
    option("background_compression", Kind::Text, WRITING),
    option("str_hash", Kind::Choice(&["crc32c", "crc64", "siphash"]), WRITING),
    option("metadata_target", Kind::Text, WRITING),
    option("foreground_target", Kind::Text, WRITING),
    option("background_target", Kind::Text, WRITING),
    option("promote_target", Kind::Text, WRITING),
    option("erasure_code", Kind::Bool, WRITING),
    option("inodes_32bit", Kind::Bool, WRITING),
    option("gc_reserve_percent", Kind::Uint, WRITING),
    option("gc_reserve_bytes", Kind::Uint, WRITING),
    option("root_reserve_percent", Kind::Uint, WRITING),
    option("wide_macs", Kind::Bool, WRITING),
    option("promote_whole_extents", Kind::Bool, WRITING),
    option("usrquota", Kind::Bool, WRITING),
    option("grpquota", Kind::Bool, WRITING),
    option("prjquota", Kind::Bool, WRITING),
    option("discard", Kind::Bool, WRITING),
    option("journal_flush_delay", Kind::Uint, WRITING),
    option("journal_flush_disabled", Kind::Bool, WRITING),
    option("journal_reclaim_delay", Kind::Uint, WRITING),
    option("journal_transaction_names", Kind::Bool, WRITING),
    option("move_bytes_in_flight", Kind::Uint, WRITING),
    option("move_ios_in_flight", Kind::Uint, WRITING),
    option("allocator_stuck_timeout", Kind::Uint, WRITING),
    option("nocow", Kind::Bool, WRITING),
    option("copygc_enabled", Kind::Bool, WRITING),
    option("rebalance_enabled", Kind::Bool, WRITING),
    option("no_data_io", Kind::Bool, WRITING),
];

impl Options {
    /// Applies one option as given to mount(2). Errors are also explained in `log`.
    ///
    /// # Errors
    ///
    /// [`Error::OptionUnknown`], [`Error::OptionValue`], [`Error::OptionUnsupported`].
    pub fn parse(&mut self, name: &str, value: Option<&str>, log: &dyn Log) -> Result {
        let find = |name: &str| OPTIONS.iter().find(|s| s.name == name);
        let negated = name
            .strip_prefix("no")
            .and_then(find)
            .filter(|s| matches!(s.kind, Kind::Bool) && value.is_none());
        let (spec, parsed) = match (find(name), negated) {
            (Some(spec), _) => (spec, spec.parse(value)),
            (None, Some(spec)) => (spec, Some(Value::Bool(false))),
            (None, None) => {
                log.error(format_args!("unknown mount option '{name}'"));
                return Err(Error::OptionUnknown);
            }
        };
        let Some(parsed) = parsed else {
            log.error(format_args!(
                "mount option '{name}': invalid value '{}', want {}",
                value.unwrap_or(""),
                spec.kind
            ));
            return Err(Error::OptionValue);
        };
        match spec.effect {
            Effect::Set(set) => set(self, parsed),
            Effect::None => {}
            Effect::Unbuilt(_) if parsed == Value::Bool(false) => {}
            Effect::Unbuilt(why) => {
                log.error(format_args!(
                    "mount option '{}' is not available: {why}",
                    spec.name
                ));
                return Err(Error::OptionUnsupported);
            }
        }
        Ok(())
    }
}

impl Spec {
    fn parse(&self, value: Option<&str>) -> Option<Value> {
        Some(match self.kind {
            Kind::Bool => Value::Bool(match value {
                None | Some("1" | "yes" | "true" | "on") => true,
                Some("0" | "no" | "false" | "off") => false,
                Some(_) => return None,
            }),
            Kind::Uint => Value::Uint(parse_size(value?)?),
            Kind::Choice(names) => Value::Choice(names.iter().position(|n| Some(*n) == value)?),
            Kind::Text => value.map(|_| Value::Text)?,
        })
    }
}

/// A number with an optional binary unit: `4096`, `0x1000`, `4k`.
fn parse_size(s: &str) -> Option<u64> {
    let (digits, shift) = match s.as_bytes().last()? {
        b'k' | b'K' => (s.get(..s.len() - 1)?, 10),
        b'm' | b'M' => (s.get(..s.len() - 1)?, 20),
        b'g' | b'G' => (s.get(..s.len() - 1)?, 30),
        _ => (s, 0),
    };
    let n = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse::<u64>().ok()?,
    };
    n.checked_mul(1 << shift)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("yes or no"),
            Kind::Uint => f.write_str("a number"),
            Kind::Text => f.write_str("a name"),
            Kind::Choice(names) => {
                f.write_str("one of")?;
                names.iter().try_for_each(|n| write!(f, " {n}"))
            }
        }
    }
}

/// As in `/proc/mounts`: every option that was given, with a comma in front.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy.degraded {
            Degraded::No => {}
            Degraded::Yes => f.write_str(",degraded")?,
            Degraded::Very => f.write_str(",very_degraded")?,
        }
        for (on, name) in [
            (self.policy.no_splitbrain_check, ",no_splitbrain_check"),
            (self.verbose, ",verbose"),
            (self.noacl, ",noacl"),
            (self.norecovery, ",norecovery"),
            (self.nochanges, ",nochanges"),
        ] {
            if on {
                f.write_str(name)?;
            }
        }
        if let Some(errors) = self.errors {
            write!(f, ",errors={errors}")?;
        }
        if let Some(sector) = self.policy.sector {
            write!(f, ",sb={sector}")?;
        }
        Ok(())
    }
}
