//! `cargo xtask check`: formatting, lints, documentation, licences, of the kernel's half too.

use anyhow::{Context, Result};

use crate::build::OBJECT;
use crate::command::{cargo, run};
use crate::setup::toolchain;
use crate::{ebpf, workspace};

/// Stops at the first check that fails.
pub(crate) fn check() -> Result<()> {
    toolchain::install_components()?;
    toolchain::install_deny()?;
    println!("check: formatting");
    run(&mut cargo(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    let manifest = workspace::root().join("nlb-ebpf/Cargo.toml");
    run(cargo(["fmt", "--check", "--manifest-path"]).arg(&manifest))
        .context("run `cargo fmt` in nlb-ebpf")?;
    println!("check: lints");
    // The agent includes the object, so it must be there before the agent is looked at.
    let object = ebpf::build()?;
    let mut clippy =
        cargo(["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    run(clippy.env(OBJECT, &object))?;
    if toolchain::compiler().is_some_and(|compiler| compiler.is_active()) {
        let mut clippy = ebpf::cargo_for_bpf("clippy")?;
        run(clippy.args(["--release", "--target-dir"]).arg(workspace::target().join("ebpf")))?;
    } else {
        println!("  left out: nlb-ebpf, for want of rustup's rust-src; its build takes no warning either");
    }
    println!("check: documentation");
    let mut doc = cargo(["doc", "--quiet", "--locked", "--workspace", "--no-deps"]);
    run(doc.env(OBJECT, &object).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    println!("check: licences");
    run(&mut cargo(["deny", "--log-level", "error", "check", "licenses"]))?;
    run(cargo(["deny", "--log-level", "error", "--manifest-path"])
        .arg(&manifest)
        .args(["check", "licenses"]))?;
    println!("check: all clean");
    Ok(())
}
