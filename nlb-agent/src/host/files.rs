//! How many files this process may open, and how many of them health checks may use.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// What is left to everything but checks: maps, links, netlink, connections to the socket and to HTTP.
const OTHERS: u64 = 1024;
/// With this many sockets, 10 000 silent targets of one group are all under way at once.
const MOST: u64 = 20_000;
/// With fewer, checks of several groups would wait for each other even where all answer.
const FEWEST: u64 = 8;

/// The limit of open files of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What holds now.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

impl OpenFiles {
    /// A round limit with which checks may use as many sockets as they ever do.
    pub const ENOUGH: Self = Self { soft: 32_768, hard: 32_768 };

    /// The limit in force.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn read() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self { soft, hard })
    }

    /// Raises the soft limit to the hard one; what holds then.
    ///
    /// # Errors
    /// The kernel refuses, as where `fs.nr_open` is less than the hard limit.
    pub fn raise(self) -> io::Result<Self> {
        setrlimit(Resource::RLIMIT_NOFILE, self.hard, self.hard)?;
        Self::read()
    }

    /// The sockets that health checks may use at once, 8 to 20 000: half of a small limit, all but 1024 of a large one.
    pub fn for_checks(self) -> usize {
        let sockets = self.soft - OTHERS.min(self.soft.div_ceil(2));
        usize::try_from(sockets.clamp(FEWEST, MOST)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_leave_files_to_everything_else() {
        let sockets = |soft| OpenFiles { soft, hard: u64::MAX }.for_checks();
        assert_eq!([0, 1, 64, 256, 1024].map(sockets), [8, 8, 32, 128, 512]);
        assert_eq!([2048, 4096, 20_000].map(sockets), [1024, 3072, 18_976]);
        assert_eq!([65_536, 1 << 20, u64::MAX].map(sockets), [20_000; 3]);
    }

    #[test]
    fn the_limit_in_force_is_read() {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let OpenFiles { soft, hard } = OpenFiles::read().unwrap();
        assert_eq!([soft.to_string(), hard.to_string()], [words[0], words[1]]);
    }
}
