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

/// Reads a file's text, and tells whether anybody was writing to it meanwhile.
///
/// # Errors
/// As [`super::read_text`].
pub(super) fn read(path: &Path, hints: Hints) -> anyhow::Result<(String, Writer)> {
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
    Ok((text, writer))
}

/// Whether the kernel knows of a writer; `None` where it does not say: no leases on this file system, or somebody else's
/// file and no CAP_LEASE.
fn leased(file: &File) -> Option<bool> {
    sys::has_writer(file.as_fd()).ok()
}

fn guess(version: Option<Version>, hints: Hints) -> Writer {
    let changed = version.map(|it| it.modified);
    let fresh = changed.is_none_or(|at| hints.now.duration_since(at).is_ok_and(|age| age < FRESH));
    if hints.unclosed || fresh { Writer::Somebody } else { Writer::Nobody }
}

/// What changes with a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    length: u64,
    modified: SystemTime,
    changed: (i64, i64),
}

impl Version {
    fn of(file: &File) -> Option<Self> {
        let metadata: Metadata = file.metadata().ok()?;
        Some(Self {
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
        let look = || read(&path, hints(false, Duration::from_secs(60))).unwrap();
        assert_eq!(look(), ("a".to_owned(), Writer::Nobody));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"b").unwrap();
        assert_eq!(look(), ("b".to_owned(), Writer::Somebody));
        drop(file);
        assert_eq!(look(), ("b".to_owned(), Writer::Nobody));
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
