//! TLS that takes what a target offers: a health check asks whether it answers, not who it is nor how modern (as AWS).
//!
//! OpenSSL serves checks alone: it still speaks TLS 1.0 and what came with it.

use super::overheard::Overheard;
use super::refusal::{self, Stage};
use super::{Outcome, broken};
use crate::health::Failure;
use openssl::error::ErrorStack;
use openssl::provider::Provider;
use openssl::ssl::{
    Error, Ssl, SslContext, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVerifyMode,
};
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// Every cipher that there is: weak ones, those without a certificate and those without encryption last.
const CIPHERS: &str = "ALL:+3DES:+RC4:+aNULL:COMPLEMENTOFALL:@SECLEVEL=0";
/// Key exchanges. One key share keeps the first packet small, which old servers need; the others are offered by name.
const GROUPS: &str = "*X25519:P-256:X448:P-384:P-521:?secp256k1:?brainpoolP256r1:?brainpoolP384r1:?brainpoolP512r1\
     :ffdhe2048:ffdhe3072:ffdhe4096:?X25519MLKEM768:?SecP256r1MLKEM768";

/// The client's side of every HTTPS check.
#[derive(Clone)]
pub(super) struct Tls {
    context: SslContext,
}

/// Gives all of the process RC4, until its end. Without it (a library built otherwise), all other ciphers are there.
pub(super) fn load_legacy_ciphers() {
    static LEGACY: OnceLock<Option<Provider>> = OnceLock::new();
    LEGACY.get_or_init(|| Provider::try_load(None, "legacy", true).ok());
}

/// A connection after its handshake.
pub(super) type TlsStream = SslStream<Overheard<TcpStream>>;

impl Tls {
    /// TLS 1.0 to 1.3 with every cipher that the library has, any certificate, no session kept.
    pub(super) fn tolerant() -> Result<Self, ErrorStack> {
        load_legacy_ciphers();
        let mut context = SslContext::builder(SslMethod::tls_client())?;
        context.set_verify(SslVerifyMode::NONE);
        context.set_security_level(0);
        context.set_cipher_list(CIPHERS)?;
        context.set_groups_list(GROUPS)?;
        context.set_min_proto_version(None)?;
        context.set_max_proto_version(None)?;
        context.set_options(
            SslOptions::ALL
                | SslOptions::ALLOW_UNSAFE_LEGACY_RENEGOTIATION
                | SslOptions::IGNORE_UNEXPECTED_EOF
                | SslOptions::NO_TICKET,
        );
        context.set_mode(SslMode::RELEASE_BUFFERS);
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        Ok(Self { context: context.build() })
    }

    /// A server name is not sent: targets are asked by address, which is none.
    pub(super) async fn handshake(&self, stream: TcpStream) -> Result<TlsStream, Outcome> {
        let stream = Ssl::new(&self.context).and_then(|ssl| SslStream::new(ssl, Overheard::new(stream)));
        let mut stream = stream.map_err(|error| Outcome::Internal(format!("TLS: {error}").into()))?;
        match Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(stream),
            Err(error) => Err(failed(&error, &stream)),
        }
    }
}

fn failed(error: &Error, stream: &TlsStream) -> Outcome {
    match error.io_error().and_then(broken) {
        Some(Outcome::Failed(failure, text)) => Outcome::Failed(failure, handshake_failed(&text)),
        Some(outcome) => outcome,
        None => {
            let agreed = stream.ssl().peer_certificate().is_some();
            let stage = if agreed { Stage::Agreed } else { Stage::Offered };
            let text = refusal::words(error, stage, stream.get_ref().first());
            Outcome::Failed(Failure::Broken, handshake_failed(&text))
        }
    }
}

fn handshake_failed(text: &str) -> std::borrow::Cow<'static, str> {
    format!("TLS handshake failed: {text}").into()
}

/// What a target says with an alert where an answer should be. In TLS 1.3 it reads the client's certificate only then.
pub(super) fn refusal_after_handshake(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match refusal::alert(error) {
        Some(alert) => {
            format!("refused after the TLS handshake: {}", refusal::alert_words(alert, Stage::Agreed))
        }
        None => format!("TLS failed after the handshake: {error}"),
    })
}
