//! The KV cache: keys and values of the tokens already seen.
//!
//! Causal attention never changes what earlier tokens computed. Keeping their keys and values turns "run the whole text
//! again for each new token" into "run one token". The caller owns the cache; the model holds no state. Its memory is
//! allocated once, 2 L K E floats per position.

use burn::tensor::{Device, Tensor};

use crate::config::ModelConfig;

/// Keys and values of one block.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// `[B, K, capacity, E]`; the first `len` positions are filled.
    key: Tensor<4>,
    value: Tensor<4>,
    len: usize,
}

/// What a block's attention is given of it: nothing in training.
pub type Cache<'a> = Option<&'a mut LayerCache>;

/// The caches of all blocks.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    capacity: usize,
}

impl KvCache {
    /// Room for `batch` sequences of up to `capacity` tokens.
    pub fn new(config: &ModelConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let layer = || LayerCache { key: Tensor::zeros(shape, device), value: Tensor::zeros(shape, device), len: 0 };
        Self { layers: (0..config.num_hidden_layers).map(|_| layer()).collect(), capacity }
    }

    /// The number of positions that are filled.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memory it holds, full or not.
    pub fn bytes(&self) -> usize {
        let numbers = |tensor: &Tensor<4>| tensor.dims().iter().product::<usize>();
        self.layers.iter().map(|layer| (numbers(&layer.key) + numbers(&layer.value)) * size_of::<f32>()).sum()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.len = 0);
    }

    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }
}

impl LayerCache {
    /// The number of positions that are filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds T positions and returns all S of them. The caller sees that there is room: [`KvCache::capacity`].
    ///
    /// # Panics
    /// If there is none.
    ///
    /// # Shapes
    /// - `key`, `value`: `[B, K, T, E]` -> `[B, K, S, E]`
    pub fn append(&mut self, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [b, k, t, e] = key.dims();
        let (start, end, capacity) = (self.len, self.len + t, self.key.dims()[2]);
        assert!(
            end <= capacity,
            "the cache has room for {capacity} positions, of which {start} are filled; {t} more do not fit"
        );
        let added = [0..b, 0..k, start..end, 0..e];
        // `inplace` hands over the only reference, so that the backend can write without copying the rest.
        self.key.inplace(|cache| cache.slice_assign(added.clone(), key));
        self.value.inplace(|cache| cache.slice_assign(added, value));
        self.len = end;
        (self.key.clone().narrow(2, 0, end), self.value.clone().narrow(2, 0, end)) // [B, K, S, E]
    }
}
