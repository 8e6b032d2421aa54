//! The agent in the node's namespace, as a user starts it, asks it, and kills it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::namespace::output;
use super::{Lab, NODE_NAME, Namespace, Process, UPLINK, VIPS, eventually};

/// An agent that runs, or has run and can be started again.
pub struct Agent {
    binary: PathBuf,
    node: Namespace,
    folder: PathBuf,
    pins: PathBuf,
    arguments: Vec<String>,
    open_files: Option<u32>,
    process: Option<Process>,
}

impl Agent {
    /// The agent's binary: `NLB_AGENT`, which `cargo xtask test` sets, else the release build of this working copy.
    pub fn binary() -> Result<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let built = root.join(target).join("release/nlb-agent");
        let binary = std::env::var_os("NLB_AGENT").map_or(built, PathBuf::from);
        binary.canonicalize().with_context(|| format!("{} is not built: cargo xtask build", binary.display()))
    }

    /// A binary whose maps have another layout: `NLB_OTHER_AGENT`, which `cargo xtask test` builds and sets.
    pub fn binary_of_another_layout() -> Result<PathBuf> {
        let binary =
            std::env::var_os("NLB_OTHER_AGENT").context("NLB_OTHER_AGENT is not set: cargo xtask test")?;
        let binary = PathBuf::from(binary);
        binary.canonicalize().with_context(|| format!("{} is not built: cargo xtask test", binary.display()))
    }

    /// Starts it on the node's uplink with the lab's VIP ranges as pools and waits until it answers.
    pub fn start(lab: &Lab, manifests: &Path, extra: &[&str]) -> Result<Agent> {
        Agent::start_binary(Agent::binary()?, lab, manifests, extra)
    }

    /// As [`Agent::start`], with another binary.
    pub fn start_binary(binary: PathBuf, lab: &Lab, manifests: &Path, extra: &[&str]) -> Result<Agent> {
        let pools: Vec<&str> = VIPS.iter().flat_map(|pool| ["--vip-pool", pool]).collect();
        let arguments = [&["--interface", UPLINK], &pools[..], extra].concat();
        let mut agent = Agent::place(binary, lab, manifests, &arguments);
        agent.restart()?;
        Ok(agent)
    }

    /// Starts it with these arguments beside those for its place: manifests, node name, pins, socket.
    pub fn start_with(lab: &Lab, manifests: &Path, arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::place(Agent::binary()?, lab, manifests, arguments);
        agent.restart()?;
        Ok(agent)
    }

    /// What the next start runs.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// An argument that the next start has beside the others.
    pub fn add_argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    fn place(binary: PathBuf, lab: &Lab, manifests: &Path, arguments: &[&str]) -> Agent {
        let mut all = vec!["--manifests".to_owned(), manifests.display().to_string()];
        all.extend(["--node-name", NODE_NAME].map(str::to_owned));
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Agent {
            binary,
            node: lab.node.clone(),
            folder: lab.folder(),
            pins: lab.pins(),
            arguments: all,
            open_files: None,
            process: None,
        }
    }

    /// Starts it (again) with the same arguments and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        eventually(Duration::from_secs(15), || self.answered()).with_context(|| self.last_words())
    }

    /// Starts it (again) without waiting: for starts that must fail.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = match self.open_files {
            Some(files) => {
                let mut limited = self.node.command("prlimit");
                limited.arg(format!("--nofile={files}:{files}")).arg(&self.binary);
                self.placed(limited, "run")
            }
            None => self.command("run"),
        };
        command.args(&self.arguments).env("NO_COLOR", "1");
        self.process = Some(Process::start(&mut command, &self.folder, "agent")?);
        Ok(())
    }

    /// From its next start on it may open no more files than these.
    pub fn limit_files(&mut self, files: u32) {
        self.open_files = Some(files);
    }

    fn answered(&mut self) -> Result<Option<()>> {
        if let Some(status) = self.process_mut()?.ended()? {
            bail!("the agent ended with {status}");
        }
        let status = self.json(&["status"])?;
        Ok((status["agent"]["running"] == true).then_some(()))
    }

    /// `nlb-agent SUBCOMMAND` in the node's namespace, with this agent's pins and socket.
    pub fn command(&self, subcommand: &str) -> Command {
        self.placed(self.node.command(&self.binary), subcommand)
    }

    fn placed(&self, mut command: Command, subcommand: &str) -> Command {
        command.arg(subcommand).arg("--socket").arg(self.socket()).arg("--pin-path").arg(&self.pins);
        command
    }

    /// `nlb-agent ARGUMENTS -o json`, read.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let (first, rest) = arguments.split_first().context("a subcommand is needed")?;
        let said = output(self.command(first).args(rest).args(["-o", "json"]))?;
        serde_json::from_str(&said)
            .with_context(|| format!("nlb-agent {} prints no JSON: {said:?}", arguments.join(" ")))
    }

    /// The rows of `targets`, of one Service (`NAMESPACE/NAME`).
    pub fn targets(&self, service: &str) -> Result<Vec<Value>> {
        let all = self.json(&["targets"])?;
        let rows = all["targets"].as_array().context("targets -o json has no list `targets`")?;
        Ok(rows.iter().filter(|row| is_of(row, service)).cloned().collect())
    }

    /// Waits until as many targets of the Service are in `state` as given.
    pub fn wait_for(&self, service: &str, state: &str, count: usize, patience: Duration) -> Result<()> {
        let counted = || {
            let found = self.targets(service)?.iter().filter(|row| row["state"] == state).count();
            anyhow::ensure!(found == count, "{found} targets of {service} are {state}, not {count}");
            Ok(Some(()))
        };
        eventually(patience, counted)
    }

    /// Waits until the target at `address` (of any listener of the Service whose name ends so) is in `state`.
    pub fn wait_for_target(
        &self,
        service: &str,
        target: &str,
        state: &str,
        patience: Duration,
    ) -> Result<()> {
        let looked = || {
            let rows = self.targets(service)?;
            let mut found =
                rows.iter().filter(|row| row["target"] == target).map(|row| &row["state"]).peekable();
            anyhow::ensure!(found.peek().is_some(), "{service} has no target {target}");
            let states: Vec<&Value> = found.collect();
            anyhow::ensure!(
                states.iter().all(|found| **found == state),
                "{target} is {states:?}, not {state}"
            );
            Ok(Some(()))
        };
        eventually(patience, looked)
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) -> Result<()> {
        self.process_mut()?.kill().map(|_| ())
    }

    /// Ends it as a crash would and starts the next one at once, before the kernel has cleared the first away.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        let mut dying = self.process.take().context("the agent was never started")?;
        dying.signal(Signal::SIGKILL)?;
        self.restart()?;
        dying.kill().map(|_| ())
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process_mut()?.stop(Duration::from_secs(10))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process_mut()?.ended()
    }

    /// Its process id.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(|process| process.errors() + &process.output()).unwrap_or_default()
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// Where its pins are.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The end of its log, for an error message.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("the agent's log ends:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    fn process_mut(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent was never started")
    }
}

fn is_of(row: &Value, service: &str) -> bool {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("service")) == service
}
