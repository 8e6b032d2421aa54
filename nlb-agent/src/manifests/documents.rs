//! One text of many YAML or JSON documents, read into the objects that nlb knows.

use super::text::{self, Broken, Document, DuplicateKey, Kind, Lines, Node};
use super::{file_problem, server};
use crate::inputs::{Identity, Object, ObjectName};
use crate::problem::{Effect, Problem};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The text, or a document of it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, document {document}{}: {why}", line_clause(*.line))]
pub struct ReadError {
    /// The file's path, or `standard input`.
    pub file: String,
    /// Counted from 1; 0 where no document was reached.
    pub document: usize,
    /// Line in the file, counted from 1, where the parser knows it.
    pub line: Option<usize>,
    /// What is wrong, in the parser's words.
    pub why: String,
    /// Whose document it is, where that much could be read.
    pub identity: Option<Identity>,
}

fn line_clause(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

/// An object that the API server would refuse.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Which.
    pub identity: Identity,
    /// Every reason; the effect is for who knows whether an earlier version exists.
    pub problems: Vec<Problem>,
}

/// A document of a kind that nlb does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, document {document}: skipped {}", self.what())]
pub struct Skipped {
    /// The file's path, or `standard input`.
    pub file: String,
    /// Counted from 1.
    pub document: usize,
    /// `apiVersion`; empty where there is none.
    pub version: String,
    /// `kind`.
    pub kind: String,
}

impl Skipped {
    fn what(&self) -> String {
        let Self { version, kind, .. } = self;
        if version.is_empty() {
            format!("a {kind} without an `apiVersion`")
        } else {
            format!("{version} {kind}, a kind that nlb does not read")
        }
    }
}

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Valid objects, defaults applied, in the order of the text.
    pub objects: Vec<Object>,
    /// Objects that the text no longer gives, and that go on all the same. Whoever knows the file puts them here.
    pub kept: Vec<Object>,
    /// Objects that the API server would refuse.
    pub refused: Vec<Refused>,
    /// Documents that cannot be read, or do not fit their kind.
    pub errors: Vec<ReadError>,
    /// Keys that are given twice.
    pub problems: Vec<Problem>,
    /// Documents of kinds that nlb does not read.
    pub skipped: Vec<Skipped>,
    /// True if a document cannot be read far enough to say whose it is. That an object is absent then says nothing.
    pub obscure: bool,
    /// True if the last document was left out, because its writer may not be done with it.
    pub waiting: bool,
}

/// Reads all documents of `text`; `file` is what messages call it. A bad document costs itself alone.
pub fn parse(file: &str, text: &str) -> Reading {
    read(file, text, false)
}

/// As [`parse`], for a text to which somebody still writes: a last document that nothing closes is left out.
pub(super) fn parse_growing(file: &str, text: &str) -> Reading {
    read(file, text, true)
}

/// True if the text holds no document at all: nothing, or only space, comments and `---`.
pub(super) fn is_void(text: &str) -> bool {
    text::is_void(text.strip_prefix(MARK).unwrap_or(text))
}

/// A byte order mark: it may begin a text, and any line of it where texts were put together.
const MARK: char = '\u{feff}';

fn without_marks(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    if text.contains(MARK) { text.replace("\n\u{feff}", "\n").into() } else { text.into() }
}

fn read(file: &str, text: &str, growing: bool) -> Reading {
    let text = &*without_marks(text);
    let source = Source { file, text, lines: OnceLock::new() };
    let segments = text::segments(text);
    let (mut reading, mut number) = (Reading::default(), 0);
    for segment in &segments {
        let (documents, whole) = if growing && !segment.ended {
            text::closed_documents(text, segment)
        } else {
            (text::documents(file, text, segment), true)
        };
        reading.waiting |= !whole;
        for document in documents {
            number += 1;
            Place { source: &source, number, listed: false }.take(document, &mut reading);
        }
    }
    reading
}

/// The text that is read.
struct Source<'t> {
    file: &'t str,
    text: &'t str,
    lines: OnceLock<Lines>,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        self.lines.get_or_init(|| Lines::of(self.text)).line(at)
    }
}

/// Where in the text we are.
#[derive(Clone, Copy)]
struct Place<'s> {
    source: &'s Source<'s>,
    /// Of the document, counted from 1.
    number: usize,
    /// Inside a `List`.
    listed: bool,
}

impl Place<'_> {
    fn take(self, document: Result<Document<'_>, Broken>, reading: &mut Reading) {
        match document {
            Ok(Document { root, duplicates }) => {
                self.read(&root, None, reading);
                self.warn(&root, duplicates, reading);
            }
            Err(Broken { at, why }) => {
                reading.obscure = true;
                reading.errors.push(self.error(why, at, None));
            }
        }
    }

    fn read(mut self, node: &Node<'_>, of_list: Option<(&str, &str)>, reading: &mut Reading) {
        if node.kind == Kind::Null {
            return;
        }
        let (default_version, default_kind) = of_list.unzip();
        let Some(kind) = word(node, "kind").or(default_kind) else {
            let why = "this is no Kubernetes object: it has no `kind`".to_owned();
            reading.obscure = true;
            return reading.errors.push(self.error(why, node.at, None));
        };
        let version = word(node, "apiVersion").or(default_version).unwrap_or_default();
        let Some(items) = node.field("items").filter(|_| kind.ends_with("List")) else {
            return self.read_one(version, kind, node, reading);
        };
        let item_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
        self.listed = true;
        match &items.kind {
            Kind::Null => {}
            Kind::List(items) => {
                items.iter().for_each(|item| self.read(item, item_kind.map(|it| (version, it)), reading));
            }
            _ => {
                reading.obscure = true;
                let why = format!("`items` of a {kind} is {}, but must be a list", items.shown());
                reading.errors.push(self.error(why, items.at, None));
            }
        }
    }

    fn read_one(self, version: &str, kind: &str, node: &Node<'_>, reading: &mut Reading) {
        let object = match (version, kind) {
            ("v1", "Service") => self.typed(kind, node).map(|it| Object::Service(Arc::new(it))),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.typed(kind, node).map(|it| Object::EndpointSlice(Arc::new(it)))
            }
            ("v1", "Node") => self.typed(kind, node).map(|it| Object::Node(Arc::new(it))),
            ("v1", "Namespace") => self.typed(kind, node).map(|it| Object::Namespace(Arc::new(it))),
            ("v1", "Pod") => self.typed(kind, node).map(|it| Object::Pod(Arc::new(it))),
            (version, kind) => {
                let (file, document) = (self.source.file.to_owned(), self.number);
                let (version, kind) = (version.to_owned(), kind.to_owned());
                return reading.skipped.push(Skipped { file, document, version, kind });
            }
        };
        match object.map(server::admit) {
            Ok(Ok(object)) => reading.objects.push(object),
            Ok(Err(problems)) => {
                reading.refused.push(Refused { identity: identity(kind, node), problems });
            }
            Err(error) => {
                // Nobody has an object without a name: whose document this is stays open.
                reading.obscure |= error.identity.as_ref().is_none_or(|it| it.name.name.is_empty());
                reading.errors.push(*error);
            }
        }
    }

    fn typed<T: DeserializeOwned>(self, kind: &str, node: &Node<'_>) -> Result<T, Box<ReadError>> {
        text::decode(node).map_err(|mistake| {
            let identity = identity(kind, node);
            let why = format!("{identity}: {mistake}");
            Box::new(self.error(why, mistake.at.unwrap_or(node.at), Some(identity)))
        })
    }

    fn error(self, why: String, at: usize, identity: Option<Identity>) -> ReadError {
        let line = Some(self.source.line(at));
        ReadError { file: self.source.file.to_owned(), document: self.number, line, why, identity }
    }

    /// Says which keys are given twice, in objects that nlb reads.
    fn warn(self, root: &Node<'_>, duplicates: Vec<DuplicateKey>, reading: &mut Reading) {
        for duplicate in duplicates {
            let owner = match duplicate.path.first().map(String::as_str) {
                Some("items") if duplicate.path.len() > 1 => duplicate.path[1].parse::<usize>().ok(),
                _ => None,
            };
            let items = root.field("items").map(|items| &items.kind);
            let (node, path) = match (items, owner) {
                (Some(Kind::List(items)), Some(index)) if index < items.len() => {
                    (&items[index], &duplicate.path[2..])
                }
                _ => (root, &duplicate.path[..]),
            };
            let known = ["Service", "EndpointSlice", "Node", "Namespace", "Pod"];
            match word(node, "kind") {
                Some(kind) if !known.contains(&kind) && !kind.ends_with("List") => {}
                kind => reading.problems.push(self.duplicate(kind, node, path, &duplicate)),
            }
        }
    }

    fn duplicate(
        self,
        kind: Option<&str>,
        node: &Node<'_>,
        path: &[String],
        duplicate: &DuplicateKey,
    ) -> Problem {
        let DuplicateKey { key, at, values: [ignored, counts], .. } = duplicate;
        let [first, last] = at.map(|at| self.source.line(at));
        let field = field_path(path, key);
        let Source { file, .. } = self.source;
        let message = format!(
            "{file}, document {}: {field} is given twice, in line {first} as {ignored} and in line {last} as {counts}. The last one counts, as with kubectl; strict tools refuse such a file. Remove one of the two.",
            self.number
        );
        let problem = file_problem(Path::new(file), "DuplicateKey", message, Effect::Ignored);
        let object = kind.map(|kind| identity(kind, node)).filter(|it| !it.name.name.is_empty());
        let object = object.map_or(problem.object, |it| it.to_string());
        Problem { object, field: Some(field), value: Some(counts.trim_matches('`').to_owned()), ..problem }
    }
}

/// As the API server would write it: keys of maps of strings in brackets.
fn field_path(path: &[String], key: &str) -> String {
    let mut text = String::new();
    let all: Vec<&str> = path.iter().map(String::as_str).chain([key]).collect();
    for (index, step) in all.iter().enumerate() {
        let in_map = index > 0 && matches!(all[index - 1], "annotations" | "labels" | "selector");
        let is_index = index > 0 && step.bytes().all(|byte| byte.is_ascii_digit());
        if in_map || is_index {
            text += &format!("[{step}]");
        } else {
            text += if index > 0 { "." } else { "" };
            text += step;
        }
    }
    text
}

fn word<'n>(node: &'n Node<'_>, key: &str) -> Option<&'n str> {
    node.field(key).and_then(Node::text).filter(|it| !it.is_empty())
}

/// Whose document it is, as far as it can be told: a name that lacks its quotes is one, too.
fn identity(kind: &str, node: &Node<'_>) -> Identity {
    let metadata = node.field("metadata");
    let word =
        |key: &str| metadata.and_then(|it| it.field(key)).and_then(Node::word).unwrap_or_default().to_owned();
    let namespace = match kind {
        "Node" | "Namespace" => String::new(),
        _ => Some(word("namespace")).filter(|it| !it.is_empty()).unwrap_or("default".into()),
    };
    Identity { kind: kind.into(), name: ObjectName { namespace, name: word("name") } }
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
