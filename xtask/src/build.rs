//! `cargo xtask build-ebpf` and `cargo xtask build`.

use anyhow::{Context, Result};

use crate::command::{cargo, run};
use crate::ebpf;
use crate::workspace::agent;

/// The environment variable by which the agent's build script learns where the object is.
pub(crate) const OBJECT: &str = "NLB_EBPF_OBJECT";

/// The object alone.
pub(crate) fn build_ebpf() -> Result<()> {
    let object = ebpf::build()?;
    let size = std::fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
    println!("{} ({size} bytes)", object.display());
    Ok(())
}

/// The object, and the agent with the object inside.
pub(crate) fn build() -> Result<()> {
    let object = ebpf::build()?;
    run(cargo(["build", "--release", "--locked", "--package", "nlb-agent"]).env(OBJECT, object))?;
    println!("{}", agent().display());
    Ok(())
}
