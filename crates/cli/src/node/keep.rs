//! Keeps what is installed on a node in step with a directory.
//!
//! What is in order is copied to a stage on the node, and `husk install` makes the node as the stage says. What is
//! not in order does not reach the stage, so that what was there before stays.
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use husk_scope::config::Config;
use husk_terminal::messages::say;

use super::root::{Root, run};
use super::source::{Entry, Source, stems};
use crate::doctor::Finding;
use crate::install::{COMPONENT, Place, RECORD, Wanted, programs};

/// Below husk's data.
const STAGE: &str = "node";
const PROGRAMS: &str = "bin";
const CONFIGURATIONS: &str = "configs";
const PLUGINS: &str = "plugins";

/// The node, and what it is to be made by.
pub(super) struct Keeper {
    root: Root,
    place: Place,
    /// husk's data, as the node names it.
    data: PathBuf,
    /// This program.
    own: PathBuf,
    /// Where the programs are that are to be installed.
    from: PathBuf,
    /// What was said last: it is not said again.
    said: String,
}

/// Files that were not taken, and why.
pub(super) type Refused = BTreeMap<String, String>;

impl Keeper {
    /// # Errors
    /// It cannot be said where this program is.
    pub(super) fn new(root: Root, place: Place, data: &Path, from: Option<&Path>) -> Result<Self> {
        let own = std::env::current_exe().context("finding this program")?;
        let beside = own.parent().context("this program has no directory")?;
        Ok(Self {
            root,
            place,
            data: data.to_owned(),
            from: from.unwrap_or(beside).to_owned(),
            own,
            said: String::new(),
        })
    }

    fn stage(&self, name: &str) -> PathBuf {
        self.data.join(STAGE).join(name)
    }

    /// husk, as the node runs it.
    fn husk(&self) -> PathBuf {
        if self.root.is_own() {
            self.own.clone()
        } else {
            self.stage(PROGRAMS).join("husk")
        }
    }

    async fn run_husk(
        &self,
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<super::root::Said> {
        let mut command = self.root.command(&self.husk());
        command.arg("--data").arg(&self.data).args(words);
        run(&mut command).await
    }

    /// Makes the node as the directory says; without one, installs what there is.
    ///
    /// # Errors
    /// husk could not be installed. Files that are not taken are no error.
    pub(super) async fn step(&mut self, source: Option<&Source>) -> Result<Refused> {
        self.stage_programs()?;
        let mut refused = Refused::new();
        if let Some(source) = source {
            refused.extend(source.refused.clone());
            if source.configurations.is_empty() {
                // More likely a mistake than the wish to have no handlers.
                refused.insert("*.toml".to_owned(), "there is none".to_owned());
            } else if source.untold > 0 {
                // What is not told cannot be told from what is not there.
                let why = format!("{} more files cannot be taken", source.untold);
                refused.insert("*".to_owned(), why);
            } else {
                self.stage_plugins(&source.plugins, &mut refused).await?;
                self.stage_configurations(&source.configurations, &mut refused)?;
            }
        }
        let mut words: Vec<OsString> = vec!["install".into()];
        words.extend(self.place.words());
        let from = if self.root.is_own() {
            self.from.clone()
        } else {
            self.stage(PROGRAMS)
        };
        words.extend(["--from".into(), from.into()]);
        let plugins = self.root.path(&self.stage(PLUGINS))?;
        if source.is_some() && plugins.exists() {
            words.extend(["--plugins".into(), self.stage(PLUGINS).into()]);
            let staged = self.root.path(&self.stage(CONFIGURATIONS))?;
            for (name, _) in stems(&staged, "toml")? {
                let file = self.stage(CONFIGURATIONS).join(format!("{name}.toml"));
                let mut word = OsString::from(format!("--handler={name}="));
                word.push(file);
                words.push(word);
            }
        }
        self.say_once(words).await?;
        Ok(refused)
    }

    /// Takes away what was installed.
    ///
    /// # Errors
    /// It could not be, pods that run above all.
    pub(super) async fn remove(&mut self) -> Result<()> {
        let record = self.root.path(&self.data.join(RECORD))?;
        if !record.exists() {
            return Ok(());
        }
        self.stage_programs()?;
        let mut words: Vec<OsString> = vec!["uninstall".into()];
        words.extend(self.place.node.words());
        self.say_once(words).await?;
        let stage = self.root.path(&self.data.join(STAGE))?;
        match fs::remove_dir_all(&stage) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", stage.display()))
            }
            _ => Ok(()),
        }
    }

    async fn say_once(&mut self, words: Vec<OsString>) -> Result<()> {
        let said = self.run_husk(words).await?;
        ensure!(said.success, "{}", said.stderr);
        if said.stderr != self.said {
            say(&said.stderr);
            self.said = said.stderr;
        }
        Ok(())
    }

    /// What `husk doctor` finds on the node.
    ///
    /// # Errors
    /// It cannot be run.
    pub(super) async fn findings(&self) -> Result<Vec<Finding>> {
        let mut words: Vec<OsString> = vec!["doctor".into(), "--json".into()];
        words.extend(self.place.node.containerd_words());
        let said = self.run_husk(words).await?;
        // It fails if it finds an error, and tells it all the same.
        serde_json::from_slice(&said.stdout)
            .with_context(|| format!("`husk doctor` said: {}", said.stderr))
    }

    /// Where the configurations that are in force are, for this process.
    pub(super) fn in_force(&self) -> Result<PathBuf> {
        self.root.path(&self.place.configs)
    }

    /// The handlers that this node was given.
    pub(super) fn handlers(&self) -> Result<Vec<String>> {
        let staged = stems(&self.root.path(&self.stage(CONFIGURATIONS))?, "toml")?;
        Ok(staged.into_iter().map(|(name, _)| name).collect())
    }

    /// The node cannot run what only this container has.
    fn stage_programs(&self) -> Result<()> {
        if self.root.is_own() {
            return Ok(());
        }
        let to = self.root.path(&self.stage(PROGRAMS))?;
        programs(Some(&self.from), &to)?
            .into_iter()
            .try_for_each(put)
    }

    async fn stage_plugins(
        &self,
        plugins: &BTreeMap<String, Entry>,
        refused: &mut Refused,
    ) -> Result<()> {
        let dir = self.root.path(&self.stage(PLUGINS))?;
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        for (name, entry) in plugins {
            let file = format!("{name}.{COMPONENT}");
            if let Err(error) = self.stage_plugin(&dir, &file, entry).await {
                refused.insert(file, format!("{error:#}"));
            }
        }
        let there: BTreeSet<_> = plugins.keys().cloned().collect();
        forget(&dir, COMPONENT, &there, refused)
    }

    /// Compiles it first: what does not compile would deny every pod of its handlers.
    async fn stage_plugin(&self, dir: &Path, file: &str, entry: &Entry) -> Result<()> {
        let content = entry.content()?;
        let path = dir.join(file);
        if fs::read(&path).is_ok_and(|now| now == content) {
            return Ok(());
        }
        let tried = format!("{file}.tried");
        put(wanted(dir.join(&tried), content))?;
        let on_node = self.stage(PLUGINS).join(&tried);
        let words = ["policy", "compile", "--confined"].map(OsString::from);
        let compiled = self.run_husk(words.into_iter().chain([on_node.into()]));
        let said = match compiled.await {
            Ok(said) if said.success => {
                return fs::rename(dir.join(&tried), &path)
                    .with_context(|| format!("writing {}", path.display()));
            }
            Ok(said) => said.stderr,
            Err(error) => format!("{error:#}"),
        };
        // That it does not compile is the failure to tell.
        let _ = fs::remove_file(dir.join(&tried));
        bail!(said)
    }

    fn stage_configurations(
        &self,
        configurations: &BTreeMap<String, Entry>,
        refused: &mut Refused,
    ) -> Result<()> {
        let dir = self.root.path(&self.stage(CONFIGURATIONS))?;
        for (name, entry) in configurations {
            let file = format!("{name}.toml");
            if let Err(error) = stage_configuration(&dir, &file, entry) {
                refused.insert(file, format!("{error:#}"));
            }
        }
        let there: BTreeSet<_> = configurations.keys().cloned().collect();
        forget(&dir, "toml", &there, refused)
    }
}

fn stage_configuration(dir: &Path, file: &str, entry: &Entry) -> Result<()> {
    let text = String::from_utf8(entry.content()?).context("it is not UTF-8")?;
    Config::parse(file, &text)?;
    put(wanted(dir.join(file), text.into_bytes()))
}

/// Removes what is staged and there no more; what is there and was refused stays as it was.
fn forget(dir: &Path, extension: &str, there: &BTreeSet<String>, refused: &Refused) -> Result<()> {
    for (name, path) in stems(dir, extension)? {
        if !there.contains(&name) && !refused.contains_key(&format!("{name}.{extension}")) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

fn wanted(path: PathBuf, content: Vec<u8>) -> Wanted {
    Wanted {
        path,
        content: Some(content),
        mode: 0o600,
    }
}

fn put(wanted: Wanted) -> Result<()> {
    match wanted.change()? {
        Some(change) => change.make(),
        None => Ok(()),
    }
}
