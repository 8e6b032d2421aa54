//! The agent's unix socket: HTTP/1.1 with the JSON of the command line, for whoever may open a file of mode 0600.

pub mod client;

use crate::report::{Drops, FlowFilter, Flows, Listener, Listeners, Snapshot, Status, Target, Targets, View};
use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

/// What the socket and the metrics ask the running agent for.
pub trait Source: Send + Sync + 'static {
    /// The agent as it is now; flows only where they are wanted, as reading them takes time.
    fn snapshot(&self, wanted: Wanted) -> BoxFuture<'_, Snapshot>;
}

/// How much of a snapshot is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Which flows; `None` = none at all.
    pub flows: Option<FlowFilter>,
}

/// Listeners and targets of one moment: what `top` polls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// By namespace, Service, address.
    pub listeners: Vec<Listener>,
    /// By namespace, Service, listener, address.
    pub targets: Vec<Target>,
}

impl View for Sample {
    const PATH: &'static str = "/sample";

    fn of(snapshot: Snapshot) -> Self {
        let snapshot = snapshot.sorted();
        Self { listeners: snapshot.listeners, targets: snapshot.targets }
    }

    fn table(&self, page: &crate::report::Page) -> String {
        let listeners = Listeners { listeners: self.listeners.clone() };
        let targets = Targets { targets: self.targets.clone() };
        listeners.table(page) + "\n" + &targets.table(page)
    }
}

/// `sun_path` of `sockaddr_un` without the 0 at its end (unix(7)): a longer path can be made by moving, but nobody could connect to it.
const LONGEST: usize = 107;

/// A killed agent is gone for whoever killed it before the kernel has taken its lock and its socket from it.
const DYING: Duration = Duration::from_secs(2);

/// A socket that is open for business; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file, ours for as long as the lock beside it is held.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The kernel gives it back however the agent ends, which tells a dead agent's socket from a living one's.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whether it is still there or not: it is nobody's from now on.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Socket {
    /// Opens the socket at `path`, which at no moment anybody but its owner can connect to; a dead agent's is replaced,
    /// and one that is just dying is given two seconds. Needs a tokio runtime.
    ///
    /// # Errors
    /// Another agent holds it, something else than a socket is there, or the folder cannot be written.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str().len() > LONGEST {
            bail!(
                "{} is too long for a socket: choose one of at most {LONGEST} bytes with --socket",
                path.display()
            );
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(|| {
            format!("cannot create the folder {} for the agent's socket", folder.display())
        })?;
        let lock = take_over(path)?;
        let listener = bind_private(folder, path)
            .with_context(|| format!("cannot open the agent's socket {}", path.display()))?;
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), _lock: lock } })
    }

    /// Answers until dropped.
    ///
    /// # Errors
    /// The listening socket itself breaks; a connection that breaks is its client's trouble.
    pub async fn serve(self, source: Arc<dyn Source>) -> anyhow::Result<()> {
        let Self { listener, file: _file } = self;
        axum::serve(listener, routes(source)).await.context("the agent's socket broke")
    }
}

/// Takes the lock once nobody answers at `path` any more, or says who does.
fn take_over(path: &Path) -> anyhow::Result<File> {
    let (lock, until) = (lock_file(path)?, Instant::now() + DYING);
    let mut waiting = false;
    while let Some(other) = holder(path, &lock)? {
        if Instant::now() >= until {
            bail!("{}", taken(path, &other));
        }
        if !std::mem::replace(&mut waiting, true) {
            tracing::info!(path = %path.display(), %other, "another agent has the socket; it may be about to end");
        }
        thread::sleep(DYING / 100);
    }
    Ok(lock)
}

fn lock_file(path: &Path) -> anyhow::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // Whoever may open it may hold it, and keep the agent from starting.
        .mode(0o600)
        .open(&beside);
    file.with_context(|| format!("cannot open {}", beside.display()))
}

/// The agent that has the lock or answers at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Its process id, as this process may call it.
    Process(i32),
    /// Nobody says who it is.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(id) => write!(f, "process {id}"),
            Self::Unknown => f.write_str("a process that does not say its number"),
        }
    }
}

/// Who is in the way; with `None` the lock is ours.
fn holder(path: &Path, lock: &File) -> anyhow::Result<Option<Holder>> {
    let locked = match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock the one beside {}", path.display()));
        }
    };
    let listening = listening(path)?;
    Ok(if locked { listening } else { listening.or(Some(Holder::Unknown)) })
}

/// Who listens at `path`; a socket that a dead agent left has nobody.
fn listening(path: &Path) -> anyhow::Result<Option<Holder>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        Ok(found) if !found.file_type().is_socket() => {
            bail!(
                "{} is no socket, so it is left alone; remove it or choose another --socket",
                path.display()
            )
        }
        Ok(_) => {}
    }
    let Ok(stream) = UnixStream::connect(path) else { return Ok(None) };
    // The kernel noted it when the other began to listen; 0 is somebody in another container.
    let id = getsockopt(&stream, PeerCredentials).map(|peer| peer.pid()).unwrap_or(0);
    Ok(Some(if id > 0 { Holder::Process(id) } else { Holder::Unknown }))
}

fn taken(path: &Path, other: &Holder) -> String {
    format!(
        "another agent is running: {other} holds {}. Stop it first, or give this one its own --socket and --pin-path",
        path.display()
    )
}

/// Bound inside a folder that is closed to others, narrowed there, then moved to its place in one step:
/// a mode given after binding in place would leave a moment open, and the process's umask is not ours to change.
fn bind_private(folder: &Path, path: &Path) -> anyhow::Result<UnixListener> {
    let closed = folder.join(format!(".nlb-{}", std::process::id()));
    // A dead agent of the same process id may have left one.
    let _ = std::fs::remove_dir_all(&closed);
    DirBuilder::new().mode(0o700).create(&closed)?;
    let bound = bind_and_move(&closed.join("s"), path);
    std::fs::remove_dir_all(&closed)?;
    bound
}

fn bind_and_move(inside: &Path, path: &Path) -> anyhow::Result<UnixListener> {
    let listener = UnixListener::bind(inside)?;
    std::fs::set_permissions(inside, Permissions::from_mode(0o600))?;
    std::fs::rename(inside, path)?;
    Ok(listener)
}

type Asked = State<Arc<dyn Source>>;

fn routes(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route(Status::PATH, get(plain::<Status>))
        .route(Listeners::PATH, get(plain::<Listeners>))
        .route(Drops::PATH, get(plain::<Drops>))
        .route(Sample::PATH, get(plain::<Sample>))
        .route(Targets::PATH, get(targets))
        .route(Flows::PATH, get(flows))
        .with_state(source)
}

async fn plain<V: View>(State(source): Asked) -> Response {
    json(&V::of(source.snapshot(Wanted::default()).await))
}

/// The query of `/targets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFilter {
    /// NAME or NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

async fn targets(State(source): Asked, Query(filter): Query<TargetFilter>) -> Response {
    json(&Targets::of(source.snapshot(Wanted::default()).await).only(filter.service.as_deref()))
}

async fn flows(State(source): Asked, Query(filter): Query<FlowFilter>) -> Response {
    json(&Flows::of(source.snapshot(Wanted { flows: Some(filter) }).await))
}

fn json<V: View>(view: &V) -> Response {
    ([(CONTENT_TYPE, "application/json")], view.json()).into_response()
}

#[cfg(test)]
mod tests;
