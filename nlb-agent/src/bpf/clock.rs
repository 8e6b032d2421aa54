//! The data path's clock as the agent reads it: jiffies, and how many of them make a second.

use super::sys::{self, Jiffies};
use std::io;

/// Jiffies, and their length.
#[derive(Debug)]
pub struct Clock {
    jiffies: Jiffies,
    second: u32,
}

impl Clock {
    /// Asks the kernel; needs CAP_BPF.
    pub fn new() -> io::Result<Self> {
        Ok(Self { jiffies: Jiffies::load()?, second: per_second(sys::tick_nanoseconds()?) })
    }

    /// Jiffies in a second: 100 to 1000.
    pub fn second(&self) -> u32 {
        self.second
    }

    /// Jiffies now, low 32 bits.
    pub fn now(&self) -> io::Result<u32> {
        self.jiffies.now()
    }
}

/// CONFIG_HZ from the length of a tick, which the kernel has rounded to nanoseconds.
fn per_second(tick: u64) -> u32 {
    let second = 1_000_000_000_u64;
    ((second + tick / 2) / tick.max(1)) as u32
}

#[cfg(test)]
mod tests {
    use super::per_second;

    #[test]
    fn every_hz_is_found_again_from_its_rounded_tick() {
        for hz in [100_u64, 250, 300, 1000] {
            assert_eq!(u64::from(per_second((1_000_000_000 + hz / 2) / hz)), hz);
        }
    }
}
