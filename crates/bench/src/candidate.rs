//! Who is measured.
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use husk_engine::shim::{Binary, RuncOptions, RuntimeOptions, Start};

/// A shim, with the OCI runtime that it is to call or the configuration that it is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// What it is called in the results.
    pub(crate) name: String,
    /// Its binary.
    pub(crate) shim: Binary,
    /// The OCI runtime, for shims that take runc's options.
    pub(crate) runtime: Option<PathBuf>,
    /// The handler's configuration, for shims that take containerd's options.
    pub(crate) config: Option<PathBuf>,
}

impl FromStr for Candidate {
    type Err = anyhow::Error;

    /// Reads `NAME=SHIM[,runtime=PATH][,config=FILE]`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = name_of(text, "SHIM[,runtime=PATH][,config=FILE]")?;
        let mut parts = rest.split(',');
        let shim = Binary::find(parts.next().filter(|shim| !shim.is_empty()))?;
        let mut candidate = Self {
            name: name.to_owned(),
            shim,
            runtime: None,
            config: None,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("runtime", path)) => candidate.runtime = Some(program(path)?),
                Some(("config", path)) => candidate.config = Some(absolute(path)?),
                _ => bail!("`{part}` of candidate {name} is neither runtime=PATH nor config=FILE"),
            }
        }
        if candidate.runtime.is_some() && candidate.config.is_some() {
            bail!("candidate {name} has a runtime and a configuration: no shim takes both");
        }
        Ok(candidate)
    }
}

/// The name and the rest of `NAME=REST`. A name becomes part of paths of files and cgroups.
pub(crate) fn name_of<'a>(text: &'a str, rest: &str) -> Result<(&'a str, &'a str)> {
    let (name, value) = text
        .split_once('=')
        .with_context(|| format!("`{text}` is not NAME={rest}"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) || name.len() > 24 {
        bail!("`{name}` is no name: use up to 24 letters, digits and any of - _ .");
    }
    Ok((name, value))
}

impl Candidate {
    /// The candidates when none are named: husk, and runc's shim with runc and with crun, each if
    /// it is there.
    pub(crate) fn found() -> Vec<Self> {
        let known = [
            "husk=containerd-shim-husk-v2",
            "runc=containerd-shim-runc-v2,runtime=runc",
            "crun=containerd-shim-runc-v2,runtime=crun",
        ];
        known.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Whether it reads husk's configuration.
    pub(crate) fn is_husk(&self) -> bool {
        let file = self.shim.path().file_name().unwrap_or_default();
        file.to_string_lossy().starts_with("containerd-shim-husk")
    }

    /// The options that its `start` gets.
    pub(crate) fn start(&self, id: &str, bundle: PathBuf, events: &str) -> Start {
        let config = self.config.clone();
        let options = config.map(|config_path| RuntimeOptions { config_path }.to_any());
        Start {
            binary: self.shim.clone(),
            id: id.to_owned(),
            bundle,
            events: events.to_owned(),
            options: options.or_else(|| self.runc_options()),
            debug: false,
        }
    }

    /// The options that each of its containers gets.
    pub(crate) fn runc_options(&self) -> Option<husk_engine::shim::Any> {
        let binary = self.runtime.clone()?;
        Some(RuncOptions { binary }.to_any())
    }

    /// What it is: the names of the binaries, with the versions they say they have.
    pub(crate) fn describe(&self) -> String {
        let mut parts = vec![described(self.shim.path(), "-v")];
        if let Some(runtime) = &self.runtime {
            parts.push(described(runtime, "--version"));
        }
        let config = self.config.as_deref().map(name);
        parts.extend(config);
        parts.join(", ")
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A program's name and version.
fn described(program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    format!("{} {}", name(program), version(&text.unwrap_or_default()))
}

/// The first word with a digit on the first line that tells a version: shims and runtimes write
/// `runc version 1.3.6`, `Version:  2.1.9` or their name and the number.
fn version(text: &str) -> &str {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let telling = lines
        .clone()
        .find(|line| line.to_lowercase().contains("version"));
    let line = telling.or_else(|| lines.next()).unwrap_or_default();
    let mut words = line.split_whitespace();
    words
        .rfind(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or("(no version)")
}

/// A program by path, or by name in PATH.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return absolute(name);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("there is no {name} in PATH: install it, or give its path"))
}

fn absolute(path: &str) -> Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("cannot find {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_a_shim_with_its_runtime() {
        let candidate: Candidate = "a=/bin/sh,runtime=sh".parse().unwrap();
        assert_eq!(candidate.name, "a");
        assert!(candidate.runtime.is_some() && candidate.config.is_none());
        assert!(!candidate.is_husk());
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, found) in [
            (
                "runc version 1.3.6\ncommit: v1.3.6-0\nspec: 1.2.1\n",
                "1.3.6",
            ),
            (
                "/bin/containerd-shim-runc-v2:\n  Version:  2.1.9+unknown\n",
                "2.1.9+unknown",
            ),
            ("containerd-shim-husk-v2 0.1.0\n", "0.1.0"),
            ("", "(no version)"),
        ] {
            assert_eq!(version(text), found);
        }
    }

    #[test]
    fn what_is_wrong_with_a_candidate_is_said() {
        for (text, words) in [
            ("husk", "is not NAME="),
            ("a/b=/bin/sh", "no name"),
            ("a=/no/such/shim", "/no/such/shim"),
            ("a=/bin/sh,runtime=no-such-runtime", "no-such-runtime"),
            ("a=/bin/sh,speed=high", "`speed=high`"),
            ("a=/bin/sh,runtime=sh,config=/bin/sh", "no shim takes both"),
        ] {
            let error = format!("{:#}", text.parse::<Candidate>().unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
