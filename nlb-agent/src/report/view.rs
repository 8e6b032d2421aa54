//! One answer of the agent: JSON for programs, a table for people.

use super::{Page, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One answer of the agent.
pub trait View: Serialize + DeserializeOwned + Send {
    /// Where the agent's socket serves it.
    const PATH: &'static str;

    /// The part of a snapshot that it shows, sorted.
    fn of(snapshot: Snapshot) -> Self;

    /// The table, with a line above that says what it is and lines below that say what to do.
    fn table(&self, page: &Page) -> String;

    /// The JSON of the contract, with a line feed at the end.
    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with string keys") + "\n"
    }
}
