//! `minillm-train data`: what a run would learn from.

use std::num::NonZero;

use minillm_infer::output::{note, print};
use minillm_train::error::Result;
use minillm_train::objective::{self, Shown};

use super::arguments::ConfigArgs;
use super::cache_dir;
use super::progress::Bars;

/// Show what a run would learn from: how much there is, and some examples with what is learned marked
///
///   minillm-train data configs/chat.toml --show 3
///   minillm-train data configs/chat.toml --set "data.files=[mine.jsonl]" --show 1
///
/// What is learned stands between > and <. The examples are those that are held out. Nothing is trained.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Examples to print
    #[arg(long, value_name = "N", default_value = "3", allow_negative_numbers = true)]
    show: NonZero<usize>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.load()?;
    let objective = objective::prepare(&config, &cache_dir()?, &Bars::default())?;
    if let Some(summary) = objective.summary() {
        note(summary);
    }
    for (number, Shown { parts, tokens, targets }) in (1..).zip(objective.shown(args.show.get())?) {
        let mark = |(text, is_learned): (String, bool)| if is_learned { format!(">{text}<") } else { text };
        let text: String = parts.into_iter().map(mark).collect();
        print(&format!("--- {number}: {tokens} tokens, {targets} learned\n{}\n\n", text.trim_end()))?;
    }
    Ok(())
}
