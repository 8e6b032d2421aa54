//! The subcommands: each asks the running agent, or what it left in the kernel, and prints the answer.

mod ask;
mod detach;
mod top;
mod version;

pub use version::{COMMIT, Features, VERSION};

use crate::args::{CheckArgs, Cli, Command, FlowsArgs, Output, QueryArgs, RunArgs, TargetsArgs};
use crate::report::{Drops, FlowFilter, Flows, Listeners, Page, Snapshot, Status, Targets, View};
use crate::socket::TargetFilter;
use anyhow::Context;
use ask::Asked;
use clap::Parser;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What can be known without a running agent.
pub trait Offline: Send + Sync {
    /// What the maps pinned below `pin_path` hold; what only an agent knows is `None`. Flows, where they are wanted.
    ///
    /// # Errors
    /// There are no pins, they are of another layout, or reading them is not allowed.
    fn snapshot(&self, pin_path: &Path, flows: Option<&FlowFilter>) -> anyhow::Result<Snapshot>;
}

/// What the subcommands need of the rest of the program.
pub struct Hooks {
    /// Serves until a signal ends it.
    pub run: fn(RunArgs) -> anyhow::Result<()>,
    /// Prints what manifests would become; the exit status is the contract's.
    pub check: fn(CheckArgs) -> anyhow::Result<ExitCode>,
    /// Reads the pinned maps.
    pub offline: Box<dyn Offline>,
    /// Takes programs, links and pins below this path away; says what, one clause each. Nothing there = nothing said.
    pub detach: fn(&Path) -> anyhow::Result<Vec<String>>,
    /// What this kernel offers.
    pub version_features: fn() -> Features,
}

/// How long the two looks are apart that speeds are measured by.
const LOOK: Duration = Duration::from_millis(500);

/// The whole program.
pub fn main(hooks: &Hooks) -> ExitCode {
    match dispatch(Cli::parse().command, hooks) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nlb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command, hooks: &Hooks) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => (hooks.run)(*args)?,
        Command::Check(args) => return (hooks.check)(*args),
        Command::Status(args) => answer::<Status>(hooks, &args)?,
        Command::Listeners(args) => listeners(hooks, &args)?,
        Command::Targets(args) => targets(hooks, &args)?,
        Command::Flows(args) => flows(hooks, &args)?,
        Command::Drops(args) => answer::<Drops>(hooks, &args)?,
        Command::Top(args) => top::run(hooks, &args)?,
        Command::Detach(args) => detach::run(hooks, &args)?,
        Command::Version(args) => version::run(hooks, args.output.output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn answer<V: View>(hooks: &Hooks, args: &QueryArgs) -> anyhow::Result<()> {
    let asked = ask::ask::<V, _>(hooks, &args.place, &(), None)?;
    print(&asked, args.output.output)
}

fn listeners(hooks: &Hooks, args: &QueryArgs) -> anyhow::Result<()> {
    let before = ask::ask::<Listeners, _>(hooks, &args.place, &(), None)?;
    if args.output.output == Output::Json || before.view.listeners.is_empty() {
        return print(&before, args.output.output);
    }
    let began = Instant::now();
    std::thread::sleep(LOOK);
    let after = ask::ask::<Listeners, _>(hooks, &args.place, &(), None)?;
    after.say_where_from();
    write_out(&after.view.table_since(&before.view, began.elapsed(), &Page::stdout()))
}

fn targets(hooks: &Hooks, args: &TargetsArgs) -> anyhow::Result<()> {
    let filter = TargetFilter { service: args.service.clone() };
    let query = &args.query;
    let mut asked = ask::ask::<Targets, _>(hooks, &query.place, &filter, None)?;
    if asked.offline.is_some() {
        if args.service.is_some() {
            eprintln!(
                "nlb-agent: names of Services are not known without the agent, so every target is shown"
            );
        }
    } else {
        // An agent of another version may not know the filter.
        asked.view = asked.view.only(args.service.as_deref());
    }
    print(&asked, query.output.output)
}

fn flows(hooks: &Hooks, args: &FlowsArgs) -> anyhow::Result<()> {
    let filter = args.filter();
    let asked = ask::ask::<Flows, _>(hooks, &args.query.place, &filter, Some(&filter))?;
    print(&asked, args.query.output.output)
}

fn print<V: View>(asked: &Asked<V>, output: Output) -> anyhow::Result<()> {
    asked.say_where_from();
    match (output, &asked.body) {
        // As it came: an agent newer than this command may say more.
        (Output::Json, Some(body)) => write_out(body),
        (Output::Json, None) => write_out(&asked.view.json()),
        (Output::Table, _) => write_out(&asked.view.table(&Page::stdout())),
    }
}

/// To standard output; a reader that has seen enough (`| head`) is no error.
fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests;
