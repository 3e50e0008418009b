//! What the plan is, and how it came about.
use husk_plugin_host::Decision;
use husk_scope::{Plan, Scopes};
use serde::Serialize;

use super::links::PlannedLink;

/// The plan of a pod.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) pod: String,
    /// The Kubernetes namespace.
    pub(super) namespace: String,
    /// Whether something would be refused.
    pub(super) denied: bool,
    /// The plugins, in the order in which they are asked.
    pub(super) plugins: Vec<String>,
    pub(super) sandbox: Part,
    /// Init containers first; none when the sandbox is refused, for then none would be made.
    pub(super) containers: Vec<Part>,
}

/// The sandbox, or a container.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) requested: Scopes,
    /// What the plugins said, in the order in which they were asked.
    pub(super) decisions: Vec<Decision>,
    /// What the plugins logged: their names and words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) log: Vec<(String, String)>,
    /// What would be; none when it is refused.
    pub(super) plan: Option<Plan>,
    /// The ports that would lead out of its network, or into it.
    pub(super) links: Vec<PlannedLink>,
    /// Why it would be refused, and by whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) denied: Option<String>,
    /// The plugins were not told what its image says of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) without_image: bool,
}

impl Part {
    pub(super) fn new(name: impl Into<String>, requested: Scopes) -> Self {
        Self {
            name: name.into(),
            requested,
            decisions: Vec::new(),
            log: Vec::new(),
            plan: None,
            links: Vec::new(),
            denied: None,
            without_image: false,
        }
    }
}
