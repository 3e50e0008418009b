//! ConfigMaps and Secrets of the same file: what volumes and environments are made from.
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Problem;
use super::fields::{most_like, no_such_field};
use super::located::{Located, joined};

/// What both kinds have besides their data.
const OF_BOTH: [&str; 5] = ["apiVersion", "immutable", "kind", "metadata", "type"];

/// The longest key.
const LONGEST_KEY: usize = 253;

/// The values of one object by key.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// Which kind of object is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// The objects of a file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects {
    config_maps: BTreeMap<String, Data>,
    secrets: BTreeMap<String, Data>,
}

impl Objects {
    /// Takes a document of that kind in; the answer is what is wrong with it.
    pub(super) fn add(&mut self, kind: Kind, document: &Located) -> Vec<Problem> {
        let mut problems = Vec::new();
        let value = &document.value;
        let name = value.pointer("/metadata/name").and_then(Value::as_str);
        let fields: &[(&str, bool)] = match kind {
            Kind::ConfigMap => &[("binaryData", true), ("data", false)],
            Kind::Secret => &[("data", true), ("stringData", false)],
        };
        for field in value.as_object().into_iter().flat_map(Map::keys) {
            let known = || fields.iter().map(|(known, _)| *known).chain(OF_BOTH);
            if !known().any(|known| known == field) {
                let object = format!("{} (v1)", kind.name());
                let reason = no_such_field(&object, most_like(field, known()));
                problems.push(Problem::new(field.clone(), reason));
            }
        }
        let mut data = Data::new();
        for (field, encoded) in fields {
            let values = value.get(field).filter(|values| !values.is_null());
            if values.is_some_and(|values| !values.is_object()) {
                problems.push(Problem::new(*field, "must have fields of its own"));
            }
            let values = values.and_then(Value::as_object);
            for (key, value) in values.into_iter().flatten() {
                if !is_key(key) {
                    let reason = "is no key: letters, digits, `-`, `_` and `.`, at most 253, and not \
                                  `.` or with `..` at the beginning";
                    problems.push(Problem::new(joined(field, key), reason));
                    continue;
                }
                match decoded(value, *encoded) {
                    Ok(value) => {
                        data.insert(key.clone(), value);
                    }
                    Err(reason) => problems.push(Problem::new(joined(field, key), reason)),
                }
            }
        }
        let (Some(name), list) = (name, self.list_mut(kind)) else {
            problems.push(Problem::new("metadata.name", "missing"));
            return problems;
        };
        if list.insert(name.to_owned(), data).is_some() {
            let reason = format!("two objects of kind {} have this name", kind.name());
            problems.push(Problem::new("metadata.name", reason));
        }
        problems
    }

    fn list_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Data> {
        match kind {
            Kind::ConfigMap => &mut self.config_maps,
            Kind::Secret => &mut self.secrets,
        }
    }

    /// The object; what is wrong if there is none and there must be.
    pub(super) fn get(
        &self,
        kind: Kind,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&Data>, String> {
        let list = match kind {
            Kind::ConfigMap => &self.config_maps,
            Kind::Secret => &self.secrets,
        };
        match list.get(name) {
            None if optional != Some(true) => Err(format!(
                "the file has no {} `{name}`; add it, or say optional: true",
                kind.name()
            )),
            found => Ok(found),
        }
    }
}

/// Whether Kubernetes takes it for a key. It becomes the name of a file, so nothing else may do: it
/// could lead out of the volume.
fn is_key(key: &str) -> bool {
    (1..=LONGEST_KEY).contains(&key.len())
        && key != "."
        && !key.starts_with("..")
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn decoded(value: &Value, encoded: bool) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("must be a text; put it in quotes")?;
    if !encoded {
        return Ok(text.as_bytes().to_vec());
    }
    // kubectl and people break long lines.
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD
        .decode(text)
        .map_err(|error| format!("is no base64: {error}"))
}
