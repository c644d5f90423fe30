//! Faults, planted by exchanging one form of a check: each is found, named, and given a hint.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use minillm_model::cases::inputs::{leaf, random};
use minillm_model::cases::{Leaf, Place, Prepared, to};
use minillm_model::layers::attention::grouped_attention;
use minillm_model::layers::dropout::Dropout;
use minillm_model::layers::rms_norm::RmsNorm;

use super::*;
use crate::doctor::cache::{Reader, text, windowed};
use crate::doctor::training::{gradient_norms, model, qwen3};

/// The check of that name.
fn check(name: &str) -> Check {
    checks().into_iter().find(|check| check.name == name).unwrap()
}

fn with_fast(name: &str, fault: impl Fn(&Setting) -> Computed + 'static) -> Check {
    Check { fast: Rc::new(fault), ..check(name) }
}

fn with_readable(name: &str, fault: impl Fn(&Setting) -> Computed + 'static) -> Check {
    Check { readable: Rc::new(fault), ..check(name) }
}

fn outcomes(check: &Check) -> Vec<Outcome> {
    examine(check, &flex(), &Reference::stored(), Forms::All)
}

/// The one outcome that went wrong, as the report prints it, and that the report then says so in every way.
fn finding(check: &Check) -> String {
    let report = report_of(outcomes(check));
    assert!(!report.is_ok());
    assert_eq!(report.wrong().count(), 1, "{}", report.to_text());
    let error = report.error().unwrap();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().starts_with("device `flex` computes wrongly: "), "{error}");
    assert!(error.hint().is_some());
    let json = report.to_json();
    assert_eq!(json["ok"], false);
    let wrong = json["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
    assert_eq!(wrong.count(), 1, "{json}");
    let text = report.to_text();
    assert!(text.contains("not sound"), "{text}");
    text.split_once("WRONG: ").unwrap().1.to_owned()
}

/// The value of `out`, and the gradients of the leaves.
fn both_ways<const D: usize>(out: Tensor<D>, leaves: Vec<Leaf>) -> Computed {
    Prepared::new(leaves, move || out.clone()).compute()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "lacks `{part}`:\n{text}");
    }
}

/// Turned the wrong way: the sine's sign is lost.
fn turned_back(Setting { place: Place { device, .. }, .. }: &Setting) -> Computed {
    let (start, t, e) = (2, 5, 8);
    let angle = |index: usize| {
        let (position, pair) = (start + index / e, index % e % (e / 2));
        position as f64 * 10_000_f64.powf(-2.0 * pair as f64 / e as f64)
    };
    let table = |of: fn(f64) -> f64| {
        let values: Vec<f32> = (0..t * e).map(|index| of(angle(index)) as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, [t, e]), device).unsqueeze::<4>()
    };
    let x = leaf([2, 5, 3, 8], "x", device);
    let heads = x.clone().swap_dims(1, 2);
    let [first, second] = [0, 1].map(|half| heads.clone().narrow(3, half * e / 2, e / 2));
    let swapped = Tensor::cat(vec![second, -first], 3);
    both_ways(heads * table(f64::cos) + swapped * table(f64::sin), vec![to("x", &x)])
}

#[test]
fn a_wrong_sign_in_rope() {
    let text = finding(&with_fast("RoPE", turned_back));
    has(&text, &["RoPE, fast form: ", "value is off by", "gradient of `x` is off by", "tolerance 2e-5"]);
    has(&text, &["hint: ", "--set train.kernels=readable"]);
}

/// Every query sees every key.
fn unmasked(Setting { place: Place { device, .. }, .. }: &Setting) -> Computed {
    let query = leaf([2, 7, 4, 8], "query", device);
    let [key, value] = ["key", "value"].map(|name| leaf([2, 7, 2, 8], name, device));
    let [q, k, v] = [&query, &key, &value].map(|x| x.clone().swap_dims(1, 2));
    let out = grouped_attention(q, k, v, None, &Dropout::off());
    both_ways(out, vec![to("query", &query), to("key", &key), to("value", &value)])
}

#[test]
fn a_missing_causal_mask() {
    let text = finding(&with_fast("attention (GQA)", unmasked));
    has(&text, &["attention (GQA), fast form: ", "value is off by", "--set train.kernels=readable"]);
    // The same in the readable form leaves no form to train with.
    let text = finding(&with_readable("attention (GQA)", unmasked));
    has(&text, &["attention (GQA), readable form: ", "do not train on it"]);
    assert!(!text.contains("train.kernels"), "{text}");
}

/// The matrix read as if it lay `[output, input]`.
fn transposed(Setting { place: Place { device, .. }, .. }: &Setting) -> Computed {
    let x = leaf([2, 40, 96], "x", device);
    let weight = Param::from_tensor(random([96, 72], "weight", device));
    let bias = Param::from_tensor(random([72], "bias", device));
    let out = x.clone().matmul(weight.val().reshape([72, 96]).transpose().unsqueeze()) + bias.val().unsqueeze();
    both_ways(out, vec![to("x", &x), to("weight", &weight.val()), to("bias", &bias.val())])
}

#[test]
fn a_transposed_weight() {
    let text = finding(&with_fast("linear", transposed));
    has(&text, &["linear, fast form: ", "value is off by", "gradient of `x` is off by"]);
    has(&text, &["--set train.kernels=readable"]);
}

/// A norm that lets no gradient through to what it normalises.
fn detached(Setting { place: Place { device, .. }, .. }: &Setting) -> Computed {
    let x = leaf([5, 33], "x", device);
    let mut norm = RmsNorm::new(33, 1e-3, device);
    norm.weight = Param::from_tensor(random([33], "weight", device));
    both_ways(norm.forward(x.clone().detach()), vec![to("x", &x), to("weight", &norm.weight.val())])
}

#[test]
fn a_dropped_gradient() {
    let text = finding(&with_fast("RMSNorm", detached));
    has(&text, &["RMSNorm, fast form: gradient of `x` is missing", "--set train.kernels=readable"]);

    let frozen = |setting: &Setting| -> Computed {
        let mut model = model(&qwen3(), setting)?;
        model.model.layers[1].mlp = model.model.layers[1].mlp.clone().no_grad();
        gradient_norms(&model, setting)
    };
    let text = finding(&with_fast("gradients qwen3", frozen));
    has(&text, &["gradients qwen3, fast form: ", "gradient of `model.layers.1.mlp.", "is missing"]);

    let sound = check("gradients gpt2");
    let zero = move |setting: &Setting| -> Computed {
        let mut parts = (sound.fast)(setting)?;
        let embedding = parts.iter_mut().find(|part| part.what.contains("embed_tokens")).unwrap();
        embedding.values.fill(0.0);
        Ok(parts)
    };
    let text = finding(&with_fast("gradients gpt2", zero));
    has(&text, &["gradients gpt2, fast form: gradient of `model.embed_tokens.weight` is all zero"]);
}

#[test]
fn a_stale_cache() {
    let sound = check("cache qwen3");
    let stale = move |setting: &Setting| -> Computed {
        let (reader, config) = (Reader::new(&windowed(), setting)?, windowed());
        let cache = reader.cache();
        // Each token is given the cache as it was before the first.
        let logits: Result<Vec<_>, _> =
            text(&config).iter().map(|id| reader.logits(&[*id], Some(&mut cache.clone()))).collect();
        let mut parts = (sound.fast)(setting)?;
        let part = parts.iter_mut().find(|part| part.what.contains("one token at a time")).unwrap();
        part.values = logits?.concat();
        Ok(parts)
    };
    let text = finding(&with_fast("cache qwen3", stale));
    has(&text, &["cache qwen3, fast form: logits of one token at a time is off by", "hint: generate"]);
}

#[test]
fn a_form_that_panics_or_gives_no_number() {
    let text = finding(&with_fast("SwiGLU", |_| panic!("the device was lost")));
    has(&text, &["SwiGLU, fast form: gave nothing: it panicked: the device was lost"]);
    let text = finding(&with_fast("SwiGLU", |_| Err("out of memory".to_owned())));
    has(&text, &["SwiGLU, fast form: gave nothing: out of memory"]);
    has(&finding(&with_fast("SwiGLU", |_| Ok(Vec::new()))), &["SwiGLU, fast form: gave nothing"]);
    assert_eq!(
        catch_panic(|| -> Result<(), _> { std::panic::panic_any(3) }).unwrap_err(),
        "it panicked: without a message"
    );

    let sound = check("GELU");
    let broken = move |setting: &Setting| -> Computed {
        let mut parts = (sound.fast)(setting)?;
        parts[1].values[7] = f32::NAN;
        Ok(parts)
    };
    let check = with_fast("GELU", broken);
    has(&finding(&check), &["GELU, fast form: gradient of `x` is not finite"]);
    assert_eq!(report_of(outcomes(&check)).to_json()["checks"][1]["error"], serde_json::Value::Null);
}

/// What `train` does before it begins: it refuses with the operation's name, a hint and how to train all the same.
#[test]
fn a_run_is_refused() {
    let faulty = [check("embedding"), with_fast("RoPE", turned_back)];
    let error = quick_with(&faulty, &flex(), KernelChoice::Fast).unwrap_err();
    assert!(error.to_string().contains("RoPE, fast form: "), "{error}");
    has(error.hint().unwrap(), &["train.kernels=readable", "--set train.check_device=false", "doctor --device flex"]);
    assert_eq!(error.exit_code(), 1);
    // The fault is in a form that a run with readable kernels does not use.
    quick_with(&faulty, &flex(), KernelChoice::Readable).unwrap();
    // On a GPU whose readable form is wrong, too.
    let faulty = [check("embedding"), with_readable("RoPE", turned_back)];
    let gpu = DeviceInfo { is_gpu: true, ..flex() };
    let error = quick_with(&faulty, &gpu, KernelChoice::Readable).unwrap_err();
    has(error.hint().unwrap(), &["newer driver", "BURN_FUSION_MAX_EXPLORATIONS=0"]);
}
