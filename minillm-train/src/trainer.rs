//! The training loop.
//!
//! ```text
//! until max_steps:
//!     batch -> train_step            forward, backward, clip, update
//!     every log.every_steps:         record loss, norm, rate
//!     every eval.every_steps:        score the validation text, write a sample
//!     every checkpoint.every_steps:  publish a checkpoint; also when the validation loss is the best so far
//! ```
//!
//! What a step does is a pure function of the configuration, the seed and the step, so a run that was stopped and resumed
//! goes through the same weights as one that never stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use fs_err as fs;
use minillm_infer::device::DeviceInfo;
use minillm_infer::failures;
use minillm_infer::generate::{Tokens, text};
use minillm_infer::sampling::Sampling;
use minillm_model::adapter::restore;
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::error::with_causes;
use minillm_model::random::derive;
use minillm_model::tokenizer::Tokenizer;

use crate::checkpoint::{self, Best, CheckpointParts, State};
use crate::config::{OnError, RunConfig};
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::interrupt::{Interrupt, Signal};
use crate::metrics::console::Console;
use crate::metrics::jsonl::Jsonl;
use crate::metrics::tensorboard::TensorBoard;
use crate::metrics::{Metrics, Record, Sink, tag};
use crate::objective::{Objective, Prompt, Weigh, Weighed};
use crate::optimizer::ModelOptimizer;
use crate::report::Updates;
use crate::run_dir::{METRICS_FILE, RunDir, SAMPLES_FOLDER, TENSORBOARD_FOLDER};
use crate::start::{Base, architecture, base, lora_options, start, weights_at_start};
use crate::step::{Computed, Pending, StepOptions, StepResult};
use crate::trainable::Trainable;
use crate::workers::Workers;

/// A run in progress.
pub struct Trainer {
    config: RunConfig,
    objective: Box<dyn Objective>,
    /// What the adapter is for, if one is trained.
    base: Option<Base>,
    run: RunDir,
    resumed_from: Option<PathBuf>,
    workers: Workers,
    /// The model, with autodiff.
    model: LanguageModel,
    optimizer: ModelOptimizer,
    state: State,
    metrics: Metrics,
    console: Console,
    reports: Updates,
    running: Option<Running>,
    rate: Rate,
}

/// A step that a device may still be computing.
struct Running {
    result: Pending,
    /// Tokens that it reads.
    tokens: u64,
    learning_rate: f64,
    /// What the objective says of it.
    weighed: Option<Weighed>,
}

/// From when on tokens are counted, for their rate.
struct Rate {
    since: Instant,
    /// Those before.
    tokens: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The newest checkpoint; after no step at all, the one that was resumed.
    pub checkpoint: PathBuf,
    /// Steps taken, resumed ones included.
    pub steps: usize,
    /// The last evaluation of this session, if there was one.
    pub evaluation: Option<Evaluation>,
    /// The best evaluation of the run.
    pub best: Option<Best>,
    /// The signal that ended it early.
    pub interrupted: Option<Signal>,
}

impl Trainer {
    /// Sets up a run: a new model, or with `resume_from` the one in that checkpoint. With a `label` the run is one of several
    /// and shows no more than a bar of that name.
    pub fn new(
        config: &RunConfig,
        mut objective: Box<dyn Objective>,
        run: RunDir,
        found: &DeviceInfo,
        resume_from: Option<&Path>,
        label: Option<&str>,
    ) -> Result<Self> {
        let device = found.device.clone().autodiff();
        let threads = found.training_threads();
        let compute = config.train.compute_on(&device)?;
        let mut optimizer = ModelOptimizer::new(&config.optimizer).training(Trainable::of(config));
        let base = base(config)?;
        // What an adapter is for, or what a policy is compared with.
        let began_with = match &base {
            Some(base) => Some(base.sha256.clone()),
            None if objective.weighs().is_some() => Some(weights_at_start(config)?),
            None => None,
        };
        let (model, state) = match resume_from {
            None => {
                let model = start(config, objective.tokenizer(), &device)?;
                // The run before this one goes only now, when text, tokenizer and model have been seen to fit.
                run.clear()?;
                let state = State::new(config.seed, objective.fingerprint().to_owned(), found.name.clone(), threads);
                let state = State { base_sha256: began_with.clone(), ..state };
                (model, state)
            }
            Some(checkpoint) if config.lora.is_some() => {
                let state = checkpoint::resume_state(checkpoint, objective.fingerprint(), &found.name, threads)?;
                check_base(&state, began_with.as_deref(), checkpoint)?;
                let model = start(config, objective.tokenizer(), &device)?;
                let model = match lora_options(config, model.config()) {
                    Some(options) => restore(model, &options, checkpoint)?,
                    None => model,
                };
                checkpoint::load_optimizer(checkpoint, &model, &state, &mut optimizer)?;
                (model, state)
            }
            Some(checkpoint) => {
                let model_config = architecture(config, objective.tokenizer(), checkpoint)?;
                let state = checkpoint::resume_state(checkpoint, objective.fingerprint(), &found.name, threads)?;
                check_base(&state, began_with.as_deref(), checkpoint)?;
                let model = checkpoint::load(checkpoint, &model_config, &state, &device, &mut optimizer)?;
                (model, state)
            }
        };
        let model = model.with_compute(compute);
        let workers = Workers::new(threads, config.train.micro_batch_size())?;
        let tokenizer = objective.tokenizer().clone();
        if let (Some(weigh), Some(weights)) = (objective.weighs(), &began_with) {
            let first = || Ok(start(config, &tokenizer, &found.device)?.with_compute(compute));
            weigh.begin(&first, &format!("{weights} {} {compute:?}", found.name), &workers)?;
        }
        let console = match label {
            Some(label) => Console::one_of_several(label, state.step, config.train.max_steps),
            None => Console::stderr(state.step, config.train.max_steps),
        };
        let json_lines = run.path().join(METRICS_FILE);
        let json_lines = match resume_from {
            Some(_) => Jsonl::resume(&json_lines, state.step)?,
            None => Jsonl::create(&json_lines)?,
        };
        let tensor_board = TensorBoard::create(&run.path().join(TENSORBOARD_FOLDER), state.step)?;
        let metrics = Metrics::new().with(json_lines).with(tensor_board).with(console.clone());
        Ok(Self {
            config: config.clone(),
            objective,
            base,
            run,
            resumed_from: resume_from.map(Path::to_owned),
            workers,
            model,
            optimizer,
            state,
            metrics,
            console,
            reports: Updates::default(),
            running: None,
            rate: Rate { since: Instant::now(), tokens: 0 },
        })
    }

    /// The architecture, with the vocabulary filled in.
    pub fn model_config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// Text to ids and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.objective.tokenizer()
    }

    /// What is worth saying of the examples before the first step.
    pub fn summary(&self) -> Option<String> {
        self.objective.summary()
    }

    /// Trains until `train.max_steps`, or until `interrupt` asks to stop.
    pub fn run(mut self, interrupt: &Interrupt) -> Result<Outcome> {
        let max_steps = self.config.train.max_steps;
        let mut outcome = Outcome {
            checkpoint: self.resumed_from.clone().unwrap_or_else(|| self.run.path().to_owned()),
            steps: self.state.step,
            evaluation: None,
            best: self.state.best,
            interrupted: None,
        };
        self.rate = Rate { since: Instant::now(), tokens: self.state.tokens };
        while self.state.step < max_steps && outcome.interrupted.is_none() {
            // one optimiser step; a GPU may still be computing it when the next one begins
            self = self.step()?;
            let step = self.begun();
            let is_last = step == max_steps;
            let is_due = |every: usize| is_last || step.is_multiple_of(every);
            outcome.interrupted = interrupt.requested();
            let (evaluates, saves) = (is_due(self.config.eval.every_steps), is_due(self.config.checkpoint.every_steps));
            if evaluates || saves || outcome.interrupted.is_some() {
                self.finish_step()?;
            }

            // evaluate
            let mut is_best = false;
            if evaluates {
                let before = Instant::now();
                let evaluation = self.evaluate()?;
                is_best = self.keep_best(&evaluation);
                outcome.evaluation = Some(evaluation);
                self.reports.update(self.run.path());
                self.rate.since += before.elapsed(); // evaluation is not training time
            }

            // save
            outcome.interrupted = outcome.interrupted.or(interrupt.requested());
            if saves || is_best || outcome.interrupted.is_some() {
                self.finish_step()?;
                let before = Instant::now();
                match self.save() {
                    Ok(checkpoint) => outcome.checkpoint = checkpoint,
                    Err(error) if is_last || outcome.interrupted.is_some() => return Err(error),
                    Err(error) => self.tolerate(error)?,
                }
                self.rate.since += before.elapsed();
            }
        }
        self.metrics.flush().or_else(|error| self.tolerate(error))?;
        Updates::last(self.run.path());
        (outcome.steps, outcome.best) = (self.state.step, self.state.best);
        Ok(outcome)
    }

    /// Steps begun: the last one may still be running.
    fn begun(&self) -> usize {
        self.state.step + usize::from(self.running.is_some())
    }

    /// Takes a step. On a GPU its first half is asked for while the step before is still running, and only then is the result of that
    /// one waited for: the device always has something to do. Takes the trainer and gives it back, so that the step holds the only
    /// handle on the weights and can change them where they lie.
    fn step(mut self) -> Result<Self> {
        let options = StepOptions::of(&self.config, self.model.config(), self.begun());
        let mut batch = self.objective.batch(self.begun())?;
        if self.objective.weighs().is_some() {
            self.finish_step()?; // the weights depend on what the model is now
        }
        let (begun, rows) = (self.begun(), self.config.train.micro_batch_size());
        let weigh = |weigh: &mut dyn Weigh| weigh.weigh(&self.model.valid(), &self.workers, rows, begun, &mut batch);
        let weighed = self.objective.weighs().map(weigh).transpose()?;
        let computed = Computed::new(&self.model, &self.optimizer, &batch, &self.workers, &options);
        self.finish_step()?;
        let limits = self.config.train.skip_spikes.then(|| self.state.spikes.limits()).flatten();
        let options = StepOptions { limits, ..options };
        let updated = computed.update(self.model, &mut self.optimizer, &self.workers, &options);
        // First of all: what a device that failed computed is often not finite, and then not by the learning rate's fault.
        device_works(options.step)?;
        let (model, result) = updated?;
        let is_known = matches!(result, Pending::Known(_));
        let running = Running { result, tokens: batch.tokens() as u64, learning_rate: options.learning_rate, weighed };
        let mut trainer = Self { model, running: Some(running), ..self };
        if is_known {
            trainer.finish_step()?;
        }
        Ok(trainer)
    }

    /// Waits for the step that is running, if one is, and reports it.
    fn finish_step(&mut self) -> Result<()> {
        let Some(Running { result, tokens, learning_rate, weighed }) = self.running.take() else { return Ok(()) };
        let result = result.wait(&self.model, &mut self.optimizer);
        device_works(self.state.step + 1)?;
        let mut result = result?;
        if let Some(Weighed { loss, .. }) = weighed {
            result.loss = loss;
        }
        self.state.step += 1;
        self.state.tokens += if result.skipped { 0 } else { tokens };
        let step = self.state.step;
        if self.config.train.skip_spikes || result.skipped {
            self.state.spikes.note(step, result.loss, result.grad_norm, result.skipped)?;
        }
        self.metrics.step(step);
        if step == self.config.train.max_steps || step.is_multiple_of(self.config.log.every_steps) {
            let tokens = self.state.tokens - self.rate.tokens;
            let rate = tokens as f64 / self.rate.since.elapsed().as_secs_f64();
            self.report(result, learning_rate, rate, weighed)?;
            self.rate = Rate { since: Instant::now(), tokens: self.state.tokens };
        }
        Ok(())
    }

    /// What becomes of an error of writing while the run can go on: with `checkpoint.on_error = "continue"` a warning.
    fn tolerate(&self, error: Error) -> Result<()> {
        if self.config.checkpoint.on_error == OnError::Stop || !error.is_io() {
            return Err(error);
        }
        tracing::warn!("step {}, training goes on: {}", self.state.step, with_causes(&error));
        Ok(())
    }

    fn report(
        &mut self,
        result: StepResult,
        learning_rate: f64,
        tokens_per_second: f64,
        weighed: Option<Weighed>,
    ) -> Result<()> {
        let mut record = Record::new(self.state.step, self.state.tokens)
            .with(tag::TRAIN_LOSS, result.loss)
            .with(tag::TRAIN_GRAD_NORM, result.grad_norm)
            .with(tag::TRAIN_LR, learning_rate)
            .with(tag::TRAIN_TOKENS_PER_SECOND, tokens_per_second);
        if self.config.train.skip_spikes {
            record = record.with(tag::TRAIN_SKIPPED, self.state.spikes.skipped() as f64);
        }
        record.values.extend(weighed.into_iter().flat_map(|weighed| weighed.values));
        self.metrics.record(&record).or_else(|error| self.tolerate(error))
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        let model = self.model.valid().merged().for_generation();
        let rows = self.config.train.micro_batch_size();
        let evaluation = self.objective.evaluate(&model, &self.workers, rows);
        device_works(self.state.step)?;
        let evaluation = evaluation?;
        let loss = evaluation.score.nats_per_token();
        if !loss.is_finite() {
            return Err(Error::NotFinite { step: self.state.step, what: "the validation loss".to_owned() });
        }
        let mut record = Record::new(self.state.step, self.state.tokens).with(tag::VAL_LOSS, loss);
        if evaluation.score.bytes > 0 {
            record = record.with(tag::VAL_BITS_PER_BYTE, evaluation.score.bits_per_byte());
        }
        if let (Some(floor), Some(gap)) = (evaluation.floor, evaluation.gap()) {
            record = record.with(tag::VAL_FLOOR, floor).with(tag::VAL_GAP, gap);
        }
        for grade in &evaluation.grades {
            if let Some(share) = grade.share() {
                record = record.with(grade.tag, share);
            }
        }
        self.metrics.record(&record).or_else(|error| self.tolerate(error))?;
        if self.config.eval.sample_tokens > 0
            && let Err(error) = self.sample(&model)
        {
            tracing::warn!("no sample: {error}"); // not worth losing the steps since the last checkpoint
        }
        Ok(evaluation)
    }

    /// Writes a little text, to the terminal and to the run's `samples`.
    fn sample(&self, model: &LanguageModel) -> Result<()> {
        let Prompt { ids, shown, end_ids } = self.objective.prompt()?;
        let seed = derive(self.config.seed, &[self.state.step as u64]);
        let sampling = Sampling { temperature: 0.8, seed, ..Sampling::default() };
        let count = self.config.eval.sample_tokens;
        let tokens = Tokens::new(model, &ids, count, &sampling)?.end_at(&end_ids);
        let sample = shown + &text(tokens, self.objective.tokenizer(), &[], |_| Ok(()))?.text;

        self.console.print(&format!("  | {}", sample.trim().replace('\n', "\n  | ")));
        let folder = self.run.path().join(SAMPLES_FOLDER);
        let write = || -> std::io::Result<()> {
            if !folder.exists() {
                fs::create_dir(&folder)?; // not `_all`: a run that was moved away must not come back as an empty one
            }
            fs::write(folder.join(format!("step-{:06}.txt", self.state.step)), sample + "\n")
        };
        write().map_err(|source| Error::Io { action: "write", what: "a sample", source })
    }

    /// Notes an evaluation better than all before.
    fn keep_best(&mut self, evaluation: &Evaluation) -> bool {
        let value = evaluation.score.nats_per_token();
        let is_best = self.state.best.is_none_or(|best| value < best.value);
        if is_best {
            self.state.best = Some(Best { step: self.state.step, value });
        }
        is_best
    }

    fn save(&mut self) -> Result<PathBuf> {
        // First the metrics: after a crash none up to the checkpoint's step may be missing.
        self.metrics.flush().or_else(|error| self.tolerate(error))?;
        let Self { config, model, objective, base, optimizer, state, .. } = &*self;
        let options = lora_options(config, model.config());
        let adapter = options.as_ref().zip(base.as_ref().map(|base| &*base.path));
        self.run.publish(state.step, config.checkpoint.keep_last, state.best, |disk, directory| {
            let (tokenizer, chat) = (objective.tokenizer(), objective.chat_format());
            let parts = CheckpointParts { run_config: config, model, adapter, tokenizer, chat, optimizer, state };
            checkpoint::save(disk, directory, parts)
        })
    }
}

/// That a run that still needs the model it began with goes on with that one.
fn check_base(state: &State, began_with: Option<&str>, checkpoint: &Path) -> Result<()> {
    if began_with.is_none_or(|began_with| state.base_sha256.as_deref() == Some(began_with)) {
        return Ok(());
    }
    Err(Error::Run {
        path: checkpoint.to_owned(),
        problem: "began with other weights than those that `model.from` means now".to_owned(),
        hint: "set `model.from` to the model that the run began with".to_owned(),
    })
}

/// That the device's own thread reported no failure up to the end of `step`.
fn device_works(step: usize) -> Result<()> {
    failures::first().map_or(Ok(()), |problem| Err(Error::Device { step, problem }))
}
