//! One HTTP/1.1 request and its answer; a redirect is an answer and is not followed.

use super::{Outcome, broken};
use crate::health::Failure;
use crate::model::HttpCheck;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A body that is longer than this many bytes is not waited for.
const ENOUGH: usize = 64 * 1024;

/// Asks and judges. The answer is whole when its body has ended, or has been longer than [`ENOUGH`].
pub(super) async fn answer<S>(stream: S, authority: &str, asked: &HttpCheck) -> Result<(), Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(authority, &asked.path)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| malformed(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| malformed(&error))?;
        judge(&response, &asked.success_codes)?;
        read(response.into_body()).await
    };
    tokio::pin!(exchange, connection);
    // The connection may end first; what it has delivered, or its error, is the exchange's then.
    tokio::select! {
        biased;
        verdict = &mut exchange => return verdict,
        _ = &mut connection => {}
    }
    exchange.await
}

fn request(authority: &str, path: &str) -> Result<Request<Empty<Bytes>>, Outcome> {
    Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("nlb-health-check/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .body(Empty::new())
        .map_err(|error| Outcome::Internal(format!("the path {path:?} cannot be asked for: {error}").into()))
}

fn judge(response: &Response<Incoming>, codes: &[(u16, u16)]) -> Result<(), Outcome> {
    let code = response.status().as_u16();
    if codes.iter().any(|&(first, last)| (first..=last).contains(&code)) {
        return Ok(());
    }
    let wanted: Vec<String> = codes.iter().map(|&range| words(range)).collect();
    let text = format!("HTTP {code}, not {}", wanted.join(","));
    Err(Outcome::Failed(Failure::ResponseCode, text.into()))
}

fn words((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

async fn read(mut body: Incoming) -> Result<(), Outcome> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| malformed(&error))?;
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > ENOUGH {
            break;
        }
    }
    Ok(())
}

fn malformed(error: &hyper::Error) -> Outcome {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if let Some(outcome) = cause.and_then(broken) {
        return outcome;
    }
    let text = if error.is_parse() {
        format!("not an HTTP answer: {error}")
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "the connection was closed before a whole answer".to_owned()
    } else {
        format!("no HTTP answer: {}", cause.map_or_else(|| error.to_string(), ToString::to_string))
    };
    Outcome::Failed(Failure::Broken, text.into())
}
