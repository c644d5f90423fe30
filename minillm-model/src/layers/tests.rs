//! Each layer against numbers that can be checked by hand or were computed with PyTorch 2.9 in f64.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData, Tolerance};

use super::attention::grouped_attention;
use super::causal_mask::attention_mask;
use super::context::ForwardContext;
use super::dropout::{Dropout, dropout};
use super::gelu_mlp::GeluMlp;
use super::layer_norm::LayerNorm;
use super::rms_norm::RmsNorm;
use super::rope_table::{RotaryEmbedding, frequencies};
use super::swiglu::Swiglu;
use crate::config::{MlpKind, ModelConfig, ModelOptions, RopeScaling};

fn device() -> Device {
    Device::flex()
}

fn config() -> ModelConfig {
    let options = ModelOptions { hidden_size: Some(4), num_attention_heads: Some(1), ..ModelOptions::default() };
    ModelConfig { intermediate_size: 2, ..options.resolve(7, 16) }
}

/// f32 arithmetic on a handful of values.
fn assert_close<const D: usize>(got: Tensor<D>, expected: impl Into<TensorData>) {
    got.into_data().assert_approx_eq::<f32>(&expected.into(), Tolerance::absolute(1e-5));
}

/// A tensor of smoothly varying values.
fn ramp<const D: usize>(shape: [usize; D], frequency: f32) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * frequency).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

#[test]
fn rms_norm_divides_by_the_root_mean_square() {
    let norm = RmsNorm::new(4, 0.0, &device());
    let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 4.0]], &device());
    // sqrt((1 + 4 + 9 + 16) / 4) = 2.738613
    assert_close(norm.forward(x.clone()), [[0.365_148, 0.730_297, 1.095_445, 1.460_593]]);
    assert_close(norm.forward(x * 100.0), [[0.365_148, 0.730_297, 1.095_445, 1.460_593]]);
}

#[test]
fn rms_norm_of_zero_is_zero() {
    let norm = RmsNorm::new(2, 1e-5, &device());
    assert_close(norm.forward(Tensor::<2>::zeros([1, 2], &device())), [[0.0, 0.0]]);
}

#[test]
fn layer_norm_also_removes_the_mean() {
    let norm = LayerNorm::new(4, 0.0, true, &device());
    let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 4.0]], &device());
    // mean 2.5, variance 1.25
    assert_close(norm.forward(x.clone()), [[-1.341_641, -0.447_214, 0.447_214, 1.341_641]]);
    assert_close(norm.forward(x + 7.0), [[-1.341_641, -0.447_214, 0.447_214, 1.341_641]]);
}

#[test]
fn rope_turns_pairs_of_halves() {
    let rope = RotaryEmbedding::new(&config(), &device());
    // At position 1 pair 0 turns by 1 radian, pair 1 by 10000^(-1/2) = 0.01. Pair 0 is (value 0, value 2).
    let x = Tensor::<4>::from_floats([[[[1.0, 0.0, 0.0, 0.0]]]], &device());
    assert_close(rope.at(1, 1).apply(x), [[[[0.540_302, 0.0, 0.841_471, 0.0]]]]);
    let x = Tensor::<4>::from_floats([[[[0.0, 0.0, 0.0, 1.0]]]], &device());
    assert_close(rope.at(1, 1).apply(x), [[[[0.0, -0.01, 0.0, 0.999_95]]]]);
}

#[test]
fn rope_leaves_only_the_distance_in_a_dot_product() {
    let rope = RotaryEmbedding::new(&config(), &device());
    let (query, key) = (ramp([1, 1, 1, 4], 0.7), ramp([1, 1, 1, 4], 1.3));
    let dot = |p: usize, q: usize| (rope.at(p, 1).apply(query.clone()) * rope.at(q, 1).apply(key.clone())).sum();
    assert_close(dot(5, 3), dot(12, 10).into_data());
    let (near, far): (f32, f32) = (dot(5, 3).into_scalar(), dot(5, 0).into_scalar());
    assert!((near - far).abs() > 1e-2, "{near} {far}");
}

#[test]
fn rope_scaling_slows_the_slow_pairs() {
    let mut config = ModelConfig { head_dim: 8, ..config() };
    let plain = frequencies(&config, 16);
    config.rope_scaling = Some(RopeScaling::Linear { factor: 4.0 });
    for (scaled, plain) in frequencies(&config, 16).iter().zip(&plain) {
        assert!((scaled * 4.0 - plain).abs() < 1e-12);
    }
    config.rope_scaling = Some(RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    });
    // Turns over 64 tokens: 10.2 (kept), 1.02 (almost all interpolated), 0.1 and 0.01 (interpolated).
    let scaled = frequencies(&config, 16);
    assert_eq!(scaled[0].to_bits(), plain[0].to_bits());
    assert!(scaled[1] < plain[1] * 0.2 && scaled[1] > plain[1] / 8.0);
    assert!((scaled[2] * 8.0 - plain[2]).abs() < 1e-12);
    assert!((scaled[3] * 8.0 - plain[3]).abs() < 1e-12);
}

#[test]
fn swiglu_gates() {
    let config = ModelConfig { hidden_size: 1, intermediate_size: 1, ..config() };
    let mut mlp = Swiglu::new(&config, &device());
    let weight = |value: f32| Param::from_data([[value]], &device());
    (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight) = (weight(1.0), weight(3.0), weight(2.0));
    // silu(2) = 2 / (1 + e^-2) = 1.761594; times 3 * 2, times 2
    assert_close(mlp.forward(Tensor::from_floats([[[2.0]]], &device()), &ForwardContext::default()), [[[21.139_13]]]);
}

#[test]
fn gelu_in_both_forms_and_squared_relu() {
    for (kind, expected) in [
        (MlpKind::Gelu, [-0.158_808, 0.841_192]),
        (MlpKind::GeluErf, [-0.158_655, 0.841_345]),
        (MlpKind::Relu2, [0.0, 1.0]),
    ] {
        let config = ModelConfig { hidden_size: 1, intermediate_size: 1, mlp: kind, ..config() };
        let mut mlp = GeluMlp::new(&config, &device());
        let one = || Param::from_data([[1.0]], &device());
        (mlp.up_proj.weight, mlp.down_proj.weight) = (one(), one());
        assert_close(
            mlp.forward(Tensor::from_floats([[[-1.0], [1.0]]], &device()), &ForwardContext::default()),
            [[[expected[0]], [expected[1]]]],
        );
    }
}

#[test]
fn attention_averages_the_visible_values() {
    // Equal scores: every position sees the mean of the values up to itself.
    let query = Tensor::<4>::zeros([1, 1, 3, 2], &device());
    let value = Tensor::<4>::from_floats([[[[3.0, 0.0], [1.0, 2.0], [2.0, 4.0]]]], &device());
    let mask = attention_mask(3, 3, None, &device()).unwrap().reshape([1, 1, 3, 3]);
    let out = grouped_attention(query.clone(), query, value, Some(&mask), &Dropout::off());
    assert_close(out, [[[[3.0, 0.0], [2.0, 1.0], [2.0, 2.0]]]]);
}

#[test]
fn grouped_heads_share_keys_as_repeated_ones_would() {
    let (b, h, t, e) = (2, 6, 5, 4);
    let mask = attention_mask(t, t, None, &device()).unwrap().reshape([1, 1, t, t]);
    let query = ramp([b, h, t, e], 0.37);
    for k in [1, 2, 3, 6] {
        let (key, value) = (ramp([b, k, t, e], 0.23), ramp([b, k, t, e], 0.51));
        // Head j of k becomes heads j g .. j g + g.
        let repeat = |x: Tensor<4>| x.unsqueeze_dim::<5>(2).expand([b, k, h / k, t, e]).reshape([b, h, t, e]);
        let grouped = grouped_attention(query.clone(), key.clone(), value.clone(), Some(&mask), &Dropout::off());
        let full = grouped_attention(query.clone(), repeat(key), repeat(value), Some(&mask), &Dropout::off());
        assert_close(grouped, full.into_data());
    }
}

#[test]
fn mask_of_later_rows_starts_further_right() {
    let mask = attention_mask(2, 4, None, &device()).unwrap().into_data();
    assert_eq!(mask, TensorData::from([[false, false, false, true], [false, false, false, false]]));
}

#[test]
fn a_window_hides_what_lies_further_back() {
    let mask = |t, s, window| attention_mask(t, s, Some(window), &device()).map(Tensor::into_data);
    let expected = [[true, false, false, true], [true, true, false, false]];
    assert_eq!(mask(2, 4, 2), Some(TensorData::from(expected)));
    assert_eq!(mask(1, 4, 2), Some(TensorData::from([[true, true, false, false]])));
    assert_eq!(mask(1, 4, 4), None);
    assert_eq!(mask(2, 4, 4), Some(TensorData::from([[false, false, false, true], [false, false, false, false]])));
}

#[test]
fn dropout_keeps_the_share_and_the_mean() {
    let x = Tensor::<2>::ones([4, 50_000], &device());
    let out = dropout(x, &Dropout::new(0.2, vec![1, 2, 3, 4]));
    let mean: f32 = out.clone().mean().into_scalar();
    // 200,000 draws of 0 or 1.25: the mean's standard deviation is 0.0011.
    assert!((mean - 1.0).abs() < 0.005, "{mean}");
    let values = out.try_into_vec_as::<f32>().unwrap();
    assert!(values.iter().all(|value| *value == 0.0 || (*value - 1.25).abs() < 1e-6));
    let dropped = |row: usize| -> Vec<bool> { values[row * 50_000..][..50_000].iter().map(|v| *v == 0.0).collect() };
    // Unrelated rows: both dropped in 4 % of the places, standard deviation 0.09 %.
    let both = dropped(0).iter().zip(dropped(1)).filter(|(a, b)| **a && *b).count();
    assert!((1_700..2_300).contains(&both), "{both}");
}

#[test]
fn dropout_depends_on_the_row_and_the_place_alone() {
    let x = ramp([3, 40], 0.1);
    let drop = Dropout::new(0.5, vec![7, 8, 9]).in_block(3, 1);
    let whole = dropout(x.clone(), &drop).into_data();
    let rows =
        (0..3).map(|row| dropout(x.clone().narrow(0, row, 1), &Dropout::new(0.5, vec![7 + row as u64]).in_block(3, 1)));
    assert_eq!(Tensor::cat(rows.collect(), 0).into_data(), whole);
    assert_ne!(dropout(x.clone(), &Dropout::new(0.5, vec![7, 8, 9]).in_block(4, 1)).into_data(), whole);
    assert_eq!(dropout(x.clone(), &Dropout::off()).into_data(), x.into_data());
}
