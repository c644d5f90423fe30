//! Conversations, of which the assistant's words are learned: instruction tuning.
//!
//! Several conversations share a row and do not see each other. The loss is the sum over the targets of the whole batch, divided by their
//! number: an answer of two words counts as much a token as one of two hundred.

use std::path::{Path, PathBuf};

use minillm_infer::score::Score;
use minillm_model::chat::{ChatFormat, TemplateTokens};
use minillm_model::checkpoint::{TextFiles, load_text_files, locate};
use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::{TURN_TOKENS, Tokenizer};
use sha2::{Digest, Sha256};

use super::{Batches, Objective, Prompt};
use crate::config::RunConfig;
use crate::conversations::{Example, Format, Summary, TrainOn, best_fit, push_row, read};
use crate::data::{Batch, Permutation, Progress, Shape, TokenizerConfig, hex, read_tokenizer};
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, nats};
use crate::workers::Workers;

/// Learns conversations.
#[derive(Debug)]
pub struct Chat {
    format: Format,
    chat_format: ChatFormat,
    fingerprint: String,
    shape: Shape,
    training: Packed,
    validation: Packed,
    /// Of the two.
    summaries: [Summary; 2],
}

/// Examples, and the rows that they share.
#[derive(Debug, Default)]
struct Packed {
    examples: Vec<Example>,
    rows: Vec<Vec<usize>>,
}

impl Packed {
    fn new(examples: Vec<Example>, context: usize) -> Self {
        let lengths: Vec<_> = examples.iter().map(Example::places).collect();
        Self { rows: best_fit(&lengths, context), examples }
    }

    fn push(&self, batch: &mut Batch, row: usize) {
        push_row(batch, self.rows[row].iter().map(|&example| &self.examples[example]));
    }

    fn targets(&self) -> impl Iterator<Item = u32> {
        self.examples.iter().flat_map(Example::target_ids)
    }
}

impl Chat {
    /// The conversations of a configuration.
    pub fn prepare(config: &RunConfig, progress: &dyn Progress) -> Result<Self> {
        let format = format(config)?;
        let shape = Shape { context: config.train.context, batch_size: config.train.batch_size, seed: config.seed };
        let mut all = Vec::new();
        read(&config.data.files, progress, |path, line, record| {
            let example = format.example(&record).map_err(|error| at_line(path, line, &error))?;
            all.push(example);
            Ok(())
        })?;
        let mut hash = Sha256::new();
        hash.update(format.tokenizer().fingerprint());
        for example in &all {
            hash.update((example.ids.len() as u64).to_le_bytes());
            example.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update(example.is_trained.iter().map(|&is_trained| u8::from(is_trained)).collect::<Vec<_>>());
        }
        let every = held_out_every(config.data.validation_fraction, all.len());
        let mut summaries = [Summary::default(); 2];
        let mut parts = [Vec::new(), Vec::new()];
        for (index, example) in all.into_iter().enumerate() {
            let part = usize::from((index + 1).is_multiple_of(every));
            parts[part].extend(summaries[part].admit(example, shape.context));
        }
        let path = config.data.files.first().cloned().unwrap_or_default();
        for (part, name) in parts.iter().zip(["training", "validation"]) {
            if part.is_empty() {
                return Err(nothing_to_learn(path, name, &summaries, shape.context));
            }
        }
        let [training, validation] = parts.map(|examples| Packed::new(examples, shape.context));
        let chat_format = ChatFormat { template: format.template().to_owned(), end_ids: format.end_ids()? };
        Ok(Self { format, chat_format, fingerprint: hex(&hash.finalize()), shape, training, validation, summaries })
    }

    /// The examples that are learned from.
    pub fn examples(&self) -> &[Example] {
        &self.training.examples
    }

    /// How they are written.
    pub fn format(&self) -> &Format {
        &self.format
    }
}

/// The tokenizer and the template: those of the model or file that the configuration names, or new ones.
fn format(config: &RunConfig) -> Result<Format> {
    let objective = &config.objective;
    let TextFiles { tokenizer, mut chat_template, mut template_tokens } = match &config.tokenizer {
        TokenizerConfig::File { path } => files_of(path)?,
        TokenizerConfig::Bpe { vocab_size } => {
            let mut texts = Vec::new();
            read(&config.data.files, &crate::data::Silent, |_, _, record| {
                texts.extend(record.texts());
                Ok(())
            })?;
            let tokenizer = Tokenizer::train_bpe(*vocab_size, texts.into_iter())?;
            TextFiles { tokenizer: Some(tokenizer), chat_template: None, template_tokens: TemplateTokens::default() }
        }
        TokenizerConfig::Char => {
            let hint = "use `kind = \"bpe\"`, or leave [tokenizer] out where [model] has `from`";
            return Err(refuse(
                "tokenizer.kind",
                "is `char`, which has no tokens for the turns of a conversation",
                hint,
            ));
        }
    };
    let Some(mut tokenizer) = tokenizer else {
        return Err(refuse("tokenizer.path", "names a model without a tokenizer", "name a tokenizer.json"));
    };
    if let Some(path) = &objective.template {
        let text = fs_err::read_to_string(path);
        chat_template = Some(text.map_err(|source| Error::Io { action: "read", what: "the chat template", source })?);
    }
    if chat_template.is_none() {
        // ChatML, whose tokens other tokenizers may lack.
        tokenizer = tokenizer.with_control_tokens(&TURN_TOKENS)?;
    }
    template_tokens.control = tokenizer.control_tokens().into_iter().map(|token| token.text).collect();
    let format = Format::new(&tokenizer, chat_template.as_deref(), template_tokens, objective.train_on)?;
    if objective.train_on == TrainOn::Assistant && !format.has_generation_tag() {
        return Err(refuse(
            "objective.template",
            "is needed: the model's own chat template does not mark what the assistant says",
            "give a copy of it with `{% generation %}` and `{% endgeneration %}` around the assistant's words and the end of \
             its turn, or set `objective.train_on` to `all`",
        ));
    }
    Ok(format)
}

/// Of a tokenizer.json, or of a model.
fn files_of(path: &Path) -> Result<TextFiles> {
    let tokenizer = read_tokenizer(path)?;
    let directory = if path.is_dir() { Some(locate::model_dir(path)?.0) } else { None };
    let files = directory.as_deref().or(locate::is_gguf(path).then_some(path)).map(load_text_files).transpose()?;
    let (chat_template, template_tokens) =
        files.map(|files| (files.chat_template, files.template_tokens)).unwrap_or_default();
    Ok(TextFiles { tokenizer: Some(tokenizer), chat_template, template_tokens })
}

/// Every n-th conversation is held out, at least one of all and never all of them.
fn held_out_every(fraction: f64, count: usize) -> usize {
    ((1.0 / fraction).round() as usize).clamp(2, count.max(2))
}

fn refuse(field: &str, problem: &str, hint: &str) -> Error {
    Error::Config {
        origin: "configuration".to_owned(),
        field: field.to_owned(),
        problem: problem.to_owned(),
        hint: hint.to_owned(),
    }
}

fn at_line(path: &Path, line: usize, error: &Error) -> Error {
    Error::Data {
        path: path.to_owned(),
        problem: format!("line {line} cannot be written as the chat template has it: {error}"),
        hint: error.hint().unwrap_or("mend or remove the line").to_owned(),
    }
}

fn nothing_to_learn(path: PathBuf, part: &str, summaries: &[Summary; 2], context: usize) -> Error {
    let left_out: usize = summaries.iter().map(|summary| summary.left_out).sum();
    let problem = if left_out > 0 {
        format!(
            "the {part} part has nothing to learn: of {left_out} conversations, cut to `train.context = {context}`, no \
                 word of the assistant remained"
        )
    } else {
        format!("the {part} part is empty: one conversation is learned from and another is held out")
    };
    Error::Data { path, problem, hint: "give more conversations, or raise `train.context`".to_owned() }
}

impl Objective for Chat {
    fn tokenizer(&self) -> &Tokenizer {
        self.format.tokenizer()
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn chat_format(&self) -> Option<&ChatFormat> {
        Some(&self.chat_format)
    }

    /// Each row once an epoch, in a new order every epoch.
    fn batch(&self, step: usize) -> Result<Batch> {
        let Shape { context, batch_size, seed } = self.shape;
        let mut batch = Batch::with_capacity(batch_size, context);
        let rows = self.training.rows.len() as u64;
        for number in (step * batch_size) as u64..((step + 1) * batch_size) as u64 {
            let row = Permutation::new(seed, number / rows, rows).at(number % rows);
            self.training.push(&mut batch, row as usize);
        }
        Ok(batch)
    }

    fn validation(&self, rows: usize) -> Batches<'_> {
        let (rows, all) = (rows.max(1), self.validation.rows.len());
        Box::new((0..all.div_ceil(rows)).map(move |index| {
            let mut batch = Batch::with_capacity(rows, self.shape.context);
            for row in index * rows..all.min((index + 1) * rows) {
                self.validation.push(&mut batch, row);
            }
            Ok(batch)
        }))
    }

    fn evaluate(&self, model: &LanguageModel, workers: &Workers, rows: usize) -> Result<Evaluation> {
        let nats = nats(model, workers, self.validation(rows.div_ceil(workers.count())))?;
        let tokenizer = self.tokenizer();
        let bytes = self.validation.targets().map(|id| tokenizer.token_bytes(id).len() as u64).sum();
        let tokens = self.validation.targets().count() as u64;
        Ok(Evaluation { score: Score { nats, tokens, bytes }, floor: None })
    }

    /// The beginning of a held-out conversation, up to where the assistant speaks.
    fn prompt(&self) -> Result<Prompt> {
        let example = &self.validation.examples[0];
        let given = example.is_trained.iter().position(|is_trained| *is_trained).unwrap_or(0).max(1);
        let ids = example.ids[..given].to_vec();
        Ok(Prompt { shown: self.tokenizer().decode(&ids), ids, end_ids: self.chat_format.end_ids.clone() })
    }

    fn summary(&self) -> Option<String> {
        let [Summary { conversations, tokens, targets, cut, without_end, left_out }, held_out] = self.summaries;
        let share = 100.0 * targets as f64 / tokens as f64;
        let mut text = format!(
            "{conversations} conversations in {} rows, {tokens} tokens, {share:.0} % of them learned; {} held out",
            self.training.rows.len(),
            held_out.conversations
        );
        if cut + held_out.cut > 0 {
            let (cut, without_end) = (cut + held_out.cut, without_end + held_out.without_end);
            text += &format!("; {cut} cut to train.context, {without_end} of them before their end");
        }
        if left_out + held_out.left_out > 0 {
            text += &format!("; {} left out, as nothing to learn remained", left_out + held_out.left_out);
        }
        Some(text)
    }
}
