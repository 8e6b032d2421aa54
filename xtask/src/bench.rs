//! `cargo xtask bench`: builds what is measured as users run it, then measures.

use std::path::PathBuf;

use anyhow::Result;

use crate::build;
use crate::command::{command, run};
use crate::workspace::{agent, target};
use crate::{ebpf, setup};

/// What to measure, and where the figures go.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these cases, or all whose name begins so: packet, system and control name whole groups
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
}

/// Ends with an error if something could not be measured; a missed budget is a figure, not an error.
pub(crate) fn bench(options: &Options) -> Result<()> {
    setup::for_namespaces()?;
    build::build()?;
    let programs = ebpf::build_bench()?;
    build::release(&["--package", "nlb-tests", "--bin", "nlb-bench"])?;
    let mut bench = command(target().join("release/nlb-bench"), ["--programs"]);
    bench.arg(programs).env("NLB_AGENT", agent());
    if let Some(file) = &options.json {
        bench.arg("--json").arg(std::path::absolute(file)?);
    }
    for case in &options.only {
        bench.arg("--only").arg(case);
    }
    run(&mut bench)
}
