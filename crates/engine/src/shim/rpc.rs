//! One ttrpc call.
use std::time::Duration;

use protobuf::Message;
use ttrpc::asynchronous::Client;
use ttrpc::proto::Request;

use super::Error;

/// How long a shim may take for anything but waiting; a slow unmount is the slowest thing known.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service of a shim, by name: the same messages are spoken under more than one.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) client: Client,
    pub(super) name: &'static str,
}

impl Service {
    /// Calls `method` about `id`, which is named in errors, and waits at most a minute.
    pub(super) async fn call<Answer: Message>(
        &self,
        method: &'static str,
        id: &str,
        request: &impl Message,
    ) -> Result<Answer, Error> {
        self.call_within(Some(PATIENCE), method, id, request).await
    }

    /// Calls `method` and waits for as long as it takes.
    pub(super) async fn call_and_wait<Answer: Message>(
        &self,
        method: &'static str,
        id: &str,
        request: &impl Message,
    ) -> Result<Answer, Error> {
        self.call_within(None, method, id, request).await
    }

    async fn call_within<Answer: Message>(
        &self,
        limit: Option<Duration>,
        method: &'static str,
        id: &str,
        message: &impl Message,
    ) -> Result<Answer, Error> {
        let failed = |source| no_answer(method, id, source);
        let request = Request {
            service: self.name.to_owned(),
            method: method.to_owned(),
            payload: message
                .write_to_bytes()
                .map_err(|error| failed(malformed(&error)))?,
            timeout_nano: limit.map_or(0, |limit| {
                i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX)
            }),
            ..Request::default()
        };
        let answer = self.client.request(request).await.map_err(failed)?;
        Answer::parse_from_bytes(&answer.payload).map_err(|error| failed(malformed(&error)))
    }
}

fn malformed(error: &protobuf::Error) -> ttrpc::Error {
    ttrpc::Error::Others(error.to_string())
}

fn no_answer(method: &'static str, id: &str, source: ttrpc::Error) -> Error {
    let id = id.to_owned();
    match source {
        ttrpc::Error::RpcStatus(status) => Error::Refused {
            method,
            id,
            code: status.code(),
            message: status.message,
        },
        source => Error::NoAnswer {
            method,
            id,
            source: Box::new(source),
        },
    }
}
