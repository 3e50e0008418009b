//! Logins that `docker login` left in `~/.docker/config.json`.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// The key under which Docker keeps the login of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    /// `user:password` in base64.
    auth: String,
}

/// The login for a registry; anonymous when there is none. Credential helpers are not asked.
pub(super) fn of(registry: &str) -> RegistryAuth {
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    let Some(path) = dir.map(|dir| dir.join("config.json")) else {
        return RegistryAuth::Anonymous;
    };
    match fs::read(&path) {
        Ok(text) => find(&text, registry).unwrap_or_else(|reason| {
            log::warn!("{}: {reason}; going on without a login", path.display());
            RegistryAuth::Anonymous
        }),
        Err(_) => RegistryAuth::Anonymous,
    }
}

fn find(text: &[u8], registry: &str) -> Result<RegistryAuth, String> {
    let config: DockerConfig = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let key = if registry == "index.docker.io" {
        DOCKER_HUB
    } else {
        registry
    };
    let Some(found) = config
        .auths
        .get(key)
        .or_else(|| config.auths.get(&format!("https://{key}")))
    else {
        return Ok(RegistryAuth::Anonymous);
    };
    if found.auth.is_empty() {
        return Err(format!(
            "the login for {registry} is kept by a credential helper"
        ));
    }
    let decoded = STANDARD
        .decode(&found.auth)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| format!("the login for {registry} is not base64"))?;
    let (user, password) = decoded
        .split_once(':')
        .ok_or_else(|| format!("the login for {registry} has no password"))?;
    Ok(RegistryAuth::Basic(user.into(), password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_by_its_registry() {
        let text = br#"{"auths": {"reg.example:5000": {"auth": "bWU6c2VjcmV0"},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"}, "held.example": {},
            "bad.example": {"auth": "***"}}, "credsStore": "desktop"}"#;
        let login = |user: &str, password: &str| RegistryAuth::Basic(user.into(), password.into());
        assert_eq!(
            find(text, "reg.example:5000").unwrap(),
            login("me", "secret")
        );
        assert_eq!(find(text, "index.docker.io").unwrap(), login("hub", "pw"));
        assert_eq!(find(text, "ghcr.io").unwrap(), RegistryAuth::Anonymous);
        assert!(
            find(text, "held.example")
                .unwrap_err()
                .contains("credential helper")
        );
        assert!(find(text, "bad.example").unwrap_err().contains("base64"));
        assert!(find(b"[", "ghcr.io").is_err());
    }
}
