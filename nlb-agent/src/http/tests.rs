//! The three pages on loopback, and an address that somebody else has.

use super::*;
use crate::report::Snapshot;
use crate::report::tests::five_ports;
use crate::socket::Wanted;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

struct Fixed;

impl Source for Fixed {
    fn snapshot(&self, _: Wanted) -> BoxFuture<'_, Snapshot> {
        Box::pin(async { five_ports() })
    }
}

fn pages(missing: &[&str]) -> Pages {
    let missing = missing.iter().map(|&clause| clause.to_owned()).collect();
    Pages {
        node: "node-a".to_owned(),
        source: Arc::new(Fixed),
        vitals: Arc::new(Vitals::new(Instant::now(), missing)),
        metrics: Metrics::default(),
    }
}

/// A free port of loopback, and the one who will serve it.
async fn served(pages: Pages) -> SocketAddr {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (sender, mut problem) =
        watch::channel(Some(unavailable("node-a", address, &std::io::Error::other("not yet"), RETRY)));
    tokio::spawn(serve(address, pages, sender));
    problem.wait_for(Option::is_none).await.unwrap();
    address
}

async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(format!("http://{address}{path}").parse().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_ready_agent_has_three_good_pages() {
    let address = served(pages(&[])).await;
    assert_eq!(page(address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(page(address, "/readyz").await, (200, "ok\n".to_owned()));
    let (status, text) = page(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("nlb_listener_healthy_targets"), "{text}");
    assert_eq!(page(address, "/").await.0, 404);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let pages = pages(&["manifests: not read yet", "maps: nothing written yet"]);
    let vitals = pages.vitals.clone();
    let address = served(pages).await;
    let (status, text) = page(address, "/readyz").await;
    assert_eq!((status, text.as_str()), (503, "manifests: not read yet\nmaps: nothing written yet\n"));
    assert_eq!(page(address, "/healthz").await.0, 200, "alive all the same");
    vitals.turn(Instant::now(), Vec::new());
    assert_eq!(page(address, "/readyz").await.0, 200);
}

#[test]
fn a_loop_that_hangs_is_not_alive() {
    let began = Instant::now();
    let vitals = Vitals::new(began, Vec::new());
    assert_eq!(vitals.alive(began + STALLED), Ok(()));
    let late = began + STALLED + Duration::from_secs(1);
    assert!(vitals.alive(late).unwrap_err().contains("31 s ago"));
    vitals.turn(late, Vec::new());
    assert_eq!(vitals.alive(late), Ok(()));
}

#[tokio::test]
async fn an_address_in_use_is_a_problem_until_it_is_free() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap();
    let (sender, mut problem) = watch::channel(None);
    tokio::spawn(serve_with(Duration::from_millis(20), address, pages(&[]), sender));
    let found = problem.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(found.object, "Node node-a");
    assert_eq!((found.reason.as_str(), found.value), ("MetricsUnavailable", Some(address.to_string())));
    assert!(found.message.contains("--http"));
    drop(holder);
    problem.wait_for(Option::is_none).await.unwrap();
}
