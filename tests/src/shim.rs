//! The shim itself, spoken to as containerd does: ttrpc over the socket of a running pod.
use std::fs;
use std::path::Path;

use containerd_shim_protos::shim_sync::TaskClient;
use containerd_shim_protos::ttrpc::context::{self, Context};
use containerd_shim_protos::ttrpc::{self, Client, Code};

/// A connection to the shim of a bundle.
///
/// # Panics
/// If there is no shim or it cannot be reached.
#[must_use]
#[track_caller]
pub fn connect(bundle: &Path) -> TaskClient {
    let file = bundle.join("bootstrap.json");
    let text = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
    let bootstrap: serde_json::Value = serde_json::from_str(&text).unwrap();
    let address = bootstrap["address"].as_str().expect("an address");
    TaskClient::new(Client::connect(address).unwrap())
}

/// The context of a call: a deadline of ten seconds.
#[must_use]
pub fn call() -> Context {
    context::with_timeout(10_000_000_000)
}

/// The code of a call that must be refused.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> Code {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("expected the shim to refuse, got {other:?}"),
    }
}
