//! The Rust toolchain: components, library source for `build-std`, bpf-linker, cargo-deny.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::{LLVM, install_extra};
use crate::command::{cargo, command, find, output, run};

/// The linker's version: the first that goes with LLVM 22 and this toolchain.
const LINKER: &str = "0.13.0";
const DENY: &str = "^0.18";

/// A compiler together with its library's source.
pub(crate) struct Compiler {
    /// `None`: the one cargo uses anyway.
    rustc: Option<PathBuf>,
    /// For people: which one was taken.
    pub(crate) name: String,
    /// Where its library is; paths below it end up in debug information.
    pub(crate) sysroot: PathBuf,
}

impl Compiler {
    /// True if it is the active toolchain's, which alone has a clippy that fits.
    pub(crate) fn is_active(&self) -> bool {
        self.rustc.is_none()
    }

    /// Makes `cargo` use this compiler.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
    }
}

/// The first compiler here that has its library's source: the active toolchain's, else the distribution's.
pub(crate) fn compiler() -> Option<Compiler> {
    let active = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    with_source(&active, None).or_else(|| {
        let debian = Path::new("/usr/bin/rustc");
        with_source(debian, Some(debian.to_owned()))
    })
}

fn with_source(rustc: &Path, chosen: Option<PathBuf>) -> Option<Compiler> {
    let sysroot = PathBuf::from(output(&mut command(rustc, ["--print", "sysroot"])).ok()?.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        return None;
    }
    let version = output(&mut command(rustc, ["--version"])).ok()?;
    Some(Compiler { rustc: chosen, name: version.trim().to_owned(), sysroot })
}

/// The library source for the active toolchain, or else the distribution's compiler with its source.
pub(crate) fn install_source() -> Result<()> {
    if compiler().is_none() {
        let added = find("rustup")
            .is_some_and(|rustup| run(&mut command(rustup, ["component", "add", "rust-src"])).is_ok());
        if added && compiler().is_some() {
            println!("  done  rustup component rust-src");
        } else {
            println!("  ....  rustup cannot fetch rust-src; taking rustc-web and rust-web-src");
            if !install_extra(&["rustc-web", "rust-web-src"])? {
                bail!(
                    "run `rustup component add rust-src`, or as root: apt-get install rustc-web rust-web-src"
                );
            }
        }
    }
    let compiler = compiler().context("the library's source is still missing after its installation")?;
    println!("  have  library source of {}", compiler.name);
    llvm_fits(&compiler)
}

/// bpf-linker reads what rustc's LLVM wrote, so its own must not be older.
fn llvm_fits(compiler: &Compiler) -> Result<()> {
    let rustc = compiler.rustc.clone().unwrap_or_else(|| "rustc".into());
    let version = output(&mut command(rustc, ["-vV"]))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or_default();
    let major: u32 = llvm.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major > LLVM {
        bail!(
            "{} carries LLVM {major}, bpf-linker is built with {LLVM}: use Rust 1.95 to 1.97",
            compiler.name
        );
    }
    Ok(())
}

/// rustfmt and clippy of the active toolchain.
pub(crate) fn install_components() -> Result<()> {
    for (component, program) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if output(&mut cargo([program, "--version"])).is_ok() {
            continue;
        }
        let rustup = find("rustup")
            .with_context(|| format!("no cargo {program} and no rustup: install {component}"))?;
        run(&mut command(rustup, ["component", "add", component]))?;
        println!("  done  rustup component {component}");
    }
    println!("  have  rustfmt, clippy");
    Ok(())
}

/// A linker at least as new as ours, built on our LLVM.
pub(crate) fn install_linker() -> Result<()> {
    if linker().is_some() {
        println!("  have  bpf-linker");
        return Ok(());
    }
    println!("  ....  building bpf-linker {LINKER} with LLVM {LLVM} (about a minute)");
    let feature = format!("llvm-{LLVM}");
    let mut install = cargo(["install", "bpf-linker", "--locked", "--quiet", "--version", LINKER]);
    install.args(["--no-default-features", "--features", &feature]);
    install.env("LLVM_PREFIX", llvm_prefix());
    without_our_flags(&mut install);
    run(&mut install)?;
    linker().context("bpf-linker was installed, but is not in PATH nor in cargo's bin folder")?;
    println!("  done  bpf-linker {LINKER}");
    Ok(())
}

/// Where the linker is, if it is new enough.
pub(crate) fn linker() -> Option<PathBuf> {
    let linker = find("bpf-linker")?;
    let said = output(&mut command(&linker, ["--version"])).ok()?;
    is_at_least(said.split_whitespace().nth(1)?, LINKER).then_some(linker)
}

fn is_at_least(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    numbers(version) >= numbers(wanted)
}

/// The folder of our LLVM.
pub(crate) fn llvm_prefix() -> PathBuf {
    format!("/usr/lib/llvm-{LLVM}").into()
}

/// cargo-deny, which reads the licences of all dependencies.
pub(crate) fn install_deny() -> Result<()> {
    if output(&mut cargo(["deny", "--version"])).is_ok() {
        println!("  have  cargo-deny");
        return Ok(());
    }
    println!("  ....  building cargo-deny (some minutes, once)");
    let mut install = cargo(["install", "cargo-deny", "--locked", "--quiet", "--version", DENY]);
    // Only its licence check is wanted: the default features bring a TLS stack and a git client.
    without_our_flags(&mut install);
    run(&mut install)?;
    println!("  done  cargo-deny");
    Ok(())
}

/// Tools are built as their authors meant, not with flags for our own code.
fn without_our_flags(install: &mut Command) {
    install.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
}

#[cfg(test)]
mod tests {
    use super::is_at_least;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_at_least("0.13.0", "0.13.0"));
        assert!(is_at_least("0.13.10", "0.13.9"));
        assert!(is_at_least("1.0.0", "0.13.0"));
        assert!(!is_at_least("0.9.13", "0.13.0"));
        assert!(!is_at_least("0.10.3", "0.13.0"));
    }
}
