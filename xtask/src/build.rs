//! `cargo xtask build-ebpf` and `cargo xtask build`.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, run};
use crate::ebpf;
use crate::workspace;

/// The environment variable by which the agent's build script learns where the object is.
pub(crate) const OBJECT: &str = "NLB_EBPF_OBJECT";

/// The environment variable that names the agent to be shown and tested, if not the release build.
pub(crate) const AGENT: &str = "NLB_AGENT";

/// The object alone.
pub(crate) fn build_ebpf() -> Result<()> {
    let object = ebpf::build()?;
    let size = std::fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
    println!("{} ({size} bytes)", object.display());
    Ok(())
}

/// The object, and the agent with the object inside.
pub(crate) fn build() -> Result<()> {
    ebpf::build()?;
    release(&["--package", "nlb-agent"])?;
    println!("{}", workspace::agent().display());
    Ok(())
}

/// A release build over the object that is there; always with the same environment, so that nothing is compiled twice.
pub(crate) fn release(what: &[&str]) -> Result<()> {
    let mut build = cargo(["build", "--release", "--locked"]);
    build.args(what).env(OBJECT, workspace::object());
    if let Some(commit) = commit() {
        build.env("NLB_COMMIT", commit);
    }
    run(&mut build)
}

/// The environment variable that names an agent whose maps have another layout, for the test that replaces it.
pub(crate) const OTHER_AGENT: &str = "NLB_OTHER_AGENT";

/// The same source as an agent of another layout, over the object that is there; moved away from where the usual one is.
pub(crate) fn agent_of_another_layout() -> Result<()> {
    if std::env::var_os(OTHER_AGENT).is_some_and(|agent| !agent.is_empty()) {
        return Ok(());
    }
    let mut build = cargo(["build", "--locked", "--package", "nlb-agent", "--features", "other-layout"]);
    build.env(OBJECT, workspace::object());
    run(&mut build)?;
    let (built, wanted) = (workspace::target().join("debug/nlb-agent"), workspace::other_agent());
    let folder = wanted.parent().expect("it lies in a folder");
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::rename(&built, &wanted).with_context(|| format!("cannot move {}", built.display()))
}

/// The commit that `nlb-agent version` names; `None` outside a checkout.
fn commit() -> Option<String> {
    let said = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(workspace::root())
        .output()
        .ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// What the demo and the tests need: all, or only the object where the user names an agent, such as a debug build.
pub(crate) fn agent_for_tests() -> Result<()> {
    if agent().is_some() { build_ebpf() } else { build() }
}

/// The agent that the user names.
pub(crate) fn agent() -> Option<OsString> {
    std::env::var_os(AGENT).filter(|agent| !agent.is_empty())
}
