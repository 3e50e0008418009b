//! From a profile of the OCI specification to a program for the kernel.
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::newer::{self, Instruction};
use crate::error::{Doing, JobError};

/// Calls are looked up in a tree: the kernel, which tries every call when a filter is loaded, is
/// done several times sooner than with a list.
const AS_A_TREE: u32 = 2;

/// The program for a profile.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, JobError> {
    let filter = translate(profile)
        .map_err(|error| JobError::invalid(format!("cannot compile linux.seccomp: {error}")))?;
    let memory = memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)
        .doing(|| "make memory for the seccomp filter")?;
    filter
        .export_bpf(&memory)
        .map_err(|error| JobError::failed(format!("cannot export linux.seccomp: {error}")))?;
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut program: Vec<u8> = newer::answers(profile, default)
        .into_iter()
        .flat_map(Instruction::bytes)
        .collect();
    let mut memory = File::from(memory);
    memory
        .rewind()
        .and_then(|()| memory.read_to_end(&mut program))
        .doing(|| "read the seccomp filter")?;
    Ok(program)
}

fn translate(profile: &LinuxSeccomp) -> Result<ScmpFilterContext, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default)?;
    for arch in profile.architectures().iter().flatten() {
        filter.add_arch(architecture(*arch))?;
    }
    // Only speed: an older libseccomp does not know it.
    let _ = filter.set_ctl_optimize(AS_A_TREE);
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret());
        // libseccomp refuses what says the default again.
        if action != default {
            add(&mut filter, action, rule)?;
        }
    }
    Ok(filter)
}

fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    rule: &LinuxSyscall,
) -> Result<(), SeccompError> {
    let conditions: Vec<_> = rule.args().iter().flatten().map(condition).collect();
    let args: HashSet<_> = rule
        .args()
        .iter()
        .flatten()
        .map(LinuxSeccompArg::index)
        .collect();
    for name in rule.names() {
        // A profile is for all kernels, and names calls that this one does not have.
        let Ok(syscall) = ScmpSyscall::from_name(name) else {
            continue;
        };
        if args.len() == conditions.len() {
            filter.add_rule_conditional(action, syscall, &conditions)?;
            continue;
        }
        // libseccomp compares an argument once per rule: as with runc, any of them will do then.
        for condition in &conditions {
            filter.add_rule_conditional(action, syscall, std::slice::from_ref(condition))?;
        }
    }
    Ok(())
}

fn condition(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (value, operator) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (arg.value(), ScmpCompareOp::NotEqual),
        LinuxSeccompOperator::ScmpCmpLt => (arg.value(), ScmpCompareOp::Less),
        LinuxSeccompOperator::ScmpCmpLe => (arg.value(), ScmpCompareOp::LessOrEqual),
        LinuxSeccompOperator::ScmpCmpEq => (arg.value(), ScmpCompareOp::Equal),
        LinuxSeccompOperator::ScmpCmpGe => (arg.value(), ScmpCompareOp::GreaterEqual),
        LinuxSeccompOperator::ScmpCmpGt => (arg.value(), ScmpCompareOp::Greater),
        // The specification's value is the mask, and its second value what is left.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            arg.value_two().unwrap_or(0),
            ScmpCompareOp::MaskedEqual(arg.value()),
        ),
    };
    ScmpArgCompare::new(
        u32::try_from(arg.index()).unwrap_or(u32::MAX),
        operator,
        value,
    )
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    let errno = errno.map_or(libc::EPERM, |errno| {
        i32::try_from(errno).unwrap_or(libc::EPERM)
    });
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            ScmpAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(u16::try_from(errno).unwrap_or(0)),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
    }
}

pub(super) fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}
