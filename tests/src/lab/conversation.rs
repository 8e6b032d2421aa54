//! Long TCP conversations, line by line: who sits at the other end, whom it sees, and when it speaks.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use super::{Namespace, http};

/// How long an answer may take beyond the delay that was asked for: as long as TCP needs to repair a lost packet or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves conversations at `address` of a namespace until this process ends: each line `MILLISECONDS TEXT` is answered
/// after so long with `NAME CLIENT-ADDRESS CLIENT-PORT TEXT`.
pub fn serve(namespace: &Namespace, name: &str, address: SocketAddr) -> Result<()> {
    let listener = namespace.enter(move || TcpListener::bind(address))?;
    let listener = listener.with_context(|| format!("cannot listen at {address}"))?;
    let name = name.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            // A conversation that breaks is the client's to notice.
            std::thread::spawn(move || drop(converse(stream, &name)));
        }
    });
    Ok(())
}

fn converse(mut stream: TcpStream, name: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let client = stream.peer_addr()?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let (delay, text) = line.split_once(' ').context("a delay and a text are needed")?;
        std::thread::sleep(Duration::from_millis(delay.parse()?));
        writeln!(stream, "{name} {} {} {text}", client.ip().to_canonical(), client.port())?;
    }
    Ok(())
}

/// The client's end of a conversation.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<TcpStream>,
    /// The client's address.
    pub client: SocketAddr,
    said: u32,
}

/// What the other end said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Who speaks.
    pub name: String,
    /// The client as it is seen there.
    pub seen: SocketAddr,
}

impl Conversation {
    /// Connects from any port.
    pub fn open(from: &Namespace, to: SocketAddr) -> Result<Conversation> {
        Conversation::open_from(from, 0, to)
    }

    /// Connects from this port, also where another conversation with another address has it.
    pub fn open_from(from: &Namespace, port: u16, to: SocketAddr) -> Result<Conversation> {
        let connect = move || -> Result<TcpStream> {
            let (domain, any) = if to.is_ipv4() {
                (Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            } else {
                (Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
            };
            let socket = Socket::new(domain, Type::STREAM, None)?;
            if port != 0 {
                socket.set_reuse_address(true)?;
                socket.bind(&any.into()).with_context(|| format!("cannot have the port {port}"))?;
            }
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok(socket.into())
        };
        let stream =
            from.enter(connect)?.with_context(|| format!("cannot connect to {to} from port {port}"))?;
        stream.set_nodelay(true)?;
        let client = stream.local_addr()?;
        Ok(Conversation { stream: BufReader::new(stream), client, said: 0 })
    }

    /// Says a line and waits for its answer.
    pub fn say(&mut self) -> Result<Line> {
        self.ask(Duration::ZERO)?;
        self.hear()
    }

    /// Says a line that the other end answers after `delay`.
    pub fn ask(&mut self, delay: Duration) -> Result<()> {
        self.said += 1;
        let line = format!("{} line-{}\n", delay.as_millis(), self.said);
        self.stream.get_mut().write_all(line.as_bytes()).context("the conversation broke")
    }

    /// Waits for the answer to the last line.
    pub fn hear(&mut self) -> Result<Line> {
        self.stream.get_ref().set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        self.stream.read_line(&mut line).with_context(|| format!("no answer for {}", self.client))?;
        let (name, seen) = http::identity(&line).with_context(|| format!("unexpected answer {line:?}"))?;
        let expected = format!("line-{}", self.said);
        anyhow::ensure!(line.trim_end().ends_with(&expected), "{line:?} is no answer to {expected}");
        Ok(Line { name, seen })
    }
}
