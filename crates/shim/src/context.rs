//! What the process side hands to the pod side, and what it gets back.
use std::collections::HashMap;
use std::fmt;

use husk_sandbox::zygote::Zygote;
use husk_scope::record;
use ttrpc::asynchronous::Service;

use crate::handler::Handler;
use crate::publisher::Publisher;
use crate::shutdown::Shutdown;
use crate::store::Store;

/// Everything the pod's services need of the process they run in.
#[derive(Debug)]
pub(crate) struct Context {
    /// The containerd namespace.
    pub(crate) namespace: String,
    /// The pod's id: the group named by the first container's spec, else the id that `start` got.
    pub(crate) id: String,
    /// What the handler's options say.
    pub(crate) handler: Handler,
    /// Makes the pod's processes.
    pub(crate) zygote: Zygote,
    /// Tells containerd what happens.
    pub(crate) publisher: Publisher,
    /// Where the pod's record and directories are.
    pub(crate) store: Store,
    /// The record as written at start: ids, the shim's and the zygote's processes, the socket.
    /// Whatever is saved later must keep these.
    pub(crate) record: record::Pod,
    /// Ends the daemon.
    pub(crate) shutdown: Shutdown,
}

/// What the pod's services give back to the process they run in.
pub(crate) struct Services {
    /// The ttrpc services by name.
    pub(crate) map: HashMap<String, Service>,
    /// The pod's state, line by line, for the log (contract 48).
    pub(crate) dump: Box<dyn Fn() -> String + Send>,
    /// Whether nothing lives in the pod, so that the daemon may end.
    pub(crate) idle: Box<dyn Fn() -> bool + Send>,
    /// Ends a pod that nobody can find any more and that runs nothing.
    pub(crate) forsake: Box<dyn Fn() + Send>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.map.keys()).finish()
    }
}
