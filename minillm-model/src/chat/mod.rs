//! Conversations: the messages, the text that a model's chat template makes of them, and the tokens, with what is trained on marked.
//!
//! A *chat template* is a Jinja text that comes with a model and writes the roles and turns the way the model was trained on them
//! (transformers: `apply_chat_template`). Between `{% generation %}` and `{% endgeneration %}` stands what the model itself says: that is
//! what training on conversations is about.

mod conversation;
mod format;
mod generation_tag;
mod python;
mod template;
#[cfg(test)]
mod tests;
mod tokens;

pub use self::conversation::Conversation;
pub use self::format::ChatFormat;
pub use self::template::{CHATML, ChatTemplate, RenderOptions, Rendered, TemplateTokens, Turn};
pub use self::tokens::{ChatEncoder, ChatTokens};
