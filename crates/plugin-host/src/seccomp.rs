//! The seccomp profiles that plugins may name.
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;

/// Why a profile of the handler's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the seccomp profile `{name}` ({path}) cannot be used: {problem}")]
pub struct ProfileError {
    name: String,
    path: PathBuf,
    problem: String,
}

/// Reads the profiles of a configuration, each in the form of the OCI spec's `linux.seccomp`.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn seccomp_profiles(
    files: &BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, LinuxSeccomp>, ProfileError> {
    let read = |(name, path): (&String, &PathBuf)| {
        let failed = |problem: String| ProfileError {
            name: name.clone(),
            path: path.clone(),
            problem,
        };
        let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let profile = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        Ok((name.clone(), profile))
    };
    files.iter().map(read).collect()
}
