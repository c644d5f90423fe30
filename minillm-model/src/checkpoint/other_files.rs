//! What a directory holds where the weights that are read here are missing: an error says what it is and what to do.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use super::file::{FileKind, read_text};
use super::{CONFIG_FILE, INDEX_FILE, LARGEST_CONFIG_BYTES, WEIGHTS_FILE};
use crate::error::{Error, Result};
use crate::json::quote_non_finite;

/// What an adapter is fitted to, and how.
const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// Adapters begin with this; the ending follows.
const ADAPTER_WEIGHTS: &str = "adapter_model.";
/// Meta's and Mistral's own files begin with this.
const CONSOLIDATED: &str = "consolidated.";
/// A directory with more files than this is none of a model; the rest is not looked at.
const MOST_FILES: usize = 1000;
/// What `torch.save` writes, by the usual endings.
const PICKLE_ENDINGS: [&str; 4] = [".bin", ".pt", ".pth", ".ckpt"];
/// Weights of other frameworks.
const OTHER_ENDINGS: [(&str, &str); 5] =
    [(".h5", "Keras"), (".msgpack", "Flax"), (".onnx", "ONNX"), (".ot", "rust-bert"), (".tflite", "TensorFlow Lite")];

/// The names of the files in a directory, sorted. Hidden files and what cannot be listed are left out.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let files = entries.filter_map(std::result::Result::ok).take(MOST_FILES).filter(|entry| entry.path().is_file());
    let mut names: Vec<_> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// The GGUF files in a directory, told by their first bytes.
fn gguf_files(directory: &Path) -> Vec<PathBuf> {
    let paths = names(directory).into_iter().map(|name| directory.join(name));
    paths.filter(|path| FileKind::of(path) == FileKind::Gguf).collect()
}

/// The one GGUF file in a directory without other weights.
pub(super) fn only_gguf(directory: &Path) -> Option<PathBuf> {
    let has_others = has_weights(directory) || names(directory).iter().any(|name| is_weights(name));
    match &gguf_files(directory)[..] {
        [gguf] if !has_others => Some(gguf.clone()),
        _ => None,
    }
}

/// Whether the directory has weights under a name that is read.
pub(super) fn has_weights(directory: &Path) -> bool {
    [WEIGHTS_FILE, INDEX_FILE].iter().any(|name| directory.join(name).exists())
}

/// Whether the directory has an adapter, which is not applied to the model beside it.
pub(super) fn has_adapter(directory: &Path) -> bool {
    directory.join(ADAPTER_CONFIG_FILE).exists()
        || names(directory).iter().any(|name| name.starts_with(ADAPTER_WEIGHTS))
}

/// An error about a directory without weights that are read: it says which there are instead.
pub(super) fn no_weights(directory: &Path) -> Error {
    what_is_there(directory).unwrap_or_else(|| {
        let problem = format!("holds no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE}");
        refuse(directory, problem, "copy or download all files of the model")
    })
}

/// An error about a directory that lacks its `config.json` or weights, if it says what to do with what is there.
pub(super) fn what_is_there(directory: &Path) -> Option<Error> {
    let names = names(directory);
    let find = |is: &dyn Fn(&str) -> bool| names.iter().filter(|name| is(name)).cloned().collect::<Vec<_>>();
    for name in find(&is_weights) {
        let path = directory.join(name);
        if FileKind::of(&path) == FileKind::LfsPointer {
            return FileKind::LfsPointer.refuse(&path);
        }
    }

    if has_weights(directory) {
        let problem = format!("holds weights, but no {CONFIG_FILE}");
        return Some(refuse(directory, problem, "copy or download all files of the model"));
    }
    let adapters = find(&|name| name.starts_with(ADAPTER_WEIGHTS) || name == ADAPTER_CONFIG_FILE);
    if !adapters.is_empty() {
        let of = adapter_base(directory).map_or_else(|_| String::new(), |base| format!(" for the model `{base}`"));
        let problem = format!("holds an adapter{of} ({}), and no weights of its own", list(&adapters));
        let hint = "give the model that it is for, and this directory with --adapter";
        return Some(refuse(directory, problem, hint));
    }
    let shards = find(&|name| name.starts_with("model-") && name.contains("-of-") && ends(name, ".safetensors"));
    if !shards.is_empty() {
        let problem = format!("holds weights in several files ({}) without their index {INDEX_FILE}", list(&shards));
        return Some(refuse(directory, problem, "copy or download all files of the model"));
    }
    let variants = find(&|name| name.starts_with("model.") && name.contains(".safetensors"));
    if !variants.is_empty() {
        let problem = format!("holds a variant of the weights ({}), not {WEIGHTS_FILE}", list(&variants));
        let hint = "rename it to model.safetensors, or the index of a variant and its files likewise";
        return Some(refuse(directory, problem, hint));
    }
    let consolidated = find(&|name| name.starts_with(CONSOLIDATED));
    if !consolidated.is_empty() {
        let problem = format!("holds weights under Meta's or Mistral's own names ({})", list(&consolidated));
        let hint =
            "use the files for transformers (model.safetensors) of the same model, or convert these with transformers";
        return Some(refuse(directory, problem, hint));
    }
    let others = find(&|name| ends(name, ".safetensors"));
    if !others.is_empty() {
        let problem = format!("holds {}, but no {WEIGHTS_FILE}", list(&others));
        return Some(refuse(directory, problem, "rename the file if it holds the model's weights"));
    }
    let pickles = find(&|name| {
        is_pickle(name) || name.ends_with(".bin.index.json") || FileKind::of(&directory.join(name)) == FileKind::Pickle
    });
    if !pickles.is_empty() {
        let problem =
            format!("holds its weights as pickles ({}), which can run any code and are not read", list(&pickles));
        let hint = "save the model again in transformers, which writes model.safetensors";
        return Some(refuse(directory, problem, hint));
    }
    for (ending, framework) in OTHER_ENDINGS {
        let found = find(&|name| ends(name, ending));
        if !found.is_empty() {
            let problem = format!("holds weights for {framework} ({}), which are not read", list(&found));
            return Some(refuse(directory, problem, "save the model in PyTorch's transformers, as model.safetensors"));
        }
    }
    let ggufs: Vec<_> = gguf_files(directory).iter().filter_map(|path| file_name(path)).collect();
    if !ggufs.is_empty() {
        let problem = format!("holds {} GGUF files: {}", ggufs.len(), list(&ggufs));
        return Some(refuse(directory, problem, "give the path of one of them"));
    }
    None
}

fn ends(name: &str, ending: &str) -> bool {
    name.to_ascii_lowercase().ends_with(ending)
}

/// Whether a file of this name holds weights as a pickle, and not what trainers keep beside them.
fn is_pickle(name: &str) -> bool {
    PICKLE_ENDINGS.iter().any(|ending| ends(name, ending))
        && !["training_args", "optimizer", "scheduler", "rng_state"].iter().any(|part| name.contains(part))
}

/// Whether a file of this name holds weights of a kind other than GGUF.
fn is_weights(name: &str) -> bool {
    is_pickle(name) || ends(name, ".safetensors") || OTHER_ENDINGS.iter().any(|(ending, _)| ends(name, ending))
}

/// The model that an adapter is for.
fn adapter_base(directory: &Path) -> Result<String> {
    let path = directory.join(ADAPTER_CONFIG_FILE);
    let text = read_text(&path, LARGEST_CONFIG_BYTES, "the adapter's config")?;
    let config: Value = serde_json::from_str(&quote_non_finite(&text)).unwrap_or_default();
    let base = config["base_model_name_or_path"].as_str();
    base.map(str::to_owned).ok_or_else(|| refuse(&path, "names no base model".to_owned(), ""))
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let rest = names.len().saturating_sub(SHOWN);
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

fn refuse(path: &Path, problem: String, hint: &str) -> Error {
    Error::InvalidFile { path: path.to_owned(), problem, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let error = no_weights(folder.path());
        format!("{error} ({})", error.hint().unwrap())
    }

    #[test]
    fn what_there_is_instead_of_weights_is_named() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        for (files, parts) in [
            (&[("config.json", "{}")][..], &["holds no weights", "model.safetensors"][..]),
            (&[("pytorch_model.bin", "x")], &["pickles (`pytorch_model.bin`)", "any code"]),
            (
                &[("pytorch_model-00001-of-00002.bin", "x"), ("pytorch_model.bin.index.json", "{}")],
                &["pickles", "pytorch_model-00001-of-00002.bin"],
            ),
            (&[("weights", "PK\u{3}\u{4}")], &["pickles (`weights`)"]),
            (&[("training_args.bin", "x")], &["holds no weights"]),
            (&[("pytorch_model.bin", pointer)], &["pytorch_model.bin`: is a Git LFS pointer", "git lfs pull"]),
            (&[("model-00001-of-00002.safetensors", pointer)], &["Git LFS"]),
            (
                &[("adapter_config.json", "{\"base_model_name_or_path\": \"a/b\", \"r\": NaN}")],
                &["holds an adapter for the model `a/b`", "--adapter"],
            ),
            (&[("adapter_model.bin", "x")], &["holds an adapter (`adapter_model.bin`)"]),
            (&[("model-00001-of-00002.safetensors", "x")], &["without their index model.safetensors.index.json"]),
            (&[("model.fp16.safetensors", "x")], &["variant", "model.fp16.safetensors"]),
            (&[("model.safetensors.index.fp16.json", "{}")], &["variant", "index.fp16"]),
            (&[("consolidated.safetensors", "x")], &["consolidated.safetensors", "Mistral"]),
            (&[("consolidated.00.pth", "x"), ("params.json", "{}")], &["consolidated.00.pth"]),
            (&[("weights.safetensors", "x")], &["holds `weights.safetensors`, but no", "rename"]),
            (&[("model.pth", "x")], &["pickles (`model.pth`)"]),
            (&[("tf_model.h5", "x")], &["for Keras (`tf_model.h5`)"]),
            (&[("flax_model.msgpack", "x")], &["for Flax"]),
            (&[("a.gguf", "GGUF"), ("blob", "GGUF")], &["holds 2 GGUF files: `a.gguf`, `blob`"]),
        ] {
            let message = message(files);
            for part in parts {
                assert!(message.contains(part), "{files:?}: {message}");
            }
        }
    }
}
