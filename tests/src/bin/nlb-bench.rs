//! `cargo xtask bench` runs this, as root, after it has built what is measured.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nlb_tests::bench;

/// Measures packets, requests and the control plane.
#[derive(Parser)]
struct Arguments {
    /// The bench's eBPF object
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these cases
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let Arguments { programs, json, only } = Arguments::parse();
    match bench::run(&bench::Options { programs, json, only }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
