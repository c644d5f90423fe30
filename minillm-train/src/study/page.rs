//! `study.html`: the whole study on one page, and its figures as files of their own.

use std::fmt::Write as _;

use minillm_infer::html::chart::{Interval, IntervalChart, LineChart, Point, Scale, Series};
use minillm_infer::html::{Page, escape, table};
use minillm_infer::number::grouped;

use super::design::Unit;
use super::file::{Hold, Stretch};
use super::record::StudyRecord;
use super::result::{CurvePoint, RunResult};
use super::statistics::Estimate;
use super::summary::{Line, Over, StudySummary, VariantSummary};
use super::tables::{notes, stretch_name, tables};

const STYLE: &str = "\
.lead { font-size: 18px; }
.numbers td { white-space: nowrap; }
.verdicts { padding-left: 20px; max-width: 80ch; }
.verdicts li { margin: 0 0 6px; }
.sample { display: grid; grid-template-columns: 180px minmax(0, 1fr); gap: 4px 20px; border-top: 1px solid var(--line); padding: 12px 0; }
.sample p { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
@media (max-width: 480px) { .sample { grid-template-columns: 1fr; } .lead { font-size: 17px; } }
";

/// Up to this many learning curves have bands.
const MOST_BANDS: usize = 6;

/// A figure and the name of its file.
pub struct Figure {
    /// Without an ending.
    pub name: &'static str,
    /// It stands alone.
    pub svg: String,
}

/// What there is to see.
pub fn figures(summary: &StudySummary, runs: &[RunResult]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let rows = |value: &dyn Fn(&VariantSummary) -> Option<Estimate>| -> Vec<Interval> {
        let row = |variant: &VariantSummary| {
            let estimate = value(variant)?;
            let (low, high) = estimate.interval();
            Some(Interval { name: variant.name.clone(), value: estimate.mean, low, high })
        };
        summary.variants.iter().filter_map(row).collect()
    };
    let unit = summary.unit.words();
    let differences = rows(&|variant| variant.difference.map(|difference| difference.estimate));
    if !differences.is_empty() {
        let title = "Difference in validation loss".to_owned();
        let chart = IntervalChart { title, x_label: unit.to_owned(), reference: Some(0.0), rows: differences };
        figures.push(Figure { name: "difference", svg: chart.svg() });
    }
    let losses = rows(&|variant| loss(variant, summary.unit));
    let title = "Validation loss after the last step".to_owned();
    let chart = IntervalChart { title, x_label: unit.to_owned(), reference: None, rows: losses };
    figures.push(Figure { name: "loss", svg: chart.svg() });
    figures.push(Figure { name: "curves", svg: learning_curves(summary, runs).svg() });
    if let Some(over) = &summary.over {
        figures.push(Figure { name: "over", svg: losses_over(summary, over).svg() });
    }
    if let Some(chart) = context_curves(summary) {
        figures.push(Figure { name: "contexts", svg: chart.svg() });
    }
    figures
}

/// How the variants learned: the gap where a floor is known, else the loss, over what was held equal.
fn learning_curves(summary: &StudySummary, runs: &[RunResult]) -> LineChart {
    let has_bands = summary.variants.len() <= MOST_BANDS;
    let has_floor = summary.variants.iter().all(|variant| variant.gap.is_some());
    let series = |variant: &VariantSummary| {
        let runs: Vec<_> = runs.iter().filter(|run| run.variant == variant.name).collect();
        let value = |at: &CurvePoint| match summary.unit {
            Unit::NatsPerToken => at.loss,
            Unit::BitsPerByte => at.bits_per_byte,
        };
        // The floor is the same in all runs of a variant.
        let floor = runs.iter().find_map(|run| run.validation.as_ref()).and_then(|at| match summary.unit {
            Unit::NatsPerToken => at.floor,
            Unit::BitsPerByte => at.floor_bits_per_byte(),
        });
        let floor = floor.filter(|_| has_floor).unwrap_or(0.0);
        let mut steps: Vec<usize> = runs.iter().flat_map(|run| &run.curve).map(|at| at.step).collect();
        steps.sort_unstable();
        steps.dedup();
        let point = |step: usize| {
            let at = runs.iter().filter_map(|run| run.curve.iter().find(|at| at.step == step));
            let estimate = Estimate::of(&at.map(|at| value(at) - floor).collect::<Vec<_>>())?;
            let (low, high) = estimate.interval();
            let tokens = step as f64 * variant.tokens as f64 / variant.steps as f64;
            let x = match summary.hold {
                Hold::Flops => tokens * variant.training_flops_per_token as f64 / 1e12,
                Hold::Parameters | Hold::Nothing => tokens / 1e3,
            };
            // Three seeds early in training may have an interval that reaches below the possible, and bands of many curves
            // hide one another.
            let (low, high) =
                if has_bands { (low.max(estimate.mean / 4.0), high) } else { (estimate.mean, estimate.mean) };
            Some(Point { x, y: estimate.mean, low, high })
        };
        Series { name: variant.name.clone(), points: steps.into_iter().filter_map(point).collect() }
    };
    LineChart {
        title: if has_floor { "Gap to the floor in training" } else { "Validation loss in training" }.to_owned(),
        x_label: if summary.hold == Hold::Flops { "training TFLOPs" } else { "thousand tokens trained on" }.to_owned(),
        y_label: summary.unit.words().to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        series: summary.variants.iter().map(series).collect(),
    }
}

fn losses_over(summary: &StudySummary, over: &Over) -> LineChart {
    let point = |(x, variant): &(f64, usize)| {
        let estimate = loss(&summary.variants[*variant], summary.unit)?;
        let (low, high) = estimate.interval();
        Some(Point { x: *x, y: estimate.mean, low: low.max(estimate.mean / 4.0), high })
    };
    let series =
        |line: &Line| Series { name: line.name.clone(), points: line.points.iter().filter_map(point).collect() };
    LineChart {
        title: format!("Validation loss over {}", over.key),
        x_label: over.key.clone(),
        y_label: summary.unit.words().to_owned(),
        x_scale: if over.lines.iter().flat_map(|line| &line.points).all(|(x, _)| *x > 0.0) {
            Scale::Log
        } else {
            Scale::Linear
        },
        y_scale: Scale::Linear,
        series: over.lines.iter().map(series).collect(),
    }
}

/// The loss of a variant in the study's unit.
fn loss(variant: &VariantSummary, unit: Unit) -> Option<Estimate> {
    match unit {
        Unit::NatsPerToken => variant.loss,
        Unit::BitsPerByte => variant.bits_per_byte,
    }
}

fn context_curves(summary: &StudySummary) -> Option<LineChart> {
    let mut series = Vec::new();
    for variant in &summary.variants {
        for stretch in [None, Some(Stretch::Linear), Some(Stretch::Dynamic), Some(Stretch::Yarn)] {
            let at = variant.contexts.iter().filter(|at| at.stretch == stretch);
            let points: Vec<_> = at
                .filter_map(|at| {
                    let (low, high) = at.loss?.interval();
                    Some(Point { x: at.context as f64, y: at.loss?.mean, low, high })
                })
                .collect();
            if !points.is_empty() {
                let name = match stretch {
                    None => variant.name.clone(),
                    Some(_) => format!("{}, {}", variant.name, stretch_name(stretch)),
                };
                series.push(Series { name, points });
            }
        }
    }
    (!series.is_empty()).then(|| LineChart {
        title: "Loss at other contexts, without further training".to_owned(),
        x_label: "tokens seen at once".to_owned(),
        y_label: summary.unit.words().to_owned(),
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        series,
    })
}

/// The page.
pub fn page(record: &StudyRecord, summary: &StudySummary, runs: &[RunResult]) -> Page {
    let mut body =
        format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escape(&summary.title), escape(&summary.question));
    body.push_str("<ul class=\"verdicts\">\n");
    for variant in &summary.variants {
        let against = variant.against.as_ref().filter(|name| Some(*name) != summary.variants.first().map(|v| &v.name));
        let against = against.map_or(String::new(), |name| format!(" (compared with {})", escape(name)));
        // Writing to a `String` cannot fail, here and below.
        let _ = writeln!(body, "<li><b>{}</b>{against}: {}</li>", escape(&variant.name), escape(&variant.verdict));
    }
    body.push_str("</ul>\n<div class=\"charts\">\n");
    for figure in figures(summary, runs) {
        let _ = writeln!(body, "<div>{}</div>", figure.svg);
    }
    body.push_str("</div>\n");
    for numbers in tables(summary) {
        let header: Vec<String> = numbers.header.iter().map(|name| escape(name)).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let rows: Vec<Vec<String>> =
            numbers.rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
        let _ = write!(
            body,
            "<h2>{}</h2>\n<div class=\"numbers\">{}</div>\n",
            escape(&numbers.title),
            table(&header, &rows)
        );
    }
    for note in notes(summary) {
        let _ = writeln!(body, "<p class=\"soft\">{}</p>", escape(&note));
    }
    body.push_str(&samples(summary, runs));
    body.push_str(&all_runs(record, runs));
    Page { title: summary.title.clone(), body, script: "", style: STYLE }
}

/// A text per variant, by the run with its first seed that has one.
fn samples(summary: &StudySummary, runs: &[RunResult]) -> String {
    let mut html = String::new();
    for variant in &summary.variants {
        let sample = runs.iter().find(|run| run.variant == variant.name && run.sample.is_some());
        if let Some((run, text)) = sample.and_then(|run| Some((run, run.sample.as_ref()?))) {
            let _ = writeln!(
                html,
                "<div class=\"sample\"><div><b>{}</b><br><span class=\"soft\">seed {}</span></div><p>{}</p></div>",
                escape(&variant.name),
                run.seed,
                escape(text)
            );
        }
    }
    if html.is_empty() { html } else { format!("<h2>What the models write</h2>\n{html}") }
}

fn all_runs(record: &StudyRecord, runs: &[RunResult]) -> String {
    let row = |run: &RunResult| {
        let (loss, bits) = match (&run.validation, &run.diverged) {
            (Some(at), _) => (format!("{:.4}", at.loss), format!("{:.4}", at.bits_per_byte)),
            (None, Some(at)) => (format!("diverged at step {}", at.step), String::new()),
            (None, None) => (String::new(), String::new()),
        };
        let rate = run.tokens_per_second.map_or(String::new(), |rate| grouped(rate, 0));
        let memory = run.peak_memory_bytes.map_or(String::new(), |bytes| grouped(bytes as f64 / 1e6, 0));
        let cells = [
            run.variant.clone(),
            run.seed.to_string(),
            loss,
            bits,
            rate,
            memory,
            format!("{:.0}", run.seconds),
            run.environment.date.clone(),
        ];
        cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>()
    };
    let header = ["variant", "seed", "nats per token", "bits per byte", "tokens/s", "memory, MB", "seconds", "date"];
    let here = &record.environment;
    let mut html = format!(
        "<h2>All runs</h2>\n<p class=\"soft\">MiniLLM {} on {} ({}), {} threads, {}.</p>\n{}",
        escape(&here.version),
        escape(&here.device),
        escape(&here.device_description),
        here.threads,
        escape(&here.system),
        table(&header, &runs.iter().map(row).collect::<Vec<_>>())
    );
    for variant in &record.variants {
        let _ = writeln!(
            html,
            "<details><summary>{}: the whole configuration</summary>\n<pre>{}</pre></details>",
            escape(&variant.name),
            escape(variant.config.trim())
        );
    }
    html
}
