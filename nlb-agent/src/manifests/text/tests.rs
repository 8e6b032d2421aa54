//! What kubectl's own parser says, row by row, and what a tree becomes as a type.

use super::node::{Kind, Node};
use super::*;
use serde_json::{Value, json};

fn value(node: &Node<'_>) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value, _) => json!(value),
        Kind::Int(value, _) => json!(value),
        Kind::UInt(value, _) => json!(value),
        Kind::Float(value, _) => json!(value),
        Kind::Text(text) => json!(text),
        Kind::List(items) => items.iter().map(value).collect(),
        Kind::Map(map) => map.iter().map(|(key, it)| (key.to_string(), value(&it.value))).collect(),
    }
}

/// Every document of a text as JSON.
fn read(text: &str) -> Vec<Result<Value, Broken>> {
    let all = segments(text);
    let documents = all.iter().flat_map(|segment| documents("test.yaml", text, segment));
    documents.map(|it| it.map(|document| value(&document.root))).collect()
}

/// Numbers that differ in how they are written alone are the same.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, it)| other.get(key).is_some_and(|other| alike(it, other)))
        }
        _ => one == other,
    }
}

#[test]
fn every_row_is_read_as_kubectl_reads_it() {
    let rows = include_str!("kubectl.tsv").lines().filter(|line| !line.starts_with("# "));
    let mut count = 0;
    for row in rows {
        let (text, wanted) = row.split_once('\t').unwrap();
        let text: String = serde_json::from_str(text).unwrap();
        let found = read(&text);
        if wanted == "error" {
            assert!(found.iter().any(Result::is_err), "{text:?} is {found:?}, and kubectl refuses it");
        } else {
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            let first = found.first().cloned().unwrap_or(Ok(Value::Null));
            let first = first.unwrap_or_else(|broken| panic!("{text:?} is {broken:?}, not {wanted}"));
            assert!(alike(&first, &wanted), "{text:?} is {first}, not {wanted}");
        }
        count += 1;
    }
    assert!(count > 400, "{count}");
}

/// YAML 1.2 allows these, and nobody can mean anything else by them.
#[test]
fn some_texts_are_read_that_kubectl_refuses() {
    let rows = [
        ("%YAML 1.2\n---\na: yes\n", json!({"a": true})),
        ("\ta: b", json!({"a": "b"})),
        ("a: \"\\/\"", json!({"a": "/"})),
        ("a: \"\\ud83d\\ude00\"", json!({"a": "\u{1f600}"})),
        ("%FOO bar\n---\na: 1\n", json!({"a": 1})),
    ];
    for (text, wanted) in rows {
        assert_eq!(read(text), [Ok(wanted)], "{text:?}");
    }
    let two = read("a: x\n...\nb: z\n");
    assert_eq!(two, [Ok(json!({"a": "x"})), Ok(json!({"b": "z"}))]);
}

#[test]
fn json_is_read_as_json() {
    let text = "{\"a\":\t80.0, \"b\": 1e3, \"c\": 0.5, \"d\": \"\\ud83d\\ude00\\/\", \"e\": null, \"a\": 2}\n{\"x\": [true]}";
    let wanted =
        [Ok(json!({"a": 2, "b": 1000, "c": 0.5, "d": "\u{1f600}/", "e": null})), Ok(json!({"x": [true]}))];
    assert_eq!(read(text), wanted);
    // What follows JSON and is none is YAML, as for kubectl.
    assert_eq!(read("{\"a\": 1}\n# a comment\n"), [Ok(json!({"a": 1}))]);
    assert_eq!(read("{a: 1, }"), [Ok(json!({"a": 1}))]);
    let broken = documents("a.json", "{\"a\": 1}\n{\"b\":\n", &segments("{\"a\": 1}\n{\"b\":\n")[0]);
    assert!(broken[0].is_ok() && broken[1].as_ref().is_err_and(|it| it.why.contains("EOF")), "{broken:?}");
}

#[test]
fn nesting_and_aliases_have_bounds() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), format!("{{\"a\":{}", "[".repeat(100_000))] {
        assert!(read(&text).iter().all(Result::is_err));
    }
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(120), "]".repeat(120));
    assert!(read(&deep).iter().all(Result::is_ok));
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let found = read(&laughs);
    assert!(found[0].as_ref().is_err_and(|it| it.why.contains("aliases")), "{:?}", found.len());
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100_000].join(","));
    assert!(read(&long)[0].is_err());
}

#[test]
fn a_key_that_is_given_twice_is_told_with_both_places() {
    let text = "m:\n  a: 1\n  b: 2\n  a: {}\nl:\n- x\n- {k: 1, k: 2}\n";
    let document = documents("x", text, &segments(text)[0]).remove(0).unwrap();
    let told: Vec<String> = document
        .duplicates
        .iter()
        .map(|it| {
            let lines = it.at.map(|at| Lines::of(text).line(at));
            format!("{} {} {lines:?} {:?}", it.path.join("/"), it.key, it.values)
        })
        .collect();
    assert_eq!(told, [r#"m a [2, 4] ["`1`", "a map"]"#, r#"l/1 k [7, 7] ["`1`", "`2`"]"#]);
    for text in ["m: {<<: {a: 1}, a: 2}", "x: &x {a: 1}\nm: {a: 2, <<: *x}", "a: {b: 1}\nc: {b: 1}"] {
        let document = documents("x", text, &segments(text)[0]).remove(0).unwrap();
        assert_eq!(document.duplicates, [], "{text}");
    }
    let json = "{\"m\": {\n\"a\": 1,\n\"a\": 2}}";
    let document = documents("x.json", json, &segments(json)[0]).remove(0).unwrap();
    assert_eq!(document.duplicates[0].at.map(|at| Lines::of(json).line(at)), [2, 3]);
}
