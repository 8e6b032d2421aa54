//! `nlb-agent check`: what manifests would become, without a kernel, a cluster or root. Its JSON is a contract.

mod json;
mod table;

use crate::args::{self, CheckArgs};
use crate::inputs::Inputs;
use crate::manifests::{self, Collected, Reading};
use crate::model::Model;
use crate::problem::{Effect, Problem, Severity};
use crate::settings;
use crate::translate::{self, Settings, translate};
use anyhow::Context;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For machines: one object, stable.
    Json,
}

/// As [`run`], with what the command line says. Flags that cannot be used end it with 2, as other wrong flags do.
pub fn asked(args: &CheckArgs, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let format = match args.output.output {
        args::Output::Table => Format::Table,
        args::Output::Json => Format::Json,
    };
    match settings::of_flags(&args.translate) {
        Ok(settings) => run(&settings, &args.paths, format, args.strict, out, err),
        Err(error) => {
            let _ = writeln!(err, "nlb-agent check: {error:#}");
            2
        }
    }
}

/// Reads `paths` (files, folders, `-` for standard input), translates them as the running agent would, and prints the
/// result to `out`; notes and errors go to `err`.
///
/// Returns the exit status: 0; 1 if a load balancer or port is refused, or with `strict` if there is any Warning; 2 if
/// something cannot be read, or nothing can be printed. A document that cannot be read does not keep the others from being
/// printed; a file that cannot be read does.
pub fn run(
    settings: &Settings,
    paths: &[PathBuf],
    format: Format,
    strict: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    match checked(settings, paths, format, out, err) {
        Ok((problems, 0)) => status(&problems, strict),
        Ok(_) => 2,
        Err(error) => {
            // Where not even this can be written, the status still says it.
            let _ = writeln!(err, "nlb-agent check: {error:#}");
            2
        }
    }
}

/// Prints the result; returns the problems, and how many documents cannot be read.
fn checked(
    settings: &Settings,
    paths: &[PathBuf],
    format: Format,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<(Vec<Problem>, usize)> {
    let readings = readings(paths)?;
    let collected = manifests::collect(readings.iter().map(|(path, reading)| (path.as_path(), reading)));
    for skipped in &collected.skipped {
        writeln!(err, "note: {skipped}")?;
    }
    for error in &collected.errors {
        writeln!(err, "nlb-agent check: {error}")?;
    }
    let unreadable = collected.errors.len();
    let model = model(settings, collected);
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&json::Output::of(&model))? + "\n",
        Format::Table => table::text(&model),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write the result")?;
    Ok((model.problems, unreadable))
}

fn model(settings: &Settings, collected: Collected) -> Model {
    let Collected { inputs, problems, .. } = collected;
    let mut model = translate(&inputs, settings, None);
    if has_no_endpoints_at_all(&inputs) {
        model.problems.retain(|it| it.reason != "NoEndpoints");
    }
    model.problems.extend(problems);
    model.problems.sort_by_cached_key(translate::order);
    model
}

/// Manifests for a cluster hold Services alone: their endpoints are the cluster's to add, and no news.
fn has_no_endpoints_at_all(inputs: &Inputs) -> bool {
    inputs.endpoint_slices.is_empty()
}

fn readings(paths: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Reading)>> {
    let mut readings: Vec<(PathBuf, Reading)> = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            readings.push((path.clone(), manifests::parse("standard input", &text)));
        } else if path.is_dir() {
            for file in manifests::files(path)? {
                readings.push((file.clone(), reading(&file)?));
            }
        } else {
            readings.push((path.clone(), reading(path)?));
        }
    }
    // Given twice is not defined twice.
    let mut seen = std::collections::BTreeSet::new();
    readings.retain(|(path, _)| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    Ok(readings)
}

fn reading(path: &Path) -> anyhow::Result<Reading> {
    let text = manifests::read_text(path)?;
    Ok(manifests::parse(&path.display().to_string(), &text))
}

fn status(problems: &[Problem], strict: bool) -> u8 {
    let refused = |it: &Problem| matches!(it.effect, Effect::PortRefused | Effect::LoadBalancerRefused);
    let fails = |it: &Problem| refused(it) || strict && it.severity == Severity::Warning;
    u8::from(problems.iter().any(fails))
}

#[cfg(test)]
mod tests;
