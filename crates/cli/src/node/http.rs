//! Answers `/healthz` and `/metrics`, to few at a time and to nobody for long.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// How many are answered at a time.
const CLIENTS: usize = 16;
/// How long a client may take for what it asks, and to take what it gets.
const HEADER: Duration = Duration::from_secs(5);
const CLIENT: Duration = Duration::from_secs(30);
/// How much of a request is kept, in bytes.
const BUFFER: usize = 16 << 10;
/// How long to wait where no connection can be accepted, for want of descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// Why the node is not ready; nothing if it is.
    pub(super) problems: Vec<String>,
    pub(super) metrics: String,
}

pub(super) async fn serve(listener: TcpListener, page: watch::Receiver<Arc<Page>>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(turn) = Arc::clone(&clients).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let page = page.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &page.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER)
                .max_buf_size(BUFFER)
                // A client that keeps its connection keeps others out.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // How a client fails is its own affair.
            let _ = timeout(CLIENT, connection).await;
            drop(turn);
        });
    }
}

fn answer<B>(request: &Request<B>, page: &Page) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = with(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match request.uri().path() {
        "/metrics" => with(StatusCode::OK, METRICS, page.metrics.clone()),
        "/healthz" if page.problems.is_empty() => with(StatusCode::OK, PLAIN, "ok\n"),
        "/healthz" => {
            let problems = page.problems.join("\n") + "\n";
            with(StatusCode::SERVICE_UNAVAILABLE, PLAIN, problems)
        }
        _ => with(StatusCode::NOT_FOUND, PLAIN, "/healthz and /metrics\n"),
    }
}

fn with(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
