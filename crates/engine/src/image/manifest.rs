//! Manifests and indexes, and which entry of an index is for this machine.
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ImageError;

/// What a name or a digest leads to.
pub(super) enum Manifest {
    /// Images for several platforms.
    Index(Box<ImageIndex>),
    /// One image.
    Image(Box<ImageManifest>),
}

/// Just enough to tell one from the other: their media type is optional.
#[derive(Deserialize)]
struct Shape {
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest or an index; `part` names it in errors.
    pub(super) fn parse(image: &str, part: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let broken = |reason: String| ImageError::Broken {
            image: image.to_owned(),
            part: part.to_owned(),
            reason,
        };
        let shape: Shape =
            serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        match shape {
            Shape {
                manifests: Some(_), ..
            } => ImageIndex::from_reader(bytes).map(|index| Self::Index(Box::new(index))),
            Shape {
                layers: Some(_), ..
            } => ImageManifest::from_reader(bytes).map(|image| Self::Image(Box::new(image))),
            _ => return Err(broken("it has neither `manifests` nor `layers`".into())),
        }
        .map_err(|error| broken(error.to_string()))
    }
}

/// The first entry for Linux on this machine's architecture; entries that say no platform count
/// when nothing better is there.
pub(super) fn choose<'a>(
    image: &str,
    entries: &'a [Descriptor],
) -> Result<&'a Descriptor, ImageError> {
    let wanted = Arch::default();
    let matches = |entry: &&Descriptor| {
        entry.platform().as_ref().is_some_and(|platform| {
            *platform.os() == Os::Linux && *platform.architecture() == wanted
        })
    };
    entries
        .iter()
        .find(matches)
        .or_else(|| entries.iter().find(|entry| entry.platform().is_none()))
        .ok_or_else(|| ImageError::Platform {
            image: image.to_owned(),
            wanted: wanted.to_string(),
            offered: offered(entries),
        })
}

fn offered(entries: &[Descriptor]) -> String {
    let mut names: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.platform().as_ref())
        // Build attestations are listed as images of an unknown platform.
        .filter(|platform| platform.os().to_string() != "unknown")
        .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
        .collect();
    names.dedup();
    if names.is_empty() {
        "no image at all".into()
    } else {
        names.join(", ")
    }
}
