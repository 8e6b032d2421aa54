//! The vm suite: tests of the kernel's half in the oldest kernel that nlb runs on, booted by qemu without hardware's help.

mod archive;
mod guest;
mod initramfs;
mod kernel;

use std::path::PathBuf;

use anyhow::Result;

use crate::command::find;
use crate::workspace::target;

/// The programs that fetch a kernel, pack what it runs, and boot it.
const TOOLS: &[&str] =
    &["qemu-system-x86_64", "busybox", "dpkg-deb", "ldd", "timeout", "ip", "tc", "bpftool"];

/// Why `all` does without the suite here: where the distribution has no such kernel. Debian has one, so there it must run.
pub(crate) fn left_out() -> Option<String> {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if is_debian(&system) { None } else { kernel::absence() }
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| line == "ID=debian" || line == "ID=\"debian\"")
}

/// Why the suite cannot run here, if so.
pub(crate) fn obstacle() -> Option<String> {
    let missing = || TOOLS.iter().find(|tool| find(tool).is_none());
    kernel::absence().or_else(|| Some(format!("it needs {}: run `cargo xtask setup`", missing()?)))
}

/// Boots the kernel with the tests inside and lets `hear` have each line that it prints; an error unless every test binary
/// ran to its end without a failure.
pub(crate) fn run(arguments: &[String], mut hear: impl FnMut(&str)) -> Result<()> {
    let kernel = kernel::fetched()?;
    let binaries = guest::binaries()?;
    let archive = initramfs::pack(&kernel, &binaries, &guest::script(arguments))?;
    guest::boot(&kernel.image, &archive, &mut hear)
}

/// Where kernels are kept, and what is packed for them.
fn folder() -> PathBuf {
    target().join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_told_from_what_is_like_it() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"));
        assert!(!is_debian("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n"));
    }
}
