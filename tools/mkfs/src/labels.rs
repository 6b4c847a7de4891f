// SPDX-License-Identifier: GPL-2.0
//! Labels of devices, which are paths in a tree of disk groups, and targets, which name a device or a group.

use bcachefs_format::sb::disk_groups::DiskGroup;
use bcachefs_format::sb::options::Target;

use crate::Result;

/// Kinds of data that a new group takes: all.
const DATA_ALLOWED: u8 = 0x1f;
/// A member stores its group's index plus one in eight bits.
const GROUPS_MAX: usize = 255;
/// Bytes of one part of a path.
const LABEL_MAX: usize = 32;

/// The groups, in the order in which they were made.
#[derive(Clone, Default, Debug)]
pub struct Groups(Vec<DiskGroup>);

impl Groups {
    /// All of them; the index is the group's number.
    pub fn entries(&self) -> &[DiskGroup] {
        &self.0
    }

    fn child(&self, parent: Option<usize>, label: &str) -> Option<usize> {
        let is = |g: &DiskGroup| g.parent() == parent && g.label() == label.as_bytes();
        self.0.iter().position(is)
    }

    /// The group at `path`.
    pub fn find(&self, path: &str) -> Option<usize> {
        let mut at = None;
        for label in path.split('.') {
            at = Some(self.child(at, label)?);
        }
        at
    }

    /// The group at `path`, made with all above it where it is not there.
    pub fn find_or_add(&mut self, path: &str) -> Result<u8> {
        let mut at: Option<usize> = None;
        for label in path.split('.') {
            if label.is_empty() || label.len() > LABEL_MAX || label.contains('\0') {
                let what = "is not a label: parts of 1 to 32 bytes, dots in between";
                return Err(format!("{path:?} {what}"));
            }
            at = Some(match self.child(at, label) {
                Some(group) => group,
                None => {
                    if self.0.len() == GROUPS_MAX {
                        return Err("too many labels".into());
                    }
                    let parent = at.map(|p| p as u32);
                    self.0
                        .push(DiskGroup::new(label.as_bytes(), parent, DATA_ALLOWED));
                    self.0.len() - 1
                }
            });
        }
        // Below GROUPS_MAX.
        at.map(|g| g as u8).ok_or_else(|| "empty label".into())
    }

    /// The target called `name`: a device, if one of `devices` is called so, else a label.
    pub fn target(&self, name: &str, devices: &[&str]) -> Result<Target> {
        const FIRST_DEV: usize = 1;
        const FIRST_GROUP: usize = 257;
        let dev = devices
            .iter()
            .position(|d| *d == name)
            .map(|dev| dev + FIRST_DEV);
        let group = || self.find(name).map(|group| group + FIRST_GROUP);
        match dev.or_else(group) {
            Some(target) => Ok(Target(target as u16)),
            None => Err(format!(
                "target {name:?} is neither a device of this filesystem nor a label of one"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcachefs_format::sb::options::TargetKind;

    #[test]
    fn paths() {
        let mut groups = Groups::default();
        assert_eq!(groups.find_or_add("ssd.a"), Ok(1));
        assert_eq!(groups.find_or_add("ssd.b"), Ok(2));
        assert_eq!(groups.find_or_add("ssd"), Ok(0));
        assert_eq!(groups.find_or_add("a.ssd"), Ok(4));
        assert_eq!(groups.find("ssd.b"), Some(2));
        assert_eq!(groups.find("b"), None);
        assert_eq!(groups.entries()[1].parent(), Some(0));
        assert_eq!(groups.entries()[4].parent(), Some(3));
        for bad in ["", ".", "a.", ".a", "a..b", &"x".repeat(33)] {
            assert!(groups.find_or_add(bad).is_err(), "{bad}");
        }
        assert!(groups.find_or_add(&"x".repeat(32)).is_ok());
    }

    #[test]
    fn no_more_than_a_member_can_name() {
        let mut groups = Groups::default();
        for n in 0..255 {
            assert_eq!(groups.find_or_add(&format!("g{n}")), Ok(n));
        }
        assert!(groups.find_or_add("one-more").is_err());
    }

    #[test]
    fn targets() {
        let mut groups = Groups::default();
        groups.find_or_add("hdd.x").unwrap();
        let devices = ["/dev/a", "/dev/b", "hdd"];
        let kind = |name| groups.target(name, &devices).map(Target::kind);
        assert_eq!(kind("/dev/b"), Ok(TargetKind::Dev(1)));
        assert_eq!(kind("hdd.x"), Ok(TargetKind::Group(1)));
        assert_eq!(kind("hdd"), Ok(TargetKind::Dev(2)));
        assert!(kind("x").is_err());
        assert!(kind("hdd.x.y").is_err());
    }
}
