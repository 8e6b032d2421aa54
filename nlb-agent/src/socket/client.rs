//! The other end of the agent's socket: one request, one answer, and a sentence when there is none.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long an answer may take: reading a million flows takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("the agent is not running: nobody answers at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket belongs to somebody else.
    #[error("no permission to open {}: only its owner may; try again with sudo", .0.display())]
    NoPermission(PathBuf),
    /// Connected, but no good answer came.
    #[error("the agent at {} gave no good answer: {reason}", .path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Asks the agent for `path` with a query; returns the body.
///
/// # Errors
/// Says whether nobody is there, it is not allowed, or the answer is no good.
pub async fn ask<Q: Serialize>(socket: &Path, path: &str, query: &Q) -> Result<Bytes, AskError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::NotRunning(socket.to_owned()),
        ErrorKind::PermissionDenied => AskError::NoPermission(socket.to_owned()),
        _ => no_answer(socket, &error),
    })?;
    match tokio::time::timeout(PATIENCE, exchange(stream, &target(path, query))).await {
        Ok(Ok((status, body))) if status.is_success() => Ok(body),
        Ok(Ok((status, body))) => {
            Err(no_answer(socket, &format!("{status}: {}", String::from_utf8_lossy(&body).trim())))
        }
        Ok(Err(error)) => Err(no_answer(socket, &error)),
        Err(_) => Err(no_answer(socket, &format!("nothing came within {} s", PATIENCE.as_secs()))),
    }
}

fn no_answer(socket: &Path, reason: &impl ToString) -> AskError {
    AskError::NoAnswer { path: socket.to_owned(), reason: reason.to_string() }
}

type Answer = (http::StatusCode, Bytes);

async fn exchange(stream: UnixStream, target: &str) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(target).header(http::header::HOST, "agent").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

/// Path and query; every value is escaped (RFC 3986 section 2.1).
fn target<Q: Serialize>(path: &str, query: &Q) -> String {
    let fields = serde_json::to_value(query).unwrap_or_default();
    let pairs: Vec<String> = fields
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{name}={}", escaped(&text))
        })
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn escaped(text: &str) -> String {
    let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if unreserved(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::FlowFilter;

    #[test]
    fn values_are_escaped() {
        let filter = FlowFilter {
            listener: Some("[2001:db8::10]:443/TCP".parse().unwrap()),
            client: None,
            limit: Some(5),
        };
        assert_eq!(target("/flows", &filter), "/flows?limit=5&listener=%5B2001%3Adb8%3A%3A10%5D%3A443%2FTCP");
        assert_eq!(target("/flows", &FlowFilter::default()), "/flows");
    }
}
