//! How `top` looks.

use super::state::{Tab, Top};
use crate::report::{Rate, State, count, scaled};
use crate::socket::Sample;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState};

/// Draws everything.
pub(super) fn draw(top: &Top, frame: &mut Frame<'_>) {
    let notice = u16::from(top.notice.is_some());
    let [title, said, graph, list, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(notice),
        Constraint::Length(5),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(top)), title);
    if let Some(notice) = &top.notice {
        frame.render_widget(Paragraph::new(notice.as_str()).style(Color::Yellow), said);
    }
    draw_history(top, frame, graph);
    draw_list(top, frame, list);
    let help = "tab listeners/targets   up down pgup pgdn move   q quit";
    frame.render_widget(Paragraph::new(help).style(Color::DarkGray), keys);
}

fn heading(top: &Top) -> Line<'static> {
    let total = top.total();
    let flows: u64 =
        top.sample().map_or(0, |sample| sample.listeners.iter().map(|row| row.traffic.flows).sum());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![
        Span::styled("nlb ", bold),
        Span::raw(format!(
            " {} flows   {} packets/s   {} bits/s   {} new flows/s",
            count(flows),
            scaled(total.packets),
            scaled(total.bits),
            scaled(total.new_flows),
        )),
    ])
}

fn draw_history(top: &Top, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(" packets/s, all listeners, newest at the right ");
    let width = usize::from(block.inner(area).width);
    let skipped = top.history.len().saturating_sub(width);
    let blank = width.saturating_sub(top.history.len());
    let bars = std::iter::repeat_n(0, blank).chain(top.history.iter().skip(skipped).copied());
    let bars: Vec<u64> = bars.collect();
    frame.render_widget(Sparkline::default().block(block).data(&bars).style(Color::Cyan), area);
}

fn draw_list(top: &Top, frame: &mut Frame<'_>, area: Rect) {
    let Some(sample) = top.sample() else { return };
    let table = match top.tab {
        Tab::Listeners => listeners(sample, &top.listener_rates),
        Tab::Targets => targets(sample, &top.target_rates),
    };
    let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut cursor = TableState::default().with_selected(Some(top.selected));
    frame.render_stateful_widget(table, area, &mut cursor);
}

fn listeners(sample: &Sample, rates: &[Rate]) -> Table<'static> {
    let rows = sample.listeners.iter().enumerate().map(|(i, row)| {
        let health = match (row.healthy, row.registered) {
            (Some(healthy), Some(registered)) => format!("{healthy}/{registered}"),
            (Some(_) | None, _) => "?".to_owned(),
        };
        let colour = match (row.healthy, row.fail_open) {
            (Some(0), _) => Color::Red,
            (_, Some(true)) => Color::Yellow,
            (_, Some(false) | None) => Color::Green,
        };
        let mut cells = vec![
            Cell::new(row.listener.to_string()),
            Cell::new(row.service.clone().unwrap_or_else(|| "?".to_owned())),
            Cell::new(health).style(colour),
        ];
        cells.extend(speeds(row.traffic.flows, rates.get(i)));
        Row::new(cells)
    });
    list(rows.collect(), " listeners ", ["LISTENER", "SERVICE", "HEALTHY"], [32, 28, 9])
}

fn targets(sample: &Sample, rates: &[Rate]) -> Table<'static> {
    let rows = sample.targets.iter().enumerate().map(|(i, row)| {
        let state = row.state.map_or("?", State::word);
        let mut cells = vec![
            Cell::new(row.listener.to_string()),
            Cell::new(row.target.to_string()),
            Cell::new(state).style(row.state.map_or(Color::Reset, colour)),
        ];
        cells.extend(speeds(row.traffic.flows, rates.get(i)));
        Row::new(cells)
    });
    list(rows.collect(), " targets ", ["LISTENER", "TARGET", "STATE"], [32, 28, 9])
}

fn list(
    rows: Vec<Row<'static>>,
    title: &'static str,
    first: [&'static str; 3],
    widths: [u16; 3],
) -> Table<'static> {
    let widths = widths.map(Constraint::Max).into_iter().chain([Constraint::Length(9); 4]);
    let headings = first.into_iter().chain(["FLOWS", "PKTS/S", "BITS/S", "NEW/S"]);
    let header = Row::new(headings).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(header).block(Block::bordered().title(title))
}

fn speeds(flows: u64, rate: Option<&Rate>) -> [Cell<'static>; 4] {
    let speed =
        |of: fn(&Rate) -> f64| Cell::new(rate.map_or_else(|| "-".to_owned(), |rate| scaled(of(rate))));
    [Cell::new(count(flows)), speed(|r| r.packets), speed(|r| r.bits), speed(|r| r.new_flows)]
}

fn colour(state: State) -> Color {
    match state {
        State::Healthy => Color::Green,
        State::Initial => Color::Yellow,
        State::Draining => Color::Cyan,
        State::Unhealthy => Color::Red,
        State::Unused => Color::DarkGray,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::View;
    use crate::report::tests::five_ports;
    use crossterm::event::{KeyCode, KeyModifiers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::{Duration, Instant};

    fn screen(top: &Top) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 20)).unwrap();
        terminal.draw(|frame| draw(top, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(110);
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n").collect()
    }

    fn busy() -> Top {
        let began = Instant::now();
        let mut top = Top::default();
        let mut sample = Sample::of(five_ports());
        top.take(began, sample.clone());
        sample.listeners[0].traffic.packets += 1_000;
        sample.listeners[0].traffic.bytes += 64_000;
        top.take(began + Duration::from_secs(1), sample);
        top
    }

    #[test]
    fn listeners_have_their_health_and_speed() {
        let text = screen(&busy());
        let row = text.lines().find(|line| line.contains("192.0.2.10:5001/TCP")).unwrap();
        for part in ["internal-nlb-service", "1/5", "1.00 k", "512 k"] {
            assert!(row.contains(part), "{part} in {row}");
        }
        assert!(text.lines().next().unwrap().contains("1.00 k packets/s"), "{text}");
        assert!(text.contains('█'), "a bar for the last second:\n{text}");
    }

    #[test]
    fn the_other_tab_has_targets_and_scrolls_to_the_cursor() {
        let mut top = busy();
        top.key(KeyCode::Tab, KeyModifiers::NONE);
        assert!(screen(&top).contains("10.1.0.1:5001"));
        top.key(KeyCode::End, KeyModifiers::NONE);
        let text = screen(&top);
        assert!(text.contains("10.1.0.5:5005") && !text.contains("10.1.0.1:5001"), "{text}");
    }

    #[test]
    fn a_notice_is_shown_and_an_empty_view_is_no_trouble() {
        let mut top = Top::default();
        top.notice = Some("the agent is not running".to_owned());
        assert!(screen(&top).contains("the agent is not running"));
    }
}
