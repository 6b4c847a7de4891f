// SPDX-License-Identifier: GPL-2.0
//! The command line. Options of a device come before it, and hold for those after it, too, until they are given anew; only
//! `--fs_size` is for one device.

use std::ffi::OsString;
use std::path::PathBuf;

use bcachefs_format::keys::data_type::DataType;
use bcachefs_format::magic::Uuid;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::options::OPTIONS;
use crate::request::{DeviceRequest, OptionRequest, Request};
use crate::size;
use crate::Result;

/// Bytes each superblock may grow to, unless something else is asked for.
const SUPERBLOCK_SIZE: &str = "1M";

const DEVICE_OPTIONS: &str = "Device specific options";
const OUTPUT: &str = "Other";

/// Sets both numbers of replicas.
const REPLICAS: &str = "replicas";

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::SetTrue)
}

fn value(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(what).help(help)
}

/// An option that may be given again before each device.
fn device_value(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    value(name, what, help)
        .action(ArgAction::Append)
        .help_heading(DEVICE_OPTIONS)
}

fn on_or_off(arg: Arg) -> Arg {
    arg.num_args(0..=1)
        .require_equals(true)
        .default_missing_value("1")
        .value_name("0|1")
}

/// The command line's definition.
pub fn command() -> Command {
    let mut command = Command::new("mkfs.bcachefs")
        .about("Makes a bcachefs filesystem on one or more devices or image files")
        .after_help("Device specific options must come before the devices they are for:\n    mkfs.bcachefs --label=ssd.a --discard /dev/sdb --label=hdd.a --discard=0 /dev/sdc")
        .version(env!("CARGO_PKG_VERSION"))
        .args_override_self(true)
        .next_help_heading("Filesystem options");
    for def in OPTIONS {
        let arg = Arg::new(def.name).long(def.name).help(def.help);
        command = command.arg(match def.value {
            "" => on_or_off(arg),
            what => arg.value_name(what),
        });
    }
    command
        .arg(value(REPLICAS, "#", "Sets both data and metadata replicas"))
        .arg(flag("encrypted", "Not supported"))
        .arg(flag("no_passphrase", "Not supported"))
        .arg(value("source", "PATH", "Not supported"))
        .arg(value("fs_label", "LABEL", "Label of the filesystem").short('L'))
        .arg(
            value(
                "uuid",
                "UUID",
                "UUID of the filesystem; default: a random one",
            )
            .short('U'),
        )
        .arg(
            value(
                "superblock_size",
                "SIZE",
                "Space for each copy of the superblock",
            )
            .default_value(SUPERBLOCK_SIZE),
        )
        .arg(
            device_value(
                "label",
                "LABEL",
                "Disk label: a path of groups, parts separated by dots",
            )
            .short('l'),
        )
        .arg(device_value(
            "durability",
            "N",
            "Data on this device counts as replicated N times, 0 to 2",
        ))
        .arg(on_or_off(device_value(
            "discard",
            "",
            "Enable discard/TRIM support",
        )))
        .arg(device_value("bucket_size", "SIZE", "Size of a bucket").visible_alias("bucket"))
        .arg(device_value(
            "data_allowed",
            "TYPES",
            "Allowed data types: journal, btree, user; commas in between",
        ))
        .arg(device_value(
            "fs_size",
            "SIZE",
            "Size to use of the next device; default: all of it",
        ))
        .next_help_heading(OUTPUT)
        .arg(flag("force", "Overwrite what the devices hold").short('f'))
        .arg(flag("quiet", "Only print errors").short('q'))
        .arg(flag("verbose", "As without --quiet").short('v'))
        .arg(
            Arg::new("devices")
                .value_name("DEVICE")
                .required(true)
                .num_args(1)
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf)),
        )
}

/// Reads a command line, the program's name included. `Err` is for clap to print, which is where help comes from, too.
pub fn parse<I>(args: I) -> std::result::Result<Result<Request>, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    Ok(request(&command().try_get_matches_from(args)?))
}

fn request(matches: &ArgMatches) -> Result<Request> {
    for (name, what) in [
        ("encrypted", "encryption is not supported"),
        ("no_passphrase", "encryption is not supported"),
    ] {
        if matches.get_flag(name) {
            return Err(format!("--{name}: {what}"));
        }
    }
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    if text("source").is_some() {
        return Err(
            "--source: filling a new filesystem is not supported; mount it and copy".into(),
        );
    }
    let mut options = OptionRequest::default();
    // The single numbers win over the common one.
    for name in ["metadata_replicas", "data_replicas"] {
        if let Some(both) = text(REPLICAS) {
            set(&mut options, name, both).map_err(|e| format!("--{REPLICAS}: {e}"))?;
        }
    }
    for def in OPTIONS {
        if let Some(value) = text(def.name) {
            (def.set)(&mut options, value).map_err(|e| format!("--{}: {e}", def.name))?;
        }
    }
    Ok(Request {
        devices: devices(matches)?,
        options,
        uuid: text("uuid").map(uuid).transpose()?,
        fs_label: text("fs_label").unwrap_or("").into(),
        superblock_size: size::parse(text("superblock_size").unwrap_or(SUPERBLOCK_SIZE))?,
        force: matches.get_flag("force"),
        quiet: matches.get_flag("quiet") && !matches.get_flag("verbose"),
    })
}

fn set(options: &mut OptionRequest, name: &str, value: &str) -> Result<()> {
    match OPTIONS.iter().find(|def| def.name == name) {
        Some(def) => (def.set)(options, value),
        None => Err("no such option".into()),
    }
}

/// Goes through options of devices and devices in the order they were given.
fn devices(matches: &ArgMatches) -> Result<Vec<DeviceRequest>> {
    const NAMES: [&str; 6] = [
        "label",
        "durability",
        "discard",
        "bucket_size",
        "data_allowed",
        "fs_size",
    ];
    let mut given: Vec<(usize, &str, &str)> = Vec::new();
    for name in NAMES {
        let at = matches.indices_of(name).into_iter().flatten();
        let values = matches.get_many::<String>(name).into_iter().flatten();
        given.extend(at.zip(values).map(|(at, v)| (at, name, v.as_str())));
    }
    given.sort_unstable_by_key(|g| g.0);
    let mut given = given.into_iter().peekable();

    let at = matches.indices_of("devices").into_iter().flatten();
    let paths = matches.get_many::<PathBuf>("devices").into_iter().flatten();
    let mut current = DeviceRequest::new(PathBuf::new());
    let mut devices = Vec::new();
    for (at, path) in at.zip(paths) {
        while let Some((_, name, value)) = given.next_if(|g| g.0 < at) {
            device_option(&mut current, name, value).map_err(|e| format!("--{name}: {e}"))?;
        }
        current.path.clone_from(path);
        devices.push(current.clone());
        current.fs_size = None;
    }
    match given.next() {
        Some((_, name, value)) => Err(format!("--{name}={value} comes after the last device")),
        None => Ok(devices),
    }
}

fn device_option(device: &mut DeviceRequest, name: &str, value: &str) -> Result<()> {
    match name {
        "label" => device.label = Some(value.into()),
        "durability" => {
            device.durability = match value.parse() {
                Ok(n @ 0..=2) => n,
                _ => return Err(format!("{value:?} is not 0, 1 or 2")),
            }
        }
        "discard" => {
            device.discard = match value {
                "1" => true,
                "0" => false,
                _ => return Err(format!("{value:?} is neither 0 nor 1")),
            }
        }
        "bucket_size" => device.bucket_size = Some(size::parse(value)?),
        "data_allowed" => device.data_allowed = data_allowed(value)?,
        "fs_size" => device.fs_size = Some(size::parse(value)?),
        _ => return Err("no such option".into()),
    }
    Ok(())
}

fn data_allowed(text: &str) -> Result<u8> {
    let mut allowed = 0;
    for name in text.split(',') {
        let data_type = match name {
            "journal" => DataType::JOURNAL,
            "btree" => DataType::BTREE,
            "user" => DataType::USER,
            _ => return Err(format!("{name:?} is none of journal, btree, user")),
        };
        allowed |= 1 << data_type.0;
    }
    Ok(allowed)
}

/// A UUID in text form, with dashes or without.
fn uuid(text: &str) -> Result<Uuid> {
    let wrong = || format!("--uuid: {text:?} is not a UUID");
    let places = [8, 13, 18, 23];
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    if !dashes.is_empty() && dashes != places {
        return Err(wrong());
    }
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let number = u128::from_str_radix(&digits, 16).map_err(|_| wrong())?;
    match Uuid(number.to_be_bytes()) {
        nil if nil.is_nil() => Err(format!("--uuid: {text} stands for no UUID")),
        uuid => Ok(uuid),
    }
}
