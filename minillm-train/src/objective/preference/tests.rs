use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use minillm_model::adapter::{self, LoraOptions};
use minillm_model::checkpoint;
use minillm_model::layers::dropout::Dropout;
use serde_json::Value;

use super::*;
use crate::conversations::Example;
use crate::gradients::Gradients;
use crate::trainable::Trainable;

/// Values by TRL, where they are present.
fn golden(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden-post")).join(name);
    path.exists().then_some(path)
}

/// f32 over float64, or beside it: relative, and near zero absolute.
#[track_caller]
fn assert_close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-4 * expected.abs().max(1e-1), "{what}: {found} {expected}");
}

#[test]
fn losses_metrics_and_gradients_are_those_of_trl() {
    let (Some(base), Some(path)) = (golden("lora/llama/base"), golden("loss/dpo.json")) else { return };
    let expected: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    let device = burn::tensor::Device::flex();
    let reference_model = checkpoint::load(&base, &device).unwrap().model;
    let workers = Workers::new(2, 4).unwrap();
    let mut batch = Batch { context: 128, ..Batch::default() };
    let mut set = Vec::new();
    for pair in expected["pairs"].as_array().unwrap() {
        let ids =
            |key: &str| pair[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
        let answer = |key: &str| {
            let (prompt, answer) = (ids("prompt_ids"), ids(key));
            let is_trained = (0..prompt.len() + answer.len()).map(|place| place >= prompt.len()).collect();
            Example { ids: [prompt, answer].concat(), is_trained }
        };
        set.push([answer("chosen_ids"), answer("rejected_ids")]);
        push_row(&mut batch, set.last().unwrap());
    }
    let reference = logps(&reference_model, &workers, 4, &batch).unwrap();
    let reference = reference.as_chunks::<2>().0.to_vec();
    let rows: Vec<usize> = (0..set.len()).collect();
    let beta = expected["beta"].as_f64().unwrap();
    for (name, policy) in expected["policies"].as_object().unwrap() {
        let adapted = golden("lora/llama/qv-r8").unwrap();
        let on_tape = device.clone().autodiff();
        let plain = || checkpoint::load(&base, &on_tape).unwrap().model;
        let targets = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
        let lora =
            LoraOptions { rank: 8, alpha: 16.0, is_rank_stabilized: false, targets, modules_to_save: Vec::new() };
        let model = match name.as_str() {
            "full-at-start" => plain(),
            "full-merged" => adapter::load(&base, &adapted, &on_tape).unwrap().model,
            _ => {
                let model = adapter::restore(plain().with_lora(&lora, 1).unwrap(), &lora, &adapted).unwrap();
                Trainable::adapter(lora).freeze_others(model.valid().train())
            }
        };
        let pairs = Preference::answers(&set, &reference, &rows, &logps(&model.valid(), &workers, 2, &batch).unwrap());
        for (kind, loss) in
            [("sigmoid", PreferenceLoss::Sigmoid), ("hinge", PreferenceLoss::Hinge), ("ipo", PreferenceLoss::Ipo)]
        {
            assert_close(Measures::of(loss, beta, &pairs).loss, &policy["loss"][kind], &format!("{name} {kind}"));
        }
        let measures = Measures::of(PreferenceLoss::Sigmoid, beta, &pairs);
        let metrics = &policy["metrics"];
        assert_close(measures.rewards_chosen, &metrics["rewards/chosen"], name);
        assert_close(measures.rewards_rejected, &metrics["rewards/rejected"], name);
        assert_close(measures.rewards_chosen - measures.rewards_rejected, &metrics["rewards/margins"], name);
        assert_close(measures.logps_chosen, &metrics["logps/chosen"], name);
        assert_close(measures.logps_rejected, &metrics["logps/rejected"], name);
        if name == "lora" {
            assert_close(measures.accuracy, &metrics["rewards/accuracies"], name);
        }
        // The second pass: negative log-likelihoods, each with its weight.
        let shape = [batch.rows, batch.context];
        let ids =
            |ids: &[i32]| Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), shape), &device.clone().autodiff());
        let hidden = model.hidden_states_of(ids(&batch.inputs), batch.documents(0..batch.rows), Dropout::default());
        let weights =
            pairs.iter().flat_map(|[chosen, rejected]| PreferenceLoss::Sigmoid.of(beta, *chosen, *rejected).1);
        let losses = batch.pieces(0..batch.rows).zip(weights).map(|((row, tokens), slope)| {
            let at = [row..row + 1, tokens];
            model.summed_loss(hidden.clone().slice(at.clone()), ids(&batch.targets).slice(at))
                * (-slope / pairs.len() as f64)
        });
        let mut gradients = Gradients::collect(&model, Tensor::cat(losses.collect(), 0).sum().backward());
        assert_close(gradients.norm(model.compute()).into_scalar::<f64>(), &policy["grad_norm"], name);
        for (parameter, norm) in policy["grad_norm_of"].as_object().unwrap() {
            let ours = parameter.trim_start_matches("base_model.model.").replace("lora_A.weight", "lora.a");
            let gradient = gradients.take(&ours.replace("lora_B.weight", "lora.b")).unwrap();
            assert_close(gradient.powi_scalar(2).sum().sqrt().into_scalar::<f64>(), norm, parameter);
        }
    }
}

#[test]
fn slopes_are_those_of_the_losses() {
    let answer = |logp: f64, reference: f64, tokens: usize| Answer { logp, reference, tokens };
    for loss in [PreferenceLoss::Sigmoid, PreferenceLoss::Hinge, PreferenceLoss::Ipo] {
        for (chosen, rejected) in [(-3.0, -9.0), (-40.0, -2.0), (-2.0, -2.5)] {
            let at = |chosen: f64, rejected: f64| loss.of(0.3, answer(chosen, -4.0, 5), answer(rejected, -3.0, 7));
            let step = 1e-5;
            let slopes = [
                (at(chosen + step, rejected).0 - at(chosen - step, rejected).0) / (2.0 * step),
                (at(chosen, rejected + step).0 - at(chosen, rejected - step).0) / (2.0 * step),
            ];
            for (slope, expected) in at(chosen, rejected).1.into_iter().zip(slopes) {
                assert!((slope - expected).abs() < 1e-8, "{loss:?} {chosen} {rejected}: {slope} {expected}");
            }
        }
    }
    // Nothing overflows.
    let far = PreferenceLoss::Sigmoid.of(1.0, answer(-2000.0, 0.0, 1), answer(0.0, 0.0, 1));
    assert_eq!(far, (2000.0, [-1.0, 1.0]));
}

#[test]
fn pairs_of_equal_answers_are_left_out_and_the_fingerprint_knows_what_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let pair = |i: usize| {
        let rejected = if i == 3 { format!("answer {i}") } else { format!("other {i}") };
        serde_json::json!({ "prompt": format!("question {i}: "), "chosen": format!("answer {i}"), "rejected": rejected })
    };
    let lines: Vec<String> = (0..10).map(|i| pair(i).to_string()).collect();
    fs_err::write(&path, lines.join("\n")).unwrap();
    let prepare = |settings: &str| {
        let text = format!(
            "[objective]\nkind = \"preference\"\n[data]\nfiles = [{:?}]\n{settings}\n[tokenizer]\nkind = \"bpe\"\nvocab_size = 300\n[train]\ncontext = 128\n",
            path.to_str().unwrap()
        );
        let config = RunConfig::parse(&text, Path::new("pairs.toml"), &[]).unwrap();
        Preference::prepare(&config, folder.path(), &crate::data::Silent).unwrap()
    };
    let all = prepare("");
    assert_eq!((all.pairs.training.len(), all.pairs.validation.len(), all.pairs.left_out), (9 - 1, 1, 1));
    assert!(all.summary().unwrap().ends_with("; 1 pairs left out, as their answers are the same or behind the cut"));
    // What the reference thinks of the pairs is kept under this name: other pairs in its places need another.
    assert_ne!(all.fingerprint(), prepare("validation_fraction = 0.5").fingerprint());
    assert_eq!(all.fingerprint(), prepare("").fingerprint());
}

#[test]
fn the_floor_of_tales_is_that_of_the_best_policy_on_the_pairs_that_are_held_out() {
    use crate::tales::preferences::least_loss;

    let config = |rho: f64, only_unlike: bool| {
        let text = format!(
            "[objective]\nkind = \"preference\"\nrho = {rho:?}\nonly_unlike = {only_unlike}\n[tokenizer]\nkind = \"bpe\"\nvocab_size = 1024\n[train]\ncontext = 1024\n"
        );
        RunConfig::parse(&text, Path::new("pairs.toml"), &[]).unwrap()
    };
    let format = format(&config(1.0, true)).unwrap();
    for (rho, only_unlike) in [(1.0, true), (1.0, false), (0.2, true)] {
        let floor = Pairs::prepare(&config(rho, only_unlike), &format, &crate::data::Silent).unwrap().floor.unwrap();
        // 400 choices, each rho apart: at most rho / 2 / sqrt(400) of standard deviation, and here four of them; what is unlike varies, too.
        let expected = least_loss(rho, only_unlike);
        assert!((floor - expected).abs() < 4.0 * rho / 2.0 / 20.0, "{floor} {expected}");
    }
}

/// Pairs from a file, and a small model that knows nothing of them.
fn small(folder: &Path) -> (Preference, LanguageModel, RunConfig) {
    let path = folder.join("pairs.jsonl");
    let pair = |i: usize| {
        serde_json::json!({ "prompt": format!("{i}: "), "chosen": "yes, it is", "rejected": "no" }).to_string()
    };
    fs_err::write(&path, (0..12).map(pair).collect::<Vec<_>>().join("\n")).unwrap();
    let text = format!(
        "[objective]\nkind = \"preference\"\n[data]\nfiles = [{:?}]\n[tokenizer]\nkind = \"bpe\"\nvocab_size = 280\n\
         [model]\nhidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n[train]\ncontext = 64\nbatch_size = 5\n",
        path.to_str().unwrap()
    );
    let config = RunConfig::parse(&text, Path::new("pairs.toml"), &[]).unwrap();
    let mut preference = Preference::prepare(&config, folder, &crate::data::Silent).unwrap();
    let device = burn::tensor::Device::flex();
    let start = |device| crate::start::start(&config, preference.format.tokenizer(), device).unwrap();
    let (model, first) = (start(&device.clone().autodiff()), start(&device));
    preference.begin(&|| Ok(first.clone()), "test", &Workers::new(1, 1).unwrap()).unwrap();
    (preference, model, config)
}

#[test]
fn steps_make_the_chosen_answers_likelier_than_the_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (preference, mut model, config) = small(folder.path());
    let workers = Workers::new(1, 5).unwrap();
    let mut optimizer = crate::optimizer::ModelOptimizer::new(&config.optimizer);
    let mut losses = Vec::new();
    for step in 0..8 {
        let mut batch = preference.batch(step).unwrap();
        let weighed = preference.weigh(&model.valid(), &workers, 2, step, &mut batch).unwrap();
        losses.push(weighed.loss);
        let options = crate::step::StepOptions::of(&config, model.config(), 100);
        (model, _) = crate::step::train_step(model, &mut optimizer, &batch, &workers, &options).unwrap();
    }
    // Before the first step policy and reference are one model: f32 rounds the sums of both alike.
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6, "{losses:?}");
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
}

#[test]
fn the_split_of_a_weighed_batch_changes_rounding_only() {
    let folder = tempfile::tempdir().unwrap();
    let (preference, model, config) = small(folder.path());
    let norm = |rows: usize, threads: usize| {
        let workers = Workers::new(threads, rows).unwrap();
        let mut batch = preference.batch(1).unwrap();
        preference.weigh(&model.valid(), &workers, rows, 1, &mut batch).unwrap();
        // Weights of their own for each answer, so that one that is taken for another shows.
        batch.weights.iter_mut().zip(1..).for_each(|(weight, place)| *weight *= f64::from(place));
        let mut optimizer = crate::optimizer::ModelOptimizer::new(&config.optimizer);
        let options = crate::step::StepOptions {
            micro_batch_size: rows,
            ..crate::step::StepOptions::of(&config, model.config(), 100)
        };
        crate::step::train_step(model.clone(), &mut optimizer, &batch, &workers, &options).unwrap().1.grad_norm
    };
    let whole = norm(5, 1);
    for (rows, threads) in [(1, 1), (2, 1), (3, 2), (5, 2)] {
        let other = norm(rows, threads);
        assert!((other - whole).abs() < 1e-5 * whole, "{rows} rows, {threads} threads: {other} {whole}");
    }
}
