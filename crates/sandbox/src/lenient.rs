//! Reads what the runtime specification has containers described in, as other runtimes read it.
use oci_spec::runtime::{Capability, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{bundle, program};

/// Where a spec, and the description of a process, name capabilities.
const OF_A_SPEC: &str = "/process/capabilities";
const OF_A_PROCESS: &str = "/capabilities";

/// Reads a spec, or a process of one. Capabilities that nobody knows are left out, which grants
/// nothing, and come back for the log: other runtimes warn of them, and a spec may be of a newer
/// kernel's.
///
/// # Errors
/// It is not what it should be.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<(T, Vec<String>), serde_json::Error> {
    match serde_json::from_slice(text) {
        Ok(read) => Ok((read, Vec::new())),
        Err(error) => {
            let mut value: Value = serde_json::from_slice(text)?;
            let unknown = drop_unknown_capabilities(&mut value);
            if unknown.is_empty() {
                // Said with its line and column.
                return Err(error);
            }
            Ok((serde_json::from_value(value)?, unknown))
        }
    }
}

/// The capabilities of a spec's process that it will not have, as this process has not got them: left
/// out, for the log. In a user namespace it has all.
#[must_use]
pub fn not_granted(spec: &Spec) -> Vec<String> {
    let in_user_namespace = spec
        .linux()
        .as_ref()
        .is_some_and(bundle::has_user_namespace);
    let process = spec.process().as_ref().filter(|_| !in_user_namespace);
    let named = process.and_then(|process| process.capabilities().as_ref());
    let permitted = named.and_then(|named| named.permitted().as_ref());
    let (Some(permitted), Ok(own)) = (permitted, program::own_capabilities()) else {
        return Vec::new();
    };
    let mut lacking: Vec<_> = permitted
        .difference(&own)
        .map(|capability| format!("CAP_{capability}"))
        .collect();
    lacking.sort();
    lacking
}

fn drop_unknown_capabilities(value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for place in [OF_A_SPEC, OF_A_PROCESS] {
        let sets = value.pointer_mut(place).and_then(Value::as_object_mut);
        let sets = sets.into_iter().flat_map(serde_json::Map::values_mut);
        for set in sets.filter_map(Value::as_array_mut) {
            set.retain(|name| {
                let Some(text) = name.as_str() else {
                    return true;
                };
                let is_known = serde_json::from_value::<Capability>(name.clone()).is_ok();
                if !is_known && !unknown.iter().any(|known| known == text) {
                    unknown.push(text.to_owned());
                }
                is_known
            });
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Process, Spec};
    use serde_json::json;

    use super::*;

    fn process() -> Value {
        json!({
            "user": {"uid": 0, "gid": 0}, "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_FOO", "CAP_KILL"], "effective": ["CAP_FOO"], "permitted": ["CAP_BAR"],
            },
        })
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let spec = json!({"ociVersion": "1.2.0", "process": process()});
        let (spec, unknown) = read::<Spec>(spec.to_string().as_bytes()).unwrap();
        assert_eq!(unknown, ["CAP_FOO", "CAP_BAR"]);
        let (process, unknown) = read::<Process>(process().to_string().as_bytes()).unwrap();
        assert_eq!(unknown, ["CAP_FOO", "CAP_BAR"]);
        assert_eq!(spec.process().as_ref().unwrap(), &process);
        let bounding = process
            .capabilities()
            .as_ref()
            .unwrap()
            .bounding()
            .as_ref()
            .unwrap();
        assert_eq!(bounding.iter().collect::<Vec<_>>(), [&Capability::Kill]);
    }

    #[test]
    fn what_is_wrong_otherwise_is_refused() {
        for wrong in [
            "",
            "{",
            r#"{"ociVersion": 1}"#,
            r#"{"process": {"capabilities": {"bounding": [1]}}}"#,
        ] {
            assert!(read::<Spec>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
