//! An HTTP client that never tries again and remembers every attempt: what "nothing lost" is measured with.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Namespace;

/// How long one attempt may take, connection and answer each.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// One request with a connection of its own.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it began, since the load's beginning.
    pub at: Duration,
    /// Whom it was sent to.
    pub to: SocketAddr,
    /// Until the connection stood, or could not be had.
    pub connect: Duration,
    /// Until the answer was whole, or the attempt had failed.
    pub total: Duration,
    /// What came of it.
    pub outcome: Result<Answer, Failure>,
}

/// What the pod said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub pod: String,
    /// The client as the pod saw it.
    pub seen: SocketAddr,
    /// The client as it sees itself.
    pub client: SocketAddr,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Somebody answered the SYN with RST.
    Refused,
    /// Nobody answered the SYN in time.
    NoConnection,
    /// RST in an established connection.
    Reset,
    /// The connection stood, but the answer did not come in time.
    NoAnswer,
    /// Anything else, with its own words.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused => formatter.write_str("connection refused"),
            Failure::NoConnection => formatter.write_str("no connection in time"),
            Failure::Reset => formatter.write_str("connection reset"),
            Failure::NoAnswer => formatter.write_str("no answer in time"),
            Failure::Other(words) => formatter.write_str(words),
        }
    }
}

/// One `GET /` from the calling thread's namespace, its time counted from `epoch`.
pub fn request(to: SocketAddr, epoch: Instant) -> Attempt {
    let began = Instant::now();
    let stream =
        TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| failure(&error, Failure::NoConnection));
    let connect = began.elapsed();
    let outcome = stream.and_then(ask);
    Attempt { at: began - epoch, to, connect, total: began.elapsed(), outcome }
}

fn ask(mut stream: TcpStream) -> Result<Answer, Failure> {
    let failed = |error: io::Error| failure(&error, Failure::NoAnswer);
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let client = stream.local_addr().map_err(failed)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: nlb\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    answer(&text, client).ok_or_else(|| Failure::Other(format!("unexpected answer: {text:?}")))
}

fn answer(text: &str, client: SocketAddr) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    if head.split(' ').nth(1) != Some("200") {
        return None;
    }
    let (pod, seen) = identity(body)?;
    Some(Answer { pod, seen, client })
}

/// `PODNAME CLIENT-ADDRESS CLIENT-PORT`, as every server of the lab answers.
pub fn identity(body: &str) -> Option<(String, SocketAddr)> {
    let mut words = body.split_whitespace();
    let (pod, address, port) =
        (words.next()?, words.next()?.parse::<IpAddr>().ok()?, words.next()?.parse().ok()?);
    Some((pod.to_owned(), SocketAddr::new(address, port)))
}

fn failure(error: &io::Error, late: Failure) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::ConnectionReset => Failure::Reset,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => late,
        // Another library's enum, and hundreds of its kinds say nothing more to us.
        _ => Failure::Other(error.to_string()),
    }
}

/// Requests without end, from several threads in one namespace.
pub struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    workers: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// `workers` threads; each goes through `addresses` in turn and waits `pause` between two requests.
    pub fn start(
        from: &Namespace,
        addresses: &[SocketAddr],
        workers: usize,
        pause: Duration,
    ) -> Result<Load> {
        let mut load = Load {
            began: Instant::now(),
            stop: Arc::default(),
            attempts: Arc::default(),
            workers: Vec::new(),
        };
        for first in 0..workers {
            let (stop, attempts, began) = (load.stop.clone(), load.attempts.clone(), load.began);
            let mut addresses: Vec<SocketAddr> = addresses.to_vec();
            let middle = first % addresses.len().max(1);
            addresses.rotate_left(middle);
            let work = move || {
                for to in addresses.into_iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let attempt = request(to, began);
                    attempts.lock().expect("no worker panics while it holds this").push(attempt);
                    std::thread::sleep(pause);
                }
            };
            load.workers.push(from.spawn(work)?);
        }
        Ok(load)
    }

    /// Since when the attempts' times count.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// What has been finished so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().expect("no worker panics while it holds this").clone()
    }

    /// Lets every request finish, and returns all of them in the order in which they began.
    pub fn stop(mut self) -> Result<Vec<Attempt>> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| anyhow!("a load worker panicked"))?.context("a load worker")?;
        }
        let mut attempts = self.attempts();
        attempts.sort_by_key(|attempt| attempt.at);
        Ok(attempts)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A connect that takes so long is a slow one.
const SLOW: Duration = Duration::from_millis(200);
/// What a machine that pauses does to one connect, it does to others within this time.
const BESIDE: Duration = Duration::from_millis(300);

/// Fails if an attempt failed, or connected slowly: only where a direct connect beside it was slow as well has the machine
/// paused and not nlb. A second is a SYN sent again: one was lost, whatever the machine did.
pub fn nothing_lost(attempts: &[Attempt], direct: &[Attempt]) -> Result<()> {
    let is_slow = |attempt: &&Attempt| attempt.connect >= SLOW;
    let pauses: Vec<&Attempt> = direct.iter().filter(is_slow).collect();
    let slow: Vec<&Attempt> = attempts.iter().filter(is_slow).collect();
    let (all, compared) = (attempts.len(), direct.len());
    println!("slow: {} of {all} connects, {} of {compared} direct ones", slow.len(), pauses.len());
    for attempt in attempts.iter().chain(direct) {
        ensure!(attempt.outcome.is_ok() && attempt.connect < SLOW * 5, "lost: {attempt:?}");
    }
    for attempt in slow {
        let beside = |it: &&Attempt| {
            it.at + it.connect + BESIDE > attempt.at && it.at < attempt.at + attempt.connect + BESIDE
        };
        ensure!(pauses.iter().any(beside), "no direct connect was slow beside {attempt:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_connect_is_excused_only_by_a_direct_one_beside_it() {
        let client: SocketAddr = "198.51.100.7:40000".parse().unwrap();
        let answer = Answer { pod: "pod1".into(), seen: client, client };
        let attempt = |at, connect| Attempt {
            at: Duration::from_millis(at),
            to: client,
            connect: Duration::from_millis(connect),
            total: Duration::from_millis(connect),
            outcome: Ok(answer.clone()),
        };
        let (slow, quick) = (attempt(1000, 250), attempt(1000, 199));
        let fine = |attempt: &Attempt, direct: &[Attempt]| {
            nothing_lost(std::slice::from_ref(attempt), direct).is_ok()
        };
        assert!(fine(&quick, &[]) && !fine(&slow, std::slice::from_ref(&quick)));
        assert!(fine(&slow, &[attempt(1500, 200)]) && fine(&slow, &[attempt(500, 210)]));
        assert!(!fine(&slow, &[attempt(1600, 900), attempt(400, 250)]));
        assert!(!fine(&attempt(1000, 1001), &[attempt(1000, 999)]));
        assert!(!fine(&Attempt { outcome: Err(Failure::Refused), ..quick }, &[slow]));
    }

    #[test]
    fn an_answer_is_read_only_from_a_success() {
        let client: SocketAddr = "198.51.100.7:40000".parse().unwrap();
        let text = "HTTP/1.1 200 OK\r\nServer: x\r\n\r\npod1 2001:db8::7 4711\n";
        let found = answer(text, client).unwrap();
        assert_eq!((found.pod.as_str(), found.seen), ("pod1", "[2001:db8::7]:4711".parse().unwrap()));
        assert_eq!(answer("HTTP/1.1 404 Not Found\r\n\r\npod1 192.0.2.1 4711\n", client), None);
        assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\npod1 nowhere 4711\n", client), None);
    }
}
