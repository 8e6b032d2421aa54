//! The state file: what a restarted agent must know and the maps do not hold.

use crate::vips::Allocations;
use crate::{health, slots};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// Addresses that Services were given.
    pub vips: Allocations,
    /// States, reasons and counts of targets.
    pub health: health::Saved,
    /// Which pod sits in which slot.
    pub slots: slots::Saved,
}

/// The file that belongs to an agent's socket: it lies beside it and, like it, does not outlive a reboot.
pub fn path(socket: &Path) -> PathBuf {
    socket.with_extension("state.json")
}

/// Reads the file; what is not there or cannot be understood is as if there were none, with a word in the log.
pub fn read(path: &Path) -> Saved {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Saved::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the state file cannot be read: targets begin anew");
            return Saved::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the state file is damaged: targets begin anew");
        Saved::default()
    })
}

/// Writes the file whole or not at all.
///
/// # Errors
/// The file system refused.
pub fn write(path: &Path, saved: &Saved) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let what = || format!("writing the state file {}", path.display());
    std::fs::write(&beside, serde_json::to_vec(saved)?).with_context(what)?;
    std::fs::rename(&beside, path).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("agent.sock"));
        assert_eq!(read(&path), Saved::default());
        let slot = slots::SavedSlot { slot: 3, generation: 7, uid: Some("u".into()), incarnation: 1 };
        let saved = Saved { slots: slots::Saved { slots: vec![slot] }, ..Saved::default() };
        write(&path, &saved).unwrap();
        assert_eq!(read(&path), saved);
        std::fs::write(&path, b"{ half").unwrap();
        assert_eq!(read(&path), Saved::default());
    }
}
