//! /metrics, /healthz and /readyz over HTTP, for collectors and kubelets; loopback unless asked otherwise.

use crate::metrics::Metrics;
use crate::problem::{Effect, Problem, Severity};
use crate::socket::{Source, Wanted};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The reconcile loop makes a turn at least every second; without one for this long it hangs.
pub const STALLED: Duration = Duration::from_secs(30);

/// How long to wait before an address in use is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Whether the agent lives, and what it still waits for.
#[derive(Debug)]
pub struct Vitals {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    turned: Instant,
    missing: Vec<String>,
}

impl Vitals {
    /// An agent that began now and waits for these, each a clause such as `manifests: not read yet`.
    pub fn new(now: Instant, missing: Vec<String>) -> Self {
        Self { inner: Mutex::new(Inner { turned: now, missing }) }
    }

    /// The reconcile loop made a turn, and still waits for these; empty = ready.
    pub fn turn(&self, now: Instant, missing: Vec<String>) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Inner { turned: now, missing };
    }

    /// # Errors
    /// A sentence, once the last turn is [`STALLED`] ago.
    pub fn alive(&self, now: Instant) -> Result<(), String> {
        let ago = now.saturating_duration_since(self.read(|inner| inner.turned));
        if ago <= STALLED {
            return Ok(());
        }
        Err(format!("the reconcile loop made its last turn {} s ago", ago.as_secs()))
    }

    /// # Errors
    /// What is missing, one clause each.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let missing = self.read(|inner| inner.missing.clone());
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn read<T>(&self, what: impl FnOnce(&Inner) -> T) -> T {
        what(&self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the three pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// The node's name, for the problem of an address that cannot be had.
    pub node: String,
    /// The agent as it is now.
    pub source: Arc<dyn Source>,
    /// Whether it lives.
    pub vitals: Arc<Vitals>,
    /// What is measured while it runs.
    pub metrics: Metrics,
}

/// Serves until dropped. An address that cannot be had is a problem in `problem`, and is tried again; no reason to stop.
pub async fn serve(address: SocketAddr, pages: Pages, problem: watch::Sender<Option<Problem>>) {
    serve_with(RETRY, address, pages, problem).await;
}

async fn serve_with(
    retry: Duration,
    address: SocketAddr,
    pages: Pages,
    problem: watch::Sender<Option<Problem>>,
) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                problem.send_replace(None);
                tracing::info!(%address, "metrics served");
                if let Err(error) = axum::serve(listener, routes(pages.clone())).await {
                    tracing::warn!(%address, %error, "the metrics' socket broke; opening another");
                }
            }
            Err(error) => {
                let found = unavailable(&pages.node, address, &error, retry);
                if problem.send_replace(Some(found.clone())).is_none() {
                    tracing::warn!(%address, %error, "{}", found.message);
                }
                tokio::time::sleep(retry).await;
            }
        }
    }
}

/// The address cannot be had.
fn unavailable(node: &str, address: SocketAddr, error: &std::io::Error, retry: Duration) -> Problem {
    Problem {
        severity: Severity::Warning,
        object: format!("Node {node}"),
        field: Some("--http".to_owned()),
        value: Some(address.to_string()),
        reason: "MetricsUnavailable".to_owned(),
        message: format!(
            "--http {address} cannot be served ({error}), so there are no metrics; it is tried again every {} s. \
             `ss -ltnp` shows who has the port; choose another with --http ADDR:PORT, or none.",
            retry.as_secs()
        ),
        effect: Effect::Ignored,
    }
}

fn routes(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(pages)
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let text = pages.metrics.text(pages.source.snapshot(Wanted::default()).await);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn healthz(State(pages): State<Pages>) -> Response {
    match pages.vitals.alive(Instant::now()) {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    match pages.vitals.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
