//! What the first bytes of a target say when they are not of the protocol that the check speaks.

/// How every HTTP/1 answer begins, in any case.
pub(super) const HTTP: &[u8] = b"HTTP/";

/// As many bytes of an unknown greeting are quoted.
const QUOTED: usize = 40;

/// Names the protocol that these bytes belong to and what the user can set, or else quotes them.
pub(super) fn of_another_protocol(first: &[u8]) -> String {
    match first {
        [20..=23, 3, ..] => {
            "the target answered with TLS; set healthcheck-protocol to HTTPS or TCP".to_owned()
        }
        // A frame of settings, on stream 0.
        [0, _, _, 4, ..] => {
            "the target speaks only HTTP/2, and checks speak HTTP/1.1; set healthcheck-protocol to TCP"
                .to_owned()
        }
        _ => format!("it begins with {}", quoted(first)),
    }
}

/// Names what answered a TLS handshake with these first bytes; `None` where they are TLS after all.
pub(super) fn of_no_tls(first: &[u8]) -> Option<String> {
    let begins_http = first.len() >= HTTP.len() && first[..HTTP.len()].eq_ignore_ascii_case(HTTP);
    match first {
        [20..=23, 3, 0, ..] => Some(
            "the target speaks only SSL 3, and checks need TLS 1.0; set healthcheck-protocol to TCP"
                .to_owned(),
        ),
        [] | [20..=23, 3, ..] => None,
        _ if begins_http => {
            Some("the target answered in plain HTTP; set healthcheck-protocol to HTTP".to_owned())
        }
        _ => Some(format!(
            "the target does not answer in TLS: it begins with {}; set healthcheck-protocol to HTTP or TCP",
            quoted(first)
        )),
    }
}

/// The first line, or as much of it as is worth a look.
fn quoted(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    format!("\"{}\"", line[..line.len().min(QUOTED)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_protocol_is_named_with_the_setting_and_an_unknown_one_is_quoted() {
        assert!(of_another_protocol(&[21, 3, 1, 0, 2, 2, 70]).contains("healthcheck-protocol to HTTPS"));
        assert!(of_another_protocol(&[0, 0, 18, 4, 0, 0, 0, 0, 0]).contains("only HTTP/2"));
        assert_eq!(of_another_protocol(b"220 mail\r\nmore"), "it begins with \"220 mail\"");
        assert_eq!(of_another_protocol(&[0xff, 0, b'"']), r#"it begins with "\xff\x00\"""#);
        assert_eq!(of_another_protocol(&[b'x'; 50]), format!("it begins with \"{}\"", "x".repeat(40)));
    }

    #[test]
    fn what_answers_a_handshake_is_tls_or_named() {
        assert_eq!(of_no_tls(&[]), None);
        assert_eq!(of_no_tls(&[22, 3, 3, 0, 70]), None);
        assert!(of_no_tls(&[22, 3, 0, 0, 70]).unwrap().contains("only SSL 3"));
        assert!(of_no_tls(b"HTTP/").unwrap().contains("healthcheck-protocol to HTTP"));
        assert!(of_no_tls(b"SSH-2").unwrap().contains("\"SSH-2\""));
    }
}
