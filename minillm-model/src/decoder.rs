//! The whole model: token ids in, a score for every possible next token out.
//!
//! ```text
//! ids -> embedding (+ learned positions) -> L blocks -> norm -> output matrix -> logits
//! ```
//!
//! A field's path is the name of its tensor in a Hugging Face LLaMA file: `model.layers.0.self_attn.q_proj.weight`.

use std::sync::Arc;

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor, module};

use crate::block::Block;
use crate::config::{ModelConfig, Position};
use crate::error::Result;
use crate::kv_cache::KvCache;
use crate::layers::Norm;
use crate::layers::context::ForwardContext;
use crate::layers::dropout::Dropout;
use crate::layers::gpu::{as_layers_take_it, dropout_forward, embedding_forward, put_in_one_piece};
use crate::layers::linear::Linear;
use crate::layers::product::tied_head;
use crate::layers::rope_table::RotaryEmbedding;
use crate::ops::ComputeOptions;
use crate::ops::quantized::QuantizedMatrix;

/// Everything between token ids and the last hidden state.
#[derive(Module, Debug)]
pub struct Decoder {
    /// One vector per token, `[V, D]`.
    pub embed_tokens: Embedding,
    /// One vector per position, `[C, D]`, where positions are learned.
    pub embed_positions: Option<Embedding>,
    /// The blocks, in order.
    pub layers: Vec<Block>,
    /// After the last block.
    pub norm: Norm,
    /// Angles shared by all blocks, where positions are rotary.
    pub(crate) rope: Option<RotaryEmbedding>,
}

/// A decoder with its output matrix.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Ids to hidden states.
    pub model: Decoder,
    /// D -> V. `None` if tied: then the embedding matrix is used again (Press & Wolf 2017, arXiv:1608.05859).
    pub lm_head: Option<Linear>,
    /// The architecture. Shared, as every worker of a training step has a copy of the model.
    #[module(skip)]
    pub(crate) config: Arc<ModelConfig>,
    /// How its passes compute: the one place where that is kept. Each pass hands it down in its [`ForwardContext`].
    #[module(skip)]
    pub(crate) compute: ComputeOptions,
    /// A tied output matrix in 8 bits, for generation.
    #[module(skip)]
    pub(crate) quantized: Option<Arc<QuantizedMatrix>>,
}

impl LanguageModel {
    /// The model of `config` with all matrices zero; [`init::initialize`](crate::init::initialize) or a checkpoint fills
    /// them. Fails if the config cannot be built.
    pub fn new(config: &ModelConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let (v, d) = (config.vocab_size, config.hidden_size);
        let table = |rows| EmbeddingConfig::new(rows, d).with_initializer(Initializer::Zeros).init(device);
        let model = Decoder {
            embed_tokens: table(v),
            embed_positions: (config.position == Position::Learned).then(|| table(config.max_position_embeddings)),
            layers: (0..config.num_hidden_layers).map(|index| Block::new(config, index, device)).collect(),
            norm: Norm::new(config, device),
            rope: (config.position == Position::Rope).then(|| RotaryEmbedding::new(config, device)),
        };
        let lm_head = (!config.tie_word_embeddings).then(|| Linear::new(d, v, false, device));
        let (config, compute) = (Arc::new(config.clone()), ComputeOptions::fastest(device));
        Ok(Self { model, lm_head, config, compute, quantized: None })
    }

    /// The architecture of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device of its weights, with autodiff if the model is being trained. Its inputs must be on the same one.
    pub fn device(&self) -> Device {
        self.model.embed_tokens.weight.lazy_device()
    }

    /// Scores of every token as the next one, at every position given.
    ///
    /// # Shapes
    /// - `ids`: `[B, T]` -> `[B, T, V]`; a cache, if given, holds the positions before these and grows by T.
    pub fn forward(&self, ids: Tensor<2, Int>, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.logits(self.hidden_states(ids, cache, Dropout::default()))
    }

    /// What the output matrix is given: [`LanguageModel::forward`] without its last step, with dropout for training.
    ///
    /// # Shapes
    /// - `ids`: `[B, T]` -> `[B, T, D]`; a cache, if given, holds the positions before these and grows by T.
    pub fn hidden_states(&self, ids: Tensor<2, Int>, cache: Option<&mut KvCache>, dropout: Dropout) -> Tensor<3> {
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        self.pass(self.context(start, ids.dims()[1], dropout), ids, cache)
    }

    pub(crate) fn pass(
        &self,
        mut context: ForwardContext,
        ids: Tensor<2, Int>,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [b, _] = ids.dims();
        put_in_one_piece(&mut context, b, cache.is_some(), self.model.layers.iter().map(|block| &block.self_attn));
        self.model.forward(ids, cache, &context)
    }

    /// What a pass of T tokens from position `start` on gives to every layer.
    pub fn context(&self, start: usize, t: usize, dropout: Dropout) -> ForwardContext {
        let rotation = self.model.rope.as_ref().map(|rope| rope.at(start, t));
        let window = self.model.layers.iter().find_map(|block| block.self_attn.window);
        let fast = self.compute.dropout;
        let dropout = if fast { dropout.on_device(self.model.layers.len(), &self.device()) } else { dropout };
        ForwardContext::at(self.compute, rotation, window, dropout)
    }

    /// The output matrix alone.
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, D]` -> `[B, T, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let context = ForwardContext::new(self.compute);
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(hidden, &context),
            None => tied_head(hidden, self.model.embed_tokens.weight.val(), self.quantized.as_ref(), &context),
        }
    }
}

impl Decoder {
    /// # Shapes
    /// - `ids`: `[B, T]` -> `[B, T, D]`
    pub fn forward(&self, ids: Tensor<2, Int>, mut cache: Option<&mut KvCache>, context: &ForwardContext) -> Tensor<3> {
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        let x = self.embed(ids, start, context); // [B, T, D]
        let (shape, mut x) = (x.dims(), as_layers_take_it(x, context));
        for (index, block) in self.layers.iter().enumerate() {
            let layer_cache = cache.as_mut().map(|cache| cache.layer(index));
            x = block.forward(x, layer_cache, context); // [B, T, D]
        }
        self.norm.forward(x, context).reshape(shape) // [B, T, D]
    }

    /// What enters the first block.
    ///
    /// # Shapes
    /// - `ids`: `[B, T]`, the first at position `start` -> `[B, T, D]`
    pub fn embed(&self, ids: Tensor<2, Int>, start: usize, context: &ForwardContext) -> Tensor<3> {
        let [_, t] = ids.dims();
        let mut x = embedding_forward(&self.embed_tokens, ids, context); // [B, T, D]
        if let Some(embed_positions) = &self.embed_positions {
            let table = embed_positions.weight.val(); // [C, D]
            let positions = match &context.documents {
                Some(documents) => module::embedding(table, documents.positions(&x.device())), // [B, T, D]
                None => table.narrow(0, start, t).unsqueeze(),                                 // [1, T, D]
            };
            x = x + positions; // [B, T, D]
        }
        dropout_forward(x, &context.dropout.at_embedding())
    }
}
