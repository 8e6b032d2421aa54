//! `cargo xtask demo`: the main job in namespaces of its own, every claim checked, everything cleaned up.

mod chart;
mod claims;
mod datagrams;
mod maps;
mod replica;
mod requests;
mod stage;
mod survival;
mod svg;
mod tables;
mod targets;
mod timeline;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nlb_tests::lab::http::{Attempt, Load};
use nlb_tests::lab::sweep;

use crate::command::{cargo, run};
use crate::{build, setup, workspace};
use claims::Claims;
use stage::{MAIN, Stage};
use timeline::Timeline;

/// Threads that send requests all the time, and each one's pause between two of them.
const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave everything running, and print commands to try
    #[arg(long)]
    keep: bool,
    /// Only take away what --keep has left running
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

/// Sets up, builds, and shows; an error names the claim that did not hold.
pub(crate) fn demo(options: &Options) -> Result<()> {
    if options.clean {
        return clean();
    }
    setup::for_namespaces()?;
    build::agent_for_tests()?;
    // The pods' UDP server; without the tests' other parts, which need the agent as a library.
    run(&mut cargo([
        "build",
        "--quiet",
        "--package",
        "nlb-tests",
        "--no-default-features",
        "--bin",
        "udp-echo",
    ]))?;
    let began = Instant::now();
    let mut claims = Claims::new();
    let mut stage =
        claims.step("laying out a client, a node and five pods; starting nginx and nlb-agent", Stage::new)?;
    // The log first: the claim that did not hold is the last thing to be read.
    show(&mut stage, &mut claims, began).inspect_err(|_| eprintln!("\n{}", stage.agent.last_words()))?;
    if options.keep {
        stage.keep()?;
    }
    Ok(())
}

/// The scenes, in the order in which a user would wonder.
fn show(stage: &mut Stage, claims: &mut Claims, began: Instant) -> Result<()> {
    targets::show(stage, claims)?;
    requests::show(stage, claims)?;
    datagrams::show(stage, claims)?;
    let addresses = stage.listeners(MAIN)?;
    let load = Load::start(&stage.lab.client, &addresses, WORKERS, PAUSE)?;
    let mut timeline = Timeline::new(load.began());
    replica::show(stage, claims, &load, &mut timeline)?;
    survival::show(stage, claims, &load, &mut timeline)?;
    timeline.attempts = load.stop()?;
    chart::show(&timeline);
    let file = workspace::target().join("demo/timeline.svg");
    svg::write(&timeline, &file)?;
    println!("  The same as a picture: {}", file.display());
    maps::show(stage, claims)?;
    summary(stage, claims, &timeline, began)
}

fn summary(stage: &Stage, claims: &Claims, timeline: &Timeline, began: Instant) -> Result<()> {
    claims.title("Summary");
    let failed: Vec<&Attempt> = timeline.attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    let strange: Vec<&&Attempt> =
        failed.iter().filter(|attempt| !replica::is_to_blame(attempt, timeline)).collect();
    let what = format!(
        "{} requests in the background; {} failed, all of them refused by the stopped replica before its eviction",
        timeline.attempts.len(),
        failed.len()
    );
    claims.claim(&what, strange.is_empty(), format!("{strange:?}"))?;
    println!("  {} claims held. What became of every packet:", claims.held());
    let drops = stage.agent.json(&["drops"])?;
    println!("{}", tables::drops(&drops).context("drops -o json is not as documented")?);
    println!("  It took {:.0} s.", began.elapsed().as_secs_f64());
    Ok(())
}

fn clean() -> Result<()> {
    let kept = sweep::kept()?;
    match kept.as_slice() {
        [] => println!("nothing was kept"),
        names => println!("took away {}", names.join(", ")),
    }
    Ok(())
}
