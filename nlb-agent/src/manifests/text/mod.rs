//! Text to a tree of what it says: YAML as kubectl reads it (YAML 1.1, as go-yaml v2 does), and JSON; then the tree to types.

mod decode;
mod json;
mod lines;
mod node;
mod resolve;
mod segments;
mod yaml;

#[cfg(test)]
mod tests;

pub(super) use decode::decode;
pub(super) use lines::Lines;
use node::Entry;
pub(super) use node::{Document, DuplicateKey, Kind, Node};
pub(super) use segments::{Segment, is_void, segments};

/// A document that cannot be read, or a place at which a stream of documents cannot be followed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Byte in the text.
    pub(super) at: usize,
    /// What is wrong.
    pub(super) why: String,
}

/// The documents of a segment, each read or broken. `file` only tells in which of two languages a mistake is explained.
pub(super) fn documents<'t>(
    file: &str,
    text: &'t str,
    segment: &Segment,
) -> Vec<Result<Document<'t>, Broken>> {
    let mut found = Vec::new();
    let rest = json::values(text, segment, &mut found);
    let Some(rest) = rest else { return found };
    let yaml = yaml::documents(text, rest.range);
    match rest.broken {
        Some(broken) if file.ends_with(".json") && yaml.iter().any(Result::is_err) => found.push(Err(broken)),
        _ => found.extend(yaml),
    }
    found
}

/// The documents of a segment to which somebody still writes, as far as they are whole for sure: JSON values that are
/// closed. False if there is more than these.
pub(super) fn closed_documents<'t>(
    text: &'t str,
    segment: &Segment,
) -> (Vec<Result<Document<'t>, Broken>>, bool) {
    let mut found = Vec::new();
    let all = json::values(text, segment, &mut found).is_none();
    (found, all)
}
