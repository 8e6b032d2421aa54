//! A folder of manifests: which files count, and whether one that is absent was removed or only cannot be seen.

use super::file::File;
use super::writer::{self, Hints};
use super::{Skipped, Sources, collect, file_problem, files};
use crate::problem::{Effect, Problem, Severity};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A file that is absent for so long was removed; before that, somebody may be replacing it.
pub(super) const ABSENT: Duration = Duration::from_millis(100);
/// A folder that has taken another one's place is filled once no file has come or gone for so long.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// Which folder a path led to: another one at the same path differs in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FolderIdentity {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970, where the file system keeps that: inodes are used again.
    born: Option<u64>,
}

impl FolderIdentity {
    /// Of the folder that the path leads to now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_dir).map(|it| Self {
            device: it.dev(),
            inode: it.ino(),
            born: it
                .created()
                .ok()
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .and_then(|age| u64::try_from(age.as_nanos()).ok()),
        })
    }
}

/// What was read whole, for the next agent to compare with what it finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// The folder; `None` before one was read.
    pub folder: Option<FolderIdentity>,
    /// The files that gave objects.
    pub files: BTreeSet<PathBuf>,
}

/// The moment of a look at the folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) time: SystemTime,
    pub(super) stamp: Timestamp,
    /// Every file is read, whatever its time of change.
    pub(super) thorough: bool,
}

impl Moment {
    pub(super) fn now(thorough: bool) -> Self {
        Self { instant: Instant::now(), time: SystemTime::now(), stamp: Timestamp::now(), thorough }
    }
}

/// When the folder is to be looked at again, although nothing tells that it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Again {
    /// A file has gone just now.
    Soon,
    /// A file is being written.
    Later,
    /// At leisure.
    Never,
}

/// The last good content of a folder, file by file.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Since when files are absent.
    absent: BTreeMap<PathBuf, Instant>,
    /// The files of a folder that has taken another one's place, and since when they are these.
    filling: Option<(Vec<PathBuf>, Instant)>,
    /// The folder that `files` come from; before the first reading, the one that the last agent read.
    known: Option<FolderIdentity>,
    /// What the last agent wrote down.
    before: Known,
    problem: Option<Problem>,
    synced: bool,
    /// True once there were objects, in this agent or the last one.
    had_objects: bool,
}

impl Folder {
    /// Nothing is read yet; `known` is what an earlier agent wrote down.
    pub(super) fn new(path: &Path, known: &Known) -> Self {
        Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            absent: BTreeMap::new(),
            filling: None,
            known: known.folder,
            before: known.clone(),
            problem: None,
            synced: false,
            had_objects: !known.files.is_empty(),
        }
    }

    /// Looks at everything. `unclosed` are the files that were written to and not closed, as far as events tell.
    pub(super) fn read(&mut self, unclosed: &BTreeSet<PathBuf>, now: Moment) -> Again {
        let identity = FolderIdentity::at(&self.path);
        let found = files(&self.path);
        let paths = match (found, identity) {
            (Ok(paths), Some(identity)) if FolderIdentity::at(&self.path) == Some(identity) => paths,
            (Err(error), _) => {
                self.problem = Some(gone(&self.path, &format!("{error:#}"), self.synced));
                return Again::Later;
            }
            // It is being replaced in this moment.
            (Ok(_), _) => return Again::Soon,
        };
        for path in &paths {
            let hints = Hints { unclosed: unclosed.contains(path), now: now.time };
            let file = self.files.entry(path.clone()).or_default();
            if !now.thorough && file.is_current(path) {
                continue;
            }
            file.take(path, writer::read(path, hints), now.stamp);
        }
        let replaced = self.known.is_some() && self.known != identity;
        if !replaced {
            self.filling = None;
        }
        let says_nothing = paths.iter().all(|path| self.files.get(path).is_none_or(File::gives_nothing));
        if replaced && says_nothing && self.has_something_to_lose() {
            self.problem = Some(emptied(&self.path, self.synced));
            return Again::Later;
        }
        self.synced = true;
        self.problem = None;
        let again = self.remove(&paths, replaced, now.instant);
        if self.problem.is_none() {
            self.known = identity;
        }
        self.had_objects |= self.files.values().any(File::has_objects);
        again
    }

    /// Before the first reading, what the last agent had is at stake.
    fn has_something_to_lose(&self) -> bool {
        if self.synced { self.files.values().any(File::has_objects) } else { !self.before.files.is_empty() }
    }

    /// Forgets the files that are there no more. In a folder that has taken another one's place they count as removed only
    /// once its own files are settled: somebody may be filling it.
    fn remove(&mut self, paths: &[PathBuf], replaced: bool, now: Instant) -> Again {
        let is_there = |path: &PathBuf| paths.binary_search(path).is_ok();
        let settled = self.files.iter().filter(|(path, _)| is_there(path)).all(|(_, file)| file.is_settled());
        let writing = self.files.values().any(File::is_being_written);
        let otherwise = if writing { Again::Later } else { Again::Never };
        let missing: Vec<PathBuf> = self.files.keys().filter(|path| !is_there(path)).cloned().collect();
        self.absent.retain(|path, _| missing.contains(path));
        if missing.is_empty() {
            return otherwise;
        }
        if replaced && !(settled && self.is_quiet(paths, now)) {
            self.problem = Some(unsettled(&self.path, missing.len()));
            return Again::Later;
        }
        for path in missing {
            let since = *self.absent.entry(path.clone()).or_insert(now);
            if now.duration_since(since) >= ABSENT {
                self.absent.remove(&path);
                self.files.remove(&path);
            }
        }
        if self.absent.is_empty() { otherwise } else { Again::Soon }
    }

    /// True if no file has come into the new folder, or gone, for long enough.
    fn is_quiet(&mut self, paths: &[PathBuf], now: Instant) -> bool {
        self.filling.take_if(|(known, _)| known != paths);
        let (_, since) = self.filling.get_or_insert_with(|| (paths.to_vec(), now));
        now.duration_since(*since) >= QUIET
    }

    /// What the folder says now.
    pub(super) fn sources(&self, now: Timestamp) -> Sources {
        let collected = collect(self.files.iter().map(|(path, file)| (path.as_path(), &file.good)));
        let mut problems: Vec<Problem> = self.problem.iter().cloned().collect();
        problems.extend(self.files.iter().flat_map(|(path, file)| file.problems(path, now)));
        problems.extend(collected.problems);
        problems.extend(collected.skipped.iter().map(unknown_kind));
        let nothing_left = self.had_objects && !self.files.values().any(File::has_objects);
        let doubtful = self.files.iter().any(|(path, file)| self.is_doubtful(path, file));
        if nothing_left && !doubtful && self.problem.is_none() {
            problems.push(nothing_is_left(&self.path));
        }
        let inputs = Arc::new(collected.inputs);
        Sources { inputs, problems, synced: self.synced, doubtful, known: self.known() }
    }

    /// What the next agent shall compare with. A file in which there may be something that nobody could read stays on the list.
    fn known(&self) -> Known {
        if !self.synced {
            return self.before.clone();
        }
        let counts = |(path, file): &(&PathBuf, &File)| {
            file.has_objects() || file.is_doubtful() && self.before.files.contains(*path)
        };
        let files = self.files.iter().filter(counts).map(|(path, _)| path.clone()).collect();
        Known { folder: self.known, files }
    }

    /// Whether the last agent may have had objects from a file that this one could not read whole yet.
    fn is_doubtful(&self, path: &Path, file: &File) -> bool {
        let had = self.before.folder.is_none() || self.before.files.contains(path);
        file.is_doubtful() && (had || !file.is_void())
    }
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

fn gone(path: &Path, why: &str, synced: bool) -> Problem {
    let (effect, meanwhile) = if synced {
        (Effect::KeptLastGood, "What was read before goes on.")
    } else {
        (Effect::Ignored, "Nothing of it is known.")
    };
    file_problem(path, "UnreadableManifest", format!("{why}. {meanwhile}"), effect)
}

fn emptied(path: &Path, synced: bool) -> Problem {
    let who = if synced { "What was read before goes on" } else { "What the last agent served goes on" };
    let message = format!(
        "Another folder is at {} now, and it holds no object: the one that was read was unmounted, moved or replaced. {who}. Bring that folder back, or put manifests into this one; if all of it shall go, put a manifest here and remove it again.",
        path.display()
    );
    file_problem(path, "EmptyFolder", message, Effect::KeptLastGood)
}

fn unsettled(path: &Path, missing: usize) -> Problem {
    let message = format!(
        "Another folder is at {} now, and it may still be filled, or a file in it is broken or being written. {missing} files that only the folder before it had go on until nothing has changed for some seconds.",
        path.display()
    );
    file_problem(path, "UnsettledFolder", message, Effect::KeptLastGood)
}

fn nothing_is_left(path: &Path) -> Problem {
    let message = format!(
        "The last object was removed from {}: nothing is served from there any more. Put manifests there if that was a mistake.",
        path.display()
    );
    file_problem(path, "NoManifests", message, Effect::Ignored)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
