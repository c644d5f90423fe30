//! The figures of a report.

use minillm_infer::html::chart::{LineChart, Point, Scale, Series};

use super::recorded::Recorded;
use crate::metrics::tag;

/// Points of a curve: about as many as a figure is pixels wide.
const MOST_POINTS: usize = 400;

/// Values further apart than this factor are drawn on a logarithmic scale.
const WIDE: f64 = 4.0;

/// Those for which there are numbers.
pub fn charts(run: &Recorded) -> Vec<LineChart> {
    let curve = |name: &str, tag: &str| Series { name: name.to_owned(), points: thinned(run.values(tag).collect()) };
    let mut loss = vec![curve("training", tag::TRAIN_LOSS), curve("validation", tag::VAL_LOSS)];
    loss.extend(run.last(tag::VAL_FLOOR).and_then(|(_, floor)| level(run, "floor", floor)));
    let mut norm = vec![curve("norm", tag::TRAIN_GRAD_NORM)];
    if let Some(limit) = run.config.as_ref().map(|config| config.train.grad_clip).filter(|limit| *limit > 0.0)
        && norm[0].points.iter().any(|point| point.high >= limit)
    {
        norm.extend(level(run, "limit", limit));
    }
    let charts = [
        chart("Loss", "nats per token", loss),
        chart("Gap to the floor", "nats per token", vec![curve("gap", tag::VAL_GAP)]),
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
    let steps = || run.records.iter().map(|record| record.step as f64);
    let (first, last) = (steps().next()?, steps().next_back()?);
    Some(Series { name: name.to_owned(), points: vec![Point::at(first, y), Point::at(last, y)] })
}

/// At most [`MOST_POINTS`] points: of neighbours the mean, with a band from the lowest to the highest.
fn thinned(values: Vec<(u64, f64)>) -> Vec<Point> {
    if values.len() <= MOST_POINTS {
        return values.into_iter().map(|(step, value)| Point::at(step as f64, value)).collect();
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let group = |group: &[(u64, f64)]| {
        let steps: Vec<f64> = group.iter().map(|(step, _)| *step as f64).collect();
        let values: Vec<f64> = group.iter().map(|(_, value)| *value).collect();
        Point {
            x: mean(&steps),
            y: mean(&values),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    };
    values.chunks(values.len().div_ceil(MOST_POINTS)).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // small whole numbers are exact
    fn long_curves_are_thinned_and_keep_their_extremes() {
        let values: Vec<_> = (0..100_000).map(|step| (step, if step == 77_777 { 50.0 } else { 1.0 })).collect();
        let points = thinned(values);
        assert_eq!(points.len(), MOST_POINTS);
        assert_eq!(points.iter().map(|point| point.high).fold(0.0, f64::max), 50.0);
        assert!(points.iter().all(|point| point.low == 1.0 && point.low <= point.y && point.y <= point.high));
        assert_eq!(points[0].x, 124.5);
        let short = thinned(vec![(1, 2.0), (2, 3.0)]);
        assert_eq!(short, [Point::at(1.0, 2.0), Point::at(2.0, 3.0)]);
    }
}
