//! Scene 6: what the maps hold, as bpftool shows it, with the names of the fields.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::stage::Stage;
use crate::command::{command, output};

/// The maps that are shown: what a packet meets on its way, and back.
const SHOWN: [&str; 3] = ["listeners", "slots", "targets"];

/// Dumps an entry of each map.
pub(crate) fn show(stage: &Stage, claims: &Claims) -> Result<()> {
    claims.title("What the kernel holds: bpftool map dump");
    for name in SHOWN {
        let pin = stage.agent.pins().join(name);
        println!("\n  $ bpftool map dump pinned {}", pin.display());
        let entries = dump(&pin)?;
        let used = entries.iter().filter(|entry| !is_zero(&entry["value"]));
        let found = used.clone().next().map(text).transpose()?;
        let shown = found.clone().unwrap_or_default();
        shown.lines().for_each(|line| println!("    {line}"));
        println!("    … {} entries in use", used.count());
        let named = found.is_some_and(|_| entries.iter().any(|entry| is_named(&entry["value"])));
        claims.claim(&format!("{name} shows its fields by name"), named, format!("{shown:?}"))?;
    }
    Ok(())
}

/// The entries, by field name where the map has BTF.
fn dump(pin: &Path) -> Result<Vec<Value>> {
    let said = output(command("bpftool", ["--json", "map", "dump", "pinned"]).arg(pin))?;
    let entries: Vec<Value> = serde_json::from_str(&said).context("bpftool prints no JSON list")?;
    // Beside the bytes, bpftool puts what they mean under `formatted`.
    Ok(entries
        .into_iter()
        .map(|mut entry| entry.get_mut("formatted").map_or(Value::Null, Value::take))
        .collect())
}

fn text(entry: &Value) -> Result<String> {
    serde_json::to_string_pretty(&short(entry)).context("an entry cannot be written")
}

/// Lists of plain numbers are joined: an address takes a line, not sixteen.
fn short(value: &Value) -> Value {
    match value {
        Value::Array(items) if items.iter().all(Value::is_number) => {
            Value::String(items.iter().map(Value::to_string).collect::<Vec<_>>().join(" "))
        }
        Value::Array(items) => Value::Array(items.iter().map(short).collect()),
        Value::Object(fields) => Value::Object(
            fields.iter().map(|(name, field)| (name.clone(), short(field))).collect::<Map<_, _>>(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// An array's entry that nobody has written yet.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(items) => items.iter().all(is_zero),
        Value::Object(fields) => fields.values().all(is_zero),
        Value::Null => true,
        Value::Bool(_) | Value::String(_) => false,
    }
}

fn is_named(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| !fields.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn untouched_entries_are_told_from_used_ones() {
        assert!(is_zero(&json!({ "target": { "bytes": [0, 0] }, "port": 0 })));
        assert!(!is_zero(&json!({ "target": { "bytes": [0, 7] }, "port": 0 })));
    }

    #[test]
    fn addresses_take_one_line() {
        assert_eq!(
            short(&json!({ "a": { "bytes": [10, 0, 0, 1] } })),
            json!({ "a": { "bytes": "10 0 0 1" } })
        );
    }
}
