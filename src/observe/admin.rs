//! The admin server of every process, whatever its role: probes and metrics, without credentials and
//! without anything else.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode, header},
    routing::get,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Health, HealthReport, MetricsHandle};
use crate::http_server::{self, ServerLimits};

/// What probes and metrics are answered from.
#[derive(Clone)]
pub struct Observed {
    /// The health of this process.
    pub health: Arc<Health>,
    /// Its metrics; `None` answers 404.
    pub metrics: Option<MetricsHandle>,
}

/// The admin server, running.
#[derive(Debug)]
pub struct RunningAdmin {
    /// Where it listens (the port, if 0 was asked for).
    pub local_addr: SocketAddr,
    /// Ends when the server has stopped.
    pub join: JoinHandle<()>,
}

/// Starts the admin server; it stops at `shutdown`, which should come last, so that probes see a
/// process that stops.
pub fn start(
    listen: SocketAddr,
    observed: Observed,
    shutdown: CancellationToken,
) -> std::io::Result<RunningAdmin> {
    let listener = http_server::bind(listen)?;
    let local_addr = listener.local_addr()?;
    // Few and quick, so that a client that hangs does not keep probes out for long.
    let limits = ServerLimits {
        max_connections: 100,
        header_timeout: Duration::from_secs(10),
        ..ServerLimits::default()
    };
    let router = probes().route("/metrics", get(metrics)).with_state(observed);
    let join = tokio::spawn(http_server::serve(listener, router, limits, shutdown));
    Ok(RunningAdmin { local_addr, join })
}

/// `/livez`, `/readyz` and `/startupz`.
pub(crate) fn probes() -> Router<Observed> {
    Router::new()
        .route("/livez", get(|State(it): State<Observed>| async move { probe(&it.health.live()) }))
        .route(
            "/readyz",
            get(|State(it): State<Observed>| async move { probe(&it.health.ready().await) }),
        )
        .route(
            "/startupz",
            get(|State(it): State<Observed>| async move { probe(&it.health.startup()) }),
        )
}

async fn metrics(State(observed): State<Observed>) -> Response<Body> {
    metrics_response(observed.metrics.as_ref())
}

/// The metrics in the Prometheus text format.
pub(crate) fn metrics_response(metrics: Option<&MetricsHandle>) -> Response<Body> {
    match metrics {
        Some(metrics) => {
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
        }
        None => respond(StatusCode::NOT_FOUND, "text/plain", "no metrics are recorded".to_owned()),
    }
}

fn probe(report: &HealthReport) -> Response<Body> {
    let status = if report.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond(status, "application/json", serde_json::to_string(report).unwrap_or_default())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
