//! `version`: what this program is, and what this kernel offers it.

use super::{Hooks, write_out};
use crate::args::Output;
use anyhow::Context;
use serde::Serialize;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; `None` where the build was not told (`NLB_COMMIT` at compile time).
pub const COMMIT: Option<&str> = option_env!("NLB_COMMIT");

/// What this kernel offers; `None` = cannot be told, for want of permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// tcx links (kernel 6.6).
    pub tcx: Option<bool>,
    /// XDP programs that take packets in several buffers (kernel 5.18).
    pub xdp_frags: Option<bool>,
    /// Whether BPF programs are compiled.
    pub jit: Option<bool>,
}

/// The answer to `version`.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    commit: Option<&'static str>,
    kernel: String,
    layout: u32,
    features: Features,
}

pub(super) fn run(hooks: &Hooks, output: Output) -> anyhow::Result<()> {
    let release = "/proc/sys/kernel/osrelease";
    let kernel = std::fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
    let version = Version {
        version: VERSION,
        commit: COMMIT,
        kernel: kernel.trim().to_owned(),
        layout: nlb_common::layout::LAYOUT,
        features: (hooks.version_features)(),
    };
    write_out(&match output {
        Output::Json => serde_json::to_string_pretty(&version)? + "\n",
        Output::Table => version.text(),
    })
}

impl Version {
    fn text(&self) -> String {
        let Features { tcx, xdp_frags, jit } = self.features;
        let word = |known: Option<bool>| match known {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known: run as root",
        };
        format!(
            "nlb-agent {} (commit {})\n  kernel      {}\n  map layout  {}\n  tcx         {}\n  xdp frags   {}\n  jit         {}\n",
            self.version,
            self.commit.unwrap_or("not known"),
            self.kernel,
            self.layout,
            word(tcx),
            word(xdp_frags),
            word(jit),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> Version {
        let features = Features { tcx: Some(true), xdp_frags: Some(false), jit: None };
        Version { version: "0.1.0", commit: None, kernel: "6.18.0".to_owned(), layout: 1, features }
    }

    #[test]
    fn json_is_the_contract() {
        let json = serde_json::to_value(version()).unwrap();
        let wanted = serde_json::json!({
            "version": "0.1.0", "commit": null, "kernel": "6.18.0", "layout": 1,
            "features": { "tcx": true, "xdpFrags": false, "jit": null }
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn people_read_yes_and_no() {
        let text = version().text();
        assert!(text.starts_with("nlb-agent 0.1.0 (commit not known)\n"), "{text}");
        assert!(text.contains("tcx         yes\n  xdp frags   no\n  jit         not known"), "{text}");
    }
}
