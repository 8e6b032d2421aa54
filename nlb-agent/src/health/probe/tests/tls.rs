//! HTTPS targets of every age, by the same library on the server's side.

use super::*;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::{X509, X509NameBuilder};
use std::pin::Pin;
use tokio_openssl::SslStream;

const ANSWER: &[&str] = &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];

fn https() -> CheckProtocol {
    CheckProtocol::Https(web("/", &[(200, 399)]))
}

/// A certificate as one would find it in an old appliance.
fn old_certificate(bits: u32, digest: MessageDigest) -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "not-the-pod").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.sign(&key, digest).unwrap();
    (certificate.build(), key)
}

fn server_context(settings: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
    super::super::tls::load_legacy_ciphers();
    let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
    context.set_security_level(0);
    context.set_cipher_list("ALL:COMPLEMENTOFALL:@SECLEVEL=0").unwrap();
    let (certificate, key) = old_certificate(1024, MessageDigest::sha1());
    context.set_certificate(&certificate).unwrap();
    context.set_private_key(&key).unwrap();
    settings(&mut context);
    context.build()
}

/// A server with these settings; it answers one connection, if the handshake is one for it.
pub(super) async fn tls_server(
    pieces: &'static [&'static str],
    settings: impl FnOnce(&mut SslContextBuilder),
) -> SocketAddr {
    let context = server_context(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = SslStream::new(Ssl::new(&context).unwrap(), stream).unwrap();
        if Pin::new(&mut stream).accept().await.is_ok() {
            serve(stream, pieces).await;
        } else {
            // What the client has not read of the alert must not be overtaken by a reset.
            let _ = stream.read(&mut [0; 64]).await;
            tokio::time::sleep(SHORT).await;
        }
    });
    address
}

/// A TCP server that answers the client's first packet with these bytes.
async fn bytes_server(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(bytes).await;
        if !bytes.is_empty() {
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    address
}

fn only(context: &mut SslContextBuilder, version: SslVersion, ciphers: &str) {
    context.set_min_proto_version(Some(version)).unwrap();
    context.set_max_proto_version(Some(version)).unwrap();
    context.set_cipher_list(&format!("{ciphers}:@SECLEVEL=0")).unwrap();
}

#[tokio::test]
async fn a_target_of_any_age_passes() {
    let rows = [
        (SslVersion::TLS1, "ALL"),
        (SslVersion::TLS1_1, "ALL"),
        (SslVersion::TLS1_2, "ALL"),
        (SslVersion::TLS1_3, "ALL"),
        (SslVersion::TLS1, "AES128-SHA"),
        (SslVersion::TLS1_2, "ECDHE-RSA-AES128-SHA"),
        (SslVersion::TLS1_2, "AES256-SHA256"),
        (SslVersion::TLS1_2, "AES128-GCM-SHA256"),
        (SslVersion::TLS1, "DES-CBC3-SHA"),
        (SslVersion::TLS1_2, "RC4-SHA"),
        (SslVersion::TLS1_2, "NULL-SHA256"),
        (SslVersion::TLS1_2, "AECDH-AES128-SHA"),
    ];
    for (version, ciphers) in rows {
        let address = tls_server(ANSWER, |context| only(context, version, ciphers)).await;
        assert_eq!(ask(address, &https(), LONG).await, Outcome::Passed, "{version:?} {ciphers}");
    }
}

#[tokio::test]
async fn old_certificates_and_other_curves_pass() {
    for (bits, digest) in [(512, MessageDigest::md5()), (1024, MessageDigest::sha1())] {
        let (certificate, key) = old_certificate(bits, digest);
        let address = tls_server(ANSWER, |context| {
            only(context, SslVersion::TLS1_1, "ALL");
            context.set_certificate(&certificate).unwrap();
            context.set_private_key(&key).unwrap();
        })
        .await;
        assert_eq!(ask(address, &https(), LONG).await, Outcome::Passed, "RSA of {bits} bits");
    }
    let (old, new) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    for (version, group) in
        [(new, "P-521"), (old, "brainpoolP256r1"), (new, "ffdhe2048"), (new, "X25519MLKEM768")]
    {
        let address = tls_server(ANSWER, |context| {
            only(context, version, "ALL");
            context.set_groups_list(group).unwrap();
        })
        .await;
        assert_eq!(ask(address, &https(), LONG).await, Outcome::Passed, "{group}");
    }
}

#[tokio::test]
async fn a_wish_for_a_client_certificate_is_granted_or_named() {
    for version in [SslVersion::TLS1, SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let wish = tls_server(ANSWER, |context| {
            only(context, version, "ALL");
            context.set_verify(SslVerifyMode::PEER);
        })
        .await;
        assert_eq!(ask(wish, &https(), LONG).await, Outcome::Passed, "{version:?}");
        let demand = tls_server(ANSWER, |context| {
            only(context, version, "ALL:!aNULL");
            context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        })
        .await;
        let outcome = ask(demand, &https(), LONG).await;
        assert_failed(&outcome, Failure::Broken, "the target asks for a client certificate");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_named_with_the_setting_that_fits() {
    let rows: [(&[u8], &str); 7] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "plain HTTP; set healthcheck-protocol to HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not answer in TLS: it begins with \"SSH-2"),
        (b"\x15\x03\x00\x00\x02\x02\x28", "only SSL 3"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "takes none of TLS 1.0 to 1.3"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "takes none of the ciphers"),
        (b"\x15\x03\x03\x00\x02\x02\x70", "wants a server name"),
        (b"", "closed the connection without an answer"),
    ];
    for (bytes, words) in rows {
        let outcome = ask(bytes_server(bytes).await, &https(), LONG).await;
        assert_failed(&outcome, Failure::Broken, "TLS handshake failed: the target");
        assert_failed(&outcome, Failure::Broken, words);
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_a_farewell_ends_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let context = server_context(|_| {});
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = SslStream::new(Ssl::new(&context).unwrap(), stream).unwrap();
        Pin::new(&mut stream).accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nbody").await.unwrap();
    });
    assert_eq!(ask(address, &https(), LONG).await, Outcome::Passed);
}
