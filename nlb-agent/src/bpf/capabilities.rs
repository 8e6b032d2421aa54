//! Which of the capabilities that the data path needs this process lacks.

use std::{fs, io};

/// CAP_SYS_ADMIN stands for the two that were split off from it, and for the networking part of `bpf(2)`'s checks.
const SYS_ADMIN: u32 = 21;
const NEEDED: [(u32, &str, bool); 3] =
    [(12, "CAP_NET_ADMIN", false), (38, "CAP_PERFMON", true), (39, "CAP_BPF", true)];

/// Names of the capabilities that this process needs and does not have.
pub fn missing() -> io::Result<Vec<&'static str>> {
    Ok(missing_in(effective(&fs::read_to_string("/proc/self/status")?).unwrap_or(0)))
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn missing_in(mask: u64) -> Vec<&'static str> {
    let has = |bit: u32| mask >> bit & 1 != 0;
    let lacks = |(bit, _, split): &(u32, &str, bool)| !(has(*bit) || (*split && has(SYS_ADMIN)));
    NEEDED.iter().filter(|needed| lacks(needed)).map(|(_, name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::{effective, missing_in};

    #[test]
    fn the_three_are_enough_and_each_is_missed() {
        let three = 1 << 12 | 1 << 38 | 1 << 39;
        assert!(missing_in(three).is_empty());
        assert_eq!(missing_in(three & !(1 << 12)), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_in(three & !(1 << 39)), ["CAP_BPF"]);
        assert_eq!(missing_in(0), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert!(missing_in(1 << 21 | 1 << 12).is_empty());
    }

    #[test]
    fn the_mask_is_found_in_the_status_file() {
        assert_eq!(effective("Name:\tx\nCapEff:\t0000008000001000\n"), Some(1 << 39 | 1 << 12));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
