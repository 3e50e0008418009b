//! Where a shim's binary is.
use std::env;
use std::path::{Path, PathBuf};

use super::Error;

/// The name of husk's own shim.
const HUSK: &str = "containerd-shim-husk-v2";

/// A shim v2 binary on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary(PathBuf);

impl Binary {
    /// Finds a shim by path (`/usr/bin/containerd-shim-runc-v2`), by file name
    /// (`containerd-shim-runc-v2`) or by runtime type (`io.containerd.runc.v2`); husk's own when
    /// `name` is `None`. Names are looked for beside the running program, then in `PATH`.
    ///
    /// # Errors
    /// [`Error::NoSuchShim`], with the directories looked into.
    pub fn find(name: Option<&str>) -> Result<Self, Error> {
        let name = name.unwrap_or(HUSK);
        let directories = if name.contains('/') {
            Vec::new()
        } else {
            directories()
        };
        let candidates = if name.contains('/') {
            vec![PathBuf::from(name)]
        } else {
            let file = file_name(name);
            directories
                .iter()
                .map(|directory| directory.join(&file))
                .collect()
        };
        candidates
            .into_iter()
            .find(|candidate| candidate.is_file())
            .and_then(|found| found.canonicalize().ok())
            .map(Self)
            .ok_or_else(|| Error::NoSuchShim {
                name: name.to_owned(),
                searched: if directories.is_empty() {
                    String::from("that path only")
                } else {
                    let shown: Vec<_> = directories
                        .iter()
                        .map(|d| d.display().to_string())
                        .collect();
                    shown.join(", ")
                },
            })
    }

    /// The binary's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// containerd's rule for runtime types: `io.containerd.NAME.VERSION` is the binary
/// `containerd-shim-NAME-VERSION`.
fn file_name(name: &str) -> String {
    let parts: Vec<_> = name.split('.').collect();
    match parts.as_slice() {
        [.., name, version] if parts.len() > 2 => format!("containerd-shim-{name}-{version}"),
        _ => name.to_owned(),
    }
}

fn directories() -> Vec<PathBuf> {
    let beside = env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(env::split_paths(&path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_types_become_file_names() {
        assert_eq!(
            file_name("io.containerd.runc.v2"),
            "containerd-shim-runc-v2"
        );
        assert_eq!(
            file_name("containerd-shim-runc-v2"),
            "containerd-shim-runc-v2"
        );
    }

    #[test]
    fn a_missing_shim_says_where_it_was_looked_for() {
        let error = Binary::find(Some("no-such-shim")).unwrap_err().to_string();
        assert!(
            error.contains("no-such-shim") && error.contains("/bin"),
            "{error}"
        );
        let error = Binary::find(Some("/no/such/shim")).unwrap_err().to_string();
        assert!(error.contains("that path only"), "{error}");
    }
}
