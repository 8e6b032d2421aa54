//! Everything that a user or a machine can get wrong: each is said with object, field and value, and the good Service beside it goes on.

mod checks;
mod machine;
mod objects;

use serde_json::Value;

/// A problem's sentence.
fn message(problem: &Value) -> &str {
    problem["message"].as_str().unwrap_or_default()
}
