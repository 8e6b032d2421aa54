//! A light TCP server of a pod: it answers `GET` as every server of the lab does, and anything else line by line for as long as the client likes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Namespace, Pod};

/// Accepts connections until it is dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    namespace: Namespace,
    port: u16,
}

impl Echo {
    /// Listens on `port` of both families in the pod.
    pub fn start(pod: &Pod, port: u16) -> Result<Echo> {
        Echo::start_in(&pod.namespace, &pod.name, port)
    }

    /// Listens on `port` of both families in any namespace, as `name`.
    pub fn start_in(namespace: &Namespace, name: &str, port: u16) -> Result<Echo> {
        let listener = namespace
            .enter(move || TcpListener::bind(("::", port)))?
            .with_context(|| format!("{name} cannot listen on port {port}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (stop.clone(), name.to_owned());
        std::thread::spawn(move || accept(&listener, &name, &stopped));
        Ok(Echo { stop, namespace: namespace.clone(), port })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that its socket is closed.
        let port = self.port;
        let _ = self.namespace.enter(move || TcpStream::connect(("::1", port)).map(drop));
    }
}

fn accept(listener: &TcpListener, name: &str, stop: &Arc<AtomicBool>) {
    while let Ok((stream, client)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (name, stop) = (name.to_owned(), stop.clone());
        // A client that goes away in the middle is its own trouble.
        std::thread::spawn(move || drop(serve(stream, client, &name, &stop)));
    }
}

fn serve(stream: TcpStream, client: SocketAddr, name: &str, stop: &AtomicBool) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !stop.load(Ordering::Relaxed) {
        if line.starts_with("GET ") {
            while reader.read_line(&mut line)? > 2 {}
            let body = format!("{name} {} {}\n", client.ip().to_canonical(), client.port());
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            return writer.write_all((head + &body).as_bytes());
        }
        writer.write_all(format!("{name} {line}").as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// A connection that stays open.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<TcpStream>,
    said: u32,
}

impl Conversation {
    /// Connects from `namespace` to `to`.
    pub fn open(namespace: &Namespace, to: SocketAddr) -> Result<Conversation> {
        let patience = Duration::from_secs(3);
        let stream = namespace
            .enter(move || TcpStream::connect_timeout(&to, patience))?
            .with_context(|| format!("cannot connect to {to}"))?;
        Conversation::over(stream)
    }

    /// Goes on over a connection that stands.
    pub fn over(stream: TcpStream) -> Result<Conversation> {
        stream.set_read_timeout(Some(Duration::from_secs(3))).context("cannot set a timeout")?;
        Ok(Conversation { reader: BufReader::new(stream), said: 0 })
    }

    /// Says something new, and returns who answered it.
    pub fn say(&mut self) -> Result<String> {
        self.said += 1;
        let word = format!("word{}", self.said);
        self.reader.get_mut().write_all(format!("{word}\n").as_bytes()).context("cannot write")?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer).context("no answer in an open connection")?;
        let (name, echoed) = answer.trim().split_once(' ').context("an open connection was closed")?;
        ensure!(echoed == word, "{word} was answered with {echoed}");
        Ok(name.to_owned())
    }

    /// The client's own end.
    pub fn client(&self) -> Result<SocketAddr> {
        self.reader.get_ref().local_addr().context("the client's own address")
    }
}
