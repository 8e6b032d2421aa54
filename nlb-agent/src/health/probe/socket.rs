//! The sockets of health checks: marked, so that our own hooks leave them alone, and never left in TIME_WAIT.

use super::{Outcome, broken, reason_text};
use crate::health::Failure;
use nlb_common::layout::PROBE_MARK;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// Opens a connection. What goes wrong here before the first packet is this node's fault, not the target's.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Outcome> {
    let socket = open(address).map_err(|error| Outcome::Internal(reason_text(&error).into()))?;
    let stream = socket.connect(address).await.map_err(|error| classified(&error))?;
    // A port nobody listens on, in the range of the kernel's own choice, can be connected to itself.
    match stream.local_addr() {
        Ok(local) if local == address => Err(Outcome::Failed(Failure::Broken, "connection refused".into())),
        Ok(_) => Ok(stream),
        Err(error) => Err(classified(&error)),
    }
}

fn classified(error: &io::Error) -> Outcome {
    broken(error).unwrap_or_else(|| Outcome::Internal(reason_text(error).into()))
}

fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    mark(&socket);
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Without CAP_NET_ADMIN checks go on unmarked: worse where our hooks see them, better than none.
fn mark(socket: &Socket) {
    static WARNED: Once = Once::new();
    if let Err(error) = SockRef::from(socket).set_mark(PROBE_MARK) {
        WARNED.call_once(|| {
            tracing::warn!(%error, "health checks carry no mark: CAP_NET_ADMIN is needed for SO_MARK");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_is_marked_and_ends_with_a_reset() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        let unprivileged = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().set_mark(1).is_err();
        assert_eq!(socket.mark().unwrap(), if unprivileged { 0 } else { PROBE_MARK });
    }
}
