//! Which devices the processes of a cgroup may make, read and write.
//!
//! The rules are `linux.resources.devices` of the OCI spec, in order, and then those for the
//! devices that every container has. For each kind of access the last rule that matches decides;
//! where none matches, it is refused. With v1 the kernel keeps the rules, in the devices
//! controller; with v2 a small BPF program on the cgroup decides.

mod bpf;

use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Cgroup;
use super::error::{Error, Result};
use super::files;

/// Access to a device, as bits with the values BPF has for them.
pub(super) const MAKE: u32 = 1;
pub(super) const READ: u32 = 2;
pub(super) const WRITE: u32 = 4;
const ALL: u32 = MAKE | READ | WRITE;

/// What kind of device a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block,
    Character,
}

/// One rule; `None` matches all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

impl Rule {
    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u32) -> Self {
        Self {
            allow: true,
            kind: Some(kind),
            major,
            minor,
            access,
        }
    }

    fn of(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match rule.typ().unwrap_or_default() {
            // As in the kernel's v1 controller, "a" is every access to every device.
            LinuxDeviceType::A => {
                let allow = rule.allow();
                return Ok(Self {
                    allow,
                    kind: None,
                    major: None,
                    minor: None,
                    access: ALL,
                });
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
            LinuxDeviceType::P => {
                return Err(invalid("a FIFO is no device: expected the type a, b or c"));
            }
        };
        Ok(Self {
            allow: rule.allow(),
            kind: Some(kind),
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access: access(rule.access().as_deref().unwrap_or_default())?,
        })
    }

    /// A line for `devices.allow` or `devices.deny`; see devices.rst of cgroup-v1.
    fn line(&self) -> String {
        let Some(kind) = self.kind else {
            return "a".to_owned();
        };
        let kind = match kind {
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |it| it.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
        let access: String = letters
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, it)| it)
            .collect();
        format!(
            "{kind} {}:{} {access}",
            number(self.major),
            number(self.minor)
        )
    }
}

fn invalid(what: &str) -> Error {
    Error::Invalid(format!("resources.devices: {what}"))
}

/// Absent and -1 are both "any".
fn number(number: Option<i64>) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(&format!("{number} is no device number"))),
        },
    }
}

fn access(letters: &str) -> Result<u32> {
    let bits = letters.chars().try_fold(0, |bits, letter| match letter {
        'm' => Some(bits | MAKE),
        'r' => Some(bits | READ),
        'w' => Some(bits | WRITE),
        _ => None,
    });
    bits.filter(|bits| *bits != 0).ok_or_else(|| {
        invalid(&format!(
            "{letters:?} is no access: expected some of the letters r, w and m"
        ))
    })
}

/// What every container may do, as with runc: use the default devices (config-linux.md), its
/// terminals and console, and make any device, as a file that it may not open is of no use to it.
const EVERYONE: [Rule; 11] = {
    use Kind::{Block, Character};
    const fn device(major: u32, minor: u32) -> Rule {
        Rule::allow(Character, Some(major), Some(minor), ALL)
    }
    [
        Rule::allow(Character, None, None, MAKE),
        Rule::allow(Block, None, None, MAKE),
        device(1, 3),                                 // null
        device(1, 5),                                 // zero
        device(1, 7),                                 // full
        device(1, 8),                                 // random
        device(1, 9),                                 // urandom
        device(5, 0),                                 // tty
        device(5, 1),                                 // console
        device(5, 2),                                 // ptmx
        Rule::allow(Character, Some(136), None, ALL), // pts/*
    ]
};

fn rules(given: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = given.iter().map(Rule::of).collect::<Result<Vec<_>>>()?;
    rules.extend(EVERYONE);
    Ok(rules)
}

/// Sets the rules of a cgroup; on v1 of one that was just made, as lifting a rule that is there
/// takes another.
///
/// # Errors
/// A rule that makes no sense; no devices controller (v1) or no BPF for cgroups (v2); or what the
/// kernel says.
pub fn attach(cgroup: &Cgroup, devices: &[LinuxDeviceCgroup]) -> Result<()> {
    let rules = rules(devices)?;
    match cgroup.unified() {
        Some(hierarchy) => attach_v2(&hierarchy.dir, &rules),
        None => attach_v1(&cgroup.controller("devices")?.dir, &rules),
    }
}

/// Both translations of a spec's rules.
#[cfg(fuzzing)]
pub(super) fn translate(devices: &[LinuxDeviceCgroup]) {
    if let Ok(rules) = rules(devices) {
        let _ = bpf::program(&rules);
        for rule in &rules {
            let _ = rule.line();
        }
    }
}

fn attach_v1(dir: &Path, rules: &[Rule]) -> Result<()> {
    // A new cgroup starts with what the one above it has: ours starts with nothing. Should a
    // first rule allow everything, this is undone before any process is here.
    files::write(&dir.join("devices.deny"), "a")?;
    for rule in rules {
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        files::write(&dir.join(file), &rule.line())?;
    }
    Ok(())
}

fn attach_v2(dir: &Path, rules: &[Rule]) -> Result<()> {
    let Some(program) = bpf::program(rules) else {
        return Ok(());
    };
    let opened = std::fs::File::open(dir).map_err(Error::file("open", dir))?;
    let program = bpf::load(&program).map_err(|error| {
        Error::Unsupported(format!(
            "cannot load the BPF program with the device rules of {}: {error}. It needs \
             CAP_SYS_ADMIN or CAP_BPF with CAP_NET_ADMIN, and a kernel with CONFIG_CGROUP_BPF",
            dir.display()
        ))
    })?;
    bpf::attach(&program, opened.as_fd()).map_err(Error::file(
        "attach a BPF program with the device rules to",
        dir,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rule> {
        Rule::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_rule_is_a_line_of_v1() {
        let line = |json| rule(json).unwrap().line();
        let null = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"mrw"}"#;
        assert_eq!(line(null), "c 1:3 rwm");
        assert_eq!(
            line(r#"{"allow":true,"type":"b","major":-1,"access":"r"}"#),
            "b *:* r"
        );
        assert_eq!(line(r#"{"allow":false,"access":"r"}"#), "a");
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for bad in [
            r#"{"allow":true,"type":"c","access":""}"#,
            r#"{"allow":true,"type":"c","access":"x"}"#,
            r#"{"allow":true,"type":"p","access":"r"}"#,
            r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#,
        ] {
            assert!(matches!(rule(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
