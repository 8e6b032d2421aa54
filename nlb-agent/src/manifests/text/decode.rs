//! A tree into a Kubernetes type, as an API server decodes JSON: null is the zero value everywhere, and a mistake names its field.

use super::node::{Kind, Map, Node};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::collections::btree_map;
use std::fmt;

/// Why a tree does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Mistake {
    /// Byte in the text.
    pub(in super::super) at: Option<usize>,
    /// What is wrong, and what to do.
    why: String,
    /// From the inside to the outside.
    path: Vec<Step>,
}

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Key(String),
    Index(usize),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.path.iter().rev().enumerate() {
            match step {
                Step::Field(name) if index > 0 => write!(f, ".{name}")?,
                Step::Field(name) => f.write_str(name)?,
                Step::Key(key) => write!(f, "[{key}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        let gap = if self.path.is_empty() { "it" } else { "" };
        write!(f, "{gap} {}", self.why)
    }
}

impl std::error::Error for Mistake {}

impl Error for Mistake {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self { at: None, why: format!("cannot be read: {why}"), path: Vec::new() }
    }
}

impl Mistake {
    fn within(mut self, node: &Node<'_>, step: Step) -> Self {
        self.at.get_or_insert(node.at);
        self.path.push(step);
        self
    }
}

/// Reads a type from a tree.
///
/// # Errors
/// Where the two do not fit, with the place and the field.
pub(in super::super) fn decode<T: DeserializeOwned>(node: &Node<'_>) -> Result<T, Mistake> {
    T::deserialize(Value { node, fields: true })
        .map_err(|mistake| Mistake { at: mistake.at.or(Some(node.at)), ..mistake })
}

struct Value<'n, 't> {
    node: &'n Node<'t>,
    /// What names the steps of a map that nobody asked for by type.
    fields: bool,
}

impl Value<'_, '_> {
    fn wrong<T>(&self, wanted: &str) -> Result<T, Mistake> {
        let node = self.node;
        let what = match &node.kind {
            Kind::Null => "null".to_owned(),
            Kind::Bool(..) => format!("{}, a truth value (bool)", node.shown()),
            Kind::Int(..) | Kind::UInt(..) | Kind::Float(..) => format!("{}, a number", node.shown()),
            Kind::Text(_) => format!("{}, a string", node.shown()),
            Kind::List(_) | Kind::Map(_) => node.shown(),
        };
        let quoted = wanted == "a string" && node.word().is_some();
        let advice = match node.word().filter(|_| quoted) {
            Some(word) => format!(": write it in quotes, \"{word}\""),
            None => String::new(),
        };
        let why = format!("is {what}, but must be {wanted}{advice}");
        Err(Mistake { at: Some(node.at), why, path: Vec::new() })
    }

    fn map<'de, V: Visitor<'de>>(map: &Map<'_>, fields: bool, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_map(Entries { left: map.iter(), value: None, fields })
    }

    fn list<'de, V: Visitor<'de>>(items: &[Node<'_>], visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_seq(Items { left: items.iter().enumerate() })
    }

    fn integer<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => visitor.visit_i64(0),
            Kind::Int(value, _) => visitor.visit_i64(*value),
            Kind::UInt(value, _) => visitor.visit_u64(*value),
            _ => self.wrong("a whole number"),
        }
    }

    fn string<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => visitor.visit_str(""),
            Kind::Text(text) => visitor.visit_str(text),
            _ => self.wrong("a string"),
        }
    }
}

macro_rules! integers {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> { self.integer(visitor) })*
    };
}

impl<'de> Deserializer<'de> for Value<'_, '_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value, _) => visitor.visit_bool(*value),
            Kind::Int(value, _) => visitor.visit_i64(*value),
            Kind::UInt(value, _) => visitor.visit_u64(*value),
            Kind::Float(value, _) => visitor.visit_f64(*value),
            Kind::Text(text) => visitor.visit_str(text),
            Kind::List(items) => Self::list(items, visitor),
            Kind::Map(map) => Self::map(map, self.fields, visitor),
        }
    }

    integers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => visitor.visit_bool(false),
            Kind::Bool(value, _) => visitor.visit_bool(*value),
            _ => self.wrong("`true` or `false`"),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => visitor.visit_f64(0.0),
            Kind::Int(value, _) => visitor.visit_f64(*value as f64),
            Kind::UInt(value, _) => visitor.visit_f64(*value as f64),
            Kind::Float(value, _) => visitor.visit_f64(*value),
            _ => self.wrong("a number"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => Self::list(&[], visitor),
            Kind::List(items) => Self::list(items, visitor),
            _ => self.wrong("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => Self::map(&Map::new(), false, visitor),
            Kind::Map(map) => Self::map(map, false, visitor),
            _ => self.wrong("a map"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null => Self::map(&Map::new(), true, visitor),
            Kind::Map(map) => Self::map(map, true, visitor),
            _ => self.wrong("a map"),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.kind {
            Kind::Null if name == "Quantity" => visitor.visit_newtype_struct(StrDeserializer::new("0")),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

struct Items<'n, 't> {
    left: std::iter::Enumerate<std::slice::Iter<'n, Node<'t>>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some((index, node)) = self.left.next() else { return Ok(None) };
        let value = seed.deserialize(Value { node, fields: true });
        value.map(Some).map_err(|mistake| mistake.within(node, Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.left.size_hint().1
    }
}

struct Entries<'n, 't> {
    left: btree_map::Iter<'n, std::borrow::Cow<'t, str>, super::Entry<'t>>,
    value: Option<(&'n str, &'n Node<'t>)>,
    fields: bool,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let Some((key, entry)) = self.left.next() else { return Ok(None) };
        self.value = Some((key, &entry.value));
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let Some((key, node)) = self.value.take() else {
            return Err(Mistake::custom("a value was asked for before its key"));
        };
        let step = if self.fields { Step::Field(key.to_owned()) } else { Step::Key(key.to_owned()) };
        seed.deserialize(Value { node, fields: true }).map_err(|mistake| mistake.within(node, step))
    }

    fn size_hint(&self) -> Option<usize> {
        self.left.size_hint().1
    }
}
