//! The chart over time for a terminal: a line of bars for each pod, failures and events below.

use super::timeline::{BIN, Event, Timeline, bin, rate};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Prints requests per second by pod.
pub(crate) fn show(timeline: &Timeline) {
    println!("\n  Requests per second by pod; each column is {} ms", BIN.as_millis());
    for line in lines(timeline) {
        println!("  {line}");
    }
    for (index, event) in timeline.events.iter().enumerate() {
        println!("  {} {:5.1} s  {}", Event::letter(index), event.at.as_secs_f64(), event.text);
    }
}

fn lines(timeline: &Timeline) -> Vec<String> {
    let series: Vec<(&str, Vec<u32>)> =
        timeline.pods().into_iter().map(|pod| (pod, timeline.counts(Some(pod)))).collect();
    // One scale for all, so that lines can be compared.
    let most = series.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(0);
    let mut lines: Vec<String> = series.iter().map(|(pod, counts)| line(pod, counts, most)).collect();
    let failures = timeline.counts(None);
    let marks: String = failures.iter().map(|&count| if count == 0 { '·' } else { '✗' }).collect();
    lines.push(format!("{:<8} {marks}  {} in all", "failed", failures.iter().sum::<u32>()));
    lines.push(format!("{:<8} {}", "events", events(timeline, failures.len())));
    lines
}

fn line(pod: &str, counts: &[u32], most: u32) -> String {
    let bars: String = counts.iter().map(|&count| bar(count, most)).collect();
    format!("{pod:<8} {bars}  up to {:.0}/s", rate(counts.iter().copied().max().unwrap_or(0)))
}

/// Nothing is a blank; anything at all shows.
fn bar(count: u32, most: u32) -> char {
    match (count * 8).div_ceil(most.max(1)) {
        0 => ' ',
        eighths => BARS[eighths.min(8) as usize - 1],
    }
}

fn events(timeline: &Timeline, columns: usize) -> String {
    let mut line = vec![' '; columns];
    for (index, event) in timeline.events.iter().enumerate() {
        // Two events in one column: the second goes beside the first.
        let free = (bin(event.at)..columns).find(|&column| line[column] == ' ');
        if let Some(column) = free {
            line[column] = Event::letter(index);
        }
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_count() {
        assert_eq!(bar(0, 10), ' ');
        assert_eq!(bar(1, 100), '▁');
        assert_eq!(bar(100, 100), '█');
        assert_eq!(bar(0, 0), ' ');
        let heights: Vec<char> = (1..=8).map(|count| bar(count, 8)).collect();
        assert_eq!(heights, BARS);
    }
}
