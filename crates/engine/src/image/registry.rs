//! Registries, see the OCI distribution specification.
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_spec::image::{Descriptor, ImageManifest};
use tokio::io::AsyncWrite;

use super::blobs::{Blobs, Incoming};
use super::manifest::{self, Manifest};
use super::{ImageError, Progress, Step};

/// How long a registry may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a registry may be silent in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait before a blob is asked for again, and so how often it is.
const RETRIES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

const MANIFESTS: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// A registry, and the image wanted from it.
pub(super) struct Registry<'a> {
    client: Client,
    wanted: &'a Reference,
    auth: RegistryAuth,
    image: String,
}

impl<'a> Registry<'a> {
    /// A client for the registry that a reference names; nothing is sent yet.
    pub(super) fn of(wanted: &'a Reference, auth: RegistryAuth) -> Result<Self, ImageError> {
        // The whole process has one provider; another crate may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = wanted.resolve_registry();
        let config = ClientConfig {
            protocol: if is_loopback(host) {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("husk/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let image = wanted.to_string();
        match Client::try_from(config) {
            Ok(client) => Ok(Self {
                client,
                wanted,
                auth,
                image,
            }),
            Err(error) => Err(ImageError::Registry {
                image,
                registry: host.to_owned(),
                doing: "making a client".into(),
                answer: error.to_string(),
                advice: "check the proxy settings and the system's certificates".into(),
            }),
        }
    }

    /// Brings the image for this machine into the store and gives its manifest's digest.
    pub(super) async fn pull(
        &self,
        blobs: &Blobs,
        progress: &dyn Progress,
    ) -> Result<String, ImageError> {
        let (digest, manifest) = self.manifest(blobs).await?;
        self.blob(blobs, manifest.config(), &super::Quiet).await?;
        let layers = Mutex::new(manifest.layers().iter());
        let worker = || async {
            loop {
                // Taken before the download, which must not hold it.
                let next = layers.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(layer) = next else { return Ok(()) };
                self.blob(blobs, layer, progress).await?;
            }
        };
        // Three at a time, as Docker does.
        tokio::try_join!(worker(), worker(), worker())?;
        Ok(digest)
    }

    /// The manifest for this machine; an index leads to it.
    async fn manifest(&self, blobs: &Blobs) -> Result<(String, ImageManifest), ImageError> {
        let mut reference = self.wanted.clone();
        // An index may name another; a ring of them is not possible, as each is named by its hash.
        loop {
            let (bytes, _) = self
                .client
                .pull_manifest_raw(&reference, &self.auth, &MANIFESTS)
                .await
                .map_err(|error| self.failed("asked for the manifest", &error))?;
            match Manifest::parse(&self.image, &format!("the manifest of {reference}"), &bytes)? {
                Manifest::Index(index) => {
                    let chosen = manifest::choose(&self.image, index.manifests())?;
                    reference = reference.clone_with_digest(chosen.digest().to_string());
                }
                Manifest::Image(manifest) => return Ok((blobs.put(&bytes)?, *manifest)),
            }
        }
    }

    /// Brings one blob, unless it is in the store; a connection that breaks is tried again.
    async fn blob(
        &self,
        blobs: &Blobs,
        wanted: &Descriptor,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let (digest, size) = (wanted.digest().to_string(), wanted.size());
        let mut pauses = RETRIES.into_iter();
        loop {
            let Some(incoming) = blobs.write(&self.image, wanted)? else {
                return Ok(());
            };
            let mut download = Download {
                incoming,
                wanted: &digest,
                size,
                progress,
            };
            let pulled = self
                .client
                .pull_blob(self.wanted, digest.as_str(), &mut download)
                .await;
            let error = match pulled {
                // The store's own check says the same and more: how much came, and its digest.
                Ok(()) | Err(OciDistributionError::DigestError(_)) => {
                    return download.incoming.finish();
                }
                Err(error) => error,
            };
            let came = download.incoming.written();
            let doing = format!("asked for blob {digest}, {came} of {size} bytes came");
            let failed = self.failed(&doing, &error);
            match pauses.next().filter(|_| may_pass(&error)) {
                Some(pause) => {
                    log::warn!("{failed}: trying again in {} ms", pause.as_millis());
                    tokio::time::sleep(pause).await;
                }
                None => return Err(failed),
            }
        }
    }

    fn failed(&self, doing: &str, error: &OciDistributionError) -> ImageError {
        let (answer, advice) = explain(error);
        ImageError::Registry {
            image: self.image.clone(),
            registry: self.wanted.resolve_registry().to_owned(),
            doing: doing.to_owned(),
            answer,
            advice: advice.to_owned(),
        }
    }
}

/// Registries on this machine's loopback speak plain HTTP, as Docker takes them to.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or(host);
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Whether the same request may well succeed: the connection broke, or the server was overtaxed.
fn may_pass(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(error) => !error.is_connect(),
        OciDistributionError::ServerError { code, .. } => *code >= 500,
        _ => false,
    }
}

/// What the registry answered, and what to do about it.
fn explain(error: &OciDistributionError) -> (String, &'static str) {
    const LOGIN: &str = "check the name; for a private image log in with `docker login`";
    const NAME: &str = "check the name and the tag";
    const LATER: &str = "try again later";
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let texts: Vec<_> = envelope
                .errors
                .iter()
                .map(|error| {
                    format!("{:?} {}", error.code, error.message)
                        .trim_end()
                        .to_owned()
                })
                .collect();
            let answer = texts.join(", ");
            let denied = envelope.errors.iter().any(|error| {
                use oci_client::errors::OciErrorCode::{Denied, Unauthorized};
                matches!(error.code, Denied | Unauthorized)
            });
            (answer, if denied { LOGIN } else { NAME })
        }
        OciDistributionError::UnauthorizedError { .. } => ("401 Unauthorized".into(), LOGIN),
        OciDistributionError::AuthenticationFailure(reason) => {
            (format!("it refused the login: {}", reason.trim()), LOGIN)
        }
        OciDistributionError::ServerError { code, message, .. } => {
            let answer = format!("HTTP {code} {}", message.trim())
                .trim_end()
                .to_owned();
            let advice = match code {
                404 => NAME,
                401 | 403 => LOGIN,
                _ => LATER,
            };
            (answer, advice)
        }
        OciDistributionError::RequestError(error) if error.is_connect() => (
            with_causes(error),
            "check the name of the registry and the network",
        ),
        other => (with_causes(other), LATER),
    }
}

/// An error with what caused it, which for a refused connection is the only part that matters.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Where a blob goes while it comes. Writes land in the page cache, so they are made in place.
struct Download<'a> {
    incoming: Incoming,
    wanted: &'a str,
    size: u64,
    progress: &'a dyn Progress,
}

impl AsyncWrite for Download<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.incoming.write(bytes)?;
        let done = this.incoming.written();
        this.progress.step(&Step::Downloading {
            layer: this.wanted,
            done,
            total: this.size,
        });
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().incoming.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_is_plain_http() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "ghcr.io",
            "10.0.0.1:5000",
            "localhost.example.org",
            "[fe80::1]:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
