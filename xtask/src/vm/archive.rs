//! Where packages are fetched from without being installed: this machine's package lists, or Debian 12's beside them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::folder;
use crate::command::{command, find, output, run};

/// What Debian signs its lists with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists of packages that apt can read.
#[derive(Default)]
pub(super) struct Lists {
    options: Vec<String>,
    /// Lists of our own live as long as this.
    _folder: Option<TempDir>,
}

impl Lists {
    /// What this machine's apt knows.
    pub(super) fn of_this_machine() -> Self {
        Self::default()
    }

    /// Whether Debian's own lists can be read and believed.
    pub(super) fn of_debian_are_possible() -> bool {
        find("apt-get").is_some() && Path::new(KEYRING).exists()
    }

    /// Debian 12's, fetched now; this machine's lists stay as they are, and no root is needed.
    pub(super) fn of_debian() -> Result<Self> {
        let aside = tempfile::tempdir_in(folder()).context("no folder for Debian's package lists")?;
        let here = aside.path();
        for name in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(here.join(name)).with_context(|| format!("cannot make {name}"))?;
        }
        let sources = here.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm main\n");
        std::fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        let options = vec![
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=/dev/null".into(),
            format!("Dir::State::Lists={}", here.join("state/lists").display()),
            format!("Dir::Cache={}", here.join("cache").display()),
        ];
        let lists = Self { options, _folder: Some(aside) };
        run(lists.apt("apt-get").args(["-qq", "update"]))?;
        Ok(lists)
    }

    /// The packages whose names begin so and that can be fetched.
    pub(super) fn names(&self, beginning: &str) -> Vec<String> {
        let names = output(self.apt("apt-cache").args(["pkgnames", beginning])).unwrap_or_default();
        names.lines().filter(|name| self.has(name)).map(str::to_owned).collect()
    }

    fn has(&self, name: &str) -> bool {
        let policy = output(self.apt("apt-cache").args(["policy", name])).unwrap_or_default();
        policy.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)"))
    }

    /// Puts a package into `to` as a file.
    pub(super) fn download(&self, package: &str, to: &Path) -> Result<()> {
        run(self.apt("apt-get").args(["-qq", "download", package]).current_dir(to))
    }

    fn apt(&self, program: &str) -> Command {
        // Apt's own user may not write into our folders; we may, root or not.
        let mut apt = command(program, ["-o", "APT::Sandbox::User="]);
        apt.args(self.options.iter().flat_map(|option| ["-o", option]));
        apt
    }
}
