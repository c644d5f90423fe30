//! What an export is asked for.

use std::path::PathBuf;

use minillm_model::encoding::Encoding;

/// For which programs a model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One GGUF file, for llama.cpp and Ollama.
    Gguf,
    /// A Hugging Face directory, for transformers, vLLM, candle and mlx.
    Hf,
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs that will read it.
    pub target: Target,
    /// A directory, or for GGUF also a file.
    pub out: PathBuf,
    /// The number format of the weights.
    pub encoding: Encoding,
    /// What the model is called.
    pub name: String,
    /// The largest weight file of a directory, in bytes.
    pub largest_shard: Option<u64>,
}
