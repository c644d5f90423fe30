//! Typed access to a JSON object.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Typed access to a JSON object, with errors that name file and field. `null` counts as absent.
pub(super) struct Fields<'a> {
    pub path: &'a Path,
    pub fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    pub(super) fn refuse(&self, field: &str, problem: &str, hint: &str) -> Error {
        Error::InvalidFile {
            path: self.path.to_owned(),
            problem: format!("`{field}` {problem}"),
            hint: hint.to_owned(),
        }
    }

    pub(super) fn typed<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(self.refuse(field, &format!("is {value}, not {expected}"), "the file is damaged or was edited"))
            }
        }
    }

    pub(super) fn required<T>(&self, field: &str, value: Option<T>) -> Result<T> {
        value
            .ok_or_else(|| self.refuse(field, "is missing", "the file is incomplete; copy the model's directory again"))
    }

    pub(super) fn count(&self, field: &str) -> Result<usize> {
        let value = self.typed(field, "a whole number", as_usize)?;
        self.required(field, value)
    }

    pub(super) fn count_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.typed(field, "a whole number", as_usize)?.unwrap_or(default))
    }

    pub(super) fn number(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.typed(field, "a number", Value::as_f64)?.unwrap_or(default))
    }

    pub(super) fn required_number(&self, field: &str) -> Result<f64> {
        let value = self.typed(field, "a number", Value::as_f64)?;
        self.required(field, value)
    }

    pub(super) fn flag(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.typed(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>> {
        self.typed(field, "a text", Value::as_str)
    }

    pub(super) fn only(&self, field: &str, allowed: &[&str]) -> Result<()> {
        match self.text(field)? {
            Some(value) if !allowed.contains(&value) => {
                let hint = format!("supported: {}", allowed.join(", "));
                Err(self.refuse(field, &format!("is `{value}`, which is not supported"), &hint))
            }
            _ => Ok(()),
        }
    }

    /// One token id, or a list of them. -1, with which some programs write that there is none, is left out.
    pub(super) fn ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| match value.as_i64() {
            Some(-1) => Some(None),
            _ => value.as_u64().and_then(|id| u32::try_from(id).ok()).map(Some),
        };
        let read = |value: &Value| match value {
            Value::Array(values) => values.iter().map(id).collect::<Option<Vec<_>>>(),
            value => id(value).map(|id| vec![id]),
        };
        let ids = self.typed(field, "a token id or a list of them", read)?.unwrap_or_default();
        Ok(ids.into_iter().flatten().collect())
    }

    /// A whole number under either of two names; both may be given if they agree.
    pub(super) fn count_of_either(&self, field: &str, other: &str) -> Result<usize> {
        let counts = (self.typed(field, "a whole number", as_usize)?, self.typed(other, "a whole number", as_usize)?);
        match counts {
            (Some(count), Some(differs)) if count != differs => {
                let hint = "remove the one that is wrong";
                Err(self.refuse(field, &format!("is {count}, but `{other}` is {differs}"), hint))
            }
            (count, alias) => self.required(field, count.or(alias)),
        }
    }
}

pub(super) fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|value| usize::try_from(value).ok())
}
