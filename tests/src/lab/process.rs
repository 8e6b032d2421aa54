//! A program that runs in the background, its output in files, ended when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::eventually;

/// A running program with its children.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Process {
    /// Starts `command`; its output is appended to `NAME.out` and `NAME.err` in `folder`.
    ///
    /// The command must be in a process group of its own, as those of a namespace are.
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Result<Process> {
        let (output, errors) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let child = command.stdout(append(&output)?).stderr(append(&errors)?).spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child, output, errors })
    }

    /// Its process id: `nsenter` becomes the program itself.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask for the state of a child")
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to process {}", self.id()))
    }

    /// Asks it to end by SIGTERM, and waits.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        eventually(patience, || self.ended()).context("it does not end on SIGTERM")
    }

    /// Ends it and its children at once, without giving them a chance to clean up.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // A program that has ended by itself has no group any more, which is as good.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        self.child.wait().context("cannot wait for a child")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only where it has not been waited for: its id may be another's by then.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
    }
}

fn append(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}
