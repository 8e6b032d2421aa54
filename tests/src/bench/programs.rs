//! The bench's programs in the kernel: loaded with maps of their own, nothing pinned, nothing attached.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{MapData, PerCpuArray};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use nlb_agent::bpf::clock::Clock;
use nlb_common::layout::WAYS;

/// The flow tables' secret: fixed, so that every run has the same collisions.
pub(crate) const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
/// Entries of `half_flows` and `half_replies`, the product's default.
pub(crate) const HALF_FLOWS: u32 = 1 << 18;

/// A loaded object.
pub(crate) struct Programs {
    pub(crate) ebpf: Ebpf,
    /// Entries of `flows` and of `replies`.
    pub(crate) flows: u32,
    pub(crate) clock: Clock,
}

/// One test run.
pub(crate) struct Run {
    /// Per repetition, as the kernel reports it.
    pub(crate) nanoseconds: f64,
    /// The packet after the last repetition.
    pub(crate) packet: Vec<u8>,
}

/// The sizes of a program in its three forms, in instructions and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) translated: u32,
    pub(crate) machine: u32,
    pub(crate) verified: u32,
}

impl Programs {
    /// Loads every program of an object, with logging pruned away as `--data-path-log off` does it.
    pub(crate) fn load(object: &[u8], flows: u32) -> Result<Programs> {
        let clock = Clock::new().context("cannot read jiffies")?;
        let (hz, ways) = (clock.second(), WAYS as u32);
        let (flow_mask, half_mask) = (flows / ways - 1, HALF_FLOWS / ways - 1);
        let mut loader = EbpfLoader::new();
        for (name, entries) in [("flows", flows / ways), ("replies", flows / ways), ("flow_clients", flows)] {
            loader.map_max_entries(name, entries);
        }
        loader
            .override_global("SEED", &SEED, true)
            .override_global("HZ", &hz, true)
            .override_global("FLOW_MASK", &flow_mask, true)
            .override_global("HALF_MASK", &half_mask, true)
            .override_global("AYA_LOG_LEVEL", &0_u8, false);
        let mut ebpf = loader.load(object).context("the bench's object does not load")?;
        for (name, program) in ebpf.programs_mut() {
            match program {
                Program::Xdp(xdp) => xdp.load(),
                Program::SchedClassifier(classifier) => classifier.load(),
                _ => bail!("the object holds {name}, which is of another kind"),
            }
            .with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(Programs { ebpf, flows, clock })
    }

    /// Loads an object from a file.
    pub(crate) fn from_file(path: &Path, flows: u32) -> Result<Programs> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        // The loader wants words; a vector of bytes may lie anywhere.
        let mut aligned = vec![0_u64; bytes.len().div_ceil(8)];
        zerocopy::IntoBytes::as_mut_bytes(&mut aligned[..])[..bytes.len()].copy_from_slice(&bytes);
        Programs::load(&zerocopy::IntoBytes::as_bytes(&aligned[..])[..bytes.len()], flows)
    }

    /// Runs a program on a packet.
    pub(crate) fn run(&self, name: &str, packet: &[u8], repeat: u32) -> Result<Run> {
        let mut out = vec![0; packet.len() + 64];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.repeat = repeat;
        let program = self.ebpf.program(name).with_context(|| format!("there is no program {name}"))?;
        let result = match program {
            Program::Xdp(xdp) => Xdp::test_run(xdp, options),
            Program::SchedClassifier(classifier) => SchedClassifier::test_run(classifier, options),
            _ => bail!("{name} is of another kind"),
        }
        .with_context(|| format!("the test run of {name} failed"))?;
        let size = result.data_size_out as usize;
        ensure!(size <= out.len(), "{name} made the packet {size} bytes long");
        out.truncate(size);
        let nanoseconds = result.duration.as_nanos() as f64;
        Ok(Run { nanoseconds, packet: out })
    }

    /// Sum over all CPUs of one element of a map of counters.
    pub(crate) fn counter(&self, map: &str, index: u32) -> Result<u64> {
        let map = self.ebpf.map(map).with_context(|| format!("there is no map {map}"))?;
        let counters: PerCpuArray<&MapData, u64> = map.try_into()?;
        Ok(counters.get(&index, 0)?.iter().sum())
    }

    /// How large a program is.
    pub(crate) fn size(&self, name: &str) -> Result<Size> {
        let info = match self.ebpf.program(name).with_context(|| format!("there is no program {name}"))? {
            Program::Xdp(xdp) => xdp.info(),
            Program::SchedClassifier(classifier) => classifier.info(),
            _ => bail!("{name} is of another kind"),
        }?;
        Ok(Size {
            translated: info.size_translated().unwrap_or(0) / 8,
            machine: info.size_jitted(),
            verified: info.verified_instruction_count().unwrap_or(0),
        })
    }
}
