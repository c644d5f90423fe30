//! Errors about a key of a configuration, and what to write instead.

use super::keys::{nearest, sections};
use crate::error::Error;

/// That `field` cannot be used as `origin` (a file's path, or `--set`) gives it.
pub(super) fn config_error(origin: &str, field: &str, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Config { origin: origin.to_owned(), field: field.to_owned(), problem: problem.into(), hint: hint.into() }
}

/// What to write instead of an unknown key.
pub(crate) fn did_you_mean(key: &str) -> String {
    let candidates: Vec<_> = nearest(key).iter().map(|key| format!("`{key}`")).collect();
    if !candidates.is_empty() {
        return format!("did you mean {}?", candidates.join(" or "));
    }
    let section = key.split('.').next().unwrap_or_default();
    match sections().iter().find(|(name, _)| *name == section) {
        Some((_, fields)) => format!("the keys of [{section}] are {}", fields.join(", ")),
        None => format!("the sections are {}", section_names()),
    }
}

/// All sections, for a hint.
pub(super) fn section_names() -> String {
    sections().map(|(name, _)| name).join(", ")
}
