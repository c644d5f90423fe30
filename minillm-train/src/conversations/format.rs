//! How conversations become a model's tokens, and which of them it learns.

use jiff::civil::{DateTime, date};
use minillm_model::chat::{
    CHATML, ChatEncoder, ChatTemplate, ChatTokens, Conversation, RenderOptions, TemplateTokens, Turn,
};
use minillm_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::example::Example;
use super::records::Record;
use crate::error::{Error, Result};

/// The day that a template is told, if it asks: a run must not depend on when it is started. (Llama 3.2's template has this day, too.)
const DAY: DateTime = date(2024, 7, 26).at(0, 0, 0, 0);

/// Whose words a model learns to predict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// The assistant's, with the end of its turn.
    #[default]
    Assistant,
    /// Everybody's.
    All,
}

/// A tokenizer with its chat template.
#[derive(Debug)]
pub struct Format {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    encoder: ChatEncoder,
    train_on: TrainOn,
}

impl Format {
    /// For a tokenizer whose template is `template`, by default [`CHATML`].
    pub fn new(
        tokenizer: &Tokenizer,
        template: Option<&str>,
        tokens: TemplateTokens,
        train_on: TrainOn,
    ) -> Result<Self> {
        let template = ChatTemplate::new(template.unwrap_or(CHATML), tokens)?;
        Ok(Self { tokenizer: tokenizer.clone(), template, encoder: ChatEncoder::new(tokenizer), train_on })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template's text.
    pub fn template(&self) -> &str {
        self.template.source()
    }

    /// Whether the template says what the assistant says.
    pub fn has_generation_tag(&self) -> bool {
        self.template.has_generation_tag()
    }

    /// The tokens of a conversation that the assistant is to answer.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Vec<u32>> {
        Ok(self.encode(conversation, Turn::Assistant)?.ids)
    }

    /// The tokens that end the assistant's turn: those that follow what it said as far as control tokens go, and the end of a text.
    pub fn end_ids(&self) -> Vec<u32> {
        // Some templates want a system's message first, some take none.
        let turns = [("system", "a"), ("user", "a"), ("assistant", "a")];
        let tried =
            [&turns[1..], &turns].map(|turns| self.encode(&Conversation::from_texts(turns.to_vec()), Turn::Ended));
        let tokens = tried.into_iter().find_map(Result::ok).unwrap_or_default();
        let control = self.tokenizer.control_tokens();
        let is_control = |id: u32| control.iter().any(|token| token.id == id);
        let trained = tokens.ids.iter().zip(&tokens.is_trained).filter(|(_, is_trained)| **is_trained);
        let mut ids: Vec<u32> = trained.map(|(id, _)| *id).filter(|id| is_control(*id)).collect();
        if ids.is_empty() {
            // A template that marks nothing: what it ends the turn with.
            ids.extend(tokens.ids.iter().rev().find(|id| is_control(**id)));
        }
        ids.extend(self.tokenizer.end_of_text());
        ids.dedup();
        ids
    }

    /// A record as an example.
    pub fn example(&self, record: &Record) -> Result<Example> {
        let tokens = match record {
            Record::Conversation(conversation) => self.encode(conversation, Turn::Ended)?,
            Record::Completion { prompt, whole } => {
                let given = self.encode(prompt, Turn::Assistant)?.ids;
                let mut tokens = self.encode(whole, Turn::Ended)?;
                let same = tokens.ids.iter().zip(&given).take_while(|(whole, prompt)| whole == prompt).count();
                tokens.is_trained[..same].fill(false);
                tokens
            }
            Record::Preference { .. } => return Err(preference_here()),
            Record::Texts { prompt, completion } => {
                // The end of the text is learned like a word; a text is begun as `generate` begins it.
                let mut ids = self.tokenizer.encode_prompt(prompt)?;
                let given = ids.len();
                ids.extend(self.tokenizer.encode(completion)?);
                let end = self.tokenizer.end_of_text().filter(|end| ids.last() != Some(end));
                ids.extend(end);
                ChatTokens { is_trained: (0..ids.len()).map(|index| index >= given).collect(), ids }
            }
        };
        let is_trained = match self.train_on {
            TrainOn::Assistant => tokens.is_trained,
            TrainOn::All => vec![true; tokens.ids.len()],
        };
        Ok(Example { ids: tokens.ids, is_trained })
    }

    fn encode(&self, conversation: &Conversation, turn: Turn) -> Result<ChatTokens> {
        let options = RenderOptions { turn, now: DAY, ..RenderOptions::default() };
        Ok(self.encoder.encode(&self.template.render(conversation, &options)?)?)
    }
}

fn preference_here() -> Error {
    Error::Config {
        origin: "configuration".to_owned(),
        field: "objective.kind".to_owned(),
        problem: "is `chat`, and the data are preferences".to_owned(),
        hint: "set it to `preference`, or give conversations".to_owned(),
    }
}
