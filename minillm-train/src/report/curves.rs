//! The figures of a report.

use minillm_infer::html::chart::{LineChart, Point, Scale, Series};

use super::recorded::Recorded;
use crate::metrics::tag;

/// Values further apart than this factor are drawn on a logarithmic scale.
const WIDE: f64 = 4.0;

/// Those for which there are numbers.
pub fn charts(run: &Recorded) -> Vec<LineChart> {
    let curve = |name: &str, tag: &str| Series { name: name.to_owned(), points: run.history.points(tag) };
    let mut loss = vec![curve("training", tag::TRAIN_LOSS), curve("validation", tag::VAL_LOSS)];
    loss.extend(run.history.last(tag::VAL_FLOOR).and_then(|(_, floor)| level(run, "floor", floor)));
    let grades = tag::GRADES.map(|tag| curve(&tag.trim_start_matches("val/").replace('_', " "), tag)).to_vec();
    let mut norm = vec![curve("norm", tag::TRAIN_GRAD_NORM)];
    if let Some(limit) = run.config.as_ref().map(|config| config.train.grad_clip).filter(|limit| *limit > 0.0)
        && norm[0].points.iter().any(|point| point.high >= limit)
    {
        norm.extend(level(run, "limit", limit));
    }
    let charts = [
        chart("Loss", "nats per token", loss),
        chart("Gap to the floor", "nats per token", vec![curve("gap", tag::VAL_GAP)]),
        linear(chart("Graded by program", "share of passes", grades)),
        linear(chart("Speed", "tokens per second", vec![curve("speed", tag::TRAIN_TOKENS_PER_SECOND)])),
        chart("Gradient norm, before clipping", "", norm),
        linear(chart("Learning rate", "", vec![curve("rate", tag::TRAIN_LR)])),
    ];
    charts.into_iter().filter(|chart| !chart.series.is_empty()).collect()
}

fn chart(title: &str, unit: &str, mut series: Vec<Series>) -> LineChart {
    series.retain(|series| !series.points.is_empty());
    let values = || series.iter().flat_map(|series| &series.points).flat_map(|point| [point.low, point.high]);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let y_scale = if low > 0.0 && high > WIDE * low { Scale::Log } else { Scale::Linear };
    LineChart {
        title: title.to_owned(),
        x_label: "step".to_owned(),
        y_label: unit.to_owned(),
        x_scale: Scale::Linear,
        y_scale,
        series,
    }
}

/// What begins at nothing has no place for it on a logarithmic scale.
fn linear(chart: LineChart) -> LineChart {
    LineChart { y_scale: Scale::Linear, ..chart }
}

/// A line at one height, from the first record to the last.
fn level(run: &Recorded, name: &str, y: f64) -> Option<Series> {
    let (first, last) = run.history.steps()?;
    Some(Series { name: name.to_owned(), points: [first, last].map(|step| Point::at(step as f64, y)).to_vec() })
}
