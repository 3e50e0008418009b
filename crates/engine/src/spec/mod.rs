//! OCI specs for a pod's containers: what CRI's default spec holds, for the fields that a
//! [`manifest`](crate::manifest) can set.
//!
//! Capabilities, mounts, masked paths, devices and the seccomp profile are those of containerd's
//! CRI plugin; where the sandbox's namespaces are is written as CRI writes it,
//! `/proc/PID/ns/KIND` (contract 14). Unlike with CRI, what an image declares as a volume is part of
//! the container's own root, and lives as long.
mod capabilities;
mod devices;
mod mounts;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::cgroup::is_v2;
use crate::image;
use crate::manifest::{Container, Pod, ProcMount, SeccompProfile, Security};

pub use mounts::VolumeBind;

/// The annotations by which CRI, and every shim, groups containers (contract 25).
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The sandbox that a container belongs to.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// The version of the runtime spec that the written specs follow.
const OCI_VERSION: &str = "1.2.0";

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why no spec can be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the manifest nor the image says what to run.
    #[error("nothing to run: the image has no entrypoint, set `command`")]
    NoCommand,
    /// runAsNonRoot, and the user is root.
    #[error("runAsNonRoot is true, but it would run as root; set runAsUser")]
    Root,
    /// A capability that Linux does not have.
    #[error("there is no capability `{0}`")]
    NoSuchCapability(String),
    /// A signal that Linux does not have.
    #[error("the image's stop signal `{0}` is none")]
    NoSuchSignal(String),
    /// A Localhost seccomp profile that cannot be used.
    #[error("seccomp profile {path}: {problem}")]
    Seccomp {
        /// The profile's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The node's devices cannot be listed.
    #[error("cannot list the devices in /dev for a privileged container: {0}")]
    Devices(std::io::Error),
    /// What was written is no OCI spec.
    #[error("the OCI spec is not valid: {0}")]
    Invalid(#[from] serde_json::Error),
}

/// What a container is told of its sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// The pid under which its namespaces are named; 0 when no process holds them.
    pub pid: u32,
    /// The pod's cgroup, such as `/husk/0123456789ab`.
    pub cgroup: String,
    /// Files of the engine's that appear at the same path in every container, such as
    /// `/etc/hosts`; those missing here are the shim's to make (contract 15).
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// The pod's /dev/shm, if it is the engine's to mount.
    pub shm: Option<PathBuf>,
}

/// Writes the spec of one container.
///
/// # Errors
/// See [`Error`].
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &image::Image,
    user: &image::User,
    sandbox: &Sandbox,
    volumes: &[VolumeBind],
) -> Result<Spec, Error> {
    let security = &container.security;
    let capabilities = capabilities::granted(security)?;
    let masked = !security.privileged && security.proc_mount == ProcMount::Default;
    let paths = |list: &[&str]| if masked { json!(list) } else { Value::Null };
    let mut linux = json!({
        "namespaces": namespaces(pod, container, sandbox.pid),
        "cgroupsPath": format!("{}/{}", sandbox.cgroup, container.name),
        "resources": resources::resources(container.resources, security.privileged),
        "maskedPaths": paths(&MASKED),
        "readonlyPaths": paths(&READ_ONLY),
        "seccomp": seccomp::profile(&security.seccomp, &capabilities)?,
    });
    if security.privileged
        && let Some(linux) = linux.as_object_mut()
    {
        linux.insert(
            "devices".into(),
            devices::of_the_node().map_err(Error::Devices)?,
        );
    }
    let spec = json!({
        "ociVersion": OCI_VERSION,
        "process": process::process(pod, container, &image.config, user, &capabilities)?,
        "root": {"path": "rootfs", "readonly": security.read_only_root},
        "mounts": mounts::mounts(pod, container, sandbox, volumes),
        "annotations": annotations(pod, container, image, sandbox),
        "linux": without_nulls(linux),
    });
    Ok(serde_json::from_value(spec)?)
}

/// Writes the spec of a container that shares nothing: what `runc spec` writes, in namespaces of
/// its own, with the capabilities and the seccomp profile that a container has which asks for
/// nothing. Its root is the bundle's `rootfs`, `cgroup` its `cgroupsPath`, and `pod` the pod that
/// it is one of for its shim.
///
/// # Errors
/// [`Error::Invalid`] only.
pub fn alone(pod: &str, cgroup: &str, args: &[&str]) -> Result<Spec, Error> {
    let capabilities = capabilities::granted(&Security::default())?;
    let kinds = ["pid", "network", "ipc", "uts", "mount"].into_iter();
    let kinds = kinds.chain(is_v2().then_some("cgroup"));
    let namespaces: Vec<Value> = kinds.map(|kind| json!({"type": kind})).collect();
    let spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "alone",
        "mounts": mounts::kernel(true),
        "annotations": {CONTAINER_TYPE: "container", SANDBOX_ID: pod},
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "resources": {"devices": devices::rules(false)},
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::profile(&SeccompProfile::RuntimeDefault, &capabilities)?,
        },
    });
    Ok(serde_json::from_value(spec)?)
}

/// Writes the spec of the pause container that stands for a sandbox under a shim without Sandbox
/// API. Its root holds read-only binds of `binds`, and `args` never ends.
///
/// # Errors
/// [`Error::Invalid`] only.
pub fn pause(
    pod: &Pod,
    id: &str,
    cgroup: &str,
    netns: Option<&std::path::Path>,
    args: &[&str],
    binds: &[(PathBuf, PathBuf)],
) -> Result<Spec, Error> {
    let mut namespaces = vec![json!({"type": "mount"})];
    for (kind, shared) in [
        ("pid", !pod.host_pid),
        ("ipc", !pod.host_ipc),
        ("uts", !pod.host_network),
    ] {
        if shared {
            namespaces.push(json!({"type": kind}));
        }
    }
    if let Some(netns) = netns {
        namespaces.push(json!({"type": "network", "path": netns}));
    }
    let mut mounts = mounts::kernel(true);
    mounts.extend(binds.iter().map(|(source, destination)| {
        json!({"type": "bind", "source": source, "destination": destination,
               "options": ["rbind", "rprivate", "ro", "nosuid", "nodev"]})
    }));
    let spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/"],
            "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "permitted": [], "inheritable": []},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        // With the node's uts namespace the name is the node's, and setting it would rename that.
        "hostname": if pod.host_network { "" } else { &pod.hostname },
        "mounts": mounts,
        "annotations": {
            CONTAINER_TYPE: "sandbox",
            SANDBOX_ID: id,
            "io.kubernetes.cri.sandbox-name": pod.name,
            "io.kubernetes.cri.sandbox-namespace": pod.namespace,
            "io.kubernetes.cri.sandbox-uid": pod.uid,
        },
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("{cgroup}/{id}"),
            "resources": {"devices": devices::rules(false), "cpu": {"shares": resources::FEWEST_SHARES}},
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "sysctl": pod.sysctls,
        },
    });
    Ok(serde_json::from_value(spec)?)
}

/// As CRI does, the sandbox's namespaces are named for every kind but pid even when they are the
/// node's: the sandbox is what knows.
fn namespaces(pod: &Pod, container: &Container, pid: u32) -> Value {
    let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    let mut namespaces = vec![
        json!({"type": "mount"}),
        json!({"type": "ipc", "path": path("ipc")}),
        json!({"type": "uts", "path": path("uts")}),
        json!({"type": "network", "path": path("net")}),
    ];
    namespaces.push(if pod.host_pid || pod.share_process_namespace {
        json!({"type": "pid", "path": path("pid")})
    } else {
        json!({"type": "pid"})
    });
    if is_v2() && !container.security.privileged {
        namespaces.push(json!({"type": "cgroup"}));
    }
    json!(namespaces)
}

fn annotations(pod: &Pod, container: &Container, image: &image::Image, sandbox: &Sandbox) -> Value {
    json!({
        CONTAINER_TYPE: "container",
        SANDBOX_ID: sandbox.id,
        "io.kubernetes.cri.sandbox-name": pod.name,
        "io.kubernetes.cri.sandbox-namespace": pod.namespace,
        "io.kubernetes.cri.sandbox-uid": pod.uid,
        "io.kubernetes.cri.container-name": container.name,
        "io.kubernetes.cri.image-name": image.reference,
    })
}

/// Absent rather than null, as the spec's JSON schema wants it.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, field)| !field.is_null())
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Config, Content, Image, User};
    use crate::manifest::parse;

    fn written(fields: &str, config: Config) -> Value {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: [{{name: a, \
             image: i}}]\n{fields}"
        );
        let pod = parse("pod.yaml", &text, "uid").unwrap();
        let image = Image {
            reference: "i".into(),
            digest: String::new(),
            config,
            content: Content::Folder("/".into()),
        };
        let sandbox = Sandbox {
            id: "pod-id".into(),
            pid: 0,
            cgroup: "/husk/pod-id".into(),
            files: BTreeMap::new(),
            shm: None,
        };
        let spec = container(
            &pod,
            &pod.containers[0],
            &image,
            &User::default(),
            &sandbox,
            &[],
        )
        .unwrap();
        serde_json::to_value(spec).unwrap()
    }

    fn runs(args: &[&str]) -> Config {
        Config {
            entrypoint: args.iter().map(ToString::to_string).collect(),
            ..Config::default()
        }
    }

    fn namespace(spec: &Value, kind: &str) -> Option<Value> {
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        let found = namespaces
            .iter()
            .find(|namespace| namespace["type"] == kind);
        found.map(|namespace| namespace["path"].clone())
    }

    #[test]
    fn the_sandbox_s_namespaces_are_named_as_cri_names_them() {
        let spec = written("", runs(&["true"]));
        assert_eq!(namespace(&spec, "network"), Some(json!("/proc/0/ns/net")));
        assert_eq!(namespace(&spec, "ipc"), Some(json!("/proc/0/ns/ipc")));
        assert_eq!(namespace(&spec, "uts"), Some(json!("/proc/0/ns/uts")));
        assert_eq!(namespace(&spec, "pid"), Some(Value::Null));
        assert_eq!(namespace(&spec, "mount"), Some(Value::Null));
        assert_eq!(namespace(&spec, "user"), None);
        let spec = written("  shareProcessNamespace: true\n", runs(&["true"]));
        assert_eq!(namespace(&spec, "pid"), Some(json!("/proc/0/ns/pid")));
    }

    #[test]
    fn containers_are_grouped_and_have_their_cgroup_in_the_pod_s() {
        let spec = written("", runs(&["true"]));
        assert_eq!(spec["annotations"][SANDBOX_ID], "pod-id");
        assert_eq!(spec["annotations"][CONTAINER_TYPE], "container");
        assert_eq!(spec["annotations"]["io.kubernetes.cri.container-name"], "a");
        assert_eq!(spec["linux"]["cgroupsPath"], "/husk/pod-id/a");
    }

    #[test]
    fn the_image_says_what_the_manifest_does_not() {
        let config = Config {
            cmd: vec!["-c".into()],
            env: vec!["PATH=/bin".into(), "A=b".into()],
            workdir: "/srv".into(),
            ..runs(&["sh"])
        };
        let process = &written("", config)["process"];
        assert_eq!(process["args"], json!(["sh", "-c"]));
        assert_eq!(process["cwd"], "/srv");
        assert_eq!(
            process["env"],
            json!(["PATH=/bin", "HOME=", "A=b", "HOSTNAME=web"])
        );
    }
}
