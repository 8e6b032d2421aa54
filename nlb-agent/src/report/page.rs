//! What the tables are printed on: width, colours, and how numbers and times are written for people.

use super::State;
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, TableComponent,
    presets,
};
use jiff::Timestamp;
use std::io::IsTerminal;

/// Where a table is printed.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Columns of the terminal; `None` = as wide as it needs.
    pub width: Option<u16>,
    /// Whether colours are understood.
    pub colour: bool,
    /// The moment that ages are counted from.
    pub now: Timestamp,
}

impl Page {
    /// Standard output as it is: colours and a width only on a terminal, no colours where `NO_COLOR` is set.
    pub fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let size = if terminal { crossterm::terminal::size().ok() } else { None };
        Self {
            width: size.and_then(|(columns, _)| real(columns)),
            colour: terminal && !plain,
            now: Timestamp::now(),
        }
    }

    /// An empty table with these headings: `>` begins one of numbers, `~` one of free text, which alone may be wrapped.
    pub(super) fn table(&self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(arrangement(self.width));
        for line in [TableComponent::HeaderLines, TableComponent::MiddleHeaderIntersections] {
            table.set_style(line, '─');
        }
        if let Some(width) = self.width {
            table.set_width(width);
        }
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let titles = headings.iter().map(|heading| heading.trim_start_matches(['>', '~']));
        table.set_header(titles.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if !heading.starts_with('~') {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
    }

    /// The table as text; where the page is too narrow, without the columns of `spare`, the first of them first.
    pub(super) fn text(&self, mut table: Table, spare: &[usize]) -> String {
        let mut widths: Vec<usize> = table.column_max_content_widths().into_iter().map(usize::from).collect();
        let free: Vec<usize> = (0..widths.len()).filter(|i| is_free(&table, *i)).collect();
        for column in free {
            widths[column] = widths[column].min(ROOM);
        }
        let mut needed: usize = widths.iter().map(|width| width + PADDING).sum();
        for column in spare {
            if needed > self.width.map_or(usize::MAX, usize::from) {
                needed -= widths[*column] + PADDING;
                let column = table.column_mut(*column).expect("a column of the heading");
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
        table.trim_fmt() + "\n"
    }

    /// Lines of text wrapped at the page's width, an indent for those after the first.
    pub(super) fn lines<S: AsRef<str>>(&self, lines: &[S]) -> String {
        lines.iter().map(|line| self.wrapped(line.as_ref()) + "\n").collect()
    }

    fn wrapped(&self, line: &str) -> String {
        let width = self.width.map_or(usize::MAX, usize::from);
        let mut text = String::new();
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            let letters = word.trim_end().chars().count();
            if column > 0 && column + letters > width {
                text.truncate(text.trim_end().len());
                text.push_str("\n  ");
                column = 2;
            }
            text.push_str(word);
            column += word.chars().count();
        }
        text
    }
}

/// Fewer columns than these are no terminal that somebody reads: `script` and some CI systems say 0 or 1.
const NARROWEST: u16 = 20;

/// The width that a terminal says it has, if it can be one.
fn real(columns: u16) -> Option<u16> {
    Some(columns).filter(|columns| *columns >= NARROWEST)
}

/// How a table is to be arranged on a terminal that says it has so many columns: cells are wrapped only where that is
/// true, because a table asks the terminal again where it is given no width.
pub fn arrangement(columns: Option<u16>) -> ContentArrangement {
    columns.and_then(real).map_or(ContentArrangement::Disabled, |_| ContentArrangement::Dynamic)
}

/// A blank on either side of a cell.
const PADDING: usize = 2;

/// The columns that free text is given before others must go.
const ROOM: usize = 28;

fn is_free(table: &Table, column: usize) -> bool {
    table.column(column).is_some_and(|column| column.constraint().is_none())
}

/// A cell in the colour of a state.
pub(super) fn state_cell(state: Option<State>) -> Cell {
    match state {
        Some(state) => Cell::new(state.word()).fg(colour(state)),
        None => Cell::new("?"),
    }
}

fn colour(state: State) -> Color {
    match state {
        State::Healthy => Color::Green,
        State::Initial => Color::Yellow,
        State::Draining => Color::Cyan,
        State::Unhealthy => Color::Red,
        State::Unused => Color::DarkGrey,
    }
}

/// A cell for something that may be unknown.
pub(super) fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `2 targets`, `1 target`, `0 targets`.
pub(super) fn plural(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {one}s", count(n as u64)) }
}

/// The first ten of many lines, and how many more there are.
pub(super) fn a_few(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    let more = lines.len().saturating_sub(10);
    if more > 0 {
        lines.truncate(10);
        lines.push(format!("! … and {} more like these.", count(more as u64)));
    }
    lines
}

/// A number with its thousands set apart: `1 048 576`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number with a decimal prefix and three digits that count: `999`, `1.25 k`, `38.4 M`.
pub fn scaled(n: f64) -> String {
    let mut rest = n;
    for prefix in ["", " k", " M", " G", " T", " P"] {
        if rest < 999.5 || prefix == " P" {
            let decimals = match rest {
                _ if prefix.is_empty() && rest.fract() == 0.0 => 0,
                x if x >= 99.95 => 0,
                x if x >= 9.995 => 1,
                _ if prefix.is_empty() => 1,
                _ => 2,
            };
            return format!("{rest:.decimals$}{prefix}");
        }
        rest /= 1_000.0;
    }
    unreachable!("the last prefix takes everything")
}

/// How long ago: `12s`, `3m 5s`, `2h 10m`, `5d 3h`; a time to come is `0s`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            ["0", "999", "1 000", "1 048 576"],
            [0, 999, 1_000, 1_048_576].map(count).map(|s| s.to_string()).each_ref().map(String::as_str)
        );
        let written = [0.0, 1.5, 42.0, 999.0, 1_000.0, 12_345.0, 999_600.0, 38_400_000.0].map(scaled);
        assert_eq!(written, ["0", "1.5", "42", "999", "1.00 k", "12.3 k", "1.00 M", "38.4 M"]);
    }

    #[test]
    fn a_terminal_of_no_columns_has_no_width() {
        assert_eq!([0, 1, 19, 20, 80].map(real), [None, None, None, Some(20), Some(80)]);
    }

    #[test]
    fn a_table_without_a_real_width_is_not_wrapped() {
        let text = |width: Option<u16>| {
            let mut table = Table::new();
            table.set_header(["~what to do"]).add_row(["raise the limit of open files"]);
            width.map(|width| table.set_width(width));
            table.set_content_arrangement(arrangement(table.width()));
            table.trim_fmt()
        };
        assert_eq!([0, 1, 19].map(|width| text(Some(width))), [(); 3].map(|()| text(None)));
        assert!(text(Some(20)).lines().count() > text(None).lines().count());
    }

    #[test]
    fn ten_are_enough() {
        let lines = |n: usize| a_few((0..n).map(|i| i.to_string()));
        assert_eq!((lines(10).len(), lines(25).len()), (10, 11));
        assert_eq!(lines(25)[10], "! … and 15 more like these.");
    }

    #[test]
    fn ages_for_people() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| age(Timestamp::from_second(1_000_000 - seconds).unwrap(), now);
        assert_eq!(
            [ago(-5), ago(59), ago(185), ago(7_800), ago(270_000)],
            ["0s", "59s", "3m 5s", "2h 10m", "3d 3h"]
        );
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit_and_keep_their_words(words in proptest::collection::vec("[a-z]{1,12}", 1..40), width in 20u16..60) {
            let page = Page { width: Some(width), colour: false, now: Timestamp::UNIX_EPOCH };
            let text = page.lines(&[words.join(" ")]);
            prop_assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{}", text);
            let again: Vec<&str> = text.split_whitespace().collect();
            prop_assert_eq!(again, words);
        }
    }
}
