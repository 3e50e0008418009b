//! The environment of a container.
use std::collections::HashMap;

use k8s_openapi::api::core::v1;

use super::Translation;
use crate::manifest::expand::expand;
use crate::manifest::objects::Kind;

/// The variables in order, each of which later ones may refer to.
#[derive(Default)]
struct Variables {
    in_order: Vec<(String, String)>,
    known: HashMap<String, String>,
}

impl Variables {
    fn add(&mut self, name: &str, value: String) {
        self.known.insert(name.to_owned(), value.clone());
        self.in_order.push((name.to_owned(), value));
    }
}

impl Translation<'_> {
    /// What comes from objects first: what a variable says itself wins.
    pub(super) fn env(
        &mut self,
        path: &str,
        from: Vec<v1::EnvFromSource>,
        variables: Vec<v1::EnvVar>,
        fields: &HashMap<String, String>,
    ) -> Vec<(String, String)> {
        let mut env = Variables::default();
        for (index, source) in from.into_iter().enumerate() {
            self.env_from(&format!("{path}.envFrom[{index}]"), source, &mut env);
        }
        for (index, variable) in variables.into_iter().enumerate() {
            let path = format!("{path}.env[{index}]");
            if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
                self.problems
                    .add(&format!("{path}.name"), "empty, or with `=` in it");
            }
            let value = match (variable.value, variable.value_from) {
                (Some(value), Some(_)) if !value.is_empty() => {
                    self.problems.add(&path, "has both value and valueFrom");
                    None
                }
                (_, Some(from)) => self.value_from(&format!("{path}.valueFrom"), from, fields),
                (value, None) => Some(expand(&value.unwrap_or_default(), &env.known)),
            };
            if let Some(value) = value {
                env.add(&variable.name, value);
            }
        }
        env.in_order
    }

    fn env_from(&mut self, path: &str, source: v1::EnvFromSource, env: &mut Variables) {
        let (kind, field, name, optional) = match (source.config_map_ref, source.secret_ref) {
            (Some(map), None) => (Kind::ConfigMap, "configMapRef", map.name, map.optional),
            (None, Some(secret)) => (Kind::Secret, "secretRef", secret.name, secret.optional),
            _ => {
                let reason = "must have one of configMapRef and secretRef";
                return self.problems.add(path, reason);
            }
        };
        let prefix = source.prefix.unwrap_or_default();
        if prefix.contains(['=', '\0']) {
            self.problems
                .add(&format!("{path}.prefix"), "with `=` or a zero byte in it");
        }
        match self.objects.get(kind, &name, optional) {
            Ok(data) => {
                for (key, value) in data.into_iter().flatten() {
                    match String::from_utf8(value.clone()) {
                        Ok(value) if !value.contains('\0') => {
                            env.add(&format!("{prefix}{key}"), value);
                        }
                        _ => self.problems.add(
                            path,
                            format!("`{key}` of {} `{name}` is no text", kind.name()),
                        ),
                    }
                }
            }
            Err(reason) => self.problems.add(&format!("{path}.{field}.name"), reason),
        }
    }

    fn value_from(
        &mut self,
        path: &str,
        from: v1::EnvVarSource,
        fields: &HashMap<String, String>,
    ) -> Option<String> {
        let v1::EnvVarSource {
            config_map_key_ref: map,
            field_ref: field,
            secret_key_ref: secret,
            ..
        } = from;
        match (map, secret, field) {
            (Some(map), None, None) => {
                let path = format!("{path}.configMapKeyRef");
                self.key(&path, Kind::ConfigMap, &map.name, &map.key, map.optional)
            }
            (None, Some(secret), None) => {
                let (name, key) = (secret.name, secret.key);
                let path = format!("{path}.secretKeyRef");
                self.key(&path, Kind::Secret, &name, &key, secret.optional)
            }
            (None, None, Some(field)) => {
                let value = fields.get(&field.field_path).cloned();
                if value.is_none() && !is_of_a_map(&field.field_path) {
                    self.problems.add(
                        &format!("{path}.fieldRef.fieldPath"),
                        format!("`{}`: not supported by husk run", field.field_path),
                    );
                }
                // As in Kubernetes, a label that is not set is empty.
                Some(value.unwrap_or_default())
            }
            _ => {
                self.problems.add(
                    path,
                    "must have one of configMapKeyRef, secretKeyRef and fieldRef",
                );
                None
            }
        }
    }

    /// The value of a key of an object. `None` for one that need not be there.
    fn key(
        &mut self,
        path: &str,
        kind: Kind,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Option<String> {
        let found = match self.objects.get(kind, name, optional) {
            Ok(data) => data?.get(key),
            Err(reason) => {
                self.problems.add(&format!("{path}.name"), reason);
                return None;
            }
        };
        match found.map(|value| String::from_utf8(value.clone())) {
            Some(Ok(value)) if !value.contains('\0') => Some(value),
            Some(_) => {
                let reason = format!("`{key}` of {} `{name}` is no text", kind.name());
                self.problems.add(&format!("{path}.key"), reason);
                None
            }
            None if optional == Some(true) => None,
            None => {
                let reason = format!("{} `{name}` has no `{key}`", kind.name());
                self.problems.add(&format!("{path}.key"), reason);
                None
            }
        }
    }
}

/// Whether it names one label or annotation.
fn is_of_a_map(path: &str) -> bool {
    ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|map| path.starts_with(map) && path.ends_with("']"))
}
