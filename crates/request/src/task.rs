//! Requests about containers and processes (contract 22 to 32).
use containerd_shim_protos::api;
use oci_spec::runtime::LinuxResources;

use crate::Malformed;

/// The resources that an update asks for, as JSON; see [`resources`].
///
/// # Errors
/// It asks for none.
pub fn update_resources(request: api::UpdateTaskRequest) -> Result<Vec<u8>, Malformed> {
    let id = request.id;
    let resources = request.resources.into_option();
    resources
        .map(|any| any.value)
        .ok_or_else(|| Malformed(format!("update of container {id}: no resources")))
}

/// Resources of the OCI runtime specification.
///
/// # Errors
/// The JSON is none.
pub fn resources(container: &str, json: &[u8]) -> Result<LinuxResources, Malformed> {
    serde_json::from_slice(json).map_err(|error| {
        Malformed(format!(
            "update of container {container}: its resources are none of OCI: {error}"
        ))
    })
}

/// The signal of a kill.
///
/// # Errors
/// The number is none that a signal could have.
pub fn signal(request: &api::KillRequest) -> Result<i32, Malformed> {
    i32::try_from(request.signal).map_err(|_| Malformed(format!("{} is no signal", request.signal)))
}
