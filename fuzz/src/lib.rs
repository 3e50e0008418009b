//! What is fuzzed: one function for each kind of bytes that husk reads and did not write.
//!
//! None may panic, hang or take memory without bounds, whatever the bytes are; and what is read must
//! hold what the documentation of its type says.
use std::path::{Path, PathBuf};

use husk_scope::config::Config;
use husk_scope::{Kind, Known, Paths, Plan, Scope, Scopes, requested};
use oci_spec::runtime::Spec;

mod image;
mod request;

pub use image::{layer, manifest};
pub use request::{bootstrap, request};

/// A handler's configuration.
pub fn toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse("config.toml", text) {
        Ok(config) => {
            for container in ["app", ""] {
                let _ = config.plan(container, &every_scope(Scope::Pod));
                let _ = config.plan(container, &every_scope(Scope::Container));
            }
            let _ = config.sandbox_kinds();
        }
        Err(error) => assert!(error.to_string().starts_with("config.toml"), "{error}"),
    }
}

/// A container's config.json, to the plan that is made of it and the spec that the plan makes.
///
/// Before the first zero byte there may be a handler's configuration.
pub fn config(data: &[u8]) {
    let (text, json) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => data.split_at(end),
        None => (&b""[..], data),
    };
    let json = json.strip_prefix(b"\0").unwrap_or(json);
    husk_sandbox::fuzzing::spec(json);
    let text = std::str::from_utf8(text).unwrap_or_default();
    let config = Config::parse("config.toml", text).unwrap_or_default();
    let Ok(mut spec) = serde_json::from_slice::<Spec>(json) else {
        return;
    };
    let Ok(requested) = requested(&spec, &Pod) else {
        return;
    };
    let Ok(plan) = config.plan("app", &requested) else {
        return;
    };
    check(&plan, &config);
    if plan.edit(&mut spec, &Pod).is_err() {
        return;
    }
    // What is written for the zygote is read as what it was.
    let written = serde_json::to_vec(&spec).expect("a spec that was read can be written");
    let again: Spec =
        serde_json::from_slice(&written).expect("a spec that was written can be read");
    assert_eq!(again, spec);
    // Planned again, it asks for what was planned: its namespaces are those of the plan.
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().clone());
    let mut kinds: Vec<_> = namespaces.iter().flatten().map(|it| it.typ()).collect();
    let count = kinds.len();
    kinds.sort_by_key(|kind| kind.to_string());
    kinds.dedup();
    assert_eq!(kinds.len(), count, "a kind of namespace twice");
}

/// No plan is wider than its ceiling in what was assigned.
fn check(plan: &Plan, config: &Config) {
    for (kind, planned) in plan.iter() {
        if let (true, Some(widest)) = (planned.is_assigned(), config.ceiling.widest(kind)) {
            assert!(planned.scope.width() <= widest, "{kind} {planned:?}");
        }
    }
}

/// A pod's record, as whoever reads one that another husk has written.
pub fn record(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<husk_scope::record::Pod>(data) else {
        return;
    };
    let written = serde_json::to_vec(&record).expect("a record that was read can be written");
    let again: husk_scope::record::Pod =
        serde_json::from_slice(&written).expect("a record that was written can be read");
    assert_eq!(again, record);
}

/// A pod that has every namespace, and a container `other`: which of them a path leads to, its
/// length says.
struct Pod;

fn third(path: &Path) -> usize {
    path.as_os_str().len() % 4
}

impl Known for Pod {
    fn is_sandbox(&self, _: Kind, path: &Path) -> bool {
        third(path) == 0
    }

    fn container(&self, _: Kind, path: &Path) -> Option<String> {
        (third(path) == 1).then(|| "other".to_owned())
    }

    fn is_node(&self, _: Kind, path: &Path) -> bool {
        third(path) == 2
    }
}

impl Paths for Pod {
    fn namespace(&self, kind: Kind, scope: &Scope) -> Option<PathBuf> {
        Some(format!("/run/husk/{kind}/{scope}").into())
    }

    fn is_node(&self, _: Kind, _: &Path) -> bool {
        false
    }

    fn shm(&self, scope: &Scope) -> Option<PathBuf> {
        Some(format!("/run/husk/shm/{scope}").into())
    }

    fn ids(&self, _: &husk_scope::Scope) -> Option<husk_scope::Ids> {
        husk_scope::Ranges::default().iter().next()
    }

    fn hostname(&self) -> Option<String> {
        Some("pod".to_owned())
    }
}

fn every_scope(scope: Scope) -> Scopes {
    let mut scopes = Scopes::all(&scope);
    scopes[Kind::Mount] = Scope::Container;
    scopes
}
