//! The seccomp profile of a spec, compiled once.
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail};
use husk_sandbox::floor::Filter;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, Spec};

/// What a call gets that a profile refuses without saying how: runc's choice.
const REFUSED: i32 = nix::libc::EPERM;

pub(crate) fn compile(spec: &Spec) -> Result<Filter> {
    let linux = spec.linux().as_ref().context("the spec is not Linux's")?;
    let profile = linux.seccomp().as_ref().context("it has no seccomp")?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default)?;
    for arch in profile.architectures().iter().flatten() {
        context.add_arch(ScmpArch::from_str(&arch.to_string())?)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let what = action(rule.action(), rule.errno_ret())?;
        let compare = rule.args().iter().flatten().map(comparison);
        let compare: Vec<ScmpArgCompare> = compare.collect::<Result<_>>()?;
        for name in rule.names() {
            // A call that this machine's libseccomp does not know cannot be named to the kernel.
            let Ok(call) = ScmpSyscall::from_name(name) else {
                continue;
            };
            context
                .add_rule_conditional(what, call, &compare)
                .with_context(|| format!("add the rule for {name}"))?;
        }
    }
    let mut file = File::from(memfd_create("filter", MFdFlags::MFD_CLOEXEC)?);
    context.export_bpf(&file)?;
    let mut program = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut program)?;
    Ok(Filter::from_bytes(&program)?)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let errno = errno.map(i32::try_from).transpose()?.unwrap_or(REFUSED);
    match action {
        LinuxSeccompAction::ScmpActAllow => Ok(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActErrno => Ok(ScmpAction::Errno(errno)),
        other => bail!("the floor knows no action {other:?}, only allowing and refusing"),
    }
}

fn comparison(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare> {
    let (operator, datum) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        // The mask is the first value, what is left of the argument the second.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            ScmpCompareOp::MaskedEqual(arg.value()),
            arg.value_two().unwrap_or_default(),
        ),
        other => bail!("the floor knows no comparison {other:?}"),
    };
    Ok(ScmpArgCompare::new(
        u32::try_from(arg.index())?,
        operator,
        datum,
    ))
}
