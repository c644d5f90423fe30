//! LibTorch's own fused attention for CPUs; elsewhere the portable form.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use tch::{Device, Kind, Tensor};

use crate::ops::attention::{AttentionBackward, AttentionOp, Reach, SavedForBackward};
use crate::ops::portable;

impl AttentionOp for LibTorch {
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        reach: Reach,
    ) -> FloatTensor<Self> {
        Self::attention_forward([query, key, value], reach).out
    }
}

impl AttentionBackward for LibTorch {
    fn attention_forward(qkv: [FloatTensor<Self>; 3], reach: Reach) -> SavedForBackward<Self> {
        let [query, key, value] = qkv.each_ref().map(|tensor| &tensor.tensor);
        if !is_native(query, key, &reach) {
            return portable::attention::forward::<Self>(qkv, reach);
        }
        let (out, logsumexp) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            query,
            &repeated(key, query),
            &repeated(value, query),
            0.0,
            true,
            None::<Tensor>,
            None,
        );
        SavedForBackward { out: TchTensor::new(out), logsumexp: TchTensor::new(logsumexp), reach, qkv }
    }

    fn attention_backward(saved: SavedForBackward<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        let [query, key, value] = saved.qkv.each_ref().map(|tensor| &tensor.tensor);
        if !is_native(query, key, &saved.reach) {
            return portable::attention::backward::<Self>(saved, &grad);
        }
        let groups = key.size()[1];
        let (dquery, dkey, dvalue) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &grad.tensor,
            query,
            &repeated(key, query),
            &repeated(value, query),
            &saved.out.tensor,
            &saved.logsumexp.tensor,
            0.0,
            true,
            None::<Tensor>,
            None,
        );
        [dquery, summed(&dkey, groups), summed(&dvalue, groups)].map(TchTensor::new)
    }
}

/// LibTorch's kernel runs on CPUs, takes whole sequences and knows neither a window nor several documents; what it returns has its inputs' precision.
fn is_native(query: &Tensor, key: &Tensor, reach: &Reach) -> bool {
    let is_f32_on_cpu = query.device() == Device::Cpu && query.kind() == Kind::Float;
    *reach == Reach::default() && is_f32_on_cpu && query.size()[2] == key.size()[2]
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
