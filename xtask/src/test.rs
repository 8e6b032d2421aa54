//! `cargo xtask test`: runs suites, counts what libtest says, and counts nothing as passed that did not run.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};

use crate::build;
use crate::command::line;
use crate::suites::Suite;
use crate::vm;

/// Which tests.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One suite, or all
    #[arg(value_enum, default_value = "all")]
    suite: Suite,
    /// Arguments for the test binaries, such as a part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What libtest counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Count {
    /// Takes in a line that libtest may have written.
    fn hear(&mut self, text: &str, unfiltered: bool) {
        // A test may run its own binary again for one of its tests: that is not one more.
        let nested = unfiltered && !text.contains("; 0 filtered out");
        if let Some(summary) = summary(text).filter(|_| !nested) {
            self.add(summary);
        }
    }

    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

struct Outcome {
    suite: Suite,
    count: Count,
    took: Duration,
    /// Why the suite failed beyond single tests.
    broken: Option<String>,
}

/// Runs what was asked for; an error unless everything passed.
pub(crate) fn test(options: &Options) -> Result<()> {
    let (suites, left_out) = match options.suite {
        Suite::All => every(),
        Suite::Properties | Suite::Kernel | Suite::Net | Suite::Vm => (vec![options.suite], None),
        // Named alone, a suite that does not exist yet is an error.
        Suite::Kube => return options.suite.commands(&[]).map(|_| ()),
    };
    build::agent_for_tests()?;
    if suites.contains(&Suite::Net) {
        build::agent_of_another_layout()?;
    }
    let outcomes: Vec<Outcome> = suites.into_iter().map(|suite| run(suite, &options.arguments)).collect();
    if options.suite == Suite::All {
        println!("\nThe suite kube comes with a later milestone.");
    }
    if let Some(why) = left_out {
        println!("The suite vm was left out: {why}");
    }
    conclude(&outcomes)
}

/// The suites of `all`, and why the one that is no part of them here is none.
fn every() -> (Vec<Suite>, Option<String>) {
    let mut suites = vec![Suite::Properties, Suite::Kernel, Suite::Net];
    let left_out = vm::left_out();
    if left_out.is_none() {
        suites.push(Suite::Vm);
    }
    (suites, left_out)
}

fn run(suite: Suite, arguments: &[String]) -> Outcome {
    println!("\n== {} ==", suite.name());
    let began = Instant::now();
    let mut count = Count::default();
    let broken = match suite.obstacle() {
        Some(obstacle) => Some(obstacle),
        None => run_commands(suite, arguments, &mut count).err().map(|error| format!("{error:#}")),
    };
    let broken = broken.or_else(|| (count.passed + count.failed == 0).then(|| "no test ran".to_owned()));
    if let Some(broken) = &broken {
        println!("{}: {broken}", suite.name());
    }
    if broken.is_some() && count.failed == 0 {
        // Something failed that libtest could not count: a build, a crash, a suite that cannot run.
        count.failed = 1;
    }
    Outcome { suite, count, took: began.elapsed(), broken }
}

fn run_commands(suite: Suite, arguments: &[String], count: &mut Count) -> Result<()> {
    let unfiltered = arguments.is_empty();
    if suite == Suite::Vm {
        return vm::run(arguments, |text| {
            println!("{text}");
            count.hear(text, unfiltered);
        });
    }
    let mut failure = None;
    for mut command in suite.commands(arguments)? {
        // The next command still runs: one report for all that is wrong.
        if let Err(error) = run_command(&mut command, unfiltered, count) {
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(()), Err)
}

fn run_command(command: &mut Command, unfiltered: bool, count: &mut Count) -> Result<()> {
    let shown = line(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {shown}"))?;
    let output = child.stdout.take().expect("standard output is piped");
    for text in BufReader::new(output).lines() {
        let text = text.with_context(|| format!("cannot read what {shown} says"))?;
        println!("{text}");
        count.hear(&text, unfiltered);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// The numbers in libtest's closing line of one test binary.
fn summary(text: &str) -> Option<Count> {
    let rest = text.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let parts = rest.split([';', '.']).map(str::trim);
        parts.filter_map(|part| part.strip_suffix(word)?.trim().parse().ok()).next().unwrap_or(0)
    };
    Some(Count { passed: number("passed"), failed: number("failed"), skipped: number("ignored") })
}

fn conclude(outcomes: &[Outcome]) -> Result<()> {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["suite", "tests", "passed", "failed", "skipped", "seconds"]);
    let mut total = Count::default();
    for Outcome { suite, count, took, .. } in outcomes {
        total.add(*count);
        let tests = count.passed + count.failed + count.skipped;
        let numbers = [tests, count.passed, count.failed, count.skipped].map(|number| number.to_string());
        let seconds = format!("{:.1}", took.as_secs_f64());
        table.add_row([&[suite.name().to_owned()], &numbers[..], &[seconds]].concat());
    }
    println!("\n{table}");
    for outcome in outcomes {
        if let Some(broken) = &outcome.broken {
            println!("{}: {broken}", outcome.suite.name());
        }
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 || outcomes.iter().any(|outcome| outcome.broken.is_some()) {
        bail!("some tests failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_closing_line_is_counted() {
        let text = "test result: FAILED. 15 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(summary(text), Some(Count { passed: 15, failed: 2, skipped: 1 }));
        assert_eq!(summary("test a_name ... ok"), None);
    }

    #[test]
    fn a_suite_that_is_not_there_yet_is_an_error_when_named() {
        assert!(test(&Options { suite: Suite::Kube, arguments: Vec::new() }).is_err());
    }
}
