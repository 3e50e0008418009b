//! Which pod a container belongs to (contract 25).
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The annotations that name a container's pod, the first that is there counts.
const ANNOTATIONS: [&str; 3] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
    "io.husk.pod",
];

/// The one part of config.json that matters here.
#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The pod that the bundle's `config.json` names; `None` for a pod of one, and for a bundle
/// without the file, as the Sandbox API makes them (contract 12).
///
/// # Errors
/// The file cannot be read or is not an OCI spec.
pub(crate) fn of_bundle(bundle: &Path) -> Result<Option<String>> {
    let path = bundle.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let spec: Annotated = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not an OCI runtime spec", path.display()))?;
    let mut annotations = spec.annotations.unwrap_or_default();
    Ok(ANNOTATIONS
        .iter()
        .find_map(|name| annotations.remove(*name))
        .filter(|group| !group.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(config: &str) -> Result<Option<String>> {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), config).unwrap();
        of_bundle(bundle.path())
    }

    #[test]
    fn a_bundle_without_a_spec_is_a_pod_of_its_own() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(of_bundle(bundle.path()).unwrap(), None);
        assert_eq!(group("{}").unwrap(), None);
        assert_eq!(group(r#"{"annotations": null}"#).unwrap(), None);
    }

    #[test]
    fn the_first_annotation_in_order_counts() {
        let husk = r#""io.husk.pod": "c""#;
        let cri = r#""io.kubernetes.cri.sandbox-id": "b""#;
        let runc = r#""io.containerd.runc.v2.group": "a""#;
        let spec = |parts: &[&str]| format!(r#"{{"annotations": {{{}}}}}"#, parts.join(","));
        assert_eq!(group(&spec(&[husk, cri, runc])).unwrap().unwrap(), "a");
        assert_eq!(group(&spec(&[husk, cri])).unwrap().unwrap(), "b");
        assert_eq!(group(&spec(&[husk])).unwrap().unwrap(), "c");
    }

    #[test]
    fn a_broken_spec_is_an_error_that_names_the_file() {
        let error = format!("{:#}", group("{\"annotations\": [").unwrap_err());
        assert!(error.contains("config.json"), "{error}");
        assert!(error.contains("line 1"), "{error}");
    }
}
