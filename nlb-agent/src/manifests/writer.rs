//! Whether somebody has a file open for writing: the kernel's own word, and what is known where it says none.

use super::tree::{open, read_all};
use crate::bpf::sys;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that was changed so recently may have a writer, where nothing else tells.
const FRESH: Duration = Duration::from_secs(5);
/// Two changes that are closer together may have the same time.
const TELLING: Duration = Duration::from_secs(1);

/// Who has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Its text is whole.
    Nobody,
    /// Its text may be half of what it will be.
    Somebody,
}

/// What is told of a file by who watches its folder, for file systems that know no leases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hints {
    /// It was written to, and nobody who wrote has closed it since.
    pub(super) unclosed: bool,
    /// The time of day.
    pub(super) now: SystemTime,
}

/// What a file says.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its text.
    pub(super) text: String,
    /// Who was writing to it.
    pub(super) writer: Writer,
    /// What shows later that nothing has changed; `None` where the last change is so young that another would not show.
    pub(super) version: Option<Version>,
}

/// Reads a file's text, and tells whether anybody was writing to it meanwhile.
///
/// # Errors
/// As [`super::read_text`].
pub(super) fn read(path: &Path, hints: Hints) -> anyhow::Result<Found> {
    let mut file = open(path)?;
    // Asked before and after: whoever opens the file in between is seen afterwards, or has left a later time of change.
    let before = (leased(&file), Version::of(&file));
    let text = read_all(&mut file, path)?;
    let after = (leased(&file), Version::of(&file));
    let writer = match (before, after) {
        ((Some(false), before), (Some(false), after)) if before == after => Writer::Nobody,
        ((None, before), (None, after)) if before == after => guess(after, hints),
        _ => Writer::Somebody,
    };
    let version = after.1.filter(|it| writer == Writer::Nobody && it.is_older_than(TELLING, hints.now));
    Ok(Found { text, writer, version })
}

/// Whether the kernel knows of a writer; `None` where it does not say: no leases on this file system, or somebody else's
/// file and no CAP_LEASE.
fn leased(file: &File) -> Option<bool> {
    sys::has_writer(file.as_fd()).ok()
}

fn guess(version: Option<Version>, hints: Hints) -> Writer {
    let old = version.is_some_and(|it| it.is_older_than(FRESH, hints.now));
    if old && !hints.unclosed { Writer::Nobody } else { Writer::Somebody }
}

/// What changes with a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    file: (u64, u64),
    length: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

impl Version {
    fn of(file: &File) -> Option<Self> {
        Self::told(&file.metadata().ok()?)
    }

    /// Of the file that the path leads to now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        Self::told(&std::fs::metadata(path).ok()?)
    }

    /// A time of change in the future tells nothing.
    fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        now.duration_since(self.modified).is_ok_and(|it| it >= age)
    }

    fn told(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: metadata.modified().ok()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn hints(unclosed: bool, age: Duration) -> Hints {
        Hints { unclosed, now: SystemTime::now() + age }
    }

    #[test]
    fn a_writer_is_seen_until_it_closes_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "a").unwrap();
        let look = || {
            let found = read(&path, hints(false, Duration::from_secs(60))).unwrap();
            assert_eq!(found.version.is_some(), found.writer == Writer::Nobody);
            (found.text, found.writer)
        };
        assert_eq!(look(), ("a".to_owned(), Writer::Nobody));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"b").unwrap();
        assert_eq!(look(), ("b".to_owned(), Writer::Somebody));
        drop(file);
        assert_eq!(look(), ("b".to_owned(), Writer::Nobody));
        assert!(read(&path, hints(false, Duration::ZERO)).unwrap().version.is_none());
    }

    #[test]
    fn where_the_kernel_says_nothing_events_and_age_tell() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "a").unwrap();
        let version = Version::of(&File::open(&path).unwrap());
        assert_eq!(guess(version, hints(false, Duration::ZERO)), Writer::Somebody);
        assert_eq!(guess(version, hints(false, FRESH * 2)), Writer::Nobody);
        assert_eq!(guess(version, hints(true, FRESH * 2)), Writer::Somebody);
        assert_eq!(guess(None, hints(false, FRESH * 2)), Writer::Somebody);
    }
}
