//! Kubernetes objects from YAML and JSON files instead of an API server, with that server's defaults and validation.

mod documents;
mod names;
mod server;
mod tree;
mod watch;

pub use documents::{ReadError, Reading, Refused, Skipped, parse};
pub use tree::{Collected, collect, files, read_text};
pub use watch::{Sources, watch};

use crate::problem::{Effect, Problem, Severity};
use std::path::Path;

/// A Warning about a file or folder.
fn file_problem(path: &Path, reason: &str, message: String, effect: Effect) -> Problem {
    Problem {
        severity: Severity::Warning,
        object: format!("File {}", path.display()),
        field: None,
        value: None,
        reason: reason.into(),
        message,
        effect,
    }
}
