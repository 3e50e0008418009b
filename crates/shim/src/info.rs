//! What `-info` and `-v` print.
use std::io::Write as _;

use anyhow::{Context as _, Result};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use husk_sandbox::hooks;
use oci_spec::runtime::{
    Apparmor, Arch, Cgroup, Features, IDMap, LinuxFeature, LinuxNamespaceType, LinuxSeccompAction,
    MountExtensions, Seccomp, Selinux,
};

use husk_request::bootstrap;

/// The name of the runtime, as containerd's configuration spells it.
const NAME: &str = "io.containerd.husk.v2";

/// The type under which containerd looks for features; the value is JSON (contract 9).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints the version.
///
/// # Errors
/// stdout is closed.
pub(crate) fn print_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    writeln!(std::io::stdout(), "containerd-shim-husk-v2 {version}").context("write the version")
}

/// Prints the `RuntimeInfo`, with the options from stdin in it.
///
/// # Errors
/// stdin holds something else than options.
pub(crate) fn print() -> Result<()> {
    let options = bootstrap::legacy_options(&bootstrap::read_stdin().context("read stdin")?)?;
    let info = runtime_info(options)?.write_to_bytes()?;
    let mut stdout = std::io::stdout();
    stdout.write_all(&info).context("write the runtime info")?;
    stdout.flush().context("write the runtime info")
}

fn runtime_info(options: Option<Any>) -> Result<RuntimeInfo> {
    let features = Any {
        type_url: FEATURES.to_owned(),
        value: serde_json::to_vec(&features())?,
        ..Any::default()
    };
    Ok(RuntimeInfo {
        name: NAME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        options: options.into(),
        features: MessageField::some(features),
        ..RuntimeInfo::default()
    })
}

/// Only what works: CRI offers a pod whatever is listed here, `hostUsers: false` for `user` and id-mapped
/// mounts together.
fn features() -> Features {
    let namespaces = [
        LinuxNamespaceType::Cgroup,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Time,
        LinuxNamespaceType::User,
        LinuxNamespaceType::Uts,
    ];
    let mut cgroup = Cgroup::default();
    cgroup
        .set_v1(Some(true))
        .set_v2(Some(true))
        .set_systemd(Some(true))
        .set_systemd_user(Some(false))
        .set_rdma(Some(false));
    let mut extensions = MountExtensions::default();
    let mut idmap = IDMap::default();
    idmap.set_enabled(Some(true));
    extensions.set_idmap(Some(idmap));
    let mut apparmor = Apparmor::default();
    apparmor.set_enabled(Some(true));
    let mut selinux = Selinux::default();
    selinux.set_enabled(Some(true));
    let mut linux = LinuxFeature::default();
    linux
        .set_namespaces(Some(namespaces.to_vec()))
        .set_cgroup(Some(cgroup))
        .set_seccomp(Some(seccomp()))
        .set_apparmor(Some(apparmor))
        .set_selinux(Some(selinux))
        .set_mount_extensions(Some(extensions));
    let mut features = Features::default();
    features
        .set_oci_version_min("1.0.0".to_owned())
        .set_oci_version_max("1.2.0".to_owned())
        .set_hooks(Some(
            hooks::Kind::ALL.map(|kind| kind.name().to_owned()).to_vec(),
        ))
        .set_mount_options(Some(husk_sandbox::features::mount_options()))
        .set_linux(Some(linux));
    features
}

fn seccomp() -> Seccomp {
    let actions = [
        LinuxSeccompAction::ScmpActAllow,
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActKill,
        LinuxSeccompAction::ScmpActKillProcess,
        LinuxSeccompAction::ScmpActKillThread,
        LinuxSeccompAction::ScmpActLog,
        LinuxSeccompAction::ScmpActNotify,
        LinuxSeccompAction::ScmpActTrace,
        LinuxSeccompAction::ScmpActTrap,
    ];
    let operators = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
    let archs = [
        Arch::ScmpArchAarch64,
        Arch::ScmpArchArm,
        Arch::ScmpArchX32,
        Arch::ScmpArchX86,
        Arch::ScmpArchX86_64,
    ];
    let mut seccomp = Seccomp::default();
    seccomp
        .set_enabled(Some(true))
        .set_actions(Some(actions.to_vec()))
        .set_operators(Some(operators.map(|op| format!("SCMP_CMP_{op}")).to_vec()))
        .set_archs(Some(archs.to_vec()));
    seccomp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cri_sees_recursive_read_only_and_user_namespaces() {
        let info = runtime_info(None).unwrap();
        assert_eq!(info.features.type_url, FEATURES);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        let names = |path: &str| -> Vec<String> {
            serde_json::from_value(features.pointer(path).unwrap().clone()).unwrap()
        };
        assert!(names("/mountOptions").contains(&"rro".to_owned()));
        assert!(names("/linux/namespaces").contains(&"user".to_owned()));
        assert!(names("/linux/namespaces").contains(&"network".to_owned()));
        assert_eq!(
            features
                .pointer("/linux/mountExtensions/idmap/enabled")
                .unwrap(),
            true
        );
        assert_eq!(features.pointer("/linux/cgroup/systemd").unwrap(), true);
        assert!(names("/linux/seccomp/actions").contains(&"SCMP_ACT_NOTIFY".to_owned()));
        assert!(names("/linux/seccomp/archs").contains(&"SCMP_ARCH_X86_64".to_owned()));
    }

    #[test]
    fn the_options_come_back() {
        let options = Any {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            ..Any::default()
        };
        let info = runtime_info(Some(options.clone())).unwrap();
        assert_eq!(info.options.into_option(), Some(options));
    }
}
