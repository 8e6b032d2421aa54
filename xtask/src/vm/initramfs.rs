//! What the kernel finds when it has booted: programs with their libraries, modules, tests, and a script that runs them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use super::folder;
use super::guest::MODULES;
use super::kernel::Kernel;
use crate::command::{command, find, output, run};
use crate::setup::llvm_strip;
use crate::workspace::object;

/// The programs that the script and the tests call.
const PROGRAMS: &[&str] = &["busybox", "ip", "tc", "bpftool"];

/// Packs an initramfs.
pub(super) fn pack(kernel: &Kernel, tests: &[(String, PathBuf)], script: &str) -> Result<PathBuf> {
    let aside = tempfile::tempdir_in(folder()).context("no folder to pack in")?;
    let root = aside.path();
    for name in ["bin", "dev", "modules", "proc", "run", "sys", "tmp"] {
        fs::create_dir(root.join(name)).with_context(|| format!("cannot make {name}"))?;
    }
    symlink("busybox", root.join("bin/sh")).context("cannot make bin/sh")?;
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let program = find(name).with_context(|| format!("no {name}"))?;
        copy(&program, &root.join("bin").join(name))?;
        libraries.extend(libraries_of(&program)?);
    }
    for (name, binary) in tests {
        run(command(llvm_strip(), ["-o"]).arg(root.join("bin").join(name)).arg(binary))?;
        libraries.extend(libraries_of(binary)?);
    }
    for library in libraries {
        copy(&library, &within(root, &library))?;
    }
    modules(kernel, &root.join("modules"))?;
    copy(&object(), &root.join("nlb.o"))?;
    let init = root.join("init");
    fs::write(&init, script).context("cannot write the script")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .context("cannot permit the script to run")?;
    archive(root)
}

/// An absolute path below another root.
fn within(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().expect("a file lies in a folder");
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

/// The shared libraries of a program, its loader among them.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    // A static program is no failure, but ldd ends as if it were.
    let said = command("ldd", [program]).output().context("cannot start ldd")?;
    listed_libraries(&String::from_utf8_lossy(&said.stdout))
        .with_context(|| format!("{} lacks libraries", program.display()))
}

fn listed_libraries(said: &str) -> Result<Vec<PathBuf>> {
    ensure!(!said.contains("not found"), "{}", said.trim());
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn modules(kernel: &Kernel, to: &Path) -> Result<()> {
    let tree = output(command("find", ["-name", "*.ko"]).current_dir(&kernel.modules))?;
    for name in MODULES {
        let file = tree.lines().find(|path| path.ends_with(&format!("/{name}.ko")));
        let Some(file) = file else { bail!("the kernel has no module {name}") };
        copy(&kernel.modules.join(file), &to.join(name).with_extension("ko"))?;
    }
    Ok(())
}

fn archive(root: &Path) -> Result<PathBuf> {
    let names = output(command("find", ["."]).current_dir(root))?;
    let archive = folder().join("initramfs.cpio");
    let file = File::create(&archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut cpio = command("busybox", ["cpio", "-o", "-H", "newc"]);
    cpio.current_dir(root).stdin(Stdio::piped()).stdout(file).stderr(Stdio::null());
    let mut child = cpio.spawn().context("cannot start busybox cpio")?;
    let mut input = child.stdin.take().expect("standard input is piped");
    input.write_all(names.as_bytes()).context("busybox cpio does not listen")?;
    drop(input);
    ensure!(child.wait().context("cannot wait for busybox cpio")?.success(), "busybox cpio failed");
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibelf.so.1 => /lib/libelf.so.1 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        let wanted = ["/lib/libelf.so.1", "/lib64/ld.so.2"].map(PathBuf::from);
        assert_eq!(listed_libraries(said).unwrap(), wanted);
        assert!(listed_libraries("\tnot a dynamic executable\n").unwrap().is_empty());
        assert!(listed_libraries("\tlibelf.so.1 => not found\n").is_err());
    }
}
