//! The messages that containerd sends inside an `Any`, and that the engine must therefore write:
//! `runtimeoptions.v1.Options`, `containerd.runc.v1.Options` and CRI's
//! `runtime.v1.PodSandboxConfig`.
//!
//! They are written field by field, because their generated code would bring CRI's whole API
//! and a second protobuf library for a dozen fields. The numbers are those of containerd's
//! `api/types/runtimeoptions/v1/api.proto` and `api/types/runc/options/oci.proto`, and Kubernetes' `cri-api/pkg/apis/runtime/v1/api.proto`.
use std::collections::BTreeMap;
use std::path::PathBuf;

use protobuf::well_known_types::any::Any;

/// containerd's way to hand a handler's configuration to a shim that is not runc's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The configuration file, an absolute path.
    pub config_path: PathBuf,
}

impl RuntimeOptions {
    /// The message as `start` reads it from stdin (contract 1).
    #[must_use]
    pub fn to_any(&self) -> Any {
        let mut message = Message::default();
        message.string(2, &self.config_path.to_string_lossy());
        message.into_any("runtimeoptions.v1.Options")
    }
}

/// What runc's shim takes as its options: which OCI runtime it calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuncOptions {
    /// The runtime's binary, an absolute path.
    pub binary: PathBuf,
}

impl RuncOptions {
    /// The message as `start` and Create carry it.
    #[must_use]
    pub fn to_any(&self) -> Any {
        let mut message = Message::default();
        message.string(6, &self.binary.to_string_lossy());
        message.into_any("containerd.runc.v1.Options")
    }
}

/// Whose namespace the sandbox uses: CRI's `NamespaceMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// The pod's.
    #[default]
    Pod,
    /// Each container its own; for pid only.
    Container,
    /// The node's.
    Node,
}

impl NamespaceMode {
    const fn number(self) -> u64 {
        match self {
            Self::Pod => 0,
            Self::Container => 1,
            Self::Node => 2,
        }
    }
}

/// What CRI tells a shim about a sandbox (contract 12): CRI's `PodSandboxConfig`, in the fields
/// that the engine sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandboxConfig {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The host name; empty with the node's network.
    pub hostname: String,
    /// Addresses of name servers; with no DNS setting at all the node's resolv.conf is used.
    pub dns_servers: Vec<String>,
    /// Domains to search.
    pub dns_searches: Vec<String>,
    /// resolv.conf options, such as `ndots:5`.
    pub dns_options: Vec<String>,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The pod's cgroup, parent of its containers' cgroups.
    pub cgroup_parent: String,
    /// Whose network namespace.
    pub network: NamespaceMode,
    /// Whose pid namespace.
    pub pid: NamespaceMode,
    /// Whose ipc namespace.
    pub ipc: NamespaceMode,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

impl PodSandboxConfig {
    /// The message as CreateSandbox carries it.
    #[must_use]
    pub fn to_any(&self) -> Any {
        let mut message = Message::default();
        message.message(1, &self.metadata());
        message.string(2, &self.hostname);
        // Without the message the shim copies the node's resolv.conf.
        if !self.dns().0.is_empty() {
            message.message(4, &self.dns());
        }
        message.map(6, &self.labels);
        message.map(7, &self.annotations);
        message.message(8, &self.linux());
        message.into_any("runtime.v1.PodSandboxConfig")
    }

    fn metadata(&self) -> Message {
        let mut message = Message::default();
        message.string(1, &self.name);
        message.string(2, &self.uid);
        message.string(3, &self.namespace);
        message
    }

    fn dns(&self) -> Message {
        let mut message = Message::default();
        for (number, values) in [
            (1, &self.dns_servers),
            (2, &self.dns_searches),
            (3, &self.dns_options),
        ] {
            for value in values {
                message.bytes(number, value.as_bytes());
            }
        }
        message
    }

    fn linux(&self) -> Message {
        let mut namespaces = Message::default();
        namespaces.number(1, self.network.number());
        namespaces.number(2, self.pid.number());
        namespaces.number(3, self.ipc.number());
        let mut security = Message::default();
        security.message(1, &namespaces);
        let mut linux = Message::default();
        linux.string(1, &self.cgroup_parent);
        linux.message(2, &security);
        linux.map(3, &self.sysctls);
        linux
    }
}

/// A protobuf message being written (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn into_any(self, type_url: &str) -> Any {
        Any {
            type_url: type_url.into(),
            value: self.0,
            ..Any::default()
        }
    }

    fn varint(&mut self, mut value: u64) {
        while let Some(rest) = std::num::NonZeroU64::new(value >> 7) {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value = rest.get();
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// A number; 0 is the default and is not written.
    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A string; the empty one is the default and is not written.
    fn string(&mut self, field: u64, value: &str) {
        if !value.is_empty() {
            self.bytes(field, value.as_bytes());
        }
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.0);
    }

    fn map(&mut self, field: u64, values: &BTreeMap<String, String>) {
        for (key, value) in values {
            let mut entry = Self::default();
            entry.string(1, key);
            entry.string(2, value);
            self.message(field, &entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;

    /// A protobuf library that did not write it reads it back.
    #[test]
    fn an_independent_decoder_reads_the_fields() {
        let long = "x".repeat(300);
        let config = PodSandboxConfig {
            name: "web".into(),
            namespace: "default".into(),
            hostname: long.clone(),
            annotations: BTreeMap::from([("k".into(), "v".into())]),
            pid: NamespaceMode::Container,
            ..PodSandboxConfig::default()
        };
        // An Envelope has a string in field 2 too; everything else is kept as unknown fields.
        let any = config.to_any();
        let read = containerd_shim_protos::api::StateResponse::parse_from_bytes(&any.value);
        let read = read.unwrap();
        assert_eq!(read.bundle, long);
        assert!(read.id.contains("web") && read.id.contains("default"));
    }

    #[test]
    fn a_configuration_path_is_field_two() {
        let any = RuntimeOptions {
            config_path: "/etc/husk/a.toml".into(),
        }
        .to_any();
        assert_eq!(any.type_url, "runtimeoptions.v1.Options");
        assert_eq!(any.value, b"\x12\x10/etc/husk/a.toml");
    }

    #[test]
    fn the_runtime_of_runc_s_shim_is_field_six() {
        let any = RuncOptions {
            binary: "/usr/bin/crun".into(),
        }
        .to_any();
        assert_eq!(any.type_url, "containerd.runc.v1.Options");
        assert_eq!(any.value, b"\x32\x0d/usr/bin/crun");
    }
}
