//! Why a TLS handshake failed, in words that a user can act on.

use super::greeting;
use openssl::ssl::{Error, SslAlert};

/// How far a handshake had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The target had not agreed to a version and a cipher.
    Offered,
    /// The target had shown its certificate.
    Agreed,
}

const CLIENT_CERTIFICATE: &str = "the target asks for a client certificate, which checks have not; \
     set healthcheck-protocol to TCP, or healthcheck-port to a port that asks for none";

/// What went wrong; `first` are the target's first bytes.
pub(super) fn words(error: &Error, stage: Stage, first: &[u8]) -> String {
    if let Some(text) = greeting::of_no_tls(first) {
        return text;
    }
    if let Some(alert) = alert(error) {
        return alert_words(alert, stage);
    }
    match reason(error) {
        _ if first.is_empty() => "the target closed the connection without an answer; it may not speak TLS \
             on this port, or only with a server name, which checks do not send"
            .to_owned(),
        Some(reason) => format!("what the target sent is not valid TLS: {reason}"),
        None => "the target closed the connection in the middle of it".to_owned(),
    }
}

/// The alert with which the target ended the handshake or, after it, the connection.
pub(super) fn alert(error: &Error) -> Option<SslAlert> {
    let errors = error.ssl_error()?.errors();
    errors.iter().find_map(|error| SslAlert::from_reason_code(error.reason_code()))
}

fn reason(error: &Error) -> Option<&'static str> {
    error.ssl_error()?.errors().first()?.reason()
}

/// What a target means by an alert; some are used for several causes, which the stage tells apart.
pub(super) fn alert_words(alert: SslAlert, stage: Stage) -> String {
    let meaning = match (alert, stage) {
        (SslAlert::CERTIFICATE_REQUIRED | SslAlert::NO_CERTIFICATE, _)
        | (
            SslAlert::HANDSHAKE_FAILURE
            | SslAlert::BAD_CERTIFICATE
            | SslAlert::CERTIFICATE_UNKNOWN
            | SslAlert::UNKNOWN_CA
            | SslAlert::ACCESS_DENIED,
            Stage::Agreed,
        ) => CLIENT_CERTIFICATE,
        (SslAlert::PROTOCOL_VERSION, _) => {
            "the target takes none of TLS 1.0 to 1.3; set healthcheck-protocol to TCP"
        }
        (SslAlert::HANDSHAKE_FAILURE | SslAlert::INSUFFICIENT_SECURITY, _) => {
            "the target takes none of the ciphers, curves and signatures that checks know, or wants a server name, \
             which checks do not send; set healthcheck-protocol to TCP"
        }
        (SslAlert::UNRECOGNIZED_NAME, _) => {
            "the target wants a server name, which checks do not send; set healthcheck-protocol to TCP"
        }
        (SslAlert::NO_APPLICATION_PROTOCOL, _) => {
            "the target speaks only HTTP/2, and checks speak HTTP/1.1; set healthcheck-protocol to TCP"
        }
        (SslAlert::INTERNAL_ERROR, _) => "the target reports an error of its own; its log should name it",
        _ => "the target refused",
    };
    format!("{meaning} (its alert: {alert})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_means_what_the_stage_says() {
        let text = |alert, stage| alert_words(alert, stage);
        let failure = SslAlert::HANDSHAKE_FAILURE;
        assert!(
            text(failure, Stage::Offered).contains("none of the ciphers"),
            "{}",
            text(failure, Stage::Offered)
        );
        assert!(text(failure, Stage::Agreed).contains("asks for a client certificate"));
        assert!(
            text(SslAlert::CERTIFICATE_REQUIRED, Stage::Offered).contains("asks for a client certificate")
        );
        assert!(text(SslAlert::UNRECOGNIZED_NAME, Stage::Offered).contains("wants a server name"));
        assert!(text(SslAlert::DECODE_ERROR, Stage::Offered).contains("(its alert: decode error)"));
    }
}
