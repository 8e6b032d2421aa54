//! curl, as people use it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Namespace, http};

/// What curl got.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Who answered.
    pub pod: String,
    /// The client as the pod saw it.
    pub seen: SocketAddr,
    /// curl's own end.
    pub client: SocketAddr,
    /// Until the connection stood.
    pub connect: Duration,
}

/// `curl http://TO/` in `from`, without retries; an error where curl has one.
pub fn fetch(from: &Namespace, to: SocketAddr) -> Result<Answer> {
    let format = "\n%{local_ip} %{local_port} %{time_connect}";
    let url = format!("http://{to}/");
    let said = from.output(
        "curl",
        &["--silent", "--show-error", "--fail", "--globoff", "--max-time", "3", "-w", format, &url],
    )?;
    read(&said).with_context(|| format!("unexpected answer from {to}: {said:?}"))
}

fn read(said: &str) -> Option<Answer> {
    let mut lines = said.lines().filter(|line| !line.is_empty());
    let (pod, seen) = http::identity(lines.next()?)?;
    let mut words = lines.next()?.split(' ');
    let client = SocketAddr::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let connect = Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?;
    Some(Answer { pod, seen, client, connect })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_prints_is_read() {
        let answer = read("pod3 198.51.100.7 40000\n\n198.51.100.7 40000 0.000250").unwrap();
        assert_eq!(answer.pod, "pod3");
        assert_eq!(answer.seen, answer.client);
        assert_eq!(answer.connect, Duration::from_micros(250));
        assert!(read("curl: (7) refused").is_none());
    }
}
