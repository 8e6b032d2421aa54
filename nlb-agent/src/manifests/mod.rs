//! Kubernetes objects from YAML and JSON files instead of an API server, with that server's defaults and validation.

mod documents;
mod file;
mod folder;
mod names;
mod server;
mod text;
mod tree;
mod watch;
mod writer;

pub use documents::{ReadError, Reading, Refused, Skipped, parse};
pub use folder::{FolderIdentity, Known};
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

/// A Service as it is written, without an API server's defaults and validation.
#[cfg(test)]
pub(crate) fn service(text: &str) -> k8s_openapi::api::core::v1::Service {
    let segment = text::segments(text).remove(0);
    let document = text::documents("test", text, &segment).remove(0).unwrap();
    text::decode(&document.root).unwrap()
}
