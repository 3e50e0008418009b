//! From Kubernetes' types to the engine's, with every value checked.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::expand::expand;
use super::objects::Objects;
use super::pod::{
    Capabilities, Container, Dns, EmptyDir, HostAlias, HostPathType, Pod, ProcMount, Propagation,
    PullPolicy, Resources, RestartPolicy, SeccompProfile, Security, Volume, VolumeMount,
};
use super::{Problem, quantity};
use crate::network::{Protocol, Published};

mod environment;
mod files;
mod probes;

/// Where the kubelet, and so the engine, looks for `seccompProfile.localhostProfile`.
const SECCOMP_PROFILES: &str = "/var/lib/kubelet/seccomp";

/// The longest name of a container, and of a pod that its host name is made from (RFC 1123).
const LONGEST_LABEL: usize = 63;

/// What Kubernetes gives a pod that sets no terminationGracePeriodSeconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Translates a manifest. What makes no sense is added to `found`, and with it there may be no pod;
/// what is not done, and need not be, to `left_aside`.
pub(super) fn pod(
    pod: v1::Pod,
    uid: &str,
    objects: &Objects,
    found: &mut Vec<Problem>,
    left_aside: &mut Vec<Problem>,
) -> Option<Pod> {
    let mut problems = Problems::default();
    let translated = Translation {
        problems: &mut problems,
        objects,
    }
    .pod(pod, uid);
    // Of a field that has been taken out for one reason no other is told.
    let told = |path: &str| found.iter().any(|problem| problem.path.starts_with(path));
    let new: Vec<_> = problems
        .0
        .into_iter()
        .filter(|it| !told(&it.path))
        .collect();
    found.extend(new);
    left_aside.append(&mut problems.1);
    translated
}

/// What stands in the way, and what is left aside.
#[derive(Default)]
struct Problems(Vec<Problem>, Vec<Problem>);

impl Problems {
    fn add(&mut self, path: &str, reason: impl Into<String>) {
        self.0.push(Problem::new(path, reason));
    }

    fn leave_aside(&mut self, path: &str, reason: &str) {
        self.1
            .push(Problem::new(path, format!("left aside: {reason}")));
    }

    /// The value, or none and one problem more.
    fn checked<T>(&mut self, path: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|reason| self.add(path, reason)).ok()
    }

    /// The value, or its default and one problem more.
    fn or_default<T: Default>(&mut self, path: &str, value: Result<T, String>) -> T {
        value.unwrap_or_else(|reason| {
            self.add(path, reason);
            T::default()
        })
    }
}

struct Translation<'a> {
    problems: &'a mut Problems,
    objects: &'a Objects,
}

impl Translation<'_> {
    fn pod(&mut self, pod: v1::Pod, uid: &str) -> Option<Pod> {
        let metadata = pod.metadata;
        let Some(spec) = pod.spec else {
            self.problems.add("spec", "missing");
            return None;
        };
        let name = metadata.name.unwrap_or_default();
        self.check_name("metadata.name", &name, '.');
        let uid = metadata.uid.unwrap_or_else(|| uid.to_owned());
        let namespace = metadata
            .namespace
            .unwrap_or_else(|| String::from("default"));
        self.check_name("metadata.namespace", &namespace, '-');
        let labels = metadata.labels.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let mut fields = fields(&name, &namespace, &uid, &labels, &annotations);
        let node = spec.node_name.filter(|node| !node.is_empty());
        fields.insert("spec.nodeName".into(), node.unwrap_or_else(this_node));
        let account = spec.service_account_name;
        let account = account.unwrap_or_else(|| String::from("default"));
        fields.insert("spec.serviceAccountName".into(), account);

        let security = spec.security_context.unwrap_or_default();
        let fs_group = security
            .fs_group
            .map(|id| self.id("spec.securityContext.fsGroup", id));
        let volumes = self.volumes(spec.volumes.unwrap_or_default());
        let mut used = BTreeSet::new();
        let mut list = |path: &str, containers: Vec<v1::Container>| -> Vec<Container> {
            let each = containers.into_iter().enumerate();
            each.map(|(index, container)| {
                let path = format!("{path}[{index}]");
                if !used.insert(container.name.clone()) {
                    self.problems
                        .add(&format!("{path}.name"), "two containers have this name");
                }
                self.container(&path, container, &security, &fields, &volumes)
            })
            .collect()
        };
        let init_containers = spec.init_containers.unwrap_or_default();
        // Read first: what follows takes the containers.
        let mut ports_of_the_node = Vec::new();
        for (path, containers) in [
            ("spec.initContainers", &init_containers),
            ("spec.containers", &spec.containers),
        ] {
            for (index, container) in containers.iter().enumerate() {
                let ports = container.ports.as_deref().unwrap_or_default();
                ports_of_the_node.extend(
                    ports
                        .iter()
                        .enumerate()
                        .map(|(at, port)| (format!("{path}[{index}].ports[{at}]"), port.clone())),
                );
            }
        }
        let init_containers = list("spec.initContainers", init_containers);
        let containers = list("spec.containers", spec.containers);
        let host_ports = ports_of_the_node
            .iter()
            .filter_map(|(path, port)| self.host_port(path, port))
            .collect();
        if containers.is_empty() {
            self.problems
                .add("spec.containers", "a pod has at least one container");
        }
        let host_pid = spec.host_pid.unwrap_or_default();
        let share_process_namespace = spec.share_process_namespace.unwrap_or_default();
        if host_pid && share_process_namespace {
            self.problems
                .add("spec.shareProcessNamespace", "cannot be true with hostPID");
        }
        Some(Pod {
            hostname: self.hostname(spec.hostname, &name),
            host_network: spec.host_network.unwrap_or_default(),
            host_ports,
            host_pid,
            host_ipc: spec.host_ipc.unwrap_or_default(),
            share_process_namespace,
            host_aliases: self.host_aliases(spec.host_aliases.unwrap_or_default()),
            dns: self.dns(spec.dns_policy, spec.dns_config.unwrap_or_default()),
            restart_policy: self.restart_policy(spec.restart_policy.as_deref()),
            grace: self.grace(spec.termination_grace_period_seconds),
            sysctls: security
                .sysctls
                .unwrap_or_default()
                .into_iter()
                .map(|sysctl| (sysctl.name, sysctl.value))
                .collect(),
            fs_group,
            volumes,
            init_containers,
            containers,
            left_aside: Vec::new(),
            name,
            namespace,
            uid,
            labels,
            annotations,
        })
    }

    /// The port of the node that leads to a port, if it has one.
    fn host_port(&mut self, path: &str, port: &v1::ContainerPort) -> Option<Published> {
        let host_port = port.host_port.filter(|port| *port != 0)?;
        let number = |number: i32| {
            u16::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{number} is no port: 1 to 65535"))
        };
        let address = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
        let address = address.map(|ip| {
            let parsed = ip.parse().map_err(|_| format!("`{ip}` is no IP address"));
            self.problems.checked(&format!("{path}.hostIP"), parsed)
        });
        let node = self
            .problems
            .or_default(&format!("{path}.hostPort"), number(host_port));
        let pod = self.problems.or_default(
            &format!("{path}.containerPort"),
            number(port.container_port),
        );
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            other => {
                self.problems.leave_aside(
                    &format!("{path}.hostPort"),
                    &format!("a port of the node leads to TCP or UDP, not to {other}"),
                );
                return None;
            }
        };
        Some(Published {
            address: address.flatten(),
            node,
            pod,
            protocol,
        })
    }

    /// Checks a DNS label, or a name of several when `also` is `.` (RFC 1123).
    fn check_name(&mut self, path: &str, name: &str, also: char) {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == also;
        let ends = |c: char| c != '-' && c != '.';
        let sound = name.chars().all(legal)
            && name.chars().next().is_some_and(ends)
            && name.chars().next_back().is_some_and(ends);
        let longest = if also == '.' { 253 } else { LONGEST_LABEL };
        if !sound || name.len() > longest {
            self.problems.add(
                path,
                format!(
                    "`{name}` is not a name: lower-case letters, digits and `-`, at most {longest}"
                ),
            );
        }
    }

    /// The pod's name cut to a label, as the kubelet does it, if there is no hostname.
    fn hostname(&mut self, hostname: Option<String>, name: &str) -> String {
        match hostname {
            Some(hostname) => {
                self.check_name("spec.hostname", &hostname, '-');
                hostname
            }
            None => {
                let cut: String = name.chars().take(LONGEST_LABEL).collect();
                cut.trim_end_matches(['-', '.']).to_owned()
            }
        }
    }

    fn host_aliases(&mut self, aliases: Vec<v1::HostAlias>) -> Vec<HostAlias> {
        let mut translated = Vec::new();
        for (index, alias) in aliases.into_iter().enumerate() {
            match alias.ip.parse::<IpAddr>() {
                Ok(ip) => translated.push(HostAlias {
                    ip,
                    hostnames: alias.hostnames.unwrap_or_default(),
                }),
                Err(error) => {
                    self.problems
                        .add(&format!("spec.hostAliases[{index}].ip"), error.to_string());
                }
            }
        }
        translated
    }

    fn dns(&mut self, policy: Option<String>, config: v1::PodDNSConfig) -> Dns {
        let options = config
            .options
            .unwrap_or_default()
            .into_iter()
            .map(|option| {
                let name = option.name.unwrap_or_default();
                option
                    .value
                    .map_or(name.clone(), |value| format!("{name}:{value}"))
            });
        let dns = Dns {
            from_node: policy.as_deref() != Some("None"),
            servers: config.nameservers.unwrap_or_default(),
            searches: config.searches.unwrap_or_default(),
            options: options.collect(),
        };
        match policy.as_deref() {
            // Outside a cluster there is no cluster DNS: the node's, as a kubelet without one does.
            None | Some("Default" | "ClusterFirst" | "ClusterFirstWithHostNet") => {}
            Some("None") if !dns.servers.is_empty() => {}
            Some("None") => {
                self.problems
                    .add("spec.dnsConfig.nameservers", "needed with dnsPolicy: None");
            }
            Some(other) => self.problems.add("spec.dnsPolicy", unknown(other)),
        }
        dns
    }

    fn restart_policy(&mut self, policy: Option<&str>) -> RestartPolicy {
        match policy {
            None | Some("Always") => RestartPolicy::Always,
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            Some(other) => {
                self.problems.add("spec.restartPolicy", unknown(other));
                RestartPolicy::Never
            }
        }
    }

    fn grace(&mut self, seconds: Option<i64>) -> Duration {
        let seconds = u64::try_from(seconds.unwrap_or(DEFAULT_GRACE_SECONDS));
        Duration::from_secs(self.problems.or_default(
            "spec.terminationGracePeriodSeconds",
            seconds.map_err(|_| String::from("cannot be negative")),
        ))
    }

    fn volumes(&mut self, volumes: Vec<v1::Volume>) -> BTreeMap<String, Volume> {
        let mut translated = BTreeMap::new();
        for (index, volume) in volumes.into_iter().enumerate() {
            let path = format!("spec.volumes[{index}]");
            self.check_name(&format!("{path}.name"), &volume.name, '-');
            let v1::Volume {
                empty_dir,
                host_path,
                config_map,
                secret,
                ..
            } = volume;
            let found = match (empty_dir, host_path, config_map, secret) {
                (Some(empty), None, None, None) => self.empty_dir(&path, &empty),
                (None, Some(host), None, None) => self.host_path(&path, host),
                (None, None, Some(map), None) => self.config_map(&path, map),
                (None, None, None, Some(secret)) => self.secret(&path, secret),
                _ => {
                    self.problems.add(
                        &path,
                        "must have one of emptyDir, hostPath, configMap and secret",
                    );
                    // Mounts of it are not to be told of too.
                    Volume::EmptyDir(EmptyDir::Disk)
                }
            };
            if translated.insert(volume.name, found).is_some() {
                self.problems
                    .add(&format!("{path}.name"), "two volumes have this name");
            }
        }
        translated
    }

    fn empty_dir(&mut self, path: &str, volume: &v1::EmptyDirVolumeSource) -> Volume {
        let limit = format!("{path}.emptyDir.sizeLimit");
        let size = volume.size_limit.as_ref().map(|Quantity(text)| {
            let size = quantity::units(text);
            self.problems.or_default(
                &limit,
                size.and_then(|size| u64::try_from(size).map_err(|error| error.to_string())),
            )
        });
        Volume::EmptyDir(match (volume.medium.as_deref().unwrap_or_default(), size) {
            ("Memory", size) => EmptyDir::Memory { size },
            ("", None) => EmptyDir::Disk,
            ("", Some(_)) => {
                self.problems.leave_aside(
                    &limit,
                    "only a volume in memory (medium: Memory) has a limit",
                );
                EmptyDir::Disk
            }
            (other, _) => {
                self.problems
                    .add(&format!("{path}.emptyDir.medium"), unknown(other));
                EmptyDir::Disk
            }
        })
    }

    fn host_path(&mut self, path: &str, volume: v1::HostPathVolumeSource) -> Volume {
        let kind = match volume.type_.as_deref().unwrap_or_default() {
            "" => HostPathType::Unset,
            "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
            "Directory" => HostPathType::Directory,
            "FileOrCreate" => HostPathType::FileOrCreate,
            "File" => HostPathType::File,
            "Socket" => HostPathType::Socket,
            "CharDevice" => HostPathType::CharDevice,
            "BlockDevice" => HostPathType::BlockDevice,
            other => {
                self.problems
                    .add(&format!("{path}.hostPath.type"), unknown(other));
                HostPathType::Unset
            }
        };
        let host = PathBuf::from(volume.path);
        if !host.is_absolute() || climbs(&host) {
            let path = format!("{path}.hostPath.path");
            self.problems
                .add(&path, "must be an absolute path without `..`");
        }
        Volume::HostPath { path: host, kind }
    }

    fn container(
        &mut self,
        path: &str,
        container: v1::Container,
        pod: &v1::PodSecurityContext,
        fields: &HashMap<String, String>,
        volumes: &BTreeMap<String, Volume>,
    ) -> Container {
        self.check_name(&format!("{path}.name"), &container.name, '-');
        let image = container.image.unwrap_or_default();
        if image.is_empty() {
            self.problems.add(&format!("{path}.image"), "missing");
        }
        let env = self.env(
            path,
            container.env_from.unwrap_or_default(),
            container.env.unwrap_or_default(),
            fields,
        );
        let ports = container.ports.unwrap_or_default();
        let lifecycle = container.lifecycle.unwrap_or_default();
        let post_start = self.hook(
            &format!("{path}.lifecycle.postStart"),
            lifecycle.post_start,
            &ports,
        );
        let pre_stop = self.hook(
            &format!("{path}.lifecycle.preStop"),
            lifecycle.pre_stop,
            &ports,
        );
        let mut probe = |field: &str, probe, successes| {
            self.probe(&format!("{path}.{field}"), probe, &ports, successes)
        };
        let startup = probe("startupProbe", container.startup_probe, false);
        let liveness = probe("livenessProbe", container.liveness_probe, false);
        let readiness = probe("readinessProbe", container.readiness_probe, true);
        let variables: HashMap<_, _> = env.iter().cloned().collect();
        let expanded = |words: Option<Vec<String>>| {
            words
                .unwrap_or_default()
                .iter()
                .map(|word| expand(word, &variables))
                .collect()
        };
        let security = container.security_context.unwrap_or_default();
        let security = self.security(path, security, pod);
        let mounts = container
            .volume_mounts
            .unwrap_or_default()
            .into_iter()
            .enumerate();
        let mounts = mounts
            .map(|(index, mount)| {
                let path = format!("{path}.volumeMounts[{index}]");
                self.mount(&path, mount, volumes, security.privileged)
            })
            .collect();
        Container {
            pull_policy: self.pull_policy(path, container.image_pull_policy.as_deref(), &image),
            command: expanded(container.command),
            args: expanded(container.args),
            env,
            working_dir: container.working_dir.map(PathBuf::from),
            resources: self.resources(path, container.resources.unwrap_or_default()),
            security,
            mounts,
            sidecar: self.sidecar(path, container.restart_policy.as_deref()),
            stdin: container.stdin.unwrap_or_default(),
            tty: container.tty.unwrap_or_default(),
            post_start,
            pre_stop,
            startup,
            liveness,
            readiness,
            name: container.name,
            image,
        }
    }

    fn sidecar(&mut self, path: &str, policy: Option<&str>) -> bool {
        match policy {
            None => false,
            Some("Always") => true,
            Some(other) => {
                self.problems
                    .add(&format!("{path}.restartPolicy"), unknown(other));
                false
            }
        }
    }

    /// Kubernetes' default: `Always` for the tag `latest` and for none, otherwise `IfNotPresent`.
    fn pull_policy(&mut self, path: &str, policy: Option<&str>, image: &str) -> PullPolicy {
        let last = image.rsplit('/').next().unwrap_or_default();
        let latest = !last.contains(':') || last.ends_with(":latest");
        match policy {
            None if latest && !image.contains('@') => PullPolicy::Always,
            None | Some("IfNotPresent") => PullPolicy::IfNotPresent,
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some(other) => {
                self.problems
                    .add(&format!("{path}.imagePullPolicy"), unknown(other));
                PullPolicy::Never
            }
        }
    }

    fn resources(&mut self, path: &str, resources: v1::ResourceRequirements) -> Resources {
        let mut translated = Resources::default();
        let limits = resources.limits.unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        for (list, quantities) in [("limits", limits), ("requests", requests)] {
            for (name, Quantity(text)) in quantities {
                let path = format!("{path}.resources.{list}.{name}");
                let value = match name.as_str() {
                    "cpu" => quantity::milli(&text),
                    "memory" => quantity::units(&text),
                    "ephemeral-storage" => {
                        let reason = "nobody counts what a container writes to its own files";
                        self.problems.leave_aside(&path, reason);
                        quantity::units(&text)
                    }
                    _ => Err(String::from(
                        "not supported by husk run, only cpu and memory",
                    )),
                };
                let value = self.problems.or_default(&path, value);
                match (list, name.as_str()) {
                    // Zero is no limit, as for a kubelet.
                    ("limits", "cpu") => {
                        translated.cpu_limit = u64::try_from(value).ok().filter(|it| *it > 0);
                    }
                    ("limits", "memory") => {
                        translated.memory_limit = Some(value).filter(|it| *it > 0);
                    }
                    (_, "cpu") => translated.cpu_request = u64::try_from(value).ok(),
                    // A memory request places a pod on a node; there is one node here.
                    _ => {}
                }
            }
        }
        if let (Some(limit), Some(request)) = (translated.cpu_limit, translated.cpu_request)
            && request > limit
        {
            let path = format!("{path}.resources.requests.cpu");
            self.problems.add(&path, "must not be above the limit");
        }
        translated
    }

    fn security(
        &mut self,
        path: &str,
        own: v1::SecurityContext,
        pod: &v1::PodSecurityContext,
    ) -> Security {
        let path = format!("{path}.securityContext");
        let mut groups: Vec<u32> = Vec::new();
        for group in pod
            .supplemental_groups
            .iter()
            .flatten()
            .chain(&pod.fs_group)
        {
            groups.push(self.id("spec.securityContext.supplementalGroups", *group));
        }
        let privileged = own.privileged.unwrap_or_default();
        let privilege_escalation = own.allow_privilege_escalation.unwrap_or(true);
        if privileged && !privilege_escalation {
            let path = format!("{path}.allowPrivilegeEscalation");
            self.problems
                .add(&path, "cannot be false with privileged: true");
        }
        let capabilities = own.capabilities.unwrap_or_default();
        let profile = own
            .seccomp_profile
            .as_ref()
            .or(pod.seccomp_profile.as_ref());
        Security {
            user: own
                .run_as_user
                .or(pod.run_as_user)
                .map(|id| self.id(&format!("{path}.runAsUser"), id)),
            group: own
                .run_as_group
                .or(pod.run_as_group)
                .map(|id| self.id(&format!("{path}.runAsGroup"), id)),
            groups,
            non_root: own
                .run_as_non_root
                .or(pod.run_as_non_root)
                .unwrap_or_default(),
            read_only_root: own.read_only_root_filesystem.unwrap_or_default(),
            privileged,
            capabilities: Capabilities {
                add: capability_names(capabilities.add),
                drop: capability_names(capabilities.drop),
            },
            privilege_escalation,
            seccomp: self.seccomp(&path, profile, privileged),
            proc_mount: match own.proc_mount.as_deref() {
                None | Some("Default") => ProcMount::Default,
                Some("Unmasked") => ProcMount::Unmasked,
                Some(other) => {
                    self.problems
                        .add(&format!("{path}.procMount"), unknown(other));
                    ProcMount::Default
                }
            },
        }
    }

    fn seccomp(
        &mut self,
        path: &str,
        profile: Option<&v1::SeccompProfile>,
        privileged: bool,
    ) -> SeccompProfile {
        match profile.map(|profile| (profile.type_.as_str(), &profile.localhost_profile)) {
            _ if privileged => SeccompProfile::Unconfined,
            None | Some(("RuntimeDefault", None)) => SeccompProfile::RuntimeDefault,
            Some(("Unconfined", None)) => SeccompProfile::Unconfined,
            Some(("Localhost", Some(file))) if !climbs(Path::new(file)) => {
                SeccompProfile::Localhost(Path::new(SECCOMP_PROFILES).join(file))
            }
            Some((kind, file)) => {
                self.problems.add(
                    &format!("{path}.seccompProfile"),
                    format!("`{kind}` with localhostProfile {file:?} makes no sense"),
                );
                SeccompProfile::RuntimeDefault
            }
        }
    }

    fn mount(
        &mut self,
        path: &str,
        mount: v1::VolumeMount,
        volumes: &BTreeMap<String, Volume>,
        privileged: bool,
    ) -> VolumeMount {
        if !volumes.contains_key(&mount.name) {
            let reason = format!("spec.volumes has no `{}`", mount.name);
            self.problems.add(&format!("{path}.name"), reason);
        }
        let target = PathBuf::from(&mount.mount_path);
        if !target.is_absolute() || climbs(&target) {
            self.problems.add(
                &format!("{path}.mountPath"),
                "must be an absolute path without `..`",
            );
        }
        let sub_path = mount
            .sub_path
            .filter(|sub| !sub.is_empty())
            .map(PathBuf::from);
        if sub_path
            .as_ref()
            .is_some_and(|sub| sub.is_absolute() || climbs(sub))
        {
            self.problems.add(
                &format!("{path}.subPath"),
                "must be a relative path without `..`",
            );
        }
        // What comes from an object is the object's, as a kubelet has it.
        let files = matches!(volumes.get(&mount.name), Some(Volume::Files { .. }));
        let read_only = mount.read_only.unwrap_or_default() || files;
        let recursive_read_only = match mount.recursive_read_only.as_deref() {
            None | Some("Disabled") => false,
            Some("Enabled" | "IfPossible") if read_only => true,
            Some("Enabled" | "IfPossible") => {
                let path = format!("{path}.recursiveReadOnly");
                self.problems.add(&path, "needs readOnly: true");
                false
            }
            Some(other) => {
                self.problems
                    .add(&format!("{path}.recursiveReadOnly"), unknown(other));
                false
            }
        };
        let propagation = match mount.mount_propagation.as_deref() {
            None | Some("None") => Propagation::None,
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") if privileged => Propagation::Bidirectional,
            Some("Bidirectional") => {
                let path = format!("{path}.mountPropagation");
                self.problems
                    .add(&path, "Bidirectional needs a privileged container");
                Propagation::None
            }
            Some(other) => {
                self.problems
                    .add(&format!("{path}.mountPropagation"), unknown(other));
                Propagation::None
            }
        };
        VolumeMount {
            volume: mount.name,
            path: target,
            sub_path,
            read_only,
            recursive_read_only,
            propagation,
        }
    }

    fn id(&mut self, path: &str, id: i64) -> u32 {
        let id = u32::try_from(id).map_err(|_| format!("{id} is no id: 0 to 4294967295"));
        self.problems.or_default(path, id)
    }
}

/// The node's name, as far as a process can tell.
fn this_node() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The values that `fieldRef` can name.
fn fields(
    name: &str,
    namespace: &str,
    uid: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> HashMap<String, String> {
    let fixed = [
        ("metadata.name", name),
        ("metadata.namespace", namespace),
        ("metadata.uid", uid),
    ];
    let fixed = fixed
        .into_iter()
        .map(|(path, value)| (path.to_owned(), value.to_owned()));
    let keyed = [("labels", labels), ("annotations", annotations)]
        .into_iter()
        .flat_map(|(map, values)| {
            values
                .iter()
                .map(move |(key, value)| (format!("metadata.{map}['{key}']"), value.clone()))
        });
    fixed.chain(keyed).collect()
}

fn capability_names(names: Option<Vec<String>>) -> Vec<String> {
    let plain = |name: String| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_")
            .map(ToOwned::to_owned)
            .unwrap_or(name)
    };
    names.unwrap_or_default().into_iter().map(plain).collect()
}

fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

fn unknown(value: &str) -> String {
    format!("`{value}` is not a value that husk run knows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Error, parse};

    fn manifest(spec: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: {{app: shop}}\nspec:\n{spec}"
        )
    }

    fn parsed(spec: &str) -> Pod {
        parse("pod.yaml", &manifest(spec), "some-uid").unwrap()
    }

    fn problems(spec: &str) -> Vec<String> {
        match parse("pod.yaml", &manifest(spec), "some-uid") {
            Err(Error::Fields { problems, .. }) => {
                problems.into_iter().map(|problem| problem.path).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let pod = parsed("  containers: [{name: a, image: 'busybox:1.36'}]\n");
        assert_eq!(
            (pod.namespace.as_str(), pod.hostname.as_str()),
            ("default", "web")
        );
        assert_eq!(pod.restart_policy, RestartPolicy::Always);
        assert_eq!(pod.grace, Duration::from_secs(30));
        let container = &pod.containers[0];
        assert_eq!(container.pull_policy, PullPolicy::IfNotPresent);
        assert!(container.security.privilege_escalation);
    }

    #[test]
    fn a_namespace_is_a_label() {
        for (namespace, right) in [
            ("team-a", true),
            ("team/a", false),
            ("..", false),
            ("a.b", false),
        ] {
            let text = manifest("  containers: [{name: a, image: x}]\n").replace(
                "metadata:",
                &format!("metadata:\n  namespace: '{namespace}'"),
            );
            let parsed = parse("pod.yaml", &text, "some-uid");
            assert_eq!(parsed.is_ok(), right, "{text}{parsed:?}");
        }
    }

    #[test]
    fn latest_is_pulled_always() {
        for (image, policy) in [
            ("busybox", PullPolicy::Always),
            ("localhost:5000/busybox", PullPolicy::Always),
            ("busybox:latest", PullPolicy::Always),
            ("localhost:5000/busybox:1", PullPolicy::IfNotPresent),
            ("busybox@sha256:00", PullPolicy::IfNotPresent),
        ] {
            let pod = parsed(&format!("  containers: [{{name: a, image: '{image}'}}]\n"));
            assert_eq!(pod.containers[0].pull_policy, policy, "{image}");
        }
    }

    #[test]
    fn environment_and_arguments_are_expanded() {
        let pod = parsed(
            "  containers:\n  - name: a\n    image: i\n    command: [echo, $(B), $(UNKNOWN)]\n    \
             env:\n    - {name: A, value: $(B)x}\n    - name: B\n      valueFrom: {fieldRef: \
             {fieldPath: 'metadata.labels[''app'']'}}\n    - {name: C, value: $(A)-$(B)}\n",
        );
        let container = &pod.containers[0];
        assert_eq!(container.command, ["echo", "shop", "$(UNKNOWN)"]);
        let env: Vec<_> = container
            .env
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(env, ["$(B)x", "shop", "$(B)x-shop"]);
    }

    #[test]
    fn limits_and_requests_are_read() {
        let pod = parsed(
            "  containers:\n  - name: a\n    image: i\n    resources:\n      limits: {cpu: 1, \
             memory: 256Mi}\n      requests: {cpu: 250m, memory: 1Mi}\n",
        );
        let expected = Resources {
            cpu_request: Some(250),
            cpu_limit: Some(1000),
            memory_limit: Some(256 << 20),
        };
        assert_eq!(pod.containers[0].resources, expected);
    }

    #[test]
    fn the_container_s_security_context_wins() {
        let pod = parsed(
            "  securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: \
             [4]}\n  containers:\n  - name: a\n    image: i\n    securityContext: {runAsUser: 5, \
             capabilities: {drop: [all], add: [cap_net_admin]}}\n",
        );
        let security = &pod.containers[0].security;
        assert_eq!((security.user, security.group), (Some(5), Some(2)));
        assert_eq!(security.groups, [4, 3]);
        assert_eq!(security.capabilities.drop, ["ALL"]);
        assert_eq!(security.capabilities.add, ["NET_ADMIN"]);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let one = "  containers: [{name: a, image: i}]\n";
        for (spec, path) in [
            ("  containers: []\n".into(), "spec.containers"),
            (
                "  containers: [{name: A_b, image: i}]\n".into(),
                "spec.containers[0].name",
            ),
            (
                "  containers: [{name: a}]\n".into(),
                "spec.containers[0].image",
            ),
            (
                "  containers: [{name: a, image: i}, {name: a, image: i}]\n".into(),
                "spec.containers[1].name",
            ),
            (
                format!("{one}  restartPolicy: Sometimes\n"),
                "spec.restartPolicy",
            ),
            (
                format!("{one}  dnsPolicy: None\n"),
                "spec.dnsConfig.nameservers",
            ),
            (
                format!("{one}  volumes: [{{name: v, emptyDir: {{sizeLimit: -1Mi}}}}]\n"),
                "spec.volumes[0].emptyDir.sizeLimit",
            ),
            (
                format!("{one}  volumes: [{{name: v, hostPath: {{path: a/../b}}}}]\n"),
                "spec.volumes[0].hostPath.path",
            ),
            (
                "  containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /v}]}]\n"
                    .into(),
                "spec.containers[0].volumeMounts[0].name",
            ),
            (
                "  containers: [{name: a, image: i, resources: {limits: {cpu: lots}}}]\n".into(),
                "spec.containers[0].resources.limits.cpu",
            ),
            (
                "  containers: [{name: a, image: i, resources: {limits: {nvidia.com/gpu: 1}}}]\n"
                    .into(),
                "spec.containers[0].resources.limits.nvidia.com/gpu",
            ),
            (
                "  containers: [{name: a, image: i, env: [{name: IP, valueFrom: {fieldRef: \
                 {fieldPath: status.podIP}}}]}]\n"
                    .into(),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
            ),
        ] {
            assert_eq!(problems(&spec), [path], "{spec}");
        }
    }
}
