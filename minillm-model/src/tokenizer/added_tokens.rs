//! Tokens that the files beside `tokenizer.json` add to it or change, as transformers reads them.
//!
//! | file | what |
//! |---|---|
//! | `tokenizer_config.json` | `added_tokens_decoder`: tokens by id; their flags count more than those in tokenizer.json |
//! | | `bos_token` and other keys in `_token`, `additional_special_tokens`, `extra_special_tokens`: special tokens |
//! | `special_tokens_map.json`, `added_tokens.json` | the same in older models: read where there is no `added_tokens_decoder` |

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::check;

/// The texts of the files, where there are such files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SideFiles<'a> {
    /// `tokenizer_config.json`.
    pub config: Option<&'a str>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a str>,
    /// `added_tokens.json`.
    pub added_tokens: Option<&'a str>,
}

/// Keys that name one special token.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Keys that list special tokens.
const LISTED: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// More warnings than these are of one cause.
const MOST_WARNINGS: usize = 8;
const FLAGS: [&str; 5] = ["single_word", "lstrip", "rstrip", "normalized", "special"];

/// A token that one of the files asks for.
struct Wanted {
    /// As in the `added_tokens` of tokenizer.json, without its id.
    token: Value,
    /// The id that the file gives it.
    id: Option<u64>,
    /// Whether its flags replace those of a token that is there.
    replaces: bool,
    file: &'static str,
}

/// `tokenizer.json` with what the other files say, if that changes it; and what in them is not followed.
pub(super) fn complete(tokenizer: &Value, files: SideFiles) -> (Option<Value>, Vec<String>) {
    let mut warnings = Vec::new();
    let mut parse = |name: &str, text: Option<&str>| {
        let text = text?;
        let parsed = check::size(text)
            .and_then(|()| serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}")));
        parsed.map_err(|problem| warnings.push(format!("{name} {problem}; tokens that it adds are not known"))).ok()
    };
    let config: Value = parse("tokenizer_config.json", files.config).unwrap_or_default();
    let special_tokens_map = parse("special_tokens_map.json", files.special_tokens_map).unwrap_or_default();
    let added_tokens = parse("added_tokens.json", files.added_tokens).unwrap_or_default();
    if config["split_special_tokens"] == true {
        let problem = "`split_special_tokens` in tokenizer_config.json is not followed: a special token that a text spells \
                       out is that token";
        warnings.push(problem.to_owned());
    }
    let is_legacy = !config["added_tokens_decoder"].is_object();
    let special = special_tokens(&config, if is_legacy { &special_tokens_map } else { &Value::Null });
    let mut wanted = decoder_tokens(&config["added_tokens_decoder"]);
    if is_legacy {
        wanted.extend(older_tokens(&added_tokens, &special));
    }
    wanted.extend(special);
    let (completed, problems) = add(tokenizer, wanted);
    warnings.extend(problems);
    warnings.truncate(MOST_WARNINGS);
    (completed, warnings)
}

/// Of `added_tokens_decoder`, in the order of their ids.
fn decoder_tokens(decoder: &Value) -> Vec<Wanted> {
    let entries = decoder.as_object().into_iter().flatten();
    let entry = |(id, token): (&String, &Value)| {
        let (id, token) = (id.parse().ok()?, token_of(token, false)?);
        Some(Wanted { token, id: Some(id), replaces: true, file: "`added_tokens_decoder` in tokenizer_config.json" })
    };
    let mut tokens: Vec<_> = entries.filter_map(entry).collect();
    tokens.sort_by_key(|wanted| wanted.id);
    tokens
}

/// Of `added_tokens.json`, in the order of their ids.
fn older_tokens(added_tokens: &Value, special: &[Wanted]) -> Vec<Wanted> {
    let special: HashSet<_> = special.iter().filter_map(|wanted| wanted.token["content"].as_str()).collect();
    let entry = |(content, id): (&String, &Value)| {
        let token = token_of(&json!({"content": content, "special": special.contains(content.as_str())}), false)?;
        Some(Wanted { token, id: Some(id.as_u64()?), replaces: false, file: "added_tokens.json" })
    };
    let mut tokens: Vec<_> = added_tokens.as_object().into_iter().flatten().filter_map(entry).collect();
    tokens.sort_by_key(|wanted| wanted.id);
    tokens
}

/// The special tokens by name and in lists; what the map says counts more than the configuration.
fn special_tokens(config: &Value, map: &Value) -> Vec<Wanted> {
    let value = |key: &str| if map[key].is_null() { config[key].clone() } else { map[key].clone() };
    let named = NAMED.iter().map(|key| value(key));
    // Some models have roles of their own: `image_token`.
    let is_role = |key: &&String| key.ends_with("_token") && !NAMED.contains(&key.as_str());
    let own = config.as_object().into_iter().flat_map(Map::keys).filter(is_role).map(|key| value(key));
    let listed = LISTED.iter().flat_map(|key| match value(key) {
        Value::Array(tokens) => tokens,
        Value::Object(tokens) => tokens.into_iter().map(|(_, token)| token).collect(),
        _ => Vec::new(),
    });
    let tokens = named.chain(own).chain(listed).filter_map(|token| token_of(&token, true));
    tokens
        .map(|token| Wanted { token, id: None, replaces: false, file: "the special tokens of tokenizer_config.json" })
        .collect()
}

/// A token as tokenizer.json writes it, from its name alone or an object with some of the flags.
fn token_of(value: &Value, is_special: bool) -> Option<Value> {
    let content = value.as_str().or(value["content"].as_str()).filter(|content| !content.is_empty())?;
    let special = is_special || value["special"] == true;
    let mut token = Map::from_iter([("content".to_owned(), content.into())]);
    for flag in FLAGS {
        let default = match flag {
            "special" => special,
            "normalized" => !special,
            _ => false,
        };
        let given = value[flag].as_bool().filter(|_| flag != "special");
        token.insert(flag.to_owned(), given.unwrap_or(default).into());
    }
    Some(Value::Object(token))
}

/// Adds what is missing and replaces flags, as the library counts ids: on from the vocabulary.
fn add(tokenizer: &Value, wanted: Vec<Wanted>) -> (Option<Value>, Vec<String>) {
    let vocabulary = vocabulary(&tokenizer["model"]["vocab"]);
    let mut added = tokenizer["added_tokens"].as_array().cloned().unwrap_or_default();
    let content_of = |token: &Value| token["content"].as_str().unwrap_or_default().to_owned();
    let mut places: HashMap<String, usize> = added.iter().map(content_of).zip(0..).collect();
    let beyond = added.iter().filter_map(|token| token["id"].as_u64()).map(|id| id + 1);
    let mut next = beyond.chain([vocabulary.len() as u64]).max().unwrap_or_default();
    let (mut is_changed, mut warnings) = (false, Vec::new());
    for Wanted { mut token, id, replaces, file } in wanted {
        let content = content_of(&token);
        if let Some(&place) = places.get(&content) {
            let known = &mut added[place];
            if replaces && FLAGS.iter().any(|flag| known[flag] != token[flag]) {
                for flag in FLAGS {
                    known[flag] = token[flag].clone();
                }
                is_changed = true;
            }
            continue;
        }
        let given = vocabulary.get(content.as_str()).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        if id.is_some_and(|id| id != given) {
            let id = id.unwrap_or_default();
            warnings.push(format!("{file} gives `{content}` the id {id}; it is {given}, as in transformers"));
        }
        token["id"] = given.into();
        places.insert(content, added.len());
        added.push(token);
        is_changed = true;
    }
    if !is_changed {
        return (None, warnings);
    }
    let mut completed = tokenizer.clone();
    completed["added_tokens"] = added.into();
    (Some(completed), warnings)
}

/// The ids of a model's tokens, a table or a list with scores.
fn vocabulary(vocabulary: &Value) -> HashMap<&str, u64> {
    match vocabulary {
        Value::Object(tokens) => tokens.iter().filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?))).collect(),
        Value::Array(tokens) => {
            tokens.iter().zip(0..).filter_map(|(token, id)| Some((token[0].as_str()?, id))).collect()
        }
        _ => HashMap::new(),
    }
}
