//! What a report keeps of a run's metrics: of a month's as much as of a minute's.

use std::collections::BTreeMap;

use minillm_infer::html::chart::Point;

use crate::metrics::{Record, tag};

/// Points of a curve, at most: a figure is about half as many pixels wide.
const MOST_POINTS: usize = 800;

/// The metrics of a run.
#[derive(Debug, Default)]
pub struct History {
    curves: BTreeMap<&'static str, Curve>,
    /// Steps of the first record and of the last.
    steps: Option<(usize, usize)>,
    tokens: u64,
}

impl History {
    /// Takes the next record.
    pub fn add(&mut self, record: &Record) {
        let first = self.steps.map_or(record.step, |(first, _)| first);
        (self.steps, self.tokens) = (Some((first, record.step)), record.tokens);
        for (tag, value) in &record.values {
            self.curves.entry(tag).or_default().add(record.step, *value);
        }
    }

    /// The points of a tag's values.
    pub fn points(&self, tag: &str) -> Vec<Point> {
        self.curves.get(tag).map(Curve::points).unwrap_or_default()
    }

    /// A tag's last value, and its step.
    pub fn last(&self, tag: &str) -> Option<(usize, f64)> {
        self.curves.get(tag)?.last
    }

    /// The lowest validation loss, and its step.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.curves.get(tag::VAL_LOSS)?.lowest
    }

    /// Steps of the first record and of the last.
    pub fn steps(&self) -> Option<(usize, usize)> {
        self.steps
    }

    /// Steps and tokens so far.
    pub fn progress(&self) -> Option<(usize, u64)> {
        self.steps.map(|(_, last)| (last, self.tokens))
    }
}

/// The values of a tag, neighbours together once there are many.
#[derive(Debug)]
struct Curve {
    /// In order; all but the last are full.
    buckets: Vec<Bucket>,
    /// Values in a full bucket.
    full: u32,
    last: Option<(usize, f64)>,
    lowest: Option<(usize, f64)>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { buckets: Vec::new(), full: 1, last: None, lowest: None }
    }
}

impl Curve {
    fn add(&mut self, step: usize, value: f64) {
        self.last = Some((step, value));
        self.lowest = self.lowest.filter(|(_, lowest)| *lowest <= value).or(self.last);
        let one = Bucket { count: 1, steps: step as f64, values: value, low: value, high: value };
        match self.buckets.last_mut().filter(|last| last.count < self.full) {
            Some(last) => *last = last.joined(&one),
            None => self.buckets.push(one),
        }
        if self.buckets.len() > MOST_POINTS {
            self.buckets =
                self.buckets.chunks(2).map(|pair| pair[1..].iter().fold(pair[0], |a, b| a.joined(b))).collect();
            self.full *= 2;
        }
    }

    fn points(&self) -> Vec<Point> {
        self.buckets.iter().map(Bucket::point).collect()
    }
}

/// Neighbouring values.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    count: u32,
    /// Sums.
    steps: f64,
    values: f64,
    /// Extremes.
    low: f64,
    high: f64,
}

impl Bucket {
    fn joined(&self, next: &Self) -> Self {
        Self {
            count: self.count + next.count,
            steps: self.steps + next.steps,
            values: self.values + next.values,
            low: self.low.min(next.low),
            high: self.high.max(next.high),
        }
    }

    /// The mean, with a band from the lowest to the highest.
    fn point(&self) -> Point {
        let count = f64::from(self.count);
        Point { x: self.steps / count, y: self.values / count, low: self.low, high: self.high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(count: usize, loss: impl Fn(usize) -> f64) -> History {
        let mut history = History::default();
        for step in 1..=count {
            history.add(&Record::new(step, 64 * step as u64).with(tag::VAL_LOSS, loss(step)));
        }
        history
    }

    #[test]
    fn a_short_run_is_kept_as_it_is() {
        let history = history(3, |step| 1.0 / step as f64);
        let expected: Vec<_> = (1..=3).map(|step| Point::at(f64::from(step), 1.0 / f64::from(step))).collect();
        assert_eq!(history.points(tag::VAL_LOSS), expected);
        assert_eq!(history.points(tag::VAL_GAP), []);
        assert_eq!((history.steps(), history.progress()), (Some((1, 3)), Some((3, 192))));
        let (last, best) = (history.last(tag::VAL_LOSS), history.best());
        assert_eq!((last, best, history.last(tag::VAL_GAP)), (Some((3, 1.0 / 3.0)), Some((3, 1.0 / 3.0)), None));
    }

    #[test]
    #[allow(clippy::float_cmp)] // small whole numbers are exact
    fn a_long_run_keeps_its_extremes_in_few_points() {
        let loss = |step| match step {
            77_777 => 50.0,
            88_888 => 0.5,
            _ => 1.0,
        };
        let history = history(100_001, loss);
        let points = history.points(tag::VAL_LOSS);
        assert!(points.len() > MOST_POINTS / 2 && points.len() <= MOST_POINTS, "{}", points.len());
        let around = |step: f64| points.iter().min_by_key(|point| (point.x - step).abs() as u64).unwrap();
        assert_eq!((around(77_777.0).high, around(88_888.0).low), (50.0, 0.5));
        assert_eq!(points.iter().filter(|point| point.low != 1.0 || point.high != 1.0).count(), 2);
        assert!(points.iter().all(|point| point.low <= point.y && point.y <= point.high));
        assert!(points.windows(2).all(|pair| pair[0].x < pair[1].x));
        assert_eq!(points[0].x, 64.5); // 1 to 128
        assert_eq!((history.best(), history.last(tag::VAL_LOSS)), (Some((88_888, 0.5)), Some((100_001, 1.0))));
    }
}
