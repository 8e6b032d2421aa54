//! One file of manifests: what counts of its text, what goes on from earlier texts, and what is wrong with it.

use super::writer::{Found, Version, Writer};
use super::{Reading, Refused, documents, file_problem};
use crate::inputs::{Identity, Object};
use crate::problem::{Effect, Problem, Severity};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::path::Path;

/// A writer that is at work for so long is worth a Warning.
const LONG: SignedDuration = SignedDuration::from_mins(1);

/// A file as it was last seen.
#[derive(Default)]
pub(super) struct File {
    /// The text and its writer, as last taken; `None` where the file could not be read.
    seen: Option<(String, Writer)>,
    /// What counts.
    pub(super) good: Reading,
    problems: Vec<Problem>,
    /// Since when somebody writes.
    writing: Option<Timestamp>,
    /// What shows that nothing has changed since.
    version: Option<Version>,
    /// True once a text of it was read whole: from then on it is known what the file held.
    whole: bool,
}

impl File {
    /// True if what was taken last is for sure what is there now.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        self.version.is_some() && self.version == Version::at(path)
    }

    /// Takes what was found at the file's path.
    pub(super) fn take(&mut self, path: &Path, found: anyhow::Result<Found>, now: Timestamp) {
        self.version = None;
        match found {
            Ok(Found { text, writer, version }) => {
                self.version = version;
                self.writing = (writer == Writer::Somebody).then(|| self.writing.unwrap_or(now));
                if self.seen.as_ref().is_none_or(|(seen, by)| *seen != text || *by != writer) {
                    self.read(path, &text, writer);
                    self.seen = Some((text, writer));
                }
            }
            Err(error) => {
                let before = self.good.objects.iter().chain(&self.good.kept);
                self.problems = vec![unreadable(path, &format!("{error:#}"), &Kept::of(before))];
                self.seen = None;
            }
        }
    }

    /// A text that nobody writes to any more says what there is. One that says nothing at all, or has a document that cannot
    /// be told, or is still being written, adds and changes objects and takes none away.
    fn read(&mut self, path: &Path, text: &str, writer: Writer) {
        let name = path.display().to_string();
        let void = documents::is_void(text);
        let mut reading = match writer {
            Writer::Nobody => documents::parse(&name, text),
            Writer::Somebody => documents::parse_growing(&name, text),
        };
        let given: BTreeSet<Identity> = reading.objects.iter().map(Object::identity).collect();
        let wrong = reading.errors.iter().filter_map(|error| error.identity.as_ref());
        let wrong: BTreeSet<&Identity> = wrong.chain(reading.refused.iter().map(|it| &it.identity)).collect();
        let all = void || reading.obscure || writer == Writer::Somebody;
        let before = std::mem::take(&mut self.good);
        let before = before.objects.into_iter().chain(before.kept);
        let goes_on = |it: &Object| {
            let identity = it.identity();
            !given.contains(&identity) && (all || wrong.contains(&identity))
        };
        let kept: Vec<Object> = before.filter(goes_on).collect();
        reading.kept = kept;
        self.whole |=
            writer == Writer::Nobody && !void && reading.errors.is_empty() && reading.refused.is_empty();
        self.problems = problems(path, &mut reading);
        if void && writer == Writer::Nobody {
            self.problems.push(empty(path, text, &reading.kept));
        }
        self.good = reading;
    }

    /// What is wrong with the file.
    pub(super) fn problems(&self, path: &Path, now: Timestamp) -> Vec<Problem> {
        let writing = self.writing.map(|since| being_written(path, since, now, (&self.good, self.whole)));
        self.problems.iter().cloned().chain(writing).collect()
    }

    /// True if it was never read whole: that an object is absent from it then says nothing.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.whole
    }

    /// True if it is now as its writer wants it.
    pub(super) fn is_settled(&self) -> bool {
        let closed = self.seen.as_ref().is_some_and(|(_, writer)| *writer == Writer::Nobody);
        closed && !self.good.obscure
    }

    /// True if its text holds no document.
    pub(super) fn is_void(&self) -> bool {
        self.seen.as_ref().is_some_and(|(text, _)| documents::is_void(text))
    }

    /// True if its text, as it is now, holds no object.
    pub(super) fn gives_nothing(&self) -> bool {
        self.good.objects.is_empty()
    }

    /// True if somebody writes to it.
    pub(super) fn is_being_written(&self) -> bool {
        self.writing.is_some()
    }

    /// True if anything counts that was read of it, now or before.
    pub(super) fn has_objects(&self) -> bool {
        !self.good.objects.is_empty() || !self.good.kept.is_empty()
    }
}

fn problems(path: &Path, reading: &mut Reading) -> Vec<Problem> {
    let Reading { kept, errors, refused, problems, .. } = reading;
    let identities: BTreeSet<Identity> = kept.iter().map(Object::identity).collect();
    let mut found = std::mem::take(problems);
    for error in errors {
        let kept = match &error.identity {
            Some(identity) => Kept::of(kept.iter().filter(|it| it.identity() == *identity)),
            None => Kept::of(kept.iter()),
        };
        found.push(unreadable(path, &error.to_string(), &kept));
    }
    refused.iter_mut().filter(|it| identities.contains(&it.identity)).for_each(keep);
    found
}

fn keep(refused: &mut Refused) {
    refused.problems.iter_mut().for_each(|it| it.effect = Effect::KeptLastGood);
}

/// What goes on from earlier texts, as messages name it.
struct Kept(Vec<Identity>);

impl Kept {
    fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> Self {
        Self(objects.map(Object::identity).collect())
    }

    fn effect(&self) -> Effect {
        if self.0.is_empty() { Effect::Ignored } else { Effect::KeptLastGood }
    }

    /// `Service a/b goes on` and the like, and what is said where nothing does.
    fn told(&self, otherwise: &str) -> String {
        const NAMED: usize = 3;
        if self.0.is_empty() {
            return otherwise.to_owned();
        }
        let names: Vec<String> = self.0.iter().take(NAMED).map(ToString::to_string).collect();
        let more = self.0.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("What was read before goes on: {}{more}.", names.join(", "))
    }
}

fn unreadable(path: &Path, why: &str, kept: &Kept) -> Problem {
    let meanwhile = kept.told("Nothing of what cannot be read is served.");
    file_problem(path, "UnreadableManifest", format!("{why}. {meanwhile}"), kept.effect())
}

fn empty(path: &Path, text: &str, kept: &[Object]) -> Problem {
    let kept = Kept::of(kept.iter());
    let what =
        if text.trim().is_empty() { "is empty" } else { "holds comments or `---` alone, and no object" };
    let meanwhile =
        kept.told("Nothing is read of it; what an earlier agent read of it, if anything, goes on.");
    let advice = if kept.0.is_empty() { "" } else { " Remove the file if it shall go." };
    let message = format!("{} {what}. {meanwhile}{advice}", path.display());
    let problem = file_problem(path, "EmptyManifest", message, kept.effect());
    let severity = if kept.0.is_empty() { Severity::Normal } else { Severity::Warning };
    Problem { severity, ..problem }
}

fn being_written(path: &Path, since: Timestamp, now: Timestamp, (good, whole): (&Reading, bool)) -> Problem {
    let kept = Kept::of(good.kept.iter());
    let since_second = since.strftime("%Y-%m-%dT%H:%M:%SZ");
    let waits = if good.waiting { " Its last document waits until the file is closed." } else { "" };
    let meanwhile = kept.told(if whole {
        "Nothing that was read before is missing in it."
    } else {
        "What an earlier agent read of it, if anything, goes on."
    });
    let message = format!(
        "{} is being written since {since_second}: a program has it open. No object is taken away until it is closed.{waits} {meanwhile}",
        path.display()
    );
    let severity = if now.duration_since(since) < LONG { Severity::Normal } else { Severity::Warning };
    Problem { severity, ..file_problem(path, "FileBeingWritten", message, kept.effect()) }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
