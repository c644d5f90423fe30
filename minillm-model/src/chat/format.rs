//! What belongs to a model that talks.

/// How conversations with a model are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatFormat {
    /// The chat template, in Jinja.
    pub template: String,
    /// The tokens that end its turn, or a text.
    pub end_ids: Vec<u32>,
}
