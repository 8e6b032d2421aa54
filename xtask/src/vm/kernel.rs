//! A kernel to boot: Debian 12's package, fetched once and kept in `target/vm`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::Lists;
use super::folder;
use crate::command::{command, run};

/// Debian's 6.1 for virtual machines: the package's name around the number that rises with each break of the ABI.
const PACKAGE: (&str, &str) = ("linux-image-6.1.0-", "-cloud-amd64");

/// What to do where it cannot be had.
const REMEDY: &str = "install apt and debian-archive-keyring, or put linux-image-6.1.0-NN-cloud-amd64_VERSION_amd64.deb \
                      from https://deb.debian.org/debian/pool/main/l/linux-signed-amd64/ into target/vm";

/// An unpacked kernel.
pub(super) struct Kernel {
    /// What qemu boots.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

/// Why there is no such kernel for this machine, if so.
pub(super) fn absence() -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!("it boots a kernel for x86_64, and this machine is {}", std::env::consts::ARCH));
    }
    let is_known =
        kept().is_some() || Lists::of_debian_are_possible() || newest(&Lists::of_this_machine()).is_some();
    (!is_known).then(|| {
        format!("it boots Debian 12's kernel 6.1, which this machine's package sources do not have: {REMEDY}")
    })
}

/// The kernel, from `target/vm` or else from the distribution.
pub(super) fn fetched() -> Result<Kernel> {
    let package = match kept() {
        Some(package) => package,
        None => download()?,
    };
    let unpacked = package.with_extension("");
    if !unpacked.is_dir() {
        unpack(&package, &unpacked)?;
    }
    found(&unpacked).with_context(|| format!("{} is not whole: remove it", unpacked.display()))
}

/// The newest package that was fetched before.
fn kept() -> Option<PathBuf> {
    let files = std::fs::read_dir(folder()).ok()?.flatten().map(|file| file.path());
    let number = |file: &PathBuf| {
        let name = file.file_name()?.to_str()?.strip_suffix(".deb")?;
        abi(name.split('_').next()?)
    };
    files.filter(|file| number(file).is_some()).max_by_key(number)
}

/// The number in a package's name.
fn abi(package: &str) -> Option<u32> {
    package.strip_prefix(PACKAGE.0)?.strip_suffix(PACKAGE.1)?.parse().ok()
}

/// The newest such package in these lists.
fn newest(lists: &Lists) -> Option<String> {
    lists.names(PACKAGE.0).into_iter().filter(|name| abi(name).is_some()).max_by_key(|name| abi(name))
}

fn download() -> Result<PathBuf> {
    std::fs::create_dir_all(folder()).with_context(|| format!("cannot make {}", folder().display()))?;
    // Half a download must not look like a kernel.
    let aside = tempfile::tempdir_in(folder()).context("no folder for the download")?;
    let from = |lists: &Lists| -> Result<()> {
        let package = newest(lists).context("no package of kernel 6.1")?;
        println!("fetching {package}");
        lists.download(&package, aside.path())
    };
    // This machine's lists may be empty, or name files that are gone; then Debian is asked itself.
    from(&Lists::of_this_machine())
        .or_else(|_| from(&Lists::of_debian()?))
        .with_context(|| format!("the kernel cannot be fetched: {REMEDY}"))?;
    let files = std::fs::read_dir(aside.path()).context("the download is gone")?.flatten();
    let file = files.map(|file| file.path()).find(|file| file.extension().is_some_and(|end| end == "deb"));
    let file = file.context("apt-get download left no file")?;
    let wanted = folder().join(file.file_name().expect("a file in a folder has a name"));
    std::fs::rename(&file, &wanted).with_context(|| format!("cannot write {}", wanted.display()))?;
    Ok(wanted)
}

fn unpack(package: &Path, wanted: &Path) -> Result<()> {
    let aside = tempfile::tempdir_in(folder()).context("no folder to unpack in")?;
    run(command("dpkg-deb", ["--extract"]).arg(package).arg(aside.path()))?;
    std::fs::rename(aside.path(), wanted).with_context(|| format!("cannot write {}", wanted.display()))
}

fn found(unpacked: &Path) -> Result<Kernel> {
    let modules = only(&unpacked.join("lib/modules"))?;
    let release = modules.file_name().expect("a folder in a folder has a name").to_string_lossy();
    let image = unpacked.join(format!("boot/vmlinuz-{release}"));
    Ok(Kernel { image, modules })
}

/// What is alone in a folder.
fn only(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries = entries.flatten().map(|entry| entry.path());
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) | (Some(_), Some(_)) => bail!("{} holds not one entry", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_for_virtual_machines_is_known_by_its_name() {
        assert_eq!(abi("linux-image-6.1.0-56-cloud-amd64"), Some(56));
        for other in [
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-0.deb11.56-cloud-amd64",
            "linux-image-6.12.0-56-cloud-amd64",
        ] {
            assert_eq!(abi(other), None, "{other}");
        }
    }
}
