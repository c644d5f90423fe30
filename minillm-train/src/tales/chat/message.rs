//! What is said in a conversation, and by whom.

use minillm_model::chat::Conversation;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// How to answer.
    System,
    /// Who asks.
    User,
    /// Who answers: the model.
    Assistant,
}

impl Role {
    /// Its name in a chat template.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said: ASCII, with a newline only between a tale and a question about it.
    pub content: String,
}

impl Message {
    /// `content`, said by `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// The messages as a chat template takes them.
pub fn as_conversation(messages: &[Message]) -> Conversation {
    Conversation::from_texts(messages.iter().map(|message| (message.role.name(), message.content.as_str())))
}
