//! Says that links, addresses or routes have changed, so that an interface that goes away and comes back is noticed.

use anyhow::Context as _;
use futures::StreamExt as _;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];
/// A burst has ended when nothing came for this long: making one link sends about ten messages.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that does not end is told of all the same.
const LONGEST: Duration = Duration::from_millis(500);
/// Between attempts to open the socket again.
const RETRY: Duration = Duration::from_secs(1);

/// A number that rises after each burst of changes in the calling thread's network namespace; read [`super::network::Network`] anew then.
/// Ends when every receiver is dropped. A message that is lost because the agent is slow counts as a change.
///
/// # Errors
/// The netlink socket cannot be opened. Once open, it is opened again whenever it fails, and that counts as a change.
pub fn watch() -> anyhow::Result<watch::Receiver<u64>> {
    let first = subscribe()?;
    let (changes, receiver) = watch::channel(0);
    tokio::spawn(async move {
        let mut subscription = Some(first);
        while !changes.is_closed() {
            match subscription.take() {
                Some(open) => follow(open, &changes).await,
                None => sleep(RETRY).await,
            }
            if !changes.is_closed() {
                subscription = subscribe().inspect_err(|error| tracing::warn!("{error:#}")).ok();
                changes.send_modify(|number| *number += 1);
            }
        }
    });
    Ok(receiver)
}

type Messages = futures::stream::BoxStream<'static, ()>;

/// The messages, and the task that reads the socket while they are wanted.
struct Subscription {
    messages: Messages,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn subscribe() -> anyhow::Result<Subscription> {
    let (connection, _, messages) =
        new_multicast_connection(&GROUPS).context("subscribing to changes of links, addresses and routes")?;
    Ok(Subscription { messages: messages.map(|_| ()).boxed(), reader: tokio::spawn(connection) })
}

/// Until the socket fails or nobody listens.
async fn follow(mut subscription: Subscription, changes: &watch::Sender<u64>) {
    loop {
        tokio::select! {
            message = subscription.messages.next() => if message.is_none() { return },
            () = changes.closed() => return,
        }
        let burst = Instant::now() + LONGEST;
        while timeout_at(burst.min(Instant::now() + QUIET), subscription.messages.next())
            .await
            .is_ok_and(|one| one.is_some())
        {}
        changes.send_modify(|number| *number += 1);
    }
}
