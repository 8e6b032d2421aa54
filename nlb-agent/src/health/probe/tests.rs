//! Checks of real servers on the loopback device: every protocol, and every way to fail.

use super::*;
use crate::model::HttpCheck;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};

mod answers;
mod tls;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

fn web(path: &str, success_codes: &[(u16, u16)]) -> HttpCheck {
    HttpCheck { path: path.to_owned(), success_codes: success_codes.to_vec() }
}

fn http() -> CheckProtocol {
    CheckProtocol::Http(web("/health?full=1", &[(200, 399)]))
}

/// Reads one request, answers with these pieces half a timeout apart, and then keeps quiet until the client leaves.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, pieces: &[&str]) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        request.push(byte[0]);
    }
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(SHORT / 2).await;
        }
        if stream.write_all(piece.as_bytes()).await.is_err() {
            break;
        }
    }
    let _ = stream.flush().await;
    let _ = stream.read(&mut [0]).await;
    String::from_utf8(request).unwrap()
}

/// A server on loopback that answers one connection; its request comes from the handle.
async fn server(
    on: impl ToSocketAddrs,
    pieces: &'static [&'static str],
) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind(on).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, pieces).await
    });
    (address, served)
}

async fn ask(address: SocketAddr, protocol: &CheckProtocol, timeout: Duration) -> Outcome {
    Prober::default().probe(address, protocol, timeout).await
}

async fn answer(pieces: &'static [&'static str], timeout: Duration) -> Outcome {
    let (address, _served) = server("127.0.0.1:0", pieces).await;
    ask(address, &http(), timeout).await
}

#[track_caller]
fn assert_failed(outcome: &Outcome, failure: Failure, words: &str) {
    match outcome {
        Outcome::Failed(found, text) if *found == failure => assert!(text.contains(words), "{text}"),
        other => panic!("wanted {failure:?} with {words:?}, found {other:?}"),
    }
}

async fn closed_port(ip: &str) -> SocketAddr {
    TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn tcp_passes_when_the_handshake_completes() {
    for ip in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        assert_eq!(ask(listener.local_addr().unwrap(), &CheckProtocol::Tcp, LONG).await, Outcome::Passed);
    }
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    for ip in ["127.0.0.1", "::1"] {
        let outcome = ask(closed_port(ip).await, &CheckProtocol::Tcp, LONG).await;
        assert_failed(&outcome, Failure::Broken, "connection refused");
    }
}

/// A listener whose backlog is full drops every further SYN.
#[tokio::test]
async fn a_target_that_does_not_answer_times_out() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        held.push(stream);
    }
    let outcome = ask(address, &CheckProtocol::Tcp, SHORT).await;
    assert_failed(&outcome, Failure::Timeout, "no connection within 0.3 s");
}

#[tokio::test]
async fn http_asks_as_it_should_and_takes_every_success_code() {
    for ip in ["127.0.0.1", "::1"] {
        let (address, served) =
            server((ip, 0), &["HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(ask(address, &http(), LONG).await, Outcome::Passed);
        let request = served.await.unwrap().to_lowercase();
        assert!(request.starts_with("get /health?full=1 http/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nhost: {address}\r\n")), "{request}");
    }
}

#[tokio::test]
async fn a_wrong_code_is_named() {
    let outcome = answer(&["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], LONG).await;
    assert_failed(&outcome, Failure::ResponseCode, "HTTP 503, not 200-399");
    let (address, _served) = server("127.0.0.1:0", &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
    let picky = CheckProtocol::Http(web("/", &[(201, 201), (300, 302)]));
    assert_failed(&ask(address, &picky, LONG).await, Failure::ResponseCode, "HTTP 200, not 201,300-302");
}

#[tokio::test]
async fn what_is_not_http_is_broken() {
    let garbage = answer(&["SSH-2.0-OpenSSH_9.6\r\n\r\n"], LONG).await;
    assert_failed(&garbage, Failure::Broken, "not an HTTP answer");
    let (address, served) = server("127.0.0.1:0", &["HTTP/1.1 200 OK\r\nContent-Le"]).await;
    let asked = tokio::spawn(async move { ask(address, &http(), LONG).await });
    tokio::time::sleep(SHORT).await;
    served.abort();
    assert_failed(&asked.await.unwrap(), Failure::Broken, "closed before a whole answer");
}

#[tokio::test]
async fn a_reset_is_broken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 8]).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    assert_failed(&ask(address, &http(), LONG).await, Failure::Broken, "connection reset");
}

#[tokio::test]
async fn slow_headers_and_slow_bodies_use_up_the_one_timeout() {
    let headers = ["HTTP/1.1 200 OK\r\n", "A: b\r\n", "C: d\r\n", "Content-Length: 0\r\n\r\n"];
    let body = ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "a", "b", "c"];
    for pieces in [&headers, &body] {
        let pieces: &'static [&'static str] = Box::leak(Box::new(*pieces));
        assert_failed(&answer(pieces, SHORT).await, Failure::Timeout, "connected, but no whole answer");
        assert_eq!(answer(pieces, LONG).await, Outcome::Passed);
    }
}

#[tokio::test]
async fn a_body_without_end_is_enough_when_it_is_long() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11000\r\n";
    let body: &'static str = Box::leak(format!("{head}{}\r\n", "x".repeat(0x11000)).into_boxed_str());
    assert_eq!(answer(Box::leak(Box::new([body])), LONG).await, Outcome::Passed);
}

#[tokio::test]
async fn https_takes_any_certificate_and_judges_the_answer() {
    let https = CheckProtocol::Https(web("/", &[(200, 399)]));
    let right = tls::tls_server(&["HTTP/1.1 204 No Content\r\n\r\n"], |_| {}).await;
    assert_eq!(ask(right, &https, LONG).await, Outcome::Passed);
    let wrong = tls::tls_server(&["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"], |_| {}).await;
    assert_failed(&ask(wrong, &https, LONG).await, Failure::ResponseCode, "HTTP 500");
}

#[tokio::test]
async fn https_of_a_plain_server_is_broken_and_of_a_silent_one_times_out() {
    let https = CheckProtocol::Https(web("/", &[(200, 399)]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    assert_failed(&ask(silent, &https, SHORT).await, Failure::Timeout, "no TLS handshake");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 4096]).await;
    });
    assert_failed(&ask(plain, &https, LONG).await, Failure::Broken, "TLS handshake failed");
}

#[test]
fn what_this_node_lacks_says_nothing_about_the_target() {
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::EADDRNOTAVAIL] {
        let outcome = broken(&io::Error::from_raw_os_error(code));
        assert!(matches!(outcome, Some(Outcome::Internal(_))), "{outcome:?}");
    }
    let unreachable = broken(&io::Error::from_raw_os_error(libc::EHOSTUNREACH));
    assert_eq!(unreachable, Some(Outcome::Failed(Failure::Unreachable, "no route to host".into())));
    let silent = broken(&io::Error::from_raw_os_error(libc::ETIMEDOUT));
    assert!(matches!(silent, Some(Outcome::Failed(Failure::Timeout, _))));
}

#[test]
fn the_host_header_leaves_out_only_the_implied_port() {
    let name = |address: &str, implied| authority(address.parse().unwrap(), implied);
    assert_eq!(name("10.1.0.7:80", 80), "10.1.0.7");
    assert_eq!(name("10.1.0.7:80", 443), "10.1.0.7:80");
    assert_eq!(name("[2001:db8::7]:443", 443), "[2001:db8::7]");
    assert_eq!(name("[2001:db8::7]:8443", 443), "[2001:db8::7]:8443");
}

#[tokio::test]
async fn a_check_that_waits_for_its_connection_takes_little_memory() {
    let prober = Prober::default();
    let https =
        HealthCheck { protocol: CheckProtocol::Https(web("/", &[(200, 399)])), ..HealthCheck::default() };
    let size = size_of_val(&prober.ask("127.0.0.1:1".parse().unwrap(), &https));
    assert!(size <= 2048, "{size} bytes");
}
