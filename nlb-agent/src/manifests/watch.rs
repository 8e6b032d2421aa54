//! A folder of manifests, followed as it changes: half-written, replaced, swapped or gone, what worked before goes on.

use super::folder::{Again, Folder, FolderIdentity, Known, Moment};
use crate::inputs::Inputs;
use crate::problem::Problem;
use anyhow::Context;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// No change for so long: whoever writes has probably ended.
const QUIET: Duration = Duration::from_millis(150);
/// A folder that never comes to rest is read all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the folder itself is looked at: is it still the one that is watched, does anybody still listen.
const TICK: Duration = Duration::from_secs(1);
/// Everything is read again this often, for changes that make no event (a link's target on another file system), and the
/// watch is set anew, in case it has ended without a word.
const SAFETY_NET: Duration = Duration::from_secs(10);

/// What the folder says now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// The last good version of every object.
    pub inputs: Arc<Inputs>,
    /// What is wrong with files and objects.
    pub problems: Vec<Problem>,
    /// True once the folder was read whole.
    pub synced: bool,
    /// True while a file could not be read whole yet: an object that only an earlier agent knew may stand in it.
    pub doubtful: bool,
    /// For the next agent.
    pub known: Known,
}

/// Follows the folder in a thread of its own until every receiver is gone. The first value is there at once; a later
/// one is published only where it differs. A missing folder is a problem in `Sources`, not an error: it may come. `known` is
/// what the last agent wrote down of the folder that it read.
///
/// # Errors
/// Where the thread or the kernel's file watch cannot be had at all.
pub fn watch(folder: &Path, known: &Known) -> anyhow::Result<tokio::sync::watch::Receiver<Sources>> {
    let (events, changes) = channel();
    let send = move |event: notify::Result<notify::Event>| {
        if let Some(change) = Change::of(event) {
            // Nobody listens any more once the thread has ended.
            let _ = events.send(change);
        }
    };
    let watcher = notify::recommended_watcher(send).context("cannot watch files (inotify)")?;
    let mut folder = Folder::new(folder, known);
    let now = Moment::now(true);
    folder.read(&BTreeSet::new(), now);
    let (sender, receiver) = tokio::sync::watch::channel(folder.sources(now.stamp));
    let unclosed = BTreeSet::new();
    let mut follower = Follower { folder, watcher, watched: None, changes, unclosed };
    follower.arm();
    std::thread::Builder::new()
        .name("manifests".into())
        .spawn(move || follower.follow(&sender))
        .context("cannot start the thread that follows the manifests")?;
    Ok(receiver)
}

/// What an event tells.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Somebody writes to these files.
    Written(Vec<PathBuf>),
    /// Whoever wrote to these files has closed them, or they are others now.
    Closed(Vec<PathBuf>),
    /// Something else has changed.
    Other,
    /// Events were lost.
    Lost,
}

impl Change {
    /// Our own reading makes access events; following those would never end.
    fn of(event: notify::Result<notify::Event>) -> Option<Self> {
        let Ok(event) = event else { return Some(Self::Lost) };
        if event.need_rescan() {
            return Some(Self::Lost);
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Self::Closed(event.paths)),
            EventKind::Access(_) => None,
            EventKind::Modify(ModifyKind::Data(_)) => Some(Self::Written(event.paths)),
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                Some(Self::Closed(event.paths))
            }
            _ => Some(Self::Other),
        }
    }
}

/// The thread's state.
struct Follower {
    folder: Folder,
    watcher: notify::RecommendedWatcher,
    /// The folder that is watched.
    watched: Option<FolderIdentity>,
    changes: Receiver<Change>,
    /// Files that were written to and not closed since.
    unclosed: BTreeSet<PathBuf>,
}

impl Follower {
    fn follow(&mut self, sender: &tokio::sync::watch::Sender<Sources>) {
        let mut last_read = Instant::now();
        // The folder may have changed between the first reading and the watch.
        let mut again = Again::Soon;
        while !sender.is_closed() {
            let changed = match self.changes.recv_timeout(if again == Again::Soon { QUIET } else { TICK }) {
                Ok(change) => self.settle(change),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let net = last_read.elapsed() >= SAFETY_NET;
            if net {
                self.watched = None;
            }
            let moved = self.arm();
            if changed || moved || net || again != Again::Never {
                last_read = Instant::now();
                let now = Moment::now(changed || moved || net);
                again = self.folder.read(&self.unclosed, now);
                let sources = self.folder.sources(now.stamp);
                sender.send_if_modified(|now| {
                    let differs = *now != sources;
                    if differs {
                        *now = sources;
                    }
                    differs
                });
            }
        }
    }

    /// Waits until nothing has changed for a while.
    fn settle(&mut self, first: Change) -> bool {
        self.note(first);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let Ok(change) = self.changes.recv_timeout(QUIET) else { break };
            self.note(change);
        }
        true
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Written(paths) => self.unclosed.extend(paths),
            Change::Closed(paths) => self.unclosed.retain(|path| !paths.contains(path)),
            Change::Other => {}
            // What was closed meanwhile is unknown; the age of a file tells instead.
            Change::Lost => self.unclosed.clear(),
        }
    }

    /// Watches the folder that the path leads to now; true if it is another one than before.
    fn arm(&mut self) -> bool {
        let path = &self.folder.path;
        let now = FolderIdentity::at(path);
        if now == self.watched {
            return false;
        }
        // The old watch may have gone with its folder.
        let _ = self.watcher.unwatch(path);
        let armed = now.is_some() && self.watcher.watch(path, RecursiveMode::NonRecursive).is_ok();
        self.watched = if armed { now } else { None };
        true
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
