//! containerd, the handlers that it has of husk, and what they lead to.
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_plugin_host::Host;
use husk_plugin_host::artifact::{self, Cache};
use husk_scope::config::{Config, DEFAULT_PATH};

use super::Finding;
use crate::install::{Containerd, RUNTIME_TYPE, SHIM, Service, run, runtimes};

const INSTALL: &str = "run `husk install`";

pub(super) fn findings(program: &Path, config: &Path) -> Vec<Finding> {
    let containerd = match Containerd::find(program, config) {
        Ok(containerd) => containerd,
        Err(error) => {
            let fix = "without it there is `husk run`";
            return vec![Finding::error("containerd", format!("{error:#}"), fix)];
        }
    };
    let mut findings = vec![Finding::ok("containerd", containerd.version.clone())];
    findings.push(shim());
    let dump = match containerd.dump() {
        Ok(dump) => dump,
        Err(error) => {
            let fix = format!("mend {}", containerd.config.display());
            findings.push(Finding::error("configuration", format!("{error:#}"), fix));
            return findings;
        }
    };
    let ours: Vec<_> = runtimes(&dump)
        .into_iter()
        .flatten()
        .filter(|(_, it)| text(it, "runtime_type") == Some(RUNTIME_TYPE))
        .collect();
    if ours.is_empty() {
        findings.push(Finding::error(
            "handlers",
            "containerd has none of husk",
            INSTALL,
        ));
    }
    for (name, handler) in ours {
        findings.extend(of_handler(&containerd, name, handler));
    }
    findings
}

fn text<'a>(table: &'a toml::Value, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str().filter(|it| !it.is_empty())
}

/// The shim as containerd finds it.
fn shim() -> Finding {
    let searched = match Service::running().map(|it| it.search_path()) {
        Some(Ok(searched)) => searched,
        // That of this process is the best guess.
        _ => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).collect()
        }
    };
    let candidates = searched.iter().map(|dir| dir.join(SHIM));
    let Some(path) = candidates.into_iter().find(|path| path.is_file()) else {
        let dirs: Vec<_> = searched
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        return Finding::error(
            "shim",
            format!("{SHIM} is in none of {}", dirs.join(", ")),
            INSTALL,
        );
    };
    if let Some(finding) = writable("shim", &path) {
        return finding;
    }
    match run(Command::new(&path).arg("-v")) {
        Ok(said) => {
            let version = said.split_whitespace().nth(1).unwrap_or_default();
            let own = env!("CARGO_PKG_VERSION");
            if version == own {
                return Finding::ok("shim", format!("{} {version}", path.display()));
            }
            let found = format!("{} is {version}, and this is {own}", path.display());
            Finding::warning("shim", found, INSTALL)
        }
        Err(error) => Finding::error("shim", format!("{error:#}"), INSTALL),
    }
}

/// Whether somebody besides root may write to what root runs or obeys.
fn writable(subject: &'static str, path: &Path) -> Option<Finding> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    for path in [path, directory] {
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        let mode = found.permissions().mode();
        let others = mode & 0o022 != 0 && mode & 0o1000 == 0;
        if found.uid() != 0 || others {
            let text = format!(
                "{} belongs to user {} and has mode {:o}: whoever may write there decides what root runs",
                path.display(),
                found.uid(),
                mode & 0o7777
            );
            let fix = format!("chown root {0}; chmod go-w {0}", path.display());
            return Some(Finding::error(subject, text, fix));
        }
    }
    None
}

fn of_handler(containerd: &Containerd, name: &str, handler: &toml::Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_shims = text(handler, "sandboxer") == Some("shim");
    let how = if is_shims {
        "without a pause container"
    } else {
        "with a pause container"
    };
    findings.push(if is_shims && containerd.panics_at_host_network() {
        Finding::error(
            "handlers",
            format!("{name}: {how}, by containerd {}", containerd.version),
            "a pod with hostNetwork makes this containerd panic: install 2.3 or newer, or say sandboxer = \
             'podsandbox'",
        )
    } else {
        Finding::ok("handlers", format!("{name}: {how}"))
    });
    let named = handler.get("options").and_then(|it| text(it, "ConfigPath"));
    let path = PathBuf::from(named.unwrap_or(DEFAULT_PATH));
    let read = fs::read_to_string(&path);
    let text = match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return findings;
        }
        Err(error) => {
            let found = format!("{name}: {}: {error}", path.display());
            findings.push(Finding::error(
                "configuration",
                found,
                "no pod of this handler starts: write it",
            ));
            return findings;
        }
        Ok(text) => text,
    };
    if let Some(finding) = writable("configuration", &path) {
        findings.push(finding);
    }
    match Config::parse(&path.display().to_string(), &text) {
        Ok(config) => {
            let found = format!(
                "{name}: {}, plugins: {}",
                path.display(),
                config.plugins.len()
            );
            findings.push(Finding::ok("configuration", found));
            findings.extend(config.plugins.iter().map(of_plugin));
        }
        Err(error) => findings.push(Finding::error(
            "configuration",
            format!("{name}: {error}"),
            "no pod of this handler starts: mend it",
        )),
    }
    findings
}

fn of_plugin(plugin: &husk_scope::config::Plugin) -> Finding {
    let path = &plugin.path;
    let named = format!("{}: {}", plugin.name, path.display());
    let digest = match artifact::digest(path, plugin.sha256.as_deref()) {
        Ok(digest) => digest,
        Err(error) => {
            let fix = "no pod of its handlers starts: put the component there that the configuration means";
            return Finding::error("plugins", format!("{}: {error}", plugin.name), fix);
        }
    };
    if let Some(finding) = writable("plugins", path) {
        return finding;
    }
    let host = match Host::new() {
        Ok(host) => host,
        Err(error) => return Finding::error("plugins", error.to_string(), "tell husk's authors"),
    };
    match Cache::new(artifact::DIR).load(&host, &digest) {
        Ok(Some(_)) => Finding::ok("plugins", format!("{named}, compiled")),
        Ok(None) => Finding::warning(
            "plugins",
            format!("{named}, not compiled"),
            format!(
                "the first pod waits for it: husk policy compile {}",
                path.display()
            ),
        ),
        Err(error) => Finding::warning(
            "plugins",
            format!("{named}: {error}"),
            format!("husk policy compile {}", path.display()),
        ),
    }
}
