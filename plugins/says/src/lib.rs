//! Does what its settings say, well or badly: for tests of what becomes of a plugin's answers.
mod edits;

use std::collections::BTreeMap;

use husk_plugin::{
    Answer, Assignment, Configurable, Denial, Hooks, Kind, Link, Linked, Links, Policy, Protocol,
    Scope, Verdict, assign, container, deny, host, link_from, link_to,
};
use serde::Deserialize;

use edits::Edits;

/// What to do, by function of `husk:plugin`.
type Settings = BTreeMap<String, Act>;

/// What one function does. What is not set is not done.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Act {
    /// The only container that this is about.
    only: Option<String>,
    /// A line for the log.
    log: Option<String>,
    /// How to go wrong.
    fail: Option<Fail>,
    /// Why to refuse.
    deny: Option<String>,
    /// The scopes to assign, by kind, as a handler's configuration writes them.
    scopes: BTreeMap<String, String>,
    /// The links to decide, as a handler's configuration writes them.
    links: Vec<LinkWords>,
    /// The changes to the container that is being made.
    edits: Edits,
}

/// A link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkWords {
    to: Option<String>,
    from: Option<String>,
    port: u16,
    local: Option<u16>,
    protocol: Option<String>,
}

/// The ways to go wrong.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fail {
    Trap,
    Loop,
    Recursion,
    Memory,
}

struct Says;

impl Policy for Says {
    fn scope_sandbox() -> Answer {
        let settings: Settings = husk_plugin::settings()?;
        scopes(settings.get("scope-sandbox"))
    }

    fn scope_container() -> Answer {
        let settings: Settings = husk_plugin::settings()?;
        let act = settings.get("scope-container");
        scopes(act.filter(|act| act.is_about_container()))
    }
}

impl Links for Says {
    fn link_container() -> Linked {
        let settings: Settings = husk_plugin::settings()?;
        let act = settings.get("link-container");
        let Some(act) = act.filter(|act| act.is_about_container()) else {
            return Ok(Vec::new());
        };
        act.verdict()?;
        links(act).map_err(deny)
    }
}

impl Hooks for Says {
    fn sandbox_starting() -> Verdict {
        about_sandbox("sandbox-starting")
    }

    fn sandbox_started() {
        told(about_sandbox("sandbox-started"));
    }

    fn sandbox_stopped() {
        told(about_sandbox("sandbox-stopped"));
    }

    fn container_creating() -> Verdict {
        let settings: Settings = husk_plugin::settings()?;
        let act = settings.get("container-creating");
        let Some(act) = act.filter(|act| act.is_about_container()) else {
            return Ok(());
        };
        act.verdict()?;
        act.edits.make();
        Ok(())
    }

    fn container_started() {
        told(about_container("container-started"));
    }

    fn container_exited() {
        told(about_container("container-exited"));
    }

    fn container_oom() {
        told(about_container("container-oom"));
    }

    fn exec_starting() -> Verdict {
        about_container("exec-starting")
    }

    fn resources_updating() -> Verdict {
        about_container("resources-updating")
    }
}

impl Configurable for Says {
    fn validate_settings(settings: String) -> Result<(), String> {
        let settings: Settings = husk_plugin::parse_settings(&settings)?;
        for (name, act) in &settings {
            let made = assignments(act).map(drop);
            made.and_then(|()| links(act).map(drop))
                .map_err(|problem| format!("{name}: {problem}"))?;
        }
        match settings.get("validate-settings") {
            Some(act) => act.verdict().map_err(|denial| denial.reason),
            None => Ok(()),
        }
    }
}

impl Act {
    fn is_about_container(&self) -> bool {
        self.only
            .as_ref()
            .is_none_or(|name| *name == container::name())
    }

    /// Logs, goes wrong, refuses: what it is told to.
    fn verdict(&self) -> Verdict {
        if let Some(line) = &self.log {
            host::log(host::Level::Info, line);
        }
        match self.fail {
            Some(Fail::Trap) => panic!("as it was told"),
            Some(Fail::Loop) => loop {
                core::hint::spin_loop();
            },
            Some(Fail::Recursion) => {
                core::hint::black_box(deeper(0));
            }
            Some(Fail::Memory) => fill(),
            None => {}
        }
        self.deny
            .as_ref()
            .map_or(Ok(()), |reason| Err(deny(reason.as_str())))
    }
}

fn about_sandbox(function: &str) -> Verdict {
    let settings: Settings = husk_plugin::settings()?;
    settings.get(function).map_or(Ok(()), Act::verdict)
}

fn about_container(function: &str) -> Verdict {
    let settings: Settings = husk_plugin::settings()?;
    let act = settings
        .get(function)
        .filter(|act| act.is_about_container());
    act.map_or(Ok(()), Act::verdict)
}

/// What comes after the event has nobody to refuse.
fn told(verdict: Verdict) {
    if let Err(Denial { reason }) = verdict {
        host::log(host::Level::Warn, &reason);
    }
}

fn scopes(act: Option<&Act>) -> Answer {
    let Some(act) = act else {
        return Ok(Vec::new());
    };
    act.verdict()?;
    assignments(act).map_err(deny)
}

fn assignments(act: &Act) -> Result<Vec<Assignment>, String> {
    let parse =
        |(kind, scope): (&String, &String)| Ok(assign(self::kind(kind)?, self::scope(scope)?));
    act.scopes.iter().map(parse).collect()
}

fn links(act: &Act) -> Result<Vec<Link>, String> {
    let parse = |words: &LinkWords| {
        let link = match (words.to.as_deref(), words.from.as_deref()) {
            (Some(to), None) => link_to(to, words.port),
            (None, Some(from)) => link_from(from, words.port),
            _ => return Err("a link has one of `to` and `from`".to_owned()),
        };
        Ok(Link {
            local: words.local,
            protocol: match words.protocol.as_deref() {
                None | Some("tcp") => Protocol::Tcp,
                Some("udp") => Protocol::Udp,
                Some(word) => return Err(format!("`{word}` is not a protocol")),
            },
            ..link
        })
    };
    act.links.iter().map(parse).collect()
}

fn kind(word: &str) -> Result<Kind, String> {
    Ok(match word {
        "network" => Kind::Network,
        "pid" => Kind::Pid,
        "ipc" => Kind::Ipc,
        "uts" => Kind::Uts,
        "user" => Kind::User,
        "mount" => Kind::Mount,
        "cgroup" => Kind::Cgroup,
        "time" => Kind::Time,
        _ => return Err(format!("`{word}` is not a kind of namespace")),
    })
}

fn scope(word: &str) -> Result<Scope, String> {
    Ok(match word.split_once(':') {
        Some(("target", name)) => Scope::Target(name.to_owned()),
        Some(("group", name)) => Scope::Group(name.to_owned()),
        _ if word == "container" => Scope::Container,
        _ if word == "pod" => Scope::Pod,
        _ if word == "node" => Scope::Node,
        _ => return Err(format!("`{word}` is not a scope")),
    })
}

/// Never comes back: the stack ends.
fn deeper(depth: u64) -> u64 {
    if core::hint::black_box(depth) == u64::MAX {
        return 0;
    }
    core::hint::black_box(deeper(depth + 1)) + 1
}

/// Takes memory until there is no more, and fails then.
fn fill() {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(core::hint::black_box(vec![1; 1 << 20]));
    }
}

husk_plugin::policy!(Says);
husk_plugin::links!(Says);
husk_plugin::hooks!(Says);
husk_plugin::configurable!(Says);
