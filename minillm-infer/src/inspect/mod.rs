//! A model from the inside: its parts and what they cost, and what it computes on one text.
//!
//! [`Summary`] needs the configuration alone. [`Internals`] follows a text through the model and keeps what is usually
//! thrown away: where each head looks, what each layer would predict, how long the vectors of the residual stream are.
//! [`page()`] shows both in one HTML file.

mod internals;
mod label;
mod page;
mod summary;

pub use self::internals::{Choice, Internals, Next, Prediction, most_tokens};
pub use self::label::label;
pub use self::page::page;
pub use self::summary::{Cache, ModelPart, Summary};
