//! What goes beside an exported model for people: the model card, and Ollama's Modelfile.

use std::fmt::Write;

use fs_err as fs;
use minillm_model::checkpoint::family::Family;
use minillm_model::checkpoint::{Checkpoint, gguf};
use minillm_model::config::{ModelConfig, Position};
use minillm_model::stats;

use super::options::{Options, Target};
use crate::describe;
use crate::verify::Comparison;

/// What the trainer leaves in a checkpoint.
const STATE_FILE: &str = "trainer/state.json";
const RUN_CONFIG_FILE: &str = "trainer/config.toml";
/// Larger files are not the trainer's.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// The text of a Modelfile for the GGUF file `file`.
pub fn modelfile(source: &Checkpoint, file: &str) -> String {
    let mut text = format!("FROM ./{file}\n");
    // A model that was not trained on conversations continues its prompt. (A chat template is read from the file.)
    if source.chat_template.is_none() {
        text += "TEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n";
    }
    let _ = writeln!(text, "PARAMETER num_ctx {}", source.model.config().context());
    text + "PARAMETER temperature 0.8\n"
}

/// The text of a model card; `config` is the architecture as it was written.
pub fn card(source: &Checkpoint, config: &ModelConfig, options: &Options, comparison: &Comparison) -> String {
    let name = &options.name;
    let mut text = String::new();
    text += "---\npipeline_tag: text-generation\n";
    if options.target == Target::Hf {
        text += "library_name: transformers\n";
    }
    let parameters = stats::parameters(config).total();
    let _ = write!(
        text,
        "tags:\n- minillm\n---\n\n# {name}\n\nA language model of {parameters} parameters, trained with MiniLLM. \
         Weights in {}.\n\n",
        options.encoding.name()
    );
    text += "## Architecture\n\n";
    text += &architecture(config);
    text += &training(source);
    let _ = write!(text, "\n## How to run it\n\n{}", commands(config, options));
    let _ = write!(
        text,
        "\n## Proof\n\nRead back after writing and compared with the model it was made from: {comparison}.\n"
    );
    text
}

fn architecture(config: &ModelConfig) -> String {
    let mut rows = vec![
        ("layers", config.num_hidden_layers.to_string()),
        ("width", config.hidden_size.to_string()),
        ("MLP", format!("{}, {} wide", describe::mlp(config), config.intermediate_size)),
        (
            "attention",
            format!(
                "{}, each {} wide{}",
                describe::heads(config),
                config.head_dim,
                if config.qk_norm { ", normalised queries and keys" } else { "" }
            ),
        ),
        ("norm", describe::norm(config).to_owned()),
        ("positions", describe::positions(config).to_owned()),
        ("context", format!("{} tokens", config.context())),
        ("vocabulary", format!("{} tokens", config.vocab_size)),
        ("tied embeddings", if config.tie_word_embeddings { "yes" } else { "no" }.to_owned()),
    ];
    if config.position == Position::Rope {
        rows.push(("RoPE", format!("theta {}", config.rope_theta)));
    }
    rows.extend(config.rope_scaling.map(|scaling| ("RoPE scaling", json(&scaling))));
    rows.extend(config.sliding_window.map(|window| ("sliding window", format!("{window} tokens"))));
    let mut table = "| | |\n|---|---|\n".to_owned();
    for (name, value) in rows {
        let _ = writeln!(table, "| {name} | {value} |");
    }
    table
}

fn json(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What the trainer's files say, if the model comes from a checkpoint of the trainer.
fn training(source: &Checkpoint) -> String {
    let read = |name: &str| {
        let path = source.path.join(name);
        let is_small = fs::metadata(&path).is_ok_and(|file| file.len() <= LARGEST_FILE_BYTES);
        if is_small { fs::read_to_string(path).ok() } else { None }
    };
    let state = read(STATE_FILE).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let mut text = String::new();
    if let Some(state) = state {
        let _ = write!(text, "\n## Training\n\n{} steps, {} tokens", state["step"], state["tokens"]);
        if let Some(best) = state["best"].as_object() {
            let _ =
                write!(text, "; best validation loss {} nats per token, after step {}", best["value"], best["step"]);
        }
        text += ".\n";
    }
    if let Some(config) = read(RUN_CONFIG_FILE) {
        let _ = write!(text, "\nData and settings:\n\n```toml\n{}\n```\n", config.trim_end());
    }
    text
}

fn commands(config: &ModelConfig, options: &Options) -> String {
    let name = &options.name;
    match options.target {
        Target::Gguf => {
            let file = gguf::file_name(name, config, options.encoding);
            format!(
                "```sh\nllama-cli -m {file} -p \"Once upon a time\" -no-cnv\nollama create {} -f Modelfile\n\
                 minillm-infer generate {file} --prompt \"Once upon a time\"\n```\n",
                name.to_lowercase()
            )
        }
        Target::Hf if Family::of(config) == Family::MiniLlm => {
            "No class of transformers has this combination of switches; MiniLLM reads it:\n\n```sh\n\
             minillm-infer generate . --prompt \"Once upon a time\"\n```\n"
                .to_owned()
        }
        Target::Hf => "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                       model = AutoModelForCausalLM.from_pretrained(\".\")\n\
                       tokenizer = AutoTokenizer.from_pretrained(\".\")\n\
                       inputs = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n\
                       print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))\n```\n"
            .to_owned(),
    }
}
