//! Tables for people, made from the agent's JSON.

use comfy_table::{Cell, Color, ContentArrangement, Table, TableComponent, presets};
use serde_json::Value;

use super::stage::{Stage, text};

/// Fewer columns than these are no terminal that somebody reads: `script` and some CI systems say 0.
const NARROWEST: u16 = 20;

/// Cells are wrapped only where the terminal says how wide it really is.
fn arrangement(columns: Option<u16>) -> ContentArrangement {
    let real = columns.filter(|columns| *columns >= NARROWEST);
    real.map_or(ContentArrangement::Disabled, |_| ContentArrangement::Dynamic)
}

/// An empty table with these headings.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(arrangement(table.width()));
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    // No lines between rows: 25 targets fit a screen.
    for line in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(line);
    }
    table.set_header(header);
    table
}

/// Listeners, with how many of their targets are healthy.
pub(crate) fn listeners(rows: &[Value]) -> Table {
    let mut table =
        table(["listener", "Service", "healthy", "registered", "fail-open", "flows", "new flows"]);
    for row in rows {
        table.add_row([
            text(row, "listener").to_owned(),
            format!("{}/{}", text(row, "namespace"), text(row, "service")),
            row["healthy"].to_string(),
            row["registered"].to_string(),
            if row["failOpen"] == true { "yes" } else { "no" }.to_owned(),
            row["flows"].to_string(),
            row["newFlows"].to_string(),
        ]);
    }
    table
}

/// Targets with state and reason.
pub(crate) fn targets(stage: &Stage, rows: &[Value]) -> Table {
    let mut table = table(["listener", "target", "pod", "state", "reason", "in words"]);
    for row in rows {
        table.add_row([
            Cell::new(text(row, "listener")),
            Cell::new(text(row, "target")),
            Cell::new(stage.pod_of(text(row, "target"))),
            // Colours show on a terminal only.
            Cell::new(text(row, "state")).fg(colour(text(row, "state"))),
            Cell::new(text(row, "reason")),
            Cell::new(text(row, "description")),
        ]);
    }
    table
}

fn colour(state: &str) -> Color {
    match state {
        "healthy" => Color::Green,
        "unhealthy" => Color::Red,
        _ => Color::Yellow,
    }
}

/// The reasons that have counted a packet; `None` unless there is a list of each kind.
pub(crate) fn drops(drops: &Value) -> Option<Table> {
    let mut table = table(["packets", "were", "reason", "what it means"]);
    for (list, were) in
        [("drops", "dropped"), ("passed", "left alone"), ("forwarded", "sent on"), ("noted", "noted as well")]
    {
        for row in drops[list].as_array()? {
            if row["packets"].as_u64()? > 0 {
                table.add_row([&row["packets"].to_string(), were, text(row, "reason"), text(row, "meaning")]);
            }
        }
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_wrapped_only_on_a_terminal_that_has_a_width() {
        let wraps = |columns| matches!(arrangement(columns), ContentArrangement::Dynamic);
        assert_eq!([None, Some(0), Some(19), Some(20)].map(wraps), [false, false, false, true]);
    }
}
