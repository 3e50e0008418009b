//! What a call's store holds.
use std::sync::Arc;

use oci_spec::runtime::{LinuxResources, Process};
use wasmtime::component::HasData;

use crate::guest_log::{GuestLog, Tail};
use crate::limits::Budget;
use crate::plugin::Settings;
use crate::subject::{Container, Exit, Pod, Question};

/// The subject, the limits, and what the plugin did so far.
pub(crate) struct State {
    pub(crate) budget: Budget,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Option<Container>,
    pub(crate) process: Option<Process>,
    pub(crate) exit: Option<Exit>,
    pub(crate) update: Option<LinuxResources>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) log: GuestLog,
    /// What it wrote to WASI's output streams last: languages' runtimes tell there why they end.
    pub(crate) output: Tail,
    /// Whether `edit` may be called: only while a container is being created.
    pub(crate) editing: bool,
    /// What `edit` did, in words, for the audit record.
    pub(crate) edits: Vec<String>,
}

impl State {
    pub(crate) fn new(pod: &Arc<Pod>, question: &Question<'_>, settings: &Arc<Settings>) -> Self {
        Self {
            budget: Budget::new(settings.config.memory),
            pod: Arc::clone(pod),
            container: question.container().cloned(),
            process: question.process().cloned(),
            exit: question.exit(),
            update: question.update().cloned(),
            settings: Arc::clone(settings),
            log: GuestLog::default(),
            output: Tail::default(),
            editing: matches!(question, Question::ContainerCreating(_)),
            edits: Vec::new(),
        }
    }
}

/// Tells wasmtime that host functions get the whole state.
pub(crate) struct Data;

impl HasData for Data {
    type Data<'a> = &'a mut State;
}
