//! The fields of a Pod: which of them the engine implements, which say nothing outside a cluster, and
//! which are left aside with a word. Every other is refused by name.
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::Problem;
use super::located::joined;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Bool,
    Integer,
    /// A number of a port, or its name.
    Port,
    /// A number, or a text such as `500m`.
    Quantity,
}

use Type::{Bool, Integer, Port, Quantity, Text};

/// What the engine does. `[]` stands for any index, `*` for any key.
const POD: &[(&str, Type)] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata.annotations.*", Text),
    ("metadata.labels.*", Text),
    ("metadata.name", Text),
    ("metadata.namespace", Text),
    ("metadata.uid", Text),
    ("spec.dnsConfig.nameservers[]", Text),
    ("spec.dnsConfig.options[].name", Text),
    ("spec.dnsConfig.options[].value", Text),
    ("spec.dnsConfig.searches[]", Text),
    ("spec.dnsPolicy", Text),
    ("spec.hostAliases[].hostnames[]", Text),
    ("spec.hostAliases[].ip", Text),
    ("spec.hostIPC", Bool),
    ("spec.hostNetwork", Bool),
    ("spec.hostPID", Bool),
    ("spec.hostname", Text),
    ("spec.nodeName", Text),
    ("spec.restartPolicy", Text),
    ("spec.securityContext.fsGroup", Integer),
    ("spec.securityContext.runAsGroup", Integer),
    ("spec.securityContext.runAsNonRoot", Bool),
    ("spec.securityContext.runAsUser", Integer),
    ("spec.securityContext.seccompProfile.localhostProfile", Text),
    ("spec.securityContext.seccompProfile.type", Text),
    ("spec.securityContext.supplementalGroups[]", Integer),
    ("spec.securityContext.sysctls[].name", Text),
    ("spec.securityContext.sysctls[].value", Text),
    ("spec.serviceAccountName", Text),
    ("spec.shareProcessNamespace", Bool),
    ("spec.terminationGracePeriodSeconds", Integer),
    ("spec.volumes[].configMap.defaultMode", Integer),
    ("spec.volumes[].configMap.items[].key", Text),
    ("spec.volumes[].configMap.items[].mode", Integer),
    ("spec.volumes[].configMap.items[].path", Text),
    ("spec.volumes[].configMap.name", Text),
    ("spec.volumes[].configMap.optional", Bool),
    ("spec.volumes[].emptyDir.medium", Text),
    ("spec.volumes[].emptyDir.sizeLimit", Quantity),
    ("spec.volumes[].hostPath.path", Text),
    ("spec.volumes[].hostPath.type", Text),
    ("spec.volumes[].name", Text),
    ("spec.volumes[].secret.defaultMode", Integer),
    ("spec.volumes[].secret.items[].key", Text),
    ("spec.volumes[].secret.items[].mode", Integer),
    ("spec.volumes[].secret.items[].path", Text),
    ("spec.volumes[].secret.optional", Bool),
    ("spec.volumes[].secret.secretName", Text),
];

/// The same for each container.
const CONTAINER: &[(&str, Type)] = &[
    ("args[]", Text),
    ("command[]", Text),
    ("env[].name", Text),
    ("env[].value", Text),
    ("env[].valueFrom.configMapKeyRef.key", Text),
    ("env[].valueFrom.configMapKeyRef.name", Text),
    ("env[].valueFrom.configMapKeyRef.optional", Bool),
    ("env[].valueFrom.fieldRef.apiVersion", Text),
    ("env[].valueFrom.fieldRef.fieldPath", Text),
    ("env[].valueFrom.secretKeyRef.key", Text),
    ("env[].valueFrom.secretKeyRef.name", Text),
    ("env[].valueFrom.secretKeyRef.optional", Bool),
    ("envFrom[].configMapRef.name", Text),
    ("envFrom[].configMapRef.optional", Bool),
    ("envFrom[].prefix", Text),
    ("envFrom[].secretRef.name", Text),
    ("envFrom[].secretRef.optional", Bool),
    ("image", Text),
    ("imagePullPolicy", Text),
    ("name", Text),
    ("ports[].containerPort", Integer),
    ("ports[].hostIP", Text),
    ("ports[].hostPort", Integer),
    ("ports[].name", Text),
    ("ports[].protocol", Text),
    ("resources.limits.*", Quantity),
    ("resources.requests.*", Quantity),
    ("securityContext.allowPrivilegeEscalation", Bool),
    ("securityContext.capabilities.add[]", Text),
    ("securityContext.capabilities.drop[]", Text),
    ("securityContext.privileged", Bool),
    ("securityContext.procMount", Text),
    ("securityContext.readOnlyRootFilesystem", Bool),
    ("securityContext.runAsGroup", Integer),
    ("securityContext.runAsNonRoot", Bool),
    ("securityContext.runAsUser", Integer),
    ("securityContext.seccompProfile.localhostProfile", Text),
    ("securityContext.seccompProfile.type", Text),
    ("stdin", Bool),
    ("stdinOnce", Bool),
    ("tty", Bool),
    ("volumeMounts[].mountPath", Text),
    ("volumeMounts[].mountPropagation", Text),
    ("volumeMounts[].name", Text),
    ("volumeMounts[].readOnly", Bool),
    ("volumeMounts[].recursiveReadOnly", Text),
    ("volumeMounts[].subPath", Text),
    ("workingDir", Text),
];

/// Of each of `lifecycle.postStart`, `lifecycle.preStop` and the probes of a container.
const ACTION: &[(&str, Type)] = &[
    ("exec.command[]", Text),
    ("httpGet.host", Text),
    ("httpGet.httpHeaders[].name", Text),
    ("httpGet.httpHeaders[].value", Text),
    ("httpGet.path", Text),
    ("httpGet.port", Port),
    ("httpGet.scheme", Text),
    ("sleep.seconds", Integer),
    ("tcpSocket.host", Text),
    ("tcpSocket.port", Port),
];

/// Of each probe.
const PROBE: &[(&str, Type)] = &[
    ("failureThreshold", Integer),
    ("initialDelaySeconds", Integer),
    ("periodSeconds", Integer),
    ("successThreshold", Integer),
    ("terminationGracePeriodSeconds", Integer),
    ("timeoutSeconds", Integer),
];

const HOOKS: [&str; 2] = ["lifecycle.postStart", "lifecycle.preStop"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Only init containers: `Always` makes one a sidecar.
const INIT_CONTAINER: &str = "spec.initContainers[].restartPolicy";

/// What an API server sets, or a scheduler reads: for one pod on one node it says nothing.
const SAYS_NOTHING: &[&str] = &[
    "metadata.creationTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.finalizers",
    "metadata.generateName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.selfLink",
    "spec.enableServiceLinks",
    "spec.os",
    "spec.preemptionPolicy",
    "spec.priority",
    "spec.schedulerName",
    "spec.serviceAccount",
    "spec.tolerations",
    "status",
    "spec.containers[].terminationMessagePath",
    "spec.containers[].terminationMessagePolicy",
    "spec.initContainers[].terminationMessagePath",
    "spec.initContainers[].terminationMessagePolicy",
];

/// What says nothing with this value, which is what holds where it is not said.
const DEFAULTS: &[(&str, &str)] = &[
    ("spec.hostUsers", "true"),
    // How the group of a volume with files in it is changed; those of a pod here are new.
    ("spec.securityContext.fsGroupChangePolicy", "\"Always\""),
    (
        "spec.securityContext.fsGroupChangePolicy",
        "\"OnRootMismatch\"",
    ),
    ("spec.securityContext.supplementalGroupsPolicy", "\"Merge\""),
];

/// What a cluster would do and one node need not: left aside, with a word.
const LEFT_ASIDE: &[(&str, &str)] = &[
    ("spec.affinity", "there is one node"),
    (
        "spec.automountServiceAccountToken",
        "there is no API server",
    ),
    (
        "spec.imagePullSecrets",
        "credentials come from ~/.docker/config.json",
    ),
    ("spec.nodeSelector", "there is one node"),
    ("spec.overhead", "nothing is scheduled"),
    ("spec.priorityClassName", "nothing is scheduled"),
    ("spec.readinessGates", "there is no API server"),
    (
        "spec.runtimeClassName",
        "--shim and --config choose the runtime",
    ),
    ("spec.schedulingGates", "nothing is scheduled"),
    ("spec.setHostnameAsFQDN", "there is no cluster domain"),
    ("spec.subdomain", "there is no cluster domain"),
    ("spec.topologySpreadConstraints", "there is one node"),
];

/// Every field of `document` that stands in the way. `ignored` gets those that are left aside, and
/// both kinds are taken out of it.
pub(super) fn check(document: &mut Value, ignored: &mut Vec<Problem>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut walk = Walk {
        known: None,
        only_types: true,
        problems: &mut problems,
        ignored,
        of_the_cluster: BTreeSet::new(),
    };
    walk.leave_out_the_cluster_s(document);
    // First the types, as Kubernetes' own reading stops at the first that is wrong.
    let mut readable = document.clone();
    walk.value(&mut readable, "", "");
    let known: Option<Pod> = serde_json::from_value(readable).ok();
    let mut again = Vec::new();
    let of_the_cluster = walk.of_the_cluster;
    problems.clear();
    Walk {
        known: known.and_then(|pod| serde_json::to_value(pod).ok()),
        only_types: false,
        problems: &mut problems,
        ignored: &mut again,
        of_the_cluster,
    }
    .value(document, "", "");
    problems
}

struct Walk<'a> {
    /// The same document as Kubernetes' types understand it: what is missing there is no field at all.
    known: Option<Value>,
    /// Whether what is on no list stays.
    only_types: bool,
    problems: &'a mut Vec<Problem>,
    ignored: &'a mut Vec<Problem>,
    /// Volumes with the token of a service account, which an API server adds to every pod.
    of_the_cluster: BTreeSet<String>,
}

/// What the volume is called that an API server adds.
const TOKEN_VOLUME: &str = "kube-api-access-";

impl Walk<'_> {
    /// Takes out what an API server added for itself.
    fn leave_out_the_cluster_s(&mut self, document: &mut Value) {
        let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
        let Some(spec) = document.get_mut("spec") else {
            return;
        };
        if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
            volumes.retain(|volume| {
                let token = name(volume).filter(|name| name.starts_with(TOKEN_VOLUME));
                let added = volume.get("projected").is_some() && token.is_some();
                if added {
                    self.of_the_cluster.extend(token);
                }
                !added
            });
        }
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let mounts = container.get_mut("volumeMounts");
                if let Some(mounts) = mounts.and_then(Value::as_array_mut) {
                    mounts
                        .retain(|it| name(it).is_none_or(|it| !self.of_the_cluster.contains(&it)));
                }
            }
        }
        for volume in &self.of_the_cluster {
            let reason = format!("left aside: `{volume}` is the token of an API server");
            self.ignored.push(Problem::new("spec.volumes", reason));
        }
    }

    fn value(&mut self, value: &mut Value, path: &str, pattern: &str) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, field| {
                    let pattern = if is_map(pattern) {
                        format!("{pattern}.*")
                    } else {
                        joined(pattern, name)
                    };
                    self.field(field, &joined(path, name), &pattern)
                });
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, &format!("{path}[{index}]"), &format!("{pattern}[]"));
                }
                if let Some(Item::Leaf(kind)) = find(&format!("{pattern}[]")) {
                    let mut at = 0;
                    items.retain(|item| {
                        let fits = self.fits(item, kind, &format!("{path}[{at}]"));
                        at += 1;
                        fits
                    });
                }
            }
            _ => {}
        }
    }

    /// Whether the field stays.
    fn field(&mut self, field: &mut Value, path: &str, pattern: &str) -> bool {
        let says_nothing = match &*field {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if SAYS_NOTHING.contains(&pattern) {
            return false;
        }
        let value = field.to_string();
        if DEFAULTS.contains(&(pattern, value.as_str())) {
            return false;
        }
        if let Some((_, why)) = LEFT_ASIDE.iter().find(|(left, _)| *left == pattern) {
            // An API server writes `0` where nothing was said.
            if !says_nothing && field.as_i64() != Some(0) {
                self.ignored
                    .push(Problem::new(path, format!("left aside: {why}")));
            }
            return false;
        }
        match find(pattern) {
            // An empty object is a value where it is one: emptyDir: {}.
            Some(Item::Branch) if matches!(field, Value::Object(_)) && says_nothing => true,
            Some(_) if says_nothing => false,
            Some(Item::Branch) => self.branch(field, path, pattern),
            Some(Item::Leaf(kind)) => {
                let fits = self.fits(field, kind, path);
                if kind == Quantity && field.is_number() {
                    *field = field.to_string().into();
                }
                fits
            }
            None if self.only_types => true,
            None if says_nothing && self.is_known(path) => false,
            None => {
                self.problems
                    .push(Problem::new(path, self.reason(path, pattern)));
                false
            }
        }
    }

    fn branch(&mut self, field: &mut Value, path: &str, pattern: &str) -> bool {
        let list = find(&format!("{pattern}[]")).is_some();
        match (&*field, list) {
            (Value::Array(_), true) | (Value::Object(_), false) => {
                self.value(field, path, pattern);
                true
            }
            (_, true) => {
                self.problems.push(Problem::new(path, "must be a list"));
                false
            }
            (_, false) => {
                self.problems
                    .push(Problem::new(path, "must have fields of its own"));
                false
            }
        }
    }

    fn fits(&mut self, value: &Value, kind: Type, path: &str) -> bool {
        let (fits, wanted) = match kind {
            Text => (value.is_string(), "a text (put it in quotes)"),
            Bool => (value.is_boolean(), "true or false"),
            Integer => (value.is_i64() || value.is_u64(), "a whole number"),
            Port => (
                value.is_u64() || value.is_string(),
                "the number or the name of a port",
            ),
            Quantity => (
                value.is_number() || value.is_string(),
                "a quantity such as 500m or 256Mi",
            ),
        };
        if !fits {
            let reason = format!("must be {wanted}, and is {value}");
            self.problems.push(Problem::new(path, reason));
        }
        fits
    }

    fn is_known(&self, path: &str) -> bool {
        let Some(known) = &self.known else {
            // What Kubernetes would say is not known; what is empty stands in nobody's way.
            return true;
        };
        known.pointer(&pointer(path)).is_some()
    }

    fn reason(&self, path: &str, pattern: &str) -> String {
        if self.known.is_some() && self.is_known(path) {
            return String::from("not supported by husk run");
        }
        no_such_field("Pod (v1)", nearest(pattern).as_deref())
    }
}

/// A path as RFC 6901 writes it.
fn pointer(path: &str) -> String {
    let mut pointer = String::from("/");
    for c in path.chars() {
        match c {
            '.' | '[' => pointer.push('/'),
            ']' => {}
            '/' => pointer.push_str("~1"),
            '~' => pointer.push_str("~0"),
            c => pointer.push(c),
        }
    }
    pointer
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// It has fields or items that are on the lists.
    Branch,
    Leaf(Type),
}

/// What the lists say of a pattern.
fn find(pattern: &str) -> Option<Item> {
    let mut found = None;
    each(&mut |full: &str, kind| {
        let Some(rest) = full.strip_prefix(pattern) else {
            return;
        };
        if rest.is_empty() {
            found = Some(Item::Leaf(kind));
        } else if rest.starts_with(['.', '[']) && found.is_none() {
            found = Some(Item::Branch);
        }
    });
    found
}

/// The name on the lists that is most like the last name of the pattern, if any is much like it.
fn nearest(pattern: &str) -> Option<String> {
    let (above, name) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    let mut names = BTreeSet::new();
    let mut add = |full: &str| {
        let rest = full.strip_prefix(above)?;
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        names.insert(rest.split(['.', '[']).next()?.to_owned());
        Some(())
    };
    each(&mut |full, _| {
        add(full);
    });
    for full in SAYS_NOTHING
        .iter()
        .chain(LEFT_ASIDE.iter().map(|(full, _)| full))
    {
        add(full);
    }
    most_like(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The one of `names` that is most like a name that is not among them, if any is much like it.
pub(super) fn most_like<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &&str| (strsim::jaro_winkler(known, name) * 1000.0).round();
    names
        .filter(|known| !known.is_empty() && *known != name)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|known| likeness(known) >= 850.0)
}

/// What is said of a field that an object does not have.
pub(super) fn no_such_field(object: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("no such field in a {object}; is `{name}` meant?"),
        None => format!("no such field in a {object}"),
    }
}

/// Every field on the lists, in full.
fn each(found: &mut dyn FnMut(&str, Type)) {
    for (field, kind) in POD {
        found(field, *kind);
    }
    found(INIT_CONTAINER, Text);
    for list in ["spec.containers[]", "spec.initContainers[]"] {
        for (field, kind) in CONTAINER {
            found(&format!("{list}.{field}"), *kind);
        }
        for hook in HOOKS.iter().chain(&PROBES) {
            for (field, kind) in ACTION {
                found(&format!("{list}.{hook}.{field}"), *kind);
            }
        }
        for probe in PROBES {
            for (field, kind) in PROBE {
                found(&format!("{list}.{probe}.{field}"), *kind);
            }
        }
    }
}

/// Whether the fields of what is at `pattern` are keys that the author chose.
fn is_map(pattern: &str) -> bool {
    pattern == "metadata.annotations"
        || pattern == "metadata.labels"
        || pattern.ends_with(".resources.limits")
        || pattern.ends_with(".resources.requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (Vec<String>, Vec<String>) {
        let mut document = serde_saphyr::from_str(text).unwrap();
        let mut ignored = Vec::new();
        let problems = check(&mut document, &mut ignored);
        let shown = |list: &[Problem]| list.iter().map(ToString::to_string).collect();
        (shown(&problems), shown(&ignored))
    }

    fn problems(text: &str) -> Vec<String> {
        said(text).0
    }

    #[test]
    fn an_unsupported_field_is_named() {
        let text = "spec:\n  containers:\n  - name: a\n    volumeDevices: [{name: b, devicePath: \
                    /b}]\n  activeDeadlineSeconds: 5\n";
        assert_eq!(
            problems(text),
            [
                "spec.activeDeadlineSeconds: not supported by husk run",
                "spec.containers[0].volumeDevices: not supported by husk run",
            ]
        );
    }

    #[test]
    fn a_misspelt_field_is_told_from_an_unsupported_one() {
        let text = "spec:\n  hostNetwrok: true\n  containers:\n  - name: a\n    comand: [sh]\n    \
                    livenessProbe: {exce: {command: [a]}}\n    zzz: 1\n";
        let all = "no such field in a Pod (v1)";
        assert_eq!(
            problems(text),
            [
                format!("spec.containers[0].comand: {all}; is `command` meant?"),
                format!("spec.containers[0].livenessProbe.exce: {all}; is `exec` meant?"),
                format!("spec.containers[0].zzz: {all}"),
                format!("spec.hostNetwrok: {all}; is `hostNetwork` meant?"),
            ]
        );
    }

    #[test]
    fn every_wrong_type_is_told() {
        let text = "spec:\n  hostNetwork: 'yes'\n  hostname: 5\n  containers:\n  - name: a\n    \
                    command: sh\n    args: [1, b]\n    securityContext: 5\n    env: [{name: A, \
                    value: true}]\n    livenessProbe: {periodSeconds: x}\n";
        assert_eq!(
            problems(text),
            [
                "spec.containers[0].args[0]: must be a text (put it in quotes), and is 1",
                "spec.containers[0].command: must be a list",
                "spec.containers[0].env[0].value: must be a text (put it in quotes), and is true",
                "spec.containers[0].livenessProbe.periodSeconds: must be a whole number, and is \
                 \"x\"",
                "spec.containers[0].securityContext: must have fields of its own",
                "spec.hostNetwork: must be true or false, and is \"yes\"",
                "spec.hostname: must be a text (put it in quotes), and is 5",
            ]
        );
    }

    #[test]
    fn restart_policy_belongs_to_init_containers() {
        let text = "spec:\n  initContainers:\n  - {name: a, restartPolicy: Always}\n  containers:\n\
                    \x20 - {name: b, restartPolicy: Always}\n";
        assert_eq!(
            problems(text),
            ["spec.containers[0].restartPolicy: not supported by husk run"]
        );
    }

    #[test]
    fn what_holds_anyway_says_nothing() {
        let text = |users: &str, groups: &str| {
            format!(
                "spec:\n  hostUsers: {users}\n  securityContext: {{fsGroupChangePolicy: \
                 OnRootMismatch, supplementalGroupsPolicy: {groups}}}\n"
            )
        };
        assert_eq!(
            said(&text("true", "Merge")),
            (Vec::<String>::new(), Vec::new())
        );
        assert_eq!(
            problems(&text("false", "Strict")),
            [
                "spec.hostUsers: not supported by husk run",
                "spec.securityContext.supplementalGroupsPolicy: not supported by husk run",
            ]
        );
    }

    #[test]
    fn what_an_api_server_writes_says_nothing() {
        let text = "metadata:\n  creationTimestamp: null\n  resourceVersion: '5'\n  managedFields: \
                    [{manager: kubectl}]\n  annotations: {any.thing/at-all: x}\n\
                    spec:\n  nodeSelector: {disk: ssd}\n  priority: 0\n  tolerations: [{key: a}]\n\
                    \x20 securityContext: {}\n  volumes:\n  - name: kube-api-access-x\n    \
                    projected: {sources: []}\n  containers:\n  - name: a\n    \
                    terminationMessagePath: /dev/log\n    resources: {}\n    ports: \
                    [{containerPort: 1, hostPort: 80}]\n    volumeMounts: [{name: \
                    kube-api-access-x, mountPath: /v}]\nstatus: {phase: Running}\n";
        let (problems, ignored) = said(text);
        assert_eq!(problems, Vec::<String>::new());
        let at: Vec<_> = ignored
            .iter()
            .filter_map(|it| it.split(':').next())
            .collect();
        let expected = ["spec.volumes", "spec.nodeSelector"];
        assert_eq!(at, expected);
    }
}
