//! `nlb-agent run`: opens the data path, and goes on until a signal ends it; the data path stays.

use crate::args::{HttpAddress, RunArgs};
use crate::bpf::sweep::{Sweep, Tally};
use crate::bpf::{self, DataPath, Options, PinnedMaps};
use crate::health::probe::Prober;
use crate::health::{Checked, Checker};
use crate::host::files::OpenFiles;
use crate::host::{self, Host, preflight};
use crate::http::{self, Pages, Vitals};
use crate::manifests;
use crate::problem::Problem;
use crate::reconcile::{Reconcile, Start};
use crate::report::Snapshot;
use crate::slots::Epoch;
use crate::snapshot::{Identity, flows, snapshot};
use crate::socket::{Socket, Source, Wanted};
use crate::uplinks::Uplinks;
use crate::{logging, saved, settings};
use anyhow::{Context, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at attachments, drains, and the state file.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at what announces no change: sockets, sysctls, the firewall.
const MACHINE: Duration = Duration::from_secs(5);
/// Entries that one tick of the sweep looks at: a million flows in some seconds, a moment for each tick.
const SWEPT: u32 = 1 << 18;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What makes serving impossible, in a sentence that says what to do.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    logging::begin(&args.log, args.log_format)?;
    let files = open_files().context("reading the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(args, files.for_checks()))
}

/// As many files as this process may open at all; silent targets hold a socket each.
fn open_files() -> std::io::Result<OpenFiles> {
    let found = OpenFiles::read()?;
    let files = found.raise().unwrap_or_else(|error| {
        tracing::warn!(soft = found.soft, hard = found.hard, %error, "the limit of open files cannot be raised; the soft one holds");
        found
    });
    let (was, soft, hard, sockets) = (found.soft, files.soft, files.hard, files.for_checks());
    tracing::info!(
        was,
        soft,
        hard,
        sockets,
        "limit of open files, and the sockets that health checks may use at once"
    );
    Ok(files)
}

async fn serve(args: RunArgs, sockets: usize) -> anyhow::Result<()> {
    let node = args.translate.node()?;
    let flags = settings::of_flags(&args.translate)?;
    let vip_source = args.translate.vip_source()?;
    let pin_path = args.place.pin_path.clone();
    let host = Host::read(&pin_path).await.context("reading the machine's facts")?;
    refuse(&host, &node)?;
    let socket = Socket::open(&args.place.socket)?;
    let mut data_path = DataPath::open(&options(&args))?;
    for note in &data_path.notes {
        tracing::warn!("{note}");
    }
    if let Some(log) = data_path.take_log() {
        tokio::spawn(log.run());
    }
    let pinned = data_path.maps.shared();
    let known = data_path.links.pinned_uplinks().context("reading the pins")?;
    let uplinks = Uplinks::new(args.interfaces.clone(), known, args.xdp_mode);
    let (outcomes, checked) = mpsc::unbounded_channel();
    let reconcile = Reconcile::begin(Start {
        node: node.clone(),
        flags,
        vip_source,
        data_path,
        uplinks,
        host,
        checker: Checker::new(Prober::default(), sockets, outcomes),
        files: saved::Files::beside(&args.place.socket),
    })?;
    let sources = manifests::watch(&args.manifests, &reconcile.sources.known)?;
    let (questions, asked) = mpsc::channel(64);
    let source: Arc<dyn Source> = Arc::new(Answers { questions, pinned: Arc::clone(&pinned) });
    let vitals = Arc::new(Vitals::new(Instant::now(), reconcile.missing()));
    let (problem, http_problem) = watch::channel(None);
    if let HttpAddress::At(address) = args.http {
        let pages = Pages {
            node,
            source: Arc::clone(&source),
            vitals: Arc::clone(&vitals),
            metrics: reconcile.metrics.clone(),
        };
        tokio::spawn(http::serve(address, pages, problem));
    }
    tokio::spawn(async move {
        if let Err(error) = socket.serve(source).await {
            tracing::error!("the agent's socket broke: {error:#}");
        }
    });
    let turn = Turn {
        reconcile,
        identity: Identity { started_at: Timestamp::now(), synced_since: None },
        vitals,
        http_problem,
        graces: mpsc::unbounded_channel(),
    };
    turn.go_on(sources, checked, asked, pinned, &pin_path).await
}

/// Ends the start where nothing could be loaded anyway.
fn refuse(host: &Host, node: &str) -> anyhow::Result<()> {
    let wanted = preflight::Wanted { node: node.to_owned(), ..preflight::Wanted::default() };
    let found: Vec<String> = preflight::refusals(host, &wanted).into_iter().map(|it| it.message).collect();
    if found.is_empty() { Ok(()) } else { bail!("{}", found.join("\n")) }
}

fn options(args: &RunArgs) -> Options {
    let capacity = &args.capacity;
    Options {
        sizes: bpf::pins::Sizes {
            flows: capacity.max_flows,
            half_flows: capacity.max_half_flows,
            listeners: capacity.max_listeners,
            slots: capacity.max_targets,
        },
        log: args.data_path_log,
        replace_layout: args.replace_layout,
        ..Options::new(&args.place.pin_path)
    }
}

/// A question of the socket or the metrics, and where the answer goes.
type Question = oneshot::Sender<Snapshot>;

struct Answers {
    questions: mpsc::Sender<Question>,
    pinned: Arc<PinnedMaps>,
}

impl Source for Answers {
    fn snapshot(&self, wanted: Wanted) -> BoxFuture<'_, Snapshot> {
        async move {
            let (answer, answered) = oneshot::channel();
            // Without a loop to answer, the process is about to end: an empty answer is as good as any.
            let _ = self.questions.send(answer).await;
            let mut found = answered.await.unwrap_or_default();
            if let Some(filter) = wanted.flows {
                let pinned = Arc::clone(&self.pinned);
                let walk = tokio::task::spawn_blocking(move || flows(&pinned, &filter));
                match walk.await {
                    Ok(Ok(flows)) => found.flows = flows,
                    Ok(Err(error)) => tracing::warn!(%error, "the flow tables cannot be read"),
                    Err(error) => tracing::warn!(%error, "the walk through the flow tables broke off"),
                }
            }
            found
        }
        .boxed()
    }
}

/// The loop and what it holds.
struct Turn {
    reconcile: Reconcile,
    identity: Identity,
    vitals: Arc<Vitals>,
    http_problem: watch::Receiver<Option<Problem>>,
    graces: (mpsc::UnboundedSender<Epoch>, mpsc::UnboundedReceiver<Epoch>),
}

impl Turn {
    async fn go_on(
        mut self,
        mut sources: watch::Receiver<manifests::Sources>,
        mut checked: mpsc::UnboundedReceiver<Checked>,
        mut asked: mpsc::Receiver<Question>,
        pinned: Arc<PinnedMaps>,
        pin_path: &Path,
    ) -> anyhow::Result<()> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut network = host::watch().context("watching links and routes")?;
        let (mut tick, mut machine) = (interval(TICK), interval(MACHINE));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        machine.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tallies = spawn_sweep(pinned);
        let mut batch = Vec::new();
        sources.mark_changed();
        loop {
            tokio::select! {
                biased;
                _ = term.recv() => break,
                _ = int.recv() => break,
                Ok(()) = sources.changed() => {
                    let seen = Instant::now();
                    let now = sources.borrow_and_update().clone();
                    if now.synced && self.identity.synced_since.is_none() {
                        self.identity.synced_since = Some(Timestamp::now());
                    }
                    let waits = self.reconcile.read(now, seen);
                    self.wait(waits);
                }
                Some(epoch) = self.graces.1.recv() => {
                    let waits = self.reconcile.grace(epoch);
                    self.wait(waits);
                }
                count = checked.recv_many(&mut batch, 4096), if !checked.is_closed() => {
                    if count > 0 {
                        let waits = self.reconcile.checked(batch.drain(..));
                        self.wait(waits);
                    }
                }
                Some(question) = asked.recv() => {
                    let extra: Vec<Problem> = self.http_problem.borrow().iter().cloned().collect();
                    // Whoever asked may have gone meanwhile.
                    let _ = question.send(snapshot(&self.reconcile, &self.identity, &extra));
                }
                Ok(()) = network.changed() => self.look(pin_path).await,
                _ = machine.tick() => self.look(pin_path).await,
                Ok(()) = tallies.changed() => self.reconcile.tally = tallies.borrow_and_update().clone(),
                _ = tick.tick() => self.tick(),
            }
            self.vitals.turn(Instant::now(), self.reconcile.missing());
        }
        self.reconcile.save();
        tracing::info!("the agent ends; the data path goes on");
        Ok(())
    }

    fn tick(&mut self) {
        self.reconcile.advance();
        self.reconcile.verify();
        let waits = self.reconcile.retry();
        self.wait(waits);
        if self.reconcile.next_deadline().is_some_and(|at| at <= Timestamp::now()) {
            let waits = self.reconcile.deadline();
            self.wait(waits);
        }
        self.reconcile.save_slowly();
    }

    async fn look(&mut self, pin_path: &Path) {
        match Host::read(pin_path).await {
            Ok(host) => {
                let waits = self.reconcile.look(host);
                self.wait(waits);
            }
            Err(error) => tracing::warn!("the machine's facts cannot be read: {error:#}"),
        }
    }

    /// Waits for a grace period off the loop.
    fn wait(&self, epoch: Option<Epoch>) {
        let Some(epoch) = epoch else { return };
        let graces = self.graces.0.clone();
        tokio::task::spawn_blocking(move || match bpf::sys::grace_period() {
            // The receiver goes only when the process does.
            Ok(()) => drop(graces.send(epoch)),
            Err(error) => tracing::error!(%error, "membarrier failed; freed slots stay unused"),
        });
    }
}

/// Walks the flow tables in a thread of its own for as long as anybody looks at the result.
fn spawn_sweep(pinned: Arc<PinnedMaps>) -> watch::Receiver<Tally> {
    let (sender, receiver) = watch::channel(Tally::default());
    std::thread::spawn(move || {
        let mut sweep = Sweep::default();
        while !sender.is_closed() {
            match pinned.clock.now() {
                Ok(now) => {
                    if sweep.tick(&pinned, now, SWEPT) {
                        sender.send_if_modified(|tally| {
                            let differs = tally != sweep.tally();
                            tally.clone_from(sweep.tally());
                            differs
                        });
                    }
                }
                Err(error) => tracing::warn!(%error, "the clock cannot be read"),
            }
            std::thread::sleep(TICK);
        }
    });
    receiver
}
