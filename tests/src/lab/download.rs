//! A long download whose every byte is compared with what it must be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::Namespace;

/// The big file's size in bytes: at 4 MiB a second, 12 seconds.
pub const SIZE: usize = 48 << 20;

/// What the big file repeats: a prime number of bytes, so that no two packets nearby look alike.
const TILE: usize = 65_521;

fn tile() -> Vec<u8> {
    (0..TILE).map(|position| (position ^ (position >> 8)).wrapping_mul(31).to_le_bytes()[0]).collect()
}

/// The big file.
pub fn content() -> Vec<u8> {
    let mut content = tile().repeat(SIZE.div_ceil(TILE));
    content.truncate(SIZE);
    content
}

/// A download in progress.
pub struct Download {
    received: Arc<AtomicU64>,
    worker: JoinHandle<Result<Result<()>>>,
    /// The client's end.
    pub client: SocketAddr,
}

impl Download {
    /// Begins to fetch `/big`; returns when the first bytes are there.
    pub fn start(from: &Namespace, server: SocketAddr) -> Result<Download> {
        let mut stream =
            from.enter(move || TcpStream::connect_timeout(&server, Duration::from_secs(3)))??;
        let client = stream.local_addr().context("the client's own address")?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).context("cannot set a timeout")?;
        stream
            .write_all(b"GET /big HTTP/1.1\r\nHost: nlb\r\nConnection: close\r\n\r\n")
            .context("cannot ask for /big")?;
        skip_head(&mut stream)?;
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        let worker = from.spawn(move || receive(stream, &counter))?;
        Ok(Download { received, worker, client })
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether it has ended, well or not.
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// Waits for its end; an error unless all bytes came, in their order.
    pub fn finish(self) -> Result<u64> {
        self.worker.join().map_err(|_| anyhow!("the download panicked"))???;
        Ok(self.received.load(Ordering::Relaxed))
    }
}

fn skip_head(stream: &mut TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut one = [0];
        stream.read_exact(&mut one).context("the download's answer ends in its head")?;
        head.push(one[0]);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.contains(" 200 "), "the download is answered with {head}");
    Ok(())
}

fn receive(mut stream: TcpStream, received: &AtomicU64) -> Result<()> {
    // Twice over, so that a read from anywhere in one is a part of both.
    let expected = tile().repeat(2);
    let mut buffer = vec![0; TILE];
    let mut position = 0;
    loop {
        let read =
            stream.read(&mut buffer).with_context(|| format!("the download broke after {position} bytes"))?;
        if read == 0 {
            break;
        }
        let first = position % TILE;
        ensure!(
            buffer[..read] == expected[first..first + read],
            "the download has a wrong byte after {position} bytes"
        );
        position += read;
        received.store(position as u64, Ordering::Relaxed);
    }
    ensure!(position == SIZE, "the download ended after {position} of {SIZE} bytes");
    Ok(())
}
