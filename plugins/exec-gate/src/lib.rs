//! Says who may exec what: an exec that no rule of the settings allows is refused.
use husk_plugin::{Configurable, Hooks, Verdict, container, deny, process};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// An exec is allowed when one of these allows it.
    allow: Vec<Rule>,
}

/// What it does not name may be anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The names of the containers.
    containers: Option<Vec<String>>,
    /// The commands, word for word; a last word `...` stands for any further ones.
    commands: Option<Vec<Vec<String>>>,
    /// The user ids, in the container.
    users: Option<Vec<u32>>,
    /// Whether it may have a terminal.
    terminal: Option<bool>,
}

/// The exec that is asked about.
struct Exec {
    container: String,
    args: Vec<String>,
    uid: u32,
    terminal: bool,
}

impl Rule {
    fn allows(&self, exec: &Exec) -> bool {
        let container = |names: &Vec<String>| names.contains(&exec.container);
        let command = |all: &Vec<Vec<String>>| all.iter().any(|words| fits(words, &exec.args));
        let user = |uids: &Vec<u32>| uids.contains(&exec.uid);
        self.containers.as_ref().is_none_or(container)
            && self.commands.as_ref().is_none_or(command)
            && self.users.as_ref().is_none_or(user)
            && (self.terminal.unwrap_or(true) || !exec.terminal)
    }
}

/// Whether the arguments are these words, or begin with those before `...`.
fn fits(words: &[String], args: &[String]) -> bool {
    match words.split_last() {
        Some((last, first)) if last == "..." => args.starts_with(first),
        _ => args == words,
    }
}

struct ExecGate;

impl Hooks for ExecGate {
    fn exec_starting() -> Verdict {
        let settings: Settings = husk_plugin::settings()?;
        let exec = Exec {
            container: container::name(),
            args: process::untrusted_args(),
            uid: process::uid(),
            terminal: process::terminal(),
        };
        if settings.allow.iter().any(|rule| rule.allows(&exec)) {
            return Ok(());
        }
        Err(deny(format!(
            "no rule allows user {} to run `{}` in container {}{}",
            exec.uid,
            exec.args.join(" "),
            exec.container,
            if exec.terminal {
                " with a terminal"
            } else {
                ""
            },
        )))
    }
}

impl Configurable for ExecGate {
    fn validate_settings(settings: String) -> Result<(), String> {
        let settings: Settings = husk_plugin::parse_settings(&settings)?;
        let commands = settings
            .allow
            .iter()
            .flat_map(|rule| &rule.commands)
            .flatten();
        match commands.into_iter().find(|words| words.is_empty()) {
            Some(_) => Err("allow: a command in `commands` has no words".to_owned()),
            None => Ok(()),
        }
    }
}

husk_plugin::hooks!(ExecGate);
husk_plugin::configurable!(ExecGate);
