//! A folder of manifests, followed as it changes: half-written, replaced, swapped or gone, what worked before goes on.

use super::{Reading, Refused, Skipped, collect, file_problem, files, parse, read_text};
use crate::inputs::{Inputs, Object};
use crate::problem::{Effect, Problem, Severity};
use anyhow::Context;
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
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
/// Everything is read again this often, for changes that make no event (a link's target on another file system).
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
}

/// Follows the folder in a thread of its own until every receiver is gone. The first value is there at once; a later
/// one is published only where it differs. A missing folder is a problem in `Sources`, not an error: it may come.
///
/// # Errors
/// Where the thread or the kernel's file watch cannot be had at all.
pub fn watch(folder: &Path) -> anyhow::Result<tokio::sync::watch::Receiver<Sources>> {
    let (events, changes) = channel();
    let send = move |event: notify::Result<notify::Event>| {
        // Our own reading makes access events; following those would never end.
        if !event.is_ok_and(|event| event.kind.is_access() && !is_close_write(&event)) {
            let _ = events.send(());
        }
    };
    let watcher = notify::recommended_watcher(send).context("cannot watch files (inotify)")?;
    let mut folder = Folder::new(folder);
    folder.read();
    let (sender, receiver) = tokio::sync::watch::channel(folder.sources());
    let mut follower = Follower { folder, watcher, watched: None, changes };
    follower.arm();
    std::thread::Builder::new()
        .name("manifests".into())
        .spawn(move || follower.follow(&sender))
        .context("cannot start the thread that follows the manifests")?;
    Ok(receiver)
}

fn is_close_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// The thread's state.
struct Follower {
    folder: Folder,
    watcher: notify::RecommendedWatcher,
    /// Device and inode of the folder that is watched.
    watched: Option<(u64, u64)>,
    changes: Receiver<()>,
}

impl Follower {
    fn follow(&mut self, sender: &tokio::sync::watch::Sender<Sources>) {
        let mut last_read = Instant::now();
        // The folder may have changed between the first reading and the watch.
        let mut due = true;
        while !sender.is_closed() {
            let changed = match self.changes.recv_timeout(if due { QUIET } else { TICK }) {
                Ok(()) => self.settle(),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let moved = self.arm();
            if changed || moved || due || last_read.elapsed() >= SAFETY_NET {
                due = false;
                last_read = Instant::now();
                self.folder.read();
                let sources = self.folder.sources();
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
    fn settle(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE && self.changes.recv_timeout(QUIET).is_ok() {}
        true
    }

    /// Watches the folder that the path leads to now; true if it is another one than before.
    fn arm(&mut self) -> bool {
        let path = &self.folder.path;
        let now =
            std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|it| (it.dev(), it.ino()));
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

/// The last good content of a folder, file by file.
struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    problem: Option<Problem>,
    synced: bool,
}

/// One file: the text that was seen last, what counts of it, and what is wrong with it.
#[derive(Default)]
struct File {
    text: Option<String>,
    good: Reading,
    problems: Vec<Problem>,
}

impl Folder {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), files: BTreeMap::new(), problem: None, synced: false }
    }

    fn read(&mut self) {
        match files(&self.path) {
            Ok(paths) => {
                self.problem = None;
                self.synced = true;
                self.files.retain(|path, _| paths.binary_search(path).is_ok());
                for path in paths {
                    self.files.entry(path.clone()).or_default().read(&path);
                }
            }
            Err(error) => self.problem = Some(unreadable(&self.path, &format!("{error:#}"), self.synced)),
        }
    }

    fn sources(&self) -> Sources {
        let collected = collect(self.files.iter().map(|(path, file)| (path.as_path(), &file.good)));
        let mut problems: Vec<Problem> = self.problem.iter().cloned().collect();
        problems.extend(self.files.values().flat_map(|file| file.problems.iter().cloned()));
        problems.extend(collected.problems);
        problems.extend(collected.skipped.iter().map(unknown_kind));
        Sources { inputs: Arc::new(collected.inputs), problems, synced: self.synced }
    }
}

impl File {
    fn read(&mut self, path: &Path) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                self.problems = vec![unreadable(path, &format!("{error:#}"), !self.good.objects.is_empty())];
                self.text = None;
                return;
            }
        };
        if self.text.as_ref() != Some(&text) {
            let reading = parse(&path.display().to_string(), &text);
            self.take(path, reading);
            self.text = Some(text);
        }
    }

    /// A text that breaks off keeps the whole file's last good objects, a bad document only its own object's.
    fn take(&mut self, path: &Path, mut reading: Reading) {
        let before = std::mem::take(&mut self.good.objects);
        self.problems.clear();
        let lost = reading.errors.iter().filter_map(|error| error.identity.clone());
        let lost: Vec<_> = lost.chain(reading.refused.iter().map(|it| it.identity.clone())).collect();
        if reading.broken_off && !before.is_empty() {
            reading.objects.clone_from(&before);
            reading.refused.clear();
        } else {
            let kept = before.into_iter().filter(|it| lost.contains(&it.identity()));
            let present = |it: &Object| reading.objects.iter().any(|other| other.identity() == it.identity());
            let kept: Vec<Object> = kept.filter(|it| !present(it)).collect();
            reading.objects.extend(kept);
        }
        let has = |identity| reading.objects.iter().any(|it| it.identity() == identity);
        for error in &reading.errors {
            let kept = error.identity.clone().map_or(reading.broken_off && !reading.objects.is_empty(), has);
            self.problems.push(unreadable(path, &error.to_string(), kept));
        }
        reading.refused.iter_mut().filter(|it| has(it.identity.clone())).for_each(keep);
        self.good = reading;
    }
}

fn keep(refused: &mut Refused) {
    refused.problems.iter_mut().for_each(|it| it.effect = Effect::KeptLastGood);
}

/// Normal: a folder may well hold the Deployment beside its Service.
fn unknown_kind(skipped: &Skipped) -> Problem {
    let problem = file_problem(
        Path::new(&skipped.file),
        "UnknownKind",
        format!("{skipped}. It has no effect."),
        Effect::Ignored,
    );
    let (field, value) =
        if skipped.version.is_empty() { ("apiVersion", None) } else { ("kind", Some(skipped.kind.clone())) };
    Problem { severity: Severity::Normal, field: Some(field.into()), value, ..problem }
}

fn unreadable(path: &Path, why: &str, kept: bool) -> Problem {
    let (effect, meanwhile) = if kept {
        (Effect::KeptLastGood, "What was read before goes on.")
    } else {
        (Effect::Ignored, "Nothing of it is known.")
    };
    file_problem(path, "UnreadableManifest", format!("{why}. {meanwhile}"), effect)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
