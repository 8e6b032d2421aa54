//! The project's own commands: setup, build, demo, test, bench and check, each of which sets up what it needs first.

mod bench;
mod build;
mod check;
mod command;
mod demo;
mod ebpf;
mod setup;
mod suites;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for people who build, try and test nlb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the toolchain and packages, or say exactly what to install
    Setup,
    /// Build the eBPF object alone: target/bpf/nlb.o
    BuildEbpf,
    /// Build the object and the agent with the object inside: target/release/nlb-agent
    Build,
    /// Show the main job in network namespaces of its own (root)
    Demo(demo::Options),
    /// Run the test suites
    Test(test::Options),
    /// Measure packets, requests and the control plane (root)
    Bench(bench::Options),
    /// Check formatting, lints, documentation and licences
    Check,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::setup(),
        Task::BuildEbpf => build::build_ebpf(),
        Task::Build => build::build(),
        Task::Demo(options) => demo::demo(&options),
        Task::Test(options) => test::test(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::Check => check::check(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
