//! What containerd calls: protobuf in, a typed request to the pod, protobuf out. No logic.
mod sandbox;
mod task;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use ttrpc::{Code, Error};

use crate::context::Services;
use crate::failure::{Failure, FailureKind};
use crate::pod::Pod;
use crate::pod::state::Reply;

/// Both services of a pod, on the same socket (contract 11), and what else is asked of it.
pub(crate) fn services(pod: Arc<Pod>) -> Services {
    let mut map = create_task(Arc::new(task::Service::new(Arc::clone(&pod))));
    map.extend(create_sandbox(Arc::new(sandbox::Service::new(Arc::clone(
        &pod,
    )))));
    let (dumped, idle) = (Arc::clone(&pod), Arc::clone(&pod));
    Services {
        map,
        dump: Box::new(move || dumped.dump()),
        idle: Box::new(move || idle.is_idle()),
        forsake: Box::new(move || pod.forsake()),
    }
}

/// Milliseconds since 1970 as protobuf has them.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}

fn some_timestamp(ms: u64) -> MessageField<Timestamp> {
    MessageField::some(timestamp(ms))
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            FailureKind::NotFound => Code::NOT_FOUND,
            FailureKind::AlreadyExists => Code::ALREADY_EXISTS,
            FailureKind::FailedPrecondition => Code::FAILED_PRECONDITION,
            FailureKind::InvalidArgument => Code::INVALID_ARGUMENT,
            FailureKind::PermissionDenied => Code::PERMISSION_DENIED,
            FailureKind::Unimplemented => Code::UNIMPLEMENTED,
            FailureKind::Internal => Code::UNKNOWN,
        };
        Self::RpcStatus(ttrpc::get_status(code, failure.message))
    }
}

/// An answer of another kind than the request's: a mistake in the state machine.
fn unexpected(reply: &Reply) -> Error {
    Failure::internal(format!("husk has a bug: the answer was {reply:?}")).into()
}
