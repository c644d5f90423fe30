//! A model for other programs: GGUF for llama.cpp and Ollama, or a Hugging Face directory cast, cut or renamed.
//!
//! What was written is read back before it is published: every weight must be the source's, rounded as the encoding says,
//! and the logits must be the source's too. A file that does not pass never appears under its name.

mod card;
mod options;

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::Tensor;
use fs_err as fs;
use minillm_model::checkpoint::family::Family;
use minillm_model::checkpoint::naming::Naming;
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::checkpoint::{self, Checkpoint, Contents, WEIGHTS_FILE, durable, gguf, safetensors};
use minillm_model::config::{AttentionBias, ModelConfig};
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::error::Error as ModelError;
use minillm_model::parameters::{self, ParameterVisitor};
use minillm_model::tokenizer::Tokenizer;

pub use self::options::{Options, Target};
use crate::error::{Error, Result};
use crate::target_tokenizer;
use crate::verify::{Comparison, compare};

/// The name that transformers, GitHub and the hub show.
const CARD_FILE: &str = "README.md";
/// What `ollama create` reads.
const MODELFILE: &str = "Modelfile";
/// Rounding a weight to 8 bits moves logits by about a hundredth of their spread; a wrong layout moves them by all of it.
const LARGEST_ROUNDING: f64 = 0.25;

/// What was written.
#[derive(Debug)]
pub struct Exported {
    /// The model's file or directory.
    pub model: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// What was read back, compared with the source; texts by the rules of the program that will read it.
    pub comparison: Comparison,
    /// What that program will do differently, for the user.
    pub warnings: Vec<String>,
}

/// What was read back and what was found.
struct Proof {
    comparison: Comparison,
    warnings: Vec<String>,
}

/// Writes `source`, reads it back on the same device and compares.
pub fn export(source: &Checkpoint, options: &Options) -> Result<Exported> {
    refuse_what_cannot_be(options)?;
    let job = Job { source, options, config: with_gpt2_biases(source.model.config()) };
    if options.target == Target::Gguf && has_extension(&options.out, "gguf") {
        job.export_file()
    } else {
        job.export_directory()
    }
}

/// The switches for which no class of transformers would read the directory that is written; none if one does.
pub fn blocking_switches(config: &ModelConfig) -> Vec<&'static str> {
    match Family::of(&with_gpt2_biases(config)) {
        Family::MiniLlm => Family::nearest(config).1,
        _ => Vec::new(),
    }
}

/// `config` with all biases, if that is all it lacks to be a GPT-2, as in nanoGPT's `bias = False`: biases of zero are the
/// same model, and one that others know.
fn with_gpt2_biases(config: &ModelConfig) -> ModelConfig {
    let biased = ModelConfig { attention_bias: AttentionBias::All, mlp_bias: true, ..config.clone() };
    if Family::of(config) == Family::MiniLlm && Family::of(&biased) == Family::Gpt2 { biased } else { config.clone() }
}

/// One export.
struct Job<'a> {
    source: &'a Checkpoint,
    options: &'a Options,
    /// The architecture as it is written.
    config: ModelConfig,
}

fn refuse_what_cannot_be(options: &Options) -> Result<()> {
    let refuse = |problem: &str, hint: &str| Err(Error::Request { problem: problem.to_owned(), hint: hint.to_owned() });
    if options.target == Target::Hf && options.encoding == Encoding::Q8_0 {
        return refuse("`--dtype q8_0` is a format of GGUF", "use `--to gguf`, or f32, f16 or bf16");
    }
    if options.target == Target::Gguf && options.largest_shard.is_some() {
        return refuse("`--max-shard-size` is for directories", "use `--to hf`, or leave it out: GGUF is one file");
    }
    if has_extension(&options.out, "gguf") && options.target == Target::Hf {
        return refuse(
            "`--out` names a .gguf file, and `--to hf` writes a directory",
            "use `--to gguf`, or another --out",
        );
    }
    if options.out.is_dir() && fs::read_dir(&options.out).is_ok_and(|mut entries| entries.next().is_some()) {
        let problem = format!("`{}` is not empty", options.out.display());
        return refuse(&problem, "choose another --out, or remove what is there");
    }
    if options.out.is_file() {
        let problem = format!("`{}` exists", options.out.display());
        return refuse(&problem, "choose another --out, or remove that file");
    }
    Ok(())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

impl Job<'_> {
    /// One GGUF file.
    fn export_file(&self) -> Result<Exported> {
        let out = &self.options.out;
        durable::create_directory(&durable::System, durable::parent(out)).map_err(write_error)?;
        let temporary = TemporaryPath::beside(out);
        let Proof { comparison, warnings } = self.write_gguf(&temporary.path)?;
        let bytes = size(&temporary.path)?;
        durable::rename(&durable::System, &temporary.path, out).map_err(write_error)?;
        Ok(Exported { model: out.clone(), bytes, comparison, warnings })
    }

    /// A directory with the model, a card, and for GGUF a Modelfile.
    fn export_directory(&self) -> Result<Exported> {
        let Self { source, options, .. } = *self;
        durable::create_directory(&durable::System, durable::parent(&options.out)).map_err(write_error)?;
        let temporary = TemporaryPath::beside(&options.out);
        fs::create_dir(&temporary.path).map_err(write_error)?;
        let (model, Proof { comparison, warnings }) = match options.target {
            Target::Gguf => {
                let file = gguf::file_name(&options.name, &self.config, options.encoding);
                let proof = self.write_gguf(&temporary.path.join(&file))?;
                fs::write(temporary.path.join(MODELFILE), card::modelfile(source, &file)).map_err(write_error)?;
                (options.out.join(file), proof)
            }
            Target::Hf => (options.out.clone(), self.write_directory(&temporary.path)?),
        };
        let card = card::card(source, &self.config, options, &comparison);
        fs::write(temporary.path.join(CARD_FILE), card).map_err(write_error)?;
        durable::flush_tree(&durable::System, &temporary.path).map_err(write_error)?;
        let bytes = size(&temporary.path)?;
        if options.out.is_dir() {
            fs::remove_dir(&options.out).map_err(write_error)?; // it is empty
        }
        durable::rename(&durable::System, &temporary.path, &options.out).map_err(write_error)?;
        Ok(Exported { model, bytes, comparison, warnings })
    }

    fn contents(&self) -> Contents<'_> {
        Contents { config: &self.config, ..self.source.contents() }
    }

    /// The weights as they are before rounding.
    fn tensors(&self) -> Result<HostTensors> {
        let mut tensors = weights::collect(&self.source.model)?;
        for (name, shape) in parameters::expected(&self.config) {
            tensors.entry(name).or_insert_with(|| zeros(shape));
        }
        Ok(tensors)
    }

    fn write_gguf(&self, path: &Path) -> Result<Proof> {
        let encoding = self.options.encoding;
        gguf::save(path, &self.options.name, &self.contents(), self.tensors()?, encoding)?;
        let written = gguf::load(path, &self.source.model.device())?;
        let mut comparison = self.prove(&written, |name, tensor| gguf::write::encoding_of(name, tensor, encoding))?;
        let Some(tokenizer) = &self.source.tokenizer else { return Ok(Proof { comparison, warnings: Vec::new() }) };
        let findings = target_tokenizer::compare_with_file(tokenizer, self.config.vocab_size, path)?;
        (comparison.texts_equal, comparison.texts) = (Some(findings.equal), findings.texts);
        Ok(Proof { comparison, warnings: findings.warnings })
    }

    fn write_directory(&self, directory: &Path) -> Result<Proof> {
        let encoding = self.options.encoding;
        let tokenizer = self.source.tokenizer.as_ref();
        if let Some(problem) = tokenizer.and_then(Tokenizer::encoding_problem) {
            let hint = "convert the model's original files, which have a tokenizer.json".to_owned();
            return Err(Error::Request { problem: format!("no tokenizer.json can be written: {problem}"), hint });
        }
        checkpoint::save_contents(&durable::System, directory, &self.contents(), encoding)?;
        let tensors = Naming::written(&self.config).to_foreign(self.tensors()?);
        match self.options.largest_shard {
            Some(largest) => safetensors::write_shards(&durable::System, directory, &tensors, encoding, largest)?,
            None => safetensors::write(&durable::System, &directory.join(WEIGHTS_FILE), &tensors, encoding)?,
        }
        drop(tensors);
        let comparison = self.prove(&checkpoint::load(directory, &self.source.model.device())?, |_, _| encoding)?;
        let warning = tokenizer.and_then(|tokenizer| tokenizer.json_problem(comparison.has_equal_texts()));
        Ok(Proof { comparison, warnings: warning.into_iter().collect() })
    }

    /// Compares what was read back with the source: weight by weight, then in what they say.
    fn prove(&self, written: &Checkpoint, encoding_of: impl Fn(&str, &HostTensor) -> Encoding) -> Result<Comparison> {
        let differ = |problem: String| Err(Error::Differ { problem });
        // One tensor at a time: both models are in memory already, and copies of all they hold would double that.
        for (name, shape) in parameters::expected(&self.config) {
            let source = parameter(&self.source.model, &name)?.unwrap_or_else(|| zeros(shape));
            let expected = encoding_of(&name, &source).round(&source.values);
            if parameter(&written.model, &name)?.is_none_or(|found| found.values != expected) {
                return differ(format!("`{name}` was not read back as it was written"));
            }
        }
        let comparison = compare(self.source, written)?;
        let has_good_numbers = match self.options.encoding {
            // The same weights on the same device: the same bits.
            Encoding::F32 => comparison.is_equal_but_for_texts(0.0),
            _ => comparison.relative <= LARGEST_ROUNDING,
        };
        // What llama.cpp's rules make of a text, tokenizer.json can say only nearly.
        let may_differ = self.source.tokenizer.as_ref().is_some_and(Tokenizer::follows_llama_cpp);
        if has_good_numbers && (may_differ || comparison.has_equal_texts()) {
            Ok(comparison)
        } else {
            differ(format!("what was written computes something else: {comparison}"))
        }
    }
}

/// What the source lacks are biases that are added.
fn zeros(shape: Vec<usize>) -> HostTensor {
    HostTensor { values: vec![0.0; shape.iter().product()], shape }
}

/// One parameter of `model`, in the layout of files.
fn parameter(model: &LanguageModel, name: &str) -> Result<Option<HostTensor>> {
    struct Named<'a>(&'a str, Option<Result<HostTensor, ModelError>>);
    impl ParameterVisitor for Named<'_> {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            if name == self.0 {
                self.1 = Some(weights::to_host(name, &param.val()));
            }
        }
    }
    let mut named = Named(name, None);
    parameters::visit(model, &mut named);
    Ok(named.1.transpose()?)
}

fn size(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(fs::metadata(path).map_err(write_error)?.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(write_error)? {
        bytes += entry.map_err(write_error)?.metadata().map_err(write_error)?.len();
    }
    Ok(bytes)
}

fn write_error(source: std::io::Error) -> Error {
    Error::Model(ModelError::Io { action: "write", what: "the export", source })
}

/// A temporary name beside the final one; whatever is there is removed at the end.
struct TemporaryPath {
    path: PathBuf,
}

impl TemporaryPath {
    fn beside(out: &Path) -> Self {
        let temporary = Self { path: durable::part_file(out) };
        temporary.remove(); // left by a crash
        temporary
    }

    fn remove(&self) {
        let _ = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
    }
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        self.remove();
    }
}
