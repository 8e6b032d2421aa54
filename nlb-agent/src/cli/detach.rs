//! `detach`: takes everything of nlb away from this node, after asking.

use super::{Hooks, write_out};
use crate::args::{DetachArgs, Output, Place};
use crate::report::Status;
use crate::report::View;
use crate::saved::Files;
use crate::socket::client::{self, AskError};
use anyhow::{Context, bail};
use serde::Serialize;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
}

pub(super) fn run(hooks: &Hooks, args: &DetachArgs) -> anyhow::Result<()> {
    let place = &args.query.place;
    refuse_while_running(&place.socket)?;
    if !args.yes && !confirmed(place)? {
        bail!("nothing was changed");
    }
    let mut removed = Removed { removed: (hooks.detach)(&place.pin_path)? };
    let files = Files::beside(&place.socket).remove()?;
    removed.removed.extend(files.iter().map(|path| format!("removed {}", path.display())));
    write_out(&match args.query.output.output {
        Output::Json => serde_json::to_string_pretty(&removed)? + "\n",
        Output::Table => sentence(&removed.removed, place),
    })
}

/// A running agent puts back what it misses: it has to go first.
fn refuse_while_running(socket: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(client::ask(socket, Status::PATH, &())) {
        Err(AskError::NotRunning(_)) => Ok(()),
        Ok(_) | Err(AskError::NoAnswer { .. }) => bail!(
            "the agent is running (it answers at {}) and would attach everything again; stop it first",
            socket.display()
        ),
        Err(error @ AskError::NoPermission(_)) => Err(error.into()),
    }
}

fn confirmed(place: &Place) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "detach ends the traffic of every listener on this node; without a terminal to ask on, say so with --yes"
        );
    }
    eprint!(
        "This takes the programs, links and maps pinned at {} away, and what the agent wrote down beside {}. Every flow through this node ends. Go on? [y/N] ",
        place.pin_path.display(),
        place.socket.display()
    );
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the answer")?;
    Ok(is_yes(&line))
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn sentence(removed: &[String], place: &Place) -> String {
    if removed.is_empty() {
        return format!(
            "Nothing of nlb was found at {}, nor beside {}: nothing was changed.\n",
            place.pin_path.display(),
            place.socket.display()
        );
    }
    let lines: String = removed.iter().map(|what| format!("  {what}\n")).collect();
    format!("Taken away:\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(["y\n", "YES\n", " y "].into_iter().all(is_yes));
        assert!(!["", "\n", "n\n", "yep\n"].into_iter().any(is_yes));
    }

    #[test]
    fn what_was_removed_is_named() {
        let removed = vec!["link nlb_xdp on eth0".to_owned(), "map flows".to_owned()];
        let place = Place { socket: "/s".into(), pin_path: "/p".into() };
        assert_eq!(sentence(&removed, &place), "Taken away:\n  link nlb_xdp on eth0\n  map flows\n");
        let nothing = sentence(&[], &place);
        assert_eq!(nothing, "Nothing of nlb was found at /p, nor beside /s: nothing was changed.\n");
    }
}
