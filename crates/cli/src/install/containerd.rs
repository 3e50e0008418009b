//! containerd as it is installed: what its configuration says, and would say with husk's handlers.
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use toml_edit::{Array, DocumentMut, Item, Value};

use super::Handler;

/// The drop-in, and what its directory is imported by: files of others there are none of husk's business.
const DROP_IN: &str = "conf.d/husk.toml";
const IMPORT: &str = "conf.d/husk*.toml";

/// The first release that serves pods with hostNetwork with `sandboxer = 'shim'`; earlier ones panic.
const SHIM_MODE: (u32, u32) = (2, 3);

/// CRI's part of the configuration, by the version of the file.
const CRI: [(i64, &str); 2] = [
    (2, "io.containerd.grpc.v1.cri"),
    (3, "io.containerd.cri.v1.runtime"),
];
/// The newest of those is what containerd shows.
const SHOWN: &str = CRI[1].1;

/// Who makes pods' sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sandboxer {
    /// The shim from containerd 2.3 on, a pause container before
    #[default]
    Auto,
    /// A pause container
    Podsandbox,
    /// The shim alone
    Shim,
}

/// What is known of the containerd of this node.
#[derive(Debug)]
pub(crate) struct Containerd {
    program: PathBuf,
    /// As it says it.
    pub(crate) version: String,
    release: (u32, u32),
    /// Its configuration; there need be none.
    pub(crate) config: PathBuf,
}

/// What is to be in its configuration's files.
pub(super) struct Files {
    pub(super) main: String,
    pub(super) drop_in: String,
}

impl Containerd {
    /// Asks the program.
    ///
    /// # Errors
    /// There is none, or it is older than 2.0.
    pub(crate) fn find(program: &Path, config: &Path) -> Result<Self> {
        let said = run(Command::new(program).arg("--version")).map_err(|error| {
            let fix = "install containerd 2.0 or newer, or name its program by --containerd";
            error.context(format!("{} does not run: {fix}", program.display()))
        })?;
        let word = said.split_whitespace().nth(2).unwrap_or_default();
        let version = word.trim_start_matches('v');
        let release = release(version)
            .ok_or_else(|| anyhow!("{} says {said:?}, no version", program.display()))?;
        ensure!(
            release >= (2, 0),
            "containerd {version} is too old: husk needs 2.0 or newer"
        );
        // A link stays one: what it leads to is written.
        let config = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
        Ok(Self {
            program: program.to_owned(),
            version: version.to_owned(),
            release,
            config,
        })
    }

    pub(crate) fn drop_in(&self) -> PathBuf {
        self.beside(DROP_IN)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("/")).join(name)
    }

    pub(crate) fn sandboxer(&self, wanted: Sandboxer) -> &'static str {
        match wanted {
            Sandboxer::Shim => "shim",
            Sandboxer::Auto if self.release >= SHIM_MODE => "shim",
            _ => "podsandbox",
        }
    }

    /// Whether a pod with hostNetwork takes this containerd down where the shim makes sandboxes.
    pub(crate) fn panics_at_host_network(&self) -> bool {
        self.release < SHIM_MODE
    }

    /// The text of its configuration, if there is one.
    fn text(&self) -> Result<Option<String>> {
        match fs::read_to_string(&self.config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => text
                .map(Some)
                .with_context(|| format!("reading {}", self.config.display())),
        }
    }

    fn parsed(&self) -> Result<DocumentMut> {
        let text = self.text()?.unwrap_or_else(|| "version = 3\n".to_owned());
        text.parse()
            .with_context(|| format!("{} is not TOML", self.config.display()))
    }

    /// Its files with husk's handlers in them.
    ///
    /// # Errors
    /// The configuration is none, or of a version that knows no handlers.
    pub(super) fn with(&self, handlers: &[Handler], sandboxer: &str) -> Result<Files> {
        let mut main = self.parsed()?;
        let version = version(&main)?;
        let &(_, cri) = CRI
            .iter()
            .find(|(known, _)| *known == version)
            .ok_or_else(|| {
                anyhow!(
                    "{} has `version = {version}`: bring it to 3, with `containerd config migrate`",
                    self.config.display()
                )
            })?;
        if !self.imports(&main)?.iter().any(|it| self.covers(it)) {
            let pattern = self.beside(IMPORT).display().to_string();
            let imports = main
                .entry("imports")
                .or_insert(Item::Value(Array::new().into()));
            let imports = imports.as_array_mut().context("`imports` is no list")?;
            imports.push(pattern);
        }
        Ok(Files {
            main: main.to_string(),
            drop_in: drop_in(version, cri, handlers, sandboxer),
        })
    }

    /// The main file without what [`Self::with`] has added; None if nothing is left of it.
    pub(super) fn without(&self, created: bool) -> Result<Option<String>> {
        let mut main = self.parsed()?;
        let ours = self.beside(IMPORT);
        if let Some(imports) = main.get_mut("imports").and_then(Item::as_array_mut) {
            imports.retain(|it| it.as_str().is_none_or(|it| Path::new(it) != ours));
            if imports.is_empty() {
                main.remove("imports");
            }
        }
        let is_bare = main.iter().all(|(key, _)| key == "version");
        Ok((!(created && is_bare)).then(|| main.to_string()))
    }

    fn imports(&self, main: &DocumentMut) -> Result<Vec<PathBuf>> {
        let Some(imports) = main.get("imports") else {
            return Ok(Vec::new());
        };
        let imports = imports.as_array().context("`imports` is no list")?;
        // Those that are no absolute paths begin at the file.
        let named = imports.iter().filter_map(Value::as_str);
        Ok(named.map(|it| self.beside(it)).collect())
    }

    /// Whether the drop-in is among what an import names; a `*` stands for what has no `/`.
    fn covers(&self, import: &Path) -> bool {
        let drop_in = self.drop_in();
        let (Some(pattern), Some(name)) = (
            import.file_name().and_then(OsStr::to_str),
            drop_in.file_name().and_then(OsStr::to_str),
        ) else {
            return false;
        };
        import.parent() == drop_in.parent() && matches(pattern, name)
    }

    /// What containerd makes of its configuration as it is.
    pub(crate) fn dump(&self) -> Result<toml::Table> {
        self.dump_of(&self.config)
    }

    fn dump_of(&self, config: &Path) -> Result<toml::Table> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(config).args(["config", "dump"]);
        run(&mut command)?
            .parse()
            .context("what `containerd config dump` says is not TOML")
    }

    /// Has containerd read files that are not in their places yet, and checks that it finds the handlers in
    /// them, and else what it found before.
    ///
    /// # Errors
    /// It does not, or refuses them.
    pub(super) fn try_out(
        &self,
        main: Option<&str>,
        drop_in: Option<&str>,
        handlers: &[Handler],
        sandboxer: &str,
    ) -> Result<()> {
        let before = self
            .dump()
            .context("containerd refuses its configuration as it is")?;
        let dir = tempfile::tempdir()?;
        let mut staged: DocumentMut = main.unwrap_or("version = 3\n").parse()?;
        let mut imports = Array::new();
        for import in self.imports(&staged)? {
            // The drop-in is another one here: by a pattern, all that it names but the drop-in.
            for file in globbed(&import)? {
                if file != self.drop_in() {
                    imports.push(file.display().to_string());
                }
            }
        }
        if let Some(text) = drop_in {
            let path = dir.path().join("husk.toml");
            fs::write(&path, text)?;
            imports.push(path.display().to_string());
        }
        staged.insert("imports", Item::Value(imports.into()));
        let path = dir.path().join("config.toml");
        fs::write(&path, staged.to_string())?;
        let after = self.dump_of(&path).context(
            "containerd refuses its configuration with husk in it; nothing has been changed",
        )?;
        for handler in handlers {
            let name = &handler.name;
            let found = runtimes(&after).and_then(|runtimes| runtimes.get(name));
            let says = |key| {
                found
                    .and_then(|found| found.get(key))
                    .and_then(toml::Value::as_str)
            };
            ensure!(
                says("runtime_type") == Some(super::RUNTIME_TYPE)
                    && says("sandboxer") == Some(sandboxer),
                "containerd does not find the handler {name} in {}; nothing has been changed",
                self.drop_in().display()
            );
        }
        match difference(&bare(before), &bare(after), "") {
            None => Ok(()),
            Some(key) => bail!(
                "with husk in it, containerd would read another `{key}` from its configuration; nothing has \
                 been changed. Bring {} to version 3, with `containerd config migrate`, and try again",
                self.config.display()
            ),
        }
    }
}

/// Major and minor.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn version(main: &DocumentMut) -> Result<i64> {
    match main.get("version") {
        None => Ok(1),
        Some(version) => version.as_integer().context("`version` is no number"),
    }
}

fn drop_in(version: i64, cri: &str, handlers: &[Handler], sandboxer: &str) -> String {
    let mut text =
        format!("# Written by `husk install`; `husk uninstall` removes it.\nversion = {version}\n");
    for Handler { name, config, .. } in handlers {
        let table = format!("plugins.'{cri}'.containerd.runtimes.{name}");
        text.push_str(&format!(
            "\n[{table}]\n  runtime_type = '{}'\n  sandboxer = '{sandboxer}'\n  [{table}.options]\n    \
             ConfigPath = '{}'\n",
            super::RUNTIME_TYPE,
            config.display()
        ));
    }
    text
}

pub(crate) fn runtimes(dump: &toml::Table) -> Option<&toml::Table> {
    dump.get("plugins")?
        .get(SHOWN)?
        .get("containerd")?
        .get("runtimes")?
        .as_table()
}

/// What a configuration says but for husk: without its handlers, and where they were imported from.
fn bare(mut dump: toml::Table) -> toml::Value {
    dump.remove("imports");
    let runtimes = dump
        .get_mut("plugins")
        .and_then(|it| it.get_mut(SHOWN))
        .and_then(|it| it.get_mut("containerd"))
        .and_then(|it| it.get_mut("runtimes"))
        .and_then(toml::Value::as_table_mut);
    if let Some(runtimes) = runtimes {
        runtimes.retain(|_, runtime| {
            runtime.get("runtime_type").and_then(toml::Value::as_str) != Some(super::RUNTIME_TYPE)
        });
    }
    toml::Value::Table(dump)
}

/// The first key whose value is not the same.
fn difference(one: &toml::Value, other: &toml::Value, at: &str) -> Option<String> {
    let (toml::Value::Table(one), toml::Value::Table(other)) = (one, other) else {
        return (one != other).then(|| at.to_owned());
    };
    let keys = one.keys().chain(other.keys());
    keys.into_iter().find_map(|key| {
        let at = if at.is_empty() {
            key.clone()
        } else {
            format!("{at}.{key}")
        };
        match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => difference(one, other, &at),
            _ => Some(at),
        }
    })
}

/// Whether a name is what a pattern of `*` and other characters says.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
            ends.into_iter()
                .any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
        }),
    }
}

/// The files that an import names.
fn globbed(import: &Path) -> Result<Vec<PathBuf>> {
    let name = import
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    let parent = import.parent().unwrap_or(Path::new("/"));
    ensure!(
        !parent.as_os_str().as_encoded_bytes().contains(&b'*'),
        "the import {} has a `*` in a directory's name, which husk does not follow: name the directory",
        import.display()
    );
    if !name.contains('*') {
        return Ok(vec![import.to_owned()]);
    }
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", parent.display()))?,
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|it| matches(name, it))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// What a command says, if it succeeds; why not, if it does not.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containerd(dir: &Path) -> Containerd {
        Containerd {
            program: PathBuf::from("containerd"),
            version: "2.1.4".to_owned(),
            release: (2, 1),
            config: dir.join("config.toml"),
        }
    }

    fn handler() -> Handler {
        Handler {
            name: "husk".to_owned(),
            from: None,
            config: PathBuf::from("/etc/husk/husk.toml"),
        }
    }

    #[test]
    fn what_a_configuration_says_besides_stays() {
        let dir = tempfile::tempdir().unwrap();
        let containerd = containerd(dir.path());
        let text = "version = 2 # old\n\n[plugins.\"x\"]\n  key = 1 # why\n";
        fs::write(&containerd.config, text).unwrap();
        let files = containerd.with(&[handler()], "podsandbox").unwrap();
        let import = dir.path().join(IMPORT);
        assert_eq!(
            files.main,
            format!(
                "version = 2 # old\nimports = [\"{}\"]\n\n[plugins.\"x\"]\n  key = 1 # why\n",
                import.display()
            )
        );
        assert!(files.drop_in.contains("version = 2"), "{}", files.drop_in);
        assert!(
            files.drop_in.contains("io.containerd.grpc.v1.cri"),
            "{}",
            files.drop_in
        );

        fs::write(&containerd.config, &files.main).unwrap();
        // Once is enough.
        assert_eq!(
            containerd.with(&[handler()], "podsandbox").unwrap().main,
            files.main
        );
        assert_eq!(containerd.without(false).unwrap().unwrap(), text);
    }

    #[test]
    fn a_directory_that_is_imported_already_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let containerd = containerd(dir.path());
        for imports in ["conf.d/*.toml", "conf.d/*", "conf.d/h*k.toml"] {
            let text = format!("version = 3\nimports = ['{imports}']\n");
            fs::write(&containerd.config, &text).unwrap();
            assert_eq!(containerd.with(&[handler()], "shim").unwrap().main, text);
        }
        for imports in ["other.d/*.toml", "conf.d/a*.toml", "conf.d/*/husk.toml"] {
            let text = format!("version = 3\nimports = ['{imports}']\n");
            fs::write(&containerd.config, &text).unwrap();
            assert_ne!(containerd.with(&[handler()], "shim").unwrap().main, text);
        }
    }

    #[test]
    fn one_that_was_not_there_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let containerd = containerd(dir.path());
        let files = containerd.with(&[handler()], "shim").unwrap();
        fs::write(&containerd.config, &files.main).unwrap();
        assert_eq!(containerd.without(true).unwrap(), None);
        // Somebody has added to it.
        fs::write(&containerd.config, format!("oom_score = 1\n{}", files.main)).unwrap();
        let left = containerd.without(true).unwrap().unwrap();
        assert_eq!(left, "oom_score = 1\nversion = 3\n");
    }

    #[test]
    fn what_cannot_have_handlers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let containerd = containerd(dir.path());
        for (text, why) in [
            ("oom_score = 1\n", "version = 1"),
            ("version = [\n", "not TOML"),
            ("version = 3\nimports = 'x'\n", "no list"),
        ] {
            fs::write(&containerd.config, text).unwrap();
            let error = containerd.with(&[handler()], "shim").err().unwrap();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }

    #[test]
    fn differences_are_found_by_their_key() {
        let value = |text: &str| toml::Value::Table(text.parse().unwrap());
        let one = value("a = 1\n[b]\nc = [1]\n");
        assert_eq!(difference(&one, &one, ""), None);
        for (other, key) in [
            ("a = 2\n[b]\nc = [1]\n", "a"),
            ("a = 1\n[b]\nc = [2]\n", "b.c"),
            ("a = 1\n", "b"),
            ("a = 1\n[b]\nc = [1]\nd = 2\n", "b.d"),
        ] {
            assert_eq!(difference(&one, &value(other), "").as_deref(), Some(key));
        }
    }
}
