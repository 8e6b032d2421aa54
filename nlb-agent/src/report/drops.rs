//! `drops`: every reason of the data path, how often it was met, what it means and what to do.

use super::page::plural;
use super::{Page, Snapshot, View, count};
use nlb_common::reasons::Kind;
use serde::{Deserialize, Serialize};

/// The answer to `drops`: every reason in the list of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Packets that were dropped.
    pub drops: Vec<ReasonToMend>,
    /// Packets that were left alone.
    pub passed: Vec<CountedReason>,
    /// Packets that were readdressed and sent on.
    pub forwarded: Vec<CountedReason>,
    /// What happened on packets' way beside their fate: each of these packets is in one of the other lists as well.
    pub noted: Vec<ReasonToMend>,
}

/// A reason that may ask for something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonToMend {
    /// Its name.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub meaning: String,
    /// What to do.
    pub remedy: String,
}

/// A reason that is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedReason {
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
        let mut lists =
            Self { drops: Vec::new(), passed: Vec::new(), forwarded: Vec::new(), noted: Vec::new() };
        for super::Reason { name: reason, packets, kind, meaning, remedy } in snapshot.reasons {
            match kind {
                Kind::Dropped => lists.drops.push(ReasonToMend { reason, packets, meaning, remedy }),
                Kind::Noted => lists.noted.push(ReasonToMend { reason, packets, meaning, remedy }),
                Kind::Passed => lists.passed.push(CountedReason { reason, packets, meaning }),
                Kind::Forwarded => lists.forwarded.push(CountedReason { reason, packets, meaning }),
            }
        }
        lists
    }

    fn table(&self, page: &Page) -> String {
        let dropped: u64 = self.drops.iter().map(|row| row.packets).sum();
        let met = self.drops.iter().filter(|row| row.packets > 0).count();
        let parts = [
            page.lines(&[caption(dropped, met)]) + &mendable(page, "DROPPED BECAUSE", &self.drops),
            page.lines(&["Noted on the way, beside what became of the packet:"])
                + &mendable(page, "NOTED", &self.noted),
            page.lines(&["Left alone, given to the host as they came:"])
                + &as_it_should_be(page, "PASSED BECAUSE", &self.passed),
            page.lines(&["Sent on with another address, which is what nlb is for:"])
                + &as_it_should_be(page, "FORWARDED", &self.forwarded),
        ];
        parts.join("\n")
    }
}

/// Those that were met, with what to do; the names of the others.
fn mendable(page: &Page, heading: &str, rows: &[ReasonToMend]) -> String {
    let (met, never): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.packets > 0);
    let mut text = String::new();
    if !met.is_empty() {
        let mut table = page.table(&[heading, ">PACKETS", "~WHAT IT MEANS", "~WHAT TO DO"]);
        for row in met {
            table.add_row([&row.reason, &count(row.packets), &row.meaning, &row.remedy]);
        }
        text += &page.text(table, &[]);
    }
    let never: Vec<&str> = never.iter().map(|row| row.reason.as_str()).collect();
    let never = if never.is_empty() { "none".to_owned() } else { never.join(", ") };
    text + &page.lines(&[format!("Never met: {never}.")])
}

fn as_it_should_be(page: &Page, heading: &str, rows: &[CountedReason]) -> String {
    let mut table = page.table(&[heading, ">PACKETS", "~WHAT IT MEANS"]);
    for row in rows {
        table.add_row([&row.reason, &count(row.packets), &row.meaning]);
    }
    page.text(table, &[])
}

fn caption(dropped: u64, met: usize) -> String {
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
