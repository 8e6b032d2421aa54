//! What this process may do, and whether the pins have a BPF file system to live in.

use anyhow::Context as _;
use nix::sys::statfs::{FsType, statfs};
use std::path::{Path, PathBuf};

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11_u32 as _);

/// The effective capabilities, one bit each (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Those of this process.
    ///
    /// # Errors
    /// `/proc` is not mounted, or has no `CapEff` line.
    pub fn read() -> anyhow::Result<Self> {
        let path = "/proc/thread-self/status";
        let status = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        Self::parse(&status).with_context(|| format!("{path} has no CapEff line"))
    }

    fn parse(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// Names of those that nlb needs and has not; CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in the kernel.
    pub fn missing(self) -> Vec<&'static str> {
        let has = |bit: u32| self.0 & (1 << bit) != 0;
        let needed = [
            ("CAP_BPF", has(BPF) || has(SYS_ADMIN)),
            ("CAP_NET_ADMIN", has(NET_ADMIN)),
            ("CAP_PERFMON", has(PERFMON) || has(SYS_ADMIN)),
        ];
        needed.into_iter().filter_map(|(name, held)| (!held).then_some(name)).collect()
    }
}

/// The folder of the pins and what file system it is, or would be, made on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinPlace {
    /// As given by `--pin-path`.
    pub path: PathBuf,
    /// True if it is, or its nearest existing parent is, on a BPF file system.
    pub on_bpffs: bool,
}

impl PinPlace {
    /// Looks at the nearest ancestor that exists.
    ///
    /// # Errors
    /// Not even `/` can be looked at.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let absolute = std::path::absolute(path).with_context(|| format!("pin path {}", path.display()))?;
        let there =
            absolute.ancestors().find(|ancestor| ancestor.exists()).context("no file system at all")?;
        let kind = statfs(there).with_context(|| format!("statfs {}", there.display()))?.filesystem_type();
        Ok(Self { path: path.to_owned(), on_bpffs: kind == BPF_FS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_that_is_missing_is_named() {
        let all = Capabilities(1 << BPF | 1 << NET_ADMIN | 1 << PERFMON);
        assert_eq!(all.missing(), Vec::<&str>::new());
        assert_eq!(Capabilities(0).missing(), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(Capabilities(1 << SYS_ADMIN).missing(), ["CAP_NET_ADMIN"]);
        assert_eq!(Capabilities(1 << BPF | 1 << NET_ADMIN).missing(), ["CAP_PERFMON"]);
    }

    #[test]
    fn the_effective_set_is_read_and_no_other() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\n";
        assert_eq!(Capabilities::parse(status), Some(Capabilities(1 << NET_ADMIN)));
        assert_eq!(Capabilities::parse("Name:\tx\n"), None);
        assert!(Capabilities::read().is_ok());
    }

    #[test]
    fn a_folder_on_another_file_system_is_no_pin_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = PinPlace::read(&folder.path().join("not/there/yet")).unwrap();
        assert!(!place.on_bpffs);
    }
}
