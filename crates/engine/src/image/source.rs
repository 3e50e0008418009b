//! Where an image comes from.
use std::fmt;
use std::path::{Path, PathBuf};

use oci_client::Reference;

use super::ImageError;

/// Where an image comes from, as a pod's `image` field names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A registry: `busybox`, `ghcr.io/owner/name:tag`, `127.0.0.1:5000/app@sha256:…`.
    Registry(Reference),
    /// An OCI image layout, `oci:DIRECTORY[:NAME]`.
    Layout {
        /// The directory that holds `oci-layout` and `index.json`.
        path: PathBuf,
        /// Which of its images; not needed when it holds one.
        name: Option<String>,
    },
    /// An OCI image layout in a tar file, `oci-archive:FILE[:NAME]`.
    Archive {
        /// The tar file, plain or gzip.
        path: PathBuf,
        /// Which of its images; not needed when it holds one.
        name: Option<String>,
    },
    /// A plain directory used as a root filesystem, `rootfs:DIRECTORY`.
    Folder(PathBuf),
}

impl Source {
    /// Reads a source. Without one of the prefixes it is a registry reference, completed as Docker
    /// does: `busybox` is `docker.io/library/busybox:latest`.
    ///
    /// The first `:` after a prefix ends the path, as in containers-transports(5), so these paths
    /// hold no colon.
    ///
    /// # Errors
    /// [`ImageError::Source`]: an empty path, or not a reference.
    pub fn parse(given: &str) -> Result<Self, ImageError> {
        let wrong = |reason: String| ImageError::Source {
            given: given.to_owned(),
            reason,
        };
        if let Some(rest) = given.strip_prefix("rootfs:") {
            return match rest {
                "" => Err(wrong("`rootfs:` wants a directory after it".into())),
                path => Ok(Self::Folder(path.into())),
            };
        }
        for (prefix, archive) in [("oci:", false), ("oci-archive:", true)] {
            let Some(rest) = given.strip_prefix(prefix) else {
                continue;
            };
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name.to_owned())),
                None => (rest, None),
            };
            if path.is_empty() || name.as_deref() == Some("") {
                return Err(wrong(format!(
                    "`{prefix}` wants PATH or PATH:NAME after it"
                )));
            }
            let path = PathBuf::from(path);
            return Ok(if archive {
                Self::Archive { path, name }
            } else {
                Self::Layout { path, name }
            });
        }
        given.parse().map(Self::Registry).map_err(|error| {
            let looks_like_path = given.starts_with(['/', '.']) && Path::new(given).exists();
            wrong(if looks_like_path {
                format!(
                    "for files on this machine write rootfs:{given}, oci:{given} or \
                     oci-archive:{given}"
                )
            } else {
                format!("not an image reference: {error}")
            })
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, path, name) = match self {
            Self::Registry(reference) => return write!(f, "{reference}"),
            Self::Folder(path) => ("rootfs", path, &None),
            Self::Layout { path, name } => ("oci", path, name),
            Self::Archive { path, name } => ("oci-archive", path, name),
        };
        write!(f, "{prefix}:{}", path.display())?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(given: &str) -> String {
        Source::parse(given).map_or_else(|error| error.to_string(), |source| source.to_string())
    }

    #[test]
    fn a_reference_is_completed_as_docker_does() {
        assert_eq!(shown("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(shown("me/app:v1"), "docker.io/me/app:v1");
        assert_eq!(shown("127.0.0.1:5000/app"), "127.0.0.1:5000/app:latest");
        let digest = format!("ghcr.io/me/app@sha256:{}", "a".repeat(64));
        assert_eq!(shown(&digest), digest);
    }

    #[test]
    fn prefixes_name_files() {
        assert_eq!(
            Source::parse("oci:/images/app").unwrap(),
            Source::Layout {
                path: "/images/app".into(),
                name: None
            }
        );
        assert_eq!(
            Source::parse("oci-archive:app.tar:docker.io/library/app:v2").unwrap(),
            Source::Archive {
                path: "app.tar".into(),
                name: Some("docker.io/library/app:v2".into())
            }
        );
        assert_eq!(
            Source::parse("rootfs:./root").unwrap(),
            Source::Folder("./root".into())
        );
    }

    #[test]
    fn what_is_no_source_says_why() {
        for (given, part) in [
            ("", "not an image reference"),
            ("Busy Box", "not an image reference"),
            ("rootfs:", "wants a directory"),
            ("oci::v1", "wants PATH"),
            ("oci:dir:", "wants PATH"),
            ("/tmp", "write rootfs:/tmp"),
            ("app@sha256:12", "not an image reference"),
        ] {
            let text = Source::parse(given).unwrap_err().to_string();
            assert!(text.contains(part), "{given}: {text}");
        }
    }
}
