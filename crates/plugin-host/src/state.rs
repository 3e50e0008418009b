//! What a call's store holds.
use std::sync::Arc;

use oci_spec::runtime::{LinuxResources, Process};
use wasmtime::component::HasData;
use wasmtime::{StoreLimits, StoreLimitsBuilder};

use crate::guest_log::GuestLog;
use crate::plugin::Settings;
use crate::subject::{Container, Exit, Pod, Question};

/// The subject, the limits, and what the plugin did so far.
pub(crate) struct State {
    pub(crate) limits: StoreLimits,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Option<Container>,
    pub(crate) process: Option<Process>,
    pub(crate) exit: Option<Exit>,
    pub(crate) update: Option<LinuxResources>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) log: GuestLog,
    /// Whether `edit` may be called: only while a container is being created.
    pub(crate) editing: bool,
    /// What `edit` did, in words, for the audit record.
    pub(crate) edits: Vec<String>,
}

impl State {
    pub(crate) fn new(pod: &Arc<Pod>, question: &Question<'_>, settings: &Arc<Settings>) -> Self {
        Self {
            limits: StoreLimitsBuilder::new()
                .memory_size(usize::try_from(settings.config.memory).unwrap_or(usize::MAX))
                .table_elements(100_000)
                .instances(100)
                .tables(100)
                .memories(16)
                .build(),
            pod: Arc::clone(pod),
            container: question.container().cloned(),
            process: question.process().cloned(),
            exit: question.exit(),
            update: question.update().cloned(),
            settings: Arc::clone(settings),
            log: GuestLog::default(),
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
