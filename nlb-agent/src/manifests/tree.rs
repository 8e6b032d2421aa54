//! Which files there are, what they hold together, and which of two definitions of one object wins.

use super::{ReadError, Reading, Skipped, file_problem};
use crate::inputs::{Identity, Inputs};
use crate::problem::{Effect, Problem};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file above this is not read: no manifest is that long, and the agent must not be made to swallow a disk image.
const MAX_BYTES: u64 = 256 << 20;

/// All manifests of a folder (`*.yaml`, `*.yml`, `*.json`, nothing hidden, no folders below), in the order of their paths.
///
/// # Errors
/// Where the folder cannot be listed.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?.path();
        if is_manifest(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let known = path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
    known && !hidden
}

/// The text of a regular file (or of what a link leads to).
///
/// # Errors
/// Where it is missing, no regular file, too long, or not UTF-8.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    read_all(&mut open(path)?, path)
}

/// Opens a regular file.
pub(super) fn open(path: &Path) -> anyhow::Result<fs::File> {
    let file = path.display();
    // Asked before opening: opening a FIFO would wait for a writer.
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {file}"))?;
    if !metadata.is_file() {
        bail!("cannot read {file}: it is no regular file");
    }
    fs::File::open(path).with_context(|| format!("cannot read {file}"))
}

/// The text of an open file; `path` is for messages.
pub(super) fn read_all(opened: &mut fs::File, path: &Path) -> anyhow::Result<String> {
    let file = path.display();
    let mut bytes = Vec::new();
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {file}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("cannot read {file}: it is longer than {MAX_BYTES} bytes");
    }
    String::from_utf8(bytes).with_context(|| format!("cannot read {file}: it is not UTF-8"))
}

/// What several files hold together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// The objects; of two definitions the one whose file comes first by path.
    pub inputs: Inputs,
    /// Refused objects, keys that are given twice and second definitions.
    pub problems: Vec<Problem>,
    /// What cannot be read.
    pub errors: Vec<ReadError>,
    /// Documents of kinds that nlb does not read.
    pub skipped: Vec<Skipped>,
}

/// Puts the readings of several files together, in the order given.
pub fn collect<'a>(readings: impl IntoIterator<Item = (&'a Path, &'a Reading)>) -> Collected {
    let mut all = Collected::default();
    let mut owners: BTreeMap<Identity, PathBuf> = BTreeMap::new();
    let readings: Vec<(&Path, &Reading)> = readings.into_iter().collect();
    for (path, reading) in &readings {
        for object in &reading.objects {
            let identity = object.identity();
            if let Some(first) = owners.get(&identity) {
                all.problems.push(second_definition(path, first, &identity));
            } else {
                owners.insert(identity, path.to_path_buf());
                all.inputs.put(object.clone());
            }
        }
        all.problems.extend(reading.problems.iter().cloned());
        all.problems.extend(reading.refused.iter().flat_map(|it| it.problems.iter().cloned()));
        all.errors.extend(reading.errors.iter().cloned());
        all.skipped.extend(reading.skipped.iter().cloned());
    }
    // What only goes on gives way to what a text says.
    for (path, reading) in readings {
        for object in &reading.kept {
            owners.entry(object.identity()).or_insert_with(|| {
                all.inputs.put(object.clone());
                path.to_owned()
            });
        }
    }
    all
}

fn second_definition(path: &Path, first: &Path, identity: &Identity) -> Problem {
    let message = format!(
        "{identity} is defined here and in {}, which comes first and is the one that counts. Remove one of the two.",
        first.display()
    );
    let problem = file_problem(path, "DuplicateObject", message, Effect::Ignored);
    Problem { value: Some(identity.to_string()), ..problem }
}
