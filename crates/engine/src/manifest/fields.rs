//! The fields of a Pod that the engine implements; every other is refused by name.
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::Problem;

/// `[]` stands for any index, `*` for any key.
const POD: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.annotations.*",
    "metadata.labels.*",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.dnsConfig.nameservers[]",
    "spec.dnsConfig.options[].name",
    "spec.dnsConfig.options[].value",
    "spec.dnsConfig.searches[]",
    "spec.dnsPolicy",
    "spec.hostAliases[].hostnames[]",
    "spec.hostAliases[].ip",
    "spec.hostIPC",
    "spec.hostNetwork",
    "spec.hostPID",
    "spec.hostname",
    "spec.restartPolicy",
    "spec.securityContext.fsGroup",
    "spec.securityContext.runAsGroup",
    "spec.securityContext.runAsNonRoot",
    "spec.securityContext.runAsUser",
    "spec.securityContext.seccompProfile.localhostProfile",
    "spec.securityContext.seccompProfile.type",
    "spec.securityContext.supplementalGroups[]",
    "spec.securityContext.sysctls[].name",
    "spec.securityContext.sysctls[].value",
    "spec.shareProcessNamespace",
    "spec.terminationGracePeriodSeconds",
    "spec.volumes[].emptyDir.medium",
    "spec.volumes[].emptyDir.sizeLimit",
    "spec.volumes[].hostPath.path",
    "spec.volumes[].hostPath.type",
    "spec.volumes[].name",
];

/// The same for each of `spec.containers[]` and `spec.initContainers[]`.
const CONTAINER: &[&str] = &[
    "args[]",
    "command[]",
    "env[].name",
    "env[].value",
    "env[].valueFrom.fieldRef.apiVersion",
    "env[].valueFrom.fieldRef.fieldPath",
    "image",
    "imagePullPolicy",
    "name",
    "ports[].containerPort",
    "ports[].name",
    "ports[].protocol",
    "resources.limits.*",
    "resources.requests.*",
    "securityContext.allowPrivilegeEscalation",
    "securityContext.capabilities.add[]",
    "securityContext.capabilities.drop[]",
    "securityContext.privileged",
    "securityContext.procMount",
    "securityContext.readOnlyRootFilesystem",
    "securityContext.runAsGroup",
    "securityContext.runAsNonRoot",
    "securityContext.runAsUser",
    "securityContext.seccompProfile.localhostProfile",
    "securityContext.seccompProfile.type",
    "volumeMounts[].mountPath",
    "volumeMounts[].mountPropagation",
    "volumeMounts[].name",
    "volumeMounts[].readOnly",
    "volumeMounts[].recursiveReadOnly",
    "volumeMounts[].subPath",
    "workingDir",
];

/// Only init containers: `Always` makes one a sidecar.
const INIT_CONTAINER: &str = "spec.initContainers[].restartPolicy";

/// Every field of `document` that is not on the lists. `pod` is the same document as Kubernetes'
/// types understand it: what is missing there is no field at all.
pub(super) fn unsupported(document: &Value, pod: &Pod) -> Vec<Problem> {
    // A Pod that was just read can be written; if not, every field passes for a known one.
    let known = serde_json::to_value(pod).unwrap_or_else(|_| document.clone());
    let mut problems = Vec::new();
    walk(document, Some(&known), "", "", &mut problems);
    problems
}

fn walk(
    value: &Value,
    known: Option<&Value>,
    path: &str,
    pattern: &str,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, field) in fields.iter().filter(|(_, field)| !field.is_null()) {
                let pattern = if is_map(pattern) {
                    format!("{pattern}.*")
                } else {
                    joined(pattern, name)
                };
                let (path, known) = (joined(path, name), known.and_then(|known| known.get(name)));
                if allowed(&pattern) {
                    walk(field, known, &path, &pattern, problems);
                } else {
                    let reason = if known.is_some() {
                        "not supported by husk run"
                    } else {
                        "no such field in a Pod (v1)"
                    };
                    problems.push(Problem::new(path, reason));
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let known = known.and_then(|known| known.get(index));
                let path = format!("{path}[{index}]");
                walk(item, known, &path, &format!("{pattern}[]"), problems);
            }
        }
        _ => {}
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Whether a list holds the pattern or something below it.
fn allowed(pattern: &str) -> bool {
    let covers = |full: &str| {
        full.strip_prefix(pattern)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    if covers(INIT_CONTAINER) || POD.iter().any(|full| covers(full)) {
        return true;
    }
    let container = ["spec.containers[]", "spec.initContainers[]"]
        .into_iter()
        .find_map(|list| pattern.strip_prefix(list));
    match container {
        Some(rest) => CONTAINER.iter().any(|full| {
            full.strip_prefix(rest.trim_start_matches('.'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        }),
        None => ["spec.containers", "spec.initContainers"].contains(&pattern),
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

    fn problems(text: &str) -> Vec<String> {
        let document = serde_saphyr::from_str(text).unwrap();
        let pod = serde_saphyr::from_str(text).unwrap();
        unsupported(&document, &pod)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_unsupported_field_is_named() {
        let text = "spec:\n  containers:\n  - name: a\n    livenessProbe: {httpGet: {port: 80}}\n\
                    \x20 nodeName: n\n";
        assert_eq!(
            problems(text),
            [
                "spec.containers[0].livenessProbe: not supported by husk run",
                "spec.nodeName: not supported by husk run",
            ]
        );
    }

    #[test]
    fn a_misspelt_field_is_told_from_an_unsupported_one() {
        let text = "spec:\n  containers:\n  - name: a\n    comand: [sh]\n";
        assert_eq!(
            problems(text),
            ["spec.containers[0].comand: no such field in a Pod (v1)"]
        );
    }

    #[test]
    fn nested_fields_and_other_volumes_are_seen() {
        let text = "spec:\n  volumes:\n  - name: v\n    configMap: {name: c}\n  containers:\n\
                    \x20 - name: a\n    env:\n    - name: x\n      valueFrom: {secretKeyRef: \
                    {name: s, key: k}}\n";
        assert_eq!(
            problems(text),
            [
                "spec.containers[0].env[0].valueFrom.secretKeyRef: not supported by husk run",
                "spec.volumes[0].configMap: not supported by husk run",
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
    fn chosen_keys_and_unset_fields_are_fine() {
        let text = "metadata:\n  creationTimestamp: null\n  annotations: {any.thing/at-all: x}\n\
                    spec:\n  containers:\n  - name: a\n    resources: {limits: {cpu: 1, memory: \
                    1Mi}}\n    securityContext: {}\nstatus: {}\n";
        assert_eq!(problems(text), ["status: not supported by husk run"]);
    }
}
