//! The suites: what each needs, and the cargo commands that run it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::build::{self, AGENT, OBJECT, OTHER_AGENT};
use crate::command::{cargo, find, is_root};
use crate::vm;
use crate::workspace::{agent, object, other_agent, root};

/// A group of tests with the same needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Properties and fixtures on the host
    Properties,
    /// The programs in the kernel, by test-run (root)
    Kernel,
    /// Real clients and servers in network namespaces (root)
    Net,
    /// A real API server
    Kube,
    /// The programs in the oldest kernel that nlb runs on, booted
    Vm,
    /// Every suite there is
    All,
}

/// The programs that the namespace tests call.
const NET_TOOLS: &[&str] = &["ip", "nsenter", "ethtool", "sysctl", "nginx", "curl", "iperf3", "bpftool"];

impl Suite {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Suite::Properties => "properties",
            Suite::Kernel => "kernel",
            Suite::Net => "net",
            Suite::Kube => "kube",
            Suite::Vm => "vm",
            Suite::All => "all",
        }
    }

    /// Why this suite cannot run here, if so: that is a failure, never a skip.
    pub(crate) fn obstacle(self) -> Option<String> {
        let needs_root = matches!(self, Suite::Kernel | Suite::Net);
        if needs_root && !is_root() {
            return Some(format!("the {} suite needs root", self.name()));
        }
        if self == Suite::Vm {
            return vm::obstacle();
        }
        if self != Suite::Net {
            return None;
        }
        let missing = NET_TOOLS.iter().find(|tool| find(tool).is_none())?;
        Some(format!("the net suite needs {missing}: run `cargo xtask setup`"))
    }

    /// The commands, one after the other; `arguments` go to the test binaries.
    pub(crate) fn commands(self, arguments: &[String]) -> Result<Vec<Command>> {
        let commands = match self {
            Suite::Properties => properties()?,
            Suite::Kernel => vec![integration("kernel_*")],
            Suite::Net => vec![integration("net_*")],
            Suite::Kube => bail!("the kube suite comes with the milestone that talks to the Kubernetes API"),
            Suite::Vm => bail!("the vm suite's commands run in its guest"),
            Suite::All => bail!("`all` is a list of suites"),
        };
        Ok(commands.into_iter().map(|command| self.with_arguments(command, arguments)).collect())
    }

    fn with_arguments(self, mut command: Command, arguments: &[String]) -> Command {
        command.arg("--");
        // The laboratory's programs share one machine's two or more cores: timing wants one test at a time.
        if self == Suite::Net {
            command.arg("--test-threads=1");
        }
        command.args(arguments);
        command.env(OBJECT, object()).env(AGENT, build::agent().unwrap_or_else(|| agent().into()));
        if std::env::var_os(OTHER_AGENT).is_none() {
            command.env(OTHER_AGENT, other_agent());
        }
        command
    }
}

fn integration(glob: &str) -> Command {
    cargo(["test", "--quiet", "--locked", "--no-fail-fast", "--package", "nlb-tests", "--test", glob])
}

fn properties() -> Result<Vec<Command>> {
    let base = ["test", "--quiet", "--locked", "--no-fail-fast"];
    let mut host = cargo(base);
    host.args(["--workspace", "--exclude", "nlb-tests", "--lib", "--bins", "--tests"]);
    let mut fixtures = cargo(base);
    fixtures.args(["--package", "nlb-tests", "--lib", "--bins"]);
    for name in host_tests()? {
        fixtures.args(["--test", &name]);
    }
    Ok(vec![host, fixtures])
}

/// The integration tests that need neither root nor a kernel of their own.
fn host_tests() -> Result<Vec<String>> {
    let folder = root().join("tests/tests");
    let files = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = files.flatten().filter_map(|file| test_name(&file.path()));
    Ok(names.filter(|name| !name.starts_with("kernel_") && !name.starts_with("net_")).collect())
}

/// `name` of `name.rs` and of `name/main.rs`.
fn test_name(path: &Path) -> Option<String> {
    let is_test =
        path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
    is_test.then(|| path.file_stem()?.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_files_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one.rs"), "").unwrap();
        std::fs::create_dir_all(folder.path().join("two")).unwrap();
        std::fs::write(folder.path().join("two/main.rs"), "").unwrap();
        std::fs::create_dir_all(folder.path().join("shared")).unwrap();
        let name = |entry: &str| test_name(&folder.path().join(entry));
        assert_eq!(name("one.rs").as_deref(), Some("one"));
        assert_eq!(name("two").as_deref(), Some("two"));
        assert_eq!(name("shared"), None);
    }
}
