//! Conversations to learn from: as files hold them, as tokens, and as rows of a batch.
//!
//! ```text
//! files ── records ──┐
//!                    ├── format (chat template, tokens, what is trained on) ── examples ── packing ── rows
//! tales-chat ────────┘
//! ```

mod example;
mod format;
mod packing;
mod records;
#[cfg(test)]
mod tests;

pub use self::example::{Example, Summary, held_out_every, push_row};
pub use self::format::{Format, TrainOn};
pub use self::packing::{best_fit, best_fit_until_full};
pub use self::records::{Kind, Record, at_line, read};
