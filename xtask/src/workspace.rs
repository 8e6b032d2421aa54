//! Where things are in this working copy.

use std::path::{Path, PathBuf};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace").to_owned()
}

/// Cargo's output folder, also where `CARGO_TARGET_DIR` moves it.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The eBPF object, without DWARF: what the agent carries inside.
pub(crate) fn object() -> PathBuf {
    target().join("bpf/nlb.o")
}

/// A debug build of the agent whose maps have another layout.
pub(crate) fn other_agent() -> PathBuf {
    target().join("other-layout/nlb-agent")
}

/// The release build of the agent.
pub(crate) fn agent() -> PathBuf {
    target().join("release/nlb-agent")
}
