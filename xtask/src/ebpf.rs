//! Builds the eBPF object with the flags that aya-build would lose: CPU v3, BTF, no byte loops.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, command, run};
use crate::setup::{self, toolchain};
use crate::workspace::{object, root, target};

const TARGET: &str = "bpfel-unknown-none";

/// Builds `target/bpf/nlb.o`; touches it only when its bytes change, so that the agent is not rebuilt for nothing.
pub(crate) fn build() -> Result<PathBuf> {
    build_binary("nlb", &[], object())
}

/// Builds `target/bpf/bench.o`: the same data path in programs that can be measured.
pub(crate) fn build_bench() -> Result<PathBuf> {
    build_binary("bench", &["--features", "bench"], object().with_file_name("bench.o"))
}

fn build_binary(name: &str, features: &[&str], wanted: PathBuf) -> Result<PathBuf> {
    setup::for_build()?;
    let built = compile(name, features)?;
    let folder = wanted.parent().expect("the object lies in a folder");
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let stripped = wanted.with_extension("o.new");
    strip(&built, &stripped)?;
    replace_if_different(&stripped, &wanted)?;
    Ok(wanted)
}

fn compile(name: &str, features: &[&str]) -> Result<PathBuf> {
    let folder = target().join("ebpf");
    let mut build = cargo_for_bpf("build")?;
    build.args(["--release", "--bin", name]).args(features).arg("--target-dir").arg(&folder);
    run(&mut build).context("the eBPF object does not build")?;
    Ok(folder.join(TARGET).join("release").join(name))
}

/// A cargo command on the eBPF crate, with its target, compiler and flags.
pub(crate) fn cargo_for_bpf(verb: &str) -> Result<Command> {
    let compiler = toolchain::compiler().context("no library source: run `cargo xtask setup`")?;
    let linker = toolchain::linker().context("no bpf-linker: run `cargo xtask setup`")?;
    let mut cargo =
        cargo([verb, "--quiet", "--locked", "--package", "nlb-ebpf", "--target", TARGET, "-Zbuild-std=core"]);
    cargo.arg("--manifest-path").arg(root().join("nlb-ebpf/Cargo.toml"));
    compiler.apply(&mut cargo);
    // `build-std` is unstable, but a stable compiler of a known version does it well.
    cargo.env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&linker, &compiler.sysroot).join("\x1f"));
    Ok(cargo)
}

fn flags(linker: &Path, sysroot: &Path) -> Vec<String> {
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    vec![
        format!("-Clinker={}", linker.display()),
        // The default is v1; v3 has 32-bit jumps and atomics, and loads from 5.10 on.
        "-Ctarget-cpu=v3".into(),
        // Without it each memset and memcpy becomes a loop over bytes.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
        "-Clink-arg=--btf".into(),
        // BTF is made from debug information.
        "-Cdebuginfo=2".into(),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "--check-cfg=cfg(bpf_target_arch,values(any()))".into(),
        "-Dwarnings".into(),
        // BTF keeps source paths: the object must not depend on where it was built.
        format!("--remap-path-prefix={}=nlb", root().display()),
        format!("--remap-path-prefix={home}=cargo"),
        format!("--remap-path-prefix={}=rust", sysroot.display()),
    ]
}

/// DWARF is ten times the program; BTF stays.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let mut strip = command(setup::llvm_strip(), ["-g", "-o"]);
    run(strip.arg(to).arg(from))
}

fn replace_if_different(new: &Path, old: &Path) -> Result<()> {
    let bytes = std::fs::read(new).with_context(|| format!("cannot read {}", new.display()))?;
    if std::fs::read(old).is_ok_and(|before| before == bytes) {
        return std::fs::remove_file(new).with_context(|| format!("cannot remove {}", new.display()));
    }
    std::fs::rename(new, old).with_context(|| format!("cannot write {}", old.display()))
}
