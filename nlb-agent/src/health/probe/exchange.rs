//! One HTTP/1.1 request and its answer; a redirect is an answer and is not followed.
//!
//! The status code decides. The body is read as well, so that a target that hangs in the middle of its answer is found;
//! a body that is cut off, or is not what the header announced, is no reason to fail a target that answered rightly.

use super::answer::{Answer, Header, Rest};
use super::{Deadline, Outcome, broken, tls};
use crate::health::Failure;
use crate::model::HttpCheck;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const NO_ANSWER: &str = "connected, but no whole answer";

/// Asks and judges. The answer is whole when its body has ended, or has been long enough.
pub(super) async fn answer<S>(
    mut stream: S,
    authority: &str,
    asked: &HttpCheck,
    deadline: Deadline,
) -> Result<(), Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(authority, &asked.path)?;
    let mut answer = Answer::default();
    let header = header(&mut stream, &request, &mut answer);
    let Header { code, body } = deadline.holds(NO_ANSWER, header).await?;
    judge(code, &asked.success_codes)?;
    let missing = format!("{NO_ANSWER}: HTTP {code}, whose body did not end");
    deadline.holds(&missing, end_of(Rest::of(body), &mut stream, &mut answer)).await
}

/// A server never sees what follows a `#`.
fn request(authority: &str, path: &str) -> Result<String, Outcome> {
    let path = path.split('#').next().unwrap_or_default();
    if path.is_empty() || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Outcome::Internal(format!("the path {path:?} cannot be asked for").into()));
    }
    let agent = concat!("nlb-health-check/", env!("CARGO_PKG_VERSION"));
    Ok(format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n"))
}

/// The answer counts even if the target did not take the whole request.
async fn header<S>(stream: &mut S, request: &str, answer: &mut Answer) -> Result<Header, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = send(stream, request).await;
    loop {
        if let Some(header) = answer.header().map_err(|text| Outcome::Failed(Failure::Broken, text.into()))? {
            return Ok(header);
        }
        match stream.read_buf(answer.room()).await {
            Ok(0) => {
                return answer.closed().ok_or_else(|| sent.map_or_else(|e| unanswered(&e), |()| closed()));
            }
            Ok(_) => {}
            Err(error) => return Err(unanswered(&error)),
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, request: &str) -> io::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await
}

fn judge(code: u16, codes: &[(u16, u16)]) -> Result<(), Outcome> {
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

/// Waits for the end of the body, whatever that is.
async fn end_of<S>(mut rest: Rest, stream: &mut S, answer: &mut Answer) -> Result<(), Outcome>
where
    S: AsyncRead + Unpin,
{
    while !rest.is_over(answer) {
        if matches!(stream.read_buf(answer.room()).await, Ok(0) | Err(_)) {
            break;
        }
    }
    Ok(())
}

fn closed() -> Outcome {
    Outcome::Failed(Failure::Broken, "the connection was closed before a whole answer".into())
}

fn unanswered(error: &io::Error) -> Outcome {
    broken(error).unwrap_or_else(|| {
        let text = tls::refusal_after_handshake(error).unwrap_or_else(|| format!("no HTTP answer: {error}"));
        Outcome::Failed(Failure::Broken, text.into())
    })
}
