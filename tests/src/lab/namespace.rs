//! A network namespace: made, entered by programs and by threads, and taken away.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

/// A named network namespace. The lab takes it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with its loopback device up.
    pub(crate) fn new(name: &str) -> Result<Namespace> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Namespace { name: name.to_owned() };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that names it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.name)
    }

    /// A program in it, in a process group of its own so that Ctrl-C reaches only us.
    ///
    /// `nsenter`, because `ip netns exec` mounts a new /sys, which hides the bpffs.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// `ip ARGUMENTS` in it.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// `ethtool ARGUMENTS` in it.
    pub fn ethtool(&self, arguments: &[&str]) -> Result<()> {
        run(self.command("ethtool").args(arguments))
    }

    /// Sets a `net.` sysctl, which belongs to the namespace and not to the machine.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        run(self.command("sysctl").arg("-qw").arg(format!("{name}={value}")))
    }

    /// Runs a program to its end and returns what it printed.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        output(command.args(arguments))
    }

    /// A link between `device` here and `peer` there, both up.
    pub fn link(&self, device: &str, other: &Namespace, peer: &str) -> Result<()> {
        self.ip(&["link", "add", device, "type", "veth", "peer", "name", peer, "netns", other.name()])?;
        self.ip(&["link", "set", device, "up"])?;
        other.ip(&["link", "set", peer, "up"])
    }

    /// Runs `work` on a thread of its own in this namespace; sockets that it makes stay here.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let inside = move || {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", path.display()))?;
            Ok(work())
        };
        std::thread::Builder::new().name(self.name.clone()).spawn(inside).context("cannot start a thread")
    }

    /// Runs `work` in this namespace and waits for it.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.spawn(work)?.join().map_err(|_| anyhow!("a thread in {} panicked", self.name))?
    }
}

/// Runs to the end; an error with what it said unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Standard output; an error with what it said unless it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
