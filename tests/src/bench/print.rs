//! The figures as tables for people.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::figures::{Control, Packet, System, budget};

/// Packet cases against the floor, Katran, and the budgets.
pub(crate) fn packets(figures: &[Packet]) {
    if figures.is_empty() {
        return;
    }
    println!(
        "Packets: nanoseconds, and as a multiple of the floor (XDP_TX with MAC addresses exchanged) in the same run"
    );
    let mut table =
        table(["case", "ns", "floor", "x floor", "spread", "Katran", "must", "aims", "verdict"], 1..8);
    for figure in figures {
        let budget = budget(figure.case);
        let column = |number: Option<f64>| number.map(|number| format!("{number:.1}")).unwrap_or_default();
        table.add_row([
            figure.case.to_owned(),
            format!("{:.0}", figure.nanoseconds),
            format!("{:.0}", figure.floor),
            format!("{:.2}", figure.ratio),
            percent(figure.spread),
            column(budget.and_then(|budget| budget.katran)),
            column(budget.map(|budget| budget.must)),
            column(budget.map(|budget| budget.aims)),
            budget.map(|budget| budget.verdict(figure.ratio)).unwrap_or_default().to_owned(),
        ]);
    }
    println!("{table}\n");
}

/// System cases.
pub(crate) fn systems(figures: &[System]) {
    if figures.is_empty() {
        return;
    }
    println!(
        "Requests a second (connections: each request on a connection of its own), nlb beside another in the same run"
    );
    let mut table = table(["case", "nlb", "other", "nlb / other", "spread"], 1..5);
    for figure in figures {
        table.add_row([
            figure.case.clone(),
            format!("{:.0}", figure.nlb),
            format!("{:.0}", figure.other),
            format!("{:.2}", figure.ratio),
            percent(figure.spread),
        ]);
    }
    println!("{table}\n");
}

/// Control cases.
pub(crate) fn controls(figures: &[Control]) {
    if figures.is_empty() {
        return;
    }
    println!("Control plane");
    let mut table = table(["case", "measured", "must", "aims", "verdict"], 1..4);
    for figure in figures {
        let budget = budget(figure.case);
        let column =
            |number: Option<f64>| number.map(|number| figure.amount.with(number)).unwrap_or_default();
        table.add_row([
            figure.case.to_owned(),
            figure.amount.to_string(),
            column(budget.map(|budget| budget.must)),
            column(budget.map(|budget| budget.aims)),
            budget.map(|budget| budget.verdict(figure.amount.parts().1)).unwrap_or_default().to_owned(),
        ]);
    }
    println!("{table}\n");
}

fn table<const N: usize>(head: [&str; N], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    for index in numbers {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
