//! Strict reading: a configuration file, `--set` over it, and errors that name the place, the key and what to do.

use std::collections::BTreeSet;
use std::path::Path;

use minillm_infer::text_files::wide_encoding;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::RunConfig;
use super::errors::{config_error, did_you_mean, section_names};
use super::keys::{nearest_section, sections};
use super::overrides;
use crate::data::TokenizerConfig;
use crate::error::{Error, Result};

impl RunConfig {
    /// Reads a configuration file, lays `overrides` (each `section.key=value`, as given to `--set`) over it, fills in
    /// what follows from other fields and checks the whole.
    ///
    /// A value is written as in TOML; a bare word is text. Where a key decides what others mean, setting it to
    /// something new takes those of the file out: `tokenizer.kind=char` needs no way to unset the file's `vocab_size`.
    ///
    /// # Errors
    /// [`Error::Config`] for a file that cannot be read or is not TOML, an unknown key, a value of the wrong type or
    /// out of range, naming the file and line (or `--set`), the key, and what to write instead.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse(&read_toml(path, "CONFIG", "configs/quickstart.toml")?, path, overrides)
    }

    /// [`RunConfig::load`] for text that is already read; `path` is only named in errors.
    pub(crate) fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let mut source = Source { path: path.display().to_string(), text, overrides: BTreeSet::new() };
        let mut table = source.table()?;
        source.refuse_unknown_keys(&table)?;
        let overrides: Vec<_> = overrides.iter().map(|setting| overrides::parse(setting)).collect::<Result<_>>()?;
        for (key, value) in &overrides {
            overrides::take_out_replaced(&mut table, key, value);
        }
        for (key, value) in overrides {
            overrides::insert(&mut table, &key, value)?;
            source.overrides.insert(key);
        }
        let has_tokenizer = table.contains_key("tokenizer");
        let mut config: Self = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let key = error.path().to_string();
            let (problem, hint) = explain(&key, error.inner().message());
            config_error(&source.origin(&key), &key, problem, hint)
        })?;
        if let (Some(from), false) = (&config.model.from, has_tokenizer) {
            config.tokenizer = TokenizerConfig::File { path: from.clone() };
        }
        config.validate().map_err(|error| match error {
            Error::Config { field, problem, hint, .. } => config_error(&source.origin(&field), &field, problem, hint),
            other => other,
        })?;
        Ok(config.resolved())
    }
}

/// The text of a TOML file that was given as the command's `argument`; `example` is one that is there.
pub(crate) fn read_toml(path: &Path, argument: &str, example: &str) -> Result<String> {
    let refuse = |problem, hint: &str| Err(config_error(argument, &path.display().to_string(), problem, hint));
    let hint = format!("give the path of a file such as {example}");
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refuse("does not exist".to_owned(), &hint);
        }
        Err(error) => return refuse(format!("cannot be read: {error}"), &hint),
    };
    if let Some(encoding) = wide_encoding(&bytes) {
        return refuse(format!("is {encoding} text, not UTF-8"), "save it as UTF-8 in your editor");
    }
    String::from_utf8(bytes).or_else(|_| refuse("is not UTF-8 text".to_owned(), "the file must be TOML"))
}

/// Where values come from, so that an error can say so.
struct Source<'a> {
    path: String,
    text: &'a str,
    /// The dotted keys that `--set` gave.
    overrides: BTreeSet<String>,
}

impl Source<'_> {
    /// The file as it stands.
    fn table(&self) -> Result<Table> {
        toml::from_str(self.text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let (line, column) = line_and_column(self.text, start);
            let content = self.text.lines().nth(line - 1).unwrap_or_default().trim();
            let origin = format!("{}:{line}:{column}", self.path);
            let problem = format!("is not TOML: {}", error.message());
            config_error(
                &origin,
                content,
                problem,
                "text stands in quotes, a list in [brackets]; see configs/ for examples",
            )
        })
    }

    /// `--set` or `file:line`, whichever gave `key`; the file alone if it is a default.
    fn origin(&self, key: &str) -> String {
        let within =
            |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']));
        if self.overrides.iter().any(|set| set == key || within(key, set) || within(set, key)) {
            return "--set".to_owned();
        }
        match DeTable::parse(self.text).ok().and_then(|table| offset_of(table.get_ref(), key)) {
            Some(offset) => format!("{}:{}", self.path, line_and_column(self.text, offset).0),
            None => self.path.clone(),
        }
    }

    fn refuse_unknown_keys(&self, table: &Table) -> Result<()> {
        let sections = sections();
        for (name, value) in table {
            if name == "seed" {
                continue;
            }
            let known = sections.iter().find(|(section, _)| section == name);
            match (known, value) {
                (Some((_, fields)), Value::Table(section)) => {
                    if let Some(key) = section.keys().find(|key| !fields.contains(&key.as_str())) {
                        let key = format!("{name}.{key}");
                        return Err(config_error(&self.origin(&key), &key, "is not a key", did_you_mean(&key)));
                    }
                }
                (Some(_), _) => {
                    let hint = format!("write `[{name}]` on a line of its own, and its keys below it");
                    return Err(config_error(&self.origin(name), name, "is a section, not a value", hint));
                }
                (None, Value::Table(_)) => {
                    let hint = nearest_section(name).map_or_else(
                        || format!("the sections are {}", section_names()),
                        |near| format!("did you mean `[{near}]`?"),
                    );
                    return Err(config_error(&self.origin(name), name, "is not a section", hint));
                }
                (None, _) => {
                    return Err(config_error(&self.origin(name), name, "is not a key", did_you_mean(name)));
                }
            }
        }
        Ok(())
    }
}

/// Where a dotted key stands in a parsed file, as a byte offset.
fn offset_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = key.split_once(['.', '[']).map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.get_key_value(first)?;
    let here = name.span().start;
    match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(inner)) => offset_of(inner, rest),
        _ => Some(here),
    }
}

/// Line and column, both counted from 1, of a byte offset.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Serde's reason in the words of a configuration file: the problem and what to do.
fn explain(key: &str, message: &str) -> (String, String) {
    let message = message.trim();
    if key == "model.attention_bias" {
        return ("is none of its three values".to_owned(), "write true, false or \"qkv\"".to_owned());
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return (format!("lacks {field}"), "add it; the files in configs/ show how".to_owned());
    }
    let Some((found, expected)) = message.split_once(", expected ") else {
        return (format!("cannot be used: {message}"), "compare with the files in configs/".to_owned());
    };
    if let Some(variant) = found.strip_prefix("unknown variant ") {
        return (format!("cannot be {variant}"), format!("write {}", expected.replace('`', "\"")));
    }
    let found = found.strip_prefix("invalid type: ").or_else(|| found.strip_prefix("invalid value: ")).unwrap_or(found);
    let wanted = match expected {
        "usize" | "u64" | "u32" => "write a whole number, not below 0",
        "f64" | "f32" => "write a number",
        "a boolean" => "write true or false",
        "a string" | "path string" => "write text in quotes",
        "a sequence" => "write a list, as in [\"a.txt\", \"b.txt\"]",
        other => return (format!("is {found}"), format!("write {other}")),
    };
    (format!("is {found}"), wanted.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::TrainConfig;

    fn parse(text: &str, overrides: &[&str]) -> Result<RunConfig> {
        let overrides: Vec<_> = overrides.iter().map(|&setting| setting.to_owned()).collect();
        RunConfig::parse(text, Path::new("run.toml"), &overrides)
    }

    /// The message and the hint of what must fail.
    #[track_caller]
    fn refusal(text: &str, overrides: &[&str]) -> (String, String) {
        let error = parse(text, overrides).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    }

    #[track_caller]
    fn assert_refusal(text: &str, overrides: &[&str], message: &str, hint: &str) {
        let (found_message, found_hint) = refusal(text, overrides);
        assert_eq!((found_message.as_str(), found_hint.as_str()), (message, hint));
    }

    #[test]
    fn file_then_overrides() {
        let text = "seed = 3\n[train]\nbatch_size = 4\ncontext = 32\n[data]\nfiles = ['old.txt']\n";
        let overrides = [
            "train.batch_size=8",
            "model.preset=gpt2",
            "data.files=[a b.txt, ../c.txt]",
            "optimizer.learning_rate=1e-4",
        ];
        let config = parse(text, &overrides).unwrap();
        assert_eq!(config.seed, 3);
        assert_eq!(
            config.train,
            TrainConfig { batch_size: 8, micro_batch_size: Some(8), context: 32, ..TrainConfig::default() }
        );
        assert_eq!(config.model.preset, minillm_model::config::Preset::Gpt2);
        assert_eq!(config.data.files, [PathBuf::from("a b.txt"), PathBuf::from("../c.txt")]);
        assert!((config.schedule.min_learning_rate.unwrap() - 1e-5).abs() < 1e-12);
    }

    #[test]
    fn unknown_keys() {
        let message = "run.toml:3: `train.batchsize` is not a key";
        assert_refusal("\n[train]\nbatchsize = 4", &[], message, "did you mean `train.batch_size`?");
        assert_refusal(
            "batch_size = 4",
            &[],
            "run.toml:1: `batch_size` is not a key",
            "did you mean `train.batch_size`?",
        );
        assert_refusal("[optimiser]\n", &[], "run.toml:1: `optimiser` is not a section", "did you mean `[optimizer]`?");
        let hint = "write `[train]` on a line of its own, and its keys below it";
        assert_refusal("seed = 1\ntrain = 3", &[], "run.toml:2: `train` is a section, not a value", hint);
        let (_, hint) = refusal("[checkpoint]\nzzz = 4", &[]);
        assert_eq!(hint, "the keys of [checkpoint] are every_steps, keep_last, on_error");
    }

    #[test]
    fn wrong_types_name_their_place() {
        let hint = "write a whole number, not below 0";
        let message = "run.toml:2: `train.batch_size` is string \"many\"";
        assert_refusal("[train]\nbatch_size = \"many\"", &[], message, hint);
        let message = "run.toml:1: `train.batch_size` is integer `-1`";
        assert_refusal("train.batch_size = -1", &[], message, hint);
        let message = "--set: `train.max_steps` is floating point `2000.0`";
        assert_refusal("[train]\nmax_steps = 3", &["train.max_steps=2e3"], message, hint);
        let message = "run.toml:2: `model.preset` cannot be `gpt3`";
        assert_refusal("[model]\npreset = 'gpt3'", &[], message, "write one of \"gpt2\", \"llama\", \"qwen3\"");
        let message = "--set: `model.attention_bias` is none of its three values";
        assert_refusal("", &["model.attention_bias=yes"], message, "write true, false or \"qkv\"");
        let hint = "add it; the files in configs/ show how";
        assert_refusal("", &["tokenizer.vocab_size=300"], "--set: `tokenizer` lacks `kind`", hint);
        let message = "run.toml:1: `tokenizer` cannot be used: `kind = \"bpe\"` takes `vocab_size` and no other field";
        assert_refusal("[tokenizer]\nkind = 'bpe'", &[], message, "compare with the files in configs/");
        let message = "run.toml:3: `data.files[1]` is integer `3`";
        assert_refusal("\n[data]\nfiles = ['a', 3]", &[], message, "write text in quotes");
    }

    #[test]
    fn malformed_toml_names_line_and_column() {
        let (message, _) = refusal("[train]\nbatch_size = = 4", &[]);
        assert!(message.starts_with("run.toml:2:14: `batch_size = = 4` is not TOML: "), "{message}");
        let (message, _) = refusal("[train]\ncontext = 1\ncontext = 2", &[]);
        assert!(message.starts_with("run.toml:3:1: `context = 2` is not TOML: duplicate key"), "{message}");
    }

    #[test]
    fn values_out_of_range_name_their_place() {
        let (message, _) = refusal("[train]\n\ncontext = 0", &[]);
        assert_eq!(message, "run.toml:3: `train.context` is 0");
        let (message, _) = refusal("", &["model.num_key_value_heads=3"]);
        assert_eq!(message, "--set: `model.num_key_value_heads` is 3, which does not divide num_attention_heads = 4");
    }

    #[test]
    fn a_file_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing.toml");
        let error = RunConfig::load(&path, &[]).unwrap_err();
        assert_eq!(error.to_string(), format!("CONFIG: `{}` does not exist", path.display()));
        assert_eq!(error.exit_code(), 2);
        fs_err::write(&path, [0xff, 0xfe]).unwrap();
        assert!(RunConfig::load(&path, &[]).unwrap_err().to_string().ends_with("is UTF-16 text, not UTF-8"));
        fs_err::write(&path, b"seed = 1 # caf\xe9\n").unwrap();
        assert!(RunConfig::load(&path, &[]).unwrap_err().to_string().ends_with("is not UTF-8 text"));
        fs_err::write(&path, "\u{feff}seed = 5\n").unwrap();
        assert_eq!(RunConfig::load(&path, &[]).unwrap().seed, 5, "a byte order mark is no key");
        assert!(RunConfig::load(folder.path(), &[]).is_err());
    }
}
