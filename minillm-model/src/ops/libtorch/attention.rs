//! LibTorch's own fused attention for CPUs; elsewhere the portable form.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use tch::{Device, Kind, Tensor};

use crate::ops::attention::AttentionOp;
use crate::ops::portable::{self, attention::Kept};

impl AttentionOp for LibTorch {
    fn attention_forward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        window: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if !is_native(&query.tensor, &key.tensor, window) {
            return portable::attention::forward::<Self>(&query, &key, &value, window);
        }
        let [query, key, value] = [query, key, value].map(|tensor| tensor.tensor);
        let [key, value] = [&key, &value].map(|heads| repeated(heads, &query));
        let (out, logs) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &query,
            &key,
            &value,
            0.0,
            true,
            None::<Tensor>,
            None,
        );
        (TchTensor::new(out), TchTensor::new(logs))
    }

    fn attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        out: FloatTensor<Self>,
        logs: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        window: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !is_native(&query.tensor, &key.tensor, window) {
            return portable::attention::backward::<Self>(Kept { query, key, value, out, logs, grad }, window);
        }
        let groups = key.tensor.size()[1];
        let [repeated_key, repeated_value] = [&key, &value].map(|heads| repeated(&heads.tensor, &query.tensor));
        let (dquery, dkey, dvalue) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &grad.tensor,
            &query.tensor,
            &repeated_key,
            &repeated_value,
            &out.tensor,
            &logs.tensor,
            0.0,
            true,
            None::<Tensor>,
            None,
        );
        let [dkey, dvalue] = [dkey, dvalue].map(|gradient| TchTensor::new(summed(&gradient, groups)));
        (TchTensor::new(dquery), dkey, dvalue)
    }
}

/// LibTorch's kernel runs on CPUs, takes whole sequences and knows no window; what it returns has its inputs' precision.
fn is_native(query: &Tensor, key: &Tensor, window: Option<usize>) -> bool {
    let is_f32_on_cpu = query.device() == Device::Cpu && query.kind() == Kind::Float;
    window.is_none() && is_f32_on_cpu && query.size()[2] == key.size()[2]
}

/// Each key/value head once for each of its query heads: `[B, K, S, E]` -> `[B, H, S, E]`.
fn repeated(heads: &Tensor, query: &Tensor) -> Tensor {
    let (size, h) = (heads.size(), query.size()[1]);
    let (b, k, s, e) = (size[0], size[1], size[2], size[3]);
    if h == k {
        return heads.shallow_clone();
    }
    heads.unsqueeze(2).expand([b, k, h / k, s, e], false).reshape([b, h, s, e])
}

/// And back, adding up: `[B, H, S, E]` -> `[B, K, S, E]`.
fn summed(gradient: &Tensor, k: i64) -> Tensor {
    let size = gradient.size();
    let (b, h, s, e) = (size[0], size[1], size[2], size[3]);
    if h == k {
        return gradient.shallow_clone();
    }
    gradient.reshape([b, k, h / k, s, e]).sum_dim_intlist(2, false, None::<Kind>)
}
