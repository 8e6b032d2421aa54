//! YAML as trees with places: aliases put in, merge keys applied, of two equal keys the last one, all as kubectl does it.

use super::Broken;
use super::node::{Document, DuplicateKey, Entry, Kind, Map, Node};
use super::resolve::{key, resolve};
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, options};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// What aliases may copy in a document, beside a tenth of it: go-yaml's limit, near enough.
const COPIES: usize = 400_000;

/// Reads the documents in a part of the text, which is one unless a line ends with a lone carriage return. If it is broken
/// anywhere, nothing of it counts: kubectl passes over what follows a line that is indented too little, and takes half an
/// object for a whole one.
pub(super) fn documents(text: &str, range: Range<usize>) -> Vec<Result<Document<'_>, Broken>> {
    // Comments are for people, and a last line without its end ends all the same.
    let options = options! { emit_comments: false, block_scalar_eof_without_line_feed: true };
    let mut parser = Parser::new_from_str_with_options(&text[range.clone()], options);
    let mut loader = Loader { base: range.start, ..Loader::default() };
    while let Some(event) = parser.next_event() {
        let taken = match event {
            Ok((event, span)) => loader.take(event, span),
            Err(error) => Err(loader.broken(&error)),
        };
        if let Err(broken) = taken {
            // What was complete is only the upper part of what somebody wrote.
            return vec![Err(broken)];
        }
    }
    loader.found
}

#[derive(Default)]
struct Loader<'t> {
    /// Where the part begins in the text.
    base: usize,
    found: Vec<Result<Document<'t>, Broken>>,
    open: Vec<Open<'t>>,
    root: Option<Node<'t>>,
    duplicates: Vec<DuplicateKey>,
    anchors: HashMap<usize, Node<'t>>,
    nodes: usize,
    copies: usize,
}

/// A list or map whose end is still to come.
struct Open<'t> {
    at: usize,
    anchor: usize,
    holder: Holder<'t>,
}

enum Holder<'t> {
    List(Vec<Node<'t>>),
    Map(Map<'t>, Option<Key<'t>>),
}

/// A key whose value is still to come.
#[derive(Clone)]
enum Key<'t> {
    /// `<<`
    Merge,
    Text(usize, Cow<'t, str>),
}

impl<'t> Loader<'t> {
    fn broken(&self, error: &ScanError) -> Broken {
        let at = error.marker().byte_offset().unwrap_or_default();
        Broken { at: self.base + at, why: error.info().to_string() }
    }

    fn take(&mut self, event: Event<'t>, span: Span) -> Result<(), Broken> {
        let at = self.base + span.start.byte_offset().unwrap_or_default();
        self.nodes += 1;
        match event {
            Event::DocumentStart(..) => {
                *self = Self { base: self.base, found: std::mem::take(&mut self.found), ..Self::default() };
                Ok(())
            }
            Event::DocumentEnd => {
                let root = self.root.take().unwrap_or(Node { at, kind: Kind::Null });
                self.found.push(Ok(Document { root, duplicates: std::mem::take(&mut self.duplicates) }));
                Ok(())
            }
            Event::Scalar(word, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let merge = tag.as_ref().map_or(plain, |tag| {
                    tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() == Some("merge")
                });
                if merge && word == "<<" && self.awaits_key() {
                    return self.set_key(Key::Merge);
                }
                let kind = resolve(word, plain, tag.as_deref()).map_err(|why| Broken { at, why })?;
                self.put(Node { at, kind }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { at, anchor, holder: Holder::List(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push(Open { at, anchor, holder: Holder::Map(Map::new(), None) });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { at, anchor, holder }) = self.open.pop() else { return Ok(()) };
                let kind = match holder {
                    Holder::List(items) => Kind::List(items),
                    Holder::Map(map, _) => Kind::Map(map),
                };
                self.put(Node { at, kind }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Broken { at, why: "the alias stands inside what it stands for".to_owned() });
                };
                let weight = node.weight();
                self.count(weight, at)?;
                let copy = self.anchors[&anchor].clone();
                self.put(copy, 0)
            }
            _ => Ok(()),
        }
    }

    /// Refuses a text whose aliases would fill the memory.
    fn count(&mut self, weight: usize, at: usize) -> Result<(), Broken> {
        self.copies += weight;
        if self.copies > COPIES.max(self.nodes / 10) {
            return Err(Broken { at, why: "aliases copy too much here".to_owned() });
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { holder: Holder::Map(_, None), .. }))
    }

    fn set_key(&mut self, new: Key<'t>) -> Result<(), Broken> {
        if let Some(Open { holder: Holder::Map(_, key), .. }) = self.open.last_mut() {
            *key = Some(new);
        }
        Ok(())
    }

    /// A node is complete: it goes into the list or map that is open, as a key or as a value.
    fn put(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Broken> {
        if anchor != 0 {
            self.count(node.weight(), node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        let at = node.at;
        let broken = |why: String| Broken { at, why };
        match self.open.last_mut().map(|open| &mut open.holder) {
            None => self.root = Some(node),
            Some(Holder::List(items)) => items.push(node),
            Some(Holder::Map(map, pending)) => match pending.take() {
                None => *pending = Some(Key::Text(at, key(node.kind).map_err(broken)?)),
                Some(Key::Merge) => merge(map, node).map_err(broken)?,
                Some(Key::Text(key_at, key)) => self.insert(key_at, key, node),
            },
        }
        Ok(())
    }

    fn insert(&mut self, key_at: usize, key: Cow<'t, str>, value: Node<'t>) {
        let Some(Open { holder: Holder::Map(map, _), .. }) = self.open.last_mut() else { return };
        // What a merge key brought is there to be overridden.
        let written = map.get(&key).and_then(|earlier| Some((earlier.key_at?, earlier.value.shown())));
        let repeated = written.map(|(at, earlier)| (key.clone().into_owned(), at, [earlier, value.shown()]));
        map.insert(key, Entry { key_at: Some(key_at), value });
        if let Some((key, at, values)) = repeated {
            let path = self.path();
            self.duplicates.push(DuplicateKey { path, key, at: [at, key_at], values });
        }
    }

    /// The keys and indices of the lists and maps that are open, but for the last one.
    fn path(&self) -> Vec<String> {
        let above = self.open.len().saturating_sub(1);
        let segment = |open: &Open<'t>| match &open.holder {
            Holder::List(items) => items.len().to_string(),
            Holder::Map(_, Some(Key::Text(_, key))) => key.clone().into_owned(),
            Holder::Map(..) => "<<".to_owned(),
        };
        self.open[..above].iter().map(segment).collect()
    }
}

/// Puts a map, or a list of maps of which the first counts, into another: what is there already gives way, as in go-yaml v2.
fn merge<'t>(map: &mut Map<'t>, node: Node<'t>) -> Result<(), String> {
    let wrong = || "`<<` wants a map, or a list of maps".to_owned();
    let mut take = |node: Node<'t>| {
        let Kind::Map(other) = node.kind else { return Err(wrong()) };
        map.extend(other.into_iter().map(|(key, it)| (key, Entry { key_at: None, ..it })));
        Ok(())
    };
    match node.kind {
        Kind::List(items) => items.into_iter().rev().try_for_each(take),
        kind => take(Node { kind, ..node }),
    }
}
