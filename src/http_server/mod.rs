//! The HTTP/1.1 server under the API and the admin server: a bounded number of connections, slow
//! clients timed out, panics answered with 500, and an orderly stop. It knows nothing of commands.
//!
//! `axum::serve` is not used, because it has neither connection limits nor header timeouts.

mod chunks;
mod connection;
mod exchange;
mod long_wait;
mod stall;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    any::Any,
    future::ready,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use self::{exchange::Answer, long_wait::Received};

pub(crate) use self::long_wait::LongWait;

/// How many connections may wait in the kernel until they are accepted.
const BACKLOG: u32 = 4096;
/// The largest head of a request, in bytes; over it: 431.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The largest read buffer of a connection, in bytes.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// What a client may take.
#[derive(Clone, Debug)]
pub(crate) struct ServerLimits {
    /// How many connections are open at a time; more wait in the kernel. More than may wait for
    /// commands, so that who is one too many is answered.
    pub(crate) max_connections: usize,
    /// How long a head may take to arrive, and how long a connection may be idle.
    pub(crate) header_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub(crate) write_timeout: Duration,
    /// How long requests in flight may take to end after `shutdown`.
    pub(crate) drain_timeout: Duration,
    /// A gauge that shows how many connections are open.
    pub(crate) connections_gauge: Option<&'static str>,
    /// A gauge that shows how many of them wait without buffers ([`LongWait`]).
    pub(crate) detached_gauge: Option<&'static str>,
    /// What is answered when a handler panicked; the plain 500 if there is none.
    pub(crate) on_panic: Option<fn() -> Response<Body>>,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 24_000,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            connections_gauge: None,
            detached_gauge: None,
            on_panic: None,
        }
    }
}

/// Listens on an address. Must be called within a tokio runtime.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown`: then accepts no more, lets requests in flight end, and returns.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections.max(1)));
    let connections = TaskTracker::new();
    let server = Arc::new(Server::new(router, limits.clone()));
    let accepting = async {
        loop {
            // A place first: what has none waits in the kernel and costs nothing here.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = accept(&listener).await;
            let (server, stop) = (server.clone(), shutdown.child_token());
            connections.spawn(async move {
                server.connection(stream, stop).await;
                drop(place);
            });
        }
    };
    let _ = shutdown.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections did not end in time");
    }
}

/// The next connection. When the process has run out of file descriptors, waits until some are free.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

struct Server {
    router: Router,
    limits: ServerLimits,
    http: http1::Builder,
}

impl Server {
    fn new(router: Router, limits: ServerLimits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES);
        Self { router, limits, http }
    }

    /// Many may wait, so it is small: an `async` block would have room for the request and for all
    /// that becomes of it, side by side.
    fn answer(&self, request: Request<Received>) -> Answer {
        let mut router = self.router.clone();
        let on_panic = self.limits.on_panic;
        match catch_unwind(AssertUnwindSafe(|| router.call(request))) {
            Ok(handled) => {
                let handled = AssertUnwindSafe(handled).catch_unwind();
                Box::pin(handled.map(move |handled| match handled {
                    Ok(Ok(answer)) => answer,
                    Err(panic) => panicked(panic.as_ref(), on_panic),
                }))
            }
            Err(panic) => Box::pin(ready(panicked(panic.as_ref(), on_panic))),
        }
    }
}

fn panicked(panic: &(dyn Any + Send), on_panic: Option<fn() -> Response<Body>>) -> Response<Body> {
    tracing::error!(panic = panic_text(panic), "a request handler panicked");
    on_panic.map_or_else(plain_500, |answer| answer())
}

fn plain_500() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// One open connection on the gauge.
struct Counted(metrics::Gauge);

impl Counted {
    fn up(name: &'static str) -> Self {
        let gauge = metrics::gauge!(name);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
