//! The running kernel: its release and what it can do for nlb.

use anyhow::Context as _;
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, SchedClassifier};
use serde::Serialize;
use std::fmt;

/// Major and minor number of a kernel release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// 6 of 6.18.44.
    pub major: u32,
    /// 18 of 6.18.44.
    pub minor: u32,
}

/// The oldest kernel that nlb runs on.
pub const OLDEST: Release = Release { major: 6, minor: 1 };
/// The first kernel with tcx.
const TCX: Release = Release { major: 6, minor: 6 };
/// The first kernel with `xdp.frags`.
const XDP_FRAGS: Release = Release { major: 5, minor: 18 };

impl Release {
    /// Of `uname -r`, whose tail (`.44-fc`, `-rc1`, `+`) is the distribution's own; `None` where it does not begin with two numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.trim().split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..end].parse().ok()? })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What this kernel can do; the names are those of `version -o json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// Programs at tcx; else they go to clsact.
    pub tcx: bool,
    /// XDP programs for frames of more than one page.
    pub xdp_frags: bool,
    /// BPF programs run as machine code; `false` only where the kernel says so.
    pub jit: bool,
}

/// The running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`, whole.
    pub name: String,
    /// Its first two numbers; `None` where they cannot be read.
    pub release: Option<Release>,
    /// What it can do.
    pub features: Features,
}

impl Kernel {
    /// Reads release and features. The tcx trial needs no privilege that would change its answer: without it, the release decides.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn read() -> anyhow::Result<Self> {
        let path = "/proc/sys/kernel/osrelease";
        let name =
            std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned();
        let release = Release::parse(&name);
        // Outside the first network namespace, and without root, the file is not there or not readable: then it is not judged.
        let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
        let features = features(release, tcx_trial(), jit.as_deref());
        Ok(Self { name, release, features })
    }
}

/// What a release promises, corrected by what was tried: a kernel may be built without tcx.
fn features(release: Option<Release>, tcx_trial: Option<bool>, jit: Option<&str>) -> Features {
    let since = |first: Release| release.is_some_and(|release| release >= first);
    Features {
        tcx: tcx_trial.unwrap_or_else(|| since(TCX)),
        xdp_frags: since(XDP_FRAGS),
        jit: jit.is_none_or(|value| value.trim() != "0"),
    }
}

/// Asks who is at tcx of the loopback device: `Some(false)` if the kernel does not know the question, `None` if it may not be asked.
fn tcx_trial() -> Option<bool> {
    let refused = match SchedClassifier::query_tcx("lo", TcAttachType::Egress) {
        Ok(_) => return Some(true),
        Err(ProgramError::SyscallError(error)) => error.io_error,
        Err(_) => return None,
    };
    (refused.raw_os_error() == Some(libc::EINVAL)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_many_distributions_are_read() {
        let cases = [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("6.1.0-44-amd64\n", Some((6, 1))),
            ("5.10.223", Some((5, 10))),
            ("7.0-rc1", Some((7, 0))),
            ("6.12+", Some((6, 12))),
            ("six", None),
            ("6", None),
            ("6.", None),
        ];
        for (text, wanted) in cases {
            let read = Release::parse(text).map(|release| (release.major, release.minor));
            assert_eq!(read, wanted, "{text}");
        }
    }

    #[test]
    fn releases_are_ordered_by_number_not_by_text() {
        assert!(Release::parse("6.12").unwrap() > Release::parse("6.6").unwrap());
        assert!(Release::parse("5.19").unwrap() < OLDEST);
    }

    #[test]
    fn a_trial_overrides_what_the_release_promises() {
        let new = Release::parse("6.18");
        let old = Release::parse("6.1");
        assert!(features(new, None, None).tcx && !features(old, None, None).tcx);
        assert!(!features(new, Some(false), None).tcx && features(old, Some(true), None).tcx);
        assert!(features(old, None, None).xdp_frags && !features(None, None, None).xdp_frags);
        assert!(features(old, None, Some("1\n")).jit && features(old, None, None).jit);
        assert!(!features(old, None, Some("0\n")).jit);
    }

    #[test]
    fn the_running_kernel_has_a_release() {
        assert!(Kernel::read().unwrap().release.is_some());
    }
}
