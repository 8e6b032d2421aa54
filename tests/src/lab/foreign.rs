//! Somebody else's programs: nlb's own under another pin path, which serve nothing, pass everything and count what they see.

use std::path::PathBuf;

use anyhow::{Context, Result};
use nlb_agent::bpf::detach::detach;
use nlb_agent::bpf::{DataPath, Options, PinnedMaps};

use super::{Lab, Namespace};

/// Loaded and pinned until it is taken off, or dropped.
pub struct Foreign {
    /// Where its programs are pinned: `prog_xdp`, `prog_reply`.
    pub pins: PathBuf,
    node: Namespace,
}

impl Foreign {
    /// Loads the programs in the node's namespace and lets `attach` attach them.
    pub fn open(
        lab: &Lab,
        attach: impl FnOnce(&mut DataPath) -> Result<()> + Send + 'static,
    ) -> Result<Foreign> {
        let mut pins = lab.pins().into_os_string();
        pins.push("-foreign");
        let foreign = Foreign { pins: pins.into(), node: lab.node.clone() };
        let path = foreign.pins.clone();
        lab.node.enter(move || -> Result<()> {
            let mut options = Options::new(&path);
            (options.sizes.flows, options.sizes.half_flows) = (1024, 1024);
            let mut theirs = DataPath::open(&options)?;
            attach(&mut theirs)?;
            theirs.leave();
            Ok(())
        })??;
        Ok(foreign)
    }

    /// Packets that its programs have looked at.
    pub fn seen(&self) -> Result<u64> {
        let maps = PinnedMaps::open(&self.pins)?.context("nothing foreign is pinned")?;
        Ok(maps.reasons()?.iter().map(|(_, packets)| packets).sum())
    }

    /// Its owner takes it off the node again.
    pub fn take_off(&self) -> Result<()> {
        let pins = self.pins.clone();
        self.node.enter(move || detach(&pins))??;
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Its namespace may be gone already, and its attachments with it.
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}
