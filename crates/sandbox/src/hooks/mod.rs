//! OCI hooks: programs that whoever wrote the spec wants run at certain moments of a container's
//! life; see "POSIX-platform Hooks" in config.md of the runtime specification, and its runtime.md.
//!
//! | kind | when | where | as whom |
//! |---|---|---|---|
//! | prestart, createRuntime | all is mounted, the root not entered yet | on the node | the node's root |
//! | createContainer | after those | in the namespaces of init, with the node's root | root, with all that init still has |
//! | startContainer | after the start, before the program | in the container, whose file it is | the container's user, with no more than the program will have |
//! | poststart | the program is executed, the start not answered yet | on the node | the node's root |
//! | poststop | nothing of the container is left | on the node | the node's root |
//!
//! A hook gets the state on its standard input and nothing else of husk's: the environment is the
//! one that the spec gives it, neither the shim's nor the container's, by whose `LD_PRELOAD` an
//! image would run its own code on the node (CVE-2025-23266); no descriptor; default signals; a
//! process group of its own, which a time limit ends.
mod node;
mod process;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{ContainerState, Hook, Spec, State};
use serde::{Deserialize, Serialize};

pub(crate) use self::node::OnNode;
use crate::bundle;
use crate::error::{Doing, JobError};

/// When hooks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Deprecated, and still what NVIDIA's hook is.
    Prestart,
    /// On the node, when all is mounted.
    CreateRuntime,
    /// In the container's namespaces, when all is mounted.
    CreateContainer,
    /// In the container, before its program.
    StartContainer,
    /// On the node, when the program is executed.
    Poststart,
    /// On the node, when nothing of the container is left.
    Poststop,
}

impl Kind {
    /// All of them, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// As a spec calls them.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    fn of(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else {
            return &[];
        };
        #[allow(deprecated, reason = "a container may still have such hooks")]
        let hooks = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        hooks.as_deref().unwrap_or_default()
    }

    /// What the container is while they run.
    fn status(self) -> ContainerState {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer => {
                ContainerState::Creating
            }
            Self::StartContainer => ContainerState::Created,
            Self::Poststart => ContainerState::Running,
            Self::Poststop => ContainerState::Stopped,
        }
    }

    /// Whether they see the node's files, among them the bundle.
    fn on_the_node(self) -> bool {
        !matches!(self, Self::CreateContainer | Self::StartContainer)
    }
}

/// A container's hooks of one kind, at least one, and what they are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    kind: Kind,
    hooks: Vec<Hook>,
    state: State,
}

impl Hooks {
    /// Those of a spec, if it has any. `bundle` is the directory that the container was made from,
    /// where hooks look for the container's `config.json`.
    #[must_use]
    pub fn of(spec: &Spec, kind: Kind, id: &str, bundle: &Path) -> Option<Self> {
        let hooks = kind.of(spec);
        if hooks.is_empty() {
            return None;
        }
        let mut state = State::default();
        state
            .set_version(spec.version().clone())
            .set_id(id.to_owned())
            .set_status(kind.status())
            .set_bundle(bundle.to_owned())
            .set_annotations(spec.annotations().clone());
        Some(Self {
            kind,
            hooks: hooks.to_vec(),
            state,
        })
    }

    /// The same, told that init is this process: as the node sees it, or, where they run in the
    /// container's namespaces, as those do.
    #[must_use]
    pub fn with_pid(mut self, pid: i32) -> Self {
        self.state.set_pid(Some(pid));
        self
    }

    /// Runs them in their order until one fails; of those that come last, all. The process must not
    /// have threads that wait for any of its children.
    ///
    /// # Errors
    /// `Failed`: which hook failed, how it ended, and the end of its output.
    pub(crate) fn run(&self) -> Result<(), JobError> {
        self.run_confined(&unconfined())
    }

    /// The same, each hook after `confine`.
    pub(crate) fn run_confined(&self, confine: &Confine) -> Result<(), JobError> {
        let mut failures = self.outcomes(None, confine)?.filter_map(Result::err);
        let Some(first) = failures.next() else {
            return Ok(());
        };
        let mut all = vec![first];
        if self.kind == Kind::Poststop {
            // The specification has the others run all the same.
            all.extend(failures);
        }
        Err(JobError::failed(all.join("; ")))
    }

    /// Runs all of them, whatever becomes of each, each no longer than `limit`: what failed.
    #[must_use]
    pub fn run_all_within(&self, limit: Duration) -> Vec<String> {
        match self.outcomes(Some(limit), &unconfined()) {
            Ok(outcomes) => outcomes.filter_map(Result::err).collect(),
            Err(error) => vec![error.message],
        }
    }

    /// Runs one with each step of the iterator.
    fn outcomes<'a>(
        &'a self,
        limit: Option<Duration>,
        confine: &'a Confine,
    ) -> Result<impl Iterator<Item = Result<(), String>> + 'a, JobError> {
        let state = self.state()?;
        Ok(self.hooks.iter().enumerate().map(move |(at, hook)| {
            let limit = time_limit(hook).into_iter().chain(limit).min();
            process::run(hook, &state, self.directory(), limit, confine)
                .map_err(|failure| self.failed(at, hook, &failure))
        }))
    }

    fn state(&self) -> Result<Vec<u8>, JobError> {
        serde_json::to_vec(&self.state)
            .map_err(io::Error::from)
            .doing(|| format!("write the state of container {} as JSON", self.state.id()))
    }

    /// Where they begin: on the node in the bundle, while it is there; else where init is.
    fn directory(&self) -> Option<&Path> {
        let bundle = self.state.bundle().as_path();
        match self.kind.on_the_node() {
            true if bundle.is_dir() => Some(bundle),
            true => Some(Path::new("/")),
            false => None,
        }
    }

    fn failed(&self, at: usize, hook: &Hook, failure: &process::Failure) -> String {
        format!(
            "{} hook {} of container {}, {}, {failure}",
            self.kind.name(),
            at + 1,
            self.state.id(),
            hook.path().display(),
        )
    }
}

/// The poststop hooks of a container that was made from the spec in `dir`, the shim's directory for
/// it, if it has any.
///
/// # Errors
/// There is no spec, or it cannot be read.
pub fn left_to_run(dir: &Path, id: &str, bundle: &Path) -> Result<Option<Hooks>, JobError> {
    let spec = bundle::load(dir)?;
    Ok(Hooks::of(&spec, Kind::Poststop, id, bundle))
}

/// What a hook's process does just before it is the hook. Where that takes memory, only a process
/// with one thread may run hooks after it.
pub(crate) type Confine = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

fn unconfined() -> Confine {
    Arc::new(|| Ok(()))
}

fn time_limit(hook: &Hook) -> Option<Duration> {
    let seconds = hook.timeout()?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Refuses hooks that the specification does not allow.
pub(crate) fn check(spec: &Spec) -> Result<(), JobError> {
    for kind in Kind::ALL {
        for hook in kind.of(spec) {
            let name = kind.name();
            let path = hook.path();
            if !path.is_absolute() {
                return Err(JobError::invalid(format!(
                    "hooks.{name}: the path {path:?} is not absolute: the specification asks for it"
                )));
            }
            if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
                return Err(JobError::invalid(format!(
                    "hooks.{name}: the timeout of {}, {timeout} s, must be greater than zero",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(hooks: Value) -> Spec {
        let spec = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "/"},
            "annotations": {"a": "b"},
            "hooks": hooks,
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn the_state_is_as_the_specification_has_it() {
        let spec = spec(json!({"poststop": [{"path": "/bin/true"}]}));
        let bundle = Path::new("/bundle");
        assert_eq!(Hooks::of(&spec, Kind::Poststart, "c", bundle), None);
        let hooks = Hooks::of(&spec, Kind::Poststop, "c", bundle).unwrap();
        let state: Value = serde_json::from_slice(&hooks.state().unwrap()).unwrap();
        let expected = json!({
            "ociVersion": "1.2.0", "id": "c", "status": "stopped", "bundle": "/bundle",
            "annotations": {"a": "b"},
        });
        assert_eq!(state, expected);
        let with_pid: Value = serde_json::from_slice(&hooks.with_pid(7).state().unwrap()).unwrap();
        assert_eq!(with_pid["pid"], 7);
    }

    #[test]
    fn a_relative_path_and_a_limit_of_nothing_are_refused() {
        for kind in Kind::ALL {
            let name = kind.name();
            let refuse = |hook: Value| check(&spec(json!({name: [hook]}))).unwrap_err().message;
            assert!(refuse(json!({"path": "true"})).contains(name));
            assert!(refuse(json!({"path": "/x", "timeout": 0})).contains("/x"));
            assert!(refuse(json!({"path": "/x", "timeout": -1})).contains("/x"));
            check(&spec(json!({name: [{"path": "/x", "timeout": 1}]}))).unwrap();
        }
    }

    #[test]
    fn each_failure_is_told_and_the_others_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ran");
        let touch = format!("touch {}", file.display());
        let spec = spec(json!({"poststop": [
            {"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]},
            {"path": "/no/such/hook"},
            {"path": "/bin/sh", "args": ["sh", "-c", touch]},
            {"path": "/bin/sh", "args": ["sh", "-c", "sleep 100"]},
        ]}));
        let hooks = Hooks::of(&spec, Kind::Poststop, "c", Path::new("/nowhere")).unwrap();
        let failures = hooks.run_all_within(Duration::from_secs(1));
        assert_eq!(
            failures,
            [
                "poststop hook 1 of container c, /bin/sh, exited with status 3; the end of its \
                 output: \"no luck\"",
                "poststop hook 2 of container c, /no/such/hook, cannot be executed: No such file \
                 or directory (os error 2)",
                "poststop hook 4 of container c, /bin/sh, did not end within 1s and was killed",
            ]
        );
        assert!(file.exists());
    }
}
