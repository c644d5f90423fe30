//! `report.html`: a run on one page, made from the run's own files alone, so that it can be made for any run at any time.
//!
//! What a file does not say is left out; a run that has only begun has a short page.

mod curves;
mod history;
mod recorded;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use minillm_infer::describe;
use minillm_infer::html::{Page, escape, table};
use minillm_infer::number::{count, exact, grouped, megabytes};
use minillm_model::checkpoint::durable;
use minillm_model::config::ModelConfig;
use minillm_model::error::with_causes;
use minillm_model::stats;

use self::recorded::{Recorded, Sample};
use crate::config::RunConfig;
use crate::data::TokenizerConfig;
use crate::error::{Error, Result};
use crate::metrics::tag;
use crate::run_dir::REPORT_FILE;

/// Time of training for each second that its report takes, which is longer the more there is to read.
const TRAINING_PER_REPORT: u32 = 100;

const STYLE: &str = "\
.facts td:first-child { color: var(--soft); white-space: nowrap; }
.facts td:last-child { overflow-wrap: anywhere; }
.sample { display: grid; grid-template-columns: 130px minmax(0, 1fr); gap: 4px 20px; border-top: 1px solid var(--line); padding: 12px 0; }
.sample p { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.lead { font-size: 18px; }
@media (max-width: 480px) { .sample { grid-template-columns: 1fr; } .lead { font-size: 17px; } .facts td:first-child { white-space: normal; } }
";

/// Writes the report of the run in `run` into it, whole or not at all.
///
/// # Errors
/// A file of the run that cannot be read, or the report that cannot be written.
pub fn write(run: &Path) -> Result<()> {
    let html = page(&Recorded::read(run)?).render();
    durable::replace_file(&durable::System, &run.join(REPORT_FILE), html.as_bytes()).map_err(|source| Error::Io {
        action: "write",
        what: "the report",
        source,
    })
}

/// The report of a run in the course of training, which it is not worth stopping for, nor holding up.
#[derive(Debug, Default)]
pub struct Updates {
    not_before: Option<Instant>,
}

impl Updates {
    /// [`write()`], but for at most 1 % of the time.
    pub fn update(&mut self, run: &Path) {
        let before = Instant::now();
        if self.not_before.is_none_or(|not_before| before >= not_before) {
            Self::last(run);
            self.not_before = Some(Instant::now() + TRAINING_PER_REPORT * before.elapsed());
        }
    }

    /// [`write()`], at the end of training.
    pub fn last(run: &Path) {
        if let Err(error) = write(run) {
            tracing::warn!("no report: {}", with_causes(&error));
        }
    }
}

fn page(run: &Recorded) -> Page {
    let mut body = format!("<h1>{}</h1>\n", escape(&run.name));
    body.push_str(&lead(run));
    body.push_str("<h2>Curves</h2>\n<div class=\"charts\">\n");
    for chart in curves::charts(run) {
        body.push_str(&chart.svg());
        body.push('\n');
    }
    body.push_str("</div>\n");
    body.push_str(&samples(&run.samples));
    body.push_str("<h2>The run</h2>\n<div class=\"facts\">");
    body.push_str(&table(&[], &facts(run)));
    body.push_str("</div>\n");
    if let Some(model) = &run.model {
        body.push_str("<h2>Parameters</h2>\n");
        body.push_str(&parameters(model));
    }
    body.push_str(&checkpoints(run));
    if let Some(text) = &run.config_text {
        body.push_str("<h2>Configuration</h2>\n<details><summary>config.toml</summary>\n<pre>");
        body.push_str(&escape(text));
        body.push_str("</pre></details>\n");
    }
    Page { title: format!("{} · MiniLLM", run.name), body, script: "", style: STYLE }
}

/// Where the run stands, in a few sentences.
fn lead(run: &Recorded) -> String {
    let Some((step, tokens)) = run.history.progress() else {
        return "<p class=\"lead\">Nothing has been recorded yet.</p>\n".to_owned();
    };
    let of = run.config.as_ref().map(|config| format!(" of {}", count(config.train.max_steps)));
    let mut sentences =
        vec![format!("{}{} steps, {} tokens.", count(step), of.unwrap_or_default(), count(tokens as usize))];
    if let Some((at, loss)) = run.history.last(tag::VAL_LOSS) {
        let bits = run.history.last(tag::VAL_BITS_PER_BYTE).map(|(_, bits)| format!(", {bits:.4} bits per byte"));
        sentences.push(format!(
            "After step {} the validation loss is {loss:.4} nats per token (perplexity {}{}).",
            count(at),
            grouped(loss.exp(), 2),
            bits.unwrap_or_default()
        ));
        if let (Some((_, floor)), Some((_, gap))) = (run.history.last(tag::VAL_FLOOR), run.history.last(tag::VAL_GAP)) {
            let floor = format!("No model can be below {floor:.4} here on average; the gap is {gap:.4}.");
            sentences.push(floor);
        }
        if let Some((best, value)) = run.history.best().filter(|(best, _)| *best != at) {
            sentences.push(format!("The best was {value:.4}, after step {}.", count(best)));
        }
    }
    format!("<p class=\"lead\">{}</p>\n", sentences.join(" "))
}

fn samples(samples: &[Sample]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut html = "<h2>Samples over time</h2>\n".to_owned();
    for Sample { step, text } in samples {
        let (step, text) = (count(*step as usize), escape(text.trim()));
        let text = if text.is_empty() { "<span class=\"soft\">(nothing)</span>" } else { &text };
        let _ = writeln!(html, "<div class=\"sample\"><div class=\"soft\">step {step}</div><p>{text}</p></div>");
    }
    html
}

/// What was trained on what, a row each.
fn facts(run: &Recorded) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), escape(&value)]);
    if let Some(model) = &run.model {
        row("model", architecture(model));
        row("parameters", count(stats::parameters(model).total()));
    }
    if let (Some(model), Some(config)) = (&run.model, &run.config) {
        let flops = stats::training_flops_per_token(model, config.train.context);
        let done = run.history.progress().map_or(0.0, |(_, tokens)| tokens as f64 * flops as f64);
        row("FLOPs per token", format!("{}, in all {} so far", exact(flops as f64), exact(done)));
    }
    if let Some(config) = &run.config {
        row("text", text_of(config));
        row("tokenizer", tokenizer_of(config));
        let train = &config.train;
        let micro = train.micro_batch_size();
        let micro = if micro < train.batch_size { format!(", {micro} at a time") } else { String::new() };
        row("batch", format!("{} sequences of {} tokens{micro}", train.batch_size, train.context));
        row("seed", config.seed.to_string());
    }
    if let Some(state) = &run.state {
        row("data fingerprint", state.data_fingerprint.clone());
        let threads = if state.threads > 1 { format!(", {} threads", state.threads) } else { String::new() };
        row("device", format!("{}{threads}", state.device));
    }
    rows
}

/// The switches in which models differ, in words.
fn architecture(model: &ModelConfig) -> String {
    let (norm, positions) = (describe::norm(model), describe::positions(model));
    let (mlp, heads) = (describe::mlp(model), describe::heads(model));
    let (blocks, width, inner) = (model.num_hidden_layers, model.hidden_size, model.intermediate_size);
    let (vocabulary, context) = (count(model.vocab_size), count(model.max_position_embeddings));
    format!(
        "{norm}, {positions}, {mlp}; {blocks} blocks, {width} wide, {inner} in the MLP, {heads}; \
         vocabulary {vocabulary}, context {context}"
    )
}

fn text_of(config: &RunConfig) -> String {
    let data = &config.data;
    match &data.url {
        _ if !data.files.is_empty() => {
            let files: Vec<_> = data.files.iter().map(|file| file.display().to_string()).collect();
            files.join(", ")
        }
        Some(url) => url.clone(),
        None => "tales, the built-in corpus".to_owned(),
    }
}

fn tokenizer_of(config: &RunConfig) -> String {
    match &config.tokenizer {
        _ if config.model.from.is_some() => "that of the model it started from".to_owned(),
        TokenizerConfig::Char => "characters".to_owned(),
        TokenizerConfig::Bpe { vocab_size } => format!("byte-level BPE of {}", count(*vocab_size)),
        TokenizerConfig::File { path } => path.display().to_string(),
    }
}

/// Parameters by part.
fn parameters(model: &ModelConfig) -> String {
    let all = stats::parameters(model);
    let total = all.total();
    let blocks = |one: usize| one * all.blocks;
    let parts = [
        ("embedding", all.embedding),
        ("positions", all.positions),
        ("attention", blocks(all.attention)),
        ("MLP", blocks(all.mlp)),
        ("norms", blocks(all.norms) + all.final_norm),
        ("output matrix", all.output),
        ("all", total),
    ];
    let row = |(name, size): (&str, usize)| {
        let share = 100.0 * size as f64 / total.max(1) as f64;
        vec![name.to_owned(), count(size), format!("{share:.1} %")]
    };
    let rows: Vec<_> = parts.into_iter().filter(|(_, size)| *size > 0).map(row).collect();
    table(&["part", "parameters", "share"], &rows)
}

fn checkpoints(run: &Recorded) -> String {
    if run.checkpoints.is_empty() {
        return String::new();
    }
    let best = run.state.as_ref().and_then(|state| state.best).map(|best| best.step);
    let row = |checkpoint: &recorded::Checkpoint| {
        let loss = checkpoint.loss.map(|loss| format!("{loss:.4}"));
        let note = if best == Some(checkpoint.step) { "best" } else { "" };
        let size = megabytes(checkpoint.bytes as usize);
        vec![escape(&checkpoint.name), loss.unwrap_or_default(), size, note.to_owned()]
    };
    let rows: Vec<_> = run.checkpoints.iter().map(row).collect();
    format!("<h2>Checkpoints</h2>\n{}", table(&["directory", "validation loss", "size", ""], &rows))
}
