//! `cargo xtask setup`: brings a machine to where everything else works; doing it again changes nothing.

mod packages;
pub(crate) mod toolchain;

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{command, is_root, run};

/// Everything that any other command needs.
pub(crate) fn setup() -> Result<()> {
    println!("setup");
    packages::install()?;
    toolchain::install_components()?;
    toolchain::install_source()?;
    toolchain::install_linker()?;
    toolchain::install_deny()?;
    mount_bpffs()?;
    println!("  done  ready for `cargo xtask demo` and `cargo xtask test`");
    Ok(())
}

/// What a build needs; silent and quick where all is there.
pub(crate) fn for_build() -> Result<()> {
    if toolchain::compiler().is_some() && toolchain::linker().is_some() && llvm_strip().exists() {
        return Ok(());
    }
    println!("setup, for the build");
    packages::install()?;
    toolchain::install_source()?;
    toolchain::install_linker()
}

/// What a run in namespaces needs.
pub(crate) fn for_namespaces() -> Result<()> {
    packages::install()?;
    mount_bpffs()
}

/// The program that takes debug information off the object.
pub(crate) fn llvm_strip() -> std::path::PathBuf {
    toolchain::llvm_prefix().join("bin/llvm-strip")
}

/// Pins live in a bpffs, which a container or an old init may not have mounted.
fn mount_bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        println!("  have  bpffs at /sys/fs/bpf");
    } else if !is_root() || !Path::new("/sys/fs/bpf").exists() {
        println!("  need  bpffs: as root, mount -t bpf bpf /sys/fs/bpf");
    } else {
        run(&mut command("mount", ["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
        println!("  done  mounted bpffs at /sys/fs/bpf");
    }
    Ok(())
}
