//! What can go wrong with an image.
use std::io;
use std::path::PathBuf;

/// Why an image could not be had. Each says which image, what happened and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text names no source.
    #[error("image `{given}`: {reason}")]
    Source {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store has no such image, and the policy forbids to ask the registry.
    #[error(
        "image `{image}` is not in {store} and the pull policy is Never; pull it first or use \
         IfNotPresent"
    )]
    NotPresent {
        /// The image.
        image: String,
        /// The store's directory.
        store: PathBuf,
    },
    /// The registry refused, or cannot be reached.
    #[error("image `{image}`: registry {registry}, {doing}: {answer}; {advice}")]
    Registry {
        /// The image.
        image: String,
        /// The registry's host and port.
        registry: String,
        /// What was asked.
        doing: String,
        /// What it answered.
        answer: String,
        /// What to do next.
        advice: String,
    },
    /// The image exists, but not for this machine.
    #[error("image `{image}` is not built for linux/{wanted}; it has {offered}")]
    Platform {
        /// The image.
        image: String,
        /// This machine's architecture.
        wanted: String,
        /// The platforms it has.
        offered: String,
    },
    /// A manifest, an index or a configuration is not what the OCI image specification says.
    #[error("image `{image}`: {part} is broken: {reason}")]
    Broken {
        /// The image.
        image: String,
        /// Which part, with its digest or path.
        part: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer holds what must not be unpacked, or cannot be.
    #[error("layer {layer}, entry `{entry}`: {reason}")]
    Entry {
        /// The layer's digest.
        layer: String,
        /// The path in the layer.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A user or group name that the image does not know.
    #[error("user `{user}`: {reason}; use a numeric id, or add it to the image")]
    User {
        /// The user, as given.
        user: String,
        /// What is missing.
        reason: String,
    },
    /// The system refused.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done, and to which file.
        doing: String,
        /// What the system said.
        error: io::Error,
    },
}

/// Says what was being done when the system refused.
pub(super) trait Doing<T> {
    /// Turns a system error into [`ImageError::Io`].
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::Io {
            doing: what(),
            error: error.into(),
        })
    }
}
