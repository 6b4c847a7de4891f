// SPDX-License-Identifier: GPL-2.0

//! Mount options: what a filesystem declares, and what it is given.
//!
//! A filesystem lists its options as [`Spec`]s. Each option a user gives is looked up there, its value is parsed,
//! and the filesystem sees a [`Parameter`] whose value has the declared type. What is not declared is refused by the VFS
//! ("Unknown parameter"), what is malformed by [`parse`].

use kernel::{prelude::*, str::CStr};

/// An option that a filesystem has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    name: &'static str,
    kind: Kind,
}

/// The type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `name`, or with [`Spec::negatable`] also `noname`.
    Flag {
        /// Whether `noname` means the opposite.
        negatable: bool,
    },
    /// `name`, `name=yes`, `name=0`, …
    Bool,
    /// `name=17`.
    U32,
    /// `name=17`, `name=64k`: with a binary unit (`k`, `M`, `G`, `T`, `P`).
    Size,
    /// `name=text`.
    Text,
    /// `name=one of these`.
    Choice(&'static [&'static str]),
    /// Any name that no other spec has, with or without a value: for filesystems with a parser of their own.
    Any,
}

impl Spec {
    /// `name`.
    pub const fn flag(name: &'static str) -> Self {
        Self { name, kind: Kind::Flag { negatable: false } }
    }

    /// `name` and `noname`.
    pub const fn negatable(name: &'static str) -> Self {
        Self { name, kind: Kind::Flag { negatable: true } }
    }

    /// `name`, `name=yes`, `name=no`.
    pub const fn bool(name: &'static str) -> Self {
        Self { name, kind: Kind::Bool }
    }

    /// `name=NUMBER`.
    pub const fn u32(name: &'static str) -> Self {
        Self { name, kind: Kind::U32 }
    }

    /// `name=SIZE`.
    pub const fn size(name: &'static str) -> Self {
        Self { name, kind: Kind::Size }
    }

    /// `name=TEXT`.
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text }
    }

    /// `name=CHOICE`.
    pub const fn choice(name: &'static str, choices: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Choice(choices) }
    }

    /// Any option at all; its value comes as [`Value::Raw`].
    pub const fn any() -> Self {
        Self { name: "", kind: Kind::Any }
    }
}

/// An option as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name, as declared (for [`Kind::Any`], as given).
    pub name: &'a str,
    /// Its value.
    pub value: Value<'a>,
}

/// The value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a flag (`false` for `noname`) or a bool.
    Bool(bool),
    /// Of a number.
    U32(u32),
    /// Of a size, in bytes.
    Size(u64),
    /// Of a text, not empty.
    Text(&'a str),
    /// Of a choice: the index in the declared list.
    Choice(usize),
    /// As given.
    Raw(Option<&'a str>),
}

/// Why an option was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No spec has this name.
    Unknown,
    /// The spec of this name takes another kind of value.
    Malformed(&'static Spec),
}

impl kernel::fmt::Display for Spec {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        match self.kind {
            Kind::Flag { .. } => f.write_str("takes no value"),
            Kind::Bool => f.write_str("takes yes or no"),
            Kind::U32 => f.write_str("takes a number"),
            Kind::Size => f.write_str("takes a size"),
            Kind::Text => f.write_str("takes a text"),
            Kind::Any => f.write_str("takes something else"),
            Kind::Choice(choices) => {
                f.write_str("takes one of")?;
                for (i, choice) in choices.iter().enumerate() {
                    f.write_str(if i == 0 { " " } else { ", " })?;
                    f.write_str(choice)?;
                }
                Ok(())
            }
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "yes" | "true" | "on" => Some(true),
        "0" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().split_last()? {
        (b'k' | b'K', digits) => (digits.len(), 10),
        (b'm' | b'M', digits) => (digits.len(), 20),
        (b'g' | b'G', digits) => (digits.len(), 30),
        (b't' | b'T', digits) => (digits.len(), 40),
        (b'p' | b'P', digits) => (digits.len(), 50),
        _ => (text.len(), 0),
    };
    parse_number(text.get(..digits)?)?.checked_mul(1 << shift)
}

/// Decimal, or hexadecimal after `0x`; no sign.
fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn value<'a>(kind: Kind, text: Option<&'a str>) -> Option<Value<'a>> {
    match (kind, text) {
        (Kind::Any, _) => Some(Value::Raw(text)),
        (Kind::Flag { .. } | Kind::Bool, None) => Some(Value::Bool(true)),
        (Kind::Flag { .. }, Some(_)) => None,
        (Kind::Bool, Some(text)) => parse_bool(text).map(Value::Bool),
        (Kind::U32, Some(text)) => Some(Value::U32(parse_number(text)?.try_into().ok()?)),
        (Kind::Size, Some(text)) => parse_size(text).map(Value::Size),
        (Kind::Text, Some(text)) if !text.is_empty() => Some(Value::Text(text)),
        (Kind::Choice(choices), Some(text)) => {
            choices.iter().position(|choice| *choice == text).map(Value::Choice)
        }
        (Kind::U32 | Kind::Size | Kind::Text | Kind::Choice(_), _) => None,
    }
}

/// Finds the spec of an option and parses its value.
pub fn parse<'a>(
    specs: &'static [Spec],
    name: &'a str,
    text: Option<&'a str>,
) -> Result<Parameter<'a>, Refusal> {
    if let Some(spec) = specs.iter().find(|s| s.name == name && s.kind != Kind::Any) {
        let value = value(spec.kind, text).ok_or(Refusal::Malformed(spec))?;
        return Ok(Parameter { name: spec.name, value });
    }
    let negated = name.strip_prefix("no").and_then(|name| {
        specs.iter().find(|s| s.name == name && s.kind == Kind::Flag { negatable: true })
    });
    if let Some(spec) = negated {
        return match text {
            None => Ok(Parameter { name: spec.name, value: Value::Bool(false) }),
            Some(_) => Err(Refusal::Malformed(spec)),
        };
    }
    if specs.iter().any(|s| s.kind == Kind::Any) {
        return Ok(Parameter { name, value: Value::Raw(text) });
    }
    Err(Refusal::Unknown)
}

/// The text of an option's name or value, if it is UTF-8.
pub(super) fn text(raw: &CStr) -> Result<&str> {
    raw.to_str().map_err(|_| EINVAL)
}

#[kernel::macros::kunit_tests(kfs_vfs_parameters)]
mod tests {
    use super::*;

    const SPECS: &[Spec] = &[
        Spec::flag("degraded"),
        Spec::negatable("fsck"),
        Spec::bool("verbose"),
        Spec::u32("depth"),
        Spec::size("bucket"),
        Spec::text("label"),
        Spec::choice("errors", &["continue", "ro", "panic"]),
    ];

    fn ok(name: &'static str, text: Option<&'static str>) -> Option<Value<'static>> {
        parse(SPECS, name, text).ok().map(|p| p.value)
    }

    #[test]
    fn values_have_the_declared_type() {
        assert!(ok("degraded", None) == Some(Value::Bool(true)));
        assert!(ok("fsck", None) == Some(Value::Bool(true)));
        assert!(ok("nofsck", None) == Some(Value::Bool(false)));
        assert!(ok("verbose", None) == Some(Value::Bool(true)));
        assert!(ok("verbose", Some("no")) == Some(Value::Bool(false)));
        assert!(ok("depth", Some("17")) == Some(Value::U32(17)));
        assert!(ok("depth", Some("0x11")) == Some(Value::U32(17)));
        assert!(ok("bucket", Some("512k")) == Some(Value::Size(512 << 10)));
        assert!(ok("bucket", Some("3")) == Some(Value::Size(3)));
        assert!(ok("label", Some("x")) == Some(Value::Text("x")));
        assert!(ok("errors", Some("panic")) == Some(Value::Choice(2)));
    }

    #[test]
    fn malformed_values_are_refused() {
        for (name, text) in [
            ("degraded", Some("1")),
            ("nofsck", Some("1")),
            ("verbose", Some("maybe")),
            ("depth", None),
            ("depth", Some("-1")),
            ("depth", Some("4294967296")),
            ("bucket", Some("k")),
            ("bucket", Some("18446744073709551615k")),
            ("label", Some("")),
            ("errors", Some("pani")),
            ("errors", None),
        ] {
            assert!(matches!(parse(SPECS, name, text), Err(Refusal::Malformed(_))));
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        static ANY: [Spec; 1] = [Spec::any()];
        assert!(parse(SPECS, "nodegraded", None) == Err(Refusal::Unknown));
        assert!(parse(SPECS, "", None) == Err(Refusal::Unknown));
        assert!(parse(&ANY, "x", Some("y")).map(|p| p.value) == Ok(Value::Raw(Some("y"))));
    }
}
