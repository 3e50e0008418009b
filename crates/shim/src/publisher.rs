//! Tells containerd what happens in the pod (contract 37).
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use log::{debug, warn};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context;

/// The protobuf package of containerd's events.
const PACKAGE: &str = "containerd.events";

/// Events kept while containerd is away; with more, the oldest go: containerd asks for states
/// anew when it comes back, so the newest events are worth most.
const CAPACITY: usize = 2048;

/// How long containerd may take to accept one event, or a connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pauses between attempts grow from the first to the second, doubling.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often an event is offered that containerd answers with an error.
const REFUSALS: u32 = 3;

/// Sends events to containerd, one after another in the order of [`Publisher::publish`].
/// Clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    namespace: Arc<str>,
    /// `None` when nobody listens.
    queue: Option<Arc<Queue>>,
}

/// Events that wait, and whether any is unsent.
#[derive(Debug)]
struct Queue {
    waiting: Mutex<VecDeque<Envelope>>,
    arrived: Notify,
    /// Counts the events that are neither sent nor given up.
    unsent: watch::Sender<usize>,
}

/// Why an attempt failed.
enum Attempt {
    /// containerd is away, or slow: the same event again, over a new connection.
    Unreachable(String),
    /// containerd answered with an error.
    Refused(String),
}

impl Publisher {
    /// Starts a publisher for the events service at `address` (with or without `unix://`). With an
    /// empty address nobody listens, and events go nowhere.
    ///
    /// Must be called on a tokio runtime, which runs the one task that sends.
    #[must_use]
    pub(crate) fn new(address: &str, namespace: &str) -> Self {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let queue = (!path.is_empty()).then(|| {
            let queue = Arc::new(Queue {
                waiting: Mutex::default(),
                arrived: Notify::new(),
                unsent: watch::Sender::new(0),
            });
            tokio::spawn(send_all(path.to_owned(), Arc::clone(&queue)));
            queue
        });
        Self {
            namespace: namespace.into(),
            queue,
        }
    }

    /// Queues an event, stamped with this moment. Never waits: when the queue is full the oldest
    /// event is lost, and the log says so.
    pub(crate) fn publish(&self, topic: &'static str, event: &impl Message) {
        let Some(queue) = &self.queue else {
            return;
        };
        match envelope(&self.namespace, topic, event) {
            Ok(envelope) => queue.push(envelope),
            Err(error) => warn!("the event {topic} cannot be encoded: {error}"),
        }
    }

    /// Waits until every event is sent or `deadline` has passed; says whether all were.
    pub(crate) async fn flush(&self, deadline: Duration) -> bool {
        let Some(queue) = &self.queue else {
            return true;
        };
        let mut unsent = queue.unsent.subscribe();
        timeout(deadline, unsent.wait_for(|count| *count == 0))
            .await
            .is_ok()
    }
}

impl Queue {
    fn push(&self, envelope: Envelope) {
        let mut waiting = self.waiting();
        if waiting.len() == CAPACITY {
            if let Some(lost) = waiting.pop_front() {
                warn!(
                    "{CAPACITY} events wait for containerd: {} is lost",
                    lost.topic
                );
            }
        } else {
            self.unsent.send_modify(|count| *count += 1);
        }
        waiting.push_back(envelope);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Envelope> {
        self.waiting().pop_front()
    }

    fn done(&self) {
        self.unsent.send_modify(|count| *count -= 1);
    }

    /// A queue whose user panicked is still a queue.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Envelope>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn envelope<E: Message>(
    namespace: &str,
    topic: &str,
    event: &E,
) -> containerd_shim_protos::protobuf::Result<Envelope> {
    let any = Any {
        // The descriptor knows the package too, and takes a quarter of a megabyte for good.
        type_url: format!("{PACKAGE}.{}", E::NAME),
        value: event.write_to_bytes()?,
        ..Any::default()
    };
    Ok(Envelope {
        timestamp: MessageField::some(SystemTime::now().into()),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: MessageField::some(any),
        ..Envelope::default()
    })
}

/// Sends events until the runtime ends.
async fn send_all(path: String, queue: Arc<Queue>) {
    let mut client = None;
    loop {
        match queue.pop() {
            Some(envelope) => {
                send(&path, &mut client, envelope).await;
                queue.done();
            }
            None => queue.arrived.notified().await,
        }
    }
}

/// Sends one event, however often it takes; gives up only on one that containerd refuses.
async fn send(path: &str, client: &mut Option<EventsClient>, envelope: Envelope) {
    let topic = envelope.topic.clone();
    let request = ForwardRequest {
        envelope: MessageField::some(envelope),
        ..ForwardRequest::default()
    };
    let (mut pause, longest) = BACKOFF;
    let mut refusals = 0;
    loop {
        match attempt(path, client, &request).await {
            Ok(()) => return,
            Err(Attempt::Refused(error)) => {
                refusals += 1;
                if refusals == REFUSALS {
                    warn!("containerd refuses the event {topic}, which is lost: {error}");
                    return;
                }
            }
            Err(Attempt::Unreachable(error)) => {
                *client = None;
                debug!("the event {topic} waits for containerd at {path}: {error}");
            }
        }
        sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

async fn attempt(
    path: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> Result<(), Attempt> {
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(path).await?),
    };
    let answer = client
        .forward(context::with_duration(CALL_TIMEOUT), request)
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(ttrpc::Error::RpcStatus(status)) => Err(Attempt::Refused(status.message)),
        Err(error) => Err(Attempt::Unreachable(error.to_string())),
    }
}

/// Connects without blocking the thread, as ttrpc's own `connect` would while the backlog of a
/// stuck containerd is full.
async fn connect(path: &str) -> Result<EventsClient, Attempt> {
    match timeout(CALL_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok(EventsClient::new(Client::new(Socket::from(stream)))),
        Ok(Err(error)) => Err(Attempt::Unreachable(error.to_string())),
        Err(_) => Err(Attempt::Unreachable("no answer to connect".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use async_trait::async_trait;
    use containerd_shim_protos::api::Empty;
    use containerd_shim_protos::events::task::TaskOOM;
    use containerd_shim_protos::shim_async::{Events, create_events};
    use tokio::sync::mpsc;
    use ttrpc::asynchronous::transport::Listener;
    use ttrpc::asynchronous::{Server, TtrpcContext};

    use super::*;

    /// Stands in for containerd: passes on what it is sent, unless told to refuse it.
    struct Containerd {
        received: mpsc::UnboundedSender<Envelope>,
        refuses: &'static str,
    }

    #[async_trait]
    impl Events for Containerd {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let envelope = request.envelope.unwrap();
            if id(&envelope) == self.refuses {
                return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                    ttrpc::Code::INVALID_ARGUMENT,
                    "no",
                )));
            }
            self.received.send(envelope).unwrap();
            Ok(Empty::default())
        }
    }

    async fn containerd(path: &Path, received: &mpsc::UnboundedSender<Envelope>) -> Server {
        let _ = std::fs::remove_file(path);
        let service = create_events(Arc::new(Containerd {
            received: received.clone(),
            refuses: "refused",
        }));
        let mut server = Server::new()
            .add_listener(Listener::bind_unix(path.to_str().unwrap()).unwrap())
            .register_service(service);
        server.start().await.unwrap();
        server
    }

    fn oom(id: impl ToString) -> TaskOOM {
        TaskOOM {
            container_id: id.to_string(),
            ..TaskOOM::default()
        }
    }

    fn id(envelope: &Envelope) -> String {
        TaskOOM::parse_from_bytes(&envelope.event.value)
            .unwrap()
            .container_id
    }

    #[tokio::test]
    async fn events_arrive_in_order_and_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let (sender, mut received) = mpsc::unbounded_channel();
        let mut server = containerd(&path, &sender).await;
        let publisher = Publisher::new(&format!("unix://{}", path.display()), "ns");
        let before = SystemTime::now();
        for n in 0..200 {
            publisher.publish("/tasks/oom", &oom(n));
        }
        assert!(publisher.flush(Duration::from_secs(20)).await);
        for n in 0..200 {
            let envelope = received.try_recv().unwrap();
            assert_eq!(id(&envelope), n.to_string());
            assert_eq!(envelope.namespace, "ns");
            assert_eq!(envelope.topic, "/tasks/oom");
            assert_eq!(envelope.event.type_url, "containerd.events.TaskOOM");
            let at: SystemTime = envelope.timestamp.unwrap().into();
            assert!(at >= before && at <= SystemTime::now());
        }
        server.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_restart_of_containerd_loses_and_reorders_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let (sender, mut received) = mpsc::unbounded_channel();
        let mut server = containerd(&path, &sender).await;
        let publisher = Publisher::new(path.to_str().unwrap(), "ns");
        for n in 0..10 {
            publisher.publish("/tasks/oom", &oom(n));
        }
        assert!(publisher.flush(Duration::from_secs(10)).await);

        server.shutdown().await.unwrap();
        for n in 10..20 {
            publisher.publish("/tasks/oom", &oom(n));
        }
        assert!(
            !publisher.flush(Duration::from_millis(300)).await,
            "nobody is there to take them"
        );

        let mut server = containerd(&path, &sender).await;
        assert!(publisher.flush(Duration::from_secs(10)).await);
        let ids: Vec<_> = std::iter::from_fn(|| received.try_recv().ok())
            .map(|envelope| id(&envelope))
            .collect();
        let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(ids, expected);
        server.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn an_event_containerd_refuses_does_not_hold_up_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let (sender, mut received) = mpsc::unbounded_channel();
        let mut server = containerd(&path, &sender).await;
        let publisher = Publisher::new(path.to_str().unwrap(), "ns");
        publisher.publish("/tasks/oom", &oom("refused"));
        publisher.publish("/tasks/oom", &oom("next"));
        assert!(publisher.flush(Duration::from_secs(10)).await);
        assert_eq!(id(&received.try_recv().unwrap()), "next");
        assert!(received.try_recv().is_err());
        server.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_loses_its_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let (sender, mut received) = mpsc::unbounded_channel();
        let publisher = Publisher::new(path.to_str().unwrap(), "ns");
        // Nothing is taken from the queue before this test first waits.
        for n in 0..CAPACITY + 5 {
            publisher.publish("/tasks/oom", &oom(n));
        }
        let mut server = containerd(&path, &sender).await;
        assert!(publisher.flush(Duration::from_secs(60)).await);
        let ids: Vec<_> = std::iter::from_fn(|| received.try_recv().ok())
            .map(|envelope| id(&envelope))
            .collect();
        assert_eq!(ids.len(), CAPACITY);
        assert_eq!(ids.first().unwrap(), "5");
        assert_eq!(*ids.last().unwrap(), (CAPACITY + 4).to_string());
        server.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn without_an_address_nothing_waits() {
        let publisher = Publisher::new("", "ns");
        publisher.publish("/tasks/oom", &oom(1));
        assert!(publisher.flush(Duration::from_secs(1)).await);
    }
}
