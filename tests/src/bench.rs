//! What `cargo xtask bench` measures: packets by test run, requests in namespaces, the control plane on plain data.

// The same file as the programs': one truth about what they are told.
#[path = "../../nlb-ebpf/src/case.rs"]
mod case;
mod control;
mod figures;
mod packet;
mod print;
mod probes;
mod programs;
mod system;
mod world;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How to run it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bench's eBPF object, as `cargo xtask bench` builds it.
    pub programs: PathBuf,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Cases, beginnings of their names, or `packet`, `system`, `control`; all if empty.
    pub only: Vec<String>,
}

impl Options {
    fn wants(&self, group: &str, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == group || case.starts_with(only.as_str()))
    }
}

/// Measures, prints, and writes the file.
pub fn run(options: &Options) -> Result<()> {
    let machine = machine()?;
    // First, while this process has no memory of other cases.
    let control = control::measure(&|case| options.wants("control", case))?;
    let packet = on_one_cpu(|| packet::measure(&options.programs, &|case| options.wants("packet", case)))?;
    print::packets(&packet);
    let system = system::measure(&|case| options.wants("system", case))?;
    print::systems(&system);
    print::controls(&control);
    let figures = json!({
        "machine": machine,
        "packet": packet.iter().map(figures::Packet::json).collect::<Vec<_>>(),
        "system": system.iter().map(figures::System::json).collect::<Vec<_>>(),
        "control": control.iter().map(figures::Control::json).collect::<Vec<_>>(),
    });
    if let Some(file) = &options.json {
        write(file, &figures)?;
    }
    Ok(())
}

fn write(file: &Path, figures: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Kernel and processor.
fn machine() -> Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let info = read("/proc/cpuinfo")?;
    let cpu =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    Ok(json!({ "kernel": read("/proc/sys/kernel/osrelease")?.trim(), "cpu": cpu.unwrap_or("unknown") }))
}

/// Runs `work` on the last processor that this process may use, the one least likely to serve interrupts.
fn on_one_cpu<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = nix::sched::sched_getaffinity(this).context("cannot read the processors")?;
    let last =
        (0..CpuSet::count()).rev().find(|cpu| before.is_set(*cpu) == Ok(true)).context("no processor")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(this, &one).context("cannot stay on one processor")?;
    let done = work();
    sched_setaffinity(this, &before).context("cannot leave the processor")?;
    done
}
