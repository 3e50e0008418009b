//! What an operator may set.
use serde::Deserialize;

/// The settings of `baseline-oci` and of `restricted-oci`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The Kubernetes namespaces whose pods are not judged.
    pub exempt_namespaces: Vec<String>,
    /// The kubelet's directory: a volume that is not a hostPath is below the pod's own part of it.
    pub kubelet_root: String,
    /// Where the container runtime keeps the files of sandboxes, each below the sandbox's id: its
    /// hosts, resolv.conf and /dev/shm.
    pub sandbox_roots: Vec<String>,
    /// Further directories of the node that containers may mount, such as those of device plugins.
    pub allowed_sources: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            exempt_namespaces: vec![],
            kubelet_root: "/var/lib/kubelet".to_owned(),
            sandbox_roots: vec![
                "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes".to_owned(),
                "/run/containerd/io.containerd.grpc.v1.cri/sandboxes".to_owned(),
            ],
            allowed_sources: vec![],
        }
    }
}

impl Settings {
    /// Reads and checks settings.
    ///
    /// # Errors
    /// What is wrong with them, naming the key.
    pub fn parse(json: &str) -> Result<Self, String> {
        let settings: Self = husk_plugin::parse_settings(json)?;
        let roots = [
            ("kubelet-root", std::slice::from_ref(&settings.kubelet_root)),
            ("sandbox-roots", &settings.sandbox_roots),
            ("allowed-sources", &settings.allowed_sources),
        ];
        for (key, paths) in roots {
            if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
                return Err(format!("{key}: `{path}` is not an absolute path"));
            }
        }
        Ok(settings)
    }
}
