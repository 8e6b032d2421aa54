//! The tree that YAML and JSON become: what JSON can say, with the place in the text where it says so.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// One value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Node<'t> {
    /// Byte in the text at which it begins; an alias's copy has that of its anchor.
    pub(in super::super) at: usize,
    pub(in super::super) kind: Kind<'t>,
}

/// What a value is. Numbers are what Go's JSON makes of them: a float without a fraction is an integer.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Kind<'t> {
    Null,
    /// With the word that stands for it.
    Bool(bool, Cow<'t, str>),
    Int(i64, Cow<'t, str>),
    /// Above `i64::MAX`.
    UInt(u64, Cow<'t, str>),
    /// Finite.
    Float(f64, Cow<'t, str>),
    Text(Cow<'t, str>),
    List(Vec<Node<'t>>),
    Map(Map<'t>),
}

/// Keys are texts, each of them once.
pub(in super::super) type Map<'t> = BTreeMap<Cow<'t, str>, Entry<'t>>;

/// What a map has under a key.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Entry<'t> {
    /// Byte in the text at which the key begins; `None` where a merge key brought it.
    pub(in super::super) key_at: Option<usize>,
    pub(in super::super) value: Node<'t>,
}

/// A document that could be read.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Document<'t> {
    pub(in super::super) root: Node<'t>,
    /// In the order of the text.
    pub(in super::super) duplicates: Vec<DuplicateKey>,
}

/// A key that stands twice in one map. The later value counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct DuplicateKey {
    /// Keys and indices that lead to the map, from the document's root on.
    pub(in super::super) path: Vec<String>,
    pub(in super::super) key: String,
    /// Bytes at which the two keys begin.
    pub(in super::super) at: [usize; 2],
    /// The two values, as messages show them.
    pub(in super::super) values: [String; 2],
}

impl<'t> Node<'t> {
    /// The value under `key`, where this is a map that has it.
    pub(in super::super) fn field(&self, key: &str) -> Option<&Node<'t>> {
        match &self.kind {
            Kind::Map(map) => map.get(key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The text, where this is one.
    pub(in super::super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The word as it stands in the text, quoted or not, where this is no list, map or null.
    pub(in super::super) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(word)
            | Kind::Bool(_, word)
            | Kind::Int(_, word)
            | Kind::UInt(_, word)
            | Kind::Float(_, word) => Some(word),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// As messages show it.
    pub(in super::super) fn shown(&self) -> String {
        const LONGEST: usize = 60;
        match (&self.kind, self.word()) {
            (_, Some(word)) if word.chars().count() > LONGEST => {
                format!("`{}…`", word.chars().take(LONGEST).collect::<String>())
            }
            (_, Some(word)) => format!("`{word}`"),
            (Kind::List(_), _) => "a list".to_owned(),
            (Kind::Map(_), _) => "a map".to_owned(),
            _ => "null".to_owned(),
        }
    }

    /// What a copy costs: 1 for each node, and 1 for every 64 bytes of text.
    pub(super) fn weight(&self) -> usize {
        match &self.kind {
            Kind::List(items) => 1 + items.iter().map(Node::weight).sum::<usize>(),
            Kind::Map(map) => {
                1 + map.iter().map(|(key, it)| key.len() / 64 + it.value.weight()).sum::<usize>()
            }
            _ => 1 + self.word().map_or(0, |word| word.len() / 64),
        }
    }
}

/// A finite number as Go's JSON writes it: without a fraction it is an integer, as far as those go.
pub(super) fn number<'t>(value: f64, word: Cow<'t, str>) -> Kind<'t> {
    const ABOVE: f64 = 18_446_744_073_709_551_616.0;
    if value.fract() != 0.0 || value.abs() >= ABOVE {
        Kind::Float(value, word)
    } else if value >= 9_223_372_036_854_775_808.0 {
        Kind::UInt(value as u64, word)
    } else if value >= -9_223_372_036_854_775_808.0 {
        Kind::Int(value as i64, word)
    } else {
        Kind::Float(value, word)
    }
}
