//! JSON values that follow each other, as trees with places. The last of two equal keys counts, as for an API server.

use super::node::{Document, DuplicateKey, Entry, Kind, Map, Node, number};
use super::{Broken, Segment};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// As deep as YAML may be nested.
const DEEPEST: usize = 255;

/// What of a segment is no JSON, and for YAML to read.
pub(super) struct Rest {
    pub(super) range: Range<usize>,
    /// Where it begins like JSON: why it is none.
    pub(super) broken: Option<Broken>,
}

/// Reads the values at the segment's beginning; `None` where nothing else is in it.
pub(super) fn values<'t>(
    text: &'t str,
    segment: &Segment,
    found: &mut Vec<Result<Document<'t>, Broken>>,
) -> Option<Rest> {
    let end = segment.range.end;
    let mut at = segment.content;
    loop {
        let value = text[at..end].trim_start();
        if value.is_empty() && !found.is_empty() {
            return None;
        }
        let range = if found.is_empty() { segment.range.clone() } else { at..end };
        if !value.starts_with('{') {
            return Some(Rest { range, broken: None });
        }
        let start = end - value.len();
        let mut stream = serde_json::Deserializer::from_str(value).into_iter::<&RawValue>();
        match stream.next()? {
            Ok(raw) => found.push(document(text, raw)),
            Err(error) => {
                let why = error.to_string();
                return Some(Rest { range, broken: Some(Broken { at: start + place(value, &error), why }) });
            }
        }
        at = start + stream.byte_offset();
    }
}

/// The byte at which the error's line begins; its line is all that is told of it.
fn place(value: &str, error: &serde_json::Error) -> usize {
    value.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum()
}

fn document<'t>(text: &'t str, raw: &'t RawValue) -> Result<Document<'t>, Broken> {
    let mut reader = Reader { text, path: Vec::new(), duplicates: Vec::new() };
    let root = reader.node(raw)?;
    Ok(Document { root, duplicates: reader.duplicates })
}

struct Reader<'t> {
    text: &'t str,
    path: Vec<String>,
    duplicates: Vec<DuplicateKey>,
}

impl<'t> Reader<'t> {
    /// The byte of the text at which a part of it begins.
    fn place(&self, part: &str) -> usize {
        part.as_ptr().addr() - self.text.as_ptr().addr()
    }

    fn node(&mut self, raw: &'t RawValue) -> Result<Node<'t>, Broken> {
        let word = raw.get();
        let at = self.place(word);
        let broken = |why: String| Broken { at, why };
        if self.path.len() > DEEPEST {
            return Err(broken(format!("this is nested more than {DEEPEST} deep")));
        }
        let kind = match word.as_bytes().first() {
            Some(b'{') => self.map(word).map(Kind::Map)?,
            Some(b'[') => self.list(word).map(Kind::List)?,
            Some(b'"') => {
                let text: Text<'t> = serde_json::from_str(word).map_err(|error| broken(error.to_string()))?;
                Kind::Text(text.0)
            }
            Some(b't' | b'f') => Kind::Bool(word == "true", word.into()),
            Some(b'n') | None => Kind::Null,
            Some(_) => numeral(word).ok_or_else(|| broken(format!("the number {word} is too large")))?,
        };
        Ok(Node { at, kind })
    }

    fn list(&mut self, word: &'t str) -> Result<Vec<Node<'t>>, Broken> {
        let items: Vec<&'t RawValue> = serde_json::from_str(word)
            .map_err(|error| Broken { at: self.place(word), why: error.to_string() })?;
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            self.path.push(index.to_string());
            list.push(self.node(item)?);
            self.path.pop();
        }
        Ok(list)
    }

    fn map(&mut self, word: &'t str) -> Result<Map<'t>, Broken> {
        let Pairs(pairs) = serde_json::from_str(word)
            .map_err(|error| Broken { at: self.place(word), why: error.to_string() })?;
        let mut map = Map::new();
        for (Text(key), value) in pairs {
            self.path.push(key.clone().into_owned());
            let value = self.node(value)?;
            self.path.pop();
            // A key that has an escape in it is found no more in the text; its value stands beside it.
            let key_at = match key {
                Cow::Borrowed(key) => self.place(key),
                Cow::Owned(_) => value.at,
            };
            let shown = value.shown();
            if let Some(earlier) = map.insert(key.clone(), Entry { key_at: Some(key_at), value }) {
                self.duplicates.push(DuplicateKey {
                    path: self.path.clone(),
                    key: key.into_owned(),
                    at: [earlier.key_at.unwrap_or(key_at), key_at],
                    values: [earlier.value.shown(), shown],
                });
            }
        }
        Ok(map)
    }
}

fn numeral(word: &str) -> Option<Kind<'_>> {
    if let Ok(value) = word.parse() {
        return Some(Kind::Int(value, word.into()));
    }
    if let Ok(value) = word.parse() {
        return Some(Kind::UInt(value, word.into()));
    }
    word.parse().ok().filter(|value: &f64| value.is_finite()).map(|value| number(value, word.into()))
}

#[derive(Deserialize)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

/// Every pair of a map, in order, also where a key comes twice.
struct Pairs<'t>(Vec<(Text<'t>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(All)
    }
}
