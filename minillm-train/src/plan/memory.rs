//! Memory as formulas: what a training step keeps, counted from what the layers keep for their backward pass.
//!
//! Letters are those of `minillm_model`; N = B T tokens of a micro-batch. The W workers share N and have gradients of their
//! own. Numbers are f32. A tensor counts where it is kept: its neighbours see the same memory.
//!
//! ```text
//! kept a token                     fast                       readable
//! norm                             x, out                 2D  x, x * scale, out                      3D
//! layer norm                       x, out                 2D  centred, scaled, out                   3D
//! q, k norm                        x                          x, x * scale                 1 or 2 (HE + KE)
//! attention                        q, k, v, out, logs         q / sqrt(E), k, v, out       2HE + 2KE (+ H)
//!                                                             scores - max, exp, weights            3HT
//! SwiGLU                           gate, up, out          3F  gate, sigmoid, silu, up, out           5F
//! GELU                             z, out                 2F  z, z^2, tanh's in, 1 + tanh, out       5F
//! loss                             a chunk of logits          logits - max, exp, log of softmax      3V
//! ```
//!
//! Two phases can hold the peak at their end. When the forward pass ends, all activations are there and no gradients yet; when the
//! backward pass ends, all gradients and no activations: it frees what it has used. A third is a checkpoint's being written,
//! from copies of the weights and moments.

use minillm_infer::device::DeviceInfo;
use minillm_infer::memory::resident_memory_bytes;
use minillm_model::config::{MlpKind, ModelConfig, NormKind};
use minillm_model::loss::LARGEST_CHUNK;
use minillm_model::ops::ComputeOptions;
use minillm_model::stats;

use crate::config::{OptimizerKind, RunConfig};
use crate::trainable::Trainable;

/// Logits that a worker's fast loss holds at once on the CPU (`ops/cpu/cross_entropy.rs`). Elsewhere it is
/// [`LARGEST_CHUNK`] for all, in three tensors.
const CPU_CHUNK: usize = 2 * 1024 * 1024;

/// The program itself, as far as it has been read from disk: the resident size of `minillm-train devices` on Linux (x86-64).
const PROGRAM: usize = 11 << 20;

/// What the first steps of any model add to it, measured with one of 1,000 parameters on one thread: the rest of the program
/// and the buffers of the matrix product.
const FIRST_STEPS: usize = 9 << 20;

/// Each worker thread's stack, buffers of the matrix product and first pages of the allocator, measured likewise.
const WORKER: usize = 4 << 20;

/// What the allocator has freed and not given back, as a share of what is in use. It keeps memory by size and thread, so
/// that what one phase of a step frees does not all serve the next, and for a tenth of a second
/// (`minillm_infer::memory::keep_freed_memory`). Of whole runs of three sizes 0.30 to 0.57 (`tools/measure_plan.py`); of ten steps less.
const HELD: f64 = 0.38;

/// Where a block's activations come and go between gradients that stay: 0.19 to 0.39.
const HELD_RECOMPUTING: f64 = 0.33;

/// And where they also come in many sizes: 0.2 to 0.6. Muon's iterations do the same.
const HELD_IN_MANY_SIZES: f64 = 0.45;

/// The phases of training at whose end memory can be largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The forward pass has ended: the loss is computed.
    Forward,
    /// The backward pass has ended: the weights are about to move.
    Backward,
    /// A checkpoint is written.
    Saving,
}

/// All of them.
pub const PHASES: [Phase; 3] = [Phase::Forward, Phase::Backward, Phase::Saving];

/// Bytes by component, at the end of each of the [`PHASES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Names as in `--json`.
    pub parts: Vec<(&'static str, [usize; 3])>,
}

impl Memory {
    /// Bytes of all components at the end of a phase.
    pub fn at(&self, phase: Phase) -> usize {
        self.parts.iter().map(|(_, bytes)| bytes[phase as usize]).sum()
    }

    /// The phase of the largest need.
    pub fn peak_phase(&self) -> Phase {
        PHASES.into_iter().max_by_key(|phase| self.at(*phase)).unwrap_or(Phase::Forward)
    }

    /// The largest need.
    pub fn peak(&self) -> usize {
        self.at(self.peak_phase())
    }

    /// A component's bytes at the peak.
    pub fn part(&self, name: &str) -> Option<usize> {
        let phase = self.peak_phase() as usize;
        self.parts.iter().find(|(part, _)| *part == name).map(|(_, bytes)| bytes[phase])
    }
}

/// The way in which a step is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutionSetup {
    /// Which operations run in their fast form.
    pub compute: ComputeOptions,
    /// Threads among which a micro-batch is split.
    pub threads: usize,
    /// Where tensors lie in this process's memory: its size before there are any. It has read the text.
    pub process: Option<usize>,
}

impl ExecutionSetup {
    /// On this device, in this process as it is now.
    pub fn on(found: &DeviceInfo, compute: ComputeOptions) -> Self {
        let on_host = !found.is_gpu || found.is_software;
        let now = || resident_memory_bytes().map_or(PROGRAM, |bytes| bytes as usize);
        Self { compute, threads: found.training_threads(), process: on_host.then(now) }
    }
}

/// What training needs, by component.
pub fn memory(model: &ModelConfig, config: &RunConfig, setup: &ExecutionSetup) -> Memory {
    memory_training(&Trainable::of(config), model, config, setup)
}

/// What training some of the parameters needs, by component.
fn memory_training(trainable: &Trainable, model: &ModelConfig, config: &RunConfig, setup: &ExecutionSetup) -> Memory {
    const F32: usize = size_of::<f32>();
    let train = &config.train;
    let (rows, t) = (train.micro_batch_size().min(train.batch_size), train.context);
    let workers = setup.threads.min(rows).max(1);
    let (l, d, v) = (model.num_hidden_layers, model.hidden_size, model.vocab_size);
    let tokens = rows * t; // N

    let weights = F32 * stats::parameters(model).total();
    // Of what is trained, and of that what is in the blocks.
    let (trained, blocks) = trained_numbers(trainable, model);
    let (trained, blocks) = (F32 * trained, F32 * blocks);
    // Muon keeps one number for each of the blocks' matrices; what vectors they have beside those is too little to count.
    let moments = match config.optimizer.kind {
        OptimizerKind::AdamW => 2 * trained,
        OptimizerKind::Muon => 2 * trained - blocks,
    };
    // The sum over earlier micro-batches stays beside the gradients of this one.
    let earlier = if rows < train.batch_size { trained } else { 0 };

    let block = F32 * tokens * per_token(model, setup.compute, t);
    let head = F32 * tokens * norm_per_token(model, setup.compute);
    let entering = F32 * tokens * d;
    let passing = F32 * tokens * passing_per_token(model, setup.compute, t);
    let loss = F32 * (loss_numbers(model, setup.compute, tokens, workers) + workers * v * d);

    let (activations, gradients, in_passing) = if train.recompute {
        // The inputs of all blocks, and one block at a time: the last while no gradients but the head's are there, the first
        // when all but its own are.
        let one_block = block + passing;
        (
            [(l + 1) * entering + head + if one_block > loss { block } else { 0 }, block],
            [earlier, earlier + workers * (trained - blocks / l.max(1))],
            [if one_block > loss { passing } else { loss }, passing],
        )
    } else {
        ([l * block + head, 0], [earlier, earlier + workers * trained], [loss.max(passing), passing])
    };
    let mut parts = vec![
        ("weights", [weights; 3]),
        ("moments", [moments; 3]),
        ("gradients", [gradients[0], gradients[1], 0]),
        ("activations", [activations[0], activations[1], 0]),
        ("in_passing", [in_passing[0], in_passing[1], 0]),
        ("copies", [0, 0, moments.max(weights)]),
    ];
    if let Some(process) = setup.process {
        let share = match (train.recompute, setup.compute.attention) {
            _ if config.optimizer.kind == OptimizerKind::Muon => HELD_IN_MANY_SIZES,
            (true, false) => HELD_IN_MANY_SIZES,
            (true, true) => HELD_RECOMPUTING,
            (false, _) => HELD,
        };
        let in_use = Memory { parts: parts.clone() };
        parts.push(("held_by_allocator", PHASES.map(|phase| (share * in_use.at(phase) as f64) as usize)));
        let threads = if workers > 1 { workers * WORKER } else { 0 };
        parts.push(("process", [process + FIRST_STEPS + threads; 3]));
    }
    Memory { parts }
}

/// Numbers of all parameters that are trained, and of those in the blocks.
fn trained_numbers(trainable: &Trainable, model: &ModelConfig) -> (usize, usize) {
    let (mut all, mut in_blocks) = (0, 0);
    for (name, shape) in trainable.parameters(model) {
        let numbers: usize = shape.iter().product();
        all += numbers;
        in_blocks += if name.contains(".layers.") { numbers } else { 0 };
    }
    (all, in_blocks)
}

/// Numbers that a norm keeps of a token.
fn norm_per_token(model: &ModelConfig, compute: ComputeOptions) -> usize {
    match model.norm {
        NormKind::LayerNorm | NormKind::RmsNorm if compute.norm => 2 * model.hidden_size,
        NormKind::LayerNorm | NormKind::RmsNorm => 3 * model.hidden_size,
    }
}

/// Numbers that a block keeps of a token, by the table above.
fn per_token(model: &ModelConfig, compute: ComputeOptions, t: usize) -> usize {
    let (h, queries) = (model.num_attention_heads, model.num_attention_heads * model.head_dim); // H, HE
    let (d, f, keys) = (model.hidden_size, model.intermediate_size, model.num_key_value_heads * model.head_dim); // KE
    let drops = usize::from(model.dropout > 0.0);
    let head_norms = match (model.qk_norm, compute.norm) {
        (false, _) => 0,
        (true, true) => queries + keys,
        (true, false) => 2 * (queries + keys),
    };
    let scores = if is_fused(model, compute) { h } else { (3 + drops) * h * t };
    let mlp = match model.mlp {
        MlpKind::Swiglu if compute.activation => 3 * f,
        MlpKind::Gelu if compute.activation => 2 * f,
        MlpKind::Swiglu | MlpKind::Gelu => 5 * f,
        _ => 2 * f,
    };
    let masks = 2 * drops * d;
    2 * norm_per_token(model, compute) + head_norms + 2 * queries + 2 * keys + scores + mlp + masks
}

/// Whether attention runs without scores in memory.
fn is_fused(model: &ModelConfig, compute: ComputeOptions) -> bool {
    compute.attention && model.dropout == 0.0
}

/// Numbers a token of the gradients that are there at once within a block's backward pass: those of three tensors of the MLP
/// and of three as wide as the model, or of two tensors of scores.
fn passing_per_token(model: &ModelConfig, compute: ComputeOptions, t: usize) -> usize {
    let scores = if is_fused(model, compute) { 0 } else { 2 * model.num_attention_heads * t };
    (3 * (model.intermediate_size + model.hidden_size)).max(scores)
}

/// Numbers of the logits and what is made of them.
fn loss_numbers(model: &ModelConfig, compute: ComputeOptions, tokens: usize, workers: usize) -> usize {
    let (v, d) = (model.vocab_size.max(1), model.hidden_size);
    let rows = |chunk: usize, tokens: usize| (chunk / v).clamp(1, tokens.max(1));
    match (compute.cross_entropy, compute.thread_pool) {
        (false, _) => 3 * tokens * v,
        (true, true) => workers * rows(CPU_CHUNK, tokens.div_ceil(workers)) * v + tokens * d,
        (true, false) => 3 * rows(LARGEST_CHUNK, tokens) * v + tokens * d,
    }
}

#[cfg(test)]
mod tests {
    use minillm_model::config::ModelOptions;

    use super::*;

    const MIB: usize = 1 << 20;

    fn model() -> ModelConfig {
        let options = ModelOptions {
            hidden_size: Some(8),
            intermediate_size: Some(16),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(2),
            num_key_value_heads: Some(1),
            ..ModelOptions::default()
        };
        options.resolve(10, 4)
    }

    fn config() -> RunConfig {
        let mut config = RunConfig::default();
        (config.train.batch_size, config.train.context) = (4, 4);
        config
    }

    const FAST: ComputeOptions = ComputeOptions {
        norm: true,
        rotary: true,
        activation: true,
        attention: true,
        cross_entropy: true,
        adam_w: true,
        decode_matvec: true,
        thread_pool: true,
        matmul: true,
        ..ComputeOptions::READABLE
    };

    fn setup(compute: ComputeOptions) -> ExecutionSetup {
        ExecutionSetup { compute, threads: 2, process: Some(PROGRAM) }
    }

    /// Counted by hand: D = 8, F = 16, L = 2, H = 2, K = 1, E = 4, V = 10, N = 16, W = 2.
    #[test]
    fn a_small_model_is_as_counted_by_hand() {
        // Embedding 80, output 80, a block 2 * 64 + 2 * 32 + 3 * 128 + 16 = 592, last norm 8.
        let weights = 4 * (80 + 80 + 2 * 592 + 8);
        let fast = memory(&model(), &config(), &setup(FAST));
        // Norms 2 * 16, q and out 2 * 8, k and v 2 * 4, logs 2, MLP 3 * 16: 106 a token and block; the last norm 16.
        let activations = 4 * 16 * (2 * 106 + 16);
        // In passing: gradients of 3 (16 + 8) numbers a token, more than the loss's logits of 16 rows, their gradients of
        // 16 * 8 and those of the output matrix, 2 * 80.
        let passing = 4 * 16 * 72;
        assert!(passing > 4 * (16 * 10 + 16 * 8 + 2 * 80));
        assert_eq!(
            fast.parts[..5],
            [
                ("weights", [weights; 3]),
                ("moments", [2 * weights; 3]),
                ("gradients", [0, 2 * weights, 0]),
                ("activations", [activations, 0, 0]),
                ("in_passing", [passing, passing, 0]),
            ]
        );
        assert_eq!(fast.parts[7], ("process", [28 * MIB; 3]));
        let in_use = 3 * weights + activations + passing;
        assert_eq!(fast.at(Phase::Forward), in_use + (HELD * in_use as f64) as usize + 28 * MIB);
        assert_eq!(fast.peak(), fast.at(fast.peak_phase()));

        // GPT-2's norm keeps as much; of the MLP, GELU's input and output: 2 * 16 numbers for 3 * 16.
        let gelu = ModelConfig { norm: NormKind::LayerNorm, mlp: MlpKind::Gelu, ..model() };
        let gelu = memory(&gelu, &config(), &setup(FAST));
        assert_eq!(gelu.parts[3].1, [4 * 16 * (2 * 90 + 16), 0, 0]);

        let readable = memory(&model(), &config(), &setup(ComputeOptions::READABLE));
        // Norms 2 * 24, q and out 16, k and v 8, scores 3 * 2 * 4, MLP 5 * 16: 176; the last norm 24.
        assert_eq!(readable.parts[3].1, [4 * 16 * (2 * 176 + 24), 0, 0]);
    }

    #[test]
    fn what_saves_memory_does() {
        let peak = |change: fn(&mut RunConfig)| {
            let mut config = config();
            (config.train.batch_size, config.train.context) = (64, 64);
            change(&mut config);
            memory(&model(), &config, &setup(FAST)).peak()
        };
        let whole = peak(|_| {});
        assert!(peak(|config| config.train.micro_batch_size = Some(8)) < whole);
        assert!(peak(|config| config.train.recompute = true) < whole);
        let moments = |kind| {
            let mut config = config();
            config.optimizer.kind = kind;
            memory(&model(), &config, &setup(FAST)).parts[1].1[0]
        };
        assert_eq!(moments(OptimizerKind::AdamW) - moments(OptimizerKind::Muon), 4 * 2 * 592);
    }

    #[test]
    fn what_is_not_trained_has_neither_gradients_nor_moments() {
        let bytes = |trainable: &Trainable| {
            let parts = memory_training(trainable, &model(), &config(), &setup(FAST)).parts;
            ["weights", "moments", "gradients"].map(|name| {
                let (_, [.., backward, _]) = parts.iter().find(|(part, _)| *part == name).unwrap();
                *backward
            })
        };
        let [weights, moments, gradients] = bytes(&Trainable::default());
        // The embedding's 80 numbers in f32: two moments, and a gradient for each of two workers.
        let frozen = bytes(&Trainable::all_but(["model.embed_tokens."]));
        assert_eq!(frozen, [weights, moments - 2 * 320, gradients - 2 * 320]);
    }

    #[test]
    fn a_gpu_has_no_process_to_hold() {
        let gpu = memory(&model(), &config(), &ExecutionSetup { process: None, ..setup(FAST) });
        assert_eq!(gpu.part("process"), None);
        assert_eq!(gpu.part("held_by_allocator"), None);
    }
}
