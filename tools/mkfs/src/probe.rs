// SPDX-License-Identifier: GPL-2.0
//! What a device holds already. Whether something is a filesystem or a partition table is util-linux's knowledge: its
//! `blkid` looks, and its `wipefs` removes what makes others recognise what was there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;

/// Where the two programs are, besides wherever PATH says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `blkid` found nothing.
const BLKID_NOTHING: i32 = 2;
/// `blkid` found things that contradict each other.
const BLKID_AMBIVALENT: i32 = 8;

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:{PATH}"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// What is on `path`, in words; `None` if nothing known is.
pub fn content(path: &Path) -> Result<Option<String>> {
    let output = command("blkid")
        .args([
            "--cache-file",
            "/dev/null",
            "--probe",
            "--output",
            "export",
            "--",
        ])
        .arg(path)
        .output()
        .map_err(|e| {
            format!("cannot run blkid to see what the device holds: {e} (--force does without)")
        })?;
    match output.status.code() {
        Some(0) => Ok(Some(describe(&String::from_utf8_lossy(&output.stdout)))),
        Some(BLKID_NOTHING) => Ok(None),
        Some(BLKID_AMBIVALENT) => Ok(Some("signatures of several filesystems".into())),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("blkid failed ({}): {}", output.status, said.trim()))
        }
    }
}

/// Of blkid's list of NAME=VALUE lines.
fn describe(export: &str) -> String {
    let value = |name: &str| {
        let line = export
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.map(|v| v.replace("\\ ", " "))
    };
    let label = value("LABEL")
        .map(|l| format!(" labelled {l:?}"))
        .unwrap_or_default();
    match (value("TYPE"), value("PTTYPE")) {
        (Some(t), _) => format!("{t}{label}"),
        (None, Some(t)) => format!("a partition table ({t})"),
        (None, None) => "something that blkid knows".into(),
    }
}

/// Removes every signature from `path`. The device may be open exclusively, by this program.
pub fn wipe(path: &Path) -> Result<()> {
    let output = command("wipefs")
        .args(["--all", "--force", "--quiet", "--"])
        .arg(path)
        .output()
        .map_err(|e| format!("cannot run wipefs to remove what the device holds: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "wipefs failed ({}): {}",
                output.status,
                said.trim()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions() {
        assert_eq!(
            describe("DEVNAME=/dev/x\nUUID=1\nTYPE=ext4\nUSAGE=filesystem\n"),
            "ext4"
        );
        assert_eq!(
            describe("LABEL=my\\ data\nTYPE=xfs\n"),
            "xfs labelled \"my data\""
        );
        assert_eq!(
            describe("PTUUID=1\nPTTYPE=gpt\n"),
            "a partition table (gpt)"
        );
    }
}
