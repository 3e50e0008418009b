//! What a call is about.
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use husk_scope::Scopes;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{artifact, canonical};

/// The pod, as plugins see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The sandbox's id.
    pub id: String,
    /// The pod's name; the id where it has none.
    pub name: String,
    /// The Kubernetes namespace; empty outside Kubernetes.
    pub namespace: String,
    /// The pod's uid in Kubernetes; empty outside.
    pub uid: String,
    /// The cgroup that holds the cgroups of the containers.
    pub cgroup_parent: String,
    /// The sandbox's scopes before any plugin spoke.
    pub requested: Scopes,
    /// The names of the containers made so far, in order.
    pub containers: Vec<String>,
    /// Labels, set by the pod's author.
    pub labels: BTreeMap<String, String>,
    /// Annotations, set by the pod's author.
    pub annotations: BTreeMap<String, String>,
}

/// A container, as plugins see it.
#[derive(Clone, Debug)]
pub struct Container {
    /// The id containerd gave.
    pub id: String,
    /// The name in the pod; the id where it has none.
    pub name: String,
    /// What was asked for before any plugin spoke.
    pub requested: Scopes,
    /// The image reference, empty where containerd did not say.
    pub image: String,
    /// The OCI spec, as the plugins before this one left it.
    pub spec: SharedSpec,
}

/// An OCI spec. Clones share it and its digest, which costs more than the call of a small plugin.
#[derive(Clone, Debug)]
pub struct SharedSpec {
    spec: Arc<Spec>,
    digest: Arc<OnceLock<String>>,
}

impl SharedSpec {
    /// A spec as it was read from this text, whose digest is the spec's.
    #[must_use]
    pub fn read_from(spec: Arc<Spec>, text: &[u8]) -> Self {
        Self {
            spec,
            digest: Arc::new(artifact::hex(&Sha256::digest(text)).into()),
        }
    }

    /// The sha256 of its text, or of its JSON, in hex.
    pub(crate) fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            let json = canonical::json(&*self.spec).unwrap_or_default();
            artifact::hex(&Sha256::digest(json.to_string()))
        })
    }

    /// This one's own, to change it.
    pub(crate) fn make_mut(&mut self) -> &mut Spec {
        self.digest = Arc::default();
        Arc::make_mut(&mut self.spec)
    }

    /// The spec, without its digest.
    #[must_use]
    pub fn into_inner(self) -> Arc<Spec> {
        self.spec
    }
}

impl Deref for SharedSpec {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        &self.spec
    }
}

impl From<Arc<Spec>> for SharedSpec {
    fn from(spec: Arc<Spec>) -> Self {
        Self {
            spec,
            digest: Arc::default(),
        }
    }
}

impl From<Spec> for SharedSpec {
    fn from(spec: Spec) -> Self {
        Arc::new(spec).into()
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status, 128 + signal where a signal ended it.
    pub code: u32,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
}

/// What a plugin is asked, and about whom beyond the pod.
#[derive(Clone, Debug)]
pub enum Question<'a> {
    /// `configurable.validate-settings`.
    ValidateSettings,
    /// `scoping.scope-sandbox`.
    ScopeSandbox,
    /// `scoping.scope-container`.
    ScopeContainer(&'a Container),
    /// `linking.link-container`.
    LinkContainer(&'a Container),
    /// `lifecycle.sandbox-starting`.
    SandboxStarting,
    /// `lifecycle.sandbox-started`.
    SandboxStarted,
    /// `lifecycle.sandbox-stopped`.
    SandboxStopped,
    /// `lifecycle.container-creating`.
    ContainerCreating(&'a Container),
    /// `lifecycle.container-started`.
    ContainerStarted(&'a Container),
    /// `lifecycle.container-exited`.
    ContainerExited(&'a Container, Exit),
    /// `lifecycle.container-oom`.
    ContainerOom(&'a Container),
    /// `lifecycle.exec-starting`.
    ExecStarting(&'a Container, &'a Process),
    /// `lifecycle.resources-updating`, with the limits that are asked for.
    ResourcesUpdating(&'a Container, &'a LinuxResources),
}

impl<'a> Question<'a> {
    /// The name of the function that is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ValidateSettings => "validate-settings",
            Self::ScopeSandbox => "scope-sandbox",
            Self::ScopeContainer(_) => "scope-container",
            Self::LinkContainer(_) => "link-container",
            Self::SandboxStarting => "sandbox-starting",
            Self::SandboxStarted => "sandbox-started",
            Self::SandboxStopped => "sandbox-stopped",
            Self::ContainerCreating(_) => "container-creating",
            Self::ContainerStarted(_) => "container-started",
            Self::ContainerExited(..) => "container-exited",
            Self::ContainerOom(_) => "container-oom",
            Self::ExecStarting(..) => "exec-starting",
            Self::ResourcesUpdating(..) => "resources-updating",
        }
    }

    /// The container it is about, if any.
    #[must_use]
    pub fn container(&self) -> Option<&'a Container> {
        match *self {
            Self::ValidateSettings
            | Self::ScopeSandbox
            | Self::SandboxStarting
            | Self::SandboxStarted
            | Self::SandboxStopped => None,
            Self::ScopeContainer(container)
            | Self::LinkContainer(container)
            | Self::ContainerCreating(container)
            | Self::ContainerStarted(container)
            | Self::ContainerExited(container, _)
            | Self::ContainerOom(container)
            | Self::ExecStarting(container, _)
            | Self::ResourcesUpdating(container, _) => Some(container),
        }
    }

    /// The exec it is about, if any.
    #[must_use]
    pub fn process(&self) -> Option<&'a Process> {
        match *self {
            Self::ExecStarting(_, process) => Some(process),
            _ => None,
        }
    }

    /// How the container ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match *self {
            Self::ContainerExited(_, exit) => Some(exit),
            _ => None,
        }
    }

    /// The limits that are asked for, if any are.
    #[must_use]
    pub fn update(&self) -> Option<&'a LinuxResources> {
        match *self {
            Self::ResourcesUpdating(_, update) => Some(update),
            _ => None,
        }
    }

    /// Whether the answer can refuse: the `-ing` calls, the scopes, the links, the settings.
    #[must_use]
    pub fn decides(&self) -> bool {
        !matches!(
            self,
            Self::SandboxStarted
                | Self::SandboxStopped
                | Self::ContainerStarted(_)
                | Self::ContainerExited(..)
                | Self::ContainerOom(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_that_is_changed_has_another_digest_and_its_clones_keep_theirs() {
        let first = SharedSpec::from(Spec::default());
        let mut second = first.clone();
        assert_eq!(first.digest(), second.digest());
        let before = first.digest().to_owned();
        second.make_mut().set_hostname(Some("other".to_owned()));
        assert_ne!(second.digest(), before);
        assert_eq!(first.digest(), before);
    }
}
