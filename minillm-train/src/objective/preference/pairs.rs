//! Pairs of answers as tokens: from files, or about tales.

use sha2::{Digest, Sha256};

use crate::config::RunConfig;
use crate::conversations::{Example, Format, Record, at_line, held_out_every, read};
use crate::data::{Progress, hex};
use crate::error::{Error, Result};
use crate::tales::chat::{Message, Role, as_conversation};
use crate::tales::preferences::{Pair, is_selfish, pair};

/// Pairs, the chosen answer first, each with its prompt.
pub type Set = [[Example; 2]];

/// Pairs about tales that are learned from: more than the steps of the configuration take. What the reference thinks of each is computed
/// before the first step.
const TALES: u64 = 2048;
/// Pairs about tales that are held out.
const HELD_OUT_TALES: u64 = 400;

/// What is learned from and what is held out.
#[derive(Debug)]
pub struct Pairs {
    /// Learned from.
    pub training: Vec<[Example; 2]>,
    /// Held out.
    pub validation: Vec<[Example; 2]>,
    /// Answers that were longer than half of a row.
    pub cut: usize,
    /// Pairs without two different answers.
    pub left_out: usize,
    /// Of preferences over tales: the mean loss of the best policy on the pairs that are held out, in nats. On average over all pairs it is
    /// [`least_loss`](crate::tales::preferences::least_loss).
    pub floor: Option<f64>,
    /// SHA-256 over all tokens, in hexadecimal.
    pub fingerprint: String,
}

impl Pairs {
    /// The pairs of a configuration.
    pub fn prepare(config: &RunConfig, format: &Format, progress: &dyn Progress) -> Result<Self> {
        let (mut pairs, mut floor) = (Vec::new(), None);
        if config.data.files.is_empty() {
            let seed = minillm_model::random::derive(config.seed, &[0]);
            for index in 0..TALES + HELD_OUT_TALES {
                let pair = pair(seed, index, config.objective.rho, config.objective.only_unlike);
                pairs.push(of_tales(format, &pair)?);
                if index >= TALES {
                    *floor.get_or_insert(0.0) += best_loss(&pair, config.objective.rho) / HELD_OUT_TALES as f64;
                }
            }
        } else {
            read(&config.data.files, progress, |path, line, record| {
                let Record::Preference { chosen, rejected } = record else {
                    return Err(Error::Data {
                        path: path.to_owned(),
                        problem: format!("line {line} holds no preference"),
                        hint: "write `prompt`, `chosen` and `rejected`, or set `objective.kind` to `chat`".to_owned(),
                    });
                };
                let example = |record| format.example(record).map_err(|error| at_line(path, line, &error));
                pairs.push([example(&chosen)?, example(&rejected)?]);
                Ok(())
            })?;
        }
        let (mut hash, mut cut) = (Sha256::new(), 0);
        hash.update(format.tokenizer().fingerprint());
        hash.update(config.data.validation_fraction.to_le_bytes());
        let most = config.train.context / 2;
        for pair in &mut pairs {
            for example in pair.iter_mut() {
                if example.places() > most {
                    cut += 1;
                    example.ids.truncate(most + 1);
                    example.is_trained.truncate(most + 1);
                }
                example.add_to(&mut hash);
            }
        }
        // Of a pair without two different answers nothing can be learned.
        let count = pairs.len();
        pairs.retain(|[chosen, rejected]| chosen != rejected && chosen.targets() > 0 && rejected.targets() > 0);
        let left_out = count - pairs.len();
        if config.data.files.is_empty() && left_out > 0 {
            return Err(no_room(config.train.context));
        }
        let every = held_out_every(config.data.validation_fraction, pairs.len());
        let is_held_out = |index: usize| {
            if config.data.files.is_empty() { index as u64 >= TALES } else { (index + 1).is_multiple_of(every) }
        };
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for (index, pair) in pairs.into_iter().enumerate() {
            if is_held_out(index) { validation.push(pair) } else { training.push(pair) }
        }
        if training.is_empty() || validation.is_empty() {
            return Err(Error::Data {
                path: config.data.files.first().cloned().unwrap_or_default(),
                problem: format!(
                    "holds too few pairs of different answers: one is learned from and another is held out ({left_out} left out)"
                ),
                hint: "give more pairs, or raise `train.context`".to_owned(),
            });
        }
        Ok(Self { training, validation, cut, left_out, floor, fingerprint: hex(&hash.finalize()) })
    }
}

/// The loss of the best policy, whose log-ratios are the rewards: -ln of the probability of the choice.
fn best_loss(pair: &Pair, rho: f64) -> f64 {
    if !pair.unlike {
        return std::f64::consts::LN_2;
    }
    let gap = if is_selfish(&pair.rejected) == Some(true) { rho } else { -rho };
    (-gap).exp().ln_1p()
}

fn of_tales(format: &Format, pair: &Pair) -> Result<[Example; 2]> {
    let example = |answer: &str| {
        let messages = [&pair.prompt[..], &[Message::new(Role::Assistant, answer)]].concat();
        let (prompt, whole) = (as_conversation(&pair.prompt), as_conversation(&messages));
        format.example(&Record::Completion { prompt, whole })
    };
    Ok([example(&pair.chosen)?, example(&pair.rejected)?])
}

/// No row holds a pair.
fn no_room(context: usize) -> Error {
    Error::Config {
        origin: "configuration".to_owned(),
        field: "train.context".to_owned(),
        problem: format!("is {context}, and half of it does not hold every tale with its wish"),
        hint: "512 holds every pair".to_owned(),
    }
}
