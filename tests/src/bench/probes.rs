//! What it costs to ask 10 000 targets every 10 s whether they accept connections.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nlb_agent::health::probe::Prober;
use nlb_agent::health::{Check, Checker, Outcome};
use nlb_agent::host::files::OpenFiles;
use nlb_agent::model::{HealthCheck, TargetKey};
use tokio::sync::mpsc;

use super::figures::{Amount, Control};
use crate::lab::Lab;

/// The case's name.
pub(crate) const CASE: &str = "probes-10000-in-10s";
const TARGETS: u32 = 10_000;
const INTERVAL: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;

/// The share of a core that one interval's checks take, the kernel's work for them included, the targets' not.
pub(crate) fn measure() -> Result<Control> {
    let lab = Lab::new(0)?;
    // Every address in 127.0.0.0/8 is one of this host's own: ten thousand targets behind one socket.
    let share = lab.node.enter(|| -> Result<f64> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot listen")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(watch(listener))
    })??;
    Ok(Control { case: CASE, amount: Amount::Core(share) })
}

async fn watch(listener: TcpListener) -> Result<f64> {
    let targets = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&targets);
    // Never joined: like a server, it ends with the process.
    std::thread::spawn(move || accept(&listener, &theirs));
    let used = || -> Result<f64> { Ok(time_of(UsageWho::RUSAGE_SELF)? - micros(&targets)) };
    let (outcomes, mut checked) = mpsc::unbounded_channel();
    let checker = Checker::new(Prober::default(), OpenFiles::read()?.for_checks(), outcomes);
    let settings = Arc::new(HealthCheck { interval: INTERVAL, ..HealthCheck::default() });
    let group: Arc<str> = "bench".into();
    let check = |number: u32| {
        let address = SocketAddr::new(Ipv4Addr::from(0x7f01_0000 + number).into(), PORT);
        let key = TargetKey { ip: address.ip(), port: PORT, uid: None };
        Check { group: Arc::clone(&group), key, address, settings: Arc::clone(&settings) }
    };
    checker.set((1..=TARGETS).map(check).collect());
    // The first checks come all within a second; the later ones are spread over the interval.
    tokio::time::sleep(INTERVAL).await;
    let mut warm = 0;
    while checked.try_recv().is_ok() {
        warm += 1;
    }
    ensure!(warm >= TARGETS, "only {warm} of {TARGETS} first checks ended within {INTERVAL:?}");
    let (before, began) = (used()?, Instant::now());
    tokio::time::sleep(INTERVAL).await;
    let share = (used()? - before) / began.elapsed().as_secs_f64();
    let (mut passed, mut failed) = (0_u32, 0_u32);
    while let Ok(result) = checked.try_recv() {
        if result.outcome == Outcome::Passed { passed += 1 } else { failed += 1 }
    }
    eprintln!("bench: {passed} checks passed and {failed} failed in {INTERVAL:?}");
    ensure!(failed == 0 && passed >= TARGETS * 9 / 10, "{passed} checks passed, {failed} failed");
    Ok(share)
}

/// Accepts and hangs up, and says how much of the processor it has used for that.
fn accept(listener: &TcpListener, used: &AtomicU64) {
    for connection in listener.incoming() {
        drop(connection);
        if let Ok(seconds) = time_of(UsageWho::RUSAGE_THREAD) {
            used.store((seconds * 1e6) as u64, Ordering::Relaxed);
        }
    }
}

fn micros(used: &AtomicU64) -> f64 {
    used.load(Ordering::Relaxed) as f64 / 1e6
}

/// Seconds of processor time, in user and kernel mode.
fn time_of(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who).context("cannot read the processor's time")?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
