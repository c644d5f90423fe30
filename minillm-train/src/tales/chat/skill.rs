//! What is graded.

/// Something that a model can or cannot do. The best possible share of passes is 1.0 for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skill {
    /// Answers a question about the user's tale, in exactly the right words.
    Ask,
    /// Says so where the user's tale has no answer.
    DoesNotSay,
    /// Answers in the form that the system prompt asks for.
    Form,
    /// Tells a tale that the grammar can make.
    TaleReads,
    /// Tells a tale as wished. Counted only for tales that read.
    TaleAsWished,
    /// Answers a question about the tale that it told itself. Counted only for tales that read.
    OwnTale,
    /// Tells the user's tale again with another hero, word by word.
    Again,
}

impl Skill {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Ask, Self::DoesNotSay, Self::Form, Self::TaleReads, Self::TaleAsWished, Self::OwnTale, Self::Again];

    /// Its name among the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::DoesNotSay => "does_not_say",
            Self::Form => "form",
            Self::TaleReads => "tale_reads",
            Self::TaleAsWished => "tale_as_wished",
            Self::OwnTale => "own_tale",
            Self::Again => "again",
        }
    }
}
