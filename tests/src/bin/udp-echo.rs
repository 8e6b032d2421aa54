//! A UDP server for the lab's pods: `udp-echo NAME PORT` answers each datagram with its name, the client, and the text.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, port] = arguments.as_slice() else { bail!("usage: udp-echo NAME PORT") };
    let port: u16 = port.parse().with_context(|| format!("{port:?} is not a port"))?;
    serve(name, port)
}

fn serve(name: &str, port: u16) -> Result<()> {
    // One socket for both families: IPv4 clients appear as mapped addresses. It answers from the address that was asked,
    // because a pod has only one of each family.
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).context("cannot make a socket")?;
    socket.set_only_v6(false).context("cannot serve both families")?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).context("cannot bind")?;
    let socket = UdpSocket::from(socket);
    let mut buffer = [0; 65_536];
    loop {
        // An ICMP error for an earlier answer shows up here; the server goes on.
        let Ok((read, client)) = socket.recv_from(&mut buffer) else { continue };
        let text = String::from_utf8_lossy(&buffer[..read]);
        let answer = format!("{name} {} {} {text}", client.ip().to_canonical(), client.port());
        let _ = socket.send_to(answer.as_bytes(), client);
    }
}
