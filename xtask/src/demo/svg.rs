//! The chart over time as an SVG file.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::timeline::{BIN, Event, Timeline, rate};

type Picture<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const SIZE: (u32, u32) = (1200, 560);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(255, 127, 14),
];

/// Writes requests per second by pod, failures as red bars, events as dashed lines with their letter.
pub(crate) fn write(timeline: &Timeline, file: &Path) -> Result<()> {
    let folder = file.parent().context("the picture needs a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let picture = SVGBackend::new(file, SIZE).into_drawing_area();
    // The library's errors borrow the picture.
    draw(timeline, &picture).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
    picture.present().map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

fn draw(timeline: &Timeline, picture: &Picture<'_>) -> Result<(), Box<dyn std::error::Error>> {
    picture.fill(&WHITE)?;
    let (plot, legend) =
        picture.split_vertically(SIZE.1 - 26 - 15 * i32_of(timeline.events.len().div_ceil(3)).unsigned_abs());
    let all: Vec<Vec<u32>> = timeline.pods().iter().map(|pod| timeline.counts(Some(pod))).collect();
    let failures = timeline.counts(None);
    let highest = all.iter().flatten().chain(&failures).copied().max().map_or(1.0, rate) * 1.1;
    // Room on the right for the names.
    let end = second(failures.len()) * 1.09;
    let mut chart = ChartBuilder::on(&plot)
        .caption("nlb demo: requests per second by pod", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..end, 0.0..highest)?;
    chart.configure_mesh().x_desc("seconds").y_desc("requests / s").light_line_style(WHITE).draw()?;
    let bars = failures.iter().enumerate().filter(|(_, count)| **count > 0);
    chart
        .draw_series(bars.map(|(index, &count)| {
            Rectangle::new([(second(index), 0.0), (second(index + 1), rate(count))], RED.mix(0.5).filled())
        }))?
        .label("failed")
        .legend(|(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], RED.mix(0.5).filled()));
    draw_pods(timeline, &mut chart)?;
    draw_events(timeline, &mut chart, highest)?;
    chart.configure_series_labels().background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).draw()?;
    draw_legend(timeline, &legend)
}

fn draw_pods(timeline: &Timeline, chart: &mut Chart<'_, '_>) -> Result<(), Box<dyn std::error::Error>> {
    for (pod, colour) in timeline.pods().into_iter().zip(COLOURS.iter().cycle()) {
        let counts = timeline.counts(Some(pod));
        // The last column is cut off by the load's end, which would look like a fall.
        let whole = &counts[..counts.len().saturating_sub(1)];
        let points = whole
            .iter()
            .enumerate()
            .map(|(index, &count)| (second(index) + BIN.as_secs_f64() / 2.0, rate(count)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(pod)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    Ok(())
}

fn draw_events(
    timeline: &Timeline,
    chart: &mut Chart<'_, '_>,
    highest: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    for (index, event) in timeline.events.iter().enumerate() {
        let at = event.at.as_secs_f64();
        let line = DashedLineSeries::new([(at, 0.0), (at, highest)], 4, 4, BLACK.mix(0.6).into());
        chart.draw_series(line)?;
        let letter = Event::letter(index).to_string();
        // Letters of events close together stand one below the other.
        let height = highest * (0.99 - 0.04 * f64::from(i32_of(index % 3)));
        chart.draw_series([Text::new(letter, (at + 0.1, height), ("sans-serif", 14))])?;
    }
    Ok(())
}

fn draw_legend(timeline: &Timeline, area: &Picture<'_>) -> Result<(), Box<dyn std::error::Error>> {
    for (index, event) in timeline.events.iter().enumerate() {
        let text = format!("{}  {:.1} s  {}", Event::letter(index), event.at.as_secs_f64(), event.text);
        let at = (60 + 380 * i32_of(index % 3), 4 + 15 * i32_of(index / 3));
        area.draw(&Text::new(text, at, ("sans-serif", 13)))?;
    }
    Ok(())
}

/// When a column begins.
fn second(column: usize) -> f64 {
    f64::from(i32_of(column)) * BIN.as_secs_f64()
}

fn i32_of(number: usize) -> i32 {
    i32::try_from(number).expect("a demo has few columns and events")
}
