//! One health check over a real socket: TCP, HTTP/1.1 or HTTPS, whole within its timeout.

mod answer;
mod exchange;
mod greeting;
mod overheard;
mod refusal;
mod socket;
mod tls;

use super::outcome::{Failure, Outcome};
use super::scheduler::Ask;
use crate::model::{CheckProtocol, HealthCheck};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tls::Tls;
use tokio::time::{Instant, timeout_at};

/// Makes checks; one for all of them.
#[derive(Clone)]
pub struct Prober {
    tls: Tls,
}

impl Default for Prober {
    fn default() -> Self {
        Self { tls: Tls::tolerant().expect("the library that is linked in knows these settings") }
    }
}

impl Ask for Prober {
    async fn ask(&self, address: SocketAddr, settings: &HealthCheck) -> Outcome {
        self.probe(address, &settings.protocol, settings.timeout).await
    }
}

impl Prober {
    /// Makes one check of `address`; `timeout` holds for all of it, from the first packet to the last byte of the answer.
    /// The connection is always ended by RST, so that neither side keeps it in TIME_WAIT.
    pub async fn probe(&self, address: SocketAddr, protocol: &CheckProtocol, timeout: Duration) -> Outcome {
        let deadline = Deadline { at: Instant::now() + timeout, timeout };
        match self.check(address, protocol, deadline).await {
            Ok(()) => Outcome::Passed,
            Err(outcome) => outcome,
        }
    }

    async fn check(
        &self,
        address: SocketAddr,
        protocol: &CheckProtocol,
        deadline: Deadline,
    ) -> Result<(), Outcome> {
        let stream = deadline.holds("no connection", socket::connect(address)).await?;
        // What comes after the connection is boxed: thousands of checks may wait for theirs, and TLS takes kilobytes.
        match protocol {
            CheckProtocol::Tcp => Ok(()),
            CheckProtocol::Http(asked) => {
                let authority = authority(address, 80);
                Box::pin(exchange::answer(stream, &authority, asked, deadline)).await
            }
            CheckProtocol::Https(asked) => {
                let handshake = Box::pin(self.tls.handshake(stream));
                let stream = deadline.holds("connected, but no TLS handshake", handshake).await?;
                let authority = authority(address, 443);
                Box::pin(exchange::answer(stream, &authority, asked, deadline)).await
            }
        }
    }
}

/// The end of a check, whatever step it is at.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Runs one step; `missing` is what the target failed to give when time is over.
    async fn holds<T>(
        self,
        missing: &str,
        step: impl Future<Output = Result<T, Outcome>>,
    ) -> Result<T, Outcome> {
        timeout_at(self.at, step).await.unwrap_or_else(|_| {
            let text = format!("{missing} within {} s", self.timeout.as_secs_f64());
            Err(Outcome::Failed(Failure::Timeout, text.into()))
        })
    }
}

/// The `Host` header: the pod's address, with the port where the scheme does not imply it.
fn authority(address: SocketAddr, implied: u16) -> String {
    match (address.port() == implied, address.ip().is_ipv6()) {
        (false, _) => address.to_string(),
        (true, true) => format!("[{}]", address.ip()),
        (true, false) => address.ip().to_string(),
    }
}

/// What an I/O error says of the target; `None` where the kernel did not raise it.
fn broken(error: &io::Error) -> Option<Outcome> {
    let code = error.raw_os_error()?;
    let text = || reason_text(error).into();
    Some(match code {
        // What this node lacks says nothing about the target.
        libc::EMFILE
        | libc::ENFILE
        | libc::ENOBUFS
        | libc::ENOMEM
        | libc::EADDRNOTAVAIL
        | libc::EADDRINUSE
        | libc::EPERM
        | libc::EAFNOSUPPORT
        | libc::EAGAIN => Outcome::Internal(text()),
        libc::ETIMEDOUT => Outcome::Failed(Failure::Timeout, text()),
        // The last two are what a blackhole and a prohibit route say: CNIs leave them where a pod was.
        libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENETDOWN
        | libc::ENONET
        | libc::EINVAL
        | libc::EACCES => Outcome::Failed(Failure::Unreachable, text()),
        _ => Outcome::Failed(Failure::Broken, text()),
    })
}

/// `connection refused` rather than `Connection refused (os error 111)`.
fn reason_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
