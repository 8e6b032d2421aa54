//! One text of many YAML or JSON documents, read into the objects that nlb knows.

use super::server;
use crate::inputs::{Identity, Object, ObjectName};
use crate::problem::Problem;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error, IgnoredAny};
use serde_json::Value;
use std::sync::Arc;

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
    /// Objects that the API server would refuse.
    pub refused: Vec<Refused>,
    /// Documents that do not fit their kind, or a text that breaks off.
    pub errors: Vec<ReadError>,
    /// True if the rest of the text is unknown because the parser lost its way: absence then says nothing.
    pub broken_off: bool,
    /// Documents of kinds that nlb does not read.
    pub skipped: Vec<Skipped>,
}

/// Reads all documents of `text`; `file` is what messages call it.
pub fn parse(file: &str, text: &str) -> Reading {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading::default();
    let json = is_json(file, text);
    let documents = if json { json_documents(text) } else { yaml_documents(text) };
    for (index, document) in documents.into_iter().enumerate() {
        match document {
            Ok(value) => {
                let mut place = Place { file, text, json, document: index + 1, listed: false };
                place.read(value, None, &mut reading);
            }
            Err((line, why)) => {
                let file = file.to_owned();
                reading.broken_off = true;
                reading.errors.push(ReadError { file, document: index + 1, line, why, identity: None });
            }
        }
    }
    reading
}

type Document = Result<Value, (Option<usize>, String)>;

/// JSON is YAML, except where several documents follow each other; a YAML flow mapping begins like JSON, too.
fn is_json(file: &str, text: &str) -> bool {
    let stream = || serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    file.ends_with(".json") || (text.trim_start().starts_with('{') && stream().all(|it| it.is_ok()))
}

fn json_documents(text: &str) -> Vec<Document> {
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    stream.map(|it| it.map_err(|error| (Some(error.line()), error.to_string()))).collect()
}

fn yaml_documents(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        // By way of the YAML crate's own value, because that one finds keys that are given twice.
        let value = serde_yaml_ng::Value::deserialize(document)
            .map_err(|error| (error.location().map(|it| it.line()), error.to_string()))
            .and_then(|mut value| {
                let merged =
                    value.apply_merge().and_then(|()| serde_json::to_value(&value).map_err(Error::custom));
                merged.map_err(|error| (None, error.to_string()))
            });
        let end = value.is_err();
        documents.push(value);
        if end {
            break;
        }
    }
    documents
}

/// Where in the text we are.
struct Place<'a> {
    file: &'a str,
    text: &'a str,
    json: bool,
    document: usize,
    listed: bool,
}

impl Place<'_> {
    fn read(&mut self, value: Value, of_list: Option<(&str, &str)>, reading: &mut Reading) {
        if value.is_null() {
            return;
        }
        let word =
            |key: &str| value.get(key).and_then(Value::as_str).filter(|it| !it.is_empty()).map(str::to_owned);
        let (default_version, default_kind) = of_list.unzip();
        let Some(kind) = word("kind").or(default_kind.map(str::to_owned)) else {
            let why = "this is no Kubernetes object: it has no `kind`".to_owned();
            return reading.errors.push(self.error(why, self.first_line(), None));
        };
        let version = word("apiVersion").or(default_version.map(str::to_owned)).unwrap_or_default();
        if let Some(items) = items_of(&kind, &value) {
            let item_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty()).map(str::to_owned);
            self.listed = true;
            for item in items {
                self.read(item, item_kind.as_deref().map(|kind| (version.as_str(), kind)), reading);
            }
            return;
        }
        self.read_one(&version, &kind, value, reading);
    }

    fn read_one(&self, version: &str, kind: &str, mut value: Value, reading: &mut Reading) {
        let identity = identity(kind, &value);
        if let Some(fields) = value.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| version.into());
            fields.entry("kind").or_insert_with(|| kind.into());
        }
        let object = match (version, kind) {
            ("v1", "Service") => self.typed(value).map(|it| Object::Service(Arc::new(it))),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.typed(value).map(|it| Object::EndpointSlice(Arc::new(it)))
            }
            ("v1", "Node") => self.typed(value).map(|it| Object::Node(Arc::new(it))),
            ("v1", "Namespace") => self.typed(value).map(|it| Object::Namespace(Arc::new(it))),
            ("v1", "Pod") => self.typed(value).map(|it| Object::Pod(Arc::new(it))),
            (version, kind) => {
                let (file, document) = (self.file.to_owned(), self.document);
                let (version, kind) = (version.to_owned(), kind.to_owned());
                return reading.skipped.push(Skipped { file, document, version, kind });
            }
        };
        match object.map(server::admit) {
            Ok(Ok(object)) => reading.objects.push(object),
            Ok(Err(problems)) => reading.refused.push(Refused { identity, problems }),
            Err((line, why)) => {
                let why = if self.listed { format!("{identity}: {why}") } else { why };
                reading.errors.push(self.error(why, line, Some(identity)));
            }
        }
    }

    fn typed<T: DeserializeOwned>(&self, value: Value) -> Result<T, (Option<usize>, String)> {
        serde_json::from_value(value).map_err(|error| {
            let elsewhere = || (self.json_line::<T>().or_else(|| self.first_line()), error.to_string());
            self.again::<T>().unwrap_or_else(elsewhere)
        })
    }

    /// The same mistake once more, straight from the text, because only then the parser knows the line. It finds fewer
    /// mistakes there: a bare `true` passes for a string.
    fn again<T: DeserializeOwned>(&self) -> Option<(Option<usize>, String)> {
        // A merge key is resolved only in the value that was read first.
        if self.json || self.listed || self.text.contains("<<") {
            return None;
        }
        let document = serde_yaml_ng::Deserializer::from_str(self.text).nth(self.document - 1)?;
        let error = T::deserialize(document).err()?;
        Some((error.location().map(|it| it.line()), error.to_string()))
    }

    /// The line of the same mistake in a document of JSON.
    fn json_line<T: DeserializeOwned>(&self) -> Option<usize> {
        if !self.json || self.listed {
            return None;
        }
        let (above, document) = self.json_document()?;
        let error = T::deserialize(&mut serde_json::Deserializer::from_str(document)).err()?;
        Some(above + error.line())
    }

    /// How many lines stand above this document of JSON, and the text from its first character on.
    fn json_document(&self) -> Option<(usize, &str)> {
        let mut stream = serde_json::Deserializer::from_str(self.text).into_iter::<IgnoredAny>();
        stream.by_ref().take(self.document - 1).for_each(drop);
        let document = self.text.get(stream.byte_offset()..)?.trim_start();
        let above = &self.text[..self.text.len() - document.len()];
        Some((above.matches('\n').count(), document))
    }

    /// Where the document begins.
    fn first_line(&self) -> Option<usize> {
        if self.json {
            return self.json_document().map(|(above, _)| above + 1);
        }
        let is_mark = |line: &str| line == "---" || line.starts_with("--- ");
        let is_content = |line: &str| !line.trim().is_empty() && !line.starts_with(['#', '%']);
        let first = self.text.lines().position(is_content)?;
        let unmarked = self.text.lines().nth(first).is_some_and(|line| !is_mark(line));
        let marks =
            self.text.lines().enumerate().filter(|(_, line)| is_mark(line)).map(|(index, _)| index + 2);
        let mut starts = unmarked.then_some(first + 1).into_iter().chain(marks);
        starts.nth(self.document - 1)
    }

    fn error(&self, why: String, line: Option<usize>, identity: Option<Identity>) -> ReadError {
        ReadError { file: self.file.to_owned(), document: self.document, line, why, identity }
    }
}

fn items_of(kind: &str, value: &Value) -> Option<Vec<Value>> {
    let items = value.get("items").filter(|_| kind.ends_with("List"))?;
    Some(items.as_array().cloned().unwrap_or_default())
}

fn identity(kind: &str, value: &Value) -> Identity {
    let word = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespace = match kind {
        "Node" | "Namespace" => String::new(),
        _ => Some(word("/metadata/namespace")).filter(|it| !it.is_empty()).unwrap_or("default".into()),
    };
    Identity { kind: kind.into(), name: ObjectName { namespace, name: word("/metadata/name") } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n";

    fn names(reading: &Reading) -> Vec<String> {
        reading.objects.iter().map(|it| it.identity().to_string()).collect()
    }

    #[test]
    fn documents_lists_and_unknown_kinds() {
        let list = "kind: ServiceList\napiVersion: v1\nitems:\n- metadata: {name: in-list}\n  spec: {ports: [{port: 1}]}\n";
        let text =
            format!("---\n{SERVICE}---\n# nothing\n---\n{list}---\napiVersion: apps/v1\nkind: Deployment\n");
        let reading = parse("a.yaml", &text);
        assert_eq!(reading.errors, []);
        assert_eq!(names(&reading), ["Service default/web", "Service default/in-list"]);
        let skipped: Vec<String> = reading.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            skipped,
            ["a.yaml, document 4: skipped apps/v1 Deployment, a kind that nlb does not read"]
        );
    }

    #[test]
    fn errors_name_document_and_line() {
        let text = format!(
            "{SERVICE}---\napiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations:\n    a: true\n---\n{SERVICE}"
        );
        let reading = parse("a.yaml", &text);
        assert_eq!(names(&reading).len(), 2);
        assert!(!reading.broken_off);
        let error = &reading.errors[0];
        assert_eq!((error.document, error.line), (2, Some(6)), "{error}");
        assert_eq!(error.identity.as_ref().unwrap().to_string(), "Service default/x");
    }

    #[test]
    fn every_error_names_a_line() {
        let json = |name: &str, port: &str| {
            format!(
                "{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\n\"metadata\":{{\"name\":\"{name}\"}},\n\"spec\":{{\"ports\":[{{\"port\":{port}}}]}}}}"
            )
        };
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: x}]}}\n";
        let rows = [
            (json("a", "\"x\""), 1, 3, "invalid type"),
            (format!("\n{}\n{}", json("a", "1"), json("b", "\"x\"")), 2, 7, "invalid type"),
            ("{\"a\":1}".into(), 1, 1, "no `kind`"),
            (format!("{SERVICE}---\nfoo: 1\n"), 2, 6, "no `kind`"),
            (list.into(), 1, 1, "Service default/b: invalid type"),
        ];
        for (text, document, line, why) in rows {
            let error = &parse("-", &text).errors[0];
            assert_eq!((error.document, error.line), (document, Some(line)), "{error}");
            assert!(error.why.contains(why), "{error}");
        }
    }

    #[test]
    fn merge_keys_and_a_byte_order_mark_are_read_as_kubectl_does() {
        let text = SERVICE.replace("metadata: {", "metadata: {<<: {namespace: other}, ");
        let reading = parse("a.yaml", &format!("\u{feff}{text}"));
        assert_eq!(reading.errors, []);
        assert_eq!(names(&reading), ["Service other/web"]);
    }

    #[test]
    fn a_syntax_error_ends_the_text() {
        let reading = parse("a.yaml", &format!("{SERVICE}---\nkind: [\n"));
        assert!(reading.broken_off);
        assert_eq!(reading.errors[0].document, 2);
        assert!(parse("a.yaml", "a: 1\na: 2\n").broken_off);
        assert!(parse("a.json", "{\"kind\":").broken_off);
    }

    #[test]
    fn json_documents_follow_each_other() {
        let one =
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80}]}}"#;
        assert_eq!(names(&parse("-", &format!("{one}\n{one}"))).len(), 2);
        assert_eq!(names(&parse("x.yaml", "{apiVersion: v1, kind: Node, metadata: {name: n}}")), ["Node n"]);
    }
}
