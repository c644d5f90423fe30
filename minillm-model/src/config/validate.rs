//! Which architectures cannot be built.

use super::{ModelConfig, Position};
use crate::error::{Error, Result};

impl ModelConfig {
    /// Rejects what cannot be built, naming the field. Every model in this crate is made from a config that passed.
    pub fn validate(&self) -> Result<()> {
        // Above these a size is a typing error or a hostile file. Together they keep the parameter count within 2^50.
        const LARGEST: usize = 1 << 24;
        const MOST_LAYERS: usize = 1 << 12;
        const LARGEST_MATRIX: usize = 1 << 32; // numbers; 16 GiB in f32
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 || value > LARGEST {
                return invalid(field, format!("is {value}"), format!("choose a value from 1 to {LARGEST}"));
            }
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let problem = format!("is {}", self.num_hidden_layers);
            return invalid("num_hidden_layers", problem, format!("choose a value from 1 to {MOST_LAYERS}"));
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        for (field, other, product) in [
            ("vocab_size", "hidden_size", self.vocab_size * self.hidden_size),
            ("intermediate_size", "hidden_size", self.intermediate_size * self.hidden_size),
            (
                "num_attention_heads",
                "head_dim and hidden_size",
                (heads * self.head_dim).saturating_mul(self.hidden_size),
            ),
            ("max_position_embeddings", "hidden_size", self.max_position_embeddings * self.hidden_size),
        ] {
            if product > LARGEST_MATRIX {
                let problem = format!("times {other} makes a matrix of {product} numbers");
                return invalid(field, problem, format!("keep it below {LARGEST_MATRIX}"));
            }
        }
        if !heads.is_multiple_of(kv_heads) {
            let divisors: Vec<_> = (1..=heads).filter(|k| heads.is_multiple_of(*k)).map(|k| k.to_string()).collect();
            return invalid(
                "num_key_value_heads",
                format!("is {kv_heads}, which does not divide num_attention_heads = {heads}"),
                format!("choose one of {}", divisors.join(", ")),
            );
        }
        if self.head_dim * heads != self.hidden_size && self.head_dim == self.hidden_size / heads {
            return invalid(
                "num_attention_heads",
                format!("is {heads}, which does not divide hidden_size = {}", self.hidden_size),
                "choose a divisor of hidden_size, or set another head_dim".to_owned(),
            );
        }
        if self.position == Position::Rope && !self.head_dim.is_multiple_of(2) {
            return invalid(
                "head_dim",
                format!("is {}, but rotary positions turn pairs of values", self.head_dim),
                "choose an even head_dim, or another position".to_owned(),
            );
        }
        for (field, value) in [("norm_eps", self.norm_eps), ("rope_theta", self.rope_theta)] {
            if !(value.is_finite() && value > 0.0) {
                return invalid(field, format!("is {value}"), "choose a positive number".to_owned());
            }
        }
        if !(self.initializer_range.is_finite() && self.initializer_range >= 0.0) {
            let problem = format!("is {}", self.initializer_range);
            return invalid("initializer_range", problem, "0.02 is GPT-2's".to_owned());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return invalid("dropout", format!("is {}", self.dropout), "choose a share from 0 to below 1".to_owned());
        }
        if self.sliding_window == Some(0) {
            let hint = "choose 1 (a token sees itself) or more, or leave it out".to_owned();
            return invalid("sliding_window", "is 0".to_owned(), hint);
        }
        match self.rope_scaling.map_or(Ok(()), |scaling| scaling.check(self)) {
            Ok(()) => Ok(()),
            Err(hint) => invalid("rope_scaling", "has a number out of range".to_owned(), hint.to_owned()),
        }
    }
}

fn invalid(field: &'static str, problem: String, hint: String) -> Result<()> {
    Err(Error::InvalidConfig { field, problem, hint })
}
