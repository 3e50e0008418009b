//! The events server: the part of containerd that shims publish to.
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{Empty, ForwardRequest};
use containerd_shim_protos::shim_async::{Events as EventsService, create_events};
use protobuf::well_known_types::any::Any;
use tokio::sync::mpsc;
use ttrpc::asynchronous::{Server, TtrpcContext};

use super::Error;

/// Something that a shim says has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Such as `/tasks/exit`.
    pub topic: String,
    /// The event itself, such as `containerd.events.TaskExit`.
    pub event: Any,
}

/// A running events server; it stops when dropped.
pub struct Events {
    _server: Server,
    grpc_address: String,
}

struct Forward(mpsc::UnboundedSender<Event>);

#[async_trait]
impl EventsService for Forward {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let event = Event {
            topic: envelope.topic,
            event: envelope.event.unwrap_or_default(),
        };
        // Nobody listening any more is the listener's choice, not the shim's mistake.
        let _ = self.0.send(event);
        Ok(Empty::new())
    }
}

impl Events {
    /// Serves events on a unix socket in `directory`.
    ///
    /// # Errors
    /// A socket that cannot be bound; its path may have at most 106 bytes (unix(7)).
    pub async fn serve(directory: &Path) -> Result<(Self, mpsc::UnboundedReceiver<Event>), Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let grpc_address = directory.join("events.sock").to_string_lossy().into_owned();
        let path = ttrpc_address(&grpc_address);
        // What a killed engine left would make the address look taken.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove the old socket", path)(error));
            }
            _ => {}
        }
        let address = format!("unix://{path}");
        let failed = |source| Error::Events {
            address: address.clone(),
            source: Box::new(source),
        };
        let mut server = Server::new()
            .bind(&address)
            .map_err(failed)?
            .register_service(create_events(Arc::new(Forward(sender))));
        server.start().await.map_err(failed)?;
        Ok((
            Self {
                _server: server,
                grpc_address,
            },
            receiver,
        ))
    }

    /// What a shim gets as `-address`. Like containerd's, the ttrpc socket is the same path with
    /// `.ttrpc` appended; the engine serves only that one, as shims publish only there.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.grpc_address
    }
}

pub(super) fn ttrpc_address(grpc_address: &str) -> String {
    format!("{grpc_address}.ttrpc")
}
