//! What plugins import: questions about the subject, and edits of it.
use husk_scope::{Kind, Scope, Scopes};
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceType, LinuxResources, Mount as SpecMount, Process, Spec,
};
use wasmtime::{Result, bail};

use crate::adjust::{self, Edit};
use crate::bindings::husk::plugin::{container, edit, exit, host, pod, process, types, update};
use crate::canonical;
use crate::guest_log::Level;
use crate::state::State;
use crate::subject::{Container, Exit};

impl From<Kind> for types::NamespaceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Network => Self::Network,
            Kind::Pid => Self::Pid,
            Kind::Ipc => Self::Ipc,
            Kind::Uts => Self::Uts,
            Kind::User => Self::User,
            Kind::Mount => Self::Mount,
            Kind::Cgroup => Self::Cgroup,
            Kind::Time => Self::Time,
        }
    }
}

impl From<types::NamespaceKind> for Kind {
    fn from(kind: types::NamespaceKind) -> Self {
        match kind {
            types::NamespaceKind::Network => Self::Network,
            types::NamespaceKind::Pid => Self::Pid,
            types::NamespaceKind::Ipc => Self::Ipc,
            types::NamespaceKind::Uts => Self::Uts,
            types::NamespaceKind::User => Self::User,
            types::NamespaceKind::Mount => Self::Mount,
            types::NamespaceKind::Cgroup => Self::Cgroup,
            types::NamespaceKind::Time => Self::Time,
        }
    }
}

impl From<&Scope> for types::Scope {
    fn from(scope: &Scope) -> Self {
        match scope {
            Scope::Container => Self::Container,
            Scope::Pod => Self::Pod,
            Scope::Node => Self::Node,
            Scope::Target(name) => Self::Target(name.clone()),
            Scope::Group(name) => Self::Group(name.clone()),
        }
    }
}

impl From<types::Scope> for Scope {
    fn from(scope: types::Scope) -> Self {
        match scope {
            types::Scope::Container => Self::Container,
            types::Scope::Pod => Self::Pod,
            types::Scope::Node => Self::Node,
            types::Scope::Target(name) => Self::Target(name),
            types::Scope::Group(name) => Self::Group(name),
        }
    }
}

fn assignments(scopes: &Scopes) -> Vec<types::Assignment> {
    scopes
        .iter()
        .map(|(kind, scope)| types::Assignment {
            kind: kind.into(),
            scope: scope.into(),
        })
        .collect()
}

impl State {
    fn subject(&self) -> Result<&Container> {
        match &self.container {
            Some(container) => Ok(container),
            None => bail!("this call is about the sandbox: there is no container to ask about"),
        }
    }

    fn oci(&self) -> Result<&Spec> {
        Ok(&self.subject()?.spec)
    }

    fn exec(&self) -> Result<&Process> {
        match &self.process {
            Some(process) => Ok(process),
            None => bail!("this call is not about an exec: there is no process to ask about"),
        }
    }

    fn ended(&self) -> Result<Exit> {
        match self.exit {
            Some(exit) => Ok(exit),
            None => bail!("this call is not about an exit: the container has not ended"),
        }
    }

    fn asked_for(&self) -> Result<&LinuxResources> {
        match &self.update {
            Some(update) => Ok(update),
            None => bail!("this call is not about new limits: none are asked for"),
        }
    }

    fn change(&mut self, edit: &Edit) -> Result<()> {
        if !self.editing {
            bail!("a container can be edited in container-creating only");
        }
        let Some(container) = &mut self.container else {
            bail!("there is no container to edit");
        };
        // Before anything is done with it: what is refused must not be held either.
        self.budget.hold_edit(&edit.words())?;
        let spec = container.spec.make_mut();
        if let Err(problem) = adjust::apply(spec, edit, &self.settings.seccomp_profiles) {
            bail!("{problem}");
        }
        self.edits.push(edit.to_string());
        Ok(())
    }
}

/// The value of a variable in an environment of `NAME=value` entries.
fn variable(process: &Process, name: &str) -> Option<String> {
    let entries = process.env().iter().flatten();
    entries
        .filter_map(|entry| entry.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// A CPU quota in thousandths of a CPU; negative for no limit.
fn thousandths(cpu: &LinuxCpu) -> Option<i64> {
    // The kernel's default period, in microseconds.
    let period = i64::try_from(cpu.period().unwrap_or(100_000)).unwrap_or(i64::MAX);
    let quota = cpu.quota()?;
    Some(quota.saturating_mul(1000) / period.max(1))
}

fn bounding(process: &Process) -> Vec<String> {
    let capabilities = process
        .capabilities()
        .as_ref()
        .and_then(|sets| sets.bounding().as_ref());
    let mut names: Vec<String> = capabilities
        .into_iter()
        .flatten()
        .map(|capability| format!("CAP_{capability}"))
        .collect();
    names.sort();
    names
}

impl types::Host for &mut State {}

impl pod::Host for &mut State {
    fn id(&mut self) -> Result<String> {
        Ok(self.pod.id.clone())
    }

    fn name(&mut self) -> Result<String> {
        Ok(self.pod.name.clone())
    }

    fn namespace(&mut self) -> Result<String> {
        Ok(self.pod.namespace.clone())
    }

    fn uid(&mut self) -> Result<String> {
        Ok(self.pod.uid.clone())
    }

    fn cgroup_parent(&mut self) -> Result<String> {
        Ok(self.pod.cgroup_parent.clone())
    }

    fn requested_scopes(&mut self) -> Result<Vec<types::Assignment>> {
        Ok(assignments(&self.pod.requested))
    }

    fn container_names(&mut self) -> Result<Vec<String>> {
        Ok(self.pod.containers.clone())
    }

    fn untrusted_label(&mut self, key: String) -> Result<Option<String>> {
        Ok(self.pod.labels.get(&key).cloned())
    }

    fn untrusted_annotation(&mut self, key: String) -> Result<Option<String>> {
        Ok(self.pod.annotations.get(&key).cloned())
    }
}

impl container::Host for &mut State {
    fn id(&mut self) -> Result<String> {
        Ok(self.subject()?.id.clone())
    }

    fn name(&mut self) -> Result<String> {
        Ok(self.subject()?.name.clone())
    }

    fn requested_scopes(&mut self) -> Result<Vec<types::Assignment>> {
        Ok(assignments(&self.subject()?.requested))
    }

    fn untrusted_image(&mut self) -> Result<String> {
        Ok(self.subject()?.image.clone())
    }

    fn untrusted_args(&mut self) -> Result<Vec<String>> {
        let process = self.oci()?.process().as_ref();
        Ok(process
            .and_then(|process| process.args().clone())
            .unwrap_or_default())
    }

    fn untrusted_env(&mut self, name: String) -> Result<Option<String>> {
        let process = self.oci()?.process().as_ref();
        Ok(process.and_then(|process| variable(process, &name)))
    }

    fn untrusted_annotation(&mut self, key: String) -> Result<Option<String>> {
        let annotations = self.oci()?.annotations().as_ref();
        Ok(annotations.and_then(|annotations| annotations.get(&key).cloned()))
    }

    fn uid(&mut self) -> Result<u32> {
        Ok(self
            .oci()?
            .process()
            .as_ref()
            .map_or(0, |process| process.user().uid()))
    }

    fn gid(&mut self) -> Result<u32> {
        Ok(self
            .oci()?
            .process()
            .as_ref()
            .map_or(0, |process| process.user().gid()))
    }

    fn privileged(&mut self) -> Result<bool> {
        Ok(adjust::is_privileged(self.oci()?))
    }

    fn capabilities(&mut self) -> Result<Vec<String>> {
        Ok(self
            .oci()?
            .process()
            .as_ref()
            .map(bounding)
            .unwrap_or_default())
    }

    fn no_new_privileges(&mut self) -> Result<bool> {
        let process = self.oci()?.process().as_ref();
        Ok(process
            .and_then(|process| process.no_new_privileges())
            .unwrap_or(false))
    }

    fn read_only_root(&mut self) -> Result<bool> {
        Ok(self
            .oci()?
            .root()
            .as_ref()
            .and_then(|root| root.readonly())
            .unwrap_or(false))
    }

    fn has_seccomp(&mut self) -> Result<bool> {
        Ok(self
            .oci()?
            .linux()
            .as_ref()
            .is_some_and(|linux| linux.seccomp().is_some()))
    }

    fn memory_limit(&mut self) -> Result<Option<u64>> {
        let limit = adjust::resources(self.oci()?)
            .and_then(|resources| resources.memory().as_ref())
            .and_then(|memory| memory.limit());
        // A negative limit is "no limit" in the OCI spec.
        Ok(limit
            .and_then(|limit| u64::try_from(limit).ok())
            .filter(|limit| *limit > 0))
    }

    fn cpu_limit(&mut self) -> Result<Option<u64>> {
        let cpu = adjust::resources(self.oci()?).and_then(|resources| resources.cpu().as_ref());
        Ok(cpu
            .and_then(thousandths)
            .and_then(|limit| u64::try_from(limit).ok())
            .filter(|limit| *limit > 0))
    }

    fn mounts(&mut self) -> Result<Vec<types::Mount>> {
        let mounts = self.oci()?.mounts().iter().flatten();
        Ok(mounts.map(types::Mount::from).collect())
    }

    fn devices(&mut self) -> Result<Vec<String>> {
        let linux = self.oci()?.linux().as_ref();
        let devices = linux
            .and_then(|linux| linux.devices().as_ref())
            .into_iter()
            .flatten();
        Ok(devices
            .filter(|device| device.typ() != LinuxDeviceType::P)
            .map(|device| device.path().display().to_string())
            .collect())
    }

    fn spec(&mut self, pointer: String) -> Result<Option<String>> {
        let spec = canonical::json(self.oci()?)?;
        Ok(spec.pointer(&pointer).map(ToString::to_string))
    }
}

impl From<&SpecMount> for types::Mount {
    fn from(mount: &SpecMount) -> Self {
        Self {
            source: mount
                .source()
                .as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            destination: mount.destination().display().to_string(),
            kind: mount.typ().clone().unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
        }
    }
}

impl process::Host for &mut State {
    fn untrusted_args(&mut self) -> Result<Vec<String>> {
        Ok(self.exec()?.args().clone().unwrap_or_default())
    }

    fn uid(&mut self) -> Result<u32> {
        Ok(self.exec()?.user().uid())
    }

    fn gid(&mut self) -> Result<u32> {
        Ok(self.exec()?.user().gid())
    }

    fn terminal(&mut self) -> Result<bool> {
        Ok(self.exec()?.terminal().unwrap_or(false))
    }

    fn capabilities(&mut self) -> Result<Vec<String>> {
        Ok(bounding(self.exec()?))
    }

    fn untrusted_env(&mut self, name: String) -> Result<Option<String>> {
        Ok(variable(self.exec()?, &name))
    }

    fn untrusted_directory(&mut self) -> Result<String> {
        Ok(self.exec()?.cwd().display().to_string())
    }

    fn no_new_privileges(&mut self) -> Result<bool> {
        Ok(self.exec()?.no_new_privileges().unwrap_or(false))
    }
}

impl exit::Host for &mut State {
    fn code(&mut self) -> Result<u32> {
        Ok(self.ended()?.code)
    }

    fn oom_killed(&mut self) -> Result<bool> {
        Ok(self.ended()?.oom_killed)
    }
}

impl update::Host for &mut State {
    fn memory_limit(&mut self) -> Result<Option<i64>> {
        let memory = self.asked_for()?.memory().as_ref();
        Ok(memory
            .and_then(|memory| memory.limit())
            .filter(|limit| *limit != 0))
    }

    fn cpu_limit(&mut self) -> Result<Option<i64>> {
        let cpu = self.asked_for()?.cpu().as_ref();
        Ok(cpu.and_then(thousandths).filter(|limit| *limit != 0))
    }

    fn pids_limit(&mut self) -> Result<Option<i64>> {
        let pids = self.asked_for()?.pids().as_ref();
        Ok(pids.map(|pids| pids.limit()).filter(|limit| *limit != 0))
    }

    fn resources(&mut self, pointer: String) -> Result<Option<String>> {
        let resources = canonical::json(self.asked_for()?)?;
        Ok(resources.pointer(&pointer).map(ToString::to_string))
    }
}

impl host::Host for &mut State {
    fn log(&mut self, level: host::Level, message: String) -> Result<()> {
        let level = match level {
            host::Level::Debug => Level::Debug,
            host::Level::Info => Level::Info,
            host::Level::Warn => Level::Warn,
            host::Level::Error => Level::Error,
        };
        self.log.push(level, &message);
        Ok(())
    }

    fn settings(&mut self) -> Result<String> {
        Ok(self.settings.config.settings.clone())
    }
}

impl edit::Host for &mut State {
    fn set_env(&mut self, name: String, value: String) -> Result<()> {
        self.change(&Edit::SetEnv { name, value })
    }

    fn remove_env(&mut self, name: String) -> Result<()> {
        self.change(&Edit::RemoveEnv { name })
    }

    fn add_mount(&mut self, mount: types::Mount) -> Result<()> {
        let types::Mount {
            source,
            destination,
            kind,
            options,
        } = mount;
        self.change(&Edit::AddMount {
            source,
            destination,
            kind,
            options,
        })
    }

    fn remove_mount(&mut self, destination: String) -> Result<()> {
        self.change(&Edit::RemoveMount { destination })
    }

    fn set_rlimit(&mut self, name: String, soft: u64, hard: u64) -> Result<()> {
        self.change(&Edit::SetRlimit { name, soft, hard })
    }

    fn set_sysctl(&mut self, name: String, value: String) -> Result<()> {
        self.change(&Edit::SetSysctl { name, value })
    }

    fn drop_capability(&mut self, name: String) -> Result<()> {
        self.change(&Edit::DropCapability { name })
    }

    fn set_no_new_privileges(&mut self) -> Result<()> {
        self.change(&Edit::NoNewPrivileges)
    }

    fn set_seccomp_profile(&mut self, name: String) -> Result<()> {
        self.change(&Edit::SeccompProfile { name })
    }

    fn set_memory_limit(&mut self, bytes: u64) -> Result<()> {
        self.change(&Edit::MemoryLimit { bytes })
    }

    fn set_cpu_limit(&mut self, thousandths: u64) -> Result<()> {
        self.change(&Edit::CpuLimit { thousandths })
    }

    fn set_pids_limit(&mut self, count: u64) -> Result<()> {
        self.change(&Edit::PidsLimit { count })
    }

    fn set_cgroup_value(&mut self, file: String, value: String) -> Result<()> {
        self.change(&Edit::CgroupValue { file, value })
    }

    fn set_oom_score_adj(&mut self, value: i32) -> Result<()> {
        self.change(&Edit::OomScoreAdj { value })
    }

    fn mask_path(&mut self, path: String) -> Result<()> {
        self.change(&Edit::MaskPath { path })
    }

    fn make_path_read_only(&mut self, path: String) -> Result<()> {
        self.change(&Edit::ReadOnlyPath { path })
    }

    fn set_annotation(&mut self, key: String, value: String) -> Result<()> {
        self.change(&Edit::SetAnnotation { key, value })
    }

    fn delegate_cgroup(&mut self) -> Result<()> {
        self.change(&Edit::DelegateCgroup)
    }
}
