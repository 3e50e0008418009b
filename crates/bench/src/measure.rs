//! What can be measured.
use clap::ValueEnum;

/// A measure, or a family of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measure {
    /// `start`, from its execution to its answer
    Start,
    /// A container's life in a shim that runs: Create, Start, Wait and Delete of `true`
    Life,
    /// An exec of `true` in a container that runs: Exec, Start, Wait and Delete
    Exec,
    /// A pod's life at the shim: `start`, the sandbox, one container's life, until the shim is gone
    Pod,
    /// Memory of a pod that stays, with one container and with three
    Memory,
    /// Pods at once, as many as --pods says: until all run, and what each takes
    Pods,
    /// husk's container life and memory without policy, with a static one, one plugin, five
    Policies,
    /// What a link costs, beside a connection in one network, a veth pair, haproxy and socat, as far as
    /// they are installed; and what a pod and a container with links cost husk beside those without
    Links,
    /// Over CRI (with --containerd): a pod's life with one container and one exec, on the node's
    /// network and on CNI's
    Cri,
    /// Over CRI (with --containerd): pods at once, as many as --pods says
    CriPods,
}

impl Measure {
    /// What is measured when nothing is named.
    pub(crate) const USUAL: [Self; 5] =
        [Self::Start, Self::Life, Self::Exec, Self::Pod, Self::Memory];
}
