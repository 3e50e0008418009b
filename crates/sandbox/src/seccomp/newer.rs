//! Calls that are newer than a profile.
//!
//! A profile that lists what is allowed knows nothing of calls that came after it; its default answer,
//! EPERM, would tell programs, glibc among them, that they may not do what they then do not try in
//! an older way. As with runc, whatever has a number above all that the profile names is answered as
//! a kernel does that lacks it: ENOSYS. The few instructions for this come before the program that
//! libseccomp makes, which has no word for it.
use std::collections::BTreeMap;

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};
use oci_spec::runtime::LinuxSeccomp;

// The parts of linux/bpf_common.h that are needed.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_IF_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
// Where `struct seccomp_data` has them.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// SECCOMP_RET_ERRNO with ENOSYS.
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | 38;
/// Calls of x32 have this bit, and the architecture of x86-64.
const X32: u32 = 1 << 30;
/// Of s390: a number that the kernel does not know arrives as this one.
const S390_ANY: u32 = 0;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// The instructions to put before a profile's program; none where its default lets calls pass, or
/// answers ENOSYS anyway.
pub(super) fn answers(profile: &LinuxSeccomp, default: ScmpAction) -> Vec<Instruction> {
    let passes = matches!(
        default,
        ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_)
    );
    if passes || default == ScmpAction::Errno(libc::ENOSYS) {
        return Vec::new();
    }
    let mut sections: BTreeMap<u32, Vec<(ScmpArch, u32)>> = BTreeMap::new();
    let mut architectures: Vec<ScmpArch> = profile
        .architectures()
        .iter()
        .flatten()
        .map(|arch| super::compile::architecture(*arch))
        .map(|arch| {
            if arch == ScmpArch::Native {
                ScmpArch::native()
            } else {
                arch
            }
        })
        .collect();
    architectures.push(ScmpArch::native());
    for arch in architectures {
        let (Some(audit), Some(last)) = (audit(arch), last_named(profile, arch)) else {
            continue;
        };
        let section = sections.entry(audit).or_default();
        if !section.iter().any(|(known, _)| *known == arch) {
            section.push((arch, last));
        }
    }
    if sections.is_empty() {
        return Vec::new();
    }
    assemble(&sections)
}

fn assemble(sections: &BTreeMap<u32, Vec<(ScmpArch, u32)>>) -> Vec<Instruction> {
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    let mut to_filter = Vec::new();
    for (audit, kinds) in sections {
        let mut section = vec![plain(LOAD, NUMBER)];
        for (arch, last) in kinds {
            // Each part is left alone by what is not about it.
            let part: &[Instruction] = &match arch {
                ScmpArch::S390 | ScmpArch::S390X => vec![
                    jump(JUMP_IF_EQUAL, S390_ANY, 1, 0),
                    jump(JUMP_IF_GREATER, *last, 0, 1),
                    plain(RETURN, NO_SUCH_CALL),
                ],
                ScmpArch::X8664 => vec![
                    jump(JUMP_IF_SET, X32, 2, 0),
                    jump(JUMP_IF_GREATER, *last, 0, 1),
                    plain(RETURN, NO_SUCH_CALL),
                ],
                ScmpArch::X32 => vec![
                    jump(JUMP_IF_SET, X32, 0, 2),
                    jump(JUMP_IF_GREATER, *last, 0, 1),
                    plain(RETURN, NO_SUCH_CALL),
                ],
                _ => vec![
                    jump(JUMP_IF_GREATER, *last, 0, 1),
                    plain(RETURN, NO_SUCH_CALL),
                ],
            };
            section.extend_from_slice(part);
        }
        // At most two parts of three, with what is around them.
        let length = u8::try_from(section.len() + 1).unwrap_or(u8::MAX);
        program.push(jump(JUMP_IF_EQUAL, *audit, 0, length));
        program.extend(section);
        to_filter.push(program.len());
        program.push(plain(JUMP, 0));
    }
    let end = program.len();
    for at in to_filter {
        if let Some(instruction) = program.get_mut(at) {
            instruction.value = u32::try_from(end - at - 1).unwrap_or(0);
        }
    }
    program
}

/// The highest number that a profile names for an architecture.
fn last_named(profile: &LinuxSeccomp, arch: ScmpArch) -> Option<u32> {
    let rules = profile.syscalls().iter().flatten();
    let names = rules.flat_map(|rule| rule.names());
    names
        .filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok())
        // Those that an architecture lacks have negative ones in libseccomp.
        .filter_map(|call| u32::try_from(call.as_raw_syscall()).ok())
        .max()
}

/// `AUDIT_ARCH_*` of linux/audit.h: what the kernel calls an architecture.
fn audit(arch: ScmpArch) -> Option<u32> {
    const LITTLE: u32 = 0x4000_0000;
    const WIDE: u32 = 0x8000_0000;
    const N32: u32 = 0x2000_0000;
    // The numbers are those of ELF.
    Some(match arch {
        ScmpArch::X86 => 3 | LITTLE,
        ScmpArch::X8664 | ScmpArch::X32 => 62 | WIDE | LITTLE,
        ScmpArch::Arm => 40 | LITTLE,
        ScmpArch::Aarch64 => 183 | WIDE | LITTLE,
        ScmpArch::Mips => 8,
        ScmpArch::Mips64 => 8 | WIDE,
        ScmpArch::Mips64N32 => 8 | WIDE | N32,
        ScmpArch::Mipsel => 8 | LITTLE,
        ScmpArch::Mipsel64 => 8 | WIDE | LITTLE,
        ScmpArch::Mipsel64N32 => 8 | WIDE | LITTLE | N32,
        ScmpArch::Ppc => 20,
        ScmpArch::Ppc64 => 21 | WIDE,
        ScmpArch::Ppc64Le => 21 | WIDE | LITTLE,
        ScmpArch::S390 => 22,
        ScmpArch::S390X => 22 | WIDE,
        ScmpArch::Riscv64 => 243 | WIDE | LITTLE,
        ScmpArch::Loongarch64 => 258 | WIDE | LITTLE,
        // As with runc: what it does not know is left to libseccomp's program.
        _ => return None,
    })
}

fn plain(code: u16, value: u32) -> Instruction {
    jump(code, value, 0, 0)
}

fn jump(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction {
        code,
        if_true,
        if_false,
        value,
    }
}

impl Instruction {
    /// As the kernel has it, `struct sock_filter`.
    pub(super) fn bytes(self) -> [u8; 8] {
        let [a, b] = self.code.to_ne_bytes();
        let [c, d, e, f] = self.value.to_ne_bytes();
        [a, b, self.if_true, self.if_false, c, d, e, f]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the kernel would do: `None` when it comes to the profile's own program.
    fn run(program: &[Instruction], arch: u32, number: u32) -> Option<u32> {
        let (mut at, mut value) = (0, 0);
        while let Some(it) = program.get(at) {
            at += 1;
            let jump =
                |condition: bool| usize::from(if condition { it.if_true } else { it.if_false });
            match it.code {
                LOAD => value = if it.value == NUMBER { number } else { arch },
                JUMP => at += it.value as usize,
                JUMP_IF_EQUAL => at += jump(value == it.value),
                JUMP_IF_GREATER => at += jump(value > it.value),
                JUMP_IF_SET => at += jump(value & it.value != 0),
                RETURN => return Some(it.value),
                code => panic!("{code}"),
            }
        }
        assert_eq!(at, program.len(), "it ends where the profile's begins");
        None
    }

    fn program(architectures: &[&str], default: ScmpAction) -> Vec<Instruction> {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": architectures,
            "syscalls": [
                {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["close_range"], "action": "SCMP_ACT_ERRNO"},
            ],
        });
        answers(&serde_json::from_value(profile).unwrap(), default)
    }

    const EPERM: ScmpAction = ScmpAction::Errno(libc::EPERM);
    const CLOSE_RANGE: u32 = 436;

    #[test]
    fn only_what_is_above_all_names_is_answered() {
        let all = [
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_S390X",
        ];
        let program = program(&all, EPERM);
        for arch in [ScmpArch::X8664, ScmpArch::X86] {
            let arch = audit(arch).unwrap();
            for number in [0, 10, CLOSE_RANGE] {
                assert_eq!(run(&program, arch, number), None, "{arch:x} {number}");
            }
            for number in [CLOSE_RANGE + 1, 1000] {
                assert_eq!(
                    run(&program, arch, number),
                    Some(NO_SUCH_CALL),
                    "{arch:x} {number}"
                );
            }
        }
        let x86 = audit(ScmpArch::X8664).unwrap();
        assert_eq!(run(&program, x86, X32 | CLOSE_RANGE), None);
        assert_eq!(run(&program, x86, X32 | 1000), Some(NO_SUCH_CALL));
        let s390 = audit(ScmpArch::S390X).unwrap();
        assert_eq!(run(&program, s390, S390_ANY), Some(NO_SUCH_CALL));
        assert_eq!(run(&program, s390, 3), None);
        let arm = audit(ScmpArch::Aarch64).unwrap();
        assert_eq!(run(&program, arm, 1000), None, "not of the profile");
    }

    #[test]
    fn calls_of_an_architecture_that_is_not_named_are_the_profiles() {
        let native = program(&[], EPERM);
        let own = audit(ScmpArch::native()).unwrap();
        assert_eq!(run(&native, own, 1000), Some(NO_SUCH_CALL));
        assert_eq!(
            run(
                &program(&["SCMP_ARCH_X86_64"], EPERM),
                audit(ScmpArch::X8664).unwrap(),
                X32 | 1000
            ),
            None
        );
    }

    #[test]
    fn a_default_that_lets_pass_stays_as_it_is() {
        for default in [
            ScmpAction::Allow,
            ScmpAction::Log,
            ScmpAction::Trace(1),
            ScmpAction::Errno(libc::ENOSYS),
        ] {
            assert!(program(&[], default).is_empty());
        }
        assert!(!program(&[], ScmpAction::KillProcess).is_empty());
    }
}
