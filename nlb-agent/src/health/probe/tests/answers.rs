//! Answers of HTTP servers, byte by byte: what a check takes, and the words it finds for what it does not take.

use super::super::answer::{Answer, Body, Header, Rest};
use super::*;
use proptest::prelude::*;

/// What a server does after its last byte.
#[derive(Clone, Copy, Debug)]
enum Then {
    Waits,
    Closes,
    Resets,
}

/// A server that sends these bytes once the request is there.
async fn scripted(bytes: Vec<u8>, then: Then) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(&bytes).await;
        match then {
            Then::Waits => drop(stream.read(&mut [0]).await),
            Then::Closes => drop(stream),
            Then::Resets => {
                // The bytes are on their way: on loopback, they have arrived.
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    });
    address
}

async fn outcome(bytes: &[u8], then: Then) -> Outcome {
    ask(scripted(bytes.to_vec(), then).await, &http(), LONG).await
}

#[tokio::test]
async fn an_answer_with_a_right_code_passes_however_it_is_written() {
    use Then::{Closes, Resets, Waits};
    let rows: &[(&str, Then)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", Waits),
        ("HTTP/1.1 200 OK\r\n Odd: first\r\nFolded: a\r\n b\r\nContent-Length: 0\r\n\r\n", Waits),
        ("HTTP/1.0 200 OK\r\n\r\nbody", Closes),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Waits),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Waits),
        ("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Waits),
        ("http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Waits),
        ("HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", Waits),
        ("\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Waits),
        ("HTTP/2 200\r\ncontent-length: 0\r\n\r\n", Waits),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Waits),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Waits),
        ("HTTP/1.1 200 OK\r\n\r\n", Closes),
        ("HTTP/1.1 200 OK\r\n\r\n", Resets),
        ("HTTP/1.1 200 OK\r\n", Closes),
        ("HTTP/1.1 200 OK\r\nno header at all\r\nContent-Length: 0\r\n\r\n", Waits),
        ("HTTP/1.1 200 OK\r\nName: caf\u{e9}\u{7f}\u{1}\r\nContent-Length: 0\r\n\r\n", Waits),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Waits),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Waits),
        ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", Waits),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Waits,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2;name=x\r\nok\r\n0\r\n\r\n", Waits),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n", Waits),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", Closes),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", Closes),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", Resets),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Waits),
    ];
    for (bytes, then) in rows {
        assert_eq!(outcome(bytes.as_bytes(), *then).await, Outcome::Passed, "{bytes:?}, {then:?}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_taken_is_named() {
    let long_line = format!("HTTP/1.1 200 {}", "x".repeat(9000));
    let rows: &[(&str, Then, &str)] = &[
        ("hello\r\n", Then::Waits, "not an HTTP answer: it begins with \"hello\""),
        ("SSH-2.0-OpenSSH_9.6\r\n", Then::Waits, "it begins with \"SSH-2.0-OpenSSH_9.6\""),
        ("HTTP/1.1 2x0 OK\r\n", Then::Waits, "it begins with \"HTTP/1.1 2x0 OK\""),
        ("HTTP/1.1 2000 OK\r\n", Then::Waits, "it begins with \"HTTP/1.1 2000 OK\""),
        ("HTTP/1.1 099 OK\r\n", Then::Waits, "it begins with"),
        ("HTTP 200 OK\r\n", Then::Waits, "it begins with"),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}F", Then::Waits, "set healthcheck-protocol to HTTPS"),
        ("\0\0\u{12}\u{4}\0\0\0\0\0", Then::Waits, "speaks only HTTP/2"),
        ("", Then::Closes, "closed before a whole answer"),
        ("HTTP/1.1 200 OK", Then::Closes, "closed before a whole answer"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", Then::Closes, "closed before a whole answer"),
        ("HTTP/1.1 200 OK\r\nA: b", Then::Resets, "connection reset"),
        (&long_line, Then::Waits, "the first line of the answer is over 8 KiB"),
    ];
    for (bytes, then, words) in rows {
        assert_failed(&outcome(bytes.as_bytes(), *then).await, Failure::Broken, words);
    }
}

#[tokio::test]
async fn a_switch_of_protocols_is_a_wrong_code() {
    let switched = outcome(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Then::Waits).await;
    assert_failed(&switched, Failure::ResponseCode, "HTTP 101, not 200-399");
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_was_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        // Unread bytes make the close a reset.
        tokio::time::sleep(SHORT / 3).await;
    });
    assert_eq!(ask(address, &http(), LONG).await, Outcome::Passed);
}

#[tokio::test]
async fn thousands_of_header_lines_are_taken_and_more_than_the_limit_is_named() {
    for lines in [150, 5000] {
        let many: String = (0..lines).map(|line| format!("X-Header-{line}: value {line}\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
        assert_eq!(outcome(answer.as_bytes(), Then::Waits).await, Outcome::Passed, "{lines} lines");
    }
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(1 << 20));
    let outcome = outcome(endless.as_bytes(), Then::Waits).await;
    assert_failed(&outcome, Failure::Broken, "the header of the answer is over 256 KiB");
}

/// The server of the bad input: one header byte a second. The connection is in memory, so paused time can pass.
#[tokio::test(start_paused = true)]
async fn one_header_byte_a_second_ends_with_the_timeout() {
    let (client, mut server) = tokio::io::duplex(4096);
    let trickle = tokio::spawn(async move {
        let _ = server.read(&mut [0; 1024]).await;
        let mut sent = 0;
        while server.write_all(&b"HTTP/1.1 200 OK\r\nA: b\r\n"[sent % 23..=sent % 23]).await.is_ok() {
            sent += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        sent
    });
    let start = Instant::now();
    let deadline = Deadline { at: start + LONG, timeout: LONG };
    let asked = web("/", &[(200, 399)]);
    let outcome = exchange::answer(client, "10.1.0.7", &asked, deadline).await.unwrap_err();
    assert_failed(&outcome, Failure::Timeout, "connected, but no whole answer within 10 s");
    assert_eq!(start.elapsed(), LONG);
    assert!((10..=12).contains(&trickle.await.unwrap()), "the connection ends with the check");
}

#[test]
fn the_end_of_a_body_is_where_its_header_says() {
    let body = |fields: &str| {
        let mut answer = Answer::default();
        answer.room().extend_from_slice(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes());
        answer.header().unwrap().unwrap().body
    };
    assert_eq!(body(""), Body::UntilClose);
    assert_eq!(body("CONTENT-LENGTH:7\r\n"), Body::Length(7));
    assert_eq!(body("Content-Length: 7\r\nContent-Length: 5\r\n"), Body::Length(5));
    assert_eq!(body("Content-Length: -1\r\n"), Body::Length(0));
    assert_eq!(body("Transfer-Encoding: Chunked\r\nContent-Length: 7\r\n"), Body::Chunked);
    assert_eq!(body("Transfer-Encoding: identity\r\nContent-Length: 7\r\n"), Body::Length(7));
    assert_eq!(body("A: b\r\n Content-Length: 7\r\n"), Body::UntilClose);
}

/// Reads an answer from pieces of this many bytes: its header or why it is none, and whether its body ended.
fn read(bytes: &[u8], piece: usize) -> Option<Result<(Header, bool), String>> {
    let mut answer = Answer::default();
    let mut pieces = bytes.chunks(piece);
    let header = loop {
        answer.room().extend_from_slice(pieces.next()?);
        match answer.header() {
            Ok(None) => {}
            Ok(Some(header)) => break header,
            Err(text) => return Some(Err(text)),
        }
    };
    let mut rest = Rest::of(header.body);
    let mut is_over = rest.is_over(&mut answer);
    for piece in pieces {
        answer.room().extend_from_slice(piece);
        is_over = is_over || rest.is_over(&mut answer);
    }
    Some(Ok((header, is_over)))
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("HTTP/1.1 200 OK"),
        Just("HTTP/1.0 103"),
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("Content-Length: 4"),
        Just("Transfer-Encoding: chunked"),
        Just(": "),
        Just(" x"),
        Just("3\r\nabc\r\n"),
        Just("0\r\n\r\n"),
        Just("ffffffffffffffff"),
    ];
    let likely = proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![likely, proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn an_answer_means_the_same_in_whatever_pieces_it_comes(bytes in answers(), piece in 1usize..9) {
        let whole = read(&bytes, bytes.len().max(1));
        let pieces = read(&bytes, piece);
        match (&whole, &pieces) {
            // Where it is no answer, less of it may be there to be quoted.
            (Some(Err(_)), Some(Err(_))) => {}
            _ => prop_assert_eq!(whole, pieces),
        }
    }
}
