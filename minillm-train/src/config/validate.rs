//! Ranges, and fields that must fit one another. Types and names are settled before.

use minillm_model::config::ModelOptions;

use super::RunConfig;
use super::errors::config_error;
use crate::error::{Error, Result};
use crate::schedule::ScheduleKind;

/// Which file or `--set` a value came from is not known here.
const ORIGIN: &str = "configuration";

impl RunConfig {
    /// Checks every range, and every field against those it must fit.
    ///
    /// # Errors
    /// [`Error::Config`] with the key and what to do. Its origin is `configuration`: [`RunConfig::load`] knows better.
    pub fn validate(&self) -> Result<()> {
        let seed_fits = i64::try_from(self.seed).is_ok();
        require(seed_fits, "seed", "is above 2^63 - 1", "TOML holds whole numbers up to 9223372036854775807")?;
        self.data.validate()?;
        self.tokenizer.validate()?;
        self.objective.validate(&self.data)?;
        if let Some(lora) = &self.lora {
            lora.validate(&self.model)?;
        }
        self.validate_counts()?;
        self.validate_model()?;
        self.validate_optimizer()?;
        self.validate_schedule()
    }

    fn validate_counts(&self) -> Result<()> {
        let train = &self.train;
        for (field, value) in [
            ("train.max_steps", train.max_steps),
            ("train.batch_size", train.batch_size),
            ("train.micro_batch_size", train.micro_batch_size()),
            ("train.context", train.context),
            ("checkpoint.keep_last", self.checkpoint.keep_last),
        ] {
            require(value > 0, field, is(value), "choose 1 or more")?;
        }
        for (field, value) in [
            ("eval.every_steps", self.eval.every_steps),
            ("checkpoint.every_steps", self.checkpoint.every_steps),
            ("log.every_steps", self.log.every_steps),
        ] {
            let hint = "choose 1 or more; a number above train.max_steps leaves only the one at the end";
            require(value > 0, field, is(value), hint)?;
        }
        let samples = self.eval.sample_tokens;
        require(samples <= 100_000, "eval.sample_tokens", is(samples), "choose some hundreds, or 0 for no samples")?;
        let (micro, batch) = (train.micro_batch_size(), train.batch_size);
        let problem = format!("is {micro}, above train.batch_size = {batch}");
        let hint = "it is how many sequences of a batch go through the model at once; leave it out for all";
        require(micro <= batch, "train.micro_batch_size", problem, hint)?;
        let clip = train.grad_clip;
        require(
            clip.is_finite() && clip >= 0.0,
            "train.grad_clip",
            is(clip),
            "choose a positive norm, or 0 for no limit",
        )
    }

    /// The architecture by the model's own rules. The vocabulary is not known yet, so any size stands for it.
    fn validate_model(&self) -> Result<()> {
        let context = self.train.context;
        if self.model.from.is_some() {
            // Whatever else is set would contradict the model that is there.
            let ModelOptions { from, dropout, max_position_embeddings, .. } = self.model.clone();
            let allowed = ModelOptions { from, dropout, max_position_embeddings, ..ModelOptions::default() };
            let hint = "leave out every other field of [model] but `dropout` and `max_position_embeddings`: they are those of the \
                        model it starts from";
            return require(self.model == allowed, "model.from", "is given beside other fields".to_owned(), hint);
        }
        let model = self.model.resolve(self.model.vocab_size.unwrap_or(1), context);
        model.validate().map_err(|error| match error {
            minillm_model::error::Error::InvalidConfig { field: "max_position_embeddings", problem, hint }
                if self.model.max_position_embeddings.is_none() =>
            {
                config_error(ORIGIN, "train.context", problem, hint)
            }
            minillm_model::error::Error::InvalidConfig { field, problem, hint } => {
                config_error(ORIGIN, &format!("model.{field}"), problem, hint)
            }
            other => Error::Model(other),
        })?;
        let longest = model.max_position_embeddings;
        let problem = format!("is {context}, above model.max_position_embeddings = {longest}");
        require(context <= longest, "train.context", problem, "leave max_position_embeddings out, or raise it")?;
        // A billion tokens a step is a typing error; the batch's memory is asked for at once.
        let batch = self.train.batch_size;
        let tokens = batch.saturating_mul(context);
        let problem = format!("is {batch}, which with train.context = {context} makes {tokens} tokens a step");
        require(tokens <= 1 << 30, "train.batch_size", problem, "lower one of the two")
    }

    fn validate_optimizer(&self) -> Result<()> {
        let optimizer = &self.optimizer;
        for (field, value) in
            [("optimizer.learning_rate", optimizer.learning_rate), ("optimizer.epsilon", optimizer.epsilon)]
        {
            // The optimiser computes in f32, where a smaller or larger number would become 0 or infinity.
            let narrow = value as f32;
            require(
                narrow.is_finite() && narrow > 0.0,
                field,
                is(value),
                "choose a positive number from 1e-30 to 1e30",
            )?;
        }
        for (field, value) in [("optimizer.beta1", optimizer.beta1), ("optimizer.beta2", optimizer.beta2)] {
            require((0.0..1.0).contains(&(value as f32)), field, is(value), "choose a share from 0 to below 1")?;
        }
        let decay = optimizer.weight_decay;
        let hint = "choose 0 for none, or a positive number such as 0.1";
        require((decay as f32).is_finite() && decay >= 0.0, "optimizer.weight_decay", is(decay), hint)
    }

    fn validate_schedule(&self) -> Result<()> {
        let (schedule, max_steps) = (&self.schedule, self.train.max_steps);
        let peak = self.optimizer.learning_rate;
        let (min, warmup) = (schedule.min_learning_rate(peak), schedule.warmup_steps(max_steps));
        let (end, cooldown) = (schedule.decay_steps(max_steps), schedule.cooldown_steps(max_steps));

        let field = "schedule.min_learning_rate";
        require(min.is_finite() && min >= 0.0, field, is(min), "choose 0 or more; a tenth of the peak is usual")?;
        let problem = format!("is {min}, above optimizer.learning_rate = {peak}");
        require(min <= peak, field, problem, "leave it out for a tenth of the peak, or lower it")?;

        let field = "schedule.warmup_steps";
        require(end > 0, "schedule.decay_steps", is(end), "leave it out for train.max_steps")?;
        // A run cut short (`--set train.max_steps=20`) may end within its warm-up; a schedule may not.
        let is_open = schedule.decay_steps.is_none_or(|end| end == max_steps);
        let problem = format!("is {warmup}, above schedule.decay_steps = {end}");
        require(warmup <= end || is_open, field, problem, "the decay begins after the warm-up")?;

        let room = end.saturating_sub(warmup);
        let fits = schedule.kind != ScheduleKind::Wsd || cooldown <= room;
        let problem = format!("is {cooldown}, but only {room} steps lie between warm-up and schedule.decay_steps");
        require(fits, "schedule.cooldown_steps", problem, "lower it, or schedule.warmup_steps")
    }
}

fn is(value: impl std::fmt::Display) -> String {
    format!("is {value}")
}

fn require(good: bool, field: &str, problem: impl Into<String>, hint: &str) -> Result<()> {
    if good { Ok(()) } else { Err(config_error(ORIGIN, field, problem, hint)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message for the default configuration with one change.
    #[track_caller]
    fn refusal(change: impl FnOnce(&mut RunConfig)) -> String {
        let mut config = RunConfig::default();
        config.validate().unwrap();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert!(error.hint().is_some());
        error.to_string()
    }

    #[test]
    fn zero_and_negative_counts_and_rates() {
        assert_eq!(refusal(|c| c.train.max_steps = 0), "configuration: `train.max_steps` is 0");
        assert_eq!(refusal(|c| c.train.batch_size = 0), "configuration: `train.batch_size` is 0");
        assert_eq!(refusal(|c| c.train.context = 0), "configuration: `train.context` is 0");
        assert_eq!(refusal(|c| c.log.every_steps = 0), "configuration: `log.every_steps` is 0");
        assert_eq!(refusal(|c| c.checkpoint.keep_last = 0), "configuration: `checkpoint.keep_last` is 0");
        assert_eq!(refusal(|c| c.train.grad_clip = f64::NAN), "configuration: `train.grad_clip` is NaN");
        assert_eq!(refusal(|c| c.optimizer.learning_rate = -1.0), "configuration: `optimizer.learning_rate` is -1");
        assert_eq!(refusal(|c| c.optimizer.beta2 = 1.0), "configuration: `optimizer.beta2` is 1");
        assert_eq!(refusal(|c| c.optimizer.epsilon = 0.0), "configuration: `optimizer.epsilon` is 0");
        let message = "configuration: `optimizer.weight_decay` is inf";
        assert_eq!(refusal(|c| c.optimizer.weight_decay = f64::INFINITY), message);
        assert!(
            refusal(|c| c.data.validation_fraction = 1.0).starts_with("configuration: `data.validation_fraction` is 1")
        );
        assert!(refusal(|c| c.seed = u64::MAX).starts_with("configuration: `seed` is above"));
    }

    #[test]
    fn fields_that_do_not_fit_one_another() {
        let message = "configuration: `train.micro_batch_size` is 17, above train.batch_size = 16";
        assert_eq!(refusal(|c| c.train.micro_batch_size = Some(17)), message);
        let message = "configuration: `schedule.min_learning_rate` is 0.01, above optimizer.learning_rate = 0.001";
        assert_eq!(refusal(|c| c.schedule.min_learning_rate = Some(0.01)), message);
        let message = "configuration: `schedule.warmup_steps` is 100, above schedule.decay_steps = 50";
        assert_eq!(refusal(|c| c.schedule.decay_steps = Some(50)), message);
        let message = "configuration: `schedule.cooldown_steps` is 1901, but only 1900 steps lie between warm-up and \
                       schedule.decay_steps";
        let change = |c: &mut RunConfig| {
            c.schedule.kind = ScheduleKind::Wsd;
            c.schedule.cooldown_steps = Some(1901);
        };
        assert_eq!(refusal(change), message);
        let message = "configuration: `train.context` is 128, above model.max_position_embeddings = 64";
        assert_eq!(refusal(|c| c.model.max_position_embeddings = Some(64)), message);
        let message = "configuration: `model.num_attention_heads` is 3, which does not divide hidden_size = 128";
        assert_eq!(refusal(|c| c.model.num_attention_heads = Some(3)), message);
        assert!(refusal(|c| c.train.context = 1 << 30).starts_with("configuration: `train.context` is 1073741824"));
    }
}
