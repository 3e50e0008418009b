//! `husk policy new`: a project that builds.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use super::line;

/// What the templates call the plugin.
const NAME_IN_RUST: &str = "my-policy";
const NAME_IN_WORDS: &str = "NAME";

/// Where the template in Rust finds the SDK in husk's repository, and where a project has it.
const SDK_IN_REPOSITORY: &str = "../../../crates/plugin-sdk";
const SDK: &str = "vendor/husk-plugin";

/// The contract's place in a project; the SDK finds it there by the same relative path as in husk's
/// repository.
pub(super) const WIT: &str = "wit/0.1.1";

/// What a build makes, and no history should hold.
const IGNORED: &str = "/target\n/node_modules\n/.venv\n*.wasm\n";

/// What a job of continuous integration runs, whoever runs it.
const CI: &str = "ci";

#[derive(clap::Args)]
pub(super) struct Args {
    /// The language
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
    /// The folder to make; its name is the plugin's
    dir: PathBuf,
}

/// What plugins may be written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Language {
    #[default]
    Rust,
    C,
    #[value(alias = "javascript")]
    Js,
    #[value(alias = "py")]
    Python,
}

/// A file of a project, and what is in it.
type File = (&'static str, &'static str);

/// A file of the repository's templates.
macro_rules! template {
    ($language:literal, $($path:literal),+ $(,)?) => {
        &[$((
            $path,
            include_str!(concat!("../../../../../plugins/templates/", $language, "/", $path)),
        )),+]
    };
}

/// What every project has.
const COMMON: &[File] = &[
    (
        "wit/0.1.1/plugin.wit",
        include_str!("../../../../../wit/0.1.1/plugin.wit"),
    ),
    (".gitignore", IGNORED),
    (CI, include_str!("ci")),
];

/// The SDK comes in source: no registry has it, a path would name somebody else's folder, and a
/// repository's address would need the network and might move on from the contract beside it.
const SDK_FILES: &[File] = &[
    (
        "vendor/husk-plugin/Cargo.toml",
        include_str!("husk-plugin.toml"),
    ),
    (
        "vendor/husk-plugin/src/lib.rs",
        include_str!("../../../../plugin-sdk/src/lib.rs"),
    ),
    (
        "vendor/husk-plugin/src/worlds.rs",
        include_str!("../../../../plugin-sdk/src/worlds.rs"),
    ),
];

impl Language {
    fn files(self) -> &'static [File] {
        match self {
            Self::Rust => template!(
                "rust",
                "Cargo.toml",
                "Cargo.lock",
                "README.md",
                "src/lib.rs",
                "cases/the-agent-is-alone.toml",
                "cases/the-nodes-processes-are-refused.toml",
                "cases/the-others-share.toml",
            ),
            Self::C => template!(
                "c",
                "README.md",
                "policy_impl.c",
                "cases/the-agent-is-alone.toml",
                "cases/the-nodes-processes-are-refused.toml",
                "cases/the-others-share.toml",
            ),
            Self::Js => template!(
                "js",
                "README.md",
                "package.json",
                "policy.js",
                "cases/the-agent-is-alone.toml",
                "cases/the-nodes-processes-are-refused.toml",
                "cases/the-others-share.toml",
            ),
            Self::Python => template!(
                "py",
                "README.md",
                "policy.py",
                "requirements.txt",
                "cases/the-agent-is-alone.toml",
                "cases/the-nodes-processes-are-refused.toml",
                "cases/the-others-share.toml",
            ),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let dir = &args.dir;
    let name = name(dir)?;
    let is_taken = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        !is_taken,
        "{} is there already and not empty; name another folder",
        dir.display()
    );
    let sdk = if args.lang == Language::Rust {
        SDK_FILES
    } else {
        &[]
    };
    for (path, text) in args.lang.files().iter().chain(COMMON).chain(sdk) {
        write(&dir.join(path), &of_project(path, text, &name))?;
    }
    line(format_args!("made {}; next:", dir.display()))?;
    for step in ["build", "check", "test"] {
        let file = if step == "build" {
            String::new()
        } else {
            format!(" {name}.wasm")
        };
        line(format_args!("  husk policy {step}{file}"))?;
    }
    line(format_args!(
        "in that folder; its README.md says what that needs"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The plugin's name: one that is a crate's, a file's and a configuration's.
fn name(dir: &Path) -> Result<String> {
    let name = dir.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} names no folder to make", dir.display()))?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
        bail!("`{name}` is no name for a plugin: use a-z, 0-9, `-` and `_`, a letter first");
    }
    Ok(name.to_owned())
}

/// The template's text, with what is the project's own.
fn of_project(path: &str, text: &str, name: &str) -> String {
    match path {
        "Cargo.toml" => text
            .replace(NAME_IN_RUST, name)
            .replace(SDK_IN_REPOSITORY, SDK),
        "Cargo.lock" => text.replace(NAME_IN_RUST, name),
        "README.md" | CI => text.replace(NAME_IN_WORDS, name),
        _ => text.to_owned(),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(doing)?;
    }
    fs::write(path, text).with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dependencies of a manifest by name, with their versions and features.
    fn dependency(manifest: &toml::Value, place: &[&str], name: &str) -> (String, toml::Value) {
        let table = place.iter().fold(manifest, |value, key| &value[key]);
        let version = table[name]["version"].as_str().unwrap().to_owned();
        let features = table[name].get("features").cloned();
        (
            version,
            features.unwrap_or_else(|| toml::Value::Array(Vec::new())),
        )
    }

    #[test]
    fn the_sdk_in_projects_depends_on_what_husk_s_own_does() {
        let own: toml::Value = toml::from_str(include_str!("../../../../../Cargo.toml")).unwrap();
        let vendored: toml::Value = toml::from_str(include_str!("husk-plugin.toml")).unwrap();
        for name in ["serde", "wit-bindgen"] {
            assert_eq!(
                dependency(&vendored, &["dependencies"], name),
                dependency(&own, &["workspace", "dependencies"], name),
                "{name}"
            );
        }
        assert_eq!(
            vendored["dependencies"]["serde_json"]["version"],
            own["workspace"]["dependencies"]["serde_json"]
        );
    }

    #[test]
    fn the_template_s_names_are_replaced() {
        let manifest = Language::Rust
            .files()
            .iter()
            .find(|(path, _)| *path == "Cargo.toml");
        let (path, text) = manifest.unwrap();
        let text = of_project(path, text, "mine");
        assert!(
            text.contains("name = \"mine\"") && text.contains(SDK),
            "{text}"
        );
        assert!(
            !text.contains(NAME_IN_RUST) && !text.contains("../"),
            "{text}"
        );
    }

    #[test]
    fn a_name_is_a_crate_s() {
        for good in ["a", "my-policy", "no_host2", "/tmp/x/mine"] {
            assert!(name(Path::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "..", "My", "2nd", "a b", "a.b"] {
            assert!(name(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
