//! `drops`: every reason of the data path, how often it was met, what it means and what to do.

use super::page::plural;
use super::{Page, Snapshot, View, count};
use serde::{Deserialize, Serialize};

/// The answer to `drops`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Packets that were dropped, by reason.
    pub drops: Vec<Dropped>,
    /// Packets that were left alone, by reason.
    pub passed: Vec<Passed>,
}

/// One reason to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its name.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub meaning: String,
    /// What to do.
    pub remedy: String,
}

/// One reason to leave a packet alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its name.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub meaning: String,
}

impl View for Drops {
    const PATH: &'static str = "/drops";

    fn of(snapshot: Snapshot) -> Self {
        let (drops, passed): (Vec<_>, Vec<_>) =
            snapshot.reasons.into_iter().partition(|reason| reason.is_drop);
        Self {
            drops: drops
                .into_iter()
                .map(|r| Dropped { reason: r.name, packets: r.packets, meaning: r.meaning, remedy: r.remedy })
                .collect(),
            passed: passed
                .into_iter()
                .map(|r| Passed { reason: r.name, packets: r.packets, meaning: r.meaning })
                .collect(),
        }
    }

    fn table(&self, page: &Page) -> String {
        let dropped: u64 = self.drops.iter().map(|row| row.packets).sum();
        let met: Vec<&Dropped> = self.drops.iter().filter(|row| row.packets > 0).collect();
        let mut text = page.lines(&[self.caption(dropped, met.len())]);
        if !met.is_empty() {
            let mut table = page.table(&["DROPPED BECAUSE", ">PACKETS", "~WHAT IT MEANS", "~WHAT TO DO"]);
            for row in &met {
                table.add_row([&row.reason, &count(row.packets), &row.meaning, &row.remedy]);
            }
            text += &page.text(table, &[]);
        }
        let names = |rows: Vec<&str>| if rows.is_empty() { "none".to_owned() } else { rows.join(", ") };
        let never = self.drops.iter().filter(|row| row.packets == 0).map(|row| row.reason.as_str()).collect();
        text += &page.lines(&[format!("Never met: {}.", names(never)), String::new()]);
        text += &page.lines(&["Left alone, given to the host as they came:"]);
        let mut table = page.table(&["PASSED BECAUSE", ">PACKETS", "~WHAT IT MEANS"]);
        for row in &self.passed {
            table.add_row([&row.reason, &count(row.packets), &row.meaning]);
        }
        text + &page.text(table, &[])
    }
}

impl Drops {
    fn caption(&self, dropped: u64, met: usize) -> String {
        match dropped {
            0 => "No packet was dropped since the programs were loaded.".to_owned(),
            1 => "1 packet was dropped since the programs were loaded.".to_owned(),
            n => format!(
                "{} packets were dropped since the programs were loaded, for {}.",
                count(n),
                plural(met, "reason")
            ),
        }
    }
}
