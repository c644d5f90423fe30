//! The results as tables: aligned columns for a terminal, Markdown, CSV.
//!
//! The cells are the same everywhere; a terminal gets them aligned, in several blocks that fit side by side on a page.

use std::fmt::Write as _;

use minillm_infer::number::grouped;

use super::design::Unit;
use super::file::{Hold, Stretch};
use super::statistics::Estimate;
use super::summary::{ContextSummary, StudySummary, VariantSummary};

/// A table: a heading, column names and rows.
pub struct Table {
    /// What it is about.
    pub title: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// One cell per column.
    pub rows: Vec<Vec<String>>,
}

/// What a summary is shown as: losses, costs, and other contexts where they were measured.
pub fn tables(summary: &StudySummary) -> Vec<Table> {
    let mut tables = vec![losses(summary), costs(summary)];
    if summary.variants.iter().any(|variant| !variant.contexts.is_empty()) {
        tables.push(contexts(summary));
    }
    tables
}

fn losses(summary: &StudySummary) -> Table {
    let unit = summary.unit.words();
    let has_others = has_other_references(summary);
    let has_gap = summary.variants.iter().any(|variant| variant.gap.is_some());
    let mut header = vec!["variant".to_owned(), "nats per token".to_owned(), "bits per byte".to_owned()];
    if has_others {
        header.push("compared with".to_owned());
    }
    header.push(format!("difference ({unit})"));
    if has_gap {
        header.push(format!("gap to the floor ({unit})"));
    }
    let row = |variant: &VariantSummary| {
        let mut row = vec![variant.name.clone(), with_interval(variant.loss), with_interval(variant.bits_per_byte)];
        if has_others {
            row.push(variant.against.clone().unwrap_or_default());
        }
        row.push(variant.difference.map_or(String::new(), |difference| signed(difference.estimate)));
        if has_gap {
            row.push(with_interval(variant.gap));
        }
        row
    };
    Table {
        title: "Validation loss after the last step".to_owned(),
        header,
        rows: summary.variants.iter().map(row).collect(),
    }
}

/// Whether not all are compared with the first.
fn has_other_references(summary: &StudySummary) -> bool {
    let first = summary.variants.first().map(|variant| &variant.name);
    summary.variants.iter().any(|variant| variant.against.is_some() && variant.against.as_ref() != first)
}

fn costs(summary: &StudySummary) -> Table {
    let header = [
        "variant",
        "parameters",
        "MLP width",
        "steps",
        "FLOPs per token",
        "TFLOPs in all",
        "tokens/s",
        "memory, MB",
        "cache, bytes/token",
        "decoding, tokens/s",
    ];
    let row = |variant: &VariantSummary| {
        vec![
            variant.name.clone(),
            grouped(variant.parameters as f64, 0),
            variant.intermediate_size.to_string(),
            variant.steps.to_string(),
            grouped(variant.training_flops_per_token as f64, 0),
            format!("{:.2}", variant.training_flops / 1e12),
            mean(variant.tokens_per_second),
            variant.peak_memory_bytes.map_or("n/a".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
            grouped(variant.kv_cache_bytes_per_token as f64, 0),
            mean(variant.decode_tokens_per_second),
        ]
    };
    Table {
        title: "What it costs to train and to run".to_owned(),
        header: header.map(str::to_owned).to_vec(),
        rows: summary.variants.iter().map(row).collect(),
    }
}

fn contexts(summary: &StudySummary) -> Table {
    let mut lengths: Vec<usize> = Vec::new();
    let mut stretches: Vec<Option<Stretch>> = Vec::new();
    for at in summary.variants.iter().flat_map(|variant| &variant.contexts) {
        if !lengths.contains(&at.context) {
            lengths.push(at.context);
        }
        if !stretches.contains(&at.stretch) {
            stretches.push(at.stretch);
        }
    }
    let mut header = vec!["variant".to_owned(), "angles".to_owned()];
    header.extend(lengths.iter().map(|length| format!("{length} tokens")));
    let mut rows = Vec::new();
    for variant in &summary.variants {
        for stretch in &stretches {
            let at =
                |length: &usize| variant.contexts.iter().find(|at| at.context == *length && at.stretch == *stretch);
            let measured: Vec<_> = lengths.iter().map(at).collect();
            // A variant without angles has nothing to say about stretching them.
            if stretch.is_some() && measured.iter().flatten().all(|at| at.loss.is_none()) {
                continue;
            }
            let mut row = vec![variant.name.clone(), stretch_name(*stretch).to_owned()];
            row.extend(measured.iter().map(|at| at.map_or(String::new(), context_cell)));
            rows.push(row);
        }
    }
    Table { title: format!("Loss of the trained models at other contexts ({})", summary.unit.words()), header, rows }
}

fn context_cell(at: &ContextSummary) -> String {
    match (&at.loss, &at.note) {
        (None, Some(note)) => note.clone(),
        (loss, _) => with_interval(*loss),
    }
}

/// The name of a way of scaling, in words.
pub fn stretch_name(stretch: Option<Stretch>) -> &'static str {
    match stretch {
        None => "as trained",
        Some(Stretch::Linear) => "linear",
        Some(Stretch::Dynamic) => "dynamic",
        Some(Stretch::Yarn) => "yarn",
    }
}

/// What stands below the tables: how they came about.
pub fn notes(summary: &StudySummary) -> Vec<String> {
    let held = match summary.hold {
        Hold::Parameters => "Held equal: parameters, by the width of the MLP.",
        Hold::Flops => "Held equal: floating-point operations of the whole training, by the number of steps.",
        Hold::Nothing => "Held equal: the budget alone.",
    };
    let reference = summary.variants.first().map_or("", |variant| variant.name.as_str());
    let from = if has_other_references(summary) {
        "from the variant named beside them".to_owned()
    } else {
        format!("from \"{reference}\"")
    };
    let mut notes = vec![
        held.to_owned(),
        format!(
            "\u{b1} is half of a 95 % interval over the seeds (Student's t). Differences are {from}, taken seed by \
             seed where the seeds are the same. Of twenty comparisons without any difference, one is expected to look like one."
        ),
        "All variants are scored on the same validation text, after the last step and not at the best on the way."
            .to_owned(),
    ];
    if summary.unit == Unit::BitsPerByte {
        notes.push(
            "The variants have different tokens: nats per token cannot be compared, bits per byte can.".to_owned(),
        );
    }
    notes
}

/// Everything for a terminal.
pub fn text(summary: &StudySummary) -> String {
    // Writing to a `String` cannot fail, here and below.
    let mut text = format!("{}\n{}\n", summary.title, summary.question);
    for table in tables(summary) {
        let _ = write!(text, "\n{}\n{}", table.title, aligned(&table));
    }
    text += "\n";
    for variant in &summary.variants {
        let _ = writeln!(text, "{}: {}", variant.name, variant.verdict);
    }
    text += "\n";
    for note in notes(summary) {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// Everything as Markdown.
pub fn markdown(summary: &StudySummary) -> String {
    let mut text = format!("# {}\n\n{}\n", summary.title, summary.question);
    let cell = |cell: &String| cell.replace('|', "\\|");
    for table in tables(summary) {
        let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
        let _ = write!(text, "\n{}:\n\n{}", table.title, line(&table.header));
        let _ = writeln!(text, "|{}", "---|".repeat(table.header.len()));
        text += &table.rows.iter().map(|row| line(row)).collect::<String>();
    }
    text += "\n";
    for variant in &summary.variants {
        let _ = writeln!(text, "- **{}**: {}", variant.name, variant.verdict);
    }
    text += "\n";
    text += &notes(summary).join("\n");
    text + "\n"
}

/// A line per variant, every number in full.
pub fn csv(summary: &StudySummary) -> String {
    let mut text = String::from(
        "variant,seeds,loss_nats_per_token,loss_half_width,bits_per_byte,bits_per_byte_half_width,difference,\
         difference_low,difference_high,gap,gap_half_width,unit,parameters,intermediate_size,steps,tokens,\
         training_flops_per_token,training_flops,tokens_per_second,peak_memory_bytes,kv_cache_bytes_per_token,\
         decode_tokens_per_second,diverged,verdict\n",
    );
    for variant in &summary.variants {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let mean = |estimate: Option<Estimate>| number(estimate.map(|estimate| estimate.mean));
        let half = |estimate: Option<Estimate>| number(estimate.and_then(|estimate| estimate.half_width));
        let difference = variant.difference.map(|difference| difference.estimate);
        let ends = difference.filter(|estimate| estimate.half_width.is_some()).map(|estimate| estimate.interval());
        let cells = [
            variant.name.clone(),
            variant.runs.to_string(),
            mean(variant.loss),
            half(variant.loss),
            mean(variant.bits_per_byte),
            half(variant.bits_per_byte),
            mean(difference),
            number(ends.map(|ends| ends.0)),
            number(ends.map(|ends| ends.1)),
            mean(variant.gap),
            half(variant.gap),
            summary.unit.words().to_owned(),
            variant.parameters.to_string(),
            variant.intermediate_size.to_string(),
            variant.steps.to_string(),
            variant.tokens.to_string(),
            variant.training_flops_per_token.to_string(),
            variant.training_flops.to_string(),
            mean(variant.tokens_per_second),
            number(variant.peak_memory_bytes.map(|bytes| bytes as f64)),
            variant.kv_cache_bytes_per_token.to_string(),
            mean(variant.decode_tokens_per_second),
            variant.diverged.len().to_string(),
            variant.verdict.clone(),
        ];
        text += &(cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

/// A CSV cell (RFC 4180).
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

fn aligned(table: &Table) -> String {
    let width = |column: usize| {
        let cells = std::iter::once(&table.header).chain(&table.rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..table.header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(&table.header).chain(&table.rows).map(|row| line(row)).collect()
}

/// `1.2345 ± 0.0123`
fn with_interval(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "n/a".to_owned(),
        Some(Estimate { mean, half_width: Some(half), .. }) => format!("{mean:.4} \u{b1} {half:.4}"),
        Some(Estimate { mean, .. }) => format!("{mean:.4}"),
    }
}

/// `-0.0312 [-0.0421, -0.0203]`
fn signed(estimate: Estimate) -> String {
    let (low, high) = estimate.interval();
    match estimate.half_width {
        Some(_) => format!("{:+.4} [{low:+.4}, {high:+.4}]", estimate.mean),
        None => format!("{:+.4}", estimate.mean),
    }
}

fn mean(estimate: Option<Estimate>) -> String {
    estimate.map_or("n/a".to_owned(), |estimate| grouped(estimate.mean, 0))
}
